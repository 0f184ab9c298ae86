"""Nearly equal images: what makes copies, and what makes strangers."""

from collections.abc import Callable

import numpy as np
import pytest
from jaxtyping import Shaped
from scipy import ndimage

from pixelwise.data.alike import ALIKE, Likeness, Pair, coarse, linked

Image = Shaped[np.ndarray, "H W C"]
Change = Callable[[Image], Image]


def scene(seed: int, size: tuple[int, int] = (150, 200)) -> Image:
    """A random picture with structure of several sizes, inside of the dark rim that all pictures have."""
    generator = np.random.default_rng(seed)
    layers = [ndimage.gaussian_filter(generator.standard_normal(size), sigma) * sigma for sigma in (2, 5, 12)]
    rows, columns = np.ogrid[: size[0], : size[1]]
    inside = ((rows / size[0] - 0.5) ** 2 + (columns / size[1] - 0.5) ** 2) < 0.24
    grey = np.where(inside, 120 + 60 * sum(layers), 5.0)
    return np.clip(np.stack([grey, 0.8 * grey, 0.5 * grey], axis=2), 0, 255).astype(np.uint8)


SCENES = [scene(seed) for seed in range(12)]

CHANGES: dict[str, Change] = {
    "nothing": lambda image: image,
    "brighter": lambda image: np.clip(image * 0.7 + 40, 0, 255).astype(np.uint8),
    "more contrast": lambda image: (255 * (image / 255.0) ** 1.3).astype(np.uint8),
    "half the size": lambda image: image.reshape(75, 2, 100, 2, 3).mean((1, 3)).astype(np.uint8),
    "noise": lambda image: np.clip(image + np.random.default_rng(0).normal(0, 6, image.shape), 0, 255).astype(np.uint8),
    "grey": lambda image: image.mean(axis=2, keepdims=True).astype(np.uint8),
    "16 bits": lambda image: image.astype(np.uint16) * 257,
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "turned": np.rot90,
    "turned and mirrored": lambda image: np.rot90(image)[:, ::-1],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(name: str) -> None:
    images = [*SCENES, np.ascontiguousarray(CHANGES[name](SCENES[4]))]
    (pair,) = Likeness([coarse(image) for image in images]).pairs(ALIKE)
    assert (pair.first, pair.second) == (4, 12)
    assert ALIKE <= pair.similarity <= 1.0001


def test_pictures_of_one_instrument_are_not_alike_for_their_rim() -> None:
    pictures = [coarse(image) for image in SCENES]
    assert float((pictures[0] * pictures[1]).sum()) > 0.5  # the rim alone
    assert Likeness(pictures).pairs(0.6) == []


def test_the_nearest_of_two_sides_is_one_of_each() -> None:
    noisy = CHANGES["noise"](SCENES[2])
    likeness = Likeness([coarse(image) for image in [*SCENES, noisy]])
    found = likeness.nearest(np.array([0, 1, 2]), np.array([5, 12, 7]))
    assert found is not None
    assert (found.first, found.second) == (2, 12)
    assert found.similarity > ALIKE
    other = likeness.nearest(np.array([0, 1]), np.array([5, 7]))
    assert other is not None
    assert other.similarity < ALIKE
    assert likeness.nearest(np.array([0]), np.array([], dtype=int)) is None


def test_images_without_structure_are_like_nothing() -> None:
    blank = [np.full((40, 50, 3), value, dtype=np.uint8) for value in (0, 0, 9, 255)]
    assert Likeness([coarse(image) for image in [*blank, *SCENES]]).pairs(ALIKE) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 5), (31, 33), (3000, 20)])
def test_any_size_has_a_coarse_picture(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*size, 2), dtype=np.uint8)
    assert coarse(image).shape == (32, 32)
    assert np.isfinite(coarse(image)).all()


def test_no_image_has_no_pairs() -> None:
    assert Likeness([]).pairs(ALIKE) == []


def test_pairs_of_many_images_are_those_of_few() -> None:
    """More images than are compared at once."""
    generator = np.random.default_rng(0)
    pictures = list(generator.standard_normal((2300, 32, 32)).astype(np.float32))
    pictures[2200] = pictures[30] + 0.1 * generator.standard_normal((32, 32)).astype(np.float32)
    pictures[1100] = pictures[1050]
    found = {(pair.first, pair.second) for pair in Likeness(pictures).pairs(ALIKE)}
    assert found == {(30, 2200), (1050, 1100)}


def test_what_hangs_together_by_pairs_is_one_set() -> None:
    pairs = [Pair(0, 3, 1.0), Pair(3, 5, 1.0), Pair(1, 2, 1.0)]
    assert linked(pairs, 7) == [[0, 3, 5], [1, 2]]
