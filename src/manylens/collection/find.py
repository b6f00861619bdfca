"""Find the images of a folder or another `Source`, tell them apart by content, decode them safely, shrink them once.

In: a folder, an archive, a table, an address. Out: a `Collection` of images by content hash, plus every file that
looked like an image and could not be used, with its reason. Promises: a bad file is reported, never fatal; no file is
decoded twice, none is opened that is not a regular file, none is decoded whose header asks for too much; a link loop
ends; same source, same collection.

Which files of a folder are candidates: every regular file with an image suffix, whatever is in it, and every file
without one whose first bytes are those of an image. Other files, and hidden ones, are counted as skipped; folders of
thumbnails and trash and what the person excludes, as left out. Hidden folders and folders of runs are not entered.
Links are followed, into each folder only once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import PIL.Image

from manylens.collection.decode import THUMBNAIL_PX, decode, encode_jpeg
from manylens.collection.formats import (
    IMAGE_SUFFIXES,
    NAMED_SUFFIXES,
    RAW_SUFFIXES,
    VIDEO_SUFFIXES,
    looks_like_image,
    too_small_for_raw,
)
from manylens.collection.ignored import ignore_spec
from manylens.collection.pictures import identify, open_file
from manylens.collection.source import Chooser, Listing, Opened, Place, Source
from manylens.errors import ImageUnreadable, UsageError
from manylens.files import DATABASE_NAME, check_resources, open_regular
from manylens.text import printable
from manylens.types import Image, Thumbnail, Unreadable

_PHONE = (".heic", ".heif", ".jpg", ".jpeg")
"""What a phone's pictures are called, beside which it keeps seconds of video by the same name."""

PACKED_SUFFIXES = (".zip", ".cbz", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".parquet")
"""Names of what may hold pictures and is opened only where it is given itself: each picture costs a look, and what
somebody packed away is not what they look at."""

_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
"""How zips and compressed tars begin."""

_LISTS = (".csv", ".tsv", ".txt")

_MADE_UP = ("/proc/", "/sys/", "/dev/fd")

LEFT_OUT = r"""
@eadir/ \#recycle/ \#snapshot/ @recycle/ @recently-snapshot/ .@__thumb/ @tmp/
$recycle.bin/ recycler/ system?volume?information/ lost+found/ __macosx/ .trash*/ .dtrash/ .appledouble/
.thumbnails/ thumbs/ .picasaoriginals/ *.lrdata/ ipod?photo?cache/ captureone/cache/ appdata_*/preview/
*.photoslibrary/resources/derivatives/ *.photoslibrary/database/ *.aplibrary/thumbnails/
*.photolibrary/thumbnails/ *.migratedphotolibrary/
"""
"""Folders of thumbnails and trash: of NAS boxes, systems, photo programs. As in .gitignore, in lower case."""

IGNORE_NAME = ".manylensignore"
"""In a folder of images: what to leave out, written as in .gitignore."""

NO_IMAGE = "a folder needs at least one image"
"""How the message begins where there is none."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What a folder holds. images: by id. unreadable: by path. skipped_count: files that are no images, or hidden;
    left_out_count: those in folders of thumbnails and trash, and what was excluded. packed_count: archives and tables
    in a folder, which are not opened. root: the folder that the paths are in; of a source that has none, its own place.

    files_found = the paths of all images + unreadable files: what the person must find again in the result.
    """

    root: Path
    images: tuple[Image, ...]
    unreadable: tuple[Unreadable, ...]
    skipped_count: int
    files_found: int
    left_out_count: int = 0
    packed_count: int = 0
    source: Source | None = field(default=None, compare=False, repr=False)

    @property
    def animated_count(self) -> int:
        """Images that are the middle frame of an animation or a video."""
        return sum(image.frames > 1 for image in self.images)


