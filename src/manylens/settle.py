"""Between the stages: offers to leftovers, and second looks. Images are placed one by one, clusters stay what they are.

In: drafts. Out: drafts over the same images. Promise: pure (rounds of questions out, answers in). No image is placed
where it was not judged to belong, except, where nobody answers, with the cluster of its own description.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from manylens.evidence import (
    Answer,
    Ask,
    Draft,
    EdgeScale,
    Looks,
    Profile,
    Question,
    Standing,
    Steps,
    belonging,
    centroid,
    draw_profile,
)
from manylens.records import Settings

_OFFERS = 3
"""An image that belongs nowhere is refused by at most this many clusters."""

_ERROR_SHARE = 0.1
"""Below this share of a sibling of the same description, a cluster is what errors of look and judge leave over."""

_FAR = -3.0
_BEST = Answer(0.95)
"""The most that one answer can say: it is taken to be wrong at least once in 20."""

_BLOCK_SHARE, _FEWEST_IN_BLOCK = 0.01, 8
_WORTHWHILE, _BLOCKS_WEIGHED = 0.05, 3
"""Second looks go on while this share of the last three hundredths of the collection was in the wrong place."""

_CLEARLY = 1.0
_CLEARLY_NOT = -1.0
_CONTENT = 0.9


@dataclass(slots=True)
class Refusals:
    """Who refused whom: image -> keys of the clusters that did, and how many of them did so at an offer."""

    keys: dict[int, set[int]] = field(default_factory=dict)
    offers: dict[int, int] = field(default_factory=dict)

    def add(self, image: int, keys: frozenset[int]) -> None:
        self.keys.setdefault(image, set()).update(keys)
        self.offers[image] = self.offers.get(image, 0) + 1


class Targets:
    """The large clusters an image can go to: profiles, and who is nearest to an image."""

    def __init__(self, looks: Looks, drafts: Sequence[Draft], numbers: Sequence[int], settings: Settings) -> None:
        self.looks = looks
        self.numbers = list(numbers)
        self.profiles: dict[int, Profile] = {
            number: draw_profile(looks, drafts[number].members, settings.exemplars) for number in self.numbers
        }
        self.centroids: NDArray[np.float64] = np.array(
            [centroid(looks, drafts[number].members) for number in self.numbers], dtype=np.float64
        ).reshape(len(self.numbers), looks.embeddings.shape[1])

    def close(self, image: int, number: int, edge: EdgeScale | None) -> float:
        """What similarity says against an image's belonging to a cluster: log-odds in [`_FAR`, 0]."""
        if edge is None:
            return 0.0
        row = self.centroids[self.numbers.index(number)]
        return min(max(edge.log_odds(float(row @ self.looks.embeddings[image].astype(np.float64))), _FAR), 0.0)

    def nearest(self, image: int) -> list[int]:
        """The clusters nearest to an image: those of its own description first, then by centroid; ties by number."""
        similarity = np.round(self.centroids @ self.looks.embeddings[image].astype(np.float64), 6)
        words = self.looks.words[image]
        order = sorted(
            range(len(self.numbers)),
            key=lambda k: (not words or self.profiles[self.numbers[k]].words != words, -similarity[k], k),
        )
        return [self.numbers[k] for k in order]


