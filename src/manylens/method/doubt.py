"""Which images are probably not where they are, by their look and by what a person moved and confirmed.

In: looks, the cluster of each image, and how confident that is. Out: for each image the probability that it is
misplaced, and of each cluster that it belongs there. Promise: pure; nothing is asked.

Two parts. A linear classifier on the looks' embeddings (the paper's H) says where an image belongs, were it placed by
its look alone: the distance to each cluster's mean, without the image itself, under the clusters' common covariance;
its one number, how far distances are believed, is fitted to the placements. And a logistic regression weighs that
against the confidence with which the image was placed; its weights are fitted to the images about which a person spoke.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manylens.method.likelihood import FloatArray
from manylens.method.observations import sum_by_group

NONE = -1
"""In place of a cluster: none."""

_BLOCK = 8192
_ENOUGH_IMAGES = 5000
"""Of which the common covariance and the belief are taken: a dozen for each of 400 dimensions."""

_LEAST = 1e-4
_BELIEFS = tuple(2.0**power for power in range(-10, 3))
"""How far distances may be believed."""

_FARTHEST = 6.0
"""Log-odds by which a look speaks for another cluster at the most: beyond 400 to 1 the Gaussian is not believed."""

PRIOR_WEIGHTS = (0.0, 1.0, 0.25)
"""Before a person spoke: of 1, of the log-odds that the confidence leaves, of the look's margin. A model that was asked
knows more than its looks: in the worlds of `bench.worlds` a larger weight finds fewer of its mistakes."""

_PRECISION = (0.1, 1.0, 1.0)
ENOUGH = 8
"""Images about which a person spoke, before the weights are fitted to them."""

_STEPS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """log_odds: (n, K), of each cluster by the look alone: normalised log-probabilities. belief: as fitted."""

    log_odds: FloatArray
    belief: float

    def margin(self, cluster: NDArray[np.int64]) -> FloatArray:
        """(n,) log-odds of the likeliest other cluster against the one that an image is in; 0 where it is in none or
        there is no other."""
        n, k = self.log_odds.shape
        found = np.zeros(n)
        rows = np.flatnonzero(cluster != NONE)
        if k < 2 or not len(rows):
            return found
        odds = self.log_odds[rows]
        own = odds[np.arange(len(rows)), cluster[rows]]
        others = odds.copy()
        others[np.arange(len(rows)), cluster[rows]] = -np.inf
        found[rows] = np.clip(others.max(axis=1) - own, -_FARTHEST, _FARTHEST)
        return found


def fit_head(embeddings: NDArray[np.float32], cluster: NDArray[np.int64], weight: FloatArray, clusters: int) -> Head:
    """embeddings: (n, d). cluster: (n,) in 0..clusters-1 or NONE. weight: (n,) how sure that is, 1 for a person's."""
    n = len(embeddings)
    rows = np.flatnonzero(cluster != NONE)
    if clusters == 0 or not len(rows):
        return Head(np.zeros((n, max(clusters, 1))), 0.0)
    at, w = cluster[rows], np.clip(weight[rows], _LEAST, 1.0)
    total = np.bincount(at, weights=w, minlength=clusters)
    sums = sum_by_group(embeddings[rows] * w[:, None].astype(np.float32), at, clusters)
    means: NDArray[np.float32] = (sums / np.maximum(total, _LEAST)[:, None]).astype(np.float32)
    some = np.arange(0, len(rows), 1 + len(rows) // _ENOUGH_IMAGES)
    rest: NDArray[np.float32] = np.subtract(embeddings[rows[some]], means[at[some]])
    half = _whitening(rest, w[some])
    m = means @ half
    squares = (m**2).sum(axis=1)
    distances = np.empty((n, clusters), dtype=np.float64)
    for start in range(0, n, _BLOCK):
        z = embeddings[start : start + _BLOCK] @ half
        distances[start : start + _BLOCK] = (z**2).sum(axis=1)[:, None] - 2 * z @ m.T + squares
    distances = np.maximum(distances, 0.0)
    # Without the image itself its mean lies farther off: by the factor T / (T - w).
    left = total[at] - w
    own = distances[rows, at]
    alone = left <= _LEAST
    distances[rows, at] = np.where(alone, np.median(own), own * (total[at] / np.where(alone, 1.0, left)) ** 2)
    distances[:, total <= 0] = np.inf
    tried = distances[rows[some]]
    belief, best = 0.0, -math.inf
    for candidate in _BELIEFS:
        odds = -0.5 * candidate * tried
        fit = float((w[some] * (odds[np.arange(len(tried)), at[some]] - _log_sum(odds))).sum())
        if fit > best:
            belief, best = candidate, fit
    odds = -0.5 * belief * distances
    return Head(odds - _log_sum(odds)[:, None], belief)


def _whitening(rest: NDArray[np.float32], weight: FloatArray) -> NDArray[np.float32]:
    """(d, d): by which the images of a cluster are scattered alike in every direction. rest: (m, d) from their means.
    As much of it is round as the images leave room for: with fewer of them than dimensions, most."""
    d = rest.shape[1]
    mass = float(weight.sum())
    within = ((rest * weight[:, None].astype(np.float32)).T @ rest).astype(np.float64) / mass
    share = d / (d + mass)
    within = (1 - share) * within + share * max(float(np.trace(within)) / d, 1e-6) * np.eye(d)
    half: NDArray[np.float32] = np.linalg.cholesky(np.linalg.inv(within)).astype(np.float32)
    return half


def _log_sum(odds: FloatArray) -> FloatArray:
    most = odds.max(axis=1)
    total: FloatArray = most + np.log(np.exp(odds - most[:, None]).sum(axis=1))
    return total


@dataclass(frozen=True, slots=True, eq=False)
class Spoken:
    """What a person said of images: moved, those that were put elsewhere than the model had them; kept, those that were
    confirmed. Indices of images."""

    moved: NDArray[np.int64]
    kept: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Doubts:
    """share: (n,) the probability of each image that it is not where the model put it, which sums to what the
    confidences say. odds: (n,) its log-odds where as many are misplaced as among those that a person spoke of; without
    enough of them those of `share`."""

    share: FloatArray
    odds: FloatArray


def misplaced(confidence: FloatArray, margin: FloatArray, spoken: Spoken | None = None) -> Doubts:
    """confidence, margin: (n,) of the model's placement.

    Whoever corrects looks for mistakes, so how many a person moved says nothing of how many there are: moved images are
    compared with those that stayed and as many of all others. That gives the weights; how many are misplaced is left as
    the confidences have it, until questions show better (`method.resort`).
    """
    p = np.clip(confidence, 0.001, 0.999)
    features = np.stack([np.ones(len(p)), np.log((1 - p) / p), margin], axis=1)
    weights, is_fitted = np.array(PRIOR_WEIGHTS), False
    if spoken is not None and len(spoken.moved) + len(spoken.kept) >= ENOUGH and len(spoken.moved):
        target = np.zeros(len(p))
        count = np.full(len(p), len(spoken.moved) / len(p))
        target[spoken.moved] = 1.0
        count[spoken.moved] = count[spoken.kept] = 1.0
        weights, is_fitted = _fitted(features, target, count), True
    odds = features @ weights
    total = odds + _shift(odds, float((1 - p).sum()))
    return Doubts(logistic(total), odds if is_fitted else total)


def logistic(odds: FloatArray) -> FloatArray:
    share: FloatArray = 1 / (1 + np.exp(-np.clip(odds, -30, 30)))
    return share


def _shift(odds: FloatArray, total: float) -> float:
    """What is added to all log-odds so that the probabilities sum to `total`."""
    low, high = -40.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if logistic(odds + middle).sum() < total else (low, middle)
    return (low + high) / 2


def _fitted(features: FloatArray, target: FloatArray, count: FloatArray) -> FloatArray:
    """Maximum a posteriori around the prior, by Newton's steps, halved until each gains. count: of each row."""
    prior, precision = np.array(PRIOR_WEIGHTS), np.array(_PRECISION)

    def gain(weights: FloatArray) -> float:
        odds = features @ weights
        likely = count * (target * odds - np.logaddexp(0, odds))
        return float(likely.sum() - 0.5 * (precision * (weights - prior) ** 2).sum())

    weights, now = prior.copy(), gain(prior)
    for _ in range(_STEPS):
        p = logistic(features @ weights)
        gradient = features.T @ (count * (target - p)) - precision * (weights - prior)
        curvature = features.T @ (features * (count * p * (1 - p))[:, None]) + np.diag(precision)
        step = np.linalg.solve(curvature, gradient)
        while np.abs(step).max() > 1e-4 and gain(weights + step) <= now:
            step = step / 2
        if np.abs(step).max() <= 1e-4:
            break
        weights = weights + step
        now = gain(weights)
    return weights
