"""What became of the trials of a search: the file tune.json."""

from typing import Any

from pydantic import Field

from pixelwise.config import Section


class TrialRow(Section):
    """What became of one trial."""

    number: int
    state: str
    """complete, pruned, failed, running or waiting."""
    miou: float | None = None
    """Best pooled mIoU on the validation split: of the whole run, or of the part that was trained."""
    seconds: float | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    """What was searched, by dotted name."""
    rungs: dict[int, float] = Field(default_factory=dict)
    """mIoU at the shares of its time where it was held against the others."""
    why: str = ""
    """Why it failed."""
    is_plan: bool = False
    """It has the settings of the plan."""
    folder: str = ""
    """Where its run lies, on the machine that trained it."""


class Found(Section):
    """What a search has led to."""

    trials: tuple[TrialRow, ...]
    best: TrialRow
    plan: TrialRow | None
    """The trial with the plan's settings, if it came to its end."""
    importances: dict[str, float]
    """Share of the differences between trials that each setting explains, summing to 1; empty for few trials."""


class Tuned(Section):
    """A search, and what was made of it."""

    data: str
    trial_seconds: float
    """That each trial had."""
    found: Found
    verdict: str = ""
    """The winner against the plan, both trained for as long as a trial, on the test split."""
    is_better: bool | None = None
    """Whether that is clear; none where it could not be seen."""
    final: str = ""
    """Folder of the run with the winner's settings and the time that was left; empty for none."""
    final_settings: dict[str, Any] = Field(default_factory=dict)
    """What differs from the plan there."""
