"""Decode pictures safely and shrink them once.

In: bytes of a file. Out: RGB as a person sees it, or `ImageUnreadable` with the reason. Promise: a picture whose header
asks for too much is refused before it is decoded; a damaged one costs an error, never the process.
"""

from __future__ import annotations

import io
import os
import re
import threading
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import PIL.ImageFile
from PIL.Image import Image as Picture

from manylens.collection.formats import MAX_PIXELS, cure, open_picture, with_its_end, without_side_chunks
from manylens.errors import ImageUnreadable, UsageError
from manylens.files import check_resources
from manylens.text import printable

THUMBNAIL_PX = 256
"""Longest side of the thumbnail that each image is decoded to, once."""

_LARGE_PIXELS = 16_000_000

_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
"""Formats whose frames follow each other in time; those of others are pages, or views."""

_MOST_FRAMES = 100

_MOST_MISSING = 0.1
"""Share of a JPEG's rows that may be missing at its end."""

_one_large_picture = threading.Lock()

_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


def decode(source: BinaryIO, longest_side_px: int) -> tuple[Picture, tuple[int, int]]:
    """The picture as a person sees it: RGB, 8 bit, upright, on white, shrunk to fit; and its full (width, height).

    A short video's or an animation's middle frame, whose `info` says of how many ("frames"); a raw file's largest
    preview. What Pillow refuses for a fault beside the picture is tried once more without it. Raises ImageUnreadable
    with the reason. Never enlarges.
    """
    try:
        try:
            return _decode(source, longest_side_px)
        except (ImageUnreadable, PIL.Image.DecompressionBombError, MemoryError):
            raise
        except Exception as error:  # Pillow's decoders raise most kinds of errors on damaged files
            if isinstance(error, OSError):  # also of its plugins, which it imports as it goes
                check_resources(error)
            if (bare := without_side_chunks(source)) is not None:
                return _decode(bare, longest_side_px)
            if (whole := with_its_end(source)) is not None:
                shrunk, _ = _decode(whole, longest_side_px, upright=False)
                if _flat_below(shrunk) <= _MOST_MISSING:
                    whole.seek(0)
                    return _decode(whole, longest_side_px)
            raise
    except (ImageUnreadable, UsageError):
        raise
    except PIL.Image.DecompressionBombError as error:
        pixels = re.search(r"\((\d+) pixels\)", str(error))
        raise _too_large(f"{int(pixels[1]):,} pixels" if pixels else "too many pixels") from error
    except MemoryError as error:
        raise ImageUnreadable("not enough memory to decode it") from error
    except Exception as error:
        raise ImageUnreadable(_why(error, source)) from error


def _decode(source: BinaryIO, longest_side_px: int, upright: bool = True) -> tuple[Picture, tuple[int, int]]:
    picture, orientation = open_picture(source)
    with picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise _too_large(f"{width:,} x {height:,} pixels")
        if width < 1 or height < 1:
            raise ImageUnreadable(f"an image has at least one pixel, got {width} x {height}")
        frames = getattr(picture, "n_frames", 1) if picture.format in _ANIMATED else picture.info.get("frames", 1)
        if picture.format in _ANIMATED and frames > 1 and width * height <= _LARGE_PIXELS:
            picture = _middle_frame(picture, source, frames)
        scale = min(1.0, longest_side_px / max(width, height))
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        # Decode a JPEG at a half to an eighth, or a HEIC's thumbnail; twice the wanted size keeps the quality.
        picture.draft(None, (2 * small[0], 2 * small[1]))
        if picture.size[0] * picture.size[1] > _LARGE_PIXELS:
            with _one_large_picture:
                shrunk = _shrink(picture, small)
        else:
            shrunk = _shrink(picture, small)
        # After it was loaded: Pillow sets a TIFF upright itself, and forgets the orientation.
        turn = _turn(picture, orientation) if upright else None
    if turn is not None:
        shrunk = shrunk.transpose(turn)
        if turn in (_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8]):
            width, height = height, width
    if frames > 1:
        shrunk.info["frames"] = frames
    return shrunk, (width, height)


def _middle_frame(picture: Picture, source: BinaryIO, frames: int) -> Picture:
    """The first frame is often empty. A fault in a later one must not cost the picture."""
    try:
        picture.seek(min(frames // 2, _MOST_FRAMES))
        picture.load()
        return picture
    except Exception:
        return open_picture(source)[0]


def _flat_below(picture: Picture) -> float:
    """The share of rows at the bottom that no detail varies: what a decoder fills in where a JPEG's data end."""
    rows = np.asarray(picture.convert("L"), dtype=np.int16)
    detailed = np.flatnonzero(np.ptp(rows, axis=1) > 2)
    return 1.0 if not detailed.size else (len(rows) - 1 - int(detailed[-1])) / len(rows)


def _too_large(size: str) -> ImageUnreadable:
    return ImageUnreadable(f"too large to decode safely: {size}, the limit is {MAX_PIXELS // 1_000_000} megapixels")


def _why(error: Exception, source: BinaryIO) -> str:
    size = source.seek(0, os.SEEK_END)
    if size == 0:
        return "empty file (zero bytes)"
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"not a picture that can be read{cure(source)}"
    text = printable(str(error)).splitlines()
    lower = text[0].lower() if text else ""
    if any(word in lower for word in ("truncated", "unexpected end", "not enough")) or isinstance(error, EOFError):
        return "truncated: the file ends before the picture does"
    return f"damaged: {text[0][:200] if text else type(error).__name__}"


def _turn(picture: Picture, otherwise: int = 1) -> PIL.Image.Transpose | None:
    """How to set the picture upright, by its EXIF orientation; damaged EXIF must not cost the picture."""
    try:
        return _TURNS.get(picture.getexif().get(0x0112, otherwise))
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


def encode_jpeg(picture: Picture, *, quality: int, **how: Any) -> bytes:
    """The pixels as JPEG, and nothing else of the file: Pillow carries comments and profiles over by itself.

    how: further options of Pillow's; without any, no color subsampling, for small red-on-black detail decides interests
    such as suit.
    """
    clean = picture.copy()
    clean.info = {}
    buffer = io.BytesIO()
    clean.save(buffer, "JPEG", quality=quality, **(how or {"subsampling": 0}))
    return buffer.getvalue()
