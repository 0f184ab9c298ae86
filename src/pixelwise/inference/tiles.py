"""The paper's overlap-tile strategy: an image of any size through a network of bounded input.

Tiles overlap, their probabilities are blended, and what a tile needs beyond the image is mirrored
(Ronneberger et al., 2015, figure 2). A part of the result leaves as soon as no further tile touches it:
held are one tile, and the rows that the next row of tiles touches too.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from pixelwise.data.parallel import ahead
from pixelwise.data.preprocess import Prepared, mirrored_window
from pixelwise.data.windows import Source
from pixelwise.errors import memory_errors
from pixelwise.memory import give_back_memory

ENLARGED_ROWS = 256
"""Rows of a band of an enlarged result."""

WIDE_ROW_TILES = 8
"""After so many tiles, what the heap has kept in pieces is worth giving back."""

LABELLED_ROWS = 32
"""Rows whose classes are found together."""

MOST_VALUES = 2
"""So many predictions of windows of a single value are remembered."""

Windows = list[Shaped[np.ndarray, "h w C"]]
"""Raw values of equally large parts of an image."""

Predict = Callable[[Windows], Float[Tensor, "B K H W"]]
"""From windows to class probabilities; smaller than the windows by the border on each side."""


@dataclass(frozen=True)
class Tiling:
    """How an image is cut."""

    tile_size: tuple[int, int]
    """Height and width of what comes out of the network for one tile, in pixels."""
    border_px: int
    """The network sees so many pixels more on each side."""
    margin_px: int
    """Tiles reach so many pixels beyond the image, where they see its mirror image."""
    align_px: int
    """Tiles begin at multiples of this, so that pooling sees the same pixels together in every tile."""
    overlap: float
    """Share of a tile that it has in common with its neighbour, at least."""
    blend: str
    """`gaussian` or `constant` weight of overlapping tiles."""
    batch_size: int = 1
    """Tiles per call of the network."""


@dataclass(frozen=True)
class Region:
    """The part of an image that is wanted."""

    rows: range
    columns: range

    @classmethod
    def whole(cls, size: tuple[int, int]) -> "Region":
        """All of an image of that height and width."""
        return cls(range(size[0]), range(size[1]))

    def part(self, rows: range, columns: range) -> "Region":
        """What lies in those rows and columns too."""
        pairs = ((self.rows, rows), (self.columns, columns))
        return Region(*(range(max(one.start, other.start), min(one.stop, other.stop)) for one, other in pairs))


@dataclass(frozen=True)
class Band:
    """A finished part of a result."""

    top: int
    """First row in the image."""
    probabilities: Float[Tensor, "K h w"]
    left: int = 0
    """First column in the image."""

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns in the image."""
        height, width = self.probabilities.shape[1:]
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def classes(self) -> UInt8[Tensor, "h w"]:
        """The most probable class of every pixel."""
        if self.probabilities.device.type != "cpu":
            return self.probabilities.argmax(dim=0).to(torch.uint8)
        # max is ten times as fast as argmax on a processor; a few rows at a time, since its indices have eight bytes
        parts = torch.split(self.probabilities, LABELLED_ROWS, dim=1)
        return torch.cat([rows.max(dim=0).indices.to(torch.uint8) for rows in parts])

    def labels(self) -> UInt8[np.ndarray, "h w"]:
        """The same as an array."""
        return self.classes().cpu().numpy()


def enlarged(small: Float[Tensor, "K h w"], size: tuple[int, int]) -> Iterator[Band]:
    """Bilinear enlargement to height and width `size`, in bands; equal to `F.interpolate` of the whole."""
    height = small.shape[1]
    # place of each row in the small map, between the middles of its first and last row
    places = ((torch.arange(size[0], dtype=torch.float64) + 0.5) * height / size[0] - 0.5).clamp(0, height - 1)
    above = places.floor().long()
    below = (above + 1).clamp_max(height - 1)
    share = (places - above).to(small)[:, None]
    for top in range(0, size[0], ENLARGED_ROWS):
        rows = slice(top, top + ENLARGED_ROWS)
        upper, lower = (small[:, index[rows].to(small.device)] for index in (above, below))
        band = torch.lerp(upper, lower, share[rows])  # K rows w
        wide = F.interpolate(band[None], (band.shape[1], size[1]), mode="bilinear", align_corners=False)
        yield Band(top, wide[0])


