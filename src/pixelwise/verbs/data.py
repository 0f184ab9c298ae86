"""What can be done with files of images and masks before anything is trained."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pixelwise.data import check as checks
from pixelwise.data import finding, repair
from pixelwise.data import folder as folders
from pixelwise.data.dataset import SPLIT_NAMES, Dataset
from pixelwise.data.finding import Finding
from pixelwise.data.measure import measure as measure_files
from pixelwise.data.repair import Repair
from pixelwise.errors import DataError
from pixelwise.training.watch import Watcher


def check(data: Path | str, watcher: Watcher | None = None) -> tuple[Dataset, list[Finding]]:
    """Look at every file of a data set once and list every problem.

    Args:
        data: a folder of images and masks, or a data.yaml.
        watcher: told how far it is.

    Raises:
        DataError: there are no pairs of images and masks, or it is not clear which belong together.
    """
    dataset = folders.scan(Path(data))
    return dataset, checks.examine(dataset, partial((watcher or Watcher()).work, "checking files"))


def fix(
    data: Path | str, out: Path | str, watcher: Watcher | None = None
) -> tuple[Dataset, list[Finding], list[Repair]]:
    """Write a copy of a data set in which what can be repaired is, and what cannot be is left out.

    Its table `repairs.csv` says what was done to each file.

    Args:
        data: a folder of images and masks, or a data.yaml.
        out: a folder that is empty or does not exist, outside of the data.
        watcher: told how far it is.

    Returns:
        The data set as it was, what is wrong with it, and what became of each file.

    Raises:
        DataError: it is not clear which images and masks belong together or what masks mean, nothing is left, or the
            copy cannot be written.
    """
    watcher = watcher or Watcher()
    dataset = folders.scan(Path(data))
    repair.refuse_place(Path(out), dataset.root)
    measured = measure_files(dataset, partial(watcher.work, "checking files"))
    findings = checks.judge(dataset, measured)
    return dataset, findings, repair.write_copy(dataset, measured, Path(out), partial(watcher.work, "writing the copy"))


def describe(dataset: Dataset) -> list[str]:
    """What was found in a folder, a line each."""
    number = len(dataset.cases)
    counts = f"{number} image{'s' * (number != 1)} with masks, classes: {', '.join(dataset.classes.names)}"
    return [dataset.layout, dataset.encoding.description, counts, *_given_split(dataset)]


def _given_split(dataset: Dataset) -> list[str]:
    """How many images the folder or its data.yaml puts on each side, if it does."""
    numbers = Counter(case.split for case in dataset.cases)
    sides = [f"{side} {numbers[side]}" for side in SPLIT_NAMES if numbers[side]]
    if not sides:
        return []
    return [f"split given: {', '.join([*sides, *([f'on none of them {numbers[None]}'] if numbers[None] else [])])}"]


@dataclass(frozen=True)
class Checked:
    """Data that can be trained on."""

    source: Path
    """The folder or data.yaml that was named."""
    dataset: Dataset
    findings: list[Finding]


def checked(data: Path | str | Checked, watcher: Watcher) -> Checked:
    """Data that can be trained on, and what was found; what was checked already is not looked at again.

    Raises:
        DataError: they cannot be trained on.
    """
    if isinstance(data, Checked):
        return data
    dataset, findings = check(data, watcher)
    for line in describe(dataset):
        watcher.say(line)
    if finding.is_fatal(findings):
        raise DataError(f"This data cannot be trained on.\n\n{finding.to_text(findings)}", where=data)
    for line in dataset.notices:  # they are among the findings
        watcher.say(line)
    return Checked(Path(data), dataset, findings)
