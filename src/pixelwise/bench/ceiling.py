"""What this machine can do at most: the rate of its matrix units, of its convolutions, and of its memory.

A figure means something only as a share of what was possible, and no data sheet says what is possible on a machine that
others share.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by

from pixelwise.models.blocks import has_bfloat16
from pixelwise.timing import timed

MATRIX_EDGE = {"cpu": 2048, "mps": 4096, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied, by kind of device."""

CONVOLUTIONS = ((64, 256), (128, 128), (256, 64), (512, 32))
"""Features and edge of the maps of a U-Net's levels: the 3 x 3 convolutions that it spends its time in."""

BATCH = {"cpu": 4, "mps": 4, "cuda": 16}
"""Maps of a convolution, by kind of device: a GPU is not filled by few."""

COPIED_BYTES = 2**28

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Ceiling:
    """The highest rates that were measured."""

    matrix_gflops: dict[str, float]
    """10^9 floating point operations per second of a matrix product, by number type; a product and a sum are two.

    Without bfloat16 where it is only emulated.
    """
    convolution_gflops: dict[str, float]
    """The same of the fastest of `CONVOLUTIONS`, forward and backward."""
    copy_gb_per_second: float
    """10^9 bytes read, and as many written."""

    @property
    def precision(self) -> str:
        """That convolutions are faster in."""
        return max(self.convolution_gflops, key=lambda name: self.convolution_gflops[name])


def measure(device: torch.device) -> Ceiling:
    """Measure a device for about half a minute."""
    kinds = PRECISIONS if has_bfloat16(device) else {"float32": torch.float32}
    return Ceiling(
        {name: _matrix_rate(kind, device) for name, kind in kinds.items()},
        {
            name: max(_convolution_rate(features, edge, kind, device) for features, edge in CONVOLUTIONS)
            for name, kind in kinds.items()
        },
        _copy_rate(device),
    )


def _matrix_rate(kind: torch.dtype, device: torch.device) -> float:
    edge = MATRIX_EDGE[device.type]
    one, other = (torch.randn(edge, edge, device=device, dtype=kind) for _ in range(2))
    with _as_convolutions():
        return 2 * edge**3 / timed(lambda: one @ other, device, at_least=1.0).lowest_seconds / 1e9


@contextlib.contextmanager
def _as_convolutions() -> Iterator[None]:
    """Within, matrix products of float32 round their factors to TF32 on a GPU, as convolutions do by themselves."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _convolution_rate(features: int, edge: int, kind: torch.dtype, device: torch.device) -> float:
    """Of one convolution, forward and backward."""
    batch = BATCH[device.type]
    image = torch.randn(batch, features, edge, edge, device=device, dtype=kind, requires_grad=True)
    weight = torch.randn(features, features, 3, 3, device=device, dtype=kind, requires_grad=True)
    last = (part.detach().contiguous(memory_format=torch.channels_last) for part in (image, weight))
    image, weight = (part.requires_grad_() for part in last)
    slope = torch.randn_like(image)

    def step() -> None:
        torch.autograd.grad(F.conv2d(image, weight, padding=1), (image, weight), slope)

    operations = 3 * 2 * batch * edge**2 * features**2 * 9  # forward, and for each of two gradients as much
    return operations / timed(step, device, at_least=1.0).lowest_seconds / 1e9


def _copy_rate(device: torch.device) -> float:
    source = torch.randint(0, 255, (COPIED_BYTES,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return COPIED_BYTES / timed(lambda: target.copy_(source), device, at_least=1.0).lowest_seconds / 1e9
