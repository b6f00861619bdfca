"""The wide table with embeddings as Parquet (extra `[parquet]`: pyarrow).

In: a `RunTable`. Out: one file. Promise: columns have one type whatever is in them; `cluster` is a nullable integer, in
pandas too; replaced whole or not at all.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from manylens.errors import UsageError
from manylens.files import write_atomically
from manylens.results.exports.run_table import (
    Exported,
    RunTable,
    column_names,
    prefix,
    records,
)


def write_parquet(run: RunTable, path: Path) -> Exported:
    """Columns as `records` gives them and `<interest>_embedding`, a list of float32. Raises UsageError without
    pyarrow."""
    table = arrow_table(run)
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())
    return Exported(path, table.num_rows)


def arrow_table(run: RunTable) -> Any:
    """A `pyarrow.Table`."""
    try:
        import pyarrow
    except ImportError:
        raise UsageError("Parquet needs pyarrow, which is not installed", "pip install 'manylens[parquet]'") from None
    types = {"width_px": pyarrow.int32(), "height_px": pyarrow.int32(), "frames": pyarrow.int32()}
    for table in run.tables:
        types |= {f"{prefix(table)}_cluster": pyarrow.int64(), f"{prefix(table)}_confidence": pyarrow.float64()}
    rows = list(records(run.tables))
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in column_names(run.tables)])
    result = pyarrow.Table.from_pylist(rows, schema=schema)
    for table in run.tables:
        found = run.embeddings[table.clustering.interest.text]
        vectors = [None if row.image_id not in found else found[row.image_id].astype(np.float32) for row in table.rows]
        column = pyarrow.array(vectors, pyarrow.list_(pyarrow.float32()))
        result = result.append_column(f"{prefix(table)}_embedding", column)
    interests = [table.clustering.interest.text for table in run.tables]
    return result.replace_schema_metadata({"manylens": json.dumps(interests), "pandas": _for_pandas(run)})


def _for_pandas(run: RunTable) -> str:
    """pandas reads a column of integers with gaps as floats, unless it is told."""
    integers = [
        {"name": name, "field_name": name, "pandas_type": "int64", "numpy_type": "Int64", "metadata": None}
        for table in run.tables
        for name in [f"{prefix(table)}_cluster"]
    ]
    return json.dumps({"index_columns": [], "column_indexes": [], "columns": integers, "pandas_version": "2.0.0"})
