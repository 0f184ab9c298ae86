"""Find out on validation images what helps after training, and keep what clearly does.

The network stays as it is. What is tried, one after the other: to average over flips, to weigh classes against each
other (which for two classes is a threshold), and to remove objects that are too small. Each is held against what was
kept before it, with the interval of the difference. Weights and sizes are judged on each half of the images by what was
found on the other half; what is kept was found on all.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from pixelwise.config import FEWEST_UNITS, AugmentConfig, PostprocessingConfig, PredictionConfig
from pixelwise.data.cache import Decoded
from pixelwise.data.parallel import in_parallel
from pixelwise.inference.postprocess import filled, objects, smaller_than
from pixelwise.inference.predictor import FLIPS, Model
from pixelwise.inference.scoring import compare
from pixelwise.metrics import confusion, iou
from pixelwise.metrics.counts import mean_over_classes, number
from pixelwise.metrics.intervals import Difference, difference
from pixelwise.metrics.weighted import ratios

QUARTER_TURN = 90.0
"""In degrees."""

MOST_PIXELS = 2_000_000
"""Weights of classes are found on so many pixels, spread evenly over the images."""

FACTORS = tuple(2.0 ** (step / 4) for step in range(-8, 9))
"""What the probability of a class may be multiplied by: a quarter to four."""

ROUNDS = 2
"""How often all classes are gone through."""

FEW_UNITS = 12
"""Intervals of fewer images or groups hold the true value less often than they should: see docs/metrics.md."""

FILLING_PIXEL_BYTES = 40
"""Finding the nearest pixel of each takes about so much for each."""

SIZES_PX = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Fewest pixels of an object that are tried."""


@dataclass(frozen=True)
class Step:
    """Something that was tried."""

    name: str
    setting: str
    """What is done, in words that begin a sentence."""
    gain: Difference
    """Of the mIoU, over what was kept before."""
    kept: bool

    def describe(self) -> str:
        """A sentence."""
        ends = self.gain.interval
        spread = f"95 %: {ends.low:+.4f} to {ends.high:+.4f}" if not math.isnan(ends.low) else self._why_no_interval()
        outcome = "kept" if self.kept else "not kept"
        return f"{self.setting} changes the mIoU by {self.gain.value:+.4f} ({spread}): {outcome}"

    def _why_no_interval(self) -> str:
        return f"too few images to be sure: {self.gain.units} of at least {FEWEST_UNITS}"

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


def familiar_flips(shown: AugmentConfig) -> tuple[str, ...]:
    """Those of `FLIPS` whose views training has shown: what a network never saw upside-down, it does not know so."""
    horizontal, vertical = (shown.strength * part > 0.0 for part in (shown.flip_horizontal, shown.flip_vertical))
    degrees = shown.strength * shown.rotation_degrees if shown.geometric_probability > 0.0 else 0.0
    if (horizontal or vertical) and degrees >= 2 * QUARTER_TURN:  # one flip turned upside-down is the other
        horizontal = vertical = True
    if not (horizontal and vertical):
        return ("horizontal",) if horizontal else ()
    return ("horizontal", "both", "rotations") if degrees >= QUARTER_TURN else ("horizontal", "both")


def caution(steps: Sequence[Step]) -> str:
    """Why what was kept may not hold for other images, in a sentence; nothing where enough images have decided."""
    kept = [step.gain for step in steps if step.kept]
    if not kept or kept[0].units >= FEW_UNITS:
        return ""
    noun = "groups of images" if kept[0].grouped else "images"
    return f"only {kept[0].units} validation {noun} have decided: what was kept may not hold for others"


