"""Encoders of timm: their weights, and U-Nets around them.

timm imports torchvision, of which no build may fit the torch at hand; encoders use nothing of it. Where it is missing a
stand-in takes its place while timm is imported.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from pixelwise.config import ModelConfig, load
from pixelwise.errors import ConfigError
from pixelwise.models import encoders
from pixelwise.models.unet import build

STANDING_IN = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "torchvision.models",
    "torchvision.models.feature_extraction",
)

NETWORKS = ("resnet18", "efficientnet_b0", "convnext_atto", "mobilenetv3_small_050")
"""Levels from 1/2 on, and from 1/4 on; with and without normalisations of batches."""


class _Anything(type):
    """A class that has whatever it is asked for: its name."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return name


def _stand_in(name: str) -> ModuleType:
    """A module whose every attribute is an empty class."""
    module = ModuleType(name)
    module.__path__ = []

    def anything(attribute: str) -> type:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return _Anything(attribute, (), {})

    module.__getattr__ = anything  # type: ignore[method-assign]
    return module


@pytest.fixture(scope="module", autouse=True)
def timm() -> Iterator[Any]:
    """With whatever takes the place of torchvision."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        standing_in = {name: _stand_in(name) for name in STANDING_IN}
        for name, module in standing_in.items():
            parent, _, last = name.rpartition(".")
            if parent:
                setattr(standing_in[parent], last, module)
    else:
        standing_in = {}
    sys.modules.update(standing_in)
    yield pytest.importorskip("timm", reason="timm is not installed")
    for name in [*standing_in, *(name for name in sys.modules if name.partition(".")[0] == "timm")]:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("channels", "size"), [(3, (64, 64)), (5, (33, 50))])
def test_a_unet_around_an_encoder_of_timm_takes_any_size_and_any_channels(
    name: str, channels: int, size: tuple[int, int]
) -> None:
    network = build(ModelConfig(encoder=f"timm/{name}", width=4, depth=5), channels, 3)
    features = network.encoder(torch.randn(2, channels, *size))
    assert [level.shape[1] for level in features] == list(network.encoder.widths)
    expected = [(-(-size[0] // 2**level), -(-size[1] // 2**level)) for level in range(6)]
    assert [tuple(level.shape[2:]) for level in features] == expected
    logits = network(torch.randn(2, channels, *size))
    assert logits.shape == (2, 3, *size)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_weights_come_from_a_file_and_are_adapted_to_the_channels(tmp_path: Path, timm: Any) -> None:
    """The first convolution sees one channel in place of three: timm sums over the colours."""
    from safetensors.torch import save_file

    torch.manual_seed(1)
    donor = timm.create_model("resnet18")
    save_file(donor.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(2)
    encoder = build(ModelConfig(encoder="timm/resnet18", width=4, depth=3), 1, 2).encoder
    own = [parameter.clone() for parameter in encoder.levels.parameters()]
    encoder.load_weights(tmp_path / "weights.safetensors")
    assert torch.equal(encoder.body.layer1[0].conv1.weight, donor.layer1[0].conv1.weight)
    torch.testing.assert_close(encoder.body.conv1.weight, donor.conv1.weight.sum(dim=1, keepdim=True))
    assert all(torch.equal(a, b) for a, b in zip(own, encoder.levels.parameters(), strict=True))


def test_initialisation_leaves_what_timm_has_done() -> None:
    """He's initialisation would undo the zeros at the end of timm's residual blocks."""
    encoder = build(ModelConfig(encoder="timm/resnet18", width=4, depth=3), 3, 2).encoder
    assert encoder.body.layer1[0].bn2.weight.abs().sum().item() == 0.0


@pytest.mark.parametrize(
    ("name", "depth", "message"),
    [
        ("resnet19", 4, "has no 'resnet19'.*resnet18"),
        ("vit_tiny_patch16_224", 4, "needs each to be half|is no feature extractor"),
        ("resnet18", 6, "needs each to be half"),
    ],
)
def test_what_is_no_encoder_is_refused(name: str, depth: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(ModelConfig(encoder=f"timm/{name}", depth=depth), 3, 2)


def test_weights_that_are_not_there_are_said(tmp_path: Path) -> None:
    encoder = build(ModelConfig(encoder="timm/resnet18", width=4, depth=3), 3, 2).encoder
    with pytest.raises(ConfigError, match="no such file"):
        encoder.load_weights(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(ConfigError, match="cannot be loaded from"):
        encoder.load_weights(tmp_path / "text.safetensors")


def test_weights_are_for_encoders_of_timm() -> None:
    with pytest.raises(ConfigError, match=r"encoder_weights is for encoders of timm"):
        load(None, ["model.encoder_weights=hub"])


def test_names_are_found() -> None:
    assert "timm/resnet18.a1_in1k" in encoders.timm_names("resnet18*")
    with pytest.raises(ConfigError, match="no encoder whose name"):
        encoders.timm_names("resnot")


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"pixelwise\[encoders\]"):
        build(ModelConfig(encoder="timm/resnet18"), 3, 2)
