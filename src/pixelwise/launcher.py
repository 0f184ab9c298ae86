"""What torchrun and srun tell the processes that they start, and what these tell torchrun."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pixelwise.errors import ConfigError


@dataclass(frozen=True)
class Share:
    """The part of the work that this process does."""

    rank: int = 0
    processes: int = 1

    def of(self, step: int, batch_size: int) -> range:
        """Numbers of the samples of a step that belong to this process; together they are the batch."""
        first, last = (step * batch_size + batch_size * part // self.processes for part in (self.rank, self.rank + 1))
        return range(first, last)


def share_of_this_process(environment: Mapping[str, str] = os.environ) -> Share:
    """The part of this process, as torchrun or srun say; all where neither has started it.

    Raises:
        ConfigError: what they say makes no sense.
    """
    for rank, processes in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        said = (environment.get(rank, ""), environment.get(processes, ""))
        if not all(said):
            continue
        if not (said[0].isdecimal() and said[1].isdecimal() and int(said[0]) < int(said[1])):
            raise ConfigError(
                f"{rank} is '{said[0]}' and {processes} is '{said[1]}', which say no place among processes.",
                remedy="Start the processes with torchrun or srun, or unset these variables.",
            )
        return Share(int(said[0]), int(said[1]))
    return Share()


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process speaks for all: before they are joined, only torchrun and srun can tell."""
    if "LOCAL_WORLD_SIZE" in environment:
        return environment.get("RANK", "0") == "0"
    if "SLURM_NTASKS" in environment:
        return environment.get("SLURM_PROCID", "0") == "0"
    return True


def is_restarted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun has started these processes in place of others, of which one had failed."""
    return environment.get("TORCHELASTIC_RESTART_COUNT", "0") not in {"", "0"}


def launch(environment: Mapping[str, str] = os.environ) -> str | None:
    """What torchrun calls the start of these processes, also when it starts them again; none without it."""
    return environment.get("TORCHELASTIC_RUN_ID")


def process_count(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes torchrun or srun have started, over all machines."""
    local, machines = process_counts(environment)
    return local * machines


def local_count(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes torchrun or srun have started on this machine."""
    return process_counts(environment)[0]


def process_counts(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Processes on this machine, and machines."""
    if "LOCAL_WORLD_SIZE" in environment:  # torchrun
        local = int(environment["LOCAL_WORLD_SIZE"])
        return local, int(environment.get("WORLD_SIZE", local)) // local
    if "SLURM_PROCID" in environment and "SLURM_NTASKS" in environment:  # started by srun
        nodes = int(environment.get("SLURM_NNODES", "1"))
        return int(environment["SLURM_NTASKS"]) // nodes, nodes
    return 1, 1


def threads(environment: Mapping[str, str] = os.environ) -> int | None:
    """Threads for this process to compute with, its share of the processor's cores; none leaves it as it is.

    Where nobody has set OMP_NUM_THREADS, torchrun sets it to 1 for several processes, however many cores there are.
    """
    local = local_count(environment)
    if "TORCHELASTIC_RUN_ID" not in environment or local == 1 or environment.get("OMP_NUM_THREADS") != "1":
        return None
    return max(1, _cores() // local)


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_several(what: str, remedy: str) -> None:
    """Refuse to go on as one of several processes.

    Raises:
        ConfigError: torchrun or srun has started several.
    """
    if process_count() > 1:
        raise ConfigError(f"{what} by one process; {process_count()} were started.", remedy=f"Instead, {remedy}.")


def leave_to_torchrun(message: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Have torchrun say why this process ends, as its last words; else they are a traceback of its own.

    Returns:
        Whether it will: without torchrun, or where it starts the processes again, they have to say it themselves.
    """
    file = environment.get("TORCHELASTIC_ERROR_FILE")
    restarts = (environment.get(f"TORCHELASTIC_{name}", "0") for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    if file is None or len(set(restarts)) > 1:
        return False
    # what `torch.distributed.elastic` writes of an exception, without importing torch
    described = {"message": message, "extraInfo": {"py_callstack": message, "timestamp": str(int(time.time()))}}
    try:
        Path(file).write_text(json.dumps({"message": described}), encoding="utf-8")
    except OSError:
        return False
    return True
