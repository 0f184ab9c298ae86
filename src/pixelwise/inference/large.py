"""Masks of images that are larger than memory.

An image is predicted in blocks of columns, and each of them in bands of rows. What is finished is kept on disk beside
the mask to come, so that an interrupted prediction goes on where it stopped; when all is there, the mask is written in
one go. The result is that of the whole image, whatever the memory and however often the work was interrupted.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from jaxtyping import UInt8
from pydantic import BaseModel, NonNegativeInt, ValidationError

from pixelwise.classes import IGNORE
from pixelwise.data.cache import hash_of
from pixelwise.data.tiff import Placement
from pixelwise.data.windows import Source, is_empty
from pixelwise.data.writing import TILE_PX, write_mask_bands
from pixelwise.errors import ConfigError, DataError
from pixelwise.files import cannot_write, read_json, write_json
from pixelwise.inference.predictor import Model
from pixelwise.inference.tiles import Band, Region, blocks, narrowest_block_bytes

RESERVE_BYTES = 300_000_000
"""What reading and writing take beside the network."""


class _State(BaseModel):
    """What the journal says."""

    key: str
    block: NonNegativeInt
    """Where the work is."""
    rows: NonNegativeInt
    """Finished ones of that block; of the blocks before it, all are."""


@dataclass(frozen=True)
class Kept:
    """Finished parts of a mask, on disk."""

    pixels: Path
    """Class index or IGNORE, row after row."""
    journal: Path
    key: str
    """Of what is being done; parts of another model, image or way of cutting are of no use."""
    size: tuple[int, int]

    @classmethod
    def beside(cls, target: Path, key: str, size: tuple[int, int]) -> "Kept":
        """Where the parts of a mask are kept while it is being made."""
        name = f".pixelwise-{hash_of([target.name.encode()])}"
        return cls(target.with_name(f"{name}.pixels"), target.with_name(f"{name}.json"), key, size)

    def done(self) -> tuple[int, int]:
        """The block that was being worked on, and its finished rows; an empty file is made if there is none."""
        try:
            state = _State.model_validate(read_json(self.journal))
            if state.key == self.key and self.pixels.stat().st_size == self.size[0] * self.size[1]:
                return state.block, state.rows
        except (OSError, DataError, ValidationError):  # nothing there, or nothing of use
            pass
        try:
            with self.pixels.open("wb") as file:
                file.truncate(self.size[0] * self.size[1])
        except OSError as error:
            raise cannot_write(self.pixels, error) from None
        self.note(0, 0)
        return 0, 0

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

    def note(self, block: int, rows: int) -> None:
        """Write down how far the work is."""
        write_json(self.journal, _State(key=self.key, block=block, rows=rows).model_dump())

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


def write_mask_of(
    model: Model,
    image: Source,
    target: Path,
    *,
    placement: Placement | None,
    identity: str,
    memory_bytes: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Predict an image by windows, and write its mask as a tiled TIFF; goes on where an earlier call was interrupted.

    Args:
        model: one that does not resize.
        image: of any size.
        target: ends in .tif or .tiff.
        placement: where its pixels lie, and which value of them says that there is nothing.
        identity: of the image's content, so that parts of another image are not taken for those of this one.
        memory_bytes: what the process may take.
        progress: told how many rows of how many are done; those of each block count.

    Raises:
        ConfigError: the memory does not suffice for the model and one tile.
        DataError: the image is damaged or does not fit the model, or the mask cannot be written.
    """
    ready = model.prepare(image)
    size = (ready.shape[0], ready.shape[1])
    tiling = model.tiling(size)
    cut = blocks(size, tiling, _room(model, ready, memory_bytes), len(model.classes))
    key = hash_of([model.identity.encode(), identity.encode(), repr((size, cut)).encode()])
    kept = Kept.beside(target, key, size)
    block, rows = kept.done()
    rest = [Region(range(rows, size[0]), cut[block].columns)] if rows < size[0] else []
    place = {region.columns.start: index for index, region in enumerate(cut)}
    for band in model.regions(ready, [*rest, *cut[block + 1 :]]):
        kept.write(_labels(band, image, placement), band.top, band.left)
        number, finished = place[band.left], band.place[0].stop
        kept.note(number, finished)
        if progress is not None:
            progress(number * size[0] + finished, len(cut) * size[0])
    write_mask_bands(target, kept.bands(), size, model.classes, placement)
    kept.remove()


def _labels(band: Band, image: Source, placement: Placement | None) -> UInt8[np.ndarray, "h w"]:
    mask = band.labels()
    if placement is not None and placement.nodata is not None:
        mask[is_empty(image[band.place], placement.nodata)] = IGNORE
    return mask


def _room(model: Model, ready: Source, memory_bytes: int) -> int:
    """Bytes that bands may take, once the network has shown on one tile what it takes itself."""
    tiling = model.tiling((ready.shape[0], ready.shape[1]))
    corner = Region(range(1), range(1))
    next(iter(model.regions(ready, [corner])))
    used = peak_bytes() + RESERVE_BYTES
    least = narrowest_block_bytes(tiling, len(model.classes))
    if memory_bytes < used + least:
        raise ConfigError(
            f"{memory_bytes / 1e9:.1f} GB of memory are not enough: the program with this model takes "
            f"{used / 1e9:.1f} GB, and the narrowest part of a result {least / 1e9:.1f} GB.",
            remedy=f"Allow more, as --memory {(used + least) / 1e9 + 0.1:.1f}GB, or train with smaller tiles.",
        )
    return memory_bytes - used


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
