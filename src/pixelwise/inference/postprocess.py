"""What is done to a mask after the network: too small objects take the class around them."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int, UInt8
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

NUMBERED_PIXELS = 4_000_000
"""Objects are numbered in strips of so many pixels, each number of four bytes."""

FILLED_PX = 1024
"""So many columns are filled at a time."""

REACH_PX = 256
"""The class of a pixel comes from no farther to its left or right, and from no farther than a band above or below."""

Band = TypeVar("Band")


def cleaned_bands(bands: Bands, smallest_px: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h W"]]:
    """As `without_small_objects` of the whole mask, but for pixels that have nothing else within reach.

    Besides some bands and strips, a few bytes are held for each object.
    """
    goes = {index: _too_small(bands(), index, fewest) for index, fewest in enumerate(smallest_px) if fewest > 1}
    for above, (mask, small), below in _with_neighbours(_marked(bands(), goes)):
        if not small.any():
            yield mask
            continue
        masks, smalls = (np.concatenate(parts) for parts in zip(*above, (mask, small), *below, strict=True))
        top = len(above[0][0]) if above else 0
        yield _filled_by_columns(masks, smalls)[top : top + len(mask)]


def _marked(
    bands: Iterator[UInt8[np.ndarray, "h W"]], goes: Mapping[int, Bool[np.ndarray, " n"]]
) -> Iterator[tuple[UInt8[np.ndarray, "h W"], Bool[np.ndarray, "h W"]]]:
    """Each band with the pixels that go; of each class, the objects that do so are known by their numbers."""
    totals = dict.fromkeys(goes, 0)
    for mask in bands:
        small = np.zeros(mask.shape, dtype=bool)
        for index, is_small in goes.items():
            for rows in _strips(mask):
                numbers, count = _numbered(mask[rows], index, totals[index])
                totals[index] += count
                small[rows] |= is_small[numbers]
        yield mask, small


def _strips(mask: UInt8[np.ndarray, "h W"]) -> Iterator[slice]:
    few = max(1, NUMBERED_PIXELS // mask.shape[1])
    return (slice(top, top + few) for top in range(0, len(mask), few))


def _numbered(strip: UInt8[np.ndarray, "h W"], index: int, before: int) -> tuple[Int[np.ndarray, "h W"], int]:
    """The connected regions of a class within a strip, by numbers that begin after those before it; 0 for none."""
    numbers, count = ndimage.label(strip == index, NEIGHBOURS)
    numbers[numbers > 0] += before
    return numbers, count


def _too_small(bands: Iterator[UInt8[np.ndarray, "h W"]], index: int, fewest: int) -> Bool[np.ndarray, " n"]:
    """For each number that `_numbered` gives, whether its object, in all strips together, has too few pixels."""
    sizes, joints = [np.zeros(1, dtype=np.int64)], [np.zeros((0, 2), dtype=np.int32)]
    last: np.ndarray | None = None
    total = 0
    for strip in (mask[rows] for mask in bands for rows in _strips(mask)):
        numbers, count = _numbered(strip, index, total)
        sizes.append(np.bincount(numbers[numbers > 0] - total - 1, minlength=count))
        total += count
        if last is not None:
            joints.append(_touching(last, numbers[0]))
        last = numbers[-1].copy()  # a view would hold the strip
    pairs = np.concatenate(joints)
    graph = sparse.coo_array((np.ones(len(pairs), dtype=bool), pairs.T), shape=(total + 1, total + 1))
    _, whole = sparse.csgraph.connected_components(graph, directed=False)
    is_small: np.ndarray = np.bincount(whole, weights=np.concatenate(sizes))[whole] < fewest
    is_small[0] = False
    return is_small


def _touching(upper: Int[np.ndarray, " W"], lower: Int[np.ndarray, " W"]) -> Int[np.ndarray, "n 2"]:
    """Numbers of two rows that lie above each other, by an edge or by a corner; each pair once."""
    sides = ((upper, lower), (upper[1:], lower[:-1]), (upper[:-1], lower[1:]))
    pairs = np.concatenate([np.stack(side, axis=1) for side in sides])
    joined: np.ndarray = np.unique(pairs[(pairs > 0).all(axis=1)], axis=0)
    return joined


def _with_neighbours(parts: Iterator[Band]) -> Iterator[tuple[list[Band], Band, list[Band]]]:
    """Each part with the one before it and the one after it, where there are some."""
    before: list[Band] = []
    for part, after in itertools.pairwise(itertools.chain(parts, [None])):
        assert part is not None
        yield before, part, [after] if after is not None else []
        before = [part]


def _filled_by_columns(mask: UInt8[np.ndarray, "h W"], small: Bool[np.ndarray, "h W"]) -> UInt8[np.ndarray, "h W"]:
    """As `filled`, some columns at a time: distances take thirty times the memory of a mask."""
    result = mask.copy()
    for left in range(0, mask.shape[1], FILLED_PX):
        first = max(0, left - REACH_PX)
        around = slice(first, left + FILLED_PX + REACH_PX)
        own = slice(left - first, left - first + FILLED_PX)
        result[:, left : left + FILLED_PX] = filled(mask[:, around], small[:, around])[:, own]
    return result
