"""Work on many files at once, as far as memory allows, and reading while something else computes."""

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Condition
from typing import TypeVar, cast

import numpy as np

from pixelwise import launcher
from pixelwise.data import formats
from pixelwise.data.dataset import Case
from pixelwise.errors import DataError
from pixelwise.memory import give_back_memory

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_BYTES = 400_000_000
"""What the items that are worked on at a time may take together; a larger one is worked on alone."""

LARGE_BYTES = 50_000_000
"""After an item that takes more, what was freed goes back to the system."""

IMAGE_COPIES = 4
"""Decoding and looking at an image takes so many times its pixels."""

MASK_PIXEL_BYTES = 6
"""Decoding and counting a mask takes so much for each pixel."""

OUTLINE_PIXEL_BYTES = 80
"""A predicted mask, and comparing its outlines with the true ones, take at most about so much for each pixel: 20 where
objects are smooth, 80 where every other pixel is an object."""

IN_A_TURN = 2
"""For each core, so many items are made before all are worked on."""


def in_parallel(
    work: Callable[[Item], Result], items: Sequence[Item], weigh: Callable[[Item], int]
) -> Generator[Result, None, None]:
    """The result for each item, in order, from several threads.

    Args:
        work: what is done.
        items: on what.
        weigh: bytes that work on an item takes.
    """
    gate = _Gate(MOST_BYTES)

    def guarded(item: Item) -> Result:
        weight = weigh(item)
        gate.enter(weight)
        try:
            return work(item)
        finally:
            if weight > LARGE_BYTES:
                give_back_memory()
            gate.leave(weight)

    with ThreadPoolExecutor() as pool:
        yield from pool.map(guarded, items)


def by_turns(
    work: Callable[[Item], Result], items: Iterable[Item], weigh: Callable[[Item], int]
) -> Generator[Result, None, None]:
    """The result for each item, in order: some are made by the caller's thread, worked on by one per core, and so on.

    Not both at a time: each of the many small calls that a GPU is given would wait for Python's lock.

    Args:
        work: what is done.
        items: on what; no more are made for a turn than work and memory allow.
        weigh: bytes that an item and work on it take.
    """
    some: list[Item] = []
    with ThreadPoolExecutor(launcher.cores()) as pool:
        for item in items:
            if len(some) == IN_A_TURN * launcher.cores() or sum(map(weigh, [*some, item])) > MOST_BYTES:
                yield from pool.map(work, some)
                some = []
            some.append(item)
        yield from pool.map(work, some)


def together(items: int, weight: int) -> int:
    """So many items of that weight, of so many in all, are worked on at a time `by_turns`."""
    return max(1, min(items, launcher.cores(), MOST_BYTES // max(1, weight)))


def ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """The same items: while one is used, a thread makes the next."""
    rest, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, rest, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, rest, end)
            yield cast("Item", item)


class _Gate:
    """Lets weights in while their sum stays below a bound, and any weight alone."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._inside = 0
        self._changed = Condition()

    def enter(self, weight: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._inside == 0 or self._inside + weight <= self._bound)
            self._inside += weight

    def leave(self, weight: int) -> None:
        with self._changed:
            self._inside -= weight
            self._changed.notify_all()


def bytes_of_case(case: Case) -> int:
    """About what it takes to decode and look at an image and its mask; 0 for a file that cannot be read."""
    try:
        info = formats.read_info(case.image)
    except DataError:
        return 0
    pixels = case.window[2] * case.window[3] if case.window is not None else info.height * info.width
    return pixels * (IMAGE_COPIES * info.channels * np.dtype(info.dtype).itemsize + MASK_PIXEL_BYTES)
