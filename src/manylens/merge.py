"""Stage 4, merge: a global agent joins the clusters that components and walks over-split, and so finds K.

In: drafts. Out: fewer drafts over the same images. Promise: pure (rounds of questions out, answers in); joined clusters
are closed under transitivity (union-find), and a refusal between two clusters binds what they become.

A merge moves many images at once, so it is a sequential test (Wald's SPRT), not one answer: each cluster's exemplars
are judged against the other's definition, in turn, and the evidence must grow with the sizes joined. Questions are
O(M log M): first the clusters of equal majority description, pairwise as in a tournament (M - 1 joins); then, per
cluster, its about log2 M nearest of another description, most of them refused by their first answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from manylens.evidence import (
    Answer,
    Ask,
    Draft,
    Looks,
    Profile,
    Question,
    Steps,
    centroid,
    draw_profile,
    log_odds,
    typicality,
)
from manylens.records import Settings

_SURE = math.log(0.95 / 0.05)
"""One answer moves the log-odds by at most this: an answer is taken to be wrong at least once in 20, whatever
probability the judge claims."""

_PRIOR_EQUAL = math.log(9)
_PRIOR_CLOSE = -0.2  # centroids as close as images are to their own: one false no must not keep synonyms apart
_PRIOR_OVERLAP = -2.0
_PRIOR_OTHER = -3.0
_REFUSE_AT = -3.2
_JOIN_EQUAL_AT = 1.0  # equal descriptions against which the answers, all in all, say little

_FRUITLESS = 4
"""Answers after which a test that has not moved is given up: the judge cannot tell."""

_OUTGROWN = 4
"""A refusal binds until both clusters are more than this many times the smaller one it was about: what was said of
two single images decides nothing about two hundred."""

_STAND_ALONE = 24
"""A small cluster of a description of its own meets at most this many large ones before it stands alone; all of them
together put at most one question per eight images."""

_CLEAR_REFUSALS = 3
"""After this many clear refusals a cluster's further neighbours, all of them farther away, are not asked about."""


@dataclass(slots=True)
class Pair:
    """Two clusters under test. log_odds: that they are one; answers: how many there were; spent: the budget was."""

    one: int
    other: int
    log_odds: float
    equal: bool
    prior: float = field(init=False)
    small: bool = False
    answers: int = 0
    asked: int = 0
    spent: bool = False

    def __post_init__(self) -> None:
        self.prior = self.log_odds

    @property
    def is_fruitless(self) -> bool:
        return self.answers >= _FRUITLESS and abs(self.log_odds - self.prior) < 1


@dataclass(slots=True)
class Merger:
    """Union-find over drafts, with the refusals between roots."""

    looks: Looks
    settings: Settings
    sees_exemplars: bool = True
    drafts: dict[int, Draft] = field(default_factory=dict)
    parents: dict[int, int] = field(default_factory=dict)
    barred: dict[int, dict[int, int]] = field(default_factory=dict)  # -> images of the smaller side at the refusal
    profiles: dict[int, Profile] = field(default_factory=dict)
    clear_refusals: dict[int, int] = field(default_factory=dict)

    def most_turns(self, pair: Pair) -> int:
        """How many exemplars of each side are asked about. A judge who sees no exemplars knows a cluster by its name:
        where the names differ, what it mistakes once it mistakes for every image of the kind, and that counts once."""
        return self.settings.merge_answers if pair.equal or self.sees_exemplars else 1

    def root(self, cluster: int) -> int:
        while self.parents[cluster] != cluster:
            self.parents[cluster] = self.parents[self.parents[cluster]]
            cluster = self.parents[cluster]
        return cluster

    def profile(self, cluster: int) -> Profile:
        if cluster not in self.profiles:
            exemplars = max(self.settings.exemplars, self.settings.merge_answers)
            self.profiles[cluster] = draw_profile(self.looks, self.drafts[cluster].members, exemplars)
        return self.profiles[cluster]

    def refuse(self, one: int, other: int, size: int) -> None:
        size = max(size, self.barred[one].get(other, 0))
        self.barred[one][other] = self.barred[other][one] = size

    def is_barred(self, one: int, other: int) -> bool:
        smaller = min(self.drafts[one].size, self.drafts[other].size)
        return smaller <= _OUTGROWN * self.barred[one].get(other, 0)

    def size_of_smaller(self, pair: Pair) -> int:
        return min(self.drafts[pair.one].size, self.drafts[pair.other].size)

    def join(self, one: int, other: int) -> None:
        """The larger takes the smaller in (ties: the lower number) and inherits its refusals."""
        winner, loser = sorted((one, other), key=lambda c: (-self.drafts[c].size, c))
        kept, gone = self.drafts[winner], self.drafts.pop(loser)
        self.drafts[winner] = Draft(kept.keys | gone.keys, {**kept.members, **gone.members})
        self.parents[loser] = winner
        for neighbour, size in self.barred.pop(loser).items():
            del self.barred[neighbour][loser]
            if neighbour != winner:  # an outgrown refusal between the two themselves
                self.refuse(winner, neighbour, size)
        self.clear_refusals[winner] = max(self.clear_refusals[winner], self.clear_refusals.pop(loser))
        self.profiles.pop(winner, None)
        self.profiles.pop(loser, None)


