"""What a run folder holds, read without holding or changing it.

In: the path of a folder. Out: what is asked, or nothing where there is no run, or one of another schema, which whoever
continues it brings up to date. Promise: no file is written, and whoever holds the run is not disturbed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from manylens.errors import StoreError
from manylens.files import DATABASE_NAME
from manylens.store.explained import explained, refuse_strangers, usable
from manylens.store.schema import open_to_read


def answers_held(path: str | os.PathLike[str]) -> int:
    """How many answers a run folder holds, read without holding or changing it; 0 where there is no run yet.

    Raises StoreError where no run could begin: a file, or a folder that holds other files or cannot be read.
    """
    folder = Path(path)
    with usable(folder):
        if not (folder / DATABASE_NAME).is_file():
            if folder.exists():
                refuse_strangers(folder)
            return 0
    with _reader(folder) as reader:
        return int(reader.execute("SELECT COUNT(*) FROM answers").fetchone()[0])


_RECENT = 500
"""Answers of a kind whose times are averaged: the newest, for servers and machines change."""


@dataclass(frozen=True, slots=True)
class Took:
    """What calls of a kind took on average: seconds; tokens in and out, None where none were counted."""

    seconds: float
    tokens: tuple[float, float] | None


def peek_pace(path: str | os.PathLike[str], model: str) -> tuple[Took, Took | None] | None:
    """What looks and questions of a model took here; None where there were no looks. Read without holding or changing
    the run. model: its identity, or that and a blank or a colon begin it."""
    folder = Path(path)
    if not (folder / DATABASE_NAME).is_file():
        return None
    query = (
        "SELECT AVG(seconds), AVG(tokens_in), AVG(tokens_out) FROM (SELECT seconds, tokens_in, tokens_out FROM answers "
        "WHERE kind IN ({}) AND model IN ({}) AND seconds > 0 ORDER BY rowid DESC LIMIT ?)"
    )
    with contextlib.suppress(StoreError), _reader(folder) as reader:
        begins = model if model[-1:] == ":" else f"{model} "
        known = reader.execute("SELECT id, identity FROM models")
        own = [number for number, name in known if name == model or name.startswith(begins)]

        def took(kinds: str) -> Took | None:
            row = reader.execute(query.format(kinds, ",".join("?" * len(own))), (*own, _RECENT)).fetchone()
            tokens = None if row[1] is None or row[2] is None else (float(row[1]), float(row[2]))
            return None if row[0] is None else Took(float(row[0]), tokens)

        looks = took("'look'")
        return None if looks is None else (looks, took("'choose', 'complete'"))
    return None


def peek_thumbnails(path: Path, image_ids: Iterable[str]) -> dict[str, bytes]:
    """The stored JPEG bytes of those of these images that the run has, read without holding or changing it; none where
    there is no run any more, or it cannot be read."""
    if not (path / DATABASE_NAME).is_file():
        return {}
    with contextlib.suppress(StoreError), _reader(path) as reader:
        rows = [
            reader.execute("SELECT image_id, jpeg FROM thumbnails WHERE image_id = ?", (i,)).fetchone()
            for i in image_ids
        ]
        return {row[0]: bytes(row[1]) for row in rows if row is not None}
    return {}


@contextlib.contextmanager
def _reader(folder: Path) -> Iterator[sqlite3.Connection]:
    with explained(folder), contextlib.closing(open_to_read(folder / DATABASE_NAME, briefly=True)) as reader:
        yield reader
