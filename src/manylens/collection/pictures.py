"""The pixels of a collection, for models: thumbnails from the run, larger sizes from the original files.

In: image ids. Out: pictures, or JPEG bytes. Promise: a file that changed since it was found is never taken for itself.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Protocol

import PIL.Image
import PIL.ImageFile
from PIL.Image import Image as Picture

from manylens.collection.decode import THUMBNAIL_PX, decode, encode_jpeg
from manylens.errors import ImageUnreadable, UsageError
from manylens.text import printable
from manylens.types import Image

_IN_MEMORY_BYTES = 32 << 20

MOST_FILE_BYTES = 2 << 30
"""The largest picture that is decoded takes 0.7 GB as it is; a sparse file may claim terabytes."""


def open_regular(path: Path) -> BinaryIO:
    """Open without waiting on a pipe or waking a device that took the file's place since it was listed."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return os.fdopen(descriptor, "rb")


def identify(file: BinaryIO) -> tuple[str, BinaryIO]:
    """The SHA-256 of a file's bytes, and where to decode them from: memory, unless the file is large.

    Raises OSError for a file without an end: what it holds more than its size, or too much, is not read.
    """
    size = os.fstat(file.fileno()).st_size
    if size > MOST_FILE_BYTES:
        raise OSError(errno.EFBIG, f"too large: {size:,} bytes, the limit is {MOST_FILE_BYTES:,}")
    head = file.read(_IN_MEMORY_BYTES) or b""
    digest = hashlib.sha256(head)
    done = len(head)
    while done <= size and done >= _IN_MEMORY_BYTES and (block := file.read(1 << 20)):
        digest.update(block)
        done += len(block)
    if done > size:  # also of files that the system makes up as they are read
        raise OSError(errno.EIO, "it grows while it is read")
    if done < _IN_MEMORY_BYTES:
        return digest.hexdigest(), io.BytesIO(head)
    file.seek(0)
    return digest.hexdigest(), file


def check_resources(error: OSError) -> None:
    """Raises UsageError where it is the process that has no more files or memory: no file is to blame for that."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise UsageError(
            f"pictures are read a few at a time, this process gets no more of what that takes ({error.strerror})",
            "allow more open files (ulimit -n 1024) or memory",
        ) from error


class ImageSource(Protocol):
    """Where models get pixels from. Safe to call from several threads."""

    def thumbnail(self, image_id: str) -> Picture:
        """The image as RGB, longest side at most 256 px."""
        ...

    def jpeg(self, image_id: str, longest_side_px: int, quality: int = 90) -> bytes:
        """The image as JPEG bytes, longest side at most `longest_side_px`. Raises ImageUnreadable."""
        ...


class StoredImages:
    """An `ImageSource` over a run's thumbnails and, for larger sizes, the original files."""

    def __init__(self, root: Path, images: Iterable[Image], thumbnail_bytes: Callable[[str], bytes]) -> None:
        self.root = root
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
                with open_regular(self.root / path) as file:
                    found_id, source = identify(file)
                    # A file that changed since is another image; an answer about it must not be stored under this one.
                    if found_id == image_id:
                        return encode_jpeg(decode(source, longest_side_px)[0], quality=quality)
            except OSError as error:
                check_resources(error)
                continue
        raise ImageUnreadable(f"{printable(image.paths[0])} was moved or changed during the run", "run again")
