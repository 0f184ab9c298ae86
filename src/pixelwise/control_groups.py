"""Control groups of Linux: what a container, or a job of a scheduler, may take of its machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Groups:
    """The control groups that this process is in, of both versions; none on another system."""

    root: Path = Path("/sys/fs/cgroup")
    """Where Linux tells their limits."""
    own: Path = Path("/proc/self/cgroup")
    """Where it tells which of them this process is in."""

    def limiting(self, controller: str) -> Iterator[tuple[Path, Literal[1, 2]]]:
        """Folders of the groups that limit this process, and their version: a limit may be that of any of them.

        Args:
            controller: what is limited: `memory` or `cpu`.
        """
        try:
            lines = self.own.read_text().splitlines()
        except OSError:  # another system
            return
        for line in lines:
            number, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                yield from ((group, 1) for group in _upwards(self.root / controller, path))
            elif number == "0":
                yield from ((group, 2) for group in _upwards(self.root, path))


HERE = Groups()
"""Those of this process."""


def _upwards(top: Path, path: str) -> list[Path]:
    """A group and those around it; a container may see neither its path nor what is above it, but the top."""
    group = top / path.lstrip("/")
    return [folder for folder in (group, *group.parents) if folder.is_relative_to(top)]
