"""What mask files mean: `detect` finds out for a whole data set.

`data.survey` looks at every mask once and counts its values or colours. What the user declares about them holds; the
rest is read from the counts, by `data.rules` where a mask has one channel. Whatever is concluded, and not declared, is
said in a notice.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pixelwise.classes import IGNORE, MAX_CLASSES, ClassTable, Color, default_color
from pixelwise.data import legends, polygons
from pixelwise.data.dataset import Case, MaskEncoding
from pixelwise.data.doubts import looks_numbered, refuse_indices_beside_colors, refuse_lossy_indices
from pixelwise.data.edges import edges_in, main_colors
from pixelwise.data.legends import Legend
from pixelwise.data.masks import UnknownValuesError, pack_colors, shortened, unpack_color
from pixelwise.data.reading import read_palette
from pixelwise.data.rules import (
    VOID_VALUES,
    Proposal,
    by_index,
    ignored,
    looks_like_objects,
    numbered,
    one_class,
    propose,
)
from pixelwise.data.survey import Survey, near, take_survey
from pixelwise.errors import DataError

_MOST_STRAY = 0.05
"""Edges may take so much of all mask pixels."""
_CLOSE = 10
"""JPEG may make one value of another where they differ by less."""


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
    ignore_colors: tuple[Color, ...] = ()
    """Colours of pixels that do not count."""
    by_class: Literal["", "overlap is an error", "overlap is ignored"] = ""
    """Each class but the first has mask files of its own (`Case.parts`), and what is to be done where two meet."""
    numbered: bool = False
    """The masks are of a program that numbers objects; names of more than two classes say otherwise."""
    objects: bool = False
    """The user says that values above 0 are the numbers of objects, which are one class."""
    legend: Legend | None = None
    """What a list of classes beside the masks says; it holds where the masks agree with it."""


@dataclass(frozen=True)
class Detection:
    """How to read the masks, the classes in them, and what the user should know."""

    encoding: MaskEncoding
    classes: ClassTable
    notices: tuple[str, ...]
    listed: bool = False
    """A list of classes beside the masks gave their names."""


def detect(cases: Sequence[Case], declaration: Declaration) -> Detection:
    """Finds out what the masks of a data set mean.

    Files that cannot be read are passed over; `data.check` lists them.

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
    return _detect_pictures(labelled, declaration)


def _detect_pictures(cases: Sequence[Case], declaration: Declaration) -> Detection:
    several = any(len(case.masks) > 1 for case in cases)
    survey = take_survey(cases, by_index=several or _is_table(declaration) or declaration.objects)
    if not survey.file_count:
        raise survey.unreadable[0]
    survey, counted = _with_numbers(survey, declaration)
    declaration, said = _with_legend(declaration, cases, survey)
    said = (*counted, *said)
    _refuse_objects(survey, declaration)
    if declaration.by_class:
        _refuse(declaration, "values", "ignore", "ignore_colors", what="Each class has masks of its own")
        proposal = _by_class(survey, declaration)
    elif survey.kind == "layers":
        _refuse(declaration, "values", "ignore", "ignore_colors", what="The masks hold one channel per class")
        proposal = _layers(survey, declaration)
    elif survey.kind == "color":
        _refuse(declaration, "values", "ignore", what="The masks hold a colour per class")
        proposal = _colors(survey, declaration)
    else:
        _refuse(declaration, "ignore_colors", what="The masks hold one value per pixel and no colours")
        proposal = _with_palette(_values(survey, declaration, several=several), survey, declaration)
    notices = (*said, *proposal.notices)
    return Detection(proposal.encoding, _table(proposal, declaration), notices, listed=declaration.legend is not None)


