"""The models that a run starts or learns from, and the images that these have seen."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from pixelwise import config as configs
from pixelwise.config import Config
from pixelwise.data.cache import among
from pixelwise.data.dataset import SplitName
from pixelwise.data.finding import Finding
from pixelwise.facts import read_facts
from pixelwise.training.folder import run_of
from pixelwise.training.material import Material

_OF_SPLIT = ("data.validation_fraction", "data.test_fraction", "data.folds", "data.fold")
"""Settings that say how images are dealt to the sides, beside the seed."""


def all_seen(material: Material, sources: Iterable[Path]) -> list[str] | None:
    """Digests of the images that a network is trained on, and of those that what it starts or learns from was.

    None where that is not known.
    """
    seen = [case.digest for case in material.train]
    for source in sources:
        theirs = training_images(source)
        if theirs is None:
            return None
        seen += theirs
    return list(dict.fromkeys(seen))


def training_images(source: Path) -> tuple[str, ...] | None:
    """Digests of the images that a model was trained on.

    None where that is not known: a bundle by itself does not say it, the run that it lies in does.

    Raises:
        DataError: what the run says of itself is damaged.
    """
    known = run_of(source)
    return read_facts(known.run).training_images if known is not None else None


def findings(sources: Mapping[str, Path], material: Material) -> list[Finding]:
    """Which images that the run is judged by are known to what it starts or learns from.

    Args:
        sources: the models, by what they are to the run.
        material: the data of the run.
    """
    return [finding for role, source in sources.items() for finding in _of_source(f"{role} {source}", source, material)]


def _of_source(called: str, source: Path, material: Material) -> list[Finding]:
    seen = training_images(source)
    if seen is None:
        return [
            Finding(
                "notice",
                f"It is not known which images {called} was trained on.",
                (),
                "If images of the test side are among them, the scores will be too good.",
                "Name the folder of its run, which says it.",
            )
        ]
    scored: SplitName = "test" if material.split.test else "validation"
    found = []
    what, known = _known(scored, called, seen, material)
    if known:
        too_good = "The scores of this run will be too good."
        found.append(Finding("warning", what, known, too_good, _own_split(source)))
    what, known = _known("validation", called, seen, material) if scored == "test" else ("", ())
    if known:
        cause = "The best state is chosen by their scores, which will be too good."
        found.append(
            Finding("notice", what, known, cause, "Do not compare validation scores with those of other runs.")
        )
    return found


def _known(side: SplitName, called: str, seen: Collection[str], material: Material) -> tuple[str, tuple[Path, ...]]:
    """How many images of a side were seen, in a sentence, and their files."""
    cases = material.split.side(side)
    known = among(map(material.cache.open, cases), seen)
    what = f"{len(known)} of the {len(cases)} {side} images were trained on by {called}."
    return what, tuple(case.case.image for case in known)


def _own_split(source: Path) -> str:
    """How to train on the split of a source, in the words of its run."""
    known = run_of(source)
    config = configs.load(known.config) if known is not None and known.config.exists() else None
    usual = Config()
    said = "the same --seed, fractions and data.folds"
    if config is not None:
        differing = (key for key in _OF_SPLIT if config.value(key) != usual.value(key))
        said = " ".join([f"--seed {config.seed}", *(f"--set {key}={config.value(key)}" for key in differing)])
    return f"Train on the split of that run ({said}), or give a test side that is new to it."
