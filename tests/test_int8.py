"""Eight bits beside the float network that they stand for, on masks, scores and files."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from conftest import QUICK, draw_discs
from PIL import Image

import pixelwise
from pixelwise.classes import ClassTable
from pixelwise.config import ModelConfig, Preprocessing
from pixelwise.errors import BundleError, ConfigError, DataError
from pixelwise.evaluation.quantised import Quantised
from pixelwise.inference import int8
from pixelwise.inference.predictor import Model
from pixelwise.models.bundle import Description
from pixelwise.models.unet import build

if not int8.is_installed():
    pytest.skip("the extra int8 is not installed", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def _unchecked_shapes() -> Iterator[None]:
    """A network that is traced has shapes that are no numbers."""
    jaxtyping.config.update("jaxtyping_disable", True)  # noqa: FBT003
    yield
    jaxtyping.config.update("jaxtyping_disable", False)  # noqa: FBT003


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_discs(tmp_path_factory.mktemp("data") / "discs", count=9)


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "discs"
    settings = [*QUICK, "training.epochs=4", "training.steps_per_epoch=25", "training.precision=bfloat16"]
    pixelwise.train(images, folder, config=pixelwise.settings(None, settings))
    return folder


@pytest.fixture(scope="module")
def done(trained: Path) -> Quantised:
    return pixelwise.quantise(trained)


def test_masks_and_scores_are_nearly_those_of_the_network(trained: Path, done: Quantised, images: Path) -> None:
    """Rounding to 255 levels moves outlines by a pixel here and there, and no more."""
    assert done.path == trained / "int8.xml"
    assert abs(done.lost) < 0.02
    image = np.array(Image.open(min((images / "images").iterdir())))
    model, quick = pixelwise.load(trained), pixelwise.load(done.path)
    assert quick.classes == model.classes
    probabilities = [one.predict(image, probabilities=True).probabilities for one in (model, quick)]
    assert probabilities[0] is not None
    assert probabilities[1] is not None
    assert np.abs(probabilities[0] - probabilities[1]).mean() < 0.03
    assert not np.array_equal(*probabilities), "it is computed in another way"


def test_it_is_used_like_a_bundle(trained: Path, done: Quantised, images: Path, tmp_path: Path) -> None:
    scores = pixelwise.evaluate(done.path, images, split="all", out=tmp_path / "scores")
    assert scores.miou == pytest.approx(pixelwise.evaluate(trained, images, split="all").miou, abs=0.02)
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["images"] > 0
    two = sorted((images / "images").iterdir())[:2]
    predicted = pixelwise.predict_files(done.path, two, tmp_path / "masks")
    assert len(list((tmp_path / "masks").glob("*.png"))) == len(two), predicted


def test_two_models_have_two_identities(trained: Path, done: Quantised, tmp_path: Path) -> None:
    """So that masks of one are not taken for masks of the other."""
    plain, quick = pixelwise.load(trained), pixelwise.load(done.path)
    assert plain.identity != quick.identity
    assert quick.identity == pixelwise.load(done.path).identity
    for suffix in (".xml", ".bin"):
        (tmp_path / f"moved{suffix}").write_bytes(done.path.with_suffix(suffix).read_bytes())
    assert pixelwise.load(tmp_path / "moved.xml").identity == quick.identity


def test_what_is_missing_or_damaged_is_named(done: Quantised, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="There is no model here") as error:
        pixelwise.load(tmp_path / "absent.xml")
    assert error.value.where == tmp_path / "absent.xml"
    (tmp_path / "alone.xml").write_bytes(done.path.read_bytes())
    with pytest.raises(BundleError, match="There is no model here") as error:
        pixelwise.load(tmp_path / "alone.xml")
    assert error.value.where == tmp_path / "alone.bin"
    for name, content in (("text", b"no model"), ("empty", b""), ("other", b"<?xml version='1.0'?><net name='a'/>")):
        (tmp_path / f"{name}.xml").write_bytes(content)
        (tmp_path / f"{name}.bin").write_bytes(b"")
        with pytest.raises(BundleError, match=r"not a model that Pixelwise has written"):
            pixelwise.load(tmp_path / f"{name}.xml")


def test_graph_and_weights_belong_together(trained: Path, done: Quantised, tmp_path: Path) -> None:
    for suffix in (".xml", ".bin"):
        (tmp_path / f"mixed{suffix}").write_bytes(done.path.with_suffix(suffix).read_bytes())
    content = bytearray((tmp_path / "mixed.bin").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "mixed.bin").write_bytes(content)
    with pytest.raises(BundleError, match="do not belong together"):
        pixelwise.load(tmp_path / "mixed.xml")
    with pytest.raises(ConfigError, match="computes on the CPU"):
        pixelwise.load(done.path, device="cuda")
    with pytest.raises(ConfigError, match=r"end in \.xml"):
        pixelwise.quantise(trained, tmp_path / "model")


@pytest.mark.parametrize(
    "change",
    [
        {"norm": "instance", "activation": "leaky_relu", "downsampling": "convolution", "deep_supervision": True},
        {"norm": "group", "stride": 2},
        {"norm": "none", "padded": False},
    ],
)
def test_every_kind_of_network_can_be_quantised(change: dict[str, object], tmp_path: Path) -> None:
    """Also one whose layers train in another way than they predict."""
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"width": 8, "depth": 3, **change})
    seen = Preprocessing(channels=2, normalisation="none", mean=(0.0, 0.0), deviation=(1.0, 1.0))
    classes = ClassTable.from_names(["a", "b", "c"])
    description = Description(model=config, preprocessing=seen, classes=classes, patch_size=(64, 64))
    plain = Model(build(config, 2, 3).eval(), description, torch.device("cpu"))
    generator = np.random.default_rng(0)
    images = [generator.standard_normal((150, 130, 2)).astype(np.float32) for _ in range(3)]
    int8.write(plain, images, tmp_path / "model.xml")
    quick = int8.load(tmp_path / "model.xml")
    weights = [
        node.get_data()
        for node in int8._core().read_model(tmp_path / "model.xml").get_ops()
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i8"
    ]
    assert weights
    assert all(np.abs(numbers.astype(int)).max() <= 64 for numbers in weights), "seven bits: no sum overflows"
    for image in (images[0], images[0][:40, :90]):
        expected, found = (one.predict(image, probabilities=True).probabilities for one in (plain, quick))
        assert expected is not None
        assert found is not None
        assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.95


def test_a_run_is_needed_to_make_one(trained: Path, tmp_path: Path) -> None:
    with pytest.raises((BundleError, DataError)):
        pixelwise.quantise(tmp_path)
    with pytest.raises((BundleError, DataError)):
        pixelwise.quantise(trained / "best.safetensors")


def test_the_command_says_what_it_gains_and_loses(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pixelwise import cli

    monkeypatch.setattr("sys.argv", ["pixelwise", "quantise", str(trained), "--out", str(tmp_path / "small.xml")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    told = capsys.readouterr().out
    assert "as trained:" in told
    assert "in eight bits:" in told
    assert str(tmp_path / "small.xml") in told
    monkeypatch.setattr("sys.argv", ["pixelwise", "quantise", str(trained), "--out", str(tmp_path / "small.bin")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code


def test_without_the_libraries_the_extra_is_named(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ConfigError, match="nncf"):
        pixelwise.quantise(trained)


def test_nothing_is_told_to_anybody() -> None:
    """OpenVINO and NNCF send statistics when they are imported, unless their library for it is missing."""
    program = (
        "import sys\n"
        "from pixelwise.inference.int8 import _openvino\n"
        "_openvino()\n"
        "import nncf, openvino.tools.ovc\n"
        "import nncf.telemetry.wrapper as wrapper\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
        "assert not isinstance(wrapper.telemetry, wrapper.NNCFTelemetry)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ctrl_c_is_survived_after_a_model_is_gone(done: Quantised) -> None:
    """OpenVINO's library, where it is unloaded, takes the stack with it that signals are handled on."""
    program = (
        "import signal, sys\n"
        "import numpy, pixelwise\n"
        "model = pixelwise.load(sys.argv[1])\n"
        "model.predict(numpy.zeros((48, 48), dtype=numpy.uint8))\n"
        "del model\n"
        "signal.signal(signal.SIGINT, lambda number, frame: print('asked'))\n"
        "signal.raise_signal(signal.SIGINT)\n"
    )
    command = [sys.executable, "-c", program, str(done.path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "asked"), ended.stderr
