"""Whether nano understands an interest on some pictures: good, check, or not understood. No labels are needed.

In: signals of how it answers. Out: a `Verdict` with what to do. Promise: pure. The weights come from
`training/calibrate_verdict.py`: a logistic regression of "NMI with the labels is at least .45" on kinds of picture and
interests that a run of training left out, and on held-out pictures of those that it was taught.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Kind: TypeAlias = Literal["good", "check", "not understood"]

GOOD_FROM, CHECK_FROM = 0.5, 0.3
WEIGHTS = {"closeness": 0.46, "confidence": 1.87, "refused": -2.12, "agreement": 3.44, "far": -0.23, "spread": 4.54}
BIAS = -5.27

ADVICE: dict[Kind, str] = {
    "good": "",
    "check": (
        "Look at the exemplars before you rely on this; other words for the interest, or a larger model, may do better."
    ),
    "not understood": (
        "nano does not know this interest on these pictures, so they are grouped by look. Say it in other words, list "
        'the answers ("red, green or blue?"), or use a larger model.'
    ),
}


@dataclass(frozen=True, slots=True)
class Signals:
    """closeness: cosine of the interest to the nearest that nano was taught, 1 where it lists its options. confidence:
    mean of the descriptions'. refused: share of "does not apply" and "cannot tell". agreement: of the descriptions with
    those under other wordings, in [0, 1]. far: how unlike the pictures are to what it was taught on, about 1 for like.
    spread: 0 where H is the same for all pictures, towards 1 where it differs."""

    closeness: float
    confidence: float
    refused: float
    agreement: float
    far: float
    spread: float

    @classmethod
    def nothing(cls, closeness: float) -> Signals:
        """Of no pictures at all."""
        return cls(closeness, 0.0, 1.0, 0.0, 1.0, 0.0)

    def row(self) -> dict[str, float]:
        """As the regression reads them."""
        return {
            "closeness": self.closeness, "confidence": self.confidence, "refused": self.refused,
            "agreement": self.agreement, "far": min(math.log(max(self.far, 0.1)), 3.0), "spread": self.spread,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """kind, the probability that the answers are of use, what it rests on, and what to do (empty where good)."""

    kind: Kind
    probability: float
    signals: Signals

    @property
    def advice(self) -> str:
        return ADVICE[self.kind]


def decide(signals: Signals) -> Verdict:
    odds = BIAS + math.fsum(WEIGHTS[name] * value for name, value in signals.row().items())
    # Refusals that agree with each other are no answers all the same.
    probability = min(1.0, 2 - 2 * signals.refused) / (1 + math.exp(-max(-50.0, min(50.0, odds))))
    kind: Kind = "good" if probability >= GOOD_FROM else "check" if probability >= CHECK_FROM else "not understood"
    return Verdict(kind, probability, signals)


def rewordings(interest: str) -> tuple[str, ...]:
    """Other ways to say an interest."""
    bare = interest.strip().rstrip("?.!")
    return (f"group the pictures by {bare}", f"{bare} of the picture", f"what is the {bare}?")


def agreement(some: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    """The adjusted Rand index of two groupings of the same pictures, in [0, 1]; 1 where both have one group."""
    n = len(some)
    if n < 2:
        return 1.0
    _, one = np.unique(some, return_inverse=True)
    _, two = np.unique(others, return_inverse=True)
    table = np.zeros((one.max() + 1, two.max() + 1))
    np.add.at(table, (one, two), 1)

    def pairs(counts: NDArray[np.float64]) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, left, right, every = pairs(table), pairs(table.sum(1)), pairs(table.sum(0)), n * (n - 1) / 2
    expected, most = left * right / every, (left + right) / 2
    return 1.0 if most == expected else max(0.0, (both - expected) / (most - expected))
