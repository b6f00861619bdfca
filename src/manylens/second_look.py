"""Second looks: after the merge, what the allowance leaves is spent where it finds most.

In: drafts, unassigned images, refusals. Out: drafts over the same images, and those still unassigned. Promise: pure
(rounds of questions out, answers in); clusters stay what they are, images are placed one by one.

Two kinds of question compete. To *doubt* asks the least certain images' own clusters, in order; how much that finds is
known from its last blocks. To *seek* asks, for an image that no cluster holds or that its own refused, the clusters
that have not refused it yet. With every refusal the next cluster becomes more probable, so a search once begun is worth
more per question than a new one; Gittins' index says by how much.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Callable, Mapping, Sequence

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
    draw_profile,
    log_odds,
)
from manylens.records import Settings
from manylens.targets import FAR, Refusals, Targets

_ONE_NO = 2.5
"""What an earlier refusal takes off the log-odds of the cluster that an image's description names."""

_BLOCK_SHARE, _FEWEST_IN_BLOCK = 0.01, 8
_WORTHWHILE, _BLOCKS_WEIGHED = 0.03, 3
"""Neither goes on below this share of finds among the questions; of doubts, those of the last three blocks."""

_FADING = 0.25
"""What a block of doubts says of the next one, against what the block after it says."""

_PRIOR_FOUND = 3.0
"""So many finds as the odds foresee are taken for granted before what seeking does find changes its rate."""

_MOST_CHOICES = 64
_LEAST = 0.001
"""A confidence or probability says no more than 999 to 1."""

_MANY, _FEW = 0.25, 2
"""Where more than this share, and number, of a round's answers would move an image, few are the judge's slips."""

_CLEARLY = 1.0
_CLEARLY_NOT = -1.0
_CONTENT = 0.9


def take_second_looks(
    looks: Looks,
    drafts: Sequence[Draft],
    unassigned: Sequence[int],
    refusals: Refusals,
    settings: Settings,
    edge: EdgeScale | None = None,
    sees_exemplars: bool = True,
) -> Steps[tuple[list[Draft], list[int]]]:
    """Doubt the least certain images, at most `second_looks` of all, and seek a cluster for those that none holds: a
    hundredth of the collection at a time, whichever finds more per question, as long as that finds enough.

    What would move an image is asked once more, against other exemplars of the same cluster, unless the answer is clear
    and one of many in its round, or the allowance is used up. Not of a judge who sees no exemplars: the question would
    be the same. An image moves where another cluster has clearly better evidence; it is unassigned where its own
    refuses it and no other takes it.
    """
    if not drafts:
        return list(drafts), list(unassigned)
    second = _SecondLooks(looks, drafts, unassigned, refusals, settings, edge, sees_exemplars)
    while (ask := second.most_fruitful()) is not None:
        yield from ask()
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
        sees_exemplars: bool,
    ) -> None:
        self.looks, self.drafts, self.settings, self.refusals, self.edge = looks, drafts, settings, refusals, edge
        self.sees_exemplars = sees_exemplars
        self.targets = Targets(looks, drafts, range(len(drafts)), settings)
        self.home: dict[int, int | None] = dict.fromkeys(unassigned)
        self.home.update({image: number for number, draft in enumerate(drafts) for image in draft.members})
        self.evidence: dict[int, dict[int, Answer]] = {}
        self.block = max(_FEWEST_IN_BLOCK, math.ceil(_BLOCK_SHARE * len(looks)))
        self.few = self.block // 2  # the fewer searches go on side by side, the fewer the end leaves half-way
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

    def most_fruitful(self) -> Callable[[], Steps[None]] | None:
        """What to ask next; None where nothing is worth asking or the allowance is used up."""
        kinds: list[tuple[float, Callable[[], Steps[None]]]] = []
        recent = self.doubts[-_BLOCKS_WEIGHED:]
        found, asked = sum(found for found, _ in recent), sum(asked for _, asked in recent)
        if self.to_doubt and (len(recent) < _BLOCKS_WEIGHED or found >= _WORTHWHILE * asked):
            kinds.append((_fading_rate(recent), self.doubt))
        if self.to_seek:
            best = heapq.nsmallest(self.few, self.to_seek)
            rate = -math.fsum(index for index, _ in best) / len(best) * self._luck()
            kinds += [(rate, self.seek)] if rate >= _WORTHWHILE else []
        return max(kinds, key=lambda kind: kind[0])[1] if kinds and not self.spent else None

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
        """Ask the next cluster of the images whose search finds most per question."""
        self.to_seek.sort()
        entries, self.to_seek = self.to_seek[: self.few], self.to_seek[self.few :]
        puts: list[tuple[int, int]] = []
        chances: list[float] = []
        for _, image in entries:
            number, odd = self.choices[image].pop()
            chances.append(odd / (self.odds[image] + odd))
            puts.append((image, number))
        yield from self._ask(puts, lambda score: score > 0)
        for (image, number), chance in zip(puts, chances, strict=True):
            is_answered = number in self.evidence.get(image, {})
            self.sought[1] += chance if is_answered else 0.0
            if is_answered and self._score(image, number) > 0:
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
        """Its choices: all clusters but its own and those that refused it, except the one of its description, which
        may be stated otherwise by now. Their odds: what similarity says, or the description. Against them all stand
        the odds of its own cluster, as that answered, or of being alone of its kind."""
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
        self.odds[image] = math.exp(max(FAR, FAR if own is None else self._score(image, own)))
        self.odds[image] += math.fsum(odd for odd, _ in odds)
        self._queue(image)

    def _queue(self, image: int) -> None:
        """By Gittins' index: the most that going on with this image can find per question."""
        if not self.choices[image]:
            return
        odd = self.choices[image][-1][1]
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
        if len(doubtful) > max(_MANY * len(puts), _FEW):
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
        """The same cluster by its next most typical images; None where it has too few, or they are not seen."""
        if not self.sees_exemplars:
            return None
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
    odds = log_odds(one.probability, _LEAST) + log_odds(other.probability, _LEAST)
    return dataclasses.replace(one, probability=1 / (1 + math.exp(-odds)))


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
        sure = log_odds(float(looks.confidences[image]), _LEAST)
        sure += 0.0 if judged is None else log_odds(judged, _LEAST)
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
