"""Small collections of many kinds, drawn from the labelled sets: what becomes of images alone of their kind.

`python -m bench.mixed --data DIR --runs DIR`: nano, "kind of object", default settings, five draws of each collection.
`alone`: share of images whose description nobody shares. `against`: images, over all draws, in a cluster of another
description. NMI counts each unassigned image as a cluster of its own. Most images trained nano, so levels are too
good; compare versions of the method.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import random
import shutil
from collections import Counter, defaultdict
from pathlib import Path

from bench.nano_sets import MIXED, look_at_folder
from manylens.method.observations import normalise_description
from manylens.pipeline import cluster_looks
from manylens.results.evaluate import evaluate_labels
from manylens.settings import Settings
from manylens.types import Interest

KINDS = {"15x4": (15, 4, 4), "8x6": (8, 6, 6), "31x1-3": (31, 1, 3), "15x10": (15, 10, 10), "40x1+10x8": (50, 1, 8)}
"""name -> (kinds, images of each at least, at most). Of the last, 40 kinds have one image and 10 up to eight."""

TEN_OF_EACH = "60"
DRAWS = 5
INTEREST = Interest("kind of object")

Row = tuple[Path, str, str]
"""File, kind, set."""


def read_rows(data: Path) -> list[Row]:
    found: list[Row] = []
    for folder, column in MIXED.items():
        with (data / folder / "labels.csv").open(encoding="utf-8") as lines:
            found += [(data / folder / "images" / row["file"], row[column], folder) for row in csv.DictReader(lines)]
    return found


def draw(rows: list[Row], name: str, seed: int) -> list[Row]:
    chance = random.Random(f"{name}{seed}")
    if name == TEN_OF_EACH:
        return [row for folder in MIXED for row in chance.sample([row for row in rows if row[2] == folder], 10)]
    count, least, most = KINDS[name]
    of_kind: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_kind[row[1]].append(row)
    fewest = 1 if least == 1 else max(4, least)
    drawn: list[Row] = []
    for place, kind in enumerate(chance.sample(sorted(k for k in of_kind if len(of_kind[k]) >= fewest), count)):
        size = (1 if place < 40 else most) if name == "40x1+10x8" else chance.randint(least, most)
        drawn += chance.sample(of_kind[kind], min(size, len(of_kind[kind])))
    return drawn


def measure(rows: list[Row], place: Path) -> dict[str, float]:
    """The numbers of one draw."""
    images = place / "images"
    images.mkdir(parents=True, exist_ok=True)
    labels = {f"{folder}-{file.name}": kind for file, kind, folder in rows}
    for file, _, folder in rows:
        shutil.copyfile(file, images / f"{folder}-{file.name}")
    with look_at_folder(images, place / "run", [INTEREST]) as (every, first, model):
        looks = every[INTEREST]
        found = asyncio.run(cluster_looks(looks, model, Settings(), lambda event: None))
    true = [labels[first[image_id]] for image_id in looks.image_ids]
    words = dict(zip(looks.image_ids, looks.words, strict=True))
    names = {cluster.id: normalise_description(cluster.name.split(",")[0]) for cluster in found.clusters}
    moved = [a for a in found.assignments if a.cluster is not None and words[a.image_id] != names[a.cluster]]
    return {
        "images": len(looks),
        "alone": sum(count == 1 for count in Counter(looks.words).values()),
        "descriptions": evaluate_labels(true, list(looks.descriptions)).nmi,
        "NMI": evaluate_labels(true, [a.cluster for a in found.assignments]).nmi,
        "calls": found.calls.choose,
        "against": len(moved),
        "unassigned": sum(a.cluster is None for a in found.assignments),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the unpacked sets")
    parser.add_argument("--runs", type=Path, required=True)
    options = parser.parse_args()
    rows = read_rows(options.data)
    print("| collection | images | alone | descriptions | NMI | calls per image | against | unassigned |")
    print("|---|---|---|---|---|---|---|---|")
    for name in (TEN_OF_EACH, *KINDS):
        draws = [measure(draw(rows, name, seed), options.runs / f"{name}-{seed}") for seed in range(DRAWS)]
        total = {key: sum(one[key] for one in draws) for key in draws[0]}
        n = total["images"]
        cells = [f"{n / DRAWS:.0f}", f"{total['alone'] / n:.0%}"]
        cells += [f"{total[key] / DRAWS:.3f}" for key in ("descriptions", "NMI")]
        cells += [f"{total['calls'] / n:.2f}", f"{total['against']:.0f}", f"{total['unassigned']:.0f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
