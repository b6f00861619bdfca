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
import hashlib
import io
import os
import re
import stat
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import PIL.Image
import PIL.ImageFile
from PIL.Image import Image as Picture

from manylens.errors import ImageUnreadable, UsageError
from manylens.records import Image, Unreadable
from manylens.store import DATABASE_NAME, Thumbnail

THUMBNAIL_PX = 256
"""Longest side of the thumbnail that each image is decoded to, once."""

MAX_PIXELS = 89_000_000
"""Larger pictures are refused from their header. Just under Pillow's own limit, above which it warns at every turn; the
largest that passes takes 0.8 GB while it is decoded (RGBA), one such picture at a time."""

_READABLE = "jpg jpeg jpe jfif mpo png apng gif webp bmp dib tif tiff ppm pgm pbm pnm avif jp2 ico"
_REPORTED = "heic heif svg psd tga dng cr2 nef arw"  # a person calls them pictures: say so where they cannot be read
IMAGE_SUFFIXES = frozenset(f".{name}" for name in f"{_READABLE} {_REPORTED}".split())

_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
"""What Pillow may try (JPEG includes MPO). Others start programs (EPS), or take almost any bytes for a picture."""

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  \r\n\x87\n")
_IN_MEMORY_BYTES = 32 << 20
_LARGE_PIXELS = 16_000_000
_one_large_picture = threading.Lock()
_one_header = threading.Lock()
_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


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


def printable(path: str) -> str:
    """A path that can be written as UTF-8: bytes of a file name that are no UTF-8 become `\\udcXX`, all else stays."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def find_images(
    folder: str | os.PathLike[str],
    *,
    known: Mapping[str, tuple[int, int]] | None = None,
    keep: Callable[[Sequence[Thumbnail]], None] = lambda thumbnails: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int = 0,
) -> Collection:
    """Read a folder's images.

    known: id -> (width_px, height_px) of images that need no decoding (`RunFolder.known_images`).
    keep: gets the thumbnails of the others, in batches (`RunFolder.put_thumbnails`). on_progress: (files done, files).
    workers: decoding threads, 0 for two to four by the machine.
    Raises UsageError where there is no such folder, it is a file, or no file in it is or claims to be an image.
    """
    root = Path(folder)
    _check_folder(root)
    files, unreadable, skipped = _walk(root)
    reader = _Reader(root, known or {})
    paths: dict[str, list[str]] = {}
    batch: list[Thumbnail] = []
    threads = workers or min(4, max(2, os.cpu_count() or 2))
    for done, (path, found) in enumerate(_in_order(reader.read, files, threads), start=1):
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
        on_progress(done, len(files))
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
            f"a folder needs at least one image, {printable(str(root))} has none among {skipped:,} files",
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
        if real:
            folder, above = real.popleft()
        else:
            folder, above = linked.popleft()
            status = os.stat(os.path.join(root, folder))
            place = (status.st_dev, status.st_ino)
            if place in entered:
                skipped += 1
                continue
            entered.add(place)
            above = above | {place}
        try:
            names = sorted(os.listdir(os.path.join(root, folder)))
        except OSError as error:
            unreadable.append(Unreadable(folder or ".", f"folder cannot be listed: {_plain(error)}"))
            continue
        if folder and DATABASE_NAME in names:  # an earlier run: its report and links show our own images
            continue
        for name in names:
            path = f"{folder}/{name}" if folder else name
            full = os.path.join(root, path)
            claims = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
            try:
                is_link = os.path.islink(full)
                status = os.stat(full)
            except OSError as error:
                unreadable.append(Unreadable(path, _plain(error, link=True)))
                continue
            if stat.S_ISDIR(status.st_mode):
                place = (status.st_dev, status.st_ino)
                if name.startswith("."):
                    continue
                if is_link and place in above:
                    unreadable.append(Unreadable(path, "symbolic link loop"))
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
            with _open_regular(self._root / path) as file:
                if not claims and not _looks_like_image(file.read(64)):
                    return None
                file.seek(0)
                image_id, source = _identify(file)
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
            return Unreadable(path, _plain(error)) if claims else None


def _in_order(
    read: Callable[[str], Thumbnail | Unreadable | str | None], files: Sequence[str], threads: int
) -> Iterator[tuple[str, Thumbnail | Unreadable | str | None]]:
    """Results in the order of the files, with only a few files in flight."""
    with ThreadPoolExecutor(threads, thread_name_prefix="manylens-images") as pool:
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
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _open_regular(path: Path) -> BinaryIO:
    """Open without waiting on a pipe or waking a device that took the file's place since it was listed."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return os.fdopen(descriptor, "rb")


def _identify(file: BinaryIO) -> tuple[str, BinaryIO]:
    """The SHA-256 of a file's bytes, and where to decode them from: memory, unless the file is large."""
    head = file.read(_IN_MEMORY_BYTES)
    digest = hashlib.sha256(head)
    if len(head) < _IN_MEMORY_BYTES:
        return digest.hexdigest(), io.BytesIO(head)
    while block := file.read(1 << 20):
        digest.update(block)
    file.seek(0)
    return digest.hexdigest(), file


def _looks_like_image(head: bytes) -> bool:
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1")
    if head[:2] == b"BM":
        return len(head) > 26 and head[6:10] == b"\0\0\0\0"
    return head.startswith(_MAGIC)


def _plain(error: OSError, link: bool = False) -> str:
    """An operating system's refusal in words for a person."""
    if error.errno == errno.ELOOP:
        return "symbolic link loop"
    if error.errno == errno.ENOENT:
        return "broken symbolic link" if link else "the file vanished while it was read"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "no permission to read it"
    return error.strerror or str(error)


