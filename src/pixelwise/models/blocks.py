"""The small parts that encoders and decoders are made of.

Legend: B batch, F features, h w size at one level.
"""

import copy
import itertools
from collections.abc import Callable

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def _group_norm(features: int) -> nn.Module:
    groups = next(count for count in (8, 4, 2, 1) if features % count == 0)
    return nn.GroupNorm(groups, features)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": lambda features: nn.InstanceNorm2d(features, affine=True),
    "group": _group_norm,
    "none": lambda _features: nn.Identity(),
}
"""Normalisation layers by name; each is made from the number of features."""


class ConvBlock(nn.Sequential):
    """3 x 3 convolution, normalisation and ReLU, repeated: the paper's two blue arrows.

    Args:
        in_features: features that come in.
        out_features: features of every convolution.
        repeats: how many convolutions.
        norm: a key of `NORMS`.
        padded: keep height and width; otherwise each convolution takes two pixels from both.
    """

    def __init__(self, in_features: int, out_features: int, repeats: int, norm: str, padded: bool) -> None:
        layers: list[nn.Module] = []
        for index in range(repeats):
            features = in_features if index == 0 else out_features
            # a normalisation subtracts the mean, so that a bias before it would have no effect
            convolution = nn.Conv2d(features, out_features, 3, padding=int(padded), bias=norm == "none")
            layers += [convolution, NORMS[norm](out_features), nn.ReLU(inplace=True)]
        super().__init__(*layers)


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
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                block[index], block[index + 1] = fuse_conv_bn_eval(layer, following), nn.Identity()
    return network


def parameter_count(module: nn.Module) -> int:
    """Trainable numbers of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@torch.no_grad()
def average_into(average: nn.Module, current: nn.Module, decay: float) -> None:
    """Move `average` towards `current`: average = decay * average + (1 - decay) * current, buffers too."""
    pairs = zip(average.state_dict().values(), current.state_dict().values(), strict=True)
    for mean, value in pairs:
        if mean.is_floating_point():
            mean.lerp_(value, 1.0 - decay)
        else:
            mean.copy_(value)
