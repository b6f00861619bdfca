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
from manylens.method.likelihood import MemberModel, member_features
from manylens.method.observations import REFUSALS, Looks, directions, sum_by_group
from manylens.method.questions import Steps
from manylens.method.sorting import NO_ANSWER, NONE, Cluster, Sorting
from manylens.method.walk import EdgeScale, Units, walk
from manylens.settings import Settings


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
    looks: Looks, known: Sequence[Known], new: Sequence[int], asked: Collection[int], price: float
) -> dict[int, ByWords]:
    """New images whose place is so sure from their descriptions alone that a question about each is not worth it.

    asked: earlier images that a choice was asked about. They show how often an image of this look's confidence is not
    where its description belongs (the check's member model).
    """
    counts: dict[str, Counter[int]] = {}
    for number, cluster in enumerate(known):
        for image in cluster.images:
            if looks.words[image]:
                counts.setdefault(looks.words[image], Counter())[number] += 1
    main = {words: min(here.items(), key=lambda entry: (-entry[1], entry[0])) for words, here in counts.items()}
    sizes = np.array([counts[words].total() if words in counts else 1 for words in looks.words])
    features = member_features(looks.confidences, sizes)
    elsewhere = {i: number != main[looks.words[i]][0] for number, c in enumerate(known) for i in c.images if i in asked
                 and looks.words[i]}  # fmt: skip
    rows = sorted(elsewhere)
    members = MemberModel.prior().fitted(features[rows], np.array([float(elsewhere[i]) for i in rows]))
    share = members.misplaced(features)
    found = {}
    for image in new:
        if here := counts.get(looks.words[image]):
            number, there = main[looks.words[image]]
            sure = (there + 0.5) / (here.total() + 1) * (1 - float(share[image]))
            if 1 - sure < price:
                found[image] = ByWords(number, there, here.total(), sure)
    return found


def sorting_with(
    looks: Looks, known: Sequence[Known], pool: Sequence[int], edge: EdgeScale, settings: Settings
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
    sorting = Sorting(looks, units, edge, silent, price=settings.price, exemplars=settings.exemplars_asked)
    founders = iter(range(len(held)))
    for cluster in known:
        sorting.add(Cluster(next(founders) if cluster.images else NONE, cluster.name, cluster.definition))
        sorting.unanswered.update(cluster.images)  # nobody asks about them again
    return sorting


def place(sorting: Sorting, settings: Settings, is_judge_used: bool) -> Steps[None]:
    """Ask where the pool belongs, as far as it is worth its price."""
    check = Check(sorting, settings.seed, closed=bool(settings.into))
    if is_judge_used:
        yield from check.run(compare_first=False)
    else:
        sorting.refresh()
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
    """Two sets of looks at different images, by image id."""
    ids = one.image_ids + other.image_ids
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return Looks(
        interest=one.interest,
        image_ids=tuple(ids[i] for i in order),
        descriptions=tuple((one.descriptions + other.descriptions)[i] for i in order),
        words=tuple((one.words + other.words)[i] for i in order),
        confidences=np.concatenate([one.confidences, other.confidences])[order],
        embeddings=np.concatenate([one.embeddings, other.embeddings])[order],
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