def refine(
    model: Model,
    cases: Sequence[Decoded],
    units: Sequence[str],
    flips: Sequence[str] | None,
    told: Callable[[str], None],
) -> tuple[Model, list[Step]]:
    """The model with what helps on these images.

    Args:
        model: what it was told before of weights and sizes is forgotten, and of flips unless these stay as they are.
        cases: images with masks that it was not trained on.
        units: what each belongs to, as for intervals.
        flips: names of `FLIPS` to try; each makes prediction slower. None leaves them as they are.
        told: hears what is being done.

    Raises:
        DataError: an image does not fit the model.
    """
    before = model.description.prediction
    prediction = before if flips is None else before.model_copy(update={"flips": "none"})
    best = _with(model, prediction, PostprocessingConfig())
    # odd: pixels are counted through parts of an image, and might all lie in one column of each
    every = max(1, -(-sum(case.pixels for case in cases) // MOST_PIXELS)) | 1
    seen = [_see(best, case, every) for case in cases]
    steps: list[Step] = []
    for views in flips or ():
        told(f"trying to average over flips ({views})")
        candidate = _with(best, best.description.prediction.model_copy(update={"flips": views}), PostprocessingConfig())
        theirs = [_see(candidate, case, every) for case in cases]
        setting = f"Averaging over flips ({views}, {1 + len(FLIPS[views])} times as slow)"
        steps.append(_held_against("flips", setting, theirs, seen, units))
        if steps[-1].kept:
            best, seen = candidate, theirs
    for remedy in (Weights(every), Objects()):
        told(f"looking for {remedy.sought}")
        after = remedy.find(best, seen)
        if after == best.description.postprocessing:
            told(f"found no {remedy.name} that would help")
            continue
        setting = remedy.describe(after, model.classes.names)
        steps.append(_held_against(remedy.name, setting, _crossed(remedy, best, seen, units), seen, units))
        if steps[-1].kept:
            best = _with(best, best.description.prediction, after)
            seen = [remedy.applied(best, one) for one in seen]
    return best, steps


@dataclass(frozen=True)
class Seen:
    """An image as a model sees it."""

    case: Decoded
    """With the true classes, on disk."""
    mask: UInt8[np.ndarray, "H W"]
    """What is predicted."""
    probabilities: Float32[Tensor, "K n"]
    """Of some pixels, spread evenly."""
    classes: UInt8[Tensor, " n"]
    """The true ones of these."""

    @cached_property
    def counts(self) -> Int64[Tensor, "K K"]:
        """Confusion of all pixels."""
        truth = torch.from_numpy(np.array(self.case.mask))  # a copy: the file is mapped for reading only
        return confusion(torch.from_numpy(self.mask), truth, len(self.probabilities))


def _see(model: Model, case: Decoded, every: int) -> Seen:
    mask = np.empty(case.size, dtype=np.uint8)
    columns, classes = [], []
    for part in compare(model, case):
        mask[part.band.place] = part.predicted.cpu().numpy()
        columns.append(part.band.probabilities.float().flatten(1)[:, ::every].cpu())
        classes.append(part.truth.flatten()[::every].cpu())
    return Seen(case, mask, torch.cat(columns, dim=1), torch.cat(classes))


@runtime_checkable
class Remedy(Protocol):
    """Something that may help after the network."""

    @property
    def name(self) -> str:
        """In a word or two, as refine.json has it."""

    @property
    def sought(self) -> str:
        """What is looked for."""

    def find(self, model: Model, seen: Sequence[Seen]) -> PostprocessingConfig:
        """What is best on images that the model sees so; its own settings if nothing is better."""

    def describe(self, after: PostprocessingConfig, names: Sequence[str]) -> str:
        """What was found, as something that is done, in words that begin a sentence."""

    def applied(self, model: Model, seen: Seen) -> Seen:
        """An image that was seen without it, as a model sees it that was told what was found."""


@dataclass(frozen=True)
class Weights:
    """What the probabilities of classes are multiplied by."""

    every: int
    """One of so many pixels is looked at."""
    name: str = "weights of classes"
    sought: str = "weights of classes"

    def find(self, model: Model, seen: Sequence[Seen]) -> PostprocessingConfig:
        """See `Remedy`."""
        probabilities = torch.cat([one.probabilities for one in seen], dim=1)
        factors = class_factors(probabilities, torch.cat([one.classes for one in seen]))
        found = factors if any(factor != 1.0 for factor in factors) else None
        return model.description.postprocessing.model_copy(update={"class_factors": found})

    def describe(self, after: PostprocessingConfig, names: Sequence[str]) -> str:
        """See `Remedy`."""
        pairs = zip(names, after.class_factors or (), strict=False)
        changed = ", ".join(f"{one} by {factor:.2g}" for one, factor in pairs if factor != 1.0)
        return f"Multiplying probabilities ({changed})"

    def applied(self, model: Model, seen: Seen) -> Seen:
        """See `Remedy`."""
        return _see(model, seen.case, self.every)


@dataclass(frozen=True)
class Objects:
    """The fewest pixels of an object."""

    name: str = "smallest objects"
    sought: str = "objects that are too small to be real"

    def find(self, model: Model, seen: Sequence[Seen]) -> PostprocessingConfig:
        """See `Remedy`."""
        sizes = smallest_objects([(one.mask, np.array(one.case.mask)) for one in seen], len(model.classes))
        return model.description.postprocessing.model_copy(update={"smallest_px": sizes if any(sizes) else None})

    def describe(self, after: PostprocessingConfig, names: Sequence[str]) -> str:
        """See `Remedy`."""
        pairs = zip(names, after.smallest_px or (), strict=False)
        removed = ", ".join(f"{one} of less than {size} px" for one, size in pairs if size)
        return f"Removing small objects ({removed})"

    def applied(self, model: Model, seen: Seen) -> Seen:
        """See `Remedy`."""
        return replace(seen, mask=model.cleaned(seen.mask))


def _held_against(name: str, setting: str, theirs: Sequence[Seen], seen: Sequence[Seen], units: Sequence[str]) -> Step:
    new, old = (ratios(torch.stack([one.counts for one in each]))["iou"] for each in (theirs, seen))
    gain = difference(new, old, units)
    return Step(name, setting, gain, kept=gain.interval.low > 0.0)


def _crossed(remedy: Remedy, model: Model, seen: Sequence[Seen], units: Sequence[str]) -> list[Seen]:
    """Each image with what was found on the other half of the images: nothing is judged by what it fits."""
    order = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    sides = [order[unit] % 2 for unit in units]
    told = {}
    for side in set(sides):
        others = [one for one, where in zip(seen, sides, strict=True) if where != side]
        after = remedy.find(model, others or seen)
        told[side] = _with(model, model.description.prediction, after)
    return [remedy.applied(told[side], one) for side, one in zip(sides, seen, strict=True)]


def _with(model: Model, prediction: PredictionConfig, after: PostprocessingConfig) -> Model:
    update = {"prediction": prediction, "postprocessing": after}
    return Model(model.network, model.description.model_copy(update=update), model.device)


def class_factors(probabilities: Float32[Tensor, "K n"], truth: UInt8[Tensor, " n"]) -> tuple[float, ...]:
    """What to multiply the probability of each class by, for the highest mIoU of these pixels; one class after another.

    Args:
        probabilities: summing to 1 over K.
        truth: class index or IGNORE.
    """
    classes = len(probabilities)
    factors = [1.0] * classes
    best = _miou_of(confusion(probabilities.argmax(dim=0), truth, classes))
    for _ in range(ROUNDS):
        for index in range(1 if classes == 2 else 0, classes):  # of two classes, one weight is enough
            rivals = probabilities * torch.tensor(factors)[:, None]
            rivals[index] = -1.0
            strongest = rivals.max(dim=0)  # once for all factors of this class
            for factor in FACTORS:
                ours = probabilities[index] * factor
                tied = (ours == strongest.values) & (index < strongest.indices)  # the first of equals, as in argmax
                chosen = strongest.indices.masked_fill((ours > strongest.values) | tied, index)
                score = _miou_of(confusion(chosen, truth, classes))
                if score > best + 1e-5:
                    best, factors[index] = score, factor
    return tuple(round(factor, 4) for factor in factors)


Pair = tuple[UInt8[np.ndarray, "_ _"], UInt8[np.ndarray, "_ _"]]
"""Predicted and true mask."""


def smallest_objects(pairs: Sequence[Pair], classes: int) -> tuple[int, ...]:
    """The fewest pixels of an object of each class, for the highest mIoU of these masks; 0 keeps all of a class.

    Args:
        pairs: of all images.
        classes: K.
    """
    sizes = [0] * classes
    small = [np.zeros(mask.shape, dtype=bool) for mask, _ in pairs]
    best = _miou_of(torch.stack([_counts_without(*one, classes) for one in zip(pairs, small, strict=True)]).sum(0))
    for index in range(classes):
        scores = {size: _miou_of(counts) for size, counts in _counts_by_size(pairs, small, index, classes).items()}
        size = max(scores, key=lambda one: scores[one], default=0)
        if size and scores[size] > best + 1e-5:
            best, sizes[index] = scores[size], size
            small = [
                known | smaller_than(size, *objects(mask, index)) for (mask, _), known in zip(pairs, small, strict=True)
            ]
    return tuple(sizes)


def _counts_by_size(
    pairs: Sequence[Pair], small: Sequence[Bool[np.ndarray, "_ _"]], index: int, classes: int
) -> dict[int, Int64[Tensor, "K K"]]:
    """Confusion where objects of a class with fewer pixels go too, for each size that some objects have."""

    def of_image(one: tuple[Pair, Bool[np.ndarray, "_ _"]]) -> tuple[int, list[Int64[Tensor, "K K"]]]:
        pair, known = one
        numbers, areas = objects(pair[0], index)
        found: dict[int, Int64[Tensor, "K K"]] = {}
        goes = [int((areas[1:] < size).sum()) for size in SIZES_PX]
        for size, count in zip(SIZES_PX, goes, strict=True):
            if count not in found:  # as many objects are the same ones
                found[count] = _counts_without(pair, known | smaller_than(size, numbers, areas), classes)
        return int(areas[1:].max(initial=0)), [found[count] for count in goes]

    cases = list(zip(pairs, small, strict=True))
    results = list(in_parallel(of_image, cases, lambda one: FILLING_PIXEL_BYTES * one[1].size))
    largest = max(area for area, _ in results)
    totals = [torch.stack(each).sum(dim=0) for each in zip(*(counts for _, counts in results), strict=True)]
    return {size: total for size, total in zip(SIZES_PX, totals, strict=True) if size <= largest}


def _counts_without(pair: Pair, small: Bool[np.ndarray, "_ _"], classes: int) -> Int64[Tensor, "K K"]:
    mask, truth = pair
    return confusion(torch.from_numpy(filled(mask, small)), torch.from_numpy(truth), classes)


def _miou_of(counts: Int64[Tensor, "K K"]) -> float:
    return float(mean_over_classes(iou(counts)))
