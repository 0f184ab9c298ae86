"""From image files to mask files: the work that `inference.jobs` has planned."""

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from jaxtyping import Float32, Shaped, UInt8

from pixelwise import launcher
from pixelwise.classes import IGNORE, ClassTable
from pixelwise.data import channels, formats, nifti, omezarr, writing
from pixelwise.data.annotations import coco_image, write_coco, write_geojson, write_labelme
from pixelwise.data.cache import hash_of, to_npy
from pixelwise.data.nifti import is_nifti
from pixelwise.data.omezarr import is_zarr
from pixelwise.data.windows import open_image, open_mask, open_windows, thinned
from pixelwise.errors import DataError, PixelwiseError, WriteError
from pixelwise.files import cannot_write, make_folder, read_json, write_atomically, write_json
from pixelwise.inference.jobs import Job, Outputs, Plan
from pixelwise.inference.large import Kept, Subject, predict_parts
from pixelwise.inference.ledger import Ledger, Made, state_of
from pixelwise.inference.predictor import Model
from pixelwise.launcher import Share

OVERVIEW_PX = 2048
"""The longer edge of the overlay of a large image."""

STALE_SECONDS = 86400.0
"""So old a word of another launch, that a part of it is done, is one of a launch that never came to its end."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how many parts of how many are."""


@dataclass(frozen=True)
class Predicted:
    """What was done: by all processes if all is done, else by this one."""

    images: int = 0
    """Of the call, those of all processes."""
    passed_over: list[Path] = field(default_factory=list)
    """As `Plan.passed_over`."""
    without_extras: list[Path] = field(default_factory=list)
    """As `Plan.without_extras`."""
    written: list[Path] = field(default_factory=list)
    unchanged: list[Path] = field(default_factory=list)
    """Files that an earlier call has written with the same model from the same images."""
    edited: list[Path] = field(default_factory=list)
    """Files that were changed since an earlier call has written them; they and what belongs to them stay."""
    failed: list[PixelwiseError] = field(default_factory=list)
    """Images that could not be read or do not fit the model; each names its file."""
    is_complete: bool = True
    """All images of the call are done; else another process is still at work on its own."""


@dataclass(frozen=True)
class _Result:
    """What will be written for one image."""

    mask: UInt8[np.ndarray, "*pages H W"]
    image: Shaped[np.ndarray, "H W C"] | None = None
    """None where it was never read whole, or holds several."""
    probabilities: Float32[np.ndarray, "K H W"] | None = None


@dataclass(frozen=True)
class _Work:
    """What all images of a call have in common."""

    model: Model
    outputs: Outputs
    ledger: Ledger
    staging: Path
    """Where files lie until all of an image are there."""
    progress: Progress
    done: Predicted


def run(model: Model, plan: Plan, outputs: Outputs, progress: Progress | None = None) -> Predicted:
    """Predict and write what is not there yet; an image that cannot be read does not keep the others from being done.

    Of several processes, as torchrun or srun start them, each does a part of the images; the last one to come to its
    end knows what the others have done, and writes COCO's file of all.

    Raises:
        ConfigError: the environment numbers processes wrongly.
        DataError: a file would be replaced that no prediction has written, or cannot be written; that ends the work.
    """
    share = launcher.place().overall
    jobs = plan.jobs[share.rank :: share.processes]
    ledger = Ledger.of(make_folder(outputs.folder), share)
    _sweep(outputs.folder, share)
    _refuse_foreign([path for job in jobs for path in job.targets], ledger)
    if outputs.coco is not None:
        _refuse_foreign([outputs.coco], ledger)
    done = Predicted(len(plan.jobs), plan.passed_over, plan.without_extras(outputs))
    with model.keeping_memory(), _staging(outputs.folder, share) as folder:
        work = _Work(model, outputs, ledger, folder, progress or _nobody, done)
        for index, job in enumerate(jobs):
            with _counted(index, len(jobs)):
                _try(work, job)
            work.progress("predicting", index + 1, len(jobs))
        done = _with_others(outputs.folder, share, done)
        if outputs.coco is not None and done.is_complete:
            # the others have written their parts of the ledger in the meantime
            _do_coco(replace(work, ledger=Ledger.of(outputs.folder, share)), outputs.coco, plan.jobs)
    return done


@contextmanager
def _counted(number: int, total: int) -> Iterator[None]:
    """An interruption says how many images are done."""
    try:
        yield
    except KeyboardInterrupt as end:
        end.add_note(f"{number} of {total} images are done")
        raise


