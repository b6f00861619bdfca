"""A run on disk: images, model answers, failures and visual features, safe against a kill at any moment.

In: values from the images, the model wrappers and the pipeline. Out: the same values after a restart.
Promises: what a method has written is on the disk when it returns; a half-written file or transaction is never seen;
one process at a time holds a run; a stored answer is never changed; `verify` re-derives every key and checks every row.

    OUT/run.sqlite                    images with thumbnails, answers with their tokens, failures, the checksums of the
                                      result files (WAL, synchronous=FULL)
    OUT/run.lock                      who holds the run; the lock is the system's, so it ends with its process
    OUT/features/<model>/NNNN.npy     visual features, float16, with NNNN.json naming the images of its rows
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
import math
import os
import sqlite3
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from manylens.errors import StoreError
from manylens.records import Image, Unreadable
from manylens.run_lock import RunLock

Vector: TypeAlias = NDArray[np.float16]

DATABASE_NAME = "run.sqlite"
LOCK_NAME = "run.lock"
SCHEMA_VERSION = 2
"""1: answers without tokens, thumbnails without checksums, no account of the result files. Such a run is brought to 2
when it is opened; what it lacks stays unknown."""

UNIT_LENGTH_TOLERANCE = 0.01
"""How far a stored embedding's length may be from 1: float16 rounding moves it by less than .001."""

SHARES_TOLERANCE = 0.001
"""How far the probabilities of a stored choice may sum from 1: rounding to six decimals moves them by .00001."""

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


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A readable image as a run keeps it. jpeg: RGB, longest side at most 256 px. Sizes are the original's, as seen."""

    image_id: str
    width_px: int
    height_px: int
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A model's reply in the store's form. fields: JSON-able. embedding: (d,) float16, unit length, looks only.
    tokens: (in, out) as the model's server counted them, or None where it did not."""

    kind: str
    fields: Mapping[str, Any]
    embedding: Vector | None = field(default=None, compare=False)
    tokens: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer and what it answers. key: `answer_key(model_identity, request)`. request: the rendered request."""

    key: str
    interest: str
    image_id: str
    model_identity: str
    request: str
    reply: StoredReply
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that finally failed; forgotten when a later run gets the answer. image_id is empty for text calls."""

    key: str
    kind: str
    interest: str
    image_id: str
    reason: str


