"""Zip and tar archives as collections: their members are read where they are, nothing is unpacked under a name.

In: an archive's file. Out: a `Source`. Promises: a member is a label, never a place: names that lead out of the archive
and links are reported; what an archive unpacks to is bounded before it is unpacked; archives in it are not opened.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import stat
import tarfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from manylens.collection.formats import NAMED_SUFFIXES
from manylens.collection.source import (
    MOST_FILE_BYTES,
    Chooser,
    Listing,
    Opened,
    Part,
    Readable,
    Translated,
    check_unpacked,
    is_hidden,
    library_errors,
    safe_name,
    spool,
)
from manylens.errors import UsageError
from manylens.text import printable
from manylens.types import Unreadable

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_COMPRESSED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError)
_TAR_ERRORS = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, OverflowError)


def open_archive(file: BinaryIO, place: str) -> ZipSource | TarSource:
    """place: what opens it again. Raises UsageError where it is damaged, or unpacks to too much."""
    head = file.read(6)
    file.seek(0)
    try:
        return ZipSource(file, place) if head.startswith(_ZIP) else TarSource(file, place)
    except (*_ZIP_ERRORS, *_TAR_ERRORS, OSError) as error:
        file.close()
        raise UsageError(
            f"an archive is whole and a zip or a tar, {printable(place)} cannot be read ({printable(str(error))})",
            "unpack it with the program that made it, and give the folder",
        ) from error
    except BaseException:
        file.close()
        raise


class _Archive:
    """What zip and tar have in common. reasons: why members cannot be read, by path."""

    root: Path | None = None
    claims = False
    threads = 0

    def __init__(self, place: str) -> None:
        self.place = place
        self._reasons: dict[str, str] = {}

    def _named(self, name: str) -> str:
        path = safe_name(name)
        if not path and name.strip("/."):
            self._reasons[name] = "its name leads out of the archive"
        return path

    def _listed(self, paths: list[str], chosen: Chooser) -> Listing:
        listing = Listing()
        for path in paths:
            if not chosen.takes(path, is_folder=False):
                continue
            if is_hidden(path):
                listing.skipped += 1
            else:
                listing.paths.append(path)
        for path, reason in self._reasons.items():
            if os.path.splitext(path)[1].lower() in NAMED_SUFFIXES:
                listing.unreadable.append(Unreadable(path, reason))
            else:
                listing.skipped += 1
        return listing


class ZipSource(_Archive):
    """A zip's members, by their paths in it; of two of one name the later, which unpacking leaves, too."""

    def __init__(self, file: BinaryIO, place: str) -> None:
        super().__init__(place)
        packed = file.seek(0, os.SEEK_END)
        file.seek(0)
        self._zip = zipfile.ZipFile(file)
        weakref.finalize(self, file.close)
        self._members: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            if info.filename.endswith("/") or not (path := self._named(_zip_name(info))):
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                self._reasons[path] = "a link in an archive"
            elif info.flag_bits & 1:
                self._reasons[path] = "encrypted (unpack the archive with its password)"
            elif info.file_size > MOST_FILE_BYTES:
                self._reasons[path] = f"too large: {info.file_size:,} bytes, the limit is {MOST_FILE_BYTES:,}"
            else:
                self._members[path] = info
        # zipfile itself refuses members that share bytes, and reads no more of one than it claims.
        check_unpacked(sum(info.file_size for info in self._members.values()), packed, place)

    def listed(self, chosen: Chooser) -> Listing:
        return self._listed(list(self._members), chosen)

    def open(self, path: str) -> Opened:
        info = self._members.get(path)
        if info is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with library_errors(*_ZIP_ERRORS):
            return Opened(Translated(cast(Readable, self._zip.open(info)), *_ZIP_ERRORS), info.file_size)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Many programs write UTF-8 without saying so, which zipfile takes for the letters of DOS."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


class TarSource(_Archive):
    """A tar's members, by their paths in it. A compressed one is unpacked once into a file without a name."""

    def __init__(self, file: BinaryIO, place: str) -> None:
        super().__init__(place)
        self._guard = threading.Lock()
        packed = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(6)
        file.seek(0)
        opener = next((opener for magic, opener in _COMPRESSED.items() if head.startswith(magic)), None)
        if opener is None:
            self._file = file
        else:
            with file, opener(file) as stream:
                self._file = spool(stream, lambda size: check_unpacked(size, packed, place)).given_away()
        weakref.finalize(self, self._file.close)
        self._members: dict[str, tuple[int, int]] = {}
        self._read_members()

    def _read_members(self) -> None:
        at = -1
        with tarfile.open(fileobj=self._file, mode="r:", errors="surrogateescape") as tar:
            while (member := tar.next()) is not None:
                if member.offset <= at or member.size < 0:
                    raise tarfile.ReadError("members lie behind each other")
                at = member.offset
                tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
                if member.isdir() or not (path := self._named(member.name)):
                    continue
                self._members.pop(path, None)
                self._reasons.pop(path, None)
                if member.islnk() and member.linkname in self._members:
                    self._members[path] = self._members[member.linkname]
                elif member.islnk() or member.issym():
                    self._reasons[path] = "a link in an archive"
                elif not member.isreg() or member.issparse():
                    self._reasons[path] = "not a regular file"
                elif member.size > MOST_FILE_BYTES:
                    self._reasons[path] = f"too large: {member.size:,} bytes, the limit is {MOST_FILE_BYTES:,}"
                else:
                    self._members[path] = (member.offset_data, member.size)
            # tarfile ends without a word at a damaged header, as at the blocks of zeros that end a tar.
            self._file.seek(tar.offset)
            if self._file.read(512).strip(b"\0"):
                raise tarfile.ReadError(f"damaged after {len(self._members):,} members")

    def listed(self, chosen: Chooser) -> Listing:
        return self._listed(list(self._members), chosen)

    def open(self, path: str) -> Opened:
        if path not in self._members:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        start, size = self._members[path]
        return Opened(Part(self._file, self._guard, start, size), size)
