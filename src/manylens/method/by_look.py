"""Where the interest is not understood: groups of pictures that look alike, by k-means on visual features.

In: features, a row a picture. Out: the group of each, and how clearly it belongs there. Promise: pure; the same rows
and seed give the same groups; no ground truth is used: how many groups there are follows from how many pictures.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_GROUPS = 20
_STARTS, _ROUNDS = 4, 100


def usual_groups(pictures: int) -> int:
    """The rule of thumb, the square root of half the pictures, up to what a person looks through."""
    return min(MOST_GROUPS, max(1, round(math.sqrt(pictures / 2))))


def group_by_look(
    features: NDArray[np.float32], groups: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The group of each row, (n,), 0 the largest, ties by the first row; and (n,) in [0, 1] how much nearer each is to
    the middle of its own group than to the next. Fewer groups than asked for where fewer rows differ. features: (n, d).
    """
    rows = features.astype(np.float64)
    if not len(rows):
        return np.zeros(0, np.int64), np.zeros(0)
    random = np.random.default_rng(seed)
    tries = [_k_means(rows, _first_middles(rows, groups, random)) for _ in range(_STARTS)]
    middles = tries[min(range(_STARTS), key=lambda k: (round(float(_distances(rows, tries[k]).min(1).sum()), 9), k))]
    group, _ = nearest(rows, middles)
    sizes = np.bincount(group, minlength=len(middles))
    order = sorted(np.unique(group).tolist(), key=lambda g: (-sizes[g], int(np.flatnonzero(group == g)[0])))
    return nearest(rows, middles[order])


def nearest(rows: NDArray[Any], middles: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of each row the nearest middle, (n,), and in [0, 1] how much nearer that is than the next."""
    lengths = np.sqrt(_distances(rows.astype(np.float64), middles.astype(np.float64)))
    other = np.partition(lengths, 1, axis=1)[:, 1] if len(middles) > 1 else np.ones(len(rows))
    clear = 1 - lengths.min(1) / np.maximum(other, 1e-12)
    return lengths.argmin(1), np.clip(clear, 0, 1)


def _first_middles(rows: NDArray[np.float64], groups: int, random: np.random.Generator) -> NDArray[np.float64]:
    """k-means++: each a row drawn by its squared distance from those before, so that no two are equal."""
    chosen = [int(random.integers(len(rows)))]
    left = _distances(rows, rows[chosen])[:, 0]
    while len(chosen) < groups and left.max() > 1e-9:
        chosen.append(
            int(np.searchsorted(np.cumsum(left), random.random() * left.sum(), side="right").clip(0, len(rows) - 1))
        )
        left = np.minimum(left, _distances(rows, rows[chosen[-1:]])[:, 0])
    return rows[chosen]


def _k_means(rows: NDArray[np.float64], middles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lloyd's iterations to their end; a group that loses all its rows keeps its middle."""
    before = None
    for _ in range(_ROUNDS):
        nearest = _distances(rows, middles).argmin(1)
        if before is not None and (nearest == before).all():
            break
        before = nearest
        middles = np.stack(
            [rows[nearest == g].mean(0) if (nearest == g).any() else middles[g] for g in range(len(middles))]
        )
    return middles


def _distances(rows: NDArray[np.float64], middles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared, (rows, middles)."""
    found: NDArray[np.float64] = (rows**2).sum(1)[:, None] - 2 * rows @ middles.T + (middles**2).sum(1)[None]
    return np.maximum(found, 0)
