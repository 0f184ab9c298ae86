"""What mask files mean: `detect` finds out for a whole data set.

`detect` looks at every mask once and keeps, for each raw value (or colour), how many pixels and files have it. Rules
written in `RULES`, tried in order, read the meaning from these counts. Whatever is concluded, and not declared by the
user, is said in a notice.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, Integer, Shaped

from pixelwise.classes import IGNORE, MAX_CLASSES, ClassTable, Color, default_color
from pixelwise.data import formats, polygons
from pixelwise.data.dataset import Case, MaskEncoding
from pixelwise.data.masks import LOSSY_SUFFIXES, UnknownValuesError, pack_colors, shortened, unpack_color
from pixelwise.errors import DataError

VOID_VALUES = (-1, IGNORE, 65535)
"""Raw values that by custom mean: do not count this pixel."""

_STRAY_SHARE = 1e-3
"""A value with a smaller share of all pixels is a class only if there is more evidence for it."""
_JUMP = 10
"""Grey codes of classes are at least this far apart."""
_MANY = 12
"""From so many values on, a mask may hold the numbers of objects."""
_KEPT_PER_FILE = 4096
"""Distinct values remembered of one file; a photograph has more colours."""
_KEPT = 2**17
"""Distinct values remembered of all files."""


@dataclass(frozen=True)
class Declaration:
    """What the user says about the masks; it wins over everything that is detected."""

    names: tuple[str, ...] | None = None
    """Class names in the order of their index."""
    colors: tuple[Color, ...] | None = None
    """Class colours in the order of their index."""
    values: Mapping[int, int | str] | None = None
    """Raw value to class index, class name or 'ignore'; complete, unless it only says what to ignore."""
    ignore: int | None = None
    """Raw value of pixels that do not count."""


@dataclass(frozen=True)
class Detection:
    """How to read the masks, the classes in them, and what the user should know."""

    encoding: MaskEncoding
    classes: ClassTable
    notices: tuple[str, ...]


@dataclass(frozen=True)
class _Sample:
    """What one mask file holds."""

    case: Case
    path: Path
    kind: Literal["scalar", "color", "layers"]
    values: Int[np.ndarray, " N"]
    """Raw values, colours as 0xRRGGBB, or, of layers, the number of the channel from 1."""
    counts: Int[np.ndarray, " N"]
    dtype: str
    channels: int = 1
    overlap: bool = False
    """Layers claim a pixel twice."""


@dataclass
class _Survey:
    """Counts over all mask files; its size depends on the number of values, not of files."""

    pixels: Counter[int] = field(default_factory=Counter)
    files: Counter[int] = field(default_factory=Counter)
    examples: dict[int, list[Path]] = field(default_factory=dict)
    file_count: int = 0
    most_values: int = 0
    """Distinct values above 0 in the richest file."""
    maxima: Counter[int] = field(default_factory=Counter)
    richest: list[_Sample] = field(default_factory=list)
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

    def without(self, values: Iterable[int]) -> "_Survey":
        """The same counts with some values left out."""
        gone = set(values)
        keep = Counter({value: count for value, count in self.pixels.items() if value not in gone})
        return replace(self, pixels=keep, total=self.total - sum(self.pixels[value] for value in gone))


@dataclass(frozen=True)
class _Proposal:
    """A meaning that a rule has found."""

    encoding: MaskEncoding
    names: tuple[str, ...]
    notices: tuple[str, ...] = ()
    colors: tuple[Color, ...] | None = None


# detect ------------------------------------------------------------------------------------------------------------


def detect(cases: Sequence[Case], declaration: Declaration) -> Detection:
    """Finds out what the masks of a data set mean.

    Files that cannot be read are left out with a notice; `data.check` lists them.

    Args:
        cases: cases with and without masks.
        declaration: what the user says; an empty one leaves everything to detection.

    Raises:
        DataError: the masks contradict the declaration, hold one class only, or no rule fits.
    """
    labelled = [case for case in cases if case.masks]
    if not labelled:
        raise DataError("No image has a mask.", remedy="Put a mask of the same name beside each image.")
    kinds = {path.suffix.lower() in polygons.SUFFIXES for case in labelled for path in case.masks}
    if kinds == {True, False}:
        raise DataError(
            "Some masks are pictures and some are polygon files.",
            where=next(p for case in labelled for p in case.masks if p.suffix.lower() in polygons.SUFFIXES),
            remedy="Keep one kind of annotation in the folder.",
        )
    if kinds == {True}:
        return _detect_polygons(labelled, declaration)
    survey, kind = _survey(labelled)
    if not survey.file_count:
        raise survey.unreadable[0]
    proposal = _propose(survey, kind, labelled, declaration)
    notices = [*proposal.notices, *_unreadable_notice(survey.unreadable)]
    return Detection(proposal.encoding, _table(proposal, declaration), tuple(notices))


def _survey(cases: Sequence[Case]) -> tuple[_Survey, Literal["scalar", "color", "layers"]]:
    """Counts of all files, and which kind of mask they are together."""
    kind: Literal["scalar", "color", "layers"]
    files = [(case, path) for case in cases for path in case.masks]
    surveys: dict[str, _Survey] = {"scalar": _Survey(), "color": _Survey(), "layers": _Survey()}
    unreadable: list[DataError] = []
    with ThreadPoolExecutor() as pool:
        for sample in pool.map(_sample, files):
            if isinstance(sample, DataError):
                unreadable.append(sample)
            else:
                _add(surveys[sample.kind], sample)
    scalar, color, layers = surveys["scalar"], surveys["color"], surveys["layers"]
    if layers.file_count and not color.file_count and scalar.values in ([], [0]):
        chosen, kind = _merge(layers, scalar), "layers"
    elif layers.file_count:
        raise DataError(
            f"{layers.file_count} masks have one channel per class, {scalar.file_count + color.file_count} do not.",
            where=layers.richest[0].path,
            remedy="Store all masks in the same way.",
        )
    elif color.file_count:
        chosen, kind = _merge(color, scalar), "color"
    else:
        chosen, kind = scalar, "scalar"
    chosen.unreadable = unreadable
    return chosen, kind


def _sample(file: tuple[Case, Path]) -> _Sample | DataError:
    case, path = file
    try:
        raw = formats.read_mask(path, case.page)
    except DataError as error:
        return error
    if raw.ndim == 2:
        return _Sample(case, path, "scalar", *_count(raw), raw.dtype.name)
    if raw.shape[2] == 3 and 1 < raw.max(initial=0) <= 255:
        return _Sample(case, path, "color", *_count(pack_colors(raw)), raw.dtype.name)
    return _sample_layers(case, path, raw)


def _sample_layers(case: Case, path: Path, raw: Shaped[np.ndarray, "H W C"]) -> _Sample | DataError:
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
    return _Sample(case, path, "layers", numbers, counts[numbers], raw.dtype.name, raw.shape[2], overlap)


def _add(survey: _Survey, sample: _Sample) -> None:
    """Counts one more file."""
    for value, count in zip(sample.values.tolist(), sample.counts.tolist(), strict=True):
        if value not in survey.pixels and len(survey.pixels) >= _KEPT:
            continue
        survey.pixels[value] += count
        survey.files[value] += 1
        known = survey.examples.setdefault(value, [])
        if len(known) < 5:
            known.append(sample.path)
    survey.file_count += 1
    survey.total += int(sample.counts.sum())
    survey.most_values = max(survey.most_values, int((sample.values > 0).sum()))
    survey.maxima[int(sample.values.max(initial=0))] += 1
    survey.channels[sample.channels] += 1
    survey.dtypes.add(sample.dtype)
    survey.lossy_files += sample.path.suffix.lower() in LOSSY_SUFFIXES
    if sample.overlap:
        survey.overlapping.append(sample.path)
    survey.richest = sorted([*survey.richest, sample], key=lambda one: -one.values.size)[:4]


def _merge(color: _Survey, scalar: _Survey) -> _Survey:
    """Colours and grey values together, grey ones as colours with equal parts; an empty layer is grey 0."""
    for value in scalar.values:
        if not 0 <= value <= 255:
            raise DataError(
                f"Some masks are in colour, and this one holds the value {value}.",
                where=scalar.examples[value][0],
                remedy="Store all masks in the same way.",
            )
        packed = value * 0x10101
        color.pixels[packed] += scalar.pixels[value]
        color.files[packed] += scalar.files[value]
        color.examples.setdefault(packed, []).extend(scalar.examples[value])
    color.file_count += scalar.file_count
    color.total += scalar.total
    color.lossy_files += scalar.lossy_files
    return color


def _count(raw: Integer[np.ndarray, "H W"]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Distinct values, ascending, with their number of pixels; the most frequent ones where there are very many."""
    if raw.dtype.itemsize <= 2 and raw.dtype.kind == "u":
        counts = np.bincount(raw.ravel())
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(raw, return_counts=True)
    if values.size > _KEPT_PER_FILE:
        kept = np.sort(np.argsort(-counts, kind="stable")[:_KEPT_PER_FILE])
        values, counts = values[kept], counts[kept]
    return values.astype(np.int64), counts.astype(np.int64)


