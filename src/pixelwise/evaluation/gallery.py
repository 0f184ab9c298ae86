"""Small pictures of every scored image, for the report: the image, and masks and errors as layers to lay over it."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped, UInt8

from pixelwise.classes import IGNORE, ClassTable
from pixelwise.data.preprocess import resize_mask
from pixelwise.evaluation import figures

MOST = 1000
"""Of more images, the worst ones have pictures."""

EDGES_PX = ((100, 320), (400, 224), (MOST, 160))
"""Longest edge of the pictures where there are no more images than this: a report stays below 25 MB."""

WRONG = (225, 29, 72)
"""Colour of wrong pixels."""


@dataclass(frozen=True)
class Thumbnail:
    """Pictures of one image, as text for data URLs: WebP and PNG in base64."""

    photo: str
    truth: str
    prediction: str
    errors: str
    size: tuple[int, int]
    """Height and width of the pictures, in pixels."""


def edge_px(images: int) -> int:
    """The longest edge of the pictures of so many images."""
    return next((edge for most, edge in EDGES_PX if images <= most), EDGES_PX[-1][1])


def thumbnail(
    image: Shaped[np.ndarray, "H W C"],
    truth: UInt8[np.ndarray, "H W"],
    prediction: UInt8[np.ndarray, "H W"],
    classes: ClassTable,
    edge: int,
) -> Thumbnail:
    """Make the pictures of one image.

    Args:
        image: raw values; it may be mapped from a file, and is never read whole where it is large.
        truth: class index or IGNORE.
        prediction: class index.
        classes: for the colours.
        edge: the longest one of the pictures, in pixels.
    """
    height, width = truth.shape
    factor = min(1.0, edge / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    true, predicted = (resize_mask(mask, size) for mask in (truth, prediction))
    wrong = (true != predicted) & (true != IGNORE)
    table = classes.color_table()
    clear = classes.background
    return Thumbnail(
        photo=_text(figures.encode(_photo(image, size), quality=75)),
        truth=_text(_layer(true, table, clear)),
        prediction=_text(_layer(predicted, table, clear)),
        errors=_text(_layer(wrong.astype(np.uint8), np.array([(0, 0, 0), WRONG], dtype=np.uint8), 0)),
        size=size,
    )


def _photo(image: Shaped[np.ndarray, "H W C"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image

    steps = [max(1, edge // (2 * wanted)) for edge, wanted in zip(image.shape[:2], size, strict=True)]
    shown = figures.to_display(np.ascontiguousarray(image[:: steps[0], :: steps[1]]))
    return np.asarray(Image.fromarray(shown).resize(size[::-1], Image.Resampling.BOX))


def _layer(mask: UInt8[np.ndarray, "h w"], table: UInt8[np.ndarray, "n 3"], clear: int | None) -> bytes:
    """A PNG with a palette, one of whose entries is transparent."""
    from PIL import Image

    picture = Image.fromarray(mask, mode="P")
    picture.putpalette(table.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True, **({} if clear is None else {"transparency": clear}))
    return buffer.getvalue()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
