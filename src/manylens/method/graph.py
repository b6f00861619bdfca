"""Stage 2, the relational graph: which descriptions resemble each other under the interest.

In: embeddings H, the paper's beta and b, tau, k. Out: a sparse symmetric graph, w(u,v) = sigmoid(beta * H(u).H(v) + b).
Promise: pure, exact up to `EXACT_UP_TO` nodes, and then the same bytes whatever the block size, thread count or BLAS.
Embeddings are rounded to integers of length about 4,000, so every product and partial sum is an integer below 2^24
(Cauchy-Schwarz) and float32 matrix products are exact in any order; the rounding moves a cosine by about 1e-4. Larger
graphs are searched by faiss where that is installed (`manylens[faiss]`): an inverted file, whose recall is measured on
a sample against the exact neighbours. Its candidates get exact products, so only edges can be missing. Memory beside
the embeddings and the edges is bounded by blocks.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

DEFAULT_EDGE_SCALE = 8.0
DEFAULT_EDGE_OFFSET = -4.0
"""beta and b where the model learned none: even odds at cosine .5, much as nano's learned pair (7.9, -4.2)."""

_LENGTH = 4000.0
_BLOCK_ROWS = 512
_BLOCK_ENTRIES = 2**24  # 64 MiB of float32 per block: at N = 100,000 a block has 167 rows

EXACT_UP_TO = 30_000
"""Nodes up to which all pairs are compared. Measured in docs/development/scale.md."""

RECALL = 0.95
"""The share of the true neighbours that an approximate search is to find: it looks into more cells until it does."""

_SAMPLE = 256
"""Nodes whose true neighbours are found to measure that: at .95 its standard error is below .01."""

_SEARCHED = 8192
_TRAINED_ON = 64
"""Rows for each cell of the inverted file."""

Edges: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Sources, targets, and products in units of 1 / 4,000 squared."""


@dataclass(frozen=True, slots=True, eq=False)
class RelationalGraph:
    """CSR, symmetric, no loops, columns ascending. indptr: (n + 1,) int64; indices int32; weights float32 in (0, 1).
    recall: the share of the true neighbours that are there, 1 for an exact graph, else measured on a sample."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    weights: NDArray[np.float32]
    recall: float = 1.0

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


def has_index() -> bool:
    """Whether large graphs can be searched approximately."""
    return importlib.util.find_spec("faiss") is not None


