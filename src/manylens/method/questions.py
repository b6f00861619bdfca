"""What the pure stages ask and are answered.

A stage is a generator: it yields rounds of questions, is sent one answer per question in order, and returns its result.
Whoever drives it decides how rounds become calls.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from manylens.types import MOST_OPTIONS as MOST_OPTIONS
from manylens.writing import WritingTask, Written

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Statement:
    """A cluster as the model is told of it. exemplars: images, the most typical first."""

    name: str
    definition: str = ""
    exemplars: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of these clusters does the image belong to, or none of them? At most `MOST_OPTIONS` options."""

    image: int
    options: tuple[Statement, ...]


Question: TypeAlias = Choice | WritingTask


@dataclass(frozen=True, slots=True)
class Answer:
    """probabilities: of each option, then of none; empty where the call failed or (`spent`) the budget is used up.
    reason: the model's words on a choice. written: the answer to a writing task, or None."""

    probabilities: tuple[float, ...] = ()
    reason: str = ""
    written: Written | None = None
    spent: bool = False

    @property
    def chosen(self) -> int | None:
        """The most probable option; None for none of them. Asks for probabilities."""
        best = max(range(len(self.probabilities)), key=lambda k: (self.probabilities[k], -k))
        return None if best == len(self.probabilities) - 1 else best


Steps: TypeAlias = Generator[Sequence[Question], Sequence[Answer], T]
