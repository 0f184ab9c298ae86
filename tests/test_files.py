"""Writes leave the old file or the new one."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pixelwise import files
from pixelwise.errors import DataError
from pixelwise.files import held, make_folder, read_json, write_atomically, write_json


def test_content_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"old")
    write_atomically(tmp_path / "a", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"new")]


def test_a_full_disk_keeps_the_old_file_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "a", b"old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"No space left on device.*Free some space"):
        write_atomically(tmp_path / "a", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        write_atomically(tmp_path / "a", b"x")
    finally:
        os.umask(previous)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(DataError, match="runs"):
        make_folder(tmp_path / "runs" / "x")


def test_damaged_json_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "good.json", {"a": [1, None]})
    assert read_json(tmp_path / "good.json") == {"a": [1, None]}
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match=r"bad\.json"):
        read_json(tmp_path / "bad.json")


HOLDER = """
import sys, time
from pathlib import Path
from pixelwise.files import held

with held(Path(sys.argv[1])) as is_alone:
    print(is_alone, flush=True)
    time.sleep(60)
"""


def test_one_process_holds_a_folder_until_it_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    with other, other.stdout:
        assert other.stdout.readline() == "True\n"
        with monkeypatch.context() as patched:
            patched.setattr(files, "WAIT_SECONDS", 0.1)
            with held(folder) as is_alone:
                assert not is_alone
        assert folder.exists()
        other.kill()
    with held(folder) as is_alone:
        assert is_alone
        (folder / "kept").touch()
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_a_folder_that_was_made_to_be_held_goes_again_if_nothing_is_left_in_it(tmp_path: Path) -> None:
    with held(tmp_path / "run") as is_alone:
        assert is_alone
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_on_a_disk_without_locks_each_holds_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def missing(*_given: object) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr("fcntl.flock", missing)
    monkeypatch.setattr(files, "WAIT_SECONDS", 0.1)
    with held(tmp_path / "run") as is_alone, held(tmp_path / "run") as is_alone_too:
        assert (is_alone, is_alone_too) == (True, True)
    assert not (tmp_path / "run").exists()
