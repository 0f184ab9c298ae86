"""Several processes compute what one computes.

Real processes, joined by gloo over the loopback: a fixture runs every small computation in two of them at once, and
the tests compare with one process. The slow tests start the command itself with torchrun.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from conftest import QUICK, draw_discs
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

import pixelwise
from pixelwise import launcher
from pixelwise.classes import ClassTable
from pixelwise.config import Config, LossConfig, ModelConfig, TrainingConfig, load
from pixelwise.control_groups import Groups
from pixelwise.errors import ConfigError
from pixelwise.inference.predictor import choose_device
from pixelwise.launcher import Share
from pixelwise.losses import LOSSES, alone
from pixelwise.losses import build as build_loss
from pixelwise.models.unet import build
from pixelwise.training import loop, processes
from pixelwise.training.processes import (
    SharedBatchNorm,
    join,
    largest,
    leave,
    share_batch_norm,
    total,
    total_over_processes,
)
from pixelwise.training.update import Update
from pixelwise.training.watch import Watcher

SAMPLES = 5
"""An odd batch: the first process has two samples, the second three."""

# --- what two processes compute ---


def features(number: int, mean: float = 3.0, deviation: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return mean + deviation * torch.randn((SAMPLES, 3, 4, 6), generator=generator)


def images() -> tuple[Tensor, Tensor]:
    """A batch whose halves differ in everything: mean, classes, ignored pixels."""
    generator = torch.Generator().manual_seed(5)
    image = torch.randn((SAMPLES, 2, 8, 8), generator=generator) + torch.arange(SAMPLES)[:, None, None, None]
    mask = torch.randint(0, 3, (SAMPLES, 8, 8), generator=generator, dtype=torch.uint8)
    mask[0], mask[3, :4], mask[4] = 0, 255, 2
    return image, mask


def network() -> nn.Module:
    torch.manual_seed(1)
    return build(ModelConfig(width=2, depth=1), 2, 3)


def normalise(norm: nn.BatchNorm2d, part: slice) -> dict[str, Tensor]:
    """Three training batches and one in evaluation; all that can be compared of them."""
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    found: dict[str, Tensor] = {}
    for number in range(3):
        batch = features(number)[part].requires_grad_()
        output = norm(batch)
        (output * features(number + 10)[part]).sum().backward()
        assert batch.grad is not None
        found |= {f"output{number}": output.detach(), f"slope{number}": batch.grad}
    found |= {"evaluated": norm.eval()(features(9)[part]).detach()}
    found |= {f"grad.{name}": value.grad for name, value in norm.named_parameters() if value.grad is not None}
    return found | {f"state.{name}": value for name, value in norm.state_dict().items()}


def far_from_zero(norm: nn.BatchNorm2d, part: slice) -> Tensor:
    """A layer that has learnt a mean of 1000, and a batch near it with a deviation of a half."""
    assert norm.running_mean is not None
    norm.running_mean.fill_(1000.0)
    norm(features(0, mean=1001.0, deviation=0.5)[part].to(norm.weight.dtype))
    assert norm.running_var is not None
    return norm.running_var


def gradients(model: nn.Module, name: str, part: slice, reduce: Any) -> dict[str, Tensor]:
    """The loss of a part of the batch and the gradients of all weights."""
    image, mask = images()
    loss = build_loss(LossConfig(name=name), reduce=reduce)
    value = loss(model(image[part]), mask[part], None)
    value.backward()
    return {"loss": value.detach()} | {key: p.grad for key, p in model.named_parameters() if p.grad is not None}


def weighted_gradients(convolution: nn.Module, part: slice, reduce: Any) -> list[Tensor]:
    """Of a convolution from a loss with weights of classes and of pixels, in double precision."""
    image, mask = images()
    weight = torch.linspace(0.5, 1.5, mask.numel(), dtype=torch.float64).view(mask.shape)
    loss = build_loss(LossConfig(), torch.tensor([0.5, 1.0, 3.0]), reduce)
    loss(convolution(image[part].double()), mask[part], weight[part]).backward()
    return [p.grad for p in convolution.parameters() if p.grad is not None]


VALIDATED: list[list[str]] = []
"""Images of each validation that this process counted."""


def count_each_once(_model: object, cases: Any) -> tuple[Tensor, Tensor]:
    """One pixel per image, and the loss 10^i for image i: the digits of the sum tell who was counted how often."""
    VALIDATED.append([case.case.name for case in cases])
    counts = torch.zeros((2, 2), dtype=torch.int64)
    counts[1, 1] = len(cases)
    return counts, torch.tensor(sum(10.0 ** int(case.case.name) for case in cases), dtype=torch.float64)


def validate(fabric: Any, count: int) -> float:
    """The validation loss of `count` images, by the loop's own function."""
    job = SimpleNamespace(
        fabric=fabric,
        model=SimpleNamespace(classes=ClassTable.from_names(["a", "b"])),
        validation=[SimpleNamespace(case=SimpleNamespace(name=str(number))) for number in range(count)],
        clock=SimpleNamespace(note_validation=lambda _seconds: None, trained=lambda: 0.0),
        update=SimpleNamespace(learning_rate=0.1, begin_validation=lambda: None),
        config=Config(),
    )
    return loop.validate(job, loop.History(), 0.0, 1.0).validation_loss  # type: ignore[arg-type]