def _with_numbers(survey: Survey, declaration: Declaration) -> tuple[Survey, tuple[str, ...]]:
    """The indices where they are numbers of objects, which programs paint in colours of their own in each file."""
    indexed = survey.indexed
    if indexed is None or declaration.colors is not None or declaration.ignore_colors:
        return survey, ()
    # names of two classes leave no room for more colours
    two = declaration.names is not None and len(declaration.names) == 2 and len(survey.values) > 2
    if not two and (declaration.names is not None or not _painted_by_file(survey)):
        return survey, ()
    void = () if declaration.ignore is None else (declaration.ignore,)
    if not two and not looks_like_objects(indexed.without(void)):
        return survey, ()
    why = "2 names are declared, and there are more colours" if two else "most colours are in one file only"
    return indexed, (f"{survey.clash}: the indices count and not the colours, for {why}.",)


def _painted_by_file(survey: Survey) -> bool:
    """Whether most colours occur in one file only; those of classes come back."""
    colors = [value for value in survey.values if value]
    return sum(survey.files[value] == 1 for value in colors) > len(colors) / 2 and survey.file_count > 1


def _refuse_objects(survey: Survey, declaration: Declaration) -> None:
    """`objects` says all there is to say of masks of numbers, and nothing of others."""
    if not declaration.objects:
        return
    if declaration.by_class or survey.kind != "scalar":
        kinds = {"color": "The masks are in colour", "layers": "The masks hold one channel per class"}
        what = "Each class has masks of its own" if declaration.by_class else kinds[survey.kind]
        raise DataError(f"{what}, for which `objects` means nothing.", remedy="Delete it.")
    if _is_table(declaration) or len(declaration.names or ("", "")) != 2:
        raise DataError(
            "With `objects: true` every value above 0 is the one class 'object', but data.yaml declares other classes.",
            remedy="Delete `objects`, or give two `names`, the background first, and in `values` only what to ignore.",
        )


def _with_legend(
    declaration: Declaration, cases: Sequence[Case], survey: Survey
) -> tuple[Declaration, tuple[str, ...]]:
    """What the user declares, and the classes of a list beside the masks if these agree with it; what to say of it."""
    legend = declaration.legend
    if legend is None or declaration.objects:
        return replace(declaration, legend=None), ()
    main = main_colors(survey) if survey.kind == legend.by == "color" else []
    void = [*_packed(declaration.ignore_colors), *([] if declaration.ignore is None else [declaration.ignore])]
    fitted = legends.fit(legend, cases, survey, main, void)
    if isinstance(fitted, str):
        notice = f"The classes in {legend.source} were not used: {fitted}. `names` in a data.yaml names them."
        return replace(declaration, legend=None), (notice,)
    left = f" Left out, for no mask holds them: {shortened(fitted.absent, 12)}." if fitted.absent else ""
    return replace(
        declaration,
        names=fitted.names,
        colors=fitted.colors,
        values=fitted.values,
        ignore_colors=(*declaration.ignore_colors, *fitted.ignore_colors),
    ), (f"The classes are those of {legend.source}.{left}",)


def _is_table(declaration: Declaration) -> bool:
    """Whether the user says what values mean, each or by files, and not only which ones do not count."""
    return bool(declaration.by_class) or any(meaning != "ignore" for meaning in (declaration.values or {}).values())


def _refuse(declaration: Declaration, *fields: str, what: str) -> None:
    """What cannot hold for masks of this kind is an error: passed over, it would be taken for done."""
    for field in fields:
        if getattr(declaration, field) not in (None, ()):
            key, remedy = _WITHOUT_EFFECT[field]
            raise DataError(f"{what}, for which {key} means nothing.", remedy=remedy)


_WITHOUT_EFFECT = {
    "values": (
        "`values` (or `names` by raw value)",
        "Delete it; write `names` as a list, and `colors` for masks in colour.",
    ),
    "ignore": ("`ignore` of one value", "Delete it, or write `ignore: [red, green, blue]` for masks in colour."),
    "ignore_colors": (
        "`ignore` of a colour",
        "Delete it, or give the raw value, such as `ignore: 255`; that of a palette mask is its index.",
    ),
}
"""Keys of a data.yaml by what they become in a `Declaration`, and what to write where they cannot hold."""


