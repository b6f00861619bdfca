"""Pictures that come in parts against all of them at once.

`python -m bench.adding [--worlds NAME ...] [--images 1000] [--parts 10] [--seeds 3]` prints a Markdown row
for each world, with and without a writer: NMI of all at once, of the parts, clusters (of 13), and questions an image of
either; of the parts also those an added image.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from statistics import fmean

from bench.worlds import CLASSES, OPEN, WORLDS, Seen, ignore, see_world
from manylens.pipeline import cluster_images
from manylens.pipeline.add import add_images
from manylens.pipeline.budget import Budget
from manylens.results.evaluate import evaluate_labels
from manylens.settings import Settings
from manylens.types import Clustering


async def in_parts(seen: Seen, settings: Settings, parts: int) -> tuple[Clustering, Clustering]:
    """The clustering of the first part, and of all after the others were added, one after another."""
    ids = sorted(seen.looks.image_ids, key=lambda image_id: (hash_of(image_id), image_id))
    ends = [round(len(ids) * (part + 1) / parts) for part in range(parts)]
    interest = seen.looks.interest
    first = (await cluster_images(ids[: ends[0]], [interest], seen.model, settings, ignore))[interest]
    found = first
    for end in ends[1:]:
        found = await add_images(found, ids[:end], seen.model, settings, ignore, Budget(seen.model, settings))
    return first, found


def hash_of(image_id: str) -> int:
    return sum(ord(c) * 31**k for k, c in enumerate(image_id)) % 1_000_003


def compare(seen: Seen, settings: Settings, parts: int) -> list[float]:
    interest, ids = seen.looks.interest, seen.looks.image_ids
    once = asyncio.run(cluster_images(ids, [interest], seen.model, settings, ignore))[interest]
    first, found = asyncio.run(in_parts(seen, settings, parts))
    truth = dict(zip(ids, seen.truth, strict=True))
    numbers = []
    for one in (once, found):
        scores = evaluate_labels([truth[a.image_id] for a in one.assignments], [a.cluster for a in one.assignments])
        numbers += [scores.nmi, scores.clusters_found, one.calls.choose / len(ids)]
    had = sum(1 for _ in first.assignments)
    return [*numbers, (found.calls.choose - first.calls.choose) / max(1, len(ids) - had)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=["closed words", *OPEN])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    columns = ("world", "model", "NMI at once", "in parts", "K", "K in parts", "questions an image", "in parts",
               "an added image")  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in options.worlds:
        for writes in (True, False):
            runs = [
                compare(
                    see_world(WORLDS[name], options.images, seed, writes, CLASSES), Settings(seed=seed), options.parts
                )
                for seed in range(options.seeds)
            ]
            nmi, k, asked, nmi_parts, k_parts, asked_parts, added = (
                fmean(column) for column in zip(*runs, strict=True)
            )
            cells = (name, "writes" if writes else "does not", f"{nmi:.3f}", f"{nmi_parts:.3f}", f"{k:.1f}",
                     f"{k_parts:.1f}", f"{asked:.2f}", f"{asked_parts:.2f}", f"{added:.2f}")  # fmt: skip
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
