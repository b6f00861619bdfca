"""What opens which kind of file: Pillow, a raw file's own preview, or a library of an extra.

In: bytes of a file. Out: a Pillow picture of which only the header was read where the format allows it, or
`ImageUnreadable` with what would help. Promises: the content decides, never the name; only libraries that take a stream
and start no program are used; every search through a file ends.
"""

from __future__ import annotations

import importlib
import io
import struct
import threading
import warnings
import zlib
from collections import Counter
from typing import BinaryIO

import PIL.Image
from PIL.Image import Image as Picture

from manylens.errors import ImageUnreadable

_READABLE = (
    "jpg jpeg jpe jfif mpo png apng gif webp bmp dib tif tiff ppm pgm pbm pnm avif jp2 j2k j2c jpf jpx ico heic heif "
    "hif jxl"
)

_RAW = "cr2 cr3 nef nrw arw sr2 dng raf orf rw2 pef srw 3fr iiq rwl dcr kdc erf mef fff gpr"
RAW_SUFFIXES = frozenset(f".{name}" for name in _RAW.split())

VIDEO_SUFFIXES = frozenset(f".{name}" for name in ["mov", "mp4", "m4v", "avi", "mkv", "webm", "mts", "m2ts", "3gp"])

_REPORTED = "svg svgz psd psb pdf tga"  # a person calls them pictures: say so where they cannot be read
IMAGE_SUFFIXES = VIDEO_SUFFIXES | RAW_SUFFIXES | {f".{name}" for name in f"{_READABLE} {_REPORTED}".split()}
"""Files with these names are read, or reported with the reason."""

_OTHERS = "ai eps xcf kra exr hdr dcm fits djvu pcx sgi dds qoi icns wmf emf jxr wdp x3f mrw"
NAMED_SUFFIXES = IMAGE_SUFFIXES | {f".{name}" for name in _OTHERS.split()}
"""And with these, of which most words of a text that end so are none (open.ai)."""

_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
"""What Pillow may try (JPEG includes MPO). Others start programs (EPS), or take almost any bytes for a picture."""

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  \r\n\x87\n")
_RAW_MAGIC = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_JXL = b"\0\0\0\x0cJXL \r\n\x87\n"
_VIDEO = (b"qt  ", b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"M4V ", b"3gp4", b"3gp5")

MAX_PIXELS = 89_000_000
"""Larger pictures are refused from their header. Just under Pillow's own limit, above which it warns at every turn; the
largest that passes takes 0.8 GB while it is decoded (RGBA), one such picture at a time."""

SMALLEST_PREVIEW_PX = 256
"""Longest side of a raw file's preview from which on it stands for the picture: as large as what is kept of any."""

LONGEST_VIDEO_S = 300
"""One frame stands for a clip from a phone; for a film it does not."""

_MOST_VIDEO_FRAMES = 100
"""Decoded after the last whole frame before the middle, until there: on most clips all, and a second's work."""

_MOST_PREVIEW_BYTES = 64 << 20
_MOST_MARKERS = 20_000
_MOST_PNG_BYTES = 512 << 20

_one_header = threading.Lock()


def looks_like_image(head: bytes) -> bool:
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in (b"avif", b"avis", b"crx ", *_HEIF)
    if head[:2] == b"BM":
        return len(head) > 26 and head[6:10] == b"\0\0\0\0"
    return head.startswith((*_MAGIC, *_RAW_MAGIC, _JXL))


def open_picture(source: BinaryIO) -> tuple[Picture, int]:
    """The picture that the bytes hold, not decoded yet, and the EXIF orientation that is said outside of it.

    Raises ImageUnreadable where it is known what would help, or what Pillow raises.
    """
    source.seek(0)
    head = source.read(64)
    source.seek(0)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF and not (b"avif" in head[16:] and b"heic" not in head[16:]):
        try:
            # Opened directly: registering it would change what Pillow does in all of a person's program.
            return importlib.import_module("pillow_heif.as_plugin").HeifImageFile(source), 1
        except ImportError as error:  # taken out for its license, or built for no such system
            raise ImageUnreadable("HEIC (pip install pillow-heif, or convert it to JPEG)") from error
    if head.startswith(_JXL) or head[:2] == b"\xff\x0a":
        return _open_jxl(source), 1
    if demuxer := _video_demuxer(head):
        return _open_video(source, demuxer)
    if head.startswith(_RAW_MAGIC) or head[4:12] == b"ftypcrx " or _is_raw_tiff(source):
        return _open_raw(source)
    # Pillow would warn on standard error of what `decode` refuses. Filters are the process's, hence the lock.
    with _one_header, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PIL.Image.init()
        # Naming a format that this Pillow was built without would fail every picture.
        return PIL.Image.open(source, formats=[name for name in _FORMATS if name in PIL.Image.OPEN]), 1


