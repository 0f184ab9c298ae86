"""What goes wrong in training is noticed, named, and mended where that is safe."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import QUICK, draw_discs
from torch import Tensor

import pixelwise
from pixelwise import losses
from pixelwise.errors import TrainingError
from pixelwise.training.health import Vitals, failure, signs
from pixelwise.training.update import Update
from pixelwise.training.watch import Watcher


def vitals(**changes: Any) -> Vitals:
    well: dict[str, Any] = {
        "train_losses": [1.0, 0.8, 0.6, 0.5, 0.4],
        "validation_losses": [1.0, 0.8, 0.7, 0.6, 0.6],
        "true_classes": 3,
        "predicted_classes": 3,
        "guess_loss": 1.0,
        "waiting_share": 0.05,
        "workers": 0,
    }
    return Vitals(**(well | changes))


@pytest.mark.parametrize(
    ("losses_before", "loss", "fails"),
    [
        ([], math.nan, True),
        ([0.5], math.inf, True),
        ([1.2, 0.5, 0.4], 1.7, True),  # more than three times what is usual, and worse than ever
        ([1.2, 0.3, 0.3], 1.0, False),  # a bad epoch, but better than at the start
        ([1.2, 1.0, 1.0], 1.3, False),
        ([], 50.0, False),  # there is nothing to compare with
        ([0.1], 0.4, False),  # one lucky epoch
        ([0.0, 0.0, 0.0, 0.4], 0.5, False),  # epochs in which nothing counted
    ],
)
def test_weights_are_of_no_use_after_such_a_loss(losses_before: list[float], loss: float, fails: bool) -> None:
    assert (failure(losses_before, loss, finite=True) is not None) == fails


def test_weights_that_are_not_finite_are_of_no_use_whatever_the_loss() -> None:
    assert failure([0.5], 0.4, finite=False) is not None


def test_a_gpu_that_holds_the_images_is_not_told_to_read_faster() -> None:
    assert "starving" in signs(vitals(waiting_share=0.6))
    assert "starving" not in signs(vitals(waiting_share=0.6, is_resident=True))


def test_a_healthy_run_shows_no_signs() -> None:
    assert signs(vitals()) == {}


@pytest.mark.parametrize(
    ("name", "changes", "remedy"),
    [
        ("collapse", {"predicted_classes": 1}, "loss.class_weights=balanced"),
        ("standstill", {"train_losses": [1.0, 1.01, 0.99, 1.0, 1.0], "validation_losses": [0.9] * 5}, "learning_rate"),
        ("starving", {"waiting_share": 0.6, "workers": 4}, "data.workers=8"),
        ("overfitting", {"validation_losses": [1.0, 0.6, 0.7, 0.9, 1.0]}, "augment.strength"),
    ],
)
def test_each_sign_is_named_with_a_remedy(name: str, changes: dict[str, Any], remedy: str) -> None:
    found = signs(vitals(**changes))
    assert list(found) == [name]
    assert remedy in found[name]


@pytest.mark.parametrize(
    "changes",
    [
        {"predicted_classes": 1, "train_losses": [1.0, 0.9], "validation_losses": [1.0, 0.9]},  # too early to say
        {"predicted_classes": 1, "true_classes": 1},  # there is only one
        {"train_losses": [1.0, 1.0, 1.0], "validation_losses": [0.9] * 3},  # too early
        {"train_losses": [0.2] * 5, "validation_losses": [0.1] * 5},  # fine-tuned from what was good already
        {"validation_losses": [math.nan] * 5},  # nothing counts
        {"validation_losses": [0.5, 0.6, 0.7, 0.7, 0.7]},  # not much
    ],
)
def test_what_may_still_be_well_is_no_sign(changes: dict[str, Any]) -> None:
    assert signs(vitals(**changes)) == {}


# --- in runs ---------------------------------------------------------------------------------------------------------


class Hearing(Watcher):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def spoiled(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[int, Tensor], Tensor]) -> None:
    """Let every loss of training pass through a function of its number."""
    real, numbers = losses.build, itertools.count(1)

    def build(*arguments: Any) -> losses.Loss:
        loss = real(*arguments)
        return lambda logits, mask, weight: spoil(next(numbers), loss(logits, mask, weight))

    # where training makes its loss; measuring the machine makes one too
    monkeypatch.setattr("pixelwise.training.run.losses", SimpleNamespace(**{**vars(losses), "build": build}))


@pytest.mark.slow
def test_a_run_that_fails_once_goes_back_and_on_at_a_lower_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled(monkeypatch, lambda number, loss: loss * math.nan if number == 6 else loss)  # in the second epoch of four
    config = pixelwise.settings(None, [*QUICK, "training.epochs=4", "training.schedule=constant"])
    hearing = Hearing()
    folder = pixelwise.train(draw_discs(tmp_path / "discs"), tmp_path / "run", config=config, watcher=hearing).folder
    assert [row["step"] for row in rows(folder)] == [4, 8, 12, 16]
    rates = [row["learning_rate"] for row in rows(folder)]
    assert rates[1:] == pytest.approx([0.3 * rates[0]] * 3)
    (setback,) = rows(folder)[1]["warnings"].values()
    assert "The loss became nan" in setback
    assert "went back to step 4" in setback
    assert any(setback in text for text in hearing.said)
    assert all(torch.isfinite(tensor).all() for tensor in pixelwise.load(folder).network.state_dict().values())


@pytest.mark.slow
def test_weights_that_the_last_step_of_an_epoch_spoils_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is measured before the step; an infinite gradient makes all weights NaN after it."""
    real, numbers = Update.step, itertools.count(1)

    def spoiling(self: Update, step: int, progress: float) -> None:
        real(self, step, progress)
        if next(numbers) == 8:  # the last one of the second epoch
            next(iter(self.plain.parameters())).data.fill_(math.nan)

    monkeypatch.setattr(Update, "step", spoiling)
    config = pixelwise.settings(None, [*QUICK, "training.epochs=4"])
    folder = pixelwise.train(draw_discs(tmp_path / "discs"), tmp_path / "run", config=config).folder
    assert "Weights became NaN" in rows(folder)[1]["warnings"]["setback 1"]
    assert all(torch.isfinite(tensor).all() for tensor in pixelwise.load(folder).network.state_dict().values())


