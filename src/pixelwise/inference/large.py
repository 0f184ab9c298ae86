"""Masks of images that are larger than memory.

An image is predicted in blocks of columns, and each of them in bands of rows. What is finished is kept on disk beside
the mask to come, so that an interrupted prediction goes on where it stopped; when all is there, the mask is written in
one go. The result is that of the whole image, whatever the memory and however often the work was interrupted.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import BaseModel, NonNegativeInt, ValidationError, model_validator

from pixelwise.classes import IGNORE
from pixelwise.data.cache import hash_of
from pixelwise.data.preprocess import Moments, Prepared
from pixelwise.data.windows import BAND_PIXELS, Source, TiffSource, is_empty
from pixelwise.data.writing import TILE_PX
from pixelwise.errors import ConfigError, DataError
from pixelwise.files import cannot_write, read_json, write_json
from pixelwise.inference.predictor import Model
from pixelwise.inference.tiles import Band, Region, blocks, narrowest_block_bytes
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

    pixels: Path
    """Class index or IGNORE, row after row."""
    journal: Path
    size: tuple[int, int]

    @classmethod
    def beside(cls, target: Path, size: tuple[int, int]) -> "Kept":
        """Where the parts of a mask are kept while it is being made."""
        name = f".pixelwise-{hash_of([target.name.encode()])}"
        return cls(target.with_name(f"{name}.pixels"), target.with_name(f"{name}.json"), size)

    def resumed(self, fresh: State) -> State:
        """The state of an earlier call that did the same in blocks hardly wider; else `fresh`, with an empty file.

        Raises:
            WriteError: the file cannot be made.
        """
        try:
            state = State.model_validate(read_json(self.journal))
            is_whole = self.pixels.stat().st_size == self.size[0] * self.size[1]
        except (OSError, DataError, ValidationError):  # nothing there, or nothing of use
            is_whole = False
        if is_whole and state.key == fresh.key and self._widest(state) <= WIDER * self._widest(fresh):
            return state
        try:
            self.journal.unlink(missing_ok=True)  # first, or it would speak for an empty file
            with self.pixels.open("wb") as file:
                file.truncate(self.size[0] * self.size[1])
        except OSError as error:
            raise cannot_write(self.pixels, error) from None
        self.note(fresh)
        return fresh

    def _widest(self, state: State) -> int:
        return max(len(region.columns) for region in state.regions(self.size))

    def write(self, mask: UInt8[np.ndarray, "h w"], top: int, left: int) -> None:
        """Put finished rows where they belong."""
        try:
            with self.pixels.open("r+b") as file:
                for number, row in enumerate(mask):
                    file.seek((top + number) * self.size[1] + left)
                    file.write(row.tobytes())
                file.flush()
                # what the journal says is done has to be there after a power failure too
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.pixels, error) from None

    def note(self, state: State) -> None:
        """Write down how far the work is."""
        write_json(self.journal, state.model_dump())

    def bands(self) -> Iterator[UInt8[np.ndarray, "h W"]]:
        """The whole mask from top to bottom."""
        height, width = self.size
        with self.pixels.open("rb") as file:
            for top in range(0, height, TILE_PX):
                rows = min(TILE_PX, height - top)
                yield np.frombuffer(file.read(rows * width), np.uint8).reshape(rows, width)

    def remove(self) -> None:
        """The mask is written; its parts are no longer needed."""
        self.journal.unlink(missing_ok=True)
        self.pixels.unlink(missing_ok=True)


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
    memory_bytes: int,
    progress: Callable[[int, int], None] | None = None,
) -> Kept:
    """Predict an image by windows; goes on where an earlier call was interrupted.

    Args:
        model: one that does not resize.
        subject: the image.
        target: the mask to come, beside which its parts are kept.
        memory_bytes: what the process may take.
        progress: told how many rows of how many are done; those of each block count.

    Returns:
        The whole mask, on disk until it is removed.

    Raises:
        ConfigError: the memory does not suffice for the model and one tile.
        DataError: the image is damaged or does not fit the model, or the disk is full.
    """
    ready = model.prepare(subject.image, subject.nodata)
    size = (ready.shape[0], ready.shape[1])
    by = model.moments(ready)
    cut = blocks(size, model.tiling(size), _room(model, ready, by, memory_bytes), len(model.classes))
    key = hash_of([model.identity.encode(), subject.identity.encode(), repr((size, subject.nodata)).encode()])
    kept = Kept.beside(target, size)
    state = kept.resumed(State(key=key, lefts=[region.columns.start for region in cut]))
    for band in model.regions(ready, by, state.left_over(size)):
        kept.write(_labels(band, subject), band.top, band.left)
        state = state.model_copy(update={"block": state.lefts.index(band.left), "rows": band.place[0].stop})
        kept.note(state)
        give_back_memory()
        if progress is not None:
            progress(state.block * size[0] + state.rows, len(state.lefts) * size[0])
    return kept


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


def _room(model: Model, ready: Prepared, by: Moments, memory_bytes: int) -> int:
    """Bytes that bands may take, once the network has shown on one tile what it takes itself.

    Half of what is left at most goes to strips or tiles of the file that are kept decoded.
    """
    tiling = model.tiling((ready.shape[0], ready.shape[1]))
    corner = Region(range(1), range(1))
    give_back_memory()  # of images before this one
    used = peak_during(lambda: next(iter(model.regions(ready, by, [corner])))) + RESERVE_BYTES
    least = narrowest_block_bytes(tiling, len(model.classes))
    room = memory_bytes - used
    if isinstance(ready.source, TiffSource):
        wanted = ready.source.page.bytes_of_rows(tiling.tile_size[0] + 2 * tiling.border_px)
        kept = min(wanted, max(0, room - least) // 2)
        ready.source.page.remember(kept)
        room -= kept
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