def merge_clusters(
    looks: Looks, drafts: Sequence[Draft], settings: Settings, sees_exemplars: bool = True
) -> Steps[list[Draft]]:
    """Join redundant clusters (the paper's global agent): of equal description first, then near ones, and at the end
    clusters of at most `small_cluster` images with the large one nearest to each."""
    merger = Merger(looks, settings, sees_exemplars)
    for number, draft in enumerate(drafts):
        merger.drafts[number] = draft
        merger.parents[number] = number
        merger.barred[number] = {}
        merger.clear_refusals[number] = 0
    yield from _judge_pairs(merger, _equal_pairs(merger))
    # Small clusters that have become large by joining each other now meet the large ones of their description.
    yield from _judge_pairs(merger, _equal_pairs(merger))
    yield from _judge_pairs(merger, _near_pairs(merger))
    yield from _judge_pairs(merger, _small_pairs(merger))
    return [merger.drafts[cluster] for cluster in sorted(merger.drafts)]


def _equal_pairs(merger: Merger) -> list[Pair]:
    """Pairs of equal description, enough to join a group in rounds: each with the next, the second next, the fourth...

    A small cluster is not paired with a large one here: the large one refused its images when they were offered.
    """
    groups: dict[tuple[str, bool], list[int]] = {}
    for cluster in sorted(merger.drafts, key=lambda c: (-merger.drafts[c].size, c)):
        words = merger.profile(cluster).words
        if words:
            groups.setdefault((words, merger.drafts[cluster].size > merger.settings.small_cluster), []).append(cluster)
    pairs: list[tuple[int, int, Pair]] = []
    for _, group in sorted(groups.items()):
        for low in range(len(group)):
            step = 1
            while low + step < len(group):
                pairs.append((step, low, Pair(group[low], group[low + step], _PRIOR_EQUAL, equal=True)))
                step *= 2
    return [pair for _, _, pair in sorted(pairs, key=lambda entry: (entry[0], entry[1], entry[2].one))]