def cure(source: BinaryIO) -> str:
    """Why nothing here opens the file, and what would, as the rest of "not a picture that can be read"; or nothing."""
    source.seek(0)
    head = source.read(1024)
    for signs, words in _CURES:
        if head.startswith(signs):
            return f": {words}"
    if b"<svg" in head or head[:2] == b"\x1f\x8b":
        return ": a drawing in SVG (export it as PNG: rsvg-convert FILE -o PICTURE.png)"
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return ": a web page, saved in the place of a picture (fetch it again)"
    if head[128:132] == b"DICM":
        return ": a DICOM image (convert it to PNG: dcmj2pnm)"
    if source.seek(0, io.SEEK_END) > 64:
        source.seek(-18, io.SEEK_END)
        if source.read(16) == b"TRUEVISION-XFILE":
            return ": a Targa image (convert it to PNG)"
    return ""


_CURES: tuple[tuple[bytes | tuple[bytes, ...], str], ...] = (
    (b"%PDF", "a PDF (save its pages as pictures: pdftoppm -png FILE PAGE)"),
    (b"8BPS", "a Photoshop document (export it as PNG or JPEG)"),
    (b"gimp xcf", "a GIMP document (export it as PNG or JPEG)"),
    (
        (b"%!PS", b"\xc5\xd0\xd3\xc6"),
        "a drawing in PostScript (convert it to PNG: gs -sDEVICE=png16m -o PICTURE.png FILE)",
    ),
    ((b"\x76\x2f\x31\x01", b"#?RADIANCE", b"#?RGBE"), "a picture of high dynamic range (export it as PNG or JPEG)"),
    (b"SIMPLE  =", "a FITS image (export it as PNG or TIFF)"),
    ((b"FOVb", b"\0MRM"), "a raw file of a kind that is not read (convert it to JPEG)"),
    ((b"II\xbc\x01", b"AT&TFORM", b"DDS ", b"qoif", b"icns", b"\xd7\xcd\xc6\x9a"), "convert it to PNG or JPEG"),
    ((b"II*\0", b"MM\0*"), "a TIFF or raw file without a picture that is known here (convert it to JPEG)"),
    (b"version https://git-lfs", "a Git LFS pointer in the place of the file (git lfs pull)"),
    ((b"\x89PNG\n", b"\x89PNG\r\r\n"), "a PNG whose line ends were changed on its way (copy it again, as binary)"),
)
"""How files begin, and what would help."""


def too_small_for_raw(width: int, height: int) -> str:
    """Why a raw file's picture of this size does not stand for it, or nothing."""
    if max(width, height) >= SMALLEST_PREVIEW_PX:
        return ""
    return f"a raw file that can only be read as a preview of {width} x {height} pixels (convert it to JPEG or TIFF)"


def _open_jxl(source: BinaryIO) -> Picture:
    try:
        plugin = importlib.import_module("pillow_jxl.JpegXLImagePlugin")
    except ImportError as error:
        raise ImageUnreadable("JPEG XL (pip install 'manylens[jxl]', or convert it to JPEG)") from error
    width, height = jxl_size(source.read(1 << 16))
    if width * height > MAX_PIXELS:
        # The library decodes while it opens, so the size must be known before.
        raise PIL.Image.DecompressionBombError(f"({width * height} pixels)")
    source.seek(0)
    try:
        picture: Picture = plugin.JXLImageFile(source)
    except Exception as error:
        raise ImageUnreadable("damaged: JPEG XL that its library cannot read") from error
    return picture


def jxl_size(head: bytes) -> tuple[int, int]:
    """Width and height by the size header of JPEG XL (ISO 18181-1). Raises ValueError where there is none."""
    if head.startswith(_JXL):
        at = min((i for i in (head.find(b"jxlc\xff\x0a"), head.find(b"jxlp")) if i >= 0), default=-1)
        head = head[head.find(b"\xff\x0a", at) :] if at >= 0 else b""
    if head[:2] != b"\xff\x0a" or len(head) < 12:
        raise ValueError("no size in the header")
    bits, at = int.from_bytes(head[2:12], "little"), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return bits >> (at - count) & ((1 << count) - 1)

    small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    if ratio == 0:
        return side(), height
    over, under = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * over // under, height


# Videos --------------------------------------------------------------------------------------------------------------


