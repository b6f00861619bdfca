"""Do corrections teach, and does the review queue find what is wrong?

`python -m bench.corrections --data DIR` spoils a tenth of nano's placements of the card photographs in DIR/card.zip, at
random, with their confidences left as they were. A simulated person answers what the review queue shows, truly, until
as many pictures were corrected as a quarter of the spoiled ones; then the rest is sorted again and taken over. A row
for each interest and seed: NMI before, spoiled, after the corrections, after sorting again; corrections, answers ("yes"
included), questions to the model; and the last NMI without the head (the look's classifier is left out).

`python -m bench.corrections --looks DIR` gives 60 true answers to a finished run on each set of replayed looks: those
that the queue shows first, and 60 at random. Prints the gain in NMI of either, from the answers alone and after sorting
again. `--worlds NAME ...` does both in simulated worlds (`bench.worlds`), which is where they may be tuned.

An unassigned image counts as a cluster of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

import manylens
from bench.loaders import load_shared
from bench.replay_model import ReplayModel, find_sets, read_looks, write_pictures
from bench.worlds import INTEREST, WORLDS, ignore, scripted
from manylens import Correction, ModelOptions, Settings
from manylens.correcting import Corrector
from manylens.correcting.resort import sort_again, take_over
from manylens.correcting.review import review
from manylens.method.doubt import Head
from manylens.models.base import Model
from manylens.results.evaluate import evaluate_labels
from manylens.session import open_session
from manylens.store.run_folder import RunFolder
from manylens.types import Clustering, Interest

SPOILED, MAY_CORRECT = 0.1, 0.25
ANSWERS, AT_ONCE = 60, 10
MOST_ANSWERS = 10
"""For each correction that the person may make: a queue that shows nothing wrong is given up."""


@dataclass(frozen=True, slots=True)
class Case:
    """A finished run. truth: image id -> kind. model: as `cluster` takes it."""

    name: str
    out: Path
    folder: Path
    interest: str
    model: str | Model
    truth: Mapping[str, str]


def nmi(case: Case, clustering: Clustering) -> float:
    kept = [a for a in clustering.assignments if case.truth.get(a.image_id)]
    return evaluate_labels([case.truth[a.image_id] for a in kept], [a.cluster for a in kept]).nmi


class Person:
    """Knows the truth. A cluster is of the kind that most of its images were of before anything was spoiled."""

    def __init__(self, case: Case, clustering: Clustering) -> None:
        self.truth = case.truth
        inside: dict[int, Counter[str]] = {}
        for a in clustering.assignments:
            if a.cluster is not None and case.truth.get(a.image_id):
                inside.setdefault(a.cluster, Counter())[case.truth[a.image_id]] += 1
        self.kind = {cluster: count.most_common(1)[0][0] for cluster, count in inside.items()}
        self.home: dict[str, int] = {}
        for cluster, _count in sorted(inside.items(), key=lambda entry: -entry[1].total()):
            self.home.setdefault(self.kind[cluster], cluster)
        self.corrected = 0

    def answer(self, image_id: str, cluster: int | None) -> Correction | None:
        """None where no cluster is of the image's kind, or the person does not know."""
        true = self.truth.get(image_id)
        if not true or true not in self.home:
            return None
        if cluster is not None and self.kind.get(cluster) == true:
            return Correction("confirm", (image_id,))
        self.corrected += 1
        return Correction("move", (image_id,), self.home[true])


@contextmanager
def copied(case: Case) -> Iterator[Case]:
    with tempfile.TemporaryDirectory(prefix="corrections-") as scratch:
        out = Path(scratch) / "run"
        shutil.copytree(case.out, out)
        yield replace(case, out=out)


async def with_session(case: Case, work: Callable[[Corrector, Model], Any]) -> Any:
    slug = Interest(case.interest).slug
    async with open_session(
        case.folder, case.out, case.model, ModelOptions(), Settings(), ignore, reread=False
    ) as session:
        return await work(Corrector(session.run, slug), session.model)


