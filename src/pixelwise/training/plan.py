"""The plan: every free setting gets a value from the data, the machine and the time, and the reason is kept.

Measure the data, decide by written rules, let a person read and change the result: nnU-Net's idea (Isensee et al.,
2021). Settings that the caller gave are never touched.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pixelwise.config import WEIGHTED, Config, ModelConfig, SizePx
from pixelwise.data.fingerprint import FEW_LOST, REDUCTIONS, Fingerprint
from pixelwise.data.preprocess import COLOURS
from pixelwise.data.resident import resident_bytes
from pixelwise.errors import ConfigError, MachineError, first_line
from pixelwise.inference.predictor import FLIPS
from pixelwise.models.unet import border_px, coarsest_px, valid_size_px
from pixelwise.training.machine import (
    COPY_BYTES,
    MARGIN,
    STATE_BYTES,
    Machine,
    Speed,
    Stopwatch,
    Work,
    expected_bytes,
    weight_count,
)

WIDTHS = (8, 12, 16, 24, 32, 48, 64)
"""Features of the finest level that the plan considers."""

NARROW = 32
"""A network with fewer features is too narrow to work on single pixels, if it may be wider on blocks of them."""

USUAL_WIDTH = 32
"""Features of the finest level where no time is given."""

FEWEST_FOR_STATISTICS = 4
"""Patches whose batch statistics say enough."""

RESERVE_BYTES = 100_000_000
"""What samples and validation take, about."""

PATCHES_TO_SEE = 2500
"""A network that cannot see so many patches in the time given is too large for it; one that is wider than
`USUAL_WIDTH` needs as many times more as it is wider."""

PASSES_TO_SEE = 20
"""Nor may it see the training images fewer times, unless that would be more than `PATCHES_WITHOUT_BUDGET`, or more than
`NARROWEST_SHARE` of what the narrowest network sees: where time is too short for all of them, width is worth more."""

NARROWEST_SHARE = 0.25
"""See `PASSES_TO_SEE`."""

PASSES_FOR_VARIETY = 40
"""Scenes that are seen so often are shown at half to twice their size and in other colours: of other scenes, more is
right then. Those that are seen 10 or 15 times are learnt more slowly for it."""

RARE = 0.02
"""A class with a smaller share of the pixels is rare."""

FINETUNING_RATE = 1e-4
"""Peak learning rate of a network that starts from one that knows most of its classes, a tenth of the usual."""

LARGEST_PATCH_PX = {"cpu": 256, "mps": 384, "cuda": 512}
"""Edge of the largest patch by kind of device."""

BATCH_MEGAPIXELS = {"cpu": 0.27, "mps": 1.0, "cuda": 4.2}
"""Pixels of a batch for each process, by kind of device: four patches of the largest size on a CPU, 16 on a GPU."""

MEASURED_PATCHES = {"cpu": 4, "mps": 4, "cuda": 16}
"""A step of so many is measured, by kind of device: a GPU is not filled by few."""

RESIDENT_SHARE = 0.5
"""Images may take so much of what steps leave of a GPU's memory."""

SMALLEST_DEEPEST_PX = 8
"""Edge of the coarsest map."""

VALIDATION_SHARE = 0.12
"""Largest share of the time that validation may take."""

BETWEEN_IMAGES = 0.3
"""Images differ in kind if more than this share of the variance of their pixels lies between them."""

PATCH_SEES_LITTLE = 1.5
"""Images whose longer edge is so many times the largest patch are resized, if their masks allow it."""

SAME_ASPECT = 1.1
"""Images are resized to one size only if their ratios of width to height differ by less."""

MASKS_ARE_COARSE = 0.95
"""mIoU of reduced masks with themselves above which little is lost by resizing."""

EPOCHS_IN_BUDGET = 40
"""So many validations fit a time budget, at most."""

PLANNED_SHARE = 0.8
"""Share of the seconds that are left of a time budget for training steps; the rest is for validating and saving."""

SPENT_STEPS = 20
"""What is spent of a time budget is rounded to so many parts of it: a plan made again shall not differ by noise."""

COMPILED_FROM_SECONDS = 300
"""A run with less time than this is not compiled, which takes about a minute."""

PATCHES_WITHOUT_BUDGET = 20_000
"""Patches that training sees where no time and no number of epochs is given."""


