"""The tables of `run.sqlite` and how older ones become them.

In: the database's path. Out: an open connection at the newest schema. Promise: a kill between two migrations leaves a
database that the next opening brings up to date.
"""

from __future__ import annotations

import importlib.metadata
import sqlite3
from pathlib import Path

from manylens.errors import StoreError

SCHEMA_VERSION = 2
"""1: answers without tokens, thumbnails without checksums, no account of the result files. Such a run is brought to 2
when it is opened; what it lacks stays unknown."""

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE images (id TEXT PRIMARY KEY, paths TEXT NOT NULL, width_px INTEGER NOT NULL, height_px INTEGER NOT NULL,
                     thumbnail BLOB NOT NULL, checksum INTEGER);
CREATE TABLE unreadable (path TEXT PRIMARY KEY, reason TEXT NOT NULL);
CREATE TABLE answers (key TEXT PRIMARY KEY, kind TEXT NOT NULL, interest TEXT NOT NULL, image_id TEXT NOT NULL,
                      model_identity TEXT NOT NULL, request BLOB NOT NULL, reply TEXT NOT NULL, embedding BLOB,
                      checksum INTEGER NOT NULL, seconds REAL NOT NULL, tokens_in INTEGER, tokens_out INTEGER);
CREATE TABLE failures (key TEXT PRIMARY KEY, kind TEXT NOT NULL, interest TEXT NOT NULL, image_id TEXT NOT NULL,
                       reason TEXT NOT NULL);
CREATE TABLE results (path TEXT PRIMARY KEY, sha256 TEXT NOT NULL);
"""

_FROM_1_TO_2 = """
ALTER TABLE images ADD COLUMN checksum INTEGER;
ALTER TABLE answers ADD COLUMN tokens_in INTEGER;
ALTER TABLE answers ADD COLUMN tokens_out INTEGER;
CREATE TABLE results (path TEXT PRIMARY KEY, sha256 TEXT NOT NULL);
UPDATE meta SET value = '2' WHERE name = 'schema_version';
"""


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall():
            # One transaction: a kill in here leaves an empty database, which the next run begins anew.
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
            meta = [("schema_version", str(SCHEMA_VERSION)), ("manylens_version", _version())]
            connection.executemany("INSERT INTO meta VALUES (?, ?)", meta)
            connection.execute("COMMIT")
        version = connection.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
        if version is not None and version[0] == "1":
            connection.execute("BEGIN IMMEDIATE")
            for statement in _FROM_1_TO_2.split(";\n"):
                connection.execute(statement)
            connection.execute("COMMIT")
            version = (str(SCHEMA_VERSION),)
        if version is None or version[0] != str(SCHEMA_VERSION):
            raise StoreError(
                f"this manylens reads runs of schema {SCHEMA_VERSION}, {path} has {version[0] if version else 'none'}",
                "use the manylens that made it, or choose another --out",
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _version() -> str:
    try:
        return importlib.metadata.version("manylens")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