def offer_leftovers(
    looks: Looks, drafts: Sequence[Draft], refusals: Refusals, settings: Settings, edge: EdgeScale | None = None
) -> Steps[list[Draft]]:
    """Offer every image of a cluster of at most `small_cluster` images to its nearest large clusters of any component.

    Clusters that refused an image before do not meet it again; new refusals are added to `refusals`. A refused image
    stays in its small cluster. The first offers of all images are one round, then the second, ...

    `edge` gives the log-odds that similarity alone speaks for an offer. Offers no yes could make probable are not put:
    in a collection of many small kinds an image resembles no large cluster, and one wrong yes in three would lose it.
    """
    numbers = [number for number, draft in enumerate(drafts) if draft.size > settings.small_cluster]
    if not numbers:
        return list(drafts)
    targets = Targets(looks, drafts, numbers, settings)
    result = [Draft(draft.keys, dict(draft.members)) for draft in drafts]
    home = {
        image: number
        for number, draft in enumerate(drafts)
        if draft.size <= settings.small_cluster
        for image in draft.members
    }
    named = {profile.words for profile in targets.profiles.values()}
    choices: dict[int, list[int]] = {}
    for image in sorted(home):
        draft = drafts[home[image]]
        # Images that agree on a description no large cluster has may be a small kind: one offer each, and the merge
        # tests them together. Three offers each would break up true kinds by false yeses.
        kinds = {looks.words[i] for i in draft.members}
        agreed = draft.size > 1 and len(kinds) == 1 and not kinds & named
        offers = 1 if agreed else _OFFERS
        barred = refusals.keys.get(image, set())
        willing = [number for number in targets.nearest(image) if not barred & drafts[number].keys]
        willing = willing[: max(0, offers - refusals.offers.get(image, 0))]
        choices[image] = [
            number
            for number in willing
            if belonging(looks, targets.profiles[number], image, _BEST) + targets.close(image, number, edge) > 0
        ]
    for turn in range(_OFFERS):
        puts = [(image, choices[image][turn]) for image in sorted(home) if turn < len(choices[image])]
        if not puts:
            break
        answers = yield Ask([Question(targets.profiles[number], image) for image, number in puts])
        for (image, number), answer in zip(puts, answers, strict=True):
            equal = bool(looks.words[image]) and looks.words[image] == targets.profiles[number].words
            told = belonging(looks, targets.profiles[number], image, answer)
            accepted = told + targets.close(image, number, edge) > 0
            if accepted or (answer.spent and equal):
                del result[home.pop(image)].members[image]
                result[number].members[image] = Standing("offer", answer.probability, answer.reason)
            else:
                refusals.add(image, drafts[number].keys if answer.probability is not None else frozenset())
    return [draft for draft in result if draft.members]


def dissolve_leftovers(looks: Looks, drafts: Sequence[Draft], settings: Settings) -> tuple[list[Draft], list[int]]:
    """Small clusters stand only where their members agree; the others' images are unassigned, never in an invented
    cluster. Members agree where at least two share the description or were judged to belong. A small cluster under the
    description of a much larger one, which refused it, is a doubt about its images and no kind of its own."""
    words = [draw_profile(looks, draft.members, 1).words for draft in drafts]
    largest: dict[str, int] = {}
    for said, draft in zip(words, drafts, strict=True):
        largest[said] = max(largest.get(said, 0), draft.size)
    standing: list[Draft] = []
    unassigned: list[int] = []
    for said, draft in zip(words, drafts, strict=True):
        sibling = largest[said] if said and largest[said] > max(draft.size, settings.small_cluster) else 0
        if sibling and draft.size <= max(settings.small_cluster, _ERROR_SHARE * sibling):
            agreeing: dict[int, Standing] = {}
        elif draft.size > settings.small_cluster:
            agreeing = draft.members
        else:
            agreeing = {
                image: how
                for image, how in draft.members.items()
                if (said and looks.words[image] == said) or (how.probability or 0.0) >= 0.5
            }
        if len(agreeing) >= 2:
            standing.append(Draft(draft.keys, agreeing))
        unassigned += [image for image in draft.members if len(agreeing) < 2 or image not in agreeing]
    return standing, sorted(unassigned)


def take_second_looks(
    looks: Looks, drafts: Sequence[Draft], unassigned: Sequence[int], settings: Settings
) -> Steps[tuple[list[Draft], list[int]]]:
    """Judge the least certain share of images against their own cluster and, where that does not say a clear yes,
    against the nearest others; move an image that another cluster has clearly better evidence for. It goes on, one
    hundredth of the collection after the other, while it finds images in the wrong place."""
    if not drafts:
        return list(drafts), list(unassigned)
    targets = Targets(looks, drafts, range(len(drafts)), settings)
    home: dict[int, int | None] = dict.fromkeys(unassigned)
    home.update({image: number for number, draft in enumerate(drafts) for image in draft.members})
    quota = math.ceil(settings.second_looks * len(looks))
    order = _least_certain(looks, drafts, targets, home)[:quota]
    result = [Draft(draft.keys, dict(draft.members)) for draft in drafts]
    block = max(_FEWEST_IN_BLOCK, math.ceil(_BLOCK_SHARE * len(looks)))
    found: list[int] = []
    for start in range(0, len(order), block):
        looked = order[start : start + block]
        evidence = yield from _look_again(targets, home, looked)
        answered = [image for image in looked if evidence[image]]
        found.append(sum(_is_in_doubt(looks, targets, home[image], image, evidence[image]) for image in answered))
        for image in answered:
            _move(looks, targets, result, home, image, evidence[image])
        if len(found) >= _BLOCKS_WEIGHED and sum(found[-_BLOCKS_WEIGHED:]) < _WORTHWHILE * _BLOCKS_WEIGHED * block:
            break
    return [draft for draft in result if draft.members], sorted(i for i, number in home.items() if number is None)


