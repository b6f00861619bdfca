"""Before its answers count, the judge is tested by itself.

In: the first clusters. Out: how reliable it is, or that it tells nothing. Promise: pure. Nothing is held against the
descriptions: bad ones silence no good judge. The same choice is put twice, its options in another order. A judge who
takes the first option, or any at random, agrees with itself no more often than chance; one who gives every image the
same answer tells nothing of the image. Some images are planted: a cluster's own, among the options of all; where fewer
than two clusters have any to plant, one answer to all may be right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manylens.method.check import Check
from manylens.method.observations import seeded_share
from manylens.method.questions import Choice, Statement, Steps
from manylens.method.sorting import NONE

_PAIRS = 6
"""Choices put twice in a round."""

_ROUNDS = 4
"""Rounds at most. From the third on the options are others: two of the first may be one kind, and a good judge torn."""

_OPTIONS = 5
_FEWEST_OPTIONS = 3
_CHANCE = 0.002
"""The judge tells something where a guesser would agree with itself so often with at most this probability."""

_PRIOR_DIFFER, _PRIOR_PAIRS = 0.5, 10.0
"""Before the trial, one pair in 20 is expected to differ, as if ten pairs had been seen."""


@dataclass(frozen=True, slots=True)
class Trial:
    """pairs: choices put twice; differing: of them. reliability: the probability that one answer is what the judge
    would say on reflection: half of the pairs that differ, differ by the other answer. tells: whether to ask it."""

    pairs: int = 0
    differing: int = 0
    same_for_all: bool = False
    tells: bool = True

    @property
    def reliability(self) -> float:
        return 1 - (_PRIOR_DIFFER + self.differing) / (_PRIOR_PAIRS + self.pairs) / 2


def try_judge(check: Check) -> Steps[Trial]:
    """Put six choices twice, and six more as long as a guesser might have agreed with itself as often; what they say of
    the images is learned, where the judge can be used."""
    sorting = check.sorting
    sorting.refresh()
    trial = Trial()
    options: list[int] = []
    pairs = differing = 0
    answers: set[int | None] = set()
    tried: list[int] = []
    all_planted: set[int] = set()
    learned: list[tuple[int, list[int], tuple[float, ...]]] = []
    for turn in range(_ROUNDS):
        if turn % 2 == 0:
            before, options = options, _options(check, turn // 2)
            if options != before:  # with few clusters there are no others: what they said so far counts, too
                pairs = differing = 0
                tried, all_planted = [], set()
            planted = _planted(check, options, tried)
            all_planted.update(planted)
            candidates = _candidates(check, planted, tried, turn // 2)
        if len(options) < 2:
            return trial
        images = candidates[turn % 2 * _PAIRS :][:_PAIRS]
        tried += images
        put = [_choice(check, image, options, again) for image in images for again in (0, 1)]
        replies = yield [choice for choice, _ in put]
        for at in range(0, len(put), 2):
            both = replies[at : at + 2]
            check.spent = check.spent or any(reply.spent for reply in both)
            if not all(reply.probabilities for reply in both):
                continue
            said = [None if r.chosen is None else put[at + k][1][r.chosen] for k, r in enumerate(both)]
            pairs += 1
            differing += said[0] != said[1]
            answers.update(said)
            learned += [(put[at + k][0].image, put[at + k][1], both[k].probabilities) for k in (0, 1)]
        same = pairs >= _PAIRS and len(answers) == 1 and len(all_planted) > 1
        is_silent = not pairs and not check.spent  # every question failed
        tells = not is_silent and (not pairs or _chance(pairs - differing, pairs, len(options)) <= _CHANCE) and not same
        trial = Trial(pairs, differing, same, tells)
        if tells or check.spent:
            break
    if trial.tells:
        sorting.reliability = trial.reliability
        for image, shown, probabilities in learned:
            if all(option >= 0 for option in shown):
                sorting.learn(image, shown, probabilities)
    return trial


def _chance(agreeing: int, pairs: int, options: int) -> float:
    """The probability that one who takes any option at random agrees with itself in so many pairs, or more."""
    p = 1 / options
    return math.fsum(math.comb(pairs, k) * p**k * (1 - p) ** (pairs - k) for k in range(agreeing, pairs + 1))


def _options(check: Check, again: int) -> list[int]:
    """Clusters unlike each other, from the largest on; beside a single one a unit that is none yet and not like it, as
    -1 - unit: with two options for one kind a good judge would contradict itself. again: whether to take those that
    were not taken first, where there are enough."""
    sorting = check.sorting
    live = sorted(sorting.live(), key=lambda c: (-sorting.weight[sorting.row[c]], c))
    first = _unlike(check, live)
    second = _unlike(check, [c for c in live if c not in first]) if again else []
    found = second if len(second) >= _FEWEST_OPTIONS else first
    if len(found) > 1 or check.closed:
        return found
    by_size = sorted(range(len(sorting.units)), key=lambda unit: (-int(sorting.units.sizes[unit]), unit))
    founders = [sorting.clusters[c].founder for c in found]
    others = [u for u in by_size if u not in founders and not any(sorting.alike(u, founder) for founder in founders)]
    return [*found, *(-1 - unit for unit in others[: 2 - len(found)])]


def _unlike(check: Check, clusters: Sequence[int]) -> list[int]:
    """The largest, then always the one that is least like those taken, among four times as many as are wanted."""
    sorting = check.sorting
    left = [c for c in clusters if sorting.clusters[c].founder != NONE][: 4 * _OPTIONS]
    if not left:
        return list(clusters)[:_OPTIONS]
    vectors = sorting.units.vectors[[sorting.clusters[c].founder for c in left]]
    taken = [0]
    while len(taken) < min(_OPTIONS, len(left)):
        likest = np.round((vectors @ vectors[taken].T).max(axis=1), 5)
        likest[taken] = np.inf
        taken.append(int(likest.argmin()))
    return [left[at] for at in taken]


def _planted(check: Check, options: Sequence[int], tried: Sequence[int]) -> list[int]:
    """An image of each option: the last of its founder's, of those that were not tried, where it has more than one."""
    sorting = check.sorting
    planted: list[int] = []
    for option in options:
        unit = -1 - option if option < 0 else sorting.clusters[option].founder
        if unit >= 0:
            own = sorting.units.members[unit].tolist()
            planted += [image for image in own if image not in tried][-1:] if len(own) > 1 else []
    return planted


