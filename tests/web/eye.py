"""What a person sees and does on the page."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Locator, Page, expect
from web_page import Served


class Eye:
    """troubles: what the browser complained of; a test that ends with one fails."""

    def __init__(self, page: Page, server: Served) -> None:
        self.page, self.server = page, server
        self.troubles: list[str] = []
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on(
            "console",
            lambda line: self.troubles.append(line.text) if "Content Security Policy" in line.text else None,
        )

    def open(self, fragment: str = "") -> None:
        self.page.goto(f"{self.server.address}/?token={self.server.token}")
        if fragment:
            self.go(fragment)

    def go(self, fragment: str) -> None:
        self.page.evaluate("fragment => { location.hash = fragment }", fragment)

    @property
    def fragment(self) -> str:
        return str(self.page.evaluate("location.hash"))

    def tiles(self) -> Locator:
        return self.page.locator(".tile")

    def see_gallery(self, pictures: int | None = None) -> None:
        """Wait until its thumbnails are drawn."""
        if pictures is not None:
            expect(self.tiles()).to_have_count(pictures)
        self.page.wait_for_function(
            """() => { const tiles = [...document.querySelectorAll('.tile')];
              return tiles.length && tiles.slice(0, 8).every(tile => tile.querySelector('img')?.naturalWidth) }"""
        )

    def section(self, cluster: str) -> Locator:
        return self.page.get_by_role("region", name=cluster, exact=True).and_(self.page.locator(".cluster"))

    def clusters(self) -> dict[str, int]:
        """The clusters by name, in order, with their numbers of pictures, from the strip above the gallery."""
        labels = self.page.locator(".strip button").evaluate_all(
            "buttons => buttons.map(one => ['span', 'small'].map(part => one.querySelector(part).textContent))"
        )
        return {name: int(re.sub(r"\D", "", count)) for name, count in labels}

    def expect_clusters(self, **counts: int) -> None:
        for name, count in counts.items():
            expect(self.page.locator(f'.strip button[title="{name}"] small')).to_have_text(str(count))

    def tile_of(self, cluster: str, place: int) -> Locator:
        """The picture at a place of a cluster, from 1."""
        return self.page.get_by_role("option", name=re.compile(rf"^{re.escape(cluster)}, {place} of "))

    def choose(self, *tiles: Locator) -> None:
        for tile in tiles:
            tile.hover()
            tile.locator(".tick").click()

    def said(self) -> Locator:
        return self.page.locator(".toast").last

    def key(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def drag(self, source: Locator, target: Locator) -> None:
        """Target may appear only while something is in hand."""
        at = source.bounding_box()
        assert at is not None
        self.page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
        self.page.mouse.down()
        self.page.mouse.move(at["x"] + at["width"] / 2 + 20, at["y"] + at["height"] / 2 + 20, steps=3)
        to = target.bounding_box()
        assert to is not None
        self.page.mouse.move(to["x"] + to["width"] / 2, to["y"] + to["height"] / 2, steps=3)
        self.page.mouse.up()

    def ask(self, path: str) -> Any:
        """What the server says to the page, as JSON."""
        return self.page.evaluate("path => fetch(path).then(answer => answer.json())", path)
