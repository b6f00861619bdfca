"""Files of a run: names that several rooms know, and writing whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from manylens.errors import StoreError, UsageError

DATABASE_NAME = "run.sqlite"

MOST_TABLE = 4 << 30
"""Bytes of a table, of ten million pictures at most: a file of nothing may claim a terabyte."""


def write_atomically(path: str | os.PathLike[str], data: bytes | str | Iterable[bytes]) -> None:
    """Write a whole file or nothing: aside, fsync, rename, fsync of the folder. Text is written as UTF-8; what comes in
    parts is written part by part.

    Raises StoreError where the disk refuses (full, read-only); the earlier file then stays as it was.
    """
    target = Path(path)
    aside = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)  # what a kill left, or a link that somebody planted: it must not be followed
        with open(os.open(aside, _NEW, 0o666), "wb") as file:
            whole = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
            for part in [whole] if isinstance(whole, bytes) else whole:
                file.write(part)
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


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, without waiting for the disk. Raises StoreError where something is, or where
    the disk refuses."""
    try:
        with open(os.open(path, _NEW, 0o666), "wb") as file:
            file.write(data)
    except OSError as error:
        hint = "free some space or choose another --out"
        raise StoreError(f"cannot write {path}: {error.strerror or error}", hint) from error


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


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open to read, without waiting on a pipe or waking a device. follow: links, too. Raises OSError where it is no
    plain file."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def check_resources(error: OSError) -> None:
    """Raises UsageError where it is the process that has no more files or memory: no file is to blame for that."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise UsageError(
            f"files are read a few at a time, this process gets no more of what that takes ({error.strerror})",
            "allow more open files (ulimit -n 1024) or memory",
        ) from error


def read_regular(path: Path, *, follow: bool = False, most: int = 64 << 20) -> bytes:
    """What is in a file of a folder that may come from somebody else. Raises OSError where it is a link (unless
    `follow`), no plain file, or longer than `most` bytes."""
    with open_regular(path, follow=follow) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
        return file.read(most)


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
    except OSError as error:
        check_resources(error)
        return ""


_NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gfs", "glusterfs", "lustre", "gpfs", "beegfs", "davfs", "ocfs2")
_NETWORK_FUSE = (
    "sshfs",
    "rclone",
    "s3fs",
    "gcsfuse",
    "goofys",
    "davfs",
    "gvfsd-fuse",
    "mount-s3",
    "cephfs",
    "glusterfs",
)
"""File systems, as /proc/mounts calls them, whose files other machines may change."""


def network_drive(path: str | os.PathLike[str], mounts: str = "/proc/mounts") -> str:
    """The kind of network file system that a path is on, or will be; empty where it is on none, or that is not known.

    mounts: a table as Linux keeps it, one mount a line; elsewhere there is none, and nothing is known but on Windows,
    where such a drive is named by the system.
    """
    place = os.path.realpath(path)
    if sys.platform == "win32":
        import ctypes

        drive = os.path.splitdrive(place)[0]
        is_remote = drive.startswith("\\\\") or ctypes.windll.kernel32.GetDriveTypeW(f"{drive}\\") == 4  # DRIVE_REMOTE
        return "network" if is_remote else ""
    try:
        lines = Path(mounts).read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    found, longest = "", -1
    for line in lines:
        _, point, kind, *_ = [*line.split(" "), "", "", ""]
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point)
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # of two at one place the later one covers the other
            found, longest = "" if point == "/" else kind, len(point)  # who starts from the network has no disk
    outer, _, inner = found.partition(".")
    if outer == "fuse":
        return found if inner.startswith(_NETWORK_FUSE) else ""
    return found if found.startswith(_NETWORK) else ""


def public_name(model: str) -> str:
    """A model's name as files that are passed on have it: of an absolute path (`nano:/home/me/tuned/nano`) the end."""
    kind, colon, place = model.partition(":")
    is_path = PurePosixPath(place).is_absolute() or PureWindowsPath(place).is_absolute() or place.startswith("~")
    return f"{kind}{colon}{PureWindowsPath(place).name}" if is_path else model
