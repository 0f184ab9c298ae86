"""Images of which only windows are read: what is larger than memory, or than it pays to decode whole."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from pixelwise.data import formats, tiff
from pixelwise.data.omezarr import Image, is_zarr
from pixelwise.data.raster import ImageInfo, Raster, as_image, chosen_page

WHOLE_BYTES = 2**28
"""An image whose pixels take no more is decoded whole: 89 megapixels of 8-bit colour."""

SMALL_BYTES = 2**24
"""An image whose pixels take no more is decoded whole to be predicted: reading windows would save no memory."""

THINNED_ROWS = 256
"""So many rows are read at a time where few of them are wanted."""

BAND_PIXELS = 1_000_000
"""So many pixels are looked at at a time where all of an image have to be seen."""


@runtime_checkable
class Source(Protocol):
    """Pixels H W C that are read when they are asked for; an array is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""

    def __getitem__(self, window: tuple[slice, slice], /) -> np.ndarray:
        """Rows and columns, h w C."""


@dataclass(frozen=True)
class TiffSource:
    """A page of a TIFF, upright, with the values that `formats.read_image` or `formats.read_mask` gives."""

    page: tiff.OpenPage
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    meaning: Callable[[Raster, Path], np.ndarray] = as_image

    def __getitem__(self, window: tuple[slice, slice], /) -> Shaped[np.ndarray, "h w C"]:
        """Rows and columns inside the image.

        Raises:
            DataError: the file is damaged there.
        """
        rows, columns = (range(*part.indices(edge)) for part, edge in zip(window, self.shape[:2], strict=True))
        with formats.reading(self.page.path):
            pixels = self.meaning(self.page.window(rows, columns), self.page.path)
        return pixels[:, :, : self.shape[2]]


@dataclass(frozen=True)
class ZarrSource:
    """A page of OME-Zarr."""

    image: Image
    page: int

    @classmethod
    def open(cls, path: Path, page: int | None) -> "ZarrSource":
        """The page of a folder of chunks.

        Raises:
            DataError: it is no image, or has no such page.
        """
        image = Image.open(path)
        return cls(image, chosen_page(page, image.stack.count("P"), path))

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels."""
        return tuple(self.image.stack.count(letter) for letter in "HWC")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        dtype: np.dtype[Any] = np.dtype(self.image.array.dtype)
        return dtype

    def __getitem__(self, window: tuple[slice, slice], /) -> Shaped[np.ndarray, "h w C"]:
        """Rows and columns inside the image.

        Raises:
            DataError: the image is damaged there.
        """
        with formats.reading(self.image.path):
            return self.image.window(self.page, *window)


def is_large(info: ImageInfo) -> bool:
    """Whether an image is too large to be decoded whole, where its file allows windows."""
    return _bytes_of(info) > WHOLE_BYTES


def is_small(info: ImageInfo) -> bool:
    """Whether it would save no memory to read an image by windows."""
    return _bytes_of(info) <= SMALL_BYTES


def _bytes_of(info: ImageInfo) -> int:
    return info.height * info.width * info.channels * np.dtype(info.dtype).itemsize


def open_image(path: Path, page: int | None = None) -> Source:
    """An image as `formats.read_image` gives it, of which windows are read where it is large and its file allows it.

    Those are TIFF in strips or tiles, or uncompressed, and OME-Zarr. All others are decoded whole.

    Args:
        path: the file.
        page: page of a file that holds several, from 0; none for the only one.

    Raises:
        DataError: as `formats.read_image`.
    """
    return open_windows(path, page) if is_large(formats.read_info(path)) else formats.read_image(path, page)


def open_windows(path: Path, page: int | None = None) -> Source:
    """The same, of which windows are read wherever its file allows it, be it small or large."""
    if is_zarr(path):
        return ZarrSource.open(path, page)
    if formats.content_of(path) != "TIFF":
        return formats.read_image(path, page)
    with formats.reading(path):
        opened = tiff.open_page(path, page)
        if opened is None:
            return formats.read_image(path, page)
        first = opened.window(range(1), range(1))
        pixel = as_image(first, path)
    source = TiffSource(opened, (*opened.size, pixel.shape[2]), pixel.dtype)
    if first.alpha and _is_last_constant(source):
        return TiffSource(opened, (*opened.size, pixel.shape[2] - 1), pixel.dtype)
    return source


def allows_windows(path: Path, page: int | None = None) -> bool:
    """Whether windows of a file can be read without decoding all of it.

    Raises:
        DataError: the file is damaged.
    """
    if is_zarr(path):
        return True
    if formats.content_of(path) != "TIFF":
        return False
    with formats.reading(path):
        return tiff.open_page(path, page) is not None


def open_mask(path: Path, page: int | None = None) -> Source:
    """The values of a mask, H W C, as `formats.mask_values` gives them; windows are read as for `open_image`.

    Raises:
        DataError: as `formats.read_mask`.
    """
    with formats.reading(path):
        if is_zarr(path):
            return ZarrSource.open(path, page)
        opened = tiff.open_page(path, page) if formats.content_of(path) == "TIFF" else None
        # whether transparency says anything shows in the whole only
        first = opened.window(range(1), range(1)) if opened is not None else None
        if opened is None or first is None or first.alpha:
            mask = formats.read_mask(path, page)
            return mask if mask.ndim == 3 else mask[:, :, None]
        values = formats.mask_values(first, path)
    return TiffSource(opened, (*opened.size, values.shape[2]), values.dtype, formats.mask_values)


def palette_of(path: Path, page: int | None = None) -> UInt8[np.ndarray, "256 3"] | None:
    """The palette of an image as `formats.read_palette`, for which no more than a window is read where it can be.

    Raises:
        DataError: as `formats.read_mask`.
    """
    if is_zarr(path):
        return None
    with formats.reading(path):
        opened = tiff.open_page(path, page) if formats.content_of(path) == "TIFF" else None
        if opened is not None:
            return opened.window(range(1), range(1)).palette
    return formats.read_palette(path, page)


def placement_of(path: Path) -> tiff.Placement | None:
    """Where the pixels of a file lie, if it says so.

    Raises:
        DataError: the file cannot be read.
    """
    if formats.content_of(path) != "TIFF":
        return None
    with formats.reading(path):
        return tiff.placement(path)


def row_bands(source: Source) -> Iterator[Shaped[np.ndarray, "h W C"]]:
    """All of an image from top to bottom, a few rows at a time."""
    height, width = source.shape[:2]
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield source[top : min(top + rows, height), 0:width]


def thinned(source: Source, step: int) -> Shaped[np.ndarray, "H W C"]:
    """Every so many rows and columns of an image."""
    height, width = source.shape[:2]
    parts = []
    for top in range(0, height, THINNED_ROWS):  # as many as a row of tiles may have: no tile is decoded often
        band = source[top : min(top + THINNED_ROWS, height), 0:width]
        parts.append(band[-top % step :: step, ::step].copy())  # not a view, which would hold the whole
    return np.concatenate(parts)


def _is_last_constant(source: Source) -> bool:
    """Whether transparency, the last channel, is the same everywhere."""
    value = source[0:1, 0:1][0, 0, -1]
    return all((band[:, :, -1] == value).all() for band in row_bands(source))


def is_empty(pixels: Shaped[np.ndarray, "H W C"], nodata: float | None) -> Bool[np.ndarray, "H W"]:
    """Where all channels have the value that says that there is nothing."""
    if nodata is None:
        return np.zeros(pixels.shape[:2], dtype=bool)
    same = np.isnan(pixels) if np.isnan(nodata) else pixels == pixels.dtype.type(nodata)
    return np.asarray(same.all(axis=2))
