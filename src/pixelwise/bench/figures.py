"""The figures of docs/performance.md: each a piece of real work, its rate, and its share of the ceiling."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pixelwise.bench import sizes
from pixelwise.bench.ceiling import Ceiling
from pixelwise.bench.rivals import Entry
from pixelwise.classes import ClassTable
from pixelwise.config import SIZES, AugmentConfig, Config, ModelConfig, PredictionConfig, Preprocessing
from pixelwise.data.augment import augment, window_size
from pixelwise.data.loader import Sampling, Windows, stream
from pixelwise.data.preprocess import scaling
from pixelwise.data.resident import Resident
from pixelwise.inference import int8
from pixelwise.inference.predictor import Model
from pixelwise.launcher import Share
from pixelwise.memory import keeping_freed_memory
from pixelwise.models import bundle
from pixelwise.models.blocks import folded, rounded
from pixelwise.models.unet import build
from pixelwise.timing import Timing, timed
from pixelwise.training.machine import MARGIN, Work, expected_bytes, peak_above_now, random_case, rehearsal

PLAIN = ModelConfig(width=sizes.PLAIN_WIDTH, depth=sizes.PLAIN_DEPTH, max_width=1024, norm="batch")
"""The plain U-Net of 64 to 1024 features, padded and normalised: 31.0 million parameters."""

NNUNET = ModelConfig(**SIZES["nnunet"])
"""The network that nnU-Net plans for patches of 256 px: 33.5 million parameters, with deep supervision."""

LARGE = ModelConfig(width=sizes.LARGE_WIDTH, depth=sizes.LARGE_DEPTH)
"""The network of the large image."""

MEAN, DEVIATION = (127.5,) * sizes.CHANNELS, (74.0,) * sizes.CHANNELS
"""Of images whose bytes are drawn evenly."""


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
    peak_bytes: int | None = None
    """Memory that the work took at most beyond what was held before, where it was looked at."""
    together: int = 1
    """So many images or samples were timed together."""
    rivals: tuple[Entry, ...] = ()
    """Others at the same work, measured in the same run."""

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
    batch: int = sizes.BATCH
    """Patches at once."""
    seconds: float = sizes.STEPS_AT_LEAST
    """That steps of a network are measured for, at least."""

    @property
    def patch_px(self) -> int:
        """Edge of a patch."""
        return sizes.GPU_PATCH_PX if self.device.type == "cuda" else sizes.PATCH_PX

    def network_gflops(self, precision: str) -> float:
        """The ceiling of a network: on a GPU, whose convolutions are matrix products, the rate of these."""
        rates = self.ceiling.matrix_gflops if self.device.type == "cuda" else self.ceiling.convolution_gflops
        return rates[precision]


def fitting_batch(device: torch.device) -> int:
    """Patches at once: as many as fit into the memory of a GPU, in float32 too."""
    if device.type != "cuda":
        return sizes.BATCH
    batch, room = sizes.GPU_BATCH, torch.cuda.mem_get_info(device)[0]
    while batch > 1 and MARGIN * expected_bytes(_plain_work(sizes.GPU_PATCH_PX, batch, "float32")) > room:
        batch //= 2
    return batch


def training(bench: Bench) -> Iterator[Figure]:
    """Forward, loss, backward, clipping, update and average of the plain U-Net, and of the one that nnU-Net plans."""
    for name, work in _steps(bench).items():
        with keeping_freed_memory():
            step = rehearsal(work, bench.device)[0]
            timing = _timed(step, bench)
        del step  # its memory may be needed for the next
        gflop = 3 * forward_gflop(work.model, bench.patch_px, bench.batch)
        yield _of_network(f"training step, {name}", timing, gflop, bench, work.precision)
    plain = _plain_work(bench.patch_px, bench.batch, bench.precision)
    yield _from_images("plain U-Net", plain, bench)
    if bench.device.type == "cuda":
        yield _from_images("plain U-Net, compiled", plain.model_copy(update={"compiled": True}), bench)


def _steps(bench: Bench) -> dict[str, Work]:
    """Training steps, by name."""
    plain = _plain_work(bench.patch_px, bench.batch, bench.precision)
    steps = {"plain U-Net": plain, "nnU-Net's network": plain.model_copy(update={"model": NNUNET})}
    if bench.precision != "float32":
        steps["plain U-Net, float32"] = plain.model_copy(update={"precision": "float32"})
    if bench.device.type == "cuda":
        steps["plain U-Net, CUDA graphs"] = plain.model_copy(update={"replayed": True})
        steps["plain U-Net, compiled"] = plain.model_copy(update={"compiled": True})
    return steps


def _plain_work(edge: int, batch: int, precision: str) -> Work:
    return Work(
        model=PLAIN,
        channels=sizes.CHANNELS,
        classes=sizes.CLASSES,
        patch_size=(edge, edge),
        batch_size=batch,
        precision=precision,
    )


def small_networks(bench: Bench) -> Iterator[Figure]:
    """Training steps of narrow networks on a GPU, kernel by kernel and as CUDA graphs."""
    for width, edge, batch in sizes.SMALL if bench.device.type == "cuda" else ():
        work = _plain_work(edge, batch, bench.precision)
        narrow = work.model_copy(update={"model": ModelConfig(width=width, depth=sizes.SMALL_DEPTH)})
        for name, replayed in (("", False), (", CUDA graphs", True)):
            step = rehearsal(narrow.model_copy(update={"replayed": replayed}), bench.device)[0]
            timing = _timed(step, bench)
            del step
            yield _of_images(f"training step, width {width}, {batch} x {edge} px{name}", timing, batch)


def _timed(step: Callable[[], object], bench: Bench) -> Timing:
    """Of one of some steps that follow each other without waiting for the device, as in a run."""
    together = sizes.GPU_STEPS if bench.device.type == "cuda" else 1
    whole = timed(lambda: [step() for _ in range(together)], bench.device, at_least=bench.seconds)
    return replace(
        whole,
        median_seconds=whole.median_seconds / together,
        lowest_seconds=whole.lowest_seconds / together,
        highest_seconds=whole.highest_seconds / together,
    )


def _from_images(name: str, work: Work, bench: Bench) -> Figure:
    """Training of the plain U-Net with all that makes a run wait: its rate beside that of the step alone."""
    with keeping_freed_memory():
        step, _ = rehearsal(work, bench.device)
        batches = _patches(bench)
        timing = _timed(lambda: step(*next(batches)), bench)
    return _of_images(f"training from images, {name}", timing, bench.batch)


def _patches(bench: Bench) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches as a run has them, cut from images in memory (on a GPU in its own) and augmented."""
    patch, augmenting = (bench.patch_px, bench.patch_px), AugmentConfig()
    sampling = Sampling(patch, window_size(patch, augmenting), Config().data.foreground_fraction, seed=0)
    size = (sizes.IMAGE_PX, sizes.IMAGE_PX)
    cases = [random_case(size, sizes.CHANNELS, sizes.CLASSES, seed) for seed in range(sizes.IMAGES)]
    windows = Windows(cases, _preprocessing(), sampling)
    if bench.device.type == "cuda":
        batches = Resident.load(windows, bench.device).batches(0, bench.batch, Share())
    else:
        batches = stream(windows, 0, bench.batch, Share())
    for batch in batches:
        raw, truth = batch.image.to(bench.device), batch.mask.to(bench.device)
        image, mask = augment(raw, truth, batch.seeds, patch, augmenting, batch.scaling)
        yield image.contiguous(memory_format=torch.channels_last), mask


