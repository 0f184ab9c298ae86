"""The network: the paper's numbers, any size, any part."""

from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from torch import nn

from pixelwise.config import SIZES, ModelConfig, load
from pixelwise.errors import ConfigError
from pixelwise.models import strips
from pixelwise.models.blocks import (
    BLOCKS,
    NORMS,
    AttentionGate,
    DilatedBottleneck,
    Doubling,
    GroupNorm,
    InstanceNorm,
    SqueezeExcitation,
    average_into,
    centre_crop,
    folded,
    has_bfloat16,
    parameter_count,
)
from pixelwise.models.encoders import ENCODERS
from pixelwise.models.unet import DECODERS, UNet, border_px, build, coarsest_px, valid_size_px

PAPER = ModelConfig(**SIZES["paper"])
NNUNET = ModelConfig(**SIZES["nnunet"])


def convolutions(features_in: int, features_out: int) -> int:
    """Parameters of two 3 x 3 convolutions with bias, by hand."""
    return (9 * features_in + 1) * features_out + (9 * features_out + 1) * features_out


def test_the_papers_network_has_the_papers_number_of_parameters() -> None:
    down = convolutions(1, 64) + convolutions(64, 128) + convolutions(128, 256) + convolutions(256, 512)
    bottleneck = convolutions(512, 1024)
    up = sum((4 * 2 * f + 1) * f + convolutions(2 * f, f) for f in (512, 256, 128, 64))
    head = 64 * 2 + 2
    assert parameter_count(build(PAPER, 1, 2)) == down + bottleneck + up + head == 31_030_658


def test_nnunets_network_has_nnunets_number_of_parameters() -> None:
    """Of `PlainConvUNet` with the plan for patches of 256 px, but for the biases that its normalisations take away."""
    widths = (32, 64, 128, 256, 512, 512, 512)

    def block(features_in: int, features: int) -> int:
        return 9 * features_in * features + 9 * features**2 + 4 * features  # two convolutions, two scales and shifts

    down = sum(block(a, b) for a, b in zip((3, *widths[:-1]), widths, strict=True))
    up = sum((4 * a + 1) * b + block(2 * b, b) for a, b in zip(widths[1:], widths[:-1], strict=True))
    heads = sum(2 * features + 2 for features in widths[:5])  # all levels of the decoder but its coarsest
    assert parameter_count(build(NNUNET, 3, 2)) == down + up + heads == 33_464_330


def test_a_supervised_network_gives_half_the_size_from_level_to_level_in_training_only() -> None:
    network = build(NNUNET.model_copy(update={"width": 4, "depth": 4}), 1, 3)
    image = torch.randn(2, 1, 50, 37)
    levels = network(image)
    assert [tuple(level.shape) for level in levels] == [(2, 3, 50, 37), (2, 3, 25, 19), (2, 3, 13, 10)]
    torch.stack([level.square().mean() for level in levels]).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    with torch.no_grad():
        assert network.eval()(image).shape == (2, 3, 50, 37)


