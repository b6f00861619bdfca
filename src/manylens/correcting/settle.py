"""Where every run passes: what the model decided gets its ids, and what a person said is applied to it.

In: a clustering of this run. Out: the clustering that is shown, recorded. Promise: a cluster that goes on keeps its id
and name; what a person said holds, whatever the model decided since.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from manylens.method.corrections import Said, apply_rulings, continued, said_by
from manylens.settings import Settings
from manylens.store.run_folder import RunFolder
from manylens.types import Clustering, Misplaced, Ruling, Step


def active(steps: tuple[Step, ...]) -> list[Ruling]:
    """The rulings that hold, in order."""
    return [ruling for step in steps if not step.is_undone for ruling in step.rulings]


def record(run: RunFolder, clustering: Clustering, settings: Settings) -> Clustering:
    """Record what the model decided in a run from the beginning; returns what is shown."""
    shown, model = settled(run, clustering, settings)
    run.record_clustering(shown, settings, model)
    return shown


def settled(run: RunFolder, clustering: Clustering, settings: Settings) -> tuple[Clustering, Clustering | None]:
    """What is shown of a clustering, and what the model decided where that is another one; records nothing."""
    slug = clustering.interest.slug
    decided = run.decided(slug)
    rulings = active(run.steps(slug))
    # What a spent budget cut short is no clustering yet: its clusters go on only for the sake of what a person said.
    if decided is not None and (rulings or not decided.is_partial):
        before = [decided]
        if rulings:
            before.append(apply_rulings(decided, rulings))
        same = (
            not decided.is_partial
            and decided.model == clustering.model
            and _granularity(run.settings_of(slug)) == _granularity(settings)
        )
        clustering = continued(clustering, before, run.last_cluster_id(slug), keep_names=same and not settings.into)
    return apply_rulings(clustering, rulings), clustering if rulings else None


def _granularity(settings: Settings | None) -> tuple[object, ...]:
    """What the clusters of two runs must have in common for a name to mean the same: half of "playing cards" may be
    anything."""
    return () if settings is None else (settings.level, settings.n_clusters)


def record_added(run: RunFolder, grown: Clustering, settings: Settings) -> Clustering:
    """Record what pictures that came later were added to: to the clustering that was shown. Returns what is shown."""
    slug = grown.interest.slug
    decided, rulings = run.decided(slug), active(run.steps(slug))
    if decided is None or not rulings:
        run.record_clustering(grown, settings)
        return grown
    held = {a.image_id: a for a in decided.assignments}
    assignments = tuple(held.get(a.image_id, a) for a in grown.assignments)
    sizes = Counter(a.cluster for a in assignments)
    known = {cluster.id for cluster in decided.clusters}
    every = (*decided.clusters, *(cluster for cluster in grown.clusters if cluster.id not in known))
    model = replace(
        grown,
        clusters=tuple(replace(cluster, size=sizes[cluster.id]) for cluster in every if sizes[cluster.id]),
        assignments=assignments,
        estimate=_grown_estimate(decided, apply_rulings(decided, rulings), grown),
    )
    shown = apply_rulings(model, rulings)
    run.record_clustering(shown, settings, model)
    return shown


def _grown_estimate(decided: Clustering, shown: Clustering, grown: Clustering) -> Misplaced | None:
    """What the model's decisions leave in doubt, with what came; `grown` counts from what is shown."""
    one, other, both = decided.estimate, shown.estimate, grown.estimate
    if one is None or other is None or both is None:
        return both
    before = [sum(a.cluster is not None for a in each.assignments) for each in (decided, shown, grown)]
    now = max(1, before[0] + before[2] - before[1])
    shares = [
        max(0.0, a * before[0] + c * before[2] - b * before[1]) / now
        for a, b, c in zip(_numbers(one), _numbers(other), _numbers(both), strict=True)
    ]
    share, low, high = (round(min(x, 1.0), 4) for x in shares)
    return Misplaced(share, min(low, share), max(high, share), both.basis)


def _numbers(misplaced: Misplaced) -> tuple[float, float, float]:
    return misplaced.share, misplaced.low, misplaced.high


def evidence_of(run: RunFolder, slug: str) -> Said | None:
    """What a person said of the images of an interest; None where that is nothing."""
    decided, rulings = run.decided(slug), active(run.steps(slug))
    return said_by(decided, rulings) if decided is not None and rulings else None
