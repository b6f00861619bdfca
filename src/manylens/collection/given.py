"""Pictures that a program holds, as files: paths, PIL images, arrays, bytes, a column of a table or data set.

In: a sequence of them. Out: a folder and names in it. Promise: one name for each picture, in order; pixels are kept as
they are (PNG) and bytes byte for byte; what is no picture is named with its position and what to pass instead.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from manylens.collection.addresses import shown_address
from manylens.errors import UsageError
from manylens.text import printable

_KINDS = "paths, PIL images, arrays, bytes, or a column of those"


@dataclass(frozen=True, slots=True)
class GivenFiles:
    """names: in the folder, in the order given, a name twice where a path was. is_held: whether they were no files."""

    folder: Path
    names: tuple[str, ...]
    is_held: bool

    @property
    def files(self) -> list[Path]:
        return [self.folder / name for name in self.names]


def as_files(given: Any, scratch: Path) -> GivenFiles:
    """Paths stay where they are; pictures are written into `scratch`, which need not be there yet.

    Raises UsageError: not a sequence of pictures, none, paths among pictures, or paths on several disks.
    """
    items = [_undecoded(item) for item in _items(given)]
    if not items:
        raise UsageError("at least one image is needed, got none", "pass a list of paths")
    paths = [isinstance(item, str | os.PathLike) for item in items]
    if address := next((item for item in items if isinstance(item, str) and "://" in item), None):
        raise UsageError(
            f"images are {_KINDS}, got the address {printable(shown_address(address))}",
            "write the addresses into a list.txt, and pass that to manylens.cluster",
        )
    if all(paths):
        files = [Path(os.path.abspath(item)) for item in items]
        try:
            folder = Path(os.path.commonpath([file.parent for file in files]))
        except ValueError:
            raise UsageError("paths are of one disk, got several disks", "pass each disk's files alone") from None
        return GivenFiles(folder, tuple(file.relative_to(folder).as_posix() for file in files), is_held=False)
    odd = next((position for position, item in enumerate(items) if not paths[position] and not _is_picture(item)), None)
    if odd is not None:
        raise UsageError(
            f"images are {_KINDS}, got {_kind(items[odd])} at position {odd}", "leave it out, or convert it"
        )
    if any(paths):
        raise UsageError(
            f"images are all paths or none is, got a path at position {paths.index(True)} among pictures",
            "open the paths with PIL.Image.open",
        )
    contents = [_content(item, position) for position, item in enumerate(items)]
    scratch.mkdir(parents=True, exist_ok=True)
    digits = len(str(len(contents)))
    names = tuple(f"picture-{position:0{digits}}{suffix}" for position, (_, suffix) in enumerate(contents))
    for name, (content, _) in zip(names, contents, strict=True):
        (scratch / name).write_bytes(content)
    return GivenFiles(scratch, names, is_held=True)


def _items(given: Any) -> list[Any]:
    if isinstance(given, str | os.PathLike):
        raise UsageError(
            f"a list of images is needed, got {os.fspath(given)!r}", 'pass sorted(Path(folder).glob("*.jpg"))'
        )
    columns = getattr(given, "features", None)  # a data set of Hugging Face's
    if isinstance(columns, Mapping) and hasattr(given, "column_names"):
        pictures = [name for name, kind in columns.items() if type(kind).__name__ == "Image"]
        if len(pictures) != 1:
            found = ", ".join(map(str, pictures)) or "none"
            raise UsageError(
                f"a data set needs one column of images to be read as it is, got {found}",
                "pass the column: dataset['image']",
            )
        return list(given[pictures[0]])
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        raise UsageError(
            f"images are one column of a table, got a table with {', '.join(map(repr, list(given.columns)[:5]))}",
            "pass the column: table['path']",
        )
    if isinstance(given, Mapping) and any(hasattr(part, "column_names") for part in given.values()):
        parts = ", ".join(map(repr, given))
        raise UsageError(f"images are one part of a data set, got all of {parts}", "pass one: dataset['train']")
    if isinstance(given, set | frozenset):
        raise UsageError("images have an order, which labels are in, got a set", "pass a list: sorted(paths)")
    is_one = isinstance(given, bytes | Mapping | PIL.Image.Image) or not isinstance(given, Iterable)
    if is_one or (isinstance(given, np.ndarray) and given.ndim == 0):
        raise UsageError(f"a list of images is needed, got {_kind(given)}", f"pass a list of {_KINDS}")
    return list(given)


def _undecoded(item: Any) -> Any:
    """An image as data sets keep it until they decode it: its bytes, or else its path."""
    if isinstance(item, Mapping) and set(item) == {"bytes", "path"}:
        return item["path"] if item["bytes"] is None else item["bytes"]
    return item


def _is_picture(item: Any) -> bool:
    return isinstance(item, bytes | bytearray | memoryview | PIL.Image.Image) or hasattr(item, "__array__")


def _content(item: Any, position: int) -> tuple[bytes, str]:
    """The picture as a file, and its suffix. None for bytes: whoever reads them finds out what they are."""
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item), ".img"
    if not isinstance(item, PIL.Image.Image):
        item = _picture(np.asarray(item), position)
    item = PIL.ImageOps.exif_transpose(item)
    buffer = io.BytesIO()
    try:
        item.save(buffer, "PNG")
    except OSError:  # a mode that PNG has not
        buffer = io.BytesIO()
        item.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue(), ".png"


def _picture(array: Any, position: int) -> PIL.Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not is_picture or 0 in array.shape:
        raise UsageError(
            f"an image as an array is uint8 of shape (height, width) or (height, width, 3 or 4), got {array.dtype} of "
            f"shape {array.shape} at position {position}",
            "scale and transpose it first: (255 * x).astype('uint8')",
        )
    return PIL.Image.fromarray(np.ascontiguousarray(array))


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
