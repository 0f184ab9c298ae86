"""Weights of another run: matched by class name."""

import pytest
import torch

from pixelwise.classes import ClassTable
from pixelwise.config import ModelConfig, Preprocessing
from pixelwise.models.bundle import Bundle, Description, state_on_cpu
from pixelwise.models.unet import build
from pixelwise.training.finetune import transfer


@pytest.mark.parametrize("stride", [1, 2])
def test_classes_of_equal_names_are_predicted_as_before(stride: int) -> None:
    config = ModelConfig(width=4, depth=2, stride=stride)
    old, new = (ClassTable.from_names(names) for names in (("sky", "ground", "bird"), ("bird", "car", "sky", "tree")))
    network = build(config, 2, len(old)).eval()
    described = Description(
        model=config,
        preprocessing=Preprocessing(channels=2, normalisation="none", mean=(0.0, 0.0), deviation=(1.0, 1.0)),
        classes=old,
        patch_size=(32, 32),
    )
    tuned = build(config, 2, len(new)).eval()
    moved = transfer(tuned, Bundle(described, state_on_cpu(network)), new)
    assert (moved.shared, moved.fresh) == (("bird", "sky"), ("car", "tree"))
    image = torch.randn(1, 2, 20, 20)
    with torch.no_grad():
        before, after = network(image), tuned(image)
    torch.testing.assert_close(after[:, [0, 2]], before[:, [2, 0]])
