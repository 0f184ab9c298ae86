"""How sure a score is: bootstrap intervals over images, and paired tests of two models on the same images.

What is drawn again is the unit that one could have had others of: an image, or a group of images where several are of
one patient, plate or place. Pixels of one image are anything but independent, so that intervals over pixels would be
far too narrow.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from scipy import special
from torch import Tensor

from pixelwise.config import FEWEST_UNITS
from pixelwise.metrics.counts import mean_over_classes
from pixelwise.metrics.weighted import Ratio

LEVEL = 0.95
"""Of all intervals."""

RESAMPLES = 2000
"""Bootstrap samples, if the table of weights does not get larger than `WEIGHTS`."""

FEWEST_RESAMPLES = 200

WEIGHTS = 20_000_000
"""Bootstrap samples times images: 160 MB, the 2000 samples of 10,000 images."""

POWER = 0.8
"""Chance with which a real difference is to be found, where the number of images that it takes is told."""

EXACT_UNITS = 12
"""Up to so many units, all ways of exchanging two models are tried; above it, `EXCHANGES` random ones."""

FEWEST_TO_TELL = 6
"""All ways of exchanging five units are 32, of which the two that agree best are more than 5 %."""

EXCHANGES = 10_000

_CHUNK = 500
"""Weightings at once: 1000 images of 150 classes stay below 10 MB."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval; both ends are nan where there are fewer than `FEWEST_UNITS` units."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How much better one model is than another on the same images, and what that is worth."""

    value: float
    """Mean over classes of the first minus that of the second."""
    interval: Interval
    p: float
    """How often a difference as large comes about when the two are exchanged at random, image by image."""
    units: int
    """Images, or groups of images."""
    grouped: bool
    """Whether several images belong to one unit."""
    needed: int | None
    """Units like these that would show a difference of this size with 80 % certainty; none where there is none."""

    @property
    def is_clear(self) -> bool:
        """Whether these images tell the two apart."""
        return self.p < 1.0 - LEVEL


class Bootstrap:
    """Samples of units that were drawn again, with replacement (Efron, 1979).

    Args:
        units: for each of N images, what it belongs to; images of one unit are drawn together.
        seed: of the draws.
    """

    def __init__(self, units: Sequence[str], seed: int = 0) -> None:
        self.member = _members(units)
        self.units = int(self.member.max()) + 1
        count = max(FEWEST_RESAMPLES, min(RESAMPLES, WEIGHTS // len(units)))
        chances = np.full(self.units, 1.0 / self.units)
        draws = np.random.default_rng(seed).multinomial(self.units, chances, size=count).astype(np.float64)
        self.weights: Float64[Tensor, "B N"] = torch.from_numpy(draws)[:, self.member]
        """How often each image counts in each sample."""

    def interval(self, values: Float64[Tensor, " B"], influence: Float64[Tensor, " N"]) -> Interval:
        """The interval that a score spans over the samples.

        Percentiles are too narrow where units are few, or where a few of them decide. They are taken as much further
        out as the t distribution is wider than the normal one (Hesterberg, 2015, section 5.3), with the degrees of
        freedom that a variance estimated from values of this kurtosis has, 2 n / (kurtosis - 1), n - 1 at most.

        Args:
            values: the score in each sample; nan where a sample has none.
            influence: by how much each image moves the score, up to a common factor.
        """
        known = values[~values.isnan()]
        if self.units < FEWEST_UNITS or not len(known):
            return Interval(math.nan, math.nan)
        freedom = self._degrees_of_freedom(influence)
        tail = (1.0 - LEVEL) / 2.0
        further = float(special.ndtr(math.sqrt((freedom + 1.0) / freedom) * special.stdtrit(freedom, tail)))
        low, high = torch.quantile(known, torch.tensor([further, 1.0 - further], dtype=torch.float64)).tolist()
        return Interval(low, high)

    def of(self, ratio: Ratio) -> tuple[Interval, list[Interval]]:
        """The intervals of the mean over classes of a score, and of each class."""
        values = torch.cat([ratio.of(some) for some in torch.split(self.weights, _CHUNK)])
        influence = ratio.influence()
        each = [self.interval(column, moved) for column, moved in zip(values.T, influence.T, strict=True)]
        return self.interval(mean_over_classes(values), mean_over_classes(influence)), each

    def by_unit(self, influence: Float64[Tensor, " N"]) -> Float64[Tensor, " units"]:
        """The influence of the images of each unit together; an image without one has none."""
        return torch.zeros(self.units, dtype=torch.float64).index_add_(0, self.member, influence.nan_to_num())

    def _degrees_of_freedom(self, influence: Float64[Tensor, " N"]) -> float:
        moved = self.by_unit(influence)
        second, fourth = float((moved**2).mean()), float((moved**4).mean())
        most = self.units - 1.0
        excess = fourth / second**2 - 1.0 if second > 0.0 else 0.0
        return max(1.0, min(most, 2.0 * self.units / excess)) if excess > 0.0 else most


def _members(units: Sequence[str]) -> Int64[Tensor, " N"]:
    """For each image the number of its unit."""
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    return torch.tensor([numbers[unit] for unit in units])


def difference(first: Ratio, second: Ratio, units: Sequence[str], seed: int = 0) -> Difference:
    """Compare two models by the mean over classes of a pooled score, on the same images.

    The interval is that of a paired bootstrap: both models on the same samples. The p-value is that of a permutation
    test (Fisher, 1935): if the two were equally good, it would not matter which of them made which prediction of a
    unit.

    Args:
        first: a score of the one model on N images.
        second: the same score of the other model on the same images, in the same order.
        units: for each image what it belongs to.
        seed: of the draws.
    """
    drawn = Bootstrap(units, seed)
    value = _mean(first) - _mean(second)
    weights = torch.split(drawn.weights, _CHUNK)
    values = torch.cat([_means(first, some) - _means(second, some) for some in weights])
    influence = mean_over_classes(first.influence()) - mean_over_classes(second.influence())
    p = _p_of(first, second, drawn.member, seed)
    needed = _needed(value, drawn.by_unit(influence))
    if needed is not None and not p < 1.0 - LEVEL:  # what these could not tell takes more, and fewer than six never can
        needed = max(needed, drawn.units + 1, FEWEST_TO_TELL)
    interval = drawn.interval(values, influence)
    return Difference(value, interval, p, drawn.units, drawn.units < len(units), needed)


def _means(ratio: Ratio, weights: Float64[Tensor, "B N"]) -> Float64[Tensor, " B"]:
    return mean_over_classes(ratio.of(weights))


def _mean(ratio: Ratio) -> float:
    return float(mean_over_classes(ratio.pooled()))


def _p_of(first: Ratio, second: Ratio, member: Int64[Tensor, " N"], seed: int) -> float:
    """Share of the exchanges that give a difference at least as large as the real one, which is among them."""
    stays = _exchanges(int(member.max()) + 1, seed)
    both = Ratio(
        torch.cat([first.part, second.part]),
        torch.cat([first.whole, second.whole]),
        torch.cat([first.occurring, second.occurring]),
    )
    chunks = (some[:, member].double() for some in torch.split(stays, _CHUNK))
    exchanged = [
        (_means(both, torch.cat([some, 1.0 - some], 1)) - _means(both, torch.cat([1.0 - some, some], 1))).abs()
        for some in chunks
    ]
    differences = torch.cat(exchanged)
    real = differences[0]
    if bool(real.isnan()):
        return math.nan
    return float((differences >= real - 1e-12).double().mean())


def _exchanges(total: int, seed: int) -> UInt8[Tensor, "B G"]:
    """1 where a unit keeps its model, 0 where the two are exchanged; the first row keeps all."""
    if total <= EXACT_UNITS:
        return torch.tensor(list(itertools.product((1, 0), repeat=total)), dtype=torch.uint8)
    draws = np.random.default_rng(seed).integers(0, 2, size=(EXCHANGES, total), dtype=np.uint8)
    draws[0] = 1
    return torch.from_numpy(draws)


def _needed(value: float, moved: Float64[Tensor, " units"]) -> int | None:
    """How many units give a standard error that a difference of this size exceeds often enough."""
    units = len(moved)
    if units < 2 or not math.isfinite(value) or value == 0.0:
        return None
    variance = float((moved**2).sum()) * units / (units - 1)
    quantiles = float(special.ndtri(0.5 + LEVEL / 2.0) + special.ndtri(POWER))
    return max(2, math.ceil(units * variance * (quantiles / value) ** 2))
