"""Find out on validation images what helps after training, and keep what clearly does.

The network stays as it is. What is tried, one after the other: to average over flips, to weigh classes against each
other (which for two classes is a threshold), and to remove objects that are too small. Each is held against what was
kept before it, with the interval of the difference. Weights and sizes are judged on each half of the images by what was
found on the other half; what is kept was found on all.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from pixelwise.config import PostprocessingConfig, PredictionConfig
from pixelwise.data.cache import Decoded
from pixelwise.inference.postprocess import objects, without_small_objects
from pixelwise.inference.predictor import FLIPS, Model
from pixelwise.inference.scoring import predicted
from pixelwise.metrics import confusion, iou
from pixelwise.metrics.counts import mean_over_classes, number
from pixelwise.metrics.intervals import Difference, difference
from pixelwise.metrics.weighted import ratios

MOST_PIXELS = 2_000_000
"""Weights of classes are found on so many pixels, spread evenly over the images."""

FACTORS = tuple(2.0 ** (step / 4) for step in range(-8, 9))
"""What the probability of a class may be multiplied by: a quarter to four."""

ROUNDS = 2
"""How often all classes are gone through."""

SIZES_PX = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Fewest pixels of an object that are tried."""

Counts = Int64[Tensor, "N K K"]


@dataclass(frozen=True)
class Step:
    """Something that was tried."""

    name: str
    setting: str
    """What it would be, in words."""
    gain: Difference
    """Of the mIoU, over what was kept before."""
    kept: bool

    def describe(self) -> str:
        """A line."""
        ends = self.gain.interval
        few = f" ({self.gain.units} image{'s' * (self.gain.units != 1)}: too few to be sure)"
        spread = f" (95 %: {ends.low:+.4f} to {ends.high:+.4f})" if not math.isnan(ends.low) else few
        return f"{self.name} {self.setting}: mIoU {self.gain.value:+.4f}{spread}, {'kept' if self.kept else 'not kept'}"

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        ends = self.gain.interval
        return {
            "step": self.name,
            "setting": self.setting,
            "miou_gain": number(self.gain.value),
            "interval": [number(ends.low), number(ends.high)],
            "kept": self.kept,
        }


def refine(
    model: Model, cases: Sequence[Decoded], units: Sequence[str], flips: Sequence[str], told: Callable[[str], None]
) -> tuple[Model, list[Step]]:
    """The model with what helps on these images.

    Args:
        model: what it was told before of weights and sizes is forgotten, and of flips if some are to be tried.
        cases: images with masks that it was not trained on.
        units: what each belongs to, as for intervals.
        flips: names of `FLIPS` to try; each makes prediction slower.
        told: hears what is being done.

    Raises:
        DataError: an image does not fit the model.
    """
    before = model.description.prediction
    prediction = before.model_copy(update={"flips": "none"}) if flips else before
    best = _with(model, prediction, PostprocessingConfig())
    counts = _counts(best, cases)
    steps: list[Step] = []

    def consider(name: str, setting: str, candidate: Model, theirs: Counts) -> None:
        nonlocal best, counts
        gain = difference(ratios(theirs)["iou"], ratios(counts)["iou"], units)
        is_kept = gain.interval.low > 0.0
        steps.append(Step(name, setting, gain, is_kept))
        if is_kept:
            best, counts = candidate, _counts(candidate, cases)

    for views in flips:
        told(f"trying flips {views}")
        candidate = _with(best, best.description.prediction.model_copy(update={"flips": views}), PostprocessingConfig())
        consider("flips", f"{views} ({1 + len(FLIPS[views])} times as slow)", candidate, _counts(candidate, cases))
    for name, find in (("weights of classes", _factors), ("no objects smaller than", _sizes)):
        told(f"looking for {name}")
        after = find(best, cases)
        if after == best.description.postprocessing:
            continue
        candidate = _with(best, best.description.prediction, after)
        text = _told(name, after, model.classes.names)
        consider(name, text, candidate, _crossed(best, cases, units, find))
    return best, steps


Find = Callable[[Model, Sequence[Decoded]], PostprocessingConfig]
"""What is best after a model, on some images."""


def _factors(model: Model, cases: Sequence[Decoded]) -> PostprocessingConfig:
    factors = class_factors(*_sample(model, cases))
    found = factors if any(factor != 1.0 for factor in factors) else None
    return model.description.postprocessing.model_copy(update={"class_factors": found})


def _sizes(model: Model, cases: Sequence[Decoded]) -> PostprocessingConfig:
    pairs = [(predicted(model, case), np.array(case.mask)) for case in cases]
    sizes = smallest_objects(pairs, len(model.classes))
    return model.description.postprocessing.model_copy(update={"smallest_px": sizes if any(sizes) else None})


