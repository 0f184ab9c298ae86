"""From a folder, or a data.yaml, to cases: which file is the mask of which image.

Files are paired by name, never by order. What a folder holds is decided by the words in its folder and
file names (`naming`), by matching stems, and where two files differ only in their suffix, by what is in
them (`layouts`). Where more than one reading is possible nothing is guessed: the error prints the lines of
a data.yaml that settle it (`ambiguous`). `docs/data-folder.md` describes layouts and keys.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pixelwise.data import declared, formats, layouts
from pixelwise.data.dataset import Case, Dataset, SplitName
from pixelwise.data.detect import detect
from pixelwise.data.layouts import Pairing
from pixelwise.data.listing import File, walk
from pixelwise.data.naming import is_called_image, place_of
from pixelwise.errors import ConfigError, DataError

DATA_FILES = ("data.yaml", "data.yml")
"""A file of one of these names in a folder describes it."""


def scan(root: Path) -> Dataset:
    """Find the cases of a folder or of a data.yaml, and what their masks mean.

    Args:
        root: a folder, or a .yaml file that describes one.

    Returns:
        Cases sorted by name. `Case.split` is what the folder or the file gives: `train` and `validation` only
        where both are there (else both are none, to be split), `test` only where not everything is a test.

    Raises:
        DataError: there is nothing to pair, or more than one way to pair it; the remedy says how to settle it.
        ConfigError: a key or value of the data.yaml is not possible.
    """
    description = _description(root)
    pairing = declared.pair(description) if description is not None else layouts.pair(walk(root))
    cases = _cases(pairing)
    detection = detect(cases, pairing.declaration)
    return Dataset(
        root=pairing.listing.root,
        cases=cases,
        classes=detection.classes,
        encoding=detection.encoding,
        layout=pairing.layout,
        notices=(*pairing.notices, *detection.notices),
        unpaired=pairing.unpaired,
    )


def _description(root: Path) -> Path | None:
    """The YAML file that describes the data, if there is one."""
    if root.suffix.lower() in (".yaml", ".yml") and not root.is_dir():
        return root
    return next((root / name for name in DATA_FILES if (root / name).is_file()), None)


def _cases(pairing: Pairing) -> tuple[Case, ...]:
    """A case for every image, or for every page of a stack, sorted by name."""
    names = _names(pairing.pairs)
    splits = _splits(pairing)
    path = pairing.listing.path
    cases: list[Case] = []
    for image, masks in pairing.pairs.items():
        case = Case(names[image], path(image), tuple(path(mask) for mask in masks), split=splits[image])
        cases.extend(_pages(case))
    if pairing.group is not None:
        cases = [replace(case, group=_group_of(case.name, pairing.group)) for case in cases]
    return tuple(sorted(cases, key=lambda case: _natural(case.name)))


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


def _pages(case: Case) -> list[Case]:
    """One case for each page of a stack, which keeps the pages on one side of the split."""
    pages = _page_count(case.image)
    counts = {_page_count(path) for path in case.masks if path.suffix.lower() in formats.READERS} or {1}
    if counts != {pages}:
        raise DataError(
            f"The image has {pages} pages, its mask {case.masks[0].name} has {max(counts)}.",
            where=case.image,
            remedy="Save the same pages in both.",
        )
    if pages == 1:
        return [case]
    width = len(str(pages - 1))
    return [replace(case, name=f"{case.name}/{page:0{width}d}", page=page, group=case.name) for page in range(pages)]


def _page_count(path: Path) -> int:
    """Pages, 1 for files that cannot be read: the check of the data lists those."""
    try:
        return formats.page_count(path)
    except DataError:
        return 1


def _group_of(name: str, pattern: str) -> str:
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise ConfigError(f"'group' is {pattern!r}: {error}.", remedy="Write a regular expression.") from None
    if match is None:
        raise DataError(f"'group: {pattern}' does not fit the case {name}.", remedy="Widen the expression.")
    return match.group(1) if match.groups() else match.group()
