"""What the readers must keep: values, orientation, pages; and what they must refuse. Referees: Pillow, tifffile."""

import contextlib
import errno
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from encoded import npy, pillow, png, tiff
from PIL import Image, ImageOps

from pixelwise.classes import IGNORE, ClassTable
from pixelwise.data import formats, writing
from pixelwise.data.masks import LOSSY_SUFFIXES
from pixelwise.errors import DataError

RANDOM = np.random.default_rng(7)
GREY = RANDOM.integers(0, 256, (13, 9), dtype=np.uint8)
RGB = RANDOM.integers(0, 256, (13, 9, 3), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (13, 9, 3), dtype=np.uint16)
CLASSES = ClassTable.from_names(["background", "cell", "nucleus"])


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


Put = Callable[[str, bytes], Path]

LOSSLESS: dict[str, tuple[bytes, np.ndarray]] = {
    "rgb.png": (pillow(RGB, "PNG"), RGB),
    "grey.png": (pillow(GREY, "PNG"), GREY[..., None]),
    "deep-grey.png": (imagecodecs.png_encode(np.ascontiguousarray(DEEP[..., 0])), DEEP[..., :1]),
    "deep-rgb.png": (imagecodecs.png_encode(DEEP), DEEP),
    "rgb.bmp": (pillow(RGB, "BMP"), RGB),
    "grey.bmp": (pillow(GREY, "BMP"), GREY[..., None]),
    "rgb.webp": (pillow(RGB, "WEBP", lossless=True), RGB),
    "rgb.ppm": (pillow(RGB, "PPM"), RGB),
    "grey.pgm": (pillow(GREY, "PPM"), GREY[..., None]),
    "grey.gif": (pillow(GREY, "GIF"), GREY[..., None].repeat(3, axis=2)),
    "rgb.tif": (tiff(RGB, photometric="rgb"), RGB),
    "big.tif": (tiff(DEEP, photometric="rgb", bigtiff=True, byteorder=">"), DEEP),
    "planar.tif": (tiff(np.moveaxis(DEEP, 2, 0), photometric="rgb", planarconfig="separate"), DEEP),
    "lzw.tif": (tiff(DEEP, photometric="rgb", compression="lzw"), DEEP),
    "zlib.tif": (tiff(GREY, compression="zlib", predictor=True), GREY[..., None]),
    "tiled.tif": (tiff(RGB, photometric="rgb", tile=(16, 16), compression="zstd"), RGB),
    "float.tif": (tiff(DEEP[..., 0].astype(np.float32) / 7), DEEP[..., :1].astype(np.float32) / 7),
    "half.tif": (tiff(GREY.astype(np.float16)), GREY[..., None].astype(np.float16)),
    "signed.tif": (tiff(DEEP[..., 0].astype(np.int32) - 40000), DEEP[..., :1].astype(np.int32) - 40000),
    "five.tif": (tiff(np.stack([GREY + i for i in range(5)], 2), planarconfig="contig"), None),  # set below
    "grey.npy": (npy(DEEP[..., 0]), DEEP[..., :1]),
    "hwc.npy": (npy(DEEP), DEEP),
    "big-endian.npy": (npy(DEEP.astype(">f4")), DEEP.astype(np.float32)),
    "fortran.npy": (npy(np.asfortranarray(RGB)), RGB),
}
LOSSLESS["five.tif"] = (LOSSLESS["five.tif"][0], np.stack([GREY + np.uint8(i) for i in range(5)], 2))


@pytest.mark.parametrize("name", LOSSLESS)
def test_every_value_and_its_type_survive(name: str, put: Put) -> None:
    data, expected = LOSSLESS[name]
    path = put(name, data)
    image = formats.read_image(path)
    assert image.dtype == expected.dtype
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("name", LOSSLESS)
def test_the_header_says_what_the_image_is(name: str, put: Put) -> None:
    data, expected = LOSSLESS[name]
    height, width, channels = expected.shape
    info = formats.read_info(put(name, data))
    # a grey GIF is grey or palette, as its writer likes; both are read as one or three equal channels
    assert info == formats.ImageInfo(height, width, info.channels, expected.dtype.name, 1)
    assert info.channels == channels or name == "grey.gif"


