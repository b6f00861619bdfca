"""Stage 3, the walks: one agent per connected component grows clusters over the relational graph.

In: looks, the graph, one component's images. Out: drafts that hold every image of the component exactly once.
Promise: pure. The agent yields rounds of questions and is sent answers, so the pipeline asks for all components at
once. Nothing depends on the order of calls: audits are chosen by a seeded hash.

A candidate of the cluster's own description is accepted unasked (audited trust) where its edge and its look's
confidence make it probable enough (`trust_weight`). So is one of a description that this cluster was asked about before
and nearly always accepted: answers about a few stand for the rest. A description it nearly always refused is left to
others.
An image of another description that has a neighbour of its own description at least as close is left to that one:
where such images were asked about, 98% of the answers were no. An image that joins with another description is on
probation: it may lead to two candidates, and only when one of them is accepted does it open the rest. So one wrong
admission cannot open a neighbouring cluster.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from manylens.evidence import (
    Answer,
    Ask,
    Draft,
    Looks,
    Profile,
    Question,
    Standing,
    Steps,
    alike,
    belonging,
    draw_profile,
    prefer_own_kind,
    seeded_share,
)
from manylens.records import Settings

QUESTIONS_PER_ROUND = 32
"""Questions one agent puts at once. A young cluster, whose definition still moves, puts four, then twice its size."""

_WITNESSES = 3
"""A failed audit withdraws the trust since the last good one: this many of those images, the latest, are asked first.
Where all are accepted the audited image was wrong by itself and the rest stand; else the rest are asked, too."""

_PRECEDENTS = 3
_CONSISTENT = 9
"""So many answers about a description, nine in ten of them alike, decide the rest of it for this cluster."""

_STRANGERS = 12
_PROBES = 2
_HOPELESS = 4


@dataclass(slots=True)
class Walked:
    """What one agent found. drafts: a partition of the component. refused: image -> keys of clusters that refused it.
    trusted: acceptances that stand unasked; audits, audits_failed: trusted candidates asked all the same."""

    drafts: list[Draft] = field(default_factory=list)
    refused: dict[int, set[int]] = field(default_factory=dict)
    trusted: int = 0
    audits: int = 0
    audits_failed: int = 0
    audits_by_cluster: list[tuple[int, int]] = field(default_factory=list)
    """(audits, those that failed) of each cluster that had any."""
    strangers: list[int] = field(default_factory=lambda: [0, 0])
    """Answers no, yes about candidates of another description than the cluster's, where several images use it."""
    doubted: set[int] = field(default_factory=set)
    """Images refused by a cluster of their own description: equal words are no ground to trust them any more."""

    def add_audits(self, trusted: int, audits: Sequence[tuple[int, int]]) -> None:
        self.trusted += trusted
        self.audits += sum(asked for asked, _ in audits)
        self.audits_failed += sum(failed for _, failed in audits)
        self.audits_by_cluster += audits


class Surroundings:
    """The graph as the agents read it: a node's neighbours, weighted degree, and what descriptions say of it."""

    def __init__(
        self,
        looks: Looks,
        indptr: NDArray[np.int64],
        indices: NDArray[np.int32],
        weights: NDArray[np.float32],
        degrees: NDArray[np.float64],
    ) -> None:
        self.looks = looks
        self.degrees = degrees
        self._indptr, self._indices, self._weights = indptr, indices, weights
        codes = {words: code for code, words in enumerate(dict.fromkeys(looks.words)) if words}
        of_node = np.array([codes.get(words, -1) for words in looks.words], dtype=np.int64)
        rows = np.repeat(np.arange(len(looks)), np.diff(indptr))
        equal = (of_node[rows] == of_node[indices]) & (of_node[rows] >= 0)
        closest = np.zeros(len(looks), dtype=np.float32)
        np.maximum.at(closest, rows[equal], weights[equal])
        self._closest_of_own_kind: list[float] = closest.tolist()

    def neighbours(self, node: int) -> list[tuple[int, float]]:
        span = slice(int(self._indptr[node]), int(self._indptr[node + 1]))
        return list(zip(self._indices[span].tolist(), self._weights[span].tolist(), strict=True))

    def has_closer_kin(self, node: int, weight: float) -> bool:
        """Whether a neighbour of the node's own description is at least this close."""
        return self._closest_of_own_kind[node] >= weight

    def is_outlier(self, node: int) -> bool:
        """Whether nearly all its neighbours agree on a description that is not its own."""
        votes: dict[str, float] = {}
        for neighbour, weight in self.neighbours(node):
            words = self.looks.words[neighbour]
            votes[words] = votes.get(words, 0.0) + weight
        total = sum(votes.values())
        own = votes.get(self.looks.words[node], 0.0)
        return total > 0 and own < 0.1 * total and max(votes.values()) > 0.5 * total


def _log_odds(share: float) -> float:
    return math.log(share / (1 - share)) if share < 1 else math.inf


