"""Start from the weights of another run."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixelwise.classes import ClassTable
from pixelwise.config import Config, ModelConfig
from pixelwise.errors import BundleError, ConfigError
from pixelwise.models.bundle import Bundle

SHAPE = tuple(name for name in ModelConfig.model_fields if name not in ("dropout", "encoder_weights"))
"""Settings that decide which weights a network has."""

HEADS = ("head.", "coarse_heads.")
"""Weights of the output layers."""


@dataclass(frozen=True)
class Transfer:
    """What came from the other run."""

    shared: tuple[str, ...]
    """Classes whose output weights were kept."""
    fresh: tuple[str, ...]
    """Classes that start anew."""


def adopt_network(config: Config, bundle: Bundle) -> Config:
    """The settings, with the network of the bundle.

    Raises:
        ConfigError: a setting of the caller asks for another network, or for other weights.
    """
    if config.model.encoder_weights != "none":
        raise ConfigError(
            "'model.encoder_weights' and --from both say what to start from.", remedy="Leave one of them out."
        )
    theirs = bundle.description.model
    for key in sorted(config.given()):
        section, _, name = key.partition(".")
        if section == "model" and name in SHAPE and getattr(config.model, name) != getattr(theirs, name):
            raise ConfigError(
                f"'{key}' is {getattr(config.model, name)}, but the run to start from has {getattr(theirs, name)}.",
                remedy=f"Leave '{key}' out, or train from scratch.",
            )
    return config.with_values({f"model.{name}": getattr(theirs, name) for name in SHAPE})


def transfer(network: nn.Module, bundle: Bundle, classes: ClassTable) -> Transfer:
    """Copy the bundle's weights into a network of the same shape; output rows are matched by class name.

    Raises:
        BundleError: the image channels differ.
    """
    weights = dict(bundle.weights)
    old = bundle.description.classes.names
    shared = [name for name in classes.names if name in old]
    with torch.no_grad():
        for name, target in network.state_dict().items():
            if name.startswith(HEADS):
                theirs, ours = (_by_class(*rows) for rows in ((weights[name], len(old)), (target, len(classes))))
                for class_name in shared:
                    ours[classes.names.index(class_name)] = theirs[old.index(class_name)]
            else:
                _copy(name, target, weights[name])
    return Transfer(tuple(shared), tuple(name for name in classes.names if name not in old))


def _by_class(rows: Tensor, classes: int) -> Tensor:
    """Output weights as a view with one entry per class; each has as many rows as its place has pixels."""
    return rows.view(classes, -1, *rows.shape[1:])


def _copy(name: str, target: Tensor, source: Tensor) -> None:
    if target.shape != source.shape:
        raise BundleError(
            f"The weights '{name}' have shape {tuple(source.shape)}; these images need {tuple(target.shape)}.",
            remedy="Start from a run on images with the same channels.",
        )
    target.copy_(source)
