"""What this machine can do."""

from collections.abc import Sequence
from pathlib import Path

from pixelwise.bench.ceiling import Ceiling
from pixelwise.bench.ceiling import measure as measure_ceiling
from pixelwise.bench.contest import refuse_other_python, with_rivals
from pixelwise.bench.figures import FIGURES, Bench, Figure
from pixelwise.errors import ConfigError
from pixelwise.inference import predictor
from pixelwise.training.machine import Machine, this_machine
from pixelwise.training.watch import Watcher


def bench(
    device: str = "auto", only: Sequence[str] = (), rivals: Path | None = None, watcher: Watcher | None = None
) -> tuple[Machine, Ceiling, list[Figure]]:
    """Measure what this machine can do, and what Pixelwise does with it.

    Args:
        device: auto, cpu, cuda or mps.
        only: names of `bench.figures.FIGURES`; none measures all of them, which takes some minutes.
        rivals: a Python that has other programs, which are measured at the same work on a CPU; none leaves them out.
        watcher: told how far it is.

    Raises:
        ConfigError: there is no such device or figure, or that is no Python with rivals.
    """
    watcher = watcher or Watcher()
    wanted = list(only) or list(FIGURES)
    unknown = [name for name in wanted if name not in FIGURES]
    if unknown:
        raise ConfigError(f"There is no figure '{unknown[0]}'.", remedy=f"There are: {', '.join(FIGURES)}.")
    chosen = predictor.choose_device(device)
    if rivals is not None:
        if chosen.type != "cpu":
            raise ConfigError("Rivals are measured on the CPU.", remedy="Add --device cpu, or leave --rivals out.")
        refuse_other_python(rivals)
    watcher.say("measuring the ceiling of this machine")
    ceiling = measure_ceiling(chosen)
    rates = ceiling.convolution_gflops
    where = Bench(chosen, ceiling, max(rates, key=lambda precision: rates[precision]))
    figures: list[Figure] = []
    for number, name in enumerate(wanted):
        watcher.work("measuring", number, len(wanted))
        measured = list(FIGURES[name](where))
        figures += measured if rivals is None else with_rivals(measured, name, rivals, watcher.say)
    watcher.work("measuring", len(wanted), len(wanted))
    return this_machine(chosen), ceiling, figures
