"""What kind of mistakes a model makes, how it does on objects of different sizes, and which masks may be wrong.

An object is a connected region of one class (eight neighbours) other than the background.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, Int64, UInt8
from scipy import ndimage

from pixelwise.classes import IGNORE
from pixelwise.metrics.boundaries import boundary_width_px, classes_in

Kind = Literal["boundary", "missed", "false", "confused"]
KINDS: tuple[Kind, ...] = ("boundary", "missed", "false", "confused")
"""Of wrong pixels: an outline that is off a bit; an object, or a part of it, taken for background; background taken for
an object; one class taken for another."""

FOUND = 0.1
"""An object is found if at least this share of its pixels is predicted as its class."""

SIZE_EDGES_PX = (8, 32, 96)
"""Objects are sorted by the edge of the square of the same area: 32 and 96 are COCO's limits, 8 the smallest map's."""

_EIGHT = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class Objects:
    """Objects of one image, in the truth."""

    label: Int64[np.ndarray, " n"]
    """Class index of each."""
    pixels: Int64[np.ndarray, " n"]
    """Size of each."""
    hit: Int64[np.ndarray, " n"]
    """Its pixels that are predicted as its class."""


@dataclass(frozen=True)
class Mistakes:
    """What is wrong in one image."""

    pixels: Int64[np.ndarray, "K 4"]
    """Wrong pixels by class and kind, each once: with the true class, or the predicted one where background is true."""
    objects: Objects
    sure: int
    """Wrong pixels, not at outlines, of which the model is sure: either it or the mask is badly wrong."""


def find_mistakes(
    prediction: UInt8[np.ndarray, "H W"],
    target: UInt8[np.ndarray, "H W"],
    confident: Bool[np.ndarray, "H W"],
    classes: int,
    background: int | None,
) -> Mistakes:
    """Sort every wrong pixel of an image.

    Objects that were not found, and predicted ones that are not there, are told first; then outlines that are off by
    no more than the width of the boundary IoU; what is left lies inside of objects that were found.

    Args:
        prediction: class indices.
        target: class indices or IGNORE.
        confident: where the model is sure.
        classes: K.
        background: index of the class that is no object; none where all classes are things to see.
    """
    wrong = (prediction != target) & (target != IGNORE)
    things = [index for index in classes_in(target, prediction, below=classes) if index != background]
    objects, lost = _objects(target, prediction, wrong, things)
    _, invented = _objects(np.where(target == IGNORE, IGNORE, prediction), target, wrong, things)
    shifted = wrong & ~lost & ~invented & _is_close(prediction, target, wrong, classes)
    kind = np.full(target.shape, KINDS.index("confused"), dtype=np.uint8)
    if background is not None:
        kind[prediction == background] = KINDS.index("missed")
        kind[target == background] = KINDS.index("false")
    kind[shifted] = KINDS.index("boundary")
    blamed = target if background is None else np.where(target == background, prediction, target)
    pairs = blamed[wrong].astype(np.int64) * len(KINDS) + kind[wrong]
    pixels = np.bincount(pairs, minlength=classes * len(KINDS)).reshape(classes, len(KINDS))
    return Mistakes(pixels, objects, int(np.count_nonzero(wrong & confident & ~shifted)))


@dataclass(frozen=True)
class SizeRow:
    """How objects of about one size fare."""

    name: str
    """Between which edges, in pixels, the square of their area lies."""
    number: int
    found: int
    share: float
    """Mean share of an object's pixels that is predicted right; nan where there is no object."""


def by_size(objects: Sequence[Objects]) -> list[SizeRow]:
    """The objects of all images by their size."""
    pixels, hit = (np.concatenate([getattr(one, name) for one in objects]) for name in ("pixels", "hit"))
    place = np.searchsorted(np.array(SIZE_EDGES_PX), np.sqrt(pixels), side="right")
    rows = []
    for index, name in enumerate(_size_names()):
        here = place == index
        number = int(here.sum())
        found = int((hit[here] >= FOUND * pixels[here]).sum())
        rows.append(SizeRow(name, number, found, float((hit[here] / pixels[here]).mean()) if number else math.nan))
    return rows


def _size_names() -> list[str]:
    first, *_, last = SIZE_EDGES_PX
    pairs = itertools.pairwise(SIZE_EDGES_PX)
    return [f"below {first} px", *(f"{low} to {high} px" for low, high in pairs), f"{last} px and more"]


def _objects(
    mask: UInt8[np.ndarray, "H W"],
    other: UInt8[np.ndarray, "H W"],
    wrong: Bool[np.ndarray, "H W"],
    things: Sequence[int],
) -> tuple[Objects, Bool[np.ndarray, "H W"]]:
    """The objects of one mask with what they share with the other; and the wrong pixels of those that share nothing."""
    labels: list[Int[np.ndarray, " n"]] = []
    sizes: list[Int[np.ndarray, " n"]] = []
    hits: list[Int[np.ndarray, " n"]] = []
    alone = np.zeros(mask.shape, dtype=bool)
    for index in things:
        parts, number = ndimage.label(mask == index, structure=_EIGHT)
        size = np.bincount(parts.ravel(), minlength=number + 1)[1:]
        hit = np.bincount(parts[other == index], minlength=number + 1)[1:]
        labels.append(np.full(number, index))
        sizes.append(size)
        hits.append(hit)
        alone |= np.concatenate([[False], hit < FOUND * size])[parts]
    nothing = [np.zeros(0, dtype=np.int64)]
    return Objects(*(np.concatenate(found or nothing) for found in (labels, sizes, hits))), alone & wrong


def _is_close(
    prediction: UInt8[np.ndarray, "H W"],
    target: UInt8[np.ndarray, "H W"],
    wrong: Bool[np.ndarray, "H W"],
    classes: int,
) -> Bool[np.ndarray, "H W"]:
    """Where the predicted class is the true one not far away."""
    close = np.zeros(target.shape, dtype=bool)
    window = 2 * boundary_width_px(target.shape) + 1
    for index in classes_in(prediction[wrong], below=classes):
        near = ndimage.maximum_filter(target == index, size=window, mode="constant", cval=0)
        close |= wrong & (prediction == index) & near
    return close
