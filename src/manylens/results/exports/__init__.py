"""What a run found, in the forms that other programs read: one file a form.

In: a run folder. Out: a table, a data set, side-cars or folders. Promise: the run is only read; a picture's own bytes
are never changed; a file is replaced only where it is the export itself: the table at its place, or our keywords.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from manylens.collection.source import as_place
from manylens.errors import UsageError
from manylens.files import own_folder
from manylens.results.exports import coco, fiftyone_dataset, folders, hf, parquet, tables, xmp
from manylens.results.exports.run_table import Exported, read_run

Format: TypeAlias = Literal["parquet", "hf", "fiftyone", "csv", "json", "folders", "xmp", "coco"]

Mode: TypeAlias = Literal["copy", "hardlink", "symlink", "move"]

FORMATS: tuple[Format, ...] = get_args(Format)

__all__ = ["FORMATS", "Exported", "Format", "Mode", "export_run"]

EXPORTS_NAME = "exports"
"""In a run folder: where exports go that are asked for without a place."""

_NAMES = {
    "parquet": "pictures.parquet",
    "hf": "hf",
    "csv": "pictures.csv",
    "json": "pictures.json",
    "coco": "coco.json",
}


def export_run(
    out: str | os.PathLike[str],
    to: str,
    *,
    dest: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    by: str | None = None,
    only: Collection[str] | None = None,
    mode: str | None = None,
    preview: bool = False,
    undo: bool = False,
) -> Exported:
    """Write the run at `out` in another form; see `manylens.export`."""
    if to not in FORMATS:
        raise UsageError(f"a run is exported to one of {', '.join(FORMATS)}, got {to!r}", "choose one of these")
    if to != "folders" and mode is not None:
        raise UsageError(f"a mode is for folders, got {mode!r} with {to}", "leave the mode out")
    if to not in ("folders", "xmp") and (preview or undo):
        raise UsageError(
            f"folders and side-cars can be previewed and undone, got {to}", "delete the file that it wrote"
        )
    if to == "folders" and undo:
        return folders.undo_folders(_needed(dest), preview=preview)
    run = read_run(Path(out), None if folder is None else as_place(folder), by, only)
    if to == "folders":
        return folders.write_folders(run, _needed(dest), mode or "copy", preview=preview)
    if to == "xmp":
        return xmp.write_sidecars(run, None if dest is None else Path(dest), preview=preview, undo=undo)
    if to == "fiftyone":
        below = Path(out) / EXPORTS_NAME if dest is None else Path(dest)
        name = Path(os.path.abspath(out)).name
        return fiftyone_dataset.write_fiftyone(run, name, None if dest is None else Path(dest), below / "pictures")
    if dest is not None and to != "hf" and os.path.lexists(dest):
        raise UsageError(
            f"nothing is overwritten, {os.fspath(dest)} is there", "name another destination, or delete it"
        )
    place = Path(dest) if dest is not None else own_folder(Path(out) / EXPORTS_NAME) / _NAMES[to]
    write = {
        "parquet": parquet.write_parquet,
        "hf": hf.write_dataset,
        "csv": tables.write_csv,
        "json": tables.write_json,
        "coco": coco.write_coco,
    }[to]
    return write(run, place)


def _needed(dest: str | os.PathLike[str] | None) -> Path:
    if dest is None:
        raise UsageError("folders of pictures need a place, none was given", "name a new folder as the destination")
    return Path(dest)
