"""Pixelwise: semantic segmentation with U-Net, from a folder of images and masks to a model that can be trusted.

import pixelwise

run = pixelwise.train("data/", out="runs/first", time="15m")
model = pixelwise.load("runs/first")
mask = model.predict(image).mask
"""

from typing import TYPE_CHECKING, Any

from pixelwise.lazy import attribute

if TYPE_CHECKING:
    from pixelwise.api import (
        Run,
        check,
        compare,
        evaluate,
        fix,
        load,
        predict_files,
        preview,
        quantise,
        refine,
        settings,
        train,
        train_folds,
        tune,
        unet,
    )
    from pixelwise.config import Config, ModelConfig
    from pixelwise.errors import BundleError, ConfigError, DataError, MachineError, PixelwiseError, TrainingError
    from pixelwise.inference.predictor import Model, Prediction
    from pixelwise.metrics import Scores
    from pixelwise.models.unet import UNet

# Where each public name lives: torch is imported when one of them is first used, not by `import pixelwise`.
_HOMES = {
    "pixelwise.api": (
        "Run",
        "check",
        "compare",
        "evaluate",
        "fix",
        "load",
        "predict_files",
        "preview",
        "quantise",
        "refine",
        "settings",
        "train",
        "train_folds",
        "tune",
        "unet",
    ),
    "pixelwise.config": ("Config", "ModelConfig"),
    "pixelwise.errors": (
        "BundleError",
        "ConfigError",
        "DataError",
        "MachineError",
        "PixelwiseError",
        "TrainingError",
    ),
    "pixelwise.inference.predictor": ("Model", "Prediction"),
    "pixelwise.metrics": ("Scores",),
    "pixelwise.models.unet": ("UNet",),
}

__all__ = [  # noqa: RUF022  in the order of _HOMES
    "Run", "check", "compare", "evaluate", "fix", "load", "predict_files", "preview", "quantise", "refine",
    "settings", "train", "train_folds", "tune", "unet",
    "Config", "ModelConfig", "BundleError", "ConfigError", "DataError", "MachineError", "PixelwiseError",
    "TrainingError",
    "Model", "Prediction", "Scores", "UNet",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    return attribute(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return __all__
