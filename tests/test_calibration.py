"""Confidence against accuracy: by hand and against torchmetrics."""

import math

import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from pixelwise.metrics.calibration import BINS, Calibration, tally


def test_the_example_of_the_page() -> None:
    sums = tally(torch.tensor([0.9, 0.9, 0.62, 0.62]), torch.tensor([True, True, True, False]))
    found = Calibration(sums[None])
    assert found.pooled_error == pytest.approx(0.11)
    rows = [row for row in found.diagram() if row["pixels"]]
    assert rows == [
        {"pixels": 2, "accuracy": 0.5, "confidence": pytest.approx(0.62)},
        {"pixels": 2, "accuracy": 1.0, "confidence": pytest.approx(0.9)},
    ]


@pytest.mark.parametrize("seed", range(3))
def test_the_error_agrees_with_torchmetrics(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = (3.0 * torch.randn((2000, 4), generator=generator)).softmax(1)
    truth = torch.where(
        torch.rand(2000, generator=generator) < 0.7,
        probabilities.argmax(1),
        torch.randint(0, 4, (2000,), generator=generator),
    )
    confidence, predicted = probabilities.max(1)
    found = Calibration(tally(confidence, predicted == truth)[None])
    referee = MulticlassCalibrationError(num_classes=4, n_bins=BINS, norm="l1")
    assert found.pooled_error == pytest.approx(float(referee(probabilities, truth)), abs=1e-6)


def test_images_add_up_and_weights_count_them() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence, right = torch.rand((3, 500), generator=generator), torch.rand((3, 500), generator=generator) < 0.6
    each = Calibration(torch.stack([tally(c, r) for c, r in zip(confidence, right, strict=True)]))
    whole = Calibration(tally(confidence, right)[None])
    assert each.pooled_error == pytest.approx(whole.pooled_error)
    weights = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    assert each.error(weights).tolist() == pytest.approx([whole.pooled_error, float(each.by_image()[1])])


def test_certainty_and_its_absence_have_bins() -> None:
    sums = tally(torch.tensor([1.0, 0.0]), torch.tensor([True, False]))
    assert sums[0, -1] == 1
    assert sums[0, 0] == 1
    assert Calibration(sums[None]).pooled_error == 0.0


def test_no_pixel_has_no_error() -> None:
    nothing = tally(torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    assert math.isnan(Calibration(nothing[None]).pooled_error)
    assert all(row["accuracy"] is None for row in Calibration(nothing[None]).diagram())
