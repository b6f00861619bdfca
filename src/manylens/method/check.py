"""Stages 3 to 5: the agents' questions. Found clusters, tell them apart, place units, find misplaced images.

In: units, and a writer's categories where there are some. Out: a `Sorting` with all answers in it. Promise: pure;
rounds of choices out, answers in. A question is asked while the pictures that it is expected to put right exceed its
price, so a round's questions stand in falling order of that number and a budget cuts off the least useful ones.

A round asks, of each unit: where does it belong (its surest image), which of its images are not where it is (the least
sure first, else a seeded random part of them), and of images whose answers leave doubt, once more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from manylens.method.likelihood import pays_to_ask
from manylens.method.observations import seeded_share, spoken
from manylens.method.questions import Answer, Choice, Question, Steps
from manylens.method.sorting import NO_ANSWER, NONE, Cluster, Sorting

_SEEDS = 20
_FEWEST_AT_ONCE = 8
_MOST_ROUNDS = 200
_MOST_ASKED = 4
"""How often one image is asked about at the most: what is in doubt after that is in doubt."""

_EXEMPLARS_COMPARED = 3
_LEAST_SHARE = 0.01
_UNHURRIED, _GROWTH = 2000, 8
"""From so many answers on a round may ask about an eighth as many units as are answered: with as many as there are
clusters, a million images took ten thousand rounds."""

_BLOCK = 1024
_GUESS = 0.5
"""Below this probability, likeness alone puts no description that images share into a cluster."""


class Check:
    """One interest's questions. seed: of all randomness, with the images' ids. closed: whether clusters are given.
    earlier: of the images, how many are of earlier runs, which had their random sample."""

    def __init__(self, sorting: Sorting, seed: int, closed: bool = False, earlier: int = 0) -> None:
        self.sorting, self.seed, self.closed, self.earlier = sorting, seed, closed, earlier
        self.spent = False
        self._waiting = np.zeros(0, dtype=np.int64)
        self._founders: set[int] = set()
        self._in_part: dict[int, list[int]] = {}

    # The whole of it

    def run(self, compare_first: bool = True) -> Steps[None]:
        """Ask until no question is worth its price. compare_first: whether the clusters that are there may be one."""
        sorting = self.sorting
        new = sorting.live() if compare_first and not self.closed else []
        compared_at_the_end, sampled = self.closed, False
        for _ in range(_MOST_ROUNDS):
            sorting.refresh()
            if new:
                yield from self.compare(new)
                sorting.refresh()
            new = [] if self.closed or self.spent else self._found()
            if new:
                continue
            questions = [] if self.spent else self.worthwhile()
            if questions:
                yield from self.ask(questions)
                sorting.fit()
            elif not self.closed and not self.spent and (new := self._found_unasked()):
                continue
            elif not compared_at_the_end and not self.spent:
                compared_at_the_end = True
                new = self._small()
            elif not sampled and not self.spent:
                sampled = True
                yield from self._sample()
            else:
                break
        if self.spent and not self.closed:
            self.settle_rest()

    def _small(self) -> list[int]:
        """Clusters of less than half the mean size: what is redundant and was overlooked is mostly small."""
        sorting = self.sorting
        half = float(sorting.weight.sum()) / max(1, len(sorting.row)) / 2
        return [cluster for cluster in sorting.live() if sorting.weight[sorting.row[cluster]] < half]

    def _sample(self) -> Steps[None]:
        """Ask about a random part of the images that nothing else was asked about: what they show, the others would.
        Pictures that come in parts get as many questions together as all of them at once."""
        sorting = self.sorting
        ids = sorting.looks.image_ids
        places = sorting.places()
        closed = [*sorting.answers, *sorting.unanswered]
        places[closed] = NONE
        unasked = np.flatnonzero(places != NONE).tolist()
        drawn = sorted(unasked, key=lambda image: seeded_share(self.seed, "sample", ids[image]))
        drawn = drawn[: _sample_of(len(ids)) - _sample_of(self.earlier)]
        for image in drawn:
            sorting.sampled[image] = (sorting.cluster_of(image), 1 - sorting.probability(image))
        options = sorting.options(sorting.units.of_image[drawn])
        yield from self.ask(list(zip(drawn, options, strict=True)))

    def ask(self, questions: Sequence[tuple[int, Sequence[int]]]) -> Steps[list[int | None]]:
        """Put (image, clusters) questions, learn the answers; the clusters chosen, None where there is no answer."""
        sorting = self.sorting
        put: list[Question] = []
        shown: list[list[int]] = []
        for image, clusters in questions:
            turn = len(sorting.answers.get(image, ()))
            image_id = sorting.looks.image_ids[image]
            options = sorted(clusters, key=lambda c: (seeded_share(self.seed, "order", image_id, f"{turn} {c}"), c))
            shown.append(options)
            put.append(Choice(image, tuple(sorting.state(c, without=image) for c in options)))
        answers = yield put
        chosen: list[int | None] = []
        for (image, _), options, answer in zip(questions, shown, answers, strict=True):
            chosen.append(self._learn(image, options, answer))
        return chosen

    def _learn(self, image: int, options: Sequence[int], answer: Answer) -> int | None:
        self.spent = self.spent or answer.spent
        if not answer.probabilities:
            if not answer.spent:
                self.sorting.unanswered.add(image)
            return None
        self.sorting.learn(image, options, answer.probabilities, answer.reason)
        at = answer.chosen
        return NONE if at is None else options[at]

    # Clusters

    def seed_clusters(self, categories: Sequence[str] = ()) -> None:
        """The first clusters: a category's largest unit where a writer made categories, else large units, unlike each
        other. categories: their names."""
        sorting = self.sorting
        by_size = sorted(range(len(sorting.units)), key=lambda unit: (-int(sorting.units.sizes[unit]), unit))
        if (sorting.category >= 0).any():
            first: dict[int, int] = {}
            for unit in by_size:
                category = int(sorting.category[unit])
                if category >= 0 and category not in first:
                    first[category] = self._found_by(unit)
                    sorting.clusters[first[category]].name = categories[category] if categories else ""
                elif category >= 0:
                    sorting.place[unit] = first[category]
            return
        seeds: list[int] = []
        for unit in [unit for unit in by_size[:_SEEDS] if sorting.category[unit] != NO_ANSWER]:
            is_kind = sorting.units.sizes[unit] > 1 or not seeds
            if is_kind and not any(sorting.alike(unit, seed) for seed in seeds):
                seeds.append(unit)
                self._found_by(unit)

    def settle_unasked(self) -> None:
        """Where the judge tells nothing: a writer's categories stand, else every description that images share."""
        sorting = self.sorting
        cluster_of = {sorting.clusters[cluster].category: cluster for cluster in sorting.live()}
        for unit in np.flatnonzero(sorting.category >= 0).tolist():
            sorting.place[unit] = cluster_of.get(int(sorting.category[unit]), NONE)
        if not (self.closed or (sorting.category >= 0).any()):
            for unit in range(len(sorting.units)):
                if (
                    sorting.units.sizes[unit] > 1
                    and sorting.category[unit] != NO_ANSWER
                    and not sorting.is_founder(unit)
                ):
                    self._found_by(unit)
            sorting.refresh()
        sorting.settle()

    def settle_rest(self) -> None:
        """Where the budget ends first: images that share a description, and are in no cluster or more likely in none
        than where likeness alone put them, are one by themselves."""
        sorting = self.sorting
        for unit in range(len(sorting.units)):
            is_kind = sorting.units.sizes[unit] > 1 and sorting.category[unit] != NO_ANSWER
            is_guess = not sorting.asked[unit] and sorting.sure[unit] < _GUESS
            if is_kind and not sorting.is_founder(unit) and (sorting.place[unit] == NONE or is_guess):
                self._found_by(unit)
        sorting.refresh()

    def _found_by(self, unit: int) -> int:
        self._founders.add(unit)
        sorting = self.sorting
        name = spoken(sorting.looks, sorting.units.members[unit].tolist(), sorting.units.words[unit])
        return sorting.add(Cluster(unit, name, category=int(sorting.category[unit])))

    def _found(self) -> list[int]:
        """Units that belong to no cluster found new ones: the largest first, no more at once than half of what there
        is, unlike each other. An image alone of its description does so only where another one is like it."""
        sorting = self.sorting
        sizes = sorting.units.sizes
        wanting = [u for u in sorting.wanting if sorting.category[u] != NO_ANSWER and u not in self._founders]
        largest_in_doubt = max((int(sizes[unit]) for unit in wanting if not sorting.is_settled(unit)), default=0)
        settled = sorted(
            (unit for unit in wanting if sorting.is_settled(unit)), key=lambda unit: (-int(sizes[unit]), unit)
        )
        others = np.unique(np.concatenate([np.array(settled, dtype=np.int64), self._waiting]))
        large = [unit for unit in settled if sizes[unit] >= largest_in_doubt]
        return self._found_unlike(large, others, max(1, len(sorting.live()) // 2))

    def _found_unlike(self, units: Sequence[int], others: NDArray[np.int64], most: int) -> list[int]:
        """At most so many clusters founded by these units in their order, unlike each other; an image alone of its
        description founds none where none of the others is like it."""
        sorting = self.sorting
        made: list[int] = []
        for unit, is_alone in self._with_likeness(units, others):
            if len(made) >= most:
                break
            if not is_alone and not any(sorting.alike(unit, sorting.clusters[cluster].founder) for cluster in made):
                made.append(self._found_by(unit))
        return made

    def _with_likeness(self, units: Sequence[int], others: NDArray[np.int64]) -> Iterator[tuple[int, bool]]:
        """Each unit, and whether it is an image alone of its description with no other one, of these, like it. others:
        distinct, with the units."""
        sorting = self.sorting
        for start in range(0, len(units), _BLOCK):
            block = np.array(units[start : start + _BLOCK], dtype=np.int64)
            is_alone = sorting.units.sizes[block] == 1
            like = np.zeros(int(is_alone.sum()), dtype=np.int64)
            if len(like):
                for left in range(0, len(others), _BLOCK * 16):
                    like += sorting.like(block[is_alone], others[left : left + _BLOCK * 16]).sum(axis=1)
            is_alone[is_alone] = like <= 1  # it is like itself
            yield from zip(block.tolist(), is_alone.tolist(), strict=True)

    def _found_unasked(self) -> list[int]:
        """Units that so surely belong to no cluster that nobody was asked about them found some: the largest first, no
        more at once than half of what there is, unlike each other. A single image does where another such one is like
        it."""
        sorting = self.sorting
        loose = np.flatnonzero((sorting.place == NONE) & (sorting.category != NO_ANSWER))
        unasked = loose[sorting.count_asked()[loose] == 0].tolist()
        open_units = [unit for unit in unasked if unit not in self._founders and self._fresh(unit)]
        open_units.sort(key=lambda unit: (-int(sorting.units.sizes[unit]), unit))
        return self._found_unlike(open_units, loose, max(_FEWEST_AT_ONCE, len(sorting.live()) // 2))

    def compare(self, clusters: Sequence[int]) -> Steps[None]:
        """The global agent: are these clusters kinds of their own? Exemplars of each choose among the others. A cluster
        none of whose exemplars says "none of them" is joined to the one that most of them chose."""
        sorting = self.sorting
        votes: dict[int, list[int | None]] = {cluster: [] for cluster in clusters}
        for turn in range(_EXEMPLARS_COMPARED):
            asked = [c for c in clusters if len(votes[c]) == turn and NONE not in votes[c] and None not in votes[c]]
            questions = []
            near = sorting.nearest(np.array([sorting.clusters[c].founder for c in asked], dtype=np.int64))[0]
            for cluster, rows in zip(asked, near, strict=True):
                exemplars = [i for i in sorting.state(cluster).exemplars if i not in sorting.unanswered]
                others = [c for c in sorting.live_clusters[rows].tolist() if c != cluster]
                if exemplars and others:
                    questions.append((exemplars[turn % len(exemplars)], others))
                else:
                    votes[cluster].append(NONE)
            chosen = yield from self.ask(questions)
            for cluster, answer in zip([c for c in asked if len(votes[c]) == turn], chosen, strict=True):
                votes[cluster].append(answer)
        for cluster, said in votes.items():
            others_said = [sorting.root(c) for c in said if c is not None and c != NONE]
            if len(others_said) == _EXEMPLARS_COMPARED:
                sizes = {c: float(sorting.weight[sorting.row[c]]) for c in others_said if c in sorting.row}
                sorting.join(cluster, max(others_said, key=lambda c: (others_said.count(c), sizes.get(c, 0.0), -c)))

    # Units and images

    def worthwhile(self) -> list[tuple[int, list[int]]]:
        """(image, clusters) of all questions worth asking now, the most useful first."""
        sorting = self.sorting
        found: list[tuple[float, int, int]] = []  # (-pictures expected to be put right, image, unit)
        counts, sizes = sorting.count_asked(), sorting.units.sizes
        rest = sizes - counts
        gains = sorting.reliability * (1 - sorting.sure) * rest
        pays = (rest > 0) & (gains >= sorting.price)
        for unit in np.flatnonzero(pays & (counts > 0)).tolist():
            found += [(-float(gains[unit]), image, unit) for image in self._fresh(unit)[:1]]
        for unit in np.flatnonzero((rest > 0) & (sizes > 1) & ~pays).tolist():
            suspects = np.array(self._suspects(unit), dtype=np.int64)
            shares = sorting.shares_of(suspects, np.full(len(suspects), unit))
            found += [(-share, image, unit) for share, image in zip(shares.tolist(), suspects.tolist(), strict=True)]
        images = np.fromiter(sorting.image_sure, np.int64, len(sorting.image_sure))
        doubts = sorting.reliability * (1 - np.fromiter(sorting.image_sure.values(), np.float64, len(images)))
        for at in np.flatnonzero(doubts >= sorting.price).tolist():
            image = int(images[at])
            if image not in sorting.unanswered and len(sorting.answers[image]) < _MOST_ASKED:
                found.append((-float(doubts[at]), image, int(sorting.units.of_image[image])))
        for unit in self._admitted(np.flatnonzero(pays & (counts == 0))).tolist():
            found += [(-float(gains[unit]), image, unit) for image in self._fresh(unit)[:1]]
        told = sorted(image for image in sorting.told if image not in sorting.answers)
        found += [(-math.inf, image, int(sorting.units.of_image[image])) for image in told]
        units = np.array(list(dict.fromkeys(unit for _, _, unit in found)), dtype=np.int64)
        options = dict(zip(units.tolist(), sorting.options(units), strict=True))
        return [(image, options[unit]) for _, image, unit in sorted(found) if options[unit]]

    def _fresh(self, unit: int) -> list[int]:
        """Images of a unit that were not asked about, the surest first."""
        sorting = self.sorting
        done, failed = set(sorting.asked[unit]), sorting.unanswered
        return [image for image in sorting.units.members[unit].tolist() if image not in done and image not in failed]

    def _admitted(self, held: NDArray[np.int64]) -> NDArray[np.int64]:
        """Units not asked before: the largest, and those that probably belong to a cluster there is; at most as many
        of either as there are clusters, or more where very many are answered. The others wait until there is a cluster
        that they are like. held: those for which asking pays."""
        sorting = self.sorting
        many = max(_FEWEST_AT_ONCE, len(sorting.live()), (len(sorting.answers) - _UNHURRIED) // _GROWTH)
        waits = sorting.place[held] == NONE
        self._waiting = held[waits]
        by_size = np.lexsort((held, waits, -sorting.units.sizes[held]))
        known = by_size[~waits[by_size]]
        both = np.concatenate([by_size[: max(_FEWEST_AT_ONCE, many // 2)], known[:many]])
        return held[list(dict.fromkeys(both.tolist()))]

    def _suspects(self, unit: int) -> list[int]:
        """Images of a placed unit that are worth asking about: those so unlikely to be where it is that the answer
        alone pays; else, while sharpening the unit's posterior pays, a random part of them."""
        sorting = self.sorting
        fresh = self._fresh(unit)
        if not fresh:
            return []
        asked = sorting.asked[unit]
        worth = sorting.reliability * sorting.sure[unit]
        last = np.array(fresh[-_FEWEST_AT_ONCE:])
        if sorting.shares_of(last, np.full(len(last), unit)).max() * worth >= sorting.price:
            every = np.array(fresh[::-1])
            suspects = every[sorting.shares_of(every, np.full(len(every), unit)) * worth >= sorting.price]
            return [int(image) for image in suspects[: max(2, len(asked))]]
        mean = max(_LEAST_SHARE, float(sorting.share[fresh].mean()))
        # Answers count by how many misplaced images were to be expected among them.
        count = round(float(sorting.share[asked].sum()) / mean) if asked else 0
        wrong = min(round(float(sorting.misplaced[unit])), count)
        strength = max(0.5, round(float(sorting.prior[unit]) / mean, 1))
        others = len(fresh) + count + int(sorting.coming[unit])  # all of them profit from what is learned
        table = pays_to_ask(round(mean, 2), strength, round(sorting.price / worth, 2), others)
        if count >= len(table) or not table[count][wrong]:
            return []
        if unit not in self._in_part:
            ids = sorting.looks.image_ids
            members = sorting.units.members[unit].tolist()
            self._in_part[unit] = sorted(members, key=lambda image: seeded_share(self.seed, "part", ids[image]))
        left = set(fresh)
        return list(islice((image for image in self._in_part[unit] if image in left), max(1, len(asked))))


def _sample_of(images: int) -> int:
    """A third of n^(2/3): 34 of 1,000 and 3,334 of a million."""
    power: float = images ** (2 / 3)
    return math.ceil(power / 3)
