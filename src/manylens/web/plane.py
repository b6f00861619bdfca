"""The plane of an interest's embeddings: near points are alike.

In: embeddings. Out: a point for each, within -1 to 1. Promise: the same embeddings give the same plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from manylens.web.shown import ShownRun

Method = Literal["pca", "tsne", "umap"]

_BLOCK_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Plane:
    """points: (n, 2) float32 within -1 to 1. is_final: whether no better one is on its way."""

    points: NDArray[np.float32]
    method: Method
    is_final: bool


def plane_of(run: ShownRun, slug: str, vectors: NDArray[np.float16], ids: Sequence[str]) -> Plane:
    return Plane(principal_plane(vectors), "pca", True)


def principal_plane(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
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
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])] < 0, -1.0, 1.0)
    points = np.zeros((n, 2), np.float32)
    for start in range(0, n, _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS].astype(np.float32)
        points[start : start + _BLOCK_ROWS, : axes.shape[1]] = (block - mean) @ axes
    return within_bounds(points)


def within_bounds(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centred, and scaled by one number so that all lie within -1 to 1."""
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    reach = float(np.abs(points - middle).max()) or 1.0
    scaled: NDArray[np.float32] = ((points - middle) / reach).astype(np.float32)
    return scaled
