"""Worlds of open words: the whole method on a scripted model that answers freely, and whose writer errs.

`python -m bench.simulate --worlds [NAME ...]` prints a Markdown row for each world, number of images, and with and
without a writer: NMI of the descriptions as they are, NMI and K of the method (each unassigned image a cluster of its
own), calls beside the look per image, calls of the writer, images unassigned, and seconds, the scripted model's
included. Means over the seeds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import mean

from manylens.evaluate import evaluate_labels
from manylens.models.base import LookReply, LookRequest
from manylens.models.scripted import DESIGN_NOISE, Noise, ScriptedModel
from manylens.models.wordings import Wordings
from manylens.pipeline import cluster_images
from manylens.records import Interest, Settings

INTEREST = Interest("kind")
WORLD_SIZES = (260, 1000, 5000)
_DECIMALS = {"descriptions": 3, "NMI": 3, "calls/image": 2}


@dataclass(frozen=True, slots=True)
class World:
    """wordings: None is the closed set of words, one a class, that the simulation had before."""

    wordings: Wordings | None
    noise: Noise = DESIGN_NOISE


WORLDS = {
    "closed words": World(None),
    "10 wordings": World(Wordings(per_class=10)),
    "30 wordings": World(Wordings(per_class=30)),
    "free prose": World(Wordings(per_class=0)),
    "two levels": World(Wordings(levels=0.3)),
    "a third foreign": World(Wordings(foreign=1 / 3)),
    "correlated mistakes": World(Wordings(correlated=True), replace(DESIGN_NOISE, wrong_description=0.1, stubborn=0.5)),
    "no answers": World(Wordings(refusals=0.1)),
}


def draw_labels(images: int, classes: int, seed: int, skew: float = 0.0) -> dict[str, str]:
    """Image id -> class; sizes fall by a power of the class number where skew > 0."""
    chance = random.Random(seed)
    names = [f"kind{number}" for number in range(classes)]
    weights = [(number + 1) ** -skew for number in range(classes)]
    return {f"{chance.getrandbits(128):032x}": chance.choices(names, weights)[0] for _ in range(images)}


def simulate_world(
    world: World, images: int, classes: int, seed: int, writes: bool, skew: float = 0.0
) -> dict[str, float]:
    """One run; all numbers of the table's row."""
    labels = draw_labels(images, classes, seed, skew)
    truth = {INTEREST.text: labels}
    model = ScriptedModel(truth, noise=world.noise, seed=seed, writes_text=writes, wordings=world.wordings)
    looks = asyncio.run(model.look([LookRequest(INTEREST.text, image_id) for image_id in labels]))
    said = [look.description if isinstance(look, LookReply) else None for look in looks]
    before = time.perf_counter()
    settings = Settings(seed=seed)
    found = asyncio.run(cluster_images(list(labels), [INTEREST], model, settings, lambda event: None))[INTEREST]
    seconds = time.perf_counter() - before
    cluster_of = {assignment.image_id: assignment.cluster for assignment in found.assignments}
    scores = evaluate_labels(list(labels.values()), [cluster_of.get(image_id) for image_id in labels])
    return {
        "descriptions": evaluate_labels(list(labels.values()), said).nmi,
        "NMI": scores.nmi,
        "K": scores.clusters_found,
        "calls/image": (model.calls["judge"] + model.calls["choose"]) / images,
        "writer calls": model.calls["complete"],
        "unassigned": scores.unassigned,
        "seconds": seconds,
    }


def print_worlds(
    names: Iterable[str],
    sizes: Iterable[int],
    classes: int,
    seeds: int,
    skew: float = 0.0,
    worlds: Mapping[str, World] = WORLDS,
) -> None:
    columns = "descriptions | NMI | K | calls/image | writer calls | unassigned | seconds"
    print(f"| world | images | writer | {columns} |\n|{'---|' * 10}")
    for name in names:
        for images in sizes:
            for writes in (True, False):
                runs = [simulate_world(worlds[name], images, classes, seed, writes, skew) for seed in range(seeds)]
                means = {key: mean(run[key] for run in runs) for key in runs[0]}
                cells = [f"{value:.{_DECIMALS.get(key, 1)}f}" for key, value in means.items()]
                print(f"| {name} | {images:,} | {'yes' if writes else 'no'} | {' | '.join(cells)} |", flush=True)
