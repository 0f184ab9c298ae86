"""What is wrong with a data set, as the dataset doctor says it: in text for people, in JSON for programs."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pixelwise.data.folder import SeveralProblemsError
from pixelwise.errors import DataError

Severity = Literal["fatal", "warning", "notice"]
SEVERITIES: tuple[Severity, ...] = ("fatal", "warning", "notice")

_SHOWN_FILES = 6


@dataclass(frozen=True)
class Finding:
    """One problem, with all files that have it."""

    severity: Severity
    what: str
    """What is wrong, with numbers."""
    files: tuple[Path, ...]
    cause: str
    """How it usually comes about, or what follows from it."""
    remedy: str
    """What to do."""


def of_error(error: DataError) -> list[Finding]:
    """What keeps a folder from being understood, as fatal findings."""
    problems = error.problems if isinstance(error, SeveralProblemsError) else (error,)
    return [
        Finding("fatal", one.what, (Path(one.where),) if one.where is not None else (), "", one.remedy)
        for one in problems
    ]


def is_fatal(findings: Iterable[Finding]) -> bool:
    """Whether training on these data has to be refused."""
    return any(finding.severity == "fatal" for finding in findings)


def to_text(findings: Sequence[Finding], width: int = 100) -> str:
    """The findings as paragraphs of plain text, `width` characters wide."""
    return "\n\n".join(_paragraph(finding, width) for finding in findings) or "No problems were found."


def to_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings as dictionaries of text, all files listed."""
    return [
        {
            "severity": finding.severity,
            "what": finding.what,
            "files": [str(path) for path in finding.files],
            "cause": finding.cause,
            "remedy": finding.remedy,
        }
        for finding in findings
    ]


def _paragraph(finding: Finding, width: int) -> str:
    body = " ".join(part for part in (finding.what, finding.cause, finding.remedy) if part)
    text = textwrap.fill(f"{finding.severity.upper()}: {body}", width, subsequent_indent="  ", break_on_hyphens=False)
    lines = [f"  - {path}" for path in finding.files[:_SHOWN_FILES]]
    more = len(finding.files) - _SHOWN_FILES
    return "\n".join([text, *lines, *([f"  - and {more} more"] if more > 0 else [])])