def _value_and_gradients(layer: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    """What a layer makes of an image, and the gradients of the image and of the layer's weights."""
    image = image.clone().requires_grad_()
    value = layer(image)
    slope = torch.linspace(-1.0, 1.0, value.numel(), dtype=value.dtype).reshape(value.shape)
    return [value, *torch.autograd.grad((value * slope).sum(), [image, *layer.parameters()])]


@pytest.mark.parametrize("laid", [torch.contiguous_format, torch.channels_last])
def test_doubling_is_torchs_transposed_convolution(laid: torch.memory_format) -> None:
    torch.manual_seed(0)
    ours, theirs = Doubling(6, 5).double(), nn.ConvTranspose2d(6, 5, 2, stride=2).double()
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(2, 6, 5, 7, dtype=torch.float64).contiguous(memory_format=laid)
    for mine, referee in zip(_value_and_gradients(ours, image), _value_and_gradients(theirs, image), strict=True):
        torch.testing.assert_close(mine, referee)


@pytest.mark.parametrize("height", [1, 2, 3, 8])
def test_what_is_laid_beside_a_skip_is_the_same_with_and_without_gradients(height: int) -> None:
    torch.manual_seed(0)
    up, skip, below = Doubling(6, 5), torch.randn(2, 4, 2 * height, 14), torch.randn(2, 6, height, 7)
    expected = torch.cat([skip, up(below)], dim=1)
    torch.testing.assert_close(up.beside(skip, below), expected)
    with torch.no_grad():
        torch.testing.assert_close(up.beside(skip, below), expected)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_pixels_of_a_block_begin_alike(stride: int) -> None:
    network = build(ModelConfig(width=4, depth=2, stride=stride), 1, 3).eval()
    logits = network(torch.randn(1, 1, 12 * stride, 12 * stride))
    blocks = F.pixel_unshuffle(logits, stride).view(1, 3, stride**2, 12, 12)
    torch.testing.assert_close(blocks, blocks[:, :, :1].expand_as(blocks))
    assert blocks.std(dim=(3, 4)).min() > 0


@pytest.mark.parametrize("size", [(8, 6), (7, 6), (1, 5)])
def test_halving_is_torchs_max_pooling(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, *size)
    expected = F.max_pool2d(maps, 2, ceil_mode=True)
    assert torch.equal(strips.halved(maps), expected)
    with torch.no_grad():
        assert torch.equal(strips.halved(maps), expected)


@pytest.mark.parametrize(
    ("changes", "blocks"),
    [
        # of 160 rows three levels have more than 32; of other sizes some are joined with maps of not half their size
        ({}, 6),
        ({"convolutions": 1}, 6),
        ({"convolutions": 3}, 6),
        ({"convolutions": 5}, 0),  # the rows around a strip would be nearly as many as its own
        ({"decoder": "nested"}, 9),
        ({"attention": True}, 6),
        ({"downsampling": "convolution"}, 4),
        ({"norm": "instance"}, 0),
        ({"squeeze_excitation": True}, 0),
        ({"padded": False}, 0),
    ],
)
@pytest.mark.parametrize("size", [(160, 48), (156, 48), (153, 51)])
def test_a_prediction_in_strips_is_that_of_the_whole(
    size: tuple[int, int], changes: dict[str, object], blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strips, "STRIP_ROWS", 16)
    torch.manual_seed(0)
    config = ModelConfig(width=4, depth=3, **changes)
    edges = size if config.padded else [valid_size_px(config, edge) for edge in size]
    network, image = folded(build(config, 3, 2).double().eval()), torch.randn(2, 3, *edges, dtype=torch.float64)
    whole, before = network(image), image.clone()
    through = Mock(wraps=strips.through)
    monkeypatch.setattr(strips, "through", through)
    with torch.no_grad():
        torch.testing.assert_close(network(image), whole)
    assert through.call_count == blocks or (size != (160, 48) and 0 < through.call_count < blocks)
    assert torch.equal(image, before)


@pytest.mark.parametrize("laid", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(InstanceNorm(4, affine=True), nn.InstanceNorm2d(4, affine=True)), (GroupNorm(2, 4), nn.GroupNorm(2, 4))],
)
def test_normalisations_are_torchs(ours: nn.Module, theirs: nn.Module, laid: torch.memory_format) -> None:
    torch.manual_seed(0)
    ours, theirs = ours.double(), theirs.double()
    nn.init.uniform_(ours.weight)
    nn.init.uniform_(ours.bias)
    theirs.load_state_dict(ours.state_dict())
    image = (3.0 * torch.randn(3, 4, 5, 7, dtype=torch.float64) + 1.0).contiguous(memory_format=laid)
    for mine, referee in zip(_value_and_gradients(ours, image), _value_and_gradients(theirs, image), strict=True):
        torch.testing.assert_close(mine, referee)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image))


def test_the_papers_network_maps_572_pixels_to_388() -> None:
    network = build(PAPER.model_copy(update={"width": 2, "max_width": 32}), 1, 2).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert border_px(PAPER) == (572 - 388) // 2
    assert valid_size_px(PAPER, 572) == 572
    assert valid_size_px(PAPER, 573) == 588


