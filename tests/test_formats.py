"""formats: every file is somewhere with its reason; what a fault beside a picture breaks is read without it.

Files are made by the formats' own libraries; raw files, which no library writes, by hand around real JPEGs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pillow_heif
import pytest
from bad_images import picture, textured

import manylens
from manylens.cli import main
from manylens.collection import formats
from manylens.collection.decode import decode
from manylens.collection.find import find_images
from manylens.errors import ImageUnreadable, UsageError
from manylens.models.scripted import ScriptedModel

RED, BLUE = (220, 30, 30), (30, 30, 220)


def jpeg(color: tuple[int, int, int], size: tuple[int, int], **how: object) -> bytes:
    buffer = io.BytesIO()
    picture(color, size).save(buffer, "JPEG", quality=95, **how)
    return buffer.getvalue()


def color_of(data: bytes) -> tuple[int, ...]:
    shrunk, _ = decode(io.BytesIO(data), 256)
    return tuple(np.asarray(shrunk)[shrunk.height // 2, shrunk.width // 2].tolist())


def is_red(data: bytes) -> bool:
    return bool(np.abs(np.subtract(color_of(data), RED)).max() < 12)


def heic(color: tuple[int, int, int], size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture(color, size)).save(buffer, quality=95)
    return buffer.getvalue()


def directory(tags: dict[int, tuple[int, int]], order: str = "<") -> bytes:
    """A TIFF's header and first directory of short (3) and long (4) values."""
    body = struct.pack(f"{order}H", len(tags))
    for tag, (kind, value) in sorted(tags.items()):
        cell = struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value)
        body += struct.pack(f"{order}HHI", tag, kind, 1) + cell
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8) + body + bytes(4)


SENSOR = np.random.default_rng(7).integers(0, 255, 40_000, np.uint8).tobytes()
ROTATED = {254: (4, 1), 330: (4, 9999), 274: (3, 6)}
RAW = {
    "a.nef": directory(ROTATED, ">"),
    "a.arw": directory(ROTATED),
    "a.dng": directory({50706: (4, 0x00000401), 274: (3, 6)}),
    "a.cr2": b"II*\0\x10\0\0\0CR\2\0\0\0\0\0" + directory({274: (3, 6)})[8:],
    "a.orf": b"IIRO" + directory({274: (3, 6)})[4:],
    "a.rw2": b"IIU\0" + directory({274: (3, 6)})[4:],
    "a.pef": directory({259: (3, 65535), 274: (3, 6)}, ">"),
    "a.cr3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + b"\0\0\0\x40CMT1" + directory({274: (3, 6)}),
}


@pytest.mark.parametrize("name", sorted(RAW))
def test_a_raw_file_is_read_by_its_largest_preview_upright(name: str) -> None:
    data = RAW[name] + jpeg(BLUE, (160, 120)) + SENSOR + jpeg(RED, (640, 480)) + SENSOR + jpeg(BLUE, (320, 240))
    shrunk, size = decode(io.BytesIO(data), 256)
    assert size == (480, 640)
    assert shrunk.size == (192, 256)
    assert is_red(data)


def test_a_previews_own_orientation_goes_before_the_raw_files() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 1
    assert decode(io.BytesIO(RAW["a.arw"] + jpeg(RED, (640, 480), exif=exif)), 256)[1] == (640, 480)


def test_tiles_of_a_picture_are_not_taken_for_its_preview() -> None:
    """A lossy DNG keeps its picture in JPEGs of one size, each a part of it."""
    data = RAW["a.dng"] + jpeg(BLUE, (512, 512)) * 4 + jpeg(RED, (320, 240))
    assert is_red(data)


def test_a_preview_across_the_borders_of_blocks_is_found() -> None:
    block = 8 << 20
    for before in (1, 2, 3):
        data = RAW["a.arw"].ljust(block - before, b"\0") + jpeg(RED, (640, 480))
        assert is_red(data)


