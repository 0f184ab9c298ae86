"""What becomes of freed memory, and how much is held: compared with the system's own account."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from pixelwise.control_groups import Groups
from pixelwise.memory import free_bytes, give_back_memory, held_bytes, keeping_freed_memory, peak_during

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


@only_glibc
def test_the_last_of_several_lets_it_go() -> None:
    give_back_memory()
    before = held_bytes()
    with keeping_freed_memory():
        with keeping_freed_memory():
            touch(200)
        assert held_bytes() - before > 150 * MEGABYTE
        touch(200)
        assert held_bytes() - before > 150 * MEGABYTE
    assert held_bytes() - before < 50 * MEGABYTE


@only_glibc
def test_what_is_large_and_fits_nowhere_goes_back_at_once() -> None:
    give_back_memory()
    before = held_bytes()
    with keeping_freed_memory(mapped_from=20 * MEGABYTE):
        touch(200)
        assert held_bytes() - before < 50 * MEGABYTE
        touch(15)
        assert held_bytes() - before > 10 * MEGABYTE


@only_glibc
def test_settings_of_the_environment_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    give_back_memory()
    before = held_bytes()
    with keeping_freed_memory():
        touch(200)
        assert held_bytes() - before < 50 * MEGABYTE


@pytest.mark.parametrize(
    ("limit", "current", "cached", "free"),
    [("max", 500, 0, None), ("1000", "300", "100", 800), ("1000", "1300", "0", 0), (str(10**18), "0", "0", None)],
)
def test_a_container_has_what_it_was_given(
    limit: str, current: str, cached: str, free: int | None, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.write_text("0::/\n")
    limited(tmp_path, limit, current, cached)
    whole = psutil.virtual_memory().available
    found = free_bytes(Groups(tmp_path, own))
    assert found == free if free is not None else found == pytest.approx(whole, rel=0.2)
    assert free_bytes(Groups(tmp_path / "absent", own)) == pytest.approx(whole, rel=0.2)
    assert free_bytes(Groups(tmp_path, tmp_path / "absent")) == pytest.approx(whole, rel=0.2)


def limited(group: Path, limit: str, current: str, cached: str) -> None:
    """Write the files of a control group, version 2."""
    group.mkdir(exist_ok=True, parents=True)
    for name, text in (("max", limit), ("current", current), ("stat", f"anon 5\ninactive_file {cached}\n")):
        (group / f"memory.{name}").write_text(f"{text}\n")


def test_a_job_has_what_it_or_any_group_around_it_was_given(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/\n0::/slurm/job_7/step_0\n")
    groups = tmp_path / "groups"
    limited(groups / "slurm" / "job_7" / "step_0", "max", "100", "0")
    assert free_bytes(Groups(groups, own)) > 10**7
    limited(groups / "slurm" / "job_7", "900", "300", "50")
    assert free_bytes(Groups(groups, own)) == 650
    limited(groups / "slurm" / "job_7" / "step_0", "500", "300", "0")
    assert free_bytes(Groups(groups, own)) == 200
    limited(groups / "slurm" / "job_8", "10", "0", "0")
    assert free_bytes(Groups(groups, own)) == 200, "another's"


def test_limits_of_the_first_version_of_control_groups_hold_too(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("9:name=systemd:/\n4:memory:/docker/abc\n")
    memory = tmp_path / "groups" / "memory"  # a container sees its own group at the top
    memory.mkdir(parents=True)
    (memory / "memory.limit_in_bytes").write_text("2000\n")
    (memory / "memory.usage_in_bytes").write_text("1500\n")
    (memory / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 70\n")
    assert free_bytes(Groups(tmp_path / "groups", own)) == 570
    (memory / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert free_bytes(Groups(tmp_path / "groups", own)) > 10**7


def test_the_peak_is_what_work_held_in_between() -> None:
    give_back_memory()
    before = held_bytes()

    def work() -> None:
        block = np.ones(100 * MEGABYTE, dtype=np.uint8)
        for _ in range(20):
            block += 1

    assert 90 * MEGABYTE < peak_during(work) - before < 150 * MEGABYTE
