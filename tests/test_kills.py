"""A run that is killed at any instant ends, resumed, in the weights of one that was not.

PIXELWISE_KILLS says how often; `make kills` sets fifty.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import QUICK, draw_discs
from test_training import assert_equal_runs

KILLS = int(os.environ.get("PIXELWISE_KILLS", "0"))
SETTINGS = [*QUICK, "training.epochs=4", "training.steps_per_epoch=2", "model.dropout=0.1"]


def command(data: Path, out: Path, *more: str) -> list[str]:
    settings = [text for setting in SETTINGS for text in ("--set", setting)]
    return [sys.executable, "-m", "pixelwise", "train", str(data), "--out", str(out), *settings, *more]


@pytest.mark.slow
@pytest.mark.timeout(60 + 60 * KILLS)
@pytest.mark.skipif(not KILLS, reason="`make kills` takes minutes")
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_killed_runs_end_in_the_same_weights(tmp_path: Path) -> None:
    data, whole = draw_discs(tmp_path / "discs"), tmp_path / "whole"
    began = time.monotonic()
    subprocess.run(command(data, whole), check=True, capture_output=True)
    seconds = time.monotonic() - began
    chance = random.Random(0)
    killed = 0
    while killed < KILLS:
        folder = tmp_path / f"run {killed}"
        resume: tuple[str, ...] = ()
        for _ in range(chance.randint(1, 2)):
            process = subprocess.Popen(command(data, folder, *resume), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            time.sleep(chance.uniform(0.2, 1.0) * seconds)
            process.kill()
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
            resume = ("--resume",) if (folder / "begun.json").exists() else ()
        done = subprocess.run(command(data, folder, *resume), check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert_equal_runs(whole, folder)
        assert (folder / "report.html").exists()
