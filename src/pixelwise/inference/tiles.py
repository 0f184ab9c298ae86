"""The paper's overlap-tile strategy: an image of any size through a network of bounded input.

Tiles overlap, their probabilities are blended, and what a tile needs beyond the image is mirrored
(Ronneberger et al., 2015, figure 2). Results leave in bands of rows, so that no more than one row
of tiles is held at a time.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from pixelwise.data.preprocess import mirrored_window

ENLARGED_ROWS = 256
"""Rows of a band of an enlarged result."""

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
class Band:
    """Finished rows of a result."""

    top: int
    """First row in the image."""
    probabilities: Float[Tensor, "K h W"]
    """Of the whole width."""

    def classes(self) -> Int64[Tensor, "h w"]:
        """The most probable class of every pixel."""
        return self.probabilities.max(dim=0).indices  # on a processor ten times as fast as argmax


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


def bands(image: Shaped[np.ndarray, "H W C"], predict: Predict, tiling: Tiling) -> Iterator[Band]:
    """Probabilities of an image from top to bottom.

    Args:
        image: raw values; only windows of it are read.
        predict: normalises windows and gives their probabilities, on any device.
        tiling: how to cut.
    """
    height, width = image.shape[:2]
    tops, lefts = (_starts(size, tile, tiling) for size, tile in zip((height, width), tiling.tile_size, strict=True))
    weight = _weight(tiling)
    columns = lefts[-1] + tiling.tile_size[1] - lefts[0]
    total: Tensor | None = None
    weights = torch.zeros((tiling.tile_size[0], columns))
    for top, next_top in zip(tops, [*tops[1:], tops[-1] + tiling.tile_size[0]], strict=True):
        for left, probabilities in _row(image, predict, tiling, top, lefts):
            if total is None:  # only now are the classes and the device known
                weight, weights = weight.to(probabilities.device), weights.to(probabilities.device)
                total = torch.zeros((probabilities.shape[0], *weights.shape), device=weights.device)
            place = slice(left - lefts[0], left - lefts[0] + tiling.tile_size[1])
            total[:, :, place] += probabilities * weight
            weights[:, place] += weight
        assert total is not None
        done = next_top - top
        finished = total[:, :done] / weights[:done]
        first, last = max(top, 0), min(next_top, height)
        if first < last:
            yield Band(first, finished[:, first - top : last - top, -lefts[0] : width - lefts[0]])
        total, weights = _shift(total, done), _shift(weights, done)


def _row(
    image: Shaped[np.ndarray, "H W C"], predict: Predict, tiling: Tiling, top: int, lefts: Sequence[int]
) -> Iterator[tuple[int, Float[Tensor, "K h w"]]]:
    """Each tile of a row: where it begins, and its probabilities."""
    border = tiling.border_px
    size = (tiling.tile_size[0] + 2 * border, tiling.tile_size[1] + 2 * border)
    for start in range(0, len(lefts), tiling.batch_size):
        group = lefts[start : start + tiling.batch_size]
        windows = [mirrored_window(image, top - border, left - border, size) for left in group]
        yield from zip(group, predict(windows), strict=True)


def _starts(size: int, tile: int, tiling: Tiling) -> list[int]:
    """Where tiles begin along an axis: overlapping by at least `tiling.overlap`, the last beyond the end if need be."""
    align = tiling.align_px
    if size <= tile:
        return [-((tile - size) // 2 // align * align)]
    first = -(tiling.margin_px // align * align)
    stride = max(align, round(tile * (1.0 - tiling.overlap)) // align * align)
    count = 1 + math.ceil((size + tiling.margin_px - tile - first) / stride)
    return [first + stride * index for index in range(count)]


def _weight(tiling: Tiling) -> Float[Tensor, "h w"]:
    """Weight of a tile's pixels: the middle, where the network saw most context, counts most."""
    if tiling.blend == "constant":
        return torch.ones(tiling.tile_size)
    row, column = (_bell(size) for size in tiling.tile_size)
    return row[:, None] * column[None, :]


def _bell(size: int) -> Float[Tensor, " n"]:
    # a deviation of an eighth is the field's custom; the floor keeps the sum of weights away from zero
    distance = (torch.arange(size) + 0.5) / size - 0.5
    return torch.exp(-0.5 * (distance / 0.125) ** 2).clamp_min(1e-3)


def _shift(rows: Float[Tensor, "*K h W"], done: int) -> Float[Tensor, "*K h W"]:
    """Drop the first rows and make room for as many at the end."""
    return torch.cat([rows[..., done:, :], torch.zeros_like(rows[..., :done, :])], dim=-2)
