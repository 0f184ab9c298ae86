"""The models that a run starts or learns from, and the images that these have seen."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pixelwise.data.dataset import SplitName
from pixelwise.data.finding import Finding
from pixelwise.facts import read_facts
from pixelwise.training.folder import run_of
from pixelwise.training.material import Material

_OWN_SPLIT = (
    "Train on the split of that run (the same --seed, fractions and data.folds; for an ensemble of folds that of one, "
    "such as --set data.folds=5 --set data.fold=0), or give a test side that is new to it."
)


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
    found = _of_side(scored, called, frozenset(seen), material)
    if scored == "test":
        found += _of_side("validation", called, frozenset(seen), material)
    return found


def _of_side(side: SplitName, called: str, seen: frozenset[str], material: Material) -> list[Finding]:
    cases = [material.cache.open(case) for case in material.split.side(side)]
    known = tuple(case.case.image for case in cases if case.digest in seen and not case.is_constant)
    if not known:
        return []
    what = f"{len(known)} of the {len(cases)} {side} images were trained on by {called}."
    if side == "validation" and material.split.test:
        cause = "The best state is chosen by their scores, which will be too good."
        return [Finding("notice", what, known, cause, "Do not compare validation scores with those of other runs.")]
    return [Finding("warning", what, known, "The scores of this run will be too good.", _OWN_SPLIT)]
