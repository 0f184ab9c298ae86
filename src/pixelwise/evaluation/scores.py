"""All scores of a model on images, with how sure they are: the content of scores.json."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pixelwise.data.alike import Looks
from pixelwise.evaluation.mistakes import KINDS, Mistakes, by_size
from pixelwise.metrics import Scores
from pixelwise.metrics.boundaries import Boundaries
from pixelwise.metrics.calibration import Calibration
from pixelwise.metrics.counts import mean_over_classes, number, numbers
from pixelwise.metrics.intervals import LEVEL, Bootstrap, Interval
from pixelwise.metrics.weighted import Ratio, ratios

SplitChoice = Literal["train", "validation", "test", "all"]
"""Which side of the data to score."""

Scored = SplitChoice | Literal["out-of-fold"]
"""Which side was scored; out of fold, in cross-validation, is each image by the model that has not seen it."""

SUSPICIOUS_SHARE = 0.005
"""A mask is a suspect if a sure model contradicts it in more of its pixels than this,"""

SUSPICIOUS_TIMES = 3.0
"""and in so many times as many as in the median image."""

MEANS = {"iou": "miou"}
"""Means over classes that have a name of their own; the others are called as the score is."""


def units_of(names: Sequence[str], groups: Sequence[str]) -> tuple[str, ...]:
    """For each image what is drawn again to see how sure a score is: its group, or itself.

    Args:
        names: of the images.
        groups: what each belongs to, or nothing; empty if none belongs to any.
    """
    of_each = groups or ("",) * len(names)
    return tuple(f"group {group}" if group else name for name, group in zip(names, of_each, strict=True))


@dataclass(frozen=True)
class Evaluation(Scores):
    """Scores that also tell of outlines and probabilities, of which side they are, and how sure they are."""

    split: Scored = "all"
    groups: tuple[str, ...] = ()
    """What each image belongs to, such as a patient; empty where an image belongs to none. Nothing: none does."""
    boundaries: Boundaries | None = None
    calibration: Calibration | None = None
    mistakes: tuple[Mistakes, ...] = ()
    """Of each image; empty where masks were not looked at."""
    looks: tuple[Looks, ...] = ()

    @property
    def units(self) -> tuple[str, ...]:
        """As `units_of`."""
        return units_of(self.names, self.groups)

    def ratios(self) -> dict[str, Ratio]:
        """Every score that has a value for each class."""
        return ratios(self.counts) | (self.boundaries.ratios() if self.boundaries is not None else {})

    def interval(self, name: str = "iou") -> Interval:
        """The 95 % interval of the mean over classes of a score of `ratios`."""
        mean, _ = Bootstrap(self.units).of(self.ratios()[name])
        return mean

    def summary(self) -> dict[str, Any]:
        """The content of scores.json: the side that was scored, all scores of it, and their intervals."""
        drawn = Bootstrap(self.units)
        pooled: dict[str, Any] = {}
        by_class: list[dict[str, Any]] = [{"intervals": {}} for _ in self.classes]
        by_image: list[dict[str, Any]] = [{} for _ in self.names]
        spread: dict[str, Any] = {}
        for name, ratio in self.ratios().items():
            mean, each = drawn.of(ratio)
            pooled[MEANS.get(name, name)] = number(float(mean_over_classes(ratio.pooled())))
            spread[MEANS.get(name, name)] = _ends(mean)
            for row, value, ends in zip(by_class, numbers(ratio.pooled()), each, strict=True):
                row[name], row["intervals"][name] = value, _ends(ends)
            for row, value in zip(by_image, numbers(mean_over_classes(ratio.by_image())), strict=True):
                row[MEANS.get(name, name)] = value
        if self.calibration is not None:
            pooled["calibration_error"] = number(self.calibration.pooled_error)
            errors = self.calibration.error(drawn.weights)
            spread["calibration_error"] = _ends(drawn.interval(errors, self.calibration.influence()))
            for row, value in zip(by_image, numbers(self.calibration.by_image()), strict=True):
                row["calibration_error"] = value
        for row, group in zip(by_image, self.groups or ("",) * len(self.names), strict=True):
            row["group"] = group
        for row, look, one in zip(by_image, self.looks, self.mistakes, strict=False):
            row |= {"brightness": look.brightness, "contrast": look.contrast, "sure_and_wrong": one.sure}
        tree = super().summary()
        tree["pooled"] |= {**pooled, "intervals": spread, "per_class": _merged(tree["pooled"]["per_class"], by_class)}
        tree["per_image"] = _merged(tree["per_image"], by_image)
        return {
            "split": self.split,
            "intervals": {
                "level": LEVEL,
                "resamples": len(drawn.weights),
                "units": drawn.units,
                "groups": any(self.groups),
            },
            "tolerance_px": self.boundaries.tolerance_px if self.boundaries is not None else None,
            **tree,
            "calibration": self.calibration.diagram() if self.calibration is not None else [],
            "mistakes": self._mistakes() if self.mistakes else None,
        }

    def suspects(self) -> list[tuple[str, float]]:
        """Images whose masks may be wrong, and in which share of their pixels: the worst first.

        A model that is right elsewhere is sure of something else there, away from outlines. Named are images with
        several times as many such pixels as is usual.
        """
        shares = [one.sure / max(1, int(counts.sum())) for one, counts in zip(self.mistakes, self.counts, strict=False)]
        usual = statistics.median(shares) if shares else 0.0
        found = [(name, share) for name, share in zip(self.names, shares, strict=False) if share > _limit(usual)]
        return sorted(found, key=lambda pair: -pair[1])

    def _mistakes(self) -> dict[str, Any]:
        pixels = sum(one.pixels for one in self.mistakes)
        return {
            "per_class": [
                {"name": name, **dict(zip(KINDS, row, strict=True))}
                for name, row in zip(self.classes, np.asarray(pixels).tolist(), strict=True)
            ],
            "by_size": [
                {"size": row.name, "objects": row.number, "found": row.found, "share": number(row.share)}
                for row in by_size([one.objects for one in self.mistakes])
            ],
            "suspects": [{"name": name, "share": share} for name, share in self.suspects()],
        }

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any]) -> "Evaluation":
        """What `summary` was made from, but for outlines and probabilities, of which it holds results only."""
        scores = Scores.from_summary(summary)
        groups = tuple(row.get("group", "") for row in summary["per_image"])
        return cls(scores.classes, scores.names, scores.counts, summary.get("split", "all"), groups)


def _limit(usual: float) -> float:
    """Share of sure and wrong pixels above which a mask is a suspect."""
    return max(SUSPICIOUS_SHARE, SUSPICIOUS_TIMES * usual)


def _ends(ends: Interval) -> list[float | None]:
    return [number(ends.low), number(ends.high)]


def _merged(rows: list[dict[str, Any]], more: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | further for row, further in zip(rows, more, strict=True)]