def decode(source: BinaryIO, longest_side_px: int) -> tuple[Picture, tuple[int, int]]:
    """The first frame as a person sees it: RGB, 8 bit, upright, on white, shrunk to fit; and its full (width, height).

    Raises ImageUnreadable with the reason. Never enlarges.
    """
    try:
        with _open_header(source) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise _too_large(f"{width:,} x {height:,} pixels")
            if width < 1 or height < 1:
                raise ImageUnreadable(f"an image has at least one pixel, got {width} x {height}")
            scale = min(1.0, longest_side_px / max(width, height))
            small = (max(1, round(width * scale)), max(1, round(height * scale)))
            # JPEG only: decode at a half to an eighth; twice the wanted size keeps the quality.
            picture.draft(None, (2 * small[0], 2 * small[1]))
            if picture.size[0] * picture.size[1] > _LARGE_PIXELS:
                with _one_large_picture:
                    shrunk = _shrink(picture, small)
            else:
                shrunk = _shrink(picture, small)
            turn = _turn(picture)  # after it was loaded: Pillow sets a TIFF upright itself, and forgets the orientation
    except ImageUnreadable:
        raise
    except PIL.Image.DecompressionBombError as error:
        pixels = re.search(r"\((\d+) pixels\)", str(error))
        raise _too_large(f"{int(pixels[1]):,} pixels" if pixels else "too many pixels") from error
    except MemoryError as error:
        raise ImageUnreadable("not enough memory to decode it") from error
    except Exception as error:  # Pillow's decoders raise most kinds of errors on damaged files
        raise ImageUnreadable(_why(error, source)) from error
    if turn is not None:
        shrunk = shrunk.transpose(turn)
        if turn in (_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8]):
            width, height = height, width
    return shrunk, (width, height)


def _open_header(source: BinaryIO) -> Picture:
    # Pillow would warn on standard error of what `decode` refuses. Filters are the process's, hence the lock.
    with _one_header, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PIL.Image.init()
        # Naming a format that this Pillow was built without would fail every picture.
        return PIL.Image.open(source, formats=[name for name in _FORMATS if name in PIL.Image.OPEN])


def _too_large(size: str) -> ImageUnreadable:
    return ImageUnreadable(f"too large to decode safely: {size}, the limit is {MAX_PIXELS // 1_000_000} megapixels")


def _why(error: Exception, source: BinaryIO) -> str:
    size = source.seek(0, os.SEEK_END)
    if size == 0:
        return "empty file (zero bytes)"
    if isinstance(error, PIL.UnidentifiedImageError):
        source.seek(0)
        kind = " (HEIC: convert it to JPEG)" if source.read(12)[4:11] == b"ftyphei" else ""
        return f"not a picture that can be read{kind}"
    text = printable(str(error)).splitlines()
    lower = text[0].lower() if text else ""
    if any(word in lower for word in ("truncated", "unexpected end", "not enough")) or isinstance(error, EOFError):
        return "truncated: the file ends before the picture does"
    return f"damaged: {text[0][:200] if text else type(error).__name__}"


def _turn(picture: Picture) -> PIL.Image.Transpose | None:
    """How to set the picture upright, by its EXIF orientation; damaged EXIF must not cost the picture."""
    try:
        return _TURNS.get(picture.getexif().get(0x0112, 1))
    except Exception:
        return None


def _shrink(picture: Picture, size: tuple[int, int]) -> Picture:
    """RGB of the given size. Shrinks before it converts colors, where the mode allows, to hold less memory."""
    if picture.mode in ("F", "I") or picture.mode.startswith("I;"):
        picture = _eight_bit(picture)
    elif picture.mode in ("P", "PA", "LA", "La", "RGBa") or picture.info.get("transparency") is not None:
        picture.load()
        picture = picture.convert("RGBA")
    elif picture.mode in ("1", "HSV", "YCbCr"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    else:
        picture.load()
    if picture.size != size:
        picture = picture.resize(size, PIL.Image.Resampling.BICUBIC, reducing_gap=3.0)
    if picture.mode == "RGBA":
        white = PIL.Image.new("RGBA", size, "white")
        picture = PIL.Image.alpha_composite(white, picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _eight_bit(picture: Picture) -> Picture:
    """Gray of more than 8 bit, scaled: 16 bit by its full range; float and 32 bit by the range they use.

    Pillow's own conversion clips at 255, which turns such pictures white.
    """
    values = np.asarray(picture)
    known = values[np.isfinite(values)] if picture.mode == "F" else values
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if picture.mode.startswith("I;") or (picture.mode == "I" and low >= 0 and 255 < high <= 65535):
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 1 and picture.mode == "F":
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scaled = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), 256):  # in strips: the whole picture as floats would take four times its memory
        strip = values[row : row + 256].astype(np.float32)
        strip = np.nan_to_num(strip, nan=low, posinf=high, neginf=low)
        scaled[row : row + 256] = (strip - low) / ((high - low) or 1.0) * 255 + 0.5
    return PIL.Image.fromarray(scaled)


def encode_jpeg(picture: Picture, *, quality: int) -> bytes:
    """JPEG without color subsampling: small red-on-black detail decides interests such as suit."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


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
        self._root = root
        self._images = {image.id: image for image in images}
        self._thumbnail_bytes = thumbnail_bytes

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
                with _open_regular(self._root / path) as file:
                    found_id, source = _identify(file)
                    # A file that changed since is another image; an answer about it must not be stored under this one.
                    if found_id == image_id:
                        return encode_jpeg(decode(source, longest_side_px)[0], quality=quality)
            except OSError:
                continue
        raise ImageUnreadable(f"{printable(image.paths[0])} was moved or changed during the run", "run again")
