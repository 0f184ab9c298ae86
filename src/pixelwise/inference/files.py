"""From image files to mask files: what the inputs stand for, where each mask goes, and the work itself.

Nothing is predicted before all names are known, so that no mask can replace an image or another mask.
"""

import glob
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from pixelwise.classes import IGNORE, ClassTable
from pixelwise.data import formats, omezarr, writing
from pixelwise.data.annotations import coco_image, import_shapely, write_coco, write_geojson, write_labelme
from pixelwise.data.cache import to_npy
from pixelwise.data.listing import rasters_below
from pixelwise.data.loader import Share
from pixelwise.data.naming import masks_beside_images, without_channel
from pixelwise.data.nifti import is_nifti, write_masks
from pixelwise.data.omezarr import is_zarr
from pixelwise.data.tiff import Placement
from pixelwise.data.windows import is_empty, is_large, open_image, placement_of
from pixelwise.errors import ConfigError, DataError, PixelwiseError, WriteError
from pixelwise.files import make_folder, write_atomically
from pixelwise.inference.large import Subject, write_mask_of
from pixelwise.inference.ledger import Ledger, share_of_this_process
from pixelwise.inference.predictor import Model

Draw = Callable[
    [Shaped[np.ndarray, "H W C"], UInt8[np.ndarray, "H W"], ClassTable],
    UInt8[np.ndarray, "H W 3"],
]
"""A picture of an image with its mask over it."""


Polygons = Literal["geojson", "labelme", "coco"]

SUFFIXES: dict[Polygons | None, str] = {"geojson": ".geojson", "labelme": ".json"}
"""Of files of outlines that lie beside each mask."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how many parts of how many are."""


@dataclass(frozen=True)
class Outputs:
    """What is written for every image."""

    folder: Path
    suffix: str | None = None
    """Of masks: `.png` or `.tif`; none for `.png`, and `.tif` where an image says where on earth it lies.
    Of stacks, and of images that are predicted by windows, it is always `.tif`."""
    draw: Draw | None = None
    """Also write NAME_overlay.png, drawn by this."""
    probabilities: bool = False
    """Also write NAME_probabilities.npy, float32 K H W."""
    memory_bytes: int = 2_000_000_000
    """What the process may take while it predicts by windows."""
    polygons: Polygons | None = None
    """Also write the outlines of objects: NAME.geojson or NAME.json (labelme) beside each mask, or one COCO file."""
    cog: bool = False
    """Masks are Cloud Optimized GeoTIFF; their suffix is `.tif`."""
    tolerance_px: float = 0.0
    """How far a simplified outline may be from the true one."""

    @property
    def coco(self) -> Path | None:
        """COCO's file of all images, if it is wanted."""
        return self.folder / "annotations.json" if self.polygons == "coco" else None


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
    is_large: bool = False
    """It is predicted by windows."""

    @property
    def targets(self) -> list[Path]:
        """All files that will be written."""
        return [path for path in (self.mask, self.overlay, self.probabilities, self.polygons) if path is not None]


@dataclass(frozen=True)
class Plan:
    """What will be done."""

    jobs: list[Job]
    passed_over: list[Path]
    """Files of the folders that are masks of other images by their name."""


@dataclass(frozen=True)
class Predicted:
    """What was done."""

    passed_over: list[Path] = field(default_factory=list)
    """As `Plan.passed_over`."""
    written: list[Path] = field(default_factory=list)
    unchanged: list[Path] = field(default_factory=list)
    """Files that an earlier call has written with the same model from the same images."""
    edited: list[Path] = field(default_factory=list)
    """Files that were changed since an earlier call has written them; they and what belongs to them stay."""
    failed: list[PixelwiseError] = field(default_factory=list)
    """Images that could not be read or do not fit the model; each names its file."""


@dataclass(frozen=True)
class _Result:
    """What will be written for one image."""

    mask: UInt8[np.ndarray, "*pages H W"]
    picture: UInt8[np.ndarray, "H W 3"] | None = None
    probabilities: Float32[np.ndarray, "K H W"] | None = None


def plan(inputs: Sequence[Path | str], outputs: Outputs) -> Plan:
    """Every image with the files that will come of it; nothing is written yet.

    Of a folder that holds images with their masks, the images are taken.

    Folders below the common folder of all inputs are kept below `outputs.folder`. The common folder of one folder is
    itself, that of a file its own, that of a pattern the part before the first wildcard. Images that differ in their
    suffix only keep it as part of their mask's name. Images below `outputs.folder` are results of an earlier
    prediction, and are passed over where a folder around it is searched.

    Args:
        inputs: files, folders and glob patterns.
        outputs: what to write, and where.

    Raises:
        DataError: an input does not exist, nothing was found, or a file to be written is an input or another result.
    """
    places, passed_over = _places(inputs, outputs.folder) if inputs else ({}, [])
    if not places:
        raise DataError("No images were found.", where=", ".join(map(str, inputs)))
    stems = Counter(_without_suffix(place) for place in places.values())
    jobs = []
    for source, place in places.items():
        stem = _without_suffix(place)
        name = place.name if stems[stem] > 1 else without_channel(stem.name, _absolute(source).parent.parts)
        jobs.append(_job(source, outputs.folder / place.parent, name, outputs))
    _refuse_collisions(jobs)
    return Plan(jobs, passed_over)


