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
        "# Performance",
        "",
        "Written by `pixelwise bench`, with other programs by `make bench-rivals`. Times are medians; a rate is that",
        "of the arithmetic of convolutions, a product and a sum counted as two; the ceiling of a network is the",
        "matrix product on a GPU, and the fastest convolution, forward and backward, elsewhere.",
        "",
        f"Measured on {machine.name}, {machine.cores} threads, {machine.memory_gb:g} GB, {machine.device}; {versions}.",
        "",
        "| ceiling | float32 | bfloat16 |",
        "|---|---:|---:|",
        *(
            f"| {name}, GFLOP/s | {rates['float32']:.0f} | {_rate(rates.get('bfloat16'))} |"
            for name, rates in (("matrix product", ceiling.matrix_gflops), ("convolution", ceiling.convolution_gflops))
        ),
        "",
        f"Memory is copied at {ceiling.copy_gb_per_second:.1f} GB/s.",
        "",
        "| figure | value | lowest to highest time | rate, GFLOP/s | share of the ceiling |",
        "|---|---:|---:|---:|---:|",
        *map(_row, figures),
    ]
    contests = [line for figure in figures for line in _contest(figure)]
    if contests:
        lines += [
            "",
            "Others at the same work, in the same run, as they come: in float32. Pixelwise computes in",
            f"{ceiling.precision} where a figure does not say otherwise; others predict the large image once.",
            "",
            "| figure | Pixelwise | rival | its value | Pixelwise is |",
            "|---|---:|---|---:|---:|",
            *contests,
        ]
    if machine.device == "cpu":
        lines += [
            "",
            "No GPU was measured here: `pixelwise bench` measures one where there is one, in less than ten minutes.",
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


def _rate(gflops: float | None) -> str:
    return "none of its own" if gflops is None else f"{gflops:.0f}"


def _row(figure: Figure) -> str:
    timing = figure.timing
    of = f" for {figure.together}" if figure.together > 1 else ""
    times = f"{timing.lowest_seconds:.3g} to {timing.highest_seconds:.3g} s{of}, {timing.repetitions} times"
    rate = f"{figure.gflops:.0f}" if figure.gflops is not None else ""
    share = f"{figure.share:.0%}" if figure.share is not None else ""
    if figure.peak_bytes is not None:
        times += f"; {_megabytes(figure.peak_bytes)}"
    return f"| {figure.name} | {figure.value:.3g} {figure.unit} | {times} | {rate} | {share} |"


def _contest(figure: Figure) -> list[str]:
    """A line for each rival, the fastest first."""
    lines = []
    for entry in sorted(figure.rivals, key=lambda entry: entry.timing.median_seconds):
        factor = entry.timing.median_seconds / figure.timing.median_seconds
        value = figure.value / factor if figure.unit.endswith("/s") else figure.value * factor
        ours, theirs = (f"{number:.3g} {figure.unit}" for number in (figure.value, value))
        if entry.peak_bytes is not None and figure.peak_bytes is not None:
            ours, theirs = f"{ours}, {_megabytes(figure.peak_bytes)}", f"{theirs}, {_megabytes(entry.peak_bytes)}"
        lines.append(f"| {figure.name} | {ours} | {entry.rival} | {theirs} | {factor:.2f} times as fast |")
    return lines


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
