"""What leaves: a picture's pixels and nothing else of its file; no path, no user, no server's words in results."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import PIL.features
import pytest
from chat_server import ChatServer, draw, images_of
from PIL import Image as PillowImage
from PIL import PngImagePlugin, TiffImagePlugin

import manylens
from manylens.collection.decode import encode_jpeg
from manylens.files import public_name
from manylens.models.base import ModelOptions
from manylens.results.report import encode_thumbnail

SECRET = "Gartenweg-17-home-address"
FORMATS = {
    "jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF", "gif": "GIF", "mpo": "MPO", "avif": "AVIF",
    "jp2": "JPEG2000",
}  # fmt: skip


def save_with_secrets(picture: PillowImage.Image, path: Path) -> None:
    """In every place that the format has for what is no pixel."""
    exif = PillowImage.Exif()
    for tag in (270, 315, 33432, 305):  # description, artist, copyright, software
        exif[tag] = SECRET
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", SECRET)
    text.add_itxt("XML:com.adobe.xmp", f"<x>{SECRET}</x>")
    text.add_text("zipped", SECRET, zip=True)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = SECRET
    known = FORMATS[path.suffix[1:]]
    common: dict[str, Any] = {"exif": exif, "icc_profile": SECRET.encode() * 10}
    how: dict[str, dict[str, Any]] = {
        "JPEG": {**common, "comment": SECRET.encode(), "xmp": SECRET.encode()},
        "PNG": {**common, "pnginfo": text},
        "WEBP": {**common, "xmp": SECRET.encode()},
        "TIFF": {"tiffinfo": tags},
        "GIF": {"comment": SECRET.encode()},
        "MPO": {"exif": exif, "comment": SECRET.encode()},
        "AVIF": {"exif": exif, "xmp": SECRET.encode()},
        "JPEG2000": {"comment": SECRET},
    }
    picture.save(path, known, **how[known])


def holds(data: bytes) -> bool:
    return SECRET.encode() in data or SECRET.encode("utf-16-le") in data or SECRET.encode("utf-16-be") in data


@pytest.mark.parametrize("side_px", [100, 700])
def test_nothing_but_pixels_leaves_a_picture(tmp_path: Path, side_px: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.delenv("MANYLENS_API_KEY", raising=False)
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    made = 0
    for number, suffix in enumerate(FORMATS):
        if (suffix == "avif" and not PIL.features.check("avif")) or (
            suffix == "jp2" and not PIL.features.check("jpg_2000")
        ):
            continue
        file = folder / f"{number}.{suffix}"
        save_with_secrets(draw(["red", "green"][number % 2], "square", number, side_px), file)
        made += 1
        assert suffix == "png" or holds(file.read_bytes()), "planted"
    with ChatServer() as server:
        options = ModelOptions(base_url=server.url, image_px=512)
        result = manylens.cluster(folder, by="color", model="fake", options=options, out=out)
    assert result["color"].counts.assigned + result["color"].counts.unassigned == made
    sent = [image for served in server.log if served.body for image in images_of(served.body)]
    assert len(sent) > made
    with sqlite3.connect(out / "run.sqlite") as database:
        kept = [bytes(row[0]) for row in database.execute("SELECT jpeg FROM thumbnails")]
    shown = [base64.b64decode(data) for data in re.findall(r"/9j/[A-Za-z0-9+/=]+", (out / "report.html").read_text())]
    assert len(kept) == made and len(shown) >= made
    for data in [*sent, *kept, *shown]:
        assert not holds(data)
        assert b"Exif" not in data and b"ICC_PROFILE" not in data and b"\xff\xfe" not in data[:20]
    for file in out.rglob("*"):
        assert not file.is_file() or not holds(file.read_bytes()), file


def test_an_encoder_forgets_what_is_no_pixel() -> None:
    picture = draw("red", "square")
    picture.info.update(comment=SECRET.encode(), exif=b"Exif\0\0" + SECRET.encode(), icc_profile=SECRET.encode())
    for data in (encode_jpeg(picture, quality=90), encode_thumbnail(picture)):
        assert not holds(data)
    assert picture.info["comment"] == SECRET.encode(), "the picture itself is left as it was"


def test_results_name_no_server_and_repeat_none_of_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it says of a failed call is on the console and in the database."""
    pytest.importorskip("openai")
    from chat_server import _FAULTY, write_pictures

    from manylens.cli import main

    monkeypatch.delenv("MANYLENS_API_KEY", raising=False)
    monkeypatch.setattr("manylens.models.retrying.FIRST_BACKOFF_S", 0.001)
    monkeypatch.setitem(_FAULTY, "503", (503, {"error": {"message": f'no "room" for {SECRET}'}}))
    write_pictures(tmp_path / "pictures", 12)
    out = tmp_path / "out"
    with ChatServer() as server:
        first: list[str] = []

        def one(kind: str, body: Any) -> bool:
            first.extend([] if first else [json.dumps(body)])
            return first[0] == json.dumps(body)

        server.inject("503", None, kind="look", where=one)
        command = ["cluster", str(tmp_path / "pictures"), "--by", "color", "--model", "fake", "--base-url", server.url]
        main.run([*command, "--out", str(out), "--max-failed", "1"])
        address = server.url.removeprefix("http://").removesuffix("/v1")
    assert SECRET in capsys.readouterr().err
    assert holds(
        (out / "run.sqlite").read_bytes() + (out / "run.sqlite-wal").read_bytes()
        if (out / "run.sqlite-wal").exists()
        else (out / "run.sqlite").read_bytes()
    )
    for file in [out / "report.html", *out.glob("*.csv"), *(out / "color").iterdir()]:
        content = file.read_text("utf-8")
        assert SECRET not in content and address not in content and str(tmp_path) not in content, file
    assert "the server answered 503" in (out / "color" / "assignments.csv").read_text()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("nano:/home/me/tuned/nano", "nano:nano"),
        ("hf:C:\\Users\\me\\model", "hf:model"),
        ("hf:~/model", "hf:model"),
        ("hf:org/model", "hf:org/model"),
        ("openai:gpt-5-mini", "openai:gpt-5-mini"),
        ("nano", "nano"),
        ("qwen2.5vl:7b", "qwen2.5vl:7b"),
    ],
)
def test_a_models_name_in_results_tells_no_place(name: str, shown: str) -> None:
    assert public_name(name) == shown
