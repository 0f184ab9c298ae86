"""Runs beside each other: their scores, and the settings in which they differ."""

import json
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from pixelwise.config import parse_yaml
from pixelwise.errors import ConfigError, DataError
from pixelwise.evaluation.saved import Headline, read_headline, read_scores
from pixelwise.evaluation.scores import Evaluation
from pixelwise.metrics.counts import number
from pixelwise.metrics.intervals import Difference, difference
from pixelwise.metrics.weighted import ratios

DASH = "-"

_REMEDY = "Give the folder of a run that was trained and evaluated, or evaluate it again with `pixelwise evaluate`."


@dataclass(frozen=True)
class Verdict:
    """Whether one run is really better than another on the same images."""

    better: str
    worse: str
    difference: Difference
    """Of the pooled mIoU."""

    def describe(self) -> str:
        """One sentence, with the numbers."""
        found = self.difference
        one, several = ("group of images", "groups of images") if found.grouped else ("image", "images")
        unit = one if found.units == 1 else several
        numbers = f"{found.value:+.3f} mIoU"
        if not math.isnan(found.interval.low):
            numbers += f", 95 % interval {found.interval.low:+.3f} to {found.interval.high:+.3f}, p = {found.p:.2g}"
        if found.is_clear:
            return f"{self.better} is better than {self.worse} on these {found.units} {unit}: {numbers}."
        more = f"; about {found.needed} {several} like these would tell" if found.needed is not None else ""
        return f"{found.units} {unit} cannot tell {self.better} from {self.worse}: {numbers}{more}."

    def to_json(self) -> dict[str, Any]:
        """The sentence and its numbers."""
        found = self.difference
        return {
            "better": self.better,
            "worse": self.worse,
            "miou_difference": number(found.value),
            "interval": [number(found.interval.low), number(found.interval.high)],
            "p": number(found.p),
            "units": found.units,
            "units_needed": found.needed,
            "clear": found.is_clear,
            "sentence": self.describe(),
        }


@dataclass(frozen=True)
class Comparison:
    """One column per run; each row holds one value per run, in the order of `runs`."""

    runs: tuple[str, ...]
    """The shortest distinct names of the folders."""
    scores: Mapping[str, tuple[float | None, ...]]
    """Headline scores, 0 to 1; none where a score is not defined."""
    iou: Mapping[str, tuple[float | None, ...]]
    """Pooled IoU by class name; none where a run does not know the class or it is absent."""
    verdicts: tuple["Verdict", ...]
    """The run with the highest mIoU against each other one that was scored on the same masks."""
    settings: Mapping[str, tuple[Any, ...]]
    """Settings, by dotted name, that are not the same in all runs; none where a run does not have one."""
    warnings: tuple[str, ...]
    """Why these scores may not be comparable: one sentence each."""
    same_images: bool
    """All were scored on the same images with the same masks; else no score is better than another."""
    same_classes: bool
    """All have the same classes; else no mean over classes is better than another."""

    def to_json(self) -> str:
        """The comparison as a JSON object with the fields of this class."""
        tree = {
            "runs": self.runs,
            "scores": self.scores,
            "iou": self.iou,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "settings": self.settings,
            "warnings": self.warnings,
            "same_images": self.same_images,
            "same_classes": self.same_classes,
        }
        return json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False, default=str)

    def to_text(self, width: int = 100) -> str:
        """Tables for a terminal: the best score of a row bears a star; runs whose names do not fit get letters.

        Scores that cannot be compared bear none.

        Args:
            width: characters per line, at least 40; what does not fit is put into a further table below.
        """
        width = max(width, 40)
        means = self.same_images and self.same_classes
        score_rows = [(name, _score_cells(values, starred=means)) for name, values in self.scores.items()]
        score_rows += [
            (f"IoU {name}", _score_cells(values, starred=self.same_images)) for name, values in self.iou.items()
        ]
        setting_rows = [(name, [_setting_cell(value) for value in values]) for name, values in self.settings.items()]
        heads, legend = _heads(self.runs, width)
        parts = [legend, *_tables("score", heads, score_rows, width)]
        parts += [textwrap.fill(verdict.describe(), width) for verdict in self.verdicts]
        if setting_rows:
            parts += _tables("setting", heads, setting_rows, width)
        elif len(self.runs) > 1:
            parts.append("All settings are equal.")
        parts += [textwrap.fill(f"Warning: {warning}", width) for warning in self.warnings]
        return "\n\n".join(part for part in parts if part)


