"""NumPy's own files, whose headers are read by one thread at a time.

CPython 3.11 counts wrongly when two threads parse text at once, as NumPy does with a header, and raises SystemError
(python/cpython, issue 106905).
"""

import threading
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

_PARSING = threading.Lock()


def mapped(path: Path) -> Shaped[np.ndarray, "..."]:
    """An array in a .npy file, of which is read what is looked at; raises what `numpy.load` raises."""
    with _PARSING:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def archived(content: bytes) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The arrays of a .npz file, by name; raises what `numpy.load` raises."""
    with _PARSING, np.load(BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
