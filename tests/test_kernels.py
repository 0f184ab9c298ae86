"""How a network is computed in training, as far as it can be seen without a GPU."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pixelwise.config import ModelConfig, TrainingConfig
from pixelwise.errors import MachineError
from pixelwise.models.unet import build
from pixelwise.training import kernels


def test_graphs_are_for_one_process_with_a_gpu_and_steps_of_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Conv2d(1, 1, 1)
    wanted = TrainingConfig(cuda_graphs=True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert kernels.computed(network, wanted) is network
    monkeypatch.setattr(kernels, "_on", lambda _, kind: kind == "cuda")
    assert isinstance(kernels.computed(network, wanted), kernels.Replayed)
    assert kernels.computed(network, wanted, processes=2) is network
    assert kernels.computed(network, wanted.model_copy(update={"accumulate": 2})) is network
    assert kernels.computed(network, TrainingConfig()) is network


@pytest.mark.parametrize(
    ("kernel", "padding", "size"),
    [((3, 3), (1, 1), (9, 14)), ((3, 3), (0, 0), (9, 14)), ((5, 3), (2, 0), (7, 6)), ((2, 4), (1, 3), (5, 8))],
)
def test_gradients_of_weights_are_those_of_torch(
    kernel: tuple[int, int], padding: tuple[int, int], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "ROWS", 32)  # some parts, and a shorter last one
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((2, 5, *size), dtype=torch.float64, generator=generator)
    weight = torch.randn((4, 5, *kernel), dtype=torch.float64, generator=generator, requires_grad=True)
    made = nn.functional.conv2d(image, weight, padding=padding)
    slope = torch.randn(made.shape, dtype=torch.float64, generator=generator)
    made.backward(slope)  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    torch.testing.assert_close(kernels.weight_gradient(image, slope, padding), weight.grad)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"norm": "none", "padded": False},
        {"norm": "group", "block": "residual", "squeeze_excitation": True, "stride": 2},
        {"norm": "instance", "downsampling": "convolution", "deep_supervision": True},
    ],
)
def test_a_network_learns_the_same_on_processors_with_avx2_alone(
    change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    products: list[tuple[int, ...]] = []
    gradient = kernels.weight_gradient

    def counted(image: Tensor, slope: Tensor, padding: tuple[int, int]) -> Tensor:
        products.append(tuple(slope.shape))
        return gradient(image, slope, padding)

    monkeypatch.setattr(kernels, "weight_gradient", counted)
    torch.manual_seed(0)
    network = build(ModelConfig.model_validate({"width": 24, "depth": 2, **change}), 3, 2)
    image, found = torch.randn(2, 3, 64, 64), {}
    for capability in ("AVX512", "AVX2"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        logits = kernels.computed(network.train(), TrainingConfig())(image)
        levels = logits if isinstance(logits, list) else [logits]
        sum(level.square().mean() for level in levels).backward()
        found[capability] = [weight.grad.clone() for weight in network.parameters() if weight.grad is not None]
        network.zero_grad()
        assert bool(products) == (capability == "AVX2")
    for expected, got in zip(*found.values(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5 + 1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("reason", ["few features", "one place", "no gradient wanted", "bfloat16", "frozen"])
def test_other_convolutions_are_left_to_torch(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(kernels, "_Convolution", None)
    features, places = 8 if reason == "few features" else 32, 1 if reason == "one place" else 3
    layer = nn.Conv2d(features, features, places)
    layer.requires_grad_(reason != "frozen")
    network = kernels.computed(layer, TrainingConfig())
    assert kernels.computed(layer, TrainingConfig(shard=True)) is layer
    with (
        torch.set_grad_enabled(reason != "no gradient wanted"),
        torch.autocast("cpu", torch.bfloat16, enabled=reason == "bfloat16"),
    ):
        assert torch.is_tensor(network(torch.zeros(1, features, 8, 8)))


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
