"""What goes wrong with a run folder, in our words.

In: errors of SQLite and of the file system. Out: `StoreError`, with the cure. Promise: nothing is written.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from manylens.errors import StoreError
from manylens.files import DATABASE_NAME, what_to_free

LOCK_NAME = "run.lock"

_NO_STRANGERS = {LOCK_NAME, ".ds_store", "thumbs.db", "desktop.ini"}
"""Files, in lower case, that a folder may hold and be empty to a person: file managers leave them behind."""


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """SQLite's errors in our words."""
    try:
        yield
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the second: SQLite quotes what is damaged
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_FULL"):
            hint = "free some space and run the same command again; nothing stored is lost"
        elif name.startswith("SQLITE_IOERR"):
            hint = "check the disk and its quota, and run the same command again; nothing stored is lost"
        elif "readonly" in str(error) or "unable to open" in str(error):
            hint = what_to_free(folder, "make the folder writable or choose another --out")
        else:
            hint = "restore it from a copy, or choose another --out"
        raise StoreError(f"the store {folder / DATABASE_NAME} cannot be used ({error})", hint) from error


def refuse_strangers(folder: Path) -> None:
    """Raise StoreError where `folder` holds files and is no run."""
    strangers = {entry.name for entry in folder.iterdir() if entry.name.lower() not in _NO_STRANGERS}
    if strangers and not (folder / DATABASE_NAME).is_file():
        raise StoreError(
            f"--out must be a new or empty folder or an earlier run, {folder} holds other files "
            f"({min(strangers)!a}, ...)",
            "choose another --out",
        )


@contextlib.contextmanager
def usable(folder: Path) -> Iterator[None]:
    """The file system's errors about a run folder in our words."""
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise StoreError(f"--out must be a folder, {folder} is a file", "choose another --out") from None
    except OSError as error:
        hint = what_to_free(folder, "choose another --out")
        raise StoreError(f"cannot use {folder}: {error.strerror}", hint) from error
