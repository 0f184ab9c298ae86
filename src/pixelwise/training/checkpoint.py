"""The whole state of a run in one safetensors file, so that it goes on as if it had never stopped.

Patches, augmentation and dropout follow from the seed and the number of the step, so that no state of a
random generator has to be kept.
"""

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pixelwise.errors import BundleError
from pixelwise.files import keep_previous, previous, write_atomically
from pixelwise.models.bundle import hash_of_tensors
from pixelwise.training.history import Epoch, History
from pixelwise.training.update import State, Update

FORMAT = "pixelwise-checkpoint"


@dataclass(frozen=True)
class Progress:
    """What a checkpoint says besides the weights."""

    history: History
    seconds: float
    """Time that training has taken so far."""
    damaged: BundleError | None = None
    """What is wrong with the last checkpoint, where the one before it had to be taken."""


def save(path: Path, state: State, history: History, seconds: float) -> None:
    """Write the state of a run, atomically; the one before it is kept beside it.

    Raises:
        DataError: the file cannot be written.
    """
    from safetensors.torch import save as to_bytes

    progress = {**vars(history), "epochs": [vars(row) for row in history.epochs], "seconds": seconds}
    metadata = {"format": FORMAT, "progress": json.dumps(progress), "hash": hash_of_tensors(state)}
    content = to_bytes(state, metadata)
    keep_previous(path)
    write_atomically(path, content)


def restore(path: Path, update: Update) -> Progress:
    """Put the last saved state into `update`, or the one before it if the last is damaged or missing.

    Raises:
        BundleError: neither can be used; says what is wrong with the last one.
    """
    try:
        return _restore(path, update)
    except BundleError as error:
        try:
            progress = _restore(previous(path), update)
        except BundleError:
            raise error from None
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # else the next save would keep it in the place of the good one
        return replace(progress, damaged=error)


def _restore(path: Path, update: Update) -> Progress:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dictionary
        if metadata.get("format") != FORMAT:
            raise BundleError("This is not a checkpoint of a run.", where=path)
        _refuse_changed(metadata.get("hash", ""), tensors)
        progress = _progress(json.loads(metadata["progress"]))
        update.put_back(tensors)
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"The run cannot be resumed from this file ({' '.join(str(error).split())}).",
            where=path,
            remedy="Start a new run in another folder, with --from this one if you like.",
        ) from None
    update.rate_scale = progress.history.rate_scale
    return progress


def _refuse_changed(written: str, tensors: dict[str, Tensor]) -> None:
    if written != hash_of_tensors(tensors):
        raise ValueError("its content is not what was written")


def _progress(tree: dict[str, Any]) -> Progress:
    epochs = [Epoch(**row) for row in tree["epochs"]]
    seconds = tree.pop("seconds")
    return Progress(History(**{**tree, "epochs": epochs}), seconds)
