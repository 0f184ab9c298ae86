"""What the values of one-channel masks mean when nobody declares it: rules that read it from counts.

Each rule in `RULES` answers with a proposal, or with nothing where it does not apply. They are tried in order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pixelwise.classes import IGNORE, MAX_CLASSES, Color
from pixelwise.data.dataset import MaskEncoding
from pixelwise.data.doubts import (
    looks_numbered,
    refuse_lossy_indices,
    refuse_numbers,
    refuse_swallowed,
    refuse_two_meanings,
)
from pixelwise.data.masks import shortened
from pixelwise.data.reading import read_mask
from pixelwise.data.survey import Survey, centres_of, share_near, solid
from pixelwise.errors import DataError

VOID_VALUES = (-1, IGNORE, 65535)
"""Raw values that by custom mean: do not count this pixel."""

_STRAY_SHARE = 1e-3
"""A value with a smaller share of all pixels is a class only if there is more evidence for it."""
_JUMP = 10
"""Grey codes of classes are at least this far apart."""
_MANY = 12
"""From so many values on, a mask may hold the numbers of objects."""


@dataclass(frozen=True)
class Proposal:
    """A meaning of the masks that has been found, before the user's names and colours are put in."""

    encoding: MaskEncoding
    names: tuple[str, ...]
    notices: tuple[str, ...] = ()
    colors: tuple[Color, ...] | None = None


def propose(survey: Survey) -> Proposal:
    """What the first rule that applies makes of the counts.

    Raises:
        DataError: there is one value only, or no rule applies.
    """
    if len(survey.values) < 2:
        raise one_class(survey, survey.values)
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


def one_class(survey: Survey, held: Sequence[Any]) -> DataError:
    """The error that says: there is nothing to learn, for all masks hold the same."""
    return DataError(
        f"All {survey.file_count} masks hold one class only: {shortened(held) or 'nothing that counts'}.",
        where=survey.richest[0].path.parent,
        remedy="There is nothing to tell apart; check that the right folder holds the masks.",
    )


def by_index(survey: Survey, names: Sequence[str], *, declared: bool = False) -> Proposal:
    """Raw values are the indices of classes; those that by custom do not count are ignored."""
    void = [value for value in survey.values if value in VOID_VALUES]
    doubt = refuse_two_meanings(survey, names, declared=declared)
    listed = ", ".join(map(str, void))
    # a repaired copy has names that were made up from the values before
    called = [f"the class '{name}' is {index}" for index, name in enumerate(names) if name in _made_up(void)]
    said = [ignored(void, survey), *(f"In these masks {one}." for one in called), *([doubt] if doubt else [])]
    notices = (" ".join(said),) if void else ()
    ending = ", as declared" if declared else f", {listed} ignored" if void else ""
    encoding = MaskEncoding(
        kind="values",
        values={**{index: index for index in range(len(names))}, **dict.fromkeys(void, IGNORE)},
        description=f"class indices 0..{len(names) - 1}{ending}",
    )
    return Proposal(encoding, tuple(names), notices)


def ignored(values: Sequence[int], survey: Survey) -> str:
    """The notice that pixels of some raw values do not count."""
    pixels = sum(survey.pixels[value] for value in values)
    listed = ", ".join(map(str, values))
    return f"Mask pixels of value {listed} are ignored ({pixels} pixels, {pixels / max(1, survey.total):.2%})."


def _lossy(survey: Survey) -> Proposal | None:
    """Masks stored as JPEG: values scatter around the true ones."""
    if 2 * survey.lossy_files < survey.file_count or len(survey.values) <= 2:
        return None
    return _scattered(survey, "stored as JPEG, which changes pixel values")


def _two_values(survey: Survey) -> Proposal | None:
    """0 and another value: the other one is the object."""
    if len(survey.values) != 2 or survey.values[0] != 0:
        return None
    return _binary(survey.values[1:], survey)


def _mixed_binary(survey: Survey) -> Proposal | None:
    """0 and one other value in each file, but not the same one in all of them (palettes, 0/1 beside 0/255)."""
    objects = [value for value in survey.values if value > 0]
    if survey.most_values > 1 or not set(objects) <= {1, *range(250, 256)}:
        return None
    return _binary(objects, survey)


def _binary(objects: Sequence[int], survey: Survey) -> Proposal:
    table = {0: 0, **dict.fromkeys(objects, 1)}
    which = " and ".join(map(str, objects))
    notices = []
    if len(objects) > 1:
        files = ", ".join(f"{value} in {survey.files[value]}" for value in objects)
        void = f" If {objects[-1]} is what does not count, declare `ignore: {objects[-1]}`." if 255 in objects else ""
        notices.append(
            f"The object has different values in different mask files ({files}); they count as one class.{void}"
        )
    elif objects[0] != 1:
        notices.append(f"The masks hold 0 and {which}: 0 is the background, {which} the object.")
    encoding = MaskEncoding(kind="values", values=table, description=f"binary: 0 background, {which} object")
    return Proposal(encoding, ("background", "object"), tuple(notices))


