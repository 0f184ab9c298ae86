"""Which images a model is scored on, how their masks are read, and what a run's folder must hold for that."""

import json
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, draw_discs
from PIL import Image

import pixelwise
from pixelwise import api
from pixelwise.classes import IGNORE, ClassTable
from pixelwise.data.cache import Cache, default_folder
from pixelwise.data.check import examine
from pixelwise.data.dataset import Dataset, MaskEncoding
from pixelwise.data.finding import to_json
from pixelwise.data.folder import scan
from pixelwise.errors import ConfigError, DataError
from pixelwise.evaluation import evaluate as evaluation
from pixelwise.evaluation import results
from pixelwise.evaluation.evaluate import Evaluated, examples
from pixelwise.evaluation.sides import for_model
from pixelwise.facts import RunFacts
from pixelwise.inference import predictor
from pixelwise.inference.predictor import Model
from pixelwise.metrics import Scores
from pixelwise.training import processes
from pixelwise.training import run as runs
from pixelwise.training.history import Epoch
from pixelwise.training.watch import Watcher
from pixelwise.verbs import scores as verbs
from pixelwise.verbs.train import _what_is_left as what_is_left


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
    explicit = api.evaluate(trained / "run", trained / "run" / ".." / "data")
    assert explicit.split == "test"
    assert sorted(explicit.names) == names(trained / "run", "test")


def test_any_side_of_a_runs_own_data_can_be_chosen(trained: Path) -> None:
    for side in ("train", "validation"):
        scores = pixelwise.evaluate(trained / "run", trained / "data", split=side)
        assert sorted(scores.names) == names(trained / "run", side)


def test_other_data_without_sides_are_scored_whole_and_say_so(trained: Path, tmp_path: Path) -> None:
    result = api.evaluate(trained / "run", trained / "other", out=tmp_path)
    assert result.split == "all"
    assert len(result.names) == 3
    assert json.loads((tmp_path / "scores.json").read_text())["split"] == "all"


def test_evaluations_in_folders_of_their_own_can_be_compared(trained: Path, tmp_path: Path) -> None:
    own, other = (tmp_path / name for name in ("own", "other"))
    pixelwise.evaluate(trained / "run", out=own)
    pixelwise.evaluate(trained / "run", trained / "other", out=other)
    pixelwise.evaluate(trained / "run" / "best.safetensors", trained / "other", out=tmp_path / "bundle")
    same = pixelwise.compare([trained / "run", own])
    assert same.settings == {}
    facts = re.findall(r"<dd>(.*?)</dd>", (own / "report.html").read_text().partition('<dl class="facts">')[2])
    assert sum("0 background" in fact for fact in facts) == 1
    assert same.settings_known
    assert [verdict.difference.value for verdict in same.verdicts] == [0.0]
    elsewhere = pixelwise.compare([other, tmp_path / "bundle"])
    assert elsewhere.settings == {}
    assert elsewhere.settings_known
    (warning,) = elsewhere.warnings
    assert warning.startswith("bundle: it is not known which images this model was trained on")
    assert "other images" in " ".join(pixelwise.compare([trained / "run", other]).warnings)
    assert json.loads((trained / "run" / "scores.json").read_text())["model"] == ""
    assert json.loads((other / "scores.json").read_text())["model"] == str((trained / "run").resolve())


@pytest.mark.parametrize("side", ["train", "validation", "test"])
def test_a_side_that_other_data_do_not_have_is_an_error(trained: Path, side: str) -> None:
    with pytest.raises(DataError, match=f"no {side} images.*--split all"):
        pixelwise.evaluate(trained / "run", trained / "other", split=side)


def test_the_test_side_that_other_data_give_is_taken(trained: Path, tmp_path: Path) -> None:
    for side, count, seed in (("train", 3, 1), ("test", 2, 2)):
        draw_discs(tmp_path / "other" / side, count=count, seed=seed)
    assert api.evaluate(trained / "run", tmp_path / "other").split == "test"
    assert len(pixelwise.evaluate(trained / "run", tmp_path / "other").names) == 2


def test_a_loaded_model_does_not_know_its_data(trained: Path) -> None:
    model = pixelwise.load(trained / "run")
    assert api.evaluate(model, trained / "data").split == "all"
    with pytest.raises(DataError, match="--split all"):
        pixelwise.evaluate(model, trained / "data", split="test")


# --- what masks mean ---


def dataset(classes: tuple[str, ...], *, named: bool = False, **encoding: object) -> Dataset:
    return Dataset(Path("other"), (), ClassTable.from_names(classes), MaskEncoding(**encoding), "", named=named)


def said_of(**encoding: object) -> RunFacts:
    return RunFacts(data="/data", mask_encoding=MaskEncoding(**encoding))


SKY_ROAD_CAR = ClassTable.from_names(["sky", "road", "car"])


def test_masks_of_other_data_that_lack_a_class_are_read_as_in_the_run() -> None:
    said = RunFacts(data="/data", mask_encoding=MaskEncoding(kind="values", values={0: 0, 1: 1, 7: 2, 255: 255}))
    classes = ClassTable.from_names(["background", "cell", "nucleus"])
    lacking = dataset(("background", "object"), kind="values", values={0: 0, 7: 1})
    read = for_model(lacking, said, classes)
    assert read.encoding.values == {0: 0, 1: 1, 7: 2, 255: 255}
    assert read.classes == classes


@pytest.mark.parametrize(("found", "read"), [(IGNORE, IGNORE), (None, None), (1, None)])
def test_a_few_stray_values_of_other_data_are_ignored_as_training_on_them_would(
    found: int | None, read: int | None
) -> None:
    said = said_of(kind="values", values={0: 0, 128: 1, 255: 2})
    other = dataset(("background", "a", "b"), kind="values", values={0: 0, 128: 1, 255: 2}, other=found)
    encoding = for_model(other, said, ClassTable.from_names(["background", "a", "b"])).encoding
    assert (encoding.values, encoding.other) == ({0: 0, 128: 1, 255: 2}, read)


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "values", "values": {0: 0, 1: 1, 9: 2}},
        {"kind": "colors", "colors": {(0, 0, 0): 0, (255, 0, 0): 1, (0, 0, 255): 2}, "named": True},
    ],
)
def test_masks_that_the_run_does_not_cover_are_read_as_found_if_their_classes_are_the_models(
    other: dict[str, Any],
) -> None:
    said = RunFacts(data="/data", mask_encoding=MaskEncoding(kind="values", values={0: 0, 1: 1, 7: 2}))
    names = ("background", "cell", "nucleus")
    found = dataset(names, **other)
    assert for_model(found, said, ClassTable.from_names(names)).encoding == found.encoding
    with pytest.raises(DataError, match="the model knows background, cell, nucleus"):
        for_model(dataset(("background", "a", "b"), **other), said, ClassTable.from_names(names))


def test_the_same_masks_stored_with_other_values_have_the_same_scores(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "other", tmp_path / "other")
    recolor(tmp_path / "other" / "masks", {0: 0, 1: 255})
    names = "\n".join(f"  {i}: {name}" for i, name in enumerate(pixelwise.load(trained / "run").classes.names))
    (tmp_path / "other" / "data.yaml").write_text(f"names:\n{names}\n")
    expected = pixelwise.evaluate(trained / "run", trained / "other")
    assert torch.equal(pixelwise.evaluate(trained / "run", tmp_path / "other").counts, expected.counts)


def test_the_same_masks_with_classes_in_another_order_have_the_same_scores(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "other", tmp_path / "other")
    recolor(tmp_path / "other" / "masks", {0: 1, 1: 0})
    (tmp_path / "other" / "data.yaml").write_text("names: [object, background]\n")
    expected = pixelwise.evaluate(trained / "run", trained / "other")
    assert torch.equal(pixelwise.evaluate(trained / "run", tmp_path / "other").counts, expected.counts)


def test_names_that_the_model_does_not_know_are_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "other", tmp_path / "other")
    (tmp_path / "other" / "data.yaml").write_text("names: [background, cell]\n")
    with pytest.raises(DataError, match=r"classes background, cell; the model knows background, object.*data\.yaml"):
        pixelwise.evaluate(trained / "run", tmp_path / "other")


@pytest.mark.parametrize("run_knows_values", [True, False])
def test_named_classes_are_those_of_the_model_with_these_names_whatever_the_values(run_knows_values: bool) -> None:
    said = said_of(kind="values", values={0: 0, 1: 1, 2: 2}) if run_knows_values else None
    fewer = dataset(("road", "car"), named=True, kind="values", values={0: 0, 1: 1, 255: IGNORE})
    assert for_model(fewer, said, SKY_ROAD_CAR).encoding.values == {0: 1, 1: 2, 255: IGNORE}
    other = dataset(("road", "sky", "tree"), named=True, kind="values", values={0: 0, 1: 1, 2: 2})
    with pytest.raises(DataError, match=r"tree.*the model knows sky, road, car"):
        for_model(other, said, SKY_ROAD_CAR)
    colors = dataset(("car", "sky"), named=True, kind="colors", colors={(0, 0, 0): 0, (9, 9, 9): 1}, other=IGNORE)
    read = for_model(colors, said, SKY_ROAD_CAR).encoding
    assert (read.colors, read.other) == ({(0, 0, 0): 2, (9, 9, 9): 0}, IGNORE)


