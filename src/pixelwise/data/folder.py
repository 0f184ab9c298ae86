"""From a folder, or a data.yaml, to cases: which file is the mask of which image.

Files are paired by name, never by order. What a folder holds is decided by the words in its folder and
file names (`IMAGE_WORDS`, `MASK_WORDS`, `SPLIT_WORDS`), by matching stems, and where two files differ
only in their suffix, by what is in them. Where more than one reading is possible nothing is guessed: the
error prints the lines of a data.yaml that settle it. `docs/data-folder.md` describes layouts and keys.
"""

import functools
import json
import os
import posixpath
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pixelwise.classes import Color
from pixelwise.config import describe
from pixelwise.data import detect as masks
from pixelwise.data import formats, polygons
from pixelwise.data.dataset import Case, Dataset, SplitName
from pixelwise.errors import ConfigError, DataError

SPLIT_WORDS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Words in folder names that say which side of the split a file is on."""

NNUNET_WORDS: dict[str, SplitName] = {"tr": "train", "ts": "test"}
"""The same beside a word of the tables below: imagesTr, labelsTs."""

IMAGE_WORDS = frozenset(
    [
        "image",
        "images",
        "img",
        "imgs",
        "im",
        "raw",
        "x",
        "photo",
        "photos",
        "picture",
        "pictures",
        "input",
        "inputs",
        "original",
    ]
)
"""Words in folder names that say: images. A file whose whole name is made of them is an image: X/image.png."""

MASK_WORDS = frozenset(
    [
        "mask",
        "masks",
        "label",
        "labels",
        "lbl",
        "lbls",
        "ann",
        "anns",
        "annot",
        "annots",
        "annotation",
        "annotations",
        "gt",
        "gts",
        "groundtruth",
        "ground",
        "truth",
        "seg",
        "segs",
        "segmentation",
        "segmentations",
        "target",
        "targets",
        "y",
        "manual",
    ]
)
"""Words in folder names that say: masks."""

MASK_STEM_WORDS = MASK_WORDS | frozenset(["labeled", "labelled", "instance", "instances", "id", "ids"])
"""A file whose whole name is made of these is a mask: X/mask.png, X/instances_ids.png."""

NOISE = frozenset(["dir", "folder", "files", "class", "jpeg", "jpg", "png", "tif", "tiff", "bmp", "gif", "npy"])
"""Words beside those above that do not tell one folder from another: JPEGImages, img_dir, SegmentationClass."""

ASIDE = frozenset({"segmentationobject", "segmentationclassnpy", "segmentationclassvisualization"})
"""Folders of Pascal VOC that repeat SegmentationClass in another form."""

DATA_FILES = ("data.yaml", "data.yml")
"""A file of one of these names in a folder describes it."""

Key = tuple[tuple[str, ...], str]
"""Folders and stem by which an image and its mask find each other."""


class _File(NamedTuple):
    """A file below the root."""

    folder: tuple[str, ...]
    name: str
    stem: str
    suffix: str

    @property
    def posix(self) -> str:
        return "/".join((*self.folder, self.name))

    def under(self, root: Path) -> Path:
        return root.joinpath(*self.folder, self.name)


Pairs = dict[_File, tuple[_File, ...]]


@dataclass(frozen=True)
class _Found:
    """What a way of pairing found."""

    pairs: Pairs
    unpaired: tuple[_File, ...]
    layout: str
    declaration: masks.Declaration = field(default_factory=masks.Declaration)
    splits: Mapping[_File, SplitName | None] | None = None
    """Given by a data.yaml; none means by folder name."""
    group: str | None = None
    notices: tuple[str, ...] = ()


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
    if description is not None:
        base, found = _declared(description)
    else:
        base, found = root, _detected(root, _walk(root))
    cases = _cases(base, found)
    detection = masks.detect(cases, found.declaration)
    return Dataset(
        root=base,
        cases=cases,
        classes=detection.classes,
        encoding=detection.encoding,
        layout=found.layout,
        notices=(*found.notices, *detection.notices),
        unpaired=tuple(file.under(base) for file in found.unpaired),
    )


def _description(root: Path) -> Path | None:
    """The YAML file that describes the data, if there is one."""
    if root.suffix.lower() in (".yaml", ".yml") and not root.is_dir():
        return root
    return next((root / name for name in DATA_FILES if (root / name).is_file()), None)


# Files -----------------------------------------------------------------------------------------------------------


def _walk(root: Path) -> list[_File]:
    """Images and annotation files below a folder, sorted; hidden files and folders are passed over."""
    if not root.is_dir():
        what = "This is a file, not a folder." if root.exists() else "There is no such folder."
        raise DataError(what, where=root, remedy="Give the folder that holds images and masks, or a data.yaml.")
    found: list[_File] = []
    others: Counter[str] = Counter()
    seen: set[str] = set()
    for top, folders, names in os.walk(root, followlinks=True, onerror=_not_listed):
        place = os.path.realpath(top)
        if place in seen:  # a link to a folder above would never end
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        below = Path(top).relative_to(root).parts
        for name in names:
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a Path for each of many files is slow
            if name.startswith("."):
                continue
            if suffix.lower() in formats.READERS or suffix.lower() in polygons.SUFFIXES:
                found.append(_File(below, name, stem, suffix.lower()))
            else:
                others["".join(Path(name).suffixes[-2:]).lower() or name] += 1
    if not any(_is_raster(file) for file in found):
        raise _no_images(root, others)
    return sorted(found)


def _not_listed(error: OSError) -> None:
    raise DataError(
        f"The folder cannot be listed ({error.strerror}).", where=error.filename, remedy="Change its permissions."
    )


def _no_images(root: Path, others: Counter[str]) -> DataError:
    readable = ", ".join(suffix.removeprefix(".") for suffix in formats.READERS)
    there = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(4))
    return DataError(
        f"There are no images here{f', only {there}' if there else '; the folder is empty'}.",
        where=root,
        remedy=f"Images must be of one of the kinds {readable}.",
    )


def _is_raster(file: _File) -> bool:
    return file.suffix in formats.READERS


# Words in names --------------------------------------------------------------------------------------------------

_MASK_WORD = (
    r"(?:masks?|labels?|seg(?:mentation)?|\d*gt\d*|ground_?truth|ann(?:ot(?:ation)?)?|manual\d*|target|"
    r"gt(?:fine|coarse)_\w+)"  # Cityscapes
)
_IMAGE_WORD = r"(?:images?|img|im|raw|input|photo|original|sat|training|test|leftimg8bit)"
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def _affix(word: str) -> re.Pattern[str]:
    """A word at the beginning or the end of a name, set off by a sign or a digit."""
    return re.compile(rf"^{word}(?:[_\-. ]+|(?=\d))|(?:[_\-. ]+|(?<=\d)){word}\s*$", re.IGNORECASE)


_MASK_AFFIX, _IMAGE_AFFIX = _affix(_MASK_WORD), _affix(_IMAGE_WORD)


@functools.lru_cache(maxsize=4096)
def _tokens(component: str) -> tuple[str, ...]:
    """Lower-case words of a folder name: train_masks, imagesTr, trainannot, GroundTruth have two each."""
    known = SPLIT_WORDS.keys() | IMAGE_WORDS | MASK_WORDS
    if component.lower() in known:
        return (component.lower(),)
    words: list[str] = []
    for word in (token.lower() for token in _TOKEN.findall(component)):
        cut = next((i for i in range(2, len(word) - 1) if word[:i] in known and word[i:] in known), None)
        words += [word] if word in known or cut is None else [word[:cut], word[cut:]]
    return tuple(words)


@dataclass(frozen=True)
class _Place:
    """What the names of the folders of a file say."""

    role: Literal["image", "mask", "plain"]
    full: tuple[str, ...]
    """The folders without what says image or mask: equal for an image and its mask."""
    short: tuple[str, ...]
    """The same without what else stands in the names of image and mask folders."""
    loose: tuple[str, ...]
    """The same without the folders below them: annotations/trimaps."""
    split: SplitName | None
    named: tuple[str, ...]
    """Folders as they are written, without image and mask folders: for the name of a case."""


@functools.lru_cache(maxsize=4096)
def _place(folder: tuple[str, ...]) -> _Place:
    place = _Place("plain", (), (), (), None, ())
    for component in folder:
        place = _stepped(place, component)
    return place


def _stepped(place: _Place, component: str) -> _Place:
    """The place one folder deeper."""
    words = _tokens(component)
    roles = {"mask": MASK_WORDS & set(words), "image": IMAGE_WORDS & set(words)}
    role: Literal["image", "mask", "plain"] = "mask" if roles["mask"] else "image" if roles["image"] else "plain"
    table = SPLIT_WORDS if role == "plain" else SPLIT_WORDS | NNUNET_WORDS
    sides = [table[word] for word in words if word in table]
    canonical = [table.get(word, word) for word in words]
    split = sides[0] if sides else place.split
    if role == "plain":
        step = ("_".join(canonical),) if sides else (component.lower(),)
        loose = step if sides or place.role == "plain" else ()
        named = (*place.named, component)
        return _Place(place.role, place.full + step, place.short + step, place.loose + loose, split, named)
    left = [word for word in canonical if word not in NOISE | roles["mask"] | roles["image"]]
    full, short = ("_".join(left),) if left else (), tuple(sides[:1])
    return _Place(role, place.full + full, place.short + short, place.loose + short, split, (*place.named, *sides[:1]))


def _bare(stem: str, affix: re.Pattern[str], words: Collection[str]) -> str:
    """A stem without what says image or mask; empty if it says nothing else."""
    tokens = [token.lower() for token in _TOKEN.findall(stem)]
    if tokens and all(token in words for token in tokens):
        return ""
    return affix.sub("", stem).lower().strip()


def _bare_image(file: _File) -> str:
    if any(folder.lower() in ("imagestr", "imagests") for folder in file.folder):
        return re.sub(r"_\d{4}$", "", file.stem).lower()  # nnU-Net numbers the channels
    return _bare(file.stem, _IMAGE_AFFIX, IMAGE_WORDS)


def _bare_mask(file: _File) -> str:
    return _bare(file.stem, _MASK_AFFIX, MASK_STEM_WORDS)


def _image_keys(file: _File) -> list[Key]:
    """What an image is found by, best first."""
    place = _place(file.folder)
    stems = (file.stem.lower().strip(), _bare_image(file))
    return list(dict.fromkeys((folders, stem) for folders in (place.full, place.short) for stem in stems))


def _mask_keys(file: _File) -> list[Key]:
    """What the image of a mask may be found by, best first."""
    place = _place(file.folder)
    stems = (file.stem.lower().strip(), _bare_mask(file))
    return list(dict.fromkeys((folders, stem) for folders in (place.full, place.short, place.loose) for stem in stems))


# Pairing by name -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Roles:
    """Files that can be images and files that can be masks."""

    images: list[_File]
    masks: list[_File]


def _detected(root: Path, files: list[_File], wanted: Collection[_File] | None = None) -> _Found:
    """The layout of a folder, found out from names.

    Args:
        root: the folder.
        files: what is in it.
        wanted: the only files that may be images; none means any.
    """
    _refuse_channel_files(root, files)
    roles = _roles(root, [file for file in files if not ASIDE & {part.lower() for part in file.folder}])
    if wanted is not None:
        roles = _restricted(roles, wanted)
    coco = _coco_pairs(root, files, roles.images)
    candidates = _match(root, roles.images, roles.masks)
    if not candidates and coco is None:
        candidates = _match_per_object(roles.images, roles.masks)
        if candidates:
            return _found(root, files, candidates, "one folder per image with one mask file per object")
    if coco is not None and not candidates:
        return coco
    choices = {image: list(found) for image, found in candidates.items()}
    for image, (annotation,) in (coco.pairs if coco is not None else {}).items():
        choices.setdefault(image, []).append(annotation)
    _refuse_ambiguity(root, files, roles, choices)
    return _found(root, files, {image: tuple(found) for image, found in choices.items()}, _layout_line(choices))


def _restricted(roles: _Roles, wanted: Collection[_File]) -> _Roles:
    """The wanted images, and the masks but for those that fit other images only."""
    images = [file for file in roles.images if file in wanted]
    mine = {key for image in images for key in _image_keys(image)}
    others = {key for image in roles.images if image not in wanted for key in _image_keys(image)}
    kept = [mask for mask in roles.masks if (keys := set(_mask_keys(mask))) & mine or not keys & others]
    return _Roles(images, kept)


def _found(root: Path, files: list[_File], pairs: Pairs, layout: str) -> _Found:
    return _Found(pairs, _left_over(files, pairs), layout, _nnunet_declaration(root, files))


def _left_over(files: Iterable[_File], pairs: Pairs) -> tuple[_File, ...]:
    used = set(pairs).union(*pairs.values()) if pairs else set()
    return tuple(file for file in files if _is_raster(file) and file not in used)


def _layout_line(pairs: Mapping[_File, Sequence[_File]]) -> str:
    """Such as: images in train/, masks in trainannot/, paired by name."""
    image_folders = {"/".join(image.folder) or "." for image in pairs}
    mask_folders = {"/".join(mask.folder) or "." for found in pairs.values() for mask in found}
    if image_folders == mask_folders:
        return f"images and masks side by side in {_some(image_folders)}, paired by name"
    return f"images in {_some(image_folders)}, masks in {_some(mask_folders)}, paired by name"


def _some(names: Collection[str], limit: int = 3) -> str:
    shown = sorted(names)[:limit]
    rest = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + rest


def _roles(root: Path, files: list[_File]) -> _Roles:
    """Images and masks by folder name, by what stands before or after the stem, and by content."""
    rasters = [file for file in files if _is_raster(file)]
    found = _Roles([], _annotations(root, files))
    plain: dict[tuple[str, ...], list[_File]] = defaultdict(list)
    for file in rasters:
        role = _place(file.folder).role
        if role == "plain":
            plain[file.folder].append(file)
        else:
            (found.masks if role == "mask" else found.images).append(file)
    for group in plain.values():
        marked = _marked_as_masks(group)
        found.masks.extend(marked)
        found.images.extend(file for file in group if file not in marked)
    twins = _twin_masks(root, found.images)
    return _Roles([file for file in found.images if file not in twins], [*found.masks, *sorted(twins)])


def _marked_as_masks(group: list[_File]) -> set[_File]:
    """Files of one folder that are called as another one, with something that says mask."""
    looks = {file: _bare_mask(file) for file in group}
    marked = {file for file, bare in looks.items() if bare != file.stem.lower().strip()}
    others = [file for file in group if file not in marked]
    stems = {file.stem.lower().strip() for file in others} | {_bare_image(file) for file in others}
    return {file for file in marked if looks[file] in stems}


def _match(root: Path, images: Sequence[_File], mask_files: Sequence[_File]) -> Pairs:
    """Each image with every mask file whose name fits."""
    index: dict[Key, list[tuple[int, _File]]] = defaultdict(list)
    for image in images:
        plain = 10 * (_place(image.folder).role == "plain")  # a folder called images comes first
        for rank, key in enumerate(_image_keys(image)):
            index[key].append((rank + plain, image))
    found: dict[_File, list[_File]] = defaultdict(list)
    for mask in mask_files:
        fitting = next((index[key] for key in _mask_keys(mask) if key in index), [])
        best = [image for rank, image in fitting if rank == min(fitting)[0]]
        if len(best) > 1:
            raise _same_name(root, best, mask)
        for image in best:
            found[image].append(mask)
    return {image: tuple(found[image]) for image in sorted(found)}


def _same_name(root: Path, images: Sequence[_File], mask: _File) -> DataError:
    first = images[0]
    name = mask.stem.lower().replace(first.stem.lower(), "{stem}") + Path(mask.name).suffix
    lines = [("images", "/".join((*first.folder, "*" + Path(first.name).suffix)))]
    lines += [("masks", "/".join((*mask.folder, name)))]
    return DataError(
        f"The mask {mask.posix} fits {len(images)} images: {_some([image.posix for image in images])}.",
        where=root,
        remedy="Give each image a name of its own, or say in a data.yaml which ones count:" + _yaml(root, lines),
    )


def _match_per_object(images: Sequence[_File], mask_files: Sequence[_File]) -> Pairs:
    """X/images/X.png with X/masks/*.png, one file per object."""
    places: dict[tuple[str, ...], list[_File]] = defaultdict(list)
    for image in images:
        if _place(image.folder).role == "image":
            places[_place(image.folder).full].append(image)
    objects: dict[tuple[str, ...], list[_File]] = defaultdict(list)
    for mask in mask_files:
        objects[_place(mask.folder).full].append(mask)
    single = {place: found[0] for place, found in places.items() if len(found) == 1 and objects.get(place)}
    named = all(place and place[-1] == image.stem.lower() for place, image in single.items())
    if not single or (len(single) < max(2, len(places)) and not named):
        return {}
    return {image: tuple(objects[place]) for place, image in sorted(single.items())}


# Files that need a look inside -----------------------------------------------------------------------------------


def _annotations(root: Path, files: list[_File]) -> list[_File]:
    """Labelme and YOLO files: one per image, by the same name."""
    stems = {file.stem.lower() for file in files if _is_raster(file)}
    groups: dict[tuple[tuple[str, ...], str], list[_File]] = defaultdict(list)
    for file in files:
        if file.suffix in polygons.SUFFIXES and file.stem.lower() in stems:
            groups[file.folder, file.suffix].append(file)
    return [file for group in groups.values() if _holds_shapes(root, group) for file in group]


def _holds_shapes(root: Path, group: Sequence[_File]) -> bool:
    """Whether the first files of a folder are labelme or YOLO annotations."""
    for file in group[:8]:
        path = file.under(root)
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


def _coco_pairs(root: Path, files: list[_File], images: list[_File]) -> _Found | None:
    """Images that a COCO file names, with that file as their mask."""
    stems = {image.stem.lower() for image in images}
    entries = {
        file: names
        for file in files
        if file.suffix == ".json" and file.stem.lower() not in stems
        if (names := _coco_names(file.under(root))) is not None
    }
    if any(file.stem.lower().startswith("instances_") for file in entries):  # the layout of COCO itself
        entries = {file: names for file, names in entries.items() if file.stem.lower().startswith("instances_")}
    by_name: dict[str, list[_File]] = defaultdict(list)
    for image in images:
        by_name[image.name].append(image)
    pairs: Pairs = {}
    absent = 0
    for annotation, names in entries.items():
        for name in names:
            named = _coco_image(root, by_name.get(posixpath.basename(name), []), name, annotation)
            absent += named is None
            if named is not None and pairs.setdefault(named, (annotation,)) != (annotation,):
                raise _claimed_twice(root, named, (pairs[named][0], annotation))
    if not pairs:
        return None
    notices = (f"{absent} images named by COCO annotations are not in the folder.",) if absent else ()
    layout = f"COCO annotations in {_some([file.posix for file in entries])}"
    splits = {image: _place((*image.folder, annotation.stem)).split for image, (annotation,) in pairs.items()}
    return _Found(pairs, _left_over(files, pairs), layout, splits=splits, notices=notices)


def _coco_names(path: Path) -> list[str] | None:
    """File names of a COCO file's images, or none if it is something else."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(tree, dict) or not all(isinstance(tree.get(k), list) for k in ("images", "annotations")):
        return None
    if "categories" not in tree:  # captions
        return None
    entries = (entry for entry in tree["images"] if isinstance(entry, dict))
    return [str(entry.get("file_name", "")).replace("\\", "/") for entry in entries]


def _coco_image(root: Path, named: list[_File], name: str, annotation: _File) -> _File | None:
    """The image that agrees with most of a COCO file name; of equal ones, that of the same split."""
    wanted = [part for part in name.split("/")[:-1] if part not in (".", "..")]

    def agreement(image: _File) -> tuple[int, bool, bool]:
        shared = 0
        for mine, theirs in zip(reversed(image.folder), reversed(wanted), strict=False):
            if mine != theirs:
                break
            shared += 1
        same_split = _place(image.folder).split == _place((*annotation.folder, annotation.stem)).split
        return shared, same_split, image.folder[: len(annotation.folder)] == annotation.folder

    best = sorted(named, key=agreement, reverse=True)[:2]
    if len(best) == 2 and agreement(best[0]) == agreement(best[1]):
        raise DataError(
            f"{annotation.posix} names {name}, which can be {best[0].posix} or {best[1].posix}.",
            where=root,
            remedy="Write the folder into 'file_name', or give the images different names.",
        )
    return best[0] if best else None


def _claimed_twice(root: Path, image: _File, annotations: Sequence[_File]) -> DataError:
    options = [("masks", annotation.posix) for annotation in annotations]
    pattern = f"{'/'.join([*image.folder, '*'])}{image.suffix}"
    return DataError(
        f"{image.posix} is in several annotation files: {_some([file.posix for file in annotations])}.",
        where=root,
        remedy="Say in a data.yaml which one counts:" + _yaml(root, [("images", pattern), *options]),
    )


def _twin_masks(root: Path, images: Sequence[_File]) -> set[_File]:
    """Masks among files of equal folder and stem that differ in their suffix: 007.bmp and 007.png.

    Decided by content, on five of each folder: of each two exactly one looks like a mask, always the same kind.
    """
    groups: dict[tuple[tuple[str, ...], str], list[_File]] = defaultdict(list)
    for file in images:
        groups[file.folder, file.stem.lower()].append(file)
    twins: dict[tuple[str, ...], list[list[_File]]] = defaultdict(list)
    for (folder, _), group in groups.items():
        if len(group) == 2:
            twins[folder].append(group)
    found: set[_File] = set()
    for pairs in twins.values():
        suffixes = {tuple(sorted(file.suffix for file in pair)) for pair in pairs}
        sample = pairs[:: max(1, len(pairs) // 5)][:5]
        kinds = {file.suffix for pair in sample for file in pair if _looks_like_mask(file.under(root))}
        if len(suffixes) == 1 and len(kinds) == 1:
            found |= {file for pair in pairs for file in pair if file.suffix in kinds}
    return found


def _looks_like_mask(path: Path, most: int = 64) -> bool:
    """One channel of few different whole numbers."""
    try:
        values = formats.read_mask(path)
    except DataError:
        return False
    return values.ndim == 2 and len(np.unique(values)) <= most


def _refuse_channel_files(root: Path, files: Sequence[_File]) -> None:
    """nnU-Net may keep each channel in a file of its own, which is not read here."""
    for file in files:
        if re.search(r"_000[1-9]$", file.stem) and file.folder and file.folder[-1].lower() in ("imagestr", "imagests"):
            raise DataError(
                f"{file.posix} is a further channel of its image; one file per channel cannot be read.",
                where=root,
                remedy="Save the channels of each image in one file, NAME_0000.tif or NAME_0000.png.",
            )


def _nnunet_declaration(root: Path, files: Sequence[_File]) -> masks.Declaration:
    """Class names from nnU-Net's dataset.json."""
    path = root / "dataset.json"
    nnunet = any(folder.lower() == "labelstr" for file in files for folder in file.folder)
    if not nnunet or not path.is_file():
        return masks.Declaration()
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        # version 1 writes {"1": "cell"}, version 2 {"cell": 1}
        pairs = [(name, int(raw)) if not str(name).isdigit() else (raw, int(name)) for name, raw in labels.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            "The entry 'labels' does not give one number per class (regions of several are not supported).",
            where=path,
            remedy='Write "labels": {"background": 0, "cell": 1}.',
        ) from None
    named = sorted(pairs, key=lambda pair: pair[1])
    names = tuple(str(name) for name, _ in named if name != "ignore")
    return masks.Declaration(names=names, values={raw: str(name) for name, raw in named})


# Where there is more than one way --------------------------------------------------------------------------------

TARGET_WORDS = ("manual", "gt", "truth", "instance", "label", "annot", "ann", "mask", "seg")
"""Which of several candidates is proposed first; the user decides."""


def _refuse_ambiguity(
    root: Path, files: Sequence[_File], roles: _Roles, choices: Mapping[_File, Sequence[_File]]
) -> None:
    """Raise where an image has several masks, none has one, or a whole folder of masks is left over.

    Raises:
        DataError: with the lines of a data.yaml for this very folder.
    """
    if not choices:
        raise _no_pairs(root, files, roles)
    several = {image: found for image, found in choices.items() if len(found) > 1}
    used = {mask for found in choices.values() for mask in found}
    folders = {mask.folder for mask in used}
    idle = Counter(mask.folder for mask in roles.masks if mask not in used and mask.folder not in folders)
    rivals = [folder for folder, count in idle.items() if count * 2 >= len(choices)]
    kinds = {mask.suffix if mask.suffix in polygons.SUFFIXES else "picture" for mask in used}
    if not several and not rivals and len(kinds) == 1:
        return
    if several:
        image, found = next(iter(several.items()))
        what = f"{len(several)} images have more than one mask: {image.posix} has {_some([m.posix for m in found], 4)}."
    elif rivals:
        what = f"The masks in {_some(['/'.join(f) for f in rivals])} fit no image, others do: which ones count?"
    else:
        what = f"There are several kinds of annotations: {_layout_line(choices)}."
        choices = _of_one_kind(choices)
    raise DataError(what, where=root, remedy=_remedy(root, files, choices))


def _of_one_kind(choices: Mapping[_File, Sequence[_File]]) -> dict[_File, Sequence[_File]]:
    """The images whose masks are in the commonest folder."""
    folders = Counter((found[0].folder, found[0].suffix) for found in choices.values())
    first = folders.most_common(1)[0][0]
    return {image: found for image, found in choices.items() if (found[0].folder, found[0].suffix) == first}


def _no_pairs(root: Path, files: Sequence[_File], roles: _Roles) -> DataError:
    """No mask has the name of an image."""
    images, found = len(roles.images), len(roles.masks)
    if not images:
        raise DataError(
            "None of the files that count as images is one: all are masks by their names, or are not listed.",
            where=root,
            remedy="Say with 'images' and 'masks' in a data.yaml which files are which.",
        )
    what = f"There are {images} images" + (
        f" and {found} masks, but no mask has the name of an image." if found else " but no masks that can be told."
    )
    guesses = _by_longer_name(files) or _by_word_inside(root, files)
    return DataError(what, where=root, remedy=_remedy(root, files, guesses))


def _by_longer_name(files: Sequence[_File]) -> dict[_File, list[_File]]:
    """Masks whose name goes on where an image's ends: X.jpg and X_vessels.png."""
    rasters = [file for file in files if _is_raster(file)]
    by_stem: dict[str, list[_File]] = defaultdict(list)
    for file in rasters:
        by_stem[file.stem].append(file)
    found: dict[_File, list[_File]] = defaultdict(list)
    for mask in rasters:
        cuts = [match.start() for match in re.finditer(r"[_\-. ]", mask.stem)]
        for image in (image for cut in cuts for image in by_stem.get(mask.stem[:cut], [])):
            if image.folder == mask.folder or _place(mask.folder).role == "mask":
                found[image].append(mask)
    # twins that nothing could tell apart
    for group in by_stem.values():
        if len(group) == 2 and group[0].folder == group[1].folder:
            found[group[0]].append(group[1])
    return {image: masks_ for image, masks_ in found.items() if not any(image in other for other in found.values())}


def _by_word_inside(root: Path, files: Sequence[_File], most: int = 50) -> dict[_File, list[_File]]:
    """Files with a word for mask inside their name, beside an image of equal size: for small folders."""
    rasters = [file for file in files if _is_raster(file)]
    if len(rasters) > most:
        return {}
    marked = [file for file in rasters if MASK_STEM_WORDS & set(_tokens(file.stem))]
    found: dict[_File, list[_File]] = defaultdict(list)
    for mask in marked:
        beside = [file for file in rasters if file.folder == mask.folder and file not in marked]
        for image in (file for file in beside if _same_size(root, file, mask)):
            found[image].append(mask)
    return dict(found)


def _same_size(root: Path, first: _File, second: _File) -> bool:
    try:
        one, two = formats.read_info(first.under(root)), formats.read_info(second.under(root))
    except DataError:
        return False
    return (one.height, one.width) == (two.height, two.width)


def _remedy(root: Path, files: Sequence[_File], choices: Mapping[_File, Sequence[_File]]) -> str:
    """The lines of a data.yaml that make one choice, others in comments; every one of them was tried."""
    images = _largest_depth(choices)
    pattern, options = _options(root, files, images, choices) if images else ("", [])
    if options:
        head = "Choose with a file data.yaml in that folder (or anywhere else), and delete what does not apply:"
        return head + _yaml(root, [("images", pattern), *(("masks", option) for option in options[:6])])
    return (
        "Call each mask as its image (images/X.png and masks/X.png, or X.png and X_mask.png), or write a data.yaml "
        "with patterns that fit, such as:" + _yaml(root, [("images", "images/*.png"), ("masks", "masks/{stem}.png")])
    )


def _yaml(root: Path, lines: Sequence[tuple[str, str]]) -> str:
    """Lines of YAML; of several with the same key all but the first are comments."""
    text, seen = f"\npath: {_quoted(root.absolute().as_posix())}", set[str]()
    for key, value in lines:
        text += f"\n{'# or ' if key in seen else ''}{key}: {_quoted(value)}"
        seen.add(key)
    return text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # YAML reads JSON


def _largest_depth(choices: Iterable[_File]) -> list[_File]:
    """The images of the commonest depth: one pattern reaches no others."""
    by_depth: dict[int, list[_File]] = defaultdict(list)
    for image in choices:
        by_depth[len(image.folder)].append(image)
    return max(by_depth.values(), key=len, default=[])


def _options(
    root: Path, files: Sequence[_File], images: list[_File], choices: Mapping[_File, Sequence[_File]]
) -> tuple[str, list[str]]:
    """A pattern for the images and those for masks that work, the best first."""
    pattern = _common_pattern(images)
    stars = {image: _stars(pattern, image) for image in images}
    templates = Counter(_template(image, stars[image], mask) for image in images for mask in choices[image])
    folders = {mask.folder for found in choices.values() for mask in found} | {
        file.folder for file in files if _is_raster(file) and _place(file.folder).role == "mask"
    }
    for folder in folders:  # names that only begin like the image's
        suffixes = Counter(file.suffix for file in files if file.folder == folder and _is_raster(file))
        if len(folders) > 1 and suffixes and stars[images[0]]:
            star = "{" + str(len(stars[images[0]])) + "}"
            templates["/".join([*folder, f"{star}*{suffixes.most_common(1)[0][0]}"])] += 0
    lookup = _Lookup(files)
    reached = {template: _reach(template, images, pattern, lookup) for template in templates}
    most = max((len(found) for found in reached.values()), default=0)
    working = [template for template, found in reached.items() if found and len(found) == most]
    shortest: dict[frozenset[_File], str] = {}
    for template in sorted(working, key=lambda template: (template.count("*"), template)):
        shortest.setdefault(frozenset(reached[template].values()), template)

    def preference(template: str) -> tuple[bool, int, str]:
        image, mask = next(iter(reached[template].items()))
        fits = mask.suffix in polygons.SUFFIXES or _same_size(root, image, mask)
        words = [rank for rank, word in enumerate(TARGET_WORDS) if word in template.lower()]
        return not fits, min(words, default=len(TARGET_WORDS)), template

    return pattern, sorted(shortest.values(), key=preference)


def _reach(template: str, images: Sequence[_File], pattern: str, lookup: "_Lookup") -> dict[_File, _File]:
    """The one mask of each image by a template; empty if a mask would serve two images."""
    found: dict[_File, _File] = {}
    for image in images:
        fitting = lookup.find(_filled(template, image, _stars(pattern, image)))
        if len(fitting) == 1 and fitting[0] != image:
            found[image] = fitting[0]
    shared = len(set(found.values())) < len(found) and not all(mask.suffix == ".json" for mask in found.values())
    return {} if shared else found


def _common_pattern(images: Sequence[_File]) -> str:
    """The narrowest pattern with a star for what differs: train/*/raw.tif, images/*_training.tif."""
    parts = [
        levels[0] if len(set(levels)) == 1 else "*" for levels in zip(*(image.folder for image in images), strict=True)
    ]
    stems = [image.stem for image in images]
    if len(set(stems)) == 1 and len(stems) > 1:
        name = stems[0]
    else:
        backwards = [stem[::-1] for stem in stems]
        shared = os.path.commonprefix(backwards)[::-1]  # noqa: RUF071 - letters are what is compared
        ending = re.search(r"[_\-. ].*", shared)  # from a sign on: _training, not the ing of beginning and ending
        name = "*" + (ending.group() if ending else "") if len(stems) > 1 else stems[0]
    suffixes = {image.suffix for image in images}
    written = {Path(image.name).suffix for image in images}
    return "/".join([*parts, name + (written.pop() if len(written) == len(suffixes) == 1 else ".*")])


def _template(image: _File, stars: Sequence[str], mask: _File) -> str:
    """The path of a mask, with what it shares with its image written as a placeholder."""
    if mask.suffix == ".json" and image.stem not in mask.stem:
        return mask.posix  # one file for all
    beside = bool(image.folder) and mask.folder[: len(image.folder)] == image.folder
    varying = image.stem in stars or any(star and image.stem.startswith(star) for star in stars)
    rest = mask.folder[len(image.folder) :] if beside else mask.folder
    places = {star: f"{{{number}}}" for number, star in enumerate(stars, start=1)}
    folders = [places.get(part, part) for part in rest]
    if not beside:
        folders = [_starred_head(part, places) for part in folders]
    name = mask.name
    if varying and image.stem in mask.stem:
        name = name.replace(image.stem, "{stem}", 1)
    elif stars and varying and stars[-1] in mask.stem:
        name = name.replace(stars[-1], f"{{{len(stars)}}}", 1)
    literal_dir = beside and "*" not in places and all(part not in places for part in image.folder)
    head = list(image.folder) if literal_dir else ["{dir}"] * beside
    return "/".join([*head, *folders, name])


def _starred_head(part: str, places: Mapping[str, str]) -> str:
    """trainannot, where the image's folder train is a star, is {1}annot."""
    for star, place in places.items():
        if len(star) > 1 and part.startswith(star):
            return place + part[len(star) :]
    return part


# Patterns --------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _regex(pattern: str) -> re.Pattern[str]:
    """`*` is any part of one name and is remembered, `?` one character, `**/` any folders."""
    text = ""
    for piece in re.split(r"(\*\*/|\*|\?)", posixpath.normpath(pattern)):
        text += {"**/": "(?:.*/)?", "*": "([^/]*)", "?": "[^/]"}.get(piece, re.escape(piece))
    return re.compile(text + r"\Z", re.IGNORECASE)


def _stars(pattern: str, image: _File) -> tuple[str, ...]:
    match = _regex(pattern).match(image.posix)
    return tuple(match.groups()) if match else ()


def _filled(template: str, image: _File, stars: Sequence[str]) -> str:
    """A mask pattern with the placeholders of one image: {stem}, {dir}, {parent}, {1}, {2} ...

    Raises:
        ConfigError: there is no such placeholder.
    """
    values = {
        "stem": image.stem,
        "dir": "/".join(image.folder) or ".",
        "parent": image.folder[-1] if image.folder else ".",
        **{str(number): star for number, star in enumerate(stars, start=1)},
    }

    def value(match: re.Match[str]) -> str:
        if match.group(1) not in values:
            raise ConfigError(
                f"'masks' has the placeholder {match.group()}, which does not exist here.",
                remedy=f"There are {', '.join('{' + name + '}' for name in values)}.",
            )
        return values[match.group(1)]

    return posixpath.normpath(re.sub(r"\{(\w+)\}", value, template))


class _Lookup:
    """Files by pattern, without looking at all of them for each image."""

    def __init__(self, files: Iterable[_File]) -> None:
        self._by_path = {file.posix.lower(): file for file in files}
        self._paths = sorted(self._by_path)
        self._by_name: dict[str, list[_File]] = defaultdict(list)
        for file in self._by_path.values():
            self._by_name[file.name.lower()].append(file)

    def find(self, pattern: str) -> list[_File]:
        """The files that fit a pattern in which all placeholders are filled."""
        pattern = pattern.lower()
        wild = re.search(r"[*?]", pattern)
        if wild is None:
            return [self._by_path[pattern]] if pattern in self._by_path else []
        name = posixpath.basename(pattern)
        if not re.search(r"[*?]", name):
            among: Iterable[_File] = self._by_name.get(name, [])
        else:
            among = self._beginning(pattern[: wild.start()])
        # a file name may hold what is a sign in patterns, so that it is compared as it is
        return [file for file in among if _regex(pattern).match(file.posix)]

    def _beginning(self, head: str) -> Iterator[_File]:
        for path in self._paths[bisect_left(self._paths, head) :]:
            if not path.startswith(head):
                return
            yield self._by_path[path]


# data.yaml -------------------------------------------------------------------------------------------------------

OneOrMore = str | list[str]
Wanted = dict[_File, tuple[str, ...]]
"""Images, and what the stars of their pattern stand for."""


class DataFile(BaseModel):
    """The keys of a data.yaml; docs/data-folder.md describes them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: str = "."
    """The folder, relative to this file."""
    images: OneOrMore | None = None
    """Patterns of image files below `path`."""
    masks: OneOrMore | None = None
    """Patterns of the mask files of an image, with placeholders {stem}, {dir}, {parent}, {1} and *."""
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
    colors: list[Color] | dict[str, Color] | None = None
    """Class colours in the order of `names`, or by name."""
    values: dict[int, int | str] | None = None
    """Raw value to class index, class name or 'ignore'."""
    ignore: int | None = None
    """Raw value of pixels that do not count."""
    group: str | None = None
    """Regular expression over case names; its first group says which cases belong together."""
    nc: int | None = None
    """Ultralytics: the number of `names`."""
    download: Any = None
    """Ultralytics: not used."""
    roboflow: Any = None
    """Roboflow: not used."""


def _declared(path: Path) -> tuple[Path, _Found]:
    """The folder that a data.yaml describes, and its pairs."""
    data = _read_description(path)
    base = _base(path, data)
    files = _walk(base)
    given: dict[SplitName, OneOrMore | None] = {"train": data.train, "validation": data.val, "test": data.test}
    sides = {
        side: _members(base, path.parent, files, entries) for side, entries in given.items() if entries is not None
    }
    _refuse_two_sides(path, sides)
    wanted = _wanted(files, data, sides)
    try:
        found = _declared_pairs(base, files, data, wanted)
    except ConfigError as error:
        raise ConfigError(error.what, where=path, remedy=error.remedy) from None
    declaration = _declaration(path, data)
    if declaration != masks.Declaration():
        found = replace(found, declaration=declaration)
    if sides:
        splits = {image: next((side for side in sides if image in sides[side]), None) for image in found.pairs}
        found = replace(found, splits=splits)
    return base, replace(found, group=data.group, layout=f"{path.name}: {found.layout}")


def _read_description(path: Path) -> DataFile:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("There is no such file.", where=path, remedy="Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The file cannot be read ({error}).", where=path) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"This is not valid YAML: {error}.", where=path, remedy="Put patterns in quotes.") from None
    if not isinstance(tree, dict):
        raise ConfigError("The file must hold keys such as 'images:' and 'masks:'.", where=path)
    try:
        return DataFile.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe(error, DataFile), where=path, remedy="See docs/data-folder.md.") from None


def _base(path: Path, data: DataFile) -> Path:
    base = path.parent / Path(data.path).expanduser()
    if not base.is_dir() and path.absolute().parent.name == Path(data.path).name:
        return path.parent  # Ultralytics' files name their own folder
    return base


def _declared_pairs(base: Path, files: list[_File], data: DataFile, wanted: Wanted | None) -> _Found:
    if data.masks is not None:
        return _by_template(base, files, data, wanted)
    if data.masks_dir is not None:
        return _by_masks_folder(base, files, data.masks_dir, wanted)
    return _detected(base, files, wanted)


def _listed(entries: OneOrMore | None) -> list[str]:
    return [entries] if isinstance(entries, str) else list(entries or [])


def _wanted(files: Sequence[_File], data: DataFile, sides: Mapping[SplitName, Collection[_File]]) -> Wanted | None:
    """The only files that may be images, with what the stars of their pattern stand for; none means any."""
    if data.images is None and "train" not in sides:
        return None
    listed = set[_File]().union(*sides.values()) if "train" in sides else None
    patterns = _listed(data.images) if data.images is not None else ["**/*"]
    found: dict[_File, tuple[str, ...]] = {}
    for file in (file for file in files if _is_raster(file) and (listed is None or file in listed)):
        match = next((match for pattern in patterns if (match := _regex(pattern).match(file.posix))), None)
        if match:
            found[file] = tuple(match.groups())
    if not found:
        raise DataError(f"No image fits 'images: {data.images}'." if data.images else "'train' holds no image.")
    return found


def _by_template(base: Path, files: list[_File], data: DataFile, wanted: Wanted | None) -> _Found:
    """Pairs by the pattern `masks`."""
    lookup, templates = _Lookup(files), _listed(data.masks)
    candidates = wanted if wanted is not None else {file: (file.stem,) for file in files if _is_raster(file)}
    pairs: dict[_File, tuple[_File, ...]] = {}
    owners: dict[_File, _File] = {}
    for image, stars in candidates.items():
        fitting = [mask for text in templates for mask in lookup.find(_filled(text, image, stars)) if mask != image]
        if fitting:
            pairs[image] = tuple(dict.fromkeys(fitting))
        for mask in fitting:
            owner = owners.setdefault(mask, image)
            if owner != image and mask.suffix != ".json":
                raise DataError(
                    f"The pattern 'masks' gives {mask.posix} to {owner.posix} and to {image.posix}.",
                    where=base,
                    remedy="Narrow it, with {stem} or {1} for what the first * of 'images' stands for.",
                )
    pairs = {image: found for image, found in pairs.items() if image not in owners}
    if not pairs:
        image, stars = next(iter(candidates.items()))
        looked = " or ".join(_filled(text, image, stars) for text in templates)
        raise DataError(
            f"No image has a mask: for {image.posix} there is no {looked}.", where=base, remedy="Correct 'masks'."
        )
    return _Found(pairs, _left_over(files, pairs), _layout_line(pairs).replace("by name", "as declared"))


def _by_masks_folder(base: Path, files: list[_File], folder: str, wanted: Collection[_File] | None) -> _Found:
    """Pairs by stem, masks in a folder of the given path or name, the same folders below and beside it."""
    parts = tuple(part.lower() for part in posixpath.normpath(folder).split("/"))
    images: list[_File] = []
    mask_files: dict[_File, _File] = {}
    for file in files:
        lower = tuple(part.lower() for part in file.folder)
        at = next((i for i in range(len(lower)) if lower[i : i + len(parts)] == parts), None)
        if at is not None:
            mask_files[file._replace(folder=file.folder[:at] + file.folder[at + len(parts) :])] = file
        elif _is_raster(file) and (wanted is None or file in wanted):
            images.append(file)
    if not mask_files:
        raise DataError(f"There is no folder '{folder}' with masks.", where=base, remedy="Correct 'masks_dir'.")
    pairs = _match_below(base, images, mask_files)
    several = next((image for image, found in pairs.items() if len(found) > 1), None)
    if several is not None or not pairs:
        found = _some([mask.posix for mask in pairs[several]]) if several is not None else "no masks at all"
        name = several.posix if several is not None else images[0].posix if images else "the folder"
        raise DataError(
            f"With 'masks_dir: {folder}', {name} has {found}.",
            where=base,
            remedy=f'Write the pattern instead: masks: "{folder}/{{stem}}.png".',
        )
    return _Found(pairs, _left_over(files, pairs), _layout_line(pairs))


def _match_below(base: Path, images: Sequence[_File], mask_files: Mapping[_File, _File]) -> Pairs:
    """Pairs with masks whose folder was cut: in the image's own folders, else in those above it, else anywhere."""
    above = {image._replace(folder=image.folder[:-1]): image for image in images}
    flat = {mask._replace(folder=()): file for mask, file in mask_files.items()}
    for mine, theirs in (
        ({image: image for image in images}, mask_files),
        (above, mask_files),
        ({image._replace(folder=()): image for image in images}, flat),
    ):
        found = _match(base, list(mine), list(theirs)) if len(theirs) == len(mask_files) else {}
        if found:
            return {mine[image]: tuple(theirs[mask] for mask in masks_) for image, masks_ in found.items()}
    return {}


def _declaration(path: Path, data: DataFile) -> masks.Declaration:
    """What the file says about classes."""
    names, values = data.names, data.values
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
            raise ConfigError(f"'colors' and 'names' differ in {_some(unknown)}.", where=path)
        colors = [colors[name] for name in names]
    if colors is not None and names is not None and len(colors) != len(names):
        raise ConfigError(f"There are {len(names)} names and {len(colors)} colors.", where=path)
    return masks.Declaration(
        names=tuple(names) if names is not None else None,
        colors=tuple(colors) if colors is not None else None,
        values=values,
        ignore=data.ignore,
    )


def _members(base: Path, beside: Path, files: Sequence[_File], entries: OneOrMore) -> set[_File]:
    """The files that a split's folders, lists, patterns, files or stems mean."""
    found: set[_File] = set()
    for entry in _listed(entries):
        if entry.lower().endswith(".txt"):
            found |= _members_of_list(base, beside, files, entry)
            continue
        members = _of_entry(base, files, entry)
        if not members:
            raise DataError(
                f"'{entry}' is no folder, file, pattern or stem of an image.",
                where=base,
                remedy="Correct train, val or test in the data.yaml.",
            )
        found |= members
    return found


def _of_entry(base: Path, files: Sequence[_File], entry: str) -> set[_File]:
    """The files of one entry. Roboflow writes ../train/images for ./train/images."""
    text = posixpath.normpath(entry.replace("\\", "/"))
    if Path(text).is_absolute():
        text = os.path.relpath(text, base.absolute()).replace(os.sep, "/")
    text = re.sub(r"^(\.\./)+", "", text)
    parts = () if text == "." else tuple(text.split("/"))
    below = {file for file in files if file.folder[: len(parts)] == parts}
    if below:
        return below
    if re.search(r"[*?]", text):
        return {file for file in files if _regex(text).match(file.posix)}
    exact = {file for file in files if file.posix == text}
    return (
        exact
        or {file for file in files if _is_raster(file) and "/".join((*file.folder, file.stem)) == text}
        or {file for file in files if _is_raster(file) and file.stem == text}
    )


def _members_of_list(base: Path, beside: Path, files: Sequence[_File], entry: str) -> set[_File]:
    """The files that the lines of a text file name: by path, else by the most that agrees of path and stem."""
    path = next((folder / entry for folder in (base, beside) if (folder / entry).is_file()), base / entry)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list cannot be read ({error}).", where=path, remedy="Correct the data.yaml.") from None
    by_stem: dict[str, list[_File]] = defaultdict(list)
    for file in (file for file in files if _is_raster(file)):
        by_stem[file.stem].append(file)
        by_stem[file.name].append(file)
    found: set[_File] = set()
    missing: list[str] = []
    for line in lines:
        first = line.split()[0]  # some lists name image and mask in a line
        members = _best_ends(by_stem, first if Path(first).suffix.lower() in formats.READERS else line)
        found.update(members)
        missing += [] if members else [line]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(lines)} lines name no image, such as '{missing[0]}'.",
            where=path,
            remedy=f"Write one path or stem per line, below {base}.",
        )
    return found


def _best_ends(by_stem: Mapping[str, Sequence[_File]], line: str) -> list[_File]:
    """The files that agree with the end of a path in most folders; the suffix may differ."""
    *folders, name = [part for part in line.replace("\\", "/").split("/") if part not in ("", ".")] or [""]
    named = [*by_stem.get(name, []), *by_stem.get(posixpath.splitext(name)[0], [])]

    def agreement(file: _File) -> tuple[int, bool]:
        ends = list(zip(reversed(file.folder), reversed(folders), strict=False))
        shared = next((i for i, (mine, theirs) in enumerate(ends) if mine != theirs), len(ends))
        return shared, file.name == name

    best = max((agreement(file) for file in named), default=None)
    return [file for file in named if agreement(file) == best]


def _refuse_two_sides(path: Path, sides: Mapping[SplitName, Collection[_File]]) -> None:
    names = list(sides)
    for first, second in ((a, b) for i, a in enumerate(names) for b in names[i + 1 :]):
        both = sorted(set(sides[first]) & set(sides[second]))
        if both:
            raise DataError(
                f"{len(both)} images are in {first} and in {second}, such as {both[0].posix}.",
                where=path,
                remedy="An image belongs to one side of the split only.",
            )


# Cases -----------------------------------------------------------------------------------------------------------


def _cases(base: Path, found: _Found) -> tuple[Case, ...]:
    """A case for every image, or for every page of a stack, sorted by name."""
    names = _names(found.pairs)
    splits = _usable_splits(_splits(found))
    cases: list[Case] = []
    for image, mask_files in found.pairs.items():
        case = Case(names[image], image.under(base), tuple(m.under(base) for m in mask_files), split=splits[image])
        cases.extend(_pages(case))
    if found.group is not None:
        cases = [replace(case, group=_group_of(case.name, found.group)) for case in cases]
    return tuple(sorted(cases, key=lambda case: _natural(case.name)))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts 2 before 10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _names(images: Iterable[_File]) -> dict[_File, str]:
    """Short names: folders without image folders, and the stem; whole paths where those are not unique."""
    short = {image: "/".join(_short_name(image)) for image in images}
    counts = Counter(short.values())
    whole = {image: "/".join((*image.folder, image.stem)) for image in images}
    counts_whole = Counter(whole.values())
    return {
        image: name if counts[name] == 1 else whole[image] if counts_whole[whole[image]] == 1 else image.posix
        for image, name in short.items()
    }


def _short_name(image: _File) -> tuple[str, ...]:
    folders = _place(image.folder).named
    if folders and (folders[-1] == image.stem or not _bare(image.stem, _IMAGE_AFFIX, IMAGE_WORDS)):
        return folders
    return (*folders, image.stem)


def _splits(found: _Found) -> dict[_File, SplitName | None]:
    if found.splits is not None:
        return dict(found.splits)
    return {image: _place(image.folder).split for image in found.pairs}


def _usable_splits(splits: Mapping[_File, SplitName | None]) -> dict[_File, SplitName | None]:
    """What is given, where it is enough to go by (see `scan`)."""
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
