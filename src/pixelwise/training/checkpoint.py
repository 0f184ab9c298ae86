"""The whole state of a run in one safetensors file, so that it goes on as if it had never stopped.

Patches, augmentation and dropout follow from the seed and the number of the step, so that no state of a
random generator has to be kept.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pixelwise.errors import BundleError
from pixelwise.files import write_atomically
from pixelwise.models.bundle import state_on_cpu
from pixelwise.training.loop import Epoch, History
from pixelwise.training.update import Update

FORMAT = "pixelwise-checkpoint"


@dataclass(frozen=True)
class Progress:
    """What a checkpoint says besides the weights."""

    history: History
    seconds: float
    """Time that training has taken so far."""


def save(path: Path, update: Update, history: History, seconds: float) -> None:
    """Write the state of a run, atomically.

    Raises:
        DataError: the file cannot be written.
    """
    from safetensors.torch import save as to_bytes

    metadata = {
        "format": FORMAT,
        "progress": json.dumps({**vars(history), "epochs": [vars(row) for row in history.epochs], "seconds": seconds}),
    }
    write_atomically(path, to_bytes(_tensors(update), metadata))


def restore(path: Path, update: Update) -> Progress:
    """Put a saved state into `update` and return what else was saved.

    Raises:
        BundleError: the file is damaged or belongs to another network.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dictionary
        if metadata.get("format") != FORMAT:
            raise BundleError("This is not a checkpoint of a run.", where=path)
        progress = _progress(json.loads(metadata["progress"]))
        _put_back(tensors, update)
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"The run cannot be resumed from this file ({' '.join(str(error).split())}).",
            where=path,
            remedy="Start a new run in another folder.",
        ) from None
    return progress


def _progress(tree: dict[str, Any]) -> Progress:
    epochs = [Epoch(**row) for row in tree["epochs"]]
    return Progress(History(tree["step"], epochs, tree["best_score"], tree["best_epoch"]), tree["seconds"])


def _tensors(update: Update) -> dict[str, Tensor]:
    tensors = {f"network.{name}": tensor for name, tensor in state_on_cpu(update.plain).items()}
    tensors |= {f"average.{name}": tensor for name, tensor in state_on_cpu(update.average).items()}
    for index, values in update.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value.detach().cpu().clone() for name, value in values.items()}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _put_back(tensors: dict[str, Tensor], update: Update) -> None:
    update.plain.load_state_dict(_below(tensors, "network."))
    update.average.load_state_dict(_below(tensors, "average."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer.").items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = tensor
    update.optimizer.load_state_dict({**update.optimizer.state_dict(), "state": state})


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
