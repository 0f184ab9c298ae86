"""What a folder of predictions says of itself: which file was made from which image by which model.

So the same command again does only what is missing, and nothing is replaced that was not written by a prediction or was
changed by hand since. Every process writes a file of its own, one line before an image is predicted and one after.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ValidationError

from pixelwise.data.loader import Share
from pixelwise.errors import DataError
from pixelwise.files import cannot_write, make_folder

NAME = "predictions"
"""Of the files, which end in .jsonl; those of further processes carry their number."""

State = tuple[int, int]
"""Bytes of a file, and when it was last changed, in nanoseconds."""


class Entry(BaseModel):
    """One line: an image is about to be predicted, or was."""

    source: str
    """The image, as an absolute path."""
    source_state: State
    model: str
    """Identity of the model."""
    files: dict[str, State | None]
    """What was written, below the folder; no state before it is."""


def share_of_this_process(environment: Mapping[str, str] = os.environ) -> Share:
    """Which of the images this process predicts, as torchrun or srun say; all where neither has started it.

    Raises:
        DataError: what they say is no number.
    """
    for rank, processes in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if rank in environment and processes in environment:
            try:
                return Share(int(environment[rank]), int(environment[processes]))
            except ValueError:
                raise DataError(f"{rank} and {processes} say which process this is, but are no numbers.") from None
    return Share()


@dataclass
class Ledger:
    """The entries of a folder.

    Args:
        folder: of predictions.
        share: says which file this process writes.
    """

    folder: Path
    share: Share = field(default_factory=Share)
    entries: dict[str, Entry] = field(default_factory=dict)
    """The last one of each file, by its path below the folder."""

    @classmethod
    def of(cls, folder: Path, share: Share) -> "Ledger":
        """Read what is there; lines that a power failure has damaged are passed over."""
        ledger = cls(folder, share)
        for path in sorted(folder.glob(f"{NAME}*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    ledger._take(Entry.model_validate_json(line))
                except ValidationError:
                    continue
        return ledger

    def has(self, source: Path, model: str, targets: Sequence[Path]) -> bool:
        """Whether all files of an image are there, made by this model from this image, and as they were written."""
        entries = [self.entries.get(self._name(target)) for target in targets]
        return all(
            entry is not None
            and entry.model == model
            and entry.source_state == state_of(source)
            and entry.files[self._name(target)] == state_of(target) is not None
            for entry, target in zip(entries, targets, strict=True)
        )

    def edited(self, targets: Sequence[Path]) -> list[Path]:
        """Those that were changed since they were written."""
        return [target for target in targets if state_of(target) not in (None, self._written(target))]

    def foreign(self, targets: Sequence[Path]) -> list[Path]:
        """Those that are there though no prediction wrote them."""
        return [target for target in targets if self._name(target) not in self.entries and target.exists()]

    def begin(self, source: Path, model: str, targets: Sequence[Path]) -> None:
        """Write down that these files are about to be written.

        Raises:
            WriteError: it cannot be written.
        """
        self._note(source, model, dict.fromkeys(map(self._name, targets)))

    def end(self, source: Path, model: str, targets: Sequence[Path]) -> None:
        """Write down that these files were written.

        Raises:
            WriteError: it cannot be written.
        """
        self._note(source, model, {self._name(target): state_of(target) for target in targets})

    def _note(self, source: Path, model: str, files: dict[str, State | None]) -> None:
        entry = Entry(source=str(source.resolve()), source_state=state_of(source) or (0, 0), model=model, files=files)
        number = f"-{self.share.rank}" if self.share.rank else ""
        path = make_folder(self.folder) / f"{NAME}{number}.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(entry.model_dump_json() + "\n")
        except OSError as error:
            raise cannot_write(path, error) from None
        self._take(entry)

    def _take(self, entry: Entry) -> None:
        self.entries |= dict.fromkeys(entry.files, entry)

    def _written(self, target: Path) -> State | None:
        """The state in which a file was left; what it is now if that is not known."""
        name = self._name(target)
        entry = self.entries.get(name)
        return (entry.files[name] if entry is not None else None) or state_of(target)

    def _name(self, target: Path) -> str:
        return target.relative_to(self.folder).as_posix()


def state_of(path: Path) -> State | None:
    """Size and time of a file; none if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
