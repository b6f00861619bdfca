"""The run that is shown: what of it is in memory, which version that is, and who may change it.

In: a run folder, that of a new start included, where there is no run yet. Out: its columns, fresh. Promise: the run is
not held: it is read beside whoever writes to it, and opened to write for one change at a time. What is in memory is
replaced when the database says that it was changed, by whatever process.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from manylens.collection.find import open_source
from manylens.collection.source import Source
from manylens.correcting import Corrector
from manylens.correcting.door import bring_up_to_date, log_notice
from manylens.errors import StoreError, UsageError
from manylens.files import DATABASE_NAME
from manylens.method.graph import DEFAULT_EDGE_OFFSET, DEFAULT_EDGE_SCALE
from manylens.settings import Settings
from manylens.store.run_folder import COLLECTION, RunFolder
from manylens.text import shown_name
from manylens.types import Clustering
from manylens.web.columns import (
    ClusterColumns,
    Described,
    ImageColumns,
    NotThere,
    cluster_columns,
    described,
    image_columns,
    no_such,
)
from manylens.web.kept import Kept
from manylens.web.page_store import PageStore
from manylens.web.planes import Planes
from manylens.web.tree import Tree

_MOST_EMBEDDINGS = 2
"""Interests whose embeddings are in memory at once: those of 50,000 images take 38 to 300 MB."""


_MOST_LAYOUTS = 6
"""Layouts that are kept as they were sent: a megabyte each for 50,000 images."""

_PAUSE_S = 60.0
"""How long a person does not correct anything before the result files are written: of 50,000 pictures that takes
seconds, in which the next correction waits."""

_MOST_TREES = 8


class NotAllowed(StoreError):
    """The run may not be changed from here, or not now. status: what HTTP calls it."""

    def __init__(self, rule: str, hint: str, status: int = 403) -> None:
        super().__init__(rule, hint)
        self.status = status


class ShownRun:
    """path: the run folder. folder: of the pictures, where the person named one. read_only: why nothing may be
    changed, or empty. Every method may be called from any thread."""

    def __init__(self, path: Path, folder: Path | None = None, *, read_only: bool = False) -> None:
        self.path = path
        self._folder = folder
        self._guard = threading.RLock()
        self._writing = threading.Lock()
        self._reader: RunFolder | None = None
        self._place: tuple[int, int] | None = None
        self._images: ImageColumns | None = None
        self._columns: dict[str, ClusterColumns] = {}
        self.layouts = Kept[bytes](_MOST_LAYOUTS)
        self.trees = Kept[Tree](_MOST_TREES)
        self.other: ShownRun | None = None
        self.is_running = False
        self._source: tuple[str, Source] | None = None
        self._corrected_at: float | None = None
        self._reviewing = threading.Lock()
        self._correctors: dict[str, tuple[tuple[str, int, int], Corrector]] = {}
        self.store = PageStore(path)
        self.exclude: tuple[str, ...] = ()
        self.include: tuple[str, ...] = ()
        self._looks: dict[str, tuple[tuple[int, int, str], Described]] = {}
        self._embeddings: OrderedDict[str, tuple[tuple[int, int, str], NDArray[np.float16], NDArray[np.int64]]] = (
            OrderedDict()
        )
        self.jobs_begun_here: set[int] = set()
        """By this process, at a person's word."""
        self.read_only = "the page was opened with --read-only" if read_only else ""
        if not read_only and not self._is_writable():
            self.read_only = "the run folder cannot be written to"
        if not self.read_only:
            self._bring_up_to_date()
        self.planes = Planes(self.store, keeps=not self.read_only)

    def _is_writable(self) -> bool:
        place = self.path if self.path.exists() else self.path.absolute().parent
        database = self.path / DATABASE_NAME
        return os.access(place, os.W_OK) and (not database.exists() or os.access(database, os.W_OK))

    def _bring_up_to_date(self) -> None:
        """A run of an earlier manylens gets the tables of this one; where another process holds it, it has them."""
        if (self.path / DATABASE_NAME).is_file():
            with contextlib.suppress(StoreError), RunFolder.open(self.path, must_exist=True):
                pass

    @property
    def name(self) -> str:
        return shown_name(Path(os.path.abspath(self.path)).name)

    @property
    def is_new(self) -> bool:
        return not (self.path / DATABASE_NAME).is_file()

    @property
    def folder(self) -> Path | None:
        """Of the pictures: as the person named it, else as the run has it; None where they are not in one."""
        if self._folder is not None or self.is_new:
            return self._folder
        return self.reader().root()

    @property
    def place(self) -> str | None:
        """Where the pictures are: their folder, else an archive, a list, an address."""
        folder = self.folder
        return str(folder) if folder is not None else None if self.is_new else self.reader().place()

    def source(self) -> Source | None:
        """What the pictures are read from; None where it is away, or behind an address: the page asks no server."""
        place = self.place
        if place is None or "://" in place:
            return None
        with self._guard:
            if self._source is None or self._source[0] != place:
                try:
                    self._source = (place, open_source(place))
                except UsageError:
                    return None
            return self._source[1]

    def reader(self) -> RunFolder:
        """The run, to be read. Raises StoreError where there is none, NotThere where there is none yet."""
        with self._guard:
            try:
                status = os.stat(self.path / DATABASE_NAME)
            except OSError:
                self._forget()
                raise NotThere(
                    f"nothing is sorted yet, {shown_name(str(self.path))} holds no run", "name an interest first"
                ) from None
            place = (status.st_dev, status.st_ino)
            if self._reader is None or place != self._place:
                self._forget()
                self._reader, self._place = RunFolder.read(self.path), place
            return self._reader

    def _forget(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None
        self._images = None
        self._columns.clear()
        self._looks.clear()
        self._correctors.clear()
        self._embeddings.clear()

    def close(self) -> None:
        with self._guard:
            self._forget()
            self.planes.close()
            self.store.close()

    def versions(self) -> dict[str, int]:
        """Of each interest's clustering, by slug; empty for a new start."""
        if self.is_new:
            return {}
        reader = self.reader()
        known = reader.revisions()
        return {slug: known.get(slug, 0) for slug in reader.slugs()}

    def version(self) -> str:
        """Another text after any change of what is shown."""
        return "" if self.is_new else repr(sorted(self.reader().revisions().items()))

    def images(self) -> ImageColumns:
        with self._guard:
            reader = self.reader()
            version = reader.revisions().get(COLLECTION, 0)
            if self._images is None or self._images.version != version:
                self._images = image_columns(reader.images(), version)
                self._columns.clear()
            return self._images

    def both(self, slug: str) -> tuple[ImageColumns, ClusterColumns]:
        """The images and where the interest puts them, of one moment. Raises NotThere for an interest that is none."""
        with self._guard:
            images = self.images()
            reader = self.reader()
            version = reader.revisions().get(slug, 0)
            known = self._columns.get(slug)
            if known is None or known.version != version:
                found = reader.clusterings(slug=slug)
                if not found:
                    self._columns.pop(slug, None)
                    raise no_such("an interest is one of the run's", slug, "see /api/run for those it has")
                ((clustering, settings),) = found
                looks = self._described(slug, clustering, images, reader)
                known = self._columns[slug] = cluster_columns(clustering, settings, looks, images, version)
            return images, known

    def _described(self, slug: str, shown: Clustering, images: ImageColumns, reader: RunFolder) -> Described:
        """A correction changes no description: they are read again only when there are other images or answers."""
        of = (images.version, reader.answers_mark(), shown.identity)
        known = self._looks.get(slug)
        if known is None or known[0] != of:
            known = self._looks[slug] = (of, described(reader.looks(shown.interest.text, shown.identity), images))
        return known[1]

    def columns(self, slug: str) -> ClusterColumns:
        return self.both(slug)[1]

    def all_columns(self) -> list[tuple[str, ClusterColumns]]:
        """Of every interest, in the order in which they were first asked."""
        return [] if self.is_new else [(slug, self.columns(slug)) for slug in self.reader().slugs()]

    def embedded(self, slug: str) -> tuple[ImageColumns, ClusterColumns, NDArray[np.float16], NDArray[np.int64]]:
        """`both`, the embeddings, (m, d) of unit length, and the rows of the images that they are of, ascending."""
        with self._guard:
            images, columns = self.both(slug)
            of = (images.version, self.reader().answers_mark(), columns.of.identity)
            known = self._embeddings.get(slug)
            if known is None or known[0] != of:
                by_id = self.reader().embeddings(columns.of.interest.text, columns.of.identity)
                rows = np.array([row for row, image_id in enumerate(images.ids) if image_id in by_id], np.int64)
                vectors = (
                    np.stack([by_id[images.ids[row]] for row in rows]) if rows.size else np.zeros((0, 1), np.float16)
                )
                known = (of, vectors, rows)
            self._embeddings[slug] = known
            self._embeddings.move_to_end(slug)
            while len(self._embeddings) > _MOST_EMBEDDINGS:
                self._embeddings.popitem(last=False)
            return images, columns, known[1], known[2]

    def clustering(self, slug: str) -> tuple[Clustering, Settings]:
        """As stored, whole. Raises NotThere."""
        found = self.reader().clusterings(slug=slug)
        if not found:
            raise no_such("an interest is one of the run's", slug, "see /api/run for those it has")
        return found[0]

    @contextlib.contextmanager
    def reviewing(self, slug: str) -> Iterator[Corrector]:
        """The interest's corrections, to be read; what it holds of the images' looks is kept from one time to the next,
        for reading that takes longer than all else."""
        images = self.images()
        reader = self.reader()
        with self._reviewing:
            of = (str(self._place), images.version, reader.answers_mark())
            known = self._correctors.pop(slug, None)
            corrector = Corrector(reader, slug)
            if known is not None and known[0] == of:
                corrector.take_looks(known[1])
            self._correctors.clear()  # the looks of one interest alone: those of 50,000 images take 100 MB
            self._correctors[slug] = (of, corrector)
            yield corrector

    def pictures(self) -> str:
        """The place of the pictures. Raises UsageError where it is not known or not there."""
        place = self.place
        if place is None or ("://" not in place and not os.path.exists(place)):
            where = "is not known" if place is None else f"is not at {shown_name(place)}"
            raise UsageError(f"pictures are sorted from their folder, it {where}", "put it back, or open the folder")
        return place

    @contextlib.contextmanager
    def writing(self) -> Iterator[RunFolder]:
        """The run, held for one change. Raises NotAllowed where it may not be changed, or another process holds it."""
        self.check_writable()
        with self._writing:
            with _told_when_held():
                run = RunFolder.open(self.path, must_exist=True)
            with run:
                yield run

    def edge(self, columns: ClusterColumns) -> tuple[float, float]:
        """beta and b, by which the weight of an edge follows from the cosine of two embeddings; the usual ones where an
        earlier manylens did not write them down."""
        return columns.of.edge or (DEFAULT_EDGE_SCALE, DEFAULT_EDGE_OFFSET)

    def can_undo_redo(self, slug: str) -> tuple[bool, bool]:
        steps = self.reader().steps(slug)
        return any(not step.is_undone for step in steps), any(step.is_undone for step in steps)

    def note_correction(self, slug: str) -> None:
        self._corrected_at = time.monotonic()

    def write_files_after_pause(self, pause_s: float = _PAUSE_S) -> None:
        """The result files of what was corrected, once the person pauses and nobody else is at work on the run."""
        if self._corrected_at is None or time.monotonic() - self._corrected_at < pause_s or self.is_running:
            return
        tried_at = self._corrected_at = time.monotonic()  # what fails is tried again after another pause
        with contextlib.suppress(StoreError), self.writing() as run:
            bring_up_to_date(run, log_notice)
            if self._corrected_at == tried_at:
                self._corrected_at = None

    def files_of(self, images: ImageColumns, row: int) -> list[Path]:
        """Where the image's files should be: below the folder of the pictures, whatever their recorded paths say."""
        folder = self.folder
        if folder is None:
            return []
        return [
            folder / path for path in images.paths[row] if not Path(path).is_absolute() and ".." not in Path(path).parts
        ]

    def size_on_disk(self, images: ImageColumns, row: int) -> int | None:
        """Of the first of the image's files that is still there, in bytes; None where none is a file of its own."""
        for file in self.files_of(images, row):
            with contextlib.suppress(OSError, ValueError):
                status = file.stat()
                if stat.S_ISREG(status.st_mode):
                    return status.st_size
        return None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """For what opens the run by itself: nothing else of this server does meanwhile. Raises as `writing` does."""
        self.check_writable()
        with self._writing, _told_when_held():
            yield

    def check_writable(self) -> None:
        if self.read_only:
            raise NotAllowed(
                f"this run is only shown, {self.read_only}", "open it without --read-only, in a folder of your own"
            )


@contextlib.contextmanager
def _told_when_held() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        if "one process at a time" not in error.rule:
            raise
        raise NotAllowed(
            "a run is changed by one process at a time, another one is at work on it",
            "wait for it to end, or cancel it",
            409,
        ) from error
