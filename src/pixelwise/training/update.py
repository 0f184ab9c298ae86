"""One update of the weights: schedule, backward, clip, step, average."""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn

from pixelwise.config import TrainingConfig
from pixelwise.models.blocks import average_into

LOWEST_RATE_FRACTION = 0.01
"""Annealed schedules end at this share of the peak rate."""

POLY_POWER = 0.9
"""Exponent of the poly schedule, as DeepLab (Chen et al., 2018) and nnU-Net have it."""


State = dict[str, Tensor]
"""Everything that the next update depends on, on the CPU."""


def rate_factor(progress: float, config: TrainingConfig) -> float:
    """Share of the peak learning rate at `progress`, 0 at the start and 1 at the end of the run."""
    if progress < config.warmup_fraction:
        return max(progress / config.warmup_fraction, LOWEST_RATE_FRACTION)
    done = min((progress - config.warmup_fraction) / (1.0 - config.warmup_fraction), 1.0)
    left: float = {
        "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
        "poly": (1.0 - done) ** POLY_POWER,
        "constant": 1.0,
    }[config.schedule]
    return LOWEST_RATE_FRACTION + (1.0 - LOWEST_RATE_FRACTION) * left


def make_optimizer(
    network: nn.Module, config: TrainingConfig, scales: Mapping[nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """The optimiser of the settings; normalisation weights and biases are not decayed.

    Args:
        network: what is trained; weights that need no gradient are left out.
        config: settings of the loop.
        scales: what the learning rate of each weight is multiplied by; none is 1 for all.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    by_scale: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        by_scale.setdefault(scales[parameter] if scales is not None else 1.0, []).append(parameter)
    groups = [
        {"params": [p for p in some if (p.ndim > 1) == is_decayed], "weight_decay": decay, "scale": scale}
        for scale, some in by_scale.items()
        for is_decayed, decay in ((True, config.weight_decay), (False, 0.0))
    ]
    rate = config.learning_rate
    # one kernel for all arithmetic of a weight: the plain ones read and write it several times
    fused = all(parameter.device.type in {"cpu", "cuda"} for parameter in parameters)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, nesterov=config.momentum > 0, fused=fused)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, betas=(config.momentum, 0.999), fused=fused)


class Update:
    """The weights of a run, their average, and how a loss changes both.

    Args:
        fabric: device, precision and processes.
        network: the plain network, already on the device.
        config: settings of the loop.
        scales: as for `make_optimizer`.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: nn.Module,
        config: TrainingConfig,
        scales: Mapping[nn.Parameter, float] | None = None,
    ) -> None:
        self._fabric = fabric
        self._config = config
        self.plain = network
        self.average = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        optimizer = make_optimizer(network, config, scales)
        self._fixed = [part for part in network.modules() if _is_fixed(part)]
        ready: nn.Module = torch.compile(network) if config.compile else network  # type: ignore[assignment]
        self.network, self.optimizer = fabric.setup(ready, optimizer)
        self.learning_rate = 0.0
        self.rate_scale = 1.0
        """What setbacks have left of the learning rate."""

    def begin_training(self) -> None:
        """Dropout and batch statistics as in training, but in parts that are fixed."""
        self.network.train()
        for part in self._fixed:
            part.eval()

    def part(self, is_last: bool) -> AbstractContextManager[None]:
        """Within, a part of a step is computed; processes add up their gradients in the last one only."""
        waiting: AbstractContextManager[None] = self._fabric.no_backward_sync(self.network, enabled=not is_last)
        return waiting

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Add the gradients of a loss to those of the step."""
        self._fabric.backward(loss)

    def step(self, step: int, progress: float) -> None:
        """Clip, change the weights, average.

        Args:
            step: how many updates were made before.
            progress: share of the run that is over, 0 to 1.
        """
        self.learning_rate = self._config.learning_rate * rate_factor(progress, self._config) * self.rate_scale
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * group["scale"]
        if self._config.clip_norm:
            self._fabric.clip_gradients(
                self.network, self.optimizer, max_norm=self._config.clip_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        # the first steps move far: an average that remembers the start would hold the run back
        average_into(self.average, self.plain, min(self._config.ema_decay, (1 + step) / (10 + step)))

    def state(self) -> State:
        """Everything that the next update depends on, as copies on the CPU."""
        return {name: _copied(tensor) for name, tensor in self._tensors()}

    def is_finite(self) -> bool:
        """Whether all of that are numbers."""
        return all(bool(tensor.isfinite().all()) for _, tensor in self._tensors() if tensor.is_floating_point())

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for part, network in (("network", self.plain), ("average", self.average)):
            yield from ((f"{part}.{name}", tensor) for name, tensor in network.state_dict().items())
        for index, values in self.optimizer.state_dict()["state"].items():
            yield from ((f"optimizer.{index}.{name}", tensor) for name, tensor in values.items())

    def put_back(self, state: State) -> None:
        """Make everything as it was when `state` gave this.

        Raises:
            RuntimeError, KeyError, ValueError: it is the state of another network.
        """
        self.plain.load_state_dict(_below(state, "network."))
        self.average.load_state_dict(_below(state, "average."))
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below(state, "optimizer.").items():
            index, key = name.split(".")
            optimizer.setdefault(int(index), {})[key] = _laid_like(weights[int(index)], tensor)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": optimizer})


def _is_fixed(part: nn.Module) -> bool:
    """Whether a part has weights, none of which is trained."""
    trained = [parameter.requires_grad for parameter in part.parameters()]
    return bool(trained) and not any(trained)


def _copied(tensor: Tensor) -> Tensor:
    """On the CPU, in the usual order of axes, and never the same memory."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def _laid_like(weight: Tensor, tensor: Tensor) -> Tensor:
    """A copy of what belongs to a weight, with its strides: the fused optimisers go through both in order of memory."""
    if tensor.shape != weight.shape:  # the count of steps
        return tensor.clone()
    return torch.empty_like(weight, device=tensor.device, dtype=tensor.dtype).copy_(tensor)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
