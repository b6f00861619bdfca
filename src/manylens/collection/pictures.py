"""The pixels of a collection, for models: thumbnails from the run, larger sizes from the original files.

In: image ids. Out: pictures, or JPEG bytes. Promise: a file that changed since it was found is never taken for itself.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import PIL.Image
import PIL.ImageFile
from PIL.Image import Image as Picture

from manylens.collection.decode import THUMBNAIL_PX, decode, encode_jpeg
from manylens.collection.source import MOST_FILE_BYTES, Opened, Readable, Source
from manylens.errors import ImageUnreadable
from manylens.files import check_resources, open_regular
from manylens.text import printable
from manylens.types import Image

_IN_MEMORY_BYTES = 32 << 20


def open_file(path: Path) -> Opened:
    """A file of this disk, as a `Source` has it."""
    file = open_regular(path)
    return Opened(file, os.fstat(file.fileno()).st_size)


def identify(opened: Opened, head: bytes = b"") -> tuple[str, BinaryIO]:
    """The SHA-256 of a file's bytes, and where to decode them from: memory, unless the file is large.

    head: what was read of it. Raises OSError for a file without an end: what it holds more than its size, or too much,
    is not read; ImageUnreadable for one that a source has a part of only.
    """
    stream, size = opened.stream, opened.size
    if size is not None and size > MOST_FILE_BYTES:
        raise OSError(errno.EFBIG, f"too large: {size:,} bytes, the limit is {MOST_FILE_BYTES:,}")
    most = MOST_FILE_BYTES if size is None else size
    parts, done = [head], len(head)
    while done < _IN_MEMORY_BYTES and (block := stream.read(_IN_MEMORY_BYTES - done)):
        parts.append(block)
        done += len(block)
    start = b"".join(parts)
    digest = hashlib.sha256(start)
    source: BinaryIO = io.BytesIO(start)
    if done >= _IN_MEMORY_BYTES:
        # Without `with`: it goes with whoever decodes from it.
        source = cast(BinaryIO, stream) if _is_file(stream) else tempfile.TemporaryFile(prefix="manylens-")  # noqa: SIM115
        if source is not stream:
            source.write(start)
        while done <= most and (block := stream.read(1 << 20)):
            digest.update(block)
            done += len(block)
            if source is not stream:
                source.write(block)
        source.seek(0)
    if done > most:  # also of files that the system makes up as they are read
        raise OSError(errno.EIO, "it grows while it is read" if size is not None else "it has no end")
    if size is not None and done < size and not _is_file(stream):
        raise ImageUnreadable(f"truncated: {done:,} of its {size:,} bytes came")
    return digest.hexdigest(), source


@contextlib.contextmanager
def open_image(source: Path | Source, path: str, image_id: str) -> Iterator[BinaryIO | None]:
    """A file's bytes, or None where they are no longer those of the image. Raises OSError, ImageUnreadable."""
    opened = open_file(source / path) if isinstance(source, Path) else source.open(path)
    with contextlib.closing(opened.stream):
        found_id, content = identify(opened)
        yield content if found_id == image_id else None


def _is_file(stream: Readable) -> bool:
    return isinstance(stream, io.BufferedReader)


class ImageSource(Protocol):
    """Where models get pixels from. Safe to call from several threads."""

    def thumbnail(self, image_id: str) -> Picture:
        """The image as RGB, longest side at most 256 px."""
        ...

    def jpeg(self, image_id: str, longest_side_px: int, quality: int = 90) -> bytes:
        """The image as JPEG bytes, longest side at most `longest_side_px`. Raises ImageUnreadable."""
        ...


class StoredImages:
    """An `ImageSource` over a run's thumbnails and, for larger sizes, the original files, in a folder or a `Source`."""

    def __init__(self, source: Path | Source, images: Iterable[Image], thumbnail_bytes: Callable[[str], bytes]) -> None:
        self.source: Path | Source = source
        self._images = {image.id: image for image in images}
        self._thumbnail_bytes = thumbnail_bytes

    def packed(self, image_ids: Iterable[str]) -> tuple[tuple[Image, ...], dict[str, bytes]]:
        """What another process needs to have these images, too, beside the folder itself."""
        ids = list(image_ids)
        return tuple(self._images[i] for i in ids), {i: self._thumbnail_bytes(i) for i in ids}

    def thumbnail(self, image_id: str) -> Picture:
        with PIL.Image.open(io.BytesIO(self._thumbnail_bytes(image_id)), formats=("JPEG",)) as picture:
            return picture.convert("RGB")

    def jpeg(self, image_id: str, longest_side_px: int, quality: int = 90) -> bytes:
        image = self._images[image_id]
        if min(longest_side_px, max(image.width_px, image.height_px)) <= THUMBNAIL_PX:
            picture = self.thumbnail(image_id)
            picture.thumbnail((longest_side_px, longest_side_px), PIL.Image.Resampling.BICUBIC)
            return encode_jpeg(picture, quality=quality)
        for path in image.paths:
            try:
                with open_image(self.source, path, image_id) as content:
                    # A file that changed since is another image; an answer about it must not be stored under this one.
                    if content is not None:
                        return encode_jpeg(decode(content, longest_side_px)[0], quality=quality)
            except OSError as error:
                check_resources(error)
                continue
        raise ImageUnreadable(f"{printable(image.paths[0])} was moved or changed during the run", "run again")
