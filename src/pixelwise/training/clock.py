"""How far a run is: by steps, by the time budget, or by both."""

import time

from lightning_fabric import Fabric

REPORT_SECONDS = 5.0
"""Set aside for writing the report and leaving."""

SAFETY = 1.15
"""The end is planned so much earlier than measured, since measurements vary."""


class Clock:
    """The progress of one run.

    Args:
        fabric: all processes follow the clock of the first.
        total_steps: steps after which the run is over.
        budget_seconds: for everything, from reading to report; none is without limit.
        prepared_seconds: what reading and planning took.
        trained_seconds: what training took before it was interrupted.
        images_after: how many pixels will be predicted after training, as a multiple of the validation split.
    """

    def __init__(
        self,
        fabric: Fabric,
        total_steps: int,
        budget_seconds: float | None,
        prepared_seconds: float,
        trained_seconds: float,
        images_after: float,
    ) -> None:
        self._fabric = fabric
        self._total_steps = total_steps
        self._budget = budget_seconds
        self._prepared = prepared_seconds
        self._images_after = images_after
        self._began = time.monotonic() - trained_seconds
        self._validation_seconds = 0.0

    def trained(self) -> float:
        """Seconds of training and validation, pauses left out."""
        return time.monotonic() - self._began

    def note_validation(self, seconds: float) -> None:
        """Remember how long a validation took: the next one and the final evaluation take as long per image."""
        self._validation_seconds = max(seconds, 0.8 * self._validation_seconds)

    def progress(self, step: int) -> float:
        """Share of the run that is over, 0 to 1, the same in all processes."""
        by_steps = step / self._total_steps
        if self._budget is None:
            return by_steps
        return min(1.0, max(by_steps, self._of_budget(self._budget)))

    def is_over(self, step: int) -> bool:
        """No step is left, or no time for one."""
        return self.progress(step) >= 1.0

    def _of_budget(self, budget: float) -> float:
        reserve = SAFETY * self._validation_seconds * (1.0 + self._images_after) + REPORT_SECONDS
        share = self.trained() / max(budget - self._prepared - reserve, 1e-3)
        return float(self._fabric.broadcast(share)) if self._fabric.world_size > 1 else share
