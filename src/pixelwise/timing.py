"""How long something takes, measured often enough to be believed."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@dataclass(frozen=True)
class Timing:
    """Repetitions of one piece of work."""

    median_seconds: float
    lowest_seconds: float
    highest_seconds: float
    repetitions: int


def timed(
    work: Callable[[], object], device: torch.device, at_least: float = 2.0, fewest: int = 3, most: int = 50
) -> Timing:
    """Repeat a piece of work, after a first time that does not count.

    Args:
        work: what to time; a GPU is waited for.
        device: where it computes.
        at_least: seconds to go on for,
        fewest: but for no fewer repetitions,
        most: and no more.
    """
    work()  # allocates, chooses kernels
    synchronise(device)
    times: list[float] = []
    while len(times) < fewest or (sum(times) < at_least and len(times) < most):
        began = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - began)
    return Timing(statistics.median(times), min(times), max(times), len(times))
