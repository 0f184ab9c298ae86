"""A few of the damaged and hostile files of `tests/fuzz/fuzz.py`, which makes as many as one likes."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import pixelwise
from pixelwise import api

CASES = 150

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="memory is watched as Unix does")]


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "fuzz"))
    import fuzz as script

    return script


def test_damaged_files_are_read_or_refused_in_a_sentence(fuzz: ModuleType, tmp_path: Path) -> None:
    outcomes = []
    fuzz.run_cases(range(CASES), tmp_path, outcomes.append)
    assert [outcome for outcome in outcomes if outcome.is_failure] == []
    assert len(outcomes) == CASES
    assert {outcome.target for outcome in outcomes} == set(fuzz.TARGETS)
    assert {outcome.verdict for outcome in outcomes} == {"accepted", "refused"}


def test_undamaged_files_are_accepted(fuzz: ModuleType, tmp_path: Path) -> None:
    """Else the damage to them would test nothing but the first word of a refusal."""
    for number, kind in enumerate(fuzz.images()):
        fuzz.write_pairs(tmp_path / f"image {number}", image=kind)
        api.check(tmp_path / f"image {number}")
    for number, kind in enumerate(fuzz.masks()):
        fuzz.write_pairs(tmp_path / f"mask {number}", mask=kind)
        api.check(tmp_path / f"mask {number}")
    fuzz.write_pairs(tmp_path / "declared")
    fuzz._write(tmp_path / "declared" / "data.yaml", yaml.safe_dump(fuzz.DATA_FILE))
    assert {case.split for case in api.check(tmp_path / "declared")[0].cases} == {"train", "validation"}
    for number in range(4):
        fuzz._write(tmp_path / "coco" / "images" / f"c{number}.png", fuzz.images()["rgb:.png"])
        fuzz._write(tmp_path / "labelme" / f"c{number}.png", fuzz.images()["rgb:.png"])
        fuzz._write(tmp_path / "labelme" / f"c{number}.json", json.dumps(fuzz.labelme()))
    fuzz._write(tmp_path / "coco" / "instances.json", json.dumps(fuzz.coco()))
    for name in ("coco", "labelme"):
        _, findings = api.check(tmp_path / name)
        assert not any(found.severity == "fatal" for found in findings), findings
    fuzz._write(tmp_path / "config.yaml", yaml.safe_dump(fuzz.SETTINGS))
    pixelwise.settings(tmp_path / "config.yaml")
    assert fuzz._model().predict(fuzz._picture(0)).mask.shape == fuzz.SIZE
    fuzz.write_zarr(tmp_path / "x.ome.zarr")
    assert not api.predict_files(fuzz._model(), [tmp_path / "x.ome.zarr"], tmp_path / "out").failed
