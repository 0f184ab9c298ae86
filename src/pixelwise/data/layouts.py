"""Layouts that need no data.yaml: which files of a folder are images, which are masks, and how they belong together.

Files are told apart by the words in their names, by what stands around a stem, and where two files differ
only in their suffix, by what is in them.
"""

import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pixelwise.data import channels, formats, npy, polygons
from pixelwise.data.ambiguous import refuse_ambiguity
from pixelwise.data.dataset import SplitName
from pixelwise.data.detect import Declaration
from pixelwise.data.groups import Grouping
from pixelwise.data.listing import File, Listing, Pairs, layout_line, some
from pixelwise.data.masks import pack_colors
from pixelwise.data.naming import (
    Roles,
    Tail,
    equal_stems,
    image_keys,
    is_called_mask,
    marked_as_masks,
    mask_keys,
    match,
    place_of,
    shared_end,
)
from pixelwise.data.nifti import Axis
from pixelwise.data.patterns import yaml_lines
from pixelwise.errors import DataError

ASIDE = frozenset({"segmentationobject", "segmentationclassnpy", "segmentationclassvisualization"})
"""Folders of Pascal VOC that repeat SegmentationClass in another form."""
DRAWINGS = frozenset({"label_viz"})
"""Stems of pictures in which labelme draws the mask over the image."""


@dataclass(frozen=True)
class Pairing:
    """Which masks belong to which image, and what else names and files say of them."""

    listing: Listing
    pairs: Pairs
    layout: str
    """One line that says how they were paired."""
    declaration: Declaration = field(default_factory=Declaration)
    splits: Mapping[File, SplitName | None] | None = None
    """Given by a file; none means by folder name."""
    group: Grouping | None = None
    """Which cases belong together."""
    slices: Axis | None = None
    """Axis of volumes across which slices are taken; none goes by the spacing of voxels."""
    notices: tuple[str, ...] = ()
    parts: Mapping[File, str] | None = None
    """The name of the class of each mask, where each class has masks of its own."""
    concerned: Collection[File] | None = None
    """The files that should have been paired, where a pattern names them; none means every raster file."""

    @property
    def unpaired(self) -> tuple[Path, ...]:
        """Images without mask and masks without image, but for those to predict."""
        rest = set(self.to_predict)
        return tuple(self.listing.path(file) for file in self._lonely if file not in rest)

    @property
    def to_predict(self) -> tuple[File, ...]:
        """Images of folders called test, as imagesTs and test/images, if no mask belongs to a test."""
        tests = [file for file in self._lonely if place_of(file.folder).split == "test"]
        is_labelled = any(place_of(file.folder).split == "test" for file in self.pairs)
        marked = any(place_of(file.folder).role == "mask" or is_called_mask(file) for file in tests)
        return () if self.splits is not None or is_labelled or marked else tuple(tests)

    @property
    def _lonely(self) -> list[File]:
        used = set(self.pairs).union(*self.pairs.values())
        files = self.listing.rasters if self.concerned is None else self.concerned
        return [file for file in files if file not in used]

    @property
    def possible_images(self) -> set[File]:
        """Images, also those that have no mask yet."""
        files = self.listing.rasters if self.concerned is None else self.concerned
        return {*files, *self.pairs}.difference(*self.pairs.values())


def pair(listing: Listing, wanted: Collection[File] | None = None) -> Pairing:
    """Find out from names which mask belongs to which image.

    Args:
        listing: the folder.
        wanted: the only files that may be images; none means any.

    Raises:
        DataError: nothing can be paired, or there is more than one way.
    """
    whole, said = _without_objects(_without_further_channels(listing))
    listing = Listing(whole.root, tuple(file for file in whole.files if not _is_aside(file)))
    roles = _roles(listing)
    if wanted is not None:
        roles = _restricted(roles, wanted)
    coco = _by_coco(listing, roles.images)
    pairs = match(listing.root, roles)
    if coco is None and not pairs and (objects := _by_object(roles)):
        line = "one folder per image with one mask file per object"
        return Pairing(listing, objects, line, _nnunet_declaration(listing), notices=said)
    if coco is not None and not pairs:
        return replace(coco, notices=(*coco.notices, *said))
    how = "by name"
    if not pairs and (pairs := pairs_of_folders(listing, roles.images)):
        how = "by name, told apart by what is in them"
    choices = dict(pairs)
    for image, annotations in (coco.pairs if coco is not None else {}).items():
        choices[image] = (*choices.get(image, ()), *annotations)
    if not choices:
        roles, further = _by_further_words(listing, roles)
        choices = dict(further)
    try:
        refuse_ambiguity(whole, roles, choices)
    except DataError as error:
        raise DataError(" ".join([error.what, *said]), where=error.where, remedy=error.remedy) from None
    return Pairing(listing, choices, layout_line(choices, how), _nnunet_declaration(listing), notices=said)


def _without_objects(listing: Listing) -> tuple[Listing, tuple[str, ...]]:
    """The listing without .npy files that hold no numbers, and what is to be said of these."""
    gone = {file for file in listing.files if file.suffix == ".npy" and npy.holds_objects(listing.path(file))}
    if not gone:
        return listing, ()
    said = (
        f"Passed over are .npy files that hold Python objects, as the projects of Cellpose do: {len(gone)}, such as "
        f"{min(gone).posix}. Masks in them count once they are saved as PNG or TIFF."
    )
    return Listing(listing.root, tuple(file for file in listing.files if file not in gone)), (said,)


def _is_aside(file: File) -> bool:
    """Whether a file repeats a mask in a form that is not read."""
    return bool(ASIDE & {part.lower() for part in file.folder}) or file.stem.lower() in DRAWINGS


def _restricted(roles: Roles, wanted: Collection[File]) -> Roles:
    """The wanted images, and the masks but for those that fit other images only."""
    images = [file for file in roles.images if file in wanted]
    mine = {key for image in images for key in image_keys(image)}
    others = {key for image in roles.images if image not in wanted for key in image_keys(image)}
    kept = [mask for mask in roles.masks if (keys := set(mask_keys(mask))) & mine or not keys & others]
    return Roles(images, kept)


# Images and masks ------------------------------------------------------------------------------------------------


def _roles(listing: Listing) -> Roles:
    """Images and masks by folder name, by what stands before or after the stem, and by content."""
    masks = _annotations(listing)
    unmarked: dict[str, dict[tuple[str, ...], list[File]]] = {"plain": defaultdict(list), "image": defaultdict(list)}
    for file in listing.rasters:
        role = place_of(file.folder).role
        if role == "mask":
            masks.append(file)
        else:
            unmarked[role][file.folder].append(file)
    images: list[File] = []
    for role in ("plain", "image"):
        # a folder of images holds masks only where there are none elsewhere: IMG_1_json/label.png
        is_mixed = role == "plain" or not masks
        for group in unmarked[role].values():
            marked = marked_as_masks(group) if is_mixed else set()
            masks.extend(marked)
            images.extend(file for file in group if file not in marked)
    twins = twin_masks(listing, images)
    return Roles([file for file in images if file not in twins], [*masks, *sorted(twins)])


def _annotations(listing: Listing) -> list[File]:
    """Labelme and YOLO files: one per image, by the same name."""
    stems = {file.stem.lower() for file in listing.rasters}
    groups: dict[tuple[tuple[str, ...], str], list[File]] = defaultdict(list)
    for file in listing.files:
        if file.is_annotation and file.stem.lower() in stems:
            groups[file.folder, file.suffix].append(file)
    return [file for group in groups.values() if _holds_shapes(listing, group) for file in group]


