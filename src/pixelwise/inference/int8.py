"""Networks in eight bits, for prediction on a processor: about twice as fast as bfloat16, at a loss that is measured.

Weights and maps become 8-bit integers, with a scale for each output feature and each map (Jacob et al., 2018). NNCF
finds the scales from tiles of training images, OpenVINO computes. What is written is OpenVINO's own format, an .xml
file and its .bin file of weights; it holds Pixelwise's description of the model, so that it is used like a bundle.
"""

import functools
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped
from pydantic import ValidationError
from torch import Tensor, nn

from pixelwise.data.cache import hash_of
from pixelwise.errors import BundleError, extra
from pixelwise.files import make_folder, write_atomically
from pixelwise.inference.predictor import Model
from pixelwise.models import bundle as bundles
from pixelwise.models.unet import border_px, coarsest_px, valid_size_px

DESCRIPTION, DIGEST = ["pixelwise", "description"], ["pixelwise", "digest"]
"""Where the .xml file holds the description, and the hash of the weights in the .bin file."""

TILES = 64
"""About so many tiles, as many of each image, show which values maps have."""

OFTEN, SIZES = 4, 4
"""Tiles of a size that come so many times get a network of their own; so many of these are kept."""

SEEN_PX = 2048
"""Edge of the middle of an image that they are taken from."""


def is_installed() -> bool:
    """Whether models can be put into eight bits here."""
    return all(find_spec(name) is not None for name in ("openvino", "nncf"))


def write(model: Model, images: Sequence[Shaped[np.ndarray, "H W C"]], path: Path) -> None:
    """Write a model in eight bits.

    Args:
        model: in float32, on the CPU.
        images: of the kind that the model was trained on, raw; their tiles show which values maps have.
        path: of the .xml file; the .bin file comes beside it.

    Raises:
        ConfigError: NNCF or OpenVINO is not installed.
        DataError: the files cannot be written, or an image does not fit the model.
    """
    openvino = _openvino()
    with extra("int8", "Eight bits need nncf"):
        import nncf
    tiles = _tiles(model, images)
    shape = [-1, tiles[0].shape[1], -1, -1]
    # without gradients, for some layers train in another way than they predict; what is traced warns of every branch
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = openvino.convert_model(model.network, example_input=torch.from_numpy(tiles[0]), input=[shape])
    # of weights seven bits are used: with eight, products overflow on processors without instructions for them (VNNI)
    portable = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
    quantised = nncf.quantize(plain, nncf.Dataset(tiles), subset_size=len(tiles), advanced_parameters=portable)
    quantised.set_rt_info(model.description.model_copy(update={"bfloat16": False}).model_dump_json(), DESCRIPTION)
    with tempfile.TemporaryDirectory() as folder:
        weights, graph = Path(folder) / "model.bin", Path(folder) / "model.xml"
        openvino.save_model(quantised, graph, compress_to_fp16=False)
        quantised.set_rt_info(_digest(weights), DIGEST)
        openvino.save_model(quantised, graph, compress_to_fp16=False)
        make_folder(path.parent)
        for written in (weights, graph):
            write_atomically(path.with_suffix(written.suffix), written.read_bytes())


def _digest(file: Path) -> str:
    return hash_of([file.read_bytes()])


