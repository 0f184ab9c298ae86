"""Augmentation: one contract for every part, and each part against an independent answer."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import ndimage

from pixelwise.classes import IGNORE
from pixelwise.config import AugmentConfig
from pixelwise.data.augment import (
    ELASTIC_REACH,
    GEOMETRIC,
    INTENSITY,
    Draw,
    apply,
    augment,
    augment_with_maps,
    draw,
    elastic_field,
    window_size,
)
from pixelwise.data.preprocess import scaling
from pixelwise.errors import DataError

PATCH = (48, 64)

OFF: dict[str, float] = {
    "flip_horizontal": 0.0,
    "flip_vertical": 0.0,
    "rotation_degrees": 0.0,
    "scale": 0.0,
    "shear_degrees": 0.0,
    "translation_fraction": 0.0,
    "elastic_sigma_px": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "gamma": 0.0,
    "noise": 0.0,
    "blur_sigma_px": 0.0,
    "saturation": 0.0,
    "tint": 0.0,
    "geometric_probability": 1.0,
    "intensity_probability": 1.0,
}

STRONG: dict[str, dict[str, float]] = {
    "flip_horizontal": {"flip_horizontal": 1.0},
    "flip_vertical": {"flip_vertical": 1.0},
    "rotation": {"rotation_degrees": 180.0},
    "scale": {"scale": 0.5},
    "shear": {"shear_degrees": 20.0},
    "translation": {"translation_fraction": 0.2},
    "elastic": {"elastic_sigma_px": 4.0, "elastic_spacing_px": 20.0},
    "blur": {"blur_sigma_px": 2.0},
    "brightness": {"brightness": 0.5},
    "contrast": {"contrast": 0.5},
    "gamma": {"gamma": 0.5},
    "noise": {"noise": 0.3},
    "saturation": {"saturation": 0.5},
    "tint": {"tint": 0.5},
}
"""One part alone, strongly and always."""

PARTS = [*STRONG, "everything"]


def only(name: str, **changes: float) -> AugmentConfig:
    if name == "everything":
        merged = {key: value for part in STRONG.values() for key, value in part.items()}
        return AugmentConfig(**{**OFF, **merged, "geometric_probability": 0.7, "intensity_probability": 0.5, **changes})
    return AugmentConfig(**{**OFF, **STRONG[name], **changes})


def smooth_windows(
    count: int, channels: int, size: tuple[int, int], seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth random images, and masks that are a function of the first channel, some of it IGNORE."""
    fields = np.random.default_rng(seed).standard_normal((count, channels, *size))
    fields = ndimage.gaussian_filter(fields, (0, 0, 3, 3), mode="reflect")
    image = torch.from_numpy(fields / fields.std()).float()
    mask = torch.bucketize(image[:, 0].contiguous(), torch.tensor([-0.5, 0.5])).to(torch.uint8)
    mask[mask == 2] = IGNORE
    return image, mask


def middle(batch: torch.Tensor, patch: tuple[int, int] = PATCH) -> torch.Tensor:
    top, left = (batch.shape[-2] - patch[0]) // 2, (batch.shape[-1] - patch[1]) // 2
    return batch[..., top : top + patch[0], left : left + patch[1]]


def as_drawn(image: torch.Tensor, mask: torch.Tensor, matrix: list[list[float]], patch: tuple[int, int] = PATCH):
    """All samples through one affine map, through the same code as `augment`."""
    count = len(image)
    made = Draw(
        matrix=torch.tensor(matrix).expand(count, 2, 3),
        nodes=torch.zeros(count, 2, 4, 4),
        spacing_px=64.0,
        warped=torch.ones(count, dtype=torch.bool),
        amounts=torch.zeros(count, len(INTENSITY)),
        seeds=torch.arange(count),
    )
    return apply(image, mask, made, patch)


# --- The contract: every part answers the same questions --------------------------------------------------------------


