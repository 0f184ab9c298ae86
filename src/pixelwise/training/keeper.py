"""What a run writes while it goes on: its best model, its checkpoint and its history."""

import copy
import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any

from pixelwise.files import write_atomically
from pixelwise.models import bundle as bundles
from pixelwise.training import checkpoint
from pixelwise.training.clock import Clock
from pixelwise.training.folder import Files
from pixelwise.training.history import Epoch, History
from pixelwise.training.update import State, Update
from pixelwise.training.watch import Watcher


class Beside(AbstractContextManager["Beside"]):
    """Does one piece of work after the other in a thread, and waits for the last one at the end.

    What a piece raises comes out where the next one is given, or at the end.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def __call__(self, work: Callable[[], None]) -> None:
        """Begin with it as soon as the one before is done."""
        self.wait()
        self._last = self._thread.submit(work)

    def wait(self) -> None:
        """Until all is done."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Whatever ended the work, nothing is left half done; an error of the work itself is the one to tell."""
        self._thread.shutdown()
        if error is None:
            self.wait()


class Keeper:
    """Writes after every epoch and every setback, and tells the watcher.

    Args:
        files: of the run.
        update: whose averaged weights are the model.
        description: of the model.
        clock: says how long training has taken, and is told how long writing takes.
        watcher: told of every epoch.
        beside: takes what is written while training goes on, where the processor is free for it; none writes at once.
    """

    def __init__(
        self,
        files: Files,
        update: Update,
        description: bundles.Description,
        clock: Clock,
        watcher: Watcher,
        beside: Beside | None = None,
    ) -> None:
        self._files, self._update, self._description = files, update, description
        self._clock, self._watcher, self._beside = clock, watcher, beside

    def begin(self, history: History, state: State) -> None:
        """A run can be resumed from its first moment on."""
        checkpoint.save(self._files.last, state, history, 0.0)

    def after_epoch(self, history: History, is_best: bool, state: State) -> None:
        """Write the model if it is the best so far, the checkpoint and the history."""
        row = history.epochs[-1]
        best = self._bundle(row) if is_best else None
        # as it is now: it goes on while it is written
        work = partial(self._write, best, state, copy.deepcopy(history), self._clock.trained())
        if self._beside is not None:
            self._beside(work)
        else:
            work()
        self._watcher.epoch(row, is_best)
        for name, warning in row.warnings.items():
            if not name.startswith("setback"):  # told when it happened
                self._watcher.say(f"warning: {warning}")

    def after_setback(self, history: History, state: State) -> None:
        """Write the checkpoint again, with the lower learning rate, and tell why."""
        if self._beside is not None:
            self._beside.wait()
        checkpoint.save(self._files.last, state, history, self._clock.trained())
        self._watcher.say(f"warning: {history.setbacks[-1]}")

    def _bundle(self, row: Epoch) -> bundles.Bundle:
        summary: dict[str, Any] = {
            "epoch": row.epoch,
            "step": row.step,
            "seconds": round(row.seconds, 1),
            "validation_miou": row.to_json()["miou"],
        }
        training = {**self._description.training, **summary}
        said = self._description.model_copy(update={"training": training})
        return bundles.Bundle(said, bundles.state_on_cpu(self._update.average))

    def _write(self, best: bundles.Bundle | None, state: State, history: History, seconds: float) -> None:
        began = time.monotonic()
        if best is not None:
            bundles.save(best, self._files.best)
        checkpoint.save(self._files.last, state, history, seconds)
        lines = [json.dumps(epoch.to_json(), allow_nan=False) for epoch in history.epochs]
        write_atomically(self._files.history, ("\n".join(lines) + "\n").encode())
        self._clock.note_saving(time.monotonic() - began)
