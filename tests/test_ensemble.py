"""Several models as one: ensembles, folds, and networks that learn from them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import QUICK
from typer.testing import CliRunner

import pixelwise
from pixelwise import api
from pixelwise.classes import ClassTable
from pixelwise.cli import app
from pixelwise.config import Config, LossConfig, ModelConfig, Preprocessing, load
from pixelwise.data.cache import Cache
from pixelwise.data.folder import scan
from pixelwise.errors import BundleError, ConfigError, DataError
from pixelwise.inference.predictor import Model, of_bundle
from pixelwise.inference.predictor import load as load_model
from pixelwise.losses import build as build_loss
from pixelwise.losses import lesson, to_teacher
from pixelwise.models.bundle import Bundle, Description, joined, save, state_on_cpu
from pixelwise.models.bundle import load as load_bundle
from pixelwise.models.unet import build
from pixelwise.training.folder import Files
from pixelwise.training.teaching import Teacher, adopt_network, packed, refuse_own_augmentation, unpacked
from pixelwise.verbs import folds
from pixelwise.verbs.runs import Run

MODEL = ModelConfig(width=4, depth=2)


def bundle(seed: int, mean: float = 100.0, deviation: float = 20.0, **changes: object) -> Bundle:
    torch.manual_seed(seed)
    network = build(MODEL, 1, 2)
    network(torch.randn(4, 1, 32, 32) * 2.0)  # statistics of its own
    described = Description(
        model=MODEL,
        preprocessing=Preprocessing(
            channels=1, normalisation="standard", mean=(mean,), deviation=(deviation,), types=("uint8",), largest=255.0
        ),
        classes=ClassTable.from_names(["a", "b"]),
        patch_size=(32, 32),
    )
    return Bundle(described.model_copy(update=changes), state_on_cpu(network))


@pytest.mark.parametrize("emulated", [False, True])
def test_bfloat16_is_left_where_it_is_only_emulated(emulated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model from a machine that has it is then computed in float32, as exactly and faster."""
    monkeypatch.setattr("pixelwise.inference.predictor.has_bfloat16", lambda _: not emulated)
    model = of_bundle(bundle(0, bfloat16=True), "cpu")
    kinds = {module.weight.dtype for module in model.network.modules() if isinstance(module, torch.nn.Conv2d)}
    assert kinds == {torch.float32 if emulated else torch.bfloat16}
    assert model.description.bfloat16 == (not emulated)
    assert model.predict(np.zeros((40, 40, 1), np.uint8)).mask.shape == (40, 40)


def test_an_ensemble_is_a_bundle_whose_probabilities_are_the_mean_of_its_members(tmp_path: Path) -> None:
    """Each member sees the image as it was trained to: with the mean and deviation of its own training images."""
    members = [bundle(0), bundle(1, mean=110.0, deviation=30.0), bundle(2, mean=90.0, deviation=25.0)]
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 1), dtype=np.uint8)
    alone = []
    for number, member in enumerate(members):
        save(member, tmp_path / f"{number}.safetensors")
        alone.append(load_model(tmp_path / f"{number}.safetensors", "cpu").predict(image, probabilities=True))
    save(joined(members), tmp_path / "all.safetensors")
    model = load_model(tmp_path / "all.safetensors", "cpu")
    together = model.predict(image, probabilities=True)
    assert together.probabilities is not None
    mean = np.mean([one.probabilities for one in alone], axis=0)
    np.testing.assert_allclose(together.probabilities, mean, atol=1e-4)
    assert load_bundle(tmp_path / "all.safetensors").description.members == 3


def test_models_that_differ_are_no_ensemble() -> None:
    other = bundle(1, classes=ClassTable.from_names(["a", "c"]))
    with pytest.raises(BundleError, match="classes is not that of the first"):
        joined([bundle(0), other])


def told_again(said: np.ndarray, classes: int) -> torch.Tensor:
    """Probabilities K H W of what is kept of them."""
    return unpacked(torch.from_numpy(np.array(said)).permute(2, 0, 1)[None], classes)[0]


