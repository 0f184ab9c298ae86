"""The counting pass over mask files: which raw values there are, in how many pixels and in which files."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int, Integer, Shaped

from pixelwise.classes import MAX_CLASSES, Color
from pixelwise.data.dataset import Case, Window
from pixelwise.data.formats import RawMask
from pixelwise.data.masks import LOSSY_SUFFIXES, count_values, pack_colors, unpack_color
from pixelwise.data.parallel import bytes_of_case, in_parallel
from pixelwise.data.reading import read_raw_mask
from pixelwise.errors import DataError

Kind = Literal["scalar", "color", "layers"]
"""One channel of values, an RGB colour per class, or one channel per class."""

_KEPT_PER_FILE = 4096
"""Distinct values remembered of one file; a photograph has more colours."""
_KEPT = 2**17
"""Distinct values remembered of all files."""
_EXAMPLES = 5
"""Files remembered of each value."""
_LOOKED_AT = 64
"""Files that are read a second time to see where colours are, unless so many do not show each colour once."""
_LOOKED_AT_ONCE = 1024
"""Files that are read a second time to see each colour once."""
_FORM_VALUES = 64
"""Files with more values have no form; no rule asks for it."""
_FORMS = 4096
"""Different forms remembered."""
_FORMED = 8
"""Files remembered of each form."""
_NEAR = {"scalar": 12.0, "color": 24.0}
"""Noise of JPEG moves a value about as far as this, as a distance between grey values or in RGB."""


@dataclass(frozen=True)
class Sample:
    """What one mask file holds."""

    case: Case
    path: Path
    kind: Kind
    values: Int[np.ndarray, " N"]
    """Raw values, colours as 0xRRGGBB, or, of layers, the number of the channel from 1."""
    counts: Int[np.ndarray, " N"]
    dtype: str
    channels: int = 1
    overlap: bool = False
    """Layers claim a pixel twice."""
    palette: Int[np.ndarray, " N"] | None = None
    """The colour of each value in the palette of the file, as 0xRRGGBB."""

    def as_colors(self) -> "Sample":
        """The colours that the palette shows, with their pixels."""
        assert self.palette is not None
        colors, place = np.unique(self.palette, return_inverse=True)
        counts = np.bincount(place, weights=self.counts, minlength=colors.size).astype(np.int64)
        return replace(self, kind="color", values=colors, counts=counts, palette=None)


@dataclass(frozen=True)
class Example:
    """A mask file that holds a value; pages of a stack and pieces of an image share one."""

    path: Path
    case: Case

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.path.name

    @property
    def place(self) -> tuple[Path, int | None, Window | None]:
        """Which part of which file it is."""
        return self.path, self.case.page, self.case.window


@dataclass(frozen=True)
class Clash:
    """An index that has different colours in the palettes of two files."""

    index: int
    colors: tuple[Color, Color]
    paths: tuple[Path, Path]

    def __str__(self) -> str:
        """Such as 'Index 1 is (0, 128, 0) in the palette of a.png and (128, 0, 0) in that of b.png'."""
        (one, other), (here, there) = self.colors, self.paths
        return f"Index {self.index} is {one} in the palette of {here.name} and {other} in that of {there.name}"


@dataclass(frozen=True)
class Form:
    """What files have in common that hold the same values and are stored alike."""

    values: tuple[int, ...]
    channels: int
    lossy: bool


@dataclass
class Survey:
    """Counts over all mask files; its size depends on the number of values, not of files."""

    kind: Kind
    pixels: Counter[int] = field(default_factory=Counter)
    files: Counter[int] = field(default_factory=Counter)
    examples: dict[int, list[Example]] = field(default_factory=dict)
    file_count: int = 0
    most_values: int = 0
    """Distinct values above 0 in the richest file."""
    maxima: Counter[int] = field(default_factory=Counter)
    richest: list[Sample] = field(default_factory=list)
    """Up to four files with the most distinct values."""
    channels: Counter[int] = field(default_factory=Counter)
    overlapping: list[Path] = field(default_factory=list)
    lossy_files: int = 0
    dtypes: set[str] = field(default_factory=set)
    total: int = 0
    """Pixels of all values, also of those that came when there were too many to remember."""
    unreadable: list[DataError] = field(default_factory=list)
    palette: dict[int, tuple[int, Path]] = field(default_factory=dict)
    """The colour of each value in the first palette that shows it, and the file."""
    bare: frozenset[int] = frozenset()
    """Values in files without a palette, or whose palette is a way to store grey."""
    forms: Counter[Form] = field(default_factory=Counter)
    """Files of each form; those with very many values are not among them."""
    formed: dict[Form, list[Sample]] = field(default_factory=dict)
    """The first few files of each form."""
    greys: "Survey | None" = None
    """Of colours: the masks that hold grey only, whose counts are among the others."""
    clash: Clash | None = None
    """The palettes contradict each other; of colours, that is why the colours count."""
    indexed: "Survey | None" = None
    """Of colours that count because palettes contradict each other: the indices, if no mask is in colour itself."""
    blind: Path | None = None
    """A file whose palette shows two of its values in one colour."""

    @property
    def values(self) -> list[int]:
        """All raw values that occur, ascending."""
        return sorted(self.pixels)

    def share(self, value: int) -> float:
        """Share of all counted pixels."""
        return self.pixels[value] / max(1, self.total)

    def without(self, values: Iterable[int]) -> "Survey":
        """The same counts with some values left out."""
        gone = set(values)
        keep = Counter({value: count for value, count in self.pixels.items() if value not in gone})
        return replace(self, pixels=keep, total=self.total - sum(self.pixels[value] for value in gone))

    def add(self, sample: Sample) -> None:
        """Counts one more file."""
        for value, count in zip(sample.values.tolist(), sample.counts.tolist(), strict=True):
            if value not in self.pixels and len(self.pixels) >= _KEPT:
                continue
            self.pixels[value] += count
            self.files[value] += 1
            known = self.examples.setdefault(value, [])
            if len(known) < _EXAMPLES:
                known.append(Example(sample.path, sample.case))
        self.file_count += 1
        self.total += int(sample.counts.sum())
        self.most_values = max(self.most_values, int((sample.values > 0).sum()))
        self.maxima[int(sample.values.max(initial=0))] += 1
        self.channels[sample.channels] += 1
        self.dtypes.add(sample.dtype)
        lossy = sample.path.suffix.lower() in LOSSY_SUFFIXES
        self.lossy_files += lossy
        if sample.values.size <= _FORM_VALUES:
            self._add_form(Form(tuple(sample.values.tolist()), sample.channels, lossy), 1, [sample])
        if sample.overlap:
            self.overlapping.append(sample.path)
        if sample.palette is not None:
            self._compare_palette(sample, sample.palette.tolist())
        self.richest = sorted([*self.richest, sample], key=lambda one: -one.values.size)[:4]

    def _add_form(self, form: Form, files: int, samples: Sequence[Sample]) -> None:
        if form in self.forms or len(self.forms) < _FORMS:
            self.forms[form] += files
            self.formed[form] = [*self.formed.get(form, []), *samples][:_FORMED]

    def _compare_palette(self, sample: Sample, colors: Sequence[int]) -> None:
        """Only values that occur in the mask count: programs fill the rest of a palette as they like."""
        if len(set(colors)) < len(colors) and self.blind is None:
            self.blind = sample.path
        for value, color in zip(sample.values.tolist(), colors, strict=True):
            known, path = self.palette.setdefault(value, (color, sample.path))
            pair = unpack_color(known), unpack_color(color)
            # a shade that a program changed when it saved the file is the same colour
            if self.clash is None and np.linalg.norm(np.subtract(*pair)) > _NEAR["color"]:
                self.clash = Clash(value, pair, (path, sample.path))

    def include(self, other: "Survey") -> None:
        """Counts the files of another survey of the same kind."""
        self.pixels += other.pixels
        self.files += other.files
        for value, examples in other.examples.items():
            self.examples[value] = [*self.examples.get(value, []), *examples][:_EXAMPLES]
        self.file_count += other.file_count
        self.most_values = max(self.most_values, other.most_values)
        self.maxima += other.maxima
        self.channels += other.channels
        self.overlapping += other.overlapping
        self.lossy_files += other.lossy_files
        self.dtypes |= other.dtypes
        self.total += other.total
        self.palette = {**other.palette, **self.palette}
        for form, files in other.forms.items():
            self._add_form(form, files, other.formed[form])
        # by name, as files are counted: which are of which kind must not change what is said of them
        self.richest = sorted([*self.richest, *other.richest], key=lambda one: (-one.values.size, one.path))[:4]


# counting ----------------------------------------------------------------------------------------------------------


def take_survey(cases: Sequence[Case], *, by_index: bool = False) -> Survey:
    """Counts the values of all mask files that are pictures; files that cannot be read are listed in `unreadable`.

    Masks with palettes hold values, unless an index that occurs has different colours in different files: then, and
    beside masks in colour, they hold the colours that their palettes show.

    Args:
        cases: with masks.
        by_index: the user says what indices mean, whatever colours palettes give them.

    Raises:
        DataError: some masks are stored in one way and some in another.
    """
    scalar, color, layers = Survey("scalar"), Survey("color"), Survey("layers")
    surveys: dict[Kind, Survey] = {"scalar": scalar, "color": color, "layers": layers}
    indexed, painted = Survey("scalar"), Survey("color")
    unreadable: list[DataError] = []
    for sample in _samples(cases):
        if isinstance(sample, DataError):
            unreadable.append(sample)
        elif sample.palette is not None:
            indexed.add(sample)
            painted.add(sample.as_colors())
        else:
            surveys[sample.kind].add(sample)
    if color.file_count or (indexed.clash is not None and not by_index):
        only_indices = not color.file_count
        color.include(painted)
        color.clash = indexed.clash
        _refuse_other_than_colors(indexed, color, scalar)
        if only_indices and scalar.values in ([], [0]):
            indexed.include(scalar)
            color.indexed = indexed
    else:
        scalar.bare = frozenset(scalar.pixels)
        scalar.include(indexed)
    if layers.file_count and (color.file_count or scalar.values not in ([], [0])):
        raise DataError(
            f"{layers.file_count} masks have one channel per class, {scalar.file_count + color.file_count} do not.",
            where=layers.richest[0].path,
            remedy="Store all masks in the same way.",
        )
    chosen = next((survey for survey in (layers, color) if survey.file_count), scalar)
    if chosen is not scalar:
        _add_greys(chosen, scalar)
    chosen.unreadable = unreadable
    return chosen


def _samples(cases: Sequence[Case]) -> Iterator[Sample | DataError]:
    """What each file holds, or why it cannot be read, in order."""
    files = [(case, path) for case in cases for path in case.masks]
    yield from in_parallel(_sample, files, lambda file: bytes_of_case(file[0]))


def _sample(file: tuple[Case, Path]) -> Sample | DataError:
    case, path = file
    try:
        stored = read_raw_mask(path, case)
    except DataError as error:
        return error
    raw = stored.values
    if raw.ndim == 2:
        values, counts = _count(raw)
        palette = _palette_of(stored, values)
        return Sample(case, path, "scalar", values, counts, raw.dtype.name, stored.channels, palette=palette)
    if raw.shape[2] == 3 and 1 < raw.max(initial=0) <= 255:
        return Sample(case, path, "color", *_count(pack_colors(raw)), raw.dtype.name)
    return _sample_layers(case, path, raw)


def _palette_of(stored: RawMask, values: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"] | None:
    """The colours of the values that occur; none where the palette is a way to store grey."""
    if stored.palette is None:
        return None
    colors = pack_colors(stored.palette[values]).astype(np.int64)
    return None if np.array_equal(colors, values * 0x10101) else colors


def _refuse_other_than_colors(indexed: Survey, color: Survey, scalar: Survey) -> None:
    """Colours can count where palettes contradict each other only if every mask shows its classes in colours."""
    if indexed.clash is None:
        return
    plain = [value for value in scalar.values if value and value * 0x10101 not in color.pixels]
    if color.file_count == indexed.file_count and plain:
        reason = f"{scalar.examples[plain[0]][0].name} has no palette"
    elif indexed.blind is not None:
        reason = f"the palette of {indexed.blind.name} shows two of its indices in one colour"
    else:
        return
    table = ", ".join(f"{value}: {value}" for value in sorted({*indexed.pixels, *scalar.pixels})[:20])
    raise DataError(
        f"{indexed.clash}: an index is another class in another file, or the palettes mean nothing. Colours cannot "
        f"count in place of indices, for {reason}.",
        where=indexed.clash.paths[1],
        remedy="Store all masks in the same way. If the indices are the classes whatever their colours, say so in "
        f"data.yaml: `values: {{{table}}}`.",
    )


def _sample_layers(case: Case, path: Path, raw: Shaped[np.ndarray, "H W C"]) -> Sample | DataError:
    top = raw.max(initial=0)
    if np.any((raw != 0) & (raw != top)):
        return DataError(
            f"The mask has {raw.shape[2]} channels that hold more than two values.",
            where=path,
            remedy="Store one channel of class indices, an RGB colour per class, or one 0/255 channel per class.",
        )
    claims = (raw != 0).sum(axis=2)
    counts = np.array([(claims == 0).sum(), *(raw != 0).sum(axis=(0, 1))], dtype=np.int64)
    numbers = np.flatnonzero(counts)
    overlap = bool(claims.max(initial=0) > 1)
    return Sample(case, path, "layers", numbers, counts[numbers], raw.dtype.name, raw.shape[2], overlap)


def _add_greys(survey: Survey, scalar: Survey) -> None:
    """Adds grey values to colours, as colours with equal parts, or to layers, where only 0, an empty one, can be."""
    survey.greys = scalar
    for value in scalar.values:
        if not 0 <= value <= 255:
            raise DataError(
                f"Some masks are in colour, and this one holds the value {value}.",
                where=scalar.examples[value][0].path,
                remedy="Store all masks in the same way.",
            )
        packed = value * 0x10101
        survey.pixels[packed] += scalar.pixels[value]
        survey.files[packed] += scalar.files[value]
        survey.examples.setdefault(packed, []).extend(scalar.examples[value])
    survey.file_count += scalar.file_count
    survey.total += scalar.total
    survey.lossy_files += scalar.lossy_files


def _count(raw: Integer[np.ndarray, "H W"]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Distinct values, ascending, with their number of pixels; the most frequent ones where there are very many."""
    if raw.dtype.itemsize <= 2 and raw.dtype.kind == "u":
        counts = count_values(raw)
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(raw, return_counts=True)
    if values.size > _KEPT_PER_FILE:
        kept = np.sort(np.argsort(-counts, kind="stable")[:_KEPT_PER_FILE])
        values, counts = values[kept], counts[kept]
    return values.astype(np.int64), counts.astype(np.int64)


