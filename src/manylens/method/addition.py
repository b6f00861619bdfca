"""Images that come later: where they belong among clusters that are there, and which new kinds they bring.

In: all looks, and where the earlier images are. Out: a place for each image that is new. Promise: pure; earlier
placements, names and ids stay. New images are checked as in a run of their own, in which every earlier cluster is one
unit that stays where it is and is not asked about. So a new kind may appear, and no old one can split or vanish.

The check goes on from what was asked before: earlier images of a new one's description that were asked about are in its
unit, with their places as answers. A description that is known to lie in one cluster needs no further question, one
that is known to lie in several is asked about picture by picture. Where no question tells more than a look, words alone
decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from manylens.method.check import Check
from manylens.method.likelihood import ChoiceModel, Lessons, MemberModel, member_features
from manylens.method.observations import REFUSALS, Looks, directions, sum_by_group
from manylens.method.questions import MOST_OPTIONS, Steps
from manylens.method.sorting import NO_ANSWER, NONE, Cluster, Sorting
from manylens.method.walk import EdgeScale, Units, walk
from manylens.settings import Settings
from manylens.types import NO_TOKENS

_MOST_LESSONS = 2000
"""As many answers as a run fits its choice model to."""

_LESSON_ROUNDS = 3

_MOST_BELIEVED = 100
"""Earlier images of one description that are taken for answers: they show the share that is elsewhere to .05."""

RELIABILITY = 0.95
"""As `Sorting` has it."""


@dataclass(frozen=True, slots=True)
class Known:
    """A cluster that is there. images: indices into the looks, exemplars first; empty for a name of a closed list that
    no image has yet."""

    name: str
    definition: str
    images: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ByWords:
    """An image that is where earlier ones of its description are. alike: how many of them there are; there: how many of
    those are in that cluster. cluster: index into the known ones. probability: that it belongs there, too."""

    cluster: int
    there: int
    alike: int
    probability: float


def placed_by_words(looks: Looks, known: Sequence[Known], new: Sequence[int]) -> dict[int, ByWords]:
    """Where no question tells more than a look: new images go where most of those described like them are. A look is
    right as often as it says."""
    counts: dict[str, Counter[int]] = {}
    for number, cluster in enumerate(known):
        for image in cluster.images:
            if looks.words[image]:
                counts.setdefault(looks.words[image], Counter())[number] += 1
    found = {}
    for image in new:
        if here := counts.get(looks.words[image]):
            number, there = min(here.items(), key=lambda entry: (-entry[1], entry[0]))
            sure = (there + 0.5) / (here.total() + 1) * float(looks.confidences[image])
            found[image] = ByWords(number, there, here.total(), sure)
    return found


def evidence_for(
    looks: Looks, pool: Sequence[int], places: Mapping[int, int], shown: Collection[int] = ()
) -> dict[int, int]:
    """Of earlier images with a place, image -> index of a known cluster, those described like one of the pool. shown:
    those that stay with their cluster, for they say what it means. Of one description `_MOST_BELIEVED` at most."""
    wanted = {looks.words[image] for image in pool} - {""}
    taken: Counter[str] = Counter()
    found = {}
    for image in sorted(places):
        words = looks.words[image]
        if words in wanted and image not in shown and taken[words] < _MOST_BELIEVED:
            taken[words] += 1
            found[image] = places[image]
    return found


def lessons_of(
    looks: Looks,
    known: Sequence[Known],
    places: Mapping[int, int],
    edge: EdgeScale,
    reliability: float,
    evidence: Collection[int] = (),
) -> Lessons | None:
    """What earlier images teach whose own answer was the last word on them. places: image -> index into the known ones
    where it is, NONE for in no cluster. None where there are none.

    An image's place stands for its answer, as far as the judge is reliable; the options are the clusters nearest to it,
    as they would be without it. Of the images, the newest run's checks need only a part (`_MOST_LESSONS`). evidence:
    those of which the check itself will find how likely they are elsewhere; they are not counted twice.
    """
    filled = [number for number, cluster in enumerate(known) if cluster.images]
    images = sorted(places, key=lambda image: looks.image_ids[image])[:_MOST_LESSONS]
    if not images or not filled:
        return None
    row_of = {number: row for row, number in enumerate(filled)}
    of_image = np.full(len(looks), NONE, dtype=np.int64)
    for row, number in enumerate(filled):
        of_image[list(known[number].images)] = row
    sums = sum_by_group(looks.embeddings, of_image, len(filled))
    own = np.array([row_of.get(places[image], NONE) for image in images])
    vectors = looks.embeddings[images]
    similarity = vectors @ sums.T / np.maximum(np.linalg.norm(sums, axis=1), 1e-9)
    placed = np.flatnonzero(own != NONE)
    rest = sums[own[placed]] - vectors[placed]
    lengths = np.linalg.norm(rest, axis=1)
    left = np.einsum("ud,ud->u", vectors[placed], rest) / np.where(lengths > 1e-3, lengths, np.nan)
    similarity[placed, own[placed]] = left
    width = min(MOST_OPTIONS, len(filled))
    near = np.argsort(-np.nan_to_num(similarity, nan=np.inf), axis=1, kind="stable")[:, :width]
    chosen = near == own[:, None]
    similarity = np.take_along_axis(similarity, near, axis=1).astype(np.float64)
    shown = np.zeros((len(images), MOST_OPTIONS), dtype=bool)
    shown[:, :width] = ~np.isnan(similarity)
    features = np.zeros((len(images), MOST_OPTIONS, 3))
    features[:, :width, 0], features[:, :width, 1] = np.nan_to_num(similarity), 1.0
    slip = (1 - reliability) / (width + 1)
    answers = np.zeros((len(images), MOST_OPTIONS + 1))
    answers[:, :width] = reliability * chosen + slip
    answers[:, -1] = reliability * ~chosen.any(axis=1) + slip
    sizes = Counter(looks.words)
    every = member_features(looks.confidences, np.array([max(1, sizes[words]) for words in looks.words]))
    rows = every[images]
    wrong = MemberModel.prior().misplaced(rows)
    choice = ChoiceModel(edge.scale, edge.offset)
    elsewhere = wrong
    for _ in range(_LESSON_ROUNDS):  # which answers surprise depends on the model, and the model on the answers
        choice = ChoiceModel(edge.scale, edge.offset).fitted(features, answers, shown, wrong)
        odds = np.where(shown, choice.odds(features[:, :, 0], features[:, :, 2]), -np.inf)
        odds = np.concatenate([odds, np.zeros((len(images), 1))], axis=1)
        before = np.exp(odds - odds.max(axis=1, keepdims=True))
        before /= before.sum(axis=1, keepdims=True)
        by_kind = (1 - wrong) * (before * answers).sum(axis=1)
        anywhere = 0.5 * before + 0.5 / (len(filled) + 1)
        by_chance = wrong * (anywhere * answers).sum(axis=1)
        elsewhere = by_chance / (by_chance + by_kind)
        wrong = MemberModel.prior().fitted(rows, elsewhere).misplaced(rows)
    once = np.array([image not in evidence for image in images], dtype=bool)
    return Lessons(features, answers, shown, wrong, rows[once], elsewhere[once])


def sorting_with(
    looks: Looks,
    known: Sequence[Known],
    pool: Sequence[int],
    edge: EdgeScale,
    settings: Settings,
    lessons: Lessons | None = None,
    evidence: Mapping[int, int] | None = None,
) -> Sorting:
    """The known clusters, each one unit, and the walks' units of the images in `pool`, each with the evidence that is
    described like it (`evidence_for`)."""
    evidence = evidence or {}
    inside = walk(selected(looks, pool), edge, settings)
    held = [cluster for cluster in known if cluster.images]
    alike: dict[str, list[int]] = {}
    for image in evidence:
        alike.setdefault(looks.words[image], []).append(image)
    members = [np.array([i for i in cluster.images if i not in evidence], dtype=np.int64) for cluster in held]
    for unit in inside.members:
        own = [pool[i] for i in unit.tolist()]
        earlier = [image for words in dict.fromkeys(looks.words[i] for i in own) for image in alike.get(words, ())]
        members.append(np.array([*own, *earlier], dtype=np.int64))
    of_image = np.zeros(len(looks), dtype=np.int64)
    for number, images in enumerate(members):
        of_image[images] = number
    words = tuple(Counter(looks.words[i] for i in cluster.images).most_common(1)[0][0] for cluster in held)
    units = Units(
        members=tuple(members),
        of_image=of_image,
        vectors=directions(sum_by_group(looks.embeddings, of_image, len(members))),
        sizes=np.array([len(images) for images in members], dtype=np.int64),
        words=words + inside.words,
        density=inside.density,
    )
    silent = np.array([NO_ANSWER if w in REFUSALS else NONE for w in units.words], dtype=np.int64)
    sorting = Sorting(
        looks, units, edge, silent, price=settings.price, exemplars=settings.exemplars_asked, lessons=lessons
    )
    founders = iter(range(len(held)))
    for cluster in known:
        sorting.add(Cluster(next(founders) if cluster.images else NONE, cluster.name, cluster.definition))
        sorting.unanswered.update(cluster.images)  # nobody asks about them again
    for image, number in evidence.items():
        sorting.believe(image, number, 1 - RELIABILITY)
    if evidence:
        came = Counter(looks.words[image] for cluster in known for image in cluster.images)
        sorting.coming = np.array([came[words] if words else 0 for words in units.words], dtype=np.int64)
    return sorting


def place(sorting: Sorting, settings: Settings, is_judge_used: bool, earlier: int = 0) -> Steps[None]:
    """Ask where the pool belongs, as far as it is worth its price. Where nobody can be asked, new images that share a
    description are a cluster, unless they are like one that is there. earlier: images of whom a random part was asked
    about when they came."""
    check = Check(sorting, settings.seed, closed=bool(settings.into), earlier=earlier)
    if is_judge_used:
        yield from check.run(compare_first=False)
    else:
        sorting.refresh()
        if not settings.into:
            check.settle_rest()
        sorting.settle()


def selected(looks: Looks, images: Sequence[int]) -> Looks:
    """The looks at some of the images, in the order given."""
    rows = list(images)
    if rows == list(range(len(looks))):
        return replace(looks, failed=(), not_looked=(), tokens=NO_TOKENS)  # a million embeddings have 1.5 GB
    return Looks(
        interest=looks.interest,
        image_ids=tuple(looks.image_ids[i] for i in rows),
        descriptions=tuple(looks.descriptions[i] for i in rows),
        words=tuple(looks.words[i] for i in rows),
        confidences=looks.confidences[rows],
        embeddings=looks.embeddings[rows],
    )


def joined(one: Looks, other: Looks) -> Looks:
    """Two sets of looks at different images, by image id. One may be empty, and has no width of its own then."""
    ids = one.image_ids + other.image_ids
    descriptions, words = one.descriptions + other.descriptions, one.words + other.words
    order = sorted(range(len(ids)), key=ids.__getitem__)
    place = np.empty(len(ids), dtype=np.int64)
    place[order] = np.arange(len(ids))
    wide = one if len(one) or not len(other) else other
    embeddings = np.empty((len(ids), wide.embeddings.shape[1]), dtype=wide.embeddings.dtype)
    for looks, rows in ((one, place[: len(one)]), (other, place[len(one) :])):
        if len(looks):
            embeddings[rows] = looks.embeddings
    return Looks(
        interest=one.interest,
        image_ids=tuple(ids[i] for i in order),
        descriptions=tuple(descriptions[i] for i in order),
        words=tuple(words[i] for i in order),
        confidences=np.concatenate([one.confidences, other.confidences])[order],
        embeddings=embeddings,
        failed=tuple(sorted(one.failed + other.failed)),
        not_looked=tuple(sorted(one.not_looked + other.not_looked)),
        tokens=one.tokens + other.tokens,
    )


def old_of(sorting: Sorting, known: Sequence[Known]) -> Mapping[int, int]:
    """Live cluster -> the known one that it is, the largest where it took in several."""
    found: dict[int, int] = {}
    for number in sorted(range(len(known)), key=lambda n: (-len(known[n].images), n)):
        found.setdefault(sorting.root(number), number)
    return found
