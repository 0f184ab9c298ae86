"""Those who watch a run."""

import importlib.util
import io
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import pytest

from pixelwise.training import watch
from pixelwise.training.history import Epoch
from pixelwise.training.watch import PlainLines, Several, TensorBoard, Terminal, Watcher, epoch_line, on_this_terminal

ROW = Epoch(
    epoch=4,
    step=50,
    seconds=12.5,
    train_loss=0.25,
    validation_loss=0.5,
    miou=0.75,
    dice=0.875,
    iou=[0.5, None, 1.0],
    learning_rate=1e-3,
    images_per_second=31.25,
)


class Clockwork:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(watch.time, "monotonic", lambda: self.now)


def test_an_epoch_is_one_line() -> None:
    line = epoch_line(ROW, is_best=True)
    assert line == "epoch   5  loss 0.250  validation mIoU 0.750  Dice 0.875  31.2 images/s  best"
    assert not epoch_line(ROW, is_best=False).endswith("best")


def test_a_score_that_is_undefined_can_be_said() -> None:
    assert "mIoU nan" in epoch_line(replace(ROW, miou=math.nan), is_best=False)


# --- plain lines ---


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "log").open("w+") as stream:
        yield stream


def lines_of(log: TextIO) -> list[str]:
    log.seek(0)
    return log.read().splitlines()


def test_plain_lines_say_sentences_epochs_and_finished_work(log: TextIO) -> None:
    with PlainLines(log) as lines:
        lines.say("two images are ignored")
        for done in range(1, 4):
            lines.work("reading images", done, 3)
        lines.step(1, 0.01, 10.0)
        lines.epoch(ROW, is_best=True)
    assert lines_of(log) == ["two images are ignored", "reading images: 3 of 3", epoch_line(ROW, is_best=True)]


def test_plain_lines_are_not_many(monkeypatch: pytest.MonkeyPatch, log: TextIO) -> None:
    clock = Clockwork(monkeypatch)
    lines = PlainLines(log)
    for step in range(1, 101):
        clock.now += 1.0
        lines.step(step, step / 200, 10.0)
    assert lines_of(log) == [
        "step 31  16% of the run  10.0 images/s",
        "step 62  31% of the run  10.0 images/s",
        "step 93  46% of the run  10.0 images/s",
    ]


@pytest.mark.parametrize("width", [40, 60])
def test_sentences_that_are_longer_than_a_line_hang(width: int) -> None:
    text = "  model.width = 16: in 25 s it sees about 3490 patches, measured here; a wider network would see too few"
    first, *others = watch.hanging(text, width).splitlines()
    assert first.startswith("  model.width = 16: in")
    assert others
    assert all(line.startswith(" " * 6) and line[6] != " " and len(line) <= width for line in others)
    assert " ".join([first, *map(str.strip, others)]) == text
    assert watch.hanging("short  and spaced", width) == "short  and spaced"


def test_long_work_is_heard_of_before_it_ends(monkeypatch: pytest.MonkeyPatch, log: TextIO) -> None:
    clock = Clockwork(monkeypatch)
    lines = PlainLines(log)
    for done in range(1, 5):
        clock.now += 20.0
        lines.work("reading images", done, 4)
    assert lines_of(log) == ["reading images: 2 of 4", "reading images: 4 of 4"]


# --- a terminal ---


def tell_all(watcher: Watcher) -> None:
    with watcher:
        watcher.say("a sentence with [brackets] in data/[a].png")
        for done in range(1, 4):
            watcher.work("reading images", done, 3)
        for step in range(1, 5):
            watcher.step(step, step / 4, 10.0)
        watcher.epoch(ROW, is_best=True)
        watcher.work("predicting test images", 2, 2)
        watcher.work("predicting test images", 2, 2)


def test_the_bar_works_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    tell_all(Terminal())
    said = capsys.readouterr()
    assert said.out == "", "results alone go to standard output"
    words = " ".join(said.err.split())
    assert "a sentence with [brackets] in data/[a].png" in words, "brackets are no markup"
    assert " ".join(epoch_line(ROW, is_best=True).split()) in words


def test_the_bar_shows_score_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    bar, clock = Terminal(), Clockwork(monkeypatch)
    with bar:
        bar.step(1, 0.1, 10.0)
        bar.epoch(ROW, is_best=False)
        clock.now += 30.0
        bar.step(2, 0.4, 12.5)  # 0.3 of the run in 30 s: 0.6 are left
        (task,) = bar._bar.tasks
        assert task.completed == 0.4
        assert task.fields["note"] == "1:00 left  loss 0.250  mIoU 0.750  12.5 images/s"


def test_finished_work_leaves_the_bar() -> None:
    with Terminal() as bar:
        assert isinstance(bar, Terminal)
        bar.work("reading images", 1, 2)
        assert [task.description for task in bar._bar.tasks] == ["reading images"]
        bar.work("reading images", 2, 2)
        assert bar._bar.tasks == []


def test_the_bar_is_gone_after_an_error() -> None:
    bar = Terminal()
    with pytest.raises(ZeroDivisionError), bar:
        _ = 1 / 0
    assert bar._bar.finished or not bar._bar.live.is_started


def test_a_person_gets_a_bar_and_a_log_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Screen())
    with on_this_terminal() as watcher:
        assert isinstance(watcher, Terminal)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(on_this_terminal(), PlainLines)


# --- several, and nobody ---


def test_several_are_told_everything_in_order() -> None:
    class Diary(Watcher):
        def __init__(self) -> None:
            self.lines: list[tuple[object, ...]] = []

        def say(self, text: str) -> None:
            self.lines.append(("say", text))

        def work(self, name: str, done: int, total: int) -> None:
            self.lines.append(("work", name, done, total))

        def step(self, step: int, progress: float, images_per_second: float) -> None:
            self.lines.append(("step", step, progress, images_per_second))

        def epoch(self, epoch: Epoch, is_best: bool) -> None:
            self.lines.append(("epoch", epoch.epoch, is_best))

        def close(self) -> None:
            self.lines.append(("close",))

    alone, one, other = Diary(), Diary(), Diary()
    tell_all(alone)
    tell_all(Several([one, Watcher(), other]))
    assert one.lines == other.lines == alone.lines
    assert one.lines[-1] == ("close",)


def test_a_watcher_hears_and_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    tell_all(Watcher())
    assert capsys.readouterr() == ("", "")


# --- TensorBoard ---


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="the extra tensorboard is not installed")
def test_tensorboard_reads_back_what_was_written(tmp_path: Path) -> None:
    with TensorBoard(tmp_path) as board:
        board.say("nothing to draw")
        board.step(1, 0.1, 10.0)
        board.epoch(ROW, is_best=True)
        board.epoch(replace(ROW, epoch=5, step=60, miou=math.nan, train_loss=0.125), is_best=False)
    read = scalars(tmp_path / "tensorboard")
    assert read["train_loss"] == [(50, 0.25), (60, 0.125)]
    assert read["miou"] == [(50, 0.75)], "an undefined score is left out"
    assert set(read) == {key for key, value in ROW.to_json().items() if isinstance(value, float)}
    json.dumps(ROW.to_json(), allow_nan=False)


def test_the_extra_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch.importlib.util, "find_spec", lambda _name: None)
    assert not watch.tensorboard_is_installed()
