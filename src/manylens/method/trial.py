"""Before its answers count, the judge is tested by itself.

In: the first clusters. Out: how reliable it is, or that it tells nothing. Promise: pure. Nothing is held against the
descriptions: bad ones silence no good judge. The same choice is put twice, its options in another order. A judge who
takes the first option, or any at random, contradicts itself; one who gives every image the same answer tells nothing
of the image. Some images are planted: a cluster's own, among the options of all.

Two options may be one kind, and then a good judge may name either. So the answers are read in several ways, every
option a kind of its own or the options two kinds, and weighed by how much likelier a judge is to give them who means
what it says than one whose two answers have nothing to do with each other (Wald's sequential test).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manylens.method.check import Check
from manylens.method.observations import seeded_share
from manylens.method.questions import Choice, Statement, Steps

_PAIRS = 6
"""Choices put twice in a round."""

_ROUNDS = 4
_CONVINCED = 3.0
"""Rounds follow each other until the evidence is 20 to 1 for or against the judge, log-odds."""

_SLIPS = 0.1
"""How often the two answers of a judge that can be used may differ."""

_OPTIONS = 8
_FEWEST_OPTIONS = 3
_PRIOR_DIFFER, _PRIOR_PAIRS = 0.5, 10.0
"""Before the trial, one pair in 20 is expected to differ, as if ten pairs had been seen."""


@dataclass(frozen=True, slots=True)
class Trial:
    """pairs: choices put twice; differing: of them, by another kind. evidence: log-odds that the judge means what it
    says. reliability: the probability that one answer is what the judge would say on reflection: half of the pairs
    that differ, differ by the other answer. tells: whether to ask it."""

    pairs: int = 0
    differing: int = 0
    same_for_all: bool = False
    evidence: float = 0.0

    @property
    def reliability(self) -> float:
        return 1 - (_PRIOR_DIFFER + self.differing) / (_PRIOR_PAIRS + self.pairs) / 2

    @property
    def tells(self) -> bool:
        return self.evidence >= 0 and not self.same_for_all


def try_judge(check: Check) -> Steps[Trial]:
    """Put choices twice, up to `_ROUNDS` rounds of them; what they say of the images is learned, where the judge can be
    used."""
    sorting = check.sorting
    sorting.refresh()
    options = _options(check)
    if len(options) < 2:
        return Trial()
    candidates = _candidates(check, options)
    trial = Trial()
    said: list[tuple[int | None, int | None]] = []
    learned: list[tuple[int, list[int], tuple[float, ...]]] = []
    for start in range(0, _ROUNDS * _PAIRS, _PAIRS):
        images = candidates[start : start + _PAIRS]
        put = [_choice(check, image, options, turn) for image in images for turn in (0, 1)]
        replies = yield [choice for choice, _ in put]
        for at in range(0, len(put), 2):
            both = replies[at : at + 2]
            check.spent = check.spent or any(reply.spent for reply in both)
            if not all(reply.probabilities for reply in both):
                continue
            one, other = (None if r.chosen is None else put[at + k][1][r.chosen] for k, r in enumerate(both))
            said.append((one, other))
            learned += [(put[at + k][0].image, put[at + k][1], both[k].probabilities) for k in (0, 1)]
        trial = _weigh(said)
        if check.spent or trial.same_for_all or abs(trial.evidence) > _CONVINCED:
            break
    if trial.tells:
        sorting.reliability = trial.reliability
        for image, shown, probabilities in learned:
            if all(option >= 0 for option in shown):
                sorting.learn(image, shown, probabilities)
    return trial


def _weigh(said: Sequence[tuple[int | None, int | None]]) -> Trial:
    """The trial by the reading of the answers that speaks best for the judge; readings of two kinds, of which there are
    many, share what one reading counts."""
    if not said:
        return Trial()
    number = {answer: at for at, answer in enumerate(dict.fromkeys(answer for pair in said for answer in pair))}
    pairs = np.array([[number[one], number[other]] for one, other in said])
    chances = 2 ** (len(number) - 1) - 1
    readings = [(np.arange(len(number)), 0.0)]
    readings += [(mask >> np.arange(len(number)) & 1, math.log(chances)) for mask in range(1, chances + 1)]
    evidence, differing = -math.inf, 0
    for kind, less in readings:
        kinds = kind[pairs]
        differ = int((kinds[:, 0] != kinds[:, 1]).sum())
        chance = min(float((np.bincount(kinds.ravel()) ** 2).sum()) / kinds.size**2, 0.99)
        agreeing, apart = math.log((1 - _SLIPS) / chance), math.log(_SLIPS / (1 - chance))
        weight = (len(said) - differ) * agreeing + differ * apart - less
        if weight > evidence:
            evidence, differing = weight, differ
    if evidence < 0:
        differing = sum(one != other for one, other in said)
    return Trial(len(said), differing, len(said) >= _PAIRS and len(number) == 1, evidence)


def _options(check: Check) -> list[int]:
    """The largest clusters; where there are few, units that are none yet, as -1 - unit."""
    sorting = check.sorting
    live = sorted(sorting.live(), key=lambda c: (-sorting.weight[sorting.row[c]], c))[:_OPTIONS]
    if len(live) >= _FEWEST_OPTIONS:
        return live
    by_size = sorted(range(len(sorting.units)), key=lambda unit: (-int(sorting.units.sizes[unit]), unit))
    others = [-1 - unit for unit in by_size if not sorting.is_founder(unit)]
    return [*live, *others[: _FEWEST_OPTIONS - len(live)]]


def _candidates(check: Check, options: Sequence[int]) -> list[int]:
    """An image of each option that is none of its first exemplars, in turn; then any others."""
    sorting = check.sorting
    ids = sorting.looks.image_ids
    drawn = sorted(range(len(ids)), key=lambda image: seeded_share(check.seed, "trial", ids[image]))
    planted: list[int] = []
    for option in options:
        unit = -1 - option if option < 0 else sorting.clusters[option].founder
        if unit >= 0:
            own = sorting.units.members[unit].tolist()
            planted += own[-1:] if len(own) > 1 else []
    taken = set(planted)
    rest = [image for image in drawn if image not in taken]
    return [*planted[:_PAIRS], *rest, *planted[_PAIRS:]][: _ROUNDS * _PAIRS]


def _choice(check: Check, image: int, options: Sequence[int], turn: int) -> tuple[Choice, list[int]]:
    sorting = check.sorting
    image_id = sorting.looks.image_ids[image]
    order = sorted(options, key=lambda option: seeded_share(check.seed, f"trial {turn}", image_id, str(option)))
    if turn and order == sorted(options, key=lambda o: seeded_share(check.seed, "trial 0", image_id, str(o))):
        order.reverse()  # with few options a shuffle may change nothing, and so would test nothing
    return Choice(image, tuple(_state(check, option, image) for option in order)), order


def _state(check: Check, option: int, image: int) -> Statement:
    """A cluster by its first exemplars, the same both times: where a description says little, others would be of
    another kind, and that is not the judge's fault."""
    sorting, many = check.sorting, check.sorting.exemplars
    unit = -1 - option if option < 0 else sorting.clusters[option].founder
    if option >= 0 and unit < 0:
        return sorting.state(option, without=image)
    own = [i for i in sorting.units.members[unit].tolist() if i != image]
    name = sorting.clusters[option].name if option >= 0 else sorting.units.words[unit]
    return Statement(name, "", tuple(own[:many]))
