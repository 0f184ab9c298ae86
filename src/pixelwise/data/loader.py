"""From decoded cases to batches of training windows.

Training sees an endless stream of samples. Sample n is a function of the seed and of n alone, so that
the order does not depend on how many processes read, and a resumed run goes on where it stopped.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pixelwise.config import Preprocessing
from pixelwise.data.cache import Decoded
from pixelwise.data.preprocess import loadable, mirrored_window, moments, scaling
from pixelwise.launcher import Share

POSITION_JITTER = 0.5
"""A patch drawn for a class has that pixel within this share of its edge around its centre."""


@dataclass(frozen=True)
class Batch:
    """Windows to draw training patches from."""

    image: Shaped[Tensor, "B C h w"]
    """Raw values: bytes as they are, others as float32."""
    scaling: Float32[Tensor, "B 2 C"]
    """Of each image, what its values are multiplied by to be normalised, and what is then added."""
    mask: UInt8[Tensor, "B h w"]
    """Class index or IGNORE."""
    seeds: Int64[Tensor, " B"]
    """One seed per sample, for its augmentation."""
    told: UInt8[Tensor, "B N h w"] | None = None
    """What a teacher says of the windows' pixels, packed; none without one."""

    def pin_memory(self) -> "Batch":
        """The same in page-locked memory, which a GPU copies from while it computes; torch's loader calls this."""
        told = self.told.pin_memory() if self.told is not None else None
        return Batch(self.image.pin_memory(), self.scaling.pin_memory(), self.mask.pin_memory(), self.seeds, told)


@dataclass(frozen=True)
class Sampling:
    """How windows are drawn."""

    patch_size: tuple[int, int]
    """Height and width of the patch inside the window, in pixels."""
    window_size: tuple[int, int]
    """Height and width of the window, in pixels; at least the patch."""
    foreground_fraction: float
    """Share of patches around a pixel of a class drawn at random."""
    seed: int


@dataclass(frozen=True)
class Sample:
    """A window, to draw a training patch from."""

    image: Shaped[np.ndarray, "h w C"]
    """Raw values: bytes as they are, others as float32."""
    scaling: Float32[np.ndarray, "2 C"]
    """What they are multiplied by to be normalised, and what is then added."""
    mask: UInt8[np.ndarray, "h w"]
    """Class index or IGNORE."""
    seed: int
    """For its augmentation."""
    told: UInt8[np.ndarray, "h w N"] | None = None
    """What a teacher says of the pixels, packed; none without one."""


@dataclass(frozen=True)
class Place:
    """Where a sample's window lies."""

    case: int
    """Index of the image."""
    top: int
    left: int
    """Row and column of its first pixel; negative beyond the image."""
    seed: int
    """For the augmentation."""


Told = Callable[[], UInt8[np.ndarray, "H W N"]]
"""Opens what a teacher says of an image's pixels."""


