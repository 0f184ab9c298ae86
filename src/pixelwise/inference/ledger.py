"""What a folder of predictions says of itself: which file was made from which image by which model.

So the same command again does only what is missing, and nothing is replaced that was not written by a prediction or was
changed by hand since. What a file will be is noted before it is put in its place, so that no instant is left in which a
file of ours is not known. Every process writes a file of its own.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ValidationError

from pixelwise.errors import DataError
from pixelwise.files import cannot_write
from pixelwise.launcher import Share

NAME = "predictions"
"""Of the files, which end in .jsonl; those of further processes carry their number."""

State = tuple[int, int]
"""Bytes of a file, and when it was last changed, in nanoseconds."""


class Made(BaseModel, frozen=True):
    """From what, by what and how files were made."""

    source: str
    """The image, as an absolute path."""
    source_state: State | None
    model: str
    """Identity of the model."""
    options: str
    """What was asked for."""

    @classmethod
    def of(cls, source: Path, model: str, options: str) -> "Made":
        """As things are now."""
        return cls(source=str(source.resolve()), source_state=state_of(source), model=model, options=options)


class Entry(BaseModel):
    """One line: the files of an image."""

    made: Made
    before: dict[str, State | None]
    """What stood in the place of each file, by its path below the folder."""
    after: dict[str, State | None]
    """What it is now."""


@dataclass
class Ledger:
    """The entries of a folder.

    Args:
        folder: of predictions.
        share: says which file this process writes.
    """

    folder: Path
    share: Share = field(default_factory=Share)
    entries: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    """Those of each file, by its path below the folder."""

    @classmethod
    def of(cls, folder: Path, share: Share) -> "Ledger":
        """Read what is there; lines that a power failure has damaged are passed over.

        Raises:
            DataError: a file cannot be read.
        """
        ledger = cls(folder, share)
        for path in sorted(folder.glob(f"{NAME}*.jsonl")):
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError as error:
                raise DataError(
                    f"This file says what was predicted here, and cannot be read ({error.strerror}).",
                    where=path,
                    remedy="Change its permissions, or choose another folder with --out.",
                ) from None
            for line in lines:
                try:
                    ledger._take(Entry.model_validate_json(line))
                except ValidationError:
                    continue
        return ledger

    def has(self, made: Made, targets: Sequence[Path]) -> bool:
        """Whether all files of an image are there, made like this, and as they were written."""
        return all(
            any(entry.made == made and entry.after[name] == state for entry in self.entries.get(name, ()))
            for name, state in ((self._name(target), state_of(target)) for target in targets)
        )

    def edited(self, targets: Sequence[Path]) -> list[Path]:
        """Those that were changed since they were written."""
        return [target for target in targets if self._is_edited(target)]

    def foreign(self, targets: Sequence[Path]) -> list[Path]:
        """Those that are there though no prediction wrote them."""
        return [target for target in targets if self._name(target) not in self.entries and state_of(target) is not None]

    def note(self, made: Made, coming: Mapping[Path, Path]) -> None:
        """Write down that files are about to take their places.

        Args:
            made: from what and how.
            coming: where each file will be, and where it lies now.

        Raises:
            WriteError: it cannot be written.
        """
        before = {self._name(target): state_of(target) for target in coming}
        after = {self._name(target): state_of(file) for target, file in coming.items()}
        entry = Entry(made=made, before=before, after=after)
        number = f"-{self.share.rank}" if self.share.rank else ""
        path = self.folder / f"{NAME}{number}.jsonl"
        try:
            with path.open("a+b") as file:
                file.write(_line_break(path) + entry.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(path, error) from None
        self._take(entry)

    def _take(self, entry: Entry) -> None:
        for name in entry.after:
            self.entries[name].append(entry)

    def _is_edited(self, target: Path) -> bool:
        name, state = self._name(target), state_of(target)
        entries = self.entries.get(name, ())
        known = [state for entry in entries for state in (entry.before[name], entry.after[name])]
        return bool(entries) and state is not None and state not in known

    def _name(self, target: Path) -> str:
        return target.relative_to(self.folder).as_posix()


def _line_break(path: Path) -> bytes:
    """What ends a line that a power failure has cut short."""
    content = path.stat().st_size
    if not content:
        return b""
    with path.open("rb") as file:
        file.seek(content - 1)
        return b"" if file.read(1) == b"\n" else b"\n"


def state_of(path: Path) -> State | None:
    """Size and time of a file; none if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
