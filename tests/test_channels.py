"""Channels in files of their own, as nnU-Net keeps them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_inference import PixelNetwork, make

from pixelwise.config import ModelConfig
from pixelwise.data import channels, folder, reading, repair
from pixelwise.data.cache import Cache
from pixelwise.data.measure import measure
from pixelwise.errors import DataError
from pixelwise.inference import files, jobs
from pixelwise.inference.jobs import Outputs

SIZE = (20, 30)


def save(path: Path, seed: int, size: tuple[int, int] = SIZE, most: int = 255) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, most + 1, size, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Four cases with two channels each; the name of the case itself ends in a number."""
    for number in range(4):
        for channel in range(2):
            save(tmp_path / "imagesTr" / f"cell_{number:04d}_{channel:04d}.png", 10 * number + channel)
        save(tmp_path / "labelsTr" / f"cell_{number:04d}.png", 100 + number, most=1)
    return tmp_path


def test_channels_become_one_image(two: Path) -> None:
    dataset = folder.scan(two)
    assert [case.name for case in dataset.cases] == [f"train/cell_{number:04d}_0000" for number in range(4)]
    assert not dataset.unpaired
    first = dataset.cases[1]
    assert [path.name for path in first.channels] == ["cell_0001_0001.png"]
    image = reading.read_image(first)
    assert image.shape == (*SIZE, 2)
    expected = [np.asarray(Image.open(two / "imagesTr" / f"cell_0001_{channel:04d}.png")) for channel in range(2)]
    np.testing.assert_array_equal(image, np.stack(expected, axis=2))


def test_a_channel_that_changes_is_decoded_anew(two: Path) -> None:
    dataset = folder.scan(two)
    cache = Cache(two / "cache", dataset)
    before = np.array(cache.open(dataset.cases[0]).image[:])
    changed = save(two / "imagesTr" / "cell_0000_0001.png", 77)
    after = np.array(Cache(two / "cache", dataset).open(dataset.cases[0]).image[:])
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after[..., 1], changed)


def test_a_repaired_copy_has_all_channels_in_one_file(two: Path, tmp_path: Path) -> None:
    dataset = folder.scan(two)
    measured = measure(dataset, lambda _done, _all: None)
    out = tmp_path / "fixed"
    repair.write_copy(dataset, measured, out, lambda _done, _all: None)
    fixed = folder.scan(out)
    assert len(fixed.cases) == 4
    np.testing.assert_array_equal(reading.read_image(fixed.cases[2]), reading.read_image(dataset.cases[2]))


def test_channels_of_other_sizes_are_refused(two: Path) -> None:
    save(two / "imagesTr" / "cell_0002_0001.png", 5, (19, 30))
    with pytest.raises(DataError, match=r"30 x 19 pixels .* first one 30 x 20"):
        reading.read_image(folder.scan(two).cases[2])


def test_frames_in_other_folders_are_images_of_their_own(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "images" / f"frame_{number:04d}.png", number)
        save(tmp_path / "masks" / f"frame_{number:04d}.png", number, most=1)
    dataset = folder.scan(tmp_path)
    assert len(dataset.cases) == 3
    assert not any(case.channels for case in dataset.cases)
    assert channels.further(tmp_path / "images" / "frame_0000.png") == ()


def test_predictions_have_the_names_of_their_cases(two: Path, tmp_path: Path) -> None:
    for channel in range(2):
        save(two / "imagesTs" / f"new_{channel:04d}.png", 50 + channel)
    model = make(ModelConfig(width=4, depth=2), PixelNetwork(), channels=2)
    outputs = Outputs(tmp_path / "out")
    done = files.run(model, jobs.plan([two / "imagesTs"], outputs), outputs)
    assert not done.failed
    assert [path.name for path in done.written] == ["new.png"]
    # the same command again does nothing, until a further channel changes
    assert files.run(model, jobs.plan([two / "imagesTs"], outputs), outputs).written == []
    save(two / "imagesTs" / "new_0001.png", 99)
    assert len(files.run(model, jobs.plan([two / "imagesTs"], outputs), outputs).written) == 1
    single = jobs.plan([two / "imagesTs" / "new_0000.png"], outputs).jobs[0]
    assert [path.name for path in single.channels] == ["new_0001.png"]
