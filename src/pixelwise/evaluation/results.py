"""What an evaluation leaves in a folder: scores.json, report.html and, for a run, its learning curves."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelwise.config import FEWEST_UNITS
from pixelwise.data.dataset import Dataset
from pixelwise.evaluation import figures, report
from pixelwise.evaluation.evaluate import Evaluated, examples
from pixelwise.evaluation.forgetting import Forgotten
from pixelwise.evaluation.scores import Evaluation
from pixelwise.evaluation.sides import Seen
from pixelwise.facts import RunFacts
from pixelwise.files import make_folder, write_json


@dataclass(frozen=True)
class Background:
    """What a report tells besides scores."""

    command: str
    """What to type to get it again; of a run that went on, a line for each time."""
    facts: dict[str, str]
    seen: Seen
    """How many of the scored images were trained on."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Rows of history.jsonl."""
    decisions: list[dict[str, Any]] = field(default_factory=list)
    """Of plan.json."""
    findings: list[dict[str, Any]] = field(default_factory=list)
    """Of the check of the data."""
    forgotten: Forgotten | None = None
    """What the model still knows of what it started from."""
    model: str = ""
    """Absolute path of the run or bundle that was scored; empty for a model without a file."""


def facts(dataset: Dataset, said: RunFacts | None, seen: int | None) -> dict[str, str]:
    """What one has to know of the data, and of the run, to believe or repeat the scores.

    Args:
        dataset: whose images were scored.
        said: what is known of the run; none for other data than its own.
        seen: how many of the scored images were trained on; none if that is not known.
    """
    found = {
        "data": str(dataset.root),
        "layout": dataset.layout,
        "masks": dataset.encoding.description,
        "scored images that were trained on": "not known" if seen is None else str(seen or "none"),
    }
    if said is None:
        return found
    more = {name: text for name, text in said.texts().items() if text not in found.values()}  # nothing twice
    return found | more | {f"{name} version": text for name, text in said.versions.items()}


def write(folder: Path, evaluated: Evaluated, background: Background) -> None:
    """Write the scores, the report, and the learning curves if there is a history.

    Raises:
        DataError: a file cannot be written.
    """
    make_folder(folder)
    if background.history:
        figures.save_learning_curves(folder / "curves.png", background.history)
    caution = background.seen.caution()
    scores = {
        "model": background.model if background.model != str(folder.resolve()) else "",
        "trained_on": background.seen.count,
        "caution": caution,
        **evaluated.scores.summary(),
    }
    write_json(folder / "scores.json", scores)
    content = report.Content(
        title=folder.resolve().name,
        command=background.command,
        scores=scores,
        split_name=evaluated.scores.split,
        classes=evaluated.classes,
        history=background.history,
        decisions=background.decisions,
        findings=background.findings,
        caution=caution,
        forgotten=background.forgotten,
        facts=background.facts,
        examples=examples(evaluated),
        thumbnails=evaluated.thumbnails,
    )
    report.write(folder / "report.html", content)


def score_lines(scores: Evaluation) -> list[str]:
    """Headline with its interval or why it has none, and scores per class, a line each."""
    width = max(len(name) for name in scores.classes)
    rows = zip(scores.classes, scores.iou.tolist(), scores.dice.tolist(), strict=True)
    headline = (
        f"mIoU {score_text(scores.miou)}{_spread(scores)}  Dice {score_text(scores.mean_dice)}  "
        f"pixel accuracy {score_text(scores.accuracy)}  pooled over {_scored(scores)}"
    )
    return [
        headline,
        *(f"  {name:<{width}}  IoU {score_text(iou)}  Dice {score_text(dice)}" for name, iou, dice in rows),
    ]


def forgotten_lines(forgotten: Forgotten) -> list[str]:
    """What a model still knows, a line for each class, and what to do about it."""
    width = max((len(row.name) for row in forgotten.classes), default=0)
    images = f"{forgotten.images} {forgotten.side} image{'s' * (forgotten.images != 1)}"
    title = f"what it still knows of {images} of {Path(forgotten.source).name}:"
    rows = [
        f"  {row.name:<{width}}  IoU {_shown(row.before)} before, {_shown(row.after)} now" for row in forgotten.classes
    ]
    return [title, *(rows or ["  no class is known to both"]), *([forgotten.hint] if forgotten.hint else [])]


def _shown(value: float | None) -> str:
    return score_text(math.nan if value is None else value)


def _spread(scores: Evaluation) -> str:
    """The interval, or why there is none."""
    ends, units = scores.interval(), len(set(scores.units))
    if not math.isnan(ends.low):
        return f" (95 %: {ends.low:.3f} to {ends.high:.3f})"
    if units >= FEWEST_UNITS:
        return ""
    noun = f"{'group' if any(scores.groups) else 'image'}{'s' * (units != 1)}"
    return f" (too few images for an interval: {units} {noun} of at least {FEWEST_UNITS})"


def _scored(scores: Evaluation) -> str:
    """How many images of which side."""
    count = len(scores.names)
    if count == 1:
        return "1 image" if scores.split == "all" else f"1 {scores.split} image"
    return f"all {count} images" if scores.split == "all" else f"{count} {scores.split} images"


def score_text(value: float) -> str:
    """A score with three decimals; a dash where it is not defined."""
    return "-" if math.isnan(value) else f"{value:.3f}"
