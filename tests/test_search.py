"""Search: the space around a plan, studies that several workers share, and a whole search on a drawn data set."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pixelwise import api
from pixelwise.cli import app
from pixelwise.config import Config, load
from pixelwise.data.demo import draw
from pixelwise.data.fingerprint import Fingerprint
from pixelwise.errors import ConfigError, DataError, MachineError
from pixelwise.evaluation import tuned as page
from pixelwise.training import search
from pixelwise.training.range_test import range_test
from pixelwise.training.search import Agreed, Memory, Study, Trial, final_settings, widened
from pixelwise.training.space import Range, Space, around, read
from pixelwise.training.watch import Watcher
from pixelwise.trials import Found, TrialRow, Tuned

SPACE = Space({"training.learning_rate": Range(low=1e-4, high=1e-2, log=True), "training.batch_size": [2, 4, 8]})
BASE = load(None, ["training.time=60", "training.learning_rate=1e-3", "training.batch_size=4", "model.width=16"])


OWN = Agreed(settings=BASE, space=SPACE.to_yaml(), split={"train": []}, data_hash="abc")


def fingerprint(**changes: object) -> Fingerprint:
    """Of 100 images of cells."""
    made = Fingerprint(
        images=100,
        median_size_px=(512, 512),
        smallest_size_px=(512, 512),
        largest_size_px=(512, 512),
        megapixels=26.0,
        channels=1,
        mean=(100.0,),
        deviation=(20.0,),
        types=("uint8",),
        largest=255.0,
        between_images=0.1,
        class_fractions=(0.8, 0.2),
        class_images=(100, 100),
        ignored_fraction=0.0,
        aspect_spread=1.0,
        reduced_miou=(0.9, 0.8, 0.7),
        lost_objects=((0.0, 0.0), (0.0, 0.1), (0.0, 0.2)),
        upright=False,
        data_hash="abc",
    )
    return made.model_copy(update=changes)


# --- the space -------------------------------------------------------------------------------------------------------


def test_the_space_holds_the_plan_and_nothing_that_was_given() -> None:
    planned = load(None, ["training.batch_size=8", "model.width=24", "model.depth=4", "augment.elastic_sigma_px=0"])
    space = around(planned, {"training.weight_decay"}, fingerprint())
    assert set(space.parameters(planned)) == set(space.parts)
    assert "training.weight_decay" not in space.parts
    assert space.parts["model.width"] == (16, 24, 32)
    assert space.parts["training.batch_size"] == [4, 8, 16]
    for key, part in space.parts.items():
        for value in (part.low, part.high) if isinstance(part, Range) else part:
            assert planned.with_values({key: value})


def test_a_space_is_written_and_read() -> None:
    space = around(load(None, ["training.batch_size=8"]), set(), fingerprint())
    again = read(space.to_yaml(), "space.yaml", Config())
    same, ours = (
        {key: part if isinstance(part, Range) else json.dumps(list(part)) for key, part in one.parts.items()}
        for one in (again, space)
    )
    assert same == ours


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.learning_rte: {low: 1, high: 2}", "Did you mean 'training.learning_rate'"),
        ("training.learning_rate: {low: 1e-2, high: 1e-4}", "low must be less than high"),
        ("training.learning_rate: {low: 0, high: 1e-2, log: true}", "above 0"),
        ("training.batch_size: [4]", "training.batch_size"),
        ("training.batch_size: [4, many]", "training.batch_size"),
        ("training.batch_size: 4", "training.batch_size"),
        ("training.batch_size: {low: 4, high: 16}", "no number with decimals"),
        ("[1, 2]", "must hold settings"),
        ("a: [", "not valid YAML"),
        ("", "must hold settings"),
    ],
)
def test_a_space_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(text, "space.yaml", Config())


# --- studies ---------------------------------------------------------------------------------------------------------


def quality(settings: dict[str, float]) -> float:
    """Best at a learning rate of 3e-3, and in large batches."""
    return (
        0.8 - 0.1 * abs(math.log10(settings["training.learning_rate"] / 3e-3)) + 0.005 * settings["training.batch_size"]
    )


def sqlite(folder: Path) -> Study:
    study = Study(f"sqlite:///{folder / 'study.db'}", "cells", 0)
    study.agree(OWN, [SPACE.parameters(BASE)], starts_with_plan=True)
    return study


def test_the_plan_comes_first_and_better_settings_are_found(tmp_path: Path) -> None:
    study = sqlite(tmp_path)
    study.try_out(lambda trial: quality(trial.settings(SPACE)), time.monotonic() + 60, 25, Watcher())
    found = study.found()
    assert found is not None
    first = found.trials[0]
    assert first.is_plan
    assert first.settings == {"training.learning_rate": 1e-3, "training.batch_size": 4}
    assert found.plan == first
    assert len(found.trials) == 25
    assert found.best.miou == max(row.miou or 0.0 for row in found.trials) > (first.miou or 0.0)
    assert sum(found.importances.values()) == pytest.approx(1.0)
    assert max(found.importances, key=lambda key: found.importances[key]) == "training.learning_rate"


def test_a_study_goes_on_where_it_was(tmp_path: Path) -> None:
    attempts = []

    def attempt(trial: Trial) -> float:
        attempts.append(trial.number)
        return quality(trial.settings(SPACE))

    for most in (3, 5):
        sqlite(tmp_path).try_out(attempt, time.monotonic() + 60, most, Watcher())
    assert attempts == [0, 1, 2, 3, 4]
    other = OWN.model_copy(update={"settings": Config(seed=5), "space": "model.width: [8, 16]"})
    joined = Study(f"sqlite:///{tmp_path / 'study.db'}", "cells", 0)
    joined.agree(other, [], starts_with_plan=True)
    agreed = joined.agreed
    assert agreed == OWN  # who joins takes what is there
    with pytest.raises(DataError, match="other training images"):
        agreed.refuse_other_data("other")


def test_trials_that_lag_behind_end_early_but_neither_the_plan_nor_the_first(tmp_path: Path) -> None:
    def attempt(trial: Trial) -> float:
        trial.settings(SPACE)
        value = 0.9 - 0.1 * trial.number
        trial.note("miou", value)
        trial.hold(1, value)
        return value

    study = sqlite(tmp_path)
    study.try_out(attempt, time.monotonic() + 60, 7, Watcher())
    rows = study.rows()
    assert [row.state for row in rows] == ["complete"] * 4 + ["pruned"] * 3
    assert rows[5].miou == pytest.approx(0.4)
    assert rows[5].rungs == {1: pytest.approx(0.4)}


def test_a_trial_that_does_not_fit_into_memory_is_one_that_failed(tmp_path: Path) -> None:
    def attempt(trial: Trial) -> float:
        settings = trial.settings(SPACE)
        if trial.number % 2:
            trial.note("why", "too large")
            raise MachineError("too large")
        return quality(settings)

    said: list[str] = []

    class Listener(Watcher):
        def say(self, text: str) -> None:
            said.append(text)

    study = sqlite(tmp_path)
    study.try_out(attempt, time.monotonic() + 60, 3, Listener())
    assert [(row.state, row.why) for row in study.rows() if row.number % 2] == [("failed", "too large")] * 2
    assert "trial 1: failed: too large" in said[1]


def _fail(trial: Trial) -> float:
    trial.settings(SPACE)
    trial.note("why", "too large")
    raise MachineError("too large")


def test_a_search_of_which_nothing_can_be_trained_ends(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="The last 5 trials could not be trained: too large"):
        sqlite(tmp_path).try_out(_fail, time.monotonic() + 60, None, Watcher())


def test_an_interrupted_trial_is_given_back(tmp_path: Path) -> None:
    def interrupt(trial: Trial) -> float:
        trial.settings(SPACE)
        raise KeyboardInterrupt

    study = sqlite(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        study.try_out(interrupt, time.monotonic() + 60, 3, Watcher())
    study.try_out(lambda trial: quality(trial.settings(SPACE)), time.monotonic() + 60, 1, Watcher())
    failed, again = study.rows()
    assert (failed.state, again.state, again.is_plan) == ("failed", "complete", True)
    assert again.settings == failed.settings


def test_choices_that_yaml_takes_for_text_are_numbers() -> None:
    space = read("training.learning_rate: [1e-4, 1e-3]", "space.yaml", BASE)
    assert space.holds(BASE)
    assert not space.holds(BASE.with_values({"training.learning_rate": 2e-3}))


def test_a_study_without_a_whole_trial_has_found_nothing(tmp_path: Path) -> None:
    assert sqlite(tmp_path).found() is None


@pytest.mark.parametrize(
    "storage", ["nonsense", "sqlite:////no/such/folder/study.db", "mysterious://user:secret@host/x"]
)
def test_a_database_that_is_none_is_said(storage: str) -> None:
    with pytest.raises(ConfigError, match="database cannot be used") as caught:
        Study(storage, "cells", 0)
    assert "secret" not in str(caught.value)


WORKER = """
import sys, time
from pixelwise.training import search

