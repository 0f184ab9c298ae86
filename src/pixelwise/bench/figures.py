"""The figures of docs/performance.md: each a piece of real work, its rate, and its share of the ceiling."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pixelwise.bench.ceiling import Ceiling
from pixelwise.classes import ClassTable
from pixelwise.config import SIZES, AugmentConfig, ModelConfig, PredictionConfig, Preprocessing
from pixelwise.data.augment import augment, window_size
from pixelwise.inference.predictor import Model
from pixelwise.memory import keeping_freed_memory
from pixelwise.models import bundle
from pixelwise.models.blocks import folded
from pixelwise.models.unet import build
from pixelwise.training.machine import Work, rehearsal
from pixelwise.training.timing import Timing, timed

BATCH, CHANNELS, CLASSES, PATCH_PX = 4, 3, 2, 256

PLAIN = ModelConfig(width=64, depth=4, max_width=1024, norm="batch")
"""The plain U-Net of 64 to 1024 features, padded and normalised: 31.0 million parameters."""

NNUNET = ModelConfig(**SIZES["nnunet"])
"""The network that nnU-Net plans for patches of 256 px: 33.5 million parameters, with deep supervision."""

NARROW = ModelConfig(width=32, depth=4)
"""The network of the large image."""

LARGE_PX, TILE_PX = 4096, 512

IMAGE_PX = 512
"""Edge of the images that samples are drawn from."""


@dataclass(frozen=True)
class Figure:
    """One measurement."""

    name: str
    value: float
    unit: str
    timing: Timing
    gflops: float | None = None
    """Rate of arithmetic, where arithmetic is what takes the time."""
    ceiling_gflops: float | None = None
    """What was possible."""

    @property
    def share(self) -> float | None:
        """Of the ceiling."""
        return self.gflops / self.ceiling_gflops if self.gflops and self.ceiling_gflops else None


@dataclass(frozen=True)
class Bench:
    """Where figures are measured."""

    device: torch.device
    ceiling: Ceiling
    precision: str
    """float32 or bfloat16: what convolutions compute in."""

    @property
    def convolution_gflops(self) -> float:
        """The ceiling of a network."""
        return self.ceiling.convolution_gflops[self.precision]

    def autocast(self) -> torch.autocast:
        """In which networks are called."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


def training(bench: Bench) -> Iterator[Figure]:
    """Forward, loss, backward, clipping, update and average of the plain U-Net, and of the one that nnU-Net plans."""
    for name, config in (("plain U-Net", PLAIN), ("nnU-Net's network", NNUNET)):
        work = Work(
            model=config,
            channels=CHANNELS,
            classes=CLASSES,
            patch_size=(PATCH_PX, PATCH_PX),
            batch_size=BATCH,
            precision=bench.precision,
        )
        with keeping_freed_memory():
            step, _ = rehearsal(work, bench.device)
            timing = timed(step, bench.device, at_least=10.0)
        image, _ = _batch(bench.device)
        gflop = 3 * _forward_gflop(_network(config, bench.device).eval(), image)
        yield _of_network(f"training step, {name}", timing, gflop, bench)


def inference(bench: Bench) -> Iterator[Figure]:
    """Prediction with the plain U-Net."""
    network = folded(_network(PLAIN, bench.device).eval())
    image, _ = _batch(bench.device)

    @torch.inference_mode()
    def predict() -> None:
        with bench.autocast():
            network(image)

    timing = timed(predict, bench.device, at_least=10.0)
    yield _of_network("inference, plain U-Net", timing, _forward_gflop(network, image), bench)


def large_image(bench: Bench) -> Iterator[Figure]:
    """One image of 4096 x 4096 pixels in blended tiles."""
    image = np.random.default_rng(0).integers(0, 256, (LARGE_PX, LARGE_PX, CHANNELS), dtype=np.uint8)
    network = folded(_network(NARROW, bench.device).eval())
    model = Model(network, _description(NARROW, bench.precision), bench.device)

    def predict() -> None:
        for band in model.bands(image):
            band.classes()

    timing = timed(predict, bench.device, at_least=0.0)
    yield Figure("4096 x 4096 pixels in tiles", timing.median_seconds, "s", timing)


def samples(bench: Bench) -> Iterator[Figure]:
    """A training sample: read from the cache's array, cropped, normalised, augmented with everything switched on."""
    config = AugmentConfig(geometric_probability=1.0, intensity_probability=1.0)
    patch = (PATCH_PX, PATCH_PX)
    window = window_size(patch, config)
    edge = max(IMAGE_PX, *window)
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (edge, edge, CHANNELS), dtype=np.uint8)
    mask = generator.integers(0, CLASSES, (edge, edge), dtype=np.uint8)
    seeds = torch.arange(BATCH)

    def draw() -> None:
        windows = [image[: window[0], : window[1]].astype(np.float32).transpose(2, 0, 1) for _ in range(BATCH)]
        masks = [mask[: window[0], : window[1]] for _ in range(BATCH)]
        augment(
            torch.from_numpy(np.stack(windows)).to(bench.device),
            torch.from_numpy(np.stack(masks)).to(bench.device),
            seeds,
            patch,
            config,
        )

    timing = timed(draw, bench.device)
    yield Figure("sample, augmented", 1000 * timing.median_seconds / BATCH, "ms", timing)


def start(bench: Bench) -> Iterator[Figure]:
    """The command line's help, and the import of the package."""
    for name, arguments in (
        ("pixelwise --help", ["-m", "pixelwise", "--help"]),
        ("import", ["-c", "import pixelwise"]),
    ):
        command = [sys.executable, *arguments]
        timing = timed(lambda: subprocess.run(command, capture_output=True, check=True), bench.device)  # noqa: B023, S603
        yield Figure(name, timing.median_seconds, "s", timing)


FIGURES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "training": training,
    "inference": inference,
    "large image": large_image,
    "samples": samples,
    "start": start,
}
"""What is measured, by name."""


def _network(config: ModelConfig, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = build(config, CHANNELS, CLASSES).to(device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _batch(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.randn(BATCH, CHANNELS, PATCH_PX, PATCH_PX, device=device)
    mask = torch.randint(0, CLASSES, (BATCH, PATCH_PX, PATCH_PX), device=device)
    return image.contiguous(memory_format=torch.channels_last), mask


def _forward_gflop(network: nn.Module, image: torch.Tensor) -> float:
    """10^9 operations of a batch, a product and a sum counted as two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return float(counter.get_total_flops()) / 1e9


def _of_network(name: str, timing: Timing, gflop: float, bench: Bench) -> Figure:
    seconds = timing.median_seconds
    return Figure(name, BATCH / seconds, "images/s", timing, gflop / seconds, bench.convolution_gflops)


def _description(config: ModelConfig, precision: str) -> bundle.Description:
    preprocessing = Preprocessing(
        channels=CHANNELS, normalisation="standard", mean=(127.5,) * CHANNELS, deviation=(74.0,) * CHANNELS
    )
    return bundle.Description(
        model=config,
        preprocessing=preprocessing,
        classes=ClassTable.from_names([f"class {index}" for index in range(CLASSES)]),
        patch_size=(PATCH_PX, PATCH_PX),
        prediction=PredictionConfig(tile_size=(TILE_PX, TILE_PX), overlap=0.5),
        bfloat16=precision == "bfloat16",
    )
