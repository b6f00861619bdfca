"""Make the pictures of the page in docs/images: `python docs/screenshots.py [--out RUN]`.

In: the demo's run, made where there is none. Out: gallery, picture, map, review, levels, cross-table and phone as JPEG,
some 100 kB each. It needs Playwright and a Chromium (`--browser`). A correction or two are made in a copy of the run.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parent / "images"
QUALITY = 76
DESK = {"width": 1280, "height": 800}
PHONE = {"width": 400, "height": 780}


def serve(run: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "manylens", "open", str(run), "--no-browser", "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r"http://\S+token=\S+", line):
            return server, found.group(0)
    raise SystemExit("the server ended before it said where it is")


def gallery(page: Any) -> None:
    page.evaluate("location.hash = 'by=suit&size=104'")
    drawn(page)
    for place in (1, 4, 5):
        tile = page.locator(".tile").nth(place)
        tile.hover()
        tile.locator(".tick").click()
    page.mouse.move(8, 500)


def picture(page: Any) -> None:
    page.evaluate("location.hash = 'by=rank'")
    drawn(page)
    page.locator(".tile").nth(2).click()
    page.wait_for_selector(".near img")
    page.wait_for_function("() => [...document.querySelectorAll('.glass img')].at(-1).naturalWidth > 0")


def map_of(page: Any) -> None:
    page.evaluate("location.hash = 'by=rank&view=map'")
    page.wait_for_selector(".tag")
    page.wait_for_selector(".picture")
    page.wait_for_function("() => [...document.querySelectorAll('.host .picture')].every(one => one.naturalWidth)")
    page.wait_for_timeout(8000)  # a better map follows the first sketch
    page.wait_for_function("() => [...document.querySelectorAll('.host .picture')].every(one => one.naturalWidth)")


def review(page: Any) -> None:
    page.evaluate("location.hash = 'by=rank&view=review'")
    for _ in range(6):
        shown = page.wait_for_selector(".sheet .glass img:last-child").get_attribute("src")
        page.keyboard.press("y")
        page.wait_for_function(
            "shown => [...document.querySelectorAll('.sheet .glass img')].at(-1)?.getAttribute('src') !== shown",
            arg=shown,
        )
    page.wait_for_function("() => [...document.querySelectorAll('.sheet .glass img')].at(-1)?.naturalWidth > 0")


def levels(page: Any) -> None:
    page.evaluate("location.hash = 'by=rank&size=80'")
    page.wait_for_selector(".level")
    page.locator(".level input").fill("6")
    page.wait_for_timeout(800)
    drawn(page)


def cross(page: Any) -> None:
    page.evaluate("location.hash = 'by=suit&view=cross&beside=rank'")
    page.wait_for_selector("tbody img")
    page.wait_for_function("() => [...document.querySelectorAll('tbody img')].every(one => one.naturalWidth)")


def drawn(page: Any) -> None:
    page.wait_for_function(
        """() => { const tiles = [...document.querySelectorAll('.tile')].filter(one => {
             const box = one.getBoundingClientRect(); return box.top < innerHeight && box.bottom > 0 });
             return tiles.length && tiles.every(one => one.querySelector('img')?.naturalWidth) }"""
    )


DESK_SHOTS: dict[str, Callable[[Any], None]] = {
    "web-gallery": gallery,
    "web-picture": picture,
    "web-map": map_of,
    "web-review": review,
    "web-levels": levels,
    "web-cross": cross,
}


def phone(page: Any) -> None:
    page.evaluate("location.hash = 'by=suit&size=88'")
    drawn(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a run of the demo; without it one is made")
    parser.add_argument("--browser", default=shutil.which("chromium"))
    parser.add_argument("--only", nargs="*", help="names of pictures")
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        run = Path(place) / "cards"
        if given.out is None:
            subprocess.run([sys.executable, "-m", "manylens", "demo", "--out", str(run)], check=True)
        else:
            shutil.copytree(given.out, run)
        server, address = serve(run)
        browser = playwright.chromium.launch(executable_path=given.browser, args=["--no-sandbox"])
        try:
            for name, shoot in [*DESK_SHOTS.items(), ("web-phone", phone)]:
                if given.only and name not in given.only:
                    continue
                is_phone = name == "web-phone"
                context = browser.new_context(
                    viewport=PHONE if is_phone else DESK,  # type: ignore[arg-type]
                    device_scale_factor=1.25,
                    color_scheme="dark" if is_phone else "light",
                    locale="en",
                )
                page = context.new_page()
                page.goto(address)
                drawn(page)
                shoot(page)
                page.wait_for_timeout(400)
                page.screenshot(path=IMAGES / f"{name}.jpg", type="jpeg", quality=QUALITY)
                context.close()
        finally:
            browser.close()
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