def compare(runs: Sequence[Path]) -> Comparison:
    """Put the scores.json and config.yaml of runs beside each other.

    Args:
        runs: folders, at least two.

    Raises:
        ConfigError: there are fewer than two.
        DataError: a folder or one of its two files is missing or damaged.
    """
    if len(runs) < 2:
        raise ConfigError(
            f"A comparison needs two runs or more; {len(runs)} given.", remedy="Write: compare runs/A runs/B"
        )
    scores = [read_headline(_file(run, "scores.json")) for run in runs]
    settings = [dict(_flat(_read_settings(_file(run, "config.yaml")))) for run in runs]
    names = _short_names(runs)
    counted = [read_scores(_file(run, "scores.json")) for run in runs]
    by_class = [{row.name: row.iou for row in each.pooled.per_class} for each in scores]
    other_images = (*_image_warnings(names, scores), *_mask_warnings(names, counted))
    other_classes = _class_warnings(names, by_class)
    return Comparison(
        runs=names,
        scores={
            "mIoU, pooled": tuple(each.pooled.miou for each in scores),
            "mean Dice, pooled": tuple(each.pooled.dice for each in scores),
            "pixel accuracy": tuple(each.pooled.pixel_accuracy for each in scores),
            "mIoU, mean of images": tuple(each.image_mean.miou for each in scores),
            "Dice, mean of images": tuple(each.image_mean.dice for each in scores),
        },
        iou={name: tuple(table.get(name) for table in by_class) for name in _union(by_class)},
        verdicts=_verdicts(names, counted),
        settings=_differences(settings),
        warnings=(*other_images, *other_classes),
        same_images=not other_images,
        same_classes=not other_classes,
    )


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_settings(file: Path) -> dict[str, Any]:
    # read as plain YAML: runs of an older version may have settings that no longer exist
    try:
        tree = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        raise DataError(f"The settings are not valid YAML ({error}).", where=file, remedy=_REMEDY) from None
    if not isinstance(tree, dict):
        raise DataError("The settings must hold sections such as 'training:'.", where=file, remedy=_REMEDY)
    return tree


def _file(run: Path, name: str) -> Path:
    if not run.is_dir():
        raise DataError("There is no such run folder.", where=run, remedy=_REMEDY)
    if not (run / name).exists():
        raise DataError(f"This folder is not a finished run: {name} is missing.", where=run, remedy=_REMEDY)
    return run / name


