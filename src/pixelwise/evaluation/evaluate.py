"""From a model and images whose masks are known to scores, examples and a report."""

import math
from collections.abc import Callable, Sequence

from pixelwise.data.cache import Decoded
from pixelwise.evaluation.figures import to_display
from pixelwise.evaluation.report import Example
from pixelwise.inference.predictor import Model
from pixelwise.inference.scoring import count
from pixelwise.metrics import Scores

EXAMPLES_PER_RANK = 3
"""So many of the worst, median and best images are shown."""


def score(model: Model, cases: Sequence[Decoded], progress: Callable[[int, int], None] | None = None) -> Scores:
    """Counts of every image, at its original size.

    Args:
        model: predicts.
        cases: images with masks, not resized.
        progress: is told how many of how many are done.
    """
    counts, _ = count(model, cases, progress)
    return Scores(classes=tuple(model.classes.names), names=tuple(case.case.name for case in cases), counts=counts)


def examples(model: Model, cases: Sequence[Decoded], scores: Scores) -> tuple[Example, ...]:
    """The worst, median and best images with their predictions."""
    mious = scores.image_miou.tolist()
    order = [index for index in scores.worst_first() if not math.isnan(mious[index])]
    chosen = _ranks(order)
    return tuple(
        Example(
            name=cases[index].case.name,
            rank=rank,
            image=to_display(cases[index].image[:]),
            truth=cases[index].mask[:],
            prediction=model.predict(cases[index].image[:]).mask,
            miou=mious[index],
        )
        for rank, index in chosen
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
