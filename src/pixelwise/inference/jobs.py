"""What a prediction is to do: what the inputs stand for, and where each mask goes.

Nothing is predicted before all names are known, so that no mask can replace an image or another mask.
"""

import glob
import itertools
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Shaped, UInt8

from pixelwise.classes import ClassTable
from pixelwise.data import channels, declared, formats, writing
from pixelwise.data.annotations import import_shapely
from pixelwise.data.folder import DATA_FILES
from pixelwise.data.layouts import pairs_of_folders, twin_masks
from pixelwise.data.listing import Listing, rasters_below
from pixelwise.data.naming import masks_beside_images, without_channel
from pixelwise.data.nifti import is_nifti
from pixelwise.data.omezarr import is_zarr
from pixelwise.data.raster import ImageInfo
from pixelwise.data.tiff import Placement
from pixelwise.data.windows import allows_windows, is_large, is_small, placement_of
from pixelwise.errors import ConfigError, DataError

Draw = Callable[
    [Shaped[np.ndarray, "H W C"], UInt8[np.ndarray, "H W"], ClassTable],
    UInt8[np.ndarray, "H W 3"],
]
"""A picture of an image with its mask over it."""

MaskFormat = Literal["png", "tif", "cog"]
"""Of masks; `cog` is Cloud Optimized GeoTIFF."""

Polygons = Literal["geojson", "labelme", "coco"]
"""Of outlines of objects."""

SUFFIXES: dict[MaskFormat | Polygons, str] = {
    "png": ".png",
    "tif": ".tif",
    "cog": ".tif",
    "geojson": ".geojson",
    "labelme": ".json",
}
"""Of the files; COCO has one file for all images."""


Reading = Literal["whole", "windows", "bands"]
"""How an image is predicted: `whole`; by `windows` of its file; or so, and its mask is written in `bands`."""

LEAST_BYTES = 400_000_000
"""What a process takes that has imported torch and predicts with the smallest of networks."""


@dataclass(frozen=True)
class Outputs:
    """What is written for every image."""

    folder: Path
    mask_format: MaskFormat | None = None
    """None for `png`, and `tif` where an image says where on earth it lies. Masks of stacks and of large images are
    TIFF in any case; those of NIfTI and OME-Zarr are what their image is."""
    draw: Draw | None = None
    """Also write NAME_overlay.png, drawn by this; of a large image it is smaller."""
    probabilities: bool = False
    """Also write NAME_probabilities.npy, float32 K H W."""
    polygons: Polygons | None = None
    """Also write the outlines of objects: NAME.geojson or NAME.json (labelme) beside each mask, or one COCO file."""
    tolerance_px: float = 0.0
    """How far a simplified outline may be from the true one."""
    memory_bytes: int = 2_000_000_000
    """What the process may take while it predicts a large image; at least `LEAST_BYTES`."""

    @property
    def coco(self) -> Path | None:
        """COCO's file of all images, if it is wanted."""
        return self.folder / "annotations.json" if self.polygons == "coco" else None

    @property
    def options(self) -> str:
        """All that decides what is in the files of an image."""
        return repr((self.mask_format, self.draw is not None, self.probabilities, self.polygons, self.tolerance_px))


@dataclass(frozen=True)
class Job:
    """One image file and the files that come of it."""

    source: Path
    mask: Path
    overlay: Path | None = None
    probabilities: Path | None = None
    polygons: Path | None = None
    pages: int = 1
    """Images in the file; the mask of a stack is a stack."""
    placement: Placement | None = None
    """Where its pixels lie, if it says so."""
    channels: tuple[Path, ...] = ()
    """Files with the other channels of the source."""
    reading: Reading = "whole"
    is_stack: bool = False
    """It holds several images, or is a volume or a folder of chunks: nothing but a mask is written of it."""

    @property
    def is_large(self) -> bool:
        """Neither image nor mask is ever held whole."""
        return self.reading == "bands"

    @property
    def has_outlines(self) -> bool:
        """Outlines can be written of it."""
        return not self.is_stack and not self.is_large

    @property
    def nodata(self) -> float | None:
        """The value of pixels that hold nothing."""
        return self.placement.nodata if self.placement is not None else None

    @property
    def targets(self) -> list[Path]:
        """All files that will be written."""
        return [path for path in (self.mask, self.overlay, self.probabilities, self.polygons) if path is not None]

    def inside(self, folder: Path) -> "Job":
        """The same with all files in another folder."""
        others = (self.overlay, self.probabilities, self.polygons)
        overlay, probabilities, polygons = (path and folder / path.name for path in others)
        mask = folder / self.mask.name
        return replace(self, mask=mask, overlay=overlay, probabilities=probabilities, polygons=polygons)