def walk_component(around: Surroundings, nodes: Sequence[int], settings: Settings) -> Steps[Walked]:
    """Partition one component (the paper's agent walk): seed at the highest weighted degree, grow, repeat."""
    walked = Walked()
    free = set(nodes)
    by_degree = sorted(nodes, key=lambda node: (-around.degrees[node], node))
    postponed: list[int] = []
    for seeds, may_postpone in ((by_degree, True), (postponed, False)):
        for seed in seeds:
            if seed not in free:
                continue
            if may_postpone and len(nodes) > 2 and around.is_outlier(seed):
                postponed.append(seed)
                continue
            growth = _Growth(around, free, seed, settings, walked, len(nodes) - len(free))
            draft = yield from growth.run()
            free.difference_update(draft.members)
            walked.drafts.append(draft)
    return walked


@dataclass(slots=True)
class _Suspense:
    """Trusted images that stand or fall with their witnesses."""

    rest: list[int]
    pending: int
    failed: bool = False


class _Growth:
    """One cluster growing from one seed."""

    def __init__(
        self, around: Surroundings, free: set[int], seed: int, settings: Settings, walked: Walked, done: int
    ) -> None:
        self.around, self.looks, self.settings, self.walked = around, around.looks, settings, walked
        self.free, self.seed, self.done = free, seed, done
        self.members: dict[int, Standing] = {seed: Standing("seed")}
        self.refused: set[int] = set()  # not asked again for this cluster
        self.denied: set[int] = set()  # those of them that a judgement refused; the others got no answer
        self.profile: Profile = draw_profile(self.looks, [seed], settings.exemplars)
        self.stated_at = 1
        # Candidates as (-weight, image, the member that leads to it): strongest first, ties by image.
        self.frontier: list[tuple[float, int, int]] = []
        self.probes: dict[int, int] = {}  # image on probation -> candidates it has led to so far
        self.held: dict[int, list[tuple[float, int, int]]] = {}  # what it may lead to once it is confirmed
        self.must_ask: set[int] = set()  # trust in these was withdrawn
        self.suspense: dict[int, _Suspense] = {}  # witness -> what depends on it
        self.unaudited: list[int] = []  # trusted since the last audit was put
        self.precedents: dict[str, list[int]] = {}  # description -> answers no, yes
        self.audits = self.audits_failed = 0
        self.audited = settings.share_audited(len(around.looks))
        self.trusted_from = _log_odds(settings.trust_weight)
        self._open(seed)

    def run(self) -> Steps[Draft]:
        while True:
            batch = self._next_candidates()
            if not batch:
                break
            questions = [Question(self.profile, candidate) for candidate, _, _ in batch]
            done = self.done + len(self.members)
            answers = yield Ask(questions, done)
            answered = list(zip(questions, answers, strict=True))
            staying = yield from prefer_own_kind(self.looks, answered, self.settings.exemplars, done)
            for (candidate, leader, segment), answer in zip(batch, answers, strict=True):
                accepted = belonging(self.looks, self.profile, candidate, answer) > 0 and candidate not in staying
                self._settle(candidate, leader, segment, answer, accepted)
            self._restate()
            if len(self.members) == 1 and len(self.refused) >= _HOPELESS:
                break  # a seed that resembles nothing around it: its neighbours will seed clusters of their own
        trusted = sum(1 for standing in self.members.values() if standing.decided_by == "trust")
        self.walked.add_audits(trusted, [(self.audits, self.audits_failed)] if self.audits else [])
        for image in self.denied:
            self.walked.refused.setdefault(image, set()).add(self.seed)
            if self.looks.words[image] == self.profile.words:
                self.walked.doubted.add(image)
        return Draft(frozenset({self.seed}), self.members)

    def _next_candidates(self) -> list[tuple[int, int, list[int] | None]]:
        """Accept what is trusted; gather (candidate, leader, segment) to ask. `segment` marks an audit: the trusted
        acceptances since the previous audit, which stand or fall with this one."""
        limit = min(QUESTIONS_PER_ROUND, max(4, 2 * len(self.members)))
        batch: list[tuple[int, int, list[int] | None]] = []
        asked: set[int] = set()
        while self.frontier and len(batch) < limit:
            entry = heapq.heappop(self.frontier)
            weight, candidate, leader = -entry[0], entry[1], entry[2]
            if candidate in self.members or candidate in self.refused or leader not in self.members:
                continue
            if candidate in asked:
                continue
            if self._is_trusted(candidate, weight):
                if not self._is_audited(candidate):
                    self._join(candidate, Standing("trust"))
                    self.unaudited.append(candidate)
                    continue
                segment, self.unaudited = self.unaudited, []
                batch.append((candidate, leader, segment))
            elif self._is_anothers(candidate, weight):
                continue
            elif self._speaks(candidate) < 0 and not self._is_audited(candidate):
                self.refused.add(candidate)
                continue
            elif leader in self.probes and self.probes[leader] >= _PROBES:
                self.held.setdefault(leader, []).append(entry)
                continue
            else:
                if leader in self.probes:
                    self.probes[leader] += 1
                batch.append((candidate, leader, None))
            asked.add(candidate)
        return batch

    def _is_trusted(self, candidate: int, weight: float) -> bool:
        if self.settings.trust_weight == 1:  # an edge's weight may be 1, too
            return False
        if candidate in self.must_ask or candidate in self.walked.doubted or not self.profile.words:
            return False
        if self.looks.words[candidate] != self.profile.words and self._speaks(candidate) <= 0:
            return False
        return _log_odds(weight) + alike(self.looks, candidate) >= self.trusted_from

    def _speaks(self, candidate: int) -> int:
        """What earlier answers about its description say: 1 for, -1 against, 0 where they are few or disagree."""
        no, yes = self.precedents.get(self.looks.words[candidate], (0, 0))
        if no + yes < _PRECEDENTS:
            return 0
        return 1 if yes >= _CONSISTENT * no else -1 if no >= _CONSISTENT * yes else 0

    def _is_anothers(self, candidate: int, weight: float) -> bool:
        words = self.looks.words[candidate]
        if words == self.profile.words or self._is_audited(candidate):
            return False
        no, yes = self.walked.strangers
        refused = no >= max(_STRANGERS, _CONSISTENT * yes) and words in self.looks.repeated
        return self.around.has_closer_kin(candidate, weight) or (refused and self._speaks(candidate) == 0)

    def _is_audited(self, candidate: int) -> bool:
        share = seeded_share(self.settings.seed, self.looks.image_ids[self.seed], self.looks.image_ids[candidate])
        return share < self.audited

    def _settle(self, candidate: int, leader: int, segment: list[int] | None, answer: Answer, accepted: bool) -> None:
        answered = answer.probability is not None
        words = self.looks.words[candidate]
        if answered and words in self.looks.repeated and words != self.profile.words:
            self.precedents.setdefault(words, [0, 0])[accepted] += 1
            self.walked.strangers[accepted] += 1
        if segment is not None and answered:
            self.audits += 1
            if not accepted:
                self.audits_failed += 1
                self._suspend(segment)
        if candidate in self.suspense:
            self._testify(self.suspense.pop(candidate), refused=answered and not accepted)
        if accepted:
            if leader in self.probes:
                self._confirm(leader)
            self._join(candidate, Standing("judge", answer.probability, answer.reason))
        elif segment is not None and not answered:
            # An audit that could not be made says nothing against what would have been accepted without it.
            self._join(candidate, Standing("trust"))
        else:
            self.refused.add(candidate)
            if answered:
                self.denied.add(candidate)

    def _suspend(self, segment: list[int]) -> None:
        witnesses, rest = segment[-_WITNESSES:], segment[:-_WITNESSES]
        suspense = _Suspense(rest, len(witnesses))
        self.suspense.update(dict.fromkeys(witnesses, suspense))
        self._withdraw(witnesses)

    def _testify(self, suspense: _Suspense, refused: bool) -> None:
        suspense.pending -= 1
        suspense.failed = suspense.failed or refused
        if suspense.pending == 0 and suspense.failed:
            self._withdraw(suspense.rest)

    def _withdraw(self, segment: list[int]) -> None:
        for image in segment:
            if image in self.members and self.members[image].decided_by == "trust":
                del self.members[image]
                self.must_ask.add(image)
        for image in segment:
            edges = [(-weight, member) for member, weight in self.around.neighbours(image) if member in self.members]
            if edges:
                weight, leader = min(edges)
                heapq.heappush(self.frontier, (weight, image, leader))

    def _join(self, image: int, standing: Standing) -> None:
        self.members[image] = standing
        if self.looks.words[image] != self.profile.words or not self.profile.words:
            self.probes[image] = 0
        self._open(image)
        self._restate()

    def _open(self, image: int) -> None:
        for neighbour, weight in self.around.neighbours(image):
            if neighbour in self.free and neighbour not in self.members and neighbour not in self.refused:
                heapq.heappush(self.frontier, (-weight, neighbour, image))

    def _confirm(self, image: int) -> None:
        del self.probes[image]
        for entry in self.held.pop(image, ()):
            heapq.heappush(self.frontier, entry)

    def _restate(self) -> None:
        """State the cluster anew whenever its size has doubled: few, stable prompts that a prefix cache can serve."""
        if len(self.members) < 2 * self.stated_at:
            return
        self.stated_at = len(self.members)
        before = self.profile.words
        self.profile = draw_profile(self.looks, self.members, self.settings.exemplars)
        if self.profile.words != before:
            self.precedents.clear()
            for image in [image for image in self.probes if self.looks.words[image] == self.profile.words]:
                self._confirm(image)