def _tiles(model: Model, images: Sequence[Shaped[np.ndarray, "H W C"]]) -> list[Float32[np.ndarray, "B C h w"]]:
    """What prediction shows the network of the middle of these images, some of it."""
    tiles = []
    for image in images:
        seen = _Seen(model)
        top, left = (max(0, (edge - SEEN_PX) // 2) for edge in image.shape[:2])
        Model(seen, model.description, model.device).predict(image[top : top + SEEN_PX, left : left + SEEN_PX])
        wanted = min(len(seen.tiles), max(1, TILES // len(images)))
        tiles += [seen.tiles[place] for place in np.linspace(0, len(seen.tiles) - 1, wanted).round().astype(int)]
    return tiles


class _Seen(nn.Module):
    """Keeps what it is shown."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.tiles: list[Float32[np.ndarray, "B C h w"]] = []
        self._classes, self._border = len(model.classes), 2 * border_px(model.description.model)

    def forward(self, tiles: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        """No class anywhere."""
        self.tiles.append(np.ascontiguousarray(tiles.float().numpy()))
        return torch.zeros(len(tiles), self._classes, *(edge - self._border for edge in tiles.shape[-2:]))


class _Compiled(nn.Module):
    """A network that OpenVINO computes.

    Args:
        network: as it was read.
        digest: of the graph's file, which names the hash of the weights; it stands for these where they are asked for.
    """

    digest: Tensor

    def __init__(self, network: Any, digest: bytes) -> None:
        super().__init__()
        self.register_buffer("digest", torch.frombuffer(bytearray(digest), dtype=torch.uint8))
        self._network, self._any_size = network, _compiled(network)
        self._calls: Counter[tuple[int, ...]] = Counter()
        self._of_size: dict[tuple[int, ...], Any] = {}

    def forward(self, tiles: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        """Logits."""
        logits = self._for(tuple(tiles.shape))(np.ascontiguousarray(tiles.float().numpy()))[0]
        return torch.from_numpy(np.array(logits, dtype=np.float32))

    def _for(self, shape: tuple[int, ...]) -> Any:
        """The network for tiles of a size: compiled for that alone, which is half as fast again, if it comes often."""
        self._calls[shape] += 1
        if self._calls[shape] == OFTEN:
            network = self._network.clone()
            network.reshape(list(shape))
            self._of_size[shape] = _compiled(network)
            while len(self._of_size) > SIZES:
                del self._of_size[next(iter(self._of_size))]
        return self._of_size.get(shape, self._any_size)


def _compiled(network: Any) -> Any:
    return _core().compile_model(network, "CPU", {"PERFORMANCE_HINT": "LATENCY"})


def _blank(description: bundles.Description) -> Float32[Tensor, "1 C h w"]:
    """A tile, as small as can be."""
    config = description.model
    edge = valid_size_px(config, 2 * coarsest_px(config) if config.padded else 1)
    return torch.zeros(1, description.preprocessing.channels, edge, edge)


def _openvino() -> Any:
    """The library, without the statistics of use that it and NNCF would send to their authors.

    Raises:
        ConfigError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # both do without it
    with extra("int8", "Eight bits need openvino"):
        import openvino
    return openvino


@functools.cache
def _core() -> Any:
    """The engine, one for the life of the process.

    When the last one goes, its library is unloaded, and the next signal is handled on a stack that went with it.
    """
    return _openvino().Core()


def load(path: Path) -> Model:
    """A model in eight bits, on the CPU.

    Raises:
        ConfigError: OpenVINO is not installed.
        BundleError: this is no such model, or it is damaged.
    """
    weights = path.with_suffix(".bin")
    missing = [file for file in (path, weights) if not file.is_file()]
    if missing:
        raise BundleError("There is no model here.", where=missing[0], remedy="Both .xml and .bin file are needed.")
    engine = _core()
    try:
        network = engine.read_model(path)
        description = bundles.Description.model_validate_json(network.get_rt_info(DESCRIPTION).astype(str))
        fits = network.get_rt_info(DIGEST).astype(str) == _digest(weights)
        compiled = _Compiled(network, bytes.fromhex(_digest(path)))
        fits &= compiled(_blank(description)).shape[1] == len(description.classes)
    except (RuntimeError, ValidationError) as error:
        raise BundleError(
            f"This is not a model that Pixelwise has written ({str(error).strip().splitlines()[-1]}).",
            where=path,
            remedy="`pixelwise quantise RUN` writes one.",
        ) from None
    if not fits:
        raise BundleError(
            "This model is damaged: graph, weights and description do not belong together.",
            where=path,
            remedy="Write it again with `pixelwise quantise RUN`, and keep both files together.",
        )
    return Model(compiled, description, torch.device("cpu"))
