"""Weights of another run: matched by class name."""

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from pixelwise.classes import ClassTable
from pixelwise.config import ModelConfig, Preprocessing, TrainingConfig
from pixelwise.errors import BundleError, ConfigError
from pixelwise.models.bundle import Bundle, Description, state_on_cpu
from pixelwise.models.unet import UNet, build
from pixelwise.training.finetune import freeze, knows_most, named_on_one_side, rate_scales, transfer
from pixelwise.training.update import Update


@pytest.mark.parametrize("stride", [1, 2])
def test_classes_of_equal_names_are_predicted_as_before(stride: int) -> None:
    config = ModelConfig(width=4, depth=2, stride=stride)
    old, new = (ClassTable.from_names(names) for names in (("sky", "ground", "bird"), ("bird", "car", "sky", "tree")))
    network = build(config, 2, len(old)).eval()
    described = Description(
        model=config,
        preprocessing=Preprocessing(channels=2, normalisation="none", mean=(0.0, 0.0), deviation=(1.0, 1.0)),
        classes=old,
        patch_size=(32, 32),
    )
    tuned = build(config, 2, len(new)).eval()
    moved = transfer(tuned, Bundle(described, state_on_cpu(network)), new, {})
    assert (moved.shared, moved.fresh, moved.dropped) == (("bird", "sky"), ("car", "tree"), ("ground",))
    image = torch.randn(1, 2, 20, 20)
    with torch.no_grad():
        before, after = network(image), tuned(image)
    torch.testing.assert_close(after[:, [0, 2]], before[:, [2, 0]])


def bundle_of(network: UNet, config: ModelConfig, channels: int, names: tuple[str, ...]) -> Bundle:
    described = Description(
        model=config,
        preprocessing=Preprocessing(
            channels=channels, normalisation="none", mean=(0.0,) * channels, deviation=(1.0,) * channels
        ),
        classes=ClassTable.from_names(names),
        patch_size=(32, 32),
    )
    return Bundle(described, state_on_cpu(network))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("before", "now"), [(3, 1), (1, 3), (3, 5)])
def test_equal_channels_are_seen_as_before_however_many_there_are(before: int, now: int, stride: int) -> None:
    """A grey image looks the same with one channel and with three equal ones."""
    config, names = ModelConfig(width=4, depth=2, stride=stride), ("a", "b")
    old, new = build(config, before, 2).eval(), build(config, now, 2).eval()
    moved = transfer(new, bundle_of(old, config, before, names), ClassTable.from_names(names), {})
    assert moved.channels == (before, now)
    assert f"from {before} channels to {now}" in moved.describe()
    grey = torch.randn(1, 1, 24, 24)
    with torch.no_grad():
        ours, theirs = new(grey.expand(-1, now, -1, -1)), old(grey.expand(-1, before, -1, -1))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_merged_classes_begin_as_the_mean_of_the_old_ones() -> None:
    config = ModelConfig(width=4, depth=2)
    old, new = build(config, 1, 3).eval(), build(config, 1, 2).eval()
    merge = {"vehicle": ["car", "bus"]}
    table = ClassTable.from_names(("road", "vehicle"))
    moved = transfer(new, bundle_of(old, config, 1, ("car", "bus", "road")), table, merge)
    assert (moved.shared, moved.merged, moved.fresh, moved.dropped) == (("road",), ("vehicle",), (), ())
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(new(image)[:, 1], old(image)[:, :2].mean(dim=1))


@pytest.mark.parametrize(
    ("names", "merge", "known"),
    [
        (["sky", "road"], {}, True),
        (["road", "tree"], {}, False),  # half
        (["road", "tree", "sky"], {}, True),
        (["paved", "tree", "sky"], {"paved": ["road", "sky"]}, True),
        (["tree", "lamp"], {}, False),
    ],
)
def test_whether_most_classes_are_known(names: list[str], merge: dict[str, list[str]], known: bool) -> None:
    config = ModelConfig(width=4, depth=2)
    old = bundle_of(build(config, 1, 2), config, 1, ("sky", "road"))
    assert knows_most(old, ClassTable.from_names(names), merge) is known


