"""Coarser and finer clusters by a slider, and two runs beside each other."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from web_page import Served

import manylens
from manylens.types import Clustering
from web.conftest import copied, opened
from web.eye import Eye

pytestmark = pytest.mark.slow

RUN_MS = 120_000
"""For 48 pictures by nano on a machine that is busy."""


@pytest.fixture
def own(browser: Browser, sorted_cards: Path, tmp_path: Path) -> Iterator[Eye]:
    with Served(copied(sorted_cards, tmp_path / "run")) as server:
        yield from opened(browser, server)


def strip_of(eye: Eye, count: int) -> dict[str, int]:
    expect(eye.page.locator(".strip li")).to_have_count(count)
    return eye.clusters()


def test_the_slider_merges_and_splits_before_the_eye_and_changes_nothing(own: Eye) -> None:
    own.see_gallery()
    as_sorted = strip_of(own, 4)
    slider = own.page.get_by_role("slider", name="How fine")
    slider.focus()
    own.key("ArrowLeft", "ArrowLeft")
    two = strip_of(own, 2)
    expect(slider).to_have_attribute("aria-valuetext", "2 clusters")
    own.see_gallery(48)
    assert sorted(two.values()) == [24, 24]
    for name in two:
        expect(own.page.get_by_role("heading", level=2, name=name, exact=True)).to_be_attached()
    assert "level=2" in own.fragment
    own.page.reload()
    assert strip_of(own, 2) == two, "the address keeps the level"
    slider.fill("3")
    assert sum(strip_of(own, 3).values()) == 48
    own.choose(own.tiles().first)
    own.key("u")
    expect(own.said()).to_contain_text("go back to them first")
    own.page.get_by_role("button", name="as sorted").click()
    assert strip_of(own, 4) == as_sorted
    assert own.ask("/api/interests/suit")["clusters"] == 4
    assert not own.ask("/api/interests/suit")["can_undo"]


def test_a_level_that_is_kept_becomes_the_clustering(own: Eye) -> None:
    own.see_gallery()
    own.page.get_by_role("slider", name="How fine").fill("2")
    strip_of(own, 2)
    own.page.get_by_role("button", name="keep this level").click()
    expect(own.page.get_by_role("article", name="suit").first).to_contain_text("done", timeout=RUN_MS)
    own.key("Escape")
    assert "level=" not in own.fragment
    assert sorted(strip_of(own, 2).values()) == [24, 24]
    assert own.ask("/api/interests/suit")["clusters"] == 2


def spades_of(clustering: Clustering) -> int:
    return next(cluster.id for cluster in clustering.clusters if cluster.name == "spades")


def test_two_runs_are_compared_cluster_by_cluster_with_what_moved(
    browser: Browser, sorted_cards: Path, tmp_path: Path
) -> None:
    here, there = copied(sorted_cards, tmp_path / "here"), copied(sorted_cards, tmp_path / "there")
    result = manylens.correct(there, "suit", [{"kind": "rename", "cluster": "hearts", "name": "Herz"}])
    moved = [a.image_id for a in result.after.assignments if a.cluster == spades_of(result.after)][:3]
    manylens.correct(there, "suit", [{"kind": "move", "images": moved, "cluster": "Herz"}])
    with Served(here, str(there)) as server, contextlib.contextmanager(opened)(browser, server) as eye:
        eye.go("view=compare&by=suit")
        expect(eye.page.get_by_text("45 of 48 pictures are in matching clusters.")).to_be_visible()
        table = eye.page.get_by_role("table", name="Compare")
        row = table.get_by_role("row", name=re.compile("hearts"))
        expect(row).to_contain_text("Herz")
        expect(row.get_by_role("img")).to_have_attribute(
            "aria-label", "12 in both, 0 only in the first, 3 only in the second"
        )
        expect(eye.page.get_by_role("heading", name="3 pictures elsewhere")).to_be_visible()
        pictures = eye.page.locator(".compare li button")
        expect(pictures).to_have_count(3)
        eye.page.wait_for_function("() => document.querySelector('.compare li img').naturalWidth > 0")
        pictures.first.click()
        expect(eye.page.get_by_role("dialog").locator(".path")).to_be_visible()
        eye.key("Escape")
        eye.page.locator(".compare select").nth(1).select_option("color")
        expect(eye.page.get_by_text("24 of 48 pictures are in matching clusters.")).to_be_visible()


def test_without_a_second_run_it_says_how_to_open_one(eye: Eye) -> None:
    eye.go("view=compare&by=suit")
    expect(eye.page.get_by_text("manylens open OUT OTHER")).to_be_visible()
    expect(eye.page.locator(".compare select")).to_have_count(0)
