"""What is done after the network: weights of classes, small objects, and what is kept of them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK
from scipy import ndimage
from torch import nn
from typer.testing import CliRunner

import pixelwise
from pixelwise.classes import ClassTable
from pixelwise.cli import app
from pixelwise.config import AugmentConfig, ModelConfig, PostprocessingConfig, Preprocessing
from pixelwise.data.cache import Cache
from pixelwise.data.folder import scan
from pixelwise.evaluation.refine import (
    FACTORS,
    Objects,
    caution,
    class_factors,
    familiar_flips,
    refine,
    smallest_objects,
)
from pixelwise.inference.postprocess import without_small_objects
from pixelwise.inference.predictor import Model
from pixelwise.models.bundle import Description
from pixelwise.models.bundle import load as load_bundle


def blobs(seed: int) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(60, 80)), 2.0)
    return np.digitize(noise, [-0.05, 0.08]).astype(np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_small_objects_are_those_that_scikit_image_finds(seed: int) -> None:
    from skimage.morphology import remove_small_objects

    mask = blobs(seed)
    cleaned = without_small_objects(mask, (0, 0, 30))
    kept = remove_small_objects(mask == 2, max_size=29, connectivity=2)
    assert np.array_equal(cleaned == 2, kept)
    assert np.array_equal(cleaned[mask != 2], mask[mask != 2])
    assert not np.array_equal(cleaned, mask)


def test_sizes_of_several_classes_are_found_one_after_the_other() -> None:
    """Specks of class 1 of three pixels and of class 2 of eleven are wrong, all larger objects right."""
    pairs = []
    for seed in range(2):
        truth = np.zeros((60, 80), dtype=np.uint8)
        truth[10:30, 10:30], truth[10:30, 45:70] = 1, 2
        mask = truth.copy()
        rng = np.random.default_rng(seed)
        for index in range(8):
            row = 36 + 6 * (index % 4)
            column = int(rng.integers(0, 20)) + 40 * (index // 4)
            mask[row, column : column + (3 if index % 2 else 11)] = 1 if index % 2 else 2
        pairs.append((mask, truth))
    assert smallest_objects(pairs, 3) == (0, 4, 16)


def test_a_removed_object_takes_what_is_around_it() -> None:
    mask = np.zeros((9, 12), dtype=np.uint8)
    mask[:, 6:] = 1
    mask[2, 2], mask[6, 9], mask[0, 0] = 2, 2, 255
    cleaned = without_small_objects(mask, (0, 0, 2))
    assert (cleaned[2, 2], cleaned[6, 9], cleaned[0, 0]) == (0, 1, 255)
    assert np.array_equal(without_small_objects(np.full((3, 3), 2, np.uint8), (0, 0, 100)), np.full((3, 3), 2))


@pytest.mark.parametrize(
    ("settings", "flips"),
    [
        ({}, ("horizontal", "both", "rotations")),
        ({"rotation_degrees": 10.0}, ("horizontal", "both")),
        ({"rotation_degrees": 90.0}, ("horizontal", "both", "rotations")),
        ({"geometric_probability": 0.0}, ("horizontal", "both")),
        ({"flip_vertical": 0.0, "rotation_degrees": 10.0}, ("horizontal",)),
        ({"flip_vertical": 0.0, "rotation_degrees": 180.0}, ("horizontal", "both", "rotations")),
        ({"flip_horizontal": 0.0, "rotation_degrees": 180.0}, ("horizontal", "both", "rotations")),
        ({"flip_horizontal": 0.0, "rotation_degrees": 90.0}, ()),
        ({"flip_horizontal": 0.0, "flip_vertical": 0.0}, ()),
        ({"strength": 0.0}, ()),
    ],
)
def test_flips_that_training_has_not_shown_are_not_tried(settings: dict[str, float], flips: tuple[str, ...]) -> None:
    assert familiar_flips(AugmentConfig(**settings)) == flips


class Shy(nn.Module):
    """Says of bright pixels, too seldom, that they are of class 1: it needs a grey value above 0.7 in place of 0.5."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(image), 10.0 * (image - 0.7)], dim=1)


def model(network: nn.Module, after: PostprocessingConfig | None = None) -> Model:
    description = Description(
        model=ModelConfig(width=2, depth=1),
        preprocessing=Preprocessing(channels=1, normalisation="none", mean=(0.0,), deviation=(1.0,)),
        classes=ClassTable.from_names(["background", "bright"]),
        patch_size=(64, 64),
        postprocessing=after or PostprocessingConfig(),
    )
    return Model(network, description, torch.device("cpu"))


def test_weights_of_classes_change_probabilities_as_bayes_has_it() -> None:
    image = np.random.default_rng(0).random((20, 30, 1), dtype=np.float32)
    plain = model(Shy()).predict(image, probabilities=True).probabilities
    weighed = model(Shy(), PostprocessingConfig(class_factors=(1.0, 3.0))).predict(image, probabilities=True)
    assert plain is not None
    assert weighed.probabilities is not None
    odds = plain[1] / plain[0]
    np.testing.assert_allclose(weighed.probabilities[1] / weighed.probabilities[0], 3.0 * odds, rtol=1e-4)
    np.testing.assert_allclose(weighed.probabilities.sum(axis=0), 1.0, atol=1e-5)


