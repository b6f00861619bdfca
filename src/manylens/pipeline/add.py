"""Images that come later join a clustering: look at them, place them, name the new kinds that they bring.

In: a clustering, the images of the collection now. Out: the clustering with them. Promise: what was placed stays where
it is; clusters keep their ids and names; what a question about a new image costs is what it costs in a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from manylens.errors import UsageError
from manylens.method.addition import ByWords, Known, joined, old_of, place, placed_by_words, selected, sorting_with
from manylens.method.assignment import assign, exemplars
from manylens.method.levels import Group
from manylens.method.naming import name_groups
from manylens.method.observations import Looks, normalise_description
from manylens.method.sorting import NONE, Sorting
from manylens.models.base import Model
from manylens.pipeline.budget import Budget
from manylens.pipeline.judge_session import JudgeSession
from manylens.pipeline.look import look_at_images
from manylens.pipeline.run import Emit, edge_scale
from manylens.pipeline.verdict import place_by_look
from manylens.settings import Settings
from manylens.text import counted
from manylens.types import Assignment, Cluster, Clustering, Misplaced

_DRAWS = 4000


async def add_images(
    clustering: Clustering,
    image_ids: Sequence[str],
    model: Model,
    settings: Settings,
    emit: Emit,
    budget: Budget,
    last_id: int = 0,
) -> Clustering:
    """image_ids: of the collection now. Images that the clustering knows and that are gone must have left it before.
    last_id: the highest that a cluster of the interest ever had; new ones get higher ones.

    Raises UsageError where the clustering was made with another model.
    """
    if clustering.model != model.name:
        raise UsageError(
            f"images are added by the model that looked at the others, {clustering.model!r}, got {model.name!r}",
            f"pass --model {clustering.model}",
        )
    known_ids = {a.image_id for a in clustering.assignments}
    fresh = sorted(set(image_ids) - known_ids)
    if not fresh:
        return clustering
    interest = clustering.interest
    before = (await look_at_images(sorted(known_ids), [interest], model, emit, Budget(model, Settings())))[interest]
    after = (await look_at_images(fresh, [interest], model, emit, budget))[interest]
    looks = joined(before, after)
    session = JudgeSession(after, model, emit, budget, budget.part(1.0))
    session.looks = looks
    clusters, placed = await _place(clustering, looks, set(after.image_ids), settings, session, last_id)
    kept = tuple(a for a in clustering.assignments if a.image_id not in placed)
    assignments = tuple(sorted((*kept, *placed.values()), key=lambda a: a.image_id))
    sizes = Counter(a.cluster for a in assignments)
    came = [a for a in placed.values() if a.cluster is not None]
    new = len(clusters) - len(clustering.clusters)
    note = f"{counted(len(fresh), 'image')} added later: {len(came):,} placed" + (
        f", {counted(new, 'new cluster')}" if new else ""
    )
    asked = clustering.calls
    return replace(
        clustering,
        clusters=tuple(replace(cluster, size=sizes[cluster.id]) for cluster in clusters),
        assignments=assignments,
        failed=after.failed,
        calls=replace(
            asked,
            look=len(looks) + len(after.failed),
            choose=asked.choose + session.chosen,
            complete=asked.complete + session.written,
            failed=len(session.failures) + len(after.failed),
            tokens=asked.tokens + session.tokens,
        ),
        estimate=_estimate(clustering, came, settings.seed),
        notes=(*clustering.notes, f"{note}."),
        not_looked=after.not_looked,
        is_partial=clustering.is_partial or session.spent or bool(after.not_looked),
    )


async def _place(
    clustering: Clustering, looks: Looks, fresh: set[str], settings: Settings, session: JudgeSession, last_id: int
) -> tuple[list[Cluster], dict[str, Assignment]]:
    """All clusters, and the places of the new images."""
    if clustering.verdict is not None and clustering.verdict.word == "not understood":
        return list(clustering.clusters), await place_by_look(clustering, sorted(fresh), session.model)
    at = {image_id: i for i, image_id in enumerate(looks.image_ids)}
    inside: dict[int, list[int]] = {cluster.id: [] for cluster in clustering.clusters}
    pool = sorted(at[image_id] for image_id in fresh)
    for assignment in clustering.assignments:
        image = at.get(assignment.image_id)
        if image is not None and assignment.cluster is not None:
            inside[assignment.cluster].append(image)
    said = {at[a.image_id] for a in clustering.assignments if a.decided_by == "person" and a.image_id in at}
    clusters = list(clustering.clusters)
    number = max([last_id, *(cluster.id for cluster in clusters)])
    taken = {normalise_description(cluster.name) for cluster in clusters}
    for name in settings.into:
        if normalise_description(name) not in taken:
            number += 1
            clusters.append(Cluster(number, name, "", 0, ()))
    known = []
    for cluster in clusters:
        first = [at[image_id] for image_id in cluster.exemplars if image_id in at]
        images = inside.get(cluster.id, [])
        person = [image for image in images if image in said]  # what the cluster means, a person knows best
        known.append(Known(cluster.name, cluster.definition, tuple(dict.fromkeys([*person, *first, *images]))))
    asked = {at[a.image_id] for a in clustering.assignments if a.decided_by == "choice" and a.image_id in at}
    by_words = placed_by_words(looks, known, pool, asked, settings.price)
    found = {
        looks.image_ids[image]: _by_words(looks, image, place_, clusters[place_.cluster])
        for image, place_ in by_words.items()
    }
    pool = [image for image in pool if image not in by_words]
    if pool:
        session.start("check")
        keep = sorted({*pool, *(image for cluster in known for image in cluster.images)})
        row = {image: i for i, image in enumerate(keep)}
        own = [replace(cluster, images=tuple(row[i] for i in cluster.images)) for cluster in known]
        session.looks = selected(looks, keep)
        mine = [row[image] for image in pool]
        sorting = sorting_with(session.looks, own, mine, edge_scale(session.model.capabilities), settings)
        await session.drive(place(sorting, settings, clustering.estimate is not None))
        session.finish("check", f"{counted(session.chosen, 'question')} asked about {counted(len(mine), 'image')}")
        more, places = await _shown(sorting, own, mine, clusters, settings, session, number)
        clusters += more
        found.update(places)
    used = {a.cluster for a in found.values()}
    return [cluster for cluster in clusters if cluster.size or cluster.exemplars or cluster.id in used], found


def _by_words(looks: Looks, image: int, by: ByWords, cluster: Cluster) -> Assignment:
    reason = (
        f'described as "{looks.descriptions[image]}"; placed with "{cluster.name}", as earlier images described like '
        f"it are ({by.there:,} of {by.alike:,})"
    )
    return Assignment(looks.image_ids[image], cluster.id, round(by.probability, 4), reason, "description")


async def _shown(
    sorting: Sorting,
    known: Sequence[Known],
    pool: Sequence[int],
    clusters: Sequence[Cluster],
    settings: Settings,
    session: JudgeSession,
    number: int,
) -> tuple[list[Cluster], dict[str, Assignment]]:
    """New clusters with their names, and where the pool is. number: the last id that was given."""
    old = old_of(sorting, known)
    groups: dict[int, list[int]] = {}
    for image in pool:
        if (cluster := sorting.cluster_of(image)) != NONE:
            groups.setdefault(sorting.root(cluster), []).append(image)
    kept = [c for c in groups if c in old]
    made = sorted(
        (c for c in groups if c not in old and len(groups[c]) > 1), key=lambda c: (-len(groups[c]), groups[c][0])
    )
    new = [Group(c, tuple(groups[c])) for c in made]
    writes = session.model.capabilities.writes_text and bool(new)
    named = await session.drive(name_groups(sorting.looks, new, [""] * len(new), writes))
    taken = {normalise_description(cluster.name) for cluster in clusters}
    more = []
    for group, label in zip(new, named, strict=True):
        number += 1
        name = label.name if normalise_description(label.name) not in taken else f"{label.name} ({number})"
        taken.add(normalise_description(name))
        shown = tuple(sorting.looks.image_ids[i] for i in exemplars(sorting, group, settings.exemplars))
        more.append(Cluster(number, name, label.definition, len(group.images), shown))
    every = [Group(c, tuple(groups[c])) for c in kept] + new
    ids = [clusters[old[c]].id for c in kept] + [cluster.id for cluster in more]
    names = [clusters[old[c]].name for c in kept] + [cluster.name for cluster in more]
    assigned = assign(sorting, every, names, session.spent, bool(settings.into))
    places = {}
    for image in pool:
        one = assigned[image]
        places[one.image_id] = one if one.cluster is None else replace(one, cluster=ids[one.cluster - 1])
    return more, places


def _estimate(clustering: Clustering, came: Sequence[Assignment], seed: int) -> Misplaced | None:
    """The earlier estimate, and what the confidences of those that came leave in doubt."""
    earlier = clustering.estimate
    if earlier is None:
        return None
    had = sum(a.cluster is not None for a in clustering.assignments)
    doubts = np.array([1 - a.confidence for a in came])
    random = np.random.default_rng([seed, 11])
    draws = (random.random((_DRAWS, len(doubts))) < doubts).sum(axis=1) if len(doubts) else np.zeros(_DRAWS)
    low, high = np.quantile(draws, (0.025, 0.975))
    every = max(1, had + len(came))
    sums = (earlier.share * had + doubts.sum(), earlier.low * had + low, earlier.high * had + high)
    share, least, most = (round(float(x) / every, 4) for x in sums)
    return Misplaced(share, min(least, share), max(most, share))
