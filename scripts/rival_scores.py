"""Other programs on the same images in the same time, scored by their own counts.

    python scripts/rival_scores.py export runs/wbc rivals/wbc
    .venv-rivals/bin/python scripts/rival_scores.py train rivals/wbc --program smp --seconds 300 --seed 0

`export` writes the images, masks and sides of a run, as arrays. `train` needs nothing of Pixelwise: it trains a network
of segmentation-models-pytorch or MONAI as their documentation does, with the field's usual recipe (augmentation by
albumentations, cross-entropy and Dice, AdamW, a cosine over the time given, the best epoch by validation), and prints
the pooled mIoU over the test images at their own size.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

IGNORE = 255
SIDES = ("train", "validation", "test")
BATCH, RATE = 8, 1e-3


def main() -> None:
    """One of the two parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    exporting = parts.add_parser("export", help="write what a run trained on")
    exporting.add_argument("run", type=Path)
    exporting.add_argument("out", type=Path)
    exporting.set_defaults(do=lambda given: export(given.run, given.out))
    training = parts.add_parser("train", help="train another program on it")
    training.add_argument("data", type=Path)
    training.add_argument("--program", choices=list(PROGRAMS), required=True)
    training.add_argument("--seconds", type=float, default=300, help="for training and validation; scoring comes after")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--patch", type=int, default=256)
    training.add_argument("--upright", action="store_true", help="scenes with an up and a down: no vertical flips")
    training.set_defaults(do=train)
    given = parser.parse_args()
    given.do(given)


def export(run: Path, out: Path) -> None:
    """Images and masks of the three sides of a run, a file for each."""
    from pixelwise.api import load
    from pixelwise.config import load as load_config
    from pixelwise.data.cache import Cache
    from pixelwise.evaluation.saved import read_split
    from pixelwise.facts import read_facts
    from pixelwise.training.folder import Files
    from pixelwise.verbs.runs import dataset_to_score

    files, model = Files(run), load(run)
    dataset = dataset_to_score(model, read_facts(files.run), None)
    split, cache = read_split(files.split, dataset), Cache.of(load_config(files.config), dataset)
    for side in SIDES:
        (out / side).mkdir(parents=True)
        for number, case in enumerate(split.side(side)):
            decoded = cache.open(case)
            np.savez(out / side / f"{number:05d}.npz", image=np.array(decoded.image), mask=np.array(decoded.mask))
    (out / "classes.json").write_text(json.dumps(list(model.classes.names)))


def train(given: argparse.Namespace) -> None:
    """Train one network for the time given, and print its scores."""
    import torch

    torch.manual_seed(given.seed)
    library = torch.library.Library("torchvision", "DEF")  # what a torchvision for another build of torch lacks
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    draw = np.random.default_rng(given.seed)
    sides = {side: [read(path) for path in sorted((given.data / side).glob("*.npz"))] for side in SIDES}
    classes = len(json.loads((given.data / "classes.json").read_text()))
    pixels = np.concatenate([image.reshape(-1, image.shape[2]) for image, _ in sides["train"]])
    mean, deviation = pixels.mean(0), pixels.std(0)

    def normalised(images: Sequence[np.ndarray]) -> torch.Tensor:
        """Images H W C of one size as a batch."""
        values = ((np.stack(images) - mean) / deviation).astype(np.float32).transpose(0, 3, 1, 2)
        return torch.from_numpy(values).contiguous(memory_format=torch.channels_last)

    network = PROGRAMS[given.program](pixels.shape[1], classes).to(memory_format=torch.channels_last)
    loss, change = losses(), augmentation(given)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    per_epoch = math.ceil(sum(mask.size for _, mask in sides["train"]) / given.patch**2 / BATCH)
    best, weights, steps, began = -1.0, {}, 0, time.monotonic()
    while (done := (time.monotonic() - began) / given.seconds) < 1.0:
        network.train()
        for _ in range(per_epoch):
            for group in optimizer.param_groups:
                group["lr"] = RATE * max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
            chosen = [sides["train"][index] for index in draw.integers(len(sides["train"]), size=BATCH)]
            made = [change(image=image, mask=mask) for image, mask in chosen]
            masks = torch.from_numpy(np.stack([one["mask"] for one in made]).astype(np.int64))
            optimizer.zero_grad()
            loss(network(normalised([one["image"] for one in made])), masks).backward()
            optimizer.step()
            steps, done = steps + 1, (time.monotonic() - began) / given.seconds
            if done >= 1.0:
                break
        score = miou(counts(network, sides["validation"], normalised, classes))
        if score > best:
            best, weights = score, copy.deepcopy(network.state_dict())
    network.load_state_dict(weights)
    test = counts(network, sides["test"], normalised, classes)
    said = {"program": given.program, "seed": given.seed, "steps": steps, "seconds": round(time.monotonic() - began)}
    scores = {"validation_miou": round(best, 4), "test_miou": round(miou(test), 4), "iou": iou(test).round(4).tolist()}
    print(json.dumps(said | scores))


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """An image H W C and its mask H W."""
    with np.load(path) as arrays:
        return arrays["image"], arrays["mask"]


