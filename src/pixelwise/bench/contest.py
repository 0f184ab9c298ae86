"""Other programs at the same work: measured by a Python of their own, right after ours."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelwise.bench import rivals
from pixelwise.bench.figures import Figure
from pixelwise.bench.rivals import Entry
from pixelwise.errors import ConfigError
from pixelwise.timing import Timing


def refuse_other_python(python: Path) -> None:
    """Say at once what would be noticed only after minutes.

    Raises:
        ConfigError: this is no Python, or one without what the measurement needs.
    """
    _run([python, "-c", "import numpy, psutil, torch"], Path())


def with_rivals(figures: Sequence[Figure], name: str, python: Path, say: Callable[[str], None]) -> list[Figure]:
    """The same figures, each with what the programs of another environment take for the same work.

    Args:
        figures: of one kind of work.
        name: of that kind, a key of `FIGURES`.
        python: of the environment.
        say: told of a rival that cannot be measured.

    Raises:
        ConfigError: as for `refuse_other_python`.
    """
    with tempfile.TemporaryDirectory() as folder:  # of our packages, that Python shall see this one alone
        script = Path(rivals.__file__)
        shutil.copytree(script.parents[1], Path(folder) / "pixelwise", ignore=shutil.ignore_patterns("__pycache__"))
        done = _run([python, script, name], Path(folder))
    for line in done.stderr.splitlines():
        if line.startswith(rivals.LEFT_OUT):
            say(line)
    entries = [_entry(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
    return [
        replace(one, rivals=tuple(entry for entry in entries if one.name.startswith(entry.figure))) for one in figures
    ]


def _run(command: Sequence[Path | str], packages: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603  the caller's own Python
            command, env=os.environ | {"PYTHONPATH": str(packages)}, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        last = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
        raise ConfigError(
            f"Rivals cannot be measured with {command[0]} ({last}).", remedy="Run `make bench-rivals`."
        ) from None


def _entry(told: dict[str, Any]) -> Entry:
    return Entry(**(told | {"timing": Timing(**told["timing"])}))
