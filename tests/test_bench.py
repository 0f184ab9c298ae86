"""The benchmark: its arithmetic by hand, and every figure on work small enough for a test."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pixelwise import api
from pixelwise.bench import ceiling, figures, page
from pixelwise.config import ModelConfig
from pixelwise.errors import ConfigError
from pixelwise.training.timing import Timing, timed

CPU = torch.device("cpu")
ONCE = Timing(0.5, 0.4, 0.7, 3)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything a thousand times smaller, and repeated as seldom as may be."""
    monkeypatch.setattr(ceiling, "MATRIX_EDGE", {"cpu": 64})
    monkeypatch.setattr(ceiling, "CONVOLUTIONS", ((8, 16), (16, 8)))
    monkeypatch.setattr(ceiling, "COPIED_BYTES", 2**16)
    monkeypatch.setattr(figures, "PLAIN", ModelConfig(width=4, depth=2))
    monkeypatch.setattr(figures, "NNUNET", ModelConfig(width=4, depth=2, norm="instance", deep_supervision=True))
    monkeypatch.setattr(figures, "NARROW", ModelConfig(width=4, depth=2))
    monkeypatch.setattr(figures, "PATCH_PX", 32)
    monkeypatch.setattr(figures, "LARGE_PX", 96)
    monkeypatch.setattr(figures, "TILE_PX", 64)
    for module in (ceiling, figures):
        monkeypatch.setattr(module, "timed", lambda work, device, **_: timed(work, device, at_least=0.0))


def test_work_is_repeated_until_it_was_long_enough_but_no_more_often_than_allowed() -> None:
    calls: list[int] = []
    timing = timed(lambda: calls.append(1), CPU, at_least=60.0, most=7)
    assert timing.repetitions == 7
    assert len(calls) == 8, "the first one does not count"
    assert timing.lowest_seconds <= timing.median_seconds <= timing.highest_seconds
    assert timed(lambda: None, CPU, at_least=0.0).repetitions == 3


def test_operations_are_counted_as_by_hand() -> None:
    layer = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    image = torch.zeros(4, 3, 10, 12)
    assert figures._forward_gflop(layer, image) == pytest.approx(2 * 4 * 10 * 12 * 3 * 8 * 9 / 1e9)


def test_a_share_is_the_rate_over_the_ceiling() -> None:
    assert figures.Figure("x", 1.0, "s", ONCE, gflops=30.0, ceiling_gflops=40.0).share == 0.75
    assert figures.Figure("x", 1.0, "s", ONCE).share is None


@pytest.mark.usefixtures("small")
def test_every_figure_is_measured_and_told() -> None:
    machine, highest, found = api.bench("cpu")
    names = [figure.name for figure in found]
    assert len(names) == len(set(names)) == 7
    assert all(figure.value > 0 for figure in found)
    assert {figure.name for figure in found if figure.share is not None} == {
        "training step, plain U-Net",
        "training step, nnU-Net's network",
        "inference, plain U-Net",
    }
    text = page.to_markdown(machine, highest, found)
    assert all(f"| {name} |" in text for name in names)
    assert json.loads(json.dumps(page.to_json(machine, highest, found)))["figures"][0]["name"] == names[0]


@pytest.mark.usefixtures("small")
def test_one_figure_alone_and_one_that_does_not_exist() -> None:
    assert [figure.name for figure in api.bench("cpu", ["samples"])[2]] == ["sample, augmented"]
    with pytest.raises(ConfigError, match="There are: training, inference"):
        api.bench("cpu", ["speed"])


@pytest.mark.usefixtures("small")
def test_the_page_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pixelwise import cli

    monkeypatch.setattr("sys.argv", ["pixelwise", "bench", "--only", "samples", "-o", str(tmp_path / "page.md")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert "sample, augmented" in (tmp_path / "page.md").read_text()
    assert "sample, augmented" in capsys.readouterr().out
