"""From the raw values of an image to what the network sees; the same code in training, prediction and export."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from jaxtyping import Float, Float32, Int64, Integer, Shaped
from torch import Tensor

from pixelwise.config import Preprocessing
from pixelwise.data.windows import Source, is_empty, row_bands
from pixelwise.errors import DataError

ROUNDING = 1e-10
"""A deviation that is a smaller share of the mean is that of rounded sums, not of the pixels."""


COUNTED = (np.uint8, np.uint16)
"""Types of so few values that these can be counted."""

COLOURS = 3
"""Channels of an image that a grey one may stand for; other numbers are channels of different kinds."""


def match_channels(image: Shaped[np.ndarray, "H W _"], channels: int) -> Shaped[np.ndarray, "H W C"]:
    """The same image with the wanted number of channels: grey is repeated, equal channels become one.

    Raises:
        DataError: the channels differ in a way that would need a guess.
    """
    found = image.shape[-1]
    if found == channels:
        return image
    if found == 1 and channels == COLOURS:
        return np.broadcast_to(image, (*image.shape[:-1], channels))
    if channels == 1 and bool((image[..., 1:] == image[..., :1]).all()):
        return image[..., :1]
    raise DataError(
        f"The image has {found} channels; {channels} are expected.",
        remedy="Convert it, or train on images of one kind.",
    )


def storable(image: Shaped[np.ndarray, "H W C"]) -> Shaped[np.ndarray, "H W C"]:
    """8- and 16-bit integers as they are, in the machine's byte order; all other numbers as float32."""
    return np.ascontiguousarray(image, dtype=_storable_type(image.dtype))


def _storable_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("=") if dtype.kind == "u" and dtype.itemsize <= 2 else np.dtype(np.float32)


@dataclass(frozen=True)
class Prepared:
    """An image whose windows come in a type that is stored, and with the channels that a network wants.

    Numbers that are too large for float32 become infinite. Pixels that hold nothing get the value `fill`.
    """

    source: Source
    channels: int
    nodata: float | None = None
    """The value of pixels that hold nothing."""
    fill: tuple[float, ...] = (0.0,)
    """What stands in their place, by channel."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels."""
        return (*self.source.shape[:2], self.channels)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return _storable_type(self.source.dtype)

    def __getitem__(self, window: tuple[slice, slice], /) -> Shaped[np.ndarray, "h w C"]:
        """Rows and columns.

        Raises:
            DataError: the channels are not those that are wanted.
        """
        raw = self.source[window]
        with np.errstate(over="ignore", invalid="ignore"):
            ready = match_channels(storable(raw), self.channels)
        empty = is_empty(raw, self.nodata)
        if not empty.any():
            return ready
        filled = np.array(ready)
        with np.errstate(invalid="ignore"):
            filled[empty] = np.asarray(self.fill).astype(filled.dtype)
        return filled

    def valid(self) -> Iterator[Shaped[np.ndarray, "n C"]]:
        """The pixels that hold something, a few rows at a time from top to bottom."""
        for raw, ready in zip(row_bands(self.source), row_bands(self), strict=True):
            yield ready[~is_empty(raw, self.nodata)]


def refuse_other_range(image: Source, preprocessing: Preprocessing) -> None:
    """Refuse values that a common mean and deviation turn into something the network has never seen.

    Images of a number type that the training images had are accepted as they are: they may be dark or bright.

    Raises:
        DataError: the type is another, and so is the range: 16 bits for a model of 8, or 0..1 for one of 0..255.
    """
    if preprocessing.normalisation != "standard" or image.dtype.name in preprocessing.types or not preprocessing.types:
        return
    found, known = max(float(band.max()) for band in row_bands(image)), preprocessing.largest
    is_above = found > 2.0 * known
    is_share = image.dtype.kind == "f" and 0.0 < found <= 1.0 and known > 2.0
    if is_above or is_share:
        raise DataError(
            f"The image holds {image.dtype.name} values up to {found:.6g}; the model was trained on "
            f"{' and '.join(preprocessing.types)} values up to {known:.6g}.",
            remedy="Convert the image to the range of the training images, or train with data.normalisation=image.",
        )


