"""The page and its server go on when something beside them fails, and give nothing away."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.sse import ServerSentEvent
from test_add import put
from web_page import begin, page_of

from manylens.errors import StoreError
from manylens.files import DATABASE_NAME
from manylens.settings import ModelOptions
from manylens.store.lock import RunLock
from manylens.store.run_folder import RunFolder
from manylens.web import live
from manylens.web.job_keeper import JobKeeper, job_request
from manylens.web.live import Watch
from manylens.web.server import _listen
from manylens.web.shown import ShownRun

PATIENCE_S = 30.0

THEIRS = "http://attacker.example/v1"


def no_process(*_: object, **__: object) -> None:
    raise OSError(11, "Resource temporarily unavailable")


def test_a_job_whose_process_cannot_be_begun_has_failed_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "pictures", ("red",), range(2))
    monkeypatch.setattr(subprocess, "Popen", no_process)
    with page_of(tmp_path / "out", tmp_path / "pictures") as page:
        job = page.post("/api/jobs", {"by": ["color"]})
        assert job["state"] == "failed" and "temporarily unavailable" in job["problem"]["rule"]
        assert page.post(f"/api/jobs/{job['id']}/continue")["state"] == "failed", "it can be tried again"


def test_one_error_does_not_end_the_watch_over_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_IDLE_EVERY_S", 0.01)
    looks: list[int] = []

    class Stumbling(JobKeeper):
        def look_after(self) -> None:
            looks.append(1)
            if len(looks) < 3:
                raise RuntimeError("a fault of ours")

    async def watched() -> None:
        run = ShownRun(tmp_path)
        watching = asyncio.create_task(Watch(run, Stumbling(run)).watch())
        end = time.monotonic() + PATIENCE_S
        while len(looks) < 4 and not watching.done() and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert not watching.done() and len(looks) >= 4
        watching.cancel()

    asyncio.run(watched())


def test_a_page_that_falls_behind_is_ended_so_that_it_asks_anew(tmp_path: Path) -> None:
    async def told() -> int:
        run = ShownRun(tmp_path)
        watch = Watch(run, JobKeeper(run))
        events = watch.listen()
        await anext(events)
        for _ in range(live._MOST_WAITING + 1):
            watch._tell(ServerSentEvent(event="run"))

        async def rest() -> int:
            return len([event async for event in events])

        return await asyncio.wait_for(rest(), PATIENCE_S / 10)

    assert asyncio.run(told()) == live._MOST_WAITING


def test_files_of_a_correction_are_written_when_the_run_is_free_again(tmp_path: Path) -> None:
    out = begin(tmp_path, ("color",))
    with page_of(out) as page:
        body = {"kind": "rename", "cluster": page.cluster("red"), "name": "crimson"}
        page.post("/api/interests/color/corrections", body)
        with RunFolder.open(out):  # as another process holds it
            page.run.write_files_after_pause(0)
        assert "crimson" not in (out / "color" / "assignments.csv").read_text()
        page.run.write_files_after_pause(0)
        assert "crimson" in (out / "color" / "assignments.csv").read_text()


def test_a_second_server_leaves_a_job_alone_that_the_first_is_about_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", no_process)
    with RunFolder.open(tmp_path / "out"):
        pass
    first, second = ShownRun(tmp_path / "out"), ShownRun(tmp_path / "out")
    with monkeypatch.context() as patch:
        asked = time.time() - 3600
        patch.setattr(time, "time", lambda: asked)
        number = first.store.add_job(job_request(tmp_path, ["color"])).id

    def looked_after() -> tuple[str, int]:
        JobKeeper(second).look_after()
        row = first.store.job(number)
        assert row is not None
        return row.state, row.attempts

    assert first.store.take_next_job() is not None
    assert looked_after() == ("running", 1), "no process is there yet"
    first.store.set_job(number, pid=os.getpid(), progress={"calls": 1})
    assert looked_after() == ("running", 1), "its process does not hold its lock yet"
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    assert looked_after() == ("failed", 2), "but not for good: it was begun anew, which fails here"
    first.close()
    second.close()


def test_a_page_that_is_open_to_others_lets_nobody_name_a_server_that_gets_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = begin(tmp_path, ("color",))
    monkeypatch.setattr(subprocess, "Popen", no_process)  # what is let through is not carried out
    body = {"by": ["shape"], "model": "openai:some", "base_url": THEIRS}
    ask = "/api/interests/color/re-sort/ask"
    with page_of(out, is_local=False) as page:
        assert "open to others" in page.post("/api/jobs", body, 403)["rule"]
        assert "open to others" in page.post(ask, {"base_url": THEIRS}, 403)["rule"]
        assert page.get("/api/jobs")["jobs"] == []
        own = job_request(
            tmp_path / "pictures",
            ["color"],
            model="openai:some",
            options=ModelOptions(base_url="http://own.example/v1"),
        )
        planted = page.run.store.add_job(own).id  # as in a run folder of somebody else
        page.post("/api/jobs", {**body, "base_url": "http://own.example/v1/"}, 403)
        page.post(f"/api/jobs/{planted}/continue", {}, 403)
        JobKeeper(page.run).add(own)
        page.post("/api/jobs", {**body, "base_url": "http://own.example/v1/"})
        page.post("/api/jobs", body, 403)
        page.post("/api/jobs", {"by": ["shape"]})
    with page_of(out) as page:
        page.post("/api/jobs", body)


def test_a_thumbnail_that_is_no_jpeg_is_not_sent(tmp_path: Path) -> None:
    out = begin(tmp_path, ("color",))
    with page_of(out) as page:
        image_id = page.run.images().whole_ids([page.key("red-wide-0.png")])[0]
        address = f"/api/images/{image_id[:16]}/thumbnail"
        kept = out / "thumbnails" / image_id[:2] / f"{image_id}.jpg"
        assert page.client.get(address, params={"size": "large"}).content == kept.read_bytes()
        kept.write_bytes(b"<script>alert(1)</script>")
        assert page.client.get(address, params={"size": "large"}).content.startswith(b"\xff\xd8\xff")
        with sqlite3.connect(out / DATABASE_NAME) as connection:
            connection.execute(
                "UPDATE thumbnails SET jpeg = ?, checksum = NULL WHERE image_id = ?", (b"<script>", image_id)
            )
        assert page.get(address, 503)["rule"]


def test_a_change_between_two_looks_at_the_run_mixes_up_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = begin(tmp_path, ("color",))
    with page_of(out) as page:
        last = page.run.images().keys[-1]
        before = page.get(f"/api/images/{last}/neighbours", interest="color")
        both = ShownRun.both
        changes = [1]

        def then_changed(run: ShownRun, slug: str) -> Any:
            found = both(run, slug)
            if changes:
                changes.pop()
                with RunFolder.open(out) as other:
                    other.record_collection(other.images()[1:], [])
            return found

        monkeypatch.setattr(ShownRun, "both", then_changed)
        assert page.get(f"/api/images/{last}/neighbours", interest="color") == before
        assert len(before["neighbours"]) > 1 and not changes


def test_a_lock_whose_holder_cannot_be_written_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StoreError, match="No space left"):
            RunLock(tmp_path / "lock")
    RunLock(tmp_path / "lock").release()


def test_a_port_is_shared_with_nobody_where_the_system_would_share_it() -> None:
    """Windows shares a port between sockets with SO_REUSEADDR; another option stands for the one that it alone has."""
    code = (
        "import socket; socket.SO_EXCLUSIVEADDRUSE = socket.SO_KEEPALIVE\n"
        "from manylens.web.server import _listen\n"
        "s = _listen('127.0.0.1', 0)\n"
        "print([s.getsockopt(socket.SOL_SOCKET, o) for o in (socket.SO_KEEPALIVE, socket.SO_REUSEADDR)])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[1, 0]"
    with _listen("127.0.0.1", 0) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1


def test_what_waits_in_somebody_s_run_folder_sends_nothing_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that waits there names its server: it would get the pictures, and the key of whoever opens the page."""
    put(tmp_path / "pictures", ("red",), range(2))
    monkeypatch.setattr(subprocess, "Popen", no_process)
    out = tmp_path / "out"
    with RunFolder.open(out):
        pass
    theirs = ShownRun(out, tmp_path / "pictures")
    options = ModelOptions(base_url=THEIRS)
    number = JobKeeper(theirs).add(job_request(tmp_path / "pictures", ["color"], model="any", options=options)).id
    theirs.close()
    with page_of(out, tmp_path / "pictures") as page:
        (job,) = page.get("/api/jobs")["jobs"]
        assert job["state"] == "interrupted"
        assert page.post(f"/api/jobs/{number}/continue")["state"] == "failed", "a person's word begins it"