def _told(name: str, after: PostprocessingConfig, names: Sequence[str]) -> str:
    if name == "weights of classes":
        pairs = zip(names, after.class_factors or (), strict=False)
        return ", ".join(f"{one} x {factor:.2g}" for one, factor in pairs if factor != 1.0)
    return ", ".join(f"{one} {size} px" for one, size in zip(names, after.smallest_px or (), strict=False) if size)


def _crossed(model: Model, cases: Sequence[Decoded], units: Sequence[str], find: Find) -> Counts:
    """Counts of each image with what was found on the other half of the images: nothing is judged by what it fits."""
    order = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    halves = [[index for index, unit in enumerate(units) if order[unit] % 2 == side] for side in range(2)]
    counts = torch.zeros((len(cases), len(model.classes), len(model.classes)), dtype=torch.int64)
    for half, other in (halves, halves[::-1]):
        if half:
            chosen = [cases[index] for index in other] or [cases[index] for index in half]
            after = find(model, chosen)
            judged = _with(model, model.description.prediction, after)
            counts[half] = _counts(judged, [cases[index] for index in half])
    return counts


def _with(model: Model, prediction: PredictionConfig, after: PostprocessingConfig) -> Model:
    update = {"prediction": prediction, "postprocessing": after}
    return Model(model.network, model.description.model_copy(update=update), model.device)


def _counts(model: Model, cases: Sequence[Decoded]) -> Counts:
    classes = len(model.classes)
    tables = [
        confusion(torch.from_numpy(predicted(model, case)), torch.from_numpy(np.array(case.mask)), classes)
        for case in cases
    ]
    return torch.stack(tables)


def _sample(model: Model, cases: Sequence[Decoded]) -> tuple[Float32[Tensor, "K n"], UInt8[Tensor, " n"]]:
    """Probabilities and true classes of pixels that are spread evenly over the images."""
    every = max(1, -(-sum(case.pixels for case in cases) // MOST_PIXELS))
    columns, truths = [], []
    for case in cases:
        truth = torch.from_numpy(np.array(case.mask))
        for band in model.bands(case.image):
            rows, _ = band.place
            columns.append(band.probabilities.float().flatten(1)[:, ::every].cpu())
            truths.append(truth[rows].flatten()[::every])
    return torch.cat(columns, dim=1), torch.cat(truths)


def class_factors(probabilities: Float32[Tensor, "K n"], truth: UInt8[Tensor, " n"]) -> tuple[float, ...]:
    """What to multiply the probability of each class by, for the highest mIoU of these pixels; one class after another.

    Args:
        probabilities: summing to 1 over K.
        truth: class index or IGNORE.
    """
    classes = len(probabilities)
    factors = torch.ones(classes)
    best = _miou(probabilities, truth, factors)
    for _ in range(ROUNDS):
        for index in range(1 if classes == 2 else 0, classes):  # of two classes, one weight is enough
            for factor in FACTORS:
                trial = factors.clone()
                trial[index] = factor
                score = _miou(probabilities, truth, trial)
                if score > best + 1e-5:
                    best, factors = score, trial
    return tuple(round(factor, 4) for factor in factors.tolist())


def _miou(probabilities: Float32[Tensor, "K n"], truth: UInt8[Tensor, " n"], factors: Float32[Tensor, " K"]) -> float:
    chosen = (probabilities * factors[:, None]).max(dim=0).indices
    return float(mean_over_classes(iou(confusion(chosen, truth, len(probabilities)))))


def smallest_objects(
    pairs: Sequence[tuple[UInt8[np.ndarray, "_ _"], UInt8[np.ndarray, "_ _"]]], classes: int
) -> tuple[int, ...]:
    """The fewest pixels of an object of each class, for the highest mIoU of these masks; 0 keeps all of a class.

    Args:
        pairs: predicted and true masks.
        classes: K.
    """
    sizes = [0] * classes
    best = _miou_without(pairs, sizes)
    for index in range(classes):
        largest = max((int(objects(mask, index)[1][1:].max(initial=0)) for mask, _ in pairs), default=0)
        for size in SIZES_PX:
            if size > largest:
                break
            trial = [*sizes[:index], size, *sizes[index + 1 :]]
            score = _miou_without(pairs, trial)
            if score > best + 1e-5:
                best, sizes = score, trial
    return tuple(sizes)


def _miou_without(
    pairs: Sequence[tuple[UInt8[np.ndarray, "_ _"], UInt8[np.ndarray, "_ _"]]], sizes: Sequence[int]
) -> float:
    classes = len(sizes)
    total = torch.zeros((classes, classes), dtype=torch.int64)
    for mask, truth in pairs:
        cleaned = without_small_objects(mask, sizes)
        total += confusion(torch.from_numpy(cleaned), torch.from_numpy(truth), classes)
    return float(mean_over_classes(iou(total)))