def test_there_is_a_reader_for_every_suffix_and_each_is_lower_case() -> None:
    assert {"png", "jpg", "jpeg", "bmp", "webp", "gif", "tif", "tiff", "npy"} <= {s[1:] for s in formats.READERS}
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in formats.READERS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_turned_upright_as_pillow_turns_them(kind: str, orientation: int, put: Put) -> None:
    path = put(f"turned.{kind.lower()}", pillow(RGB, kind, exif=oriented(orientation)))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(formats.read_image(path), expected)
    info = formats.read_info(path)
    assert (info.height, info.width) == expected.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_as_their_images_are(orientation: int, put: Put) -> None:
    mask = put("mask.png", pillow(GREY, "PNG", exif=oriented(orientation)))
    tif = put("mask.tif", tiff(GREY, extratags=[(0x0112, 3, 1, orientation, True)]))
    with Image.open(mask) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(formats.read_mask(mask), expected)
    np.testing.assert_array_equal(formats.read_mask(tif), expected)
    assert formats.read_info(tif).height == expected.shape[0]


def test_a_palette_image_is_colour_and_a_palette_mask_is_indices(put: Put) -> None:
    indices = (GREY % 5).astype(np.uint8)
    image = Image.fromarray(indices)
    colors = RANDOM.integers(0, 256, (5, 3), dtype=np.uint8)
    image.putpalette(colors.tobytes())
    for kind in ("PNG", "GIF", "TIFF"):
        file = io.BytesIO()
        image.save(file, format=kind)
        path = put(f"palette.{kind.lower()}", file.getvalue())
        np.testing.assert_array_equal(formats.read_mask(path), indices)
        np.testing.assert_array_equal(formats.read_image(path), colors[indices])
        assert formats.read_info(path).channels == 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_one_bit_is_black_and_white_as_image_and_zero_one_as_mask(kind: str, put: Put) -> None:
    bits = GREY > 99
    path = put(f"bits.{kind.lower()}", pillow(bits, kind))
    np.testing.assert_array_equal(formats.read_mask(path), bits.astype(np.uint8))
    np.testing.assert_array_equal(formats.read_image(path)[..., 0], bits.astype(np.uint8) * 255)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_png_of_few_bits_keeps_its_class_numbers(bits: int, put: Put) -> None:
    # one row of 8 pixels with the values 0 1 2 3 3 2 1 0, packed from the left
    values = [0, 1, 2, 3, 3, 2, 1, 0]
    packed = int("".join(f"{value:0{bits}b}" for value in values), 2).to_bytes(bits, "big")
    path = put("few.png", png((8, 1, bits, 0), b"\0" + packed))
    np.testing.assert_array_equal(formats.read_mask(path), [values])


def test_an_alpha_channel_is_dropped_only_if_it_is_constant(put: Put) -> None:
    constant = np.dstack([RGB, np.full(GREY.shape, 255, np.uint8)])
    varying = np.dstack([RGB, GREY])
    for name, encode in (
        ("a.png", lambda pixels: pillow(pixels, "PNG")),
        ("a.tif", lambda p: tiff(p, extrasamples=[2], photometric="rgb")),
    ):
        np.testing.assert_array_equal(formats.read_image(put(name, encode(constant))), RGB)
        np.testing.assert_array_equal(formats.read_image(put(name, encode(varying))), varying)
    assert formats.read_info(put("a.png", pillow(constant, "PNG"))).channels == 4


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_where_a_mask_is_transparent_it_is_background(kind: str, put: Put) -> None:
    colors = np.full((6, 6, 3), 90, np.uint8)  # what programs leave under transparency is anything
    colors[:2], colors[2:4] = (255, 0, 0), (0, 255, 0)
    alpha = np.zeros((6, 6), np.uint8)
    alpha[:2], alpha[2:4] = 255, 77
    expected = np.where(alpha[..., None] > 0, colors, 0)
    data = tiff(np.dstack([colors, alpha]), photometric="rgb", extrasamples=[2])
    if kind != "TIFF":
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        data = pillow(np.dstack([colors, alpha]), kind, **options)
    np.testing.assert_array_equal(formats.read_mask(put(f"a.{kind.lower()}", data)), expected)


