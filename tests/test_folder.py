"""Who is whose mask: layouts as they are found in the wild, drawn as tiny files; expected pairs are written by hand."""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from pixelwise.classes import ClassTable
from pixelwise.data import folder
from pixelwise.data.dataset import Case, Dataset, MaskEncoding
from pixelwise.data.declared import DataFile
from pixelwise.data.detect import Declaration, Detection
from pixelwise.data.masks import UnknownValuesError, decode
from pixelwise.errors import ConfigError, DataError
from pixelwise.evaluation import sides
from pixelwise.facts import RunFacts

RANDOM = np.random.default_rng(3)
PHOTO = RANDOM.integers(0, 256, (12, 16, 3), dtype=np.uint8)
MASK = (PHOTO[..., 0] > 128).astype(np.uint8) * 255
SHAPES = {"shapes": [{"label": "cell", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}]}
YOLO = "0 0.1 0.1 0.9 0.1 0.9 0.9\n"


@pytest.fixture
def undetected(monkeypatch: pytest.MonkeyPatch) -> list[Declaration]:
    """Pairing alone: what masks mean is not asked. Returns the declarations that would have been used."""
    declarations: list[Declaration] = []

    def detect(cases: Sequence[Case], declaration: Declaration) -> Detection:
        assert cases
        declarations.append(declaration)
        table = ClassTable.from_names(["background", "object"])
        return Detection(MaskEncoding(kind="values"), table, ("from the masks",))

    monkeypatch.setattr(folder, "detect", detect)
    return declarations


