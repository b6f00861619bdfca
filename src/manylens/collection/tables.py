"""Tables as collections: lists of paths and addresses (CSV, text, Parquet), and Parquet with the pictures in it.

In: a table's file. Out: a `Source`. Promises: which column is meant is found or asked for, never guessed between two;
a list on this disk may name files of this disk, as its owner would; one from elsewhere names addresses alone; a row
without a picture is reported with its number.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import threading
import urllib.parse
import weakref
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from manylens.collection.addresses import SCHEMES, Downloader, shown_address
from manylens.collection.formats import IMAGE_SUFFIXES
from manylens.collection.pictures import open_file
from manylens.collection.source import (
    MOST_FILE_BYTES,
    Chooser,
    Listing,
    Opened,
    Place,
    Spool,
    check_unpacked,
    safe_name,
)
from manylens.errors import ImageUnreadable, UsageError
from manylens.text import printable
from manylens.types import Unreadable

_MOST_LIST_BYTES = 1 << 30

_MOST_NAME = 8192
"""Characters of a path or an address: systems and servers take fewer."""

_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "hf")
"""Addresses that a list may name beside those of the web: what they lead to is an account's, not any host."""

_PATH_NAMES = (
    *("image", "file", "path", "file_name", "filename", "filepath", "file_path", "image_path", "image_file"),
    *("url", "image_url", "uri", "link", "href"),
)
"""Columns that name pictures, the likeliest first."""

_IMAGE_NAMES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "bytes", "image_bytes", "content", "data")
"""Columns that hold pictures, the likeliest first."""

_SEEN_ROWS = 100
"""Rows that say whether a column's values are names of pictures."""

_FETCHED_AT_ONCE = 8
"""Addresses that are read side by side: most of the time is waiting."""

_ROWS_AT_ONCE = 8


class ListSource:
    """Pictures by paths and addresses. near: the list's own folder, or its address."""

    claims = True

    def __init__(self, names: Iterable[str], place: str, near: Place) -> None:
        self.place = place
        self._unreadable: list[Unreadable] = []
        self._addresses: dict[str, str] = {}
        local: list[Path] = []
        for name in dict.fromkeys(names):
            try:
                found = _resolved(name, near)
            except ValueError as error:
                self._unreadable.append(Unreadable(name[:_MOST_NAME], str(error)))
                continue
            if isinstance(found, Path):
                local.append(found)
            else:
                self._addresses[_unlike(shown_address(found), self._addresses)] = found
        self._root = _common(local, near) if local else None
        self._local = {path.relative_to(self._root).as_posix(): path for path in local} if self._root else {}
        self.root = None if self._addresses else self._root
        self.threads = _FETCHED_AT_ONCE if self._addresses else 0
        self._web = Downloader(near if isinstance(near, str) else "")

    def listed(self, chosen: Chooser) -> Listing:
        listing = Listing(unreadable=list(self._unreadable))
        listing.paths = [path for path in (*self._local, *self._addresses) if chosen.takes(path, is_folder=False)]
        return listing

    def open(self, path: str) -> Opened:
        if path in self._addresses:
            return open_address(self._addresses[path], self._web)
        try:
            return open_file(self._local[path])
        except (KeyError, FileNotFoundError) as error:
            raise ImageUnreadable("no such file") from error


def open_address(address: str, web: Downloader) -> Opened:
    if urllib.parse.urlsplit(address).scheme.lower() in SCHEMES:
        return web.open(address)
    from manylens.collection.remote import open_object  # needs the extra [remote]

    return open_object(address)


def _resolved(name: str, near: Place) -> Path | str:
    """What a list means by a name. Raises ValueError, with the reason, for what it may not mean."""
    if len(name) > _MOST_NAME:
        raise ValueError(f"a path or an address has at most {_MOST_NAME:,} characters")
    scheme, there, _ = name.partition("://")
    scheme = scheme.lower() if there and scheme.isalnum() else ""
    if isinstance(near, Path):
        if scheme == "file":
            name = urllib.parse.unquote(urllib.parse.urlsplit(name).path)
        elif scheme in (*SCHEMES, *_STORES):
            return name
        elif scheme:  # to one of these it may lead to any host, or to another file system
            raise ValueError("a list names files, addresses on the web, and those of object stores (s3, gs, az, ...)")
        path = os.path.abspath(near / name)
        return Path(f"/{path.lstrip('/')}" if path.startswith("//") else path)  # which POSIX lets mean something else
    own = near.partition("://")[0].lower()
    if scheme:
        if scheme not in (*SCHEMES, own):
            raise ValueError("a list from elsewhere names addresses on the web, or of its own kind")
        return name
    if own in SCHEMES:
        return urllib.parse.urljoin(near, name)
    if not safe_name(name):
        raise ValueError("its name leads out of the list's folder")
    return f"{near.rpartition('/')[0]}/{safe_name(name)}"


