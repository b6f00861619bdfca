"""A run on disk: images, model answers, decisions and visual features, safe against a kill at any moment.

In: values from the images, the model wrappers and the pipeline. Out: the same values after a restart.
Promises: what a method has written is on the disk when it returns; a half-written file or transaction is never seen;
one process at a time holds a run; a stored answer is never changed; `verify` re-derives every key and checks every row.

    OUT/run.sqlite                    images with thumbnails, answers with their tokens, failures, decisions, the
                                      checksums of the result files (WAL, synchronous=FULL)
    OUT/run.lock                      who holds the run; the lock is the system's, so it ends with its process
    OUT/features/<model>/NNNN.npy     visual features, float16, with NNNN.json naming the images of its rows
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from manylens.errors import StoreError
from manylens.files import DATABASE_NAME, refuse_links, sha256_of
from manylens.settings import Settings
from manylens.store.answers import (
    REPLY_COLUMNS,
    Dictionary,
    Failure,
    Looked,
    StoredAnswer,
    StoredReply,
    Vector,
    read_reply,
    reply_checksum,
    reply_problem,
    unpack,
)
from manylens.store.books import Books
from manylens.store.corrections import add_step, mark_step, read_steps
from manylens.store.decisions import (
    last_cluster_id,
    read_clusterings,
    read_decided,
    write_clustering,
    write_corrected,
)
from manylens.store.explained import LOCK_NAME, explained, refuse_strangers, usable
from manylens.store.feature_shards import FeatureShards
from manylens.store.lock import RunLock
from manylens.store.schema import READ_AS, bump_revision, connect, connect_to_read
from manylens.store.verification import Damage, find_damage, set_aside
from manylens.text import printable
from manylens.types import Clustering, Image, Ruling, Step, Thumbnail, Unreadable

COLLECTION = " collection"
"""Its name among the revisions; no slug begins with a space."""

_T = TypeVar("_T")

_BOOKS = "requests without an answer"
"""The name of its row in `meta`."""
_STALE = "result files that are out of date"
"""The name of its row in `meta`: slugs, JSON."""


class RunFolder:
    """A run on disk, held exclusively; use as a context manager. Every method may be called from any thread."""

    def __init__(self, path: Path, lock: RunLock | None, connection: sqlite3.Connection) -> None:
        self.path = path
        self._lock = lock
        self._connection = connection
        self._guard = threading.RLock()
        self._models: dict[str, int] = {}
        self._dictionaries: dict[tuple[str, str], Dictionary] = {}
        self._place = self._where()

    def _where(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path / DATABASE_NAME)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, must_exist: bool = False) -> Self:
        """Continue the run at `path`, or begin one where there is nothing yet (unless `must_exist`).

        Raises StoreError: held by another process, not a run and not empty, damaged, or of another schema version.
        """
        folder = Path(path)
        if must_exist and not (folder / DATABASE_NAME).is_file():
            hint = "give the --out of an earlier run"
            raise StoreError(f"a run folder has a {DATABASE_NAME}, {folder} has none", hint)
        with usable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            refuse_strangers(folder)
            refuse_links(*(folder / f"{DATABASE_NAME}{end}" for end in ("", "-wal", "-shm", "-journal")))
            lock = RunLock(folder / LOCK_NAME)
        try:
            with explained(folder):
                return cls(folder, lock, connect(folder / DATABASE_NAME))
        except BaseException:
            lock.release()
            raise

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """The run at `path`, to be read only, beside another process that may hold it and write to it.

        Whatever would change it raises StoreError, as does a run of another schema.
        """
        folder = Path(path)
        if not (folder / DATABASE_NAME).is_file():
            hint = "give the --out of an earlier run"
            raise StoreError(f"a run folder has a {DATABASE_NAME}, {folder} has none", hint)
        with explained(folder):
            return cls(folder, None, connect_to_read(folder / DATABASE_NAME))

    def close(self) -> None:
        with self._guard:
            self._connection.close()
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._lock is None:
            raise StoreError(f"a run that is only read is not changed, {self.path} is", "open it to write")
        with self._guard, explained(self.path):
            if self._where() != self._place:  # what is written now would be in no folder that anyone finds
                raise StoreError(
                    f"a run's folder stays where it is, {self.path} was removed, moved or replaced during the run",
                    "put it back and run the same command again, or choose another --out",
                )
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._models.clear()  # what was written of them may be gone
                self._dictionaries.clear()
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._guard, explained(self.path):
            return self._connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _as_written(self, what: str) -> Iterator[None]:
        """Values of other types than were written, which SQLite takes in any column, are damage."""
        try:
            yield
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            hint = "restore the run folder from a copy, or choose another --out"
            raise StoreError(f"{what} of {self.path} are damaged ({error!s:.80})", hint) from error

    # Images

    def known_images(self) -> dict[str, tuple[int, int]]:
        """Every image whose thumbnail is stored, with (width_px, height_px): these need no decoding again."""
        with self._as_written("images"):
            rows = self._rows("SELECT id, width_px, height_px FROM images")
            return {_typed(str, row[0]): (_typed(int, row[1]), _typed(int, row[2])) for row in rows}

    def put_thumbnails(self, thumbnails: Iterable[Thumbnail]) -> None:
        """Keep new images; they join the collection with `record_collection`."""
        kept = list(thumbnails)
        images = [(t.image_id, "[]", t.width_px, t.height_px, t.frames) for t in kept]
        pictures = [(t.image_id, t.jpeg, zlib.crc32(t.jpeg)) for t in kept]
        with self._transaction() as connection:
            connection.executemany("INSERT INTO images VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING", images)
            connection.executemany("INSERT INTO thumbnails VALUES (?, ?, ?) ON CONFLICT DO NOTHING", pictures)

    def record_collection(
        self,
        images: Iterable[Image],
        unreadable: Iterable[Unreadable],
        place: str | None = None,
        root: Path | None = None,
    ) -> None:
        """Say what the collection holds now, and where it is (`Source.place` and its root). Images that are gone
        keep their thumbnails."""
        held = dict(self._rows("SELECT id, paths FROM images"))
        said = {image.id: json.dumps(image.paths) for image in images}
        if absent := said.keys() - held.keys():
            rule = f"every image needs a stored thumbnail, {len(absent):,} have none"
            raise StoreError(rule, "call put_thumbnails first")
        paths = [(new, image_id) for image_id, old in held.items() if (new := said.get(image_id, "[]")) != old]
        failed = [(json.dumps(file.path), printable(file.reason)) for file in unreadable]
        with self._transaction() as connection:
            connection.execute("DELETE FROM unreadable")
            connection.executemany("UPDATE images SET paths = ? WHERE id = ?", paths)
            connection.executemany("INSERT OR REPLACE INTO unreadable VALUES (?, ?)", failed)
            if place is not None:
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('folder', ?)", (json.dumps(place),))
                folder = None if root is None else os.path.abspath(root)
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('root', ?)", (json.dumps(folder),))
            bump_revision(connection, COLLECTION)

    def revisions(self) -> dict[str, int]:
        """How often `COLLECTION`, and each interest's clustering by its slug, was replaced; cheap enough to ask often.
        What an earlier manylens wrote last has none yet."""
        rows = self._rows("SELECT name, number FROM revisions")
        return {_typed(str, row[0]): _typed(int, row[1]) for row in rows}

    def root(self) -> Path | None:
        """The folder, absolute, that the paths were in; None where the pictures are no files of their own, and in runs
        of earlier versions."""
        rows = self._rows("SELECT value FROM meta WHERE name IN ('folder', 'root') ORDER BY name DESC")
        with self._as_written("places"):
            found = json.loads(_typed(str, rows[0][0])) if rows else None
            return None if found is None else Path(_typed(str, found))

    def place(self) -> str | None:
        """Where the collection was last: an absolute path, or an address; None in runs of earlier versions."""
        rows = self._rows("SELECT value FROM meta WHERE name = 'folder'")
        with self._as_written("places"):
            return _typed(str, json.loads(_typed(str, rows[0][0]))) if rows else None

    def put_read_as(self, values: Mapping[str, Any]) -> None:
        """Remember how the collection was read, as JSON-able values: pictures that come later are read in the same way.
        Nothing that says where pictures may be sent belongs here: a folder may come from somebody else."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (READ_AS, json.dumps(values)))

    def read_as(self) -> dict[str, Any]:
        """What `put_read_as` was given last; empty in runs of earlier versions, or where it cannot be read."""
        rows = self._rows("SELECT value FROM meta WHERE name = ?", (READ_AS,))
        try:
            values = json.loads(rows[0][0]) if rows else {}
        except (TypeError, ValueError, RecursionError):
            return {}
        return values if isinstance(values, dict) else {}

    def images(self) -> tuple[Image, ...]:
        """The images of the collection as last recorded, by id."""
        rows = self._rows(
            "SELECT id, paths, width_px, height_px, coalesce(frames, 1) FROM images WHERE paths <> '[]' ORDER BY id"
        )
        with self._as_written("images"):
            return tuple(
                Image(
                    _typed(str, row[0]),
                    tuple(_typed(str, path) for path in json.loads(row[1])),
                    _typed(int, row[2]),
                    _typed(int, row[3]),
                    _typed(int, row[4]),
                )
                for row in rows
            )

    def image_ids(self) -> set[str]:
        """The ids of the collection as last recorded."""
        rows = self._rows("SELECT id FROM images WHERE paths <> '[]'")
        with self._as_written("images"):
            return {_typed(str, row[0]) for row in rows}

    def unreadable(self) -> tuple[Unreadable, ...]:
        """The unreadable files of the collection as last recorded, by path."""
        rows = self._rows("SELECT path, reason FROM unreadable")
        with self._as_written("unreadable files"):
            files = [Unreadable(_typed(str, json.loads(row[0])), _typed(str, row[1])) for row in rows]
        return tuple(sorted(files, key=lambda file: file.path))

    def thumbnail(self, image_id: str) -> bytes:
        """The stored JPEG bytes of one image. Raises StoreError for an image that the run does not know."""
        rows = self._rows("SELECT jpeg, checksum FROM thumbnails WHERE image_id = ?", (image_id,))
        if not rows:
            raise StoreError(f"a thumbnail is stored for every image of the run, {image_id!r} has none", "run again")
        with self._as_written("thumbnails"):
            jpeg, checksum = bytes(_typed(bytes, rows[0][0])), rows[0][1]
        if checksum is not None and zlib.crc32(jpeg) != checksum:
            raise StoreError(
                f"a thumbnail is as it was stored, that of {image_id!r} is damaged",
                f"manylens verify {self.path} --repair sets it aside, and the next run reads the picture again",
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
            query = f"SELECT key, {REPLY_COLUMNS} FROM answers WHERE key IN ({marks})"
            for row in self._rows(query, chunk):
                reply = read_reply(*row[1:])
                if isinstance(reply, str):
                    raise StoreError(
                        f"stored answer {row[0]}: {reply}",
                        f"manylens verify {self.path} --repair sets it aside, and the next run asks again",
                    )
                found[row[0]] = reply
        return found

    def put_answers(self, answers: Iterable[StoredAnswer], books: Books | None = None) -> None:
        """Store answers and forget their failures, in one transaction, on the disk when this returns. books: what is
        without an answer now that these are stored.

        The first answer to a request stays: what was decided on it must not change under it.
        """
        rows = []
        for answer in answers:
            reply = json.dumps(answer.reply.fields, sort_keys=True)
            vector = answer.reply.embedding
            blob = None if vector is None else np.ascontiguousarray(vector, np.float16).tobytes()
            request = answer.request.encode("utf-8", "surrogatepass")
            about = (answer.key, answer.reply.kind, printable(answer.interest), answer.image_id, answer.model_identity)
            tokens = answer.reply.tokens or (None, None)
            rows.append((*about, request, reply, blob, reply_checksum(reply, blob, *tokens), answer.seconds, *tokens))
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                [self._compact(connection, row) for row in rows],
            )
            connection.executemany("DELETE FROM failures WHERE key = ?", [row[:1] for row in rows])
            if books is not None:
                connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_BOOKS, books.to_json()))

    def _compact(self, connection: sqlite3.Connection, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """In a transaction: an answer with its model by number, and its request compressed with one like it."""
        key, kind, interest, image_id, identity, request, *rest = row
        if identity not in self._models:
            connection.execute("INSERT INTO models (identity) VALUES (?) ON CONFLICT DO NOTHING", (identity,))
            ((self._models[identity],),) = connection.execute("SELECT id FROM models WHERE identity = ?", (identity,))
        alike = self._dictionaries.get((kind, interest))
        packed = b"" if alike is None else alike.pack(request, image_id)
        if alike is None or alike.is_outdated(request, packed):
            content = Dictionary.content_with(request, alike)
            number = connection.execute("INSERT INTO dictionaries (content) VALUES (?)", (content,)).lastrowid
            alike = self._dictionaries[kind, interest] = Dictionary(int(number or 0), content)
            packed = alike.pack(request, image_id)
        return key, kind, interest, image_id, self._models[identity], packed, alike.id, *rest

    def requests(self) -> Iterator[tuple[str, str]]:
        """Of every stored answer its key and the request that it answers, as it was rendered, in the order stored.
        Damaged ones are left out."""
        rows = self._rows(
            "SELECT key, image_id, request, content FROM answers LEFT JOIN dictionaries ON id = dictionary "
            "ORDER BY answers.rowid"
        )
        for key, image_id, request, dictionary in rows:
            if (text := _rendered(request, dictionary, image_id, "surrogatepass")) is not None:
                yield key, text

    def embeddings(self, interest: str, identity: str = "") -> dict[str, Vector]:
        """Image id -> (d,) float16, unit length, of the images that were looked at through one interest, by the model
        of this identity; where it has none, by the one that has most, of equals the newest. Of several of an image, the
        newest."""
        return self._of_model(self._vectors(interest), identity)

    def _of_model(self, by_model: Mapping[int, dict[str, _T]], identity: str) -> dict[str, _T]:
        for number, known in self._rows("SELECT id, identity FROM models"):
            if known == identity and number in by_model:
                return by_model[number]
        return max(reversed(list(by_model.values())), key=len, default={})  # what an earlier manylens recorded

    def _vectors(self, interest: str) -> dict[int, dict[str, Vector]]:
        rows = self._rows(
            "SELECT model, image_id, embedding FROM answers WHERE kind IN ('look', 'embed') AND interest = ? "
            "AND embedding IS NOT NULL ORDER BY rowid",
            (printable(interest),),
        )
        by_model: dict[int, dict[str, Vector]] = {}
        for model, image_id, embedding in rows:
            by_model.setdefault(model, {})[image_id] = np.frombuffer(embedding, np.float16)
        return by_model

    def looked(self, interest: str, identity: str = "") -> dict[str, Looked]:
        """Image id -> its look through one interest; of several models and looks as in `embeddings`."""
        rows = self._rows(
            "SELECT model, image_id, reply FROM answers WHERE kind = 'look' AND interest = ? ORDER BY rowid",
            (printable(interest),),
        )
        vectors = self._vectors(interest)
        by_model: dict[int, dict[str, Looked]] = {}
        with self._as_written("looks"):
            for model, image_id, reply in rows:
                if (vector := vectors.get(model, {}).get(image_id)) is not None:
                    fields = json.loads(reply)
                    look = Looked(_typed(str, fields["description"]), float(fields["confidence"]), vector)
                    by_model.setdefault(model, {})[image_id] = look
        return self._of_model(by_model, identity)

    def record_failures(self, failures: Iterable[Failure]) -> None:
        """Remember calls that finally failed; the next run asks them again, but for those that were given up."""
        rows = [(f.key, f.kind, printable(f.interest), f.image_id, printable(f.reason), f.given_up) for f in failures]
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?)", rows)

    def books(self) -> Books:
        """What was sent and has no stored answer. Raises StoreError where that cannot be read."""
        rows = self._rows("SELECT value FROM meta WHERE name = ?", (_BOOKS,))
        try:
            return Books.from_json(str(rows[0][0])) if rows else Books()
        except ValueError as error:
            raise StoreError(str(error), "restore the run folder from a copy, or choose another one") from error

    def put_books(self, books: Books) -> None:
        """On the disk when this returns."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_BOOKS, books.to_json()))

    def failures(self) -> tuple[Failure, ...]:
        """Calls that failed and were not answered since, by key."""
        return tuple(Failure(*row) for row in self._rows("SELECT * FROM failures ORDER BY key"))

    def given_up(self) -> dict[str, tuple[str, str]]:
        """Key -> (reason, reason as result files say it) of the requests that are not asked again by themselves."""
        rows = self._rows("SELECT key, reason, given_up FROM failures WHERE given_up IS NOT NULL")
        with self._as_written("failures"):
            return {_typed(str, row[0]): (_typed(str, row[1]), _typed(str, row[2])) for row in rows}

    # Results, features and checks

    def forget_results(self, paths: Iterable[str]) -> None:
        """Before these result files, relative to the run folder, are written: what they held no longer counts."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM results WHERE path = ?", [(path,) for path in paths])

    def record_results(self, paths: Iterable[str]) -> None:
        """Once they are all written: remember what they hold, so that `verify` can say whether they still do."""
        rows = [(path, sha256_of(self.path / path)) for path in paths]
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO results VALUES (?, ?)", rows)
            _mark_stale(connection, set(), {path.partition("/")[0] for path, _ in rows})

    def features(self, model_name: str, model_identity: str) -> FeatureShards:
        """The cache of visual features of one model; other weights get another folder."""
        slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in model_name.lower()).strip("-")[:40]
        digest = hashlib.sha256(model_identity.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return FeatureShards(self.path / "features" / f"{slug}-{digest}")

    def extent(self) -> tuple[int, bool]:
        """How many answers are stored, and whether there are results of a finished run."""
        ((answers, results),) = self._rows("SELECT (SELECT COUNT(*) FROM answers), (SELECT COUNT(*) FROM results)")
        return answers, bool(results)

    def verify(self) -> list[Damage]:
        """What is damaged; empty where every key, reply, picture, shard and result file holds."""
        with self._guard, explained(self.path):
            return find_damage(self._connection, self.path)

    def set_aside(self, damages: Iterable[Damage]) -> None:
        """Take out what is damaged, so that the next run makes it anew; the rest of `damages` is left alone."""
        with self._transaction() as connection:
            set_aside(connection, [damage for damage in damages if damage.can_be_set_aside])

    # Decisions

    def record_clustering(self, clustering: Clustering, settings: Settings, decided: Clustering | None = None) -> None:
        """Replace what was decided about this interest, on the disk when this returns. decided: by the model, where
        `clustering` is that with a person's corrections."""
        with self._transaction() as connection:
            write_clustering(connection, clustering, settings, decided)

    def clusterings(self, without: Collection[str] = (), slug: str | None = None) -> list[tuple[Clustering, Settings]]:
        """Every interest's decisions, in the order in which the interests were first asked. without: slugs of those
        that are at hand: a million memberships take seconds to read. slug: of the one that is wanted alone."""
        with self._guard, explained(self.path):
            return read_clusterings(self._connection, without, slug)

    def slugs(self) -> list[str]:
        """Of the interests that have decisions, in the order in which they were first asked."""
        return [_typed(str, row[0]) for row in self._rows("SELECT slug FROM clusterings ORDER BY id")]

    def looks(self, interest: str, identity: str = "") -> dict[str, str]:
        """Image id -> its description through one interest; of several models and looks, as for `embeddings`."""
        rows = self._rows(
            "SELECT model, image_id, json_extract(reply, '$.description') FROM answers "
            "WHERE kind = 'look' AND interest = ? ORDER BY rowid",
            (printable(interest),),
        )
        by_model: dict[int, dict[str, str]] = {}
        for model, image_id, description in rows:
            by_model.setdefault(model, {})[image_id] = str(description)
        return self._of_model(by_model, identity)

    def answers_mark(self) -> int:
        """Of the newest answer; `answers_since` counts those that came after it."""
        ((mark,),) = self._rows("SELECT COALESCE(MAX(rowid), 0) FROM answers")
        return int(mark)

    def answers_since(self, mark: int) -> tuple[int, int, int]:
        """How many answers came after it, and their tokens in and out, as far as they were counted."""
        ((calls, tokens_in, tokens_out),) = self._rows(
            "SELECT COUNT(*), COALESCE(SUM(tokens_in), 0), COALESCE(SUM(tokens_out), 0) FROM answers WHERE rowid > ?",
            (mark,),
        )
        return int(calls), int(tokens_in), int(tokens_out)

    def asked_about(self, image_id: str) -> list[tuple[str, str, str, str, StoredReply, float]]:
        """All stored answers about one image, in the order in which they came: (interest, kind, the model's identity,
        the rendered request, the reply, seconds). Damaged ones are left out: `verify` names them."""
        rows = self._rows(
            f"SELECT interest, identity, request, content, seconds, {REPLY_COLUMNS} FROM answers "
            "JOIN models ON models.id = model LEFT JOIN dictionaries ON dictionaries.id = dictionary "
            "WHERE image_id = ? ORDER BY answers.rowid",
            (image_id,),
        )
        found = []
        for interest, identity, request, dictionary, seconds, *reply in rows:
            text = _rendered(request, dictionary, image_id, "replace")
            if text is not None and reply_problem(*reply) is None:
                stored = StoredReply(reply[0], json.loads(reply[1]))
                found.append((interest, reply[0], identity, text, stored, float(seconds)))
        return found

    def decided(self, slug: str) -> Clustering | None:
        """An interest as the model decided it, without what a person said; None where the folder does not hold it."""
        with self._guard, explained(self.path):
            return read_decided(self._connection, slug)

    def settings_of(self, slug: str) -> Settings | None:
        """Those that an interest was last sorted with; None where the folder does not hold it."""
        rows = self._rows("SELECT settings FROM clusterings WHERE slug = ?", (slug,))
        return Settings.from_dict(json.loads(rows[0][0])) if rows else None

    def last_cluster_id(self, slug: str) -> int:
        """The highest id that a cluster of this interest ever had."""
        with self._guard, explained(self.path):
            return last_cluster_id(self._connection, slug)

    def steps(self, slug: str) -> tuple[Step, ...]:
        """What a person said about an interest, in order; what was undone stands last."""
        with self._guard, explained(self.path), self._as_written("corrections"):
            return read_steps(self._connection, slug)

    def record_step(self, slug: str, rulings: Sequence[Ruling], before: Clustering, after: Clustering) -> Step:
        """Keep what a person says and what is shown since, in one transaction, on the disk when this returns."""
        with self._transaction() as connection:
            step = add_step(connection, slug, rulings)
            write_corrected(connection, slug, before, after)
            _mark_stale(connection, {slug}, set())
        return step

    def mark_step(self, slug: str, number: int, is_undone: bool, before: Clustering, after: Clustering) -> None:
        """Take a step back or say it again, and keep what is shown since, in one transaction."""
        with self._transaction() as connection:
            mark_step(connection, slug, number, is_undone)
            write_corrected(connection, slug, before, after)
            _mark_stale(connection, {slug}, set())

    def stale(self) -> tuple[str, ...]:
        """Interests, by slug, whose result files do not show yet what a person said."""
        return tuple(sorted(_stale(self._rows("SELECT value FROM meta WHERE name = ?", (_STALE,)))))

    def result_checksums(self) -> dict[str, str]:
        """Of each result file, by its path in the run folder, the SHA-256 that it was written with."""
        return dict(self._rows("SELECT path, sha256 FROM results"))


def _stale(rows: Sequence[Any]) -> set[str]:
    return set(json.loads(rows[0][0])) if rows else set()


def _mark_stale(connection: sqlite3.Connection, more: set[str], fewer: set[str]) -> None:
    """In the caller's transaction: which interests' files are out of date now."""
    rows = connection.execute("SELECT value FROM meta WHERE name = ?", (_STALE,)).fetchall()
    slugs = json.dumps(sorted((_stale(rows) | more) - fewer))
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_STALE, slugs))


def _rendered(request: Any, dictionary: Any, image_id: str, errors: str) -> str | None:
    """A stored request as text; None for a damaged one."""
    try:
        return (request if dictionary is None else unpack(request, dictionary, image_id)).decode("utf-8", errors)
    except (zlib.error, TypeError, ValueError, AttributeError):
        return None


def _typed(kind: type[_T], value: Any) -> _T:
    """Raises TypeError for a value of another type."""
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} was written, {type(value).__name__} is there")
    return value