# where the values gather -------------------------------------------------------------------------------------------


def centres_of(survey: Survey) -> list[int]:
    """Values or colours that hold at least 1 % of the pixels together with those near them, the largest first."""
    radius = 2 * _NEAR[survey.kind]
    values = np.array(survey.values)
    counts = np.array([survey.pixels[value] for value in survey.values])
    points = _points(survey, survey.values)
    free = np.ones(values.size, dtype=bool)
    centres: list[int] = []
    while free.any() and len(centres) < MAX_CLASSES:
        best = int(np.argmax(np.where(free, counts, -1)))
        distances = np.linalg.norm(points - points[best], axis=1)
        if counts[free & (distances <= radius)].sum() >= 0.01 * counts.sum():
            centres.append(int(values[best]))
        # what lies around a centre is its noise; two centres stand at least two radii apart
        free &= distances > 2 * radius
    return centres


def share_near(survey: Survey, centres: Sequence[int]) -> float:
    """Share of the pixels that lie near a centre: nearly all in a mask, not in a photograph."""
    return sum(survey.share(value) for value in near(survey, centres))


def near(survey: Survey, centres: Sequence[int]) -> list[int]:
    """The values that lie as near to one of the centres as the noise of JPEG moves them."""
    values = np.array(survey.values)
    points = _points(survey, survey.values)
    found = np.zeros(values.size, dtype=bool)
    for middle in _points(survey, centres):
        found |= np.linalg.norm(points - middle, axis=1) <= _NEAR[survey.kind]
    return [int(value) for value in values[found]]


