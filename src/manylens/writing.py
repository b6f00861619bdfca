"""What a model that writes is asked, and what it answers: five tasks, as values.

In: tasks as a stage puts them, answers as JSON. Out: both as plain values. Promise: an answer has the types that it
says; whether its numbers are among those that were given is for the stage to see.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeAlias


@dataclass(frozen=True, slots=True)
class DescribedGroup:
    """A group to be named. id: of its name in the answer. size: in images. descriptions: with how many images of the
    group have each, those that tell it from other groups first."""

    id: int
    size: int
    descriptions: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class NameClusters:
    """Name these groups. taken: names that others have."""

    name: ClassVar[str] = "name_clusters"
    interest: str
    clusters: tuple[DescribedGroup, ...]
    taken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupDescriptions:
    """Put these descriptions into categories. closed: `categories` are all that there may be, else those so far."""

    name: ClassVar[str] = "vocabulary"
    interest: str
    level: str
    closed: bool
    categories: tuple[str, ...]
    descriptions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShownCategory:
    """examples: some of its descriptions."""

    id: int
    name: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MergeCategories:
    """Which of these categories are one at this level?"""

    name: ClassVar[str] = "reconcile"
    interest: str
    level: str
    categories: tuple[ShownCategory, ...]


@dataclass(frozen=True, slots=True)
class SuggestInterests:
    """What could these pictures be sorted by? pictures: what is said of each, from several sides. most: interests."""

    name: ClassVar[str] = "suggest"
    interest: str
    pictures: tuple[tuple[str, ...], ...]
    most: int


@dataclass(frozen=True, slots=True)
class WordOtherwise:
    """How else could the interest be said? seen: what pictures are called through it, and how many."""

    name: ClassVar[str] = "reword"
    interest: str
    seen: tuple[tuple[str, int], ...]


WritingTask: TypeAlias = NameClusters | GroupDescriptions | MergeCategories | SuggestInterests | WordOtherwise


@dataclass(frozen=True, slots=True)
class GroupName:
    """The name and the definition of the group with this id."""

    id: int
    name: str
    definition: str


@dataclass(frozen=True, slots=True)
class Names:
    """The answer to `NameClusters`."""

    clusters: tuple[GroupName, ...]


@dataclass(frozen=True, slots=True)
class Category:
    """A name, and the numbers that are under it: of descriptions, from 1, or ids of categories."""

    name: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Categories:
    """The answer to `GroupDescriptions`. no_answer: numbers of descriptions that do not answer the interest."""

    categories: tuple[Category, ...]
    no_answer: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MergedCategories:
    """The answer to `MergeCategories`."""

    groups: tuple[Category, ...]


@dataclass(frozen=True, slots=True)
class SuggestedInterest:
    """groups: its answers, with the numbers of the pictures that have them, from 1."""

    interest: str
    groups: tuple[Category, ...]


@dataclass(frozen=True, slots=True)
class SuggestedInterests:
    """The answer to `SuggestInterests`."""

    interests: tuple[SuggestedInterest, ...]


@dataclass(frozen=True, slots=True)
class OtherWording:
    """why: how the groups would differ, or empty."""

    interest: str
    why: str


@dataclass(frozen=True, slots=True)
class OtherWordings:
    """The answer to `WordOtherwise`."""

    wordings: tuple[OtherWording, ...]


Written: TypeAlias = Names | Categories | MergedCategories | SuggestedInterests | OtherWordings


def written_to_json(written: Written) -> str:
    """As the store keeps it."""
    match written:
        case Names():
            values: dict[str, Any] = asdict(written)
        case Categories():
            entries = [{"name": c.name, "descriptions": c.numbers} for c in written.categories]
            values = {"categories": entries, "no_answer": written.no_answer}
        case MergedCategories():
            values = {"groups": [{"name": group.name, "ids": group.numbers} for group in written.groups]}
        case SuggestedInterests():
            values = {
                "interests": [
                    {"interest": one.interest, "groups": [{"name": g.name, "pictures": g.numbers} for g in one.groups]}
                    for one in written.interests
                ]
            }
        case OtherWordings():
            values = asdict(written)
    return json.dumps(values, ensure_ascii=False)


def written_from_json(text: str) -> Written:
    """Of a stored answer. Entries that are not of their types are left out. Raises ValueError where no
    answer is there."""
    start, end = text.find("{"), text.rfind("}")  # a model of one's own once wrote its texts as they came
    try:
        values = json.loads(text[start : end + 1])
    except RecursionError:
        values = None
    if isinstance(values, dict):
        if "clusters" in values:
            return names_of(values["clusters"])
        if "categories" in values:
            silent = numbers_of(values.get("no_answer"))
            return Categories(categories_of(values["categories"], "descriptions"), silent)
        if "groups" in values:
            return MergedCategories(categories_of(values["groups"], "ids"))
        if "interests" in values:
            return suggested_of(values["interests"])
        if "wordings" in values:
            return wordings_of(values["wordings"])
    raise ValueError("names, categories, groups, interests or wordings were written, the text has none")


def names_of(entries: Any) -> Names:
    """The entries that have an id, a name and a definition."""
    found = []
    for entry in _list(entries):
        match entry:
            case {"id": int(number), "name": str(name), "definition": str(definition)}:
                found.append(GroupName(number, name, definition))
    return Names(tuple(found))


def categories_of(entries: Any, key: str) -> tuple[Category, ...]:
    """The entries that have a name; key: of their numbers."""
    named = [entry for entry in _list(entries) if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
    return tuple(Category(entry["name"], numbers_of(entry.get(key))) for entry in named if entry["name"].strip())


def suggested_of(entries: Any) -> SuggestedInterests:
    """The entries that have words and groups with names."""
    found = []
    for entry in _list(entries):
        match entry:
            case {"interest": str(words), "groups": list(groups)} if words.strip():
                found.append(SuggestedInterest(words, categories_of(groups, "pictures")))
    return SuggestedInterests(tuple(found))


def wordings_of(entries: Any) -> OtherWordings:
    """The entries that have words; why: empty where it is no text."""
    found = []
    for entry in _list(entries):
        match entry:
            case {"interest": str(words)} if words.strip():
                why = entry.get("why")
                found.append(OtherWording(words, why if isinstance(why, str) else ""))
    return OtherWordings(tuple(found))


_MOST_DIGITS = 6


def numbers_of(value: Any) -> tuple[int, ...]:
    """Whole numbers of a list, also where they are written as texts."""
    found: list[int] = []
    for item in _list(value):
        if isinstance(item, int) and not isinstance(item, bool):
            found.append(item)
        elif isinstance(item, str) and item.strip().isdecimal() and len(item.strip()) <= _MOST_DIGITS:
            found.append(int(item))
    return tuple(found)


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
