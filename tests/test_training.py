"""From settings and a folder to a bundle."""

import errno
import functools
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, draw_discs
from lightning_fabric import Fabric
from PIL import Image
from test_loader import decoded

import pixelwise
from pixelwise import files, launcher
from pixelwise.config import TrainingConfig
from pixelwise.errors import BundleError, ConfigError, DataError, PixelwiseError, TrainingError
from pixelwise.evaluation import figures
from pixelwise.models.bundle import hash_of_tensors
from pixelwise.training import run as runs
from pixelwise.training.clock import Clock
from pixelwise.training.folder import Files
from pixelwise.training.history import Epoch, History
from pixelwise.training.loop import part_weights
from pixelwise.training.run import outline_seconds
from pixelwise.training.update import LOWEST_RATE_FRACTION, Update, make_optimizer, rate_factor
from pixelwise.training.watch import Watcher


class Stopping(Watcher):
    """Presses Ctrl-C after so many steps."""

    def __init__(self, after_steps: int) -> None:
        self.after_steps = after_steps

    def step(self, step: int, progress: float, images_per_second: float) -> None:  # noqa: ARG002  as Watcher has it
        if step == self.after_steps:
            import signal

            signal.raise_signal(signal.SIGINT)


def quick(*overrides: str) -> pixelwise.Config:
    return pixelwise.settings(None, [*QUICK, *overrides])


def weights(folder: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / name)


def assert_equal_runs(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


Once = Callable[..., pixelwise.Run]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Runs of the discs, with settings beside the quick ones: each is trained once and only read, or copied.

    Their reports have no curves.
    """
    folder = tmp_path_factory.mktemp("once")
    data = draw_discs(folder / "discs")

    @functools.cache
    def run(*overrides: str, stop_after: int = 0) -> pixelwise.Run:
        out = folder / "_".join([*overrides, str(stop_after)])
        with pytest.MonkeyPatch.context() as patch:
            leave_curves_out(patch)
            return pixelwise.train(data, out, config=quick(*overrides), watcher=Stopping(stop_after))

    return run


def leave_curves_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(figures, "svg", lambda *_given: "")
    patch.setattr(figures, "save_learning_curves", lambda *_given: None)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without curves: drawing takes half the time of a run of which only weights or scores are looked at."""
    leave_curves_out(monkeypatch)


def copied(run: pixelwise.Run, folder: Path) -> Path:
    """A run that a test may change."""
    return Path(shutil.copytree(run.folder, folder))


@pytest.mark.slow
def test_a_run_leaves_every_file_it_promises(discs: Path, tmp_path: Path) -> None:
    run = pixelwise.train(discs, tmp_path / "run", config=quick())
    names = {path.name for path in run.folder.iterdir()}
    promised = {"config.yaml", "split.json", "fingerprint.json", "plan.json", "history.jsonl", "last.ckpt"}
    assert promised | {"best.safetensors", "scores.json", "report.html", "curves.png", "run.json"} <= names
    rows = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8]
    assert json.loads((run.folder / "scores.json").read_text())["split"] == "test"
    assert run.scores.classes == tuple(run.model.classes.names)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_equal_seeds_give_equal_weights_and_others_do_not(discs: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        pixelwise.train(discs, tmp_path / name, config=quick(f"seed={seed}", "model.dropout=0.2"))
    assert_equal_runs(tmp_path / "a", tmp_path / "b")
    assert any(not torch.equal(a, b) for a, b in zip(*(weights(tmp_path / n).values() for n in "ac"), strict=True))


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_run_is_repeated_by_its_own_settings(once: Once, discs: Path, tmp_path: Path) -> None:
    first = once().folder
    pixelwise.train(discs, tmp_path / "again", config=pixelwise.settings(first / "config.yaml"))
    assert_equal_runs(first, tmp_path / "again")


@pytest.mark.slow
@pytest.mark.parametrize("after_steps", [3, 4, 6])
@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_run_goes_on_to_the_same_weights(
    once: Once, discs: Path, tmp_path: Path, after_steps: int
) -> None:
    settings = ("training.epochs=3", "model.dropout=0.2")
    pixelwise.train(discs, tmp_path / "broken", config=quick(*settings), watcher=Stopping(after_steps), command="one")
    assert (tmp_path / "broken" / "report.html").exists(), "Ctrl-C leaves model, scores and report"
    pixelwise.train(discs, tmp_path / "broken", resume=True, command="two")
    assert "<code>one\ntwo</code>" in (tmp_path / "broken" / "report.html").read_text()
    assert_equal_runs(once(*settings).folder, tmp_path / "broken")


@pytest.mark.slow
def test_it_learns_two_images_by_heart(tmp_path: Path) -> None:
    data = draw_discs(tmp_path / "two", count=3, size_px=32)
    config = quick(
        "augment.strength=0", "training.steps_per_epoch=60", "training.learning_rate=0.01", "training.epochs=1"
    )
    pixelwise.train(data, tmp_path / "run", config=config)
    assert pixelwise.evaluate(tmp_path / "run", split="train").miou > 0.97


def test_outlines_are_compared_as_fast_as_so_many_cores_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "compare_boundaries", lambda *_, **__: time.sleep(0.1))
    case = decoded("a", np.zeros((10, 20), dtype=np.uint8))
    for cores, images, expected in ((1, 8, 0.8), (4, 8, 0.2), (16, 3, 0.1)):
        monkeypatch.setattr(launcher, "cores", lambda cores=cores: cores)
        assert expected <= outline_seconds(case, 2, 2.0, images * 200) <= 1.7 * expected


