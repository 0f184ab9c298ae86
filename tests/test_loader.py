"""From decoded cases to batches."""

from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelwise.config import Preprocessing
from pixelwise.data.cache import Decoded
from pixelwise.data.dataset import Case
from pixelwise.data.loader import Sampling, Windows, stream
from pixelwise.data.resident import Resident
from pixelwise.launcher import Share

PREPROCESSING = Preprocessing(channels=1, normalisation="none", mean=(0.0,), deviation=(1.0,))


def decoded(name: str, mask: np.ndarray) -> Decoded:
    """A case whose image says where each pixel was: its number in the mask."""
    image = np.arange(mask.size, dtype=np.float32).reshape(*mask.shape, 1)
    present = np.argwhere(mask == 1)
    positions = np.concatenate([np.ones((len(present), 1), dtype=np.int64), present], axis=1)
    counts = np.bincount(mask.reshape(-1), minlength=2)[:2]
    return Decoded(
        Case(name, Path(name)),
        lambda: image,
        lambda: mask,
        image.shape,
        counts.astype(np.int64),
        positions,
        name,
        name,
        NO_PICTURE,
    )


def windows(cases: list[Decoded], size: int = 8, window: int = 8, foreground: float = 0.0, seed: int = 0) -> Windows:
    return Windows(cases, PREPROCESSING, Sampling((size, size), (window, window), foreground, seed))


NO_PICTURE = np.zeros((32, 32), dtype=np.float32)
BLANK = np.zeros((24, 16), dtype=np.uint8)


def test_image_and_mask_show_the_same_place() -> None:
    mask = np.random.default_rng(0).integers(0, 2, (20, 30)).astype(np.uint8)
    samples = windows([decoded("a", mask)], window=12)
    for number in range(20):
        sample = samples[number]
        np.testing.assert_array_equal(mask.reshape(-1)[sample.image[..., 0].astype(int)], sample.mask)


def test_what_a_teacher_says_is_of_the_same_place() -> None:
    masks = [np.random.default_rng(number).integers(0, 2, (20, 30)).astype(np.uint8) for number in range(3)]
    cases = [decoded(str(number), mask) for number, mask in enumerate(masks)]
    told = [partial(np.repeat, mask[..., None], 4, axis=2) for mask in masks]
    samples = Windows(cases, PREPROCESSING, Sampling((8, 8), (12, 12), 0.5, 0), told)
    batch = next(stream(samples, 0, 8, Share()))
    assert batch.told is not None
    assert batch.told.shape == (8, 4, 12, 12)
    np.testing.assert_array_equal(batch.told[:, 3], batch.mask)
    assert next(stream(windows(cases), 0, 8, Share())).told is None


def test_every_image_is_drawn_in_proportion_to_its_size() -> None:
    samples = windows([decoded("small", BLANK[:8, :8]), decoded("large", BLANK)])
    assert len(samples) == 1 + 6
    one_pass = [samples._case_of(number) for number in range(7)]
    assert sorted(one_pass) == [0, 1, 1, 1, 1, 1, 1]


def test_passes_have_different_orders() -> None:
    samples = windows([decoded(str(i), BLANK[:8, :8]) for i in range(20)])
    first, second = ([samples._case_of(number) for number in range(start, start + 20)] for start in (0, 20))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second


def test_a_sample_depends_on_seed_and_number_alone() -> None:
    case = decoded("a", BLANK)
    one, other = windows([case]), windows([case])
    _ = [one[number] for number in range(10)]
    for number in (0, 5, 1000):
        for part in ("image", "scaling", "mask", "seed"):
            np.testing.assert_array_equal(getattr(one[number], part), getattr(other[number], part))
    assert windows([case], seed=1)[5].seed != one[5].seed


def test_foreground_patches_hold_the_class() -> None:
    mask = np.zeros((200, 200), dtype=np.uint8)
    mask[150:153, 20:23] = 1
    share = {}
    for fraction in (0.0, 1.0):
        samples = windows([decoded("a", mask)], size=16, window=16, foreground=fraction)
        share[fraction] = np.mean([samples[number].mask.any() for number in range(200)])
    assert share[1.0] == 1.0
    assert share[0.0] < 0.1


def test_small_images_are_mirrored_to_the_patch() -> None:
    case = decoded("a", np.zeros((5, 7), dtype=np.uint8))
    sample = windows([case], size=16, window=20)[3]
    assert sample.image.shape == (20, 20, 1)
    assert sample.mask.shape == (20, 20)
    assert set(sample.image.astype(int).flatten()) == set(range(35))


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_processes_share_each_batch_without_overlap(processes: int) -> None:
    for step in (0, 7):
        numbers = [number for rank in range(processes) for number in Share(rank, processes).of(step, 10)]
        assert numbers == list(range(step * 10, step * 10 + 10))


@pytest.mark.slow
def test_reading_processes_change_nothing() -> None:
    samples = windows([decoded("a", BLANK), decoded("b", BLANK[:12])])
    alone, helped = (stream(samples, 3, 4, Share(), workers) for workers in (0, 2))
    for _ in range(5):
        one, other = next(alone), next(helped)
        assert (one.image == other.image).all()
        assert (one.seeds == other.seeds).all()


def test_a_stream_goes_on_where_it_stopped() -> None:
    samples = windows([decoded("a", BLANK)])
    from_start, resumed = stream(samples, 0, 4, Share()), stream(samples, 2, 4, Share())
    batches = [next(from_start) for _ in range(3)]
    assert (batches[2].image == next(resumed).image).all()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_a_device_that_holds_all_images_cuts_the_same_batches(kind: type) -> None:
    """Images of several sizes, smaller and larger than the window, with what a teacher says of them."""
    rng = np.random.default_rng(0)
    cases, told = [], []
    for number, shape in enumerate([(20, 30), (5, 9), (40, 8)]):
        case = decoded(str(number), rng.integers(0, 2, shape).astype(np.uint8))
        image = rng.integers(0, 255, (*shape, 3)).astype(kind)
        cases.append(replace(case, open_image=partial(np.copy, image), shape=image.shape))
        told.append(partial(np.copy, rng.integers(0, 255, (*shape, 2)).astype(np.uint8)))
    three = Preprocessing(channels=3, normalisation="image", mean=(0.0,) * 3, deviation=(1.0,) * 3)
    samples = Windows(cases, three, Sampling((8, 8), (12, 14), 0.5, 0), told)
    share = Share(1, 2)
    batches = Resident.load(samples, torch.device("cpu")).batches(3, 10, share)
    for expected, found in zip(islice(stream(samples, 3, 10, share), 5), batches, strict=False):
        assert expected.told is not None
        assert found.told is not None
        for name in ("image", "mask", "scaling", "seeds", "told"):
            one, other = getattr(expected, name), getattr(found, name)
            assert one.dtype == other.dtype
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_images_of_several_types_are_held_as_floats() -> None:
    masks = [BLANK, BLANK]
    cases = [decoded(str(number), mask) for number, mask in enumerate(masks)]
    as_bytes = replace(cases[1], open_image=lambda: np.full((24, 16, 1), 200, np.uint8))
    held = Resident.load(windows([cases[0], as_bytes]), torch.device("cpu"))
    assert held.image.dtype == torch.float32
    assert held.image[: BLANK.size, 0].tolist() == list(range(BLANK.size))
    assert set(held.image[BLANK.size :, 0].tolist()) == {200.0}
