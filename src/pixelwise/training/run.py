"""A training run: from a data set and settings to a folder with a model.

The folder holds config.yaml, split.json, fingerprint.json, plan.json, run.json, history.jsonl, last.ckpt and
best.safetensors. Every one of them can be opened, and `--resume` goes on from what is there.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from pydantic import ValidationError

from pixelwise import config as configs
from pixelwise import losses
from pixelwise.config import Config, Preprocessing
from pixelwise.data import split as splits
from pixelwise.data.augment import window_size
from pixelwise.data.cache import Cache, Decoded, default_folder, hash_of, unify_channels, with_channels
from pixelwise.data.dataset import Dataset
from pixelwise.data.fingerprint import Fingerprint, measure
from pixelwise.data.loader import Sampling, Share, Windows, stream
from pixelwise.errors import ConfigError, DataError, memory_errors
from pixelwise.files import make_folder, read_json, write_atomically, write_json
from pixelwise.inference.predictor import Model, choose_device
from pixelwise.inference.scoring import count
from pixelwise.models import bundle as bundles
from pixelwise.models import unet
from pixelwise.training import checkpoint, finetune, processes
from pixelwise.training.clock import Clock
from pixelwise.training.loop import Fit, History, fit
from pixelwise.training.machine import Stopwatch
from pixelwise.training.plan import LOOKS, RULES, Plan, RuleMaker, plan
from pixelwise.training.stop import StopRequest
from pixelwise.training.update import Update
from pixelwise.training.watch import Several, TensorBoard, Watcher, tensorboard_is_installed

VERSIONS = {name: version(name) for name in ("pixelwise", "torch", "numpy")}
"""What computed."""

MAY_CHANGE = ("training.epochs", "training.time", "training.patience")
"""Settings that may differ when a run is resumed: how long it goes on."""


@dataclass(frozen=True)
class Files:
    """Where a run keeps what."""

    folder: Path

    @property
    def config(self) -> Path:
        """All settings; feeding it back repeats the run."""
        return self.folder / "config.yaml"

    @property
    def split(self) -> Path:
        """Which image is on which side, and why."""
        return self.folder / "split.json"

    @property
    def fingerprint(self) -> Path:
        """Measurements of the training split."""
        return self.folder / "fingerprint.json"

    @property
    def plan(self) -> Path:
        """What was chosen, and why."""
        return self.folder / "plan.json"

    @property
    def run(self) -> Path:
        """Data, versions, machine."""
        return self.folder / "run.json"

    @property
    def history(self) -> Path:
        """One row per epoch."""
        return self.folder / "history.jsonl"

    @property
    def last(self) -> Path:
        """State to resume from."""
        return self.folder / "last.ckpt"

    @property
    def best(self) -> Path:
        """The model that was best on the validation split."""
        return self.folder / bundles.BEST


@dataclass(frozen=True)
class Request:
    """What the caller asks for."""

    data: Path
    """The folder or data.yaml that `dataset` was read from."""
    dataset: Dataset
    folder: Path
    config: Config
    """As `settle` gives it."""
    start_from: Path | None = None
    """A run or bundle to take the weights from."""
    resume: bool = False
    """Go on with the run in `folder`."""
    began: float = 0.0
    """`time.monotonic()` when the user's command began: the time budget counts from there."""


@dataclass(frozen=True)
class Trained:
    """What a run leaves behind, besides its files."""

    folder: Path
    cache: Cache
    split: splits.Split
    is_main: bool
    """This process writes results; the others of a distributed run are done."""
    interrupted: bool
    """Someone asked for the end before the run was over."""


@dataclass(frozen=True)
class Material:
    """Data ready for training."""

    cache: Cache
    split: splits.Split
    train: Sequence[Decoded]
    validation: Sequence[Decoded]
    """At their original size."""
    fingerprint: Fingerprint


def train(request: Request, watcher: Watcher) -> Trained:
    """Split, measure, plan and fit; every step leaves its file in the run's folder.

    Raises:
        DataError: the images cannot be trained on, or a file cannot be written.
        ConfigError: a setting is not possible with this data or this machine.
        TrainingError: the loss is not finite.
        MachineError: memory does not suffice.
    """
    files = Files(make_folder(request.folder))
    fabric = processes.join(request.config)
    watcher = watcher if fabric.is_global_zero else Watcher()
    with memory_errors("Use a smaller --set training.batch_size, data.patch_size or model.width."):
        return _train(request, files, fabric, watcher)


