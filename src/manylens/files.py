"""Files of a run: names that several rooms know, and writing whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

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
        aside.unlink(missing_ok=True)  # what a kill left, or a link that somebody planted: it must not be followed
        with open(os.open(aside, _NEW, 0o666), "wb") as file:
            file.write(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
        sync_folder(target.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        hint = what_to_free(target, "free some space or choose another --out")
        raise StoreError(f"cannot write {target}: {error.strerror or error}", hint) from error


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def own_folder(folder: Path) -> Path:
    """A folder below a run folder, made where it is not there. Raises StoreError where a link stands in its place:
    what is written into a run folder, which may come from somebody else, stays in it."""
    if folder.is_symlink():
        raise StoreError(f"a run writes inside its folder only, {folder} is a link", "remove the link and run again")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = what_to_free(folder, "choose another --out")
        raise StoreError(f"cannot write {folder}: {error.strerror or error}", hint) from error
    return folder


def what_to_free(place: Path, otherwise: str) -> str:
    """The cure where a disk holds no more: of files, which has no error of its own, or of bytes."""
    with contextlib.suppress(OSError, AttributeError):  # Windows has no such count
        folder = next(parent for parent in (place, *place.parents) if parent.exists())
        disk = os.statvfs(folder)
        if disk.f_files and not disk.f_favail:
            return "its disk holds no more files, whatever room there is: delete some there, or choose another --out"
    return otherwise


def refuse_links(*places: Path) -> None:
    """Raises StoreError where one of these files of a run, which are written in place, is not a file of its own: a
    link, a second name of another file, a pipe."""
    for place in places:
        try:
            status = place.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise StoreError(
                f"a run writes inside its folder only, {place} is a link, or no plain file", "remove it and run again"
            )


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
    """The SHA-256 of a file in hex; empty where it is not there, or no plain file."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return ""
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def public_name(model: str) -> str:
    """A model's name as files that are passed on have it: of an absolute path (`nano:/home/me/tuned/nano`) the end."""
    kind, colon, place = model.partition(":")
    is_path = PurePosixPath(place).is_absolute() or PureWindowsPath(place).is_absolute() or place.startswith("~")
    return f"{kind}{colon}{PureWindowsPath(place).name}" if is_path else model
