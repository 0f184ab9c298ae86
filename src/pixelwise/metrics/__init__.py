"""Scores: how good a prediction is, and how sure one can be of that. `docs/metrics.md` defines each once."""

from pixelwise.metrics.counts import Scores, confusion, dice, iou, pixel_accuracy, precision, recall

__all__ = ["Scores", "confusion", "dice", "iou", "pixel_accuracy", "precision", "recall"]