def _train(request: Request, files: Files, fabric: Fabric, watcher: Watcher) -> Trained:
    config = request.config
    with fabric.rank_zero_first():  # the others find the images decoded
        material = prepare(request.dataset, config, files.split if request.resume else None, watcher)
    watcher.say(material.split.describe())
    if request.resume:
        _refuse_other_data(files, request.dataset, material)
        if fabric.is_global_zero:
            write_atomically(files.config, config.to_yaml().encode())  # it may go on for longer than it was to
    else:
        config = _planned(request, config, material, files, fabric, watcher)
        fabric = processes.join(config)  # now with the precision of the plan
    with fabric.rank_zero_first():
        material = resized(material, config)
    with _determinism(config.training.deterministic):
        interrupted = _fit(request, config, material, files, fabric, watcher)
    return Trained(request.folder, material.cache, material.split, fabric.is_global_zero, interrupted)


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Let torch use algorithms that give equal results in every run; afterwards as it was before."""
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if wanted and torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch's notes on reproducibility ask for it
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)


def prepare(dataset: Dataset, config: Config, split_file: Path | None, watcher: Watcher) -> Material:
    """Decode all images, split them, and measure the training side.

    Args:
        dataset: all cases.
        config: settings of data and seed.
        split_file: the split of a run that is resumed.
        watcher: told how many images are read.
    """
    cache = Cache(config.data.cache or default_folder(), dataset)
    decoded = cache.open_all(dataset.cases, progress=partial(watcher.work, "reading images"))
    decoded = unify_channels(decoded)
    by_name = {case.case.name: case for case in decoded}
    split = splits.restore(dataset, split_file) if split_file else _split(dataset, decoded, config)
    train, validation = ([by_name[case.name] for case in side] for side in (split.train, split.validation))
    return Material(cache, split, train, validation, measure(train))


def _split(dataset: Dataset, decoded: Sequence[Decoded], config: Config) -> splits.Split:
    presence = np.stack([case.class_pixels > 0 for case in decoded])
    same: dict[str, list[int]] = {}
    for index, case in enumerate(decoded):
        if not _is_constant(case):  # blank images are alike without being copies
            same.setdefault(case.digest, []).append(index)
    duplicates = [indices for indices in same.values() if len(indices) > 1]
    return splits.assign(dataset, presence, duplicates, config.data, config.seed)


def _is_constant(case: Decoded) -> bool:
    first = case.image[:1, :1]
    return bool((case.image[0] == first[0]).all()) and bool((case.image[:] == first).all())


def resized(material: Material, config: Config) -> Material:
    """Training images at the size the network shall see, and the measurements of those."""
    if config.data.resize is None:
        return material
    cases, channels = [case.case for case in material.train], material.fingerprint.channels
    train = [with_channels(case, channels) for case in material.cache.open_all(cases, config.data.resize)]
    return Material(material.cache, material.split, train, material.validation, measure(train))


def settle(folder: Path, config: Config, *, resume: bool = False, start_from: Path | None = None) -> Config:
    """The settings of a run that begins in a folder or goes on there; looks before any image is read.

    Raises:
        ConfigError: there is a run already, or none to go on with, or it cannot go on with these settings; or there
            is no such device.
        DataError: the folder is a file.
        BundleError: there is no model to start from.
    """
    files = Files(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError("There is a file of this name.", where=folder, remedy="Choose another folder with --out.")
    if resume and start_from is not None:
        raise ConfigError(
            "A run that is resumed goes on from its own weights; --from has no place there.",
            remedy="Leave --from or --resume out.",
        )
    choose_device(config.device)
    if start_from is not None:
        bundles.load(start_from)
    return _resumed_config(files, config) if resume else _fresh(files, config)


def _fresh(files: Files, config: Config) -> Config:
    if files.last.exists() or files.best.exists():
        raise ConfigError(
            "There is a run in this folder already.",
            where=files.folder,
            remedy="Go on with it by --resume, or choose another folder with --out.",
        )
    return config


def _resumed_config(files: Files, asked: Config) -> Config:
    if not files.last.exists():
        raise ConfigError(
            "There is no run to resume: no checkpoint was written here.",
            where=files.folder,
            remedy="Name the run's folder with --out, or leave --resume out.",
        )
    config = configs.load(files.config)
    wishes = {key: asked.value(key) for key in asked.given() if asked.value(key) != config.value(key)}
    for key, wish in wishes.items():
        if key not in MAY_CHANGE:
            raise ConfigError(
                f"'{key}' is {config.value(key)} in the run and cannot become {wish} when it is resumed.",
                where=files.config,
                remedy=f"Only {', '.join(MAY_CHANGE)} can; for others start a new run, with --from if you like.",
            )
    return config.with_values(wishes)


def _refuse_other_data(files: Files, dataset: Dataset, material: Material) -> None:
    try:
        trained_on = Fingerprint.model_validate(read_json(files.fingerprint)).data_hash
    except ValidationError:
        raise DataError(
            "The measurements of the run are damaged, or of another version of Pixelwise.",
            where=files.fingerprint,
            remedy="Start a new run, with --from this one if you like.",
        ) from None
    facts = read_json(files.run)
    known = facts if isinstance(facts, dict) else {}
    begun = (trained_on, known.get("validation_hash"), known.get("mask_encoding"))
    now = (material.fingerprint.data_hash, _hash(material.validation), dataset.encoding.model_dump(mode="json"))
    names = ("training images or masks", "validation images or masks", "values of the masks")
    other = [name for name, before, after in zip(names, begun, now, strict=True) if before != after]
    if other:
        raise DataError(
            f"The {' and the '.join(other)} are not those the run began with.",
            where=files.folder,
            remedy="Put them back, or start a new run, with --from this one if you like.",
        )


def _hash(cases: Sequence[Decoded]) -> str:
    return hash_of(f"{case.digest}{case.mask_digest}".encode() for case in cases)


def _planned(
    request: Request, config: Config, material: Material, files: Files, fabric: Fabric, watcher: Watcher
) -> Config:
    """Plan in the first process, write down everything that is known before training, and tell the others."""
    planned = None
    if fabric.is_global_zero:
        for sentence in config.ignored():
            watcher.say(f"note: {sentence}")
        if request.start_from is not None:
            config = finetune.adopt_network(config, bundles.load(request.start_from))
        watcher.say("measuring this machine and planning")
        planned = make_plan(request.dataset, config, material, fabric.world_size)
        if planned.disturbed:
            watcher.say(
                f"note: other programs use {planned.disturbed:.0%} of the processor; training beside them is slow, and "
                "the speeds measured now are not kept for later runs"
            )
        _write_preparation(files, request, planned, material)
        for decision in planned.decisions:
            watcher.say(f"  {decision.setting} = {decision.value}: {decision.because}")
    return fabric.broadcast(planned.config if planned else config)


def plan_of_looks(dataset: Dataset, config: Config, material: Material) -> Plan:
    """Choose what the network will see, and nothing that has to be measured."""
    return make_plan(dataset, config, material, rules=LOOKS)


def make_plan(
    dataset: Dataset, config: Config, material: Material, process_count: int = 1, rules: Sequence[RuleMaker] = RULES
) -> Plan:
    """Choose what the settings leave free."""
    stopwatch = Stopwatch(choose_device(config.device), config.data.cache or default_folder())
    megapixels = sum(case.pixels for case in material.validation) / 1e6
    return plan(material.fingerprint, len(dataset.classes), megapixels, stopwatch, config, process_count, rules)


def _write_preparation(files: Files, request: Request, planned: Plan, material: Material) -> None:
    dataset = request.dataset
    write_atomically(files.config, planned.config.to_yaml().encode())
    write_json(files.split, material.split.to_json())
    write_json(files.fingerprint, material.fingerprint.model_dump(mode="json"))
    write_json(files.plan, planned.to_json())
    facts = {
        "data": str(request.data.resolve()),
        "layout": dataset.layout,
        "encoding": dataset.encoding.description,
        "training_images": [case.digest for case in material.train],
        "validation_hash": _hash(material.validation),
        "mask_encoding": dataset.encoding.model_dump(mode="json"),
        "notices": list(dataset.notices),
        "started_from": str(request.start_from) if request.start_from else None,
        "machine": f"{planned.machine.name}, {planned.machine.cores} threads, {planned.machine.device}",
        "versions": VERSIONS,
    }
    write_json(files.run, facts)


def _fit(request: Request, config: Config, material: Material, files: Files, fabric: Fabric, watcher: Watcher) -> bool:
    """Train; true if someone asked for the end before it came."""
    description = describe(request.dataset, config, material)
    update = _update(request, config, description, fabric, watcher)
    history, trained_seconds = History(), 0.0
    if request.resume:
        progress = checkpoint.restore(files.last, update)
        history, trained_seconds = progress.history, progress.seconds
        watcher.say(f"resuming at step {history.step}, after {len(history.epochs)} epochs")
    samples = windows(config, material)
    steps_per_epoch = config.training.steps_per_epoch or max(1, round(len(samples) / config.training.batch_size))
    prepared_seconds = time.monotonic() - request.began if request.began else 0.0
    _warn_of_short_budget(config, prepared_seconds, watcher)
    stop = StopRequest(lambda: watcher.say("stopping: the model so far is kept and evaluated"))
    epochs = config.training.epochs
    clock = Clock(
        partial(processes.largest, fabric),
        total_steps=epochs * steps_per_epoch if epochs is not None else None,
        budget_seconds=config.training.time,
        prepared_seconds=prepared_seconds,
        trained_seconds=trained_seconds,
        pixels_after=_pixels_after(material, fabric),
        stopped=stop,
    )
    board = TensorBoard(files.folder) if fabric.is_global_zero and tensorboard_is_installed() else Watcher()
    listener = Several([watcher, board])
    job = Fit(
        fabric=fabric,
        config=config,
        update=update,
        loss=losses.build(
            config.loss,
            class_weights(config, material.fingerprint, fabric),
            processes.total if fabric.world_size > 1 else losses.alone,
        ),
        model=Model(update.average, description, fabric.device),
        validation=material.validation,
        clock=clock,
        on_step=_step_listener(listener, config.training.batch_size),
        after_epoch=_keeper(files, update, description, clock, listener) if fabric.is_global_zero else _nothing,
    )
    if config.training.time is not None:
        clock.note_validation(_validation_seconds(job))
    share = Share(fabric.global_rank, fabric.world_size)
    pinned = fabric.device.type == "cuda"
    batches = stream(samples, history.step, config.training.batch_size, share, config.data.workers, pinned=pinned)
    with stop, board:
        fit(job, batches, history, steps_per_epoch)
    return stop()


def _warn_of_short_budget(config: Config, prepared_seconds: float, watcher: Watcher) -> None:
    budget = config.training.time
    if budget is not None and prepared_seconds > 0.5 * budget:
        watcher.say(
            f"note: reading and planning took {prepared_seconds:.0f} s of the {budget:.0f} s; little or nothing is "
            "left to train in. A second run finds the images decoded"
        )


def windows(config: Config, material: Material) -> Windows:
    """The samples that training draws from."""
    patch = config.data.patch_size
    sampling = Sampling(patch, window_size(patch, config.augment), config.data.foreground_fraction, config.seed)
    return Windows(material.train, preprocessing(config, material.fingerprint), sampling)


def preprocessing(config: Config, fingerprint: Fingerprint) -> Preprocessing:
    """What is done to images before this network sees them."""
    return Preprocessing(
        channels=fingerprint.channels,
        normalisation=config.data.normalisation,
        mean=fingerprint.mean,
        deviation=fingerprint.deviation,
        resize=config.data.resize,
    )


def describe(dataset: Dataset, config: Config, material: Material) -> bundles.Description:
    """What the bundle will say of the network."""
    fingerprint = material.fingerprint
    return bundles.Description(
        model=config.model,
        preprocessing=preprocessing(config, fingerprint),
        classes=dataset.classes,
        patch_size=config.data.patch_size,
        prediction=config.prediction,
        bfloat16=config.training.precision == "bfloat16",
        training={
            "seed": config.seed,
            "images": fingerprint.images,
            "data_hash": fingerprint.data_hash,
            "versions": VERSIONS,
        },
    )


def class_weights(config: Config, fingerprint: Fingerprint, fabric: Fabric) -> torch.Tensor | None:
    """Weight of each class in the loss, with mean 1 over the classes that occur.

    Raises:
        ConfigError: the number of weights given is not the number of classes.
    """
    wish = config.loss.class_weights
    if wish == "none":
        return None
    if isinstance(wish, tuple):
        if len(wish) != len(fingerprint.class_fractions):
            raise ConfigError(
                f"'loss.class_weights' has {len(wish)} values for {len(fingerprint.class_fractions)} classes."
            )
        return torch.tensor(wish, device=fabric.device)
    fractions = torch.tensor(fingerprint.class_fractions, device=fabric.device)
    weights = torch.where(fractions > 0, fractions.clamp_min(1e-6).rsqrt(), 0.0)
    return weights / weights[fractions > 0].mean()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _update(
    request: Request, config: Config, description: bundles.Description, fabric: Fabric, watcher: Watcher
) -> Update:
    torch.manual_seed(config.seed)  # the initial weights, the same in every process
    network = unet.build(config.model, description.preprocessing.channels, len(description.classes))
    if request.start_from is not None and not request.resume:
        moved = finetune.transfer(network, bundles.load(request.start_from), request.dataset.classes)
        watcher.say(
            f"weights from {request.start_from}; classes kept: {_listed(moved.shared)}; new: {_listed(moved.fresh)}"
        )
    network = network.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if fabric.world_size > 1:
        processes.share_batch_norm(network)
    return Update(fabric, network, config.training)


def _validation_seconds(job: Fit) -> float:
    """How long this process will validate, from predicting one image twice: the first time allocates."""
    middle = sorted(job.validation, key=lambda case: case.pixels)[len(job.validation) // 2]
    count(job.model, [middle])
    began = time.monotonic()
    count(job.model, [middle])
    pixels = sum(case.pixels for case in job.validation)
    return (time.monotonic() - began) * pixels / middle.pixels / job.fabric.world_size


def _pixels_after(material: Material, fabric: Fabric) -> float:
    """What the first process predicts after training, as a multiple of what each process validates."""
    cache, split = material.cache, material.split
    test = sum(cache.open(case).pixels for case in split.test)
    validation = sum(case.pixels for case in material.validation)
    return fabric.world_size * (test or validation) / validation


def _step_listener(watcher: Watcher, batch_size: int) -> Callable[[int, float], None]:
    """Tells the watcher of every step, with the rate of the last ones."""
    times: list[float] = []

    def on_step(step: int, progress: float) -> None:
        times.append(time.monotonic())
        del times[:-20]
        elapsed = times[-1] - times[0]
        watcher.step(step, progress, (len(times) - 1) * batch_size / elapsed if elapsed else 0.0)

    return on_step


def _keeper(
    files: Files, update: Update, description: bundles.Description, clock: Clock, watcher: Watcher
) -> Callable[[History, bool], None]:
    """Writes best model, checkpoint and history after every epoch."""

    def after_epoch(history: History, is_best: bool) -> None:
        row = history.epochs[-1]
        if is_best:
            summary: dict[str, Any] = {
                "epoch": row.epoch,
                "step": row.step,
                "seconds": round(row.seconds, 1),
                "validation_miou": row.to_json()["miou"],
            }
            said = description.model_copy(update={"training": {**description.training, **summary}})
            bundles.save(bundles.Bundle(said, bundles.state_on_cpu(update.average)), files.best)
        checkpoint.save(files.last, update, history, clock.trained())
        lines = [json.dumps(epoch.to_json(), allow_nan=False) for epoch in history.epochs]
        write_atomically(files.history, ("\n".join(lines) + "\n").encode())
        watcher.epoch(row, is_best)

    return after_epoch


def _nothing(_history: History, _is_best: bool) -> None:
    """The first process writes for all."""
