"""From a file to an array: the image formats.

Every reader answers with pixels, H W C, in the type the file has. What is in the file decides how it
is read, not its name: a PNG called .jpg is read as PNG. A file that is damaged, cut short or empty is
always a `DataError` that names it. Nothing here keeps state, so files may be read from many threads.

**Pages and channels.** GIF, WebP and PNG have as many pages as frames. For TIFF the axes that the file
declares decide (OME, ImageJ, tifffile): `C` and `S` are channels, every other axis beside `Y` and `X`
(`Z`, `T`, ...) is pages. Axes that the file does not name are channels if there are at most four of
them, pages otherwise; and if the last axis is at most 16 and the two before it are longer, the file
holds H W C. A .npy file of three axes is H W C if its last axis is at most 16, C H W if its first one
is, and pages of H W otherwise. NIfTI has a page for each slice (`data.nifti`), OME-Zarr for each of `t` and `z`. A
TIFF may hold smaller copies and thumbnails of its image: they are passed over.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, Shaped, UInt8

from pixelwise.data import nifti, npy, omezarr, tiff
from pixelwise.data.raster import (
    FEW_CHANNELS,
    MAX_RATIO,
    MAX_UNASKED_BYTES,
    ORIENTATION,
    ImageInfo,
    Raster,
    Stack,
    as_image,
    chosen_page,
    native,
    page_of,
    palette_table,
    three_axes,
    too_large,
    upright,
    upright_size,
)
from pixelwise.errors import DataError, PixelwiseError

PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM")
"""What Pillow may open; its other formats run foreign programs or are no images."""

ANY_SMALL_BYTES = 2**24
"""What is no larger when it is decoded is not asked how it fits into its file."""

BITS = 8
"""A byte of a file may stand for so many pixels of one bit, each of which takes a byte when decoded."""

NPY_MAGIC = b"\x93NUMPY"


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
    with reading(path):
        state = path.stat()
        return _read_info(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)  # the pages of a stack ask for it again and again
def _read_info(path: Path, _size: int, _modified_ns: int) -> ImageInfo:
    return _reader_of(path).info(path)


@dataclass(frozen=True)
class RawMask:
    """What a mask file holds, before anybody says what it means."""

    values: Integer[np.ndarray, "H W"] | Integer[np.ndarray, "H W C"]
    """As `read_mask` gives them."""
    channels: int = 1
    """Of the file, without transparency: three where it holds grey as colour, of which `values` has one."""
    palette: UInt8[np.ndarray, "256 3"] | None = None
    """Colour of each value, where the file has a palette."""

    @property
    def seen(self) -> Integer[np.ndarray, "H W"] | Integer[np.ndarray, "H W C"]:
        """The colours of the pixels where there is a palette, else the values."""
        return self.values if self.palette is None else self.palette[self.values]


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
    with reading(path):
        raster = _reader_of(path).read(path, page)
    pixels = as_image(raster, path)
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
    return read_raw_mask(path, page).values


def read_raw_mask(path: Path, page: int | None = None) -> RawMask:
    """A mask as `read_mask`, with the palette of its file.

    Raises:
        DataError: as `read_mask`.
    """
    with reading(path):
        raster = _reader_of(path).read(path, page)
    values = mask_values(raster, path)
    return RawMask(plain_mask(values), values.shape[2], raster.palette)


def mask_values(raster: Raster, path: Path) -> Integer[np.ndarray, "H W C"]:
    """The values of a mask as whole numbers, without transparency.

    Raises:
        DataError: as `read_mask`.
    """
    pixels = _whole(raster.pixels, path)
    return _on_background(pixels, path) if raster.alpha else pixels


def plain_mask(values: Integer[np.ndarray, "H W C"]) -> Integer[np.ndarray, "H W"] | Integer[np.ndarray, "H W C"]:
    """H W where there is one channel, or three that are equal."""
    grey = values.shape[2] == 3 and bool((values == values[:, :, :1]).all())
    return np.ascontiguousarray(values[:, :, 0] if grey or values.shape[2] == 1 else values)


def page_count(path: Path) -> int | None:
    """How many pages a file holds, looking no further than needed: for finding stacks among many files.

    None for a file that cannot be read: whoever reads its pixels will say why.
    """
    suffix = split_name(path.name)[1]
    if suffix not in (".tif", ".tiff", ".gif", ".webp", ".npy", omezarr.SUFFIX, *nifti.SUFFIXES):
        return 1
    with contextlib.suppress(DataError), reading(path):
        if suffix in (".tif", ".tiff"):
            with path.open("rb") as file:
                if tiff.is_plainly_one_page(file):
                    return 1
        return read_info(path).pages
    return None


def read_palette(path: Path, page: int | None = None) -> UInt8[np.ndarray, "256 3"] | None:
    """Red, green and blue of each value of a palette image, black beyond its palette; none for other images.

    Raises:
        DataError: as `read_image`.
    """
    with reading(path):
        return _reader_of(path).read(path, page).palette


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


def _whole(pixels: np.ndarray, path: Path) -> np.ndarray:
    """The same values as integers."""
    kind = pixels.dtype.kind
    if kind == "b":
        return pixels.astype(np.uint8)
    if kind in "ui":
        return pixels
    if kind == "f" and np.isfinite(pixels).all() and (np.rint(pixels) == pixels).all():
        return pixels.astype(np.int64)
    if kind == "f" and not np.isfinite(pixels).all():
        raise DataError(
            "The mask holds NaN or infinite values; a mask holds one whole number per class.",
            where=path,
            remedy="If they mark what does not count, save them as a number such as 255, and class numbers as uint8.",
        )
    found = "numbers that are not whole" if kind == "f" else f"values of type {pixels.dtype}"
    raise DataError(
        f"The mask holds {found}; a mask holds one whole number per class.",
        where=path,
        remedy="Save class numbers as uint8, or set a threshold first if these are probabilities.",
    )


# What a file is, and what went wrong ------------------------------------------------------------------


def _reader_of(path: Path) -> Reader:
    """The reader by content; by name where the content does not say."""
    if omezarr.is_zarr(path):
        return ZARR
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise DataError("The file is empty (0 bytes).", where=path, remedy="Copy it again, or delete it.")
    if head.startswith(tiff.MAGIC):
        return TIFF
    if head.startswith(NPY_MAGIC):
        if npy.holds_objects(path):
            raise DataError(
                "The file holds Python objects, as the projects of Cellpose do, and no image or mask.",
                where=path,
                remedy="Save the masks in it as PNG or TIFF, beside it, and name those.",
            )
        return NPY
    if nifti.is_nifti(path.name):
        return NIFTI
    return PILLOW


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into a `DataError` that names the file."""
    try:
        yield
    except PixelwiseError:
        raise
    except FileNotFoundError:
        what = "This is a link that leads nowhere." if path.is_symlink() else "There is no such file."
        raise DataError(what, where=path, remedy="Check the path.") from None
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
        return too_large(path)
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
    # images of one value, 12,000 x 12,000: PNG of one bit 8,202 times smaller, of bytes 1,030, GIF 1,345, JPEG 511;
    # WebP 77,726
    unasked = MAX_UNASKED_BYTES if image.format == "WEBP" else ANY_SMALL_BYTES
    if decoded > max(unasked, BITS * MAX_RATIO * path.stat().st_size):
        raise too_large(path)