def find_images(
    folder: str | os.PathLike[str] | Source,
    files: Iterable[str] | None = None,
    *,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    known: Mapping[str, tuple[int, int]] | None = None,
    keep: Callable[[Sequence[Thumbnail]], None] = lambda thumbnails: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int = 0,
) -> Collection:
    """Read the images of a folder, or of what else `open_source` opens.

    files: only these of it, by their paths in it; by default all candidates.
    exclude, include: patterns as in .gitignore, of what to leave out beside `LEFT_OUT` and the folder's own
    `.manylensignore` ("!thumbs/" takes one back), and of what alone to take; without `files` only.
    known: id -> (width_px, height_px) of images that need no decoding (`RunFolder.known_images`).
    keep: gets the thumbnails of the others, in batches (`RunFolder.put_thumbnails`). on_progress: (files done, files).
    workers: decoding threads, 0 for two to four by the machine.
    Raises UsageError where there is no such folder, it is a file, or no file in it is or claims to be an image.
    """
    source = open_source(folder) if isinstance(folder, str | os.PathLike) else folder
    chosen = _Chosen(source.root if isinstance(source, Folder) else None, exclude, include)
    listing = source.listed(chosen) if files is None else Listing(sorted(set(files)))
    found_files, unreadable, skipped = sorted(listing.paths), listing.unreadable, listing.skipped
    PIL.Image.init()  # while no file is open yet: it leaves out, for good, what it cannot open just then
    reader = _Reader(source, known or {})
    paths: dict[str, list[str]] = {}
    batch: list[Thumbnail] = []
    threads = workers or source.threads or min(4, max(2, os.cpu_count() or 2))
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
            small = too_small_for_raw(*size)
            raw = [path for path in paths[image_id] if small and _suffix(path) in RAW_SUFFIXES]
            unreadable += [Unreadable(path, small) for path in raw]
            if whole := sorted(set(paths[image_id]).difference(raw)):
                images.append(Image(image_id, tuple(whole), *size, reader.frames.get(image_id, 1)))
    packed = sum(path.lower().endswith(PACKED_SUFFIXES) for path in found_files)
    if not images and not unreadable:
        raise UsageError(
            f"{NO_IMAGE}, {printable(source.place)} has none among {skipped:,} files"
            + (f" and {chosen.left_out:,} that were left out" if chosen.left_out else ""),
            "give one of its archives or tables itself"
            if packed
            else "give a folder with .jpg, .png, .webp, .gif, .bmp, .tif or .avif files",
        )
    unreadable.sort(key=lambda file: file.path)
    files_found = sum(len(image.paths) for image in images) + len(unreadable)
    root = source.root or Path(source.place)
    return Collection(root, tuple(images), tuple(unreadable), skipped, files_found, chosen.left_out, packed, source)


class Folder:
    """A folder of this disk, as a `Source`."""

    claims = False
    threads = 0

    def __init__(self, root: Path) -> None:
        _check_folder(root)
        self.root = root
        self.place = os.path.abspath(root)

    def listed(self, chosen: Chooser) -> Listing:
        return Listing(*_walk(self.root, chosen))

    def open(self, path: str) -> Opened:
        return open_file(self.root / path)


def open_source(place: str | os.PathLike[str]) -> Source:
    """What a person says: a folder, an archive, a table or list, an address. `#NAME` after a table says which column.

    Raises UsageError where there is no such thing, or it cannot be read.
    """
    if isinstance(place, str) and place.startswith("file://"):
        import urllib.request  # half of the network's modules come with it

        place = urllib.request.url2pathname(urllib.parse.urlsplit(place).path)
    if isinstance(place, str) and "://" in place:
        from manylens.collection.remote import open_address

        return open_address(place, open_packed)
    path, column = Path(place), ""
    if not path.exists() and "#" in path.name:
        name, _, column = path.name.rpartition("#")
        path = path.with_name(name) if name else path
    if not path.is_file():
        return Folder(Path(place))
    try:
        file = open_regular(path)
    except OSError as error:
        check_resources(error)
        raise UsageError(f"cannot read {printable(str(path))}: {plain_reason(error)}", "give another") from error
    found = open_packed(file, os.path.abspath(place), path.name, column, Path(os.path.abspath(path)).parent)
    if found is None:
        file.close()
        return Folder(path)  # raises, and says why
    return found


def open_packed(file: BinaryIO, place: str, name: str, column: str, near: Place) -> Source | None:
    """What a file holds, by its first bytes, or a list by its name; None where it is neither. near: where names in a
    list begin. Imports are here because few need them, and memory may be short."""
    head = file.read(512)
    file.seek(0)
    if head.startswith(_ARCHIVES) or head[257:262] == b"ustar":
        from manylens.collection.archives import open_archive

        return open_archive(file, place)
    suffix = _suffix(name)
    if head.startswith(b"PAR1") or suffix in _LISTS:
        from manylens.collection.tables import open_list, open_parquet

        if head.startswith(b"PAR1"):
            return open_parquet(file, place, column, near)
        with file:
            return open_list(file, place, suffix, column, near)
    return None


def list_files(
    folder: str | os.PathLike[str], *, exclude: Sequence[str] = (), include: Sequence[str] = ()
) -> list[str]:
    """The paths of the files that `find_images` would read, in order; no picture is opened. Raises UsageError, as it
    does, where there is no such folder."""
    source = open_source(folder)
    chosen = _Chosen(source.root if isinstance(source, Folder) else None, exclude, include)
    files = sorted(source.listed(chosen).paths)
    return files if source.claims else [path for path in files if _suffix(path) in IMAGE_SUFFIXES] or files


def _check_folder(root: Path) -> None:
    name = printable(str(root))
    if root.is_file():
        raise UsageError(
            f"images are read from a folder, an archive (zip, tar) or a list (csv, txt, parquet), {name} is a file",
            f"give its folder: {printable(str(root.parent))}, or unpack it",
        )
    if str(root.resolve()).startswith(_MADE_UP):
        raise UsageError(
            f"images are read from a folder on a disk, {name} is one that the system makes up", "give another folder"
        )
    if not root.is_dir():
        raise UsageError(
            f"a folder of pictures must exist, {name} does not", "check the spelling and the current folder"
        )


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


