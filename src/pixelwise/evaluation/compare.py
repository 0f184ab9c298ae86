"""Runs beside each other: their scores, and the settings in which they differ."""

import json
import math
import shlex
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
from pixelwise.facts import read_facts
from pixelwise.metrics.counts import number
from pixelwise.metrics.intervals import Difference, difference
from pixelwise.metrics.weighted import ratios

DASH = "-"

SCORES = "scores.json"

POOLED = "mIoU, pooled"
"""The score that the test is made with."""

STAR = "* better than each other run by more than chance (paired test of the mIoU, p < 0.05)"

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
    """Settings, by dotted name, that are not the same in all runs, `started_from` and `teacher` among them; none where
    a run does not have one, or where its settings are not known."""
    warnings: tuple[str, ...]
    """Why these scores may not be comparable: one sentence each."""
    settings_known: bool
    """Of all runs."""
    same_images: bool
    """All were scored on the same images with the same masks; else no score is better than another."""
    same_classes: bool
    """All have the same classes; else no mean over classes is better than another."""

    @property
    def winner(self) -> int | None:
        """Which run has a clearly higher mIoU than each other one; none where the test cannot tell, or was not made."""
        if len(self.verdicts) < len(self.runs) - 1 or not all(one.difference.is_clear for one in self.verdicts):
            return None
        return self.runs.index(self.verdicts[0].better)

    def to_json(self) -> str:
        """The comparison as a JSON object with the fields of this class."""
        tree = {
            "runs": self.runs,
            "scores": self.scores,
            "iou": self.iou,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "settings": self.settings,
            "warnings": self.warnings,
            "settings_known": self.settings_known,
            "same_images": self.same_images,
            "same_classes": self.same_classes,
        }
        return json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False, default=str)

    def to_text(self, width: int = 100) -> str:
        """Tables for a terminal: an mIoU that is clearly the highest bears a star; names that do not fit get letters.

        Args:
            width: characters per line, at least 40; what does not fit is put into a further table below.
        """
        width = max(width, 40)
        starred = {POOLED: self.winner}
        score_rows = [(name, _score_cells(values, starred.get(name))) for name, values in self.scores.items()]
        score_rows += [(f"IoU {name}", _score_cells(values)) for name, values in self.iou.items()]
        setting_rows = [(name, [_setting_cell(value) for value in values]) for name, values in self.settings.items()]
        heads, legend = _heads(self.runs, width)
        parts = [legend, *_tables("score", heads, score_rows, width)]
        if self.winner is not None:
            parts.append(textwrap.fill(STAR, width))
        parts += [textwrap.fill(verdict.describe(), width) for verdict in self.verdicts]
        if setting_rows:
            parts += _tables("setting", heads, setting_rows, width)
        elif self.settings_known:
            parts.append("All settings are equal.")
        parts += [textwrap.fill(f"Warning: {warning}", width) for warning in self.warnings]
        return "\n\n".join(part for part in parts if part)


