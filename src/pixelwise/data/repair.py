"""A repaired copy of a data set, and what was done to each of its files.

What is certain is repaired, what cannot be is left out, and what only looks wrong stays as it is: nobody but its owner
can know. The original is never touched. In the copy every mask is an indexed PNG of class indices, and a data.yaml says
the rest, so that it can be read in one way only. `docs/data-folder.md` has a table of what is done about which defect.
"""

import contextlib
import csv
import io
import os
import posixpath
import secrets
import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from jaxtyping import Bool, Float, Shaped, UInt8

from pixelwise.classes import IGNORE
from pixelwise.data import formats, writing
from pixelwise.data.alike import ALIKE, Likeness
from pixelwise.data.dataset import Case, Dataset, MaskEncoding
from pixelwise.data.masks import shortened
from pixelwise.data.measure import Measurement, Misfit, decoded_mask, equal
from pixelwise.data.parallel import bytes_of_case, in_parallel
from pixelwise.data.preprocess import resize_mask
from pixelwise.data.raster import upright
from pixelwise.data.reading import read_image
from pixelwise.data.split import bearable, claimed_by_other_sides, tie_together
from pixelwise.errors import DataError
from pixelwise.files import cannot_write, copy_file, make_folder, write_atomically

REPORT = "repairs.csv"
"""The table of what was done."""

Outcome = Literal["left out", "changed", "recoded", "copied"]
OUTCOMES: tuple[Outcome, ...] = ("left out", "changed", "recoded", "copied")
"""Of what is recoded, only the numbers in the mask are others: each class is now its index."""

_KNOWN_FITS: tuple[Misfit | None, ...] = (None, "off by one", "turned by the camera", "scaled")
"""How a mask may differ in size from its image for it to be known how it lies on it."""


@dataclass(frozen=True)
class Remark:
    """What was changed, or why a file is left out."""

    kind: str
    """In general, such as 'damaged'."""
    text: str
    """A sentence, with the numbers of this file."""


@dataclass(frozen=True)
class Repair:
    """What became of an image and its mask."""

    files: tuple[Path, ...]
    """The image and its mask files, or the one file that has no partner."""
    outcome: Outcome
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True)
class _Intent:
    """What the whole data set says of each case."""

    channels: int
    """Of the images in the copy."""
    left_out: Mapping[str, Remark]
    """Why, by case name."""
    copies: Mapping[str, Sequence[Measurement]]
    """Cases with the same image, by the name of the case that is kept."""
    names: Mapping[str, str]
    """Where image and mask of a case will lie, without `images/`, `masks/` and suffix."""


def write_copy(
    dataset: Dataset,
    measurements: Sequence[Measurement],
    out: Path,
    progress: Callable[[int, int], None] | None = None,
) -> list[Repair]:
    """Write the repaired copy with its data.yaml and the table `REPORT`; the folder appears whole or not at all.

    Args:
        dataset: from `data.folder.scan`.
        measurements: of its cases, from `data.measure`.
        out: as `refuse_place` wants it.
        progress: is called with the number of cases done and their total.

    Raises:
        DataError: the folder cannot be written, or no image can be used.
    """
    intent = _intent(dataset, measurements)
    make_folder(out.absolute().parent)
    part = out.absolute().with_name(f".{secrets.token_hex(8)}")
    try:
        part.mkdir()
        repairs, images = _write_cases(dataset, measurements, intent, part, progress)
        write_atomically(part / REPORT, _table(repairs, dataset))
        _write_lists(dataset, images, intent, part)
        if out.exists():
            out.rmdir()  # Windows renames to no folder that exists, not even an empty one
        part.rename(out)
    except OSError as error:
        raise cannot_write(out, error) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if not images:
        raise DataError("No image can be used.", where=out / REPORT, remedy="The table says why.")
    return repairs


