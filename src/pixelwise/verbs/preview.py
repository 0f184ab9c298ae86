"""What a network will see, as a picture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped, UInt8

from pixelwise.config import Config
from pixelwise.data import folder as folders
from pixelwise.data import writing
from pixelwise.data.augment import augment
from pixelwise.data.dataset import Dataset
from pixelwise.data.fingerprint import measure
from pixelwise.data.preprocess import moments
from pixelwise.data.split import Split
from pixelwise.evaluation import figures
from pixelwise.files import make_folder
from pixelwise.training import material as materials
from pixelwise.training import run as runs
from pixelwise.training.watch import Watcher


def preview(
    data: Path | str,
    out: Path | str,
    config: Config | None = None,
    patches: int = 24,
    *,
    watcher: Watcher | None = None,
) -> Path:
    """Write a picture of what the network will see: augmented patches with their masks, from images spread evenly.

    Args:
        data: a folder of images and masks, or a data.yaml.
        out: the picture to write (.png).
        config: settings of data and augmentation.
        patches: how many.
        watcher: told how far it is.

    Raises:
        DataError: the data cannot be read, or the picture cannot be written.
    """
    dataset = folders.scan(Path(data))
    material = _all_of(dataset, config or Config(), watcher or Watcher())
    chosen = runs.plan_of_looks(dataset, config or Config(), material).config
    seen = materials.resized(material, chosen)
    drawn = [_patch(seen, chosen, number, patches) for number in range(patches)]
    names = [f"patch {number + 1}" for number in range(patches)]
    sheet = figures.contact_sheet(
        [picture for picture, _ in drawn], [mask for _, mask in drawn], names, dataset.classes
    )
    path = Path(out)
    make_folder(path.parent)
    writing.write_picture(path, sheet)
    return path


def _all_of(dataset: Dataset, config: Config, watcher: Watcher) -> materials.Material:
    """Every image as if it were trained on: to look at them needs no split."""
    cache, decoded = materials.opened(dataset, config, watcher)
    return materials.Material(
        cache, Split(dataset.cases, (), ()), decoded, (), measure(decoded, dataset.classes.background)
    )


def _patch(
    material: materials.Material, config: Config, number: int, count: int
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """A training patch as the network sees it, at the brightness of its image, and its mask."""
    case = material.train[number * len(material.train) // count]
    sample = materials.windows(config, replace(material, train=[case]))[number]
    images, masks, scaling = (
        torch.from_numpy(np.array(part))[None] for part in (sample.image, sample.mask, sample.scaling)
    )
    seed = torch.tensor([sample.seed])
    image, mask = augment(images.permute(0, 3, 1, 2), masks, seed, config.data.patch_size, config.augment, scaling)
    mean, deviation = moments(case.image, materials.preprocessing(config, material.fingerprint))
    raw = image[0] * torch.tensor(deviation)[:, None, None] + torch.tensor(mean)[:, None, None]
    return figures.to_display(_as_type(raw.permute(1, 2, 0).numpy(), case.image.dtype)), mask[0].numpy()


def _as_type(values: Shaped[np.ndarray, "H W C"], kind: np.dtype[Any]) -> Shaped[np.ndarray, "H W C"]:
    if not np.issubdtype(kind, np.integer):
        return values
    limits = np.iinfo(kind)
    typed: np.ndarray = np.clip(np.rint(values), limits.min, limits.max).astype(kind)
    return typed
