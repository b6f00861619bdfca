"""How fast nano looks and judges here, how soon it is loaded, and what memory a run takes.

`python -m bench.speed [--images 312] [--folder DIR]` draws sample cards, prints a Markdown table. Numbers are
of this machine and moment; compare only rows of one run. `--folder` also says what a second interest on the pictures of
a folder costs against the first, with and without the reading of the files.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import manylens
from manylens.collection.find import find_images
from manylens.collection.pictures import StoredImages
from manylens.events import Event, StageFinished, StageStarted
from manylens.models.base import JudgeRequest, LookRequest
from manylens.models.nano.model import Nano
from training.draw_cards import write_sample


def seconds_of(command: list[str]) -> float:
    """The best of three runs of a command."""
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - began)
    return best


def compare_interests(folder: Path, out: Path) -> list[tuple[str, str]]:
    """What three interests on a folder cost, one run after the other: reading and looks, and the looks alone."""
    costs: list[tuple[float, float]] = []
    for interest in ("kind of object", "color of the object", "main color"):
        began: dict[str, float] = {}
        took: dict[str, float] = {}

        def clock(event: Event, began: dict[str, float] = began, took: dict[str, float] = took) -> None:
            match event:
                case StageStarted(stage=stage):
                    began[stage] = time.perf_counter()
                case StageFinished(stage=stage):
                    took[stage] = time.perf_counter() - began[stage]

        manylens.cluster(folder, by=interest, out=out, on_event=clock)
        costs.append((took["read"] + took["look"], took["look"]))
    return [
        (
            f"{what}, {words} interest on {folder.name}",
            f"{costs[0][at]:.1f} s, then {costs[place][at] / costs[0][at]:.2f}",
        )
        for place, words in ((1, "second"), (2, "third"))
        for at, what in enumerate(("reading and looks", "looks"))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=312)
    parser.add_argument("--folder", type=Path, help="pictures of your own: the price of a second interest on them")
    options = parser.parse_args()
    wanted = options.images
    rows: list[tuple[str, str]] = [("cores", str(os.cpu_count()))]
    rows.append(("`manylens --help`", f"{seconds_of([sys.executable, '-m', 'manylens', '--help']):.2f} s"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_sample(Path(scratch) / "sample", images_per_card=max(1, wanted // 52))
        thumbnails: dict[str, bytes] = {}
        collection = find_images(folder, keep=lambda found: thumbnails.update({t.image_id: t.jpeg for t in found}))
        images = StoredImages(collection.root, collection.images, thumbnails.__getitem__)
        nano = Nano(images)
        ids = [image.id for image in collection.images]
        began = time.perf_counter()
        asyncio.run(nano.look([LookRequest("warm up", ids[0])]))
        rows.append(("load and first look", f"{time.perf_counter() - began:.2f} s"))
        for interest, what in (("suit", "looks, first interest"), ("rank", "looks, second interest")):
            nano_ids = [LookRequest(interest, image_id) for image_id in ids]
            began = time.perf_counter()
            asyncio.run(nano.look(nano_ids))
            rows.append((what, f"{len(ids) / (time.perf_counter() - began):.1f} images/s"))
        asked = [JudgeRequest("suit", "hearts", "", (), image_id) for image_id in ids[:100]]
        began = time.perf_counter()
        asyncio.run(nano.judge(asked))
        rows.append(("judgements", f"{len(asked) / (time.perf_counter() - began):.1f} a second"))
        began = time.perf_counter()
        manylens.cluster(folder, by=["suit"], out=Path(scratch) / "run")
        rows.append((f"whole run, {len(ids)} images, one interest", f"{time.perf_counter() - began:.0f} s"))
        if options.folder:
            rows += compare_interests(options.folder, Path(scratch) / "folder-run")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(("peak memory", f"{peak_mb:,.0f} MB"))
    print("| measure | value |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
