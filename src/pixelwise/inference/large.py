"""Masks of images that are larger than memory.

An image is predicted in blocks of columns, and each of them in bands of rows. What is finished is kept on disk beside
the mask to come, so that an interrupted prediction goes on where it stopped; when all is there, the mask is written in
one go. The result is that of the whole image, whatever the memory and however often the work was interrupted.
"""

import itertools
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from pydantic import BaseModel, NonNegativeInt, ValidationError, model_validator

from pixelwise.classes import IGNORE
from pixelwise.data.cache import hash_of
from pixelwise.data.formats import split_name
from pixelwise.data.npy import Planes
from pixelwise.data.preprocess import Moments, Prepared
from pixelwise.data.windows import BAND_PIXELS, Source, TiffSource, is_empty
from pixelwise.data.writing import TILE_PX
from pixelwise.errors import ConfigError, DataError, WriteError
from pixelwise.files import read_json, write_json
from pixelwise.inference.postprocess import cleaned_bands
from pixelwise.inference.predictor import BAND_BYTES, Model
from pixelwise.inference.tiles import Band, Region, Tiling, blocks, column_bytes, narrowest_block_bytes
from pixelwise.memory import give_back_memory, peak_during

WIDER = 1.1
"""Blocks of an earlier call are taken up if they are no more than so many times as wide as they would be now."""

RESERVE_BYTES = 200_000_000
"""What reading and writing take beside the network and decoded parts of the file."""


class State(BaseModel):
    """How far a mask is."""

    key: str
    """Of what is being done; parts of another model or image are of no use."""
    lefts: list[NonNegativeInt]
    """First column of each block."""
    block: NonNegativeInt = 0
    """Where the work is."""
    rows: NonNegativeInt = 0
    """Finished ones of that block; of the blocks before it, all are."""

    @model_validator(mode="after")
    def _is_possible(self) -> "State":
        if self.lefts[:1] != [0] or sorted(set(self.lefts)) != self.lefts or self.block >= len(self.lefts):
            raise ValueError("the blocks are none")
        return self

    def regions(self, size: tuple[int, int]) -> list[Region]:
        """The blocks."""
        return [Region(range(size[0]), range(*edges)) for edges in itertools.pairwise([*self.lefts, size[1]])]

    def left_over(self, size: tuple[int, int]) -> list[Region]:
        """What is still to be done."""
        begun, *others = self.regions(size)[self.block :]
        rest = [Region(range(self.rows, size[0]), begun.columns)] if self.rows < size[0] else []
        return [*rest, *others]