def compute(rank: int, world_size: int) -> dict[str, Any]:
    """Everything that is compared, in one of two processes."""
    share = Share(rank, world_size).of(0, SAMPLES)
    part = slice(share.start, share.stop)
    fabric: Any = SimpleNamespace(world_size=world_size, global_rank=rank, device=torch.device("cpu"))
    big = torch.tensor([2**60 + 1, rank])
    slope = torch.tensor([1.0, 2.0], requires_grad=True)
    summed = total(slope * (rank + 1))
    (summed * (rank + 1)).sum().backward()
    loop.count = count_each_once
    found: dict[str, Any] = {
        "norm": normalise(SharedBatchNorm(3), part),
        "far": far_from_zero(SharedBatchNorm(3), part),
        "integers": total_over_processes(fabric, big),
        "untouched": big,
        "total": (summed.detach(), slope.grad),
        "largest": [largest(fabric, value) for value in (0.25, [0.0, 1.0][rank], [1 / 3, 0.3][rank])],
        "validation": {count: validate(fabric, count) for count in (1, 2, 5)},
    }
    found["validated"] = VALIDATED
    torch.manual_seed(0)
    convolution = nn.parallel.DistributedDataParallel(nn.Conv2d(2, 3, 1).double())
    found["weighted"] = weighted_gradients(convolution, part, torch.distributed.nn.functional.all_reduce)
    for name in LOSSES:
        model = network()
        share_batch_norm(model)
        found[name] = gradients(nn.parallel.DistributedDataParallel(model), name, part, total)
    processes.PART_WEIGHTS = 30  # so that a small network has parts
    here = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2", "GROUP_RANK": "0"}
    os.environ |= here | {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "test"}
    found["divided"] = steps(join(load(None, ["device=cpu", "training.shard=true"]), here), part)
    return found


def steps(fabric: Any, part: slice) -> dict[str, Any]:
    """Three updates of two parts, the last of which is made twice, and what they leave."""
    model = network()
    model.encoder.levels[0].requires_grad_(requires_grad=False)
    divided = fabric.world_size > 1
    if divided:
        share_batch_norm(model)
    scales = {name: 0.5 if name.startswith("encoder") else 1.0 for name, _ in model.named_parameters()}
    config = TrainingConfig(learning_rate=0.01, clip_norm=0.1, warmup_fraction=0.0, shard=divided)
    update = Update(fabric, model, config, scales)
    image, mask = images()
    loss = build_loss(LossConfig(), reduce=total if divided else alone)
    update.begin_training()
    before, after = [], []
    for number in (0, 1, 2, 2):
        if len(after) == 3:
            update.put_back(before[2])
        before.append(update.state())
        for is_last in (False, True):
            with update.part(is_last):
                update.backward(0.5 * loss(update.network(image[part] + number), mask[part], None))
        update.step(number, 0.5)
        after.append(update.state())
    update.begin_validation()
    held = sum(value.to_local().numel() for value in model.parameters() if isinstance(value, DTensor))
    parts = sum(isinstance(module, FSDPModule) for module in model.modules())
    average = {name: value.clone() for name, value in update.average.state_dict().items()}
    return {"last": after[2], "again": after[3], "average": average, "held": held, "parts": parts}