def _holds_shapes(listing: Listing, group: Sequence[File]) -> bool:
    """Whether the first files of a folder are labelme or YOLO annotations."""
    for file in group[:8]:
        path = listing.path(file)
        try:
            if file.suffix == ".txt":
                words = path.read_text(encoding="utf-8-sig").split()
                if words:
                    return len(words) > 4 and all(_is_number(word) for word in words)
            else:
                return polygons.format_of(path) == "labelme"
        except (DataError, OSError, UnicodeDecodeError):
            continue
    return False


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def twin_masks(listing: Listing, images: Sequence[File]) -> set[File]:
    """Masks among files of equal folder and stem that differ in their suffix: 007.bmp and 007.png.

    Decided by content, on five of each folder: of each two exactly one looks like a mask, always the same kind.
    """
    groups: dict[tuple[tuple[str, ...], str], list[File]] = defaultdict(list)
    for file in images:
        groups[file.folder, file.stem.lower()].append(file)
    twins: dict[tuple[str, ...], list[list[File]]] = defaultdict(list)
    for (folder, _), group in groups.items():
        if len(group) == 2:
            twins[folder].append(group)
    found: set[File] = set()
    for pairs in twins.values():
        suffixes = {tuple(sorted(file.suffix for file in two)) for two in pairs}
        sample = pairs[:: max(1, len(pairs) // 5)][:5]
        kinds = {file.suffix for two in sample for file in two if _looks_like_mask(listing.path(file))}
        if len(suffixes) == 1 and len(kinds) == 1:
            found |= {file for two in pairs for file in two if file.suffix in kinds}
    return found


def _looks_like_mask(path: Path, most: int = 64) -> bool:
    """One channel of few different whole numbers."""
    try:
        values = formats.read_mask(path)
    except DataError:
        return False
    return values.ndim == 2 and len(np.unique(values)) <= most


# Words that say mask where nothing else does ---------------------------------------------------------------------


def _by_further_words(listing: Listing, roles: Roles) -> tuple[Roles, Pairs]:
    """Masks by what their names end with, such as X_anno.bmp beside X.bmp, for folders that cannot be read without."""
    tails = {file: tail for file in (*roles.images, *roles.masks) if (tail := Tail.of(file)) is not None}
    groups: dict[tuple[tuple[str, ...], str], list[File]] = defaultdict(list)
    for file, tail in tails.items():
        groups[file.folder, tail.word].append(file)
    stems: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for file in (*roles.images, *roles.masks):
        if file not in tails:
            stems[file.folder].add(file.stem.lower().strip())
    found: set[File] = set()
    for (folder, _), group in groups.items():
        # in a folder of masks nothing stands beside them
        known = {tails[file].bare for file in group} if place_of(folder).role == "mask" else stems[folder]
        masks = [file for file in group if tails[file].bare in known]
        if masks and (not tails[masks[0]].is_vague or _are_all_drawn(listing, masks, len(known | stems[folder]))):
            found.update(masks)
    roles = Roles([file for file in roles.images if file not in found], sorted({*roles.masks, *found}))
    pairs = match(listing.root, roles, lambda mask: tails[mask].keys(mask) if mask in found else mask_keys(mask))
    return roles, pairs


def _are_all_drawn(listing: Listing, masks: Sequence[File], images: int) -> bool:
    """Whether there is a mask for each image, and five of them look drawn."""
    sample = masks[:: max(1, len(masks) // 5)][:5]
    return len(masks) == images and all(_looks_drawn(listing.path(mask)) for mask in sample)


# Two folders of any name -----------------------------------------------------------------------------------------


def pairs_of_folders(listing: Listing, images: Sequence[File]) -> Pairs:
    """Files of equal stem in two folders, whatever these are called: masks are those that look drawn.

    Decided by content, on five of each two folders: all of one look drawn, and most of the other do not. Nothing is
    paired where a mask would serve several images.

    Args:
        listing: the files.
        images: the only ones that may be images.
    """
    possible = set(images)
    found: dict[File, tuple[File, ...]] = {}
    for couples in equal_stems(listing.rasters).values():
        for image, mask in _told_apart(listing, couples):
            if image in possible:
                found[image] = (*found.get(image, ()), mask)
    masks = [mask for several in found.values() for mask in several]
    return found if len(set(masks)) == len(masks) and not found.keys() & set(masks) else {}


def _told_apart(listing: Listing, couples: Sequence[tuple[File, File]]) -> list[tuple[File, File]]:
    """The same couples, the image first; none if their content does not say which is which."""
    sample = couples[:: max(1, len(couples) // 5)][:5]
    drawn = [sum(_looks_drawn(listing.path(couple[side])) for couple in sample) for side in (0, 1)]
    for mask, image in ((0, 1), (1, 0)):
        if drawn[mask] == len(sample) and 2 * drawn[image] < len(sample):
            return [(couple[image], couple[mask]) for couple in couples]
    return []


def _looks_drawn(path: Path, most: int = 64) -> bool:
    """Few values or colours, of which those beside the commonest lie in patches: in a dark photograph they do not."""
    try:
        raw = formats.read_mask(path)
    except DataError:
        return False
    if raw.ndim == 3 and raw.shape[2] != 3:
        return False
    plane = pack_colors(raw) if raw.ndim == 3 else raw
    values, counts = np.unique(plane, return_counts=True)
    inner = plane[:-1, :-1]
    is_rarer = inner != values[counts.argmax()]
    is_within = (inner == plane[:-1, 1:]) & (inner == plane[1:, :-1])  # as the pixels to the right and below
    return len(values) <= most and 2 * int(is_within[is_rarer].sum()) >= int(is_rarer.sum())


# A mask file for each object -------------------------------------------------------------------------------------


def _by_object(roles: Roles) -> Pairs:
    """X/images/X.png with X/masks/*.png, one file per object."""
    places: dict[tuple[str, ...], list[File]] = defaultdict(list)
    for image in roles.images:
        if place_of(image.folder).role == "image":
            places[place_of(image.folder).full].append(image)
    objects: dict[tuple[str, ...], list[File]] = defaultdict(list)
    for mask in roles.masks:
        objects[place_of(mask.folder).full].append(mask)
    single = {place: found[0] for place, found in places.items() if len(found) == 1 and objects.get(place)}
    named = all(place and place[-1] == image.stem.lower() for place, image in single.items())
    if not single or (len(single) < max(2, len(places)) and not named):
        return {}
    return {image: tuple(objects[place]) for place, image in sorted(single.items())}


# COCO ------------------------------------------------------------------------------------------------------------


def _by_coco(listing: Listing, images: Sequence[File]) -> Pairing | None:
    """Images that a COCO file names, with that file as their mask."""
    entries = _coco_files(listing, {image.stem.lower() for image in images})
    by_name: dict[str, list[File]] = defaultdict(list)
    for image in images:
        by_name[image.name].append(image)
    pairs: dict[File, tuple[File, ...]] = {}
    absent = 0
    for annotation, names in entries.items():
        for name in names:
            named = _coco_image(listing.root, by_name.get(posixpath.basename(name), []), name, annotation)
            absent += named is None
            if named is not None and pairs.setdefault(named, (annotation,)) != (annotation,):
                raise _claimed_twice(listing.root, named, (pairs[named][0], annotation))
    if not pairs:
        return None
    return Pairing(
        listing,
        pairs,
        f"COCO annotations in {some([file.posix for file in entries])}",
        splits={image: _coco_split(annotation) for image, (annotation,) in pairs.items()},
        notices=(f"{absent} images named by COCO annotations are not in the folder.",) if absent else (),
    )


def _coco_files(listing: Listing, stems: Collection[str]) -> dict[File, list[str]]:
    """COCO files with the images that they name; those called as one image belong to it alone."""
    entries = {
        file: names
        for file in listing.files
        if file.suffix == ".json" and file.stem.lower() not in stems
        if (names := _coco_names(listing.path(file))) is not None
    }
    own = {file: names for file, names in entries.items() if file.stem.lower().startswith("instances_")}
    return own or entries  # in the layout of COCO itself other files repeat the images


def _coco_names(path: Path) -> list[str] | None:
    """File names of a COCO file's images, or none if it is something else."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(tree, dict) or not all(isinstance(tree.get(k), list) for k in ("images", "annotations")):
        return None
    if "categories" not in tree:  # captions
        return None
    entries = (entry for entry in tree["images"] if isinstance(entry, dict))
    return [str(entry.get("file_name", "")).replace("\\", "/") for entry in entries]


def _coco_image(root: Path, named: Sequence[File], name: str, annotation: File) -> File | None:
    """The image that agrees with most of a COCO file name; of equal ones, that of the same split."""
    folder = [part for part in name.split("/")[:-1] if part not in (".", "..")]

    def agreement(image: File) -> tuple[int, bool, bool]:
        same_split = place_of(image.folder).split == _coco_split(annotation)
        beside = image.folder[: len(annotation.folder)] == annotation.folder
        return shared_end(image.folder, folder), same_split, beside

    best = sorted(named, key=agreement, reverse=True)[:2]
    if len(best) == 2 and agreement(best[0]) == agreement(best[1]):
        raise DataError(
            f"{annotation.posix} names {name}, which can be {best[0].posix} or {best[1].posix}.",
            where=root,
            remedy="Write the folder into 'file_name', or give the images different names.",
        )
    return best[0] if best else None


def _coco_split(annotation: File) -> SplitName | None:
    """The split that an annotation file and its folders name: annotations/instances_train.json."""
    return place_of((*annotation.folder, annotation.stem)).split


def _claimed_twice(root: Path, image: File, annotations: Sequence[File]) -> DataError:
    options = [("masks", annotation.posix) for annotation in annotations]
    pattern = f"{'/'.join([*image.folder, '*'])}{image.suffix}"
    return DataError(
        f"{image.posix} is in several annotation files: {some([file.posix for file in annotations])}.",
        where=root,
        remedy="Say in a data.yaml which one counts:" + yaml_lines(root, [("images", pattern), *options]),
    )


# nnU-Net ---------------------------------------------------------------------------------------------------------


def _without_further_channels(listing: Listing) -> Listing:
    """nnU-Net may keep each channel in a file of its own: the first one stands for the image."""
    known = {(file.folder, file.stem, file.suffix) for file in listing.files}
    numbered = [file for file in listing.files if file.folder and channels.is_further(file.stem, file.folder[-1])]
    further = [file for file in numbered if (file.folder, channels.first_of(file.stem), file.suffix) in known]
    lonely = [file for file in numbered if file not in further and re.search(r"_000[1-9]$", file.stem)]
    torn = [file for file in further if (file.folder, channels.before(file.stem), file.suffix) not in known]
    for file in (*lonely, *torn):
        raise DataError(
            f"{file.posix} is a further channel of an image, and the one before it, "
            f"{channels.before(file.stem)}{file.suffix}, is missing.",
            where=listing.root,
            remedy="Add that file, or take this one away.",
        )
    gone = set(further)
    return Listing(listing.root, tuple(file for file in listing.files if file not in gone))


def _nnunet_declaration(listing: Listing) -> Declaration:
    """Class names from nnU-Net's dataset.json."""
    path = listing.root / "dataset.json"
    nnunet = any(folder.lower() == "labelstr" for file in listing.files for folder in file.folder)
    if not nnunet or not path.is_file():
        return Declaration()
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        # version 1 writes {"1": "cell"}, version 2 {"cell": 1}
        pairs = [(name, int(raw)) if not str(name).isdigit() else (raw, int(name)) for name, raw in labels.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(
            "The entry 'labels' does not give one number per class (regions of several are not supported).",
            where=path,
            remedy='Write "labels": {"background": 0, "cell": 1}.',
        ) from None
    named = sorted(pairs, key=lambda entry: entry[1])
    names = tuple(str(name) for name, _ in named if name != "ignore")
    return Declaration(names=names, values={raw: str(name) for name, raw in named})
