"""From the raw values of an image to what the network sees; the same code in training, prediction and export."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from jaxtyping import Float, Float32, Integer, Shaped

from pixelwise.config import Preprocessing
from pixelwise.errors import DataError

STATISTICS_PIXELS = 1_000_000
"""So many pixels are summed at a time."""

ROUNDING = 1e-10
"""A deviation that is a smaller share of the mean is that of rounded sums, not of the pixels."""


def match_channels(image: Shaped[np.ndarray, "H W _"], channels: int) -> Shaped[np.ndarray, "H W C"]:
    """The same image with the wanted number of channels: grey is repeated, equal channels become one.

    Raises:
        DataError: the channels differ in a way that would need a guess.
    """
    found = image.shape[-1]
    if found == channels:
        return image
    if found == 1:
        return np.broadcast_to(image, (*image.shape[:-1], channels))
    if channels == 1 and bool((image[..., 1:] == image[..., :1]).all()):
        return image[..., :1]
    raise DataError(
        f"The image has {found} channels; {channels} are expected.",
        remedy="Convert it, or train on images of one kind.",
    )


def storable(image: Shaped[np.ndarray, "H W C"]) -> Shaped[np.ndarray, "H W C"]:
    """8- and 16-bit integers as they are, in the machine's byte order; all other numbers as float32."""
    if image.dtype.kind == "u" and image.dtype.itemsize <= 2:
        return np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("="))
    return np.ascontiguousarray(image, dtype=np.float32)


def refuse_other_range(image: Shaped[np.ndarray, "H W C"], preprocessing: Preprocessing) -> None:
    """Refuse values that a common mean and deviation turn into something the network has never seen.

    Images of a number type that the training images had are accepted as they are: they may be dark or bright.

    Raises:
        DataError: the type is another, and so is the range: 16 bits for a model of 8, or 0..1 for one of 0..255.
    """
    if preprocessing.normalisation != "standard" or image.dtype.name in preprocessing.types or not preprocessing.types:
        return
    found, known = float(image.max()), preprocessing.largest
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


def mirrored_window(
    array: Shaped[np.ndarray, "H W ..."], top: int, left: int, size: tuple[int, int]
) -> Shaped[np.ndarray, "h w ..."]:
    """A window of an array, which may reach beyond it on any side and any distance: what is outside is mirrored.

    The mirror stands in the middle of the border pixel, which is therefore not repeated (numpy's `reflect`).
    """
    height, width = size
    if top >= 0 and left >= 0 and top + height <= array.shape[0] and left + width <= array.shape[1]:
        return array[top : top + height, left : left + width]
    rows = _mirrored(np.arange(top, top + height), array.shape[0])
    columns = _mirrored(np.arange(left, left + width), array.shape[1])
    inside = array[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    result: np.ndarray = inside[(rows - rows.min())[:, None], (columns - columns.min())[None, :]]
    return result


def _mirrored(index: Shaped[np.ndarray, " n"], length: int) -> Shaped[np.ndarray, " n"]:
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    folded = np.abs(index) % period
    mirrored: np.ndarray = np.where(folded < length, folded, period - folded)
    return mirrored


def statistics(image: Shaped[np.ndarray, "H W C"]) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, " C"]]:
    """Mean and deviation per channel; a constant channel has deviation 1, so that it becomes zero, not infinite.

    A band of rows is read at a time, because float64 takes eight times the memory of an image of bytes.
    """
    rows = max(1, STATISTICS_PIXELS // image.shape[1])
    parts = [slice(top, top + rows) for top in range(0, image.shape[0], rows)]
    pixels = image.shape[0] * image.shape[1]
    mean = np.sum([image[part].sum(axis=(0, 1), dtype=np.float64) for part in parts], axis=0) / pixels
    squares = np.sum([np.square(image[part] - mean).sum(axis=(0, 1)) for part in parts], axis=0)
    deviation = np.sqrt(squares / pixels)
    return mean, np.where(deviation > ROUNDING * np.abs(mean), deviation, 1.0)


def moments(
    image: Shaped[np.ndarray, "H W C"], preprocessing: Preprocessing
) -> tuple[Sequence[float], Sequence[float]]:
    """The mean and deviation per channel that `normalise` shall use for windows of this image."""
    if preprocessing.normalisation == "image":
        mean, deviation = statistics(image)
        return mean.tolist(), deviation.tolist()
    if preprocessing.normalisation == "none":
        return [0.0] * preprocessing.channels, [1.0] * preprocessing.channels
    return preprocessing.mean, preprocessing.deviation


def normalise(
    window: Shaped[np.ndarray, "h w C"], mean: Sequence[float], deviation: Sequence[float]
) -> Float32[np.ndarray, "C h w"]:
    """(value - mean) / deviation per channel, channels first."""
    scale = (1.0 / np.asarray(deviation)).astype(np.float32)
    shift = (-np.asarray(mean) / np.asarray(deviation)).astype(np.float32)
    values = window.astype(np.float32)
    values *= scale
    values += shift
    return values.transpose(2, 0, 1)
