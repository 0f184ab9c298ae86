"""Images and masks decoded once, and read from memory-mapped arrays ever after.

A cache file's name is a hash of the content of the image and mask files and of how they were decoded,
so that a changed file is decoded anew and a copied folder is not.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from pixelwise.classes import IGNORE
from pixelwise.data import formats, masks
from pixelwise.data.dataset import Case, Dataset, MaskEncoding
from pixelwise.data.preprocess import match_channels, resize_image, resize_mask, storable
from pixelwise.errors import DataError
from pixelwise.files import make_folder, write_atomically

PARTS = ("image", "mask", "class_pixels", "positions", "digest")
"""What is kept of a case, a file each."""

LAYOUT_VERSION = 1
"""Raised when the content of cache files changes."""

POSITIONS_PER_CLASS = 512
"""So many pixels of each class are remembered for drawing patches around them."""


@dataclass(frozen=True)
class Decoded:
    """A case as arrays; `image` and `mask` are memory-mapped and read-only."""

    case: Case
    image: Shaped[np.ndarray, "H W C"]
    """Raw values: 8- and 16-bit integers as they are, everything else as float32."""
    mask: UInt8[np.ndarray, "H W"]
    """Class index or IGNORE."""
    class_pixels: Int64[np.ndarray, " K"]
    """Pixels of each class."""
    positions: Int64[np.ndarray, "P 3"]
    """Class, row and column of pixels drawn at random, up to `POSITIONS_PER_CLASS` per class."""
    digest: str
    """Hash of the pixels of the image alone: equal images have equal digests."""
    key: str
    """Hash of the files and of how they were decoded."""


@dataclass(frozen=True)
class Cache:
    """Decoded cases of one data set, in a folder.

    Args:
        folder: where the arrays lie; it may be deleted at any time.
        dataset: what the cases belong to.
    """

    folder: Path
    dataset: Dataset

    def open(self, case: Case, resize: tuple[int, int] | None = None) -> Decoded:
        """A case as arrays, decoded now if it is not in the cache.

        Raises:
            DataError: a file cannot be read, image and mask do not belong together, or the cache cannot be written.
        """
        key = _key(case, self.dataset.encoding, resize)
        paths = [self.folder / key[:2] / f"{key}.{part}.npy" for part in PARTS]
        try:
            arrays = _read(paths)
        except (OSError, ValueError, EOFError):  # not there yet, or damaged
            _store(paths, self._decode(case, resize, seed=int(key[:8], 16)))
            arrays = _read(paths)
        image, mask, class_pixels, positions, digest = arrays
        return Decoded(case, image, mask, class_pixels, positions, digest.tobytes().hex(), key)

    def open_all(
        self,
        cases: Sequence[Case],
        resize: tuple[int, int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Decoded]:
        """All of `cases`, decoded in parallel; `progress` is told how many of how many are done."""
        results: list[Decoded] = []
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            for decoded in pool.map(lambda case: self.open(case, resize), cases):
                results.append(decoded)
                if progress is not None:
                    progress(len(results), len(cases))
        return results

    def _decode(self, case: Case, resize: tuple[int, int] | None, seed: int) -> tuple[np.ndarray, ...]:
        image = storable(formats.read_image(case.image, case.page))
        mask = masks.decode(case, self.dataset.encoding, (image.shape[0], image.shape[1]))
        if resize is not None:
            image, mask = resize_image(image, resize), resize_mask(mask, resize)
        counts = np.bincount(mask.reshape(-1), minlength=IGNORE + 1)[: len(self.dataset.classes)]
        positions = _draw_positions(mask, np.flatnonzero(counts), np.random.default_rng(seed))
        digest = np.frombuffer(bytes.fromhex(hash_of([repr(image.shape).encode(), image.tobytes()])), dtype=np.uint8)
        return image, mask, counts.astype(np.int64), positions, digest


def default_folder() -> Path:
    """Where decoded images are kept unless a folder is given: $PIXELWISE_CACHE or the user's cache folder."""
    named = os.environ.get("PIXELWISE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "pixelwise"


def hash_of(parts: Iterable[bytes]) -> str:
    """A short hash of a sequence of byte strings."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def unify_channels(decoded: Sequence[Decoded]) -> list[Decoded]:
    """The same cases, grey images among coloured ones with their channel repeated.

    Raises:
        DataError: an image has channels that cannot be reconciled with the others.
    """
    channels = max(case.image.shape[-1] for case in decoded)
    unified = []
    for case in decoded:
        try:
            unified.append(replace(case, image=match_channels(case.image, channels)))
        except DataError as error:
            raise DataError(error.what, where=case.case.image, remedy=error.remedy) from None
    return unified


def _key(case: Case, encoding: MaskEncoding, resize: tuple[int, int] | None) -> str:
    # the description is for people; the image's name chooses its entry in a COCO file
    settings = (LAYOUT_VERSION, encoding.model_dump(exclude={"description"}), case.page, resize)
    name = case.image.name if encoding.kind == "coco" else ""
    try:
        content = [path.read_bytes() for path in (case.image, *case.masks)]
    except OSError as error:
        raise DataError(f"This file cannot be read ({error.strerror}).", where=error.filename) from None
    return hash_of([repr(settings).encode(), name.encode(), *content])


def _draw_positions(
    mask: UInt8[np.ndarray, "H W"], present: Int64[np.ndarray, " n"], rng: np.random.Generator
) -> Int64[np.ndarray, "P 3"]:
    rows = []
    for index in present:
        where = np.flatnonzero(mask.reshape(-1) == index)
        chosen = where if len(where) <= POSITIONS_PER_CLASS else rng.choice(where, POSITIONS_PER_CLASS, replace=False)
        row, column = np.divmod(chosen, mask.shape[1])
        rows.append(np.stack([np.full_like(row, index), row, column], axis=1))
    return np.concatenate(rows) if rows else np.zeros((0, 3), dtype=np.int64)


def _read(paths: Sequence[Path]) -> list[np.ndarray]:
    """Image and mask as maps of their files, the small parts as they are."""
    modes: tuple[Literal["r"] | None, ...] = ("r", "r", None, None, None)
    return [np.load(path, mmap_mode=mode, allow_pickle=False) for path, mode in zip(paths, modes, strict=True)]


def _store(paths: Sequence[Path], arrays: Sequence[np.ndarray]) -> None:
    try:
        make_folder(paths[0].parent)
        for path, array in zip(paths, arrays, strict=True):
            write_atomically(path, _to_npy(array))
    except DataError as error:
        remedy = f"{error.remedy} PIXELWISE_CACHE or --set data.cache=FOLDER say where decoded images are kept."
        raise DataError(error.what, where=error.where, remedy=remedy) from None


def _to_npy(array: np.ndarray) -> bytes:
    stream = BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()
