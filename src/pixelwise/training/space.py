"""What a search may choose: for each setting a range or a list, around what the plan has chosen."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from pixelwise import config as configs
from pixelwise.config import Config, Section, describe, keys_of
from pixelwise.data.fingerprint import Fingerprint
from pixelwise.errors import ConfigError, DataError
from pixelwise.training.plan import WIDTHS


class Range(Section):
    """Numbers from `low` to `high`."""

    low: float
    high: float
    log: bool = False
    """Every power of ten is as likely as any other."""

    @model_validator(mode="after")
    def _is_possible(self) -> "Range":
        if not self.low < self.high or (self.log and self.low <= 0.0):
            raise ValueError("low must be less than high, and above 0 where log is true")
        return self


class _Part(Section):
    """A setting's part of a file; pydantic's messages name it."""

    value: Range | Annotated[list[Any], Field(min_length=2)]


@dataclass(frozen=True)
class Space:
    """Settings by dotted name, and what may become of them."""

    parts: Mapping[str, Range | Sequence[Any]]

    def pick(self, trial: Any) -> dict[str, Any]:
        """A value for every setting, as an Optuna trial suggests them."""
        return {
            key: trial.suggest_float(key, part.low, part.high, log=part.log)
            if isinstance(part, Range)
            else _labelled(part)[trial.suggest_categorical(key, list(_labelled(part)))]
            for key, part in self.parts.items()
        }

    def values(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Settings from the parameters that a study keeps: it has text in place of choices."""
        return {
            key: parameters[key] if isinstance(part, Range) else _labelled(part)[parameters[key]]
            for key, part in self.parts.items()
            if key in parameters
        }

    def parameters(self, config: Config) -> dict[str, Any]:
        """The point of the space that is nearest to settings, as a study keeps it; without those that it lacks."""
        found: dict[str, Any] = {}
        for key, part in self.parts.items():
            value = config.value(key)
            if isinstance(part, Range):
                found[key] = min(max(float(value), part.low), part.high)
            elif _label(value) in _labelled(part):
                found[key] = _label(value)
        return found

    def holds(self, config: Config) -> bool:
        """Whether these settings are a point of the space."""
        inside = (
            part.low <= config.value(key) <= part.high
            if isinstance(part, Range)
            else _label(config.value(key)) in _labelled(part)
            for key, part in self.parts.items()
        )
        return all(inside)

    def to_yaml(self) -> str:
        """The text of a file that `read` understands."""
        tree = {key: part.model_dump() if isinstance(part, Range) else list(part) for key, part in self.parts.items()}
        return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None)


