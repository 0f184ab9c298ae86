"""Pictures for people: images, masks and mistakes as 8-bit RGB, and learning curves.

Legend of axes: H height, W width, C channels. Masks hold class indices or IGNORE.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from pixelwise import files
from pixelwise.classes import IGNORE, ClassTable, Color
from pixelwise.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import ImageDraw, ImageFont

STRETCH_PERCENTILES = (0.5, 99.5)
"""Values at these percentiles of a channel become black and white."""

# Three of Okabe & Ito's colours (2008) that differ in hue and in lightness, so that they also differ in grey.
FALSE_POSITIVE_COLOR: Color = (213, 94, 0)
FALSE_NEGATIVE_COLOR: Color = (86, 180, 233)
WRONG_CLASS_COLOR: Color = (240, 228, 66)

_GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma


def to_display(image: Shaped[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "H W 3"]:
    """An image of any type as something a screen can show.

    8-bit images with three or more channels keep their values. All others are stretched linearly, each
    channel by itself, from its percentiles 0.5 and 99.5 to 0 and 255. Of more than three channels the
    first three are shown as red, green and blue; of one or two channels the first is shown as grey.
    Values that are not finite are black, and so is a constant channel of value 0; any other constant
    channel is mid-grey.
    """
    shown = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, :1]
    if shown.dtype != np.uint8 or shown.shape[2] == 1:
        shown = np.stack([_stretch(shown[:, :, i]) for i in range(shown.shape[2])], axis=2)
    return np.ascontiguousarray(np.broadcast_to(shown, (*shown.shape[:2], 3)))


def _stretch(channel: Shaped[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    values = channel.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = np.percentile(values[finite], STRETCH_PERCENTILES)
    if high <= low:  # nearly all pixels are equal: the few that are not still have to show
        low, high = values[finite].min(), values[finite].max()
    values[~finite] = low
    if high <= low:
        return np.where(finite & (values != 0), 128, 0).astype(np.uint8)
    fraction = np.clip((values - low) / (high - low), 0.0, 1.0)
    return np.where(finite, np.rint(fraction * 255), 0).astype(np.uint8)


def colorize(mask: UInt8[np.ndarray, "H W"], classes: ClassTable) -> UInt8[np.ndarray, "H W 3"]:
    """Every pixel in the colour of its class; IGNORE is light grey."""
    colors: UInt8[np.ndarray, "H W 3"] = classes.color_table()[mask]
    return colors


def overlay(
    image: UInt8[np.ndarray, "H W 3"], mask: UInt8[np.ndarray, "H W"], classes: ClassTable, opacity: float = 0.45
) -> UInt8[np.ndarray, "H W 3"]:
    """The mask over the image: regions tinted, their outlines in full colour, the background left clear.

    Args:
        image: red, green, blue.
        mask: class indices; IGNORE is hatched in grey.
        classes: colours, and which class is background.
        opacity: share of the class colour inside a region, 0 to 1.
    """
    clear = mask == IGNORE
    background = classes.background
    if background is not None:
        clear = clear | (mask == background)
    strength = np.where(_outline(mask), 1.0, opacity)
    strength[clear] = 0.0
    colors = colorize(mask, classes).astype(np.float64)
    blended = image * (1.0 - strength[..., None]) + colors * strength[..., None]
    return _hatch(np.rint(blended).astype(np.uint8), mask == IGNORE)


def picture_of(
    image: Shaped[np.ndarray, "H W C"], mask: UInt8[np.ndarray, "H W"], classes: ClassTable
) -> UInt8[np.ndarray, "H W 3"]:
    """An image of any type with its mask over it."""
    return overlay(to_display(image), mask, classes)


def _outline(mask: UInt8[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Pixels with a neighbour (left, right, above, below) of another value."""
    edge = np.zeros(mask.shape, dtype=bool)
    down = mask[1:] != mask[:-1]
    right = mask[:, 1:] != mask[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def _hatch(image: UInt8[np.ndarray, "H W 3"], where: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Diagonal lines of light grey, six pixels apart."""
    height, width = where.shape
    diagonal = np.arange(height)[:, None] + np.arange(width)
    hatched = image.copy()
    hatched[where] = image[where] // 2 + 64
    hatched[where & (diagonal % 6 == 0)] = 200
    return hatched


def error_map(
    image: UInt8[np.ndarray, "H W 3"],
    truth: UInt8[np.ndarray, "H W"],
    prediction: UInt8[np.ndarray, "H W"],
    classes: ClassTable,
) -> UInt8[np.ndarray, "H W 3"]:
    """Where the prediction is wrong, and how, over a dim grey image; see `error_legend` for the colours.

    A false positive is background that was given an object's class, a false negative an object that was
    taken for background. All other mistakes, and all where no class is background, are wrong classes.
    Pixels whose truth is IGNORE are hatched and never count as mistakes.
    """
    ignored = truth == IGNORE
    wrong = (truth != prediction) & ~ignored
    grey = np.rint(image @ np.array(_GREY_WEIGHTS) * 0.45 + 18).astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, axis=2)
    picture[wrong] = WRONG_CLASS_COLOR
    background = classes.background
    if background is not None:
        picture[wrong & (truth == background)] = FALSE_POSITIVE_COLOR
        picture[wrong & (prediction == background)] = FALSE_NEGATIVE_COLOR
    return _hatch(picture, ignored)


def error_legend(classes: ClassTable) -> list[tuple[str, Color]]:
    """What the colours of `error_map` mean for this class table, as text and colour."""
    wrong = ("wrong class", WRONG_CLASS_COLOR)
    if classes.background is None:
        return [wrong]
    entries = [
        ("false positive: predicted, not there", FALSE_POSITIVE_COLOR),
        ("false negative: there, not predicted", FALSE_NEGATIVE_COLOR),
    ]
    return entries if len(classes) == 2 else [*entries, wrong]


# --- contact sheet ---------------------------------------------------------------------------------------------------

_GAP_PX = 16
_LINE_PX = 24
_SHEET_WIDTH_PX = 1600
_PAPER: Color = (250, 249, 246)
_INK: Color = (38, 38, 36)


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    masks: Sequence[UInt8[np.ndarray, "_ _"]],
    captions: Sequence[str],
    classes: ClassTable,
) -> UInt8[np.ndarray, "H W 3"]:
    """Patches in a grid, each beside itself with its mask over it, and the classes below.

    Args:
        images: red, green, blue; sizes may differ.
        masks: one of the same height and width for each image.
        captions: a line of text for each image; it is cut where it does not fit.
        classes: names and colours of the legend.

    Raises:
        DataError: there is no image, or the lists differ in length.
    """
    from PIL import Image, ImageDraw

    if not images or not len(images) == len(masks) == len(captions):
        counts = f"{len(images)} images, {len(masks)} masks and {len(captions)} captions"
        raise DataError(f"A contact sheet cannot be drawn from {counts}.", remedy="Give one of each for every patch.")
    font = _font()
    height = max(image.shape[0] for image in images)
    width = max(image.shape[1] for image in images)
    cell_width, cell_height = 2 * width + 2 + _GAP_PX, height + _LINE_PX + _GAP_PX
    columns = max(1, min(math.ceil(math.sqrt(len(images) / 2)), (_SHEET_WIDTH_PX - _GAP_PX) // cell_width))
    rows = math.ceil(len(images) / columns)
    sheet_width = max(columns * cell_width + _GAP_PX, 320)
    places = _legend_places(classes, sheet_width, font)
    legend_height = (places[-1][1] + 1) * _LINE_PX
    sheet = Image.new("RGB", (sheet_width, rows * cell_height + 2 * _GAP_PX + legend_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (image, mask, caption) in enumerate(zip(images, masks, captions, strict=True)):
        left = _GAP_PX + i % columns * cell_width
        top = _GAP_PX + i // columns * cell_height
        sheet.paste(Image.fromarray(image), (left, top))
        sheet.paste(Image.fromarray(overlay(image, mask, classes)), (left + image.shape[1] + 2, top))
        text = _shortened(caption, 2 * width + 2, font)
        draw.text((left, top + image.shape[0] + _LINE_PX // 2), text, fill=_INK, font=font, anchor="lm")
    _draw_legend(draw, places, rows * cell_height + _GAP_PX, classes, font)
    return np.array(sheet)


def _font() -> "ImageFont.FreeTypeFont":
    import matplotlib as mpl
    from PIL import ImageFont

    # the font that comes with matplotlib knows more alphabets than Pillow's own
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 12)


def _shortened(text: str, width_px: int, font: "ImageFont.FreeTypeFont") -> str:
    """The text, or as much of it as fits with an ellipsis in the middle."""
    line = " ".join(text.split())
    for kept in range(len(line), 0, -1):
        short = line if kept == len(line) else f"{line[: kept // 2]}…{line[len(line) - (kept - kept // 2) :]}"
        if font.getlength(short) <= width_px:
            return short
    return ""


def _legend_places(
    classes: ClassTable, width_px: int, font: "ImageFont.FreeTypeFont"
) -> list[tuple[int, int, str, Color]]:
    """Left edge in pixels, row, name and colour of each entry; rows break where the sheet ends."""
    places: list[tuple[int, int, str, Color]] = []
    left, row = _GAP_PX, 0
    for category in classes.categories:
        name = _shortened(category.name, width_px - 2 * _GAP_PX - 18, font)
        needed = 18 + math.ceil(font.getlength(name))
        if left > _GAP_PX and left + needed > width_px - _GAP_PX:
            left, row = _GAP_PX, row + 1
        places.append((left, row, name, category.color))
        left += needed + _GAP_PX
    return places


def _draw_legend(
    draw: "ImageDraw.ImageDraw",
    places: list[tuple[int, int, str, Color]],
    top: int,
    classes: ClassTable,
    font: "ImageFont.FreeTypeFont",
) -> None:
    for index, (left, row, name, color) in enumerate(places):
        middle = top + row * _LINE_PX + _LINE_PX // 2
        clear = index == classes.background
        draw.rectangle((left, middle - 6, left + 11, middle + 5), fill=None if clear else color, outline=_INK)
        draw.text((left + 18, middle), name, fill=_INK, font=font, anchor="lm")


# --- learning curves -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Panel:
    title: str
    curves: tuple[tuple[str, str], ...]
    """Key in a row of the history, and what to call it."""


_PANELS = (
    _Panel("Loss", (("train_loss", "training"), ("validation_loss", "validation"))),
    _Panel("Validation score", (("miou", "mIoU"), ("dice", "Dice"))),
    _Panel("Learning rate", (("learning_rate", "learning rate"),)),
)

# Colour of each part on white paper, and the style sheet's variable that replaces it on a page.
_THEME = {"#21201c": "--ink", "#6f6d66": "--muted", "#dedbd3": "--rule", "#0f6e84": "--curve-a", "#c4620e": "--curve-b"}
INK, MUTED, RULE, *CURVES = _THEME


def learning_curves(history: Sequence[Mapping[str, Any]]) -> str:
    """Losses, validation scores and learning rate by epoch: one inline `<svg>` element for each, one after another.

    Colours are the variables --ink, --muted, --rule, --curve-a and --curve-b of the page, with the colours of
    light paper where the page does not define them, so that the curves follow a dark theme.

    Args:
        history: rows of history.jsonl; values that are missing, null or not finite leave gaps.
    """
    label = f"by epoch ({len(history)} in all)"
    return "\n".join(
        svg(
            partial(_draw_panel, panel=panel, history=history),
            panel.title,
            f"{panel.title} {label}: {' and '.join(name for _, name in panel.curves)}",
        )
        for panel in _PANELS
    )


def reliability_diagram(bins: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy by confidence, as an inline `<svg>` element in the colours of the page.

    Args:
        bins: of scores.json: pixels, accuracy and confidence of each bin; empty ones have none.
    """
    filled = [row for row in bins if row["pixels"]]
    return svg(partial(_draw_reliability, bins=filled), "Reliability", "Accuracy by confidence of the model")


def svg(draw: Callable[["Axes"], None], title: str, label: str, size: tuple[float, float] = (4.4, 2.9)) -> str:
    """What `draw` draws, as an inline `<svg>` element in the colours of the page.

    Args:
        draw: in the colours INK, MUTED, RULE and CURVES, for which the page's take their place.
        title: one of its own for every figure of a page.
        label: what it shows, for those who cannot see it.
        size: width and height in inches.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    # the user's own matplotlib settings are left out; a fixed salt makes equal contents give equal text
    with style.context(["default", {"svg.fonttype": "none", "svg.hashsalt": "pixelwise"}]):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    return _inline(text.getvalue(), title, label)


def _inline(svg: str, title: str, label: str) -> str:
    """An `<svg>` element that scales with the page, follows its colours, and says what it shows."""
    opening, inside = svg[svg.index("<svg") :].split(">", 1)
    view_box = opening.split('viewBox="')[1].split('"')[0]
    for color, variable in _THEME.items():
        inside = inside.replace(color, f"var({variable}, {color})")
    slug = title.lower().replace(" ", "-")
    # matplotlib's ids repeat from figure to figure
    for mark in ('id="', "url(#", 'href="#'):
        inside = inside.replace(mark, f"{mark}{slug}-")
    attributes = f'class="curve" role="img" aria-label="{label}" viewBox="{view_box}"'
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f"<svg {namespaces} {attributes}>{inside.rstrip()}"


def save_learning_curves(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """The same curves side by side as a PNG, written atomically.

    Raises:
        DataError: the file cannot be written.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with style.context("default"):
        figure = Figure(figsize=(13.2, 3.4), layout="constrained", facecolor="white")
        for axes, panel in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
            _draw_panel(axes, panel, history)
        figure.savefig(buffer, format="png", dpi=150)
    files.make_folder(path.parent)
    files.write_atomically(path, buffer.getvalue())


def _draw_panel(axes: "Axes", panel: _Panel, history: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = _column(history, "epoch") + 1.0  # people count from 1
    for (key, name), color in zip(panel.curves, CURVES, strict=False):
        marker = "o" if len(history) < 12 else None
        axes.plot(epochs, _column(history, key), label=name, color=color, linewidth=1.6, marker=marker, markersize=3)
    if panel.curves[0][0] == "miou":
        _mark_best(axes, epochs, _column(history, "miou"))
    dress(axes, panel.title, "epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.margins(x=0.02, y=0.08)
    if len(history) == 1:
        axes.set_xticks(epochs)
    if panel.curves[0][0] == "train_loss":
        _cut_the_start_off(axes, [_column(history, key) for key, _ in panel.curves])
    if len(panel.curves) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="best", handlelength=1.4)


def _draw_reliability(axes: "Axes", bins: Sequence[Mapping[str, Any]]) -> None:
    axes.plot([0.0, 1.0], [0.0, 1.0], color=MUTED, linewidth=1.0, linestyle="--", label="as sure as right")
    confidence = [row["confidence"] for row in bins]
    axes.plot(confidence, [row["accuracy"] for row in bins], color=CURVES[0], linewidth=1.6, label="accuracy")
    most = max((row["pixels"] for row in bins), default=1)
    sizes = [4.0 + 60.0 * row["pixels"] / most for row in bins]
    axes.scatter(confidence, [row["accuracy"] for row in bins], sizes, color=CURVES[0], zorder=3)
    dress(axes, "Accuracy by confidence", "confidence (larger dots hold more pixels)")
    axes.set_xlim(0.0, 1.04)
    axes.set_ylim(0.0, 1.04)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left", handlelength=1.4)


def dress(axes: "Axes", title: str, below: str) -> None:
    """Titles, ticks and lines as all figures have them."""
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", pad=10)
    axes.set_xlabel(below, color=MUTED, fontsize=9)
    axes.yaxis.set_major_formatter("{x:g}")  # never an exponent apart from its number
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
    axes.grid(visible=True, axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(RULE)


def _cut_the_start_off(axes: "Axes", curves: Sequence[Shaped[np.ndarray, " N"]]) -> None:
    """Let the first epoch of an untrained network leave the picture, if it would press all others to the ground."""
    later = np.concatenate([curve[1:] for curve in curves])
    later, first = later[np.isfinite(later)], [curve[0] for curve in curves if np.isfinite(curve[0])]
    if later.size and first and max(first) > 2.5 * later.max():
        axes.set_ylim(top=1.25 * float(later.max()))


def _mark_best(axes: "Axes", epochs: Shaped[np.ndarray, " N"], miou: Shaped[np.ndarray, " N"]) -> None:
    if not np.isfinite(miou).any():
        return
    best = int(np.nanargmax(miou))
    axes.plot(epochs[best], miou[best], "o", color=CURVES[0], markersize=6, label=f"best {miou[best]:.3f}")


def _column(history: Sequence[Mapping[str, Any]], key: str) -> Shaped[np.ndarray, " N"]:
    """One value per row; nan where it is missing, null or infinite."""
    values = np.array([math.nan if row.get(key) is None else float(row[key]) for row in history], dtype=np.float64)
    return np.where(np.isfinite(values), values, math.nan)


def encode(picture: UInt8[np.ndarray, "H W 3"], quality: int = 82) -> bytes:
    """A picture as a WebP file, which every browser of today shows and which is a third smaller than JPEG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()
