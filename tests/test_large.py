"""Masks by windows: equal to those of the whole image, within the memory that is given, and never done twice."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter
from test_inference import PixelNetwork, make

from pixelwise import api
from pixelwise.classes import IGNORE, ClassTable
from pixelwise.config import ModelConfig, PostprocessingConfig, PredictionConfig, parse_bytes
from pixelwise.data import formats, npy, windows, writing
from pixelwise.data.tiff import Placement
from pixelwise.data.writing import write_mask_bands
from pixelwise.errors import ConfigError, WriteError
from pixelwise.inference import files, jobs, large, postprocess, tiles
from pixelwise.inference.jobs import Outputs
from pixelwise.inference.predictor import Model
from pixelwise.models.unet import build

RNG = np.random.default_rng(5)
SIZE = (200, 330)
GEOGRAPHIC = (
    (33550, 12, 3, (0.5, 0.5, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 440720.0, 3751320.0, 0.0), True),
    (34735, 3, 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32611), True),
)


@pytest.fixture(scope="module")
def model() -> Model:
    torch_model = make(ModelConfig(width=4, depth=2), channels=3)
    return torch_model.with_prediction(PredictionConfig(tile_size=(64, 64), overlap=0.5))


@pytest.fixture
def image() -> np.ndarray:
    return RNG.integers(0, 4, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the masks have several."""
    monkeypatch.setattr(writing, "TILE_PX", 64)
    monkeypatch.setattr(large, "TILE_PX", 64)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Bands may be so many columns wide."""

    def bound(columns: int) -> None:
        monkeypatch.setattr(large, "_room", lambda *given: columns * given[-1])

    return bound


MODEL_TILING = tiles.Tiling((64, 64), 0, 0, 4, 0.5, "gaussian")


def write(model: Model, image: windows.Source, target: Path, **changes: object) -> np.ndarray:
    placement = changes.pop("placement", None)
    nodata = placement.nodata if placement is not None else None
    subject = large.Subject(image, str(changes.pop("identity", "one")), nodata)
    kept = large.predict_parts(model, subject, target, **{"memory_bytes": 10**12, **changes})
    write_mask_bands(target, kept.bands(), kept.size, model.classes, placement)
    kept.remove()
    return tifffile.imread(target)


@pytest.mark.parametrize("columns", [1, 200, 10_000])
def test_the_mask_does_not_depend_on_the_memory(
    columns: int, model: Model, image: np.ndarray, narrow: Callable[[int], None], tmp_path: Path
) -> None:
    narrow(columns)
    mask = write(model, image, tmp_path / "a.tif")
    np.testing.assert_array_equal(mask, model.predict(image).mask)
    assert len(np.unique(mask)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
    np.testing.assert_array_equal(formats.read_mask(tmp_path / "a.tif"), mask)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("width", [1, 63, 64, 65, 500, 777])
@pytest.mark.parametrize("columns", [1, 150, 300, 100_000])
def test_blocks_cover_an_image_once(overlap: float, width: int, columns: int) -> None:
    tiling = tiles.Tiling((64, 64), 0, 8 if width > 64 else 0, 4, overlap, "gaussian")
    cut = tiles.blocks((10, width), tiling, columns)
    assert [column for block in cut for column in block.columns] == list(range(width))
    assert all(block.rows == range(10) for block in cut)
    if columns > width + 200:
        assert len(cut) == 1


@pytest.mark.parametrize("columns", [1, 10_000])
def test_an_interrupted_prediction_goes_on_where_it_stopped(
    columns: int, image: np.ndarray, narrow: Callable[[int], None], tmp_path: Path
) -> None:
    network = Counting()
    model = make(ModelConfig(width=4, depth=2), network, channels=3)
    model = model.with_prediction(PredictionConfig(tile_size=(64, 64), overlap=0.5))
    narrow(columns)
    write(model, image, tmp_path / "whole.tif")
    uninterrupted, network.calls = network.calls, 0

    def stop_after(bands: int) -> Callable[[int, int], None]:
        seen: list[int] = []

        def progress(done: int, total: int) -> None:
            assert 0 < done <= total
            seen.append(done)
            if len(seen) == bands:
                raise KeyboardInterrupt

        return progress

    interruptions = 0
    for bands in (2, 2, 1):
        with pytest.raises(KeyboardInterrupt):
            write(model, image, tmp_path / "a.tif", progress=stop_after(bands))
        interruptions += 1
        assert not (tmp_path / "a.tif").exists()
    write(model, image, tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    a_row_of_tiles = -(-(SIZE[1] + 64) // 32)
    assert network.calls <= uninterrupted + interruptions * a_row_of_tiles
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "whole.tif"]


class Counting(PixelNetwork):
    calls = 0

    def forward(self, image: "object") -> "object":
        self.calls += 1
        return super().forward(image)


def test_blocks_of_an_earlier_call_are_taken_up(
    image: np.ndarray, narrow: Callable[[int], None], tmp_path: Path
) -> None:
    """What a process takes beside its bands differs from call to call."""
    network = Counting()
    model = make(ModelConfig(width=4, depth=2), network, channels=3)
    model = model.with_prediction(PredictionConfig(tile_size=(64, 64), overlap=0.5))
    narrow(192 + 100)
    write(model, image, tmp_path / "whole.tif")
    uninterrupted, network.calls = network.calls, 0

    def late(done: int, total: int) -> None:
        if done > 0.8 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(model, image, tmp_path / "a.tif", progress=late)
    narrow(192 + 95)
    network.calls = 0
    mask = write(model, image, tmp_path / "a.tif")
    assert network.calls < 0.6 * uninterrupted
    np.testing.assert_array_equal(mask, model.predict(image).mask)


@pytest.mark.parametrize("other", ["image", "model", "nodata", "memory"])
def test_parts_of_something_else_are_not_taken(
    other: str, model: Model, image: np.ndarray, narrow: Callable[[int], None], tmp_path: Path
) -> None:
    narrow(1 if other == "memory" else 10_000)
    seen = 0

    def stop(_done: int, _total: int) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(model, image, tmp_path / "a.tif", progress=stop)
    narrow(10_000)
    if other == "model":
        model = model.with_prediction(PredictionConfig(tile_size=(64, 64), overlap=0.25))
    if other == "image":
        image = 3 - image
    nodata = 2.0 if other == "nodata" else None
    placement = Placement((), nodata)
    identity = "two" if other == "image" else "one"
    mask = write(model, image, tmp_path / "a.tif", identity=identity, placement=placement)
    np.testing.assert_array_equal(mask, model.predict(image, nodata=nodata).mask)


def test_parts_are_not_taken_for_those_of_an_emptied_file(
    model: Model, image: np.ndarray, narrow: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interruption between emptying the file and writing down that it is empty."""

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    narrow(10_000)
    with pytest.raises(KeyboardInterrupt):
        write(model, image, tmp_path / "a.tif", progress=stop)
    narrow(1)
    with monkeypatch.context() as patch:
        patch.setattr(large.Kept, "note", lambda *_: stop(1, 1))
        with pytest.raises(KeyboardInterrupt):
            write(model, image, tmp_path / "a.tif")
    narrow(10_000)
    np.testing.assert_array_equal(write(model, image, tmp_path / "a.tif"), model.predict(image).mask)