@dataclass(frozen=True)
class Plan:
    """What will be done."""

    jobs: list[Job]
    passed_over: list[Path]
    """Files of the folders that are masks of other images by their name."""
    notes: list[str] = field(default_factory=list)
    """What is to be known before it is done."""

    def without_extras(self, outputs: Outputs) -> list[Path]:
        """Images of which not all is written that is wanted: stacks, and outlines of large images."""
        pictures = outputs.draw is not None or outputs.probabilities
        outlines = outputs.polygons is not None
        return [job.source for job in self.jobs if (pictures and job.is_stack) or (outlines and not job.has_outlines)]


def plan(inputs: Sequence[Path | str], outputs: Outputs) -> Plan:
    """Every image with the files that will come of it; nothing is written yet.

    Of a folder that holds images with their masks, the images are taken.

    Folders below the common folder of all inputs are kept below `outputs.folder`. The common folder of one folder is
    itself, that of a file its own, that of a pattern the part before the first wildcard. Images that differ in their
    suffix only keep it as part of their mask's name. Images below `outputs.folder` are results of an earlier
    prediction, and are passed over where a folder around it is searched.

    Args:
        inputs: files, folders and glob patterns; a `data.yaml` stands for the images that it names.
        outputs: what to write, and where.

    Raises:
        ConfigError: the options do not fit together, or a library that they need is not installed.
        DataError: an input does not exist, nothing was found, or a file to be written is an input or another result.
    """
    _refuse_options(outputs)
    places, passed_over = _places(inputs, outputs.folder) if inputs else ({}, [])
    if not places:
        raise DataError("No images were found.", where=", ".join(map(str, inputs)))
    places = _without_further_channels(places)
    stems = Counter(_without_suffix(place) for place in places.values())
    jobs = []
    for source, place in places.items():
        stem = _without_suffix(place)
        name = place.name if stems[stem] > 1 else without_channel(stem.name, _absolute(source).parent.parts)
        jobs.append(_job(source, outputs.folder / place.parent, name, outputs))
    _refuse_collisions(jobs)
    notes = [note for text in inputs for note in _described(Path(text), places)]
    return Plan(jobs, passed_over, notes)


@dataclass(frozen=True)
class _Found:
    """What an input stands for."""

    root: Path
    """The folder that it is looked for in."""
    images: list[Path]
    masks: list[Path] = field(default_factory=list)
    """Files that are masks of other images by their name."""


# --- names -----------------------------------------------------------------------------------------------------------


def _places(inputs: Sequence[Path | str], out: Path) -> tuple[dict[Path, Path], list[Path]]:
    """Each image once, with its path below the common folder of all inputs; and the masks that were passed over."""
    groups = [_expand(str(text)) for text in inputs]
    folders = {_absolute(place) for group in groups for place in (group.root, *(file.parent for file in group.images))}
    try:
        base = Path(os.path.commonpath(folders))
    except ValueError:
        raise DataError("The inputs lie on several drives.", remedy="Predict one drive after the other.") from None
    results = out.resolve()
    sources: dict[Path, Path] = {}
    for group in groups:
        root = group.root.resolve()
        is_inside = results != root and results.is_relative_to(root)
        for file in group.images:
            if not (is_inside and file.resolve().is_relative_to(results)):
                sources.setdefault(_absolute(file), file)
    places = {file: absolute.relative_to(base) for absolute, file in sources.items()}
    return places, [mask for group in groups for mask in group.masks]


def _without_further_channels(places: dict[Path, Path]) -> dict[Path, Path]:
    """The first channel stands for its image."""
    known = {_absolute(source) for source in places}

    def is_further(source: Path) -> bool:
        path = _absolute(source)
        stem, _ = formats.split_name(path.name)
        first = path.with_name(f"{channels.first_of(stem)}{path.name[len(stem) :]}")
        return channels.is_further(stem, path.parent.name) and first in known

    return {source: place for source, place in places.items() if not is_further(source)}


