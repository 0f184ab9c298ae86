"""The report: written, then read back as HTML and compared with the scores it was made from."""

import base64
import dataclasses
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.classes import IGNORE, ClassTable
from pixelwise.errors import DataError
from pixelwise.evaluation import report
from pixelwise.evaluation.forgetting import Forgotten, Remembered
from pixelwise.metrics import Scores

NASTY = '<script>alert("x")</script> & </td><img src=x onerror=alert(1)> \'"'
VOID = {"meta", "img", "br", "link", "input", "hr"}


# --- scores made by plain arithmetic, without the module under test --------------------------------------------------


def divided(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def scored(counts: list[list[int]]) -> dict[str, Any]:
    size = range(len(counts))
    hit = [counts[k][k] for k in size]
    truth = [sum(counts[k]) for k in size]
    found = [sum(counts[j][k] for j in size) for k in size]
    iou = [divided(hit[k], truth[k] + found[k] - hit[k]) for k in size]
    dice = [divided(2 * hit[k], truth[k] + found[k]) for k in size]
    return {
        "iou": iou,
        "dice": dice,
        "precision": [divided(hit[k], found[k]) for k in size],
        "recall": [divided(hit[k], truth[k]) for k in size],
        "pixels": truth,
        "means": {"miou": mean(iou), "dice": mean(dice), "pixel_accuracy": divided(sum(hit), sum(truth))},
    }


def summary(classes: list[str], images: dict[str, list[list[int]]]) -> dict[str, Any]:
    size = range(len(classes))
    total = [[sum(counts[i][j] for counts in images.values()) for j in size] for i in size]
    each = {name: scored(counts) for name, counts in images.items()}
    pooled = scored(total)
    keys = ("iou", "dice", "precision", "recall", "pixels")
    rows = [{"name": name, **{key: pooled[key][k] for key in keys}} for k, name in enumerate(classes)]
    return {
        "images": len(images),
        "classes": classes,
        "pooled": pooled["means"] | {"per_class": rows},
        "image_mean": {key: mean([one["means"][key] for one in each.values()]) for key in ("miou", "dice")},
        "confusion": total,
        "per_image": [
            {"name": name, **one["means"], "iou": one["iou"], "confusion": images[name]} for name, one in each.items()
        ],
    }


def content(classes: list[str], images: dict[str, list[list[int]]], **changes: Any) -> report.Content:
    base = report.Content(
        title="a run",
        command="pixelwise train data",
        scores=summary(classes, images),
        split_name="test",
        classes=ClassTable.from_names(classes),
        history=[],
        decisions=[],
        findings=[],
        facts={},
        examples=(),
    )
    return dataclasses.replace(base, **changes)


def random_images(count: int, classes: int) -> dict[str, list[list[int]]]:
    rng = np.random.default_rng(0)
    return {
        f"image {i}": (rng.integers(0, 90, (classes, classes)) + np.diag(rng.integers(0, 900, classes))).tolist()
        for i in range(count)
    }


def example(height: int = 40, width: int = 60, name: str = "image 0") -> report.Example:
    rng = np.random.default_rng(0)
    truth = np.zeros((height, width), dtype=np.uint8)
    truth[height // 4 : height // 2, width // 4 : width // 2] = 1
    truth[-2:] = IGNORE
    prediction = np.roll(truth, 2, axis=1)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return report.Example(name, "worst", image, truth, prediction, 0.5)


def full(**changes: Any) -> report.Content:
    history = [
        {"epoch": i, "train_loss": 1.0, "validation_loss": 1.0, "miou": 0.1, "dice": 0.2, "learning_rate": 1e-3}
        for i in range(3)
    ]
    everything: dict[str, Any] = {
        "history": history,
        "decisions": [{"setting": "data.patch_size", "value": [256, 256], "because": "it fits"}],
        "findings": [
            {"severity": "warning", "what": "odd files", "files": [f"f{i}.png" for i in range(9)], "cause": "a cause"},
            {"severity": "notice", "what": "bare"},
        ],
        "facts": {"Machine": "2 cores"},
        "examples": (example(),),
    }
    return content(["background", "cell"], random_images(3, 2), **(everything | changes))


# --- reading it back -------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Elements with their attributes, texts by id, and a complaint about each tag that is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: list[str] = []
        self._table: list[list[str]] | None = None
        self.feed(text)
        self.close()
        assert self.open == [], "elements that are never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {key: value or "" for key, value in attrs}
        assert len(attributes) == len(attrs), f"<{tag}> has an attribute twice"
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = self.tables.setdefault(attributes.get("id", ""), [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in {"td", "th"} and self._table is not None:
            self._table[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> while <{self.open[-1]}> is open"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.texts.append(data)
        if self._table and self._table[-1] and {"td", "th"} & set(self.open):
            self._table[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def read(written: report.Content) -> Page:
    return Page(report.render(written))


def shown(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.3f}"


@pytest.mark.parametrize("classes", [2, 5, 19, 40])
def test_the_numbers_on_the_page_are_those_of_the_summary(classes: int) -> None:
    names = ["background", *(f"class {i}" for i in range(1, classes))]
    written = content(names, random_images(7, classes))
    page, scores = read(written), written.scores
    _, *rows = page.tables["class-table"]
    keys = ("iou", "dice", "precision", "recall")
    for row, truth in zip(rows, scores["pooled"]["per_class"], strict=True):
        assert row[0] == truth["name"]
        assert row[1:5] == [shown(truth[key]) for key in keys]
        assert int(row[5].replace("\N{NARROW NO-BREAK SPACE}", "")) == truth["pixels"]
    for group, key in [("pooled", "miou"), ("pooled", "dice"), ("pooled", "pixel_accuracy"), ("image_mean", "miou")]:
        assert shown(scores[group][key]) in page.texts
    _, *listed = page.tables["image-table"]
    expected = {
        row["name"]: [row["miou"], row["dice"], row["pixel_accuracy"], *row["iou"]] for row in scores["per_image"]
    }
    assert len(listed) == len(expected)
    for name, *values in listed:
        wanted = expected[name] if classes <= report.MATRIX_CLASSES else expected[name][:3]
        assert values == [shown(value) for value in wanted]
    assert f"Pooled over the {len(expected)} images of the test split" in page.text


@pytest.mark.parametrize(("count", "said"), [(3, "all 3 images"), (1, "1 image")])
def test_images_of_no_split_are_called_all_images(count: int, said: str) -> None:
    page = read(content(["background", "cell"], random_images(count, 2), split_name="all"))
    assert f"Scores on {said}, 2 classes." in page.text
    assert f"Pooled over {said}: " in page.text


def test_every_image_is_listed_worst_first_and_those_without_score_last() -> None:
    images = random_images(20, 3) | {"empty": [[0] * 3] * 3}
    names = [row[0] for row in read(content(["a", "b", "c"], images)).tables["image-table"][1:]]
    scores = {name: scored(counts)["means"]["miou"] for name, counts in images.items()}
    assert names[-1] == "empty"
    assert sorted(names) == sorted(images)
    assert [scores[name] for name in names[:-1]] == sorted(scores[name] for name in names[:-1])


def test_the_confusion_matrix_is_in_percent_of_the_row_with_counts_to_point_at() -> None:
    written = content(["a", "b", "c"], {"x": [[75, 25, 0], [1, 999, 0], [0, 0, 0]]})
    html = report.render(written)
    _, *rows = Page(html).tables["confusion-table"]
    dash = "\N{EN DASH}"
    assert [row[1:] for row in rows] == [["75", "25", "0"], ["<1", ">99", "0"], [dash] * 3]
    assert 'title="25 pixels of a predicted as b"' in html
    assert "a taken for b: 25 % of all a, 25" in Page(html).text


def test_a_score_that_does_not_exist_is_a_dash_that_says_why() -> None:
    html = report.render(content(["a", "b", "c"], {"x": [[75, 25, 0], [1, 999, 0], [0, 0, 0]], "y": [[0] * 3] * 3}))
    assert 'title="This class is neither in the truth nor in the predictions of these images."' in html
    assert 'title="No pixel of this image counts."' in html
    assert "nan" not in re.findall(r">([^<]*)<", html)
    assert "None" not in Page(html).texts


def test_the_scores_of_the_metrics_module_can_be_shown() -> None:
    counts = torch.randint(0, 99, (4, 3, 3), generator=torch.Generator().manual_seed(0))
    scores = Scores(classes=("a", "b", "c"), names=("w", "x", "y", "z"), counts=counts)
    page = read(content(["a", "b", "c"], {}, scores=scores.summary()))
    for value in (scores.miou, scores.mean_dice, scores.accuracy, scores.miou_image_mean, scores.dice_image_mean):
        assert f"{value:.3f}" in page.texts
    order = [scores.names[i] for i in scores.worst_first()]
    assert [row[0] for row in page.tables["image-table"][1:]] == order


@pytest.mark.parametrize("value", [None, math.nan])
def test_none_and_nan_are_the_same_dash(value: float | None) -> None:
    assert report.format_score(value, 'a "reason" <b>') == (
        '<span class="none" title="a &#34;reason&#34; &lt;b&gt;">\N{EN DASH}</span>'
    )


def test_nothing_at_all_is_still_a_page() -> None:
    page = read(content(["a", "b"], {}))
    assert "Scores on the 0 images" in page.text


def test_a_perfect_prediction_says_that_there_are_no_mistakes() -> None:
    assert "every pixel that counts was given its class" in read(content(["a", "b"], {"x": [[5, 0], [0, 5]]})).text


def test_scores_that_may_be_too_good_are_marked_beside_the_headline() -> None:
    html = report.render(full(caution=f"3 of these 6 images were trained on, by its teacher ({NASTY}): too good"))
    marked = html.index('<p class="caution">3 of these 6 images were trained on')
    assert html.index('class="big"') < marked < html.index('class="convention"')
    assert "<img src=x" not in html
    assert 'class="caution"' not in report.render(full())


KNOWN = Forgotten(
    source="runs/old",
    side="test",
    images=3,
    classes=(
        Remembered(name="background", before=0.9, after=0.86),
        Remembered(name="cell", before=0.8, after=0.5),
        Remembered(name="spot", before=None, after=None),
    ),
)


def test_what_was_forgotten_is_a_table_with_a_remedy() -> None:
    names = ["background", "cell", "spot"]
    page = read(content(names, random_images(2, 3), forgotten=KNOWN))
    minus, dash = "\N{MINUS SIGN}", "\N{EN DASH}"
    assert page.tables["forgotten-table"][1:] == [
        ["background", "0.900", "0.860", f"{minus}0.040"],
        ["cell", "0.800", "0.500", f"{minus}0.300"],
        ["spot", dash, dash, dash],
    ]
    assert "on 3 test images of that one" in page.text
    assert "Much was forgotten of cell." in page.text
    assert "--set finetune.freeze=encoder" in page.text
    assert "Forgotten" in page.texts, "the list of sections names it"


def test_where_little_was_forgotten_there_is_nothing_to_do() -> None:
    kept = KNOWN.model_copy(update={"classes": KNOWN.classes[:1]})
    assert kept.hint == ""
    page = read(content(["background", "cell"], random_images(2, 2), forgotten=kept))
    assert "forgotten-table" in page.tables
    assert "finetune.freeze" not in page.text
    none = KNOWN.model_copy(update={"classes": ()})
    assert "forgotten-table" not in read(content(["a", "b"], random_images(2, 2), forgotten=none)).tables


# --- safe and offline ------------------------------------------------------------------------------------------------


def test_text_from_outside_never_becomes_markup() -> None:
    finding = dict.fromkeys(("severity", "what", "cause", "remedy"), NASTY) | {"files": [NASTY] * 9}
    images = {f"{i} {NASTY}": counts for i, counts in enumerate(random_images(2, 2).values())}
    written = content(
        [f"a {NASTY}", f"b {NASTY}"],
        images,
        title=NASTY,
        command=NASTY,
        split_name=NASTY,
        decisions=[{"setting": NASTY, "value": [NASTY], "because": NASTY}],
        findings=[finding],
        facts={NASTY: NASTY},
        examples=(dataclasses.replace(example(), name=NASTY, rank=NASTY),),
    )
    page = read(written)
    assert len(page.all("script")) == 1
    assert all(image["src"].startswith("data:image/webp;base64,") for image in page.all("img"))
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert [row[0] for row in page.tables["image-table"][1:]] != []
    assert {row[0] for row in page.tables["image-table"][1:]} == set(images)
    assert " ".join(NASTY.split()) in page.text


def test_the_page_asks_nothing_of_the_network() -> None:
    html = report.render(full())
    loading = [
        attributes[key]
        for _, attributes in Page(html).elements
        for key in ("src", "href", "srcset", "xlink:href", "action", "poster", "data")
        if key in attributes
    ]
    assert loading
    assert all(target.startswith(("#", "data:")) for target in loading)
    assert "@import" not in html
    assert re.findall(r"url\((?!#)", html) == []
    assert "<link" not in html


def test_only_the_script_of_the_page_may_run() -> None:
    html = report.render(full())
    (policy,) = [meta["content"] for meta in Page(html).all("meta") if meta.get("http-equiv")]
    script = html[html.index("<script>") + 8 : html.index("</script>")]
    import hashlib

    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


# --- structure -------------------------------------------------------------------------------------------------------


def test_links_within_the_page_lead_somewhere_and_ids_are_distinct() -> None:
    for written in (full(), content(["a", "b"], {"x": [[1, 0], [0, 1]]})):
        page = read(written)
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        targets = {link["href"][1:] for link in page.all("a")}
        targets |= {attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes}
        assert targets <= set(ids)


def test_the_page_can_be_read_without_eyes_or_mouse() -> None:
    page = read(full())
    assert page.all("html") == [{"lang": "en"}]
    assert "a run" in page.text
    assert all(image["alt"] for image in page.all("img"))
    assert all(head.get("scope") for head in page.all("th"))
    (table,) = [attributes for attributes in page.all("table") if attributes.get("id") == "image-table"]
    assert table["class"] == "sortable"
    assert len(page.all("button")) == 4 + 2
    assert [head["aria-sort"] for head in page.all("th") if "aria-sort" in head] == ["ascending"]


def test_sections_without_content_are_left_out() -> None:
    bare, rich = read(content(["a", "b"], {"x": [[1, 0], [0, 1]]})), read(full())
    missing = {"training", "examples", "findings", "plan"}
    sections = [{attributes["id"] for attributes in page.all("section")} for page in (bare, rich)]
    assert sections[1] - sections[0] == missing
    assert not missing & {link["href"][1:] for link in bare.all("a")}


def test_findings_decisions_and_facts_are_all_there() -> None:
    page = read(full())
    for text in ("odd files", "a cause", "f8.png", "3 more", "bare", "[256, 256]", "it fits", "2 cores"):
        assert text in page.text


def test_pictures_are_small_and_of_the_right_shape() -> None:
    page = read(full(examples=(example(), example(900, 1800))))
    pictures = [Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))) for image in page.all("img")]
    assert [picture.size for picture in pictures] == [(60, 40)] * 4 + [(512, 256)] * 4
    assert [(image["width"], image["height"]) for image in page.all("img")][4] == ("512", "256")


def test_pictures_made_smaller_have_no_classes_between_classes() -> None:
    big = example(900, 1800)
    _, truth, prediction = report._reduced(big)
    assert set(np.unique(truth)) == {0, 1, IGNORE}
    assert set(np.unique(prediction)) == {0, 1, IGNORE}
    assert np.mean(truth == 1) == pytest.approx(np.mean(big.truth == 1), abs=0.005)


# --- files -----------------------------------------------------------------------------------------------------------


def test_equal_contents_give_equal_files(tmp_path: Path) -> None:
    report.write(tmp_path / "a.html", full())
    report.write(tmp_path / "b.html", full())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_writing_makes_the_folder_and_leaves_nothing_beside_the_report(tmp_path: Path) -> None:
    report.write(tmp_path / "new" / "report.html", full())
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["report.html"]


def test_a_place_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError) as caught:
        report.write(tmp_path / "file" / "report.html", full())
    assert "file" in str(caught.value.where)
    assert caught.value.remedy


def test_a_thousand_images_stay_a_small_file() -> None:
    assert len(report.render(content([f"c{i}" for i in range(19)], random_images(1000, 19)))) < 1_500_000