@pytest.mark.slow
def test_a_run_that_fails_in_its_first_epoch_goes_back_to_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled(monkeypatch, lambda number, loss: loss * math.inf if number == 2 else loss)
    folder = pixelwise.train(
        draw_discs(tmp_path / "discs"), tmp_path / "run", config=pixelwise.settings(None, QUICK)
    ).folder
    assert "went back to step 0" in rows(folder)[0]["warnings"]["setback 1"]
    assert [row["step"] for row in rows(folder)] == [4, 8]


@pytest.mark.slow
def test_a_run_that_always_fails_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoiled(monkeypatch, lambda _number, loss: loss * math.nan)
    with pytest.raises(TrainingError, match="did not help to lower the learning rate"):
        pixelwise.train(draw_discs(tmp_path / "discs"), tmp_path / "run", config=pixelwise.settings(None, QUICK))


@pytest.mark.slow
def test_a_run_that_was_interrupted_after_a_setback_goes_on_at_the_lower_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_training import Stopping, assert_equal_runs

    data = draw_discs(tmp_path / "discs")
    config = pixelwise.settings(None, [*QUICK, "training.epochs=4"])
    for name, watcher in (("whole", Watcher()), ("broken", Stopping(10))):
        with monkeypatch.context() as patch:
            spoiled(patch, lambda number, loss: loss * math.nan if number == 6 else loss)
            pixelwise.train(data, tmp_path / name, config=config, watcher=watcher)
    pixelwise.train(data, tmp_path / "broken", resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.slow
def test_a_sign_is_told_once_and_stands_in_the_history(tmp_path: Path) -> None:
    # a learning rate that moves nothing
    config = pixelwise.settings(None, [*QUICK, "training.epochs=8", "training.learning_rate=1e-9"])
    hearing = Hearing()
    folder = pixelwise.train(draw_discs(tmp_path / "discs"), tmp_path / "run", config=config, watcher=hearing).folder
    assert sum("does not move" in text for text in hearing.said) == 1
    assert sum("standstill" in row["warnings"] for row in rows(folder)) == 1
