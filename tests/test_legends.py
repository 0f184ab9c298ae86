"""Lists of classes beside masks: tiny files as other programs write them, and what they must be read as."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.dataset import Dataset
from pixelwise.data.folder import scan
from pixelwise.data.masks import decode
from pixelwise.errors import DataError

INDICES = np.repeat(np.repeat(np.array([[0, 1], [2, 0]], dtype=np.uint8), 6, axis=0), 8, axis=1)
"""Stands for background, car and tree in each of its quarters."""
COLORS = ((0, 0, 0), (128, 0, 0), (0, 128, 0))
CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nbus:0,0,128::\ncar:128,0,0::\ntree:0,128,0::\n"
ROBOFLOW = "Pixel Value, Class\n0, background\n1, car\n2, tree\n3, bus\n"


def made(root: Path, masks: Mapping[str, np.ndarray], lists: Mapping[str, str]) -> Path:
    """Photographs beside `masks`, called as these without `_mask`, and the texts of lists."""
    rng = np.random.default_rng(1)
    for name, mask in masks.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
        photo = rng.integers(0, 256, (*mask.shape[:2], 3), dtype=np.uint8)
        Image.fromarray(photo).save(path.with_name(path.name.replace("_mask", "")).with_suffix(".jpg"))
    for name, text in lists.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def painted(indices: np.ndarray = INDICES) -> np.ndarray:
    return np.array(COLORS, dtype=np.uint8)[indices]


def masks_of(mask: np.ndarray, folders: tuple[str, ...] = ("",)) -> dict[str, np.ndarray]:
    return {f"{folder}{number}_mask.png": mask for folder in folders for number in range(3)}


def quarters(data: Dataset) -> list[str]:
    """The names of the classes in the four quarters of the first mask."""
    mask = decode(data.cases[0], data.encoding, None)
    return ["ignored" if index == 255 else data.classes.names[index] for index in mask[[0, 0, -1, -1], [0, -1, 0, -1]]]


ALL = ["background", "car", "tree", "background"]


def test_values_go_by_the_list_of_roboflow_also_those_that_no_mask_holds(tmp_path: Path) -> None:
    folders = ("train/", "valid/", "test/")
    data = scan(made(tmp_path, masks_of(INDICES, folders), {f"{one}_classes.csv": ROBOFLOW for one in folders}))
    assert data.classes.names == ["background", "car", "tree", "bus"]
    assert data.named
    assert quarters(data) == ALL
    assert "The classes are those of test/_classes.csv, train/_classes.csv, valid/_classes.csv." in data.notices


def test_values_with_gaps_keep_their_names(tmp_path: Path) -> None:
    text = "Pixel Value, Class\n0, background\n10, car\n20, tree\n"
    data = scan(made(tmp_path, masks_of(10 * INDICES), {"_classes.csv": text}))
    assert data.classes.names == ["background", "car", "tree"]
    assert quarters(data) == ALL


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("label_names.txt", "_background_\ncar\ntree\n"),
        ("class_names.txt", "__ignore__\n_background_\ncar\ntree\n"),
    ],
)
def test_values_go_by_the_lines_of_labelme_and_255_does_not_count(name: str, text: str, tmp_path: Path) -> None:
    mask = INDICES.copy()
    mask[-1, -1] = 255
    data = scan(made(tmp_path, masks_of(mask), {name: text}))
    assert data.classes.names == ["background", "car", "tree"]
    assert quarters(data) == ["background", "car", "tree", "ignored"]
    assert any("255 are ignored" in notice for notice in data.notices)


def test_colours_go_by_the_list_and_classes_in_no_mask_are_left_out(tmp_path: Path) -> None:
    data = scan(made(tmp_path, masks_of(painted()), {"labelmap.txt": CVAT}))
    assert data.classes.names == ["background", "car", "tree"]
    assert data.named
    assert data.classes.colors().tolist() == [list(color) for color in COLORS]
    assert quarters(data) == ALL
    assert "The classes are those of labelmap.txt. Left out, for no mask holds them: bus." in data.notices


def test_a_table_of_colours_need_not_begin_with_the_background(tmp_path: Path) -> None:
    text = "name,r,g,b\ntree,0,128,0\ncar,128,0,0\nunknown,0,0,0\n"
    data = scan(made(tmp_path, masks_of(painted()), {"class_dict.csv": text}))
    assert data.classes.names == ["unknown", "tree", "car"]
    assert quarters(data) == ["unknown", "car", "tree", "unknown"]


def test_colours_called_void_do_not_count(tmp_path: Path) -> None:
    data = scan(
        made(tmp_path, masks_of(painted()), {"class_dict.csv": "name,r,g,b\na,0,0,0\nb,128,0,0\nVoid,0,128,0\n"})
    )
    assert data.classes.names == ["a", "b"]
    assert quarters(data) == ["a", "b", "ignored", "a"]


def with_palette(path: Path, palette: tuple[tuple[int, int, int], ...], indices: np.ndarray = INDICES) -> None:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([part for color in palette for part in color])
    image.save(path)


def test_a_palette_says_which_colour_a_value_has(tmp_path: Path) -> None:
    made(tmp_path, masks_of(INDICES), {"labelmap.txt": CVAT})
    for path in tmp_path.glob("*_mask.png"):
        with_palette(path, ((0, 128, 0), (0, 0, 0), (128, 0, 0)))
    data = scan(tmp_path)
    assert data.classes.names == ["background", "car", "tree"]
    assert quarters(data) == ["tree", "background", "car", "tree"]


def test_entries_of_a_palette_that_its_mask_does_not_hold_do_not_count(tmp_path: Path) -> None:
    made(tmp_path, masks_of(INDICES), {"labelmap.txt": CVAT})
    strange = (9, 8, 7)
    for number, kept, palette in ((0, 1, (*COLORS[:2], strange)), (1, 2, (COLORS[0], strange, COLORS[2])), (2, 0, ())):
        with_palette(tmp_path / f"{number}_mask.png", palette or COLORS, np.where(kept == INDICES, INDICES, 0))
    data = scan(tmp_path)
    assert data.classes.names == ["background", "car", "tree"]
    assert quarters(data) == ["background", "car", "background", "background"]


def test_a_palette_beside_masks_without_one_does_not_say_what_their_values_are(tmp_path: Path) -> None:
    made(tmp_path, masks_of(INDICES), {"labelmap.txt": CVAT})
    with_palette(tmp_path / "0_mask.png", COLORS)
    data = scan(tmp_path)
    assert data.classes.names == ["class 0", "class 1", "class 2"]
    assert any("the palettes of the masks differ" in notice for notice in data.notices)


def test_of_palettes_that_differ_the_colours_have_names(tmp_path: Path) -> None:
    made(tmp_path, masks_of(INDICES), {"labelmap.txt": CVAT})
    for path, palette in zip(sorted(tmp_path.glob("*_mask.png")), (COLORS, COLORS[::-1], COLORS), strict=True):
        with_palette(path, palette)
    data = scan(tmp_path)
    assert data.classes.names == ["background", "car", "tree"]
    assert any(notice.startswith("The classes are those of labelmap.txt.") for notice in data.notices)
    first, second, _ = (decode(case, data.encoding, None) for case in data.cases)
    names = np.array(["background", "car", "tree"])
    colors = {(0, 0, 0): "background", (128, 0, 0): "car", (0, 128, 0): "tree"}
    for mask, palette in ((first, COLORS), (second, COLORS[::-1])):
        expected = np.array([colors[color] for color in palette])[INDICES]
        assert (names[mask] == expected).all()


def test_without_palettes_a_list_of_colours_is_of_no_use(tmp_path: Path) -> None:
    made(tmp_path, masks_of(INDICES), {"labelmap.txt": CVAT})
    data = scan(tmp_path)
    assert data.classes.names == ["class 0", "class 1", "class 2"]
    words = "values 1, 2 (as in 0_mask.png), of which"
    assert any("labelmap.txt were not used" in notice and words in notice for notice in data.notices)


@pytest.mark.parametrize(
    ("mask", "name", "text", "words"),
    [
        (INDICES, "_classes.csv", "Pixel Value, Class\n0, background\n1, car\n", "does not list the value 2 (as in 0"),
        (INDICES // 2 * 255, "_classes.csv", "Pixel Value, Class\n0, a\n1, b\n", "of the values 0, 255"),
        (
            painted(),
            "class_dict.csv",
            "name,r,g,b\na,0,0,0\nb,128,0,0\n",
            "does not list the colour (0, 128, 0) (as in 0",
        ),
        (painted(), "_classes.csv", ROBOFLOW, "it lists values, and the masks hold colours"),
        (INDICES, "label_names.txt", "car\ntree\nbus\n", "does not begin with _background_"),
        (
            INDICES,
            "_classes.csv",
            "Pixel Value, Class\n0, a\n1, a\n2, b\n",
            "'a', or what it stands for, is in it twice",
        ),
        (INDICES, "_classes.csv", "Pixel Value, Class\n0, a\none, b\n2, c\n", "'one' is no whole number"),
        (INDICES, "_classes.csv", f"Pixel Value, Class\n0, {'a' * 140_000}\n", "is no table (field larger than"),
        (INDICES, "_classes.csv", f"{ROBOFLOW}{10**23}, x\n", f"no mask can hold {10**23}"),
        (
            INDICES,
            "class_names.txt",
            "\n".join(["_background_", *map(str, range(300))]),
            "lists 301 classes, and there can be 255",
        ),
        (painted(), "labelmap.txt", "a:0,0,0\n", "is not of the form label:red,green,blue:parts:actions"),
        (painted(), "class_dict.csv", "name,r,g,b\na,0,0,300\n", "'0,0,300' is no colour"),
        (painted(), "class_dict.csv", "name,index,g,b\na,0,0,3\n", "its first line is 'name,index,g,b'"),
    ],
)
def test_a_list_that_does_not_fit_changes_nothing_and_that_is_said(
    mask: np.ndarray, name: str, text: str, words: str, tmp_path: Path
) -> None:
    without = scan(made(tmp_path / "without", masks_of(mask), {}))
    data = scan(made(tmp_path / "with", masks_of(mask), {name: text}))
    assert (data.classes, data.encoding, data.named) == (without.classes, without.encoding, False)
    assert [notice for notice in data.notices if f"{name} were not used: " in notice and words in notice]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            "Pixel Value, Class\n0, background\n1, tree\n2, car\n",
            "1 is 'car' in a/_classes.csv, 'tree' in b/_classes.csv",
        ),
        ("Pixel Value, Class\n0, background\n4, car\n", "'car' is 1 in a/_classes.csv, 4 in b/_classes.csv"),
    ],
)
def test_lists_that_contradict_each_other_are_an_error_unless_names_are_declared(
    other: str, words: str, tmp_path: Path
) -> None:
    made(tmp_path, masks_of(INDICES, ("a/", "b/")), {"a/_classes.csv": ROBOFLOW, "b/_classes.csv": other})
    with pytest.raises(DataError, match="contradict each other") as caught:
        scan(tmp_path)
    assert words in caught.value.what
    (tmp_path / "data.yaml").write_text("names: [x, y, z]\n")
    assert scan(tmp_path).classes.names == ["x", "y", "z"]


def test_the_time_to_read_a_list_grows_with_its_length_alone(tmp_path: Path) -> None:
    made(tmp_path, masks_of(INDICES), {"class_names.txt": "\n".join(["_background_", *map(str, range(50_000))])})
    began = time.process_time()
    assert scan(tmp_path).classes.names == ["class 0", "class 1", "class 2"]
    assert time.process_time() - began < 5, "a comparison of each line with each other one takes ten times as long"


def test_a_list_beside_masks_that_hold_nothing_does_not_hide_that(tmp_path: Path) -> None:
    made(tmp_path, masks_of(INDICES * 0 + 255), {"labelmap.txt": CVAT, "data.yaml": "ignore: 255\n"})
    with pytest.raises(DataError, match="masks hold one class only: nothing that counts"):
        scan(tmp_path)


def test_lists_that_add_to_each_other_are_one(tmp_path: Path) -> None:
    lists = {"a/label_names.txt": "_background_\ncar\n", "b/label_names.txt": "_background_\ncar\ntree\n"}
    data = scan(made(tmp_path, masks_of(INDICES, ("a/", "b/")), lists))
    assert data.classes.names == ["background", "car", "tree"]


def test_a_list_of_values_and_one_of_colours_are_not_used_together(tmp_path: Path) -> None:
    data = scan(made(tmp_path, masks_of(INDICES), {"_classes.csv": ROBOFLOW, "labelmap.txt": CVAT}))
    assert data.classes.names == ["class 0", "class 1", "class 2"]
    assert any("some go by value and some by colour" in notice for notice in data.notices)


def test_what_is_declared_to_be_ignored_is_no_class_of_the_list(tmp_path: Path) -> None:
    made(tmp_path / "values", masks_of(INDICES), {"_classes.csv": ROBOFLOW, "data.yaml": "ignore: 1\n"})
    data = scan(tmp_path / "values")
    assert quarters(data) == ["background", "ignored", "tree", "background"]
    made(tmp_path / "colors", masks_of(painted()), {"labelmap.txt": CVAT, "data.yaml": "ignore: [128, 0, 0]\n"})
    data = scan(tmp_path / "colors")
    assert data.classes.names == ["background", "tree"]
    assert quarters(data) == ["background", "ignored", "tree", "background"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("_classes.csv", ROBOFLOW),
        ("_classes.csv", ROBOFLOW.replace("3, bus", "5, bus")),
        ("data.yaml", "images: '*_photo.jpg'\nmasks: '{1}_mask.jpg'\nnames: [background, car, tree, bus]\n"),
    ],
)
def test_names_do_not_make_jpeg_hold_indices_but_declared_values_do(name: str, text: str, tmp_path: Path) -> None:
    made(tmp_path, masks_of(INDICES), {name: text})
    for path in tmp_path.glob("*_mask.png"):
        path.with_name(path.name.replace("_mask.png", ".jpg")).rename(path.with_name(path.stem[:1] + "_photo.jpg"))
        Image.fromarray(INDICES).save(path.with_suffix(".jpg"), quality=100)
        path.unlink()
    declared = "images: '*_photo.jpg'\nmasks: '{1}_mask.jpg'\n"
    (tmp_path / "data.yaml").write_text(text if name == "data.yaml" else declared)
    with pytest.raises(DataError, match="JPEG cannot hold class indices"):
        scan(tmp_path)
    (tmp_path / "data.yaml").write_text(f"{declared}values: {{0: background, 1: car, 2: tree}}\n")
    assert scan(tmp_path).classes.names == ["background", "car", "tree"]


def test_jpeg_masks_go_by_the_colours_that_are_near(tmp_path: Path) -> None:
    large = np.kron(INDICES, np.ones((8, 8), dtype=np.uint8))
    made(tmp_path, {f"masks/{number}.png": painted(large) for number in range(3)}, {"labelmap.txt": CVAT})
    (tmp_path / "images").mkdir()
    for path in sorted((tmp_path / "masks").glob("*.png")):
        Image.open(path).save(tmp_path / "images" / path.with_suffix(".jpg").name, quality=85)  # the mask, as a JPEG
        path.unlink()
    (tmp_path / "images").rename(tmp_path / "drawn")
    (tmp_path / "masks").rename(tmp_path / "images")
    (tmp_path / "drawn").rename(tmp_path / "masks")
    data = scan(tmp_path)
    assert data.classes.names == ["background", "car", "tree"]
    assert quarters(data) == ALL


def test_a_folder_of_labelme_for_each_image_is_read(tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / f"IMG_{number}_json"
        made(folder, {"label.png": INDICES}, {"label_names.txt": "_background_\ncar\ntree\n"})
        (folder / "label.jpg").rename(folder / "img.jpg")
        Image.open(folder / "img.jpg").save(folder / "label_viz.png")
    data = scan(tmp_path)
    assert [case.masks[0].name for case in data.cases] == ["label.png"] * 3
    assert data.classes.names == ["background", "car", "tree"]
    assert not data.unpaired
