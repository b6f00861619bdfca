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
from manylens.method.sorting import NO_ANSWER, NONE

_PAIRS = 6
"""Choices put twice in a round."""

_ROUNDS = 6
"""Rounds at most; none follows where so far the judge is no better than a guesser."""

_OPTIONS = 5
_CHANCE = 0.002
"""A guesser passes with at most this probability, an equal part of it in each round: the judge tells something where a
guesser would agree with itself so often with at most that part."""

_HOPELESS = 0.2
"""Where a guesser would agree with itself as often with more than this probability, after two rounds, none follows."""

_PRIOR_DIFFER, _PRIOR_PAIRS = 0.5, 10.0
"""Before the trial, one pair in 20 is expected to differ, as if ten pairs had been seen."""


@dataclass(frozen=True, slots=True)
class Trial:
    """pairs: choices put twice; differing: of them, between options read as one kind where the judge tells something.
    reliability: the probability that one answer is what the judge would say on reflection: half of the pairs that
    differ, differ by the other answer. tells: whether to ask it."""

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
    options = _options(check)
    if len(options) < 2:
        return Trial()
    planted = _planted(check, options)
    candidates = _candidates(check, planted)
    trial = Trial()
    said: list[tuple[int, int]] = []
    learned: list[tuple[int, list[int], tuple[float, ...]]] = []
    for turn in range(_ROUNDS):
        images = candidates[turn * _PAIRS :][:_PAIRS]
        if not images:
            break
        put = [_choice(check, image, options, again) for image in images for again in (0, 1)]
        replies = yield [choice for choice, _ in put]
        for at in range(0, len(put), 2):
            both = replies[at : at + 2]
            check.spent = check.spent or any(reply.spent for reply in both)
            if not all(reply.probabilities for reply in both):
                continue
            one, other = (
                NONE if r.chosen is None else options.index(put[at + k][1][r.chosen]) for k, r in enumerate(both)
            )
            said.append((one, other))
            learned += [(put[at + k][0].image, put[at + k][1], both[k].probabilities) for k in (0, 1)]
        trial, luck = _weigh(said, len(options), len(planted))
        if trial.tells or check.spent or (turn and (luck > _HOPELESS or trial.same_for_all)):
            break
    if trial.tells:
        sorting.reliability = trial.reliability
        for image, shown, probabilities in learned:
            if all(option >= 0 for option in shown):
                sorting.learn(image, shown, probabilities)
    return trial


def _weigh(said: Sequence[tuple[int, int]], options: int, planted: int) -> tuple[Trial, float]:
    """The trial, and the probability that a guesser would agree with itself so well. Two options may be one kind, and a
    good judge name either, so the options are read as kinds of their own and in every way as two kinds; the reading
    that speaks best for the judge counts, at its probability times the number of readings."""
    if not said:
        return Trial(tells=False), 1.0  # every question failed
    pairs = np.array(said) % (options + 1)  # none of them is the last
    shares = np.full(options, 1 / options)
    readings = [np.arange(options + 1)]
    readings += [mask >> np.arange(options + 1) & 1 for mask in range(1, 2**options)]
    luck, differing = 1.0, len(said)
    plain = int((pairs[:, 0] != pairs[:, 1]).sum())
    for number, kind in enumerate(readings):
        agreeing = int((kind[pairs[:, 0]] == kind[pairs[:, 1]]).sum())
        by_chance = float((np.bincount(kind[:options], weights=shares) ** 2).sum())
        found = _tail(agreeing, len(said), by_chance) * (1 if number == 0 else len(readings))
        if found < luck:
            luck, differing = found, len(said) - agreeing
    same = len(said) >= _PAIRS and len(np.unique(pairs)) == 1 and planted > 1
    tells = luck <= _CHANCE / _ROUNDS and not same
    # Who tells nothing has no reading that is better than chance, so none that hides how often it contradicted itself.
    return Trial(len(said), differing if tells else plain, same, tells), luck


def _tail(agreeing: int, pairs: int, p: float) -> float:
    """P(X >= agreeing) of a binomial X."""
    if p >= 1:
        return 1.0
    return math.fsum(math.comb(pairs, k) * p**k * (1 - p) ** (pairs - k) for k in range(agreeing, pairs + 1))


def _options(check: Check) -> list[int]:
    """Clusters unlike each other, from the largest on; beside a single one a unit that is none yet and not like it, as
    -1 - unit."""
    sorting = check.sorting
    found = _unlike(check, sorted(sorting.live(), key=lambda c: (-sorting.weight[sorting.row[c]], c)))
    if len(found) > 1 or check.closed:
        return found
    by_size = sorted(range(len(sorting.units)), key=lambda unit: (-int(sorting.units.sizes[unit]), unit))
    founders = [sorting.clusters[c].founder for c in found]
    by_size = [unit for unit in by_size if unit not in founders and sorting.category[unit] != NO_ANSWER]
    others = [unit for unit in by_size if not any(sorting.alike(unit, founder) for founder in founders)]
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


def _planted(check: Check, options: Sequence[int]) -> list[tuple[int, int]]:
    """Of each option whose founder has more than one image, two of which nobody spoke: the surest that is no exemplar,
    and the least sure. Of thousands the least sure is nearly always misdescribed: it is no control, but tells most of
    how far the look's confidence goes."""
    sorting, shown = check.sorting, check.sorting.exemplars
    planted: list[tuple[int, int]] = []
    for option in options:
        unit = -1 - option if option < 0 else sorting.clusters[option].founder
        if unit >= 0 and sorting.units.sizes[unit] > 1:
            untold = [i for i in sorting.units.members[unit].tolist() if i not in sorting.told]
            exemplars = set(sorting.units.members[unit][:shown].tolist())
            if untold:
                planted.append((next((i for i in untold if i not in exemplars), untold[-1]), untold[-1]))
    return planted


def _candidates(check: Check, planted: Sequence[tuple[int, int]]) -> list[int]:
    """Of each option its control, then of each the least sure image, then any others."""
    ids = check.sorting.looks.image_ids
    drawn = sorted(range(len(ids)), key=lambda image: seeded_share(check.seed, "trial", ids[image]))
    first = dict.fromkeys(both[k] for k in (0, 1) for both in planted)
    others = (image for image in drawn if image not in first and image not in check.sorting.told)
    return [*first, *others][: _ROUNDS * _PAIRS]  # of who was told of, the judge is not asked


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
