"""A network that knows how to be used: from an image to a mask."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from jaxtyping import Float, Float32, Shaped, UInt8
from torch import Tensor, nn

from pixelwise import launcher
from pixelwise.classes import IGNORE, ClassTable
from pixelwise.config import Flips, PredictionConfig
from pixelwise.data.cache import hash_of
from pixelwise.data.preprocess import (
    Moments,
    Prepared,
    loadable,
    moments,
    normalise,
    refuse_other_range,
    resize_image,
    scaling,
)
from pixelwise.data.transfer import to_device
from pixelwise.data.windows import Source, is_empty, row_bands
from pixelwise.errors import ConfigError, DataError, memory_errors
from pixelwise.inference.postprocess import without_small_objects
from pixelwise.inference.tiles import (
    Band,
    Region,
    Tiling,
    Windows,
    bands,
    blocks,
    column_bytes,
    enlarged,
    once_per_value,
)
from pixelwise.memory import keeping_freed_memory
from pixelwise.models import bundle as bundles
from pixelwise.models import strips
from pixelwise.models.blocks import folded, has_bfloat16, rounded
from pixelwise.models.unet import border_px, coarsest_px, valid_size_px

BAND_BYTES = 400_000_000
"""What bands of probabilities may take while a mask is made: many classes and wide images would fill the memory."""

TILE_PIXELS_PER_CALL = 512 * 512
"""Tiles are batched up to so many pixels on a GPU; on a CPU one at a time is as fast."""


@dataclass(frozen=True)
class View:
    """One of the eight ways to lay a square: turned over its diagonal or not, then along some axes."""

    axes: tuple[int, ...]
    is_transposed: bool = False

    def of(self, tiles: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C i j"]:
        """Tiles, laid so."""
        return (tiles.transpose(-1, -2) if self.is_transposed else tiles).flip(self.axes)

    def back(self, result: Float[Tensor, "B K i j"]) -> Float[Tensor, "B K h w"]:
        """What was laid so, as it was before."""
        straight = result.flip(self.axes)
        return straight.transpose(-1, -2) if self.is_transposed else straight


HORIZONTAL = (View((-1,)),)
BOTH = (*HORIZONTAL, View((-2,)), View((-2, -1)))
ROTATIONS = (*BOTH, *(View(axes, is_transposed=True) for axes in ((), (-1,), (-2,), (-2, -1))))

FLIPS: dict[str, tuple[View, ...]] = {"none": (), "horizontal": HORIZONTAL, "both": BOTH, "rotations": ROTATIONS}
"""The views that are predicted beside the image itself, by the name in `PredictionConfig.flips`."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image, at the image's own size."""

    mask: UInt8[np.ndarray, "H W"]
    """The most probable class of every pixel."""
    classes: ClassTable
    """What the numbers mean."""
    probabilities: Float32[np.ndarray, "K H W"] | None = None
    """Summing to 1 over K; only on request."""


