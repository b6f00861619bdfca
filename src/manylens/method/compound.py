"""Interests that ask for two or three things at once, "color and kind of fruit", and clusters that answer all of them.

In: an interest's words; the clusterings of its parts. Out: the parts; the combinations that occur, as clusters.
Promise: pure; nothing is looked at again, and the same clusterings give the same combinations.

An interest is compound where each part names a property: a word such as color, kind, place or mood, with what it is a
property of ("kind of fruit", "hair color"). So "black and white", "food and drink" and "what people wear and why" are
one interest each. A plus sign between its parts, "breed + pose", says it whatever the words.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from manylens.settings import Level
from manylens.text import singular
from manylens.types import Assignment, Basis, Clustering, DecidedBy, Interest, Misplaced, Verdict

MOST_PARTS = 3
"""With four, nearly every combination is of one picture."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_OF_THINGS = _set(
    "brand breed color colour condition form kind make material model pattern quality shape size sort species "
    "state style texture type variety "
)
"""Properties that share what they are of: "color and kind of fruit" asks for the color of the fruit."""

_PROPERTIES = _OF_THINGS | _set(
    "action activity age category clothing emotion environment event expression gender genre light location "
    "medium mood number object pose place position posture rank scene season setting subject suit time topic "
    "viewpoint weather daytime background "
)

_PLUS = re.compile(r"\s\+\s")
_AND = re.compile(r"\s*,\s*(?:and\s+)?|\s+(?:and|as well as)\s+|\s*&\s*")
_OR = re.compile(r"\bor\b|[?/:;]", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:the|a|an|by)\s+", re.IGNORECASE)
_ITS = re.compile(r"^(?:its|their|his|her)\s+", re.IGNORECASE)
_MOST_WORDS = 6

OTHER = "other"
COARSE_SHARE = 0.02
"""Coarse clusters hold at least this share of the placed pictures; rarer combinations are folded."""


def parts_of(interest: Interest) -> tuple[Interest, ...]:
    """The interests that it asks for together, in their order; empty where it is one."""
    if _PLUS.search(interest.text):
        texts = [text.strip() for text in _PLUS.split(interest.text)]
        return _distinct(texts) if all(any(map(str.isalnum, text)) for text in texts) else ()
    if interest.options or _OR.search(interest.text):
        return ()
    texts = [_ARTICLE.sub("", text.strip()) for text in _AND.split(interest.text)]
    if not all(texts):
        return ()
    first_of = texts[0].partition(" of ")[2]
    texts = [f"{_ITS.sub('', text)} of {first_of}" if first_of and _ITS.match(text) else text for text in texts]
    if len(texts) < 2 or not all(map(_names_property, texts)):
        return ()
    shared = texts[-1].partition(" of ")[2]
    if shared and singular(texts[-1].split()[0].lower()) in _OF_THINGS:
        texts = [f"{text} of {shared}" if singular(text.lower()) in _OF_THINGS else text for text in texts]
    return _distinct(texts)


def _distinct(texts: Sequence[str]) -> tuple[Interest, ...]:
    found = {interest.slug: interest for interest in map(Interest, texts)}
    return tuple(found.values()) if 2 <= len(found) <= MOST_PARTS else ()


def _names_property(text: str) -> bool:
    """ "color", "color of the car", "hair color", "time of day", "sharpness"."""
    words = text.lower().split()
    if len(words) > _MOST_WORDS:
        return False
    subject = [*words[: words.index("of")]] if "of" in words else words
    head = singular(subject[-1]) if subject else ""
    return head in _PROPERTIES or (head.endswith("ness") and len(head) > 6)


@dataclass(frozen=True, slots=True)
class Combination:
    """Pictures that are in these clusters of the parts. names: of these. images: ids, the surest first. folded: rare
    combinations that have the first part's cluster in common; where all of that are among them, names has it alone."""

    names: tuple[str, ...]
    images: tuple[str, ...]
    folded: bool = False

    @property
    def name(self) -> str:
        """Put together without grammar: "red, apple"."""
        return ", ".join((self.names[0], OTHER) if self.folded and len(self.names) > 1 else self.names)


def understood(parts: Sequence[Clustering]) -> Sequence[Clustering]:
    """The parts that answer their interest; the first alone where none does."""
    known = [part for part in parts if part.verdict is None or part.verdict.word != "not understood"]
    return known or parts[:1]


def places(parts: Sequence[Clustering]) -> dict[str, tuple[Assignment, ...]]:
    """Image id -> where each part has it; images that a part does not have are left out."""
    found = [{a.image_id: a for a in part.assignments} for part in parts]
    return {i: tuple(of[i] for of in found) for i in sorted(found[0]) if all(i in of for of in found)}


