"""Images whose channels are files of their own, as nnU-Net keeps them: NAME_0000.png, NAME_0001.png and so on."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from pixelwise.data import formats
from pixelwise.data.naming import NNUNET_IMAGES
from pixelwise.errors import DataError

_NUMBER = re.compile(r"_(\d{4})$")


def is_further(stem: str, folder: str) -> bool:
    """Whether a file in this folder holds a channel beside the first one of its image."""
    number = _NUMBER.search(stem)
    return folder.lower() in NNUNET_IMAGES and number is not None and int(number[1]) > 0


def before(stem: str) -> str:
    """The stem of the channel before this one."""
    return _NUMBER.sub(lambda number: f"_{int(number[1]) - 1:04d}", stem)


def first_of(stem: str) -> str:
    """The stem of the file with the first channel."""
    return _NUMBER.sub("_0000", stem)


def further(image: Path) -> tuple[Path, ...]:
    """The files with the other channels of an image, in their order; none where it has no others.

    Args:
        image: the file with the first channel.
    """
    stem, _ = formats.split_name(image.name)
    if image.parent.name.lower() not in NNUNET_IMAGES or not stem.endswith("_0000"):
        return ()
    spelled, base = image.name[len(stem) :], stem.removesuffix("_0000")  # the suffix as the file has it: .PNG
    paths = (image.with_name(f"{base}_{number:04d}{spelled}") for number in itertools.count(1))
    return tuple(itertools.takewhile(Path.exists, paths))


def read(image: Path, others: Sequence[Path], page: int | None = None) -> Shaped[np.ndarray, "H W C"]:
    """An image with all its channels.

    Args:
        image: the file with the first of them.
        others: as `further` gives them.
        page: as for `formats.read_image`.

    Raises:
        DataError: a file cannot be read, or they are not equally large.
    """
    parts = [formats.read_image(path, page) for path in (image, *others)]
    for path, part in zip(others, parts[1:], strict=True):
        if part.shape[:2] != parts[0].shape[:2]:
            height, width = part.shape[:2]
            raise DataError(
                f"This channel has {width} x {height} pixels (width x height), the first one "
                f"{parts[0].shape[1]} x {parts[0].shape[0]}.",
                where=path,
                remedy="All channels of an image are equally large.",
            )
    return np.concatenate(parts, axis=2) if others else parts[0]
