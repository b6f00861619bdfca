"""The tables of `run.sqlite`, as a numbered list of migrations.

In: the database's path. Out: an open connection at the newest schema. Promise: all that is missing is added in one
transaction, so a kill in between leaves the database as it was; a table is never changed but by a migration added here.
`PRAGMA user_version` says how many a database has had; those of manylens 0.1.0 say it in `meta`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sqlite3
from functools import cache
from pathlib import Path

from manylens.errors import StoreError

_FIRST = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE images (id TEXT PRIMARY KEY, paths TEXT NOT NULL, width_px INTEGER NOT NULL, height_px INTEGER NOT NULL,
                     thumbnail BLOB NOT NULL);
CREATE TABLE unreadable (path TEXT PRIMARY KEY, reason TEXT NOT NULL);
CREATE TABLE answers (key TEXT PRIMARY KEY, kind TEXT NOT NULL, interest TEXT NOT NULL, image_id TEXT NOT NULL,
                      model_identity TEXT NOT NULL, request BLOB NOT NULL, reply TEXT NOT NULL, embedding BLOB,
                      checksum INTEGER NOT NULL, seconds REAL NOT NULL);
CREATE TABLE failures (key TEXT PRIMARY KEY, kind TEXT NOT NULL, interest TEXT NOT NULL, image_id TEXT NOT NULL,
                       reason TEXT NOT NULL)
"""

_TOKENS_AND_CHECKSUMS = """
ALTER TABLE images ADD COLUMN checksum INTEGER;
ALTER TABLE answers ADD COLUMN tokens_in INTEGER;
ALTER TABLE answers ADD COLUMN tokens_out INTEGER;
CREATE TABLE results (path TEXT PRIMARY KEY, sha256 TEXT NOT NULL)
"""
"""What an older run lacks of these stays unknown."""

_DECISIONS = """
CREATE TABLE clusterings (id INTEGER PRIMARY KEY, slug TEXT NOT NULL UNIQUE, interest TEXT NOT NULL,
                          model TEXT NOT NULL, settings TEXT NOT NULL, account TEXT NOT NULL);
CREATE TABLE levels (id INTEGER PRIMARY KEY, clustering INTEGER NOT NULL REFERENCES clusterings ON DELETE CASCADE,
                     name TEXT NOT NULL, UNIQUE (clustering, name));
CREATE TABLE clusters (level INTEGER NOT NULL REFERENCES levels ON DELETE CASCADE, id INTEGER NOT NULL,
                       name TEXT NOT NULL, definition TEXT NOT NULL, parent TEXT NOT NULL, size INTEGER NOT NULL,
                       exemplars TEXT NOT NULL, misplaced TEXT NOT NULL, PRIMARY KEY (level, id)) WITHOUT ROWID;
CREATE TABLE memberships (level INTEGER NOT NULL REFERENCES levels ON DELETE CASCADE, image_id TEXT NOT NULL,
                          cluster INTEGER, confidence REAL NOT NULL, reason TEXT NOT NULL, decided_by TEXT NOT NULL,
                          PRIMARY KEY (level, image_id)) WITHOUT ROWID;
CREATE TABLE not_described (clustering INTEGER NOT NULL REFERENCES clusterings ON DELETE CASCADE,
                            image_id TEXT NOT NULL, reason TEXT, PRIMARY KEY (clustering, image_id)) WITHOUT ROWID;
CREATE TABLE constraints (id INTEGER PRIMARY KEY, slug TEXT NOT NULL,
                          kind TEXT NOT NULL CHECK (kind IN ('must-link', 'cannot-link', 'rename')),
                          subject TEXT NOT NULL, object TEXT NOT NULL);
CREATE TABLE set_aside (key TEXT NOT NULL, row BLOB NOT NULL, problem TEXT NOT NULL)
"""
"""clusterings: one an interest, by its slug. account: calls, notes and what else concerns the whole of it, JSON.
memberships: where each described image is at that level, who decided it and why. not_described: images whose look
failed (reason) or that were not looked at (NULL). set_aside: damaged answers that `verify` took out, as JSON."""

