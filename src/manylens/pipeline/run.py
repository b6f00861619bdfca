"""The method, in order: look, walk, vocabulary, check, name. The only place that orders stages.

In: image ids, interests, a model. Out: one `Clustering` per interest. Promise: never prints (it emits typed events);
the order of the images does not matter; a failed call is counted and ends in no answer, never in a crash; the budget is
a hard limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from manylens.events import Event, Foreseen, Notice
from manylens.method.assignment import assign, exemplars
from manylens.method.check import Check
from manylens.method.corrections import Said
from manylens.method.estimate import estimate_misplaced
from manylens.method.graph import DEFAULT_EDGE_OFFSET, DEFAULT_EDGE_SCALE, EXACT_UP_TO, has_index
from manylens.method.levels import Group, cut
from manylens.method.naming import name_groups
from manylens.method.observations import Looks, normalise_description
from manylens.method.own_doubt import estimate_by_looks, sure_of
from manylens.method.sorting import NO_ANSWER, NONE, Cluster, Sorting
from manylens.method.trial import Trial, try_judge
from manylens.method.vocabulary import Vocabulary, finer_kinds, make_vocabulary, name_parents, without_writer
from manylens.method.walk import EdgeScale, Units, walk
from manylens.models.base import Capabilities, Model
from manylens.pipeline.budget import Allowance, Budget
from manylens.pipeline.forecast import calls_after_looks, calls_before_looks
from manylens.pipeline.judge_session import JudgeSession
from manylens.pipeline.look import look_at_images
from manylens.pipeline.notes import count_notes, write_notes
from manylens.pipeline.verdict import judge_interest, sort_by_look
from manylens.settings import Settings
from manylens.text import counted
from manylens.types import Cluster as FinalCluster
from manylens.types import Clustering, Interest, Misplaced, Verdict

Emit = Callable[[Event], None]

_CHECK_SHARE = 0.95
"""Of a budget, what may be spent before the clusters are named, by a model that writes."""


async def cluster_images(
    image_ids: Sequence[str],
    interests: Sequence[Interest],
    model: Model,
    settings: Settings,
    emit: Emit,
    stand_ins: Mapping[str, str] | None = None,
    said: Mapping[Interest, Said] | None = None,
) -> dict[Interest, Clustering]:
    """Sort the images by each interest. Looks are shared: each image is read once per interest, image by image, and
    where `stand_ins` (image id -> image id) says so, one look serves several images. said: what a person said of images
    in an earlier clustering: it is evidence, and nobody is asked about them.

    The budget pays for the looks first; each interest then has an equal part of what is left, and what it leaves over
    goes to the next.
    """
    budget = Budget(model, settings)
    looks = await look_at_images(image_ids, interests, model, emit, budget, stand_ins)
    found: dict[Interest, Clustering] = {}
    for number, (interest, seen) in enumerate(looks.items()):
        looked = [*seen.image_ids, *(image_id for image_id, _ in seen.failed)]
        spared = frozenset(image_id for image_id in looked if (stand_ins or {}).get(image_id, image_id) != image_id)
        allowance = budget.part(1 / (len(looks) - number))
        found[interest] = await cluster_looks(
            seen, model, settings, emit, budget, allowance, spared, (said or {}).get(interest)
        )
    return found


async def cluster_looks(
    looks: Looks,
    model: Model,
    settings: Settings,
    emit: Emit,
    budget: Budget | None = None,
    allowance: Allowance | None = None,
    spared: frozenset[str] = frozenset(),
    said: Said | None = None,
) -> Clustering:
    """Partition the images of one interest, whose looks are at hand. Without an allowance all of the budget is its.

    spared: ids of images that another's look served.
    """
    budget = budget or Budget(model, settings)
    if looks.interest.options and not settings.into and settings.n_clusters is None:
        settings = replace(settings, into=looks.interest.options)
        listed = ", ".join(settings.into)
        text = f"is read as a closed list of clusters: {listed}; what fits none of them is left out"
        emit(Notice(f'"{looks.interest.text}" {text}'))
    session = JudgeSession(looks, model, emit, budget, allowance or budget.part(1.0), spared, said)
    verdict = await judge_interest(looks, model, settings)
    if verdict is not None and verdict.word == "not understood":
        return await sort_by_look(looks, verdict, settings, session)
    edge = edge_scale(model.capabilities)
    units = gather(looks, edge, settings, session)
    vocabulary = await group_descriptions(looks, settings, session)
    asks = _asks(units, vocabulary, settings, session)
    before = calls_before_looks(len(looks), settings.effort, _writes(session), asks)
    after = calls_after_looks(
        len(looks), len(set(looks.words)), len(units) if asks else 0, settings.effort, _writes(session), session.written
    )
    foreseen = (max(before[0], after[0]), max(before[0], after[0], min(before[1], after[1])))
    if foreseen[1]:
        emit(Foreseen(looks.interest.text, *foreseen))
    sorting, trial = await sort(looks, units, edge, vocabulary, settings, session)
    found = await present(sorting, trial, vocabulary, settings, session, foreseen, verdict)
    return replace(found, edge=(edge.scale, edge.offset))


def edge_scale(known: Capabilities) -> EdgeScale:
    """beta and b: the model's own where it learned them."""
    return EdgeScale(
        DEFAULT_EDGE_SCALE if known.edge_scale is None else known.edge_scale,
        DEFAULT_EDGE_OFFSET if known.edge_offset is None else known.edge_offset,
    )


