"""The nouns of this room: a case, how its mask is encoded, and the data set they make."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from pixelwise.classes import ClassTable, Color
from pixelwise.data.nifti import Axis

SplitName = Literal["train", "validation", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "validation", "test")


Window = tuple[int, int, int, int]
"""Top, left, height and width."""


@dataclass(frozen=True)
class Case:
    """One image and where its mask comes from."""

    name: str
    """Unique in the data set: path below the root without suffix, '/' between folders."""
    image: Path
    masks: tuple[Path, ...] = ()
    """Files that hold the mask, at least one in a data set; several are united."""
    parts: tuple[str, ...] = ()
    """The name of the class of each of these files, where each class has files of its own."""
    page: int | None = None
    """Page of a multi-page file that holds a stack of images; none for the only one."""
    window: Window | None = None
    """The part of an image that is too large to be decoded whole; none for all of it."""
    split: SplitName | None = None
    """Given by the folder; none leaves it to `data.split`."""
    group: str = ""
    """A split that is drawn keeps a group on one side; empty means a group of its own."""
    channels: tuple[Path, ...] = ()
    """Files with its other channels, where each has one of its own."""


class MaskEncoding(BaseModel):
    """How the values of mask files become class indices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["values", "colors", "instances", "union", "files", "layers", "labelme", "coco", "yolo"]
    """`values`: a table from raw value to class; `colors`: from colour to class, indices through the palette of their
    file; `instances`: every value above 0 is class 1; `union`: several files, every value above 0 is class 1; `files`:
    several files, every value above 0 is the class of the file; `layers`: one channel per class, in order, from class
    1; the others are polygons, a table from label to class."""
    values: Mapping[int, int] = {}
    """Raw value to class index or IGNORE (`values`); category id to class (`coco`, `yolo`)."""
    colors: Mapping[Color, int] = {}
    """Colour to class index or IGNORE (`colors`)."""
    labels: Mapping[str, int] = {}
    """Label to class index or IGNORE (`labelme`); name of a class in `Case.parts` to its index (`files`)."""
    nearest: bool = False
    """Values or colours that are not in the table count as the nearest one (masks stored as JPEG)."""
    other: int | None = None
    """Class index or IGNORE of values that are not in the table, and of pixels that `files` of two classes claim; none
    makes them an error."""
    description: str = ""
    """One line that says what was detected, for the user."""

    @property
    def tables(self) -> dict[str, Any]:
        """All that decides how masks are decoded: not the description, which is for people."""
        return self.model_dump(exclude={"description"})

    @field_validator("colors", mode="before")
    @classmethod
    def _from_json(cls, colors: object) -> object:
        """Colours as keys of JSON, which must be text: '255,0,0', as `model_dump(mode="json")` writes them."""
        if not isinstance(colors, Mapping):
            return colors
        return {tuple(key.split(",")) if isinstance(key, str) else key: index for key, index in colors.items()}


@dataclass(frozen=True)
class Dataset:
    """All cases of a folder, their classes, and what was detected."""

    root: Path
    cases: tuple[Case, ...]
    classes: ClassTable
    encoding: MaskEncoding
    layout: str
    """One line that says which folder layout was found."""
    notices: tuple[str, ...] = ()
    """What the user should know of what was detected: one sentence each."""
    unpaired: tuple[Path, ...] = field(default=())
    """Image files without mask and mask files without image."""
    slices: Axis | None = None
    """Axis of volumes across which slices are taken, where it was chosen."""
    named: bool = False
    """The user, a list or the annotations name the classes; else the names were made up from values or colours."""
    listed: bool = False
    """A list of classes that lay beside the masks gave these names, and not the user."""
