"""The class table: what the numbers in a mask mean, and the colours they are drawn in."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict, field_validator

IGNORE = 255
"""Mask value of pixels that count neither in the loss nor in any score."""

MAX_CLASSES = 255
"""Masks are stored as one byte per pixel, and one value is taken by `IGNORE`."""

Color = tuple[int, int, int]

IGNORE_COLOR: Color = (224, 224, 224)

_MADE_UP = re.compile(r"(class|value) \d+")

# Okabe & Ito's colours (2008), which stay apart for colour-blind readers; background is black.
PALETTE: tuple[Color, ...] = (
    (0, 0, 0),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


class Category(BaseModel):
    """One class: its name and the colour, red green blue in 0..255, it is drawn in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    color: Color

    @field_validator("color")
    @classmethod
    def _in_range(cls, color: Color) -> Color:
        if not all(0 <= part <= 255 for part in color):
            raise ValueError(f"colour {color} has a part outside 0..255")
        return color


class ClassTable(BaseModel):
    """Classes in the order of their index in masks, logits and scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    categories: tuple[Category, ...]

    @field_validator("categories")
    @classmethod
    def _distinct(cls, categories: tuple[Category, ...]) -> tuple[Category, ...]:
        names = [category.name for category in categories]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"class names occur twice: {', '.join(sorted(repeated))}")
        if not 2 <= len(names) <= MAX_CLASSES:
            raise ValueError(f"{len(names)} classes; from 2 to {MAX_CLASSES} are possible")
        return categories

    @classmethod
    def from_names(cls, names: Sequence[str], colors: Sequence[Color] | None = None) -> "ClassTable":
        """A table with the given names; colours that are not given come from the default palette."""
        chosen = list(colors) if colors is not None else [default_color(i) for i in range(len(names))]
        pairs = zip(names, chosen, strict=True)
        return cls(categories=tuple(Category(name=name, color=color) for name, color in pairs))

    def __len__(self) -> int:
        return len(self.categories)

    @property
    def names(self) -> list[str]:
        """Class names by index."""
        return [category.name for category in self.categories]

    @property
    def made_up(self) -> frozenset[str]:
        """Names that nobody has given: `class 1`, `value 128`, or `object` where there are two classes."""
        alone = "object" if len(self) == 2 else None
        return frozenset(name for name in self.names if _MADE_UP.fullmatch(name) or name == alone)

    @property
    def background(self) -> int | None:
        """The class that stands for nothing: 0 where it is called background, or where there are only two classes."""
        named = self.names[0].strip().lower() in {"background", "_background_", "bg"}
        return 0 if named or len(self) == 2 else None

    def colors(self) -> UInt8[np.ndarray, "K 3"]:
        """Class colours by index, red green blue."""
        return np.array([category.color for category in self.categories], dtype=np.uint8)

    def color_table(self) -> UInt8[np.ndarray, "256 3"]:
        """A colour for each of the 256 values a mask can hold; unused ones are black."""
        table = np.zeros((256, 3), dtype=np.uint8)
        table[: len(self)] = self.colors()
        table[IGNORE] = IGNORE_COLOR
        return table


def default_color(index: int) -> Color:
    """A colour for class `index`: the palette first, then hues a golden angle apart."""
    if index < len(PALETTE):
        return PALETTE[index]
    import colorsys

    step = index - len(PALETTE)
    red, green, blue = colorsys.hsv_to_rgb((step * 0.61803398875) % 1.0, 0.85 - 0.35 * (step % 2), 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)