class _Chosen:
    """What of a folder to take, by path. left_out: how many files were not, so far."""

    def __init__(self, root: Path | None, exclude: Sequence[str], include: Sequence[str]) -> None:
        """root: where a folder is."""
        self._root = root
        self.left_out = 0
        lines: list[str] = []
        try:
            if root is not None:
                with open_regular(root / IGNORE_NAME) as file:
                    lines = file.read(1 << 20).decode("utf-8", "replace").splitlines()
        except OSError:
            pass  # there is none
        given = [*lines, *exclude]
        try:
            self._usual = ignore_spec(LEFT_OUT.split())
            self._given = ignore_spec(given)
            self._include = ignore_spec(include) if include else None
        except ValueError as error:
            raise UsageError(
                f"what to leave out or to take is written as in .gitignore: {error}", "write *.png"
            ) from error

    def takes(self, path: str, *, is_folder: bool) -> bool:
        """Counts what it does not take; a folder with all that is in it."""
        named = f"{path}/" if is_folder else path
        said = self._given.check_file(named).include
        out = self._usual.match_file(named.lower()) if said is None else said
        if not out and not is_folder and self._include is not None:
            out = not self._include.match_file(path)
        if out:
            within = self._root is not None and is_folder
            self.left_out += sum(len(names) for *_, names in os.walk(f"{self._root}/{path}")) if within else 1
        return not out


def _walk(root: Path, chosen: Chooser) -> tuple[list[str], list[Unreadable], int]:
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
        stems = {os.path.splitext(name)[0] for name in names if _suffix(name) in _PHONE}
        for name in names:
            path = f"{folder}/{name}" if folder else name
            full = os.path.join(root, path)
            claims = _suffix(name) in NAMED_SUFFIXES
            is_link = os.path.islink(full)
            try:
                status = os.stat(full)
            except OSError as error:
                if name.startswith(".") or (error.errno == errno.ENOENT and not claims):
                    skipped += 1  # a broken link that nobody calls a picture
                else:
                    unreadable.append(Unreadable(path, plain_reason(error, link=is_link)))
                continue
            is_folder = stat.S_ISDIR(status.st_mode)
            if not chosen.takes(path, is_folder=is_folder):
                continue
            if is_folder:
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
            elif _suffix(name) == ".icloud" and _suffix(name[:-7]) in NAMED_SUFFIXES:
                unreadable.append(Unreadable(path, _IN_ICLOUD))
            elif name.startswith(".") or (_suffix(name) in VIDEO_SUFFIXES and os.path.splitext(name)[0] in stems):
                skipped += 1
            elif stat.S_ISREG(status.st_mode):
                files.append(path)
            elif claims:
                unreadable.append(Unreadable(path, "not a regular file"))
            else:
                skipped += 1
    return sorted(files), unreadable, skipped


_IN_ICLOUD = "not on this disk: iCloud keeps it (download it in the Finder, or with brctl download FOLDER)"


class _Reader:
    """Reads files from several threads; each content is decoded by the first thread that meets it."""

    def __init__(self, source: Source, known: Mapping[str, tuple[int, int]]) -> None:
        self._source = source
        self._guard = threading.Lock()
        self._known = known
        self.frames: dict[str, int] = {}
        self.outcomes: dict[str, tuple[int, int] | str] = {}
        """By content: the size as seen, or why it cannot be read."""

    def read(self, path: str) -> Thumbnail | Unreadable | str | None:
        """A new image's thumbnail, the id of one met before, why the file cannot be read, or None: no image."""
        claims = self._source.claims or _suffix(path) in NAMED_SUFFIXES
        try:
            opened = self._source.open(path)
            with contextlib.closing(opened.stream):
                head = b"" if claims else opened.stream.read(64) or b""
                if not claims and not looks_like_image(head):
                    return None
                image_id, content = identify(opened, head)
                with self._guard:
                    if image_id in self.outcomes:
                        return image_id
                    self.outcomes[image_id] = self._known.get(image_id, "could not be read")
                    if image_id in self._known:
                        return image_id
                try:
                    picture, size = decode(content, THUMBNAIL_PX)
                except ImageUnreadable as error:
                    self.outcomes[image_id] = error.rule
                    return image_id
                self.outcomes[image_id] = size
                frames = picture.info.get("frames", 1)
                if frames > 1:
                    self.frames[image_id] = frames
                return Thumbnail(image_id, *size, encode_jpeg(picture, quality=95), frames)
        except ImageUnreadable as error:
            return Unreadable(path, error.rule) if claims else None
        except OSError as error:
            check_resources(error)
            link = self._source.root is not None and os.path.islink(self._source.root / path)
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


def plain_reason(error: OSError, link: bool = False) -> str:
    """An operating system's refusal in words for a person."""
    if error.errno == errno.ELOOP:
        return "symbolic link loop"
    if error.errno == errno.ENOENT:
        return "broken symbolic link" if link else "the file vanished while it was read"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "no permission to read it"
    return error.strerror or str(error)