def solid(survey: Survey, values: Sequence[int]) -> set[int]:
    """Those values or colours of which some example has a block of 3 x 3 pixels, as areas have and their edges not.

    Of a value that no file was looked at for nothing is known, so that it is among them: it must not pass for an edge.
    """
    looked: set[tuple[Path, int | None, Window | None]] = set()
    found: set[int] = set()

    def look(example: Example) -> set[int]:
        raw = read_raw_mask(example.path, example.case)
        return _blocks(raw.values if survey.kind == "scalar" else _packed(raw.seen))

    for turn in range(_EXAMPLES):
        open_values = [value for value in values if value not in found]
        examples = _unseen(survey, open_values, looked, turn)
        for seen in in_parallel(look, examples, lambda example: bytes_of_case(example.case)):
            found |= seen
    unknown = {value for value in values if not any(one.place in looked for one in survey.examples[value])}
    return found.intersection(values) | unknown


def _unseen(
    survey: Survey, values: Sequence[int], looked: set[tuple[Path, int | None, Window | None]], turn: int
) -> list[Example]:
    """One more file for each value of which no more than `turn` were looked at; `looked` grows by them."""
    most = _LOOKED_AT if turn else _LOOKED_AT_ONCE
    examples = []
    for value in values:
        fresh = [one for one in survey.examples[value] if one.place not in looked]
        if len(looked) < most and fresh and len(survey.examples[value]) - len(fresh) <= turn:
            examples.append(fresh[0])
            looked.add(fresh[0].place)
    return examples


def _packed(raw: Integer[np.ndarray, "..."]) -> Int[np.ndarray, "H W"]:
    return pack_colors(raw) if raw.ndim == 3 else raw.astype(np.int64) * 0x10101


def _blocks(packed: Integer[np.ndarray, "H W"]) -> set[int]:
    middle = packed[1:-1, 1:-1]
    same = np.ones(middle.shape, dtype=bool)
    for row in range(3):
        for column in range(3):
            same &= middle == packed[row : row + middle.shape[0], column : column + middle.shape[1]]
    return set(np.unique(middle[same]).tolist())


def _points(survey: Survey, values: Sequence[int]) -> Int[np.ndarray, "N D"]:
    """Grey values as points on a line, colours as points in a cube."""
    if survey.kind == "color":
        return np.array([unpack_color(value) for value in values], dtype=np.int64).reshape(-1, 3)
    return np.array(values, dtype=np.int64)[:, None]
