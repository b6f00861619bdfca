"""The result files of a run: tables and JSON that other programs rely on, and optional folders of links.

In: a finished `Clustering` and the `Collection` it is about. Out: `OUT/unreadable.csv` and, per interest,
`OUT/<slug>/assignments.csv`, `clusters.json`, `summary.json`, `vocabulary.json` and, on request, `clusters/<name>/`
with links.
Promise: everything is counted by *file*, so files with equal bytes each have their row; assigned + unassigned +
failed + not looked at = files found, where failed are the unreadable files and those whose look failed, and not looked
at those that the budget did not reach. Equal inputs give equal bytes, but for `seconds` in `summary.json`. Each file is
replaced whole or not at all.

Names are data. Text is UTF-8; a file name that is not is written with `\\udcXX` in place of its odd bytes. A
spreadsheet takes a cell that starts with `=`, `+`, `-` or `@` for a formula: such a path is written as `./=name`, which
is the same file, and such a name or reason gets a leading `'`.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manylens.collection.find import Collection
from manylens.files import own_folder, write_atomically
from manylens.results.links import remove_links, write_links
from manylens.settings import Settings
from manylens.types import Assignment, Clustering

RESULT_FILES = ("assignments.csv", "clusters.json", "summary.json", "vocabulary.json")

UNREADABLE_NAME = "unreadable.csv"

ASSIGNMENT_COLUMNS = ("image", "cluster", "name", "confidence", "reason", "decided_by")

UNREADABLE_COLUMNS = ("image", "reason")

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class FileCounts:
    """How many files ended where; found is the sum. failed = unreadable + looks that failed."""

    found: int
    assigned: int
    unassigned: int
    failed: int
    not_looked: int = 0


def count_files(clustering: Clustering, collection: Collection) -> FileCounts:
    """Count by file: an image of three equal files counts three times."""
    failed_ids = {image_id for image_id, _ in clustering.failed}
    assigned_ids = {a.image_id for a in clustering.assignments if a.cluster is not None} - failed_ids
    not_looked_ids = set(clustering.not_looked)
    assigned = unassigned = failed = not_looked = 0
    for image in collection.images:
        if image.id in failed_ids:
            failed += len(image.paths)
        elif image.id in assigned_ids:
            assigned += len(image.paths)
        elif image.id in not_looked_ids:
            not_looked += len(image.paths)
        else:
            unassigned += len(image.paths)
    unreadable = len(collection.unreadable)
    found = assigned + unassigned + failed + not_looked + unreadable
    return FileCounts(found, assigned, unassigned, failed + unreadable, not_looked)


def write_results(
    out: Path,
    clustering: Clustering,
    collection: Collection,
    *,
    settings: Settings,
    seconds: float,
    version: str,
    links: bool = False,
) -> Path:
    """Write one interest's files below `out` and return their folder, `out/<slug>`.

    seconds: wall-clock time of the whole run so far. Raises UsageError where links cannot be made.
    """
    folder = own_folder(out / clustering.interest.slug)
    write_atomically(
        folder / "assignments.csv", _csv_bytes(ASSIGNMENT_COLUMNS, _assignment_rows(clustering, collection))
    )
    write_atomically(folder / "clusters.json", _json_bytes(cluster_values(clustering, collection)))
    summary = summary_values(clustering, collection, settings=settings, seconds=seconds, version=version)
    write_atomically(folder / "summary.json", _json_bytes(summary))
    write_atomically(folder / "vocabulary.json", _json_bytes(dict(clustering.vocabulary)))
    remove_links(folder / "clusters")  # those of an earlier run, which may have sorted otherwise
    if links:
        write_links(folder / "clusters", clustering, collection)
    return folder


def write_unreadable(out: Path, collection: Collection) -> Path:
    """Write `out/unreadable.csv`: every file that was found and could not be used, with the reason."""
    path = out / UNREADABLE_NAME
    rows = ((_path_cell(u.path), _text_cell(u.reason)) for u in sorted(collection.unreadable, key=lambda u: u.path))
    write_atomically(path, _csv_bytes(UNREADABLE_COLUMNS, rows))
    return path


def cluster_values(clustering: Clustering, collection: Collection) -> list[dict[str, Any]]:
    """What `clusters.json` holds: clusters by id, sizes in files, exemplars as paths in the collection's folder."""
    paths = {image.id: image.paths for image in collection.images}
    failed_ids = {image_id for image_id, _ in clustering.failed}
    sizes: Counter[int] = Counter()
    for assignment in clustering.assignments:
        if assignment.cluster is not None and assignment.image_id not in failed_ids:
            sizes[assignment.cluster] += len(paths[assignment.image_id])
    return [
        {
            "id": cluster.id,
            "name": cluster.name,
            "definition": cluster.definition,
            "size": sizes[cluster.id],
            "exemplars": [paths[image_id][0] for image_id in cluster.exemplars],
            "parent": cluster.parent,
            "misplaced": None if cluster.misplaced is None else cluster.misplaced.to_dict(),
        }
        for cluster in sorted(clustering.clusters, key=lambda cluster: cluster.id)
    ]


