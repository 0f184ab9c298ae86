"""Kinds of mistakes, objects by size, suspects: pictures small enough to count by hand."""

import base64
import io
import math

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from PIL import Image

from pixelwise.classes import IGNORE, ClassTable
from pixelwise.data.alike import Looks
from pixelwise.evaluation.gallery import edge_px, thumbnail
from pixelwise.evaluation.mistakes import KINDS, Mistakes, by_size, find_mistakes
from pixelwise.evaluation.scores import Evaluation
from pixelwise.metrics import confusion

Mask = UInt8[np.ndarray, "H W"]


def canvas(*squares: tuple[int, int, int, int], size: int = 40) -> Mask:
    """Squares of a class: top, left, edge, class."""
    mask = np.zeros((size, size), dtype=np.uint8)
    for top, left, edge, index in squares:
        mask[top : top + edge, left : left + edge] = index
    return mask


def found(prediction: Mask, target: Mask, background: int | None = 0, sure: float = 0.0) -> Mistakes:
    return find_mistakes(prediction, target, np.full(target.shape, sure > 0), 3, background)


def kinds(mistakes: Mistakes, index: int) -> dict[str, int]:
    return {kind: n for kind, n in zip(KINDS, mistakes.pixels[index].tolist(), strict=True) if n}


def test_nothing_wrong_is_no_mistake() -> None:
    mask = canvas((5, 5, 10, 1), (25, 25, 8, 2))
    assert found(mask, mask).pixels.sum() == 0


def test_an_outline_that_is_off_by_a_pixel_is_shifted() -> None:
    # 2 % of the diagonal of 40 x 40 are 1.1 pixels: a column of 10 is missing at the left, one too many at the right
    mistakes = found(canvas((5, 6, 10, 1)), canvas((5, 5, 10, 1)))
    assert kinds(mistakes, 1) == {"boundary": 20}
    assert kinds(mistakes, 0) == {}


def test_an_object_that_nothing_meets_is_missed_however_small() -> None:
    assert kinds(found(canvas(), canvas((5, 5, 2, 1))), 1) == {"missed": 4}


def test_a_predicted_object_that_nothing_meets_is_false() -> None:
    assert kinds(found(canvas((5, 5, 2, 1)), canvas()), 1) == {"false": 4}


def test_an_object_of_another_class_is_taken_for_it() -> None:
    mistakes = found(canvas((5, 5, 10, 2)), canvas((5, 5, 10, 1)))
    assert kinds(mistakes, 1) == {"confused": 100}
    assert kinds(mistakes, 2) == {}  # each pixel is told once


def test_a_hole_inside_of_an_object_that_was_found_is_missed() -> None:
    prediction = canvas((5, 5, 20, 1), (12, 12, 6, 0))
    assert kinds(found(prediction, canvas((5, 5, 20, 1))), 1) == {"missed": 36}


def test_without_a_background_there_is_nothing_to_miss() -> None:
    mistakes = found(canvas((5, 5, 2, 1)), canvas((20, 20, 10, 1)), background=None)
    # the 100 pixels of class 1 that are called 0, and 4 of class 0 that are called 1
    assert kinds(mistakes, 1) == {"confused": 100}
    assert kinds(mistakes, 0) == {"confused": 4}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("background", [0, None])
def test_every_wrong_pixel_is_told_once_and_no_ignored_one(seed: int, background: int | None) -> None:
    generator = np.random.default_rng(seed)
    prediction, target = generator.integers(0, 3, (2, 30, 40), dtype=np.uint8)
    target[generator.random(target.shape) < 0.2] = IGNORE
    mistakes = found(prediction, target, background)
    assert mistakes.pixels.sum() == ((prediction != target) & (target != IGNORE)).sum()


def test_what_is_predicted_on_ignored_pixels_is_no_object() -> None:
    target = canvas()
    target[:, :20] = IGNORE
    assert found(canvas((5, 5, 8, 1)), target).pixels.sum() == 0


def test_objects_are_told_by_size() -> None:
    target = canvas((2, 2, 4, 1), (2, 20, 10, 1), (20, 2, 15, 2))
    prediction = canvas(
        (2, 20, 5, 1), (20, 2, 15, 2)
    )  # nothing of the first, a quarter of the second, all of the third
    rows = {row.name: row for row in by_size([found(prediction, target).objects, found(target, target).objects])}
    small, middle = rows["below 8 px"], rows["8 to 32 px"]
    assert (small.number, small.found, small.share) == (2, 1, 0.5)
    assert (middle.number, middle.found) == (4, 4)
    assert middle.share == pytest.approx((0.25 + 1.0 + 1.0 + 1.0) / 4)
    assert math.isnan(rows["96 px and more"].share)


