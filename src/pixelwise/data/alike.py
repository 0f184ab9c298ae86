"""Images that are nearly the same: copies saved again, resized, brightened, turned or mirrored, frames of one scene.

What is compared is a coarse picture of 32 x 32 places, without the slow changes that illumination makes, and without
what all images of the data set have in common, such as the dark rim of a camera; both would make every image of an
instrument like every other. The similarity of two images is the correlation of these pictures: 1 for copies, about 0
for strangers, and up to 0.8 for different images of one kind of object in one frame.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int, Shaped
from scipy import ndimage

PLACES = 32
"""Rows and columns of the coarse picture."""

SLOW = 2.0
"""Deviation, in places, of the blur whose result is taken away."""

LONGEST_PX = 512
"""Of larger images, evenly spread pixels are looked at."""

ALIKE = 0.92
"""Similarity from which two images are nearly the same. Measured on fundus photographs, blood cells, electron
microscopy and nuclei: different images reach 0.2 to 0.85, copies that were resized, brightened or made noisy 0.94."""

STRICTER = (ALIKE, 0.97, 0.99)
"""Tried one after the other where too many images would hang together."""

ONE_VIEW = 0.95
"""Images whose common part is so long (1: all are equal) show one view, and what differs between them is small."""

_CHUNK = 1000
_MOST_TURNED = 20_000
"""Of more images, turned and mirrored copies are not looked for: comparing them takes minutes."""

_MOST_PAIRS = 200_000
"""Films of thousands of frames have millions of pairs; the most alike say all that is needed."""

_EMPTY = 1e-6


def coarse(image: Shaped[np.ndarray, "H W C"]) -> Float32[np.ndarray, "32 32"]:
    """The coarse picture of an image, of length 1; zeros for an image without any structure."""
    steps = [max(1, edge // LONGEST_PX) for edge in image.shape[:2]]
    grey = np.asarray(image[:: steps[0], :: steps[1]], dtype=np.float64).mean(axis=2)
    means = _averaged(_averaged(np.nan_to_num(grey, posinf=0.0, neginf=0.0), 0), 1)
    sharp = means - ndimage.gaussian_filter(means, SLOW, mode="nearest")
    return _unit((sharp - sharp.mean()).reshape(1, -1)).reshape(PLACES, PLACES).astype(np.float32)


@dataclass(frozen=True)
class Looks:
    """What an image is like, in the values of its file."""

    brightness: float
    """Mean of a sample of its pixels."""
    contrast: float
    """Their standard deviation."""

    @classmethod
    def of(cls, image: Shaped[np.ndarray, "H W C"]) -> "Looks":
        """Of about 256 rows and columns, spread evenly; 0 where that is not a number."""
        sample = np.asarray(image[:: max(1, image.shape[0] // 256), :: max(1, image.shape[1] // 256)])
        known = sample[np.isfinite(sample)].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # some programs mark missing pixels by the largest number
            looks = (float(known.mean()), float(known.std())) if known.size else (0.0, 0.0)
        return cls(*(value if math.isfinite(value) else 0.0 for value in looks))


@dataclass(frozen=True)
class Pair:
    """Two images, by index, and their similarity."""

    first: int
    second: int
    similarity: float


class Likeness:
    """How alike the images of a data set are.

    Args:
        pictures: of each image, from `coarse`.
    """

    def __init__(self, pictures: Sequence[Float32[np.ndarray, "32 32"]]) -> None:
        stack = np.stack(pictures) if pictures else np.zeros((0, PLACES, PLACES), dtype=np.float32)
        common = stack.mean(axis=0) if len(stack) else np.zeros((PLACES, PLACES), dtype=np.float32)
        has_structure = np.asarray(stack.any(axis=(1, 2)))[:, None]  # blank images are not alike for being blank
        self._pictures, *turned = (
            has_structure * _unit((picture - common).reshape(-1, PLACES**2)).astype(np.float32)
            for picture in (stack, *_turns(stack))
        )
        self._turned = turned

    def pairs(self, threshold: float) -> list[Pair]:
        """All pairs at least so much alike, the first index below the second; of very many, the most alike."""
        count = len(self._pictures)
        keys, values = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        for start in range(0, count, _CHUNK):
            some = self._pictures[start : start + _CHUNK]
            for others in self._turned:
                similarity = some @ others.T
                rows, columns = np.nonzero(similarity >= threshold)
                first, second = np.minimum(start + rows, columns), np.maximum(start + rows, columns)
                apart = first < second
                keys = np.concatenate([keys, first[apart] * count + second[apart]])
                values = np.concatenate([values, similarity[rows, columns][apart]])
                keys, values = _most_alike(keys, values)
        return [
            Pair(int(key) // count, int(key) % count, float(value)) for key, value in zip(keys, values, strict=True)
        ]

    def nearest(self, some: Int[np.ndarray, " n"], others: Int[np.ndarray, " m"]) -> Pair | None:
        """The pair that is most alike, one of each; none where either has no image."""
        best: Pair | None = None
        for start in range(0, len(some), _CHUNK):
            chunk = some[start : start + _CHUNK]
            for turned in self._turned if len(others) else []:
                similarity = self._pictures[chunk] @ turned[others].T
                row, column = np.unravel_index(int(similarity.argmax()), similarity.shape)
                value = float(similarity[row, column])
                if best is None or value > best.similarity:
                    best = Pair(int(chunk[row]), int(others[column]), value)
        return best


def common_part(pictures: Sequence[Float32[np.ndarray, "32 32"]]) -> float:
    """How much of each image is common to all: 0 for strangers, 1 if all are equal."""
    return float(np.linalg.norm(np.mean(pictures, axis=0))) if len(pictures) else 0.0


def linked(pairs: Sequence[Pair], count: int) -> list[list[int]]:
    """Sets of indices that hang together by these pairs, without those that are alone."""
    sets = joined(((pair.first, pair.second) for pair in pairs), range(count))
    return [members for members in sets if len(members) > 1]


def joined(ties: Iterable[Sequence[int]], indices: Sequence[int]) -> list[list[int]]:
    """The indices in sets that hang together, each set and all of them in the order of `indices`.

    Args:
        ties: indices that belong together; those that are not among `indices` are passed over.
        indices: what to sort into sets; one that nothing ties is a set of its own.
    """
    leader = {index: index for index in indices}

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for members in ties:
        inside = [index for index in members if index in leader]
        for index in inside[1:]:
            leader[find(index)] = find(inside[0])
    sets: dict[int, list[int]] = {}
    for index in indices:
        sets.setdefault(find(index), []).append(index)
    return list(sets.values())


def _most_alike(
    keys: Int[np.ndarray, " n"], values: Float32[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " m"], Float32[np.ndarray, " m"]]:
    """Each pair once, with its largest similarity, in order; no more than `_MOST_PAIRS`."""
    best_first = np.argsort(-values, kind="stable")
    unique, place = np.unique(keys[best_first], return_index=True)
    largest = values[best_first][place]
    if len(unique) > _MOST_PAIRS:
        chosen = np.sort(np.argsort(-largest, kind="stable")[:_MOST_PAIRS])
        unique, largest = unique[chosen], largest[chosen]
    return unique, largest


def _turns(pictures: Float32[np.ndarray, "N 32 32"]) -> list[Float32[np.ndarray, "N 32 32"]]:
    if len(pictures) > _MOST_TURNED:
        return [pictures]
    mirrored = (pictures, pictures[:, :, ::-1])
    return [np.rot90(one, quarter, axes=(1, 2)) for one in mirrored for quarter in range(4)]


def _averaged(values: Float64[np.ndarray, "h w"], axis: int) -> Float64[np.ndarray, "_ _"]:
    """Means of `PLACES` stretches along an axis; short axes repeat their values."""
    length = values.shape[axis]
    if length < PLACES:
        index = np.arange(PLACES) * length // PLACES
        return np.asarray(np.take(values, index, axis=axis))
    edges = np.linspace(0, length, PLACES + 1).astype(int)
    sums = np.add.reduceat(values, edges[:-1], axis=axis)
    widths = np.diff(edges).reshape((-1, 1) if axis == 0 else (1, -1))
    means: np.ndarray = sums / widths
    return means


def _unit(rows: np.ndarray) -> np.ndarray:
    """Each row with length 1; what is next to nothing becomes 0."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.where(length > _EMPTY, rows / np.maximum(length, _EMPTY), 0.0))