def test_a_teacher_says_what_its_model_predicts_and_looks_once(discs: Path, tmp_path: Path) -> None:
    data = scan(discs)
    cases = Cache(tmp_path, data).open_all(data.cases[:2])
    model = of_bundle(bundle(0), "cpu")
    told = Teacher(model, tmp_path).open_all(cases)
    for case, opened in zip(cases, told, strict=True):
        expected = model.predict(case.image, probabilities=True).probabilities
        said = told_again(opened(), 2)
        np.testing.assert_allclose(said.numpy(), expected, atol=0.6 / 255)
    deaf = Mock(spec=Model, identity=model.identity)
    again = Teacher(deaf, tmp_path).open_all(cases)
    np.testing.assert_array_equal(again[1](), told[1]())
    deaf.bands.assert_not_called()
    other = of_bundle(bundle(1), "cpu")
    assert not np.array_equal(Teacher(other, tmp_path).open_all(cases)[0](), told[0]())
    damaged = next(tmp_path.rglob("*.told.npy"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    restored = [opened() for opened in Teacher(model, tmp_path).open_all(cases)]
    for now, before in zip(restored, told, strict=True):
        np.testing.assert_array_equal(now, before())


def test_an_image_that_a_teacher_cannot_look_at_is_named(discs: Path, tmp_path: Path) -> None:
    data = scan(discs)
    grey = Cache(tmp_path, data).open(data.cases[0])
    five = replace(grey, open_image=lambda: np.random.default_rng(0).integers(0, 255, (*grey.size, 5), np.uint8))
    with pytest.raises(DataError, match=f"{data.cases[0].image.name}"):
        Teacher(of_bundle(bundle(0), "cpu"), tmp_path).open_all([five])


def test_of_many_classes_the_most_probable_ones_are_kept() -> None:
    """The others have an equal share each of what is left, worked out by hand."""
    probabilities = torch.tensor([0.02, 0.6, 0.2, 0.1, 0.08])[:, None, None]
    said = packed(probabilities)
    assert said.tolist() == [[[1, 2, 3, 153, 51, 26]]]  # 0.6, 0.2 and 0.102 of 255
    full = told_again(said, 5)[:, 0, 0]
    rest = (255 - 153 - 51 - 26) / 255 / 2
    np.testing.assert_allclose(full, [rest, 0.6, 0.2, 26 / 255, rest], atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 4, 20])
def test_what_was_packed_are_probabilities_again(classes: int) -> None:
    probabilities = torch.softmax(3.0 * torch.randn(classes, 40, 30, generator=torch.Generator().manual_seed(0)), dim=0)
    full = told_again(packed(probabilities), classes)
    np.testing.assert_allclose(full.sum(0), 1.0, atol=1e-5)
    kept = probabilities.topk(min(3, classes - 1), dim=0).indices
    torch.testing.assert_close(full.gather(0, kept), probabilities.gather(0, kept), atol=1.0 / 255, rtol=0.0)


def test_the_lesson_is_least_where_both_say_the_same() -> None:
    """There it is the entropy of the teacher, by hand."""
    probabilities = torch.tensor([0.25, 0.75])[None, :, None, None].expand(1, 2, 3, 4)
    same = to_teacher(probabilities.log(), probabilities)
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert float(same) == pytest.approx(entropy, rel=1e-5)
    assert float(to_teacher(torch.zeros(1, 2, 3, 4), probabilities)) == pytest.approx(np.log(2.0), rel=1e-5)


def test_the_lesson_has_the_dice_loss_of_masks_and_is_least_at_what_the_teacher_says() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, mask = torch.randn(2, 3, 6, 5, generator=generator), torch.randint(0, 3, (2, 6, 5), generator=generator)
    certain = torch.nn.functional.one_hot(mask, 3).permute(0, 3, 1, 2).float()
    config = LossConfig(name="dice_cross_entropy", dice_weight=0.7)
    torch.testing.assert_close(lesson(config)(logits, certain), build_loss(config)(logits, mask, None))
    mask[mask == 2] = 0  # a class that nobody says is there is not averaged over
    certain = torch.nn.functional.one_hot(mask, 3).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(lesson(config)(logits, certain), build_loss(config)(logits, mask, None))
    soft = torch.softmax(torch.randn(2, 3, 6, 5, generator=generator), dim=1)
    at_teacher = soft.log().requires_grad_()
    value = to_teacher(at_teacher, soft, dice_weight=0.7)
    entropy = -(soft * soft.log()).sum(1).mean()
    assert float(value.detach()) == pytest.approx(float(entropy), rel=1e-5)  # the semimetric is zero
    for number in range(20):
        step = 0.1 * torch.randn(soft.shape, generator=torch.Generator().manual_seed(number))
        assert float(to_teacher(soft.log() + step, soft, dice_weight=0.7)) > float(value.detach())


def test_a_network_that_learns_is_like_its_teacher_where_nobody_says_otherwise() -> None:
    taught = bundle(0)
    config = adopt_network(load(None, ["model.width=8"]), taught, taught.description.classes)
    assert (config.model.width, config.model.depth) == (8, 2)
    with pytest.raises(BundleError, match="teacher knows a, b"):
        adopt_network(Config(), taught, ClassTable.from_names(["b", "a"]))
    with pytest.raises(ConfigError, match="before it is augmented"):
        refuse_own_augmentation(load(None, ["augment.own=mine:change"]))


@pytest.mark.slow
def test_folds_give_one_report_an_ensemble_and_a_teacher(discs: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "folds", [part for one in QUICK for part in ("--set", one)]
    command = ["train", str(discs), "--folds", "3", "--out", str(out), *settings]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    sides = [json.loads((out / f"fold-{fold}" / "split.json").read_text()) for fold in range(3)]
    validated = [name for side in sides for name in side["validation"]]
    assert len(set(validated)) == len(validated)
    assert len({tuple(side["test"]) for side in sides}) == 1
    assert sorted([*validated, *sides[0]["test"]]) == sorted(path.stem for path in (discs / "images").iterdir())
    merged = json.loads((out / "out-of-fold" / "scores.json").read_text())
    assert merged["split"] == "out-of-fold"
    assert sorted(row["name"] for row in merged["per_image"]) == sorted(validated)
    # counts of an image out of folds are those of its fold's model on its validation side
    alone = api.evaluate(out / "fold-1", split="validation")
    rows = {row["name"]: row for row in merged["per_image"]}
    for name, counts in zip(alone.names, alone.counts, strict=True):
        assert sum(pixels for _, _, pixels in rows[name]["confusion"]) == int(counts.sum())
    assert load_bundle(out).description.members == 3
    assert "every image by the model that has not seen it" in result.output
    assert result.output.count("8 images with masks") == 1
    scores = api.evaluate(out)
    assert scores.split == "test"
    seen = [set(json.loads((place / "run.json").read_text())["training_images"]) for place in (out, out / "fold-1")]
    assert seen[1] < seen[0]
    # a second call has nothing to do but to join
    assert isinstance(CliRunner().invoke(app, command).exception, ConfigError)
    facts = json.loads((out / "fold-1" / "run.json").read_text())
    (out / "fold-1" / "run.json").write_text(json.dumps(facts | {"training_images": None}))
    first = (out / "fold-0" / "best.safetensors").stat().st_mtime_ns
    assert CliRunner().invoke(app, [*command, "--resume"]).exit_code == 0
    assert (out / "fold-0" / "best.safetensors").stat().st_mtime_ns == first
    assert json.loads((out / "run.json").read_text())["training_images"] is None  # one of its models does not say it

    with pytest.raises(BundleError, match="ensemble of 3"):  # before the data, which are not there, are looked for
        pixelwise.train(tmp_path / "nowhere", tmp_path / "tuned", start_from=out)
    taught = pixelwise.train(discs, tmp_path / "taught", config=pixelwise.settings(None, QUICK), teacher=out)
    assert json.loads(Files(taught.folder).begun.read_text())["teacher"] == str(out.resolve())
    assert load_bundle(taught.folder).description.members == 1


@pytest.mark.parametrize(
    ("taken", "expected"),
    [([80.0, 80.0, 80.0], [100.0, 100.0, 100.0]), ([10.0, 115.0, 115.0], [100.0, 135.0, 135.0])],
    ids=["to the end", "the first one out of patience"],
)
def test_folds_share_the_time_and_keep_some_for_joining(
    taken: list[float], expected: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 s for three; each keeps 20 s of its share."""
    now, given = [0.0], list[float]()

    def train(_data: object, folder: Path, *, config: Config, **_: object) -> Run:
        assert config.training.time is not None
        given.append(config.training.time)
        now[0] += taken[len(given) - 1]
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(config.to_yaml())
        return Run(folder, kept_seconds=20.0)

    monkeypatch.setattr(folds, "train", train)
    monkeypatch.setattr(folds, "checked", lambda *_: None)
    monkeypatch.setattr(folds, "clocks", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(folds, "_join_folds", lambda place, *_: folds.Folds(Run(place), None))
    folds.train_folds(tmp_path, 3, tmp_path / "folds", time=300.0)
    assert given == pytest.approx(expected)
    # the last one again, with two minutes for it and for joining all of them
    now[0], given[:] = 0.0, []
    shutil.rmtree(tmp_path / "folds" / "fold-2")
    (tmp_path / "folds" / "fold-0" / "begun.json").touch()
    folds.train_folds(tmp_path, 3, tmp_path / "folds", time=120.0, resume=True)
    assert given == [120.0 - 2 * 20.0]


def test_folds_start_from_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", str(tmp_path), "--folds", "3", "--from", "run"])
    assert isinstance(result.exception, ConfigError)
    assert "neither with --from" in str(result.exception)
