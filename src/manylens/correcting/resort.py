"""Sorting again what a person's corrections touch: said first, taken over when the person says so.

In: a corrector, and a model that answers from the run where it can. Out: a `Resorted`. Promise: nothing is asked unless
`ask` says so, nothing is applied here; what is asked is stored, so that asking again costs nothing; an image that a
person placed is never among what moves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from manylens.correcting.corrector import Change, Corrector
from manylens.correcting.standing import standing_of
from manylens.errors import UsageError
from manylens.method.doubt import logistic
from manylens.method.resort import NONE, Standing, first_part, resort
from manylens.models.base import Model
from manylens.pipeline.budget import Budget
from manylens.pipeline.judge_session import JudgeSession
from manylens.pipeline.run import Emit, edge_scale
from manylens.settings import Settings
from manylens.types import DecidedBy, Judged, Ruling


@dataclass(frozen=True, slots=True)
class Proposed:
    """An image that would go elsewhere. before, after: cluster ids. probability: that it belongs there."""

    image_id: str
    before: int | None
    after: int
    probability: float
    reason: str
    decided_by: DecidedBy


@dataclass(frozen=True, slots=True)
class Resorted:
    """moves: what would go where; before anything is asked, what is expected to. touched: images that a question may be
    asked about. calls: at least and at most, as expected; once asked, what was asked. is_asked: whether the moves are
    answers."""

    moves: tuple[Proposed, ...]
    touched: int
    calls: tuple[int, int]
    is_asked: bool


def foresee(corrector: Corrector) -> Resorted:
    """What sorting again is expected to change and to cost. Asks nothing."""
    standing, ids = standing_of(corrector)
    head = standing.head()
    doubts = standing.doubts(head, standing.spoken)
    first = first_part(standing, doubts)
    chance = logistic(doubts.odds)
    is_open = (standing.cluster != NONE) & ~standing.by_person
    doubtful = np.flatnonzero(is_open & (chance >= corrector.settings.price)).tolist() if first else []
    pool = list(dict.fromkeys([*first, *doubtful]))
    uses_judge = corrector.shown.estimate is not None
    calls = (max(1, len(first) // 3), 2 * len(pool)) if uses_judge and first else (0, 0)
    best = head.log_odds.argmax(axis=1)
    moves = []
    for image in pool:
        after, here = int(best[image]), int(standing.cluster[image])
        if (chance[image] > 0.5 or here == NONE) and after != here and after not in standing.barred.get(image, ()):
            sure = math.exp(float(head.log_odds[image, after]))
            moves.append(_proposed(standing, ids, image, after, sure, "expected by its look", "look"))
    return Resorted(tuple(moves), len(pool), calls, False)


async def sort_again(corrector: Corrector, model: Model, emit: Emit, limits: Settings | None = None) -> Resorted:
    """Ask what is worth its price. limits: on what may be spent. Raises UsageError where the clustering was made with
    another model."""
    if corrector.shown.model != model.name:
        raise UsageError(
            f"images are sorted again by the model that looked at them, {corrector.shown.model!r}, got {model.name!r}",
            f"pass --model {corrector.shown.model}",
        )
    standing, ids = standing_of(corrector)
    budget = Budget(model, limits or Settings())
    session = JudgeSession(standing.looks, model, emit, budget, budget.part(1.0))
    session.start("check")
    uses_judge = corrector.shown.estimate is not None
    known = model.capabilities
    repeats = known.own_doubt is not None
    steps = resort(standing, edge_scale(known), corrector.settings, uses_judge, repeats)
    found = await session.drive(steps)
    session.finish("check", f"{session.chosen:,} questions asked")
    moves = tuple(
        _proposed(standing, ids, one.image, one.after, one.probability, one.reason, one.decided_by) for one in found
    )
    return Resorted(moves, len(standing.looks), (session.chosen, session.chosen), True)


def take_over(corrector: Corrector, resorted: Resorted) -> Change | None:
    """Keep the moves as one step of the log; None where there are none. Raises UsageError for moves that were only
    foreseen."""
    if not resorted.is_asked:
        raise UsageError("moves are taken over once they were asked about, these are foreseen", "ask first")
    if not resorted.moves:
        return None
    table = corrector.table()
    targets: dict[int, list[Proposed]] = {}
    for one in resorted.moves:
        targets.setdefault(one.after, []).append(one)
    rulings = [
        Ruling(
            "judged",
            cluster=table.anchor(after),
            judged=tuple(
                Judged(one.image_id, one.before, one.probability, one.reason, one.decided_by) for one in moves
            ),
        )
        for after, moves in sorted(targets.items())
        if after in table.clusters
    ]
    return corrector.take(rulings)


def _proposed(
    standing: Standing,
    ids: tuple[int, ...],
    image: int,
    after: int,
    probability: float,
    reason: str,
    decided_by: DecidedBy,
) -> Proposed:
    here = int(standing.cluster[image])
    return Proposed(
        standing.looks.image_ids[image],
        ids[here] if here != NONE else None,
        ids[after],
        round(probability, 4),
        reason,
        decided_by,
    )
