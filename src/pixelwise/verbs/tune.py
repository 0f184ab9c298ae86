"""Search for settings, then a run with the best."""

import time as clocks
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixelwise import launcher
from pixelwise.config import Config
from pixelwise.data.cache import default_folder
from pixelwise.errors import ConfigError, TrainingError
from pixelwise.evaluation import tuned as tuned_page
from pixelwise.files import make_folder, write_atomically, write_json
from pixelwise.training import material as materials
from pixelwise.training import run as runs
from pixelwise.training import search
from pixelwise.training import space as spaces
from pixelwise.training.plan import Plan
from pixelwise.training.range_test import STEPS
from pixelwise.training.watch import Several, Watcher
from pixelwise.trials import Found, Tuned
from pixelwise.verbs.data import Checked, checked
from pixelwise.verbs.runs import Run
from pixelwise.verbs.scores import compare, evaluate
from pixelwise.verbs.settings import name_of, new_search_folder, next_free, with_budget
from pixelwise.verbs.train import train

LEAST_TRIAL_SECONDS = 3.0
"""Shorter trials are over before anything is learnt."""

RANGE_TEST_SHARE = 0.03
"""A range test that takes more of the time of a search is left out."""


class _Untold(Several):
    """Tells a watcher all but a sentence that it has heard."""

    def __init__(self, watcher: Watcher, heard: str) -> None:
        super().__init__([watcher])
        self._heard = heard

    def say(self, text: str) -> None:
        """See `Watcher`."""
        if text != self._heard:
            super().say(text)


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


def tune(  # noqa: PLR0913  all but two are given by name
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
    launcher.refuse_several("A search is made", "start workers that share a study with --storage")
    command = command.replace(storage, search.without_password(storage)) if storage is not None else command
    asked = with_budget(config or Config(), time, None)
    seconds = asked.training.time or 0.0
    text = _read_space(space, asked)  # before anything is measured
    each = float(with_budget(Config(), trial_time or seconds / 10, None).training.time or 0.0)
    if each < LEAST_TRIAL_SECONDS:
        raise ConfigError(
            f"A trial of {each:.1f} s is too short to tell settings apart.",
            remedy=f"Give a longer --time, of which a trial has a tenth, or a --trial-time of {LEAST_TRIAL_SECONDS:g}s "
            "and more.",
        )
    folder = make_folder(Path(out) if out is not None else new_search_folder(Path(data)))
    joined = search.Study(storage or f"sqlite:///{folder / 'study.db'}", study or name_of(Path(data)), asked.seed)
    short = with_budget(asked, each, None)
    known = checked(data, watcher)
    request, plan = _planned(known, folder / "trials", short, joined.agreed, watcher)
    if joined.agreed is not None:
        watcher.say("note: this study has its settings, its space and its time for a trial: others are not looked at")
    elif space is not None:
        _agree(joined, request, spaces.read(text, Path(space), request.config))
    else:
        rates = _rates(request, plan, seconds, watcher)
        _agree(joined, request, spaces.around(request.config, short.given(), _material(request).fingerprint, rates))
    request, wanted = _joined(joined, request)
    write_atomically(folder / "space.yaml", wanted.to_yaml().encode())
    each = request.config.training.time or each
    until = started + (seconds if search_only else search.SHARE * seconds) - each / 2
    joined.try_out(lambda trial: search.attempt(trial, request, wanted, watcher), until, trials, watcher)
    found = joined.found()
    joined.close()
    if found is None:
        raise TrainingError("No trial came to its end.", remedy="Give more --time, or a shorter --trial-time.")
    search.Memory(default_folder()).keep(_material(request).fingerprint, found)
    tuned = Tuned(data=name_of(Path(data)), trial_seconds=each, found=found)
    tuned = tuned.model_copy(update=_against_plan(found, watcher, command))
    if not search_only:
        left = with_budget(asked, max(each, started + seconds - clocks.monotonic()), None)
        tuned = tuned.model_copy(update=_final(found, request, wanted, left, watcher, command))
    write_json(folder / "tune.json", tuned.model_dump(mode="json"))
    tuned_page.write(folder / "tune.html", tuned, command)
    return Tuning(folder, tuned)


def _read_space(file: Path | str | None, asked: Config) -> str:
    """The text of a file that says what is searched."""
    if file is None:
        return ""
    text = spaces.read_text(Path(file))
    spaces.read(text, Path(file), asked)
    return text


def _planned(
    known: Checked, folder: Path, short: Config, agreed: search.Agreed | None, watcher: Watcher
) -> tuple[runs.Request, Plan]:
    """What all trials have in common, as this worker would say, and the plan that it comes from."""
    dataset = known.dataset
    material = materials.prepare(dataset, short, agreed.split_of(dataset) if agreed is not None else None, watcher)
    watcher.say(material.split.describe())
    watcher.say("measuring this machine and planning")
    plan = runs.make_plan(dataset, short, material)
    base = search.shared_settings(short, plan)
    return runs.Request(known.source, dataset, folder, base, known.findings, material=material), plan


def _agree(joined: search.Study, request: runs.Request, wanted: spaces.Space) -> None:
    """Say what counts for all workers of a study, if nobody else has said it in the meantime."""
    base, material = request.config, _material(request)
    own = search.Agreed(
        settings=base,
        space=wanted.to_yaml(),
        split=material.split.to_json(),
        data_hash=material.fingerprint.data_hash,
    )
    points = search.Memory(default_folder()).start(wanted, base, material.fingerprint)
    joined.agree(own, points, starts_with_plan=wanted.holds(base))


def _joined(joined: search.Study, request: runs.Request) -> tuple[runs.Request, spaces.Space]:
    """What counts for all workers of a study."""
    agreed = joined.agreed
    assert agreed is not None
    agreed.refuse_other_data(_material(request).fingerprint.data_hash)
    settled = agreed.with_machine_of(request.config)
    return replace(request, config=settled), spaces.read(agreed.space, "the study", settled)


def _material(request: runs.Request) -> materials.Material:
    assert request.material is not None
    return request.material


def _final(
    found: Found,
    request: runs.Request,
    space: spaces.Space,
    config: Config,
    watcher: Watcher,
    command: str,
) -> dict[str, Any]:
    """A run with the winner's settings, in the time that is left."""
    began = clocks.monotonic()
    config = config.with_values({"seed": request.config.seed})  # the split of the trials
    later = runs.make_plan(request.dataset, config, _material(request)).config
    chosen = search.final_settings(found, request.config, later, space)
    place, config = next_free(request.folder.parent, "final"), config.with_values(chosen)
    known = Checked(request.data, request.dataset, list(request.findings))
    told = _Untold(watcher, _material(request).split.describe())
    run = train(known, place, config=config, watcher=told, command=command, began=began)
    return {"final": str(run.folder), "final_settings": chosen}


def _rates(request: runs.Request, plan: Plan, seconds: float, watcher: Watcher) -> tuple[float, float] | None:
    """Learning rates to search, from a range test; none where that says nothing, or takes much of the time."""
    speeds = [one.training_patches_per_second for one in plan.measured if one.work.model == plan.config.model]
    needed = STEPS * plan.config.training.batch_size / max(speeds, default=1e-3)
    if needed > RANGE_TEST_SHARE * seconds:
        return None
    watcher.say("raising the learning rate until the loss grows")
    found = runs.rate_range(request, plan.config, _material(request))
    if found.highest <= 10 * found.rates[0]:
        return None
    low, high = found.steepest / 10, found.highest
    watcher.say(f"learning rates from {low:.1g} to {high:.1g} are searched")
    return low, high


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