def _candidates(check: Check, planted: Sequence[int], tried: Sequence[int], again: int) -> list[int]:
    """The planted images, then any others; those that were tried with the same options only where nothing else is left:
    the same choice put again tells nothing new."""
    ids = check.sorting.looks.image_ids
    drawn = sorted(range(len(ids)), key=lambda image: seeded_share(check.seed, f"trial {again}", ids[image]))
    taken = {*planted, *tried}
    rest = [image for image in drawn if image not in taken]
    return [*planted, *rest, *tried][: 2 * _PAIRS]


def _choice(check: Check, image: int, options: Sequence[int], turn: int) -> tuple[Choice, list[int]]:
    sorting = check.sorting
    image_id = sorting.looks.image_ids[image]
    order = sorted(options, key=lambda option: seeded_share(check.seed, f"trial {turn}", image_id, str(option)))
    if turn and order == sorted(options, key=lambda o: seeded_share(check.seed, "trial 0", image_id, str(o))):
        order.reverse()  # with few options a shuffle may change nothing, and so would test nothing
    return Choice(image, tuple(_state(check, option, image) for option in order)), order


def _state(check: Check, option: int, image: int) -> Statement:
    """A cluster by its first exemplars, both times: where descriptions are poor, others may be of another kind, and a
    good judge would seem to contradict itself."""
    sorting, many = check.sorting, check.sorting.exemplars
    unit = -1 - option if option < 0 else sorting.clusters[option].founder
    if option >= 0 and unit < 0:
        return sorting.state(option, without=image)
    own = [i for i in sorting.units.members[unit].tolist() if i != image]
    name = sorting.clusters[option].name if option >= 0 else sorting.units.words[unit]
    return Statement(name, "", tuple(own[:many]))
