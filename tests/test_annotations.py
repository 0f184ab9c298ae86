"""Outlines of masks: what is drawn from them is the mask again. Referees: the readers of COCO and labelme, shapely."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pixelwise.classes import IGNORE, ClassTable
from pixelwise.data.annotations import coco_image, write_coco, write_geojson, write_labelme
from pixelwise.data.folder import scan
from pixelwise.data.masks import decode
from pixelwise.data.outlines import along_centres, outlines, signed_area
from pixelwise.data.polygons import fill
from pixelwise.data.tiff import Placement

CLASSES = ClassTable.from_names(["background", "cell", "dirt"])
MASKS = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2]))


def blobs(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    from scipy import ndimage

    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), 2)
    return np.digitize(noise, np.quantile(noise, [0.5, 0.8])).astype(np.uint8)


def drawn(mask: np.ndarray, without: int | None) -> np.ndarray:
    result = np.full(mask.shape, 0 if without is None else without, np.uint8)
    for one in outlines(mask, without):
        inside = fill(one.outer, mask.shape)
        for hole in one.holes:
            inside &= ~fill(hole, mask.shape)
        result[inside] = one.index
    return result


@given(MASKS)
def test_what_is_drawn_from_outlines_is_the_mask(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(drawn(mask, 0), mask)


@given(MASKS)
def test_an_outline_encloses_as_much_as_it_has_pixels(mask: np.ndarray) -> None:
    found = list(outlines(mask, 0))
    for one in found:
        assert signed_area(one.outer) + sum(map(signed_area, one.holes)) == one.pixels
        assert signed_area(one.outer) > 0 > max([-1.0, *map(signed_area, one.holes)])
        assert (one.outer >= 0).all()
    assert sum(one.pixels for one in found) == (mask > 0).sum()


@given(MASKS)
def test_outlines_are_valid_polygons(mask: np.ndarray) -> None:
    shapely = pytest.importorskip("shapely")
    for one in outlines(mask, 0):
        polygon = shapely.Polygon(one.outer, one.holes)
        assert polygon.is_valid, shapely.is_valid_reason(polygon)
        assert polygon.area == one.pixels


def test_a_square_has_four_corners() -> None:
    mask = np.zeros((6, 7), np.uint8)
    mask[1:4, 2:6] = 1
    (one,) = outlines(mask, 0)
    assert sorted(map(tuple, one.outer.tolist())) == [(2, 1), (2, 4), (6, 1), (6, 4)]
    assert one.holes == ()


def test_outlines_through_the_middles_of_pixels_have_corners_only() -> None:
    assert sorted(along_centres(np.ones((4, 6), bool))) == [(0, 0), (0, 3), (5, 0), (5, 3)]
    assert sorted(along_centres(np.ones((1, 6), bool))) == [(0, 0), (5, 0)]
    assert along_centres(np.ones((1, 1), bool)) == [(0, 0)]


def test_pixels_that_meet_at_a_corner_are_two_objects() -> None:
    assert len(list(outlines(np.eye(2, dtype=np.uint8), 0))) == 2


def test_what_is_enclosed_by_pixels_that_meet_at_a_corner_is_a_hole() -> None:
    mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], np.uint8)
    (one,) = outlines(mask, 0)
    assert len(one.holes) == 1
    assert one.pixels == 7


# --- files: read again by the readers of data sets ---


def put_image(folder: Path, mask: np.ndarray, name: str = "a.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (*mask.shape, 3), dtype=np.uint8)).save(folder / name)
    return folder / name


def read_again(folder: Path) -> dict[str, np.ndarray]:
    (folder / "data.yaml").write_text(f"names: {CLASSES.names}\n")
    dataset = scan(folder)
    return {case.image.name: decode(case, dataset.encoding, None) for case in dataset.cases}


@pytest.mark.parametrize("seed", range(4))
def test_labelme_files_hold_the_mask(seed: int, tmp_path: Path) -> None:
    masks = {name: blobs(seed + number) for number, name in enumerate(("a.png", "b.png", "c.png"))}
    masks["b.png"][10:30, 10:30] = IGNORE
    for name, mask in masks.items():
        image = put_image(tmp_path, mask, name)
        write_labelme(image.with_suffix(".json"), mask, CLASSES, image.name)
    again = read_again(tmp_path)
    for name, mask in masks.items():
        np.testing.assert_array_equal(again[name], mask)


@pytest.mark.parametrize("seed", range(4))
def test_coco_files_hold_the_masks(seed: int, tmp_path: Path) -> None:
    masks = {name: blobs(seed + number) for number, name in enumerate(("a.png", "b.png", "c.png"))}
    for name, mask in masks.items():
        put_image(tmp_path / "images", mask, name)
    images = [coco_image(mask, CLASSES, name) for name, mask in masks.items()]
    write_coco(tmp_path / "annotations.json", images, CLASSES)
    again = read_again(tmp_path)
    for name, mask in masks.items():
        np.testing.assert_array_equal(again[name], mask)
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert [entry["id"] for entry in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    assert any(isinstance(entry["segmentation"], dict) for entry in content["annotations"])
    for entry in content["annotations"]:
        _, _, width, height = entry["bbox"]
        assert width > 0 < height
        assert entry["area"] <= width * height


SCALE = (33550, 12, 3, (0.5, 0.25, 0.0), True)
TIE = (33922, 12, 6, (0.0, 0.0, 0.0, 1000.0, 2000.0, 0.0), True)


def keys(**given: int) -> tuple[int, int, int, tuple[int, ...], bool]:
    numbers = {"raster": 1025, "projected": 3072, "geographic": 2048}
    entries = [part for name, value in given.items() for part in (numbers[name], 0, 1, value)]
    return (34735, 3, 4 + len(entries), (1, 1, 0, len(given), *entries), True)


def test_geojson_lies_on_the_map(tmp_path: Path) -> None:
    mask = np.zeros((10, 10), np.uint8)
    mask[2:4, 4:8] = 2
    write_geojson(tmp_path / "a.geojson", mask, CLASSES, Placement((SCALE, TIE, keys(raster=1, projected=32611)), None))
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32611"
    (feature,) = content["features"]
    assert feature["properties"] == {"class": "dirt", "index": 2, "area_px": 8}
    (ring,) = feature["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert {tuple(point) for point in ring} == {(1002, 1999.5), (1004, 1999.5), (1004, 1999), (1002, 1999)}


def test_a_map_without_a_number_of_its_system_is_not_taken_for_degrees(tmp_path: Path) -> None:
    write_geojson(tmp_path / "a.geojson", blobs(0), CLASSES, Placement((SCALE, TIE, keys(projected=32767)), None))
    assert json.loads((tmp_path / "a.geojson").read_text())["crs"] is None


def test_control_points_alone_are_no_map(tmp_path: Path) -> None:
    mask = np.ones((3, 4), np.uint8)
    write_geojson(tmp_path / "a.geojson", mask, CLASSES, Placement((TIE, keys(projected=32611)), None))
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert "crs" not in content
    assert [4, 3] in content["features"][0]["geometry"]["coordinates"][0]


def test_geojson_without_a_map_is_in_pixels(tmp_path: Path) -> None:
    mask = np.zeros((5, 5), np.uint8)
    mask[1:3, 1:4] = 1
    mask[4, 4] = IGNORE
    write_geojson(tmp_path / "a.geojson", mask, CLASSES)
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert "crs" not in content
    (feature,) = content["features"]
    assert {tuple(point) for point in feature["geometry"]["coordinates"][0]} == {(1, 1), (4, 1), (4, 3), (1, 3)}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ((SCALE, TIE), (1001.0, 1999.0)),
        ((SCALE, TIE, keys(raster=2)), (1000.75, 1999.125)),  # for the middles of pixels
        (((34264, 12, 16, (0, 2, 0, 5, 3, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1), True),), (13.0, 13.0)),
    ],
)
def test_places_on_the_map(tags: tuple, expected: tuple[float, float]) -> None:
    assert Placement(tags, None).to_map(np.array([[2.0, 4.0]])).tolist() == [list(expected)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"projected": 32611}, 32611), ({"geographic": 4326}, 4326), ({"projected": 32767}, None), ({}, None)],
)
def test_the_number_of_the_coordinate_system(given: dict[str, int], expected: int | None) -> None:
    assert Placement((keys(**given),), None).epsg == expected


@pytest.mark.parametrize("kind", ["geojson", "labelme", "coco"])
def test_simpler_outlines_are_near_the_true_ones(kind: str, tmp_path: Path) -> None:
    shapely = pytest.importorskip("shapely")
    row, column = np.mgrid[:100, :100]
    mask = (np.hypot(row - 50, column - 50) < 40).astype(np.uint8)
    if kind == "geojson":
        write_geojson(tmp_path / "a", mask, CLASSES, None, 1.0)
        points = json.loads((tmp_path / "a").read_text())["features"][0]["geometry"]["coordinates"][0]
    elif kind == "labelme":
        write_labelme(tmp_path / "a", mask, CLASSES, "a.png", 1.0)
        points = json.loads((tmp_path / "a").read_text())["shapes"][0]["points"]
    else:
        points = np.reshape(coco_image(mask, CLASSES, "a.png", 1.0)[1][0]["segmentation"][0], (-1, 2)).tolist()
    assert len(points) < 60
    circle = shapely.Point(50.5 - 0.5 * (kind == "labelme"), 50.5 - 0.5 * (kind == "labelme")).buffer(40)
    assert shapely.Polygon(points).symmetric_difference(circle).area < 0.05 * circle.area
