"""data.yaml: its keys, and the images, masks, splits and classes that it declares; docs/data-folder.md describes it."""

import itertools
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pixelwise.config import describe, parse_yaml
from pixelwise.data import formats, layouts
from pixelwise.data.dataset import SplitName
from pixelwise.data.detect import Declaration
from pixelwise.data.groups import Grouping, GroupTable, by_pattern, by_table
from pixelwise.data.layouts import Pairing
from pixelwise.data.listing import File, Listing, Pairs, layout_line, some, walk
from pixelwise.data.naming import Roles, match, shared_end
from pixelwise.data.nifti import Axis
from pixelwise.data.patterns import Lookup, filled, of_any_image, regex
from pixelwise.errors import ConfigError, DataError

OneOrMore = str | list[str]
_Part = Annotated[int, Field(ge=0, le=255)]
Paint = tuple[_Part, _Part, _Part]
"""A colour as it is declared: red, green, blue."""
TEXTS = ("path", "images", "masks", "masks_dir", "train", "val", "test", "names", "group", "group_table")
"""Keys of names and patterns, which are text whatever YAML takes them for: 007, 2021-02-30, no."""
BY_NAME = ("masks", "colors")
"""Keys that may hold a table by class name, which is text in the same way."""
Wanted = dict[File, tuple[str, ...]]
"""Images, and what the stars of their pattern stand for."""


class DataFile(BaseModel):
    """The keys of a data.yaml; docs/data-folder.md describes them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: str = "."
    """The folder, relative to this file."""
    images: OneOrMore | None = None
    """Patterns of image files below `path`."""
    masks: OneOrMore | dict[str, OneOrMore] | None = None
    """Patterns of the mask files of an image, with placeholders {stem}, {dir}, {parent}, {1} and *; or class name to
    such patterns, where each class has masks of its own."""
    overlap: Literal["ignore"] | None = None
    """What becomes of pixels that masks of two classes claim; an error if nothing is said."""
    masks_dir: str | None = None
    """A folder, or the name of folders, that holds masks named as the images."""
    train: OneOrMore | None = None
    """Folders, .txt lists, patterns, files or stems of the images to train on."""
    val: OneOrMore | None = None
    """The same for validation."""
    test: OneOrMore | None = None
    """The same for the final scores."""
    names: list[str] | dict[int, str] | None = None
    """Class names in the order of their index, or by raw value."""
    colors: list[Paint] | dict[str, Paint] | None = None
    """Class colours in the order of `names`, or by name."""
    values: dict[int, int | str] | None = None
    """Raw value to class index, class name or 'ignore'."""
    ignore: int | Paint | list[Paint] | None = None
    """Raw value, colour or colours of pixels that do not count."""
    objects: Literal[True] | None = None
    """Values above 0 are the numbers of single objects, which are one class."""
    group: str | None = None
    """Regular expression over case names; its first group says which cases belong together."""
    group_table: GroupTable | None = None
    """A table that says which cases belong together."""
    slices: Axis | None = None
    """Axis of volumes, 0 to 2, across which slices are taken."""
    nc: int | None = None
    """Ultralytics: the number of `names`."""
    download: Any = None
    """Ultralytics: not used."""
    roboflow: Any = None
    """Roboflow: not used."""


def pair(path: Path) -> Pairing:
    """Which masks belong to which image, as a data.yaml says.

    Raises:
        ConfigError: a key or value of the file is not possible.
        DataError: what it names is not there, or can be paired in more than one way.
    """
    data = _read(path)
    listing = walk(_root(path, data))
    sides = _sides(path, data, listing)
    wanted = _wanted(listing, data, sides)
    try:
        pairing = _pairing(listing, data, wanted)
    except ConfigError as error:
        raise ConfigError(error.what, where=path, remedy=error.remedy) from None
    declaration = _declaration(path, data)
    if declaration != Declaration():
        pairing = replace(pairing, declaration=declaration)
    if sides:
        splits = {image: next((side for side in sides if image in sides[side]), None) for image in pairing.pairs}
        pairing = replace(pairing, splits=splits)
    layout = f"{path.name}: {pairing.layout}"
    return replace(pairing, group=_grouping(path, data, listing), slices=data.slices, layout=layout)


def _grouping(path: Path, data: DataFile, listing: Listing) -> Grouping | None:
    if data.group is not None and data.group_table is not None:
        raise ConfigError("'group' and 'group_table' are both given.", where=path, remedy="Keep one of them.")
    if data.group_table is not None:
        return by_table(path.parent, data.group_table, listing.root)
    return by_pattern(data.group) if data.group is not None else None


def _read(path: Path) -> DataFile:
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"), TEXTS, BY_NAME)
    except FileNotFoundError:
        raise DataError("There is no such file.", where=path, remedy="Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The file cannot be read ({error}).", where=path) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        raise ConfigError(f"This is not valid YAML: {error}.", where=path, remedy="Put patterns in quotes.") from None
    if not isinstance(tree, dict):
        raise ConfigError("The file must hold keys such as 'images:' and 'masks:'.", where=path)
    try:
        return DataFile.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe(error, DataFile), where=path, remedy="See docs/data-folder.md.") from None


def _root(path: Path, data: DataFile) -> Path:
    root = path.parent / Path(data.path).expanduser()
    if not root.is_dir() and path.absolute().parent.name == Path(data.path).name:
        return path.parent  # Ultralytics' files name their own folder
    return root


def _listed(entries: OneOrMore | None) -> list[str]:
    return [entries] if isinstance(entries, str) else list(entries or [])


# Images and masks ------------------------------------------------------------------------------------------------


def _wanted(listing: Listing, data: DataFile, sides: Mapping[SplitName, Collection[File]]) -> Wanted | None:
    """The only files that may be images; none means any."""
    if data.images is None and "train" not in sides:
        return None
    listed = set(listing.files) if "train" not in sides else set[File]().union(*sides.values())
    found: Wanted = {}
    for file in (file for file in listing.rasters if file in listed):
        parts = _parts(file, data)
        if parts is not None:
            found[file] = parts
    if not found:
        raise DataError(f"No image fits 'images: {data.images}'." if data.images else "'train' holds no image.")
    return found


def _parts(file: File, data: DataFile) -> tuple[str, ...] | None:
    """What {1}, {2} ... stand for: the stars of 'images', or the stem without them; none for what is no image."""
    if data.images is None:
        return (file.stem,)
    fits = (regex(pattern).match(file.posix) for pattern in _listed(data.images))
    return next((tuple(fit.groups()) for fit in fits if fit), None)


def _pairing(listing: Listing, data: DataFile, wanted: Wanted | None) -> Pairing:
    if isinstance(data.masks, dict):
        return _by_class(listing, data, wanted)
    if data.overlap is not None:
        raise ConfigError("'overlap' is for masks of which each class has its own.", remedy="Delete it.")
    if data.masks is not None:
        if not data.masks:
            raise ConfigError("'masks' has no pattern.", remedy="Write one, or leave 'masks' out.")
        return _by_template(listing, _listed(data.masks), wanted)
    if data.masks_dir is not None:
        return _by_masks_dir(listing, data.masks_dir, wanted)
    return layouts.pair(listing, wanted)


def _by_template(listing: Listing, templates: Sequence[str], wanted: Wanted | None) -> Pairing:
    """Pairs by the patterns of `masks`."""
    lookup = Lookup(listing.files)
    candidates = wanted if wanted is not None else {file: (file.stem,) for file in listing.rasters}
    pairs: dict[File, tuple[File, ...]] = {}
    owners: dict[File, File] = {}
    for image, parts in candidates.items():
        fitting = _fitting(lookup, templates, image, parts)
        if fitting:
            pairs[image] = tuple(dict.fromkeys(fitting))
        for mask in fitting:
            owner = owners.setdefault(mask, image)
            if owner != image and mask.suffix != ".json":
                raise DataError(
                    f"The pattern 'masks' gives {mask.posix} to {owner.posix} and to {image.posix}.",
                    where=listing.root,
                    remedy="Narrow it, with {stem} or {1} for what the first * of 'images' stands for.",
                )
    pairs = {image: masks for image, masks in pairs.items() if image not in owners}
    if not pairs:
        image, parts = next(iter(candidates.items()))
        looked = " or ".join(filled(text, image, parts) for text in templates)
        raise DataError(
            f"No image has a mask: for {image.posix} there is no {looked}.",
            where=listing.root,
            remedy="Correct 'masks'.",
        )
    # files that fit neither pattern, such as a second observer's masks, were left out on purpose
    fits = [of_any_image(text) for text in templates]
    strays = {file for file in listing.rasters if any(pattern.match(file.posix) for pattern in fits)}
    concerned = [file for file in listing.rasters if file in strays or (wanted is not None and file in wanted)]
    return Pairing(listing, pairs, layout_line(pairs, "as declared"), concerned=concerned)


def _by_class(listing: Listing, data: DataFile, wanted: Wanted | None) -> Pairing:
    """Pairs by the patterns of each class."""
    assert isinstance(data.masks, dict)
    templates = {name: _listed(texts) for name, texts in data.masks.items()}
    empty = [name for name, texts in templates.items() if not texts]
    if empty or not templates:
        raise ConfigError(
            f"'masks' has no pattern for '{empty[0]}'." if empty else "'masks' names no class.",
            remedy="Write each class with the pattern of its masks: `masks: {NAME: PATTERN, OTHER: PATTERN}`.",
        )
    pairing = _by_template(listing, [text for texts in templates.values() for text in texts], wanted)
    lookup = Lookup(listing.files)
    parts: dict[File, str] = {}
    stars = {image: wanted[image] if wanted is not None else (image.stem,) for image in pairing.pairs}
    for name, texts in templates.items():
        masks = [mask for image in pairing.pairs for mask in _fitting(lookup, texts, image, stars[image])]
        twice = next((mask for mask in masks if parts.setdefault(mask, name) != name), None)
        if twice is not None:
            raise DataError(
                f"{twice.posix} is a mask of '{parts[twice]}' and of '{name}'.",
                where=listing.root,
                remedy="Narrow the patterns in 'masks'.",
            )
        if not masks:
            raise DataError(
                f"No image has a mask of '{name}', by {' or '.join(texts)}.",
                where=listing.root,
                remedy="Correct 'masks'.",
            )
    return replace(pairing, parts=parts)


def _fitting(lookup: Lookup, templates: Sequence[str], image: File, parts: tuple[str, ...]) -> list[File]:
    """The masks of an image by some patterns."""
    return [mask for text in templates for mask in lookup.find(filled(text, image, parts)) if mask != image]


def _names_of_files(data: DataFile) -> list[str]:
    """The names of all classes, the background first, where each other one has masks of its own."""
    assert isinstance(data.masks, dict)
    usual = ["background", *data.masks]
    if data.names is None and "background" in data.masks:
        raise ConfigError(
            "'masks' has 'background', which is what no mask of another class covers and has none of its own.",
            remedy="Leave it out. If it is a class beside what nobody labelled, write all `names`, that one first: "
            f"{', '.join(['unlabelled', *data.masks])}.",
        )
    names = [data.names[raw] for raw in sorted(data.names)] if isinstance(data.names, dict) else data.names or usual
    if len(names) != len(usual) or set(names[1:]) != set(data.masks) or names[0] in data.masks:
        raise ConfigError(
            f"'names' and 'masks' do not agree: 'masks' has {', '.join(data.masks)}; the background has none.",
            remedy=f"Leave 'names' out, or write {', '.join(usual)}.",
        )
    return names


def _by_masks_dir(listing: Listing, folder: str, wanted: Collection[File] | None) -> Pairing:
    """Pairs by stem, masks in a folder of the given path or name, the same folders below and beside it."""
    parts = tuple(part.lower() for part in posixpath.normpath(folder).split("/"))
    images: list[File] = []
    cut: dict[File, File] = {}  # masks by what they would be without that folder
    for file in listing.files:
        lower = tuple(part.lower() for part in file.folder)
        at = next((i for i in range(len(lower)) if lower[i : i + len(parts)] == parts), None)
        if at is not None:
            cut[file._replace(folder=file.folder[:at] + file.folder[at + len(parts) :])] = file
        elif file.is_raster and (wanted is None or file in wanted):
            images.append(file)
    if not cut:
        raise DataError(f"There is no folder '{folder}' with masks.", where=listing.root, remedy="Correct 'masks_dir'.")
    pairs = _match_cut(listing.root, images, cut)
    several = next((image for image, masks in pairs.items() if len(masks) > 1), None)
    if several is not None or not pairs:
        found = some([mask.posix for mask in pairs[several]]) if several is not None else "no masks at all"
        name = several.posix if several is not None else images[0].posix if images else "the folder"
        raise DataError(
            f"With 'masks_dir: {folder}', {name} has {found}.",
            where=listing.root,
            remedy=f'Write the pattern instead: masks: "{folder}/{{stem}}.png".',
        )
    return Pairing(listing, pairs, layout_line(pairs))


def _match_cut(root: Path, images: Sequence[File], cut: Mapping[File, File]) -> Pairs:
    """Pairs with masks whose folder was cut: in the image's own folders, else in those above it, else anywhere."""
    above = {image._replace(folder=image.folder[:-1]): image for image in images}
    flat = {mask._replace(folder=()): file for mask, file in cut.items()}
    for mine, theirs in (
        ({image: image for image in images}, cut),
        (above, cut),
        ({image._replace(folder=()): image for image in images}, flat),
    ):
        found = match(root, Roles(list(mine), list(theirs))) if len(theirs) == len(cut) else {}
        if found:
            return {mine[image]: tuple(theirs[mask] for mask in masks) for image, masks in found.items()}
    return {}


# Classes ---------------------------------------------------------------------------------------------------------


def _declaration(path: Path, data: DataFile) -> Declaration:
    """What the file says about classes."""
    names, values = data.names, data.values
    by_class = isinstance(data.masks, dict)
    if by_class:
        names = _names_of_files(data)
    if isinstance(names, dict):
        order = sorted(names)
        if order != list(range(len(order))) and values is None:
            values = {raw: names[raw] for raw in order}
        names = [names[raw] for raw in order]
    if data.nc is not None and names is not None and data.nc != len(names):
        raise ConfigError(f"'nc' is {data.nc}, but there are {len(names)} names.", where=path, remedy="Delete 'nc'.")
    colors = data.colors
    if isinstance(colors, dict):
        if names is None:
            names = list(colors)
        unknown = set(colors) ^ set(names)
        if unknown:
            raise ConfigError(
                f"'colors' and 'names' differ in {some(unknown)}.",
                where=path,
                remedy="Give each name a colour. Colours that do not count go into 'ignore: [[red, green, blue]]'.",
            )
        colors = [colors[name] for name in names]
    if colors is not None and names is not None and len(colors) != len(names):
        raise ConfigError(f"There are {len(names)} names and {len(colors)} colors.", where=path)
    void = [data.ignore] if isinstance(data.ignore, tuple) else data.ignore
    return Declaration(
        names=tuple(names) if names is not None else None,
        colors=tuple(colors) if colors is not None else None,
        values=values,
        ignore=void if isinstance(void, int) else None,
        ignore_colors=tuple(void) if isinstance(void, list) else (),
        objects=data.objects is not None,
        by_class="" if not by_class else "overlap is ignored" if data.overlap else "overlap is an error",
    )


# Splits ----------------------------------------------------------------------------------------------------------


def _sides(path: Path, data: DataFile, listing: Listing) -> dict[SplitName, set[File]]:
    """The files of each side of the split that is given; no image is on two."""
    given: dict[SplitName, OneOrMore | None] = {"train": data.train, "validation": data.val, "test": data.test}
    sides = {
        side: _members(listing, path.parent, _listed(entries)) for side, entries in given.items() if entries is not None
    }
    for first, second in itertools.combinations(sides, 2):
        both = sorted(sides[first] & sides[second])
        if both:
            raise DataError(
                f"{len(both)} images are in {first} and in {second}, such as {both[0].posix}.",
                where=path,
                remedy="An image belongs to one side of the split only.",
            )
    return sides


def _members(listing: Listing, beside: Path, entries: Sequence[str]) -> set[File]:
    """The files that a split's folders, lists, patterns, files or stems mean."""
    found: set[File] = set()
    for entry in entries:
        if entry.lower().endswith(".txt"):
            found |= _of_list(listing, beside, entry)
            continue
        members = _of_entry(listing, entry)
        if not members:
            raise DataError(
                f"'{entry}' is no folder, file, pattern or stem of an image.",
                where=listing.root,
                remedy="Correct train, val or test in the data.yaml.",
            )
        found |= members
    return found


def _of_entry(listing: Listing, entry: str) -> set[File]:
    """The files of one entry. Roboflow writes ../train/images for ./train/images."""
    text = posixpath.normpath(entry.replace("\\", "/"))
    if Path(text).is_absolute():
        text = os.path.relpath(text, listing.root.absolute()).replace(os.sep, "/")
    text = re.sub(r"^(\.\./)+", "", text)
    parts = () if text == "." else tuple(text.split("/"))
    below = {file for file in listing.files if file.folder[: len(parts)] == parts}
    if below:
        return below
    if re.search(r"[*?]", text):
        return {file for file in listing.files if regex(text).match(file.posix)}
    return (
        {file for file in listing.files if file.posix == text}
        or {file for file in listing.rasters if file.posix_stem == text}
        or {file for file in listing.rasters if file.stem == text}
    )


def _of_list(listing: Listing, beside: Path, entry: str) -> set[File]:
    """The files that the lines of a text file name: by path, else by the most that agrees of path and stem."""
    places = [listing.root / entry, beside / entry]
    path = next((place for place in places if place.is_file()), places[0])
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list cannot be read ({error}).", where=path, remedy="Correct the data.yaml.") from None
    by_name: dict[str, list[File]] = defaultdict(list)
    for file in listing.rasters:
        by_name[file.stem].append(file)
        by_name[file.name].append(file)
    found: set[File] = set()
    missing: list[str] = []
    exact = {file.posix: file for file in listing.rasters}
    for line in lines:
        first = line.split()[0]  # some lists name image and mask in a line
        members = [exact[name] for name in (line, first) if name in exact][:1]
        members = members or _best_ends(by_name, first if formats.split_name(first)[1] in formats.READERS else line)
        found.update(members)
        missing += [] if members else [line]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(lines)} lines name no image, such as '{missing[0]}'.",
            where=path,
            remedy=f"Write one path or stem per line, below {listing.root}.",
        )
    return found


def _best_ends(by_name: Mapping[str, Sequence[File]], line: str) -> list[File]:
    """The files that agree with the end of a path in most folders; the suffix may differ."""
    *folders, name = [part for part in line.replace("\\", "/").split("/") if part not in ("", ".")] or [""]
    named = [*by_name.get(name, []), *by_name.get(posixpath.splitext(name)[0], [])]

    def agreement(file: File) -> tuple[int, bool]:
        return shared_end(file.folder, folders), file.name == name

    best = max((agreement(file) for file in named), default=None)
    return [file for file in named if agreement(file) == best]
