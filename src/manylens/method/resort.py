"""Sorting again what a person's corrections touch: the rest of a description, and what a corrected look makes doubtful.

In: looks, clusters, where each image is, and what a person said. Out: where images would go. Promise: pure; rounds of
choices out, answers in. What a person placed stays; no cluster appears or goes.

Images are put to the model as those that come later are (`addition`): they leave their clusters, and the check asks
where they belong as far as that is worth its price. First those of which a person said where they are not, and those
described like one that was moved, in the cluster that it was moved out of; then the most doubtful ones (`doubt`), in
growing parts, as long as a question moves as many images as it must be expected to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manylens.method.addition import Known, old_of, place, selected, sorting_with
from manylens.method.assignment import assign
from manylens.method.doubt import NONE as NONE
from manylens.method.doubt import Head, Spoken, fit_head, misplaced
from manylens.method.levels import Group
from manylens.method.likelihood import FloatArray
from manylens.method.observations import REFUSALS, Looks
from manylens.method.questions import Steps
from manylens.method.sorting import Sorting
from manylens.method.walk import EdgeScale
from manylens.settings import Settings
from manylens.types import DecidedBy

_FIRST_PART = 16
"""Doubtful images of the first part, beside what a correction touches itself: a seventh of them misplaced, which the
usual price asks for, shows in it nine times in ten."""

_SURE = 0.9
"""Where no model can be asked, a look alone moves an image at this probability."""


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """Where everything stands. known: the clusters, a person's images first, then exemplars. cluster: (n,) index into
    them, or NONE; decided: (n,) where the model had it. confidence: (n,) of the model's placement. by_person: (n,)
    whether a person placed it. by_description: (n,) whether it was placed unasked. barred: image -> clusters that it is
    not in."""

    looks: Looks
    known: tuple[Known, ...]
    cluster: NDArray[np.int64]
    decided: NDArray[np.int64]
    confidence: FloatArray
    by_person: NDArray[np.bool_]
    by_description: NDArray[np.bool_]
    barred: Mapping[int, frozenset[int]]

    @property
    def spoken(self) -> Spoken:
        changed = self.by_person & (self.cluster != self.decided)
        for image in self.barred:
            changed[image] = True
        return Spoken(np.flatnonzero(changed), np.flatnonzero(self.by_person & ~changed))

    def head(self) -> Head:
        """Where each image belongs by its look, as everything stands now."""
        weight = np.where(self.by_person, 1.0, self.confidence)
        return fit_head(self.looks.embeddings, self.cluster, weight, len(self.known))

    def share(self, head: Head) -> FloatArray:
        """(n,) the probability that each image is not where the model had it."""
        return misplaced(self.confidence, head.margin(self.decided), self.spoken)


@dataclass(frozen=True, slots=True)
class Proposal:
    """An image that would go elsewhere. after: index of a cluster."""

    image: int
    after: int
    probability: float
    reason: str
    decided_by: DecidedBy


def touched(standing: Standing) -> list[int]:
    """Images that the corrections speak of without naming them, and those that were taken out of a cluster."""
    words = standing.looks.words
    out_of = {(words[i], int(standing.decided[i])) for i in standing.spoken.moved.tolist() if words[i]}
    found = [image for image in sorted(standing.barred) if standing.cluster[image] == NONE]
    found += [
        image
        for image in range(len(words))
        if (words[image], int(standing.cluster[image])) in out_of and not standing.by_person[image]
    ]
    return list(dict.fromkeys(found))


def parts(standing: Standing, share: FloatArray) -> list[list[int]]:
    """The images that may be sorted again, in parts: what is touched first, then the most doubtful ones, each part
    twice as large as the one before. Empty where a person moved nothing."""
    if not len(standing.spoken.moved):
        return []
    first = touched(standing)
    there = set(first)
    open_ = (standing.cluster != NONE) & ~standing.by_person
    rest = [int(i) for i in np.argsort(-np.round(share, 6), kind="stable") if open_[i] and int(i) not in there]
    found, size, at = [first + rest[:_FIRST_PART]], 2 * _FIRST_PART, _FIRST_PART
    while at < len(rest):
        found.append(rest[at : at + size])
        at, size = at + size, 2 * size
    return found


def resort(
    standing: Standing, share: FloatArray, edge: EdgeScale, settings: Settings, is_judge_used: bool
) -> Steps[list[Proposal]]:
    """Ask part by part, while a part moves as many images as its questions must be expected to."""
    if not is_judge_used:
        return _by_look(standing)
    found: list[Proposal] = []
    for part in parts(standing, share):
        moved, asked = yield from _ask(standing, part, edge, settings)
        found += moved
        if len(moved) < settings.price * max(asked, _FIRST_PART // 2):
            break
    return found


def _ask(
    standing: Standing, part: Sequence[int], edge: EdgeScale, settings: Settings
) -> Steps[tuple[list[Proposal], int]]:
    inside = set(part)
    known = [Known(one.name, one.definition, tuple(i for i in one.images if i not in inside)) for one in standing.known]
    keep = sorted({*part, *(i for one in known for i in one.images)})
    row = {image: number for number, image in enumerate(keep)}
    own = [Known(one.name, one.definition, tuple(row[i] for i in one.images)) for one in known]
    mine = [row[image] for image in part]
    looks = selected(standing.looks, keep)
    sorting = sorting_with(looks, own, mine, edge, settings)
    for image in part:
        for cluster in sorted(standing.barred.get(image, ())):
            sorting.learn(row[image], [cluster], (0.0, 1.0))
    yield from place(sorting, settings, True)
    return _proposals(standing, sorting, own, part, row), sum(len(sorting.answers.get(i, ())) for i in mine)


def _proposals(
    standing: Standing, sorting: Sorting, own: Sequence[Known], part: Sequence[int], row: Mapping[int, int]
) -> list[Proposal]:
    old = old_of(sorting, own)
    groups: dict[int, list[int]] = {}
    for image in part:
        cluster = sorting.cluster_of(row[image])
        if cluster != NONE and sorting.root(cluster) in old:
            groups.setdefault(sorting.root(cluster), []).append(row[image])
    shown = [Group(cluster, tuple(images)) for cluster, images in groups.items()]
    numbers = [old[cluster] for cluster in groups]
    assigned = assign(sorting, shown, [own[number].name for number in numbers], False, True)
    found = []
    for image in part:
        one = assigned[row[image]]
        if one.cluster is None or standing.looks.words[image] in REFUSALS:
            continue
        after = numbers[one.cluster - 1]
        if after != standing.cluster[image] and after not in standing.barred.get(image, ()):
            found.append(Proposal(image, after, one.confidence, one.reason, one.decided_by))
    return found


def _by_look(standing: Standing) -> list[Proposal]:
    if not len(standing.spoken.moved):
        return []
    chance = np.exp(standing.head().log_odds)
    best = chance.argmax(axis=1)
    found = []
    for image in range(len(best)):
        after = int(best[image])
        sure = float(chance[image, after])
        is_open = not standing.by_person[image] and (standing.cluster[image] != NONE or image in standing.barred)
        if is_open and sure >= _SURE and after not in {int(standing.cluster[image]), *standing.barred.get(image, ())}:
            reason = f'its look is nearest to "{standing.known[after].name}", as it is after the corrections'
            found.append(Proposal(image, after, round(sure, 4), reason, "look"))
    return found
