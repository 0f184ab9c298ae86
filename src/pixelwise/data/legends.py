"""Lists of classes that other programs write beside the masks: what they say, and whether the masks agree.

Such a list names values (`_classes.csv` of Roboflow, `label_names.txt` and `class_names.txt` of labelme) or colours
(`labelmap.txt` of CVAT, `class_dict.csv` of CamVid and DeepGlobe). It holds only where it names all that the masks
hold; else it is not used, and a notice says why. Two lists that give one value two names cannot both be right: that is
an error.

**Classes that are listed and in no mask** are kept where the list goes by value: the value is the index of the class,
in these masks as in those of a colleague. Where it goes by colour they are left out: their index means nothing outside
of the model, and a class that never occurs cannot be learnt.
"""

import csv
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pixelwise.classes import IGNORE, MAX_CLASSES, Color
from pixelwise.data.dataset import Case
from pixelwise.data.listing import some
from pixelwise.data.masks import shortened, unpack_color
from pixelwise.data.polygons import BACKGROUND_LABELS, IGNORED_LABELS
from pixelwise.data.rules import VOID_VALUES
from pixelwise.data.survey import Survey, near
from pixelwise.errors import DataError

_MOST_UNLISTED = 0.05
"""Blurred edges have some pixels of colours that are no class; more are a class that the list lacks."""


@dataclass(frozen=True)
class Legend:
    """What one or several equal lists say."""

    source: str
    """The files, for the user."""
    by: Literal["value", "color"]
    names: Mapping[int, str]
    """By value, or by colour as 0xRRGGBB, in the order of the list."""

    def said(self, key: int) -> str:
        """A value or colour, for the user."""
        return str(unpack_color(key) if self.by == "color" else key)


@dataclass(frozen=True)
class Fitted:
    """A legend that agrees with the masks, in the words of a data.yaml."""

    names: tuple[str, ...]
    colors: tuple[Color, ...] | None = None
    values: Mapping[int, int | str] | None = None
    ignore_colors: tuple[Color, ...] = ()
    absent: tuple[str, ...] = ()
    """Classes that are left out because no mask holds their colour."""


class _UnclearError(Exception):
    """A list that cannot be understood; the message says why."""


# Finding -----------------------------------------------------------------------------------------------------------


def find(root: Path, folders: Collection[tuple[str, ...]]) -> tuple[Legend | None, tuple[str, ...]]:
    """The list of classes in these folders or above them, and what is to be known of lists that are not used.

    Args:
        root: the top folder.
        folders: those of images and masks, below it.

    Raises:
        DataError: two lists give one value two names, or one name two values.
    """
    places = sorted({folder[:depth] for folder in folders for depth in range(len(folder) + 1)})
    found: dict[str, Legend] = {}
    unclear: dict[str, list[str]] = {}
    for place in places:
        for name, (by, parse) in _PARSERS.items():
            path, posix = root.joinpath(*place, name), "/".join((*place, name))
            if path.is_file():
                try:
                    found[posix] = Legend(posix, by, _distinct(parse(_lines(path))))
                except _UnclearError as error:
                    unclear.setdefault(str(error), []).append(posix)
    notices = [f"The classes in {some(files)} were not used: {why}." for why, files in unclear.items()]
    if len({legend.by for legend in found.values()}) > 1:
        notices.append(f"The classes in {some(found)} were not used: some go by value and some by colour.")
        return None, tuple(notices)
    return (_united(root, found) if found else None), tuple(notices)


def _united(root: Path, found: Mapping[str, Legend]) -> Legend:
    """What all lists say together."""
    names: dict[int, str] = {}
    origin: dict[int, str] = {}
    keys: dict[str, int] = {}
    for file, legend in found.items():
        for key, name in legend.names.items():
            if names.setdefault(key, name) != name:
                raise _contradiction(root, f"{legend.said(key)} is '{names[key]}' in {origin[key]}, '{name}' in {file}")
            if keys.setdefault(name, key) != key:
                other = keys[name]
                what = f"'{name}' is {legend.said(other)} in {origin[other]}, {legend.said(key)} in {file}"
                raise _contradiction(root, what)
            origin.setdefault(key, file)
    return Legend(some(found), next(iter(found.values())).by, names)


def _contradiction(root: Path, what: str) -> DataError:
    return DataError(
        f"The lists of classes contradict each other: {what}, so that equal masks would mean different things.",
        where=root,
        remedy="Export all masks with one list of classes. If a list is wrong or of no use, delete it, or declare "
        "`names` in a data.yaml, which wins.",
    )


