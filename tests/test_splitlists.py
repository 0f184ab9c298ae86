"""Splits in lists of stems, as Pascal VOC and CVAT write them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.folder import scan

MASK = np.repeat(np.array([[0, 1]], dtype=np.uint8), 8, axis=1).repeat(8, axis=0)


def voc(root: Path, lists: Mapping[str, str]) -> Path:
    """Six images a to f with masks, and the texts of lists."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for stem in "abcdef":
        photo = np.random.default_rng(ord(stem)).integers(0, 256, (*MASK.shape, 3), dtype=np.uint8)
        Image.fromarray(photo).save(root / "JPEGImages" / f"{stem}.jpg")
        Image.fromarray(MASK).save(root / "SegmentationClass" / f"{stem}.png")
    for name, text in lists.items():
        (root / "ImageSets" / "Segmentation" / name).write_text(text)
    return root


def sides(root: Path) -> dict[str, str | None]:
    return {case.name: case.split for case in scan(root).cases}


def test_lists_give_the_split_and_what_is_in_none_is_told(tmp_path: Path) -> None:
    lists = {"train.txt": "a\nb\n", "val.txt": "c\n", "test.txt": "d\nzzz\n", "trainval.txt": "a\nb\nc\n"}
    root = voc(tmp_path / "VOC2012", lists).parent
    assert sides(root) == {
        "VOC2012/a": "train",
        "VOC2012/b": "train",
        "VOC2012/c": "validation",
        "VOC2012/d": "test",
        "VOC2012/e": None,
        "VOC2012/f": None,
    }
    place = "VOC2012/ImageSets/Segmentation"
    said = (
        f"The split is that of {place}/test.txt, {place}/train.txt, {place}/val.txt. Images in no list, which count as "
    )
    assert f"{said}training images: 2. Lines that name no image with a mask: 1." in scan(root).notices


def test_cvat_writes_capitals_and_folders(tmp_path: Path) -> None:
    root = voc(tmp_path, {"Train.txt": "JPEGImages/a\n", "Validation.txt": "b\n", "default.txt": "a\nb\nc\n"})
    assert (sides(root)["a"], sides(root)["b"], sides(root)["c"]) == ("train", "validation", None)


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"train.txt": "a\nb\n", "val.txt": "b\n"}, "JPEGImages/b.jpg stands in two of them"),
        ({"train.txt": "a\nb\n"}, "train.txt alone give no split"),
        ({"test.txt": "a\nb\nc\nd\ne\nf\n"}, "test.txt alone give no split"),
    ],
)
def test_lists_that_give_no_split_are_told(lists: dict[str, str], words: str, tmp_path: Path) -> None:
    root = voc(tmp_path, lists)
    assert set(sides(root).values()) == {None}
    assert any(words in notice for notice in scan(root).notices)


@pytest.mark.parametrize("kind", ["a folder", "a broken link"])
def test_a_list_that_cannot_be_read_gives_no_split(kind: str, tmp_path: Path) -> None:
    root = voc(tmp_path, {"val.txt": "c\n"})
    path = root / "ImageSets" / "Segmentation" / "train.txt"
    path.mkdir() if kind == "a folder" else path.symlink_to("nowhere.txt")
    assert set(sides(root).values()) == {None}
    words = "train.txt give no split: ImageSets/Segmentation/train.txt cannot be read ("
    assert any(words in notice for notice in scan(root).notices)


def test_a_split_in_data_yaml_wins(tmp_path: Path) -> None:
    root = voc(tmp_path, {"train.txt": "a\nb\n", "val.txt": "c\n"})
    (root / "data.yaml").write_text("train: [c, d]\nval: [a]\n")
    assert sides(root) == {"a": "validation", "c": "train", "d": "train"}
    (root / "data.yaml").write_text("test: []\n")
    assert set(sides(root).values()) == {None}
