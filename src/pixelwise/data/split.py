"""Which cases train the network, which choose the best state of it, and which are kept for the final scores.

**A split that the folder gives is kept.** If it gives test but no validation, or only train, what is missing is cut
from the training cases; cases that stand in no folder of a split count as training cases. Those of them that are
identical with a given validation or test case, or nearly so, or of one group with it, are left out, and the reasons
say so. If it gives validation but no test, the given validation cases choose the model and test is cut from train,
unless train would become too small for that: then there is no test set and the reasons say so. Cases that are given
to a side stay there, even if they share a group or their pixels with another side: `data.check` finds that.

**Else the split is drawn**, by seed: groups stay together (cases of one group, identical images, and images that are
nearly the same), and the classes, and how much of each an image holds, are spread by iterative stratification over
groups (Sechidis, Tsoumakas & Vlahavas, *On the stratification of multi-label data*, ECML PKDD 2011), so that rare
classes reach every side if there are enough groups, and train first.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from pixelwise.config import DataConfig
from pixelwise.data.alike import ALIKE, STRICTER, Pair, joined, linked
from pixelwise.data.dataset import SPLIT_NAMES, Case, Dataset, SplitName
from pixelwise.data.masks import shortened
from pixelwise.errors import ConfigError, DataError
from pixelwise.files import read_json

_FEWEST_TO_CUT_TEST = 5
"""Training cases below which no test set is cut beside a given validation set."""


@dataclass(frozen=True)
class Tied:
    """Cases that stay together."""

    cases: tuple[str, ...]
    because: str


@dataclass(frozen=True)
class Nearest:
    """Two cases on different sides, and how alike they are; 1 is equality (see `data.alike`)."""

    first: str
    second: str
    similarity: float


@dataclass(frozen=True)
class Split:
    """The cases of a data set on three sides, each in the order of their names."""

    train: tuple[Case, ...]
    validation: tuple[Case, ...]
    test: tuple[Case, ...]
    """Empty if `data.test_fraction` is 0, or beside a given validation set with too few training cases."""
    reasons: tuple[str, ...] = ()
    """How the split came about, one sentence each."""
    tied: tuple[Tied, ...] = ()
    """What was kept on one side, and why."""
    nearest: Nearest | None = None
    """What is most alike of all that stands on different sides: how much may have leaked."""

    def side(self, name: SplitName) -> tuple[Case, ...]:
        """The cases of one side."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def describe(self) -> str:
        """How many cases stand on each side, and how that came about."""
        sizes = ", ".join(f"{name} {len(self.side(name))}" for name in SPLIT_NAMES)
        return f"split: {sizes}. {' '.join(self.reasons)}"

    def to_json(self) -> dict[str, Any]:
        """Case names per side, the reasons, and the certificate: what was tied, and what is most alike across sides."""
        tree: dict[str, Any] = {name: [case.name for case in self.side(name)] for name in SPLIT_NAMES}
        tree["reasons"] = list(self.reasons)
        tree["tied"] = [asdict(tied) for tied in self.tied]
        tree["nearest_across_sides"] = asdict(self.nearest) if self.nearest is not None else None
        return tree

    @classmethod
    def from_json(cls, tree: object, dataset: Dataset) -> "Split":
        """The split that `to_json` has described, for the same data set.

        Raises:
            DataError: the description is damaged, or names cases that are missing or stand on two sides.
        """
        names = _names_in(tree)
        known = {case.name: case for case in dataset.cases}
        listed = [name for side in SPLIT_NAMES for name in names[side]]
        missing = [name for name in listed if name not in known]
        if missing:
            raise DataError(
                f"{len(missing)} cases of the split are not in the data set, such as '{missing[0]}'.",
                where=dataset.root,
                remedy="Use the folder the split was made for, or make a new split.",
            )
        if len(set(listed)) < len(listed):
            twice = next(name for name in listed if listed.count(name) > 1)
            raise DataError(f"'{twice}' stands in the split twice.", remedy="Remove it from one side.")
        train, validation, test = (tuple(known[name] for name in names[side]) for side in SPLIT_NAMES)
        return cls(train, validation, test, tuple(names["reasons"]))


def restore(dataset: Dataset, path: Path) -> Split:
    """The split that an earlier run wrote to `split.json`.

    Raises:
        DataError: the file cannot be read or does not fit the data set.
    """
    return Split.from_json(read_json(path), dataset)


def assign(
    dataset: Dataset,
    presence: Bool[np.ndarray, "N K"],
    duplicates: Sequence[Sequence[int]],
    config: DataConfig,
    seed: int,
    alike: Sequence[Pair] = (),
) -> Split:
    """Puts each case on one side, as the top of this module says.

    Args:
        dataset: its N cases.
        presence: which of the K classes occur in which case, in the order of `dataset.cases`.
        duplicates: indices of cases with identical content, which are tied together.
        config: the fractions of validation and test; 0 for test leaves it empty.
        seed: the same seed gives the same split, whatever the order of the cases.
        alike: cases that are nearly the same. They are tied too, but for the least alike of them where nearly all
            would hang together.

    Raises:
        DataError: a side would be empty.
    """
    cases = dataset.cases
    everything = sorted(range(len(cases)), key=lambda index: cases[index].name)
    threshold, near = bearable(alike, len(cases))
    ties = [*duplicates, *near]
    left_out = claimed_by_other_sides(cases, ties)
    order = [index for index in everything if index not in left_out]
    given: dict[SplitName, list[int]] = {name: [i for i in order if cases[i].split == name] for name in SPLIT_NAMES}
    if any(given.values()):
        given["train"] = [i for i in order if cases[i].split in ("train", None)]
        shares, reasons = _missing_sides(given, config)
    else:
        given["train"] = order
        shares = {"validation": config.validation_fraction, "test": config.test_fraction}
        reasons = ["The folder gives no split."]
    if config.folds is not None:
        shares["validation"] = (1.0 - shares["test"]) / config.folds
    reasons += _tell_left_out([cases[index].name for index in everything if index in left_out])
    _refuse_too_few(given, shares, dataset.root, reasons)
    groups = tie_together(cases, given["train"], ties)
    _refuse_folds(given, config, len(groups), dataset.root)
    sides = _draw(groups, presence, shares, seed, config)
    reasons += _tell(cases, groups, given, shares, seed, config)
    if threshold > ALIKE and any(shares.values()):
        told = f"Only those more alike than {threshold:.2f} stay" if near else "None of these is kept"
        reasons.append(
            f"Many images are nearly the same. {told} on one side: else more than half of all would hang together. "
            "Scores may be too good."
        )
    kept = {index: name for name in ("validation", "test") for index in given[name]}
    home = {index: kept.get(index) or SPLIT_NAMES[sides[index]] for index in order}
    parts = {name: tuple(cases[index] for index in order if home[index] == name) for name in SPLIT_NAMES}
    same, alike_too = ({index for members in sets for index in members} for sets in (duplicates, near))
    tied = tuple(
        Tied(tuple(cases[index].name for index in group), _because(cases, group, same, alike_too))
        for group in groups
        if len(group) > 1
    )
    split = Split(parts["train"], parts["validation"], parts["test"], tuple(reasons), tied)
    _refuse_empty(split, shares, len(groups), dataset.root)
    return split


