"""One update of the weights: schedule, backward, clip, step, average."""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import cast

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from pixelwise.config import TrainingConfig
from pixelwise.models.blocks import average_into
from pixelwise.training.kernels import computed
from pixelwise.training.processes import SharedBatchNorm

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
    network: nn.Module, config: TrainingConfig, scales: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """The optimiser of the settings; normalisation weights and biases are not decayed.

    Args:
        network: what is trained; weights that need no gradient are left out.
        config: settings of the loop.
        scales: what the learning rate of each weight, by its name, is multiplied by; none is 1 for all.
    """
    parameters = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    by_scale: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        by_scale.setdefault(scales[name] if scales is not None else 1.0, []).append(parameter)
    groups = [
        {"params": [p for p in some if (p.ndim > 1) == is_decayed], "weight_decay": decay, "scale": scale}
        for scale, some in by_scale.items()
        for is_decayed, decay in ((True, config.weight_decay), (False, 0.0))
    ]
    rate = config.learning_rate
    # one kernel for all arithmetic of a weight: the plain ones read and write it several times
    fused = all(parameter.device.type in {"cpu", "cuda"} for parameter in parameters.values())
    if config.optimizer == "sgd":
        fused &= not any(isinstance(parameter, DTensor) for parameter in parameters.values())  # torch 2.13 cannot
        return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, nesterov=config.momentum > 0, fused=fused)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, betas=(config.momentum, 0.999), fused=fused)


class Update:
    """The weights of a run, their average, and how a loss changes both.

    Where the processes divide them, each holds its shards of all that a step changes, and of the average as a network
    only what validation needs while it needs it.

    Args:
        fabric: device, precision and processes.
        network: the plain network, on the device; on the CPU if the processes divide it.
        config: settings of the loop.
        scales: as for `make_optimizer`.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: nn.Module,
        config: TrainingConfig,
        scales: Mapping[str, float] | None = None,
    ) -> None:
        self._fabric = fabric
        self._config = config
        self.plain = network
        self.average = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        self._fixed = [part for part in network.modules() if _is_fixed(part)]
        self.network = fabric.setup_module(computed(network, config, fabric.world_size))
        # its weights are those that the line before has left: shards, where they are divided
        self.optimizer = cast("torch.optim.Optimizer", fabric.setup_optimizers(make_optimizer(network, config, scales)))
        whole, divided = self.average.state_dict(), network.state_dict()
        self._is_divided = any(isinstance(tensor, DTensor) for tensor in divided.values())
        self._mean = {name: tensor.clone() for name, tensor in divided.items()} if self._is_divided else whole
        self._unshared = _unshared_statistics(network) if self._is_divided else []
        self.learning_rate = 0.0
        self.rate_scale = 1.0
        """What setbacks have left of the learning rate."""

    def begin_training(self) -> None:
        """Dropout and batch statistics as in training, but in parts that are fixed.

        Of a divided network, the average leaves the device until it is validated again.
        """
        if self._is_divided:
            self.average.cpu()
        self.network.train()
        for part in self._fixed:
            part.eval()

    @torch.no_grad()
    def begin_validation(self) -> None:
        """Let `average` hold the average, in every process."""
        if self._is_divided:
            self.average.to(self._fabric.device)
            for name, tensor in self.average.state_dict().items():
                tensor.copy_(_whole(self._mean[name]))

    def part(self, is_last: bool) -> AbstractContextManager[None]:
        """Within, a part of a step is computed; processes add up their gradients in the last one."""
        # divided, they do so in each part: else the gradients of the whole network would stay until the last one
        waits = not is_last and not self._is_divided
        waiting: AbstractContextManager[None] = self._fabric.no_backward_sync(self.network, enabled=waits)
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
        for statistics in self._unshared:  # those of the first process for all, as DDP does
            torch.distributed.broadcast(statistics, src=0)
        # the first steps move far: an average that remembers the start would hold the run back
        average_into(self._mean, self.plain.state_dict(), min(self._config.ema_decay, (1 + step) / (10 + step)))

    def state(self) -> State:
        """Everything that the next update depends on, as copies on the CPU."""
        return {name: _copied(tensor) for name, tensor in self._tensors()}

    def is_finite(self) -> bool:
        """Whether all of that are numbers, as far as this process holds it."""
        return all(bool(_own(tensor).isfinite().all()) for _, tensor in self._tensors() if tensor.is_floating_point())

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for part, tensors in (("network", self.plain.state_dict()), ("average", self._mean)):
            yield from ((f"{part}.{name}", tensor) for name, tensor in tensors.items())
        for index, values in self.optimizer.state_dict()["state"].items():
            yield from ((f"optimizer.{index}.{name}", tensor) for name, tensor in values.items())

    def put_back(self, state: State) -> None:
        """Make everything as it was when `state` gave this.

        Raises:
            KeyError, ValueError: it is the state of another network.
        """
        _fill(self.plain.state_dict(), _below(state, "network."))
        _fill(self._mean, _below(state, "average."))
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below(state, "optimizer.").items():
            index, key = name.split(".")
            weight, is_count = weights[int(index)], key == "step"
            optimizer.setdefault(int(index), {})[key] = tensor.clone() if is_count else _like(weight, tensor)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": optimizer})


def _is_fixed(part: nn.Module) -> bool:
    """Whether a part has weights, none of which is trained."""
    trained = [parameter.requires_grad for parameter in part.parameters()]
    return bool(trained) and not any(trained)


def _unshared_statistics(network: nn.Module) -> list[Tensor]:
    """Numbers that each process has of its own share of a batch."""
    alone = [part for part in network.modules() if not isinstance(part, SharedBatchNorm)]
    return [numbers for part in alone for numbers in part.buffers(recurse=False) if numbers.is_floating_point()]


def _whole(tensor: Tensor) -> Tensor:
    """All of what processes have shards of; every process has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _own(tensor: Tensor) -> Tensor:
    """The shard of this process."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _copied(tensor: Tensor) -> Tensor:
    """On the CPU, in the usual order of axes, and never the same memory."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(_whole(tensor.detach()))


def _like(weight: Tensor, tensor: Tensor) -> Tensor:
    """A copy of a whole tensor as the weight is: divided, or with its strides.

    The fused optimisers go through a weight and its moments in order of memory.
    """
    if isinstance(weight, DTensor):
        on_device = tensor.to(weight.device)
        return distribute_tensor(on_device, weight.device_mesh, weight.placements, src_data_rank=None)
    return torch.empty_like(weight, device=tensor.device, dtype=tensor.dtype).copy_(tensor)


@torch.no_grad()
def _fill(live: State, saved: State) -> None:
    """Copy saved tensors into those that are in use.

    Raises:
        KeyError, ValueError: they are others.
    """
    if live.keys() != saved.keys():
        raise KeyError(f"{min(live.keys() ^ saved.keys())} is in one of them only")
    for name, tensor in live.items():
        if tensor.shape != saved[name].shape:
            raise ValueError(f"{name} has shape {tuple(saved[name].shape)} in place of {tuple(tensor.shape)}")
        tensor.copy_(_like(tensor, saved[name]) if isinstance(tensor, DTensor) else saved[name])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