def write(root: Path, names: Iterable[str]) -> Path:
    """Small files of the kind that their suffix says; those with a word for mask in the path are masks."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".json", ".txt", ".yaml", ".md", ".gz"):
            path.write_text("")
        else:
            looks = any(word in name.lower() for word in ("mask", "label", "gt", "annot", "manual", "ho.", "seg"))
            pixels = MASK if looks else PHOTO
            if path.suffix in (".tif", ".tiff"):
                tifffile.imwrite(path, pixels, photometric="minisblack" if looks else "rgb")
            else:
                Image.fromarray(pixels).save(path)
    return root


def pairs(data: Dataset) -> dict[str, list[str]]:
    """Case name to the masks of the case, relative to the root."""
    return {case.name: [path.relative_to(data.root).as_posix() for path in case.masks] for case in data.cases}


def images(data: Dataset) -> dict[str, str]:
    return {case.name: case.image.relative_to(data.root).as_posix() for case in data.cases}


def unpaired(data: Dataset) -> list[str]:
    return sorted(path.relative_to(data.root).as_posix() for path in data.unpaired)


IMAGE_FOLDERS = ["images", "imgs", "image", "img", "img_dir", "raw", "x", "JPEGImages", "Images"]
MASK_FOLDERS = [
    "masks",
    "labels",
    "label",
    "ann_dir",
    "annotations",
    "gt",
    "mask",
    "y",
    "segmentation",
    "GroundTruth",
    "SegmentationClass",
]


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize("image_folder", IMAGE_FOLDERS)
@pytest.mark.parametrize("mask_folder", MASK_FOLDERS)
def test_two_folders_are_paired_by_stem(image_folder: str, mask_folder: str, tmp_path: Path) -> None:
    # sorted lists of the two folders would pair 10 with 2 and b with 10
    write(tmp_path, [f"{image_folder}/{stem}.jpg" for stem in ("1", "2", "10", "a")])
    write(tmp_path, [f"{mask_folder}/{stem}.png" for stem in ("2", "10", "b", "1")])
    data = folder.scan(tmp_path)
    assert pairs(data) == {stem: [f"{mask_folder}/{stem}.png"] for stem in ("1", "2", "10")}
    assert list(images(data)) == ["1", "2", "10"]
    assert unpaired(data) == sorted([f"{image_folder}/a.jpg", f"{mask_folder}/b.png"])
    assert data.notices == ("from the masks",)


SPLITS = {"train": "train", "validation": "validation", "test": "test"}
SPLIT_LAYOUTS = {
    "above": ("{split}/images/{stem}.png", "{split}/masks/{stem}.png"),
    "below": ("images/{split}/{stem}.png", "masks/{split}/{stem}.png"),
    "joined": ("{split}/{stem}.png", "{split}annot/{stem}.png"),
    "joined by a line": ("{split}/{stem}.png", "{split}_masks/{stem}_mask.png"),
    "joined in front": ("{split}_images/{stem}.png", "{split}_labels/{stem}.png"),
    "both ways": ("data/images_{split}/{stem}.png", "data/labels_{split}/{stem}.png"),
    "beside": ("{split}/{stem}.png", "{split}/{stem}_mask.png"),
}


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize("layout", SPLIT_LAYOUTS)
@pytest.mark.parametrize(
    "words", [("train", "val", "test"), ("Training", "valid", "Testing"), ("train", "validation", "test")]
)
def test_splits_are_read_from_folder_names(layout: str, words: tuple[str, str, str], tmp_path: Path) -> None:
    image, mask = SPLIT_LAYOUTS[layout]
    for word in words:
        write(tmp_path, [pattern.format(split=word, stem=stem) for pattern in (image, mask) for stem in ("a", "b")])
    data = folder.scan(tmp_path)
    expected = {(word, stem): mask.format(split=word, stem=stem) for word in words for stem in "ab"}
    assert sorted(m for found in pairs(data).values() for m in found) == sorted(expected.values())
    split_of = dict(zip(words, SPLITS, strict=True))
    for case in data.cases:
        path = case.image.relative_to(tmp_path).as_posix()
        word = next(word for word in words if word in path)
        assert case.split == split_of[word]
        assert case.masks == (tmp_path / mask.format(split=word, stem=case.image.stem),)
    assert not data.unpaired


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train"], {None}),
        (["train", "test"], {None, "test"}),
        (["test"], {None}),
        (["train", "val"], {"train", "validation"}),
        (["val", "test"], {None, "test"}),
    ],
)
def test_half_a_split_is_left_to_be_split(words: list[str], expected: set[str | None], tmp_path: Path) -> None:
    write(tmp_path, [f"{word}/{role}/{stem}.png" for word in words for role in ("images", "masks") for stem in "ab"])
    assert {case.split for case in folder.scan(tmp_path).cases} == expected


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{}.jpg", "{}_mask.png"),
        ("{}.png", "{}_label.png"),
        ("{}.png", "{}-GT.png"),
        ("{}.tif", "{}_manual1.gif"),
        ("{}.png", "mask_{}.png"),
        ("{}_sat.jpg", "{}_mask.png"),
        ("img_{}.png", "mask_{}.png"),
        ("img{}.tif", "mask{}.tif"),
        ("images/{}.png", "masks/{}_seg.png"),
        ("images/image_{}.png", "masks/{}.png"),
        ("images/{}_training.tif", "1st_manual/{}_manual1.gif"),
        ("leftImg8bit/train/aachen/a_{}_leftImg8bit.png", "gtFine/train/aachen/a_{}_gtFine_labelIds.png"),
        ("images/{}.jpg", "annotations/trimaps/{}.png"),
        ("samples/{}/image.png", "samples/{}/mask.png"),
        ("{}/raw.tif", "{}/instances_ids.png"),
        ("slide [x={},y=0].tif", "slide [x={},y=0]-labelled.png"),
        ("train_{}.bmp", "train_{}_anno.bmp"),
        ("{}.tif", "{}_cp_masks.tif"),
        ("{}.png", "{}_mask_1.png"),
        ("{}.png", "{}_labelIds.png"),
        ("images/{}.png", "masks/{}_Simple Segmentation.png"),
        ("{}_anno.png", "{}_anno_mask.png"),
    ],
)
def test_words_around_a_stem_say_image_or_mask(image: str, mask: str, tmp_path: Path) -> None:
    stems = ("07", "12", "7")
    write(tmp_path, [name.format(stem) for name in (image, mask) for stem in stems])
    data = folder.scan(tmp_path)
    found = {images(data)[name]: masks_ for name, masks_ in pairs(data).items()}
    assert found == {image.format(stem): [mask.format(stem)] for stem in stems}
    assert not data.unpaired
    assert len({case.name for case in data.cases}) == 3


@pytest.mark.usefixtures("undetected")
def test_masks_of_other_folders_are_not_borrowed(tmp_path: Path) -> None:
    write(tmp_path, ["images/patient1/1.png", "images/patient2/2.png", "masks/patient2/1.png", "masks/patient2/2.png"])
    data = folder.scan(tmp_path)
    assert pairs(data) == {"patient2/2": ["masks/patient2/2.png"]}
    assert unpaired(data) == ["images/patient1/1.png", "masks/patient2/1.png"]


@pytest.mark.usefixtures("undetected")
def test_names_are_short_and_unique(tmp_path: Path) -> None:
    write(
        tmp_path, ["a/images/1.png", "a/masks/1.png", "b/images/1.png", "b/masks/1.png", "images/1.png", "masks/1.png"]
    )
    assert list(pairs(folder.scan(tmp_path))) == ["1", "a/1", "b/1"]


@pytest.mark.usefixtures("undetected")
def test_a_folder_called_images_comes_before_others(tmp_path: Path) -> None:
    data = folder.scan(write(tmp_path, ["1.png", "images/1.png", "masks/1.png"]))
    assert images(data) == {"1": "images/1.png"}
    assert unpaired(data) == ["1.png"]


@pytest.mark.usefixtures("undetected")
def test_a_folder_of_masks_alone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all are masks"):
        folder.scan(write(tmp_path, ["masks/1.png"]))


@pytest.mark.usefixtures("undetected")
def test_a_name_of_the_outer_folder_does_not_make_everything_a_mask(tmp_path: Path) -> None:
    names = [f"Dataset_with_GT/{kind}/{kind} (1){end}.png" for kind in ("benign", "normal") for end in ("", "_mask")]
    data = folder.scan(write(tmp_path, names))
    assert data.root == tmp_path / "Dataset_with_GT"
    assert pairs(data) == {f"{kind}/{kind} (1)": [f"{kind}/{kind} (1)_mask.png"] for kind in ("benign", "normal")}


@pytest.mark.parametrize("named", [False, True])
def test_files_that_annotate_nothing_leave_the_outer_folder_aside_and_its_lists_hold(
    named: bool, tmp_path: Path
) -> None:
    names = [f"Dataset_with_GT/{kind}/{number}{end}.png" for kind in "ab" for number in "12" for end in ("", "_mask")]
    write(tmp_path, names)
    for path in tmp_path.rglob("*_mask.png"):
        Image.fromarray(MASK // 255).save(path)
    (tmp_path / "README.txt").write_text("How these images were made.")
    (tmp_path / "dataset.json").write_text('{"title": "Images"}')
    lists = tmp_path / "Dataset_with_GT" if named else tmp_path
    (lists / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, lesion\n")
    (lists / "ImageSets" / "Segmentation").mkdir(parents=True)
    (lists / "ImageSets" / "Segmentation" / "train.txt").write_text("a/1\na/2\nb/1\n")
    (lists / "ImageSets" / "Segmentation" / "val.txt").write_text("b/2\n")
    data = folder.scan(tmp_path)
    assert data.root == tmp_path / "Dataset_with_GT"
    assert data.classes.names == ["background", "lesion"]
    assert {case.name: case.split for case in data.cases} == {
        "a/1": "train",
        "a/2": "train",
        "b/1": "train",
        "b/2": "validation",
    }
    assert any(("Dataset_with_GT/_classes.csv" in notice) == named for notice in data.notices if "_classes" in notice)


@pytest.mark.usefixtures("undetected")
def test_annotations_beside_the_outer_folder_belong_to_its_images(tmp_path: Path) -> None:
    write(tmp_path, ["img_GT/a/1.png", "img_GT/a/1_mask.png", "img_GT/b/2.png", "img_GT/b/2_mask.png"])
    (tmp_path / "1.json").write_text(json.dumps(SHAPES))
    with pytest.raises(DataError):
        folder.scan(tmp_path)


@pytest.mark.usefixtures("undetected")
def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, ["images/1.png", "masks/1.png", "images/._1.png", ".cache/images/2.png", "__MACOSX/images/1.png"])
    data = folder.scan(tmp_path)
    assert pairs(data) == {"1": ["masks/1.png"]}
    assert not data.unpaired


@pytest.mark.usefixtures("undetected")
def test_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "store", ["1.png"])
    write(tmp_path / "data", ["masks/1.png"])
    (tmp_path / "data/images").symlink_to(tmp_path / "store")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    assert pairs(folder.scan(tmp_path / "data")) == {"1": ["masks/1.png"]}


@pytest.mark.usefixtures("undetected")
def test_one_folder_per_image_and_one_file_per_object(tmp_path: Path) -> None:
    for name, count in (("a1", 3), ("b2", 1)):
        write(tmp_path, [f"stage1_train/{name}/images/{name}.png"])
        write(tmp_path, [f"stage1_train/{name}/masks/{name}{number}ff.png" for number in range(count)])
    data = folder.scan(tmp_path)
    assert {name: len(found) for name, found in pairs(data).items()} == {"stage1_train/a1": 3, "stage1_train/b2": 1}
    assert all(mask.startswith(f"{name}/masks/") for name, found in pairs(data).items() for mask in found)


@pytest.mark.usefixtures("undetected")
def test_one_image_and_one_mask_of_another_name_are_no_pair(tmp_path: Path) -> None:
    write(tmp_path, ["images/a.png", "masks/b.png"])
    with pytest.raises(DataError, match="no mask has the name of an image"):
        folder.scan(tmp_path)


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize(("photo", "mask"), [(".bmp", ".png"), (".jpg", ".png"), (".png", ".gif"), (".tif", ".png")])
def test_equal_stems_are_told_apart_by_content(photo: str, mask: str, tmp_path: Path) -> None:
    for stem in ("001", "002"):
        Image.fromarray(PHOTO).save(tmp_path / f"{stem}{photo}")
        Image.fromarray(MASK).save(tmp_path / f"{stem}{mask}")
    data = folder.scan(tmp_path)
    assert images(data) == {stem: f"{stem}{photo}" for stem in ("001", "002")}
    assert pairs(data) == {stem: [f"{stem}{mask}"] for stem in ("001", "002")}


@pytest.mark.usefixtures("undetected")
def test_two_photos_of_one_name_are_an_error(tmp_path: Path) -> None:
    for suffix in (".jpg", ".bmp"):
        Image.fromarray(PHOTO).save(tmp_path / f"1{suffix}")
    with pytest.raises(DataError, match="no masks that can be told"):
        folder.scan(tmp_path)
    write(tmp_path, ["masks/1.png"])
    with pytest.raises(DataError, match="fits 2 images") as caught:
        folder.scan(tmp_path)
    assert pairs(scan_remedy(caught.value, tmp_path)) == {"1": ["masks/1.png"]}


@pytest.mark.usefixtures("undetected")
def test_a_stack_gives_a_case_for_each_page_and_they_stay_together(tmp_path: Path) -> None:
    stack = RANDOM.integers(0, 255, (12, 20, 21), dtype=np.uint8)
    for name, pixels in (("images/s.tif", stack), ("masks/s.tif", stack // 99)):
        write(tmp_path, [name])
        tifffile.imwrite(tmp_path / name, pixels, photometric="minisblack")
    write(tmp_path, ["images/flat.tif", "masks/flat.tif"])
    cases = folder.scan(tmp_path).cases
    assert [case.name for case in cases] == ["flat", *(f"s/{page:02d}" for page in range(12))]
    assert [(case.page, case.group) for case in cases] == [(None, ""), *((page, "s") for page in range(12))]


@pytest.mark.usefixtures("undetected")
def test_stacks_of_different_length_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, ["images/s.tif", "masks/s.tif"])
    tifffile.imwrite(tmp_path / "images/s.tif", np.zeros((9, 20, 21), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match="9 pages") as caught:
        folder.scan(tmp_path)
    assert caught.value.where == tmp_path / "images/s.tif"


@pytest.mark.usefixtures("undetected")
def test_pages_of_a_stack_whose_mask_cannot_be_read_do_not_hide_that(tmp_path: Path) -> None:
    stack = np.zeros((6, 20, 21), np.uint8)
    for damaged, whole in (("masks", "images"), ("images", "masks")):
        root = tmp_path / damaged
        write(root, ["images/s.tif", "masks/s.tif"])
        (root / damaged / "s.tif").write_bytes(b"II*\0junk")
        tifffile.imwrite(root / whole / "s.tif", stack, photometric="minisblack")
        assert [case.page for case in folder.scan(root).cases] == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("undetected")
def test_a_page_and_an_image_are_never_called_the_same(tmp_path: Path) -> None:
    write(tmp_path, [f"{role}/{name}" for role in ("images", "masks") for name in ("a.tif", "a/0.png", "b.png")])
    for role in ("images", "masks"):
        tifffile.imwrite(tmp_path / role / "a.tif", np.zeros((5, 20, 21), np.uint8), photometric="minisblack")
    data = folder.scan(tmp_path)
    names = ["a/1", "a/2", "a/3", "a/4", "b", "images/a.tif/0", "images/a/0.png"]
    assert [case.name for case in data.cases] == names
    assert {case.group for case in data.cases if case.page is not None} == {"a"}


# all problems at once


def spoiled(root: Path) -> Path:
    """A healthy pair, an empty image, a mask cut short, one of another size, and an image without mask."""
    write(root, [f"{role}/{stem}.png" for role in ("images", "masks") for stem in "abcd"])
    write(root, ["images/lonely.png"])
    for role in ("images", "masks"):
        Image.fromarray((RANDOM.integers(0, 2, (40, 40)) * 255).astype(np.uint8)).save(root / role / "c.png")
    (root / "images/b.png").write_bytes(b"")
    cut = root / "masks/c.png"
    cut.write_bytes(cut.read_bytes()[:-60])
    Image.fromarray(MASK[:, :9]).save(root / "masks/d.png")
    return root


def stack_of(count: int) -> Callable[[Path], None]:
    def put(root: Path) -> None:
        for role, pages in (("images", count), ("masks", 7)):
            tifffile.imwrite(root / role / "s.tif", np.zeros((pages, 20, 21), np.uint8), photometric="minisblack")

    return put


def declare(text: str) -> Callable[[Path], None]:
    def put(root: Path) -> None:
        (root / "data.yaml").write_text(text)

    return put


def empty_masks(root: Path) -> None:
    for stem in "ab":
        Image.fromarray(MASK * 0).save(root / f"masks/{stem}.png")
    Image.fromarray(MASK[:, :9] * 0).save(root / "masks/d.png")


def polygon_file(root: Path) -> None:
    write(root, ["images/e.png"])
    (root / "masks/e.json").write_text(json.dumps(SHAPES))
    (root / "data.yaml").write_text('images: "images/*"\nmasks: ["masks/{stem}.png", "masks/{stem}.json"]')


@pytest.mark.parametrize(
    ("spoil", "words", "where"),
    [
        (declare("names: [a, b]\nvalues: {0: a}"), "hold the values 255", "masks/a.png"),
        (empty_masks, "one class only", "masks"),
        (stack_of(9), "The image has 9 pages, its mask s.tif has 7", "images/s.tif"),
        (polygon_file, "some are polygon files", "masks/e.json"),
    ],
)
def test_masks_without_meaning_do_not_hide_what_else_is_wrong(
    spoil: Callable[[Path], None], words: str, where: str, tmp_path: Path
) -> None:
    spoil(spoiled(tmp_path))
    with pytest.raises(folder.SeveralProblemsError) as caught:
        folder.scan(tmp_path)
    found = {str(one.where): one.what for one in caught.value.problems}
    assert len(found) == 5
    assert words in found[str(tmp_path / where)]
    assert "empty (0 bytes)" in found[str(tmp_path / "images/b.png")]
    assert "damaged or cut short" in found[str(tmp_path / "masks/c.png")]
    assert "9 x 12 pixels" in found[str(tmp_path / "masks/d.png")]
    for name in (words, "images/b.png", "masks/c.png", "masks/d.png", "no partner"):
        assert str(caught.value).count(name) == 1


def test_annotations_that_cannot_be_read_are_among_the_problems(tmp_path: Path) -> None:
    write(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    (tmp_path / "a.json").write_text(json.dumps(SHAPES))
    (tmp_path / "b.json").write_text('{"shapes": [')
    (tmp_path / "c.json").write_text(json.dumps({"shapes": [{}]}))
    (tmp_path / "data.yaml").write_text('masks: "{stem}.json"\nnames: [dirt]')
    with pytest.raises(folder.SeveralProblemsError, match="also use cell") as caught:
        folder.scan(tmp_path)
    assert [Path(str(one.where)).name for one in caught.value.problems[1:]] == ["b.json", "c.json"]


def test_a_single_problem_is_told_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, ["images/a.png", "masks/a.png"])
    (tmp_path / "data.yaml").write_text("names: [a, b, c]")
    with pytest.raises(DataError, match="3 classes are declared") as caught:
        folder.scan(tmp_path)
    assert not isinstance(caught.value, folder.SeveralProblemsError)


def test_nnunet_gives_splits_and_names(tmp_path: Path, undetected: list[Declaration]) -> None:
    write(tmp_path, ["imagesTr/a_0000.png", "labelsTr/a.png", "imagesTs/b_0000.png", "labelsTs/b.png"])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "cell": 1, "ignore": 2}}))
    data = folder.scan(tmp_path)
    assert sorted(m for found in pairs(data).values() for m in found) == ["labelsTr/a.png", "labelsTs/b.png"]
    assert {case.split for case in data.cases} == {None, "test"}
    assert undetected[-1].names == ("background", "cell")
    assert undetected[-1].values == {0: "background", 1: "cell", 2: "ignore"}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "cell"}}))
    folder.scan(tmp_path)
    assert undetected[-1].values == {0: "background", 1: "cell"}


@pytest.mark.usefixtures("undetected")
def test_nnunet_with_regions_or_without_its_first_channel_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ["imagesTr/a_0000.png", "labelsTr/a.png"])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "all": [1, 2]}}))
    with pytest.raises(DataError, match="regions"):
        folder.scan(tmp_path)
    (tmp_path / "dataset.json").unlink()
    write(tmp_path, ["imagesTr/b_0001.png", "labelsTr/b.png"])
    with pytest.raises(DataError, match=r"b_0001.png is a further channel .* b_0000.png, is missing"):
        folder.scan(tmp_path)
    write(tmp_path, ["imagesTr/b_0000.png", "imagesTr/b_0003.png"])
    with pytest.raises(DataError, match=r"b_0003.png is a further channel .* b_0002.png, is missing"):
        folder.scan(tmp_path)


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize("annotation", ["{}.json", "labels/{}.json"])
def test_labelme_files_are_masks(annotation: str, tmp_path: Path) -> None:
    for stem in ("a", "b"):
        write(tmp_path, [f"images/{stem}.jpg", f"images/{annotation.format(stem)}"])
        (tmp_path / f"images/{annotation.format(stem)}").write_text(json.dumps(SHAPES))
    assert pairs(folder.scan(tmp_path)) == {stem: [f"images/{annotation.format(stem)}"] for stem in ("a", "b")}


@pytest.mark.usefixtures("undetected")
def test_yolo_files_are_masks_and_other_texts_are_not(tmp_path: Path) -> None:
    write(tmp_path, ["images/train/a.jpg", "images/val/b.jpg", "labels/train/a.txt", "labels/val/b.txt", "README.txt"])
    for name in ("train/a", "val/b"):
        (tmp_path / f"labels/{name}.txt").write_text(YOLO)
    (tmp_path / "labels/classes.txt").write_text("cell\n")
    data = folder.scan(tmp_path)
    assert pairs(data) == {"train/a": ["labels/train/a.txt"], "val/b": ["labels/val/b.txt"]}
    assert {case.split for case in data.cases} == {"train", "validation"}


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["test/8.png", "test/9.png"], "In test, 2 images have no mask"),
        (["a/images/test/8.png"], "In a/images/test, 1 image has no mask"),
        (["stage1_test/8/images/8.png", "stage1_test/9/images/9.png"], "In stage1_test, 2 images have no mask"),
        (["test/8.png", "test/masks/9.png"], None),
        (["test/8.png", "test/9_mask.png"], None),
        (["test/images/8.png", "test/images/9.png", "test/masks/9.png"], None),
        (["valid/8.png"], None),
    ],
)
def test_a_test_folder_without_any_mask_is_for_prediction(files: list[str], told: str | None, tmp_path: Path) -> None:
    write(tmp_path, [*files, *(f"train/{one}/{stem}.png" for stem in "123" for one in ("images", "masks"))])
    data = folder.scan(tmp_path)
    assert [notice for notice in data.notices if "can be predicted" in notice and told and told in notice] or not told
    assert bool(unpaired(data)) == (told is None)


@pytest.mark.usefixtures("undetected")
def test_objects_of_voc_are_passed_over(tmp_path: Path) -> None:
    write(
        tmp_path,
        [f"{one}/{stem}.png" for stem in "ab" for one in ("JPEGImages", "SegmentationClass", "SegmentationObject")],
    )
    data = folder.scan(tmp_path)
    assert pairs(data) == {"a": ["SegmentationClass/a.png"], "b": ["SegmentationClass/b.png"]}
    assert not data.unpaired


@pytest.mark.usefixtures("undetected")
def test_python_objects_are_passed_over_and_never_opened(tmp_path: Path) -> None:
    write(tmp_path, ["7.tif", "8.tif"])
    for stem in "78":
        np.save(tmp_path / f"{stem}_seg.npy", {"masks": MASK}, allow_pickle=True)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"There are 2 images but no masks.* Python objects.*: 2, such as 7_seg\.npy"):
        folder.scan(tmp_path)
    write(tmp_path, ["7_masks.tif", "8_masks.tif"])
    data = folder.scan(tmp_path)
    assert pairs(data) == {"7": ["7_masks.tif"], "8": ["8_masks.tif"]}
    assert not data.unpaired
    assert any("Python objects" in notice for notice in data.notices)


def test_python_objects_that_are_named_as_masks_are_an_error_that_says_so(tmp_path: Path) -> None:
    write(tmp_path, ["7.tif"])
    np.save(tmp_path / "7_seg.npy", {"masks": MASK}, allow_pickle=True)  # type: ignore[arg-type]
    (tmp_path / "data.yaml").write_text("masks: '{stem}_seg.npy'\n")
    with pytest.raises(DataError, match="holds Python objects, as the projects of Cellpose do"):
        folder.scan(tmp_path)


def coco(*names: str) -> str:
    entries = [{"id": number, "file_name": name, "height": 12, "width": 16} for number, name in enumerate(names)]
    return json.dumps({"images": entries, "annotations": [], "categories": [{"id": 1, "name": "cell"}]})


@pytest.mark.usefixtures("undetected")
def test_coco_files_name_their_images(tmp_path: Path) -> None:
    write(tmp_path, ["train2017/a.jpg", "train2017/b.jpg", "val2017/a.jpg", "train2017/unlisted.jpg"])
    write(
        tmp_path,
        [f"annotations/{name}_{part}.json" for name in ("instances", "captions") for part in ("train2017", "val2017")],
    )
    (tmp_path / "annotations/instances_train2017.json").write_text(coco("a.jpg", "b.jpg", "gone.jpg"))
    (tmp_path / "annotations/instances_val2017.json").write_text(coco("a.jpg"))
    (tmp_path / "annotations/captions_val2017.json").write_text(json.dumps({"images": [], "annotations": []}))
    (tmp_path / "annotations/captions_train2017.json").write_text("[]")
    data = folder.scan(tmp_path)
    assert pairs(data) == {
        "train2017/a": ["annotations/instances_train2017.json"],
        "train2017/b": ["annotations/instances_train2017.json"],
        "val2017/a": ["annotations/instances_val2017.json"],
    }
    assert [case.split for case in data.cases] == ["train", "train", "validation"]
    assert unpaired(data) == ["train2017/unlisted.jpg"]
    assert any("1 images" in notice for notice in data.notices)


@pytest.mark.usefixtures("undetected")
def test_an_image_in_two_coco_files_is_an_error_that_says_how_to_choose(tmp_path: Path) -> None:
    write(tmp_path, ["pics/a.jpg"])
    for name in ("one.json", "two.json"):
        (tmp_path / name).write_text(coco("pics/a.jpg"))
    with pytest.raises(DataError, match="several") as caught:
        folder.scan(tmp_path)
    assert pairs(scan_remedy(caught.value, tmp_path)) == {"pics/a": ["one.json"]}


# Where there is more than one way


def scan_remedy(error: DataError, tmp_path: Path, choice: str = "") -> Dataset:
    """Do what the remedy says, in a file somewhere else; `choice` picks the alternative with that text."""
    lines = error.remedy.splitlines()[1:]
    if choice:
        chosen = next(line for line in lines if line.startswith("# or ") and choice in line)
        lines = [line for line in lines if not line.startswith(("masks", "# or"))] + [chosen.removeprefix("# or ")]
    file = tmp_path / f"choice-{len(list(tmp_path.iterdir()))}" / "chosen.yaml"
    file.parent.mkdir()
    file.write_text("\n".join(lines))
    return folder.scan(file)


AMBIGUOUS = {
    "two observers beside the image": (
        [f"I_{n}{end}" for n in ("01L", "02R") for end in (".jpg", "_1stHO.png", "_2ndHO.png")],
        {"I_01L": ["I_01L_1stHO.png"], "I_02R": ["I_02R_1stHO.png"]},
        "2ndHO",
    ),
    "the same suffix for all": (
        [f"{n}{end}.png" for n in ("01", "02") for end in ("", "_vessels", "_disc")],
        {"01": ["01_disc.png"], "02": ["02_disc.png"]},
        "vessels",
    ),
    "two mask folders": (
        [f"{role}/{n}.png" for n in ("1", "2", "10") for role in ("images", "masks", "labels_old")],
        {n: [f"labels_old/{n}.png"] for n in ("1", "2", "10")},
        "masks",
    ),
    "two mask folders in each split": (
        [f"{split}/{role}/{n}.png" for split in ("train", "val") for n in "12" for role in ("img", "gt1", "gt2")],
        {f"{split}/{n}": [f"{split}/gt1/{n}.png"] for split in ("train", "val") for n in "12"},
        "gt2",
    ),
    "two masks in each folder": (
        [
            f"{split}/set{n}/{name}"
            for split, n in (("train", 1), ("train", 2), ("val", 3))
            for name in ("raw.tif", "labeled.png", "mask.png", "phase.png")
        ],
        {f"{split}/set{n}": [f"{split}/set{n}/labeled.png"] for split, n in (("train", 1), ("train", 2), ("val", 3))},
        "mask.png",
    ),
    "names that only begin alike": (
        [
            *("t/images/20_training.tif", "t/images/34_training.tif", "t/images/5_training.tif"),
            *("t/1st_manual/20_manual1.gif", "t/1st_manual/34manual1).gif", "t/1st_manual/5_manual1 .gif"),
            *("t/mask/20_training_mask.gif", "t/mask/34_training_mask .gif", "t/mask/5_training_mask.gif"),
        ],
        {
            "t/20_training": ["t/1st_manual/20_manual1.gif"],
            "t/34_training": ["t/1st_manual/34manual1).gif"],
            "t/5_training": ["t/1st_manual/5_manual1 .gif"],
        },
        "t/mask/",
    ),
    "masks beside and in a folder": (
        [f"{n}{end}.png" for n in "12" for end in ("", "_mask")] + ["masks/1.png", "masks/2.png"],
        {"1": ["masks/1.png"], "2": ["masks/2.png"]},
        "_mask.png",
    ),
    "names that end on the split": (
        [
            f"{split}/{place}"
            for split, end, numbers in (("test", "test", "12"), ("training", "training", "34"))
            for n in numbers
            for place in (f"images/0{n}_{end}.tif", f"1st_manual/0{n}_manual1.gif", f"mask/0{n}_{end}_mask.gif")
        ],
        {
            f"{split}/0{n}_{split}": [f"{split}/1st_manual/0{n}_manual1.gif"]
            for split, numbers in (("test", "12"), ("training", "34"))
            for n in numbers
        },
        "_mask.gif",
    ),
    "two mask folders inside one": (
        [f"{place}/{n}_0.png" for n in "123" for place in ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask")],
        {f"CXR_png/{n}_0": [f"ManualMask/leftMask/{n}_0.png"] for n in "123"},
        "rightMask",
    ),
    "masks one folder deeper": (
        [
            *(f"training/images/{n}.jpg" for n in "123"),
            *(f"training/v2.0/{place}/{n}.png" for n in "123" for place in ("instances", "labels")),
        ],
        {f"training/{n}": [f"training/v2.0/labels/{n}.png"] for n in "123"},
        "instances",
    ),
}


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_an_error_whose_lines_work(name: str, tmp_path: Path) -> None:
    files, expected, other = AMBIGUOUS[name]
    root = write(tmp_path / "data", files)
    with pytest.raises(DataError) as caught:
        folder.scan(root)
    assert caught.value.where == root
    assert pairs(scan_remedy(caught.value, tmp_path)) == expected
    second = pairs(scan_remedy(caught.value, tmp_path, other))
    assert second.keys() == expected.keys()
    assert all(other in mask for found in second.values() for mask in found)


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("2_Ortho_RGB/top_2_1{}_RGB.tif", "5_Labels_all/top_2_1{}_label.tif"),
        ("Set/{}/{}_Dermoscopic_Image/{}.bmp", "Set/{}/{}_lesion/{}_lesion.bmp"),
        ("images/{}.png", "masks/{}_painted by hand.png"),
    ],
)
def test_names_that_agree_in_part_get_lines_that_work(image: str, mask: str, tmp_path: Path) -> None:
    stems = ("A1", "B2", "C3")
    root = write(tmp_path / "data", [path.replace("{}", stem) for stem in stems for path in (image, mask)])
    with pytest.raises(DataError) as caught:
        folder.scan(root)
    data = scan_remedy(caught.value, tmp_path)
    assert sorted(images(data).values()) == [image.replace("{}", stem) for stem in stems]
    assert sorted(pairs(data).values()) == [[mask.replace("{}", stem)] for stem in stems]
    assert not data.unpaired


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize(
    "files",
    [
        ["cat/1.jpg", "cat/3.jpg", "dog/0.jpg", "dog/2.jpg"],
        ["train_images/0.jpg", "train_images/1.jpg", "test_images/2.jpg"],
        ["ds0/img/1.jpeg", "ds0/img/2.jpeg"],
    ],
)
def test_photos_alone_get_no_lines(files: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        folder.scan(write(tmp_path, files))
    assert "\n" not in caught.value.remedy
    assert caught.value.remedy.startswith("Call each mask as its image")


@pytest.mark.usefixtures("undetected")
def test_a_pattern_that_pairs_few_of_the_images_is_not_proposed(tmp_path: Path) -> None:
    names = [f"masks/task-{n}-annotation-{n}1-tag-{tag}-0.png" for n in range(5) for tag in ("car", "tree")]
    with pytest.raises(DataError) as caught:
        folder.scan(write(tmp_path, [*(f"images/task-{n}.png" for n in range(5)), *names]))
    assert "annotation" not in caught.value.remedy


@pytest.mark.usefixtures("undetected")
def test_lines_that_only_show_a_form_say_what_they_do_not_find(tmp_path: Path) -> None:
    files = [path for n in range(3) for path in (f"images/00{n}.png", f"masks/{n}.png")]
    with pytest.raises(DataError, match=r"there is no masks/000\.png for images/000\.png") as caught:
        folder.scan(write(tmp_path, files))
    assert 'masks: "masks/{stem}.png"' in caught.value.remedy


@pytest.mark.usefixtures("undetected")
def test_the_lines_work_in_the_folder_itself_too(tmp_path: Path) -> None:
    files, expected, _ = AMBIGUOUS["two observers beside the image"]
    write(tmp_path, files)
    with pytest.raises(DataError) as caught:
        folder.scan(tmp_path)
    (tmp_path / "data.yaml").write_text(caught.value.remedy.partition("\n")[2])
    assert pairs(folder.scan(tmp_path)) == expected


@pytest.mark.usefixtures("undetected")
def test_several_kinds_of_annotations_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, ["a/1.jpg", "a/2.jpg", "a/1.json", "a/2.json", "b/images/3.png", "b/masks/3.png"])
    for stem in "12":
        (tmp_path / f"a/{stem}.json").write_text(json.dumps(SHAPES))
    with pytest.raises(DataError, match="several kinds") as caught:
        folder.scan(tmp_path)
    assert pairs(scan_remedy(caught.value, tmp_path)) == {"a/1": ["a/1.json"], "a/2": ["a/2.json"]}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "empty"),
        (["notes.md"], r"1 \.md"),
        (["imagesTr/a.mha.gz", "labelsTr/a.mha.gz"], r"2 \.mha\.gz"),
        (["images/1.png", "other/7.png"], "no masks"),
    ],
)
def test_a_folder_without_pairs_says_what_it_holds(files: list[str], words: str, tmp_path: Path) -> None:
    write(tmp_path, files)
    with pytest.raises(DataError, match=words) as caught:
        folder.scan(tmp_path)
    assert caught.value.remedy


def test_a_missing_folder_and_a_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        folder.scan(tmp_path / "missing")
    write(tmp_path, ["a.png"])
    with pytest.raises(DataError, match="a file, not a folder"):
        folder.scan(tmp_path / "a.png")


# data.yaml

Describe = Callable[[str], Dataset]


@pytest.fixture
def describe(tmp_path: Path) -> Describe:
    def scan(text: str) -> Dataset:
        (tmp_path / "data.yaml").write_text(text)
        return folder.scan(tmp_path)

    return scan


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize(
    ("images_pattern", "masks_pattern"),
    [
        ("*/pics/*.jpg", "{1}/truth-{2}.png"),
        ("**/*.jpg", "{dir}/../truth-{stem}.png"),
        ("*/pics/x*.jpg", "{1}/truth-x{2}.png"),
        ("a/**/*.jpg", "**/truth-{stem}.png"),
        ("*/pics/*.jpg", "{1}/truth-{2}.*"),
        ("*/PICS/*.JPG", "./{1}/truth-{2}.png"),
    ],
)
def test_placeholders_lead_from_image_to_mask(
    images_pattern: str, masks_pattern: str, tmp_path: Path, describe: Describe
) -> None:
    write(tmp_path, ["a/pics/x1.jpg", "a/pics/x10.jpg", "a/truth-x1.png", "a/truth-x10.png", "a/truth-x2.png"])
    data = describe(f'images: "{images_pattern}"\nmasks: "{masks_pattern}"')
    assert pairs(data) == {"a/pics/x1": ["a/truth-x1.png"], "a/pics/x10": ["a/truth-x10.png"]}
    assert unpaired(data) == ["a/truth-x2.png"]


@pytest.mark.usefixtures("undetected")
def test_parent_is_the_name_of_the_folder_and_a_star_takes_many(tmp_path: Path, describe: Describe) -> None:
    write(tmp_path, ["k/7/photo.png", "k/7/objects/1.png", "k/7/objects/2.png", "k/8/photo.png", "all/8.png"])
    assert pairs(describe('images: "k/*/photo.png"\nmasks: ["{dir}/objects/*.png", "all/{parent}.png"]')) == {
        "k/7": ["k/7/objects/1.png", "k/7/objects/2.png"],
        "k/8": ["all/8.png"],
    }


@pytest.mark.usefixtures("undetected")
def test_a_mask_that_would_serve_two_images_is_an_error(tmp_path: Path, describe: Describe) -> None:
    write(tmp_path, ["i/1.png", "i/10.png", "m/1_gt.png", "m/10_gt.png"])
    with pytest.raises(DataError, match=r"to i/1\.png and to i/10\.png"):
        describe('images: "i/*.png"\nmasks: "m/{1}*.png"')


@pytest.mark.usefixtures("undetected")
def test_patterns_that_find_nothing_say_where_they_looked(tmp_path: Path, describe: Describe) -> None:
    write(tmp_path, ["i/1.png", "m/1_gt.png"])
    with pytest.raises(DataError, match=r"for i/1.png there is no m/1.png"):
        describe('images: "i/*.png"\nmasks: "m/{stem}.png"')
    with pytest.raises(DataError, match="No image fits"):
        describe('images: "j/*.png"\nmasks: "m/{stem}.png"')
    with pytest.raises(ConfigError, match=r"placeholder \{name\}"):
        describe('images: "i/*.png"\nmasks: "m/{name}.png"')


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize("masks_dir", ["zeug", "a/zeug"])
def test_masks_dir_names_a_folder_that_no_word_tells(masks_dir: str, tmp_path: Path, describe: Describe) -> None:
    write(tmp_path, ["a/pics/1.jpg", "a/pics/2.jpg", "a/zeug/1.png", "a/zeug/2_mask.png"])
    assert pairs(describe(f"masks_dir: {masks_dir}")) == {
        "a/pics/1": ["a/zeug/1.png"],
        "a/pics/2": ["a/zeug/2_mask.png"],
    }


@pytest.mark.usefixtures("undetected")
def test_masks_dir_beside_each_split(tmp_path: Path, describe: Describe) -> None:
    write(tmp_path, [f"{part}/{name}/1.png" for part in ("train", "val") for name in ("pics", "zeug", "masks")])
    data = describe("masks_dir: zeug\nimages: '*/pics/*.png'")
    assert pairs(data) == {f"{part}/pics/1": [f"{part}/zeug/1.png"] for part in ("train", "val")}


ULTRALYTICS = """
path: {name} # dataset root dir
train: images/train # 4 images
val: images/val
test: # optional
names:
  0: person
  1: bicycle
