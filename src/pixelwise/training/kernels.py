"""How a network is computed in training: layer by layer, compiled, or as CUDA graphs that are replayed.

On processors with AVX2 and no AVX-512, gradients of convolutions' weights are computed here, as products of matrices,
in float32 and unless the network is compiled or divided.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from pixelwise.config import TrainingConfig
from pixelwise.errors import MachineError, first_line
from pixelwise.models.unet import Logits

FEATURES_FOR_PRODUCTS = 24
"""Convolutions of fewer features on either side are too small for products of matrices to be faster."""

LIKE_A_LAYER = 7
"""Arguments of a convolution that `nn.Conv2d` asks for."""

ROWS = 8192
"""Places of a map that a product sums over at once: what it reads of them stays in the cache from shift to shift."""


def computed(network: nn.Module, config: TrainingConfig, processes: int = 1) -> nn.Module:
    """The same network as the settings want it computed; its weights stay those of `network`."""
    if config.compile:
        compiled: nn.Module = torch.compile(network)  # type: ignore[assignment]
        return compiled
    if _on(network, "cpu") and not config.shard and torch.backends.cpu.get_cpu_capability() == "AVX2":
        return Multiplied(network)
    # a part's gradients would lie where those of the next part are written
    replays = config.cuda_graphs and _on(network, "cuda") and config.accumulate == 1 and processes == 1
    return Replayed(network) if replays else network


def _on(network: nn.Module, kind: str) -> bool:
    return all(weight.device.type == kind for weight in network.parameters())


class Multiplied(nn.Module):
    """A network that gets the gradients of its convolutions' weights from products of matrices.

    oneDNN's kernel for them reaches a third of the rate of its others in float32 on AVX2 (docs/performance-log.md).

    Args:
        network: on a processor.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Float[Tensor, "B C H W"]) -> Logits:
        """What the network says."""
        with _Convolutions():
            logits: Logits = self.network(image)
        return logits


class _Convolutions(TorchFunctionMode):
    """Within, gradients of convolutions' weights are products of matrices where that is faster."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d and len(args) == LIKE_A_LAYER:
            image, weight, bias, stride, padding, dilation, groups = args
            plain = stride == (1, 1) and dilation == (1, 1) and groups == 1 and isinstance(padding, tuple)
            if plain and _pays(image, weight):
                return _Convolution.apply(image, weight, bias, padding)  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _pays(image: Tensor, weight: Tensor) -> bool:
    """Whether the gradient of these weights is wanted, and faster from products of matrices."""
    exact = (
        image.device.type == "cpu"
        and image.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )
    trained = torch.is_grad_enabled() and weight.requires_grad
    large = min(weight.shape[:2]) >= FEATURES_FOR_PRODUCTS and weight[0, 0].numel() > 1 and image.dim() == 4
    return exact and trained and large


class _Convolution(torch.autograd.Function):
    """torch's own but for the gradients of weights and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Float[Tensor, "B C H W"],
        weight: Float[Tensor, "K C h w"],
        bias: Float[Tensor, " K"] | None,
        padding: tuple[int, int],
    ) -> Float[Tensor, "B K U V"]:
        ctx.save_for_backward(image, weight)
        ctx.padding = padding
        return torch.conv2d(image, weight, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Float[Tensor, "B K U V"]) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        image, weight = ctx.saved_tensors
        of_image, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            _image_gradient(image, weight, slope, ctx.padding) if of_image else None,
            weight_gradient(image, slope, ctx.padding) if of_weight else None,
            slope.sum((0, 2, 3)) if of_bias else None,
            None,
        )


def _image_gradient(image: Tensor, weight: Tensor, slope: Tensor, padding: tuple[int, int]) -> Tensor:
    """As of torch itself; `torch.nn.grad.conv2d_input` would take maps out of the channels-last order."""
    gradient: Tensor = torch.ops.aten.convolution_backward(
        slope,
        image,
        weight,
        bias_sizes=None,
        stride=(1, 1),
        padding=padding,
        dilation=(1, 1),
        transposed=False,
        output_padding=(0, 0),
        groups=1,
        output_mask=(True, False, False),
    )[0]
    return gradient


def weight_gradient(
    image: Float[Tensor, "B C H W"], slope: Float[Tensor, "B K U V"], padding: tuple[int, int]
) -> Float[Tensor, "K C h w"]:
    """Gradient of the weights of a convolution with a stride of 1, by one product of matrices for each of its places.

    Rows of a padded map lie one behind the other, so that a shift of the window is a shift of the first row of a
    matrix of places x features. Rows of slopes are filled up with zeros to the length of those, so that a window that
    runs over the end of a row adds nothing.

    Args:
        image: what was convolved.
        slope: gradient of the result.
        padding: zeros above and below, and left and right of the image.
    """
    (height, width), features, made = image.shape[2:], image.shape[1], slope.shape[1]
    stride = width + 2 * padding[1]
    kernel = height + 2 * padding[0] - slope.shape[2] + 1, stride - slope.shape[3] + 1
    shifts = [row * stride + column for row in range(kernel[0]) for column in range(kernel[1])]
    sums = image.new_zeros(len(shifts), made, features)
    borders = (0, 0, padding[1], padding[1], padding[0], padding[0])
    for one, its_slope in zip(image.permute(0, 2, 3, 1), slope.permute(0, 2, 3, 1), strict=True):
        places = F.pad(one, borders).reshape(-1, features)
        slopes = F.pad(its_slope, (0, 0, 0, kernel[1] - 1)).reshape(-1, made)
        slopes = slopes[: len(slopes) - (kernel[1] - 1)]
        for start in range(0, len(slopes), ROWS):
            part = slopes[start : start + ROWS]
            for total, shift in zip(sums, shifts, strict=True):
                total.addmm_(part.T, places[start + shift : start + shift + len(part)])
    return sums.view(*kernel, made, features).permute(2, 3, 0, 1)


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
