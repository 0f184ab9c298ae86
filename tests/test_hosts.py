"""Two hosts: network namespaces of Linux, joined by a virtual cable, each with an agent of torchrun."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import draw_discs
from test_processes import SETTINGS, SGD, command, history

import pixelwise

HOSTS = ("10.77.0.1", "10.77.0.2")
PORT = 29517


@pytest.fixture
def namespaces() -> Iterator[tuple[tuple[str, str], ...]]:
    """Namespace and network interface of each host."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux, and root")
    names = [(f"pixelwise-{os.getpid()}-{index}", f"pw{os.getpid() % 10000}n{index}") for index in range(2)]
    try:
        for name, _ in names:
            _ip("netns", "add", name)
        _ip("link", "add", names[0][1], "type", "veth", "peer", "name", names[1][1])
        for (name, cable), address in zip(names, HOSTS, strict=True):
            _ip("link", "set", cable, "netns", name)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
            for interface in (cable, "lo"):
                _ip("-n", name, "link", "set", interface, "up")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces cannot be made here ({error})")
    else:
        yield tuple(names)
    finally:
        for name, _ in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.mark.slow
def test_two_hosts_train_the_network_of_one(namespaces: tuple[tuple[str, str], ...], tmp_path: Path) -> None:
    data, settings = draw_discs(tmp_path / "data", count=9), (*SETTINGS, *SGD, "training.batch_size=4")
    running = [
        _start(name, cable, index, command(data, tmp_path / "two", settings))
        for index, (name, cable) in enumerate(namespaces)
    ]
    try:
        outputs = [process.communicate(timeout=180)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(outputs)
    pixelwise.train(data, tmp_path / "one", config=pixelwise.settings(None, settings))
    # as for two processes of one host, see test_processes
    for mine, other in zip(history(tmp_path / "two"), history(tmp_path / "one"), strict=True):
        assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
        assert mine["validation_loss"] == pytest.approx(other["validation_loss"], rel=2e-5)


def _start(namespace: str, cable: str, index: int, arguments: list[str]) -> subprocess.Popen[str]:
    launcher = [
        *("ip", "netns", "exec", namespace, sys.executable, "-m", "torch.distributed.run"),
        *("--nnodes=2", "--nproc_per_node=1", "--rdzv-backend=c10d", "--rdzv-id=pixelwise"),
        *(f"--rdzv-endpoint={HOSTS[0]}:{PORT}", f"--rdzv-conf=is_host={str(index == 0).lower()}"),
        *(f"--local-addr={HOSTS[index]}", "-m", "pixelwise"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": cable}
    return subprocess.Popen(
        [*launcher, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
