"""Drawn polygons against geometry done by hand, other fillers, and masks that other programs exported."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.measure import points_in_poly

from pixelwise.classes import IGNORE
from pixelwise.data import polygons
from pixelwise.data.dataset import Case, MaskEncoding
from pixelwise.errors import DataError

SQUARE = [[2.0, 1.0], [6.0, 1.0], [6.0, 5.0], [2.0, 5.0]]


def case_of(tmp_path: Path, name: str, content: object) -> Case:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    image = tmp_path / "a.png"
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(image)
    return Case(name="a", image=image, masks=(path,))


def coco(*annotations: dict[str, object], height: int = 8, width: int = 10) -> dict[str, object]:
    images = [{"id": 7, "file_name": "a.png", "height": height, "width": width}]
    filled = [{"image_id": 7, "category_id": 3, "iscrowd": 0, **annotation} for annotation in annotations]
    return {
        "images": images,
        "annotations": filled,
        "categories": [{"id": 3, "name": "cell"}, {"id": 5, "name": "dirt"}],
    }


COCO = MaskEncoding(kind="coco", values={3: 1, 5: 2})


def test_a_square_of_side_four_covers_sixteen_pixels() -> None:
    expected = np.zeros((8, 10), bool)
    expected[1:5, 2:6] = True
    np.testing.assert_array_equal(polygons.fill(SQUARE, (8, 10)), expected)


def test_a_polygon_may_reach_beyond_the_image() -> None:
    assert polygons.fill([[-5, -5], [50, -5], [50, 50], [-5, 50]], (8, 10)).all()
    assert not polygons.fill([[20, 20], [30, 20], [30, 30]], (8, 10)).any()


def test_a_hole_joined_by_a_bridge_stays_open() -> None:
    outline = [[0, 0], [9, 0], [9, 8], [0, 8], [0, 0], [3, 2], [3, 6], [6, 6], [6, 2], [3, 2]]
    filled = polygons.fill(outline, (8, 10))
    assert filled.sum() == 9 * 8 - 3 * 4
    assert not filled[2:6, 3:6].any()


def edge_distance(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How far each point is from the nearest edge of a polygon."""
    start, along = corners, np.roll(corners, -1, axis=0) - corners
    from_start = points[:, None] - start
    length = np.maximum((along**2).sum(axis=1), 1e-300)
    foot = np.clip((from_start * along).sum(axis=2) / length, 0.0, 1.0)
    return np.linalg.norm(from_start - foot[..., None] * along, axis=2).min(axis=1)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(-3, 15), st.floats(-3, 13)), min_size=3, max_size=9))
def test_filling_agrees_with_testing_each_pixel_centre(points: list[tuple[float, float]]) -> None:
    rows, columns = np.mgrid[:10, :12] + 0.5
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1)
    corners = np.array(points)
    inside = points_in_poly(centres, corners).reshape(10, 12)
    between = edge_distance(corners, centres).reshape(10, 12) > 1e-9  # on an edge either answer is right
    np.testing.assert_array_equal(polygons.fill(corners, (10, 12))[between], inside[between])


def test_uncompressed_run_lengths_go_down_the_columns() -> None:
    # 2 rows, 3 columns: one 0, three 1, two 0, read column by column
    np.testing.assert_array_equal(polygons.decode_rle([1, 3, 2], (2, 3)), np.array([[0, 1, 0], [1, 1, 0]], bool))


def test_compressed_run_lengths_are_the_same_runs() -> None:
    # packed by hand: 1 -> '1', 3 -> '3', 2 -> '2', then 35 as a difference to 3: 32 -> 0 with "more", then 1
    assert polygons._unpack("132") == [1, 3, 2]
    assert polygons._unpack("132P1") == [1, 3, 2, 35]
    # a negative difference: 1 after 3 is -2 -> 5 bits 11110
    assert polygons._unpack("132" + chr(48 + 0b11110)) == [1, 3, 2, 1]


@given(st.lists(st.integers(0, 70000), min_size=1, max_size=12))
def test_unpacking_inverts_the_packing_of_the_format(runs: list[int]) -> None:
    def pack(value: int) -> str:
        text = ""
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if done else 32))
            if done:
                return text

    stored = [run - runs[i - 2] if i > 2 else run for i, run in enumerate(runs)]
    assert polygons._unpack("".join(map(pack, stored))) == runs