def test_the_best_weight_is_found() -> None:
    """Of a model whose odds are four times too low for class 1, four is best."""
    generator = torch.Generator().manual_seed(0)
    odds = torch.exp(2.0 * torch.randn(20000, generator=generator))
    truth = (torch.rand(20000, generator=generator) < odds / (1 + odds)).to(torch.uint8)
    low = odds / 4.0
    probabilities = torch.stack([1 / (1 + low), low / (1 + low)])
    factors = class_factors(probabilities, truth)
    assert factors[0] == 1.0
    assert 2.8 <= factors[1] <= 4.0


def test_weights_of_several_classes_are_those_of_a_plain_search() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 5, (4000,), generator=generator).to(torch.uint8)
    logits = torch.randn(5, 4000, generator=generator)
    logits[truth.long(), torch.arange(4000)] += 1.0
    probabilities = (logits * torch.linspace(0.5, 2.0, 5)[:, None]).bfloat16().float().softmax(dim=0)

    def miou(factors: torch.Tensor) -> float:
        chosen = (probabilities * factors[:, None]).argmax(dim=0)
        return float(np.mean([((chosen == k) & (truth == k)).sum() / ((chosen == k) | (truth == k)).sum()
                              for k in range(5)]))  # fmt: skip

    best = torch.ones(5)
    for index in [*range(5), *range(5)]:
        for factor in FACTORS:
            trial = best.clone()
            trial[index] = factor
            best = trial if miou(trial) > miou(best) + 1e-5 else best
    assert len(set(best.tolist())) > 3
    assert class_factors(probabilities, truth) == tuple(round(factor, 4) for factor in best.tolist())


def test_the_smallest_object_is_found() -> None:
    truth = np.zeros((64, 64), dtype=np.uint8)
    truth[10:30, 10:30] = 1
    seen = truth.copy()
    seen[40:42, ::8] = 1  # eight specks of two pixels
    assert smallest_objects([(seen, truth)], 2) == (0, 4)
    assert smallest_objects([(truth, truth)], 2) == (0, 0)


@pytest.mark.slow
def test_a_run_is_refined_and_remembers_it(discs: Path, tmp_path: Path) -> None:
    run = pixelwise.train(discs, tmp_path / "run", config=pixelwise.settings(None, QUICK))
    result = CliRunner().invoke(app, ["refine", str(run.folder), "--flips"])
    assert result.exit_code == 0, result.output
    steps = json.loads((run.folder / "refine.json").read_text())
    assert [step["step"] for step in steps][:3] == ["flips"] * 3
    lines = [line for line in result.output.splitlines() if line.startswith("Averaging over flips (")]
    assert len(lines) == 3
    assert all("changes the mIoU by" in line and line.endswith("kept") for line in lines)
    kept = load_bundle(run.folder).description
    assert (kept.prediction.flips != "none") == any(step["kept"] for step in steps[:3])
    assert pixelwise.evaluate(run.folder).miou > 0


def test_only_what_clearly_helps_is_kept(tmp_path: Path) -> None:
    """A shy model is helped by a weight; one that is right is helped by nothing."""
    cases = _cases(tmp_path)
    units = [case.case.name for case in cases]
    told: list[str] = []
    better, steps = refine(model(Shy()), cases, units, (), told.append)
    assert [step.name for step in steps if step.kept] == ["weights of classes"]
    factors = better.description.postprocessing.class_factors
    assert factors is not None
    assert factors[1] > 1.5
    assert re.fullmatch(
        r"Multiplying probabilities \(bright by [\d.]+\) changes the mIoU by \+[\d.]+ "
        r"\(95 %: \+[\d.]+ to \+[\d.]+\): kept",
        steps[0].describe(),
    )
    assert told[:2] == ["looking for weights of classes", "looking for objects that are too small to be real"]
    assert caution(steps) == "only 8 validation images have decided: what was kept may not hold for others"
    assert not caution([replace(step, gain=replace(step.gain, units=12)) for step in steps])

    right, steps = refine(model(Right()), cases, units, ("both",), lambda _text: None)
    assert not [step for step in steps if step.kept]
    assert not caution(steps)
    assert right.description.postprocessing == PostprocessingConfig()


def test_small_objects_are_told_in_a_sentence() -> None:
    found = PostprocessingConfig(smallest_px=(4, 0, 8))
    said = Objects().describe(found, ["background", "cell", "nucleus"])
    assert said == "Removing small objects (background of less than 4 px, nucleus of less than 8 px)"


class Right(nn.Module):
    """Says of pixels above a half that they are of class 1."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(image), 10.0 * (image - 0.5)], dim=1)


def _cases(folder: Path) -> list:
    """Images of smooth noise, whose bright half is class 1."""
    import tifffile
    from PIL import Image

    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(8):
        noise = ndimage.gaussian_filter(np.random.default_rng(number).normal(size=(64, 64)), 3.0)
        image = ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
        tifffile.imwrite(folder / "images" / f"{number}.tif", image)
        Image.fromarray(np.where(image > 0.5, 255, 0).astype(np.uint8)).save(folder / "masks" / f"{number}.png")
    dataset = scan(folder)
    return Cache(folder / "cache", dataset).open_all(dataset.cases)