def _video_demuxer(head: bytes) -> str:
    """What FFmpeg calls the kind of file; empty for what is none of these. Its own search is not asked: among the kinds
    that it knows are lists of other files and addresses."""
    if head[4:8] in (b"moov", b"mdat", b"wide") or (head[4:8] == b"ftyp" and head[8:12] in _VIDEO):
        return "mov"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    return "avi" if head[:4] == b"RIFF" and head[8:12] == b"AVI " else ""


def _open_video(source: BinaryIO, demuxer: str) -> tuple[Picture, int]:
    """The frame in the middle, whose `info` says of how many ("frames"), and how to set it upright."""
    cure = "save a frame as a picture: ffmpeg -ss 1 -i FILE -frames:v 1 PICTURE.jpg"
    try:
        av = importlib.import_module("av")
    except ImportError as error:
        raise ImageUnreadable(f"a video (pip install 'manylens[video]' for short ones, or {cure})") from error
    try:
        with av.open(source, format=demuxer, metadata_errors="ignore") as container:
            stream = next((each for each in container.streams.video if each.codec_context is not None), None)
            if stream is None:
                raise ImageUnreadable("a video file without a picture track, or damaged")
            seconds = (container.duration or 0) / av.time_base
            if seconds > LONGEST_VIDEO_S:
                raise ImageUnreadable(
                    f"a video of {seconds / 60:,.0f} minutes, for which one frame does not stand ({cure})"
                )
            if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
                raise PIL.Image.DecompressionBombError(
                    f"({stream.codec_context.width * stream.codec_context.height} pixels)"
                )
            middle = (container.start_time or 0) / av.time_base + seconds / 2
            if seconds:
                container.seek(int(middle * av.time_base))
            frame = None
            for count, frame in enumerate(container.decode(stream), start=1):
                if frame.time is None or frame.time >= middle or count >= _MOST_VIDEO_FRAMES:
                    break
            if frame is None:
                raise ImageUnreadable(f"a video of which no frame can be read ({cure})")
            picture: Picture = frame.to_image()
            picture.info["frames"] = max(2, stream.frames or round(seconds * float(stream.average_rate or 1)))
            return picture, {90: 8, -90: 6, 270: 6, 180: 3, -180: 3}.get(getattr(frame, "rotation", 0), 1)
    except (ImageUnreadable, PIL.Image.DecompressionBombError, MemoryError):
        raise
    except Exception as error:  # FFmpeg's own, of kinds that only PyAV has
        raise ImageUnreadable(f"a video that cannot be read ({cure})") from error


# Raw files -----------------------------------------------------------------------------------------------------------


def _open_raw(source: BinaryIO) -> tuple[Picture, int]:
    preview, found = largest_jpeg(source), "no preview"
    if preview is not None:
        picture = PIL.Image.open(preview, formats=["JPEG"])
        if max(picture.size) >= SMALLEST_PREVIEW_PX:
            return picture, _raw_orientation(source)
        found = f"a preview of {picture.width} x {picture.height} pixels alone"
    source.seek(0)
    try:
        rawpy = importlib.import_module("rawpy")
        with rawpy.imread(source) as raw:
            pixels = raw.sizes.raw_width * raw.sizes.raw_height
            if pixels > MAX_PIXELS:
                raise PIL.Image.DecompressionBombError(f"({pixels} pixels)")
            return PIL.Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True)), 1
    except ImportError as error:
        raise ImageUnreadable(
            f"a raw file with {found} in it (pip install 'manylens[raw]', or convert it to JPEG)"
        ) from error
    except (PIL.Image.DecompressionBombError, MemoryError):
        raise
    except Exception as error:  # LibRaw's own, of a kind that only rawpy has
        raise ImageUnreadable(
            f"a raw file with {found} in it, whose data cannot be read (convert it to JPEG)"
        ) from error


def largest_jpeg(source: BinaryIO) -> BinaryIO | None:
    """The largest JPEG inside of another file, by its own header, wherever the file's maker put it.

    Where it stands differs by maker and model, often in notes that are nowhere described; its first bytes do not. Sizes
    that occur more than twice are tiles of the picture, not previews of it.
    """
    found: list[tuple[int, int, tuple[int, int]]] = []
    markers, start, kept = 0, 0, b""
    source.seek(0)
    while (block := source.read(8 << 20)) and markers < _MOST_MARKERS:
        block, base = kept + block, start - len(kept)
        start = base + len(block)
        at = block.find(b"\xff\xd8\xff")
        while at >= 0 and markers < _MOST_MARKERS:
            markers += 1
            size = _jpeg_size(source, base + at, block[at : at + 4])
            if size is not None:
                found.append((size[0] * size[1], base + at, size))
            at = block.find(b"\xff\xd8\xff", at + 1)
        source.seek(start)
        kept = block[-3:] if len(block) > 3 else b""
    times = Counter(size for _, _, size in found)
    whole = [one for one in found if times[one[2]] <= 2]
    if not whole:
        return None
    _, offset, _ = max(whole, key=lambda one: (one[0], -one[1]))
    source.seek(offset)
    return io.BytesIO(source.read(_MOST_PREVIEW_BYTES))


