"""What is done to a mask after the network: too small objects take the class around them."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8
from scipy import ndimage, sparse

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
    return filled(mask, small)


def filled(mask: UInt8[np.ndarray, "H W"], small: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """The class of the nearest other pixel for those that go."""
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


# --- larger than memory ----------------------------------------------------------------------------------------------

Bands = Callable[[], Iterator[UInt8[np.ndarray, "h W"]]]
"""A mask from top to bottom, some rows at a time; the same at each call."""

FILLED_PX = 2048
"""So many columns are filled at a time."""

Part = TypeVar("Part")

REACH_PX = 256
"""The class of a pixel comes from no farther to its left or right, and from no farther than a band above or below."""


def cleaned_bands(bands: Bands, smallest_px: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h W"]]:
    """As `without_small_objects` of the whole mask, but for pixels that have nothing else within reach."""
    goes = {index: _too_small(bands(), index, fewest) for index, fewest in enumerate(smallest_px) if fewest > 1}
    numbered = [_numbered(bands(), index) for index in goes]
    marked = (
        (mask, np.any([goes[index][numbers] for index, numbers in zip(goes, each, strict=True)], axis=0))
        for mask, *each in zip(bands(), *numbered, strict=True)
    )
    for above, (mask, small), below in _with_neighbours(marked):
        around = [*above, (mask, small), *below]
        masks, smalls = (np.concatenate(parts) for parts in zip(*around, strict=True))
        top = len(above[0][0]) if above else 0
        yield _filled_by_columns(masks, smalls)[top : top + len(mask)] if small.any() else mask


def _numbered(bands: Iterator[UInt8[np.ndarray, "h W"]], index: int) -> Iterator[Int[np.ndarray, "h W"]]:
    """The connected regions of a class within each band, by numbers that go on from band to band; 0 for none."""
    total = 0
    for mask in bands:
        numbers, count = ndimage.label(mask == index, NEIGHBOURS)
        numbers[numbers > 0] += total
        total += count
        yield numbers


def _too_small(bands: Iterator[UInt8[np.ndarray, "h W"]], index: int, fewest: int) -> Bool[np.ndarray, " n"]:
    """For each number that `_numbered` gives, whether its object, in all bands together, has too few pixels."""
    sizes, joints = [np.zeros(1, dtype=np.int64)], [np.zeros((0, 2), dtype=np.int64)]
    last: np.ndarray | None = None
    total = 0
    for numbers in _numbered(bands, index):
        found = int(numbers.max(initial=0))
        if found > total:
            sizes.append(np.bincount(numbers[numbers > 0] - total - 1, minlength=found - total))
            total = found
        if last is not None:
            joints.append(_touching(last, numbers[0]))
        last = numbers[-1]
    pairs = np.unique(np.concatenate(joints), axis=0)
    graph = sparse.coo_array((np.ones(len(pairs), dtype=bool), pairs.T), shape=(total + 1, total + 1))
    _, whole = sparse.csgraph.connected_components(graph, directed=False)
    found_small: np.ndarray = np.bincount(whole, weights=np.concatenate(sizes))[whole] < fewest
    found_small[0] = False
    return found_small


def _touching(upper: Int[np.ndarray, " W"], lower: Int[np.ndarray, " W"]) -> Int[np.ndarray, "n 2"]:
    """Numbers of two rows that lie above each other, by an edge or by a corner."""
    sides = ((upper, lower), (upper[1:], lower[:-1]), (upper[:-1], lower[1:]))
    pairs = np.concatenate([np.stack(side, axis=1) for side in sides])
    joined: np.ndarray = pairs[(pairs > 0).all(axis=1)]
    return joined


def _with_neighbours(parts: Iterator[Part]) -> Iterator[tuple[list[Part], Part, list[Part]]]:
    """Each part with the one before it and the one after it, where there are some."""
    before: list[Part] = []
    for part, after in itertools.pairwise(itertools.chain(parts, [None])):
        assert part is not None
        yield before, part, [after] if after is not None else []
        before = [part]


def _filled_by_columns(mask: UInt8[np.ndarray, "h W"], small: Bool[np.ndarray, "h W"]) -> Shaped[np.ndarray, "h W"]:
    """As `_filled`, some columns at a time: distances take thirty times the memory of a mask."""
    result = mask.copy()
    for left in range(0, mask.shape[1], FILLED_PX):
        first = max(0, left - REACH_PX)
        around = slice(first, left + FILLED_PX + REACH_PX)
        own = slice(left - first, left - first + FILLED_PX)
        result[:, left : left + FILLED_PX] = filled(mask[:, around], small[:, around])[:, own]
    return result
