"""Parts of a user's own: found in their file, asked what they promise, and used without touching the package."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pixelwise import losses
from pixelwise.config import AugmentConfig, LossConfig, ModelConfig, load
from pixelwise.data.augment import augment
from pixelwise.errors import ConfigError
from pixelwise.models.unet import build

PARTS = '''
import torch
from torch import nn


class MyEncoder(nn.Module):
    """Of average pools."""

    def __init__(self, channels, config):
        super().__init__()
        self.widths = tuple(4 + level for level in range(config.depth + 1))
        self.levels = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip((channels, *self.widths[:-1]), self.widths)
        )

    def forward(self, image):
        features = [self.levels[0](image)]
        for level in self.levels[1:]:
            features.append(level(nn.functional.avg_pool2d(features[-1], 2, ceil_mode=True)))
        return features


class Short(MyEncoder):
    def forward(self, image):
        return super().forward(image)[:-1]


class NoWidths(nn.Module):
    def __init__(self, channels, config):
        super().__init__()

    def forward(self, image):
        return [image]


class Views(MyEncoder):
    def forward(self, image):
        features = super().forward(image)
        return [features[0], features[0][:, :1, ::2, ::2].expand(-1, 5, -1, -1), *features[2:]]


class Floors(MyEncoder):
    def forward(self, image):
        features = [self.levels[0](image)]
        for level in self.levels[1:]:
            features.append(level(nn.functional.avg_pool2d(features[-1], 2)))
        return features


class Tuple(MyEncoder):
    def forward(self, image):
        return tuple(super().forward(image))


class Fails(MyEncoder):
    def forward(self, image):
        raise RuntimeError("broken")


class Wrong(MyEncoder):
    def __init__(self, channels):
        super().__init__(channels, None)


def not_a_module(channels, config):
    return "nothing"


def my_loss(logits, mask, pixel_weight=None):
    return logits.square().mean()


def darker(image, mask, seeds):
    return image - seeds.to(image)[:, None, None, None], mask


def smaller(image, mask, seeds):
    return image[..., 1:], mask


number = 3
'''


@pytest.fixture(autouse=True)
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in that holds my_parts.py and a broken module."""
    import sys

    (tmp_path / "my_parts.py").write_text(PARTS)
    (tmp_path / "broken_parts.py").write_text("1 / 0\n")
    (tmp_path / "hungry_parts.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("my_parts", "broken_parts", "hungry_parts"):
        sys.modules.pop(name, None)


def test_an_encoder_of_the_users_own_meets_the_decoder() -> None:
    config = load(None, ["model.encoder=my_parts:MyEncoder", "model.depth=3"]).model
    network = build(config, 2, 3)
    assert type(network.encoder).__name__ == "MyEncoder"
    assert network.training
    image = torch.randn(2, 2, 21, 34)
    network(image).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    with torch.device("meta"):  # as a bundle is opened
        assert build(config, 2, 3).head.weight.shape[0] == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_parts:Short", "needs a list of 5 levels"),
        ("my_parts:NoWidths", "`widths` are missing"),
        ("my_parts:not_a_module", "no class of networks"),
        ("my_parts:MyEncodr", "no class or function 'MyEncodr'.*MyEncoder"),
        ("my_parts:number", "no class or function 'number'"),
        ("no_parts:MyEncoder", r"there is no no_parts\.py here"),
        ("hungry_parts:MyEncoder", "no_such_library"),
        ("broken_parts:MyEncoder", "ZeroDivisionError"),
        ("my_parts:Views", "some are views of others"),
        ("my_parts:Floors", "rounded up"),
        ("my_parts:Wrong", "cannot be made: TypeError"),
        ("my_parts:Tuple", "needs a list"),
        ("my_parts:Fails", "fails on an image of 32 x 32 pixels with 1 channels: RuntimeError"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(ModelConfig(encoder=name), 1, 2)


@pytest.mark.parametrize("name", ["my_parts", "my parts:MyEncoder", "my_parts:", ":x", "os.system('x')", "a:b:c"])
def test_other_names_are_no_encoders(name: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.encoder"):
        load(None, [f'model.encoder="{name}"'])


def test_a_loss_of_the_users_own_is_minimised() -> None:
    loss = losses.build(LossConfig(name="my_parts:my_loss"))
    logits = torch.full((1, 2, 4, 4), 3.0)
    assert loss(logits, torch.zeros(1, 4, 4, dtype=torch.uint8), None) == 9.0


def test_an_augmentation_of_the_users_own_comes_last() -> None:
    image, mask = torch.rand(2, 1, 8, 8), torch.zeros(2, 8, 8, dtype=torch.uint8)
    seeds = torch.tensor([1, 2])
    plain, own = AugmentConfig(strength=0.0), AugmentConfig(strength=0.0, own="my_parts:darker")
    before, _ = augment(image, mask, seeds, (8, 8), plain)
    after, _ = augment(image, mask, seeds, (8, 8), own)
    torch.testing.assert_close(after, before - seeds[:, None, None, None])
    with pytest.raises(ConfigError, match="Return image and mask, of the shapes"):
        augment(image, mask, seeds, (8, 8), AugmentConfig(own="my_parts:smaller"))
