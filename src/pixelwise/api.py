"""What a user can do with Pixelwise, one function each; the command line calls these and nothing else."""

import os
import time as clocks
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped, UInt8

from pixelwise import config as configs
from pixelwise.bench.ceiling import Ceiling
from pixelwise.bench.ceiling import measure as measure_ceiling
from pixelwise.bench.contest import refuse_other_python, with_rivals
from pixelwise.bench.figures import FIGURES, Bench, Figure
from pixelwise.bench.networks import Network
from pixelwise.bench.networks import networks as measure_networks
from pixelwise.config import Config, Flips
from pixelwise.data import check as checks
from pixelwise.data import finding, repair, writing
from pixelwise.data import folder as folders
from pixelwise.data.augment import augment
from pixelwise.data.cache import Cache, Decoded, default_folder, with_channels
from pixelwise.data.dataset import Case, Dataset
from pixelwise.data.finding import Finding
from pixelwise.data.fingerprint import measure
from pixelwise.data.measure import measure as measure_files
from pixelwise.data.preprocess import moments
from pixelwise.data.repair import Repair
from pixelwise.data.split import Split
from pixelwise.errors import ConfigError, DataError, PixelwiseError, TrainingError
from pixelwise.evaluation import figures, forgetting, results, saved, sides
from pixelwise.evaluation import refine as refining
from pixelwise.evaluation import tuned as tuned_page
from pixelwise.evaluation.compare import Comparison
from pixelwise.evaluation.compare import compare as lay_side_by_side
from pixelwise.evaluation.evaluate import evaluate as evaluate_cases
from pixelwise.evaluation.evaluate import evaluate_each
from pixelwise.evaluation.quantised import Quantised
from pixelwise.evaluation.quantised import quantise as quantise_run
from pixelwise.evaluation.refine import Step
from pixelwise.evaluation.results import Background
from pixelwise.evaluation.scores import Evaluation, SplitChoice, units_of
from pixelwise.files import cannot_write, make_folder, write_atomically, write_json
from pixelwise.inference import files as predictions
from pixelwise.inference import int8, jobs, predictor
from pixelwise.inference.files import Predicted
from pixelwise.inference.jobs import MaskFormat, Outputs, Polygons
from pixelwise.inference.predictor import Model
from pixelwise.models import bundle as bundles
from pixelwise.models.unet import UNet, build
from pixelwise.training import material as materials
from pixelwise.training import processes, search
from pixelwise.training import run as runs
from pixelwise.training import space as spaces
from pixelwise.training.folder import MAY_CHANGE, Begun, Files, changed, read_begun, settle
from pixelwise.training.machine import Machine, Stopwatch, this_machine
from pixelwise.training.plan import Plan
from pixelwise.training.range_test import STEPS
from pixelwise.training.watch import Watcher
from pixelwise.trials import Found, Tuned

REMEMBERED_IMAGES = 100
"""So many images at most, spread evenly, show what a run has forgotten."""

RANGE_TEST_SHARE = 0.03
"""A range test that takes more of the time of a search is left out."""

DONE = "fold-done.json"
"""Beside a fold that was trained to its end."""

FOLDS_SHARE = 0.92
"""Of the time for several folds, for these: the rest is for predicting with all of them."""

SHOWN_IMAGES = 16
"""About so many training images show a network that is put into eight bits which values its maps have."""


_ENDS = ("training", "training.time", "training.epochs")
"""Settings that say when a run ends, or hold one that does."""


@dataclass(frozen=True)
class Run:
    """The folder of a training run."""

    folder: Path
    is_main: bool = True
    """This process wrote the results; others of a distributed run have nothing to say."""
    interrupted: bool = False
    """Someone asked for the end before it came; the model so far was evaluated."""

    @property
    def model(self) -> Model:
        """The model that was best on the validation split."""
        return load(self.folder)

    @property
    def scores(self) -> Evaluation:
        """Of the test split, or of the validation split where there is no test split.

        Raises:
            DataError: the run was not evaluated, or the file is damaged.
        """
        return saved.read_scores(self.folder / "scores.json")

    @property
    def report(self) -> Path:
        """The page to open in a browser."""
        return self.folder / "report.html"


@dataclass(frozen=True)
class Refined:
    """What was tried after training, and the bundle that holds what was kept."""

    path: Path
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Folds:
    """The folder of a cross-validation, which holds an ensemble of all its models as a run holds its model."""

    run: Run
    """Of the ensemble; where the search was interrupted, of the fold that was trained."""
    out_of_fold: Evaluation | None
    """Every image by the model that has not seen it; none if not all folds were trained."""


@dataclass(frozen=True)
class Tuning:
    """The folder of a search, and what it has led to."""

    folder: Path
    tuned: Tuned

    @property
    def run(self) -> Run | None:
        """With the winner's settings; none if only a search was asked for."""
        return Run(Path(self.tuned.final)) if self.tuned.final else None

    @property
    def report(self) -> Path:
        """The page to open in a browser."""
        return self.folder / "tune.html"


def check(data: Path | str, watcher: Watcher | None = None) -> tuple[Dataset, list[Finding]]:
    """Look at every file of a data set once and list every problem.

    Args:
        data: a folder of images and masks, or a data.yaml.
        watcher: told how far it is.

    Raises:
        DataError: there are no pairs of images and masks, or it is not clear which belong together.
    """
    dataset = folders.scan(Path(data))
    return dataset, checks.examine(dataset, partial((watcher or Watcher()).work, "checking files"))


