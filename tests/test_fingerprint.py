"""Measurements of the training split."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pixelwise.classes import IGNORE
from pixelwise.data import folder as folders
from pixelwise.data.cache import Cache, Decoded, default_folder, unify_channels
from pixelwise.data.dataset import Case
from pixelwise.data.fingerprint import UPRIGHT_IMAGES, measure

CLASSES = 3
NO_PICTURE = np.zeros((32, 32), np.float32)


def decoded(image: np.ndarray, mask: np.ndarray | None = None, key: str = "0") -> Decoded:
    """A case from arrays."""
    mask = np.zeros(image.shape[:2], np.uint8) if mask is None else mask
    counts = np.bincount(mask.reshape(-1), minlength=IGNORE + 1)[:CLASSES].astype(np.int64)
    return Decoded(
        Case(key, Path(key)),
        lambda: image,
        lambda: mask,
        image.shape,
        counts,
        np.zeros((0, 3), np.int64),
        key,
        key,
        NO_PICTURE,
    )


def of_masks(masks: Sequence[np.ndarray]) -> list[Decoded]:
    return [decoded(np.zeros((*mask.shape, 1), np.uint8), mask, str(n)) for n, mask in enumerate(masks)]


def noise(dtype: str, sizes: Sequence[tuple[int, int]], channels: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    made = [rng.normal(100 + 20 * n, 1 + n, (*size, channels)) for n, size in enumerate(sizes)]
    return [np.clip(values, 0, 255).astype(dtype) for values in made]


IMAGES = {
    "one size": noise("uint8", [(8, 9)] * 4, 3),
    "many sizes": noise("uint8", [(3, 5), (40, 7), (1, 1), (16, 16)], 3),
    "sixteen bits": [image * np.uint16(250) for image in noise("uint16", [(8, 9), (5, 5)], 1)],
    "float": noise("float32", [(8, 9), (5, 5)], 2),
    "far from zero": [(image + np.float32(1e6)) for image in noise("float32", [(30, 30), (50, 5)], 1)],
    "constant images of different value": [np.full((4, 4, 1), value, np.uint8) for value in (10, 20, 40)],
    "a constant and a noisy image": [np.full((6, 4, 2), 9, np.uint8), *noise("uint8", [(5, 7)], 2)],
    "a constant channel": [
        np.concatenate([image, np.full_like(image, 9)], -1) for image in noise("uint8", [(5, 7)] * 2, 1)
    ],
    "deviation of exactly one": [np.array([[[1], [3]], [[3], [1]]], np.uint8), np.full((2, 2, 1), 2, np.uint8)],
}


@pytest.mark.parametrize("name", IMAGES)
def test_pooled_statistics_are_those_of_all_pixels_together(name: str) -> None:
    images = IMAGES[name]
    together = np.concatenate([image.reshape(-1, image.shape[-1]) for image in images]).astype(np.float64)
    fingerprint = measure([decoded(image) for image in images])
    np.testing.assert_allclose(fingerprint.mean, together.mean(axis=0), rtol=1e-12)
    expected = together.std(axis=0)
    np.testing.assert_allclose(fingerprint.deviation, np.where(expected > 0, expected, 1.0), rtol=1e-9)


def test_images_that_are_all_one_value_have_deviation_one() -> None:
    fingerprint = measure([decoded(np.full(size, 7, np.uint8)) for size in [(4, 4, 2), (3, 9, 2)]])
    assert fingerprint.mean == (7.0, 7.0)
    assert fingerprint.deviation == (1.0, 1.0)


def test_sizes_are_those_of_the_images() -> None:
    fingerprint = measure([decoded(np.zeros((*size, 4), np.uint8)) for size in [(10, 30), (20, 10), (40, 80)]])
    assert fingerprint.images == 3
    assert fingerprint.channels == 4
    assert fingerprint.median_size_px == (20, 30)
    assert fingerprint.smallest_size_px == (10, 10)
    assert fingerprint.largest_size_px == (40, 80)
    assert fingerprint.megapixels == pytest.approx((300 + 200 + 3200) / 1e6)


def test_types_and_the_largest_value_are_those_of_all_images() -> None:
    images = [np.full((4, 4, 1), 7, np.uint8), np.full((4, 4, 1), 900, np.uint16), np.full((2, 2, 1), 9, np.uint8)]
    fingerprint = measure([decoded(image) for image in images])
    assert fingerprint.types == ("uint16", "uint8")
    assert fingerprint.largest == 900.0


def test_class_fractions_are_of_the_pixels_that_count() -> None:
    # by hand: 12 pixels, 2 ignored; of 10 counted, 7 are class 0, 3 are class 1, none is class 2
    first = np.array([[0, 0, 0], [1, 1, IGNORE]], np.uint8)
    second = np.array([[0, 0, 0], [0, 1, IGNORE]], np.uint8)
    fingerprint = measure(of_masks([first, second]))
    assert fingerprint.class_fractions == pytest.approx((0.7, 0.3, 0.0))
    assert fingerprint.class_images == (2, 2, 0)
    assert fingerprint.ignored_fraction == pytest.approx(2 / 12)


def test_masks_that_are_all_ignored_have_no_classes() -> None:
    fingerprint = measure(of_masks([np.full((4, 4), IGNORE, np.uint8)]))
    assert fingerprint.class_fractions == (0.0, 0.0, 0.0)
    assert fingerprint.class_images == (0, 0, 0)
    assert fingerprint.ignored_fraction == 1.0


def test_the_hash_is_that_of_all_cases() -> None:
    images = [np.zeros((2, 2, 1), np.uint8)] * 2
    one, same = (measure([decoded(image, key=key) for image, key in zip(images, "ab", strict=True)]) for _ in range(2))
    other = measure([decoded(image, key=key) for image, key in zip(images, "ac", strict=True)])
    assert one.data_hash == same.data_hash != other.data_hash


# --- how fine masks are ---


def test_what_is_left_of_reduced_masks_by_hand() -> None:
    # blocks of 8 x 8 survive every reduction; stripes of one pixel become all one class or the other
    blocks = np.kron(np.indices((4, 4)).sum(axis=0) % 2, np.ones((8, 8))).astype(np.uint8)
    assert measure(of_masks([blocks])).reduced_miou == (1.0, 1.0, 1.0)
    stripes = (np.arange(64)[:, None] % 2 * np.ones((1, 64))).astype(np.uint8)
    # every second row is right: of the class that is left IoU 1/2, of the other 0
    assert measure(of_masks([stripes])).reduced_miou == pytest.approx((0.25, 0.25, 0.25))


def test_objects_that_vanish_by_hand() -> None:
    # one dot of one pixel where no reduced mask looks (reduced twice, odd rows and columns are kept), one of 8 x 8
    mask = np.zeros((64, 64), np.uint8)
    mask[10, 20], mask[32:40, 32:40] = 1, 1
    mask[11, 40], mask[12, 41] = 2, 2  # one object that hangs together by a corner, and none of its pixels is kept
    measured = measure(of_masks([mask, mask]), background=0)
    assert measured.lost_objects[0] == (0.0, 0.5, 1.0)
    assert measured.lost_objects[2] == (0.0, 0.5, 1.0)


def test_ignored_pixels_do_not_make_masks_fine() -> None:
    mask = np.ones((32, 32), np.uint8)
    mask[::4] = IGNORE
    assert measure(of_masks([mask])).reduced_miou[0] == 1.0
    assert measure(of_masks([np.full((4, 4), IGNORE, np.uint8)])).reduced_miou == (1.0, 1.0, 1.0)


def test_the_spread_of_shapes_is_the_largest_over_the_smallest() -> None:
    fingerprint = measure(of_masks([np.zeros(size, np.uint8) for size in [(10, 20), (20, 40), (10, 30)]]))
    assert fingerprint.aspect_spread == pytest.approx(1.5)


# --- which way is up ---


def street(rng: np.random.Generator, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Sky above, road below, a horizon somewhere around the middle, and a house."""
    mask = np.zeros(size, np.uint8)
    horizon = round(size[0] * rng.uniform(0.35, 0.6))
    mask[horizon:] = 1
    left = int(rng.integers(0, size[1] - 10))
    mask[horizon - 8 : horizon + 2, left : left + 10] = 2
    return mask


