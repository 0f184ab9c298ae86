"""Images that are too large to be decoded whole: the same data set, cut into pieces."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import QUICK
from PIL import Image

import pixelwise
from pixelwise import api
from pixelwise.data import formats, pieces, windows
from pixelwise.data.cache import Cache
from pixelwise.data.dataset import Case
from pixelwise.data.folder import scan
from pixelwise.data.masks import decode
from pixelwise.data.reading import read_image
from pixelwise.errors import DataError

HEIGHT, WIDTH = 150, 210


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WHOLE_BYTES", 20_000)
    monkeypatch.setattr(pieces, "PIECE_PX", 64)


def draw(folder: Path, images: int, mask_suffix: str = ".tif") -> dict[str, np.ndarray]:
    """Bright discs in noise, as tiled TIFF."""
    rng = np.random.default_rng(0)
    masks = {}
    for number in range(images):
        row, column = np.mgrid[:HEIGHT, :WIDTH]
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for _ in range(12):
            middle = rng.uniform((0, 0), (HEIGHT, WIDTH))
            mask |= np.hypot(row - middle[0], column - middle[1]) < rng.uniform(8, 20)
        image = np.clip(rng.normal(80, 20, (HEIGHT, WIDTH, 3)) + 90 * mask[:, :, None], 0, 255).astype(np.uint8)
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        options = {"tile": (32, 48), "compression": "zlib"}
        tifffile.imwrite(folder / "images" / f"{number}.tif", image, photometric="rgb", **options)
        path = folder / "masks" / f"{number}{mask_suffix}"
        if mask_suffix == ".tif":
            tifffile.imwrite(path, mask * 255, photometric="minisblack", **options)
        else:
            Image.fromarray(mask * 255).save(path)
        masks[str(number)] = mask
    return masks


@pytest.mark.parametrize("mask_suffix", [".tif", ".png"])
def test_pieces_cover_an_image_and_its_mask_once(mask_suffix: str, tmp_path: Path) -> None:
    masks = draw(tmp_path, 3, mask_suffix)
    dataset = scan(tmp_path)
    assert len(dataset.cases) == 3 * 3 * 4
    covered = {name: np.zeros((HEIGHT, WIDTH), int) for name in masks}
    for case in dataset.cases:
        name = case.name.split("/")[0]
        assert case.group == name
        top, left, height, width = case.window
        assert max(height, width) <= 64
        part = slice(top, top + height), slice(left, left + width)
        covered[name][part] += 1
        np.testing.assert_array_equal(read_image(case), formats.read_image(case.image)[part])
        np.testing.assert_array_equal(decode(case, dataset.encoding, (height, width)), masks[name][part])
    assert all((count == 1).all() for count in covered.values())


def test_what_allows_no_windows_stays_whole(tmp_path: Path) -> None:
    draw(tmp_path, 3)
    for number in range(3):
        image = formats.read_image(tmp_path / "images" / f"{number}.tif")
        (tmp_path / "images" / f"{number}.tif").unlink()
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
    assert [case.window for case in scan(tmp_path).cases] == [None] * 3


def test_pieces_of_one_image_may_lie_on_different_sides_which_is_said(tmp_path: Path) -> None:
    draw(tmp_path, 1)
    dataset = scan(tmp_path)
    assert {case.group for case in dataset.cases} == {""}
    assert any("12 pieces" in notice for notice in dataset.notices)


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    draw(tmp_path, 3)
    tifffile.imwrite(tmp_path / "masks" / "1.tif", np.zeros((HEIGHT - 30, WIDTH), np.uint8), tile=(32, 48))
    _, findings = api.check(tmp_path)
    fatal = [finding for finding in findings if finding.severity == "fatal"]
    assert fatal
    assert any(path.name == "1.tif" for finding in fatal for path in finding.files)


def test_the_cache_holds_pieces(tmp_path: Path) -> None:
    masks = draw(tmp_path / "data", 3)
    dataset = scan(tmp_path / "data")
    decoded = Cache(tmp_path / "cache", dataset).open_all(dataset.cases)
    assert len({one.digest for one in decoded}) == len(dataset.cases)
    total = np.sum([one.class_pixels for one in decoded], axis=0)
    assert total.tolist() == [sum(int((mask == index).sum()) for mask in masks.values()) for index in range(2)]


def test_outlines_are_cut_too(tmp_path: Path) -> None:
    draw(tmp_path, 3)
    for number in range(3):
        (tmp_path / "masks" / f"{number}.tif").unlink()
        text = "0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9\n"
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{number}.txt").write_text(text)
    dataset = scan(tmp_path)
    pixels = sum(int((decode(case, dataset.encoding, case.window[2:]) == 1).sum()) for case in dataset.cases)
    assert pixels == 3 * round(0.8 * HEIGHT) * round(0.8 * WIDTH)


@pytest.mark.slow
def test_large_images_train_like_others(tmp_path: Path) -> None:
    draw(tmp_path / "data", 4)
    settings = [*QUICK, "training.epochs=2", "data.patch_size=32"]
    run = pixelwise.train(tmp_path / "data", out=tmp_path / "run", config=pixelwise.settings(overrides=settings))
    assert (tmp_path / "run" / "report.html").exists()
    sides = {case.name.split("/")[0]: side for side in ("train", "validation", "test") for case in run_side(run, side)}
    assert len(sides) == 4
    done = api.predict_files(tmp_path / "run", [tmp_path / "data" / "images"], tmp_path / "masks")
    assert not done.failed
    assert all(formats.read_mask(path).shape == (HEIGHT, WIDTH) for path in done.written)


def run_side(run: pixelwise.Run, side: str) -> list[Case]:
    import json

    split = json.loads((run.folder / "split.json").read_text())
    return [Case(entry if isinstance(entry, str) else entry["name"], Path()) for entry in split[side]]


def test_a_damaged_tile_is_named(tmp_path: Path) -> None:
    draw(tmp_path, 3)
    path = tmp_path / "images" / "1.tif"
    with tifffile.TiffFile(path) as file:
        start, length = file.pages.first.dataoffsets[-1], file.pages.first.databytecounts[-1]
    content = bytearray(path.read_bytes())
    content[start : start + length] = b"\xff" * length
    path.write_bytes(content)
    case = next(case for case in scan(tmp_path).cases if case.name == "1/2-3")
    with pytest.raises(DataError, match="damaged"):
        read_image(case)
    _, findings = api.check(tmp_path)
    assert any(finding.severity == "fatal" and path in finding.files for finding in findings)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_large_mask_is_read_through_its_own_palette_as_small_ones_are(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    colors = np.array([(0, 0, 0), (200, 0, 0), (0, 200, 0)], np.uint8)
    shown = {}
    for number, side in enumerate((200, 40, 200, 40)):
        truth = np.kron(rng.integers(0, 3, (side // 10, side // 10)), np.ones((10, 10), int))
        order = [[0, 1, 2], [0, 2, 1]][number // 2]
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        image = np.dstack([truth * 50 + number] * 3).astype(np.uint8)
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", image, photometric="rgb", tile=(32, 48))
        index, palette = np.argsort(order)[truth].astype(np.uint8), np.zeros((256, 3), np.uint8)
        palette[:3] = colors[order]
        path = tmp_path / "masks" / f"{number}{suffix}"
        if suffix == ".tif":
            table = palette.T.astype(np.uint16) * 257
            tifffile.imwrite(path, index, photometric="palette", colormap=table, tile=(32, 48))
        else:
            picture = Image.fromarray(index)
            picture.putpalette(palette.ravel().tolist())
            picture.save(path)
        shown[str(number)] = colors[truth]
    dataset = scan(tmp_path)
    assert len(dataset.cases) == 2 * 16 + 2
    for case in dataset.cases:
        top, left, height, width = case.window or (0, 0, 40, 40)
        expected = shown[case.image.stem][top : top + height, left : left + width]
        drawn = dataset.classes.colors()[decode(case, dataset.encoding, (height, width))]
        np.testing.assert_array_equal(drawn, expected)
