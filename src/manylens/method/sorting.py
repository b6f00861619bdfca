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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manylens.method.graph import edge_weight
from manylens.method.likelihood import (
    UNIT_STRENGTH,
    ChoiceModel,
    FloatArray,
    Lessons,
    MemberModel,
    member_features,
)
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
        self._choice_prior = ChoiceModel(edge.scale, edge.offset)
        self._choice = self._choice_prior
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

    def has_like(self, unit: int, vectors: NDArray[np.float32]) -> bool:
        """Whether an edge of at least even odds leads to one of these vectors, itself not counted. vectors: (u, d)."""
        weights = edge_weight(vectors @ self.units.vectors[unit], self._choice_prior.scale, self._choice_prior.offset)
        return int((weights > 0.5).sum()) > 1

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
        founder = self.clusters[cluster].founder
        found: list[tuple[bool, bool, int, int, int]] = []
        for unit in self.units_in[self.row[cluster]]:
            if unit != founder and not self.is_settled(unit):
                continue
            for rank, image in enumerate(self.units.members[unit][: 2 * self.exemplars].tolist()):
                here = self.image_place.get(image, cluster)
                if here == cluster:
                    confirmed = image in self.image_place
                    found.append((unit != founder, not confirmed, -int(self.units.sizes[unit]), rank, image))
        if not found and founder != NONE:
            return [int(image) for image in self.units.members[founder][: self.exemplars]]
        return [image for *_, image in sorted(found)]

    def is_settled(self, unit: int) -> bool:
        """Whether no further question about where this unit belongs is worth its price."""
        rest = self.units.sizes[unit] - len(self.asked[unit])
        return bool((1 - self.sure[unit]) * rest * self.reliability < self.price)

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
        vectors, sizes = self.units.vectors, self.units.sizes
        k, m = len(live), len(self.units)
        rows = np.array([self.row[c] if c != NONE else NONE for c in self.place.tolist()], dtype=np.int64)
        placed = np.flatnonzero(rows != NONE)
        sums = sum_by_group(vectors[placed] * sizes[placed, None].astype(np.float32), rows[placed], k)
        self.weight = np.bincount(rows[placed], weights=sizes[placed], minlength=k)
        self.units_in: list[list[int]] = [[] for _ in range(k)]
        for unit, row in zip(placed.tolist(), rows[placed].tolist(), strict=True):
            self.units_in[row].append(unit)
        self._sums, self._rows = sums, rows
        self._founds = np.array([self.is_founder(unit) for unit in range(m)], dtype=bool)
        self._alone = self._shares_alone()
        self._cluster_category = np.array([self.clusters[c].category for c in live], dtype=np.int64)
        width = min(MOST_OPTIONS, k)
        self.near = np.zeros((m, width), dtype=np.int64)
        self.odds = np.zeros((m, width))
        every = np.arange(k)
        for start in range(0, m, _BLOCK):
            units = np.arange(start, min(start + _BLOCK, m))
            odds = self._odds(units, every)
            best = np.argsort(-odds, axis=1, kind="stable")[:, :width]
            self.near[units] = best
            self.odds[units] = np.take_along_axis(odds, best, axis=1)

    def similarity(self, units: NDArray[np.int64], rows: NDArray[np.int64]) -> FloatArray:
        """H(u).H(c) of units and clusters, (units, rows): c's mean direction without u. nan where nothing is left."""
        vectors = self.units.vectors[units]
        lengths = np.linalg.norm(self._sums[rows], axis=1)
        found = (vectors @ self._sums[rows].T).astype(np.float64) / np.where(lengths > 0, lengths, 1)
        found[:, lengths == 0] = np.nan
        at, row = np.nonzero(self._rows[units][:, None] == rows[None, :])
        rest = self._sums[rows[row]] - vectors[at] * self.units.sizes[units[at], None]
        length = np.linalg.norm(rest, axis=1)
        left = np.einsum("ud,ud->u", vectors[at], rest) / np.where(length > 1e-3, length, np.nan)
        found[at, row] = left
        return np.round(found, 5)

    def _odds(self, units: NDArray[np.int64], rows: NDArray[np.int64]) -> FloatArray:
        """Log-odds against none, before any answer, (units, rows)."""
        similarity = self.similarity(units, rows)
        mine, theirs = self.category[units][:, None], self._cluster_category[rows][None, :]
        same = ((mine == theirs) & (mine >= 0)).astype(np.float64)
        odds = np.where(
            np.isnan(similarity),
            self._choice.category * same,
            self._choice.odds(np.nan_to_num(similarity), same),
        )
        odds -= _NO_ANSWER_ODDS * (mine == NO_ANSWER)
        # A founder's own cluster is what "none of the others" means.
        odds[self._founds[units][:, None] & (self._rows[units][:, None] == rows[None, :])] = 0.0
        return odds

    def _place_unasked(self) -> None:
        if not len(self.live_clusters):
            return
        odds = np.concatenate([self.odds, np.zeros((len(self.units), 1))], axis=1)
        p = np.exp(odds - odds.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        alone = self._alone[:, None]
        p = (1 - alone) * p + alone * self._anywhere(p)
        best = p.argmax(axis=1)
        for unit in range(len(self.units)):
            if self.asked[unit]:
                continue
            if self.is_founder(unit):
                self.sure[unit] = 1.0
            else:
                none = best[unit] == self.near.shape[1]
                self.place[unit] = NONE if none else self.live_clusters[self.near[unit, best[unit]]]
                self.sure[unit] = p[unit, best[unit]]

    def _place_asked(self) -> None:
        self.image_place, self.image_sure, self.wanting = {}, {}, []
        misplaced: list[float] = []
        asked: list[int] = []
        units = [unit for unit, images in enumerate(self.asked) if images]
        for start in range(0, len(units), _ASKED_BLOCK):
            block = units[start : start + _ASKED_BLOCK]
            for unit, odds in zip(block, self._odds(np.array(block), np.arange(len(self.row))), strict=True):
                before, after, likely = self._weigh(unit, odds)
                best = int(self._rows[unit] if self.is_founder(unit) else after.argmax())
                self.sure[unit] = after[best]
                self.place[unit] = self._cluster_at(best)
                if self.place[unit] == NONE:
                    self.wanting.append(unit)
                anywhere = self._anywhere(before)
                if self.units.sizes[unit] == 1:
                    image = self.asked[unit][0]
                    self.image_place[image], self.image_sure[image] = int(self.place[unit]), float(after[best])
                    wrong = float(self._alone[unit])
                    by_chance, by_kind = wrong * float(anywhere @ likely[0]), (1 - wrong) * float(before @ likely[0])
                    misplaced.append(by_chance / (by_chance + by_kind))
                    asked.append(image)
                    continue
                total = 0.0
                for image, likelihood in zip(self.asked[unit], likely, strict=True):
                    wrong = self.share_of(image, unit)
                    q = ((1 - wrong) * after + wrong * anywhere) * likelihood
                    q /= q.sum()
                    at = int(q.argmax())
                    self.image_place[image], self.image_sure[image] = self._cluster_at(at), float(q[at])
                    misplaced.append(1 - float(q[best]))
                    total += misplaced[-1]
                asked += self.asked[unit]
                self.misplaced[unit] = total
        own = [at for at, image in enumerate(asked) if image not in self.told]
        features, elsewhere = self.features[[asked[at] for at in own]], np.array([misplaced[at] for at in own])
        if self._lessons is not None:
            features = np.concatenate([self._lessons.members, features])
            elsewhere = np.concatenate([self._lessons.elsewhere, elsewhere])
        self.members = MemberModel.prior().fitted(features, elsewhere)
        self._measure_shares()

    def _cluster_at(self, row: int) -> int:
        return NONE if row == len(self.row) else int(self.live_clusters[row])

    def _measure_shares(self) -> None:
        self.share = self.members.misplaced(self.features)
        """Of each image, the share of images like it that are not where their unit is."""
        typical = self.features.copy()
        typical[:, 1] = 0.0
        of_image = self.members.misplaced(typical)
        self.prior = UNIT_STRENGTH * of_image[[int(unit[0]) for unit in self.units.members]]
        """Of each unit, how many misplaced images its prior is worth."""

    def posterior(self, unit: int) -> FloatArray:
        """The probability of each live cluster, and (last) of none, (K + 1,)."""
        return self._weigh(unit, self._odds(np.array([unit]), np.arange(len(self.row)))[0])[1]

    def _weigh(self, unit: int, odds: FloatArray) -> tuple[FloatArray, FloatArray, list[FloatArray]]:
        """A unit's probabilities before its answers and after, and the likelihoods of those, image by image."""
        founds = self.is_founder(unit)
        odds = np.append(odds, -np.inf if founds else 0.0)
        before = np.exp(odds - odds.max())
        before /= before.sum()
        anywhere = self._anywhere(before)
        likely = [self._likelihood(image) for image in self.asked[unit]]
        alone = float(self._alone[unit])
        log = np.log((1 - alone) * before + alone * anywhere + _LEAST)
        for image, likelihood in zip(self.asked[unit], likely, strict=True):
            wrong = self.share_of(image, unit)
            log += np.log((1 - wrong) * likelihood + wrong * float(anywhere @ likelihood) + _LEAST)
        after = np.exp(log - log.max())
        if founds:
            after[-1] = 0.0
        return before, after / after.sum(), likely

    def _shares_alone(self) -> FloatArray:
        """Of each image that is a unit by itself, the probability that it is not where its description belongs, (m,);
        0 of other units."""
        first = np.array([unit[0] for unit in self.units.members], dtype=np.int64)
        shares: FloatArray = np.where((self.units.sizes == 1) & ~self._founds, self.share[first], 0.0)
        return shares

    @staticmethod
    def _anywhere(before: FloatArray) -> FloatArray:
        """Where an image is that is not where its unit is: near by as likely as anywhere."""
        anywhere: FloatArray = 0.5 * before + 0.5 / before.shape[-1]
        return anywhere

    def _likelihood(self, image: int) -> FloatArray:
        """Of the answers about an image, had it belonged to each live cluster, or (last) to none, (K + 1,)."""
        likely = np.ones(len(self.row) + 1)
        for answer in self.answers[image]:
            rows = self._row_of[answer.options]
            said = np.bincount(rows, weights=answer.likelihoods[:-1], minlength=len(likely))
            unnamed = np.ones(len(likely), dtype=bool)
            unnamed[rows] = False
            said[unnamed] = answer.likelihoods[-1]
            likely *= said
        scaled: FloatArray = likely / likely.max()
        return scaled

    def share_of(self, image: int, unit: int) -> float:
        """The probability that an image is not where its unit is, before it is asked: its share, times how much more
        of the unit's asked images were misplaced than expected (a Beta posterior of `UNIT_STRENGTH` answers). An image
        that is a unit by itself is where that is."""
        if self.units.sizes[unit] == 1:
            return 0.0
        expected = float(self.share[self.asked[unit]].sum()) if self.asked[unit] else 0.0
        prior = float(self.prior[unit])
        rate = (prior + float(self.misplaced[unit])) / (prior + expected)
        return min(_MOST_MISPLACED, float(self.share[image]) * rate)

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
            similarity = self.similarity(np.array([unit]), rows)[0]
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
