"""The report of a run: one HTML file that opens without a network, on a desk and on a phone.

The pages `templates/report.*` say how it looks; this module puts scores and pictures into the form they need.
"""

import base64
import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from pixelwise import files
from pixelwise.classes import ClassTable, Color
from pixelwise.config import FEWEST_UNITS
from pixelwise.evaluation import figures
from pixelwise.evaluation.forgetting import Forgotten
from pixelwise.evaluation.gallery import Thumbnail
from pixelwise.evaluation.mistakes import KINDS

LONGEST_EDGE_PX = 512
"""Pictures are made smaller until no edge is longer."""

MATRIX_CLASSES = 24
"""With more classes than this, a confusion matrix and one column per class can no longer be read."""

CONFUSIONS = 5
"""How many of the most frequent mistakes are put into words."""

DASH = "\N{EN DASH}"

FEWEST_FOR_THIRDS = 9
"""Of fewer images, thirds say nothing."""

ALMOST_EQUAL = 1.5
"""Images that differ in size by less are of one size, but for ignored pixels."""

MOST_LISTED = 5000
"""Of more images, the worst ones are listed."""

FEW = 6
"""Longer lists of files are folded."""


@dataclass(frozen=True)
class Example:
    """An image that is shown with its truth and its prediction."""

    name: str
    rank: str
    """Why it is shown: `worst`, `median` or `best`."""
    image: UInt8[np.ndarray, "H W 3"]
    """Made by `figures.to_display`."""
    truth: UInt8[np.ndarray, "H W"]
    prediction: UInt8[np.ndarray, "H W"]
    miou: float
    """Of this image; nan where no pixel counts."""


@dataclass(frozen=True)
class Content:
    """All a report shows. Lists and tables may be empty; their sections are then left out."""

    title: str
    command: str
    """What to type to get this report again; of a run that went on, a line for each time."""
    scores: dict[str, Any]
    """What scores.json holds."""
    split_name: str
    """The images the scores are of, as in 'test' or 'validation'."""
    classes: ClassTable
    history: list[dict[str, Any]]
    """Rows of history.jsonl."""
    decisions: list[dict[str, Any]]
    """What plan.json decided: setting, value, because."""
    findings: list[dict[str, Any]]
    """What the check of the data found: severity, what, files, cause, remedy."""
    facts: dict[str, str]
    """Data set, machine, versions, duration: whatever one has to know to believe or repeat the scores."""
    examples: tuple[Example, ...]
    caution: str = ""
    """Why the scores may be too good."""
    forgotten: Forgotten | None = None
    """What the model still knows of what it started from."""
    thumbnails: Mapping[str, Thumbnail] = field(default_factory=dict)
    """Small pictures by the name of the image; images without one are listed without."""


def write(path: Path, content: Content) -> None:
    """Write the report atomically.

    Raises:
        DataError: the file cannot be written.
    """
    files.make_folder(path.parent)
    files.write_atomically(path, render(content).encode("utf-8"))


def render(content: Content) -> str:
    """The report as HTML text. Equal contents give equal text."""
    template = _template()
    templates = template.environment
    rows = _worst_first(content.scores["per_image"])
    style, script = (part(templates, name) for name in ("report.css", "report.js"))
    page: str = template.render(
        content=content,
        pooled=content.scores["pooled"],
        image_mean=content.scores["image_mean"],
        per_class=_per_class(content),
        per_image=rows[:MOST_LISTED],
        left_out=len(rows[MOST_LISTED:]),
        kinds=_kinds(content),
        looks=_looks(rows),
        groups=_groups(rows),
        reliability=_reliability(content),
        pictures=_pictures(content, rows),
        pictured={name: number for number, name in enumerate(_pictured(content, rows))},
        list_classes=content.classes.names if len(content.classes) <= MATRIX_CLASSES else [],
        matrix=_matrix(content.scores["confusion"]) if len(content.classes) <= MATRIX_CLASSES else [],
        confusions=_confusions(content),
        forgotten=_forgotten(content),
        curves=Markup(figures.learning_curves(content.history)) if content.history else "",  # noqa: S704 - drawn by us, holds no text of the user
        warnings=[(row["epoch"] + 1, text) for row in content.history for text in (row.get("warnings") or {}).values()],
        examples=[_shown(example, content.classes) for example in content.examples],
        error_legend=figures.error_legend(content.classes),
        background=content.classes.background,
        few=FEW,
        fewest_units=FEWEST_UNITS,
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )
    return page