def gather(looks: Looks, edge: EdgeScale, settings: Settings, session: JudgeSession) -> Units:
    """The relational graph, and the walks that make units of it."""
    session.start("walk")
    nodes = len(set(looks.words))
    if nodes > EXACT_UP_TO and not has_index():
        rule = f"all pairs of {nodes:,} descriptions are compared, which takes time with the square of their number"
        session.emit(Notice(f"{rule}; with faiss it is quicker: pip install 'manylens[faiss]'"))
    units = walk(looks, edge, settings)
    groups = counted(len(units), "group of alike pictures", "groups of alike pictures")
    near = "" if units.recall == 1 else f", {units.recall:.1%} of the edges found"
    session.finish("walk", f"{counted(nodes, 'description')}, {groups}{near}")
    return units


async def group_descriptions(looks: Looks, settings: Settings, session: JudgeSession) -> Vocabulary:
    """The vocabulary, where the model writes."""
    if not _writes(session) or len(set(looks.words)) < 2:
        return without_writer(looks)
    session.start("vocabulary")
    vocabulary = await session.drive(make_vocabulary(looks, "medium", settings.into), _CHECK_SHARE)
    categories = counted(len(set(vocabulary.category.values())), "category", "categories")
    session.finish("vocabulary", f"{counted(len(vocabulary.category), 'description')} in {categories}")
    return vocabulary


async def sort(
    looks: Looks,
    units: Units,
    edge: EdgeScale,
    vocabulary: Vocabulary,
    settings: Settings,
    session: JudgeSession,
) -> tuple[Sorting, Trial]:
    """Try the judge, then found clusters, tell them apart, and check who belongs where."""
    session.start("check")
    categories, names = _categories(units, vocabulary, settings.into)
    sorting = Sorting(looks, units, edge, categories, price=settings.price, exemplars=settings.exemplars_asked)
    sorting.told = session.told
    check = Check(sorting, settings.seed, closed=bool(settings.into))
    if settings.into:
        for number, name in enumerate(settings.into):
            sorting.add(Cluster(NONE, name, category=number))
    elif len(units):
        check.seed_clusters(names)
    share = _CHECK_SHARE if _writes(session) else 1.0
    asks = _asks(units, vocabulary, settings, session)
    trial = await session.drive(try_judge(check), share) if asks else Trial(tells=False)
    if trial.tells:
        await session.drive(check.run(), share)
        if session.chosen and not sorting.answers and not session.spent:
            trial = Trial(tells=False)  # every question failed
    if not trial.tells:
        check.settle_unasked()
    sorting.forget_told()
    found = counted(len(sorting.live()), "cluster")
    session.finish("check", f"{found}, {counted(session.chosen, 'question')} asked" if asks else found)
    return sorting, trial


