"""Compound interests: their parts are sorted as any interest, and the combinations that occur are named.

In: the interests that were asked for. Out: a `Clustering` for each, and for each part. Promise: no picture is looked at
and no question is asked for a combination that the parts have not paid for; a model that writes is asked for names, one
call for forty combinations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from manylens.errors import UsageError
from manylens.events import Notice
from manylens.method.compound import (
    Combination,
    combine,
    joint,
    joint_estimate,
    joint_verdict,
    parts_of,
    places,
    understood,
)
from manylens.method.corrections import Said
from manylens.method.naming import CLUSTERS_PER_CALL, usable_names
from manylens.method.observations import normalise_description
from manylens.method.questions import Steps
from manylens.models.base import Model
from manylens.pipeline.budget import Budget
from manylens.pipeline.judge_session import JudgeSession
from manylens.pipeline.look import gather_looks
from manylens.pipeline.run import Emit, cluster_images
from manylens.settings import Settings
from manylens.text import counted
from manylens.types import CallCounts, Cluster, Clustering, Interest, parse_interests
from manylens.writing import DescribedGroup, NameClusters


def compound_parts(interest: Interest, settings: Settings) -> tuple[Interest, ...]:
    """The parts that a run sorts by first; empty where it takes the interest as one: as told, or because a closed list
    says which clusters there are."""
    return () if settings.into or not settings.compound else parts_of(interest)


def with_parts(interests: Sequence[Interest], settings: Settings) -> tuple[Interest, ...]:
    """The interests with the parts of those that are compound before them, each once. Raises UsageError as
    `parse_interests`."""
    asked = {interest.slug: interest for interest in interests}
    every: dict[str, Interest] = {}
    for interest in interests:
        for part in compound_parts(interest, settings):
            every.setdefault(part.slug, asked.get(part.slug, part))
        every.setdefault(interest.slug, interest)
    try:
        return parse_interests([interest.text for interest in every.values()])
    except UsageError as error:
        raise UsageError(f"{error.rule} (as a part of another interest)", error.hint) from error


def looked_at(interests: Sequence[Interest], settings: Settings) -> tuple[Interest, ...]:
    """Of interests with their parts those that pictures are looked at for."""
    return tuple(interest for interest in interests if not compound_parts(interest, settings))


async def sort_images(
    image_ids: Sequence[str],
    interests: Sequence[Interest],
    model: Model,
    settings: Settings,
    emit: Emit,
    stand_ins: Mapping[str, str] | None = None,
    said: Mapping[Interest, Said] | None = None,
    shown: Callable[[Clustering], Clustering] = lambda clustering: clustering,
) -> dict[Interest, Clustering]:
    """`cluster_images`, of interests as `with_parts` gives them, and then the combinations. shown: a
    part with what a person said of it, as it is combined."""
    simple = looked_at(interests, settings)
    if len(simple) == len(interests):
        return await cluster_images(image_ids, interests, model, settings, emit, stand_ins, said)
    for interest in interests:
        if parts := compound_parts(interest, settings):
            both = "both" if len(parts) == 2 else "all three"
            listed = " and ".join(f'"{part.text}"' for part in parts)
            emit(Notice(f'"{interest.text}" asks for {listed}: sorted by each, and then by {both}'))
    own = replace(settings, n_clusters=None) if settings.n_clusters is not None else settings
    found = await cluster_images(image_ids, simple, model, own, emit, stand_ins, said)
    by_slug = {interest.slug: clustering for interest, clustering in found.items()}
    budget = Budget(model, settings)
    for interest in interests:
        if parts := compound_parts(interest, settings):
            held = [shown(by_slug[part.slug]) for part in parts]
            found[interest] = await combine_parts(interest, held, model, settings, emit, budget)
    return {interest: found[interest] for interest in interests}


async def combine_parts(
    interest: Interest, parts: Sequence[Clustering], model: Model, settings: Settings, emit: Emit, budget: Budget
) -> Clustering:
    """The clustering by all parts at once."""
    known = understood(parts)
    combinations = combine(known, settings.level, settings.n_clusters)
    session = JudgeSession(gather_looks(interest, (), ()), model, emit, budget, budget.part(1.0))
    session.start("name")
    names = [one.name for one in combinations]
    if model.capabilities.writes_text and combinations:
        names = await session.drive(_written(interest, combinations))
    clusters = [
        Cluster(number, name, _definition(one, known), len(one.images), one.images[: settings.exemplars])
        for number, (one, name) in enumerate(zip(combinations, names, strict=True), start=1)
    ]
    at = {image_id: number for number, one in enumerate(combinations, start=1) for image_id in one.images}
    interests = [part.interest for part in known]
    assignments = tuple(joint(i, where, at.get(i), interests) for i, where in places(known).items())
    session.finish("name", f"{counted(len(clusters), 'combination')} named")
    return _about(
        parts,
        Clustering(
            interest=interest,
            model=model.name,
            identity=model.identity,
            clusters=tuple(clusters),
            assignments=assignments,
            failed=(),
            calls=CallCounts(complete=session.written, failed=len(session.failures), tokens=session.tokens),
            density=0.0,
            notes=tuple(_notes(parts, known, combinations, [a.cluster for a in assignments])),
            foreseen_calls=(session.written, session.written),
        ),
    )


def grown(before: Clustering, parts: Sequence[Clustering]) -> Clustering:
    """The combinations once their parts have more images: those that were placed stay, those that came join the
    combination that they are of, and found one where two of them are of a new one."""
    known = understood(parts)
    where = places(known)
    old = {a.image_id: a for a in before.assignments if a.image_id in where}

    def key(image_id: str) -> tuple[int | None, ...]:
        return tuple(a.cluster for a in where[image_id])

    votes: dict[tuple[int | None, ...], Counter[int]] = {}
    for image_id, assignment in old.items():
        if assignment.cluster is not None:
            votes.setdefault(key(image_id), Counter())[assignment.cluster] += 1
    home = {of: min(counts, key=lambda c: (-counts[c], c)) for of, counts in votes.items()}
    fresh = Counter(key(i) for i in where if i not in old and None not in key(i) and key(i) not in home)
    clusters = list(before.clusters)
    names = [{cluster.id: cluster.name for cluster in part.clusters} for part in known]
    for of, size in sorted(fresh.items(), key=lambda entry: (-entry[1], str(entry[0]))):
        if size > 1:
            home[of] = max((cluster.id for cluster in clusters), default=0) + 1
            came = tuple(i for i in where if i not in old and key(i) == of)
            one = Combination(tuple(each[k or 0] for each, k in zip(names, of, strict=True)), came)
            clusters.append(Cluster(home[of], one.name, _definition(one, known), size, came[:1]))
    interests = [part.interest for part in known]
    assignments = tuple(old.get(i) or joint(i, at, home.get(key(i)), interests) for i, at in where.items())
    sizes = Counter(a.cluster for a in assignments)
    return _about(
        parts,
        replace(
            before,
            clusters=tuple(replace(cluster, size=sizes[cluster.id]) for cluster in clusters),
            assignments=assignments,
        ),
    )


def _about(parts: Sequence[Clustering], joined: Clustering) -> Clustering:
    """With what all parts say of failures, budgets, mistakes and themselves."""
    there = {a.image_id for a in joined.assignments}
    failed = {image_id: reason for part in reversed(parts) for image_id, reason in part.failed}
    not_looked = {image_id for part in parts for image_id in part.not_looked} - set(failed) - there
    return replace(
        joined,
        failed=tuple(sorted((i, reason) for i, reason in failed.items() if i not in there)),
        not_looked=tuple(sorted(not_looked)),
        estimate=joint_estimate(parts),
        is_partial=any(part.is_partial for part in parts),
        verdict=joint_verdict(parts),
    )


def _definition(one: Combination, parts: Sequence[Clustering]) -> str:
    if one.folded:
        rest = " in combinations that hardly occur" if len(one.names) > 1 else ", whatever else they are"
        return f'Pictures of "{one.names[0]}" ({parts[0].interest.text}){rest}.'
    each = [f'"{name}" ({part.interest.text})' for name, part in zip(one.names, parts, strict=True)]
    return f"Pictures of {' and '.join(each)}."


def _notes(
    parts: Sequence[Clustering], known: Sequence[Clustering], found: Sequence[Combination], at: Sequence[int | None]
) -> list[str]:
    names = [f'"{part.interest.text}"' for part in parts]
    notes = [
        f"Put together from the clusterings by {' and by '.join(names)}, without another look: the descriptions and "
        "questions are counted there."
    ]
    for part in parts:
        if part not in known:
            notes.append(f'"{part.interest.text}" was not understood and is left out of the combinations.')
    folded = sum(one.folded for one in found)
    if folded:
        notes.append(f'Combinations that hardly occur are put together in {counted(folded, "cluster")} called "other".')
    loose = sum(cluster is None for cluster in at)
    if loose:
        why = "they are in no cluster of one of the parts, or the only ones of their combination"
        notes.append(f"{counted(loose, 'image is', 'images are')} unassigned: {why}.")
    return notes


def _written(interest: Interest, combinations: Sequence[Combination]) -> Steps[list[str]]:
    """Names by a model that writes, "red apples" for "red, apple"; what it does not name well keeps its own."""
    names = [one.name for one in combinations]
    whole = [number for number, one in enumerate(combinations) if not one.folded]
    taken = {normalise_description(name): number for number, name in enumerate(names)}
    for start in range(0, len(whole), CLUSTERS_PER_CALL):
        batch = whole[start : start + CLUSTERS_PER_CALL]
        sizes = [len(combinations[k].images) for k in batch]
        groups = tuple(DescribedGroup(k + 1, size, ((names[k], size),)) for k, size in zip(batch, sizes, strict=True))
        (answer,) = yield [NameClusters(interest.text, groups, tuple(names[k] for k in whole[:start]))]
        for number, label in (usable_names(answer.written, [k + 1 for k in batch]) or {}).items():
            words = normalise_description(label.name)
            if taken.get(words, number - 1) == number - 1:
                taken.pop(normalise_description(names[number - 1]), None)
                taken[words] = number - 1
                names[number - 1] = label.name
    return names
