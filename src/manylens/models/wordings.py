"""Open words for the scripted model: how a model that answers freely describes a class, and how its writer errs.

In: the classes of one interest, stated shares. Out: a description with its embedding for an image seen as some class,
and replies of a writer to the tasks "vocabulary", "reconcile" and "name_clusters". Promise: all of it is a seeded hash
of image, words and request; the writer knows no image, it goes by what the words mean.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from manylens.text import singular
from manylens.writing import (
    Categories,
    Category,
    GroupDescriptions,
    GroupName,
    MergeCategories,
    MergedCategories,
    NameClusters,
    Names,
    OtherWordings,
    SuggestedInterests,
    SuggestInterests,
    WordOtherwise,
    WritingTask,
    Written,
)

Vector: TypeAlias = NDArray[np.float64]
Level: TypeAlias = Literal["coarse", "medium", "fine"]

REFUSALS = ("n/a", "not visible", "I cannot tell from this picture", "unclear")

_SHARED_WORDS = 20
"""Adjectives that all classes share: two descriptions may have a word in common and mean different things."""
_PROSE_WORDS, _FINER, _GROUP = 8, 3, 3
_FOREIGN_SHIFT = 0.5
_HOME, _ABROAD = ("bdfglmnprstv", "aeiou"), ("kwzvhj", "äöüåé")


@dataclass(frozen=True, slots=True)
class Wordings:
    """The words and the writer of a scripted model; all but `per_class`, `wording_spread` are shares in [0, 1].

    per_class: wordings of a class, used by Zipf's law; 0 is free prose, in which no two descriptions are equal.
    levels: images described at another level: half by a coarser word that three classes share, half by a finer one.
    foreign: images described in another language: other words, embeddings nearby but shifted.
    refusals: images for which the answer is none.
    correlated: where the model takes a class for another, it is always the same other one.
    wording_spread: how far a wording lies from its class's centre; compare `Noise.spread`, that of a single image.
    overlap: wordings that lie half-way to another class.
    lost, invented, misfiled: of what the writer is shown, what it leaves out, makes up (numbers that were not given),
    puts into another category. drifting: categories that it gives another name than elsewhere, unless it is shown them.
    """

    per_class: int = 10
    levels: float = 0.0
    foreign: float = 0.0
    refusals: float = 0.0
    correlated: bool = False
    wording_spread: float = 0.5
    overlap: float = 0.1
    lost: float = 0.02
    invented: float = 0.01
    misfiled: float = 0.03
    drifting: float = 0.3


@dataclass(frozen=True, slots=True)
class _Sense:
    """What words mean: a group of classes, one class of it, or a finer kind of that."""

    group: int
    label: str | None = None
    finer: int | None = None

    def at(self, level: Level) -> _Sense:
        """The category that it falls into; a coarser word than was asked for stays what it is."""
        if level == "coarse":
            return _Sense(self.group)
        return _Sense(self.group, self.label) if level == "medium" else self


class Lexicon:
    """All wordings of one interest's classes. digest, normal, centre: the model's seeded hash, noise of norm 1, and
    class centres."""

    def __init__(
        self,
        wordings: Wordings,
        interest: str,
        classes: Sequence[str],
        digest: Callable[..., bytes],
        normal: Callable[..., Vector],
        centre: Callable[[str, str], Vector],
    ) -> None:
        self._wordings, self._interest, self._classes = wordings, interest, list(classes)
        self._digest, self._normal, self._centre = digest, normal, centre
        groups = max(1, len(self._classes) // _GROUP)
        self._group = {label: min(number // _GROUP, groups - 1) for number, label in enumerate(self._classes)}
        self._senses: dict[str, _Sense] = {}
        """Folded wording, in either language -> its meaning."""
        self._words: dict[str, _Sense] = {}
        """Folded word -> its meaning, for prose and for names that are no wording."""
        shared = [self._word("shared", str(number)) for number in range(_SHARED_WORDS)]
        self._shared = shared
        self._coarse = [self._word("coarse", str(group)) for group in range(groups)]
        self._own: dict[str, list[str]] = {}
        self._of: dict[str, list[str]] = {}
        self._finer: dict[str, list[str]] = {}
        for group, word in enumerate(self._coarse):
            self._learn(word, _Sense(group))
        size = max(_PROSE_WORDS, wordings.per_class // 2 + 1)
        for number, label in enumerate(self._classes):
            own = [label, *(self._word("own", label, str(j)) for j in range(1, size))]
            # A synonym and an adjective with the class's first word by turns: some share a word, some do not.
            of = [
                own[(j + 1) // 2] if j % 2 else f"{shared[(7 * number + j) % _SHARED_WORDS]} {label}" if j else label
                for j in range(wordings.per_class)
            ]
            self._own[label], self._of[label] = own, of
            self._finer[label] = [self._word("finer", label, str(j)) for j in range(_FINER)]
            for wording in [*own, *of]:
                self._learn(wording, _Sense(self._group[label], label))
            for j, wording in enumerate(self._finer[label]):
                self._learn(wording, _Sense(self._group[label], label, j))

    def describe(self, label: str, image_id: str) -> tuple[str, Vector]:
        """What is said of an image that is seen as this class, and where that lies: unit length, before the noise of
        the single image."""
        given = self._wordings
        if self._chance("refusal", image_id) < given.refusals:
            text = REFUSALS[int(self._chance("which refusal", image_id) * len(REFUSALS))]
            return text, _unit(self._normal("refusals", self._interest) + 0.3 * self._normal("refusal", text))
        level, pick = self._chance("level", image_id), self._chance("wording", image_id)
        coarse = level < given.levels / 2
        if coarse:
            text = self._coarse[self._group[label]]
        elif level < given.levels:
            text = self._finer[label][int(pick * _FINER)]
        elif given.per_class:
            text = self._of[label][_by_zipf(pick, given.per_class)]
        else:
            text = self._prose(label, image_id)
        place = self._place(label, text, coarse)
        if self._chance("foreign", image_id) < given.foreign:
            place = place + _FOREIGN_SHIFT * self._normal("foreign", self._interest)
            text = self._translated(text)
        return text, _unit(place)

    def label_of(self, text: str) -> str | None:
        """The class that words stand for; None where they mean none, or several."""
        sense = self._sense(text)
        return None if sense is None else sense.label

    def confusable(self, label: str) -> str:
        """The class that this one is taken for where mistakes are correlated."""
        return self._classes[(self._classes.index(label) + 1) % len(self._classes)]

    def write(self, task: WritingTask) -> Written:
        batch = json.dumps(asdict(task), ensure_ascii=False)
        match task:
            case GroupDescriptions():
                return self._vocabulary(task, batch)
            case MergeCategories():
                return self._reconcile(task, batch)
            case NameClusters():
                return self._name_clusters(task, batch)
            case SuggestInterests():  # a writer that knows its own interest alone
                return SuggestedInterests(())
            case WordOtherwise():
                return OtherWordings(())

    def _vocabulary(self, task: GroupDescriptions, batch: str) -> Categories:
        level: Any = task.level
        senses = {n: self._sense(text) for n, text in enumerate(task.descriptions, start=1)}
        known: dict[_Sense, str] = {}
        for name in task.categories:
            if (sense := self._sense(name)) is not None:
                known.setdefault(sense.at(level), name)
        answers = {n: sense.at(level) for n, sense in senses.items() if sense is not None}
        filed = self._filed(answers, batch, len(senses))
        categories = (Category(known.get(s) or self._name(s, batch), tuple(numbers)) for s, numbers in filed.items())
        return Categories(tuple(categories), tuple(n for n, sense in senses.items() if sense is None))

    def _reconcile(self, task: MergeCategories, batch: str) -> MergedCategories:
        level: Any = task.level
        names = {category.id: category.name for category in task.categories}
        senses = {c.id: self._most(c.examples or [c.name], level) or c.name for c in task.categories}
        filed = self._filed(senses, batch, max(senses, default=0))
        return MergedCategories(tuple(Category(names.get(ids[0], "others"), tuple(ids)) for ids in filed.values()))

    def _name_clusters(self, task: NameClusters, batch: str) -> Names:
        taken = set(task.taken)
        named = []
        for cluster in task.clusters:
            sense = self._most(dict(cluster.descriptions), "medium")
            names = [] if sense is None else [self._name(sense, batch), *self._names(sense)]
            names += [*dict(cluster.descriptions), f"group {cluster.id}"]
            name = next(name[:60] for name in names if name[:60] not in taken)
            taken.add(name)
            named.append(GroupName(cluster.id, name, f"Pictures that show {name}."))
        return Names(tuple(named))

    def _filed(self, kinds: Mapping[Any, Any], batch: str, last: int) -> dict[Any, list[Any]]:
        """Kind -> the numbers put into it, with the writer's mistakes. last: the highest number that was given."""
        every = list(dict.fromkeys(kinds.values()))
        filed: dict[Any, list[Any]] = {}
        for number, kind in kinds.items():
            said = kind
            if self._chance("lost", batch, str(number)) < self._wordings.lost:
                continue
            if self._chance("misfiled", batch, str(number)) < self._wordings.misfiled:
                others = [other for other in every if other != kind] or [kind]
                said = others[int(self._chance("into", batch, str(number)) * len(others))]
            filed.setdefault(said, []).append(number)
            if self._chance("invented", batch, str(number)) < self._wordings.invented:
                last += 1
                filed[said].append(last)
        return filed

    def _name(self, sense: _Sense, batch: str) -> str:
        names = self._names(sense)
        if self._chance("drifting", batch, str(sense)) >= self._wordings.drifting:
            return names[0]
        return names[1 + int(self._chance("name", batch, str(sense)) * (len(names) - 1))]

    def _names(self, sense: _Sense) -> list[str]:
        """What a category may be called, as "cat", "cats", "feline"."""
        if sense.label is None:
            words = [self._coarse[sense.group]]
        else:
            words = self._own[sense.label][:2] if sense.finer is None else [self._finer[sense.label][sense.finer]]
        return [words[0], f"{words[0]}s", *words[1:]]

    def _most(self, descriptions: Iterable[str] | Mapping[str, int], level: Level) -> _Sense | None:
        votes: Counter[_Sense] = Counter()
        for text, count in Counter(descriptions).items():
            if (sense := self._sense(text)) is not None:
                votes[sense.at(level)] += count
        return max(votes, key=lambda sense: votes[sense]) if votes else None

    def _sense(self, text: str) -> _Sense | None:
        """None where the words answer nothing."""
        folded = _folded(text)
        if folded in self._senses:
            return self._senses[folded]
        votes = Counter(self._words[word] for word in map(_folded, folded.split()) if word in self._words)
        return max(votes, key=lambda sense: votes[sense]) if votes else None

    def _learn(self, wording: str, sense: _Sense) -> None:
        for text in (wording, self._translated(wording)):
            self._senses.setdefault(_folded(text), sense)
            if " " not in text:
                self._words.setdefault(_folded(text), sense)

    def _place(self, label: str, text: str, coarse: bool) -> Vector:
        if coarse:
            group = [other for other in self._classes if self._group[other] == self._group[label]]
            centre = _unit(np.sum([self._centre(self._interest, other) for other in group], axis=0))
        else:
            centre = self._centre(self._interest, label)
            if self._chance("overlap", text) < self._wordings.overlap:
                centre = _unit(centre + self._centre(self._interest, self.confusable(label)))
        return centre + self._wordings.wording_spread * self._normal("wording", self._interest, text)

    def _prose(self, label: str, image_id: str) -> str:
        picks = [self._chance("prose", image_id, str(place)) for place in range(5)]
        one, two, three = (self._own[label][_by_zipf(pick, _PROSE_WORDS)] for pick in picks[:3])
        adjective, other = (self._shared[int(pick * _SHARED_WORDS)] for pick in picks[3:])
        detail = " ".join(self._word("detail", image_id, part) for part in "ab")  # no other image has these two
        return f"The image shows a {adjective} {one} and {two}, {other} beside the {three}, {detail}."

    def _translated(self, text: str) -> str:
        return " ".join(self._word("abroad", word.strip(".,"), language=_ABROAD) for word in text.split())

    def _word(self, *parts: str, language: tuple[str, str] = _HOME) -> str:
        """Four syllables, always the same for the same parts."""
        consonants, vowels = language
        digest = self._digest("word", self._interest, *parts)
        pairs = zip(digest[:8:2], digest[1:8:2], strict=True)
        return "".join(consonants[a % len(consonants)] + vowels[b % len(vowels)] for a, b in pairs)

    def _chance(self, salt: str, *parts: str) -> float:
        return int.from_bytes(self._digest("open words", salt, self._interest, *parts)[:8], "big") / 2**64


def _by_zipf(chance: float, many: int) -> int:
    """A number below `many` for a chance in [0, 1): the n-th is drawn with a weight of 1/n."""
    weights = np.cumsum([1 / (number + 1) for number in range(many)])
    return int(np.searchsorted(weights, chance * weights[-1], side="right"))


def _folded(text: str) -> str:
    """Case and final marks make no difference, nor does a plural."""
    return " ".join(map(singular, text.casefold().strip(" .,").split()))


def _unit(vector: Vector) -> Vector:
    unit: Vector = vector / np.linalg.norm(vector)
    return unit
