"""From a mask to the outlines of its objects, along the edges between pixels.

An object is a set of pixels of one class that are neighbours by an edge. Its outline encloses exactly its pixels, so
that its area is their number, and what is drawn from it is the mask again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

Ring = Float[np.ndarray, "_ 2"]
"""x and y of each corner, in pixels; pixel column i covers i..i+1. The last corner is joined to the first."""


@dataclass(frozen=True)
class Outline:
    """An object of a mask."""

    index: int
    """Its class, or IGNORE."""
    pixels: int
    outer: Ring
    """Clockwise as one sees it."""
    holes: tuple[Ring, ...]
    """Anticlockwise."""
    top: int
    left: int
    """First row and column of its bounding box."""
    shape: Bool[np.ndarray, "h w"]
    """Its pixels in the bounding box."""


def outlines(mask: UInt8[np.ndarray, "H W"], without: int | None) -> Iterator[Outline]:
    """The objects of a mask, class by class.

    Args:
        mask: class index or IGNORE.
        without: a class that is no object: the background.
    """
    for index in np.unique(mask).tolist():
        if index == without:
            continue
        numbered, _ = ndimage.label(mask == index)
        for number, box in enumerate(ndimage.find_objects(numbered), start=1):
            shape = numbered[box] == number
            top, left = box[0].start, box[1].start
            rings = [ring + np.array((left, top)) for ring in _rings(shape)]
            outer = max(rings, key=signed_area)
            holes = tuple(ring for ring in rings if ring is not outer)
            yield Outline(index, int(shape.sum()), outer, holes, top, left, shape)


def signed_area(ring: Ring) -> float:
    """Square pixels inside a ring; negative if it runs anticlockwise as one sees it."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def _rings(shape: Bool[np.ndarray, "h w"]) -> list[Ring]:
    """The closed lines between an object and everything else, corners only.

    Every edge between a pixel inside and one outside is walked once, the inside to the right. Where four edges meet,
    the walk turns left and thereby stays with the same pixel outside: no line touches itself, and what is enclosed by
    pixels that meet at a corner becomes a hole.
    """
    padded = np.pad(shape, 1)
    core = padded[1:-1, 1:-1]
    edges = (  # row and column steps to the first corner, and the direction of the walk: right, down, left, up
        (core & ~padded[:-2, 1:-1], (0, 0), 0),
        (core & ~padded[1:-1, 2:], (0, 1), 1),
        (core & ~padded[2:, 1:-1], (1, 1), 2),
        (core & ~padded[1:-1, :-2], (1, 0), 3),
    )
    leaving: dict[tuple[int, int], list[int]] = {}
    for present, (down, right), direction in edges:
        for row, column in np.argwhere(present).tolist():
            leaving.setdefault((row + down, column + right), []).append(direction)
    rings = []
    while leaving:
        rings.append(_walk(leaving))
    return rings


_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Rows and columns of a step to the right, down, left, up."""


def _walk(leaving: dict[tuple[int, int], list[int]]) -> Ring:
    """One closed line, whose edges are taken out of `leaving`: the directions in which edges leave each corner."""
    place = start = next(iter(leaving))
    directions: list[int] = []
    corners: list[tuple[int, int]] = []
    while not directions or place != start:
        choices = leaving[place]
        left = (directions[-1] - 1) % 4 if directions else choices[0]
        direction = left if left in choices else choices[0]
        choices.remove(direction)
        if not choices:
            del leaving[place]
        if not directions or direction != directions[-1]:
            corners.append(place)
        directions.append(direction)
        place = (place[0] + _STEPS[direction][0], place[1] + _STEPS[direction][1])
    if directions[-1] == directions[0]:  # the walk has begun in the middle of a line
        corners = corners[1:]
    return np.array([(column, row) for row, column in corners], dtype=np.float64)


def along_centres(shape: Bool[np.ndarray, "h w"]) -> list[tuple[int, int]]:
    """X and y of the pixels along the border of an object without holes: drawing programs fill such outlines."""
    outer = max(_rings(shape), key=signed_area)
    pixels: list[tuple[int, int]] = []
    for (x, y), (next_x, next_y) in zip(outer.tolist(), np.roll(outer, -1, axis=0).tolist(), strict=True):
        step = (int(np.sign(next_x - x)), int(np.sign(next_y - y)))
        length = int(abs(next_x - x) + abs(next_y - y))
        pixels += [_right_of((int(x) + step[0] * number, int(y) + step[1] * number), step) for number in range(length)]
    before = [pixels[-1], *pixels[:-1]]
    path = [pixel for pixel, last in zip(pixels, before, strict=True) if pixel != last]
    around = zip([*path[-1:], *path[:-1]], path, [*path[1:], *path[:1]], strict=True)
    corners = [at for last, at, following in around if _step(last, at) != _step(at, following)]
    return corners or path[:1] or pixels[:1]


def _step(start: tuple[int, int], end: tuple[int, int]) -> tuple[int, int]:
    return end[0] - start[0], end[1] - start[1]


def _right_of(corner: tuple[int, int], step: tuple[int, int]) -> tuple[int, int]:
    """X and y of the pixel to the right of an edge that leaves a corner."""
    x, y = corner
    return {(1, 0): (x, y), (0, 1): (x - 1, y), (-1, 0): (x - 1, y - 1), (0, -1): (x, y - 1)}[step]