def run(model: Model, plan: Plan, outputs: Outputs, progress: Progress | None = None) -> Predicted:
    """Predict and write what is not there yet; an image that cannot be read does not keep the others from being done.

    Of several processes, as torchrun or srun start them, each does a part of the images.

    Raises:
        DataError: a file would be replaced that no prediction has written, or cannot be written; that ends the work.
    """
    make_folder(outputs.folder)
    share = share_of_this_process()
    ledger = Ledger.of(outputs.folder, share)
    _refuse_options(outputs, share)
    targets = [path for job in plan.jobs for path in job.targets]
    _refuse_foreign(targets if outputs.coco is None else [*targets, outputs.coco], ledger)
    jobs = plan.jobs[share.rank :: share.processes]
    done = Predicted(plan.passed_over)
    for index, job in enumerate(jobs):
        try:
            _do(model, job, outputs, ledger, done, progress or _nobody)
        except WriteError:
            raise
        except PixelwiseError as error:
            done.failed.append(type(error)(error.what, where=job.source, remedy=error.remedy))
        if progress is not None:
            progress("predicting", index + 1, len(jobs))
    if outputs.coco is not None:
        _write_coco(outputs.coco, model, jobs, outputs, ledger)
        done.written.append(outputs.coco)
    return done


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


def _expand(text: str) -> _Found:
    path = Path(text)
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
    images, beside = ([folder / file.posix for file in files if (file in masks) is side] for side in (False, True))
    return images, beside


def _absolute(path: Path) -> Path:
    # links keep their names; only '..' and the like go
    return Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow links


def _without_suffix(place: Path) -> Path:
    return place.with_name(formats.split_name(place.name)[0])


def _job(source: Path, folder: Path, name: str, outputs: Outputs) -> Job:
    pages, is_large, placement = _nature(source)
    if is_zarr(source):
        return Job(source, folder / f"{name}.ome.zarr", pages=pages, is_large=is_large)
    if is_nifti(source.name):
        return Job(source, folder / f"{name}{formats.split_name(source.name)[1]}", pages=pages)
    if pages > 1 or is_large:
        return Job(source, folder / f"{name}.tif", pages=pages, placement=placement, is_large=is_large)
    suffix = outputs.suffix or (".tif" if placement is not None and placement.tags else ".png")
    return Job(
        source,
        folder / f"{name}{suffix}",
        overlay=folder / f"{name}_overlay.png" if outputs.draw is not None else None,
        probabilities=folder / f"{name}_probabilities.npy" if outputs.probabilities else None,
        polygons=folder / f"{name}{SUFFIXES[outputs.polygons]}" if outputs.polygons in SUFFIXES else None,
        placement=placement,
    )


def _nature(source: Path) -> tuple[int, bool, Placement | None]:
    """Pages of a file, whether it is predicted by windows, and where its pixels lie."""
    try:
        pages = formats.page_count(source) or 1
        return pages, pages == 1 and is_large(source), placement_of(source)
    except DataError:  # predicting a file that cannot be read will say why
        return 1, False, None


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


def _refuse_options(outputs: Outputs, share: Share) -> None:
    if outputs.coco is not None and share.processes > 1:
        raise ConfigError("COCO's one file of all images is written by one process; this is one of several.")
    if outputs.tolerance_px and outputs.polygons is None:
        raise ConfigError("Outlines are to be simplified, but none are written.", remedy="Add --polygons.")
    if outputs.tolerance_px:
        import_shapely()
    if outputs.cog:
        writing.import_rasterio()


def _refuse_foreign(targets: Sequence[Path], ledger: Ledger) -> None:
    """Masks drawn by hand, say, where somebody wants to have the predicted ones."""
    foreign = ledger.foreign(targets)
    if foreign:
        raise DataError(
            f"{len(foreign)} files, this one first, would be replaced though no prediction has written them.",
            where=foreign[0],
            remedy="Choose another folder with --out, or delete them.",
        )


