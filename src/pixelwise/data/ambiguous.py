"""Where files can be paired in more than one way, or in none: the lines of a data.yaml that settle it.

Nothing is guessed. Every line that is proposed was tried on the folder itself.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from pixelwise.data.listing import File, Listing, Pairs, counted, layout_line, of_run, some
from pixelwise.data.naming import MASK_STEM_WORDS, Roles, equal_stems, place_of, tokens
from pixelwise.data.patterns import yaml_lines
from pixelwise.data.proposals import common_name, propose, same_size
from pixelwise.data.unread import kind_of_pictures, kinds_of_annotations, pictures_below
from pixelwise.errors import DataError


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
        what = (
            f"{counted(len(several), 'image')} {'has' if len(several) == 1 else 'have'} more than one mask: "
            f"{image.posix} has {some([m.posix for m in masks], 4)}."
        )
    elif rivals:
        what = f"The masks in {some(['/'.join(f) for f in rivals])} fit no image, others do: which ones count?"
    else:
        what = f"There are several kinds of annotations: {layout_line(choices)}."
        choices = _of_one_kind(choices)
    raise DataError(what, where=listing.root, remedy=_remedy(listing, [choices], is_choice=bool(several)))


def _of_one_kind(choices: Pairs) -> Pairs:
    """The images whose masks are in the commonest folder."""
    folders = Counter((masks[0].folder, masks[0].suffix) for masks in choices.values())
    first = folders.most_common(1)[0][0]
    return {image: masks for image, masks in choices.items() if (masks[0].folder, masks[0].suffix) == first}


def _no_pairs(listing: Listing, roles: Roles) -> DataError:
    """No mask has the name of an image."""
    run = of_run(listing.root)
    if run is not None:
        return run
    images, masks = len(roles.images), len(roles.masks)
    if not images:
        return _no_images(listing, roles)
    what = f"There {'is' if images == 1 else 'are'} {counted(images, 'image')}"
    remedy = _remedy(listing, _guesses(listing, roles))
    if masks:
        what += f" and {counted(masks, 'mask')}, but no mask has the name of an image."
    elif "\n" not in remedy and (annotations := kinds_of_annotations(listing)):
        what += f" but no masks that can be told. {annotations} may hold annotations, which are not read in this form."
        remedy = f"Export them as masks in pictures, or as polygons of COCO, labelme or YOLO. {remedy}"
    else:
        what += " but no masks that can be told."
    return DataError(what, where=listing.root, remedy=remedy)


def _no_images(listing: Listing, roles: Roles) -> DataError:
    """There are masks only."""
    pictures = pictures_below(listing.root)
    if pictures:
        kind, remedy = kind_of_pictures(pictures)
        what = f"There are no images that can be read, only {counted(len(roles.masks), 'mask')} and {kind}."
        return DataError(what, where=listing.root, remedy=remedy)
    first = f", such as {roles.masks[0].posix}," if roles.masks else ""
    return DataError(
        f"There are {counted(len(roles.masks), 'mask')}{first} but no images: all are masks by the names of files or "
        "folders, or are not listed.",
        where=listing.root,
        remedy="If the images are missing (some programs export masks without them unless told otherwise), put them "
        "beside, such as images/X.png for masks/X.png. If they are among these files, say with 'images' and 'masks' "
        "in a data.yaml which files are which.",
    )


# Guesses ---------------------------------------------------------------------------------------------------------


def _guesses(listing: Listing, roles: Roles) -> Iterator[Pairs]:
    """What may belong together, the likeliest first."""
    yield _by_equal_name(listing, roles)
    yield _by_longer_name(listing)
    yield _by_other_ending(roles)
    yield _by_word_inside(listing)
    yield _by_folder(listing)


def _by_equal_name(listing: Listing, roles: Roles, most: int = 8) -> Pairs:
    """Files of equal stem, wherever they lie; of more than some there is no telling.

    Images are in image folders, if there are any, and else in folders of any other name but of masks.
    """
    in_image_folders = [file for file in roles.images if place_of(file.folder).role == "image"]
    images = set(in_image_folders or roles.images)
    others = {file for file in listing.rasters if file not in images} if in_image_folders else set(roles.masks)
    by_stem: dict[str, list[File]] = defaultdict(list)
    for file in sorted(images | others):
        by_stem[file.stem.lower()].append(file)
    return {
        file: [other for other in group if other in others]
        for group in by_stem.values()
        if len(group) <= most
        for file in group
        if file in images and not others.isdisjoint(group)
    }


def _by_longer_name(listing: Listing) -> Pairs:
    """Masks whose name goes on where an image's ends: X.jpg and X_vessels.png.

    They lie beside it, in a mask folder, or in a folder of any name if the image is in an image folder.
    """
    by_stem: dict[str, list[File]] = defaultdict(list)
    for file in listing.rasters:
        by_stem[file.stem].append(file)
    found: dict[File, list[File]] = defaultdict(list)
    for mask in listing.rasters:
        cuts = [sign.start() for sign in re.finditer(r"[_\-. ]", mask.stem)]
        for image in (image for cut in cuts for image in by_stem.get(mask.stem[:cut], [])):
            roles = (place_of(image.folder).role, place_of(mask.folder).role)
            if image.folder == mask.folder or roles[1] == "mask" or roles == ("image", "plain"):
                found[image].append(mask)
    # twins that nothing could tell apart
    for group in by_stem.values():
        if len(group) == 2 and group[0].folder == group[1].folder:
            found[group[0]].append(group[1])
    taken = {mask for masks in found.values() for mask in masks}
    return {image: masks for image, masks in found.items() if image not in taken}


def _by_other_ending(roles: Roles) -> Pairs:
    """Images and masks that are called alike but for what all of their folder end on: 2_10_RGB.tif, 2_10_label.tif."""
    folders: dict[tuple[str, ...], list[File]] = defaultdict(list)
    for file in (*roles.images, *roles.masks):
        folders[file.folder].append(file)
    ends = {folder: common_name([file.stem for file in group]).lstrip("*") for folder, group in folders.items()}

    def key(file: File) -> tuple[str | None, str]:
        return place_of(file.folder).split, file.stem.removesuffix(ends[file.folder]).lower()

    masks: dict[tuple[str | None, str], list[File]] = defaultdict(list)
    for mask in (mask for mask in roles.masks if ends[mask.folder] != mask.stem):
        masks[key(mask)].append(mask)
    images = [image for image in roles.images if ends[image.folder] != image.stem]
    return {image: masks[key(image)] for image in images if key(image) in masks}


def _by_word_inside(listing: Listing, most: int = 50) -> Pairs:
    """Files with a word for mask inside their name, beside an image of equal size: for small folders."""
    rasters = listing.rasters
    if len(rasters) > most:
        return {}
    marked = [file for file in rasters if MASK_STEM_WORDS & set(tokens(file.stem))]
    found: dict[File, list[File]] = defaultdict(list)
    for mask in marked:
        beside = [file for file in rasters if file.folder == mask.folder and file not in marked]
        for image in (file for file in beside if same_size(listing, file, mask)):
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


# The lines -------------------------------------------------------------------------------------------------------


_BY_CLASS = "\n# or, if each class has masks of its own, a pattern for each: masks: {NAME: PATTERN, OTHER: PATTERN}"


def _remedy(listing: Listing, guesses: Iterable[Pairs], *, is_choice: bool = False) -> str:
    """The lines of a data.yaml that make one choice, others in comments; every one of them was tried.

    Args:
        listing: the folder.
        guesses: what may belong together, the likeliest first; the first one that works is taken.
        is_choice: images have several masks, of which each may be a class.
    """
    proposal = next((found for found in (propose(listing, guess) for guess in guesses) if found is not None), None)
    if proposal is None:
        return _in_general(listing) + (_BY_CLASS if is_choice else "")
    head = "Choose with a file data.yaml in that folder (or anywhere else), and delete what does not apply:"
    lines = [("images", proposal.images), *(("masks", option) for option in proposal.masks)]
    return head + yaml_lines(listing.root, lines) + (_BY_CLASS if is_choice or len(proposal.masks) > 1 else "")


def _in_general(listing: Listing) -> str:
    """What to do where no lines work."""
    head = (
        "Call each mask as its image (images/X.png and masks/X.png, or X.png and X_mask.png), or say in a data.yaml "
        "which patterns fit."
    )
    found = _two_folders(listing)
    if found is None:
        return head
    image, mask = found
    lines = [
        ("images", "/".join([*image.folder, f"*{image.suffix}"])),
        ("masks", "/".join([*mask.folder, f"{{stem}}{mask.suffix}"])),
    ]
    missing = "/".join([*mask.folder, image.stem + mask.suffix])
    return (
        f"{head} Lines of this form find nothing yet, as there is no {missing} for {image.posix}:"
        f"{yaml_lines(listing.root, lines)}"
    )


def _two_folders(listing: Listing) -> tuple[File, File] | None:
    """The first image and the first mask, where there are two folders and it can be told which is which."""
    found: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for file in listing.rasters:
        found[file.folder][file.suffix] += 1
    roles = ("image", "plain", "mask")
    by_role = sorted(found, key=lambda folder: (roles.index(place_of(folder).role), -found[folder].total()))
    if len(by_role) != 2 or () in found:
        return None
    suffixes = [found[folder].most_common(1)[0][0] for folder in by_role]
    if place_of(by_role[0]).role == "mask" or (place_of(by_role[1]).role != "mask" and len(set(suffixes)) == 1):
        return None
    first, second = (
        next(file for file in listing.rasters if (file.folder, file.suffix) == (folder, suffix))
        for folder, suffix in zip(by_role, suffixes, strict=True)
    )
    return first, second