def of_smp(channels: int, classes: int) -> Any:
    """The first network of the README of segmentation-models-pytorch, from random weights."""
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet34", encoder_weights=None, in_channels=channels, classes=classes)


def of_monai(channels: int, classes: int) -> Any:
    """MONAI's plain U-Net, as wide as it comes."""
    from monai.networks.nets import BasicUNet

    return BasicUNet(spatial_dims=2, in_channels=channels, out_channels=classes)


PROGRAMS: dict[str, Callable[[int, int], Any]] = {"smp": of_smp, "monai": of_monai}


def losses() -> Callable[[Any, Any], Any]:
    """Cross-entropy and Dice, both without the pixels that are ignored."""
    import torch
    from segmentation_models_pytorch.losses import DiceLoss

    entropy, dice = torch.nn.CrossEntropyLoss(ignore_index=IGNORE), DiceLoss("multiclass", ignore_index=IGNORE)
    return lambda logits, masks: entropy(logits, masks) + dice(logits, masks)


def augmentation(given: argparse.Namespace) -> Any:
    """What tutorials of albumentations have for segmentation."""
    import albumentations as changes
    import cv2

    patch, upright = given.patch, given.upright
    degrees = 10 if upright else 180
    ends = {"border_mode": cv2.BORDER_REFLECT_101}
    steps = [
        changes.PadIfNeeded(patch, patch, **ends, fill_mask=IGNORE),
        changes.RandomCrop(patch, patch),
        changes.HorizontalFlip(p=0.5),
        changes.VerticalFlip(p=0.0 if upright else 0.5),
        changes.Affine(scale=(0.8, 1.25), rotate=(-degrees, degrees), shear=(-5, 5), **ends, p=0.8),
        changes.RandomBrightnessContrast(p=0.3),
        changes.GaussNoise(p=0.3),
        changes.GaussianBlur(p=0.3),
    ]
    return changes.Compose(steps, seed=given.seed)


def counts(network: Any, cases: Sequence[tuple[np.ndarray, np.ndarray]], normalised: Any, classes: int) -> np.ndarray:
    """Pixels by true and predicted class, over all images: each as a whole, mirrored up to a multiple of 32."""
    import torch

    total = np.zeros((classes, classes), dtype=np.int64)
    network.eval()
    with torch.inference_mode():
        for image, mask in cases:
            height, width = mask.shape
            beyond = [(0, max(64, -(-edge // 32) * 32) - edge) for edge in (height, width)]
            seen = np.pad(image, [*beyond, (0, 0)], mode="symmetric")
            found = network(normalised([seen]))[0, :, :height, :width].argmax(0).numpy()
            known = mask != IGNORE
            pairs = mask[known].astype(np.int64) * classes + found[known]
            total += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return total


def iou(table: np.ndarray) -> np.ndarray:
    """Of each class; nan where it is neither there nor predicted."""
    right = table.diagonal()
    with np.errstate(invalid="ignore"):
        return right / (table.sum(0) + table.sum(1) - right)


def miou(table: np.ndarray) -> float:
    """The mean over the classes."""
    return float(np.nanmean(iou(table)))


if __name__ == "__main__":
    main()
