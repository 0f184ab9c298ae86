"""From a file to an array and back: the image formats, and the masks and pictures we write.

Every reader answers with pixels, H W C, in the type the file has. What is in the file decides how it
is read, not its name: a PNG called .jpg is read as PNG. A file that is damaged, cut short or empty is
always a `DataError` that names it. Nothing here keeps state, so files may be read from many threads.

**Pages and channels.** GIF, WebP and PNG have as many pages as frames. For TIFF the axes that the file
declares decide (OME, ImageJ, tifffile): `C` and `S` are channels, every other axis beside `Y` and `X`
(`Z`, `T`, ...) is pages. Axes that the file does not name are channels if there are at most four of
them, pages otherwise; and if the last axis is at most 16 and the two before it are longer, the file
holds H W C. A .npy file of three axes is H W C if its last axis is at most 16, C H W if its first one
is, and pages of H W otherwise. A TIFF may hold smaller copies and thumbnails of its image: they are
passed over.
"""

import contextlib
import functools
import io
import math
import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from jaxtyping import Integer, Shaped, UInt8

from pixelwise.classes import ClassTable
from pixelwise.errors import DataError
from pixelwise.files import cannot_write, write_atomically

PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM")
"""What Pillow may open; its other formats run foreign programs or are no images."""

FEW_UNNAMED = 4
"""An axis of a TIFF without a name holds channels up to this length."""

FEW_CHANNELS = 16
"""An axis of a .npy file, or a last axis of a TIFF, holds channels up to this length."""

MAX_RATIO = 1100
"""Deflate, the strongest common compression, makes nothing smaller than 1 / 1032."""

MAX_UNASKED_BYTES = 2**32
"""Above this decoded size, a file more than `MAX_RATIO` times smaller is not believed."""

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NPY_MAGIC = b"\x93NUMPY"
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
class Reader:
    """How one family of files is read."""

    info: Callable[[Path], ImageInfo]
    read: Callable[[Path, int | None], Raster]


def read_info(path: Path) -> ImageInfo:
    """Size, channels, type and pages of an image file, from its header only.

    Raises:
        DataError: the file is not an image that can be read.
    """
    with _reading(path):
        state = path.stat()
        return _read_info(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)  # the pages of a stack ask for it again and again
def _read_info(path: Path, _size: int, _modified_ns: int) -> ImageInfo:
    return _reader_of(path).info(path)


def read_image(path: Path, page: int | None = None) -> Shaped[np.ndarray, "H W C"]:
    """An image, upright, in its own value range and type (unsigned, signed or float).

    Palette images become RGB, CMYK becomes RGB, one bit per pixel becomes 0 and 255, negatives (zero is
    white) are inverted. **An alpha channel that is the same everywhere is dropped**, since it says nothing;
    one that varies stays as the last channel.

    Args:
        path: the file.
        page: page of a file that holds several, from 0; none for the only one.

    Raises:
        DataError: the file cannot be read whole, has no such page, has several and none was chosen, or
            holds truth values or complex numbers.
    """
    with _reading(path):
        raster = _reader_of(path).read(path, page)
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
    if raster.negative:
        pixels = _inverted(pixels, path)
    return np.ascontiguousarray(_without_constant_alpha(pixels) if raster.alpha else pixels)


def read_mask(path: Path, page: int | None = None) -> Integer[np.ndarray, "H W"] | Integer[np.ndarray, "H W C"]:
    """The raw values of a mask, upright: H W of whole numbers, or H W C where the channels differ.

    A palette mask gives its indices, one bit per pixel gives 0 and 1, real numbers that are all whole
    become int64; signed masks may be negative. **Where alpha is 0 the mask is 0, the background**, and the
    alpha channel is dropped; so it is where it is the same everywhere. An RGB mask whose three channels are
    equal becomes H W. Grey values are those of the file, also in PNG of 2 or 4 bits and in TIFF that calls
    zero white (which is turned round for one bit per pixel only).

    Raises:
        DataError: as `read_image`; or the values are not whole numbers, or only transparency tells anything.
    """
    with _reading(path):
        raster = _reader_of(path).read(path, page)
    pixels = _whole(raster.pixels, path)
    if raster.alpha:
        pixels = _on_background(pixels, path)
    grey = pixels.shape[2] == 3 and bool((pixels == pixels[:, :, :1]).all())
    if grey or pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return np.ascontiguousarray(pixels)