def build_graph(
    embeddings: NDArray[np.float32],
    edge_scale: float = DEFAULT_EDGE_SCALE,
    edge_offset: float = DEFAULT_EDGE_OFFSET,
    *,
    tau: float,
    neighbors: int,
    block_rows: int = _BLOCK_ROWS,
    exact_up_to: int = EXACT_UP_TO,
) -> RelationalGraph:
    """Keep every edge of weight >= tau that is among the `neighbors` strongest of either end (ties by index).

    embeddings: (n, d), rows of unit length. Time n^2 d / 2 multiplications, or some n^1.5 d past `exact_up_to`.
    Thresholding comes before top-k: a full-row selection took 236 s at n = 100,000 where this took 44.
    """
    if not edge_scale > 0:
        raise ValueError(f"edge_scale (beta) must be positive, got {edge_scale}")
    n = embeddings.shape[0]
    floor = math.ceil((math.log(tau / (1 - tau)) - edge_offset) / edge_scale * _LENGTH**2)
    if n <= exact_up_to or not has_index():
        recall, blocks = 1.0, _all_pairs(embeddings, floor, neighbors, block_rows)
    else:
        recall, blocks = _searched(embeddings, floor, neighbors)
    keys: list[NDArray[np.int64]] = []
    products: list[NDArray[np.float32]] = []
    for source, target, product in blocks:
        keys.append(np.minimum(source, target) * n + np.maximum(source, target))
        products.append(product)
    if not keys:
        return RelationalGraph(np.zeros(n + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), recall)
    key, first = np.unique(np.concatenate(keys), return_index=True)
    keys.clear()
    found = np.concatenate(products)[first].astype(np.float64) / _LENGTH**2
    del products, first
    return _symmetric(key // n, key % n, edge_weight(found, edge_scale, edge_offset).astype(np.float32), n, recall)


def _symmetric(
    low: NDArray[np.int64], high: NDArray[np.int64], weights: NDArray[np.float32], n: int, recall: float
) -> RelationalGraph:
    """The graph of these edges, low < high, in ascending order. A row's lower columns stand before its higher ones."""
    below, above = np.bincount(high, minlength=n), np.bincount(low, minlength=n)
    indptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(below + above, out=indptr[1:])
    indices = np.empty(2 * len(low), dtype=np.int32)
    both = np.empty(2 * len(low), dtype=np.float32)
    by_high = np.argsort(high, kind="stable")
    for rows, columns, order, start in (
        (high, low, by_high, indptr[:-1]),
        (low, high, np.arange(len(low)), indptr[:-1] + below),
    ):
        ranked = rows[order]
        counts = np.bincount(ranked, minlength=n)
        place = start[ranked] + np.arange(len(ranked)) - (np.cumsum(counts) - counts)[ranked]
        indices[place], both[place] = columns[order], weights[order]
    return RelationalGraph(indptr, indices, both, recall)


def _whole(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounded to integers; each row by itself, so in blocks as at once."""
    whole = np.empty(embeddings.shape, dtype=np.float32)
    for start in range(0, len(embeddings), _SEARCHED):
        whole[start : start + _SEARCHED] = np.rint(embeddings[start : start + _SEARCHED].astype(np.float64) * _LENGTH)
    return whole


def _all_pairs(embeddings: NDArray[np.float32], floor: float, neighbors: int, block_rows: int) -> Iterator[Edges]:
    n = len(embeddings)
    whole = _whole(embeddings)
    rows_at_once = max(1, min(block_rows, _BLOCK_ENTRIES // max(n, 1)))
    for start in range(0, n, rows_at_once):
        block = whole[start : start + rows_at_once] @ whole.T
        block[np.arange(block.shape[0]), start + np.arange(block.shape[0])] = -np.inf
        source, target, product = _strongest(block, floor, neighbors)
        yield source + start, target, product


def _searched(embeddings: NDArray[np.float32], floor: float, neighbors: int) -> tuple[float, Iterator[Edges]]:
    """The recall on a sample, and the edges. The index holds half-precision copies; products are exact."""
    import faiss

    n, d = embeddings.shape
    random = np.random.default_rng(n)
    cells = 4 * math.isqrt(n)
    middles = faiss.IndexFlatIP(d)
    index = faiss.IndexIVFScalarQuantizer(
        middles, d, cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    index.train(embeddings[np.sort(random.choice(n, min(n, _TRAINED_ON * cells), replace=False))])
    for start in range(0, n, _SEARCHED):
        index.add(embeddings[start : start + _SEARCHED])

    def search(rows: NDArray[np.int64]) -> Edges:
        _, near = index.search(embeddings[rows], neighbors + 1)
        source, target = np.repeat(rows, near.shape[1]), near.reshape(-1).astype(np.int64)
        there = (target >= 0) & (target != source)
        source, target = source[there], target[there]
        product = np.einsum("ed,ed->e", _whole(embeddings[source]), _whole(embeddings[target]))
        strong = product >= floor
        return source[strong], target[strong], product[strong]

    sample = np.sort(random.choice(n, min(n, _SAMPLE), replace=False))
    true = _true_neighbors(embeddings, sample, floor, neighbors)
    index.nprobe = 8
    while True:
        source, target, _ = search(sample)
        recall = float(np.isin(source * n + target, true).sum()) / len(true) if len(true) else 1.0
        if recall >= RECALL or index.nprobe >= cells:
            break
        index.nprobe = min(cells, 2 * index.nprobe)
    blocks = (search(np.arange(start, min(n, start + _SEARCHED))) for start in range(0, n, _SEARCHED))
    return recall, blocks


def _true_neighbors(
    embeddings: NDArray[np.float32], rows: NDArray[np.int64], floor: float, neighbors: int
) -> NDArray[np.int64]:
    """row * n + column of the edges of some rows, by all pairs."""
    n = len(embeddings)
    mine = _whole(embeddings[rows])
    products = np.empty((len(rows), n), dtype=np.float32)
    for start in range(0, n, _SEARCHED):
        products[:, start : start + _SEARCHED] = mine @ _whole(embeddings[start : start + _SEARCHED]).T
    products[np.arange(len(rows)), rows] = -np.inf
    source, target, _ = _strongest(products, floor, neighbors)
    return rows[source] * n + target


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