def test_names_of_a_list_give_way_to_the_table_of_a_run_whose_names_were_made_up() -> None:
    said = said_of(kind="values", values={0: 0, 1: 1, 2: 2})
    listed = dataset(("background", "cat", "dog"), named=True, kind="values", values={0: 0, 1: 1, 2: 2})
    listed = replace(listed, listed=True)
    made_up = ClassTable.from_names(["class 0", "class 1", "class 2"])
    read = for_model(listed, said, made_up)
    assert (read.encoding.values, read.classes) == ({0: 0, 1: 1, 2: 2}, made_up)
    assert "masks are read as those of its run, whatever the list calls them" in read.notices[-1]
    uncovered = replace(listed, encoding=MaskEncoding(kind="values", values={0: 0, 1: 1, 2: 2, 3: 2}))
    for other, model in ((uncovered, made_up), (replace(listed, listed=False), made_up), (listed, SKY_ROAD_CAR)):
        with pytest.raises(DataError, match="have the classes background, cat, dog; the model knows"):
            for_model(other, said, model)


def test_names_that_no_value_stands_for_do_not_count() -> None:
    unused = dataset(("sky", "class 1", "car"), named=True, kind="values", values={0: 0, 7: 2})
    assert for_model(unused, None, SKY_ROAD_CAR).encoding.values == {0: 0, 7: 2}


def test_categories_of_another_coco_file_go_by_name_and_not_by_number() -> None:
    classes = ClassTable.from_names(["background", "cell", "nucleus"])
    said = said_of(kind="coco", values={1: 1, 2: 2})
    swapped = dataset(("background", "nucleus", "cell"), named=True, kind="coco", values={1: 1, 2: 2})
    assert for_model(swapped, said, classes).encoding.values == {1: 2, 2: 1}
    for names in (("background", "dog", "cell"), ("nothing", "nucleus", "cell")):
        with pytest.raises(DataError, match="the model knows background, cell, nucleus"):
            for_model(dataset(names, named=True, kind="coco", values={1: 1, 2: 2}), said, classes)


def test_the_object_of_instance_masks_must_be_the_first_class_of_the_model() -> None:
    instances = dataset(("background", "cell"), named=True, kind="instances")
    assert for_model(instances, None, ClassTable.from_names(["background", "cell", "x"])).encoding.kind == "instances"
    with pytest.raises(DataError, match="the model knows"):
        for_model(instances, None, ClassTable.from_names(["background", "x", "cell"]))


@pytest.mark.parametrize(
    ("known", "found"), [({0: 0, 1: 1, 255: IGNORE}, {0: 0, 255: 1}), ({0: 0, 255: 1}, {0: 0, 1: 1, 255: IGNORE})]
)
def test_a_value_that_is_ignored_on_one_side_and_a_class_on_the_other_is_refused(
    known: dict[int, int], found: dict[int, int]
) -> None:
    names = ("background", "object")
    said, classes = said_of(kind="values", values=known), ClassTable.from_names(names)
    with pytest.raises(DataError, match=r"255 is (ignored|a class) in these masks.*in those of the run.*data\.yaml"):
        for_model(dataset(names, kind="values", values=found), said, classes)
    declared = dataset(names, named=True, kind="values", values=found)
    assert for_model(declared, said, classes).encoding.values == found


def test_colours_without_names_are_not_matched_by_how_frequent_they_are() -> None:
    names = ("background", "class 1", "class 2")
    colors = {(0, 0, 0): 0, (255, 0, 0): 1, (0, 0, 255): 2}
    for said in (said_of(kind="colors", colors={(0, 0, 0): 0, (0, 255, 0): 1, (0, 0, 255): 2}), None):
        with pytest.raises(DataError, match="which classes these are"):
            for_model(dataset(names, kind="colors", colors=colors), said, ClassTable.from_names(names))


