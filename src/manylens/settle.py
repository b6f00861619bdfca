"""Between the stages: offers to leftovers, and second looks. Images are placed one by one, clusters stay what they are.

In: drafts. Out: drafts over the same images. Promise: pure (rounds of questions out, answers in). No image is placed
where it was not judged to belong, except, where nobody answers, with the cluster of its own description.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Callable, Mapping, Sequence
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
    alike,
    belonging,
    centroid,
    draw_profile,
    seeded_share,
)
from manylens.records import Settings

_OFFERS = 3
"""An image that belongs nowhere is refused by at most this many clusters."""

_PRECEDENTS = 12
_CONSISTENT_SHARE = 0.9
"""So many answers about images offered to the cluster of their own description, nine in ten of them yes, decide the rest
of that round."""

_ERROR_SHARE = 0.1
"""Below this share of a sibling of the same description, a cluster is what errors of look and judge leave over."""

_FAR = -3.0
_ONE_NO = 2.5
"""What an earlier refusal takes off the odds of the cluster that an image's description names."""

_BEST = Answer(0.95)
"""The most that one answer can say: it is taken to be wrong at least once in 20."""

_BLOCK_SHARE, _FEWEST_IN_BLOCK = 0.01, 8
_WORTHWHILE, _BLOCKS_WEIGHED = 0.03, 3
"""Second looks go on while this share of the last three hundredths of the collection was in the wrong place."""

_FADING = 0.25
_PRIOR_FOUND = 3.0
_MOST_CHOICES = 64
_MANY = 0.25
"""Where more than this share of a round's answers would move an image, few of them are the judge's slips."""

_CLEARLY = 1.0
_CLEARLY_NOT = -1.0
_CONTENT = 0.9


@dataclass(slots=True)
class Refusals:
    """Who refused whom: image -> keys of the clusters that did, and how many of them did so at an offer.

    trusted: offers accepted unasked; audits: (asked, refused) of the samples that spoke for them.
    """

    keys: dict[int, set[int]] = field(default_factory=dict)
    offers: dict[int, int] = field(default_factory=dict)
    trusted: int = 0
    audits: list[tuple[int, int]] = field(default_factory=list)

    def add(self, image: int, keys: frozenset[int]) -> None:
        self.keys.setdefault(image, set()).update(keys)
        self.offers[image] = self.offers.get(image, 0) + 1


class Targets:
    """The large clusters an image can go to: profiles, and who is nearest to an image."""

    def __init__(self, looks: Looks, drafts: Sequence[Draft], numbers: Sequence[int], settings: Settings) -> None:
        self.looks = looks
        self.numbers = list(numbers)
        self._rows = {number: row for row, number in enumerate(self.numbers)}
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
        row = self.centroids[self._rows[number]]
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

    Of the images offered to the cluster of their own description, a seeded sample is asked; where nearly all of it is
    accepted, so are the others, unasked.

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
    offered = _Offered(targets, drafts, result, home, refusals, edge)
    for turn in range(_OFFERS):
        puts = [(image, choices[image][turn]) for image in sorted(home) if turn < len(choices[image])]
        if not puts:
            break
        kin = [put for put in puts if offered.is_kin(*put)] if turn == 0 else []
        unasked = set(_unasked(looks, kin, settings))
        answers = yield from offered.put([put for put in puts if put not in unasked])
        said = [answers[image] for image, number in kin if image in answers]
        if len(said) >= _PRECEDENTS and sum(said) >= max(_CONSISTENT_SHARE, settings.trust_weight) * len(said):
            offered.trust(sorted(unasked), said)
        else:
            yield from offered.put(sorted(unasked))
    return [draft for draft in result if draft.members]


def _unasked(looks: Looks, kin: Sequence[tuple[int, int]], settings: Settings) -> list[tuple[int, int]]:
    """Of offers to the cluster of an image's own description, those that the answers about a seeded sample may decide:
    all but `_PRECEDENTS`, and never more than trust leaves unaudited."""
    ids = looks.image_ids
    drawn = sorted(kin, key=lambda put: (seeded_share(settings.seed, "offer", ids[put[0]]), put))
    return drawn[max(_PRECEDENTS, math.ceil(settings.share_audited(len(looks)) * len(drawn))) :]


