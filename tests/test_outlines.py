"""Outlines: by hand, against MONAI and SciPy, and what must not change them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import UInt8
from scipy import ndimage

from pixelwise.classes import IGNORE
from pixelwise.metrics.boundaries import BOUNDARY_SHARE, Boundaries, ImageBoundaries, compare_boundaries

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"


def blobs(seed: int, classes: int = 3, size: tuple[int, int] = (70, 90)) -> UInt8[np.ndarray, "H W"]:
    """Smooth regions of every class."""
    noise = np.random.default_rng(seed).standard_normal((classes, *size))
    smooth = np.stack([ndimage.gaussian_filter(one, 6.0) for one in noise])
    return smooth.argmax(0).astype(np.uint8)


def pair(seed: int, classes: int = 3) -> tuple[UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]]:
    """A prediction that is right in most places."""
    target = blobs(seed, classes)
    wrong = ndimage.gaussian_filter(np.random.default_rng(seed + 1000).standard_normal(target.shape), 4.0) > 0.04
    return np.where(wrong, blobs(seed + 1, classes), target), target


def one_hot(mask: UInt8[np.ndarray, "H W"], classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(mask).long(), classes).permute(2, 0, 1)[None].float()


def scores(found: ImageBoundaries, index: int = 1) -> dict[str, float]:
    made = Boundaries.of([found], 2.0).ratios()
    return {name: float(ratio.pooled()[index]) for name, ratio in made.items()}


def square(left: int) -> UInt8[np.ndarray, "H W"]:
    """The example of the page."""
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:6, left : left + 4] = 1
    return mask


@pytest.mark.parametrize(("tolerance_px", "near"), [(0.0, 12 / 24), (1.0, 1.0)])
def test_the_example_of_the_page(tolerance_px: float, near: float) -> None:
    assert scores(compare_boundaries(square(3), square(2), 2, tolerance_px)) == {
        "boundary_iou": pytest.approx(6 / 18),
        "surface_dice": pytest.approx(near),
        "hausdorff_95_px": pytest.approx(1.0),
        "surface_distance_px": pytest.approx(12 / 24),
    }
    text = PAGE.read_text(encoding="utf-8")
    for row in (
        "| `boundary_iou` | 6/18 |",
        "at 0 px | 12/24 |",
        "at 1 px | 24/24 |",
        "`surface_distance_px` | 12/24 |",
    ):
        assert row in text


def test_nothing_predicted_is_as_far_off_as_the_image_is_wide() -> None:
    expected = {
        "boundary_iou": 0.0,
        "surface_dice": 0.0,
        "hausdorff_95_px": pytest.approx(math.hypot(8, 8)),
        "surface_distance_px": pytest.approx(math.hypot(8, 8)),
    }
    nothing = np.zeros((8, 8), dtype=np.uint8)
    assert scores(compare_boundaries(nothing, square(2), 2, 2.0)) == expected
    assert scores(compare_boundaries(square(2), nothing, 2, 2.0)) == expected


def test_a_class_in_neither_mask_has_no_score_and_does_not_count() -> None:
    with_it, without = (compare_boundaries(mask, square(2), 3, 2.0) for mask in (square(3), square(2)))
    assert all(math.isnan(value) for value in scores(with_it, 2).values())
    nothing = np.zeros((8, 8), dtype=np.uint8)
    both = Boundaries.of([without, compare_boundaries(nothing, nothing, 3, 2.0)], 2.0)
    assert float(both.hausdorff_px.pooled()[1]) == 0.0  # of the first image alone
    assert both.boundary_iou.pooled()[:2].tolist() == [1.0, 1.0]


@pytest.mark.filterwarnings("ignore")  # MONAI's own
@pytest.mark.parametrize("seed", range(4))
def test_distances_agree_with_monai(seed: int) -> None:
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    prediction, target = pair(seed)
    hot = [one_hot(mask, 3) for mask in (prediction, target)]
    found = compare_boundaries(prediction, target, 3, 2.0)
    hausdorff = compute_hausdorff_distance(*hot, include_background=True, percentile=95)
    mean = compute_average_surface_distance(*hot, include_background=True, symmetric=True)
    near = compute_surface_dice(*hot, class_thresholds=[2.0] * 3, include_background=True)
    np.testing.assert_allclose(found.hausdorff_px, hausdorff[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(found.distance_px, mean[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(found.near / found.surface, near[0].numpy(), atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_boundary_iou_agrees_with_repeated_erosion(seed: int) -> None:
    """As Cheng et al. compute it: the mask minus what is left of it after d erosions by 3 x 3, with 0 around it."""
    prediction, target = pair(seed)
    width = round(BOUNDARY_SHARE * math.hypot(*target.shape))
    found = compare_boundaries(prediction, target, 3, 2.0)
    for index in range(3):
        rims = [
            (mask == index) & ~ndimage.binary_erosion(mask == index, np.ones((3, 3)), iterations=width)
            for mask in (prediction, target)
        ]
        assert found.boundary_both[index] == (rims[0] & rims[1]).sum()
        assert found.boundary_either[index] == (rims[0] | rims[1]).sum()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_turning_the_image_and_exchanging_the_masks_changes_nothing(seed: int) -> None:
    prediction, target = pair(seed)
    found = compare_boundaries(prediction, target, 3, 2.0)
    for first, second in (
        (np.rot90(prediction), np.rot90(target)),
        (prediction[::-1], target[::-1]),
        (target, prediction),
    ):
        other = compare_boundaries(np.ascontiguousarray(first), np.ascontiguousarray(second), 3, 2.0)
        for name in vars(found):
            np.testing.assert_allclose(getattr(other, name), getattr(found, name), err_msg=name)


def test_what_is_predicted_on_ignored_pixels_changes_nothing() -> None:
    prediction, target = pair(7)
    target = target.copy()
    target[20:40, 30:60] = IGNORE
    found = compare_boundaries(prediction, target, 3, 2.0)
    painted = np.where(target == IGNORE, 2, prediction).astype(np.uint8)
    other = compare_boundaries(painted, target, 3, 2.0)
    for name in vars(found):
        np.testing.assert_array_equal(getattr(other, name), getattr(found, name), err_msg=name)


def test_the_rim_of_what_is_ignored_is_no_outline() -> None:
    target = square(2)
    target[:, 4:] = IGNORE  # the right half of the square is not known
    found = compare_boundaries(square(2), target, 2, 2.0)
    # the 2 x 4 pixels that are left have an outline above, at the left and below: 2 + 2 + 2 pixels in each mask
    assert found.surface[1] == 12
    assert scores(found)["hausdorff_95_px"] == 0.0


def test_an_object_in_a_ring_of_ignored_pixels_has_no_outline_but_can_be_missed() -> None:
    target = square(2)
    target[1:7, 1:7][square(2)[1:7, 1:7] == 0] = IGNORE  # nobody knows where the object ends
    holed = square(2)
    holed[3, 3] = 0
    found = scores(compare_boundaries(holed, target, 2, 2.0))
    assert math.isnan(found["hausdorff_95_px"])
    assert math.isnan(found["surface_dice"])
    missed = scores(compare_boundaries(np.zeros((8, 8), dtype=np.uint8), target, 2, 2.0))
    assert missed["surface_dice"] == 0.0
    assert missed["hausdorff_95_px"] == pytest.approx(math.hypot(8, 8))


def test_an_image_that_is_all_ignored_has_no_score() -> None:
    found = compare_boundaries(square(2), np.full((8, 8), IGNORE, dtype=np.uint8), 2, 2.0)
    assert all(math.isnan(value) for index in (0, 1) for value in scores(found, index).values())


def test_one_pixel_and_one_row_are_images() -> None:
    for size in ((1, 1), (1, 9), (9, 1)):
        mask = np.ones(size, dtype=np.uint8)
        assert scores(compare_boundaries(mask, mask, 2, 2.0))["boundary_iou"] == 1.0
