"""How well outlines fit: boundary IoU, Hausdorff and average surface distance, surface Dice.

The surface of a class in a mask is the set of its pixels with one of their four neighbours outside the class; the rim
of the image is outside, as it is for MONAI and for the authors of the boundary IoU. Pixels that are not counted belong
to no class, and where a class meets them is no surface: nobody knows how it goes on.

A class that is in neither mask has no score. Where it is in one of them only, nothing fits: boundary IoU and surface
Dice are 0, and the distances are the diagonal of the image, the largest that there is in it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, UInt8
from scipy import ndimage
from scipy.spatial import KDTree

from pixelwise.classes import IGNORE
from pixelwise.metrics.weighted import Ratio

BOUNDARY_SHARE = 0.02
"""Width of the boundary as a share of the image's diagonal (Cheng et al., 2021, section 4)."""

HAUSDORFF_PERCENTILE = 95.0


@dataclass(frozen=True)
class ImageBoundaries:
    """How the outlines of one image fit, by class; distances in pixels, nan where the class is in neither mask."""

    boundary_both: Float64[np.ndarray, " K"]
    """Pixels that are of the boundary in both masks."""
    boundary_either: Float64[np.ndarray, " K"]
    near: Float64[np.ndarray, " K"]
    """Surface pixels of either mask that lie within the tolerance of the other's surface."""
    surface: Float64[np.ndarray, " K"]
    """Surface pixels of both masks, added up."""
    hausdorff_px: Float64[np.ndarray, " K"]
    """The larger of the two 95th percentiles of the distance from one surface to the other."""
    distance_px: Float64[np.ndarray, " K"]
    """Mean distance from a surface pixel of either mask to the surface of the other."""


def boundary_width_px(size: tuple[int, ...]) -> int:
    """How far the boundary of a class reaches into it, in an image of this height and width."""
    return max(1, round(BOUNDARY_SHARE * math.hypot(*size)))


def classes_in(*masks: UInt8[np.ndarray, "..."], below: int) -> list[int]:
    """The classes that occur in any of some masks, of those with a lower index than `below`."""
    counts = sum(np.bincount(mask.reshape(-1), minlength=below)[:below] for mask in masks)
    return np.flatnonzero(counts).tolist()


def compare_boundaries(
    prediction: UInt8[np.ndarray, "H W"], target: UInt8[np.ndarray, "H W"], classes: int, tolerance_px: float
) -> ImageBoundaries:
    """Hold the outlines of one image's classes against each other.

    Args:
        prediction: class indices, 0 to classes - 1.
        target: class indices or IGNORE.
        classes: K.
        tolerance_px: a surface pixel that is no farther from the other surface is near it.
    """
    found = ImageBoundaries(*(np.zeros(classes) for _ in range(4)), *(np.full(classes, math.nan) for _ in range(2)))
    unknown = target == IGNORE
    width_px = boundary_width_px(target.shape)
    for index in classes_in(target, prediction[~unknown], below=classes):
        masks = (prediction == index) & ~unknown, target == index
        place = _place(masks[0] | masks[1], width_px)
        if place is None:
            continue
        first, second = (_Outline.of(mask[place], unknown[place], width_px) for mask in masks)
        found.boundary_both[index] = np.count_nonzero(first.boundary & second.boundary)
        found.boundary_either[index] = np.count_nonzero(first.boundary | second.boundary)
        if not (masks[0].any() and masks[1].any()):
            found.surface[index] = max(1, np.count_nonzero(first.surface | second.surface))
            found.hausdorff_px[index] = found.distance_px[index] = math.hypot(*target.shape)
            continue
        if not (first.surface.any() and second.surface.any()):
            continue  # ignored pixels all around: there is an outline in one of them at most
        there, back = _to_nearest(first, second), _to_nearest(second, first)
        either = np.concatenate([there, back])
        found.near[index], found.surface[index] = np.count_nonzero(either <= tolerance_px), either.size
        found.hausdorff_px[index] = max(_percentile(there), _percentile(back))
        found.distance_px[index] = either.mean()
    return found


@dataclass(frozen=True)
class Boundaries:
    """Outlines of N images; every score follows from these."""

    boundary_iou: Ratio
    """Pooled over images, pixel by pixel."""
    surface_dice: Ratio
    """Share of the surface pixels within the tolerance (Nikolov et al., 2021); pooled."""
    hausdorff_px: Ratio
    """Mean over the images in which a class occurs."""
    distance_px: Ratio
    """Mean over the images in which a class occurs."""
    tolerance_px: float

    @classmethod
    def of(cls, images: Iterable[ImageBoundaries], tolerance_px: float) -> "Boundaries":
        """The outlines of several images together.

        Args:
            images: at least one.
            tolerance_px: that they were compared with.
        """
        listed = list(images)

        def column(name: str) -> torch.Tensor:
            return torch.from_numpy(np.stack([getattr(image, name) for image in listed]))

        either, surface = column("boundary_either"), column("surface")
        return cls(
            Ratio(column("boundary_both"), either, either),
            Ratio(column("near"), surface, surface),
            Ratio.mean_of(column("hausdorff_px")),
            Ratio.mean_of(column("distance_px")),
            tolerance_px,
        )

    def ratios(self) -> dict[str, Ratio]:
        """All scores by the name that they have in scores.json."""
        return {
            "boundary_iou": self.boundary_iou,
            "surface_dice": self.surface_dice,
            "hausdorff_95_px": self.hausdorff_px,
            "surface_distance_px": self.distance_px,
        }


@dataclass(frozen=True)
class _Outline:
    boundary: Bool[np.ndarray, "h w"]
    """Pixels of the class that are close to its rim."""
    surface: Bool[np.ndarray, "h w"]
    """Pixels of the class at its rim."""

    @classmethod
    def of(cls, mask: Bool[np.ndarray, "h w"], unknown: Bool[np.ndarray, "h w"], width_px: int) -> "_Outline":
        inside = mask | unknown
        core = ndimage.minimum_filter(inside, size=2 * width_px + 1, mode="constant", cval=0)
        padded = np.pad(inside, 1)
        enclosed = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        return cls(mask & ~core, mask & ~enclosed)


def _place(mask: Bool[np.ndarray, "H W"], margin: int) -> tuple[slice, slice] | None:
    """The rectangle that holds the mask, and as much around it as decides what its boundary is; none for no mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    return slice(top, rows[-1] + margin + 1), slice(left, columns[-1] + margin + 1)


def _to_nearest(some: _Outline, other: _Outline) -> Float64[np.ndarray, " n"]:
    """From each surface pixel of one to the nearest of the other."""
    # distances of surface points, and not a map of the whole image: its memory grows with the outlines only
    tree = KDTree(np.argwhere(other.surface), balanced_tree=False, compact_nodes=False)
    distances, _ = tree.query(np.argwhere(some.surface))
    return np.asarray(distances, dtype=np.float64)


def _percentile(distances: Float64[np.ndarray, " n"]) -> float:
    return float(np.percentile(distances, HAUSDORFF_PERCENTILE))
