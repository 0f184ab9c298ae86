"""Search of settings: short runs, of which those that lag behind end early (Optuna).

A study is kept in a SQLite file, or in a database that any number of workers share. Every trial trains in the time that
it is given; its value is the best pooled mIoU on the validation split. The test split is not looked at.
"""

import json
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from pixelwise.config import Config, Section
from pixelwise.data.dataset import Dataset
from pixelwise.data.fingerprint import Fingerprint
from pixelwise.data.split import Split
from pixelwise.errors import ConfigError, DataError, MachineError, PixelwiseError, TrainingError, extra, first_line
from pixelwise.files import make_folder, previous, read_json, write_json
from pixelwise.training import run as runs
from pixelwise.training.folder import Files
from pixelwise.training.history import Epoch
from pixelwise.training.plan import WIDTHS, Plan
from pixelwise.training.space import Space
from pixelwise.training.watch import Watcher
from pixelwise.trials import Found, TrialRow

RUNGS = {1: 0.25, 2: 0.5}
"""Shares of the time of a trial after which it is held against the others, by the number of the rung."""

FIRST_WHOLE = 4
"""So many trials are never ended early: the others are held against them."""

HEARTBEAT_SECONDS = 15
"""A worker says so often that it is alive; the trial of one that is silent for four times that is given back."""

SHARE = 0.7
"""Of the time that is given, for trials; the rest is for the last run."""

ALIKE = 1.0
"""Fingerprints count as similar up to this distance; see `Memory`."""

AGREED = "agreed"
"""Where a study keeps what holds for all who join it."""

OF_MACHINE = (
    "device",
    "data.cache",
    "data.workers",
    "data.resident",
    "training.precision",
    "training.compile",
    "training.cuda_graphs",
    "training.memory",
)
"""Settings that each worker has for itself."""

MOST_FAILURES = 5
"""So many trials in a row may fail."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says the same as the watcher, and warns of what is meant to be."""
    import warnings

    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


class Agreed(Section):
    """What holds for all workers of a study."""

    settings: Config
    """Of every trial, but for what is searched."""
    space: str
    """What is searched, as a file has it."""
    split: dict[str, Any]
    """As split.json has it."""
    data_hash: str
    """Of all training images and masks."""

    def split_of(self, dataset: Dataset) -> Split:
        """The split, in which a worker may find its own images.

        Raises:
            DataError: the data are others.
        """
        return Split.from_json(self.split, dataset)

    def refuse_other_data(self, data_hash: str) -> None:
        """Refuse to join with other images or masks.

        Raises:
            DataError: the training images of the study are others.
        """
        if self.data_hash != data_hash:
            raise DataError(
                "The study is of other training images or masks.", remedy="Begin a new one: another --out or --study."
            )

    def with_machine_of(self, own: Config) -> Config:
        """The settings, with those of this worker's machine."""
        return self.settings.with_values({key: own.value(key) for key in OF_MACHINE if key in own.given()})


