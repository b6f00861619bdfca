"""Folders of symbolic links: one a cluster, one link a file.

In: a clustering and its collection. Out: `clusters/<id> <name>/`. Promise: what is found there is left alone; only
links are ever removed.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from manylens.errors import UsageError
from manylens.files import own_folder
from manylens.results.table import FileTable

MAX_FOLDER_NAME_CHARACTERS = 80

MAX_LINK_NAME_BYTES = 220
"""File systems allow 255 bytes in a name; a hash and a number in brackets may come to it."""


def write_links(folder: Path, table: FileTable) -> None:
    """Make `folder/<id> <name>/` per cluster with a symbolic link to each of its files.

    What is found there is left alone. Raises UsageError where this file system has no symbolic links.
    """
    digits = len(str(max((cluster.id for cluster in table.clusters), default=1)))
    root = table.collection.root.resolve()
    for row in table.rows:
        if row.cluster is None:
            continue
        below = folder / f"{row.cluster:0{digits}} {folder_name(row.name)}"
        own_folder(folder)
        own_folder(below)
        link = _free_name(below, flat_name(row.path))
        # Resolved on both sides: `..` from a folder behind a link leads elsewhere.
        target = os.path.relpath(root / row.path, below.resolve())
        try:
            link.symlink_to(target)
        except OSError as error:
            raise UsageError(
                f"--links needs a file system with symbolic links, got {error.strerror} at {str(link)!r}",
                "leave --links out, or write to another disk with --out",
            ) from error


def flat_name(path: str) -> str:
    """`a/b.png` as `a__b.png`; a long path keeps its end, behind a hash of the whole."""
    name = path.replace("/", "__").replace(os.sep, "__")
    raw = os.fsencode(name)
    if len(raw) <= MAX_LINK_NAME_BYTES:
        return name
    kept = raw[-MAX_LINK_NAME_BYTES:].decode("utf-8", "ignore")
    return f"{hashlib.sha256(raw).hexdigest()[:8]}__{kept}"


def folder_name(name: str) -> str:
    """The cluster's name as a folder's name on any system: no separators, control characters or reserved marks."""
    kept = "".join(c if c.isprintable() and c not in '<>:"/\\|?*' else "-" for c in name)
    return re.sub(r"\s+", " ", kept)[:MAX_FOLDER_NAME_CHARACTERS].strip(" .-") or "unnamed"


def remove_links(folder: Path) -> None:
    if not folder.is_dir() or folder.is_symlink():
        return
    for below in folder.iterdir():
        if below.is_symlink() or not below.is_dir():
            continue
        for entry in below.iterdir():
            if entry.is_symlink():
                entry.unlink()
        if not any(below.iterdir()):
            below.rmdir()


def _free_name(folder: Path, name: str) -> Path:
    """`a/b.png` and `a__b.png` would share one link's name: the later one gets a number before its suffix."""
    first = link = folder / name
    number = 2
    while os.path.lexists(link):
        link, number = folder / f"{first.stem} ({number}){first.suffix}", number + 1
    return link
