"""Comparing runs: folders written by hand, tables read back."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pixelwise.errors import ConfigError, DataError
from pixelwise.evaluation.compare import Comparison, compare


def make_run(folder: Path, miou: float | None, settings: dict[str, Any] | None = None, **changes: Any) -> Path:
    iou = changes.get("iou", {"background": 0.9, "cell": miou})
    images = changes.get("images", ["a", "b"])
    scores = {
        "images": 2,
        "classes": list(iou),
        "pooled": {
            "miou": miou,
            "dice": 0.8,
            "pixel_accuracy": 0.95,
            "per_class": [
                {"name": name, "iou": value, "dice": 0.5, "precision": None, "recall": None, "pixels": 3}
                for name, value in iou.items()
            ],
        },
        "image_mean": {"miou": 0.6, "dice": None},
        "confusion": [[1, 0], [0, 1]],
        "per_image": [
            {"name": name, "miou": 0.1, "confusion": confusion}
            for name, confusion in changes.get("counts", {key: [[0, 0, 5], [1, 1, 5]] for key in images}).items()
        ],
        **{key: changes[key] for key in ("model", "trained_on", "caution") if key in changes},
    }
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    tree = settings if settings is not None else {"seed": 0, "training": {"batch_size": 8}}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    first = make_run(tmp_path / "first", 0.71, {"seed": 0, "model": {"width": 32}, "loss": {"name": "dice"}})
    second = make_run(tmp_path / "second", 0.745, {"seed": 1, "model": {"width": 32, "norm": "group"}})
    return [first, second]


def line(text: str, beginning: str) -> list[str]:
    (found,) = [each for each in text.splitlines() if each.startswith(beginning)]
    return found.removeprefix(beginning).split()


def test_scores_stand_in_the_order_of_the_runs(pair: list[Path]) -> None:
    result = compare(pair)
    assert result.runs == ("first", "second")
    assert result.scores["mIoU, pooled"] == (0.71, 0.745)
    assert result.scores["Dice, mean of images"] == (None, None)
    assert result.iou == {"background": (0.9, 0.9), "cell": (0.71, 0.745)}
    assert compare(pair[::-1]).scores["mIoU, pooled"] == (0.745, 0.71)


def test_only_settings_that_differ_are_shown(pair: list[Path]) -> None:
    assert dict(compare(pair).settings) == {"seed": (0, 1), "loss.name": ("dice", None), "model.norm": (None, "group")}


def test_runs_on_the_same_images_and_classes_give_no_warning(pair: list[Path]) -> None:
    assert compare(pair).warnings == ()


def test_other_test_images_are_a_warning_that_counts_them(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", 0.5, images=["a", "b", "c"])
    second = make_run(tmp_path / "second", 0.6, images=["b", "d"])
    (warning,) = compare([first, second]).warnings
    assert "1 of its 2" in warning
    assert "2 are missing" in warning
    assert warning in " ".join(compare([first, second]).to_text(60).split())


def test_other_classes_are_a_warning_and_leave_gaps(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", 0.5, iou={"background": 0.9, "cell": 0.1})
    second = make_run(tmp_path / "second", 0.5, iou={"background": 0.8, "nucleus": None})
    result = compare([first, second])
    assert "cell, nucleus" in result.warnings[0]
    assert result.iou == {"background": (0.9, 0.8), "cell": (0.1, None), "nucleus": (None, None)}


# --- whether a difference is real ------------------------------------------------------------------------------------


def counted(hits: list[int]) -> dict[str, list[list[int]]]:
    """Images of 900 background pixels and 100 of a cell, so many of which are found."""
    return {f"image {i}": [[0, 0, 900], [1, 1, hit], [1, 0, 100 - hit]] for i, hit in enumerate(hits)}


GOOD = [90, 84, 93, 71, 88, 95, 79, 90]


def verdict(tmp_path: Path, first: list[int], second: list[int]) -> Comparison:
    runs = [make_run(tmp_path / name, 0.5, counts=counted(hits)) for name, hits in (("a", first), ("b", second))]
    return compare(runs)


def test_a_run_that_is_better_on_every_image_is_better(tmp_path: Path) -> None:
    result = verdict(tmp_path, [hit - 10 - i for i, hit in enumerate(GOOD)], GOOD)
    (found,) = result.verdicts
    assert result.winner == 1
    assert (found.better, found.worse) == ("b", "a")
    assert found.difference.p == 2 / 2**8  # of all exchanges of eight images, this one and its reverse
    # IoU by hand: of cells hits / 800, of background 7200 / (7200 + misses)
    hits = sum(GOOD), sum(GOOD) - 80 - 28
    ious = [(hit / 800 + 7200 / (7200 + 800 - hit)) / 2 for hit in hits]
    assert found.difference.value == pytest.approx(ious[0] - ious[1])
    assert "b is better than a on these 8 images" in found.describe()
    assert found.describe() in " ".join(result.to_text(80).split())


def test_a_run_that_is_better_on_some_images_may_not_be_better(tmp_path: Path) -> None:
    (found,) = verdict(tmp_path, GOOD, [hit + (4 if i % 2 else -3) for i, hit in enumerate(GOOD)]).verdicts
    assert not found.difference.is_clear
    assert "*" not in verdict(tmp_path / "again", GOOD, GOOD[::-1]).to_text()
    assert found.difference.needed is not None
    assert found.difference.needed > 8
    assert "8 images cannot tell b from a" in found.describe()
    assert f"about {found.difference.needed} images like these would tell" in found.describe()


def test_equal_runs_cannot_be_told_apart_by_any_number_of_images(tmp_path: Path) -> None:
    (found,) = verdict(tmp_path, GOOD, GOOD).verdicts
    assert found.difference.p == 1.0
    assert "would tell" not in found.describe()


def test_one_image_tells_nothing(tmp_path: Path) -> None:
    (found,) = verdict(tmp_path, GOOD[:1], [50]).verdicts
    assert "interval" not in found.describe()
    assert not found.difference.is_clear


def test_the_best_of_several_runs_is_held_against_each_other_one(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / name, 0.5, counts=counted([hit - less for hit in GOOD]))
        for name, less in (("a", 20), ("b", 0), ("c", 9))
    ]
    assert [(one.better, one.worse) for one in compare(runs).verdicts] == [("b", "a"), ("b", "c")]


def test_the_order_of_images_does_not_matter(tmp_path: Path) -> None:
    counts = counted(GOOD)
    turned = dict(reversed(counts.items()))
    runs = [make_run(tmp_path / "a", 0.5, counts=counts), make_run(tmp_path / "b", 0.5, counts=turned)]
    assert compare(runs).verdicts[0].difference.value == 0.0


def test_other_images_or_other_masks_give_no_verdict(tmp_path: Path) -> None:
    fewer = make_run(tmp_path / "fewer", 0.5, counts=counted(GOOD[:4]))
    all_of_them = make_run(tmp_path / "all", 0.5, counts=counted(GOOD))
    assert compare([all_of_them, fewer]).verdicts == ()
    relabelled = {name: [[0, 0, 890], [1, 1, 100], [1, 0, 10]] for name in counted(GOOD)}
    result = compare([all_of_them, make_run(tmp_path / "other", 0.5, counts=relabelled)])
    assert result.verdicts == ()
    assert "other masks" in " ".join(result.warnings)


def test_a_star_stands_at_an_miou_that_is_clearly_the_highest_and_is_explained(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / name, miou, counts=counted([hit - less for hit in GOOD]))
        for name, miou, less in (("a", 0.71, 20), ("b", 0.745, 0), ("c", 0.73, 9))
    ]
    text = compare(runs).to_text(100)
    assert line(text, "mIoU, pooled") == ["0.710", "0.745*", "0.730"]
    assert line(text, "IoU cell") == ["0.710", "0.745", "0.730"]
    assert line(text, "* better")
    # one that cannot be told from it takes the star away, and the words with it
    hits = [hit + (4 if i % 2 else -5) for i, hit in enumerate(GOOD)]
    near = make_run(tmp_path / "near", 0.744, counts=counted(hits))
    assert "*" not in compare([*runs, near]).to_text(100)


def test_scores_that_cannot_be_compared_bear_no_star(tmp_path: Path) -> None:
    worse, better = (counted([hit - less for hit in GOOD]) for less in (20, 0))
    first = make_run(tmp_path / "first", 0.5, counts=worse)
    assert "*" in compare([first, make_run(tmp_path / "second", 0.6, counts=better)]).to_text()
    fewer = dict(list(better.items())[:7])
    assert "*" not in compare([first, make_run(tmp_path / "images", 0.6, counts=fewer)]).to_text()
    relabelled = {name: [[0, 0, 890], [1, 1, 110]] for name in better}
    assert "*" not in compare([first, make_run(tmp_path / "masks", 0.6, counts=relabelled)]).to_text()
    other = make_run(tmp_path / "classes", 0.6, iou={"background": 0.8, "nucleus": 0.4}, counts=better)
    assert "*" not in compare([first, other]).to_text()


def test_scores_of_images_that_were_trained_on_are_told_and_held_against_no_other(tmp_path: Path) -> None:
    worse, better = (counted([hit - less for hit in GOOD]) for less in (20, 0))
    caution = "8 of these 8 images were trained on, by this model: the scores are too good"
    honest = make_run(tmp_path / "honest", 0.5, counts=worse)
    leaked = make_run(tmp_path / "leaked", 0.6, counts=better, trained_on=8, caution=caution)
    result = compare([honest, leaked])
    assert result.verdicts == ()
    assert "*" not in result.to_text()
    assert f"leaked: {caution}" in " ".join(result.to_text().split())
    assert caution in json.loads(result.to_json())["warnings"][0]
    # what is only not known is told, and tested
    unknown = make_run(tmp_path / "unknown", 0.6, counts=better, trained_on=None, caution="it is not known")
    result = compare([honest, unknown])
    assert result.warnings == ("unknown: it is not known.",)
    assert result.winner == 1


def test_a_teacher_and_what_a_run_started_from_are_differences(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, 0.5) for name in ("alone", "taught")]
    assert "All settings are equal." in compare(runs).to_text()
    for run, teacher in zip(runs, (None, "/runs/of/many/experiments/with/long/names/folds"), strict=True):
        facts = {"data": "/data", "mask_encoding": {"kind": "values"}, "teacher": teacher, "started_from": None}
        (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    result = compare(runs)
    assert dict(result.settings) == {"teacher": (None, "/runs/of/many/experiments/with/long/names/folds")}
    assert "All settings are equal." not in result.to_text()
    assert line(result.to_text(60), "teacher")[1].endswith("long/names/folds")


def test_an_evaluation_has_the_settings_of_the_run_that_it_names(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "runs" / name, 0.5, {"seed": seed}) for name, seed in (("a", 0), ("b", 1))]
    bundle = runs[1] / "best.safetensors"
    bundle.touch()
    scored = [
        make_run(tmp_path / f"of-{place.name}", 0.5, model=str(place)) for place in (runs[0], bundle, tmp_path / "gone")
    ]
    for folder in scored:
        (folder / "config.yaml").unlink()
    assert compare(scored[:2]).settings == {"seed": (0, 1)}
    result = compare(scored)
    assert result.settings == {"seed": (0, 1, None)}
    assert "settings of of-gone are not known" in " ".join(result.warnings)
    assert "All settings" not in compare([scored[0], scored[2]]).to_text()


def test_a_folder_of_runs_names_the_runs_below_it(pair: list[Path]) -> None:
    both = " ".join(map(str, pair))
    with pytest.raises(ConfigError) as caught:
        compare([pair[0].parent])
    assert caught.value.remedy == f"Write: compare {both}"
    with pytest.raises(DataError, match="not a finished run") as unfinished:
        compare([pair[0], pair[0].parent])
    assert unfinished.value.remedy == f"Write: compare {both}"


def test_settings_bear_their_whole_name_in_a_narrow_terminal(tmp_path: Path) -> None:
    steps = [{"training": {"steps_per_epoch": number}} for number in (5, 7)]
    text = compare([make_run(tmp_path / f"run-{i}", 0.5, one) for i, one in enumerate(steps)]).to_text(60)
    assert line(text, "training.steps_per_epoch") == ["5", "7"]


@pytest.mark.parametrize("width", [40, 60, 80, 132])
@pytest.mark.parametrize("count", [2, 3, 9, 30])
def test_no_line_of_a_table_is_longer_than_the_terminal_and_no_run_is_lost(
    tmp_path: Path, width: int, count: int
) -> None:
    runs = [
        make_run(tmp_path / f"run-{i}" / "a-name-of-a-run", 0.1 + i / 1000, {"loss": {"name": "x" * 60 + str(i)}})
        for i in range(count)
    ]
    text = compare(runs).to_text(width)
    legend = [f"run-{i}/a-name-of-a-run" for i in range(count)]
    assert all(name in text for name in legend)
    assert max(len(each) for each in text.splitlines()) <= width
    values = [value for each in text.splitlines() if each.startswith("mIoU, pooled") for value in each.split()[2:]]
    assert [float(value.rstrip("*")) for value in values] == [pytest.approx(0.1 + i / 1000) for i in range(count)]


def test_json_holds_all_of_it(pair: list[Path]) -> None:
    result = compare(pair)
    tree = json.loads(result.to_json())
    assert set(tree) == set(Comparison.__dataclass_fields__)
    assert tree["scores"]["mIoU, pooled"] == [0.71, 0.745]
    assert tree["settings"]["seed"] == [0, 1]


def test_json_stays_valid_with_infinite_settings_and_dates(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", 0.5, {"a": float("inf"), "b": float("nan"), "c": 1})
    second = make_run(tmp_path / "second", 0.5, {"a": 1.0, "b": float("nan"), "c": 1})
    (second / "config.yaml").write_text("a: 2020-01-01\nb: .nan\nc: 1\n", encoding="utf-8")
    assert json.loads(compare([first, second]).to_json())["settings"] == {"a": ["inf", "2020-01-01"]}


def test_runs_of_the_same_name_are_told_apart_by_their_parents(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / parent / "best", 0.5) for parent in ("monday", "tuesday")]
    assert compare(runs).runs == ("monday/best", "tuesday/best")


def test_the_same_run_twice_is_no_crash(pair: list[Path]) -> None:
    assert compare([pair[0], pair[0]]).settings == {}


def test_one_run_is_wrong_usage(pair: list[Path]) -> None:
    with pytest.raises(ConfigError, match="two runs"):
        compare(pair[:1])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scores.json", b"{", "cannot be read as JSON"),
        ("scores.json", b"\xff\xfe", "cannot be read as JSON"),
        ("scores.json", b"[]", "damaged"),
        ("scores.json", b'{"pooled": {"miou": "high"}}', r"damaged \(pooled\.miou"),
        ("config.yaml", b"a: [", "not valid YAML"),
        ("config.yaml", b"a: \xff", "not valid YAML"),
        ("config.yaml", b"a: 2020-13-45", "not valid YAML"),
        ("config.yaml", b"just text", "sections"),
        ("config.yaml", b"", "sections"),
    ],
)
def test_a_damaged_file_is_named_with_a_remedy(pair: list[Path], name: str, content: bytes, message: str) -> None:
    (pair[1] / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        compare(pair)
    assert caught.value.where == pair[1] / name
    assert caught.value.remedy


def test_a_missing_folder_and_an_unfinished_run_are_named(pair: list[Path]) -> None:
    with pytest.raises(DataError, match="no such run"):
        compare([pair[0], pair[1] / "nowhere"])
    (pair[1] / "scores.json").unlink()
    with pytest.raises(DataError, match=r"scores\.json is missing") as caught:
        compare(pair)
    assert caught.value.where == pair[1]
