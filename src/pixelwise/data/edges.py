"""Masks in colour: which colours are classes, and which ones smoothing left at edges."""

from collections.abc import Sequence

import numpy as np

from pixelwise.data.masks import unpack_color
from pixelwise.data.survey import Survey, centres_of, share_near, solid

_SHADE = 24.0
"""Colours that are no farther apart in RGB may be shades of one."""
_STEP = 4.0
"""Colours that are no farther apart are neighbours on a slope."""
_SERIES = 8
"""So many colours between others are a slope, and no classes."""
_TINY_SHARE = 1e-3
_LEAST_SHOWN = 0.2
"""Of a photograph, all colours that might be classes together take less."""
_COMPARED = 256
"""So many of the most frequent colours may have shades."""


def main_colors(survey: Survey) -> list[int]:
    """Colours that are classes: black first if it occurs, then by frequency."""
    ordered = _by_frequency(survey)
    if survey.lossy_files:
        centres = centres_of(survey)
        if share_near(survey, centres) < 0.8:
            return []
        return [value for value in ordered if value in centres]
    gone = edges_in(survey)
    frequent = [value for value in ordered if survey.share(value) >= 0.01 or value == 0]
    rare = [value for value in ordered if value not in frequent]
    scarce = {v for v in rare if survey.share(v) < 1e-5 and survey.files[v] == 1 and survey.file_count > 2}
    main = [value for value in ordered if value not in gone and value not in scarce]
    # of what is not black, classes take most; in a photograph, perhaps cut out, no colours do
    shown = sum(survey.share(value) for value in main if value)
    return main if shown >= _LEAST_SHOWN * sum(survey.share(value) for value in ordered if value) else []


def edges_in(survey: Survey) -> set[int]:
    """Colours that smoothing left where areas of two or three others meet, and that cover no area themselves."""
    ordered = _by_frequency(survey)
    beside = _beside(ordered, _SHADE)
    frequent = [value for value in ordered if (survey.share(value) >= 0.01 or value == 0) and value not in beside]
    rare = [value for value in ordered if value not in frequent]
    blends = _blends(rare, frequent)
    # a class may by chance lie between two others; a blurred edge leaves a whole series of colours there
    series = len(blends) >= _SERIES
    tiny = {value for value in rare if survey.share(value) < _TINY_SHARE}
    doubtful = blends | beside | tiny if series else (blends | beside) & tiny
    if not doubtful:
        return set()
    areas = solid(survey, [value for value in ordered if value in doubtful or (series and value in frequent)])
    if not series:
        return doubtful - areas
    ends = [value for value in frequent if value in areas]
    common = _blends([value for value in frequent if value not in areas], ends)
    # rounding makes the foot and the top of a slope wide
    return (doubtful - areas) | common | _beside(ordered, _STEP)


def _by_frequency(survey: Survey) -> list[int]:
    return sorted(survey.values, key=lambda value: (value != 0, -survey.pixels[value], value))


def _beside(ordered: Sequence[int], distance: float) -> set[int]:
    """Colours that are hardly different from a more frequent one."""
    points = np.array([unpack_color(value) for value in ordered], dtype=np.float64)
    found: set[int] = set()
    for number, value in enumerate(ordered[:_COMPARED]):
        if value not in found:
            close = np.linalg.norm(points[number + 1 :] - points[number], axis=1) <= distance
            found |= {ordered[number + 1 + int(place)] for place in np.flatnonzero(close)}
    return found


def _blends(values: Sequence[int], ends: Sequence[int]) -> set[int]:
    """Colours on the straight line between two others, as blurred edges have them."""
    if not values or len(ends) < 2:
        return set()
    points = np.array([unpack_color(value) for value in values], dtype=np.float64)
    corners = np.array([unpack_color(value) for value in ends], dtype=np.float64)[:64]
    found = np.zeros(len(values), dtype=bool)
    for i, start in enumerate(corners):
        for end in corners[:i]:
            along = np.clip((points - start) @ (end - start) / ((end - start) ** 2).sum(), 0.0, 1.0)
            found |= np.linalg.norm(start + along[:, None] * (end - start) - points, axis=1) <= 4.0
    return {value for value, blend in zip(values, found.tolist(), strict=True) if blend}
