"""How fast nano looks and judges here, how soon it is loaded, and what memory a run takes.

`python -m bench.speed [--images 312] [--folder DIR] [--torch]` draws sample cards, prints a Markdown table. Numbers are
of this machine and moment; compare only rows of one run. `--folder` also says what a second interest on the pictures of
a folder costs against the first, with and without the reading of the files. `--torch` also times the same parts uncut
in plain PyTorch (`bench.torch_baseline`) on the same images, in turns with nano, and gives the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import manylens
from bench.workbench import NanoTokens
from manylens.collection.find import find_images
from manylens.collection.pictures import StoredImages
from manylens.events import Event, StageFinished, StageStarted
from manylens.models.base import JudgeRequest, LookReply, LookRequest
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


ROUNDS = 3
COMPARED = 32


def compare_with_torch(images: StoredImages, image_ids: Sequence[str]) -> list[tuple[str, str]]:
    """nano and plain PyTorch by turns on the same images: the best of three rounds each. PyTorch writes as many tokens
    per image as nano does on average (rounded up), in batches of 1 and of 8; the ratio is to the faster of them."""
    from bench.torch_baseline import PlainTorch  # torch is not among bench's own needs

    plain = PlainTorch()
    ids = list(image_ids[:COMPARED])
    pictures = [images.thumbnail(image_id) for image_id in ids]
    count = NanoTokens()
    requests = [LookRequest("suit", image_id) for image_id in ids]
    best = dict.fromkeys(("nano", "batch 1", "batch 8"), float("inf"))
    tokens, new_tokens = 0.0, 0
    for _ in range(ROUNDS):
        nano = Nano(images)  # a fresh one has no visual tokens in memory
        asyncio.run(nano.look([LookRequest("warm up", image_ids[-1])]))
        began = time.perf_counter()
        replies = asyncio.run(nano.look(requests))
        best["nano"] = min(best["nano"], time.perf_counter() - began)
        written = [count.written(reply) for reply in replies if isinstance(reply, LookReply)]
        tokens = sum(written) / len(written)
        new_tokens = math.ceil(tokens)
        for batch in (1, 8):
            plain.look(pictures[:batch], "suit", new_tokens=new_tokens, batch=batch)
            seconds = plain.look(pictures, "suit", new_tokens=new_tokens, batch=batch)
            best[f"batch {batch}"] = min(best[f"batch {batch}"], seconds)
    baseline = min(best["batch 1"], best["batch 8"])
    return [
        (f"looks, nano, {tokens:.1f} tokens written per image, {len(ids)} images",
         f"{len(ids) / best['nano']:.1f} images/s"),
        *((f"looks, plain PyTorch, {plain.layers} layers, float32, {new_tokens} tokens written, batch {batch}",
           f"{len(ids) / best[f'batch {batch}']:.1f} images/s") for batch in (1, 8)),
        ("nano against the faster of them", f"{baseline / best['nano']:.1f} x"),
    ]  # fmt: skip


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
    parser.add_argument("--torch", action="store_true", help="compare with plain PyTorch, 30 layers, float32")
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
        if options.torch:  # before the memory is read: its row says so
            rows += compare_with_torch(images, ids)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append((f"peak memory{', PyTorch included' if options.torch else ''}", f"{peak_mb:,.0f} MB"))
    print("| measure | value |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
