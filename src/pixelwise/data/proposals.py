"""Lines of a data.yaml for the files of one folder, tried on these files before anybody is told of them."""

import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pixelwise.data import formats
from pixelwise.data.listing import File, Listing, Pairs
from pixelwise.data.masks import pack_colors
from pixelwise.data.naming import MASK_STEM_WORDS, place_of, tokens
from pixelwise.data.patterns import Lookup, filled, stars
from pixelwise.errors import DataError

TARGET_WORDS = ("manual", "gt", "truth", "instance", "label", "annot", "ann", "mask", "seg")
"""Which of several candidates is proposed first; the user decides."""

MOST_OPTIONS = 6
"""So many patterns for masks are proposed."""

MOST_FOLDERS = 20
"""Of more folders of images, or of masks, names that only begin alike are not looked for."""

MOST_TEMPLATES = 100
"""So many patterns are tried: those that come from most masks."""

MOST_PIXELS = 2**24
"""The values of a larger file are not counted."""


@dataclass(frozen=True)
class Proposal:
    """Patterns that work."""

    images: str
    masks: Sequence[str]
    """The best first; each pairs most images."""


@dataclass(frozen=True)
class _Pattern:
    """A pattern of images, and how many of its stars stand in the folders and in the stem."""

    text: str
    in_folders: int
    in_stem: int


_Parts = Mapping[File, Sequence[str]]
"""Images, and what the stars of their pattern stand for."""


def propose(listing: Listing, choices: Pairs) -> Proposal | None:
    """Patterns that pair most images of a folder, each mask with one image.

    Files that are called masks, or lie in a folder that is, are no images.

    Args:
        listing: the folder.
        choices: images with every mask that may be theirs.

    Returns:
        None if no pattern does that.
    """
    images = _of_one_depth(image for image in choices if not _is_called_mask(image))
    if not images:
        return None
    found = [Proposal(pattern.text, _options(listing, pattern, images, choices)) for pattern in _patterns(images)]
    best = max(found, key=lambda proposal: len(proposal.masks))  # of equal ones the first, which is the narrower
    return best if best.masks else None


def _is_called_mask(file: File) -> bool:
    words = tokens(file.stem)
    return place_of(file.folder).role == "mask" or (bool(words) and MASK_STEM_WORDS.issuperset(words))


def _of_one_depth(images: Iterable[File]) -> list[File]:
    """The images of the commonest depth: one pattern reaches no others."""
    by_depth: dict[int, list[File]] = defaultdict(list)
    for image in images:
        by_depth[len(image.folder)].append(image)
    return max(by_depth.values(), key=len, default=[])


# Patterns of images ------------------------------------------------------------------------------------------------


def _patterns(images: Sequence[File]) -> list[_Pattern]:
    """The narrowest pattern with a star for what differs: train/*/raw.tif, images/*_training.tif.

    Where stems end on one of a few words, such as 01_test and 21_training, there is a second pattern with a star for
    the word.
    """
    levels = zip(*(image.folder for image in images), strict=True)
    folders = [common_name(level) for level in levels]
    suffixes = {image.name[len(image.stem) :] for image in images}
    suffix = suffixes.pop() if len(suffixes) == 1 else ".*"
    stems = [image.stem for image in images]
    count = sum(level.count("*") for level in folders)
    found = [common_name(stems)] + [split for split in [_split_stem(stems)] if split]
    return [_Pattern("/".join([*folders, stem + suffix]), count, stem.count("*")) for stem in found]


def common_name(names: Sequence[str]) -> str:
    """One name for all, with a star for what stands before the ending that they share from a sign on."""
    if len(set(names)) == 1:
        return names[0]
    backwards = [name[::-1] for name in names]
    shared = os.path.commonprefix(backwards)[::-1]  # noqa: RUF071 - letters are what is compared
    ending = re.search(r"[_\-. ].*", shared)  # from a sign on: _training, not the ing of beginning and ending
    return "*" + (ending.group() if ending else "")


def _split_stem(stems: Sequence[str], most: int = 3) -> str:
    """Such as `*_*` for 01_test and 21_training; empty where the last words are one or many."""
    ends = [re.search(r"([_\-. ])([A-Za-z]+)$", stem) for stem in stems]
    found = {(end.group(1), end.group(2)) for end in ends if end}
    signs = {sign for sign, _ in found}
    return f"*{signs.pop()}*" if all(ends) and len(signs) == 1 and 1 < len(found) <= most else ""


# Patterns of masks -------------------------------------------------------------------------------------------------


def _options(listing: Listing, pattern: _Pattern, images: Sequence[File], choices: Pairs) -> list[str]:
    """The patterns of masks that work for most images, the best first; one for each set of masks."""
    every = {file: stars(pattern.text, file) for file in listing.rasters}
    parts: _Parts = {file: found for file, found in every.items() if found or file in choices}
    counts = Counter(_template(pattern, image, parts[image], mask) for image in images for mask in choices[image])
    templates = {template for template, _ in counts.most_common(MOST_TEMPLATES)}
    templates |= _loose_templates(listing, pattern, {image: parts[image] for image in images}, choices)
    lookup = Lookup(listing.files)
    reached = {template: _reach(template, parts, lookup, set(images)) for template in templates}
    working = {template: found for template, found in reached.items() if 2 * len(found) > len(images)}
    whole = {
        template: found
        for template, found in working.items()
        if not any(found.items() < other.items() for other in working.values())
    }
    shortest: dict[frozenset[File], str] = {}
    for template in sorted(whole, key=lambda template: (template.count("*"), template)):
        shortest.setdefault(frozenset(whole[template].values()), template)
    most = max(map(len, whole.values()), default=0)

    def preference(template: str) -> tuple[bool, bool, bool, int, str]:
        image, mask = next(iter(whole[template].items()))
        fits = mask.is_annotation or same_size(listing, image, mask)
        is_elsewhere = mask.folder != image.folder and mask.is_raster and place_of(mask.folder).role != "mask"
        words = [rank for rank, word in enumerate(TARGET_WORDS) if word in template.lower()]
        few = 10 * len(whole[template]) < 9 * most
        return not fits, few, is_elsewhere, min(words, default=len(TARGET_WORDS)), template

    ordered = sorted(shortest.values(), key=preference)
    plausible = (template for template in ordered if _is_plausible(listing, whole[template]))
    return list(itertools.islice(plausible, MOST_OPTIONS))


def _reach(template: str, parts: _Parts, lookup: Lookup, images: Collection[File]) -> dict[File, File]:
    """The one mask of each of the images by a template; empty if a mask would serve two files of their pattern."""
    found: dict[File, File] = {}
    owners: dict[File, File] = {}
    for image, stand_for in parts.items():
        fitting = [mask for mask in lookup.find(filled(template, image, stand_for)) if mask != image]
        if any(owners.setdefault(mask, image) != image and mask.suffix != ".json" for mask in fitting):
            return {}
        if len(fitting) == 1:
            found[image] = fitting[0]
    return {image: mask for image, mask in found.items() if image in images and image not in owners}


def _is_plausible(listing: Listing, found: Mapping[File, File], few: int = 64) -> bool:
    """Whether not every one of some masks has far more values or colours than an image of few."""
    couples = [(image, mask) for image, mask in found.items() if mask.is_raster]
    for image, mask in couples[:: max(1, len(couples) // 3)][:3]:
        of_image, of_mask = _values(listing, image), _values(listing, mask)
        if of_image is None or of_mask is None or of_image > few or of_mask <= 4 * of_image:
            return True
    return not couples


def _values(listing: Listing, file: File) -> int | None:
    """How many different values or colours a file holds; none if that cannot be told."""
    try:
        info = formats.read_info(listing.path(file))
        if info.height * info.width > MOST_PIXELS:
            return None
        raw = formats.read_mask(listing.path(file))
    except DataError:
        return None
    if raw.ndim == 3:
        return len(np.unique(pack_colors(raw))) if raw.shape[2] == 3 and raw.dtype == np.uint8 else None
    return len(np.unique(raw))


def same_size(listing: Listing, first: File, second: File) -> bool:
    """Whether two files have equal height and width; false for what cannot be read."""
    try:
        one, two = formats.read_info(listing.path(first)), formats.read_info(listing.path(second))
    except DataError:
        return False
    return (one.height, one.width) == (two.height, two.width)


def _template(pattern: _Pattern, image: File, parts: Sequence[str], mask: File) -> str:
    """The path of a mask, with what it shares with its image written as a placeholder."""
    if mask.suffix == ".json" and image.stem not in mask.stem:
        return mask.posix  # one file for all
    folders = _template_folders(pattern, image, parts, mask.folder)
    return "/".join([*folders, _template_name(pattern, image, parts, mask)])


def _template_folders(pattern: _Pattern, image: File, parts: Sequence[str], folder: tuple[str, ...]) -> Sequence[str]:
    places = {part: f"{{{number}}}" for number, part in reversed(list(enumerate(parts, start=1)))}
    if not image.folder or folder[: len(image.folder)] != image.folder:
        return [_starred_head(places.get(part, part), places) for part in folder]
    below = [places.get(part, part) for part in folder[len(image.folder) :]]
    return [*(["{dir}"] if pattern.in_folders else image.folder), *below]


def _template_name(pattern: _Pattern, image: File, parts: Sequence[str], mask: File) -> str:
    if pattern.in_stem and image.stem in mask.stem:
        return mask.name.replace(image.stem, "{stem}", 1)
    for number in range(pattern.in_folders, pattern.in_folders + pattern.in_stem):
        if parts[number] and parts[number] in mask.stem:
            return mask.name.replace(parts[number], f"{{{number + 1}}}", 1)
    return mask.name


def _starred_head(part: str, places: Mapping[str, str]) -> str:
    """trainannot, where the image's folder train is a star, is {1}annot."""
    for star, place in places.items():
        if len(star) > 1 and part.startswith(star):
            return place + part[len(star) :]
    return part


def _loose_templates(listing: Listing, pattern: _Pattern, parts: _Parts, choices: Pairs) -> set[str]:
    """Patterns for the files of each mask folder whose names only begin like the image's."""
    suffixes: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for file in listing.rasters:
        suffixes[file.folder][file.suffix] += 1
    folders = {mask.folder for masks in choices.values() for mask in masks if mask.is_raster}
    folders |= {folder for folder in suffixes if place_of(folder).role == "mask"}
    of_images = {image.folder: image for image in parts}
    if not pattern.in_stem or not 1 < len(folders) <= MOST_FOLDERS or len(of_images) > MOST_FOLDERS:
        return set()
    begin = f"{{{pattern.in_folders + 1}}}*"
    return {
        "/".join(
            [
                *_template_folders(pattern, image, parts[image], folder),
                begin + suffixes[folder].most_common(1)[0][0],
            ]
        )
        for image in of_images.values()
        for folder in folders
    }