@dataclass(frozen=True)
class Decision:
    """A setting, its value, and why."""

    setting: str
    value: Any
    because: str


@dataclass(frozen=True)
class Plan:
    """Settings with nothing left free."""

    config: Config
    decisions: tuple[Decision, ...]
    machine: Machine
    measured: tuple[Speed, ...]
    disturbed: float = 0.0
    """Share of the processor, 0 to 1, that other programs used during the measurements."""
    memory_bytes: int | None = None
    """What the process, or on a GPU its tensors, will hold at most in training; none if nothing was measured."""
    seconds_left: float | None = None
    """Of the time budget, for training and validation, as it was assumed; none without a budget."""

    def describe(self) -> str:
        """What will be trained, in a sentence."""
        model, training, (height, width) = self.config.model, self.config.training, self.config.data.patch_size
        kind = f"width {model.width}" if model.encoder == "plain" else f"encoder {model.encoder}"
        return (
            f"plan: a U-Net of {kind} and depth {model.depth}, {training.batch_size} patches of {height} x {width} "
            f"pixels in each step, {training.precision}"
        )

    def to_json(self) -> dict[str, Any]:
        """The content of plan.json."""
        return {
            "decisions": [vars(decision) for decision in self.decisions],
            "machine": self.machine.model_dump(mode="json"),
            "memory_bytes": self.memory_bytes,
            "seconds_left": self.seconds_left,
            "measurements": [speed.model_dump(mode="json") for speed in self.measured],
        }


@dataclass(frozen=True)
class Situation:
    """What the rules look at."""

    fingerprint: Fingerprint
    """Measurements of the training split."""
    classes: int
    validation_megapixels: float
    """Size of the validation split."""
    processes: int
    """How many share the work."""
    stopwatch: Stopwatch
    """Measures candidates on this machine."""
    config: Config
    """What was decided so far."""
    spent_seconds: float | None = None
    """Of the time budget, before planning and for the report; none if it counts from the first step of training."""
    told_bytes: int = 0
    """What a teacher says of each pixel."""

    @property
    def seconds_left(self) -> float | None:
        """Of the time budget, for training and validation; none without a budget."""
        budget = self.config.training.time
        if budget is None or self.spent_seconds is None:
            return budget
        parts = round(SPENT_STEPS * (self.spent_seconds + self.stopwatch.spent_seconds) / budget)
        return budget * max(1, SPENT_STEPS - parts) / SPENT_STEPS

    @property
    def machine(self) -> Machine:
        """Where training will run."""
        return self.stopwatch.machine

    @property
    def training_megapixels(self) -> float:
        """Of all training images together, at the size at which the network sees them."""
        resize = self.config.data.resize
        return self.fingerprint.images * resize[0] * resize[1] / 1e6 if resize else self.fingerprint.megapixels

    @property
    def patches(self) -> float:
        """So many patches of the planned size hold all training images."""
        patch = self.config.data.patch_size
        return self.training_megapixels * 1e6 / (patch[0] * patch[1])

    def is_given(self, setting: str) -> bool:
        """Whether the caller, or a rule before this one, has chosen a value."""
        return setting in self.config.given()

    def but(self, settings: dict[str, Any]) -> "Situation":
        """The same with these settings decided."""
        return replace(self, config=self.config.with_values(settings))


Rule = Iterator[Decision]
RuleMaker = Callable[[Situation], Rule]


def plan(situation: Situation, rules: Sequence[RuleMaker] | None = None) -> Plan:
    """Choose a value for every setting that the caller left free.

    Args:
        situation: with the settings of the caller.
        rules: in the order in which they decide; none is all of `RULES`.
    """
    situation, decisions = _decided(situation, rules or RULES)
    stopwatch = situation.stopwatch
    return Plan(
        config=situation.config,
        decisions=decisions,
        machine=stopwatch.machine,
        measured=tuple(stopwatch.measured),
        disturbed=stopwatch.disturbed,
        memory_bytes=_peak_bytes(situation) if stopwatch.measured else None,
        seconds_left=situation.seconds_left,
    )


