"""Correcting a run on the page: by drag, by keyboard, undone, done again, in two tabs, past a reload and a restart."""

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


@pytest.fixture
def run(sorted_cards: Path, tmp_path: Path) -> Path:
    return copied(sorted_cards, tmp_path / "run")


@pytest.fixture
def own(browser: Browser, run: Path) -> Iterator[Eye]:
    """A page on a run that no other test sees."""
    with Served(run) as server:
        yield from opened(browser, server)


def test_pictures_are_dragged_from_cluster_to_cluster_and_back(own: Eye) -> None:
    own.see_gallery()
    counts = own.clusters()
    own.drag(own.tile_of("hearts", 1), own.page.locator(".rail .item", has_text="spades"))
    expect(own.said()).to_contain_text("1 picture moved to spades")
    own.expect_clusters(hearts=counts["hearts"] - 1, spades=counts["spades"] + 1)
    assert list(own.clusters()) == list(counts), "the clusters stay where they stood"
    own.said().get_by_role("button", name="Undo").click()
    own.expect_clusters(**counts)
    own.key("Control+Shift+z")
    own.expect_clusters(hearts=counts["hearts"] - 1, spades=counts["spades"] + 1)
    own.page.reload()
    own.see_gallery()
    own.expect_clusters(hearts=counts["hearts"] - 1, spades=counts["spades"] + 1)
    expect(own.page.get_by_title("Undo")).to_be_enabled()


def test_a_drop_beside_everything_changes_nothing(own: Eye) -> None:
    own.see_gallery()
    counts = own.clusters()
    own.drag(own.tile_of("hearts", 1), own.page.locator(".tabs"))
    expect(own.page.locator(".rail")).to_have_count(0)
    assert own.clusters() == counts
    expect(own.page.locator(".toast")).to_have_count(0)


def test_the_keyboard_alone_moves_makes_and_unassigns(own: Eye) -> None:
    own.see_gallery()
    counts = own.clusters()
    own.tile_of("hearts", 1).focus()
    own.key("x", "Shift+ArrowRight", "m")
    own.page.keyboard.type("diam")
    own.key("Enter")
    own.expect_clusters(hearts=counts["hearts"] - 2, diamonds=counts["diamonds"] + 2)
    own.tile_of("hearts", 1).focus()
    own.key("x", "c")
    own.page.keyboard.type("Herzen ♥")
    own.key("Enter")
    made = own.page.get_by_role("list", name="Clusters").get_by_role("button", name="Herzen ♥")
    expect(made).to_be_visible()
    own.tile_of("hearts", 1).focus()
    own.key("x", "u")
    expect(own.page.locator(".strip .loose")).to_contain_text("1")
    own.key("Control+z")
    expect(own.page.locator(".strip .loose")).to_have_count(0)
    own.key("Control+z")
    expect(made).to_have_count(0)
    own.key("Control+z")
    own.expect_clusters(**counts)
    expect(own.page.get_by_title("Undo")).to_be_disabled()


def test_clusters_are_renamed_merged_and_split(own: Eye) -> None:
    own.see_gallery()
    counts = own.clusters()
    own.page.get_by_role("button", name="Change “hearts”").click()
    own.page.get_by_label("Its name").fill("<i>Cœurs</i>")
    own.key("Enter")
    heading = own.page.get_by_role("heading", name="<i>Cœurs</i>")
    expect(heading).to_be_visible()
    assert heading.evaluate("element => element.children.length") == 0
    own.page.get_by_role("button", name="Change “<i>Cœurs</i>”").click()
    own.page.get_by_role("button", name="Merge into").click()
    own.page.keyboard.type("spades")
    own.key("Enter")
    own.expect_clusters(spades=counts["spades"] + counts["hearts"])
    own.page.get_by_title("Undo").click()
    own.expect_clusters(spades=counts["spades"])
    own.choose(own.tile_of("spades", 1), own.tile_of("spades", 2))
    own.page.get_by_role("button", name="Change “spades”").click()
    own.page.get_by_role("button", name="Split off 2 chosen pictures").click()
    own.expect_clusters(spades=counts["spades"] - 2)
    assert len(own.clusters()) == len(counts) + 1