def _flat(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            # JSON knows neither infinity nor nan, and nan would differ from itself
            unusual = isinstance(value, float) and not math.isfinite(value)
            yield f"{prefix}{key}", str(value) if unusual else value


# --- comparing -------------------------------------------------------------------------------------------------------


def _short_names(runs: Sequence[Path]) -> tuple[str, ...]:
    """As many of the last parts of each path as tell all of them apart."""
    paths = [run.resolve() for run in runs]
    for parts in range(1, max(len(path.parts) for path in paths)):
        names = tuple("/".join(path.parts[-parts:]) for path in paths)
        if len(set(names)) == len(names):
            return names
    return tuple(str(path) for path in paths)


def _union(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    """All keys, in the order in which they first occur."""
    return list(dict.fromkeys(key for table in tables for key in table))


def _differences(settings: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    rows = {key: tuple(each.get(key) for each in settings) for key in _union(settings)}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def _image_warnings(names: Sequence[str], scores: Sequence[Headline]) -> list[str]:
    first, *others = [{image.name for image in each.per_image} for each in scores]
    return [
        f"{name} was scored on other images than {names[0]}: {len(other - first)} of its {len(other)} are not among "
        f"the {len(first)} of {names[0]}, and {len(first - other)} are missing. Their scores cannot be compared; "
        "evaluate both on the same images."
        for name, other in zip(names[1:], others, strict=True)
        if other != first
    ]


def _verdicts(names: Sequence[str], scores: Sequence[Evaluation]) -> tuple[Verdict, ...]:
    """The best run against each of the others that can be held against it."""
    best = max(range(len(scores)), key=lambda index: (not math.isnan(scores[index].miou), scores[index].miou))
    return tuple(
        Verdict(names[best], name, _difference(scores[best], other))
        for name, other in zip(names, scores, strict=True)
        if other is not scores[best] and _same_images(scores[best], other) and _same_masks(scores[best], other)
    )


def _difference(first: Evaluation, second: Evaluation) -> Difference:
    """Of the mIoU, image by image."""
    order = _order(first, second)
    return difference(ratios(first.counts)["iou"], ratios(second.counts[order])["iou"], first.units)


def _order(first: Evaluation, second: Evaluation) -> list[int]:
    """Where the images of the first stand in the second."""
    places = {name: index for index, name in enumerate(second.names)}
    return [places[name] for name in first.names]


def _same_images(first: Evaluation, second: Evaluation) -> bool:
    return first.classes == second.classes and set(first.names) == set(second.names)


def _same_masks(first: Evaluation, second: Evaluation) -> bool:
    """Whether the true pixels of each class are as many in each image."""
    order = _order(first, second)
    return bool(torch.equal(first.counts.sum(-1), second.counts[order].sum(-1)))


def _mask_warnings(names: Sequence[str], scores: Sequence[Evaluation]) -> list[str]:
    return [
        f"{name} was scored with other masks than {names[0]}: in images of the same name the true classes have "
        "different numbers of pixels. Their scores cannot be compared."
        for name, other in zip(names[1:], scores[1:], strict=True)
        if _same_images(scores[0], other) and not _same_masks(scores[0], other)
    ]


def _class_warnings(names: Sequence[str], tables: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{name} has other classes than {names[0]} ({', '.join(sorted(set(table) ^ set(tables[0])))}); "
        "their means are over different classes."
        for name, table in zip(names[1:], tables[1:], strict=True)
        if set(table) != set(tables[0])
    ]


# --- text ------------------------------------------------------------------------------------------------------------


def _score_cells(values: Sequence[float | None], *, starred: bool) -> list[str]:
    shown = [DASH if value is None else f"{value:.3f}" for value in values]
    numbers = {text for text in shown if text != DASH}
    best = max(numbers, default="")
    # runs that are equal as shown share the star; a row of equals has none
    return [f"{text}*" if starred and text == best and len(numbers) > 1 else f"{text} " for text in shown]


def _setting_cell(value: object) -> str:
    text = DASH if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    return f"{text} "


def _heads(runs: Sequence[str], width: int) -> tuple[list[str], str]:
    """Headings of the columns, and a legend where they are letters."""
    if all(len(run) <= max(12, (width - 24) // len(runs) - 2) for run in runs):
        return [f"{run} " for run in runs], ""
    heads = [chr(ord("A") + i) if i < 26 else f"#{i + 1}" for i in range(len(runs))]
    return [f"{head} " for head in heads], "\n".join(f"{head}  {run}" for head, run in zip(heads, runs, strict=True))


def _tables(title: str, heads: Sequence[str], rows: Sequence[tuple[str, list[str]]], width: int) -> list[str]:
    """One table, or several one below the other where the columns do not fit beside each other."""
    longest = max(12, width // 3)
    clipped = [(_clipped(name, width // 2), [_clipped(cell, longest) for cell in cells]) for name, cells in rows]
    label = max(len(title), *(len(name) for name, _ in clipped))
    widths = [
        max(len(_clipped(heads[i], longest)), *(len(cells[i]) for _, cells in clipped)) for i in range(len(heads))
    ]
    tables = []
    for columns in _blocks(widths, width - label):
        lines = [title.ljust(label) + "".join("  " + _clipped(heads[i], longest).rjust(widths[i]) for i in columns)]
        lines.append("-" * len(lines[0].rstrip()))
        lines += [
            name.ljust(label) + "".join("  " + cells[i].rjust(widths[i]) for i in columns) for name, cells in clipped
        ]
        tables.append("\n".join(line.rstrip() for line in lines))
    return tables


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Column numbers, in runs that fit into the room; at least one column each."""
    blocks: list[list[int]] = [[]]
    used = 0
    for column, width in enumerate(widths):
        if blocks[-1] and used + width + 2 > room:
            blocks.append([])
            used = 0
        blocks[-1].append(column)
        used += width + 2
    return blocks


def _clipped(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text.rstrip()[: width - 4]}... "