def _decided(situation: Situation, rules: Sequence[RuleMaker]) -> tuple[Situation, tuple[Decision, ...]]:
    """What these rules make of a situation, one after the other, and their decisions."""
    given = situation.config.given()
    decisions: list[Decision] = []
    for rule in rules:
        made = [decision for decision in rule(situation) if decision.setting not in given]
        situation = situation.but({decision.setting: decision.value for decision in made})
        decisions += made
    return situation, tuple(decisions)


def resize_rule(situation: Situation) -> Rule:
    """Images of large, smooth objects are seen whole, at a smaller size."""
    fingerprint, config = situation.fingerprint, situation.config
    is_given = situation.is_given("data.patch_size")
    cap = max(config.data.patch_size) if is_given else LARGEST_PATCH_PX[situation.machine.device]
    reduction = max(fingerprint.median_size_px) / cap
    kept = dict(zip(REDUCTIONS, fingerprint.reduced_miou, strict=True))
    lost = dict(zip(REDUCTIONS, fingerprint.lost_objects, strict=True))
    measured = next((by for by in REDUCTIONS if by >= reduction), None)
    is_worth_it = reduction > PATCH_SEES_LITTLE and fingerprint.aspect_spread < SAME_ASPECT
    if measured is None or not is_worth_it or not config.model.padded:
        return
    if kept[measured] < MASKS_ARE_COARSE or max(lost[measured]) > FEW_LOST:
        return
    yield Decision(
        "data.resize",
        [round(edge / reduction) for edge in fingerprint.median_size_px],
        f"a patch of {cap} px would show a small part of an image, and masks reduced {measured} times still have "
        f"an mIoU of {kept[measured]:.3f} with themselves and lose {max(lost[measured]):.1%} of their objects",
    )


def stride_rule(situation: Situation) -> Rule:
    """Blocks of pixels where the time allows only a narrow network on single ones."""
    config = situation.config
    is_given = situation.is_given("model.stride") or situation.is_given("model.width")
    if is_given or config.training.time is None or not config.model.padded:
        return
    width = _width_with(1, situation)
    if width >= NARROW:
        yield Decision("model.stride", 1, f"a width of {width} on single pixels sees enough in the time given")
        return
    wider = _width_with(2, situation)
    if wider == width == WIDTHS[0]:
        because = "the time given is too short for any network; the narrowest sees blocks of 2 x 2 pixels more often"
        yield Decision("model.stride", 2, because)
        return
    because = (
        f"the time given allows a width of {width} on single pixels and of {wider} on blocks of 2 x 2, which are taken "
        "where they allow more"
    )
    yield Decision("model.stride", 2 if wider > width else 1, because)


def _width_with(stride: int, situation: Situation) -> int:
    """Of the network that would be planned with this stride."""
    rules = (patch_rule, batch_rule, shard_rule, precision_rule, width_rule)
    planned, _ = _decided(situation.but({"model.stride": stride}), rules)
    return planned.config.model.width