def bands(image: Source, predict: Predict, tiling: Tiling, region: Region | None = None) -> Iterator[Band]:
    """Probabilities of an image from top to bottom, and of the same rows from left to right.

    Those of a region are equal to those of the whole, since all tiles that touch it are predicted.

    Args:
        image: raw values; only windows of it are read.
        predict: normalises windows and gives their probabilities, on any device.
        tiling: how to cut.
        region: the part that is wanted; none for all.
    """
    region = region or Region.whole((image.shape[0], image.shape[1]))
    tops, lefts = (
        touching(starts(size, tile, tiling), tile, wanted)
        for size, tile, wanted in zip(image.shape[:2], tiling.tile_size, (region.rows, region.columns), strict=True)
    )
    bells = [_bell(edge, tiling.blend) for edge in tiling.tile_size]
    # a tile's weight is a product of its row's and its column's, and so is the sum over all tiles
    columns = _sums(bells[1], lefts)
    rows = _sums(bells[0], tops)
    shared = tiling.tile_size[0] - (tops[1] - tops[0]) if len(tops) > 1 else 0
    tiles = _tiles(image, predict, tiling, itertools.product(tops, lefts))
    sums: _Sums | None = None
    for top, next_top in itertools.pairwise([*tops, tops[-1] + tiling.tile_size[0]]):
        for left, next_left in itertools.pairwise([*lefts, lefts[-1] + tiling.tile_size[1]]):
            probabilities = next(tiles)
            if sums is None:  # only now are the classes and the device known
                device = probabilities.device
                weight, rows, columns = (bells[0][:, None] * bells[1]).to(device), rows.to(device), columns.to(device)
                with memory_errors("Allow less with --memory, or compute with --device cpu."):
                    sums = _Sums.begin(probabilities, shared, len(columns))
            sums.tile.addcmul_(probabilities, weight)
            done = region.part(range(top, next_top), range(left, next_left))
            if done.rows and done.columns:
                weights = rows[_within(done.rows, tops[0])][:, None] * columns[_within(done.columns, lefts[0])]
                finished = sums.tile[:, _within(done.rows, top), _within(done.columns, left)]
                yield Band(done.rows.start, finished / weights, done.columns.start)
            sums.move(left - lefts[0], next_left - left)
        assert sums is not None
        sums.begin_row()
        if len(lefts) >= WIDE_ROW_TILES:
            give_back_memory()


@dataclass(frozen=True)
class _Sums:
    """Weighted probabilities of tiles, added up where further tiles add to them."""

    tile: Float[Tensor, "K h w"]
    """Of the place where the next tile lies."""
    shared: Float[Tensor, "K s W"]
    """Of the rows that two rows of tiles share: left of that place of this row of tiles, else of the one above."""

    @classmethod
    def begin(cls, like: Float[Tensor, "K h w"], shared: int, width: int) -> "_Sums":
        """Of no tile yet."""
        return cls(torch.zeros_like(like), like.new_zeros((len(like), shared, width)))

    def move(self, left: int, columns: int) -> None:
        """Go so many columns to the right, from a tile that begins in column `left` of the shared rows."""
        shared, (height, width) = self.shared.shape[1], self.tile.shape[1:]
        self.shared[:, :, left : left + columns] = self.tile[:, height - shared :, :columns]
        _shift(self.tile.transpose(1, 2), columns)
        coming = self.shared[:, :, left + width : left + width + columns]
        self.tile[:, :shared, width - columns : width - columns + coming.shape[2]] = coming

    def begin_row(self) -> None:
        """Go to the first tile of the next row."""
        shared, width = self.shared.shape[1], self.tile.shape[2]
        self.tile[:, :shared] = self.shared[:, :, :width]


def _within(part: range, start: int) -> slice:
    """Rows or columns, counted from another one than the first."""
    return slice(part.start - start, part.stop - start)


def _sums(bell: Float[Tensor, " n"], starts: Sequence[int]) -> Float[Tensor, " m"]:
    """The sum of equal bells that begin at these places, from the first of them on."""
    total = torch.zeros(starts[-1] - starts[0] + len(bell))
    for start in starts:
        total[start - starts[0] : start - starts[0] + len(bell)] += bell
    return total


def blocks(size: tuple[int, int], tiling: Tiling, most_columns: int) -> list[Region]:
    """An image cut into blocks of columns; tiles at the cuts are done twice.

    Args:
        size: height and width of the image.
        tiling: how the blocks are cut into tiles.
        most_columns: that may be held of a block, with those of its tiles beyond it; it is as wide as a tile at least.
    """
    height, width = size
    tile_width = tiling.tile_size[1]
    cuts = [start for start in starts(width, tile_width, tiling)[1:] if start < width]
    regions = []
    left = 0
    while left < width:
        within = [cut for cut in (*cuts, width) if left < cut and cut - left + 2 * tile_width <= most_columns]
        following = [cut for cut in (*cuts, width) if left < cut]
        right = within[-1] if within else following[0]
        regions.append(Region(range(height), range(left, right)))
        left = right
    return regions


