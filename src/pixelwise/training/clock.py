"""How far a run is: by steps, by the time budget, or by both."""

import time
from collections.abc import Callable

SAFETY = 1.15
"""The end is planned so much earlier than measured, since measurements vary."""


class Clock:
    """The progress of one run.

    Args:
        agreed: the largest of a number over all processes, so that they all stop at the same step.
        total_steps: steps after which the run is over; none leaves the end to the budget.
        budget_seconds: for everything, from reading to report; none is without limit.
        set_aside_seconds: what reading and planning took, and comparing outlines and writing the report will take.
        trained_seconds: what training took before it was interrupted.
        pixels_after: how many pixels will be predicted after training, as a multiple of what a process validates.
        stopped: someone asked for the end.
    """

    def __init__(
        self,
        agreed: Callable[[float], float],
        total_steps: int | None,
        budget_seconds: float | None,
        *,
        set_aside_seconds: float,
        trained_seconds: float,
        pixels_after: float,
        stopped: Callable[[], bool],
    ) -> None:
        self._agreed = agreed
        self._total_steps = total_steps
        self._budget = budget_seconds
        self._set_aside = set_aside_seconds
        self._pixels_after = pixels_after
        self._stopped = stopped
        self._began = time.monotonic() - trained_seconds
        self._validation_seconds = self._saving_seconds = 0.0

    def trained(self) -> float:
        """Seconds of training and validation, pauses left out."""
        return time.monotonic() - self._began

    def note_validation(self, seconds: float) -> None:
        """Remember how long validation took: the next will take as long, and by pixel what comes after."""
        self._validation_seconds = max(seconds, 0.8 * self._validation_seconds)

    def note_saving(self, seconds: float) -> None:
        """Remember how long saving took: the last time will take as long."""
        self._saving_seconds = max(seconds, 0.8 * self._saving_seconds)

    def progress(self, step: int) -> float:
        """Share of the run that is over, 0 to 1, the same in all processes; 1 as soon as someone asked for the end."""
        by_steps = step / self._total_steps if self._total_steps is not None else 0.0
        by_time = self._of_budget(self._budget) if self._budget is not None else 0.0
        wish = 1.0 if self._stopped() else 0.0
        return self._agreed(min(1.0, max(by_steps, by_time, wish)))

    def predicting_seconds(self, pixels: float) -> float:
        """How long it takes to predict so many pixels, as a multiple of what a process validates."""
        return self._validation_seconds * pixels

    def _of_budget(self, budget: float) -> float:
        reserve = SAFETY * (self.predicting_seconds(1.0 + self._pixels_after) + self._saving_seconds)
        return self.trained() / max(budget - self._set_aside - reserve, 1e-3)
