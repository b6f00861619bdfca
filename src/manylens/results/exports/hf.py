"""A Hugging Face dataset with the pictures in it (extra `[hf]`: datasets).

In: a `RunTable` and the pictures. Out: a folder for `datasets.load_from_disk`. Promise: the pictures' files go in byte
for byte, so the data set can be moved or pushed without them.
"""

from __future__ import annotations

import os
from pathlib import Path

from manylens.errors import UsageError
from manylens.results.exports.parquet import arrow_table
from manylens.results.exports.run_table import Exported, RunTable
from manylens.text import printable


def write_dataset(run: RunTable, folder: Path) -> Exported:
    """Columns as in Parquet; `image` is the picture, `path` its path. Files that are gone are left out and named.

    Raises UsageError without datasets, and where `folder` holds something already.
    """
    try:
        import datasets
    except ImportError:
        raise UsageError(
            "a Hugging Face dataset needs datasets, which is not installed", "pip install 'manylens[hf]'"
        ) from None
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"a data set is written into a new or empty folder, {folder} holds something",
            "name another destination, or delete it",
        )
    paths = [os.path.join(run.pictures, row.path) for row in run.tables[0].rows]
    there = [index for index, path in enumerate(paths) if os.path.isfile(path)]
    table = arrow_table(run).replace_schema_metadata(None).take(there)
    table = table.rename_columns(["path", *table.column_names[1:]])
    images = datasets.Dataset.from_dict({"image": [os.path.abspath(paths[index]) for index in there]})
    whole = datasets.concatenate_datasets(
        [images.cast_column("image", datasets.Image()), datasets.Dataset(table)], axis=1
    )
    folder.mkdir(parents=True, exist_ok=True)
    whole.save_to_disk(str(folder))
    gone = set(range(len(paths))) - set(there)
    left = [(printable(run.tables[0].rows[index].path), "it is no longer there") for index in sorted(gone)]
    return Exported(folder, len(there), tuple(left))