def bearable(alike: Sequence[Pair], count: int) -> tuple[float, list[list[int]]]:
    """The similarity from which nearly equal cases are tied, and the sets of these: as low as leaves half of all free.

    Args:
        alike: pairs of cases.
        count: of all cases.
    """
    for threshold in STRICTER:
        sets = linked([pair for pair in alike if pair.similarity >= threshold], count)
        if max((len(members) for members in sets), default=0) <= max(2, count // 2):
            return threshold, sets
    return 1.0, []


def _because(cases: Sequence[Case], group: Sequence[int], identical: Collection[int], alike: Collection[int]) -> str:
    """Why these cases stay together."""
    names = dict.fromkeys(cases[index].group for index in group if cases[index].group)
    reasons = [f"group {name}" for name in names]
    reasons += ["identical images"] if any(index in identical for index in group) else []
    reasons += ["images that are nearly the same"] if any(index in alike for index in group) else []
    return ", ".join(reasons)


def _names_in(tree: object) -> dict[str, list[str]]:
    keys = (*SPLIT_NAMES, "reasons")
    if not isinstance(tree, dict) or not all(_is_list_of_text(tree.get(key)) for key in keys):
        raise DataError(f"A split holds lists of names under {', '.join(keys)}.", remedy="Make a new split.")
    return {key: tree[key] for key in keys}


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _missing_sides(given: dict[SplitName, list[int]], config: DataConfig) -> tuple[dict[str, float], list[str]]:
    """Shares of the training cases to cut for the sides that the folder does not give."""
    sizes = ", ".join(f"{name} {len(given[name])}" for name in SPLIT_NAMES if given[name])
    reasons = [f"The folder gives a split, which is kept ({sizes} cases)."]
    shares = {"validation": 0.0, "test": 0.0}
    if not given["validation"]:
        shares["validation"] = config.validation_fraction
    if not given["test"] and config.test_fraction > 0:
        if given["validation"] and len(given["train"]) < _FEWEST_TO_CUT_TEST:
            reasons.append(
                f"There is no test set: {len(given['train'])} training cases are too few to cut one from. "
                "Scores on the validation set are too good, because it chooses the model."
            )
        else:
            shares["test"] = config.test_fraction
    return shares, reasons


def _refuse_too_few(
    given: dict[SplitName, list[int]], shares: dict[str, float], root: Path, reasons: Sequence[str]
) -> None:
    needed = 1 + sum(share > 0 for share in shares.values())
    if len(given["train"]) < needed:
        alternative = ", or set data.test_fraction to 0 to do without a test set" if shares["test"] > 0 else ""
        raise DataError(
            f"Labelled images to train on or to split: {len(given['train'])}; at least {needed} are needed. "
            f"{' '.join(reasons)}",
            where=root,
            remedy=f"Label more images{alternative}.",
        )
    if not given["validation"] and shares["validation"] == 0:
        raise DataError(
            "There is no validation set: the folder gives none and data.validation_fraction is 0.",
            where=root,
            remedy="Set data.validation_fraction above 0; it chooses the best state of the network.",
        )


def _refuse_folds(given: dict[SplitName, list[int]], config: DataConfig, groups: int, root: Path) -> None:
    if config.folds is None:
        return
    if given["validation"]:
        raise ConfigError(
            "'data.folds' deals validation sets, and the folder gives one.",
            where=root,
            remedy="Take 'val' out of the data.yaml, or do without data.folds.",
        )
    if groups <= config.folds:
        raise DataError(
            f"{groups} images, or groups of images, cannot be dealt into {config.folds} folds.",
            where=root,
            remedy="Use a smaller data.folds.",
        )


def _refuse_empty(split: Split, shares: dict[str, float], groups: int, root: Path) -> None:
    empty = [name for name in SPLIT_NAMES if not split.side(name) and (name != "test" or shares["test"] > 0)]
    if empty:
        raise DataError(
            f"No image is left for {' and '.join(empty)}: there are only {groups} groups of images that go together.",
            where=root,
            remedy="Add images from other sources, or set data.test_fraction to 0 to do without a test set.",
        )


def claimed_by_other_sides(cases: Sequence[Case], ties: Sequence[Sequence[int]]) -> set[int]:
    """Cases that stand in no given split, and go together with one that must not be trained on.

    Args:
        cases: all of them.
        ties: indices of cases that are the same, or nearly so; cases of one group are tied anyway.
    """
    return {
        index
        for group in tie_together(cases, range(len(cases)), ties)
        if any(cases[index].split in ("validation", "test") for index in group)
        for index in group
        if cases[index].split is None
    }


def _tell_left_out(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    why = "identical or nearly identical with given validation or test cases, or of one group with them"
    return [f"{len(names)} cases that stand in no given split are left out: they are {why} ({shortened(names)})."]


def tie_together(cases: Sequence[Case], chosen: Sequence[int], duplicates: Sequence[Sequence[int]]) -> list[list[int]]:
    """Groups of indices that must stay together, ordered by the name of their first case."""
    by_group: dict[str, list[int]] = {}
    for index in chosen:
        if cases[index].group:
            by_group.setdefault(cases[index].group, []).append(index)
    # in the order of names, hence independent of the order on disk
    return joined([*by_group.values(), *duplicates], chosen)


def _tell(
    cases: Sequence[Case],
    groups: Sequence[Sequence[int]],
    given: dict[SplitName, list[int]],
    shares: dict[str, float],
    seed: int,
    config: DataConfig,
) -> list[str]:
    """Sentences about the part of the split that was drawn."""
    cut = [name for name, share in shares.items() if share > 0]
    if not cut:
        return []
    parts = " and ".join(f"{shares[name]:.0%} for {name}" for name in cut)
    part = f" Of {config.folds} folds, fold-{config.fold} validates." if config.folds is not None else ""
    reasons = [f"Of {len(given['train'])} cases, {parts} were drawn with seed {seed}, classes spread evenly.{part}"]
    tied = [group for group in groups if len(group) > 1]
    if tied:
        named = sum(len({cases[index].group for index in group} - {""}) > 0 for group in tied)
        reasons.append(
            f"{sum(map(len, tied))} cases form {len(tied)} groups that stay on one side "
            f"({named} by group, {len(tied) - named} by equal or nearly equal images)."
        )
    return reasons


# drawing -----------------------------------------------------------------------------------------------------------


def _draw(
    groups: Sequence[Sequence[int]],
    presence: Bool[np.ndarray, "N K"],
    held_out: dict[str, float],
    seed: int,
    config: DataConfig,
) -> dict[int, int]:
    """Side of each case: 0 train, 1 validation, 2 test."""
    if not groups:
        return {}
    sizes = np.array([len(group) for group in groups])
    labels = np.array([presence[list(group)].sum(axis=0) for group in groups], dtype=np.int64)
    if config.folds is not None:
        side = _deal(sizes, labels, held_out["test"], seed, config.folds, config.fold)
    else:
        shares = np.array([1.0 - sum(held_out.values()), held_out["validation"], held_out["test"]])
        side = stratify(sizes, labels, shares, np.random.default_rng(seed))
        _give_train_every_class(side, sizes, labels)
        _fill_empty(side, sizes, labels, shares)
    return {index: int(side[i]) for i, group in enumerate(groups) for index in group}


def _deal(
    sizes: Int[np.ndarray, " G"], labels: Int[np.ndarray, "G K"], test: float, seed: int, folds: int, fold: int
) -> Int[np.ndarray, " G"]:
    """Sides in cross-validation: the test side is the same for every fold, and each other group validates in one.

    A class that is in one fold only cannot be learned when that fold validates: folds are never moved for it.
    """
    generator = np.random.default_rng(seed)
    shares = np.array([1.0 - test, 0.0, test])
    side = stratify(sizes, labels, shares, generator)
    _fill_empty(side, sizes, labels, shares)
    rest = np.flatnonzero(side == 0)
    even = np.full(folds, 1.0 / folds)
    dealt = stratify(sizes[rest], labels[rest], even, generator)
    _fill_empty(dealt, sizes[rest], labels[rest], even)
    side[rest[dealt == fold]] = 1
    return side


def stratify(
    sizes: Int[np.ndarray, " G"],
    labels: Int[np.ndarray, "G K"],
    shares: Float[np.ndarray, " S"],
    generator: np.random.Generator,
) -> Int[np.ndarray, " G"]:
    """Iterative stratification of groups (Sechidis et al., 2011, algorithm 1, with groups in place of examples).

    The class with the fewest groups left is dealt with first. Each of its groups, the largest first, goes to the
    side that lacks most of the class; ties go to the side that lacks most cases, then to chance.

    Args:
        sizes: cases in each of G groups.
        labels: cases of each group in which class k of K occurs.
        shares: share of the cases that each of S sides should get; they sum to 1.
        generator: decides ties.

    Returns:
        The side of each group, 0 .. S-1.
    """
    side = np.full(sizes.size, -1, dtype=np.int64)
    wanted = shares * sizes.sum()
    wanted_labels = shares[:, None] * labels.sum(axis=0)  # S K
    chance = generator.random(sizes.size)
    open_sides = shares > 0
    while (side < 0).any():
        free = side < 0
        remaining = (labels[free] > 0).sum(axis=0)
        if remaining.any():
            rarest = int(np.argmin(np.where(remaining > 0, remaining, np.iinfo(np.int64).max)))
            members = np.flatnonzero(free & (labels[:, rarest] > 0))
            lack = wanted_labels[:, rarest]
        else:
            members, lack = np.flatnonzero(free), wanted
        for group in sorted(members.tolist(), key=lambda i: (-sizes[i], chance[i])):
            rank = np.stack([np.where(open_sides, lack, -np.inf), wanted, generator.random(shares.size)])
            chosen = int(np.lexsort(np.round(rank[::-1], 9))[-1])
            side[group] = chosen
            wanted[chosen] -= sizes[group]
            wanted_labels[chosen] -= labels[group]
    return side


def _give_train_every_class(
    side: Int[np.ndarray, " G"], sizes: Int[np.ndarray, " G"], labels: Int[np.ndarray, "G K"]
) -> None:
    """Moves a group to train for each class that train lacks although two groups have it: it could not be learned."""
    present = labels > 0
    for label in np.flatnonzero(present.sum(axis=0) >= 2):
        holders = np.flatnonzero(present[:, label])
        if not (side[holders] == 0).any():
            # from the side that has most groups, the smallest group
            crowd = [(side == side[group]).sum() for group in holders]
            side[min(zip(holders, crowd, strict=True), key=lambda pair: (-pair[1], sizes[pair[0]]))[0]] = 0


def _fill_empty(
    side: Int[np.ndarray, " G"],
    sizes: Int[np.ndarray, " G"],
    labels: Int[np.ndarray, "G K"],
    shares: Float[np.ndarray, " S"],
) -> None:
    """Gives each empty side one group: from train, or from the other side if that has several."""
    for empty in range(shares.size):
        if shares[empty] == 0 or (side == empty).any():
            continue
        spare = [group for group in range(side.size) if (side == side[group]).sum() > 1]
        if not spare:
            return
        side[min(spare, key=lambda group: (_lost(side, labels, group), sizes[group]))] = empty


def _lost(side: Int[np.ndarray, " G"], labels: Int[np.ndarray, "G K"], group: int) -> int:
    """How many classes train would lose with a group."""
    if side[group] != 0:
        return 0
    others = side == 0
    others[group] = False
    return int(((labels[group] > 0) & ~(labels[others] > 0).any(axis=0)).sum())
