"""OME-Zarr 0.4 and 0.5: images in folders of chunks, read by windows, and masks written like them.

`c` is channels, `t` and `z` are pages, as in TIFF; the first level of resolution is the image. What an image says of
scale is kept by its mask, which gets smaller copies too.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from pixelwise.classes import ClassTable
from pixelwise.data.raster import ImageInfo, Raster, Stack, chosen_page, page_of
from pixelwise.errors import DataError, extra
from pixelwise.files import cannot_write

SUFFIX = ".zarr"

CHUNK_PX = 512
"""Edge of the chunks of a mask."""

SMALLEST_PX = 512
"""Copies at half the size are made until both edges are no longer."""

LETTERS = {"x": "W", "y": "H", "c": "C"}


def is_zarr(path: Path) -> bool:
    """Whether a path is a folder of chunks."""
    return path.name.lower().endswith(SUFFIX) and path.is_dir()


@dataclass(frozen=True)
class Image:
    """An image of OME-Zarr, of which windows are read."""

    path: Path
    array: Any
    """Of the first level."""
    multiscale: Mapping[str, Any]
    """What the file says of its axes and scales."""
    version: str
    """0.4 or 0.5."""

    @classmethod
    def open(cls, path: Path) -> "Image":
        """The image in a folder.

        Raises:
            DataError: it is no OME-Zarr image, or its axes are none of an image.
            ConfigError: zarr is not installed.
        """
        zarr = import_zarr()
        try:
            group = zarr.open_group(path, mode="r")
            attributes = group.attrs.asdict()
            described = attributes.get("ome", attributes)
            multiscale = described["multiscales"][0]
            array = group[multiscale["datasets"][0]["path"]]
            names = [axis["name"] for axis in multiscale["axes"]]
        except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
            raise DataError(
                f"This is no image of OME-Zarr 0.4 or 0.5 ({type(error).__name__}: {error}).",
                where=path,
                remedy="Export it again, with axes and multiscales.",
            ) from None
        if len(names) != array.ndim or not {"y", "x"} <= set(names) or 0 in array.shape:
            raise DataError(
                f"The axes {names} do not fit an array of {array.shape}.", where=path, remedy="Export it again."
            )
        return cls(path, array, multiscale, "0.5" if "ome" in attributes else "0.4")

    @cached_property
    def axes(self) -> list[str]:
        """Their names."""
        return [axis["name"] for axis in self.multiscale["axes"]]

    @cached_property
    def stack(self) -> Stack:
        """How the axes are understood."""
        return Stack("".join(LETTERS.get(axis, "P") for axis in self.axes), tuple(self.array.shape))

    def window(self, page: int, rows: slice, columns: slice) -> Shaped[np.ndarray, "h w C"]:
        """Rows and columns of a page."""
        pages = tuple(edge for letter, edge in zip(self.stack.order, self.stack.shape, strict=True) if letter == "P")
        chosen = iter(np.unravel_index(page, pages)) if pages else iter(())
        wanted = {"H": rows, "W": columns, "C": slice(None)}
        part = self.array[
            tuple(wanted[letter] if letter in wanted else int(next(chosen)) for letter in self.stack.order)
        ]
        return page_of(np.asarray(part), self.stack.order.replace("P", ""), 0)


def info(path: Path) -> ImageInfo:
    """What the file says; raises whatever zarr raises."""
    image = Image.open(path)
    count = image.stack.count
    return ImageInfo(count("H"), count("W"), count("C"), np.dtype(image.array.dtype).name, count("P"))


def read(path: Path, page: int | None) -> Raster:
    """A whole page; raises whatever zarr raises."""
    image = Image.open(path)
    chosen = chosen_page(page, image.stack.count("P"), path)
    return Raster(np.ascontiguousarray(image.window(chosen, slice(None), slice(None))))


def write_mask(
    path: Path,
    pages: Iterable[Iterable[UInt8[np.ndarray, "h W"]]],
    size: tuple[int, int],
    classes: ClassTable,
    like: Path,
) -> None:
    """Write a mask with the axes, scales and version of its image, the colours of its classes, and smaller copies.

    The folder appears whole or not at all.

    Args:
        path: ends in .zarr; what is there is replaced.
        pages: bands of rows of each page, from top to bottom.
        size: height and width.
        classes: gives the colours.
        like: the image.

    Raises:
        DataError: it cannot be written.
    """
    image = Image.open(like)
    beside = path.with_name(f".{path.name}")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        _write(beside, image, pages, size, classes)
        if path.exists():
            shutil.rmtree(path)
        beside.rename(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(
    path: Path,
    image: Image,
    pages: Iterable[Iterable[UInt8[np.ndarray, "h W"]]],
    size: tuple[int, int],
    classes: ClassTable,
) -> None:
    zarr = import_zarr()
    group = zarr.open_group(path, mode="w", zarr_format=3 if image.version == "0.5" else 2)
    kept = [number for number, axis in enumerate(image.axes) if axis != "c"]
    leading = tuple(image.array.shape[number] for number in kept if image.axes[number] not in "yx")
    levels = [_level(group, "0", (*leading, *size), image)]
    for page, bands in enumerate(pages):
        place = tuple(int(index) for index in np.unravel_index(page, leading)) if leading else ()
        top = 0
        for band in bands:
            levels[0][(*place, slice(top, top + len(band)), slice(None))] = band
            top += len(band)
    while max(levels[-1].shape[-2:]) > SMALLEST_PX:
        levels.append(_half(group, levels[-1], str(len(levels)), image))
    _describe(group, image, kept, classes, len(levels))


def _level(group: Any, name: str, shape: Sequence[int], image: Image) -> Any:
    chunks = (*(1 for _ in shape[:-2]), *(min(CHUNK_PX, edge) for edge in shape[-2:]))
    names = [axis for axis in image.axes if axis != "c"]
    if image.version == "0.5":
        return group.create_array(name, shape=shape, chunks=chunks, dtype="uint8", fill_value=0, dimension_names=names)
    encoding = {"name": "v2", "separator": "/"}
    return group.create_array(
        name, shape=shape, chunks=chunks, dtype="uint8", fill_value=0, chunk_key_encoding=encoding
    )


def _half(group: Any, level: Any, name: str, image: Image) -> Any:
    """Every second row and column, a band at a time."""
    height, width = (-(-edge // 2) for edge in level.shape[-2:])
    half = _level(group, name, (*level.shape[:-2], height, width), image)
    for top in range(0, height, CHUNK_PX):
        bottom = min(top + CHUNK_PX, height)
        half[..., top:bottom, :] = level[..., 2 * top : 2 * bottom, :][..., ::2, ::2]
    return half


def _describe(group: Any, image: Image, kept: Sequence[int], classes: ClassTable, levels: int) -> None:
    first = image.multiscale["datasets"][0].get("coordinateTransformations", [])
    scale = next((entry["scale"] for entry in first if entry.get("type") == "scale"), [1.0] * len(image.axes))
    shift = next((entry["translation"] for entry in first if entry.get("type") == "translation"), None)
    datasets = []
    for level in range(levels):
        factors = [2.0**level if image.axes[number] in "yx" else 1.0 for number in kept]
        steps: list[dict[str, Any]] = [
            {"type": "scale", "scale": [scale[number] * factor for number, factor in zip(kept, factors, strict=True)]}
        ]
        if shift is not None:
            steps.append({"type": "translation", "translation": [shift[number] for number in kept]})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    multiscale: dict[str, Any] = {
        "name": "mask",
        "axes": [image.multiscale["axes"][number] for number in kept],
        "datasets": datasets,
    }
    colors = [
        {"label-value": index, "rgba": [*map(int, color), 255 if index != classes.background else 0]}
        for index, color in enumerate(classes.colors())
    ]
    names = [{"label-value": index, "class": name} for index, name in enumerate(classes.names)]
    label: dict[str, Any] = {"colors": colors, "properties": names}
    if image.version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale], "image-label": label}
    else:
        group.attrs["multiscales"] = [{"version": "0.4", **multiscale}]
        group.attrs["image-label"] = {"version": "0.4", **label}


def import_zarr() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    with extra("zarr", "OME-Zarr needs zarr"):
        import zarr
    return zarr
