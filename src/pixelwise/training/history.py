"""What happened in a run, epoch by epoch."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """One row of the history."""

    epoch: int
    step: int
    """Updates made so far."""
    seconds: float
    """Since the start of the run, pauses left out."""
    train_loss: float
    validation_loss: float
    """Cross-entropy per pixel."""
    miou: float
    dice: float
    iou: list[float | None]
    """Per class; none for a class neither present nor predicted."""
    learning_rate: float
    images_per_second: float
    """Patches per second of training, over all processes."""
    warnings: dict[str, str] = field(default_factory=dict)
    """What probably is not as it should be, and what to do, where no earlier epoch has said it; setbacks before it."""

    def to_json(self) -> dict[str, Any]:
        """The row as JSON has it; nan becomes null."""
        return {key: None if value != value else value for key, value in vars(self).items()}  # noqa: PLR0124  nan


@dataclass
class History:
    """What happened so far; a resumed run goes on from it."""

    step: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    best_score: float = -math.inf
    best_epoch: int = -1
    rate_scale: float = 1.0
    """What setbacks have left of the learning rate."""
    setbacks: list[str] = field(default_factory=list)
    """Why training went back to the state after an earlier epoch, with a lower rate."""

    def add(self, epoch: Epoch) -> bool:
        """Append a row; true if it is the best so far."""
        self.epochs.append(epoch)
        score = epoch.miou if math.isfinite(epoch.miou) else -math.inf
        is_best = score > self.best_score or self.best_epoch < 0
        if is_best:
            self.best_score, self.best_epoch = score, epoch.epoch
        return is_best