class Study:
    """The trials of all workers.

    Args:
        storage: address of a database, such as `sqlite:///study.db` or `postgresql://user@host/name`.
        name: of the study in it.
        seed: of this worker's suggestions.

    Raises:
        ConfigError: Optuna is not installed, or the database cannot be reached.
    """

    def __init__(self, storage: str, name: str, seed: int) -> None:
        with extra("tune", "A search needs Optuna"):
            import optuna
        from sqlalchemy.exc import SQLAlchemyError

        self._optuna = optuna
        # each worker, and each call of one, draws other points
        generator = np.random.default_rng([seed, os.getpid(), time.time_ns() % 2**32, *platform.node().encode()])
        with _quiet():
            callback = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=2)
            try:
                self._database = optuna.storages.RDBStorage(
                    _with_driver(storage),
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=4 * HEARTBEAT_SECONDS,
                    heartbeat_stale_trial_callback=callback,
                )
                self._study = optuna.create_study(
                    storage=self._database,
                    study_name=name,
                    direction="maximize",
                    load_if_exists=True,
                    # several workers: what others are trying counts as poor, so that not all try the same
                    sampler=optuna.samplers.TPESampler(
                        seed=int(generator.integers(2**32)), multivariate=True, constant_liar=True, n_startup_trials=8
                    ),
                    pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
                )
            except (SQLAlchemyError, ImportError, ValueError) as error:
                said = first_line(error)
                raise ConfigError(
                    f"The study's database cannot be used ({said}).",
                    where=without_password(storage),
                    remedy="Give an address like postgresql://user:password@host/database.",
                ) from None

    def close(self) -> None:
        """Let go of the database."""
        self._database.engine.dispose()

    @property
    def agreed(self) -> Agreed | None:
        """What another call, or worker, has said; none if this is the first.

        Raises:
            ConfigError: it was another version of Pixelwise.
        """
        known = self._study.user_attrs.get(AGREED)
        if known is None:
            return None
        try:
            return Agreed.model_validate(known)
        except ValidationError:
            raise ConfigError(
                "This study is of another version of Pixelwise.", remedy="Begin a new one: another --out or --study."
            ) from None

    def agree(self, own: Agreed, start: Sequence[Mapping[str, Any]], *, starts_with_plan: bool) -> None:
        """Say what holds for all workers, unless another one has said it.

        Args:
            own: what this worker says.
            start: points to try first, as the study keeps them.
            starts_with_plan: the first of them has the plan's settings.

        Raises:
            ConfigError: the study is of another version.
        """
        if self.agreed is None:
            for number, point in enumerate(start):
                is_plan = number == 0 and starts_with_plan
                self._study.enqueue_trial(
                    dict(point), user_attrs={"is_plan": True} if is_plan else None, skip_if_exists=True
                )
            tree = own.model_dump(mode="json", exclude={"settings"})
            settings = own.settings.model_dump(mode="json", exclude_unset=True)
            self._study.set_user_attr(AGREED, tree | {"settings": settings})

    def try_out(self, attempt: Callable[["Trial"], float], until: float, most: int | None, told: Watcher) -> None:
        """Trials one after the other.

        Args:
            attempt: trains one; gives its mIoU.
            until: `time.monotonic()` after which none begins.
            most: trials of all workers, those that failed left out; none is without limit.
            told: hears how each ended.

        Raises:
            ConfigError: none of the first trials could be trained.
        """
        with _quiet():
            while True:
                self._optuna.storages.fail_stale_trials(self._study)
                if time.monotonic() >= until or (most is not None and self._counted() >= most):
                    return
                # one at a time: what became of it is told
                self._study.optimize(
                    lambda trial: self._attempted(attempt, trial),
                    n_trials=1,
                    catch=(MachineError, TrainingError, ConfigError),
                )
                rows = self.rows()
                told.say(_line(rows, self._last_number()))
                ended = [row for row in rows if row.state in {"complete", "pruned", "failed"}]
                if [row.state for row in ended[-MOST_FAILURES:]] == ["failed"] * MOST_FAILURES:
                    raise ConfigError(f"The last {MOST_FAILURES} trials could not be trained: {ended[-1].why}")

    def _attempted(self, attempt: Callable[["Trial"], float], trial: Any) -> float:
        try:
            return attempt(Trial(trial, len(self._finished())))
        except KeyboardInterrupt:
            self.give_back(trial.number)
            raise

    def give_back(self, number: int) -> None:
        """A trial that was interrupted is tried again later."""
        trial = self._study.trials[number]
        kept = {key: value for key, value in trial.user_attrs.items() if key == "is_plan"}
        self._study.enqueue_trial(trial.params, user_attrs=kept)

    def _last_number(self) -> int:
        ended = [(trial.datetime_complete, trial.number) for trial in self._study.trials if trial.datetime_complete]
        return max(ended)[1]

    def _finished(self) -> list[Any]:
        return self._study.get_trials(deepcopy=False, states=(self._optuna.trial.TrialState.COMPLETE,))

    def _counted(self) -> int:
        states = self._optuna.trial.TrialState
        counted = (states.COMPLETE, states.PRUNED, states.RUNNING)
        return len(self._study.get_trials(deepcopy=False, states=counted))

    def rows(self) -> list[TrialRow]:
        """All trials, the first one first."""
        return [_row(trial) for trial in self._study.get_trials(deepcopy=False)]

    def found(self) -> Found | None:
        """The best of those that came to their end; none if none did."""
        rows = self.rows()
        whole = [row for row in rows if row.state == "complete" and row.miou is not None]
        if not whole:
            return None
        best = max(whole, key=lambda row: (row.miou or 0.0, -row.number))
        return Found(
            trials=tuple(rows),
            best=best,
            plan=next((row for row in whole if row.is_plan), None),
            importances=self._importances(len(whole)),
        )

    def _importances(self, count: int) -> dict[str, float]:
        """By PED-ANOVA (Watanabe et al., 2023): what sets the better half of the trials apart."""
        if count < 2 * FIRST_WHOLE:
            return {}
        evaluator = self._optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.5)
        with _quiet(), suppress(ValueError, RuntimeError):  # all trials are equally good
            return dict(self._optuna.importance.get_param_importances(self._study, evaluator=evaluator))
        return {}


