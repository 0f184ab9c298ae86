"""From a model and images whose masks are known to scores and examples; every image is predicted once."""

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from torch import Tensor

from pixelwise.classes import IGNORE, ClassTable
from pixelwise.data.alike import Looks
from pixelwise.data.cache import Decoded
from pixelwise.data.parallel import OUTLINE_PIXEL_BYTES, by_turns
from pixelwise.evaluation.figures import to_display
from pixelwise.evaluation.gallery import MOST, Thumbnail, edge_px, thumbnail
from pixelwise.evaluation.mistakes import Mistakes, find_mistakes
from pixelwise.evaluation.report import Example
from pixelwise.evaluation.scores import Evaluation, Scored, SplitChoice
from pixelwise.inference.predictor import Model
from pixelwise.inference.scoring import compare
from pixelwise.memory import keeping_freed_memory
from pixelwise.metrics import confusion, iou
from pixelwise.metrics.boundaries import Boundaries, ImageBoundaries, compare_boundaries
from pixelwise.metrics.calibration import BINS, Calibration, tally
from pixelwise.metrics.counts import mean_over_classes

EXAMPLES_PER_RANK = 3
"""So many of the worst, median and best images are shown."""

CONFIDENT = 0.9
"""A model is sure of a pixel whose class has at least this probability."""

KEPT_PIXELS = 100_000_000
"""Predicted masks are kept, a byte per pixel, where all of them together have no more pixels."""


@dataclass(frozen=True)
class Evaluated:
    """Images whose masks are known, the model that has predicted each, and how they fit."""

    models: Sequence[Model]
    """One for each case."""
    cases: Sequence[Decoded]
    scores: Evaluation
    thumbnails: Mapping[str, Thumbnail] = field(default_factory=dict)
    """Small pictures by the name of the case, of no more than the `MOST` worst ones."""
    masks: Sequence[UInt8[np.ndarray, "_ _"]] = ()
    """Predictions by case; none where they would take too much memory."""

    def mask(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """The predicted classes of a case, predicted again if they were not kept."""
        return self.masks[index] if self.masks else self.models[index].predict(self.cases[index].image).mask

    @property
    def classes(self) -> ClassTable:
        """Those of all models."""
        return self.models[0].classes


def evaluate(
    model: Model,
    cases: Sequence[Decoded],
    side: SplitChoice,
    tolerance_px: float,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluated:
    """Predict every image at its original size, and score it.

    Args:
        model: predicts.
        cases: images with masks, not resized.
        side: what these images are, for the record.
        tolerance_px: how far an outline may be off and still be near the true one.
        progress: is told how many of how many are done.

    Raises:
        DataError: an image does not fit the model.
    """
    return evaluate_each([(model, case) for case in cases], side, tolerance_px, progress)


@keeping_freed_memory()
def evaluate_each(
    pairs: Sequence[tuple[Model, Decoded]],
    side: Scored,
    tolerance_px: float,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluated:
    """As `evaluate`, each image by a model of its own; all have the same classes.

    Some are predicted, one after the other; then threads look at these predictions, and so on.
    """
    models, cases = [model for model, _ in pairs], [case for _, case in pairs]
    keeps = sum(case.pixels for case in cases) <= KEPT_PIXELS
    seen: list[_Seen] = []
    thumbnails: dict[str, Thumbnail] = {}
    best_first: list[tuple[float, str]] = []
    masks = []
    classes = models[0].classes
    looking = partial(_look_at, tolerance_px=tolerance_px, edge=edge_px(len(cases)))
    for case, looked in zip(cases, by_turns(looking, _predictions(pairs, progress), _looking_bytes), strict=True):
        seen.append(looked.seen)
        name, score = case.case.name, float(mean_over_classes(iou(looked.seen.counts)).nan_to_num(nan=1.0))
        thumbnails[name] = looked.thumbnail
        heapq.heappush(best_first, (-score, name))
        if len(best_first) > MOST:
            del thumbnails[heapq.heappop(best_first)[1]]
        if keeps:
            masks.append(looked.mask)
    scores = Evaluation(
        classes=tuple(classes.names),
        names=tuple(case.case.name for case in cases),
        counts=torch.stack([one.counts for one in seen]),
        split=side,
        groups=tuple(case.case.group for case in cases),
        boundaries=Boundaries.of([one.boundaries for one in seen], tolerance_px),
        calibration=Calibration(torch.stack([one.calibration for one in seen])),
        mistakes=tuple(one.mistakes for one in seen),
        looks=tuple(one.looks for one in seen),
    )
    return Evaluated(models, cases, scores, thumbnails, masks)


@dataclass(frozen=True)
class _Seen:
    """All that is kept of one image."""

    counts: Int64[Tensor, "K K"]
    calibration: Float64[Tensor, "3 bins"]
    boundaries: ImageBoundaries
    mistakes: Mistakes
    looks: Looks


@dataclass(frozen=True)
class _Predicted:
    """What a model says of an image."""

    case: Decoded
    mask: UInt8[np.ndarray, "H W"]
    confident: Bool[np.ndarray, "H W"]
    counts: Int64[Tensor, "K K"]
    calibration: Float64[Tensor, "3 bins"]
    classes: ClassTable


@dataclass(frozen=True)
class _Looked:
    """What is seen in a prediction, and its pictures."""

    seen: _Seen
    mask: UInt8[np.ndarray, "H W"]
    thumbnail: Thumbnail


def _predictions(
    pairs: Sequence[tuple[Model, Decoded]], progress: Callable[[int, int], None] | None
) -> Iterator[_Predicted]:
    """One after the other; how many of how many are made is told."""
    for number, (model, case) in enumerate(pairs, 1):
        yield _predict(model, case)
        if progress is not None:
            progress(number, len(pairs))


def _predict(model: Model, case: Decoded) -> _Predicted:
    mask, confident = np.empty(case.size, dtype=np.uint8), np.empty(case.size, dtype=bool)
    sums = torch.zeros((3, BINS), dtype=torch.float64)
    for part in compare(model, case):
        confidence, counted = part.band.probabilities.amax(0), part.truth != IGNORE
        sums += tally(confidence[counted], (part.predicted == part.truth)[counted])
        mask[part.band.place] = part.predicted.cpu().numpy()
        confident[part.band.place] = (confidence >= CONFIDENT).cpu().numpy()
    mask = model.cleaned(mask)
    counts = confusion(torch.from_numpy(mask), torch.from_numpy(np.array(case.mask)), len(model.classes))
    return _Predicted(case, mask, confident, counts, sums, model.classes)


def _looking_bytes(predicted: _Predicted) -> int:
    return OUTLINE_PIXEL_BYTES * predicted.mask.size


def _look_at(predicted: _Predicted, tolerance_px: float, edge: int) -> _Looked:
    """Hold a predicted mask against the true one in every way."""
    image, truth = predicted.case.image, np.asarray(predicted.case.mask)
    mask, classes = predicted.mask, len(predicted.classes)
    outlines = compare_boundaries(mask, truth, classes, tolerance_px)
    mistakes = find_mistakes(mask, truth, predicted.confident, classes, predicted.classes.background)
    seen = _Seen(predicted.counts, predicted.calibration, outlines, mistakes, Looks.of(image))
    return _Looked(seen, mask, thumbnail(image, truth, mask, predicted.classes, edge))


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
