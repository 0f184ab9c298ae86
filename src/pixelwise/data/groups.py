"""Which cases belong together: by a pattern in their names, or by a column of a table."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pixelwise.data.dataset import Case
from pixelwise.data.formats import split_name
from pixelwise.data.masks import shortened
from pixelwise.errors import ConfigError, DataError

Grouping = Callable[[Case], str]
"""The group of a case."""


class GroupTable(BaseModel):
    """A table with a row for each image, as CSV with a head; commas, semicolons or tabs between the columns."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    file: str
    """Relative to the data.yaml."""
    column: str
    """What says the group, such as a patient."""
    image: str | None = None
    """The column with the image's name: a file name, a path below the folder, or either without suffix; the first if
    none is named."""


def by_pattern(pattern: str) -> Grouping:
    """The first group of a regular expression that is searched in the case name, or all that it finds.

    Raises:
        ConfigError: it is no regular expression.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"'group' is {pattern!r}: {error}.", remedy="Write a regular expression.") from None

    def group_of(case: Case) -> str:
        match = expression.search(case.name)
        if match is None:
            raise DataError(f"'group: {pattern}' does not fit the case {case.name}.", remedy="Widen the expression.")
        return match.group(1) if match.groups() else match.group()

    return group_of


def by_table(folder: Path, table: GroupTable, root: Path) -> Grouping:
    """The entry of a column in the row of the image.

    Args:
        folder: that the table's path is relative to.
        table: file and columns.
        root: folder of the data, which paths in the table are relative to.

    Raises:
        ConfigError: there is no such file or column.
        DataError: two rows of one image contradict each other.
    """
    path = folder / table.file
    columns, rows = _rows(path)
    image = table.image if table.image is not None else columns[0]
    for name in (table.column, image):
        if name not in columns:
            raise ConfigError(
                f"There is no column '{name}'; there are {', '.join(columns)}.",
                where=path,
                remedy="Name one of these under 'group_table'.",
            )
    groups: dict[str, str] = {}
    for row in rows:
        name, group = (row[image] or "").strip().replace("\\", "/"), (row[table.column] or "").strip()
        if groups.setdefault(name, group) != group:
            raise DataError(f"'{name}' has two groups, {groups[name]} and {group}.", where=path, remedy="Keep one row.")

    def group_of(case: Case) -> str:
        relative = case.image.relative_to(root) if case.image.is_relative_to(root) else case.image
        stem = split_name(case.image.name)[0]
        names = (relative.as_posix(), relative.with_name(stem).as_posix(), case.name, case.image.name, stem)
        found = next((groups[name] for name in names if name in groups), None)
        if not found:
            known = shortened(list(groups))
            raise DataError(
                f"The column '{table.column}' has no entry for the image {relative.as_posix()} (there are {known}).",
                where=path,
                remedy="Add its row, or take the image out of the data.",
            )
        return found

    return group_of


def _rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns, and a row per image."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The table of groups cannot be read ({error}).", where=path) from None
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ConfigError(f"The table of groups cannot be read ({error}).", where=path) from None
    if not rows:
        raise ConfigError("The table of groups has no rows.", where=path, remedy="Write a head and a row per image.")
    return list(reader.fieldnames or ()), rows
