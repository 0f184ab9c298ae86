"""The small parts that encoders and decoders are made of.

Legend: B batch, F features, h w size at one level.
"""

import copy
import itertools
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pixelwise.config import ModelConfig
from pixelwise.models import strips


class GroupNorm(nn.GroupNorm):
    """Normalisation of groups of features of every image by themselves (Wu and He, 2018).

    On a CPU torch's own takes up to nine times as long for the way back through channels-last maps as through
    contiguous ones, more than it takes to change to these and back.
    """

    def forward(self, maps: Float[Tensor, "B F h w"]) -> Float[Tensor, "B F h w"]:
        """Mean 0 and variance 1 of each group of maps, then the layer's scale and shift."""
        if maps.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(maps)
        return super().forward(maps.contiguous()).contiguous(memory_format=torch.channels_last)


def _group_norm(features: int) -> nn.Module:
    return GroupNorm(next(count for count in (8, 4, 2, 1) if features % count == 0), features)


class InstanceNorm(nn.InstanceNorm2d):
    """Normalisation of every feature of every image by itself (Ulyanov et al., 2016).

    On a CPU torch's own turns channels-last maps into contiguous ones, and every layer after it computes on the slower
    kind. An image alone is a batch, whose normalisation is fast.
    """

    def forward(self, maps: Float[Tensor, "B F h w"]) -> Float[Tensor, "B F h w"]:
        """Mean 0 and variance 1 of each map, then the layer's scale and shift."""
        if maps.device.type != "cpu":
            return super().forward(maps)
        if not torch.is_grad_enabled():
            return F.group_norm(maps, self.num_features, self.weight, self.bias, self.eps)
        normalise = partial(F.batch_norm, weight=self.weight, bias=self.bias, training=True, eps=self.eps)
        return torch.cat([normalise(one, None, None) for one in torch.split(maps, 1)])


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": lambda features: InstanceNorm(features, affine=True),
    "group": _group_norm,
    "none": lambda _features: nn.Identity(),
}
"""Normalisation layers by name; each is made from the number of features."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
}
"""What follows a normalisation, by name."""


class ConvBlock(nn.Sequential):
    """3 x 3 convolution, normalisation and activation, repeated: the paper's two blue arrows.

    Args:
        in_features: features that come in.
        out_features: features of every convolution.
        config: how many convolutions, of what kind; padded ones keep height and width, others lose two pixels of both.
        stride: of the first convolution.
    """

    def __init__(self, in_features: int, out_features: int, config: ModelConfig, stride: int = 1) -> None:
        layers = convolutions(in_features, out_features, config, stride)
        super().__init__(*layers, *([SqueezeExcitation(out_features)] if config.squeeze_excitation else []))

    def forward(self, maps: Float[Tensor, "B _ h w"]) -> Float[Tensor, "B F _ _"]:
        """What comes out of the last layer."""
        if strips.suit(self, maps):
            return strips.through(self, lambda first, last: maps[:, :, first:last], maps.shape[2])
        result: Tensor = super().forward(maps)  # type: ignore[no-untyped-call]
        return result


def convolutions(in_features: int, out_features: int, config: ModelConfig, stride: int) -> list[nn.Module]:
    """The layers of a `ConvBlock`, the last of which is an activation."""
    layers: list[nn.Module] = []
    for index in range(config.convolutions):
        features, step = (in_features, stride) if index == 0 else (out_features, 1)
        # a normalisation subtracts the mean, so that a bias before it would have no effect
        bias = config.norm == "none"
        layers += [
            nn.Conv2d(features, out_features, 3, stride=step, padding=int(config.padded), bias=bias),
            NORMS[config.norm](out_features),
            ACTIVATIONS[config.activation](),
        ]
    return layers


class SqueezeExcitation(nn.Module):
    """Features weighed by what all of them are like over the whole image (Hu et al., 2018, equations 2 to 4).

    Args:
        features: that come in and go out.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        hidden = max(4, features // 16)  # the paper's ratio
        self.squeeze = nn.Conv2d(features, hidden, 1)
        self.excite = nn.Conv2d(hidden, features, 1)

    def forward(self, maps: Float[Tensor, "B F h w"]) -> Float[Tensor, "B F h w"]:
        """Each map times a number between 0 and 1."""
        weights: Tensor = torch.sigmoid(self.excite(F.relu(self.squeeze(maps.mean(dim=(2, 3), keepdim=True)))))
        return maps * weights


class ResidualBlock(nn.Module):
    """A `ConvBlock` without its last activation, which follows the sum with what came in (He et al., 2016, figure 2).

    Args:
        in_features: as for `ConvBlock`; where they are not `out_features`, or halved, a 1 x 1 convolution adapts them.
        out_features: as for `ConvBlock`.
        config: as for `ConvBlock`; padded.
        stride: as for `ConvBlock`.
    """

    def __init__(self, in_features: int, out_features: int, config: ModelConfig, stride: int = 1) -> None:
        super().__init__()
        *layers, self.activation = convolutions(in_features, out_features, config, stride)
        self.body = nn.Sequential(*layers)
        self.excitation = SqueezeExcitation(out_features) if config.squeeze_excitation else nn.Identity()
        self.shortcut = nn.Sequential()
        if in_features != out_features or stride > 1:
            bias = config.norm == "none"
            adapting = nn.Conv2d(in_features, out_features, 1, stride=stride, bias=bias)
            self.shortcut = nn.Sequential(adapting, NORMS[config.norm](out_features))

    def forward(self, maps: Float[Tensor, "B _ h w"]) -> Float[Tensor, "B _ i j"]:
        """The sum of both ways."""
        result: Tensor = self.activation(self.excitation(self.body(maps)) + self.shortcut(maps))
        return result


BLOCKS: dict[str, Callable[..., nn.Module]] = {"plain": ConvBlock, "residual": ResidualBlock}
"""What a level is made of, by the name in `ModelConfig.block`; see `ConvBlock` for the arguments."""


class DilatedBottleneck(nn.Module):
    """Convolutions with growing gaps, one after the other, and the sum of all (Zhou et al., 2018, D-LinkNet).

    Args:
        features: that come in and go out.
        config: normalisation and activation.
    """

    GAPS = (1, 2, 4, 8)

    def __init__(self, features: int, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(features, features, 3, padding=gap, dilation=gap, bias=config.norm == "none"),
                NORMS[config.norm](features),
                ACTIVATIONS[config.activation](),
            )
            for gap in self.GAPS
        )

    def forward(self, maps: Float[Tensor, "B F h w"]) -> Float[Tensor, "B F h w"]:
        """What came in, and what each convolution has made of the one before."""
        total = current = maps
        for layer in self.layers:
            current = layer(current)
            total = total + current
        return total