def spoil(case: Case, seed: int) -> tuple[Clustering, int]:
    """Put a tenth of the placed images elsewhere; the clustering of before, and how many."""
    chance = random.Random(seed)
    with RunFolder.open(case.out) as run:
        ((before, settings),) = run.clusterings()
        clusters = [cluster.id for cluster in before.clusters]
        placed = sorted(a.image_id for a in before.assignments if a.cluster is not None)
        chosen = set(chance.sample(placed, round(SPOILED * len(placed))))
        moved = tuple(
            replace(a, cluster=chance.choice([c for c in clusters if c != a.cluster])) if a.image_id in chosen else a
            for a in before.assignments
        )
        sizes = Counter(a.cluster for a in moved)
        after = replace(
            before,
            assignments=moved,
            clusters=tuple(replace(cluster, size=sizes[cluster.id]) for cluster in before.clusters),
        )
        run.record_clustering(after, settings)
    return before, len(chosen)


def teach(case: Case, seed: int, with_head: bool = True) -> dict[str, float]:
    """One row's numbers."""
    with copied(case) as mine, headless(not with_head):
        before, spoiled = spoil(mine, seed)
        person = Person(case, before)

        async def work(corrector: Corrector, model: Model) -> dict[str, float]:
            numbers = {"before": nmi(case, before), "spoiled": nmi(case, corrector.shown)}
            may, answers = round(MAY_CORRECT * spoiled), 0
            skipped: list[str] = []
            while person.corrected < may and answers < MOST_ANSWERS * may:
                doubts = review(corrector, min(AT_ONCE, 4 * (may - person.corrected)), skipped).doubts
                said = []
                for doubt in doubts:
                    if person.corrected >= may:
                        break
                    one = person.answer(doubt.image_id, doubt.cluster)
                    answers += 1
                    if one is None:
                        skipped.append(doubt.image_id)
                    else:
                        said.append(one)
                if said:
                    corrector.say(said)
                if not doubts:
                    break
            numbers |= {"corrected": nmi(case, corrector.shown)}
            resorted = await sort_again(corrector, model, ignore)
            take_over(corrector, resorted)
            numbers |= {"sorted again": nmi(case, corrector.shown), "corrections": person.corrected}
            return numbers | {"answers": answers, "questions": resorted.calls[0], "spoiled pictures": spoiled}

        return asyncio.run(with_session(mine, work))


@contextmanager
def headless(is_on: bool) -> Iterator[None]:
    """The look's classifier says nothing."""
    kept = Head.margin
    if is_on:
        Head.margin = lambda self, cluster: np.zeros(len(cluster))  # type: ignore[method-assign]
    try:
        yield
    finally:
        Head.margin = kept  # type: ignore[method-assign]


def answer(case: Case, order: str, seed: int) -> dict[str, float]:
    """60 answers to a finished run, in the queue's order or at random."""
    with copied(case) as mine:

        async def work(corrector: Corrector, model: Model) -> dict[str, float]:
            person = Person(case, corrector.shown)
            first = nmi(case, corrector.shown)
            estimate = corrector.shown.estimate
            drawn = sorted(a.image_id for a in corrector.shown.assignments)
            random.Random(seed).shuffle(drawn)
            skipped: list[str] = []
            answers = 0
            while answers < ANSWERS:
                place = {a.image_id: a.cluster for a in corrector.shown.assignments}
                if order == "queue":
                    shown = [doubt.image_id for doubt in review(corrector, AT_ONCE, skipped).doubts]
                else:
                    shown = drawn[answers : answers + AT_ONCE]
                said = [person.answer(image_id, place[image_id]) for image_id in shown]
                skipped += [image_id for image_id, one in zip(shown, said, strict=True) if one is None]
                answers += len(shown)
                if any(said):
                    corrector.say([one for one in said if one is not None])
                if not shown:
                    break
            gain = nmi(case, corrector.shown) - first
            after = corrector.shown.estimate
            resorted = await sort_again(corrector, model, ignore)
            take_over(corrector, resorted)
            return {
                "before": first,
                "gain": gain,
                "sorted again": nmi(case, corrector.shown) - first,
                "corrections": person.corrected,
                "questions": resorted.calls[0],
                "estimate before": -1.0 if estimate is None else estimate.share,
                "estimate after": -1.0 if after is None else after.share,
            }

        return asyncio.run(with_session(mine, work))


# Cases


def cards(data: Path, scratch: Path, attributes: Sequence[str]) -> Iterator[Case]:
    photographs = load_shared(data, "cards")
    folder = scratch / "cards"
    photographs.write_images(folder)
    for words, attribute in photographs.interests:
        if attribute in attributes:
            out = scratch / f"cards-{attribute}"
            manylens.cluster(folder, words, out=out, progress=False)
            with RunFolder.open(out) as run:
                truth = {image.id: photographs.labels[image.paths[0]][attribute] for image in run.images()}
            yield Case(f"cards, {attribute}", out, folder, words, "nano", truth)


def replayed(looks: Path, scratch: Path, images: int | None, seed: int) -> Iterator[Case]:
    for path in find_sets(looks):
        drawn = read_looks(path).draw(images, seed)
        folder = scratch / f"{drawn.name}-{seed}"
        folder.mkdir()
        row_of = write_pictures(folder, drawn.rows)
        place = {row: number for number, row in enumerate(drawn.rows)}
        truth = {image_id: drawn.truth[place[row]] for image_id, row in row_of.items()}
        out = scratch / f"{drawn.name}-{seed}-run"
        model = ReplayModel(drawn, row_of, seed=seed)
        manylens.cluster(folder, drawn.interest, model=model, out=out, settings=Settings(seed=seed))
        yield Case(f"{drawn.name}, {len(drawn):,}", out, folder, drawn.interest, model, truth)


def simulated(names: Sequence[str], scratch: Path, images: int, seed: int) -> Iterator[Case]:
    for name in names:
        chance = random.Random(seed)
        folder = scratch / f"{name}-{seed}"
        folder.mkdir()
        ids = write_pictures(folder, range(images))
        truth = {image_id: f"kind{chance.randrange(13)}" for image_id in ids}
        model = scripted(WORLDS[name], truth, seed, False)
        out = scratch / f"{name}-{seed}-run"
        manylens.cluster(folder, INTEREST.text, model=model, out=out, settings=Settings(seed=seed))
        yield Case(f"{name}, {images:,}", out, folder, INTEREST.text, model, truth)


# Tables


def print_teaching(cases: Sequence[Case], seeds: int) -> None:
    print(
        "| case | seed | NMI before | spoiled | corrected | sorted again | without the head | corrections | of spoiled "
        "| answers | questions |\n|" + "---|" * 11
    )
    for case in cases:
        for seed in range(1, seeds + 1):
            with_head, without = teach(case, seed), teach(case, seed, with_head=False)
            cells = [case.name, seed, *(f"{with_head[key]:.3f}" for key in ("before", "spoiled", "corrected"))]
            cells += [f"{with_head['sorted again']:.3f}", f"{without['sorted again']:.3f}"]
            cells += [f"{with_head[key]:.0f}" for key in ("corrections", "spoiled pictures", "answers", "questions")]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


def print_answers(cases: Sequence[Case], draws: int) -> None:
    print(
        f"| case | NMI before | gain of {ANSWERS} answers of the queue | random (mean) | sorted again: queue | random "
        "| corrections: queue | random | estimate before | after the queue |\n|" + "---|" * 10
    )
    for case in cases:
        by_queue = answer(case, "queue", 0)
        at_random = [answer(case, "random", seed) for seed in range(draws)]
        mean = {key: fmean(one[key] for one in at_random) for key in by_queue}
        cells = [case.name, f"{by_queue['before']:.3f}"]
        for key in ("gain", "sorted again"):
            cells += [f"{by_queue[key]:+.4f}", f"{mean[key]:+.4f}"]
        cells += [f"{by_queue['corrections']:.0f}", f"{mean['corrections']:.1f}"]
        cells += [f"{by_queue['estimate before']:.2%}", f"{by_queue['estimate after']:.2%}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with card.zip")
    parser.add_argument("--looks", type=Path, help="folder with <set>.csv.gz and <set>.npz")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=())
    parser.add_argument("--attributes", nargs="+", default=("rank", "suit", "color"))
    parser.add_argument("--images", type=int, default=1000, help="of a world, and drawn from the looks")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="corrections-") as holder:
        scratch = Path(holder)
        if options.data:
            print_teaching(list(cards(options.data, scratch, options.attributes)), options.seeds)
        for seed in range(1, options.seeds + 1):
            if options.looks:
                print_answers(list(replayed(options.looks, scratch, options.images, seed)), options.seeds)
            if options.worlds:
                cases = list(simulated(options.worlds, scratch, options.images, seed))
                print_teaching(cases, 1)
                print_answers(cases, 2)


if __name__ == "__main__":
    main()