# Reading -----------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise _UnclearError("the file cannot be read") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _distinct(entries: Sequence[tuple[int, str]]) -> dict[int, str]:
    table: dict[int, str] = {}
    names: set[str] = set()
    for key, name in entries:
        if not name:
            raise _UnclearError("a class in it has no name")
        called = "background" if name.lower() in BACKGROUND_LABELS else name
        if key in table or called in names:
            raise _UnclearError(f"'{name}', or what it stands for, is in it twice")
        table[key] = called
        names.add(called)
    if not table:
        raise _UnclearError("it lists no class")
    return table


def _roboflow(lines: Sequence[str]) -> list[tuple[int, str]]:
    """`Pixel Value, Class`, then a value and a name in each line."""
    rows = _rows(lines, 2)
    entries = [(_number(value), name) for value, name in rows[1:]]
    largest = max((abs(value) for value, _ in entries), default=0)
    if largest >= 2**32:
        raise _UnclearError(f"no mask can hold {largest}")
    return entries


def _class_dict(lines: Sequence[str]) -> list[tuple[int, str]]:
    """`name,r,g,b`, then a name and a colour in each line."""
    head, *rows = _rows(lines, 4)
    if [word[:1].lower() for word in head[1:]] != ["r", "g", "b"]:
        raise _UnclearError(f"its first line is '{lines[0]}' and not 'name,r,g,b'")
    return [(_color(parts), name) for name, *parts in rows]


def _labelmap(lines: Sequence[str]) -> list[tuple[int, str]]:
    """`label:red,green,blue:parts:actions` in each line."""
    entries: list[tuple[int, str]] = []
    for line in lines:
        if not line.startswith("#"):
            fields = line.rsplit(":", 3)
            if len(fields) < 4:
                raise _UnclearError(f"'{line}' is not of the form label:red,green,blue:parts:actions")
            entries.append((_color(fields[1].split(",")), fields[0].strip()))
    return entries


def _labelme(lines: Sequence[str]) -> list[tuple[int, str]]:
    """A name in each line, in the order of the values from 0; `__ignore__` comes before them."""
    first = -1 if lines and lines[0] == "__ignore__" else 0
    if len(lines) <= -first or lines[-first].lower() not in BACKGROUND_LABELS:
        # lists for detectors look the same and begin with the first object
        raise _UnclearError("it does not begin with _background_, so that it does not say which value is 0")
    return list(enumerate(lines, start=first))


_PARSERS: dict[str, tuple[Literal["value", "color"], Callable[[Sequence[str]], list[tuple[int, str]]]]] = {
    "_classes.csv": ("value", _roboflow),
    "labelmap.txt": ("color", _labelmap),
    "class_dict.csv": ("color", _class_dict),
    "label_names.txt": ("value", _labelme),
    "class_names.txt": ("value", _labelme),
}


def _rows(lines: Sequence[str], width: int) -> list[list[str]]:
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
    except csv.Error as error:
        raise _UnclearError(f"it is no table ({error})") from None
    wrong = next((row for row in rows if len(row) != width), None)
    if wrong is not None or not rows:
        raise _UnclearError(f"'{','.join(wrong or [])}' does not have {width} columns")
    return rows


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _UnclearError(f"'{text}' is no whole number") from None


def _color(parts: Sequence[str]) -> int:
    if len(parts) != 3 or not all(0 <= _number(part) <= 255 for part in parts):
        raise _UnclearError(f"'{','.join(parts)}' is no colour of three numbers from 0 to 255")
    red, green, blue = map(_number, parts)
    return red << 16 | green << 8 | blue


# Whether the masks agree -------------------------------------------------------------------------------------------


def fit(
    legend: Legend, cases: Sequence[Case], survey: Survey, main: Collection[int], void: Collection[int]
) -> Fitted | str:
    """A legend in the words of a data.yaml, or why it does not fit the masks.

    Args:
        legend: what the list says.
        cases: with their masks.
        survey: what the masks hold.
        main: of masks in colour, the colours that would be classes without the list, as 0xRRGGBB.
        void: values, or colours as 0xRRGGBB, that the user says do not count.
    """
    named = {key: name for key, name in legend.names.items() if key not in void}
    if survey.kind == "layers":
        return "the masks hold one channel per class"
    if any(len(case.masks) > 1 for case in cases):
        return "images have several mask files"
    clean = survey.without(void)
    if not clean.values:
        return "the masks hold nothing that counts"
    if survey.kind == "color" and legend.by == "color":
        return _to_colors(named, clean, set(main).difference(void))
    if survey.kind == "color":
        return "it lists values, and the masks hold colours"
    return _to_values(named, clean) if legend.by == "value" else _to_palette(named, clean)