def page_count(path: Path) -> int | None:
    """How many pages a file holds, looking no further than needed: for finding stacks among many files.

    None for a file that cannot be read: whoever reads its pixels will say why.
    """
    suffix = path.suffix.lower()
    if suffix not in (".tif", ".tiff", ".gif", ".webp", ".npy"):
        return 1
    with contextlib.suppress(DataError), _reading(path):
        if suffix in (".tif", ".tiff"):
            with path.open("rb") as file:
                if _is_plainly_one_page(file):
                    return 1
        return read_info(path).pages
    return None


def write_mask(path: Path, mask: UInt8[np.ndarray, "*pages H W"], classes: ClassTable) -> None:
    """Write class indices with the colours of their classes: indexed PNG, or 8-bit TIFF with colour map.

    The file appears whole or not at all.

    Args:
        path: ends in .png, .tif or .tiff.
        mask: class index or IGNORE (255); a TIFF may hold several pages.
        classes: gives the colours.

    Raises:
        DataError: the format would not keep the values, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    colors = classes.color_table()
    if suffix == ".png" and mask.ndim == 2:
        from PIL import Image

        picture = Image.fromarray(mask)
        picture.putpalette(colors.tobytes())  # turns grey into indexed, values unchanged
        _write(path, lambda file: picture.save(file, format="PNG"))
    elif suffix in (".tif", ".tiff"):
        colormap = colors.T.astype(np.uint16) * np.uint16(257)
        _write(path, lambda file: _save_tiff(file, mask, photometric="palette", colormap=colormap))
    else:
        raise DataError(
            f"A mask {f'of {len(mask)} pages ' if mask.ndim > 2 else ''}cannot be written as '{suffix}'.",
            where=path,
            remedy="Write .png, .tif or .tiff, which keep it.",
        )


def write_image(path: Path, image: Shaped[np.ndarray, "H W C"]) -> Path:
    """Write pixels so that `read_image` gives them back: PNG where it keeps them, else TIFF; whole or not at all.

    Args:
        path: without suffix, which is added.
        image: numbers of any type and any number of channels.

    Raises:
        DataError: the file cannot be written.
    """
    plain = np.ascontiguousarray(image[:, :, 0] if image.shape[2] == 1 else image)
    kept_by_png = {("uint8", 1), ("uint8", 3), ("uint16", 1)}  # Pillow has no deep colours; two and four are alpha
    if (image.dtype.name, image.shape[2]) in kept_by_png:
        from PIL import Image

        target = path.with_name(f"{path.name}.png")
        _write(target, lambda file: Image.fromarray(plain).save(file, format="PNG"))
    else:
        target = path.with_name(f"{path.name}.tif")
        _write(target, lambda file: _save_tiff(file, plain, photometric="minisblack", colormap=None))
    return target


def write_picture(path: Path, rgb: UInt8[np.ndarray, "H W 3"]) -> None:
    """Write a picture as .png, .jpg (quality 92), .tif or .tiff, whole or not at all.

    Raises:
        DataError: the format is another one, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix in (".png", ".jpg", ".jpeg"):
        from PIL import Image

        picture = Image.fromarray(rgb)
        kind = "PNG" if suffix == ".png" else "JPEG"
        _write(path, lambda file: picture.save(file, format=kind, quality=92))
    elif suffix in (".tif", ".tiff"):
        _write(path, lambda file: _save_tiff(file, rgb, photometric="rgb", colormap=None))
    else:
        raise DataError(
            f"A picture cannot be written as '{suffix}'.", where=path, remedy="Write .png, .jpg, .tif or .tiff."
        )


