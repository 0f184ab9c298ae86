"""Masks that can be read in two ways: the errors that say so, with the lines of a data.yaml that settle it.

Counts alone read such masks as something, and a model would be trained on it without a word. Every error names files of
both kinds.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from pixelwise.classes import IGNORE
from pixelwise.data.masks import shortened
from pixelwise.data.reading import read_mask
from pixelwise.data.survey import Form, Sample, Survey, near
from pixelwise.errors import DataError

_INDICES_BELOW = 10
"""The smallest code of a class in grey masks; what is below beside such codes is an index, or noise."""
_OTHERS = 3
"""Beside so many times as many files with classes, files of nothing but 255 may be those that nobody labelled."""
_DRAWN_PX = 16
"""Pieces of a drawn object have more pixels on average, those of noise fewer."""
_FEWEST_NUMBERED = 5
"""So many files with objects show a habit of numbering."""
_MANY_AT_ONCE = 4
"""So many values in each file are rarely classes of which each is one piece anywhere."""
_SINGLE = 0.9
"""Of numbered objects, so many are one connected piece."""
_PIXELS = 2**26
"""So many pixels are looked at before the pieces of few files are enough."""
_EXPLAINED = 0.7
"""Classes have places or sizes of their own: the value explains so much of how these vary."""


def refuse_swallowed(survey: Survey, centres: Sequence[int]) -> None:
    """Stops where values count as the nearest of some codes, and files of indices beside them would count as nothing.

    Args:
        survey: of all masks.
        centres: the codes.

    Raises:
        DataError: a file without noise has its classes nearest to one code.
    """
    small = [
        form
        for form in survey.forms
        if not form.lossy and _is_run(form.values) and len({_nearest(value, centres) for value in form.values}) == 1
    ]
    # tiles cut from JPEG may hold nothing but a little noise beside zeros
    small = [form for form in small if any(_is_drawn(sample) for sample in survey.formed[form])]
    if not small:
        return
    held = sorted({value for form in small for value in form.values})
    noise = [value for value in survey.values if value not in centres and value not in held]
    noisy = sorted({one.name for value in noise for one in survey.examples[value]})
    raise DataError(
        f"The masks are stored in two ways: {_holders(survey, small)} {_joined(held)}, others the grey values "
        f"{_joined(centres)}, of which some were resized or stored as JPEG ({shortened(noisy, 3)}), so that their "
        f"values scatter. A pixel of {held[-1]} belongs to a class in the former and is noise in the latter.",
        where=survey.formed[small[0]][0].path,
        remedy=f"Save the former with the values of the others ({held[-1]} as {centres[-1]}), or bring the latter to "
        "exactly these values (a threshold half-way between them) and store them as PNG.",
    )


def refuse_two_meanings(survey: Survey, names: Sequence[str], *, declared: bool = False) -> str:
    """Stops where 255 is likely to be the object of other masks, and not what does not count.

    Where 255 marks what nobody labelled it lies beside the classes, in the same files. It may be rare, and images that
    hold nothing else do occur. But if it never stands beside a class although both have many files, or is in most
    files and classes are in few, then these files were stored in another way.

    Args:
        survey: of class indices.
        names: of the classes.
        declared: the user gave them; where each is that of an index, 255 is no class, and few files of it are no error.

    Returns:
        What is to be said of such few files; nothing where there are none.

    Raises:
        DataError: with the lines that settle it.
    """
    if sum(survey.forms.values()) < survey.file_count or IGNORE not in survey.pixels:
        return ""
    bare = [form for form in survey.forms if set(form.values) - {0} == {IGNORE}]
    indexed = [form for form in survey.forms if any(0 < value < IGNORE for value in form.values)]
    if not bare or not indexed or any(IGNORE in form.values for form in indexed):
        return ""
    alone, others = sum(survey.forms[form] for form in bare), sum(survey.forms[form] for form in indexed)
    # so many files would hold both by chance; three make that none does unlikely (1 in 20)
    if alone <= others and alone * others / (alone + others) < 3:
        return ""
    if declared and _OTHERS * alone <= others and set(range(len(names))) <= set(survey.values):
        return f"{_holders(survey, bare)} no other values than 0 and {IGNORE}, for which `names` leaves no class."
    held = sorted({value for form in indexed for value in form.values if 0 < value < IGNORE})
    called = dict(enumerate(names))
    table = ", ".join(f"{value}: {called.get(value, f'class {value}')}" for value in [0, *held][:20])
    raise DataError(
        f"{_holders(survey, bare)} no other values than 0 and {IGNORE}, {_holders(survey, indexed)} class indices "
        f"({shortened(held)}) and never {IGNORE}: are these masks of two kinds, or does {IGNORE} mark what "
        "does not count?",
        where=survey.formed[indexed[0] if alone > others else bare[0]][0].path,
        remedy="Replace the masks that were stored in another way, or say in data.yaml what the value means: "
        f"`ignore: {IGNORE}`, or as a class, with a name of its own or one of the others', "
        f"`values: {{{table}, {IGNORE}: object}}`.",
    )


def refuse_indices_beside_colors(survey: Survey, declared: Collection[int]) -> None:
    """Stops where masks in colour stand beside masks of class indices, which would count as shades of grey.

    Grey is a colour as others are, and programs store a picture that holds grey only with one channel. So a file of one
    channel may hold what files in colour hold, too; one that says grey with three channels may hold anything but the
    smallest numbers, which nobody could see.

    Args:
        survey: of colours.
        declared: colours of which the user says what they mean.

    Raises:
        DataError: some masks hold grey values that are no colours of the others.
    """
    greys = survey.greys
    if greys is None:
        return
    grey_files = {value * 0x10101: files for value, files in greys.files.items()}
    shown = [color for color in survey.values if survey.files[color] > grey_files.get(color, 0)]
    known = {*(near(survey, shown) if survey.lossy_files else shown), *declared}
    strange = {value for value in greys.values if value > 0 and value * 0x10101 not in known}
    indexed = [
        form
        for form in greys.forms
        if strange.intersection(form.values) and (form.channels == 1 or form.values[-1] < _INDICES_BELOW)
    ]
    if not indexed:
        return
    held = sorted({value for form in indexed for value in form.values})
    count = survey.file_count - greys.file_count
    raise DataError(
        f"{count} of {survey.file_count} masks {'is' if count == 1 else 'are'} in colour, such as "
        f"{survey.richest[0].path.name}, and {_holders(greys, indexed)} one number for each pixel ({shortened(held)}), "
        "which the others show in no place as grey.",
        where=greys.formed[indexed[0]][0].path,
        remedy="Store all masks in the same way: as class indices, or in colour. If these numbers are shades of grey "
        "that stand for classes, list the colours of all classes in data.yaml: `colors: [[red, green, blue], ...]`.",
    )


def refuse_lossy_indices(survey: Survey, values: Sequence[int]) -> None:
    """Stops where masks of class indices are stored as JPEG, which changes values by more than indices differ.

    Raises:
        DataError: a JPEG file holds one of the values above 0.
    """
    lossy = [form for form in survey.forms if form.lossy and any(value > 0 for value in form.values)]
    if not lossy:
        return
    exact = {value for form in survey.forms if not form.lossy for value in form.values}
    only = [value for value in values if value not in exact] if exact else []
    invented = f"; {_joined(only)} {'occurs' if len(only) == 1 else 'occur'} in these only" if only else ""
    table = ", ".join(f"{value}: {'ignore' if value in only else value}" for value in values[:20])
    line = f": `values: {{{table}}}`" if exact else ", with `values` in data.yaml"
    held = sorted({value for form in lossy for value in form.values})
    count = sum(survey.forms[form] for form in lossy)
    raise DataError(
        f"JPEG cannot hold class indices, for it changes values by more than indices differ, and makes new ones "
        f"between them. {count} of {survey.file_count} masks {'is a JPEG file' if count == 1 else 'are JPEG files'} "
        f"({_names(survey, lossy)}), with the values {_joined(held)}{invented}.",
        where=survey.formed[lossy[0]][0].path,
        remedy="Export these masks again, as PNG, from the program they were drawn with, or leave them out; converting "
        f"the JPEG files does not help. To use them all the same, declare what the values mean{line}.",
    )


def refuse_numbers(survey: Survey) -> None:
    """Stops where values are as likely the numbers of objects as classes.

    Raises:
        DataError: with both lines.
    """
    if not looks_numbered(survey):
        return
    most = survey.values[-1]
    by_count = sorted(survey.forms, key=lambda form: len(form.values))
    few = next(form for form in by_count if max(form.values) > 0)
    classes = ", ".join(["background", *(f"class {value}" for value in range(1, most + 1))])
    least = max(few.values)
    where = f" ({survey.formed[few][0].path.name})", f" ({survey.formed[by_count[-1]][0].path.name})"
    reach = f"to {least} in some files{where[0]} and to {most} in others{where[1]}" if least < most else f"to {most}"
    raise DataError(
        f"The masks hold the values from 1 {reach}, without gaps, and each value is one piece: "
        "are these the numbers of single objects, or classes?",
        where=survey.formed[by_count[-1]][0].path,
        remedy="Say it in data.yaml. Numbers of objects, which become one class: `objects: true`. "
        f"Classes: `names: [{classes}]`.",
    )


def looks_numbered(survey: Survey) -> bool:
    """Whether values look like the numbers of few objects per file.

    Every file holds 1 to n without gaps, and each value is one connected piece. Classes that are one piece each, as
    organs are, have a place or a size of their own, and mostly the same ones are in a file: where n does not differ
    either, nothing at all may tell the values apart.
    """
    if sum(survey.forms.values()) < survey.file_count or any(value < 0 for value in survey.values):
        return False
    counts = {form: len([value for value in form.values if value > 0]) for form in survey.forms}
    numbers = {form: count for form, count in counts.items() if count}
    files = sum(survey.forms[form] for form in numbers)
    usual = max((survey.forms[form] for form in numbers), default=0)
    if files < _FEWEST_NUMBERED or any(max(form.values) != count for form, count in numbers.items()):
        return False
    differs = 2 * usual <= files and len(set(numbers.values())) >= 3
    if not differs and max(numbers.values()) < _MANY_AT_ONCE:
        return False
    explained = _explained_by_value([sample for form in numbers for sample in survey.formed[form]][:24])
    if explained is None:
        return False
    column, row, size = explained
    # numbers are often given from top to bottom, so that rows tell nothing where the count differs
    return max(column, size) < _EXPLAINED if differs else max(column, row, size) < _EXPLAINED / 2


def _explained_by_value(samples: Sequence[Sample]) -> list[float] | None:
    """How much of the variance of column, row and size of its pixels the value explains; none if it is many pieces."""
    from scipy import ndimage

    values: list[int] = []
    places: list[tuple[float, float, float]] = []
    most = sum(int((sample.values > 0).sum()) for sample in samples)
    scattered = 0
    for sample in _within(samples, _PIXELS):
        raw = read_mask(sample.path, sample.case)
        # a value is looked for where it lies; there are no gaps below the largest
        boxes = ndimage.find_objects(raw.astype(np.int32))
        for value, box in enumerate(boxes, 1):
            mask = raw[box] == value
            _, pieces = ndimage.label(mask, structure=np.ones((3, 3)))
            scattered += pieces != 1
            rows, columns = np.nonzero(mask)
            middle = (box[1].start + columns.mean()) / raw.shape[1], (box[0].start + rows.mean()) / raw.shape[0]
            values.append(value)
            places.append((*middle, np.log(rows.size / raw.size)))
        if scattered > (1 - _SINGLE) * most:
            return None
    return _explained(np.array(values), np.array(places)) if scattered <= (1 - _SINGLE) * len(values) else None


def _within(samples: Sequence[Sample], pixels: int) -> Iterator[Sample]:
    """The first of them, until they have so many pixels together; at least as many as show a habit."""
    seen = 0
    for number, sample in enumerate(samples):
        if number >= _FEWEST_NUMBERED and seen >= pixels:
            return
        seen += int(sample.counts.sum())
        yield sample


def _explained(values: Int[np.ndarray, " N"], places: Float[np.ndarray, "N D"]) -> list[float]:
    """The share of the variance that lies between the values, for each measure; 0 where chance would do."""
    kinds, members = np.unique(values, return_inverse=True)
    if values.size <= kinds.size:
        return [0.0] * places.shape[1]
    means = np.stack([places[members == kind].mean(axis=0) for kind in range(kinds.size)])
    within = ((places - means[members]) ** 2).sum(axis=0) / (values.size - kinds.size)
    total = places.var(axis=0, ddof=1)
    # a measure that hardly varies at all tells nothing
    return [float(1.0 - inner / whole) if whole > 1e-6 else 0.0 for inner, whole in zip(within, total, strict=True)]


def _is_run(values: Sequence[int]) -> bool:
    """0, 1 and perhaps a few more, as indices are."""
    return 1 < len(values) <= _INDICES_BELOW and tuple(values) == tuple(range(len(values)))


def _is_drawn(sample: Sample) -> bool:
    """Whether what is not 0 lies in pieces of some size."""
    from scipy import ndimage

    found = read_mask(sample.path, sample.case) > 0
    _, pieces = ndimage.label(found, structure=np.ones((3, 3)))
    return bool(found.sum() >= _DRAWN_PX * pieces)


def _nearest(value: int, centres: Sequence[int]) -> int:
    return min(centres, key=lambda centre: abs(centre - value))


def _holders(survey: Survey, forms: Sequence[Form]) -> str:
    """Such as '7 masks (07.png, 08.png, 09.png ...) hold'."""
    count = sum(survey.forms[form] for form in forms)
    return f"{count} mask{'' if count == 1 else 's'} ({_names(survey, forms)}) {'holds' if count == 1 else 'hold'}"


def _names(survey: Survey, forms: Sequence[Form]) -> str:
    """The first three files."""
    names = [sample.path.name for form in forms for sample in survey.formed[form]][:3]
    return ", ".join(names) + (" ..." if sum(survey.forms[form] for form in forms) > len(names) else "")


def _joined(values: Sequence[int]) -> str:
    """Such as '0, 1 and 2'."""
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last
