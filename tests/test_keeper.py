"""What a run writes while it goes on."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning_fabric import Fabric

from pixelwise.classes import ClassTable
from pixelwise.config import ModelConfig, Preprocessing, TrainingConfig
from pixelwise.errors import DataError
from pixelwise.models import bundle, unet
from pixelwise.training.clock import Clock
from pixelwise.training.folder import Files
from pixelwise.training.history import Epoch, History
from pixelwise.training.keeper import Beside, Keeper
from pixelwise.training.update import Update
from pixelwise.training.watch import Watcher


def test_pieces_are_done_one_after_the_other_and_all_before_the_end() -> None:
    done: list[int] = []
    first_may_end = threading.Event()

    def first() -> None:
        first_may_end.wait(10)
        done.append(1)

    with Beside() as beside:
        beside(first)
        assert not done, "nobody waits for it"
        first_may_end.set()
        beside(lambda: done.append(2))
        beside(lambda: done.append(3))
    assert done == [1, 2, 3]


def fail() -> None:
    raise DataError("The disk is full.")


def test_what_a_piece_raises_comes_out_with_the_next_one() -> None:
    beside, done = Beside(), list[int]()
    beside(fail)
    with pytest.raises(DataError, match="full"):
        beside(lambda: done.append(2))
    assert not done


def test_what_the_last_piece_raises_comes_out_at_the_end() -> None:
    with pytest.raises(DataError, match="full"), Beside() as beside:
        beside(fail)


def test_an_error_of_the_work_itself_is_the_one_to_tell() -> None:
    def interrupted() -> None:
        with Beside() as beside:
            beside(fail)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


class Late(Beside):
    """Does nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Callable[[], None]] = []

    def __call__(self, work: Callable[[], None]) -> None:
        self.given.append(work)


def epoch(number: int) -> Epoch:
    return Epoch(
        epoch=number, step=number + 1, seconds=1.0, train_loss=1.0, validation_loss=1.0, miou=0.5, dice=0.5,
        iou=[0.5, 0.5], learning_rate=0.1, images_per_second=1.0,
    )  # fmt: skip


def small_update() -> tuple[Update, bundle.Description]:
    model = ModelConfig(width=2, depth=1)
    description = bundle.Description(
        model=model, patch_size=(16, 16), classes=ClassTable.from_names(["ground", "disc"]),
        preprocessing=Preprocessing(channels=1, normalisation="none", mean=(0.0,), deviation=(1.0,)),
    )  # fmt: skip
    return Update(Fabric(accelerator="cpu", devices=1), unet.build(model, 1, 2), TrainingConfig()), description


def clock(budget: float | None = None) -> Clock:
    return Clock(float, 10, budget, set_aside_seconds=0.0, trained_seconds=0.0, pixels_after=0.0, stopped=bool)


def test_the_time_of_writing_is_told_wherever_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written beside training is written once more when the budget is over."""
    update, description = small_update()
    told = clock(budget=1000.0)
    save = bundle.save
    monkeypatch.setattr(bundle, "save", lambda *parts: (time.sleep(0.3), save(*parts)))
    history = History(step=1)
    with Beside() as beside:
        keeper = Keeper(Files(tmp_path), update, description, told, Watcher(), beside)
        keeper.after_epoch(history, history.add(epoch(0)), update.state())
    assert told._saving_seconds >= 0.3


def test_what_is_written_late_is_the_state_of_then(tmp_path: Path) -> None:
    """The next epoch changes weights and history while this one is written."""
    update, description = small_update()
    files, late, history = Files(tmp_path), Late(), History(step=1)
    keeper = Keeper(files, update, description, clock(), Watcher(), late)
    weight = next(iter(update.average.parameters()))
    before = weight.clone()
    keeper.after_epoch(history, history.add(epoch(0)), update.state())
    assert not files.best.exists()
    history.add(epoch(1))
    weight.add_(1.0)
    late.given[0]()
    assert len(files.history.read_text().splitlines()) == 1
    assert json.loads(files.history.read_text())["epoch"] == 0
    saved = bundle.load(files.best)
    assert saved.description.training["epoch"] == 0
    name = next(iter(dict(update.average.named_parameters())))
    assert (saved.weights[name] == before).all()