def _unlike(name: str, taken: dict[str, str]) -> str:
    """Two addresses may differ in what is not shown alone."""
    first, number = name, 2
    while name in taken:
        name, number = f"{first}#{number}", number + 1
    return name


def _common(paths: Sequence[Path], near: Place) -> Path:
    """The folder that holds all files: the list's own, or what they have in common."""
    if isinstance(near, Path) and all(path.is_relative_to(near) for path in paths):
        return near
    try:
        return Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError:
        raise UsageError("paths are of one disk, the list has several disks", "make a list for each disk") from None


def open_list(file: BinaryIO, place: str, suffix: str, column: str, near: Place) -> ListSource:
    """A CSV file with a column of paths or addresses, or a text with one a line. Raises UsageError for none such."""
    data = file.read(_MOST_LIST_BYTES + 1)
    name = printable(place)
    if len(data) > _MOST_LIST_BYTES:
        raise UsageError(f"a list has at most {_MOST_LIST_BYTES >> 30} GB, {name} has more", "split it")
    text = data.decode("utf-8-sig", "surrogateescape")
    if "\0" in text[:4096]:
        raise UsageError(f"a list is text in UTF-8, {name} is none", "save it as CSV or text, in UTF-8")
    if suffix == ".txt":
        names = [line.strip() for line in text.splitlines()]
        return ListSource([line for line in names if line and not line.startswith("#")], place, near)
    delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(row)]
    except csv.Error as error:
        raise UsageError(f"a list of pictures is a CSV file, {name} is none: {error}", "save it anew") from None
    if not rows:
        raise UsageError(f"a list names pictures, {name} is empty", "write one path or address a line")
    has_header = not any(_names_picture(cell) for cell in rows[0])
    header = [cell.strip() for cell in rows[0]] if has_header else [str(i) for i in range(len(rows[0]))]
    body = rows[1:] if has_header else rows
    samples = {title: [row[i] for row in body[:_SEEN_ROWS] if i < len(row)] for i, title in enumerate(header) if title}
    at = header.index(_path_column(samples, column, name))
    return ListSource([row[at].strip() for row in body if at < len(row) and row[at].strip()], place, near)


def _names_picture(value: str) -> bool:
    value = value.strip()
    bare = value.split("?")[0] if "://" in value else value
    return "://" in value or PurePosixPath(bare).suffix.lower() in IMAGE_SUFFIXES


def _path_column(samples: dict[str, list[str]], asked: str, place: str) -> str:
    if asked:
        if asked not in samples:
            raise UsageError(f"{place} has no column {asked!r}", f"it has {', '.join(map(repr, samples)) or 'none'}")
        return asked
    good = [
        title
        for title, values in samples.items()
        if (given := [value for value in values if value.strip()]) and 2 * sum(map(_names_picture, given)) > len(given)
    ]
    by_name = {title.lower().replace(" ", "_"): title for title in good}
    return next((by_name[name] for name in _PATH_NAMES if name in by_name), "") or _only(good, samples, place)


def _only(good: Sequence[str], columns: Iterable[str], place: str) -> str:
    if len(good) != 1:
        found = ", ".join(map(repr, good)) or "none"
        raise UsageError(
            f"a table of pictures has one column of paths, addresses or pictures, {place} has {found}",
            f"say which, after #: {place}#{next(iter(good or columns), 'image')}",
        )
    return good[0]


# Parquet -------------------------------------------------------------------------------------------------------------


