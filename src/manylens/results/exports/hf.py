"""A Hugging Face dataset with the pictures in it (extra `[hf]`: datasets).

In: a `RunTable` and the pictures. Out: a folder for `datasets.load_from_disk`. Promise: the pictures' files go in byte
for byte, so the data set can be moved or pushed without them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from manylens.errors import UsageError
from manylens.results.exports.parquet import arrow_table
from manylens.results.exports.run_table import Exported, RunTable, picture_files


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
    with tempfile.TemporaryDirectory(prefix="manylens-") as scratch:
        files, left = picture_files(run, Path(scratch))
        table = arrow_table(run).replace_schema_metadata(None).take(list(files))
        table = table.rename_columns(["path", *table.column_names[1:]])
        images = datasets.Dataset.from_dict({"image": [str(path) for path in files.values()]})
        whole = datasets.concatenate_datasets(
            [images.cast_column("image", datasets.Image()), datasets.Dataset(table)], axis=1
        )
        folder.mkdir(parents=True, exist_ok=True)
        whole.save_to_disk(str(folder))
    return Exported(folder, len(files), left)
