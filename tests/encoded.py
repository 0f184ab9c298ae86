"""The bytes of image files, as tests and the fuzzer need them."""

import io
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image


def pillow(pixels: np.ndarray, kind: str, mode: str | None = None, **options: object) -> bytes:
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, format=kind, **options)
    return file.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def npy(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    """Length, name, data and checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(header: tuple[int, int, int, int], rows: bytes) -> bytes:
    """A PNG by hand: width, height, bits, colour type; rows begin with their filter byte."""
    begin = struct.pack(">IIBBBBB", *header, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", begin)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )
