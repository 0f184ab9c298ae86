"""Where files can be paired in more than one way, or in none: the lines of a data.yaml that settle it.

Nothing is guessed. Every line that is proposed was tried on the folder itself.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pixelwise.data import formats
from pixelwise.data.listing import File, Listing, Pairs, layout_line, some
from pixelwise.data.naming import MASK_STEM_WORDS, Roles, equal_stems, place_of, tokens
from pixelwise.data.patterns import Lookup, filled, stars, yaml_lines
from pixelwise.errors import DataError

TARGET_WORDS = ("manual", "gt", "truth", "instance", "label", "annot", "ann", "mask", "seg")
"""Which of several candidates is proposed first; the user decides."""


def refuse_ambiguity(listing: Listing, roles: Roles, choices: Pairs) -> None:
    """Go on only if every image has one mask and no folder of masks is left over.

    Args:
        listing: the folder.
        roles: what may be an image, what a mask.
        choices: images with every mask that fits.

    Raises:
        DataError: with the lines of a data.yaml for this very folder.
    """
    if not choices:
        raise _no_pairs(listing, roles)
    several = {image: masks for image, masks in choices.items() if len(masks) > 1}
    used = {mask for masks in choices.values() for mask in masks}
    folders = {mask.folder for mask in used}
    idle = Counter(mask.folder for mask in roles.masks if mask.folder not in folders)
    rivals = [folder for folder, count in idle.items() if count * 2 >= len(choices)]
    kinds = {mask.suffix if mask.is_annotation else "picture" for mask in used}
    if not several and not rivals and len(kinds) == 1:
        return
    if several:
        image, masks = next(iter(several.items()))
        what = f"{len(several)} images have more than one mask: {image.posix} has {some([m.posix for m in masks], 4)}."
    elif rivals:
        what = f"The masks in {some(['/'.join(f) for f in rivals])} fit no image, others do: which ones count?"
    else:
        what = f"There are several kinds of annotations: {layout_line(choices)}."
        choices = _of_one_kind(choices)
    raise DataError(what, where=listing.root, remedy=_remedy(listing, choices))


def _of_one_kind(choices: Pairs) -> Pairs:
    """The images whose masks are in the commonest folder."""
    folders = Counter((masks[0].folder, masks[0].suffix) for masks in choices.values())
    first = folders.most_common(1)[0][0]
    return {image: masks for image, masks in choices.items() if (masks[0].folder, masks[0].suffix) == first}


def _no_pairs(listing: Listing, roles: Roles) -> DataError:
    """No mask has the name of an image."""
    images, masks = len(roles.images), len(roles.masks)
    if not images:
        return DataError(
            "None of the files that count as images is one: all are masks by their names, or are not listed.",
            where=listing.root,
            remedy="Say with 'images' and 'masks' in a data.yaml which files are which.",
        )
    what = f"There are {images} images" + (
        f" and {masks} masks, but no mask has the name of an image." if masks else " but no masks that can be told."
    )
    guesses = _by_longer_name(listing) or _by_word_inside(listing) or _by_folder(listing)
    return DataError(what, where=listing.root, remedy=_remedy(listing, guesses))


# Guesses ---------------------------------------------------------------------------------------------------------


def _by_longer_name(listing: Listing) -> Pairs:
    """Masks whose name goes on where an image's ends: X.jpg and X_vessels.png."""
    by_stem: dict[str, list[File]] = defaultdict(list)
    for file in listing.rasters:
        by_stem[file.stem].append(file)
    found: dict[File, list[File]] = defaultdict(list)
    for mask in listing.rasters:
        cuts = [sign.start() for sign in re.finditer(r"[_\-. ]", mask.stem)]
        for image in (image for cut in cuts for image in by_stem.get(mask.stem[:cut], [])):
            if image.folder == mask.folder or place_of(mask.folder).role == "mask":
                found[image].append(mask)
    # twins that nothing could tell apart
    for group in by_stem.values():
        if len(group) == 2 and group[0].folder == group[1].folder:
            found[group[0]].append(group[1])
    return {image: masks for image, masks in found.items() if not any(image in other for other in found.values())}


def _by_word_inside(listing: Listing, most: int = 50) -> Pairs:
    """Files with a word for mask inside their name, beside an image of equal size: for small folders."""
    rasters = listing.rasters
    if len(rasters) > most:
        return {}
    marked = [file for file in rasters if MASK_STEM_WORDS & set(tokens(file.stem))]
    found: dict[File, list[File]] = defaultdict(list)
    for mask in marked:
        beside = [file for file in rasters if file.folder == mask.folder and file not in marked]
        for image in (file for file in beside if _same_size(listing, file, mask)):
            found[image].append(mask)
    return dict(found)


def _by_folder(listing: Listing) -> Pairs:
    """Files of equal stem in two folders: those that take less room on the disk are the masks, as they mostly are."""
    couples = max(equal_stems(listing.rasters).values(), key=len, default=[])
    sizes = [sum(_bytes(listing, couple[side]) for couple in couples) for side in (0, 1)]
    image, mask = (0, 1) if sizes[0] >= sizes[1] else (1, 0)
    return {couple[image]: [couple[mask]] for couple in couples}


def _bytes(listing: Listing, file: File) -> int:
    path = listing.path(file)
    return path.stat().st_size if path.is_file() else 0


def _same_size(listing: Listing, first: File, second: File) -> bool:
    try:
        one, two = formats.read_info(listing.path(first)), formats.read_info(listing.path(second))
    except DataError:
        return False
    return (one.height, one.width) == (two.height, two.width)


# The lines -------------------------------------------------------------------------------------------------------


def _remedy(listing: Listing, choices: Pairs) -> str:
    """The lines of a data.yaml that make one choice, others in comments; every one of them was tried."""
    images = _of_one_depth(choices)
    pattern = _common_pattern(images) if images else ""
    parts = {image: stars(pattern, image) for image in images}
    options = _options(listing, parts, choices)[:6] if images else []
    if options:
        head = "Choose with a file data.yaml in that folder (or anywhere else), and delete what does not apply:"
        return head + yaml_lines(listing.root, [("images", pattern), *(("masks", option) for option in options)])
    (of_images, ending), (of_masks, other) = _two_folders(listing)
    example = [("images", f"{of_images}/*{ending}"), ("masks", f"{of_masks}/{{stem}}{other}")]
    return (
        "Call each mask as its image (images/X.png and masks/X.png, or X.png and X_mask.png), or write a data.yaml "
        "with patterns that fit, such as:" + yaml_lines(listing.root, example)
    )


def _two_folders(listing: Listing) -> tuple[tuple[str, str], tuple[str, str]]:
    """A folder of images and one of masks, and their suffixes: those that are there, where there are two."""
    found: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for file in listing.rasters:
        found[file.folder][file.suffix] += 1
    roles = ("image", "plain", "mask")
    by_role = sorted(found, key=lambda folder: (roles.index(place_of(folder).role), -found[folder].total()))
    usual = [("/".join(folder), found[folder].most_common(1)[0][0]) for folder in by_role if folder]
    if len(usual) == 2:
        return usual[0], usual[1]
    return ("images", Counter(file.suffix for file in listing.rasters).most_common(1)[0][0]), ("masks", ".png")


def _of_one_depth(images: Iterable[File]) -> list[File]:
    """The images of the commonest depth: one pattern reaches no others."""
    by_depth: dict[int, list[File]] = defaultdict(list)
    for image in images:
        by_depth[len(image.folder)].append(image)
    return max(by_depth.values(), key=len, default=[])


def _options(listing: Listing, parts: Mapping[File, Sequence[str]], choices: Pairs) -> list[str]:
    """The patterns for masks that work for most images, the best first; one for each set of masks.

    Args:
        listing: the folder.
        parts: the images, with what the stars of their pattern stand for.
        choices: these and other images, with every mask that fits.
    """
    templates = {_template(image, parts[image], mask) for image in parts for mask in choices[image]}
    templates |= _loose_templates(listing, len(next(iter(parts.values()))), choices)
    lookup = Lookup(listing.files)
    reached = {template: _reach(template, parts, lookup) for template in templates}
    most = max(len(found) for found in reached.values())
    working = [template for template, found in reached.items() if found and len(found) == most]
    shortest: dict[frozenset[File], str] = {}
    for template in sorted(working, key=lambda template: (template.count("*"), template)):
        shortest.setdefault(frozenset(reached[template].values()), template)

    def preference(template: str) -> tuple[bool, int, str]:
        image, mask = next(iter(reached[template].items()))
        fits = mask.is_annotation or _same_size(listing, image, mask)
        words = [rank for rank, word in enumerate(TARGET_WORDS) if word in template.lower()]
        return not fits, min(words, default=len(TARGET_WORDS)), template

    return sorted(shortest.values(), key=preference)


def _loose_templates(listing: Listing, last: int, choices: Pairs) -> set[str]:
    """Patterns for the files of each mask folder whose names only begin like the image's."""
    folders = {mask.folder for masks in choices.values() for mask in masks}
    folders |= {file.folder for file in listing.rasters if place_of(file.folder).role == "mask"}
    if len(folders) < 2 or not last:
        return set()
    suffixes: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for file in listing.rasters:
        suffixes[file.folder][file.suffix] += 1
    return {
        "/".join([*folder, f"{{{last}}}*{suffixes[folder].most_common(1)[0][0]}"])
        for folder in folders
        if folder in suffixes
    }


def _reach(template: str, parts: Mapping[File, Sequence[str]], lookup: Lookup) -> dict[File, File]:
    """The one mask of each image by a template; empty if a mask would serve two images."""
    found: dict[File, File] = {}
    for image in parts:
        fitting = lookup.find(filled(template, image, parts[image]))
        if len(fitting) == 1 and fitting[0] != image:
            found[image] = fitting[0]
    shared = len(set(found.values())) < len(found) and not all(mask.suffix == ".json" for mask in found.values())
    return {} if shared else found


def _common_pattern(images: Sequence[File]) -> str:
    """The narrowest pattern with a star for what differs: train/*/raw.tif, images/*_training.tif."""
    levels = zip(*(image.folder for image in images), strict=True)
    folders = [level[0] if len(set(level)) == 1 else "*" for level in levels]
    suffixes = {image.name[len(image.stem) :] for image in images}
    suffix = suffixes.pop() if len(suffixes) == 1 else ".*"
    return "/".join([*folders, _common_stem([image.stem for image in images]) + suffix])


def _common_stem(stems: Sequence[str]) -> str:
    if len(set(stems)) == 1:
        return stems[0]
    backwards = [stem[::-1] for stem in stems]
    shared = os.path.commonprefix(backwards)[::-1]  # noqa: RUF071 - letters are what is compared
    ending = re.search(r"[_\-. ].*", shared)  # from a sign on: _training, not the ing of beginning and ending
    return "*" + (ending.group() if ending else "")


def _template(image: File, parts: Sequence[str], mask: File) -> str:
    """The path of a mask, with what it shares with its image written as a placeholder."""
    if mask.suffix == ".json" and image.stem not in mask.stem:
        return mask.posix  # one file for all
    beside = bool(image.folder) and mask.folder[: len(image.folder)] == image.folder
    places = {part: f"{{{number}}}" for number, part in enumerate(parts, start=1)}
    name = _template_name(image, parts, mask)
    if not beside:
        folders = [_starred_head(places.get(part, part), places) for part in mask.folder]
        return "/".join([*folders, name])
    folders = [places.get(part, part) for part in mask.folder[len(image.folder) :]]
    head = ["{dir}"] if any(part in places for part in image.folder) else image.folder
    return "/".join([*head, *folders, name])


def _template_name(image: File, parts: Sequence[str], mask: File) -> str:
    varying = any(part and image.stem.startswith(part) for part in parts)
    if varying and image.stem in mask.stem:
        return mask.name.replace(image.stem, "{stem}", 1)
    if varying and parts[-1] in mask.stem:
        return mask.name.replace(parts[-1], f"{{{len(parts)}}}", 1)
    return mask.name


def _starred_head(part: str, places: Mapping[str, str]) -> str:
    """trainannot, where the image's folder train is a star, is {1}annot."""
    for star, place in places.items():
        if len(star) > 1 and part.startswith(star):
            return place + part[len(star) :]
    return part
