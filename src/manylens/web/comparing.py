"""Routes that lay this run beside another one, or one of its interests beside another.

In: two clusterings. Out: their clusters matched one to one by what they share, and the images that moved. Promise:
images are the same where their bytes are, wherever the two runs found them.
"""

from __future__ import annotations

from typing import Annotated

import lap
import numpy as np
from fastapi import APIRouter, Query

from manylens.files import public_name
from manylens.results.evaluate import evaluate_labels
from manylens.text import shown_name
from manylens.web.columns import ClusterColumns, NotThere, Rows
from manylens.web.routing import PROBLEMS, RunDep
from manylens.web.schemas import Comparable, Compared, CompareInterest, MovedBetween, Pair
from manylens.web.shown import ShownRun

router = APIRouter(prefix="/api", tags=["comparing"], responses=PROBLEMS)


@router.get("/comparable")
def get_comparable(run: RunDep) -> Comparable:
    """What there is to compare: interests of this run, and of the other one that the page was opened with."""
    other = run.other
    return Comparable(
        name=run.name,
        other=None if other is None else other.name,
        here=_interests(run),
        there=[] if other is None else _interests(other),
    )


@router.get("/compare")
def get_compare(
    run: RunDep,
    here: Annotated[str, Query(max_length=240, description="An interest of this run.")],
    there: Annotated[str, Query(max_length=240, description="An interest of the other run, or of this one.")],
    of_other: Annotated[bool, Query(description="Whether `there` is of the other run.")] = True,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=0, le=2000)] = 200,
) -> Compared:
    """Clusters of two clusterings matched one to one by what they share, and the images that moved."""
    if of_other and run.other is None:
        raise NotThere("a run is compared with another one, none was named", "manylens open OUT OTHER")
    beside = run.other if of_other and run.other is not None else run
    images, one = run.both(here)
    their_images, other = beside.both(there)
    rows, their_rows = _shared(images.ids, their_images.ids)
    ours, theirs = one.cluster[rows], other.cluster[their_rows]
    placed = (ours > 0) & (theirs > 0)
    pairs = _matched(one, other, ours, theirs)
    twin = {pair.here: pair.there for pair in pairs if pair.here is not None and pair.there is not None}
    expected = np.array([twin.get(number, 0) or 0 for number in ours.tolist()], np.int64)
    moved = np.flatnonzero(((ours > 0) | (theirs > 0)) & ~((expected == theirs) & placed))
    return Compared(
        images=int(rows.size),
        same=int((placed & (expected == theirs)).sum()),
        agreement=round(evaluate_labels(ours[placed].tolist(), theirs[placed].tolist()).nmi, 4)
        if placed.any()
        else None,
        pairs=pairs,
        moved=[
            MovedBetween(
                id=images.keys[rows[at]],
                here=_number(int(ours[at])),
                there=_number(int(theirs[at])),
            )
            for at in moved[offset : offset + limit].tolist()
        ],
        moved_total=int(moved.size),
    )


def _interests(run: ShownRun) -> list[CompareInterest]:
    return [
        CompareInterest(slug=slug, interest=columns.of.interest.text, model=public_name(columns.of.model))
        for slug, columns in run.all_columns()
    ]


def _number(cluster: int) -> int | None:
    return cluster if cluster > 0 else None


def _shared(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[Rows, Rows]:
    """The rows of the images that both runs hold, in the order of their ids."""
    at = {image_id: row for row, image_id in enumerate(theirs)}
    rows = [row for row, image_id in enumerate(ours) if image_id in at]
    return np.array(rows, np.int64), np.array([at[ours[row]] for row in rows], np.int64)


def _matched(
    one: ClusterColumns,
    other: ClusterColumns,
    ours: np.ndarray[tuple[int], np.dtype[np.int32]],
    theirs: np.ndarray[tuple[int], np.dtype[np.int32]],
) -> list[Pair]:
    """One to one, so that as many images as can be are in matched clusters; then those that are left over."""
    here, there = [c.id for c in one.of.clusters], [c.id for c in other.of.clusters]
    row = {number: at for at, number in enumerate(here)}
    column = {number: at for at, number in enumerate(there)}
    counts = np.zeros((len(here), len(there)), np.int64)
    both = (ours > 0) & (theirs > 0)
    for number, twin in zip(ours[both].tolist(), theirs[both].tolist(), strict=True):
        counts[row[number], column[twin]] += 1
    of_row = {}
    if counts.size:
        _, columns, _ = lap.lapjv((counts.max() - counts).astype(np.float64), extend_cost=True)
        of_row = {at: int(to) for at, to in enumerate(columns) if to >= 0 and counts[at, to] > 0}
    sizes = {number: int((ours == number).sum()) for number in here}
    their_sizes = {number: int((theirs == number).sum()) for number in there}
    found = []
    for at, number in enumerate(here):
        to = of_row.get(at)
        shared = 0 if to is None else int(counts[at, to])
        found.append(
            Pair(
                here=number,
                here_name=shown_name(one.name(number)),
                there=None if to is None else there[to],
                there_name="" if to is None else shown_name(other.name(there[to])),
                shared=shared,
                only_here=sizes[number] - shared,
                only_there=0 if to is None else their_sizes[there[to]] - shared,
            )
        )
    for to, number in enumerate(there):
        if to not in of_row.values():
            found.append(
                Pair(
                    here=None,
                    here_name="",
                    there=number,
                    there_name=shown_name(other.name(number)),
                    shared=0,
                    only_here=0,
                    only_there=their_sizes[number],
                )
            )
    return found
