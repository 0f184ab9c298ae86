"""One contract for every loss of the table, referees for each, and the border weights by hand."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from skimage.measure import label as referee_label
from sklearn.metrics import f1_score, jaccard_score
from torch import Tensor

from pixelwise.classes import IGNORE
from pixelwise.config import LossConfig
from pixelwise.losses import LOSSES, Loss, _middles, border_weights, build, of_levels

K = 3
WEIGHTS = torch.tensor([0.5, 1.0, 3.0])
CASES: dict[str, tuple[LossConfig, Tensor | None]] = {
    **{name: (LossConfig.model_validate({"name": name}), None) for name in LOSSES},
    "cross_entropy, class weights": (LossConfig(name="cross_entropy"), WEIGHTS),
    "cross_entropy, smoothing": (LossConfig(name="cross_entropy", label_smoothing=0.1), None),
    "cross_entropy, weights and smoothing": (LossConfig(name="cross_entropy", label_smoothing=0.1), WEIGHTS),
    "dice_cross_entropy, little dice": (LossConfig(name="dice_cross_entropy", dice_weight=0.2), WEIGHTS),
    "focal, gamma 0.5": (LossConfig(name="focal", focal_gamma=0.5), WEIGHTS),
    "tversky, false positives only": (LossConfig(name="tversky", tversky_alpha=1.0, tversky_beta=0.0), None),
}


def batch(seed: int = 0, size: tuple[int, int, int] = (4, 6, 7), dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Logits, mask with every class and ignored pixels, pixel weights."""
    generator = torch.Generator().manual_seed(seed)
    images, height, width = size
    logits = torch.randn((images, K, height, width), generator=generator, dtype=dtype) * 2
    mask = torch.randint(0, K, size, generator=generator)
    mask[:, 0, :3] = IGNORE
    weight = torch.rand(size, generator=generator, dtype=dtype) + 0.5
    return [logits, mask, weight]


def one_hot(mask: Tensor) -> Tensor:
    """Channels of truth, 0 where ignored."""
    return torch.stack([mask == k for k in range(K)], dim=1).double()


def value_and_gradient(loss: Loss, logits: Tensor, mask: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, mask, weight)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


# the laws: each takes a finished loss


def perfect_is_zero(loss: Loss) -> None:
    _, mask, weight = batch()
    assert 0.0 <= float(loss(60 * one_hot(mask), mask, weight)) < 1e-6


def worse_is_larger(loss: Loss) -> None:
    _, mask, weight = batch()
    values = [float(loss(strength * one_hot(mask), mask, weight)) for strength in (6.0, 4.0, 2.0, 0.0, -2.0, -4.0)]
    assert values == sorted(values)
    assert len(set(values)) == len(values)


def ignored_pixels_do_not_matter(loss: Loss) -> None:
    logits, mask, weight = batch()
    mask[:, :, 5:] = IGNORE
    value, gradient = value_and_gradient(loss, logits, mask, weight)
    other = torch.where((mask == IGNORE)[:, None], 50 * torch.randn_like(logits), logits)
    torch.testing.assert_close(loss(other, mask, weight), value)
    torch.testing.assert_close(loss(logits[..., :5], mask[..., :5], weight[..., :5]), value)
    assert not gradient[(mask == IGNORE)[:, None].expand_as(gradient)].any()
    assert gradient.any()


def all_ignored_is_zero_and_finite(loss: Loss) -> None:
    logits, mask, weight = batch()
    for pixel_weight in (weight, None):
        value, gradient = value_and_gradient(loss, logits, torch.full_like(mask, IGNORE), pixel_weight)
        assert float(value) == 0.0
        assert not gradient.any()


def one_image_all_ignored_does_not_matter(loss: Loss) -> None:
    logits, mask, weight = batch()
    mask[0] = IGNORE
    torch.testing.assert_close(loss(logits, mask, weight), loss(logits[1:], mask[1:], weight[1:]))


def weight_zero_is_an_ignored_pixel(loss: Loss) -> None:
    logits, mask, weight = batch()
    hidden = torch.rand_like(weight) < 0.3
    torch.testing.assert_close(
        loss(logits, mask, weight.masked_fill(hidden, 0.0)), loss(logits, mask.masked_fill(hidden, IGNORE), weight)
    )


