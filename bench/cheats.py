"""Judges that cheat: does the method notice, and do they spoil anything? And is a good judge believed?

`python -m bench.cheats --looks DIR [--seeds 20]` prints a Markdown row for each world, number of images and judge (one
that takes the first option, one that answers at random, one that is right but for 4% of its answers), no writer: mean
NMI of the descriptions and of the method, the worst loss against the descriptions, how often the judge was believed,
and how often the run says that it tells nothing. `--sizes 6000` has descriptions that thousands of images share.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from bench.worlds import WORLDS, Seen, ignore, see_replay, see_world
from manylens.errors import ModelError
from manylens.models.base import (
    ChooseReply,
    ChooseRequest,
    CompleteReply,
    CompleteRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    Model,
    ModelWrapper,
)
from manylens.models.prompts import spread_evenly
from manylens.pipeline import cluster_looks
from manylens.results.evaluate import evaluate_labels
from manylens.settings import Settings

SIZES = (60, 240)
JUDGES = ("first", "random", "good")


@dataclass(frozen=True, slots=True)
class Cheated:
    """described, nmi: of the descriptions, of the method. believed: whether its answers were used. said: whether the
    run says that the judge tells nothing."""

    described: float
    nmi: float
    believed: bool
    said: bool


class Cheat(ModelWrapper):
    """A model whose choices are worth nothing."""

    def __init__(self, model: Model, judge: str) -> None:
        super().__init__(model)
        self._judge_kind = judge

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        return await self._model.look(requests)

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        return await self._model.judge(requests)

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        return await self._model.complete(requests)

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        return [self._choice(request) for request in requests]

    def _choice(self, request: ChooseRequest) -> ChooseReply:
        many = len(request.options)
        chosen = 0 if self._judge_kind == "first" else random.Random(self.render(request)).randint(0, many)
        return ChooseReply(spread_evenly(chosen, 0.95, many))


def cheat(seen: Seen, judge: str, seed: int) -> Cheated:
    model = seen.model if judge == "good" else Cheat(seen.model, judge)
    found = asyncio.run(cluster_looks(seen.looks, model, Settings(seed=seed), ignore))
    scores = evaluate_labels(seen.truth, [assignment.cluster for assignment in found.assignments])
    described = evaluate_labels(seen.truth, seen.looks.words).nmi
    said = any("tell nothing" in note for note in found.notes)
    return Cheated(described, scores.nmi, found.estimate is not None, said)


def row(name: str, images: int, judge: str, runs: Sequence[Cheated]) -> str:
    cells = [
        name, str(images), judge,
        f"{fmean(run.described for run in runs):.3f}", f"{fmean(run.nmi for run in runs):.3f}",
        f"{max(run.described - run.nmi for run in runs):.3f}", f"{sum(run.believed for run in runs)} of {len(runs)}",
        f"{sum(run.said for run in runs)} of {len(runs)}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", type=Path, help="folder of replayed looks")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of images")
    options = parser.parse_args()
    print(f"| world | images | judge | descriptions | NMI | worst loss | believed | said |\n|{'---|' * 8}")
    closed = WORLDS["closed words"]
    for images in options.sizes:
        worlds = {
            f"closed words, {k} classes": [see_world(closed, images, s, False, k) for s in range(options.seeds)]
            for k in (2, 3, 13)
        }
        for name in ("action", "stl10") if options.looks else ():
            worlds[name] = [see_replay(options.looks, name, images, s, False) for s in range(options.seeds)]
        for name, given in worlds.items():
            for judge in JUDGES:
                print(row(name, images, judge, [cheat(seen, judge, s) for s, seen in enumerate(given)]), flush=True)


if __name__ == "__main__":
    main()
