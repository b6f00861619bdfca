"""Sorting again what a person's corrections touch: the rest of a description, and what a corrected look makes doubtful.

In: looks, clusters, where each image is, and what a person said. Out: where images would go. Promise: pure; rounds of
choices out, answers in. What a person placed stays; no cluster appears or goes.

Images are put to the model as those that come later are (`addition`): they leave their clusters, and the check asks
where they belong as far as that is worth its price. First those of which a person said where they are not, and those
described like one that was moved, in the cluster that it was moved out of; then the most doubtful ones (`doubt`), in
growing parts, as long as a question moves as many images as it must be expected to.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from manylens.method.addition import Known, old_of, place, selected, sorting_with
from manylens.method.assignment import assign
from manylens.method.doubt import NONE as NONE
from manylens.method.doubt import Doubts, Head, Spoken, fit_head, logistic, misplaced
from manylens.method.levels import Group
from manylens.method.likelihood import FloatArray
from manylens.method.observations import REFUSALS, Looks
from manylens.method.own_doubt import sure_of
from manylens.method.questions import Answer, Choice, Question, Steps
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
    not in. made: clusters that a person made."""

    looks: Looks
    known: tuple[Known, ...]
    cluster: NDArray[np.int64]
    decided: NDArray[np.int64]
    confidence: FloatArray
    by_person: NDArray[np.bool_]
    by_description: NDArray[np.bool_]
    barred: Mapping[int, frozenset[int]]
    made: frozenset[int] = frozenset()

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

    def doubts(self, head: Head, spoken: Spoken) -> Doubts:
        """How likely each image is not where the model had it, by what was said of some."""
        return misplaced(self.confidence, head.margin(self.decided), spoken)


@dataclass(frozen=True, slots=True)
class Proposal:
    """An image that would go elsewhere. after: index of a cluster."""

    image: int
    after: int
    probability: float
    reason: str
    decided_by: DecidedBy


def touched(standing: Standing) -> list[int]:
    """Images that the corrections speak of without naming them, and those that were taken out of a cluster. One that
    was asked about itself is among them only where the person made a cluster, which was no option then."""
    words = standing.looks.words
    out_of: dict[tuple[str, int], bool] = {}
    for image in standing.spoken.moved.tolist():
        key = (words[image], int(standing.decided[image]))
        if words[image]:
            out_of[key] = out_of.get(key, False) or int(standing.cluster[image]) in standing.made
    found = [image for image in sorted(standing.barred) if standing.cluster[image] == NONE]
    for image in range(len(words)):
        is_made = out_of.get((words[image], int(standing.cluster[image])))
        if is_made is not None and not standing.by_person[image] and (is_made or standing.by_description[image]):
            found.append(image)
    return list(dict.fromkeys(found))


def first_part(standing: Standing, doubts: Doubts) -> list[int]:
    """The images that are sorted again first: what is touched, and the most doubtful ones. Empty where a person moved
    nothing."""
    if not len(standing.spoken.moved):
        return []
    free = touched(standing)
    return [*free, *_next_part(standing, doubts, set(free), _FIRST_PART)]


def _next_part(standing: Standing, doubts: Doubts, done: Collection[int], size: int) -> list[int]:
    """The most doubtful images that had no turn."""
    is_open = (standing.cluster != NONE) & ~standing.by_person
    is_open[list(done)] = False
    order = np.argsort(-np.round(doubts.odds, 6), kind="stable")
    return [int(image) for image in order[is_open[order]][:size]]


def resort(
    standing: Standing, edge: EdgeScale, settings: Settings, is_judge_used: bool, repeats: bool = False
) -> Steps[list[Proposal]]:
    """Ask part by part, while a part moves as many images as its questions must be expected to. What a part shows of
    how confidence and look tell misplaced images is learned before the next is chosen. repeats: whether an answer
    repeats the look. It tells where that puts an image, which need not be where it is by now; how sure that is, it
    states itself."""
    if not is_judge_used:
        return _by_look(standing)
    head, spoken = standing.head(), standing.spoken
    doubts = standing.doubts(head, spoken)
    free = set(touched(standing))
    done: set[int] = set()
    found: list[Proposal] = []
    part, size = first_part(standing, doubts), 2 * _FIRST_PART
    while part:
        share = np.clip(logistic(doubts.odds), 0.01, 0.99)
        moved, asked = yield from _ask(standing, part, share, edge, settings, repeats)
        found += moved
        if len(moved) < settings.price * max(asked, _FIRST_PART // 2):
            break
        done |= set(part)
        gone = {one.image for one in moved}
        ranked = [image for image in part if image not in free]
        spoken = Spoken(
            np.array([*spoken.moved.tolist(), *(i for i in ranked if i in gone)], dtype=np.int64),
            np.array([*spoken.kept.tolist(), *(i for i in ranked if i not in gone)], dtype=np.int64),
        )
        doubts = standing.doubts(head, spoken)
        part, size = _next_part(standing, doubts, done, size), 2 * size
    return found


def _ask(
    standing: Standing, part: Sequence[int], share: FloatArray, edge: EdgeScale, settings: Settings, repeats: bool
) -> Steps[tuple[list[Proposal], int]]:
    """What the part's images are answered. Those that are touched are placed by their description, as new ones are; of
    the others it counts where they were, as far as that is believed."""
    free = set(touched(standing))
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
        if image not in free:
            sorting.believe(row[image], int(standing.cluster[image]), float(share[image]))
    before = sum(map(len, sorting.answers.values()))
    yield from _of_all(place(sorting, settings, True), keep)
    asked = sum(map(len, sorting.answers.values())) - before
    return _proposals(standing, sorting, sure_of(sorting, repeats), own, part, row), asked


def _of_all(steps: Steps[None], images: Sequence[int]) -> Steps[None]:
    """The same questions, about images as they are numbered in all looks. images: of each number in `steps`."""
    answers: Sequence[Answer] | None = None
    while True:
        try:
            questions = next(steps) if answers is None else steps.send(answers)
        except StopIteration:
            return
        put: list[Question] = []
        for question in questions:
            assert isinstance(question, Choice)
            options = tuple(
                replace(option, exemplars=tuple(images[i] for i in option.exemplars)) for option in question.options
            )
            put.append(Choice(images[question.image], options))
        answers = yield put


def _proposals(
    standing: Standing,
    sorting: Sorting,
    sure: FloatArray,
    own: Sequence[Known],
    part: Sequence[int],
    row: Mapping[int, int],
) -> list[Proposal]:
    old = old_of(sorting, own)
    groups: dict[int, list[int]] = {}
    for image in part:
        cluster = sorting.cluster_of(row[image])
        if cluster != NONE and sorting.root(cluster) in old:
            groups.setdefault(sorting.root(cluster), []).append(row[image])
    shown = [Group(cluster, tuple(images)) for cluster, images in groups.items()]
    numbers = [old[cluster] for cluster in groups]
    names = [own[number].name for number in numbers]
    assigned = assign(sorting, shown, names, sure, False, True)
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
