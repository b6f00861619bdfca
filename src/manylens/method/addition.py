"""Images that come later: where they belong among clusters that are there, and which new kinds they bring.

In: all looks, and where the earlier images are. Out: a place for each image that is new. Promise: pure; earlier
placements, names and ids stay. A description that earlier images share, all in one cluster, needs no question; the
others are checked as in a run of their own, in which every earlier cluster is one unit that stays where it is and is
not asked about. So a new kind may appear, and no old one can split or vanish.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from manylens.method.check import Check
from manylens.method.likelihood import ChoiceModel, Lessons, MemberModel, member_features
from manylens.method.observations import REFUSALS, Looks, directions, sum_by_group
from manylens.method.questions import MOST_OPTIONS, Steps
from manylens.method.sorting import NO_ANSWER, NONE, Cluster, Sorting
from manylens.method.walk import EdgeScale, Units, walk
from manylens.settings import Settings

_MOST_LESSONS = 2000
"""As many answers as a run fits its choice model to."""

_LESSON_ROUNDS = 3

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


def placed_by_words(
    looks: Looks, known: Sequence[Known], new: Sequence[int], asked: Collection[int] | None, price: float
) -> dict[int, ByWords]:
    """New images whose place is so sure from their descriptions alone that a question about each is not worth it.

    asked: earlier images that a choice was asked about. They show how often an image of this look's confidence is not
    where its description belongs (the check's member model). None where no question tells more than a look: then it is
    right as often as it says.
    """
    counts: dict[str, Counter[int]] = {}
    for number, cluster in enumerate(known):
        for image in cluster.images:
            if looks.words[image]:
                counts.setdefault(looks.words[image], Counter())[number] += 1
    main = {words: min(here.items(), key=lambda entry: (-entry[1], entry[0])) for words, here in counts.items()}
    sizes = np.array([counts[words].total() if words in counts else 1 for words in looks.words])
    features = member_features(looks.confidences, sizes)
    elsewhere = {i: number != main[looks.words[i]][0] for number, c in enumerate(known) for i in c.images
                 if i in (asked or ()) and looks.words[i]}  # fmt: skip
    rows = sorted(elsewhere)
    members = MemberModel.prior().fitted(features[rows], np.array([float(elsewhere[i]) for i in rows]))
    share = 1.0 - looks.confidences if asked is None else members.misplaced(features)
    found = {}
    for image in new:
        if here := counts.get(looks.words[image]):
            number, there = main[looks.words[image]]
            sure = (there + 0.5) / (here.total() + 1) * (1 - float(share[image]))
            if asked is None or 1 - sure < price:
                found[image] = ByWords(number, there, here.total(), sure)
    return found


def lessons_of(
    looks: Looks, known: Sequence[Known], places: Mapping[int, int], edge: EdgeScale, reliability: float
) -> Lessons | None:
    """What earlier images teach whose own answer was the last word on them. places: image -> index into the known ones
    where it is, NONE for in no cluster. None where there are none.

    An image's place stands for its answer, as far as the judge is reliable; the options are the clusters nearest to it,
    as they would be without it. Of the images, the newest run's checks need only a part (`_MOST_LESSONS`).
    """
    filled = [number for number, cluster in enumerate(known) if cluster.images]
    images = sorted(places, key=lambda image: looks.image_ids[image])[:_MOST_LESSONS]
    if not images or not filled:
        return None
    row_of = {number: row for row, number in enumerate(filled)}
    of_image = np.concatenate([np.full(len(known[n].images), row) for row, n in enumerate(filled)])
    members = np.concatenate([np.array(known[n].images, dtype=np.int64) for n in filled])
    sums = sum_by_group(looks.embeddings[members], of_image, len(filled))
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
    return Lessons(features, answers, shown, wrong, rows, elsewhere)


def sorting_with(
    looks: Looks,
    known: Sequence[Known],
    pool: Sequence[int],
    edge: EdgeScale,
    settings: Settings,
    lessons: Lessons | None = None,
) -> Sorting:
    """The known clusters, each one unit, and the walks' units of the images in `pool`."""
    inside = walk(selected(looks, pool), edge, settings)
    held = [cluster for cluster in known if cluster.images]
    members = [np.array(cluster.images, dtype=np.int64) for cluster in held]
    members += [np.array([pool[i] for i in unit.tolist()], dtype=np.int64) for unit in inside.members]
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
    return sorting


def place(sorting: Sorting, settings: Settings, is_judge_used: bool) -> Steps[None]:
    """Ask where the pool belongs, as far as it is worth its price. Where nobody can be asked, new images that share a
    description are a cluster, unless they are like one that is there."""
    check = Check(sorting, settings.seed, closed=bool(settings.into))
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
    order = sorted(range(len(ids)), key=ids.__getitem__)
    embeddings = [looks.embeddings for looks in (one, other) if len(looks)] or [one.embeddings]
    return Looks(
        interest=one.interest,
        image_ids=tuple(ids[i] for i in order),
        descriptions=tuple((one.descriptions + other.descriptions)[i] for i in order),
        words=tuple((one.words + other.words)[i] for i in order),
        confidences=np.concatenate([one.confidences, other.confidences])[order],
        embeddings=np.concatenate(embeddings)[order],
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
