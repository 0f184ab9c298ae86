"""Device, precision and process group, from Lightning Fabric; and what several processes need to compute as one.

A run started by `torchrun` or SLURM has several processes. Each computes its share of every batch; sums that a
loss or a normalisation divides by go over all of them, so that the result is that of one process with the whole batch.
"""

import atexit
import gc
import logging
import os
import time
import warnings
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.constants import default_pg_timeout
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from pixelwise import launcher
from pixelwise.config import Config
from pixelwise.errors import ConfigError
from pixelwise.inference.predictor import choose_device
from pixelwise.models.blocks import Doubling

Precision = Literal["32-true", "bf16-mixed"]

MEETING = "pixelwise/store"
"""Where torchrun's store says on which port the first process has opened one."""

PART_WEIGHTS = 500_000
"""Parts of a network with fewer weights are divided together with what they belong to: each is a message of its own."""

PRECISIONS: dict[str, Precision] = {"float32": "32-true", "bfloat16": "bf16-mixed"}
"""Fabric's names of ours."""

_ENVIRONMENTS: dict[str | None, type[ClusterEnvironment]] = {
    "torchrun": TorchElasticEnvironment,
    "srun": SLURMEnvironment,
    None: LightningEnvironment,
}
"""Fabric's readers of variables, by `Place.by`: left alone, it would take a script of sbatch for one of many tasks."""


def join(config: Config, environment: Mapping[str, str] = os.environ) -> Fabric:
    """Device and precision of the settings, and the process group that torchrun or SLURM has started.

    Calling it again, for another precision, keeps the group.

    Args:
        config: settings; `device`, `training.precision` and `training.shard` count.
        environment: where torchrun and SLURM say how many processes there are.

    Raises:
        ConfigError: there is no such device, or a process would have no part of a batch.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the plan has said it already
    device = choose_device(config.device)
    place = launcher.place(environment)
    count = place.overall.processes
    _refuse_idle_processes(config, count)
    if place.local is None and count > 1:
        raise _unlike(f"there are {count}, and nothing says which of them are on this machine")
    if place.machines is None and count > 1:
        raise _unlike(f"there are {count}, and not as many on every machine")
    try:
        _connect(device, environment)
        fabric = Fabric(
            accelerator=device.type,
            devices=count // (place.machines or 1),
            num_nodes=place.machines or 1,
            strategy=_strategy(config, count),
            precision=PRECISIONS[config.training.precision],
            plugins=[_ENVIRONMENTS[place.by if count > 1 else None]()],
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise _unlike(" ".join(str(error).split())) from None
    atexit.unregister(leave)
    atexit.register(leave)
    return fabric


def _unlike(why: str) -> ConfigError:
    return ConfigError(
        f"The processes that were started do not fit together ({why}).",
        remedy="Start one process per GPU, with torchrun or srun, and the same number on every machine.",
    )


def _strategy(config: Config, count: int) -> str | ModelParallelStrategy:
    """How processes work together."""
    if divides(config, count):
        return ModelParallelStrategy(divide, data_parallel_size=count, tensor_parallel_size=1)
    return "ddp" if count > 1 else "auto"


def divides(config: Config, count: int) -> bool:
    """Whether so many processes divide the network among them."""
    return config.training.shard and count > 1


def divide(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Let each process hold its shards of a network, of which a part is put together while it computes.

    That is FSDP2 (Zhao et al., 2023). Parts are the large ones of what lists and sequences hold, and are no such
    themselves, since some of these are gone through and not called; all that is left belongs to the network as a whole.

    Args:
        network: with its weights in the usual order of axes.
        mesh: the processes, along an axis `data_parallel`.

    Raises:
        ConfigError: torch cannot divide this network.
    """
    # nothing here changes the maps of a layer in place
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    several = (nn.ModuleList, nn.Sequential)
    lists = [module for module in network.modules() if isinstance(module, several)]
    parts = [part for some in reversed(lists) for part in some if part is not None and not isinstance(part, several)]
    try:
        for part in dict.fromkeys(parts):
            if _whole_weights(part) >= PART_WEIGHTS:
                fully_shard(part, mesh=mesh["data_parallel"])
            if isinstance(part, Doubling):
                register_fsdp_forward_method(part, "beside")
        fully_shard(network, mesh=mesh["data_parallel"])
    except (AssertionError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"This network cannot be divided among processes ({' '.join(str(error).split())}).",
            remedy="Use --set training.shard=false, or another model.encoder.",
        ) from None
    return network


def _whole_weights(part: nn.Module) -> int:
    """Numbers of a part, fixed ones too, that none of its own parts divides."""
    return sum(weight.numel() for weight in part.parameters() if not isinstance(weight, DTensor))


