"""The page of a search: how it went, which settings mattered, and what it brought. One HTML file, without a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from pixelwise import files
from pixelwise.evaluation import figures, report
from pixelwise.trials import TrialRow, Tuned

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENDED = {"complete": "whole", "pruned": "ended early"}
"""Words for the states of trials that have some of their own."""

MOST_AXES = 8
"""Settings that are drawn beside each other, the most important first."""


def write(path: Path, tuned: Tuned, command: str) -> None:
    """Write the page atomically.

    Args:
        path: of the page.
        tuned: what it shows.
        command: what to type to go on with the search.

    Raises:
        DataError: the file cannot be written.
    """
    files.write_atomically(path, render(tuned, command).encode())


def render(tuned: Tuned, command: str) -> str:
    """The page as HTML text."""
    environment = report.environment()
    environment.filters["setting"] = _name
    environment.filters["ended"] = lambda state: ENDED.get(state, state)
    environment.filters["capitalized"] = lambda text: text[:1].upper() + text[1:]
    trials, found = tuned.found.trials, tuned.found
    tried = [row for row in trials if row.miou is not None]
    keys = sorted({key for row in trials for key in row.settings}, key=lambda key: -found.importances.get(key, 0.0))
    template = environment.get_template("tuned.html.j2")
    page: str = template.render(
        tuned=tuned,
        found=found,
        command=command,
        keys=keys,
        rows=sorted(trials, key=lambda row: (row.state != "complete", -(row.miou or 0.0), row.number)),
        counts={state: sum(row.state == state for row in trials) for state in ("complete", "pruned", "failed")},
        gain=found.best.miou - found.plan.miou if found.plan and found.best.miou and found.plan.miou else None,
        importances=sorted(found.importances.items(), key=lambda item: -item[1]),
        history=Markup(figures.svg(lambda axes: _draw_history(axes, tried), "Trials", _said(tried))),  # noqa: S704  drawn by us
        parallel=Markup(_parallel(tried, keys[:MOST_AXES])),  # noqa: S704  likewise
        style=report.part(environment, "report.css"),
    )
    return page


def _said(tried: Sequence[TrialRow]) -> str:
    best = max((row.miou or 0.0 for row in tried), default=0.0)
    return f"Validation mIoU of {len(tried)} trials in their order; the best is {best:.3f}"


def _draw_history(axes: "Axes", tried: Sequence[TrialRow]) -> None:
    from matplotlib.ticker import MaxNLocator

    whole = [row for row in tried if row.state == "complete"]
    pruned = [row for row in tried if row.state == "pruned"]
    # trials that ended in the beginning would press all others together
    lowest, highest = _shown_range([row.miou or 0.0 for row in whole or pruned])
    below = [row for row in pruned if (row.miou or 0.0) < lowest]
    early = [row for row in pruned if row not in below]
    for rows, color, marker, label in (
        (early, figures.MUTED, "o", ENDED["pruned"]),
        (below, figures.MUTED, "v", f"{ENDED['pruned']}, lower than drawn"),
        (whole, figures.CURVES[0], "o", ENDED["complete"]),
    ):
        if rows:
            heights = [max(row.miou or 0.0, lowest) for row in rows]
            numbers = [row.number for row in rows]
            axes.scatter(numbers, heights, 18.0, color=color, marker=marker, label=label, clip_on=False, zorder=3)
    record = np.maximum.accumulate([row.miou or 0.0 for row in whole]).tolist() if whole else []
    axes.step([row.number for row in whole], record, where="post", color=figures.CURVES[1], linewidth=1.4, label="best")
    for row in whole:
        if row.is_plan and row.miou is not None:
            axes.annotate(
                "plan", (row.number, row.miou), (4, -11), textcoords="offset points", color=figures.INK, fontsize=8
            )
    figures.dress(axes, "Validation mIoU by trial", "trial")
    axes.set_ylim(lowest, highest)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.legend(frameon=False, fontsize=8, labelcolor=figures.INK, loc="lower right", handlelength=1.2)


def _shown_range(values: Sequence[float]) -> tuple[float, float]:
    """From where to where the chart shows scores, so that there is room for its legend."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    spread = max(high - low, 0.02)
    return low - 0.6 * spread, high + 0.15 * spread


def _parallel(tried: Sequence[TrialRow], keys: Sequence[str]) -> str:
    """A line for each whole trial through its settings, the better the stronger."""
    whole = sorted((row for row in tried if row.state == "complete"), key=lambda row: row.miou or 0.0)
    if len(whole) < 2 or not keys:
        return ""
    return figures.svg(
        lambda axes: _draw_parallel(axes, whole, keys),
        "Settings",
        f"Settings of {len(whole)} whole trials beside each other, and their mIoU",
        size=(9.2, 3.6),
    )


def _draw_parallel(axes: "Axes", whole: Sequence[TrialRow], keys: Sequence[str]) -> None:
    columns = [_places([row.settings.get(key) for row in whole]) for key in keys]
    columns.append(_places([row.miou for row in whole]))
    for number, row in enumerate(whole):
        is_best = row is whole[-1]
        share = number / max(1, len(whole) - 1)
        axes.plot(
            range(len(columns)),
            [places[number] for places, _ in columns],
            color=figures.CURVES[1] if is_best else figures.CURVES[0],
            alpha=1.0 if is_best else 0.15 + 0.55 * share,
            linewidth=2.2 if is_best else 1.0,
            zorder=3 if is_best else 2,
        )
    for column, (_, ticks) in enumerate(columns):
        axes.axvline(column, color=figures.RULE, linewidth=1.0, zorder=1)
        for place, text in ticks:
            axes.annotate(text, (column, place), (4, 2), textcoords="offset points", color=figures.MUTED, fontsize=7.5)
    figures.dress(axes, "Settings of whole trials; the winner is the thick line", "")
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_xlim(-0.1, len(columns) - 0.35)
    names = [_name(key).replace(" ", "\n") for key in keys]
    axes.set_xticks(range(len(columns)), [*names, "mIoU"], fontsize=8)


def _places(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights between 0 and 1, and what is written at some of them."""
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) and len(set(numbers)) > 3:
        array = np.array(numbers)
        is_wide = array.min() > 0 and array.max() > 8 * array.min()
        scaled = np.log(array) if is_wide else array
        low, high = float(scaled.min()), float(scaled.max())
        heights = ((scaled - low) / max(high - low, 1e-12)).tolist()
        return heights, [(0.0, f"{array.min():.3g}"), (1.0, f"{array.max():.3g}")]
    if len(numbers) == len(values):
        ordered: list[Any] = sorted(set(values))
    else:
        ordered = sorted({_text(value) for value in values})
        values = [_text(value) for value in values]
    step = 1.0 / max(1, len(ordered) - 1)
    heights = [ordered.index(value) * step for value in values]
    return heights, [(index * step, _text(value)) for index, value in enumerate(ordered)]


def _name(key: str) -> str:
    """A setting in words: the section is left out where the rest says enough."""
    section, _, name = key.partition(".")
    return (f"{section} {name}" if name == "name" else name).replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " x ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("_", " ")