def test_coco_parts_are_united_and_later_objects_lie_on_top(tmp_path: Path) -> None:
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [4, 4, 6, 4, 6, 6, 4, 6]]
    over = {"segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]], "category_id": 5}
    mask = polygons.draw(case_of(tmp_path, "a.json", coco({"segmentation": parts}, over)), COCO, (8, 10))
    expected = np.zeros((8, 10), np.uint8)
    expected[0:2, 0:2] = expected[4:6, 4:6] = 1
    expected[1:5, 1:5] = 2
    np.testing.assert_array_equal(mask, expected)


def test_coco_crowds_lie_below_single_objects_and_keep_their_holes(tmp_path: Path) -> None:
    ring = np.zeros((8, 10), bool)
    ring[1:7, 1:9] = True
    ring[3:5, 3:5] = False
    flat = ring.T.ravel()
    borders = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int))).tolist()
    runs = np.diff([0, *borders, flat.size]).tolist()
    single = {"segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]], "category_id": 5}
    crowd = {"segmentation": {"size": [8, 10], "counts": runs}, "iscrowd": 1}
    mask = polygons.draw(case_of(tmp_path, "a.json", coco(single, crowd)), COCO, None)
    expected = ring.astype(np.uint8)
    expected[1:3, 1:3] = 2
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    "tree",
    [
        coco({"segmentation": {"size": [8, 10], "counts": [3, 4]}}),
        coco({"segmentation": {"size": [4, 4], "counts": [16]}}),
        coco({"segmentation": [[1, 2, 3]]}),
        coco({"segmentation": [["a", "b"]]}),
        coco({"category_id": 99, "segmentation": []}),
        coco(height=9),
        {"images": [], "annotations": [], "categories": []},
        {"images": [{"id": 1}], "annotations": []},
        "{ not json",
        "[]",
    ],
)
def test_damaged_coco_is_a_data_error_that_names_the_file(tmp_path: Path, tree: object) -> None:
    case = case_of(tmp_path, "a.json", tree)
    with pytest.raises(DataError, match=r"a\.json"):
        polygons.draw(case, COCO, (8, 10))


def test_an_annotation_of_an_image_that_is_not_listed_says_so(tmp_path: Path) -> None:
    case = case_of(tmp_path, "a.json", coco({"image_id": 5, "segmentation": []}, {"image_id": [], "segmentation": []}))
    with pytest.raises(DataError, match="unhashable"):
        polygons.draw(case, COCO, (8, 10))
    case = case_of(tmp_path, "b.json", coco({"image_id": 5, "segmentation": []}))
    with pytest.raises(DataError, match=r"1 annotations belong to images .* id 5"):
        polygons.draw(case, COCO, (8, 10))
    tree = coco({"segmentation": []})
    for entry in tree["annotations"]:
        del entry["image_id"]
    with pytest.raises(DataError, match="has no 'image_id'"):
        polygons.draw(case_of(tmp_path, "c.json", tree), COCO, (8, 10))


