"""How fast the page is: the first thumbnails of a large run, frames while scrolling and while the map moves, memory.

`python -m bench.web --images 50000 --out DIR` makes a run of so many pictures once (a scripted model sorts them; each
has a thumbnail of the usual size), serves it, opens it in a headless Chromium and prints one JSON object. Seconds are
from the navigation on; a frame is the time between two drawings. `--browser` names another Chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageFilter

from bench.worlds import INTEREST, WORLDS, draw_labels, ignore, scripted
from manylens.models.caching import CachingModel, open_account
from manylens.pipeline import cluster_images
from manylens.settings import Settings
from manylens.store.run_folder import RunFolder
from manylens.types import Image, Thumbnail

KINDS = 100
DRAWN = 400
"""Different thumbnails; pictures share them, as their bytes and not their look cost time."""

SHAPES = ((256, 171), (256, 192), (171, 256), (192, 256), (256, 256), (256, 144))

SCROLL_S = 10
SCREEN = {"width": 1440, "height": 900}


def thumbnails(seed: int) -> list[tuple[int, int, bytes]]:
    """Soft noise with some grain: as JPEG about as large as the thumbnail of a photograph, 8 to 14 kB."""
    dice = np.random.default_rng(seed)
    drawn = []
    for number in range(DRAWN):
        width, height = SHAPES[number % len(SHAPES)]
        small = dice.integers(0, 255, (5, 6, 3), dtype=np.uint8)
        soft = PillowImage.fromarray(small).resize((width, height), PillowImage.Resampling.BICUBIC)
        grain = PillowImage.fromarray(dice.integers(0, 255, (height, width, 3), dtype=np.uint8))
        picture = PillowImage.blend(soft, grain.filter(ImageFilter.GaussianBlur(1)), 0.25)
        buffer = BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        drawn.append((width, height, buffer.getvalue()))
    return drawn


async def make_run(out: Path, images: int, seed: int = 0) -> None:
    truth = draw_labels(images, KINDS, seed)
    model = scripted(WORLDS["30 wordings"], truth, seed, False)
    drawn = thumbnails(seed)
    settings = Settings(seed=seed)
    with RunFolder.open(out) as folder:
        of = {image_id: drawn[number % DRAWN] for number, image_id in enumerate(truth)}
        folder.put_thumbnails(Thumbnail(image_id, *drawn) for image_id, drawn in of.items())
        pictures = [
            Image(image_id, (f"{image_id[:2]}/{image_id[:12]}.jpg",), of[image_id][0] * 8, of[image_id][1] * 8)
            for image_id in sorted(truth)
        ]
        folder.record_collection(pictures, [], "/pictures")
        kept = CachingModel(model, folder, account=open_account(folder))
        kept.account.limit(settings)
        found = await cluster_images([image.id for image in pictures], [INTEREST], kept, settings, ignore)
        folder.record_clustering(found[INTEREST], settings)


def serve(out: Path) -> tuple[subprocess.Popen[str], str]:
    """The server, and the address with its token."""
    server = subprocess.Popen(
        [sys.executable, "-m", "manylens", "open", str(out), "--no-browser", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r"http://\S+token=\S+", line):
            return server, found.group(0)
    raise SystemExit("the server ended before it said where it is")


FRAMES = """seconds => new Promise(done => {
  const frames = []; let last = performance.now(); const end = last + seconds * 1000;
  const step = now => { frames.push(now - last); last = now; now < end ? requestAnimationFrame(step) : done(frames) };
  requestAnimationFrame(step);
})"""

# In one thread with the page: scrolls a screen every 400 ms, evenly, as a hand on a wheel does.
SCROLL = """() => {
  const gallery = document.querySelector('.gallery');
  let last = performance.now();
  const step = now => {
    gallery.scrollTop += (now - last) * 2.2;
    last = now;
    window.scrolling && requestAnimationFrame(step);
  };
  window.scrolling = true;
  requestAnimationFrame(step);
}"""

LEAP = """() => {
  const gallery = document.querySelector('.gallery'); let turn = 0;
  const step = () => {
    if (turn++ % 12 === 0) gallery.scrollTop = Math.random() * gallery.scrollHeight;
    window.scrolling && requestAnimationFrame(step);
  };
  window.scrolling = true; requestAnimationFrame(step);
}"""

SEEN = """() => {
  const bounds = document.querySelector('.gallery')?.getBoundingClientRect();
  if (!bounds) return false;
  const seen = [...document.querySelectorAll('.tile')].filter(tile => {
    const box = tile.getBoundingClientRect();
    return box.bottom > bounds.top && box.top < bounds.bottom;
  });
  const there = tile => { const image = tile.querySelector('img'); return image?.complete && image.naturalWidth > 0 };
  return seen.length > 0 && seen.every(there);
}"""

PAN = """() => {
  const host = document.querySelector('.host');
  const box = host.getBoundingClientRect();
  host.setPointerCapture = () => {};
  const send = (type, x) => host.dispatchEvent(new PointerEvent(type, {
    pointerId: 1, button: 0, buttons: 1, bubbles: true, clientX: box.left + x, clientY: box.top + 300,
  }));
  let turn = 0;
  send('pointerdown', 400);
  const step = () => {
    send('pointermove', 400 + 120 * Math.sin(turn++ / 15));
    window.scrolling && requestAnimationFrame(step);
  };
  window.scrolling = true;
  requestAnimationFrame(step);
}"""


def told(frames: list[float]) -> dict[str, float]:
    ordered = sorted(frames[2:])
    return {
        "frames_a_second": round(1000 / fmean(ordered), 1),
        "p95_ms": round(ordered[int(0.95 * (len(ordered) - 1))], 1),
        "longest_ms": round(ordered[-1], 1),
    }


def frames(page: Any, seconds: int) -> dict[str, float]:
    """Frames, and the processor time that the page's own thread takes for one, which no other work lengthens."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def worked_s() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    began = worked_s()
    drawn = page.evaluate(FRAMES, seconds)
    worked = worked_s() - began
    session.detach()
    return {**told(drawn), "work_a_frame_ms": round(1000 * worked / len(drawn), 1)}


