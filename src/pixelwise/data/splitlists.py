"""The split that Pascal VOC and CVAT keep in lists of stems: ImageSets/Segmentation/train.txt, val.txt, test.txt."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from pixelwise.data.dataset import SplitName
from pixelwise.data.listing import File, some
from pixelwise.data.naming import SPLIT_WORDS

FOLDERS = ("ImageSets", "Segmentation")
"""Where the lists are: beside the folder of the images."""


def find(root: Path, images: Sequence[File]) -> tuple[Mapping[File, SplitName | None] | None, tuple[str, ...]]:
    """The side of each image, and what is to be known of the lists.

    Args:
        root: the top folder.
        images: those with masks, below it.

    Returns:
        The sides, none for an image in no list; None in their place if there are no lists or they give no split.
    """
    sides: dict[File, SplitName | None] = {}
    files: list[str] = []
    lost = 0
    for base in sorted({image.folder[:depth] for image in images for depth in range(len(image.folder) + 1)}):
        lists = _lists(root.joinpath(*base, *FOLDERS))
        below = [image for image in images if image.folder[: len(base)] == base] if lists else []
        for path in lists:
            files.append(path.relative_to(root).as_posix())
            side = SPLIT_WORDS[path.stem.lower()]
            try:
                members, unknown = _members(path, below)
            except OSError as error:
                return None, (
                    f"The lists {_listed(files)} give no split: {files[-1]} cannot be read ({error.strerror}).",
                )
            torn = next((image for image in members if sides.get(image, side) != side), None)
            if torn is not None:
                return None, (f"The lists {_listed(files)} give no split: {torn.posix} stands in two of them.",)
            sides.update(dict.fromkeys(members, side))
            lost += unknown
    if not files:
        return None, ()
    rest = len(images) - len(sides)
    given = set(sides.values())
    if not ({"train", "validation"} <= given or ("test" in given and (len(given) > 1 or rest))):
        return None, (f"The lists {_listed(files)} alone give no split.",)
    return {image: sides.get(image) for image in images}, (_notice(files, rest, lost),)


def _notice(files: Sequence[str], rest: int, lost: int) -> str:
    text = f"The split is that of {_listed(files)}."
    text += f" Images in no list, which count as training images: {rest}." if rest else ""
    return text + (f" Lines that name no image with a mask: {lost}." if lost else "")


def _listed(files: Sequence[str]) -> str:
    return some(files, 6)


def _lists(folder: Path) -> list[Path]:
    """Not trainval.txt, and not the default.txt of CVAT, which has all images."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("*.txt") if path.stem.lower() in SPLIT_WORDS)


def _members(path: Path, images: Sequence[File]) -> tuple[list[File], int]:
    """The images that the lines of a list name, by stem or by the end of a path, and how many lines name none."""
    by_stem: dict[str, list[File]] = defaultdict(list)
    for image in images:
        by_stem[image.stem].append(image)
    found: list[File] = []
    lost = 0
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        end = line.strip().replace("\\", "/")
        if end:
            named = [image for image in by_stem[end.rpartition("/")[2]] if f"/{image.posix_stem}".endswith(f"/{end}")]
            found += named
            lost += not named
    return found, lost
