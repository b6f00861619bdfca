"""The review queue: one key an answer, and the estimate falls; sorting again is foreseen before it is applied."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from test_add import put
from web_page import Served

import manylens
from manylens.models.scripted import ScriptedModel
from manylens.types import CANNOT_TELL
from web.conftest import copied, opened
from web.eye import Eye

pytestmark = pytest.mark.slow


@pytest.fixture
def own(browser: Browser, sorted_cards: Path, tmp_path: Path) -> Iterator[Eye]:
    with Served(copied(sorted_cards, tmp_path / "run")) as server:
        yield from opened(browser, server)


def answered(eye: Eye, key: str) -> None:
    """Press it, and wait for the next question. While an answer is under way, keys say nothing."""
    expect(eye.page.locator(".answers .button").first).to_be_enabled()
    asked = eye.page.locator(".sheet .glass img").last.get_attribute("src")
    eye.key(key)
    eye.page.wait_for_function(
        "asked => [...document.querySelectorAll('.sheet .glass img')].at(-1)?.getAttribute('src') !== asked", arg=asked
    )


def test_one_key_answers_and_the_estimate_falls(own: Eye) -> None:
    own.go("view=review&by=suit")
    expect(own.page.get_by_role("button", name="Yes")).to_be_visible()

    def estimate() -> float:
        return float(own.page.locator(".share").inner_text().rstrip("%"))

    before = estimate()
    for _ in range(8):
        answered(own, "y")
    expect(own.page.get_by_text("8 answered.")).to_be_visible()
    assert estimate() < before
    own.page.reload()
    expect(own.page.get_by_role("button", name="Yes")).to_be_visible()
    assert estimate() < before, "the answers are kept"
    assert own.ask("/api/interests/suit")["can_undo"]


def test_no_which_and_skip(own: Eye) -> None:
    own.go("view=review&by=suit")
    expect(own.page.get_by_role("button", name="Yes")).to_be_visible()
    answered(own, "s")
    assert not own.ask("/api/interests/suit")["can_undo"], "to skip is to say nothing"
    answered(own, "n")
    assert own.ask("/api/interests/suit/corrections")["corrections"][-1]["kind"] == "not"
    other = own.page.locator(".question ol button .name").first.inner_text()
    answered(own, "1")
    last = own.ask("/api/interests/suit/corrections")["corrections"][-1]
    assert last["kind"] == "move" and other in last["text"]
    own.key("Control+z", "Control+z")
    expect(own.page.get_by_title("Undo")).to_be_disabled()


def test_a_picture_in_no_cluster_stays_there_by_a_key_and_one_in_a_cluster_leaves_it(
    browser: Browser, tmp_path: Path
) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(3))
    unseen = ("red-wide-0.png", "green-wide-0.png", "green-tall-0.png")
    color = {
        hashlib.sha256(path.read_bytes()).hexdigest(): CANNOT_TELL if path.name in unseen else path.name.split("-")[0]
        for path in (tmp_path / "pictures").iterdir()
    }
    some = ScriptedModel({"color": color})
    out = manylens.cluster(tmp_path / "pictures", "color", model=some, out=tmp_path / "run").out

    def kinds() -> list[str]:
        return [one["kind"] for one in eye.ask("/api/interests/color/corrections")["corrections"]]

    with Served(out) as server, contextlib.contextmanager(opened)(browser, server) as eye:
        eye.go("view=review&by=color")
        expect(eye.page.get_by_role("heading", name="Where does it belong?")).to_be_visible()
        expect(eye.page.get_by_role("button", name="Yes")).to_have_count(0)
        eye.key("y")
        answered(eye, "u")
        answered(eye, "u")
        assert kinds() == ["unassign", "unassign"]
        answered(eye, "1")
        expect(eye.page.get_by_role("button", name="In no cluster")).to_be_visible()
        answered(eye, "u")
        assert kinds() == ["unassign", "unassign", "move", "unassign"]
        assert eye.ask("/api/interests/color")["unassigned"] == 3


def test_sorting_again_says_what_it_would_change(own: Eye) -> None:
    own.see_gallery()
    own.drag(own.tile_of("hearts", 1), own.page.locator(".rail .item", has_text="spades"))
    expect(own.said()).to_contain_text("moved to spades")
    own.page.get_by_role("button", name="Sort again").click()
    dialog = own.page.get_by_role("dialog", name="Sort again")
    expect(dialog.get_by_role("status")).to_contain_text("Your corrections touch")
    dialog.get_by_role("button", name="Ask the model").click()
    expect(dialog.get_by_role("status")).to_contain_text("change", timeout=120_000)
    own.key("Escape")
    own.expect_clusters(spades=13)
