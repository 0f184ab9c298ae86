"""The same command again does what is missing, and nothing that somebody made is lost."""

import json
import os
import socket
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
from pixelwise.errors import DataError
from pixelwise.inference import files
from pixelwise.inference.predictor import Model
from pixelwise.training.watch import Watcher


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


def test_overlay_and_outlines_of_a_corrected_mask_are_those_of_the_correction(
    model: Model, images: Path, tmp_path: Path
) -> None:
    api.predict_files(model, [images], tmp_path / "out", polygons="geojson", overlay=True)
    before = (tmp_path / "out" / "2_overlay.png").read_bytes()
    corrected = np.zeros((8, 8), np.uint8)
    corrected[3:5, 2:7] = 1
    Image.fromarray(corrected).save(tmp_path / "out" / "2.png")
    (tmp_path / "out" / "2.geojson").unlink()
    done = api.predict_files(model, [images], tmp_path / "out", polygons="geojson", overlay=True)
    assert [path.name for path in done.written] == ["2_overlay.png", "2.geojson"]
    assert (tmp_path / "out" / "2_overlay.png").read_bytes() != before
    (feature,) = json.loads((tmp_path / "out" / "2.geojson").read_text())["features"]
    assert feature["properties"]["area_px"] == 10
    assert np.asarray(Image.open(tmp_path / "out" / "2.png")).sum() == 10


def test_masks_that_no_prediction_has_written_are_never_replaced(model: Model, images: Path, tmp_path: Path) -> None:
    drawn = write(tmp_path / "masks" / "3.png", bright=8)
    before = drawn.read_bytes()
    with pytest.raises(DataError, match="no prediction has written") as caught:
        api.predict_files(model, [images], tmp_path / "masks")
    assert str(drawn) in str(caught.value)
    assert below(tmp_path / "masks") == ["3.png"]
    assert drawn.read_bytes() == before