def test_an_object_ends_where_no_pixel_touches_it_even_at_a_corner() -> None:
    target = canvas((5, 5, 3, 1), (8, 8, 3, 1), (20, 20, 3, 1))
    assert found(target, target).objects.pixels.tolist() == [18, 9]


def evaluation(contradicted: dict[int, int], images: int = 9) -> Evaluation:
    """Images of 1000 pixels, in some of which a sure model contradicts the mask."""
    masks = [canvas(size=40) for _ in range(images)]
    mistakes = []
    for index, mask in enumerate(masks):
        prediction = mask.copy()
        prediction.flat[: contradicted.get(index, 0)] = 1
        mistakes.append(find_mistakes(prediction, mask, np.ones(mask.shape, dtype=bool), 2, 0))
    counts = confusion(torch.zeros(1600, dtype=torch.uint8), torch.zeros(1600, dtype=torch.uint8), 2)
    return Evaluation(
        ("background", "cell"),
        tuple(f"image {index}" for index in range(images)),
        counts.expand(images, 2, 2).clone(),
        mistakes=tuple(mistakes),
        looks=(Looks(1.0, 2.0),) * images,
    )


def test_masks_that_a_sure_model_contradicts_are_suspects() -> None:
    # 0.5 % of 1600 pixels are 8; three rows of 40 are 7.5 %
    suspects = evaluation({4: 120, 7: 400, 2: 8}).suspects()
    assert suspects == [("image 7", 0.25), ("image 4", 0.075)]


def test_where_all_masks_are_contradicted_the_model_is_to_blame() -> None:
    assert evaluation(dict.fromkeys(range(9), 120)).suspects() == []


def test_an_unsure_model_suspects_nobody() -> None:
    assert found(canvas((5, 5, 10, 1)), canvas(), sure=0.0).sure == 0
    assert found(canvas((5, 5, 10, 1)), canvas(), sure=1.0).sure == 100


def test_looks_are_those_of_the_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 65535, (300, 200, 2), dtype=np.uint16)
    looks = Looks.of(image)
    assert looks.brightness == pytest.approx(image.mean(), rel=0.01)
    assert looks.contrast == pytest.approx(image.std(), rel=0.01)


# --- small pictures --------------------------------------------------------------------------------------------------


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_a_thumbnail_has_the_proportions_of_its_image_and_the_colours_of_the_classes() -> None:
    classes = ClassTable.from_names(["background", "cell", "nucleus"])
    truth = np.zeros((600, 900), dtype=np.uint8)
    truth[:300], truth[300:, :450] = 1, IGNORE
    prediction = np.where(truth == 1, 2, 0).astype(np.uint8)
    image = np.random.default_rng(0).integers(0, 4096, (600, 900, 1), dtype=np.uint16)
    made = thumbnail(image, truth, prediction, classes, 90)
    assert made.size == (60, 90)
    layers = [np.array(opened(text).convert("RGBA")) for text in (made.truth, made.prediction, made.errors)]
    assert all(layer.shape == (60, 90, 4) for layer in layers)
    assert tuple(layers[0][10, 10]) == (*classes.categories[1].color, 255)
    assert layers[0][50, 80, 3] == 0  # the background is left clear
    assert layers[0][50, 10, 3] == 255  # what is ignored is not
    assert tuple(layers[1][10, 10]) == (*classes.categories[2].color, 255)
    assert layers[2][10, 10, 3] == 255
    assert layers[2][50, 10, 3] == 0  # ignored pixels are not wrong
    assert opened(made.photo).size == (90, 60)


def test_a_small_image_is_shown_as_it_is() -> None:
    mask = np.zeros((1, 7), dtype=np.uint8)
    made = thumbnail(np.zeros((1, 7, 3), dtype=np.uint8), mask, mask, ClassTable.from_names(["a", "b", "c"]), 320)
    assert made.size == (1, 7)


def test_pictures_get_smaller_with_their_number() -> None:
    assert [edge_px(images) for images in (1, 100, 101, 1000, 50_000)] == [320, 320, 224, 160, 160]


def test_a_thousand_thumbnails_stay_below_the_limit() -> None:
    """Of images as hard to compress as photographs with texture are, with masks of many small objects."""
    generator = np.random.default_rng(0)
    image = generator.normal(120, 30, (375, 500, 3)).clip(0, 255).astype(np.uint8)
    mask = (generator.random((38, 50)) < 0.3).repeat(10, 0).repeat(10, 1)[:375, :500].astype(np.uint8)
    made = thumbnail(image, mask, np.roll(mask, 3, 1), ClassTable.from_names(["background", "cell"]), edge_px(1000))
    assert 1000 * sum(map(len, (made.photo, made.truth, made.prediction, made.errors))) < 25e6
