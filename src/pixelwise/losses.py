"""What training makes small: pure functions of log-probabilities, and the table `LOSSES` that names them.

Shapes: B batch, K classes, H W image size. Conventions that hold for every loss:

* A pixel's weight says how many times it counts: 0 is a pixel that is not there, 2 is a pixel that is there twice.
  Pixels whose mask is IGNORE have weight 0. A batch in which nothing counts has the loss 0 and the gradient 0.
* Arithmetic is float32 or better, whatever the precision of the logits.
* Everything that is divided is first summed over the batch, and the sums go through `reduce`.

**Several processes.** Let s_r be the sums of process r, S = s_1 + ... + s_W their total, and L = f(S) the loss of one
process that has the whole batch. `reduce` is the all-reduce sum with its true derivative, which is again an all-reduce
sum. Then every process has the value L = f(S), and its gradient is W f'(S) ds_r: each of the W values L depends on s_r.
Data-parallel training averages the gradients of the processes: 1/W times the sum over r of W f'(S) ds_r = f'(S) dS,
the gradient of L. No factor W appears in a loss. Because all processes compute the same f of the same S, the backward
all-reduce may be replaced by a multiplication by W. A `reduce` without derivative on the way back, or with derivative
1, would train with gradients W times too small.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Integer, UInt8
from torch import Tensor

from pixelwise import outside
from pixelwise.classes import IGNORE
from pixelwise.config import LossConfig

Reduce = Callable[[Tensor], Tensor]
"""Sum over processes, differentiable."""

Loss = Callable[
    [Float[Tensor, "B K H W"], Integer[Tensor, "B H W"], Float[Tensor, "B H W"] | None],
    Float[Tensor, ""],
]
"""Logits, mask (class index or IGNORE) and pixel weights (none means 1) to one number."""


Lesson = Callable[[Float[Tensor, "B K H W"], Float[Tensor, "B K H W"]], Float[Tensor, ""]]
"""A network's logits and a teacher's probabilities to how far they are from each other."""


@dataclass(frozen=True)
class Pixels:
    """A batch as every loss needs it; the softmax is taken once."""

    log_probability: Float[Tensor, "B K H W"]
    target: Int64[Tensor, "B H W"]
    """Class index; 0 where the pixel is ignored."""
    weight: Float[Tensor, "B H W"]
    """How many times the pixel counts; 0 where it is ignored."""

    def at_target(self) -> Float[Tensor, "B H W"]:
        """Log-probability of the true class."""
        return self.log_probability.gather(1, self.target[:, None])[:, 0]

    def one_hot(self) -> Float[Tensor, "B K H W"]:
        """The weight of the pixel in the channel of its true class, 0 in the others."""
        return torch.zeros_like(self.log_probability).scatter_(1, self.target[:, None], self.weight[:, None])


Term = Callable[[Pixels], Float[Tensor, ""]]


def alone(sums: Tensor) -> Tensor:
    """The sum over one process."""
    return sums


def read_batch(
    logits: Float[Tensor, "B K H W"], mask: Integer[Tensor, "B H W"], pixel_weight: Float[Tensor, "B H W"] | None = None
) -> Pixels:
    """Log-probabilities in float32 or better, targets that can be used as indices, and weights."""
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    ignored = mask == IGNORE
    ones = torch.ones_like(mask, dtype=exact.dtype) if pixel_weight is None else pixel_weight.to(exact.dtype)
    return Pixels(
        log_probability=torch.log_softmax(exact, dim=1),
        target=mask.masked_fill(ignored, 0).long(),
        weight=ones.masked_fill(ignored, 0.0),
    )


def build(config: LossConfig, class_weights: Float[Tensor, " K"] | None = None, reduce: Reduce = alone) -> Loss:
    """The loss that the settings name.

    Args:
        config: which loss, and its numbers.
        class_weights: weight of each class in cross-entropy and focal loss; none weighs all alike.
        reduce: differentiable sum over processes; the head of this module says what its derivative must be.

    Returns:
        A function of logits "B K H W", mask "B H W" (uint8 or int64; class index or IGNORE) and pixel weights "B H W"
        (not negative; none means 1). A mask value that is neither a class nor IGNORE is an IndexError or RuntimeError.

    Raises:
        ValueError: the settings ask for class weights and none are given.
        ConfigError: a loss of the user's own is not found.
    """
    if config.class_weights != "none" and class_weights is None:
        raise ValueError(f"loss.class_weights is {config.class_weights!r} but no weights were given to build")
    if outside.is_outside(config.name):
        own: Loss = outside.find(config.name, "loss.name")
        return own
    term = LOSSES[config.name](config, class_weights, reduce)

    def loss(
        logits: Float[Tensor, "B K H W"],
        mask: Integer[Tensor, "B H W"],
        pixel_weight: Float[Tensor, "B H W"] | None = None,
    ) -> Float[Tensor, ""]:
        return term(read_batch(logits, mask, pixel_weight))

    return loss


def lesson(config: LossConfig, reduce: Reduce = alone) -> Lesson:
    """What a network learns from a teacher: cross-entropy, and the Dice semimetric where the loss has Dice beside."""
    dice_weight = config.dice_weight if config.name == "dice_cross_entropy" else 0.0
    return partial(to_teacher, dice_weight=dice_weight, reduce=reduce)


def to_teacher(
    logits: Float[Tensor, "B K H W"],
    probabilities: Float[Tensor, "B K H W"],
    dice_weight: float = 0.0,
    reduce: Reduce = alone,
) -> Float[Tensor, ""]:
    """Mean cross-entropy between a teacher's probabilities and the network's (Hinton et al., 2015), of all pixels.

    And dice_weight times the Dice semimetric, 1 - 2 sum min(p, q) / (sum p + sum q) (Wang et al., 2023): for a q of
    zeros and ones it is the Dice loss, and for others it is least where p is q, as the Dice loss is not. It is the
    mean over the classes that the teacher is sure of (q > 1/2) somewhere in the batch; see `tversky` for why.

    Args:
        logits: of the network, which says p.
        probabilities: q of the teacher, summing to 1 over K.
        dice_weight: of the second part.
        reduce: as for `build`.
    """
    log_probability = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)
    lost = -(probabilities * log_probability).sum()
    total, pixels = reduce(torch.stack([lost, lost.new_tensor(probabilities[:, 0].numel())])).unbind()
    entropy = total / pixels
    if dice_weight == 0.0:
        return entropy
    said = log_probability.exp()
    maps = (torch.minimum(said, probabilities), said + probabilities, (probabilities > 0.5).to(said.dtype))
    common, both, sure = reduce(torch.stack([each.sum((0, 2, 3)) for each in maps])).unbind()
    counts = sure > 0
    distance = 1.0 - 2.0 * common / torch.where(both > 0, both, 1.0)
    return entropy + dice_weight * (distance * counts).sum() / counts.sum().clamp(min=1)


def of_levels(
    loss: Loss,
    logits: Float[Tensor, "B K H W"] | list[Float[Tensor, "B K _ _"]],
    mask: Integer[Tensor, "B H W"],
    pixel_weight: Float[Tensor, "B H W"] | None = None,
) -> Float[Tensor, ""]:
    """Deep supervision (Lee et al., 2015): a mean over levels, of which each counts half as much as the one before.

    Args:
        loss: of one level.
        logits: of one level, or of several, that of the mask's size first.
        mask: as for `loss`. A coarser level sees the pixel in the middle of what its place stands for.
        pixel_weight: as for `loss`.
    """
    if isinstance(logits, Tensor):
        return loss(logits, mask, pixel_weight)
    weights = [0.5**level for level in range(len(logits))]
    size = mask.shape[-2:]
    terms = []
    for weight, level in zip(weights, logits, strict=True):
        pairs = zip(size, level.shape[-2:], strict=True)
        rows, columns = (_middles(full, count, mask.device) for full, count in pairs)
        seen = pixel_weight[:, rows][..., columns] if pixel_weight is not None else None
        terms.append(weight / sum(weights) * loss(level, mask[:, rows][..., columns], seen))
    return torch.stack(terms).sum()


def _middles(size: int, count: int, device: torch.device) -> Int64[Tensor, " n"]:
    """The middle pixels of `count` equal parts, the last of which may be cut off; their size is a power of two."""
    step = 1
    while step * count < size:
        step *= 2
    return (torch.arange(count, device=device) * step + step // 2).clamp_max(size - 1)


def cross_entropy(
    pixels: Pixels, class_weights: Float[Tensor, " K"] | None = None, smoothing: float = 0.0, reduce: Reduce = alone
) -> Float[Tensor, ""]:
    """Mean of -log p(true class), each pixel with its weight times the weight of its class.

    Label smoothing (Szegedy et al. 2016, section 7) spreads the share `smoothing` of the target over all classes; with
    class weights it follows torch, where class k's part has the weight of class k.
    """
    price = -pixels.at_target()
    weight = pixels.weight
    if class_weights is not None:
        class_weights = class_weights.to(pixels.log_probability)
        weight = weight * class_weights[pixels.target]
    counted = price * weight
    if smoothing > 0.0:
        spread = -_mean_over_classes(pixels.log_probability, class_weights)
        counted = (1.0 - smoothing) * counted + smoothing * spread * pixels.weight
    return _mean(counted, weight, reduce)


def focal(
    pixels: Pixels, gamma: float = 2.0, class_weights: Float[Tensor, " K"] | None = None, reduce: Reduce = alone
) -> Float[Tensor, ""]:
    """Mean of -(1 - p)^gamma log p, with p the probability of the true class (Lin et al. 2017, equations 4 and 5).

    The class weights are the paper's alpha. The sum is divided by the sum of weights, as in `cross_entropy`, which
    gamma 0 gives exactly; the paper divides by the number of objects, which pixels do not have.
    """
    price = -pixels.at_target()
    weight = pixels.weight
    if class_weights is not None:
        weight = weight * class_weights.to(price)[pixels.target]
    # the derivative of x^gamma at 0 is infinite for gamma < 1
    wrong = (-torch.expm1(-price)).clamp(min=1e-8)
    return _mean(wrong**gamma * price * weight, weight, reduce)


def tversky(pixels: Pixels, alpha: float = 0.3, beta: float = 0.7, reduce: Reduce = alone) -> Float[Tensor, ""]:
    """1 - TP / (TP + alpha FP + beta FN), mean over the classes in the batch (Salehi et al. 2017).

    TP, FP and FN are sums of probabilities over all pixels of the batch. Only classes that occur in the target are
    averaged; there is no smoothing constant. A false positive of an absent class is paid for by the class it displaces,
    since probabilities sum to 1. An average that held absent classes would swing between 0 and 1 with a
    millionth of probability.
    """
    truth = pixels.one_hot()
    probability = pixels.log_probability.exp()
    maps = (probability * truth, probability * pixels.weight[:, None], truth)
    sums = reduce(torch.stack([each.sum((0, 2, 3)) for each in maps]))  # 3 K
    hit, predicted, present = sums.unbind()
    union = hit + alpha * (predicted - hit) + beta * (present - hit)
    score = hit / torch.where(union > 0, union, 1.0)
    counts = present > 0
    return ((1.0 - score) * counts).sum() / counts.sum().clamp(min=1)


def dice(pixels: Pixels, reduce: Reduce = alone) -> Float[Tensor, ""]:
    """1 - 2 sum(p t) / (sum p + sum t), mean over the classes in the batch (Milletari et al. 2016, unsquared).

    It is the Tversky loss with alpha = beta = 1/2, and has its conventions.
    """
    return tversky(pixels, alpha=0.5, beta=0.5, reduce=reduce)


def dice_cross_entropy(
    pixels: Pixels, dice_weight: float = 1.0, class_weights: Float[Tensor, " K"] | None = None,
    smoothing: float = 0.0, reduce: Reduce = alone,
) -> Float[Tensor, ""]:  # fmt: skip
    """`cross_entropy` + dice_weight * `dice`, from one softmax."""
    entropy = cross_entropy(pixels, class_weights, smoothing, reduce)
    return entropy + dice_weight * dice(pixels, reduce)


def lovasz(pixels: Pixels, reduce: Reduce = alone) -> Float[Tensor, ""]:
    """Lovasz-softmax: the Lovasz extension of 1 - IoU (Berman et al. 2018, definition 2).

    Per image, the mean over the classes present in it; then the mean over the images in which anything counts. The
    extension sorts pixels, so it is no function of sums over a batch; taken per image it still does not
    depend on how images are dealt to batches and processes.
    """
    truth = pixels.one_hot().flatten(2)  # B K HW
    weight = pixels.weight.flatten(1)[:, None].expand_as(truth)
    # where a pixel does not count the target is empty; its error has no part in the sums below
    error = (pixels.log_probability.exp().flatten(2) - (truth > 0).to(truth.dtype)).abs()
    present = truth.sum(2) > 0  # B K
    worst, order = error[present].sort(dim=1, descending=True)  # R HW, one row for each present class of an image
    gradient = _jaccard_gradient(truth[present].gather(1, order), weight[present].gather(1, order))
    row_image = present.nonzero()[:, 0]
    price = (worst * gradient).sum(1) / present.sum(1)[row_image]
    return _mean(price, present.any(1).to(price.dtype), reduce)


def _jaccard_gradient(truth: Float[Tensor, "R P"], weight: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
    """How much 1 - IoU grows when pixels, worst first, become errors one after the other (Berman 2018, algorithm 1).

    Intersection and union are sums of weights.
    """
    whole = truth.sum(1, keepdim=True)
    intersection = whole - truth.cumsum(1)
    union = whole + (weight - truth).cumsum(1)
    jaccard = 1.0 - intersection / union
    steps = torch.diff(jaccard, dim=1, prepend=torch.zeros_like(whole))
    return steps.masked_fill(weight == 0, 0.0)  # a parallel cumsum may round differently on both sides of a pixel


def _mean(price: Float[Tensor, "*n"], weight: Float[Tensor, "*m"], reduce: Reduce) -> Float[Tensor, ""]:
    """Sum of prices over sum of weights, over all processes; 0 where nothing counts."""
    numerator, denominator = reduce(torch.stack([price.sum(), weight.sum()])).unbind()
    return numerator / torch.where(denominator > 0, denominator, 1.0)


def _mean_over_classes(
    values: Float[Tensor, "B K H W"], class_weights: Float[Tensor, " K"] | None
) -> Float[Tensor, "B H W"]:
    return values.mean(1) if class_weights is None else (values * class_weights[:, None, None]).mean(1)


LOSSES: dict[str, Callable[[LossConfig, Tensor | None, Reduce], Term]] = {
    "cross_entropy": lambda config, weights, reduce: partial(
        cross_entropy, class_weights=weights, smoothing=config.label_smoothing, reduce=reduce
    ),
    "dice": lambda _config, _weights, reduce: partial(dice, reduce=reduce),
    "dice_cross_entropy": lambda config, weights, reduce: partial(
        dice_cross_entropy,
        dice_weight=config.dice_weight,
        class_weights=weights,
        smoothing=config.label_smoothing,
        reduce=reduce,
    ),
    "focal": lambda config, weights, reduce: partial(
        focal, gamma=config.focal_gamma, class_weights=weights, reduce=reduce
    ),
    "tversky": lambda config, _weights, reduce: partial(
        tversky, alpha=config.tversky_alpha, beta=config.tversky_beta, reduce=reduce
    ),
    "lovasz": lambda _config, _weights, reduce: partial(lovasz, reduce=reduce),
}
"""From `LossConfig.name` to the loss with its settings filled in."""


BORDER_REACH = 6.0
"""Beyond d1 + d2 = 6 sigma the border weight is 0; it would be below 2e-8 of w0."""


def border_weights(mask: UInt8[np.ndarray, "H W"], w0: float, sigma_px: float) -> Float32[np.ndarray, "H W"]:
    """Extra weight of background pixels between close objects (Ronneberger et al. 2015, equation 2, second term).

    w0 exp(-(d1 + d2)^2 / (2 sigma^2)), with d1 and d2 the distances, between pixel centres, to the nearest and the
    second nearest object. Objects are the 8-connected components of each class other than background (class 0). The
    weight of a pixel in the loss is 1 plus this.

    Args:
        mask: class index or IGNORE; ignored pixels are no object and have weight 0.
        w0: weight where the objects touch in the limit; the paper's is 10.
        sigma_px: how fast it falls, in pixels; the paper's is 5.

    Returns:
        0 on objects, on ignored pixels, and everywhere if there are fewer than two objects.
    """
    objects, count = _label_objects(mask)
    if count < 2 or w0 == 0.0:
        return np.zeros(mask.shape, dtype=np.float32)
    nearest, second = _two_distances(objects, reach_px=BORDER_REACH * sigma_px)
    distance = nearest + second
    weight = w0 * np.exp(-(distance**2) / (2.0 * sigma_px**2))
    return np.where((mask == 0) & (distance <= BORDER_REACH * sigma_px), weight, 0.0).astype(np.float32)


def _label_objects(mask: UInt8[np.ndarray, "H W"]) -> tuple[Integer[np.ndarray, "H W"], int]:
    """A number from 1 for each object, 0 elsewhere; and how many there are."""
    from scipy import ndimage

    objects = np.zeros(mask.shape, dtype=np.int32)
    count = 0
    for value in np.unique(mask):
        if value in (0, IGNORE):
            continue
        parts, found = ndimage.label(mask == value, structure=np.ones((3, 3)))
        objects[parts > 0] = parts[parts > 0] + count
        count += found
    return objects, count


def _two_distances(
    objects: Integer[np.ndarray, "H W"], reach_px: float
) -> tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """Distance to the nearest and the second nearest object, in pixels; the sum is exact up to `reach_px`.

    A pixel whose two distances sum to at most the reach has both objects within the reach of its nearest one. So
    one distance transform around each object, of the others, finds the second distance of the pixels nearest to it.
    """
    from scipy import ndimage

    first, where = ndimage.distance_transform_edt(objects == 0, return_indices=True)
    owner = objects[tuple(where)]
    second = np.full(objects.shape, np.inf)
    margin = int(np.ceil(reach_px))
    for number, box in enumerate(ndimage.find_objects(objects), start=1):
        window = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in box)
        others = (objects[window] != 0) & (objects[window] != number)
        if not others.any():
            continue
        mine: Bool[np.ndarray, "h w"] = owner[window] == number
        second[window][mine] = ndimage.distance_transform_edt(~others)[mine]
    return first, second
