"""The counting pass over mask files: which raw values there are, in how many pixels and in which files."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int, Integer, Shaped

from pixelwise.classes import MAX_CLASSES
from pixelwise.data.dataset import Case
from pixelwise.data.masks import LOSSY_SUFFIXES, count_values, pack_colors, unpack_color
from pixelwise.data.parallel import bytes_of_case, in_parallel
from pixelwise.data.reading import read_mask
from pixelwise.errors import DataError

Kind = Literal["scalar", "color", "layers"]
"""One channel of values, an RGB colour per class, or one channel per class."""

_KEPT_PER_FILE = 4096
"""Distinct values remembered of one file; a photograph has more colours."""
_KEPT = 2**17
"""Distinct values remembered of all files."""
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


@dataclass
class Survey:
    """Counts over all mask files; its size depends on the number of values, not of files."""

    kind: Kind
    pixels: Counter[int] = field(default_factory=Counter)
    files: Counter[int] = field(default_factory=Counter)
    examples: dict[int, list[Path]] = field(default_factory=dict)
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
            if len(known) < 5:
                known.append(sample.path)
        self.file_count += 1
        self.total += int(sample.counts.sum())
        self.most_values = max(self.most_values, int((sample.values > 0).sum()))
        self.maxima[int(sample.values.max(initial=0))] += 1
        self.channels[sample.channels] += 1
        self.dtypes.add(sample.dtype)
        self.lossy_files += sample.path.suffix.lower() in LOSSY_SUFFIXES
        if sample.overlap:
            self.overlapping.append(sample.path)
        self.richest = sorted([*self.richest, sample], key=lambda one: -one.values.size)[:4]


# counting ----------------------------------------------------------------------------------------------------------


def take_survey(cases: Sequence[Case]) -> Survey:
    """Counts the values of all mask files that are pictures; files that cannot be read are listed in `unreadable`.

    Raises:
        DataError: some masks are stored in one way and some in another.
    """
    scalar, color, layers = Survey("scalar"), Survey("color"), Survey("layers")
    surveys: dict[Kind, Survey] = {"scalar": scalar, "color": color, "layers": layers}
    unreadable: list[DataError] = []
    for sample in _samples(cases):
        if isinstance(sample, DataError):
            unreadable.append(sample)
        else:
            surveys[sample.kind].add(sample)
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
        raw = read_mask(path, case)
    except DataError as error:
        return error
    if raw.ndim == 2:
        return Sample(case, path, "scalar", *_count(raw), raw.dtype.name)
    if raw.shape[2] == 3 and 1 < raw.max(initial=0) <= 255:
        return Sample(case, path, "color", *_count(pack_colors(raw)), raw.dtype.name)
    return _sample_layers(case, path, raw)


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
    for value in scalar.values:
        if not 0 <= value <= 255:
            raise DataError(
                f"Some masks are in colour, and this one holds the value {value}.",
                where=scalar.examples[value][0],
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


def _points(survey: Survey, values: Sequence[int]) -> Int[np.ndarray, "N D"]:
    """Grey values as points on a line, colours as points in a cube."""
    if survey.kind == "color":
        return np.array([unpack_color(value) for value in values], dtype=np.int64).reshape(-1, 3)
    return np.array(values, dtype=np.int64)[:, None]
