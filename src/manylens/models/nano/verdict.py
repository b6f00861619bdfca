"""Whether nano understands an interest on some pictures: good, check, or not understood. No labels are needed.

In: signals of how it answers. Out: a `Verdict` with what to do. Promise: pure. The weights come from
`training/encoder/calibrate_verdict.py`: a logistic regression of "NMI with the labels is at least .45" on kinds of
picture and interests that a run of training left out, and on held-out pictures of those that it was taught. What
nano knows and finds hard all the same, no such signal shows: there the bank says what was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manylens.types import Verdict

GOOD_FROM, CHECK_FROM = 0.5, 0.3
OF_USE = 0.45  # NMI
MOST = 0.5
WEIGHTS = {"closeness": 0.46, "confidence": 1.87, "refused": -2.12, "agreement": 3.44, "far": -0.23, "spread": 4.54}
BIAS = -5.27

_TYPICAL = {
    "closeness": (0.9, "it was taught nothing near this interest"),
    "confidence": (0.8, "it is unsure of its answers"),
    "refused": (0.05, "it has no answer for {refused:.0%} of the pictures"),
    "agreement": (0.8, "the interest in other words gets other answers"),
    "far": (0.0, "the pictures are unlike those that it was taught on"),
    "spread": (0.4, "it hardly sees a difference between the pictures"),
}
"""Of each signal, its value where nano understands, and what it means where it speaks most against that."""

_HARD = "this is hard for the model: of pictures like these, kept out of its training, it had {right:.0%} right"
_ELSEWHERE = "it learned to answer this on another kind of picture ({kind})"
_MOSTLY_WRONG = "by how sure it is of its answers, most of them are wrong"
_UNSURE = "by how sure it is of its answers, the model sees only a part of how the pictures differ in this"
_UNHEARD = "the answers that the interest lists are none that the model was taught"
_GOOD = "the model knows what is asked, and the interest in other words gets the same answers"
_READ_AS = 'the model reads the interest as "{read_as}", and in other words it gets the same answers'
_ADVICE_READ_AS = "If something else is meant, say the interest in other words, or use a larger model."
_ADVICE = 'Say the interest in other words, list the answers ("red, green or blue?"), or use a larger model.'
_ADVICE_UNHEARD = "List the answers in other words, ask without a list, or use a larger model."
_CHECK = "Look at the exemplars before you rely on this. "


@dataclass(frozen=True, slots=True)
class Signals:
    """closeness: cosine of the interest to the nearest that nano was taught, 1 where it lists its options. confidence:
    mean of the descriptions'. refused: share of "does not apply" and "cannot tell". agreement: of the descriptions with
    those under other wordings, in [0, 1]. far: how unlike the pictures are to what it was taught on, about 1 for like.
    spread: 0 where H is the same for all pictures, towards 1 where it differs. measured, right: the NMI and the share
    of right answers of what is asked for, on pictures kept out of training, where known. elsewhere: the kind of picture
    that it was taught on, where these are of another. is_known: whether the options that it lists were taught in these
    words or in others. told: how much of what the
    pictures differ in the answers tell, if they are right as often as it states (`foreseen`).
    read_as: the interest that it was taught and takes this one for, where the words are others."""

    closeness: float
    confidence: float
    refused: float
    agreement: float
    far: float
    spread: float
    measured: float = math.nan
    right: float = math.nan
    elsewhere: str = ""
    is_known: bool = True
    told: float = math.nan
    read_as: str = ""

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


def probability(signals: Signals) -> float:
    """That the answers are of use, in [0, 1]."""
    odds = BIAS + math.fsum(WEIGHTS[name] * value for name, value in signals.row().items())
    # Refusals that agree with each other are no answers all the same.
    return min(1.0, 2 - 2 * signals.refused) / (1 + math.exp(-max(-50.0, min(50.0, odds))))


def decide(signals: Signals) -> Verdict:
    p, row = probability(signals), signals.row()
    if p >= GOOD_FROM:
        if signals.measured < OF_USE:
            reason = (_ELSEWHERE if signals.elsewhere else _HARD).format(kind=signals.elsewhere, right=signals.right)
            return Verdict("check", reason, _CHECK + _ADVICE)
        if signals.confidence < MOST:
            return Verdict("check", _MOSTLY_WRONG, _CHECK + _ADVICE)
        if signals.told < OF_USE:
            return Verdict("check", _UNSURE, _CHECK + _ADVICE)
        if not signals.is_known:
            return Verdict("check", _UNHEARD, _CHECK + _ADVICE_UNHEARD)
        if signals.read_as:
            return Verdict("good", _READ_AS.format(read_as=signals.read_as), _ADVICE_READ_AS)
        return Verdict("good", _GOOD)
    worst = min(_TYPICAL, key=lambda name: WEIGHTS[name] * (row[name] - _TYPICAL[name][0]))
    reason = (
        "the model may not understand: " if p >= CHECK_FROM else "the model does not understand this interest here: "
    )
    if signals.elsewhere:
        reason += _ELSEWHERE.format(kind=signals.elsewhere)
    else:
        reason += _TYPICAL[worst][1].format(refused=signals.refused)
    return Verdict("check", reason, _CHECK + _ADVICE) if p >= CHECK_FROM else Verdict("not understood", reason, _ADVICE)


def rewordings(interest: str) -> tuple[str, ...]:
    """Other ways to say an interest."""
    bare = interest.strip().rstrip("?.!")
    return (f"group the pictures by {bare}", f"{bare} of the picture", f"what is the {bare}?")


def foreseen(shares: NDArray[np.floating]) -> float:
    """How much of what the pictures differ in the likeliest answers tell, if the true ones are drawn from `shares` (n,
    answers): Theil's uncertainty coefficient, 1 - H(true | said) / H(true), in [0, 1].

    Mean confidence does not show it: two answers that are right in 80% tell little of a picture, ten tell much. H(true)
    is taken as one bit at least, so that pictures which are surely all the same leave nothing open.
    """
    joint = np.zeros((shares.shape[1], shares.shape[1]))
    np.add.at(joint, shares.argmax(1), shares.astype(np.float64))
    joint /= joint.sum()

    def bits(of: NDArray[np.float64]) -> float:
        there = of[of > 0]
        return float(-(there * np.log2(there)).sum())

    return 1 - (bits(joint.ravel()) - bits(joint.sum(1))) / max(bits(joint.sum(0)), 1.0)


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