def test_a_grey_mask_with_transparency_keeps_its_values(put: Put) -> None:
    grey = np.array([[7, 7], [3, 3]], np.uint8)
    alpha = np.array([[255, 0], [255, 0]], np.uint8)
    path = put("a.png", pillow(np.dstack([grey, alpha]), "PNG"))
    np.testing.assert_array_equal(formats.read_mask(path), [[7, 0], [3, 0]])


def test_a_black_object_on_transparency_is_refused_by_name(put: Put) -> None:
    alpha = np.array([[255, 0], [255, 0]], np.uint8)
    path = put("a.png", pillow(np.dstack([alpha * 0, alpha * 0, alpha * 0, alpha]), "PNG"))
    with pytest.raises(DataError, match="black wherever it is not transparent") as caught:
        formats.read_mask(path)
    assert caught.value.where == path


def test_a_fourth_band_that_is_no_alpha_stays_even_if_constant(put: Put) -> None:
    bands = np.dstack([DEEP, np.full(GREY.shape, 9, np.uint16)])
    path = put("bands.tif", tiff(bands, photometric="minisblack", planarconfig="contig", extrasamples=[0, 0, 0]))
    np.testing.assert_array_equal(formats.read_image(path), bands)


def test_cmyk_becomes_rgb(put: Put) -> None:
    jpeg = put("ink.jpg", pillow(np.full((8, 8, 3), (200, 30, 30), np.uint8), "JPEG", "CMYK", quality=98))
    assert np.abs(formats.read_image(jpeg).astype(int) - (200, 30, 30)).max() < 6
    inks = np.zeros((4, 4, 4), np.uint8)
    inks[..., 1] = 255  # magenta is no green
    path = put("ink.tif", tiff(inks, photometric="separated"))
    np.testing.assert_array_equal(formats.read_image(path), np.broadcast_to((255, 0, 255), (4, 4, 3)))


def test_zero_is_white_images_are_inverted_and_masks_keep_their_numbers(put: Put) -> None:
    for pixels in (GREY, DEEP[..., 0]):
        path = put("negative.tif", tiff(pixels, photometric="miniswhite"))
        largest = np.iinfo(pixels.dtype).max
        np.testing.assert_array_equal(formats.read_image(path)[..., 0], largest - pixels)
        np.testing.assert_array_equal(formats.read_mask(path), pixels)


def test_a_fax_bit_mask_is_read_as_pillow_shows_it(put: Put) -> None:
    bits = GREY > 99
    path = put("fax.tif", pillow(bits, "TIFF", compression="group4"))
    with Image.open(path) as image:
        np.testing.assert_array_equal(formats.read_mask(path), np.asarray(image).astype(np.uint8))


STACK = RANDOM.integers(0, 60000, (7, 13, 29), dtype=np.uint16)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"metadata": {"axes": "TYX"}},
        {"metadata": None},
    ],
)
def test_a_stack_has_pages_and_each_can_be_read(options: dict[str, object], put: Put) -> None:
    path = put("stack.tif", tiff(STACK, photometric="minisblack", **options))
    assert formats.read_info(path) == formats.ImageInfo(13, 29, 1, "uint16", 7)
    assert formats.page_count(path) == 7
    for page in range(7):
        np.testing.assert_array_equal(formats.read_image(path, page)[..., 0], STACK[page])
        np.testing.assert_array_equal(formats.read_mask(path, page), STACK[page])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_channels_that_are_stored_as_planes_belong_to_one_page(kind: str, compression: str | None, put: Put) -> None:
    planes = RANDOM.integers(0, 60000, (4, 3, 13, 29), dtype=np.uint16)  # Z C Y X
    path = put(
        "zcyx.tif",
        tiff(planes, photometric="minisblack", compression=compression, metadata={"axes": "ZCYX"}, **{kind: True}),
    )
    assert formats.read_info(path) == formats.ImageInfo(13, 29, 3, "uint16", 4)
    for page in range(4):
        np.testing.assert_array_equal(formats.read_image(path, page), np.moveaxis(planes[page], 0, 2))


def test_ome_channels_before_time_are_found_too(put: Put) -> None:
    planes = RANDOM.integers(0, 60000, (2, 5, 13, 29), dtype=np.uint16)  # C T Y X
    path = put(
        "ctyx.ome.tif", tiff(planes, photometric="minisblack", compression="zlib", ome=True, metadata={"axes": "CTYX"})
    )
    assert formats.read_info(path).pages == 5
    np.testing.assert_array_equal(formats.read_image(path, 3), np.moveaxis(planes[:, 3], 0, 2))


def test_up_to_four_planes_without_a_name_are_channels(put: Put) -> None:
    planes = STACK[:4]
    image = formats.read_image(put("planes.tif", tiff(planes, photometric="minisblack")))
    np.testing.assert_array_equal(image, np.moveaxis(planes, 0, 2))
    named = put("named.tif", tiff(planes, photometric="minisblack", metadata={"axes": "ZYX"}))
    assert formats.read_info(named).pages == 4


def test_rows_that_were_saved_as_pages_are_rows(put: Put) -> None:
    pixels = RANDOM.integers(0, 255, (40, 50, 6), dtype=np.uint8)
    path = put("hwc.tif", tiff(pixels, photometric="minisblack"))  # 40 pages of 50 x 6
    np.testing.assert_array_equal(formats.read_image(path), pixels)


def test_smaller_copies_in_a_tiff_are_passed_over(put: Put) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(STACK[0], photometric="minisblack")
        writer.write(STACK[0, ::2, ::2], photometric="minisblack", subfiletype=1)
    path = put("pyramid.tif", file.getvalue())
    np.testing.assert_array_equal(formats.read_image(path)[..., 0], STACK[0])


def test_pages_of_different_sizes_are_refused(put: Put) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(STACK[0, ::2], photometric="minisblack")
        writer.write(STACK[0], photometric="minisblack")
    with pytest.raises(DataError, match="differ"):
        formats.read_image(put("mixed.tif", file.getvalue()))


def test_frames_of_an_animation_are_pages(put: Put) -> None:
    frames = [Image.fromarray(np.full((5, 6, 3), value, np.uint8)) for value in (10, 120, 250)]
    file = io.BytesIO()
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:])
    path = put("film.gif", file.getvalue())
    assert formats.page_count(path) == 3
    assert [int(formats.read_image(path, page).mean()) for page in range(3)] == [10, 120, 250]


@pytest.mark.parametrize("page", [None, -1, 7])
def test_a_page_that_is_not_there_or_not_chosen_is_an_error(page: int | None, put: Put) -> None:
    path = put("stack.tif", tiff(STACK, photometric="minisblack"))
    with pytest.raises(DataError, match="7"):
        formats.read_image(path, page)


def test_arrays_say_their_axes_by_their_lengths(put: Put) -> None:
    first = RANDOM.integers(0, 9, (4, 20, 30))
    np.testing.assert_array_equal(formats.read_image(put("chw.npy", npy(first))), np.moveaxis(first, 0, 2))
    pages = RANDOM.integers(0, 9, (17, 20, 30))
    path = put("pages.npy", npy(pages))
    assert formats.page_count(path) == 17
    np.testing.assert_array_equal(formats.read_mask(path, 16), pages[16])


