"""Windows of an image are parts of the whole image. Referee: the reader of whole images, itself tested with others."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from encoded import npy, pillow, tiff

from pixelwise.data import formats, windows
from pixelwise.errors import DataError

RNG = np.random.default_rng(11)
HEIGHT, WIDTH = 83, 117


def pixels(channels: int, dtype: str = "uint8") -> np.ndarray:
    values = RNG.integers(0, 200, (HEIGHT, WIDTH, channels)).astype(dtype)
    return values[:, :, 0] if channels == 1 else values


RGB = {"photometric": "rgb"}
GREY = {"photometric": "minisblack"}
TILES = {"tile": (32, 16)}
STRIPS = {"rowsperstrip": 7}
COLOURS = RNG.integers(0, 65536, (3, 256), dtype=np.uint16)

FILES: dict[str, bytes] = {
    "plain": tiff(pixels(3), **RGB),
    "plain big-endian": tiff(pixels(1, "uint16"), byteorder=">", **GREY),
    "plain planes": tiff(np.moveaxis(pixels(3), 2, 0), planarconfig="separate", **RGB),
    "tiles": tiff(pixels(3), compression="zlib", **TILES, **RGB),
    "tiles bigtiff": tiff(pixels(3, "uint16"), compression="lzw", bigtiff=True, **TILES, **RGB),
    "tiles jpeg": tiff(pixels(3), compression="jpeg", **TILES, **RGB),
    "tiles uncompressed": tiff(pixels(3), **TILES, **RGB),
    "tiles predictor": tiff(pixels(1, "uint16"), compression="zlib", predictor=True, **TILES, **GREY),
    "tiles planes": tiff(np.moveaxis(pixels(4), 2, 0), planarconfig="separate", compression="zstd", **TILES, **GREY),
    "tiles float": tiff(pixels(1, "float32") / 7, compression="zlib", predictor=True, **TILES, **GREY),
    "strips": tiff(pixels(3), compression="zlib", **STRIPS, **RGB),
    "strips planes": tiff(np.moveaxis(pixels(3), 2, 0), planarconfig="separate", compression="lzw", **STRIPS, **RGB),
    "strips seven channels": tiff(pixels(7), planarconfig="contig", compression="zlib", **STRIPS, **GREY),
    "one bit": tiff(pixels(1) > 100, compression="packbits", **STRIPS, **GREY),
    "one bit, zero is white": tiff(pixels(1) > 100, compression="packbits", photometric="miniswhite", **STRIPS),
    "zero is white": tiff(pixels(1), compression="zlib", photometric="miniswhite", **TILES),
    "palette": tiff(pixels(1), compression="zlib", photometric="palette", colormap=COLOURS, **TILES),
    "alpha": tiff(pixels(4), compression="zlib", extrasamples=["unassalpha"], **TILES, **RGB),
    "constant alpha": tiff(
        np.dstack([pixels(3), np.full((HEIGHT, WIDTH), 255, np.uint8)]),
        compression="zlib",
        extrasamples=["unassalpha"],
        **TILES,
        **RGB,
    ),
    "cmyk": tiff(pixels(4), compression="zlib", photometric="separated", **TILES),
}
for number in range(2, 9):
    turned = [(274, 3, 1, number, True)]
    FILES[f"orientation {number}"] = tiff(pixels(3), compression="zlib", extratags=turned, **TILES, **RGB)

PARTS = [(0, HEIGHT, 0, WIDTH), (0, 1, 0, 1), (31, 33, 15, 17), (5, 70, 40, 99), (80, 83, 100, 117), (32, 64, 16, 32)]


@pytest.fixture(autouse=True)
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WHOLE_BYTES", 0)


def put(folder: Path, content: bytes, name: str = "image.tif") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("name", FILES)
def test_windows_are_parts_of_the_image(name: str, tmp_path: Path) -> None:
    path = put(tmp_path, FILES[name])
    whole = formats.read_image(path)
    source = windows.open_image(path)
    assert isinstance(source, windows.TiffSource)
    assert source.shape == whole.shape
    assert source.dtype == whole.dtype
    scale = (whole.shape[0] / HEIGHT, whole.shape[1] / WIDTH)
    for top, bottom, left, right in PARTS:
        rows = slice(round(top * scale[0]), max(round(top * scale[0]) + 1, round(bottom * scale[0])))
        columns = slice(round(left * scale[1]), max(round(left * scale[1]) + 1, round(right * scale[1])))
        np.testing.assert_array_equal(source[rows, columns], whole[rows, columns])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes", ["ZYX", "ZCYX", "TZYX", "CZYX", "ZYXS"])
def test_windows_of_a_page(axes: str, compression: str | None, tmp_path: Path) -> None:
    sizes = {"Z": 5, "T": 2, "C": 3, "S": 3, "Y": HEIGHT, "X": WIDTH}
    stack = RNG.integers(0, 65536, [sizes[axis] for axis in axes], dtype=np.uint16)
    path = tmp_path / "stack.ome.tif"
    kind = "rgb" if "S" in axes else "minisblack"
    tifffile.imwrite(path, stack, compression=compression, metadata={"axes": axes}, photometric=kind, rowsperstrip=10)
    for page in (0, formats.read_info(path).pages - 1):
        source = windows.open_image(path, page)
        np.testing.assert_array_equal(source[20:50, 30:90], formats.read_image(path, page)[20:50, 30:90])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", pillow(pixels(3), "PNG")),
        ("a.npy", npy(pixels(3))),
        ("one strip.tif", tiff(pixels(1), compression="zlib", rowsperstrip=HEIGHT, **GREY)),
    ],
)
def test_other_files_are_decoded_whole(name: str, content: bytes, tmp_path: Path) -> None:
    path = put(tmp_path, content, name)
    np.testing.assert_array_equal(windows.open_image(path)[3:9, 4:7], formats.read_image(path)[3:9, 4:7])


def test_small_images_are_decoded_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WHOLE_BYTES", HEIGHT * WIDTH * 3)
    assert isinstance(windows.open_image(put(tmp_path, FILES["tiles"])), np.ndarray)


def test_each_tile_is_decoded_once_while_it_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = windows.open_image(put(tmp_path, FILES["tiles"]))
    decoded: list[int] = []
    original = windows.tiff.Segments._decoded
    monkeypatch.setattr(
        windows.tiff.Segments, "_decoded", lambda self, index: decoded.append(index) or original(self, index)
    )
    source = windows.open_image(put(tmp_path, FILES["tiles"]))
    decoded.clear()
    for top in range(0, 60, 8):
        source[top : top + 20, 0:WIDTH]
    assert len(decoded) == len(set(decoded)) == 3 * 8 - 1  # one was seen before


def test_a_small_memory_changes_nothing(tmp_path: Path) -> None:
    path = put(tmp_path, FILES["tiles planes"])
    source = windows.open_image(path)
    source.page.remember(1)
    np.testing.assert_array_equal(source[0:HEIGHT, 0:WIDTH], formats.read_image(path))
    assert source.page.bytes_of_rows(32) == 2 * 8 * 4 * 32 * 16


def test_channels_in_several_files_are_those_of_their_files(tmp_path: Path) -> None:
    channels = RNG.integers(0, 255, (2, HEIGHT, WIDTH), dtype=np.uint8)
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0" Name="a"><Pixels '
        f'ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{WIDTH}" SizeY="{HEIGHT}" SizeC="2" SizeZ="1" '
        'SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/><Channel ID="Channel:0:1" SamplesPerPixel="1"/>'
        '<TiffData FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="c0.ome.tif">urn:uuid:0</UUID></TiffData>'
        '<TiffData FirstC="1" IFD="0" PlaneCount="1"><UUID FileName="c1.ome.tif">urn:uuid:1</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    for number in range(2):
        described = xml.replace("<OME ", f'<OME UUID="urn:uuid:{number}" ')
        tifffile.imwrite(tmp_path / f"c{number}.ome.tif", channels[number], description=described, metadata=None)
    path = tmp_path / "c0.ome.tif"
    whole = formats.read_image(path)
    np.testing.assert_array_equal(windows.open_image(path)[0:HEIGHT, 0:WIDTH], whole)


def test_a_tile_that_was_never_written_is_empty(tmp_path: Path) -> None:
    def tiles() -> object:
        for number in range(4):
            yield None if number == 2 else np.full((32, 32), number + 1, np.uint8)

    path = tmp_path / "sparse.tif"
    tifffile.imwrite(path, tiles(), shape=(64, 64), dtype=np.uint8, tile=(32, 32), compression="zlib")
    source = windows.open_image(path)
    np.testing.assert_array_equal(source[0:64, 0:64], formats.read_image(path))
    assert not source[32:64, 0:32].any()


@pytest.mark.parametrize("name", ["plain", "tiles", "strips", "tiles uncompressed"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_file_that_is_cut_short_is_named(name: str, share: float, tmp_path: Path) -> None:
    content = FILES[name]
    path = put(tmp_path, content[: round(share * len(content))])
    with pytest.raises(DataError) as caught:
        windows.open_image(path)[0:HEIGHT, 0:WIDTH]
    assert "image.tif" in str(caught.value)


def test_a_tile_that_is_damaged_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = put(tmp_path, FILES["tiles"])
    with tifffile.TiffFile(path) as file:
        start, length = file.pages.first.dataoffsets[-1], file.pages.first.databytecounts[-1]
    content = bytearray(FILES["tiles"])
    content[start : start + length] = b"\xff" * length
    path.write_bytes(content)
    source = windows.open_image(path)
    assert source[0:32, 0:16].shape == (32, 16, 3)
    with pytest.raises(DataError, match="damaged"):
        source[HEIGHT - 1 : HEIGHT, WIDTH - 1 : WIDTH]


def test_rows_in_bands_are_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    image = pixels(3)
    monkeypatch.setattr(windows, "BAND_PIXELS", 1000)
    bands = list(windows.row_bands(image))
    assert len(bands) > 5
    np.testing.assert_array_equal(np.concatenate(bands), image)
