"""What torchrun and srun tell the processes that they start, and what these tell torchrun."""

import json
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pixelwise.control_groups import HERE, Groups
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


@dataclass(frozen=True)
class Place:
    """Where a process stands among those that were started together; alone if it was started by itself."""

    by: Literal["torchrun", "srun"] | None = None
    """In whose words it is told."""
    overall: Share = Share()
    local: Share | None = Share()
    """Its part among the processes of its machine; none where that is not told."""

    @property
    def machines(self) -> int | None:
        """How many there are; none where they have not all the same number of processes, or that is not told."""
        if self.local is None or self.overall.processes % self.local.processes:
            return None
        return self.overall.processes // self.local.processes


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """Where this process stands, as torchrun or srun say, in this order: srun may have started torchrun.

    A script of sbatch has not started its tasks by itself: without srun it is alone.

    Raises:
        ConfigError: what they say makes no sense.
    """
    overall = _share(environment, "RANK", "WORLD_SIZE")
    if overall is not None:
        return Place("torchrun", overall, _share(environment, "LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    overall = _share(environment, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
    if overall is None:
        return Place()
    here = {**environment, "SLURM_STEP_TASKS_PER_NODE": _tasks_here(environment)}
    return Place("srun", overall, _share(here, "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"))


def _share(environment: Mapping[str, str], rank: str, processes: str) -> Share | None:
    """A part by the names of the variables that tell it; none where they do not."""
    said = (environment.get(rank, ""), environment.get(processes, ""))
    if not all(said):
        return None
    if not (said[0].isdecimal() and said[1].isdecimal() and int(said[0]) < int(said[1])):
        raise ConfigError(
            f"{rank} is '{said[0]}' and {processes} is '{said[1]}', which say no place among processes.",
            remedy="Start the processes with torchrun or srun, or unset these variables.",
        )
    return Share(int(said[0]), int(said[1]))


def _tasks_here(environment: Mapping[str, str]) -> str:
    """How many tasks this machine has, of srun's list for all: '4(x2),3' are 4, 4 and 3. Nothing if it is not told."""
    runs = re.findall(r"(\d+)(?:\(x(\d+)\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    counts = [count for count, times in runs for _ in range(int(times or 1))]
    number = environment.get("SLURM_NODEID", "")
    return counts[int(number)] if number.isdecimal() and int(number) < len(counts) else ""


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process speaks for all: before they are joined, only torchrun and srun can tell."""
    return place(environment).overall.rank == 0


def is_restarted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun has started these processes in place of others, of which one had failed."""
    return environment.get("TORCHELASTIC_RESTART_COUNT", "0") not in {"", "0"}


def launch(environment: Mapping[str, str] = os.environ) -> str | None:
    """What torchrun calls the start of these processes, also when it starts them again; none without it."""
    return environment.get("TORCHELASTIC_RUN_ID")


def share_cores() -> None:
    """Let this process compute with its share of the cores.

    For a command, before it imports torch, which then reads how many threads to start.
    """
    count = threads()
    if count is not None:
        os.environ["OMP_NUM_THREADS"] = str(count)


def threads(environment: Mapping[str, str] = os.environ) -> int | None:
    """Threads for this process to compute with, its share of the processor's cores; none leaves it as it is.

    Where nobody has set OMP_NUM_THREADS, torchrun sets it to 1 for several processes, however many cores there are, and
    torch starts a thread for each core that it sees, of which a container may have a part of the time only: its threads
    would wait for each other while some of them may not run.
    """
    said = environment.get("OMP_NUM_THREADS")
    local = place(environment).local or Share()
    if said == "1" and "TORCHELASTIC_RUN_ID" in environment and local.processes > 1:
        return max(1, cores() // local.processes)
    return cores() if said is None and cores() < _visible_cores() else None


def cores(groups: Groups = HERE) -> int:
    """Of the processor, those that this process may use: as many as it sees and its container has the time of."""
    quotas = (_quota(folder, version) for folder, version in groups.limiting("cpu"))
    return min([_visible_cores(), *(quota for quota in quotas if quota is not None)])


def _visible_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota(group: Path, version: Literal[1, 2]) -> int | None:
    """Cores that a control group has the time of, a part of one counted as one; none where it has no limit."""
    names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    try:
        quota, period = (int(word) for name in names for word in (group / name).read_text().split())
    except (OSError, ValueError):  # no such group, or no limit: "max"
        return None
    return max(1, math.ceil(quota / period)) if quota > 0 and period > 0 else None


def refuse_several(what: str, remedy: str) -> None:
    """Refuse to go on as one of several processes.

    Raises:
        ConfigError: torchrun or srun has started several.
    """
    count = place().overall.processes
    if count > 1:
        raise ConfigError(f"{what} by one process; {count} were started.", remedy=f"Instead, {remedy}.")


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