def test_not_this_and_right_here(own: Eye) -> None:
    own.see_gallery()
    counts = own.clusters()
    own.choose(own.tile_of("hearts", 2))
    own.key("y")
    expect(own.said()).to_contain_text("confirmed in hearts")
    expect(own.page.locator(".sure.person")).to_have_count(1)
    own.choose(own.tile_of("hearts", 3))
    own.key("n")
    expect(own.said()).to_contain_text("not hearts")
    own.expect_clusters(hearts=counts["hearts"] - 1)


def test_a_frame_and_shift_choose_many(own: Eye) -> None:
    own.see_gallery()
    own.choose(own.tile_of("hearts", 1))
    own.tile_of("hearts", 5).click(modifiers=["Shift"])
    expect(own.page.get_by_role("region", name="Chosen pictures")).to_contain_text("5 chosen")
    own.key("Escape")
    expect(own.page.get_by_role("region", name="Chosen pictures")).to_have_count(0)
    first, last = own.tile_of("hearts", 1).bounding_box(), own.tile_of("hearts", 3).bounding_box()
    assert first is not None and last is not None
    own.page.mouse.move(first["x"] - 12, first["y"] - 6)
    own.page.mouse.down()
    own.page.mouse.move(last["x"] + 20, last["y"] + 20, steps=5)
    expect(own.page.get_by_role("region", name="Chosen pictures")).to_contain_text("3 chosen")
    own.page.mouse.up()
    expect(own.page.get_by_role("region", name="Chosen pictures")).to_contain_text("3 chosen")


def test_two_tabs_agree(own: Eye) -> None:
    own.see_gallery()
    other = Eye(own.page.context.new_page(), own.server)
    other.open()
    other.see_gallery()
    counts = own.clusters()
    own.drag(own.tile_of("hearts", 1), own.page.locator(".rail .item", has_text="clubs"))
    other.expect_clusters(hearts=counts["hearts"] - 1, clubs=counts["clubs"] + 1)
    other.page.get_by_title("Undo").click()
    own.expect_clusters(**counts)


def test_the_page_goes_on_when_the_server_was_restarted(browser: Browser, run: Path) -> None:
    with Served(run) as first:
        port = first.address.rsplit(":", 1)[1]
        for eye in opened(browser, first):
            eye.see_gallery()
            counts = eye.clusters()
            eye.drag(eye.tile_of("hearts", 1), eye.page.locator(".rail .item", has_text="clubs"))
            eye.expect_clusters(clubs=counts["clubs"] + 1)
            first.process.kill()
            first.process.wait()
            expect(eye.page.get_by_text("The server does not answer")).to_be_visible(timeout=15_000)
            with Served(run, "--port", port):
                expect(eye.page.get_by_text("The server does not answer")).to_have_count(0, timeout=15_000)
                eye.key("Control+z")
                eye.expect_clusters(**counts)


def test_a_run_that_is_only_read_offers_nothing_that_would_change_it(browser: Browser, run: Path) -> None:
    with Served(run, "--read-only") as server:
        for eye in opened(browser, server):
            eye.see_gallery()
            expect(eye.page.get_by_text("Read only")).to_be_visible()
            for name in ("Undo", "Sort again", "Add an interest"):
                expect(eye.page.get_by_role("button", name=name)).to_have_count(0)
            expect(eye.page.get_by_role("button", name=re.compile("^Change"))).to_have_count(0)
            eye.drag(eye.tiles().first, eye.page.locator(".facts"))
            expect(eye.page.locator(".toast")).to_have_count(0)


def test_a_picture_that_was_deleted_keeps_its_place_and_says_so(browser: Browser, cards: Path, run: Path) -> None:
    gone = sorted(cards.iterdir())[-1]
    content = gone.read_bytes()
    gone.unlink()
    try:
        with Served(run) as server:
            for eye in opened(browser, server):
                eye.go(f"q={gone.stem}")
                eye.see_gallery(1)
                eye.tiles().first.click()
                expect(eye.page.get_by_text("no longer where it was")).to_be_visible()
                expect(eye.page.get_by_role("button", name="Show in folder")).to_have_count(0)
    finally:
        gone.write_bytes(content)
