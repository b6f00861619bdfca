"""How the method moves with the numbers that it fixes: tau, and the edge weight at which an image joins a unit unasked.

`python -m bench.thresholds --looks DIR [--images 1000] [--seeds 3]` prints Markdown: a row for each value, a column for
each world in which descriptions are rarely equal, in each cell NMI, units and calls an image beside the look. No model
writes. stl10 by `sentence` is a model's own prose about real pictures.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from unittest import mock

from bench.worlds import OPEN, Seen, ignore, see_replay, see_world
from manylens.method import walk
from manylens.pipeline import cluster_looks
from manylens.pipeline.run import edge_scale
from manylens.results.evaluate import evaluate_labels
from manylens.settings import Settings

TAUS = (0.3, 0.6, 0.9, 0.95)
SURE_EDGES = (0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 2.0)
"""At 2 no image joins: every description is a unit."""


def measure(seen: Seen, settings: Settings, sure_edge: float = walk.SURE_EDGE) -> tuple[float, float, float]:
    """NMI, units, calls an image beside the look."""
    with mock.patch.object(walk, "SURE_EDGE", sure_edge):
        units = len(walk.walk(seen.looks, edge_scale(seen.model.capabilities), settings))
        found = asyncio.run(cluster_looks(seen.looks, seen.model, settings, ignore))
    scores = evaluate_labels(seen.truth, [assignment.cluster for assignment in found.assignments])
    return scores.nmi, units, found.calls.choose / len(seen.looks)


def cell(given: Sequence[Seen], tau: float = Settings().tau, sure_edge: float = walk.SURE_EDGE) -> str:
    runs = [measure(seen, Settings(seed=seed, tau=tau), sure_edge) for seed, seen in enumerate(given, start=1)]
    nmi, units, calls = (fmean(values) for values in zip(*runs, strict=True))
    return f"{nmi:.3f}".lstrip("0") + f", {units:.0f}, {calls:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", type=Path, required=True, help="folder with action and stl10")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    given = {
        "action": [see_replay(options.looks, "action", options.images, s, False) for s in seeds],
        "stl10, sentence": [see_replay(options.looks, "stl10", options.images, s, False, "sentence") for s in seeds],
        "30 wordings": [see_world(OPEN["30 wordings"], options.images, s, False) for s in seeds],
        "free prose": [see_world(OPEN["free prose"], options.images, s, False) for s in seeds],
    }
    print(f"| | {' | '.join(given)} |\n|{'---|' * (len(given) + 1)}")
    for tau in TAUS:
        print(f"| tau {tau} | {' | '.join(cell(of, tau=tau) for of in given.values())} |", flush=True)
    for sure in SURE_EDGES:
        print(f"| joins at {sure} | {' | '.join(cell(of, sure_edge=sure) for of in given.values())} |", flush=True)


if __name__ == "__main__":
    main()
