"""All that a run decided, as one wide table: a row for each readable file, some columns for each interest.

In: a run folder. Out: a `RunTable`. Promise: every readable file has its row; an interest's columns begin with its
folder name, `-` as `_`, so that no two interests share a column.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection as Some
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from manylens.collection.find import Collection, open_source
from manylens.collection.pictures import open_image
from manylens.collection.source import Place, Source, as_place
from manylens.errors import ImageUnreadable, ManylensError, UsageError
from manylens.results.table import FileTable, as_of, collection_of, join
from manylens.store.answers import Vector
from manylens.store.run_folder import RunFolder
from manylens.text import printable
from manylens.types import find_interest

FILE_COLUMNS = ("image", "sha256", "width_px", "height_px", "frames")

INTEREST_COLUMNS = ("cluster", "name", "confidence", "state", "decided_by", "reason")


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did, or would do. path: where. files: how many files or pictures it is about. left: those that it
    left alone, (path, reason). steps: what is done to files, a line each, for exports that have steps.
    unplaced: files that are in no cluster, of exports that are about clusters alone, over all interests."""

    path: Path
    files: int
    left: tuple[tuple[str, str], ...] = ()
    steps: tuple[str, ...] = ()
    unplaced: int = 0


@dataclass(frozen=True, slots=True)
class RunTable:
    """tables: one an interest, with the same rows in the same order. embeddings: by interest, image id -> (d,) float16,
    unit length. place: where the pictures are, a path or an address, or None where it is not known. recorded: an
    address that the run folder names and nobody typed."""

    collection: Collection
    tables: tuple[FileTable, ...]
    embeddings: Mapping[str, Mapping[str, Vector]]
    place: Place | None
    recorded: str = ""

    def open_pictures(self) -> Source:
        """What holds the pictures. Raises UsageError where it is not known, or not there, or would be fetched from an
        address because a run folder says so, which may be somebody else's."""
        if self.place is None and self.recorded:
            raise UsageError(
                f"this export reads the pictures, which were at {printable(self.recorded)}",
                "say so again and they are fetched: as the folder",
            )
        if self.place is None or (isinstance(self.place, Path) and not self.place.exists()):
            where = "is not known" if self.place is None else f"is not at {printable(str(self.place))}"
            raise UsageError(f"this export reads the pictures, their folder {where}", "say where they are: the folder")
        return open_source(self.place)

    @property
    def pictures(self) -> Path:
        """The folder of the pictures. Raises UsageError where it is not known or not there, or they are in none."""
        source = self.open_pictures()
        if source.root is None:
            raise UsageError(
                f"this export needs pictures that are files of their own, those of {printable(source.place)} are not",
                "unpack or download them and name their folder, or export folders of copies",
            )
        return source.root


def picture_files(run: RunTable, below: Path) -> tuple[dict[int, Path], tuple[tuple[str, str], ...]]:
    """Row number -> its picture as a file, absolute: where it is, or written `below` where it is none of its own. And
    what cannot be had, (path, reason)."""
    source, rows = run.open_pictures(), run.tables[0].rows
    files: dict[int, Path] = {}
    left: list[tuple[str, str]] = []
    written: dict[str, Path] = {}
    for number, row in enumerate(rows):
        if source.root is not None:
            path = Path(os.path.abspath(source.root / row.path))
            if path.is_file():
                files[number] = path
            else:
                left.append((printable(row.path), "it is no longer there"))
            continue
        try:
            if row.image_id not in written:
                target = below / f"{row.image_id[:16]}{ending(row.path)}"
                written[row.image_id] = write_picture(source, row.path, row.image_id, target)
            files[number] = written[row.image_id]
        except (OSError, ManylensError) as error:
            left.append((printable(row.path), error.rule if isinstance(error, ManylensError) else str(error)))
    return files, tuple(left)


def ending(path: str) -> str:
    """The suffix of a file's name; of an address without what follows `?`."""
    suffix = PurePosixPath(path.split("?")[0].split("#")[0]).suffix.lower()
    return suffix if suffix[1:].isalnum() else ""


def write_picture(source: Source, path: str, image_id: str, target: Path) -> Path:
    """A picture of a source as a new file, whole or not at all. Raises OSError, ManylensError."""
    with open_image(source, path, image_id) as content:
        if content is None:
            raise ImageUnreadable("it was changed since it was sorted")
        content.seek(0)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name[:200]}.part")
        with open(aside, "wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
    return target


def read_run(out: Path, folder: Place | None = None, by: str | None = None, only: Some[str] | None = None) -> RunTable:
    """The run at `out`: of all its interests, or of the one that `by` means (`types.find_interest`). folder: where its
    pictures are, if they are no longer where they were. only: of the images with these ids, or the files with these
    paths. Raises StoreError where there is no run, UsageError where it has no such result."""
    with RunFolder.open(out, must_exist=True) as run:
        recorded = run.place()
        address = recorded if folder is None and recorded is not None and "://" in recorded else ""
        place = folder if folder is not None else None if address or recorded is None else as_place(recorded)
        collection = collection_of(run, folder)
        if only is not None:
            collection = _selected(collection, frozenset(only))
        clusterings = [as_of(clustering, collection) for clustering, _ in run.clusterings()]
        if not clusterings:
            raise UsageError(
                f"results are read from a finished run, {out} has none",
                "run the command that began it again, to its end",
            )
        meant = None if by is None else find_interest((c.interest for c in clusterings), by)
        chosen = [c for c in clusterings if meant is None or c.interest == meant]
        embeddings = {c.interest.text: run.embeddings(c.interest.text, c.identity) for c in chosen}
    return RunTable(collection, tuple(join(c, collection) for c in chosen), embeddings, place, address)


def _selected(collection: Collection, only: frozenset[str]) -> Collection:
    """Raises UsageError where one of them is not in the collection, and where there is none."""
    known = {image.id for image in collection.images} | {path for image in collection.images for path in image.paths}
    if not only or only - known:
        strange = min(only - known, default="none")
        raise UsageError(
            f"a selection names pictures of the run, got {printable(strange)!r}", "name them as its tables do"
        )
    images = [
        image if image.id in only else replace(image, paths=tuple(path for path in image.paths if path in only))
        for image in collection.images
    ]
    chosen = tuple(image for image in images if image.paths)
    return replace(collection, images=chosen, unreadable=(), files_found=sum(len(image.paths) for image in chosen))


def prefix(table: FileTable) -> str:
    return table.clustering.interest.slug.replace("-", "_")


def column_names(tables: Sequence[FileTable]) -> list[str]:
    return [*FILE_COLUMNS, *(f"{prefix(table)}_{name}" for table in tables for name in INTEREST_COLUMNS)]


def records(tables: Sequence[FileTable]) -> Iterator[dict[str, Any]]:
    """The rows, by path: `FILE_COLUMNS`, then each interest's. cluster and name are None where a file is in none."""
    if not tables:
        return
    sizes = {image.id: (image.width_px, image.height_px, image.frames) for image in tables[0].collection.images}
    for rows in zip(*(table.rows for table in tables), strict=True):
        values = dict(
            zip(FILE_COLUMNS, (printable(rows[0].path), rows[0].image_id, *sizes[rows[0].image_id]), strict=True)
        )
        for table, row in zip(tables, rows, strict=True):
            name = None if row.cluster is None else row.name
            cells = (row.cluster, name, row.confidence, row.state, row.decided_by, printable(row.reason))
            values |= {f"{prefix(table)}_{key}": cell for key, cell in zip(INTEREST_COLUMNS, cells, strict=True)}
        yield values