class AttentionGate(nn.Module):
    """Weighs a skip place by place, by itself and by what is known below (Oktay et al., 2018, equations 1 and 2).

    Args:
        skip_features: of the finer maps that are weighed.
        below_features: of the coarser maps that say what matters.
    """

    def __init__(self, skip_features: int, below_features: int) -> None:
        super().__init__()
        hidden = max(1, skip_features // 2)
        self.of_skip = nn.Conv2d(skip_features, hidden, 2, stride=2, bias=False)
        self.of_below = nn.Conv2d(below_features, hidden, 1)
        self.weight = nn.Conv2d(hidden, 1, 1)

    def forward(self, skip: Float[Tensor, "B S H W"], below: Float[Tensor, "B F h w"]) -> Float[Tensor, "B S H W"]:
        """The skip times numbers between 0 and 1; h and w are half of H and W, rounded up."""
        height, width = skip.shape[-2:]
        even = F.pad(skip, (0, width % 2, 0, height % 2), mode="replicate") if height % 2 or width % 2 else skip
        coarse = torch.sigmoid(self.weight(F.relu(self.of_skip(even) + self.of_below(below))))
        fine = F.interpolate(coarse, (even.shape[-2], even.shape[-1]), mode="bilinear", align_corners=False)
        return skip * fine[..., :height, :width]


class Doubling(nn.ConvTranspose2d):
    """2 x 2 transposed convolution with stride 2: the paper's green arrow.

    No two pixels of the input share one of the result, so that it is a product of matrices, whose four results per
    pixel are laid side by side. torch's own kernel takes up to nine times as long on a CPU, on the way back.

    Args:
        in_features: features that come in.
        out_features: features of the map of twice the height and width.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, 2, stride=2)

    def forward(self, maps: Float[Tensor, "B F h w"], _output_size: object = None) -> Float[Tensor, "B G H W"]:
        """The map at twice the height and width."""
        return _as_maps(self._squares(maps))

    def beside(self, skip: Float[Tensor, "B S H W"], maps: Float[Tensor, "B F h w"]) -> Float[Tensor, "B _ H W"]:
        """Features of twice the height and width, and this layer's result after them, which is laid there at once."""
        batch, features, height, width = skip.shape
        squares = skip.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2, features)
        if not strips.is_only_predicting():
            return _as_maps(torch.cat([squares, self._squares(maps)], dim=-1))
        # here a prediction holds most: the result is filled by halves, so that only half of this layer's is beside it
        both = squares.new_empty((*squares.shape[:-1], features + self.out_channels))
        half = -(-height // 4)
        for top in range(0, height // 2, half):
            both[:, top : top + half, ..., features:] = self._squares(maps[:, :, top : top + half])
        both[..., :features] = squares
        return _as_maps(both)

    def _squares(self, maps: Float[Tensor, "B F h w"]) -> Float[Tensor, "B h 2 w 2 G"]:
        """Two rows and two columns of results for each pixel."""
        batch, features, height, width = maps.shape
        weight = self.weight.permute(2, 3, 1, 0).reshape(4 * self.out_channels, features, 1, 1)
        bias = self.bias.repeat(4) if self.bias is not None else None
        four = F.conv2d(maps, weight, bias).permute(0, 2, 3, 1)
        return four.reshape(batch, height, width, 2, 2, self.out_channels).transpose(2, 3)


def _as_maps(squares: Float[Tensor, "B h 2 w 2 G"]) -> Float[Tensor, "B G H W"]:
    batch, height, _, width, _, features = squares.shape
    return squares.reshape(batch, 2 * height, 2 * width, features).permute(0, 3, 1, 2)


def centre_crop(features: Shaped[Tensor, "*any H W"], size: tuple[int, int]) -> Shaped[Tensor, "*any h w"]:
    """The middle of a map: the paper's grey arrow, copy and crop."""
    top, left = ((current - target) // 2 for current, target in zip(features.shape[-2:], size, strict=True))
    return features[..., top : top + size[0], left : left + size[1]]


def initialise(module: nn.Module) -> None:
    """He's initialisation for layers followed by ReLU (He et al., 2015; section 3 of the U-Net paper)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        # of a 2 x 2 transposed convolution with stride 2, one weight per input feature meets an output pixel
        fan_in = module.in_channels * (module.kernel_size[0] ** 2 if isinstance(module, nn.Conv2d) else 1)
        nn.init.normal_(module.weight, std=(2.0 / fan_in) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def folded(network: nn.Module) -> nn.Module:
    """A copy for prediction in which every batch normalisation after a convolution is part of it.

    In evaluation a batch normalisation is a fixed scale and shift per feature. The convolution before it can do both,
    with one pass over the map less. Results differ by rounding only.

    Args:
        network: in evaluation mode.
    """
    network = copy.deepcopy(network)
    for block in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for index, (layer, following) in enumerate(itertools.pairwise(list(block))):
            if type(layer) is nn.Conv2d and type(following) is nn.BatchNorm2d:
                block[index], block[index + 1] = fuse_conv_bn_eval(layer, following), nn.Identity()
    return network


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is used there: where torch emulates it, convolutions take several times as long.

    Processors need AVX-512 or Arm's BF16, GPUs of NVIDIA the compute capability 8.0. On Apple's it was never measured,
    and is not used.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    has_onednn = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    # torch asks itself the last; it has no public name
    return device.type == "cpu" and has_onednn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


def rounded(network: nn.Module) -> nn.Module:
    """A copy whose convolutions have bfloat16 weights, as autocast rounds them at every call; it needs autocast."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.to(torch.bfloat16)
    return network


def parameter_count(module: nn.Module) -> int:
    """Trainable numbers of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@torch.no_grad()
def average_into(average: Mapping[str, Tensor], current: Mapping[str, Tensor], decay: float) -> None:
    """Move the state of a network towards another: average = decay * average + (1 - decay) * current, buffers too."""
    pairs = list(zip(average.values(), current.values(), strict=True))
    numbers = [pair for pair in pairs if pair[0].is_floating_point()]
    means, values = ([pair[side] for pair in numbers] for side in (0, 1))
    if all(type(mean) is Tensor and mean.is_cuda for mean in means):  # torch 2.13 has it for no divided ones
        get_ema_multi_avg_fn(decay)(means, values, 0)  # type: ignore[no-untyped-call]  # few kernels for all
    else:
        for mean, value in numbers:
            mean.lerp_(value, 1.0 - decay)
    for count, value in (pair for pair in pairs if not pair[0].is_floating_point()):
        count.copy_(value)
