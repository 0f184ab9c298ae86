"""How a network is computed in training, as far as it can be seen without a GPU."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from pixelwise.config import TrainingConfig
from pixelwise.errors import MachineError
from pixelwise.training import kernels


def test_graphs_are_for_one_process_with_a_gpu_and_steps_of_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Conv2d(1, 1, 1)
    wanted = TrainingConfig(cuda_graphs=True)
    assert kernels.computed(network, wanted) is network
    monkeypatch.setattr(kernels, "_is_on_gpu", lambda _: True)
    assert isinstance(kernels.computed(network, wanted), kernels.Replayed)
    assert kernels.computed(network, wanted, processes=2) is network
    assert kernels.computed(network, wanted.model_copy(update={"accumulate": 2})) is network
    assert kernels.computed(network, TrainingConfig()) is network


def failing(error: Exception) -> Callable[..., nn.Module]:
    def recorded(*_: object) -> nn.Module:
        raise error

    return recorded


def test_a_network_that_cannot_be_recorded_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.zeros(1, 1, 4, 4)
    replayed = kernels.Replayed(nn.Conv2d(1, 1, 1))
    monkeypatch.setattr(kernels, "_recorded", failing(RuntimeError("Cannot copy during capture\nand more")))
    with pytest.raises(MachineError, match=r"\(Cannot copy during capture\)") as refused:
        replayed(image)
    assert "training.cuda_graphs=false" in refused.value.remedy
    monkeypatch.setattr(kernels, "_recorded", failing(torch.OutOfMemoryError("no")))
    with pytest.raises(torch.OutOfMemoryError):
        replayed(image)


def test_only_batches_of_the_size_that_was_recorded_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_recorded", lambda _network, _image: nn.Identity())
    replayed = kernels.Replayed(nn.Conv2d(1, 3, 1))
    assert replayed(torch.zeros(2, 1, 4, 4)).shape[1] == 1, "the recorded one"
    assert replayed(torch.zeros(1, 1, 4, 4)).shape[1] == 3
    assert replayed.eval()(torch.zeros(2, 1, 4, 4)).shape[1] == 3
