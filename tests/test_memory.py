"""What becomes of freed memory, and how much is held: compared with the system's own account."""

import ctypes
import sys

import numpy as np
import pytest

from pixelwise.memory import give_back_memory, held_bytes, keeping_freed_memory, peak_during

MEGABYTE = 2**20

only_glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"),
    reason="only glibc has these settings",
)


def touch(megabytes: int) -> None:
    """Hold so much for a moment."""
    np.ones(megabytes * MEGABYTE, dtype=np.uint8).sum()


@only_glibc
def test_what_is_freed_stays_within_and_goes_back_afterwards() -> None:
    give_back_memory()
    before = held_bytes()
    with keeping_freed_memory():
        touch(200)
        assert held_bytes() - before > 150 * MEGABYTE
    assert held_bytes() - before < 50 * MEGABYTE
    touch(200)
    assert held_bytes() - before < 50 * MEGABYTE, "and afterwards it is as it was before"


def test_the_peak_is_what_work_held_in_between() -> None:
    give_back_memory()
    before = held_bytes()

    def work() -> None:
        block = np.ones(100 * MEGABYTE, dtype=np.uint8)
        for _ in range(20):
            block += 1

    assert 90 * MEGABYTE < peak_during(work) - before < 150 * MEGABYTE