def answer_key(model_identity: str, request: str) -> str:
    """The key of a stored answer, SHA-256 in hex over the model's identity and the rendered request."""
    content = json.dumps([model_identity, request], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a whole file or nothing: aside, fsync, rename, fsync of the folder. Text is written as UTF-8.

    Raises StoreError where the disk refuses (full, read-only); the earlier file then stays as it was.
    """
    target = Path(path)
    aside = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "wb") as file:
            file.write(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
        _sync_folder(target.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        hint = "free some space or choose another --out"
        raise StoreError(f"cannot write {target}: {error.strerror or error}", hint) from error


def _sync_folder(folder: Path) -> None:
    """Without this a rename may be lost in a power cut. Windows cannot open folders and does not need it."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RunFolder:
    """A run on disk, held exclusively; use as a context manager. Every method may be called from any thread."""

    def __init__(self, path: Path, lock: RunLock, connection: sqlite3.Connection) -> None:
        self.path = path
        self._lock = lock
        self._connection = connection
        self._guard = threading.RLock()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, must_exist: bool = False) -> Self:
        """Continue the run at `path`, or begin one where there is nothing yet (unless `must_exist`).

        Raises StoreError: held by another process, not a run and not empty, damaged, or of another schema version.
        """
        folder = Path(path)
        if must_exist and not (folder / DATABASE_NAME).is_file():
            hint = "give the --out of an earlier run"
            raise StoreError(f"a run folder has a {DATABASE_NAME}, {folder} has none", hint)
        with _usable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _refuse_strangers(folder)
            lock = RunLock(folder / LOCK_NAME)
        try:
            with _explained(folder):
                return cls(folder, lock, _connect(folder / DATABASE_NAME))
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        with self._guard:
            self._connection.close()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guard, _explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._guard, _explained(self.path):
            return self._connection.execute(query, values).fetchall()

    # Images

    def known_images(self) -> dict[str, tuple[int, int]]:
        """Every image whose thumbnail is stored, with (width_px, height_px): these need no decoding again."""
        return {row[0]: (row[1], row[2]) for row in self._rows("SELECT id, width_px, height_px FROM images")}

    def put_thumbnails(self, thumbnails: Iterable[Thumbnail]) -> None:
        """Keep new images; they join the collection with `record_collection`."""
        rows = [(t.image_id, "[]", t.width_px, t.height_px, t.jpeg, zlib.crc32(t.jpeg)) for t in thumbnails]
        with self._transaction() as connection:
            connection.executemany("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING", rows)

    def record_collection(self, images: Iterable[Image], unreadable: Iterable[Unreadable]) -> None:
        """Say what the collection holds now. Images that are gone keep their thumbnails."""
        paths = [(json.dumps(image.paths), image.id) for image in images]
        failed = [(json.dumps(file.path), _text(file.reason)) for file in unreadable]
        with self._transaction() as connection:
            connection.execute("UPDATE images SET paths = '[]' WHERE paths <> '[]'")
            connection.execute("DELETE FROM unreadable")
            updated = connection.executemany("UPDATE images SET paths = ? WHERE id = ?", paths).rowcount
            if paths and updated != len(paths):
                rule = f"every image needs a stored thumbnail, {len(paths) - updated:,} have none"
                raise StoreError(rule, "call put_thumbnails first")
            connection.executemany("INSERT OR REPLACE INTO unreadable VALUES (?, ?)", failed)

    def images(self) -> tuple[Image, ...]:
        """The images of the collection as last recorded, by id."""
        rows = self._rows("SELECT id, paths, width_px, height_px FROM images WHERE paths <> '[]' ORDER BY id")
        return tuple(Image(row[0], tuple(json.loads(row[1])), row[2], row[3]) for row in rows)

    def unreadable(self) -> tuple[Unreadable, ...]:
        """The unreadable files of the collection as last recorded, by path."""
        rows = self._rows("SELECT path, reason FROM unreadable")
        return tuple(sorted((Unreadable(json.loads(row[0]), row[1]) for row in rows), key=lambda file: file.path))

    def thumbnail(self, image_id: str) -> bytes:
        """The stored JPEG bytes of one image. Raises StoreError for an image that the run does not know."""
        rows = self._rows("SELECT thumbnail, checksum FROM images WHERE id = ?", (image_id,))
        if not rows:
            raise StoreError(f"a thumbnail is stored for every image of the run, {image_id!r} has none", "run again")
        jpeg, checksum = bytes(rows[0][0]), rows[0][1]
        if checksum is not None and zlib.crc32(jpeg) != checksum:
            raise StoreError(
                f"a thumbnail is as it was stored, that of {image_id!r} is damaged",
                "restore the run folder from a copy, or choose another --out",
            )
        return jpeg

    # Answers

    def get_answers(self, keys: Iterable[str]) -> dict[str, StoredReply]:
        """The stored replies among `keys`. Raises StoreError on a damaged one."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, StoredReply] = {}
        for start in range(0, len(wanted), 500):  # SQLite builds may allow no more than 999 values in one query
            chunk = wanted[start : start + 500]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT key, {_REPLY_COLUMNS} FROM answers WHERE key IN ({marks})"
            for row in self._rows(query, chunk):
                problem = _reply_problem(*row[1:])
                if problem:
                    raise StoreError(f"stored answer {row[0]}: {problem}", f"manylens verify {self.path}")
                embedding = None if row[3] is None else np.frombuffer(row[3], np.float16)
                tokens = None if row[5] is None else (row[5], row[6])
                found[row[0]] = StoredReply(row[1], json.loads(row[2]), embedding, tokens)
        return found

    def put_answers(self, answers: Iterable[Answer]) -> None:
        """Store answers and forget their failures, in one transaction, on the disk when this returns.

        The first answer to a request stays: what was decided on it must not change under it.
        """
        rows = []
        for answer in answers:
            reply = json.dumps(answer.reply.fields, sort_keys=True)
            vector = answer.reply.embedding
            blob = None if vector is None else np.ascontiguousarray(vector, np.float16).tobytes()
            request = answer.request.encode("utf-8", "surrogatepass")
            about = (answer.key, answer.reply.kind, _text(answer.interest), answer.image_id, answer.model_identity)
            tokens = answer.reply.tokens or (None, None)
            rows.append((*about, request, reply, blob, _checksum(reply, blob, *tokens), answer.seconds, *tokens))
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING", rows
            )
            connection.executemany("DELETE FROM failures WHERE key = ?", [row[:1] for row in rows])

    def record_failures(self, failures: Iterable[Failure]) -> None:
        """Remember calls that finally failed; the next run asks them again."""
        rows = [(f.key, f.kind, _text(f.interest), f.image_id, _text(f.reason)) for f in failures]
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)", rows)

    def failures(self) -> tuple[Failure, ...]:
        """Calls that failed and were not answered since, by key."""
        return tuple(Failure(*row) for row in self._rows("SELECT * FROM failures ORDER BY key"))

    # Results, features and checks

    def forget_results(self, paths: Iterable[str]) -> None:
        """Before these result files, relative to the run folder, are written: what they held no longer counts."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM results WHERE path = ?", [(path,) for path in paths])

    def record_results(self, paths: Iterable[str]) -> None:
        """Once they are all written: remember what they hold, so that `verify` can say whether they still do."""
        rows = [(path, _sha256(self.path / path)) for path in paths]
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO results VALUES (?, ?)", rows)

    def features(self, model_name: str, model_identity: str) -> FeatureShards:
        """The cache of visual features of one model; other weights get another folder."""
        slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in model_name.lower()).strip("-")[:40]
        digest = hashlib.sha256(model_identity.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return FeatureShards(self.path / "features" / f"{slug}-{digest}")

    def extent(self) -> tuple[int, bool]:
        """How many answers are stored, and whether there are results of a finished run."""
        ((answers, results),) = self._rows("SELECT (SELECT COUNT(*) FROM answers), (SELECT COUNT(*) FROM results)")
        return answers, bool(results)

    @contextlib.contextmanager
    def _any_text(self) -> Iterator[None]:
        """SQLite would fail on a damaged text; replaced, it does not match its checksum."""
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        try:
            yield
        finally:
            self._connection.text_factory = str

    def verify(self) -> list[str]:
        """What is damaged, one sentence each; empty where every key, reply, picture, shard and result file holds."""
        problems = [f"database: {row[0]}" for row in self._rows("PRAGMA integrity_check") if row[0] != "ok"]
        with self._guard, _explained(self.path), self._any_text():
            for row in self._connection.execute(
                f"SELECT key, model_identity, request, {_REPLY_COLUMNS} FROM answers ORDER BY key"
            ):
                try:
                    follows = answer_key(row[1], bytes(row[2]).decode("utf-8", "surrogatepass")) == row[0]
                except UnicodeDecodeError:
                    follows = False
                if not follows:
                    problems.append(f"answer {row[0]}: its key does not follow from its request and model")
                problem = _reply_problem(*row[3:])
                if problem:
                    problems.append(f"answer {row[0]}: {problem}")
            for image_id, jpeg, checksum in self._connection.execute("SELECT id, thumbnail, checksum FROM images"):
                if not (jpeg.startswith(b"\xff\xd8") and jpeg.endswith(b"\xff\xd9")):
                    problems.append(f"image {image_id}: its thumbnail is not a whole JPEG")
                elif checksum is not None and zlib.crc32(jpeg) != checksum:
                    problems.append(f"image {image_id}: its thumbnail does not match its checksum")
            for path, digest in self._connection.execute("SELECT path, sha256 FROM results ORDER BY path"):
                if _sha256(self.path / path) != digest:
                    problems.append(f"result {path}: is gone or was changed; the same command writes it anew")
        for folder in sorted((self.path / "features").glob("*/")):
            problems += FeatureShards(folder).verify()
        return problems


def _text(text: str) -> str:
    """SQLite refuses lone surrogates, which names from a file system may hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _checksum(reply: str, embedding: bytes | None, tokens_in: int | None, tokens_out: int | None) -> int:
    tokens = b"" if tokens_in is None else f"{tokens_in} {tokens_out}".encode()
    return zlib.crc32(tokens, zlib.crc32(embedding or b"", zlib.crc32(reply.encode())))


def _sha256(path: Path) -> str:
    """The SHA-256 of a file in hex; empty where it is not there."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


_REPLY_COLUMNS = "kind, reply, embedding, checksum, tokens_in, tokens_out"
_REPLY_FIELDS = {
    "look": {"description", "confidence"},
    "judge": {"probability", "reason"},
    "choose": {"probabilities", "reason"},
    "complete": {"text"},
}


def _reply_problem(
    kind: str, reply: str, embedding: bytes | None, checksum: int, tokens_in: int | None, tokens_out: int | None
) -> str | None:
    """Why a stored reply cannot be used, or None."""
    if _checksum(reply, embedding, tokens_in, tokens_out) != checksum:
        return "its reply does not match its checksum"
    fields = json.loads(reply)
    expected = _REPLY_FIELDS.get(kind)
    if expected is None:
        return f"its kind must be look, judge, choose or complete, got {kind!r}"
    # Judgements of earlier versions also have their share of a call that several shared.
    if set(fields) - ({"calls"} if kind == "judge" else set()) != expected:
        return f"a {kind} reply has {sorted(expected)}, got {sorted(fields)}"
    if kind == "look":
        vector = np.frombuffer(embedding or b"", np.float16).astype(np.float32)
        length = float(np.linalg.norm(vector))
        if not abs(length - 1) <= UNIT_LENGTH_TOLERANCE:
            return f"an embedding has unit length, got {length:.4f}"
    if kind == "choose" and not _are_shares(fields["probabilities"]):
        return f"the probabilities of a choice are two or more that sum to one, got {fields['probabilities']!r:.80}"
    return None


def _are_shares(values: object) -> bool:
    if not isinstance(values, list) or len(values) < 2 or not all(isinstance(value, int | float) for value in values):
        return False
    return all(0 <= value <= 1 for value in values) and abs(math.fsum(values) - 1) <= SHARES_TOLERANCE


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """SQLite's errors in our words."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_FULL"):
            hint = "free some space and run the same command again; nothing stored is lost"
        elif name.startswith("SQLITE_IOERR"):
            hint = "check the disk and its quota, and run the same command again; nothing stored is lost"
        elif "readonly" in str(error) or "unable to open" in str(error):
            hint = "make the folder writable or choose another --out"
        else:
            hint = "restore it from a copy, or choose another --out"
        raise StoreError(f"the store {folder / DATABASE_NAME} cannot be used ({error})", hint) from error


def _refuse_strangers(folder: Path) -> None:
    """Raise StoreError where `folder` holds files and is no run."""
    strangers = {entry.name for entry in folder.iterdir()} - {LOCK_NAME}
    if strangers and not (folder / DATABASE_NAME).is_file():
        raise StoreError(
            f"--out must be a new or empty folder or an earlier run, {folder} holds other files "
            f"({min(strangers)!a}, ...)",
            "choose another --out",
        )


@contextlib.contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """The file system's errors about a run folder in our words."""
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise StoreError(f"--out must be a folder, {folder} is a file", "choose another --out") from None
    except OSError as error:
        raise StoreError(f"cannot use {folder}: {error.strerror}", "choose another --out") from error


def answers_held(path: str | os.PathLike[str]) -> int:
    """How many answers a run folder holds, read without holding or changing it; 0 where there is no run yet.

    Raises StoreError where no run could begin: a file, or a folder that holds other files or cannot be read.
    """
    folder = Path(path)
    database = (folder / DATABASE_NAME).resolve()
    with _usable(folder):
        if not database.is_file():
            if folder.exists():
                _refuse_strangers(folder)
            return 0
    # SQLite leaves a log behind where it finds none, unless it is told that nobody writes.
    how = "mode=ro" if database.with_name(f"{DATABASE_NAME}-wal").exists() else "immutable=1"
    with (
        _explained(folder),
        contextlib.closing(sqlite3.connect(f"{database.as_uri()}?{how}", uri=True)) as reader,
    ):
        return int(reader.execute("SELECT COUNT(*) FROM answers").fetchone()[0])


def _connect(path: Path) -> sqlite3.Connection:
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


_INDEX_NAMES = "[0-9][0-9][0-9][0-9]*.json"


class FeatureShards:
    """Visual features by image id, in append-only shards read through memory maps.

    A shard is its `.npy` and, written after it, the `.json` that names its rows: without the second it does not exist,
    so a kill between them loses that shard only. It is a cache: what is damaged is left out and computed again.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._guard = threading.Lock()
        self._shards: list[Vector] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._next_number = 0
        for index in sorted(self.folder.glob(_INDEX_NAMES)):
            self._next_number = max(self._next_number, int(index.stem) + 1)  # 10000 sorts before 9999
            shard = _open_shard(index.with_suffix(".npy"))
            ids, _ = _read_index(index)
            same_shape = shard is not None and shard.shape[1:] == (self._shards[0] if self._shards else shard).shape[1:]
            if shard is not None and same_shape and len(shard) == len(ids):
                self._add(ids, shard)

    def _add(self, ids: Sequence[str], shard: Vector) -> None:
        self._places.update({image_id: (len(self._shards), row) for row, image_id in enumerate(ids)})
        self._shards.append(shard)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._places

    def append(self, ids: Sequence[str], features: NDArray[Any]) -> None:
        """Store features (n, ...) of n images as float16, on the disk when this returns. Known images are skipped."""
        if len(ids) != len(features):
            raise ValueError(f"one row per image: got {len(ids)} ids and {len(features)} rows")
        with self._guard:
            rows = {image_id: row for row, image_id in enumerate(ids) if image_id not in self._places}
            if not rows:
                return
            shard = np.ascontiguousarray(np.asarray(features)[list(rows.values())], np.float16)
            if self._shards and self._shards[0].shape[1:] != shard.shape[1:]:
                had, got = self._shards[0].shape[1:], shard.shape[1:]
                raise ValueError(f"features of one model have one shape, {had}, got {got}")
            path = self.folder / f"{self._next_number:04d}.npy"
            write_atomically(path, _npy_bytes(shard))
            index = {"ids": list(rows), "checksum": zlib.crc32(shard.tobytes())}
            write_atomically(path.with_suffix(".json"), json.dumps(index))
            self._next_number += 1
            mapped = _open_shard(path)
            self._add(list(rows), shard if mapped is None else mapped)

    def get(self, ids: Sequence[str]) -> Vector:
        """Features (n, ...) float16 in the order of `ids`. Raises KeyError for an image that has none."""
        places = [self._places[image_id] for image_id in ids]
        if not places:
            return np.zeros((0, *(self._shards[0].shape[1:] if self._shards else ())), np.float16)
        result = np.empty((len(places), *self._shards[0].shape[1:]), np.float16)
        for row, (shard, place) in enumerate(places):
            result[row] = self._shards[shard][place]
        return result

    def verify(self) -> list[str]:
        """Shards whose content does not match their index, one sentence each."""
        problems = []
        for index in sorted(self.folder.glob(_INDEX_NAMES)):
            shard = _open_shard(index.with_suffix(".npy"))
            if shard is None or zlib.crc32(shard.tobytes()) != _read_index(index)[1]:
                shard_path = index.with_suffix(".npy")
                problems.append(
                    f"features {shard_path}: does not match its index; delete both, it and {index.name}: the same "
                    "command makes them anew"
                )
        return problems


def _read_index(path: Path) -> tuple[list[str], int]:
    """The image ids of a shard's rows and its checksum; no rows and -1 where the index is damaged."""
    try:
        content = json.loads(path.read_bytes())
        return list(map(str, content["ids"])), int(content["checksum"])
    except (OSError, ValueError, KeyError, TypeError):
        return [], -1


def _npy_bytes(array: Vector) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _open_shard(path: Path) -> Vector | None:
    """The shard through a memory map, or None where it is missing or damaged."""
    try:
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return shard if shard.dtype == np.float16 else None
