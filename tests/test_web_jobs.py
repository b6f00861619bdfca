"""Runs begun from the page: they survive it, are told of, cancelled, continued, and resumed after a kill.

Each is a process of its own in which nano reads 24 drawn pictures."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_add import put
from web_page import Page, Served, page_of

from manylens.settings import Settings
from manylens.store.run_folder import RunFolder
from manylens.web.job import JOB_LOCK_NAME
from manylens.web.job_keeper import after_death, job_request

PATIENCE_S = 90.0
"""The test machine may be busy with much else."""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    put(tmp_path / "pictures", ("red", "green", "blue"), range(4))
    return tmp_path / "pictures"


@pytest.fixture
def page(tmp_path: Path, pictures: Path) -> Iterator[Page]:
    """A new start on the pictures."""
    with page_of(tmp_path / "out", pictures) as page:
        yield page


def until(holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def ended(page: Page, number: int) -> dict[str, Any]:
    def job() -> dict[str, Any] | None:
        page.client.app.state.jobs.look_after()  # type: ignore[attr-defined]
        found: dict[str, Any] = page.get(f"/api/jobs/{number}")
        return found if found["state"] not in ("queued", "running") else None

    found: dict[str, Any] = until(job)
    return found


@pytest.mark.slow
def test_a_new_start_becomes_a_run_that_is_watched_to_its_end(page: Page) -> None:
    plan = page.post("/api/jobs/plan", {"by": ["color"]})
    assert plan["images"] == 24 and plan["calls"][0] >= 24 and plan["is_free"]
    begun = page.post("/api/jobs", {"by": ["color"], "groups": 2})
    assert (begun["slugs"], begun["groups"]) == (["color"], 2) and "--groups 2" in begun["command"]
    job = ended(page, begun["id"])
    assert (job["state"], job["problem"]) == ("done", None)
    assert {stage["stage"] for stage in job["stages"]} >= {"read", "look", "check", "name"}
    assert all(stage["state"] == "done" for stage in job["stages"])
    assert job["calls"] >= 24 and job["expected"][0] <= job["expected"][1]
    run = page.get("/api/run")
    assert (run["state"], run["images"], run["interests"][0]["clusters"]) == ("ready", 24, 2)
    assert page.post("/api/jobs/plan", {"by": ["color"], "groups": 2})["calls"] == [0, 0], "all of it is there"
    assert page.post("/api/jobs/plan", {"by": ["shape"]})["calls"][0] >= 24


@pytest.mark.slow
def test_jobs_take_turns_and_one_that_waits_can_be_cancelled(page: Page) -> None:
    first = page.post("/api/jobs", {"by": ["color"]})
    second = page.post("/api/jobs", {"by": ["shape"]})
    assert (first["state"], second["state"]) == ("running", "queued")
    assert page.client.delete(f"/api/jobs/{second['id']}").json()["state"] == "cancelled"
    stopped = page.client.delete(f"/api/jobs/{first['id']}").json()
    assert stopped["state"] == "cancelled" or stopped["stopping"]
    assert ended(page, first["id"])["state"] in ("cancelled", "done")
    page.post(f"/api/jobs/{second['id']}/continue")
    assert ended(page, second["id"])["state"] == "done"
    assert page.post(f"/api/jobs/{second['id']}/continue", status=409)["rule"]


@pytest.mark.slow
def test_a_job_that_is_killed_goes_on_and_asks_nothing_twice(page: Page, tmp_path: Path) -> None:
    number = page.post("/api/jobs", {"by": ["color", "shape"]})["id"]
    store = page.run.store

    def has_answers() -> bool:
        try:
            with RunFolder.read(tmp_path / "out") as run:
                return run.answers_mark() > 0
        except Exception:
            return False

    until(has_answers)
    row = store.job(number)
    assert row is not None and row.pid is not None
    os.kill(row.pid, signal.SIGKILL)
    assert ended(page, number)["state"] == "done"
    finished = store.job(number)
    assert finished is not None and finished.attempts == 2
    with RunFolder.read(tmp_path / "out") as run:
        looks = sum(len(run.looks(interest)) for interest in ("color", "shape"))
    assert looks == 48


@pytest.mark.slow
def test_a_job_outlives_its_server_and_the_next_one_looks_after_it(tmp_path: Path, pictures: Path) -> None:
    out = tmp_path / "out"
    with page_of(out, pictures) as page:
        number = page.post("/api/jobs", {"by": ["color"]})["id"]
        until((out / JOB_LOCK_NAME).exists)
    with page_of(out) as again:
        assert ended(again, number)["state"] == "done"
        assert [one["slug"] for one in again.get("/api/run")["interests"]] == ["color"]


def test_a_job_that_is_killed_again_and_again_is_left_alone(page: Page, pictures: Path) -> None:
    with RunFolder.open(page.run.path):
        pass
    store = page.run.store
    number = store.add_job(job_request(pictures, ["color"])).id
    for _ in range(4):
        row = store.take_next_job()
        assert row is not None and store.take_next_job() is None, "one at a time"
        store.set_job(number, after_death(row), only_from=("running",))
    last = store.job(number)
    assert last is not None and (last.state, last.attempts) == ("interrupted", 4)
    assert store.take_next_job() is None


def test_a_job_that_cannot_be_is_refused_before_it_begins(page: Page) -> None:
    for body, status in (
        ({"by": []}, 400),
        ({"by": ["   "]}, 422),
        ({"by": ["color"], "model": "no-such-model"}, 400),
        ({"by": ["color"], "groups": 0}, 422),
        ({"by": ["color"], "groups": 3, "into": ["a", "b"]}, 400),
        ({"by": ["color"], "into": ["one"]}, 400),
        ({"by": ["color"], "budget_usd": 1.0}, 400),
        ({"by": ["features"]}, 400),
        ({"by": ["x" * 501]}, 422),
    ):
        assert set(page.post("/api/jobs", body, status)) == {"rule", "hint"}, body
    assert page.get("/api/jobs")["jobs"] == []
    assert not page.run.path.exists(), "no run was begun"


@pytest.mark.slow
def test_a_failed_job_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with page_of(tmp_path / "out", tmp_path / "empty") as page:
        job = ended(page, page.post("/api/jobs", {"by": ["color"]})["id"])
    assert job["state"] == "failed" and "image" in job["problem"]["rule"] and job["problem"]["hint"]


@pytest.mark.slow
def test_events_tell_a_listener_of_the_run_and_of_a_job(tmp_path: Path, pictures: Path) -> None:
    """By a real server and a real connection, because a test client waits for the end of a stream."""
    with Served(pictures, "--out", str(tmp_path / "out")) as served:
        headers = {"X-Manylens-Token": served.token, "Content-Type": "application/json"}
        events: list[str] = []
        stream = urllib.request.urlopen(
            urllib.request.Request(served.address + "/api/events", headers=headers), timeout=PATIENCE_S
        )

        def listen() -> None:
            for line in stream:
                if line.startswith(b"event: "):
                    events.append(line.decode().split()[1])
                # not by its text: a stage that is done says so in the same words
                if line.startswith(b"data: ") and json.loads(line[6:]).get("state") == "done":
                    return

        listening = threading.Thread(target=listen)
        listening.start()
        until(lambda: "run" in events)
        body = json.dumps({"by": ["color"]}).encode()
        urllib.request.urlopen(urllib.request.Request(served.address + "/api/jobs", body, headers), timeout=20).close()
        listening.join(PATIENCE_S)
        assert not listening.is_alive()
        assert events.count("job") >= 2, "begun, and done"


@pytest.mark.slow
def test_cluster_open_runs_as_a_job_with_all_that_was_said(tmp_path: Path, pictures: Path) -> None:
    out = tmp_path / "out"
    words = [
        "cluster",
        str(pictures),
        "--by",
        "color",
        "--out",
        str(out),
        "--exclude",
        "blue*",
        "--groups",
        "2",
        "--open",
    ]
    with Served(out, command=[*words, "--open"]) as served:
        headers = {"X-Manylens-Token": served.token}

        def state() -> dict[str, Any] | None:
            request = urllib.request.Request(served.address + "/api/jobs", headers=headers)
            with urllib.request.urlopen(request, timeout=20) as response:
                (job,) = json.load(response)["jobs"]
            assert job["state"] in ("queued", "running", "done")
            return job if job["state"] == "done" else None

        job = until(state)
    assert "--exclude 'blue*'" in job["command"] and "--groups 2" in job["command"]
    with RunFolder.read(out) as run:
        assert len(run.images()) == 16 and len(run.clusterings()[0][0].clusters) == 2


def test_settings_of_an_interest_are_kept_when_it_is_asked_for_again() -> None:
    request = job_request(Path("pictures"), ["color"], settings=Settings(tau=0.7))
    assert Settings.from_dict(json.loads(json.dumps(request))["settings"]).tau == 0.7


@pytest.mark.slow
def test_a_sample_says_what_there_is_to_sort_by_and_what_an_interest_makes_of_it(page: Page) -> None:
    assert page.get("/api/suggest")["job"] is None
    job = page.post("/api/jobs", {"kind": "suggest"})
    assert ended(page, job["id"])["state"] == "done"
    found = page.get("/api/suggest")
    assert found["job"]["id"] == job["id"] and found["sample"] == 24
    for one in found["suggestions"]:
        assert one["interest"] and one["groups"] and 0 < one["answered"] <= 1
    job = page.post("/api/jobs", {"kind": "preview", "by": ["color"]})
    assert ended(page, job["id"])["state"] == "done"
    preview = page.get("/api/preview", by="color")
    (part,) = preview["parts"]
    assert part["interest"] == "color" and part["groups"] and part["verdict"]["word"]
    assert page.get("/api/preview", by="shape")["job"] is None
    page.post("/api/jobs", {"kind": "preview", "by": ["a", "b"]}, 400)
    assert page.get("/api/run")["state"] == "new", "nothing is sorted by it"
