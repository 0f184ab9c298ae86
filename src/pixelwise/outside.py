"""Parts of a user's own, named in the settings as `module:name` and imported from their file."""

import importlib
import sys
from pathlib import Path
from typing import Any

from pixelwise.errors import ConfigError


def is_outside(name: str) -> bool:
    """Whether a name is that of a part outside of Pixelwise."""
    return ":" in name


def find(name: str, setting: str) -> Any:
    """What the name stands for.

    The module is looked for in the working directory first, as `python -m` does, then where Python finds all others.

    Args:
        name: such as `my_parts:MyEncoder`, for MyEncoder in my_parts.py.
        setting: that holds it.

    Raises:
        ConfigError: there is no such module, it cannot be imported, or holds nothing of that name.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        missing = getattr(error, "name", None) == module_name.partition(".")[0]
        why = f"there is no {module_name}.py here, nor is such a package installed" if missing else str(error)
        file = f"{module_name.partition('.')[0]}.py"
        raise ConfigError(
            f"'{setting}' is {name}, which cannot be imported: {why}.",
            remedy=f"Run in the folder that holds {file}, or add that folder to PYTHONPATH.",
        ) from None
    except Exception as error:
        raise ConfigError(f"'{setting}' is {name}, and its import fails: {type(error).__name__}: {error}.") from error
    finally:
        sys.path.remove(here)  # a file of the user's shall not take the place of a library that is imported later
    if not callable(getattr(module, attribute, None)):
        names = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise ConfigError(
            f"'{setting}' is {name}, but {module_name} has no class or function '{attribute}'.",
            where=getattr(module, "__file__", None),
            remedy=f"It has {', '.join(names[:8]) or 'none'}.",
        )
    return getattr(module, attribute)