def test_the_contract_asks_every_part() -> None:
    assert {*GEOMETRIC, *INTENSITY} <= set(STRONG)
    assert {key for part in STRONG.values() for key in part} | set(OFF) == {
        key for key in AugmentConfig.model_fields if key not in {"strength", "own"}
    }


@pytest.mark.parametrize("name", PARTS)
def test_strength_zero_is_exactly_the_middle_of_the_window(name: str) -> None:
    image, mask = smooth_windows(6, 2, (71, 80))
    images, masks = augment(image, mask, torch.arange(6), PATCH, only(name, strength=0.0))
    assert torch.equal(images, middle(image))
    assert torch.equal(masks, middle(mask))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_raw_windows_become_what_normalised_ones_do(kind: type[np.generic]) -> None:
    """Interpolation is linear, so that it may come before normalisation."""
    config = AugmentConfig(intensity_probability=1.0)
    size = window_size(PATCH, config)
    raw = np.random.default_rng(0).integers(0, 200, (6, *size, 2)).astype(kind)
    means, deviations = [90.0, 20.0], [50.0, 3.0]
    normalised = torch.from_numpy(((raw - np.array(means)) / deviations).astype(np.float32)).permute(0, 3, 1, 2)
    mask = torch.from_numpy((raw[..., 0] > 100).astype(np.uint8))
    factors = torch.from_numpy(scaling(means, deviations)).expand(6, -1, -1)
    windows = torch.from_numpy(raw).permute(0, 3, 1, 2)
    images, masks = augment(windows, mask, torch.arange(6), PATCH, config, factors)
    expected, expected_masks = augment(normalised, mask, torch.arange(6), PATCH, config)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=2e-4)
    assert torch.equal(masks, expected_masks)


def test_maps_move_with_the_mask() -> None:
    config = AugmentConfig(intensity_probability=1.0, geometric_probability=0.7)
    image, mask = smooth_windows(8, 2, window_size(PATCH, config))
    seeds, nothing = torch.arange(8), torch.tensor([[1.0, 1.0], [0.0, 0.0]]).expand(8, -1, -1)
    images, masks, maps = augment_with_maps(
        image, mask, torch.stack([mask, 255 - mask], dim=1), seeds, PATCH, config, nothing
    )
    expected, expected_masks = augment(image, mask, seeds, PATCH, config, nothing)
    assert torch.equal(images, expected)
    assert torch.equal(masks, expected_masks)
    assert torch.equal(maps, torch.stack([masks, 255 - masks], dim=1))


@pytest.mark.parametrize("name", PARTS)
def test_a_part_changes_the_image(name: str) -> None:
    config = only(name)
    image, mask = smooth_windows(8, 2, window_size(PATCH, config))
    images, _ = augment(image, mask, torch.arange(8), PATCH, config)
    changed = (images - middle(image)).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert changed.float().mean() >= 0.5  # the smallest of the amounts drawn do very little


@pytest.mark.parametrize("name", PARTS)
def test_equal_seeds_give_equal_results_and_other_seeds_do_not(name: str) -> None:
    config = only(name)
    image, mask = smooth_windows(1, 2, window_size(PATCH, config))
    image, mask = image.expand(3, -1, -1, -1), mask.expand(3, -1, -1)
    seeds = torch.tensor([2**62 + 7, 2**62 + 7, 8])
    images, masks = augment(image, mask, seeds, PATCH, config)
    assert torch.equal(images[0], images[1])
    assert torch.equal(masks[0], masks[1])
    if not name.startswith("flip"):  # a flip that always happens is the same for all
        assert not torch.equal(images[0], images[2])


@pytest.mark.parametrize("name", PARTS)
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    config = only(name)
    image, mask = smooth_windows(5, 3, window_size(PATCH, config))
    seeds = torch.tensor([5, 11, 3, 2, 77])
    together, masks_together = augment(image, mask, seeds, PATCH, config)
    for row in range(5):
        alone, mask_alone = augment(image[row : row + 1], mask[row : row + 1], seeds[row : row + 1], PATCH, config)
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-5)
        assert torch.equal(mask_alone[0], masks_together[row])


