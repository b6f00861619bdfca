"""Stage 6, name: every cluster gets a name unlike its siblings' and a definition that fits its members.

In: groups of images. Out: `Named`, one per group. Promise: pure; works from the descriptions alone. Where the model
writes, its names are used if the reply is complete and free of duplicates, else the descriptions' stand. It is told
which descriptions a cluster has that its siblings lack.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from manylens.method.levels import Group
from manylens.method.observations import Looks, define_cluster, normalise_description, spoken
from manylens.method.questions import Steps
from manylens.writing import DescribedGroup, NameClusters, Names, Written

CLUSTERS_PER_CALL = 40
"""Clusters named by one call: with more, models drop ids or repeat names."""

_MAX_NAME_CHARACTERS = 60
_DESCRIPTIONS_SHOWN = 8
_WELL_DESCRIBED = 0.8
"""From this share of members on, one description is all that is said of a cluster."""


@dataclass(frozen=True, slots=True)
class Named:
    name: str
    definition: str


def name_groups(looks: Looks, groups: Sequence[Group], hints: Sequence[str], writes: bool) -> Steps[list[Named]]:
    """hints: a writer's or a person's name of each group, or empty. They are kept as they are; definitions are made."""
    named = name_by_descriptions(looks, groups, hints)
    if not writes:
        return named
    taken = {normalise_description(label.name): at for at, label in enumerate(named)}
    for start in range(0, len(groups), CLUSTERS_PER_CALL):
        numbers = range(start + 1, min(start + CLUSTERS_PER_CALL, len(groups)) + 1)
        (answer,) = yield [_naming(looks, groups, numbers, named)]
        for number, label in (usable_names(answer.written, numbers) or {}).items():
            words = normalise_description(label.name)
            if taken.get(words, number - 1) != number - 1:
                continue  # a sibling has this name: keep the description's, which is distinct
            taken.pop(normalise_description(named[number - 1].name), None)
            taken[words] = number - 1
            named[number - 1] = label
    return named


def name_by_descriptions(looks: Looks, groups: Sequence[Group], hints: Sequence[str]) -> list[Named]:
    """The most frequent description, or the hint; where siblings share it, with the next description that tells them
    apart ("hearts", "hearts, pale"), as a last resort with a number ("hearts (2)")."""
    taken: set[str] = set()
    result: list[Named] = []
    for group, hint in zip(groups, hints, strict=True):
        counted = _count(looks, group)
        words = counted[0][0] if counted else ""
        name = hint or (spoken(looks, group.images, words) if words else "not described")
        if normalise_description(name) in taken:
            name = _told_apart(looks, group, name, [other for other, _ in counted[:5] if other != words], taken)
        taken.add(normalise_description(name))
        result.append(Named(name, define(looks, group)))
    return result


def _count(looks: Looks, group: Group) -> list[tuple[str, int]]:
    """Normalised descriptions of a group, the most frequent first."""
    counted = Counter(looks.words[image] for image in group.images if looks.words[image])
    return sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))


def _told_apart(looks: Looks, group: Group, name: str, others: Sequence[str], taken: set[str]) -> str:
    for second in others:
        candidate = f"{name}, {spoken(looks, group.images, second)}"
        if normalise_description(candidate) not in taken:
            return candidate
    number = 2
    while normalise_description(f"{name} ({number})") in taken:
        number += 1
    return f"{name} ({number})"


def define(looks: Looks, group: Group) -> str:
    """One sentence true of the members: their descriptions, with the share it fits."""
    interest, counted = looks.interest.text, _count(looks, group)
    if not counted:
        return f'Images that belong together when looked at for "{interest}"; the model gave no description.'
    first, fits = counted[0][0], counted[0][1] / len(group.images)
    name = spoken(looks, group.images, first)
    if fits >= _WELL_DESCRIBED:
        return f"{define_cluster(name, interest).rstrip('.')} ({fits:.0%} of the members)."
    also = ", ".join(f'"{spoken(looks, group.images, words)}"' for words, _ in counted[1:4])
    return f'Images described as "{name}" ({fits:.0%} of the members), {also}, when looked at for "{interest}".'


def _naming(looks: Looks, groups: Sequence[Group], numbers: Sequence[int], named: Sequence[Named]) -> NameClusters:
    """What the model gets. A cluster's descriptions: those that it has and others lack come first, by count
    times the log of how many clusters there are to how many have them."""
    counts = {number: dict(_count(looks, group)) for number, group in enumerate(groups, start=1)}
    having = Counter(words for counted in counts.values() for words in counted)
    clusters = []
    for number in numbers:
        group = groups[number - 1]
        telling = sorted(
            counts[number].items(),
            key=lambda entry: (-round(entry[1] * math.log((1 + len(groups)) / having[entry[0]]), 6), entry[0]),
        )
        shown = {spoken(looks, group.images, words): count for words, count in telling[:_DESCRIPTIONS_SHOWN]}
        clusters.append(DescribedGroup(number, len(group.images), tuple(shown.items())))
    taken = tuple(label.name for label in named[: numbers[0] - 1])
    return NameClusters(looks.interest.text, tuple(clusters), taken)


def usable_names(written: Written | None, numbers: Sequence[int]) -> Mapping[int, Named] | None:
    """Every id once, distinct names of 1 to 60 characters, definitions; else None."""
    if not isinstance(written, Names):
        return None
    found = {e.id: Named(" ".join(e.name.split()), " ".join(e.definition.split())) for e in written.clusters}
    complete = len(written.clusters) == len(found) and set(found) == set(numbers)
    sound = all(0 < len(label.name) <= _MAX_NAME_CHARACTERS and label.definition for label in found.values())
    distinct = len({normalise_description(label.name) for label in found.values()}) == len(found)
    return found if complete and sound and distinct else None
