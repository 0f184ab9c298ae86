"""Contracting paths. An encoder gives features, finest first, and says how many channels each level has.

Level i has height and width about H / 2^i. Any encoder meets any decoder, since the decoder
adapts to the size of what it is given.
"""

from collections.abc import Callable
from typing import Protocol

import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.config import ModelConfig
from pixelwise.models.blocks import ConvBlock


class Encoder(Protocol):
    """What a U-Net asks of its contracting path."""

    widths: tuple[int, ...]
    """Features per level, finest first; the last is the bottleneck."""

    def __call__(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Features per level, finest first: level i is B x widths[i] x about H/2^i x about W/2^i."""
        ...


class PlainEncoder(nn.Module):
    """The paper's contracting path: convolutions, then 2 x 2 max-pooling, `depth` times.

    Or, as nnU-Net has it, convolutions of which the first of each lower level has a stride of 2.
    """

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__()
        self.widths = tuple(min(config.width * 2**level, config.max_width) for level in range(config.depth + 1))
        self._strided = config.downsampling == "convolution"
        inputs = (channels, *self.widths[:-1])
        self.levels = nn.ModuleList(
            ConvBlock(features_in, features_out, config, stride=2 if self._strided and level else 1)
            for level, (features_in, features_out) in enumerate(zip(inputs, self.widths, strict=True))
        )
        self.dropout = nn.Dropout2d(config.dropout)

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """See `Encoder`."""
        features = [self.levels[0](image)]
        for level in self.levels[1:]:
            # an odd row or column is kept, so that an image of any size goes through
            above = features[-1] if self._strided else F.max_pool2d(features[-1], 2, ceil_mode=True)
            features.append(level(above))
        features[-1] = self.dropout(features[-1])
        return features


ENCODERS: dict[str, Callable[[int, ModelConfig], nn.Module]] = {
    "plain": PlainEncoder,
}
"""Encoders by the name in `ModelConfig.encoder`; each is made from the image channels and the settings."""
