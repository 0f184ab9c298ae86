"""Scores against scikit-learn, torchmetrics, arithmetic by hand, and the page that defines them."""

import json
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, precision_score, recall_score
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_jaccard_index

from pixelwise.classes import IGNORE
from pixelwise.metrics import Scores, confusion, dice, iou, pixel_accuracy, precision, recall

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
CLASSES = ("background", "cell", "nucleus", "debris")


def draw(seed: int, classes: int = 4, shape: tuple[int, ...] = (3, 17, 23)) -> tuple[Tensor, Tensor]:
    """A random prediction and target, 10 % ignored; the last class is neither present nor predicted."""
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(0, classes - 1, shape, generator=generator)
    target = torch.where(
        torch.rand(shape, generator=generator) < 0.6,
        prediction,
        torch.randint(0, classes - 1, shape, generator=generator),
    )
    target[torch.rand(shape, generator=generator) < 0.1] = IGNORE
    return prediction, target


def score(prediction: Tensor, target: Tensor, classes: int = 4) -> Scores:
    """Scores of a batch whose images are called 0, 1, 2 ..."""
    counts = torch.stack([confusion(p, t, classes) for p, t in zip(prediction, target, strict=True)])
    return Scores(classes=CLASSES[:classes], names=tuple(f"{i}" for i in range(len(counts))), counts=counts)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_confusion_agrees_with_scikit_learn_and_torchmetrics(dtype: torch.dtype) -> None:
    prediction, target = draw(0)
    counted = target != IGNORE
    counts = confusion(prediction.to(dtype), target.to(dtype), 4)
    assert counts.dtype == torch.int64
    assert counts.tolist() == confusion_matrix(target[counted], prediction[counted], labels=range(4)).tolist()
    assert counts.tolist() == multiclass_confusion_matrix(prediction, target, 4, ignore_index=IGNORE).tolist()


def test_scores_per_class_agree_with_scikit_learn_and_torchmetrics() -> None:
    prediction, target = draw(1)
    counts = confusion(prediction, target, 4)
    truth, guess = target[target != IGNORE].numpy(), prediction[target != IGNORE].numpy()
    for ours, referee in ((iou, jaccard_score), (dice, f1_score), (precision, precision_score), (recall, recall_score)):
        expected = referee(truth, guess, labels=[0, 1, 2], average=None)
        np.testing.assert_allclose(ours(counts)[:3], expected, rtol=1e-12)
    np.testing.assert_allclose(
        iou(counts)[:3],
        multiclass_jaccard_index(prediction, target, 4, average="none", ignore_index=IGNORE)[:3],
        rtol=1e-6,
    )
    assert float(pixel_accuracy(counts)) == pytest.approx((truth == guess).mean(), rel=1e-12)


def test_a_class_that_does_not_occur_has_no_score_and_one_that_occurs_on_one_side_has_zero() -> None:
    # class 0: right; class 1: present, never predicted; class 2: predicted, never present; class 3: neither
    counts = confusion(torch.tensor([0, 0, 2]), torch.tensor([0, 0, 1]), 4)
    for measure in (iou, dice, precision, recall):
        values = measure(counts).tolist()
        assert values[:3] == [1.0, 0.0, 0.0]
        assert math.isnan(values[3])
    assert score(torch.tensor([[0, 0, 2]]), torch.tensor([[0, 0, 1]])).miou == pytest.approx(1 / 3)


def test_scores_of_many_matrices_are_those_of_each() -> None:
    counts = torch.stack([confusion(*draw(seed), 4) for seed in range(6)]).view(2, 3, 4, 4)
    for measure in (iou, dice, precision, recall, pixel_accuracy):
        together = measure(counts)
        each = torch.stack([measure(matrix) for matrix in counts.flatten(0, 1)])
        torch.testing.assert_close(together.flatten(0, 1), each, equal_nan=True, rtol=0, atol=0)


def test_prediction_on_ignored_pixels_does_not_matter_even_if_it_is_no_class() -> None:
    prediction, target = draw(2)
    counts = confusion(prediction, target, 4)
    prediction[target == IGNORE] = 200
    assert torch.equal(confusion(prediction, target, 4), counts)


def test_an_image_with_every_pixel_ignored_has_no_score_and_is_left_out() -> None:
    prediction, target = draw(3)
    with_it = score(prediction, torch.cat([target[:2], torch.full_like(target[2:], IGNORE)]))
    without = score(prediction[:2], target[:2])
    assert with_it.miou == without.miou
    assert with_it.miou_image_mean == without.miou_image_mean
    assert math.isnan(float(with_it.image_miou[2]))
    assert with_it.worst_first()[-1] == 2


def test_no_image_and_no_counted_pixel_give_nan_without_a_warning() -> None:
    nothing = Scores(classes=CLASSES, names=(), counts=torch.zeros((0, 4, 4), dtype=torch.int64))
    for value in (nothing.miou, nothing.mean_dice, nothing.accuracy, nothing.miou_image_mean):
        assert math.isnan(value)
    assert nothing.summary()["pooled"]["miou"] is None


def test_255_classes_are_told_apart() -> None:
    every = torch.arange(255, dtype=torch.uint8)
    assert torch.equal(confusion(every, every, 255), torch.eye(255, dtype=torch.int64))