@pytest.mark.parametrize("dtype", [bool, np.complex64])
def test_truth_values_and_complex_numbers_are_no_image(dtype: type, put: Put) -> None:
    with pytest.raises(DataError, match="no image"):
        formats.read_image(put("odd.npy", npy(GREY.astype(dtype))))


def test_truth_values_are_a_mask(put: Put) -> None:
    np.testing.assert_array_equal(formats.read_mask(put("m.npy", npy(GREY > 9))), (GREY > 9).astype(np.uint8))


def test_pickled_objects_are_never_loaded(put: Put) -> None:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError):
        formats.read_image(put("object.npy", file.getvalue()))


def test_negative_and_large_mask_values_survive(put: Put) -> None:
    values = np.array([[-1, 0, 3], [70000, 2, -1]], dtype=np.int64)
    for name, data in (("m.tif", tiff(values)), ("m.npy", npy(values))):
        mask = formats.read_mask(put(name, data))
        assert mask.dtype == np.int64
        np.testing.assert_array_equal(mask, values)


def test_real_numbers_that_are_whole_are_a_mask_and_others_are_not(put: Put) -> None:
    whole = put("whole.tif", tiff(np.array([[0.0, 2.0], [255.0, -1.0]])))
    mask = formats.read_mask(whole)
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask, [[0, 2], [255, -1]])
    for bad, words in (
        (0.5, "not whole"),
        (np.nan, "NaN or infinite.*such as 255"),
        (np.inf, "NaN or infinite.*whole"),
    ):
        with pytest.raises(DataError, match=words):
            formats.read_mask(put("bad.tif", tiff(np.array([[0.0, bad]]))))


def test_a_colour_mask_whose_channels_are_equal_is_grey(put: Put) -> None:
    equal = np.repeat(GREY[..., None], 3, axis=2)
    np.testing.assert_array_equal(formats.read_mask(put("grey.png", pillow(equal, "PNG"))), GREY)
    opaque = np.dstack([equal, np.full(GREY.shape, 255, np.uint8)])
    np.testing.assert_array_equal(formats.read_mask(put("rgba.png", pillow(opaque, "PNG"))), GREY)
    equal[0, 0, 1] ^= 1
    np.testing.assert_array_equal(formats.read_mask(put("colour.png", pillow(equal, "PNG"))), equal)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jpg", pillow(RGB, "PNG")),
        ("a.png", tiff(RGB, photometric="rgb")),
        ("a.tif", pillow(RGB, "BMP")),
        ("a.npy", pillow(RGB, "PNG")),
        ("a.bmp", npy(RGB)),
    ],
)
def test_content_decides_not_the_suffix(name: str, data: bytes, put: Put) -> None:
    np.testing.assert_array_equal(formats.read_image(put(name, data)), RGB)