class Model:
    """A network with its preprocessing, classes and tiles.

    Args:
        network: from normalised images B C H W to logits B K h w; called under bfloat16 autocast where the description
            says so.
        description: how to use it.
        device: where to compute.
    """

    def __init__(self, network: nn.Module, description: bundles.Description, device: torch.device) -> None:
        self.network = network
        self.description = description
        self.device = device

    @property
    def classes(self) -> ClassTable:
        """Names and colours by class index."""
        return self.description.classes

    @cached_property
    def identity(self) -> str:
        """A hash of all that a prediction depends on: weights, description, and the version of this program."""
        weights = {name: tensor.cpu() for name, tensor in self.network.state_dict().items()}
        parts = (version("pixelwise"), self.description.model_dump_json(), bundles.hash_of_tensors(weights))
        return hash_of(part.encode() for part in parts)

    def with_prediction(self, prediction: PredictionConfig) -> "Model":
        """The same model, predicting with other tiles."""
        return Model(self.network, self.description.model_copy(update={"prediction": prediction}), self.device)

    def with_flips(self, flips: Flips | None) -> "Model":
        """The same model, averaging over these views; none leaves it with those that it was told."""
        if flips is None:
            return self
        return self.with_prediction(self.description.prediction.model_copy(update={"flips": flips}))

    def keeping_memory(self) -> AbstractContextManager[None]:
        """Within, freed memory stays with the process as suits the way in which the network computes."""
        in_strips = self.device.type == "cpu" and any(strips.is_local(block) for block in self.network.modules())
        return keeping_freed_memory(strips.LARGE_BYTES if in_strips else None)

    def predict(
        self, image: Shaped[np.ndarray, "..."], *, probabilities: bool = False, nodata: float | None = None
    ) -> Prediction:
        """The mask of an image of any size.

        Args:
            image: raw values as they come from a file, in the range the model was trained on: H W C, or H W if grey.
            probabilities: also return the probability of every class at every pixel (float32, K H W).
            nodata: the value of pixels that hold nothing, in all channels; they become IGNORE in the mask, and the
                network sees the mean in their place.

        Raises:
            DataError: the array is no image, holds values that are not finite, or has other channels than the model.
        """
        if not isinstance(image, np.ndarray):
            raise DataError(
                f"This is {type(image).__name__}, not an image.",
                remedy="Give a numpy array, numpy.asarray(PIL.Image.open(path)); pixelwise.predict_files takes files.",
            )
        height, width = image.shape[:2] if image.ndim > 1 else (0, 0)
        mask = np.empty((height, width), dtype=np.uint8)
        kept = np.empty((len(self.classes), height, width), dtype=np.float32) if probabilities else None
        for band in self.bands(image, nodata, BAND_BYTES):
            mask[band.place] = band.labels()
            if kept is not None:
                kept[:, *band.place] = band.probabilities.float().cpu().numpy()
        if nodata is not None:
            mask[is_empty(image if image.ndim == 3 else image[:, :, None], nodata)] = IGNORE
        return Prediction(self.cleaned(mask), self.classes, kept)

    def bands(self, image: Source, nodata: float | None = None, most_bytes: int | None = None) -> Iterator[Band]:
        """Probabilities part by part, at the image's own size; errors as for `predict`.

        Args:
            image: as for `predict`; of one that is no array, windows are read as they are needed.
            nodata: as for `predict`.
            most_bytes: the image is cut into blocks of columns, one after the other, which take no more; none
                does not cut it.
        """
        ready = self.prepare(image, nodata)
        resize = self.description.preprocessing.resize
        if resize is None or resize == ready.shape[:2]:
            size = (ready.shape[0], ready.shape[1])
            yield from self.regions(ready, self.moments(ready), self._cut(size, most_bytes))
        else:
            # the small result is held; the large one leaves in bands
            seen = resize_image(ready[:, :], resize)
            small = torch.empty((len(self.classes), *resize), device=self.device)
            for band in self.regions(seen, self.moments(seen)):
                small[:, *band.place] = band.probabilities
            yield from enlarged(small, (ready.shape[0], ready.shape[1]))

    def _cut(self, size: tuple[int, int], most_bytes: int | None) -> list[Region]:
        tiling = self.tiling(size)
        column = column_bytes(tiling, len(self.classes), kept_bytes=1)
        return blocks(size, tiling, most_bytes // column) if most_bytes is not None else [Region.whole(size)]

    def prepare(self, image: Source, nodata: float | None = None) -> Prepared:
        """The image with the type and channels that the network takes, its values looked at.

        Raises:
            DataError: as for `predict`.
        """
        if len(image.shape) not in {2, 3} or 0 in image.shape or image.dtype.kind not in "uif":
            raise DataError(
                f"An array of shape {image.shape} and type {image.dtype} is not an image.",
                remedy="Give numbers as height x width x channels.",
            )
        channels_last = image[:, :][:, :, None] if len(image.shape) == 2 else image
        ready = Prepared(channels_last, self.description.preprocessing.channels, nodata)
        if nodata is not None:
            mean, _ = self.moments(ready)
            ready = replace(ready, fill=tuple(mean))
        _refuse_infinite(ready)
        refuse_other_range(ready, self.description.preprocessing)
        return ready

    def moments(self, seen: Source) -> Moments:
        """Mean and deviation that windows are normalised by: as in training, of what the network sees."""
        return moments(seen, self.description.preprocessing)

    def regions(self, seen: Source, by: Moments, regions: Sequence[Region | None] = (None,)) -> Iterator[Band]:
        """Probabilities of what the network sees, region after region, each from top to bottom.

        Args:
            seen: of the type and channels that `prepare` gives.
            by: its `moments`.
            regions: parts of the image; none is all of it.
        """

        def predict(windows: Windows) -> Float[Tensor, "B K H W"]:
            raw = to_device(torch.from_numpy(loadable(np.stack(windows))), self.device)
            results: Tensor = self._probabilities(normalise(raw, factors))
            return results

        factors = to_device(torch.from_numpy(scaling(*by)), self.device)
        tiling = self.tiling((seen.shape[0], seen.shape[1]))
        remembering = once_per_value(predict)
        for region in regions:
            yield from bands(seen, remembering, tiling, region)

    @torch.inference_mode()
    def _probabilities(self, tiles: Float[Tensor, "B C h w"]) -> Float[Tensor, "B K H W"]:
        views = FLIPS[self.description.prediction.flips]
        turned = sum(view.back(self._softmax(view.of(tiles))) for view in views)
        straight = self._softmax(tiles)  # last: an encoder of somebody else's may change what it is given
        mean = (turned + straight) / (1 + len(views)) if views else straight
        factors = self.description.postprocessing.class_factors
        if factors is None:
            return mean
        weighed = mean * torch.tensor(factors, device=mean.device)[:, None, None]
        return weighed / weighed.sum(dim=1, keepdim=True)

    def cleaned(self, mask: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
        """A finished mask, without objects that are too small."""
        smallest = self.description.postprocessing.smallest_px
        return without_small_objects(mask, smallest) if smallest is not None else mask

    def _softmax(self, tiles: Float[Tensor, "B C h w"]) -> Float[Tensor, "B K H W"]:
        ready = tiles.contiguous(memory_format=torch.channels_last)
        too_large = memory_errors("Use smaller tiles: --set prediction.tile_size=256 in training, or --device cpu.")
        with too_large, torch.autocast(self.device.type, torch.bfloat16, enabled=self.description.bfloat16):
            logits = self.network(ready)
        return F.softmax(logits.float(), dim=1)

    def tiling(self, image_size: tuple[int, int]) -> Tiling:
        """Tiles no larger than needed: an image that fits one is one tile."""
        config, model = self.description.prediction, self.description.model
        wanted = config.tile_size or tuple(2 * edge for edge in self.description.patch_size)
        border = border_px(model)
        # two places of the coarsest map at least: a normalisation of a single one has nothing to divide by; and a tile
        # reaches to the next, which begins at a multiple of such a place
        least = (2 if model.padded else 1) * coarsest_px(model)
        edges = [
            valid_size_px(model, max(min(tile, image), least) + 2 * border) - 2 * border
            for tile, image in zip(wanted, image_size, strict=True)
        ]
        tiled = any(image > edge for image, edge in zip(image_size, edges, strict=True))
        per_call = 1 if self.device.type == "cpu" else max(1, TILE_PIXELS_PER_CALL // (edges[0] * edges[1]))
        return Tiling(
            tile_size=(edges[0], edges[1]),
            border_px=border,
            margin_px=round(min(edges) * config.overlap / 4) if tiled and not border else 0,
            align_px=coarsest_px(model),
            overlap=config.overlap,
            blend=config.blend,
            batch_size=per_call,
        )


def _refuse_infinite(image: Source) -> None:
    """Every comparison with nan is false, so that such pixels would become class 0 without a word."""
    if image.dtype.kind != "f":
        return
    count = sum(int((~np.isfinite(band)).sum()) for band in row_bands(image))
    if count:
        raise DataError(
            f"{count} values of the image are not finite (nan or infinite, or too large for float32).",
            remedy="Replace them, for instance by the mean of their neighbours, before predicting.",
        )


def load(path: Path | str, device: str = "auto") -> Model:
    """A model from a bundle or from a run folder.

    Args:
        path: a `.safetensors` file, or the folder of a run, whose best model is taken.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        BundleError: there is no bundle, or it is damaged.
        ConfigError: there is no such device.
    """
    return of_bundle(bundles.load(Path(path)), device)


def of_bundle(bundle: bundles.Bundle, device: str = "auto") -> Model:
    """A model from the content of a bundle.

    Args:
        bundle: weights and description.
        device: as for `load`.

    Raises:
        ConfigError: there is no such device.
    """
    chosen = choose_device(device)
    description = bundle.description
    if not has_bfloat16(chosen):
        description = description.model_copy(update={"bfloat16": False})
    quick = folded(bundle.network())
    network = (rounded(quick) if description.bfloat16 else quick).to(chosen, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Model(network, description, chosen)


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` takes a GPU where there is one.

    Raises:
        ConfigError: there is no such device here.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = next(kind for kind in ("cuda", "mps", "cpu") if available[kind]) if name == "auto" else name
    if not available.get(kind, False):
        here = " or ".join(kind for kind in available if available[kind])
        raise ConfigError(f"There is no device '{name}' here.", remedy=f"The device can be auto or {here}.")
    place = launcher.place()
    if kind != "cuda" or place.by is None or place.local is None or torch.cuda.device_count() < 2:
        return torch.device(kind)
    number = place.local.rank  # torchrun and srun start one process for each GPU of a machine
    if number >= torch.cuda.device_count():
        raise ConfigError(
            f"This is process {number} of its machine, which has {torch.cuda.device_count()} GPUs.",
            remedy="Start one process per GPU.",
        )
    return torch.device(kind, number)
