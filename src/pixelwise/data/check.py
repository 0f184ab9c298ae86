"""The dataset doctor: every problem of a data set, found in one pass over its files.

`data.measure` reads each image and mask once, in parallel, and keeps a few numbers per case. Each entry of `CHECKS` is
a function from all of these to findings; a new check is a new function and a line in the table. What would make
training wrong or impossible is fatal, what probably makes it worse is a warning, what is good to know is a notice.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.spatial import KDTree

from pixelwise.classes import ClassTable
from pixelwise.config import FEWEST_UNITS, SizePx
from pixelwise.data.alike import ALIKE, ONE_VIEW, Likeness, common_part
from pixelwise.data.dataset import Dataset
from pixelwise.data.finding import SEVERITIES, Finding, Severity
from pixelwise.data.fingerprint import FEW_LOST, REDUCTIONS, Fingerprint
from pixelwise.data.listing import counted
from pixelwise.data.masks import LOSSY_SUFFIXES, UnknownValuesError, shortened
from pixelwise.data.measure import Measurement, Misfit, equal, measure
from pixelwise.data.reading import WrongSizeError
from pixelwise.data.split import Split

_FEWEST_LABELLED = 3
"""Train, validation and test need one image each."""
_RARE_SHARE = 0.01
_FEWEST_FOR_HABITS = 10
"""Of fewer images, nobody can say what is usual."""
_MOSTLY = 0.8
_LEAST_SPREAD = 0.02
"""Shares of a class differ by so much at least, however alike the few images at hand are."""
_FEWEST_ALIKE = 5
"""So many images show that all are about equally bright,"""
_FEW_TIMES = 4.0
"""which the brightest is if it is less than so many times as bright as the darkest,"""
_MANY_TIMES = 8.0
"""and that one is not: it is so many times darker or brighter than the next."""
_WHOLE = frozenset({"uint8", "uint16"})
"""Types in which a deviation below one step means that there is hardly anything to see."""
_LONELY = 10.0
"""An outlier is so many times farther from its neighbours than is usual."""
_COPY_AGAIN = "Copy the file again or remove it with its partner."
_LEFT_OUT = "Those in no given split are left out of training."


Check = Callable[[Dataset, Sequence[Measurement]], list[Finding]]


def examine(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """All findings about a data set, fatal ones first.

    Args:
        dataset: from `data.folder.scan`.
        progress: is called with the number of cases done and their total.
    """
    return judge(dataset, measure(dataset, progress))


def judge(dataset: Dataset, measurements: Sequence[Measurement]) -> list[Finding]:
    """All findings about a data set that was measured, fatal ones first."""
    found = [finding for check in CHECKS.values() for finding in check(dataset, measurements)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def of_resizing(fingerprint: Fingerprint, classes: ClassTable, size: SizePx | None) -> list[Finding]:
    """Whether objects are too small to be seen at the size to which images are resized.

    Args:
        fingerprint: of the training images as they are.
        classes: their names.
        size: height and width to resize to; none leaves images as they are.
    """
    if size is None or (ratio := max(fingerprint.median_size_px) / max(size)) < math.sqrt(min(REDUCTIONS)):
        return []
    losses = zip(REDUCTIONS, fingerprint.lost_objects, strict=True)
    by, lost = min(losses, key=lambda one: abs(math.log(one[0] / ratio)))
    vanish = [f"{name} {share:.0%}" for name, share in zip(classes.names, lost, strict=True) if share > FEW_LOST]
    if not vanish:
        return []
    return [
        Finding(
            "warning",
            f"Objects are smaller than the network can see: of masks reduced {by} times, these shares of the objects "
            f"have no pixel left: {', '.join(vanish)}.",
            (),
            f"Images are resized to {size[0]} x {size[1]} (height x width), {ratio:.1f} times smaller.",
            "Train on patches of the images as they are (--set data.resize=null), or resize less.",
        )
    ]


def of_test_side(split: Split) -> list[Finding]:
    """Whether there are enough test images to see how sure their scores are."""
    units = len({(case.group, "" if case.group else case.name) for case in split.test})
    if not 0 < units < FEWEST_UNITS:
        return []
    held = f"images of {counted(units, 'group')}" if units < len(split.test) else counted(units, "image")
    return [
        Finding(
            "notice",
            f"The test side has {held}.",
            tuple(case.image for case in split.test),
            f"Its scores have no interval, which takes {FEWEST_UNITS}: with other images they may be quite different.",
            "Test on more images (data.test_fraction), or score all of them by cross-validation (--folds).",
        )
    ]


# the checks --------------------------------------------------------------------------------------------------------


def _unreadable(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    """Files that are damaged, cut off or empty; each message of a reader is one finding."""
    files: dict[tuple[str, str], list[Path]] = {}
    for one in cases:
        for error in (one.image_error, one.mask_error):
            if error is None or isinstance(error, UnknownValuesError | WrongSizeError):
                continue
            path = Path(error.where) if error.where is not None else one.case.image
            files.setdefault((error.what, error.remedy), []).append(path)
    return [
        Finding("fatal", what, _distinct(paths), "", f"{remedy or _COPY_AGAIN} `pixelwise check --fix` leaves it out.")
        for (what, remedy), paths in files.items()
    ]


def _unknown_values(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    wrong = [(one, one.mask_error) for one in cases if isinstance(one.mask_error, UnknownValuesError)]
    if not wrong:
        return []
    return [
        Finding(
            "fatal",
            f"{counted(len(wrong), 'mask')} with values that no class claims. The first: {wrong[0][1].what}",
            _distinct(one.case.masks[0] for one, _ in wrong),
            "Masks that were resized or edited with smoothing have such values, and so do forgotten classes.",
            wrong[0][1].remedy,
        )
    ]


def _sizes(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    """Masks that are not as large as their image, grouped by how they differ."""
    wrong: dict[Misfit | Literal["parts"], list[Measurement]] = {}
    for one in cases:
        kind = "parts" if isinstance(one.mask_error, WrongSizeError) else one.misfit
        if kind is not None:
            wrong.setdefault(kind, []).append(one)
    return [_size_finding(kind, members) for kind, members in wrong.items()]


_MISFITS: Mapping[Misfit | Literal["parts"], tuple[str, str]] = {
    "parts": ("The mask files of one image have different sizes.", "`pixelwise check --fix` leaves such images out. "),
    "turned": (
        "Height and width are exchanged: the image or the mask was rotated.",
        "`pixelwise check --fix` leaves such images out. ",
    ),
    "turned by the camera": (
        "The image says how the camera was held (EXIF) and is read upright; the mask was drawn on the image as stored.",
        "`pixelwise check --fix` turns such masks. ",
    ),
    "off by one": (
        "They differ by a single pixel: a program rounded differently when it cropped or scaled.",
        "`pixelwise check --fix` crops or fills such masks. ",
    ),
    "scaled": (
        "They have the same proportions: one of them was scaled.",
        "`pixelwise check --fix` scales such masks. ",
    ),
    "different": (
        "One of them was cropped, or they are not a pair.",
        "`pixelwise check --fix` leaves such images out. ",
    ),
}
"""The usual cause, and what can be done without the owner of the data."""


def _size_finding(kind: Misfit | Literal["parts"], members: Sequence[Measurement]) -> Finding:
    cause, fix = _MISFITS[kind]
    first = members[0]
    said = f" The first: {first.mask_error.what}" if first.mask_error is not None else ""
    if first.shape is not None and first.mask_size is not None:
        said = (
            f" In {first.case.name} the image has {first.shape[1]} x {first.shape[0]} pixels (width x height), "
            f"the mask {first.mask_size[1]} x {first.mask_size[0]}."
        )
    return Finding(
        "fatal",
        f"{counted(len(members), 'mask')} {_is(len(members))} not of the size of the image.{said}",
        _distinct(one.case.masks[0] for one in members),
        cause,
        f"{fix}Masks that are exported again need the size of their image, and no smoothing (nearest).",
    )


def _orientation(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    """Images that the camera turned without a change of size, which would show if the mask was not turned with them."""
    turned = [one for one in cases if one.orientation > 1 and one.misfit is None and one.case.masks]
    hidden = [one for one in turned if one.orientation < 5 or (one.shape is not None and one.shape[0] == one.shape[1])]
    return _if_any(
        _distinct(one.case.image for one in hidden),
        "image",
        Finding(
            "notice",
            "{n} turned or mirrored by what the camera wrote into the file (EXIF); they are read upright.",
            (),
            "A mask that was drawn on the image as stored lies wrong, and its size does not show it.",
            "Look at them with `pixelwise preview`.",
        ),
    )


def _notices(dataset: Dataset, _: Sequence[Measurement]) -> list[Finding]:
    """What was concluded from the masks and not declared."""
    return [Finding("notice", notice, (), "", "") for notice in dataset.notices]


def _unpaired(dataset: Dataset, _: Sequence[Measurement]) -> list[Finding]:
    if not dataset.unpaired:
        return []
    return [
        Finding(
            "warning",
            f"{counted(len(dataset.unpaired), 'file')} without partner, left out: an image without mask or a "
            "mask without image.",
            dataset.unpaired,
            "A file was renamed, forgotten or not labelled.",
            "Give the image and its mask the same name, or remove the file.",
        )
    ]


def _channels(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    """Images with different numbers of channels: grey can be made any colour, others cannot be reconciled."""
    counts = Counter(one.shape[2] for one in cases if one.shape is not None)
    if len(counts) < 2:
        return []
    usual = counts.most_common(1)[0][0]
    odd = _distinct(one.case.image for one in cases if one.shape is not None and one.shape[2] != usual)
    listed = ", ".join(f"{counted(number, 'image')} with {channels}" for channels, number in counts.most_common())
    if len(set(counts) - {1}) < 2:
        return [
            Finding(
                "warning",
                f"Images have different numbers of channels: {listed}. Grey ones are repeated in each channel.",
                odd,
                "If these are two kinds of imaging, the network has to learn both.",
                "Convert all images to one kind, or check that each kind is frequent enough.",
            )
        ]
    return [
        Finding(
            "fatal",
            f"Images have different numbers of channels: {listed}.",
            odd,
            "A transparency channel was stored, or images of different instruments are mixed.",
            "Convert all images to the same channels.",
        )
    ]


def _depths(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    counts = Counter(one.dtype for one in cases if one.dtype is not None)
    if len(counts) < 2:
        return []
    usual = counts.most_common(1)[0][0]
    return [
        Finding(
            "warning",
            f"Images have different bit depths: {', '.join(f'{n} of {kind}' for kind, n in counts.most_common())}.",
            _distinct(one.case.image for one in cases if one.dtype not in (None, usual)),
            "A 16-bit image is up to 257 times brighter than an 8-bit one of the same scene.",
            "Convert all images to one depth, or set data.normalisation to 'image'.",
        )
    ]


def _constant(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    files = _distinct(one.case.image for one in cases if one.constant and one.case.window is None)
    return _if_any(
        files,
        "image",
        Finding(
            "warning",
            "{n} with the same value in every pixel.",
            (),
            "The export failed, the shutter was closed, or the page is empty.",
            "Remove them: there is nothing to learn from them.",
        ),
    )


def _not_finite(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    files = _distinct(one.case.image for one in cases if one.not_finite)
    total = sum(one.not_finite for one in cases)
    return _if_any(
        files,
        "image",
        Finding(
            "fatal",
            f"{{n}} with NaN or infinite values ({total} in all).",
            (),
            "Missing pixels and divisions by zero are stored like this; one of them makes the loss NaN.",
            "Replace them by a number, such as the median, and give these pixels the ignore value in the mask.",
        ),
    )


def _all_ignored(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    files = _distinct(one.case.masks[0] for one in cases if one.class_pixels is not None and not any(one.class_pixels))
    return _if_any(
        files,
        "mask",
        Finding(
            "warning",
            "{n} with every pixel ignored.",
            (),
            "Such a mask neither trains nor scores anything.",
            "Label them or remove them.",
        ),
    )


def _empty(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    """Masks with background only: some are normal, many are suspicious."""
    known = [one for one in cases if one.class_pixels is not None and any(one.class_pixels)]
    empty = [one for one in known if one.class_pixels is not None and not any(one.class_pixels[1:])]
    if not empty or not any(one.class_pixels[0] for one in known if one.class_pixels):
        return []
    most = 2 * len(empty) > len(known)
    return [
        Finding(
            "warning" if most else "notice",
            f"{len(empty)} of {len(known)} masks hold background only.",
            _distinct(one.case.masks[0] for one in empty),
            "This is right if there is nothing to see in the image; a forgotten annotation looks the same, and teaches "
            "the network to overlook objects.",
            "Look at these images; remove those that were never labelled.",
        )
    ]


def _absent_classes(dataset: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    counts = _images_per_class(dataset, cases)
    absent = [name for name, count in zip(dataset.classes.names, counts, strict=True) if count == 0]
    if not absent:
        return []
    return [
        Finding(
            "warning",
            f"{len(absent)} of {len(counts)} classes never occur in a mask: {', '.join(absent[:20])}"
            f"{' ...' if len(absent) > 20 else ''}.",
            (),
            "The network cannot learn them. Where it predicts one all the same, its IoU of 0 counts in the mean.",
            "Remove them from the class names, or check that the mask values are right.",
        )
    ]


def _classes_without_training(dataset: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    """Classes that a given validation or test side has and the images for training do not."""
    trained = [one for one in cases if one.case.split in (None, "train")]
    # validation is drawn from the rest where it is not given, and the rest holds all there is to train on
    if len(trained) in (0, len(cases)):
        return []
    seen = _images_per_class(dataset, trained)
    sides = {
        name: _images_per_class(dataset, [one for one in cases if one.case.split == name])
        for name in ("validation", "test")
    }
    lost = [index for index, count in enumerate(seen) if not count and any(side[index] for side in sides.values())]
    if not lost:
        return []
    listed = ", ".join(
        f"'{dataset.classes.names[index]}' in {' and '.join(name for name, side in sides.items() if side[index])}"
        for index in lost[:20]
    )
    return [
        Finding(
            "warning",
            f"{counted(len(lost), 'class')} of the given split never {_occur(len(lost))} in a training mask: {listed}"
            f"{' ...' if len(lost) > 20 else ''}.",
            _distinct(
                one.case.image
                for one in cases
                if one.case.split in sides and one.class_pixels is not None and any(one.class_pixels[i] for i in lost)
            ),
            "The network cannot learn what it is not shown, and its IoU of 0 counts in the mean.",
            "Give some of these images to training, or merge the class with another one.",
        )
    ]


def _single_image_classes(dataset: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    known = [(one.case, one.class_pixels) for one in cases if one.class_pixels is not None]
    counts = _images_per_class(dataset, cases)
    single = [index for index, count in enumerate(counts) if count == 1]
    if len(known) < 2 or not single:
        return []
    homes = [next(case for case, pixels in known if pixels[index]) for index in single]
    pairs = zip(single, homes, strict=True)
    listed = ", ".join(f"'{dataset.classes.names[index]}' in {case.name}" for index, case in pairs)
    return [
        Finding(
            "warning",
            f"{counted(len(single), 'class')} can be seen in one image only: {listed}.",
            _distinct(case.image for case in homes),
            "Such a class can be trained on or tested, but not both.",
            "Label more images with this class, or merge it with another one.",
        )
    ]


def _duplicates(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    """Pixel-identical images, by what their copies mean: other masks, another split, or nothing but repetition."""
    groups = [group for group in equal(cases, lambda one: one.image_hash) if not group[0].constant]
    contradicting = [group for group in groups if len({one.mask_hash for one in group}) > 1]
    leaking = [group for group in groups if len({one.case.split or "train" for one in group}) > 1]
    plain = [group for group in groups if group not in contradicting and group not in leaking]
    return [
        *_group_findings(
            contradicting,
            "have the same pixels but different masks",
            "They contradict each other: no network can satisfy both.",
            "Keep the better mask of each.",
        ),
        *_group_findings(
            leaking,
            "have the same pixels and stand in different splits: a leak",
            f"Scores on images that were trained on are too good. {_LEFT_OUT}",
            "Remove the copies from all but one split.",
        ),
        *_group_findings(
            plain,
            "have the same pixels",
            "They count double; the split keeps them on one side.",
            "Remove the copies.",
        ),
    ]


def _near_duplicates(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    """Images that are nearly the same without being equal, by whether a given split tears them apart."""
    known = [one for one in cases if one.coarse is not None and not one.constant]
    likeness = Likeness([one.coarse for one in known if one.coarse is not None])
    pairs = [
        (known[pair.first], known[pair.second], pair.similarity)
        for pair in likeness.pairs(ALIKE)
        if known[pair.first].image_hash != known[pair.second].image_hash
    ]
    torn: list[tuple[Measurement, Measurement, float]] = []
    kept: list[tuple[Measurement, Measurement, float]] = []
    for pair in pairs:
        sides = {one.case.split or "train" for one in pair[:2]}
        (torn if len(sides) > 1 else kept).append(pair)
    return [
        *_pair_findings(
            "warning",
            torn,
            "stand in different splits: probably a leak",
            "Scores on images that are nearly those trained on are too good. " + _LEFT_OUT,
            "Look at them; give images of one scene to one split.",
        ),
        *_pair_findings(
            "notice",
            kept,
            "are nearly the same",
            "Copies that were resized, brightened, turned or mirrored look like this, and frames of one scene. A split "
            "that is drawn keeps them on one side.",
            "Nothing has to be done; a `group` in data.yaml says which images belong together.",
        ),
    ]


def _one_view(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    """Images of a camera that does not move: what repeats in all of them hides which ones are nearly the same."""
    known = [one for one in cases if one.coarse is not None and not one.constant]
    common = common_part([one.coarse for one in known if one.coarse is not None])
    if len(known) < _FEWEST_FOR_HABITS or common < ONE_VIEW or all(one.case.group or one.case.split for one in known):
        return []
    return [
        Finding(
            "warning",
            f"All images show one view (their common part is {common:.2f} of each; 1 is equality).",
            (),
            "Scores on a test split of the same view say nothing of other places, and frames that follow each other "
            "cannot be told from others.",
            "Say which images belong together with `group` or `group_table` in data.yaml, such as the day or the film.",
        )
    ]


def _pair_findings(
    severity: Severity, pairs: Sequence[tuple[Measurement, Measurement, float]], what: str, cause: str, remedy: str
) -> list[Finding]:
    if not pairs:
        return []
    closest = sorted(pairs, key=lambda pair: -pair[2])
    named = "; ".join(f"{one.case.name} and {other.case.name} {value:.2f}" for one, other, value in closest[:3])
    images = _distinct(one.case.image for pair in closest for one in pair[:2])
    said = f"{len(images)} images {what} ({named}{'; ...' if len(pairs) > 3 else ''}; 1 is equality)."
    return [Finding(severity, said, images, cause, remedy)]


def _groups(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    """Groups that the given split tears apart."""
    groups = equal(cases, lambda one: one.case.group or None)
    torn = [group for group in groups if len({one.case.split or "train" for one in group}) > 1]
    if not torn:
        return []
    return [
        Finding(
            "warning",
            f"{counted(len(torn), 'group')} with cases in different splits: a leak "
            f"({shortened([group[0].case.group for group in torn])}).",
            _distinct(one.case.image for group in torn for one in group),
            f"Scores on a group that was trained on are too good. {_LEFT_OUT}",
            "Give all cases of a group to one split.",
        )
    ]


def _group_findings(groups: Sequence[Sequence[Measurement]], what: str, cause: str, remedy: str) -> list[Finding]:
    if not groups:
        return []
    named = "; ".join(" = ".join(one.case.name for one in group[:4]) for group in groups[:4])
    count = f"{sum(map(len, groups))} images" + (f" in {len(groups)} groups" if len(groups) > 1 else "")
    return [
        Finding(
            "warning",
            f"{count} {what} ({named}{'; ...' if len(groups) > 4 else ''}).",
            _distinct(one.case.image for group in groups for one in group),
            cause,
            remedy,
        )
    ]


def _lossy_masks(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    files = _distinct(path for one in cases for path in one.case.masks if path.suffix.lower() in LOSSY_SUFFIXES)
    return _if_any(
        files,
        "mask",
        Finding(
            "warning",
            "{n} stored as JPEG.",
            (),
            "JPEG changes values, mostly at the borders of objects, where it matters.",
            "Export the masks as PNG from the program they were drawn with; converting the JPEG files does not help.",
        ),
    )


def _misnamed(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    """Files that hold another format than their name says; a mask that is a JPEG in truth is the dangerous one."""
    masks = {path for one in cases for path in one.case.masks}
    found = {pair for one in cases for pair in one.misnamed}
    lossy = sorted(path for path, kind in found if kind == "JPEG" and path in masks)
    others = sorted({path for path, _ in found} - set(lossy))
    return [
        *_if_any(
            tuple(lossy),
            "mask",
            Finding(
                "warning",
                "{n} stored as JPEG under another name.",
                (),
                "JPEG changes values, mostly at the borders of objects, where it matters.",
                "Export the masks as PNG from the program they were drawn with.",
            ),
        ),
        *_if_any(
            tuple(others),
            "file",
            Finding(
                "notice",
                "{n} in another format than the name says; they are read as what they are.",
                (),
                "A file was renamed instead of converted.",
                "Give them the right suffix before other programs stumble over it.",
            ),
        ),
    ]


def _inverted(dataset: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    """Masks of one kind of object in which object and background seem exchanged: the rim of an image is background."""
    known = [(one, one.rim_pixels) for one in cases if one.rim_pixels is not None and any(one.rim_pixels)]
    if len(dataset.classes) != 2 or len(known) < _FEWEST_FOR_HABITS:
        return []
    shares = [rim[1] / sum(rim) for _, rim in known]
    odd = [one for (one, _), share in zip(known, shares, strict=True) if share > _MOSTLY]
    usual = sum(share < 1.0 - _MOSTLY for share in shares)
    if not odd or usual < _MOSTLY * len(known):
        return _exchanged(dataset, [one for one, _ in known])
    behind, thing = dataset.classes.names
    return _probably_inverted(
        odd, f"nearly all of the image's rim is {thing}, in {usual} of {len(known)} masks it is {behind}"
    )


def _exchanged(dataset: Dataset, known: Sequence[Measurement]) -> list[Finding]:
    """Masks in which the object takes what the background takes in all others, where that is always about the same."""
    pixels = np.array([one.class_pixels for one in known], dtype=np.float64)
    shares = pixels[:, 1] / np.maximum(1, pixels.sum(axis=1))
    usual = float(np.median(shares))
    spread = max(_LEAST_SPREAD, 1.48 * float(np.median(np.abs(shares - usual))))  # of a normal distribution
    far = (np.abs(shares - usual) > 8 * spread) & (np.abs(shares - (1 - usual)) < 3 * spread)
    odd = [one for one, is_far in zip(known, far, strict=True) if is_far]
    if not odd or len(odd) > (1 - _MOSTLY) * len(known):
        return []
    thing = dataset.classes.names[1]
    return _probably_inverted(
        odd, f"{thing} takes about {1 - usual:.0%} of the image, where it takes about {usual:.0%} in the others"
    )


def _probably_inverted(odd: Sequence[Measurement], sign: str) -> list[Finding]:
    return [
        Finding(
            "warning",
            f"{counted(len(odd), 'mask')} {_is(len(odd))} probably inverted: {sign}.",
            _distinct(one.case.masks[0] for one in odd),
            "White and black were exchanged when these masks were saved.",
            "Look at them, and invert them if they are.",
        )
    ]


def _outliers(_: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    """Images that are far from all others in brightness and contrast."""
    known = [one for one in cases if one.shape is not None and not one.constant and not one.not_finite]
    flat = [one for one in known if one.dtype in _WHOLE and one.contrast < 1.0]
    found = _if_any(
        _distinct(one.case.image for one in flat),
        "image",
        Finding(
            "notice",
            "{n} with hardly any contrast: the values differ by less than one step on average.",
            (),
            "The exposure failed, or values were divided when the image was saved.",
            "Look at them; remove what is broken.",
        ),
    )
    odd = _lonely(known) if len(known) >= _FEWEST_FOR_HABITS else []
    odd += [one for one in _far_by_ratio(known) if one not in odd]
    odd = [one for one in odd if one not in flat]
    if not odd or len(odd) > 0.02 * len(known) + 1:
        return found
    return [
        *found,
        Finding(
            "notice",
            f"{counted(len(odd), 'image')} {_is(len(odd))} much brighter, darker, flatter or more contrasted than all "
            "others.",
            _distinct(one.case.image for one in odd),
            "An exposure failed, or the image is of another kind.",
            "Look at them; remove what is broken.",
        ),
    ]


def _far_by_ratio(known: Sequence[Measurement]) -> list[Measurement]:
    """The darkest or the brightest image, where all others are about equally bright."""
    ordered = sorted(known, key=lambda one: one.brightness)
    if len(ordered) < _FEWEST_ALIKE or ordered[0].brightness <= 0 or len({one.dtype for one in known}) > 1:
        return []
    levels = [one.brightness for one in ordered]
    is_dark = levels[0] * _MANY_TIMES < levels[1] and levels[-1] < _FEW_TIMES * levels[1]
    is_bright = levels[-1] > _MANY_TIMES * levels[-2] and levels[-2] < _FEW_TIMES * levels[0]
    return [ordered[0]] * is_dark + [ordered[-1]] * is_bright


def _lonely(known: Sequence[Measurement]) -> list[Measurement]:
    """Those whose nearest neighbours in brightness and contrast are far away."""
    places = np.array([(one.brightness, one.contrast) for one in known])
    spread = np.maximum(places.std(axis=0), 1e-9)
    distances, _ids = KDTree(places / spread).query(places / spread, k=4)
    lonely = np.asarray(distances)[:, -1]  # a few images of another kind keep each other company
    far = lonely > _LONELY * max(float(np.median(lonely)), 0.05)
    return [one for one, is_far in zip(known, far, strict=True) if is_far]


def _too_few(dataset: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    if any(one.case.split for one in cases) or len(cases) >= _FEWEST_LABELLED:
        return []
    possible = len(cases) == _FEWEST_LABELLED - 1
    without_test = "; or do without a test set (--set data.test_fraction=0)" if possible else ""
    return [
        Finding(
            "warning" if possible else "fatal",
            f"{counted(len(cases), 'labelled image')} only; training, validation and test need one each.",
            (dataset.root,),
            "",
            f"Label more images: from about twenty on, scores begin to mean something{without_test}.",
        )
    ]


def _imbalance(dataset: Dataset, cases: Sequence[Measurement]) -> list[Finding]:
    known = [one.class_pixels for one in cases if one.class_pixels is not None]
    if not known:
        return []
    totals = np.sum(known, axis=0)
    shares = totals / max(1, totals.sum())
    pairs = zip(dataset.classes.names, shares, strict=True)
    rare = [f"{name} {share:.2%}" for name, share in pairs if 0 < share < _RARE_SHARE]
    if not rare:
        return []
    return [
        Finding(
            "notice",
            f"{counted(len(rare), 'class')} with less than 1 % of the pixels: {', '.join(rare)}.",
            (),
            "A network that never predicts such a class is right almost everywhere; pixel accuracy does not show it.",
            "Judge it by its own IoU. Patches drawn around it (data.foreground_fraction) and its weight in the loss "
            "(loss.class_weights) help; the plan chooses both where three classes or more occur.",
        )
    ]


CHECKS: dict[str, Check] = {
    "unreadable files": _unreadable,
    "unknown mask values": _unknown_values,
    "sizes of image and mask": _sizes,
    "orientation": _orientation,
    "not finite": _not_finite,
    "too few images": _too_few,
    "channels": _channels,
    "bit depths": _depths,
    "unpaired files": _unpaired,
    "duplicates": _duplicates,
    "near duplicates": _near_duplicates,
    "one view": _one_view,
    "groups": _groups,
    "constant images": _constant,
    "ignored masks": _all_ignored,
    "empty masks": _empty,
    "absent classes": _absent_classes,
    "classes without training": _classes_without_training,
    "classes in one image": _single_image_classes,
    "JPEG masks": _lossy_masks,
    "names and contents": _misnamed,
    "inverted masks": _inverted,
    "outliers": _outliers,
    "class imbalance": _imbalance,
    "what was detected": _notices,
}
"""Every check by name, in the order in which findings of the same severity are told."""


# what several checks need -----------------------------------------------------------------------------------------


def _if_any(files: tuple[Path, ...], kind: str, finding: Finding) -> list[Finding]:
    """The finding with its files, and their number in the place of {n}, if there are any."""
    return [replace(finding, what=finding.what.format(n=counted(len(files), kind)), files=files)] if files else []


def _occur(number: int) -> str:
    return "occurs" if number == 1 else "occur"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _distinct(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(paths))


def _images_per_class(dataset: Dataset, cases: Sequence[Measurement]) -> list[int]:
    known = [one.class_pixels for one in cases if one.class_pixels is not None]
    return [sum(pixels[index] > 0 for pixels in known) for index in range(len(dataset.classes))]