def patch_rule(situation: Situation) -> Rule:
    """Patch and depth from the size of the images."""
    config, fingerprint = situation.config, situation.fingerprint
    size = config.data.resize or fingerprint.median_size_px
    cap = LARGEST_PATCH_PX[situation.machine.device]
    seen = config.data.patch_size if situation.is_given("data.patch_size") else [min(edge, cap) for edge in size]
    depth = config.model.depth
    if not situation.is_given("model.depth"):
        places = min(seen) // config.model.stride
        depth = max(2, min(5, (places // SMALLEST_DEEPEST_PX).bit_length() - 1))
        yield Decision("model.depth", depth, f"of {min(seen)} px the coarsest map keeps an edge of about 8")
    network = config.model.model_copy(update={"depth": depth})
    if situation.is_given("data.patch_size"):
        _refuse_impossible_patch(network, config.data.patch_size)
    elif network.padded:
        step = coarsest_px(network)
        patch = [min(-(-edge // step) * step, cap) for edge in size]
        typical = f"images are {size[0]} x {size[1]} px in the median"
        yield Decision("data.patch_size", patch, f"{typical}; a multiple of {step}, at most {cap} px on this device")
    else:
        border = border_px(network)
        edges = [valid_size_px(network, min(edge + 2 * border, cap)) for edge in size]
        yield Decision("data.patch_size", edges, f"its map is {2 * border} px smaller, and no pooling rounds")


def _refuse_impossible_patch(network: ModelConfig, patch: SizePx) -> None:
    """A network without padding takes some sizes only."""
    possible = [valid_size_px(network, edge) for edge in patch]
    if not network.padded and possible != list(patch):
        raise ConfigError(
            f"'data.patch_size' is {patch[0]} x {patch[1]}, and a network without padding that halves its image "
            f"{network.depth} times cannot take it.",
            remedy=f"The next possible size is --set data.patch_size=[{possible[0]},{possible[1]}].",
        )


def batch_rule(situation: Situation) -> Rule:
    """Batch size from the size of the data set."""
    patch, patches, processes = situation.config.data.patch_size, situation.patches, situation.processes
    fits = BATCH_MEGAPIXELS[situation.machine.device] * processes * 1e6 / (patch[0] * patch[1])
    bounds = {
        f"half of the {patches:.0f} patches that the training images hold": round(patches / 2),
        f"as many of {patch[0]} x {patch[1]} px as keep this device busy": round(fits),
        "16 for each process": 16 * processes,
    }
    because = min(bounds, key=lambda bound: bounds[bound])
    least = max(2, processes)
    batch = max(least, bounds[because])
    yield Decision("training.batch_size", batch, because if batch == bounds[because] else f"no batch is below {least}")
    if situation.is_given("training.batch_size"):
        batch = situation.config.training.batch_size
    if batch < FEWEST_FOR_STATISTICS:
        yield Decision("model.norm", "group", f"batches of {batch} are too small for batch statistics")


def shard_rule(situation: Situation) -> Rule:
    """GPUs divide a network that none of them can hold and train."""
    if situation.machine.device != "cuda" or situation.processes == 1 or situation.is_given("training.shard"):
        return
    config = situation.config
    is_given = situation.is_given("model.width")
    model = config.model if is_given else config.model.model_copy(update={"width": WIDTHS[0]})
    needed = _may_take(_work(situation, model, config.training.precision, 1))
    room = _room_bytes(situation, model)
    if needed > room:
        because = f"whole it may take {_gb(needed)} in each process, and {_gb(room)} are free"
        yield Decision("training.shard", value=True, because=because)


def precision_rule(situation: Situation) -> Rule:
    """The faster of float32 and bfloat16, measured."""
    if situation.is_given("training.precision"):
        return  # measuring takes seconds
    if not situation.machine.bfloat16:
        yield Decision("training.precision", "float32", "this device has no bfloat16 of its own")
        return
    model = situation.config.model if situation.is_given("model.width") else _narrowed(situation)
    speeds = {name: _speed(situation, model, name) for name in ("float32", "bfloat16")}
    ratio = speeds["bfloat16"].training_patches_per_second / speeds["float32"].training_patches_per_second
    name = "bfloat16" if ratio > 1.1 else "float32"
    yield Decision("training.precision", name, f"measured here: bfloat16 trains {ratio:.2f} times as fast as float32")


def _narrowed(situation: Situation) -> ModelConfig:
    """The network with as many features as usual, or with fewer where memory does not allow a single patch of that."""
    model = situation.config.model
    models = [model.model_copy(update={"width": width}) for width in WIDTHS if width <= USUAL_WIDTH]
    fitting = [one for one in models if _may_take(_work(situation, one, "float32", 1)) <= _room_bytes(situation, one)]
    return fitting[-1] if fitting else models[0]


def width_rule(situation: Situation) -> Rule:
    """The widest network that sees enough patches in the time given."""
    if situation.is_given("model.width"):
        return  # measuring takes seconds
    if situation.config.training.time is None:
        width = _narrowed(situation).width
        because = "32 features serve most data" if width == USUAL_WIDTH else "memory allows no wider network"
        yield Decision("model.width", width, f"no time budget was given; {because}")
        return
    narrowest, *others = WIDTHS
    chosen, seen = narrowest, _patches_seen(situation, narrowest)
    needed = _patches_to_see(situation, seen)
    for width in others:
        try:
            possible = _patches_seen(situation, width)
        except MachineError:  # it does not fit into memory
            break
        # the wider of two that saw the same data for as long was no better: it needs more to show its worth
        if possible < needed * max(1.0, width / USUAL_WIDTH):
            break
        chosen, seen = width, possible
    if chosen == narrowest and seen < needed:
        because = f"it sees about {seen:.0f} patches, measured here; none is narrower, and a wider one needs {needed}"
        yield Decision("model.width", chosen, f"in the {_left(situation)} {because}: give more time for that")
        return
    wider = (
        f"a wider network would see too few (it needs {needed}, and more beyond a width of {USUAL_WIDTH}), or not fit "
        "into memory"
        if chosen < WIDTHS[-1]
        else "no wider one is tried"
    )
    because = f"in the {_left(situation)} it sees about {seen:.0f} patches, measured here; {wider}"
    yield Decision("model.width", chosen, because)


def _left(situation: Situation) -> str:
    """The seconds that a plan counts on, in words."""
    left, budget = situation.seconds_left or 0.0, situation.config.training.time or 0.0
    spent = (situation.spent_seconds or 0.0) + situation.stopwatch.spent_seconds
    if spent >= budget > 0.0:
        return f"{left:.0f} s beyond the {budget:.0f} s"
    return f"{left:.0f} s" if left == budget else f"{left:.0f} s that are left of {budget:.0f} s"


def _patches_seen(situation: Situation, width: int) -> float:
    """How many patches a network of a width sees in the seconds that are left once it was measured."""
    model = situation.config.model.model_copy(update={"width": width})
    speed = _speed(situation, model, situation.config.training.precision)
    return _training_seconds(situation) * speed.training_patches_per_second * situation.processes


def _training_seconds(situation: Situation) -> float:
    """For steps, of a time budget."""
    return PLANNED_SHARE * (situation.seconds_left or 0.0)


def _patches_to_see(situation: Situation, narrowest_sees: float) -> int:
    """How many patches a network has to see to be worth its size."""
    passes = min(PASSES_TO_SEE * situation.patches, PATCHES_WITHOUT_BUDGET, NARROWEST_SHARE * narrowest_sees)
    return max(PATCHES_TO_SEE, round(passes))


def compilation_rule(situation: Situation) -> Rule:
    """On a GPU compiled, where that is faster and the run is long enough to make up for the time it takes.

    On a CPU it was measured to bring nothing over channels-last maps in bfloat16.
    """
    config, training = situation.config, situation.config.training
    if situation.machine.device != "cuda" or situation.is_given("training.compile") or training.shard:
        return  # divided, its parts would be compiled one by one, which was not measured
    plain = _speed(situation, config.model, training.precision)
    patches = PATCHES_WITHOUT_BUDGET if training.epochs is None else training.epochs * situation.patches
    expected = patches / (plain.training_patches_per_second * situation.processes)
    if (situation.seconds_left or expected) < COMPILED_FROM_SECONDS:
        return
    try:
        compiled = situation.stopwatch.speed(plain.work.model_copy(update={"compiled": True}))
    except (RuntimeError, MachineError) as error:  # no compiler, or a GPU that it does not know
        yield Decision("training.compile", value=False, because=f"it cannot be compiled here ({first_line(error)})")
        return
    ratio = compiled.training_patches_per_second / plain.training_patches_per_second
    yield Decision("training.compile", ratio > 1.1, f"measured here: compiled it trains {ratio:.2f} times as fast")


def replay_rule(situation: Situation) -> Rule:
    """On one GPU as CUDA graphs, where that is faster: it takes a second to record them."""
    config, training = situation.config, situation.config.training
    is_whole = situation.processes == 1 and training.accumulate == 1 and not training.compile
    if situation.machine.device != "cuda" or situation.is_given("training.cuda_graphs") or not is_whole:
        return
    plain = _speed(situation, config.model, training.precision)
    try:
        replayed = situation.stopwatch.speed(plain.work.model_copy(update={"replayed": True}))
    except (RuntimeError, MachineError) as error:  # something in the network asks for the values of its maps
        yield Decision("training.cuda_graphs", value=False, because=f"it cannot be recorded here ({first_line(error)})")
        return
    ratio = replayed.training_patches_per_second / plain.training_patches_per_second
    if _taken_bytes(situation, replayed, 1) > _room_bytes(situation, config.model):
        yield Decision("training.cuda_graphs", value=False, because="recorded, it takes more memory than there is")
        return
    yield Decision("training.cuda_graphs", ratio > 1.05, f"measured here: replayed it trains {ratio:.2f} times as fast")


def memory_rule(situation: Situation) -> Rule:
    """As many parts of a step as the memory that is free or allowed asks for."""
    config, room = situation.config, _room_bytes(situation, situation.config.model)
    speed = _speed(situation, config.model, config.training.precision)
    most = max(1, config.training.batch_size // situation.processes)
    possible = [config.training.accumulate] if situation.is_given("training.accumulate") else range(1, most + 1)
    together = speed.largest_batch(_patches(situation), room)
    parts = next((parts for parts in possible if _at_a_time(situation, parts) <= together), possible[-1])
    needed = _taken_bytes(situation, speed, parts)
    if needed > room:
        raise _too_large(situation, config.model, needed)
    because = f"it will hold about {_gb(_peak_bytes(situation.but({'training.accumulate': parts})))} at most"
    yield Decision("training.accumulate", parts, f"{because}, measured here")
    if _at_a_time(situation, parts) < FEWEST_FOR_STATISTICS and config.model.norm == "batch" and parts > 1:
        yield Decision(
            "model.norm", "group", f"parts of {_at_a_time(situation, parts)} are too small for batch statistics"
        )


def _at_a_time(situation: Situation, parts: int) -> int:
    """Patches that a process computes together, at most; no step has more parts than its smallest share has patches."""
    batch, processes = situation.config.training.batch_size, situation.processes
    return -(-_patches(situation) // min(parts, max(1, batch // processes)))


def _peak_bytes(situation: Situation) -> int:
    """What a run will hold at most."""
    config, speed = situation.config, _speed_of_training(situation)
    taken = _taken_bytes(situation, speed, config.training.accumulate)
    return situation.stopwatch.held_bytes + taken + _held_on_gpu(situation) + _copied_bytes(situation, config.model)


def _taken_bytes(situation: Situation, speed: Speed, parts: int) -> int:
    """What steps in so many parts take, or in their place the writing of a checkpoint, which copies the state twice."""
    writing = (STATE_BYTES + 2 * COPY_BYTES) * speed.weights if situation.machine.device == "cpu" else 0
    return max(speed.bytes_with(_at_a_time(situation, parts)), writing)


def _room_bytes(situation: Situation, model: ModelConfig) -> int:
    """What steps of a network may take."""
    config = situation.config
    free = situation.stopwatch.room_bytes(config.training.memory, situation.processes)
    return free - _held_on_gpu(situation) - _copied_bytes(situation, model)


def _copied_bytes(situation: Situation, model: ModelConfig) -> int:
    """What a run holds in the memory of the process beside its steps: samples, validation, the state to go back to."""
    if situation.machine.device != "cpu":
        return 0
    return RESERVE_BYTES + COPY_BYTES * weight_count(model, situation.fingerprint.channels, situation.classes)


def _may_take(work: Work) -> float:
    """Bytes that work which was not measured may take."""
    return MARGIN * expected_bytes(work)


def _too_large(situation: Situation, model: ModelConfig, needed: float) -> MachineError:
    allowed = situation.config.training.memory
    held = situation.stopwatch.held_bytes + _copied_bytes(situation, model)
    room = (
        f"{_gb(allowed)} are allowed"
        if allowed is not None
        else f"{_gb(_room_bytes(situation, model))} are free for it"
    )
    return MachineError(
        f"Training a network of width {model.width} may take {_gb(needed)} beside {_gb(held)} for the program and "
        f"its data, even in the smallest parts, and {room}.",
        remedy="Use a smaller --set data.patch_size or model.width, or allow more with --set training.memory=8GB.",
    )


def _gb(count: float) -> str:
    return f"{max(0.0, count) / 1e9:.2f} GB"


def _patches(situation: Situation) -> int:
    """Of a step in each process, at most."""
    return -(-situation.config.training.batch_size // situation.processes)


def schedule_rule(situation: Situation) -> Rule:
    """Epochs, steps and averaging from the time or from the size of the data set."""
    config, training = situation.config, situation.config.training
    batch, patch = training.batch_size, config.data.patch_size
    area = patch[0] * patch[1] / 1e6
    steps_per_pass = max(1, round(situation.patches / batch))
    steps_per_second = _steps_per_second(situation)
    shrunk = situation.training_megapixels / situation.fingerprint.megapixels
    rate = _speed_of_training(situation).validation_patches_per_second * situation.processes
    validation_seconds = situation.validation_megapixels * shrunk / area / rate * _times_seen(situation)
    if training.time is None:
        steps = training.steps_per_epoch or max(10, min(steps_per_pass, 250))
        epochs = max(10, round(PATCHES_WITHOUT_BUDGET / batch / steps))
        minutes = epochs * (steps / steps_per_second + validation_seconds) / 60
        yield Decision("training.epochs", epochs, f"about {PATCHES_WITHOUT_BUDGET} patches; {minutes:.0f} minutes here")
        total = steps * (training.epochs or epochs)
    else:
        total = _steps_in_time(situation)
        longest = VALIDATION_SHARE * _training_seconds(situation)
        often = min(EPOCHS_IN_BUDGET, max(3, int(longest / max(validation_seconds, 1e-3))))
        steps = max(1, total // often)
    takes = f"a validation takes about {validation_seconds:.1f} s, training {1 / steps_per_second:.2f} s per step"
    within = f", in the {_left(situation)}" if training.time is not None else ""
    yield Decision("training.steps_per_epoch", steps, takes + within)
    decay = round(min(0.999, max(0.9, 1.0 - 1.0 / (0.02 * total + 1.0))), 4)
    yield Decision("training.ema_decay", decay, f"averages about {1 / (1 - decay):.0f} of {total} steps")


def _steps_in_time(situation: Situation) -> int:
    """Of a time budget."""
    return max(1, int(_training_seconds(situation) * _steps_per_second(situation)))


def _steps_per_second(situation: Situation) -> float:
    """Of all processes together."""
    speed = _speed_of_training(situation)
    return speed.training_patches_per_second * situation.processes / situation.config.training.batch_size


def _times_seen(situation: Situation) -> float:
    """How often a pixel is predicted: in several views, and in tiles that overlap if an image is larger than one."""
    config = situation.config
    size = config.data.resize or situation.fingerprint.median_size_px
    tile = config.prediction.tile_size or [2 * edge for edge in config.data.patch_size]
    cut = sum(edge > within for edge, within in zip(size, tile, strict=True))
    views = 1 + len(FLIPS[config.prediction.flips])
    return float(views * (1.0 - config.prediction.overlap) ** -cut)


def finetuning_rule(_situation: Situation) -> Rule:
    """Of a network that starts from one that knows most of its classes: the weights are moved little."""
    because = "the run to start from knows most of these classes; other data lost more of it at ten times this rate"
    yield Decision("training.learning_rate", FINETUNING_RATE, because)


def balance_rule(situation: Situation) -> Rule:
    """Rare classes among several are drawn and weighed more often: else they are given up before they are learned."""
    shares = [share for share in situation.fingerprint.class_fractions if share > 0.0]
    if len(shares) < 3 or min(shares) >= RARE:
        return
    because = f"the rarest of {len(shares)} classes has {min(shares):.2%} of the pixels"
    if situation.config.loss.name in WEIGHTED:
        yield Decision("loss.class_weights", "balanced", because)
    yield Decision("data.foreground_fraction", 0.5, because)


def normalisation_rule(situation: Situation) -> Rule:
    """Images of very different kinds, and scenes, are each brought to the same mean and deviation."""
    share = situation.fingerprint.between_images
    if share > BETWEEN_IMAGES:
        yield Decision(
            "data.normalisation",
            "image",
            f"{share:.0%} of the variance lies between images: their kinds differ more than a common mean can cover",
        )
    elif situation.fingerprint.upright:
        because = "scenes have the light of their hour and weather, and others than these will have another"
        yield Decision("data.normalisation", "image", because)


def orientation_rule(situation: Situation) -> Rule:
    """No upside-down streets, and no walls like waves."""
    if not situation.fingerprint.upright:
        return
    because = "classes lie differently in the upper and lower half of the images, so up and down mean something"
    yield Decision("augment.flip_vertical", 0.0, because)
    yield Decision("augment.rotation_degrees", 10.0, because)
    yield Decision("augment.elastic_sigma_px", 0.0, because)


def variety_rule(situation: Situation) -> Rule:
    """What stands in a scene stands near or far and in some light, and in other scenes elsewhere and in another."""
    training = situation.config.training
    if not situation.fingerprint.upright:
        return
    by_epochs = (training.epochs or 0) * (training.steps_per_epoch or 0)
    steps = by_epochs if training.time is None else _steps_in_time(situation)
    passes = steps * training.batch_size / situation.patches
    if passes < PASSES_FOR_VARIETY:
        return
    seen = f"and each pixel is seen about {passes:.0f} times"
    yield Decision("augment.scale", 0.9, f"things in scenes are near or far, {seen}")
    if situation.fingerprint.channels == COLOURS:
        because = f"colours in scenes are those of their light, {seen}"
        yield Decision("augment.saturation", 0.5, because)
        yield Decision("augment.tint", 0.3, because)


def loader_rule(situation: Situation) -> Rule:
    """Who cuts the patches: a GPU itself where it holds all images, else processes beside it."""
    if situation.machine.device != "cuda":
        yield Decision("data.workers", 0, "all cores compute")
        return
    if situation.is_given("data.workers") and situation.config.data.workers:
        return  # it is asked to read ahead
    needed, left = _resident_bytes(situation), _left_bytes(situation)
    fits = needed <= RESIDENT_SHARE * left
    yield Decision("data.resident", fits, f"all images take {_gb(needed)}, and {_gb(left)} are left on the GPU")
    if not (situation.config.data.resident if situation.is_given("data.resident") else fits):
        yield Decision("data.workers", 4, "a GPU shall not wait for reading")


def _held_on_gpu(situation: Situation) -> int:
    """Images that lie there."""
    lies = situation.config.data.resident and situation.machine.device == "cuda"
    return round(_resident_bytes(situation)) if lies else 0


def _resident_bytes(situation: Situation) -> float:
    return resident_bytes(situation.fingerprint, situation.training_megapixels, situation.told_bytes)


def _left_bytes(situation: Situation) -> float:
    """What steps leave of the memory that they may take."""
    config, speed = situation.config, _speed_of_training(situation)
    return _room_bytes(situation, config.model) - _taken_bytes(situation, speed, config.training.accumulate)


RULES: tuple[RuleMaker, ...] = (
    resize_rule,
    stride_rule,
    patch_rule,
    batch_rule,
    shard_rule,
    precision_rule,
    width_rule,
    compilation_rule,
    memory_rule,
    replay_rule,
    schedule_rule,
    balance_rule,
    normalisation_rule,
    orientation_rule,
    variety_rule,
    loader_rule,
)
"""In the order in which they decide; later rules see what earlier ones chose."""

FINETUNING: tuple[RuleMaker, ...] = (*RULES, finetuning_rule)
"""The same for a run that starts from the weights of another, which knows most of its classes."""

LOOKS = (resize_rule, patch_rule, balance_rule, normalisation_rule, orientation_rule)
"""Those that decide what the network sees; they measure nothing."""


def _speed(situation: Situation, model: ModelConfig, precision: str) -> Speed:
    """Measured with the patches of a step up to `MEASURED_PATCHES`, or fewer where memory does not allow more.

    Raises:
        MachineError: a single patch would take more memory than is allowed.
    """
    most = MEASURED_PATCHES[situation.machine.device]
    work = _work(situation, model, precision, min(_patches(situation), most))
    while _may_take(work) > _room_bytes(situation, model):
        if work.batch_size == 1:
            raise _too_large(situation, model, _may_take(work))
        work = work.model_copy(update={"batch_size": work.batch_size // 2})
    return situation.stopwatch.speed(work)


def _speed_of_training(situation: Situation) -> Speed:
    """Of the network that was planned, computed as was planned."""
    training = situation.config.training
    speed = _speed(situation, situation.config.model, training.precision)
    chosen = {"compiled": training.compile, "replayed": training.cuda_graphs}
    known = (one for one in situation.stopwatch.measured if one.work == speed.work.model_copy(update=chosen))
    return next(known, speed)  # what the caller asked for was not measured


def _work(situation: Situation, model: ModelConfig, precision: str, patches: int) -> Work:
    return Work(
        model=model,
        channels=situation.fingerprint.channels,
        classes=situation.classes,
        patch_size=situation.config.data.patch_size,
        batch_size=patches,
        precision=precision,
        deterministic=situation.config.training.deterministic,
        divided=situation.processes if situation.config.training.shard else 1,
    )
