"""Where every unit and image stands, given all answers so far.

In: units, answers. Out: for each unit the probabilities of the clusters it may belong to, for each asked image its own,
and the clusters themselves. Promise: pure; the state is a function of the answers, in whatever order they came.

A cluster is founded by one unit, whose images stay its exemplars: what an option meant when it was chosen, it still
means later. Clusters that turn out to be one kind are joined, and answers that named either then name both.

    P(unit u in c)   ~  choice model's odds  x  product over u's asked images of [(1 - m) L(c) + m L(anything)]
    P(image i in c)  ~  [(1 - m) P(u in c) + m P(anything)]  x  L(c)

L: the likelihood of the answers about an image; m: the share of images that are not where their unit is, of this unit
(a Beta posterior) and at this look's confidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from manylens.method.likelihood import UNIT_STRENGTH, ChoiceModel, FloatArray, Lessons, MemberModel, member_features
from manylens.method.observations import Looks, sum_by_group
from manylens.method.questions import MOST_OPTIONS, Statement
from manylens.method.walk import EdgeScale, Units

NONE = -1
"""In place of a cluster: none of them."""

NO_ANSWER = -2
"""In place of a category: the description does not answer the interest ("not visible")."""

_MOST_MISPLACED = 0.95
_LEAST = 1e-9
_BLOCK = 8192
_ASKED_BLOCK = 1024
_BLOCK_ENTRIES = 2**22
"""Entries, 32 MB, of a matrix of a block's units or images by clusters."""

_MOST_FITTED = 2000
_SETTLED = 0.9
"""What a placement that nobody was asked about is worth at the most."""

_NO_ANSWER_ODDS = 5.0
"""What a description that gives no answer takes off the log-odds of every cluster."""


