"""Scores of runs and models, alone and beside each other."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pixelwise import config as configs
from pixelwise.config import Config, Flips
from pixelwise.data.cache import Cache
from pixelwise.data.dataset import Dataset
from pixelwise.errors import DataError
from pixelwise.evaluation import results, saved, sides
from pixelwise.evaluation.compare import Comparison
from pixelwise.evaluation.compare import compare as lay_side_by_side
from pixelwise.evaluation.evaluate import evaluate as evaluate_cases
from pixelwise.evaluation.forgetting import Forgotten
from pixelwise.evaluation.results import Background
from pixelwise.evaluation.scores import Evaluation, SplitChoice
from pixelwise.facts import read_facts
from pixelwise.files import make_folder
from pixelwise.inference.predictor import Model
from pixelwise.training import run as runs
from pixelwise.training.folder import Files
from pixelwise.training.watch import Watcher
from pixelwise.verbs.runs import dataset_to_score, load, open_cases, say_if_ensemble


def evaluate(  # noqa: PLR0913  all but two are given by name
    run: Path | str | Model,
    data: Path | str | None = None,
    *,
    split: SplitChoice | None = None,
    tolerance_px: float | None = None,
    flips: Flips | None = None,
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
        flips: as for `predict_files`.
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
    model = (run if isinstance(run, Model) else load(run, device)).with_flips(flips)
    said = read_facts(files.run) if files is not None else None
    own = files if said is not None and (data is None or sides.is_data_of(said, Path(data))) else None
    dataset = dataset_to_score(model, said, None if own else data)
    cases, side = sides.choose(dataset, split, saved.read_split(own.split, dataset) if own else None)
    settled = configs.load(files.config) if files else Config()
    cache = Cache.of(settled, dataset)
    decoded = open_cases(cache, cases, model, watcher)
    for notice in dataset.notices if own is None else ():
        watcher.say(notice)
    seen = sides.Seen.of(decoded, said)
    if side != "train":
        _tell_caution(seen, watcher)
    if out is not None:
        make_folder(Path(out))  # what cannot be written is said before anything is predicted
    tolerance = tolerance_px if tolerance_px is not None else settled.evaluation.tolerance_px
    say_if_ensemble(model, watcher)
    evaluated = evaluate_cases(model, decoded, side, tolerance, partial(watcher.work, f"predicting {side} images"))
    if out is not None:
        if (Path(out) / "scores.json").exists() and (files is None or Path(out).resolve() != files.folder.resolve()):
            watcher.say(f"note: the earlier scores and report in {out} are replaced")
        forgotten = _known_forgotten(own, watcher)
        place = "" if isinstance(run, Model) else str(Path(run).resolve())
        told = replace(background(own, dataset, command, seen, forgotten), model=place)
        results.write(Path(out), evaluated, told)
    return evaluated.scores


def compare(runs: Sequence[Path | str]) -> Comparison:
    """Lay runs side by side: scores, and the settings that differ.

    Args:
        runs: folders of runs, or of evaluations of them; at least two.

    Raises:
        ConfigError: there are fewer than two.
        DataError: a folder holds no scores.
    """
    return lay_side_by_side([Path(folder) for folder in runs])


def score_lines(scores: Evaluation) -> list[str]:
    """Headline and scores per class, a line each."""
    return results.score_lines(scores)


def _tell_caution(seen: sides.Seen, watcher: Watcher) -> None:
    if seen.caution():
        watcher.say(f"{'note' if seen.count is None else 'warning'}: {seen.caution()}")


def evaluate_run(trained: runs.Trained, watcher: Watcher, command: str, forgotten: Forgotten | None) -> None:
    """Score a run that has just ended, on its test side or else its validation side, and write scores and report."""
    files = Files(trained.folder)
    settled = configs.load(files.config)
    model = load(files.best, settled.device)
    cases, side = sides.choose(trained.cache.dataset, None, trained.split)
    decoded = open_cases(trained.cache, cases, model, Watcher())
    told = partial(watcher.work, f"predicting {side} images")
    evaluated = evaluate_cases(model, decoded, side, settled.evaluation.tolerance_px, told)
    seen = sides.Seen.of(decoded, read_facts(files.run))
    _tell_caution(seen, watcher)
    results.write(trained.folder, evaluated, background(files, trained.cache.dataset, command, seen, forgotten))


def background(
    files: Files | None, dataset: Dataset, command: str, seen: sides.Seen, forgotten: Forgotten | None = None
) -> Background:
    """What to tell besides scores, of the run whose files are given or of other data."""
    if files is None:
        return Background(command, results.facts(dataset, None, seen.count), seen)
    return Background(
        command,
        results.facts(dataset, read_facts(files.run), seen.count),
        seen,
        saved.read_history(files.history),
        saved.read_decisions(files.plan),
        saved.read_findings(files.findings),
        forgotten,
        str(files.folder.resolve()),
    )


def _known_forgotten(files: Files | None, watcher: Watcher) -> Forgotten | None:
    """What was measured at the end of a run; a file that is damaged, or of another version, is as good as none."""
    try:
        return saved.read_forgotten(files.forgetting) if files is not None else None
    except DataError as error:
        watcher.say(f"note: the report does not show what was forgotten: {error}")
        return None
