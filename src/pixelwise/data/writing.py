"""The masks and pictures we write; each file appears whole or not at all."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Integer, Shaped, UInt8

from pixelwise.classes import IGNORE, ClassTable
from pixelwise.data.tiff import Placement, Tag
from pixelwise.errors import DataError, extra
from pixelwise.files import cannot_write, write_atomically, write_by_path, write_stream

TILE_PX = 512
"""Edge of the tiles of a large TIFF."""

GDAL_CACHE_MB = 64
"""What GDAL may keep while it writes; it would take a twentieth of the machine."""

MOST_PLAIN_BYTES = 2**31
"""A TIFF of more, uncompressed, is written as BigTIFF, whose offsets have 64 bits."""


def write_mask(
    path: Path, mask: UInt8[np.ndarray, "*pages H W"], classes: ClassTable, placement: Placement | None = None
) -> None:
    """Write class indices with the colours of their classes: indexed PNG, or 8-bit TIFF with colour map.

    The file appears whole or not at all.

    Args:
        path: ends in .png, .tif or .tiff.
        mask: class index or IGNORE (255); a TIFF may hold several pages.
        classes: gives the colours.
        placement: where its pixels lie, which a TIFF keeps.

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
        tags = placement.with_nodata(IGNORE) if placement is not None else []
        _write(path, lambda file: _save_tiff(file, mask, "palette", _colormap(classes), tags))
    else:
        raise DataError(
            f"A mask {f'of {len(mask)} pages ' if mask.ndim > 2 else ''}cannot be written as '{suffix}'.",
            where=path,
            remedy="Write .png, .tif or .tiff, which keep it.",
        )


def write_mask_bands(
    path: Path,
    bands: Iterable[UInt8[np.ndarray, "h W"]],
    size: tuple[int, int],
    classes: ClassTable,
    placement: Placement | None = None,
) -> None:
    """Write a mask that is too large for memory as a tiled TIFF (BigTIFF if need be) with the colours of its classes.

    The file appears whole or not at all.

    Args:
        path: ends in .tif or .tiff.
        bands: the mask from top to bottom, `TILE_PX` rows at a time.
        size: its height and width.
        classes: gives the colours.
        placement: where its pixels lie.

    Raises:
        DataError: the file cannot be written.
    """
    import tifffile

    def save(file: BinaryIO) -> None:
        with tifffile.TiffWriter(file, bigtiff=size[0] * size[1] >= MOST_PLAIN_BYTES) as writer:
            writer.write(
                _tiles(bands),
                shape=size,
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="palette",
                colormap=_colormap(classes),
                compression="zlib",
                metadata=None,
                maxworkers=1,  # several would queue half a gigabyte of tiles
                extratags=placement.with_nodata(IGNORE) if placement is not None else (),
            )

    write_stream(path, save)


def to_cog(path: Path) -> None:
    """Rewrite a TIFF as Cloud Optimized GeoTIFF: tiles, smaller copies, and the order that readers rely on.

    Raises:
        ConfigError: rasterio is not installed.
        DataError: it cannot be written.
    """
    rasterio = import_rasterio()
    options = {"driver": "COG", "compress": "DEFLATE", "blocksize": TILE_PX, "overview_resampling": "NEAREST"}
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB):
        write_by_path(path, lambda copy: rasterio.shutil.copy(path, copy, **options))


def import_rasterio() -> Any:
    """The library that writes Cloud Optimized GeoTIFF.

    Raises:
        ConfigError: it is not installed.
    """
    with extra("geo", "Cloud Optimized GeoTIFF needs rasterio"):
        import rasterio
        import rasterio.shutil
    return rasterio


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
        _write(target, lambda file: _save_tiff(file, plain, "minisblack"))
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
        _write(path, lambda file: _save_tiff(file, rgb, "rgb"))
    else:
        raise DataError(
            f"A picture cannot be written as '{suffix}'.", where=path, remedy="Write .png, .jpg, .tif or .tiff."
        )


def _colormap(classes: ClassTable) -> Integer[np.ndarray, "3 256"]:
    """Colours of 16 bits, as TIFF wants them."""
    return classes.color_table().T.astype(np.uint16) * np.uint16(257)


def _tiles(bands: Iterable[UInt8[np.ndarray, "h W"]]) -> Iterator[UInt8[np.ndarray, "h w"]]:
    for band in bands:
        for left in range(0, band.shape[1], TILE_PX):
            yield band[:, left : left + TILE_PX]


def _save_tiff(
    file: io.BytesIO,
    pixels: np.ndarray,
    photometric: str,
    colormap: np.ndarray | None = None,
    tags: Sequence[Tag] = (),
) -> None:
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
        extratags=tags,
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