def combine(
    parts: Sequence[Clustering], level: Level = "medium", n_clusters: int | None = None
) -> tuple[Combination, ...]:
    """The combinations that occur, the largest first. Rare ones (of one picture; at level coarse under a fiftieth; or
    what goes beyond about n_clusters) are put together by the first part, "red, other", where that makes two."""
    where = places(parts)
    by_key: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for image_id, at in where.items():
        if all(a.cluster is not None for a in at):
            by_key[tuple(a.cluster or 0 for a in at)].append(image_id)
    placed = sum(map(len, by_key.values()))
    fewest = max(2, COARSE_SHARE * placed) if level == "coarse" else 2
    order = sorted(by_key, key=lambda key: (-len(by_key[key]), key))
    most = sum(len(by_key[key]) >= fewest for key in order)
    kept = min(most, n_clusters) if n_clusters is not None else most
    while kept > 0 and n_clusters is not None and kept + len(_folded(by_key, order[kept:])) > n_clusters:
        kept -= 1
    names = [{cluster.id: cluster.name for cluster in part.clusters} for part in parts]

    def made(keys: Sequence[tuple[int, ...]], folded: bool) -> Combination:
        ids = sorted((i for key in keys for i in by_key[key]), key=lambda i: (-sure(where[i]), i))
        own = tuple(of[k] for of, k in zip(names, keys[0], strict=True))
        is_whole = folded and all(key[0] != keys[0][0] for key in order[:kept])
        return Combination(own[:1] if is_whole else own, tuple(ids), folded)

    found = [made([key], folded=False) for key in order[:kept]]
    found += [made(keys, folded=len(keys) > 1) for keys in _folded(by_key, order[kept:])]
    return tuple(sorted(found, key=lambda one: (-len(one.images), one.name)))


def _folded(
    by_key: Mapping[tuple[int, ...], Sequence[str]], rare: Sequence[tuple[int, ...]]
) -> list[list[tuple[int, ...]]]:
    """Rare combinations by their first part, where they are two pictures together."""
    groups: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for key in rare:
        groups[key[0]].append(key)
    return [keys for keys in groups.values() if sum(len(by_key[key]) for key in keys) > 1]


def sure(at: Sequence[Assignment]) -> float:
    """That all parts are right, in [0, 1]: as if their mistakes had nothing to do with each other."""
    product = 1.0
    for assignment in at:
        product *= assignment.confidence
    return round(product, 4)


_DECIDED: tuple[DecidedBy, ...] = ("person", "choice", "description", "look", "")


def joint(image_id: str, at: Sequence[Assignment], cluster: int | None, parts: Sequence[Interest]) -> Assignment:
    """Where the combination has an image, and why."""
    loose = [(a, part) for a, part in zip(at, parts, strict=True) if a.cluster is None]
    if loose:
        reason = "; ".join(f"by {part.text}: {a.reason}" for a, part in loose)
        return Assignment(image_id, None, 0.0, reason, loose[0][0].decided_by)
    decided = min((a.decided_by for a in at), key=_DECIDED.index)
    if cluster is None:
        return Assignment(image_id, None, 0.0, "no other picture is of the same combination", decided)
    reason = "; ".join(f"by {part.text}: {a.reason}" for a, part in zip(at, parts, strict=True))
    return Assignment(image_id, cluster, sure(at), reason, decided)


def joint_estimate(parts: Sequence[Clustering]) -> Misplaced | None:
    """Misplaced by at least one part: at least as many as by the worst of them, at most as many as by all together."""
    each = [part.estimate for part in parts if part.estimate is not None]
    if len(each) < len(parts):
        return None
    right = 1.0
    for one in each:
        right *= 1 - one.share
    low, high = max(one.low for one in each), min(1.0, sum(one.high for one in each))
    basis: Basis = "looks" if any(one.basis == "looks" for one in each) else "answers"
    return Misplaced(round(1 - right, 4), round(low, 4), round(high, 4), basis)


def joint_verdict(parts: Sequence[Clustering]) -> Verdict | None:
    """The worst of the parts' verdicts, which says whose it is."""
    told = [(part.interest.text, part.verdict) for part in parts if part.verdict is not None]
    if not told:
        return None
    order = ("not understood", "check", "good")
    text, worst = min(told, key=lambda one: order.index(one[1].word))
    if worst.word == "good":
        return worst
    # What is left of the parts is understood: a combination is never groups by look with a name of its own.
    return Verdict("check", f'of "{text}": {worst.reason}', worst.advice)