@pytest.mark.parametrize(
    ("old", "new", "merge", "said"),
    [
        (("background", "value 128"), ["background", "cytoplasm"], {}, "{cytoplasm: [value 128]}"),
        (("background", "cytoplasm"), ["background", "class 1", "class 2"], {}, "{class 1: [cytoplasm]}"),
        (("background", "object"), ["background", "cell", "nucleus"], {}, "{cell: [object]}"),
        (("background", "value 128"), ["background", "cytoplasm"], {"cytoplasm": ["value 128"]}, None),
        (("background", "value 128"), ["background", "value 255"], {}, None),  # nobody has named any
        (("background", "cell"), ["background", "cytoplasm"], {}, None),  # all have names
        (("background", "value 128"), ["background", "value 128", "cytoplasm"], {}, None),  # all old ones go on
        (("background", "object"), ["background", "object"], {}, None),
    ],
)
def test_classes_that_have_names_in_one_run_only_are_told(
    old: tuple[str, ...], new: list[str], merge: dict[str, list[str]], said: str | None
) -> None:
    config = ModelConfig(width=4, depth=2)
    found = named_on_one_side(bundle_of(build(config, 1, 2), config, 1, old), ClassTable.from_names(new), merge)
    assert [f"finetune.merge='{said}'" in finding.remedy for finding in found] == ([True] if said else [])
    assert [("data.yaml" in finding.remedy) for finding in found] == ([new[1] == "class 1"] if said else [])


@pytest.mark.parametrize("merge", [{"vehicle": ["car", "tram"]}, {"boat": ["car"]}, {"vehicle": []}])
def test_merging_what_does_not_exist_is_refused(merge: dict[str, list[str]]) -> None:
    config = ModelConfig(width=4, depth=2)
    old, new = build(config, 1, 2), build(config, 1, 2)
    with pytest.raises(ConfigError, match=r"finetune\.merge"):
        transfer(new, bundle_of(old, config, 1, ("car", "bus")), ClassTable.from_names(("road", "vehicle")), merge)


def test_weights_of_another_network_are_refused() -> None:
    old, new = build(ModelConfig(width=4, depth=2), 1, 2), build(ModelConfig(width=8, depth=2), 1, 2)
    names = ("a", "b")
    with pytest.raises(BundleError, match="this network needs"):
        transfer(new, bundle_of(old, ModelConfig(width=4, depth=2), 1, names), ClassTable.from_names(names), {})


@pytest.mark.parametrize(
    ("what", "fixed"), [("none", ()), ("encoder", ("encoder",)), ("all_but_head", ("encoder", "decoder"))]
)
def test_what_is_frozen_stays_bit_for_bit_statistics_too(what: str, fixed: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu", devices=1)
    network = build(ModelConfig(width=4, depth=2), 1, 2)
    freeze(network, what)
    update = Update(fabric, network, TrainingConfig(learning_rate=0.1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    update.begin_training()
    for step in range(3):
        update.backward(update.network(torch.randn(2, 1, 16, 16) + 3.0).square().mean())
        update.step(step, 0.5)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not [name for name in changed if name.startswith(fixed)]
    assert {name.partition(".")[0] for name in changed} == {"encoder", "decoder", "head"} - set(fixed)


def test_levels_far_from_the_output_learn_more_slowly() -> None:
    torch.manual_seed(0)
    network = build(ModelConfig(width=4, depth=2, norm="none"), 1, 2)
    scales = rate_scales(network, 0.1)
    parts = ["head.", "decoder.", "encoder.levels.2.", "encoder.levels.1.", "encoder.levels.0."]
    for power, part in enumerate(parts):
        mine = {name for name, _ in network.named_parameters() if name.startswith(part)}
        assert mine
        assert [scales[name] for name in mine] == pytest.approx([0.1**power] * len(mine))
    assert scales.keys() == dict(network.named_parameters()).keys()
    reference, slow = _one_step(network, None), _one_step(network, scales)
    for part, power in ((network.head, 0), (network.decoder, 1)):
        names = {id(parameter) for parameter in part.parameters()}
        for name, parameter in network.named_parameters():
            if id(parameter) in names:
                torch.testing.assert_close(slow[name], reference[name] * 0.1**power)


def _one_step(network: nn.Module, scales: dict[str, float] | None) -> dict[str, torch.Tensor]:
    """How far each weight moves in a step of gradient descent; the network is put back."""
    config = TrainingConfig(learning_rate=0.1, weight_decay=0.0, optimizer="sgd", momentum=0.0, warmup_fraction=0.0)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    update = Update(Fabric(accelerator="cpu", devices=1), network, config, scales)
    generator = torch.Generator().manual_seed(0)
    update.backward(update.network(torch.randn(2, 1, 16, 16, generator=generator)).square().mean())
    update.step(0, 0.0)
    moved = {name: parameter.detach() - before[name] for name, parameter in network.named_parameters()}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(before[name])
    return moved