@pytest.mark.parametrize("when", ["before the note", "after the note", "between the files"])
def test_a_call_that_ended_while_writing_is_repeated(
    when: str, model: Model, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    replaced: list[Path] = []
    original = Path.replace

    def die_at_the_second(self: Path, target: Path) -> Path:
        replaced.append(target)
        if len(replaced) == 2:
            raise KeyboardInterrupt
        return original(self, target)

    with monkeypatch.context() as patch:
        if when == "before the note":
            patch.setattr(files.Ledger, "note", die)
        elif when == "after the note":
            patch.setattr(files, "make_folder", lambda path: die() if replaced else replaced.append(path) or path)
        else:
            patch.setattr(Path, "replace", die_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            api.predict_files(model, [images], tmp_path / "out", overlay=True)
    done = api.predict_files(model, [images], tmp_path / "out", overlay=True)
    assert not done.edited
    assert len(done.written) + len(done.unchanged) == 10
    assert len(below(tmp_path / "out")) == 10
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_mask_drawn_by_hand_after_an_image_has_failed_is_kept(model: Model, images: Path, tmp_path: Path) -> None:
    (images / "2.png").write_bytes(b"damaged")
    assert len(api.predict_files(model, [images], tmp_path / "out").failed) == 1
    drawn = write(tmp_path / "out" / "2.png", bright=8)
    write(images / "2.png")
    before = drawn.read_bytes()
    with pytest.raises(DataError, match="no prediction has written"):
        api.predict_files(model, [images], tmp_path / "out")
    assert drawn.read_bytes() == before


def test_outlines_that_were_corrected_are_kept(model: Model, images: Path, tmp_path: Path) -> None:
    api.predict_files(model, [images], tmp_path / "out", polygons="coco")
    path = tmp_path / "out" / "annotations.json"
    path.write_text("{}")
    done = api.predict_files(model, [images], tmp_path / "out", polygons="coco")
    assert done.edited == [path]
    assert path.read_text() == "{}"


@pytest.mark.parametrize("options", [{"mask_format": "tif"}, {"polygons": "geojson"}, {"overlay": True}])
def test_other_options_are_carried_out(options: dict, model: Model, images: Path, tmp_path: Path) -> None:
    api.predict_files(model, [images], tmp_path / "out")
    assert api.predict_files(model, [images], tmp_path / "out", **options).written


def test_what_several_processes_have_noted_is_known_to_one(
    model: Model, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.predict_files(model, [images], tmp_path / "out")
    other = model.with_prediction(PredictionConfig(overlap=0.7))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert api.predict_files(other, [images], tmp_path / "out").written
    monkeypatch.delenv("RANK")
    done = api.predict_files(other, [images], tmp_path / "out")
    assert (done.written, done.edited, len(done.unchanged)) == ([], [], 5)


def test_the_last_process_writes_the_file_of_all(
    model: Model, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    path = tmp_path / "out" / "annotations.json"
    for rank in ("1", "0"):
        assert not path.exists()
        monkeypatch.setenv("RANK", rank)
        api.predict_files(model, [images], tmp_path / "out", polygons="coco")
    assert len(json.loads(path.read_text())["images"]) == 5
    assert not list((tmp_path / "out").glob(".pixelwise*"))
    text = path.read_text()
    for rank in ("0", "1"):  # the same again changes nothing
        monkeypatch.setenv("RANK", rank)
        api.predict_files(model, [images], tmp_path / "out", polygons="coco")
    assert path.read_text() == text


def test_the_last_process_knows_what_has_failed_in_all(
    model: Model, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("0.png", "1.png"):  # one for each process
        (images / name).write_bytes(b"no image")
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = {}
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        done = api.predict_files(model, [images], tmp_path / "out")
        told[rank] = ([Path(error.where or "").name for error in done.failed], done.is_complete)
    assert told == {"1": (["1.png"], False), "0": (["0.png", "1.png"], True)}
    assert (done.images, sorted(path.name for path in done.written)) == (5, ["2.png", "3.png", "4.png"])
    assert below(tmp_path / "out") == ["2.png", "3.png", "4.png"]
    assert not list((tmp_path / "out").glob(".pixelwise*"))


@pytest.mark.parametrize("first", ["0", "1"])
def test_a_launch_that_is_begun_again_waits_for_all_again(
    first: str, model: Model, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two processes one came to its end and the other was killed; the same shell starts both again."""
    second = "1" if first == "0" else "0"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", first)
    assert not api.predict_files(model, [images], tmp_path / "out").is_complete
    told: list[bool] = []

    class Meanwhile(Watcher):
        """While the first is at work again, the other one begins and ends."""

        def work(self, name: str, done: int, total: int) -> None:  # noqa: ARG002
            if not told:
                monkeypatch.setenv("RANK", second)
                told.append(api.predict_files(model, [images], tmp_path / "out").is_complete)

    (images / f"{first}.png").write_bytes(b"no image")
    done = api.predict_files(model, [images], tmp_path / "out", watcher=Meanwhile())
    assert told == [False]
    assert done.is_complete
    assert [Path(error.where or "").name for error in done.failed] == [f"{first}.png"]
    assert not list((tmp_path / "out").glob(".pixelwise*"))


def test_a_process_whose_parent_has_ended_with_it_is_still_known_to_be_done(
    model: Model, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(os, "getppid", ended_process)  # a shell for each process
    told = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        told.append(api.predict_files(model, [images], tmp_path / "out").is_complete)
    assert told == [False, True]


def ended_process() -> int:
    over = subprocess.Popen([sys.executable, "-c", ""])
    over.wait()
    return over.pid


def test_what_killed_processes_have_left_goes_and_what_others_of_now_keep_stays(
    model: Model, images: Path, tmp_path: Path
) -> None:
    over, host, out = ended_process(), socket.gethostname(), tmp_path / "out"
    folders = {f".pixelwise-{host}-0-{over}": False, f".pixelwise-{host}-1-{os.getpid()}": True}
    folders |= {f".pixelwise-not{host}-0-{over}": True}
    for name in folders:
        (out / name).mkdir(parents=True)
    hours = {".pixelwise.0123456789abcdef.0": 23, ".pixelwise.fedcba9876543210.1": 25}  # of launches that are not ours
    for name, age in hours.items():
        (out / name).write_text("{}")
        os.utime(out / name, (time.time() - 3600 * age,) * 2)
    api.predict_files(model, [images], out)
    kept = [name for name, stays in folders.items() if stays] + [name for name, age in hours.items() if age < 24]
    assert sorted(path.name for path in out.glob(".pixelwise*")) == sorted(kept)


def test_a_damaged_line_costs_only_its_image(model: Model, images: Path, tmp_path: Path) -> None:
    api.predict_files(model, [images], tmp_path / "out")
    path = tmp_path / "out" / "predictions.jsonl"
    path.write_text(path.read_text()[:-20])  # as a power failure leaves it: the file was not in its place yet
    (tmp_path / "out" / "4.png").unlink()
    done = api.predict_files(model, [images], tmp_path / "out")
    assert [file.name for file in done.written] == ["4.png"]


@pytest.mark.slow
def test_processes_share_the_images(images: Path, tmp_path: Path) -> None:
    from pixelwise.models import bundle, unet

    model = make(ModelConfig(width=4, depth=2))
    file = tmp_path / "model.safetensors"
    described = model.description
    bundle.save(bundle.Bundle(described, bundle.state_on_cpu(unet.build(described.model, 1, 2))), file)
    (images / "5.png").write_bytes(b"no image")  # of the second process
    arguments = [sys.executable, "-m", "pixelwise", "predict", str(file), str(images), "-o", str(tmp_path / "out")]
    ranks = [
        subprocess.Popen(
            arguments,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120) for process in ranks]
    assert sorted(process.returncode for process in ranks) == [0, 1]  # the last one speaks for all
    assert sorted(out for out, _ in said) == ["", f"5 files written to {tmp_path / 'out'}\n"]
    told = "".join(err for _, err in said)
    assert "1 of 6 images could not be predicted" in told
    assert told.count("5.png") == 1
    assert below(tmp_path / "out") == [f"{number}.png" for number in range(5)]
    assert not api.predict_files(file, [images], tmp_path / "out").written