def test_a_damaged_journal_is_no_reason_to_fail(model: Model, image: np.ndarray, tmp_path: Path) -> None:
    kept = large.Kept.beside(tmp_path / "a.tif", SIZE)
    kept.journal.write_text("{")
    kept.mask.path.write_bytes(b"")
    np.testing.assert_array_equal(write(model, image, tmp_path / "a.tif"), model.predict(image).mask)


def test_empty_pixels_stay_empty_and_the_place_is_kept(model: Model, image: np.ndarray, tmp_path: Path) -> None:
    image[50:120, 100:300] = 7
    placement = Placement(GEOGRAPHIC, nodata=7.0)
    mask = write(model, image, tmp_path / "a.tif", placement=placement)
    np.testing.assert_array_equal(mask, model.predict(image, nodata=7).mask)
    assert (mask[50:120, 100:300] == IGNORE).all()
    assert (mask == IGNORE).sum() == 70 * 200
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = file.pages.first.tags
        assert [tags[code].value for code, *_ in GEOGRAPHIC] == [value for _, _, _, value, _ in GEOGRAPHIC]
        assert file.pages.first.nodata == IGNORE


def test_too_little_memory_is_said(model: Model, image: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="are not enough") as caught:
        write(model, image, tmp_path / "a.tif", memory_bytes=10_000_000)
    assert "--memory" in str(caught.value)