@functools.cache
def _template() -> Any:
    """Of the report: it takes longer to compile than to fill in."""
    return environment().get_template("report.html.j2")


def environment() -> Any:
    """The templates of this package, and how numbers are written in them."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("pixelwise.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        score=format_score,
        change=format_change,
        count=format_count,
        value=format_value,
        px=format_length,
        spread=format_spread,
        rgb=_rgb,
    )
    return made


def part(templates: Any, name: str) -> Markup:
    """A file beside the templates, as it is."""
    source, _, _ = templates.loader.get_source(templates, name)
    return Markup(source)  # noqa: S704 - a file of this package


# --- numbers ---------------------------------------------------------------------------------------------------------


def format_score(value: float | None, reason: str = "not defined here") -> Markup:
    """A score with three decimals; a dash that says `reason` for none and nan."""
    if value is None or math.isnan(value):
        return Markup('<span class="none" title="{}">{}</span>').format(reason, DASH)
    return Markup("{}").format(f"{value:.3f}")


def format_length(value: float | None, reason: str = "not defined here") -> Markup:
    """A distance in pixels with one decimal, or a dash."""
    text = format_score(value, reason)
    return text if value is None or math.isnan(value) else Markup("{}").format(f"{value:.1f}")


def format_spread(ends: Sequence[float | None] | None) -> str:
    """An interval, or nothing where there is none."""
    low, high = ends or (None, None)
    return f"{low:.3f} to {high:.3f}" if low is not None and high is not None else ""


def format_change(value: float | None) -> str:
    """A difference of scores with its sign, or a dash."""
    return DASH if value is None else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def format_count(value: int) -> str:
    """Thousands set apart by a narrow space that does not break."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def format_value(value: object) -> str:
    """A setting as one would write it in a configuration file."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _rgb(color: Color) -> str:
    return "rgb({} {} {})".format(*color)


# --- tables ----------------------------------------------------------------------------------------------------------


def _per_class(content: Content) -> list[dict[str, Any]]:
    """Rows of the table of classes: the scores, the colour, and the share of all pixels."""
    rows = content.scores["pooled"]["per_class"]
    total = sum(row["pixels"] for row in rows)
    return [
        {**row, "color": category.color, "share": row["pixels"] / total if total else 0.0}
        for row, category in zip(rows, content.classes.categories, strict=True)
    ]


def _worst_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def key(row: dict[str, Any]) -> tuple[bool, float]:
        return (row["miou"] is None, row["miou"] or 0.0)

    return sorted(rows, key=key)


def _kinds(content: Content) -> list[dict[str, Any]]:
    """Wrong pixels of each class that has any, as shares by kind; classes with most of them first."""
    mistakes = content.scores.get("mistakes") or {}
    colors = {category.name: category.color for category in content.classes.categories}
    rows = []
    for row in mistakes.get("per_class", []):
        total = sum(row[kind] for kind in KINDS)
        if total:
            shares = {kind: row[kind] / total for kind in KINDS}
            rows.append({"name": row["name"], "color": colors.get(row["name"]), "pixels": total, "shares": shares})
    return sorted(rows, key=lambda row: -int(row["pixels"]))


def _forgotten(content: Content) -> list[dict[str, Any]]:
    """Rows of the table of what is still known, in the colours that the classes have now."""
    if content.forgotten is None:
        return []
    colors = {category.name: category.color for category in content.classes.categories}
    return [
        {"name": row.name, "color": colors[row.name], "before": row.before, "after": row.after}
        | {"change": row.change, "is_lost": row.is_lost}
        for row in content.forgotten.classes
        if row.name in colors
    ]


def _looks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean score of the images in the lowest, middle and highest third of what can be said of an image."""
    scored = [row for row in rows if row["miou"] is not None and row.get("brightness") is not None]
    if len(scored) < FEWEST_FOR_THIRDS:
        return []
    values = {
        "brightness": [row["brightness"] for row in scored],
        "contrast": [row["contrast"] for row in scored],
        "size": [sum(pixels for _, _, pixels in row["confusion"]) for row in scored],
    }
    if max(values["size"]) < ALMOST_EQUAL * min(values["size"]):
        del values["size"]
    mious = np.array([row["miou"] for row in scored])
    return [
        {"name": name, "thirds": [float(mious[part].mean()) for part in np.array_split(np.argsort(column), 3)]}
        for name, column in values.items()
        if len(set(column)) >= FEWEST_FOR_THIRDS
    ]