@dataclass(slots=True)
class Cluster:
    """founder: the unit that it grew from, NONE for an option of a closed list. category: the writer's, or NONE."""

    founder: int
    name: str
    definition: str = ""
    category: int = NONE


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer about an image: the clusters that were options, and the likelihood of the answer had the image
    belonged to each of them, and (last) to none."""

    options: NDArray[np.int64]
    likelihoods: FloatArray
    chosen: int
    reason: str = ""


class Sorting:
    """The clusters, and where each unit and image stands."""

    def __init__(
        self,
        looks: Looks,
        units: Units,
        edge: EdgeScale,
        categories: NDArray[np.int64] | None = None,
        *,
        price: float,
        exemplars: int,
        reliability: float = 0.95,
        lessons: Lessons | None = None,
    ) -> None:
        m = len(units)
        self.looks, self.units, self.exemplars = looks, units, exemplars
        self.price = price
        """Pictures that a question must be expected to put right to be worth asking."""
        self.reliability = reliability
        """The probability that the judge answers as it would on reflection."""
        self.category = categories if categories is not None else np.full(m, NONE, dtype=np.int64)
        self.clusters: list[Cluster] = []
        self._parent: list[int] = []
        self.place = np.full(m, NONE, dtype=np.int64)
        self.sure = np.zeros(m)
        """The probability that a unit belongs where it is placed."""
        self.answers: dict[int, list[Answered]] = {}
        self.asked: list[list[int]] = [[] for _ in range(m)]
        self.unanswered: set[int] = set()
        self.told: frozenset[int] = frozenset()
        """Images that a person placed: they are asked about first, for that costs nothing, and say nothing of how many
        others are misplaced, for whoever corrects looks for mistakes."""
        self.believed: set[int] = set()
        """Images whose first answer is where they were before."""
        self.sampled: dict[int, tuple[int, float]] = {}
        """Images asked about at random at the end: the cluster that each was in, and how doubtful that was."""
        self.image_place: dict[int, int] = {}
        self.image_sure: dict[int, float] = {}
        self.misplaced = np.zeros(m)
        """How many of a unit's asked images are expected not to be where it is."""
        self.coming = np.zeros(m, dtype=np.int64)
        """How many images described like a unit may come later, for whom what is learned of it counts, too."""
        self._choice_prior = ChoiceModel(edge.scale, edge.offset)
        self._choice = self._choice_prior
        self._counts = np.zeros(m, dtype=np.int64)
        self._first = np.array([unit[0] for unit in units.members], dtype=np.int64)
        self._lessons = lessons
        """Of earlier runs, beside the answers of this one."""
        self.members = MemberModel.prior()
        if lessons is not None:
            self.members = self.members.fitted(lessons.members, lessons.elsewhere)
            self._choice = self._choice.fitted(lessons.features, lessons.answers, lessons.shown, lessons.misplaced)
        self.features = member_features(looks.confidences, units.sizes[units.of_image])
        self._measure_shares()

    # Clusters

    def root(self, cluster: int) -> int:
        while self._parent[cluster] != cluster:
            cluster = self._parent[cluster]
        return cluster

    def live(self) -> list[int]:
        """The clusters that are joined to no other."""
        return [c for c, parent in enumerate(self._parent) if c == parent]

    def add(self, cluster: Cluster) -> int:
        number = len(self.clusters)
        self.clusters.append(cluster)
        self._parent.append(number)
        if cluster.founder != NONE:
            self.place[cluster.founder] = number
        return number

    def join(self, one: int, other: int) -> None:
        """Two clusters are one kind: the smaller is joined to the larger."""
        one, other = self.root(one), self.root(other)
        if one == other:
            return
        if (self.weight[self.row[one]], -one) > (self.weight[self.row[other]], -other):
            one, other = other, one
        self._parent[one] = other
        self.place[self.place == one] = other
        self.weight[self.row[other]] += self.weight[self.row[one]]

    def is_founder(self, unit: int) -> bool:
        return bool(self.place[unit] != NONE) and self.clusters[self.place[unit]].founder == unit

    def alike(self, unit: int, other: int) -> bool:
        """Whether an edge of at least even odds joins two units, on the model's own scale: answers about clusters that
        are there say little of kinds that have none yet."""
        return self._choice_prior.scale * self.likeness(unit, other) + self._choice_prior.offset > 0

    def like(self, units: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some units are alike to which of others, (units, others); a unit is to itself."""
        likeness = np.round(self.units.vectors[units] @ self.units.vectors[others].T, 5).astype(np.float64)
        alike: NDArray[np.bool_] = self._choice_prior.scale * likeness + self._choice_prior.offset > 0
        return alike

    def likeness(self, unit: int, other: int) -> float:
        return float(np.round(self.units.vectors[unit] @ self.units.vectors[other], 5))

    def log_odds(self, similarity: float) -> float:
        """That two kinds of this similarity are one, as the answers of this run have it."""
        return float(self._choice.odds(np.array([similarity]), np.zeros(1))[0])

    def state(self, cluster: int, without: int = NONE) -> Statement:
        """How a cluster is put to the model: its founder's images, surest first, then those of its other units."""
        return Statement(
            self.clusters[cluster].name,
            self.clusters[cluster].definition,
            tuple(i for i in self._exemplars_of(cluster) if i != without)[: self.exemplars],
        )

    def _exemplars_of(self, cluster: int) -> list[int]:
        if cluster not in self._known_exemplars:
            self._known_exemplars[cluster] = self._exemplars(cluster)[: self.exemplars + 1]
        return self._known_exemplars[cluster]

    def _exemplars(self, cluster: int) -> list[int]:
        """The founder's images, then those of settled units: the asked ones, then those of the largest units."""
        founder, row, wanted = self.clusters[cluster].founder, self.row[cluster], self.exemplars + 1
        founds = founder != NONE and self._rows[founder] == row
        found = self._shown_of(founder, cluster) if founds else []
        if len(found) < wanted:
            units = self.units_in[row]
            units = units[self._settled(units) & (units != founder)]
            units = units[np.lexsort((self._first[units], -self.units.sizes[units]))]
            for which in (units[self._counts[units] > 0], units[self._counts[units] == 0]):
                enough, size = sum(not unconfirmed for _, unconfirmed, *_ in found), 0
                for unit in which.tolist():
                    # Of units of one image none that comes later goes before one that is there.
                    if enough >= wanted and (size == 1 or self.units.sizes[unit] < size):
                        break
                    size = int(self.units.sizes[unit])
                    shown = self._shown_of(unit, cluster)
                    enough += sum(not unconfirmed or not self._counts[unit] for _, unconfirmed, *_ in shown)
                    found += shown
        if not found and founder != NONE:
            return [int(image) for image in self.units.members[founder][: self.exemplars]]
        return [image for *_, image in sorted(found)[:wanted]]

    def _shown_of(self, unit: int, cluster: int) -> list[tuple[bool, bool, int, int, int]]:
        """Of the first images of a unit those that may stand for its cluster, after what they are ordered by: whether
        another unit founded it, whether nobody was asked about the image, the unit's size, the image's place in it."""
        is_other = unit != self.clusters[cluster].founder
        return [
            (is_other, image not in self.image_place, -int(self.units.sizes[unit]), rank, image)
            for rank, image in enumerate(self.units.members[unit][: 2 * self.exemplars].tolist())
            if self.image_place.get(image, cluster) == cluster
        ]

    def is_settled(self, unit: int) -> bool:
        """Whether no further question about where this unit belongs is worth its price."""
        rest = self.units.sizes[unit] - len(self.asked[unit])
        return bool((1 - self.sure[unit]) * rest * self.reliability < self.price)

    def _settled(self, units: NDArray[np.int64]) -> NDArray[np.bool_]:
        rest = self.units.sizes[units] - self._counts[units]
        settled: NDArray[np.bool_] = (1 - self.sure[units]) * rest * self.reliability < self.price
        return settled

    def count_asked(self) -> NDArray[np.int64]:
        """Of each unit, how many of its images were asked about, (m,)."""
        self._counts = np.fromiter(map(len, self.asked), np.int64, len(self.asked))
        return self._counts

    # What is known, anew

    def refresh(self) -> None:
        """Everything that follows from placements and answers: mean directions, probabilities, new placements."""
        self._locate()
        self._place_unasked()
        self._place_asked()
        self._locate()

    def settle(self) -> None:
        """Take the placements as they are: nothing will be asked."""
        self._locate()
        self.sure = np.where(self.place == NONE, 0.0, np.minimum(self.sure, _SETTLED))

    def forget_told(self) -> None:
        """Where images of shared descriptions are that a person placed, had nobody said it: what the person says is
        applied to the model's decisions later, and may be taken back."""
        for image in self.told:
            if self.units.sizes[self.units.of_image[image]] > 1:
                self.image_place.pop(image, None)
                self.image_sure.pop(image, None)

    def _locate(self) -> None:
        """Mean directions of the clusters, and each unit's nearest ones with their odds."""
        live = self.live()
        self.row = {cluster: row for row, cluster in enumerate(live)}
        self._known_exemplars: dict[int, list[int]] = {}
        self.live_clusters = np.array(live, dtype=np.int64)
        self._row_of = np.array([self.row[self.root(c)] for c in range(len(self.clusters))], dtype=np.int64)
        sizes = self.units.sizes
        k, m = len(live), len(self.units)
        rows = np.full(m, NONE, dtype=np.int64)
        placed = np.flatnonzero(self.place != NONE)
        rows[placed] = self._row_of[self.place[placed]] if k else NONE
        self._sums = sum_by_group(self.units.vectors, rows, k, sizes)
        self._lengths = np.linalg.norm(self._sums, axis=1)
        self.weight = np.bincount(rows[placed], weights=sizes[placed], minlength=k)
        by_row = placed[np.argsort(rows[placed], kind="stable")]
        self.units_in = np.split(by_row, np.cumsum(np.bincount(rows[placed], minlength=k))[:-1]) if k else []
        """Of each live cluster, its units in ascending order."""
        self._rows = rows
        founders = np.array([cluster.founder for cluster in self.clusters], dtype=np.int64)
        self._founds = np.zeros(m, dtype=bool)
        self._founds[placed] = founders[self.place[placed]] == placed
        self._alone = self._shares_alone()
        self.count_asked()
        self._cluster_category = np.array([self.clusters[c].category for c in live], dtype=np.int64)

    def nearest(self, units: NDArray[np.int64]) -> tuple[NDArray[np.int64], FloatArray]:
        """Rows of the likeliest clusters of some units before any answer, and their log-odds, both (units, width)."""
        odds = self._odds(units, np.arange(len(self.row)))
        width = min(MOST_OPTIONS, odds.shape[1])
        if odds.shape[1] > MOST_OPTIONS:
            least = -np.partition(-odds, width - 1, axis=1)[:, width - 1, None]
            taken, tied = odds > least, odds == least
            # Of those that tie for the last place the first are taken, as a stable sort would.
            taken |= tied & (np.cumsum(tied, axis=1) <= width - taken.sum(axis=1, keepdims=True))
            columns = np.nonzero(taken)[1].reshape(len(units), width)
            odds = np.take_along_axis(odds, columns, axis=1)
        else:
            columns = np.broadcast_to(np.arange(width), odds.shape)
        best = np.argsort(-odds, axis=1, kind="stable")
        return np.take_along_axis(columns, best, axis=1), np.take_along_axis(odds, best, axis=1)

    def options(self, units: NDArray[np.int64]) -> list[list[int]]:
        """Of each unit the clusters to choose among, the likeliest first."""
        found: list[list[int]] = [[] for _ in units]
        if not len(self.row):
            return found
        for start in range(0, len(units), _ASKED_BLOCK):
            block = units[start : start + _ASKED_BLOCK]
            asked = np.array([bool(self.asked[unit]) for unit in block.tolist()])
            rows = np.zeros((len(block), min(MOST_OPTIONS, len(self.row))), dtype=np.int64)
            if not asked.all():
                rows[~asked] = self.nearest(block[~asked])[0]
            if asked.any():
                after = np.stack([self.posterior(unit)[:-1] for unit in block[asked].tolist()])
                rows[asked] = np.argsort(-after, axis=1, kind="stable")[:, :MOST_OPTIONS]
            found[start : start + len(block)] = self.live_clusters[rows].tolist()
        return found

    def similarity(self, units: NDArray[np.int64], rows: NDArray[np.int64]) -> FloatArray:
        """H(u).H(c) of units and clusters, (units, rows): c's mean direction without u. nan where nothing is left.
        rows: distinct."""
        vectors, lengths = self.units.vectors[units], self._lengths[rows]
        found = (vectors @ self._sums[rows].T).astype(np.float64)
        found /= np.where(lengths > 0, lengths, 1)
        found[:, lengths == 0] = np.nan
        column = np.full(len(self.row) + 1, NONE, dtype=np.int64)  # one more, for a unit that is nowhere
        column[rows] = np.arange(len(rows))
        own = column[self._rows[units]]
        at = np.flatnonzero(own != NONE)
        rest = self._sums[self._rows[units[at]]] - vectors[at] * self.units.sizes[units[at], None]
        length = np.linalg.norm(rest, axis=1)
        left = np.einsum("ud,ud->u", vectors[at], rest) / np.where(length > 1e-3, length, np.nan)
        found[at, own[at]] = left
        return np.round(found, 5, out=found)

    def _odds(self, units: NDArray[np.int64], rows: NDArray[np.int64]) -> FloatArray:
        """Log-odds against none, before any answer, (units, rows)."""
        similarity = self.similarity(units, rows)
        mine, theirs = self.category[units][:, None], self._cluster_category[rows][None, :]
        same = ((mine == theirs) & (mine >= 0)).astype(np.float64) if (mine >= 0).any() else np.zeros((1, 1))
        unknown = np.isnan(similarity)
        odds = self._choice.odds(np.where(unknown, 0.0, similarity), same)
        if unknown.any():
            odds = np.where(unknown, self._choice.category * same, odds)
        odds -= _NO_ANSWER_ODDS * (mine == NO_ANSWER)
        # A founder's own cluster is what "none of the others" means.
        founders = np.flatnonzero(self._founds[units])
        column = np.full(len(self.row) + 1, NONE, dtype=np.int64)
        column[rows] = np.arange(len(rows))
        own = column[self._rows[units[founders]]]
        odds[founders[own != NONE], own[own != NONE]] = 0.0
        return odds

    def _place_unasked(self) -> None:
        if not len(self.row):
            return
        unasked = np.flatnonzero(self._counts == 0)
        self.sure[unasked[self._founds[unasked]]] = 1.0
        unasked = unasked[~self._founds[unasked]]
        for start in range(0, len(unasked), _BLOCK):
            units = unasked[start : start + _BLOCK]
            near, odds = self.nearest(units)
            odds = np.concatenate([odds, np.zeros((len(units), 1))], axis=1)
            p = np.exp(odds - odds.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            alone = self._alone[units, None]
            p = (1 - alone) * p + alone * self._anywhere(p)
            best = p.argmax(axis=1)
            near = np.concatenate([self.live_clusters[near], np.full((len(units), 1), NONE)], axis=1)
            every = np.arange(len(units))
            self.place[units], self.sure[units] = near[every, best], p[every, best]

    def _place_asked(self) -> None:
        self.image_place, self.image_sure, self.wanting = {}, {}, []
        misplaced: list[FloatArray] = []
        asked: list[NDArray[np.int64]] = []
        clusters = np.append(self.live_clusters, NONE)
        for units, images, of in self._blocks():
            odds = self._odds(units, np.arange(len(self.row)))
            before, after, likely, wrong = self._weigh(units, images, of, odds)
            every, founds = np.arange(len(units)), self._founds[units]
            best = np.where(founds, self._rows[units], after.argmax(axis=1))
            self.sure[units], self.place[units] = after[every, best], clusters[best]
            self.wanting += units[clusters[best] == NONE].tolist()
            anywhere = self._anywhere(before)
            q = ((1 - wrong) * after[of] + wrong * anywhere[of]) * likely
            q /= q.sum(axis=1, keepdims=True)
            at, each = q.argmax(axis=1), np.arange(len(images))
            place, sure, doubt = clusters[at], q[each, at], 1 - q[each, best[of]]
            self.misplaced[units] = np.bincount(of, weights=doubt, minlength=len(units))
            # An image that is a unit by itself is where that is; of others it says how likely it was misdescribed.
            single = self.units.sizes[units[of]] == 1
            one = of[single]
            self.misplaced[units[one]] = 0.0
            place[single], sure[single] = clusters[best[one]], after[one, best[one]]
            by_chance = self._alone[units[one]] * np.einsum("qk,qk->q", anywhere[one], likely[single])
            by_kind = (1 - self._alone[units[one]]) * np.einsum("qk,qk->q", before[one], likely[single])
            doubt[single] = by_chance / (by_chance + by_kind)
            self.image_place.update(zip(images.tolist(), place.tolist(), strict=True))
            self.image_sure.update(zip(images.tolist(), sure.tolist(), strict=True))
            misplaced.append(doubt)
            asked.append(images)
        every = np.concatenate([np.zeros(0, dtype=np.int64), *asked])
        own = np.array([image not in self.told for image in every.tolist()], dtype=bool)
        features, elsewhere = self.features[every[own]], np.concatenate([np.zeros(0), *misplaced])[own]
        if self._lessons is not None:
            features = np.concatenate([self._lessons.members, features])
            elsewhere = np.concatenate([self._lessons.elsewhere, elsewhere])
        self.members = MemberModel.prior().fitted(features, elsewhere)
        self._measure_shares()

    def _blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """Units that were asked about, in blocks; their asked images; and the unit of each in its block."""
        units = np.flatnonzero(self._counts)
        most = max(1, _BLOCK_ENTRIES // (len(self.row) + 1))
        starts = [0]
        while starts[-1] < len(units):
            many = np.cumsum(self._counts[units[starts[-1] : starts[-1] + _ASKED_BLOCK]])
            starts.append(starts[-1] + max(1, int(np.searchsorted(many, most, side="right"))))
        for start, end in pairwise(starts):
            block = units[start:end]
            images = [self.asked[unit] for unit in block.tolist()]
            of = np.repeat(np.arange(len(block)), [len(own) for own in images])
            yield block, np.array([image for own in images for image in own], dtype=np.int64), of

    def _measure_shares(self) -> None:
        self.share = self.members.misplaced(self.features)
        """Of each image, the share of images like it that are not where their unit is."""
        typical = self.features[self._first]
        typical[:, 1] = 0.0
        self.prior = UNIT_STRENGTH * self.members.misplaced(typical)
        """Of each unit, how many misplaced images its prior is worth."""

    def posterior(self, unit: int) -> FloatArray:
        """The probability of each live cluster, and (last) of none, (K + 1,)."""
        units, images = np.array([unit]), np.array(self.asked[unit], dtype=np.int64)
        odds = self._odds(units, np.arange(len(self.row)))
        after: FloatArray = self._weigh(units, images, np.zeros(len(images), dtype=np.int64), odds)[1][0]
        return after

    def _weigh(
        self, units: NDArray[np.int64], images: NDArray[np.int64], of: NDArray[np.int64], odds: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Units' probabilities before their answers and after, (units, K + 1); the likelihoods of those, (images, K +
        1); and of each image the probability that it is not where its unit is, (images, 1). of: the unit of each."""
        founds = self._founds[units]
        odds = np.concatenate([odds, np.where(founds, -np.inf, 0.0)[:, None]], axis=1)
        before = np.exp(odds - odds.max(axis=1, keepdims=True))
        before /= before.sum(axis=1, keepdims=True)
        anywhere = self._anywhere(before)
        likely = self._likelihoods(images)
        alone = self._alone[units, None]
        log = np.log((1 - alone) * before + alone * anywhere + _LEAST)
        wrong = self.shares_of(images, units[of])[:, None]
        by_chance = np.einsum("qk,qk->q", anywhere[of], likely)[:, None]
        np.add.at(log, of, np.log((1 - wrong) * likely + wrong * by_chance + _LEAST))
        after = np.exp(log - log.max(axis=1, keepdims=True))
        after[founds, -1] = 0.0
        return before, after / after.sum(axis=1, keepdims=True), likely, wrong

    def _shares_alone(self) -> FloatArray:
        """Of each image that is a unit by itself, the probability that it is not where its description belongs, (m,);
        0 of other units."""
        alone = (self.units.sizes == 1) & ~self._founds
        shares: FloatArray = np.where(alone, self.share[self._first], 0.0)
        return shares

    @staticmethod
    def _anywhere(before: FloatArray) -> FloatArray:
        """Where an image is that is not where its unit is: near by as likely as anywhere."""
        anywhere: FloatArray = 0.5 * before + 0.5 / before.shape[-1]
        return anywhere

    def _likelihoods(self, images: NDArray[np.int64]) -> FloatArray:
        """Of the answers about each image, had it belonged to each live cluster, or (last) to none, (images, K + 1)."""
        likely = np.ones((len(images), len(self.row) + 1))
        answers = [self.answers.get(image, ()) for image in images.tolist()]
        for turn in range(max(map(len, answers), default=0)):
            at = [place for place, own in enumerate(answers) if len(own) > turn]
            own = [answers[place][turn] for place in at]
            many = [len(answer.options) for answer in own]
            rows = self._row_of[np.concatenate([answer.options for answer in own])]
            each = np.repeat(np.arange(len(own)), many)
            # Options that are one cluster by now are chosen as often as they are together.
            said = np.zeros((len(own), likely.shape[1]))
            said[:] = np.array([answer.likelihoods[-1] for answer in own])[:, None]
            said[each, rows] = 0.0
            np.add.at(said, (each, rows), np.concatenate([answer.likelihoods[:-1] for answer in own]))
            likely[at] *= said
        if len(images):
            likely /= likely.max(axis=1, keepdims=True)
        return likely

    def share_of(self, image: int, unit: int) -> float:
        """The probability that an image is not where its unit is, before it is asked: the odds of its share, times how
        much more of the unit's asked images were misplaced than expected (a Beta posterior of `UNIT_STRENGTH` answers).
        An image that is a unit by itself is where that is."""
        return float(self.shares_of(np.array([image]), np.array([unit]))[0])

    def shares_of(self, images: NDArray[np.int64], units: NDArray[np.int64]) -> FloatArray:
        """The same of several images and the unit of each, (images,)."""
        distinct, which = np.unique(units, return_inverse=True)
        asked = [self.share[own].sum() if (own := self.asked[unit]) else 0.0 for unit in distinct.tolist()]
        prior = self.prior[distinct]
        rate = (prior + self.misplaced[distinct]) / (prior + np.array(asked))
        odds = self.share[images] / (1 - self.share[images]) * rate[which]
        shares: FloatArray = np.minimum(_MOST_MISPLACED, odds / (1 + odds))
        shares[self.units.sizes[units] == 1] = 0.0
        return shares

    # Answers

    def learn(self, image: int, options: Sequence[int], probabilities: Sequence[float], reason: str = "") -> None:
        """Take in an answer. Its probabilities are believed as far as the judge is reliable."""
        slip = (1 - self.reliability) / len(probabilities)
        likelihoods = self.reliability * np.array(probabilities) + slip
        best = int(likelihoods.argmax())
        chosen = NONE if best == len(options) else options[best]
        answered = Answered(np.array(options, dtype=np.int64), likelihoods, chosen, reason)
        self.answers.setdefault(image, []).append(answered)
        unit = int(self.units.of_image[image])
        if image not in self.asked[unit]:
            self.asked[unit].append(image)

    def believe(self, image: int, cluster: int, misplaced: float) -> None:
        """Take in where an image was before, as if that were an answer. misplaced: the probability that it is not."""
        others = misplaced / max(1, len(self.live()) - 1)
        self.believed.add(image)
        self.answers.setdefault(image, []).append(
            Answered(np.array([cluster], dtype=np.int64), np.array([1 - misplaced, others]), cluster)
        )
        unit = int(self.units.of_image[image])
        if image not in self.asked[unit]:
            self.asked[unit].append(image)

    def fit(self) -> None:
        """Fit the choice model to what units that founded nothing were first answered."""
        units = [u for u, images in enumerate(self.asked) if images and not self.is_founder(u)]
        units = [u for u in units if self.asked[u][0] not in self.told]
        units = [u for u in units if self.asked[u][0] not in self.believed or len(self.answers[self.asked[u][0]]) > 1]
        units = units[:_MOST_FITTED]
        if not units:
            return
        width = MOST_OPTIONS
        features, shown = np.zeros((len(units), width, 3)), np.zeros((len(units), width), dtype=bool)
        answers = np.zeros((len(units), width + 1))
        for at, unit in enumerate(units):
            answer = self.answers[self.asked[unit][0]][-1]
            rows = self._row_of[answer.options]
            near = np.unique(rows)
            similarity = self.similarity(np.array([unit]), near)[0][np.searchsorted(near, rows)]
            there = ~np.isnan(similarity)
            features[at, : len(rows), 0] = np.nan_to_num(similarity)
            features[at, : len(rows), 1] = 1.0
            features[at, : len(rows), 2] = (self._cluster_category[rows] == self.category[unit]) & (
                self.category[unit] >= 0
            )
            shown[at, : len(rows)] = there
            answers[at, : len(rows)] = answer.likelihoods[:-1]
            answers[at, -1] = answer.likelihoods[-1]
        misplaced = self.share[[self.asked[unit][0] for unit in units]]
        if (known := self._lessons) is not None:
            features, answers = np.concatenate([known.features, features]), np.concatenate([known.answers, answers])
            shown, misplaced = np.concatenate([known.shown, shown]), np.concatenate([known.misplaced, misplaced])
        self._choice = self._choice_prior.fitted(features, answers, shown, misplaced)

    # What comes of it

    def cluster_of(self, image: int) -> int:
        """The cluster of an image, or NONE: its own where it was asked, else its unit's."""
        return self.image_place.get(image, int(self.place[self.units.of_image[image]]))

    def probability(self, image: int) -> float:
        """That an image belongs where it is."""
        if image in self.image_sure:
            return self.image_sure[image]
        unit = int(self.units.of_image[image])
        return float(self.sure[unit]) * (1 - self.share_of(image, unit))

    def places(self) -> NDArray[np.int64]:
        """The cluster of every image, or NONE, (n,)."""
        found = self.place[self.units.of_image]
        found[list(self.image_place)] = list(self.image_place.values())
        return found

    def probabilities(self, images: NDArray[np.int64] | None = None) -> FloatArray:
        """That each of these images, or of all, belongs where it is."""
        if images is None:
            images = np.arange(len(self.looks))
        of = self.units.of_image[images]
        found: FloatArray = self.sure[of] * (1 - self.shares_of(images, of))
        own = [(at, self.image_sure[image]) for at, image in enumerate(images.tolist()) if image in self.image_sure]
        found[[at for at, _ in own]] = [sure for _, sure in own]
        return found