class Windows(Dataset[Sample]):
    """The endless stream, by sample number.

    Args:
        cases: images with masks.
        preprocessing: how the images are normalised.
        sampling: how windows are drawn.
        told: what a teacher says of each case; none without one.
    """

    def __init__(
        self,
        cases: Sequence[Decoded],
        preprocessing: Preprocessing,
        sampling: Sampling,
        told: Sequence[Told] | None = None,
    ) -> None:
        self.cases, self.told = cases, told
        self.scalings = [scaling(*moments(case.image, preprocessing)) for case in cases]
        self.sampling = sampling
        area = sampling.patch_size[0] * sampling.patch_size[1]
        # an image is drawn in proportion to its size, once per patch that it could be cut into; without labels, never
        shares = [max(1, round(case.pixels / area)) if case.class_pixels.any() else 0 for case in cases]
        shares = shares if any(shares) else [1] * len(cases)
        self._order = np.repeat(np.arange(len(cases)), shares)
        self._pass: tuple[int, np.ndarray] = (-1, self._order)

    def __len__(self) -> int:
        """Samples after which every pixel was drawn once on average."""
        return len(self._order)

    def __getitem__(self, number: int) -> Sample:
        """Sample `number`, which may be any number from 0."""
        place = self.place(number)
        case, told = self.cases[place.case], self.told[place.case]() if self.told is not None else None
        parts = [case.image, case.mask, *([told] if told is not None else [])]
        size = self.sampling.window_size
        image, mask, *said = (mirrored_window(part, place.top, place.left, size) for part in parts)
        return Sample(loadable(image), self.scalings[place.case], mask, place.seed, said[0] if said else None)

    def place(self, number: int) -> Place:
        """What sample `number` is, unread."""
        rng = np.random.default_rng([self.sampling.seed, 1, number])
        index = self._case_of(number)
        top, left = self._corner(self.cases[index], rng)
        return Place(index, top, left, int(rng.integers(2**62)))

    def _case_of(self, number: int) -> int:
        """Every pass over the images has an order of its own."""
        which_pass, place = divmod(number, len(self._order))
        if which_pass != self._pass[0]:
            rng = np.random.default_rng([self.sampling.seed, 0, which_pass])
            self._pass = (which_pass, rng.permutation(self._order))
        return int(self._pass[1][place])

    def _corner(self, case: Decoded, rng: np.random.Generator) -> tuple[int, int]:
        """Top and left of the window whose middle is a patch drawn at random."""
        corner = self._random_patch(case, rng)
        if len(case.positions) and rng.random() < self.sampling.foreground_fraction:
            corner = self._patch_around_a_class(case, rng)
        margins = zip(self.sampling.window_size, self.sampling.patch_size, strict=True)
        top, left = (place - (window - patch) // 2 for place, (window, patch) in zip(corner, margins, strict=True))
        return top, left

    def _random_patch(self, case: Decoded, rng: np.random.Generator) -> tuple[int, int]:
        gaps = [size - patch for size, patch in zip(case.size, self.sampling.patch_size, strict=True)]
        # of an image smaller than the patch, the patch shows the whole and some of its mirror image
        top, left = (int(rng.integers(min(gap, 0), max(gap, 0) + 1)) for gap in gaps)
        return top, left

    def _patch_around_a_class(self, case: Decoded, rng: np.random.Generator) -> tuple[int, int]:
        wanted = rng.choice(np.unique(case.positions[:, 0]))
        candidates = case.positions[case.positions[:, 0] == wanted, 1:]
        pixel = candidates[rng.integers(len(candidates))]
        corner = []
        for place, patch, size in zip(pixel, self.sampling.patch_size, case.size, strict=True):
            jitter = (rng.random() - 0.5) * POSITION_JITTER * patch
            start = round(float(place) - patch / 2 + jitter)
            corner.append(min(max(start, min(size - patch, 0)), max(size - patch, 0)))
        return corner[0], corner[1]


class _Steps:
    """Batch sampler: the sample numbers of one step after the other, without end."""

    def __init__(self, first_step: int, batch_size: int, share: Share) -> None:
        self._first_step, self._batch_size, self._share = first_step, batch_size, share

    def __iter__(self) -> Iterator[list[int]]:
        step = self._first_step
        while True:
            yield list(self._share.of(step, self._batch_size))
            step += 1


def stream(
    windows: Windows, first_step: int, batch_size: int, share: Share, workers: int = 0, *, pinned: bool = False
) -> Iterator[Batch]:
    """Batches of this process from `first_step` on, without end.

    Args:
        windows: the samples.
        first_step: where to begin; a resumed run names the step it stopped at.
        batch_size: samples per step over all processes.
        share: which part of each batch is ours.
        workers: processes that read ahead.
        pinned: put batches into page-locked memory, for a CUDA GPU.
    """
    loader = DataLoader(
        windows,
        batch_sampler=_Steps(first_step, batch_size, share),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pinned,
        worker_init_fn=_ignore_interrupts,
    )
    return iter(loader)


def _ignore_interrupts(_worker: int) -> None:
    """A Ctrl-C reaches all processes of a terminal; the training process decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _collate(samples: list[Sample]) -> Batch:
    images = np.stack([sample.image for sample in samples])
    told = [sample.told for sample in samples if sample.told is not None]
    return Batch(
        image=torch.from_numpy(images).permute(0, 3, 1, 2),
        scaling=torch.from_numpy(np.stack([sample.scaling for sample in samples])),
        mask=torch.from_numpy(np.stack([sample.mask for sample in samples])),
        seeds=torch.tensor([sample.seed for sample in samples], dtype=torch.int64),
        told=torch.from_numpy(np.stack(told)).permute(0, 3, 1, 2) if told else None,
    )