def summary_values(
    clustering: Clustering, collection: Collection, *, settings: Settings, seconds: float, version: str
) -> dict[str, Any]:
    """What `summary.json` holds. `images` is the number of readable files, the rows of `assignments.csv`."""
    counts = count_files(clustering, collection)
    images = sum(len(image.paths) for image in collection.images)
    calls = clustering.calls
    return {
        "interest": clustering.interest.text,
        "model": clustering.model,
        "images": images,
        "distinct_images": len(collection.images),
        "clusters": len(clustering.clusters),
        "files_found": counts.found,
        "assigned": counts.assigned,
        "unassigned": counts.unassigned,
        "failed": counts.failed,
        "not_looked": counts.not_looked,
        "partial": clustering.is_partial,
        "calls": calls.total,
        "calls_per_image": round(calls.total / images, 4) if images else 0.0,
        "look_calls": calls.look,
        "judge_calls": calls.judge + calls.choose,
        "choose_calls": calls.choose,
        "complete_calls": calls.complete,
        "failed_calls": calls.failed,
        "foreseen_calls": [calls.look + count for count in clustering.foreseen_calls],
        "tokens_in": calls.tokens.tokens_in,
        "tokens_out": calls.tokens.tokens_out,
        "answers_without_tokens": calls.tokens.uncounted,
        "usd": round(settings.cost_usd(calls.tokens.tokens_in, calls.tokens.tokens_out), 6)
        if settings.is_priced
        else None,
        "density": clustering.density,
        "misplaced": None if clustering.estimate is None else clustering.estimate.to_dict(),
        "notes": list(clustering.notes),
        "unreadable": [u.to_dict() for u in sorted(collection.unreadable, key=lambda u: u.path)],
        "settings": settings.to_dict(),
        "manylens": version,
        "seconds": round(seconds, 2),
    }


def _assignment_rows(clustering: Clustering, collection: Collection) -> Iterator[tuple[str, ...]]:
    """One row per readable file, sorted by path."""
    names = {cluster.id: cluster.name for cluster in clustering.clusters}
    decided = {assignment.image_id: assignment for assignment in clustering.assignments}
    failed = dict(clustering.failed)
    not_looked = set(clustering.not_looked)
    placed = sorted((path, image.id) for image in collection.images for path in image.paths)
    for path, image_id in placed:
        assignment = decided.get(image_id)
        if image_id in failed or assignment is None:
            reason = f"the look failed: {failed[image_id]}" if image_id in failed else "not decided"
            reason = "not looked at: the budget was spent" if image_id in not_looked else reason
            assignment = Assignment(image_id, None, 0.0, reason, "")
        assigned = assignment.cluster is not None
        yield (
            _path_cell(path),
            str(assignment.cluster) if assigned else "",
            _text_cell(names[assignment.cluster]) if assignment.cluster is not None else "",
            f"{assignment.confidence:.4f}",
            _text_cell(assignment.reason),
            assignment.decided_by,
        )


def _path_cell(path: str) -> str:
    return f"./{path}" if path.startswith(_FORMULA_STARTS) else path


def _text_cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """RFC 4180. The line ending is CRLF: with LF alone Python 3.11 leaves a carriage return in a name unquoted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _json_bytes(values: object) -> bytes:
    """A lone surrogate (a file name that is not UTF-8) becomes `\\udcXX`, which JSON reads back as it was."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "backslashreplace")