def fix(
    data: Path | str, out: Path | str, watcher: Watcher | None = None
) -> tuple[Dataset, list[Finding], list[Repair]]:
    """Write a copy of a data set in which what can be repaired is, and what cannot be is left out.

    Its table `repairs.csv` says what was done to each file.

    Args:
        data: a folder of images and masks, or a data.yaml.
        out: a folder that is empty or does not exist, outside of the data.
        watcher: told how far it is.

    Returns:
        The data set as it was, what is wrong with it, and what became of each file.

    Raises:
        DataError: it is not clear which images and masks belong together or what masks mean, nothing is left, or the
            copy cannot be written.
    """
    watcher = watcher or Watcher()
    dataset = folders.scan(Path(data))
    repair.refuse_place(Path(out), dataset.root)
    measured = measure_files(dataset, partial(watcher.work, "checking files"))
    findings = checks.judge(dataset, measured)
    return dataset, findings, repair.write_copy(dataset, measured, Path(out), partial(watcher.work, "writing the copy"))


def train(  # noqa: PLR0913  all but two are given by name
    data: Path | str,
    out: Path | str | None = None,
    *,
    time: str | float | None = None,
    config: Config | None = None,
    start_from: Path | str | None = None,
    teacher: Path | str | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    command: str = "pixelwise.train(...)",
    began: float | None = None,
) -> Run:
    """Check, split, plan, train, evaluate and report.

    Args:
        data: a folder of images and masks, or a data.yaml.
        out: folder of the run; a new one below `runs` if none is given.
        time: budget for everything, in seconds or as '90s', '15m', '1h30m'; instead of the settings' time or epochs.
        config: settings; those that are not given are planned. See `settings`.
        start_from: a run or bundle whose weights to start from.
        teacher: a run or bundle, such as an ensemble, whose probabilities to learn beside the masks; the network is
            like one of its own.
        resume: go on with the run in `out`.
        watcher: told what happens; none hears nothing.
        command: what the report shows as the way to repeat it.
        began: `time.monotonic()` of the moment the budget counts from; none is now.

    Raises:
        DataError: the data cannot be trained on; all reasons are listed.
        ConfigError: a setting is not possible.
        TrainingError: the loss is not finite.
    """
    watcher = watcher if watcher is not None and processes.is_first() else Watcher()
    started = clocks.monotonic()
    source = Path(start_from) if start_from is not None else None
    # torchrun starts all processes again when one has died: the same command goes on then
    if not resume and out is not None and processes.is_restarted() and _is_of_this_launch(Files(Path(out))):
        resume, source, teacher = True, None, None
    if resume and teacher is not None:
        raise ConfigError("A run that is resumed has its teacher already.", remedy="Leave --teacher out.")
    if teacher is not None:
        bundles.load(Path(teacher))
    place = Path(out) if out is not None else next_free(Path("runs"), _name_of(Path(data)))
    wanted = settle(place, _with_budget(config or Config(), time, None), resume=resume, start_from=source)
    goes_on = resume and Files(place).has_checkpoint
    begun = read_begun(Files(place)) if resume and Files(place).begun.exists() else None
    learns_from = begun.teacher if begun is not None else (Path(teacher).resolve() if teacher is not None else None)
    if resume and not goes_on:
        watcher.say("note: the run ended before its first checkpoint; it begins anew")
        source = begun.started_from if begun is not None else None
    dataset, findings = _checked(data, watcher)
    folder = Path(out) if out is not None else _agree_on_folder(Path(data), wanted)
    if processes.is_first():
        files = Files(make_folder(folder))
        if not resume:
            begun = Begun(
                config=wanted,
                started_from=source and source.resolve(),
                teacher=learns_from,
                launch=processes.launch(),
            )
            write_json(files.begun, begun.to_json())
    request = runs.Request(
        data=Path(data),
        dataset=dataset,
        findings=findings,
        folder=folder,
        config=wanted,
        start_from=source,
        teacher=learns_from,
        resume=goes_on,
        began=began if began is not None else started,
    )
    trained = runs.train(request, watcher)
    if trained.is_main:
        _evaluate_run(trained, watcher, command)
        if source is not None:
            _tell_what_is_left(source, trained.folder, watcher)
    return Run(trained.folder, trained.is_main, trained.interrupted)


def _checked(data: Path | str, watcher: Watcher) -> tuple[Dataset, list[Finding]]:
    """Data that can be trained on, and what was found."""
    dataset, findings = check(data, watcher)
    for line in (*describe(dataset), *dataset.notices):
        watcher.say(line)
    if finding.is_fatal(findings):
        raise DataError(f"This data cannot be trained on.\n\n{finding.to_text(findings)}", where=data)
    return dataset, findings


def _is_of_this_launch(files: Files) -> bool:
    """Whether a run was begun by the processes that torchrun has started these for."""
    return files.begun.exists() and read_begun(files).launch == processes.launch() is not None


