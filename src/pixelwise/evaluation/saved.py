"""The files of a finished run, read back; a damaged one is an error that names it."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, FiniteFloat, TypeAdapter

from pixelwise.data.dataset import Dataset
from pixelwise.data.finding import Severity
from pixelwise.data.split import Split, restore
from pixelwise.evaluation.forgetting import Forgotten
from pixelwise.evaluation.scores import Evaluation
from pixelwise.facts import RESTORE, checked
from pixelwise.files import read_json

EVALUATE_AGAIN = "Write it again: `pixelwise evaluate RUN --out RUN`."


class Decision(BaseModel):
    """One row of plan.json: what was chosen, and why."""

    setting: str
    value: Any
    because: str


class _ClassScore(BaseModel):
    name: str
    iou: FiniteFloat | None


class _Pooled(BaseModel):
    miou: FiniteFloat | None
    dice: FiniteFloat | None
    pixel_accuracy: FiniteFloat | None
    per_class: list[_ClassScore]


class _ImageMean(BaseModel):
    miou: FiniteFloat | None
    dice: FiniteFloat | None


class _Image(BaseModel):
    name: str


class Headline(BaseModel):
    """What scores.json says in a few numbers; counts are not looked at."""

    pooled: _Pooled
    image_mean: _ImageMean
    per_image: list[_Image]
    model: str = ""
    """The run or bundle that was scored, as an absolute path; empty where it lies in the folder of the scores."""
    trained_on: int | None = None
    """How many of the images the model has seen in training; none where it is not known."""
    caution: str = ""
    """Why the scores may be too good."""


class _Finding(BaseModel):
    severity: Severity
    what: str
    files: list[str]
    cause: str
    remedy: str


class _Plan(BaseModel):
    decisions: list[Decision]


class _Row(BaseModel):
    """What the curves need of a row of history.jsonl; the rest is kept as it is."""

    epoch: int
    train_loss: float | None = None
    validation_loss: float | None = None
    miou: float | None = None
    dice: float | None = None
    learning_rate: float | None = None
    warnings: dict[str, str] = {}


def read_decisions(path: Path) -> list[dict[str, Any]]:
    """The decisions in plan.json.

    Raises:
        DataError: the file is missing or damaged.
    """
    plan = checked(lambda: _Plan.model_validate(read_json(path)), path, RESTORE)
    return [decision.model_dump() for decision in plan.decisions]


def read_findings(path: Path) -> list[dict[str, Any]]:
    """What the check of the data found before training; nothing where there is no such file.

    Raises:
        DataError: the file is damaged.
    """
    if not path.exists():
        return []
    read = TypeAdapter(list[_Finding])
    findings = checked(lambda: read.validate_python(read_json(path)), path, "Delete it: it only fills the report.")
    return [finding.model_dump() for finding in findings]


def read_forgotten(path: Path) -> Forgotten | None:
    """What a run still knows of what it started from; none where there is no such file.

    Raises:
        DataError: the file is damaged.
    """
    if not path.exists():
        return None
    return checked(
        lambda: Forgotten.model_validate(read_json(path)), path, "Delete it: it only fills a part of the report."
    )


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of history.jsonl; none where there is no such file.

    Raises:
        DataError: the file is damaged.
    """
    if not path.exists():
        return []

    def rows() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [line | _Row.model_validate(line).model_dump() for line in lines]

    return checked(rows, path, "Delete the damaged line: only the learning curves are drawn from it.")


def read_scores(path: Path) -> Evaluation:
    """The scores in scores.json, computed again from its counts; outlines and calibration stay in the file.

    Raises:
        DataError: the file is missing or damaged.
    """
    return checked(lambda: Evaluation.from_summary(read_json(path)), path, EVALUATE_AGAIN)


def read_headline(path: Path) -> Headline:
    """The numbers that stand in scores.json, as they are.

    Raises:
        DataError: the file is missing or damaged.
    """
    return checked(lambda: Headline.model_validate(read_json(path)), path, EVALUATE_AGAIN)


def read_split(path: Path, dataset: Dataset) -> Split:
    """The split of a run.

    Raises:
        DataError: the file is missing or damaged, or does not fit the data.
    """
    return checked(lambda: restore(dataset, path), path, RESTORE)
