"""The demo data set: readable, repeatable, not to be had by thresholds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from pixelwise.classes import ClassTable
from pixelwise.data import demo, folder
from pixelwise.data.formats import read_image, read_mask
from pixelwise.errors import DataError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "demo"
    demo.draw(path, images=16)
    return path


def read_all(path: Path) -> tuple[np.ndarray, np.ndarray]:
    images = np.stack([read_image(file) for file in sorted((path / "images").iterdir())])
    return images, np.stack([read_mask(file) for file in sorted((path / "masks").iterdir())])


def miou(predicted: np.ndarray, true: np.ndarray) -> float:
    scores = []
    for index in range(len(demo.NAMES)):
        hit, either = (predicted == index) & (true == index), (predicted == index) | (true == index)
        scores.append(hit.sum() / either.sum())
    return float(np.mean(scores))


def test_the_folder_holds_pairs_of_pictures_and_masks(drawn: Path) -> None:
    names = [f"{number:03d}.png" for number in range(16)]
    assert sorted(file.name for file in (drawn / "images").iterdir()) == names
    assert sorted(file.name for file in (drawn / "masks").iterdir()) == names
    images, masks = read_all(drawn)
    assert images.shape == (16, 160, 160, 3)
    assert images.dtype == np.uint8
    assert set(np.unique(masks)) == {0, 1, 2}


def test_masks_are_index_pictures_in_the_colors_of_the_classes(drawn: Path) -> None:
    with Image.open(drawn / "masks" / "000.png") as picture:
        assert picture.mode == "P"
        palette = np.array(picture.getpalette())[: 3 * len(demo.NAMES)].reshape(-1, 3)
    assert np.array_equal(palette, ClassTable.from_names(demo.NAMES).colors())


def test_the_folder_is_read_as_what_it_is(drawn: Path) -> None:
    found = folder.scan(drawn)
    assert len(found.cases) == 16
    assert found.classes == ClassTable.from_names(demo.NAMES)
    assert found.encoding.kind == "values"
    assert dict(found.encoding.values) == {0: 0, 1: 1, 2: 2}
    assert found.unpaired == ()


def test_equal_seeds_give_equal_files_and_other_seeds_do_not(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        demo.draw(tmp_path / name, images=2, size_px=96, seed=seed)
    for part in ("images/001.png", "masks/001.png"):
        a, b, c = ((tmp_path / name / part).read_bytes() for name in "abc")
        assert a == b
        assert a != c


def test_a_picture_does_not_depend_on_how_many_are_drawn(tmp_path: Path) -> None:
    demo.draw(tmp_path / "few", images=1, size_px=96)
    demo.draw(tmp_path / "more", images=2, size_px=96)
    assert (tmp_path / "few/images/000.png").read_bytes() == (tmp_path / "more/images/000.png").read_bytes()


def test_every_class_is_common_and_pictures_use_the_range(drawn: Path) -> None:
    images, masks = read_all(drawn)
    shares = np.bincount(masks.ravel(), minlength=3) / masks.size
    assert (shares > (0.25, 0.25, 0.06)).all()
    assert all((mask == 1).any() and (mask == 2).any() for mask in masks)
    assert np.percentile(images, 99.5) > 200
    assert np.percentile(images, 5) < 40


def test_whole_nuclei_lie_in_cells_and_are_round(drawn: Path) -> None:
    _, masks = read_all(drawn)
    for mask in masks:
        regions, count = ndimage.label(mask == 2)
        sizes = ndimage.sum_labels(mask == 2, regions, np.arange(1, count + 1))
        assert sizes.max() < 1200  # two nuclei that touch, at most
    around = ndimage.binary_dilation(masks == 2, np.ones((1, 3, 3))) & (masks != 2)
    assert (masks[around] == 1).mean() > 0.97


def test_thresholds_do_not_solve_it(drawn: Path) -> None:
    """Half of the pictures tell a decision tree on colour, raw and smoothed, all it can know of the other half."""
    images, masks = read_all(drawn)
    smoothed = ndimage.gaussian_filter(images.astype(np.float32), (0, 1.5, 1.5, 0))
    features = np.concatenate([images, smoothed], axis=-1).reshape(16, -1, 6)
    labels = masks.reshape(16, -1)
    tree = DecisionTreeClassifier(max_leaf_nodes=40, random_state=0)
    tree.fit(features[:8, ::4].reshape(-1, 6), labels[:8, ::4].ravel())
    score = miou(tree.predict(features[8:].reshape(-1, 6)), labels[8:].ravel())
    assert 0.4 < score < 0.8


@pytest.mark.slow
def test_a_small_convolutional_network_beats_thresholds(drawn: Path) -> None:
    images, masks = read_all(drawn)
    inputs = torch.from_numpy(images / 64.0 - 1.0).permute(0, 3, 1, 2).float()
    target = torch.from_numpy(masks).long()
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for features, dilation in ((3, 1), (16, 2), (16, 4), (16, 8), (16, 1)):
        layers += [nn.Conv2d(features, 16, 3, padding=dilation, dilation=dilation), nn.BatchNorm2d(16), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Conv2d(16, 3, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(80):
        rows = torch.arange(4) + 4 * (step % 3)
        loss = nn.functional.cross_entropy(network(inputs[rows]), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        predicted = network.eval()(inputs[12:]).argmax(dim=1)
    assert miou(predicted.numpy(), masks[12:]) > 0.75


@pytest.mark.parametrize(("images", "size_px"), [(0, 160), (3, 40)])
def test_impossible_numbers_are_refused(tmp_path: Path, images: int, size_px: int) -> None:
    with pytest.raises(DataError, match=rf"{images} pictures of {size_px} pixels cannot be drawn"):
        demo.draw(tmp_path, images=images, size_px=size_px)


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file"):
        demo.draw(tmp_path / "file", images=1)
