"""From the processor to the device that computes."""

import torch
from jaxtyping import Shaped
from torch import Tensor


def to_device(numbers: Shaped[Tensor, "*n"], device: torch.device) -> Shaped[Tensor, "*n"]:
    """The same numbers on a device, without waiting for what it is at.

    From memory that may be paged, CUDA copies only when all it was told before is done.
    """
    if device.type != "cuda" or numbers.device.type != "cpu":
        return numbers.to(device)
    return numbers.contiguous().pin_memory().to(device, non_blocking=True)