def weight_two_is_the_pixel_twice(loss: Loss) -> None:
    logits, mask, _ = batch()
    weight = torch.ones(mask.shape, dtype=logits.dtype)
    weight[..., 4:] = 2.0
    twice = [torch.cat([values, values[..., 4:]], dim=-1) for values in (logits, mask)]
    torch.testing.assert_close(loss(logits, mask, weight), loss(*twice, None))


def no_weights_are_ones(loss: Loss) -> None:
    logits, mask, weight = batch()
    torch.testing.assert_close(loss(logits, mask, None), loss(logits, mask, torch.ones_like(weight)))


def order_of_batch_does_not_matter(loss: Loss) -> None:
    parts = batch()
    mixed = [values[torch.tensor([2, 0, 3, 1])] for values in parts]
    torch.testing.assert_close(loss(*mixed), loss(*parts))


def gradient_agrees_with_finite_differences(loss: Loss) -> None:
    logits, mask, weight = batch(size=(2, 3, 4))
    assert torch.autograd.gradcheck(lambda x: loss(x, mask, weight), logits.requires_grad_())


def gradient_is_finite_where_the_network_is_certain(loss: Loss) -> None:
    logits, mask, weight = batch(dtype=torch.float32)
    for strength in (1e4, -1e4):
        value, gradient = value_and_gradient(loss, strength * one_hot(mask).float(), mask, weight)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()
    assert torch.isfinite(value_and_gradient(loss, 1e3 * logits, mask, weight)[1]).all()


