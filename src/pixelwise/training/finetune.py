"""Start from the weights of another run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixelwise.classes import ClassTable
from pixelwise.config import Config, ModelConfig
from pixelwise.data.finding import Finding
from pixelwise.errors import BundleError, ConfigError
from pixelwise.models.bundle import Bundle
from pixelwise.models.encoders import TimmEncoder

SHAPE = tuple(name for name in ModelConfig.model_fields if name not in ("dropout", "encoder_weights"))
"""Settings that decide which weights a network has."""

HEADS = ("head.", "coarse_heads.")
"""Weights of the output layers."""


@dataclass(frozen=True)
class Transfer:
    """What came from the other run."""

    shared: tuple[str, ...]
    """Classes whose output weights were kept."""
    merged: tuple[str, ...]
    """Classes that begin as several old ones together."""
    fresh: tuple[str, ...]
    """Classes that start anew."""
    dropped: tuple[str, ...]
    """Old classes that are no more."""
    channels: tuple[int, int]
    """Of the images, then and now."""

    def describe(self) -> str:
        """What came along, in a sentence."""
        parts = {"kept": self.shared, "merged": self.merged, "new": self.fresh, "dropped": self.dropped}
        classes = "; ".join(f"{name}: {', '.join(names) or 'none'}" for name, names in parts.items())
        before, now = self.channels
        adapted = f"; the first convolution was adapted from {before} channels to {now}" if before != now else ""
        return f"classes {classes}{adapted}"


def adopt_network(config: Config, bundle: Bundle) -> Config:
    """The settings, with the network of the bundle.

    Raises:
        ConfigError: a setting of the caller asks for another network, or for other weights.
        BundleError: it is an ensemble.
    """
    if config.model.encoder_weights != "none":
        raise ConfigError(
            "'model.encoder_weights' and --from both say what to start from.", remedy="Leave one of them out."
        )
    if bundle.description.members > 1:
        raise BundleError(
            f"The model to start from is an ensemble of {bundle.description.members}.",
            where=bundle.path,
            remedy="Name the run of one of its folds, or let a network learn from it: --teacher in place of --from.",
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


def knows_most(bundle: Bundle, classes: ClassTable, merge: Mapping[str, Sequence[str]]) -> bool:
    """Whether more than half of the classes have weights in a bundle, so that there is much to lose."""
    known = [name for name in classes.names if name in merge or name in bundle.description.classes.names]
    return 2 * len(known) > len(classes)


def named_on_one_side(bundle: Bundle, classes: ClassTable, merge: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Whether classes find no partner because they have names in one of the two runs only."""
    theirs = bundle.description.classes
    sources = _sources(classes, theirs, merge)
    used = {source for names in sources.values() for source in names}
    dropped = [name for name in theirs.names if name not in used]
    fresh = [name for name in classes.names if not sources[name]]
    nameless = [
        not made_up.isdisjoint(lonely) for made_up, lonely in ((theirs.made_up, dropped), (classes.made_up, fresh))
    ]
    if not dropped or not fresh or all(nameless) or not any(nameless):
        return []
    named = " Or name the classes of this data in a data.yaml, as the model has them." if nameless[1] else ""
    return [
        Finding(
            "notice",
            f"Classes are matched by name: {', '.join(dropped)} of the model to start from and {', '.join(fresh)} of "
            "this data find no partner.",
            (),
            f"Nobody has named those of {'the model' if nameless[0] else 'this data'}; they may be the same.",
            f"Say which belong together, such as --set finetune.merge='{{{fresh[0]}: [{dropped[0]}]}}'.{named}",
        )
    ]


def _sources(classes: ClassTable, old: ClassTable, merge: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """For each class the old ones that it begins as."""
    return {name: tuple(merge.get(name, [name] if name in old.names else [])) for name in classes.names}


def transfer(network: nn.Module, bundle: Bundle, classes: ClassTable, merge: Mapping[str, Sequence[str]]) -> Transfer:
    """Copy the bundle's weights into a network of the same shape; output rows are matched by class name.

    Args:
        network: whose images may have other channels.
        bundle: to start from.
        classes: of the network.
        merge: of new classes, the old ones that they begin as together.

    Raises:
        ConfigError: a class that is to be merged does not exist.
        BundleError: the weights are of another network.
    """
    old, weights = bundle.description.classes.names, bundle.weights
    _refuse_unknown(merge, old, classes.names)
    sources = _sources(classes, bundle.description.classes, merge)
    channels = bundle.description.preprocessing.channels
    missing = [name for name in network.state_dict() if name not in weights]
    if missing:
        raise BundleError(f"The weights '{missing[0]}' are not in the bundle.", remedy="Start from the same network.")
    first = _first_convolution(network)
    with torch.no_grad():
        for name, target in network.state_dict().items():
            if name.startswith(HEADS):
                theirs, ours = (_by_class(*rows) for rows in ((weights[name], len(old)), (target, len(classes))))
                for index, class_name in enumerate(classes.names):
                    if sources[class_name]:
                        # of several: the mean, by which none of them wins over the others
                        ours[index] = theirs[[old.index(source) for source in sources[class_name]]].mean(dim=0)
            elif name.startswith("encoder.") and target.ndim == 4:
                _copy(name, target, _for_channels(weights[name], target, channels))
            else:
                _copy(name, target, weights[name])
    used = {source for names in sources.values() for source in names}
    now = channels * network.state_dict()[first].shape[1] // weights[first].shape[1] if first else channels
    return Transfer(
        shared=tuple(name for name in classes.names if sources[name] == (name,)),
        merged=tuple(name for name in classes.names if sources[name] not in ((), (name,))),
        fresh=tuple(name for name in classes.names if not sources[name]),
        dropped=tuple(name for name in old if name not in used),
        channels=(channels, now),
    )


def _refuse_unknown(merge: Mapping[str, Sequence[str]], old: Sequence[str], new: Sequence[str]) -> None:
    for name, sources in merge.items():
        unknown = [source for source in sources if source not in old]
        if name not in new or unknown or not sources:
            what = f"'{unknown[0]}' is none of the old run's" if unknown else f"'{name}' is none of this data's"
            raise ConfigError(
                f"'finetune.merge' names a class that does not exist: {what}.",
                remedy=f"The old classes are {', '.join(old)}; the new ones {', '.join(new)}.",
            )


def _first_convolution(network: nn.Module) -> str | None:
    """The name of the weights that see the channels of the image; an encoder of another kind may have none such."""
    names = (name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    first = next(names, None)
    return f"{first}.weight" if first is not None else None


def _for_channels(source: Tensor, target: Tensor, channels: int) -> Tensor:
    """Weights of a first convolution for images of other channels: each gets the mean of all, and the sum stays."""
    is_other = source.shape[0] != target.shape[0] or source.shape[2:] != target.shape[2:] or source.shape[1] % channels
    if source.shape == target.shape or is_other:
        return source
    places = source.shape[1] // channels  # pixels of a block, where the network works on blocks
    wanted = target.shape[1] // places
    by_channel = source.reshape(source.shape[0], channels, places, *source.shape[2:])
    mean = by_channel.mean(dim=1, keepdim=True) * (channels / wanted)
    return mean.expand(-1, wanted, -1, -1, -1).reshape(target.shape)


def _by_class(rows: Tensor, classes: int) -> Tensor:
    """Output weights as a view with one entry per class; each has as many rows as its place has pixels."""
    return rows.view(classes, -1, *rows.shape[1:])


def _copy(name: str, target: Tensor, source: Tensor) -> None:
    if target.shape != source.shape:
        raise BundleError(
            f"The weights '{name}' have shape {tuple(source.shape)}; this network needs {tuple(target.shape)}.",
            remedy="Start from a run with the same network.",
        )
    target.copy_(source)


def freeze(network: nn.Module, what: str) -> None:
    """Fix a part of a network.

    Args:
        network: a U-Net.
        what: as `FinetuneConfig.freeze`.
    """
    kept = {
        "none": (),
        "encoder": ("encoder", "bottleneck"),
        "all_but_head": ("encoder", "bottleneck", "decoder", "coarse_heads"),
    }[what]
    for name in kept:
        network.get_submodule(name).requires_grad_(requires_grad=False)


def rate_scales(network: nn.Module, decay: float) -> dict[str, float]:
    """By how much each weight, by its name, learns more slowly than the output layer.

    That is `decay` to the power of its distance from it.

    The expanding path is one step away, the coarsest level of the contracting path two, and so on to the finest; an
    encoder from elsewhere is two steps away as a whole.
    """
    encoder = network.get_submodule("encoder")
    powers = {"": 0, "decoder.": 1, "bottleneck.": 1, "encoder.": 2}
    if isinstance(encoder, TimmEncoder):
        powers["encoder.levels."] = 1  # those of its own that a pretrained encoder was given begin anew
    elif isinstance(levels := getattr(encoder, "levels", None), (nn.ModuleList, nn.Sequential)):
        powers |= {f"encoder.levels.{level}.": away for away, level in enumerate(reversed(range(len(levels))), 2)}
    # the longest beginning of its name says how far away a weight is
    nearest = sorted(powers, key=len, reverse=True)
    return {
        weight: decay ** powers[next(beginning for beginning in nearest if weight.startswith(beginning))]
        for weight, _ in network.named_parameters()
    }
