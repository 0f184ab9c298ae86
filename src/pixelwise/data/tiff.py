"""TIFF, BigTIFF, OME-TIFF, GeoTIFF: pages and channels by the axes that the file declares."""

import itertools
import math
import os
import re
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from pixelwise.data.raster import (
    FEW_CHANNELS,
    MAX_RATIO,
    MAX_UNASKED_BYTES,
    ORIENTATION,
    ImageInfo,
    Raster,
    Stack,
    chosen_page,
    native,
    page_of,
    palette_table,
    stored_window,
    three_axes,
    too_large,
    upright,
    upright_size,
)
from pixelwise.errors import DataError

FEW_UNNAMED = 4
"""An axis of a TIFF without a name holds channels up to this length."""

SEGMENT_BYTES = 256_000_000
"""So much of decoded strips or tiles is kept: those of one row of an image may be needed for the next window."""

JPEG = frozenset({6, 7, 34892, 33007})
"""Compressions whose decoder wants tables that all strips or tiles share."""

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value of each TIFF type."""

GEOGRAPHIC = (33550, 33922, 34264, 34735, 34736, 34737)
"""Tags of GeoTIFF: scale, tie points, transformation; and the coordinate system in three parts."""

NUMBERS = {33550: 3, 33922: 6, 34264: 16}
"""How many numbers the first of them have; tie points may be several."""

NODATA = 42113
"""GDAL's tag for the value of pixels that hold nothing."""

DESCRIPTION = 270
PLAIN_PRIVATE_TAGS = frozenset({33550, 33723, 33922, 34264, 34377, 34665, 34675, 34735, 34736, 34737, 42112, 42113})
"""GeoTIFF, GDAL, EXIF, colour profile, Photoshop: private tags that never make a stack of one page."""


def info(path: Path) -> ImageInfo:
    """What the tags say; raises whatever the TIFF library raises."""
    import tifffile

    with path.open("rb") as raw:
        _check_chain(raw)
        with tifffile.TiffFile(raw) as file:
            series, stack = _main_series(file, path)
            page = series.keyframe
            orientation = _orientation_of(page)
            height, width = upright_size(stack.count("H"), stack.count("W"), orientation)
            channels = 3 if page.photometric in (3, 5) else stack.count("C")
            bytes_only = page.photometric == 3 or series.dtype.kind == "b"
            dtype = "uint8" if bytes_only else series.dtype.name
            alpha = channels == page.samplesperpixel > 1 and _declares_alpha(page)
            return ImageInfo(height, width, channels, dtype, stack.count("P"), orientation, alpha)


def read(path: Path, page: int | None) -> Raster:
    """A whole page; raises whatever the TIFF library raises."""
    import tifffile

    with path.open("rb") as raw:
        _check_chain(raw)
        with tifffile.TiffFile(raw) as file:
            series, stack = _main_series(file, path)
            chosen = chosen_page(page, stack.count("P"), path)
            if series.dtype.itemsize * math.prod(series.shape) > max(MAX_UNASKED_BYTES, MAX_RATIO * _size(raw)):
                raise too_large(path)
            pixels = _page(series, stack, chosen, _size(raw))
            return _raster(pixels, series.keyframe, path)


class Segments:
    """The strips or tiles of one directory of a file, each decoded when a window needs it.

    Args:
        path: the file, which is opened for every strip or tile and not held open.
        page: the directory, as the TIFF library sees it.

    Raises:
        EOFError: strips or tiles are missing, or lie beyond the end of the file.
    """

    def __init__(self, path: Path, page: Any) -> None:
        frame = page.keyframe
        _checked([page], path.stat().st_size)
        self._path = path
        self._frame = frame
        self._decode = frame.decode  # made from tags now, while the file is open
        self._offsets, self._lengths = tuple(page.dataoffsets), tuple(page.databytecounts)
        is_jpeg = frame.compression in JPEG
        self._arguments = {"jpegtables": page.jpegtables, "jpegheader": frame.jpegheader} if is_jpeg else {}
        self._planes = frame.samplesperpixel if frame.planarconfig == 2 else 1
        self._size = _segment_size(frame)
        self._down, self._across = (-(-n // edge) for n, edge in zip(_image_size(frame), self._size, strict=True))
        if min(len(self._offsets), len(self._lengths)) < self._planes * self._down * self._across:
            raise EOFError("strips or tiles are missing")
        self.shape = (*_image_size(frame), int(frame.samplesperpixel))
        self.dtype = np.dtype(frame.dtype)
        self._held: int = math.prod(self._size) * self.shape[2] // self._planes * self.dtype.itemsize
        self._recent: dict[int, Shaped[np.ndarray, "h w c"]] = {}
        self._lock = threading.Lock()
        self.remember(SEGMENT_BYTES)

    def remember(self, most_bytes: int) -> None:
        """Keep the strips or tiles that were used last, up to so many bytes of pixels, but one at least."""
        self._most = max(1, most_bytes // self._held)

    def bytes_of_rows(self, rows: int) -> int:
        """What the strips or tiles take that so many rows may lie in."""
        return (-(-rows // self._size[0]) + 1) * self._across * self._planes * self._held

    def window(self, rows: range, columns: range) -> Shaped[np.ndarray, "h w C"]:
        """Pixels as stored."""
        height, width = self._size
        window = np.empty((len(rows), len(columns), self.shape[2]), self.dtype)
        tiles = itertools.product(
            range(self._planes),
            range(rows.start // height, -(-rows.stop // height)),
            range(columns.start // width, -(-columns.stop // width)),
        )
        for plane, down, right in tiles:
            pixels = self._segment((plane * self._down + down) * self._across + right)
            into = window[:, :, plane : plane + 1] if self._planes > 1 else window
            _paste(into, pixels, down * height - rows.start, right * width - columns.start)
        return window

    def _segment(self, index: int) -> Shaped[np.ndarray, "h w c"]:
        """A strip or tile, decoded now unless it was used lately."""
        with self._lock:
            found = self._recent.pop(index, None)
        pixels = self._decoded(index) if found is None else found
        with self._lock:
            self._recent[index] = pixels
            while len(self._recent) > self._most:
                del self._recent[next(iter(self._recent))]
        return pixels

    def _decoded(self, index: int) -> Shaped[np.ndarray, "h w c"]:
        """A strip or tile, which may reach beyond the image."""
        with self._path.open("rb") as file:
            file.seek(self._offsets[index])
            content = file.read(self._lengths[index])
        pixels, _, shape = self._decode(content or None, index, **self._arguments)
        if pixels is None:  # a tile that was never written
            return np.full(shape[1:], self._frame.nodata, self.dtype)
        decoded: np.ndarray = pixels[0]
        return decoded


def _image_size(frame: Any) -> tuple[int, int]:
    return int(frame.imagelength), int(frame.imagewidth)


def _segment_size(frame: Any) -> tuple[int, int]:
    """Height and width of strips or tiles; those at the end may be smaller."""
    if frame.is_tiled:
        return int(frame.tilelength), int(frame.tilewidth)
    return min(int(frame.rowsperstrip), int(frame.imagelength)), int(frame.imagewidth)


def _paste(window: np.ndarray, pixels: np.ndarray, top: int, left: int) -> None:
    """Copy the part of `pixels`, whose first one belongs at `top` and `left`, that lies inside the window."""
    first, begin = max(top, 0), max(left, 0)
    part = window[first : top + pixels.shape[0], begin : left + pixels.shape[1]]
    part[:] = pixels[first - top : first - top + part.shape[0], begin - left : begin - left + part.shape[1]]


@dataclass(frozen=True)
class Plain:
    """Pixels that lie uncompressed one after the other."""

    path: Path
    dtype: np.dtype[Any]
    """As stored, with its byte order."""
    offset: int
    stack: Stack
    page: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.stack.count("H"), self.stack.count("W"), self.stack.count("C")

    def remember(self, most_bytes: int) -> None:
        """Nothing is decoded that could be kept."""

    def bytes_of_rows(self, rows: int) -> int:  # noqa: ARG002  none are kept
        """What decoded pixels are kept."""
        return 0

    def window(self, rows: range, columns: range) -> Shaped[np.ndarray, "h w C"]:
        """Pixels as stored; the file is mapped no longer than it takes to copy them, so that it fills no memory."""
        mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.stack.shape)
        page = page_of(mapped, self.stack.order, self.page)
        return np.array(page[rows.start : rows.stop, columns.start : columns.stop])


@dataclass(frozen=True)
class OpenPage:
    """A page of a file of which windows can be read."""

    path: Path
    parts: Sequence[Segments | Plain]
    """Channels one after the other."""
    frame: Any
    """The directory that says what the pixels mean."""

    @property
    def orientation(self) -> int:
        """How the image is stored, 1 to 8 as in EXIF."""
        return _orientation_of(self.frame)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        return upright_size(*self.parts[0].shape[:2], self.orientation)

    def remember(self, most_bytes: int) -> None:
        """Keep the strips or tiles that were used last, up to so many bytes of pixels."""
        for part in self.parts:
            part.remember(most_bytes // len(self.parts))

    def bytes_of_rows(self, rows: int) -> int:
        """What the strips or tiles take that so many rows of the upright image may lie in."""
        across = rows if self.orientation < 5 else self.size[1]  # stored columns
        return sum(part.bytes_of_rows(across) for part in self.parts)

    def window(self, rows: range, columns: range) -> Raster:
        """A window of the upright image; raises whatever the TIFF library raises."""
        stored = stored_window(rows, columns, self.size, self.orientation)
        pixels = [part.window(*stored) for part in self.parts]
        return _raster(np.concatenate(pixels, axis=2) if len(pixels) > 1 else pixels[0], self.frame, self.path)


Tag = tuple[int, int, int, Any, bool]
"""Code, type, count and value, and that it is written once, as `tifffile.imwrite` takes extra tags."""


@dataclass(frozen=True)
class Placement:
    """Where the pixels of a file lie, and which of them hold nothing."""

    tags: tuple[Tag, ...]
    """Those of GeoTIFF."""
    nodata: float | None
    """The value of pixels that hold nothing."""

    @property
    def epsg(self) -> int | None:
        """Number of the coordinate system; none if it has none, or says itself what it is."""
        keys = self._keys
        code = keys.get(3072) or keys.get(2048)  # projected, geographic
        return code if code not in (None, 0, 32767) else None

    @property
    def is_on_map(self) -> bool:
        """Whether pixels have coordinates: a transformation, or a scale and a tie point."""
        codes = {tag[0] for tag in self.tags}
        return 34264 in codes or {33550, 33922} <= codes

    def to_map(self, points: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
        """Coordinates of the map for x and y in pixels, whose column i covers i..i+1; for an image on a map only."""
        values = {tag[0]: np.asarray(tag[3], dtype=np.float64) for tag in self.tags if tag[0] in NUMBERS}
        if self._keys.get(1025) == 2:  # what is said holds for the middles of pixels
            points = points - 0.5
        if 34264 in values:
            matrix = values[34264].reshape(4, 4)
            return np.asarray(points @ matrix[:2, :2].T + matrix[:2, 3])
        scale, tie = values[33550][:2] * (1, -1), values[33922]
        return np.asarray(tie[3:5] + (points - tie[:2]) * scale)

    @property
    def _keys(self) -> dict[int, int]:
        """GeoTIFF's keys whose value is a single number."""
        directory = next((tag[3] for tag in self.tags if tag[0] == 34735 and isinstance(tag[3], tuple)), ())
        entries = zip(*(directory[start::4] for start in range(4, 8)), strict=False)
        return {int(key): int(value) for key, place, _, value in entries if place == 0}

    def with_nodata(self, value: int) -> list[Tag]:
        """Tags for a file of the same size, whose empty pixels have that value."""
        text = str(value)
        return [*self.tags, (NODATA, 2, len(text) + 1, text, True)]


def placement(path: Path) -> Placement | None:
    """What a GeoTIFF says of its pixels; none for a file that says nothing. Raises whatever the TIFF library raises.

    Tags that are not as the standard wants them say nothing. Of an image that is stored turned, the coordinates
    would hold no longer; of one with a palette, nothing is known of empty pixels.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        tags = tuple(tag for code in GEOGRAPHIC if (tag := _kept(page.tags.get(code))) is not None)
        nodata = _nodata_of(page) if int(page.photometric) in (1, 2, 6) else None
        upright_tags = tags if _orientation_of(page) == 1 else ()
        return Placement(upright_tags, nodata) if upright_tags or nodata is not None else None


def _kept(tag: Any) -> Tag | None:
    """A tag of GeoTIFF as it is written again; none for one that is damaged."""
    if tag is None:
        return None
    if tag.code in NUMBERS:
        count = NUMBERS[tag.code]
        is_sound = isinstance(tag.value, tuple) and len(tag.value) >= count and len(tag.value) % count == 0
        return (tag.code, int(tag.dtype), tag.count, tag.value, True) if is_sound else None
    if isinstance(tag.value, str):  # the library writes text of 7 bits only, and bytes as they are
        content = tag.value.encode("utf-8", "surrogateescape") + b"\0"
        return (tag.code, int(tag.dtype), len(content), content, True)
    return (tag.code, int(tag.dtype), tag.count, tag.value, True) if isinstance(tag.value, tuple) else None


def _nodata_of(page: Any) -> float | None:
    written = page.tags.get(NODATA)
    try:
        return float(str(written.value).strip(" \0")) if written is not None else None
    except ValueError:
        return None


def open_page(path: Path, page: int | None) -> OpenPage | None:
    """A page to be read by windows; none where the file allows none. Raises whatever the TIFF library raises."""
    import tifffile

    with path.open("rb") as raw:
        _check_chain(raw)
        with tifffile.TiffFile(raw) as file:
            series, stack = _main_series(file, path)
            chosen = chosen_page(page, stack.count("P"), path)
            frame = series.keyframe
            _ = frame.colormap  # read now, while the file is open
            if series.dataoffset is not None and all(part is None or part.parent is file for part in series.pages):
                dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
                _checked_extent(path, series)
                return OpenPage(path, [Plain(path, dtype, series.dataoffset, stack, chosen)], frame)
            pages = _directories_of(series, stack, chosen)
            # volumes of tiles and images in a single strip give no windows; of several files, we would read the first
            if not pages or frame.imagedepth > 1 or any(part.parent is not file for part in pages):
                return None
            if not frame.is_tiled and frame.rowsperstrip >= frame.imagelength:
                return None
            opened = OpenPage(path, [Segments(path, part) for part in pages], frame)
            opened.remember(SEGMENT_BYTES)
            return opened


def _checked_extent(path: Path, series: Any) -> None:
    if series.dataoffset + series.nbytes > path.stat().st_size:
        raise EOFError("pixels lie beyond the end of the file")


def is_plainly_one_page(file: BinaryIO) -> bool:
    """One directory, and neither description nor private tags that could make a stack of it."""
    if not file.read(4).startswith(MAGIC):
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


def _stack_of(axes: str, shape: tuple[int, ...], path: Path) -> Stack:
    """Which axes are pages and which are channels (see `data.formats`)."""
    if len(axes) == 3 and axes[0] in "QI" and shape[2] <= FEW_CHANNELS < min(shape[:2]):
        return Stack("HWC", shape)
    if "Y" not in axes or "X" not in axes:
        raise DataError(f"The axes {axes} hold no height and width.", where=path, remedy="Save it as a plain TIFF.")
    letters = {"Y": "H", "X": "W", "C": "C", "S": "C"}
    unnamed = {axis for axis, size in zip(axes, shape, strict=True) if axis in "QI" and size <= FEW_UNNAMED}
    return Stack("".join("C" if axis in unnamed else letters.get(axis, "P") for axis in axes), shape)


def _main_series(file: Any, path: Path) -> tuple[Any, Stack]:
    """The image of a TIFF, and how its axes are understood."""
    series = file.series[0]
    area = series.keyframe.imagelength * series.keyframe.imagewidth
    for other in file.series[1:]:
        page = other.keyframe
        if page.imagelength * page.imagewidth >= area and not page.is_reduced and not page.is_mask:
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


def _page(series: Any, stack: Stack, chosen: int, size: int) -> np.ndarray:
    """H W C of one page; of a compressed stack only the parts that make the page are decoded."""
    workers = None if series.keyframe.size > 2**26 else 1  # threads pay for large images only
    in_parts = stack.count("P") > 1 and series.dataoffset is None
    pages = _directories_of(series, stack, chosen) if in_parts else None
    if pages is None:
        _checked(series.pages, size)
        whole = series.asarray(out="memmap") if series.dataoffset is not None else series.asarray(maxworkers=workers)
        return np.array(page_of(whole, stack.order, chosen))
    _checked(pages, size)
    planes = [page.asarray(maxworkers=workers) for page in pages]
    return np.concatenate([three_axes(plane) for plane in planes], axis=2)


def _directories_of(series: Any, stack: Stack, chosen: int) -> list[Any] | None:
    """The directories that make a page, one or one per channel; none where a directory holds something else."""
    if stack.order == "CHW" and len(series.pages) == 1:  # its channels lie in planes of their own
        return [series.pages[0]]
    leading = stack.order.find("H")
    parts = math.prod(stack.shape[:leading])
    if stack.order[leading:] not in ("HW", "HWC") or parts != len(series.pages):
        return None
    numbers = np.arange(parts).reshape(*stack.shape[:leading], 1, 1)
    wanted = page_of(numbers, stack.order[:leading] + "HW", chosen).ravel()
    return [series.pages[int(number)] for number in wanted]


def _raster(pixels: np.ndarray, page: Any, path: Path) -> Raster:
    """Pixels with the meaning that the tags give them."""
    photometric = int(page.photometric)
    pixels = upright(native(pixels), _orientation_of(page))
    if photometric == 3:
        return Raster(pixels, _colour_map(page.colormap, pixels, path))
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


def _orientation_of(page: Any) -> int:
    tag = page.tags.get(ORIENTATION)
    return int(tag.value) if tag is not None else 1


def _colour_map(colormap: Any, pixels: np.ndarray, path: Path) -> UInt8[np.ndarray, "256 3"]:
    if colormap is None or pixels.dtype != np.uint8 or pixels.shape[2] != 1:
        raise DataError("The colour map does not fit the pixels.", where=path, remedy="Save the image as RGB.")
    table = np.asarray(colormap).T
    # the standard has 16 bits per colour; some programs write 8
    return palette_table((table >> 8 if table.max() > 255 else table).ravel().tolist())


def _cmyk_to_rgb(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.shape[2] != 4:
        raise DataError("Only CMYK of 8 bits without alpha can be read.", where=path, remedy="Save it as RGB.")
    light = 255 - pixels.astype(np.uint16)
    return ((light[:, :, :3] * light[:, :, 3:] + 127) // 255).astype(np.uint8)


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


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