def train_folds(  # noqa: PLR0913  all but three are given by name
    data: Path | str,
    folds: int,
    out: Path | str | None = None,
    *,
    time: str | float | None = None,
    config: Config | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    command: str = "pixelwise.train_folds(...)",
    began: float | None = None,
) -> Folds:
    """Cross-validate: as many models as folds, one report of all images, and an ensemble.

    The test side is the same for all, and no model sees it; each other image validates one model. The first fold is
    planned, the others have its settings. The folder holds the folds, `out-of-fold` with scores and report of every
    image by the model that has not seen it, and the ensemble as `best.safetensors`, with its scores on the test side.

    Args:
        data: a folder of images and masks, or a data.yaml.
        folds: how many.
        out: folder; a new one below `runs` if none is given.
        time: for everything, shared by the folds; as for `train`.
        config: settings.
        resume: go on with the folds in `out`.
        watcher: told what happens.
        command: what the reports show as the way to repeat it.
        began: as for `train`.

    Raises:
        DataError: the data cannot be trained on, or there are fewer images than folds.
        ConfigError: a setting is not possible, or there is something in the folder already.
    """
    watcher, started = watcher or Watcher(), began if began is not None else clocks.monotonic()
    asked = _with_budget(config or Config(), time, None).with_values({"data.folds": folds})
    _refuse_processes("Folds are trained", "set data.folds and data.fold, and start each fold by itself")
    place = Path(out) if out is not None else next_free(Path("runs"), f"{_name_of(Path(data))}-folds")
    _refuse_other_folds(place, asked, resume=resume)
    end = started + FOLDS_SHARE * asked.training.time if asked.training.time is not None else None
    runs_of: list[Run] = []
    for fold in range(folds):
        files = Files(place / f"fold-{fold}")
        if _is_done(files):
            runs_of.append(Run(files.folder))
            continue
        watcher.say(f"fold {fold}, of 0 to {folds - 1}")
        settled = configs.load(runs_of[0].folder / "config.yaml") if runs_of else asked
        now = clocks.monotonic()
        values: dict[str, float] = {"data.fold": fold}
        if end is not None:
            values["training.time"] = round(max(1.0, (end - now) / (folds - fold)), 1)
        goes_on = resume and files.begun.exists()
        fresh, rest = settled.with_values(values), _with_budget(Config(), values.get("training.time"), None)
        chosen = rest if goes_on else fresh  # what was begun has its settings
        run = train(data, files.folder, config=chosen, resume=goes_on, watcher=watcher, command=command)
        runs_of.append(run)
        if run.interrupted:
            return Folds(run, None)
        write_json(files.folder / DONE, {"folds": folds})
    return _join_folds(place, runs_of, watcher, command)


def _is_done(files: Files) -> bool:
    """Whether a fold was trained to its end; scores it has in any case."""
    return (files.folder / DONE).exists()


def _refuse_processes(what: str, remedy: str) -> None:
    if processes.process_count() > 1:
        raise ConfigError(
            f"{what} by one process; {processes.process_count()} were started.", remedy=f"Instead, {remedy}."
        )


def _refuse_other_folds(place: Path, asked: Config, *, resume: bool) -> None:
    """Folds begin where nothing is, and go on with the settings that they began with."""
    first = Files(place / "fold-0")
    if Files(place).has_checkpoint or Files(place).begun.exists():
        raise ConfigError("There is a run in this folder.", where=place, remedy="Choose another one with --out.")
    if not resume and (first.begun.exists() or Files(place).best.exists()):
        raise ConfigError("There are folds in this folder already.", where=place, remedy="Go on by --resume.")
    if not resume or not first.config.exists():
        return
    known = configs.load(first.config)
    for key, wish in changed(asked, known).items():
        if key not in MAY_CHANGE:
            raise ConfigError(
                f"'{key}' is {known.value(key)} in these folds and cannot become {wish}.",
                where=first.config,
                remedy="Start anew in another folder.",
            )


def _join_folds(place: Path, runs_of: Sequence[Run], watcher: Watcher, command: str) -> Folds:
    """The ensemble as a run of its own, and the scores of every image by the model that has not seen it."""
    files, first = Files(make_folder(place)), Files(runs_of[0].folder)
    said = [saved.read_facts(Files(run.folder).run) for run in runs_of]
    models = [load(run.folder, configs.load(first.config).device) for run in runs_of]
    dataset = _dataset_to_score(models[0], said[0], None)
    sides_of = [saved.read_split(Files(run.folder).split, dataset) for run in runs_of]
    settled = configs.load(first.config)
    if len({side.test for side in sides_of}) > 1:
        raise DataError(
            "The folds have different test sides: images were added or taken away in between.",
            where=place,
            remedy="Train all folds again, in another folder.",
        )
    bundles.save(bundles.joined([bundles.load(run.folder) for run in runs_of]), files.best)
    seen = tuple(dict.fromkeys(digest for one in said for digest in one.training_images or ()))
    write_json(files.run, said[0].model_copy(update={"training_images": seen}).model_dump(mode="json"))
    reasons = (f"All {len(runs_of)} folds train the ensemble.", *sides_of[0].reasons)
    everything = (*sides_of[0].train, *sides_of[0].validation)
    write_json(files.split, Split(everything, (), sides_of[0].test, reasons).to_json())
    for name in ("plan", "findings", "config"):
        source: Path = getattr(first, name)
        if source.exists():
            write_atomically(getattr(files, name), source.read_bytes())
    cache = Cache(settled.data.cache or default_folder(), dataset)
    pairs = [
        (model, case)
        for model, side in zip(models, sides_of, strict=True)
        for case in _open(cache, side.validation, model, Watcher())
    ]
    told = partial(watcher.work, "predicting images by the models that have not seen them")
    out_of_fold = evaluate_each(pairs, "out-of-fold", settled.evaluation.tolerance_px, told)
    results.write(place / "out-of-fold", out_of_fold, _background(files, dataset, command, 0))
    if sides_of[0].test:
        evaluate(place, device=settled.device, out=place, watcher=watcher, command=command)
    else:
        results.write(place, out_of_fold, _background(files, dataset, command, 0))
    return Folds(Run(place), out_of_fold.scores)


