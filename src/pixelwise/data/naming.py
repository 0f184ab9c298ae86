"""What names say: image or mask, the side of the split, and which mask belongs to which image."""

import functools
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

from pixelwise.data.dataset import SplitName
from pixelwise.data.listing import File, Pairs, some
from pixelwise.data.patterns import yaml_lines
from pixelwise.errors import DataError

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

NNUNET_IMAGES = frozenset(["imagestr", "imagests"])
"""Image folders of nnU-Net, in lower case: their files are called NAME_0000."""

Key = tuple[tuple[str, ...], str]
"""Folders and stem by which an image and its mask find each other."""

_MASK_WORD = (
    r"(?:masks?|labels?|seg(?:mentation)?|\d*gt\d*|ground_?truth|ann(?:ot(?:ation)?)?|manual\d*|target|"
    r"gt(?:fine|coarse)_\w+)"  # Cityscapes
)
_IMAGE_WORD = r"(?:images?|img|im|raw|input|photo|original|sat|training|test|leftimg8bit)"
_FURTHER_WORD = r"labell?ed|anno|cp_masks|simple segmentation|labelids|labeltrainids|instanceids|mask_?\d+"
_VAGUE_WORD = r"l|lesion|color"
_FURTHER = re.compile(rf"[_\-. ]+(?:(?P<sure>{_FURTHER_WORD})|(?P<vague>{_VAGUE_WORD}))\s*$", re.IGNORECASE)
"""What programs and data sets add to the names of masks, and names of images end with, too."""
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def _affix(word: str) -> re.Pattern[str]:
    """A word at the beginning or the end of a name, set off by a sign or a digit."""
    return re.compile(rf"^{word}(?:[_\-. ]+|(?=\d))|(?:[_\-. ]+|(?<=\d)){word}\s*$", re.IGNORECASE)


_MASK_AFFIX, _IMAGE_AFFIX = _affix(_MASK_WORD), _affix(_IMAGE_WORD)


@dataclass(frozen=True)
class Place:
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


@dataclass(frozen=True)
class Roles:
    """Files that can be images and files that can be masks."""

    images: Sequence[File]
    masks: Sequence[File]


# Folders ---------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def place_of(folder: tuple[str, ...]) -> Place:
    """What the names of these folders, one inside the other, say."""
    place = Place("plain", (), (), (), None, ())
    for component in folder:
        place = _stepped(place, component)
    return place


def _stepped(place: Place, component: str) -> Place:
    """The place one folder deeper."""
    words = tokens(component)
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
        return Place(place.role, place.full + step, place.short + step, place.loose + loose, split, named)
    left = [word for word in canonical if word not in NOISE | roles["mask"] | roles["image"]]
    full, short = ("_".join(left),) if left else (), tuple(sides[:1])
    return Place(role, place.full + full, place.short + short, place.loose + short, split, (*place.named, *sides[:1]))


@functools.lru_cache(maxsize=4096)
def tokens(name: str) -> tuple[str, ...]:
    """Lower-case words of a name: train_masks, imagesTr, trainannot, GroundTruth have two each."""
    known = SPLIT_WORDS.keys() | IMAGE_WORDS | MASK_WORDS
    if name.lower() in known:
        return (name.lower(),)
    words: list[str] = []
    for word in _words(name):
        cut = next((i for i in range(2, len(word) - 1) if word[:i] in known and word[i:] in known), None)
        words += [word] if word in known or cut is None else [word[:cut], word[cut:]]
    return tuple(words)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _TOKEN.findall(name)]


def shared_end(folder: Sequence[str], other: Sequence[str]) -> int:
    """In how many folders, counted from the last one, two paths agree."""
    ends = zip(reversed(folder), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda end: end[0] == end[1], ends))


# Stems -----------------------------------------------------------------------------------------------------------


def is_called_image(stem: str) -> bool:
    """Whether a stem says nothing but that the file is an image."""
    return not _bare(stem, _IMAGE_AFFIX, IMAGE_WORDS)


def is_called_mask(file: File) -> bool:
    """Whether the name of a file says: mask."""
    return _bare_mask(file) != _stem(file)


def marked_as_masks(group: Sequence[File]) -> set[File]:
    """Files of one folder that are called as another one, with something that says mask."""
    looks = {file: _bare_mask(file) for file in group}
    marked = {file for file in group if is_called_mask(file)}
    others = [file for file in group if file not in marked]
    stems = {_stem(file) for file in others} | {_bare_image(file) for file in others}
    return {file for file in marked if looks[file] in stems}


def masks_beside_images(files: Sequence[File]) -> set[File]:
    """Files that are masks of others by their name.

    They lie in a mask folder where there is an image folder, or are called X_mask.png; or X_ANYTHING.png beside X.jpg,
    if most images of the folder have such a companion.
    """
    roles = {file: place_of(file.folder).role for file in files}
    in_folders = {file for file, role in roles.items() if role == "mask"} if "image" in roles.values() else set()
    groups: dict[tuple[str, ...], list[File]] = defaultdict(list)
    for file in files:
        groups[file.folder].append(file)
    return in_folders.union(*(marked_as_masks(group) | _companions(group) for group in groups.values()))


def _companions(group: Sequence[File]) -> set[File]:
    """Files of one folder that add the same word to the names of most images, and are of another kind."""
    suffixes: dict[str, set[str]] = defaultdict(set)
    for file in group:
        suffixes[_stem(file)].add(file.suffix)
    tails: dict[str, list[File]] = defaultdict(list)
    for file in group:
        stem = _stem(file)
        cuts = [cut.start() for cut in re.finditer(r"[_\-. ](?=.*[a-z])", stem)]
        longest = next((cut for cut in reversed(cuts) if suffixes.get(stem[:cut], set()) - {file.suffix}), None)
        if longest is not None:
            tails[stem[longest:]].append(file)
    images = len(group) - sum(map(len, tails.values()))
    return {file for files in tails.values() if len(files) > max(1, images / 2) for file in files}


