"""Large maps through a block some rows after the other: where a prediction held three maps of a level, it holds one."""

from collections.abc import Callable
from typing import TypeGuard

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from jaxtyping import Float
from torch import Tensor, nn

STRIP_ROWS = 64
"""So many rows go through a block at a time, and those around them that they see."""

LARGE_BYTES = 8_000_000
"""Few maps of a prediction in strips take as much."""

LOCAL = (nn.Identity, nn.ReLU, nn.LeakyReLU)
"""Layers that see of each pixel nothing else."""

Rows = Callable[[int, int], Float[Tensor, "B F h W"]]
"""Gives maps from the first row to the one before the last."""


def is_only_predicting() -> bool:
    """Whether memory may be saved: nothing is learned, nor traced, which is for images of any size."""
    is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return not torch.is_grad_enabled() and not is_traced


def suit(block: nn.Module, maps: Float[Tensor, "B _ H W"]) -> TypeGuard[nn.Sequential]:
    """Whether a block may be computed in strips, with the same result, and that saves memory.

    Args:
        block: layers one after the other.
        maps: of the size that comes in.
    """
    saves = maps.device.type == "cpu" and is_only_predicting() and maps.shape[2] > 2 * STRIP_ROWS
    return saves and is_local(block)


def is_local(block: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether rows can go through a block by themselves, given few around them."""
    if not isinstance(block, nn.Sequential) or not all(_keeps_rows(layer) for layer in block):
        return False
    return 0 < 4 * _around(block) <= STRIP_ROWS


def _keeps_rows(layer: nn.Module) -> bool:
    if type(layer) is not nn.Conv2d:
        return type(layer) in LOCAL
    reach = layer.dilation[0] * (layer.kernel_size[0] - 1)
    return layer.stride == (1, 1) and layer.padding_mode == "zeros" and 2 * layer.padding[0] == reach


def _around(block: nn.Sequential) -> int:
    """Rows above and below that a row sees; even, since maps of half the height may be joined."""
    reach = sum(layer.padding[0] for layer in block if isinstance(layer, nn.Conv2d))  # type: ignore[misc]
    return reach + reach % 2


def through(
    block: nn.Sequential, rows: Rows, height: int, into: Float[Tensor, "B F H W"] | None = None
) -> Float[Tensor, "B F H W"]:
    """What comes out of a block that suits: of no map but this one are all rows held.

    Args:
        block: layers one after the other.
        rows: gives even numbers of rows of what comes in, where that has an even number.
        height: H.
        into: is filled; what comes in may lie there too. None for a new map.
    """
    around = _around(block)
    waiting: Tensor | None = None
    for top in range(0, height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, height)
        first, last = max(0, top - around), min(height, bottom + around)
        strip = rows(first, last)
        if into is not None and waiting is not None:
            into[:, :, top - STRIP_ROWS : top] = waiting  # not before: this strip begins with rows as they came in
            waiting = None
        for layer in block:
            strip = layer(strip)
        into = _map_of(strip, height) if into is None else into
        waiting = strip[:, :, top - first : bottom - first]
    assert into is not None
    assert waiting is not None
    into[:, :, height - waiting.shape[2] :] = waiting
    return into


def _map_of(strip: Float[Tensor, "B F h W"], height: int) -> Float[Tensor, "B F H W"]:
    size = (*strip.shape[:2], height, strip.shape[3])
    return torch.empty(size, dtype=strip.dtype, device=strip.device, memory_format=torch.channels_last)


def halved(maps: Float[Tensor, "B F H W"]) -> Float[Tensor, "B F h w"]:
    """2 x 2 max-pooling; an odd row or column is kept, so that an image of any size goes through."""
    height, width = maps.shape[-2:]
    if maps.device.type != "cpu" or not is_only_predicting() or height % 2 or width % 2:
        return F.max_pool2d(maps, 2, ceil_mode=True)
    # torch's own notes for the way back where each maximum was, in eight bytes, and takes three times as long
    rows = torch.maximum(maps[:, :, ::2], maps[:, :, 1::2])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])