_CORRECTIONS = """
DROP TABLE constraints;
CREATE TABLE corrections (id INTEGER PRIMARY KEY, slug TEXT NOT NULL, step INTEGER NOT NULL, at TEXT NOT NULL,
                          undone INTEGER NOT NULL, said TEXT NOT NULL);
CREATE INDEX corrections_of ON corrections (slug, step)
"""
"""corrections: what a person said, in order; no run removes it. step: what was said at once, numbered by interest.
undone: 1 where it was taken back; such rows go when something new is said. said: a `Ruling`, JSON. `constraints`, in
whose place this stands, was never written to. Beside the level 'shown' a corrected clustering has 'model': what the
model decided, to which the corrections are applied."""

_GIVEN_UP = """
ALTER TABLE failures ADD COLUMN given_up TEXT
"""
"""Why a request is not asked again by itself, as result files say it; NULL where the next run asks."""

_FRAMES = "ALTER TABLE images ADD COLUMN frames INTEGER"
"""Of animations and videos, which are read by their middle frame; what older runs hold stays unknown."""

_COMPACT = """
CREATE TABLE thumbnails (image_id TEXT PRIMARY KEY, jpeg BLOB NOT NULL, checksum INTEGER);
INSERT INTO thumbnails SELECT id, thumbnail, checksum FROM images;
CREATE TABLE small_images (id TEXT PRIMARY KEY, paths TEXT NOT NULL, width_px INTEGER NOT NULL,
                           height_px INTEGER NOT NULL, frames INTEGER) WITHOUT ROWID;
INSERT INTO small_images SELECT id, paths, width_px, height_px, frames FROM images;
DROP TABLE images;
ALTER TABLE small_images RENAME TO images;
CREATE TABLE models (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE);
INSERT INTO models (identity) SELECT DISTINCT model_identity FROM answers;
CREATE TABLE dictionaries (id INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE small_answers (key TEXT PRIMARY KEY, kind TEXT NOT NULL, interest TEXT NOT NULL, image_id TEXT NOT NULL,
                            model INTEGER NOT NULL, request BLOB NOT NULL, dictionary INTEGER,
                            reply TEXT NOT NULL, embedding BLOB,
                            checksum INTEGER NOT NULL, seconds REAL NOT NULL, tokens_in INTEGER, tokens_out INTEGER);
INSERT INTO small_answers SELECT key, kind, interest, image_id,
                                 (SELECT id FROM models WHERE identity = model_identity), request, NULL, reply,
                                 embedding, checksum, seconds, tokens_in, tokens_out FROM answers ORDER BY rowid;
DROP TABLE answers;
ALTER TABLE small_answers RENAME TO answers
"""
"""What a million answers need. thumbnails: apart, so that what a run holds is read without its pictures. models: an
identity once. dictionary: what a request is compressed with (zlib), a request of its kind; NULL where it is not."""

_REVISIONS = """
CREATE TABLE revisions (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX answers_of_image ON answers (image_id, interest)
"""
"""revisions: how often the collection, or an interest's clustering (by its slug), was replaced; a reader that keeps
either in memory sees by it that it is out of date."""

READ_AS = "how the collection was read"
"""The name of its row in `meta`: what `RunFolder.put_read_as` was given last, JSON."""

MIGRATIONS = (_FIRST, _TOKENS_AND_CHECKSUMS, _DECISIONS, _CORRECTIONS, _GIVEN_UP, _FRAMES, _COMPACT, _REVISIONS)


_CACHE_KIB = 128 << 10
_LOG_PAGES = 8192
"""32 MB: a page that many answers share is written once for all of them."""


