"""From a folder, or a data.yaml, to cases: which file is the mask of which image.

Files are paired by name, never by order. What a folder holds is decided by the words in its folder and
file names (`naming`), by matching stems, and where two files differ only in their suffix, by what is in
them (`layouts`). Where more than one reading is possible nothing is guessed: the error prints the lines of
a data.yaml that settle it (`ambiguous`). `docs/data-folder.md` describes layouts and keys.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pixelwise.data import channels, declared, formats, layouts, legends, measure, nifti, polygons, splitlists
from pixelwise.data.dataset import Case, Dataset, MaskEncoding, SplitName
from pixelwise.data.detect import Detection, detect
from pixelwise.data.layouts import Pairing
from pixelwise.data.listing import File, Listing, some, walk
from pixelwise.data.naming import is_called_image, masks_beside_images, place_of
from pixelwise.data.nifti import Axis, is_nifti
from pixelwise.data.pieces import cut, ungrouped_if_few
from pixelwise.data.unread import told_of_lonely
from pixelwise.errors import DataError

DATA_FILES = ("data.yaml", "data.yml")
"""A file of one of these names in a folder describes it."""


class SeveralProblemsError(DataError):
    """All that keeps the masks of a folder from being understood, in one error; `problems` has each."""

    def __init__(self, problems: Sequence[DataError], root: Path) -> None:
        self.problems = tuple(problems)
        alike: dict[tuple[str, str], list[str]] = {}
        for one in problems:
            alike.setdefault((one.what, one.remedy), []).append(str(one.where or root))
        lines = [f"\n- {some(files, 6)}: {what} {remedy}".rstrip() for (what, remedy), files in alike.items()]
        super().__init__(f"There are {len(problems)} problems:{''.join(lines)}", where=root)


def scan(root: Path, slices: Axis | None = None) -> Dataset:
    """Find the cases of a folder or of a data.yaml, and what their masks mean.

    Args:
        root: a folder, or a .yaml file that describes one.
        slices: axis of volumes across which a model takes slices, where the file says nothing else.

    Returns:
        Cases sorted by name. `Case.split` is what the folder or the file gives: `train` and `validation` only
        where both are there (else both are none, to be split), `test` only where not everything is a test.

    Raises:
        DataError: there is nothing to pair, or more than one way to pair it; the remedy says how to settle it.
        SeveralProblemsError: it cannot be said what the masks mean, and there is more that is wrong with the files.
        ConfigError: a key or value of the data.yaml is not possible.
    """
    description = _description(root)
    if description is not None:
        pairing = declared.pair(description)
        above = pairing.listing.root
    else:
        pairing, above = layouts.pair(_within_shared_folders(walk(root))), root
    pairing = replace(_listed(pairing, above), slices=pairing.slices if pairing.slices is not None else slices)
    cases, unlike, said = _cases(pairing)
    detection = _detection(cases, pairing, unlike)
    return Dataset(
        root=pairing.listing.root,
        cases=cases,
        classes=detection.classes,
        encoding=detection.encoding,
        layout=pairing.layout,
        notices=(*pairing.notices, *detection.notices, *said, *_told_channels(cases), *_told_of_files(pairing)),
        unpaired=pairing.unpaired,
        slices=pairing.slices,
        named=detection.listed or _has_names(pairing, detection.encoding),
        listed=detection.listed,
    )


def _within_shared_folders(listing: Listing) -> Listing:
    """The same files seen from the folder that holds them all, where names above it hide what those below it say.

    Such as Dataset_with_GT/benign/7.png and 7_mask.png, where the outer folder would make everything a mask.
    """
    folders = [file.folder for file in listing.rasters]
    depth = next(
        (i for i, level in enumerate(zip(*folders, strict=False)) if len(set(level)) > 1), min(map(len, folders))
    )
    roles = {place_of(file.folder).role for file in listing.rasters}
    if not depth or len(roles) > 1 or "plain" in roles:
        return listing
    shared = folders[0][:depth]
    if _annotates(listing, [file for file in listing.files if file.folder[:depth] != shared]):
        return listing
    below = (file for file in listing.files if file.folder[:depth] == shared)
    inner = Listing(listing.root.joinpath(*shared), tuple(file._replace(folder=file.folder[depth:]) for file in below))
    told = {place_of(file.folder).role for file in inner.rasters}
    return inner if len(told) > 1 or (told == {"plain"} and masks_beside_images(inner.rasters)) else listing


def _annotates(listing: Listing, others: Sequence[File]) -> bool:
    """Whether some of these files that hold no pixels are annotations, and not a README.txt or what describes a set."""
    stems = {file.stem for file in listing.rasters}
    for file in others:
        if file.suffix == ".json":
            with contextlib.suppress(DataError):
                polygons.format_of(listing.path(file))
                return True
        elif file.is_annotation and file.stem in stems:
            return True
    return False


def _told_of_files(pairing: Pairing) -> list[str]:
    """Of files without partner, and of images that are there to be predicted."""
    return [*told_of_lonely(pairing.listing.root, pairing.unpaired), *_told_tests(pairing)]


def _listed(pairing: Pairing, above: Path) -> Pairing:
    """The same with what names of masks, and lists of classes and of a split, say where nothing else does.

    Lists may lie in folders that hold all images, too, down from the one `above`.
    """
    declaration, notices = pairing.declaration, pairing.notices
    outer = pairing.listing.root.relative_to(above).parts
    masks = [mask for several in pairing.pairs.values() for mask in several if not mask.is_annotation]
    if masks and all(mask.stem.lower().endswith("_cp_masks") for mask in masks):  # Cellpose
        declaration = replace(declaration, numbered=True)
    if masks and declaration.names is None and declaration.colors is None and not declaration.values:
        folders = {(*outer, *file.folder) for file in (*pairing.pairs, *masks)}
        legend, said = legends.find(above, folders)
        declaration, notices = replace(declaration, legend=legend), (*notices, *said)
    if pairing.splits is not None:
        return replace(pairing, declaration=declaration, notices=notices)
    whole = {image._replace(folder=(*outer, *image.folder)): image for image in pairing.pairs}
    found, said = splitlists.find(above, list(whole))
    splits = {whole[image]: side for image, side in found.items()} if found is not None else None
    return replace(pairing, declaration=declaration, splits=splits, notices=(*notices, *said))


def _told_channels(cases: Sequence[Case]) -> list[str]:
    several = [case for case in cases if case.channels]
    if not several:
        return []
    first = several[0]
    names = " and ".join(path.name for path in (first.image, *first.channels))
    return [f"The channels of {len(several)} images lie in files of their own, as {names}."]


def _told_tests(pairing: Pairing) -> list[str]:
    images = pairing.to_predict
    if not images:
        return []
    folders = some({_test_folder(file) for file in images})
    have, they = ("1 image has", "it") if len(images) == 1 else (f"{len(images)} images have", "they")
    return [f"In {folders}, {have} no mask: nothing is learnt or scored there, but {they} can be predicted."]


def _test_folder(file: File) -> str:
    """The first folder of its path that is called test."""
    depths = range(1, len(file.folder) + 1)
    return "/".join(next(file.folder[:d] for d in depths if place_of(file.folder[:d]).split == "test"))


def _has_names(pairing: Pairing, encoding: MaskEncoding) -> bool:
    """Whether the user or the annotations name the classes."""
    meanings = (pairing.declaration.values or {}).values()
    by_value = any(isinstance(meaning, str) and meaning != "ignore" for meaning in meanings)
    return pairing.declaration.names is not None or by_value or encoding.kind in ("coco", "labelme")


def _description(root: Path) -> Path | None:
    """The YAML file that describes the data, if there is one."""
    if root.suffix.lower() in (".yaml", ".yml") and not root.is_dir():
        return root
    return next((root / name for name in DATA_FILES if (root / name).is_file()), None)


def _detection(cases: Sequence[Case], pairing: Pairing, unlike: Sequence[DataError]) -> Detection:
    """What the masks mean; if that cannot be said, all that is wrong with the files is looked for at once."""
    problems = list(unlike)
    try:
        if cases or not unlike:
            detection = detect(cases, pairing.declaration)
    except DataError as error:
        problems.insert(0, error)
    if not problems:
        return detection
    told = {(str(one.where), one.what) for one in problems}
    problems += [one for one in measure.faults(cases) if (str(one.where), one.what) not in told]
    if pairing.unpaired:
        lonely = some([path.relative_to(pairing.listing.root).as_posix() for path in pairing.unpaired], 6)
        what = f"These files have no partner, which is an image without mask or a mask without image: {lonely}."
        remedy = "Give image and mask the same name, or have them left out."
        problems.append(
            DataError(" ".join([what, *told_of_lonely(pairing.listing.root, pairing.unpaired)]), remedy=remedy)
        )
    if len(problems) == 1:
        raise problems[0]
    raise SeveralProblemsError(problems, pairing.listing.root)


def _cases(pairing: Pairing) -> tuple[tuple[Case, ...], list[DataError], list[str]]:
    """A case for every image, page of a stack or piece, by name; stacks whose mask is none; what is to be known."""
    names = _names(pairing.pairs)
    splits = _splits(pairing)
    path = pairing.listing.path
    cases: list[Case] = []
    unlike: list[DataError] = []
    for image, masks in pairing.pairs.items():
        case = Case(names[image], path(image), tuple(path(mask) for mask in masks), split=splits[image])
        if pairing.parts is not None:
            case = replace(case, parts=tuple(pairing.parts[mask] for mask in masks))
        try:
            cases.extend(_pages(replace(case, channels=channels.further(case.image)), pairing.slices))
        except DataError as error:
            unlike.append(error)
    cases = _distinct(cases, pairing.listing.root)
    said: list[str] = []
    if pairing.group is not None:
        cases = [replace(case, group=pairing.group(case)) for case in cases]
    else:
        cases, said = ungrouped_if_few(cases)
    return tuple(sorted(cases, key=lambda case: _natural(case.name))), unlike, said


def _distinct(cases: list[Case], root: Path) -> list[Case]:
    """Whole paths for names that occur twice: a page of `a.tif` may be called as an image in a folder `a`."""
    counts = Counter(case.name for case in cases)
    if len(counts) == len(cases):
        return cases
    parts = {case: (case.page is not None) + (case.window is not None) for case in cases}
    page = {
        case: "".join(f"/{part}" for part in case.name.split("/")[-count:] if count) for case, count in parts.items()
    }
    return [
        replace(case, name=case.image.relative_to(root).as_posix() + page[case]) if counts[case.name] > 1 else case
        for case in cases
    ]


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts 2 before 10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _names(images: Iterable[File]) -> dict[File, str]:
    """Short names: folders without image folders, and the stem; whole paths where those are not unique."""
    short = {image: "/".join(_short_name(image)) for image in images}
    counts = Counter(short.values())
    whole = Counter(image.posix_stem for image in short)
    return {
        image: name if counts[name] == 1 else image.posix_stem if whole[image.posix_stem] == 1 else image.posix
        for image, name in short.items()
    }


def _short_name(image: File) -> tuple[str, ...]:
    folders = place_of(image.folder).named
    if folders and (folders[-1] == image.stem or is_called_image(image.stem)):
        return folders
    return (*folders, image.stem)


def _splits(pairing: Pairing) -> dict[File, SplitName | None]:
    """What is given, where it is enough to go by (see `scan`)."""
    splits = pairing.splits
    if splits is None:
        splits = {image: place_of(image.folder).split for image in pairing.pairs}
    sides = set(splits.values())
    kept: set[SplitName | None] = {"train", "validation"} if {"train", "validation"} <= sides else set()
    kept |= {"test"} if sides != {"test"} else set()
    return {image: side if side in kept else None for image, side in splits.items()}


def _pages(case: Case, slices: Axis | None) -> list[Case]:
    """One case for each page of a stack and each piece of a large image, which a split keeps on one side."""
    is_chosen = slices is not None and is_nifti(case.image.name)
    rasters = [path for path in case.masks if formats.split_name(path.name)[1] in formats.READERS]
    if slices is not None and any(is_nifti(path.name) != is_chosen for path in rasters):
        raise DataError(
            "'slices' is for volumes whose masks are volumes too.", where=case.image, remedy="Leave 'slices' out."
        )
    numbers = _page_numbers(case.image, slices)
    own = len(numbers) if numbers is not None else None
    counts = {path: _count(path, slices) if path in rasters else 1 for path in case.masks}
    known = [count for count in (own, *counts.values()) if count is not None]
    unlike = next((path for path, count in counts.items() if count not in (own, None)), None)
    if own is not None and unlike is not None:
        raise DataError(
            f"The image has {own} pages, its mask {unlike.name} has {counts[unlike]}.",
            where=case.image,
            remedy="Save the same pages in both.",
        )
    pages = max(known, default=1)  # of files that cannot be read the check of the data says so
    if pages == 1:
        return cut(replace(case, page=numbers[0])) if is_chosen and numbers is not None else cut(case)
    width = len(str(pages - 1))
    several = [
        replace(case, name=f"{case.name}/{index:0{width}d}", page=page, group=case.name)
        for index, page in enumerate(numbers if numbers is not None else range(pages))
    ]
    return [piece for one in several for piece in cut(one)]


def _page_numbers(path: Path, slices: Axis | None) -> range | None:
    """Of all pages of a file; none if it cannot be read."""
    if slices is not None and is_nifti(path.name):
        with contextlib.suppress(DataError), formats.reading(path):
            return nifti.pages(path, slices)
        return None
    count = formats.page_count(path)
    return range(count) if count is not None else None


def _count(mask: Path, slices: Axis | None) -> int | None:
    numbers = _page_numbers(mask, slices)
    return len(numbers) if numbers is not None else None
