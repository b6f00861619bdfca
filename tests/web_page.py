"""A run of 24 drawn pictures, and its page: in this process, or served by a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from starlette.testclient import TestClient
from test_add import model, put

import manylens
from manylens.web.app import make_app
from manylens.web.guard import TOKEN_HEADER
from manylens.web.shown import ShownRun

TOKEN = "a-token-of-the-tests"
HOST = "127.0.0.1:8672"
ORIGIN = f"http://{HOST}"


def begin(place: Path, interests: tuple[str, ...] = ("color", "shape")) -> Path:
    """Sort `place/pictures` and return the run's folder."""
    place.mkdir(exist_ok=True)
    put(place / "pictures", ("red", "green", "blue"), range(4))
    return manylens.cluster(place / "pictures", list(interests), model=model(), out=place / "out").out


class Page:
    """Asks as the page itself does: with its token and its Origin."""

    def __init__(self, client: TestClient, run: ShownRun) -> None:
        self.client, self.run = client, run

    def get(self, path: str, status: int = 200, **query: Any) -> Any:
        response = self.client.get(path, params=query or None)
        assert response.status_code == status, response.text
        return response.json()

    def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        response = self.client.post(path, json=body)
        assert response.status_code == status, response.text
        return response.json()

    def key(self, name: str) -> str:
        """The id of the picture of this name."""
        found: list[str] = [
            item["id"] for item in self.get("/api/interests/color/images", q=name)["items"] if item["path"] == name
        ]
        return found[0]

    def cluster(self, name: str, interest: str = "color") -> int:
        clusters = self.get(f"/api/interests/{interest}")["cluster_list"]
        return int(next(one["id"] for one in clusters if one["name"] == name))

    def place(self, name: str, interest: str = "color") -> str:
        """The name of the cluster that the picture is in, empty for none."""
        places = self.get(f"/api/images/{self.key(name)}")["places"]
        return str(next(place["name"] for place in places if place["slug"] == interest))


@contextlib.contextmanager
def page_of(out: Path, folder: Path | None = None, *, read_only: bool = False, is_local: bool = True) -> Iterator[Page]:
    run = ShownRun(out, folder, read_only=read_only)
    app = make_app(run, token=TOKEN, hosts=[HOST], cookie="manylens-8672", is_local=is_local)
    headers = {TOKEN_HEADER: TOKEN, "Origin": ORIGIN}
    with TestClient(app, base_url=ORIGIN, headers=headers, raise_server_exceptions=True) as client:
        yield Page(client, run)
    run.close()


class Served:
    """`manylens open OUT`, or another command that serves a page, in a process of its own."""

    def __init__(self, out: Path, *options: str, command: Sequence[str] = ()) -> None:
        words = command or ["open", str(out), "--no-browser", "--port", "0", *options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "manylens", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "BROWSER": "true"},  # one that does nothing
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "http://" in line:
                self.address, self.token = line.split()[-1].split("/?token=")
                return
        raise AssertionError("the server ended before it said where it is")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
