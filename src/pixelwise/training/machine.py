"""What this machine is, and how fast it trains a given network: measured, not guessed."""

import contextlib
import copy
import functools
import gc
import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from pixelwise.classes import ClassTable
from pixelwise.config import LossConfig, ModelConfig, Preprocessing, Section, SizePx, TrainingConfig
from pixelwise.data.cache import Decoded, hash_of
from pixelwise.data.dataset import Case
from pixelwise.errors import DataError, memory_errors
from pixelwise.files import make_folder, read_json, write_json
from pixelwise.inference.predictor import Model
from pixelwise.inference.scoring import count
from pixelwise.losses import build as build_loss
from pixelwise.losses import of_levels
from pixelwise.memory import free_bytes, give_back_memory, held_bytes, watching_memory
from pixelwise.models.blocks import average_into, has_bfloat16, parameter_count
from pixelwise.models.bundle import Description
from pixelwise.models.unet import border_px, build, coarsest_px, valid_size_px
from pixelwise.timing import timed
from pixelwise.training.kernels import computed
from pixelwise.training.update import make_optimizer

STATE_BYTES = 16
"""Of each weight while it is trained: itself, two moments, and its average; gradients come as maps go."""

WHOLE_BYTES = 4
"""Of each weight, where processes divide them: it is put together to compute, and the average to validate."""

COPY_BYTES = 16
"""Of each weight in the state that a run can go back to: all but the gradient."""

FREE_SHARE = 0.8
"""Share of the free memory that training may take where nothing else is said."""

WORKSPACE_BYTES = 100_000_000
"""What kernels take for themselves."""

MARGIN = 1.25
"""Memory that is only estimated may be so many times as much."""

REHEARSAL = "2"
"""Raised where `rehearsal` does something else: speeds of before are measured anew then."""

VERSIONS = {name: version(name) for name in ("pixelwise", "torch", "numpy")}
"""What computed."""

SMALLER = "Use a smaller --set training.batch_size, data.patch_size or model.width."
"""What to do where training does not fit into memory."""

BUSY = 0.2
"""Share of the processor, used by others, above which a measurement says too little of the machine."""


class Machine(Section):
    """What a plan has to know of the machine."""

    device: str
    """cpu, cuda or mps."""
    name: str
    """Of the processor or GPU."""
    cores: int
    """Threads that torch uses."""
    memory_gb: float
    """Of the device that computes, in 10^9 bytes."""
    torch_version: str
    bfloat16: bool = True
    """Whether it computes in bfloat16 itself; else that is emulated, or not used."""


class Work(Section):
    """What is measured: training steps of a network."""

    model: ModelConfig
    channels: int
    classes: int
    patch_size: SizePx
    batch_size: int
    precision: str
    compiled: bool = False
    replayed: bool = False
    """As CUDA graphs."""
    deterministic: bool = True
    divided: int = 1
    """Processes that the weights and what belongs to them are divided among; above 1, only weights are measured."""


class Speed(Section):
    """What was measured."""

    work: Work
    training_patches_per_second: float
    validation_patches_per_second: float
    """Images of a patch's size that are predicted and scored, one after the other."""
    training_bytes: int
    """Memory that a step of training takes, weights and all."""
    weights: int
    """Trainable numbers of the network."""

    def bytes_with(self, patches: int) -> int:
        """Memory of a run whose steps have so many patches: activations grow with them, weights do not."""
        return state_bytes(self.weights, self.work.divided) + round(self._patch_bytes * patches)

    def largest_batch(self, most: int, room_bytes: int) -> int:
        """So many patches, up to `most`, that a run may compute together in that memory; 0 if not a single one."""
        left = room_bytes - state_bytes(self.weights, self.work.divided)
        return max(0, min(most, int(left / self._patch_bytes) if self._patch_bytes else most)) if left >= 0 else 0

    @property
    def _patch_bytes(self) -> float:
        measured = (STATE_BYTES if self.work.divided == 1 else WHOLE_BYTES) * self.weights
        return max(0, self.training_bytes - measured) / self.work.batch_size


def state_bytes(weights: int, divided: int) -> int:
    """What a process holds of weights that so many processes divide, and of what belongs to them."""
    return STATE_BYTES * weights if divided == 1 else STATE_BYTES * weights // divided + WHOLE_BYTES * weights


def this_machine(device: torch.device) -> Machine:
    """The machine that this process runs on."""
    name, memory = _processor_name(), psutil.virtual_memory().total
    capability = torch.backends.cpu.get_cpu_capability()
    if capability != "DEFAULT":  # processors of unlike generations can have one name
        name += f" ({capability})"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name, memory = properties.name, properties.total_memory
    return Machine(
        device=device.type,
        name=name,
        cores=torch.get_num_threads(),
        memory_gb=round(memory / 1e9, 1),
        torch_version=torch.__version__,
        bfloat16=has_bfloat16(device),
    )


