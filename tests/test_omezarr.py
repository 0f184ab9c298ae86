"""OME-Zarr read by windows, and masks written with the same axes and scales. Referee: zarr itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_inference import PixelNetwork, make

from pixelwise import api
from pixelwise.config import ModelConfig
from pixelwise.data import formats, windows
from pixelwise.data.folder import scan
from pixelwise.data.masks import decode
from pixelwise.errors import DataError

zarr = pytest.importorskip("zarr")

RNG = np.random.default_rng(4)
KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def write(
    path: Path,
    pixels: np.ndarray,
    axes: str = "yx",
    version: str = "0.4",
    more: dict | None = None,
    chunk: int = 16,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    chunks = tuple(min(chunk, edge) for edge in pixels.shape)
    group.create_array("0", data=pixels, chunks=chunks)
    scale = [0.5 * (number + 1) for number in range(len(axes))]
    described = {
        "axes": [{"name": axis, "type": KINDS[axis]} for axis in axes],
        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
        **(more or {}),
    }
    if version == "0.4":
        group.attrs["multiscales"] = [{"version": "0.4", **described}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [described]}
    return path


def described(path: Path) -> dict[str, Any]:
    attributes = zarr.open_group(path, mode="r").attrs.asdict()
    return attributes.get("ome", attributes)["multiscales"][0]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yx", "cyx", "zyx", "czyx", "tczyx"])
def test_pages_and_windows(version: str, axes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"t": 2, "c": 3, "z": 4, "y": 37, "x": 41}
    pixels = RNG.integers(0, 60000, [sizes[axis] for axis in axes]).astype(np.uint16)
    path = write(tmp_path / "a.ome.zarr", pixels, axes, version)
    pages = (2 if "t" in axes else 1) * (4 if "z" in axes else 1)
    channels = 3 if "c" in axes else 1
    assert formats.read_info(path) == formats.ImageInfo(37, 41, channels, "uint16", pages)
    monkeypatch.setattr(windows, "WHOLE_BYTES", 0)
    page = pages - 1
    expected = pixels
    if "t" in axes:
        expected = expected[1]
    if "z" in axes:
        expected = np.take(expected, 3, axis=axes.replace("t", "").index("z"))
    expected = expected[..., None] if channels == 1 else np.moveaxis(expected, 0, 2)
    np.testing.assert_array_equal(formats.read_image(path, page), expected)
    source = windows.open_image(path, page)
    assert isinstance(source, windows.ZarrSource)
    assert source.shape == expected.shape
    np.testing.assert_array_equal(source[5:20, 10:33], expected[5:20, 10:33])


@pytest.mark.slow
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_mask_has_the_axes_and_scales_of_its_image(
    version: str, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(ModelConfig(width=4, depth=2), PixelNetwork())
    pixels = RNG.integers(0, 2, (1, 1100, 700)).astype(np.float32)
    path = write(tmp_path / "a.ome.zarr", pixels, "cyx", version, chunk=128)  # of 16 there would be thousands of files
    if large:
        monkeypatch.setattr(windows, "WHOLE_BYTES", 0)
    done = api.predict_files(model, [path], tmp_path / "out", memory_bytes=10**12)
    assert not done.failed
    assert done.written == [tmp_path / "out" / "a.ome.zarr"]
    group = zarr.open_group(done.written[0], mode="r")
    np.testing.assert_array_equal(group["0"][:], pixels[0])
    assert group.metadata.zarr_format == (2 if version == "0.4" else 3)
    about = described(done.written[0])
    assert [axis["name"] for axis in about["axes"]] == ["y", "x"]
    scales = [entry["coordinateTransformations"][0]["scale"] for entry in about["datasets"]]
    assert scales == [[1.0, 1.5], [2.0, 3.0], [4.0, 6.0]]
    assert [group[entry["path"]].shape for entry in about["datasets"]] == [(1100, 700), (550, 350), (275, 175)]
    np.testing.assert_array_equal(group["1"][:], pixels[0][::2, ::2])
    np.testing.assert_array_equal(formats.read_mask(done.written[0]), pixels[0])
    names = sorted(entry.name for entry in (tmp_path / "out").iterdir())
    assert names == ["a.ome.zarr", "predictions.jsonl"]
    assert not api.predict_files(model, [tmp_path / "a.ome.zarr"], tmp_path / "out").written


def test_a_stack_keeps_its_pages(tmp_path: Path) -> None:
    model = make(ModelConfig(width=4, depth=2), PixelNetwork())
    pixels = RNG.integers(0, 2, (3, 1, 2, 30, 20)).astype(np.float32)
    path = write(tmp_path / "a.zarr", pixels, "tczyx", "0.5")
    done = api.predict_files(model, [path], tmp_path / "out")
    assert not done.failed
    np.testing.assert_array_equal(zarr.open_group(done.written[0], mode="r")["0"][:], pixels[:, 0])
    assert [axis["name"] for axis in described(done.written[0])["axes"]] == list("tzyx")


def test_a_folder_of_images_and_masks(tmp_path: Path) -> None:
    masks = {}
    for number in range(3):
        masks[f"{number}"] = RNG.integers(0, 2, (24, 32)).astype(np.uint8)
        write(tmp_path / "images" / f"{number}.ome.zarr", RNG.integers(0, 255, (24, 32)).astype(np.uint8))
        write(tmp_path / "masks" / f"{number}.ome.zarr", masks[f"{number}"])
    dataset = scan(tmp_path)
    assert len(dataset.cases) == 3
    for case in dataset.cases:
        np.testing.assert_array_equal(decode(case, dataset.encoding, (24, 32)), masks[case.name])
    _, findings = api.check(tmp_path)
    assert not [found for found in findings if found.severity == "fatal"]


@pytest.mark.parametrize("damage", ["empty", "no axes", "other axes", "wrong path", "damaged"])
def test_what_is_no_image_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    if damage == "empty":
        path.mkdir()
    elif damage == "no axes":
        write(path, np.zeros((4, 4), np.uint8), more={"axes": [{"name": "y"}]})
    elif damage == "other axes":
        write(path, np.zeros((4, 4), np.uint8), more={"axes": [{"name": "q"}, {"name": "r"}]})
    elif damage == "wrong path":
        write(path, np.zeros((4, 4), np.uint8), more={"datasets": [{"path": "7"}]})
    else:
        write(path, np.zeros((4, 4), np.uint8))
        next(file for file in path.rglob("*") if file.name.startswith(".zattrs")).write_text("{")
    with pytest.raises(DataError) as caught:
        formats.read_image(path)
    assert "a.zarr" in str(caught.value)


def test_damaged_chunks_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", RNG.integers(0, 255, (64, 64)).astype(np.uint8))
    for file in (path / "0").iterdir():
        if not file.name.startswith("."):
            file.write_bytes(b"damaged")
    with pytest.raises(DataError, match="damaged"):
        formats.read_image(path)


def test_without_zarr_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from pixelwise.errors import ConfigError

    path = write(tmp_path / "a.zarr", np.zeros((4, 4), np.uint8))
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ConfigError, match=r"pixelwise\[zarr\]"):
        formats.read_image(path)
