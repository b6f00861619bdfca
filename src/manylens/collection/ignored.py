"""What to leave out of a folder or to take, written as in .gitignore, matched in bounded time.

In: lines, which may come with a folder of somebody else. Out: a `pathspec.GitIgnoreSpec`. Promise: no line and no name
of a file make a match take longer than some thousand steps for each letter of the path: a regular expression for
`*a*a*a*b` as it is usually written tries all ways to share a name out among the stars.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pathspec
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

_STAR = "[^/]*"
_CLASS = re.compile(r"\[(?:\\.|[^\]\\])*\]")
_MOST_ANY_FOLDERS = 2


def ignore_spec(lines: Iterable[str]) -> pathspec.GitIgnoreSpec:
    """Raises ValueError for a line that is none."""
    return pathspec.GitIgnoreSpec.from_lines(lines, _Line)


class _Line(GitIgnoreSpecPattern):
    """One line."""

    @classmethod
    def pattern_to_regex(cls, pattern: Any) -> tuple[Any, bool | None]:
        regex, include = super().pattern_to_regex(pattern)
        return regex if regex is None else _bounded(regex), include


def _bounded(regex: str) -> str:
    """A star takes as little as lets what is between it and the next star of the same name follow, and keeps to that:
    if the rest then does not match, it would not with more either."""
    if regex.count(".+") > _MOST_ANY_FOLDERS:
        raise ValueError(f"a line has ** at most {_MOST_ANY_FOLDERS} times as folders")
    first, *rest = regex.split(_STAR)
    if not rest:
        return regex
    *between, last = rest
    parts = [_STAR + text if "/" in _CLASS.sub("", text) else f"(?>{_STAR}?{text})" for text in between]
    return "".join([first, *parts, _STAR, last])