@dataclass(slots=True)
class _Offered:
    """Puts offers and does what the answers say: moves the image from its home, or notes who refused it."""

    targets: Targets
    drafts: Sequence[Draft]
    result: list[Draft]
    home: dict[int, int]
    refusals: Refusals
    edge: EdgeScale | None

    def is_kin(self, image: int, number: int) -> bool:
        words = self.targets.looks.words[image]
        return bool(words) and words == self.targets.profiles[number].words

    def put(self, puts: Sequence[tuple[int, int]]) -> Steps[dict[int, bool]]:
        """image -> whether it was accepted, of those that were answered."""
        if not puts:
            return {}
        said: dict[int, bool] = {}
        answers = yield Ask([Question(self.targets.profiles[number], image) for image, number in puts])
        for (image, number), answer in zip(puts, answers, strict=True):
            told = belonging(self.targets.looks, self.targets.profiles[number], image, answer)
            accepted = told + self.targets.close(image, number, self.edge) > 0
            if answer.probability is not None:
                said[image] = accepted
            if accepted or (answer.spent and self.is_kin(image, number)):
                self._move(image, number, Standing("offer", answer.probability, answer.reason))
            else:
                keys = self.drafts[number].keys if answer.probability is not None else frozenset()
                self.refusals.add(image, keys)
        return said

    def trust(self, puts: Sequence[tuple[int, int]], said: Sequence[bool]) -> None:
        """What was said of a sample stands for the rest, and is its audit."""
        for image, number in puts:
            self._move(image, number, Standing("offer"))
        if puts:
            self.refusals.trusted += len(puts)
            self.refusals.audits.append((len(said), len(said) - sum(said)))

    def _move(self, image: int, number: int, standing: Standing) -> None:
        del self.result[self.home.pop(image)].members[image]
        self.result[number].members[image] = standing


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
    looks: Looks,
    drafts: Sequence[Draft],
    unassigned: Sequence[int],
    refusals: Refusals,
    settings: Settings,
    edge: EdgeScale | None = None,
) -> Steps[tuple[list[Draft], list[int]]]:
    """Spend what the allowance leaves where it finds most: put in doubt the least certain images, or seek a place for
    those that no cluster holds.

    Either goes on in blocks of one hundredth of the collection. The next block is of the kind whose last blocks found
    more per question, and neither goes on below `_WORTHWHILE`. Nothing is moved on one answer: what would move an image
    is confirmed against other exemplars of the same cluster. An image moves where another cluster has clearly better
    evidence, and is unassigned where its own clearly refuses it and no other takes it.
    """
    if not drafts:
        return list(drafts), list(unassigned)
    second = _SecondLooks(looks, drafts, unassigned, refusals, settings, edge)
    while (kind := second.most_fruitful()) is not None:
        yield from second.doubt() if kind == "doubt" else second.seek()
    return second.place()


