"""Predict images whose masks are known, and hold the two against each other, band by band."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor

from pixelwise.classes import IGNORE
from pixelwise.data.cache import Decoded
from pixelwise.errors import DataError
from pixelwise.inference.predictor import Model
from pixelwise.inference.tiles import Band
from pixelwise.metrics import confusion

SMALLEST_PROBABILITY = 1e-7
"""Logarithms are taken of nothing smaller."""


@dataclass(frozen=True)
class Compared:
    """A part of an image, on the device of the model."""

    band: Band
    predicted: UInt8[Tensor, "h W"]
    """The most probable class."""
    truth: UInt8[Tensor, "h W"]
    """The true class, or IGNORE."""


def compare(model: Model, case: Decoded) -> Iterator[Compared]:
    """Predict an image at its original size, band by band.

    Args:
        model: predicts.
        case: image with mask, not resized.

    Raises:
        DataError: the image does not fit the model.
    """
    truth = torch.from_numpy(np.array(case.mask))  # a copy: the file is mapped for reading only
    try:
        for band in model.bands(case.image):
            yield Compared(band, band.classes(), truth[band.place].to(model.device))
    except DataError as error:
        raise DataError(error.what, where=case.case.image, remedy=error.remedy) from None


def count(model: Model, cases: Sequence[Decoded]) -> tuple[Int64[Tensor, "K K"], Float64[Tensor, ""]]:
    """Confusion counts and the sum of the cross-entropy over the pixels that count, of all cases at the original size.

    Args:
        model: predicts.
        cases: images with masks, not resized.

    Raises:
        DataError: an image does not fit the model.
    """
    classes = len(model.classes)
    counts = torch.zeros((classes, classes), dtype=torch.int64, device=model.device)
    losses = [torch.zeros(0, device=model.device)]
    for case in cases:
        for part in compare(model, case):
            counts += confusion(part.predicted, part.truth, classes)
            losses.append(_cross_entropy(part))
    return counts.cpu(), torch.cat(losses).cpu().double().sum()  # not every GPU has float64


def _cross_entropy(part: Compared) -> Float32[Tensor, " h"]:
    """Sum over the pixels that count, row by row: few enough terms for float32."""
    counted = part.truth != IGNORE
    target = torch.where(counted, part.truth, 0).long()
    probability = part.band.probabilities.gather(0, target[None])[0]
    return -(probability.clamp_min(SMALLEST_PROBABILITY).log() * counted).float().sum(dim=1)