def _with_others(folder: Path, share: Share, done: Predicted) -> Predicted:
    """What was done, and if all processes have done their parts, what the others did; each says so in a file."""
    if share.processes == 1:
        return done
    markers = [_marker(folder, rank) for rank in range(share.processes)]
    write_json(markers[share.rank], _to_json(done))
    if not all(marker.exists() for marker in markers):
        return replace(done, is_complete=False)
    try:
        others = [read_json(marker) for rank, marker in enumerate(markers) if rank != share.rank]
        markers[0].unlink()  # of two that come to their ends together, one takes it
    except (DataError, FileNotFoundError):  # gone
        return replace(done, is_complete=False)
    for other in others:
        _take(done, other)
    done.failed.sort(key=lambda error: str(error.where))
    for marker in markers:
        marker.unlink(missing_ok=True)
    return done


def _to_json(done: Predicted) -> dict[str, Any]:
    """The part of what was done that each process knows alone."""
    return {
        "written": [str(path) for path in done.written],
        "unchanged": [str(path) for path in done.unchanged],
        "edited": [str(path) for path in done.edited],
        "failed": [(error.what, str(error.where), error.remedy) for error in done.failed],
    }


def _take(done: Predicted, other: dict[str, Any]) -> None:
    """Add what another process has said by `_to_json`."""
    done.written.extend(map(Path, other["written"]))
    done.unchanged.extend(map(Path, other["unchanged"]))
    done.edited.extend(map(Path, other["edited"]))
    done.failed.extend(DataError(what, where=where, remedy=remedy) for what, where, remedy in other["failed"])


