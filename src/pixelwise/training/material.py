"""The data of a run, ready for training: decoded, split, measured, and as a stream of windows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Bool

from pixelwise.config import Config, Preprocessing
from pixelwise.data import split as splits
from pixelwise.data.alike import ALIKE, Likeness
from pixelwise.data.augment import window_size
from pixelwise.data.cache import Cache, Decoded, unify_channels, with_channels
from pixelwise.data.dataset import SPLIT_NAMES, Dataset
from pixelwise.data.fingerprint import Fingerprint, measure
from pixelwise.data.loader import Sampling, Told, Windows
from pixelwise.errors import ConfigError
from pixelwise.training.watch import Watcher


@dataclass(frozen=True)
class Material:
    """Data ready for training."""

    cache: Cache
    split: splits.Split
    train: Sequence[Decoded]
    validation: Sequence[Decoded]
    """At their original size."""
    fingerprint: Fingerprint
    told: Sequence[Told] | None = None
    """What a teacher says of each training image; none without one."""

    @cached_property
    def test_pixels(self) -> int:
        """Of all test images, each of which is opened to know it."""
        return sum(self.cache.open(case).pixels for case in self.split.test)


def prepare(dataset: Dataset, config: Config, split: splits.Split | None, watcher: Watcher) -> Material:
    """Decode all images, split them, and measure the training side.

    Args:
        dataset: all cases.
        config: settings of data and seed.
        split: that of a run that is resumed, or of the first process; none draws one.
        watcher: told how many images are read.
    """
    cache, decoded = opened(dataset, config, watcher)
    by_name = {case.case.name: case for case in decoded}
    split = split or _split(dataset, decoded, config)
    train, validation = ([by_name[case.name] for case in side] for side in (split.train, split.validation))
    return Material(cache, split, train, validation, measure(train, dataset.classes.background))


def opened(dataset: Dataset, config: Config, watcher: Watcher) -> tuple[Cache, list[Decoded]]:
    """All images, decoded once and with equal channels, and the cache that they lie in."""
    cache = Cache.of(config, dataset)
    decoded = cache.open_all(dataset.cases, progress=partial(watcher.work, "reading images"))
    return cache, unify_channels(decoded)


def _split(dataset: Dataset, decoded: Sequence[Decoded], config: Config) -> splits.Split:
    same: dict[str, list[int]] = {}
    for index, case in enumerate(decoded):
        same.setdefault(case.digest, []).append(index)
    alike = [indices for indices in same.values() if len(indices) > 1]
    duplicates = [indices for indices in alike if not decoded[indices[0]].is_constant]
    likeness = Likeness([case.coarse for case in decoded])
    split = splits.assign(dataset, _strata(decoded), duplicates, config.data, config.seed, likeness.pairs(ALIKE))
    return replace(split, nearest=_nearest_across(split, dataset, likeness))


def _strata(decoded: Sequence[Decoded]) -> Bool[np.ndarray, "N S"]:
    """What is spread evenly over the sides: which classes an image has, and whether it has much of them."""
    pixels = np.stack([case.class_pixels for case in decoded])
    shares = pixels / np.maximum(1, pixels.sum(axis=1, keepdims=True))
    present = pixels > 0
    usual = np.array(
        [np.median(column[here]) if here.any() else 0.0 for column, here in zip(shares.T, present.T, strict=True)]
    )
    return np.concatenate([present, shares > usual], axis=1)


def _nearest_across(split: splits.Split, dataset: Dataset, likeness: Likeness) -> splits.Nearest | None:
    """The two cases on different sides that are most alike."""
    index = {case.name: number for number, case in enumerate(dataset.cases)}
    train, validation, test = (
        np.array([index[case.name] for case in split.side(name)], dtype=np.intp) for name in SPLIT_NAMES
    )
    pairs = [likeness.nearest(*sides) for sides in ((train, validation), (train, test), (validation, test))]
    closest = max((pair for pair in pairs if pair is not None), key=lambda pair: pair.similarity, default=None)
    if closest is None:
        return None
    return splits.Nearest(dataset.cases[closest.first].name, dataset.cases[closest.second].name, closest.similarity)


def resized(material: Material, config: Config) -> Material:
    """Training images at the size the network shall see, and the measurements of those."""
    if config.data.resize is None:
        return material
    cases, channels = [case.case for case in material.train], material.fingerprint.channels
    train = [with_channels(case, channels) for case in material.cache.open_all(cases, config.data.resize)]
    fingerprint = measure(train, material.cache.dataset.classes.background)
    return Material(material.cache, material.split, train, material.validation, fingerprint)


def windows(config: Config, material: Material) -> Windows:
    """The samples that training draws from."""
    patch = config.data.patch_size
    sampling = Sampling(patch, window_size(patch, config.augment), config.data.foreground_fraction, config.seed)
    return Windows(material.train, preprocessing(config, material.fingerprint), sampling, material.told)


def preprocessing(config: Config, fingerprint: Fingerprint) -> Preprocessing:
    """What is done to images before this network sees them."""
    return Preprocessing(
        channels=fingerprint.channels,
        normalisation=config.data.normalisation,
        mean=fingerprint.mean,
        deviation=fingerprint.deviation,
        types=fingerprint.types,
        largest=fingerprint.largest,
        resize=config.data.resize,
    )


def class_weights(config: Config, fingerprint: Fingerprint, device: torch.device) -> torch.Tensor | None:
    """Weight of each class in the loss, with mean 1 over the classes that occur.

    Raises:
        ConfigError: the number of weights given is not the number of classes.
    """
    wish = config.loss.class_weights
    if wish == "none":
        return None
    if isinstance(wish, tuple):
        if len(wish) != len(fingerprint.class_fractions):
            raise ConfigError(
                f"'loss.class_weights' has {len(wish)} values for {len(fingerprint.class_fractions)} classes."
            )
        return torch.tensor(wish, device=device)
    fractions = torch.tensor(fingerprint.class_fractions, device=device)
    weights = torch.where(fractions > 0, fractions.clamp_min(1e-6).rsqrt(), 0.0)
    return weights / weights[fractions > 0].mean()