def test_a_fold_leaves_its_share_of_the_time_for_joining() -> None:
    """Three folds, 60 pixels to test and 30 to validate each: 90 out of folds, and 60 by all of them together."""
    part = runs.Later.of_joining(3, validation=30, test=60)
    assert (3 * part.predicted, 3 * part.looked_at, 3 * part.reports) == (90 + 3 * 60, 90 + 60, 2)
    part = runs.Later.of_joining(3, validation=30, test=0)
    assert (3 * part.predicted, 3 * part.looked_at, 3 * part.reports) == (90, 90, 1)


@pytest.mark.slow
def test_a_time_budget_is_kept_and_ends_annealed(discs: Path, tmp_path: Path) -> None:
    config = pixelwise.settings(None, [*QUICK[:-2], "training.time=9", "training.warmup_fraction=0.1"])
    began = time.monotonic()
    run = pixelwise.train(discs, tmp_path / "run", config=config)
    assert time.monotonic() - began < 11
    rows = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["learning_rate"] < 0.1 * max(row["learning_rate"] for row in rows)


@pytest.mark.slow
def test_resuming_nothing_and_starting_twice_are_refused(once: Once, discs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run to resume"):
        pixelwise.train(discs, tmp_path / "empty", config=quick(), resume=True)
    folder = copied(once("training.epochs=1"), tmp_path / "run")
    with pytest.raises(ConfigError, match="a run in this folder already"):
        pixelwise.train(discs, folder, config=quick())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["other", "changed", "gone"])
@pytest.mark.usefixtures("undrawn")
def test_of_a_damaged_checkpoint_the_one_before_it_is_taken(once: Once, discs: Path, tmp_path: Path, kind: str) -> None:
    folder = copied(once("training.epochs=3", stop_after=8), tmp_path / "run")
    damage(folder / "last.ckpt", kind)
    said: list[str] = []
    watcher = Watcher()
    watcher.say = said.append  # type: ignore[method-assign]
    pixelwise.train(discs, folder, resume=True, watcher=watcher)
    assert any("last.ckpt" in text and "The one before it is taken" in text for text in said)
    assert_equal_runs(once("training.epochs=3").folder, folder)


def damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    damaged = {"other": b"not a checkpoint", "cut": path.read_bytes()[:-100], "changed": bytes(content)}
    path.unlink()
    if kind in damaged:
        path.write_bytes(damaged[kind])