def _pillow_info(path: Path) -> ImageInfo:
    with _opened(path) as image:
        orientation = _orientation(image)
        height, width = upright_size(image.height, image.width, orientation)
        dtype = "uint16" if _is_deep_color(path) else DTYPES.get(image.mode, "uint8")
        alpha = image.mode in ("LA", "RGBA", "PA") or (_is_deep_color(path) and _png_header(path)[1] in (4, 6))
        return ImageInfo(height, width, CHANNELS.get(image.mode, 3), dtype, _frames(image), orientation, alpha)


def _pillow_read(path: Path, page: int | None) -> Raster:
    with _opened(path) as image:
        _refuse_promises(image, path)
        chosen = chosen_page(page, _frames(image), path)
        if chosen:
            image.seek(chosen)
        orientation = _orientation(image)
        if _is_deep_color(path):
            return _deep_png(path, orientation)
        mode = "RGBA" if image.mode == "PA" else image.mode if image.mode in CHANNELS else "RGB"
        image.load()  # an incomplete file must fail here, not be converted
        pixels = upright(three_axes(np.array(image if mode == image.mode else image.convert(mode))), orientation)
        palette = palette_table(image.getpalette("RGB") or []) if mode == "P" else None
    pixels = native(pixels)
    step = _grey_step(path)
    if step > 1:
        pixels = pixels // np.uint8(step)
    return Raster(pixels, palette, alpha=mode in ("LA", "RGBA"), binary=mode == "1")


