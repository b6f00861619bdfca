"""Where an interest stands: the looks that the run holds, its clusters, and what a person said, in arrays.

In: a corrector. Out: a `Standing`. Promise: the run is only read, and no model is asked.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from manylens.correcting.corrector import Corrector
from manylens.correcting.settle import active
from manylens.method.addition import Known
from manylens.method.corrections import said_by
from manylens.method.resort import NONE, Standing
from manylens.types import Clustering


def standing_of(corrector: Corrector) -> tuple[Standing, tuple[int, ...]]:
    """Where the interest stands, and the ids of its clusters in the order of `Standing.known`."""
    shown = corrector.shown
    looks = corrector.looks
    ids = tuple(cluster.id for cluster in shown.clusters)
    number = {cluster_id: at for at, cluster_id in enumerate(ids)}
    now = {a.image_id: a for a in shown.assignments}
    model = {a.image_id: a for a in corrector.decided.assignments}
    by_person = np.array([now[image].decided_by == "person" for image in looks.image_ids], dtype=bool)
    home = _homes(shown, corrector.decided, number)
    cluster = np.array([number.get(now[image].cluster or 0, NONE) for image in looks.image_ids], dtype=np.int64)
    decided, confidence = cluster.copy(), np.zeros(len(looks))
    for at, image in enumerate(looks.image_ids):
        source = model[image] if by_person[at] else now[image]
        confidence[at] = source.confidence
        if by_person[at]:
            decided[at] = NONE if source.cluster is None else home.get(source.cluster, NONE)
    row = {image: at for at, image in enumerate(looks.image_ids)}
    barred = {}
    for image, clusters in said_by(corrector.decided, active(corrector.steps)).barred.items():
        if image in row:
            barred[row[image]] = frozenset(number[c] for c in clusters if c in number)
            by_person[row[image]] = False
    inside: list[list[int]] = [[] for _ in ids]
    order = sorted(range(len(looks)), key=lambda at: (not by_person[at], -confidence[at], at))
    for at in order:
        if cluster[at] != NONE:
            inside[cluster[at]].append(at)
    known = []
    for one, images in zip(shown.clusters, inside, strict=True):
        person = [at for at in images if by_person[at]]
        first = [row[image] for image in one.exemplars if image in row]
        known.append(Known(one.name, one.definition, tuple(dict.fromkeys([*person, *first, *images]))))
    described = np.array([now[image].decided_by == "description" for image in looks.image_ids], dtype=bool)
    models = {one.id for one in corrector.decided.clusters}
    made = frozenset(at for cluster_id, at in number.items() if cluster_id not in models)
    return Standing(looks, tuple(known), cluster, decided, confidence, by_person, described, barred, made), ids


def _homes(shown: Clustering, decided: Clustering, number: dict[int, int]) -> dict[int, int]:
    """What became of each of the model's clusters: itself, or what holds most of its images that nobody spoke of."""
    place = {a.image_id: a.cluster for a in shown.assignments if a.decided_by != "person"}
    votes: dict[int, Counter[int]] = {}
    for a in decided.assignments:
        at = place.get(a.image_id)
        if a.cluster is not None and at is not None:
            votes.setdefault(a.cluster, Counter())[at] += 1
    homes = {old: number[max(count, key=lambda c: (count[c], -c))] for old, count in votes.items()}
    return homes | number