def test_the_paper_has_23_convolutional_layers() -> None:
    layers = [m for m in build(PAPER, 1, 2).modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == 23


def test_the_paper_crops_the_middle_of_a_skip() -> None:
    features = torch.arange(36.0).reshape(1, 1, 6, 6)
    assert centre_crop(features, (2, 2)).flatten().tolist() == [14, 15, 20, 21]


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("size", [(1, 1), (7, 64), (33, 50), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("downsampling", ["max_pool", "convolution"])
def test_every_encoder_takes_any_size_and_any_channels(
    encoder: str, size: tuple[int, int], channels: int, stride: int, downsampling: str
) -> None:
    config = ModelConfig.model_validate(
        {"encoder": encoder, "width": 4, "depth": 3, "stride": stride, "downsampling": downsampling}
    )
    network = build(config, channels, 3).eval()
    with torch.no_grad():
        features = network.encoder(torch.randn(2, channels * stride**2, *size))
        assert [f.shape[1] for f in features] == list(network.encoder.widths)
        assert features[0].shape[2:] == size
        assert network(torch.randn(2, channels, *size)).shape == (2, 3, *size)


PARTS: dict[str, dict[str, object]] = {
    **{f"block={name}": {"block": name} for name in BLOCKS},
    **{f"decoder={name}": {"decoder": name} for name in DECODERS},
    "residual, strided": {"block": "residual", "downsampling": "convolution"},
    "squeeze_excitation": {"squeeze_excitation": True},
    "residual, squeeze_excitation": {"block": "residual", "squeeze_excitation": True},
    "attention": {"attention": True},
    "nested, attention": {"decoder": "nested", "attention": True},
    "dilated": {"bottleneck": "dilated"},
    "nested, supervised": {"decoder": "nested", "deep_supervision": True},
    "all": {
        "block": "residual",
        "squeeze_excitation": True,
        "bottleneck": "dilated",
        "decoder": "nested",
        "attention": True,
        "deep_supervision": True,
        "downsampling": "convolution",
        "stride": 2,
    },
}
"""Networks that differ from the plain one in a part or more."""


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_every_part_takes_any_size_trains_all_weights_and_folds(parts: dict[str, object], norm: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"width": 4, "depth": 3, "norm": norm, **parts})
    network, image = build(config, 2, 3), torch.randn(3, 2, 37, 50)
    logits = network(image)
    levels = logits if isinstance(logits, list) else [logits]
    assert levels[0].shape == (3, 3, 37, 50)
    torch.stack([level.square().mean() for level in levels]).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    # the few features between squeeze and excitation may all be off for these images
    sure = [p.grad for name, p in network.named_parameters() if "squeeze" not in name and "excite" not in name]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in sure)
    with torch.no_grad():
        plain, quick = network.eval()(image), folded(network)
        assert not [part for part in quick.modules() if isinstance(part, nn.BatchNorm2d)]
        torch.testing.assert_close(quick(image), plain, rtol=1e-4, atol=1e-4)
        assert network(torch.randn(1, 2, 1, 5)).shape == (1, 3, 1, 5)


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_every_part_is_exported(parts: dict[str, object]) -> None:
    """`torch.export`, from which files for other programs are made, and compilation, see the same network."""
    import jaxtyping

    torch.manual_seed(0)
    network = build(ModelConfig.model_validate({"width": 4, "depth": 2, **parts}), 1, 2).eval()
    image = torch.randn(2, 1, 32, 48)
    before, off = jaxtyping.config.jaxtyping_disable, True
    jaxtyping.config.update("jaxtyping_disable", off)
    try:
        with torch.no_grad():
            exported = torch.export.export(network, (image,), strict=False).module()
            torch.testing.assert_close(exported(image), network(image))
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def test_unet_plus_plus_has_the_blocks_of_its_paper() -> None:
    """Level i of depth L has L - i blocks beside the encoder's; block j takes j + 2 maps of the level's width."""
    network = build(ModelConfig(width=4, depth=3, decoder="nested", norm="none"), 1, 2)
    inputs = [[block[0].in_channels for block in row] for row in network.decoder.blocks]
    assert inputs == [[2 * 4, 3 * 4, 4 * 4], [2 * 8, 3 * 8], [2 * 16]]


def test_a_residual_block_of_nothing_is_the_identity() -> None:
    block = BLOCKS["residual"](4, 4, ModelConfig(norm="none"))
    for layer in block.body:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    maps = torch.rand(1, 4, 5, 6)
    assert torch.equal(block(maps), maps)


def test_squeeze_and_excitation_is_its_equation() -> None:
    torch.manual_seed(0)
    layer, maps = SqueezeExcitation(8), torch.randn(2, 8, 5, 6)
    squeeze, excite = layer.squeeze.weight[..., 0, 0], layer.excite.weight[..., 0, 0]
    hidden = (maps.mean((2, 3)) @ squeeze.T + layer.squeeze.bias).clamp_min(0)
    weights = 1 / (1 + torch.exp(-(hidden @ excite.T + layer.excite.bias)))
    torch.testing.assert_close(layer(maps), maps * weights[:, :, None, None])


def test_an_attention_gate_weighs_between_nothing_and_all() -> None:
    torch.manual_seed(0)
    gate, skip, below = AttentionGate(6, 8), torch.rand(2, 6, 7, 10) + 1.0, torch.randn(2, 8, 4, 5)
    share = gate(skip, below) / skip
    assert ((share > 0) & (share < 1)).all()
    torch.testing.assert_close(share[:, :1].expand_as(share), share)  # a place has one weight for all features
    nn.init.constant_(gate.weight.bias, 100.0)
    torch.testing.assert_close(gate(skip, below), skip)


def test_a_dilated_bottleneck_sees_fifteen_places_to_each_side() -> None:
    """1 + 2 + 4 + 8, by the gradient of the middle."""
    torch.manual_seed(0)
    layer = DilatedBottleneck(8, ModelConfig(norm="none"))
    image = torch.randn(1, 8, 41, 41).requires_grad_()
    layer(image)[0, :, 20, 20].sum().backward()
    rows = torch.nonzero(image.grad.abs().sum((0, 1, 3)))[:, 0]
    assert (int(rows.min()), int(rows.max())) == (5, 35)


@pytest.mark.parametrize("norm", NORMS)
def test_every_normalisation_trains_all_weights(norm: str) -> None:
    network = build(ModelConfig(width=4, depth=2, norm=norm), 1, 2)
    network(torch.randn(2, 1, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_he_initialisation_keeps_the_size_of_signals() -> None:
    """Section 3 of the paper: each feature map shall have about unit variance."""
    torch.manual_seed(0)
    network = build(ModelConfig(width=32, depth=4, norm="none"), 3, 2).eval()
    with torch.no_grad():
        features = network.encoder(torch.randn(4, 3, 64, 64))
    second_moments = [float(f.square().mean()) for f in features]
    assert all(0.2 < moment < 5.0 for moment in second_moments), second_moments


@pytest.mark.parametrize("stride", [1, 2])
def test_a_padded_network_moves_with_its_input(stride: int) -> None:
    """Shifting by stride * 2^depth pixels shifts the map, far from the border."""
    torch.manual_seed(0)
    config = ModelConfig(width=4, depth=2, norm="none", stride=stride)
    network, shift = build(config, 1, 2).eval(), coarsest_px(config)
    assert shift == 4 * stride
    image = torch.randn(1, 1, 256, 256)
    with torch.no_grad():
        moved = network(image.roll(shift, dims=-1))[..., 96:160, 96:160]
        torch.testing.assert_close(moved, network(image).roll(shift, dims=-1)[..., 96:160, 96:160])


class PassOn(nn.Module):
    """An encoder, and a decoder, of a single level that changes nothing."""

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [image]


def test_blocks_keep_every_pixel_and_return_to_their_place() -> None:
    """With parts that pass on what they are given, the way in and the way out are inverse to each other."""
    network = UNet(PassOn(), nn.Identity(), nn.Identity(), stride=2)
    image = torch.randn(2, 3, 7, 10)
    assert torch.equal(network(image), image)


@pytest.mark.parametrize(
    "setting",
    [
        "model.stride=2",
        "model.deep_supervision=true",
        "model.downsampling=convolution",
        "model.block=residual",
        "model.bottleneck=dilated",
        "model.decoder=nested",
        "model.attention=true",
        "model.encoder=timm/resnet18",
    ],
)
def test_what_needs_padding_says_so(setting: str) -> None:
    with pytest.raises(ConfigError, match="padded"):
        load(None, ["model=paper", setting])


@pytest.mark.parametrize("norm", NORMS)
def test_folding_changes_nothing_but_the_number_of_layers(norm: str) -> None:
    torch.manual_seed(0)
    network = build(ModelConfig(width=8, depth=2, norm=norm), 3, 4)
    for _ in range(3):  # statistics that are not those of the beginning
        network(torch.randn(4, 3, 32, 32) * 3 + 1)
    network.eval()
    quick, image = folded(network), torch.randn(2, 3, 40, 36)
    layers = {one: sum(isinstance(part, nn.BatchNorm2d) for part in one.modules()) for one in (network, quick)}
    assert layers[network] == (10 if norm == "batch" else 0)
    assert layers[quick] == 0
    with torch.no_grad():
        assert torch.allclose(quick(image), network(image), atol=1e-4)


def test_averages_move_by_one_minus_decay() -> None:
    mean, current = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
    nn.init.constant_(current.weight, 3.0)
    current.running_mean.fill_(10.0)
    current.num_batches_tracked.fill_(7)
    average_into(mean.state_dict(), current.state_dict(), 0.9)
    assert mean.weight.item() == pytest.approx(0.9 * 1 + 0.1 * 3)
    assert mean.running_mean.item() == pytest.approx(1.0)
    assert mean.num_batches_tracked.item() == 7


def test_widths_double_up_to_the_limit() -> None:
    network = build(ModelConfig(width=8, depth=4, max_width=32), 1, 2)
    assert network.encoder.widths == (8, 16, 32, 32, 32)


@pytest.mark.parametrize(
    ("kind", "capability", "onednn", "expected"),
    [
        ("cuda", (7, 5), True, False),
        ("cuda", (8, 0), False, True),
        ("cuda", (9, 0), False, True),
        ("mps", (0, 0), True, False),
        ("cpu", (9, 0), False, False),
    ],
)
def test_bfloat16_is_used_where_it_is_computed(
    kind: str, capability: tuple[int, int], onednn: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    assert has_bfloat16(torch.device(kind)) == expected