def _launch(environment: Mapping[str, str] = os.environ) -> str:
    """What all processes that were started together have in common, and no others."""
    names = (
        *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT"),
        *("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
    )
    return hash_of([repr([environment.get(name) for name in names]).encode()])[:16]


def _marker(folder: Path, rank: int) -> Path:
    """Where a process of this launch says that its part is done, and what that was: the last one to end reads it."""
    return folder / f".pixelwise.{_launch()}.{rank}"


def _hidden(folder: Path, name: str, process: int) -> Path:
    """A folder in the one of results that is of no use once a process of this host is over."""
    return folder / f".pixelwise-{socket.gethostname()}-{name}-{process}"


def _sweep(folder: Path, share: Share) -> None:
    """Remove what processes that were killed have left, and what this one has said when it was started before."""
    if share.processes > 1:
        _marker(folder, share.rank).unlink(missing_ok=True)
    own = _marker(folder, 0).stem
    for marker in folder.glob(".pixelwise.*"):
        if marker.stem != own and _age_seconds(marker) > STALE_SECONDS:
            marker.unlink(missing_ok=True)
    for left in folder.glob(_hidden(folder, "*", 0).name[:-1] + "*"):
        number = left.name.rpartition("-")[2]
        if not (number.isdecimal() and psutil.pid_exists(int(number))):
            shutil.rmtree(left, ignore_errors=True)


def _age_seconds(path: Path) -> float:
    """Since a file was written; none if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _nobody(name: str, done: int, total: int) -> None:
    """Nobody wants to know how far the work is."""


def _refuse_foreign(targets: Sequence[Path], ledger: Ledger) -> None:
    """Masks drawn by hand, say, where somebody wants to have the predicted ones."""
    foreign = ledger.foreign(targets)
    if foreign:
        raise DataError(
            f"{len(foreign)} files, this one first, would be replaced though no prediction has written them.",
            where=foreign[0],
            remedy="Choose another folder with --out, or delete them.",
        )


@contextmanager
def _staging(folder: Path, share: Share) -> Iterator[Path]:
    """A folder inside the one of results."""
    staging = make_folder(_hidden(folder, str(share.rank), os.getpid()))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


# --- one image -------------------------------------------------------------------------------------------------------


def _try(work: _Work, job: Job) -> None:
    try:
        _do(work, job)
    except WriteError as error:
        place = Path(error.where) if error.where is not None else job.mask
        # the folder where files wait is no concern of the user's
        where = job.mask.parent / place.name if place.parent == work.staging else place
        raise WriteError(error.what, where=where, remedy=error.remedy) from None
    except PixelwiseError as error:
        if job.reading == "windows":
            Kept.beside(job.mask).remove()  # it is soon done again
        work.done.failed.append(type(error)(error.what, where=job.source, remedy=error.remedy))


def _do(work: _Work, job: Job) -> None:
    """Predict an image, unless it was predicted before or somebody has worked on its mask."""
    made = Made.of(job.source, work.model.identity, work.outputs.options)
    if job.channels:
        made = made.model_copy(update={"options": repr((made.options, [state_of(path) for path in job.channels]))})
    is_made = work.ledger.has(made, job.targets)
    edited = [] if is_made else work.ledger.edited(job.targets)
    if not is_made and not edited:
        _make(work, made, job)
        return
    if job.reading != "whole":
        Kept.beside(job.mask).remove()  # of a call that was killed between its last two steps
    work.done.unchanged.extend(job.targets if is_made else [])
    work.done.edited.extend(edited)
    if edited == [job.mask] and not job.is_stack:
        _follow(work, made, job)


def _make(work: _Work, made: Made, job: Job) -> None:
    """Predict an image; its files take their places when all are there."""
    staged = job.inside(work.staging)
    if job.reading == "whole":
        _write(work, job, staged, _predict(work.model, job))
        _put(work, made, staged.targets, job.targets)
        return
    kept = _parts(work, made, job)
    if job.probabilities is not None:
        staged = replace(staged, probabilities=kept.probabilities.path)  # it is what it will be
    if job.is_large:
        _write_bands(work, staged, kept)
    else:
        _write(work, job, staged, _Result(work.model.cleaned(kept.whole())))
    _put(work, made, staged.targets, job.targets)
    kept.remove()


def _follow(work: _Work, made: Made, job: Job) -> None:
    """Overlay and outlines of a mask that somebody has corrected; probabilities remain those of the model."""
    staged, classes = job.inside(work.staging), work.model.classes
    if job.is_large and staged.overlay is not None:
        _write_overview(work, staged.overlay, job.source, job.mask)
    elif not job.is_large:
        mask = _class_mask(job.mask, classes)
        _write_overlay(work, job, staged, _Result(mask))
        _write_outlines(work, job, staged, mask)
    pairs = [
        (now, then) for now, then in ((staged.overlay, job.overlay), (staged.polygons, job.polygons)) if now and then
    ]
    if pairs:
        _put(work, made, [now for now, _ in pairs], [then for _, then in pairs])


def _write_overlay(work: _Work, job: Job, staged: Job, result: _Result) -> None:
    """The mask over its image, which is read where it is not at hand."""
    if staged.overlay is None or work.outputs.draw is None:
        return
    image = result.image if result.image is not None else channels.read(job.source, job.channels)
    writing.write_picture(staged.overlay, work.outputs.draw(image, result.mask, work.model.classes))


def _write_outlines(work: _Work, job: Job, staged: Job, mask: UInt8[np.ndarray, "H W"]) -> None:
    classes, outputs = work.model.classes, work.outputs
    if staged.polygons is not None and outputs.polygons == "geojson":
        write_geojson(staged.polygons, mask, classes, job.placement, outputs.tolerance_px)
    elif staged.polygons is not None:
        write_labelme(staged.polygons, mask, classes, _relative(job.source, job.mask.parent), outputs.tolerance_px)


def _put(work: _Work, made: Made, staged: Sequence[Path], targets: Sequence[Path]) -> None:
    """Note what the files will be, and put them where they belong: whatever happens in between, they are known."""
    work.ledger.note(made, dict(zip(targets, staged, strict=True)))
    for source, target in zip(staged, targets, strict=True):
        try:
            make_folder(target.parent)
            if target.is_dir():
                shutil.rmtree(target)
            source.replace(target)
        except OSError as error:
            raise cannot_write(target, error) from None
        work.done.written.append(target)


def _parts(work: _Work, made: Made, job: Job) -> Kept:
    """The mask of an image that is predicted by windows."""
    return predict_parts(
        work.model,
        Subject(open_windows(job.source), f"{made.source} {made.source_state}", job.nodata),
        make_folder(job.mask.parent) / job.mask.name,
        memory_bytes=work.outputs.memory_bytes if job.is_large else None,
        probabilities=job.probabilities is not None,
        progress=partial(work.progress, f"rows of {job.source.name}") if job.is_large else None,
    )


def _write_bands(work: _Work, staged: Job, kept: Kept) -> None:
    classes, bands = work.model.classes, partial(kept.finished, work.model)
    if is_zarr(staged.source):
        omezarr.write_mask(staged.mask, [bands()], kept.size, classes, staged.source)
        return
    writing.write_mask_bands(staged.mask, bands(), kept.size, classes, staged.placement)
    if work.outputs.mask_format == "cog":
        writing.to_cog(staged.mask)
    if staged.overlay is not None:
        _write_overview(work, staged.overlay, staged.source, staged.mask)


def _write_overview(work: _Work, path: Path, source: Path, mask: Path) -> None:
    """A smaller overlay, of a large image."""
    image, classes = open_image(source), work.model.classes
    step = -(-max(image.shape[:2]) // OVERVIEW_PX)
    corrected = open_mask(mask)
    if corrected.shape[:2] != image.shape[:2]:
        raise DataError(
            "This mask was changed and no longer has the size of its image.",
            where=mask,
            remedy="Delete it to have it predicted anew.",
        )
    labels = _as_classes(formats.plain_mask(thinned(corrected, step)), mask, classes)
    if work.outputs.draw is not None:
        writing.write_picture(path, work.outputs.draw(thinned(image, step), labels, classes))


def _predict(model: Model, job: Job) -> _Result:
    if job.is_stack:
        pages = _pages(model, job)
        images = (channels.read(job.source, job.channels, page) for page in pages)
        masks = [model.predict(image, nodata=job.nodata).mask for image in images]
        return _Result(np.stack(masks))
    image = channels.read(job.source, job.channels)
    prediction = model.predict(image, probabilities=job.probabilities is not None, nodata=job.nodata)
    return _Result(prediction.mask, image, prediction.probabilities)


def _pages(model: Model, job: Job) -> Sequence[int | None]:
    """Numbers of the pages, of a volume across the axis that the model was trained on."""
    if is_nifti(job.source.name):
        with formats.reading(job.source):
            return nifti.pages(job.source, model.description.preprocessing.slices)
    return range(job.pages) if job.pages > 1 else [None]


def _write(work: _Work, job: Job, staged: Job, result: _Result) -> None:
    classes, outputs = work.model.classes, work.outputs
    if is_nifti(job.source.name):
        nifti.write_masks(staged.mask, result.mask, job.source, work.model.description.preprocessing.slices)
        return
    if is_zarr(job.source):
        height, width = result.mask.shape[1:]
        omezarr.write_mask(staged.mask, [[page] for page in result.mask], (height, width), classes, job.source)
        return
    mask = result.mask[0] if result.mask.ndim == 3 and job.pages == 1 else result.mask
    writing.write_mask(staged.mask, mask, classes, job.placement)
    if outputs.mask_format == "cog" and job.pages == 1:
        writing.to_cog(staged.mask)
    _write_overlay(work, job, staged, result)
    if staged.probabilities is not None and result.probabilities is not None:
        write_atomically(staged.probabilities, to_npy(result.probabilities))
    if not job.is_stack:
        _write_outlines(work, job, staged, mask)


def _relative(path: Path, folder: Path) -> str:
    """A path as seen from a folder; as it is where they lie on different drives."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.resolve().as_posix()


# --- COCO ------------------------------------------------------------------------------------------------------------


def _do_coco(work: _Work, path: Path, jobs: Sequence[Job]) -> None:
    """Outlines of all masks that are there, also of those that somebody has corrected."""
    if work.ledger.edited([path]):
        work.done.edited.append(path)
        return
    there = [job for job in jobs if job.has_outlines and job.mask.exists()]
    images = (
        coco_image(_class_mask(job.mask, work.model.classes), work.model.classes, name, work.outputs.tolerance_px)
        for job in there
        for name in [(job.mask.parent.relative_to(work.outputs.folder) / job.source.name).as_posix()]
    )
    staged = work.staging / path.name
    write_coco(staged, images, work.model.classes)
    _put(work, Made.of(work.outputs.folder, work.model.identity, work.outputs.options), [staged], [path])


def _class_mask(path: Path, classes: ClassTable) -> UInt8[np.ndarray, "H W"]:
    return _as_classes(formats.read_mask(path), path, classes)


def _as_classes(mask: Shaped[np.ndarray, "..."], path: Path, classes: ClassTable) -> UInt8[np.ndarray, "H W"]:
    """A mask that somebody may have changed."""
    if mask.ndim != 2 or not set(np.unique(mask).tolist()) <= {*range(len(classes)), IGNORE}:
        raise DataError(
            "This mask was changed and no longer holds the indices of the classes.",
            where=path,
            remedy=f"Save it as an index mask of 0 to {len(classes) - 1}, or delete it to have it predicted anew.",
        )
    return mask.astype(np.uint8)
