"""A run of 48 cards that nano sorted, its server, and a browser. Skipped where Playwright or Chromium is missing."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import manylens
from manylens.cli.sample import write_sample

pytest.importorskip("playwright", reason="the tests of the page need Playwright: pip install playwright")
pytest.importorskip("fastapi", reason="the page needs the extra [web]")

from playwright.sync_api import Browser, expect, sync_playwright
from web_page import Served

from web.eye import Eye

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CARDS_OF_A_SUIT = 12
PATIENCE_MS = 20_000
"""For a machine on which all else runs as well."""

expect.set_options(timeout=PATIENCE_MS)

HOSTILE = "<img src=x onerror=document.title=1>.jpg"
"""Of a picture: what a page that takes names for markup would run."""

SCRIPTS = ("בוקר טוב.jpg", "写真 一.jpg", "Grüße & <b>mehr.jpg", HOSTILE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM is None:
        for item in items:
            if "tests/web/" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason="no Chromium here: apt-get install chromium"))


@pytest.fixture(scope="session")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve cards of each suit, some with names of other scripts or with markup."""
    place = tmp_path_factory.mktemp("cards")
    images = write_sample(place / "sample")
    with (place / "sample" / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (place / "pictures").mkdir()
    taken: list[str] = []
    for suit in ("hearts", "spades", "diamonds", "clubs"):
        taken += [row["file"] for row in rows if row["suit"] == suit][:CARDS_OF_A_SUIT]
    for number, name in enumerate(taken):
        shutil.copy(images / name, place / "pictures" / (SCRIPTS[number] if number < len(SCRIPTS) else name))
    return place / "pictures"


@pytest.fixture(scope="session")
def sorted_cards(cards: Path) -> Path:
    return manylens.cluster(cards, ["suit", "color"], out=cards.parent / "out").out


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to, symlinks=True)
    return to


@pytest.fixture(scope="module")
def served(sorted_cards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server of a run of the module's own."""
    with Served(copied(sorted_cards, tmp_path_factory.mktemp("served") / "run")) as server:
        yield server


@pytest.fixture
def eye(browser: Browser, served: Served) -> Iterator[Eye]:
    yield from opened(browser, served)


def opened(browser: Browser, server: Served, **options: Any) -> Iterator[Eye]:
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en", **options})
    context.set_default_timeout(PATIENCE_MS)
    with context:
        seen = Eye(context.new_page(), server)
        seen.open()
        yield seen
        assert not seen.troubles, seen.troubles
