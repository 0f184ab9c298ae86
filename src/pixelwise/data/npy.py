"""NumPy's own files: read, and written by windows.

Headers are read by one thread at a time:

CPython 3.11 counts wrongly when two threads parse text at once, as NumPy does with a header, and raises SystemError
(python/cpython, issue 106905).
"""

import math
import os
import re
import threading
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from pixelwise.files import cannot_write

_PARSING = threading.Lock()


@dataclass(frozen=True)
class Planes:
    """An array in a .npy file, of which windows are written and rows are read.

    Nothing is mapped: the pages of a mapped file count as memory of the process.
    """

    path: Path
    shape: tuple[int, int, int]
    """Planes, height and width."""
    dtype: np.dtype[Any]

    @cached_property
    def header(self) -> bytes:
        """What stands before the numbers."""
        content = BytesIO()
        described = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(content, described)
        return content.getvalue()

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + math.prod(self.shape) * self.dtype.itemsize

    def begin(self) -> None:
        """Make the file, full of zeros, in the place of what was there.

        Raises:
            WriteError: it cannot be made.
        """
        try:
            with self.path.open("wb") as file:
                file.write(self.header)
                file.truncate(self.size)
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def is_there(self) -> bool:
        """Whether the file was begun."""
        return self.path.exists() and self.path.stat().st_size == self.size

    def write(self, part: Shaped[np.ndarray, "K h w"], top: int, left: int) -> None:
        """Put a window of all planes where it belongs; it stays there after a power failure.

        Raises:
            WriteError: the disk is full.
        """
        try:
            with self.path.open("r+b") as file:
                for plane, rows in enumerate(part):
                    for number, row in enumerate(rows):
                        file.seek(self._place(plane, top + number) + left * self.dtype.itemsize)
                        file.write(row.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def rows(self, plane: int, rows: range) -> Shaped[np.ndarray, "h W"]:
        """Rows of a plane."""
        with self.path.open("rb") as file:
            file.seek(self._place(plane, rows.start))
            content = file.read(len(rows) * self.shape[2] * self.dtype.itemsize)
        return np.frombuffer(content, self.dtype).reshape(len(rows), self.shape[2])

    def _place(self, plane: int, row: int) -> int:
        return len(self.header) + (plane * self.shape[1] + row) * self.shape[2] * self.dtype.itemsize


def holds_objects(path: Path) -> bool:
    """Whether a file holds Python objects, as the projects of Cellpose do: no numbers, and never to be opened.

    Its first bytes say so; of a file that cannot be read nothing is known.
    """
    try:
        with path.open("rb") as file:
            return re.match(rb"\x93NUMPY..(?:..|....)\{'descr': '\|O'", file.read(64), re.DOTALL) is not None
    except OSError:
        return False


def mapped(path: Path) -> Shaped[np.ndarray, "..."]:
    """An array in a .npy file, of which is read what is looked at; raises what `numpy.load` raises."""
    with _PARSING:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def archived(content: bytes) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The arrays of a .npz file, by name; raises what `numpy.load` raises."""
    with _PARSING, np.load(BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
