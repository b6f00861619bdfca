"""The wide table of all interests as CSV or JSON.

In: a `RunTable`. Out: one file. Promise: replaced whole or not at all; equal runs give equal bytes; no cell of the CSV
is taken for a formula.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from manylens.files import write_atomically
from manylens.results.exports.run_table import FILE_COLUMNS, Exported, RunTable, column_names, records
from manylens.results.files import cluster_values, csv_bytes, json_bytes, path_cell, text_cell


def write_csv(run: RunTable, path: Path) -> Exported:
    rows = [[_cell(column, value) for column, value in record.items()] for record in records(run.tables)]
    write_atomically(path, csv_bytes(column_names(run.tables), rows))
    return Exported(path, len(rows))


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    return path_cell(value) if column == FILE_COLUMNS[0] else text_cell(str(value))


def write_json(run: RunTable, path: Path) -> Exported:
    """`{"interests": [{"interest", "model", "clusters"}, ...], "images": [a row, ...]}`."""
    rows = [{key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()} for row in records(run.tables)]
    interests = [
        {
            "interest": table.clustering.interest.text,
            "slug": table.clustering.interest.slug,
            "model": table.clustering.model,
            "clusters": cluster_values(table),
        }
        for table in run.tables
    ]
    write_atomically(path, json_bytes({"interests": interests, "images": rows}))
    return Exported(path, len(rows))
