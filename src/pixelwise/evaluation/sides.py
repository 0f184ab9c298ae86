"""Which images an evaluation is of, and what the values of their masks mean."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pixelwise.classes import ClassTable
from pixelwise.data.dataset import Case, Dataset, MaskEncoding
from pixelwise.data.folder import DATA_FILES
from pixelwise.data.split import Split
from pixelwise.errors import DataError
from pixelwise.evaluation.saved import RunFacts

SplitChoice = Literal["train", "validation", "test", "all"]


def is_data_of(said: RunFacts, data: Path) -> bool:
    """Whether a folder, or the data.yaml in it, is what a run was trained on."""
    return _described(Path(said.data)) == _described(data.resolve())


def _described(path: Path) -> Path:
    return path.parent if path.name in DATA_FILES else path


def as_trained(dataset: Dataset, said: RunFacts, classes: ClassTable) -> Dataset:
    """The run's own data: one image more or less must not change what the values of masks mean."""
    return replace(dataset, encoding=said.mask_encoding, classes=classes)


def for_model(dataset: Dataset, said: RunFacts | None, classes: ClassTable) -> Dataset:
    """Other data than the model was trained on, with masks in the model's classes.

    Masks that the run's table covers are read as in the run: one folder may lack a class that another has. Others
    are read by what was found in them, and their classes must be the model's.

    Args:
        dataset: as found.
        said: what is known of the run; none for a bundle.
        classes: the model's.

    Raises:
        DataError: the classes are others, or stand in another order.
    """
    found = dataset.classes.names
    reordered = found != classes.names and sorted(found) == sorted(classes.names)
    if said is not None and _covers(said.mask_encoding, dataset.encoding) and not reordered:
        return as_trained(dataset, said, classes)
    if found == classes.names:
        return replace(dataset, classes=classes)
    raise DataError(
        f"These masks ({dataset.encoding.description}) have the classes {', '.join(found)}; "
        f"the model knows {', '.join(classes.names)}.",
        where=dataset.root,
        remedy="Give the classes the names and the order of the model in a data.yaml.",
    )


def _covers(known: MaskEncoding, found: MaskEncoding) -> bool:
    """Whether the masks are of the same kind, and hold nothing that the known table does not."""
    tables = ((known.values, found.values), (known.colors, found.colors), (known.labels, found.labels))
    return known.kind == found.kind and all(new.keys() <= old.keys() for old, new in tables)


def choose(dataset: Dataset, split: SplitChoice | None, sides: Split | None) -> tuple[Sequence[Case], SplitChoice]:
    """The cases to score, and the name of their side.

    Args:
        dataset: whose cases to choose from.
        split: the side that was asked for. None takes the test side; where there is none, the validation side of the
            run's own data, all images of others.
        sides: of the run; none for other data, of which only the folder can give sides.

    Raises:
        DataError: there is no such side.
    """
    labelled = [case for case in dataset.cases if case.masks]
    if split == "all":
        return labelled, "all"
    if sides is not None:
        name = split or ("test" if sides.test else "validation")
        chosen: Sequence[Case] = sides.side(name)
        remedy = "Use --split validation."
    else:
        name = split or "test"
        chosen = [case for case in labelled if case.split == name]
        remedy = "Use --split all."
        if split is None and not chosen:
            return labelled, "all"
    if not chosen:
        raise DataError(f"There are no {name} images in this data.", where=dataset.root, remedy=remedy)
    return chosen, name
