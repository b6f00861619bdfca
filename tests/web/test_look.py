"""Looking at a run: gallery, one picture, two interests, the map; in any script, language, size and light."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from web_page import Served

from web.conftest import HOSTILE, SCRIPTS, opened
from web.eye import Eye

pytestmark = pytest.mark.slow


def test_the_gallery_shows_every_cluster_with_its_pictures(eye: Eye) -> None:
    eye.see_gallery()
    counts = eye.clusters()
    assert sum(counts.values()) == 48
    expect(eye.page.get_by_role("heading", level=2, name=next(iter(counts)))).to_be_visible()
    expect(eye.page.locator(".facts")).to_contain_text("48 pictures")


def test_a_name_stands_in_the_strip_only_where_some_of_it_can_be_read(eye: Eye) -> None:
    eye.see_gallery()
    eye.page.evaluate(
        "() => document.querySelectorAll('.strip li').forEach((one, at) => (one.style.flexGrow = [60, 5, 3, 2][at]))"
    )
    spans = "() => [...document.querySelectorAll('.strip span')]"
    shown: list[int] = eye.page.evaluate(
        f"({spans})().filter(one => getComputedStyle(one).visibility === 'visible').map(one => one.clientWidth)"
    )
    assert 0 < len(shown) < 4
    assert min(shown) >= 30


def test_what_was_set_is_in_the_address_and_survives_a_reload(eye: Eye) -> None:
    eye.see_gallery()
    eye.page.get_by_label("Find names and descriptions").fill("写真")
    eye.see_gallery(1)
    eye.page.get_by_label("Order").select_option("path")
    eye.page.get_by_label("Size").fill("200")
    assert "sort=path" in eye.fragment and "size=200" in eye.fragment
    eye.page.reload()
    eye.see_gallery(1)
    expect(eye.page.get_by_label("Find names and descriptions")).to_have_value("写真")
    eye.page.get_by_role("button", name="Remove").click()
    expect(eye.tiles()).not_to_have_count(1)


def test_search_finds_words_of_descriptions(eye: Eye) -> None:
    eye.go("by=suit&q=hearts")
    eye.see_gallery()
    assert "hearts" in eye.clusters()
    eye.go("by=suit&q=nothing-of-the-kind")
    expect(eye.page.get_by_text("Nothing found")).to_be_visible()


def test_small_clusters_can_be_hidden_and_shown_again(eye: Eye) -> None:
    eye.go("by=suit&least=1000")
    expect(eye.tiles()).to_have_count(0)
    eye.page.get_by_role("button", name="Show all").click()
    eye.see_gallery()


def test_names_of_any_script_and_markup_are_text(eye: Eye) -> None:
    eye.go("by=suit&sort=path")
    eye.see_gallery()
    for name in SCRIPTS:
        with eye.page.expect_response(lambda answer: "/layout?" in answer.url and "q=" in answer.url):
            eye.page.get_by_label("Find names and descriptions").fill(name.split(".")[0][:12])
        eye.see_gallery(1)
        eye.tiles().first.click()
        expect(eye.page.locator(".path")).to_have_text(name)
        assert eye.page.locator(".path").evaluate("element => element.children.length") == 0
        eye.key("Escape")
    assert HOSTILE in SCRIPTS and eye.page.title() != "1"


def test_a_picture_says_why_it_is_where_it_is(eye: Eye) -> None:
    eye.see_gallery()
    first = eye.tiles().first
    first.click()
    dialog = eye.page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=1)).to_be_visible()
    for heading in ("What placed it", "In other interests", "Neighbours, with the weight of the edge", "File"):
        expect(dialog.get_by_role("heading", name=heading)).to_be_visible()
    expect(dialog.locator(".near img").first).to_be_visible()
    eye.page.wait_for_function("() => [...document.querySelectorAll('.glass img')].at(-1).naturalWidth > 0")
    before = eye.fragment
    eye.key("ArrowRight")
    eye.page.wait_for_function("before => location.hash !== before", arg=before)
    eye.page.reload()
    expect(eye.page.get_by_role("dialog")).to_be_visible()
    eye.key("Escape")
    expect(eye.page.get_by_role("dialog")).to_have_count(0)
    assert "image=" not in eye.fragment


def test_back_undoes_the_opening_of_a_picture(eye: Eye) -> None:
    eye.see_gallery()
    eye.tiles().nth(1).click()
    expect(eye.page.get_by_role("dialog")).to_be_visible()
    eye.page.go_back()
    expect(eye.page.get_by_role("dialog")).to_have_count(0)


def test_the_keyboard_reaches_every_picture_and_help_says_how(eye: Eye) -> None:
    eye.see_gallery()
    eye.tiles().first.focus()
    eye.key("ArrowRight", "ArrowDown", "PageDown")
    second = list(eye.clusters())[1]
    expect(eye.tile_of(second, 1)).to_be_focused()
    eye.key("Enter")
    expect(eye.page.get_by_role("dialog")).to_be_visible()
    eye.key("Escape")
    eye.key("?")
    expect(eye.page.get_by_role("dialog", name="Keys")).to_be_visible()
    eye.key("Escape")
    expect(eye.page.get_by_role("dialog")).to_have_count(0)
    eye.key("]")
    expect(eye.page.get_by_role("button", name=re.compile("^color"))).to_have_attribute("aria-current", "page")


def test_two_interests_side_by_side_and_their_cross_table(eye: Eye) -> None:
    eye.see_gallery()
    eye.page.get_by_label("Beside").select_option("color")
    expect(eye.page.locator(".gallery")).to_have_count(2)
    eye.page.get_by_role("button", name="Cross-table").click()
    expect(eye.page.get_by_role("table")).to_be_visible()
    cell = eye.page.locator("tbody button").first
    count = int(cell.inner_text())
    cell.click()
    expect(eye.page.locator(".facts").first).to_contain_text("pictures")
    expect(eye.page.locator(".chip")).to_contain_text("also in")
    assert sum(eye.clusters().values()) >= count


def test_the_map_draws_all_pictures_and_a_lasso_chooses(eye: Eye) -> None:
    eye.go("view=map")
    expect(eye.page.locator(".tag").first).to_be_visible()
    eye.page.get_by_role("button", name="Lasso").click()
    box = eye.page.locator(".host").bounding_box()
    assert box is not None
    low, right = box["height"] - 4, box["width"] - 4
    eye.page.mouse.move(box["x"] + 4, box["y"] + low)
    eye.page.mouse.down()
    for x, y in ((4, 4), (right, 4), (right, low), (4, low)):
        eye.page.mouse.move(box["x"] + x, box["y"] + y, steps=4)
    eye.page.mouse.up()
    expect(eye.page.get_by_role("region", name="Chosen pictures")).to_contain_text("48 chosen")


def test_the_page_speaks_german(eye: Eye) -> None:
    eye.see_gallery()
    eye.page.get_by_role("button", name="More").click()
    eye.page.get_by_label("Language").select_option("de")
    expect(eye.page.get_by_role("button", name="Kreuztabelle")).to_be_visible()
    assert eye.page.evaluate("document.documentElement.lang") == "de"
    eye.page.reload()
    expect(eye.page.get_by_role("button", name="Kreuztabelle")).to_be_visible()


@pytest.fixture(params=["light", "dark", "phone"])
def other(request: pytest.FixtureRequest, browser: Browser, served: Served) -> Iterator[Eye]:
    options: dict[str, dict[str, Any]] = {
        "light": {"color_scheme": "light"},
        "dark": {"color_scheme": "dark"},
        "phone": {"viewport": {"width": 400, "height": 780}},
    }
    yield from opened(browser, served, **options[request.param])


def test_axe_finds_nothing_to_complain_of(other: Eye) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python").Axe()
    for fragment in ("", "view=map", "view=review", "view=cross", "view=compare", "by=color&beside=suit"):
        other.go(fragment)
        expect(other.page.locator("main > *").first).to_be_visible()
        found = axe.run(other.page)
        assert not found.violations_count, f"{fragment}: {found.generate_report()}"
    other.go("")
    other.see_gallery()
    other.tiles().first.click()
    expect(other.page.get_by_role("heading", name="File")).to_be_visible()
    found = axe.run(other.page)
    assert not found.violations_count, found.generate_report()
    other.key("Escape")
    for button, name in (("Add an interest", "Add an interest"), ("More", "")):
        other.page.get_by_role("button", name=button).first.click()
        if name:
            expect(other.page.get_by_role("dialog", name=name)).to_be_visible()
        found = axe.run(other.page)
        assert not found.violations_count, f"{button}: {found.generate_report()}"
        other.key("Escape")


def test_nothing_hangs_out_of_a_phone(browser: Browser, served: Served) -> None:
    for eye in opened(browser, served, viewport={"width": 400, "height": 780}):
        for fragment in ("", "view=map", "view=review", "view=cross", "view=compare"):
            eye.go(fragment)
            expect(eye.page.locator("main > *").first).to_be_visible()
            assert eye.page.evaluate("document.documentElement.scrollWidth") <= 400, fragment
