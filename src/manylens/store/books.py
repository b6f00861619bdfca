"""What a run has sent in vain, as its database keeps it: so that a limit holds across runs, kills and failures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Spent(NamedTuple):
    """Requests, and the tokens that they took: as the server counted them, else the most that they may have taken."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def plus(self, other: Spent) -> Spent:
        return Spent(
            self.requests + other.requests, self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out
        )

    def minus(self, other: Spent) -> Spent:
        """Never below nothing."""
        return Spent(*(max(0, a - b) for a, b in zip(self, other, strict=True)))

    def share(self, part: int, of: int) -> Spent:
        return Spent(*(-(-number * part // of) for number in self)) if of else Spent()


@dataclass(frozen=True, slots=True)
class Books:
    """Requests that no stored answer stands for. vain: those that ended so. under_way: those whose end is not known
    yet; what is found there by the next run was lost with its process. answered: by model and interest, those that
    ended in an answer, whether a later run uses it or not; empty in runs of earlier versions."""

    vain: Spent = field(default_factory=Spent)
    under_way: Spent = field(default_factory=Spent)
    answered: Mapping[str, Spent] = field(default_factory=dict, compare=False)

    def to_json(self) -> str:
        return json.dumps([self.vain, self.under_way, self.answered])

    @classmethod
    def from_json(cls, text: str) -> Books:
        """Raises ValueError for a text that is none of ours."""
        try:
            *rows, topics = [*json.loads(text), {}][:3]
            vain, under_way = (Spent(*numbers) for numbers in rows)
            answered = {topic: Spent(*numbers) for topic, numbers in topics.items()}
            counts = [number for spent in (vain, under_way, *answered.values()) for number in spent]
            if all(type(number) is int and number >= 0 for number in counts):
                return cls(vain, under_way, answered)
        except (AttributeError, TypeError, ValueError, RecursionError):
            pass
        raise ValueError(f"the account of a run is two rows of three counts, got {text[:80]!r}")
