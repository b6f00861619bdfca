"""Many images: what a large run does otherwise than a small one, tried with few."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from test_report import clustering, collection, thumbnail

from bench.worlds import WORLDS, see_world
from manylens.events import Event, Notice, StageFinished
from manylens.method.graph import build_graph
from manylens.pipeline import cluster_looks, run
from manylens.results import report
from manylens.results.report import remove_thumbnails, render_report, write_thumbnail
from manylens.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
IMAGES = 600


def start(out: Path) -> "subprocess.Popen[str]":
    command = ["-m", "bench.scale_run", "--images", str(IMAGES), "--classes", "10", "--dimensions", "32"]
    where = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command, "--batch", "64", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env=where,
    )  # fmt: skip


def counted(out: Path, table: str) -> int:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{out / 'run.sqlite'}?mode=ro", uri=True)) as database:
            return int(database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet
        return 0


@pytest.mark.slow
def test_a_run_that_was_killed_at_ten_moments_ends_with_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    whole = start(tmp_path / "whole")
    out = tmp_path / "out"
    looked = [(lambda least=least: counted(out, "answers") >= least) for least in (1, 150, 400, IMAGES)]
    asked = [(lambda least=least: counted(out, "answers") >= IMAGES + least) for least in (30, 80, 120, 160)]
    moments: list[Callable[[], bool]] = [lambda: counted(out, "images") > 0, *looked, *asked]
    moments.append(lambda: counted(out, "memberships") > 0)
    assert len(moments) == 10
    for moment in moments:
        process = start(out)
        while not moment():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    ended = json.loads(start(out).communicate()[0])
    undisturbed = json.loads(whole.communicate()[0])
    assert ended["digest"] == undisturbed["digest"]
    assert counted(out, "answers") == counted(tmp_path / "whole", "answers")


def test_a_large_reports_pictures_are_files_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_THUMBNAILS", 5)
    of = collection(8)
    page = render_report(
        [clustering(of)], of, thumbnail, version="1", beside=lambda name, jpeg: write_thumbnail(tmp_path, name, jpeg)
    )
    kept = {path.name: path.read_bytes() for path in (tmp_path / report.THUMBNAILS_NAME).rglob("*.jpg")}
    assert kept == {f"{image.id}.jpg": thumbnail(image.id) for image in of.images}
    assert "/9j/" not in page
    values = json.loads(re.findall(r'<script[^>]* id="data"[^>]*>(.*?)</script>', page, re.S)[0])
    for image in values["images"]:
        assert (tmp_path / values["thumbnails"] / image["thumb"]).is_file()
    remove_thumbnails(tmp_path)
    assert not (tmp_path / report.THUMBNAILS_NAME).exists()


def test_of_very_many_images_the_page_knows_the_surest_and_the_most_doubtful_and_counts_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "MAX_LISTED", 9)
    of = collection(40)
    found = clustering(of)
    sure = [replace(a, confidence=round(k / 40, 4)) for k, a in enumerate(found.assignments[:-1])]
    found = replace(found, assignments=(*sure, found.assignments[-1]))
    page = render_report([found], of, thumbnail, version="1")
    values = json.loads(re.findall(r'<script[^>]* id="data"[^>]*>(.*?)</script>', page, re.S)[0])
    (interest,) = values["interests"]
    shown = {values["images"][image]["paths"][0] for image, *_ in interest["assignments"]}
    of_cluster = {f"picture {k}.png" for k in (0, 1, 37, 38)}
    assert of_cluster <= shown and len(shown) == len(values["images"]) <= 9
    assert values["unlisted"] == 40 - len(values["images"])
    assert interest["totals"]["1"]["images"] == 39 == sum(interest["totals"]["1"]["bins"])
    assert interest["totals"]["0"] == {"images": 1, "files": 1, "mean": 0.0, "low": 1, "bins": [1] + [0] * 19}
    assert (interest["looked"], interest["images"]) == (40, 40)


def test_a_browser_loads_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip("no browser here")
    monkeypatch.setattr(report, "MAX_THUMBNAILS", 100)
    monkeypatch.setattr(report, "MAX_LISTED", 400)
    of = collection(500)
    page = render_report(
        [clustering(of)], of, thumbnail, version="1", beside=lambda name, jpeg: write_thumbnail(tmp_path, name, jpeg)
    )
    (tmp_path / "report.html").write_text(page)
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        tab = browser.new_page()
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto((tmp_path / "report.html").as_uri())
        tab.wait_for_function("[...document.images].some((image) => image.naturalWidth > 0)")
        assert "499" in tab.inner_text("#c1 .measures")
        assert "are in assignments.csv" in tab.inner_text("#colophon")
        assert said == []
        browser.close()


def test_an_approximate_graph_is_told_and_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")

    def sort() -> tuple[list[Event], tuple[str, ...]]:
        heard: list[Event] = []
        seen = see_world(WORLDS["free prose"], 500, 0, writes=False)
        return heard, asyncio.run(cluster_looks(seen.looks, seen.model, Settings(), heard.append)).notes

    monkeypatch.setattr(run, "EXACT_UP_TO", 100)
    monkeypatch.setattr("manylens.method.walk.build_graph", lambda *a, **k: build_graph(*a, **k, exact_up_to=100))
    heard, notes = sort()
    (said,) = [e.detail for e in heard if isinstance(e, StageFinished) and e.stage == "walk"]
    if "of the edges found" in said:  # else all were
        assert any("approximately (faiss)" in note for note in notes)
    assert not [e for e in heard if isinstance(e, Notice)]
    monkeypatch.setattr(run, "has_index", lambda: False)
    heard, notes = sort()
    (notice,) = [e.text for e in heard if isinstance(e, Notice)]
    assert "manylens[faiss]" in notice
