"""Contracting paths. An encoder gives features, finest first, and says how many channels each level has.

Level i has height and width H / 2^i, rounded up. Any encoder meets any decoder, since the decoder
adapts to the size of what it is given.
"""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise import outside
from pixelwise.config import ModelConfig
from pixelwise.errors import ConfigError, extra, first_line
from pixelwise.models.blocks import BLOCKS, initialise
from pixelwise.models.strips import halved

TIMM = "timm/"
"""What names of timm's encoders begin with here, as on the hub."""


class Encoder(Protocol):
    """What a U-Net asks of its contracting path."""

    widths: tuple[int, ...]
    """Features per level, finest first; the last is the bottleneck."""

    def __call__(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Features per level, finest first: level i is B x widths[i] x H/2^i x W/2^i, rounded up if padded.

        They are tensors of their own, since a decoder may write its results into them.
        """
        ...


class PlainEncoder(nn.Module):
    """The paper's contracting path: convolutions, then 2 x 2 max-pooling, `depth` times.

    Or, as nnU-Net has it, convolutions of which the first of each lower level has a stride of 2.
    """

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__()
        self.widths = tuple(min(config.width * 2**level, config.max_width) for level in range(config.depth + 1))
        self._strided = config.downsampling == "convolution"
        inputs, block = (channels, *self.widths[:-1]), BLOCKS[config.block]
        self.levels = nn.ModuleList(
            block(features_in, features_out, config, stride=2 if self._strided and level else 1)
            for level, (features_in, features_out) in enumerate(zip(inputs, self.widths, strict=True))
        )
        self.dropout = nn.Dropout2d(config.dropout)

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """See `Encoder`."""
        features = [self.levels[0](image)]
        for level in self.levels[1:]:
            features.append(level(features[-1] if self._strided else halved(features[-1])))
        features[-1] = self.dropout(features[-1])
        return features


class TimmEncoder(nn.Module):
    """A feature extractor of timm (Wightman, 2019), with levels of its own where that has none: those of finest detail.

    Args:
        channels: C of the images; the first convolution of pretrained weights is adapted to them, as timm does it.
        config: `encoder` names it; `width` and `block` are of its own levels.

    Raises:
        ConfigError: timm is not installed, has no such encoder, or its maps are not halved from level to level.
    """

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__()
        self.name, self.channels, self.depth = config.encoder.removeprefix(TIMM), channels, config.depth
        self.body = self._extractor()
        reductions = list(self.body.feature_info.reduction())
        first = reductions[0].bit_length() - 1
        own = [min(config.width * 2**level, config.max_width) for level in range(first)]
        inputs, block = (channels, *own[:-1]), BLOCKS[config.block]
        self.levels = nn.ModuleList(
            block(features_in, features_out, config, stride=2 if level else 1)
            for level, (features_in, features_out) in enumerate(zip(inputs, own, strict=True))
        )
        self.levels.apply(initialise)
        self.widths = (*own, *self.body.feature_info.channels())
        self.dropout = nn.Dropout2d(config.dropout)

    def _extractor(self, **pretrained: Any) -> Any:
        """The levels that halve the image up to `depth` times; an argument says which weights they have."""
        timm = _timm()
        _refuse_unknown(timm, self.name)
        try:
            whole = timm.create_model(self.name, features_only=True)
            reductions = list(whole.feature_info.reduction())
            indices = [index for index, reduction in enumerate(reductions) if reduction <= 1 << self.depth]
            body = timm.create_model(
                self.name, features_only=True, out_indices=indices, in_chans=self.channels, **pretrained
            )
        except (RuntimeError, TypeError, AttributeError, ValueError) as error:
            raise ConfigError(f"timm's '{self.name}' is no feature extractor ({first_line(error)}).") from None
        expected = [1 << self.depth - level for level in reversed(range(len(indices)))]
        if [reductions[index] for index in indices] != expected:
            raise ConfigError(
                f"The maps of timm's '{self.name}' are 1/{', 1/'.join(map(str, reductions))} of an image's edge; with "
                f"model.depth={self.depth}, a U-Net needs each to be half of the one before, to 1/{1 << self.depth}.",
                remedy="Choose another encoder, or another model.depth.",
            )
        return body

    def load_weights(self, source: str | Path) -> None:
        """Start from weights that someone has trained before.

        Args:
            source: `hub` for those of this name, or a local file.

        Raises:
            ConfigError: they cannot be read, or do not belong to this encoder.
        """
        pretrained: dict[str, Any] = {"pretrained": True}
        if source != "hub":
            if not Path(source).is_file():
                raise ConfigError(f"'model.encoder_weights' is {source}, and there is no such file.")
            pretrained["pretrained_cfg_overlay"] = {"file": str(source)}
            if Path(source).suffix != ".safetensors":
                raise ConfigError(f"'model.encoder_weights' is {source}; only .safetensors files are read.")
        try:
            # what is not in the file is drawn at random, and differs from one to the next
            first, second = (self._extractor(**pretrained).state_dict() for _ in range(2))
            _refuse_random(first, second, self.name, source)
            self.body.load_state_dict(first)
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001  the hub's, safetensors' and timm's share no base
            said = first_line(error)
            raise ConfigError(
                f"The weights of '{self.name}' cannot be loaded from {source} ({said}).",
                remedy="Name a local file with --set model.encoder_weights=FILE.safetensors, or a name on the hub.",
            ) from None

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """See `Encoder`."""
        features, current = [], image
        for level in self.levels:
            current = level(current)
            features.append(current)
        features += self._of_body(image)
        features[-1] = self.dropout(features[-1])
        return features

    def _of_body(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Levels of timm's.

        Some of its networks drop odd rows and columns: the image is enlarged before, and maps are cut to what is its.
        """
        height, width = image.shape[-2:]
        step = 1 << self.depth
        if height % step or width % step:
            image = F.pad(image, (0, -width % step, 0, -height % step), mode="replicate")
        first = len(self.levels)
        return [
            maps[..., : -(-height // (1 << level)), : -(-width // (1 << level))]
            for level, maps in enumerate(self.body(image), first)
        ]


def _refuse_unknown(timm: Any, name: str) -> None:
    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=5)
        raise ConfigError(
            f"timm {timm.__version__} has no '{name}'.",
            remedy=f"There are {', '.join(near)}." if near else "`pixelwise models --encoders` lists them.",
        )


def _refuse_random(first: dict[str, Tensor], second: dict[str, Tensor], name: str, source: str | Path) -> None:
    kernels = [key for key, tensor in first.items() if tensor.ndim > 1]
    loaded = sum(torch.equal(first[key], second[key]) for key in kernels)
    if loaded < len(kernels):
        raise ConfigError(
            f"{source} holds {loaded} of the {len(kernels)} kernels of timm's '{name}': it is of another network.",
            remedy="Name the file of this encoder.",
        )


def _timm() -> Any:
    with extra("encoders", "An encoder of timm needs timm"):
        import timm
    return timm


def timm_names(pattern: str) -> list[str]:
    """Encoders of timm whose weights can be had from the hub, as `ModelConfig.encoder` and `encoder_weights` know them.

    Args:
        pattern: of file names, as `*resnet*`.

    Raises:
        ConfigError: timm is not installed, or has none of such a name.
    """
    names = [TIMM + name for name in _timm().list_models(pattern, pretrained=True)]
    if not names:
        raise ConfigError(
            f"timm has no encoder whose name is like '{pattern}'.", remedy="Write '*resnet*', with stars."
        )
    return names


ENCODERS: dict[str, Callable[[int, ModelConfig], nn.Module]] = {
    "plain": PlainEncoder,
}
"""Encoders by the name in `ModelConfig.encoder`; each is made from the image channels and the settings."""


def refuse_absent(name: str) -> None:
    """See whether there is such an encoder, before anything is read or measured.

    Raises:
        ConfigError: timm or the user's module is not installed, or has none of that name.
    """
    if name.startswith(TIMM):
        _refuse_unknown(_timm(), name.removeprefix(TIMM))
    elif outside.is_outside(name):
        outside.find(name, "model.encoder")


def build_encoder(channels: int, config: ModelConfig) -> nn.Module:
    """The contracting path that the settings name.

    Raises:
        ConfigError: there is none of that name, or one of the user's own does not do what `Encoder` asks.
    """
    if config.encoder.startswith(TIMM):
        encoder = TimmEncoder(channels, config)
        _refuse_unfit(encoder, channels, config)
        return encoder
    if not outside.is_outside(config.encoder):
        return ENCODERS[config.encoder](channels, config)
    kind = outside.find(config.encoder, "model.encoder")
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ConfigError(f"'model.encoder' is {config.encoder}, which is no class of networks (torch.nn.Module).")
    try:
        made = kind(channels, config)
    except Exception as error:
        raise ConfigError(
            f"'model.encoder' is {config.encoder}, which cannot be made: {type(error).__name__}: {error}.",
            remedy="It is called with the number of channels and the settings of the network.",
        ) from error
    _refuse_unfit(made, channels, config)
    return made


def _refuse_unfit(encoder: nn.Module, channels: int, config: ModelConfig) -> None:
    """An encoder from elsewhere is asked what the decoder will take for granted, of even and odd sizes."""
    was_training = encoder.training
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    widths = tuple(getattr(encoder, "widths", ()))
    for edge in (2 << config.depth, (2 << config.depth) + 1):
        try:
            with torch.no_grad():
                features = encoder.eval()(torch.zeros(1, channels, edge, edge, device=device))
            shapes = [tuple(level.shape[1:]) for level in features]
        except Exception as error:
            raise ConfigError(
                f"'model.encoder' is {config.encoder}, which fails on an image of {edge} x {edge} pixels with "
                f"{channels} channels: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}."
            ) from error
        expected = [(width, *(2 * [-(-edge // (1 << level))])) for level, width in enumerate(widths)]
        if not isinstance(features, list) or len(widths) != config.depth + 1 or shapes != expected:
            raise ConfigError(
                f"'model.encoder' is {config.encoder}; its `widths` are {widths or 'missing'}, and an image of {edge} "
                f"x {edge} pixels becomes maps of {', '.join(' x '.join(map(str, shape)) for shape in shapes)}.",
                remedy=f"With model.depth={config.depth}, a U-Net needs a list of {config.depth + 1} levels, the "
                "finest first and of the image's size, each half as large as the one before, rounded up, and `widths` "
                "with the features of each."
                + (f" For these widths, set model.depth={len(widths) - 1}." if len(widths) != config.depth + 1 else ""),
            )
        places = {level.untyped_storage().data_ptr() for level in features}
        if len(places) < len(features) and device.type != "meta":  # where nothing has a place
            raise ConfigError(
                f"'model.encoder' is {config.encoder}, of whose levels some are views of others.",
                remedy="A decoder may write its results into them: return copies (`level.clone()`).",
            )
    encoder.train(was_training)
