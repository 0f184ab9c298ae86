"""The image and the mask files of a case, whole or a piece of them."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Shaped, UInt8

from pixelwise.data import channels, formats, windows
from pixelwise.data.dataset import Case, Window
from pixelwise.errors import DataError

KEPT_BYTES = 2**26
"""So much of the decoded strips or tiles of an open file is kept: pieces have few in common."""


class WrongSizeError(DataError):
    """A mask is not as large as its image."""


def read_image(case: Case) -> Shaped[np.ndarray, "H W C"]:
    """The image of a case, as `formats.read_image`; of a piece, the piece.

    Raises:
        DataError: as `formats.read_image`.
    """
    if case.window is None:
        return channels.read(case.image, case.channels, case.page)
    return np.ascontiguousarray(_opened(case.image, case.page, is_mask=False)[_slices(case.window)])


def read_mask(path: Path, case: Case) -> Integer[np.ndarray, "H W"] | Integer[np.ndarray, "H W C"]:
    """A mask file of a case, as `formats.read_mask`; of a piece, the piece.

    Raises:
        DataError: as `formats.read_mask`; or the mask of a piece is not as large as its image.
    """
    return read_raw_mask(path, case).values


def read_raw_mask(path: Path, case: Case) -> formats.RawMask:
    """A mask file of a case with its palette; of a piece, the piece.

    Raises:
        DataError: as `read_mask`.
    """
    if case.window is None:
        return formats.read_raw_mask(path, case.page)
    source, info = _opened(path, case.page, is_mask=True), formats.read_info(case.image)
    if source.shape[:2] != (info.height, info.width):
        raise wrong_size(path, source.shape[:2], (info.height, info.width))
    piece = formats.plain_mask(source[_slices(case.window)])
    palette = read_palette(path, case.page) if piece.ndim == 2 else None
    return formats.RawMask(piece, source.shape[2], palette)


def read_palette(path: Path, page: int | None) -> UInt8[np.ndarray, "256 3"] | None:
    """The palette of a mask, also of one that is too large to be decoded whole; none for one without.

    Raises:
        DataError: as `read_mask`.
    """
    palette: UInt8[np.ndarray, "256 3"] | None = _palette(path, page, *_state(path))
    return palette


def whole_size(case: Case, size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Height and width of all of an image, of whose piece `size` is that.

    Raises:
        DataError: the image cannot be read.
    """
    if case.window is None:
        return size
    info = formats.read_info(case.image)
    return info.height, info.width


def piece_of(mask: Shaped[np.ndarray, "H W"], case: Case) -> Shaped[np.ndarray, "h w"]:
    """The part of a whole mask that belongs to a case."""
    return mask if case.window is None else np.ascontiguousarray(mask[_slices(case.window)])


def wrong_size(path: Path, found: Sequence[int], expected: Sequence[int], whose: str = "its image") -> DataError:
    """The error that says: a mask does not lie on its image, or on other masks of it."""
    return WrongSizeError(
        f"The mask has {found[1]} x {found[0]} pixels (width x height), {whose} {expected[1]} x {expected[0]}.",
        where=path,
        remedy="Export the mask again at the size of its image; do not stretch it.",
    )


def _slices(window: Window) -> tuple[slice, slice]:
    top, left, height, width = window
    return slice(top, top + height), slice(left, left + width)


def _opened(path: Path, page: int | None, *, is_mask: bool) -> windows.Source:
    source: windows.Source = _open(path, page, is_mask, *_state(path))
    return source


def _state(path: Path) -> tuple[int, int]:
    """Size and time of a file, by which one that was written again is told."""
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"This file cannot be read ({error.strerror}).", where=path) from None
    return state.st_size, state.st_mtime_ns


@functools.lru_cache(maxsize=4)
def _palette(path: Path, page: int | None, _size: int, _modified_ns: int) -> UInt8[np.ndarray, "256 3"] | None:
    return windows.palette_of(path, page)


@functools.lru_cache(maxsize=4)  # piece after piece is asked for
def _open(path: Path, page: int | None, is_mask: bool, _size: int, _modified_ns: int) -> windows.Source:
    source = windows.open_mask(path, page) if is_mask else windows.open_image(path, page)
    if isinstance(source, windows.TiffSource):
        source.page.remember(KEPT_BYTES)
    return source
