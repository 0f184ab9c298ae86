"""Write docs/settings.md from the settings themselves: `python scripts/settings_table.py`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

from pixelwise.config import Config

TARGET = Path(__file__).parents[1] / "docs" / "settings.md"

HEAD = """# All settings

`--set KEY=VALUE` on the command line, or a YAML file (`--config`) with the sections as mappings. An unknown key is
refused with the nearest one. Settings that are not given are chosen by the plan where it has a rule for them, whatever
the default below; `plan.json` says what it chose and why. This page is written by `python scripts/settings_table.py`.

| setting | default | meaning |
|---|---|---|
"""


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Dotted name, default and meaning of every setting."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from rows(inner, f"{prefix}{name}.")
        else:
            choices = get_args(inner) if get_origin(inner) is Literal else ()
            listed = f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""
            yield f"{prefix}{name}", field.default, f"{field.description or ''}{listed}"


def page() -> str:
    """The text of docs/settings.md."""
    return HEAD + "".join(
        f"| `{key}` | `{_as_yaml(default)}` | {' '.join(meaning.split())} |\n" for key, default, meaning in rows(Config)
    )


def _as_yaml(value: object) -> str:
    text = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True)
    return text.removesuffix("...\n").strip()


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