def work(rank: int, folder: str) -> None:
    from datetime import timedelta

    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    torch.save(compute(rank, 2), f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    leave()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
        torch.multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


WHOLE = slice(0, SAMPLES)


# --- batch normalisation ---


@pytest.mark.slow
def test_shared_batch_norm_is_batch_norm_of_the_whole_batch(two: list[dict[str, Any]]) -> None:
    expected = normalise(nn.BatchNorm2d(3), WHOLE)
    for name, value in expected.items():
        first, second = (found["norm"][name] for found in two)
        if name.startswith(("output", "slope", "evaluated")):
            found = torch.cat([first, second])
        elif name.startswith("grad"):
            found = first + second  # each process has the gradient of its part of the sum
        else:
            torch.testing.assert_close(first, second, rtol=0, atol=0)
            found = first
        torch.testing.assert_close(found, value, rtol=2e-5, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
def test_shared_batch_norm_keeps_its_digits_far_from_zero(two: list[dict[str, Any]]) -> None:
    expected = far_from_zero(nn.BatchNorm2d(3).double(), WHOLE)
    for found in two:
        torch.testing.assert_close(found["far"].double(), expected, rtol=1e-5, atol=0)


def test_sharing_changes_neither_names_nor_weights_nor_evaluation() -> None:
    model = network().eval()
    image = images()[0]
    before, expected = {name: value.clone() for name, value in model.state_dict().items()}, model(image)
    share_batch_norm(model)
    assert any(type(module) is SharedBatchNorm for module in model.modules())
    assert not any(type(module) is nn.BatchNorm2d for module in model.modules())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    torch.testing.assert_close(model(image), expected, rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["instance", "group", "none"])
def test_other_normalisations_stay_what_they_are(norm: str) -> None:
    model = build(ModelConfig(width=2, depth=1, norm=norm), 1, 2)
    before = [type(module) for module in model.modules()]
    share_batch_norm(model)
    assert [type(module) for module in model.modules()] == before


# --- sums ---


@pytest.mark.slow
def test_integers_are_added_exactly_and_the_own_ones_stay(two: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(two):
        assert found["integers"].tolist() == [2**61 + 2, 1]  # float64 would lose the 2
        assert found["untouched"].tolist() == [2**60 + 1, rank]


def test_one_process_has_the_sum_already() -> None:
    values = torch.tensor([3, 4])
    fabric: Any = join(load(None, ["device=cpu"]), {})
    assert total_over_processes(fabric, values).tolist() == [3, 4]
    assert largest(fabric, 0.25) == 0.25


@pytest.mark.slow
def test_the_derivative_of_a_sum_is_a_sum(two: list[dict[str, Any]]) -> None:
    # S = 1 x_0 + 2 x_1; the processes' losses 1 S and 2 S together have the derivative 3 S
    for rank, found in enumerate(two):
        value, slope = found["total"]
        assert value.tolist() == [3.0, 6.0]
        assert slope.tolist() == [3.0 * (rank + 1)] * 2


@pytest.mark.slow
def test_all_agree_on_the_largest_so_that_all_stop_if_one_wishes_to(two: list[dict[str, Any]]) -> None:
    assert [found["largest"] for found in two] == [[0.25, 1.0, 1 / 3]] * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradients_are_those_of_one_process(two: list[dict[str, Any]], name: str) -> None:
    expected = gradients(network(), name, WHOLE, lambda sums: sums)
    for found in two:
        mine = {key.removeprefix("module."): value for key, value in found[name].items()}
        assert mine.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(mine[key], value, rtol=1e-4, atol=1e-6, msg=lambda t, key=key: f"{key}: {t}")


@pytest.mark.slow
def test_processes_that_divide_a_network_train_that_of_one(two: list[dict[str, Any]]) -> None:
    expected = steps(join(load(None, ["device=cpu"]), {}), WHOLE)
    weights = sum(value.numel() for value in network().parameters())
    for found in (each["divided"] for each in two):
        assert found["last"].keys() == expected["last"].keys()
        for name, value in expected["last"].items():
            mine = found["last"][name]
            torch.testing.assert_close(mine, value, rtol=1e-4, atol=2e-5, msg=lambda t, name=name: f"{name}: {t}")
            torch.testing.assert_close(found["again"][name], found["last"][name], rtol=0, atol=0)
        for name, value in found["average"].items():
            torch.testing.assert_close(value, found["last"][f"average.{name}"], rtol=0, atol=0)
        assert found["held"] < 0.6 * weights
        assert found["parts"] == 8  # six convolutions, the one that doubles, and all that is left
    assert sum(each["divided"]["held"] for each in two) == weights


@pytest.mark.slow
def test_with_weights_and_the_sum_of_torch_gradients_are_those_of_one_process(two: list[dict[str, Any]]) -> None:
    torch.manual_seed(0)
    expected = weighted_gradients(nn.Conv2d(2, 3, 1).double(), WHOLE, lambda sums: sums)
    for found in two:
        for mine, value in zip(found["weighted"], expected, strict=True):
            torch.testing.assert_close(mine, value)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_image_is_validated_once(two: list[dict[str, Any]], count: int) -> None:
    expected = sum(10.0**number for number in range(count)) / count  # 11111 / 5
    assert [found["validation"][count] for found in two] == [pytest.approx(expected)] * 2
    first, second = (found["validated"][[1, 2, 5].index(count)] for found in two)
    assert sorted(first + second) == [str(number) for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("batch", [1, 2, 3, 8, 9])
def test_shares_of_a_batch_are_the_batch(count: int, batch: int) -> None:
    numbers = [list(Share(rank, count).of(6, batch)) for rank in range(count)]
    assert [number for share in numbers for number in share] == list(range(6 * batch, 7 * batch))
    assert max(map(len, numbers)) - min(map(len, numbers)) <= 1


# --- joining ---


def of_torchrun(rank: int, processes: int, local_rank: int, local: int) -> dict[str, str]:
    numbers = {"RANK": rank, "WORLD_SIZE": processes, "LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": local}
    return {name: str(number) for name, number in numbers.items()}


def of_srun(rank: int, processes: int, local_rank: int, machine: int, tasks: str) -> dict[str, str]:
    numbers = {"SLURM_PROCID": rank, "SLURM_STEP_NUM_TASKS": processes, "SLURM_LOCALID": local_rank}
    told = {"SLURM_NODEID": str(machine), "SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_NTASKS": str(processes)}
    return {name: str(number) for name, number in numbers.items()} | told


BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "4"}
"""Of `sbatch --ntasks=4`, before srun is called."""


@pytest.mark.parametrize(
    ("environment", "overall", "local", "machines"),
    [
        ({}, Share(0, 1), Share(0, 1), 1),
        (of_torchrun(1, 2, 1, 2), Share(1, 2), Share(1, 2), 1),
        (of_torchrun(17, 32, 1, 8), Share(17, 32), Share(1, 8), 4),
        (of_torchrun(0, 1, 0, 1), Share(0, 1), Share(0, 1), 1),
        (of_torchrun(0, 5, 0, 3), Share(0, 5), Share(0, 3), None),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Share(1, 2), None, None),
        ({"WORLD_SIZE": "2"}, Share(0, 1), Share(0, 1), 1),
        (of_srun(5, 12, 1, 1, "4(x3)"), Share(5, 12), Share(1, 4), 3),
        (of_srun(0, 4, 0, 0, "4"), Share(0, 4), Share(0, 4), 1),
        (of_srun(4, 5, 1, 1, "3,2"), Share(4, 5), Share(1, 2), None),
        (of_srun(9, 11, 1, 2, "4(x2),3"), Share(9, 11), Share(1, 3), None),
        (BATCH_SCRIPT, Share(0, 1), Share(0, 1), 1),
        ({"SLURM_NTASKS": "4", "SLURM_NNODES": "2"}, Share(0, 1), Share(0, 1), 1),  # a shell in an allocation
        (of_srun(0, 2, 0, 0, "1(x2)") | of_torchrun(3, 4, 1, 2), Share(3, 4), Share(1, 2), 2),  # srun torchrun
    ],
)
def test_the_place_of_a_process_is_what_torchrun_and_srun_tell(
    environment: dict[str, str], overall: Share, local: Share | None, machines: int | None
) -> None:
    place = launcher.place(environment)
    assert (place.overall, place.local, place.machines) == (overall, local, machines)
    assert launcher.is_first(environment) == (overall.rank == 0)


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "first", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "0"},
        {"RANK": "3", "WORLD_SIZE": "2"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        of_torchrun(0, 2, 0, 2) | {"LOCAL_WORLD_SIZE": "x"},
        of_srun(0, 2, 3, 0, "2"),
    ],
)
def test_an_environment_that_makes_no_sense_is_said(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="no place among processes"):
        launcher.place(environment)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "1"}, None),
        ({**of_torchrun(0, 2, 0, 2), "OMP_NUM_THREADS": "1"}, 4),
        ({**of_torchrun(5, 6, 2, 3), "OMP_NUM_THREADS": "1"}, 2),
        ({**of_torchrun(0, 16, 0, 16), "OMP_NUM_THREADS": "1"}, 1),
        ({**of_torchrun(0, 2, 0, 2), "OMP_NUM_THREADS": "3"}, None),  # somebody has decided
        ({**of_torchrun(0, 1, 0, 1), "OMP_NUM_THREADS": "1"}, None),  # torchrun sets it for several only
    ],
)
def test_processes_share_the_cores_where_torchrun_would_leave_them_one(
    environment: dict[str, str], expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "cores", lambda: 8)
    monkeypatch.setattr(launcher, "_visible_cores", lambda: 8)
    started = {"TORCHELASTIC_RUN_ID": "none"} if "RANK" in environment else {}
    assert launcher.threads(environment | started) == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000"}, 3),
        ("0::/\n", {"cpu.max": "5000 100000"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000"}, 8),
        ("0::/job/step\n", {"job/cpu.max": "200000 100000", "job/step/cpu.max": "max 100000"}, 2),
        ("3:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ("3:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("3:cpuset:/\n", {"cpu.max": "200000 100000"}, 8),
        ("", {}, 8),
    ],
)
def test_a_container_computes_with_the_cores_that_it_has_the_time_of(
    own: str, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(launcher, "_visible_cores", lambda: 8)
    found = launcher.cores(Groups(tmp_path, tmp_path / "own"))
    assert found == expected
    monkeypatch.setattr(launcher, "cores", lambda: found)
    assert launcher.threads({}) == (expected if expected < 8 else None)
    assert launcher.threads({"OMP_NUM_THREADS": "5"}) is None, "somebody has decided"


THREADS = """
import sys
import typer
from pixelwise import cli, launcher

launcher.cores = lambda: 4


@cli.app.command()
def threads() -> None:
    import torch

    print(torch.get_num_threads())


sys.argv = ["pixelwise", "threads"]
cli.main()
"""


def test_a_command_under_torchrun_computes_with_its_share_of_the_cores() -> None:
    environment = {**os.environ, **of_torchrun(0, 2, 0, 2), "TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": "1"}
    said = subprocess.run([sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "2\n"


def test_choosing_a_device_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "cores", lambda: 2 * (torch.get_num_threads() + 1))
    told = {**of_torchrun(0, 2, 0, 2), "TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": "1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    before = torch.get_num_threads()
    assert choose_device("cpu") == torch.device("cpu")
    assert torch.get_num_threads() == before


def test_a_script_of_sbatch_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in BATCH_SCRIPT.items():
        monkeypatch.setenv(name, value)
    fabric = join(load(None, ["device=cpu"]))
    assert (fabric.world_size, fabric.global_rank) == (1, 0)


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2"}, "nothing says which of them are on this machine"),
        (of_torchrun(0, 5, 0, 3), "not as many on every machine"),
        (of_srun(4, 5, 1, 1, "3,2"), "not as many on every machine"),
    ],
)
def test_processes_that_are_not_as_many_on_every_machine_do_not_train(environment: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=rf"do not fit together .*{why}.*Start one process per GPU"):
        join(load(None, ["device=cpu"]), environment)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_one_process_joins_nobody(precision: str) -> None:
    fabric = join(load(None, ["device=cpu", f"training.precision={precision}"]), {})
    assert (fabric.world_size, fabric.global_rank, fabric.device.type) == (1, 0, "cpu")
    assert fabric._precision.precision == processes.PRECISIONS[precision]


def test_a_batch_too_small_for_the_processes_is_refused() -> None:
    environment = of_torchrun(0, 4, 0, 4)
    with pytest.raises(ConfigError, match=r"'training\.batch_size' is 3, .*there are 4.*batch_size=4"):
        join(load(None, ["device=cpu", "training.batch_size=3"]), environment)


def test_a_batch_that_is_still_to_be_planned_is_not_refused() -> None:
    processes._refuse_idle_processes(Config(), Config().training.batch_size + 1)


# --- the command under torchrun ---

# with seeds 0 and 1 a ReLU flips in the second epoch: weights moved by 3e-7 move the loss by 1e-5, in one process too
SETTINGS = (*QUICK, "seed=2", "model.norm=batch", "loss.name=dice_cross_entropy", "data.validation_fraction=0.35")
# clipping would hide gradients that are too large
SGD = ("training.optimizer=sgd", "training.learning_rate=0.002", "training.ema_decay=0.9", "training.clip_norm=0")


class Torchrun:
    """`pixelwise train` in several processes; whoever waits gets an answer or an error, never a hang."""

    def __init__(self, arguments: list[str], program: list[str], options: list[str], **environment: str) -> None:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", *options]
        loopback = "lo" if sys.platform == "linux" else "lo0"
        own = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback, "PYTHONFAULTHANDLER": "1"}
        self.process = subprocess.Popen(
            [*launcher, *program, *arguments],
            env=os.environ | own | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait(self, seconds: float) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, output

    def end(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            for child in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
                child.kill()
            self.process.communicate()


@contextmanager
def torchrun(
    arguments: list[str],
    program: tuple[str, ...] = ("-m", "pixelwise"),
    processes: int = 2,
    restarts: int = 0,
    **environment: str,
) -> Iterator[Torchrun]:
    options = [f"--nproc_per_node={processes}", f"--max-restarts={restarts}"]
    run = Torchrun(arguments, list(program), options, **environment)
    try:
        yield run
    finally:
        run.end()


def command(data: Path, out: Path, settings: tuple[str, ...]) -> list[str]:
    return ["train", str(data), "--out", str(out), *(part for text in settings for part in ("--set", text))]


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "last.ckpt")


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine images, of which three validate: one process has two of them, the other one."""
    return draw_discs(tmp_path_factory.mktemp("data") / "nine", count=9)


def train_both(data: Path, tmp_path: Path, settings: tuple[str, ...], processes: int = 2) -> tuple[Path, Path]:
    with torchrun(command(data, tmp_path / "two", settings), processes=processes) as run:
        code, output = run.wait(180)
    assert code == 0, output
    pixelwise.train(data, tmp_path / "one", config=pixelwise.settings(None, settings))
    return tmp_path / "one", tmp_path / "two"


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "processes", "divided"), [(3, 2, True), (6, 4, False)])
def test_several_processes_train_the_network_of_one(
    nine: Path, tmp_path: Path, batch: int, processes: int, divided: bool
) -> None:
    twenty = ("training.steps_per_epoch=10", "training.epochs=2")
    settings = (*SETTINGS, *SGD, *twenty, f"training.batch_size={batch}", f"training.shard={divided}")
    one, two = train_both(nine, tmp_path, settings, processes)
    assert len(json.loads((two / "split.json").read_text())["validation"]) % 2 == 1
    # Sums are added in another order, which moves float32 in the 7th digit; twenty steps of SGD carry that on without
    # amplifying it much. Measured: 2e-5 of a loss, 2e-4 of a weight at most, 2e-3 of a running mean without AVX-512;
    # there one process whose initial weights are moved by 1e-7 parts from itself by 1.4e-3 at most.
    # (Momentum parts by up to 7e-4, where a ReLU flips in the last step.)
    # Gradients off by the number of processes, or statistics of half a batch, move all in the second digit.
    for mine, other in zip(history(two), history(one), strict=True):
        assert (mine["step"], mine["learning_rate"]) == (other["step"], other["learning_rate"])
        assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert mine["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-4)
        assert mine["miou"] == pytest.approx(other["miou"], abs=1e-3)  # of 6912 pixels, two may flip
    mine, other = tensors(two), tensors(one)
    assert mine.keys() == other.keys()
    for name in (key for key in mine if not key.startswith("optimizer")):
        torch.testing.assert_close(
            mine[name], other[name], rtol=1e-3, atol=3e-4, msg=lambda t, name=name: f"{name}: {t}"
        )
    scores = json.loads((two / "scores.json").read_text())
    assert sum(row["pixels"] for row in scores["pooled"]["per_class"]) == scores["images"] * 48 * 48


@pytest.mark.slow
def test_ctrl_c_ends_both_processes_in_good_order(nine: Path, tmp_path: Path) -> None:
    endless = (*SETTINGS, "training.epochs=100000")
    out = tmp_path / "run"
    with torchrun(command(nine, out, endless)) as run:
        deadline = time.monotonic() + 120
        while not (out / "history.jsonl").exists():
            assert time.monotonic() < deadline, "no epoch was finished"
            assert run.process.poll() is None, run.wait(1)
            time.sleep(0.1)
        run.process.send_signal(signal.SIGINT)  # torchrun passes it on
        _, output = run.wait(60)
    assert "stopping: the model so far is kept" in output
    assert (out / "report.html").exists(), output
    rows = history(out)
    pixelwise.train(nine, out, resume=True, watcher=_StopAtOnce())
    assert history(out)[: len(rows)] == rows


class _StopAtOnce(Watcher):
    def __init__(self) -> None:
        self.pressed = False

    def step(self, step: int, progress: float, images_per_second: float) -> None:  # noqa: ARG002  whenever it is
        if not self.pressed:  # a second time would insist
            self.pressed = True
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_an_error_of_the_user_is_said_and_ends_all(nine: Path, tmp_path: Path) -> None:
    with torchrun(command(nine, tmp_path / "run", (*SETTINGS, "data.cache=/dev/null/cache"))) as run:
        code, output = run.wait(90)
    assert code != 0
    assert "data error: /dev/null/cache" in output


FAILING = """
import os
from pixelwise.training import loop

train_step = loop.train_step


def failing(job, batch, step, progress):
    if os.environ["RANK"] == os.environ["FAILS"] and step == 3:
        raise RuntimeError("this process breaks")
    return train_step(job, batch, step, progress)


loop.train_step = failing

from pixelwise.cli import main

main()
"""


@pytest.mark.slow
def test_a_run_goes_on_after_one_of_its_processes_was_killed(nine: Path, tmp_path: Path) -> None:
    """In the middle of the second epoch, which is done again; and the usual optimizer trains alike in two processes."""
    first_time = 'os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1" and step == 5'
    killed = FAILING.replace('os.environ["RANK"] == os.environ["FAILS"] and step == 3', first_time)
    killed = killed.replace(
        'raise RuntimeError("this process breaks")',
        f"(open({str(tmp_path / 'was-killed')!r}, 'w'), os.kill(os.getpid(), 9))",
    )
    (tmp_path / "killed.py").write_text(killed)
    with torchrun(command(nine, tmp_path / "run", SETTINGS), (str(tmp_path / "killed.py"),), restarts=1) as run:
        code, output = run.wait(120)
    assert code == 0, output
    assert (tmp_path / "was-killed").exists()
    pixelwise.train(nine, tmp_path / "one", config=pixelwise.settings(None, SETTINGS))
    assert len(history(tmp_path / "run")) == 2
    # AdamW divides a gradient by its size, so that where it is nearly zero the 7th digit decides its sign: weights
    # part by up to a step of the learning rate, and losses, measured after eight steps, by 3e-5
    for mine, other in zip(history(tmp_path / "run"), history(tmp_path / "one"), strict=True):
        assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert mine["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-2)


@pytest.mark.slow
def test_a_process_that_fails_ends_the_other(nine: Path, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    arguments = command(nine, tmp_path / "run", (*SETTINGS, "training.epochs=100000"))
    with torchrun(arguments, (str(tmp_path / "failing.py"),), FAILS="0") as run:
        code, output = run.wait(90)
    assert code != 0
    assert "this process breaks" in output
