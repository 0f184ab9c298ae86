"""What a user can do with Pixelwise, one function each; the command line calls these and nothing else."""

from pixelwise.verbs.after import Refined, quantise, refine
from pixelwise.verbs.data import check, describe, fix, preview
from pixelwise.verbs.folds import Folds, train_folds
from pixelwise.verbs.measure import bench
from pixelwise.verbs.networks import networks, unet
from pixelwise.verbs.predict import predict_files
from pixelwise.verbs.runs import Run, load
from pixelwise.verbs.scores import compare, evaluate, score_lines
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
