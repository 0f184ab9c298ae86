"""What a model that started from another one still knows of what that one was trained on."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64, UInt8
from pydantic import BaseModel, ConfigDict, FiniteFloat
from torch import Tensor

from pixelwise.classes import IGNORE
from pixelwise.data.cache import Decoded
from pixelwise.inference.predictor import Model
from pixelwise.inference.scoring import compare
from pixelwise.metrics.counts import numbers

MUCH = 0.05
"""Much of a class is forgotten where its IoU has fallen by more."""


class Remembered(BaseModel):
    """A class that both models know, on images of the earlier one's data."""

    model_config = ConfigDict(frozen=True)

    name: str
    before: FiniteFloat | None
    """IoU of the earlier model, pooled; none where the class does not occur."""
    after: FiniteFloat | None
    """IoU of the later one."""

    @property
    def change(self) -> float | None:
        """Of the IoU, negative where something was forgotten; none where the class does not occur."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def is_lost(self) -> bool:
        """Whether much of it was forgotten."""
        return self.change is not None and self.change < -MUCH


class Forgotten(BaseModel):
    """The content of forgetting.json."""

    model_config = ConfigDict(frozen=True)

    source: str
    """The run that the model started from."""
    side: str
    """Of its data, on which both were scored."""
    images: int
    classes: tuple[Remembered, ...]
    """Those that both know."""

    @property
    def hint(self) -> str:
        """What helps where much was forgotten; else nothing."""
        lost = [row.name for row in self.classes if row.is_lost]
        if not lost:
            return ""
        return (
            f"Much was forgotten of {', '.join(lost)}. Old images among the new ones keep it best; else fix a part of "
            "the network (--set finetune.freeze=encoder), or let the levels far from the output learn more slowly "
            "(--set finetune.rate_decay=0.7)."
        )


def before_and_after(earlier: Model, later: Model, cases: Sequence[Decoded]) -> tuple[Remembered, ...]:
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
    before, after = (numbers(sums[model][0].double() / sums[model][1]) for model in (earlier, later))
    rows = zip(names, before, after, strict=True)
    return tuple(Remembered(name=name, before=then, after=now) for name, then, now in rows)


def _overlaps(
    predicted: UInt8[Tensor, "h W"], truth: Tensor, said: Sequence[int], true: Sequence[int]
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