# one channel of values ---------------------------------------------------------------------------------------------


def _values(survey: Survey, declaration: Declaration, *, several: bool) -> Proposal:
    """The meaning of the values: what is declared first, then the rules; a case may have `several` files."""
    declared = declaration.values or {}
    if _is_table(declaration):
        return _declared_values(survey, declaration)
    void = {value for value in survey.values if value < 0} | set(declared)
    if declaration.ignore is not None:
        void.add(declaration.ignore)
    clean = survey.without(void)
    if several:
        proposal = _union(clean)
    elif declaration.objects and any(value > 0 for value in clean.values):
        proposal = numbered()
    elif declaration.numbered and len(declaration.names or ()) in (0, 2) and len(clean.values) > 1:
        proposal = numbered(
            ["The masks are called as those of Cellpose, which number objects: every value above 0 is 'object'."]
        )
    elif declaration.names is not None:
        proposal = _named(clean, declaration.names)
    else:
        proposal = propose(clean)
    return _with_void(proposal, void, survey)


def _union(survey: Survey) -> Proposal:
    """Several files per case: each holds a part of the object."""
    if not any(value > 0 for value in survey.values):
        raise one_class(survey, survey.values)
    notice = f"Cases have several mask files ({survey.file_count} in all); together they are the one class 'object'."
    encoding = MaskEncoding(kind="union", description="several files per image, their union is the object")
    return Proposal(encoding, ("background", "object"), (notice,))


def _by_class(survey: Survey, declaration: Declaration) -> Proposal:
    """Each file is one class."""
    if survey.lossy_files:
        raise DataError(
            f"{survey.lossy_files} masks are stored as JPEG, which leaves values above 0 around what was drawn.",
            where=survey.richest[0].path.parent,
            remedy="Where each class has masks of its own, store them as PNG.",
        )
    if not any(value > 0 for value in survey.values):
        raise one_class(survey, survey.values)
    names = declaration.names or ()
    held = f", of which one holds {survey.most_values} values" if survey.most_values > 1 else ""
    notice = (
        f"Each class has mask files of its own ({survey.file_count} in all{held}): every value above 0 is the class."
    )
    encoding = MaskEncoding(
        kind="files",
        labels={name: index for index, name in enumerate(names) if index},
        other=IGNORE if declaration.by_class == "overlap is ignored" else None,
        description=f"mask files for each of {shortened(names[1:])}",
    )
    return Proposal(encoding, names, (notice,))


def _with_void(proposal: Proposal, void: Iterable[int], survey: Survey) -> Proposal:
    """Adds values that are ignored by declaration or because they are negative."""
    added = dict.fromkeys(sorted(void), IGNORE)
    if not added:
        return proposal
    listed = ", ".join(map(str, added))
    encoding = proposal.encoding.model_copy(
        update={
            "values": {**proposal.encoding.values, **added},
            "description": f"{proposal.encoding.description}; {listed} ignored",
        }
    )
    return replace(proposal, encoding=encoding, notices=(*proposal.notices, ignored(list(added), survey)))


def _named(survey: Survey, names: Sequence[str]) -> Proposal:
    """Names say how many classes there are: values are indices, or as many codes as there are names."""
    count = len(names)
    values = [value for value in survey.values if value not in VOID_VALUES]
    if set(values) <= set(range(count)) and len(values) > 1:
        _refuse_lossy(survey, values)
        return by_index(survey, names, declared=True)
    if count == 2 and looks_numbered(survey):
        return replace(numbered(), names=tuple(names))
    proposal = propose(survey)
    fits = len(proposal.names) == count
    if fits and proposal.encoding.other is None:
        return _in_order(proposal, names)
    known = proposal.encoding.values if fits else range(count)
    outside = [value for value in values if value not in known]
    raise _outside(outside, survey, f"{count} classes are declared ({shortened(names)})", numbers=count == 2)


