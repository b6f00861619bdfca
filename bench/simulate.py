"""The noisy-judge simulation: the whole method on a scripted model of stated accuracy.

`python -m bench.simulate [--worlds NAME ...] [--images 260 1000 5000] [--seeds 3] [--large]` prints a Markdown row for
each world of `bench.worlds`, number of images, and with and without a writer: NMI of the descriptions as they are, NMI
(mean and range), K of 13, calls an image beside the look, calls of the writer, images unassigned, the estimated and the
true share of misplaced images, seconds beside the looks (the scripted model's included). An unassigned image counts as
a cluster of its own in NMI. Means over the seeds. `--large`: 20,000 and 100,000 images, too. `--plain`: the paper's
walk (`bench.baselines`) on the same looks, too.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from statistics import fmean
from typing import get_args

from bench.baselines import plain_walk
from bench.replay import misplaced_share
from bench.workbench import judge_with
from bench.worlds import CLASSES, WORLDS, Seen, ignore, see_world
from manylens.pipeline import cluster_looks
from manylens.pipeline.run import edge_scale
from manylens.results.evaluate import evaluate_labels
from manylens.settings import Effort, Settings

SIZES = (260, 1000, 5000)
LARGE = (20_000, 100_000)
COLUMNS = (
    "world", "images", "model", "descriptions", "NMI", "K", "calls/image", "writer calls", "unassigned",
    "misplaced: estimate", "true", "seconds",
)  # fmt: skip


def simulate(seen: Seen, settings: Settings) -> dict[str, float]:
    """One run; all numbers of the table's row."""
    before = time.perf_counter()
    found = asyncio.run(cluster_looks(seen.looks, seen.model, settings, ignore))
    seconds = time.perf_counter() - before
    said = [assignment.cluster for assignment in found.assignments]
    numbers = _scored(seen, said)
    numbers |= {"calls/image": found.calls.choose / len(seen.looks), "writer calls": found.calls.complete}
    numbers |= {"estimate": -1.0 if found.estimate is None else found.estimate.share, "seconds": seconds}
    return numbers


def walk_plainly(seen: Seen) -> dict[str, float]:
    """The paper's walk, which asks about every image that its frontier reaches."""
    before, edge = time.perf_counter(), edge_scale(seen.model.capabilities)
    asked = 0
    judge = judge_with(seen.model, seen.looks)

    async def count(questions: Sequence[object]) -> list[float]:
        nonlocal asked
        asked += len(questions)
        return await judge(questions)  # type: ignore[arg-type]

    said, _ = asyncio.run(plain_walk(seen.looks, edge, count, Settings()))
    numbers = _scored(seen, said)
    numbers |= {"calls/image": asked / len(seen.looks), "writer calls": 0}
    return numbers | {"estimate": -1.0, "seconds": time.perf_counter() - before}


def _scored(seen: Seen, said: Sequence[int | None]) -> dict[str, float]:
    scores = evaluate_labels(seen.truth, said)
    return {
        "descriptions": evaluate_labels(seen.truth, seen.looks.words).nmi,
        "NMI": scores.nmi,
        "K": scores.clusters_found,
        "unassigned": scores.unassigned,
        "misplaced": misplaced_share(seen.truth, said),
    }


def row(head: Sequence[str], runs: Sequence[dict[str, float]]) -> str:
    mean = {key: fmean(run[key] for run in runs) for key in runs[0]}
    nmi = [run["NMI"] for run in runs]
    cells = [
        *head, f"{mean['descriptions']:.3f}", f"{mean['NMI']:.3f} ({min(nmi):.3f}..{max(nmi):.3f})",
        f"{mean['K']:.1f}", f"{mean['calls/image']:.2f}", f"{mean['writer calls']:.0f}", f"{mean['unassigned']:.0f}",
        "–" if mean["estimate"] < 0 else f"{mean['estimate']:.1%}", f"{mean['misplaced']:.1%}",
        f"{mean['seconds']:.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--images", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--large", action="store_true", help="20,000 and 100,000 images, too")
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--skew", type=float, default=0.0, help="sizes fall by this power of the class's number")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--effort", choices=get_args(Effort), default=Settings().effort)
    parser.add_argument("--plain", action="store_true", help="the paper's walk, too")
    options = parser.parse_args(arguments)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in options.worlds:
        for images in [*options.images, *(LARGE if options.large else ())]:
            for writes in (True, False):
                given = [
                    see_world(WORLDS[name], images, seed, writes, options.classes, options.skew)
                    for seed in range(options.seeds)
                ]
                runs = [simulate(seen, Settings(seed=seed, effort=options.effort)) for seed, seen in enumerate(given)]
                print(row([name, f"{images:,}", "writes" if writes else "does not"], runs), flush=True)
            if options.plain:
                print(row([name, f"{images:,}", "plain walk"], [walk_plainly(seen) for seen in given]), flush=True)


if __name__ == "__main__":
    main()