def tune(  # noqa: PLR0913, PLR0915  all but two are given by name; one thing after the other
    data: Path | str,
    out: Path | str | None = None,
    *,
    time: str | float,
    trial_time: str | float | None = None,
    trials: int | None = None,
    config: Config | None = None,
    space: Path | str | None = None,
    storage: str | None = None,
    study: str | None = None,
    search_only: bool = False,
    watcher: Watcher | None = None,
    command: str = "pixelwise.tune(...)",
    began: float | None = None,
) -> Tuning:
    """Search for better settings than the plan's by short runs, then train with the best.

    The trials choose by the validation split; the test split is looked at once, by the winner and the plan.

    Args:
        data: a folder of images and masks, or a data.yaml.
        out: folder of the search; one that holds a search goes on with it. A new one below `runs` if none is given.
        time: for everything, as for `train`; of an earlier call that was interrupted, nothing is counted.
        trial_time: of each trial; none is a tenth of `time`. What is best in far shorter runs is not in longer ones.
        trials: so many of all workers at most; none is without limit.
        config: settings; those that are given are not searched, unless `space` says so.
        space: a YAML file that says what is searched, as `space.yaml` of an earlier search; none is around the plan.
        storage: address of a database that several workers share; none is a SQLite file in the folder.
        study: its name in that database; none is that of the data.
        search_only: end after the trials: another worker trains the winner.
        watcher: told what happens.
        command: what the page shows as the way to go on.
        began: as for `train`.

    Raises:
        DataError: the data cannot be trained on.
        ConfigError: a setting is not possible, Optuna is not installed, or the database cannot be reached.
        TrainingError: no trial came to its end.
    """
    watcher, started = watcher or Watcher(), began if began is not None else clocks.monotonic()
    _refuse_processes("A search is made", "start workers that share a study with --storage")
    command = command.replace(storage, search.without_password(storage)) if storage is not None else command
    asked = _with_budget(config or Config(), time, None)
    seconds = asked.training.time or 0.0
    text = spaces.read_text(Path(space)) if space is not None else ""
    if space is not None:
        spaces.read(text, Path(space), asked)  # before anything is measured
    each = float(_with_budget(Config(), trial_time or seconds / 10, None).training.time or 0.0)
    folder = make_folder(Path(out) if out is not None else new_search_folder(Path(data)))
    joined = search.Study(storage or f"sqlite:///{folder / 'study.db'}", study or _name_of(Path(data)), asked.seed)
    dataset, findings = _checked(data, watcher)
    short = _with_budget(asked, each, None)
    agreed = joined.agreed
    material = materials.prepare(dataset, short, agreed.split_of(dataset) if agreed is not None else None, watcher)
    watcher.say(material.split.describe())
    watcher.say("measuring this machine and planning")
    plan = runs.make_plan(dataset, short, material)
    base = search.shared_settings(short, plan)
    request = runs.Request(Path(data), dataset, folder / "trials", base, findings, material=material)
    if agreed is not None:
        watcher.say("note: this study has its settings, its space and its time for a trial: others are not looked at")
        wanted = spaces.read(agreed.space, "the study", base)
    elif space is not None:
        wanted = spaces.read(text, Path(space), base)
    else:
        rates = _rates(request, plan, seconds, watcher)
        wanted = spaces.around(base, short.given(), material.fingerprint, rates)
    memory = search.Memory(default_folder())
    own = search.Agreed(
        settings=base,
        space=wanted.to_yaml(),
        split=material.split.to_json(),
        data_hash=material.fingerprint.data_hash,
    )
    points = memory.start(wanted, base, material.fingerprint)
    agreed = joined.agree(own, points, starts_with_plan=wanted.holds(base))
    base = agreed.with_machine_of(base)
    each, wanted = base.training.time or each, spaces.read(agreed.space, "the study", base)
    write_atomically(folder / "space.yaml", agreed.space.encode())
    request = replace(request, config=base)
    until = started + (seconds if search_only else search.SHARE * seconds) - each / 2
    joined.try_out(lambda trial: search.attempt(trial, request, wanted, watcher), until, trials, watcher)
    found = joined.found()
    joined.close()
    if found is None:
        raise TrainingError("No trial came to its end.", remedy="Give more --time, or a shorter --trial-time.")
    memory.keep(material.fingerprint, found)
    tuned = Tuned(data=_name_of(Path(data)), trial_seconds=each, found=found)
    tuned = tuned.model_copy(update=_against_plan(found, watcher, command))
    if not search_only:
        left = max(each, started + seconds - clocks.monotonic())
        config = _with_budget(asked, left, None).with_values({"seed": base.seed})  # the split of the trials
        later = runs.make_plan(dataset, config, material).config
        chosen = search.final_settings(found, base, later, wanted)
        place, config = next_free(folder, "final"), config.with_values(chosen)
        run = train(data, place, config=config, watcher=watcher, command=command, began=clocks.monotonic())
        tuned = tuned.model_copy(update={"final": str(run.folder), "final_settings": chosen})
    write_json(folder / "tune.json", tuned.model_dump(mode="json"))
    tuned_page.write(folder / "tune.html", tuned, command)
    return Tuning(folder, tuned)


def _rates(request: runs.Request, plan: Plan, seconds: float, watcher: Watcher) -> tuple[float, float] | None:
    """Learning rates to search, from a range test; none where that says nothing, or takes much of the time."""
    speeds = [one.training_patches_per_second for one in plan.measured if one.work.model == plan.config.model]
    needed = STEPS * plan.config.training.batch_size / max(speeds, default=1e-3)
    if needed > RANGE_TEST_SHARE * seconds or request.material is None:
        return None
    watcher.say("raising the learning rate until the loss grows")
    found = runs.rate_range(request, plan.config, request.material)
    if found.highest <= 10 * found.rates[0]:
        return None
    low, high = found.steepest / 10, found.highest
    watcher.say(f"learning rates from {low:.1g} to {high:.1g} are searched")
    return low, high


def new_search_folder(data: Path) -> Path:
    """runs/NAME-tune-1, or the next number that is free."""
    return next_free(Path("runs"), f"{_name_of(data)}-tune")


