"""The bundle: one safetensors file with the weights and everything needed to use them.

Its metadata is JSON: settings of the network, preprocessing, classes with colours, tile size, how it
was trained. Nothing is ever unpickled, so a bundle from a stranger can be opened safely; but if its encoder is one of
your own (`module:name`), the module of that name is imported, from the working directory or from what is installed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from pixelwise.classes import IGNORE, ClassTable
from pixelwise.config import ModelConfig, PostprocessingConfig, PredictionConfig, Preprocessing, Section, Size
from pixelwise.errors import BundleError
from pixelwise.files import write_atomically
from pixelwise.models.encoders import ENCODERS
from pixelwise.models.ensemble import Ensemble, seen_by
from pixelwise.models.unet import UNet, build

FORMAT = "pixelwise-bundle"
VERSION = 1

BEST = "best.safetensors"
"""The bundle in the folder of a run."""


class Description(Section):
    """What a bundle says of its weights."""

    model: ModelConfig
    """The network."""
    preprocessing: Preprocessing
    """What is done to an image before the network sees it."""
    classes: ClassTable
    """Names and colours by class index."""
    ignore_value: int = IGNORE
    """Mask value of pixels that did not count."""
    patch_size: Size
    """Height and width of what the network saw in training, in pixels."""
    prediction: PredictionConfig = PredictionConfig()
    """How to predict, unless told otherwise."""
    postprocessing: PostprocessingConfig = PostprocessingConfig()
    """What is done after the network."""
    members: Annotated[int, Field(ge=1, le=1000)] = 1
    """Networks whose probabilities are averaged."""
    bfloat16: bool = False
    """The scores of training were measured with bfloat16 convolutions."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Summary for people: epochs, seconds, validation scores, seed, hash of the data, versions."""

    @model_validator(mode="after")
    def _has_all_classes(self) -> "Description":
        after = self.postprocessing
        if any(
            part is not None and len(part) != len(self.classes) for part in (after.class_factors, after.smallest_px)
        ):
            raise ValueError(f"its postprocessing is not for {len(self.classes)} classes")
        return self


@dataclass(frozen=True)
class Bundle:
    """A description and the weights it belongs to."""

    description: Description
    weights: dict[str, Tensor]
    path: Path | None = None
    """Where it was read from."""

    def network(self) -> UNet | Ensemble:
        """The network with these weights, in evaluation mode.

        Raises:
            BundleError: the weights do not belong to the described network.
        """
        # nothing is allocated for what a file only claims; parts from elsewhere may hold more than their state says
        with torch.device("meta" if self.description.model.encoder in ENCODERS else "cpu"):
            network = self._without_weights()
        try:
            # copies: the file may be replaced while the network is in use
            network.load_state_dict({name: tensor.clone() for name, tensor in self.weights.items()}, assign=True)
        except RuntimeError as error:
            raise self._unfit(str(error).splitlines()[-1].strip()) from None
        if any(tensor.dtype not in (torch.float32, torch.int64) for tensor in self.weights.values()):
            raise self._unfit("they are numbers of another type")
        return network.eval()

    def _without_weights(self) -> UNet | Ensemble:
        said = self.description
        channels, count = said.preprocessing.channels, said.members
        members = [build(said.model, channels, len(said.classes)) for _ in range(count)]
        return Ensemble(members, torch.ones(count, channels), torch.zeros(count, channels)) if count > 1 else members[0]

    def _unfit(self, why: str) -> BundleError:
        return BundleError(
            f"The weights do not fit the network that the file describes ({why}).",
            where=self.path,
            remedy="The file is damaged or was edited; take the original.",
        )


