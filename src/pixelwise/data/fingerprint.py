"""What the training images are like, measured: the ground that the plan stands on."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64
from pydantic import Field
from scipy import ndimage

from pixelwise.classes import IGNORE
from pixelwise.config import Section, SizePx
from pixelwise.data.cache import Decoded, hash_of_cases
from pixelwise.data.preprocess import resize_mask, statistics

UPRIGHT_DIFFERENCE = 0.15
"""Images count as upright if the upper and lower halves differ by so much of some class, consistently."""

UPRIGHT_DEVIATIONS = 6.0
"""What consistently means: the mean difference over the images is so many standard errors from zero."""

UPRIGHT_IMAGES = 8
"""Fewer images say nothing of their orientation."""

REDUCTIONS = (2, 4, 8)
"""By how much masks are reduced to see what is left of them."""

REDUCED_IMAGES = 64
"""So many masks, spread evenly, say how fine masks are."""

OBJECT_MEGAPIXELS = 8.0
"""Objects are looked for in so many pixels of these masks."""


FEW_LOST = 0.02
"""Of the objects of a class, so many may vanish when images are resized."""


class Fingerprint(Section):
    """Measurements of the training split."""

    images: int
    """How many."""
    median_size_px: SizePx
    """Median height and median width."""
    smallest_size_px: SizePx
    """Smallest height and smallest width."""
    largest_size_px: SizePx
    """Largest height and largest width."""
    megapixels: float
    """Of all images together."""
    channels: int
    """C."""
    mean: tuple[float, ...]
    """Per channel, raw pixel values, over all training pixels."""
    deviation: tuple[float, ...]
    """Per channel, raw pixel values, over all training pixels."""
    types: tuple[str, ...]
    """Number types of the images, such as uint8."""
    largest: float
    """Largest pixel value."""
    between_images: float
    """Share of the variance of pixel values that lies between images, 0 to 1, in the mean over channels: 0 if all are
    equally bright, 1 if each is of one brightness."""
    class_fractions: tuple[float, ...]
    """Share of each class among the pixels that count."""
    class_images: tuple[int, ...]
    """In how many images each class occurs."""
    ignored_fraction: float
    """Share of pixels that do not count."""
    aspect_spread: float
    """The largest ratio of width to height over the smallest; 1 if all images have the same."""
    reduced_miou: tuple[float, ...]
    """mIoU of masks with themselves after they were reduced by each of `REDUCTIONS` and enlarged again: near 1 where
    objects are large and smooth, low where they are thin or small."""
    lost_objects: tuple[tuple[float, ...], ...]
    """For each of `REDUCTIONS`, per class: which share of its objects (pixels that hang together, also by corners) have
    no pixel left in the reduced masks; 0 for the background."""
    upright: bool
    """Up and down are different in these images (road scenes are, cells are not)."""
    data_hash: str = Field(description="Hash of all training images and masks.")
    """Hash of all training images and masks, as decoded."""


def measure(decoded: Sequence[Decoded], background: int | None = None) -> Fingerprint:
    """Measure the training split; images are read once, one at a time.

    Args:
        decoded: its cases.
        background: the class whose pixels are no objects.
    """
    heights, widths = zip(*(case.size for case in decoded), strict=True)
    aspects = [width / height for height, width in zip(heights, widths, strict=True)]
    mean, deviation, between = _pooled_statistics(decoded)
    pixels = np.sum([case.class_pixels for case in decoded], axis=0)
    total = sum(case.pixels for case in decoded)
    counted = int(pixels.sum())
    some = decoded[:: -(-len(decoded) // REDUCED_IMAGES)]
    return Fingerprint(
        images=len(decoded),
        median_size_px=(int(np.median(heights)), int(np.median(widths))),
        smallest_size_px=(min(heights), min(widths)),
        largest_size_px=(max(heights), max(widths)),
        megapixels=total / 1e6,
        channels=decoded[0].shape[-1],
        mean=tuple(mean.tolist()),
        deviation=tuple(deviation.tolist()),
        types=tuple(sorted({case.image.dtype.name for case in decoded})),
        largest=float(max(case.image.max() for case in decoded)),
        between_images=between,
        class_fractions=tuple((pixels / max(counted, 1)).tolist()),
        class_images=tuple(int(n) for n in np.sum([case.class_pixels > 0 for case in decoded], axis=0)),
        ignored_fraction=1.0 - counted / total,
        aspect_spread=float(max(aspects) / min(aspects)),
        reduced_miou=tuple(_reduced_miou(some, by) for by in REDUCTIONS),
        lost_objects=_lost_objects(some, len(pixels), background),
        upright=_is_upright([_half_difference(case.mask, len(pixels)) for case in decoded]),
        data_hash=hash_of_cases(decoded),
    )


def _pooled_statistics(
    decoded: Sequence[Decoded],
) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, " C"], float]:
    """Mean and deviation over the pixels of all images, and the share of variance between them."""
    parts = [statistics(case.image) for case in decoded]
    weights = np.array([case.pixels for case in decoded], dtype=np.float64)
    weights /= weights.sum()
    means = np.stack([mean for mean, _ in parts])
    # a constant image has deviation 1 by convention; its true variance is zero
    variances = np.stack([_true_variance(case, deviation) for case, (_, deviation) in zip(decoded, parts, strict=True)])
    mean = weights @ means
    between = weights @ (means - mean) ** 2
    variance = weights @ variances + between
    share = float(np.mean(between / np.where(variance > 0, variance, 1.0)))
    return mean, np.where(variance > 0, np.sqrt(variance), 1.0), share


def _true_variance(case: Decoded, deviation: Float[np.ndarray, " C"]) -> Float[np.ndarray, " C"]:
    constant = (case.image[:1, :1] == case.image).all(axis=(0, 1)) if (deviation == 1.0).any() else False
    return np.where(constant, 0.0, deviation**2)


def _reduced_miou(decoded: Sequence[Decoded], by: int) -> float:
    """Mean over the classes that occur of the IoU of masks with themselves at 1 / `by` of their height and width."""
    counts = np.zeros((3, IGNORE + 1), dtype=np.int64)
    for case in decoded:
        mask = np.array(case.mask)
        height, width = mask.shape
        small = resize_mask(mask, (-(-height // by), -(-width // by)))
        coarse = np.where(mask == IGNORE, IGNORE, resize_mask(small, (height, width)))
        counts += [np.bincount(part.reshape(-1), minlength=IGNORE + 1) for part in (mask, coarse, mask[mask == coarse])]
    before, after, same = counts[:, :IGNORE]
    occurs = before > 0
    return float((same / np.maximum(before + after - same, 1))[occurs].mean()) if occurs.any() else 1.0


def _lost_objects(decoded: Sequence[Decoded], classes: int, background: int | None) -> tuple[tuple[float, ...], ...]:
    """See `Fingerprint.lost_objects`."""
    megapixels = sum(case.pixels for case in decoded) / 1e6
    decoded = decoded[:: max(1, math.ceil(megapixels / OBJECT_MEGAPIXELS))]
    there, lost = np.zeros(classes, dtype=np.int64), np.zeros((len(REDUCTIONS), classes), dtype=np.int64)
    for case in decoded:
        mask = np.array(case.mask)
        height, width = mask.shape
        for index in np.flatnonzero(case.class_pixels):
            if index == background:
                continue
            numbers, count = ndimage.label(mask == index, structure=np.ones((3, 3)))
            there[index] += count
            for row, by in enumerate(REDUCTIONS):
                small = resize_mask(numbers, (-(-height // by), -(-width // by)))
                lost[row, index] += count - np.unique(small[small > 0]).size
    return tuple(map(tuple, (lost / np.maximum(there, 1)).tolist()))


def _half_difference(mask: np.ndarray, classes: int) -> Float[np.ndarray, " K"]:
    """Share of each class in the upper half minus that in the lower half."""
    middle = mask.shape[0] // 2
    upper, lower = (_shares(half, classes) for half in (mask[:middle], mask[middle:]))
    difference: np.ndarray = upper - lower
    return difference


def _shares(mask: np.ndarray, classes: int) -> Float[np.ndarray, " K"]:
    counts: Int64[np.ndarray, " K"] = np.bincount(mask.reshape(-1), minlength=IGNORE + 1)[:classes]
    return counts / max(int(counts.sum()), 1)


def _is_upright(differences: Sequence[Float[np.ndarray, " K"]]) -> bool:
    if len(differences) < UPRIGHT_IMAGES:
        return False
    table = np.stack(differences)
    error = table.std(axis=0, ddof=1) / len(table) ** 0.5
    mean = np.abs(table.mean(axis=0))
    return bool(((mean > UPRIGHT_DIFFERENCE) & (mean > UPRIGHT_DEVIATIONS * error)).any())
