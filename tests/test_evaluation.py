"""Which images a model is scored on, how their masks are read, and what a run's folder must hold for that."""

import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import QUICK, draw_discs
from PIL import Image

import pixelwise
from pixelwise import api
from pixelwise.classes import ClassTable
from pixelwise.data.dataset import Dataset, MaskEncoding
from pixelwise.errors import ConfigError, DataError
from pixelwise.evaluation import evaluate as evaluation
from pixelwise.evaluation.evaluate import Evaluated, examples
from pixelwise.evaluation.saved import RunFacts
from pixelwise.evaluation.sides import for_model
from pixelwise.inference.predictor import Model
from pixelwise.metrics import Scores
from pixelwise.training import run as runs
from pixelwise.training.watch import Watcher


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, its data beside it, and other data of the same kind."""
    folder = tmp_path_factory.mktemp("trained")
    draw_discs(folder / "data")
    draw_discs(folder / "other", count=3, seed=1)
    pixelwise.train(folder / "data", folder / "run", config=pixelwise.settings(None, QUICK))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


def names(run: Path, side: str) -> list[str]:
    found = json.loads((run / "split.json").read_text())[side]
    assert found
    return sorted(found)


def recolor(masks: Path, table: dict[int, int]) -> None:
    """Store the masks with other values."""
    for path in masks.iterdir():
        with Image.open(path) as opened:
            mask = np.asarray(opened)
        new = np.zeros_like(mask)
        for value, replacement in table.items():
            new[mask == value] = replacement
        Image.fromarray(new).save(path)


# --- which images ---


def test_a_runs_own_data_named_explicitly_is_scored_on_its_test_side(trained: Path) -> None:
    explicit = api.evaluate_side(trained / "run", trained / "run" / ".." / "data")
    assert explicit.split == "test"
    assert sorted(explicit.scores.names) == names(trained / "run", "test")


def test_any_side_of_a_runs_own_data_can_be_chosen(trained: Path) -> None:
    for side in ("train", "validation"):
        scores = pixelwise.evaluate(trained / "run", trained / "data", split=side)
        assert sorted(scores.names) == names(trained / "run", side)


def test_other_data_without_sides_are_scored_whole_and_say_so(trained: Path, tmp_path: Path) -> None:
    result = api.evaluate_side(trained / "run", trained / "other", out=tmp_path)
    assert result.split == "all"
    assert len(result.scores.names) == 3
    assert json.loads((tmp_path / "scores.json").read_text())["split"] == "all"


@pytest.mark.parametrize("side", ["train", "validation", "test"])
def test_a_side_that_other_data_do_not_have_is_an_error(trained: Path, side: str) -> None:
    with pytest.raises(DataError, match=f"no {side} images.*--split all"):
        pixelwise.evaluate(trained / "run", trained / "other", split=side)


def test_the_test_side_that_other_data_give_is_taken(trained: Path, tmp_path: Path) -> None:
    for side, count, seed in (("train", 3, 1), ("test", 2, 2)):
        draw_discs(tmp_path / "other" / side, count=count, seed=seed)
    assert api.evaluate_side(trained / "run", tmp_path / "other").split == "test"
    assert len(pixelwise.evaluate(trained / "run", tmp_path / "other").names) == 2


def test_a_loaded_model_does_not_know_its_data(trained: Path) -> None:
    model = pixelwise.load(trained / "run")
    assert api.evaluate_side(model, trained / "data").split == "all"
    with pytest.raises(DataError, match="--split all"):
        pixelwise.evaluate(model, trained / "data", split="test")


# --- what masks mean ---


def dataset(classes: tuple[str, ...], **encoding: object) -> Dataset:
    return Dataset(Path("other"), (), ClassTable.from_names(classes), MaskEncoding(**encoding), layout="")


def test_masks_of_other_data_that_lack_a_class_are_read_as_in_the_run() -> None:
    said = RunFacts(data="/data", mask_encoding=MaskEncoding(kind="values", values={0: 0, 1: 1, 7: 2, 255: 255}))
    classes = ClassTable.from_names(["background", "cell", "nucleus"])
    lacking = dataset(("background", "object"), kind="values", values={0: 0, 7: 1})
    read = for_model(lacking, said, classes)
    assert read.encoding.values == {0: 0, 1: 1, 7: 2, 255: 255}
    assert read.classes == classes


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "values", "values": {0: 0, 1: 1, 9: 2}},
        {"kind": "colors", "colors": {(0, 0, 0): 0, (255, 0, 0): 1, (0, 0, 255): 2}},
    ],
)
def test_masks_that_the_run_does_not_cover_are_read_as_found_if_their_classes_are_the_models(
    other: dict[str, object],
) -> None:
    said = RunFacts(data="/data", mask_encoding=MaskEncoding(kind="values", values={0: 0, 1: 1, 7: 2}))
    names = ("background", "cell", "nucleus")
    assert for_model(dataset(names, **other), said, ClassTable.from_names(names)).encoding == MaskEncoding(**other)
    with pytest.raises(DataError, match="the model knows background, cell, nucleus"):
        for_model(dataset(("background", "a", "b"), **other), said, ClassTable.from_names(names))


def test_the_same_masks_stored_with_other_values_have_the_same_scores(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "other", tmp_path / "other")
    recolor(tmp_path / "other" / "masks", {0: 0, 1: 255})
    names = "\n".join(f"  {i}: {name}" for i, name in enumerate(pixelwise.load(trained / "run").classes.names))
    (tmp_path / "other" / "data.yaml").write_text(f"names:\n{names}\n")
    expected = pixelwise.evaluate(trained / "run", trained / "other")
    assert torch.equal(pixelwise.evaluate(trained / "run", tmp_path / "other").counts, expected.counts)


def test_classes_in_another_order_are_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "other", tmp_path / "other")
    reordered = "\n".join(
        f"  {i}: {name}" for i, name in enumerate(pixelwise.load(trained / "run").classes.names[::-1])
    )
    (tmp_path / "other" / "data.yaml").write_text(f"names:\n{reordered}\n")
    with pytest.raises(DataError, match="the order of the model"):
        pixelwise.evaluate(trained / "run", tmp_path / "other")


# --- work ---


def test_every_image_is_predicted_once(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predicted: list[int] = []
    original = Model._prepare
    monkeypatch.setattr(Model, "_prepare", lambda self, image: predicted.append(1) or original(self, image))
    pixelwise.evaluate(trained / "run", split="all", out=tmp_path)
    assert len(predicted) == 8


def test_masks_too_large_to_keep_are_predicted_again(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[Evaluated] = []
    original = api.evaluate_cases
    monkeypatch.setattr(api, "evaluate_cases", lambda *given: pairs.append(original(*given)) or pairs[-1])
    for limit in (evaluation.KEPT_PIXELS, 8 * 48 * 48 - 1):
        monkeypatch.setattr(evaluation, "KEPT_PIXELS", limit)
        pixelwise.evaluate(trained / "run", split="all")
    kept, again = pairs
    assert len(kept.masks) == 8
    assert not again.masks
    for one, other in zip(examples(kept), examples(again), strict=True):
        np.testing.assert_array_equal(one.prediction, other.prediction)


@pytest.mark.slow
def test_the_runs_cache_is_used(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pixelwise.settings(None, [*QUICK, f"data.cache={tmp_path / 'cache'}"])
    pixelwise.train(discs, tmp_path / "run", config=config)
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "not-this-one"))
    pixelwise.evaluate(tmp_path / "run")
    assert (tmp_path / "cache").is_dir()
    assert not (tmp_path / "not-this-one").exists()


@pytest.mark.slow
def test_the_device_is_that_of_the_settings(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[str] = []
    original = api.predictor.load
    monkeypatch.setattr(api.predictor, "load", lambda path, device: devices.append(device) or original(path, "cpu"))
    pixelwise.train(discs, tmp_path / "run", config=pixelwise.settings(None, QUICK))
    pixelwise.evaluate(tmp_path / "run", device="cuda")
    pixelwise.predict_files(tmp_path / "run", [discs / "images" / "0.png"], tmp_path / "masks", device="mps")
    assert devices == ["cpu", "cuda", "mps"]


# --- damaged files ---


def use(run: Path, file: str) -> None:
    if file == "scores.json":
        _ = pixelwise.Run(run).scores
    else:
        pixelwise.evaluate(run, out=run)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", "{}"),
        ("run.json", "[]"),
        ("run.json", '{"data": "x", "mask_encoding": {"kind": "values", "values": {"a": "b"}}}'),
        ("run.json", '{"data": "x", "mask_encoding": {"kind": "colors", "colors": {"red": 1}}}'),
        ("run.json", '{"data": 3'),
        ("scores.json", "{}"),
        ("scores.json", "[]"),
        ("scores.json", '{"classes": ["a", "b"], "per_image": [{"name": "x", "confusion": [[0, 5, 1]]}]}'),
        ("scores.json", '{"classes": ["a", "b"], "per_image": [{"name": "x", "confusion": [[0, 1]]}]}'),
        ("history.jsonl", '{"epoch": 0, "train_loss": 1.0}\n{"epoch": 1, "tra'),
        ("history.jsonl", '{"epoch": 0, "train_loss": "high"}'),
        ("history.jsonl", "[]"),
        ("plan.json", "{}"),
        ("plan.json", '{"decisions": [{"setting": "seed"}]}'),
        ("split.json", "{}"),
        ("split.json", '{"train": ['),
    ],
)
def test_a_damaged_file_of_a_run_is_named_with_a_remedy(run: Path, file: str, content: str) -> None:
    (run / file).write_text(content)
    with pytest.raises(DataError) as caught:
        use(run, file)
    assert caught.value.where == run / file
    assert caught.value.remedy


# --- training ---


@pytest.mark.slow
def test_an_interrupted_run_is_reported_and_says_so(discs: Path, tmp_path: Path) -> None:
    class Impatient(Watcher):
        def step(self, step: int, progress: float, images_per_second: float) -> None:  # noqa: ARG002  Watcher's
            if step == 2:
                signal.raise_signal(signal.SIGINT)

    run = pixelwise.train(discs, tmp_path / "run", config=pixelwise.settings(None, QUICK), watcher=Impatient())
    assert run.interrupted
    assert run.is_main
    assert run.report.exists()
    assert run.scores.names


class Recorder(Watcher):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def say(self, text: str) -> None:
        self.heard.append(text)

    def work(self, name: str, done: int, total: int) -> None:  # noqa: ARG002  Watcher's
        self.heard.append(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "speaks"),
    [
        ({}, True),
        ({"LOCAL_WORLD_SIZE": "2", "RANK": "0"}, True),
        ({"LOCAL_WORLD_SIZE": "2", "RANK": "1"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, True),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, False),
    ],
)
def test_one_of_several_processes_speaks(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], speaks: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    other = SimpleNamespace(folder=tmp_path, is_main=False, interrupted=False)
    monkeypatch.setattr(runs, "train", lambda _request, watcher: watcher.say("training") or other)
    watcher = Recorder()
    assert not pixelwise.train(discs, tmp_path / "run", watcher=watcher).is_main
    assert bool(watcher.heard) == speaks


# --- settings ---


def test_a_time_takes_the_place_of_epochs_and_the_reverse(tmp_path: Path) -> None:
    (tmp_path / "timed.yaml").write_text("training: {time: 900}\n")
    (tmp_path / "counted.yaml").write_text("training: {epochs: 7}\n")
    for config in (
        pixelwise.settings(tmp_path / "timed.yaml", epochs=3),
        pixelwise.settings(tmp_path / "timed.yaml", ["training.epochs=3"]),
    ):
        assert (config.training.time, config.training.epochs) == (None, 3)
    for config in (
        pixelwise.settings(tmp_path / "counted.yaml", time="15m"),
        pixelwise.settings(tmp_path / "counted.yaml", ["training.time=15m"]),
    ):
        assert (config.training.time, config.training.epochs) == (900.0, None)
    assert pixelwise.settings(tmp_path / "timed.yaml").training.time == 900.0


def test_time_and_epochs_together_are_refused() -> None:
    for given in ({"time": "5m", "epochs": 3}, {"time": "5m", "overrides": ["training.epochs=3"]}):
        with pytest.raises(ConfigError, match="both given"):
            pixelwise.settings(**given)


@pytest.mark.slow
def test_train_takes_a_time(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[runs.Request] = []
    other = SimpleNamespace(folder=tmp_path, is_main=False, interrupted=False)
    monkeypatch.setattr(runs, "train", lambda request, _watcher: requests.append(request) or other)
    pixelwise.train(discs, tmp_path / "run", time="15m", config=pixelwise.settings(None, ["training.epochs=3"]))
    assert requests[0].config.training.time == 900.0
    assert requests[0].config.training.epochs is None


# --- preview ---


@pytest.mark.parametrize("normalisation", ["standard", "image", "none"])
def test_a_preview_shows_images_at_their_own_brightness(tmp_path: Path, normalisation: str) -> None:
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for number in range(12):
        level = 40 if number % 2 else 200
        image = np.clip(level + rng.normal(0, 3, (48, 48, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "data" / "images" / f"{number}.png")
        mask = np.zeros((48, 48), dtype=np.uint8)
        mask[:4, :4] = 1
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{number}.png")
    overrides = [*QUICK, f"data.normalisation={normalisation}", "augment.strength=0", "data.foreground_fraction=0"]
    path = pixelwise.preview(tmp_path / "data", tmp_path / "p.png", pixelwise.settings(None, overrides), patches=8)
    with Image.open(path) as opened:
        sheet = np.asarray(opened).astype(int)
    # 8 patches of 32 x 32, each shown twice: those near their level, of either level
    near = {level: int((abs(sheet - level).max(axis=2) < 20).sum()) for level in (40, 200)}
    assert sum(near.values()) > 0.85 * 16 * 32 * 32
    assert min(near.values()) > 2 * 32 * 32


def test_runs_are_compared_through_the_facade(trained: Path) -> None:
    comparison = pixelwise.compare([trained / "run", str(trained / "run")])
    scores = Scores.from_summary(json.loads((trained / "run" / "scores.json").read_text()))
    assert comparison.scores["mIoU, pooled"] == (pytest.approx(scores.miou),) * 2
