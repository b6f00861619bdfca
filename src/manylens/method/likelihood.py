"""What a similarity, a category, a look's confidence and an answer say about where an image belongs.

Two small models are fitted to the answers of this very run, with priors that hold where few answers are in:

`ChoiceModel`  a conditional logit. A unit belongs to cluster c with odds exp(beta * H(u).H(c) + b + kappa [the writer
               put both into one category]) against belonging to none: the paper's edge weight with c's mean direction.
`MemberModel`  a logistic regression of "this image is not where its unit is" on the look's confidence and the unit's
               size.

Both are fitted to images that were asked because of what the models see (similarity, confidence, size), never because
of the answer; given those, asked and unasked images are alike. That is the assumption under which adaptive asking is
harmless.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]

PRIOR_CATEGORY = 3.0
"""kappa before anything is known: a writer's grouping is right some 20 times in 21."""

PRIOR_MISPLACED = 0.06
PRIOR_CONFIDENCE = -1.0
"""The share of images that are not where their unit is, and what a unit of log-odds of a look's confidence does to it:
a stated confidence is believed as far as it differs from the others'."""

UNIT_STRENGTH = 4.0
"""How many answers the prior of a unit's share of misplaced images is worth."""

_CHOICE_PRECISION = (0.0625, 0.125, 0.5)
_MEMBER_PRECISION = (1.0, 2.0, 8.0)
_STEPS = 20
_MOST_AHEAD = 100


@dataclass(frozen=True, slots=True)
class ChoiceModel:
    """beta, b, kappa of the conditional logit."""

    scale: float
    offset: float
    category: float = PRIOR_CATEGORY

    def odds(self, similarity: FloatArray, same_category: FloatArray) -> FloatArray:
        """Log-odds against "none", of the arguments' shape."""
        return self.scale * similarity + self.offset + self.category * same_category

    def fitted(
        self, features: FloatArray, answers: FloatArray, shown: NDArray[np.bool_], misplaced: FloatArray | float = 0.0
    ) -> ChoiceModel:
        """Maximum a posteriori around this model. features: (q, k, 3) similarity, 1, same category, of each option.
        answers: (q, k + 1) likelihoods, the last of none. shown: (q, k), which options there were. misplaced: (q,) the
        probability that the image is not where its unit is; then its answer tells nothing of that."""
        prior = np.array([self.scale, self.offset, self.category])
        if len(features) == 0:
            return self
        x = np.concatenate([features, np.zeros((len(features), 1, 3))], axis=1)
        there = np.concatenate([shown, np.ones((len(features), 1), dtype=bool)], axis=1)
        precision = np.diag(_CHOICE_PRECISION)
        theta = prior.copy()
        for _ in range(_STEPS):
            z = np.where(there, x @ theta, -np.inf)
            p = np.exp(z - z.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            target = p * np.where(there, answers, 0.0)
            there_by_kind = (1 - misplaced) * target.sum(axis=1)
            by_chance = misplaced * (0.5 * target.sum(axis=1) + 0.5 * (answers * there).sum(axis=1) / there.sum(axis=1))
            weight = there_by_kind / (there_by_kind + by_chance)
            target /= target.sum(axis=1, keepdims=True)
            gradient = np.einsum("q,qk,qkf->f", weight, target - p, x) - precision @ (theta - prior)
            mean = np.einsum("qk,qkf->qf", p, x)
            curvature = np.einsum("q,qk,qkf,qkg->fg", weight, p, x, x) - (mean.T * weight) @ mean + precision
            step = np.clip(np.linalg.solve(curvature, gradient), -1, 1)
            theta += step
            if np.abs(step).max() < 1e-4:
                break
        return ChoiceModel(max(float(theta[0]), 1.0), float(theta[1]), float(theta[2]))


@dataclass(frozen=True, slots=True, eq=False)
class MemberModel:
    """Weights of the features in the log-odds that an image is not where its unit is; covariance: of the weights."""

    weights: FloatArray
    covariance: FloatArray

    @classmethod
    def prior(cls) -> MemberModel:
        start = math.log(PRIOR_MISPLACED / (1 - PRIOR_MISPLACED))
        return cls(np.array([start, PRIOR_CONFIDENCE, 0.0]), np.diag([1 / p for p in _MEMBER_PRECISION]))

    def misplaced(self, features: FloatArray) -> FloatArray:
        """features: (n, 3), as `member_features` gives them."""
        share: FloatArray = 1 / (1 + np.exp(-np.clip(features @ self.weights, -30, 30)))
        return share

    def fitted(self, features: FloatArray, misplaced: FloatArray) -> MemberModel:
        """Maximum a posteriori around this model. misplaced: (q,) in [0, 1], how likely each asked image was."""
        precision = np.linalg.inv(self.covariance)
        weights = self.weights.copy()
        curvature = precision
        for _ in range(_STEPS):
            p = 1 / (1 + np.exp(-np.clip(features @ weights, -30, 30)))
            gradient = features.T @ (misplaced - p) - precision @ (weights - self.weights)
            curvature = features.T @ (features * (p * (1 - p))[:, None]) + precision
            step = np.clip(np.linalg.solve(curvature, gradient), -1, 1)
            weights += step
            if np.abs(step).max() < 1e-4:
                break
        return MemberModel(weights, np.linalg.inv(curvature))


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """What answers of earlier runs teach the two models, as their `fitted` takes it: of the choice model features,
    answers, shown, misplaced; of the member model members, elsewhere."""

    features: FloatArray
    answers: FloatArray
    shown: NDArray[np.bool_]
    misplaced: FloatArray
    members: FloatArray
    elsewhere: FloatArray


def member_features(confidences: NDArray[np.float32], sizes: NDArray[np.int64]) -> FloatArray:
    """(n, 3): 1, the log-odds of the look's confidence around its mean (0 where all are equal, or not known), and the
    log2 of how many images share its unit: common descriptions are the more reliable ones."""
    p = np.clip(confidences.astype(np.float64), 0.02, 0.98)
    odds = np.log(p / (1 - p))
    centred = odds - odds.mean() if len(odds) else odds
    return np.stack([np.ones(len(p)), centred, np.log2(sizes)], axis=1)


@lru_cache(maxsize=4096)
def pays_to_ask(share: float, strength: float, price: float, images: int) -> tuple[tuple[bool, ...], ...]:
    """[asked][misplaced so far]: whether asking about a further image of a unit is worth it, by dynamic programming.

    share, strength: the Beta prior of the unit's share of misplaced images, its mean and how many answers it is worth.
    price: pictures that a question must be expected to put right. images: in the unit. An answer that finds a
    misplaced image puts it right; every answer sharpens the posterior, on which all later questions depend.
    """
    if images > _MOST_AHEAD:
        images = 2 ** (images - 1).bit_length()  # large units need no table each
    ahead = min(images, _MOST_AHEAD)

    def expected(asked: int) -> FloatArray:
        return np.asarray((strength * share + np.arange(asked + 1)) / (strength + asked), dtype=np.float64)

    worth: FloatArray = np.maximum(0.0, (expected(ahead) - price) * (images - ahead))
    table = [worth > 0]
    for asked in range(ahead - 1, -1, -1):
        mean = expected(asked)
        going_on = mean - price + mean * worth[1:] + (1 - mean) * worth[:-1]
        table.append(going_on > 0)
        worth = np.maximum(0.0, going_on)
    return tuple(tuple(row.tolist()) for row in reversed(table))