def compare(runs: Sequence[Path]) -> Comparison:
    """Put the scores of runs, or of evaluations in other folders, and the settings behind them beside each other.

    Args:
        runs: folders, at least two.

    Raises:
        ConfigError: there are fewer than two.
        DataError: a folder or its scores are missing, or a file is damaged.
    """
    if len(runs) < 2:
        raise ConfigError(f"A comparison needs two runs or more; {len(runs)} given.", remedy=_which(runs))
    scores = [read_headline(_scores_of(run)) for run in runs]
    settings = [_settings_of(run, each) for run, each in zip(runs, scores, strict=True)]
    names = _short_names(runs)
    counted = [read_scores(_scores_of(run)) for run in runs]
    by_class = [{row.name: row.iou for row in each.pooled.per_class} for each in scores]
    other_images = (*_image_warnings(names, scores), *_mask_warnings(names, counted))
    other_classes = _class_warnings(names, by_class)
    return Comparison(
        runs=names,
        scores={
            POOLED: tuple(each.pooled.miou for each in scores),
            "mean Dice, pooled": tuple(each.pooled.dice for each in scores),
            "pixel accuracy": tuple(each.pooled.pixel_accuracy for each in scores),
            "mIoU, mean of images": tuple(each.image_mean.miou for each in scores),
            "Dice, mean of images": tuple(each.image_mean.dice for each in scores),
        },
        iou={name: tuple(table.get(name) for table in by_class) for name in _union(by_class)},
        verdicts=_verdicts(names, counted, [bool(each.trained_on) for each in scores]),
        settings=_differences(settings),
        settings_known=None not in settings,
        warnings=(*_cautions(names, scores), *other_images, *other_classes, *_unknown_settings(names, settings)),
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


def _scores_of(run: Path) -> Path:
    if not run.is_dir():
        raise DataError("There is no such run folder.", where=run, remedy=_REMEDY)
    if not (run / SCORES).exists():
        remedy = _which([run]) if _scored_below(run) else _REMEDY
        raise DataError(f"This folder is not a finished run: {SCORES} is missing.", where=run, remedy=remedy)
    return run / SCORES


def _which(runs: Sequence[Path]) -> str:
    """What to write: the folders that hold runs, if there are any, stand for these."""
    below = [folder for run in runs for folder in _scored_below(run)]
    return f"Write: compare {shlex.join(map(str, below)) if len(below) > 1 else 'runs/A runs/B'}"


def _scored_below(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob(f"*/{SCORES}"))


def _settings_of(folder: Path, scores: Headline) -> dict[str, Any] | None:
    """All settings by dotted name, and what the run began with and learnt from; none where they are not known.

    The folder of an evaluation names the model, which lies in the folder of its run.
    """
    named = Path(scores.model)
    places = (folder, named, named.parent) if scores.model else (folder,)
    home = next((place for place in places if (place / "config.yaml").exists()), None)
    if home is None:
        return None
    settings = dict(_flat(_read_settings(home / "config.yaml")))
    if not (home / "run.json").exists():
        return settings
    said = read_facts(home / "run.json")
    return settings | {"started_from": said.started_from, "teacher": said.teacher}


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


def _differences(settings: Sequence[Mapping[str, Any] | None]) -> dict[str, tuple[Any, ...]]:
    known = [each for each in settings if each is not None]
    differing = [key for key in _union(known) if any(each.get(key) != known[0].get(key) for each in known)]
    return {key: tuple(each.get(key) if each is not None else None for each in settings) for key in differing}


def _cautions(names: Sequence[str], scores: Sequence[Headline]) -> list[str]:
    """Which scores may be too good."""
    return [
        f"{name}: {each.caution}.{' It is held against no other.' if each.trained_on else ''}"
        for name, each in zip(names, scores, strict=True)
        if each.caution
    ]


def _unknown_settings(names: Sequence[str], settings: Sequence[Mapping[str, Any] | None]) -> list[str]:
    return [
        f"The settings of {name} are not known: the folder of the run that was scored is not there."
        for name, each in zip(names, settings, strict=True)
        if each is None
    ]


def _image_warnings(names: Sequence[str], scores: Sequence[Headline]) -> list[str]:
    first, *others = [{image.name for image in each.per_image} for each in scores]
    return [
        f"{name} was scored on other images than {names[0]}: {len(other - first)} of its {len(other)} are not among "
        f"the {len(first)} of {names[0]}, and {len(first - other)} are missing. Their scores cannot be compared; "
        "evaluate both on the same images."
        for name, other in zip(names[1:], others, strict=True)
        if other != first
    ]


def _verdicts(names: Sequence[str], scores: Sequence[Evaluation], leaked: Sequence[bool]) -> tuple[Verdict, ...]:
    """The best run against each of the others that can be held against it; none that knows images is."""
    fair = [(name, each) for name, each, knows in zip(names, scores, leaked, strict=True) if not knows]
    if not fair:
        return ()
    winner, best = max(fair, key=lambda pair: (not math.isnan(pair[1].miou), pair[1].miou))
    return tuple(
        Verdict(winner, name, _difference(best, other))
        for name, other in fair
        if other is not best and _same_images(best, other) and _same_masks(best, other)
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


def _score_cells(values: Sequence[float | None], starred: int | None = None) -> list[str]:
    shown = [DASH if value is None else f"{value:.3f}" for value in values]
    return [f"{text}{'*' if index == starred else ' '}" for index, text in enumerate(shown)]


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
    clipped = [(_clipped(name, width // 2), [_ending(cell, longest) for cell in cells]) for name, cells in rows]
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


def _ending(text: str, width: int) -> str:
    """As much of the end as fits: that of a path tells more than its beginning."""
    return text if len(text) <= width else f"...{text[3 - width :]}"


def _clipped(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text.rstrip()[: width - 4]}... "
