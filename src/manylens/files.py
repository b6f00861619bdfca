"""Files of a run: names that several rooms know, and writing whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from pathlib import Path

from manylens.errors import StoreError

DATABASE_NAME = "run.sqlite"


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a whole file or nothing: aside, fsync, rename, fsync of the folder. Text is written as UTF-8.

    Raises StoreError where the disk refuses (full, read-only); the earlier file then stays as it was.
    """
    target = Path(path)
    aside = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "wb") as file:
            file.write(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
        sync_folder(target.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        hint = "free some space or choose another --out"
        raise StoreError(f"cannot write {target}: {error.strerror or error}", hint) from error


def sync_folder(folder: Path) -> None:
    """Without this a rename may be lost in a power cut. Windows cannot open folders and does not need it."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hex; empty where it is not there."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