class _SecondLooks:
    """Answers so far, and what is still to be asked: placed images to doubt, others to seek a cluster for."""

    def __init__(
        self,
        looks: Looks,
        drafts: Sequence[Draft],
        unassigned: Sequence[int],
        refusals: Refusals,
        settings: Settings,
        edge: EdgeScale | None,
    ) -> None:
        self.looks, self.drafts, self.settings, self.refusals, self.edge = looks, drafts, settings, refusals, edge
        self.targets = Targets(looks, drafts, range(len(drafts)), settings)
        self.home: dict[int, int | None] = dict.fromkeys(unassigned)
        self.home.update({image: number for number, draft in enumerate(drafts) for image in draft.members})
        self.evidence: dict[int, dict[int, Answer]] = {}
        self.block = max(_FEWEST_IN_BLOCK, math.ceil(_BLOCK_SHARE * len(looks)))
        quota = math.ceil(settings.second_looks * len(looks))
        order = _least_certain(looks, drafts, self.targets, self.home)
        self.to_doubt = [image for image in order if self.home[image] is not None][:quota]
        self.to_seek: list[tuple[float, int]] = []  # (-index, image)
        self.choices: dict[int, list[tuple[int, float]]] = {}  # (cluster, odds), the next one last
        self.odds: dict[int, float] = {}  # of all that is left beside the next choice
        self.doubts: list[tuple[int, int]] = []  # (found, asked) of each block
        self.sought = [0.0, 0.0]  # found, expected
        self.others: dict[int, Profile | None] = {}
        self.confirmed: set[int] = set()  # whose own cluster answered twice
        self.spent = False
        if quota:
            for image in order:
                if self.home[image] is None:
                    self._enlist(image)

    def most_fruitful(self) -> str | None:
        if self.spent:
            return None
        rates: dict[str, float] = {}
        recent = self.doubts[-_BLOCKS_WEIGHED:]
        found, asked = sum(f for f, _ in recent), sum(a for _, a in recent)
        if self.to_doubt and (len(recent) < _BLOCKS_WEIGHED or found >= _WORTHWHILE * asked):
            rates["doubt"] = _fading_rate(recent)
        if self.to_seek:
            best = heapq.nsmallest(self.block, self.to_seek)
            rates["seek"] = -math.fsum(index for index, _ in best) / len(best) * self._luck()
        rates = {kind: rate for kind, rate in rates.items() if rate >= _WORTHWHILE or kind == "doubt"}
        return max(rates, key=lambda kind: rates[kind]) if rates else None

    def _luck(self) -> float:
        """How much more, or less, seeking has found than the chances had it."""
        return (self.sought[0] + _PRIOR_FOUND) / (self.sought[1] + _PRIOR_FOUND)

    def doubt(self) -> Steps[None]:
        """Ask the next least certain images' own clusters."""
        images, self.to_doubt = self.to_doubt[: self.block], self.to_doubt[self.block :]
        puts = [(image, number) for image in images if (number := self.home[image]) is not None]
        asked = yield from self._ask(puts, lambda score: score <= 0)
        found = 0
        for image, own in puts:
            answer = self.evidence.get(image, {}).get(own)
            if answer is None:
                continue
            refused = self._score(image, own) <= 0
            found += refused
            if refused or (answer.probability or 0.0) < _CONTENT:
                self._enlist(image)
        self.doubts.append((found, asked))

    def seek(self) -> Steps[None]:
        """Ask the next nearest cluster of the images that have met the fewest."""
        self.to_seek.sort()
        entries, self.to_seek = self.to_seek[: self.block], self.to_seek[self.block :]
        puts: list[tuple[int, int]] = []
        for _, image in entries:
            number, odd = self.choices[image].pop()
            self.sought[1] += odd / (self.odds[image] + odd)
            puts.append((image, number))
        yield from self._ask(puts, lambda score: score > 0)
        for image, number in puts:
            if number in self.evidence.get(image, {}) and self._score(image, number) > 0:
                self.sought[0] += 1
            else:
                self._queue(image)

    def place(self) -> tuple[list[Draft], list[int]]:
        result = [Draft(draft.keys, dict(draft.members)) for draft in self.drafts]
        for image in sorted(self.evidence):
            _move(self.looks, self.targets, result, self.home, image, self.evidence[image], image in self.confirmed)
        standing = [draft for draft in result if draft.members]
        return standing, sorted(image for image, number in self.home.items() if number is None)

    def _enlist(self, image: int) -> None:
        """Its choices: all clusters but its own and those that refused it, the cluster of its description excepted: that
        may be stated otherwise by now. Their chances are as similarity has it, the least being `_FAR`; whatever its own
        cluster's answer says for that one, and being alone of its kind, speak against all others."""
        barred, words, own = self.refusals.keys.get(image, set()), self.looks.words[image], self.home[image]
        odds: list[tuple[float, int]] = []
        for number in self.targets.nearest(image):
            equal = bool(words) and self.targets.profiles[number].words == words
            refused = bool(barred & self.drafts[number].keys)
            if number != own and (equal or not refused):
                speaks = alike(self.looks, image) if equal else self.targets.close(image, number, self.edge)
                odds.append((round(math.exp(speaks - _ONE_NO * refused), 6), number))
        odds.sort(key=lambda entry: -entry[0])
        self.choices[image] = [(number, odd) for odd, number in reversed(odds[:_MOST_CHOICES])]
        self.odds[image] = math.exp(max(_FAR, _FAR if own is None else self._score(image, own)))
        self.odds[image] += math.fsum(odd for odd, _ in odds)
        self._queue(image)

    def _queue(self, image: int) -> None:
        """Gittins' index: the most that going on with this image can find per question."""
        if not self.choices[image]:
            return
        number, odd = self.choices[image][-1]
        self.odds[image] -= odd
        total = self.odds[image] + odd
        index = found = asked = 0.0
        for _, further in reversed(self.choices[image]):
            asked += 1 - found
            found += further / total
            index = max(index, found / asked)
        self.to_seek.append((-round(index, 9), image))

    def _score(self, image: int, number: int) -> float:
        return belonging(self.looks, self.targets.profiles[number], image, self.evidence[image][number])

    def _ask(self, puts: Sequence[tuple[int, int]], matters: Callable[[float], bool]) -> Steps[int]:
        """Put (image, cluster) questions, and those whose answer matters once more; returns how many that were."""
        answers = yield Ask([Question(self.targets.profiles[number], image) for image, number in puts])
        doubtful: list[tuple[int, int, Profile]] = []
        for (image, number), answer in zip(puts, answers, strict=True):
            self.spent = self.spent or answer.spent
            if answer.probability is None:
                continue
            self.evidence.setdefault(image, {})[number] = answer
            other = self._other_statement(number)
            if other is not None and matters(self._score(image, number)):
                doubtful.append((image, number, other))
        if len(doubtful) > _MANY * len(puts):
            doubtful = [entry for entry in doubtful if self._score(*entry[:2]) > _CLEARLY_NOT]
        if doubtful:
            answers = yield Ask([Question(profile, image) for image, _, profile in doubtful])
            for (image, number, _), answer in zip(doubtful, answers, strict=True):
                self.spent = self.spent or answer.spent
                if answer.probability is None:
                    continue
                self.evidence[image][number] = _both(self.evidence[image][number], answer)
                if number == self.home[image]:
                    self.confirmed.add(image)
        return len(puts) + len(doubtful)

    def _other_statement(self, number: int) -> Profile | None:
        """The same cluster by its next most typical images; None where it has too few."""
        if number not in self.others:
            shown = self.settings.exemplars
            profile = draw_profile(self.looks, self.drafts[number].members, 2 * shown)
            rest = profile.exemplars[shown:]
            self.others[number] = dataclasses.replace(profile, exemplars=rest) if len(rest) == shown else None
        return self.others[number]


def _fading_rate(blocks: Sequence[tuple[int, int]]) -> float:
    if not blocks:
        return 1.0
    weights = [_FADING**age for age in range(len(blocks))]
    found, asked = (
        math.fsum(w * block[part] for w, block in zip(weights, reversed(blocks), strict=True)) for part in (0, 1)
    )
    return found / asked if asked else 1.0


def _both(one: Answer, other: Answer) -> Answer:
    """Two answers to one question, as independent evidence."""
    if one.probability is None or other.probability is None:
        return one
    odds = _log_odds(one.probability) + _log_odds(other.probability)
    return dataclasses.replace(one, probability=1 / (1 + math.exp(-odds)))


def _log_odds(share: float) -> float:
    share = min(max(share, 0.001), 0.999)
    return math.log(share / (1 - share))


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
    confirmed: bool,
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
    elif own is not None and scores.get(own, 0.0) < (0.0 if confirmed else _CLEARLY_NOT):
        # Refused by its own cluster in spite of its description, and no other took it: unassigned is the truth.
        del result[own].members[image]
        home[image] = None
