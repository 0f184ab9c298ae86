"""On a CUDA GPU: what it computes is what the processor computes, and a step waits for nothing."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK
from lightning_fabric import Fabric
from safetensors.torch import load_file
from test_loader import decoded

import pixelwise
from pixelwise import losses
from pixelwise.classes import ClassTable
from pixelwise.config import AugmentConfig, Config, ModelConfig, Preprocessing, TrainingConfig
from pixelwise.data.augment import augment, window_size
from pixelwise.data.loader import Batch, Sampling, Windows
from pixelwise.data.resident import Resident
from pixelwise.inference.predictor import Model
from pixelwise.launcher import Share
from pixelwise.models import unet
from pixelwise.models.blocks import average_into
from pixelwise.models.bundle import Description
from pixelwise.training.clock import Clock
from pixelwise.training.loop import Fit, train_step
from pixelwise.training.machine import Stopwatch, Work
from pixelwise.training.update import Update
from pixelwise.training.watch import Watcher

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

GPU = torch.device("cuda", 0)
SIZE = (64, 64)


PREPROCESSING = Preprocessing(channels=3, normalisation="standard", mean=(127.0,) * 3, deviation=(70.0,) * 3)


@pytest.fixture
def windows() -> Windows:
    """Samples of coloured images of several sizes."""
    rng = np.random.default_rng(0)
    cases = []
    for number, shape in enumerate([(120, 130), (90, 200), (128, 128)]):
        case = decoded(str(number), (rng.random(shape) < 0.3).astype(np.uint8))
        image = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
        cases.append(replace(case, open_image=partial(np.copy, image), shape=image.shape))
    return Windows(cases, PREPROCESSING, Sampling(SIZE, window_size(SIZE, AugmentConfig()), 0.3, 0))


def test_a_gpu_cuts_and_augments_as_the_processor_does(windows: Windows) -> None:
    """But for noise, which each kind of device draws by itself."""
    config = AugmentConfig(
        noise=0.0, saturation=0.5, tint=0.3, geometric_probability=0.7, intensity_probability=0.7
    )  # fmt: skip
    made = []
    for device in (torch.device("cpu"), GPU):
        batch = next(Resident.load(windows, device).batches(5, 16, Share()))
        made.append(augment(batch.image, batch.mask, batch.seeds, SIZE, config, batch.scaling))
    (image, mask), (other, other_mask) = made
    torch.testing.assert_close(other.cpu(), image, rtol=1e-3, atol=2e-3)
    assert (other_mask.cpu() == mask).float().mean() > 0.999, "the nearest of two pixels that are as near may differ"


def fit_on(device: torch.device, config: Config) -> Fit:
    """A job that trains on a device, with the same first weights in each call."""
    precision = "bf16-mixed" if config.training.precision == "bfloat16" else "32-true"
    fabric = Fabric(accelerator=device.type, devices=1, precision=precision)  # type: ignore[arg-type]
    torch.manual_seed(0)
    network = unet.build(config.model, 3, 2).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    update = Update(fabric, network, config.training)
    description = Description(
        model=config.model, preprocessing=PREPROCESSING, classes=ClassTable.from_names(["ground", "disc"]),
        patch_size=SIZE,
    )  # fmt: skip
    return Fit(
        fabric=fabric,
        config=config,
        update=update,
        loss=losses.build(config.loss),
        model=Model(update.average, description, device),
        validation=(),
        clock=Clock(float, 10, None, set_aside_seconds=0.0, trained_seconds=0.0, pixels_after=0.0, stopped=bool),
        on_step=lambda *_: None,
        after_epoch=lambda *_: None,
        after_setback=lambda *_: None,
        lesson=losses.lesson(config.loss),
    )


def config_of(model: ModelConfig, training: TrainingConfig, **augment: float) -> Config:
    settings = Config(model=model, training=training, augment=AugmentConfig(**augment))
    return settings.with_values({"data.patch_size": list(SIZE)})


def trained(job: Fit, batches: Iterator[Batch], steps: int) -> dict[str, torch.Tensor]:
    """The weights after so many steps."""
    job.update.begin_training()
    for step, batch in enumerate(islice(batches, steps)):
        train_step(job, batch, step, 0.5)
    return {name: tensor.cpu() for name, tensor in job.update.plain.state_dict().items()}


@pytest.mark.parametrize("kind", [{}, {"norm": "instance", "deep_supervision": True}, {"stride": 2, "attention": True}])
@pytest.mark.parametrize("graphs", [False, True])
def test_a_step_waits_for_nothing(kind: dict[str, object], graphs: bool, windows: Windows) -> None:
    """CUDA tells of every wait; the first step allocates, chooses kernels and records."""
    training = TrainingConfig(batch_size=8, precision="bfloat16", cuda_graphs=graphs)
    job = fit_on(GPU, config_of(ModelConfig(width=8, depth=3, **kind), training))
    batches = Resident.load(windows, GPU).batches(0, 8, Share())
    trained(job, batches, 2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        job.update.begin_training()
        for step, batch in enumerate(islice(batches, 4)):
            train_step(job, batch, step, 0.5)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions of float32 that compute in float32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("kind", [{}, {"norm": "instance", "deep_supervision": True}])
def test_replayed_graphs_train_as_single_kernels_do(kind: dict[str, object], windows: Windows) -> None:
    model = ModelConfig(width=8, depth=3, **kind)
    states = []
    for graphs in (False, True):
        training = TrainingConfig(
            batch_size=8, cuda_graphs=graphs, optimizer="sgd", learning_rate=0.01, warmup_fraction=0.0
        )
        batches = Resident.load(windows, GPU).batches(0, 8, Share())
        states.append(trained(fit_on(GPU, config_of(model, training)), batches, 10))
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("exact")
def test_a_gpu_trains_as_the_processor_does(windows: Windows) -> None:
    training = TrainingConfig(batch_size=8, optimizer="sgd", learning_rate=0.01, warmup_fraction=0.0)
    states = []
    for device in (torch.device("cpu"), GPU):
        job = fit_on(device, config_of(ModelConfig(width=8, depth=2), training, noise=0.0))
        states.append(trained(job, Resident.load(windows, device).batches(0, 8, Share()), 5))
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=5e-3, atol=5e-4)


def test_all_ways_to_compute_are_measured(tmp_path: Path) -> None:
    work = Work(model=ModelConfig(width=8, depth=3), channels=3, classes=2, patch_size=SIZE, batch_size=4,
                precision="bfloat16")  # fmt: skip
    stopwatch = Stopwatch(GPU, tmp_path)
    plain, replayed = (stopwatch.speed(work.model_copy(update={"replayed": replayed})) for replayed in (False, True))
    assert replayed.training_patches_per_second > plain.training_patches_per_second, "64 px do not fill a GPU"
    assert plain.training_bytes > 16 * plain.weights


def test_equal_seeds_give_equal_weights_whoever_reads(discs: Path, tmp_path: Path) -> None:
    ways = {"resident": "data.resident=true", "workers": "data.workers=2", "again": "data.resident=true"}
    states = []
    for name, setting in ways.items():
        settings = [part for part in QUICK if not part.startswith("device")]
        pixelwise.train(discs, tmp_path / name, config=pixelwise.settings(None, [*settings, "device=cuda", setting]))
        states.append(load_file(tmp_path / name / "last.ckpt"))
    for state in states[1:]:
        assert all(torch.equal(state[name], tensor) for name, tensor in states[0].items())


@pytest.mark.parametrize("bfloat16", [False, True])
def test_masks_of_a_gpu_are_those_of_the_processor(bfloat16: bool, discs: Path, tmp_path: Path) -> None:
    settings = [*QUICK, "training.epochs=10"]
    settings += ["training.precision=bfloat16"] if bfloat16 else []
    run = pixelwise.train(discs, tmp_path / "run", config=pixelwise.settings(None, settings))
    image = np.random.default_rng(0).integers(0, 255, (300, 517), dtype=np.uint8)
    masks = [pixelwise.load(run.folder, device=device).predict(image).mask for device in ("cpu", "cuda")]
    assert (masks[0] == masks[1]).mean() >= (0.99 if bfloat16 else 0.999)


def test_a_planned_run_says_what_it_measured(discs: Path, tmp_path: Path) -> None:
    said: list[str] = []

    class Listening(Watcher):
        def say(self, text: str) -> None:
            said.append(text)

    config = pixelwise.settings(None, ["training.time=25s", "device=cuda"])
    run = pixelwise.train(discs, tmp_path / "run", config=config, watcher=Listening())
    assert any("data.resident = True" in line for line in said)
    assert run.scores.miou > 0.9


def test_weights_are_averaged_as_one_by_one() -> None:
    torch.manual_seed(0)
    states = [unet.build(ModelConfig(width=8, depth=2), 3, 2).state_dict() for _ in range(2)]
    on_gpu = [{name: tensor.to(GPU) for name, tensor in state.items()} for state in states]
    for average, current in (states, on_gpu):
        average_into(average, current, 0.9)
    for name, tensor in states[0].items():
        torch.testing.assert_close(on_gpu[0][name].cpu(), tensor)
