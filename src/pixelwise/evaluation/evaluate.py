"""From a model and images whose masks are known to scores and examples; every image is predicted once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from pixelwise.data.cache import Decoded
from pixelwise.evaluation.figures import to_display
from pixelwise.evaluation.report import Example
from pixelwise.inference.predictor import Model
from pixelwise.inference.scoring import count
from pixelwise.metrics import Scores

EXAMPLES_PER_RANK = 3
"""So many of the worst, median and best images are shown."""

KEPT_PIXELS = 100_000_000
"""Predicted masks are kept, a byte per pixel, where all of them together have no more pixels."""


@dataclass(frozen=True)
class Evaluated:
    """A model, images whose masks are known, and how they fit."""

    model: Model
    cases: Sequence[Decoded]
    scores: Scores
    masks: Sequence[UInt8[np.ndarray, "_ _"]] = ()
    """Predictions by case; none where they would take too much memory."""

    def mask(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """The predicted classes of a case, predicted again if they were not kept."""
        return self.masks[index] if self.masks else self.model.predict(self.cases[index].image).mask


def evaluate(model: Model, cases: Sequence[Decoded], progress: Callable[[int, int], None] | None = None) -> Evaluated:
    """Predict every image at its original size, and count.

    Args:
        model: predicts.
        cases: images with masks, not resized.
        progress: is told how many of how many are done.
    """
    few = sum(case.pixels for case in cases) <= KEPT_PIXELS
    masks = [np.empty(case.size, dtype=np.uint8) for case in cases] if few else []
    counts, _ = count(model, cases, progress, masks)
    names = tuple(case.case.name for case in cases)
    return Evaluated(model, cases, Scores(classes=tuple(model.classes.names), names=names, counts=counts), masks)


def examples(evaluated: Evaluated) -> tuple[Example, ...]:
    """The worst, median and best images with their predictions."""
    mious = evaluated.scores.image_miou.tolist()
    order = [index for index in evaluated.scores.worst_first() if not math.isnan(mious[index])]
    return tuple(
        Example(
            name=evaluated.cases[index].case.name,
            rank=rank,
            image=to_display(evaluated.cases[index].image[:]),
            truth=evaluated.cases[index].mask[:],
            prediction=evaluated.mask(index),
            miou=mious[index],
        )
        for rank, index in _ranks(order)
    )


def _ranks(order: Sequence[int]) -> list[tuple[str, int]]:
    """Which images to show, and why; none is shown twice."""
    shown = min(EXAMPLES_PER_RANK, -(-len(order) // 3))
    middle = max(0, (len(order) - shown) // 2)
    groups = {"worst": order[:shown], "median": order[middle : middle + shown], "best": order[::-1][:shown]}
    seen: set[int] = set()
    chosen: list[tuple[str, int]] = []
    for rank, group in groups.items():
        for index in group:
            if index not in seen:
                seen.add(index)
                chosen.append((rank, index))
    return chosen
