"""Which images the models that a run takes from have seen."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import QUICK, draw_discs
from PIL import Image
from test_ensemble import bundle

from pixelwise import settings
from pixelwise.config import Config
from pixelwise.data.folder import scan
from pixelwise.errors import DataError
from pixelwise.models.bundle import save
from pixelwise.training.folder import settle
from pixelwise.training.material import Material, prepare
from pixelwise.training.origins import all_seen, findings
from pixelwise.training.watch import Watcher


@pytest.fixture
def material(tmp_path: Path) -> Material:
    """Twelve images, of which two or more stand on each side."""
    config = settings(None, [*QUICK, "data.validation_fraction=0.25", "data.test_fraction=0.25"])
    return prepare(scan(draw_discs(tmp_path / "data", count=12)), config, None, Watcher())


def run_that_saw(folder: Path, digests: list[str] | None) -> Path:
    folder.mkdir()
    facts = {"data": "cells", "mask_encoding": {"kind": "values", "values": {"0": 0, "1": 1}}}
    seen = {"training_images": digests} if digests is not None else {}
    (folder / "run.json").write_text(json.dumps(facts | seen))
    return folder


def digests_of(material: Material, side: str) -> list[str]:
    return [material.cache.open(case).digest for case in getattr(material.split, side)]


def test_test_images_that_a_source_has_seen_are_a_warning_and_validation_images_a_notice(
    material: Material, tmp_path: Path
) -> None:
    known = digests_of(material, "test")[:2] + digests_of(material, "validation")[:1] + digests_of(material, "train")
    run = run_that_saw(tmp_path / "run", known)
    for source in (run, run / "best.safetensors"):
        test, validation = findings({"the teacher,": source}, material)
        assert (test.severity, validation.severity) == ("warning", "notice")
        assert test.what == f"2 of the {len(material.split.test)} test images were trained on by the teacher, {source}."
        assert validation.what.startswith(f"1 of the {len(material.split.validation)} validation images")
        assert test.files == tuple(case.image for case in material.split.test[:2])


def test_validation_images_are_a_warning_where_they_are_scored_at_the_end(material: Material, tmp_path: Path) -> None:
    run = run_that_saw(tmp_path / "run", digests_of(material, "validation"))
    untested = replace(material, split=replace(material.split, test=()))
    (found,) = findings({"the teacher,": run}, untested)
    assert found.severity == "warning"


def test_images_that_nobody_has_seen_and_blank_ones_are_not_told(material: Material, tmp_path: Path) -> None:
    assert findings({"the teacher,": run_that_saw(tmp_path / "run", digests_of(material, "train"))}, material) == []
    blank = material.split.test[0]
    Image.new("L", (48, 48), 7).save(blank.image)
    known = run_that_saw(tmp_path / "other", [material.cache.open(blank).digest])
    assert findings({"the teacher,": known}, material) == []


def test_a_source_that_does_not_say_what_it_has_seen_is_a_notice(material: Material, tmp_path: Path) -> None:
    for source in (run_that_saw(tmp_path / "old", None), tmp_path / "alone.safetensors"):
        (found,) = findings({"the teacher,": source}, material)
        assert found.severity == "notice"
        assert "not known which images the teacher" in found.what
        assert all_seen(material, [source]) is None


def test_a_run_has_seen_what_its_sources_have(material: Material, tmp_path: Path) -> None:
    own = digests_of(material, "train")
    assert all_seen(material, []) == own
    assert all_seen(material, [run_that_saw(tmp_path / "run", ["x", own[0]])]) == [*own, "x"]


@pytest.mark.parametrize("content", ["[]", '{"training_images": 3}', "{"])
@pytest.mark.parametrize("role", ["start_from", "teacher"])
@pytest.mark.parametrize("named", ["", "best.safetensors"])
def test_a_source_whose_run_is_damaged_is_refused_before_images_are_read(
    content: str, role: str, named: str, tmp_path: Path
) -> None:
    source = run_that_saw(tmp_path / "run", None)
    save(bundle(0), source / "best.safetensors")
    settle(tmp_path / "new", Config(), **{role: source / named})
    (source / "run.json").write_text(content)
    with pytest.raises(DataError) as caught:
        settle(tmp_path / "new", Config(), **{role: source / named})
    assert caught.value.where == source / "run.json"
    assert caught.value.remedy


def test_the_split_of_a_source_is_told_in_settings(material: Material, tmp_path: Path) -> None:
    run = run_that_saw(tmp_path / "run", digests_of(material, "test"))
    (run / "config.yaml").write_text(
        Config.model_validate({"seed": 7, "data": {"folds": 3, "fold": 1, "test_fraction": 0.2}}).to_yaml()
    )
    (found,) = findings({"the teacher,": run}, material)
    options = "--seed 7 --set data.test_fraction=0.2 --set data.folds=3 --set data.fold=1"
    assert f"Train on the split of that run ({options})" in found.remedy