download: https://example.org/x.zip
"""


def test_an_ultralytics_file_is_read_as_it_is(tmp_path: Path, undetected: list[Declaration]) -> None:
    root = write(tmp_path / "coco8-seg", ["images/train/a.jpg", "images/val/b.jpg", "images/other/c.jpg"])
    write(root, ["labels/train/a.txt", "labels/val/b.txt", "labels/other/c.txt"])
    for name in ("train/a", "val/b", "other/c"):
        (root / f"labels/{name}.txt").write_text(YOLO)
    for file in (tmp_path / "coco8-seg.yaml", root / "data.yaml"):  # beside the folder, and in it
        file.write_text(ULTRALYTICS.format(name="coco8-seg"))
        data = folder.scan(file)
        assert pairs(data) == {"train/a": ["labels/train/a.txt"], "val/b": ["labels/val/b.txt"]}
        assert [case.split for case in data.cases] == ["train", "validation"]
        assert undetected[-1] == Declaration(names=("person", "bicycle"))


@pytest.mark.usefixtures("undetected")
def test_a_roboflow_file_with_its_wrong_paths_is_read(tmp_path: Path, describe: Describe) -> None:
    for part in ("train", "valid", "test"):
        write(tmp_path, [f"{part}/images/{part[0]}.jpg", f"{part}/labels/{part[0]}.txt"])
        (tmp_path / f"{part}/labels/{part[0]}.txt").write_text(YOLO)
    data = describe(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['cell']\n"
        "roboflow: {workspace: w, version: 1}"
    )
    assert [case.split for case in data.cases] == ["test", "train", "validation"]


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize("form", ["stems", "list", "pattern", "camvid", "paths"])
def test_splits_are_folders_lists_patterns_or_stems(form: str, tmp_path: Path, describe: Describe) -> None:
    write(tmp_path, [f"{role}/{stem}.png" for role in ("images", "masks") for stem in ("a1", "a2", "b1", "b2", "c1")])
    entries = {
        "stems": "train: [a1, a2]\nval: [b1]\ntest: [b2]",
        "list": "train: train.txt\nval: val.txt\ntest: test.txt",
        "camvid": "train: train.txt\nval: val.txt\ntest: test.txt",
        "pattern": "train: 'images/a*.png'\nval: 'images/b1.*'\ntest: 'images/b2.*'",
        "paths": "train: [images/a1.png, ./images/a2.png]\nval: images/b1.png\ntest: images/b2",
    }
    line = "/old/disk/images/{0}.jpg /old/disk/masks/{0}.jpg" if form == "camvid" else "./images/{0}.png"
    for name, stems in (("train", ("a1", "a2")), ("val", ("b1",)), ("test", ("b2",))):
        (tmp_path / f"{name}.txt").write_text("".join(line.format(stem) + "\n" for stem in stems))
    data = describe(entries[form])
    assert {case.name: case.split for case in data.cases} == {
        "a1": "train",
        "a2": "train",
        "b1": "validation",
        "b2": "test",
    }


@pytest.mark.usefixtures("undetected")
def test_what_is_not_a_test_is_left_to_be_split(tmp_path: Path, describe: Describe) -> None:
    write(tmp_path, [f"{role}/{stem}.png" for role in ("images", "masks") for stem in "abc"])
    assert {case.name: case.split for case in describe("test: [b]").cases} == {"a": None, "b": "test", "c": None}


@pytest.mark.usefixtures("undetected")
def test_a_line_of_a_list_is_a_path_before_it_is_anything_else(tmp_path: Path, describe: Describe) -> None:
    names = ["images/7.png", "x/images/7.png", "images/scan.png (2).png", "images/scan.png"]
    write(tmp_path, [*names, *(name.replace("images/", "masks/") for name in names)])
    (tmp_path / "test.txt").write_text("images/7.png\nimages/scan.png (2).png\n")
    text = 'images: "**/images/*"\nmasks: "{dir}/../masks/{stem}.png"\ntest: test.txt'
    found = {case.image.relative_to(tmp_path).as_posix(): case.split for case in describe(text).cases}
    assert found == dict(zip(names, ("test", None, "test", None), strict=True))


@pytest.mark.usefixtures("undetected")
def test_an_empty_list_says_that_folders_give_no_split(tmp_path: Path, describe: Describe) -> None:
    write(tmp_path, [f"{side}/{role}/{side}.png" for side in ("train", "val", "test") for role in ("images", "masks")])
    assert {case.split for case in describe("group: '(.)'").cases} == {"train", "validation", "test"}
    assert {case.split for case in describe("test: []").cases} == {None}


@pytest.mark.usefixtures("undetected")
def test_an_image_on_two_sides_or_a_line_without_image_is_an_error(tmp_path: Path, describe: Describe) -> None:
    write(tmp_path, [f"{role}/{stem}.png" for role in ("images", "masks") for stem in "abc"])
    with pytest.raises(DataError, match=r"in train and in validation, such as images/b.png"):
        describe("train: [a, b]\nval: [b, c]")
    with pytest.raises(DataError, match="'d' is no folder"):
        describe("train: [a]\nval: [d]")
    (tmp_path / "list.txt").write_text("a\nnothing\n")
    with pytest.raises(DataError, match="1 of 2 lines"):
        describe("train: list.txt\nval: [c]")
    with pytest.raises(DataError, match="cannot be read"):
        describe("train: missing.txt")


def test_classes_are_handed_on(tmp_path: Path, describe: Describe, undetected: list[Declaration]) -> None:
    write(tmp_path, ["images/a.png", "masks/a.png"])
    describe("names: [sky, road]\ncolors: [[1, 2, 3], [4, 5, 6]]\nignore: 11\nvalues: {3: road, 7: ignore, 8: 0}")
    assert undetected[-1] == Declaration(
        names=("sky", "road"), colors=((1, 2, 3), (4, 5, 6)), values={3: "road", 7: "ignore", 8: 0}, ignore=11
    )
    describe("names: {0: sky, 128: road}\ncolors: {road: [4, 5, 6], sky: [1, 2, 3]}")
    assert undetected[-1] == Declaration(
        names=("sky", "road"), colors=((1, 2, 3), (4, 5, 6)), values={0: "sky", 128: "road"}
    )
    describe("ignore: [1, 2, 3]\nnames: [1, no, 007]")
    assert undetected[-1] == Declaration(names=("1", "no", "007"), ignore_colors=((1, 2, 3),))
    describe("ignore: [[1, 2, 3], [4, 5, 6]]")
    assert undetected[-1] == Declaration(ignore_colors=((1, 2, 3), (4, 5, 6)))


@pytest.mark.usefixtures("undetected")
def test_numbers_and_dates_are_names(tmp_path: Path, describe: Describe) -> None:
    stems = ["24", "007", "1e3", "2021-02-03", "2021-02-30", "no"]
    write(tmp_path, [f"{role}/{stem}.png" for role in ("images", "masks") for stem in [*stems, "x"]])
    data = describe(f"test: [{', '.join(stems)}]\nval:")
    assert {case.name for case in data.cases if case.split == "test"} == set(stems)
    assert [case.name for case in describe("test: 24").cases if case.split == "test"] == ["24"]


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize("train", ["", "train: images\n"])
def test_a_number_stands_for_the_stem_where_no_pattern_is_given(train: str, tmp_path: Path, describe: Describe) -> None:
    write(tmp_path, ["images/a.jpg", "masks/a.png"])
    assert pairs(describe(train + 'masks: "masks/{1}.png"')) == {"a": ["masks/a.png"]}


def by_class(root: Path, tree_from: int = 8) -> Path:
    """Three images; cars on the left quarter of each, trees from a column on, but not in the last one."""
    for folder_ in ("images", "car", "tree"):
        (root / folder_).mkdir(parents=True)
    columns = np.arange(16)[None].repeat(12, axis=0)
    for stem in "123":
        pixels = np.random.default_rng(int(stem)).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{stem}.png")
        Image.fromarray((columns < 4).astype(np.uint8) * 255).save(root / "car" / f"{stem}.png")
        if stem != "3":
            Image.fromarray((columns >= tree_from).astype(np.uint8)).save(root / "tree" / f"{stem}.png")
    return root


BY_CLASS = "images: images/*.png\nmasks: {car: 'car/{stem}.png', tree: 'tree/{stem}.png'}\n"


@pytest.mark.parametrize(
    ("more", "names", "row"),
    [
        ("", ["background", "car", "tree"], [1] * 4 + [0] * 4 + [2] * 8),
        ("names: [ground, tree, car]\n", ["ground", "tree", "car"], [2] * 4 + [0] * 4 + [1] * 8),
    ],
)
def test_each_class_may_have_masks_of_its_own(
    more: str, names: list[str], row: list[int], tmp_path: Path, describe: Describe
) -> None:
    by_class(tmp_path)
    data = describe(BY_CLASS + more)
    assert data.classes.names == names
    assert data.named
    assert decode(data.cases[0], data.encoding, (12, 16))[5].tolist() == row
    assert not decode(data.cases[2], data.encoding, (12, 16))[:, 8:].any(), "an image need not have all of them"
    assert not data.unpaired


@pytest.mark.parametrize(
    "text",
    [
        "images: images/*.png\nmasks: {tree: 'tree/{stem}.png', car: 'car/{stem}.png'}\n",
        "images: images/*.png\nmasks: {bus: 'bus/{stem}.png', car: 'car/{stem}.png', tree: 'tree/{stem}.png'}\n",
    ],
)
def test_other_lines_of_a_description_do_not_swap_the_classes_of_a_run(
    text: str, tmp_path: Path, describe: Describe
) -> None:
    by_class(tmp_path)
    (tmp_path / "bus").mkdir()
    Image.fromarray(np.zeros((12, 16), dtype=np.uint8)).save(tmp_path / "bus" / "3.png")
    known = describe(BY_CLASS)
    run = RunFacts(data="/data", mask_encoding=known.encoding)
    again = sides.as_trained(describe(text), run, known.classes)
    assert again.classes.names == ["background", "car", "tree"]
    assert decode(again.cases[0], again.encoding, None)[5].tolist() == [1] * 4 + [0] * 4 + [2] * 8
    if "bus" in text:
        with pytest.raises(UnknownValuesError, match="a mask of 'bus', which is no class; there are car, tree"):
            decode(again.cases[2], again.encoding, None)


def test_a_pixel_of_two_classes_is_an_error_or_does_not_count(tmp_path: Path, describe: Describe) -> None:
    by_class(tmp_path, tree_from=3)
    data = describe(BY_CLASS)
    with pytest.raises(
        DataError, match=r"tree.1\.png: 12 pixels belong to this class and to that of .*1\.png.*`overlap: i"
    ):
        decode(data.cases[0], data.encoding, None)
    data = describe(BY_CLASS + "overlap: ignore\n")
    assert decode(data.cases[0], data.encoding, None)[5].tolist() == [1] * 3 + [255] + [2] * 12


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BY_CLASS.replace("tree/", "trees/"), "No image has a mask of 'tree', by trees/{stem}.png"),
        (BY_CLASS.replace("tree/", "car/"), "car/1.png is a mask of 'car' and of 'tree'"),
        (BY_CLASS + "names: [background, car]\n", "'names' and 'masks' do not agree"),
        (BY_CLASS + "names: [car, tree, bus]\n", "'names' and 'masks' do not agree"),
        ("masks: {}\n", "'masks' names no class."),
        ("masks: []\n", "'masks' has no pattern."),
        ("masks: {car: 'car/{stem}.png', tree: []}\n", "'masks' has no pattern for 'tree'."),
        (BY_CLASS.replace("car:", "background:"), "Leave it out. If it is a class beside what nobody labelled"),
        (BY_CLASS + "values: {0: car}\n", "Each class has masks of its own, for which `values`"),
        ("masks: car/{stem}.png\noverlap: ignore\n", "'overlap' is for masks of which each class has its own"),
    ],
)
def test_masks_by_class_that_cannot_be_are_refused(text: str, words: str, tmp_path: Path, describe: Describe) -> None:
    by_class(tmp_path)
    with pytest.raises((ConfigError, DataError)) as caught:
        describe(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(("car", "tree"), [("1", "007"), ("no", "off"), ("1.50", "2021-02-30")])
def test_names_of_classes_with_masks_of_their_own_are_text(
    car: str, tree: str, tmp_path: Path, describe: Describe
) -> None:
    by_class(tmp_path)
    colors = f"colors: {{background: [0, 0, 0], {car}: [1, 2, 3], {tree}: [4, 5, 6]}}\n"
    data = describe(BY_CLASS.replace("car:", f"{car}:").replace("tree:", f"{tree}:") + colors)
    assert data.classes.names == ["background", car, tree]


def test_one_file_for_each_image_by_class_may_have_palettes_that_differ(tmp_path: Path, describe: Describe) -> None:
    by_class(tmp_path)
    for kind, stem in (("tree", "1"), ("car", "2"), ("tree", "3")):
        (tmp_path / kind / f"{stem}.png").unlink(missing_ok=True)
    for path, color in ((tmp_path / "car" / "1.png", (255, 0, 0)), (tmp_path / "tree" / "2.png", (0, 255, 0))):
        indices = Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8), "P")
        indices.putpalette([0, 0, 0, *color, *color])
        indices.putpixel((15, 0), 2)  # in the same colour as 1
        indices.save(path)
    data = describe(BY_CLASS)
    assert [decode(case, data.encoding, None).max() for case in data.cases] == [1, 2, 1]


def test_masks_by_class_stored_as_jpeg_are_refused(tmp_path: Path, describe: Describe) -> None:
    by_class(tmp_path)
    for path in [*tmp_path.glob("car/*.png"), *tmp_path.glob("tree/*.png")]:
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    with pytest.raises(DataError, match="5 masks are stored as JPEG"):
        describe(BY_CLASS.replace("{stem}.png", "{stem}.jpg"))


def test_the_error_for_several_masks_says_that_each_may_be_a_class(tmp_path: Path, describe: Describe) -> None:
    by_class(tmp_path / "a")
    (tmp_path / "a" / "masks").mkdir()
    for name in ("car", "tree"):
        (tmp_path / "a" / name).rename(tmp_path / "a" / "masks" / name)
    with pytest.raises(DataError, match="if each class has masks of its own, a pattern for each: masks: "):
        folder.scan(tmp_path / "a")
    names = (
        "path: a\nimages: images/*.png\nnames: [a, b, c]\nmasks: ['masks/car/{stem}.png', 'masks/tree/{stem}.png']\n"
    )
    with pytest.raises(DataError, match="If each class has files of its own, say which: `masks: "):
        describe(names)


@pytest.mark.usefixtures("undetected")
def test_a_group_is_read_from_the_name(tmp_path: Path, describe: Describe) -> None:
    write(tmp_path, [f"{role}/eye{n}{side}.png" for role in ("images", "masks") for n in (1, 2) for side in "LR"])
    data = describe(r"group: '(eye\d+)[LR]$'")
    assert [case.group for case in data.cases] == ["eye1", "eye1", "eye2", "eye2"]
    with pytest.raises(DataError, match="does not fit the case eye1R"):
        describe(r"group: '(eye\d+)L$'")
    with pytest.raises(ConfigError, match="'group'"):
        describe("group: '('")


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("named", ["1L.png", "1L", "images/1L.png", "images\\1L.png"])
def test_a_group_is_read_from_a_table(tmp_path: Path, describe: Describe, separator: str, named: str) -> None:
    write(tmp_path, [f"{role}/{stem}.png" for role in ("images", "masks") for stem in ("1L", "1R", "2L")])
    rows = [("file", "age", "patient"), (named, "7", "ann"), ("1R.png", "7", "ann"), ("2L.png", "9", "bob")]
    (tmp_path / "who.csv").write_text("\n".join(separator.join(row) for row in rows), encoding="utf-8-sig")
    data = describe("group_table: {file: who.csv, column: patient}")
    assert [case.group for case in data.cases] == ["ann", "ann", "bob"]


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize(
    ("table", "declared", "message"),
    [
        ("file,who\n1L.png,ann\n", "column: patient", "no column 'patient'; there are file, who"),
        ("file,who\n1L.png,ann\n", "column: who, image: name", "no column 'name'"),
        ("file,who\n1L.png,ann\n", "column: who", "no entry for the image images/1R.png"),
        ("file,who\n1L.png,ann\n1L.png,bob\n1R.png,ann", "column: who", "two groups, ann and bob"),
        ("file,who\n1L.png,\n1R.png,ann", "column: who", "no entry for the image images/1L.png"),
        ("file,who\n", "column: who", "no rows"),
        ("", "column: who", "no rows"),
    ],
)
def test_a_table_that_leaves_a_group_open_is_refused(
    tmp_path: Path, describe: Describe, table: str, declared: str, message: str
) -> None:
    write(tmp_path, [f"{role}/{stem}.png" for role in ("images", "masks") for stem in ("1L", "1R")])
    (tmp_path / "who.csv").write_text(table, encoding="utf-8")
    with pytest.raises((ConfigError, DataError), match=message) as raised:
        describe(f"group_table: {{file: who.csv, {declared}}}")
    assert "who.csv" in str(raised.value)


@pytest.mark.usefixtures("undetected")
def test_a_table_that_is_not_there_and_two_ways_at_once_are_refused(tmp_path: Path, describe: Describe) -> None:
    write(tmp_path, [f"{role}/{stem}.png" for role in ("images", "masks") for stem in ("1L", "1R")])
    with pytest.raises(ConfigError, match="cannot be read"):
        describe("group_table: {file: who.csv, column: patient}")
    with pytest.raises(ConfigError, match="both given"):
        describe("group: x\ngroup_table: {file: who.csv, column: patient}")


@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mask_dir: x", "masks_dir"),
        ("mask-dir: x", "'mask-dir'. Did you mean 'masks_dir'"),
        ("download: 2021-02-30", "YAML"),
        ("ignore: [1, 2]", "ignore"),
        ("colors: [[0, 0, 0], [300, 0, 0]]", "300"),
        ("name: [a, b]", "names"),
        ("ignore: [1]", "ignore"),
        ("names: [a, b]\nnc: 3", "nc"),
        ("names: [a, b]\ncolors: [[1, 2, 3]]", "2 names and 1 colors"),
        ("names: [a, b]\ncolors: {a: [1, 2, 3], c: [1, 2, 3]}", "differ in b, c"),
        ("- 1", "keys"),
        ("a: {", "YAML"),
        ("images: *.png", "YAML"),
    ],
)
def test_a_wrong_key_or_value_is_named(text: str, words: str, tmp_path: Path, describe: Describe) -> None:
    write(tmp_path, ["images/a.png", "masks/a.png"])
    with pytest.raises(ConfigError, match=words) as caught:
        describe(text)
    assert caught.value.where == tmp_path / "data.yaml"


def test_a_missing_description_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        folder.scan(tmp_path / "missing.yaml")


def test_every_key_is_described_in_the_documentation() -> None:
    text = (Path(__file__).parents[1] / "docs" / "data-folder.md").read_text(encoding="utf-8")
    for key in DataFile.model_fields:
        assert f"`{key}`" in text


def test_the_examples_of_the_documentation_are_valid() -> None:
    text = (Path(__file__).parents[1] / "docs" / "data-folder.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in text.split("```yaml\n")[1:]]
    assert blocks
    for block in blocks:
        DataFile.model_validate(yaml.safe_load(block))


@pytest.mark.usefixtures("undetected")
@pytest.mark.slow
def test_five_thousand_pairs_take_five_times_as_long_as_a_thousand(tmp_path: Path) -> None:
    taken = {}
    for count in (10, 1000, 5000):  # the first imports what is imported late
        for name in ("images", "masks"):
            (tmp_path / str(count) / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / str(count) / name / f"{number}.png").touch()
        start = time.process_time()  # of this process: other programs may be busy
        assert len(folder.scan(tmp_path / str(count)).cases) == count
        taken[count] = time.process_time() - start
    assert taken[5000] < 12 * taken[1000]  # by the square of the count it would be 25 times


def drawn(root: Path, folders: dict[str, Callable[[int], np.ndarray]], count: int = 6) -> Path:
    """Pictures of equal names in each of the folders."""
    for name, pixels in folders.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(pixels(number)).save(root / name / f"Zelle {number}.png")
    return root


def photo(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def dark(number: int) -> np.ndarray:
    """A photograph of few values: a black ground, and cells that are hardly brighter and noisy."""
    values = np.random.default_rng(number).poisson(9, (24, 32))
    return np.where(disc(number) > 0, values, 0).astype(np.uint8)


def smooth(number: int) -> np.ndarray:
    """Another one: no noise, and brightness that falls off to all sides."""
    rows, columns = np.mgrid[:24, :32]
    return np.round(40 * np.exp(-((rows - 12) ** 2 + (columns - 10 - number) ** 2) / 60)).astype(np.uint8)


def disc(number: int) -> np.ndarray:
    rows, columns = np.mgrid[:24, :32]
    return ((rows - 12) ** 2 + (columns - 10 - number) ** 2 < 40).astype(np.uint8) * 255


def colored(number: int) -> np.ndarray:
    return np.stack([disc(number), np.zeros((24, 32), np.uint8), disc(number)], axis=2)


@pytest.mark.parametrize(
    ("image_folder", "mask_folder"),
    [
        ("Bilder", "Masken"),
        ("fotografías", "máscaras"),
        ("vérité terrain", "clichés"),  # in this order, too
        ("train/Bilder", "train/Größe"),
        ("images", "masques"),
        ("Bilder", "masks"),
    ],
)
@pytest.mark.parametrize("mask", [disc, colored])
@pytest.mark.parametrize("image", [photo, dark, smooth])
def test_folders_of_any_name_are_told_apart_by_content(
    image_folder: str,
    mask_folder: str,
    image: Callable[[int], np.ndarray],
    mask: Callable[[int], np.ndarray],
    tmp_path: Path,
) -> None:
    data = folder.scan(drawn(tmp_path, {image_folder: image, mask_folder: mask}))
    assert [case.image.relative_to(tmp_path).parent.as_posix() for case in data.cases] == [image_folder] * 6
    assert [case.masks for case in data.cases] == [
        (tmp_path / mask_folder / f"Zelle {number}.png",) for number in range(6)
    ]
    assert (
        data.layout
        == f"images in {image_folder}, masks in {mask_folder}, paired by name, told apart by what is in them"
    )
    assert not data.unpaired


@pytest.mark.usefixtures("undetected")
def test_vague_words_say_mask_where_each_image_has_a_drawn_one(tmp_path: Path) -> None:
    for name, mask, draw, first in (
        ("beside", "{}_L.png", disc, 0),
        ("folders", "train_labels/{}_L.png", disc, 0),
        ("photos", "{}_L.png", photo, 0),
        ("few", "{}_lesion.png", disc, 1),
    ):
        for number in range(4):
            image = "train/{}.png" if name == "folders" else "{}.png"
            for pattern, pixels in ((image, photo), (mask, draw))[: 1 if number < first else 2]:
                path = tmp_path / name / pattern.format(number)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels(number)).save(path)
    assert pairs(folder.scan(tmp_path / "beside"))["2"] == ["2_L.png"]
    assert pairs(folder.scan(tmp_path / "folders"))["train/2"] == ["train_labels/2_L.png"]
    for name in ("photos", "few"):
        with pytest.raises(DataError, match="no masks that can be told"):
            folder.scan(tmp_path / name)


@pytest.mark.usefixtures("undetected")
def test_words_that_say_mask_leave_the_choice_among_several(tmp_path: Path) -> None:
    write(tmp_path, [f"{stem}{end}.png" for stem in "123" for end in ("", "_labelIds", "_instanceIds")])
    with pytest.raises(
        DataError, match=r"3 images have more than one mask: 1.png has 1_instanceIds.png, 1_labelIds.png"
    ):
        folder.scan(tmp_path)
    write(tmp_path, [f"{stem}_mask.png" for stem in "123"])
    assert pairs(folder.scan(tmp_path)) == {stem: [f"{stem}_mask.png"] for stem in "123"}, "as it was without them"


def test_masks_of_cellpose_are_numbers_of_objects(tmp_path: Path) -> None:
    numbers = np.repeat(np.arange(4, dtype=np.uint16), 6)[None].repeat(12, axis=0)
    for stem in "123":
        tifffile.imwrite(
            tmp_path / f"{stem}.tif", np.random.default_rng(int(stem)).integers(0, 99, numbers.shape, dtype=np.uint8)
        )
        tifffile.imwrite(tmp_path / f"{stem}_cp_masks.tif", numbers)
    assert (folder.scan(tmp_path).encoding.kind, folder.scan(tmp_path).classes.names) == (
        "instances",
        ["background", "object"],
    )
    (tmp_path / "data.yaml").write_text("names: [background, cell]\n")
    assert (folder.scan(tmp_path).encoding.kind, folder.scan(tmp_path).classes.names) == (
        "instances",
        ["background", "cell"],
    )
    (tmp_path / "data.yaml").write_text("names: [a, b, c, d]\n")
    assert folder.scan(tmp_path).encoding.kind == "values"


@pytest.mark.parametrize("other", [photo, dark, smooth])
def test_two_folders_of_photos_are_no_images_and_masks(other: Callable[[int], np.ndarray], tmp_path: Path) -> None:
    drawn(tmp_path, {"Kanal 1": photo, "Kanal 2": other})
    with pytest.raises(DataError, match="no masks that can be told") as caught:
        folder.scan(tmp_path)
    assert 'images: "Kanal 1/*.png"' in caught.value.remedy
    assert 'masks: "Kanal 2/{stem}.png"' in caught.value.remedy


def test_two_folders_of_masks_are_an_error_whose_lines_work(tmp_path: Path) -> None:
    drawn(tmp_path, {"Bilder": photo, "Masken A": disc, "Masken B": disc})
    with pytest.raises(DataError, match="6 images have more than one mask") as caught:
        folder.scan(tmp_path)
    data = scan_remedy(caught.value, tmp_path)
    assert {case.masks[0].parent.name for case in data.cases} == {"Masken A"}


def test_an_example_of_patterns_names_the_folders_that_are_there(tmp_path: Path) -> None:
    write(tmp_path, ["Bilder/a.png", "Bilder/b.png", "Umrisse/7.tif"])
    with pytest.raises(DataError, match="no masks that can be told") as caught:
        folder.scan(tmp_path)
    assert 'images: "Bilder/*.png"' in caught.value.remedy
    assert 'masks: "Umrisse/{stem}.tif"' in caught.value.remedy


def test_a_small_folder_is_read_to_the_end(tmp_path: Path) -> None:
    write(tmp_path, ["images/a.png", "masks/a.png", "images/b.png", "masks/b.png"])
    data = folder.scan(tmp_path)
    assert data.root == tmp_path
    assert data.classes.names == ["background", "object"]
    assert "images" in data.layout
    assert os.fspath(data.cases[0].image) == os.fspath(tmp_path / "images" / "a.png")


REAL: list[tuple[str, int, int]] = [
    ("isbi2012_em", 30, 0),
    ("isbi2012_em/train", 30, 0),
    ("camvid", 701, 0),
    ("dsb2018_nuclei", 133, 0),
    ("wbc_smears", 310, 0),
    ("wbc_smears/Dataset 1", 300, 0),
    ("format_zoo/carvana_gif", 4, 0),
    ("format_zoo/crack_contradictions", 8, 0),
    ("format_zoo/dsb2018_instances", 7, 0),
    ("format_zoo/stardist_tiff", 32, 0),
    ("format_zoo/labelme_voc_coco/data_annotated", 3, 0),
    ("format_zoo/labelme_voc_coco/data_dataset_coco", 3, 0),
    ("format_zoo/labelme_voc_coco/data_dataset_voc", 3, 0),
]


@pytest.mark.realdata
@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize(("name", "count", "left"), REAL)
def test_real_folders_are_paired_completely(name: str, count: int, left: int, realdata: Path) -> None:
    data = folder.scan(realdata / name)
    assert len(data.cases) == count
    assert len(data.unpaired) == left
    assert all(case.masks for case in data.cases)


@pytest.mark.realdata
@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize(
    ("name", "count", "line"),
    [
        ("retina_vessels/chase_db1", 28, 'masks: "{stem}_1stHO.png"'),
        ("retina_vessels/drive_messy", 12, 'masks: "training/1st_manual/{1}*.gif"'),
        ("usiigaci_phase16", 7, 'masks: "{dir}/instances_ids.png"'),
        ("format_zoo/hyta_clouds_jpegmask", 32, 'masks: "2GT/{stem}_GT.jpg"'),
        ("format_zoo/uhcs_int64", 2, 'masks: "labels_rescaled/{stem}.tif"'),
        ("format_zoo/spacenet_geotiff", 1, 'masks: "sample_fp_mask_from_geojson.tif"'),
        ("format_zoo/labelme_voc_coco", 3, 'masks: "data_annotated/{stem}.json"'),
    ],
)
def test_real_folders_that_are_ambiguous_say_how_to_go_on(
    name: str, count: int, line: str, realdata: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        folder.scan(realdata / name)
    assert line in caught.value.remedy.splitlines()
    assert len(scan_remedy(caught.value, tmp_path).cases) == count


@pytest.mark.realdata
@pytest.mark.usefixtures("undetected")
@pytest.mark.parametrize("lists", [False, True])
def test_camvid_is_paired_by_stem_and_split_as_published(lists: bool, realdata: Path, tmp_path: Path) -> None:
    # its lists name files of another disk, with another suffix
    text = f"path: {realdata / 'camvid'}\ntrain: train.txt\nval: val.txt\ntest: test.txt\n"
    (tmp_path / "camvid.yaml").write_text(text)
    cases = folder.scan(tmp_path / "camvid.yaml" if lists else realdata / "camvid").cases
    assert all(case.image.stem == case.masks[0].stem for case in cases)
    assert all(case.masks[0].parent.name == f"{case.image.parent.name}annot" for case in cases)
    sides = [case.split for case in cases]
    assert [sides.count(side) for side in ("train", "validation", "test")] == [367, 101, 233]


def test_a_data_yaml_says_that_values_are_numbers_of_objects(tmp_path: Path) -> None:
    for number in range(3):
        for name, values in (("images", np.arange(64) * 4), ("masks", np.arange(64) // 16 + number)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(values.reshape(8, 8).astype(np.uint8)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "data.yaml").write_text("objects: true\n")
    assert folder.scan(tmp_path).encoding.kind == "instances"
    (tmp_path / "data.yaml").write_text("objects: no\n")
    with pytest.raises(ConfigError, match="'objects' is False: input should be True"):
        folder.scan(tmp_path)
