"""Images that are too large to be decoded whole, as cases: cut into pieces, each of which is a case of its own.

A piece is read by windows, so that nothing that looks at cases needs more memory than a piece takes. The pieces of an
image are a group, which a split keeps on one side.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from pixelwise.data import formats, windows
from pixelwise.data.dataset import Case
from pixelwise.errors import DataError

PIECE_PX = 4096
"""No edge of a piece is longer."""

FEWEST_IMAGES = 3
"""Of fewer images, a split that kept their pieces together would leave a side without any."""


def cut(case: Case) -> list[Case]:
    """The pieces of a case; the case itself where its image is not large, or its file allows no windows."""
    try:
        info = formats.read_info(case.image)
        if case.channels or not (windows.is_large(info) and windows.allows_windows(case.image, case.page)):
            return [case]
    except DataError:  # the check of the data says so
        return [case]
    rows, columns = (_edges(edge) for edge in (info.height, info.width))
    group = case.group or case.name
    return [
        replace(case, name=f"{case.name}/{down}-{right}", window=(top, left, bottom - top, end - left), group=group)
        for down, (top, bottom) in enumerate(pairwise(rows))
        for right, (left, end) in enumerate(pairwise(columns))
    ]


def _edges(length: int) -> list[int]:
    count = -(-length // PIECE_PX)
    return [round(number * length / count) for number in range(count + 1)]


def ungrouped_if_few(cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
    """Pieces of only a few images may lie on different sides; a sentence says so."""
    images = {case.image for case in cases}
    if len(images) >= FEWEST_IMAGES or all(case.window is None for case in cases):
        return list(cases), []
    said = (
        f"There {'is one image' if len(images) == 1 else f'are {len(images)} images'}, cut into {len(cases)} pieces, "
        "which may lie on different sides of the split: scores say how well a model does within these images."
    )
    return [case if case.window is None else replace(case, group="") for case in cases], [said]
