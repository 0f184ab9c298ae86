"""Cross-validation: as many models as folds, and an ensemble of them."""

import contextlib
import time as clocks
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pixelwise import config as configs
from pixelwise import launcher
from pixelwise.config import Config
from pixelwise.data.cache import Cache
from pixelwise.data.split import Split
from pixelwise.errors import ConfigError, DataError, PixelwiseError
from pixelwise.evaluation import results, saved
from pixelwise.evaluation.evaluate import evaluate_each
from pixelwise.evaluation.scores import Evaluation
from pixelwise.evaluation.sides import Seen
from pixelwise.facts import RunFacts, read_facts
from pixelwise.files import make_folder, read_json, write_atomically, write_json
from pixelwise.inference import predictor
from pixelwise.models import bundle as bundles
from pixelwise.training.folder import MAY_CHANGE, Files, changed
from pixelwise.training.watch import Watcher
from pixelwise.verbs.data import Checked, checked
from pixelwise.verbs.runs import Run, dataset_to_score, open_cases
from pixelwise.verbs.scores import background, evaluate
from pixelwise.verbs.settings import name_of, next_free, with_budget
from pixelwise.verbs.train import train

DONE = "fold-done.json"
"""Beside a fold that was trained to its end."""


@dataclass(frozen=True)
class Folds:
    """The folder of a cross-validation, which holds an ensemble of all its models as a run holds its model."""

    run: Run
    """Of the ensemble; where the search was interrupted, of the fold that was trained."""
    out_of_fold: Evaluation | None
    """Every image by the model that has not seen it; none if not all folds were trained."""


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
        DataError: the data cannot be trained on, there are fewer images than folds, or no folds to resume.
        ConfigError: a setting is not possible, or there is something in the folder already.
    """
    watcher, started = watcher or Watcher(), began if began is not None else clocks.monotonic()
    asked = with_budget(config or Config(), time, None).with_values({"data.folds": folds})
    launcher.refuse_several("Folds are trained", "set data.folds and data.fold, and start each fold by itself")
    place = Path(out) if out is not None else next_free(Path("runs"), f"{name_of(Path(data))}-folds")
    _refuse_other_folds(place, asked, resume=resume)
    end = started + asked.training.time if asked.training.time is not None else None
    runs_of: list[Run] = []
    known: Checked | None = None
    for fold in range(folds):
        files = Files(place / f"fold-{fold}")
        if _is_done(files):
            runs_of.append(Run(files.folder, kept_seconds=read_json(files.folder / DONE).get("kept_seconds", 0.0)))
            continue
        known = known or checked(data, watcher)
        watcher.say(f"fold {fold + 1} of {folds}, in {files.folder.name}")
        settled = configs.load(runs_of[0].folder / "config.yaml") if runs_of else asked
        now = clocks.monotonic()
        values: dict[str, float] = {"data.fold": fold}
        if end is not None:
            kept_seconds = sum(run.kept_seconds for run in runs_of)
            values["training.time"] = round(max(1.0, (end - kept_seconds - now) / (folds - fold)), 1)
        goes_on = resume and files.begun.exists()
        fresh, rest = settled.with_values(values), with_budget(Config(), values.get("training.time"), None)
        chosen = rest if goes_on else fresh  # what was begun has its settings
        try:
            run = train(
                known, files.folder, config=chosen, resume=goes_on, watcher=watcher, command=command, one_of=folds
            )
        except PixelwiseError:
            with contextlib.suppress(OSError):  # there is something in it
                place.rmdir()
            raise
        runs_of.append(run)
        if run.interrupted:
            return Folds(run, None)
        write_json(files.folder / DONE, {"folds": folds, "kept_seconds": round(run.kept_seconds, 1)})
    return _join_folds(place, runs_of, watcher, command)


def _is_done(files: Files) -> bool:
    """Whether a fold was trained to its end; scores it has in any case."""
    return (files.folder / DONE).exists()


def _refuse_other_folds(place: Path, asked: Config, *, resume: bool) -> None:
    """Folds begin where nothing is, and go on with the settings that they began with."""
    first = Files(place / "fold-0")
    if Files(place).has_checkpoint or Files(place).begun.exists():
        raise ConfigError("There is a run in this folder.", where=place, remedy="Choose another one with --out.")
    if not resume and (first.begun.exists() or Files(place).best.exists()):
        raise ConfigError("There are folds in this folder already.", where=place, remedy="Go on by --resume.")
    if resume and not first.begun.exists():
        what = "none were begun in this folder" if place.exists() else "there is no such folder"
        raise DataError(
            f"There are no folds to resume: {what}.",
            where=place,
            remedy="Name their folder with --out, or leave --resume out to begin.",
        )
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


def _seen_by_any(said: Sequence[RunFacts]) -> tuple[str, ...] | None:
    """Digests of the images that folds were trained on; none where one of them does not say it."""
    seen = [one.training_images for one in said]
    known = [digests for digests in seen if digests is not None]
    return tuple(dict.fromkeys(digest for digests in known for digest in digests)) if len(known) == len(seen) else None


def _join_folds(place: Path, runs_of: Sequence[Run], watcher: Watcher, command: str) -> Folds:
    """The ensemble as a run of its own, and the scores of every image by the model that has not seen it."""
    files, first = Files(make_folder(place)), Files(runs_of[0].folder)
    said = [read_facts(Files(run.folder).run) for run in runs_of]
    settled = configs.load(first.config)
    loaded = [bundles.load(run.folder) for run in runs_of]
    models = [predictor.of_bundle(bundle, settled.device) for bundle in loaded]
    dataset = dataset_to_score(models[0], said[0], None)
    sides_of = [saved.read_split(Files(run.folder).split, dataset) for run in runs_of]
    if len({side.test for side in sides_of}) > 1:
        raise DataError(
            "The folds have different test sides: images were added or taken away in between.",
            where=place,
            remedy="Train all folds again, in another folder.",
        )
    bundles.save(bundles.joined(loaded), files.best)
    write_json(files.run, said[0].model_copy(update={"training_images": _seen_by_any(said)}).model_dump(mode="json"))
    reasons = (f"All {len(runs_of)} folds train the ensemble.", *sides_of[0].reasons)
    everything = (*sides_of[0].train, *sides_of[0].validation)
    write_json(files.split, Split(everything, (), sides_of[0].test, reasons).to_json())
    for name in ("plan", "findings", "config"):
        source: Path = getattr(first, name)
        if source.exists():
            write_atomically(getattr(files, name), source.read_bytes())
    cache = Cache.of(settled, dataset)
    pairs = [
        (model, case)
        for model, side in zip(models, sides_of, strict=True)
        for case in open_cases(cache, side.validation, model, Watcher())
    ]
    told = partial(watcher.work, "predicting images by the models that have not seen them")
    out_of_fold = evaluate_each(pairs, "out-of-fold", settled.evaluation.tolerance_px, told)
    unseen = background(files, dataset, command, Seen(0, len(pairs)))
    results.write(place / "out-of-fold", out_of_fold, unseen)
    if sides_of[0].test:
        evaluate(place, device=settled.device, out=place, watcher=watcher, command=command)
    else:
        results.write(place, out_of_fold, unseen)
    return Folds(Run(place), out_of_fold.scores)
