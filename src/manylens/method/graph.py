"""Stage 2, the relational graph: which descriptions resemble each other under the interest.

In: embeddings H, the paper's beta and b, tau, k. Out: a sparse symmetric graph, w(u,v) = sigmoid(beta * H(u).H(v) + b).
Promise: pure, exact, and the same bytes whatever the block size, thread count or BLAS. Embeddings are rounded to
integers of length about 4,000, so every product and partial sum is an integer below 2^24 (Cauchy-Schwarz) and float32
matrix products are exact in any order; the rounding moves a cosine by about 1e-4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEFAULT_EDGE_SCALE = 8.0
DEFAULT_EDGE_OFFSET = -4.0
"""beta and b where the model learned none: even odds at cosine .5, much as nano's learned pair (7.9, -4.2)."""

_LENGTH = 4000.0
_BLOCK_ROWS = 512
_BLOCK_ENTRIES = 2**24  # 64 MiB of float32 per block: at N = 100,000 a block has 167 rows


@dataclass(frozen=True, slots=True, eq=False)
class RelationalGraph:
    """CSR, symmetric, no loops, columns ascending. indptr: (n + 1,) int64; indices int32; weights float32 in (0, 1)."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return self.indptr.size - 1

    @property
    def edges(self) -> int:
        return self.indices.size // 2

    @property
    def density(self) -> float:
        """The share of image pairs that are edges (the paper's Figure 5), 0 for fewer than two images."""
        n = len(self)
        return self.indices.size / (n * (n - 1)) if n > 1 else 0.0

    def weighted_degrees(self) -> NDArray[np.float64]:
        """Sum of each node's edge weights, (n,); rounded so that ties are ties."""
        sums = np.bincount(self._rows(), weights=self.weights.astype(np.float64), minlength=len(self))
        rounded: NDArray[np.float64] = np.round(sums, 6)
        return rounded

    def components(self) -> list[NDArray[np.int64]]:
        """The connected components, each with its nodes ascending, ordered by their first node."""
        if len(self) == 0:
            return []
        rows = self._rows()
        lowest = np.arange(len(self))  # per node, the lowest node it is known to hang together with
        while True:
            joined = lowest.copy()
            np.minimum.at(joined, lowest[rows], lowest[self.indices])  # each part joins the lowest part it touches
            while (joined[joined] != joined).any():
                joined = joined[joined]
            if (joined == lowest).all():
                break
            lowest = joined
        order = np.argsort(lowest, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(lowest[order])) + 1)

    def _rows(self) -> NDArray[np.int64]:
        """The row of each entry of `indices`."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))


def edge_weight(similarity: NDArray[np.float64] | float, edge_scale: float, edge_offset: float) -> NDArray[np.float64]:
    """w = sigmoid(beta * similarity + b), the paper's relation of two images."""
    score = np.clip(edge_scale * np.asarray(similarity, dtype=np.float64) + edge_offset, -60, 60)
    weight: NDArray[np.float64] = 1 / (1 + np.exp(-score))
    return weight


def build_graph(
    embeddings: NDArray[np.float32],
    edge_scale: float = DEFAULT_EDGE_SCALE,
    edge_offset: float = DEFAULT_EDGE_OFFSET,
    *,
    tau: float,
    neighbors: int,
    block_rows: int = _BLOCK_ROWS,
) -> RelationalGraph:
    """Keep every edge of weight >= tau that is among the `neighbors` strongest of either end (ties by index).

    embeddings: (n, d), rows of unit length. Time n^2 d / 2 multiplications; memory one block of rows plus the edges.
    Thresholding comes before top-k: a full-row selection took 236 s at n = 100,000 where this took 44.
    """
    if not edge_scale > 0:
        raise ValueError(f"edge_scale (beta) must be positive, got {edge_scale}")
    n = embeddings.shape[0]
    whole = np.rint(embeddings.astype(np.float64) * _LENGTH).astype(np.float32)
    floor = math.ceil((math.log(tau / (1 - tau)) - edge_offset) / edge_scale * _LENGTH**2)
    rows_at_once = max(1, min(block_rows, _BLOCK_ENTRIES // max(n, 1)))
    sources: list[NDArray[np.int64]] = []
    targets: list[NDArray[np.int64]] = []
    products: list[NDArray[np.float32]] = []
    for start in range(0, n, rows_at_once):
        block = whole[start : start + rows_at_once] @ whole.T
        block[np.arange(block.shape[0]), start + np.arange(block.shape[0])] = -np.inf
        source, target, product = _strongest(block, floor, neighbors)
        sources.append(source + start)
        targets.append(target)
        products.append(product)
    if not sources:
        return RelationalGraph(np.zeros(n + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    source, target, product = np.concatenate(sources), np.concatenate(targets), np.concatenate(products)
    low, high = np.minimum(source, target), np.maximum(source, target)
    _, first = np.unique(low * n + high, return_index=True)
    low, high, product = low[first], high[first], product[first]
    weights = edge_weight(product.astype(np.float64) / _LENGTH**2, edge_scale, edge_offset).astype(np.float32)
    rows, columns = np.concatenate([low, high]), np.concatenate([high, low])
    order = np.argsort(rows * n + columns, kind="stable")
    indptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=n), out=indptr[1:])
    return RelationalGraph(indptr, columns[order].astype(np.int32), np.concatenate([weights, weights])[order])


def _strongest(
    block: NDArray[np.float32], floor: float, neighbors: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """(row in the block, column, product) of each row's `neighbors` largest products >= floor, ties by column."""
    source, target = np.nonzero(block >= floor)
    product = block[source, target]
    counts = np.bincount(source, minlength=block.shape[0])
    if counts.size == 0 or counts.max() <= neighbors:
        return source, target, product
    ends = np.cumsum(counts)
    keep = np.ones(source.size, dtype=bool)
    # Products are integers below 2^24, so product * n + (n - column) is exact in float64 and has no ties.
    keys = product.astype(np.float64) * block.shape[1] + (block.shape[1] - target)
    for row in np.nonzero(counts > neighbors)[0]:
        span = slice(ends[row] - counts[row], ends[row])
        row_keys = keys[span]
        keep[span] = row_keys >= np.partition(row_keys, row_keys.size - neighbors)[row_keys.size - neighbors]
    return source[keep], target[keep], product[keep]
