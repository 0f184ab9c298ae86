"""The benchmark: its arithmetic by hand, and every figure on work small enough for a test."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from pixelwise import api
from pixelwise.bench import ceiling, contest, figures, networks, page, rivals, sizes
from pixelwise.config import ModelConfig
from pixelwise.errors import ConfigError
from pixelwise.inference import int8
from pixelwise.models.blocks import parameter_count
from pixelwise.models.unet import build
from pixelwise.timing import Timing, timed
from pixelwise.training.machine import Stopwatch, this_machine
from pixelwise.training.watch import Watcher
from pixelwise.verbs import measure

CPU = torch.device("cpu")
RATES = {"float32": 1.0, "bfloat16": 2.0}
ONCE = Timing(0.5, 0.4, 0.7, 3)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything a thousand times smaller, and repeated as seldom as may be."""
    monkeypatch.setattr(ceiling, "MATRIX_EDGE", {"cpu": 64})
    monkeypatch.setattr(ceiling, "CONVOLUTIONS", ((8, 16), (16, 8)))
    monkeypatch.setattr(ceiling, "COPIED_BYTES", 2**16)
    monkeypatch.setattr(figures, "PLAIN", ModelConfig(width=4, depth=2))
    monkeypatch.setattr(figures, "NNUNET", ModelConfig(width=4, depth=2, norm="instance", deep_supervision=True))
    monkeypatch.setattr(figures, "LARGE", ModelConfig(width=4, depth=2))
    monkeypatch.setattr(sizes, "PATCH_PX", 32)
    monkeypatch.setattr(sizes, "LARGE_PX", 96)
    monkeypatch.setattr(sizes, "TILE_PX", 64)
    for module in (ceiling, figures):
        monkeypatch.setattr(module, "timed", lambda work, device, **_: timed(work, device, at_least=0.0))
    monkeypatch.setattr(sizes, "IMAGE_PX", 64)
    monkeypatch.setattr(int8, "is_installed", lambda: False)  # it cannot trace what has its shapes checked


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
    assert figures._gflop(layer, image) == pytest.approx(2 * 4 * 10 * 12 * 3 * 8 * 9 / 1e9)


def test_a_share_is_the_rate_over_the_ceiling() -> None:
    assert figures.Figure("x", 1.0, "s", ONCE, gflops=30.0, ceiling_gflops=40.0).share == 0.75
    assert figures.Figure("x", 1.0, "s", ONCE).share is None


@pytest.mark.usefixtures("small")
def test_every_figure_is_measured_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "measure_ceiling", lambda _: ceiling.Ceiling(RATES, RATES, 1.0))
    machine, highest, found = api.bench("cpu")
    names = [figure.name for figure in found]
    assert len(names) == len(set(names)) == 9
    assert all(figure.value > 0 for figure in found)
    assert {figure.name for figure in found if figure.share is not None} == {
        "training step, plain U-Net",
        "training step, nnU-Net's network",
        "training step, plain U-Net, float32",
        "inference, plain U-Net",
    }
    text = page.to_markdown(machine, highest, found)
    assert all(f"| {name} |" in text for name in names)
    assert json.loads(json.dumps(page.to_json(machine, highest, found)))["figures"][0]["name"] == names[0]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("emulated", [False, True])
def test_precisions_that_are_only_emulated_have_no_ceiling(emulated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "has_bfloat16", lambda _: not emulated)
    highest = ceiling.measure(CPU)
    assert (
        set(highest.matrix_gflops)
        == set(highest.convolution_gflops)
        == {"float32", "bfloat16"} - ({"bfloat16"} if emulated else set())
    )
    assert ("none of its own" in page.to_markdown(this_machine(CPU), highest, [])) == emulated


@pytest.mark.usefixtures("small")
def test_one_figure_alone_and_one_that_does_not_exist() -> None:
    assert [figure.name for figure in api.bench("cpu", ["samples"])[2]] == ["sample, augmented"]
    with pytest.raises(ConfigError, match="There are: large image, training"):
        api.bench("cpu", ["speed"])


@pytest.mark.usefixtures("small")
def test_what_memory_does_not_suffice_for_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_of_two(bench: figures.Bench) -> Iterator[figures.Figure]:
        yield from figures.samples(bench)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    monkeypatch.setitem(figures.FIGURES, "samples", first_of_two)
    said: list[str] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher, "say", said.append)
    found = api.bench("cpu", ["samples", "inference"], watcher=watcher)[2]
    assert [figure.name for figure in found] == ["sample, augmented", "inference, plain U-Net"]
    assert "samples: Memory does not suffice (CUDA out of memory. Tried to allocate 9 GiB.)" in said[-1]


@pytest.mark.usefixtures("small")
def test_what_needs_a_gpu_is_said_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher, "say", said.append)
    assert not api.bench("cpu", ["small networks"], watcher=watcher)[2]
    assert said[-1] == "small networks: nothing to measure without a CUDA GPU"