def _identity(path: Path) -> tuple[int, int] | None:
    """What is equal for two names of one file, also by links or on disks that do not tell a from A."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


# --- work ------------------------------------------------------------------------------------------------------------


def _nobody(name: str, done: int, total: int) -> None:
    """Nobody wants to know how far the work is."""


def _do(model: Model, job: Job, outputs: Outputs, ledger: Ledger, done: Predicted, progress: Progress) -> None:
    """Predict an image, unless it was predicted before."""
    if ledger.has(job.source, model.identity, job.targets):
        done.unchanged.extend(job.targets)
    elif edited := ledger.edited(job.targets):
        done.edited.extend(edited)
    else:
        ledger.begin(job.source, model.identity, job.targets)
        done.written.extend(_carry_out(model, job, outputs, progress))
        ledger.end(job.source, model.identity, job.targets)


def _carry_out(model: Model, job: Job, outputs: Outputs, progress: Progress) -> list[Path]:
    """Predict an image and write what comes of it."""
    make_folder(job.mask.parent)
    # a model that sees every image at one size needs the whole of it
    if job.is_large and model.description.preprocessing.resize is None:
        return _by_windows(model, job, outputs, progress)
    return _write(job, _predict(model, job, outputs), model.classes, outputs)


def _by_windows(model: Model, job: Job, outputs: Outputs, progress: Progress) -> list[Path]:
    if outputs.draw is not None or outputs.probabilities or outputs.polygons:
        raise DataError(
            "The image is so large that it is predicted by windows; of those neither overlay nor probabilities nor "
            "outlines are written.",
            remedy="Predict it without them.",
        )
    image = open_image(job.source)
    state = job.source.stat()
    identity = f"{job.source.resolve()} {state.st_size} {state.st_mtime_ns}"
    write_mask_of(
        model,
        Subject(image, identity, job.placement),
        job.mask,
        memory_bytes=outputs.memory_bytes,
        write=partial(_write_bands, job, outputs, model.classes, (image.shape[0], image.shape[1])),
        progress=partial(progress, f"rows of {job.source.name}"),
    )
    return job.targets


def _write_bands(
    job: Job, outputs: Outputs, classes: ClassTable, size: tuple[int, int], bands: Iterator[UInt8[np.ndarray, "h W"]]
) -> None:
    if is_zarr(job.source):
        omezarr.write_mask(job.mask, [bands], size, classes, job.source)
        return
    writing.write_mask_bands(job.mask, bands, size, classes, job.placement)
    if outputs.cog:
        writing.to_cog(job.mask)


def _predict(model: Model, job: Job, outputs: Outputs) -> _Result:
    if job.pages > 1 or is_nifti(job.source.name) or is_zarr(job.source):
        masks = [model.predict(formats.read_image(job.source, page)).mask for page in range(job.pages)]
        return _Result(np.stack(masks))
    image = formats.read_image(job.source)
    prediction = model.predict(image, probabilities=outputs.probabilities)
    if job.placement is not None and job.placement.nodata is not None:
        prediction.mask[is_empty(image, job.placement.nodata)] = IGNORE
    picture = outputs.draw(image, prediction.mask, model.classes) if outputs.draw is not None else None
    return _Result(prediction.mask, picture, prediction.probabilities)


def _write(job: Job, result: _Result, classes: ClassTable, outputs: Outputs) -> list[Path]:
    if is_nifti(job.source.name):
        write_masks(job.mask, result.mask, job.source)
        return job.targets
    if is_zarr(job.source):
        omezarr.write_mask(job.mask, [[page] for page in result.mask], result.mask.shape[1:], classes, job.source)
        return job.targets
    writing.write_mask(job.mask, result.mask, classes, job.placement)
    if outputs.cog and job.pages == 1:
        writing.to_cog(job.mask)
    if job.overlay is not None and result.picture is not None:
        writing.write_picture(job.overlay, result.picture)
    if job.probabilities is not None and result.probabilities is not None:
        write_atomically(job.probabilities, to_npy(result.probabilities))
    if job.polygons is not None and outputs.polygons == "geojson":
        write_geojson(job.polygons, result.mask, classes, job.placement, outputs.tolerance_px)
    elif job.polygons is not None:
        write_labelme(job.polygons, result.mask, classes, job.source, outputs.tolerance_px)
    return job.targets


def _write_coco(path: Path, model: Model, jobs: Sequence[Job], outputs: Outputs, ledger: Ledger) -> None:
    """Outlines of all masks that are there, also of those that an earlier call has written."""
    there = [job for job in jobs if job.pages == 1 and job.mask.exists()]
    names = [(job.mask.parent.relative_to(outputs.folder) / job.source.name).as_posix() for job in there]
    images = (
        coco_image(formats.read_mask(job.mask).astype(np.uint8), model.classes, name, outputs.tolerance_px)
        for job, name in zip(there, names, strict=True)
    )
    ledger.begin(outputs.folder, model.identity, [path])
    write_coco(path, images, model.classes)
    ledger.end(outputs.folder, model.identity, [path])