@pytest.mark.slow
def test_without_any_checkpoint_that_is_whole_the_run_is_refused(once: Once, discs: Path, tmp_path: Path) -> None:
    folder = copied(once("training.epochs=1"), tmp_path / "run")
    for name in ("last.ckpt", "previous.ckpt"):
        damage(folder / name, "changed")
    with pytest.raises(BundleError, match=r"last\.ckpt.*cannot be resumed.*not what was written"):
        pixelwise.train(discs, folder, resume=True)
    for name in ("last.ckpt", "previous.ckpt"):
        damage(folder / name, "gone")
    with pytest.raises(DataError, match=r"last\.ckpt is gone\. Start a new run, with --from this one"):
        pixelwise.train(discs, folder, resume=True)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(once: Once, discs: Path, tmp_path: Path) -> None:
    whole = once().folder
    prepared = ("begun.json", "findings.json", "split.json", "fingerprint.json", "plan.json", "run.json", "config.yaml")
    for count in (1, 3, len(prepared)):
        folder = tmp_path / f"broken {count}"
        folder.mkdir()
        for name in prepared[:count]:
            shutil.copy(whole / name, folder)
        pixelwise.train(discs, folder, resume=True)
        assert_equal_runs(whole, folder)
    assert json.loads((folder / "plan.json").read_text()) == json.loads((whole / "plan.json").read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_run_that_was_to_start_from_another_does_so_when_it_begins_anew(
    once: Once, discs: Path, tmp_path: Path
) -> None:
    first = once("training.epochs=1").folder
    whole = pixelwise.train(discs, tmp_path / "whole", config=quick(), start_from=first).folder
    folder = tmp_path / "broken"
    folder.mkdir()
    shutil.copy(whole / "begun.json", folder)
    pixelwise.train(discs, folder, resume=True)
    assert_equal_runs(whole, folder)


class Filling:
    """A disk that has no room for the file after so many."""

    def __init__(self, files: int) -> None:
        self.left = files

    def __call__(self, _descriptor: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.slow
# of eight files before training, and three after each epoch
@pytest.mark.parametrize("files", [2, 7, 9, 10, 11])
@pytest.mark.usefixtures("undrawn")
def test_a_disk_that_fills_up_costs_a_run_nothing_but_time(
    once: Once, discs: Path, tmp_path: Path, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, whole = quick(), once().folder
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Filling(files))
        with pytest.raises(DataError, match="No space left"):
            pixelwise.train(discs, tmp_path / "broken", config=config)
    pixelwise.train(discs, tmp_path / "broken", resume=True)
    assert_equal_runs(whole, tmp_path / "broken")
    assert json.loads((whole / "scores.json").read_text()) == json.loads(
        (tmp_path / "broken" / "scores.json").read_text()
    )


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_an_image_that_vanished_is_named_and_put_back_the_run_goes_on(once: Once, discs: Path, tmp_path: Path) -> None:
    folder = copied(once("training.epochs=3", stop_after=8), tmp_path / "broken")
    image = sorted((discs / "images").iterdir())[2]
    image.rename(tmp_path / "aside.png")
    with pytest.raises(DataError, match=f"'{image.stem}'"):
        pixelwise.train(discs, folder, resume=True)
    (tmp_path / "aside.png").rename(image)
    pixelwise.train(discs, folder, resume=True)
    assert_equal_runs(once("training.epochs=3").folder, folder)


def test_a_folder_in_which_no_run_was_begun_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none was begun in this folder"):
        pixelwise.train(tmp_path / "data", tmp_path, resume=True)


@pytest.mark.slow
def test_a_damaged_run_is_refused_by_the_name_of_its_file(once: Once, discs: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = copied(once("training.epochs=1"), tmp_path / "run")
    files = Files(folder)
    checkpoint, fingerprint = files.last.read_bytes(), files.fingerprint.read_bytes()
    for progress in ("{}", "[]", "nothing"):
        said = {"format": "pixelwise-checkpoint", "progress": progress, "hash": hash_of_tensors(weights(folder))}
        save_file(weights(folder), files.last, said)
        files.last.with_name("previous.ckpt").unlink(missing_ok=True)
        with pytest.raises(BundleError, match=r"last\.ckpt.*cannot be resumed"):
            pixelwise.train(discs, folder, resume=True)
    files.last.write_bytes(checkpoint)
    files.fingerprint.write_text('{"images": 3}')
    with pytest.raises(DataError, match=r"fingerprint\.json.*of another version"):
        pixelwise.train(discs, folder, resume=True)
    files.fingerprint.write_bytes(fingerprint)
    (validation,) = json.loads(files.split.read_text())["validation"]
    Image.new("L", (48, 48), 7).save(discs / "images" / f"{validation}.png")
    with pytest.raises(DataError, match="The validation images or masks are not those the run began with"):
        pixelwise.train(discs, folder, resume=True)


@pytest.mark.slow
def test_a_run_that_went_on_for_longer_says_so_in_its_settings(once: Once, discs: Path, tmp_path: Path) -> None:
    folder = copied(once("training.epochs=1"), tmp_path / "run")
    pixelwise.train(discs, folder, config=pixelwise.settings(epochs=3), resume=True, watcher=Stopping(6))
    assert pixelwise.settings(folder / "config.yaml").training.epochs == 3
    pixelwise.train(discs, folder, resume=True)
    assert json.loads((folder / "history.jsonl").read_text().splitlines()[-1])["step"] == 12


def test_what_cannot_become_a_run_is_refused_before_any_image_is_read(tmp_path: Path) -> None:
    nowhere = tmp_path / "no data"
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="There is a file of this name"):
        pixelwise.train(nowhere, tmp_path / "file")
    with pytest.raises(ConfigError, match="Leave --from or --resume out"):
        pixelwise.train(nowhere, tmp_path / "run", resume=True, start_from=tmp_path)
    if not torch.backends.mps.is_available():
        with pytest.raises(ConfigError, match="no device 'mps' here"):
            pixelwise.train(nowhere, tmp_path / "run", config=pixelwise.settings(None, ["device=mps"]))


@pytest.mark.slow
def test_a_budget_that_reading_used_up_is_told(discs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    watcher = Watcher()
    watcher.say = said.append  # type: ignore[method-assign]
    settings = [*QUICK[:-2], "training.time=3"]
    began = time.monotonic() - 60.0
    pixelwise.train(discs, tmp_path / "run", config=pixelwise.settings(None, settings), watcher=watcher, began=began)
    assert any("took 6" in sentence and "little or nothing is left" in sentence for sentence in said)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_with_a_remedy(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"The loss became .*did not help to lower the learning rate to 2\.7e\+16"):
        pixelwise.train(
            discs,
            tmp_path / "run",
            config=quick("training.learning_rate=1e18", "training.clip_norm=0", "model.norm=none"),
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cross_entropy", "dice", "focal", "tversky", "lovasz"])
@pytest.mark.usefixtures("undrawn")
def test_every_loss_trains(discs: Path, tmp_path: Path, name: str) -> None:
    config = quick(f"loss.name={name}", "training.epochs=1", "training.steps_per_epoch=2")
    assert pixelwise.train(discs, tmp_path / "run", config=config).scores.counts.sum() > 0


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("emulated", [False, True])
def test_bfloat16_that_is_only_emulated_is_said(
    emulated: bool, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixelwise.training.run.has_bfloat16", lambda _: not emulated)
    said: list[str] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher, "say", said.append)
    config = quick("training.precision=bfloat16", "training.epochs=1", "training.steps_per_epoch=1")
    pixelwise.train(discs, tmp_path / "run", config=config, watcher=watcher)
    assert any("no bfloat16 of its own" in sentence for sentence in said) == emulated


@pytest.mark.slow
@pytest.mark.parametrize(
    "override",
    [
        "training.optimizer=sgd",
        "training.optimizer=adam",
        "training.schedule=poly",
        "training.schedule=constant",
        "training.precision=bfloat16",
        "training.ema_decay=0",
        "training.clip_norm=0",
        "loss.border_weight=10",
        "loss.class_weights=balanced",
        "loss.class_weights=[1, 3]",
        "data.resize=[40, 40]",
        "data.normalisation=image",
        "model.norm=group",
        "prediction.flips=both",
        "model.stride=2",
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_every_setting_trains(discs: Path, tmp_path: Path, override: str) -> None:
    config = quick(override, "training.epochs=1", "training.steps_per_epoch=2")
    assert pixelwise.train(discs, tmp_path / "run", config=config).scores.counts.sum() > 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_a_compiled_network_has_the_weights_of_a_plain_one(discs: Path, tmp_path: Path) -> None:
    settings = ("training.epochs=1", "training.steps_per_epoch=2")
    pixelwise.train(discs, tmp_path / "plain", config=quick(*settings, "training.compile=false"))
    # in a process of its own, since the checks of shapes in this one are nothing to compile
    options = [part for setting in (*QUICK, *settings, "training.compile=true") for part in ("--set", setting)]
    command = [sys.executable, "-m", "pixelwise", "train", str(discs), "--out", str(tmp_path / "compiled"), *options]
    subprocess.run(command, check=True, capture_output=True)
    plain, compiled = (weights(tmp_path / name, "best.safetensors") for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, atol=2e-3, rtol=1e-2)


COUNTING = """
import functools, sys
import torch
torch.compile = functools.partial(torch.compile, backend="eager")  # what is compiled is counted, and nothing generated
from torch._dynamo.utils import counters
import pixelwise
from pixelwise.training.machine import Work, determinism, rehearsal

data, run, *settings = sys.argv[1:]
config = pixelwise.settings(None, [*settings, "training.compile=true", "training.precision=bfloat16"])
work = Work(
    model=config.model, channels=1, classes=2, patch_size=config.data.patch_size,
    batch_size=config.training.batch_size, precision="bfloat16", compiled=True, deterministic=True,
)
with determinism(True):
    rehearsal(work, torch.device("cpu"))[0]()
rehearsed = counters["stats"]["unique_graphs"]
pixelwise.train(data, run, config=config)
print(rehearsed, counters["stats"]["unique_graphs"])
"""


@pytest.mark.slow
def test_a_run_is_not_compiled_again_after_the_plan_has_measured_it(discs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", COUNTING, discs, tmp_path / "run", *QUICK]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "1 1"


@pytest.mark.slow
def test_the_papers_network_trains(discs: Path, tmp_path: Path) -> None:
    config = quick(
        "model=paper", "model.width=4", "model.depth=2", "data.patch_size=[76, 76]", "training.steps_per_epoch=2"
    )
    assert pixelwise.train(discs, tmp_path / "run", config=config).scores.counts.sum() > 0


@pytest.mark.slow
def test_class_weights_must_match_the_classes(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="3 values for 2 classes"):
        pixelwise.train(discs, tmp_path / "run", config=quick("loss.class_weights=[1, 2, 3]"))


@pytest.mark.slow
def test_early_stopping_waits_for_its_patience(discs: Path, tmp_path: Path) -> None:
    # with a rate this small nothing improves after the first epoch
    config = quick("training.patience=2", "training.epochs=9", "training.learning_rate=1e-30", "training.ema_decay=0")
    run = pixelwise.train(discs, tmp_path / "run", config=config)
    assert len((run.folder / "history.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_fine_tuning_starts_where_the_other_run_ended(once: Once, discs: Path, tmp_path: Path) -> None:
    first = once()
    stay = ("training.learning_rate=1e-30", "training.epochs=1", "training.steps_per_epoch=1", "seed=5")
    settings = [text for text in QUICK if not text.startswith("model")]
    config = pixelwise.settings(None, [*settings, *stay, "training.weight_decay=0"])
    pixelwise.train(discs, tmp_path / "second", config=config, start_from=first.folder)
    before, after = (weights(folder, "best.safetensors") for folder in (first.folder, tmp_path / "second"))
    convolutions = [name for name in before if before[name].ndim == 4]
    for name in convolutions:
        torch.testing.assert_close(after[name], before[name])


@pytest.mark.slow
def test_fine_tuning_moves_little_unless_told_otherwise(once: Once, discs: Path, tmp_path: Path) -> None:
    first = once()
    short = ("training.epochs=1", "training.steps_per_epoch=1")
    settings = [text for text in QUICK if not text.startswith("model")]
    for name, more, rate in (("a", (), 1e-4), ("b", ("training.learning_rate=0.003",), 0.003)):
        config = pixelwise.settings(None, [*settings, *short, *more])
        files = Files(pixelwise.train(discs, tmp_path / name, config=config, start_from=first.folder).folder)
        assert pixelwise.settings(files.config, ()).training.learning_rate == rate
        decided = {decision["setting"] for decision in json.loads(files.plan.read_text())["decisions"]}
        assert ("training.learning_rate" in decided) is (name == "a")


@pytest.mark.slow
def test_fine_tuning_refuses_another_network(once: Once, discs: Path, tmp_path: Path) -> None:
    first = once("training.epochs=1")
    with pytest.raises(ConfigError, match=r"'model\.width' is 16, but the run to start from has 8"):
        pixelwise.train(discs, tmp_path / "second", config=quick("model.width=16"), start_from=first.folder)


@pytest.mark.slow
def test_too_few_images_are_refused(tmp_path: Path) -> None:
    data = draw_discs(tmp_path / "few", count=1)
    with pytest.raises(DataError):
        pixelwise.train(data, tmp_path / "run", config=quick())


# --- parts ---


@pytest.mark.parametrize("schedule", ["cosine", "poly", "constant"])
def test_the_rate_rises_in_the_warm_up_and_never_rises_again(schedule: str) -> None:
    config = TrainingConfig(schedule=schedule, warmup_fraction=0.1)
    factors = [rate_factor(step / 1000, config) for step in range(1001)]
    assert factors[100] == pytest.approx(1.0, abs=1e-6)
    assert factors[50] == pytest.approx(0.5)
    assert all(a >= b for a, b in itertools.pairwise(factors[100:]))
    assert factors[-1] == pytest.approx(1.0 if schedule == "constant" else LOWEST_RATE_FRACTION)


def test_cosine_and_poly_are_their_formulas() -> None:
    floor = LOWEST_RATE_FRACTION
    half = rate_factor(0.5, TrainingConfig(schedule="cosine", warmup_fraction=0.0))
    assert half == pytest.approx(floor + (1 - floor) * 0.5)
    quarter = rate_factor(0.25, TrainingConfig(schedule="poly", warmup_fraction=0.0))
    assert quarter == pytest.approx(floor + (1 - floor) * 0.75**0.9)


def test_only_weights_of_two_and_more_axes_decay() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    decayed, rest = make_optimizer(network, TrainingConfig(weight_decay=0.1)).param_groups
    assert [p.ndim for p in decayed["params"]] == [4]
    assert decayed["weight_decay"] == 0.1
    assert {p.ndim for p in rest["params"]} == {1}
    assert rest["weight_decay"] == 0.0


def test_sgd_moves_by_rate_times_clipped_gradient() -> None:
    network = torch.nn.Conv2d(1, 1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 2.0)
    settings = TrainingConfig(
        optimizer="sgd", momentum=0.0, learning_rate=0.1, schedule="constant", warmup_fraction=0.0, weight_decay=0.0,
        clip_norm=1.0, ema_decay=0.0,
    )  # fmt: skip
    update = Update(Fabric(accelerator="cpu", devices=1), network, settings)
    loss = (update.network(torch.ones(1, 1, 1, 1)) * 30).sum()  # gradient 30, clipped to 1
    update.backward(loss)
    update.step(0, 0.5)
    assert network.weight.item() == pytest.approx(1.9, abs=1e-6)
    assert update.average.weight.item() == pytest.approx(1.9, abs=1e-6)


@pytest.mark.usefixtures("undrawn")
def test_a_step_in_parts_is_the_step_as_a_whole(discs: Path, tmp_path: Path) -> None:
    """With a loss that is a mean over equally many pixels of each patch, and a normalisation of each image alone."""
    settings = [
        "training.epochs=1", "training.steps_per_epoch=2", "training.batch_size=5", "model.norm=group",
        "loss.name=cross_entropy", "training.optimizer=sgd", "training.learning_rate=0.01", "training.clip_norm=0",
    ]  # fmt: skip
    states = []
    for count in (1, 2, 3, 5):
        pixelwise.train(discs, tmp_path / str(count), config=quick(*settings, f"training.accumulate={count}"))
        states.append(weights(tmp_path / str(count)))
    for state in states[1:]:
        for name, tensor in states[0].items():
            torch.testing.assert_close(state[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "accumulate", "processes", "weights"),
    [
        (4, 1, 1, [4]),
        (5, 2, 1, [3, 2]),
        (5, 9, 1, [1] * 5),
        (5, 2, 2, [3, 2]),  # of two and three patches: parts of 1 + 2 and of 1 + 1
        (5, 3, 2, [3, 2]),  # one of two patches has two parts
        (3, 2, 4, [3]),
    ],
)
def test_parts_weigh_as_many_patches_as_all_processes_have_in_them(
    batch: int, accumulate: int, processes: int, weights: list[int]
) -> None:
    training = TrainingConfig(batch_size=batch, accumulate=accumulate)
    assert part_weights(training, processes) == pytest.approx([weight / batch for weight in weights])


def test_more_parts_than_patches_are_told_to_have_no_effect() -> None:
    assert any("accumulate" in line for line in quick("training.batch_size=2", "training.accumulate=3").ignored())
    assert not quick("training.batch_size=2", "training.accumulate=2").ignored()


def test_batch_statistics_of_a_single_place_are_refused() -> None:
    with pytest.raises(ConfigError, match="two places"):
        quick("model.depth=5", "training.accumulate=4")


def clock(total_steps: int | None, budget: float | None, *, prepared: float = 0.0, after: float = 1.0) -> Clock:
    return Clock(
        lambda value: value, total_steps, budget, set_aside_seconds=prepared, trained_seconds=0.0, pixels_after=after,
        stopped=lambda: False,
    )  # fmt: skip


def test_the_clock_sets_aside_time_for_what_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("pixelwise.training.clock.time.monotonic", lambda: now[0])
    told = clock(None, 125.0, prepared=25.0, after=3.0)
    now[0] += 50.0
    assert told.progress(1) == pytest.approx(50 / (125 - 25))
    told.note_validation(10.0)  # once more, and three times as much for the test split
    assert told.progress(1) == pytest.approx(50 / (100 - 1.15 * 40))
    now[0] += 5.0
    assert told.progress(1) == 1.0
    told = clock(None, 100.0, after=3.0)
    told.note_validation(1.0)
    told.note_saving(20.0)  # saving is done once more, however much is predicted after it
    now[0] += 10.0
    assert told.progress(1) == pytest.approx(10 / (100 - 1.15 * (4 + 20)))


def test_steps_end_a_run_without_budget() -> None:
    assert [clock(10, None).progress(step) for step in (0, 5, 10, 11)] == [0.0, 0.5, 1.0, 1.0]


def test_undefined_scores_are_null_in_the_history() -> None:
    row = Epoch(0, 1, 1.0, 0.5, math.nan, math.nan, 0.5, [None, 0.5], 1e-3, 1.0)
    assert row.to_json()["miou"] is None


@pytest.mark.slow
def test_what_a_run_says_can_be_read_back(once: Once) -> None:
    files = Files(once("training.epochs=1").folder)
    plan = json.loads(files.plan.read_text())
    assert {"setting", "value", "because"} <= plan["decisions"][0].keys()
    split = json.loads(files.split.read_text())
    assert split


def test_a_run_that_is_refused_leaves_no_folder(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(PixelwiseError, match="GB"):
        pixelwise.train(discs, tmp_path / "run", config=quick("training.memory=1MB"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(PixelwiseError):
        pixelwise.train_folds(discs, 99, tmp_path / "folds", config=quick())
    assert not (tmp_path / "folds").exists()


@pytest.mark.parametrize("place", [".", "images", "masks/../masks"])
def test_a_run_does_not_lie_among_its_data(discs: Path, place: str) -> None:
    before = sorted(discs.rglob("*"))
    with pytest.raises(ConfigError, match="This folder holds the data"):
        pixelwise.train(discs, discs / place, config=quick())
    assert sorted(discs.rglob("*")) == before


def test_two_processes_do_not_train_in_one_folder(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "WAIT_SECONDS", 0.1)
    with files.held(tmp_path / "run"), pytest.raises(ConfigError, match="Another process trains in this folder"):
        pixelwise.train(discs, tmp_path / "run", config=quick())
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("undrawn")
def test_other_words_for_the_same_masks_do_not_keep_a_run_from_going_on(discs: Path, tmp_path: Path) -> None:
    files = Files(pixelwise.train(discs, tmp_path / "run", config=quick()).folder)
    said = json.loads(files.run.read_text())
    assert said["mask_encoding"]["values"]
    said["mask_encoding"]["description"] = "in other words"
    files.run.write_text(json.dumps(said))
    pixelwise.train(discs, files.folder, config=quick("training.epochs=3"), resume=True)
    said["mask_encoding"]["values"]["7"] = 1
    files.run.write_text(json.dumps(said))
    with pytest.raises(DataError, match="The values of the masks are not those the run began with"):
        pixelwise.train(discs, files.folder, config=quick("training.epochs=4"), resume=True)


@pytest.mark.usefixtures("undrawn")
def test_a_command_that_was_refused_leads_nowhere(discs: Path, tmp_path: Path) -> None:
    pixelwise.train(discs, tmp_path / "run", config=quick(), command="first")
    draw_discs(tmp_path / "other", seed=1)
    with pytest.raises(DataError, match="not those the run began with"):
        pixelwise.train(tmp_path / "other", tmp_path / "run", resume=True, command="refused")
    pixelwise.train(discs, tmp_path / "run", config=quick("training.epochs=3"), resume=True, command="second")
    assert json.loads((tmp_path / "run" / "begun.json").read_text())["commands"] == ["first", "second"]


@pytest.mark.parametrize(("reached", "is_told"), [(40.0, True), (60.0, False)])
def test_a_run_that_falls_far_behind_its_plan_says_so(reached: float, is_told: bool, tmp_path: Path) -> None:
    """Of two processes, for each of which the plan has measured 50 patches per second."""
    from pixelwise.training import machine, run

    config = quick("model.width=8")
    work = machine.Work(
        model=config.model, channels=1, classes=2, patch_size=config.data.patch_size, batch_size=4, precision="float32"
    )
    speed = machine.Speed(
        work=work, training_patches_per_second=50.0, validation_patches_per_second=1.0, training_bytes=0, weights=0
    )
    other = speed.model_copy(update={"work": work.model_copy(update={"precision": "bfloat16"})})
    faster = other.model_copy(update={"training_patches_per_second": 900.0})
    measured = {"measurements": [one.model_dump(mode="json") for one in (speed, faster)]}
    (tmp_path / "plan.json").write_text(json.dumps(measured))
    rows = [Epoch(0, 1, 1.0, 1.0, 1.0, 0.5, 0.5, [], 0.1, rate) for rate in (1.0, reached, reached)]
    said: list[str] = []

    class Listening(Watcher):
        def say(self, text: str) -> None:
            said.append(text)

    run._note_slowness(Files(tmp_path), config, History(epochs=rows), 2, Listening())
    assert any("40.0 patches per second" in line and "measured 100.0" in line for line in said) == is_told
    (tmp_path / "plan.json").write_text("{}")
    said.clear()
    run._note_slowness(Files(tmp_path), config, History(epochs=rows), 2, Listening())
    assert said == []
