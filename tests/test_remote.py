"""remote: lists, archives and tables by address, over real servers; no list reaches a host that nobody named."""

from __future__ import annotations

import contextlib
import http.server
import importlib
import io
import json
import socket
import threading
import time
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pytest
from bad_images import picture

import manylens
from manylens.collection import addresses
from manylens.collection.addresses import check_peer, shown_address
from manylens.collection.find import find_images, open_source
from manylens.collection.pictures import StoredImages
from manylens.errors import UsageError
from manylens.models.scripted import ScriptedModel

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def png(color: tuple[int, int, int] = (9, 99, 9), size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    picture(color, size).save(buffer, "PNG")
    return buffer.getvalue()


class Site:
    """A server of this test's own. pages: bytes, or what answers, by path. asked: paths in order."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | Answer] = {}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urllib.parse.unquote(self.path)
                site.asked.append(path)
                site.headers.append(dict(self.headers))
                page = site.pages.get(path)
                if page is None:
                    self.send_error(404)
                elif isinstance(page, bytes):
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(page)))
                    self.end_headers()
                    self.wfile.write(page)
                else:
                    page(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.root = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(addresses, "_PAUSE_S", 0.01)
    found = Site()
    yield found
    found.server.shutdown()
    found.server.server_close()


def redirect(to: str) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.end_headers()

    return answer


def test_a_list_of_addresses_is_a_collection_with_larger_sizes(site: Site) -> None:
    site.pages = {
        "/list.txt": b"# three\n/a b.png\nsub/c.png\n\nmissing.png\n",
        "/a b.png": png((220, 30, 30), (900, 600)),
    }
    site.pages["/sub/c.png"] = png()
    place = open_source(f"{site.root}/list.txt")
    kept: dict[str, bytes] = {}
    collection = find_images(place, keep=lambda found: kept.update({t.image_id: t.jpeg for t in found}))
    names = {path: image.id for image in collection.images for path in image.paths}
    assert sorted(names) == [f"{site.root}/a b.png", f"{site.root}/sub/c.png"]
    assert [(f.path, f.reason) for f in collection.unreadable] == [
        (f"{site.root}/missing.png", "the server says 404 Not Found")
    ]
    stored = StoredImages(place, collection.images, kept.__getitem__)
    large = names[f"{site.root}/a b.png"]
    assert len(stored.jpeg(large, 800)) > len(stored.jpeg(large, 256))
    assert "manylens" in site.headers[0]["User-Agent"]


def test_an_archive_by_address_is_read_as_one_on_the_disk(site: Site, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("in/a.png", png())
    site.pages = {"/photos.zip": buffer.getvalue(), "/page.html": b"<html>", "/a.png": png()}
    assert [image.paths for image in find_images(f"{site.root}/photos.zip").images] == [("in/a.png",)]
    for page in ("page.html", "a.png"):
        with pytest.raises(UsageError, match="a list, a table or an archive"):
            open_source(f"{site.root}/{page}")
    with pytest.raises(UsageError, match="the server says 404"):
        open_source(f"{site.root}/other.zip")


def test_a_list_on_this_disk_names_no_host_of_the_local_network_unless_the_person_does(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pages = {"/a.png": png()}
    (tmp_path / "list.csv").write_text(f"name,url\nx,{site.root}/a.png\n")
    collection = find_images(tmp_path / "list.csv")
    assert not collection.images and "MANYLENS_HOSTS=127.0.0.1" in collection.unreadable[0].reason
    assert site.asked == []
    monkeypatch.setenv("MANYLENS_HOSTS", "nas.local, 127.0.0.1")
    assert [image.paths for image in find_images(tmp_path / "list.csv").images] == [(f"{site.root}/a.png",)]


def test_no_redirect_leads_to_a_host_that_nobody_named_or_off_the_web(site: Site) -> None:
    other = Site()
    other.pages = {"/x.png": png()}
    site.pages = {
        "/list.txt": b"near.png\nfar.png\nfile.png\nround.png\n",
        "/near.png": redirect("/ok.png"),
        "/ok.png": png(),
        "/far.png": redirect(f"http://localhost:{other.port}/x.png"),
        "/file.png": redirect("file:///etc/passwd"),
        "/round.png": redirect("/round.png"),
    }
    collection = find_images(f"{site.root}/list.txt")
    assert [image.paths for image in collection.images] == [(f"{site.root}/near.png",)]
    reasons = {file.path.rpartition("/")[2]: file.reason for file in collection.unreadable}
    assert "local network" in reasons["far.png"]
    assert "not on the web" in reasons["file.png"] or "302" in reasons["file.png"]
    assert "302" in reasons["round.png"]
    assert other.asked == []
    assert site.asked.count("/round.png") <= 8
    other.server.shutdown()


@pytest.mark.parametrize(
    ("address", "is_public"),
    [("93.184.216.34", True), ("2606:2800:220:1::1", True), ("127.0.0.1", False), ("10.0.0.1", False),
     ("169.254.169.254", False), ("::1", False), ("::ffff:127.0.0.1", False), ("fd00::1", False), ("0.0.0.0", False),
     ("224.0.0.1", False), ("100.64.0.1", False), ("fe80::1%eth0", False)],
)  # fmt: skip
def test_which_numeric_addresses_are_public(address: str, is_public: bool) -> None:
    check_peer(address, "named", frozenset({"named"}))
    if is_public:
        check_peer(address, "host", frozenset())
    else:
        with pytest.raises(OSError, match="local network"):
            check_peer(address, "host", frozenset())


def test_a_list_from_elsewhere_names_no_file_of_this_disk(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    site.pages = {"/l/list.txt": f"file://{tmp_path}/secret.png\n{tmp_path}/secret.png\ns3://bucket/x.png\n".encode()}
    collection = find_images(f"{site.root}/l/list.txt")
    assert not collection.images and len(collection.unreadable) == 3
    assert sum("names addresses on the web" in file.reason for file in collection.unreadable) == 2


def test_what_has_no_end_or_trickles_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not stop.is_set():
            try:
                handler.wfile.write(bytes(1 << 20))
            except OSError:
                return

    def trickle(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not stop.wait(0.05):
            try:
                handler.wfile.write(b"x")
            except OSError:
                return

    def short(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(png())

    monkeypatch.setattr("manylens.collection.pictures.MOST_FILE_BYTES", 64 << 20)
    monkeypatch.setattr(addresses, "_PATIENCE_S", 0.3)
    site.pages = {"/list.txt": b"endless.png\ntrickle.png\nshort.png", "/endless.png": endless, "/trickle.png": trickle}
    site.pages["/short.png"] = short
    began = time.monotonic()
    reasons = {file.path.rpartition("/")[2]: file.reason for file in find_images(f"{site.root}/list.txt").unreadable}
    stop.set()
    assert "it has no end" in reasons["endless.png"]
    assert "too slowly" in reasons["trickle.png"]
    assert "ended" in reasons["short.png"] or "truncated" in reasons["short.png"]
    assert time.monotonic() - began < 30


def test_what_passes_is_tried_again_and_what_does_not_is_not(site: Site) -> None:
    def busy(handler: http.server.BaseHTTPRequestHandler) -> None:
        if site.asked.count("/busy.png") < 3:
            handler.send_error(503)
            return
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(png())

    site.pages = {"/list.txt": b"busy.png\ngone.png", "/busy.png": busy}
    collection = find_images(f"{site.root}/list.txt")
    assert [image.paths for image in collection.images] == [(f"{site.root}/busy.png",)]
    assert (site.asked.count("/busy.png"), site.asked.count("/gone.png")) == (3, 1)


def test_a_host_that_is_gone_costs_its_tries_a_few_times_only(site: Site) -> None:
    def down(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_error(503)

    names = [f"{number}.png" for number in range(40)]
    site.pages = {"/list.txt": "\n".join(names).encode(), **{f"/{name}": down for name in names}}
    assert len(find_images(f"{site.root}/list.txt").unreadable) == 40
    assert 40 < len(site.asked) - 1 <= 40 + 2 * (4 + 8), "eight at a time may be on their way when it is known"


def test_over_tls_nothing_is_said_to_a_host_that_nobody_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        heard.append(connection.recv(100))

        threading.Thread(target=listen, daemon=True).start()
        (tmp_path / "list.txt").write_text(f"https://127.0.0.1:{server.getsockname()[1]}/a.png")
        assert "local network" in find_images(tmp_path / "list.txt").unreadable[0].reason
        monkeypatch.setenv("MANYLENS_HOSTS", "127.0.0.1")
        assert "local network" not in find_images(tmp_path / "list.txt").unreadable[0].reason
    assert heard[0] == b"" and heard[1][:1] == b"\x16", "a greeting of TLS where it is named, and nothing before"


def test_passwords_and_signatures_are_sent_and_shown_nowhere(site: Site, tmp_path: Path) -> None:
    near = f"http://me:secretword@127.0.0.1:{site.port}"
    lines = [f"{near}/a.png?id=7&X-Amz-Signature=sigword&X-Amz-Credential=c", f"{near}/a.png?id=7&token=otherword"]
    site.pages = {"/list.txt?sig=listword": "\n".join(lines).encode()}
    for line in lines:
        site.pages[line.partition(str(site.port))[2]] = png((len(line), 9, 9))
    place = f"{near}/list.txt?sig=listword"
    images = find_images(place).images
    assert sorted(path for image in images for path in image.paths) == [
        f"{site.root}/a.png?id=7", f"{site.root}/a.png?id=7#2"
    ]  # fmt: skip
    assert {header.get("Authorization") for header in site.headers} == {"Basic bWU6c2VjcmV0d29yZA=="}
    model = ScriptedModel({"color": {image.id: "green" for image in images}})
    manylens.cluster(place, "color", model=model, out=tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert not any(word in path.read_bytes() for word in (b"secretword", b"sigword", b"otherword", b"listword"))


def test_what_an_address_shows() -> None:
    assert shown_address("https://u:p@h.org/a.png?w=3&Expires=1&Signature=x#c") == "https://h.org/a.png?w=3#c"
    assert shown_address("s3://bucket/ü/a.png") == "s3://bucket/ü/a.png"


def test_a_run_on_a_list_continues_adds_and_exports(site: Site, tmp_path: Path) -> None:
    first = b"r0.png\nr1.png\nb0.png\nb2.png"
    site.pages = {"/list.txt": first, "/r0.png": png((220, 0, 0)), "/r1.png": png((210, 0, 0))}
    site.pages |= {"/b0.png": png((0, 0, 220)), "/b1.png": png((0, 0, 210)), "/b2.png": png((0, 0, 200))}
    place = f"{site.root}/list.txt"

    def model() -> ScriptedModel:
        labels = {i.id: "red" if "/r" in i.paths[0] else "blue" for i in find_images(place).images}
        return ScriptedModel({"color": labels})

    manylens.cluster(place, "color", model=model(), out=tmp_path / "out")
    site.pages["/list.txt"] = first + b"\nb1.png"
    grown = manylens.add(tmp_path / "out", place, model=model())
    assert grown["color"].labels[f"{site.root}/b1.png"] == "blue"
    asked = len(site.asked)
    with pytest.raises(UsageError, match=f"which were at {place}: say so again"):
        manylens.export(tmp_path / "out", "folders", dest=tmp_path / "sorted")
    with pytest.raises(UsageError, match=f"which were at {place}: say where"):
        manylens.resort(tmp_path / "out", ask=True)
    assert len(site.asked) == asked, "a run folder may be somebody else's"
    done = manylens.export(tmp_path / "out", "folders", dest=tmp_path / "sorted", folder=place)
    assert (done.files, done.left) == (5, ())
    names = sorted(
        path.relative_to(tmp_path / "sorted").as_posix()[2:] for path in (tmp_path / "sorted").rglob("*.png")
    )
    assert names == ["blue/b0.png", "blue/b1.png", "blue/b2.png", "red/r0.png", "red/r1.png"]
    assert manylens.export(tmp_path / "out", "csv").files == 5
    site.server.shutdown()
    site.server.server_close()
    assert manylens.export(tmp_path / "out", "json").files == 5, "what needs no pictures asks nobody"
    summary = json.loads((tmp_path / "out" / "color" / "summary.json").read_text())
    assert summary["images"] == 5


def test_a_list_names_no_host_and_no_disk_by_a_kind_of_address_of_its_own(tmp_path: Path) -> None:
    """ftp:// ended in a traceback; local:// and generic:// would lead past what file:// and http:// are asked."""
    pytest.importorskip("fsspec")
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "here.png").write_bytes(png((1, 2, 3)))
    odd = [
        *("ftp://127.0.0.1/a.png", "sftp://x/a.png", f"local://{tmp_path}/secret.png", "generic://http://127.0.0.1/"),
        *("webhdfs://169.254.169.254/a.png", "reference://x", "memory://a.png", "http" + "s" * 9000 + "://x"),
    ]
    (tmp_path / "list.txt").write_text("\n".join(["here.png", *odd]))
    found = find_images(tmp_path / "list.txt")
    assert [image.paths for image in found.images] == [("here.png",)]
    assert len(found.unreadable) == len(odd)
    assert max(len(file.path) for file in found.unreadable) <= 8192
    for address in ("ftp://127.0.0.1/photos", "webhdfs://x/y", "zip://x"):
        with pytest.raises(UsageError):
            find_images(address)


