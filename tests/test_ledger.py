"""The same command again does what is missing, and nothing that somebody made is lost."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_inference import PixelNetwork, make
from test_predict_files import below, bright_rows, write

from pixelwise import api
from pixelwise.config import ModelConfig, PredictionConfig
from pixelwise.data.loader import Share
from pixelwise.errors import DataError
from pixelwise.inference.ledger import Ledger, share_of_this_process
from pixelwise.inference.predictor import Model


class Counting(PixelNetwork):
    calls = 0

    def forward(self, image: "object") -> "object":
        self.calls += 1
        return super().forward(image)


@pytest.fixture
def network() -> Counting:
    return Counting()


@pytest.fixture
def model(network: Counting) -> Model:
    return make(ModelConfig(width=4, depth=2), network)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(5):
        write(tmp_path / "in" / f"{number}.png", bright=number)
    return tmp_path / "in"


def test_a_second_call_does_nothing(model: Model, network: Counting, images: Path, tmp_path: Path) -> None:
    first = api.predict_files(model, [images], tmp_path / "out")
    network.calls = 0
    second = api.predict_files(model, [images], tmp_path / "out")
    assert network.calls == 0
    assert (len(first.written), first.unchanged) == (5, [])
    assert (second.written, second.unchanged) == ([], first.written)


def test_only_what_is_missing_is_done(model: Model, network: Counting, images: Path, tmp_path: Path) -> None:
    api.predict_files(model, [images], tmp_path / "out")
    (tmp_path / "out" / "3.png").unlink()
    write(images / "1.png", bright=7)  # another image of the same name
    write(images / "new.png", bright=6)
    network.calls = 0
    done = api.predict_files(model, [images], tmp_path / "out")
    assert [path.name for path in done.written] == ["1.png", "3.png", "new.png"]
    assert network.calls == 3
    assert [bright_rows(tmp_path / "out" / f"{name}.png") for name in ("0", "1", "2", "3", "4", "new")] == [
        0,
        7,
        2,
        3,
        4,
        6,
    ]


@pytest.mark.parametrize("change", ["tiles", "weights"])
def test_another_model_predicts_anew(change: str, images: Path, tmp_path: Path) -> None:
    model = make(ModelConfig(width=4, depth=2))
    api.predict_files(model, [images], tmp_path / "out")
    if change == "tiles":
        other = model.with_prediction(PredictionConfig(overlap=0.7))
    else:
        other = make(ModelConfig(width=4, depth=2))
        next(iter(other.network.parameters())).data += 1
    assert len(api.predict_files(other, [images], tmp_path / "out").written) == 5


def test_more_that_is_wanted_is_done(model: Model, images: Path, tmp_path: Path) -> None:
    api.predict_files(model, [images], tmp_path / "out")
    done = api.predict_files(model, [images], tmp_path / "out", overlay=True)
    assert len(done.written) == 10


def test_what_was_corrected_by_hand_is_kept(model: Model, images: Path, tmp_path: Path) -> None:
    api.predict_files(model, [images], tmp_path / "out")
    corrected = tmp_path / "out" / "2.png"
    time.sleep(0.01)
    Image.fromarray(np.ones((8, 8), np.uint8)).save(corrected)
    before = corrected.read_bytes()
    other = model.with_prediction(PredictionConfig(overlap=0.7))
    done = api.predict_files(other, [images], tmp_path / "out")
    assert done.edited == [corrected]
    assert len(done.written) == 4
    assert corrected.read_bytes() == before


def test_masks_that_no_prediction_has_written_are_never_replaced(model: Model, images: Path, tmp_path: Path) -> None:
    drawn = write(tmp_path / "masks" / "3.png", bright=8)
    before = drawn.read_bytes()
    with pytest.raises(DataError, match="no prediction has written") as caught:
        api.predict_files(model, [images], tmp_path / "masks")
    assert str(drawn) in str(caught.value)
    assert below(tmp_path / "masks") == ["3.png"]
    assert drawn.read_bytes() == before


def test_a_call_that_ended_while_writing_is_repeated(
    model: Model, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "end", die)
        with pytest.raises(KeyboardInterrupt):
            api.predict_files(model, [images], tmp_path / "out")
    assert below(tmp_path / "out") == ["0.png"]
    assert len(api.predict_files(model, [images], tmp_path / "out").written) == 5


def test_a_damaged_line_costs_only_its_image(model: Model, images: Path, tmp_path: Path) -> None:
    api.predict_files(model, [images], tmp_path / "out")
    path = tmp_path / "out" / "predictions.jsonl"
    path.write_text(path.read_text()[:-20])
    done = api.predict_files(model, [images], tmp_path / "out")
    assert [file.name for file in done.written] == ["4.png"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Share()),
        ({"RANK": "2", "WORLD_SIZE": "4"}, Share(2, 4)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "3"}, Share(1, 3)),
        ({"SLURM_PROCID": "0"}, Share()),  # a batch job that has started no tasks
    ],
)
def test_the_share_of_a_process(environment: dict[str, str], expected: Share) -> None:
    assert share_of_this_process(environment) == expected


def test_an_environment_that_makes_no_sense_is_said() -> None:
    with pytest.raises(DataError, match="no numbers"):
        share_of_this_process({"RANK": "first", "WORLD_SIZE": "2"})


@pytest.mark.slow
def test_processes_share_the_images(images: Path, tmp_path: Path) -> None:
    from pixelwise.models import bundle, unet

    model = make(ModelConfig(width=4, depth=2))
    file = tmp_path / "model.safetensors"
    described = model.description
    bundle.save(bundle.Bundle(described, bundle.state_on_cpu(unet.build(described.model, 1, 2))), file)
    arguments = [sys.executable, "-m", "pixelwise", "predict", str(file), str(images), "-o", str(tmp_path / "out")]
    ranks = [
        subprocess.Popen(
            arguments,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    assert said[0].startswith("3 files written")
    assert said[1].startswith("2 files written")
    assert below(tmp_path / "out") == [f"{number}.png" for number in range(5)]
    assert not api.predict_files(file, [images], tmp_path / "out").written
