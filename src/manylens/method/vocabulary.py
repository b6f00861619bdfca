"""Stage 4, the vocabulary: a model that writes groups the distinct descriptions into categories.

In: descriptions, the interest, the level wanted. Out: a `Vocabulary`, which accounts for every description. Promise:
pure; texts to write out, texts in. Descriptions go out in batches of at most `BATCH`, the most frequent first; the
first batch begins the categories, later ones are shown those there are and may add to them; then the categories
themselves are put together where they are one. Descriptions that a reply loses are sent once more, then stand by
themselves; numbers that it invents are passed over. A model that fails leaves every description to itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from manylens.method.observations import Looks, normalise_description, spoken
from manylens.method.questions import Steps
from manylens.method.sorting import Sorting
from manylens.writing import (
    Categories,
    Category,
    GroupDescriptions,
    MergeCategories,
    MergedCategories,
    ShownCategory,
    Written,
)

BATCH = 100
"""Descriptions of one request: with more, models lose some."""

_SHOWN = 100
_EXAMPLES = 4
_RECONCILED = 3
"""Rounds in which categories are put together: what one batch cannot see beside each other, the next may."""

_FIRST_ROUNDS = (1, 4, 16)
"""Batches that go out side by side before the categories are shown to all the others."""

NO_ANSWERS = frozenset(
    normalise_description(text)
    for text in (
        "n/a", "not applicable", "does not apply", "not visible", "not shown", "not clear", "unclear", "unknown",
        "cannot tell", "can't tell", "cannot be seen", "cannot be determined", "undetermined", "not sure", "no answer",
        "I cannot tell", "I cannot tell from this picture", "I can't tell from this picture", "unidentifiable",
    )
)  # fmt: skip
"""Descriptions that never answer, for models that do not write; a writer recognises them in any wording."""


@dataclass(slots=True)
class Vocabulary:
    """category: normalised description -> its category's name; no_answer: descriptions that do not answer the
    interest; calls: texts that were asked for."""

    category: dict[str, str] = field(default_factory=dict)
    no_answer: set[str] = field(default_factory=set)
    calls: int = 0

    @property
    def is_empty(self) -> bool:
        return not self.category


def without_writer(looks: Looks) -> Vocabulary:
    """What can be told without asking: phrases that are no answer."""
    return Vocabulary(no_answer={words for words in looks.words if words in NO_ANSWERS})


def make_vocabulary(looks: Looks, level: str, closed: Sequence[str] = ()) -> Steps[Vocabulary]:
    """closed: the only categories there may be; the rest is left to itself."""
    members: dict[str, list[int]] = {}
    for image, words in enumerate(looks.words):
        members.setdefault(words, []).append(image)
    members.pop("", None)
    order = sorted(members, key=lambda words: (-len(members[words]), words))
    texts = {words: spoken(looks, members[words], words) for words in order}
    vocabulary = without_writer(looks)
    open_words = [words for words in order if words not in vocabulary.no_answer]
    names: Counter[str] = Counter(dict.fromkeys(closed, 0))
    lost: list[str] = []
    at = 0
    for side_by_side in (*_FIRST_ROUNDS, len(open_words)):
        batches = [open_words[k : k + BATCH] for k in range(at, len(open_words), BATCH)][:side_by_side]
        at += sum(map(len, batches))
        lost += yield from _ask(vocabulary, looks, level, closed, names, batches, texts)
    again = [lost[k : k + BATCH] for k in range(0, len(lost), BATCH)]
    for words in (yield from _ask(vocabulary, looks, level, closed, names, again, texts)):
        if vocabulary.category:  # a model that groups nothing has no vocabulary
            vocabulary.category[words] = texts[words]
    if not closed:
        for _ in range(_RECONCILED):
            if not (yield from _reconcile(vocabulary, looks, level, texts)):
                break
    return vocabulary


def _ask(
    vocabulary: Vocabulary,
    looks: Looks,
    level: str,
    closed: Sequence[str],
    names: Counter[str],
    batches: Sequence[Sequence[str]],
    texts: Mapping[str, str],
) -> Steps[list[str]]:
    """Send batches side by side; returns the descriptions that no reply accounts for."""
    if not batches:
        return []
    shown = tuple(closed) or tuple(name for name, _ in names.most_common(_SHOWN))
    writings = [
        GroupDescriptions(looks.interest.text, level, bool(closed), shown, tuple(texts[words] for words in batch))
        for batch in batches
    ]
    answers = yield writings
    vocabulary.calls += len(writings)
    lost: list[str] = []
    for batch, answer in zip(batches, answers, strict=True):
        categories, silent = _read(answer.written, len(batch))
        for number, words in enumerate(batch, start=1):
            name = categories.get(number)
            if number in silent:
                vocabulary.no_answer.add(words)
            elif name is None or (closed and name not in closed):
                lost.append(words)
            else:
                vocabulary.category[words] = name
                names[name] += 1
    return lost


def _read(written: Written | None, count: int) -> tuple[dict[int, str], set[int]]:
    """(number -> category, numbers without an answer) of a reply; a number named twice keeps its first category."""
    if not isinstance(written, Categories):
        return {}, set()
    found: dict[int, str] = {}
    for category in written.categories:
        for number in category.numbers:
            if 1 <= number <= count:
                found.setdefault(number, " ".join(category.name.split()))
    return found, {number for number in written.no_answer if 1 <= number <= count} - set(found)


def _merged(written: Written | None) -> tuple[Category, ...]:
    return written.groups if isinstance(written, MergedCategories) else ()


def _reconcile(vocabulary: Vocabulary, looks: Looks, level: str, texts: Mapping[str, str]) -> Steps[bool]:
    """Put categories together that are one; returns whether any were, and whether more may be."""
    examples: dict[str, list[str]] = {}
    for words, name in vocabulary.category.items():
        examples.setdefault(name, []).append(texts[words])
    names = sorted(examples, key=lambda name: (normalise_description(name), name))
    if len(names) < 2:
        return False
    batches = [names[k : k + BATCH] for k in range(0, len(names), BATCH)]
    answers = yield [
        MergeCategories(
            looks.interest.text,
            level,
            tuple(ShownCategory(k, name, tuple(examples[name][:_EXAMPLES])) for k, name in enumerate(batch, start=1)),
        )
        for batch in batches
    ]
    vocabulary.calls += len(batches)
    renamed: dict[str, str] = {}
    for batch, answer in zip(batches, answers, strict=True):
        for group in _merged(answer.written):
            old = [batch[number - 1] for number in group.numbers if 1 <= number <= len(batch)]
            old = [name for name in dict.fromkeys(old) if name not in renamed]
            kept = max(old, key=lambda name: (len(examples[name]), name), default="")
            renamed.update(dict.fromkeys(old, kept))
    vocabulary.category = {words: renamed.get(name, name) for words, name in vocabulary.category.items()}
    merged = sum(name != kept for name, kept in renamed.items())
    return len(batches) > 1 and merged > 0


def name_parents(sorting: Sorting, looks: Looks) -> Steps[dict[int, str]]:
    """Live cluster -> the name of the coarser kind that it belongs to, as the writer has it; empty where that fails."""
    live = sorting.live()
    if len(live) < 4:
        return {}
    names = {cluster: _label(sorting, looks, cluster) for cluster in live}
    parents: dict[int, str] = {}
    for start in range(0, len(live), BATCH):
        batch = live[start : start + BATCH]
        categories = tuple(ShownCategory(k, names[c]) for k, c in enumerate(batch, start=1))
        (answer,) = yield [MergeCategories(looks.interest.text, "coarse", categories)]
        for group in _merged(answer.written):
            for number in group.numbers:
                if 1 <= number <= len(batch):
                    parents.setdefault(batch[number - 1], " ".join(group.name.split()))
    return parents if 1 < len(set(parents.values())) < len(parents) else {}


def finer_kinds(sorting: Sorting, looks: Looks) -> Steps[list[str | None]]:
    """Of each unit, the writer's category at the level "fine", or None."""
    fine = yield from make_vocabulary(looks, "fine")
    return [fine.category.get(words) for words in sorting.units.words]


def _label(sorting: Sorting, looks: Looks, cluster: int) -> str:
    """The description that most of a cluster's units have."""
    units = sorting.units_in[sorting.row[cluster]]
    if not units:
        return sorting.clusters[cluster].name
    largest = max(units, key=lambda unit: (int(sorting.units.sizes[unit]), -unit))
    return spoken(looks, sorting.units.members[largest].tolist(), sorting.units.words[largest])
