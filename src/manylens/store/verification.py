"""What of a run is damaged, and taking it out so that the next run makes it anew.

In: the run's database and folder. Out: `Damage`, each with a sentence. Promise: finding changes nothing; what is taken
out of the answers is kept in the table `set_aside`.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from manylens.files import sha256_of
from manylens.store.answers import REPLY_COLUMNS, reply_problem, unpack
from manylens.store.feature_shards import FeatureShards
from manylens.types import answer_key


@dataclass(frozen=True, slots=True)
class Damage:
    """what: a part of the run. id: which of them. problem: what is wrong with it."""

    what: Literal["database", "answer", "image", "result", "features"]
    id: str
    problem: str

    def __str__(self) -> str:
        return f"{self.what} {self.id}: {self.problem}" if self.id else f"{self.what}: {self.problem}"

    @property
    def can_be_set_aside(self) -> bool:
        return self.what in ("answer", "image", "features")


def find_damage(connection: sqlite3.Connection, folder: Path) -> list[Damage]:
    """Every key is derived again, every reply, picture, shard and result file compared with its checksum."""
    found = [Damage("database", "", row[0]) for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    with _any_text(connection):
        found += _damaged_answers(connection)
        for image_id, jpeg, checksum in connection.execute("SELECT image_id, jpeg, checksum FROM thumbnails"):
            if not isinstance(jpeg, bytes) or not isinstance(image_id, str):
                found.append(Damage("image", str(image_id), "its thumbnail is not a whole JPEG"))
            elif not (jpeg.startswith(b"\xff\xd8") and jpeg.endswith(b"\xff\xd9")):
                found.append(Damage("image", image_id, "its thumbnail is not a whole JPEG"))
            elif checksum is not None and zlib.crc32(jpeg) != checksum:
                found.append(Damage("image", image_id, "its thumbnail does not match its checksum"))
        for path, digest in connection.execute("SELECT path, sha256 FROM results ORDER BY path"):
            if not isinstance(path, str) or Path(path).is_absolute() or ".." in Path(path).parts:
                found.append(Damage("result", str(path), "is outside of the run folder"))
            elif sha256_of(folder / path) != digest:
                found.append(Damage("result", path, "is gone or was changed; the same command writes it anew"))
    for below in sorted((folder / "features").glob("*/")):
        found += [
            Damage("features", str(shard), "does not match its index; the same command makes it anew")
            for shard in FeatureShards.damaged(below)
        ]
    return found


def _damaged_answers(connection: sqlite3.Connection) -> Iterator[Damage]:
    query = f"""SELECT key, identity, image_id, request, dictionary, content, {REPLY_COLUMNS} FROM answers
                LEFT JOIN models ON models.id = model LEFT JOIN dictionaries ON dictionaries.id = dictionary
                ORDER BY key"""
    for key, identity, image_id, request, dictionary, content, *reply in connection.execute(query):
        try:  # a forged row may hold a number, of which `bytes` would make as many zeros
            whole = unpack(_bytes(request), _bytes(content), image_id) if dictionary is not None else _bytes(request)
            follows = answer_key(identity, whole.decode("utf-8", "surrogatepass")) == key
        except (TypeError, ValueError, AttributeError, zlib.error):
            follows = False
        if not follows:
            yield Damage("answer", key, "its key does not follow from its request and model")
        if problem := reply_problem(*reply):
            yield Damage("answer", key, problem)


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"bytes were written, {type(value).__name__} is there")
    return value


def set_aside(connection: sqlite3.Connection, damages: list[Damage]) -> None:
    """In the caller's transaction. An answer is asked for again, an image decoded again, features computed again."""
    with _any_text(connection):
        for damage in damages:
            if damage.what == "answer":
                query = "SELECT kind, interest, image_id, reply FROM answers WHERE key = ?"
                for row in connection.execute(query, (damage.id,)).fetchall():
                    aside = (damage.id, json.dumps(row), damage.problem)
                    connection.execute("INSERT INTO set_aside VALUES (?, ?, ?)", aside)
                connection.execute("DELETE FROM answers WHERE key = ?", (damage.id,))
            elif damage.what == "image":
                connection.execute("DELETE FROM images WHERE id = ?", (damage.id,))
                connection.execute("DELETE FROM thumbnails WHERE image_id = ?", (damage.id,))
    for damage in damages:
        if damage.what == "features":
            for file in (Path(damage.id), Path(damage.id).with_suffix(".json")):
                file.unlink(missing_ok=True)


@contextlib.contextmanager
def _any_text(connection: sqlite3.Connection) -> Iterator[None]:
    """SQLite would fail on a damaged text; replaced, it does not match its checksum."""
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        yield
    finally:
        connection.text_factory = str
