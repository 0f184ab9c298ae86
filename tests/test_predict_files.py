"""From image files to mask files: where masks go, and that nothing is ever replaced by mistake."""

import errno
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from test_inference import PixelNetwork, make

from pixelwise import api, files
from pixelwise.classes import IGNORE
from pixelwise.config import ModelConfig
from pixelwise.errors import ConfigError, DataError
from pixelwise.inference.jobs import Outputs, plan
from pixelwise.inference.predictor import Model


@pytest.fixture(scope="module")
def model() -> Model:
    """Class 1 where a pixel is above 0.5."""
    return make(ModelConfig(width=4, depth=2), PixelNetwork())


def write(path: Path, bright: int = 4) -> Path:
    """An image of 8 x 8 pixels whose first `bright` rows are 1, the others 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((8, 8), dtype=np.uint8)
    pixels[:bright] = 1
    Image.fromarray(pixels).save(path)
    return path


def below(folder: Path) -> list[str]:
    """Files without the note of what was predicted."""
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in files if not name.endswith(".jsonl"))


def bright_rows(mask: Path) -> int:
    with Image.open(mask) as image:
        return int(np.asarray(image)[:, 0].sum())


# --- what is taken for an image ---


@pytest.mark.parametrize("inputs", [".", "*"])
def test_hidden_files_and_folders_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: str) -> None:
    (tmp_path / ".home").mkdir()
    monkeypatch.chdir(tmp_path / ".home")  # a folder that was asked for is not hidden
    write(Path("in/a.png"))
    for name in ("in/._a.png", "in/.cache/b.png", "in/__MACOSX/in/c.png"):
        write(Path(name))
    assert [job.source for job in plan([inputs], Outputs(Path("out"))).jobs] == [Path("in/a.png")]
    assert [job.source.name for job in plan(["in/._a.png"], Outputs(Path("out"))).jobs] == ["._a.png"]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["images/a.png", "images/b.png"], ["masks/a.png", "masks/b.png"]),
        (["train/images/a.png"], ["train/masks/a.png"]),
        (["a.png", "b.png"], ["a_mask.png"]),
        (["one/image.png", "two/image.png"], ["one/mask.png", "two/mask.png"]),
        (["01_L.jpg", "01_R.jpg"], ["01_L_1stHO.png", "01_L_2ndHO.png", "01_R_1stHO.png", "01_R_2ndHO.png"]),
        (["p.bmp", "q.bmp", "r.bmp"], ["p-outline.png", "q-outline.png"]),
        (["p.jpg", "q.jpg", "r.jpg", "p_b.png"], []),
        (["p.jpg", "q.jpg", "p_1.png", "q_1.png"], []),
        (["p.png", "q.png", "p_bright.png", "q_bright.png"], []),
    ],
)
def test_masks_beside_images_are_passed_over_and_named(
    model: Model, tmp_path: Path, images: list[str], masks: list[str]
) -> None:
    for name in (*images, *masks):
        write(tmp_path / "data" / name)
    done = api.predict_files(model, [tmp_path / "data"], tmp_path / "out")
    assert below(tmp_path / "out") == sorted(Path(name).with_suffix(".png").as_posix() for name in images)
    assert sorted(path.relative_to(tmp_path / "data").as_posix() for path in done.passed_over) == sorted(masks)


def test_masks_of_equal_stems_are_told_by_their_content(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        (tmp_path / "data").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "data" / f"{name}.bmp")
        Image.fromarray((pixels[:, :, 0] > 128).astype(np.uint8) * 255).save(tmp_path / "data" / f"{name}.png")
    found = plan([tmp_path / "data"], Outputs(tmp_path / "out"))
    assert [job.source.name for job in found.jobs] == ["a.bmp", "b.bmp", "c.bmp"]
    assert [job.mask.name for job in found.jobs] == ["a.png", "b.png", "c.png"]
    assert [path.name for path in found.passed_over] == ["a.png", "b.png", "c.png"]


def test_masks_in_a_folder_of_any_name_are_told_by_their_content(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        write(tmp_path / "data" / "Masken" / f"{name}.png")
        for folder in ("Bilder", "Fotos"):
            (tmp_path / "data" / folder).mkdir(exist_ok=True)
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / folder / f"{name}.png")
    found = plan([tmp_path / "data"], Outputs(tmp_path / "out"))
    assert found.passed_over == []  # nobody knows of which images they are the masks
    shutil.rmtree(tmp_path / "data" / "Fotos")
    found = plan([tmp_path / "data"], Outputs(tmp_path / "out"))
    assert [job.source.parent.name for job in found.jobs] == ["Bilder"] * 3
    assert [path.name for path in found.passed_over] == ["a.png", "b.png", "c.png"]


def test_a_data_yaml_stands_for_the_images_that_it_names(tmp_path: Path) -> None:
    for name in ("one/raw.png", "one/other.png", "one/truth.png", "two/raw.png", "two/truth.png"):
        write(tmp_path / "data" / name)
    (tmp_path / "my.yaml").write_text('path: data\nimages: "*/raw.png"\nmasks: "{dir}/truth.png"\n')
    found = plan([tmp_path / "my.yaml"], Outputs(tmp_path / "out"))
    assert [job.source for job in found.jobs] == [tmp_path / "data" / name for name in ("one/raw.png", "two/raw.png")]


def test_a_folder_that_a_data_yaml_describes_otherwise_is_told(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("a/1/raw.png", "a/1/phase.png", "a/1/truth.png", "b/2/raw.png", "b/2/truth.png", "b/3/raw.png"):
        write(data / name)
    assert plan([data / "a"], Outputs(tmp_path / "out")).notes == []
    (data / "data.yaml").write_text('images: "*/*/raw.png"\nmasks: "{dir}/truth.png"\n')
    (note,) = plan([data / "a"], Outputs(tmp_path / "out")).notes
    assert "data/data.yaml says which files are images, and 1 file that" in note
    assert f"such as {Path('1', 'phase.png')}: " in note
    assert plan([data / "data.yaml"], Outputs(tmp_path / "out")).notes == []
    (data / "b" / "2" / "truth.png").unlink()
    assert plan([data / "b"], Outputs(tmp_path / "out")).notes == []  # nothing but images, of which one has no mask


def test_a_folder_of_masks_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    for name in ("masks/a.png", "labels/seg/b.png"):
        write(tmp_path / name)
    for folder, image in (("masks", "masks/a.png"), ("labels", "labels/seg/b.png")):
        found = plan([tmp_path / folder], Outputs(tmp_path / "out"))
        assert [job.source for job in found.jobs] == [tmp_path / image]
        assert found.passed_over == []


# --- nothing is replaced ---


def test_images_are_never_replaced_by_their_masks(model: Model, tmp_path: Path) -> None:
    images = [write(tmp_path / "images" / name) for name in ("a.bmp", "b.png")]
    before = [path.read_bytes() for path in images]
    with pytest.raises(DataError, match="would be replaced"):
        api.predict_files(model, [tmp_path / "images"], tmp_path / "images")
    assert below(tmp_path) == ["images/a.bmp", "images/b.png"], "nothing may be written before the error"
    assert [path.read_bytes() for path in images] == before


def test_a_link_to_the_folder_of_images_does_not_deceive(model: Model, tmp_path: Path) -> None:
    image = write(tmp_path / "images" / "a.png")
    (tmp_path / "masks").symlink_to(tmp_path / "images")
    before = image.read_bytes()
    with pytest.raises(DataError, match="would be replaced"):
        api.predict_files(model, [image], tmp_path / "masks")
    assert image.read_bytes() == before


def test_an_overlay_does_not_replace_an_image(model: Model, tmp_path: Path) -> None:
    write(tmp_path / "a.tif")
    write(tmp_path / "a_overlay.png")
    with pytest.raises(DataError, match="would be replaced"):
        api.predict_files(
            model, [tmp_path / "a.tif", tmp_path / "a_overlay.png"], tmp_path, mask_format="tif", overlay=True
        )


@pytest.mark.parametrize("pattern", [".", "**/*.png", "*"])
def test_results_below_the_inputs_are_not_taken_for_images(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "images" / "a.png")
    for _ in range(2):
        done = api.predict_files(model, [pattern], Path("masks"))
        assert done.written + done.unchanged == [Path("masks/images/a.png")]
        assert not done.failed


# --- no mask takes the place of another ---


@pytest.mark.parametrize(
    "inputs", [["a", "b"], ["*/0.png"], ["a/0.png", "b/0.png"], ["a/*", "b"], ["a", "b", "a/0.png"]]
)
def test_equal_names_in_several_folders_keep_their_folder(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a" / "0.png", 2)
    write(tmp_path / "b" / "0.png", 6)
    api.predict_files(model, inputs, Path("masks"))
    assert below(tmp_path / "masks") == ["a/0.png", "b/0.png"]
    assert [bright_rows(tmp_path / "masks" / name / "0.png") for name in "ab"] == [2, 6]


def test_an_image_named_twice_is_done_once(model: Model, tmp_path: Path) -> None:
    image = write(tmp_path / "images" / "a.png")
    done = api.predict_files(model, [image, tmp_path / "images", image.parent / ".." / "images"], tmp_path / "masks")
    assert done.written == [tmp_path / "masks" / "a.png"]


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("a.png", "a_overlay.png"), {"overlay": True}),
        (("a.png", "a.bmp", "a.png.png"), {}),
    ],
)
def test_results_that_would_share_a_file_are_refused(
    model: Model, tmp_path: Path, names: tuple[str, ...], options: dict[str, bool]
) -> None:
    for name in names:
        write(tmp_path / "images" / name)
    with pytest.raises(DataError, match="several images") as caught:
        api.predict_files(model, [tmp_path / "images"], tmp_path / "masks", **options)
    assert "a.png" in str(caught.value)
    assert not (tmp_path / "masks").exists()


def test_five_times_as_many_files_are_planned_in_five_times_the_time(tmp_path: Path) -> None:
    taken = {}
    for count in (10, 300, 1500):  # the first imports what is imported late
        (tmp_path / str(count)).mkdir()
        for number in range(count):
            (tmp_path / str(count) / f"{number}.png").touch()
            (tmp_path / str(count) / f"{number}.bmp").touch()
        began = time.process_time()  # of this process: other programs may be busy
        jobs = plan([tmp_path / str(count)], Outputs(tmp_path / "masks")).jobs
        taken[count] = time.process_time() - began
        assert len({job.mask for job in jobs}) == 2 * count
    assert taken[1500] < 12 * taken[300]  # by the square of the count it would be 25 times


# --- stacks ---


@pytest.mark.parametrize("mask_format", ["png", "tif"])
def test_a_stack_of_images_gives_a_stack_of_masks(model: Model, tmp_path: Path, mask_format: str) -> None:
    pages = np.random.default_rng(0).integers(0, 2, (6, 20, 30)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="minisblack")
    done = api.predict_files(model, [tmp_path / "stack.tif"], tmp_path / "masks", mask_format=mask_format)
    assert done.written == [tmp_path / "masks" / "stack.tif"]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "masks" / "stack.tif"), pages)


def test_a_stack_and_an_image_of_one_name_get_masks_of_their_own(model: Model, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.png")
    tifffile.imwrite(tmp_path / "in" / "a.tif", np.zeros((6, 20, 30), np.uint8), photometric="minisblack")
    api.predict_files(model, [tmp_path / "in"], tmp_path / "masks")
    assert below(tmp_path / "masks") == ["a.png.png", "a.tif.tif"]


# --- errors ---


def test_an_image_that_does_not_fit_is_named_and_the_others_are_done(model: Model, tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.png")
    broken = np.zeros((8, 8), dtype=np.float32)
    broken[2, 2] = np.nan
    tifffile.imwrite(tmp_path / "images" / "b.tif", broken)
    done = api.predict_files(model, [tmp_path / "images"], tmp_path / "masks")
    assert below(tmp_path / "masks") == ["a.png"]
    assert [error.where for error in done.failed] == [tmp_path / "images" / "b.tif"]
    assert "not finite" in str(done.failed[0])


def test_a_file_in_place_of_the_output_folder_is_named(model: Model, tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.png")
    (tmp_path / "masks").write_text("a file")
    with pytest.raises(DataError) as caught:
        api.predict_files(model, [tmp_path / "images"], tmp_path / "masks")
    assert caught.value.where == tmp_path / "masks"


def test_a_full_disk_names_the_mask_and_ends_the_work(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / "images" / name)
    original = files._replace

    def fills_up(path: Path, content: bytes) -> None:
        if path.name == "b.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        original(path, content)

    monkeypatch.setattr(files, "_replace", fills_up)
    with pytest.raises(DataError, match="No space left") as caught:
        api.predict_files(model, [tmp_path / "images"], tmp_path / "masks")
    assert caught.value.where == tmp_path / "masks" / "b.png"
    assert below(tmp_path / "masks") == ["a.png"]


# --- outlines ---


@pytest.mark.parametrize(("kind", "expected"), [("geojson", "a.geojson"), ("labelme", "a.json"), ("coco", None)])
def test_outlines_are_written_on_request(model: Model, tmp_path: Path, kind: str, expected: str | None) -> None:
    for name in ("a", "b"):
        write(tmp_path / "images" / f"{name}.png", bright=3)
    done = api.predict_files(model, [tmp_path / "images"], tmp_path / "masks", polygons=kind)
    assert not done.failed
    others = ["annotations.json"] if expected is None else [expected, expected.replace("a.", "b.")]
    assert below(tmp_path / "masks") == sorted(["a.png", "b.png", *others])
    text = (tmp_path / "masks" / others[0]).read_text()
    assert '"high"' in text
    again = api.predict_files(model, [tmp_path / "images"], tmp_path / "masks", polygons=kind)
    assert not [path for path in again.written if path.suffix == ".png"]
    assert (tmp_path / "masks" / others[0]).read_text() == text


def test_outlines_that_somebody_has_drawn_are_not_replaced(model: Model, tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "annotations.json").write_text("{}")
    with pytest.raises(DataError, match="no prediction has written"):
        api.predict_files(model, [tmp_path / "images"], tmp_path / "masks", polygons="coco")
    assert below(tmp_path / "masks") == ["annotations.json"]


def test_options_that_do_nothing_are_refused(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "images" / "a.png")
    with pytest.raises(ConfigError, match="none are written"):
        api.predict_files(model, [tmp_path / "images"], tmp_path / "masks", tolerance_px=1.0)
    monkeypatch.setitem(sys.modules, "shapely", None)
    with pytest.raises(ConfigError, match="polygons"):
        api.predict_files(model, [tmp_path / "images"], tmp_path / "masks", polygons="coco", tolerance_px=1.0)


# --- maps. Referee: rasterio ---


@pytest.mark.parametrize("epsg", [32611, 4326])
@pytest.mark.parametrize("nodata", [None, 0])
def test_the_mask_of_a_map_lies_at_the_same_place(model: Model, tmp_path: Path, epsg: int, nodata: int | None) -> None:
    rasterio = pytest.importorskip("rasterio")
    rasterize = pytest.importorskip("rasterio.features").rasterize
    transform = rasterio.transform.from_origin(440720.5, 3751320.25, 0.5, 0.25)
    profile = {"driver": "GTiff", "height": 40, "width": 50, "count": 1, "dtype": "uint8"}
    pixels = np.random.default_rng(0).integers(0, 2, (40, 50), dtype=np.uint8)
    place = {"crs": f"EPSG:{epsg}", "transform": transform, "nodata": nodata}
    with rasterio.open(tmp_path / "map.tif", "w", **profile, **place, tiled=True, blockxsize=16, blockysize=16) as file:
        file.write(pixels, 1)
    done = api.predict_files(model, [tmp_path / "map.tif"], tmp_path / "out", polygons="geojson")
    assert not done.failed
    with rasterio.open(tmp_path / "map.tif") as image, rasterio.open(tmp_path / "out" / "map.tif") as mask:
        assert mask.crs == image.crs
        assert mask.bounds == image.bounds
        assert mask.transform == image.transform
        assert mask.nodata == IGNORE
        assert mask.colormap(1)[1][:3] == tuple(model.classes.colors()[1])
        expected = np.where(pixels == 0, 0 if nodata is None else IGNORE, 1)
        np.testing.assert_array_equal(mask.read(1), expected)
    features = json.loads((tmp_path / "out" / "map.geojson").read_text())["features"]
    shapes = [(feature["geometry"], 1) for feature in features]
    again = rasterize(shapes, (40, 50), transform=transform, dtype=np.uint8)
    np.testing.assert_array_equal(again, pixels)


def test_cloud_optimized_geotiff(model: Model, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    profile = {"driver": "GTiff", "height": 1300, "width": 1100, "count": 1, "dtype": "uint8", "nodata": 0}
    pixels = np.random.default_rng(0).integers(0, 2, (1300, 1100), dtype=np.uint8)
    transform = rasterio.transform.from_origin(440720.5, 3751320.25, 0.5, 0.25)
    with rasterio.open(tmp_path / "map.tif", "w", **profile, crs="EPSG:32611", transform=transform) as file:
        file.write(pixels, 1)
    done = api.predict_files(model, [tmp_path / "map.tif"], tmp_path / "out", mask_format="cog")
    assert done.written == [tmp_path / "out" / "map.tif"]
    with rasterio.open(done.written[0]) as mask:
        assert mask.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert mask.overviews(1)
        assert mask.transform == transform
        assert mask.nodata == IGNORE
        assert mask.colormap(1)[1][:3] == tuple(model.classes.colors()[1])
        np.testing.assert_array_equal(mask.read(1), np.where(pixels == 0, IGNORE, 1))
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []
