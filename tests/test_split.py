"""Properties of every split, and the rules for splits that the folder gives."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pixelwise.classes import ClassTable
from pixelwise.config import DataConfig
from pixelwise.data.alike import Pair
from pixelwise.data.dataset import SPLIT_NAMES, Case, Dataset, MaskEncoding, SplitName
from pixelwise.data.split import Nearest, Split, assign, restore, stratify
from pixelwise.errors import ConfigError, DataError

QUICK = settings(deadline=None, max_examples=60)


def dataset_of(cases: list[Case]) -> Dataset:
    encoding = MaskEncoding(kind="values", values={0: 0, 1: 1})
    return Dataset(Path("/data"), tuple(cases), ClassTable.from_names(["background", "object"]), encoding, "")


def case(number: int, split: SplitName | None = None, group: str = "") -> Case:
    name = f"case{number:03d}"
    return Case(name=name, image=Path(f"{name}.png"), masks=(Path(f"{name}_mask.png"),), split=split, group=group)


def everything(count: int, classes: int = 2) -> np.ndarray:
    return np.ones((count, classes), dtype=bool)


Problem = tuple[list[int], int, float, int, int]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Group of each case, number of classes, how frequent they are, and two seeds."""
    groups = draw(st.lists(st.integers(0, 40), min_size=12, max_size=60))
    return (
        groups,
        draw(st.integers(2, 4)),
        draw(st.floats(0.05, 0.9)),
        draw(st.integers(0, 999)),
        draw(st.integers(0, 5)),
    )


def build(problem: Problem) -> tuple[list[Case], np.ndarray, int]:
    groups, classes, density, chance, seed = problem
    cases = [case(i, group=f"g{g}" if g < 30 else "") for i, g in enumerate(groups)]
    presence = np.random.default_rng(chance).random((len(cases), classes)) < density
    presence[:, 0] = True
    return cases, presence, seed


