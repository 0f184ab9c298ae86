"""Files that are not read are named where they explain what is missing; folders are as programs write them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data import folder
from pixelwise.data.listing import walk
from pixelwise.errors import DataError

PHOTO = np.random.default_rng(5).integers(0, 256, (12, 16, 3), dtype=np.uint8)
MASK = np.repeat(np.array([0, 255], dtype=np.uint8), 96).reshape(12, 16)


def write(root: Path, names: list[str]) -> Path:
    """Pictures, and files of any other kind that hold a word."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg"):
            Image.fromarray(MASK if "mask" in name.lower() or "Segmentation" in name else PHOTO).save(path)
        else:
            path.write_text("something")
    return root


@pytest.mark.parametrize(
    ("suffix", "target"), [("HEIC", "PNG or JPEG"), ("dcm", "NIfTI"), ("svs", "OME-TIFF"), ("bmp.gz", "Unpack")]
)
def test_masks_whose_images_are_of_an_unread_kind_name_it(suffix: str, target: str, tmp_path: Path) -> None:
    root = write(tmp_path, [path for n in range(3) for path in (f"images/{n}.{suffix}", f"masks/{n}.png")])
    with pytest.raises(DataError) as caught:
        folder.scan(root)
    assert f"3 masks and 3 .{suffix.lower().rpartition('.')[2]} files, such as images/0.{suffix}" in caught.value.what
    assert target in caught.value.remedy


def test_a_folder_of_unread_images_alone_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"only 2 \.h5") as caught:
        folder.scan(write(tmp_path, ["a.h5", "b.h5"]))
    assert caught.value.remedy.startswith("Save each image in such files")


def test_masks_that_were_exported_without_images_say_so(tmp_path: Path) -> None:
    root = write(tmp_path, ["SegmentationClass/1.png", "SegmentationClass/2.png", "SegmentationObject/1.png"])
    with pytest.raises(DataError, match=r"such as SegmentationClass/1\.png, but no images") as caught:
        folder.scan(root)
    assert "without them" in caught.value.remedy


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["annotations/a.xml", "annotations/b.xml", "images/a.jpg"], r"is 1 image but.* 2 \.xml files \(annotations/a"),
        (["images/a.jpg", "images/b.jpg", "train.csv"], r"are 2 images but.* 1 \.csv file \(train\.csv\) may hold"),
        (["a.jpg", "a.geojson"], r"1 \.geojson file \(a\.geojson\)"),
        (["meta.json", "ds/ann/a.jpg.json", "ds/ann/b.jpg.json", "ds/img/a.jpg"], r"3 \.json files \(ds/ann/a\.jpg\.j"),
    ],
)
def test_annotations_that_are_not_read_are_named(files: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words) as caught:
        folder.scan(write(tmp_path, files))
    assert caught.value.remedy.startswith("Export them as masks in pictures")


def test_photos_without_any_annotation_are_not_said_to_have_some(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 images") as caught:
        folder.scan(write(tmp_path, ["a.jpg", "b.jpg", "notes.md"]))
    assert caught.value.what == "There are 2 images but no masks that can be told."
    assert "Export" not in caught.value.remedy


def test_a_lonely_mask_is_told_of_its_unread_image_and_a_link_that_it_leads_nowhere(tmp_path: Path) -> None:
    names = [path for n in range(3) for path in (f"images/{n}.png", f"masks/{n}.png")]
    root = write(tmp_path, [*names, "images/a1.HEIC", "masks/a1.png", "images/other.HEIC"])
    (root / "images/broken.jpg").symlink_to(root / "nowhere.jpg")
    data = folder.scan(root)
    assert sorted(path.name for path in data.unpaired) == ["a1.png", "broken.jpg"]
    told = [notice for notice in data.notices if "nowhere" in notice or "not read" in notice]
    assert told == [
        "A link leads nowhere: images/broken.jpg.",
        "1 partner is of a kind that is not read: images/a1.HEIC. Save such files as PNG or JPEG.",
    ]
    for n in range(3):
        (root / f"masks/{n}.png").write_bytes(b"no mask")
    with pytest.raises(DataError, match=r"leads nowhere: images/broken\.jpg\. 1 partner"):
        folder.scan(root)


def test_an_image_that_is_a_broken_link_is_called_one(tmp_path: Path) -> None:
    write(tmp_path, ["masks/1.png"])
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "masks/1.png").write_bytes(b"no mask")
    with pytest.raises(DataError, match=r"images/1\.png: This is a link that leads nowhere"):
        folder.scan(tmp_path)


def test_a_run_and_a_file_of_annotations_are_no_data(tmp_path: Path) -> None:
    run = write(tmp_path / "run", ["run.json", "begun.json", "curves.png"])
    with pytest.raises(DataError, match="folder of a run") as caught:
        folder.scan(run)
    assert "run.json" in caught.value.remedy
    (run / "curves.png").unlink()
    with pytest.raises(DataError, match="folder of a run"):
        folder.scan(run)
    with pytest.raises(DataError, match="file, not a folder") as caught:
        folder.scan(run / "run.json")
    assert "folder that holds this file of annotations" in caught.value.remedy


def test_data_among_which_a_run_was_written_are_read(tmp_path: Path) -> None:
    data = folder.scan(write(tmp_path, ["run.json", "config.yaml", "images/1.png", "masks/1.png"]))
    assert [case.name for case in data.cases] == ["1"]


def test_the_panoptic_form_of_coco_is_called_by_its_name(tmp_path: Path) -> None:
    write(tmp_path, ["train/1.jpg", "panoptic_train/1.png"])
    tree = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 12, "width": 16}],
        "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 7, "category_id": 1}]}],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (tmp_path / "panoptic_train.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match="panoptic form") as caught:
        folder.scan(tmp_path)
    assert "category None" not in str(caught.value)
    assert "semantic masks" in str(caught.value)


def test_runs_that_lie_among_the_data_are_passed_over(tmp_path: Path) -> None:
    for name in ("images/a.png", "masks/a.png", "runs/data-1/curves.png", "runs/data-1/pictures/a.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in ("run.json", "begun.json"):
        (tmp_path / "runs" / "data-1" / name).touch()
    (tmp_path / "images" / "run.json").touch()  # of another program
    assert [file.posix for file in walk(tmp_path).files if file.is_raster] == ["images/a.png", "masks/a.png"]
