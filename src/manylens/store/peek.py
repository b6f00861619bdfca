"""What a run folder holds, read without holding or changing it.

In: the path of a folder. Out: what is asked, or nothing where there is no run, or one of another schema, which whoever
continues it brings up to date. Promise: no file is written, and whoever holds the run is not disturbed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manylens.errors import StoreError
from manylens.files import DATABASE_NAME
from manylens.settings import Settings
from manylens.store.explained import explained, refuse_strangers, usable
from manylens.store.schema import READ_AS, open_to_read
from manylens.text import printable
from manylens.types import Interest


@dataclass(frozen=True, slots=True)
class Held:
    """Answers that a run folder holds of those that a run would ask for, over its interests: looks, and others.
    is_finished: whether every interest was sorted to its end as it would be sorted now, so that nothing is lacking."""

    looks: int = 0
    questions: int = 0
    is_finished: bool = False

    @property
    def answers(self) -> int:
        return self.looks + self.questions


def peek_held(
    path: str | os.PathLike[str],
    model: str,
    interests: Sequence[Interest],
    image_ids: Collection[str],
    settings: Settings,
    image_px: int | None = None,
) -> Held:
    """What the run has about these images, read without holding or changing it; nothing where there is no run yet.

    model: its identity, or that and a blank or a colon begin it. image_px: the size in which pictures are sent to a
    server; in another one than the run's they are other requests. Raises StoreError where no run could begin: a file,
    or a folder that holds other files or cannot be read.
    """
    folder = Path(path)
    with usable(folder):
        if not (folder / DATABASE_NAME).is_file():
            if folder.exists():
                refuse_strangers(folder)
            return Held()
    found = Held(is_finished=bool(interests))
    with contextlib.suppress(StoreError, AttributeError, KeyError, TypeError, ValueError), _reader(folder) as reader:
        if image_px is not None and _read_as(reader).get("image_px", image_px) != image_px:
            return Held()
        if not (known := _own(reader, model)):
            return Held()
        own = json.dumps(known)
        wanted = set(image_ids)
        for interest in interests:
            about = {"interest": printable(interest.text), "own": own}
            looked = wanted.intersection(image_id for (image_id,) in reader.execute(_LOOKED, about))
            ((asked,),) = reader.execute(_ASKED, about)
            is_finished = len(looked) == len(wanted) and _is_sorted(reader, interest, model, settings)
            found = Held(found.looks + len(looked), found.questions + asked, found.is_finished and is_finished)
        return found
    return Held()


_OWN = "interest = :interest AND model IN (SELECT value FROM json_each(:own))"
_LOOKED = (
    f"SELECT image_id FROM answers WHERE kind = 'look' AND {_OWN} UNION "
    "SELECT image_id FROM failures WHERE kind = 'look' AND interest = :interest AND given_up IS NOT NULL"
)
_ASKED = f"SELECT COUNT(*) FROM answers WHERE kind IN ('judge', 'choose', 'complete') AND {_OWN}"


def _is_sorted(reader: sqlite3.Connection, interest: Interest, model: str, settings: Settings) -> bool:
    """Whether an interest was sorted to its end, with these settings, by this model, and nobody corrected it since."""
    row = reader.execute("SELECT settings, account FROM clusterings WHERE slug = ?", (interest.slug,)).fetchone()
    if row is None or reader.execute("SELECT 1 FROM corrections WHERE slug = ? LIMIT 1", (interest.slug,)).fetchone():
        return False
    values, account = json.loads(row[0]), json.loads(row[1])
    same = json.loads(json.dumps(settings.to_dict()))
    for price in ("price_in", "price_out"):
        values[price] = same[price]
    return bool(values == same and not account["is_partial"] and _begins(account.get("identity", ""), model))


def _read_as(reader: sqlite3.Connection) -> dict[str, Any]:
    row = reader.execute("SELECT value FROM meta WHERE name = ?", (READ_AS,)).fetchone()
    values = json.loads(row[0]) if row else {}
    return values if isinstance(values, dict) else {}


def _own(reader: sqlite3.Connection, model: str) -> list[int]:
    return [number for number, name in reader.execute("SELECT id, identity FROM models") if _begins(name, model)]


def _begins(identity: str, model: str) -> bool:
    return identity == model or identity.startswith(model if model[-1:] == ":" else f"{model} ")


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
        own = _own(reader, model)

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
