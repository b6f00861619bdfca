"""Collections that are not on this disk: lists, archives and tables by address, and folders of object stores.

In: an address (`https://`, `s3://`, `gs://`, or any other that fsspec knows). Out: a `Source`. Promises: what is
fetched is bounded and leaves nothing behind; the keys of object stores are those that the system has for them, and no
key, also none in an address, is kept.
"""

from __future__ import annotations

import functools
import inspect
import io
import urllib.parse
from pathlib import Path, PurePosixPath
from typing import Any

from manylens.collection.addresses import SCHEMES, Downloader, shown_address
from manylens.collection.formats import IMAGE_SUFFIXES
from manylens.collection.source import (
    MOST_FILE_BYTES,
    Chooser,
    Listing,
    Opened,
    Source,
    Translated,
    is_hidden,
    spool,
)
from manylens.errors import ImageUnreadable, UsageError
from manylens.text import printable

_MOST_FETCHED_BYTES = 64 << 30
"""An archive or a table of more is better fetched by hand."""

_AT_ONCE_BYTES = 32 << 20

_FETCHED_AT_ONCE = 8


def open_address(address: str, opened: Any) -> Source:
    """opened: what makes a source of a file (`find.open_packed`). Raises UsageError for what is none."""
    bare, _, column = address.partition("#")
    scheme = urllib.parse.urlsplit(address).scheme.lower()
    if scheme in SCHEMES:
        try:
            answer = Downloader(address).open(bare)
        except ImageUnreadable as error:
            raise UsageError(f"cannot read {_shown(bare)}: {error.rule}", "check the address") from None
    else:
        system, path = _system(bare)
        with _explained(bare):
            if not system.isfile(path):
                return ObjectSource(system, path, bare)
            answer = Opened(system.open(path, "rb"), None)

    def enough(size: int) -> None:
        if size > _MOST_FETCHED_BYTES:
            raise UsageError(
                f"at most {_MOST_FETCHED_BYTES >> 30} GB are fetched, {_shown(bare)} has more",
                "fetch it yourself, and give the file",
            )

    try:
        file = spool(answer.stream, enough).given_away()
    except ImageUnreadable as error:
        raise UsageError(f"cannot read {_shown(bare)}: {error.rule}", "run again") from None
    finally:
        answer.stream.close()
    name = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(bare).path)).name
    found: Source | None = opened(file, _shown(address), name, column, bare)
    if found is None:
        file.close()
        raise UsageError(
            f"an address is that of a list, a table or an archive of pictures, {_shown(bare)} is none",
            "name pictures in a list: a text with one address a line, called .txt",
        )
    return found


class ObjectSource:
    """A folder of an object store: what is below an address, by the paths in it."""

    root: Path | None = None
    claims = False
    threads = _FETCHED_AT_ONCE

    def __init__(self, system: Any, path: str, address: str) -> None:
        self.place = _shown(address)
        self._system, self._top = system, path.rstrip("/")
        with _explained(address):
            found = system.find(self._top, detail=True)
        self._sizes = {name[len(self._top) :].lstrip("/"): int(info.get("size") or 0) for name, info in found.items()}
        if not self._sizes:
            raise UsageError(f"images are read from a folder, {_shown(address)} has no files", "check the address")

    def listed(self, chosen: Chooser) -> Listing:
        listing = Listing()
        for path in self._sizes:
            if not chosen.takes(path, is_folder=False):
                continue
            # Looking into a file costs a request: one with another ending is taken at its word.
            if is_hidden(path) or PurePosixPath(path).suffix.lower() not in ("", *IMAGE_SUFFIXES):
                listing.skipped += 1
            else:
                listing.paths.append(path)
        return listing

    def open(self, path: str) -> Opened:
        size = self._sizes.get(path)
        if size is None:
            raise ImageUnreadable("no such file")
        return _opened(self._system, f"{self._top}/{path}", size)


def open_object(address: str) -> Opened:
    """One file by its own address."""
    try:
        system, path = _system(address)
    except UsageError as error:
        raise ImageUnreadable(str(error)) from error
    return _opened(system, path, None)


def _opened(system: Any, path: str, size: int | None) -> Opened:
    try:
        if size is None:
            size = int(system.info(path).get("size") or 0)
        if size > MOST_FILE_BYTES:
            raise ImageUnreadable(f"too large: {size:,} bytes, the limit is {MOST_FILE_BYTES:,}")
        if size <= _AT_ONCE_BYTES:  # in one request
            return Opened(io.BytesIO(system.cat_file(path, start=0, end=size)), size)
        return Opened(Translated(system.open(path, "rb"), Exception), size)
    except ImageUnreadable:
        raise
    except Exception as error:  # each store's library has its own
        raise ImageUnreadable(_reason(error)) from error


@functools.lru_cache(maxsize=64)
def _of_scheme(scheme: str) -> Any:
    try:
        import fsspec
        from fsspec.archive import AbstractArchiveFileSystem
    except ImportError:
        raise UsageError(
            f"{scheme}:// needs fsspec, which is not installed", "pip install 'manylens[remote]'"
        ) from None
    try:
        kind = fsspec.get_filesystem_class(scheme)
        _, *needs = inspect.signature(kind.__init__).parameters.values()
        if issubclass(kind, AbstractArchiveFileSystem) or any(
            one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD for one in needs
        ):
            raise ValueError("one that is made of a host or a file")
        return fsspec.filesystem(scheme)
    except ImportError as error:
        raise UsageError(f"{scheme}:// needs its library ({error})", "pip install 'manylens[remote]'") from None
    except Exception:  # unknown, or nothing without a host or another file system: each raises what it likes
        raise UsageError(
            f"an address begins with https://, s3://, gs:// or another that fsspec knows, got {scheme}://",
            "check the address",
        ) from None


def _system(address: str) -> tuple[Any, str]:
    system = _of_scheme(address.partition("://")[0].lower())
    return system, str(system._strip_protocol(address))


class _explained:
    """A store's errors about the whole address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, UsageError):
            raise UsageError(
                f"cannot read {_shown(self._address)}: {_reason(error)}",
                "check the address, and the keys as for the store's own tools; for a public bucket FSSPEC_S3_ANON=true",
            ) from None


def _shown(address: str) -> str:
    return printable(shown_address(address))


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    text = printable(str(error)).splitlines()
    return text[0][:200] if text else type(error).__name__
