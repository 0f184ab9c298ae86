"""NIfTI volumes, .nii and .nii.gz, as stacks of slices.

Slices are taken across an axis that is chosen (see `pages`), or else across the one along which voxels are farthest
apart, the last one if they are equally far: that is how most volumes were recorded. A slice has its rows along the
second of the other two axes and its columns along the first, so that an axial slice lies as a viewer shows it, but for
its direction. A fourth axis holds channels.
"""

import functools
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped, UInt8

from pixelwise.data.raster import MAX_RATIO, MAX_UNASKED_BYTES, ImageInfo, Raster, chosen_page, native, too_large
from pixelwise.errors import DataError, extra
from pixelwise.files import write_by_path

SUFFIXES = (".nii", ".nii.gz")

Axis = Literal[0, 1, 2]
"""Of the array of voxels."""

PER_AXIS = 2**20
"""Pages across a chosen axis are numbered from this on, twice or three times it; a volume has fewer slices."""

_DECODING = threading.Lock()
"""A compressed volume is decoded by one thread, the others wait for it."""


@dataclass(frozen=True)
class _Volume:
    """What the header says."""

    shape: tuple[int, int, int]
    channels: int
    axis: int
    """Across which slices are taken."""
    dtype: np.dtype[Any]

    @property
    def plane(self) -> tuple[int, int]:
        """Height and width of a slice."""
        width, height = (edge for axis, edge in enumerate(self.shape) if axis != self.axis)
        return height, width


def is_nifti(name: str) -> bool:
    """Whether a file is called as a volume."""
    return name.lower().endswith(SUFFIXES)


def pages(path: Path, axis: Axis | None) -> range:
    """The numbers of the pages of a volume, for slices across an axis; none chooses by the spacing of voxels.

    Raises whatever nibabel raises.
    """
    volume = _volume_of(_opened(path), path, axis)
    first = 0 if axis is None else (axis + 1) * PER_AXIS
    return range(first, first + volume.shape[volume.axis])


def info(path: Path) -> ImageInfo:
    """What the header says; raises whatever nibabel raises."""
    volume = _volume_of(_opened(path), path)
    return ImageInfo(*volume.plane, volume.channels, volume.dtype.name, volume.shape[volume.axis])


def read(path: Path, page: int | None) -> Raster:
    """One slice; raises whatever nibabel raises."""
    state = path.stat()
    across, number = divmod(page, PER_AXIS) if page is not None else (0, None)
    volume = _volume_of(_opened(path), path, across - 1 if across else None)
    chosen = chosen_page(number, volume.shape[volume.axis], path)
    promised = math.prod(volume.shape) * volume.channels * volume.dtype.itemsize
    if promised > max(MAX_UNASKED_BYTES, MAX_RATIO * state.st_size):
        raise too_large(path)
    with _DECODING:
        voxels = _voxels(path, state.st_size, state.st_mtime_ns)
    part = np.take(voxels, chosen, axis=volume.axis)  # columns, rows, channels
    return Raster(native(np.ascontiguousarray(part.swapaxes(0, 1))))


def write_masks(path: Path, masks: UInt8[np.ndarray, "pages H W"], image: Path, axis: Axis | None = None) -> None:
    """Write the masks of the slices of a volume as a volume with the same affine.

    Args:
        path: ends in .nii or .nii.gz.
        masks: class index or IGNORE, in the order of the slices.
        image: the volume that was predicted.
        axis: across which slices were taken, as for `pages`.

    Raises:
        DataError: the file cannot be written.
    """
    nibabel = _nibabel()
    source = _opened(image)
    volume = _volume_of(source, image, axis)
    voxels = np.moveaxis(masks.swapaxes(1, 2), 0, volume.axis)
    header = source.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0  # the window in which the image is shown
    kind = nibabel.Nifti2Image if isinstance(source, nibabel.Nifti2Image) else nibabel.Nifti1Image
    write_by_path(path, kind(voxels, source.affine, header).to_filename)


def _opened(path: Path) -> Any:
    image = _nibabel().load(path)
    if image.header.get_intent()[0] not in ("none", "label", "estimate") and image.ndim > 4:
        raise DataError("The file holds no plain volume.", where=path, remedy="Export it as a scalar image.")
    return image


def _nibabel() -> Any:
    with extra("medical", "NIfTI needs nibabel"):
        import nibabel
    return nibabel


def _volume_of(image: Any, path: Path, across: int | None = None) -> _Volume:
    shape = tuple(int(edge) for edge in image.shape)
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3, 4) or 0 in shape:
        raise DataError(
            f"A volume of shape {shape} has no slices.", where=path, remedy="Save three axes, and channels as a fourth."
        )
    spatial = (*shape[:3], 1)[:3]
    spacing = np.round([*map(float, image.header.get_zooms()[:3]), 0.0][:3], 4)
    axis = across if across is not None else 2 - int(np.argmax(spacing[::-1]))
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    scaled = slope not in (None, 1) or intercept not in (None, 0)
    dtype = np.dtype(np.float64) if scaled else image.get_data_dtype()
    return _Volume((spatial[0], spatial[1], spatial[2]), shape[3] if len(shape) == 4 else 1, axis, dtype)


@functools.lru_cache(maxsize=2)  # an image and its mask, of which one slice after the other is asked for
def _voxels(path: Path, _size: int, _modified_ns: int) -> Shaped[np.ndarray, "X Y Z C"]:
    voxels: np.ndarray = np.asanyarray(_opened(path).dataobj)
    return voxels.reshape((*voxels.shape, 1, 1)[:4])