def bfloat16_is_close_to_float32(loss: Loss) -> None:
    logits, mask, weight = batch(dtype=torch.float32)
    low = logits.bfloat16()
    value = loss(low, mask, weight)
    assert value.dtype == torch.float32
    assert value == loss(low.float(), mask, weight)
    torch.testing.assert_close(value, loss(logits, mask, weight), rtol=1e-2, atol=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(low, mask, weight) == value


def mask_of_bytes_and_memory_format_do_not_matter(loss: Loss) -> None:
    logits, mask, weight = batch()
    value = loss(logits, mask, weight)
    assert loss(logits, mask.to(torch.uint8), weight) == value
    torch.testing.assert_close(loss(logits.contiguous(memory_format=torch.channels_last), mask, weight), value)


def channels_of_a_class_that_is_nowhere_do_not_add_noise(loss: Loss) -> None:
    logits, mask, weight = batch()
    mask[mask == 2] = 0
    nearly_never, never = logits.clone(), logits.clone()
    nearly_never[:, 2], never[:, 2] = -30.0, -60.0
    torch.testing.assert_close(loss(nearly_never, mask, weight), loss(never, mask, weight), rtol=0, atol=1e-8)


LAWS: list[Callable[[Loss], None]] = [
    perfect_is_zero,
    worse_is_larger,
    ignored_pixels_do_not_matter,
    all_ignored_is_zero_and_finite,
    one_image_all_ignored_does_not_matter,
    weight_zero_is_an_ignored_pixel,
    weight_two_is_the_pixel_twice,
    no_weights_are_ones,
    order_of_batch_does_not_matter,
    gradient_agrees_with_finite_differences,
    gradient_is_finite_where_the_network_is_certain,
    bfloat16_is_close_to_float32,
    mask_of_bytes_and_memory_format_do_not_matter,
    channels_of_a_class_that_is_nowhere_do_not_add_noise,
]
SMOOTHED = "label smoothing asks for a probability below 1, so certainty costs"
EXCEPTIONS: dict[tuple[str, Callable[[Loss], None]], str] = {
    (case, law): SMOOTHED
    for case in ("cross_entropy, smoothing", "cross_entropy, weights and smoothing")
    for law in (perfect_is_zero, worse_is_larger, channels_of_a_class_that_is_nowhere_do_not_add_noise)
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("case", CASES)
def test_loss_keeps_law(case: str, law: Callable[[Loss], None]) -> None:
    config, weights = CASES[case]
    if (case, law) in EXCEPTIONS:
        with pytest.raises(AssertionError):
            law(build(config, weights))
        return
    law(build(config, weights))


def test_the_table_has_the_losses_of_the_settings() -> None:
    named, _own = get_args(LossConfig.model_fields["name"].annotation)
    assert set(LOSSES) == set(get_args(named))


def test_class_weights_that_are_asked_for_must_be_given() -> None:
    with pytest.raises(ValueError, match="'balanced' but no weights"):
        build(LossConfig(class_weights="balanced"), None)


def test_a_mask_value_that_is_no_class_is_refused() -> None:
    logits, mask, _ = batch()
    mask[0, 3, 3] = K
    with pytest.raises((IndexError, RuntimeError)):
        build(LossConfig(), None)(logits, mask, None)


# several processes


def dealt(losses: Callable[[Callable[[Tensor], Tensor]], Loss], parts: list[list[Tensor]]) -> Iterator[Loss]:
    """The loss of each process, where `reduce` adds the sums of the others, and its derivative those of all."""
    sums: list[list[Tensor]] = []
    for part in parts:
        own: list[Tensor] = []
        sums.append(own)

        def note(local: Tensor, own: list[Tensor] = own) -> Tensor:
            own.append(local.detach())
            return local

        losses(note)(*part)
    for _ in parts:
        calls = count()

        def reduce(local: Tensor, calls: Iterator[int] = calls) -> Tensor:
            index = next(calls)
            total = torch.stack([own[index] for own in sums]).sum(0)
            return total + len(sums) * (local - local.detach())  # derivative: all W losses depend on these sums

        yield losses(reduce)


@pytest.mark.parametrize("case", CASES)
def test_averaged_gradients_of_two_processes_are_those_of_one_with_the_whole_batch(case: str) -> None:
    config, weights = CASES[case]
    whole = batch()
    whole[1][0] = IGNORE  # the processes have unequal shares of what counts,
    whole[1][2][whole[1][2] == 2] = 0  # and of the classes
    whole[1][3][whole[1][3] == 2] = 0
    parts = [[values[:2] for values in whole], [values[2:] for values in whole]]
    expected, expected_gradient = value_and_gradient(build(config, weights), *whole)
    gradient = torch.zeros_like(whole[0])
    for index, loss in enumerate(dealt(lambda reduce: build(config, weights, reduce), parts)):
        value, local = value_and_gradient(loss, *parts[index])
        torch.testing.assert_close(value, expected)
        gradient[2 * index : 2 * index + 2] = local / 2  # the average over processes of dL/d(their own images)
    torch.testing.assert_close(gradient, expected_gradient)


# referees


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_agrees_with_torch(smoothing: float, weights: Tensor | None) -> None:
    logits, mask, _ = batch()
    ours = build(LossConfig(name="cross_entropy", label_smoothing=smoothing), weights)
    referee = torch.nn.CrossEntropyLoss(
        weights.double() if weights is not None else None, ignore_index=IGNORE, label_smoothing=smoothing
    )
    torch.testing.assert_close(ours(logits, mask, None), referee(logits, mask))


@pytest.mark.parametrize("name", ["dice", "lovasz"])
def test_for_hard_predictions_the_loss_is_one_minus_the_score(name: str) -> None:
    logits, mask, _ = batch(size=(1, 20, 20))
    prediction = logits.argmax(1)
    referee = {"dice": f1_score, "lovasz": jaccard_score}[name]
    counted = mask != IGNORE
    expected = 1 - referee(mask[counted], prediction[counted], average="macro")
    loss = build(LossConfig.model_validate({"name": name}))
    assert float(loss(100 * one_hot(prediction), mask, None)) == pytest.approx(expected, abs=1e-9)


def test_dice_by_hand() -> None:
    # two classes, three pixels: p(1) = 0.8, 0.5, 0.2 with truth 1, 0, 0
    probability = torch.tensor([0.8, 0.5, 0.2], dtype=torch.float64)
    logits = torch.stack([(1 - probability).log(), probability.log()])[None, :, None]
    mask = torch.tensor([[[1, 0, 0]]])
    class_0 = 2 * (0.5 + 0.8) / ((0.2 + 0.5 + 0.8) + 2)
    class_1 = 2 * 0.8 / ((0.8 + 0.5 + 0.2) + 1)
    expected = 1 - (class_0 + class_1) / 2
    assert float(build(LossConfig(name="dice"))(logits, mask, None)) == pytest.approx(expected, abs=1e-12)
    # of class 0 only: class 1 is in no target, so it is left out
    absent = build(LossConfig(name="dice"))(logits, torch.zeros_like(mask), None)
    assert float(absent) == pytest.approx(1 - 2 * 1.5 / (1.5 + 3), abs=1e-12)


def test_tversky_by_hand() -> None:
    probability = torch.tensor([0.8, 0.5, 0.2], dtype=torch.float64)
    logits = torch.stack([(1 - probability).log(), probability.log()])[None, :, None]
    mask = torch.tensor([[[1, 0, 0]]])
    class_1 = 0.8 / (0.8 + 0.3 * 0.7 + 0.7 * 0.2)  # FP = 0.5 + 0.2, FN = 1 - 0.8
    class_0 = 1.3 / (1.3 + 0.3 * 0.2 + 0.7 * 0.7)
    loss = build(LossConfig(name="tversky", tversky_alpha=0.3, tversky_beta=0.7))
    assert float(loss(logits, mask, None)) == pytest.approx(1 - (class_0 + class_1) / 2, abs=1e-12)


def test_focal_by_hand_and_gamma_zero_is_cross_entropy() -> None:
    probability = torch.tensor([0.9, 0.6], dtype=torch.float64)
    logits = torch.stack([(1 - probability).log(), probability.log()])[None, :, None]
    mask = torch.tensor([[[1, 0]]])
    expected = (-(0.1**2) * np.log(0.9) - 0.6**2 * np.log(0.4)) / 2
    assert float(build(LossConfig(name="focal"))(logits, mask, None)) == pytest.approx(expected, abs=1e-12)
    parts = batch()
    plain = build(LossConfig(name="cross_entropy"), WEIGHTS)(*parts)
    torch.testing.assert_close(build(LossConfig(name="focal", focal_gamma=0.0), WEIGHTS)(*parts), plain)


def test_dice_cross_entropy_is_the_weighted_sum() -> None:
    parts = batch()
    whole = build(LossConfig(dice_weight=0.7), WEIGHTS)(*parts)
    entropy = build(LossConfig(name="cross_entropy"), WEIGHTS)(*parts)
    torch.testing.assert_close(whole, entropy + 0.7 * build(LossConfig(name="dice"))(*parts))


def test_levels_count_half_as_much_each_and_see_the_pixels_in_the_middle() -> None:
    """Of a mask of 5 x 4, a level of 3 x 2 sees rows 1, 3, 4 and columns 1, 3: a place stands for 2 x 2 pixels."""
    loss = build(LossConfig(name="cross_entropy"))
    logits, mask, weight = batch(size=(2, 5, 4))
    coarse = torch.randn((2, K, 3, 2), dtype=torch.float64)
    seen = mask[:, [1, 3, 4]][:, :, [1, 3]]
    seen_weight = weight[:, [1, 3, 4]][:, :, [1, 3]]
    expected = (2 * loss(logits, mask, weight) + loss(coarse, seen, seen_weight)) / 3
    torch.testing.assert_close(of_levels(loss, [logits, coarse], mask, weight), expected)
    torch.testing.assert_close(of_levels(loss, logits, mask), loss(logits, mask, None))
    torch.testing.assert_close(of_levels(loss, [logits], mask), loss(logits, mask, None))


@pytest.mark.parametrize(("size", "step"), [(33, 8), (50, 4), (37, 2), (64, 16), (5, 2)])
def test_a_level_sees_the_middle_of_each_of_its_places(size: int, step: int) -> None:
    places = -(-size // step)
    expected = [min(place * step + step // 2, size - 1) for place in range(places)]
    assert _middles(size, places, torch.device("cpu")).tolist() == expected


def test_lovasz_is_the_extension_of_the_jaccard_loss_by_its_definition() -> None:
    logits, mask, _ = batch(seed=3, size=(3, 3, 4))
    mask[1][mask[1] == 2] = 0  # classes present differ between images
    probability = torch.softmax(logits, 1)
    images = []
    for index in range(3):
        pixels = [tuple(pixel) for pixel in (mask[index] != IGNORE).nonzero().tolist()]
        prices = []
        for k in range(K):
            truth = {pixel for pixel in pixels if mask[index][pixel] == k}
            if truth:
                errors = {p: abs(float(p in truth) - float(probability[(index, k, *p)])) for p in pixels}
                prices.append(extension(errors, truth))
        images.append(np.mean(prices))
    assert float(build(LossConfig(name="lovasz"))(logits, mask, None)) == pytest.approx(np.mean(images), abs=1e-12)


def extension(errors: dict[tuple[int, ...], float], truth: set[tuple[int, ...]]) -> float:
    """Sum of errors, largest first, each times the growth of the set function (definition 2 of Berman et al.)."""

    def jaccard_loss(wrong: set[tuple[int, ...]]) -> float:
        predicted = truth ^ wrong
        return 1 - len(truth & predicted) / len(truth | predicted)

    worst_first = sorted(errors, key=errors.__getitem__, reverse=True)
    values = [jaccard_loss(set(worst_first[:i])) for i in range(len(worst_first) + 1)]
    return sum(errors[p] * (values[i + 1] - values[i]) for i, p in enumerate(worst_first))


# border weights


def squares() -> np.ndarray:
    """Two 2x2 squares of class 1, four columns apart."""
    mask = np.zeros((4, 10), dtype=np.uint8)
    mask[1:3, 1:3] = 1
    mask[1:3, 7:9] = 1
    return mask


def test_border_weights_between_two_squares_by_hand() -> None:
    weights = border_weights(squares(), w0=10.0, sigma_px=5.0)
    assert weights.dtype == np.float32
    # row 1, column 4: 2 px to column 2, 3 px to column 7; row 0, column 3: one row and one or four columns away
    assert weights[1, 4] == pytest.approx(10 * np.exp(-(5**2) / 50))
    assert weights[0, 3] == pytest.approx(10 * np.exp(-((2**0.5 + 17**0.5) ** 2) / 50))
    assert not weights[squares() > 0].any()
    np.testing.assert_allclose(weights, weights[:, ::-1])


def naive_border(mask: np.ndarray, w0: float, sigma_px: float) -> np.ndarray:
    """Equation 2 by all distances of all pixels."""
    objects = referee_label(np.where(mask == IGNORE, 0, mask), connectivity=2)
    places = np.argwhere(np.ones(mask.shape, dtype=bool))
    distances = [cdist(places, np.argwhere(objects == i)).min(1) for i in range(1, objects.max() + 1)]
    nearest = np.sort(distances, axis=0)
    weights = w0 * np.exp(-((nearest[0] + nearest[1]) ** 2) / (2 * sigma_px**2)).reshape(mask.shape)
    return np.where(mask == 0, weights, 0.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sigma_px", [0.7, 5.0])
def test_border_weights_agree_with_all_distances(seed: int, sigma_px: float) -> None:
    generator = np.random.default_rng(seed)
    mask = np.where(generator.random((40, 50)) < 0.04, generator.integers(1, 3, (40, 50)), 0).astype(np.uint8)
    mask[10:14, 20:30] = 1  # a large object, touching one of another class
    mask[14:16, 20:30] = 2
    mask[generator.random(mask.shape) < 0.05] = IGNORE
    np.testing.assert_allclose(border_weights(mask, 10.0, sigma_px), naive_border(mask, 10.0, sigma_px), atol=1e-6)


@pytest.mark.parametrize("objects", [0, 1])
def test_border_weights_of_fewer_than_two_objects_are_zero(objects: int) -> None:
    mask = squares()
    mask[:, 5 * objects :] = 0
    assert not border_weights(mask, 10.0, 5.0).any()


def test_touching_objects_of_two_classes_are_two_objects_and_diagonal_pixels_one() -> None:
    assert border_weights(np.array([[0, 1, 2, 0]], dtype=np.uint8), 10.0, 5.0)[0, 0] == pytest.approx(
        10 * np.exp(-(3**2) / 50)
    )
    assert not border_weights(np.array([[1, 0], [0, 1]], dtype=np.uint8), 10.0, 5.0).any()
