"""A model in eight bits beside the one that it was made of: what it gains, and what it loses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pixelwise.data.cache import Decoded
from pixelwise.inference import int8, predictor
from pixelwise.inference.scoring import count
from pixelwise.metrics import Scores
from pixelwise.models import bundle as bundles
from pixelwise.models.blocks import folded
from pixelwise.timing import timed

MOST_LOST = 0.002
"""An mIoU that falls by more is told as a warning."""


@dataclass(frozen=True)
class Side:
    """One of the two models."""

    scores: Scores
    seconds: float
    """To predict the image of median size."""


@dataclass(frozen=True)
class Quantised:
    """What became of a model."""

    path: Path
    before: Side
    after: Side

    @property
    def lost(self) -> float:
        """How much the mIoU fell; negative is a gain."""
        return self.before.scores.miou - self.after.scores.miou


def quantise(run: Path, shown: Sequence[Decoded], scored: Sequence[Decoded], path: Path) -> Quantised:
    """Write the best model of a run in eight bits, and score both.

    Args:
        run: its folder, or a bundle.
        shown: images to find the range of maps from, of the training split.
        scored: images with masks that it was not trained on.
        path: the .xml file to write.

    Raises:
        BundleError: there is no model.
        ConfigError: NNCF or OpenVINO is not installed.
        DataError: the file cannot be written, or images do not fit the model.
    """
    bundle = bundles.load(run)
    description = bundle.description.model_copy(update={"bfloat16": False})
    plain = predictor.Model(folded(bundle.network()), description, torch.device("cpu"))
    int8.write(plain, [case.image for case in shown], path)
    before, after = (_side(model, scored) for model in (predictor.load(run, "cpu"), int8.load(path)))
    return Quantised(path, before, after)


def _side(model: predictor.Model, scored: Sequence[Decoded]) -> Side:
    counts, _ = count(model, scored)
    middle = sorted(scored, key=lambda case: case.pixels)[len(scored) // 2]
    timing = timed(lambda: model.predict(middle.image), model.device, at_least=1.0)
    return Side(Scores(tuple(model.classes.names), ("validation",), counts[None]), timing.median_seconds)