def _processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model: on Linux, `platform` knows its architecture only, which says nothing of its speed."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


@contextlib.contextmanager
def peak_above_now(device: torch.device) -> Iterator[Callable[[], int]]:
    """Measures how much memory of a device is held within, at most, beyond what is held now.

    Gives a function that tells the bytes, afterwards.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
        return
    if device.type == "mps":  # it tells no peak, but keeps what it has taken
        before = torch.mps.driver_allocated_memory()
        yield lambda: max(0, torch.mps.driver_allocated_memory() - before)
        return
    give_back_memory()
    before = held_bytes()
    with watching_memory() as peak:
        yield lambda: max(0, peak() - before)


@contextlib.contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Let torch use algorithms that give equal results in every run; afterwards as it was before."""
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if wanted and torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch's notes on reproducibility ask for it
    memory = cast("Any", torch.utils.deterministic)  # a module whose one property mypy does not see
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    # torch would fill all memory that it hands out, lest someone read what was never written: up to a tenth of a step
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        memory.fill_uninitialized_memory = filled


def load_of_processor() -> float:
    """Share of the processor, 0 to 1, that is in use while this process waits a moment."""
    return psutil.cpu_percent(interval=0.3) / 100.0


@functools.cache
def weight_count(model: ModelConfig, channels: int, classes: int) -> int:
    """Trainable numbers of a network; nothing is made."""
    with torch.device("meta"):
        return parameter_count(build(model, channels, classes))


@functools.cache
def expected_bytes(work: Work) -> int:
    """About what training takes, from what a small patch leaves for the way back; nothing large is made.

    Args:
        work: of any size; must not be measured where it may not fit.
    """
    step_px = coarsest_px(work.model)
    border = border_px(work.model)
    edges = [min(edge, max(2 * step_px, valid_size_px(work.model, 2 * border + 1))) for edge in work.patch_size]
    network = build(work.model, work.channels, work.classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = weight_count(work.model, work.channels, work.classes)
    kept: dict[int, torch.UntypedStorage] = {}  # alive, for a place that is free again would count for two

    def keep(tensor: Tensor) -> None:
        if tensor.ndim == 4 and tensor.shape[0] <= 2:  # maps of the two images or of one, not weights
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        # nothing is kept for a way back that is never gone; a graph that held its own results would stay forever

    image = torch.zeros(2, work.channels, *edges).contiguous(memory_format=torch.channels_last)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda nothing: nothing),
        torch.autocast("cpu", torch.bfloat16, enabled=work.precision == "bfloat16"),
    ):
        network(image)
    times = work.batch_size * work.patch_size[0] * work.patch_size[1] / (2 * edges[0] * edges[1])
    sizes = [storage.nbytes() for storage in kept.values()]
    maps = round(times * (sum(sizes) + 2 * max(sizes, default=0)))
    return WORKSPACE_BYTES + state_bytes(weights, work.divided) + maps


Step = Callable[..., None]
"""An update from patches B C H W and their mask; from random ones if none are given."""


def rehearsal(work: Work, device: torch.device) -> tuple[Step, Callable[[], None]]:
    """A step of training and the validation of an image, on random numbers, but for making samples as in a run."""
    plain = TrainingConfig(compile=work.compiled, cuda_graphs=work.replayed, shard=work.divided > 1)
    network = build(work.model, work.channels, work.classes).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average: nn.Module = network
    optimizer: torch.optim.Optimizer = torch.optim.SGD(network.parameters())
    if work.divided == 1:
        average, optimizer = copy.deepcopy(network), make_optimizer(network, plain)
    else:  # no process has all of an average, of moments, or of gradients
        for weight in network.parameters():
            weight.register_post_accumulate_grad_hook(_let_go)
    ready = computed(network, plain)
    loss = build_loss(LossConfig())
    image = torch.randn(work.batch_size, work.channels, *work.patch_size, device=device)
    image = image.contiguous(memory_format=torch.channels_last)
    border = border_px(work.model)
    size = [work.batch_size, *(max(1, edge - 2 * border) for edge in work.patch_size)]
    mask = torch.randint(0, work.classes, size, device=device)
    precision = functools.partial(torch.autocast, device.type, torch.bfloat16, enabled=work.precision == "bfloat16")
    # as Fabric gives them to the network: of another type, it would be compiled again when the run begins
    seen = torch.bfloat16 if work.precision == "bfloat16" else torch.float32

    def step(image: Tensor = image, mask: Tensor = mask) -> None:
        ready.train()
        with precision():
            logits = ready(image.to(seen))
        of_levels(loss, logits, mask).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), plain.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average_into(average.state_dict(), network.state_dict(), plain.ema_decay)

    return step, _validation(average, work, device)


