"""The command line: what is printed, exit codes, and one paragraph for every mistake."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK, draw_discs
from PIL import Image

import pixelwise
import pixelwise.training.watch  # here and not in a test, since it remembers the stream it first saw
from pixelwise import cli

SETTINGS = [part for setting in QUICK for part in ("--set", setting)]


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command; returns exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pixelwise", *map(str, arguments)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        assert isinstance(code, int)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to evaluate and predict with, and its data beside it."""
    folder = tmp_path_factory.mktemp("trained")
    draw_discs(folder / "data")
    pixelwise.train(folder / "data", folder / "run", config=pixelwise.settings(None, QUICK))
    return folder


@pytest.mark.slow
def test_train_evaluate_predict_compare_preview(run_cli, discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, out, err = run_cli("train", discs, "-o", run, *SETTINGS)
    assert code == 0, err
    assert "report: " in out
    assert "mIoU" in out

    code, out, _ = run_cli("evaluate", run, "--split", "validation", "--json")
    assert code == 0
    assert json.loads(out)["pooled"]["miou"] is not None

    code, out, _ = run_cli("evaluate", run, discs, "--split", "all", "-o", tmp_path / "all")
    assert code == 0
    assert "8 images" in out
    assert (tmp_path / "all" / "report.html").exists()

    masks = tmp_path / "masks"
    code, out, _ = run_cli("predict", run, discs / "images", "-o", masks, "--overlay", "--probabilities")
    assert code == 0
    assert "24 files" in out
    with Image.open(masks / "0.png") as mask:
        assert mask.mode == "P"
        assert mask.size == (48, 48)

    code, out, _ = run_cli("compare", run, run, "--json")
    assert code == 0
    json.loads(out)

    code, out, _ = run_cli("preview", discs, "-o", tmp_path / "p.png", *SETTINGS)
    assert code == 0
    assert (tmp_path / "p.png").exists()


def test_the_scores_of_evaluate_are_those_of_the_run(run_cli, trained: Path) -> None:
    _, out, _ = run_cli("evaluate", trained / "run", "--json")
    saved = json.loads((trained / "run" / "scores.json").read_text())
    assert json.loads(out)["confusion"] == saved["confusion"]


def test_why_there_is_no_interval_is_said(run_cli, trained: Path, tmp_path: Path) -> None:
    for count in (4, 5):
        other = draw_discs(tmp_path / f"{count}", count=count, seed=1)
        _, out, _ = run_cli("evaluate", trained / "run", other, "-o", tmp_path / f"of-{count}")
        page = (tmp_path / f"of-{count}" / "report.html").read_text()
        assert ("(too few images for an interval: 4 images of at least 5)" in out) == (count == 4)
        assert ("Too few images for an interval: 4 images of at least 5" in page) == (count == 4)
        assert ("(95 %: " in out) == ('class="spread">95 %' in page) == (count == 5)


def test_an_evaluation_that_replaces_another_says_so(run_cli, trained: Path, tmp_path: Path) -> None:
    for times in range(2):
        _, _, err = run_cli("evaluate", trained / "run", "-o", tmp_path / "ev")
        assert ("the earlier scores and report in" in err) == bool(times)


def test_the_side_that_was_scored_is_said(run_cli, trained: Path, tmp_path: Path) -> None:
    other = draw_discs(tmp_path / "other", count=2, seed=1)
    for arguments, side, scored in (
        (["--split", "validation"], "validation", "1 validation image"),
        ([], "test", "1 test image"),
        ([other], "all", "all 2 images"),
    ):
        _, out, _ = run_cli("evaluate", trained / "run", *arguments)
        assert out.splitlines()[0].endswith(f"pooled over {scored}")
        _, out, _ = run_cli("evaluate", trained / "run", *arguments, "--json", "--device", "cpu")
        assert json.loads(out)["split"] == side


def test_an_interrupted_run_prints_its_scores_and_ends_with_130(
    run_cli, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pixelwise.Run(trained / "run", interrupted=True)
    monkeypatch.setattr("pixelwise.api.train", lambda *_given, **_named: run)
    monkeypatch.setattr("pixelwise.data.demo.draw", lambda _folder: None)
    for verb in (["train", trained / "data"], ["demo", "-o", trained / "demo"]):
        code, out, _ = run_cli(*verb)
        assert code == 130
        assert "mIoU" in out
        assert "report: " in out


def test_an_interruption_before_the_first_step_is_one_sentence(
    run_cli, discs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pixelwise.data.folder.scan", interrupt)
    for verb in ("check", "train"):
        code, out, err = run_cli(verb, discs)
        assert (code, out, err.strip()) == (130, "", "interrupted")


def test_an_interruption_before_the_first_step_says_how_the_run_goes_on(
    run_cli, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pixelwise.training.run.train", interrupt)
    run = tmp_path / "run"
    code, _, err = run_cli("train", discs, "--out", run)
    assert code == 130
    assert err.splitlines()[-2:] == [
        "interrupted",
        f"begun in {run}: the same command goes on with --out {run} --resume",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_an_interrupted_prediction_says_how_it_goes_on(
    run_cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    def interrupt(*_given: object, **_named: object) -> None:
        (tmp_path / "out" / "a").mkdir(parents=True)
        (tmp_path / "out" / "a" / (".pixelwise-0.pixels" if kept else "0.png")).touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("pixelwise.api.predict_files", interrupt)
    code, _, err = run_cli("predict", "run", "images", "-o", tmp_path / "out")
    assert code == 130
    first, second = err.splitlines()
    assert first == "interrupted"
    assert second.startswith("the same command goes on")
    assert ("hidden files" in err) is kept


def test_an_interrupted_prediction_says_how_far_it_has_come(
    run_cli, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = pixelwise.Model.predict
    seen: list[object] = []

    def interrupt(model: pixelwise.Model, image: np.ndarray, **options: object) -> object:
        seen.append(image)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return original(model, image, **options)

    monkeypatch.setattr(pixelwise.Model, "predict", interrupt)
    inputs = draw_discs(tmp_path / "more", count=5) / "images"
    code, _, err = run_cli("predict", trained / "run", inputs, "-o", tmp_path / "out")
    assert code == 130
    assert err.splitlines()[-3:-1] == ["interrupted", "2 of 5 images are done"]


def test_what_is_predicted_is_counted_in_plain_words(run_cli, trained: Path, tmp_path: Path) -> None:
    inputs, out = draw_discs(tmp_path / "more", count=1) / "images", tmp_path / "out"
    assert run_cli("predict", trained / "run", inputs, "-o", out)[1] == f"1 file written to {out}\n"
    again = run_cli("predict", trained / "run", inputs, "-o", out)[1]
    assert again == "1 file is there already, from the same images by the same model\n"
    (inputs / "0.png").write_bytes(b"broken")
    code, said, err = run_cli("predict", trained / "run", inputs, "-o", tmp_path / "other")
    assert (code, said) == (1, "")
    assert "data error: The image could not be predicted:\n- " in err
    (inputs / "1.png").write_bytes(b"broken")
    assert "None of the 2 images could be predicted:" in run_cli("predict", trained / "run", inputs, "-o", out)[2]


def test_long_lines_are_folded_on_a_terminal_only(run_cli, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    _, whole, _ = run_cli("evaluate", trained / "run")
    assert max(map(len, whole.splitlines())) > 60
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    _, folded, _ = run_cli("evaluate", trained / "run")
    assert max(map(len, folded.splitlines())) <= 40
    assert folded.split() == whole.split()


ARGUMENTS = (["train", "DATA", "--set", "training.batch_size=x"], ["train", "DATA", "--nonsense"])


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize(("restart", "is_last"), [("0", False), ("3", True)])
def test_torchrun_says_the_error_itself_where_it_ends(
    run_cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], restart: str, is_last: bool
) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    file = tmp_path / "error.json"
    variables = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_ERROR_FILE": str(file)}
    for name, value in {
        **variables,
        "TORCHELASTIC_RESTART_COUNT": restart,
        "TORCHELASTIC_MAX_RESTARTS": "3",
    }.items():
        monkeypatch.setenv(name, value)
    code, out, err = run_cli(*arguments)
    assert (code, out) == (2, "")
    assert file.exists() is is_last
    if is_last:
        words = str(ChildFailedError("pixelwise", {1: ProcessFailure(1, 7, code, str(file))}))
        assert ("batch_size" in words) or ("nonsense" in words)
        assert err == ""


def test_a_process_that_is_not_the_main_one_prints_nothing(
    run_cli, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pixelwise.Run(trained / "run", is_main=False)
    monkeypatch.setattr("pixelwise.api.train", lambda *_given, **_named: run)
    assert run_cli("train", trained / "data") == (0, "", "")


def test_a_demo_takes_the_next_number_that_is_free(
    run_cli, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []
    run = pixelwise.Run(trained / "run", is_main=False)
    monkeypatch.setattr("pixelwise.api.train", lambda _data, out, **_named: folders.append(out) or run)
    monkeypatch.setattr("pixelwise.data.demo.draw", lambda _folder: None)
    for taken in ("run-1", "run-3", "run-notes"):
        (tmp_path / taken).mkdir()
    run_cli("demo", "-o", tmp_path)
    (tmp_path / "run-2").mkdir()
    run_cli("demo", "-o", tmp_path)
    assert folders == [tmp_path / "run-2", tmp_path / "run-4"]


def test_compare_goes_through_the_facade(run_cli, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pixelwise import api

    asked: list[list[Path]] = []
    original = api.compare
    monkeypatch.setattr(api, "compare", lambda runs: asked.append(runs) or original(runs))
    code, _, _ = run_cli("compare", trained / "run", trained / "run")
    assert code == 0
    assert asked == [[trained / "run"] * 2]


def test_masks_on_disk_are_the_models_masks(run_cli, trained: Path, tmp_path: Path) -> None:
    image = trained / "data" / "images" / "3.png"
    run_cli("predict", trained / "run", image, "-o", tmp_path, "--format", "tif")
    import tifffile

    expected = pixelwise.load(trained / "run").predict(np.asarray(Image.open(image))).mask
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "3.tif"), expected)


def test_a_folder_that_is_not_understood_is_told_as_json(run_cli, discs: Path) -> None:
    (discs / "masks" / "0.png").write_bytes(b"no image")
    for mask in (discs / "masks").iterdir():
        if mask.name != "0.png":
            Image.new("L", (48, 48), 1).save(mask)
    code, out, _ = run_cli("check", discs, "--json")
    findings = json.loads(out)
    assert code == 1
    assert {finding["severity"] for finding in findings} == {"fatal"}
    assert any("0.png" in file for finding in findings for file in finding["files"])
    assert len(findings) > 1, "the damaged file, and that there is one class only"


def test_check_is_quiet_about_good_data_and_json_is_json(run_cli, discs: Path) -> None:
    code, out, _ = run_cli("check", discs)
    assert code == 0
    assert "8 images" in out
    code, out, _ = run_cli("check", discs, "--json")
    assert code == 0
    assert isinstance(json.loads(out), list)


def test_check_says_which_split_is_given(run_cli, discs: Path) -> None:
    assert "split given" not in run_cli("check", discs)[1]
    (discs / "data.yaml").write_text("val: ['1']\ntest: ['2', '3', '4']\n")
    assert "split given: test 3, on none of them 5" in run_cli("check", discs)[1], "validation alone is drawn anew"
    (discs / "data.yaml").write_text("train: ['5', '6', '7', '0']\nval: ['1']\ntest: ['2', '3', '4']\n")
    assert "split given: train 4, validation 1, test 3\n" in run_cli("check", discs)[1]


def damage(folder: Path, kind: str) -> None:
    image, mask = folder / "images" / "3.png", folder / "masks" / "3.png"
    if kind == "truncated image":
        image.write_bytes(image.read_bytes()[:-300])
    elif kind == "empty mask file":
        mask.write_bytes(b"")
    elif kind == "size":
        Image.new("L", (20, 30)).save(mask)
    elif kind == "text as image":
        image.write_text("not an image")


@pytest.mark.parametrize("kind", ["truncated image", "empty mask file", "size", "text as image"])
@pytest.mark.parametrize("verb", ["check", "train"])
def test_bad_files_are_named_and_nothing_is_trained(run_cli, discs: Path, tmp_path: Path, verb: str, kind: str) -> None:
    damage(discs, kind)
    options = ["-o", tmp_path / "run", *SETTINGS] if verb == "train" else []
    code, out, err = run_cli(verb, discs, *options)
    assert code == 1
    assert "3.png" in out + err
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_a_bad_mask_is_told_once(run_cli, discs: Path, tmp_path: Path) -> None:
    damage(discs, "empty mask file")
    for arguments in (["check", discs], ["train", discs, "-o", tmp_path / "run", *SETTINGS]):
        _, out, err = run_cli(*arguments)
        assert (out + err).count("3.png") == 1
        assert "NOTICE" not in out + err


def test_all_bad_files_are_listed_together(run_cli, discs: Path) -> None:
    damage(discs, "truncated image")
    Image.new("L", (20, 30)).save(discs / "masks" / "5.png")
    _, out, _ = run_cli("check", discs)
    assert "3.png" in out
    assert "5.png" in out


def test_one_bad_image_does_not_stop_the_others(run_cli, trained: Path, tmp_path: Path) -> None:
    inputs = draw_discs(tmp_path / "more", count=3) / "images"
    (inputs / "1.png").write_bytes(b"broken")
    code, out, err = run_cli("predict", trained / "run", inputs, "-o", tmp_path / "masks")
    assert code == 1
    assert "2 files" in out
    assert "1 of 3 images could not be predicted" in err
    assert err.count("1.png") == 1
    assert sorted(path.name for path in (tmp_path / "masks").glob("*.png")) == ["0.png", "2.png"]


def test_equal_stems_get_masks_of_their_own(run_cli, trained: Path, tmp_path: Path) -> None:
    inputs = draw_discs(tmp_path / "more", count=1) / "images"
    with Image.open(inputs / "0.png") as image:
        image.save(inputs / "0.bmp")
    code, _, _ = run_cli("predict", trained / "run", inputs, "-o", tmp_path / "masks")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "masks").glob("*.png")) == ["0.bmp.png", "0.png.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["check", "nowhere"], 1, "nowhere"),
        (["train", "nowhere"], 1, "nowhere"),
        (["train", "DATA", "--set", "trainig.batch_size=8"], 2, "Did you mean 'training"),
        (["train", "DATA", "--set", "training.batch_size=x"], 2, "'training.batch_size'"),
        (["train", "DATA", "--time", "soon"], 2, "duration"),
        (["train", "DATA", "--time", ""], 2, "duration"),
        (["train", "DATA", "--time", "5m", "--epochs", "3"], 2, "both given"),
        (["train", "DATA", "--epochs", "3", "--set", "training.time=5m"], 2, "both given"),
        (["train", "DATA", "--resume"], 2, "--out"),
        (["train", "DATA", "--resume", "-o", "nothing"], 1, "no run to resume: there is no such folder. Name the"),
        (
            ["train", "DATA", "--folds", "2", "--resume", "-o", "nothing"],
            1,
            "no folds to resume: there is no such",
        ),
        (["train", "DATA", "--folds", "2", "--resume", "-o", "EMPTY"], 1, "no folds to resume: none were begun"),
        (["train", "DATA", "--resume", "-o", "FOLDS"], 1, "Add --folds 2 to go on with them"),
        (["train", "DATA", "--config", "absent.yaml"], 1, "absent.yaml"),
        (["tune", "DATA", "--time", "1m", "-o", "search", "--space", "absent.yaml"], 1, "no such file of what is"),
        (["train", "DATA", "--from", "absent"], 1, "absent"),
        (["train", "DATA", "--from", "EMPTY"], 1, "is empty"),
        (["train", "DATA", "--teacher", "absent"], 1, "absent"),
        (["train", "DATA", "--teacher", "EMPTY"], 1, "is empty"),
        (["train", "nowhere", "--from", "RUN", "--set", "model.width=48"], 2, "'model.width' is 48"),  # data unread
        (["train", "DATA", "--nonsense"], 2, "nonsense"),
        (["evaluate", "absent"], 1, "absent"),
        (["evaluate", "EMPTY"], 1, "is empty"),
        (["refine", "absent"], 1, "no such file or folder"),
        (["refine", "RUN/best.safetensors"], 1, "Name the folder of its run"),
        (["quantise", "EMPTY"], 1, "is empty"),
        (["evaluate", "RUN", "DATA", "--device", "tpu"], 2, "tpu"),
        (["predict", "absent", "x.png", "-o", "o"], 1, "absent"),
        (["predict", "RUN", "absent.png", "-o", "o"], 1, "absent.png"),
        (["predict", "RUN", "*.absent", "-o", "o"], 1, "No images"),
        (["predict", "RUN", "DATA", "-o", "o", "--format", "jpg"], 2, "jpg"),
        (["predict", "RUN", "DATA", "-o", "o", "--memory", "much"], 2, "no amount of memory"),
        (["predict", "RUN", "DATA", "-o", "o", "--memory", "0"], 2, "images of more than 256 MB"),
        (["predict", "RUN", "DATA", "-o", "o", "--memory", "10MB"], 2, "Allow 0.4GB or more"),
        (["predict", "RUN", "DATA", "-o", "o", "--device", "mps"], 2, "The device can be auto or cpu"),
        (["compare", "absent", "absent2"], 1, "absent"),
    ],
)
def test_mistakes_get_a_paragraph_and_the_right_code(
    run_cli,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "folds" / "fold-0").mkdir(parents=True)
    (tmp_path / "folds" / "fold-0" / "begun.json").write_text('{"config": {"data": {"folds": 2}}}')
    names = {"FOLDS": "folds", "DATA": str(trained / "data"), "RUN": str(trained / "run"), "EMPTY": "empty"}
    typed = [argument.replace("RUN/", f"{names['RUN']}/") for argument in arguments]
    found, out, err = run_cli(*[names.get(argument, argument) for argument in typed])
    assert found == code, out + err
    assert message in err


def test_a_torch_pickle_is_not_a_bundle(run_cli, tmp_path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(1)}, tmp_path / "model.pt")
    code, _, err = run_cli("predict", tmp_path / "model.pt", tmp_path, "-o", tmp_path)
    assert code == 1
    assert "not a Pixelwise bundle" in err


def test_check_writes_a_repaired_copy_and_its_exit_code_is_that_of_the_copy(
    run_cli, discs: Path, tmp_path: Path
) -> None:
    (discs / "images" / "3.png").write_bytes(b"")
    code, out, _ = run_cli("check", discs, "--fix", tmp_path / "fixed")
    assert code == 0
    assert "FATAL" in out
    assert "`pixelwise check --fix` leaves it out" in " ".join(out.split())
    assert "1 left out" in out
    assert "such as 3.png: The file" in out
    assert "what is left in the copy:" in out
    assert "look at these" not in out
    assert out.endswith(f"it can be trained on: pixelwise train {tmp_path / 'fixed'}\n")
    assert run_cli("check", discs)[0] == 1
    code, out, _ = run_cli("check", discs, "--fix", tmp_path / "again", "--json")
    told = json.loads(out)
    assert code == 0
    assert [repair["outcome"] for repair in told["repairs"]].count("left out") == 1
    assert "fatal" in {finding["severity"] for finding in told["findings"]}
    assert "fatal" not in {finding["severity"] for finding in told["left"]}
    code, _, err = run_cli("check", discs, "--fix", tmp_path / "again")
    assert code == 1
    assert "not an empty folder" in err


def test_what_is_suspicious_in_a_copy_is_to_be_looked_at_first(run_cli, discs: Path, tmp_path: Path) -> None:
    for number in range(6):
        Image.new("L", (48, 48)).save(discs / "masks" / f"{number}.png")  # most masks are empty: a warning
    code, out, _ = run_cli("check", discs, "--fix", tmp_path / "fixed")
    assert code == 0
    assert "look at these warnings first" in out.splitlines()[-1]


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_old_model_stays(
    run_cli, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run_cli("train", discs, "-o", tmp_path / "run", *SETTINGS)
    assert code == 1
    assert "No space left" in err
    assert "Free some space" in err


def test_help_and_import_answer_at_once() -> None:
    """Neither may import torch."""
    for command in (["-c", "import pixelwise"], ["-m", "pixelwise", "--help"]):
        listed = subprocess.run(
            [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True
        ).stderr
        # imports of imports are indented
        names = {line.rpartition("|")[2].strip().partition(".")[0] for line in listed.splitlines()}
        assert "pixelwise" in names
        assert not names & {"torch", "numpy"}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import pixelwise"], check=True)
    assert time.perf_counter() - began < 2.0


def test_checking_and_predicting_do_not_wait_for_what_only_training_needs() -> None:
    program = "import sys; from pixelwise import api; api.check, api.predict_files; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "pixelwise.verbs.predict" in told.split()
    assert "lightning_fabric" not in told.split()


def test_version_is_printed(run_cli) -> None:
    assert run_cli("--version")[1].startswith("pixelwise 0.")


def test_help_on_a_narrow_terminal_cuts_no_option() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "pixelwise", "predict", "--help"],
        env={**os.environ, "COLUMNS": "40"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert {"--probabilities", "--overlay", "--polygons"} <= set(shown.split())
    assert "…" not in shown


@pytest.mark.parametrize(("time", "is_told"), [("5", True), ("5s", False), ("1m", False)])
def test_a_time_without_a_unit_is_said_to_be_seconds(run_cli, time: str, is_told: bool) -> None:
    _, _, err = run_cli("train", "nothing", "--time", time)
    assert ("note: 5 are seconds; 5m would be minutes" in err) is is_told
