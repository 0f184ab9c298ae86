"""Patterns of files, as a data.yaml holds them: what they find, and the lines that say them."""

import functools
import json
import posixpath
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pixelwise.data.listing import File
from pixelwise.errors import ConfigError


@functools.lru_cache(maxsize=256)
def regex(pattern: str) -> re.Pattern[str]:
    """`*` is any part of one name and is remembered, `?` one character, `**/` any folders."""
    text = ""
    for piece in re.split(r"(\*\*/|\*|\?)", posixpath.normpath(pattern)):
        text += {"**/": "(?:.*/)?", "*": "([^/]*)", "?": "[^/]"}.get(piece, re.escape(piece))
    return re.compile(text + r"\Z", re.IGNORECASE)


def stars(pattern: str, image: File) -> tuple[str, ...]:
    """What the stars of a pattern stand for in one file; nothing if it does not fit."""
    match = regex(pattern).match(image.posix)
    return tuple(match.groups()) if match else ()


def filled(template: str, image: File, parts: Sequence[str]) -> str:
    """A mask pattern with the placeholders of one image: {stem}, {dir}, {parent}, {1}, {2} ...

    Args:
        template: the pattern.
        image: gives stem, dir and parent.
        parts: what {1}, {2} ... stand for: the stars of the image's own pattern.

    Raises:
        ConfigError: there is no such placeholder.
    """
    values = {
        "stem": image.stem,
        "dir": image.posix_folder,
        "parent": image.folder[-1] if image.folder else ".",
        **{str(number): part for number, part in enumerate(parts, start=1)},
    }

    def value(match: re.Match[str]) -> str:
        if match.group(1) not in values:
            raise ConfigError(
                f"'masks' has the placeholder {match.group()}, which does not exist here.",
                remedy=f"There are {', '.join('{' + name + '}' for name in values)}.",
            )
        return values[match.group(1)]

    return posixpath.normpath(re.sub(r"\{(\w+)\}", value, template))


def of_any_image(template: str) -> re.Pattern[str]:
    """What fits a mask pattern whatever its placeholders stand for."""
    pieces = re.split(r"(\{\w+\}|\*\*/|\*|\?|[^{}*?]*/\.\./)", template.removeprefix("./"))
    free = (piece[:1] in ("{", "*", "?") or piece.endswith("/../") for piece in pieces)
    anything = "".join(".*" if any_text else re.escape(piece) for piece, any_text in zip(pieces, free, strict=True))
    return re.compile(anything + r"\Z", re.IGNORECASE)


class Lookup:
    """Files by pattern, without looking at all of them for each image."""

    def __init__(self, files: Iterable[File]) -> None:
        self._by_path = {file.posix.lower(): file for file in files}
        self._paths = sorted(self._by_path)
        self._by_name: dict[str, list[File]] = defaultdict(list)
        for file in self._by_path.values():
            self._by_name[file.name.lower()].append(file)

    def find(self, pattern: str) -> list[File]:
        """The files that fit a pattern in which all placeholders are filled."""
        pattern = pattern.lower()
        wild = re.search(r"[*?]", pattern)
        if wild is None:
            return [self._by_path[pattern]] if pattern in self._by_path else []
        name = posixpath.basename(pattern)
        if not re.search(r"[*?]", name):
            among: Iterable[File] = self._by_name.get(name, [])
        else:
            among = self._beginning(pattern[: wild.start()])
        # a file name may hold what is a sign in patterns, so that it is compared as it is
        return [file for file in among if regex(pattern).match(file.posix)]

    def _beginning(self, head: str) -> Iterator[File]:
        for path in self._paths[bisect_left(self._paths, head) :]:
            if not path.startswith(head):
                return
            yield self._by_path[path]


def yaml_lines(root: Path, lines: Sequence[tuple[str, str]]) -> str:
    """Lines of a data.yaml for a folder; of several with the same key all but the first are comments."""
    text, seen = f"\npath: {_quoted(root.absolute().as_posix())}", set[str]()
    for key, value in lines:
        text += f"\n{'# or ' if key in seen else ''}{key}: {_quoted(value)}"
        seen.add(key)
    return text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # YAML reads JSON
