"""The door for settings is strict."""

import runpy
from pathlib import Path
from types import UnionType
from typing import Literal, Union, get_args, get_origin

import pytest

from pixelwise.config import SIZES, Config, LossConfig, ModelConfig, keys_of, load, parse_seconds
from pixelwise.errors import ConfigError, DataError
from pixelwise.losses import LOSSES
from pixelwise.models.blocks import BLOCKS, NORMS
from pixelwise.models.encoders import ENCODERS
from pixelwise.models.unet import DECODERS


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainig.batch_size=8", "no setting 'trainig'. Did you mean 'training"),
        ("training.batchsize=8", "Did you mean 'training.batch_size'"),
        ("training.batch_size=many", "'training.batch_size' is 'many'"),
        ("training.batch_size=0", "greater than or equal to 1"),
        ("model.width", "'model.width' is given no value. Write --set model.width=VALUE"),
        ("=8", "'=8' is given to no setting. Write --set KEY=VALUE"),
        ("model=huge", "no network is called 'huge'; there are nano"),
        ("training.time=soon", "'soon' is not a duration"),
        ("data.patch_size=[1,2,3]", "'data.patch_size'"),
        ("seed.x=1", "'seed' is"),
        ("data.test_fraction=0.9", "leave no image to train on"),
        ("loss.name=hinge", "'loss.name' is 'hinge'"),
        ("loss.name=dise", "'lovasz', or module:name, a part of your own. Did you mean 'dice'?"),
        ("model.encoder=resnet", "'plain', or timm/NAME, or module:name, a part of your own."),
        ("augment.own=mine", "input should be module:name, a part of your own."),
        ("device=cudda", "Did you mean 'cuda'?"),
        ("training.batch-size=8", "no setting 'training.batch-size'. Did you mean 'training.batch_size'"),
        ("training.time=2021-02-30", "'2021-02-30' is not a duration"),
        ("seed=1732480000000", "less than 4294967296"),
        ("data.cache=[1]", "'data.cache' is [1]"),
    ],
)
def test_wrong_settings_are_refused_with_the_way_out(override: str, message: str) -> None:
    overrides = [override, "data.validation_fraction=0.2"] if "fraction" in override else [override]
    with pytest.raises(ConfigError) as caught:
        load(None, overrides)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_wrong_settings_are_listed_together() -> None:
    with pytest.raises(ConfigError, match=r"'training.batch_size' is 'x'.*'seed' is 'y'|'seed' is 'y'.*batch_size"):
        load(None, ["training.batch_size=x", "seed=y"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("1.5h", 5400), ("2m30", 150)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


def test_settings_come_back_from_their_file_and_leave_nothing_free(tmp_path: Path) -> None:
    config = load(None, ["model=paper", "training.time=15m", "data.resize=64", "loss.class_weights=[1, 2]"])
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    again = load(tmp_path / "config.yaml")
    assert again == config
    assert again.given() == keys_of(Config)


def test_only_what_was_set_counts_as_given() -> None:
    assert load(None, ["model=nano", "seed=3"]).given() == {"model.width", "model.depth", "seed"}
    assert load(None, ["model=nano", "model.depth=5"]).model.depth == 5


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: paper\ntraining: {batch_size: 2}\n")
    config = load(tmp_path / "c.yaml", ["training.batch_size=3", "model.width=8"])
    assert (config.training.batch_size, config.model.width, config.model.padded) == (3, 8, False)


def test_a_named_network_comes_before_its_changes_whatever_the_order() -> None:
    one, other = (load(None, order) for order in (["model.width=8", "model=paper"], ["model=paper", "model.width=8"]))
    assert one == other
    assert (one.model.width, one.model.padded) == (8, False)


@pytest.mark.parametrize(
    ("settings", "is_possible"),
    [
        (["model.norm=instance", "data.patch_size=32", "model.depth=4"], True),
        (["model.norm=instance", "data.patch_size=[16, 32]", "model.depth=4"], True),  # maps of 1 x 2
        (["model.norm=instance", "data.patch_size=16", "model.depth=4"], False),
        (["model.norm=instance", "data.patch_size=32", "model.depth=4", "model.stride=2"], False),
        (["training.batch_size=1", "data.patch_size=16", "model.depth=4"], False),
        (["training.batch_size=1", "data.patch_size=16", "model.depth=4", "model.norm=group"], True),
    ],
)
def test_a_norm_needs_more_than_one_value(settings: list[str], is_possible: bool) -> None:
    if is_possible:
        load(None, settings)
    else:
        with pytest.raises(ConfigError, match="two places or more"):
            load(None, settings)


def test_settings_without_effect_are_named() -> None:
    said = load(None, ["loss.name=dice", "loss.focal_gamma=1", "loss.border_sigma_px=3"]).ignored()
    assert [sentence.split()[0] for sentence in said] == ["loss.focal_gamma", "loss.border_sigma_px"]
    assert load(None, ["loss.border_weight=10", "loss.border_sigma_px=3"]).ignored() == []


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "\x00", "seed: 2021-02-30"])
def test_files_that_are_no_settings_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load(tmp_path / "c.yaml")


def test_a_file_of_settings_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name, words in (("absent.yaml", "There is no such file of settings."), ("binary.yaml", "it is no text")):
        with pytest.raises(DataError, match=words) as caught:
            load(tmp_path / name)
        assert caught.value.where == tmp_path / name
        assert "Errno" not in str(caught.value)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 1


def test_every_name_has_its_part() -> None:
    def choices(model: type, key: str) -> set[str]:
        annotation = model.model_fields[key].annotation
        parts = get_args(annotation) if get_origin(annotation) in (UnionType, Union) else (annotation,)
        return {choice for part in parts if get_origin(part) is Literal for choice in get_args(part)}

    assert choices(LossConfig, "name") == set(LOSSES)
    assert choices(ModelConfig, "encoder") == set(ENCODERS)
    assert choices(ModelConfig, "decoder") == set(DECODERS)
    assert choices(ModelConfig, "block") == set(BLOCKS)
    assert choices(ModelConfig, "norm") == set(NORMS)


def test_every_named_size_is_a_network() -> None:
    for settings in SIZES.values():
        assert ModelConfig(**settings)


def test_the_page_of_settings_is_up_to_date() -> None:
    """A new setting is a decision that shows: `python scripts/settings_table.py` writes the page."""
    script = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "settings_table.py"))
    assert script["TARGET"].read_text(encoding="utf-8") == script["page"]()