@pytest.mark.parametrize(
    ("declared", "named"),
    [
        ("", False),
        ("ignore: 7", False),
        ("values: {0: 0, 1: 1, 7: ignore}", False),
        ("names: [ground, disc]", True),
        ("values: {0: ground, 1: disc}", True),
    ],
)
def test_a_folder_says_whether_its_classes_have_names(discs: Path, declared: str, named: bool) -> None:
    (discs / "data.yaml").write_text(f"{declared}\nmasks_dir: masks\n")
    assert scan(discs).named == named


# --- what was trained on ---


def write_digests(run: Path, data: Path) -> None:
    """Let the run say which images it was trained on."""
    found = scan(data)
    digests = {case.name: Cache(default_folder(), found).open(case).digest for case in found.cases}
    facts = json.loads((run / "run.json").read_text())
    facts["training_images"] = [digests[name] for name in names(run, "train")]
    (run / "run.json").write_text(json.dumps(facts))


def test_images_that_were_trained_on_are_told_although_the_data_were_moved(
    trained: Path, run: Path, tmp_path: Path
) -> None:
    write_digests(run, trained / "data")
    moved = shutil.copytree(trained / "data", tmp_path / "moved")
    watcher = Recorder()
    assert api.evaluate(run, moved, out=tmp_path / "out", watcher=watcher).split == "all"
    count = len(names(run, "train"))
    assert any(f"{count} of these 8 images were trained on" in line for line in watcher.heard)
    told = r"trained on</dt>\s*<dd[^>]*>{}</dd>"
    assert re.search(told.format(count), (tmp_path / "out" / "report.html").read_text())
    for data in (None, trained / "other"):
        watcher = Recorder()
        pixelwise.evaluate(run, data, out=tmp_path / "out", watcher=watcher)
        assert not any("trained on" in line for line in watcher.heard)
        assert re.search(told.format("none"), (tmp_path / "out" / "report.html").read_text())


def test_of_a_bundle_it_is_not_known_which_images_were_trained_on(trained: Path, tmp_path: Path) -> None:
    watcher = Recorder()
    pixelwise.evaluate(trained / "run" / "best.safetensors", trained / "other", out=tmp_path, watcher=watcher)
    assert any("not known which images" in line for line in watcher.heard)
    assert re.search(r'class="caution">It is not known which images', (tmp_path / "report.html").read_text())
    assert re.search(r"trained on</dt>\s*<dd[^>]*>not known</dd>", (tmp_path / "report.html").read_text())


# --- work ---