# what the counts mean ----------------------------------------------------------------------------------------------


def _propose(survey: _Survey, kind: str, cases: Sequence[Case], declaration: Declaration) -> _Proposal:
    """The meaning of the masks: what is declared first, then the rules."""
    if kind == "layers":
        return _layers(survey, declaration)
    if kind == "color":
        return _colors(survey, declaration)
    declared = declaration.values or {}
    if any(meaning != "ignore" for meaning in declared.values()):
        return _declared_values(survey, declaration)
    several = any(len(case.masks) > 1 for case in cases)
    void = {value for value in survey.values if value < 0} | set(declared)
    if declaration.ignore is not None:
        void.add(declaration.ignore)
    clean = survey.without(void)
    if several:
        proposal = _union(clean)
    elif declaration.names is not None:
        proposal = _named(clean, declaration.names)
    else:
        proposal = _by_rules(clean)
    return _with_void(proposal, void, survey)


def _by_rules(survey: _Survey) -> _Proposal:
    if len(survey.values) < 2:
        raise _one_class(survey, survey.values)
    for rule in RULES.values():
        proposal = rule(survey)
        if proposal is not None:
            return proposal
    raise DataError(
        f"The {survey.file_count} masks hold {len(survey.values)} different values ({shortened(survey.values)}), "
        "which fits no known way to store classes.",
        where=survey.richest[0].path,
        remedy="Check that these are masks and no photographs, or declare `values: {0: 0, 128: 1}` in data.yaml.",
    )