@pytest.mark.parametrize(
    ("prediction", "target"),
    [([0, 1], [0, 3]), ([0, 3], [0, 1]), ([0, 1], [0, -1]), ([0, 1], [0, 300]), ([-1, 1], [0, 1]), ([256, 1], [0, 1])],
)
def test_a_value_that_is_no_class_is_refused(prediction: list[int], target: list[int]) -> None:
    with pytest.raises(ValueError, match=r"classes are|outside"):
        confusion(torch.tensor(prediction), torch.tensor(target), 3)


@settings(deadline=None, max_examples=30)
@given(data=st.data(), seed=st.integers(0, 10_000))
def test_order_of_images_and_splitting_into_parts_change_nothing(data: st.DataObject, seed: int) -> None:
    whole = score(*draw(seed, shape=(5, 4, 6)))
    order = data.draw(st.permutations(range(5)))
    cuts = sorted(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)))
    parts = [
        Scores(
            whole.classes,
            tuple(whole.names[i] for i in order[start:stop]),
            whole.counts[torch.tensor(order[start:stop])],
        )
        for start, stop in zip([0, *cuts], [*cuts, 5], strict=True)
        if stop > start
    ]
    assert Scores.merge(parts).summary() == whole.summary()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 51))
def test_counts_of_two_halves_add_up(seed: int, cut: int) -> None:
    prediction, target = (values.flatten() for values in draw(seed, shape=(3, 17)))
    halves = confusion(prediction[:cut], target[:cut], 4) + confusion(prediction[cut:], target[cut:], 4)
    assert torch.equal(halves, confusion(prediction, target, 4))


def test_merging_refuses_an_image_that_is_counted_twice_and_other_classes() -> None:
    part = score(*draw(4))
    with pytest.raises(ValueError, match="twice: 0, 1, 2"):
        Scores.merge([part, part])
    with pytest.raises(ValueError, match="class tables"):
        Scores.merge([part, Scores(classes=("a", "b"), names=(), counts=torch.zeros((0, 2, 2), dtype=torch.int64))])
    with pytest.raises(ValueError, match="0 parts"):
        Scores.merge([])


def test_counts_that_do_not_fit_the_names_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit 1 images, 4 classes"):
        Scores(classes=CLASSES, names=("a",), counts=torch.zeros((2, 4, 4), dtype=torch.int64))


def test_worst_first_sorts_by_image_miou() -> None:
    target = torch.zeros((3, 4), dtype=torch.int64)
    prediction = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1]])
    assert score(prediction, target).worst_first() == [2, 0, 1]


def test_summary_is_strict_json_and_gives_the_same_scores_back() -> None:
    scores = score(*draw(5))
    text = json.dumps(scores.summary(), allow_nan=False)
    again = Scores.from_summary(json.loads(text))
    assert torch.equal(again.counts, scores.counts)
    assert (again.names, again.classes) == (scores.names, scores.classes)
    assert again.summary() == scores.summary()


def test_summary_says_the_same_as_the_properties() -> None:
    scores = score(*draw(6))
    summary = scores.summary()
    assert summary["images"] == 3
    assert summary["pooled"]["miou"] == scores.miou
    assert summary["pooled"]["dice"] == scores.mean_dice
    assert summary["pooled"]["pixel_accuracy"] == scores.accuracy
    assert summary["image_mean"] == {"miou": scores.miou_image_mean, "dice": scores.dice_image_mean}
    assert summary["confusion"] == scores.pooled.tolist()
    assert sum(row["pixels"] for row in summary["pooled"]["per_class"]) == int(scores.pooled.sum())
    assert [row["iou"][3] for row in summary["per_image"]] == [None] * 3


def example() -> Scores:
    """The two images drawn on the page."""
    row = r"((?:[0-3.] ){3}[0-3.])"
    lines = re.findall(rf"^ +{row} +{row}$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    values = [[[IGNORE if c == "." else int(c) for c in side.split()] for side in line] for line in lines]
    target, prediction = torch.tensor(values).view(2, 2, 2, 4).unbind(2)  # image, row, side, column
    return score(prediction, target)


def table_row(name: str) -> list[str]:
    """Cells of the last row of the page that begins with a name."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in rows[-1].strip("|").split("|")][1:]


@pytest.mark.parametrize("name", ["miou", "mean_dice", "accuracy", "miou_image_mean", "dice_image_mean"])
def test_means_of_the_example_are_those_of_the_page(name: str) -> None:
    assert f"{getattr(example(), name):.4f}" == table_row(f"`{name}`")[0]


@pytest.mark.parametrize("index", range(4))
def test_class_rows_of_the_example_are_those_of_the_page(index: int) -> None:
    row = example().summary()["pooled"]["per_class"][index]
    cells = table_row(CLASSES[index])
    expected = [None if cell == "nan" else pytest.approx(float(Fraction(cell)), abs=1e-12) for cell in cells]
    assert [row[key] for key in ("iou", "dice", "precision", "recall", "pixels")] == expected


def test_counts_of_the_example_are_those_of_the_page() -> None:
    assert example().pooled.tolist() == [[9, 1, 2, 0], [0, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert "| background | 9 | 1 | 2 | 0 |\n| cell | 0 | 3 | 0 | 0 |" in PAGE.read_text(encoding="utf-8")
    assert example().image_miou.tolist() == [0.75, 0.375]