def _look_again(
    targets: Targets, home: Mapping[int, int | None], images: Sequence[int]
) -> Steps[dict[int, dict[int, Answer]]]:
    """What each image's own cluster and, one after the other until one is sure, its nearest others answer."""
    evidence: dict[int, dict[int, Answer]] = {image: {} for image in images}
    choices = {image: _choices(targets, image, home[image]) for image in images}
    for turn in range(_OFFERS + 1):
        puts = [
            (image, choices[image][turn])
            for image in images
            if turn < len(choices[image])
            and not any((answer.probability or 0.0) >= _CONTENT for answer in evidence[image].values())
        ]
        if not puts:
            break
        answers = yield Ask([Question(targets.profiles[number], image) for image, number in puts])
        for (image, number), answer in zip(puts, answers, strict=True):
            if answer.probability is not None:
                evidence[image][number] = answer
    return evidence


def _is_in_doubt(looks: Looks, targets: Targets, own: int | None, image: int, evidence: Mapping[int, Answer]) -> bool:
    """Whether its own cluster refused the image, or another took one that was in none."""
    if own is not None and own in evidence:
        return belonging(looks, targets.profiles[own], image, evidence[own]) <= 0
    return any(belonging(looks, targets.profiles[number], image, answer) > 0 for number, answer in evidence.items())


def _log_odds(share: float) -> float:
    share = min(max(share, 0.001), 0.999)
    return math.log(share / (1 - share))


def _choices(targets: Targets, image: int, own: int | None) -> list[int]:
    near = targets.nearest(image)
    return near if own is None else [own, *(number for number in near if number != own)]


def _least_certain(
    looks: Looks, drafts: Sequence[Draft], targets: Targets, home: Mapping[int, int | None]
) -> list[int]:
    """Images by rising certainty. First those that a cluster of their own description does not hold, then those
    whose description no cluster has, then by the odds that the look's confidence and the judge's probability make."""
    named = {profile.words for profile in targets.profiles.values() if profile.words}

    def certainty(image: int) -> tuple[int, float, int]:
        number, words = home[image], looks.words[image]
        if number is None:
            return (0 if words in named else 2, 0.0, image)
        judged = drafts[number].members[image].probability
        # An image accepted by judgement is surer than one that only its look speaks for.
        sure = _log_odds(float(looks.confidences[image])) + (0.0 if judged is None else _log_odds(judged))
        if words == targets.profiles[number].words:
            return 2, sure, image
        return (0 if words in named else 1), sure, image

    return sorted(home, key=certainty)


def _move(
    looks: Looks,
    targets: Targets,
    result: list[Draft],
    home: dict[int, int | None],
    image: int,
    evidence: Mapping[int, Answer],
) -> None:
    scores = {
        number: belonging(looks, targets.profiles[number], image, answer)
        for number, answer in evidence.items()
        if answer.probability is not None
    }
    own = home[image]
    if not scores:
        return
    best = min(scores, key=lambda number: (-scores[number], number))
    answer = evidence[best]
    standing = Standing("second look", answer.probability, answer.reason)
    if own is not None and own in scores:
        held = result[own].members[image]
        result[own].members[image] = dataclasses.replace(
            held, probability=evidence[own].probability, reason=evidence[own].reason or held.reason
        )
    needed = scores.get(own, 0.0) + _CLEARLY if own is not None else 0.0
    if best != own and scores[best] > max(needed, 0.0):
        if own is not None:
            del result[own].members[image]
        result[best].members[image] = standing
        home[image] = best
    elif own is not None and scores.get(own, 0.0) < _CLEARLY_NOT:
        # Refused by its own cluster in spite of its description, and no other took it: unassigned is the truth.
        del result[own].members[image]
        home[image] = None
