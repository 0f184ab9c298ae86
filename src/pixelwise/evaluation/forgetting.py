"""What a model that started from another one still knows of what that one was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from pixelwise.classes import IGNORE
from pixelwise.data.cache import Decoded
from pixelwise.evaluation.results import score_text
from pixelwise.inference.predictor import Model
from pixelwise.inference.scoring import compare
from pixelwise.metrics.counts import number


@dataclass(frozen=True)
class Remembered:
    """A class that both models know, on images of the earlier one's data."""

    name: str
    before: float
    """IoU of the earlier model, pooled; nan where the class does not occur."""
    after: float
    """IoU of the later one."""

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"class": self.name, "iou_before": number(self.before), "iou_after": number(self.after)}


def before_and_after(earlier: Model, later: Model, cases: Sequence[Decoded]) -> list[Remembered]:
    """IoU of the classes that both models know.

    Args:
        earlier: what the later one started from.
        later: with classes of its own.
        cases: with masks in the classes of the earlier one, that it was not trained on.

    Raises:
        DataError: an image does not fit one of the models.
    """
    names = [name for name in earlier.classes.names if name in later.classes.names]
    sums = {model: torch.zeros((2, len(names)), dtype=torch.int64) for model in (earlier, later)}
    true = [earlier.classes.names.index(name) for name in names]
    for model, counts in sums.items():
        said = [model.classes.names.index(name) for name in names]
        for case in cases:
            for part in compare(model, case):
                counts.add_(_overlaps(part.predicted, part.truth, said, true))
    before, after = (sums[model][0].double() / sums[model][1] for model in (earlier, later))
    return [Remembered(name, *pair) for name, *pair in zip(names, before.tolist(), after.tolist(), strict=True)]


def _overlaps(
    predicted: Int64[Tensor, "h W"], truth: Tensor, said: Sequence[int], true: Sequence[int]
) -> Int64[Tensor, "2 n"]:
    """Pixels in both masks, and in either, of each class."""
    counted = truth != IGNORE
    both, either = [], []
    for ours, theirs in zip(said, true, strict=True):
        first, second = (predicted == ours) & counted, truth == theirs
        both.append((first & second).sum())
        either.append((first | second).sum())
    return (
        torch.stack([torch.stack(both), torch.stack(either)]).cpu() if both else torch.zeros((2, 0), dtype=torch.int64)
    )


def lines(rows: Sequence[Remembered]) -> list[str]:
    """A line for each class."""
    width = max((len(row.name) for row in rows), default=0)
    return [f"  {row.name:<{width}}  IoU {score_text(row.before)} before, {score_text(row.after)} now" for row in rows]