def test_times_are_those_of_what_was_timed_together() -> None:
    machine, highest = this_machine(CPU), ceiling.Ceiling(RATES, RATES, 1.0)
    figure = figures.Figure("x", 8.0, "images/s", ONCE, together=4)
    assert "| x | 8 images/s | 0.4 to 0.7 s for 4, 3 times |" in page.to_markdown(machine, highest, [figure])


def test_named_networks_are_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(networks, "SIZES", {"tiny": {"width": 4, "depth": 2}, "nano": {"width": 2, "depth": 1}})
    monkeypatch.setattr(sizes, "PATCH_PX", 32)
    rows = networks.networks(Stopwatch(CPU, tmp_path), lambda _done, _of: None)
    assert [row.name for row in rows] == ["tiny", "nano"]
    assert all(row.training_per_second and row.prediction_per_second for row in rows)
    # the weights and the arithmetic of a depth of 1, by hand: two blocks of two convolutions, the way up, the head
    convolutions = [(3, 2, 32), (2, 2, 32), (2, 4, 16), (4, 4, 16), (4, 2, 32), (2, 2, 32)]
    by_hand = sum(2 * 9 * one * other * edge**2 for one, other, edge in convolutions)
    by_hand += 2 * 4 * 2 * 32**2  # on the way up each place is a product with one of the coarser map
    by_hand += 2 * 2 * 2 * 32**2  # and the output one with its own
    assert rows[1].gflop == pytest.approx(by_hand / 1e9)


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


def told(seconds: float, **more: object) -> str:
    """A line as a rival prints it."""
    timing = {"median_seconds": seconds, "lowest_seconds": seconds, "highest_seconds": seconds, "repetitions": 1}
    return json.dumps({"figure": "sample, augmented", "rival": f"rival of {seconds} s", "timing": timing, **more})


def test_rivals_are_measured_by_their_own_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes 2 s where Pixelwise takes 0.5 s is a quarter as fast; what cannot be measured is told."""
    script = tmp_path / "package" / "bench" / "rivals.py"
    script.parent.mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "one.py").write_text("ALONE = True")
    lines = [told(2.0, peak_bytes=30_000_000), "a warning of theirs", told(0.25)]
    script.write_text(
        f"import sys\nfrom pixelwise.one import ALONE\nassert sys.argv[1] == 'samples'\n"
        f"print({chr(10).join(lines)!r})\n"
        f"print({rivals.LEFT_OUT + 'ImportError: no such thing'!r}, file=sys.stderr)\n"
    )
    monkeypatch.setattr(rivals, "__file__", str(script))
    own = figures.Figure("sample, augmented", 125.0, "ms", ONCE, peak_bytes=10_000_000)
    other = figures.Figure("another", 8.0, "images/s", ONCE)
    said: list[str] = []
    found = contest.with_rivals([own, other], "samples", Path(sys.executable), said.append)
    assert [entry.timing.median_seconds for entry in found[0].rivals] == [2.0, 0.25]
    assert not found[1].rivals
    assert said == ["a rival is left out: ImportError: no such thing"]
    machine = this_machine(CPU)
    highest = ceiling.Ceiling(RATES, RATES, 1.0)
    text = page.to_markdown(machine, highest, found)
    assert "| sample, augmented | 125 ms | rival of 0.25 s | 62.5 ms | 0.50 times as fast |" in text
    assert "| sample, augmented | 125 ms, 10 MB | rival of 2.0 s | 500 ms, 30 MB | 4.00 times as fast |" in text
    as_rate = figures.Figure("x", 8.0, "images/s", ONCE, rivals=(rivals.Entry("x", "slow", Timing(2.0, 2.0, 2.0, 1)),))
    assert "| x | 8 images/s | slow | 2 images/s | 4.00 times as fast |" in page.to_markdown(
        machine, highest, [as_rate]
    )


def test_a_python_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Rivals cannot be measured"):
        contest.refuse_other_python(tmp_path / "python")
    contest.refuse_other_python(Path(sys.executable))
    with pytest.raises(ConfigError, match="KeyError"):
        contest.with_rivals([], "nothing of that name", Path(sys.executable), print)


def test_rivals_do_the_same_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The usual U-Net has as many weights as ours, and each kind of work leads to a line or says why not."""
    for name, value in {"PLAIN_WIDTH": 4, "PATCH_PX": 32, "STEPS_AT_LEAST": 0.0}.items():
        monkeypatch.setattr(sizes, name, value)
    ours = build(ModelConfig(width=4, depth=sizes.PLAIN_DEPTH), sizes.CHANNELS, sizes.CLASSES)
    assert parameter_count(rivals.UsualUNet(4, sizes.PLAIN_DEPTH)) == parameter_count(ours)
    rivals.main("inference")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2
    assert all(line["figure"] == "inference, plain U-Net" and line["timing"]["median_seconds"] > 0 for line in lines)
    assert rivals.RIVALS.keys() == figures.FIGURES.keys() - {"small networks"}
