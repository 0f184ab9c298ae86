"""The memory of this process: how much it holds, and what becomes of what it frees."""

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator

import psutil

# the C library's parameters by number, and their defaults (malloc.h and mallopt(3) of glibc)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_DEFAULTS = {_TRIM_THRESHOLD: 128 * 1024, _TOP_PAD: 128 * 1024, _MMAP_MAX: 65536}
_KEEPING = {_TRIM_THRESHOLD: -1, _TOP_PAD: 64 * 2**20, _MMAP_MAX: 0}


@contextlib.contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """Within, memory that is freed stays with the process, to be used again; afterwards it goes back to the system.

    A training step frees and asks for the same hundreds of megabytes again and again. glibc maps each large tensor
    anew, and the system then clears every page of it: a fifth of the time of a step on a CPU. Elsewhere than on
    glibc nothing changes.
    """
    _tell(_KEEPING)
    try:
        yield
    finally:
        _tell(_DEFAULTS)
        give_back_memory()


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