class Trial:
    """A trial while it is trained.

    Args:
        trial: Optuna's.
        whole_before: trials that came to their end before.
    """

    def __init__(self, trial: Any, whole_before: int) -> None:
        self._trial = trial
        self._may_end = whole_before >= FIRST_WHOLE and not trial.user_attrs.get("is_plan", False)
        self.number: int = trial.number

    def settings(self, space: Space) -> dict[str, Any]:
        """What to train with."""
        chosen = space.pick(self._trial)
        self._trial.set_user_attr("settings", chosen)
        return chosen

    def note(self, key: str, value: Any) -> None:
        """Keep something with the trial."""
        self._trial.set_user_attr(key, value)

    def hold(self, rung: int, miou: float) -> None:
        """Hold the trial against the others.

        Raises:
            optuna.TrialPruned: it lags behind.
        """
        self._trial.report(miou, rung)
        lags = self._trial.should_prune()  # also notes the value, which later trials are held against
        if self._may_end and lags:
            import optuna

            raise optuna.TrialPruned


class Rungs(Watcher):
    """Holds a trial against the others after each share of its time.

    Args:
        trial: the trial.
        seconds: that it has.
    """

    def __init__(self, trial: Trial, seconds: float) -> None:
        self._trial, self._seconds = trial, seconds
        self._best = 0.0
        self._left = dict(RUNGS)

    def epoch(self, epoch: Epoch, is_best: bool) -> None:  # noqa: ARG002  a `Watcher`
        """See `Watcher`."""
        self._best = max(self._best, 0.0 if math.isnan(epoch.miou) else epoch.miou)
        self._trial.note("miou", self._best)
        for rung, share in list(self._left.items()):
            if epoch.seconds >= share * self._seconds:
                del self._left[rung]
                self._trial.hold(rung, self._best)


def attempt(trial: Trial, request: runs.Request, space: Space, watcher: Watcher) -> float:
    """Train one trial in its folder.

    Args:
        trial: chooses settings, and is told how it goes.
        request: with the settings that all trials share, and the folder that theirs are below.
        space: what is chosen.
        watcher: told what happens.

    Returns:
        The best mIoU on the validation split.

    Raises:
        KeyboardInterrupt: someone asked for the end.
    """
    folder = request.folder / f"{trial.number:04d}"
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted trial in a study that was thrown away
    trial.note("folder", str(folder.resolve()))
    try:
        config = request.config.with_values(trial.settings(space))
        rungs = Rungs(trial, config.training.time or 0.0)
        trained = runs.train(
            replace(request, config=config, folder=folder, began=time.monotonic(), reports=False), _Both(rungs, watcher)
        )
    except PixelwiseError as error:
        trial.note("why", str(error))
        raise
    finally:
        _tidy(Files(folder))
    if trained.interrupted:
        raise KeyboardInterrupt
    scores = [json.loads(line)["miou"] or 0.0 for line in Files(folder).history.read_text().splitlines()]
    return float(max(scores))


class _Both(Watcher):
    """Rungs hear of epochs, and the user of steps: a trial is one line, not a page."""

    def __init__(self, rungs: Rungs, watcher: Watcher) -> None:
        self._rungs, self._watcher = rungs, watcher

    def step(self, step: int, progress: float, images_per_second: float) -> None:
        self._watcher.step(step, progress, images_per_second)

    def epoch(self, epoch: Epoch, is_best: bool) -> None:
        self._rungs.epoch(epoch, is_best)


def _tidy(files: Files) -> None:
    """A trial is never resumed: its checkpoints are large."""
    for path in (files.last, previous(files.last)):
        path.unlink(missing_ok=True)


FREE = ("training.accumulate", "training.steps_per_epoch", "training.ema_decay", "training.epochs", "training.memory")
"""Settings that follow from others, and are planned for each trial anew."""


def shared_settings(config: Config, planned: Plan) -> Config:
    """The settings that all trials have in common: the user's, and the plan's but for those that follow from others."""
    decided = {one.setting: one.value for one in planned.decisions if one.setting not in FREE}
    return config.with_values(decided)


def final_settings(found: Found, base: Config, later: Config, space: Space) -> dict[str, Any]:
    """What the last run has that the plan for its time has not, or would not have beside the rest.

    Args:
        found: the winner.
        base: shared by all trials.
        later: planned for the time that is left.
        space: what was searched.
    """
    if found.best.is_plan:
        return {}
    chosen = {key: value for key, value in found.best.settings.items() if key in space.parts}
    width = chosen.get("model.width")
    if isinstance(width, int):
        chosen["model.width"] = widened(width, base.model.width, later.model.width)
        chosen.setdefault("model.stride", later.model.stride)  # a plan that is told the width decides none
    if "training.batch_size" in chosen:
        chosen.setdefault("model.norm", base.model.norm)  # as in the trial, whatever the batch
    return chosen


