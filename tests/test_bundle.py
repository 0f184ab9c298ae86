"""The file that keeps a trained network."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pixelwise.classes import ClassTable
from pixelwise.config import ModelConfig, Preprocessing
from pixelwise.errors import BundleError
from pixelwise.models import bundle as bundles
from pixelwise.models.unet import build


def description(model: ModelConfig) -> bundles.Description:
    return bundles.Description(
        model=model,
        preprocessing=Preprocessing(channels=2, normalisation="standard", mean=(1.0, 2.0), deviation=(3.0, 4.0)),
        classes=ClassTable.from_names(["sky", "ground", "bird"]),
        patch_size=(32, 48),
        training={"seed": 3},
    )


def test_a_bundle_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    model = ModelConfig(width=4, depth=2)
    network = build(model, 2, 3).eval()
    saved = bundles.Bundle(description(model), bundles.state_on_cpu(network))
    bundles.save(saved, tmp_path / "b.safetensors")
    loaded = bundles.load(tmp_path / "b.safetensors")
    assert loaded.description == saved.description
    image = torch.randn(1, 2, 20, 20)
    with torch.no_grad():
        assert torch.equal(loaded.network()(image), network(image))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere\.safetensors.*no such file or folder"):
        bundles.load(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "is empty"),
        (["begun.json"], "after its first validation"),
        (
            ["run-1/best.safetensors", "run-2/best.safetensors", "notes/a.txt"],
            "one of the runs below it, such as .*run-2",
        ),
    ],
)
def test_a_folder_without_a_model_is_told_from_one_that_is_not_there(
    tmp_path: Path, files: list[str], said: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(BundleError, match=f"This folder holds no model.*{said}") as error:
        bundles.load(tmp_path)
    assert error.value.where == tmp_path


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("hello")
    save_file({"x": torch.zeros(1)}, tmp_path / "weights.safetensors")
    torch.save({"x": torch.zeros(1)}, tmp_path / "pickle.pt")
    for name in ("text.safetensors", "weights.safetensors", "pickle.pt"):
        with pytest.raises(BundleError, match="not a Pixelwise bundle"):
            bundles.load(tmp_path / name)


def test_a_truncated_bundle_is_refused(tmp_path: Path) -> None:
    model = ModelConfig(width=4, depth=2)
    path = tmp_path / "b.safetensors"
    bundles.save(bundles.Bundle(description(model), bundles.state_on_cpu(build(model, 2, 3))), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BundleError, match="not a Pixelwise bundle"):
        bundles.load(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    weights = bundles.state_on_cpu(build(ModelConfig(width=8, depth=2), 2, 3))
    bundles.save(bundles.Bundle(description(ModelConfig(width=4, depth=2)), weights), tmp_path / "b.safetensors")
    with pytest.raises(BundleError, match="do not fit"):
        bundles.load(tmp_path / "b.safetensors").network()


def test_another_version_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors", {"format": bundles.FORMAT, "version": "99"})
    with pytest.raises(BundleError, match="is of version 99, and this"):
        bundles.load(tmp_path / "b.safetensors")
