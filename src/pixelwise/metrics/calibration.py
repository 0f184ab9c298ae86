"""Whether a model is as sure as it is right: confidence against accuracy, in bins."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

BINS = 15
"""Of equal width between 0 and 1 (Guo et al., 2017)."""


def tally(confidence: Float[Tensor, "*s"], right: Bool[Tensor, "*s"]) -> Float64[Tensor, "3 bins"]:
    """Pixels, right pixels and the sum of the confidence by bin; a bin holds its upper end.

    Args:
        confidence: probability of the predicted class, 0 to 1, of the pixels that count.
        right: whether that class is the true one.
    """
    values = confidence.flatten().cpu().double()  # not every device has float64, and float32 cannot add up millions
    index = (values * BINS).ceil().long().clamp(1, BINS) - 1
    weights = (torch.ones_like(values), right.flatten().cpu().double(), values)
    return torch.stack([torch.bincount(index, weight, BINS) for weight in weights]).double()  # of no pixels: int64


@dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy of N images by bin."""

    sums: Float64[Tensor, "N 3 bins"]
    """As `tally` gives them."""

    def error(self, weights: Float64[Tensor, "B N"]) -> Float64[Tensor, " B"]:
        """Expected calibration error of weighted images (Naeini et al., 2015), 0 to 1; nan where no pixel counts.

        The mean distance of accuracy and confidence over the bins, weighed by their pixels.
        """
        return _error(torch.tensordot(weights, self.sums, dims=1))

    @property
    def pooled_error(self) -> float:
        """Expected calibration error of all images together, 0 to 1."""
        return float(_error(self.sums.sum(0)))

    def by_image(self) -> Float64[Tensor, " N"]:
        """Expected calibration error of each image by itself."""
        return _error(self.sums)

    def influence(self) -> Float64[Tensor, " N"]:
        """By how much each image moves the pooled error: what it is without the image, taken away from it."""
        whole = self.sums.sum(0)
        return _error(whole) - _error(whole - self.sums)

    def diagram(self) -> list[dict[str, float | int | None]]:
        """The reliability diagram: for each bin its pixels, their accuracy and their mean confidence."""
        rows = self.sums.sum(0).T.tolist()
        return [
            {
                "pixels": int(pixels),
                "accuracy": right / pixels if pixels else None,
                "confidence": confidence / pixels if pixels else None,
            }
            for pixels, right, confidence in rows
        ]


def _error(sums: Float64[Tensor, "*n 3 bins"]) -> Float64[Tensor, "*n"]:
    pixels, right, confidence = sums.unbind(-2)
    return (right - confidence).abs().sum(-1) / pixels.sum(-1)
