"""The named networks: how large they are, what they compute, and how fast this machine is with them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pixelwise.bench import sizes
from pixelwise.config import SIZES, ModelConfig
from pixelwise.models.blocks import parameter_count
from pixelwise.models.unet import build, valid_size_px
from pixelwise.training.machine import Speed, Stopwatch, Work

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Network:
    """A named network, with images of `bench.sizes`."""

    name: str
    settings: dict[str, Any]
    parameters: int
    gflop: float
    """10^9 operations for one image, a product and a sum counted as two; three times as many in training."""
    precision: str
    """That is faster here, for a small network."""
    training_per_second: float
    """Images."""
    prediction_per_second: float
    """Images."""


def networks(stopwatch: Stopwatch, progress: Callable[[int, int], None]) -> list[Network]:
    """All named networks, each measured for some seconds if it has not been before.

    Args:
        stopwatch: of the device.
        progress: told how many of how many are done.
    """
    rows = []
    small = [_work(ModelConfig(**SIZES["tiny"]), sizes.PATCH_PX, precision) for precision in PRECISIONS]
    precision = max(small, key=lambda work: stopwatch.speed(work).training_patches_per_second).precision
    for number, (name, settings) in enumerate(SIZES.items()):
        progress(number, len(SIZES))
        model = ModelConfig(**settings)
        edge = valid_size_px(model, sizes.PATCH_PX)
        rows.append(_network(name, settings, edge, stopwatch.speed(_work(model, edge, precision))))
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


def _network(name: str, settings: dict[str, Any], edge: int, speed: Speed) -> Network:
    with torch.device("meta"):  # counted, not computed
        network = build(speed.work.model, sizes.CHANNELS, sizes.CLASSES).eval()
        image = torch.zeros(1, sizes.CHANNELS, edge, edge)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return Network(
        name,
        settings,
        parameter_count(network),
        counter.get_total_flops() / 1e9,
        speed.work.precision,
        speed.training_patches_per_second,
        speed.prediction_patches_per_second,
    )


def to_text(rows: Sequence[Network]) -> str:
    """A table for people."""
    head = f"{'network':9} {'parameters':>11} {'GFLOP':>7} {'trained/s':>10} {'predicted/s':>12}  precision"
    lines = [
        f"{row.name:9} {row.parameters / 1e6:9.1f} M {row.gflop:7.1f} {row.training_per_second:10.1f} "
        f"{row.prediction_per_second:12.1f}  {row.precision}"
        for row in rows
    ]
    said = (
        f"Images of {sizes.PATCH_PX} x {sizes.PATCH_PX} px with {sizes.CHANNELS} channels, {sizes.CLASSES} classes, "
        f"{sizes.BATCH} at once, on this machine; GFLOP of one prediction. The plan chooses a width itself: none of "
        "these has to be named. `--set model=NAME` takes one."
    )
    return "\n".join([head, *lines, "", said])


def to_json(rows: Sequence[Network]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [asdict(row) for row in rows]
