"""A training run: from a data set and settings to a folder with a model."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from pixelwise import launcher, losses
from pixelwise.classes import IGNORE
from pixelwise.config import Config
from pixelwise.data.cache import Cache, Decoded, default_folder, hash_of_cases
from pixelwise.data.check import of_resizing, of_test_side
from pixelwise.data.dataset import Dataset
from pixelwise.data.finding import Finding, to_json, to_text
from pixelwise.data.loader import Batch, Windows, stream
from pixelwise.data.parallel import OUTLINE_PIXEL_BYTES, by_turns, together
from pixelwise.data.resident import Resident
from pixelwise.data.split import Split, restore
from pixelwise.errors import ConfigError, DataError, memory_errors
from pixelwise.files import make_folder, read_json, write_atomically, write_json
from pixelwise.inference.predictor import Model, choose_device
from pixelwise.inference.predictor import load as load_model
from pixelwise.inference.scoring import count
from pixelwise.launcher import Share
from pixelwise.memory import give_back_memory, keeping_freed_memory, watching_memory
from pixelwise.metrics.boundaries import compare_boundaries
from pixelwise.models import bundle as bundles
from pixelwise.models import unet
from pixelwise.models.blocks import has_bfloat16
from pixelwise.training import checkpoint, finetune, origins, processes, teaching
from pixelwise.training.clock import Clock
from pixelwise.training.folder import Files, refuse_other_data
from pixelwise.training.history import History
from pixelwise.training.keeper import Beside, Keeper
from pixelwise.training.loop import Fit, fit, train_step
from pixelwise.training.machine import SMALLER, VERSIONS, Speed, Stopwatch, determinism
from pixelwise.training.material import (
    Material,
    class_weights,
    prepare,
    preprocessing,
    resized,
    windows,
)
from pixelwise.training.plan import FINETUNING, LOOKS, RULES, Plan, Situation, plan
from pixelwise.training.range_test import STEPS, RateRange, range_test
from pixelwise.training.stop import StopRequest
from pixelwise.training.update import Update
from pixelwise.training.watch import Several, TensorBoard, Watcher, tensorboard_is_installed

REPORT_SECONDS = 5.0
"""Set aside for writing the report and leaving."""

LONGEST_ASKING = 0.7
"""A teacher that takes a larger share of the time that is left leaves too little to learn in."""

FAR_SLOWER = 0.5
"""A run that trains at a smaller share of the speed that was measured falls far behind its plan."""

LOOKING = 2.0
"""Sorting mistakes and drawing pictures for the report takes about as long as comparing outlines."""


@dataclass(frozen=True)
class Request:
    """What the caller asks for."""

    data: Path
    """The folder or data.yaml that `dataset` was read from."""
    dataset: Dataset
    folder: Path
    config: Config
    """As `settle` gives it."""
    findings: Sequence[Finding] = ()
    """What the check of the data found."""
    start_from: Path | None = None
    """A run or bundle to take the weights from."""
    teacher: Path | None = None
    """A run or bundle whose probabilities to learn beside the masks."""
    resume: bool = False
    """Go on with the run in `folder`."""
    reports: bool = True
    """The model will be evaluated after training, within the same budget."""
    material: Material | None = None
    """The data, where they are prepared already; none prepares them."""
    began: float = 0.0
    """`time.monotonic()` when the user's command began: the time budget counts from there."""
    one_of: int = 1
    """So many folds, of which it is one, will be joined: time for its part of that is set aside."""

    @property
    def sources(self) -> dict[str, Path]:
        """The models that it takes from, by what they are to it."""
        named = {"the model to start from,": self.start_from, "the teacher,": self.teacher}
        return {role: path for role, path in named.items() if path is not None}

    @property
    def spent_seconds(self) -> float:
        """Of the time budget, so far; 0 if it counts from the first step of training."""
        return time.monotonic() - self.began if self.began else 0.0


@dataclass(frozen=True)
class Trained:
    """What a run leaves behind, besides its files."""

    folder: Path
    cache: Cache
    split: Split
    is_main: bool
    """This process writes results; the others of a distributed run are done."""
    interrupted: bool
    """Someone asked for the end before the run was over."""
    kept_seconds: float = 0.0
    """Of the time budget, for this fold's part of joining folds."""