search.HEARTBEAT_SECONDS = 1
sys.path.insert(0, sys.argv[3])
from test_search import BASE, OWN, SPACE, quality
from pixelwise.training.watch import Watcher

study = search.Study(sys.argv[1], "cells", int(sys.argv[2]))
study.agree(OWN, [SPACE.parameters(BASE)], starts_with_plan=True)

def attempt(trial):
    settings = trial.settings(SPACE)
    print(trial.number, flush=True)
    time.sleep(60 if sys.argv[4:] else 0.4)
    return quality(settings)

study.try_out(attempt, time.monotonic() + 15, 8, Watcher())
study.close()
"""


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The address of a database of a server that lives as long as these tests."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs or os.geteuid() != 0:
        pytest.skip("needs PostgreSQL (Debian's package postgresql), and root to start it as another user")
    pytest.importorskip("pg8000")
    folder = Path(tempfile.mkdtemp())  # pytest's own are closed to other users
    shutil.chown(folder, "postgres")
    run = ["runuser", "-u", "postgres", "--"]
    data, port = folder / "data", 20000 + os.getpid() % 20000
    make = [*run, str(programs[-1] / "initdb"), "-D", str(data), "-A", "trust"]
    subprocess.run(make, check=True, capture_output=True)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    control = [*run, str(programs[-1] / "pg_ctl"), "-D", str(data), "-w"]
    subprocess.run([*control, "-o", options, "-l", str(folder / "log"), "start"], check=True, capture_output=True)
    yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_four_workers_share_a_study_and_the_trial_of_one_that_is_killed_is_given_back(
    postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(seed: int, *slow: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, postgresql, str(seed), str(Path(__file__).parent), *slow]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)

    doomed = start(0, "slow")
    assert doomed.stdout is not None
    with doomed.stdout:
        number = int(doomed.stdout.readline())
    others = [start(seed) for seed in (1, 2)]
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    outputs = [process.stdout.readline() for process in others]  # both are at work
    mine: list[int] = []

    def attempt(trial: Trial) -> float:
        settings = trial.settings(SPACE)
        mine.append(trial.number)
        time.sleep(0.4)
        return quality(settings)

    monkeypatch.setattr(search, "HEARTBEAT_SECONDS", 1)
    study = Study(postgresql, "cells", 3)
    study.agree(OWN, [SPACE.parameters(BASE)], starts_with_plan=True)
    study.try_out(attempt, time.monotonic() + 15, 8, Watcher())
    for index, process in enumerate(others):
        with process.stdout:
            outputs[index] += process.stdout.read()
    assert [process.wait() for process in others] == [0, 0]
    rows = study.rows()
    study.close()
    assert rows[number].state == "failed"
    assert rows[number].why == "interrupted, and given back"
    lost = rows[number].settings
    assert lost
    assert [row.state for row in rows if row.settings == lost and row.number != number] == ["complete"]
    assert sum(row.state == "complete" for row in rows) >= 7
    numbers = [*mine, *(int(number) for output in outputs for number in output.split())]
    assert len(numbers) == len(set(numbers))
    assert mine
    assert all(output for output in outputs)


# --- what is remembered and what is made of it ------------------------------------------------------------------------


def _found(**settings: object) -> Found:
    best = TrialRow(number=1, state="complete", miou=0.8, settings=dict(settings), seconds=60.0)
    plan = TrialRow(number=0, state="complete", miou=0.7, settings={}, is_plan=True, seconds=61.0)
    return Found(trials=(plan, best), best=best, plan=plan, importances={})


def test_a_winner_is_tried_first_on_similar_data_only(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    found = _found(**{"training.learning_rate": 5e-3, "training.batch_size": 8})
    memory.keep(fingerprint(), found)
    similar, other = fingerprint(images=140, data_hash="b"), fingerprint(channels=3, upright=True, data_hash="c")
    assert memory.start(SPACE, BASE, similar) == [
        {"training.learning_rate": 1e-3, "training.batch_size": "4"},
        {"training.learning_rate": 5e-3, "training.batch_size": "8"},
    ]
    assert len(memory.start(SPACE, BASE, other)) == 1
    (tmp_path / "tuned" / "damaged.json").write_text("{}")
    assert len(memory.start(SPACE, BASE, similar)) == 2


@pytest.mark.parametrize(
    ("width", "planned", "later", "expected"), [(16, 16, 32, 32), (24, 16, 32, 48), (12, 16, 32, 24), (16, 16, 64, 64)]
)
def test_the_last_network_is_as_much_wider_as_the_winner_was(
    width: int, planned: int, later: int, expected: int
) -> None:
    assert widened(width, planned, later) == expected
    base, plan_of_later = load(None, [f"model.width={planned}"]), load(None, [f"model.width={later}", "model.stride=2"])
    space = Space({"model.width": [width, planned]})
    # a plan that is told a width decides no stride: that of the plan from which the width was scaled counts
    assert final_settings(_found(**{"model.width": width}), base, plan_of_later, space) == {
        "model.width": expected,
        "model.stride": 2,
    }


def test_the_last_run_normalises_as_the_winner_did() -> None:
    found, base = _found(**{"training.batch_size": 2}), load(None, ["model.norm=batch"])
    expected = {"training.batch_size": 2, "model.norm": "batch"}  # a plan for batches of two has groups
    assert final_settings(found, base, load(None, ["model.norm=group"]), SPACE) == expected


def test_a_plan_that_was_not_beaten_is_kept() -> None:
    found = _found()
    assert found.plan is not None
    assert final_settings(found.model_copy(update={"best": found.plan}), BASE, BASE, SPACE) == {}


def test_the_page_says_when_nothing_was_gained() -> None:
    found = _found(**{"loss.name": "<b>focal</b>", "training.learning_rate": 1e-3})
    tuned = Tuned(data="cells", trial_seconds=60, found=found, verdict="6 images cannot tell", is_better=False)
    text = page.render(tuned, "pixelwise tune cells --time 1h")
    assert "it is not clear that the winner is better" in text
    assert "<b>focal" not in text
    kept = found.model_copy(update={"best": found.plan})
    assert "which no other trial has beaten" in page.render(Tuned(data="cells", trial_seconds=60, found=kept), "x")


def test_the_page_draws_and_lists_trials_that_ended_early_in_the_same_words() -> None:
    found = _found()
    early = TrialRow(number=2, state="pruned", miou=0.1, settings={}, seconds=9.0)
    text = page.render(Tuned(data="cells", trial_seconds=60, found=found), "x")
    assert "lower than drawn" not in text
    with_early = found.model_copy(update={"trials": (*found.trials, early)})
    text = page.render(Tuned(data="cells", trial_seconds=60, found=with_early), "x")
    assert "ended early, lower than drawn" in text
    assert '<td class="text">ended early</td>' in text
    numbers = re.findall(r"<text[^>]*>(.*?)</text>", text)
    assert numbers[: numbers.index("trial")] == ["0", "1", "2"]
    assert '<td class="text">whole, the plan</td>' in text
    assert "pruned" not in text
    assert "complete" not in text


@pytest.mark.slow
def test_a_search_from_folder_to_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelwise.cli.STARTED", time.monotonic())  # not that of the first test
    draw(tmp_path / "data", images=24)
    space = tmp_path / "space.yaml"
    space.write_text("training.learning_rate: {low: 1e-3, high: 1e-2, log: true}\nmodel.width: [4, 8]\n")
    common = ["--set", "model.depth=2", "--set", "data.patch_size=64", "--set", "model.width=4", "--trials", "2"]
    command = ["tune", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--trial-time", "3s", *common]
    # on a busy machine too there is time for two trials
    result = CliRunner().invoke(app, [*command, "--space", str(space), "--time", "90s", "--search-only"])
    assert result.exit_code == 0, result.output
    tuned = Tuned.model_validate_json((tmp_path / "out" / "tune.json").read_text())
    assert [row.is_plan for row in tuned.found.trials] == [True, False]
    assert all(row.miou is not None and row.miou > 0.1 for row in tuned.found.trials)
    assert not list((tmp_path / "out" / "trials").glob("*/*.ckpt"))
    assert not tuned.final
    # the same study goes on: all trials are there, so that only the winner is trained
    monkeypatch.setattr("pixelwise.cli.STARTED", time.monotonic())
    again = CliRunner().invoke(app, [*command, "--time", "6s"])
    assert again.exit_code == 0, again.output
    assert "this study has its settings" in again.output
    tuned = Tuned.model_validate_json((tmp_path / "out" / "tune.json").read_text())
    assert len(tuned.found.trials) == 2
    assert api.Run(Path(tuned.final)).scores.split == "test"
    assert "best trial" in again.output
    assert again.output.count("24 images with masks") == 1  # the data are read, checked and told once
    assert sum(line.startswith("split: ") for line in again.output.splitlines()) == 1
    assert ("which no other trial has beaten" in again.output) == tuned.found.best.is_plan
    assert "Settings" in (tmp_path / "out" / "tune.html").read_text()


def test_trials_that_are_too_short_are_refused_before_anything_is_read() -> None:
    result = CliRunner().invoke(app, ["tune", "nothing", "--time", "10s"])
    assert "too short" in str(result.exception)


def test_a_search_needs_a_time() -> None:
    assert CliRunner().invoke(app, ["tune", "nothing"]).exit_code == 2


def test_optuna_is_an_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pixelwise\[tune\]"):
        sqlite(tmp_path)


# --- how high a rate may be -------------------------------------------------------------------------------------------


def test_the_range_of_rates_is_that_of_gradient_descent_on_a_parabola() -> None:
    """X loses rate * x at each step: the loss falls fastest near 1, and grows beyond 2, which is past the last rate."""
    position = [1.0]

    def step(rate: float) -> float:
        loss = 0.5 * position[0] ** 2
        position[0] -= 40.0 * rate * position[0]  # a curvature of 40: beyond a rate of 1/20 it diverges
        return loss

    found = range_test(step)
    assert 0.003 < found.steepest < 0.06
    assert found.steepest <= found.highest < 0.5  # what has all but vanished takes some steps to grow again
    assert found.rates[-1] < 1.0  # it has diverged, and ended there


def test_a_loss_that_is_no_number_ends_the_range_test() -> None:
    losses = iter([1.0, 0.9, math.nan, 0.1])
    assert range_test(lambda _rate: next(losses)).highest == pytest.approx(1e-6 * 10 ** (6 / 59))


@pytest.mark.slow
def test_the_range_test_of_a_run_bears_the_planned_rate(tmp_path: Path) -> None:
    from pixelwise.data.folder import scan
    from pixelwise.training import run as runs
    from pixelwise.training.material import prepare

    draw(tmp_path / "data", images=24)
    dataset = scan(tmp_path / "data")
    config = load(None, ["training.time=60", "model.width=8", "model.depth=2", "data.patch_size=64"])
    material = prepare(dataset, config, None, Watcher())
    planned = runs.make_plan(dataset, config, material).config
    request = runs.Request(tmp_path, dataset, tmp_path, planned, material=material)
    found = runs.rate_range(request, planned, material)
    assert 1e-4 < found.highest <= 1.0
    assert len(found.rates) > 20
