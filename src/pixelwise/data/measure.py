"""One pass over the files of a data set: a few numbers for each case, for `data.check` to judge.

Where nobody can say what the masks mean, `faults` still finds what is wrong with the files.
"""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from pixelwise.classes import IGNORE
from pixelwise.data import alike, formats, masks, polygons
from pixelwise.data.alike import Looks
from pixelwise.data.dataset import Case, Dataset, MaskEncoding
from pixelwise.data.parallel import bytes_of_case, in_parallel
from pixelwise.data.reading import read_image, read_mask, wrong_size
from pixelwise.data.windows import row_bands
from pixelwise.errors import DataError

Misfit = Literal["off by one", "turned by the camera", "turned", "scaled", "different"]
"""How a mask can fail to lie on its image."""

_LEAST_SCALING = 1.25
"""A mask of nearly the size of its image was rather cropped or padded than scaled."""


@dataclass(frozen=True)
class Measurement:
    """What is kept of one case; a field is none where the file could not be read so far."""

    case: Case
    image_error: DataError | None = None
    shape: tuple[int, int, int] | None = None
    """Height, width and channels of the image."""
    dtype: str | None = None
    constant: bool = False
    """All pixels of the image are equal."""
    brightness: float = 0.0
    """As `Looks`."""
    contrast: float = 0.0
    """As `Looks`."""
    not_finite: int = 0
    """Values of the image that are NaN or infinite."""
    image_hash: str | None = None
    coarse: Float32[np.ndarray, "32 32"] | None = None
    """What tells nearly equal images, from `alike.coarse`."""
    mask_error: DataError | None = None
    mask_size: tuple[int, int] | None = None
    class_pixels: tuple[int, ...] | None = None
    """Pixels of each class."""
    mask_hash: str | None = None
    rim_pixels: tuple[int, ...] | None = None
    """Pixels of each class in the outermost rows and columns of the mask."""
    orientation: int = 1
    """Of the image, as `formats.ImageInfo`."""
    alpha: bool = False
    """The last channel of the image is transparency."""
    misnamed: tuple[tuple[Path, str], ...] = ()
    """Files that hold another format than their name says, and which."""

    @property
    def misfit(self) -> Misfit | None:
        """How the size of the mask differs from that of the image; none if it does not, or one of them is not known."""
        if self.shape is None or self.mask_size in (None, self.shape[:2]):
            return None
        (height, width), (rows, columns) = self.shape[:2], self.mask_size
        if (rows, columns) == (width, height):
            return "turned by the camera" if self.orientation > 4 else "turned"
        if max(abs(height - rows), abs(width - columns)) <= 1:
            return "off by one"
        factor = (rows + columns) / (height + width)
        fits = max(abs(rows - factor * height), abs(columns - factor * width)) <= max(1.0, factor)
        return "scaled" if fits and not 1 / _LEAST_SCALING < factor < _LEAST_SCALING else "different"


def measure(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> list[Measurement]:
    """Reads every image and mask once, in the order of the cases; files that cannot be read are recorded."""
    results: list[Measurement] = []
    for measurement in in_parallel(lambda case: _measure(case, dataset), dataset.cases, bytes_of_case):
        results.append(measurement)
        if progress is not None:
            progress(len(results), len(dataset.cases))
    return results


def equal(measurements: Sequence[Measurement], key: Callable[[Measurement], Hashable]) -> list[list[Measurement]]:
    """Groups of at least two with the same key that is not none."""
    groups: dict[Hashable, list[Measurement]] = {}
    for one in measurements:
        groups.setdefault(key(one), []).append(one)
    return [group for value, group in groups.items() if value is not None and len(group) > 1]


def faults(cases: Sequence[Case]) -> list[DataError]:
    """What is wrong whatever the masks mean: files that cannot be read, masks that are not as large as their image."""
    annotations = {path for case in cases for path in case.masks if path.suffix.lower() in polygons.SUFFIXES}
    found = [error for errors in in_parallel(_faults, cases, bytes_of_case) for error in errors]
    found += [error for path in sorted(annotations) for error in _annotation_faults(path)]
    return list({(str(error.where), error.what): error for error in found}.values())  # pages share a file


def _faults(case: Case) -> list[DataError]:
    found: list[DataError] = []
    size: tuple[int, ...] | None = None
    try:
        size = read_image(case).shape[:2]
    except DataError as error:
        found.append(error)
    for path in (path for path in case.masks if path.suffix.lower() not in polygons.SUFFIXES):
        try:
            own = read_mask(path, case).shape[:2]
        except DataError as error:
            found.append(error)
            continue
        if size is not None and own != size:
            found.append(wrong_size(path, own, size))
    return found


def _annotation_faults(path: Path) -> Sequence[DataError]:
    try:
        return polygons.survey([path], polygons.format_of(path)).unreadable
    except DataError as error:
        return [error]


def _measure(case: Case, dataset: Dataset) -> Measurement:
    result = Measurement(case, misnamed=_misnamed(case))
    try:
        image, info = read_image(case), formats.read_info(case.image)
        alpha = info.alpha and image.shape[2] == info.channels  # one that says nothing is dropped
        result = replace(_measure_image(result, image), orientation=info.orientation, alpha=alpha)
    except DataError as error:
        result = replace(result, image_error=error)
    if not case.masks:
        return result
    if result.shape is None and masks.is_drawn(dataset.encoding):
        return result  # without the image, outlines may claim any size
    try:
        return _measure_mask(result, decoded_mask(result, dataset.encoding), len(dataset.classes))
    except DataError as error:
        return replace(result, mask_error=error)


def decoded_mask(one: Measurement, encoding: MaskEncoding) -> UInt8[np.ndarray, "H W"]:
    """The mask of a case, at the size that its files have; outlines are drawn at that of the image.

    Raises:
        DataError: as `masks.decode`.
    """
    size = one.shape[:2] if one.shape is not None and masks.is_drawn(encoding) else None
    return masks.decode(one.case, encoding, size)


def _measure_image(result: Measurement, image: Shaped[np.ndarray, "H W C"]) -> Measurement:
    not_finite = 0 if image.dtype.kind != "f" else int(image.size - np.isfinite(image).sum())
    height, width, channels = image.shape
    looks = Looks.of(image)
    return replace(
        result,
        shape=(height, width, channels),
        dtype=image.dtype.name,
        constant=all(bool((rows == image[:1, :1]).all()) for rows in row_bands(image)),
        not_finite=not_finite,
        brightness=looks.brightness,
        contrast=looks.contrast,
        image_hash=_hash(image),
        coarse=alike.coarse(image),
    )


def _measure_mask(result: Measurement, mask: UInt8[np.ndarray, "H W"], classes: int) -> Measurement:
    counts = masks.count_values(mask)
    return replace(
        result,
        mask_size=(mask.shape[0], mask.shape[1]),
        class_pixels=tuple(counts[:classes].tolist()),
        mask_hash=_hash(mask),
        rim_pixels=tuple(np.bincount(_rim(mask), minlength=IGNORE + 1)[:classes].tolist()),
    )


def _rim(mask: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, " n"]:
    return np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])


def _misnamed(case: Case) -> tuple[tuple[Path, str], ...]:
    found = [(path, formats.content_of(path)) for path in (case.image, *case.channels, *case.masks)]
    return tuple((path, kind) for path, kind in found if kind and path.suffix.lower() not in formats.SUFFIXES_OF[kind])


def _hash(array: Shaped[np.ndarray, "..."]) -> str:
    digest = hashlib.blake2b(f"{array.shape} {array.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
