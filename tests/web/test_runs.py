"""Runs begun from the page: another interest, a new start from a folder; watched, cancelled, continued; exports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from web_page import Served

from web.conftest import copied, opened
from web.eye import Eye

pytestmark = pytest.mark.slow

RUN_MS = 120_000
"""For 48 pictures by nano on a machine that is busy."""


@pytest.fixture
def own(browser: Browser, sorted_cards: Path, tmp_path: Path) -> Iterator[Eye]:
    with Served(copied(sorted_cards, tmp_path / "run")) as server:
        yield from opened(browser, server, permissions=["clipboard-read", "clipboard-write"])


def test_another_interest_is_added_watched_and_shown(own: Eye) -> None:
    own.see_gallery()
    own.page.get_by_role("button", name="Add an interest").click()
    own.page.get_by_label("What are you interested in?").fill("rank")
    own.page.get_by_role("button", name="What will it take?").click()
    expect(own.page.get_by_text(re.compile(r"48 pictures, \d+ to \d+ calls"))).to_be_visible()
    own.page.get_by_role("button", name="Sort", exact=True).click()
    card = own.page.get_by_role("article", name="rank")
    expect(card).to_contain_text("calls")
    own.page.reload()
    own.page.get_by_role("button", name="Add an interest").click()
    expect(own.page.get_by_role("article", name="rank")).to_be_visible()
    expect(card).to_contain_text("done", timeout=RUN_MS)
    card.get_by_role("button", name="Show").click()
    expect(own.page.get_by_role("button", name=re.compile("^rank"))).to_have_attribute("aria-current", "page")
    own.see_gallery()


def test_interests_are_suggested_and_one_is_tried_on_a_few(own: Eye) -> None:
    own.see_gallery()
    own.page.get_by_role("button", name="Add an interest").click()
    own.page.get_by_role("button", name="Suggest interests").click()
    found = own.page.get_by_role("region", name="Interests that these pictures suggest")
    expect(found).to_be_visible(timeout=RUN_MS)
    first = found.get_by_role("button").first
    interest = first.inner_text()
    first.click()
    expect(own.page.get_by_label("What are you interested in?")).to_have_value(interest)
    own.page.get_by_role("button", name="Try on a few").click()
    expect(own.page.get_by_role("region", name=interest)).to_contain_text(re.compile(r"\d"), timeout=RUN_MS)


def test_a_run_is_cancelled_and_continued(browser: Browser, cards: Path, tmp_path: Path) -> None:
    whole = cards.parent / "sample" / "images"
    with Served(whole, "--out", str(tmp_path / "new")) as server:
        for eye in opened(browser, server):
            eye.page.get_by_label("What are you interested in?").fill("rank")
            eye.page.get_by_role("button", name="Sort", exact=True).click()
            card = eye.page.get_by_role("article", name="rank")
            card.get_by_role("button", name="Cancel").click()
            expect(card).to_contain_text("cancelled", timeout=RUN_MS)
            card.get_by_role("button", name="Continue").click()
            running = eye.page.get_by_role("article", name="rank").first
            expect(running).to_contain_text(re.compile("running|done"), timeout=RUN_MS)
            eye.page.reload()
            expect(running.or_(eye.page.locator(".gallery")).first).to_be_visible()


def test_a_folder_that_was_never_sorted_asks_what_is_of_interest(browser: Browser, cards: Path, tmp_path: Path) -> None:
    with Served(cards, "--out", str(tmp_path / "new")) as server:
        for eye in opened(browser, server):
            eye.page.get_by_label("What are you interested in?").fill("suit")
            eye.page.get_by_role("button", name="Sort", exact=True).click()
            expect(eye.page.locator(".gallery")).to_be_visible(timeout=RUN_MS)
            eye.see_gallery()
            assert sum(eye.clusters().values()) == 48


def test_an_export_is_shown_before_it_is_written(own: Eye, tmp_path: Path) -> None:
    own.see_gallery()
    own.page.get_by_role("button", name="More").click()
    own.page.get_by_role("button", name="Export").click()
    dialog = own.page.get_by_role("dialog", name="Export")
    dialog.get_by_label("Form").select_option("folders")
    dialog.get_by_label("Interest").select_option("suit")
    dialog.get_by_label("Where to").fill(str(tmp_path / "there"))
    dialog.get_by_role("button", name="Preview").click()
    expect(dialog.get_by_role("status")).to_contain_text("Would write")
    assert not (tmp_path / "there").exists()
    dialog.get_by_role("button", name="Export").click()
    expect(dialog.get_by_role("status")).to_contain_text("written")
    assert len(list((tmp_path / "there").rglob("*.jpg"))) >= 48


def test_the_command_that_repeats_it_all_can_be_copied(own: Eye) -> None:
    own.see_gallery()
    own.page.get_by_role("button", name="More").click()
    own.page.get_by_role("button", name="The same as a command").click()
    own.page.get_by_role("button", name="Copy").click()
    expect(own.page.locator(".toast")).to_contain_text("Copied")
    assert "manylens cluster" in own.page.evaluate("navigator.clipboard.readText()")
