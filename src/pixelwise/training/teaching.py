"""Learn from another model beside the masks, such as one network of the size of each from an ensemble of several.

Hinton, Vinyals and Dean (*Distilling the Knowledge in a Neural Network*, 2015), pixel by pixel, at a temperature of 1.
The teacher looks at each training image once. What it says is warped with the mask, so that a step costs what it costs
without a teacher.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pixelwise.classes import ClassTable
from pixelwise.config import Config
from pixelwise.data import npy
from pixelwise.data.cache import Decoded, hash_of, store, to_npy
from pixelwise.data.loader import Told
from pixelwise.errors import BundleError, ConfigError, DataError
from pixelwise.inference.predictor import BAND_BYTES, Model
from pixelwise.models.bundle import Bundle
from pixelwise.training.finetune import SHAPE

KEPT = 3
"""Of each pixel, so many of the most probable classes are kept; what the others have is spread evenly over them."""

STEPS = 255
"""Probabilities are kept in so many steps."""

LAYOUT_VERSION = 2
"""Raised when the content of the files changes."""


def refuse_own_augmentation(config: Config) -> None:
    """Where a teacher looks at each image once, images cannot be augmented in a way of the user's own.

    Raises:
        ConfigError: they are to be.
    """
    if config.augment.own is not None:
        raise ConfigError(
            f"'augment.own' is {config.augment.own}, and a teacher looks at each image once, before it is augmented.",
            remedy="Leave augment.own or --teacher out: nobody knows what it would do to what the teacher said.",
        )


def adopt_network(config: Config, teacher: Bundle, classes: ClassTable) -> Config:
    """The settings, with a network like one of the teacher's where the caller leaves it free.

    Raises:
        BundleError: the teacher has other classes.
    """
    said, given = teacher.description, config.given()
    if said.classes.names != classes.names:
        raise BundleError(
            f"The teacher knows {', '.join(said.classes.names)}; this data has {', '.join(classes.names)}.",
            where=teacher.path,
            remedy="A teacher has the same classes in the same order: name them alike in a data.yaml.",
        )
    network = {f"model.{name}": getattr(said.model, name) for name in SHAPE}
    seen = {"data.resize": said.preprocessing.resize, "data.normalisation": said.preprocessing.normalisation}
    return config.with_values({key: value for key, value in (network | seen).items() if key not in given})


@dataclass(frozen=True)
class Teacher:
    """A model that says how probable every class is, once for each image; what it says is kept in files.

    Args:
        model: predicts as it does for `predict`, with its own normalisation, tiles and flips.
        folder: where the files lie; it may be deleted at any time.
    """

    model: Model
    folder: Path

    def open_all(self, cases: Sequence[Decoded], progress: Callable[[int, int], None] | None = None) -> list[Told]:
        """What it says of each case, as `packed` gives it; `progress` is told how many of how many are done.

        Raises:
            DataError: an image does not fit the model, or a file cannot be written.
        """
        opened: list[Told] = []
        for case in cases:
            opened.append(self._open(case))
            if progress is not None:
                progress(len(opened), len(cases))
        return opened

    def has_seen(self, case: Decoded) -> bool:
        """Whether a file holds what it says of a case; damaged it holds nothing."""
        try:
            npy.mapped(self._file(case))
        except (OSError, ValueError, EOFError):
            return False
        return True

    def _open(self, case: Decoded) -> Told:
        if not self.has_seen(case):
            store({self._file(case): to_npy(self._say(case))})
        return partial(npy.mapped, self._file(case))

    def _file(self, case: Decoded) -> Path:
        parts = (str(LAYOUT_VERSION), case.digest, self.model.identity)
        key = hash_of(part.encode() for part in parts)
        return self.folder / key[:2] / f"{key}.told.npy"

    def _say(self, case: Decoded) -> UInt8[np.ndarray, "H W N"]:
        try:
            bands = self.model.bands(case.image, most_bytes=BAND_BYTES)
            parts = [(band.place, packed(band.probabilities)) for band in bands]
        except DataError as error:
            raise DataError(error.what, where=case.case.image, remedy=error.remedy) from None
        said = np.empty((*case.size, parts[0][1].shape[2]), dtype=np.uint8)
        for place, part in parts:
            said[place] = part
        return said


def told_bytes(classes: int) -> int:
    """What `packed` makes of a pixel: two bytes for each class that is kept."""
    return 2 * min(KEPT, max(1, classes - 1))  # the last one has what is left


def packed(probabilities: Float[Tensor, "K h w"]) -> UInt8[np.ndarray, "h w N"]:
    """The most probable classes of each pixel, and then how probable they are, in 1 / `STEPS`."""
    kept = told_bytes(len(probabilities)) // 2
    shares, numbers = probabilities.float().topk(kept, dim=0)
    both = torch.cat([numbers, (shares * STEPS).round()]).to(torch.uint8)
    return both.permute(1, 2, 0).cpu().numpy()


def unpacked(said: UInt8[Tensor, "B N h w"], classes: int) -> Float[Tensor, "B K h w"]:
    """Probabilities, within 1 / `STEPS` for the classes that were kept, summing to 1 over K."""
    kept = said.shape[1] // 2
    numbers, shares = said[:, :kept].long(), said[:, kept:].float() / STEPS
    rest = (1.0 - shares.sum(1, keepdim=True)).clamp_min(0.0) / max(1, classes - kept)
    full = rest.expand(-1, classes, -1, -1).scatter(1, numbers, shares)
    return full / full.sum(1, keepdim=True)