def refuse_place(out: Path, root: Path) -> None:
    """Refuse a place for the copy where something is already, or that lies within the data.

    Raises:
        DataError: it is one.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError("This is not an empty folder.", where=out, remedy="Name a new folder for the repaired copy.")
    if out.resolve().is_relative_to(root.resolve()):
        raise DataError(
            "The copy would lie within the data and become a part of them.",
            where=out,
            remedy="Name a folder elsewhere.",
        )


def to_text(repairs: Sequence[Repair], dataset: Dataset, out: Path, width: int = 100) -> str:
    """How many files were left out, changed, recoded and copied, and how, with an example of each.

    Args:
        repairs: from `write_copy`.
        dataset: what was repaired.
        out: the copy.
        width: of the text in characters.
    """
    counts = Counter(repair.outcome for repair in repairs)
    lines = [f"repaired copy in {out}: {', '.join(f'{counts[one]} {one}' for one in OUTCOMES if counts[one])}"]
    told = [(repair, remark) for repair in repairs for remark in repair.remarks]
    kinds = Counter((repair.outcome, remark.kind) for repair, remark in told)
    firsts = {(repair.outcome, remark.kind): (repair, remark) for repair, remark in reversed(told)}
    for (outcome, kind), count in sorted(kinds.items(), key=lambda entry: (OUTCOMES.index(entry[0][0]), -entry[1])):
        repair, remark = firsts[outcome, kind]
        name = f"{repair.files[0].name}: "
        lines.append(f"  {count} {outcome}, {kind}; such as {name}{remark.text.removeprefix(name)}")
    if counts["changed"] + counts["recoded"] + counts["copied"]:
        lines.append(f"masks of the copy: {_coding(dataset)}")
    lines.append(f"what was done to each file: {out / REPORT}")
    return "\n".join(textwrap.fill(line, width, subsequent_indent="    ", break_on_hyphens=False) for line in lines)


def _coding(dataset: Dataset) -> str:
    """What the numbers in masks of the copy mean, and what those of the original were."""
    meant = [f"{index} {name}" for index, name in enumerate(dataset.classes.names)]
    before = f"; those of the original: {dataset.encoding.description}" if _recodes(dataset.encoding) else ""
    return f"{shortened(meant, 12)}, {IGNORE} ignored{before}"


def _recodes(encoding: MaskEncoding) -> bool:
    """Whether a class has another number in the original than its index."""
    return encoding.kind != "values" or any(value != index for value, index in encoding.values.items())


def to_json(repairs: Sequence[Repair]) -> list[dict[str, object]]:
    """The repairs as dictionaries of text."""
    return [
        {
            "files": [str(path) for path in repair.files],
            "outcome": repair.outcome,
            "what": [remark.text for remark in repair.remarks],
        }
        for repair in repairs
    ]


def _table(repairs: Sequence[Repair], dataset: Dataset) -> bytes:
    rows = [("file", "masks", "outcome", "what", "masks were read as")]
    for repair in repairs:
        file, *parts = map(str, repair.files)
        what = " ".join(remark.text for remark in repair.remarks)
        read_as = "" if repair.outcome == "left out" else dataset.encoding.description
        rows.append((file, "; ".join(parts), repair.outcome, what, read_as))
    return _csv(rows)


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


# what the data set says of each case -------------------------------------------------------------------------------


def _intent(dataset: Dataset, measurements: Sequence[Measurement]) -> _Intent:
    channels = _common_channels(measurements)
    left_out = {one.case.name: why for one in measurements if (why := next(_reasons(one, channels), None)) is not None}
    left_out |= _beside_other_sides([one for one in measurements if one.case.name not in left_out])
    copies: dict[str, Sequence[Measurement]] = {}
    for first, *others in _with_copies([one for one in measurements if one.case.name not in left_out]):
        copies[first.case.name] = others
        same = Remark("a copy of another image", f"The image has the same pixels as {first.case.name}, which is kept.")
        left_out |= dict.fromkeys((other.case.name for other in others), same)
    return _Intent(channels, left_out, copies, _names(dataset.cases))


def _common_channels(measurements: Sequence[Measurement]) -> int:
    """Channels of most coloured images, transparency left out; of grey ones where there are no others."""
    counts = Counter(_opaque_channels(one) for one in measurements if one.shape is not None)
    colored = Counter({channels: number for channels, number in counts.items() if channels > 1})
    return (colored or counts or Counter([1])).most_common(1)[0][0]


def _opaque_channels(one: Measurement) -> int:
    assert one.shape is not None
    return one.shape[2] - one.alpha


def _with_copies(measurements: Sequence[Measurement]) -> list[list[Measurement]]:
    """Cases whose images are equal, those of a given test or validation split first: what was kept apart stays."""
    rank = {"test": 0, "validation": 1}
    groups = equal(measurements, lambda one: one.image_hash)
    return [sorted(group, key=lambda one: rank.get(one.case.split or "", 2)) for group in groups]


def _beside_other_sides(measurements: Sequence[Measurement]) -> dict[str, Remark]:
    """Cases in no given split that belong to a given validation or test case, as `data.split` leaves them out."""
    if not any(one.case.split in ("validation", "test") for one in measurements):
        return {}
    pictures = [one.coarse for one in measurements if one.coarse is not None]
    _, near = bearable(Likeness(pictures).pairs(ALIKE), len(measurements))
    cases = [one.case for one in measurements]
    why = "It stands in no given split, and is nearly the same as a validation or test image, or of its group."
    return {cases[index].name: Remark("a leak", why) for index in claimed_by_other_sides(cases, near)}


def _names(cases: Sequence[Case]) -> dict[str, str]:
    """A name for each case that no other has, also on disks that do not tell a from A; a page belongs to its stack."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for case in cases:
        name = case.name
        for part, word in ((case.window, "piece"), (case.page, "page")):
            folder, last = posixpath.split(name)
            name = name if part is None else f"{folder}_{word}{last}"
        while name.casefold() in taken:
            name += "_"
        taken.add(name.casefold())
        names[case.name] = name
    return names


def _reasons(one: Measurement, channels: int) -> Iterator[Remark]:
    """Why a case cannot be used."""
    error = one.image_error or one.mask_error
    if error is not None:
        where = Path(error.where).name if error.where is not None else one.case.image.name
        yield Remark("cannot be read", f"{where}: {error.what}")
        return
    assert one.shape is not None
    assert one.mask_size is not None
    height, width, own = one.shape
    if not _is_utf8(one.case.image):
        yield Remark("the name is no text", "The name of the file is not UTF-8.")
    if one.constant:
        yield Remark("nothing to see", "The image has the same value in every pixel.")
    if one.not_finite == height * width * own:
        yield Remark("nothing to see", "The image has no finite value.")
    if not any(one.class_pixels or ()):
        yield Remark("nothing counts", "Every pixel of the mask is ignored.")
    if one.misfit not in _KNOWN_FITS:
        size, mask = f"{width} x {height}", f"{one.mask_size[1]} x {one.mask_size[0]}"
        text = f"The mask has {mask} pixels, the image {size}, and how it lies on it cannot be known."
        yield Remark("another size", text)
    if _opaque_channels(one) not in (1, channels):
        yield Remark("other channels", f"The image has {own} channels, others have {channels}.")


def _is_utf8(path: Path) -> bool:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


# one case ----------------------------------------------------------------------------------------------------------


def _write_cases(
    dataset: Dataset,
    measurements: Sequence[Measurement],
    intent: _Intent,
    out: Path,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Repair], dict[Case, str]]:
    """Writes all cases; what became of each file, and where the images that are kept lie."""
    alone = Remark("no partner", "It has no partner.")
    repairs = [Repair((path,), "left out", (alone,)) for path in dataset.unpaired]
    images: dict[Case, str] = {}
    done = in_parallel(
        lambda one: _repair(one, dataset, intent, out), measurements, lambda one: bytes_of_case(one.case)
    )
    with contextlib.closing(done):  # whatever ends this, nothing is written any more
        for number, (one, (repair, image)) in enumerate(zip(measurements, done, strict=True), 1):
            repairs.append(repair)
            if image is not None:
                images[one.case] = image.relative_to(out).as_posix()
            if progress is not None:
                progress(number, len(measurements))
    return repairs, images