def measure(address: str, browser_path: str, gpu: bool, server_s: Callable[[], float]) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    results: dict[str, Any] = {}
    with sync_playwright() as playwright:
        switches = ["--no-sandbox"] + ([] if gpu else ["--disable-gpu", "--disable-3d-apis"])
        browser = playwright.chromium.launch(executable_path=browser_path, args=switches)
        page = browser.new_page(viewport=SCREEN)  # type: ignore[arg-type]
        for visit in ("first", "again"):
            began = server_s()
            page.goto(address, wait_until="commit")
            page.wait_for_function(SEEN, polling="raf", timeout=60_000)
            results[f"thumbnails_seen_{visit}_s"] = round(page.evaluate("performance.now()") / 1000, 2)
            results[f"server_worked_{visit}_s"] = round(server_s() - began, 2)
            page.wait_for_timeout(1500)
        results["pictures_in_the_page"] = page.locator(".tile").count()
        for name, script in (("scrolling", SCROLL), ("leaping", LEAP)):
            page.evaluate(script)
            results[name] = frames(page, SCROLL_S)
            page.evaluate("window.scrolling = false")
            began = time.perf_counter()
            page.wait_for_function(SEEN, polling="raf", timeout=60_000)
            results[name]["pictures_there_after_s"] = round(time.perf_counter() - began, 2)
        page.evaluate("location.hash = 'view=map'")
        page.wait_for_selector(".host canvas")
        page.wait_for_selector(".tag", timeout=300_000)
        page.wait_for_timeout(1500)
        page.evaluate(PAN)
        results["map_panning"] = frames(page, 6)
        page.evaluate("window.scrolling = false")
        results["map_with_webgl"] = page.evaluate("!!document.createElement('canvas').getContext('webgl2')")
        browser.close()
    return results


def worked_s(process: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return round(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024)  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--without-webgl", action="store_true")
    given = parser.parse_args()
    if not (given.out / "run.sqlite").is_file():
        asyncio.run(make_run(given.out, given.images))
    server, address = serve(given.out)
    try:
        results = measure(address, given.browser, not given.without_webgl, lambda: worked_s(server.pid))
        results["server_peak_mb"] = peak_mb(server.pid)
    finally:
        server.terminate()
        server.wait()
    print(
        json.dumps({"images": given.images, "cores": os.cpu_count(), "load": os.getloadavg()[0], **results}, indent=2)
    )


if __name__ == "__main__":
    main()
