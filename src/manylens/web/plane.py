"""The plane of an interest's embeddings: near points are alike.

In: embeddings of unit length. Out: a point for each, within -1 to 1. Promise: the same embeddings give the same plane.

Two are made. `principal_plane` (PCA) is there in a second, whatever the number. `neighbour_plane` (exact t-SNE, van der
Maaten and Hinton 2008) keeps neighbours together, as the first cannot where there are more than a few clusters; past
`LANDMARKS` images it is made of so many of them, and the others are put between those that they are nearest to.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float16]
Points = NDArray[np.float32]

LANDMARKS = 2000
"""An exact t-SNE holds some matrices of LANDMARKS by LANDMARKS and takes half a minute on one core."""

_PERPLEXITY = 30.0
_STEPS = 400
_EXAGGERATED_STEPS = 100
_EXAGGERATION = 12.0
_MOMENTA = (0.5, 0.8)
_LEAST_GAIN = 0.01
"""As van der Maaten's own implementation has them; its 1000 steps change little after 400."""

_NEAREST = 3
"""Landmarks between which another image is put."""

_SHARPNESS = 40.0
"""Of their weights, exp(_SHARPNESS * cosine): one that is nearer by .05 counts seven times as much."""

_BLOCK_ROWS = 4096


def principal_plane(vectors: Vectors) -> Points:
    """The two directions in which the embeddings differ most."""
    n, d = vectors.shape
    if n == 0:
        return np.zeros((0, 2), np.float32)
    mean = np.zeros(d)
    square = np.zeros((d, d))
    for start in range(0, n, _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS].astype(np.float32)
        mean += block.sum(axis=0, dtype=np.float64)
        square += block.T @ block
    mean /= n
    _, directions = np.linalg.eigh(square / n - np.outer(mean, mean))
    axes = directions[:, ::-1][:, :2]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])  # else they are LAPACK's choice
    axes = (axes * np.where(signs == 0, 1, signs)).astype(np.float32)
    points = np.zeros((n, 2), np.float32)
    for start in range(0, n, _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS].astype(np.float32)
        points[start : start + _BLOCK_ROWS, : axes.shape[1]] = (block - mean.astype(np.float32)) @ axes
    return _within_bounds(points)


def neighbour_plane(vectors: Vectors, seed: int = 0) -> Points:
    """The plane in which an image's neighbours are those that it has by its embedding."""
    n = len(vectors)
    start = principal_plane(vectors)
    if n < 4:
        return start
    if n <= LANDMARKS:
        return _within_bounds(_t_sne(vectors.astype(np.float32), start, seed))
    chosen = np.sort(np.random.default_rng(seed).choice(n, LANDMARKS, replace=False))
    landmarks = vectors[chosen].astype(np.float32)
    placed = _t_sne(landmarks, start[chosen], seed)
    points = np.zeros((n, 2), np.float32)
    for first in range(0, n, _BLOCK_ROWS):
        similar = vectors[first : first + _BLOCK_ROWS].astype(np.float32) @ landmarks.T
        near = np.argpartition(-similar, _NEAREST, axis=1)[:, :_NEAREST]
        cosines = np.take_along_axis(similar, near, axis=1)
        weights = np.exp(_SHARPNESS * (cosines - cosines.max(axis=1, keepdims=True)))
        weights /= weights.sum(axis=1, keepdims=True)
        points[first : first + _BLOCK_ROWS] = (placed[near] * weights[:, :, None]).sum(axis=1)
    points[chosen] = placed
    return _within_bounds(points)


def _t_sne(vectors: NDArray[np.float32], start: Points, seed: int) -> Points:
    """vectors: (n, d). start: (n, 2), the plane to begin with."""
    n = len(vectors)
    shares = _neighbour_shares(vectors)
    points = start * 1e-4 + np.random.default_rng(seed).normal(0, 1e-6, start.shape).astype(np.float32)
    speed, gains = np.zeros_like(points), np.ones_like(points)
    rate = max(n / _EXAGGERATION / 4, 50.0)
    wanted = shares * np.float32(_EXAGGERATION)
    for step in range(_STEPS):
        if step == _EXAGGERATED_STEPS:
            wanted = shares
        squares = (points**2).sum(axis=1)
        near = squares[:, None] + squares - 2 * (points @ points.T)
        np.maximum(near, 0, out=near)
        near += 1
        np.reciprocal(near, out=near)
        np.fill_diagonal(near, 0)
        pull = (wanted - near / near.sum(dtype=np.float64).astype(np.float32)) * near
        gradient = 4 * (pull.sum(axis=1)[:, None] * points - pull @ points)
        gains = np.maximum(np.where((gradient > 0) == (speed > 0), gains * 0.8, gains + 0.2), _LEAST_GAIN)
        momentum = _MOMENTA[step >= _EXAGGERATED_STEPS]
        speed = (momentum * speed - rate * gains * gradient).astype(np.float32)
        points = points + speed
        points -= points.mean(axis=0)
    return points


def _neighbour_shares(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, n), symmetric, summing to one: how much each pair are neighbours, each row's Gaussian as wide as its
    perplexity asks for (found by halving)."""
    n = len(vectors)
    distances = np.maximum(2 - 2 * (vectors @ vectors.T), 0)
    np.fill_diagonal(distances, np.inf)
    entropy = np.log(min(_PERPLEXITY, (n - 1) / 3))
    low, high = np.zeros(n, np.float32), np.full(n, np.inf, np.float32)
    beta = np.ones(n, np.float32)
    shares = distances
    for _ in range(40):
        nearest = distances.min(axis=1, keepdims=True)
        shares = np.exp(-(distances - nearest) * beta[:, None])
        sums = shares.sum(axis=1)
        with np.errstate(invalid="ignore"):
            mean = np.where(np.isinf(distances), 0, distances - nearest)
        spread = np.log(sums) + beta * (mean * shares).sum(axis=1) / sums
        is_wide = spread > entropy
        low, high = np.where(is_wide, beta, low), np.where(is_wide, high, beta)
        beta = np.where(np.isinf(high), beta * 2, (low + high) / 2).astype(np.float32)
        beta = np.minimum(beta, np.float32(1e6))  # equal embeddings have no width
    shares /= shares.sum(axis=1, keepdims=True)
    both: NDArray[np.float32] = np.maximum((shares + shares.T) / (2 * n), 1e-12)
    return both


def _within_bounds(points: Points) -> Points:
    """Centred, and scaled by one number so that all lie within -1 to 1."""
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    reach = float(np.abs(points - middle).max()) or 1.0
    scaled: Points = ((points - middle) / reach).astype(np.float32)
    return scaled