def joined(bundles: Sequence[Bundle]) -> Bundle:
    """One bundle of several, whose probabilities are averaged.

    Raises:
        BundleError: they differ in more than their weights, and the mean and deviation of their training images.
    """
    first = bundles[0].description
    for bundle in bundles:
        _refuse_other("members", 1, bundle.description.members, bundle)
    for bundle in bundles[1:]:
        for name in ("model", "classes", "patch_size", "bfloat16"):
            _refuse_other(name, getattr(first, name), getattr(bundle.description, name), bundle)
        for name in ("channels", "normalisation", "resize"):
            ours, theirs = getattr(first.preprocessing, name), getattr(bundle.description.preprocessing, name)
            _refuse_other(name, ours, theirs, bundle)
    looks = [bundle.description.preprocessing for bundle in bundles]
    pairs = [seen_by(theirs, looks[0]) for theirs in looks]
    weights = {
        f"members.{number}.{name}": tensor
        for number, bundle in enumerate(bundles)
        for name, tensor in bundle.weights.items()
    }
    weights["scale"], weights["shift"] = (torch.stack(values) for values in zip(*pairs, strict=True))
    types = tuple(sorted({kind for look in looks for kind in look.types}))
    largest = max(look.largest for look in looks)
    description = first.model_copy(
        update={
            "members": len(bundles),
            "postprocessing": PostprocessingConfig(),
            "preprocessing": looks[0].model_copy(update={"types": types, "largest": largest}),
            "training": {"members": [bundle.description.training for bundle in bundles]},
        }
    )
    return Bundle(description, weights)


def _refuse_other(name: str, ours: Any, theirs: Any, bundle: Bundle) -> None:
    if ours != theirs:
        raise BundleError(
            f"Its {name} is not that of the first model, so that they are no ensemble.",
            where=bundle.path,
            remedy="Join models of equal settings, as `pixelwise train --folds` makes them.",
        )


def save(bundle: Bundle, path: Path) -> None:
    """Write a bundle so that an interruption leaves the old file or the new one.

    Raises:
        DataError: the file cannot be written.
    """
    from safetensors.torch import save as to_bytes

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in bundle.weights.items()}
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "description": bundle.description.model_dump_json(),
        "hash": hash_of_tensors(weights),
    }
    write_atomically(path, to_bytes(weights, metadata))


def load(path: Path) -> Bundle:
    """Read a bundle, or the best one of a run's folder.

    Raises:
        BundleError: the file is missing, damaged, not a bundle, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    path = find(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dictionary
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"This is not a Pixelwise bundle ({error}).",
            where=path,
            remedy="Bundles are the best.safetensors of a run.",
        ) from None
    description = _description(metadata, path)
    if metadata.get("hash", "") not in ("", hash_of_tensors(weights)):
        raise BundleError(
            "This bundle is damaged: its weights are not those that were written.",
            where=path,
            remedy="Copy the file again, or evaluate and export from the run that made it.",
        )
    return Bundle(description, weights, path)


def find(path: Path) -> Path:
    """The file of a bundle, which a run's folder may stand for.

    Raises:
        BundleError: there is none.
    """
    file = path / BEST if path.is_dir() else path
    if not file.is_file():
        raise _no_model(path)
    return file


def _no_model(named: Path) -> BundleError:
    """What is there in place of a model."""
    if not named.is_dir():
        what, remedy = "There is no such file or folder.", f"Name the folder of a run, or its {BEST}."
        return BundleError(what, where=named, remedy=remedy)
    runs = sorted(path.parent.name for path in named.glob(f"*/{BEST}"))
    if runs:
        remedy = f"Name one of the runs below it, such as {named / runs[-1]}."
    elif any(named.iterdir()):
        remedy = (
            "The folder of a run holds one after its first validation; a run that was stopped goes on with --resume."
        )
    else:
        remedy = "The folder is empty: name that of a run."
    return BundleError(f"This folder holds no model ({BEST}).", where=named, remedy=remedy)


def _description(metadata: dict[str, str], path: Path) -> Description:
    if metadata.get("format") != FORMAT:
        raise BundleError(
            "This file holds weights, but it is not a Pixelwise bundle: it does not say how to use them.",
            where=path,
            remedy="Bundles are the best.safetensors of a run.",
        )
    if metadata.get("version") != str(VERSION):
        raise BundleError(
            f"This bundle is of version {metadata.get('version')}, and this Pixelwise reads version {VERSION}.",
            where=path,
            remedy="Use the Pixelwise that wrote it, or a newer one.",
        )
    try:
        return Description.model_validate(json.loads(metadata["description"]))
    except (KeyError, ValueError, ValidationError, RecursionError) as error:
        raise BundleError(f"The description in this bundle is damaged ({error}).", where=path) from None


def hash_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, shapes, types and values: what a file held when it was written."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def state_on_cpu(network: torch.nn.Module) -> dict[str, Tensor]:
    """Weights and buffers, detached copies on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
