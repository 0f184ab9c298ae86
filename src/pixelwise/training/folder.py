"""The folder of a run: what lies in it, and whether a run may begin or go on there.

It holds begun.json, findings.json, split.json, fingerprint.json, plan.json, run.json, config.yaml, history.jsonl,
last.ckpt, previous.ckpt and best.safetensors. Every one of them can be opened, and `--resume` goes on from what is
there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pixelwise import config as configs
from pixelwise import outside
from pixelwise.config import Config, FinetuneConfig, Section
from pixelwise.data.cache import hash_of_cases
from pixelwise.data.dataset import Dataset
from pixelwise.data.fingerprint import Fingerprint
from pixelwise.errors import ConfigError, DataError
from pixelwise.facts import read_facts
from pixelwise.files import previous, read_json
from pixelwise.inference.predictor import choose_device
from pixelwise.models import bundle as bundles
from pixelwise.models import encoders
from pixelwise.training import finetune, teaching
from pixelwise.training.material import Material

MAY_CHANGE = ("training.epochs", "training.time", "training.patience")
"""Settings that may differ when a run is resumed: how long it goes on."""


_FINETUNE = {f"finetune.{key}": value for key, value in FinetuneConfig().model_dump().items()}


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
    def begun(self) -> Path:
        """What was asked for: written first."""
        return self.folder / "begun.json"

    @property
    def findings(self) -> Path:
        """What the check of the data found."""
        return self.folder / "findings.json"

    @property
    def forgetting(self) -> Path:
        """What it still knows of what it started from."""
        return self.folder / "forgetting.json"

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
    def has_checkpoint(self) -> bool:
        """Whether there is a state to resume from."""
        return self.last.exists() or previous(self.last).exists()

    @property
    def best(self) -> Path:
        """The model that was best on the validation split."""
        return self.folder / bundles.BEST


def run_of(source: Path) -> Files | None:
    """The run of a model to start or to learn from: its folder is named, or the bundle in it.

    None where there is none: a bundle by itself does not know its data.
    """
    files = Files(source.parent if source.name == bundles.BEST else source)
    return files if files.run.exists() else None


def settle(
    folder: Path, config: Config, *, resume: bool = False, start_from: Path | None = None, teacher: Path | None = None
) -> Config:
    """The settings of a run that begins in a folder or goes on there; looks before any image is read.

    Raises:
        ConfigError: there is a run already, or it cannot go on with these settings; or there is no such device.
        DataError: the folder is a file, or holds no run to go on with, or what a model to start or to learn from says
            of its data is damaged.
        BundleError: there is no model to start or to learn from, or it is of no use for that.
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
    for name, setting in ((config.loss.name, "loss.name"), (config.augment.own, "augment.own")):
        if name is not None and outside.is_outside(name):
            outside.find(name, setting)
    encoders.refuse_absent(config.model.encoder)
    asked = sorted(key for key in config.given() if key.startswith("finetune.") and config.value(key) != _FINETUNE[key])
    if asked and start_from is None and not resume and config.model.encoder_weights == "none":
        raise ConfigError(
            f"'{asked[0]}' is for runs that start from another one.", remedy="Add --from RUN, or leave it out."
        )
    if start_from is not None:
        finetune.adopt_network(config, bundles.load(start_from))  # refuses what does not go together
    if teacher is not None:
        bundles.load(teacher)
        teaching.refuse_own_augmentation(config)
    for known in (run_of(source) for source in (start_from, teacher) if source is not None):
        if known is not None:
            read_facts(known.run)
    return _resumed_config(files, config) if resume else _fresh(files, config)


def _fresh(files: Files, config: Config) -> Config:
    if files.has_checkpoint or files.best.exists():
        raise ConfigError(
            "There is a run in this folder already.",
            where=files.folder,
            remedy="Go on with it by --resume, or choose another folder with --out.",
        )
    return config