def test_every_image_is_predicted_once(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predicted: list[int] = []
    original = Model.prepare
    monkeypatch.setattr(Model, "prepare", lambda self, *given: predicted.append(1) or original(self, *given))
    pixelwise.evaluate(trained / "run", split="all", out=tmp_path)
    assert len(predicted) == 8


@pytest.fixture(scope="module")
def student(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run that starts and learns from another, which has seen its test images; and what was said."""

    class Listening(Watcher):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def say(self, text: str) -> None:
            self.lines.append(" ".join(text.split()))

        def epoch(self, epoch: Epoch, is_best: bool) -> None:  # noqa: ARG002
            self.lines.append("epoch")

    listening, source = Listening(), trained / "run"
    config = pixelwise.settings(None, [*QUICK, "seed=3"])  # other images on the test side
    folder = tmp_path_factory.mktemp("student") / "run"
    write = results.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "write", lambda *given: listening.lines.append("report") or write(*given))
        pixelwise.train(trained / "data", folder, config=config, start_from=source, teacher=source, watcher=listening)
    return folder, listening.lines


@pytest.mark.slow
def test_images_that_a_teacher_was_trained_on_are_told_before_training(
    trained: Path, student: tuple[Path, list[str]]
) -> None:
    folder, lines = student
    taught = set(names(trained / "run", "train")) & set(names(folder, "test"))
    assert taught
    warning = f"WARNING: {len(taught)} of the 1 test images were trained on by the teacher, {trained / 'run'}."
    before = lines[: lines.index("epoch")]
    assert any(line.startswith(warning) and "the split of that run (--seed " in line for line in before)
    both = f"begins with the weights of {trained / 'run'}, learns from {trained / 'run'} and the masks"
    assert both in before
    found = json.loads((folder / "findings.json").read_text())
    (kept,) = [one for one in found if one["severity"] == "warning" and "the teacher" in one["what"]]
    assert [Path(file).stem for file in kept["files"]] == sorted(taught)


@pytest.mark.slow
def test_scores_of_images_that_a_teacher_was_trained_on_are_marked(
    trained: Path, student: tuple[Path, list[str]]
) -> None:
    folder, lines = student
    facts = json.loads((folder / "run.json").read_text())
    assert facts["started_from"] == facts["teacher"] == str(trained / "run")
    assert any(line.startswith("warning: 1 of these 1 images were trained on") for line in lines)
    (marked,) = re.findall(r'<p class="caution">(.*?)</p>', (folder / "report.html").read_text())
    assert marked.startswith("1 of these 1 images were trained on")
    assert f"its teacher ({trained / 'run'})" in marked
    assert 'class="caution"' not in (trained / "run" / "report.html").read_text()
    result = pixelwise.compare([trained / "run", folder])
    assert f"its teacher ({trained / 'run'})" in result.warnings[0]
    assert result.settings["teacher"] == (None, str(trained / "run"))


@pytest.mark.slow
def test_what_was_forgotten_is_scored_before_and_now_and_shown(
    trained: Path, student: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, lines = student
    assert lines.count("report") == 1
    test = tmp_path / "test"
    for part in ("images", "masks"):
        (test / part).mkdir(parents=True)
        for name in names(trained / "run", "test"):
            shutil.copy(trained / "data" / part / f"{name}.png", test / part)
    kept = json.loads((folder / "forgetting.json").read_text())
    assert (kept["source"], kept["side"], kept["images"]) == (str(trained / "run"), "test", 1)
    for run, column in ((trained / "run", "before"), (folder, "after")):
        scores = api.evaluate(run, test, split="all")
        assert [row["name"] for row in kept["classes"]] == list(scores.classes)
        assert [row[column] for row in kept["classes"]] == pytest.approx(scores.iou.tolist())
    assert 'id="forgotten-table"' in (folder / "report.html").read_text()
    pixelwise.evaluate(folder, out=tmp_path / "again")
    assert 'id="forgotten-table"' in (tmp_path / "again" / "report.html").read_text()
    assert 'id="forgotten-table"' not in (trained / "run" / "report.html").read_text()


class Notes(Watcher):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.slow
def test_what_was_forgotten_is_found_by_the_bundle_of_a_run_and_a_source_that_is_gone_is_told(
    trained: Path, student: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder = shutil.copytree(student[0], tmp_path / "run")
    kept = json.loads((folder / "forgetting.json").read_text())
    again = what_is_left(trained / "run" / "best.safetensors", folder, Notes())
    assert again is not None
    assert again.model_dump(mode="json") == kept | {"source": str(trained / "run" / "best.safetensors")}
    alone = shutil.copy(trained / "run" / "best.safetensors", tmp_path / "alone.safetensors")
    for source, why in ((tmp_path / "moved", "is gone"), (alone, "does not know its data")):
        (folder / "forgetting.json").write_text("of another time")
        notes = Notes()
        assert what_is_left(source, folder, notes) is None
        (said,) = notes.said
        assert str(source) in said
        assert why in said
        assert not (folder / "forgetting.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("content", ["[]", '[{"name": "object", "before": 0.5, "after": 0.4}]', "{"])
def test_what_was_forgotten_is_left_out_where_its_file_cannot_be_read(
    content: str, student: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, notes = shutil.copytree(student[0], tmp_path / "run"), Notes()
    (folder / "forgetting.json").write_text(content)
    pixelwise.evaluate(folder, out=folder, watcher=notes)
    assert 'id="forgotten-table"' not in (folder / "report.html").read_text()
    (said,) = [text for text in notes.said if "forgotten" in text]
    assert said.startswith("note: ")
    assert "forgetting.json" in said


def test_flips_that_are_asked_for_are_averaged_over(trained: Path) -> None:
    scores = api.evaluate(trained / "run", trained / "other", flips="both")
    model = api.load(trained / "run")
    flipped = model.with_prediction(model.description.prediction.model_copy(update={"flips": "both"}))
    for number, name in enumerate(scores.names):
        image = np.asarray(Image.open(trained / "other" / "images" / f"{name}.png"))
        predicted = np.bincount(flipped.predict(image).mask.ravel(), minlength=len(model.classes))
        np.testing.assert_array_equal(scores.counts[number].sum(0), predicted)
    plain = api.evaluate(trained / "run", trained / "other")
    assert not torch.equal(plain.counts, scores.counts)


def test_masks_too_large_to_keep_are_predicted_again(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[Evaluated] = []
    original = verbs.evaluate_cases
    monkeypatch.setattr(verbs, "evaluate_cases", lambda *given: pairs.append(original(*given)) or pairs[-1])
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
    original = predictor.load
    monkeypatch.setattr(predictor, "load", lambda path, device: devices.append(device) or original(path, "cpu"))
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
        ("findings.json", "{}"),
        ("findings.json", '[{"severity": "warning", "what": 3}]'),
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
        ({"WORLD_SIZE": "2", "RANK": "0"}, True),
        ({"WORLD_SIZE": "2", "RANK": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}, True),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, False),
    ],
)
def test_one_of_several_processes_speaks(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], speaks: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    other = SimpleNamespace(folder=tmp_path, is_main=False, interrupted=False, kept_seconds=0.0)
    monkeypatch.setattr(runs, "train", lambda _request, watcher: watcher.say("training") or other)
    watcher = Recorder()
    assert not pixelwise.train(discs, tmp_path / "run", watcher=watcher).is_main
    assert bool(watcher.heard) == speaks


def test_what_the_check_found_is_kept_for_reports_of_later_evaluations(trained: Path, run: Path) -> None:
    few, *found = json.loads((run / "findings.json").read_text())
    assert few["what"] == "The test side has 1 image."
    assert found == to_json(examine(scan(trained / "data")))
    finding = {"severity": "warning", "what": "Odd images.", "files": ["7.png"], "cause": "", "remedy": "Look."}
    (run / "findings.json").write_text(json.dumps([finding]))
    pixelwise.evaluate(run, out=run)
    assert "Odd images." in (run / "report.html").read_text()
    (run / "findings.json").unlink()
    pixelwise.evaluate(run, out=run)
    assert "Odd images." not in (run / "report.html").read_text()


# --- the run's folder ---


def test_runs_that_begin_at_once_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "data-2").symlink_to("nowhere")
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(api.new_run_folder, [Path("data")] * 16))
    assert sorted(folders) == sorted(Path("runs", f"data-{number}") for number in (1, *range(3, 18)))
    assert all(folder.is_dir() for folder in folders)


def test_a_folder_for_runs_that_cannot_be_created_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("")
    with pytest.raises(DataError) as caught:
        api.new_run_folder(Path("data"))
    assert caught.value.where == Path("runs", "data-1")


@pytest.mark.parametrize("is_first", [True, False])
def test_the_first_process_chooses_the_folder_for_all(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    requests: list[runs.Request] = []
    other = SimpleNamespace(folder=tmp_path, is_main=False, interrupted=False, kept_seconds=0.0)
    monkeypatch.setattr(runs, "train", lambda request, _watcher: requests.append(request) or other)
    fabric = SimpleNamespace(
        is_global_zero=is_first, broadcast=lambda folder: folder if is_first else Path("runs", "first")
    )
    monkeypatch.setattr(processes, "join", lambda _config: fabric)
    pixelwise.train(discs)
    assert requests[0].folder == Path("runs", "discs-1" if is_first else "first")
    assert (tmp_path / "runs" / "discs-1").exists() == is_first


def test_data_that_cannot_be_trained_on_leave_no_folder(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (discs / "masks" / "3.png").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be trained on"):
        pixelwise.train(discs)
    assert not (tmp_path / "runs").exists()


# --- settings ---


def test_texts_are_possible_together_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "shallow.yaml").write_text("model: {depth: 2}\ntraining: {time: 900}\n")
    texts = ["model.norm=instance", "data.patch_size=16", "training={epochs: 3}"]
    config = pixelwise.settings(tmp_path / "shallow.yaml", texts)
    assert (config.model.depth, config.model.norm, config.training.epochs) == (2, "instance", 3)
    with pytest.raises(ConfigError, match="instance"):
        pixelwise.settings(None, texts)


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
    other = SimpleNamespace(folder=tmp_path, is_main=False, interrupted=False, kept_seconds=0.0)
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


def test_a_preview_of_two_images_needs_no_split_and_tells_its_progress(tmp_path: Path) -> None:
    draw_discs(tmp_path / "data", count=2)
    watcher = Recorder()
    config = pixelwise.settings(None, QUICK)
    assert pixelwise.preview(tmp_path / "data", tmp_path / "p.png", config, patches=4, watcher=watcher).exists()
    assert "reading images" in watcher.heard


def test_runs_are_compared_through_the_facade(trained: Path) -> None:
    comparison = pixelwise.compare([trained / "run", str(trained / "run")])
    scores = Scores.from_summary(json.loads((trained / "run" / "scores.json").read_text()))
    assert comparison.scores["mIoU, pooled"] == (pytest.approx(scores.miou),) * 2