def narrowest_block_bytes(tiling: Tiling, classes: int, column_bytes: int) -> int:
    """What is held of a block as narrow as can be, and the tiles that are remembered."""
    tile_bytes = 4 * classes * tiling.tile_size[0] * tiling.tile_size[1]
    return 3 * tiling.tile_size[1] * column_bytes + MOST_VALUES * tile_bytes


def column_bytes(tiling: Tiling, classes: int, kept_bytes: int) -> int:
    """What is held of a column of a block: the sums of rows that two rows of tiles share, and what is made of others.

    Args:
        tiling: how the blocks are cut into tiles.
        classes: of the model.
        kept_bytes: of each finished pixel.
    """
    height = tiling.tile_size[0]
    step = stride(height, tiling)
    return 4 * classes * (height - step) + kept_bytes * step


def once_per_value(predict: Predict) -> Predict:
    """Windows of one value everywhere, as they surround what was scanned, are predicted once."""
    known: dict[bytes, Tensor] = {}

    def remembering(windows: Windows) -> Float[Tensor, "B K H W"]:
        values = [_only_value(window) for window in windows]
        new = [index for index, value in enumerate(values) if value is None or value not in known]
        fresh = dict(zip(new, predict([windows[index] for index in new]), strict=True)) if new else {}
        results = [fresh[index] if index in fresh else known[value or b""] for index, value in enumerate(values)]
        for index in new:
            if (value := values[index]) is not None:
                known[value] = fresh[index].clone()  # not the whole batch with it
        while len(known) > MOST_VALUES:
            del known[next(iter(known))]
        return torch.stack(results)

    return remembering


def _only_value(window: Shaped[np.ndarray, "h w C"]) -> bytes | None:
    first = window[:1, :1]
    return first.tobytes() if (window[0] == first).all() and (window == first).all() else None


def _tiles(
    image: Source, predict: Predict, tiling: Tiling, places: Iterator[tuple[int, int]]
) -> Iterator[Float[Tensor, "K h w"]]:
    """Probabilities of each tile; while the network computes, the next ones are read."""
    border = tiling.border_px
    size = (tiling.tile_size[0] + 2 * border, tiling.tile_size[1] + 2 * border)
    groups = iter(lambda: list(itertools.islice(places, tiling.batch_size)), [])
    read = ([mirrored_window(image, top - border, left - border, size) for top, left in group] for group in groups)
    for windows in read if _is_in_memory(image) else ahead(read):
        yield from predict(windows)


def _is_in_memory(image: Source) -> bool:
    return isinstance(image.source if isinstance(image, Prepared) else image, np.ndarray)


def touching(starts: Sequence[int], tile: int, wanted: range) -> list[int]:
    """Those of the tiles along an axis that have a pixel of what is wanted."""
    return [start for start in starts if start < wanted.stop and start + tile > wanted.start]


def starts(size: int, tile: int, tiling: Tiling) -> list[int]:
    """Where tiles begin along an axis: overlapping by at least `tiling.overlap`, the last beyond the end if need be."""
    align = tiling.align_px
    if size <= tile:
        return [-((tile - size) // 2 // align * align)]
    first = -(tiling.margin_px // align * align)
    step = stride(tile, tiling)
    count = 1 + math.ceil((size + tiling.margin_px - tile - first) / step)
    return [first + step * index for index in range(count)]


def stride(tile: int, tiling: Tiling) -> int:
    """From one tile to the next along an axis."""
    return max(tiling.align_px, round(tile * (1.0 - tiling.overlap)) // tiling.align_px * tiling.align_px)


def _bell(size: int, blend: str) -> Float[Tensor, " n"]:
    """Weight of a tile's pixels along an axis: the middle, where the network saw most context, counts most."""
    if blend == "constant":
        return torch.ones(size)
    # a deviation of an eighth is the field's custom; the floor keeps the sum of weights away from zero
    distance = (torch.arange(size) + 0.5) / size - 0.5
    return torch.exp(-0.5 * (distance / 0.125) ** 2).clamp_min(1e-3)


def _shift(rows: Float[Tensor, "*K h W"], done: int) -> None:
    """Drop the first rows and make room for as many at the end, in place."""
    kept = rows[..., done:, :]
    moved = rows[..., : kept.shape[-2], :]
    moved.copy_(kept if kept.shape[-2] <= done else kept.clone())  # what overlaps cannot be copied onto itself
    rows[..., kept.shape[-2] :, :].zero_()