def _resumed_config(files: Files, asked: Config) -> Config:
    if not files.has_checkpoint and (files.best.exists() or not files.begun.exists()):
        raise _nothing_to_resume(files)
    is_planned = files.has_checkpoint or files.config.exists()
    config = configs.load(files.config) if is_planned else read_begun(files).config
    wishes = changed(asked, config)
    for key, wish in wishes.items():
        if key not in MAY_CHANGE:
            raise ConfigError(
                f"'{key}' is {config.value(key)} in the run and cannot become {wish} when it is resumed.",
                where=files.config,
                remedy=f"Only {', '.join(MAY_CHANGE)} can; for others start a new run, with --from if you like.",
            )
    return config.with_values(wishes)


def _nothing_to_resume(files: Files) -> DataError:
    """What there is instead of a run that can go on."""
    first = Files(files.folder / "fold-0")
    if first.begun.exists():
        what = "it holds the folds of a cross-validation."
        remedy = f"Add --folds {read_begun(first).config.data.folds} to go on with them."
    elif files.best.exists():
        what, remedy = "its last.ckpt is gone.", "Start a new run, with --from this one if you like."
    else:
        what = "none was begun in this folder." if files.folder.exists() else "there is no such folder."
        remedy = "Name the run's folder with --out, or leave --resume out to begin a run."
    return DataError(f"There is no run to resume: {what}", where=files.folder, remedy=remedy)


def changed(asked: Config, known: Config) -> dict[str, Any]:
    """Settings that are given and have another value than in a run that was begun, by dotted name."""
    return {key: asked.value(key) for key in sorted(asked.given()) if asked.value(key) != known.value(key)}


class Begun(Section):
    """What a run was asked to do, before anything was planned."""

    config: Config
    """Settings that the user gave."""
    started_from: Path | None = None
    """The run or bundle whose weights it was to begin with."""
    launch: str | None = None
    """What torchrun calls the start of these processes, which stays when it starts them again."""
    teacher: Path | None = None
    """The run or bundle that it was to learn from."""
    commands: tuple[str, ...] = ()
    """What was typed to begin it, and each time that it went on."""

    def and_by(self, command: str) -> "Begun":
        """The same, gone on with by a command; torchrun gives the same one again where a process has died."""
        is_new = self.commands[-1:] != (command,)
        return self.model_copy(update={"commands": (*self.commands, command)}) if is_new else self

    def to_json(self) -> dict[str, Any]:
        """Without what is not given: the plan decides it."""
        return self.model_dump(mode="json", exclude_unset=True)


def read_begun(files: Files) -> Begun:
    """What a run was asked to do.

    Raises:
        DataError: the file is damaged.
    """
    try:
        return Begun.model_validate(read_json(files.begun))
    except ValidationError:
        raise DataError("This file is damaged.", where=files.begun, remedy="Start a new run.") from None


def refuse_other_data(files: Files, dataset: Dataset, material: Material) -> None:
    """A run goes on only with the data it began with.

    Raises:
        DataError: images, masks or their meaning differ, or the run's files are damaged.
    """
    try:
        trained_on = Fingerprint.model_validate(read_json(files.fingerprint)).data_hash
    except ValidationError:
        raise DataError(
            "The measurements of the run are damaged, or of another version of Pixelwise.",
            where=files.fingerprint,
            remedy="Start a new run, with --from this one if you like.",
        ) from None
    known = read_facts(files.run)
    begun = (trained_on, known.validation_hash, known.mask_encoding.tables)
    now = (material.fingerprint.data_hash, hash_of_cases(material.validation), dataset.encoding.tables)
    names = ("training images or masks", "validation images or masks", "values of the masks")
    other = [name for name, before, after in zip(names, begun, now, strict=True) if before != after]
    if other:
        raise DataError(
            f"The {' and the '.join(other)} are not those the run began with.",
            where=files.folder,
            remedy="Put them back, or start a new run, with --from this one if you like.",
        )