@pytest.mark.parametrize("name", PARTS)
def test_labels_shape_and_dtype_are_kept_and_values_are_finite(name: str) -> None:
    config = only(name, strength=2.0)
    image, mask = smooth_windows(6, 1, window_size(PATCH, config))
    for dtype in (torch.uint8, torch.int64):
        images, masks = augment(image, mask.to(dtype), torch.arange(6), PATCH, config)
        assert images.shape == (6, 1, *PATCH)
        assert masks.shape == (6, *PATCH)
        assert masks.dtype == dtype
        assert images.dtype == torch.float32
        assert set(masks.unique().tolist()) <= {0, 1, IGNORE}
        assert images.isfinite().all()


@pytest.mark.parametrize("name", PARTS)
def test_constant_images_stay_finite(name: str) -> None:
    config = only(name)
    size = window_size(PATCH, config)
    images, _ = augment(torch.full((4, 3, *size), 1.5), torch.zeros(4, *size).byte(), torch.arange(4), PATCH, config)
    assert images.isfinite().all()
    if name in {*GEOMETRIC, "elastic", "blur", "contrast", "gamma"}:
        torch.testing.assert_close(images, torch.full_like(images, 1.5))


@pytest.mark.parametrize("name", [*GEOMETRIC, "elastic", "flip_horizontal", "flip_vertical", "everything"])
def test_mask_and_image_move_together(name: str) -> None:
    """A label marks a bright disc: afterwards both have the same centre of mass."""
    config = only(name, **dict.fromkeys(("gamma", "noise", "contrast", "brightness", "tint"), 0.0))
    size = window_size(PATCH, config)
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    disc = (y - size[0] // 2 + 9) ** 2 + (x - size[1] // 2 - 4) ** 2 <= 36
    count = 24
    images, masks = augment(
        disc.float().expand(count, 1, -1, -1), disc.byte().expand(count, -1, -1), torch.arange(count), PATCH, config
    )
    assert masks.flatten(1).any(dim=1).all()
    gaps = [
        np.subtract(ndimage.center_of_mass(image), ndimage.center_of_mass(mask))
        for image, mask in zip(images[:, 0].numpy(), masks.numpy(), strict=True)
    ]
    assert np.abs(gaps).max() < 0.6  # labels are those of the nearest pixel, which is up to half a pixel away
    assert np.abs(np.mean(gaps, axis=0)).max() < 0.2


@pytest.mark.parametrize("name", PARTS)
def test_channels_last_windows_give_the_same(name: str) -> None:
    config = only(name)
    image, mask = smooth_windows(3, 3, window_size(PATCH, config))
    plain, masks = augment(image, mask, torch.arange(3), PATCH, config)
    last, masks_last = augment(
        image.contiguous(memory_format=torch.channels_last), mask, torch.arange(3), PATCH, config
    )
    torch.testing.assert_close(last, plain, rtol=0, atol=1e-5)
    assert torch.equal(masks, masks_last)


@pytest.mark.parametrize("name", PARTS)
def test_the_windows_stay_as_they_are(name: str) -> None:
    config = only(name)
    image, mask = smooth_windows(2, 1, window_size(PATCH, config))
    before, mask_before = image.clone(), mask.clone()
    augment(image, mask, torch.arange(2), PATCH, config)
    assert torch.equal(image, before)
    assert torch.equal(mask, mask_before)


# --- Geometry against independent answers -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "axis"), [("flip_horizontal", -1), ("flip_vertical", -2)])
def test_a_flip_is_torch_flip_bit_for_bit(name: str, axis: int) -> None:
    image, mask = smooth_windows(3, 2, PATCH)
    images, masks = augment(image, mask, torch.arange(3), PATCH, only(name))
    assert torch.equal(images, image.flip(axis))
    assert torch.equal(masks, mask.flip(axis))


def test_a_flip_happens_as_often_as_configured() -> None:
    made = draw(torch.arange(4000), (4, 4), AugmentConfig(**{**OFF, "flip_horizontal": 0.3, "flip_vertical": 0.8}))
    mirrored = (torch.diagonal(made.matrix, dim1=1, dim2=2) < 0).float().mean(dim=0)
    torch.testing.assert_close(mirrored, torch.tensor([0.3, 0.8]), rtol=0, atol=0.03)  # four deviations


def test_samples_that_are_not_warped_are_exact_and_as_many_as_configured() -> None:
    config = AugmentConfig(flip_horizontal=0, flip_vertical=0, geometric_probability=0.6, intensity_probability=0)
    patch = (8, 8)
    image, mask = smooth_windows(1000, 1, window_size(patch, config))
    images, _ = augment(image, mask, torch.arange(1000), patch, config)
    exact = (images == middle(image, patch)).flatten(1).all(dim=1)
    assert exact.float().mean() == pytest.approx(0.4, abs=0.06)


@pytest.mark.parametrize("gaps", [(0, 0), (16, 16), (17, 5)])
def test_a_quarter_turn_is_torch_rot90(gaps: tuple[int, int]) -> None:
    image, mask = smooth_windows(2, 2, (48 + gaps[0], 48 + gaps[1]))
    images, masks = as_drawn(image, mask, [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]], patch=(48, 48))
    torch.testing.assert_close(images, torch.rot90(middle(image, (48, 48)), dims=(-2, -1)), rtol=0, atol=1e-4)
    assert torch.equal(masks, torch.rot90(middle(mask, (48, 48)), dims=(-2, -1)))


