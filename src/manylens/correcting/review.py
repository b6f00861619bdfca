"""The review queue: what a person should look at first, and what is likely misplaced after every answer.

In: a corrector. Out: a `Review`. Promise: asks no model; answers are corrections ("confirm", "not", "move"), so they
are kept, undone and applied like any other.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from manylens.correcting.corrector import Corrector
from manylens.correcting.standing import standing_of
from manylens.method.review import queue
from manylens.types import Misplaced

_MOST_OPTIONS = 9
"""Clusters that a question offers: a key each."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """An image that may be misplaced. cluster: where it is, None for no cluster. doubt: the probability that it does
    not belong there. gain: images that an answer is expected to put right. alike: images of its description in its
    cluster. options: ids of clusters that it may belong to, the likeliest first, the one that it is in among them."""

    image_id: str
    cluster: int | None
    doubt: float
    gain: float
    alike: int
    options: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Review:
    """doubts: the most useful first. estimate: of what is misplaced now, None where nobody knows. left: images about
    which nobody spoke."""

    doubts: tuple[Doubt, ...]
    estimate: Misplaced | None
    left: int


def review(corrector: Corrector, limit: int = 20, skipped: Collection[str] = ()) -> Review:
    """The `limit` images about which an answer is worth most. skipped: ids of images that the person does not know."""
    standing, ids = standing_of(corrector)
    looks = standing.looks
    head = standing.head()
    row = {image_id: at for at, image_id in enumerate(looks.image_ids)}
    found = queue(
        standing.doubts(head, standing.spoken).share,
        standing.cluster,
        looks.words,
        standing.by_description,
        standing.spoken,
        standing.decided,
        [row[image_id] for image_id in skipped if image_id in row],
    )
    doubts = []
    for one in found[: max(0, limit)]:
        nearest = np.argsort(-head.log_odds[one.image], kind="stable")[:_MOST_OPTIONS].tolist() if ids else []
        barred = standing.barred.get(one.image, frozenset())
        here = int(standing.cluster[one.image])
        options = [at for at in nearest if at not in barred]
        if here >= 0 and here not in options:
            options = [*options[: _MOST_OPTIONS - 1], here]
        doubts.append(
            Doubt(
                looks.image_ids[one.image],
                ids[here] if here >= 0 else None,
                round(one.doubt, 4),
                round(one.gain, 4),
                one.alike,
                tuple(ids[at] for at in options),
            )
        )
    return Review(tuple(doubts), corrector.shown.estimate, len(found))