def upright(pixels: Shaped[np.ndarray, "h w ..."], orientation: int) -> Shaped[np.ndarray, "H W ..."]:
    """Undo the camera's orientation, 1..8 of EXIF: 5..8 swap the axes, then rows or columns are reversed."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


# Values ---------------------------------------------------------------------------------------------


def _without_constant_alpha(pixels: np.ndarray) -> np.ndarray:
    alpha = pixels[:, :, -1]
    return pixels[:, :, :-1] if (alpha == alpha[0, 0]).all() else pixels


def _on_background(pixels: np.ndarray, path: Path) -> np.ndarray:
    """The channels before alpha, 0 where it is 0: drawing programs leave transparent what nobody drew on."""
    values, alpha = pixels[:, :, :-1], pixels[:, :, -1:]
    if (alpha == alpha[0, 0]).all():
        return values
    drawn = np.where(alpha == 0, np.zeros_like(values), values)
    if not drawn.any():
        raise DataError(
            "The mask is black wherever it is not transparent, so that its pixels do not tell object from background.",
            where=path,
            remedy="Export it without transparency, on a background of another colour than the objects.",
        )
    return drawn


def _inverted(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.dtype.kind != "u":
        raise DataError(
            f"The file calls zero white, which has no meaning for {pixels.dtype}.",
            where=path,
            remedy="Save it with the photometric interpretation 'min is black'.",
        )
    return np.iinfo(pixels.dtype).max - pixels


def _whole(pixels: np.ndarray, path: Path) -> np.ndarray:
    """The same values as integers."""
    kind = pixels.dtype.kind
    if kind == "b":
        return pixels.astype(np.uint8)
    if kind in "ui":
        return pixels
    if kind == "f" and np.isfinite(pixels).all() and (np.rint(pixels) == pixels).all():
        return pixels.astype(np.int64)
    found = "numbers that are not whole" if kind == "f" else f"values of type {pixels.dtype}"
    raise DataError(
        f"The mask holds {found}; a mask holds one whole number per class.",
        where=path,
        remedy="Save class numbers as uint8, or set a threshold first if these are probabilities.",
    )


def _native(pixels: np.ndarray) -> np.ndarray:
    """The same numbers in this machine's byte order and in numpy's own types (int64, not long long)."""
    own = np.dtype(pixels.dtype.name)
    return pixels.astype(own, copy=False).view(own)  # astype takes long long for int64 and leaves it


def _upright_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def _chosen(page: int | None, pages: int, path: Path) -> int:
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


# What a file is, and what went wrong ------------------------------------------------------------------


def _reader_of(path: Path) -> Reader:
    """The reader by content; by name where the content does not say."""
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise DataError("The file is empty (0 bytes).", where=path, remedy="Copy it again, or delete it.")
    if head.startswith(TIFF_MAGIC):
        return TIFF
    if head.startswith(NPY_MAGIC):
        return NPY
    return PILLOW


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into a `DataError` that names the file."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError("There is no such file.", where=path, remedy="Check the path.") from None
    except IsADirectoryError:
        raise DataError("This is a folder, not an image.", where=path, remedy="Name a file.") from None
    except PermissionError:
        raise DataError("The file may not be read.", where=path, remedy="Change its permissions.") from None
    except MemoryError:
        raise DataError("The image does not fit into memory.", where=path, remedy="Cut it into pieces.") from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything at all on damaged files
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Image.DecompressionBombError):  # WebP, which cannot be opened without that limit
        return _too_large(path)
    if isinstance(error, UnidentifiedImageError):
        formats = ", ".join(sorted(suffix.removeprefix(".") for suffix in READERS))
        return DataError(
            "This is not an image of a kind that can be read, whatever its name says.",
            where=path,
            remedy=f"Save it as one of {formats}.",
        )
    cause = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return DataError(
        f"The file is damaged or cut short ({cause}).", where=path, remedy="Copy or export it again, or delete it."
    )


def _too_large(path: Path) -> DataError:
    return DataError(
        "The header promises more pixels than a file of this kind and size should hold, which would fill the memory.",
        where=path,
        remedy="If the image really is that large, save it as tiled TIFF or cut it into pieces; else delete the file.",
    )


# PNG, JPEG, BMP, WebP, GIF, PPM -----------------------------------------------------------------------

CHANNELS = {"1": 1, "L": 1, "LA": 2, "P": 3, "RGB": 3, "RGBA": 4, "I;16": 1, "I;16B": 1, "I": 1, "F": 1, "PA": 4}
"""Channels of Pillow's modes; the modes that are not here are turned into RGB."""

