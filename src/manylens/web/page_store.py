"""What the page keeps beside the run: jobs, and planes of embeddings.

In: values. Out: the same after a restart. Promise: `OUT/page.sqlite` may be written by several processes at once (the
server, a job), and may be deleted: then the page forgets its jobs, and nothing of the run.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from manylens.errors import StoreError
from manylens.files import refuse_links
from manylens.web.schemas import JobState

PAGE_STORE_NAME = "page.sqlite"

ENDED: frozenset[JobState] = frozenset({"done", "failed", "cancelled"})

Values: TypeAlias = Mapping[str, Any]

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, state TEXT NOT NULL, request TEXT NOT NULL,
    progress TEXT NOT NULL, stopping INTEGER NOT NULL DEFAULT 0, pid INTEGER, attempts INTEGER NOT NULL,
    began REAL NOT NULL, ended REAL,
    changed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS planes (slug TEXT NOT NULL, digest TEXT NOT NULL, method TEXT NOT NULL,
    points BLOB NOT NULL, PRIMARY KEY (slug, method)) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class JobRow:
    """request: what is run, as `job_request` made it. progress: what it has come to. attempts: how often it was begun.
    began: when it was asked for, or began last. pid: of its process, None until that is there.
    changed: a count of all changes of any job; that of its last one. stopping: whether a person wants it to end."""

    id: int
    state: JobState
    request: Values
    progress: Values
    pid: int | None
    attempts: int
    began: float
    ended: float | None
    changed: int
    stopping: bool


_COLUMNS = "id, state, request, progress, pid, attempts, began, ended, changed, stopping"


def _job_row(row: tuple[Any, ...]) -> JobRow:
    number, state, request, progress, pid, attempts, began, ended, changed, stopping = row
    return JobRow(
        number, state, json.loads(request), json.loads(progress), pid, attempts, began, ended, changed, bool(stopping)
    )


class PageStore:
    """Opened when it is needed. Every method may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PAGE_STORE_NAME
        self._guard = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        with self._guard:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._guard:
            try:
                if self._connection is None:
                    refuse_links(*(self._path.with_name(self._path.name + end) for end in ("", "-wal", "-shm")))
                    connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute("PRAGMA synchronous = NORMAL")
                    for statement in _TABLES.split(";\n"):
                        connection.execute(statement)
                    self._connection = connection
                yield self._connection
            except sqlite3.Error as error:
                raise StoreError(
                    f"the page keeps its jobs in {self._path.name}, which cannot be used ({error})",
                    "delete it: the run loses nothing",
                ) from error

    def _is_there(self) -> bool:
        return self._path.is_file()

    # Jobs

    def add_job(self, request: Values) -> JobRow:
        with self._open() as connection:
            number = connection.execute(
                "INSERT INTO jobs (state, request, progress, attempts, began, changed) "
                "VALUES ('queued', ?, '{}', 0, ?, (SELECT COALESCE(MAX(changed), 0) + 1 FROM jobs))",
                (json.dumps(request), time.time()),
            ).lastrowid
        found = self.job(int(number or 0))
        assert found is not None
        return found

    def job(self, number: int) -> JobRow | None:
        return next(iter(self.jobs(number)), None)

    def jobs(self, number: int | None = None, *, changed_since: int = 0) -> list[JobRow]:
        """The newest first."""
        if not self._is_there():
            return []
        with self._open() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE (? IS NULL OR id = ?) AND changed > ? ORDER BY id DESC",
                (number, number, changed_since),
            ).fetchall()
        return [_job_row(row) for row in rows]

    def set_job(
        self,
        number: int,
        state: JobState | None = None,
        *,
        only_from: tuple[JobState, ...] = (),
        progress: Values | None = None,
        pid: int | None = None,
        stopping: bool | None = None,
    ) -> bool:
        """Change some of a job; whether it was. only_from: in one of these states alone."""
        sets = ["changed = (SELECT MAX(changed) + 1 FROM jobs)"]
        values: list[Any] = []
        if state is not None:
            sets.append("state = ?")
            values.append(state)
            sets.append("ended = ?")
            values.append(time.time() if state in ENDED else None)
        if progress is not None:
            sets.append("progress = ?")
            values.append(json.dumps(progress))
        if pid is not None:
            sets.append("pid = ?")
            values.append(pid)
        if stopping is not None:
            sets.append("stopping = ?")
            values.append(int(stopping))
        where = "id = ?"
        values.append(number)
        if only_from:
            where += f" AND state IN ({','.join('?' * len(only_from))})"
            values.extend(only_from)
        with self._open() as connection:
            done = connection.execute(f"UPDATE jobs SET {', '.join(sets)} WHERE {where}", values)
        return bool(done.rowcount)

    def take_next_job(self) -> JobRow | None:
        """The oldest job that waits, now running, where none is running; one process alone gets it."""
        if not self._is_there():
            return None
        with self._open() as connection:
            row = connection.execute(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, pid = NULL, began = ?, "
                "changed = (SELECT MAX(changed) + 1 FROM jobs) WHERE id = "
                "(SELECT MIN(id) FROM jobs WHERE state = 'queued') "
                "AND NOT EXISTS (SELECT 1 FROM jobs WHERE state = 'running') RETURNING id",
                (time.time(),),
            ).fetchone()
        return None if row is None else self.job(int(row[0]))

    # Planes

    def plane(self, slug: str, method: str, digest: str) -> NDArray[np.float32] | None:
        """(n, 2), or None where there is none of these embeddings."""
        if not self._is_there():
            return None
        with self._open() as connection:
            row = connection.execute(
                "SELECT points FROM planes WHERE slug = ? AND method = ? AND digest = ?", (slug, method, digest)
            ).fetchone()
        return None if row is None else np.frombuffer(row[0], "<f4").reshape(-1, 2)

    def put_plane(self, slug: str, method: str, digest: str, points: NDArray[np.float32]) -> None:
        with self._open() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO planes VALUES (?, ?, ?, ?)",
                (slug, digest, method, points.astype("<f4").tobytes()),
            )