def open_parquet(file: BinaryIO, place: str, column: str, near: Place) -> ParquetSource | ListSource:
    """Raises UsageError without pyarrow, for a damaged file, and where no column is meant for certain."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        file.close()
        raise UsageError("Parquet needs pyarrow, which is not installed", "pip install 'manylens[parquet]'") from None
    name = printable(place)
    try:
        table = pyarrow.parquet.ParquetFile(file)
        schema = table.schema_arrow
        found, holds = _picture_column(schema, column)
        if holds:
            return ParquetSource(table, file, found, place, near)
        texts = [field.name for field in schema if _is_text(field.type)]
        samples: dict[str, list[str]] = {}
        for batch in table.iter_batches(batch_size=_SEEN_ROWS, columns=texts):
            samples = {title: [value or "" for value in batch.column(title).to_pylist()] for title in texts}
            break
        chosen = _path_column(samples, column, name)
        values = [
            value.strip()
            for batch in table.iter_batches(columns=[chosen])
            for value in batch.column(0).to_pylist()
            if value and value.strip()
        ]
        file.close()
        return ListSource(values, place, near)
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # ValueError: text that is no UTF-8
        file.close()
        said = (printable(str(error)).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"a Parquet file is whole, {name} cannot be read ({said})", "fetch it anew") from None


def _is_text(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind))


def _picture_column(schema: Any, asked: str) -> tuple[str, bool]:
    """The column that holds pictures, and whether there is one: as data sets of Hugging Face's have them (a struct of
    bytes and path), or plain bytes."""
    import pyarrow

    def is_bytes(kind: Any) -> bool:
        return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))

    def holds(field: Any) -> bool:
        if pyarrow.types.is_struct(field.type):
            at = field.type.get_field_index("bytes")
            return at >= 0 and is_bytes(field.type.field(at).type)
        return is_bytes(field.type)

    good = [field.name for field in schema if holds(field)]
    if asked:
        return asked, asked in good
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        images = [name for name, kind in features.items() if kind.get("_type") == "Image" and name in good]
    except (KeyError, ValueError, TypeError, AttributeError):
        images = []
    if len(images) == 1:
        return images[0], True
    by_name = {name.lower(): name for name in good}
    named = next((by_name[name] for name in _IMAGE_NAMES if name in by_name), "")
    if named or len(good) == 1:
        return named or good[0], True
    return "", False


class ParquetSource:
    """The pictures in one column, by the names that are kept beside them, or by the numbers of their rows.

    Rows are read a group at a time, once, and then kept in a file without a name.
    """

    root: Path | None = None
    claims = True
    threads = 0

    def __init__(self, table: Any, file: BinaryIO, column: str, place: str, near: Place) -> None:
        self.place, self._near = place, near
        self._table, self._column = table, column
        self._packed = file.seek(0, os.SEEK_END)
        weakref.finalize(self, file.close)
        self._guard = threading.Lock()
        self._spool = Spool()
        self._parts: dict[int, tuple[int, int] | Path | str] = {}
        """Row -> where its bytes are, or the file that it names in their place, or why there is neither."""
        groups = table.metadata.num_row_groups
        sizes = [table.metadata.row_group(group).num_rows for group in range(groups)]
        self._group_of = [group for group in range(groups) for _ in range(sizes[group])]
        self._first = [sum(sizes[:group]) for group in range(groups)]
        self._read: set[int] = set()
        self._rows = {path: row for row, path in enumerate(self._paths())}

    def _paths(self) -> list[str]:
        count = len(self._group_of)
        digits = max(4, len(str(max(0, count - 1))))
        names: list[str | None] = [None] * count
        kind = self._table.schema_arrow.field(self._column).type
        if hasattr(kind, "get_field_index") and kind.get_field_index("path") >= 0:
            batches = self._table.iter_batches(columns=[f"{self._column}.path"])
            names = [row[self._column]["path"] if row[self._column] else None for b in batches for row in b.to_pylist()]
        safe = [safe_name(name) if isinstance(name, str) else "" for name in names]
        if all(safe) and max(Counter(safe).values(), default=1) == 1:
            return safe
        # Names that are paths of another machine, or several times the same, say less than the row.
        endings = [PurePosixPath(str(name)).suffix.lower() if name else "" for name in names]
        return [
            f"row-{row:0{digits}}{ending if re.fullmatch(r'[.][a-z0-9]+', ending) else ''}"
            for row, ending in enumerate(endings)
        ]

    def listed(self, chosen: Chooser) -> Listing:
        return Listing([path for path in self._rows if chosen.takes(path, is_folder=False)])

    def open(self, path: str) -> Opened:
        row = self._rows.get(path)
        if row is None:
            raise ImageUnreadable("no such row")
        with self._guard:
            if self._group_of[row] not in self._read:
                self._read_group(self._group_of[row])
        found = self._parts.get(row, "no such row")
        if isinstance(found, str):
            raise ImageUnreadable(found)
        if isinstance(found, Path):
            try:
                return open_file(found)
            except FileNotFoundError as error:
                raise ImageUnreadable("the row names a file that is not there") from error
        return Opened(self._spool.part(*found), found[1])

    def _read_group(self, group: int) -> None:
        import pyarrow

        self._read.add(group)
        row = self._first[group]
        last = row + self._table.metadata.row_group(group).num_rows
        try:
            for batch in self._table.iter_batches(
                batch_size=_ROWS_AT_ONCE, row_groups=[group], columns=[self._column], use_threads=False
            ):
                for value in batch.column(0):
                    held = value.as_py() if value.is_valid else None
                    data = held.get("bytes") if isinstance(held, dict) else held
                    if not data:
                        named = held.get("path") if isinstance(held, dict) else None
                        self._parts[row] = "the row holds no picture"
                        if isinstance(named, str) and isinstance(self._near, Path):
                            self._parts[row] = self._near / named
                    elif len(data) > MOST_FILE_BYTES:
                        self._parts[row] = f"too large: {len(data):,} bytes, the limit is {MOST_FILE_BYTES:,}"
                    else:
                        check_unpacked(self._spool.size + len(data), self._packed, self.place)
                        self._parts[row] = (self._spool.size, len(data))
                        self._spool.write(data)
                    row += 1
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            reason = f"damaged: {(printable(str(error)).splitlines() or [type(error).__name__])[0][:200]}"
            self._parts |= dict.fromkeys(range(row, last), reason)
