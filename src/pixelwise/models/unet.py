"""The U-Net: contracting path, expanding path, and a 1 x 1 output layer (Ronneberger, Fischer, Brox, 2015)."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.config import ModelConfig
from pixelwise.models import strips
from pixelwise.models.blocks import BLOCKS, AttentionGate, DilatedBottleneck, Doubling, centre_crop, initialise
from pixelwise.models.encoders import ENCODERS, build_encoder

Logits = Float[Tensor, "B K h w"] | list[Float[Tensor, "B K _ _"]]
"""One map, or in training one for each level that is supervised, the finest first."""


class Decoder(nn.Module):
    """The expanding path: 2 x 2 transposed convolution, concatenation with the matching features, convolutions.

    Args:
        widths: features per level of the encoder, finest first.
        config: settings of the network.
    """

    def __init__(self, widths: Sequence[int], config: ModelConfig) -> None:
        super().__init__()
        self.padded = config.padded
        below_and_here = list(zip(widths[1:], widths[:-1], strict=True))[::-1]  # coarsest first
        self.ups = nn.ModuleList(Doubling(below, here) for below, here in below_and_here)
        self.levels = nn.ModuleList(BLOCKS[config.block](2 * here, here, config) for _, here in below_and_here)
        self.gates = nn.ModuleList(AttentionGate(here, below) for below, here in below_and_here if config.attention)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B _ _ _"]]:
        """Features of the finest level, which has the image's size if padded; in training of those below it too.

        Maps are let go as soon as they are used, which halves the memory of a prediction.

        Args:
            features: of all levels, finest first; the list is emptied, and a prediction may overwrite the maps.
        """
        current = features.pop()
        results: list[Tensor] = []
        for index, (up, level) in enumerate(zip(self.ups, self.levels, strict=True)):
            if not self.training:
                results.clear()
            skip = features.pop()
            if len(self.gates):
                skip = self.gates[index](skip, current)
            if strips.suit(level, skip) and _is_doubled(skip, current):
                # a prediction would hold most here: the result takes the place of the skip
                current = strips.through(level, partial(_joined_rows, skip, up, current), skip.shape[2], into=skip)
                del skip
            else:
                current = _joined(skip, up, current, padded=self.padded)
                del skip
                for layer in level if isinstance(level, nn.Sequential) else [level]:
                    current = layer(current)
            results.append(current)
        return results[::-1]


class NestedDecoder(nn.Module):
    """The expanding path of U-Net++ (Zhou et al., 2018, equation 1): blocks between the paths fill the gap of a skip.

    Block j of level i sees all blocks of its level before it, and the one of level i + 1 that was before it.

    Args:
        widths: features per level of the encoder, finest first.
        config: settings of the network; padded.
    """

    def __init__(self, widths: Sequence[int], config: ModelConfig) -> None:
        super().__init__()
        block, last = BLOCKS[config.block], len(widths) - 1
        self.ups = nn.ModuleList(
            nn.ModuleList(Doubling(widths[level + 1], widths[level]) for _ in range(last - level))
            for level in range(last)
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(block((step + 2) * widths[level], widths[level], config) for step in range(last - level))
            for level in range(last)
        )
        self.gates = nn.ModuleList(
            nn.ModuleList(AttentionGate(widths[level], widths[level + 1]) for _ in range(last - level))
            for level in range(last)
            if config.attention
        )

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B _ _ _"]]:
        """As `Decoder`: the last block of every level, finest first."""
        rows = [[level] for level in features]
        features.clear()
        for step in range(len(rows) - 1):
            for level in range(len(rows) - 1 - step):
                below, before = rows[level + 1][step], rows[level]
                skips = [self.gates[level][step](before[0], below), *before[1:]] if len(self.gates) else before  # type: ignore[index]
                joined = _joined(torch.cat(skips, dim=1), self.ups[level][step], below, padded=True)  # type: ignore[index]
                before.append(self.blocks[level][step](joined))  # type: ignore[index]
        return [row[-1] for row in rows[:-1]]


DECODERS: dict[str, Callable[[Sequence[int], ModelConfig], nn.Module]] = {"plain": Decoder, "nested": NestedDecoder}
"""Expanding paths by the name in `ModelConfig.decoder`."""


def _is_doubled(skip: Float[Tensor, "B F H W"], below: Float[Tensor, "B G h w"]) -> bool:
    return skip.shape[-2] == 2 * below.shape[-2] and skip.shape[-1] == 2 * below.shape[-1]


def _joined_rows(
    skip: Float[Tensor, "B F H W"], up: nn.Module, below: Float[Tensor, "B G h w"], first: int, last: int
) -> Float[Tensor, "B _ _ W"]:
    """Some rows of `_joined` of a map and another of half its size, even numbers of them."""
    rows, half = skip[:, :, first:last], below[:, :, first // 2 : last // 2]
    return _joined(rows, up, half, padded=True)


def _joined(
    skip: Float[Tensor, "B F H W"], up: nn.Module, below: Float[Tensor, "B G h w"], *, padded: bool
) -> Float[Tensor, "B _ _ _"]:
    """Matching features, and those from below after them."""
    if padded and _is_doubled(skip, below):
        beside: Tensor = up.beside(skip, below)  # type: ignore[operator]  # it is a `Doubling`
        return beside
    current: Tensor = up(below)
    if padded:
        current = current[..., : skip.shape[-2], : skip.shape[-1]]  # halving rounded an odd size up
        return torch.cat([skip, current], dim=1)
    return torch.cat([centre_crop(skip, (current.shape[-2], current.shape[-1])), current], dim=1)


class UNet(nn.Module):
    """A network from images to logits, made of three finished parts.

    Args:
        encoder: contracting path; see `encoders.Encoder`.
        decoder: expanding path; takes the encoder's list of features and gives one of the same kind.
        head: 1 x 1 convolution to one logit per class and pixel of a block.
        stride: edge in pixels of the blocks that one place of the finest level stands for. Above 1 the pixels of a
            block are channels of one place on the way in, and its logits are channels of one place on the way out
            (Shi et al., 2016, section 2.2): nothing of the image is lost, and a level costs 1 / stride^2.
        coarse_heads: 1 x 1 convolutions to one logit per class of the decoder's levels below the finest, for training.
        bottleneck: what the coarsest features go through between the two paths; none leaves them as they are.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        head: nn.Module,
        stride: int = 1,
        coarse_heads: Sequence[nn.Module] = (),
        bottleneck: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = head
        self.stride = stride
        self.coarse_heads = nn.ModuleList(coarse_heads)
        self.bottleneck = bottleneck or nn.Identity()

    def forward(self, image: Float[Tensor, "B C H W"]) -> Logits:
        """Logits: softmax over K gives probabilities. h w equal H W where convolutions are padded.

        In training a network with coarse heads gives a list, that of the image's size first: level i has the size
        H / (stride * 2^i), rounded up.
        """
        height, width = image.shape[-2:]
        features = self.encoder(self._blocks(image))
        features.append(self.bottleneck(features.pop()))
        finest, *coarser = self.decoder(features)
        logits: Tensor = self.head(finest)
        if self.stride > 1:
            logits = F.pixel_shuffle(logits, self.stride)[..., :height, :width]
        if not self.training or not len(self.coarse_heads):
            return logits
        return [logits, *(head(features) for head, features in zip(self.coarse_heads, coarser, strict=False))]

    def _blocks(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B _ _ _"]:
        """What the finest level sees."""
        if self.stride == 1:
            return image
        height, width = image.shape[-2:]
        edges = (0, -width % self.stride, 0, -height % self.stride)
        return F.pixel_unshuffle(F.pad(image, edges, mode="replicate"), self.stride)


def build(config: ModelConfig, channels: int, classes: int) -> UNet:
    """The network that the settings describe, with He's initialisation.

    Args:
        config: settings of the network.
        channels: C of the images.
        classes: K of the logits.

    Raises:
        ConfigError: an encoder from outside is missing or unfit.
    """
    block = config.stride**2
    encoder = build_encoder(channels * block, config)
    widths: tuple[int, ...] = encoder.widths  # type: ignore[assignment]  # promised by encoders.Encoder
    # the coarsest level of the decoder has none, as in nnU-Net
    supervised = widths[1:-2] if config.deep_supervision else ()
    network = UNet(
        encoder,
        DECODERS[config.decoder](widths, config),
        nn.Conv2d(widths[0], classes * block, 1),
        config.stride,
        [nn.Conv2d(features, classes, 1) for features in supervised],
        DilatedBottleneck(widths[-1], config) if config.bottleneck == "dilated" else None,
    )
    for name, part in network.named_children():
        if name != "encoder" or config.encoder in ENCODERS:  # others come with weights of their own
            part.apply(initialise)
    _begin_alike(network.head, classes)
    return network


@torch.no_grad()
def _begin_alike(head: nn.Module, classes: int) -> None:
    """Give the pixels of a block equal weights (Aitken et al., 2017): else masks of short runs are chequered."""
    for values in head.parameters():
        rows = values.view(classes, -1, *values.shape[1:])
        rows.copy_(rows[:, :1].expand_as(rows).clone())


def border_px(config: ModelConfig) -> int:
    """Pixels that the map is smaller than the image on each side: 0 if padded, 92 for the paper's network."""
    if config.padded:
        return 0
    lost = config.convolutions * sum(1 << level for level in range(config.depth))  # contracting path
    lost += config.convolutions * (1 << config.depth)  # bottleneck
    lost += config.convolutions * sum(1 << level for level in range(config.depth))  # expanding path
    return lost


def coarsest_px(config: ModelConfig) -> int:
    """Edge in pixels of what one place of the coarsest map stands for."""
    return config.stride << config.depth


def valid_size_px(config: ModelConfig, at_least: int) -> int:
    """The smallest edge, not below `at_least`, that goes through the network without a pixel lost to rounding.

    Padded networks take any size; multiples of stride * 2^depth lose nothing. Unpadded ones need every map
    before a pooling to be even (the paper: "select the input tile size such that all 2x2 max-pooling
    operations are applied to a layer with an even x- and y-size").
    """
    if config.padded:
        step = coarsest_px(config)
        return -(-at_least // step) * step
    size = max(at_least, 2 * border_px(config) + 1)
    while not _passes(config, size):  # one of any 2^depth consecutive sizes does
        size += 1
    return size


def _passes(config: ModelConfig, size: int) -> bool:
    for _ in range(config.depth):
        size -= 2 * config.convolutions
        if size <= 0 or size % 2:
            return False
        size //= 2
    return size > 2 * config.convolutions
