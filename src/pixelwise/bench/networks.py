"""The named networks: how large they are, what they compute, and how fast this machine is with them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from pixelwise.bench import sizes
from pixelwise.bench.figures import forward_gflop, prediction
from pixelwise.config import SIZES, ModelConfig
from pixelwise.memory import keeping_freed_memory
from pixelwise.models.blocks import parameter_count
from pixelwise.models.unet import build, valid_size_px
from pixelwise.timing import timed
from pixelwise.training.machine import Stopwatch, Work

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Network:
    """A named network, with images of `bench.sizes`."""

    name: str
    settings: dict[str, Any]
    parameters: int
    gflop: float
    """10^9 operations for one image, a product and a sum counted as two; three times as many in training."""
    precision: str | None = None
    """That is faster here, for a small network; none if nothing was measured."""
    training_per_second: float | None = None
    """Images."""
    prediction_per_second: float | None = None
    """Images."""


def networks(stopwatch: Stopwatch | None, progress: Callable[[int, int], None]) -> list[Network]:
    """All named networks, each measured for some seconds if it has not been before.

    Args:
        stopwatch: of the device; none measures nothing.
        progress: told how many of how many are done.
    """
    rows = []
    if stopwatch is None:
        return [_network(name, settings) for name, settings in SIZES.items()]
    precisions = PRECISIONS if stopwatch.machine.bfloat16 else ("float32",)
    small = [_work(ModelConfig(**SIZES["tiny"]), sizes.PATCH_PX, precision) for precision in precisions]
    precision = max(small, key=lambda work: stopwatch.speed(work).training_patches_per_second).precision
    for number, (name, settings) in enumerate(SIZES.items()):
        progress(number, len(SIZES))
        model = ModelConfig(**settings)
        work = _work(model, valid_size_px(model, sizes.PATCH_PX), precision)
        measured = replace(
            _network(name, settings),
            precision=precision,
            training_per_second=stopwatch.speed(work).training_patches_per_second,
            prediction_per_second=1.0 / _seconds_of_prediction(work, stopwatch.device),
        )
        rows.append(measured)
    progress(len(SIZES), len(SIZES))
    return rows


def _work(model: ModelConfig, edge: int, precision: str) -> Work:
    return Work(
        model=model,
        channels=sizes.CHANNELS,
        classes=sizes.CLASSES,
        patch_size=(edge, edge),
        batch_size=sizes.BATCH,
        precision=precision,
    )


def _seconds_of_prediction(work: Work, device: torch.device) -> float:
    """Of one image, some at once."""
    image = torch.randn(work.batch_size, work.channels, *work.patch_size, device=device)
    predict = prediction(work.model, image.contiguous(memory_format=torch.channels_last), work.precision)
    with keeping_freed_memory():
        return timed(predict, device, at_least=0.5, fewest=2, most=20).lowest_seconds / work.batch_size


def _network(name: str, settings: dict[str, Any]) -> Network:
    model = ModelConfig(**settings)
    with torch.device("meta"):  # counted, not made
        parameters = parameter_count(build(model, sizes.CHANNELS, sizes.CLASSES))
    return Network(name, settings, parameters, forward_gflop(model, valid_size_px(model, sizes.PATCH_PX)))


def to_text(rows: Sequence[Network]) -> str:
    """A table for people."""
    head = f"{'network':9} {'parameters':>11} {'GFLOP':>7} {'trained/s':>10} {'predicted/s':>12}  precision"
    lines = [
        f"{row.name:9} {row.parameters / 1e6:9.1f} M {row.gflop:7.1f} {_rate(row.training_per_second):>10} "
        f"{_rate(row.prediction_per_second):>12}  {row.precision or '-'}"
        for row in rows
    ]
    said = (
        f"Images of {sizes.PATCH_PX} x {sizes.PATCH_PX} px with {sizes.CHANNELS} channels, {sizes.CLASSES} classes, "
        f"{sizes.BATCH} at once, on this machine; GFLOP of one prediction. The plan chooses a width itself: none of "
        "these has to be named. `--set model=NAME` takes one."
    )
    return "\n".join([head, *lines, "", said])


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def to_json(rows: Sequence[Network]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [asdict(row) for row in rows]