DTYPES = {"I;16": "uint16", "I;16B": "uint16", "I": "int32", "F": "float32"}
"""Types of Pillow's modes; all others are uint8."""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """`Image.open` without its limit of 179 million pixels, which can be lifted for the whole program only."""
    from PIL import Image, UnidentifiedImageError

    Image.init()
    with path.open("rb") as file:
        head = file.read(16)
        for kind in PILLOW_FORMATS:
            factory, accepts = Image.OPEN[kind]
            if accepts is not None and accepts(head) is True:
                file.seek(0)
                with factory(file, str(path)) as image:
                    yield image
                return
        raise UnidentifiedImageError


def _refuse_promises(image: Any, path: Path) -> None:
    """Fail before memory is filled with what a file of its size cannot hold."""
    decoded = image.width * image.height * len(image.getbands())
    if decoded > max(MAX_UNASKED_BYTES, MAX_RATIO * path.stat().st_size):
        raise _too_large(path)


def _pillow_info(path: Path) -> ImageInfo:
    with _opened(path) as image:
        orientation = _orientation(image)
        height, width = _upright_size(image.height, image.width, orientation)
        dtype = "uint16" if _is_deep_color(path) else DTYPES.get(image.mode, "uint8")
        alpha = image.mode in ("LA", "RGBA", "PA") or (_is_deep_color(path) and _png_header(path)[1] in (4, 6))
        return ImageInfo(height, width, CHANNELS.get(image.mode, 3), dtype, _frames(image), orientation, alpha)


def _pillow_read(path: Path, page: int | None) -> Raster:
    with _opened(path) as image:
        _refuse_promises(image, path)
        chosen = _chosen(page, _frames(image), path)
        if chosen:
            image.seek(chosen)
        orientation = _orientation(image)
        if _is_deep_color(path):
            return _deep_png(path, orientation)
        mode = "RGBA" if image.mode == "PA" else image.mode if image.mode in CHANNELS else "RGB"
        image.load()  # an incomplete file must fail here, not be converted
        pixels = upright(_three_axes(np.array(image if mode == image.mode else image.convert(mode))), orientation)
        palette = _palette(image.getpalette("RGB") or []) if mode == "P" else None
    pixels = _native(pixels)
    step = _grey_step(path)
    if step > 1:
        pixels = pixels // np.uint8(step)
    return Raster(pixels, palette, alpha=mode in ("LA", "RGBA"), binary=mode == "1")


