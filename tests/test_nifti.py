"""Volumes as stacks of slices, and back with the same affine. Referee: nibabel."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from test_inference import PixelNetwork, make

from pixelwise import api
from pixelwise.config import ModelConfig
from pixelwise.data import formats
from pixelwise.data.folder import scan
from pixelwise.data.masks import decode
from pixelwise.errors import ConfigError, DataError
from pixelwise.inference.predictor import Model

nibabel = pytest.importorskip("nibabel")

RNG = np.random.default_rng(3)
AFFINE = np.array([[-0.8, 0.1, 0, 10], [0, 0.9, 0.2, -20], [0.1, 0, 2.5, 30], [0, 0, 0, 1]], dtype=np.float64)


def write(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(voxels, affine).to_filename(path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_slices_are_those_of_the_volume(suffix: str, dtype: type, tmp_path: Path) -> None:
    voxels = RNG.integers(0, 250, (11, 13, 5)).astype(dtype)
    path = write(tmp_path / f"a{suffix}", voxels)
    assert formats.read_info(path) == formats.ImageInfo(13, 11, 1, np.dtype(dtype).name, 5)
    assert formats.page_count(path) == 5
    for page in range(5):
        image = formats.read_image(path, page)
        assert image.dtype == dtype
        np.testing.assert_array_equal(image[:, :, 0], voxels[:, :, page].T)
        np.testing.assert_array_equal(formats.read_mask(path, page), voxels[:, :, page].T)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_taken_where_voxels_are_farthest_apart(axis: int, tmp_path: Path) -> None:
    voxels = RNG.integers(0, 250, (4, 5, 6)).astype(np.int16)
    affine = np.diag([*(3.0 if number == axis else 1.0 for number in range(3)), 1.0])
    path = write(tmp_path / "a.nii.gz", voxels, affine)
    assert formats.page_count(path) == voxels.shape[axis]
    np.testing.assert_array_equal(formats.read_image(path, 2)[:, :, 0], np.take(voxels, 2, axis).T)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_across_an_axis_that_is_chosen(axis: int, tmp_path: Path) -> None:
    voxels = RNG.integers(0, 250, (4, 5, 6)).astype(np.int16)
    for number in range(4):
        write(tmp_path / "images" / f"{number}.nii.gz", voxels, np.diag([1.0, 3.0, 1.0, 1.0]))
        write(tmp_path / "masks" / f"{number}.nii.gz", (voxels > 100).astype(np.uint8), np.diag([1.0, 3.0, 1.0, 1.0]))
    (tmp_path / "data.yaml").write_text(f"slices: {axis}\nimages: images/*\nmasks: masks/{{stem}}.nii.gz\n")
    dataset = scan(tmp_path)
    assert len(dataset.cases) == 4 * voxels.shape[axis]
    for index, case in enumerate(dataset.cases[: voxels.shape[axis]]):
        assert case.name == f"0/{index}"
        image, mask = formats.read_image(case.image, case.page), formats.read_mask(case.masks[0], case.page)
        np.testing.assert_array_equal(image[:, :, 0], np.take(voxels, index, axis).T)
        np.testing.assert_array_equal(mask, np.take(voxels > 100, index, axis).T)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_model_cuts_volumes_as_those_that_it_was_trained_on(axis: int, tmp_path: Path) -> None:
    class Rows(PixelNetwork):
        """Class 1 in the upper half of a slice, whose direction depends on the axis."""

        def forward(self, image: "torch.Tensor") -> "torch.Tensor":
            upper = torch.linspace(1.0, -1.0, image.shape[2])[None, None, :, None].expand_as(image)
            return torch.cat([-upper, upper], dim=1)

    plain = make(ModelConfig(width=4, depth=1), Rows())
    told = plain.description.preprocessing.model_copy(update={"slices": axis})
    model = Model(plain.network, plain.description.model_copy(update={"preprocessing": told}), plain.device)
    path = write(tmp_path / "a.nii.gz", RNG.integers(0, 250, (8, 12, 16)).astype(np.uint8))
    done = api.predict_files(model, [path], tmp_path / "out")
    mask = np.asarray(nibabel.load(done.written[0]).dataobj)
    rows = 1 if axis == 2 else 2  # the later of the other two axes
    half = mask.shape[rows] // 2
    assert mask.shape == (8, 12, 16)
    assert np.take(mask, range(half), rows).all()
    assert not np.take(mask, range(half, 2 * half), rows).any()


def test_a_single_slice_across_an_axis_that_is_chosen(tmp_path: Path) -> None:
    """The spacing alone would cut it the other way."""
    voxels = RNG.integers(0, 250, (6, 7, 1)).astype(np.int16)
    for number in range(4):
        for folder, values in (("images", voxels), ("masks", (voxels > 100).astype(np.uint8))):
            write(tmp_path / folder / f"{number}.nii", values, np.diag([1.5, 1.5, 1.0, 1.0]))
    (tmp_path / "data.yaml").write_text("slices: 2\nimages: images/*\nmasks: masks/{stem}.nii\n")
    case = scan(tmp_path).cases[0]
    np.testing.assert_array_equal(formats.read_image(case.image, case.page)[:, :, 0], voxels[:, :, 0].T)


def test_slices_of_volumes_with_other_masks_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "images" / "0.nii", RNG.integers(0, 250, (6, 7, 2)).astype(np.int16))
    (tmp_path / "masks").mkdir()
    tifffile.imwrite(tmp_path / "masks" / "0.tif", np.zeros((2, 7, 6), dtype=np.uint8), photometric="minisblack")
    (tmp_path / "data.yaml").write_text("slices: 2\nimages: images/*\nmasks: masks/{stem}.tif\n")
    with pytest.raises(DataError, match="masks are volumes"):
        scan(tmp_path)


def test_slices_that_a_volume_does_not_have_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("slices: 3\nimages: images/*\nmasks: masks/{stem}.nii\n")
    with pytest.raises(ConfigError, match="slices"):
        scan(tmp_path)


def test_a_fourth_axis_holds_channels(tmp_path: Path) -> None:
    voxels = RNG.integers(0, 250, (7, 8, 3, 4)).astype(np.uint8)
    path = write(tmp_path / "a.nii.gz", voxels)
    np.testing.assert_array_equal(formats.read_image(path, 1), voxels[:, :, 1].swapaxes(0, 1))


def test_scaled_values_are_those_that_are_meant(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7, np.eye(4))
    image.set_data_dtype(np.int16)
    image.to_filename(tmp_path / "a.nii.gz")
    expected = nibabel.load(tmp_path / "a.nii.gz").get_fdata()
    np.testing.assert_allclose(formats.read_image(tmp_path / "a.nii.gz", 1)[:, :, 0], expected[:, :, 1].T)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.98])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_volume_that_is_cut_short_is_named(share: float, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{suffix}", RNG.integers(0, 250, (40, 40, 10)).astype(np.int16))
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    with pytest.raises(DataError) as caught:
        formats.read_image(path, 9)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("images", ["imagesTr/case_{}_0000.nii.gz", "imagesTr/case_{}.nii.gz"])
def test_folders_of_nnunet_and_medical_decathlon(images: str, tmp_path: Path) -> None:
    masks = {}
    for number in range(3):
        voxels = RNG.integers(-1000, 1000, (12, 14, 4)).astype(np.int16)
        write(tmp_path / images.format(number), voxels)
        masks[number] = (voxels > 0).astype(np.uint8)
        write(tmp_path / f"labelsTr/case_{number}.nii.gz", masks[number])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "tumour"}}))
    dataset = scan(tmp_path)
    assert dataset.classes.names == ["background", "tumour"]
    assert len(dataset.cases) == 12
    assert len({case.group for case in dataset.cases}) == 3
    for case in dataset.cases:
        number = int(case.masks[0].name.split("_")[1][0])
        decoded = decode(case, dataset.encoding, (14, 12))
        np.testing.assert_array_equal(decoded, masks[number][:, :, case.page].T)
    _, findings = api.check(tmp_path)
    assert not [found for found in findings if found.severity == "fatal"]


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "imagesTs/a_0000.nii.gz"])
def test_a_volume_is_predicted_with_the_same_affine(axis: int, name: str, tmp_path: Path) -> None:
    model = make(ModelConfig(width=4, depth=2), PixelNetwork())
    voxels = RNG.integers(0, 2, (20, 17, 6)).astype(np.float32)
    affine = AFFINE if axis == 2 else AFFINE @ np.diag([9, 1, 1, 1])
    source = write(tmp_path / name, voxels, affine)
    done = api.predict_files(model, [source], tmp_path / "out")
    assert not done.failed
    assert [path.name for path in done.written] == [source.name.replace("_0000", "")]
    mask = nibabel.load(done.written[0])
    np.testing.assert_array_equal(mask.affine, nibabel.load(source).affine)
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(mask.dataobj), voxels)
    assert mask.header.get_xyzt_units() == nibabel.load(source).header.get_xyzt_units()
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_without_nibabel_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from pixelwise.errors import ConfigError

    path = write(tmp_path / "a.nii.gz", np.zeros((3, 3, 3), np.uint8))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ConfigError, match="medical"):
        formats.read_image(path, 0)