def read_text(file: Path) -> str:
    """The content of a file that says what is searched.

    Raises:
        DataError: it is missing or cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        what = "There is no such file of what is searched."
        raise DataError(what, where=file, remedy="Name one, such as the space.yaml of another search.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The file cannot be read ({error}).", where=file) from None


def read(text: str, origin: Path | str, base: Config) -> Space:
    """A space from a file such as `training.learning_rate: {low: 1e-4, high: 1e-2, log: true}`; lists are choices.

    Args:
        text: of the file, YAML.
        origin: what errors name.
        base: settings that the choices shall be possible with.

    Raises:
        ConfigError: it is no such file, or a setting or value does not exist.
    """
    try:
        tree = configs.parse_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"This is not valid YAML: {error}.", where=origin) from None
    if not isinstance(tree, dict) or not tree:
        raise ConfigError(
            "The file must hold settings with what may become of them.",
            where=origin,
            remedy="Write `training.batch_size: [4, 8]`, `training.learning_rate: {low: 1e-4, high: 1e-2, log: true}`.",
        )
    parts = {str(key): _part(str(key), value, origin) for key, value in tree.items()}
    try:
        _refuse_impossible(parts, base, origin)
    except ConfigError as error:
        raise ConfigError(error.what, where=origin, remedy=error.remedy) from None
    return Space(parts)


def _refuse_impossible(parts: Mapping[str, Range | Sequence[Any]], base: Config, origin: Path | str) -> None:
    for key, part in parts.items():
        if isinstance(part, Range) and not isinstance(base.value(key) if key in keys_of(Config) else 0.0, float):
            base.with_values({key: part.low})  # a name that does not exist is told first
            raise ConfigError(f"'{key}' is no number with decimals.", where=origin, remedy="Give a list of choices.")
        for value in (part.low, part.high) if isinstance(part, Range) else part:
            base.with_values({key: value})


def _part(key: str, value: Any, origin: Path | str) -> Range | list[Any]:
    try:
        return _Part(value=_with_numbers(value)).value
    except ValidationError as error:
        said = describe(error, _Part).replace("'value", f"'{key}")
        raise ConfigError(said, where=origin, remedy="Give {low: ..., high: ...}, or a list of two or more.") from None


def _with_numbers(value: Any) -> Any:
    """YAML takes 1e-4 for text."""
    if isinstance(value, list):
        return [float(item) if isinstance(item, str) and _is_number(item) else item for item in value]
    if not isinstance(value, dict):
        return value
    return {key: float(item) if isinstance(item, str) and _is_number(item) else item for key, item in value.items()}


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def around(
    planned: Config, given: set[str], fingerprint: Fingerprint, rates: tuple[float, float] | None = None
) -> Space:
    """The space that is searched where nobody gives one: settings that matter, near the plan's.

    Args:
        planned: settings with nothing left free.
        given: settings that the user has chosen; they are not searched.
        fingerprint: measurements of the training split.
        rates: lowest and highest learning rate, where they were measured; none is around the planned one.
    """
    training, model, patch = planned.training, planned.model, planned.data.patch_size
    image = planned.data.resize or fingerprint.median_size_px
    batches = sorted({max(2, training.batch_size // 2), training.batch_size, 2 * training.batch_size})
    near = WIDTHS.index(model.width) if model.width in WIDTHS else None
    widths = WIDTHS[max(0, near - 1) : near + 2] if near is not None else (model.width,)
    patches = {scale: [round(edge * scale) for edge in patch] for scale in (0.5, 1.0, 1.5)}
    fitting = [
        edges
        for scale, edges in patches.items()
        if scale == 1.0 or (min(edges) >= 4 * model.stride << model.depth and max(edges) <= 2 * max(image))
    ]
    rate = training.learning_rate
    low, high = rates or (rate / 10, rate * 5)
    few_classes = len(fingerprint.class_fractions) < 2
    parts: dict[str, Range | Sequence[Any]] = {
        "training.learning_rate": Range(low=min(low, rate), high=max(high, rate), log=True),
        "training.batch_size": batches,
        "training.weight_decay": Range(low=1e-4, high=1e-1, log=True),
        "augment.strength": Range(low=0.0, high=1.5),
        "augment.rotation_degrees": _with(planned.augment.rotation_degrees, 0.0, 15.0, 180.0),
        "augment.elastic_sigma_px": _with(planned.augment.elastic_sigma_px, 0.0, 10.0),
        "augment.intensity_probability": [0.0, 0.3, 0.6],
        "loss.name": ["dice_cross_entropy", "cross_entropy", "focal", "lovasz"],
        "loss.class_weights": [] if few_classes else ["none", "balanced"],
        "model.width": widths,
        "model.depth": [depth for depth in range(model.depth - 1, model.depth + 2) if _fits(depth, planned)],
        "data.patch_size": fitting if planned.model.padded else [],
        "data.foreground_fraction": _with(planned.data.foreground_fraction, 0.0, 0.33, 0.66),
    }
    wanted = {key: part for key, part in parts.items() if key not in given}
    return Space({key: part for key, part in wanted.items() if isinstance(part, Range) or len(part) > 1})


def _with(planned: float, *others: float) -> list[float]:
    return sorted({planned, *others})


def _fits(depth: int, planned: Config) -> bool:
    """Whether the smallest patches still have maps of several places on the coarsest level."""
    smallest = min(planned.data.patch_size) // 2
    return depth >= 2 and smallest >= 2 * planned.model.stride << depth


def _labelled(choices: Sequence[Any]) -> dict[str, Any]:
    return {_label(choice): choice for choice in choices}


def _label(choice: Any) -> str:
    """A value as a study keeps it, whose own choices are text and numbers only."""
    if isinstance(choice, list | tuple):
        return f"[{', '.join(_label(item) for item in choice)}]"
    return f"{choice:g}" if isinstance(choice, int | float) and not isinstance(choice, bool) else str(choice)
