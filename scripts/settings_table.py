"""Write docs/settings.md from the settings themselves: `python scripts/settings_table.py`."""

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from pixelwise.config import SIZES, Config

TARGET = Path(__file__).parents[1] / "docs" / "settings.md"

HEAD = """# All settings

`--set KEY=VALUE` on the command line, one for each setting (`--set data.patch_size='[512, 512]' --set
data.resize=null`), or a YAML file (`--config`) with the sections as mappings. An unknown key is refused with the
nearest one. `null` means: none. Settings that are not given are chosen by the plan where it has a rule for them,
whatever the default below; `plan.json` says what it chose and why. They are settings of training, and stay with the
run: `predict` and `evaluate` use its `prediction.*` and `evaluation.*`. This page is written by `python
scripts/settings_table.py`.

## Named networks

`--set model=NAME` stands for these; `--set model=small --set model.width=40` changes one of them.

| name | settings |
|---|---|
"""

TABLE = """
## Settings

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
            parts = get_args(inner) if get_origin(inner) in (UnionType, Union) else (inner,)
            choices = [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]
            listed = f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""
            yield f"{prefix}{name}", field.default, f"{field.description or ''}{listed}"


def page() -> str:
    """The text of docs/settings.md."""
    networks = "".join(
        f"| `{name}` | {', '.join(f'`{key}: {_as_yaml(value)}`' for key, value in size.items())} |\n"
        for name, size in SIZES.items()
    )
    settings = "".join(
        f"| `{key}` | `{_as_yaml(default)}` | {' '.join(meaning.split())} |\n" for key, default, meaning in rows(Config)
    )
    return HEAD + networks + TABLE + settings


def _as_yaml(value: object) -> str:
    text = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True)
    return text.removesuffix("...\n").strip()


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