def _one_class(survey: _Survey, held: Sequence[Any]) -> DataError:
    return DataError(
        f"All {survey.file_count} masks hold one class only: {shortened(held) or 'nothing that counts'}.",
        where=survey.richest[0].path.parent,
        remedy="There is nothing to tell apart; check that the right folder holds the masks.",
    )


def _lossy(survey: _Survey) -> _Proposal | None:
    """Masks stored as JPEG: values scatter around the true ones."""
    if 2 * survey.lossy_files < survey.file_count or len(survey.values) <= 2:
        return None
    return _scattered(survey, "stored as JPEG, which changes pixel values")


def _two_values(survey: _Survey) -> _Proposal | None:
    """0 and another value: the other one is the object."""
    if len(survey.values) != 2 or survey.values[0] != 0:
        return None
    return _binary(survey.values[1:], survey)


def _mixed_binary(survey: _Survey) -> _Proposal | None:
    """0 and one other value in each file, but not the same one in all of them (palettes, 0/1 beside 0/255)."""
    objects = [value for value in survey.values if value > 0]
    if survey.most_values > 1 or not set(objects) <= {1, *range(250, 256)}:
        return None
    return _binary(objects, survey)


def _binary(objects: Sequence[int], survey: _Survey) -> _Proposal:
    table = {0: 0, **dict.fromkeys(objects, 1)}
    which = " and ".join(map(str, objects))
    notices = []
    if len(objects) > 1:
        files = ", ".join(f"{value} in {survey.files[value]}" for value in objects)
        notices.append(f"The object has different values in different mask files ({files}); they count as one class.")
    elif objects[0] != 1:
        notices.append(f"The masks hold 0 and {which}: 0 is the background, {which} the object.")
    encoding = MaskEncoding(kind="values", values=table, description=f"binary: 0 background, {which} object")
    return _Proposal(encoding, ("background", "object"), tuple(notices))


def _instances(survey: _Survey) -> _Proposal | None:
    """Every object has its own number: more numbers than classes can be, or each number is one connected piece."""
    objects = [value for value in survey.values if value > 0 and value not in VOID_VALUES]
    if len(objects) < 3 or (len(objects) <= 16 and _is_spread(objects)):
        return None
    if objects[-1] < MAX_CLASSES and not _are_pieces(survey, len(objects)):
        return None
    notice = (
        f"The masks hold numbers of single objects (up to {survey.most_values} in one file, the largest is "
        f"{objects[-1]}); every value above 0 counts as the one class 'object'. If they are classes, declare `names`."
    )
    encoding = MaskEncoding(kind="instances", description="instance numbers: 0 background, above 0 object")
    return _Proposal(encoding, ("background", "object"), (notice,))


