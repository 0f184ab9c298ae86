"""Writes that leave the old file or the new one, never half of one."""

import contextlib
import errno
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pixelwise.errors import DataError, WriteError

LOCK = ".held"
"""The file by which a process holds a folder."""

WAIT_SECONDS = 10.0
"""A folder that another process holds is waited for: those that read for one that died live on for five seconds."""


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by new content in one step: temporary file beside it, fsync, rename.

    Raises:
        DataError: the folder is missing or read-only, or the disk is full.
    """
    write_stream(path, lambda stream: stream.write(content))


def write_stream(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Replace a file, as `write_atomically` does, by what `fill` writes into a stream: for what is large.

    Raises:
        DataError: the folder is missing or read-only, or the disk is full.
    """
    try:
        _replace(path, fill)
    except OSError as error:
        raise cannot_write(path, error) from None


def write_by_path(path: Path, fill: Callable[[Path], object]) -> None:
    """Replace a file, as `write_atomically` does, by what `fill` writes under another name: some libraries want one.

    Raises:
        WriteError: it cannot be written, whatever kind of error the library has for that.
    """
    beside = path.with_name(f".{secrets.token_hex(8)}.{path.name}"[-200:])
    try:
        fill(beside)
        with beside.open("r+b") as stream:
            os.fsync(stream.fileno())
        beside.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    except Exception as error:  # noqa: BLE001  GDAL has errors of its own
        raise WriteError(f"This cannot be written ({error}).", where=path, remedy="Choose another place.") from None
    finally:
        beside.unlink(missing_ok=True)


def copy_file(path: Path, to: Path) -> None:
    """Copy the bytes of a file, which appear whole or not at all.

    Raises:
        DataError: the file cannot be read, or the other not be written.
    """
    try:
        source = path.open("rb")
    except OSError as error:
        raise DataError(f"This file cannot be read ({error.strerror}).", where=path) from None
    with source:
        try:
            _replace(to, lambda stream: shutil.copyfileobj(source, stream))
        except OSError as error:
            raise cannot_write(to, error) from None


def previous(path: Path) -> Path:
    """Where `keep_previous` keeps what was in the place of a file."""
    return path.with_name(f"previous{path.suffix}")


def keep_previous(path: Path) -> None:
    """Give a file that is about to be replaced another name as well, under which it stays.

    Raises:
        DataError: the folder cannot be written.
    """
    other = previous(path)
    if not path.exists():
        return
    try:
        other.unlink(missing_ok=True)
        try:
            os.link(path, other)  # the file keeps its name until the new one takes it
        except OSError:  # a disk without links
            path.replace(other)
    except OSError as error:
        raise cannot_write(other, error) from None


def write_json(path: Path, content: Any) -> None:
    """Write JSON for people, atomically; nan is refused, since JSON has none.

    Raises:
        DataError: as `write_atomically`.
    """
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"This file cannot be read as JSON ({error}).", where=path) from None


def make_folder(path: Path) -> Path:
    """Create a folder with its parents, if need be, and return it.

    Raises:
        DataError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None
    return path


@contextlib.contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Within, this process alone holds a folder, which is made if need be; gives whether it does.

    A process that dies lets go of it. On a disk that knows no locks, each holds it that asks. A folder in which nothing
    is left afterwards goes again.

    Raises:
        DataError: the folder cannot be made.
    """
    import filelock  # not before: most commands hold none

    lock = filelock.FileLock(make_folder(folder) / LOCK, timeout=WAIT_SECONDS)
    try:
        with warnings.catch_warnings(action="ignore"):  # that there are no locks is what is asked below
            lock.acquire()
    except filelock.Timeout:
        yield False
        return
    except (NotImplementedError, OSError):  # no locks here, or nothing can be written, which the next file will say
        lock.release()
    if isinstance(lock, filelock.SoftFileLock):  # what it becomes where there are none would outlive this process
        lock.release()
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):  # not on every system while it is locked
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):
            folder.rmdir()


def cannot_write(path: Path, error: OSError) -> WriteError:
    """What to say when a file cannot be written."""
    remedies = {
        errno.ENOSPC: "Free some space, or write to another disk.",
        errno.EDQUOT: "Your quota is used up: free some space, or write to another disk.",
        errno.EACCES: "Choose a folder that you may write to.",
        errno.EPERM: "Choose a folder that you may write to.",
        errno.ENOENT: "The folder does not exist. Create it first.",
        errno.ENOTDIR: "A file stands where a folder is needed; choose another name.",
        errno.EISDIR: "A folder of that name exists; choose another name.",
        errno.ENAMETOOLONG: "Choose a shorter name.",
        errno.EROFS: "Choose a folder that you may write to.",
    }
    remedy = remedies.get(error.errno or 0, "Choose another place.")
    return WriteError(f"This cannot be written ({error.strerror or error}).", where=path, remedy=remedy)


def _replace(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    beginning = path.name.encode(errors="surrogateescape")[:100].decode(errors="ignore")
    name = path.with_name(f".{beginning}.{secrets.token_hex(8)}")
    stream = name.open("xb")
    try:
        with stream:
            fill(stream)
            stream.flush()
            os.fsync(stream.fileno())
        name.replace(path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise
