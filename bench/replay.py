"""The method on what real models said of real pictures (`bench.replay_model`), through the public door.

`python -m bench.replay --looks DIR [--images N] [--seeds S] [--judge truth|assigned|yes|first|random] [--no-writer]
[--look COLUMN] [--effort E] [--sets NAME ...]` prints a Markdown row for each set in DIR and seed 1..S; seed 1 draws
the images that the sketch beside the looks draws. An unassigned image counts as a cluster of its own in NMI, ARI and
ACC, and as misplaced, which is harsh. calls/image: judgements and choices beside the look. misplaced: the method's own
estimate with its 95% interval, then the true share (in a cluster whose majority is of another kind). IC|TC: the NMI of
the published result on the same images, to which K was given. Nothing is selected by the truth.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import manylens
from bench.replay_model import JUDGES, SHORT_LOOK, Judge, LookSet, ReplayModel, find_sets, read_looks, write_pictures
from manylens.errors import UsageError
from manylens.evaluate import Scores, evaluate_labels
from manylens.records import Settings

COLUMNS = (
    "set", "images", "seed", "NMI", "ARI", "ACC", "K found/true", "unassigned", "calls/image", "writer calls",
    "seconds", "misplaced: estimate", "true", "IC\\|TC NMI",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Replayed:
    """One run. estimate: (share, low, high) of misplaced images as the method says, or None. published_nmi: IC|TC's."""

    name: str
    seed: int
    scores: Scores
    calls_per_image: float
    writer_calls: int
    seconds: float
    estimate: tuple[float, float, float] | None
    misplaced: float
    published_nmi: float | None

    def row(self) -> str:
        scores = self.scores
        cells = [
            self.name, f"{scores.images:,}", str(self.seed), _decimals(scores.nmi), _decimals(scores.ari),
            _decimals(scores.acc), f"{scores.clusters_found}/{scores.clusters_true}", str(scores.unassigned),
            f"{self.calls_per_image:.2f}", str(self.writer_calls), f"{self.seconds:.1f}",
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
    effort: float | None = None,
) -> Replayed:
    """One run over images drawn by the seed, which is the model's and the method's, too."""
    drawn = looks.draw(images, seed)
    folder, row_of = _pictures(drawn.name, drawn.rows)
    model = ReplayModel(drawn, row_of, judge=judge, writer=writer, seed=seed)
    with tempfile.TemporaryDirectory(prefix="replay-") as out:
        before = time.perf_counter()
        result = manylens.cluster(
            folder, by=drawn.interest, model=model, out=Path(out) / "run", settings=_settings(seed, effort)
        )
        seconds = time.perf_counter() - before
    clustering = result[drawn.interest].clustering
    # Failed looks and what the budget left out are in no assignment: unassigned, too.
    cluster_of = {row_of[assignment.image_id]: assignment.cluster for assignment in clustering.assignments}
    found = [cluster_of.get(row) for row in drawn.rows]
    return Replayed(
        drawn.name,
        seed,
        evaluate_labels(drawn.truth, found),
        (model.calls["judge"] + model.calls["choose"]) / len(drawn),
        model.calls["complete"],
        seconds,
        _estimate(clustering),
        misplaced_share(drawn.truth, found),
        None if drawn.assigned is None else evaluate_labels(drawn.truth, drawn.assigned).nmi,
    )


def misplaced_share(truth: Sequence[str], found: Sequence[Hashable | None]) -> float:
    """The share of images that are unassigned or in a cluster most of whose images are of another kind."""
    members: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for true, cluster in zip(truth, found, strict=True):
        if cluster is not None:
            members[cluster][true] += 1
    return 1 - sum(max(counted.values()) for counted in members.values()) / len(truth)


def _settings(seed: int, effort: float | None) -> Settings:
    values: dict[str, Any] = {"seed": seed} if effort is None else {"seed": seed, "effort": effort}
    if unknown := set(values) - {field.name for field in dataclasses.fields(Settings)}:
        raise UsageError(f"Settings of this version know no {', '.join(unknown)}", "leave it out")
    return Settings(**values)


def _estimate(clustering: Any) -> tuple[float, float, float] | None:
    """(share, low, high): `estimate` as such a tuple, or as a value with these names."""
    estimate = getattr(clustering, "estimate", None)
    if estimate is None:
        return None
    return tuple(estimate) if isinstance(estimate, tuple) else (estimate.share, estimate.low, estimate.high)


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
    parser.add_argument("--effort", type=float, help="Settings.effort")
    parser.add_argument("--sets", nargs="+", default=(), help="these of the folder's sets only")
    options = parser.parse_args(arguments)
    try:
        sets = [read_looks(path, options.look) for path in find_sets(options.looks, options.sets)]
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for looks in sets:
            for seed in range(1, options.seeds + 1):
                done = replay(looks, options.images, seed, options.judge, not options.no_writer, options.effort)
                print(done.row(), flush=True)
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
