"""Images that come later join a clustering: look at them, place them, name the new kinds that they bring.

In: a clustering, the images of the collection now. Out: the clustering with them. Promise: what was placed stays where
it is; clusters keep their ids and names; what a question about a new image costs is what it costs in a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from manylens.errors import UsageError
from manylens.method.addition import (
    RELIABILITY,
    ByWords,
    Known,
    evidence_for,
    joined,
    lessons_of,
    old_of,
    place,
    placed_by_words,
    selected,
    sorting_with,
)
from manylens.method.assignment import assign, exemplars
from manylens.method.levels import Group
from manylens.method.naming import name_groups
from manylens.method.observations import Looks, normalise_description
from manylens.method.own_doubt import sure_of
from manylens.method.sorting import NONE, Sorting
from manylens.models.base import Model
from manylens.pipeline.budget import Budget
from manylens.pipeline.judge_session import JudgeSession
from manylens.pipeline.look import look_at_images
from manylens.pipeline.notes import count_notes
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
        return recounted(clustering, settings)
    interest = clustering.interest
    with budget.reading():  # where they are not stored (the model was changed), the account's limits hold
        before = (await look_at_images(sorted(known_ids), [interest], model, emit))[interest]
    after = (await look_at_images(fresh, [interest], model, emit, budget))[interest]
    looks, had, missing = joined(before, after), len(before), before.not_looked
    del before  # of a million images that is 1.5 GB

    def open_session(asked_about: Looks) -> JudgeSession:
        return JudgeSession(asked_about, model, emit, budget, budget.part(1.0))

    session = open_session(selected(looks, ()))
    if clustering.verdict is not None and clustering.verdict.word == "not understood":
        clusters, placed = list(clustering.clusters), await place_by_look(clustering, after.image_ids, model)
    else:
        clusters, placed, session = await _place(
            clustering,
            looks,
            set(after.image_ids),
            settings,
            open_session,
            last_id,
            model.capabilities.own_doubt is not None,
        )
    kept = tuple(a for a in clustering.assignments if a.image_id not in placed)
    came = [a for a in placed.values() if a.cluster is not None]
    new = len({a.cluster for a in came} - {cluster.id for cluster in clustering.clusters})
    note = f"{counted(len(fresh), 'image')} added later: {len(came):,} placed" + (
        f", {counted(new, 'new cluster')}" if new else ""
    )
    asked = clustering.calls
    grown = replace(
        clustering,
        identity=clustering.identity if missing else model.identity,
        clusters=tuple(clusters),
        assignments=tuple(sorted((*kept, *placed.values()), key=lambda a: a.image_id)),
        failed=after.failed,
        calls=replace(
            asked,
            look=had + len(after) + len(after.failed),
            choose=asked.choose + session.chosen,
            complete=asked.complete + session.written,
            failed=len(session.failures) + len(after.failed),
            tokens=asked.tokens + after.tokens + session.tokens,
        ),
        estimate=_estimate(clustering, came, settings.seed),
        notes=(*clustering.notes, f"{note}."),
        not_looked=after.not_looked,
        is_partial=clustering.is_partial or session.spent or bool(after.not_looked),
    )
    return recounted(grown, settings)


def recounted(clustering: Clustering, settings: Settings) -> Clustering:
    """Sizes and notes as the assignments are now. A cluster that has lost all its images is none."""
    sizes = Counter(a.cluster for a in clustering.assignments)
    counts = clustering.counting_notes
    by_look = clustering.verdict is not None and clustering.verdict.word == "not understood"
    anew = tuple(
        count_notes(() if by_look else clustering.assignments, clustering.failed, settings, clustering.is_partial)
    )
    return replace(
        clustering,
        clusters=tuple(replace(c, size=sizes[c.id]) for c in clustering.clusters if sizes[c.id]),
        notes=(*(note for note in clustering.notes if note not in counts), *anew),
        counting_notes=anew,
    )


async def _place(
    clustering: Clustering,
    looks: Looks,
    fresh: set[str],
    settings: Settings,
    open_session: Callable[[Looks], JudgeSession],
    last_id: int,
    repeats: bool,
) -> tuple[list[Cluster], dict[str, Assignment], JudgeSession]:
    """All clusters, the places of the new images, and the session in which questions about them were asked. repeats:
    whether the model's answers repeat its looks."""
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
    by_words = placed_by_words(looks, known, pool) if repeats or clustering.estimate is None else {}
    found = {
        looks.image_ids[image]: _by_words(looks, image, place_, clusters[place_.cluster])
        for image, place_ in by_words.items()
    }
    pool = [image for image in pool if image not in by_words]
    keep = sorted({*pool, *(image for cluster in known for image in cluster.images)})
    session = open_session(selected(looks, keep))
    if pool:
        session.start("check")
        row = {image: i for i, image in enumerate(keep)}
        own = [replace(cluster, images=tuple(row[i] for i in cluster.images)) for cluster in known]
        mine = [row[image] for image in pool]
        edge = edge_scale(session.model.capabilities)
        number_of = {cluster.id: n for n, cluster in enumerate(clusters)}
        there = {at[a.image_id]: a for a in clustering.assignments if a.image_id in at}
        answered = {
            image: NONE if a.cluster is None else number_of[a.cluster]
            for image, a in there.items()
            if a.decided_by == "choice"
        }
        placed = {
            row[image]: number_of[a.cluster]
            for image, a in there.items()
            if a.cluster is not None and a.decided_by in ("choice", "person")
        }
        shown = {image for cluster in own for image in cluster.images[: settings.exemplars_asked]}
        evidence = evidence_for(session.looks, mine, placed, shown)
        lessons = lessons_of(looks, known, answered, edge, RELIABILITY, {keep[image] for image in evidence})
        sorting = sorting_with(session.looks, own, mine, edge, settings, lessons, evidence)
        is_asked = bool(settings.into) if repeats else clustering.estimate is not None
        await session.drive(place(sorting, settings, is_asked, len(keep) - len(mine)))
        session.finish("check", f"{counted(session.chosen, 'question')} asked about {counted(len(mine), 'image')}")
        more, places = await _shown(sorting, own, mine, clusters, settings, session, number)
        clusters += more
        found.update(places)
    return clusters, found, session


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
    sure = sure_of(sorting, session.model.capabilities.own_doubt is not None)
    taken = {normalise_description(cluster.name) for cluster in clusters}
    more = []
    for group, label in zip(new, named, strict=True):
        number += 1
        name = label.name if normalise_description(label.name) not in taken else f"{label.name} ({number})"
        taken.add(normalise_description(name))
        shown = tuple(sorting.looks.image_ids[i] for i in exemplars(sorting, group, sure, settings.exemplars))
        more.append(Cluster(number, name, label.definition, len(group.images), shown))
    every = [Group(c, tuple(groups[c])) for c in kept] + new
    ids = [clusters[old[c]].id for c in kept] + [cluster.id for cluster in more]
    names = [clusters[old[c]].name for c in kept] + [cluster.name for cluster in more]
    assigned = assign(sorting, every, names, sure, session.spent, bool(settings.into))
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
    return Misplaced(share, min(least, share), max(most, share), earlier.basis)