def looks_like_objects(survey: Survey) -> bool:
    """Whether one-channel masks seem to hold numbers of objects, beyond doubt or not."""
    return _instances(survey) is not None or looks_numbered(survey)


def _instances(survey: Survey) -> Proposal | None:
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
    return numbered([notice])


def numbered(notices: Sequence[str] = ()) -> Proposal:
    """Values above 0 are the numbers of objects, which are one class."""
    encoding = MaskEncoding(kind="instances", description="instance numbers: 0 background, above 0 object")
    return Proposal(encoding, ("background", "object"), tuple(notices))


def _are_pieces(survey: Survey, objects: int) -> bool:
    """Whether values look like numbers of objects: many, each one connected piece, not the same ones in each file."""
    from scipy import ndimage

    vary = survey.file_count <= 2 or 2 * len(survey.maxima) >= survey.file_count
    # class masks have 8 bits, or a signed type; 16 unsigned bits with gaps are typical of numbered objects
    typical = survey.dtypes <= {"uint16", "uint32"} and survey.values[-1] > objects
    if objects < _MANY or not (vary or typical):
        return False
    single = total = 0
    for sample in survey.richest:
        raw = read_mask(sample.path, sample.case)
        present = sample.values[sample.values > 0]
        for value in present[:: max(1, present.size // 16)]:
            _, pieces = ndimage.label(raw == value, structure=np.ones((3, 3)))
            single, total = single + (pieces == 1), total + 1
    return single >= 0.8 * total


def _noisy(survey: Survey) -> Proposal | None:
    """Few values hold nearly all pixels and many lie between: masks that were resized or stored as JPEG once."""
    if len(survey.values) < 16 or survey.values[0] < 0 or survey.values[-1] > 255:
        return None
    centres = centres_of(survey)
    if len(centres) < 2 or sum(survey.share(value) for value in centres) < 0.8:
        return None
    return _scattered(survey, "resized or stored as JPEG before")


def _edged(survey: Survey) -> Proposal | None:
    """Two values hold nearly all pixels, and a few between them cover no area: some masks have soft edges."""
    centres = sorted(centres_of(survey)) if 6 <= len(survey.values) <= MAX_CLASSES else []
    if len(centres) != 2 or [survey.values[0], survey.values[-1]] != centres:
        return None
    between = survey.values[1:-1]
    # class indices lie close together, below a 255 that does not count
    if between[-1] < 100 or sum(survey.share(value) for value in between) > 0.05 or solid(survey, between):
        return None
    return _scattered(survey, "resized or smoothed")


def _contiguous(survey: Survey) -> Proposal | None:
    """0, 1, 2 ... K-1, and 255 or 65535 for pixels that do not count."""
    values = [value for value in survey.values if value not in VOID_VALUES]
    if len(values) < 2 or values != list(range(len(values))) or len(values) > MAX_CLASSES:
        return None
    refuse_numbers(survey)
    return _indices(survey, values)


def _grey_codes(survey: Survey) -> Proposal | None:
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
        proposal = Proposal(
            MaskEncoding(kind="values", values=table, description=f"grey codes: {listed}"),
            _made_up(main),
            (f"The masks hold the grey values {listed}; each is a class. Declare `names` to name them.",),
        )
    return _without_stray(proposal, stray, survey)


def _sparse(survey: Survey) -> Proposal | None:
    """Class indices of which some never occur, perhaps with a handful of stray values."""
    values = [value for value in survey.values if value not in VOID_VALUES]
    run = next((i for i, value in enumerate(values) if value != i), len(values))
    few = [value for value in values[run:] if survey.share(value) < _STRAY_SHARE / 10 and survey.files[value] == 1]
    stray = few if survey.file_count > 2 else []
    values = [value for value in values if value not in stray]
    if len(values) < 2 or values[-1] >= MAX_CLASSES or (len(values) > 64 and len(values) < values[-1] // 2):
        return None
    if values[-1] < 64 or len(values) > values[-1] // 2:
        return _without_stray(_indices(survey, values), stray, survey)
    table = {value: IGNORE for value in survey.values if value in VOID_VALUES}
    table |= {value: index for index, value in enumerate(values)}
    notice = f"The masks hold the values {shortened(values)}; each is a class. Declare `names` to name them."
    encoding = MaskEncoding(kind="values", values=table, description=f"{len(values)} values, each a class")
    proposal = Proposal(encoding, _made_up(values), (notice,))
    return _without_stray(proposal, stray, survey)


RULES: dict[str, Callable[[Survey], Proposal | None]] = {
    "stored as JPEG": _lossy,
    "binary": _two_values,
    "binary with several palettes": _mixed_binary,
    "instance numbers": _instances,
    "blurred values": _noisy,
    "soft edges": _edged,
    "class indices": _contiguous,
    "grey codes": _grey_codes,
    "class indices with gaps": _sparse,
}
"""How one-channel masks are understood: the first rule that answers is right."""


def _indices(survey: Survey, values: Sequence[int]) -> Proposal:
    """Class indices up to the largest one, with those that never occur."""
    refuse_lossy_indices(survey, values)
    count = values[-1] + 1
    names = ("background", "object") if count == 2 else tuple(f"class {index}" for index in range(count))
    proposal = by_index(survey, names)
    absent = sorted(set(range(count)) - set(values))
    if not absent:
        return proposal
    never = f"value {absent[0]} never occurs" if len(absent) == 1 else f"values {shortened(absent)} never occur"
    notice = f"The largest class index is {values[-1]}, but {never}. Declare `values` to leave gaps out."
    return replace(proposal, notices=(notice, *proposal.notices))


def _scattered(survey: Survey, cause: str) -> Proposal | None:
    """Every value counts as the nearest of the few around which they gather."""
    centres = sorted(centres_of(survey))
    if len(centres) < 2 or share_near(survey, centres) < 0.9:
        return None
    refuse_swallowed(survey, centres)
    others = [value for value in survey.values if value not in centres]
    between = sum(survey.pixels[value] for value in others)
    listed = ", ".join(map(str, centres))
    where = sorted({one.name for value in others for one in survey.examples[value]})
    richest = survey.richest[0]
    most = f"; {richest.path.name} alone has {richest.values.size} values"
    among = f", in {shortened(where)}" if len(where) <= survey.file_count / 2 else most
    notice = (
        f"{_how_many(len(where), survey, others)} {cause}: there are {len(survey.values)} values around {listed}. "
        f"Each pixel counts as the nearest of them ({between / survey.total:.1%} of the pixels are not exact{among}). "
        "Use PNG masks if they exist."
    )
    names = ("background", "object") if len(centres) == 2 else _made_up(centres)
    encoding = MaskEncoding(
        kind="values",
        values={value: index for index, value in enumerate(centres)},
        nearest=True,
        description=f"grey codes {listed}, nearest counts",
    )
    return Proposal(encoding, names, (notice,))


def _how_many(known: int, survey: Survey, values: Sequence[int]) -> str:
    """Such as '2 of 9 masks were': those that hold one of the values, of which so many files are known by name."""
    if _all_are_known(survey, values):
        least = ""
    else:
        least, known = "At least ", max(known, *(survey.files[value] for value in values))
    if known == survey.file_count:
        return "All masks were"
    return f"{least}{known} of {survey.file_count} masks {'was' if known == 1 else 'were'}"


def _all_are_known(survey: Survey, values: Sequence[int]) -> bool:
    """Whether every file that holds one of the values is among the examples."""
    return all(survey.files[value] == len(survey.examples[value]) for value in values)


def _main_values(survey: Survey) -> list[int]:
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


def _made_up(values: Sequence[int]) -> tuple[str, ...]:
    """Names for classes that nobody has named; 0 is the background unless somebody says otherwise."""
    return tuple(f"value {value}" if value else "background" for value in values)


def _is_spread(values: Sequence[int]) -> bool:
    """Whether values stand apart like codes: 0 128 255, not 0 1 2, and not 0 3 255."""
    gaps = np.diff(values)
    return bool(values[-1] >= 100 and gaps.min() >= _JUMP and gaps.max() <= 3 * gaps.min())


def _without_stray(proposal: Proposal, stray: Sequence[int], survey: Survey) -> Proposal:
    """Values that are not classes are ignored, and the user is told where they are."""
    if not stray:
        return proposal
    pixels = sum(survey.pixels[value] for value in stray)
    where = sorted({one.name for value in stray for one in survey.examples[value]})
    some = "" if _all_are_known(survey, stray) else "at least "
    notice = (
        f"{pixels} pixels in {some}{len(where)} mask files ({shortened(where)}) have the stray values "
        f"{shortened(stray)}; they are ignored. Correct the masks, or declare what they mean; with `names` of your "
        f"own, data.yaml needs this line: values: {{{', '.join(f'{value}: ignore' for value in stray)}}}."
    )
    encoding = proposal.encoding.model_copy(update={"other": IGNORE})
    return replace(proposal, encoding=encoding, notices=(*proposal.notices, notice))
