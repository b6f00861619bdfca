"""One interest's clustering by file: image ids and paths joined once. Result files, labels and counts are views of it.

In: a `Clustering` and the `Collection` it is about. Out: a `FileTable`. Promise: everything is counted by *file*, so
files with equal bytes each have their row; assigned + unassigned + failed + not looked at = files found, where failed
are the unreadable files and those whose look failed, and not looked at those that the budget did not reach.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Literal, TypeAlias

from manylens.collection.find import Collection
from manylens.collection.source import Place
from manylens.store.run_folder import RunFolder
from manylens.types import Assignment, Clustering, DecidedBy, Misplaced

State: TypeAlias = Literal["assigned", "unassigned", "failed", "not looked at"]


@dataclass(frozen=True, slots=True)
class FileRow:
    """Where one file ended. cluster, name: of its cluster, None and empty where it is in none. confidence in [0, 1]."""

    path: str
    image_id: str
    state: State
    cluster: int | None
    name: str
    confidence: float
    reason: str
    decided_by: DecidedBy


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """A cluster in files. size: files. confidence: mean over its images, in [0, 1]. exemplars: paths. parent: the
    coarser kind it belongs to, or empty. misplaced: the estimated share of its images, or None where not known."""

    id: int
    name: str
    definition: str
    size: int
    confidence: float
    exemplars: tuple[str, ...]
    parent: str = ""
    misplaced: Misplaced | None = None


@dataclass(frozen=True, slots=True)
class FileCounts:
    """How many files ended where; found is the sum. failed = unreadable + looks that failed."""

    found: int
    assigned: int
    unassigned: int
    failed: int
    not_looked: int = 0


@dataclass(frozen=True, slots=True)
class FileTable:
    """rows: one per readable file, by path. clusters: by id. counts: with the unreadable files."""

    clustering: Clustering
    collection: Collection
    rows: tuple[FileRow, ...]
    clusters: tuple[ClusterRow, ...]
    counts: FileCounts

    @property
    def labels(self) -> Mapping[str, str | None]:
        """Path -> its cluster's name, or None where it is in none."""
        return {row.path: None if row.cluster is None else row.name for row in self.rows}


def join(clustering: Clustering, collection: Collection) -> FileTable:
    names = {cluster.id: cluster.name for cluster in clustering.clusters}
    found = {assignment.image_id: assignment for assignment in clustering.assignments}
    failed, not_looked = dict(clustering.failed), frozenset(clustering.not_looked)
    rows: list[FileRow] = []
    confidences: dict[int, list[float]] = {}
    for image in collection.images:
        state, at = _place(image.id, found.get(image.id), failed, not_looked)
        if at.cluster is not None:
            confidences.setdefault(at.cluster, []).append(at.confidence)
        name = "" if at.cluster is None else names[at.cluster]
        rows += [
            FileRow(path, image.id, state, at.cluster, name, at.confidence, at.reason, at.decided_by)
            for path in image.paths
        ]
    rows.sort(key=lambda row: row.path)
    sizes = Counter(row.cluster for row in rows)
    first = {image.id: image.paths[0] for image in collection.images}
    clusters = tuple(
        ClusterRow(
            id=cluster.id,
            name=cluster.name,
            definition=cluster.definition,
            size=sizes[cluster.id],
            confidence=fmean(confidences.get(cluster.id, [0.0])),
            exemplars=tuple(first[image_id] for image_id in cluster.exemplars),
            parent=cluster.parent,
            misplaced=cluster.misplaced,
        )
        for cluster in sorted(clustering.clusters, key=lambda cluster: cluster.id)
    )
    states = Counter(row.state for row in rows)
    unreadable = len(collection.unreadable)
    counts = FileCounts(
        found=len(rows) + unreadable,
        assigned=states["assigned"],
        unassigned=states["unassigned"],
        failed=states["failed"] + unreadable,
        not_looked=states["not looked at"],
    )
    return FileTable(clustering, collection, tuple(rows), clusters, counts)


def _place(
    image_id: str, found: Assignment | None, failed: Mapping[str, str], not_looked: frozenset[str]
) -> tuple[State, Assignment]:
    if image_id in failed:
        return "failed", Assignment(image_id, None, 0.0, f"the look failed: {failed[image_id]}", "")
    if found is None:
        if image_id in not_looked:
            return "not looked at", Assignment(image_id, None, 0.0, "not looked at: the budget was spent", "")
        return "unassigned", Assignment(image_id, None, 0.0, "not decided", "")
    if found.cluster is not None:
        return "assigned", found
    return ("not looked at" if image_id in not_looked else "unassigned"), found


def collection_of(run: RunFolder, folder: Place | None = None) -> Collection:
    """The collection as the run last recorded it. folder: where its pictures are, if no longer where they were."""
    images, unreadable = run.images(), run.unreadable()
    found = sum(len(image.paths) for image in images) + len(unreadable)
    root = folder if isinstance(folder, Path) and folder.is_dir() else run.root()
    return Collection(root or Path(), images, unreadable, 0, found)


def as_of(clustering: Clustering, collection: Collection) -> Clustering:
    """An earlier clustering of a collection that has changed since: images that are gone are left out, new ones are not
    looked at."""
    ids = {image.id for image in collection.images}
    known = {a.image_id for a in clustering.assignments} | {image_id for image_id, _ in clustering.failed}
    known |= set(clustering.not_looked)
    if known == ids:
        return clustering
    return replace(
        clustering,
        clusters=tuple(
            replace(cluster, exemplars=tuple(image_id for image_id in cluster.exemplars if image_id in ids))
            for cluster in clustering.clusters
        ),
        assignments=tuple(a for a in clustering.assignments if a.image_id in ids),
        failed=tuple(pair for pair in clustering.failed if pair[0] in ids),
        not_looked=tuple(sorted((set(clustering.not_looked) & ids) | (ids - known))),
    )