def test_the_rotation_part_turns_counter_clockwise_by_the_angle_it_says() -> None:
    matrix = GEOMETRIC["rotation"](torch.tensor([[0.5, 0.0]]), only("rotation"), PATCH)[0, :2]  # 90 of 180 degrees
    image, mask = smooth_windows(1, 1, (80, 80))
    images, masks = as_drawn(image, mask, matrix.tolist(), patch=(48, 48))
    torch.testing.assert_close(images, torch.rot90(middle(image, (48, 48)), dims=(-2, -1)), rtol=0, atol=1e-3)
    assert torch.equal(masks, torch.rot90(middle(mask, (48, 48)), dims=(-2, -1)))


def test_an_affine_map_agrees_with_scipy() -> None:
    matrix = np.array([[0.9, -0.35, 2.25], [0.2, 1.15, -3.5]])  # x, y
    image, mask = smooth_windows(1, 1, (90, 110))
    images, masks = as_drawn(image, mask, matrix.tolist())
    linear = matrix[::-1, 1::-1]  # the same in rows, columns
    centre_in = np.array([(90 - 48) // 2 + 23.5, (110 - 64) // 2 + 31.5])
    offset = centre_in + matrix[::-1, 2] - linear @ np.array([23.5, 31.5])
    expected = ndimage.affine_transform(image[0, 0].numpy(), linear, offset, output_shape=PATCH, order=1)
    labels = ndimage.affine_transform(mask[0].numpy(), linear, offset, output_shape=PATCH, order=0)
    np.testing.assert_allclose(images[0, 0].numpy(), expected, atol=1e-3)
    assert (masks[0].numpy() == labels).mean() > 0.999  # places halfway between two pixels may fall to either


def test_places_beyond_the_window_are_its_mirror_image() -> None:
    image, mask = smooth_windows(1, 1, PATCH)
    images, masks = as_drawn(image, mask, [[1.0, 0.0, -10.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(images[..., :10], image[..., :10].flip(-1), rtol=0, atol=1e-4)
    assert torch.equal(masks[..., :10], mask[..., :10].flip(-1))


def test_scale_multiplies_areas_by_the_square_of_the_factor() -> None:
    config = only("scale")
    size = window_size((96, 96), config)
    y, x = torch.meshgrid(*(torch.arange(edge) - (edge - 1) / 2 for edge in size), indexing="ij")
    disc = (x**2 + y**2 <= 20.0**2).byte()
    seeds = torch.arange(200)
    _, masks = augment(disc.float().expand(200, 1, -1, -1), disc.expand(200, -1, -1), seeds, (96, 96), config)
    factor = 1.0 / draw(seeds, (96, 96), config).matrix[:, 0, 0]
    areas = masks.sum(dim=(1, 2)) / (math.pi * 20.0**2)
    torch.testing.assert_close(areas, factor**2, rtol=0.06, atol=0)
    assert 1 / 1.5 <= factor.min() < 0.7
    assert 1.42 < factor.max() <= 1.5
    assert factor.log().mean().abs() < 0.06  # as often larger as smaller


def test_a_positive_amount_of_scale_makes_objects_larger() -> None:
    matrix = GEOMETRIC["scale"](torch.tensor([[1.0, 0.0]]), only("scale"), PATCH)[0, :2]
    disc = (torch.cartesian_prod(torch.arange(81.0) - 40, torch.arange(81.0) - 40).norm(dim=1) <= 10).reshape(1, 81, 81)
    _, masks = as_drawn(disc[:, None].float(), disc.byte(), matrix.tolist())
    assert masks.sum() == pytest.approx(math.pi * 15.0**2, rel=0.03)


def test_geometric_parts_are_drawn_independently_of_each_other() -> None:
    config = only("rotation", scale=0.5, translation_fraction=0.2)
    matrix = draw(torch.arange(3000), PATCH, config).matrix
    angle, size = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]), torch.linalg.det(matrix[:, :, :2]).log()
    series = torch.stack([angle, size, matrix[:, 0, 2], matrix[:, 1, 2]])
    assert (torch.corrcoef(series) - torch.eye(4)).abs().max() < 0.08


def test_shear_keeps_areas_and_rotation_keeps_lengths() -> None:
    seeds = torch.arange(50)
    shears, turns = (draw(seeds, PATCH, only(name)).matrix[:, :, :2] for name in ("shear", "rotation"))
    torch.testing.assert_close(torch.linalg.det(shears), torch.ones(50))
    torch.testing.assert_close(turns @ turns.mT, torch.eye(2).expand(50, 2, 2), rtol=0, atol=1e-6)
    angles = torch.rad2deg(torch.atan(shears[:, 0, 1])).abs()
    assert 18.0 < angles.max() <= 20.0
    assert torch.rad2deg(torch.atan2(turns[:, 1, 0], turns[:, 0, 0])).abs().max() > 165.0


@pytest.mark.parametrize("strength", [1.0, 1.5])
def test_elastic_vectors_have_the_configured_deviation(strength: float) -> None:
    config = only("elastic", elastic_sigma_px=10.0, elastic_spacing_px=16.0, strength=strength)
    made = draw(torch.arange(300), (65, 65), config)
    field = elastic_field(made.nodes, made.spacing_px, (65, 65))
    at_nodes = field[:, :, ::16, ::16]  # the middle pixel, 32, is a node
    torch.testing.assert_close(at_nodes.std(), torch.tensor(10.0 * strength), rtol=0.03, atol=0)
    torch.testing.assert_close(at_nodes, made.nodes[:, :, 1:-1, 1:-1], rtol=0, atol=1e-4)


def test_the_elastic_field_is_bicubic() -> None:
    """Cubic convolution reproduces quadratic polynomials exactly (Keys 1981, section IV)."""
    y, x = torch.meshgrid(torch.arange(7.0) - 3, torch.arange(9.0) - 4, indexing="ij")
    nodes = torch.stack([x * x - 2 * x * y + 1, y * y + 3 * x])[None]
    field = elastic_field(nodes, 10.0, (33, 51))
    y, x = torch.meshgrid((torch.arange(33.0) - 16) / 10, (torch.arange(51.0) - 25) / 10, indexing="ij")
    torch.testing.assert_close(field[0], torch.stack([x * x - 2 * x * y + 1, y * y + 3 * x]), rtol=0, atol=1e-4)


def test_an_elastic_displacement_moves_pixels_by_what_it_says() -> None:
    image, mask = smooth_windows(1, 1, (80, 96))
    config = only("elastic")
    made = draw(torch.tensor([1]), PATCH, config)
    made = dataclasses.replace(made, nodes=torch.ones_like(made.nodes) * torch.tensor([3.0, -2.0])[:, None, None])
    images, masks = apply(image, mask, made, PATCH)
    torch.testing.assert_close(images, middle(image.roll((2, -3), dims=(-2, -1))), rtol=0, atol=1e-4)
    assert torch.equal(masks, middle(mask.roll((2, -3), dims=(-2, -1))))


# --- The window -------------------------------------------------------------------------------------------------------


def test_the_window_is_the_patch_where_nothing_moves() -> None:
    assert window_size(PATCH, AugmentConfig(strength=0.0)) == PATCH
    assert window_size(PATCH, AugmentConfig(geometric_probability=0.0)) == PATCH
    assert window_size(PATCH, only("flip_horizontal")) == PATCH
    assert window_size(PATCH, only("noise")) == PATCH


def test_the_window_of_a_rotation_holds_the_diagonal() -> None:
    assert window_size((100, 100), only("rotation", rotation_degrees=45.0)) == (142, 142)
    assert window_size((30, 40), only("rotation")) == (50, 50)
    assert window_size((100, 100), only("rotation", rotation_degrees=10.0)) == (116, 116)  # 98.48 + 17.36
    assert window_size((100, 50), only("scale", scale=0.2)) == (120, 60)
    assert window_size((100, 50), only("translation", translation_fraction=0.1)) == (120, 60)


def test_the_window_is_capped() -> None:
    config = AugmentConfig(strength=3.0, scale=0.9)
    assert window_size((64, 100), config) == (200 + 60 * ELASTIC_REACH, 200 + 60 * ELASTIC_REACH)


@pytest.mark.parametrize("name", [*GEOMETRIC, "everything"])
def test_no_place_beyond_the_window_is_ever_needed(name: str) -> None:
    ranges = {"shear_degrees": 5.0, "scale": 0.25, "translation_fraction": 0.05, "elastic_sigma_px": 0.0}
    config = only(name, **ranges, geometric_probability=1.0)
    window = torch.tensor(window_size(PATCH, config))
    corners = torch.tensor([[x * (PATCH[1] - 1) / 2, y * (PATCH[0] - 1) / 2, 1] for x in (-1, 1) for y in (-1, 1)])
    places = draw(torch.arange(5000), PATCH, config).matrix @ corners.T  # x, y from the middle
    reach = places.abs().amax(dim=(0, 2)).flip(0)
    assert (reach <= (window - 1) / 2 + 1e-3).all()


def test_windows_smaller_than_the_patch_are_refused() -> None:
    image, mask = smooth_windows(1, 1, (40, 80))
    with pytest.raises(DataError, match=r"40 x 80 pixels are smaller than the patch of 48 x 64"):
        augment(image, mask, torch.zeros(1, dtype=torch.int64), PATCH, AugmentConfig())


# --- Intensity against independent answers ----------------------------------------------------------------------------

NO_SEEDS = torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize("name", INTENSITY)
def test_an_amount_of_zero_changes_nothing(name: str) -> None:
    image, _ = smooth_windows(2, 3, PATCH)
    changed = INTENSITY[name].change(image, torch.zeros(2), NO_SEEDS)
    torch.testing.assert_close(changed, image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", INTENSITY)
def test_amounts_stay_in_their_range_times_strength_and_are_as_frequent_as_configured(name: str) -> None:
    config = only(name, intensity_probability=0.3, strength=2.0)
    amounts = draw(torch.arange(3000), (4, 4), config).amounts[:, list(INTENSITY).index(name)]
    largest = 2.0 * next(iter(STRONG[name].values()))
    assert 0.99 * largest < amounts.abs().max() <= largest
    assert (amounts != 0).float().mean() == pytest.approx(0.3, abs=0.035)
    assert (amounts > 0).float().mean() == pytest.approx(0.15, abs=0.03)


def test_brightness_shifts_the_mean() -> None:
    image, _ = smooth_windows(2, 3, PATCH)
    changed = INTENSITY["brightness"].change(image, torch.tensor([0.5, -0.25]), NO_SEEDS)
    torch.testing.assert_close(changed.mean((1, 2, 3)) - image.mean((1, 2, 3)), torch.tensor([0.5, -0.25]))


def test_contrast_keeps_the_mean_of_channels_and_multiplies_their_deviation() -> None:
    image, _ = smooth_windows(2, 3, PATCH)
    changed = INTENSITY["contrast"].change(image, torch.tensor([0.5, -0.5]), NO_SEEDS)
    torch.testing.assert_close(changed.mean((2, 3)), image.mean((2, 3)), rtol=0, atol=1e-5)
    factors = (changed.std((2, 3)) / image.std((2, 3))).mean(dim=1)
    torch.testing.assert_close(factors, torch.tensor([1.5, 0.5]))


def test_gamma_is_a_power_of_the_image_brought_to_zero_and_one() -> None:
    ramp = torch.linspace(-1.0, 3.0, 101).reshape(1, 1, 1, 101).expand(2, -1, -1, -1)
    changed = INTENSITY["gamma"].change(ramp, torch.tensor([1.0, -1.0]), NO_SEEDS)
    level = np.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(changed[0].flatten().numpy(), 4.0 * level**2 - 1.0, atol=1e-5)
    np.testing.assert_allclose(changed[1].flatten().numpy(), 4.0 * level**0.5 - 1.0, atol=1e-5)


def test_gamma_keeps_darkest_and_brightest_exactly() -> None:
    image, _ = smooth_windows(2, 3, PATCH)
    changed = INTENSITY["gamma"].change(image, torch.tensor([0.7, -0.4]), NO_SEEDS)
    assert torch.equal(changed.amin((1, 2, 3)), image.amin((1, 2, 3)))
    assert torch.equal(changed.amax((1, 2, 3)), image.amax((1, 2, 3)))


def test_blur_agrees_with_scipy() -> None:
    image = torch.randn(2, 3, *PATCH, generator=torch.Generator().manual_seed(0))
    changed = INTENSITY["blur"].change(image, torch.tensor([0.8, -1.6]), NO_SEEDS)
    for row, sigma in enumerate((0.8, 1.6)):
        expected = ndimage.gaussian_filter(image[row].numpy(), (0, sigma, sigma), mode="nearest", radius=(0, 5, 5))
        np.testing.assert_allclose(changed[row].numpy(), expected, atol=1e-4)


def test_noise_has_the_deviation_of_its_amount_and_is_independent_of_everything() -> None:
    seeds = torch.tensor([1, 2])
    grain = INTENSITY["noise"].change(torch.zeros(2, 3, 100, 100), torch.tensor([0.5, -0.1]), seeds)
    torch.testing.assert_close(grain.std((1, 2, 3)), torch.tensor([0.5, 0.1]), rtol=0.03, atol=0)
    assert grain.mean((1, 2, 3)).abs().max() < 0.01
    planes = torch.corrcoef(grain.flatten(0, 1).flatten(1))
    assert (planes - torch.eye(6)).abs().max() < 0.05


def test_saturation_keeps_the_mean_of_channels_and_agrees_with_pillow() -> None:
    bytes_ = np.random.default_rng(0).integers(100, 156, (*PATCH, 3), dtype=np.uint8)
    image = torch.from_numpy(bytes_).permute(2, 0, 1).float().expand(4, -1, -1, -1)
    changed = INTENSITY["saturation"].change(image, torch.tensor([-1.5, -1.0, -0.5, 0.5]), torch.zeros(4))
    torch.testing.assert_close(changed.mean(dim=1), image.mean(dim=1))
    torch.testing.assert_close(changed[0], changed[1])  # no colour is less than none
    torch.testing.assert_close(changed[1], image[1].mean(dim=0).expand(3, -1, -1))
    for made, factor in ((changed[2], 0.5), (changed[3], 1.5)):
        # Pillow's grey is weighed by what an eye sees: what channels differ by is the same
        theirs = np.array(ImageEnhance.Color(Image.fromarray(bytes_)).enhance(factor), dtype=np.float32)
        np.testing.assert_allclose((made[0] - made[2]).numpy(), theirs[..., 0] - theirs[..., 2], atol=1.01)
    single, _ = smooth_windows(2, 1, PATCH)
    assert torch.equal(INTENSITY["saturation"].change(single, torch.tensor([-1.0, 0.7]), NO_SEEDS), single)


def test_tint_shifts_each_channel_by_itself_within_its_amount() -> None:
    image, _ = smooth_windows(400, 3, (8, 8))
    shifts = INTENSITY["tint"].change(image, torch.full((400,), -0.4), torch.arange(400)) - image
    torch.testing.assert_close(shifts, shifts.mean((2, 3), keepdim=True).expand_as(shifts), rtol=0, atol=1e-5)
    shifts = shifts.mean((2, 3))
    assert shifts.abs().max() <= 0.4 + 1e-5
    torch.testing.assert_close(shifts.std(0), torch.full((3,), 0.4 / math.sqrt(3.0)), rtol=0.06, atol=0)
    assert (torch.corrcoef(shifts.T) - torch.eye(3)).abs().max() < 0.15


# --- The draw ---------------------------------------------------------------------------------------------------------


def test_numbers_of_neighbouring_seeds_are_not_related() -> None:
    amounts = draw(torch.arange(2000), PATCH, only("everything", intensity_probability=1.0)).amounts
    series = torch.cat([amounts[:-1], amounts[1:]], dim=1)
    assert (torch.corrcoef(series.T) - torch.eye(2 * len(INTENSITY))).abs().max() < 0.12


def test_a_seed_does_what_it_did_before_there_were_colours() -> None:
    """Numbers drawn by the version before."""
    made = draw(torch.arange(2), PATCH, AugmentConfig(saturation=0.5, tint=0.5))
    assert made.seeds.tolist() == [4307515423138195876, 2437687714867075957]
    before = torch.tensor([[0.0, 0.0, -0.2332072, 0.0, -0.0648689], [0.0762866, 0.0, 0.1442143, -0.1180831, 0.0]])
    torch.testing.assert_close(made.amounts[:, :5], before, rtol=0, atol=1e-6)
    torch.testing.assert_close(made.nodes[:, 0, 0, 0], torch.tensor([0.0735633, -0.7026378]), rtol=0, atol=1e-6)
    torch.testing.assert_close(made.matrix[:, 0, 0], torch.tensor([0.1068573, 0.8709183]), rtol=0, atol=1e-6)


def test_seeds_that_differ_only_in_high_bits_differ() -> None:
    made = draw(torch.tensor([1, 1 + 2**40]), PATCH, AugmentConfig())
    assert made.seeds[0] != made.seeds[1]
    assert not torch.equal(made.nodes[0], made.nodes[1])


@pytest.mark.parametrize("blank", [torch.zeros, torch.ones])
def test_double_precision_images_are_possible(blank: Callable[..., torch.Tensor]) -> None:
    config = only("everything")
    size = window_size(PATCH, config)
    images, _ = augment(blank(3, 1, *size).double(), blank(3, *size).byte(), torch.arange(3), PATCH, config)
    assert images.dtype == torch.float64
