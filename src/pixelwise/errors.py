"""What Pixelwise says when it cannot go on: what is wrong, where, and what to do.

Every error a user can cause is one of these. The command line prints it as one paragraph and
ends with `exit_code`; a traceback means a bug in Pixelwise.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar


class PixelwiseError(Exception):
    """Base of all errors that their reader can mend.

    Args:
        what: what is wrong, one or two sentences, naming the value that was found.
        where: the file or setting it was found in.
        remedy: what the reader can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: Path | str | None = None, remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.what}" if self.where is not None else self.what, self.remedy]
        return " ".join(part for part in parts if part)


class ConfigError(PixelwiseError):
    """Wrong usage: an unknown setting, a value of the wrong type, an impossible combination."""

    exit_code: ClassVar[int] = 2


class DataError(PixelwiseError):
    """Something about images, masks or folders that their owner has to change."""


class WriteError(DataError):
    """A file cannot be written."""


class BundleError(PixelwiseError):
    """A model file that is missing, damaged, not a Pixelwise bundle, or does not fit the images."""


class TrainingError(PixelwiseError):
    """A training run that cannot go on: the loss is not finite."""


class MachineError(PixelwiseError):
    """Memory does not suffice."""


_LACKS_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "shared memory",
    "alloc_failed",
    "allocation_failed",
    "bad_alloc",
)
"""What torch and its libraries say, on a GPU and on a processor; other errors are RuntimeErrors too."""


@contextmanager
def memory_errors(remedy: str) -> Iterator[None]:
    """Turn every kind of "out of memory" into an error that says what to do.

    Raises:
        MachineError: memory did not suffice for what was done in this context.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch's errors are RuntimeErrors, those of a GPU included
        text = str(error)
        if isinstance(error, RuntimeError) and not any(part in text.lower() for part in _LACKS_MEMORY):
            raise
        said = f" ({first_line(error)})" if text else ""
        raise MachineError(f"Memory does not suffice{said}.", remedy=remedy) from None


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Say which extra brings a library that is imported in this context and not installed.

    Args:
        name: of the extra.
        what: such as "OME-Zarr needs zarr".

    Raises:
        ConfigError: the library is not installed.
    """
    try:
        yield
    except ImportError as error:
        library = what.rpartition(" ")[2]
        is_itself = error.name is None or error.name.partition(".")[0].lower() == library.lower()
        missing = "which is not installed" if is_itself else f"which needs {error.name}, which is not installed"
        raise ConfigError(f"{what}, {missing}.", remedy=f"pip install 'pixelwise[{name}]'") from None


def first_line(error: BaseException) -> str:
    """What an error of another library says, cut at the end of its first line; its kind if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