def resize_image(image: Shaped[np.ndarray, "H W C"], size: tuple[int, int]) -> Shaped[np.ndarray, "h w C"]:
    """Bilinear resizing with anti-aliasing; integers are rounded and stay what they are."""
    if image.shape[:2] == size:
        return image
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))
    resized = F.interpolate(planes[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
    result = resized.permute(1, 2, 0).numpy()
    if np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        result = np.clip(np.rint(result), limits.min, limits.max)
    return np.ascontiguousarray(result.astype(image.dtype))


def resize_mask(mask: Integer[np.ndarray, "H W"], size: tuple[int, int]) -> Integer[np.ndarray, "h w"]:
    """Nearest-neighbour resizing: every pixel keeps a value that was there."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
        for new, old in zip(size, mask.shape, strict=True)
    )
    resized: np.ndarray = mask[rows[:, None], columns[None, :]]
    return resized


def mirrored_window(array: Source, top: int, left: int, size: tuple[int, int]) -> Shaped[np.ndarray, "h w ..."]:
    """A window of an image or of a mask, which may reach beyond it on any side and any distance.

    What is outside is mirrored. The mirror stands in the middle of the border pixel, which is therefore not
    repeated (numpy's `reflect`).
    """
    height, width = size
    if top >= 0 and left >= 0 and top + height <= array.shape[0] and left + width <= array.shape[1]:
        return array[top : top + height, left : left + width]
    rows = mirrored(np.arange(top, top + height), array.shape[0])
    columns = mirrored(np.arange(left, left + width), array.shape[1])
    inside = array[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    result: np.ndarray = inside[(rows - rows.min())[:, None], (columns - columns.min())[None, :]]
    return result


def mirrored(index: Shaped[np.ndarray, " n"], length: int) -> Shaped[np.ndarray, " n"]:
    """Rows or columns within an image of so many, in place of some that may lie outside."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    folded = np.abs(index) % period
    mirrored: np.ndarray = np.where(folded < length, folded, period - folded)
    return mirrored


def statistics(image: Source) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, " C"]]:
    """Mean and deviation per channel; a constant channel has deviation 1, so that it becomes zero, not infinite.

    Pixels that hold nothing do not count; an image without any others has mean 0. A band of rows is read at a time,
    because numbers for arithmetic take eight times the memory of an image of bytes.
    """
    has_empty = isinstance(image, Prepared) and image.nodata is not None
    parts = image.valid if isinstance(image, Prepared) and has_empty else partial(row_bands, image)
    mean, deviation = _of_values(parts()) if image.dtype in COUNTED else _of_numbers(parts)
    return mean, np.where(deviation > ROUNDING * np.abs(mean), deviation, 1.0)


def _of_values(parts: Iterable[Shaped[np.ndarray, "*pixels C"]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation per channel from how often each value occurs: exact, and a twentieth of the time."""
    counts = reduce(np.add, map(_counted, parts))
    values, pixels = np.arange(counts.shape[1]), max(1, counts[0].sum())
    mean = counts @ values / pixels
    return mean, np.sqrt((counts * np.square(values - mean[:, None])).sum(axis=1) / pixels)


def _counted(part: Shaped[np.ndarray, "*pixels C"]) -> Int64[np.ndarray, "C V"]:
    pixels, values = part.reshape(-1, part.shape[-1]), np.iinfo(part.dtype).max + 1
    return np.stack([np.bincount(channel, minlength=values) for channel in pixels.T])


def _of_numbers(parts: Callable[[], Iterable[Shaped[np.ndarray, "*pixels C"]]]) -> tuple[np.ndarray, np.ndarray]:
    """The same for other numbers; parts are read twice."""
    counts, sums = zip(*((math.prod(part.shape[:-1]), _summed(part)) for part in parts()), strict=True)
    pixels = max(1, sum(counts))
    mean = np.sum(sums, axis=0) / pixels
    squares = np.sum([_summed(np.square(part - mean)) for part in parts()], axis=0)
    return mean, np.sqrt(squares / pixels)


def _summed(part: Shaped[np.ndarray, "*pixels C"]) -> Float[np.ndarray, " C"]:
    return np.asarray(part.sum(axis=tuple(range(part.ndim - 1)), dtype=np.float64))


Moments = tuple[Sequence[float], Sequence[float]]
"""Mean and deviation per channel."""


def moments(image: Source, preprocessing: Preprocessing) -> Moments:
    """The mean and deviation per channel that `normalise` shall use for windows of this image."""
    if preprocessing.normalisation == "image":
        mean, deviation = statistics(image)
        return mean.tolist(), deviation.tolist()
    if preprocessing.normalisation == "none":
        return [0.0] * preprocessing.channels, [1.0] * preprocessing.channels
    return preprocessing.mean, preprocessing.deviation


def scaling(mean: Sequence[float], deviation: Sequence[float]) -> Float32[np.ndarray, "2 C"]:
    """What values are multiplied by, and what is then added, to be (value - mean) / deviation."""
    return np.stack([1.0 / np.asarray(deviation), -np.asarray(mean) / np.asarray(deviation)]).astype(np.float32)


def loadable(image: Shaped[np.ndarray, "*s C"]) -> Shaped[np.ndarray, "*s C"]:
    """Bytes as they are, others as float32: few devices know uint16."""
    return image if image.dtype == np.uint8 else image.astype(np.float32, copy=False)


def normalise(windows: Shaped[Tensor, "B h w C"], factors: Float32[Tensor, "2 C"]) -> Float32[Tensor, "B C h w"]:
    """(value - mean) / deviation per channel; in memory the channels stay last.

    Args:
        windows: raw values, as `loadable` gives them, on any device.
        factors: on the same device, as `scaling` gives them.
    """
    return torch.mul(windows, factors[0]).add_(factors[1]).permute(0, 3, 1, 2)
