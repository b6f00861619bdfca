"""Does the estimate of misplaced images hold, and are the confidences what they say? Simulated runs, mixed worlds.

`python -m bench.estimate [--runs 200] [--looks DIR] [--broken]` prints Markdown: for each world and in all, in how many
runs the 95% interval holds the true share of misplaced images (of those in a cluster, whose majority is of another
kind), mean estimate, mean true share, mean width, expected calibration error of the confidences (pooled over the runs)
and calls an image; then the reliability table. 300, 500 and 1,000 images by turns, half of the runs with a writer. With
--looks, what real models said of real pictures is among the worlds.

`--broken` prints instead worlds in which what the estimate assumes does not hold: units whose shares of misplaced
images are spread otherwise than a Beta prior of four answers has it, confidences that say the opposite of what is so, a
judge who errs as the look did, or more often than he shows.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np

from bench.worlds import CLASSES, INTEREST, OPEN, WORLDS, Seen, World, draw_labels, ignore, see, see_replay, see_world
from manylens.models.scripted import DESIGN_NOISE, ScriptedModel
from manylens.models.wordings import Wordings
from manylens.pipeline import cluster_looks
from manylens.settings import Settings

SIZES = (300, 500, 1000)
BINS = 10
Draw = Callable[[int, int], Seen]
"""(images, seed) -> looks and truth."""

NAMES = ("closed words", "12% wrong", *(name for name in OPEN if name not in ("believed mistakes", "no answers")))
"""Worlds of `bench.worlds` in which judge and look err apart."""


@dataclass(frozen=True, slots=True)
class Estimated:
    """One run. interval: (estimate, low, high). misplaced: the true share of images in a cluster. confidences, right:
    of each of them. calls: an image, beside the look."""

    interval: tuple[float, float, float]
    misplaced: float
    confidences: tuple[float, ...]
    right: tuple[bool, ...]
    calls: float

    @property
    def holds(self) -> bool:
        _, low, high = self.interval
        return low <= self.misplaced <= high


def estimate(seen: Seen, seed: int) -> Estimated | None:
    """Through the pipeline, looks given; None where the judge tells nothing."""
    found = asyncio.run(cluster_looks(seen.looks, seen.model, Settings(seed=seed), ignore))
    if found.estimate is None:
        return None
    members: dict[int, Counter[str]] = defaultdict(Counter)
    for true, assignment in zip(seen.truth, found.assignments, strict=True):
        if assignment.cluster is not None:
            members[assignment.cluster][true] += 1
    kind = {cluster: max(counts, key=lambda true: (counts[true], true)) for cluster, counts in members.items()}
    placed = [(a, true) for a, true in zip(found.assignments, seen.truth, strict=True) if a.cluster is not None]
    right = tuple(kind[a.cluster] == true for a, true in placed if a.cluster is not None)
    share = found.estimate
    return Estimated(
        (share.share, share.low, share.high),
        1 - sum(right) / max(1, len(right)),
        tuple(a.confidence for a, _ in placed),
        right,
        found.calls.choose / len(seen.looks),
    )


def reliability(runs: Sequence[Estimated]) -> list[tuple[int, float, float]]:
    """Of each of ten bins of confidence: images, mean confidence, share that are right."""
    confidences = np.array([c for run in runs for c in run.confidences])
    right = np.array([r for run in runs for r in run.right], dtype=float)
    bins = np.minimum((confidences * BINS).astype(int), BINS - 1)
    found = []
    for number in range(BINS):
        inside = bins == number
        count = int(inside.sum())
        mean = (float(confidences[inside].mean()), float(right[inside].mean())) if count else (0.0, 0.0)
        found.append((count, *mean))
    return found


def calibration_error(runs: Sequence[Estimated]) -> float:
    bins = reliability(runs)
    return sum(count * abs(said - so) for count, said, so in bins) / max(1, sum(count for count, *_ in bins))


def row(name: str, runs: Sequence[Estimated]) -> str:
    truth, said = fmean(run.misplaced for run in runs), fmean(run.interval[0] for run in runs)
    low = sum(run.misplaced < run.interval[1] for run in runs)
    high = sum(run.misplaced > run.interval[2] for run in runs)
    cells = [
        name, str(len(runs)), f"{sum(run.holds for run in runs) / len(runs):.1%}", f"{low}, {high}",
        f"{said:.2%}", f"{truth:.2%}", f"{fmean(run.interval[2] - run.interval[1] for run in runs):.1%}",
        f"{calibration_error(runs):.3f}", f"{fmean(run.calls for run in runs):.2f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


COLUMNS = (
    "world", "runs", "interval holds", "truth below, above", "mean estimate", "mean truth", "mean width", "ECE",
    "calls/image",
)  # fmt: skip


def print_reliability(runs: Sequence[Estimated]) -> None:
    print("\n| confidence | images | mean confidence | right |\n|---|---|---|---|")
    for number, (count, said, so) in enumerate(reliability(runs)):
        bounds = f"{number / BINS:.1f} to {(number + 1) / BINS:.1f}"
        print(f"| {bounds} | {count:,} | {said:.3f} | {so:.3f} |" if count else f"| {bounds} | 0 | – | – |")


def simulated(world: World, images: int, seed: int) -> Seen:
    return see_world(world, images, seed, seed % 2 == 1)


def replayed(folder: Path, name: str, images: int, seed: int) -> Seen:
    return see_replay(folder, name, images, seed, seed % 2 == 1)


# Worlds in which the assumptions do not hold


def spread_shares(mean: float, strength: float, images: int, seed: int) -> Seen:
    """Ten wordings a class; of each wording another share of images is of another class than it says: Beta distributed,
    worth `strength` answers. Confidences say nothing of it."""
    chance = random.Random(f"{seed} {strength}")
    said = draw_labels(images, CLASSES, seed)
    noise = replace(DESIGN_NOISE, wrong_description=0.0)
    speaker = ScriptedModel({INTEREST.text: said}, noise=noise, seed=seed, wordings=Wordings(per_class=10))
    looks = see(speaker, said).looks
    shares = {words: chance.betavariate(mean * strength, (1 - mean) * strength) for words in sorted(set(looks.words))}
    kinds = sorted(set(said.values()))
    truth = dict(said)
    for image_id, words in zip(looks.image_ids, looks.words, strict=True):
        if chance.random() < shares[words]:
            truth[image_id] = chance.choice([kind for kind in kinds if kind != said[image_id]])
    judge = ScriptedModel({INTEREST.text: truth}, noise=noise, seed=seed, wordings=Wordings(per_class=10))
    return Seen(looks, judge, tuple(truth[image_id] for image_id in looks.image_ids))


def lying_confidence(images: int, seed: int) -> Seen:
    """12% wrong descriptions, and the surer the look, the more often it is wrong."""
    seen = simulated(WORLDS["12% wrong"], images, seed)
    return replace(seen, looks=replace(seen.looks, confidences=1.2 - seen.looks.confidences))


BROKEN: dict[str, Draw] = {
    "shares of units: Beta, strength .3": partial(spread_shares, 0.1, 0.3),
    "shares of units: Beta, strength 1": partial(spread_shares, 0.1, 1.0),
    "shares of units: Beta, strength 4 (as assumed)": partial(spread_shares, 0.1, 4.0),
    "shares of units: all equal": partial(spread_shares, 0.1, 1e6),
    "confidences lie": lying_confidence,
    "judge wrong 10 times in 100": partial(simulated, World(Wordings(), replace(DESIGN_NOISE, wrong_choice=0.1))),
    "judge wrong 20 times in 100": partial(simulated, World(Wordings(), replace(DESIGN_NOISE, wrong_choice=0.2))),
    "judge errs as the look, 1 in 4": partial(
        simulated, World(Wordings(), replace(DESIGN_NOISE, wrong_description=0.1, stubborn=0.25))
    ),
    "judge errs as the look, 1 in 2": partial(
        simulated, World(Wordings(), replace(DESIGN_NOISE, wrong_description=0.1, stubborn=0.5))
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="in all")
    parser.add_argument("--looks", type=Path, help="folder of replayed looks")
    parser.add_argument("--broken", action="store_true", help="worlds in which the assumptions do not hold")
    parser.add_argument("--worlds", nargs="+", help="these only")
    options = parser.parse_args()
    draws: dict[str, Draw] = {name: partial(simulated, WORLDS[name]) for name in NAMES}
    if options.looks:
        draws |= {name: partial(replayed, options.looks, name) for name in ("action", "stl10")}
    draws = BROKEN if options.broken else draws
    draws = {name: draw for name, draw in draws.items() if not options.worlds or name in options.worlds}
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    every: list[Estimated] = []
    for place, (name, draw) in enumerate(draws.items()):
        many = options.runs // len(draws) + (place < options.runs % len(draws))
        found = [estimate(draw(SIZES[seed % len(SIZES)], seed), seed) for seed in range(many)]
        runs = [one for one in found if one is not None]
        every += runs
        print(row(name, runs), flush=True)
    print(row("**all**", every))
    print_reliability(every)


if __name__ == "__main__":
    main()
