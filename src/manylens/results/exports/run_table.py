"""All that a run decided, as one wide table: a row for each readable file, some columns for each interest.

In: a run folder. Out: a `RunTable`. Promise: every readable file has its row; an interest's columns begin with its
folder name, `-` as `_`, so that no two interests share a column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manylens.collection.find import Collection
from manylens.errors import UsageError
from manylens.results.table import FileTable, as_of, collection_of, join
from manylens.store.answers import Vector
from manylens.store.run_folder import RunFolder
from manylens.text import printable

FILE_COLUMNS = ("image", "sha256", "width_px", "height_px")

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
    unit length. root: the folder that the rows' paths are in, or None where it is not known."""

    collection: Collection
    tables: tuple[FileTable, ...]
    embeddings: Mapping[str, Mapping[str, Vector]]
    root: Path | None

    @property
    def pictures(self) -> Path:
        """The folder of the pictures. Raises UsageError where it is not known or not there."""
        if self.root is None or not self.root.is_dir():
            where = "is not known" if self.root is None else f"is not at {printable(str(self.root))}"
            raise UsageError(f"this export reads the pictures, their folder {where}", "say where they are: the folder")
        return self.root


def read_run(out: Path, folder: Path | None = None, by: str | None = None) -> RunTable:
    """The run at `out`: of all its interests, or of the one in words `by`. folder: where its pictures are, if they are
    no longer where they were. Raises StoreError where there is no run, UsageError where it has no such result."""
    with RunFolder.open(out, must_exist=True) as run:
        root = folder if folder is not None else run.root()
        collection = collection_of(run, folder)
        clusterings = [as_of(clustering, collection) for clustering, _ in run.clusterings()]
        words = None if by is None else " ".join(by.split())
        chosen = [c for c in clusterings if words is None or words == c.interest.text]
        if not chosen:
            known = ", ".join(repr(c.interest.text) for c in clusterings)
            raise UsageError(
                f"a run that is exported has results, {out} has none" + ("" if by is None else f" for {by!r}"),
                f"it has {known}" if known else "finish it first: the command that began it",
            )
        embeddings = {c.interest.text: run.embeddings(c.interest.text) for c in chosen}
    return RunTable(collection, tuple(join(c, collection) for c in chosen), embeddings, root)


def prefix(table: FileTable) -> str:
    return table.clustering.interest.slug.replace("-", "_")


def column_names(tables: Sequence[FileTable]) -> list[str]:
    return [*FILE_COLUMNS, *(f"{prefix(table)}_{name}" for table in tables for name in INTEREST_COLUMNS)]


def records(tables: Sequence[FileTable]) -> Iterator[dict[str, Any]]:
    """The rows, by path: `FILE_COLUMNS`, then each interest's. cluster and name are None where a file is in none."""
    if not tables:
        return
    sizes = {image.id: (image.width_px, image.height_px) for image in tables[0].collection.images}
    for rows in zip(*(table.rows for table in tables), strict=True):
        values = dict(
            zip(FILE_COLUMNS, (printable(rows[0].path), rows[0].image_id, *sizes[rows[0].image_id]), strict=True)
        )
        for table, row in zip(tables, rows, strict=True):
            name = None if row.cluster is None else row.name
            cells = (row.cluster, name, row.confidence, row.state, row.decided_by, printable(row.reason))
            values |= {f"{prefix(table)}_{key}": cell for key, cell in zip(INTEREST_COLUMNS, cells, strict=True)}
        yield values
