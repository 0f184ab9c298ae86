"""From an image to a mask, through tiles."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pixelwise.classes import IGNORE, ClassTable
from pixelwise.config import SIZES, ModelConfig, PredictionConfig, Preprocessing
from pixelwise.errors import ConfigError, DataError, MachineError
from pixelwise.inference import predictor, scoring
from pixelwise.inference.predictor import Model, choose_device
from pixelwise.inference.tiles import Band, Tiling, bands, enlarged
from pixelwise.models.bundle import Description
from pixelwise.models.unet import build

RNG = np.random.default_rng(0)
CPU = torch.device("cpu")


def make(model: ModelConfig, network: nn.Module | None = None, channels: int = 1, **prediction: object) -> Model:
    preprocessing = Preprocessing(
        channels=channels, normalisation="standard", mean=(0.0,) * channels, deviation=(1.0,) * channels
    )
    description = Description(
        model=model,
        preprocessing=preprocessing,
        classes=ClassTable.from_names(["low", "high"]),
        patch_size=(32, 32),
        prediction=PredictionConfig(**prediction),
    )
    torch.manual_seed(0)
    return Model((network or build(model, channels, 2)).eval(), description, CPU)


class PixelNetwork(nn.Module):
    """Knows the answer from one pixel alone: class 1 where the value is above 0.5."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([0.5 - image[:, :1], image[:, :1] - 0.5], dim=1) * 50


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("size", [(1, 1), (31, 200), (64, 64), (65, 63), (150, 97)])
def test_every_pixel_gets_its_own_answer_whatever_the_tiles(size: tuple[int, int], overlap: float, blend: str) -> None:
    image = RNG.random(size).astype(np.float32)
    model = make(ModelConfig(width=4, depth=2), PixelNetwork(), overlap=overlap, blend=blend)
    prediction = model.predict(image, probabilities=True)
    np.testing.assert_array_equal(prediction.mask, image > 0.5)
    assert prediction.probabilities is not None
    np.testing.assert_allclose(prediction.probabilities.sum(axis=0), 1.0, atol=1e-5)


def test_an_unpadded_network_gives_the_same_with_any_tiles() -> None:
    """The paper's point: a tile sees everything its output depends on, so that no seam can show."""
    model = make(ModelConfig(**{**SIZES["paper"], "width": 4, "depth": 2}))
    image = RNG.normal(size=(90, 130)).astype(np.float32)
    whole = model.with_prediction(PredictionConfig(tile_size=(256, 256))).predict(image, probabilities=True)
    tiled = model.with_prediction(PredictionConfig(tile_size=(40, 32))).predict(image, probabilities=True)
    np.testing.assert_allclose(tiled.probabilities, whole.probabilities, atol=1e-5)


def test_tiles_of_a_padded_network_agree_with_the_whole_away_from_seams() -> None:
    model = make(ModelConfig(width=4, depth=2))
    image = RNG.normal(size=(160, 160)).astype(np.float32)
    whole = model.with_prediction(PredictionConfig(tile_size=(160, 160))).predict(image, probabilities=True)
    tiled = model.with_prediction(PredictionConfig(tile_size=(96, 96), overlap=0.5)).predict(image, probabilities=True)
    assert np.abs(whole.probabilities - tiled.probabilities).mean() < 0.02


@pytest.mark.parametrize("size", [(32, 32), (90, 61)])
def test_rotations_are_averaged(size: tuple[int, int]) -> None:
    """A turned or mirrored image has the turned or mirrored result, whichever of the eight ways it is."""
    model = make(ModelConfig(width=4, depth=2), flips="rotations", tile_size=(32, 32), overlap=0.0)
    image = RNG.normal(size=(32, 32)).astype(np.float32)
    straight = model.predict(image, probabilities=True).probabilities
    assert straight is not None
    for turns in range(4):
        for over in (False, True):
            laid = np.rot90(image, turns)
            laid = laid[:, ::-1] if over else laid
            result = model.predict(np.ascontiguousarray(laid), probabilities=True).probabilities
            back = result[:, :, ::-1] if over else result
            np.testing.assert_allclose(np.rot90(back, -turns, axes=(1, 2)), straight, atol=1e-5)
    assert model.predict(RNG.normal(size=size).astype(np.float32)).mask.shape == size


@pytest.mark.parametrize(
    ("flips", "left_right", "up_down"), [("none", False, False), ("horizontal", True, False), ("both", True, True)]
)
def test_flips_are_averaged(flips: str, left_right: bool, up_down: bool) -> None:
    """The result of a mirrored image is the mirrored result, for the flips that are averaged and for no others."""
    model = make(ModelConfig(width=4, depth=2), flips=flips)
    image = RNG.normal(size=(32, 32)).astype(np.float32)
    once = model.predict(image, probabilities=True).probabilities
    across = model.predict(image[:, ::-1].copy(), probabilities=True).probabilities[:, :, ::-1]
    upside_down = model.predict(image[::-1].copy(), probabilities=True).probabilities[:, ::-1]
    assert np.allclose(across, once, atol=1e-5) == left_right
    assert np.allclose(upside_down, once, atol=1e-5) == up_down


def test_blocks_of_columns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(ModelConfig(width=4, depth=2), overlap=0.5, tile_size=(32, 32))
    image = RNG.normal(size=(70, 300)).astype(np.float32)
    whole = model.predict(image, probabilities=True)
    monkeypatch.setattr(predictor, "BAND_BYTES", 1)
    cut = model.predict(image, probabilities=True)
    np.testing.assert_array_equal(cut.mask, whole.mask)
    np.testing.assert_array_equal(cut.probabilities, whole.probabilities)