TRUNCATED = {
    "a.png": pillow(RGB, "PNG"),
    "bits.png": pillow(GREY > 9, "PNG"),
    "deep.png": imagecodecs.png_encode(DEEP),
    "a.jpg": pillow(RGB, "JPEG"),
    "progressive.jpg": pillow(RGB, "JPEG", progressive=True),
    "a.bmp": pillow(RGB, "BMP"),
    "a.webp": pillow(RGB, "WEBP"),
    "a.gif": pillow(GREY, "GIF"),
    "a.ppm": pillow(RGB, "PPM"),
    "a.tif": tiff(RGB, photometric="rgb"),
    "stack.tif": tiff(STACK, photometric="minisblack"),
    "stack-zlib.tif": tiff(STACK, photometric="minisblack", compression="zlib"),
    "lzw.tif": tiff(RGB, photometric="rgb", compression="lzw"),
    "jpeg.tif": tiff(np.repeat(np.repeat(RGB, 8, 0), 8, 1), photometric="rgb", compression="jpeg"),
    "tiled.tif": tiff(RGB, photometric="rgb", tile=(16, 16)),
    "pillow.tif": pillow(RGB, "TIFF", compression="tiff_lzw"),
    "fax.tif": pillow(GREY > 99, "TIFF", compression="group4"),
    "a.npy": npy(RGB),
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_file_that_is_cut_anywhere_is_an_error_or_whole(name: str, put: Put) -> None:
    data = TRUNCATED[name]
    path = put(name, data)
    page = formats.read_info(path).pages - 1 or None
    whole = formats.read_image(path, page)
    failures = 0
    for length in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:length])
        try:
            image = formats.read_image(path, page)
        except DataError as error:
            failures += error.where == path and bool(error.remedy)
        else:
            np.testing.assert_array_equal(image, whole)
    assert failures > 20


@pytest.mark.parametrize("suffix", formats.READERS)
@pytest.mark.parametrize("data", [b"", b"not an image at all, only text" * 9, b"II*\0junk", b"\x93NUMPY\1\0junk"])
def test_a_file_that_is_no_image_is_an_error_with_its_name_and_a_remedy(suffix: str, data: bytes, put: Put) -> None:
    path = put(f"bad{suffix}", data)
    for read in (formats.read_image, formats.read_mask, formats.read_info):
        with pytest.raises(DataError) as caught:
            read(path)
        assert caught.value.where == path
        assert caught.value.remedy


def test_random_damage_never_gives_another_kind_of_error(put: Put) -> None:
    for name, data in TRUNCATED.items():
        for _ in range(20):
            damaged = bytearray(data)
            for at in RANDOM.integers(0, len(data), 4):
                damaged[at] = int(RANDOM.integers(0, 256))
            path = put(name, bytes(damaged))
            for read in (formats.read_image, formats.read_mask, formats.page_count):
                with contextlib.suppress(DataError):
                    read(path)


@pytest.mark.parametrize("limit", [20, 100])  # 13 x 9 pixels are above twice the first, and above the second
def test_pillows_limit_of_pixels_does_not_hold(limit: int, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {kind: put(f"a.{kind}", pillow(RGB, kind)) for kind in ("png", "bmp", "gif", "ppm", "jpeg")}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in paths.values():
            assert formats.read_image(path).shape == RGB.shape
            assert formats.read_info(path).width == 9
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG"])
def test_jpeg_has_several_names(suffix: str, put: Put) -> None:
    path = put(f"a{suffix}", pillow(RGB, "JPEG"))
    assert formats.READERS[suffix.lower()].info(path) == formats.read_info(path)
    assert formats.READERS.keys() >= LOSSY_SUFFIXES


def test_pages_of_a_file_that_cannot_be_read_are_unknown(put: Put) -> None:
    assert formats.page_count(put("a.tif", b"II*\0junk")) is None
    assert formats.page_count(put("b.gif", b"")) is None


def test_a_header_that_promises_too_many_pixels_is_refused(put: Put) -> None:
    with pytest.raises(DataError, match="promises"):
        formats.read_image(put("bomb.png", png((60000, 60000, 8, 2), b"\0")))
    entries = [
        (256, 4, 60000),
        (257, 4, 60000),
        (258, 3, 8),
        (259, 3, 8),
        (262, 3, 1),
        (273, 4, 200),
        (277, 3, 1),
        (278, 4, 60000),
        (279, 4, 20),
    ]
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    bomb = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)
    with pytest.raises(DataError, match="promises"):
        formats.read_image(put("bomb.tif", bomb.ljust(400, b"\0") + zlib.compress(bytes(99))))


