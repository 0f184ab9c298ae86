"""Runs, their models, and their scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pixelwise import config as configs
from pixelwise.config import Config, Flips
from pixelwise.data import folder as folders
from pixelwise.data.cache import Cache, Decoded, default_folder, with_channels
from pixelwise.data.dataset import Case, Dataset
from pixelwise.errors import ConfigError
from pixelwise.evaluation import results, saved, sides
from pixelwise.evaluation.compare import Comparison
from pixelwise.evaluation.compare import compare as lay_side_by_side
from pixelwise.evaluation.evaluate import evaluate as evaluate_cases
from pixelwise.evaluation.results import Background
from pixelwise.evaluation.scores import Evaluation, SplitChoice
from pixelwise.inference import int8, predictor
from pixelwise.inference.predictor import Model
from pixelwise.training import run as runs
from pixelwise.training.folder import Files
from pixelwise.training.watch import Watcher


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
    model = seen_from(run if isinstance(run, Model) else load(run, device), flips)
    said = saved.read_facts(files.run) if files is not None else None
    own = files if said is not None and (data is None or sides.is_data_of(said, Path(data))) else None
    dataset = dataset_to_score(model, said, None if own else data)
    cases, side = sides.choose(dataset, split, saved.read_split(own.split, dataset) if own else None)
    settled = configs.load(files.config) if files else Config()
    cache = Cache(settled.data.cache or default_folder(), dataset)
    decoded = open_cases(cache, cases, model, watcher)
    seen = sides.count_seen(decoded, said)
    if seen is None and own is None:
        watcher.say("note: it is not known which images this model was trained on; on those, scores would be too good")
    elif seen and side != "train":
        watcher.say(f"warning: {seen} of these {len(decoded)} images were trained on, so that the scores are too good")
    tolerance = tolerance_px if tolerance_px is not None else settled.evaluation.tolerance_px
    say_if_ensemble(model, watcher)
    evaluated = evaluate_cases(model, decoded, side, tolerance, partial(watcher.work, f"predicting {side} images"))
    if out is not None:
        results.write(Path(out), evaluated, background(own, dataset, command, seen))
    return evaluated.scores


def say_if_ensemble(model: Model, watcher: Watcher) -> None:
    """So many networks take so much longer than one."""
    if model.description.members > 1:
        watcher.say(f"this model is an ensemble of {model.description.members} networks")


def compare(runs: Sequence[Path | str]) -> Comparison:
    """Lay runs side by side: scores, and the settings that differ.

    Args:
        runs: folders, at least two.

    Raises:
        ConfigError: there are fewer than two.
        DataError: a folder is not that of a finished run.
    """
    return lay_side_by_side([Path(folder) for folder in runs])


def score_lines(scores: Evaluation) -> list[str]:
    """Headline and scores per class, a line each."""
    return results.score_lines(scores)


def evaluate_run(trained: runs.Trained, watcher: Watcher, command: str) -> None:
    """Score a run that has just ended, on its test side or else its validation side, and write scores and report."""
    files = Files(trained.folder)
    model = load(files.best, configs.load(files.config).device)
    cases, side = sides.choose(trained.cache.dataset, None, trained.split)
    decoded = open_cases(trained.cache, cases, model, Watcher())
    tolerance = configs.load(files.config).evaluation.tolerance_px
    evaluated = evaluate_cases(model, decoded, side, tolerance, partial(watcher.work, f"predicting {side} images"))
    seen = sides.count_seen(decoded, saved.read_facts(files.run))
    results.write(trained.folder, evaluated, background(files, trained.cache.dataset, command, seen))


def open_cases(cache: Cache, cases: Sequence[Case], model: Model, watcher: Watcher) -> list[Decoded]:
    """Cases with the channels of the model."""
    decoded = cache.open_all(cases, progress=partial(watcher.work, "reading images"))
    return [with_channels(case, model.description.preprocessing.channels) for case in decoded]


def background(files: Files | None, dataset: Dataset, command: str, seen: int | None) -> Background:
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


def dataset_to_score(model: Model, said: saved.RunFacts | None, data: Path | str | None) -> Dataset:
    """Other data, or the run's own if none are named."""
    if data is not None:
        return sides.for_model(folders.scan(Path(data)), said, model.classes)
    if said is None:
        raise ConfigError("A bundle does not know its data.", remedy="Name the folder of images and masks to score.")
    return sides.as_trained(folders.scan(Path(said.data)), said, model.classes)


def seen_from(model: Model, flips: Flips | None) -> Model:
    """The model with the views that it shall average over; none are those that it was told."""
    if flips is None:
        return model
    return model.with_prediction(model.description.prediction.model_copy(update={"flips": flips}))
