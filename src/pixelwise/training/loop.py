"""The loop: forward, loss, backward, step, in the order in which they happen.

B batch, C channels, K classes, H W patch, h w window.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from lightning_fabric import Fabric
from torch import Tensor

from pixelwise import outside
from pixelwise.config import Config, TrainingConfig
from pixelwise.data.augment import augment, augment_with_maps
from pixelwise.data.cache import Decoded
from pixelwise.data.loader import Batch
from pixelwise.errors import TrainingError
from pixelwise.inference.predictor import Model
from pixelwise.inference.scoring import count
from pixelwise.launcher import Share
from pixelwise.losses import Lesson, Loss, border_weights, of_levels
from pixelwise.metrics import Scores
from pixelwise.models.blocks import centre_crop
from pixelwise.models.unet import Logits
from pixelwise.training.clock import Clock
from pixelwise.training.health import SETBACKS, SLOWER, Vitals, failure, signs
from pixelwise.training.history import Epoch, History
from pixelwise.training.processes import largest, total_over_processes
from pixelwise.training.teaching import unpacked
from pixelwise.training.update import State, Update


@dataclass(frozen=True)
class Fit:
    """All that the loop works with."""

    fabric: Fabric
    config: Config
    update: Update
    loss: Loss
    model: Model
    """The averaged weights as a predictor: what is validated and kept."""
    validation: Sequence[Decoded]
    clock: Clock
    """Says how far the run is, and when it is over: out of steps, out of time, or stopped by someone."""
    on_step: Callable[[int, float], None]
    """Told the step and the progress of the run, 0 to 1, after every update."""
    after_epoch: Callable[[History, bool, State], None]
    """Told the history, whether the model is the best so far, and the state of the update: saves, prints."""
    after_setback: Callable[[History, State], None]
    """Told that the state is again that after the last epoch of the history: saves, tells."""
    lesson: Lesson
    """What a teacher adds to the loss, of batches that hold what it says."""


def fit(job: Fit, batches_from: Callable[[int], Iterator[Batch]], history: History, steps_per_epoch: int) -> None:
    """Train until the last epoch, the end of the budget, or someone's request; at least one step."""
    batches, good = batches_from(history.step), job.update.state()
    while not history.epochs or (job.clock.progress(history.step) < 1.0 and not out_of_patience(job, history)):
        began, first_step = time.monotonic(), history.step
        boundary = (first_step // steps_per_epoch + 1) * steps_per_epoch
        train_loss, waited = train_epoch(job, batches, history, boundary)
        if outside.is_outside(job.config.loss.name):  # each process knows the loss of its share only
            train_loss = float(total_over_processes(job.fabric, torch.tensor(train_loss))) / job.fabric.world_size
        reason = failure([row.train_loss for row in history.epochs], train_loss, finite=_all_finite(job))
        if reason is not None:
            set_back(job, history, reason, good)
            batches = batches_from(history.step)
            continue
        good = {}  # let go before the next is made, if it is not being written: it is as large as network and optimiser
        good = job.update.state()
        seconds = time.monotonic() - began
        rate = (history.step - first_step) * job.config.training.batch_size / seconds
        began = time.monotonic()
        epoch = validate(job, history, train_loss, rate, waited / seconds)
        job.clock.note_validation(time.monotonic() - began)
        job.after_epoch(history, history.add(epoch), good)


def _all_finite(job: Fit) -> bool:
    """Whether all numbers that the next update depends on are, in every process."""
    return largest(job.fabric, 0.0 if job.update.is_finite() else 1.0) == 0.0


def set_back(job: Fit, history: History, reason: str, good: State) -> None:
    """Return to the state after the last epoch that went well, and go on with a lower learning rate.

    Args:
        job: what trains.
        history: which goes back too.
        reason: why.
        good: the state to return to.

    Raises:
        TrainingError: this has been tried before, and did not help.
    """
    rate = job.config.training.learning_rate * history.rate_scale
    if len(history.setbacks) >= SETBACKS:
        raise TrainingError(
            f"{reason} It did not help to lower the learning rate to {rate:.2g}.",
            remedy="Look at what the network sees with `pixelwise preview`; try training.precision=float32.",
        )
    history.step = history.epochs[-1].step if history.epochs else 0
    history.rate_scale *= SLOWER
    history.setbacks.append(
        f"{reason} Training went back to step {history.step}, with a learning rate of {rate * SLOWER:.2g} in place of "
        f"{rate:.2g}."
    )
    job.update.put_back(good)
    job.update.rate_scale = history.rate_scale
    job.after_setback(history, good)


def train_epoch(job: Fit, batches: Iterator[Batch], history: History, boundary: int) -> tuple[float, float]:
    """Updates up to step `boundary`; returns the mean loss over them, and the seconds of waiting for batches."""
    job.update.begin_training()
    waited = 0.0
    total = torch.zeros((), device=job.fabric.device)
    first_step, progress = history.step, job.clock.progress(history.step)
    while history.step < boundary:
        # dropout follows from seed, step and process alone, so that a resumed run draws the same
        torch.manual_seed((job.config.seed * 1_000_003 + history.step) * 1_009 + job.fabric.global_rank)
        began = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - began if history.step > first_step else 0.0  # the first one waits for all to start
        total += train_step(job, batch, history.step, progress)
        history.step += 1
        progress = job.clock.progress(history.step)
        job.on_step(history.step, progress)
        if progress >= 1.0:
            break
    # a loss is that of the whole batch in every process; see pixelwise.losses
    return float(total) / (history.step - first_step), waited


def train_step(job: Fit, batch: Batch, step: int, progress: float) -> Float[Tensor, ""]:
    """One update from one batch; returns the detached loss, still on the device."""
    patches = _patches(job, batch)
    weights = part_weights(job.config.training, job.fabric.world_size)
    total = torch.zeros((), device=job.fabric.device)
    for number, some in enumerate(patches.parts(len(weights))):
        with job.update.part(is_last=number == len(weights) - 1):
            loss = _loss(job, some) * weights[number]
            job.update.backward(loss)
        total += loss.detach()
    job.update.step(step, progress)
    return total


def part_weights(training: TrainingConfig, processes: int) -> list[float]:
    """The share of a batch's patches, over all processes, that each part of a step has: a loss is that of all of them.

    There are no more parts than the smallest share of a process has patches: all wait for each other in each part.
    """
    batch = training.batch_size
    count = min(training.accumulate, max(1, batch // processes))
    shares = [len(Share(rank, processes).of(0, batch)) for rank in range(processes)]
    sizes = [sum(share // count + (part < share % count) for share in shares) for part in range(count)]
    return [size / batch for size in sizes]


@dataclass(frozen=True)
class _Patches:
    """What the network sees of a batch, and what it is to say."""

    image: Float[Tensor, "B C H W"]
    mask: UInt8[Tensor, "B H W"]
    told: UInt8[Tensor, "B N H W"] | None = None
    """What a teacher says, packed: unpacked it is many times as large."""

    def parts(self, count: int) -> "Iterator[_Patches]":
        """The same in so many parts."""
        images, masks = self.image.tensor_split(count), self.mask.tensor_split(count)
        told = self.told.tensor_split(count) if self.told is not None else [None] * count
        return map(_Patches, images, masks, told)


def _patches(job: Fit, batch: Batch) -> _Patches:
    """Patches of the windows, augmented on the device."""
    device, augmenting, size = job.fabric.device, job.config.augment, job.config.data.patch_size
    window, truth, scaling = (part.to(device, non_blocking=True) for part in (batch.image, batch.mask, batch.scaling))
    if batch.told is None:
        return _Patches(*augment(window, truth, batch.seeds, size, augmenting, scaling))
    told = batch.told.to(device, non_blocking=True)
    return _Patches(*augment_with_maps(window, truth, told, batch.seeds, size, augmenting, scaling))


def _loss(job: Fit, patches: _Patches) -> Float[Tensor, ""]:
    logits: Logits = job.update.network(patches.image.contiguous(memory_format=torch.channels_last))
    finest = logits if isinstance(logits, Tensor) else logits[0]
    size = (finest.shape[-2], finest.shape[-1])
    mask = centre_crop(patches.mask, size)  # unpadded networks give less
    loss = of_levels(job.loss, logits, mask, pixel_weights(mask, job.config))
    if patches.told is None:
        return loss
    said = unpacked(centre_crop(patches.told, size), len(job.model.classes))
    share = job.config.loss.teacher_weight
    return (1.0 - share) * loss + share * job.lesson(finest, said)


def pixel_weights(mask: Tensor, config: Config) -> Float[Tensor, "B H W"] | None:
    """Weights of the paper's equation 2, if they are asked for."""
    if not config.loss.border_weight:
        return None
    maps = [
        1.0 + border_weights(one.cpu().numpy(), config.loss.border_weight, config.loss.border_sigma_px) for one in mask
    ]
    return torch.stack([torch.from_numpy(weights) for weights in maps]).to(mask.device)


def validate(
    job: Fit, history: History, train_loss: float, images_per_second: float, waiting_share: float = 0.0
) -> Epoch:
    """Score the averaged weights on the validation split, each image by one process."""
    rank, processes = job.fabric.global_rank, job.fabric.world_size
    job.update.begin_validation()
    counts, loss = count(job.model, job.validation[rank::processes])
    counts, loss = (total_over_processes(job.fabric, part) for part in (counts, loss))
    scores = Scores(classes=tuple(job.model.classes.names), names=("validation",), counts=counts[None])
    validation_loss = float(loss / counts.sum()) if counts.sum() else math.nan
    vitals = Vitals(
        [*(row.train_loss for row in history.epochs), train_loss],
        [*(row.validation_loss for row in history.epochs), validation_loss],
        true_classes=int((scores.pooled.sum(1) > 0).sum()),
        predicted_classes=int((scores.pooled.sum(0) > 0).sum()),
        guess_loss=_entropy(scores.pooled.sum(1).double()),
        waiting_share=waiting_share,
        workers=job.config.data.workers,
        is_resident=job.config.data.resident and job.fabric.device.type == "cuda",
    )
    return Epoch(
        epoch=len(history.epochs),
        step=history.step,
        seconds=job.clock.trained(),
        train_loss=train_loss,
        validation_loss=validation_loss,
        miou=scores.miou,
        dice=scores.mean_dice,
        iou=[None if math.isnan(value) else value for value in scores.iou.tolist()],
        learning_rate=job.update.learning_rate,
        images_per_second=images_per_second,
        warnings=_news(history, signs(vitals)),
    )


def _entropy(pixels: Float[Tensor, " K"]) -> float:
    shares = pixels[pixels > 0] / pixels.sum()
    return float(-(shares * shares.log()).sum())


def _news(history: History, found: dict[str, str]) -> dict[str, str]:
    """Setbacks and signs that no epoch has told of."""
    setbacks = {f"setback {number}": text for number, text in enumerate(history.setbacks, 1)}
    told = {name for row in history.epochs for name in row.warnings}
    return {name: text for name, text in {**setbacks, **found}.items() if name not in told}


def out_of_patience(job: Fit, history: History) -> bool:
    """No better score for `patience` epochs."""
    patience = job.config.training.patience
    return patience > 0 and len(history.epochs) - 1 - history.best_epoch >= patience