def _connect(device: torch.device, environment: Mapping[str, str]) -> None:
    """The process group of processes that torchrun has started, through a store of this start alone.

    torchrun keeps one store for all its starts (torch 2.13), in which a process finds the addresses of those that have
    died as well as of those that live: most restarts could not connect, or hung. So the first process opens one of its
    own and says in torchrun's where it is; what an earlier start has said there leads nowhere, and is asked for again.
    """
    if torch.distributed.is_initialized() or environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    rank, size, host = int(environment["RANK"]), int(environment["WORLD_SIZE"]), environment["MASTER_ADDR"]
    known = TCPStore(host, int(environment["MASTER_PORT"]), size, is_master=False, timeout=default_pg_timeout)
    if rank == 0:
        own = TCPStore(host, 0, size, is_master=True, wait_for_workers=False, timeout=default_pg_timeout)
        known.set(MEETING, str(own.port))
    else:
        own = _met(known, host, size)
    is_cuda = device.type == "cuda"
    torch.distributed.init_process_group(
        "nccl" if is_cuda else "gloo",
        store=own,
        rank=rank,
        world_size=size,
        timeout=default_pg_timeout,
        device_id=device if is_cuda and device.index is not None else None,
    )


def _met(known: TCPStore, host: str, size: int) -> TCPStore:
    """The store that the first process has opened."""
    end = time.monotonic() + default_pg_timeout.total_seconds()
    while True:
        port = int(known.get(MEETING))
        try:
            own = TCPStore(host, port, size, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=5))
        except RuntimeError:  # of a start that is over
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
        else:
            own.set_timeout(default_pg_timeout)
            return own


def leave() -> None:
    """End the threads of the process group: a process that exits while they run is aborted now and then.

    The wrapped network has to go first. It holds the group too, and where it is the last to do so, it waits for the
    group's threads while it keeps Python's lock, which they wait for.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()


def _refuse_idle_processes(config: Config, processes: int) -> None:
    batch = config.training.batch_size
    if "training.batch_size" in config.given() and batch < processes:  # a batch that is planned is checked afterwards
        raise ConfigError(
            f"'training.batch_size' is {batch}, the patches of a step over all processes, and there are {processes}.",
            remedy=f"Use --set training.batch_size={processes} or a multiple, or start fewer processes.",
        )


class _Sum(torch.autograd.Function):
    """All-reduce sum whose derivative is the all-reduce sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004  torch's signature
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004  torch's signature
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total


def total(values: Tensor) -> Tensor:
    """Differentiable sum over processes; see `pixelwise.losses` for why its derivative is what it is."""
    result: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return result


def total_over_processes(fabric: Fabric, values: Tensor) -> Tensor:
    """The sum over all processes, exact for integers, on the CPU; not differentiable."""
    if fabric.world_size == 1:
        return values.cpu()
    sums = values.to(fabric.device, copy=True)
    torch.distributed.all_reduce(sums)
    return sums.cpu()


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes, on any device.

    torch's SyncBatchNorm does the same on GPUs only.
    """

    def forward(self, features: Float[Tensor, "B F H W"]) -> Float[Tensor, "B F H W"]:
        """Normalise by the statistics of all processes in training, by the running ones in evaluation."""
        if not self.training:
            return super().forward(features)
        assert self.running_mean is not None
        # the variance is that of values near zero, so that no digits are lost where the mean is large
        origin = self.running_mean.clone()
        values = features.float() - origin[:, None, None]
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = total(torch.cat([values.sum(dim=(0, 2, 3)), values.square().sum(dim=(0, 2, 3)), count]))
        first, second, pixels = sums.split_with_sizes([values.shape[1], values.shape[1], 1])
        mean = first / pixels
        variance = (second / pixels - mean.square()).clamp_min(0.0)
        self._remember(mean.detach() + origin, variance.detach(), pixels.detach())
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(features.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, pixels: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (pixels / (pixels - 1.0).clamp_min(1.0)), momentum)
        self.num_batches_tracked += 1


def share_batch_norm(network: nn.Module) -> int:
    """Let every batch normalisation of a network see the batches of all processes; weights and names stay.

    Returns:
        How many it could not be done for: a subclass of somebody else's does more than to normalise.
    """
    alone = 0
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
        elif isinstance(module, nn.BatchNorm2d) and not isinstance(module, SharedBatchNorm):
            alone += 1
    return alone


def largest(fabric: Fabric, value: float) -> float:
    """The largest of a number over all processes: what they then agree on."""
    if fabric.world_size == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=fabric.device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return float(shared)