async def present(
    sorting: Sorting,
    trial: Trial,
    vocabulary: Vocabulary,
    settings: Settings,
    session: JudgeSession,
    foreseen: tuple[int, int],
    verdict: Verdict | None,
) -> Clustering:
    """Cut at the level wanted; names, definitions, reasons, and the account of what was spent and what is uncertain."""
    looks = sorting.looks
    session.start("name")
    writes = _writes(session)
    parents = await session.drive(name_parents(sorting, looks)) if writes and not settings.into else {}
    fine = settings.level == "fine" or settings.n_clusters is not None
    finer = await session.drive(finer_kinds(sorting, looks)) if writes and fine else [None] * len(sorting.units)
    groups, parent_of = cut(sorting, settings.level, settings.n_clusters, parents, finer)
    if not settings.into:
        groups = [group for group in groups if len(group.images) > 1]
    hints = [_hint(sorting, group, parent_of.get(at, ""), settings) for at, group in enumerate(groups)]
    named = await session.drive(name_groups(looks, groups, hints, writes and not settings.into))
    names = [label.name for label in named]
    own_doubt = session.model.capabilities.own_doubt
    sure = sure_of(sorting, own_doubt is not None)
    assignments = assign(sorting, groups, names, sure, session.spent, bool(settings.into))
    overall, each = _estimate(sorting, groups, trial, settings, sure, own_doubt)
    clusters = [
        FinalCluster(
            id=number,
            name=label.name,
            definition=label.definition,
            size=len(group.images),
            exemplars=tuple(looks.image_ids[i] for i in exemplars(sorting, group, sure, settings.exemplars)),
            parent="" if settings.level == "coarse" else parent_of.get(number - 1, ""),
            misplaced=each[number - 1],
        )
        for number, (group, label) in enumerate(zip(groups, named, strict=True), start=1)
    ]
    unassigned = sum(assignment.cluster is None for assignment in assignments)
    loose = f", {counted(unassigned, 'picture')} unassigned" if unassigned else ""
    session.finish("name", f"{counted(len(clusters), 'cluster')} named{loose}")
    counts = tuple(count_notes(assignments, looks.failed, settings, session.spent))
    return Clustering(
        interest=looks.interest,
        model=session.model.name,
        identity=session.model.identity,
        clusters=tuple(clusters),
        assignments=tuple(assignments),
        failed=looks.failed,
        calls=session.counts(),
        density=sorting.units.density,
        estimate=overall,
        vocabulary=dict(sorted(vocabulary.category.items())),
        notes=(*write_notes(looks, session, trial, settings, verdict, sorting.units.recall), *counts),
        counting_notes=counts,
        not_looked=looks.not_looked,
        is_partial=session.spent or bool(looks.not_looked),
        foreseen_calls=foreseen,
        verdict=verdict,
    )


def _hint(sorting: Sorting, group: Group, parent: str, settings: Settings) -> str:
    """The name that a group has already: of a closed list, or as a coarser kind."""
    if settings.into:
        return sorting.clusters[group.cluster].name
    return parent if settings.level == "coarse" and settings.n_clusters is None else ""


def _writes(session: JudgeSession) -> bool:
    return session.model.capabilities.writes_text


def _asks(units: Units, vocabulary: Vocabulary, settings: Settings, session: JudgeSession) -> bool:
    """Whether answers can tell more than the looks did: where they repeat these, of given names that no look says."""
    if session.model.capabilities.own_doubt is None:
        return True
    categories, _ = _categories(units, vocabulary, settings.into)
    return bool(settings.into) and (categories is None or bool((categories == NONE).any()))


def _categories(
    units: Units, vocabulary: Vocabulary, closed: Sequence[str]
) -> tuple[NDArray[np.int64] | None, list[str]]:
    """Of each unit, its category's number, NONE or NO_ANSWER; and the categories' names."""
    names = list(closed) or sorted(set(vocabulary.category.values()))
    number = {name: at for at, name in enumerate(names)}
    known = {normalise_description(name): at for name, at in number.items()} if closed else {}
    found = np.full(len(units), NONE, dtype=np.int64)
    for unit, words in enumerate(units.words):
        if words in vocabulary.no_answer:
            found[unit] = NO_ANSWER
        elif words in vocabulary.category:
            found[unit] = number.get(vocabulary.category[words], NONE)
        elif words in known:
            found[unit] = known[words]
    return (found if (found != NONE).any() else None), names


def _estimate(
    sorting: Sorting,
    groups: Sequence[Group],
    trial: Trial,
    settings: Settings,
    sure: NDArray[np.float64],
    own_doubt: tuple[float, float] | None,
) -> tuple[Misplaced | None, list[Misplaced | None]]:
    if not groups or (own_doubt is None and (not trial.tells or not sorting.answers)):
        return None, [None] * len(groups)
    group_of = np.full(len(sorting.looks), NONE, dtype=np.int64)
    for number, group in enumerate(groups):
        group_of[list(group.images)] = number
    if own_doubt is not None:
        overall, each = estimate_by_looks(sure, group_of, len(groups), own_doubt, settings.seed)
    else:
        overall, each = estimate_misplaced(sorting, group_of, len(groups), settings.seed)
    return overall, list(each)
