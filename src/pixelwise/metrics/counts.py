"""How good a prediction is: counts in, scores out; count first, divide last.

K classes, N images. `docs/metrics.md` defines every score once. The conventions, for all of them:

* Pixels whose target is IGNORE are not counted, whatever was predicted there.
* A class that is neither present nor predicted has no score (nan) and is left out of means; a class that is one of
  both has a score, 0 where nothing fits.
* Counts add up: over pixels, batches, images and processes. So no score depends on the batch size or the order.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Int64, Integer, Num
from torch import Tensor

from pixelwise.classes import IGNORE

BYTE = 256


def confusion(prediction: Integer[Tensor, "*s"], target: Integer[Tensor, "*s"], classes: int) -> Int64[Tensor, "K K"]:
    """Pixels by true class (row) and predicted class (column), on the device of the target.

    Args:
        prediction: class index, 0 to classes - 1; any shape, any integer type.
        target: class index or IGNORE. Ignored pixels are left out, whatever is predicted there.
        classes: K, at most 255.

    Raises:
        ValueError: a value is no class. Masks are checked when they are read, so this is an error of the program.
    """
    # one table of all pairs of bytes: no pixel has to be picked out, and values that are no class show up in it
    _check_bytes(target, "target")
    _check_bytes(prediction, "prediction")
    pairs = torch.add(prediction, target.to(torch.int32), alpha=BYTE)
    table = torch.bincount(pairs.flatten(), minlength=BYTE * BYTE).view(BYTE, BYTE)
    counts = table[:classes, :classes]
    if int(counts.sum() + table[IGNORE].sum()) != target.numel():
        present = [value for value in table.sum(1).nonzero().flatten().tolist() if value != IGNORE]
        predicted = (table.sum(0) - table[IGNORE]).nonzero().flatten().tolist()
        raise ValueError(f"classes are 0..{classes - 1}, but targets are {present} and predictions {predicted}")
    return counts.clone()


def _check_bytes(values: Integer[Tensor, "*s"], name: str) -> None:
    """Refuse what does not fit into a byte; bytes do by themselves, without a look at them."""
    if values.dtype != torch.uint8 and values.numel() and not 0 <= int(values.min()) <= int(values.max()) < BYTE:
        raise ValueError(f"{name} values from {int(values.min())} to {int(values.max())} are outside 0..255")


def iou(counts: Int64[Tensor, "*N K K"]) -> Float64[Tensor, "*N K"]:
    """Intersection over union per class, TP / (TP + FP + FN); nan for a class neither present nor predicted."""
    hit, present, predicted = margins(counts)
    return quotient(hit, present + predicted - hit, present + predicted)


def dice(counts: Int64[Tensor, "*N K K"]) -> Float64[Tensor, "*N K"]:
    """Dice per class, 2 TP / (2 TP + FP + FN), also called F1; nan for a class neither present nor predicted."""
    hit, present, predicted = margins(counts)
    return quotient(2 * hit, present + predicted, present + predicted)


def precision(counts: Int64[Tensor, "*N K K"]) -> Float64[Tensor, "*N K"]:
    """Share of the predicted pixels that are right; 0 for a class present but never predicted, nan for neither."""
    hit, present, predicted = margins(counts)
    return quotient(hit, predicted, present + predicted)


def recall(counts: Int64[Tensor, "*N K K"]) -> Float64[Tensor, "*N K"]:
    """Share of the present pixels that are found; 0 for a class predicted but not present, nan for neither."""
    hit, present, predicted = margins(counts)
    return quotient(hit, present, present + predicted)


def pixel_accuracy(counts: Int64[Tensor, "*N K K"]) -> Float64[Tensor, "*N"]:
    """Share of the counted pixels that are right, over all classes; nan where no pixel counts."""
    hit, present, _ = margins(counts)
    return quotient(hit.sum(-1), present.sum(-1), present.sum(-1))


def mean_over_classes(scores: Float64[Tensor, "*N K"]) -> Float64[Tensor, "*N"]:
    """Mean of the classes that have a score; nan where none has."""
    return scores.nanmean(-1)


def margins(
    counts: Int64[Tensor, "*N K K"],
) -> tuple[Int64[Tensor, "*N K"], Int64[Tensor, "*N K"], Int64[Tensor, "*N K"]]:
    """Pixels per class that are right, that are present, that are predicted."""
    return counts.diagonal(dim1=-2, dim2=-1), counts.sum(-1), counts.sum(-2)


def quotient(part: Num[Tensor, "*N"], whole: Num[Tensor, "*N"], occurring: Num[Tensor, "*N"]) -> Float64[Tensor, "*N"]:
    """Part of a whole; 0 where the whole is empty, nan where the class does not occur."""
    score = torch.where(whole > 0, part.double() / torch.where(whole > 0, whole, 1), 0.0)
    return score.masked_fill(occurring == 0, math.nan)


@dataclass(frozen=True)
class Scores:
    """Counts of a set of images, one matrix for each; every score follows from them."""

    classes: tuple[str, ...]
    names: tuple[str, ...]
    """Of the images, unique."""
    counts: Int64[Tensor, "N K K"]
    """Pixels by image, true class and predicted class, as `confusion` gives them."""

    def __post_init__(self) -> None:
        if tuple(self.counts.shape) != (len(self.names), len(self.classes), len(self.classes)):
            shape = tuple(self.counts.shape)
            raise ValueError(f"counts {shape} do not fit {len(self.names)} images, {len(self.classes)} classes")
        if len(set(self.names)) != len(self.names):
            repeated = sorted({name for name in self.names if self.names.count(name) > 1})
            raise ValueError(f"images are counted twice: {', '.join(repeated)}")

    @property
    def pooled(self) -> Int64[Tensor, "K K"]:
        """Counts of all images together."""
        return self.counts.sum(0)

    @property
    def iou(self) -> Float64[Tensor, " K"]:
        """IoU per class from the pooled counts."""
        return iou(self.pooled)

    @property
    def dice(self) -> Float64[Tensor, " K"]:
        """Dice per class from the pooled counts."""
        return dice(self.pooled)

    @property
    def precision(self) -> Float64[Tensor, " K"]:
        """Precision per class from the pooled counts."""
        return precision(self.pooled)

    @property
    def recall(self) -> Float64[Tensor, " K"]:
        """Recall per class from the pooled counts."""
        return recall(self.pooled)

    @property
    def miou(self) -> float:
        """Mean over classes of the pooled IoU."""
        return float(mean_over_classes(self.iou))

    @property
    def mean_dice(self) -> float:
        """Mean over classes of the pooled Dice."""
        return float(mean_over_classes(self.dice))

    @property
    def accuracy(self) -> float:
        """Share of all counted pixels that are right."""
        return float(pixel_accuracy(self.pooled))

    @property
    def image_miou(self) -> Float64[Tensor, " N"]:
        """For each image the mean over its classes of IoU; nan where no pixel counts."""
        return mean_over_classes(iou(self.counts))

    @property
    def image_dice(self) -> Float64[Tensor, " N"]:
        """For each image the mean over its classes of Dice; nan where no pixel counts."""
        return mean_over_classes(dice(self.counts))

    @property
    def miou_image_mean(self) -> float:
        """Mean of `image_miou` over the images that have one."""
        return float(self.image_miou.nanmean())

    @property
    def dice_image_mean(self) -> float:
        """Mean of `image_dice` over the images that have one."""
        return float(self.image_dice.nanmean())

    def worst_first(self) -> list[int]:
        """Indices of images from the lowest image mIoU to the highest; images without a score are last."""
        values = self.image_miou.nan_to_num(nan=math.inf)
        return [int(index) for index in values.argsort(stable=True)]

    def summary(self) -> dict[str, Any]:
        """All scores as JSON values, nan as null: the content of scores.json."""
        return {
            "images": len(self.names),
            "classes": list(self.classes),
            "pooled": {
                "miou": number(self.miou),
                "dice": number(self.mean_dice),
                "pixel_accuracy": number(self.accuracy),
                "per_class": self._class_rows(),
            },
            "image_mean": {"miou": number(self.miou_image_mean), "dice": number(self.dice_image_mean)},
            "confusion": self.pooled.tolist(),
            "per_image": self._image_rows(),
        }

    def _class_rows(self) -> list[dict[str, Any]]:
        columns: dict[str, list[Any]] = {
            "iou": numbers(self.iou),
            "dice": numbers(self.dice),
            "precision": numbers(self.precision),
            "recall": numbers(self.recall),
            "pixels": self.pooled.sum(1).tolist(),
        }
        return [
            {"name": name} | {key: values[index] for key, values in columns.items()}
            for index, name in enumerate(self.classes)
        ]

    def _image_rows(self) -> list[dict[str, Any]]:
        columns: dict[str, list[Any]] = {
            "miou": numbers(self.image_miou),
            "dice": numbers(self.image_dice),
            "pixel_accuracy": numbers(pixel_accuracy(self.counts)),
            "iou": [numbers(row) for row in iou(self.counts)],
            "confusion": [_sparse(matrix) for matrix in self.counts],
        }
        return [
            {"name": name} | {key: values[index] for key, values in columns.items()}
            for index, name in enumerate(self.names)
        ]

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any]) -> "Scores":
        """The scores that `summary` was made from: exactly the same counts."""
        classes, rows = tuple(summary["classes"]), summary["per_image"]
        counts = torch.zeros((len(rows), len(classes), len(classes)), dtype=torch.int64)
        for matrix, row in zip(counts, rows, strict=True):
            for true, predicted, pixels in row["confusion"]:
                matrix[true, predicted] = pixels
        return cls(classes=classes, names=tuple(row["name"] for row in rows), counts=counts)

    @classmethod
    def merge(cls, parts: Iterable["Scores"]) -> "Scores":
        """All images of several parts, such as those of several processes, ordered by name.

        Raises:
            ValueError: there is no part, the classes differ, or an image is in two parts.
        """
        listed = list(parts)
        if len({part.classes for part in listed}) != 1:
            raise ValueError(f"{len(listed)} parts with {len({part.classes for part in listed})} class tables")
        names = [name for part in listed for name in part.names]
        order = sorted(range(len(names)), key=names.__getitem__)
        counts = torch.cat([part.counts for part in listed])
        return cls(classes=listed[0].classes, names=tuple(names[index] for index in order), counts=counts[order])


def number(value: float) -> float | None:
    """A score for JSON, which does not know nan: null in its place."""
    return None if math.isnan(value) else value


def numbers(values: Float64[Tensor, " n"]) -> list[float | None]:
    """Scores for JSON, nan as null."""
    return [number(value) for value in values.tolist()]


def _sparse(matrix: Int64[Tensor, "K K"]) -> Sequence[list[int]]:
    """[true class, predicted class, pixels] of the pairs that occur: with 150 classes few of the 22500 do."""
    return [[*pair, int(matrix[tuple(pair)])] for pair in matrix.nonzero().tolist()]
