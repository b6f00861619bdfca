"""The result files of a run: tables and JSON that other programs rely on, and optional folders of links.

In: a `FileTable` of an interest. Out: `OUT/unreadable.csv` and, per interest, `OUT/<slug>/assignments.csv`,
`clusters.json`, `summary.json`, `vocabulary.json` and, on request, `clusters/<name>/` with links.
Promise: equal inputs give equal bytes, but for `seconds` in `summary.json`. Each file is replaced whole or not at all.

Names are data. Text is UTF-8; a file name that is not is written with `\\udcXX` in place of its odd bytes. A
spreadsheet takes a cell that starts with `=`, `+`, `-`, `@` or white space for a formula: such a path is written as
`./=name`, which is the same file, and such a name or reason gets a leading `'`.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from manylens.collection.find import Collection
from manylens.files import own_folder, public_name, write_atomically
from manylens.results.links import remove_links, write_links
from manylens.results.table import FileRow, FileTable
from manylens.settings import Settings

RESULT_FILES = ("assignments.csv", "clusters.json", "summary.json", "vocabulary.json")

UNREADABLE_NAME = "unreadable.csv"

ASSIGNMENT_COLUMNS = ("image", "cluster", "name", "confidence", "reason", "decided_by")

UNREADABLE_COLUMNS = ("image", "reason")

_ROWS_AT_ONCE = 10_000

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_results(
    out: Path, table: FileTable, *, settings: Settings, seconds: float, version: str, links: bool
) -> Path:
    """Write one interest's files below `out` and return their folder, `out/<slug>`.

    seconds: wall-clock time of the whole run so far. Raises UsageError where links cannot be made.
    """
    folder = own_folder(out / table.clustering.interest.slug)
    write_atomically(folder / "assignments.csv", csv_parts(ASSIGNMENT_COLUMNS, map(_assignment_cells, table.rows)))
    write_atomically(folder / "clusters.json", json_bytes(cluster_values(table)))
    summary = summary_values(table, settings=settings, seconds=seconds, version=version)
    write_atomically(folder / "summary.json", json_bytes(summary))
    write_atomically(folder / "vocabulary.json", json_bytes(dict(table.clustering.vocabulary)))
    remove_links(folder / "clusters")  # those of an earlier run, which may have sorted otherwise
    if links:
        write_links(folder / "clusters", table)
    return folder


def write_unreadable(out: Path, collection: Collection) -> Path:
    """Write `out/unreadable.csv`: every file that was found and could not be used, with the reason."""
    path = out / UNREADABLE_NAME
    rows = ((path_cell(u.path), text_cell(u.reason)) for u in sorted(collection.unreadable, key=lambda u: u.path))
    write_atomically(path, csv_bytes(UNREADABLE_COLUMNS, rows))
    return path


def cluster_values(table: FileTable) -> list[dict[str, Any]]:
    """What `clusters.json` holds: clusters by id, sizes in files, exemplars as paths in the collection's folder."""
    return [
        {
            "id": cluster.id,
            "name": cluster.name,
            "definition": cluster.definition,
            "size": cluster.size,
            "exemplars": list(cluster.exemplars),
            "parent": cluster.parent,
            "misplaced": None if cluster.misplaced is None else cluster.misplaced.to_dict(),
        }
        for cluster in table.clusters
    ]


def summary_values(table: FileTable, *, settings: Settings, seconds: float, version: str) -> dict[str, Any]:
    """What `summary.json` holds. `images` is the number of readable files, the rows of `assignments.csv`."""
    clustering, collection, counts = table.clustering, table.collection, table.counts
    images = len(table.rows)
    calls = clustering.calls
    return {
        "interest": clustering.interest.text,
        "model": public_name(clustering.model),
        "verdict": None if clustering.verdict is None else clustering.verdict.to_dict(),
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


def _assignment_cells(row: FileRow) -> tuple[str, ...]:
    cluster = "" if row.cluster is None else str(row.cluster)
    name, reason = text_cell(row.name), text_cell(row.reason)
    return path_cell(row.path), cluster, name, f"{row.confidence:.4f}", reason, row.decided_by


def path_cell(path: str) -> str:
    return f"./{path}" if path.startswith(_FORMULA_STARTS) else path


def text_cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """RFC 4180. The line ending is CRLF: with LF alone Python 3.11 leaves a carriage return in a name unquoted."""
    return b"".join(csv_parts(columns, rows))


def csv_parts(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[bytes]:
    """The same, some rows at a time."""
    waiting = itertools.chain([columns], rows)
    while part := list(itertools.islice(waiting, _ROWS_AT_ONCE)):
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerows(part)
        yield text.getvalue().encode("utf-8", "backslashreplace")


def json_bytes(values: object) -> bytes:
    """A lone surrogate (a file name that is not UTF-8) becomes `\\udcXX`, which JSON reads back as it was."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "backslashreplace")
