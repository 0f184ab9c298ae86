"""What run.json says of a run: training writes it, and whoever takes a run for more than its model reads it."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pixelwise.data.dataset import MaskEncoding
from pixelwise.errors import DataError
from pixelwise.files import read_json

RESTORE = "Take the original file from a backup, or name the bundle (best.safetensors) and its data instead of the run."

Content = TypeVar("Content")


class RunFacts(BaseModel):
    """What run.json says of a run; texts beyond these are kept for the report."""

    model_config = ConfigDict(extra="allow", frozen=True)

    data: str
    """The folder or data.yaml it was trained on, as an absolute path."""
    mask_encoding: MaskEncoding
    """What the values of its masks mean."""
    training_images: tuple[str, ...] | None = None
    """Digests of the images that it, or what it started or learnt from, was trained on; none where they were not
    written down."""
    started_from: str | None = None
    """The run or bundle whose weights it began with."""
    teacher: str | None = None
    """The run or bundle that it learnt from beside the masks."""
    validation_hash: str | None = None
    """Of the images that it was judged by while it trained, with their masks."""
    versions: dict[str, str] = {}

    def texts(self) -> dict[str, str]:
        """All that is text and for people, which hashes are not."""
        texts = {name: value for name, value in self.model_dump().items() if isinstance(value, str)}
        return {name: text for name, text in texts.items() if not name.endswith("_hash")}


def read_facts(path: Path) -> RunFacts:
    """The content of run.json.

    Raises:
        DataError: the file is missing or damaged.
    """
    return checked(lambda: RunFacts.model_validate(read_json(path)), path, RESTORE)


def checked(read: Callable[[], Content], path: Path, remedy: str) -> Content:
    """The content of a file of a run.

    Args:
        read: reads it.
        path: of the file.
        remedy: what to do where it is damaged.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return read()
    except DataError as error:
        raise DataError(error.what, where=error.where or path, remedy=error.remedy or remedy) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        what = f"This file is damaged ({f'{place}: ' if place else ''}{first['msg']})."
        raise DataError(what, where=path, remedy=remedy) from None
    except (OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        # RuntimeError: a count that no int64 holds
        what = f"This file is damaged ({type(error).__name__}: {error})."
        raise DataError(what, where=path, remedy=remedy) from None
