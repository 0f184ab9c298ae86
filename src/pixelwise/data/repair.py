"""A repaired copy of a data set, and what was done to each of its files.

What is certain is repaired, what cannot be is left out, and what only looks wrong stays as it is: nobody but its owner
can know. The original is never touched. In the copy every mask is an indexed PNG of class indices, and a data.yaml says
the rest, so that it can be read in one way only.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from jaxtyping import Bool, Float, Shaped, UInt8

from pixelwise.classes import IGNORE
from pixelwise.data import formats
from pixelwise.data.dataset import Case, Dataset
from pixelwise.data.measure import Measurement, Misfit, decoded_mask, equal
from pixelwise.data.preprocess import resize_mask
from pixelwise.errors import DataError
from pixelwise.files import copy_file, make_folder, write_atomically

REPORT = "repairs.csv"
"""The table of what was done."""

Outcome = Literal["copied", "changed", "left out"]
OUTCOMES: tuple[Outcome, ...] = ("left out", "changed", "copied")


@dataclass(frozen=True)
class Repair:
    """What became of an image and its mask."""

    files: tuple[Path, ...]
    """The image and its mask files, or the one file that has no partner."""
    outcome: Outcome
    said: tuple[str, ...] = ()
    """What was changed, or why it is left out."""


@dataclass(frozen=True)
class _Intent:
    """What the whole data set says of each case."""

    channels: int
    """Of most images."""
    left_out: Mapping[str, str]
    """Why, by case name."""
    contradicting: Mapping[str, Sequence[Measurement]]
    """Copies of an image with other masks, by the name of the case that is kept."""


def write_copy(
    dataset: Dataset,
    measurements: Sequence[Measurement],
    out: Path,
    progress: Callable[[int, int], None] | None = None,
) -> list[Repair]:
    """Write the repaired copy with its data.yaml and the table `REPORT`.

    Args:
        dataset: from `data.folder.scan`.
        measurements: of its cases, from `data.measure`.
        out: a folder that is empty or does not exist, outside of the data.
        progress: is called with the number of cases done and their total.

    Raises:
        DataError: the folder is not empty, lies within the data or cannot be written, or nothing is left.
    """
    _refuse_place(out, dataset.root)
    intent = _intent(measurements)
    make_folder(out)
    repairs = [Repair((path,), "left out", ("It has no partner.",)) for path in dataset.unpaired]
    kept: list[tuple[Case, Path]] = []
    for number, one in enumerate(measurements, 1):
        repair, image = _repair(one, dataset, intent, out)
        repairs.append(repair)
        if image is not None:
            kept.append((one.case, image.relative_to(out)))
        if progress is not None:
            progress(number, len(measurements))
    write_atomically(out / REPORT, _table(repairs).encode())
    if not kept:
        raise DataError("No image can be used.", where=out / REPORT, remedy="The table says why.")
    _write_lists(dataset, kept, out)  # last: a copy without its data.yaml is not finished
    return repairs


def to_text(repairs: Sequence[Repair], out: Path) -> str:
    """How many files were left out, changed and copied, and how."""
    counts = Counter(repair.outcome for repair in repairs)
    lines = [f"repaired copy in {out}: " + ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES)]
    kinds = Counter((repair.outcome, said) for repair in repairs for said in repair.said)
    firsts = {(repair.outcome, said): repair.files[0] for repair in reversed(repairs) for said in repair.said}
    for (outcome, said), count in sorted(kinds.items(), key=lambda kind: (OUTCOMES.index(kind[0][0]), -kind[1])):
        which = firsts[outcome, said].name + (f" and {count - 1} more" if count > 1 else "")
        lines.append(f"  {outcome}: {which}: {said}")
    return "\n".join([*lines, f"what was done to each file: {out / REPORT}"])


def _table(repairs: Sequence[Repair]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "masks", "outcome", "what"])
    for repair in repairs:
        files = [str(path) for path in repair.files]
        writer.writerow([files[0], ";".join(files[1:]), repair.outcome, " ".join(repair.said)])
    return text.getvalue()


def _refuse_place(out: Path, root: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError("This is not an empty folder.", where=out, remedy="Name a new folder for the repaired copy.")
    if out.resolve().is_relative_to(root.resolve()):
        raise DataError(
            "The copy would lie within the data and become a part of them.",
            where=out,
            remedy="Name a folder elsewhere.",
        )


# what the data set says of each case -------------------------------------------------------------------------------


def _intent(measurements: Sequence[Measurement]) -> _Intent:
    counts = Counter(one.shape[2] for one in measurements if one.shape is not None)
    channels = counts.most_common(1)[0][0] if counts else 0
    left_out = {one.case.name: reason for one in measurements if (reason := next(_reasons(one, channels), ""))}
    contradicting: dict[str, list[Measurement]] = {}
    for first, *others in _copies([one for one in measurements if one.case.name not in left_out]):
        for other in others:
            left_out[other.case.name] = f"The image has the same pixels as {first.case.name}, which is kept."
            if other.mask_hash != first.mask_hash:
                contradicting.setdefault(first.case.name, []).append(other)
    return _Intent(channels, left_out, contradicting)


def _copies(measurements: Sequence[Measurement]) -> list[list[Measurement]]:
    """Cases whose images are equal, those of a given test or validation split first: what was kept apart stays."""
    rank = {"test": 0, "validation": 1}
    groups = equal(measurements, lambda one: one.image_hash)
    return [sorted(group, key=lambda one: rank.get(one.case.split or "", 2)) for group in groups]


def _reasons(one: Measurement, channels: int) -> Iterator[str]:
    """Why a case cannot be used."""
    error = one.image_error or one.mask_error
    if error is not None:
        yield error.what
        return
    assert one.shape is not None
    assert one.mask_size is not None
    height, width, own = one.shape
    if one.constant:
        yield "The image has the same value in every pixel."
    if one.not_finite == height * width * own:
        yield "The image has no finite value."
    if not any(one.class_pixels or ()):
        yield "Every pixel of the mask is ignored."
    if one.misfit not in _KNOWN_FITS:
        size, mask = f"{width} x {height}", f"{one.mask_size[1]} x {one.mask_size[0]}"
        yield f"The mask has {mask} pixels, the image {size}, and how it lies on it cannot be known."
    is_grey, has_alpha = own == 1 and channels == 3, channels in (1, 3) and own == channels + 1
    if own != channels and not is_grey and not has_alpha:
        yield f"The image has {own} channels, most have {channels}."


# one case ----------------------------------------------------------------------------------------------------------


def _repair(one: Measurement, dataset: Dataset, intent: _Intent, out: Path) -> tuple[Repair, Path | None]:
    """Writes a case, and says what was done and where its image lies."""
    case = one.case
    files = (case.image, *case.masks)
    if case.name in intent.left_out:
        return Repair(files, "left out", (intent.left_out[case.name],)), None
    pixels, missing, said = _mended_image(one, intent.channels)
    mask, changes = _fitted(decoded_mask(one, dataset.encoding), one)
    said += changes
    if missing.any():
        mask = np.where(missing, np.uint8(IGNORE), mask)
    others = intent.contradicting.get(case.name, ())
    if others:
        agreed = _agreed(mask, others, dataset)
        said.append(f"Copies have other masks; the {np.sum(agreed != mask)} pixels in which they differ are ignored.")
        mask = agreed
    if not (mask != IGNORE).any():
        return Repair(files, "left out", (*said, "No pixel of the mask is left.")), None
    folder, name = out.joinpath(*case.name.split("/")[:-1]), case.name.rpartition("/")[2]
    make_folder(folder / "images")
    make_folder(folder / "masks")
    if pixels is not None:
        target = formats.write_image(folder / "images" / name, pixels)
    else:
        target, changes = _copied(case.image, folder / "images" / name)
        said += changes
    formats.write_mask(folder / "masks" / f"{name}.png", mask, dataset.classes)
    return Repair(files, "changed" if said else "copied", tuple(said)), target


def _copied(image: Path, place: Path) -> tuple[Path, list[str]]:
    """Copies an image byte by byte, under a suffix that says what is in it."""
    kind = formats.content_of(image)
    is_true = kind is None or image.suffix.lower() in formats.SUFFIXES_OF[kind]
    suffix = image.suffix if is_true or kind is None else formats.SUFFIXES_OF[kind][0]
    target = place.with_name(f"{place.name}{suffix}")
    copy_file(image, target)
    return target, [] if is_true else [f"The file is {kind} and is now called {suffix}."]


def _mended_image(
    one: Measurement, channels: int
) -> tuple[Shaped[np.ndarray, "H W C"] | None, Bool[np.ndarray, "..."], list[str]]:
    """The pixels, none if the file stays as it is; where values were missing; and what was done."""
    assert one.shape is not None
    nowhere = np.zeros((1, 1), dtype=bool)
    if one.case.page is None and not one.not_finite and one.shape[2] == channels:
        return None, nowhere, []
    image = formats.read_image(one.case.image, one.case.page)
    said = []
    if one.not_finite:
        nowhere = ~np.isfinite(image).all(axis=2)
        image = _with_medians(image)
        said.append(f"{one.not_finite} values, NaN or infinite, became the median, and their pixels are ignored.")
    if one.shape[2] == 1 and channels > 1:
        image = np.repeat(image, channels, axis=2)
        said.append("The grey image became one in colour.")
    elif one.shape[2] > channels:
        image = image[:, :, :channels]
        said.append("Its transparency is dropped.")
    return image, nowhere, said


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


# the size of masks -------------------------------------------------------------------------------------------------

_KNOWN_FITS: tuple[Misfit | None, ...] = (None, "off by one", "turned by the camera", "scaled")
"""How a mask may differ in size from its image for it to be known how it lies on it."""


def _fitted(mask: UInt8[np.ndarray, "h w"], one: Measurement) -> tuple[UInt8[np.ndarray, "H W"], list[str]]:
    """The mask at the size of its image, and what was done."""
    assert one.shape is not None
    height, width = one.shape[:2]
    if one.misfit == "off by one":
        cropped = mask[:height, :width]
        missing = ((0, height - cropped.shape[0]), (0, width - cropped.shape[1]))
        filled = np.pad(cropped, missing, constant_values=IGNORE)
        return filled, ["The mask was off by one pixel: what is too much is cropped, what is missing ignored."]
    if one.misfit == "turned by the camera":
        return formats.upright(mask, one.orientation), ["The mask is turned like its image, which the camera turned."]
    if one.misfit == "scaled":
        said = f"The mask was scaled from {mask.shape[1]} x {mask.shape[0]} pixels to {width} x {height} (nearest)."
        return resize_mask(mask, (height, width)), [said]
    return mask, []


# what the copy says of itself --------------------------------------------------------------------------------------


def _write_lists(dataset: Dataset, kept: Sequence[tuple[Case, Path]], out: Path) -> None:
    """data.yaml, the lists of a given split, and the table of groups."""
    content: dict[str, object] = {
        "images": "**/images/*",
        "masks": "{dir}/../masks/{stem}.png",
        "names": list(dataset.classes.names),
        "colors": dataset.classes.colors().tolist(),
    }
    given = {case.split for case, _ in kept} - {None}
    for side, key in (("train", "train"), ("validation", "val"), ("test", "test")):
        if side not in given:
            continue
        # of the rest of a given split, everything trains
        wanted = {side, None} if side == "train" else {side}
        lines = [image.as_posix() for case, image in kept if case.split in wanted]
        write_atomically(out / f"{key}.txt", ("\n".join(lines) + "\n").encode())
        content[key] = f"{key}.txt"
    if any(case.group for case, _ in kept):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([("image", "group"), *((image.as_posix(), case.group or case.name) for case, image in kept)])
        write_atomically(out / "groups.csv", text.getvalue().encode())
        content["group_table"] = {"file": "groups.csv", "column": "group"}
    described = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    write_atomically(out / "data.yaml", described.encode())