def inference(bench: Bench) -> Iterator[Figure]:
    """Prediction with the plain U-Net."""
    image = _batch(bench)
    predict = prediction(PLAIN, image, bench.precision)
    with keeping_freed_memory():
        timing = timed(predict, bench.device, at_least=bench.seconds)
    gflop = forward_gflop(PLAIN, bench.patch_px, bench.batch)
    yield _of_network("inference, plain U-Net", timing, gflop, bench, bench.precision)
    if bench.device.type == "cpu" and int8.is_installed():
        timing = _in_eight_bits(image, bench.seconds)
        yield _of_images("inference, plain U-Net, eight bits", timing, bench.batch)


def prediction(config: ModelConfig, image: torch.Tensor, precision: str) -> Callable[[], None]:
    """A function that predicts a batch, with a network as it is loaded for that."""
    network = quick(config, image.device, precision)

    @torch.inference_mode()
    def predict() -> None:
        with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            network(image)

    return predict


def _in_eight_bits(image: torch.Tensor, seconds: float) -> Timing:
    plain = Model(folded(_network(PLAIN, image.device).eval()), _description(PLAIN, "float32"), image.device)
    raw = np.random.default_rng(0).integers(0, 256, (sizes.BATCH, *image.shape[2:], sizes.CHANNELS), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        int8.write(plain, list(raw), path)
        network = int8.load(path).network
    return timed(lambda: network(image), image.device, at_least=seconds)


def large_image(bench: Bench) -> Iterator[Figure]:
    """One image of 4096 x 4096 pixels in blended tiles."""
    image = np.random.default_rng(0).integers(0, 256, (sizes.LARGE_PX, sizes.LARGE_PX, sizes.CHANNELS), dtype=np.uint8)
    network = quick(LARGE, bench.device, bench.precision)
    model = Model(network, _description(LARGE, bench.precision), bench.device)

    def predict() -> None:
        for band in model.bands(image):
            band.labels()

    with model.keeping_memory():
        with peak_above_now(bench.device) as taken:  # of the first image, as of the rivals
            predict()
        timing = timed(predict, bench.device, at_least=0.0)
    name = f"{sizes.LARGE_PX} x {sizes.LARGE_PX} pixels in tiles"
    yield Figure(name, timing.median_seconds, "s", timing, peak_bytes=taken())


def samples(bench: Bench) -> Iterator[Figure]:
    """A training sample: read from the cache's array, cropped, normalised, augmented with everything switched on."""
    config = AugmentConfig(geometric_probability=1.0, intensity_probability=1.0)
    patch = (bench.patch_px, bench.patch_px)
    window = window_size(patch, config)
    edge = max(sizes.IMAGE_PX, *window)
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (edge, edge, sizes.CHANNELS), dtype=np.uint8)
    mask = generator.integers(0, sizes.CLASSES, (edge, edge), dtype=np.uint8)
    seeds = torch.arange(bench.batch)
    factors = torch.from_numpy(scaling(MEAN, DEVIATION)).expand(bench.batch, -1, -1)

    def draw() -> None:
        windows = np.stack([image[: window[0], : window[1]] for _ in range(bench.batch)])
        masks = np.stack([mask[: window[0], : window[1]] for _ in range(bench.batch)])
        raw = torch.from_numpy(windows).permute(0, 3, 1, 2).to(bench.device)
        augment(raw, torch.from_numpy(masks).to(bench.device), seeds, patch, config, factors)

    with keeping_freed_memory():
        timing = timed(draw, bench.device, at_least=min(bench.seconds, sizes.SAMPLES_AT_LEAST), most=500)
    value = 1000 * timing.median_seconds / bench.batch
    yield Figure("sample, augmented", value, "ms", timing, together=bench.batch)


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
    "large image": large_image,  # first, since the heap is what others have left of it
    "training": training,
    "small networks": small_networks,
    "inference": inference,
    "samples": samples,
    "start": start,
}
"""What is measured, by name."""