def _repair(one: Measurement, dataset: Dataset, intent: _Intent, out: Path) -> tuple[Repair, Path | None]:
    """Writes a case, and says what was done and where its image lies."""
    case = one.case
    files = (case.image, *case.channels, *case.masks)
    if case.name in intent.left_out:
        return Repair(files, "left out", (intent.left_out[case.name],)), None
    pixels, missing, remarks = _mended_image(one, intent.channels)
    decoded = decoded_mask(one, dataset.encoding)
    remarks += _stray(one, decoded, dataset.encoding)
    mask, said = _fitted(decoded, one)
    remarks += said
    if missing is not None:
        mask = np.where(missing, np.uint8(IGNORE), mask)
    agreed = _agreed(mask, intent.copies.get(case.name, ()), dataset)
    if (differ := int(np.sum(agreed != mask))) > 0:
        text = f"Copies have other masks; the {differ} pixels in which they differ are ignored."
        remarks.append(Remark("contradicting masks", text))
    if not (agreed != IGNORE).any():
        nothing = Remark("nothing counts", "No pixel of the mask is left.")
        return Repair(files, "left out", (*remarks, nothing)), None
    folder, name = posixpath.split(intent.names[case.name])
    place = make_folder(out / folder / "images") / name
    writing.write_mask(make_folder(out / folder / "masks") / f"{name}.png", agreed, dataset.classes)
    if pixels is not None:
        target = writing.write_image(place, pixels)
    else:
        target, said = _copied(case.image, place)
        remarks += said
    sound: Outcome = "recoded" if _recodes(dataset.encoding) else "copied"
    return Repair(files, "changed" if remarks else sound, tuple(remarks)), target


def _stray(one: Measurement, mask: UInt8[np.ndarray, "h w"], encoding: MaskEncoding) -> list[Remark]:
    """What became of values or colours that are no class; of channels, the pixels of none of them are no mistake."""
    if encoding.other != IGNORE or encoding.kind == "layers" or not (mask == IGNORE).any():
        return []
    # pixels that are ignored because the table says so stay ignored, whatever the others are taken for
    otherwise = decoded_mask(one, encoding.model_copy(update={"other": 0}))
    pixels = int((mask != otherwise).sum())
    return [Remark("stray values", f"{pixels} pixels of the mask are of no class, and ignored.")] if pixels else []


def _copied(image: Path, place: Path) -> tuple[Path, list[Remark]]:
    """Copies an image byte by byte, under a suffix that says what is in it."""
    kind = formats.content_of(image)
    stem, own = formats.split_name(image.name)
    is_true = kind is None or own in formats.SUFFIXES_OF[kind]
    suffix = image.name[len(stem) :] if is_true or kind is None else formats.SUFFIXES_OF[kind][0]
    target = place.with_name(f"{place.name}{suffix}")
    copy_file(image, target)
    return target, [] if is_true else [Remark("renamed", f"The file is {kind} and is now called {suffix}.")]


def _mended_image(
    one: Measurement, channels: int
) -> tuple[Shaped[np.ndarray, "H W C"] | None, Bool[np.ndarray, "H W"] | None, list[Remark]]:
    """The pixels, none if the file stays as it is; where values were missing, none if nowhere; and what was done."""
    assert one.shape is not None
    missing: Bool[np.ndarray, "H W"] | None = None
    is_part = one.case.page is not None or one.case.window is not None or bool(one.case.channels)
    if not is_part and not one.not_finite and one.shape[2] == channels:
        return None, None, []
    image = read_image(one.case)
    remarks = []
    if one.case.page is not None:
        remarks.append(Remark("pages of a stack", "It is a page of a stack, in a file of its own."))
    if one.case.window is not None:
        remarks.append(Remark("pieces", "It is a piece of a large image, in a file of its own."))
    if one.not_finite:
        missing = ~np.isfinite(image).all(axis=2)
        image = _with_medians(image)
        text = f"{one.not_finite} values, NaN or infinite, became the median, and their pixels are ignored."
        remarks.append(Remark("missing values", text))
    if one.alpha:
        image = image[:, :, :-1]
        remarks.append(Remark("transparency", "Its transparency is dropped."))
    if image.shape[2] == 1 and channels > 1:
        image = np.repeat(image, channels, axis=2)
        remarks.append(Remark("grey among colour", "The grey image became one in colour."))
    return image, missing, remarks