@dataclass(frozen=True)
class Later:
    """What the first process does after training."""

    predicted: int
    """Pixels, by the model of this run."""
    looked_at: int
    """Pixels whose predictions are held against their masks."""
    reports: float
    """That are written."""

    @classmethod
    def of_run(cls, validation: int, test: int) -> "Later":
        """Scores and report: of the pixels of the test side, or of those for validation where there is none."""
        return cls(test or validation, test or validation, 1.0)

    @classmethod
    def of_joining(cls, folds: int, validation: int, test: int) -> "Later":
        """A fold's part of joining so many.

        Args:
            folds: how many there are.
            validation: pixels that this one alone predicts once more, for the scores out of folds.
            test: pixels that all predict for the ensemble, and that are looked at once.
        """
        return cls(validation + test, validation + test // folds, (2 if test else 1) / folds)


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
    with memory_errors(SMALLER), keeping_freed_memory():
        return _train(request, files, fabric, watcher)


def _train(request: Request, files: Files, fabric: Fabric, watcher: Watcher) -> Trained:
    config = request.config
    material = request.material or _prepared(request, files, fabric, watcher)
    watcher.say(material.split.describe())
    if request.resume:
        refuse_other_data(files, request.dataset, material)
        if fabric.is_global_zero:
            write_atomically(files.config, config.to_yaml().encode())  # it may go on for longer than it was to
    else:
        config = _planned(request, config, material, files, fabric, watcher)
        fabric = processes.join(config)  # now with the precision of the plan
        give_back_memory()  # candidates that were measured may have been larger
    with fabric.rank_zero_first():
        material = resized(material, config)
    if request.teacher is not None:
        material = _told(request, config, material, fabric, watcher)
    if fabric.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(fabric.device)  # of what the plan has measured
    with determinism(config.training.deterministic), watching_memory(every_seconds=0.05) as peak:
        interrupted, kept_seconds = _fit(request, config, material, files, fabric, watcher)
    held = torch.cuda.max_memory_allocated(fabric.device) if fabric.device.type == "cuda" else peak()
    watcher.say(f"memory: training held {held / 1e9:.2f} GB at most")
    return Trained(request.folder, material.cache, material.split, fabric.is_global_zero, interrupted, kept_seconds)


def _told(request: Request, config: Config, material: Material, fabric: Fabric, watcher: Watcher) -> Material:
    """The same data with what a teacher says of the training images, of which every process asks for its share."""
    assert request.teacher is not None
    asked = teaching.Teacher(load_model(request.teacher, config.device), material.cache.folder)
    local = launcher.place().local or Share()  # those of a machine have one cache
    share = material.train[local.rank :: local.processes]
    _refuse_long_asking(request, asked, share, config)
    asked.open_all(share, partial(watcher.work, "asking the teacher"))
    fabric.barrier()
    told = asked.open_all(material.train)
    del asked
    give_back_memory()
    return replace(material, told=told)


def _refuse_long_asking(request: Request, teacher: teaching.Teacher, cases: Sequence[Decoded], config: Config) -> None:
    """Ask for one image, and see whether there is time for the others.

    Raises:
        ConfigError: there is not.
    """
    if config.training.time is None or not request.began:
        return
    unknown = [case for case in cases if not teacher.has_seen(case)]
    if not unknown:
        return
    began = time.monotonic()
    teacher.open_all(unknown[:1])
    needed = (time.monotonic() - began) * _pixels(unknown[1:]) / unknown[0].pixels
    left = config.training.time - request.spent_seconds
    if needed > LONGEST_ASKING * left:
        raise ConfigError(
            f"To ask the teacher for {len(unknown)} images takes about {needed:.0f} s, and {max(0.0, left):.0f} s of "
            "the time are left.",
            where=request.teacher,
            remedy="Give more --time, or a faster teacher, such as one fold of an ensemble.",
        )


def _prepared(request: Request, files: Files, fabric: Fabric, watcher: Watcher) -> Material:
    """The data, with the same split in all processes; the others find the images decoded by the first.

    One process draws the split: it depends on similarities, which two processors may round differently.
    """
    known = restore(request.dataset, files.split) if request.resume else None
    drawn = prepare(request.dataset, request.config, known, watcher) if fabric.is_global_zero else None
    split = fabric.broadcast(drawn.split.to_json() if drawn is not None else None)
    if drawn is not None:
        return drawn
    return prepare(request.dataset, request.config, Split.from_json(split, request.dataset), watcher)


def _planned(
    request: Request, config: Config, material: Material, files: Files, fabric: Fabric, watcher: Watcher
) -> Config:
    """Plan in the first process, write down everything that is known before training, and tell the others."""
    planned = None
    if fabric.is_global_zero:
        for sentence in (*config.ignored(), *_without_effect(config, fabric)):
            watcher.say(f"note: {sentence}")
        start = bundles.load(request.start_from) if request.start_from is not None else None
        config = _with_networks_of_sources(request, config, start, watcher)
        watcher.say("measuring this machine and planning")
        knows_most = start is not None and finetune.knows_most(start, request.dataset.classes, config.finetune.merge)
        looking = sum(_looking_seconds(one, config, material) for one in _later(request, config, material))
        situation = replace(
            _situation(request.dataset, config, material, fabric.world_size),
            spent_seconds=request.spent_seconds + looking if request.began else None,
            told_bytes=teaching.told_bytes(len(request.dataset.classes)) if request.teacher is not None else 0,
        )
        planned = plan(situation, FINETUNING if knows_most else RULES)
        _tell(planned, watcher)
        found = _findings(request, planned.config, material, start)
        for finding in found:
            watcher.say(to_text([finding], width=sys.maxsize))  # the watcher knows how wide its lines are
        write_json(files.findings, to_json([*found, *request.findings]))
        _write_preparation(files, request, planned, material)
    return fabric.broadcast(planned.config if planned else config)


def _with_networks_of_sources(
    request: Request, config: Config, start: bundles.Bundle | None, watcher: Watcher
) -> Config:
    """The network is that of the model to start from, and like that of the teacher."""
    if start is not None:
        config = finetune.adopt_network(config, start)
    if start is not None and request.teacher is not None:
        watcher.say(f"begins with the weights of {request.start_from}, learns from {request.teacher} and the masks")
    if request.teacher is not None:
        config = teaching.adopt_network(config, bundles.load(request.teacher), request.dataset.classes)
    return config


def _tell(planned: Plan, watcher: Watcher) -> None:
    if planned.disturbed:
        watcher.say(
            f"note: other programs use {planned.disturbed:.0%} of the processor; training beside them is slow, and "
            "the speeds measured now are not kept for later runs"
        )
    why = "; what was chosen, and why (--set KEY=VALUE chooses otherwise):" if planned.decisions else ", as was given"
    watcher.say(f"{planned.describe()}{why}")
    for decision in planned.decisions:
        watcher.say(f"  {decision.setting} = {decision.value}: {decision.because}")


def _without_effect(config: Config, fabric: Fabric) -> Iterator[str]:
    """A sentence for every setting that does nothing on this device, or in so many processes."""
    if config.training.shard and fabric.world_size == 1:
        yield "training.shard has no effect: there is one process"
    if config.data.resident and fabric.device.type != "cuda":
        yield f"data.resident has no effect: {fabric.device.type} is no CUDA GPU"
    if config.training.cuda_graphs and (fabric.device.type != "cuda" or fabric.world_size > 1):
        yield "training.cuda_graphs has no effect but in one process with a CUDA GPU"


def _findings(request: Request, config: Config, material: Material, start: bundles.Bundle | None) -> list[Finding]:
    """What can be said only now that the data are split and the run is planned."""
    classes = request.dataset.classes
    return [
        *of_resizing(material.fingerprint, classes, config.data.resize),
        *of_test_side(material.split),
        *(finetune.named_on_one_side(start, classes, config.finetune.merge) if start is not None else []),
        *origins.findings(request.sources, material),
    ]


def plan_of_looks(dataset: Dataset, config: Config, material: Material) -> Plan:
    """Choose what the network will see, and nothing that has to be measured."""
    return plan(_situation(dataset, config, material), LOOKS)


def make_plan(dataset: Dataset, config: Config, material: Material) -> Plan:
    """Choose what the settings leave free, for one process."""
    return plan(_situation(dataset, config, material))


def _situation(dataset: Dataset, config: Config, material: Material, processes: int = 1) -> Situation:
    stopwatch = Stopwatch(choose_device(config.device), config.data.cache or default_folder())
    megapixels = sum(case.pixels for case in material.validation) / 1e6
    return Situation(material.fingerprint, len(dataset.classes), megapixels, processes, stopwatch, config)


def _write_preparation(files: Files, request: Request, planned: Plan, material: Material) -> None:
    dataset = request.dataset
    write_json(files.split, material.split.to_json())
    write_json(files.fingerprint, material.fingerprint.model_dump(mode="json"))
    if planned.decisions or not files.plan.exists():  # a run that begins anew has all that was planned in its settings
        write_json(files.plan, planned.to_json())
    facts = {
        "data": str(request.data.resolve()),
        "layout": dataset.layout,
        "encoding": dataset.encoding.description,
        "training_images": origins.all_seen(material, request.sources.values()),
        "validation_hash": hash_of_cases(material.validation),
        "mask_encoding": dataset.encoding.model_dump(mode="json"),
        "notices": list(dataset.notices),
        "started_from": str(request.start_from) if request.start_from else None,
        "teacher": str(request.teacher) if request.teacher else None,
        "machine": f"{planned.machine.name}, {planned.machine.cores} threads, {planned.machine.device}",
        "versions": VERSIONS,
    }
    write_json(files.run, facts)
    write_atomically(files.config, planned.config.to_yaml().encode())  # last: where it lies, all is prepared


def _fit(
    request: Request, config: Config, material: Material, files: Files, fabric: Fabric, watcher: Watcher
) -> tuple[bool, float]:
    """Train; whether someone asked for the end before it came, and the seconds that were kept for joining folds."""
    description = describe(request.dataset, config, material)
    update = _update(request, config, description, fabric, watcher)
    history, trained_seconds = _resumed(files, update, config, watcher) if request.resume else (History(), 0.0)
    samples = windows(config, material)
    steps_per_epoch = config.training.steps_per_epoch or max(1, round(len(samples) / config.training.batch_size))
    stop = StopRequest(lambda: watcher.say("stopping: the model so far is kept and evaluated"))
    later, prepared_seconds = _later(request, config, material), request.spent_seconds
    looking = [_looking_seconds(one, config, material) for one in later]
    predicting = [fabric.world_size * one.predicted / _pixels(material.validation) for one in later]
    _warn_of_short_budget(config, prepared_seconds, watcher)
    _warn_of_emulation(config, fabric, watcher)
    epochs = config.training.epochs
    clock = Clock(
        partial(processes.largest, fabric),
        total_steps=epochs * steps_per_epoch if epochs is not None else None,
        budget_seconds=config.training.time,
        set_aside_seconds=prepared_seconds + sum(looking),
        trained_seconds=trained_seconds,
        pixels_after=sum(predicting),
        stopped=stop,
    )
    board = TensorBoard(files.folder) if fabric.is_global_zero and tensorboard_is_installed() else Watcher()
    listener = Several([watcher, board])
    weights = class_weights(config, material.fingerprint, fabric.device)
    totals = processes.total if fabric.world_size > 1 else losses.alone
    beside = Beside() if fabric.device.type == "cuda" else None  # the GPU trains while the processor writes
    keeper = Keeper(files, update, description, clock, listener, beside) if fabric.is_global_zero else None
    job = Fit(
        fabric=fabric,
        config=config,
        update=update,
        loss=losses.build(config.loss, weights, totals),
        model=Model(update.average, description, fabric.device),
        validation=material.validation,
        clock=clock,
        on_step=_step_listener(listener, config.training.batch_size),
        after_epoch=keeper.after_epoch if keeper is not None else _nothing,
        after_setback=keeper.after_setback if keeper is not None else _nothing,
        lesson=losses.lesson(config.loss, totals),
    )
    if config.training.time is not None:
        clock.note_validation(_validation_seconds(job))
    if not request.resume:
        state = update.state()  # each process may have a part of it
        if keeper is not None:
            keeper.begin(history, state)
        del state
    with stop, board, beside or nullcontext():
        fit(job, _batches(config, samples, fabric), history, steps_per_epoch)
    _note_slowness(files, config, history, fabric.world_size, watcher)
    return stop(), sum(looking[1:]) + clock.predicting_seconds(sum(predicting[1:]))


def _note_slowness(files: Files, config: Config, history: History, processes: int, watcher: Watcher) -> None:
    """Say so where training was far slower than the plan had measured, and counted on."""
    expected = processes * max((speed.training_patches_per_second for speed in _measured(files, config)), default=0.0)
    reached = statistics.median(row.images_per_second for row in history.epochs)
    if reached < FAR_SLOWER * expected:
        watcher.say(
            f"note: training made {reached:.1f} patches per second, and the plan had measured {expected:.1f}: other "
            "programs took the time, or making patches did; with more time, or alone, it would learn more"
        )


def _measured(files: Files, config: Config) -> list[Speed]:
    """What the plan has measured of the network that was trained; nothing where that cannot be read."""
    wanted = (config.model, config.data.patch_size, config.training.precision)
    try:
        speeds = [Speed.model_validate(one) for one in read_json(files.plan)["measurements"]]
    except (DataError, LookupError, TypeError, ValueError):  # it is another's to say so
        return []
    return [one for one in speeds if (one.work.model, one.work.patch_size, one.work.precision) == wanted]


def _resumed(files: Files, update: Update, config: Config, watcher: Watcher) -> tuple[History, float]:
    """What happened so far and how long it took; the update goes on from there."""
    progress = checkpoint.restore(files.last, update)
    if progress.damaged is not None:
        watcher.say(f"note: {progress.damaged.where}: {progress.damaged.what} The one before it is taken.")
    budget = config.training.time
    used = f" and {progress.seconds:.0f} s, which count in the {budget:.0f} s" if budget is not None else ""
    watcher.say(f"resuming at step {progress.history.step}, after {len(progress.history.epochs)} epochs{used}")
    return progress.history, progress.seconds


def _batches(config: Config, samples: Windows, fabric: Fabric) -> Callable[[int], Iterator[Batch]]:
    """The batches of this process from any step on."""
    share, on_gpu = Share(fabric.global_rank, fabric.world_size), fabric.device.type == "cuda"
    if config.data.resident and on_gpu:
        resident = Resident.load(samples, fabric.device)
        return lambda step: resident.batches(step, config.training.batch_size, share)

    def batches_from(step: int) -> Iterator[Batch]:
        return stream(samples, step, config.training.batch_size, share, config.data.workers, pinned=on_gpu)

    return batches_from


def _warn_of_short_budget(config: Config, prepared_seconds: float, watcher: Watcher) -> None:
    budget = config.training.time
    if budget is not None and prepared_seconds > 0.5 * budget:
        watcher.say(
            f"note: reading and planning took {prepared_seconds:.0f} s of the {budget:.0f} s; little or nothing is "
            "left to train in. A second run finds the images decoded, and this machine measured unless other programs "
            "were using it; a longer --time trains"
        )


def _warn_of_emulation(config: Config, fabric: Fabric, watcher: Watcher) -> None:
    if config.training.precision == "bfloat16" and not has_bfloat16(fabric.device):
        watcher.say(
            "note: this device has no bfloat16 of its own; emulating it can be several times as slow as "
            "--set training.precision=float32"
        )


def describe(dataset: Dataset, config: Config, material: Material) -> bundles.Description:
    """What the bundle will say of the network."""
    fingerprint = material.fingerprint
    return bundles.Description(
        model=config.model,
        preprocessing=preprocessing(config, fingerprint).model_copy(update={"slices": dataset.slices}),
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


def _update(
    request: Request, config: Config, description: bundles.Description, fabric: Fabric, watcher: Watcher
) -> Update:
    torch.manual_seed(config.seed)  # the initial weights, the same in every process
    network = unet.build(config.model, description.preprocessing.channels, len(description.classes))
    if config.model.encoder_weights != "none" and request.start_from is None and not request.resume:
        network.encoder.load_weights(config.model.encoder_weights)  # type: ignore[operator]  # of timm: see Config
        watcher.say(f"weights of {config.model.encoder} from {config.model.encoder_weights}")
    if request.start_from is not None and not request.resume:
        start = bundles.load(request.start_from)
        moved = finetune.transfer(network, start, request.dataset.classes, config.finetune.merge)
        watcher.say(f"weights from {request.start_from}; {moved.describe()}")
    finetune.freeze(network, config.finetune.freeze)
    if not processes.divides(config, fabric.world_size):  # else the device gets it part by part, and divided
        network = network.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if fabric.world_size > 1:
        alone = processes.share_batch_norm(network)
        if alone:
            watcher.say(f"note: {alone} normalisations of this encoder see the batch of their own process only")
    decay = config.finetune.rate_decay
    return Update(fabric, network, config.training, finetune.rate_scales(network, decay) if decay < 1.0 else None)


def rate_range(request: Request, config: Config, material: Material) -> RateRange:
    """Which learning rates these settings bear, from some steps of a network that is thrown away.

    Args:
        request: whose data set it is.
        config: with nothing left free.
        material: the data.
    """
    plain = config.with_values(
        {"training.schedule": "constant", "training.warmup_fraction": 0.0, "training.learning_rate": 1.0}
    )
    fabric = processes.join(plain)
    material = resized(material, plain)
    description = describe(request.dataset, plain, material)
    update = _update(request, plain, description, fabric, Watcher())
    weights = class_weights(plain, material.fingerprint, fabric.device)
    job = Fit(
        fabric=fabric,
        config=plain,
        update=update,
        loss=losses.build(plain.loss, weights),
        lesson=losses.lesson(plain.loss),
        model=Model(update.average, description, fabric.device),
        validation=(),
        clock=Clock(float, STEPS, None, set_aside_seconds=0.0, trained_seconds=0.0, pixels_after=0.0, stopped=bool),
        on_step=_nothing,
        after_epoch=_nothing,
        after_setback=_nothing,
    )
    batches = _batches(plain, windows(plain, material), fabric)(0)
    update.begin_training()

    def step(rate: float) -> float:
        update.rate_scale = rate
        return float(train_step(job, next(batches), 0, 1.0))

    with memory_errors(SMALLER), keeping_freed_memory():
        return range_test(step)


def _validation_seconds(job: Fit) -> float:
    """How long this process will validate, from predicting one image twice: the first time allocates."""
    middle = _middle(job.validation)
    job.update.begin_validation()
    count(job.model, [middle])
    began = time.monotonic()
    count(job.model, [middle])
    return (time.monotonic() - began) * _pixels(job.validation) / middle.pixels / job.fabric.world_size


def _looking_seconds(later: Later, config: Config, material: Material) -> float:
    """How long that takes, predictions left out."""
    classes, tolerance_px = len(material.cache.dataset.classes), config.evaluation.tolerance_px
    outlines = outline_seconds(_middle(material.validation), classes, tolerance_px, later.looked_at)
    return later.reports * REPORT_SECONDS + LOOKING * outlines


def outline_seconds(case: Decoded, classes: int, tolerance_px: float, pixels: int) -> float:
    """How long outlines in so many pixels will be compared.

    From comparing those of a mask and the same moved a bit, as many times as will be done at a time.
    """
    truth = np.array(case.mask)
    moved = np.roll(np.where(truth == IGNORE, 0, truth), 2, axis=1)
    images, weight = pixels / case.pixels, OUTLINE_PIXEL_BYTES * case.pixels
    at_a_time = together(round(images), weight)
    began = time.monotonic()
    compare = partial(compare_boundaries, target=truth, classes=classes, tolerance_px=tolerance_px)
    list(by_turns(compare, at_a_time * [moved], lambda _: weight))
    return (time.monotonic() - began) * images / at_a_time


def _later(request: Request, config: Config, material: Material) -> list[Later]:
    """What is done after training within its budget; of a fold that will be joined, its part of that comes second."""
    if config.training.time is None or not request.reports:
        return []
    validation, test = _pixels(material.validation), material.test_pixels
    alone = Later.of_run(validation, test)
    return [alone] if request.one_of == 1 else [alone, Later.of_joining(request.one_of, validation, test)]


def _middle(cases: Sequence[Decoded]) -> Decoded:
    """The image of median size."""
    return sorted(cases, key=lambda case: case.pixels)[len(cases) // 2]


def _pixels(cases: Sequence[Decoded]) -> int:
    return sum(case.pixels for case in cases)


def _step_listener(watcher: Watcher, batch_size: int) -> Callable[[int, float], None]:
    """Tells the watcher of every step, with the rate of the last ones."""
    times: list[float] = []

    def on_step(step: int, progress: float) -> None:
        times.append(time.monotonic())
        del times[:-20]
        elapsed = times[-1] - times[0]
        watcher.step(step, progress, (len(times) - 1) * batch_size / elapsed if elapsed else 0.0)

    return on_step


def _nothing(*_: object) -> None:
    """The first process writes for all."""
