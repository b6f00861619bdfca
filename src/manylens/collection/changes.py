"""What happened to the files of a collection between two readings of it.

In: images then and now. Out: `Changes`, by path. Promise: files are told apart by their bytes, never by date or size; a
file with the same bytes under another name was moved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from manylens.text import counted, printable
from manylens.types import Image

_SHOWN = 3
"""Names in a line that a person reads."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Paths in the collection's folder, sorted. added: of bytes that were nowhere, or of one more copy. removed: files
    that are gone. moved: (from, to). edited: other bytes under the same path."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    moved: tuple[tuple[str, str], ...] = ()
    edited: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """What happened to files that were there, in a sentence; empty where that is nothing."""
        parts = [
            _told("removed", self.removed),
            _told("moved", [f"{before} to {after}" for before, after in self.moved]),
            _told("edited, and taken for new ones", self.edited),
        ]
        return "; ".join(part for part in parts if part)


def changes(before: Iterable[Image], now: Iterable[Image]) -> Changes:
    was = {path: image.id for image in before for path in image.paths}
    has = {path: image.id for image in now for path in image.paths}
    came: dict[str, list[str]] = {}
    for path in sorted(has.keys() - was.keys()):
        came.setdefault(has[path], []).append(path)
    removed, moved = [], []
    for path in sorted(was.keys() - has.keys()):
        if to := came.get(was[path]):
            moved.append((path, to.pop(0)))
        else:
            removed.append(path)
    return Changes(
        added=tuple(sorted(path for paths in came.values() for path in paths)),
        removed=tuple(removed),
        moved=tuple(moved),
        edited=tuple(sorted(path for path in was.keys() & has.keys() if was[path] != has[path])),
    )


def _told(what: str, paths: Iterable[str]) -> str:
    every = list(paths)
    if not every:
        return ""
    named = ", ".join(printable(path) for path in every[:_SHOWN])
    more = f" and {len(every) - _SHOWN:,} more" if len(every) > _SHOWN else ""
    return f"{counted(len(every), 'file was', 'files were')} {what} ({named}{more})"