def test_an_object_store_is_read_through_fsspec(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    system.pipe(
        {"/bucket/photos/a.png": png(), "/bucket/photos/sub/b.png": png((1, 2, 3)), "/bucket/photos/c.txt": b"x"}
    )
    system.pipe({"/bucket/photos/.hidden.png": png()})
    system.pipe({"/bucket/list.csv": b"file\nphotos/a.png\n../photos/a.png\n"})
    collection = find_images("memory://bucket/photos")
    assert sorted(path for image in collection.images for path in image.paths) == ["a.png", "sub/b.png"]
    assert (collection.skipped_count, collection.unreadable) == (2, ())
    collection = find_images("memory://bucket/list.csv")
    assert [image.paths for image in collection.images] == [("memory://bucket/photos/a.png",)]
    assert "leads out" in collection.unreadable[0].reason
    with pytest.raises(UsageError, match="no files"):
        find_images("memory://bucket/none")
    with pytest.raises(UsageError, match="another that fsspec knows"):
        find_images("nosuch://bucket/none")


def test_a_google_bucket_is_sorted_by_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a store in memory in the place of Google's: what is asked of it is fsspec's own."""
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    from manylens.collection import remote

    class Bucket(MemoryFileSystem):  # type: ignore[misc]
        protocol = ("gs", "gcs")
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(MemoryFileSystem._strip_protocol(path.replace("gs://", "memory://")))

    monkeypatch.setitem(importlib.import_module("fsspec.registry")._registry, "gs", Bucket)
    remote._of_scheme.cache_clear()
    try:
        pictures = {f"/photos/{color}/{n}.png": png((at, 9, n)) for at, color in enumerate("ab") for n in range(3)}
        fsspec.filesystem("gs").pipe({**pictures, "/photos/bad.jpg": b"no", "/photos/notes.txt": b"x"})
        table = {sha256(data).hexdigest(): path.split("/")[2] for path, data in pictures.items()}
        model = ScriptedModel({"color": table})
        result = manylens.cluster("gs://photos", "color", model=model, out=tmp_path / "out")
        assert {row.path: row.name for row in result["color"].files.rows if row.name} == {
            path.removeprefix("/photos/"): path.split("/")[2] for path in pictures
        }
        assert [file.path for file in result.unreadable] == ["bad.jpg"]
        again = manylens.cluster("gs://photos/", "color", model=model, out=tmp_path / "out")
        assert again.calls_asked == 0
        with pytest.raises(UsageError, match="gs://photos/none"):
            find_images("gs://photos/none")
    finally:
        remote._of_scheme.cache_clear()


@pytest.mark.exports
def test_an_s3_bucket_is_sorted_by_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a server that speaks S3, with keys from the environment as for the store's own tools."""
    moto = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    from manylens.collection import remote

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setitem(pytest.importorskip("fsspec").config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
    remote._of_scheme.cache_clear()
    try:
        store = s3fs.S3FileSystem(endpoint_url=f"http://{host}:{port}")
        store.mkdir("bucket")
        store.pipe({"bucket/p/a.png": png(), "bucket/p/d/b.png": png((1, 2, 3)), "bucket/p/bad.jpg": b"no"})
        collection = find_images("s3://bucket/p/")
        assert sorted(path for image in collection.images for path in image.paths) == ["a.png", "d/b.png"]
        assert [file.path for file in collection.unreadable] == ["bad.jpg"]
        with pytest.raises(UsageError, match="s3://nobody/x"):
            find_images("s3://nobody/x")
    finally:
        remote._of_scheme.cache_clear()
        server.stop()
