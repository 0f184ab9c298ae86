"""What lies below a folder, and how to tell of it."""

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pixelwise.data import formats, polygons
from pixelwise.data.omezarr import is_zarr
from pixelwise.errors import DataError

PICTURES: dict[str, str] = {
    **dict.fromkeys((".heic", ".heif", ".avif", ".jxl"), "Save such files as PNG or JPEG."),
    **dict.fromkeys((".dcm", ".dicom", ".ima", ".mha", ".mhd", ".nrrd"), "Save such files as NIfTI (.nii.gz) or PNG."),
    **dict.fromkeys(
        (".svs", ".ndpi", ".czi", ".lif", ".nd2", ".mrxs", ".vsi", ".oib", ".lsm"), "Save such files as OME-TIFF."
    ),
    **dict.fromkeys((".jp2", ".j2k", ".ecw", ".img", ".vrt"), "Save such files as TIFF."),
    **dict.fromkeys((".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".exr", ".hdr"), "Save such files as TIFF."),
    **dict.fromkeys((".tga", ".psd", ".xcf", ".svg", ".pbm"), "Save such files as PNG."),
    **dict.fromkeys((".h5", ".hdf5", ".mat", ".npz", ".pkl"), "Save each image in such files as PNG or TIFF."),
    **dict.fromkeys((".gz", ".bz2", ".zip", ".tar"), "Unpack such files."),
}
"""Files that hold images and are not read, by suffix, and what makes them readable."""


class File(NamedTuple):
    """A file below the root."""

    folder: tuple[str, ...]
    name: str
    stem: str
    suffix: str
    """In lower case."""

    @property
    def posix(self) -> str:
        """The path below the root."""
        return "/".join((*self.folder, self.name))

    @property
    def posix_stem(self) -> str:
        """The path without suffix."""
        return "/".join((*self.folder, self.stem))

    @property
    def posix_folder(self) -> str:
        """The path of the folder; the root is a dot."""
        return "/".join(self.folder) or "."

    @property
    def is_raster(self) -> bool:
        """Whether the file holds pixels: an image or a mask."""
        return self.suffix in formats.READERS

    @property
    def is_annotation(self) -> bool:
        """Whether the file may hold polygons."""
        return self.suffix in polygons.SUFFIXES


Pairs = Mapping[File, Sequence[File]]
"""Images with their mask files."""


@dataclass(frozen=True)
class Listing:
    """A folder and the files below it, sorted."""

    root: Path
    files: tuple[File, ...]

    @property
    def rasters(self) -> list[File]:
        """The files that hold pixels."""
        return [file for file in self.files if file.is_raster]

    def path(self, file: File) -> Path:
        """Where a file is on the disk."""
        return self.root.joinpath(*file.folder, file.name)


def walk(root: Path) -> Listing:
    """Images and annotation files below a folder; hidden files and folders, and runs, are passed over.

    Raises:
        DataError: there is no such folder, it cannot be listed, or no image is in it.
    """
    if not root.is_dir():
        what = "This is a file, not a folder." if root.exists() else "There is no such folder."
        remedy = "Give the folder that holds images and masks, or a data.yaml."
        if root.exists() and root.suffix.lower() in polygons.SUFFIXES:
            remedy = "Give the folder that holds this file of annotations and its images, or a data.yaml."
        raise DataError(what, where=root, remedy=remedy)
    found, others = _find(root)
    if not any(file.is_raster for file in found):
        raise of_run(root) or _no_images(root, others)
    return Listing(root, tuple(sorted(found)))


def of_run(root: Path) -> DataError | None:
    """The error for a folder that a run wrote and that holds no data; none for any other folder."""
    if not _is_run({path.name for path in root.iterdir()}):
        return None
    return DataError(
        "This is the folder of a run, which holds a model and its results, not images and masks.",
        where=root,
        remedy="Give the folder of the data; run.json says which one it was trained on.",
    )


def _is_run(names: Collection[str]) -> bool:
    """Whether these are names in a folder that a run wrote, whose pictures are no data."""
    return "run.json" in names and ("best.safetensors" in names or "begun.json" in names)


def rasters_below(root: Path) -> list[File]:
    """Images below a folder, sorted; hidden files and folders are passed over.

    Raises:
        DataError: a folder cannot be listed.
    """
    return sorted(file for file in _find(root)[0] if file.is_raster)


def others_below(root: Path) -> list[File]:
    """Files below a folder that are neither images nor annotations that are read; hidden ones are passed over.

    Raises:
        DataError: a folder cannot be listed.
    """
    return _find(root)[1]


def _find(root: Path) -> tuple[list[File], list[File]]:
    """Images and annotation files below a folder, and all other files."""
    found: list[File] = []
    others: list[File] = []
    seen: set[str] = set()
    for top, folders, names in os.walk(root, followlinks=True, onerror=_not_listed):
        place = os.path.realpath(top)
        # a link to a folder above would never end
        if place in seen or (Path(top) != root and _is_run(names)):
            folders.clear()
            continue
        seen.add(place)
        images = [name for name in folders if is_zarr(Path(top, name))]  # folders of chunks are files to us
        folders[:] = sorted(name for name in folders if not is_hidden(name) and name not in images)
        below = Path(top).relative_to(root).parts
        for name in (*names, *images):
            if name.startswith("."):
                continue
            file = File(below, name, *formats.split_name(name))
            (found if file.is_raster or file.is_annotation else others).append(file)
    return found, others


def is_hidden(folder: str) -> bool:
    """Whether a folder is no business of the user's: .git, __MACOSX."""
    return folder.startswith((".", "__"))


def some(names: Collection[str], limit: int = 3) -> str:
    """The first names, and how many more there are."""
    shown = sorted(names)[:limit]
    rest = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + rest


def counted(number: int, noun: str) -> str:
    """'1 mask', '2 masks', '3 classes'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def layout_line(pairs: Pairs, how: str = "by name") -> str:
    """Such as: images in train/, masks in trainannot/, paired by name."""
    image_folders = {image.posix_folder for image in pairs}
    mask_folders = {mask.posix_folder for masks in pairs.values() for mask in masks}
    if image_folders == mask_folders:
        return f"images and masks side by side in {some(image_folders)}, paired {how}"
    return f"images in {some(image_folders)}, masks in {some(mask_folders)}, paired {how}"


def _not_listed(error: OSError) -> None:
    raise DataError(
        f"The folder cannot be listed ({error.strerror}).", where=error.filename, remedy="Change its permissions."
    )


def _no_images(root: Path, others: Collection[File]) -> DataError:
    kinds = Counter("".join(Path(file.name).suffixes[-2:]).lower() or file.name for file in others)
    readable = ", ".join(suffix.removeprefix(".") for suffix in formats.READERS)
    there = ", ".join(f"{count} {suffix}" for suffix, count in kinds.most_common(4))
    suffixes = Counter(file.suffix for file in others if file.suffix in PICTURES)
    remedy = f"{PICTURES[suffixes.most_common(1)[0][0]]} " if suffixes else ""
    return DataError(
        f"There are no images here{f', only {there}' if there else '; the folder is empty'}.",
        where=root,
        remedy=f"{remedy}Images must be of one of the kinds {readable}.",
    )
