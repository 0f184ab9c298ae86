"""How a network is computed in training: layer by layer, compiled, or as CUDA graphs that are replayed."""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.config import TrainingConfig
from pixelwise.errors import MachineError, first_line
from pixelwise.models.unet import Logits


def computed(network: nn.Module, config: TrainingConfig, processes: int = 1) -> nn.Module:
    """The same network as the settings want it computed; its weights stay those of `network`."""
    if config.compile:
        compiled: nn.Module = torch.compile(network)  # type: ignore[assignment]
        return compiled
    # a part's gradients would lie where those of the next part are written
    replays = config.cuda_graphs and _is_on_gpu(network) and config.accumulate == 1 and processes == 1
    return Replayed(network) if replays else network


def _is_on_gpu(network: nn.Module) -> bool:
    return all(weight.device.type == "cuda" for weight in network.parameters())


class Replayed(nn.Module):
    """A network whose forward and backward are recorded once and replayed in every step, each as one CUDA graph.

    The processor then starts two graphs in place of hundreds of kernels, which it does more slowly than a GPU computes
    small maps. Whatever has another size than the first batch, or is not trained, goes layer by layer.

    Args:
        network: on a CUDA device, with nothing in it that depends on the values of its maps.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._recorded: nn.Module | None = None
        self._shape = torch.Size()

    def forward(self, image: Float[Tensor, "B C H W"]) -> Logits:
        """What the network says.

        Raises:
            MachineError: it cannot be recorded.
        """
        if self._recorded is None and self.training:
            try:
                self._recorded, self._shape = _recorded(self.network, image), image.shape
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise MachineError(
                    f"This network cannot be recorded as CUDA graphs ({first_line(error)})",
                    remedy="Use --set training.cuda_graphs=false.",
                ) from None
        if self._recorded is None or not self.training or image.shape != self._shape:
            logits: Logits = self.network(image)
            return logits
        replayed: Logits = self._recorded(image)
        return replayed


class _Whole(nn.Module):
    """Something whose `forward` may be replaced without changing that of the network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Logits:
        logits: Logits = self.network(image)
        return logits


def _recorded(network: nn.Module, image: Float[Tensor, "B C H W"]) -> nn.Module:
    """The network for images of that shape, with the statistics that it had before."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    kind = image.device.type
    # casts that are kept between calls would be recorded as if they were made anew
    casting = torch.autocast(
        kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind), cache_enabled=False
    )
    torch.cuda.empty_cache()  # a graph has memory of its own
    # recording has a stream of its own, for which the way back waits on the device; the processor does not
    warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream does not match")
    with torch.random.fork_rng([image.device]), casting:
        example = image.detach().clone(memory_format=torch.preserve_format)
        recorded: nn.Module = torch.cuda.make_graphed_callables(  # type: ignore[assignment]
            _Whole(network), (example,), allow_unused_input=True
        )
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    return recorded
