"""What can go wrong in training without an error, noticed after every epoch, with what to do about it."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

DIVERGED = 3.0
"""Training has diverged if an epoch's loss is so many times the median of the last three, and the highest so far."""

SLOWER = 0.3
"""The learning rate goes down to this share of itself after a setback."""

SETBACKS = 3
"""A run that still fails after so many setbacks is given up."""

STARVED = 0.3
"""The device starves if this share of an epoch is spent waiting for patches."""

UNMOVED = 0.98
"""The loss does not move if its mean over the later half of the epochs exceeds this share of the earlier half's."""

BLIND = 0.7
"""A network knows next to nothing if its validation loss is more than this share of what guessing gives."""

EARLY = 3
"""Epochs after which a network is expected to have learned something."""

OVERFITTED = 1.5
"""The validation loss has gone up if it is so many times its lowest value."""


@dataclass(frozen=True)
class Sign:
    """Something that probably is not as it should be."""

    name: str
    what: str
    remedy: str


@dataclass(frozen=True)
class Vitals:
    """What the signs are read from."""

    train_losses: Sequence[float]
    """Of every epoch so far, this one last."""
    validation_losses: Sequence[float]
    true_classes: int
    """Classes that occur in the validation masks."""
    predicted_classes: int
    """Classes that were predicted on the validation images."""
    guess_loss: float
    """Validation loss of a network that knows nothing but how frequent the classes are."""
    waiting_share: float
    """Of the time of the epoch, 0 to 1, what was spent waiting for patches."""
    workers: int
    """Reading processes."""
    is_resident: bool = False
    """The GPU cuts the patches itself, and waits for none."""


def failure(losses: Sequence[float], loss: float, *, finite: bool) -> str | None:
    """Why the weights after an epoch are of no use; none if they are.

    Args:
        losses: mean training loss of the epochs before.
        loss: that of this one.
        finite: whether all weights are.
    """
    if not math.isfinite(loss):
        return f"The loss became {loss}."
    if not finite:
        return "Weights became NaN or infinite."
    # epochs in which next to nothing counted have next to no loss; and one lucky epoch is no measure for all others
    known = [earlier for earlier in losses if earlier > 0.0]
    if len(known) >= EARLY and loss > DIVERGED * statistics.median(known[-EARLY:]) and loss > max(known):
        return f"The loss rose from {statistics.median(known[-EARLY:]):.3f} to {loss:.3f}: training diverges."
    return None


def signs(vitals: Vitals) -> dict[str, str]:
    """What is wrong after an epoch and what to do about it, by the name of the sign."""
    found = [sign for check in CHECKS if (sign := check(vitals)) is not None]
    return {sign.name: f"{sign.what} {sign.remedy}" for sign in found}


def _collapsed(vitals: Vitals) -> Sign | None:
    if len(vitals.train_losses) < EARLY or vitals.predicted_classes > 1 or vitals.true_classes < 2:
        return None
    return Sign(
        "collapse",
        f"The network predicts one class everywhere, and the validation masks have {vitals.true_classes}.",
        "If that stays so: --set loss.class_weights=balanced, a lower training.learning_rate, or more time. "
        "Masks whose values are read wrongly look the same; `pixelwise preview` shows them.",
    )


def _unmoved(vitals: Vitals) -> Sign | None:
    losses, half = vitals.train_losses, len(vitals.train_losses) // 2
    if len(losses) < EARLY + 2 or statistics.mean(losses[half:]) < UNMOVED * statistics.mean(losses[:half]):
        return None
    if vitals.validation_losses[-1] < BLIND * vitals.guess_loss:
        return None  # it came from somewhere where there is little left to learn
    return Sign(
        "standstill",
        f"The loss does not move: it was {losses[0]:.3f} and is {losses[-1]:.3f} after {len(losses)} epochs.",
        "Raise training.learning_rate tenfold, and look at what the network sees with `pixelwise preview`.",
    )


def _starved(vitals: Vitals) -> Sign | None:
    if vitals.waiting_share < STARVED or vitals.is_resident:
        return None
    more = max(4, 2 * vitals.workers)
    return Sign(
        "starving",
        f"{vitals.waiting_share:.0%} of the time goes into waiting for patches.",
        f"Read with more processes (--set data.workers={more}), or keep the cache on a faster disk "
        "(--set data.cache=FOLDER).",
    )


def _overfitted(vitals: Vitals) -> Sign | None:
    losses = [loss for loss in vitals.validation_losses if math.isfinite(loss)]
    if len(losses) < EARLY or losses[-1] < OVERFITTED * min(losses):
        return None
    if vitals.train_losses[-1] > min(vitals.train_losses) * 1.1:
        return None
    return Sign(
        "overfitting",
        f"The validation loss rose from {min(losses):.3f} to {losses[-1]:.3f} while the training loss fell.",
        "The best model so far is kept. More images, a larger augment.strength or a smaller network help.",
    )


CHECKS = (_collapsed, _unmoved, _starved, _overfitted)
"""Each looks for one sign."""