def _frames(image: Any) -> int:
    """Frames of an animation; the previews inside a camera's JPEG (MPO) do not count."""
    return 1 if image.format in ("MPO", "JPEG") else int(getattr(image, "n_frames", 1))


def _orientation(image: Any) -> int:
    # PNG: asking for EXIF data that did not come before the pixels would decode the pixels
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1
    return int(image.getexif().get(ORIENTATION, 1))


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

    pixels = three_axes(np.asarray(imagecodecs.png_decode(path.read_bytes())))
    return Raster(upright(pixels, orientation), alpha=pixels.shape[2] in (2, 4))


# NPY --------------------------------------------------------------------------------------------------


def _npy_stack(shape: tuple[int, ...], path: Path) -> Stack:
    if 0 in shape:
        raise DataError("The array is empty.", where=path, remedy="Delete the file.")
    if len(shape) == 2:
        return Stack("HW", shape)
    if len(shape) == 3 and shape[2] <= FEW_CHANNELS:
        return Stack("HWC", shape)
    if len(shape) == 3:
        return Stack("CHW" if shape[0] <= FEW_CHANNELS else "PHW", shape)
    raise DataError(f"An array of {len(shape)} axes is no image.", where=path, remedy="Save H W or H W C.")


def _npy_info(path: Path) -> ImageInfo:
    # a mapped file that is shorter than its header says is an error at once, and nothing is allocated
    pixels = npy.mapped(path)
    stack = _npy_stack(pixels.shape, path)
    return ImageInfo(stack.count("H"), stack.count("W"), stack.count("C"), pixels.dtype.name, stack.count("P"))


def _npy_read(path: Path, page: int | None) -> Raster:
    mapped = npy.mapped(path)
    stack = _npy_stack(mapped.shape, path)
    chosen = chosen_page(page, stack.count("P"), path)
    pixels = np.array(page_of(mapped, stack.order, chosen))
    return Raster(native(pixels))


PILLOW = Reader(_pillow_info, _pillow_read)
TIFF = Reader(tiff.info, tiff.read)
NPY = Reader(_npy_info, _npy_read)
NIFTI = Reader(nifti.info, nifti.read)
ZARR = Reader(omezarr.info, omezarr.read)

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
    ".nii": NIFTI,
    ".nii.gz": NIFTI,
    omezarr.SUFFIX: ZARR,
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
    **dict.fromkeys(tiff.MAGIC, "TIFF"),
    NPY_MAGIC: "NPY",
}


def split_name(name: str) -> tuple[str, str]:
    """Stem, and suffix in lower case, of a file's name; `.nii.gz` is one suffix, and `.ome` belongs to the next one."""
    if name.lower().endswith(".nii.gz"):
        return name[: -len(".nii.gz")], ".nii.gz"
    if name.lower().endswith(".ome.zarr"):
        return name[: -len(".ome.zarr")], omezarr.SUFFIX
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  a Path for each of many files is slow
    return stem, suffix.lower()


def content_of(path: Path) -> str | None:
    """What a file holds, by its first bytes; none for a file that cannot be read or is nothing of `SUFFIXES_OF`."""
    try:
        with path.open("rb") as file:
            begin = file.read(8)
    except OSError:
        return None
    return next((kind for magic, kind in _MAGIC.items() if begin.startswith(magic)), None)
