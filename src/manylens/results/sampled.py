"""What a look at a few pictures found: interests that are suggested, and a preview of one.

In: paths and words. Out: values that the command line, Python and web pages show. Promise: read only; `to_dict` is
JSON-able.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from manylens.types import Verdict


@dataclass(frozen=True, slots=True)
class Group:
    """An answer that occurs on the sample, and the pictures that have it, by path."""

    name: str
    pictures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An interest. groups: what the sample falls into, the largest first. answered: share of it that has an answer.
    command: sorts all pictures by it."""

    interest: str
    groups: tuple[Group, ...]
    answered: float
    command: str


@dataclass(frozen=True, slots=True)
class Suggestions:
    """What a folder could be sorted by, the most useful first. out: the run folder that holds the answers. pictures:
    the sample, by path. found: files in the folder that may be pictures. calls_asked: model calls made now;
    calls_kept: answers that were there already. command: sorts by all of them in one run; empty where there is none."""

    out: Path
    model: str
    pictures: tuple[str, ...]
    found: int
    suggestions: tuple[Suggestion, ...]
    calls_asked: int
    calls_kept: int
    command: str = ""

    def __iter__(self) -> Iterator[Suggestion]:
        return iter(self.suggestions)

    def __len__(self) -> int:
        return len(self.suggestions)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}


@dataclass(frozen=True, slots=True)
class SeenPicture:
    """What the model said of a picture, as it is looked at through the interest. confidence in [0, 1]."""

    path: str
    description: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Wording:
    """Another interest to try. verdict: the model's on these pictures ("good", "check"), or empty. groups: names of
    those that it makes of them; why: what would differ, by a model that writes."""

    interest: str
    verdict: str
    groups: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Part:
    """One interest, or one part of a compound one. pictures: by path. groups: by the descriptions alone. unanswered:
    pictures without an answer. failed: (path, reason) of looks that failed. doubt: why the model may not read the
    words, or empty."""

    interest: str
    verdict: Verdict | None
    pictures: tuple[SeenPicture, ...]
    groups: tuple[Group, ...]
    unanswered: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    wordings: tuple[Wording, ...]
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """What an interest would make of a folder. parts: one, or those of a compound interest, whose `combinations` are
    the groups by all of them. found: files that may be pictures. calls_asked, calls_kept: as in `Suggestions`. hints:
    what to do about it, in sentences. command: sorts all pictures."""

    interest: str
    out: Path
    model: str
    parts: tuple[Part, ...]
    combinations: tuple[Group, ...]
    found: int
    calls_asked: int
    calls_kept: int
    hints: tuple[str, ...]
    command: str

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.combinations if len(self.parts) > 1 else self.parts[0].groups

    @property
    def verdict(self) -> Verdict | None:
        """Of the part that is understood least."""
        order = ("not understood", "check", "good")
        told = [part.verdict for part in self.parts if part.verdict is not None]
        return min(told, key=lambda verdict: order.index(verdict.word), default=None)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}
