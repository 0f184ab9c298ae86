"""Images and masks decoded once, and read from memory-mapped arrays ever after.

A cache file's name is a hash of the content of the image and mask files and of how they were decoded,
so that a changed file is decoded anew and a copied folder is not.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32, Int64, Shaped, UInt8

from pixelwise.config import Config
from pixelwise.data import alike, masks, npy
from pixelwise.data.dataset import Case, Dataset
from pixelwise.data.parallel import bytes_of_case, in_parallel
from pixelwise.data.preprocess import match_channels, resize_image, resize_mask, storable
from pixelwise.data.reading import read_image
from pixelwise.errors import DataError
from pixelwise.files import make_folder, write_atomically

LAYOUT_VERSION = 3
"""Raised when the content of cache files changes."""

POSITIONS_PER_CLASS = 512
"""So many pixels of each class are remembered for drawing patches around them."""


@dataclass(frozen=True)
class Decoded:
    """A case as arrays, which are opened when they are looked at: a data set may have more files than a process."""

    case: Case
    open_image: Callable[[], Shaped[np.ndarray, "H W C"]]
    open_mask: Callable[[], UInt8[np.ndarray, "H W"]]
    shape: tuple[int, int, int]
    """Height, width and channels of the image."""
    class_pixels: Int64[np.ndarray, " K"]
    """Pixels of each class."""
    positions: Int64[np.ndarray, "P 3"]
    """Class, row and column of pixels drawn at random, up to `POSITIONS_PER_CLASS` per class."""
    digest: str
    """Hash of the pixels of the image: equal images have equal digests."""
    mask_digest: str
    """Hash of the decoded mask."""
    coarse: Float32[np.ndarray, "32 32"]
    """What tells nearly equal images, from `alike.coarse`."""

    @property
    def image(self) -> Shaped[np.ndarray, "H W C"]:
        """Raw values, memory-mapped, read-only: 8- and 16-bit integers as they are, everything else as float32."""
        return self.open_image()

    @property
    def mask(self) -> UInt8[np.ndarray, "H W"]:
        """Class index or IGNORE, memory-mapped, read-only."""
        return self.open_mask()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.shape[:2]

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.shape[0] * self.shape[1]

    @property
    def is_constant(self) -> bool:
        """Whether the image has one value; such images are alike without being copies."""
        image = self.image
        return bool((image == image[:1, :1]).all())


@dataclass(frozen=True)
class Cache:
    """Decoded cases of one data set, in a folder.

    Args:
        folder: where the arrays lie; it may be deleted at any time.
        dataset: what the cases belong to.
    """

    folder: Path
    dataset: Dataset

    @classmethod
    def of(cls, config: Config, dataset: Dataset) -> "Cache":
        """In the folder that the settings name, or else the user's."""
        return cls(config.data.cache or default_folder(), dataset)

    def open(self, case: Case, resize: tuple[int, int] | None = None) -> Decoded:
        """A case as arrays, decoded now if it is not in the cache.

        Raises:
            DataError: a file cannot be read, image and mask do not belong together, or the cache cannot be written.
        """
        key = _key(case, self.dataset, resize)
        files = _Files.of(self.folder, key)
        try:
            return files.decoded(case)
        except (OSError, ValueError, EOFError, KeyError, BadZipFile):  # not there yet, or damaged
            self._decode(case, resize, files, seed=int(key[:8], 16))
            return files.decoded(case)

    def open_all(
        self,
        cases: Sequence[Case],
        resize: tuple[int, int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Decoded]:
        """All of `cases`, decoded in parallel; `progress` is told how many of how many are done."""
        results: list[Decoded] = []
        for decoded in in_parallel(lambda case: self.open(case, resize), cases, bytes_of_case):
            results.append(decoded)
            if progress is not None:
                progress(len(results), len(cases))
        return results

    def _decode(self, case: Case, resize: tuple[int, int] | None, files: "_Files", seed: int) -> None:
        image = storable(read_image(case))
        mask = masks.decode(case, self.dataset.encoding, (image.shape[0], image.shape[1]))
        if resize is not None:
            image, mask = resize_image(image, resize), resize_mask(mask, resize)
        counts = masks.count_values(mask)[: len(self.dataset.classes)]
        positions = _draw_positions(mask, np.flatnonzero(counts), np.random.default_rng(seed))
        facts = {
            "class_pixels": counts.astype(np.int64),
            "positions": positions,
            "digests": np.array([_array_hash(image), _array_hash(mask)]),
            "coarse": alike.coarse(image),
        }
        files.store(image, mask, facts)


@dataclass(frozen=True)
class _Files:
    """Where the parts of a case lie."""

    image: Path
    mask: Path
    facts: Path

    @classmethod
    def of(cls, folder: Path, key: str) -> "_Files":
        stem = folder / key[:2] / key
        return cls(*(stem.with_name(f"{key}.{part}") for part in ("image.npy", "mask.npy", "facts.npz")))

    def decoded(self, case: Case) -> Decoded:
        image, mask = (npy.mapped(path) for path in (self.image, self.mask))
        facts = npy.archived(self.facts.read_bytes())
        class_pixels, positions, digests, coarse = (
            facts[name] for name in ("class_pixels", "positions", "digests", "coarse")
        )
        if image.shape[:2] != mask.shape:
            raise ValueError("the parts do not belong together")
        open_image, open_mask = (partial(npy.mapped, path) for path in (self.image, self.mask))
        shape = (image.shape[0], image.shape[1], image.shape[2])
        digest, mask_digest = digests.tolist()
        return Decoded(case, open_image, open_mask, shape, class_pixels, positions, digest, mask_digest, coarse)

    def store(self, image: np.ndarray, mask: np.ndarray, facts: dict[str, np.ndarray]) -> None:
        content = BytesIO()
        np.savez(content, **facts)  # type: ignore[arg-type]  # numpy's stub takes the first for a flag
        store({self.image: to_npy(image), self.mask: to_npy(mask), self.facts: content.getvalue()})


def store(contents: Mapping[Path, bytes]) -> None:
    """Write files of a cache, one after the other.

    Raises:
        DataError: the cache cannot be written; says how to choose another.
    """
    try:
        for path, content in contents.items():
            make_folder(path.parent)
            write_atomically(path, content)
    except DataError as error:
        remedy = f"{error.remedy} PIXELWISE_CACHE or --set data.cache=FOLDER say where decoded images are kept."
        raise DataError(error.what, where=error.where, remedy=remedy) from None


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


def hash_of_cases(cases: Iterable[Decoded]) -> str:
    """A short hash of images and masks, in their order."""
    return hash_of(f"{case.digest}{case.mask_digest}".encode() for case in cases)


def _array_hash(array: np.ndarray) -> str:
    return hash_of([repr((array.shape, array.dtype.str)).encode(), np.ascontiguousarray(array).tobytes()])


def among(cases: Iterable[Decoded], digests: Collection[str]) -> list[Decoded]:
    """Those that have the pixels of an image with one of these digests.

    Images of one value, such as the outer slices of volumes, are alike without being copies.
    """
    known = frozenset(digests)
    return [case for case in cases if case.digest in known and not case.is_constant]


def unify_channels(decoded: Sequence[Decoded]) -> list[Decoded]:
    """The same cases, grey images among coloured ones with their channel repeated.

    Raises:
        DataError: an image has channels that cannot be reconciled with the others.
    """
    channels = max((case.shape[-1] for case in decoded), default=1)
    return [with_channels(case, channels) for case in decoded]


def with_channels(case: Decoded, channels: int) -> Decoded:
    """The same case with so many channels, a grey one repeated.

    Raises:
        DataError: its channels cannot be reconciled with that.
    """
    if case.shape[-1] == channels:
        return case
    try:
        match_channels(case.image, channels)
    except DataError as error:
        raise DataError(error.what, where=case.case.image, remedy=error.remedy) from None
    return replace(case, open_image=partial(_matched, case.open_image, channels), shape=(*case.size, channels))


def _matched(open_image: Callable[[], np.ndarray], channels: int) -> np.ndarray:
    return match_channels(open_image(), channels)


def _key(case: Case, dataset: Dataset, resize: tuple[int, int] | None) -> str:
    # the image's name chooses its entry in a COCO file
    encoding = dataset.encoding
    rules = (LAYOUT_VERSION, version("pixelwise"), encoding.tables, len(dataset.classes))
    name = case.image.name if encoding.kind == "coco" else ""
    parts = (case.parts,) if case.parts else ()
    palettes = ("by palette",) if encoding.kind == "colors" else ()  # unlike in version 3 of this key
    settings = repr((*rules, case.page, case.window, resize, name, *parts, *palettes)).encode()
    try:
        states = [(path, path.stat()) for path in (case.image, *case.channels, *case.masks)]
        content = [_file_hash(path, state.st_size, state.st_mtime_ns) for path, state in states]
    except OSError as error:
        raise DataError(f"This file cannot be read ({error.strerror}).", where=error.filename) from None
    return hash_of([settings, *content])


@functools.lru_cache(maxsize=4096)
def _file_hash(path: Path, _size: int, _modified_ns: int) -> bytes:
    """Hash of a file's content; a stack or an annotation file that many cases share is read once."""
    if path.is_dir():  # OME-Zarr
        parts = sorted(part for part in path.rglob("*") if part.is_file())
        return hash_of(
            byte for part in parts for byte in (str(part.relative_to(path)).encode(), part.read_bytes())
        ).encode()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).digest()


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


def to_npy(array: np.ndarray) -> bytes:
    """The content of a .npy file."""
    stream = BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()