@dataclass(frozen=True)
class Kept:
    """Finished parts of a mask, on disk."""

    mask: Planes
    """Class index or IGNORE."""
    journal: Path
    probabilities: Planes
    """Of every class; no planes where they are not wanted."""

    @classmethod
    def beside(cls, target: Path, size: tuple[int, int] = (0, 0), planes: int = 0) -> "Kept":
        """Where the parts of a mask are kept while it is being made, and those of so many planes of probabilities.

        They have the same place whatever format the mask will have.
        """
        name = f".pixelwise-{hash_of([split_name(target.name)[0].encode()])}"
        mask, other = (target.with_name(f"{name}.{suffix}") for suffix in ("pixels", "probabilities"))
        return cls(
            Planes(mask, (1, *size), np.dtype(np.uint8)),
            target.with_name(f"{name}.json"),
            Planes(other, (planes, *size), np.dtype(np.float32)),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.mask.shape[1:]

    @property
    def wanted(self) -> list[Planes]:
        """What is kept: the mask, and probabilities or none."""
        return [part for part in (self.mask, self.probabilities) if part.shape[0]]

    def resumed(self, fresh: State) -> State:
        """The state of an earlier call that did the same in blocks hardly wider; else `fresh`, with empty files.

        Raises:
            WriteError: the files cannot be made, or the disk has no room for them.
        """
        try:
            state = State.model_validate(read_json(self.journal))
            is_whole = all(part.is_there() for part in self.wanted)
        except (OSError, DataError, ValidationError):  # nothing there, or nothing of use
            is_whole = False
        if is_whole and state.key == fresh.key and self._widest(state) <= WIDER * self._widest(fresh):
            return state
        self._refuse_full_disk()
        self.remove()  # the journal first, or it would speak for an empty file
        for part in self.wanted:
            part.begin()
        self.note(fresh)
        return fresh

    def _widest(self, state: State) -> int:
        return max(len(region.columns) for region in state.regions(self.size))

    def _refuse_full_disk(self) -> None:
        folder = self.journal.parent
        own = [path for path in (self.mask.path, self.probabilities.path) if path.exists()]
        # parts of an earlier call will go; they hold as much as was written into them
        free = shutil.disk_usage(folder).free + sum(_bytes_on_disk(path) for path in own)
        needed = sum(part.size for part in self.wanted)
        if free < needed:
            raise WriteError(
                f"The parts of this result take {needed / 1e9:.1f} GB of the disk, which has {free / 1e9:.1f} GB left.",
                where=folder,
                remedy="Make room, or choose a folder on another disk with --out.",
            )

    def take(self, part: "Rows", state: State) -> None:
        """Put finished rows where they belong, then write down that the work is as far as that.

        Raises:
            WriteError: the disk is full.
        """
        self.mask.write(part.mask[None], part.top, part.left)
        if part.probabilities is not None:
            self.probabilities.write(part.probabilities, part.top, part.left)
        self.note(state)

    def note(self, state: State) -> None:
        """Write down how far the work is."""
        write_json(self.journal, state.model_dump())

    def whole(self) -> UInt8[np.ndarray, "H W"]:
        """The mask as the network gave it."""
        return self.mask.rows(0, range(self.size[0]))

    def bands(self) -> Iterator[UInt8[np.ndarray, "h W"]]:
        """The same from top to bottom."""
        height = self.size[0]
        for top in range(0, height, TILE_PX):
            yield self.mask.rows(0, range(top, min(top + TILE_PX, height)))

    def finished(self, model: Model) -> Iterator[UInt8[np.ndarray, "h W"]]:
        """The same without objects that are too small, where the model says so."""
        smallest = model.description.postprocessing.smallest_px
        return cleaned_bands(self.bands, smallest) if smallest is not None else self.bands()

    def remove(self) -> None:
        """The mask is written; its parts are no longer needed."""
        self.journal.unlink(missing_ok=True)
        self.mask.path.unlink(missing_ok=True)
        self.probabilities.path.unlink(missing_ok=True)


def _bytes_on_disk(path: Path) -> int:
    status = path.stat()
    return getattr(status, "st_blocks", -(-status.st_size // 512)) * 512  # Windows does not tell


@dataclass(frozen=True)
class Rows:
    """Finished ones of a block."""

    mask: UInt8[np.ndarray, "h w"]
    probabilities: Float32[np.ndarray, "K h w"] | None
    top: int
    left: int

    @property
    def bottom(self) -> int:
        """The row after the last."""
        return self.top + len(self.mask)


@dataclass(frozen=True)
class Subject:
    """What is predicted."""

    image: Source
    """Of any size."""
    identity: str
    """Of its content, so that parts of another image are not taken for those of this one."""
    nodata: float | None = None
    """The value of pixels that hold nothing."""


def predict_parts(
    model: Model,
    subject: Subject,
    target: Path,
    *,
    memory_bytes: int | None,
    probabilities: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Kept:
    """Predict an image by windows; goes on where an earlier call was interrupted.

    Args:
        model: predicts; one that sees images at one size takes the memory of the whole image, whatever is allowed.
        subject: the image.
        target: the mask to come, beside which its parts are kept.
        memory_bytes: what the process may take; none for an image that would fit as a whole.
        probabilities: keep those of every class too.
        progress: told how many rows of how many are done; those of each block count.

    Returns:
        The whole mask, on disk until it is removed.

    Raises:
        ConfigError: the memory does not suffice for the model and one tile.
        DataError: the image is damaged or does not fit the model, or the disk is full.
    """
    size = (subject.image.shape[0], subject.image.shape[1])
    planes = len(model.classes) if probabilities else 0
    cut, bands = _planned(model, subject, memory_bytes, planes)
    told = repr((size, subject.nodata, probabilities))
    key = hash_of([model.identity.encode(), subject.identity.encode(), told.encode()])
    kept = Kept.beside(target, size, planes)
    state = kept.resumed(State(key=key, lefts=[region.columns.start for region in cut]))
    # while a band is put on disk, the next one is computed; no more than one waits
    with ThreadPoolExecutor(1) as disk:
        before: Future[None] | None = None
        for part in _whole_rows(bands(state.left_over(size)), subject, state.regions(size), planes):
            state = state.model_copy(update={"block": state.lefts.index(part.left), "rows": part.bottom})
            if before is not None:
                before.result()
            before = disk.submit(kept.take, part, state)
            give_back_memory()
            if progress is not None:
                progress(state.block * size[0] + state.rows, len(state.lefts) * size[0])
        if before is not None:
            before.result()
    return kept


def _planned(
    model: Model, subject: Subject, memory_bytes: int | None, planes: int
) -> tuple[list[Region], Callable[[Sequence[Region]], Iterator[Band]]]:
    """The blocks of an image, and what predicts regions; so many planes of probabilities will be kept."""
    size = (subject.image.shape[0], subject.image.shape[1])
    if model.description.preprocessing.resize is not None:
        # the small result is made at once; only what is enlarged of it leaves in bands
        def enlarged(regions: Sequence[Region]) -> Iterator[Band]:
            first = regions[0].rows.start if regions else size[0]
            return (band for band in model.bands(subject.image, subject.nodata) if band.top >= first)

        return [Region.whole(size)], enlarged
    tiling = model.tiling(size)
    if memory_bytes is None:
        _keep_decoded(subject.image, tiling, BAND_BYTES)
    ready = model.prepare(subject.image, subject.nodata)
    by = model.moments(ready)
    # rows are kept twice: some are put on disk while the next are computed
    column = column_bytes(tiling, len(model.classes), kept_bytes=2 * (1 + 4 * planes))
    room = BAND_BYTES if memory_bytes is None else _room(model, ready, by, memory_bytes, column)
    return blocks(size, tiling, room // column), partial(model.regions, ready, by)


def _whole_rows(bands: Iterator[Band], subject: Subject, blocks: Sequence[Region], planes: int) -> Iterator[Rows]:
    """Rows of a block from their parts, with so many planes of probabilities."""
    widths = {block.columns.start: len(block.columns) for block in blocks}
    for band in bands:
        if band.left in widths:  # the first part
            size = (band.probabilities.shape[1], widths[band.left])
            values = np.empty((planes, *size), np.float32) if planes else None
            rows = Rows(np.empty(size, np.uint8), values, band.top, band.left)
        columns = slice(band.left - rows.left, band.place[1].stop - rows.left)
        rows.mask[:, columns] = _labels(band, subject)
        if rows.probabilities is not None:
            rows.probabilities[:, :, columns] = band.probabilities.float().cpu().numpy()
        if columns.stop == rows.mask.shape[1]:
            yield rows


def _labels(band: Band, subject: Subject) -> UInt8[np.ndarray, "h w"]:
    mask = band.labels()
    if subject.nodata is None:
        return mask
    rows, columns = band.place
    few = max(1, BAND_PIXELS // mask.shape[1])
    for top in range(0, len(mask), few):
        bottom = min(top + few, len(mask))
        pixels = subject.image[rows.start + top : rows.start + bottom, columns]
        mask[top:bottom][is_empty(pixels, subject.nodata)] = IGNORE
    return mask


def _keep_decoded(image: Source, tiling: Tiling, most_bytes: int) -> int:
    """Have those strips or tiles of a file remembered that a row of tiles needs; gives the bytes that they take."""
    if not isinstance(image, TiffSource):
        return 0
    kept = min(image.page.bytes_of_rows(tiling.tile_size[0] + 2 * tiling.border_px), most_bytes)
    image.page.remember(kept)
    return kept


def _room(model: Model, ready: Prepared, by: Moments, memory_bytes: int, column: int) -> int:
    """Bytes that a block may take, once the network has shown on one tile what it takes itself.

    Half of what is left at most goes to strips or tiles of the file that are kept decoded.

    Raises:
        ConfigError: they do not suffice for the narrowest block, whose columns take `column` bytes each.
    """
    tiling = model.tiling((ready.shape[0], ready.shape[1]))
    corner = Region(range(1), range(1))
    give_back_memory()  # of images before this one
    used = peak_during(lambda: next(iter(model.regions(ready, by, [corner])))) + RESERVE_BYTES
    least = narrowest_block_bytes(tiling, len(model.classes), column)
    room = memory_bytes - used
    room -= _keep_decoded(ready.source, tiling, max(0, room - least) // 2)
    if room < least:
        needed = memory_bytes - room + least
        raise ConfigError(
            f"{memory_bytes / 1e9:.1f} GB of memory are not enough: the program with this model takes "
            f"{used / 1e9:.1f} GB, and the narrowest part of a result {least / 1e9:.1f} GB.",
            remedy=f"Allow more, as --memory {math.ceil(needed / 1e8) / 10:.1f}GB, or train with smaller tiles.",
        )
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
        return min(room, free // 2)
    return room