def _with_medians(image: Float[np.ndarray, "H W C"]) -> Float[np.ndarray, "H W C"]:
    """The median of a channel in the place of its values that are not finite."""
    finite = np.isfinite(image)
    known = (image[..., c][finite[..., c]] for c in range(image.shape[2]))
    medians = [np.median(values) if values.size else 0.0 for values in known]
    return np.where(finite, image, np.asarray(medians, dtype=image.dtype))


def _agreed(
    mask: UInt8[np.ndarray, "H W"], others: Sequence[Measurement], dataset: Dataset
) -> UInt8[np.ndarray, "H W"]:
    """The mask with all pixels ignored in which another one of the same image differs."""
    result = mask
    for one in others:
        other, _ = _fitted(decoded_mask(one, dataset.encoding), one)
        result = np.where(other == mask, result, np.uint8(IGNORE))
    return result


def _fitted(mask: UInt8[np.ndarray, "h w"], one: Measurement) -> tuple[UInt8[np.ndarray, "H W"], list[Remark]]:
    """The mask at the size of its image, and what was done."""
    assert one.shape is not None
    height, width = one.shape[:2]
    if one.misfit == "off by one":
        cropped = mask[:height, :width]
        missing = ((0, height - cropped.shape[0]), (0, width - cropped.shape[1]))
        text = "The mask was off by one pixel: what is too much is cropped, what is missing ignored."
        return np.pad(cropped, missing, constant_values=IGNORE), [Remark("mask off by one", text)]
    if one.misfit == "turned by the camera":
        text = "The mask is turned like its image, which the camera turned."
        return upright(mask, one.orientation), [Remark("mask turned", text)]
    if one.misfit == "scaled":
        text = f"The mask was scaled from {mask.shape[1]} x {mask.shape[0]} pixels to {width} x {height} (nearest)."
        return resize_mask(mask, (height, width)), [Remark("mask scaled", text)]
    return mask, []


# what the copy says of itself --------------------------------------------------------------------------------------


def _write_lists(dataset: Dataset, images: Mapping[Case, str], intent: _Intent, out: Path) -> None:
    """data.yaml, the lists of a given split, and the table of groups."""
    content: dict[str, object] = {
        "images": "**/images/*",
        "masks": "{dir}/../masks/{stem}.png",
        "names": list(dataset.classes.names),
        "colors": dataset.classes.colors().tolist(),
        "test": [],  # whatever folders are called: only these lists give a split
    }
    given = {case.split for case in images} - {None}
    for side, key in (("train", "train"), ("validation", "val"), ("test", "test")):
        if side in given:
            # what stands beside a given split trains
            wanted = {side, None} if side == "train" else {side}
            lines = [f"{path}\n" for case, path in images.items() if case.split in wanted]
            write_atomically(out / f"{key}.txt", "".join(lines).encode())
            content[key] = f"{key}.txt"
    if any(case.group for case in dataset.cases):
        write_atomically(out / "groups.csv", _csv([("image", "group"), *_groups(dataset, images, intent)]))
        content["group_table"] = {"file": "groups.csv", "column": "group"}
    described = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    write_atomically(out / "data.yaml", described.encode())


def _groups(dataset: Dataset, images: Mapping[Case, str], intent: _Intent) -> list[tuple[str, str]]:
    """The group of each image. Groups are one if they hold the same image, also where its copy is left out."""
    cases = dataset.cases
    index = {case.name: number for number, case in enumerate(cases)}
    copies = [[index[name], *(index[one.case.name] for one in others)] for name, others in intent.copies.items()]
    labels: dict[Case, str] = {}
    for members in tie_together(cases, range(len(cases)), copies):
        label = next((cases[number].group for number in members if cases[number].group), cases[members[0]].name)
        labels |= {cases[number]: label for number in members}
    return [(path, labels[case]) for case, path in images.items()]
