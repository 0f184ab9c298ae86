"""Predict images whose masks are known, and count."""

from collections.abc import Callable, Sequence

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


def count(
    model: Model,
    cases: Sequence[Decoded],
    progress: Callable[[int, int], None] | None = None,
    masks: Sequence[UInt8[np.ndarray, "_ _"]] = (),
) -> tuple[Int64[Tensor, "N K K"], Float64[Tensor, " N"]]:
    """Confusion counts and the sum of the cross-entropy over the pixels that count, per case, at the original size.

    Args:
        model: predicts.
        cases: images with masks, not resized.
        progress: is told how many of how many are done.
        masks: arrays of the size of each case, which the predicted classes are written into; none drops them.

    Raises:
        DataError: an image does not fit the model.
    """
    classes = len(model.classes)
    counts = torch.zeros((len(cases), classes, classes), dtype=torch.int64)
    losses = torch.zeros(len(cases), dtype=torch.float64)
    for index, case in enumerate(cases):
        try:
            counts[index], losses[index] = _count_one(model, case, masks[index] if masks else None)
        except DataError as error:
            raise DataError(error.what, where=case.case.image, remedy=error.remedy) from None
        if progress is not None:
            progress(index + 1, len(cases))
    return counts, losses


def _count_one(
    model: Model, case: Decoded, mask: UInt8[np.ndarray, "H W"] | None
) -> tuple[Int64[Tensor, "K K"], Float64[Tensor, ""]]:
    classes = len(model.classes)
    counts = torch.zeros((classes, classes), dtype=torch.int64)
    loss = torch.zeros((), dtype=torch.float64)
    truth = torch.from_numpy(np.array(case.mask))  # a copy: the file is mapped for reading only
    for band in model.bands(case.image):
        place = slice(band.top, band.top + band.probabilities.shape[1])
        predicted, rows = band.classes(), truth[place].to(model.device)
        counts += confusion(predicted, rows, classes).cpu()
        loss += _cross_entropy(band, rows).cpu().double().sum()  # not every GPU has float64
        if mask is not None:
            mask[place] = predicted.to(torch.uint8).cpu().numpy()
    return counts, loss


def _cross_entropy(band: Band, truth: Tensor) -> Float32[Tensor, " h"]:
    """Sum over the pixels that count, row by row: few enough terms for float32."""
    counted = truth != IGNORE
    target = torch.where(counted, truth, 0).long()
    probability = band.probabilities.gather(0, target[None])[0]
    return -(probability.clamp_min(SMALLEST_PROBABILITY).log() * counted).float().sum(dim=1)
