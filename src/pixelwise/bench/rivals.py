"""Other programs at the same work, run by a Python that has them: `python rivals.py training` prints JSON.

This file runs in an environment of its own, which `make bench-rivals` makes. A rival that is not installed, or that
does not start, is told on standard error and left out. Each is used as its own documentation and its own code do.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from pixelwise.bench import sizes
from pixelwise.memory import held_bytes, peak_during
from pixelwise.timing import Timing, timed

CPU = torch.device("cpu")

LEFT_OUT = "a rival is left out: "
"""How a line begins that says why."""


@dataclass(frozen=True)
class Entry:
    """One rival at one figure."""

    figure: str
    """How the names of the figures begin that Pixelwise has of this work."""
    rival: str
    timing: Timing
    peak_bytes: int | None = None
    """Memory that the work took at most beyond what was held before."""


class Block(nn.Sequential):
    """Two convolutions, each normalised and followed by ReLU."""

    def __init__(self, features_in: int, features: int) -> None:
        layers: list[nn.Module] = []
        for count in (features_in, features):
            layers += [nn.Conv2d(count, features, 3, padding=1, bias=False), nn.BatchNorm2d(features), nn.ReLU(True)]  # noqa: FBT003
        super().__init__(*layers)


class UsualUNet(nn.Module):
    """A U-Net as most repositories write it, from torch's own layers."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(map(Block, [sizes.CHANNELS, *widths[:-1]], widths))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.merge = nn.ModuleList(Block(2 * features, features) for features in widths[-2::-1])
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(width, sizes.CLASSES, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits."""
        skips = [self.down[0](image)]
        for block in self.down[1:]:
            skips.append(block(self.pool(skips[-1])))
        current = skips.pop()
        for up, block in zip(self.up, self.merge, strict=True):
            current = block(torch.cat([skips.pop(), up(current)], dim=1))
        logits: torch.Tensor = self.head(current)
        return logits


def _usual(width: int, depth: int) -> nn.Module:
    """Channels-last in float32, which is what the scripts that think of speed use on a CPU."""
    return UsualUNet(width, depth).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _monai(width: int, depth: int) -> nn.Module:
    from monai.networks.nets.basic_unet import BasicUNet

    features = tuple(width * 2**level for level in range(depth + 1))
    network: nn.Module = BasicUNet(2, sizes.CHANNELS, sizes.CLASSES, (*features, width))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _nnunet(width: int, depth: int, *, deep_supervision: bool = False) -> nn.Module:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    levels = depth + 1
    network: nn.Module = PlainConvUNet(
        sizes.CHANNELS, levels, tuple(min(width * 2**level, 512) for level in range(levels)), nn.Conv2d, 3,
        (1, *[2] * (levels - 1)), (2,) * levels, sizes.CLASSES, (2,) * (levels - 1), conv_bias=True,
        norm_op=nn.InstanceNorm2d, norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True}, deep_supervision=deep_supervision,
    )  # fmt: skip
    return network


def training() -> Iterator[Callable[[], Entry]]:
    """Steps of training."""
    yield lambda: _plain_training(f"PyTorch {version('torch')}, float32, channels-last", _usual)
    yield lambda: _plain_training(f"MONAI {version('monai')}, BasicUNet", _monai)
    yield _nnunet_training


def _plain_training(rival: str, make: Callable[[int, int], nn.Module]) -> Entry:
    """Forward, cross-entropy and Dice, backward, clipping and update, as in the scripts that people start from."""
    network = make(sizes.PLAIN_WIDTH, sizes.PLAIN_DEPTH).train()
    optimizer = torch.optim.AdamW(network.parameters())
    image, mask = _batch()

    def step() -> None:
        logits = network(image)
        probability = logits.softmax(1)[:, 1]
        overlap = (2 * (probability * mask).sum() + 1e-6) / (probability.sum() + mask.sum() + 1e-6)
        loss = nn.functional.cross_entropy(logits, mask) + 1 - overlap
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return Entry("training step, plain U-Net", rival, timed(step, CPU, at_least=sizes.STEPS_AT_LEAST))


def _nnunet_training() -> Entry:
    """Its own network, loss, optimiser and step."""
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    network = _nnunet(32, 6, deep_supervision=True).train()
    levels = 6
    weights = np.array([0.5**level for level in range(levels - 1)] + [0.0])
    dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)
    trainer = SimpleNamespace(
        device=CPU, network=network, loss=DeepSupervisionWrapper(loss, weights / weights.sum()), grad_scaler=None,
        optimizer=torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True),
    )  # fmt: skip
    image, mask = _batch(torch.contiguous_format)
    targets = [mask[:, None, :: 2**level, :: 2**level] for level in range(levels)]
    batch = {"data": image, "target": targets}
    timing = timed(lambda: nnUNetTrainer.train_step(trainer, batch), CPU, at_least=sizes.STEPS_AT_LEAST)
    return Entry("training step, nnU-Net's network", f"nnU-Net {version('nnunetv2')}", timing)


def inference() -> Iterator[Callable[[], Entry]]:
    """Logits of a batch."""
    yield lambda: _inference(f"PyTorch {version('torch')}, float32, channels-last", _usual)
    yield lambda: _inference(f"MONAI {version('monai')}, BasicUNet", _monai)


def _inference(rival: str, make: Callable[[int, int], nn.Module]) -> Entry:
    network = make(sizes.PLAIN_WIDTH, sizes.PLAIN_DEPTH).eval()
    image, _ = _batch()
    predict = torch.inference_mode()(lambda: network(image))
    return Entry("inference, plain U-Net", rival, timed(predict, CPU, at_least=sizes.STEPS_AT_LEAST))


def large_image() -> Iterator[Callable[[], Entry]]:
    """One image in blended tiles."""
    yield _monai_large
    yield _nnunet_large


def _monai_large() -> Entry:
    from monai.inferers.utils import sliding_window_inference

    network = _monai(sizes.LARGE_WIDTH, sizes.LARGE_DEPTH).eval().requires_grad_(requires_grad=False)
    image = torch.randn(1, sizes.CHANNELS, sizes.LARGE_PX, sizes.LARGE_PX)
    tile = (sizes.TILE_PX, sizes.TILE_PX)

    network(image[..., : sizes.TILE_PX, : sizes.TILE_PX])  # what is allocated once, and not for the image

    @torch.inference_mode()
    def predict() -> None:
        logits = sliding_window_inference(image, tile, 1, network, overlap=sizes.OVERLAP, mode="gaussian")
        torch.as_tensor(logits).argmax(1)

    return _once(f"MONAI {version('monai')}, sliding_window_inference", predict)


def _nnunet_large() -> Entry:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(sizes.OVERLAP, True, False, False, CPU, False, False, False)  # noqa: FBT003
    predictor.network = _nnunet(sizes.LARGE_WIDTH, sizes.LARGE_DEPTH).eval()
    predictor.configuration_manager = SimpleNamespace(patch_size=(sizes.TILE_PX, sizes.TILE_PX))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=sizes.CLASSES)
    image = torch.randn(sizes.CHANNELS, 1, sizes.LARGE_PX, sizes.LARGE_PX)
    with torch.inference_mode():  # what is allocated once, and not for the image
        predictor.network(image[None, :, 0, : sizes.TILE_PX, : sizes.TILE_PX])

    def predict() -> None:
        predictor.predict_sliding_window_return_logits(image).argmax(0)

    return _once(f"nnU-Net {version('nnunetv2')}, nnUNetPredictor", predict)


def _once(rival: str, predict: Callable[[], None]) -> Entry:
    """Minutes of work: measured once."""
    before, seconds = held_bytes(), []
    peak = peak_during(lambda: seconds.append(_seconds(predict)))
    return Entry(
        f"{sizes.LARGE_PX} x {sizes.LARGE_PX} pixels in tiles", rival,
        Timing(seconds[0], seconds[0], seconds[0], 1), peak - before,
    )  # fmt: skip


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def samples() -> Iterator[Callable[[], Entry]]:
    """Training samples from images of `IMAGE_PX`."""
    yield lambda: _albumentations("geometry first, then crop", crop_first=False)
    yield lambda: _albumentations("crop first, with border artefacts", crop_first=True)


def _albumentations(how: str, *, crop_first: bool) -> Entry:
    import albumentations as A  # noqa: N812  its own custom

    crop = [A.RandomCrop(sizes.PATCH_PX, sizes.PATCH_PX, p=1.0)]
    geometry = [
        A.HorizontalFlip(p=0.5),
        A.VerticalFlip(p=0.5),
        A.Affine(scale=(0.7, 1.4), rotate=(-180, 180), shear=(-5, 5), p=1.0),
        A.ElasticTransform(alpha=120, sigma=6, p=1.0),
    ]
    colour = [
        A.RandomBrightnessContrast(p=1.0),
        A.RandomGamma(p=1.0),
        A.GaussianBlur(sigma_limit=(0.0, 1.0), p=1.0),
        A.GaussNoise(p=1.0),
        A.Normalize(),
    ]
    pipeline = A.Compose([*crop, *geometry, *colour] if crop_first else [*geometry, *crop, *colour])
    generator = np.random.default_rng(0)
    edge = (sizes.IMAGE_PX, sizes.IMAGE_PX)
    image = generator.integers(0, 256, (*edge, sizes.CHANNELS), dtype=np.uint8)
    mask = generator.integers(0, sizes.CLASSES, edge, dtype=np.uint8)

    def draw() -> None:
        drawn = [pipeline(image=image, mask=mask) for _ in range(sizes.BATCH)]
        torch.from_numpy(np.stack([one["image"] for one in drawn]).transpose(0, 3, 1, 2))

    rival = f"albumentations {version('albumentations')}, {how}"
    return Entry("sample, augmented", rival, timed(draw, CPU, at_least=sizes.SAMPLES_AT_LEAST))


def start() -> Iterator[Callable[[], Entry]]:
    """Importing each, and the help of the one that has a command."""
    for name, package in (("monai", "MONAI"), ("nnunetv2.training.nnUNetTrainer.nnUNetTrainer", "nnU-Net")):
        yield lambda name=name, package=package: _run("import", f"{package}", [sys.executable, "-c", f"import {name}"])  # type: ignore[misc]
    script = "from nnunetv2.run.run_training import run_training_entry as run; run()"
    yield lambda: _run("pixelwise --help", "nnUNetv2_train --help", [sys.executable, "-c", script, "--help"])


def _run(figure: str, rival: str, command: list[str]) -> Entry:
    def once() -> None:
        subprocess.run(command, capture_output=True, check=True)  # noqa: S603  our own commands

    return Entry(figure, rival, timed(once, CPU))


def _batch(laid: torch.memory_format = torch.channels_last) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (sizes.BATCH, sizes.CHANNELS, sizes.PATCH_PX, sizes.PATCH_PX)
    mask = torch.randint(0, sizes.CLASSES, (sizes.BATCH, sizes.PATCH_PX, sizes.PATCH_PX))
    return torch.randn(shape).contiguous(memory_format=laid), mask


RIVALS: dict[str, Callable[[], Iterator[Callable[[], Entry]]]] = {
    "training": training,
    "inference": inference,
    "large image": large_image,
    "samples": samples,
    "start": start,
}
"""By the names of `figures.FIGURES`; small networks are measured on a GPU only, where rivals are not."""


def main(name: str) -> None:
    """Print what the rivals at one kind of work take, one JSON object per line."""
    for measure in RIVALS[name]():
        try:
            entry: Any = asdict(measure())
        except Exception as error:  # noqa: BLE001  whatever is wrong with it, the others are measured
            sys.stderr.write(f"{LEFT_OUT}{type(error).__name__}: {error}\n")
            continue
        sys.stdout.write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
