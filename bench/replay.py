"""The method on what real models said of real pictures (`bench.replay_model`), through the public door.

`python -m bench.replay --looks DIR [--images N] [--seeds S] [--judge truth|assigned|yes|first|random] [--no-writer]
[--look COLUMN] [--effort low|normal|high|max] [--sets NAME ...]` prints a Markdown row for each set in DIR and seed
1..S; seed 1 draws the images that the sketch beside the looks draws. What a run says where the judge tells nothing goes
to standard error. An unassigned image counts as a cluster of its own in NMI, ARI and
ACC, which is harsh. descriptions: NMI of the looks' words as they are, or as the writer groups them. calls/image:
judgements and choices beside the look. misplaced: the method's own estimate with its 95% interval, then the true share,
of the images in a cluster (most of which is of another kind). IC|TC: the NMI of the published result on the same
images, to which K was given. Nothing is selected by the truth.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

import manylens
from bench.replay_model import JUDGES, SHORT_LOOK, Judge, LookSet, ReplayModel, find_sets, read_looks, write_pictures
from manylens.errors import UsageError
from manylens.method.observations import normalise_description
from manylens.results.evaluate import Scores, evaluate_labels
from manylens.settings import Effort, Settings

COLUMNS = (
    "set", "images", "seed", "descriptions", "NMI", "ARI", "ACC", "K found/true", "unassigned", "calls/image",
    "writer calls", "seconds", "misplaced: estimate", "true", "IC\\|TC NMI",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Replayed:
    """One run. estimate: (share, low, high) of misplaced images as the method says, or None where the judge tells
    nothing. described_nmi: of the descriptions, in the writer's categories where there are some. published_nmi: of
    IC|TC. notes: what the run says to the person."""

    name: str
    seed: int
    scores: Scores
    calls_per_image: float
    writer_calls: int
    seconds: float
    estimate: tuple[float, float, float] | None
    misplaced: float
    described_nmi: float
    published_nmi: float | None
    notes: tuple[str, ...] = ()

    def row(self) -> str:
        scores = self.scores
        cells = [
            self.name, f"{scores.images:,}", str(self.seed), _decimals(self.described_nmi), _decimals(scores.nmi),
            _decimals(scores.ari), _decimals(scores.acc), f"{scores.clusters_found}/{scores.clusters_true}",
            str(scores.unassigned), f"{self.calls_per_image:.2f}", str(self.writer_calls), f"{self.seconds:.1f}",
            "–" if self.estimate is None else "{:.1%} ({:.1%}..{:.1%})".format(*self.estimate),
            f"{self.misplaced:.1%}", "–" if self.published_nmi is None else _decimals(self.published_nmi),
        ]  # fmt: skip
        return "| " + " | ".join(cells) + " |"


def replay(
    looks: LookSet,
    images: int | None = None,
    seed: int = 1,
    judge: Judge = "truth",
    writer: bool = True,
    effort: Effort = "normal",
) -> Replayed:
    """One run over images drawn by the seed, which is the model's and the method's, too."""
    drawn = looks.draw(images, seed)
    folder, row_of = _pictures(drawn.name, drawn.rows)
    model = ReplayModel(drawn, row_of, judge=judge, writer=writer, seed=seed)
    with tempfile.TemporaryDirectory(prefix="replay-") as out:
        before = time.perf_counter()
        result = manylens.cluster(
            folder, by=drawn.interest, model=model, out=Path(out) / "run", settings=Settings(seed=seed, effort=effort)
        )
        seconds = time.perf_counter() - before
    clustering = result[drawn.interest].clustering
    # Failed looks and what the budget left out are in no assignment: unassigned, too.
    cluster_of = {row_of[assignment.image_id]: assignment.cluster for assignment in clustering.assignments}
    found = [cluster_of.get(row) for row in drawn.rows]
    words = [normalise_description(look) for look in drawn.looks]
    said = [clustering.vocabulary.get(one, one) for one in words]
    estimate = clustering.estimate
    return Replayed(
        drawn.name,
        seed,
        evaluate_labels(drawn.truth, found),
        (model.calls["judge"] + model.calls["choose"]) / len(drawn),
        model.calls["complete"],
        seconds,
        None if estimate is None else (estimate.share, estimate.low, estimate.high),
        misplaced_share(drawn.truth, found),
        evaluate_labels(drawn.truth, said).nmi,
        None if drawn.assigned is None else evaluate_labels(drawn.truth, drawn.assigned).nmi,
        clustering.notes,
    )


def misplaced_share(truth: Sequence[str], found: Sequence[Hashable | None]) -> float:
    """Of the images in a cluster, the share whose cluster is mostly of another kind."""
    members: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for true, cluster in zip(truth, found, strict=True):
        if cluster is not None:
            members[cluster][true] += 1
    placed = sum(sum(counted.values()) for counted in members.values())
    return 1 - sum(max(counted.values()) for counted in members.values()) / placed if placed else 0.0


@cache
def _pictures(name: str, rows: tuple[int, ...]) -> tuple[Path, dict[str, int]]:
    """The folder with a picture for each row; gone when the process ends."""
    holder = tempfile.TemporaryDirectory(prefix=f"replay-{name}-")
    _HOLDERS.append(holder)
    folder = Path(holder.name)
    return folder, write_pictures(folder, rows)


_HOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def _decimals(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value < 1 else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", type=Path, required=True, help="folder with <set>.csv.gz and <set>.npz")
    parser.add_argument("--images", type=int, help="so many of each set, drawn at random by the seed; default: all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--judge", choices=JUDGES, default="truth")
    parser.add_argument("--no-writer", action="store_true", help="a model that writes no text")
    parser.add_argument("--look", default=SHORT_LOOK, help="the column that is the look, e.g. sentence")
    parser.add_argument("--effort", choices=get_args(Effort), default=Settings().effort)
    parser.add_argument("--sets", nargs="+", default=(), help="these of the folder's sets only")
    options = parser.parse_args(arguments)
    try:
        sets = [read_looks(path, options.look) for path in find_sets(options.looks, options.sets)]
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for looks in sets:
            for seed in range(1, options.seeds + 1):
                done = replay(looks, options.images, seed, options.judge, not options.no_writer, options.effort)
                print(done.row(), flush=True)
                if done.estimate is None:
                    print(*done.notes, sep="\n", file=sys.stderr)
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
