"""From raw values to what the network sees."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.config import Preprocessing
from pixelwise.data.preprocess import (
    loadable,
    match_channels,
    mirrored_window,
    moments,
    normalise,
    refuse_other_range,
    resize_image,
    resize_mask,
    scaling,
    statistics,
    storable,
)
from pixelwise.errors import DataError

RNG = np.random.default_rng(0)


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(-25, 25),
    st.integers(-25, 25),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_a_mirrored_window_is_numpys_reflection(
    height: int, width: int, top: int, left: int, rows: int, columns: int
) -> None:
    array = np.arange(height * width).reshape(height, width)
    pad = 60
    mode = "reflect"
    padded = np.pad(array, ((pad, pad), (0, 0)), mode=mode if height > 1 else "edge")
    padded = np.pad(padded, ((0, 0), (pad, pad)), mode=mode if width > 1 else "edge")
    expected = padded[top + pad : top + pad + rows, left + pad : left + pad + columns]
    np.testing.assert_array_equal(mirrored_window(array, top, left, (rows, columns)), expected)


def test_grey_is_repeated_and_equal_channels_become_one() -> None:
    grey = RNG.integers(0, 255, (4, 5, 1), dtype=np.uint8)
    assert (match_channels(grey, 3) == grey).all()
    assert (match_channels(np.repeat(grey, 3, axis=2), 1) == grey).all()


def test_channels_that_differ_are_not_guessed_at() -> None:
    with pytest.raises(DataError, match="3 channels; 1 are expected"):
        match_channels(RNG.integers(0, 255, (4, 5, 3), dtype=np.uint8), 1)


def normalised(image: np.ndarray, mean: Sequence[float], deviation: Sequence[float]) -> np.ndarray:
    """C h w."""
    factors = torch.from_numpy(scaling(mean, deviation))
    return normalise(torch.from_numpy(loadable(image[None])), factors)[0].numpy()


def test_normalised_values_have_zero_mean_and_unit_deviation() -> None:
    image = RNG.normal((100.0, -7.0), (20.0, 0.5), (40, 50, 2))
    result = normalised(image, *(part.tolist() for part in statistics(image)))
    assert result.shape == (2, 40, 50)
    np.testing.assert_allclose(result.mean(axis=(1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(result.std(axis=(1, 2)), 1.0, atol=1e-5)


def test_a_constant_channel_becomes_zero() -> None:
    image = np.full((3, 3, 1), 7, dtype=np.uint16)
    assert (normalised(image, *(part.tolist() for part in statistics(image))) == 0).all()


def test_normalisation_none_keeps_values_and_image_uses_the_images_own() -> None:
    image = RNG.integers(0, 60000, (9, 9, 1), dtype=np.uint16)
    keep = Preprocessing(channels=1, normalisation="none", mean=(5.0,), deviation=(5.0,))
    np.testing.assert_array_equal(normalised(image, *moments(image, keep))[0], image[..., 0])
    own = keep.model_copy(update={"normalisation": "image"})
    assert normalised(image, *moments(image, own)).mean() == pytest.approx(0.0, abs=1e-5)


def test_resizing_by_two_averages_or_repeats() -> None:
    mask = np.array([[1, 2], [3, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(resize_mask(mask, (4, 4)), np.kron(mask, np.ones((2, 2), dtype=np.uint8)))
    constant = np.full((8, 6, 3), 200, dtype=np.uint8)
    assert (resize_image(constant, (3, 5)) == 200).all()
    assert resize_image(constant, (3, 5)).dtype == np.uint8


def test_image_and_mask_stay_aligned_when_resized() -> None:
    mask = np.zeros((60, 80), dtype=np.uint8)
    mask[20:40, 30:60] = 1
    image = (mask * 200)[..., None]
    small, small_mask = resize_image(image, (33, 41)), resize_mask(mask, (33, 41))
    assert ((small[..., 0] > 100) == (small_mask == 1)).mean() > 0.99


def test_stored_values_keep_integers_and_turn_the_rest_to_float32() -> None:
    assert storable(np.zeros((1, 1, 1), dtype=">u2")).dtype == np.dtype("=u2")
    assert storable(np.zeros((1, 1, 1), dtype=np.int64)).dtype == np.float32
    assert storable(np.zeros((1, 1, 1), dtype=np.float64)).dtype == np.float32


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_statistics_in_bands_are_those_of_the_whole(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = (RNG.random((37, 11, 3)) * 200 + 1000 * (dtype != "uint8")).astype(dtype)
    monkeypatch.setattr("pixelwise.data.windows.BAND_PIXELS", 50)
    mean, deviation = statistics(image)
    np.testing.assert_allclose(mean, image.mean(axis=(0, 1), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(deviation, image.std(axis=(0, 1), dtype=np.float64), rtol=1e-9)


def test_a_constant_float_image_has_deviation_one() -> None:
    assert statistics(np.full((301, 97, 1), 0.1, dtype=np.float64))[1].tolist() == [1.0]


@pytest.mark.parametrize(
    ("dtype", "largest", "is_refused"),
    [
        ("uint8", 255, False),
        ("uint8", 3, False),  # a dark image is an image
        ("uint16", 60_000, True),
        ("uint16", 255, False),  # eight bits in a larger box
        ("float32", 1.0, True),
        ("float32", 200.0, False),
        ("float32", 0.0, False),
    ],
)
def test_other_ranges_than_in_training_are_refused(dtype: str, largest: float, is_refused: bool) -> None:
    trained = Preprocessing(
        channels=1, normalisation="standard", mean=(90.0,), deviation=(40.0,), types=("uint8",), largest=255.0
    )
    image = np.zeros((4, 5, 1), dtype)
    image[1, 2] = largest
    if is_refused:
        with pytest.raises(DataError, match=f"{dtype} values up to .* trained on uint8 values up to 255"):
            refuse_other_range(image, trained)
    else:
        refuse_other_range(image, trained)
    refuse_other_range(image, trained.model_copy(update={"normalisation": "image"}))
    refuse_other_range(image, trained.model_copy(update={"types": ()}))
