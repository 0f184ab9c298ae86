"""What this machine can do."""

from collections.abc import Sequence
from pathlib import Path

from pixelwise.bench import sizes
from pixelwise.bench.ceiling import Ceiling
from pixelwise.bench.ceiling import measure as measure_ceiling
from pixelwise.bench.contest import refuse_other_python, with_rivals
from pixelwise.bench.figures import FIGURES, Bench, Figure, fitting_batch
from pixelwise.errors import ConfigError, MachineError, memory_errors
from pixelwise.inference import predictor
from pixelwise.training.machine import Machine, this_machine
from pixelwise.training.watch import Watcher


def bench(
    device: str = "auto",
    only: Sequence[str] = (),
    rivals: Path | None = None,
    watcher: Watcher | None = None,
    *,
    seconds: float = sizes.STEPS_AT_LEAST,
) -> tuple[Machine, Ceiling, list[Figure]]:
    """Measure what this machine can do, and what Pixelwise does with it.

    Args:
        device: auto, cpu, cuda or mps.
        only: names of `bench.figures.FIGURES`; none measures all of them, which takes some minutes.
        rivals: a Python that has other programs, which are measured at the same work on a CPU; none leaves them out.
        watcher: told how far it is, and which figures memory does not suffice for.
        seconds: that steps of a network are measured for, at least.

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
    where = Bench(chosen, ceiling, ceiling.precision, fitting_batch(chosen), seconds)
    figures: list[Figure] = []
    for number, name in enumerate(wanted):
        watcher.work("measuring", number, len(wanted))
        measured = _measured(name, where, watcher)
        figures += with_rivals(measured, name, rivals, watcher.say) if rivals is not None and measured else measured
    watcher.work("measuring", len(wanted), len(wanted))
    return this_machine(chosen), ceiling, figures


def _measured(name: str, where: Bench, watcher: Watcher) -> list[Figure]:
    """As many of the figures of that name as fit into memory."""
    found: list[Figure] = []
    try:
        with memory_errors("The figures that follow in this group are left out."):
            for figure in FIGURES[name](where):
                found.append(figure)  # noqa: PERF402  what was measured before an error is kept
    except MachineError as error:
        watcher.say(f"{name}: {error}")
    else:
        if not found:
            watcher.say(f"{name}: nothing to measure without a CUDA GPU")
    return found
