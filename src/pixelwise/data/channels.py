"""Images whose channels are files of their own, as nnU-Net keeps them: NAME_0000.png, NAME_0001.png and so on."""

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


def first_of(stem: str) -> str:
    """The stem of the file with the first channel."""
    return _NUMBER.sub("_0000", stem)


def further(image: Path) -> tuple[Path, ...]:
    """The files with the other channels of an image, in their order; none where it has no others.

    Args:
        image: the file with the first channel.

    Raises:
        DataError: one of them is missing in between.
    """
    stem, suffix = formats.split_name(image.name)
    if image.parent.name.lower() not in NNUNET_IMAGES or not stem.endswith("_0000"):
        return ()
    spelled = image.name[len(stem) :]  # as the file has it: .PNG
    base = stem.removesuffix("_0000")
    beside = [path for path in image.parent.iterdir() if path.name.startswith(f"{base}_") and path != image]
    found = {path.name: path for path in beside if formats.split_name(path.name)[1] == suffix}
    numbers = sorted(
        int(number[1])
        for name in found
        if (number := _NUMBER.search(formats.split_name(name)[0])) and name == f"{base}_{number[1]}{spelled}"
    )
    if numbers != list(range(1, len(numbers) + 1)):
        missing = next(number for number in range(1, numbers[-1]) if number not in numbers)
        raise DataError(
            f"Of the channels of this image, number {missing} is missing ({base}_{missing:04d}{spelled}).",
            where=image,
            remedy="Add the file, or take away those of later channels in all images.",
        )
    return tuple(found[f"{base}_{number:04d}{spelled}"] for number in numbers)


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