def _refuse_lossy(survey: Survey, values: Sequence[int]) -> None:
    """Names, of a list or declared, do not say that values which JPEG may have made count: `values` do."""
    if len(values) > 2 and np.diff(values).min() < _CLOSE:
        refuse_lossy_indices(survey, values)


def _in_order(proposal: Proposal, names: Sequence[str]) -> Proposal:
    """Declared names for codes that are no indices: the user is told which one got which."""
    codes = {index: value for value, index in proposal.encoding.values.items() if index != IGNORE}
    if proposal.encoding.kind != "values" or any(value == index for index, value in codes.items() if index):
        return replace(proposal, names=tuple(names))
    listed = ", ".join(f"{codes[index]} is '{name}'" for index, name in enumerate(names) if index in codes)
    return replace(proposal, names=tuple(names), notices=(f"The declared names stand for the mask values: {listed}.",))


def _outside(outside: Sequence[int], survey: Survey, claim: str, *, numbers: bool = False) -> DataError:
    lines = [
        f"{value} ({survey.pixels[value]} pixels in {survey.files[value]} files: "
        f"{shortened([one.name for one in survey.examples[value]], 3)})"
        for value in outside[:8]
    ]
    more = f" and {len(outside) - 8} more" if len(outside) > 8 else ""
    example = ", ".join(f"{value}: ignore" for value in outside[:20])
    objects = " If they are the numbers of objects, which are one class: `objects: true`." if numbers else ""
    return UnknownValuesError(
        f"{claim}, but masks hold the values {'; '.join(lines)}{more}.",
        where=survey.examples[outside[0]][0].path if outside else survey.richest[0].path,
        remedy=f"Correct these masks, or say in data.yaml what these values mean: `values: {{{example}}}`.{objects}",
    )


def _declared_values(survey: Survey, declaration: Declaration) -> Proposal:
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
    if declaration.legend is not None:
        _refuse_lossy(survey, [value for value in survey.values if table[value] != IGNORE])
    encoding = MaskEncoding(kind="values", values=table, description=f"{len(table)} values, as declared")
    return Proposal(encoding, tuple(names))


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


def _with_palette(proposal: Proposal, survey: Survey, declaration: Declaration) -> Proposal:
    """Classes get the colours of the first palette among the masks, if these tell the classes apart."""
    encoding = proposal.encoding
    first = {index: value for value, index in reversed(list(encoding.values.items()))}
    raw = [first.get(index, -1) for index in range(len(proposal.names))]
    wanted = declaration.colors is None and encoding.kind == "values" and not encoding.nearest
    if not wanted or not all(0 <= value <= 255 for value in raw):
        return proposal
    path, page = next(((one.path, one.case.page) for one in survey.richest if one.palette is not None), (None, None))
    palette = read_palette(path, page) if path is not None else None
    if path is None or palette is None:
        return proposal
    colors: list[Color] = [(red, green, blue) for red, green, blue in palette[raw].tolist()]
    grey = all(len(set(color)) == 1 for color in colors)
    usual = colors == [default_color(index) for index in range(len(colors))]
    if grey or usual or len(set(colors)) < len(colors):
        return proposal
    notice = f"The classes have the colours of the palette of {path.name}."
    return replace(proposal, colors=tuple(colors), notices=(*proposal.notices, notice))


# colours, layers, polygons -----------------------------------------------------------------------------------------