def test_a_raw_file_without_a_preview_names_the_cure() -> None:
    with pytest.raises(ImageUnreadable, match=r"raw file with no preview.*convert it to JPEG"):
        decode(io.BytesIO(RAW["a.arw"] + SENSOR), 256)


def test_a_tiny_picture_in_a_raw_files_name_is_reported_not_sorted(tmp_path: Path) -> None:
    picture(RED, (16, 12)).save(tmp_path / "a.dng", "TIFF")
    picture(RED, (16, 13)).save(tmp_path / "b.tif", "TIFF")
    collection = find_images(tmp_path)
    assert [image.paths for image in collection.images] == [("b.tif",)]
    assert "preview of 16 x 12 pixels" in collection.unreadable[0].reason


def test_heic_is_read_by_its_content_and_changes_nothing_in_pillow(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(heic(RED))
    (tmp_path / "IMG_2.JPG").write_bytes(heic(BLUE))
    (tmp_path / "no_suffix").write_bytes(heic((9, 99, 9)))
    collection = find_images(tmp_path)
    assert (len(collection.images), collection.unreadable) == (3, ())
    assert is_red((tmp_path / "IMG_1.HEIC").read_bytes())
    assert "HEIF" not in PIL.Image.OPEN


def test_jpeg_xl_is_read_where_its_library_is() -> None:
    pytest.importorskip("pillow_jxl")
    for size in ((64, 48), (100, 37), (1234, 5), (300, 300), (320, 180)):
        buffer = io.BytesIO()
        picture(RED, size).save(buffer, "JXL")
        assert formats.jxl_size(buffer.getvalue()) == size
        assert decode(buffer, 256)[1] == size
        assert is_red(buffer.getvalue())


def test_a_jpeg_xl_bomb_is_refused_from_its_header() -> None:
    pytest.importorskip("pillow_jxl")
    bits = 0 | 3 << 1 | (200_000 - 1) << 3 | 1 << 33  # large, 30 bits, height, as wide as high
    with pytest.raises(ImageUnreadable, match="limit is 89 megapixels"):
        decode(io.BytesIO(b"\xff\x0a" + bits.to_bytes(16, "little")), 256)


def png_with(kind: str) -> bytes:
    buffer, info = io.BytesIO(), PIL.PngImagePlugin.PngInfo()
    if kind == "text":
        info.add_itxt("workflow", "x" * 3_000_000, zip=True)
    profile = {"icc_profile": bytes(2_000_000)} if kind == "profile" else {}
    picture(RED).save(buffer, "PNG", pnginfo=info, **profile)
    data = buffer.getvalue()
    if kind == "checksum":
        bad = struct.pack(">I", 4) + b"gAMA" + b"\0\0\0\1" + b"wron"
        data = data[:33] + bad + data[33:]
    return data


@pytest.mark.parametrize("kind", ["text", "profile", "checksum"])
def test_a_png_is_read_without_what_stands_beside_the_picture(kind: str) -> None:
    data = png_with(kind)
    with pytest.raises((ValueError, SyntaxError, OSError)):  # this is a fault to Pillow
        PIL.Image.open(io.BytesIO(data)).load()
    assert is_red(data)


def test_a_png_without_its_side_chunks_is_still_upright() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    buffer, info = io.BytesIO(), PIL.PngImagePlugin.PngInfo()
    info.add_itxt("workflow", "x" * 3_000_000, zip=True)
    picture(RED).save(buffer, "PNG", pnginfo=info, exif=exif)
    assert decode(buffer, 256)[1] == (30, 40)


def test_text_of_a_gigabyte_is_never_unpacked() -> None:
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
    body = b"zTXtk\0\0" + packed
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = png_with("plain")
    assert is_red(data[:33] + chunk + data[33:])


def test_a_jpeg_that_lacks_its_last_bytes_is_read_and_one_that_lacks_half_is_not() -> None:
    buffer = io.BytesIO()
    textured(3).save(buffer, "JPEG")
    data = buffer.getvalue()
    for share in (0.999, 0.95):
        assert decode(io.BytesIO(data[: int(len(data) * share)]), 256)[1] == (320, 240)
    with pytest.raises(ImageUnreadable, match="truncated"):
        decode(io.BytesIO(data[: len(data) // 2]), 256)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_read_by_its_middle_frame(kind: str) -> None:
    buffer = io.BytesIO()
    frames = [picture(color) for color in ((255, 255, 255), RED, (0, 0, 0))]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=100)
    assert is_red(buffer.getvalue())


def test_animations_are_counted_where_pictures_are_read(tmp_path: Path) -> None:
    frames = [picture(RED), picture(BLUE)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(tmp_path / "still.gif")
    assert find_images(tmp_path).animated_count == 1


def test_an_animation_is_marked_in_the_report_and_in_exports_also_by_the_next_run(tmp_path: Path) -> None:
    frames = [picture(RED), picture(BLUE), picture(RED)]
    (tmp_path / "p").mkdir()
    frames[0].save(tmp_path / "p" / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    picture(RED, (50, 40)).save(tmp_path / "p" / "still.png")
    labels = {image.id: "red" for image in find_images(tmp_path / "p").images}
    for _ in range(2):
        result = manylens.cluster(tmp_path / "p", "color", model=ScriptedModel({"color": labels}), out=tmp_path / "out")
        assert result.collection.animated_count == 1
        assert '"frames":3' in result.report.read_text("utf-8")
    table = json.loads(manylens.export(result, "json", dest=tmp_path / "t.json").path.read_text("utf-8"))
    assert {row["image"]: row["frames"] for row in table["images"]} == {"moving.gif": 3, "still.png": 1}


def test_pages_of_a_tiff_are_no_animation() -> None:
    buffer = io.BytesIO()
    picture(RED).save(buffer, "TIFF", save_all=True, append_images=[picture(BLUE), picture(BLUE)])
    assert is_red(buffer.getvalue())


def video(kind: str, seconds: float = 3, rate: int = 10, size: tuple[int, int] = (64, 48)) -> bytes:
    """Black, red, white, a third of the time each."""
    av = pytest.importorskip("av")
    buffer, count = io.BytesIO(), int(seconds * rate)
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream("libvpx-vp9" if kind == "webm" else "mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(count):
            color = ((0, 0, 0), RED, (255, 255, 255))[3 * number // count]
            container.mux(stream.encode(av.VideoFrame.from_image(picture(color, size))))
        container.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["mp4", "mov", "webm", "matroska", "avi"])
def test_a_short_video_is_read_by_its_middle_frame_and_says_so(kind: str, tmp_path: Path) -> None:
    data = video(kind)
    assert is_red(data)
    (tmp_path / "clip.mp4").write_bytes(data)
    collection = find_images(tmp_path)
    assert [image.paths for image in collection.images] == [("clip.mp4",)]
    assert collection.animated_count == 1


def test_a_video_is_set_upright_by_its_own_word() -> None:
    data = bytearray(video("mp4"))
    at = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    assert struct.unpack_from(">9i", data, at)[:5] == (one, 0, 0, 0, one)
    struct.pack_into(">9i", data, at, 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)  # turned by 90 degrees
    assert decode(io.BytesIO(bytes(data)), 256)[1] == (48, 64)


def test_a_film_and_a_damaged_video_are_no_pictures() -> None:
    with pytest.raises(ImageUnreadable, match=r"a video of 6 minutes.*ffmpeg"):
        decode(io.BytesIO(video("mp4", seconds=360, rate=1)), 256)
    whole = video("mp4")
    for cut in (40, len(whole) // 2):
        with pytest.raises(ImageUnreadable, match=r"a video.*(ffmpeg|damaged)"):
            decode(io.BytesIO(whole[:cut]), 256)


def test_a_list_of_other_files_in_a_videos_name_opens_none_of_them(tmp_path: Path) -> None:
    """FFmpeg would follow it, to files and addresses."""
    (tmp_path / "secret.mp4").write_bytes(video("mp4"))
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nsecret.mp4\n")
    (tmp_path / "concat.mkv").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    collection = find_images(tmp_path)
    assert [image.paths for image in collection.images] == [("secret.mp4",)]
    assert len(collection.unreadable) == 2


OTHERS = {
    "drawing.svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "layers.psd": (b"8BPS\0\1" + bytes(40), "Photoshop"),
    "film.mp4": (b"\0\0\0\x18ftypisom\0\0\0\1isommp42", "ffmpeg"),
    "film.mkv": (b"\x1aE\xdf\xa3" + bytes(40), "ffmpeg"),
    "drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
    "scene.exr": (b"\x76\x2f\x31\x01" + bytes(40), "high dynamic range"),
    "scan.dcm": (bytes(128) + b"DICM" + bytes(40), "DICOM"),
    "old.tga": (bytes(80) + b"TRUEVISION-XFILE.\0", "Targa"),
    "sketch.xcf": (b"gimp xcf v011\0" + bytes(40), "GIMP"),
    "gone.jpg": (b"<!DOCTYPE html><html><body>404", "web page"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "mangled.png": (b"\x89PNG\n\x1a\n" + bytes(40), "as binary"),
    "camera.3fr": (b"II*\0" + bytes(200), "convert it to JPEG"),
    ".IMG_2.HEIC.icloud": (b"bplist00" + bytes(40), "iCloud"),
}


def test_files_of_twelve_kinds_are_each_somewhere_with_their_reason(tmp_path: Path) -> None:
    kinds = ["jpg", "png", "gif", "webp", "bmp", "tif", "ppm", "avif", "jp2", "j2k", "ico"]
    for i, kind in enumerate(kinds):
        picture((10 * i, 99, 9), (64, 64)).save(tmp_path / f"a.{kind}")
    (tmp_path / "a.heic").write_bytes(heic(RED))
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_jxl")
        picture(RED, (65, 64)).save(tmp_path / "a.jxl")
        kinds.append("jxl")
    if importlib.util.find_spec("av") is not None:
        (tmp_path / "clip.webm").write_bytes(video("webm"))  # called as a picture, it would be skipped with it
    (tmp_path / "a.cr2").write_bytes(RAW["a.cr2"] + jpeg(RED, (640, 480)))
    picture(RED).save(tmp_path / "a.pdf")
    for name, (data, _) in OTHERS.items():
        (tmp_path / name).write_bytes(data)
    collection = find_images(tmp_path)
    read = sorted(path for image in collection.images for path in image.paths)
    clips = ["clip.webm"] * (tmp_path / "clip.webm").exists()
    assert read == sorted([*(f"a.{kind}" for kind in [*kinds, "heic", "cr2"]), *clips])
    reasons = {file.path: file.reason for file in collection.unreadable}
    assert reasons.keys() == {"a.pdf", *OTHERS}
    assert "pdftoppm" in reasons["a.pdf"]
    assert [name for name, (_, part) in OTHERS.items() if part not in reasons[name]] == []
    assert collection.files_found + collection.skipped_count + collection.left_out_count == len(
        list(tmp_path.iterdir())
    )


def test_the_video_of_a_phones_picture_is_skipped_with_it(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(heic(RED))
    for name in ("IMG_1.MOV", "IMG_2.MOV"):
        (tmp_path / name).write_bytes(OTHERS["film.mp4"][0])
    collection = find_images(tmp_path)
    assert [file.path for file in collection.unreadable] == ["IMG_2.MOV"]
    assert collection.skipped_count == 1


def tree(root: Path, *paths: str) -> None:
    for i, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        picture((i, 9, 9)).save(root / path)


def taken(root: Path, **how: list[str]) -> list[str]:
    return sorted(path for image in find_images(root, **how).images for path in image.paths)  # type: ignore[arg-type]


def test_folders_of_thumbnails_and_trash_are_left_out_and_counted(tmp_path: Path) -> None:
    folders = ["@eaDir/x.png", "#recycle", "$RECYCLE.BIN/S-1", "Thumbs", ".thumbnails", ".picasaoriginals"]
    folders += ["A Previews.lrdata/0", "A Smart Previews.lrdata", "__MACOSX", "System Volume Information"]
    folders += ["sub/@Recycle", ".Trash-1000/files", ".Trashes/501", ".dtrash", "Photos Library.photoslibrary/database"]
    folders += ["P.photoslibrary/resources/derivatives/masters", "Old.photolibrary/Thumbnails", "CaptureOne/Cache"]
    tree(
        tmp_path,
        "x.png",
        "sub/y.png",
        "thumbs-up/z.png",
        "P.photoslibrary/originals/0/o.png",
        *(f"{folder}/t.png" for folder in folders),
    )
    assert taken(tmp_path) == ["P.photoslibrary/originals/0/o.png", "sub/y.png", "thumbs-up/z.png", "x.png"]
    assert find_images(tmp_path).left_out_count == len(folders)


def test_what_to_leave_out_and_take_is_said_by_patterns_and_a_file(tmp_path: Path) -> None:
    tree(tmp_path, "a.png", "b.jpg", "old/c.png", "old/d.jpg", "deep/old/e.png", "thumbs/f.png")
    assert taken(tmp_path, exclude=["old/"]) == ["a.png", "b.jpg"]
    assert taken(tmp_path, exclude=["/old/", "!thumbs/"]) == ["a.png", "b.jpg", "deep/old/e.png", "thumbs/f.png"]
    assert taken(tmp_path, include=["*.jpg"]) == ["b.jpg", "old/d.jpg"]
    (tmp_path / ".manylensignore").write_text("# not these\nold/\n*.jpg\n")
    assert taken(tmp_path) == ["a.png"]
    assert taken(tmp_path, exclude=["!b.jpg"]) == ["a.png", "b.jpg"]


def test_a_folder_of_which_all_is_left_out_says_so(tmp_path: Path) -> None:
    tree(tmp_path, "a.png")
    with pytest.raises(UsageError, match="1 that were left out"):
        find_images(tmp_path, exclude=["*.png"])


def test_without_the_extras_the_reason_names_them(tmp_path: Path) -> None:
    """The extras' modules are shadowed by ones that fail, in a process of its own."""
    for name in ("rawpy", "pillow_jxl", "av", "pillow_heif"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('no {name}')")
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.arw").write_bytes(RAW["a.arw"] + jpeg(RED, (160, 120)))
    (folder / "b.jxl").write_bytes(b"\xff\x0a" + bytes(40))
    (folder / "d.heic").write_bytes(heic(RED))
    (folder / "c.mp4").write_bytes(OTHERS["film.mp4"][0])
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from manylens.collection.find import find_images\n"
        "for file in find_images(sys.argv[1]).unreadable: print(file.reason)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    raw, jxl, film, phone = done.stdout.splitlines()
    assert "manylens[video]" in film
    assert "pip install pillow-heif" in phone
    assert "a preview of 160 x 120 pixels alone" in raw
    assert "manylens[raw]" in raw
    assert "manylens[jxl]" in jxl


def test_the_commands_options_reach_the_folder_and_what_was_left_out_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path / "photos", *(f"{i}.png" for i in range(4)), "@eaDir/t.png", "old/o.jpg")
    asked = ["cluster", str(tmp_path / "photos"), "--by", "color of the object", "--out", str(tmp_path / "out")]
    assert main.run([*asked, "--exclude", "0.png", "--include", "*.png"]) == 0
    assert "3 pictures, 3 left out" in " ".join("".join(capfd.readouterr()).split())
    assert main.run([*asked, "--exclude", "old/", "--dry-run"]) == 0
    assert "4 files" in capfd.readouterr().out