def connect(path: Path) -> sqlite3.Connection:
    """Raises StoreError for a database of a newer manylens, or one that is no run."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        # Keys are random: with the usual 2 MB a million of them are read from the disk again and again.
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        version = _version_of(connection)
        _refuse_strange(connection, path, version)
        if version is None or version > len(MIGRATIONS):
            raise StoreError(
                f"this manylens reads runs up to schema {len(MIGRATIONS)}, {path} has {version or 'none'}",
                "use the manylens that made it, or choose another --out",
            )
        if version < len(MIGRATIONS):
            connection.execute("BEGIN IMMEDIATE")
            for number in range(version, len(MIGRATIONS)):
                for statement in MIGRATIONS[number].split(";\n"):
                    connection.execute(statement)
            if not version:
                connection.execute("INSERT INTO meta VALUES ('manylens_version', ?)", (_manylens_version(),))
            # manylens 0.1.0 looks here, and says that it cannot read this one.
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('schema_version', ?)", (str(len(MIGRATIONS)),))
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def bump_revision(connection: sqlite3.Connection, name: str) -> None:
    """In the caller's transaction: what is called so was replaced."""
    connection.execute(
        "INSERT INTO revisions VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET number = number + 1", (name,)
    )


def open_to_read(path: Path, *, briefly: bool = False) -> sqlite3.Connection:
    """A connection that changes nothing, beside whoever writes, to a database of any schema.

    SQLite leaves an empty log behind where it finds none, unless it is told that nobody writes: it is told so where
    nobody can, because the folder takes no new file. briefly: and where nobody has it open, so that a look writes no
    file; not for a connection that is kept, for somebody may begin to write. Raises StoreError for one that holds more
    than tables of ours.
    """
    path = path.resolve()
    log = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if log.exists() or (not briefly and os.access(path.parent, os.W_OK)) else "immutable=1"
    connection = sqlite3.connect(
        f"{path.as_uri()}?{how}", uri=True, isolation_level=None, check_same_thread=False, timeout=10
    )
    try:
        _refuse_strange(connection, path, _version_of(connection))
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """`open_to_read` at the newest schema. Raises StoreError for a database of another one."""
    connection = open_to_read(path)
    try:
        version = _version_of(connection)
        if version != len(MIGRATIONS):
            raise StoreError(
                f"a run that is only read has schema {len(MIGRATIONS)}, {path} has {version or 'none'}",
                "make its folder writable, so that it can be brought up to date"
                if version is not None and version < len(MIGRATIONS)
                else "use the manylens that made it",
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_strange(connection: sqlite3.Connection, path: Path, version: int | None) -> None:
    """Raises StoreError where something but our tables is there, or a table is another: a view or a trigger of somebody
    else, or what a column computes, is code that runs without an end where we read or write a row."""
    is_known = version is not None and version <= len(MIGRATIONS)
    ours = _statements(version) if is_known and version is not None else frozenset()
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master"):
        is_ours = sql is None or _plain(sql) in ours or not is_known
        if kind not in ("table", "index") or not is_ours:
            raise StoreError(
                f"a run's database holds its tables alone, {path} holds the {kind} {name!r:.60}",
                "restore it from a copy, or choose another --out",
            )


@cache
def _statements(version: int) -> frozenset[str]:
    """What makes the tables and indexes of a database that has had so many migrations."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        for migration in MIGRATIONS[:version]:
            fresh.executescript(migration)
        rows = fresh.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
        return frozenset(_plain(sql) for (sql,) in rows)


def _plain(sql: str) -> str:
    """SQLite quotes a name that a migration changed, and keeps spaces."""
    return " ".join(sql.replace('"', "").split())


def _version_of(connection: sqlite3.Connection) -> int | None:
    """How many migrations the database has had; None where it is no run."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return 0
    if "meta" not in tables:
        return None
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version:
        return int(version)
    row = connection.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
    return int(row[0]) if row is not None and str(row[0]).isdecimal() else None


def _manylens_version() -> str:
    try:
        return importlib.metadata.version("manylens")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
