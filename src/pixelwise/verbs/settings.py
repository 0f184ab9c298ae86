"""Settings of a run, and where it lies."""

import os
from collections.abc import Iterable
from pathlib import Path

from pixelwise import config as configs
from pixelwise.config import Config
from pixelwise.data import folder as folders
from pixelwise.errors import ConfigError
from pixelwise.files import cannot_write
from pixelwise.training import processes

_ENDS = ("training", "training.time", "training.epochs")
"""Settings that say when a run ends, or hold one that does."""


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
        DataError: the file is missing or cannot be read.
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
    config = with_budget(config, time, epochs)
    return config if seed is None else config.with_values({"seed": seed})


def with_budget(config: Config, time: str | float | None, epochs: int | None) -> Config:
    """The same settings with another end: by time or by epochs, and then not by both."""
    if time is not None:
        return config.with_values({"training.time": time, "training.epochs": None})
    if epochs is not None:
        return config.with_values({"training.epochs": epochs, "training.time": None})
    return config


def name_of(data: Path) -> str:
    """What runs on this data are called."""
    is_described = data.suffix in {".yaml", ".yml"}
    if is_described and data.name not in folders.DATA_FILES:
        return data.stem.replace(" ", "_")
    return (data.parent if is_described else data).resolve().name.replace(" ", "_") or "run"


def next_free(parent: Path, name: str) -> Path:
    """NAME-1 below a folder, or the next number that no file or folder has."""
    number = 1
    while os.path.lexists(parent / f"{name}-{number}"):
        number += 1
    return parent / f"{name}-{number}"


def new_run_folder(data: Path) -> Path:
    """Create runs/NAME-1, or the next number that is free; NAME is that of the data.

    Raises:
        DataError: it cannot be created.
    """
    folder = next_free(Path("runs"), name_of(data))
    try:
        folder.mkdir(parents=True)
    except FileExistsError:  # another run has created it this very moment
        return new_run_folder(data)
    except OSError as error:
        raise cannot_write(folder, error) from None
    return folder


def agree_on_folder(data: Path, config: Config) -> Path:
    """A new folder, which the first process creates for all."""
    fabric = processes.join(config)
    return fabric.broadcast(new_run_folder(data) if fabric.is_global_zero else data)


def new_search_folder(data: Path) -> Path:
    """runs/NAME-tune-1, or the next number that is free."""
    return next_free(Path("runs"), f"{name_of(data)}-tune")
