"""What a user can do with Pixelwise, one function each; the command line calls these and nothing else."""

from pixelwise import config as configs
from pixelwise.models.unet import UNet, build
from pixelwise.verbs.after import Refined, quantise, refine
from pixelwise.verbs.data import check, describe, fix, preview
from pixelwise.verbs.folds import Folds, train_folds
from pixelwise.verbs.measure import bench, networks
from pixelwise.verbs.predict import predict_files
from pixelwise.verbs.scores import Run, compare, evaluate, load, score_lines
from pixelwise.verbs.settings import new_run_folder, new_search_folder, next_free, settings
from pixelwise.verbs.train import train
from pixelwise.verbs.tune import Tuning, tune

__all__ = [
    "Folds",
    "Refined",
    "Run",
    "Tuning",
    "bench",
    "check",
    "compare",
    "describe",
    "evaluate",
    "fix",
    "load",
    "networks",
    "new_run_folder",
    "new_search_folder",
    "next_free",
    "predict_files",
    "preview",
    "quantise",
    "refine",
    "score_lines",
    "settings",
    "train",
    "train_folds",
    "tune",
    "unet",
]


def unet(config: configs.ModelConfig | None = None, *, channels: int = 3, classes: int = 2) -> UNet:
    """A U-Net as a plain torch module, from images B C H W to logits B K H W, with He's initialisation.

    Args:
        config: width, depth, normalisation ...; `pixelwise.config.SIZES` has named ones.
        channels: C of the images.
        classes: K of the logits.
    """
    return build(config or configs.ModelConfig(), channels, classes)