def _to_values(named: Mapping[int, str], survey: Survey) -> Fitted | str:
    """Names by value."""
    outside = [value for value in survey.values if value not in named and value not in VOID_VALUES]
    if outside:
        return f"it does not list {_such(outside, survey)}"
    listed = [value for value in survey.values if value in named]
    if len(listed) < 2:
        return f"of the values {shortened(survey.values)} of the masks it lists {len(listed)}"
    order = [value for value in sorted(named) if not _is_void(named[value])]
    if len(order) > MAX_CLASSES:
        return f"it lists {len(order)} classes, and there can be {MAX_CLASSES}"
    names = tuple(named[value] for value in order)
    ignored: dict[int, int | str] = {value: "ignore" for value in named if value not in order and value >= 0}
    if order == list(range(len(order))):
        return Fitted(names, values=ignored or None)
    return Fitted(names, values={**{value: named[value] for value in order}, **ignored, **_unlisted(named, survey)})


def _to_colors(named: Mapping[int, str], survey: Survey, main: Collection[int]) -> Fitted | str:
    """Names by colour, of masks in colour; with JPEG, colours lie around those that are meant."""
    around = {color: near(survey, [color]) if survey.lossy_files else [color] for color in named}
    unlisted = set(survey.values).difference(*around.values())
    outside = sorted(unlisted.intersection(main))
    if outside:
        return f"it does not list {_such(outside, survey, is_color=True)}"
    share = sum(survey.share(color) for color in unlisted)
    if share > _MOST_UNLISTED and not survey.lossy_files:
        return f"{share:.1%} of the mask pixels have colours that it does not list"
    held = set(main) if survey.lossy_files else set(survey.values)
    present = [color for color in named if held.intersection(around[color])]
    return _of_colors(named, present)


def _to_palette(named: Mapping[int, str], survey: Survey) -> Fitted | str:
    """Names by colour, of masks that hold indices into a palette, or grey values, which are colours, too."""
    values = survey.values
    if values[0] < -1 or (values[-1] > 255 and values[-1] not in VOID_VALUES):
        return f"it lists colours, and the masks hold the values {shortened(values)}"
    byte = [value for value in values if 0 <= value <= 255]
    colors = _shown_colors(survey, byte)
    if colors is None:
        return "it lists colours, and the palettes of the masks differ"
    outside = [value for value, color in zip(byte, colors, strict=True) if color not in named and value != IGNORE]
    if outside:
        which = "of which" if colors == _greys(byte) else "whose colour in the palette"
        return f"it lists colours, and the masks hold {_such(outside, survey)}, {which} it does not list"
    table = {value: color for value, color in zip(byte, colors, strict=True) if color in named}
    fitted = _of_colors(named, [color for color in named if color in table.values()])
    if isinstance(fitted, str):
        return fitted
    meanings = {value: "ignore" if _is_void(named[color]) else named[color] for value, color in table.items()}
    return replace(fitted, values={**meanings, **_unlisted(meanings, survey)}, ignore_colors=())


def _shown_colors(survey: Survey, values: Sequence[int]) -> list[int] | None:
    """The colour of each value in the palettes that show it; none where these differ, or from masks without one."""
    shown = {value: color for value, (color, _) in survey.palette.items()}
    if survey.clash is not None or any(shown.get(value, value * 0x10101) != value * 0x10101 for value in survey.bare):
        return None
    return [shown.get(value, value * 0x10101) for value in values]


def _greys(values: Sequence[int]) -> list[int]:
    """The colours of values that no palette shows."""
    return [value * 0x10101 for value in values]


def _of_colors(named: Mapping[int, str], present: Sequence[int]) -> Fitted | str:
    """Those of the listed classes whose colour occurs, the background or else black first."""
    kept = [color for color in present if not _is_void(named[color])]
    if len(kept) < 2:
        return f"the masks hold {len(kept)} of its colours"
    ordered = sorted(kept, key=lambda color: (named[color] != "background", color != 0, kept.index(color)))
    return Fitted(
        tuple(named[color] for color in ordered),
        colors=tuple(unpack_color(color) for color in ordered),
        ignore_colors=tuple(unpack_color(color) for color in present if color not in kept),
        absent=tuple(name for color, name in named.items() if color not in present),
    )


def _unlisted(known: Collection[int], survey: Survey) -> dict[int, str]:
    """Values that by custom do not count, where the list says nothing of them."""
    return {value: "ignore" for value in survey.values if value in VOID_VALUES and value not in known}


def _is_void(name: str) -> bool:
    return name.lower() in IGNORED_LABELS


def _such(keys: Sequence[int], survey: Survey, *, is_color: bool = False) -> str:
    held = shortened([unpack_color(key) if is_color else key for key in keys])
    kind = ("colour" if is_color else "value") + "s" * (len(keys) > 1)
    return f"the {kind} {held} (as in {survey.examples[keys[0]][0].name})"
