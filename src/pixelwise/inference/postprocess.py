"""What is done to a mask after the network: too small objects take the class around them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8
from scipy import ndimage

from pixelwise.classes import IGNORE

NEIGHBOURS = np.ones((3, 3), dtype=bool)
"""Pixels hang together by edges and by corners."""


def without_small_objects(mask: UInt8[np.ndarray, "H W"], smallest_px: Sequence[int]) -> UInt8[np.ndarray, "H W"]:
    """A mask in which objects with too few pixels have the class of the nearest pixel of what is left.

    Args:
        mask: class index or IGNORE; IGNORE stays, and gives its value to nothing.
        smallest_px: for each class the fewest pixels of an object; 0 or 1 keeps all.
    """
    small = np.zeros(mask.shape, dtype=bool)
    for index, fewest in enumerate(smallest_px):
        if fewest > 1:
            small |= smaller_than(fewest, *objects(mask, index))
    kept = ~small & (mask != IGNORE)
    if not small.any() or not kept.any():
        return mask
    _, (rows, columns) = ndimage.distance_transform_edt(~kept, return_indices=True)
    return np.where(small, mask[rows, columns], mask)


def objects(mask: UInt8[np.ndarray, "H W"], index: int) -> tuple[Int[np.ndarray, "H W"], Int[np.ndarray, " n"]]:
    """The connected regions of a class: their number at each pixel, 0 for none, and how many pixels each has."""
    numbers, count = ndimage.label(mask == index, NEIGHBOURS)
    return numbers, np.bincount(numbers.ravel(), minlength=count + 1)


def smaller_than(fewest: int, numbers: Int[np.ndarray, "H W"], sizes: Int[np.ndarray, " n"]) -> Bool[np.ndarray, "H W"]:
    """Pixels of objects, as `objects` gives them, that have fewer than so many."""
    is_small = sizes < fewest
    is_small[0] = False
    found: np.ndarray = is_small[numbers]
    return found
