"""Scores of weighted images: a score of all images, of one, and of a bootstrap sample are one computation.

N images, K classes, B weightings: a weight says how often an image counts. Weights of 1 give the score of the images
as they are, a row of the unit matrix that of a single image, random whole numbers that of a bootstrap sample.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from pixelwise.metrics.counts import margins, quotient


@dataclass(frozen=True)
class Ratio:
    """A score per class that is a part of a whole: both are added up over images, and divided last."""

    part: Float64[Tensor, "N K"]
    whole: Float64[Tensor, "N K"]
    occurring: Float64[Tensor, "N K"]
    """Above 0 where an image has something to say of a class. A class that occurs in no image has no score."""

    @classmethod
    def mean_of(cls, values: Float64[Tensor, "N K"]) -> "Ratio":
        """The mean over the images that have a value; nan says that one has none."""
        known = (~values.isnan()).double()
        return cls(values.nan_to_num(nan=0.0), known, known)

    def of(self, weights: Float64[Tensor, "B N"]) -> Float64[Tensor, "B K"]:
        """The score of weighted images by class: 0 where the whole is empty, nan where the class does not occur."""
        part, whole, occurring = weights @ self.part, weights @ self.whole, weights @ self.occurring
        return quotient(part, whole, occurring)

    def pooled(self) -> Float64[Tensor, " K"]:
        """The score of all images together."""
        return self.of(torch.ones((1, len(self.part)), dtype=torch.float64))[0]

    def by_image(self) -> Float64[Tensor, "N K"]:
        """The score of each image by itself."""
        return quotient(self.part, self.whole, self.occurring)

    def influence(self) -> Float64[Tensor, "N K"]:
        """By how much each image moves the pooled score, to first order; nan where the class does not occur."""
        whole, occurring = (sums.sum(0).expand_as(sums) for sums in (self.whole, self.occurring))
        return quotient(self.part - self.pooled() * self.whole, whole, occurring)


def ratios(counts: Int64[Tensor, "N K K"]) -> dict[str, Ratio]:
    """IoU, Dice, precision and recall as parts of a whole, from the counts of each image."""
    hit, present, predicted = (sums.double() for sums in margins(counts))
    either = present + predicted
    return {
        "iou": Ratio(hit, either - hit, either),
        "dice": Ratio(2.0 * hit, either, either),
        "precision": Ratio(hit, predicted, either),
        "recall": Ratio(hit, present, either),
    }