@pytest.mark.parametrize("none", [None, 0, False])
def test_coco_objects_that_are_no_crowd_may_say_it_in_several_ways(tmp_path: Path, none: object) -> None:
    case = case_of(tmp_path, "a.json", coco({"segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]], "iscrowd": none}))
    assert polygons.draw(case, COCO, (8, 10)).sum() == 4


def test_yolo_shares_become_pixels_and_an_empty_file_is_background(tmp_path: Path) -> None:
    encoding = MaskEncoding(kind="yolo", values={0: 1, 4: 2})
    case = case_of(tmp_path, "a.txt", "0 0.2 0.125 0.6 0.125 0.6 0.625 0.2 0.625\n\n4 0 0 1 0 1 0.125 0 0.125\n")
    expected = np.zeros((8, 10), np.uint8)
    expected[1:5, 2:6] = 1
    expected[0] = 2
    np.testing.assert_array_equal(polygons.draw(case, encoding, None), expected)
    assert not polygons.draw(case_of(tmp_path, "a.txt", ""), encoding, (8, 10)).any()


@pytest.mark.parametrize(
    "line", ["0 .5 .5 .2 .2", "0 1 2 3 4 5 6", "0 .1 .1 .2", "x .1 .1 .2 .2 .3 .3", "9 0 0 0 1 1 1"]
)
def test_lines_that_are_no_yolo_polygon_are_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"a\.txt"):
        polygons.draw(case_of(tmp_path, "a.txt", line), MaskEncoding(kind="yolo", values={0: 1}), (8, 10))


def labelme(*shapes: dict[str, object]) -> dict[str, object]:
    return {"shapes": list(shapes), "imageHeight": 8, "imageWidth": 10}


def test_labelme_shapes_are_drawn_and_shapes_without_area_counted(tmp_path: Path) -> None:
    tree = labelme(
        {"label": "cell", "points": [[1, 1], [4, 3]], "shape_type": "rectangle"},
        {"label": "dirt", "points": [[7, 5], [8, 5]], "shape_type": "circle"},
        {"label": "line", "points": [[0, 0], [9, 7]], "shape_type": "linestrip"},
        {"label": "dot", "points": [[0, 0]], "shape_type": "point"},
    )
    case = case_of(tmp_path, "a.json", tree)
    mask = polygons.draw(case, MaskEncoding(kind="labelme", labels={"cell": 1, "dirt": 2}), (8, 10))
    assert (mask[1:4, 1:5] == 1).all()
    assert (mask == 1).sum() == 12
    assert mask[5, 6:9].tolist() == [2, 2, 2]
    assert mask[4, 7] == mask[6, 7] == 2
    labels = polygons.survey(case.masks, "labelme")
    assert dict(labels.names) == {"cell": 1, "dirt": 1}
    assert dict(labels.skipped) == {"linestrip": 1, "point": 1}


@pytest.mark.parametrize("kind", ["rectangle", "circle", "polygon"])
@pytest.mark.parametrize("points", [[], [[1, 1]]])
def test_labelme_shapes_with_too_few_points_have_no_area(tmp_path: Path, kind: str, points: object) -> None:
    case = case_of(tmp_path, "a.json", labelme({"label": "cell", "points": points, "shape_type": kind}))
    assert not polygons.draw(case, MaskEncoding(kind="labelme", labels={"cell": 1}), (8, 10)).any()
    assert dict(polygons.survey(case.masks, "labelme").skipped) == {"point": 1}


def test_a_labelme_mask_without_a_corner_is_refused(tmp_path: Path) -> None:
    case = case_of(tmp_path, "a.json", labelme({"label": "cell", "points": [], "shape_type": "mask", "mask": ""}))
    with pytest.raises(DataError, match="'cell' of kind 'mask' has no points"):
        polygons.draw(case, MaskEncoding(kind="labelme", labels={"cell": 1}), (8, 10))


def test_an_unknown_labelme_label_names_itself(tmp_path: Path) -> None:
    case = case_of(tmp_path, "a.json", labelme({"label": "what", "points": SQUARE}))
    with pytest.raises(DataError, match="'what'"):
        polygons.draw(case, MaskEncoding(kind="labelme", labels={"cell": 1}), None)


def test_declared_names_decide_the_index_of_labels_and_yolo_numbers() -> None:
    labels = polygons.Labels({"b": 2, "a": 1, "_background_": 1, "__ignore__": 1}, {}, {})
    names, table = polygons.classes_of("labelme", labels, ["b", "a"])
    assert names == ("background", "b", "a")
    assert table == {"a": 2, "b": 1, "_background_": 0, "__ignore__": IGNORE}
    numbers = polygons.Labels({"0": 3, "2": 1}, {"0": 0, "2": 2}, {})
    assert polygons.classes_of("yolo", numbers, ["x", "y", "z"]) == (("background", "x", "y", "z"), {"0": 1, "2": 3})
    assert polygons.classes_of("yolo", numbers, ["background", "y", "z"])[1] == {"0": 0, "2": 2}
    with pytest.raises(DataError, match="a"):
        polygons.classes_of("labelme", labels, ["b"])


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["2011_000003", "2011_000006", "2011_000025"])
@pytest.mark.parametrize(("kind", "floor"), [("labelme", 0.99), ("coco", 0.93)])
def test_polygons_agree_with_the_palette_masks_made_of_them(realdata: Path, name: str, kind: str, floor: float) -> None:
    folder = realdata / "format_zoo/labelme_voc_coco"
    truth = np.array(Image.open(folder / f"data_dataset_voc/SegmentationClass/{name}.png"))
    classes = (folder / "data_dataset_voc/class_names.txt").read_text().split("\n")
    index = {label.strip(): number for number, label in enumerate(classes) if label.strip()}
    image = folder / f"data_dataset_coco/JPEGImages/{name}.jpg"
    if kind == "labelme":
        encoding = MaskEncoding(kind="labelme", labels={**index, "__ignore__": IGNORE})
        case = Case(name=name, image=image, masks=(folder / f"data_annotated/{name}.json",))
    else:
        encoding = MaskEncoding(kind="coco", values={number: number for number in range(21)})
        case = Case(name=name, image=image, masks=(folder / "data_dataset_coco/annotations.json",))
    mask = polygons.draw(case, encoding, truth.shape)
    counted = truth != IGNORE if kind == "coco" else np.ones_like(truth, bool)  # COCO has no void
    for value in np.unique(truth[counted]):
        ours, theirs = mask[counted] == value, truth[counted] == value
        assert (ours & theirs).sum() / (ours | theirs).sum() > floor