def discs(rng: np.random.Generator, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, np.uint8)
    for _ in range(4):
        y, x, radius = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(3, 12)
        mask[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = rng.integers(1, 3)
    return mask


@pytest.mark.parametrize("images", [UPRIGHT_IMAGES, 40])
def test_streets_are_upright(images: int) -> None:
    rng = np.random.default_rng(0)
    assert measure(of_masks([street(rng) for _ in range(images)])).upright


def test_streets_lying_on_their_side_or_turned_at_random_are_not() -> None:
    rng = np.random.default_rng(0)
    assert not measure(of_masks([np.ascontiguousarray(street(rng).T) for _ in range(40)])).upright
    assert not measure(of_masks([np.flipud(street(rng)) if n % 2 else street(rng) for n in range(40)])).upright


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("images", [UPRIGHT_IMAGES, 40])
def test_discs_are_not_upright(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    assert not measure(of_masks([discs(rng) for _ in range(images)])).upright


def test_few_images_say_nothing() -> None:
    rng = np.random.default_rng(0)
    assert not measure(of_masks([street(rng) for _ in range(UPRIGHT_IMAGES - 1)])).upright


def test_a_single_row_of_pixels_has_no_upper_half() -> None:
    assert not measure(of_masks([np.array([[0, 1, 2]], np.uint8), *[np.zeros((3, 3), np.uint8)] * 9])).upright


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("folder", "upright"), [("camvid", True), ("isbi2012_em/train", False), ("wbc_smears/Dataset 1", False)]
)
@pytest.mark.slow
def test_real_road_scenes_are_upright_and_real_cells_are_not(realdata: Path, folder: str, upright: bool) -> None:
    dataset = folders.scan(realdata / folder)
    labelled = [case for case in dataset.cases if case.masks]
    cases = labelled[:: max(1, len(labelled) // 30)]
    decoded_cases = unify_channels(Cache(default_folder(), dataset).open_all(cases))
    assert measure(decoded_cases).upright is upright


def test_variance_between_images_is_what_their_means_explain() -> None:
    dark, bright = np.full((4, 4, 1), 10, np.uint8), np.full((4, 4, 1), 90, np.uint8)
    halves = np.concatenate([dark[:2], bright[:2]])
    assert measure([decoded(dark), decoded(bright)]).between_images == pytest.approx(1.0)
    assert measure([decoded(halves), decoded(halves)]).between_images == pytest.approx(0.0)
    # means 10, 90, 50 and 50: the variance between them is 800, that of all pixels 1600
    assert measure([decoded(dark), decoded(bright), decoded(halves), decoded(halves)]).between_images == pytest.approx(
        0.5
    )