def _against_plan(found: Found, watcher: Watcher, command: str) -> dict[str, Any]:
    """Winner and plan on the test split, both trained for as long as a trial."""
    if found.plan is None or found.best.is_plan:
        return {}
    folders_of = [Path(row.folder) for row in (found.best, found.plan)]
    if not all((folder / "best.safetensors").exists() for folder in folders_of):
        return {}  # of another machine
    for folder in folders_of:
        scores = evaluate(folder, out=folder, watcher=watcher, command=command)
        if scores.split != "test":
            return {}
    verdicts = compare(folders_of).verdicts
    if not verdicts:
        return {}  # their test images are not the same
    names = dict(zip((folder.name for folder in folders_of), ("the winner", "the plan"), strict=True))
    verdict = replace(verdicts[0], better=names[verdicts[0].better], worse=names[verdicts[0].worse])
    is_better = verdict.difference.is_clear and verdict.better == "the winner"
    return {"verdict": verdict.describe(), "is_better": is_better}


def settings(
    file: Path | str | None = None,
    overrides: Iterable[str] = (),
    *,
    time: str | float | None = None,
    epochs: int | None = None,
    seed: int | None = None,
) -> Config:
    """Settings for `train` from a YAML file and texts such as 'training.batch_size=8'.

    A time given here, in whatever form, takes the place of the file's epochs, and epochs that of the file's time.

    Args:
        file: settings to begin with, such as the config.yaml of a run.
        overrides: replace those of the file.
        time: in short for 'training.time=...'.
        epochs: in short for 'training.epochs=...'.
        seed: in short for 'seed=...'.

    Raises:
        ConfigError: a setting does not exist or has no such value, or time and epochs are both given.
    """
    texts = list(overrides)
    config = configs.load(Path(file) if file is not None else None, texts)
    # the other texts may be possible only together with the file
    asked = configs.load(None, [text for text in texts if text.partition("=")[0].strip() in _ENDS]).training
    time = time if time is not None else asked.time
    epochs = epochs if epochs is not None else asked.epochs
    if time is not None and epochs is not None:
        raise ConfigError(
            "A time budget and a number of epochs are both given, and either says when to stop.",
            remedy="Give one of them.",
        )
    config = _with_budget(config, time, epochs)
    return config if seed is None else config.with_values({"seed": seed})


def load(path: Path | str, device: str = "auto") -> Model:
    """A trained model, from a run's folder or a bundle.

    Args:
        path: the folder of a run, a `.safetensors` file, or the `.xml` file of a model in eight bits.
        device: auto, cpu, cuda or mps; eight bits are for the CPU.

    Raises:
        BundleError: there is no bundle, or it is damaged.
        ConfigError: there is no such device, or OpenVINO is not installed.
    """
    if Path(path).suffix != ".xml":
        return predictor.load(path, device)
    if device not in {"auto", "cpu"}:
        raise ConfigError(
            f"A model in eight bits computes on the CPU, not on '{device}'.", remedy="Name the run itself."
        )
    return int8.load(Path(path))


def evaluate(  # noqa: PLR0913  all but two are given by name
    run: Path | str | Model,
    data: Path | str | None = None,
    *,
    split: SplitChoice | None = None,
    tolerance_px: float | None = None,
    device: str = "auto",
    out: Path | str | None = None,
    watcher: Watcher | None = None,
    command: str = "pixelwise.evaluate(...)",
) -> Evaluation:
    """Score a model on images whose masks are known; the scores also say which side was scored, in `split`.

    Args:
        run: folder of a run, a bundle, or a loaded model.
        data: images and masks; those of the run if none are given.
        split: which side. None takes the test side of the run's own data (the validation side where it has none); of
            other data the test side that the folder gives, or all images. A loaded model does not know its own data.
        tolerance_px: how far an outline may be off and still count as right; none is what the run's settings say.
        device: auto, cpu, cuda or mps; a loaded model stays where it is.
        out: folder for scores.json and report.html; none writes nothing.
        watcher: told how far it is.
        command: what the report shows as the way to repeat it.

    Raises:
        DataError: images or masks cannot be read, their classes are not the model's, or there is no such side.
        BundleError: there is no model.
    """
    watcher = watcher or Watcher()
    files = Files(Path(run)) if not isinstance(run, Model) and Path(run).is_dir() else None
    model = run if isinstance(run, Model) else load(run, device)
    said = saved.read_facts(files.run) if files is not None else None
    own = files if said is not None and (data is None or sides.is_data_of(said, Path(data))) else None
    dataset = _dataset_to_score(model, said, None if own else data)
    cases, side = sides.choose(dataset, split, saved.read_split(own.split, dataset) if own else None)
    settled = configs.load(files.config) if files else Config()
    cache = Cache(settled.data.cache or default_folder(), dataset)
    decoded = _open(cache, cases, model, watcher)
    seen = sides.count_seen(decoded, said)
    if seen is None and own is None:
        watcher.say("note: it is not known which images this model was trained on; on those, scores would be too good")
    elif seen and side != "train":
        watcher.say(f"warning: {seen} of these {len(decoded)} images were trained on, so that the scores are too good")
    tolerance = tolerance_px if tolerance_px is not None else settled.evaluation.tolerance_px
    evaluated = evaluate_cases(model, decoded, side, tolerance, partial(watcher.work, f"predicting {side} images"))
    if out is not None:
        results.write(Path(out), evaluated, _background(own, dataset, command, seen))
    return evaluated.scores


