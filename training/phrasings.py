"""Thousands of ways to say one interest, composed from nouns, subjects, templates and answers.

In: a table of `interests.toml`. Out: one random phrasing a call. Why: trained on some 37 fixed phrasings for each
interest, nano learned them by heart and read unseen ones as another interest (accuracy 0 on some); composed ones make
it read the words. The `heldout` phrasings are never produced on purpose and are used for reporting only.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

ANY_SUBJECT = (("image", "images"), ("picture", "pictures"), ("photo", "photos"), ("photograph", "photographs"))

TEMPLATES = (
    "{n}", "the {n}", "{n} of the {s}", "the {n} of the {s}", "{n} of the {p}", "{n} of each {s}", "the {s}'s {n}",
    "{s} {n}", "{p} by {n}", "by {n}", "by the {n} of the {s}", "group by {n}", "group the {p} by {n}",
    "group these {p} by their {n}", "sort by {n}", "sort the {p} by their {n}", "sort my {p} by {n}", "cluster by {n}",
    "cluster these {p} by {n}", "split the {p} by {n}", "what is the {n}?", "what's the {n} of this {s}?",
    "what is the {n} of the {s}", "which {n} is it?", "what {n} is it?", "which {n} does the {s} have?",
    "what {n} does the {s} have?", "tell me the {n}", "{n} shown in the {s}", "{n} in the {s}", "different {n}s",
    "{n}s", "{n}s of the {p}", "organise by {n}", "organize {p} by {n}", "{n}, please", "please group by {n}",
    "arrange the {p} according to their {n}", "according to {n}", "categorise the {p} by {n}", "separate {p} by {n}",
    "what {n} is shown", "what {n} can be seen?", "how would you describe the {n}?", "classify by {n}",
    "identify the {n}", "the {n} of every {s}", "{n} per {s}", "each {s}'s {n}", "interested in the {n}",
    "{p} with the same {n}", "same {n} together", "put {p} of the same {n} together", "based on the {n}",
    "in terms of {n}", "I care about the {n}", "show me the {n}s", "make groups by {n}", "with respect to {n}",
    "{n} and nothing else", "which {n}", "what {n}", "whatever {n} the {s} has", "{n} or {m}", "{n} ({m})",
    "{n}, i.e. {m}",
)  # fmt: skip
VALUE_TEMPLATES = (
    "{a}, {b} or {c}?", "is it {a}, {b} or {c}?", "{a} or {b}", "{a} or {b}?", "whether it is {a} or {b}",
    "{a}, {b}, {c} ...", "{n}: {a}, {b}, {c}", "{n} ({a}, {b}, ...)", "{n}, for example {a} or {b}",
    "is the {n} {a} or {b}?",
)  # fmt: skip


@dataclass
class Phrasings:
    """One interest's vocabulary; `draw` gives a phrasing."""

    listed: list[str]
    nouns: list[str]
    subjects: list[str]
    plurals: list[str]
    questions: list[str]
    values: list[str] = field(default_factory=list)
    never: frozenset[str] = frozenset()
    """Held-out phrasings in folded form."""

    @classmethod
    def from_table(cls, table: dict[str, Any], values: list[str]) -> Phrasings:
        never = frozenset(map(_folded, table["heldout"]))
        return cls(
            table["train"], table["nouns"], table["subjects"], table["plurals"], table["questions"], values, never
        )

    def draw(self, rng: random.Random) -> str:
        while _folded(text := self._compose(rng)) in self.never:
            pass
        return text

    def _compose(self, rng: random.Random) -> str:
        chance = rng.random()
        if chance < 0.22:
            text = rng.choice(self.listed)
        else:
            s, p = rng.choice(list(zip(self.subjects, self.plurals, strict=True)))
            if rng.random() < 0.3:
                s, p = rng.choice(ANY_SUBJECT)
            if chance < 0.36:
                text = rng.choice(self.questions).replace("{subject}", s).replace("{plural}", p)
            elif chance < 0.46 and len(self.values) > 2:
                a, b, c = rng.sample(self.values, 3)
                text = rng.choice(VALUE_TEMPLATES).format(a=a, b=b, c=c, n=rng.choice(self.nouns))
            else:
                n, m = rng.choice(self.nouns), rng.choice(self.nouns)
                text = rng.choice(TEMPLATES).format(n=n, m=m, s=s, p=p)
        return _surface(text, rng)


def _folded(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def _surface(text: str, rng: random.Random) -> str:
    """The small changes of hurried typing: letter case, end marks, a dropped article, a slip of two letters."""
    chance = rng.random()
    if chance < 0.12:
        text = text[:1].upper() + text[1:]
    elif chance < 0.15:
        text = text.upper()
    if rng.random() < 0.10:
        text = text.rstrip("?.") + rng.choice(("", "", ".", "?", " ?"))
    if rng.random() < 0.08:
        text = text.replace(" the ", " ").removeprefix("the ")
    if rng.random() < 0.04 and len(text) > 8:
        at = rng.randrange(1, len(text) - 2)
        text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text
