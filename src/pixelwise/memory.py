"""The memory of this process: how much it holds and may hold, and what becomes of what it frees."""

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from pixelwise.control_groups import HERE, Groups

# the C library's parameters by number (malloc.h and mallopt(3) of glibc)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEEPING = {_TRIM_THRESHOLD: -1, _TOP_PAD: 64 * 2**20}
# where glibc's own thresholds, which end to adapt once one is set, come to in a program that frees large blocks
_USUAL = {_TRIM_THRESHOLD: 64 * 2**20, _TOP_PAD: 128 * 1024, _MMAP_THRESHOLD: 32 * 2**20, _MMAP_MAX: 65536}


class _Keepers:
    """How many want freed memory to stay: the last to leave lets it go."""

    def __init__(self) -> None:
        self._count, self._lock = 0, threading.Lock()

    def enter(self, mapped: dict[int, int]) -> None:
        with self._lock:
            self._count += 1
            if self._count == 1:
                _tell(_KEEPING | mapped)

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                _tell(_USUAL)
                give_back_memory()


_KEEPERS = _Keepers()  # one, since the C library has one setting for all threads


@contextlib.contextmanager
def keeping_freed_memory(mapped_from: int | None = None) -> Iterator[None]:
    """Within, memory that is freed stays with the process, to be used again; afterwards it goes back to the system.

    A training step frees and asks for the same hundreds of megabytes again and again. glibc maps each large tensor
    anew, and the system then clears every page of it: a fifth of the time of a step on a CPU. Nothing changes
    elsewhere than on glibc, and where the environment has settings for it.

    Args:
        mapped_from: of so many bytes and more, what the heap has no room for is mapped by itself and goes back at once.
            Where few are as large, the heap stays small, and it costs nothing. The first of several has its way.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        yield
        return
    _KEEPERS.enter({_MMAP_MAX: 0} if mapped_from is None else {_MMAP_THRESHOLD: mapped_from})
    try:
        yield
    finally:
        _KEEPERS.leave()


def give_back_memory() -> None:
    """Let the system have what was freed: glibc keeps it in pieces that fit nothing, which become more and more."""
    with contextlib.suppress(OSError, AttributeError):  # another system, another library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _tell(parameters: dict[int, int]) -> None:
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        for parameter, value in parameters.items():
            library.mallopt(parameter, value)


def held_bytes() -> int:
    """What this process holds."""
    return int(psutil.Process().memory_info().rss)


def free_bytes(groups: Groups = HERE) -> int:
    """What processes may still take: of the machine, or of the container or job that this one runs in."""
    free = int(psutil.virtual_memory().available)
    left = (_left(folder, _NAMES[version]) for folder, version in groups.limiting("memory"))
    return max(0, min([free, *(count for count in left if count is not None)]))


_NAMES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
"""By the version of control groups: files with the limit and with what is used, and the line of memory.stat that says
what of it can be taken back."""


def _left(group: Path, names: tuple[str, str, str]) -> int | None:
    """Bytes that a control group may still take; none where it has no limit."""
    limit_file, used_file, cached_line = names
    try:
        limit, used = (int((group / name).read_text()) for name in (limit_file, used_file))
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group, or no limit: "max"
        return None
    return limit - used + next((int(value) for name, value in lines if name == cached_line), 0)


def peak_during(work: Callable[[], object]) -> int:
    """The most memory that this process holds while it does some work, in bytes."""
    with watching_memory() as peak:
        work()
    return peak()


@contextlib.contextmanager
def watching_memory(every_seconds: float = 0.002) -> Iterator[Callable[[], int]]:
    """Within, a thread looks again and again; gives a function that tells the most bytes that were held."""
    most = [held_bytes()]
    over = threading.Event()

    def look() -> None:
        while not over.wait(every_seconds):
            most[0] = max(most[0], held_bytes())

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    try:
        yield lambda: most[0]
    finally:
        over.set()
        watch.join()