def test_bands_come_in_order_and_cover_the_image_once() -> None:
    image = RNG.random((70, 40, 1)).astype(np.float32)
    tiling = Tiling((16, 16), border_px=0, margin_px=4, align_px=4, overlap=0.5, blend="gaussian", batch_size=3)

    def predict(windows: list[np.ndarray]) -> Tensor:
        tiles = torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2)
        return torch.cat([tiles, 1 - tiles], dim=1)

    seen = np.zeros((70, 40), int)
    for band in bands(image, predict, tiling):
        assert seen[: band.top].all()
        assert seen[band.place[0], : band.left].all()
        seen[band.place] += 1
        np.testing.assert_allclose(band.probabilities[0], image[*band.place, 0], atol=1e-5)
    assert (seen == 1).all()


def test_resized_images_come_back_at_their_own_size() -> None:
    model = make(ModelConfig(width=4, depth=2), PixelNetwork())
    description = model.description
    preprocessing = description.preprocessing.model_copy(update={"resize": (64, 64)})
    small = Model(model.network, description.model_copy(update={"preprocessing": preprocessing}), CPU)
    image = np.zeros((130, 70), dtype=np.float32)
    image[:65] = 1.0
    mask = small.predict(image).mask
    assert mask.shape == (130, 70)
    assert (mask == (image > 0.5)).mean() > 0.97


def test_grey_images_serve_a_colour_model_and_other_channels_are_refused() -> None:
    model = make(ModelConfig(width=4, depth=2), channels=3)
    assert model.predict(RNG.random((20, 20)).astype(np.float32)).mask.shape == (20, 20)
    with pytest.raises(DataError, match="5 channels; 3 are expected"):
        model.predict(RNG.random((20, 20, 5)).astype(np.float32))


@pytest.mark.parametrize("image", [np.zeros((0, 5)), np.zeros(3), np.array([["a"]]), np.zeros((2, 2, 2, 2))])
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="not an image"):
        make(ModelConfig(width=4, depth=2)).predict(image)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_refused_and_never_become_class_0(value: float) -> None:
    image = RNG.random((40, 30))
    image[7, 5] = value
    with pytest.raises(DataError, match="1 values of the image are not finite"):
        make(ModelConfig(width=4, depth=2), PixelNetwork()).predict(image)


class Listener(nn.Module):
    """Keeps what the network is shown."""

    def forward(self, image: Tensor) -> Tensor:
        self.seen = image
        return torch.cat([image, -image], dim=1)


def test_an_image_is_normalised_after_it_is_resized_as_in_training() -> None:
    network = Listener()
    model = make(ModelConfig(width=4, depth=2), network)
    preprocessing = model.description.preprocessing.model_copy(update={"resize": (32, 32), "normalisation": "image"})
    resizing = Model(network, model.description.model_copy(update={"preprocessing": preprocessing}), CPU)
    rows, columns = np.mgrid[:128, :128]
    # resizing averages the checkerboard away, and with it nearly all of the original's deviation
    image = (100.0 * ((rows + columns) % 2) + rows / 128).astype(np.float32)
    resizing.predict(image)
    assert abs(float(network.seen.mean())) < 1e-3
    assert abs(float(network.seen.std(correction=0)) - 1.0) < 1e-3


def test_the_cross_entropy_is_that_of_float64_though_the_device_may_have_none() -> None:
    probabilities = torch.softmax(torch.from_numpy(RNG.normal(size=(3, 50, 70))).float(), dim=0)
    truth = torch.from_numpy(RNG.integers(0, 3, (50, 70)).astype(np.uint8))
    truth[4:9] = IGNORE
    band = Band(0, probabilities)
    rows = scoring._cross_entropy(scoring.Compared(band, band.classes(), truth))
    assert rows.dtype == torch.float32
    chosen = np.take_along_axis(probabilities.numpy().astype(np.float64), truth.numpy()[None].clip(0, 2), 0)[0]
    expected = -np.log(chosen)[truth.numpy() != IGNORE].sum()
    assert float(rows.double().sum()) == pytest.approx(expected, rel=1e-6)


def test_an_absent_device_is_a_wrong_setting() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="no device 'cuda'"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("small", "large"), [((7, 5), (600, 11)), ((300, 4), (301, 4)), ((1, 1), (9, 9)), ((40, 40), (20, 10))]
)
def test_enlarging_in_bands_is_enlarging_the_whole(small: tuple[int, int], large: tuple[int, int]) -> None:
    values = torch.rand(3, *small)
    whole = nn.functional.interpolate(values[None], large, mode="bilinear", align_corners=False)[0]
    parts = list(enlarged(values, large))
    assert [band.top for band in parts] == list(range(0, large[0], 256))
    torch.testing.assert_close(
        torch.cat([band.probabilities for band in parts], dim=1), whole, atol=5e-5, rtol=0
    )  # float32 places


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("size", [(1, 1), (3, 40), (8, 8)])
def test_tiny_images_are_predicted(norm: str, size: tuple[int, int]) -> None:
    model = make(ModelConfig(width=4, depth=3, norm=norm))
    assert model.predict(np.ones(size, dtype=np.float32)).mask.shape == size


def test_memory_that_does_not_suffice_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(ModelConfig(width=4, depth=1))

    def full(_image: Tensor) -> Tensor:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(model.network, "forward", full)
    with pytest.raises(MachineError, match=r"Memory does not suffice.*smaller tiles"):
        model.predict(np.ones((8, 8), dtype=np.float32))