def _validation(average: nn.Module, work: Work, device: torch.device) -> Callable[[], None]:
    description = Description(
        model=work.model,
        preprocessing=Preprocessing(
            channels=work.channels,
            normalisation="none",
            mean=(0.0,) * work.channels,
            deviation=(1.0,) * work.channels,
        ),
        classes=ClassTable.from_names([f"class {index}" for index in range(work.classes)]),
        patch_size=work.patch_size,
        bfloat16=work.precision == "bfloat16",
    )
    model, case = Model(average, description, device), random_case(work.patch_size, work.channels, work.classes)

    def validate() -> None:
        average.eval()
        count(model, [case])

    return validate


def random_case(size: SizePx, channels: int, classes: int, seed: int = 0) -> Decoded:
    """An image of that height and width with its mask, in memory."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
    mask = rng.integers(0, classes, size, dtype=np.uint8)
    return Decoded(
        case=Case(str(seed), Path(str(seed))),
        open_image=lambda: image,
        open_mask=lambda: mask,
        shape=image.shape,
        class_pixels=np.bincount(mask.reshape(-1), minlength=classes),
        positions=np.zeros((0, 3), dtype=np.int64),
        digest="",
        mask_digest="",
        coarse=np.zeros((32, 32), dtype=np.float32),
    )


def _let_go(weight: Tensor) -> None:
    weight.grad = None


class Stopwatch:
    """Measures work once per machine, and remembers.

    Remembering saves time, and it makes a plan the same in every run on this machine. What was measured while other
    programs used the processor is not remembered.

    Args:
        device: where to measure.
        folder: where results are kept between runs.
    """

    def __init__(self, device: torch.device, folder: Path) -> None:
        self.device = device
        self.machine = this_machine(device)
        self.measured: list[Speed] = []
        self.disturbed = 0.0
        """Share of the processor that others used when something was measured."""
        self.spent_seconds = 0.0
        """What measuring has taken so far."""
        self._folder = folder
        give_back_memory()
        self.held_bytes = held_bytes() if device.type == "cpu" else 0
        """What the process holds before anything is measured; on a GPU its tensors count, and there are none yet."""

    def speed(self, work: Work) -> Speed:
        """How fast this work goes; measured for about a second if it is not known.

        Raises:
            MachineError: the work does not fit into memory.
        """
        known = next((speed for speed in self.measured if speed.work == work), None)
        if known is None:
            began = time.monotonic()
            try:
                known = self._remembered_or_measured(work)
            finally:
                self.spent_seconds += time.monotonic() - began
            self.measured.append(known)
        return known

    def room_bytes(self, allowed: int | None, processes: int = 1) -> int:
        """What training may take beyond what is held before.

        Args:
            allowed: to the process, or on a GPU to its tensors; none is `FREE_SHARE` of what is free.
            processes: that share the memory of a machine.
        """
        if allowed is not None:
            return allowed - self.held_bytes
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            return int(FREE_SHARE * torch.cuda.mem_get_info(self.device)[0])
        give_back_memory()  # of what was measured before
        return int(FREE_SHARE * free_bytes() / processes)

    def _remembered_or_measured(self, work: Work) -> Speed:
        file = self._folder / "speed" / f"{self._key(work)}.json"
        try:
            return Speed.model_validate(read_json(file))
        except (DataError, ValueError):
            others = load_of_processor()
        self.disturbed = max(self.disturbed, others if others > BUSY else 0.0)
        with memory_errors(SMALLER):
            speed = self._measure(work)
        if not self.disturbed:
            self._remember(file, speed)
        return speed

    def _remember(self, file: Path, speed: Speed) -> None:
        with contextlib.suppress(DataError):  # it is only a memory; the next run measures again
            make_folder(file.parent)
            write_json(file, speed.model_dump(mode="json"))

    def _key(self, work: Work) -> str:
        parts = (VERSIONS["pixelwise"], REHEARSAL, self.machine.model_dump_json(), work.model_dump_json())
        return hash_of(part.encode() for part in parts)

    def _measure(self, work: Work) -> Speed:
        with determinism(work.deterministic):
            with peak_above_now(self.device) as taken:
                step, validate = rehearsal(work, self.device)
                for _ in range(2):  # the moments of the optimiser come at the end of the first
                    step()
            held = taken()
            speed = Speed(
                work=work,
                training_patches_per_second=work.batch_size / self._seconds(step),
                validation_patches_per_second=1.0 / self._seconds(validate),
                training_bytes=held,
                weights=weight_count(work.model, work.channels, work.classes),
            )
        del step, validate
        if self.device.type == "cuda":
            gc.collect()  # what was recorded refers to itself
            torch.cuda.empty_cache()
        return speed

    def _seconds(self, action: Callable[[], None]) -> float:
        """The shortest of a few repetitions: noise only ever adds."""
        return timed(action, self.device, at_least=0.5, fewest=2, most=20).lowest_seconds