def quantise(run: Path | str, out: Path | str | None = None, *, watcher: Watcher | None = None) -> Quantised:
    """Write the best model of a run in eight bits, for prediction on a processor, and score both on validation images.

    Args:
        run: its folder.
        out: the `.xml` file to write, beside which a `.bin` file comes; none is `int8.xml` in the run's folder.
        watcher: told how far it is.

    Raises:
        BundleError: there is no model.
        ConfigError: NNCF or OpenVINO is not installed.
        DataError: the folder is not that of a run, its images cannot be read, or the file cannot be written.
    """
    watcher, files = watcher or Watcher(), Files(Path(run))
    path = Path(out) if out is not None else files.folder / "int8.xml"
    if path.suffix != ".xml":
        raise ConfigError(f"The file to write is called {path.name}.", remedy="OpenVINO reads names that end in .xml.")
    said = saved.read_facts(files.run)
    model = load(run, "cpu")
    dataset = _dataset_to_score(model, said, None)
    split = saved.read_split(files.split, dataset)
    cache = Cache(configs.load(files.config).data.cache or default_folder(), dataset)
    if not split.validation:
        raise DataError(
            "This run has no validation images.", where=run, remedy="Put the run of one fold into eight bits."
        )
    shown = _open(cache, split.train[:: max(1, len(split.train) // SHOWN_IMAGES)], model, watcher)
    scored = _open(cache, split.validation, model, watcher)
    watcher.say(f"finding the range of maps on {len(shown)} training images")
    return quantise_run(Path(run), shown, scored, path)


def refine(run: Path | str, *, flips: bool = False, watcher: Watcher | None = None) -> Refined:
    """Find out on the validation images of a run what helps after training, and write that into its bundle.

    Weights of classes (for two classes, a threshold), the smallest objects, and flips if wanted: what clearly helps is
    kept. What an earlier call has found is forgotten.

    Args:
        run: its folder.
        flips: also try to average over flips, which makes prediction two to eight times slower.
        watcher: told how far it is.

    Raises:
        BundleError: there is no model.
        DataError: the folder is not that of a run, its images cannot be read, or the bundle cannot be written.
    """
    watcher, files = watcher or Watcher(), Files(Path(run))
    said = saved.read_facts(files.run)
    model = load(run, configs.load(files.config).device)
    dataset = _dataset_to_score(model, said, None)
    split = saved.read_split(files.split, dataset)
    cache = Cache(configs.load(files.config).data.cache or default_folder(), dataset)
    cases = _open(cache, split.validation, model, watcher)
    if not cases:
        raise DataError(
            "This run has no validation images.",
            where=run,
            remedy="An ensemble trains on all of them: refine one fold.",
        )
    tried = ("horizontal", "both", "rotations") if flips else ()
    units = units_of([case.case.name for case in cases], [case.case.group for case in cases])
    refined, steps = refining.refine(model, cases, units, tried, watcher.say)
    bundle = bundles.load(files.best)
    kept = {"prediction": refined.description.prediction, "postprocessing": refined.description.postprocessing}
    bundles.save(replace(bundle, description=bundle.description.model_copy(update=kept)), files.best)
    write_json(files.folder / "refine.json", [step.to_json() for step in steps])
    return Refined(files.best, tuple(steps))


def compare(runs: Sequence[Path | str]) -> Comparison:
    """Lay runs side by side: scores, and the settings that differ.

    Args:
        runs: folders, at least two.

    Raises:
        ConfigError: there are fewer than two.
        DataError: a folder is not that of a finished run.
    """
    return lay_side_by_side([Path(folder) for folder in runs])


def predict_files(  # noqa: PLR0913  all but three are given by name
    run: Path | str | Model,
    inputs: Sequence[Path | str],
    out: Path | str,
    *,
    mask_format: MaskFormat | None = None,
    overlay: bool = False,
    probabilities: bool = False,
    polygons: Polygons | None = None,
    tolerance_px: float = 0.0,
    flips: Flips | None = None,
    memory_bytes: int = 2_000_000_000,
    device: str = "auto",
    watcher: Watcher | None = None,
) -> Predicted:
    """Write a mask for every image, at the image's size, with the classes' colours as its palette.

    A multi-page file gives a multi-page TIFF, without overlay, probabilities and outlines. An image that cannot be
    read does not keep the others from being done; a mask that cannot be written does. `pixelwise.inference.jobs.plan`
    says where masks go; no image is ever replaced, and no file that an earlier prediction has not written as it is now.

    Args:
        run: folder of a run, a bundle, or a loaded model.
        inputs: files, folders and glob patterns.
        out: folder for the masks; folders below the common folder of the inputs are kept.
        mask_format: `png`, `tif` or `cog` (Cloud Optimized GeoTIFF, needs rasterio); none for `png`, and `tif` where an
            image says where on earth it lies.
        overlay: also write NAME_overlay.png, the mask over the image.
        probabilities: also write NAME_probabilities.npy, float32 K H W.
        polygons: also write the outlines of objects: NAME.geojson (in the coordinates of the map where the image has
            some) or NAME.json (labelme) beside each mask, or one `annotations.json` for all (COCO).
        tolerance_px: leave out corners of outlines that lie no farther than this from a simpler one; needs shapely.
        flips: average over the image and its mirror image (`horizontal`), the four flips (`both`) or the eight flips
            and quarter turns (`rotations`); none does as the model was told when it was trained.
        memory_bytes: what the process may take while it predicts an image of more than 256 MB of pixels, which is
            done by windows; its mask is a tiled TIFF, and an interrupted prediction of it goes on where it stopped.
        device: auto, cpu, cuda or mps; a loaded model stays where it is.
        watcher: told how far it is.

    Raises:
        DataError: an input does not exist, nothing was found, a result would replace an image or another result, or
            cannot be written.
        BundleError: there is no model.
    """
    model = run if isinstance(run, Model) else load(run, device)
    if flips is not None:
        model = model.with_prediction(model.description.prediction.model_copy(update={"flips": flips}))
    draw = figures.picture_of if overlay else None
    outputs = Outputs(Path(out), mask_format, draw, probabilities, polygons, tolerance_px, memory_bytes)
    planned = jobs.plan(inputs, outputs)
    return predictions.run(model, planned, outputs, (watcher or Watcher()).work)


def bench(
    device: str = "auto", only: Sequence[str] = (), rivals: Path | None = None, watcher: Watcher | None = None
) -> tuple[Machine, Ceiling, list[Figure]]:
    """Measure what this machine can do, and what Pixelwise does with it.

    Args:
        device: auto, cpu, cuda or mps.
        only: names of `bench.figures.FIGURES`; none measures all of them, which takes some minutes.
        rivals: a Python that has other programs, which are measured at the same work on a CPU; none leaves them out.
        watcher: told how far it is.

    Raises:
        ConfigError: there is no such device or figure, or that is no Python with rivals.
    """
    watcher = watcher or Watcher()
    wanted = list(only) or list(FIGURES)
    unknown = [name for name in wanted if name not in FIGURES]
    if unknown:
        raise ConfigError(f"There is no figure '{unknown[0]}'.", remedy=f"There are: {', '.join(FIGURES)}.")
    chosen = predictor.choose_device(device)
    if rivals is not None:
        if chosen.type != "cpu":
            raise ConfigError("Rivals are measured on the CPU.", remedy="Add --device cpu, or leave --rivals out.")
        refuse_other_python(rivals)
    watcher.say("measuring the ceiling of this machine")
    ceiling = measure_ceiling(chosen)
    rates = ceiling.convolution_gflops
    where = Bench(chosen, ceiling, max(rates, key=lambda precision: rates[precision]))
    figures: list[Figure] = []
    for number, name in enumerate(wanted):
        watcher.work("measuring", number, len(wanted))
        measured = list(FIGURES[name](where))
        figures += measured if rivals is None else with_rivals(measured, name, rivals, watcher.say)
    watcher.work("measuring", len(wanted), len(wanted))
    return this_machine(chosen), ceiling, figures


def networks(device: str = "auto", watcher: Watcher | None = None, *, speeds: bool = True) -> list[Network]:
    """The named networks with parameters, arithmetic and speed on this machine.

    Args:
        device: auto, cpu, cuda or mps.
        watcher: told how far it is.
        speeds: measure them; else they are none.

    Raises:
        ConfigError: there is no such device.
        MachineError: one of them does not fit into memory.
    """
    chosen = predictor.choose_device(device)
    stopwatch = Stopwatch(chosen, default_folder()) if speeds else None
    return measure_networks(stopwatch, partial((watcher or Watcher()).work, "measuring networks"))


def preview(
    data: Path | str,
    out: Path | str,
    config: Config | None = None,
    patches: int = 24,
    *,
    watcher: Watcher | None = None,
) -> Path:
    """Write a picture of what the network will see: augmented patches with their masks, from images spread evenly.

    Args:
        data: a folder of images and masks, or a data.yaml.
        out: the picture to write (.png).
        config: settings of data and augmentation.
        patches: how many.
        watcher: told how far it is.

    Raises:
        DataError: the data cannot be read, or the picture cannot be written.
    """
    dataset = folders.scan(Path(data))
    material = _all_of(dataset, config or Config(), watcher or Watcher())
    chosen = runs.plan_of_looks(dataset, config or Config(), material).config
    seen = materials.resized(material, chosen)
    drawn = [_patch(seen, chosen, number, patches) for number in range(patches)]
    names = [f"patch {number + 1}" for number in range(patches)]
    sheet = figures.contact_sheet(
        [picture for picture, _ in drawn], [mask for _, mask in drawn], names, dataset.classes
    )
    path = Path(out)
    make_folder(path.parent)
    writing.write_picture(path, sheet)
    return path


def unet(config: configs.ModelConfig | None = None, *, channels: int = 3, classes: int = 2) -> UNet:
    """A U-Net as a plain torch module, from images B C H W to logits B K H W, with He's initialisation.

    Args:
        config: width, depth, normalisation ...; `pixelwise.config.SIZES` has named ones.
        channels: C of the images.
        classes: K of the logits.
    """
    return build(config or configs.ModelConfig(), channels, classes)


def new_run_folder(data: Path) -> Path:
    """Create runs/NAME-1, or the next number that is free; NAME is that of the data.

    Raises:
        DataError: it cannot be created.
    """
    folder = next_free(Path("runs"), _name_of(data))
    try:
        folder.mkdir(parents=True)
    except FileExistsError:  # another run has created it this very moment
        return new_run_folder(data)
    except OSError as error:
        raise cannot_write(folder, error) from None
    return folder


def next_free(parent: Path, name: str) -> Path:
    """NAME-1 below a folder, or the next number that no file or folder has."""
    number = 1
    while os.path.lexists(parent / f"{name}-{number}"):
        number += 1
    return parent / f"{name}-{number}"


def describe(dataset: Dataset) -> list[str]:
    """What was found in a folder, a line each."""
    counts = f"{len(dataset.cases)} images with masks, classes: {', '.join(dataset.classes.names)}"
    return [dataset.layout, dataset.encoding.description, counts]


def score_lines(scores: Evaluation) -> list[str]:
    """Headline and scores per class, a line each."""
    return results.score_lines(scores)


def _with_budget(config: Config, time: str | float | None, epochs: int | None) -> Config:
    """The same settings with another end: by time or by epochs, and then not by both."""
    if time is not None:
        return config.with_values({"training.time": time, "training.epochs": None})
    if epochs is not None:
        return config.with_values({"training.epochs": epochs, "training.time": None})
    return config


def _name_of(data: Path) -> str:
    """What runs on this data are called."""
    is_described = data.suffix in {".yaml", ".yml"}
    if is_described and data.name not in folders.DATA_FILES:
        return data.stem.replace(" ", "_")
    return (data.parent if is_described else data).resolve().name.replace(" ", "_") or "run"


def _agree_on_folder(data: Path, config: Config) -> Path:
    """A new folder, which the first process creates for all."""
    fabric = processes.join(config)
    return fabric.broadcast(new_run_folder(data) if fabric.is_global_zero else data)


def _tell_what_is_left(source: Path, folder: Path, watcher: Watcher) -> None:
    """What the run still knows of the data of the one it started from, where that can be seen."""
    if not Files(source).run.exists():
        watcher.say(f"note: what the model forgets is not measured: {source} is a bundle, which does not know its data")
        return
    try:
        device = configs.load(Files(folder).config).device
        said, earlier, later = saved.read_facts(Files(source).run), load(source, device), load(folder, device)
        dataset = _dataset_to_score(earlier, said, None)
        cases, side = sides.choose(dataset, None, saved.read_split(Files(source).split, dataset))
        cache = Cache(configs.load(Files(folder).config).data.cache or default_folder(), dataset)
        chosen = cases[:: -(-len(cases) // REMEMBERED_IMAGES)]
        if later.description.preprocessing.channels != earlier.description.preprocessing.channels:
            watcher.say(
                "note: what the model forgets is not measured: its images have other channels than the old ones"
            )
            return
        rows = forgetting.before_and_after(earlier, later, _open(cache, chosen, earlier, Watcher()))
    except PixelwiseError as error:  # the run itself is finished
        watcher.say(f"note: what the model forgets is not measured: {error}")
        return
    write_json(folder / "forgetting.json", [row.to_json() for row in rows])
    title = f"{len(chosen)} {side} images of {source.name}"
    for line in (f"{title}:", *forgetting.lines(rows)):
        watcher.say(line)


def _evaluate_run(trained: runs.Trained, watcher: Watcher, command: str) -> None:
    files = Files(trained.folder)
    model = load(files.best, configs.load(files.config).device)
    cases, side = sides.choose(trained.cache.dataset, None, trained.split)
    decoded = _open(trained.cache, cases, model, Watcher())
    tolerance = configs.load(files.config).evaluation.tolerance_px
    evaluated = evaluate_cases(model, decoded, side, tolerance, partial(watcher.work, f"predicting {side} images"))
    seen = sides.count_seen(decoded, saved.read_facts(files.run))
    results.write(trained.folder, evaluated, _background(files, trained.cache.dataset, command, seen))


def _open(cache: Cache, cases: Sequence[Case], model: Model, watcher: Watcher) -> list[Decoded]:
    """Cases with the channels of the model."""
    decoded = cache.open_all(cases, progress=partial(watcher.work, "reading images"))
    return [with_channels(case, model.description.preprocessing.channels) for case in decoded]


def _background(files: Files | None, dataset: Dataset, command: str, seen: int | None) -> Background:
    """What to tell besides scores, of the run whose files are given or of other data."""
    if files is None:
        return Background(command, results.facts(dataset, None, seen))
    return Background(
        command,
        results.facts(dataset, saved.read_facts(files.run), seen),
        saved.read_history(files.history),
        saved.read_decisions(files.plan),
        saved.read_findings(files.findings),
    )


def _dataset_to_score(model: Model, said: saved.RunFacts | None, data: Path | str | None) -> Dataset:
    """Other data, or the run's own if none are named."""
    if data is not None:
        return sides.for_model(folders.scan(Path(data)), said, model.classes)
    if said is None:
        raise ConfigError("A bundle does not know its data.", remedy="Name the folder of images and masks to score.")
    return sides.as_trained(folders.scan(Path(said.data)), said, model.classes)


def _all_of(dataset: Dataset, config: Config, watcher: Watcher) -> materials.Material:
    """Every image as if it were trained on: to look at them needs no split."""
    cache, decoded = materials.opened(dataset, config, watcher)
    return materials.Material(
        cache, Split(dataset.cases, (), ()), decoded, (), measure(decoded, dataset.classes.background)
    )


def _patch(
    material: materials.Material, config: Config, number: int, count: int
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """A training patch as the network sees it, at the brightness of its image, and its mask."""
    case = material.train[number * len(material.train) // count]
    sample = materials.windows(config, replace(material, train=[case]))[number]
    images, masks, scaling = (
        torch.from_numpy(np.array(part))[None] for part in (sample.image, sample.mask, sample.scaling)
    )
    seed = torch.tensor([sample.seed])
    image, mask = augment(images.permute(0, 3, 1, 2), masks, seed, config.data.patch_size, config.augment, scaling)
    mean, deviation = moments(case.image, materials.preprocessing(config, material.fingerprint))
    raw = image[0] * torch.tensor(deviation)[:, None, None] + torch.tensor(mean)[:, None, None]
    return figures.to_display(_as_type(raw.permute(1, 2, 0).numpy(), case.image.dtype)), mask[0].numpy()


def _as_type(values: Shaped[np.ndarray, "H W C"], kind: np.dtype[Any]) -> Shaped[np.ndarray, "H W C"]:
    if not np.issubdtype(kind, np.integer):
        return values
    limits = np.iinfo(kind)
    typed: np.ndarray = np.clip(np.rint(values), limits.min, limits.max).astype(kind)
    return typed
