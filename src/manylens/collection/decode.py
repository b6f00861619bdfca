"""Decode pictures safely and shrink them once.

In: bytes of a file. Out: RGB as a person sees it, or `ImageUnreadable` with the reason. Promise: a picture whose header
asks for too much is refused before it is decoded; a damaged one costs an error, never the process.
"""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import PIL.ImageFile
from PIL.Image import Image as Picture

from manylens.errors import ImageUnreadable
from manylens.text import printable

THUMBNAIL_PX = 256
"""Longest side of the thumbnail that each image is decoded to, once."""

MAX_PIXELS = 89_000_000
"""Larger pictures are refused from their header. Just under Pillow's own limit, above which it warns at every turn; the
largest that passes takes 0.8 GB while it is decoded (RGBA), one such picture at a time."""

_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
"""What Pillow may try (JPEG includes MPO). Others start programs (EPS), or take almost any bytes for a picture."""

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
