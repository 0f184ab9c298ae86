"""Names of a module that are imported from their homes when they are first used (PEP 562)."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any


def attribute(module: str, homes: Mapping[str, Sequence[str]], name: str) -> Any:
    """What a name of a module stands for.

    Args:
        module: that is asked for the name.
        homes: of each module that has some of its names, these.
        name: the one that is used.

    Raises:
        AttributeError: it is in none of them.
    """
    for home, names in homes.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module '{module}' has no attribute '{name}'")
