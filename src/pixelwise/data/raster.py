"""Pixels as a file holds them, and what every reader has to know of them."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

from pixelwise.errors import DataError

FEW_CHANNELS = 16
"""An axis of a .npy file, or a last axis of a TIFF, holds channels up to this length."""

MAX_RATIO = 1100
"""Deflate, the strongest common compression, makes nothing smaller than 1 / 1032."""

MAX_UNASKED_BYTES = 2**32
"""Above this decoded size, a file more than `MAX_RATIO` times smaller is not believed."""
ORIENTATION = 0x0112  # the tag of EXIF and of TIFF


@dataclass(frozen=True)
class ImageInfo:
    """What the header of an image file says of its upright image, or of each of its pages."""

    height: int
    width: int
    channels: int
    """As stored; palette images count as three. `read_image` drops an alpha channel that is constant."""
    dtype: str
    pages: int
    orientation: int = 1
    """How the camera was held, 1 to 8 of EXIF; 1 is upright, above 4 height and width are exchanged in the file."""
    alpha: bool = False
    """The last channel is declared to be transparency."""


@dataclass(frozen=True)
class Raster:
    """Pixels as a file holds them."""

    pixels: Shaped[np.ndarray, "H W C"]
    """Booleans where the file has one bit per pixel."""
    palette: UInt8[np.ndarray, "256 3"] | None = None
    """Colour of each value of a palette image."""
    alpha: bool = False
    """The last channel is transparency."""
    negative: bool = False
    """Zero is white (photographic negative)."""
    binary: bool = False
    """The file itself has one bit per pixel; other booleans are not pictures."""


@dataclass(frozen=True)
class Stack:
    """How the axes of a TIFF are understood. `order` has one letter per axis: P page, C channel, H, W."""

    order: str
    shape: tuple[int, ...]

    def count(self, letter: str) -> int:
        """How many pages, channels, rows or columns."""
        return math.prod(size for axis, size in zip(self.order, self.shape, strict=True) if axis == letter)


def page_of(pixels: np.ndarray, order: str, page: int) -> Shaped[np.ndarray, "H W C"]:
    """A page of pixels whose axes are in `order`; a view where it has no more than one axis of channels."""
    rank = {"P": 0, "H": 1, "W": 2, "C": 3}
    moved = pixels.transpose(sorted(range(len(order)), key=lambda axis: rank[order[axis]]))
    leading = moved.shape[: order.count("P")]
    chosen: np.ndarray = moved[np.unravel_index(page, leading)] if leading else moved
    height, width = chosen.shape[:2]
    return chosen.reshape(height, width, math.prod(chosen.shape[2:]))


def upright(pixels: Shaped[np.ndarray, "h w ..."], orientation: int) -> Shaped[np.ndarray, "H W ..."]:
    """Undo the camera's orientation, 1..8 of EXIF: 5..8 swap the axes, then rows or columns are reversed."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def stored_window(rows: range, columns: range, size: tuple[int, int], orientation: int) -> tuple[range, range]:
    """Rows and columns in the file of a window of the upright image, whose height and width are `size`."""
    if orientation in (3, 4, 7, 8):
        rows = range(size[0] - rows.stop, size[0] - rows.start)
    if orientation in (2, 3, 6, 7):
        columns = range(size[1] - columns.stop, size[1] - columns.start)
    return (columns, rows) if orientation in (5, 6, 7, 8) else (rows, columns)


def upright_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Height and width of the upright image."""
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def chosen_page(page: int | None, pages: int, path: Path) -> int:
    """The page to read."""
    if page is None and pages > 1:
        raise DataError(
            f"The file holds {pages} pages where one image is expected.",
            where=path,
            remedy="Choose a page, or save each page as a file of its own.",
        )
    if page is not None and not 0 <= page < pages:
        raise DataError(f"The file has no page {page}; it holds {pages}, counted from 0.", where=path)
    return page or 0


def native(pixels: np.ndarray) -> np.ndarray:
    """The same numbers in this machine's byte order and in numpy's own types (int64, not long long)."""
    own = np.dtype(pixels.dtype.name)
    return pixels.astype(own, copy=False).view(own)  # astype takes long long for int64 and leaves it


def three_axes(pixels: np.ndarray) -> np.ndarray:
    """H W C of H W; H W C as it is."""
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def palette_table(values: list[int]) -> UInt8[np.ndarray, "256 3"]:
    """256 colours; indices beyond the file's palette are black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    given = np.array(values, dtype=np.uint8).reshape(-1, 3)[:256]
    table[: len(given)] = given
    return table


def as_image(raster: Raster, path: Path) -> Shaped[np.ndarray, "H W C"]:
    """The pixels as brightness or colour: palettes looked up, one bit as 0 and 255, negatives inverted.

    Raises:
        DataError: truth values or complex numbers, which are no image.
    """
    pixels = raster.pixels
    if raster.palette is not None:
        return np.asarray(raster.palette[pixels[:, :, 0]])
    if raster.binary:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind not in "uif":
        raise DataError(
            f"The pixels are of type {pixels.dtype}, which is no image.",
            where=path,
            remedy="Save brightness as whole or real numbers (uint8, uint16, float32).",
        )
    return _inverted(pixels, path) if raster.negative else pixels


def _inverted(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.dtype.kind != "u":
        raise DataError(
            f"The file calls zero white, which has no meaning for {pixels.dtype}.",
            where=path,
            remedy="Save it with the photometric interpretation 'min is black'.",
        )
    return np.iinfo(pixels.dtype).max - pixels


def too_large(path: Path) -> DataError:
    """What to say of a file that would fill the memory."""
    return DataError(
        "The header promises more pixels than a file of this kind and size should hold, which would fill the memory.",
        where=path,
        remedy="If the image really is that large, save it as tiled TIFF or cut it into pieces; else delete the file.",
    )
