"""How fast nano looks and judges here, how soon it is loaded, and what memory a run takes.

`python -m bench.speed [--images 312]` draws sample cards, prints a Markdown table. Numbers are of this machine and moment;
compare only rows of one run.
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
from manylens.images import StoredImages, find_images
from manylens.models.base import JudgeRequest, LookRequest
from manylens.models.nano import Nano
from manylens.sample import write_sample


def seconds_of(command: list[str]) -> float:
    """The best of three runs of a command."""
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - began)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=312)
    wanted = parser.parse_args().images
    rows: list[tuple[str, str]] = [("cores", str(os.cpu_count()))]
    rows.append(("`manylens --help`", f"{seconds_of([sys.executable, '-m', 'manylens', '--help']):.2f} s"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_sample(Path(scratch) / "sample", images_per_card=max(1, wanted // 52))
        thumbnails: dict[str, bytes] = {}
        collection = find_images(folder, keep=lambda found: thumbnails.update({t.image_id: t.jpeg for t in found}))
        nano = Nano(StoredImages(collection.root, collection.images, thumbnails.__getitem__))
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
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(("peak memory", f"{peak_mb:,.0f} MB"))
    print("| measure | value |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