def _stem(file: File) -> str:
    return file.stem.lower().strip()


def _bare(stem: str, affix: re.Pattern[str], words: Collection[str]) -> str:
    """A stem without what says image or mask; empty if it says nothing else."""
    found = _words(stem)
    if found and all(word in words for word in found):
        return ""
    return affix.sub("", stem).lower().strip()


def _bare_image(file: File) -> str:
    if any(folder.lower() in NNUNET_IMAGES for folder in file.folder):
        return without_channel(file.stem, file.folder).lower()
    return _bare(file.stem, _IMAGE_AFFIX, IMAGE_WORDS)


def without_channel(stem: str, folders: Sequence[str]) -> str:
    """The name of a case in an image folder of nnU-Net, which numbers channels in file names; others as they are."""
    return re.sub(r"_\d{4}$", "", stem) if any(folder.lower() in NNUNET_IMAGES for folder in folders) else stem


def _bare_mask(file: File) -> str:
    return _bare(file.stem, _MASK_AFFIX, MASK_STEM_WORDS)


# Pairs -----------------------------------------------------------------------------------------------------------


def image_keys(file: File) -> list[Key]:
    """What an image is found by, best first."""
    place = place_of(file.folder)
    return _keys((place.full, place.short), (_stem(file), _bare_image(file)))


def mask_keys(file: File) -> list[Key]:
    """What the image of a mask may be found by, best first."""
    place = place_of(file.folder)
    return _keys((place.full, place.short, place.loose), (_stem(file), _bare_mask(file)))


def _keys(places: Sequence[tuple[str, ...]], stems: Sequence[str]) -> list[Key]:
    return list(dict.fromkeys((folders, stem) for folders in places for stem in stems))


@dataclass(frozen=True)
class Tail:
    """What the name of a mask ends with, by which it is known only where nothing else is."""

    bare: str
    """The stem without it, in lower case."""
    word: str
    is_vague: bool
    """Whether the word says little of masks: X_L."""

    @classmethod
    def of(cls, file: File) -> "Tail | None":
        """The tail of a file's name, if it is one of those that are known."""
        found = _FURTHER.search(file.stem)
        if found is None:
            return None
        bare = file.stem[: found.start()].lower().strip()
        return cls(bare, found.group().lower(), is_vague=found.group("vague") is not None)

    def keys(self, file: File) -> list[Key]:
        """What the image of such a mask may be found by, best first."""
        place = place_of(file.folder)
        return _keys((place.full, place.short, place.loose), (self.bare,))


def match(root: Path, roles: Roles, keys_of: Callable[[File], Sequence[Key]] = mask_keys) -> Pairs:
    """Each image with every mask file whose name fits.

    Args:
        root: the folder, for the error.
        roles: what may be an image, what a mask.
        keys_of: what the image of a mask is found by, best first.

    Raises:
        DataError: a mask fits several images equally well.
    """
    index: dict[Key, list[tuple[int, File]]] = defaultdict(list)
    for image in roles.images:
        plain = 10 * (place_of(image.folder).role == "plain")  # a folder called images comes first
        for rank, key in enumerate(image_keys(image)):
            index[key].append((rank + plain, image))
    found: dict[File, list[File]] = defaultdict(list)
    for mask in roles.masks:
        fitting = next((index[key] for key in keys_of(mask) if key in index), [])
        best = [image for rank, image in fitting if rank == min(fitting)[0]]
        if len(best) > 1:
            raise _same_name(root, best, mask)
        for image in best:
            found[image].append(mask)
    return {image: tuple(found[image]) for image in sorted(found)}


def equal_stems(files: Sequence[File], most: int = 4) -> dict[tuple[str, str], list[tuple[File, File]]]:
    """Files of equal stem whose paths differ in the name of one folder: Bilder/7.jpg and Masken/7.png.

    Args:
        files: of any kind.
        most: of so many files of one stem at the same place; more are cases in folders of their own.

    Returns:
        By the two names of the folder, of two files or more.
    """
    places: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[File]] = defaultdict(list)
    for file in files:
        for depth in range(len(file.folder)):
            places[_stem(file), file.folder[:depth], file.folder[depth + 1 :]].append(file)
    found: dict[tuple[str, str], list[tuple[File, File]]] = defaultdict(list)
    for (_, above, _), group in places.items():
        for one, other in itertools.combinations(group if len(group) <= most else (), 2):
            names = one.folder[len(above)], other.folder[len(above)]
            if names[0] != names[1] and place_of(one.folder).split == place_of(other.folder).split:
                found[names].append((one, other))
    return {names: couples for names, couples in found.items() if len(couples) > 1}


def _same_name(root: Path, images: Sequence[File], mask: File) -> DataError:
    first = images[0]
    name = mask.stem.lower().replace(first.stem.lower(), "{stem}") + mask.name[len(mask.stem) :]
    lines = [("images", "/".join((*first.folder, "*" + first.name[len(first.stem) :])))]
    lines += [("masks", "/".join((*mask.folder, name)))]
    return DataError(
        f"The mask {mask.posix} fits {len(images)} images: {some([image.posix for image in images])}.",
        where=root,
        remedy="Give each image a name of its own, or say in a data.yaml which ones count:" + yaml_lines(root, lines),
    )
