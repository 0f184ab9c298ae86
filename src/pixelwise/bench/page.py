"""What was measured, as a table for people and as JSON for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pixelwise.bench.ceiling import Ceiling
from pixelwise.bench.figures import Figure
from pixelwise.training.machine import VERSIONS, Machine


def to_markdown(machine: Machine, ceiling: Ceiling, figures: Sequence[Figure]) -> str:
    """A page with the machine, its ceiling, and the figures beside it."""
    versions = ", ".join(f"{name} {number}" for name, number in VERSIONS.items())
    lines = [
        f"Measured on {machine.name}, {machine.cores} threads, {machine.memory_gb:g} GB, {machine.device}; {versions}.",
        "",
        "| ceiling | float32 | bfloat16 |",
        "|---|---:|---:|",
        *(
            f"| {name}, GFLOP/s | {rates['float32']:.0f} | {rates['bfloat16']:.0f} |"
            for name, rates in (("matrix product", ceiling.matrix_gflops), ("convolution", ceiling.convolution_gflops))
        ),
        "",
        f"Memory is copied at {ceiling.copy_gb_per_second:.1f} GB/s.",
        "",
        "| figure | value | lowest to highest time | rate, GFLOP/s | share of the ceiling |",
        "|---|---:|---:|---:|---:|",
        *map(_row, figures),
    ]
    return "\n".join(lines) + "\n"


def to_json(machine: Machine, ceiling: Ceiling, figures: Sequence[Figure]) -> dict[str, Any]:
    """The same as a tree."""
    return {
        "machine": machine.model_dump(mode="json"),
        "versions": VERSIONS,
        "ceiling": asdict(ceiling),
        "figures": [asdict(figure) | {"share": figure.share} for figure in figures],
    }


def _row(figure: Figure) -> str:
    timing = figure.timing
    times = f"{timing.lowest_seconds:.3g} to {timing.highest_seconds:.3g} s, {timing.repetitions} times"
    rate = f"{figure.gflops:.0f}" if figure.gflops is not None else ""
    share = f"{figure.share:.0%}" if figure.share is not None else ""
    return f"| {figure.name} | {figure.value:.3g} {figure.unit} | {times} | {rate} | {share} |"
