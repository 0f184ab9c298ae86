"""The images of a run in the memory of the device, which cuts its windows itself.

A GPU that is given windows waits for the processor to read them and to send them; one that holds all images is sent
nothing but where to cut. The samples are those of `loader.Windows`.

Legend: I images, P pixels of all of them, C channels, N bytes of what a teacher says, B batch, h w window.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped, UInt8
from torch import Tensor

from pixelwise.data.fingerprint import Fingerprint
from pixelwise.data.loader import Batch, Place, Windows
from pixelwise.data.preprocess import loadable, mirrored
from pixelwise.data.transfer import to_device
from pixelwise.launcher import Share


@dataclass(frozen=True)
class Resident:
    """All images of a run, their pixels one after the other."""

    windows: Windows
    """The samples."""
    image: Shaped[Tensor, "P C"]
    mask: UInt8[Tensor, "P 1"]
    told: UInt8[Tensor, "P N"] | None
    scalings: Float32[Tensor, "I 2 C"]
    """Of each image."""
    first: Int64[np.ndarray, " I"]
    """Number of each image's first pixel."""

    @classmethod
    def load(cls, windows: Windows, device: torch.device) -> "Resident":
        """Read them all, one at a time."""
        cases = windows.cases
        return cls(
            windows,
            image=_pixels([case.open_image for case in cases], device),
            mask=_pixels([case.open_mask for case in cases], device),
            told=_pixels(windows.told, device) if windows.told is not None else None,
            scalings=torch.from_numpy(np.stack(windows.scalings)).to(device),
            first=np.cumsum([0, *(case.pixels for case in cases[:-1])]),
        )

    def batches(self, first_step: int, batch_size: int, share: Share) -> Iterator[Batch]:
        """Batches of this process from `first_step` on, without end; as `loader.stream` gives them."""
        step = first_step
        while True:
            yield self._batch([self.windows.place(number) for number in share.of(step, batch_size)])
            step += 1

    def _batch(self, places: Sequence[Place]) -> Batch:
        where = self._where(places)
        cases = to_device(torch.tensor([place.case for place in places]), self.scalings.device)
        return Batch(
            image=self.image[where].permute(0, 3, 1, 2),
            scaling=self.scalings[cases],
            mask=self.mask[where][..., 0],
            seeds=torch.tensor([place.seed for place in places], dtype=torch.int64),
            told=self.told[where].permute(0, 3, 1, 2) if self.told is not None else None,
        )

    def _where(self, places: Sequence[Place]) -> Int64[Tensor, "B h w"]:
        """Numbers of the pixels of windows."""
        height, width = self.windows.sampling.window_size
        sides = []
        for place in places:
            rows, columns = self.windows.cases[place.case].size
            beside = mirrored(np.arange(place.left, place.left + width), columns)
            below = mirrored(np.arange(place.top, place.top + height), rows)
            sides.append(np.concatenate([self.first[place.case] + below * columns, beside]))
        both = to_device(torch.from_numpy(np.stack(sides)), self.image.device)
        return both[:, :height, None] + both[:, None, height:]


def resident_bytes(fingerprint: Fingerprint, megapixels: float, told_bytes: int = 0) -> float:
    """What images and masks of so many pixels together take, and what a teacher says of each."""
    of_a_value = 1 if fingerprint.types == ("uint8",) else 4
    return megapixels * 1e6 * (of_a_value * fingerprint.channels + 1 + told_bytes)


def _pixels(images: Sequence[Callable[[], np.ndarray]], device: torch.device) -> Shaped[Tensor, "P C"]:
    """Of images H W or H W C, opened one after the other: a data set may have more files than a process."""
    shapes, kinds = zip(*((image.shape, image.dtype) for image in (open_it() for open_it in images)), strict=True)
    counts = [shape[0] * shape[1] for shape in shapes]
    kind = torch.uint8 if set(kinds) == {np.dtype(np.uint8)} else torch.float32
    pixels = torch.empty((sum(counts), math.prod(shapes[0][2:])), dtype=kind, device=device)
    for first, count, open_it in zip(np.cumsum([0, *counts[:-1]]), counts, images, strict=True):
        pixels[first : first + count] = torch.tensor(loadable(open_it())).view(count, -1)
    return pixels