def _network(config: ModelConfig, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = build(config, sizes.CHANNELS, sizes.CLASSES).to(device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def quick(config: ModelConfig, device: torch.device, precision: str) -> nn.Module:
    """A network as it is loaded for prediction."""
    network = folded(_network(config, device).eval())
    return rounded(network) if precision == "bfloat16" else network


def _batch(bench: Bench) -> torch.Tensor:
    image = torch.randn(bench.batch, sizes.CHANNELS, bench.patch_px, bench.patch_px, device=bench.device)
    return image.contiguous(memory_format=torch.channels_last)


def forward_gflop(config: ModelConfig, edge: int, batch: int = 1) -> float:
    """10^9 operations for a batch of patches; three times as many in training."""
    with torch.device("meta"):  # counted, not computed
        network = build(config, sizes.CHANNELS, sizes.CLASSES).eval()
        return _gflop(network, torch.empty(batch, sizes.CHANNELS, edge, edge))


def _gflop(network: nn.Module, image: torch.Tensor) -> float:
    """A product and a sum are counted as two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return float(counter.get_total_flops()) / 1e9


def _of_network(name: str, timing: Timing, gflop: float, bench: Bench, precision: str) -> Figure:
    figure, highest = _of_images(name, timing, bench.batch), bench.network_gflops(precision)
    return replace(figure, gflops=gflop / timing.median_seconds, ceiling_gflops=highest)


def _of_images(name: str, timing: Timing, batch: int) -> Figure:
    return Figure(name, batch / timing.median_seconds, "images/s", timing, together=batch)


def _preprocessing() -> Preprocessing:
    return Preprocessing(channels=sizes.CHANNELS, normalisation="standard", mean=MEAN, deviation=DEVIATION)


def _description(config: ModelConfig, precision: str) -> bundle.Description:
    return bundle.Description(
        model=config,
        preprocessing=_preprocessing(),
        classes=ClassTable.from_names([f"class {index}" for index in range(sizes.CLASSES)]),
        patch_size=(sizes.PATCH_PX, sizes.PATCH_PX),
        prediction=PredictionConfig(tile_size=(sizes.TILE_PX, sizes.TILE_PX), overlap=sizes.OVERLAP),
        bfloat16=precision == "bfloat16",
    )
