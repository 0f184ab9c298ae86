"""How high a learning rate may be: it is raised from step to step until the loss grows (Smith, 2017, section 3.3)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

STEPS = 60
"""In so many steps the rate rises from `LOWEST` to `HIGHEST`."""

LOWEST, HIGHEST = 1e-6, 1.0

SMOOTHING = 0.85
"""Weight of what was before in the mean loss."""

DIVERGED = 3.0
"""The test ends where the mean loss is so many times its lowest."""


@dataclass(frozen=True)
class RateRange:
    """Mean losses by learning rate, and what follows from them."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """Means over the steps before, of which the later count more; at the last rate training may have diverged."""

    @property
    def highest(self) -> float:
        """The rate at which the loss is lowest: beyond it training becomes worse."""
        return self.rates[int(np.argmin(self.losses))]

    @property
    def steepest(self) -> float:
        """The rate at which the loss falls fastest, by powers of ten of the rate; not above `highest`."""
        end = int(np.argmin(self.losses)) + 1
        if end < 3:
            return self.rates[0]
        slopes = np.gradient(np.array(self.losses[:end]), np.log10(self.rates[:end]))
        return self.rates[int(np.argmin(slopes))]


def range_test(step: Callable[[float], float], steps: int = STEPS) -> RateRange:
    """Raise the rate in equal powers.

    Args:
        step: makes one update at a rate, and gives its loss.
        steps: how many.
    """
    rates, losses = [], []
    mean, lowest = 0.0, math.inf
    for number in range(steps):
        rate = LOWEST * (HIGHEST / LOWEST) ** (number / max(1, steps - 1))
        loss = step(rate)
        if not math.isfinite(loss):
            break
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * loss
        smoothed = mean / (1.0 - SMOOTHING ** (number + 1))  # as if the first loss had been there for ever
        rates.append(rate)
        losses.append(smoothed)
        lowest = min(lowest, smoothed)
        if smoothed > DIVERGED * lowest:
            break
    return RateRange(tuple(rates or [LOWEST]), tuple(losses or [math.inf]))