def _near_pairs(merger: Merger) -> list[Pair]:
    """Per large cluster, its about log2 M nearest of another description by shared words, and as many by centroid."""
    large = [c for c in sorted(merger.drafts) if merger.drafts[c].size > merger.settings.small_cluster]
    if len(large) < 2:
        return []
    centroids = np.array([centroid(merger.looks, merger.drafts[c].members) for c in large])
    cohesion = [float(np.mean(typicality(merger.looks, sorted(merger.drafts[c].members)))) for c in large]
    per_cluster = max(2, math.ceil(math.log2(len(large))))
    all_words = [merger.profile(c).words for c in large]
    codes = {words: code for code, words in enumerate(dict.fromkeys(all_words))}
    kinds = np.array([codes[words] for words in all_words])
    overlap_with = _overlaps(all_words)
    found: dict[tuple[int, int], tuple[float, float, Pair]] = {}
    # Row by row: at M = 10,000 the whole table of similarities would take 800 MB.
    for row, cluster in enumerate(large):
        similarity = np.round(centroids @ centroids[row], 6)
        overlaps = overlap_with(row)
        others = np.flatnonzero(kinds != kinds[row]) if all_words[row] else np.delete(np.arange(len(large)), row)
        by_centroid = _first(per_cluster, others, -similarity[others])
        worded = others[overlaps[others] > 0]
        by_words = _first(per_cluster, worded, -overlaps[worded], -similarity[worded])
        for k in {*by_centroid, *by_words}:
            one, other = min(cluster, large[k]), max(cluster, large[k])
            close = similarity[k] >= min(cohesion[row], cohesion[k])
            prior = _PRIOR_CLOSE if close else _PRIOR_OVERLAP if overlaps[k] > 0 else _PRIOR_OTHER
            found[one, other] = (-float(overlaps[k]), -float(similarity[k]), Pair(one, other, prior, equal=False))
    return [found[key][2] for key in sorted(found, key=lambda key: (*found[key][:2], key))]


def _overlaps(all_words: Sequence[str]) -> Callable[[int], NDArray[np.float64]]:
    """row -> the Jaccard overlap of its words with everybody's, (M,), as `token_overlap` but by an inverted index."""
    tokens = [set(words.split()) for words in all_words]
    sizes = np.array([len(own) for own in tokens])
    places: dict[str, list[int]] = {}
    for row, own in enumerate(tokens):
        for token in own:
            places.setdefault(token, []).append(row)
    index = {token: np.array(rows) for token, rows in places.items()}

    def overlap_with(row: int) -> NDArray[np.float64]:
        common = np.zeros(len(tokens))
        for token in tokens[row]:
            common[index[token]] += 1
        overlaps: NDArray[np.float64] = common / np.maximum(sizes + sizes[row] - common, 1)
        return overlaps

    return overlap_with


def _first(count: int, items: NDArray[np.int64], *keys: NDArray[np.float64]) -> list[int]:
    """The `count` items of the lowest keys (the first key decides, then the next, then the item)."""
    if len(items) > count:
        within = keys[0] <= np.partition(keys[0], count - 1)[count - 1]
        items, keys = items[within], tuple(key[within] for key in keys)
    return [int(item) for item in items[np.lexsort((items, *reversed(keys)))][:count]]