def test_colours_of_another_kind_are_refused(put: Put) -> None:
    with pytest.raises(DataError, match="CIELAB"):
        formats.read_image(put("lab.tif", tiff(RGB, photometric="cielab")))


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.png"):
        with pytest.raises(DataError, match=path.name):
            formats.read_image(path)


def test_many_threads_read_what_one_reads(put: Put) -> None:
    paths = [put(name, data) for name, (data, _) in LOSSLESS.items()]
    alone = [formats.read_image(path) for path in paths]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(formats.read_image, paths * 20))
    for index, image in enumerate(together):
        np.testing.assert_array_equal(image, alone[index % len(paths)])


# Writing


MASK = np.array([[0, 1, 2, IGNORE], [2, 2, 1, 0]], dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
def test_a_mask_is_written_with_its_numbers_and_colours(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"mask{suffix}"
    writing.write_mask(path, MASK, CLASSES)
    np.testing.assert_array_equal(formats.read_mask(path), MASK)
    with Image.open(path) as image:  # referee
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), MASK)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), CLASSES.color_table()[MASK])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_tiff_mask_is_compressed(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    writing.write_mask(path, np.zeros((700, 900), np.uint8), CLASSES)
    assert path.stat().st_size < 20_000
    assert formats.read_mask(path).shape == (700, 900)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_picture_is_written_as_it_is(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture{suffix}"
    writing.write_picture(path, RGB)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), RGB)


@pytest.mark.parametrize("suffix", [".jpg", ".gif", ""])
def test_a_mask_is_never_written_in_a_format_that_changes_it(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        writing.write_mask(tmp_path / f"mask{suffix}", MASK, CLASSES)


@pytest.mark.parametrize(
    ("code", "word"), [(errno.ENOSPC, "Free some space"), (errno.EACCES, "may write to"), (errno.EIO, "another")]
)
def test_a_failed_write_keeps_the_old_file_and_leaves_no_rubbish(
    code: int, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mask.png"
    writing.write_mask(path, MASK, CLASSES)
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DataError, match=word) as caught:
        writing.write_mask(path, 2 - np.minimum(MASK, 2), CLASSES)
    assert caught.value.where == path
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        writing.write_picture(tmp_path / "missing" / "a.png", RGB)


def test_a_picture_that_the_format_cannot_hold_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written") as caught:
        writing.write_picture(tmp_path / "a.jpg", np.zeros((1, 70_000, 3), np.uint8))
    assert caught.value.where == tmp_path / "a.jpg"
    assert not list(tmp_path.iterdir())


@pytest.mark.realdata
def test_the_odd_real_files_are_read_as_their_notes_say(realdata: Path) -> None:
    zoo = realdata / "format_zoo"
    assert set(np.unique(formats.read_mask(zoo / "uhcs_int64/labels_original_int64/uhcs0007.tif"))) == {-1, 0, 1, 2, 3}
    assert formats.read_info(zoo / "stardist_tiff/img3d.tif") == formats.ImageInfo(61, 57, 1, "uint16", 31)
    assert formats.read_info(zoo / "spacenet_geotiff/ms1_4band_float64_nolabel.tif").channels == 4
    flipped = realdata / "retina_vessels/drive_messy/training"
    assert set(np.unique(formats.read_mask(flipped / "1st_manual/21_manual1.gif"))) == {0, 251}
    assert formats.read_image(flipped / "images/21_training.tif").shape == (584, 565, 3)
    bits = formats.read_mask(realdata / "retina_vessels/chase_db1/Image_01L_1stHO.png")
    assert set(np.unique(bits)) == {0, 1}
    npy_mask = formats.read_mask(zoo / "labelme_voc_coco/data_dataset_voc/SegmentationClassNpy/2011_000003.npy")
    png_mask = formats.read_mask(zoo / "labelme_voc_coco/data_dataset_voc/SegmentationClass/2011_000003.png")
    np.testing.assert_array_equal(np.where(npy_mask < 0, 255, npy_mask), png_mask)
