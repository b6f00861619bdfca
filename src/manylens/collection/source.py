"""What holds the files of a collection: a folder, an archive, a table, addresses; they differ in nothing else.

In: a place, as a person says it. Out: a `Source`: the paths that it holds, and the bytes of each. Promises: every path
is somewhere with its reason; bytes are bounded in size and come without running or following anything that the source
itself says; no name of a source is ever a place on this disk, but where the person's own list says so.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
import urllib.parse
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, TypeAlias

from manylens.errors import ImageUnreadable, UsageError
from manylens.text import printable
from manylens.types import Unreadable

MOST_FILE_BYTES = 2 << 30
"""The largest picture that is decoded takes 0.7 GB as it is; a sparse file may claim terabytes."""

MOST_UNPACKED = 200
"""How many times its own size an archive or a table may unpack to. Photographs do not shrink; drawings shrink to a
twentieth; a bomb to a millionth."""

_ALWAYS_UNPACKED_BYTES = 1 << 30

_ROOM_BYTES = 1 << 30
"""What is left free on the disk that files are unpacked to."""

_BLOCK_BYTES = 1 << 20


Place: TypeAlias = str | Path
"""Where a collection is: a path, or an address as it was typed, which a path would not keep."""


def as_place(given: str | os.PathLike[str]) -> Place:
    return given if isinstance(given, str) and "://" in given else Path(given)


def place_name(place: Place) -> str:
    """What a collection is called: the last name in its place, without an archive's or a table's ending."""
    if isinstance(place, Path):
        name = Path(os.path.abspath(place)).name
        if os.path.isdir(place):
            return name
    else:
        address = urllib.parse.urlsplit(place)
        name = PurePosixPath(urllib.parse.unquote(address.path)).name or address.hostname or ""
    stem = re.sub(r"\.(tar\.\w+|zip|cbz|tar|tgz|tbz2|txz|parquet|csv|tsv|txt)$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^\w .()+-]", "-", stem).strip(" .-")


class Readable(Protocol):
    """Bytes that come once, from their beginning."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Opened:
    """stream: from the beginning. size: its bytes, or None where nobody knows before the end."""

    stream: Readable
    size: int | None


@dataclass(slots=True)
class Listing:
    """paths: of all candidates. unreadable: what can be seen to be no use. skipped: files that are no pictures."""

    paths: list[str] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    skipped: int = 0


class Chooser(Protocol):
    """Which paths are wanted; counts what is not."""

    def takes(self, path: str, *, is_folder: bool) -> bool: ...


class Source(Protocol):
    """Where the files of a collection are. Safe to read from several threads once it is listed."""

    @property
    def place(self) -> str:
        """What opens it again: an absolute path, or an address."""
        ...

    @property
    def root(self) -> Path | None:
        """The folder that its paths are in; None where they are no files of this disk."""
        ...

    @property
    def claims(self) -> bool:
        """Whether whatever it holds is meant as a picture, whatever it is called."""
        ...

    @property
    def threads(self) -> int:
        """How many files are best read at once; 0 leaves it to the machine."""
        ...

    def listed(self, chosen: Chooser) -> Listing: ...

    def open(self, path: str) -> Opened:
        """One file. Raises OSError, or ImageUnreadable with the reason."""
        ...


def safe_name(name: str) -> str:
    """A member's name as a path inside of its archive; empty where it leads out of it, or is none."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or (len(parts[0]) == 2 and parts[0][1] == ":") or "\0" in name:
        return ""
    return "/".join(part for part in parts if part not in ("", "."))


def is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(path).parts)


def check_unpacked(unpacked_bytes: int, packed_bytes: int, name: str) -> None:
    """Raises UsageError where an archive unpacks to more than any of pictures does."""
    if unpacked_bytes > max(_ALWAYS_UNPACKED_BYTES, MOST_UNPACKED * packed_bytes):
        raise UsageError(
            f"an archive unpacks to at most {MOST_UNPACKED} times its size, {printable(name)} of {packed_bytes:,} "
            f"bytes to {unpacked_bytes:,} or more",
            "unpack it yourself if you know what is in it, and give the folder",
        )


@contextlib.contextmanager
def library_errors(*kinds: type[Exception]) -> Iterator[None]:
    """A library's own errors about damaged data as the reason that a person reads."""
    try:
        yield
    except OSError:
        raise
    except kinds as error:
        text = printable(str(error)).splitlines()
        raise ImageUnreadable(f"damaged: {text[0][:200] if text else type(error).__name__}") from error


class Translated:
    """A stream of a library whose errors on damaged data are told as reasons."""

    def __init__(self, stream: Readable, *kinds: type[Exception]) -> None:
        self._stream, self._kinds = stream, kinds

    def read(self, size: int, /) -> bytes:
        with library_errors(*self._kinds):
            return self._stream.read(size)

    def close(self) -> None:
        self._stream.close()


class Spool:
    """A file without a name on this disk, for what can be read once only, or in its own order. It goes with its owner,
    also where the process is killed."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="manylens-")  # noqa: SIM115  closed with its owner
        self._guard = threading.Lock()
        self._next_check = 0
        self.size = 0
        self._end = weakref.finalize(self, self._file.close)

    def write(self, data: bytes) -> None:
        """At the end. Raises UsageError where the disk gets full."""
        if self.size >= self._next_check:
            folder = tempfile.gettempdir()
            if shutil.disk_usage(folder).free < _ROOM_BYTES + len(data):
                raise UsageError(
                    f"unpacking needs room, {folder} has less than {_ROOM_BYTES >> 30} GB left",
                    "free some space, or set TMPDIR to a folder on a larger disk",
                )
            self._next_check = self.size + (64 << 20)
        with self._guard:
            self._file.seek(0, os.SEEK_END)
            self._file.write(data)
            self.size += len(data)

    def part(self, start: int, size: int) -> Readable:
        """So many bytes of it. Any number of parts are read side by side."""
        return Part(self._file, self._guard, start, size)

    def given_away(self) -> BinaryIO:
        """The file, for one reader alone, who closes it."""
        self._end.detach()
        self._file.seek(0)
        return self._file


class Part:
    """Some bytes of a file that several threads share."""

    def __init__(self, file: BinaryIO, guard: threading.Lock, start: int, size: int) -> None:
        self._file, self._guard, self._at, self._end = file, guard, start, start + size

    def read(self, size: int, /) -> bytes:
        size = min(size, self._end - self._at)
        if size <= 0:
            return b""
        with self._guard:
            self._file.seek(self._at)
            data = self._file.read(size)
        self._at += len(data)
        return data

    def close(self) -> None:
        pass


def spool(stream: Readable, most_bytes: Callable[[int], None]) -> Spool:
    """All of a stream. most_bytes: raises where so many are too many."""
    kept = Spool()
    while block := stream.read(_BLOCK_BYTES):
        most_bytes(kept.size + len(block))
        kept.write(block)
    return kept
