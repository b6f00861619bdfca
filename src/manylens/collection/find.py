"""Find the images of a folder, tell them apart by content, decode them safely and shrink them once.

In: a folder. Out: a `Collection` of images by content hash, plus every file that looked like an image and could not be
used, with its reason. Promises: a bad file is reported, never fatal; no file is decoded twice, none is opened that is
not a regular file, none is decoded whose header asks for too much; a link loop ends; same folder, same collection.

Which files are candidates: every regular file with an image suffix, whatever is in it, and every file without one whose
first bytes are those of an image. Other files, and hidden ones, are counted as skipped. Hidden folders and folders of
runs are not entered. Links are followed, into each folder only once.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from manylens.collection.decode import THUMBNAIL_PX, decode, encode_jpeg
from manylens.collection.pictures import check_resources, identify, open_regular
from manylens.errors import ImageUnreadable, UsageError
from manylens.files import DATABASE_NAME
from manylens.text import printable
from manylens.types import Image, Thumbnail, Unreadable

_READABLE = "jpg jpeg jpe jfif mpo png apng gif webp bmp dib tif tiff ppm pgm pbm pnm avif jp2 ico"

_REPORTED = "heic heif svg psd tga dng cr2 nef arw"  # a person calls them pictures: say so where they cannot be read

IMAGE_SUFFIXES = frozenset(f".{name}" for name in f"{_READABLE} {_REPORTED}".split())

_MADE_UP = ("/proc/", "/sys/", "/dev/fd")

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  \r\n\x87\n")


NO_IMAGE = "a folder needs at least one image"
"""How the message begins where there is none."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What a folder holds. images: by id. unreadable: by path. skipped_count: files that are no images, or hidden.

    files_found = the paths of all images + unreadable files: what the person must find again in the result.
    """

    root: Path
    images: tuple[Image, ...]
    unreadable: tuple[Unreadable, ...]
    skipped_count: int
    files_found: int


def find_images(
    folder: str | os.PathLike[str],
    files: Iterable[str] | None = None,
    *,
    known: Mapping[str, tuple[int, int]] | None = None,
    keep: Callable[[Sequence[Thumbnail]], None] = lambda thumbnails: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int = 0,
) -> Collection:
    """Read a folder's images.

    files: only these of it, by their paths in it; by default all candidates.
    known: id -> (width_px, height_px) of images that need no decoding (`RunFolder.known_images`).
    keep: gets the thumbnails of the others, in batches (`RunFolder.put_thumbnails`). on_progress: (files done, files).
    workers: decoding threads, 0 for two to four by the machine.
    Raises UsageError where there is no such folder, it is a file, or no file in it is or claims to be an image.
    """
    root = Path(folder)
    _check_folder(root)
    found_files, unreadable, skipped = _walk(root) if files is None else (sorted(set(files)), [], 0)
    reader = _Reader(root, known or {})
    paths: dict[str, list[str]] = {}
    batch: list[Thumbnail] = []
    threads = workers or min(4, max(2, os.cpu_count() or 2))
    for done, (path, found) in enumerate(_in_order(reader.read, found_files, threads), start=1):
        if isinstance(found, Thumbnail):
            batch.append(found)
        if isinstance(found, Unreadable):
            unreadable.append(found)
        elif found is None:
            skipped += 1
        else:
            paths.setdefault(found if isinstance(found, str) else found.image_id, []).append(path)
        if len(batch) >= 64:
            keep(batch)
            batch = []
        on_progress(done, len(found_files))
    if batch:
        keep(batch)
    images = []
    for image_id in sorted(paths):
        size = reader.outcomes[image_id]
        if isinstance(size, str):  # a duplicate of bytes that proved unreadable
            unreadable += [Unreadable(path, size) for path in paths[image_id]]
        else:
            images.append(Image(image_id, tuple(sorted(paths[image_id])), *size))
    if not images and not unreadable:
        raise UsageError(
            f"{NO_IMAGE}, {printable(str(root))} has none among {skipped:,} files",
            "give a folder with .jpg, .png, .webp, .gif, .bmp, .tif or .avif files",
        )
    unreadable.sort(key=lambda file: file.path)
    files_found = sum(len(image.paths) for image in images) + len(unreadable)
    return Collection(root, tuple(images), tuple(unreadable), skipped, files_found)


def _check_folder(root: Path) -> None:
    name = printable(str(root))
    if root.is_file():
        raise UsageError(
            f"images are read from a folder, {name} is a file", f"give its folder: {printable(str(root.parent))}"
        )
    if str(root.resolve()).startswith(_MADE_UP):
        raise UsageError(
            f"images are read from a folder on a disk, {name} is one that the system makes up", "give another folder"
        )
    if not root.is_dir():
        raise UsageError(
            f"images are read from a folder, there is no {name}", "check the spelling and the current folder"
        )


def _walk(root: Path) -> tuple[list[str], list[Unreadable], int]:
    """The candidates under root, relative and sorted; what can be seen to be unreadable; the number skipped.

    Real folders are walked before linked ones, so that a file's own path wins over a way in through a link.
    """
    files: list[str] = []
    unreadable: list[Unreadable] = []
    skipped = 0
    top = os.stat(root)
    entered = {(top.st_dev, top.st_ino)}
    # Each folder to walk, with the folders above it: a link to one of those is a loop.
    outside = [os.stat(parent) for parent in root.resolve().parents]
    above = frozenset(entered | {(status.st_dev, status.st_ino) for status in outside})
    real: deque[tuple[str, frozenset[tuple[int, int]]]] = deque([("", above)])
    linked: deque[tuple[str, frozenset[tuple[int, int]]]] = deque()
    while real or linked:
        is_real = bool(real)
        folder, above = (real or linked).popleft()
        try:
            if not is_real:
                status = os.stat(os.path.join(root, folder))
                place = (status.st_dev, status.st_ino)
                if place in entered:
                    skipped += 1
                    continue
                entered.add(place)
                above = above | {place}
            names = sorted(os.listdir(os.path.join(root, folder)))
        except OSError as error:
            check_resources(error)
            unreadable.append(Unreadable(folder or ".", f"folder cannot be listed: {plain_reason(error)}"))
            continue
        if folder and DATABASE_NAME in names:  # an earlier run: its report and links show our own images
            continue
        for name in names:
            path = f"{folder}/{name}" if folder else name
            full = os.path.join(root, path)
            claims = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
            is_link = os.path.islink(full)
            try:
                status = os.stat(full)
            except OSError as error:
                if name.startswith(".") or (error.errno == errno.ENOENT and not claims):
                    skipped += 1  # a broken link that nobody calls a picture
                else:
                    unreadable.append(Unreadable(path, plain_reason(error, link=is_link)))
                continue
            if stat.S_ISDIR(status.st_mode):
                place = (status.st_dev, status.st_ino)
                if name.startswith("."):
                    continue
                if is_link and place in above:
                    unreadable.append(Unreadable(path, "symbolic link loop"))
                elif is_link and os.path.realpath(full).startswith(_MADE_UP):
                    unreadable.append(Unreadable(path, "a folder that the system makes up"))
                elif is_link:
                    linked.append((path, above))
                elif place not in entered:
                    entered.add(place)
                    real.append((path, above | {place}))
            elif name.startswith("."):
                skipped += 1
            elif stat.S_ISREG(status.st_mode):
                files.append(path)
            elif claims:
                unreadable.append(Unreadable(path, "not a regular file"))
            else:
                skipped += 1
    return sorted(files), unreadable, skipped


class _Reader:
    """Reads files from several threads; each content is decoded by the first thread that meets it."""

    def __init__(self, root: Path, known: Mapping[str, tuple[int, int]]) -> None:
        self._root = root
        self._guard = threading.Lock()
        self._known = known
        self.outcomes: dict[str, tuple[int, int] | str] = {}
        """By content: the size as seen, or why it cannot be read."""

    def read(self, path: str) -> Thumbnail | Unreadable | str | None:
        """A new image's thumbnail, the id of one met before, why the file cannot be read, or None: no image."""
        claims = os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES
        try:
            with open_regular(self._root / path) as file:
                if not claims and not _looks_like_image(file.read(64) or b""):
                    return None
                file.seek(0)
                image_id, source = identify(file)
                with self._guard:
                    if image_id in self.outcomes:
                        return image_id
                    self.outcomes[image_id] = self._known.get(image_id, "could not be read")
                    if image_id in self._known:
                        return image_id
                try:
                    picture, size = decode(source, THUMBNAIL_PX)
                except ImageUnreadable as error:
                    self.outcomes[image_id] = error.rule
                    return image_id
                self.outcomes[image_id] = size
                return Thumbnail(image_id, *size, encode_jpeg(picture, quality=95))
        except OSError as error:
            check_resources(error)
            link = os.path.islink(self._root / path)
            return Unreadable(path, plain_reason(error, link)) if claims else None


def _in_order(
    read: Callable[[str], Thumbnail | Unreadable | str | None], files: Sequence[str], threads: int
) -> Iterator[tuple[str, Thumbnail | Unreadable | str | None]]:
    """Results in the order of the files, with only a few files in flight."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="manylens-images")
    waiting: deque[tuple[str, Future[Thumbnail | Unreadable | str | None]]] = deque()
    try:
        for path in files:
            waiting.append((path, pool.submit(read, path)))
            if len(waiting) > 4 * threads:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:  # after a Ctrl-C nobody waits for a slow disk or a large picture
        pool.shutdown(wait=False, cancel_futures=True)


def _looks_like_image(head: bytes) -> bool:
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1")
    if head[:2] == b"BM":
        return len(head) > 26 and head[6:10] == b"\0\0\0\0"
    return head.startswith(_MAGIC)


def plain_reason(error: OSError, link: bool = False) -> str:
    """An operating system's refusal in words for a person."""
    if error.errno == errno.ELOOP:
        return "symbolic link loop"
    if error.errno == errno.ENOENT:
        return "broken symbolic link" if link else "the file vanished while it was read"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "no permission to read it"
    return error.strerror or str(error)
