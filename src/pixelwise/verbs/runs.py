"""Runs and bundles, and the images that belong to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pixelwise import config as configs
from pixelwise.config import Config
from pixelwise.data import folder as folders
from pixelwise.data.cache import Cache, Decoded, with_channels
from pixelwise.data.dataset import Case, Dataset
from pixelwise.data.split import Split
from pixelwise.errors import BundleError, ConfigError, DataError
from pixelwise.evaluation import saved, sides
from pixelwise.evaluation.scores import Evaluation
from pixelwise.facts import RunFacts, read_facts
from pixelwise.inference import int8, predictor
from pixelwise.inference.predictor import Model
from pixelwise.models import bundle as bundles
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
    kept_seconds: float = 0.0
    """Of its time budget, for joining the folds that it is one of."""

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
class Finished:
    """A run that has ended, opened with its model and its data."""

    files: Files
    config: Config
    model: Model
    dataset: Dataset
    split: Split
    cache: Cache

    @classmethod
    def open(cls, run: Path | str, device: str | None = None) -> "Finished":
        """The run in a folder; its model goes to the device of its settings if none is named.

        Raises:
            BundleError: there is no model, or the model alone is named.
            DataError: the folder is not that of a run, or its images are gone.
        """
        files = Files(Path(run))
        if bundles.find(files.folder) == files.folder:
            raise BundleError(
                "A model by itself does not know its data.", where=run, remedy="Name the folder of its run."
            )
        said = read_facts(files.run)
        config = configs.load(files.config)
        model = load(run, device or config.device)
        dataset = dataset_to_score(model, said, None)
        return cls(files, config, model, dataset, saved.read_split(files.split, dataset), Cache.of(config, dataset))

    def cases(self, chosen: Sequence[Case], watcher: Watcher) -> list[Decoded]:
        """Some of its images with masks."""
        return open_cases(self.cache, chosen, self.model, watcher)


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


def say_if_ensemble(model: Model, watcher: Watcher) -> None:
    """So many networks take so much longer than one."""
    if model.description.members > 1:
        watcher.say(f"this model is an ensemble of {model.description.members} networks")


def open_cases(cache: Cache, cases: Sequence[Case], model: Model, watcher: Watcher) -> list[Decoded]:
    """Cases with the channels of the model."""
    decoded = cache.open_all(cases, progress=partial(watcher.work, "reading images"))
    return [with_channels(case, model.description.preprocessing.channels) for case in decoded]


def dataset_to_score(model: Model, said: RunFacts | None, data: Path | str | None) -> Dataset:
    """Other data, or the run's own if none are named."""
    if data is not None:
        slices = model.description.preprocessing.slices
        found = folders.scan(Path(data), slices)
        if found.slices != slices:
            raise DataError(
                f"The model takes slices across axis {slices}, and this data says {found.slices}."
                if slices is not None
                else "The model takes slices by the spacing of voxels, and this data says 'slices'.",
                where=data,
                remedy="Leave 'slices' out of the data.yaml, or make it that of the model.",
            )
        return sides.for_model(found, said, model.classes)
    if said is None:
        raise ConfigError("A bundle does not know its data.", remedy="Name the folder of images and masks to score.")
    return sides.as_trained(folders.scan(Path(said.data)), said, model.classes)
