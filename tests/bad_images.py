"""A folder with every kind of bad or odd file that a collection may hold, and what must become of each."""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL.Image
from PIL.Image import Image as Picture


@dataclass
class BadFolder:
    """readable: path -> (RGB at the centre or None where it does not matter, (width, height) as seen).
    unreadable: path -> a part of the reason. skipped: files that are no images. duplicates: paths of equal bytes."""

    root: Path
    readable: dict[str, tuple[tuple[int, int, int] | None, tuple[int, int]]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    duplicates: tuple[str, str] = ("", "")

    @property
    def files_found(self) -> int:
        return len(self.readable) + len(self.unreadable)


def picture(color: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> Picture:
    return PIL.Image.new("RGB", size, color)


def textured(seed: int, size: tuple[int, int] = (320, 240)) -> Picture:
    """A picture whose JPEG is long enough to be cut in the middle."""
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def png_bomb(path: Path, side: int = 20_000) -> None:
    """A valid 1-bit PNG of side x side black pixels in some 50 kB, written without ever holding it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(1)
    rows = bytes(1 + (side + 7) // 8) * 100
    body = b"".join(packer.compress(rows) for _ in range(side // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def make_bad_images(root: Path) -> BadFolder:
    """Fill `root` (made where missing). Names that the file system refuses are left out."""
    root.mkdir(parents=True, exist_ok=True)
    made = BadFolder(root)
    _odd_but_readable(made)
    _unreadable(made)
    _names(made)
    _links(made)
    return made


def _odd_but_readable(made: BadFolder) -> None:
    root, readable = made.root, made.readable
    red, blue = (220, 30, 30), (30, 30, 220)
    picture(red).save(root / "plain.png")
    readable["plain.png"] = (red, (40, 30))
    picture(blue, (1, 1)).save(root / "one_pixel.png")
    readable["one_pixel.png"] = (blue, (1, 1))
    PIL.Image.new("CMYK", (40, 30), (0, 255, 255, 0)).save(root / "cmyk.jpg", quality=95)
    readable["cmyk.jpg"] = ((255, 0, 0), (40, 30))
    PIL.Image.fromarray(np.full((30, 40), 32768, np.uint16)).save(root / "gray16.png")
    readable["gray16.png"] = ((128, 128, 128), (40, 30))
    PIL.Image.fromarray(np.full((30, 40), 16384, np.uint16)).save(root / "gray16.tif")
    readable["gray16.tif"] = ((64, 64, 64), (40, 30))
    PIL.Image.fromarray(np.full((30, 40), 0.5, np.float32)).save(root / "float.tif")
    readable["float.tif"] = ((128, 128, 128), (40, 30))
    palette = picture(red).convert("P")
    palette.save(root / "palette_clear.png", transparency=palette.getpixel((0, 0)))
    readable["palette_clear.png"] = ((255, 255, 255), (40, 30))
    PIL.Image.new("RGBA", (40, 30), (0, 0, 0, 0)).save(root / "clear.png")
    readable["clear.png"] = ((255, 255, 255), (40, 30))
    PIL.Image.new("LA", (40, 30), (0, 128)).save(root / "gray_half_clear.png")
    readable["gray_half_clear.png"] = ((127, 127, 127), (40, 30))
    for suffix in ("gif", "webp"):
        frames = [picture(blue), picture(red)]
        frames[0].save(root / f"animated.{suffix}", save_all=True, append_images=frames[1:], duration=100)
        readable[f"animated.{suffix}"] = (red, (40, 30))  # the frame in the middle
    rotated = picture(red)
    exif = rotated.getexif()
    exif[0x0112] = 6
    rotated.save(root / "rotated.jpg", exif=exif, quality=95)
    readable["rotated.jpg"] = (red, (30, 40))
    picture(red, (41, 30)).save(root / "png_inside.jpg", "PNG")
    readable["png_inside.jpg"] = (red, (41, 30))
    picture(blue, (42, 30)).save(root / "jpeg_inside.data", "JPEG", quality=95)
    readable["jpeg_inside.data"] = (blue, (42, 30))
    textured(1, (1000, 10)).save(root / "wide.png")
    readable["wide.png"] = (None, (1000, 10))
    textured(2).save(root / "twin_a.jpg")
    (root / "sub").mkdir(exist_ok=True)
    (root / "sub" / "twin_b.jpg").write_bytes((root / "twin_a.jpg").read_bytes())
    readable["twin_a.jpg"] = readable["sub/twin_b.jpg"] = (None, (320, 240))
    made.duplicates = ("sub/twin_b.jpg", "twin_a.jpg")


def _unreadable(made: BadFolder) -> None:
    root, unreadable = made.root, made.unreadable
    buffer = io.BytesIO()
    textured(3).save(buffer, "JPEG")
    (root / "truncated.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    unreadable["truncated.jpg"] = "truncated"
    (root / "empty.jpg").write_bytes(b"")
    unreadable["empty.jpg"] = "zero bytes"
    (root / "not_a_picture.png").write_text("<script>alert('no picture')</script>")
    unreadable["not_a_picture.png"] = "not a picture"
    png_bomb(root / "bomb.png")
    unreadable["bomb.png"] = "limit is 89 megapixels"
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "pipe.jpg")
        unreadable["pipe.jpg"] = "not a regular file"
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        picture((1, 2, 3)).save(root / "locked.png")
        os.chmod(root / "locked.png", 0)
        unreadable["locked.png"] = "no permission"
    (root / "notes.txt").write_text("not an image, and does not claim to be one")
    (root / "labels.csv").write_text("file,color\nplain.png,red\n")
    picture((9, 9, 9)).save(root / ".hidden.png")
    made.skipped += ["notes.txt", "labels.csv", ".hidden.png"]
    (root / "folder.jpg").mkdir(exist_ok=True)


def _names(made: BadFolder) -> None:
    root = made.root
    names = [
        "new\nline.png",
        'quote\'s "double" & <b>.png',
        "emoji 🃏.png",
        "مرحبا.png",
        "=1+1,comma;.png",
        os.fsdecode(b"no utf-8 \xff.png"),
    ]
    for i, name in enumerate(names):
        color = (10 * i, 200, 100)
        try:
            picture(color, (43, 30)).save(root / "tmp.png")
            os.replace(root / "tmp.png", root / name)
        except OSError:
            (root / "tmp.png").unlink()
            continue
        made.readable[name] = (color, (43, 30))


def _links(made: BadFolder) -> None:
    root = made.root
    try:
        (root / "sub" / "loop").symlink_to(root, target_is_directory=True)
    except OSError:
        return
    made.unreadable["sub/loop"] = "symbolic link loop"
    (root / "self.png").symlink_to(root / "self.png")
    made.unreadable["self.png"] = "symbolic link loop"
    (root / "broken.png").symlink_to(root / "gone.png")
    made.unreadable["broken.png"] = "broken symbolic link"