def _groups(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, lowest and highest score of the images of each group, the worst group first."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.get("group") and row["miou"] is not None:
            found.setdefault(row["group"], []).append(row["miou"])
    listed = [
        {"name": name, "images": len(mious), "mean": sum(mious) / len(mious), "low": min(mious), "high": max(mious)}
        for name, mious in found.items()
    ]
    return sorted(listed, key=lambda row: float(row["mean"]))


def _reliability(content: Content) -> Markup:
    bins = content.scores.get("calibration") or []
    if not any(row["pixels"] for row in bins):
        return Markup("")
    return Markup(figures.reliability_diagram(bins))  # noqa: S704 - drawn by us, holds no text of the user


def _pictured(content: Content, rows: list[dict[str, Any]]) -> list[str]:
    """Names of the images that have pictures, in the order of the list."""
    return [row["name"] for row in rows if row["name"] in content.thumbnails]


def _pictures(content: Content, rows: list[dict[str, Any]]) -> list[list[Any]]:
    """Layers of the small pictures in the order of the list, with their size."""
    found = [content.thumbnails[name] for name in _pictured(content, rows)]
    return [[one.photo, one.truth, one.prediction, one.errors, *one.size] for one in found]


def _matrix(confusion: list[list[int]]) -> list[list[dict[str, Any]]]:
    """Cells by true class and predicted class: pixels, and their share of the row (none in an empty row)."""
    matrix = []
    for row in confusion:
        total = sum(row)
        matrix.append([{"pixels": n, "share": n / total if total else None, "text": _percent(n, total)} for n in row])
    return matrix


def _percent(part: int, whole: int) -> str:
    """Whole percent that never rounds something to 0 or nearly everything to 100."""
    if whole == 0:
        return DASH
    if 0 < part < 0.005 * whole:
        return "<1"
    if 0.995 * whole <= part < whole:
        return ">99"
    return f"{100 * part / whole:.0f}"


def _confusions(content: Content) -> list[dict[str, Any]]:
    """The most frequent mistakes: which class was called what, how many pixels, and their share of the class."""
    names, counts = content.classes.names, content.scores["confusion"]
    mistakes = [
        {"truth": names[i], "prediction": names[j], "pixels": n, "share": _percent(n, sum(row))}
        for i, row in enumerate(counts)
        for j, n in enumerate(row)
        if i != j and n > 0
    ]
    return sorted(mistakes, key=lambda mistake: -int(mistake["pixels"]))[:CONFUSIONS]


# --- pictures --------------------------------------------------------------------------------------------------------


def _shown(example: Example, classes: ClassTable) -> dict[str, Any]:
    """An example as the page wants it: four small pictures, each with its heading and text for those who cannot see."""
    image, truth, prediction = _reduced(example)
    name = example.name
    pictures = [
        ("Image", image, f"Image {name}"),
        ("Truth", figures.overlay(image, truth, classes, opacity=0.6), f"True classes drawn over {name}"),
        (
            "Prediction",
            figures.overlay(image, prediction, classes, opacity=0.6),
            f"Predicted classes drawn over {name}",
        ),
        ("Errors", figures.error_map(image, truth, prediction, classes), f"Wrong pixels of {name}"),
    ]
    height, width = truth.shape
    return {
        "name": name,
        "rank": example.rank,
        "miou": example.miou,
        "height": height,
        "width": width,
        "pictures": [{"heading": heading, "source": _source(shown), "alt": alt} for heading, shown, alt in pictures],
    }


def _reduced(
    example: Example,
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """Image, truth and prediction at a size for looking; classes are never mixed."""
    from PIL import Image

    height, width = example.truth.shape
    factor = LONGEST_EDGE_PX / max(height, width)
    if factor >= 1.0:
        return example.image, example.truth, example.prediction
    size = max(1, round(width * factor)), max(1, round(height * factor))
    image = Image.fromarray(example.image).resize(size, Image.Resampling.LANCZOS)
    masks = [
        np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        for mask in (example.truth, example.prediction)
    ]
    return np.array(image), masks[0], masks[1]


def _source(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    return "data:image/webp;base64," + base64.b64encode(figures.encode(picture)).decode("ascii")