def _are_pieces(survey: _Survey, objects: int) -> bool:
    """Whether values look like numbers of objects: many, each one connected piece, not the same ones in each file."""
    from scipy import ndimage

    vary = survey.file_count <= 2 or 2 * len(survey.maxima) >= survey.file_count
    # class masks have 8 bits, or a signed type; 16 unsigned bits with gaps are typical of numbered objects
    typical = survey.dtypes <= {"uint16", "uint32"} and survey.values[-1] > objects
    if objects < _MANY or not (vary or typical):
        return False
    single = total = 0
    for sample in survey.richest:
        raw = formats.read_mask(sample.path, sample.case.page)
        present = sample.values[sample.values > 0]
        for value in present[:: max(1, present.size // 16)]:
            _, pieces = ndimage.label(raw == value, structure=np.ones((3, 3)))
            single, total = single + (pieces == 1), total + 1
    return single >= 0.8 * total


def _noisy(survey: _Survey) -> _Proposal | None:
    """Few values hold nearly all pixels and many lie between: masks that were resized or stored as JPEG once."""
    if len(survey.values) < 16 or survey.values[0] < 0 or survey.values[-1] > 255:
        return None
    centres = _centres(survey, dimensions=1)
    if len(centres) < 2 or sum(survey.share(value) for value in centres) < 0.8:
        return None
    return _scattered(survey, "resized or stored as JPEG before")


def _contiguous(survey: _Survey) -> _Proposal | None:
    """0, 1, 2 ... K-1, and 255 or 65535 for pixels that do not count."""
    values = [value for value in survey.values if value not in VOID_VALUES]
    if len(values) < 2 or values != list(range(len(values))) or len(values) > MAX_CLASSES:
        return None
    return _index(survey, values)


def _grey_codes(survey: _Survey) -> _Proposal | None:
    """A few well separated grey values such as 0, 128, 255, perhaps with a handful of stray ones."""
    main = _main_values(survey)
    if len(main) < 2 or not _is_spread(main):
        return None
    stray = [value for value in survey.values if value not in main]
    if sum(survey.share(value) for value in stray) > 0.01:
        return None
    if main[0] == 0 and len(main) == 2:
        proposal = _binary(main[1:], survey)
    else:
        table = {value: index for index, value in enumerate(main)}
        listed = ", ".join(map(str, main))
        proposal = _Proposal(
            MaskEncoding(kind="values", values=table, description=f"grey codes: {listed}"),
            tuple(f"value {value}" for value in main),
            (f"The masks hold the grey values {listed}; each is a class. Declare `names` to name them.",),
        )
    return _without_stray(proposal, stray, survey)


def _sparse(survey: _Survey) -> _Proposal | None:
    """Class indices of which some never occur, perhaps with a handful of stray values."""
    values = [value for value in survey.values if value not in VOID_VALUES]
    run = next((i for i, value in enumerate(values) if value != i), len(values))
    few = [value for value in values[run:] if survey.share(value) < _STRAY_SHARE / 10 and survey.files[value] == 1]
    stray = few if survey.file_count > 2 else []
    values = [value for value in values if value not in stray]
    if len(values) < 2 or values[-1] >= MAX_CLASSES or (len(values) > 64 and len(values) < values[-1] // 2):
        return None
    if values[-1] < 64 or len(values) > values[-1] // 2:
        return _without_stray(_index(survey, values), stray, survey)
    table = {value: index for index, value in enumerate(values)} | _void_table(survey)
    notice = f"The masks hold the values {shortened(values)}; each is a class. Declare `names` to name them."
    encoding = MaskEncoding(kind="values", values=table, description=f"{len(values)} values, each a class")
    proposal = _Proposal(encoding, tuple(f"value {value}" for value in values), (notice,))
    return _without_stray(proposal, stray, survey)


RULES: dict[str, Callable[[_Survey], _Proposal | None]] = {
    "stored as JPEG": _lossy,
    "binary": _two_values,
    "binary with several palettes": _mixed_binary,
    "instance numbers": _instances,
    "blurred values": _noisy,
    "class indices": _contiguous,
    "grey codes": _grey_codes,
    "class indices with gaps": _sparse,
}
"""How one-channel masks are understood: the first rule that answers is right."""


def _index(survey: _Survey, values: Sequence[int]) -> _Proposal:
    """Raw values are class indices."""
    count = values[-1] + 1
    void = _void_table(survey)
    absent = sorted(set(range(count)) - set(values))
    notices = []
    if absent:
        never = f"value {absent[0]} never occurs" if len(absent) == 1 else f"values {shortened(absent)} never occur"
        notices.append(f"The largest class index is {values[-1]}, but {never}. Declare `values` to leave gaps out.")
    if void:
        notices.append(f"Pixels of value {', '.join(map(str, void))} are ignored.")
    ending = f", {', '.join(map(str, void))} ignored" if void else ""
    encoding = MaskEncoding(
        kind="values",
        values={**{value: value for value in range(count)}, **void},
        description=f"class indices 0..{count - 1}{ending}",
    )
    names = ("background", "object") if count == 2 else tuple(f"class {index}" for index in range(count))
    return _Proposal(encoding, names, tuple(notices))


def _void_table(survey: _Survey) -> dict[int, int]:
    return dict.fromkeys((value for value in survey.values if value in VOID_VALUES), IGNORE)


def _scattered(survey: _Survey, cause: str) -> _Proposal | None:
    """Every value counts as the nearest of the few around which they gather."""
    centres = sorted(_centres(survey, dimensions=1))
    if len(centres) < 2 or _coverage(survey, centres, dimensions=1) < 0.9:
        return None
    between = sum(survey.pixels[value] for value in survey.values if value not in centres)
    listed = ", ".join(map(str, centres))
    notice = (
        f"The masks were {cause}: they hold {len(survey.values)} values around {listed}. Each pixel counts as the "
        f"nearest of them ({between / survey.total:.1%} of the pixels are not exact). Use PNG masks if they exist."
    )
    names = ("background", "object") if len(centres) == 2 else tuple(f"value {value}" for value in centres)
    encoding = MaskEncoding(
        kind="values",
        values={value: index for index, value in enumerate(centres)},
        nearest=True,
        description=f"grey codes {listed}, nearest counts",
    )
    return _Proposal(encoding, names, (notice,))


def _centres(survey: _Survey, dimensions: Literal[1, 3]) -> list[int]:
    """Values or colours that hold at least 1 % of the pixels together with those near them, the largest first."""
    radius = 24.0 if dimensions == 1 else 48.0
    values = np.array(survey.values)
    counts = np.array([survey.pixels[value] for value in survey.values])
    points = values[:, None] if dimensions == 1 else np.array([unpack_color(value) for value in survey.values])
    free = np.ones(values.size, dtype=bool)
    centres: list[int] = []
    while free.any() and len(centres) < MAX_CLASSES:
        best = int(np.argmax(np.where(free, counts, -1)))
        near = free & (np.linalg.norm(points - points[best], axis=1) <= radius)
        if counts[near].sum() >= 0.01 * counts.sum():
            centres.append(int(values[best]))
        # what lies around a centre is its noise; two centres stand at least two radii apart
        free &= np.linalg.norm(points - points[best], axis=1) > 2 * radius
    return centres


def _coverage(survey: _Survey, centres: Sequence[int], dimensions: Literal[1, 3]) -> float:
    """Share of the pixels that lie near a centre: nearly all in a mask, not in a photograph."""
    values = np.array(survey.values)
    radius, points, middles = 12.0, values[:, None], np.array(centres)[:, None]
    if dimensions == 3:
        radius, points = 24.0, np.array([unpack_color(value) for value in survey.values])
        middles = np.array([unpack_color(value) for value in centres])
    near = np.zeros(values.size, dtype=bool)
    for middle in middles:
        near |= np.linalg.norm(points - middle, axis=1) <= radius
    return sum(survey.share(value) for value in values[near].tolist())


def _main_values(survey: _Survey) -> list[int]:
    """Values that are classes beyond doubt: frequent, or in many files and far from every frequent one."""
    frequent = [value for value in survey.values if survey.share(value) >= _STRAY_SHARE]
    rare = [
        value
        for value in survey.values
        if _STRAY_SHARE / 10 <= survey.share(value) < _STRAY_SHARE
        and survey.files[value] >= max(2, 0.2 * survey.file_count)
        and all(abs(value - other) >= _JUMP for other in frequent)
    ]
    return sorted(frequent + rare)


def _is_spread(values: Sequence[int]) -> bool:
    """Whether values stand apart like codes: 0 128 255, not 0 1 2, and not 0 3 255."""
    gaps = np.diff(values)
    return bool(values[-1] >= 100 and gaps.min() >= _JUMP and gaps.max() <= 3 * gaps.min())


def _without_stray(proposal: _Proposal, stray: Sequence[int], survey: _Survey) -> _Proposal:
    """Values that are not classes are ignored, and the user is told where they are."""
    if not stray:
        return proposal
    pixels = sum(survey.pixels[value] for value in stray)
    where = sorted({path.name for value in stray for path in survey.examples[value]})
    some = "" if all(survey.files[value] == len(survey.examples[value]) for value in stray) else "at least "
    notice = (
        f"{pixels} pixels in {some}{len(where)} mask files ({shortened(where)}) have the stray values {shortened(stray)}; "
        f"they are ignored. Correct the masks, or declare what they mean: values: {{{stray[0]}: ignore}}."
    )
    encoding = proposal.encoding.model_copy(update={"other": IGNORE})
    return replace(proposal, encoding=encoding, notices=(*proposal.notices, notice))


def _with_void(proposal: _Proposal, void: Iterable[int], survey: _Survey) -> _Proposal:
    """Adds values that are ignored by declaration or because they are negative."""
    added = dict.fromkeys(sorted(void), IGNORE)
    if not added:
        return proposal
    listed = ", ".join(map(str, added))
    pixels = sum(survey.pixels[value] for value in added)
    encoding = proposal.encoding.model_copy(
        update={
            "values": {**proposal.encoding.values, **added},
            "description": f"{proposal.encoding.description}; {listed} ignored",
        }
    )
    notice = f"Pixels of value {listed} are ignored ({pixels} pixels, {pixels / max(1, survey.total):.2%})."
    return replace(proposal, encoding=encoding, notices=(*proposal.notices, notice))


def _union(survey: _Survey) -> _Proposal:
    """Several files per case: each holds a part of the object."""
    if not any(value > 0 for value in survey.values):
        raise _one_class(survey, survey.values)
    notice = f"Cases have several mask files ({survey.file_count} in all); together they are the one class 'object'."
    encoding = MaskEncoding(kind="union", description="several files per image, their union is the object")
    return _Proposal(encoding, ("background", "object"), (notice,))


# declared ----------------------------------------------------------------------------------------------------------


def _named(survey: _Survey, names: Sequence[str]) -> _Proposal:
    """Names say how many classes there are: values are indices, or as many codes as there are names."""
    count = len(names)
    values = [value for value in survey.values if value not in VOID_VALUES]
    if not set(values) <= set(range(count)) or len(values) < 2:
        proposal = _by_rules(survey)
        if len(proposal.names) == count and proposal.encoding.other is None:
            return _in_order(proposal, names)
        fits = len(proposal.names) == count
        outside = [value for value in values if value not in (proposal.encoding.values if fits else range(count))]
        raise _outside(outside, survey, f"{count} classes are declared ({shortened(names)})")
    void = _void_table(survey)
    encoding = MaskEncoding(
        kind="values",
        values={**{value: value for value in range(count)}, **void},
        description=f"class indices 0..{count - 1}, as declared",
    )
    notices = (f"Pixels of value {', '.join(map(str, void))} are ignored.",) if void else ()
    return _Proposal(encoding, tuple(names), notices)


def _in_order(proposal: _Proposal, names: Sequence[str]) -> _Proposal:
    """Declared names for codes that are no indices: the user is told which one got which."""
    codes = {index: value for value, index in proposal.encoding.values.items() if index != IGNORE}
    if proposal.encoding.kind != "values" or any(value == index for index, value in codes.items() if index):
        return replace(proposal, names=tuple(names))
    listed = ", ".join(f"{codes[index]} is '{name}'" for index, name in enumerate(names) if index in codes)
    return replace(proposal, names=tuple(names), notices=(f"The declared names stand for the mask values: {listed}.",))


def _outside(outside: Sequence[int], survey: _Survey, claim: str) -> DataError:
    lines = [
        f"{value} ({survey.pixels[value]} pixels in {survey.files[value]} files: "
        f"{shortened([path.name for path in survey.examples[value]], 3)})"
        for value in outside[:8]
    ]
    more = f" and {len(outside) - 8} more" if len(outside) > 8 else ""
    example = ", ".join(f"{value}: ignore" for value in outside[:20])
    return UnknownValuesError(
        f"{claim}, but masks hold the values {'; '.join(lines)}{more}.",
        where=survey.examples[outside[0]][0] if outside else survey.richest[0].path,
        remedy=f"Correct these masks, or say in data.yaml what these values mean: `values: {{{example}}}`.",
    )


def _declared_values(survey: _Survey, declaration: Declaration) -> _Proposal:
    """The user's own table from raw values to classes."""
    assert declaration.values is not None
    names = list(declaration.names or ())
    table: dict[int, int] = {}
    for raw, meaning in declaration.values.items():
        table[int(raw)] = _declared_class(meaning, names, fixed=declaration.names is not None)
    if declaration.ignore is not None:
        table[declaration.ignore] = IGNORE
    largest = max((index for index in table.values() if index != IGNORE), default=-1)
    if declaration.names is None:
        names += [f"class {index}" for index in range(len(names), largest + 1)]
    outside = [value for value in survey.values if value not in table and value >= 0]
    if outside:
        raise _outside(outside, survey, f"`values` declares {shortened(sorted(table))}")
    table |= {value: IGNORE for value in survey.values if value < 0 and value not in table}
    encoding = MaskEncoding(kind="values", values=table, description=f"{len(table)} values, as declared")
    return _Proposal(encoding, tuple(names))


def _declared_class(meaning: int | str, names: list[str], *, fixed: bool) -> int:
    """Index of a declared meaning; an undeclared name is appended to `names` unless they are fixed."""
    if meaning == "ignore":
        return IGNORE
    if isinstance(meaning, str) and meaning not in names and not fixed:
        names.append(meaning)
    index = names.index(meaning) if isinstance(meaning, str) and meaning in names else meaning
    if isinstance(index, str) or not (0 <= index < (len(names) if fixed else MAX_CLASSES) or index == IGNORE):
        raise DataError(
            f"`values` maps to '{meaning}', which is no class.",
            remedy=f"Use 'ignore', an index or one of: {', '.join(names)}.",
        )
    return index


# colours, layers, polygons -----------------------------------------------------------------------------------------


def _colors(survey: _Survey, declaration: Declaration) -> _Proposal:
    """RGB masks: a colour per class, black the background."""
    if declaration.colors is not None:
        main = [(r << 16) | (g << 8) | b for r, g, b in declaration.colors]
    else:
        main = _main_colors(survey)
    if len(survey.values) < 2:
        raise _one_class(survey, [unpack_color(value) for value in survey.values])
    if len(main) > MAX_CLASSES or len(main) < 2:
        raise DataError(
            f"The masks hold {len(survey.values)} colours, which do not gather around a few.",
            where=survey.richest[0].path,
            remedy="Check that these are masks and no photographs; declare `colors`, one for each class.",
        )
    stray = [value for value in survey.values if value not in main]
    lossy = bool(survey.lossy_files)
    share = sum(survey.share(value) for value in stray)
    if declaration.colors is not None and share > 0.05 and not lossy:
        shown = ", ".join(str(unpack_color(value)) for value in sorted(stray, key=lambda v: -survey.pixels[v])[:5])
        raise UnknownValuesError(
            f"{share:.1%} of the mask pixels have colours that are not declared, such as {shown}.",
            where=survey.examples[max(stray, key=lambda v: survey.pixels[v])][0],
            remedy="Add them to `colors`.",
        )
    colors = tuple(unpack_color(value) for value in main)
    encoding = MaskEncoding(
        kind="colors",
        colors={color: index for index, color in enumerate(colors)},
        nearest=bool(stray) and lossy,
        other=IGNORE if stray and not lossy else None,
        description=f"{len(colors)} colours, each a class",
    )
    notices = []
    if declaration.colors is None:
        listed = ", ".join(str(color) for color in colors[:12]) + (" ..." if len(colors) > 12 else "")
        notices.append(f"The masks hold colours, in the order of the classes: {listed}. Declare `colors` for another.")
    if stray:
        what = "count as the nearest of them" if lossy else "are ignored"
        notices.append(
            f"{share:.2%} of the mask pixels have one of {len(stray)} other colours (edges, noise) and {what}."
        )
    return _Proposal(encoding, _color_names(colors), tuple(notices), colors)


def _color_names(colors: Sequence[Color]) -> tuple[str, ...]:
    if len(colors) == 2 and colors[0] == (0, 0, 0):
        return "background", "object"
    return tuple("background" if c == (0, 0, 0) and i == 0 else f"class {i}" for i, c in enumerate(colors))


def _main_colors(survey: _Survey) -> list[int]:
    """Colours that are classes: black first if it occurs, then by frequency."""
    ordered = sorted(survey.values, key=lambda value: (value != 0, -survey.pixels[value], value))
    if survey.lossy_files:
        centres = _centres(survey, dimensions=3)
        if _coverage(survey, centres, dimensions=3) < 0.8:
            return []
        return [value for value in ordered if value in centres]
    frequent = [value for value in ordered if survey.share(value) >= 0.01 or value == 0]
    rare = [value for value in ordered if value not in frequent]
    blends = _blends(rare, frequent)
    # a class may by chance lie between two others; a blurred edge leaves a whole series of colours there
    gone = blends if len(blends) >= 8 else set()
    scarce = {v for v in rare if survey.share(v) < 1e-5 and survey.files[v] == 1 and survey.file_count > 2}
    return [value for value in ordered if value not in gone and value not in scarce]


def _blends(values: Sequence[int], ends: Sequence[int]) -> set[int]:
    """Colours on the straight line between two others, as blurred edges have them."""
    if not values or len(ends) < 2:
        return set()
    points = np.array([unpack_color(value) for value in values], dtype=np.float64)
    corners = np.array([unpack_color(value) for value in ends], dtype=np.float64)[:64]
    found = np.zeros(len(values), dtype=bool)
    for i, start in enumerate(corners):
        for end in corners[:i]:
            along = np.clip((points - start) @ (end - start) / ((end - start) ** 2).sum(), 0.0, 1.0)
            found |= np.linalg.norm(start + along[:, None] * (end - start) - points, axis=1) <= 4.0
    return {value for value, blend in zip(values, found.tolist(), strict=True) if blend}


def _layers(survey: _Survey, declaration: Declaration) -> _Proposal:
    """One channel per class that never overlap."""
    if len(survey.channels) > 1:
        raise DataError(
            f"Masks have {' and '.join(map(str, sorted(survey.channels)))} channels.",
            where=survey.richest[0].path,
            remedy="Store the same channels in each mask.",
        )
    if survey.overlapping:
        raise DataError(
            f"In {len(survey.overlapping)} of {survey.file_count} masks a pixel belongs to several channels; "
            "a pixel can have one class only.",
            where=survey.overlapping[0],
            remedy="Decide which class wins and store one channel of class indices, or train one model per channel.",
        )
    (count,) = survey.channels
    complete = 0 not in survey.pixels  # every pixel has a channel, so that the first one is the background
    names = declaration.names
    offset = 0 if complete else 1
    if names is not None and len(names) in (count, count + 1):
        offset = len(names) - count
    table = {channel: channel + offset for channel in range(count)}
    default = tuple("background" if i == 0 and offset else f"class {i}" for i in range(count + offset))
    encoding = MaskEncoding(
        kind="layers", values=table, description=f"{count} channels, one class each", other=None if offset else IGNORE
    )
    notice = f"The masks have {count} channels that never overlap; each is a class, from class {offset} on."
    return _Proposal(encoding, default, (notice,))


def _detect_polygons(cases: Sequence[Case], declaration: Declaration) -> Detection:
    paths = sorted({path for case in cases for path in case.masks})
    kind = polygons.format_of_all(paths)
    labels = polygons.survey(paths, kind)
    names, table = polygons.classes_of(kind, labels, declaration.names)
    by_id = {labels.ids[label]: index for label, index in table.items() if label in labels.ids}
    encoding = MaskEncoding(
        kind=kind,
        values=by_id if kind != "labelme" else {},
        labels=table if kind == "labelme" else {},
        description=f"{kind} polygons, {len(names)} classes",
    )
    notices = [
        f"{count} shapes of kind '{shape}' without area are left out." for shape, count in labels.skipped.items()
    ]
    notices += _unreadable_notice(labels.unreadable)
    proposal = _Proposal(encoding, names, tuple(notices))
    return Detection(encoding, _table(proposal, replace(declaration, names=names)), tuple(notices))


def _table(proposal: _Proposal, declaration: Declaration) -> ClassTable:
    """Classes with the declared names and colours where there are any."""
    names = declaration.names or proposal.names
    if len(names) != len(proposal.names):
        raise DataError(
            f"{len(names)} classes are declared ({shortened(names)}), but the masks hold {len(proposal.names)} "
            f"({proposal.encoding.description}).",
            remedy="Correct `names`, or declare `values`, the meaning of each value.",
        )
    if not 2 <= len(names) <= MAX_CLASSES or len(set(names)) < len(names):
        raise DataError(
            f"{len(names)} classes ({shortened(names)}) cannot be told apart.",
            remedy=f"There must be from 2 to {MAX_CLASSES}, each with its own name; the background is one of them.",
        )
    colors = declaration.colors or proposal.colors
    if colors is not None and len(colors) != len(names):
        raise DataError(
            f"{len(colors)} colours are declared for {len(names)} classes.",
            remedy="Give as many `colors` as `names`, the background included.",
        )
    return ClassTable.from_names(list(names), list(colors or (default_color(i) for i in range(len(names)))))


def _unreadable_notice(errors: Sequence[DataError]) -> list[str]:
    if not errors:
        return []
    return [f"{len(errors)} mask files cannot be read and were left out, the first: {errors[0]}"]