def _jpeg_size(source: BinaryIO, offset: int, first: bytes) -> tuple[int, int] | None:
    """Width and height of the JPEG at the offset; None where there is none of 8 bit that Pillow decodes."""
    if len(first) < 4 or first[3] not in b"\xc0\xc1\xc2\xc4\xdb\xdd\xe0\xe1\xe2\xed\xee\xfe":
        return None
    at = offset + 2
    for _ in range(64):
        source.seek(at)
        segment = source.read(9)
        if len(segment) < 9 or segment[0] != 0xFF:
            return None
        kind, length = segment[1], int.from_bytes(segment[2:4], "big")
        if kind in (0xC0, 0xC1, 0xC2):
            height, width = struct.unpack(">HH", segment[5:9])
            return (width, height) if segment[4] == 8 and width and height else None
        if kind in (0xC3, 0xD9, 0xDA) or length < 2:  # C3: lossless, the raw data themselves
            return None
        at += 2 + length
    return None


def _first_directory(data: bytes) -> dict[int, int]:
    """Tag -> value of a TIFF's first directory, of the short and long values alone."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return {}
    (at,) = struct.unpack(f"{order}I", data[4:8])
    if at + 2 > len(data):
        return {}
    (count,) = struct.unpack(f"{order}H", data[at : at + 2])
    tags: dict[int, int] = {}
    for entry in range(at + 2, min(at + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, _ = struct.unpack(f"{order}HHI", data[entry : entry + 8])
        form = {1: "B", 3: "H", 4: "I"}.get(kind)
        if form is not None:
            (tags[tag],) = struct.unpack_from(f"{order}{form}", data, entry + 8)
    return tags


def _is_raw_tiff(source: BinaryIO) -> bool:
    """Whether a TIFF holds a sensor's data: what it shows first is then a small preview."""
    head = source.read(1 << 16)
    source.seek(0)
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return False
    tags = _first_directory(head)
    is_reduced = tags.get(254, 0) & 1 == 1 and 330 in tags  # NewSubfileType, SubIFDs
    # DNGVersion; compressions of Sony, Nikon and Pentax; a color filter array.
    return (
        head[8:10] == b"CR" or 50706 in tags or is_reduced or tags.get(259) in (32767, 34713, 65535)
        or tags.get(262) in (32803, 34892)
    )  # fmt: skip


def _raw_orientation(source: BinaryIO) -> int:
    source.seek(0)
    head = source.read(1 << 16)
    if head[4:12] == b"ftypcrx ":
        at = head.find(b"CMT1")
        head = head[at + 4 :] if at >= 0 else b""
    return _first_directory(head).get(0x0112, 1)


# Files with a fault beside the picture -------------------------------------------------------------------------------

_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def without_side_chunks(source: BinaryIO) -> BinaryIO | None:
    """A PNG's picture alone: no text, profile or other chunk whose size or checksum could be refused. None: no PNG."""
    source.seek(0)
    magic = source.read(8)
    if magic != _MAGIC[1]:
        return None
    parts, total = [magic], 8
    while len(head := source.read(8)) == 8 and total < _MOST_PNG_BYTES:
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        if name in _PNG_KEPT:
            body = source.read(length + 4)
            parts += [head, body]
            total += len(body) + 8
        elif name == b"eXIf" and length <= 1 << 16:  # which way is up
            data = source.read(length + 4)[:length]
            parts += [head[:4], name, data, struct.pack(">I", zlib.crc32(name + data))]
        else:
            source.seek(length + 4, io.SEEK_CUR)
        if name == b"IEND":
            break
    return io.BytesIO(b"".join(parts))


def with_its_end(source: BinaryIO) -> BinaryIO | None:
    """A JPEG with the mark that ends it, after which decoders fill what is missing. None: no JPEG, or very large."""
    source.seek(0)
    data = source.read(_MOST_PREVIEW_BYTES + 1)
    if not data.startswith(_MAGIC[0]) or len(data) > _MOST_PREVIEW_BYTES:
        return None
    return io.BytesIO(data + b"\xff\xd9")