def _small_pairs(merger: Merger) -> list[Pair]:
    """Small clusters of two or more whose description no large one has, each with its nearest large ones. A few images
    wrongly described alike look like a kind of their own until the cluster they belong to has been asked."""
    large = [c for c in sorted(merger.drafts) if merger.drafts[c].size > merger.settings.small_cluster]
    named = {merger.profile(c).words for c in large}
    small = [
        c
        for c in sorted(merger.drafts)
        if 2 <= merger.drafts[c].size <= merger.settings.small_cluster and merger.profile(c).words not in named
    ]
    if not large or not small:
        return []
    centroids = np.array([centroid(merger.looks, merger.drafts[c].members) for c in large])
    ranked: list[tuple[int, int, Pair]] = []
    for cluster in small:
        similarity = np.round(centroids @ centroid(merger.looks, merger.drafts[cluster].members), 6)
        nearest = sorted(range(len(large)), key=lambda k: (-similarity[k], k))[:_STAND_ALONE]
        for rank, k in enumerate(nearest):
            ranked.append((rank, cluster, Pair(cluster, large[k], _PRIOR_OTHER, equal=False, small=True)))
    affordable = max(_STAND_ALONE, len(merger.looks) // 8)
    return [pair for _, _, pair in sorted(ranked, key=lambda entry: entry[:2])[:affordable]]


def _judge_pairs(merger: Merger, pairs: Sequence[Pair]) -> Steps[None]:
    """Test the pairs in order, as many at once as have no cluster in common (a later answer may depend on a join)."""
    waiting = list(pairs)
    while waiting:
        busy: set[int] = set()
        active: list[Pair] = []
        later: list[Pair] = []
        for pair in waiting:
            one, other = merger.root(pair.one), merger.root(pair.other)
            if one == other or merger.is_barred(one, other):
                continue
            if _is_settled(merger, pair, one, other):
                continue
            if one in busy or other in busy:
                later.append(pair)
                continue
            busy.update((one, other))
            pair.one, pair.other = one, other
            active.append(pair)
        yield from _test(merger, active)
        waiting = later


def _is_settled(merger: Merger, pair: Pair, one: int, other: int) -> bool:
    """Whether refusals so far make it pointless to ask. Of equal descriptions only small clusters give up: they are
    images wrongly described; of small clusters before they stand alone, none."""
    small = merger.settings.small_cluster
    refusals = [
        merger.clear_refusals[cluster]
        for cluster in (one, other)
        if not pair.small and (not pair.equal or merger.drafts[cluster].size <= small)
    ]
    return max(refusals, default=0) >= _CLEAR_REFUSALS


def _test(merger: Merger, pairs: Sequence[Pair]) -> Steps[None]:
    """Run the sequential tests of disjoint pairs side by side until each is decided."""
    open_pairs = list(pairs)
    while open_pairs:
        questions: list[Question] = []
        spans: list[tuple[Pair, int]] = []
        for pair in open_pairs:
            put = _next_questions(merger, pair)
            questions += put
            spans.append((pair, len(put)))
        answers = (yield Ask(questions)) if questions else ()
        start = 0
        still_open: list[Pair] = []
        for pair, count in spans:
            for answer in answers[start : start + count]:
                _weigh(pair, answer)
            start += count
            if not _decide(merger, pair, exhausted=count == 0):
                still_open.append(pair)
        open_pairs = still_open


def _next_questions(merger: Merger, pair: Pair) -> list[Question]:
    """The next exemplar of the smaller against the larger's definition, then the other way round; both at once for
    equal descriptions where one more yes is not enough."""
    small, large = sorted((pair.one, pair.other), key=lambda c: (merger.drafts[c].size, c))
    questions: list[Question] = []
    both = pair.equal and _accept_at(merger, pair) - pair.log_odds > _SURE
    for _ in range(2 if both else 1):
        while pair.asked < 2 * merger.most_turns(pair):
            turn, backwards = divmod(pair.asked, 2)
            pair.asked += 1
            source, target = (large, small) if backwards else (small, large)
            exemplars = merger.profile(source).exemplars
            if turn < len(exemplars):
                profile = merger.profile(target)
                shown = replace(profile, exemplars=profile.exemplars[: merger.settings.exemplars])
                questions.append(Question(shown, exemplars[turn]))
                break
    return questions


def _weigh(pair: Pair, answer: Answer) -> None:
    pair.spent = pair.spent or answer.spent
    if answer.probability is None:
        return
    pair.log_odds += min(max(log_odds(answer.probability, 1e-6), -_SURE), _SURE)
    pair.answers += 1


def _accept_at(merger: Merger, pair: Pair) -> float:
    """The log-odds a join needs: 20 to 1, times the images that a wrong join would misplace."""
    return math.log(20) + math.log(merger.size_of_smaller(pair))


def _decide(merger: Merger, pair: Pair, *, exhausted: bool) -> bool:
    accept_at = _accept_at(merger, pair)
    if exhausted or pair.is_fruitless:
        joined = pair.log_odds >= (_JOIN_EQUAL_AT if pair.equal else min(accept_at, _SURE))
        if pair.answers == 0:
            # Nobody answered, so descriptions alone speak: of whole clusters, or of anything once the budget is spent.
            small = merger.size_of_smaller(pair) <= merger.settings.small_cluster
            joined = pair.equal and (pair.spent or not small)
    elif pair.log_odds >= accept_at:
        joined = True
    elif pair.log_odds <= _REFUSE_AT:
        joined = False
    else:
        return False
    if joined:
        merger.join(pair.one, pair.other)
    else:
        merger.refuse(pair.one, pair.other, merger.size_of_smaller(pair))
        if pair.log_odds <= _REFUSE_AT and not pair.small:
            for cluster in (pair.one, pair.other):
                merger.clear_refusals[cluster] += 1
    return True
