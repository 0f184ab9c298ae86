"""The paper's overlap-tile strategy: an image of any size through a network of bounded input.

Tiles overlap, their probabilities are blended, and what a tile needs beyond the image is mirrored
(Ronneberger et al., 2015, figure 2). Results leave in bands of rows, so that no more than one row
of tiles is held at a time.
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

BAND_VALUES, BAND_ROWS = 1_000_000, 128
"""A row of tiles leaves in several bands, of so many values and rows at least: what is finished is held beside it."""

WIDE_ROW_TILES = 8
"""After so many tiles, what the heap has kept in pieces is worth giving back."""

LABELLED_ROWS = 32
"""Rows whose classes are found together."""

BYTES_PER_CLASS = 8
"""Sums and finished probabilities of a pixel of a row of tiles; both are float32, the latter of some rows only."""

BYTES_PER_PIXEL = 16
"""Weights, and the most probable class with its probability."""

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


@dataclass(frozen=True)
class Band:
    """Finished rows of a result."""

    top: int
    """First row in the image."""
    probabilities: Float[Tensor, "K h W"]
    """Of the whole width, or of the columns that were wanted."""
    left: int = 0
    """First column in the image."""

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns in the image."""
        height, width = self.probabilities.shape[1:]
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def classes(self) -> UInt8[Tensor, "h w"]:
        """The most probable class of every pixel."""
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
    """Probabilities of an image from top to bottom.

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
    inside = slice(region.columns.start - lefts[0], region.columns.stop - lefts[0])
    total: Tensor | None = None
    tiles = _tiles(image, predict, tiling, itertools.product(tops, lefts))
    for top, next_top in zip(tops, [*tops[1:], tops[-1] + tiling.tile_size[0]], strict=True):
        for left, probabilities in itertools.islice(tiles, len(lefts)):
            if total is None:  # only now are the classes and the device known
                device = probabilities.device
                weight, rows, columns = (bells[0][:, None] * bells[1]).to(device), rows.to(device), columns.to(device)
                with memory_errors("Allow less with --memory, or compute with --device cpu."):
                    total = torch.zeros((probabilities.shape[0], tiling.tile_size[0], len(columns)), device=device)
            place = slice(left - lefts[0], left - lefts[0] + tiling.tile_size[1])
            total[:, :, place].addcmul_(probabilities, weight)
        assert total is not None
        if len(lefts) >= WIDE_ROW_TILES:
            give_back_memory()
        last, few = min(next_top, region.rows.stop), max(BAND_ROWS, BAND_VALUES // total[:, 0, inside].numel())
        for first in range(max(top, region.rows.start), last, few):
            after = min(first + few, last)
            weights = rows[first - tops[0] : after - tops[0], None] * columns[inside]
            yield Band(first, total[:, first - top : after - top, inside] / weights, region.columns.start)
        _shift(total, next_top - top)


def _sums(bell: Float[Tensor, " n"], starts: Sequence[int]) -> Float[Tensor, " m"]:
    """The sum of equal bells that begin at these places, from the first of them on."""
    total = torch.zeros(starts[-1] - starts[0] + len(bell))
    for start in starts:
        total[start - starts[0] : start - starts[0] + len(bell)] += bell
    return total


def blocks(size: tuple[int, int], tiling: Tiling, bound: int, classes: int) -> list[Region]:
    """An image cut into blocks of columns whose bands take no more memory than given; tiles at the cuts are done twice.

    Args:
        size: height and width of the image.
        tiling: how the blocks are cut into tiles.
        bound: bytes that the bands of a block may take; a block is as wide as a tile at least.
        classes: of the model.
    """
    height, width = size
    tile_width = tiling.tile_size[1]
    most_columns = bound // _column_bytes(tiling, classes)
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


def narrowest_block_bytes(tiling: Tiling, classes: int) -> int:
    """What the bands of a block as narrow as can be take, and the tiles that are remembered."""
    tile_bytes = 4 * classes * tiling.tile_size[0] * tiling.tile_size[1]
    return 3 * tiling.tile_size[1] * _column_bytes(tiling, classes) + MOST_VALUES * tile_bytes


def _column_bytes(tiling: Tiling, classes: int) -> int:
    return tiling.tile_size[0] * (classes * BYTES_PER_CLASS + BYTES_PER_PIXEL)


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
) -> Iterator[tuple[int, Float[Tensor, "K h w"]]]:
    """Of each tile the first column, and its probabilities; while the network computes, the next ones are read."""
    border = tiling.border_px
    size = (tiling.tile_size[0] + 2 * border, tiling.tile_size[1] + 2 * border)
    groups = iter(lambda: list(itertools.islice(places, tiling.batch_size)), [])
    read = (
        [(left, mirrored_window(image, top - border, left - border, size)) for top, left in group] for group in groups
    )
    for group in read if _is_in_memory(image) else ahead(read):
        yield from zip([left for left, _ in group], predict([window for _, window in group]), strict=True)


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
    stride = max(align, round(tile * (1.0 - tiling.overlap)) // align * align)
    count = 1 + math.ceil((size + tiling.margin_px - tile - first) / stride)
    return [first + stride * index for index in range(count)]


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
