"""How many of 1000 intervals hold the true value, for test splits of several sizes: as told in docs/metrics.md."""

import numpy as np
import torch

from pixelwise.metrics import iou
from pixelwise.metrics.counts import mean_over_classes
from pixelwise.metrics.intervals import Bootstrap
from pixelwise.metrics.weighted import ratios

SPLITS = 1000


def images(generator: np.random.Generator, count: int) -> torch.Tensor:
    """Confusion counts of images that vary in the size of their object and in how well it is found."""
    objects = np.round(generator.gamma(2.0, 500.0, count))
    hit = np.round(objects * generator.beta(8.0, 2.0, count))
    missed = objects - hit
    rows = np.stack([np.full(count, 8000.0), np.round(0.3 * missed), missed, hit], axis=1)
    return torch.from_numpy(rows.astype(np.int64)).view(count, 2, 2)


def main() -> None:
    """Print a line for each size."""
    truth = float(mean_over_classes(iou(images(np.random.default_rng(99), 400_000).sum(0))))
    for count in (6, 12, 40, 100):
        generator = np.random.default_rng(7)
        held = 0
        for seed in range(SPLITS):
            names = [str(number) for number in range(count)]
            found, _ = Bootstrap(names, seed).of(ratios(images(generator, count))["iou"])
            held += found.low <= truth <= found.high
        print(f"{count} images: {held} of {SPLITS} intervals hold {truth:.4f}")


if __name__ == "__main__":
    main()