def _expand(text: str) -> _Found:
    path = Path(text)
    if path.is_file() and path.suffix.lower() in (".yaml", ".yml"):
        pairing = declared.pair(path)
        return _Found(pairing.listing.root, sorted(pairing.listing.path(image) for image in pairing.pairs))
    if path.is_file() or is_zarr(path):
        return _Found(path.parent, [path])
    if path.is_dir():
        return _Found(path, *_images_and_masks(path))
    if not glob.has_magic(text):
        raise DataError("There is no such file or folder.", where=path)
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    matches = [Path(name) for name in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207  may be absolute
    found = [([match], []) if match.is_file() or is_zarr(match) else _images_and_masks(match) for match in matches]
    return _Found(
        root, [file for images, _ in found for file in images], [file for _, masks in found for file in masks]
    )


def _images_and_masks(folder: Path) -> tuple[list[Path], list[Path]]:
    """What lies in a folder and in those inside it; what is hidden is passed over, as it is in data."""
    files = rasters_below(folder)
    masks = masks_beside_images(files)
    listing, others = Listing(folder, tuple(files)), [file for file in files if file not in masks]
    twins = twin_masks(listing, others)
    masks |= twins if len(twins) > 1 else set()  # one alone may be anything
    masks = masks.union(*pairs_of_folders(listing, others).values())
    images, beside = ([folder / file.posix for file in files if (file in masks) is side] for side in (False, True))
    return images, beside


def _described(folder: Path, images: Collection[Path]) -> list[str]:
    """That a data.yaml, in a folder or above it, takes files for no images that are to be predicted as such."""
    above = (_absolute(folder), *_absolute(folder).parents) if folder.is_dir() and not is_zarr(folder) else ()
    file = next((place / name for place in above for name in DATA_FILES if (place / name).is_file()), None)
    if file is None:
        return []
    try:
        pairing = declared.pair(file)
    except (ConfigError, DataError):  # then it is of no use as an input, either
        return []
    known = {_absolute(pairing.listing.path(image)) for image in pairing.possible_images}
    mine = {path for path in map(_absolute, images) if path.is_relative_to(above[0])}
    others = sorted(mine - known)
    if not others or not known & mine:
        return []
    taken = f"{len(others)} files that will be predicted are none" if len(others) > 1 else "1 file that will be is none"
    such = f"{taken} by it, such as {others[0].relative_to(above[0])}"
    return [f"note: {file} says which files are images, and {such}: name it as the input to predict its images alone"]


def _absolute(path: Path) -> Path:
    # links keep their names; only '..' and the like go
    return Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow links


def _without_suffix(place: Path) -> Path:
    return place.with_name(formats.split_name(place.name)[0])


def _job(source: Path, folder: Path, name: str, outputs: Outputs) -> Job:
    nature, others = _nature(source), channels.further(_absolute(source))
    if others:  # all of them are read whole
        nature = replace(nature, reading="whole")
    pages, reading, placement = nature.pages, nature.reading, nature.placement
    stem, suffix = formats.split_name(source.name)
    if is_zarr(source) or is_nifti(source.name):
        mask = folder / f"{name}{source.name[len(stem) :] if is_zarr(source) else suffix}"
        return Job(source, mask, pages=pages, channels=others, reading=reading, is_stack=True)
    if pages > 1:
        return Job(source, folder / f"{name}.tif", pages=pages, placement=placement, channels=others, is_stack=True)
    large, on_map = reading == "bands", placement is not None and bool(placement.tags)
    chosen = "tif" if large else outputs.mask_format or ("tif" if on_map else "png")
    return Job(
        source,
        folder / f"{name}{SUFFIXES[chosen]}",
        overlay=folder / f"{name}_overlay.png" if outputs.draw is not None else None,
        probabilities=folder / f"{name}_probabilities.npy" if outputs.probabilities else None,
        polygons=folder / f"{name}{SUFFIXES[outputs.polygons]}" if outputs.polygons in SUFFIXES and not large else None,
        placement=placement,
        channels=others,
        reading=reading,
    )


@dataclass(frozen=True)
class _Nature:
    """What a file is, as `Job` tells it."""

    pages: int = 1
    reading: Reading = "whole"
    placement: Placement | None = None


def _nature(source: Path) -> _Nature:
    try:
        info, placement = formats.read_info(source), placement_of(source)
        return _Nature(info.pages, _reading(source, info), placement)
    except DataError:  # predicting a file that cannot be read will say why
        return _Nature()


def _reading(source: Path, info: ImageInfo) -> Reading:
    if info.pages > 1 or is_nifti(source.name):
        return "whole"
    if is_large(info):
        return "bands"
    if is_small(info) or is_zarr(source):
        return "whole"
    try:
        return "windows" if allows_windows(source) else "whole"
    except DataError:  # damaged: whether all the same it can be read as a whole will show
        return "whole"


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    counts = Counter(target for job in jobs for target in job.targets)
    sources = {_identity(job.source): job.source for job in jobs}
    for job in jobs:
        for target in job.targets:
            if counts[target] > 1:
                others = ", ".join(str(other.source) for other in jobs if target in other.targets)
                raise DataError(
                    f"Results of several images would go to this file ({others}).",
                    where=target,
                    remedy="Rename one of them, or predict them into folders of their own.",
                )
            identity = _identity(target)
            if identity is not None and identity in sources:
                raise DataError(
                    f"This image would be replaced by the result of {job.source}.",
                    where=sources[identity],
                    remedy="Choose another folder with --out.",
                )


def _refuse_options(outputs: Outputs) -> None:
    if outputs.tolerance_px and outputs.polygons is None:
        raise ConfigError("Outlines are to be simplified, but none are written.", remedy="Add --polygons.")
    if outputs.memory_bytes < LEAST_BYTES:
        raise ConfigError(
            f"{outputs.memory_bytes / 1e6:.0f} MB of memory are not enough: the program alone takes more.",
            remedy=f"Allow {LEAST_BYTES / 1e9:.1f}GB or more with --memory; "
            "it bounds what images of more than 256 MB of pixels take.",
        )
    if outputs.tolerance_px:
        import_shapely()
    if outputs.mask_format == "cog":
        writing.import_rasterio()


def _identity(path: Path) -> tuple[int, int] | None:
    """What is equal for two names of one file, also by links or on disks that do not tell a from A."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
