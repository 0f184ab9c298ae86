"""How sure scores are: coverage by simulation, SciPy's tests, and weights by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pixelwise.metrics import Scores, confusion, dice, iou, precision, recall
from pixelwise.metrics.counts import mean_over_classes
from pixelwise.metrics.intervals import Bootstrap, Interval, difference
from pixelwise.metrics.weighted import Ratio, ratios


def names(count: int) -> tuple[str, ...]:
    return tuple(f"image {index}" for index in range(count))


def mean_of(values: np.ndarray) -> Ratio:
    """A ratio whose score is the mean of numbers, one per image."""
    return Ratio.mean_of(torch.from_numpy(values)[:, None])


def counts_of(generator: np.random.Generator, images: int) -> Tensor:
    """Confusion counts of images that vary as real ones do: in the size of the object and in how well it is found."""
    objects = generator.gamma(2.0, 500.0, images)
    quality = generator.beta(8.0, 2.0, images)
    hit = np.round(objects * quality)
    missed = np.round(objects) - hit
    counts = np.stack([np.full(images, 8000.0), 0.3 * missed, missed, hit], axis=1)
    return torch.from_numpy(np.round(counts).astype(np.int64)).reshape(-1, 2, 2)


# --- weights ---------------------------------------------------------------------------------------------------------


def test_ratios_are_the_scores_of_the_counts() -> None:
    counts = torch.stack(
        [confusion(torch.randint(0, 3, (50,)), torch.randint(0, 3, (50,)) % (index + 1), 4) for index in range(3)]
    )
    for name, score in {"iou": iou, "dice": dice, "precision": precision, "recall": recall}.items():
        torch.testing.assert_close(ratios(counts)[name].pooled(), score(counts.sum(0)), equal_nan=True)
        torch.testing.assert_close(ratios(counts)[name].by_image(), score(counts), equal_nan=True)


def test_a_weight_counts_an_image_as_often() -> None:
    counts = counts_of(np.random.default_rng(0), 4)
    twice = torch.cat([counts, counts[1:2], counts[1:2]])
    weights = torch.tensor([[1.0, 3.0, 1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(ratios(counts)["iou"].of(weights)[0], ratios(twice)["iou"].pooled())


def test_an_image_without_a_value_is_left_out_of_a_mean() -> None:
    assert float(mean_of(np.array([1.0, math.nan, 3.0])).pooled()) == 2.0
    assert math.isnan(float(mean_of(np.array([math.nan, math.nan])).pooled()))


# --- intervals -------------------------------------------------------------------------------------------------------


def test_samples_are_as_large_as_what_they_are_drawn_from() -> None:
    weights = Bootstrap(names(7)).weights
    assert weights.shape == (2000, 7)
    assert (weights.sum(1) == 7).all()
    assert weights.mean() == 1.0
    assert abs(float(weights.var(0).mean()) - 6 / 7) < 0.05  # of a multinomial distribution: n (1 / n) (1 - 1 / n)


def test_images_of_a_group_are_drawn_together() -> None:
    weights = Bootstrap(("a", "b", "a", "c")).weights
    assert torch.equal(weights[:, 0], weights[:, 2])
    assert (weights[:, 0] + weights[:, 1] + weights[:, 3] == 3).all()


def test_copies_in_groups_give_the_interval_of_the_originals() -> None:
    counts = counts_of(np.random.default_rng(1), 12)
    alone, _ = Bootstrap(names(12)).of(ratios(counts)["iou"])
    copies, _ = Bootstrap(names(12) * 3).of(ratios(counts.repeat(3, 1, 1))["iou"])
    assert (copies.low, copies.high) == (pytest.approx(alone.low), pytest.approx(alone.high))


@pytest.mark.slow
def test_very_many_images_get_fewer_samples() -> None:
    assert Bootstrap(names(100_000)).weights.shape == (200, 100_000)


def test_one_image_has_no_interval() -> None:
    mean, each = Bootstrap(names(1)).of(ratios(counts_of(np.random.default_rng(0), 1))["iou"])
    assert all(math.isnan(end) for one in (mean, *each) for end in (one.low, one.high))


def test_the_interval_of_a_mean_is_that_of_the_t_distribution() -> None:
    """Of a mean of normal values, of any number of images, there is an exact interval."""
    for images in (6, 15, 60):
        values = np.random.default_rng(images).normal(0.7, 0.1, images)
        found, _ = Bootstrap(names(images)).of(mean_of(values))
        exact = stats.t.interval(0.95, images - 1, values.mean(), stats.sem(values))
        # the samples' percentiles of so few values are rough
        assert found.high - found.low == pytest.approx(exact[1] - exact[0], rel=0.15)
        assert (found.low + found.high) / 2 == pytest.approx(values.mean(), abs=0.1 * (exact[1] - exact[0]))


@pytest.mark.slow
def test_intervals_hold_the_true_value_in_95_of_100_data_sets() -> None:
    """1000 simulated test splits of 40 images, from a population whose pooled mIoU is known."""
    images, splits = 40, 1000
    truth = float(mean_over_classes(iou(counts_of(np.random.default_rng(99), 400_000).sum(0))))
    generator = np.random.default_rng(7)
    held = 0
    for seed in range(splits):
        counts = counts_of(generator, images)
        found, _ = Bootstrap(names(images), seed).of(ratios(counts)["iou"])
        held += found.low <= truth <= found.high
    assert 0.93 <= held / splits <= 0.97


# --- two models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_exact_p_value_agrees_with_scipy(seed: int) -> None:
    first, second = np.random.default_rng(seed).normal([[0.7], [0.66]], 0.05, (2, 9))
    found = difference(mean_of(first), mean_of(second), names(9))
    referee = stats.permutation_test(
        (first, second), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert found.p == pytest.approx(referee.pvalue)


def test_the_drawn_p_value_is_close_to_the_t_test_of_many_images() -> None:
    first, second = np.random.default_rng(3).normal([[0.7], [0.69]], 0.05, (2, 80))
    found = difference(mean_of(first), mean_of(second), names(80))
    assert found.p == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.02)


@pytest.mark.slow
def test_equal_models_are_called_different_in_5_of_100_cases() -> None:
    generator = np.random.default_rng(5)
    alarms = 0
    for seed in range(400):
        values = generator.normal(0.7, 0.1, (2, 10))
        alarms += difference(mean_of(values[0]), mean_of(values[1]), names(10), seed).is_clear
    assert 0.02 <= alarms / 400 <= 0.08  # 5 % of 400, and three standard deviations to either side


def test_a_model_against_itself_shows_no_difference() -> None:
    counts = counts_of(np.random.default_rng(0), 20)
    found = difference(ratios(counts)["iou"], ratios(counts)["iou"], names(20))
    assert (found.value, found.p, found.needed) == (0.0, 1.0, None)
    assert found.interval == Interval(0.0, 0.0)


def test_the_number_of_images_that_would_tell_is_that_of_the_textbook() -> None:
    # of paired differences with mean 0.02 and deviation 0.1: (1.96 + 0.84)^2 (0.1 / 0.02)^2 = 196
    generator = np.random.default_rng(11)
    differences = generator.normal(0.0, 1.0, 50)
    differences = 0.02 + 0.1 * (differences - differences.mean()) / differences.std()
    found = difference(mean_of(0.6 + differences), mean_of(np.full(50, 0.6)), names(50))
    assert found.needed == pytest.approx(196 * 50 / 49, abs=1.0)
    assert not found.is_clear


def test_what_five_images_cannot_tell_takes_six_at_least() -> None:
    values = np.array([0.70, 0.71, 0.72, 0.73, 0.74])
    found = difference(mean_of(values), mean_of(values - 0.1 - 0.001 * values), names(5))
    assert not found.is_clear
    assert found.needed == 6


def test_the_order_of_the_two_turns_the_sign_only() -> None:
    counts = [counts_of(np.random.default_rng(seed), 9) for seed in (1, 2)]
    one, other = (ratios(each)["iou"] for each in counts)
    there, back = difference(one, other, names(9)), difference(other, one, names(9))
    assert there.value == -back.value
    assert there.p == back.p
    assert (there.interval.low, there.interval.high) == pytest.approx((-back.interval.high, -back.interval.low))


def test_pooled_scores_are_compared_and_not_means_of_images() -> None:
    counts = [counts_of(np.random.default_rng(seed), 9) for seed in (1, 2)]
    scores = [Scores(("background", "cell"), names(9), each) for each in counts]
    found = difference(ratios(counts[0])["iou"], ratios(counts[1])["iou"], names(9))
    assert found.value == pytest.approx(scores[0].miou - scores[1].miou)


def test_a_class_that_occurs_nowhere_changes_nothing() -> None:
    counts = [counts_of(np.random.default_rng(seed), 20) for seed in (1, 2)]
    wider = [torch.nn.functional.pad(each, (0, 1, 0, 1)) for each in counts]
    two, three = (difference(ratios(a)["iou"], ratios(b)["iou"], names(20)) for a, b in (counts, wider))
    assert (three.value, three.p, three.needed) == (pytest.approx(two.value), two.p, two.needed)
