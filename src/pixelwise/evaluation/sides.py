"""Which images an evaluation is of, and what the values of their masks mean."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixelwise.classes import IGNORE, ClassTable
from pixelwise.data.cache import Decoded, among
from pixelwise.data.dataset import SPLIT_NAMES, Case, Dataset, MaskEncoding
from pixelwise.data.folder import DATA_FILES
from pixelwise.data.split import Split
from pixelwise.errors import DataError
from pixelwise.evaluation.scores import SplitChoice
from pixelwise.facts import RunFacts

_UNLISTED = {"values": 0, "colors": 0, "instances": 2, "union": 2}
"""So many of the first classes a kind of mask has without an entry in a table; 1, the background, if not said here."""


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

    Classes that have names go by these; only names of a list that lay beside the masks give way where the model has
    none, for it may have been trained before there was a list. Without names, masks that the run's table covers are
    read as in the run: one folder may lack a class that another has. Others are read by what was found in them, if
    that gives the model's classes.

    Args:
        dataset: as found.
        said: what is known of the run; none for a bundle.
        classes: the model's.

    Raises:
        DataError: the classes are others, or it is not clear which of the model's they are.
    """
    found = dataset.encoding
    if dataset.named and not (dataset.listed and _are_made_up(classes)):
        return replace(dataset, classes=classes, encoding=_by_name(dataset, classes))
    if said is not None and said.mask_encoding.kind == found.kind:
        _refuse_contradiction(said.mask_encoding, dataset)
        if all(new.keys() <= old.keys() for old, new in _tables(said.mask_encoding, found)):
            encoding = said.mask_encoding
            if encoding.other is None and found.other == IGNORE:  # a few stray values, which a notice of the data names
                encoding = encoding.model_copy(update={"other": IGNORE})
            return replace(
                dataset, encoding=encoding, classes=classes, notices=(*dataset.notices, *_told_list(dataset))
            )
    if dataset.named:
        return replace(dataset, classes=classes, encoding=_by_name(dataset, classes))
    # several colours get numbers by how frequent they are: equal names of such classes mean nothing
    if dataset.classes.names == classes.names and (found.kind != "colors" or len(classes) == 2):
        return replace(dataset, classes=classes)
    raise _other_classes(dataset, classes)


def _are_made_up(classes: ClassTable) -> bool:
    """Whether nobody has named the classes of a model."""
    return all(re.fullmatch(r"background|object|(class|value) -?\d+", name) for name in classes.names)


def _told_list(dataset: Dataset) -> list[str]:
    if not dataset.listed:
        return []
    return ["The model's classes have no names: masks are read as those of its run, whatever the list calls them."]


def _by_name(dataset: Dataset, classes: ClassTable) -> MaskEncoding:
    """How to read masks into the model's classes of the same names."""
    encoding, names = dataset.encoding, dataset.classes.names
    table = {index: classes.names.index(name) for index, name in enumerate(names) if name in classes.names}
    table[IGNORE] = IGNORE
    listed = {*encoding.values.values(), *encoding.colors.values(), *encoding.labels.values()}
    listed |= {encoding.other} if encoding.other is not None else set()
    unlisted = range(_UNLISTED.get(encoding.kind, 1))
    if not listed <= table.keys() or any(table.get(index) != index for index in unlisted):
        raise _other_classes(dataset, classes)
    return encoding.model_copy(
        update={
            "values": {value: table[index] for value, index in encoding.values.items()},
            "colors": {color: table[index] for color, index in encoding.colors.items()},
            "labels": {label: table[index] for label, index in encoding.labels.items()},
            "other": None if encoding.other is None else table[encoding.other],
        }
    )


def _other_classes(dataset: Dataset, classes: ClassTable) -> DataError:
    return DataError(
        f"These masks ({dataset.encoding.description}) have the classes {', '.join(dataset.classes.names)}; "
        f"the model knows {', '.join(classes.names)}.",
        where=dataset.root,
        remedy="Say in a data.yaml which classes these are, by the names that the model has for them.",
    )


def _refuse_contradiction(known: MaskEncoding, dataset: Dataset) -> None:
    """What is ignored on one side and a class on the other could be either."""
    for old, new in _tables(known, dataset.encoding):
        either = [key for key in new if key in old and (new[key] == IGNORE) != (old[key] == IGNORE)]
        if either:
            here, there = ("ignored", "a class") if new[either[0]] == IGNORE else ("a class", "ignored")
            raise DataError(
                f"{either[0]} is {here} in these masks ({dataset.encoding.description}) and {there} in those of the "
                f"run ({known.description}).",
                where=dataset.root,
                remedy="Say in a data.yaml what each value is, by the names that the model has for its classes: "
                "`values: {0: NAME, 255: ignore}`.",
            )


def _tables(known: MaskEncoding, found: MaskEncoding) -> tuple[tuple[Mapping[Any, int], Mapping[Any, int]], ...]:
    return (known.values, found.values), (known.colors, found.colors), (known.labels, found.labels)


@dataclass(frozen=True)
class Seen:
    """How many of the images that were scored the model has seen in training."""

    count: int | None
    """None where it is not known."""
    images: int
    """All that were scored."""
    by: tuple[str, ...] = ("this model",)
    """What was trained: the model, what it started from, and its teacher."""

    @classmethod
    def of(cls, cases: Sequence[Decoded], said: RunFacts | None) -> "Seen":
        """Images that have the pixels of one that was trained on."""
        if said is None:
            return cls(None, len(cases))
        sources = {"what it started from": said.started_from, "its teacher": said.teacher}
        by = ("this model", *(f"{role} ({source})" for role, source in sources.items() if source is not None))
        if said.training_images is None:
            return cls(None, len(cases), by)
        return cls(len(among(cases, said.training_images)), len(cases), by)

    def caution(self) -> str:
        """Why the scores may be too good, in a sentence; nothing where the model has seen no image."""
        by = " or ".join(self.by)
        if self.count is None:
            return f"it is not known which images {by} was trained on; on those, scores would be too good"
        if self.count:
            return f"{self.count} of these {self.images} images were trained on, by {by}: the scores are too good"
        return ""


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
    if split == "all":
        return dataset.cases, "all"
    if sides is not None:
        name = split or ("test" if sides.test else "validation")
        chosen: Sequence[Case] = sides.side(name)
        there = [side for side in SPLIT_NAMES if sides.side(side)]
        remedy = f"Use --split {' or '.join(there)}."
    else:
        name = split or "test"
        chosen = [case for case in dataset.cases if case.split == name]
        remedy = "Use --split all."
        if split is None and not chosen:
            return dataset.cases, "all"
    if not chosen:
        raise DataError(f"There are no {name} images in this data.", where=dataset.root, remedy=remedy)
    return chosen, name