def widened(width: int, planned: int, later: int) -> int:
    """The width of the final network: as much wider or narrower than its plan's as the winner was than its own.

    Args:
        width: of the winner.
        planned: by the plan for the time of a trial.
        later: by the plan for the time of the final run.
    """
    wanted = later * width / planned
    return min(WIDTHS, key=lambda one: abs(one - wanted))


def _row(trial: Any) -> TrialRow:
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
    seen, duration = trial.user_attrs, trial.duration
    try:
        return TrialRow(
            number=trial.number,
            state=names[trial.state.name],
            miou=trial.value if trial.state.name == "COMPLETE" else seen.get("miou"),
            seconds=duration.total_seconds() if duration is not None else None,
            settings=seen.get("settings", {}),
            rungs=trial.intermediate_values,
            why=seen.get("why", "") or ("interrupted, and given back" if trial.state.name == "FAIL" else ""),
            is_plan=bool(seen.get("is_plan", False)),
            folder=seen.get("folder", ""),
        )
    except ValidationError as error:
        raise ConfigError(f"The study holds a trial that is none of Pixelwise ({error}).") from None


def _line(rows: Sequence[TrialRow], number: int) -> str:
    row = rows[number]
    whole = [other for other in rows if other.state == "complete"]
    best = max(whole, key=lambda other: other.miou or 0.0, default=None)
    outcome = {"complete": f"validation mIoU {row.miou or 0.0:.3f}", "failed": f"failed: {row.why}"}.get(
        row.state, f"ended early at mIoU {row.miou or 0.0:.3f}"
    )
    record = f"; best {best.miou or 0.0:.3f} of trial {best.number}" if best is not None else ""
    chosen = ", ".join(f"{key}={_short(value)}" for key, value in row.settings.items())
    return f"trial {row.number}{' (the plan)' if row.is_plan else ''}: {outcome}{record}; {chosen}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _with_driver(storage: str) -> str:
    """The address with the driver that is installed, where none is named."""
    scheme, separator, rest = storage.partition("://")
    if scheme in {"postgresql", "postgres"} and find_spec("psycopg2") is None:
        return f"postgresql+pg8000{separator}{rest}"
    return storage


def without_password(storage: str) -> str:
    """The address as it may be shown."""
    scheme, separator, rest = storage.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{user.partition(':')[0]}{at}{place}"


class Memory:
    """Winners of earlier searches on this machine: on similar data they are tried right after the plan.

    Args:
        folder: of the user's cache.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tuned"

    def start(self, space: Space, base: Config, fingerprint: Fingerprint) -> list[dict[str, Any]]:
        """Points to try first: the plan's, then those of the nearest searches, three at most."""
        plan, here = space.parameters(base), _features(fingerprint)
        known = []
        for file in sorted(self._folder.glob("*.json")):
            with suppress(PixelwiseError, KeyError, TypeError, ValueError):  # of another version
                tree = read_json(file)
                distance = math.dist(here, [float(value) for value in tree["features"]])
                if distance <= ALIKE:
                    known.append((distance, space.parameters(base.with_values(tree["settings"]))))
        return [plan, *(point for _, point in sorted(known, key=lambda item: item[0])[:2] if point != plan)]

    def keep(self, fingerprint: Fingerprint, found: Found) -> None:
        """Remember a winner; the latest of the same data counts."""
        with suppress(DataError):  # it is only a memory
            make_folder(self._folder)
            tree = {"features": _features(fingerprint), "settings": found.best.settings, "miou": found.best.miou}
            write_json(self._folder / f"{fingerprint.data_hash}.json", tree)


def _features(fingerprint: Fingerprint) -> list[float]:
    """What similar data have in common, in units in which a distance of one still is similar."""
    shares = [share for share in fingerprint.class_fractions if share > 0]
    return [
        math.log2(max(fingerprint.median_size_px)) / 2,
        math.log10(fingerprint.images) / 2,
        2.0 * fingerprint.channels if fingerprint.channels < 4 else 8.0,
        math.log2(len(fingerprint.class_fractions)),
        math.log10(min(shares, default=1.0)),
        4.0 * fingerprint.reduced_miou[0],
        2.0 * fingerprint.upright,
        2.0 * fingerprint.between_images,
    ]
