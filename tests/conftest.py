"""Fixtures that several test modules share."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import settings
from PIL import Image

# a busy machine is no failure
settings.register_profile("pixelwise", deadline=None)
settings.load_profile("pixelwise")

REALDATA = Path(os.environ.get("PIXELWISE_REALDATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_collection_finish() -> None:
    """All that is imported by now stays: garbage is not looked for in it again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real data sets, where there is one."""
    if not REALDATA.is_dir():
        pytest.skip(f"the real data sets are not at {REALDATA}; set PIXELWISE_REALDATA")
    return REALDATA


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test, and no fixture of a module, reads or fills the user's cache of decoded images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIXELWISE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _idle_processor() -> Iterator[None]:
    """Tests beside each other are no other programs: what a run measures of the machine is kept for the next run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psutil, "cpu_percent", lambda **_given: 0.0)
        yield


@pytest.fixture(autouse=True, scope="session")
def _only_what_users_have() -> Iterator[None]:
    """Processes that tests start find no torchmetrics, which Lightning Fabric imports wherever it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "absent"), prepend=os.pathsep)
        yield


def draw_discs(folder: Path, count: int = 8, size_px: int = 48, seed: int = 0) -> Path:
    """Bright discs on a dark, noisy ground: `images/N.png` grey and `masks/N.png` with 0 and 1."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size_px, :size_px]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        y, x = rng.uniform(12, size_px - 12, 2)
        mask = ((rows - y) ** 2 + (columns - x) ** 2 < rng.uniform(6, 12) ** 2).astype(np.uint8)
        image = np.clip(60 + 120 * mask + rng.normal(0, 12, mask.shape), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return folder


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """A small data set that a small network learns in seconds."""
    return draw_discs(tmp_path / "discs")


QUICK = (
    "device=cpu",
    "model=nano",
    "data.patch_size=[32, 32]",
    "training.batch_size=4",
    "training.precision=float32",
    "training.steps_per_epoch=4",
    "training.epochs=2",
)
"""Settings of a run of a few seconds."""
