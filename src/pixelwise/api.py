"""What a user can do with Pixelwise, one function each; the command line calls these and nothing else."""

from typing import TYPE_CHECKING, Any

from pixelwise.lazy import attribute

if TYPE_CHECKING:
    from pixelwise.verbs.after import Refined, quantise, refine
    from pixelwise.verbs.data import check, describe, fix
    from pixelwise.verbs.folds import Folds, train_folds
    from pixelwise.verbs.measure import bench
    from pixelwise.verbs.networks import networks, unet
    from pixelwise.verbs.predict import predict_files
    from pixelwise.verbs.preview import preview
    from pixelwise.verbs.runs import Run, load
    from pixelwise.verbs.scores import compare, evaluate, score_lines
    from pixelwise.verbs.settings import new_run_folder, new_search_folder, next_free, settings
    from pixelwise.verbs.train import train
    from pixelwise.verbs.tune import Tuning, tune

# Where each of them lives: what a verb needs is imported when it is first used, and training needs most.
_HOMES = {
    "pixelwise.verbs.after": ("Refined", "quantise", "refine"),
    "pixelwise.verbs.data": ("check", "describe", "fix"),
    "pixelwise.verbs.folds": ("Folds", "train_folds"),
    "pixelwise.verbs.measure": ("bench",),
    "pixelwise.verbs.networks": ("networks", "unet"),
    "pixelwise.verbs.predict": ("predict_files",),
    "pixelwise.verbs.preview": ("preview",),
    "pixelwise.verbs.runs": ("Run", "load"),
    "pixelwise.verbs.scores": ("compare", "evaluate", "score_lines"),
    "pixelwise.verbs.settings": ("new_run_folder", "new_search_folder", "next_free", "settings"),
    "pixelwise.verbs.train": ("train",),
    "pixelwise.verbs.tune": ("Tuning", "tune"),
}

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


def __getattr__(name: str) -> Any:
    return attribute(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return __all__