def _three_axes(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def _frames(image: Any) -> int:
    """Frames of an animation; the previews inside a camera's JPEG (MPO) do not count."""
    return 1 if image.format in ("MPO", "JPEG") else int(getattr(image, "n_frames", 1))


def _orientation(image: Any) -> int:
    # PNG: asking for EXIF data that did not come before the pixels would decode the pixels
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1
    return int(image.getexif().get(ORIENTATION, 1))


def _palette(values: list[int]) -> UInt8[np.ndarray, "256 3"]:
    """256 colours; indices beyond the file's palette are black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    given = np.array(values, dtype=np.uint8).reshape(-1, 3)[:256]
    table[: len(given)] = given
    return table


def _png_header(path: Path) -> tuple[int, int]:
    """Bits per channel and colour type of a PNG; zeros for other files."""
    with path.open("rb") as file:
        head = file.read(26)
    return (head[24], head[25]) if head.startswith(b"\x89PNG") and len(head) == 26 else (0, 0)


def _is_deep_color(path: Path) -> bool:
    """16-bit PNG with more than one channel, of which Pillow would keep 8 bits."""
    bits, kind = _png_header(path)
    return bits == 16 and kind in (2, 4, 6)


def _grey_step(path: Path) -> int:
    """By how much Pillow multiplies the values of grey PNG of 2 and 4 bits."""
    bits, kind = _png_header(path)
    return {2: 85, 4: 17}.get(bits, 1) if kind == 0 else 1


def _deep_png(path: Path, orientation: int) -> Raster:
    import imagecodecs

    pixels = _three_axes(np.asarray(imagecodecs.png_decode(path.read_bytes())))
    return Raster(upright(pixels, orientation), alpha=pixels.shape[2] in (2, 4))


# TIFF -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stack:
    """How the axes of a TIFF are understood. `order` has one letter per axis: P page, C channel, H, W."""

    order: str
    shape: tuple[int, ...]

    def count(self, letter: str) -> int:
        return math.prod(size for axis, size in zip(self.order, self.shape, strict=True) if axis == letter)


def _stack_of(axes: str, shape: tuple[int, ...], path: Path) -> _Stack:
    """Which axes are pages and which are channels (see the top of this file)."""
    if len(axes) == 3 and axes[0] in "QI" and shape[2] <= FEW_CHANNELS < min(shape[:2]):
        return _Stack("HWC", shape)
    if "Y" not in axes or "X" not in axes:
        raise DataError(f"The axes {axes} hold no height and width.", where=path, remedy="Save it as a plain TIFF.")
    letters = {"Y": "H", "X": "W", "C": "C", "S": "C"}
    unnamed = {axis for axis, size in zip(axes, shape, strict=True) if axis in "QI" and size <= FEW_UNNAMED}
    return _Stack("".join("C" if axis in unnamed else letters.get(axis, "P") for axis in axes), shape)


def _ordered(pixels: np.ndarray, order: str) -> np.ndarray:
    """Axes brought into the order page, H, W, C."""
    rank = {"P": 0, "H": 1, "W": 2, "C": 3}
    moved = pixels.transpose(sorted(range(len(order)), key=lambda axis: rank[order[axis]]))
    at_height = order.count("P")
    height, width = moved.shape[at_height : at_height + 2]
    return moved.reshape(-1, height, width, math.prod(moved.shape[at_height + 2 :]))


def _tiff_info(path: Path) -> ImageInfo:
    import tifffile

    with path.open("rb") as raw:
        _check_chain(raw)
        with tifffile.TiffFile(raw) as file:
            series, stack = _main_series(file, path)
            page = series.keyframe
            orientation = _tiff_orientation(page)
            height, width = _upright_size(stack.count("H"), stack.count("W"), orientation)
            channels = 3 if page.photometric in (3, 5) else stack.count("C")
            bytes_only = page.photometric == 3 or series.dtype.kind == "b"
            dtype = "uint8" if bytes_only else series.dtype.name
            alpha = channels == page.samplesperpixel > 1 and _declares_alpha(page)
            return ImageInfo(height, width, channels, dtype, stack.count("P"), orientation, alpha)


def _tiff_read(path: Path, page: int | None) -> Raster:
    import tifffile

    with path.open("rb") as raw:
        _check_chain(raw)
        with tifffile.TiffFile(raw) as file:
            series, stack = _main_series(file, path)
            chosen = _chosen(page, stack.count("P"), path)
            if series.dtype.itemsize * math.prod(series.shape) > max(MAX_UNASKED_BYTES, MAX_RATIO * _size(raw)):
                raise _too_large(path)
            pixels = _tiff_page(series, stack, chosen, _size(raw))
            return _tiff_raster(pixels, series.keyframe, path)


def _main_series(file: Any, path: Path) -> tuple[Any, _Stack]:
    """The image of a TIFF, and how its axes are understood."""
    series = file.series[0]
    area = series.keyframe.imagelength * series.keyframe.imagewidth
    for other in file.series[1:]:
        page = other.keyframe
        if page.imagelength * page.imagewidth >= area and not page.is_reduced:
            raise DataError(
                "The pages differ in size or type.", where=path, remedy="Save each page as a file of its own."
            )
    return series, _stack_of(series.axes, series.shape, path)


def _checked(pages: Any, size: int) -> None:
    """Fail where strips or tiles lie beyond the end of the file, which some decoders fill with grey."""
    for page in pages:
        if page is None:  # one directory describes a whole contiguous stack
            continue
        ends = (start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False))
        if max(ends, default=0) > size:
            raise EOFError("pixels lie beyond the end of the file")


def _tiff_page(series: Any, stack: _Stack, chosen: int, size: int) -> np.ndarray:
    """H W C of one page; of a compressed stack only the parts that make the page are decoded."""
    leading = stack.order.find("H") if stack.order.endswith(("HW", "HWC")) else 0
    parts = math.prod(stack.shape[:leading])
    workers = None if series.keyframe.size > 2**26 else 1  # threads pay for large images only
    if stack.count("P") == 1 or series.dataoffset is not None or parts != len(series.pages):
        _checked(series.pages, size)
        whole = series.asarray(out="memmap") if series.dataoffset is not None else series.asarray(maxworkers=workers)
        return np.array(_ordered(whole, stack.order)[chosen])
    numbers = np.arange(parts).reshape(*stack.shape[:leading], 1, 1)
    wanted = _ordered(numbers, stack.order[:leading] + "HW")[chosen].ravel()
    pages = [series.pages[int(number)] for number in wanted]
    _checked(pages, size)
    planes = [page.asarray(maxworkers=workers) for page in pages]
    return np.concatenate([_three_axes(plane) for plane in planes], axis=2)


def _tiff_raster(pixels: np.ndarray, page: Any, path: Path) -> Raster:
    """Pixels with the meaning that the tags give them."""
    photometric = int(page.photometric)
    pixels = upright(_native(pixels), _tiff_orientation(page))
    if photometric == 3:
        return Raster(pixels, _tiff_palette(page.colormap, pixels, path))
    if photometric == 5:
        return Raster(_cmyk_to_rgb(pixels, path))
    # 0 white is zero, 1 black is zero, 2 RGB, 4 mask, 6 YCbCr, which the decoder of JPEG (7) turns into RGB
    if photometric not in (0, 1, 2, 4) and not (photometric == 6 and int(page.compression) == 7):
        raise DataError(
            f"Colours are stored as {getattr(page.photometric, 'name', photometric)}, which cannot be read.",
            where=path,
            remedy="Save the image as grey or RGB.",
        )
    binary = pixels.dtype.kind == "b"
    if binary and photometric == 0:
        pixels = ~pixels
    plain = 3 if photometric in (2, 6) else 1
    alpha = pixels.shape[2] == plain + 1 == page.samplesperpixel and (_declares_alpha(page) or plain == 3)
    return Raster(pixels, alpha=alpha, negative=photometric == 0 and not binary, binary=binary)


def _declares_alpha(page: Any) -> bool:
    return any(int(kind) in (1, 2) for kind in page.extrasamples[-1:])


def _tiff_orientation(page: Any) -> int:
    tag = page.tags.get(ORIENTATION)
    return int(tag.value) if tag is not None else 1


def _tiff_palette(colormap: Any, pixels: np.ndarray, path: Path) -> UInt8[np.ndarray, "256 3"]:
    if colormap is None or pixels.dtype != np.uint8 or pixels.shape[2] != 1:
        raise DataError("The colour map does not fit the pixels.", where=path, remedy="Save the image as RGB.")
    table = np.asarray(colormap).T
    # the standard has 16 bits per colour; some programs write 8
    return _palette((table >> 8 if table.max() > 255 else table).ravel().tolist())


def _cmyk_to_rgb(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.shape[2] != 4:
        raise DataError("Only CMYK of 8 bits without alpha can be read.", where=path, remedy="Save it as RGB.")
    light = 255 - pixels.astype(np.uint16)
    return ((light[:, :, :3] * light[:, :, 3:] + 127) // 255).astype(np.uint8)


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value of each TIFF type."""


DESCRIPTION = 270
PLAIN_PRIVATE_TAGS = frozenset({33550, 33723, 33922, 34264, 34377, 34665, 34675, 34735, 34736, 34737, 42112, 42113})
"""GeoTIFF, GDAL, EXIF, colour profile, Photoshop: private tags that never make a stack of one page."""


def _directories(file: BinaryIO) -> Iterator[dict[int, tuple[int, int]]]:
    """The tags of each page, with the number of values and where they are.

    A page, or the value of a tag, that leaves the file is an error.
    """
    size = _size(file)
    file.seek(0)
    head = file.read(16)
    order: Literal["<", ">"] = "<" if head[:2] == b"II" else ">"
    big = struct.unpack(order + "H", head[2:4])[0] == 43
    number, entry, link = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    offset = struct.unpack(order + link, head[8:16] if big else head[4:8])[0]
    seen: set[int] = set()
    while offset and offset not in seen:
        seen.add(offset)
        file.seek(offset)
        count = struct.unpack(order + number, _exactly(file, struct.calcsize(order + number)))[0]
        width = struct.calcsize(order + entry)
        table = _exactly(file, count * width)
        tags = list(struct.iter_unpack(order + entry, table))
        for _, kind, values, inline in tags:
            length = TYPE_BYTES.get(kind, 1) * values
            if length > len(inline) and struct.unpack(order + link, inline)[0] + length > size:
                raise EOFError("a value lies beyond the end of the file")
        yield {tag: (values, struct.unpack(order + link, inline)[0]) for tag, _, values, inline in tags}
        file.seek(offset + struct.calcsize(order + number) + len(table))
        offset = struct.unpack(order + link, _exactly(file, struct.calcsize(order + link)))[0]


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError("a page begins or ends beyond the end of the file")
    return data


def _check_chain(file: BinaryIO) -> None:
    """Fail where pages are missing at the end, which the TIFF library would pass over."""
    for _ in _directories(file):
        pass
    file.seek(0)


def _is_plainly_one_page(file: BinaryIO) -> bool:
    """One directory, and neither description nor private tags that could make a stack of it."""
    if not file.read(4).startswith(TIFF_MAGIC):
        return False
    directories = _directories(file)
    first = next(directories, {})
    if next(directories, None) is not None or any(tag > 32767 for tag in first.keys() - PLAIN_PRIVATE_TAGS):
        return False
    length, offset = first.get(DESCRIPTION, (0, 0))
    if length <= 8:
        return True
    file.seek(offset)
    text = file.read(length)
    # what ImageJ, OME and tifffile write; the last says the shape
    stack = any(word in text for word in (b"ImageJ=", b"<OME", b"<?xml", b'"shape"'))
    return not stack or re.match(rb'\{"shape": \[\d+, \d+\]', text) is not None


# NPY --------------------------------------------------------------------------------------------------


def _npy_stack(shape: tuple[int, ...], path: Path) -> _Stack:
    if 0 in shape:
        raise DataError("The array is empty.", where=path, remedy="Delete the file.")
    if len(shape) == 2:
        return _Stack("HW", shape)
    if len(shape) == 3 and shape[2] <= FEW_CHANNELS:
        return _Stack("HWC", shape)
    if len(shape) == 3:
        return _Stack("CHW" if shape[0] <= FEW_CHANNELS else "PHW", shape)
    raise DataError(f"An array of {len(shape)} axes is no image.", where=path, remedy="Save H W or H W C.")


def _npy_info(path: Path) -> ImageInfo:
    # a mapped file that is shorter than its header says is an error at once, and nothing is allocated
    pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    stack = _npy_stack(pixels.shape, path)
    return ImageInfo(stack.count("H"), stack.count("W"), stack.count("C"), pixels.dtype.name, stack.count("P"))


def _npy_read(path: Path, page: int | None) -> Raster:
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    stack = _npy_stack(mapped.shape, path)
    chosen = _chosen(page, stack.count("P"), path)
    pixels = np.array(_ordered(mapped, stack.order)[chosen])
    return Raster(_native(pixels))


PILLOW = Reader(_pillow_info, _pillow_read)
TIFF = Reader(_tiff_info, _tiff_read)
NPY = Reader(_npy_info, _npy_read)

READERS: dict[str, Reader] = {
    ".png": PILLOW,
    ".jpg": PILLOW,
    ".jpeg": PILLOW,
    ".jfif": PILLOW,
    ".jpe": PILLOW,
    ".bmp": PILLOW,
    ".webp": PILLOW,
    ".gif": PILLOW,
    ".pgm": PILLOW,
    ".ppm": PILLOW,
    ".tif": TIFF,
    ".tiff": TIFF,
    ".npy": NPY,
}
"""Which files count as images, by lower-case suffix, and who reads them."""

SUFFIXES_OF = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe"),
    "BMP": (".bmp",),
    "WebP": (".webp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "NPY": (".npy",),
}
"""What files of a kind are called."""

_MAGIC = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"GIF8": "GIF",
    **dict.fromkeys(TIFF_MAGIC, "TIFF"),
    NPY_MAGIC: "NPY",
}


