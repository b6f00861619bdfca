"""From a finished sorting to what is shown: groups, and for every image a cluster, a confidence and a reason.

In: a `Sorting` and the groups of a level. Out: `Assignment`s. Promise: pure; confidence is the probability that the
image belongs where it is, as the caller has it: no mixture of numbers with weights of our own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from manylens.method.levels import Group
from manylens.method.likelihood import FloatArray
from manylens.method.observations import REFUSALS
from manylens.method.sorting import NO_ANSWER, NONE, Sorting
from manylens.types import Assignment

_SHOWN_REASON = 200


NO_ANSWER_REASON = "which does not answer the interest"
"""How the reason of an image ends whose description is none of what was asked."""


def assign(
    sorting: Sorting, groups: Sequence[Group], names: Sequence[str], sure: FloatArray, spent: bool, closed: bool
) -> list[Assignment]:
    """One assignment per image, in image order; clusters are numbered from 1 in the order of the groups. sure: (n,) the
    probability that each image belongs where it is. spent: the budget ended before all was asked. closed: the clusters
    were given. An unassigned image has confidence 0."""
    number_of = np.zeros(len(sorting.looks), dtype=np.int64)
    for number, group in enumerate(groups, start=1):
        number_of[list(group.images)] = number
    confidences = np.clip(sure, 0.0, 1.0).tolist()
    found = []
    texts: dict[str, str] = {}  # a reason that many images share is one object
    for image, (image_id, number) in enumerate(zip(sorting.looks.image_ids, number_of.tolist(), strict=True)):
        asked = image in sorting.answers and image not in sorting.told
        if not number:
            refusal = REFUSALS.get(sorting.looks.words[image])
            reason = refusal or f"{_described(sorting, image)}; {_why_unassigned(sorting, image, spent, closed)}"
            found.append(Assignment(image_id, None, 0.0, texts.setdefault(reason, reason), "choice" if asked else ""))
            continue
        reason = f"{_described(sorting, image)}; {_why(sorting, image, names[number - 1])}"
        reason = texts.setdefault(reason, reason)
        confidence = round(confidences[image], 4)
        found.append(Assignment(image_id, number, confidence, reason, "choice" if asked else "description"))
    return found


def exemplars(sorting: Sorting, group: Group, sure: FloatArray, many: int) -> tuple[int, ...]:
    """A group's images, the most typical first: those of its largest cluster that stand for it, then the surest."""
    own = set(group.images)
    shown = [image for image in sorting.state(group.cluster).exemplars if image in own]
    if len(shown) < many:
        rest = np.array(sorted(own - set(shown)), dtype=np.int64)
        surest = np.argsort([-round(p, 4) for p in sure[rest].tolist()], kind="stable")
        shown += rest[surest[: many - len(shown)]].tolist()
    return tuple(shown[:many])


def _why(sorting: Sorting, image: int, name: str) -> str:
    answers = sorting.answers.get(image, [])
    if answers and image not in sorting.told:
        said = answers[-1].reason[:_SHOWN_REASON]
        return f'asked itself, and placed with "{name}"' + (f": {said}" if said else "")
    unit = int(sorting.units.of_image[image])
    asked, size = len(sorting.asked[unit]), int(sorting.units.sizes[unit])
    if asked:
        return f'placed with "{name}", as images described like it were ({asked:,} of {size:,} were asked)'
    why = "; no image described like it was asked" if sorting.answers else ""
    return f'placed with "{name}" by its description{why}'


def _why_unassigned(sorting: Sorting, image: int, spent: bool, closed: bool) -> str:
    unit = int(sorting.units.of_image[image])
    if sorting.category[unit] == NO_ANSWER:
        return NO_ANSWER_REASON
    if image in sorting.unanswered:
        return "the question about it failed"
    if spent and image not in sorting.answers:
        return "the budget was spent before a cluster was found for it"
    if closed:
        return "none of these"
    if sorting.cluster_of(image) != NONE:
        return "nothing else of its kind was found"
    return "asked, and none of the clusters fits" if image in sorting.answers else "no cluster fits it well enough"


def _described(sorting: Sorting, image: int) -> str:
    description = sorting.looks.descriptions[image]
    return f'described as "{description}"' if description else "not described"
