"""Those who watch a run: a progress bar on a terminal, plain lines elsewhere, TensorBoard where it is installed."""

import importlib.util
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from pixelwise.training.history import Epoch

if TYPE_CHECKING:
    from rich.progress import TaskID

LINE_SECONDS = 30.0
"""Plain lines are written at most so often between epochs."""


class Watcher:
    """Hears what a run does, and does nothing; others override what they care for."""

    def __enter__(self) -> "Watcher":  # noqa: PYI034  beartype does not know Self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def say(self, text: str) -> None:
        """A sentence for the user."""

    def work(self, name: str, done: int, total: int) -> None:
        """`done` of `total` parts of some preparation are done."""

    def step(self, step: int, progress: float, images_per_second: float) -> None:
        """An update was made; `progress` of the run, 0 to 1, is over."""

    def epoch(self, epoch: Epoch, is_best: bool) -> None:
        """A validation was made."""

    def close(self) -> None:
        """The run is over."""


class Several(Watcher):
    """Tells several watchers."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers

    def say(self, text: str) -> None:
        """See `Watcher`."""
        self._tell(lambda watcher: watcher.say(text))

    def work(self, name: str, done: int, total: int) -> None:
        """See `Watcher`."""
        self._tell(lambda watcher: watcher.work(name, done, total))

    def step(self, step: int, progress: float, images_per_second: float) -> None:
        """See `Watcher`."""
        self._tell(lambda watcher: watcher.step(step, progress, images_per_second))

    def epoch(self, epoch: Epoch, is_best: bool) -> None:
        """See `Watcher`."""
        self._tell(lambda watcher: watcher.epoch(epoch, is_best))

    def close(self) -> None:
        """See `Watcher`."""
        self._tell(lambda watcher: watcher.close())

    def _tell(self, message: Callable[[Watcher], None]) -> None:
        for watcher in self._watchers:
            message(watcher)


def epoch_line(epoch: Epoch, is_best: bool) -> str:
    """A validation in one line."""
    return (
        f"epoch {epoch.epoch + 1:>3}  loss {epoch.train_loss:.3f}  validation mIoU {epoch.miou:.3f}  "
        f"Dice {epoch.dice:.3f}  {epoch.images_per_second:.1f} images/s{'  best' if is_best else ''}"
    )


class PlainLines(Watcher):
    """One line per event, for logs."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """See `Watcher`."""
        print(text, file=self._stream, flush=True)
        self._last = time.monotonic()

    def work(self, name: str, done: int, total: int) -> None:
        """See `Watcher`."""
        if done == total or time.monotonic() - self._last > LINE_SECONDS:
            self.say(f"{name}: {done} of {total}")

    def step(self, step: int, progress: float, images_per_second: float) -> None:
        """See `Watcher`."""
        if time.monotonic() - self._last > LINE_SECONDS:
            self.say(f"step {step}  {progress:.0%} of the run  {images_per_second:.1f} images/s")

    def epoch(self, epoch: Epoch, is_best: bool) -> None:
        """See `Watcher`."""
        self.say(epoch_line(epoch, is_best))


class Terminal(Watcher):
    """A progress bar with loss, mIoU, images per second and the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[note]}"))
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._score = ""
        self._began: tuple[float, float] | None = None
        self._bar.start()

    def say(self, text: str) -> None:
        """See `Watcher`."""
        lines = (hanging(line, self._console.width) for line in text.splitlines())
        self._console.print("\n".join(lines), markup=False)

    def work(self, name: str, done: int, total: int) -> None:
        """See `Watcher`."""
        task = self._task(name)
        self._bar.update(task, completed=done, total=total, note=f"{done}/{total}")
        if done >= total:
            self._bar.remove_task(self._tasks.pop(name))

    def step(self, step: int, progress: float, images_per_second: float) -> None:  # noqa: ARG002  no room on the bar
        """See `Watcher`."""
        # a narrow terminal cuts off what comes last
        note = f"{self._time_left(progress)}{self._score}{images_per_second:.1f} images/s"
        self._bar.update(self._task("training"), completed=progress, total=1.0, note=note)

    def epoch(self, epoch: Epoch, is_best: bool) -> None:
        """See `Watcher`."""
        self._score = f"loss {epoch.train_loss:.3f}  mIoU {epoch.miou:.3f}  "
        self.say(epoch_line(epoch, is_best))

    def close(self) -> None:
        """See `Watcher`."""
        self._bar.stop()

    def _task(self, name: str) -> "TaskID":
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=1.0, note="")
        return self._tasks[name]

    def _time_left(self, progress: float) -> str:
        now = time.monotonic()
        if self._began is None:
            self._began = (now, progress)
        began, at = self._began
        if progress - at < 1e-3:
            return ""
        seconds = round((now - began) / (progress - at) * (1.0 - progress))
        return f"{seconds // 60}:{seconds % 60:02d} left  "


def hanging(line: str, width: int) -> str:
    """A line as several that fit, of which the further ones are indented."""
    inner = " " * (4 + len(line) - len(line.lstrip()))
    return textwrap.fill(line, width, subsequent_indent=inner, break_long_words=False, break_on_hyphens=False)


class TensorBoard(Watcher):
    """Scalars of every epoch for TensorBoard, in the run's folder."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def epoch(self, epoch: Epoch, is_best: bool) -> None:  # noqa: ARG002  every epoch is drawn
        """See `Watcher`."""
        for name, value in epoch.to_json().items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, epoch.step)

    def close(self) -> None:
        """See `Watcher`."""
        self._writer.close()


def on_this_terminal() -> Watcher:
    """A progress bar if a person looks on, plain lines if not."""
    return Terminal() if sys.stderr.isatty() else PlainLines()


def tensorboard_is_installed() -> bool:
    """Whether the extra `tensorboard` is there."""
    return importlib.util.find_spec("tensorboard") is not None