def content_of(path: Path) -> str | None:
    """What a file holds, by its first bytes; none for a file that cannot be read or is nothing of `SUFFIXES_OF`."""
    try:
        with path.open("rb") as file:
            begin = file.read(8)
    except OSError:
        return None
    return next((kind for magic, kind in _MAGIC.items() if begin.startswith(magic)), None)


# Writing ----------------------------------------------------------------------------------------------


def _save_tiff(file: io.BytesIO, pixels: np.ndarray, photometric: str, colormap: np.ndarray | None) -> None:
    import tifffile

    # of many channels without a name nobody could tell that they are no pages
    many = photometric == "minisblack" and pixels.ndim == 3
    tifffile.imwrite(
        file,
        pixels,
        photometric=photometric,
        planarconfig="contig" if many else None,
        colormap=colormap,
        compression="zlib",
        metadata={"axes": "YXS"} if many else None,
        rowsperstrip=256,
    )


def _write(path: Path, save: Callable[[io.BytesIO], object]) -> None:
    """Encode in memory, then replace the file in one step."""
    content = io.BytesIO()
    try:
        save(content)
    except OSError as error:  # such as a side that is too long for JPEG
        raise cannot_write(path, error) from None
    write_atomically(path, content.getvalue())


# Palettes ---------------------------------------------------------------------------------------------


def read_palette(path: Path, page: int | None = None) -> UInt8[np.ndarray, "256 3"] | None:
    """Red, green and blue of each value of a palette image, black beyond its palette; none for other images.

    Raises:
        DataError: as `read_image`.
    """
    with _reading(path):
        return _reader_of(path).read(path, page).palette