def test_a_full_disk_is_said(model: Model, image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(npy.os, "fsync", full)
    with pytest.raises(WriteError, match="No space"):
        write(model, image, tmp_path / "a.tif")


# --- pixels that hold nothing ---


@pytest.mark.parametrize("normalisation", ["standard", "image"])
@pytest.mark.parametrize("nodata", [float("nan"), -9999.0, -3.4028234663852886e38])
def test_what_holds_nothing_changes_nothing_else(nodata: float, normalisation: str) -> None:
    """The network sees the mean in its place, as if the image had been filled by hand."""
    model = make(ModelConfig(width=4, depth=2), channels=3)
    about = model.description.preprocessing.model_copy(update={"normalisation": normalisation, "mean": (1.0, 2.0, 3.0)})
    model = Model(model.network, model.description.model_copy(update={"preprocessing": about}), model.device)
    image = RNG.random((*SIZE, 3)).astype(np.float32)
    empty = np.zeros(SIZE, bool)
    empty[40:90, 100:200] = True
    holed, filled = image.copy(), image.copy()
    holed[empty] = nodata
    filled[empty] = image[~empty].mean(axis=0, dtype=np.float64) if normalisation == "image" else (1.0, 2.0, 3.0)
    mask = model.predict(holed, nodata=nodata).mask
    assert (mask[empty] == IGNORE).all()
    if normalisation == "standard":  # the deviation of a filled image is smaller than that of what it holds
        np.testing.assert_array_equal(mask[~empty], model.predict(filled).mask[~empty])
    assert len(np.unique(mask)) == 3


def test_an_image_that_holds_nothing_at_all(model: Model) -> None:
    assert (model.predict(np.full((40, 50, 3), 9, np.uint8), nodata=9).mask == IGNORE).all()


# --- windows of one value ---


def test_more_values_than_are_remembered() -> None:
    model = make(ModelConfig(width=4, depth=2), PixelNetwork(), channels=3)
    model = model.with_prediction(PredictionConfig(tile_size=(32, 32), overlap=0.0))
    image = np.repeat(np.arange(12, dtype=np.uint8), 96)[None, :, None].repeat(64, 0).repeat(3, 2)
    np.testing.assert_array_equal(model.predict(image).mask, image[:, :, 0] > 0)


def test_windows_of_one_value_are_predicted_once(image: np.ndarray) -> None:
    image[:, 60:] = 2
    network = Counting()
    model = make(ModelConfig(width=4, depth=2), network, channels=3)
    model = model.with_prediction(PredictionConfig(tile_size=(64, 64), overlap=0.5))
    mask = model.predict(image).mask
    with_remembering, network.calls = network.calls, 0
    plain = np.empty(SIZE, np.uint8)
    for band in tiles.bands(image, lambda w: plainly(model, w), MODEL_TILING):
        plain[band.place] = band.labels()
    assert with_remembering < network.calls / 2
    np.testing.assert_array_equal(mask, plain)


def plainly(model: Model, given: tiles.Windows) -> "object":
    import torch

    stacked = np.stack([window.astype(np.float32).transpose(2, 0, 1) for window in given])
    return model._probabilities(torch.from_numpy(stacked))


# --- files ---


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WHOLE_BYTES", 0)


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_a_large_file_gets_a_tiled_tiff(name: str, model: Model, image: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a.tif":
        tifffile.imwrite(path, image, tile=(32, 32), compression="zlib", photometric="rgb", extratags=GEOGRAPHIC)
    else:
        from PIL import Image

        Image.fromarray(image).save(path)
    outputs = Outputs(tmp_path / "out")
    done = files.run(model, jobs.plan([path], outputs), outputs)
    assert not done.failed
    assert done.written == [tmp_path / "out" / "a.tif"]
    np.testing.assert_array_equal(tifffile.imread(done.written[0]), model.predict(image).mask)
    with tifffile.TiffFile(done.written[0]) as file:
        assert file.pages.first.is_tiled
        assert (33922 in file.pages.first.tags) is (name == "a.tif")


@pytest.mark.parametrize(
    "outputs",
    [{}, {"mask_format": "tif"}, {"probabilities": True}, {"polygons": "geojson"}, {"draw": lambda image, *_: image}],
)
def test_a_file_is_read_by_windows_where_that_changes_no_result(
    outputs: dict[str, object], model: Model, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image[:70, :90] = 0
    tags = [(42113, 2, 0, "0", True)]  # zero means no data
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(32, 32), compression="zlib", photometric="rgb", extratags=tags)
    refined = PostprocessingConfig(smallest_px=(5, 20))
    model = Model(model.network, model.description.model_copy(update={"postprocessing": refined}), model.device)
    made = {}
    for name, bytes_, calls in (("whole", 2**24, 1), ("windows", 0, 1 if "draw" in outputs else 0)):
        seen = Mock(wraps=files.channels.read)
        monkeypatch.setattr(windows, "SMALL_BYTES", bytes_)
        monkeypatch.setattr(files.channels, "read", seen)
        wanted = Outputs(tmp_path / name, memory_bytes=jobs.LEAST_BYTES, **outputs)
        done = files.run(model, jobs.plan([tmp_path / "a.tif"], wanted), wanted)
        assert not done.failed
        assert seen.call_count == calls
        made[name] = {path.name: path for path in done.written}
    assert list(made["windows"]) == list(made["whole"])
    for name, path in made["whole"].items():
        assert made["windows"][name].read_bytes() == path.read_bytes()
    assert not list(tmp_path.glob("windows/.pixelwise*"))


@pytest.mark.parametrize("kind", ["float", "alpha", "striped", "resized", "five classes"])
def test_windows_of_other_files_and_models_give_the_same(
    kind: str, model: Model, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if kind == "float":
        image = image.astype(np.float32)
    if kind == "alpha":
        image = np.dstack([image, np.full(SIZE, 255, np.uint8)])
    if kind == "resized":
        seen = model.description.preprocessing.model_copy(update={"resize": (64, 96)})
        model = Model(model.network, model.description.model_copy(update={"preprocessing": seen}), model.device)
    if kind == "five classes":
        config, classes = ModelConfig(width=4, depth=2), ClassTable.from_names(list("abcde"))
        model = make(config, build(config, 3, 5), channels=3, tile_size=(64, 64), overlap=0.75)
        model = Model(model.network, model.description.model_copy(update={"classes": classes}), model.device)
    layout = {"rowsperstrip": 7} if kind == "striped" else {"tile": (32, 32)}
    tifffile.imwrite(tmp_path / "a.tif", image, compression="zlib", photometric="rgb", **layout)
    monkeypatch.setattr(windows, "SMALL_BYTES", 0)
    done = api.predict_files(model, [tmp_path / "a.tif"], tmp_path / "out")
    assert not done.failed
    np.testing.assert_array_equal(formats.read_mask(done.written[0]), model.predict(image[:, :, :3]).mask)


def test_an_image_that_fails_by_windows_leaves_nothing(
    model: Model, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(32, 32), compression="zlib", photometric="rgb")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages.first.dataoffsets[-1]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[place : place + 9] = b"no zlib.."
    (tmp_path / "a.tif").write_bytes(content)
    monkeypatch.setattr(windows, "SMALL_BYTES", 0)
    done = api.predict_files(model, [tmp_path / "a.tif"], tmp_path / "out")
    assert [error.where for error in done.failed] == [tmp_path / "a.tif"]
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.usefixtures("all_large")
def test_probabilities_and_a_smaller_overlay_of_a_large_file_but_no_outlines_which_is_said(
    model: Model, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(files, "OVERVIEW_PX", 100)
    monkeypatch.setattr(windows, "BAND_PIXELS", 5 * SIZE[1])  # no multiple of the step
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    outputs = Outputs(tmp_path / "out", draw=lambda picture, *_: picture, probabilities=True, polygons="geojson")
    done = files.run(model, jobs.plan([tmp_path / "a.tif"], outputs), outputs)
    assert [path.name for path in done.written] == ["a.tif", "a_overlay.png", "a_probabilities.npy"]
    assert done.without_extras == [tmp_path / "a.tif"]
    expected = model.predict(image, probabilities=True)
    np.testing.assert_allclose(np.load(done.written[2]), expected.probabilities, atol=1e-6)
    np.testing.assert_array_equal(formats.read_image(done.written[1]), image[::4, ::4])  # 330 pixels at most 100
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.tif",
        "a_overlay.png",
        "a_probabilities.npy",
        "predictions.jsonl",
    ]


def test_probabilities_that_are_asked_for_later_are_predicted(model: Model, image: np.ndarray, tmp_path: Path) -> None:
    subject, target = large.Subject(image, "one"), tmp_path / "a.tif"
    large.predict_parts(model, subject, target, memory_bytes=10**12)
    kept = large.predict_parts(model, subject, target, memory_bytes=10**12, probabilities=True)
    expected = model.predict(image, probabilities=True).probabilities
    np.testing.assert_allclose(np.load(kept.probabilities.path), expected, atol=1e-6)
    large.predict_parts(model, subject, target, memory_bytes=10**12).remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wishes", [(True, False, True), (False, True, False)])
def test_wishes_that_change_between_interruptions_lose_nothing(
    wishes: tuple[bool, ...], model: Model, image: np.ndarray, tmp_path: Path
) -> None:
    subject, target = large.Subject(image, "one"), tmp_path / "a.tif"

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    for wish in wishes[:2]:
        with pytest.raises(KeyboardInterrupt):
            large.predict_parts(model, subject, target, memory_bytes=10**12, probabilities=wish, progress=stop)
    kept = large.predict_parts(model, subject, target, memory_bytes=10**12, probabilities=wishes[2])
    expected = model.predict(image, probabilities=True)
    np.testing.assert_array_equal(np.concatenate(list(kept.bands())), expected.mask)
    if wishes[2]:
        np.testing.assert_allclose(np.load(kept.probabilities.path), expected.probabilities, atol=1e-6)


def test_a_mask_of_another_format_goes_on_with_the_same_parts(
    model: Model, image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(32, 32), compression="zlib", photometric="rgb")
    monkeypatch.setattr(windows, "SMALL_BYTES", 0)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    write_mask = writing.write_mask
    monkeypatch.setattr(writing, "write_mask", interrupt)
    with pytest.raises(KeyboardInterrupt):
        api.predict_files(model, [tmp_path / "a.tif"], tmp_path / "out", mask_format="png")
    assert list((tmp_path / "out").glob(".pixelwise*"))
    monkeypatch.setattr(writing, "write_mask", write_mask)
    expected = model.predict(image).mask
    monkeypatch.setattr(Model, "regions", lambda *_: iter(()))  # all of it is there
    api.predict_files(model, [tmp_path / "a.tif"], tmp_path / "out", mask_format="tif")
    assert [path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".jsonl"] == ["a.tif"]
    np.testing.assert_array_equal(formats.read_mask(tmp_path / "out" / "a.tif"), expected)


def test_a_model_that_resizes_goes_on_too(image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "ENLARGED_ROWS", 64)
    plain = make(ModelConfig(width=4, depth=2), channels=3)
    told = plain.description.preprocessing.model_copy(update={"resize": (64, 96)})
    model = Model(plain.network, plain.description.model_copy(update={"preprocessing": told}), plain.device)
    subject, target = large.Subject(image, "one"), tmp_path / "a.tif"
    seen: list[int] = []

    def stop(done: int, _total: int) -> None:
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        large.predict_parts(model, subject, target, memory_bytes=10**12, progress=stop)
    kept = large.predict_parts(model, subject, target, memory_bytes=10**12, progress=stop)
    assert seen == [64, 128, 192, 200]
    np.testing.assert_array_equal(np.concatenate(list(kept.bands())), model.predict(image).mask)


@pytest.mark.usefixtures("all_large")
def test_the_overlay_follows_a_large_mask_that_was_corrected(model: Model, image: np.ndarray, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    outputs = Outputs(tmp_path / "out", draw=lambda _, mask, __: np.repeat(mask[:, :, None], 3, axis=2))
    planned = jobs.plan([tmp_path / "a.tif"], outputs)
    files.run(model, planned, outputs)
    corrected = np.ones(SIZE, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "out" / "a.tif", corrected)
    done = files.run(model, planned, outputs)
    assert [path.name for path in done.written] == ["a_overlay.png"]
    assert (formats.read_image(done.written[0]) == 1).all()


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("shape", [(20, 30), (*SIZE, 3)])
def test_a_large_mask_that_was_changed_to_no_mask_is_said(
    shape: tuple[int, ...], model: Model, image: np.ndarray, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    outputs = Outputs(tmp_path / "out", draw=lambda picture, *_: picture)
    planned = jobs.plan([tmp_path / "a.tif"], outputs)
    files.run(model, planned, outputs)
    painted = np.zeros(shape, dtype=np.uint8)
    painted[..., 0] = 1
    tifffile.imwrite(tmp_path / "out" / "a.tif", painted)
    done = files.run(model, planned, outputs)
    assert "no longer" in str(done.failed[0])


@pytest.mark.usefixtures("all_large")
def test_an_image_with_further_channels_is_read_whole_and_has_outlines(image: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "imagesTs"
    folder.mkdir()
    for number in range(2):
        tifffile.imwrite(folder / f"x_000{number}.tif", image[:, :, number])
    two = make(ModelConfig(width=4, depth=2), channels=2)
    outputs = Outputs(tmp_path / "out", mask_format="png", polygons="geojson")
    done = files.run(two, jobs.plan([folder], outputs), outputs)
    assert [path.name for path in done.written] == ["x.png", "x.geojson"]
    assert done.without_extras == []


def test_a_disk_without_room_is_told_before_anything_is_computed(
    model: Model, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(large.shutil, "disk_usage", lambda _: SimpleNamespace(free=SIZE[0] * SIZE[1]))
    with pytest.raises(WriteError, match="GB left"):
        large.predict_parts(model, large.Subject(image, "one"), tmp_path / "a.tif", memory_bytes=10**12)


@pytest.mark.parametrize("rows", [5, 16, 60])
@pytest.mark.parametrize("smallest", [(12, 0, 60), (0, 1, 0), (30, 30, 30)])
def test_small_objects_go_by_bands_as_they_go_from_the_whole(
    rows: int, smallest: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postprocess, "FILLED_PX", 30)
    monkeypatch.setattr(postprocess, "REACH_PX", 25)
    monkeypatch.setattr(postprocess, "NUMBERED_PIXELS", 3 * 130)
    noise = np.random.default_rng(1).normal(size=(60, 130))
    mask = np.digitize(gaussian_filter(noise, 2.0), [-0.1, 0.1]).astype(np.uint8)  # objects of a few to hundreds
    mask[20:30, 50:52] = IGNORE

    def bands() -> "Iterator[np.ndarray]":
        yield from (mask[top : top + rows] for top in range(0, len(mask), rows))

    cleaned = np.concatenate(list(postprocess.cleaned_bands(bands, smallest)))
    expected = postprocess.without_small_objects(mask, smallest)
    np.testing.assert_array_equal(cleaned, expected)
    assert ((expected != mask).sum() > 50) == (max(smallest) > 1)


@pytest.mark.usefixtures("all_large")
def test_a_large_mask_has_no_small_objects_if_the_model_says_so(image: np.ndarray, tmp_path: Path) -> None:
    plain = make(ModelConfig(width=4, depth=2), PixelNetwork(), channels=3, tile_size=(64, 64), overlap=0.5)
    told = plain.description.model_copy(update={"postprocessing": PostprocessingConfig(smallest_px=(9, 9))})
    model = Model(plain.network, told, plain.device)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    outputs = Outputs(tmp_path / "out")
    done = files.run(model, jobs.plan([tmp_path / "a.tif"], outputs), outputs)
    mask = tifffile.imread(done.written[0])
    np.testing.assert_array_equal(mask, model.predict(image).mask)
    assert (mask != plain.predict(image).mask).any()


def test_an_image_with_coordinates_gets_a_mask_with_the_same(model: Model, image: np.ndarray, tmp_path: Path) -> None:
    image[:9, :8] = 0
    tags = [*GEOGRAPHIC, (42113, 2, 2, "0", True)]
    tifffile.imwrite(tmp_path / "map.tif", image, photometric="rgb", extratags=tags)
    tifffile.imwrite(tmp_path / "plain.tif", image, photometric="rgb")
    outputs = Outputs(tmp_path / "out")
    done = files.run(model, jobs.plan([tmp_path], outputs), outputs)
    assert [path.name for path in done.written] == ["map.tif", "plain.png"]
    mask = tifffile.imread(done.written[0])
    assert (mask[:9, :8] == IGNORE).all()
    assert ((mask == IGNORE) == (image == 0).all(axis=2)).all()
    with tifffile.TiffFile(done.written[0]) as file:
        assert file.pages.first.geotiff_tags["ModelTiepoint"] == [0.0, 0.0, 0.0, 440720.0, 3751320.0, 0.0]


@pytest.mark.parametrize(("text", "expected"), [("2GB", 2_000_000_000), ("500MB", 500_000_000), ("1GiB", 2**30)])
def test_amounts_of_memory(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "much", "2 apples", "-1GB"])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(ConfigError, match="no amount of memory"):
        parse_bytes(text)


# --- processes of their own ---

KILLED = """
import sys
from pixelwise.cli import main
from pixelwise.data import windows, writing
from pixelwise.inference import large
windows.WHOLE_BYTES = 0
writing.TILE_PX = large.TILE_PX = 64
note = large.Kept.note
def noting(kept, state):
    note(kept, state)
    print("band", state.block, state.rows, flush=True)
large.Kept.note = noting
main()
"""


@pytest.mark.slow
@pytest.mark.usefixtures("all_large")
def test_a_prediction_that_is_killed_goes_on_and_does_at_most_one_band_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pixelwise.models import bundle

    small = make(ModelConfig(width=4, depth=2), channels=3, tile_size=(64, 64), overlap=0.5)
    bundle.save(bundle.Bundle(small.description, bundle.state_on_cpu(small.network)), tmp_path / "model.safetensors")
    pixels = RNG.integers(0, 4, (800, 330, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(32, 32), compression="zlib", photometric="rgb")

    noted: list[tuple[int, int]] = []
    note = large.Kept.note
    monkeypatch.setattr(
        large.Kept, "note", lambda kept, state: note(kept, state) or noted.append((state.block, state.rows))
    )
    api.predict_files(tmp_path / "model.safetensors", [tmp_path / "a.tif"], tmp_path / "whole")
    whole = noted[1:]  # the first is the beginning
    assert len(whole) > 20
    command = ["predict", str(tmp_path / "model.safetensors"), str(tmp_path / "a.tif"), "-o", str(tmp_path / "killed")]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *command], stdout=subprocess.PIPE, text=True)
    seen = 0
    assert process.stdout is not None
    with process.stdout:
        while seen < 8:
            seen += process.stdout.readline().startswith("band")
        process.kill()
        process.wait()
    assert not (tmp_path / "killed" / "a.tif").exists()
    noted.clear()
    api.predict_files(tmp_path / "model.safetensors", [tmp_path / "a.tif"], tmp_path / "killed")
    rest = noted
    assert rest == whole[-len(rest) :]
    assert len(rest) <= len(whole) - seen + 2  # one band more than is left; the kill may come before its line is read
    one, other = (tifffile.imread(tmp_path / name / "a.tif") for name in ("whole", "killed"))
    np.testing.assert_array_equal(one, other)


# --- memory, of a process of its own ---

PROGRAM = """
import sys
from pathlib import Path
from pixelwise import api
from pixelwise.data import windows
windows.WHOLE_BYTES = 0
api.predict_files(sys.argv[1], sys.argv[3:], sys.argv[2], memory_bytes=int(9e8))
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured as Linux does")
def test_memory_is_kept_image_after_image(tmp_path: Path) -> None:
    from pixelwise.classes import ClassTable
    from pixelwise.models import bundle, unet

    small = make(ModelConfig(width=4, depth=2), channels=3)
    many = ClassTable.from_names([f"class {index}" for index in range(60)])
    about = small.description.model_copy(update={"classes": many, "prediction": PredictionConfig(tile_size=(128, 128))})
    network = unet.build(about.model, 3, 60)
    bundle.save(bundle.Bundle(about, bundle.state_on_cpu(network)), tmp_path / "model.safetensors")
    images = [tmp_path / "a.tif", tmp_path / "b.tif"]
    pixels = np.zeros((208, 24_000, 3), np.uint8)  # a row of tiles of the whole width would take more than a gigabyte
    pixels[::7, ::5] = 200
    for path in images:
        tifffile.imwrite(path, pixels, tile=(256, 256), compression="zlib", photometric="rgb")
    paths = [str(path) for path in (tmp_path / "model.safetensors", tmp_path / "out", *images)]
    ran = subprocess.run([sys.executable, "-c", PROGRAM, *paths], capture_output=True, text=True, check=True)
    assert int(ran.stdout.split()[-1]) < 9.3e8
    assert all(tifffile.imread(tmp_path / "out" / path.name).shape == (208, 24_000) for path in images)