def _colors(survey: Survey, declaration: Declaration) -> Proposal:
    """RGB masks: a colour per class, black the background."""
    declared = declaration.colors is not None
    void = _void_of(survey, declaration)
    refuse_indices_beside_colors(survey, {*_packed(declaration.colors or ()), *void})
    clean = survey.without(void)
    if len(clean.values) < 2:
        raise one_class(clean, [unpack_color(value) for value in clean.values])
    # colours that do not count are left out last: blurred edges lead to them, too
    main = _packed(declaration.colors or ()) or [value for value in main_colors(survey) if value not in void]
    if len(main) > MAX_CLASSES or len(main) < 2:
        raise DataError(
            f"The masks hold {len(clean.values)} colours, which do not gather around a few.",
            where=survey.richest[0].path,
            remedy="Check that these are masks and no photographs; declare `colors`, one for each class.",
        )
    if not declared and declaration.names is not None:
        _refuse_order(main, declaration.names, clean)
    stray = [value for value in clean.values if value not in main]
    lossy = bool(survey.lossy_files)
    if declared and not lossy:
        _refuse_undeclared(stray, survey)
    if not declared and not lossy:
        _refuse_smoothed(main, stray, survey)
    colors = tuple(unpack_color(value) for value in main)
    encoding = MaskEncoding(
        kind="colors",
        colors={
            **{color: index for index, color in enumerate(colors)},
            **dict.fromkeys(declaration.ignore_colors, IGNORE),
        },
        nearest=lossy and bool(stray or void),
        other=IGNORE if stray and not lossy else None,
        description=f"{len(colors)} colours, each a class" + (", others ignored" if void else ""),
    )
    notices = _color_notices(survey, declaration, colors, stray)
    if void:
        share = sum(survey.share(value) for value in void)
        notices.append(f"Pixels of colour {shortened(declaration.ignore_colors)} are ignored ({share:.2%}).")
    return Proposal(encoding, _color_names(colors), tuple(notices), colors)


def _color_notices(
    survey: Survey, declaration: Declaration, colors: Sequence[Color], stray: Collection[int]
) -> list[str]:
    notices = []
    if survey.clash is not None:
        notices.append(
            f"{survey.clash}: the colours count, and each mask is read through its own palette. If the indices are "
            "the classes whatever their colours, declare `values`."
        )
    if declaration.colors is None:
        named = [f"{color} is '{name}'" for color, name in zip(colors, declaration.names or (), strict=False)]
        listed = ", ".join((named or list(map(str, colors)))[:12]) + (" ..." if len(colors) > 12 else "")
        notices.append(f"The masks hold colours, in the order of the classes: {listed}. Declare `colors` for another.")
    if stray:
        what = "count as the nearest of them" if survey.lossy_files else "are ignored"
        share = sum(survey.share(value) for value in stray)
        notices.append(
            f"{share:.2%} of the mask pixels have one of {len(stray)} other colours (edges, noise) and {what}."
        )
    return notices


def _packed(colors: Sequence[Color]) -> list[int]:
    return [int(value) for value in pack_colors(np.array(colors, dtype=np.int64).reshape(-1, 3))]


def _void_of(survey: Survey, declaration: Declaration) -> set[int]:
    """The colours of the masks that do not count; with JPEG also those that lie around them."""
    twice = [c for c, n in Counter([*(declaration.colors or ()), *declaration.ignore_colors]).items() if n > 1]
    if twice:
        raise DataError(f"The colour {twice[0]} is twice in `colors` and `ignore`.", remedy="Leave one of them.")
    void = _packed(declaration.ignore_colors)
    return set(near(survey, void)) if survey.lossy_files else set(void)


def _refuse_order(main: Sequence[int], names: Sequence[str], survey: Survey) -> None:
    """Names without colours: nothing but black, the background, and one other colour have an order of their own."""
    if main[0] == 0 and len(main) == len(names) == 2:
        return
    raise DataError(
        f"{len(names)} names are declared ({shortened(names)}), but not which of the {len(main)} colours of the masks "
        f"stands for which.{f' {survey.clash}, so that the colours count.' if survey.clash is not None else ''}",
        where=survey.richest[0].path,
        remedy="Say it in data.yaml, with these lines in the order of `names`; what does not count goes into "
        "`ignore: [[red, green, blue]]`:\n" + _color_lines(main, survey),
    )


def _color_lines(main: Sequence[int], survey: Survey) -> str:
    """Colours as lines of a data.yaml that wait for an order."""
    lines = [
        f"  - {list(unpack_color(value))}  # {survey.share(value):.1%} of the pixels, as in "
        f"{survey.examples[value][0].name}"
        for value in main[:40]
    ]
    more = [f"  # and {len(main) - 40} more"] if len(main) > 40 else []
    return "\n".join(["colors:", *lines, *more])


def _refuse_undeclared(stray: Sequence[int], survey: Survey) -> None:
    """Blurred edges have pixels of other colours; more than a few, if they cover areas, are a forgotten class."""
    share = sum(survey.share(value) for value in stray)
    if share <= _MOST_STRAY:
        return
    edges = edges_in(survey)
    if sum(survey.share(value) for value in stray if value not in edges) <= _MOST_STRAY:
        return
    frequent = sorted(stray, key=lambda value: -survey.pixels[value])[:5]
    raise UnknownValuesError(
        f"{share:.1%} of the mask pixels have colours that are not declared, such as "
        f"{', '.join(str(unpack_color(value)) for value in frequent)}.",
        where=survey.examples[frequent[0]][0].path,
        remedy="Add them to `colors`, or to `ignore: [[red, green, blue]]` if they do not count.",
    )


def _refuse_smoothed(main: Sequence[int], stray: Sequence[int], survey: Survey) -> None:
    """Edges that are ignored are a few pixels; where they are many, borders of objects would not be learned."""
    share = sum(survey.share(value) for value in stray)
    if share <= _MOST_STRAY:
        return
    frequent = max(stray, key=lambda value: survey.pixels[value])
    raise DataError(
        f"{share:.1%} of the mask pixels have one of {len(stray)} colours that cover no area, such as "
        f"{unpack_color(frequent)}: the masks were smoothed, and only {len(main)} colours seem to be classes.",
        where=survey.examples[frequent][0].path,
        remedy="Export the masks again without smoothing (no antialiasing; resize with nearest), or declare the "
        f"colours that are classes, and pixels of the others are ignored:\n{_color_lines(main, survey)}",
    )


def _color_names(colors: Sequence[Color]) -> tuple[str, ...]:
    if len(colors) == 2 and colors[0] == (0, 0, 0):
        return "background", "object"
    return tuple("background" if c == (0, 0, 0) and i == 0 else f"class {i}" for i, c in enumerate(colors))


def _layers(survey: Survey, declaration: Declaration) -> Proposal:
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
    return Proposal(encoding, default, (notice,))


def _detect_polygons(cases: Sequence[Case], declaration: Declaration) -> Detection:
    paths = sorted({path for case in cases for path in case.masks})
    kind = polygons.format_of_all(paths)
    if declaration.by_class:
        raise DataError(
            f"The masks are {kind} polygons, which name their classes.", remedy="Write one pattern in `masks`."
        )
    _refuse(declaration, "values", "ignore", "ignore_colors", what=f"The masks are {kind} polygons")
    if declaration.objects:
        raise DataError(f"The masks are {kind} polygons, for which `objects` means nothing.", remedy="Delete it.")
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
    proposal = Proposal(encoding, names, tuple(notices))
    return Detection(encoding, _table(proposal, replace(declaration, names=names)), tuple(notices))


def _table(proposal: Proposal, declaration: Declaration) -> ClassTable:
    """Classes with the declared names and colours where there are any."""
    names = declaration.names or proposal.names
    if len(names) != len(proposal.names):
        raise DataError(
            f"{len(names)} classes are declared ({shortened(names)}), but the masks hold {len(proposal.names)} "
            f"({proposal.encoding.description}).",
            remedy="If each class has files of its own, say which: `masks: {NAME: PATTERN, OTHER: PATTERN}`."
            if proposal.encoding.kind == "union"
            else "Correct `names`, or declare `values`, the meaning of each value.",
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