def groups_of(cases: list[Case]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, one in enumerate(cases):
        groups.setdefault(one.group or one.name, []).append(index)
    return groups


@QUICK
@given(problems())
def test_each_case_is_used_once_and_no_group_stands_on_two_sides(problem: Problem) -> None:
    cases, presence, seed = build(problem)
    assume(len(groups_of(cases)) >= 3)
    split = assign(dataset_of(cases), presence, [], DataConfig(), seed)
    sides = [split.train, split.validation, split.test]
    assert sorted(one.name for side in sides for one in side) == [one.name for one in cases]
    assert all(sides)
    groups = [{one.group for one in side} - {""} for side in sides]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


@QUICK
@given(problems())
def test_a_class_that_two_groups_have_reaches_train(problem: Problem) -> None:
    cases, presence, seed = build(problem)
    groups = groups_of(cases)
    assume(len(groups) >= 10)
    split = assign(dataset_of(cases), presence, [], DataConfig(), seed)
    train = {one.name for one in split.train}
    seen = presence[[one.name in train for one in cases]].any(axis=0)
    holders = np.array([presence[members].any(axis=0) for members in groups.values()]).sum(axis=0)
    assert seen[holders >= 2].all()


@QUICK
@given(problems())
def test_sides_have_about_the_size_asked_for(problem: Problem) -> None:
    cases, presence, seed = build(problem)
    largest = max(map(len, groups_of(cases).values()))
    assume(largest <= 4)
    config = DataConfig(validation_fraction=0.2, test_fraction=0.2)
    split = assign(dataset_of(cases), presence, [], config, seed)
    for side in (split.validation, split.test):
        assert abs(len(side) - 0.2 * len(cases)) <= 0.06 * len(cases) + largest + 1


@QUICK
@given(problems(), st.integers(0, 99))
def test_the_order_on_disk_does_not_matter(problem: Problem, shuffle: int) -> None:
    cases, presence, seed = build(problem)
    assume(len(groups_of(cases)) >= 3)
    order = np.random.default_rng(shuffle).permutation(len(cases)).tolist()
    duplicates = [[0, 5], [3, 7, 9]]
    moved = [[order.index(i) for i in reversed(group)] for group in duplicates]
    try:
        first = assign(dataset_of(cases), presence, duplicates, DataConfig(), seed)
    except DataError:
        return  # too few groups are left; another test is about that
    second = assign(dataset_of([cases[i] for i in order]), presence[order], moved, DataConfig(), seed)
    assert first == second


def test_another_seed_gives_another_split() -> None:
    cases = [case(i) for i in range(40)]
    splits = {assign(dataset_of(cases), everything(40), [], DataConfig(), seed).test for seed in range(4)}
    assert len(splits) == 4


def test_identical_images_stay_together_and_are_told() -> None:
    cases = [case(i) for i in range(20)]
    for seed in range(10):
        split = assign(dataset_of(cases), everything(20), [[2, 11], [11, 15]], DataConfig(), seed)
        homes = [
            name
            for name in ("train", "validation", "test")
            for one in split.side(name)
            if one in np.array(cases)[[2, 11, 15]]
        ]
        assert len(set(homes)) == 1
    assert any("1 by equal or nearly equal images" in reason for reason in split.reasons)
    (tied,) = split.tied
    assert tied.cases == ("case002", "case011", "case015")
    assert tied.because == "identical images"


def pairs(*indices: tuple[int, int], similarity: float = 0.95) -> list[Pair]:
    return [Pair(first, second, similarity) for first, second in indices]


def test_nearly_equal_images_stay_together_with_the_groups_that_they_belong_to() -> None:
    cases = [case(i, group="g" if i in (3, 9) else "") for i in range(20)]
    for seed in range(10):
        split = assign(dataset_of(cases), everything(20), [], DataConfig(), seed, pairs((1, 2), (2, 9)))
        side = next(name for name in SPLIT_NAMES if cases[1] in split.side(name))
        assert {cases[index] for index in (1, 2, 3, 9)} <= set(split.side(side))
    (tied,) = split.tied
    assert tied.because == "group g, images that are nearly the same"


def test_where_all_would_hang_together_only_the_most_alike_do() -> None:
    """A film: every frame is like the next one, and a few stand still."""
    cases = [case(i) for i in range(20)]
    film = [Pair(i, i + 1, 0.93) for i in range(19)]
    still = [Pair(4, 5, 0.995), Pair(5, 6, 0.995)]
    split = assign(dataset_of(cases), everything(20), [], DataConfig(), 0, [*film, *still])
    assert [tied.cases for tied in split.tied] == [("case004", "case005", "case006")]
    assert any("more alike than 0.97" in reason for reason in split.reasons)
    assert split.validation
    assert split.test


def test_cases_in_no_list_that_are_nearly_those_of_a_given_test_side_are_left_out() -> None:
    cases = [case(i, split="test" if i > 15 else None) for i in range(20)]
    split = assign(dataset_of(cases), everything(20), [], DataConfig(), 0, pairs((3, 17)))
    assert cases[3] not in (*split.train, *split.validation, *split.test)
    assert any("case003" in reason for reason in split.reasons)


@pytest.mark.parametrize("test_fraction", [0.0, 0.2])
def test_folds_share_their_test_side_and_each_other_case_validates_once(test_fraction: float) -> None:
    cases = [case(i, group=f"g{i // 2}") for i in range(40)]
    presence = np.random.default_rng(0).random((40, 3)) < 0.4
    config = [DataConfig(folds=5, fold=fold, test_fraction=test_fraction) for fold in range(5)]
    splits = [assign(dataset_of(cases), presence, [], one, 3) for one in config]
    assert len({split.test for split in splits}) == 1
    assert len(splits[0].test) == pytest.approx(40 * test_fraction, abs=2)
    validated = [one for split in splits for one in split.validation]
    assert sorted(one.name for one in validated) == sorted(
        {one.name for one in cases} - {t.name for t in splits[0].test}
    )
    for number, split in enumerate(splits):
        assert not {one.group for one in split.train} & {one.group for one in split.validation}
        assert len(split.validation) == pytest.approx((40 - len(split.test)) / 5, abs=2)
        assert f"Of 5 folds, fold-{number} validates" in " ".join(split.reasons)


def test_folds_that_cannot_be_dealt_are_refused() -> None:
    cases = [case(i) for i in range(4)]
    with pytest.raises(DataError, match="cannot be dealt into 5 folds"):
        assign(dataset_of(cases), everything(4), [], DataConfig(folds=5), 0)
    with_validation = [case(i, "validation" if i < 3 else "train") for i in range(20)]
    with pytest.raises(ConfigError, match="the folder gives one"):
        assign(dataset_of(with_validation), everything(20), [], DataConfig(folds=5), 0)


def test_the_certificate_is_written() -> None:
    cases = [case(i) for i in range(20)]
    split = assign(dataset_of(cases), everything(20), [[2, 11]], DataConfig(), 0)
    tree = json.loads(json.dumps(dataclasses.replace(split, nearest=Nearest("case001", "case007", 0.5)).to_json()))
    assert tree["tied"] == [{"cases": ["case002", "case011"], "because": "identical images"}]
    assert tree["nearest_across_sides"] == {"first": "case001", "second": "case007", "similarity": 0.5}
    assert Split.from_json(tree, dataset_of(cases)).train == split.train


def test_stratification_spreads_a_rare_class_in_proportion() -> None:
    # 100 images, 20 of them with the class: 14, 3 and 3 are exact
    labels = np.zeros((100, 2), dtype=np.int64)
    labels[:, 0] = 1
    labels[:20, 1] = 1
    side = stratify(np.ones(100, np.int64), labels, np.array([0.7, 0.15, 0.15]), np.random.default_rng(0))
    assert [int((side[:20] == s).sum()) for s in range(3)] == [14, 3, 3]
    assert [int((side == s).sum()) for s in range(3)] == [70, 15, 15]


def test_a_complete_given_split_is_kept() -> None:
    names: list[SplitName] = ["train"] * 4 + ["validation"] * 2 + ["test"] * 3
    cases = [case(i, split) for i, split in enumerate(names)]
    split = assign(dataset_of(cases), everything(9), [[0, 8]], DataConfig(), 0)
    assert split.train == tuple(cases[:4])
    assert split.validation == tuple(cases[4:6])
    assert split.test == tuple(cases[6:])


def test_what_a_given_split_lacks_is_cut_from_train() -> None:
    only_train = [case(i, "train") for i in range(20)]
    split = assign(dataset_of(only_train), everything(20), [], DataConfig(), 0)
    assert (len(split.train), len(split.validation), len(split.test)) == (14, 3, 3)
    with_test = [case(i, "train" if i < 20 else "test") for i in range(26)]
    split = assign(dataset_of(with_test), everything(26), [], DataConfig(), 0)
    assert (len(split.train), len(split.validation)) == (17, 3)
    assert split.test == tuple(with_test[20:])
    with_validation = [case(i, "train" if i < 20 else "validation") for i in range(26)]
    split = assign(dataset_of(with_validation), everything(26), [], DataConfig(), 0)
    assert split.validation == tuple(with_validation[20:])
    assert (len(split.train), len(split.test)) == (17, 3)


def test_too_few_training_images_beside_a_validation_set_give_no_test_set() -> None:
    cases = [case(0, "train"), case(1, "train"), case(2, "validation")]
    split = assign(dataset_of(cases), everything(3), [], DataConfig(), 0)
    assert (len(split.train), len(split.validation), len(split.test)) == (2, 1, 0)
    assert any("no test set" in reason for reason in split.reasons)


def test_three_images_give_one_to_each_side_and_two_are_refused() -> None:
    cases = [case(i) for i in range(3)]
    split = assign(dataset_of(cases), everything(3), [], DataConfig(), 0)
    assert [len(split.train), len(split.validation), len(split.test)] == [1, 1, 1]
    with pytest.raises(DataError, match="at least 3"):
        assign(dataset_of(cases[:2]), everything(2), [], DataConfig(), 0)
    without_test = assign(dataset_of(cases[:2]), everything(2), [], DataConfig(test_fraction=0.0), 0)
    assert [len(without_test.train), len(without_test.validation), len(without_test.test)] == [1, 1, 0]


def test_one_group_cannot_be_split() -> None:
    cases = [case(i, group="patient 1") for i in range(10)]
    with pytest.raises(DataError, match="1 groups"):
        assign(dataset_of(cases), everything(10), [], DataConfig(), 0)


def test_a_validation_fraction_of_zero_is_refused() -> None:
    with pytest.raises(DataError, match="validation"):
        assign(dataset_of([case(i) for i in range(9)]), everything(9), [], DataConfig(validation_fraction=0.0), 0)


@pytest.mark.parametrize("side", ["validation", "test"])
def test_a_copy_of_a_given_case_that_no_side_claims_is_not_trained_on(side: SplitName) -> None:
    given: list[SplitName | None] = [None] * 20 + [side] * 3
    cases = [case(i, split) for i, split in enumerate(given)]
    split = assign(dataset_of(cases), everything(23), [[2, 21], [4, 5]], DataConfig(), 0)
    used = {one.name for one in split.train + split.validation + split.test}
    assert {one.name for one in cases} - used == {"case002"}
    assert any("1 cases" in reason and "(case002)" in reason for reason in split.reasons)
    assert set(cases[20:]) == set(split.side(side))


def test_a_group_that_stands_in_a_given_test_set_is_not_trained_on() -> None:
    cases = [case(i, group=f"child {i // 2}") for i in range(20)]
    cases[5] = dataclasses.replace(cases[5], split="test")
    split = assign(dataset_of(cases), everything(20), [[4, 10]], DataConfig(), 0)
    left = {one.name for one in cases} - {one.name for one in split.train + split.validation + split.test}
    assert left == {"case004", "case010", "case011"}  # its group, a copy of that, and the group of the copy
    assert split.test == (cases[5],)


def test_cases_given_to_two_sides_stay_there_although_they_are_of_one_group() -> None:
    names: list[SplitName] = ["train"] * 4 + ["validation"] * 2 + ["test"] * 3
    cases = [case(i, split, group=f"{i % 2}") for i, split in enumerate(names)]
    split = assign(dataset_of(cases), everything(9), [], DataConfig(), 0)
    assert (len(split.train), len(split.validation), len(split.test)) == (4, 2, 3)


def test_too_few_cases_that_may_be_trained_on_are_refused_with_what_was_left_out() -> None:
    cases = [case(0), case(1), case(2), case(3, "test")]
    with pytest.raises(DataError, match=r"2 cases that stand in no given split.*\(case000, case001\)") as caught:
        assign(dataset_of(cases), everything(4), [[0, 3], [1, 3]], DataConfig(), 0)
    assert "test_fraction" not in caught.value.remedy  # there is a test set already


def test_a_written_split_is_restored_and_a_wrong_one_refused(tmp_path: Path) -> None:
    cases = [case(i) for i in range(12)]
    dataset = dataset_of(cases)
    split = assign(dataset, everything(12), [], DataConfig(), 3)
    path = tmp_path / "split.json"
    path.write_text(json.dumps(split.to_json()))
    assert restore(dataset, path) == split
    with pytest.raises(DataError, match="not in the data set"):
        restore(dataset_of(cases[:5]), path)
    twice = dataclasses.replace(split, test=split.train[:1])
    with pytest.raises(DataError, match="twice"):
        Split.from_json(twice.to_json(), dataset)
    for damaged in ("", "[]", '{"train": 3}'):
        path.write_text(damaged)
        with pytest.raises(DataError):
            restore(dataset, path)
