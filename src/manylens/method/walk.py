"""Stage 3, the walks: one agent per connected component of the relational graph gathers images into units.

In: looks. Out: `Units`, a partition of the images. Promise: pure; nothing is asked. A unit is a set of images that what
is known so far holds to be one kind: of equal description, or alone of their description and joined by edges that are
at least nine to one. Two descriptions that several images share never make one unit: a question about them is cheap per
image, and only an answer may join them.

The graph's nodes are descriptions, not images: images of equal words are one node at their mean direction. So the graph
is small where a model speaks in kinds, and has a node per image where it writes prose.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manylens.method.graph import RelationalGraph, build_graph, edge_weight
from manylens.method.observations import Looks, directions, seeded_share, sum_by_group
from manylens.settings import Settings

SURE_EDGE = 0.9
"""An image alone of its description joins a unit unasked at this edge weight to the unit's mean direction."""


@dataclass(frozen=True, slots=True, eq=False)
class EdgeScale:
    """beta and b of the paper's relation, w(u,v) = sigmoid(beta * H(u).H(v) + b)."""

    scale: float
    offset: float


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """members: images of each unit, the surest description first, ties by seeded hash: the order in which they are
    asked about. of_image: (n,) the unit of each image. vectors: (m, d) float32, unit length. sizes: (m,). words: the
    description that most members have, normalised. density, recall: of the graph."""

    members: tuple[NDArray[np.int64], ...]
    of_image: NDArray[np.int64]
    vectors: NDArray[np.float32]
    sizes: NDArray[np.int64]
    words: tuple[str, ...]
    density: float
    recall: float = 1.0

    def __len__(self) -> int:
        return len(self.members)


def walk(looks: Looks, edge: EdgeScale, settings: Settings) -> Units:
    """Walk every component from its node of highest weighted degree; what the agents gather are the units."""
    names = [words or f"\0{image}" for image, words in enumerate(looks.words)]
    keys = sorted(set(names))
    node_of = {key: node for node, key in enumerate(keys)}
    of_image = np.fromiter((node_of[name] for name in names), np.int64, len(names))
    sizes = np.bincount(of_image, minlength=len(keys))
    vectors = _mean_directions(looks.embeddings, of_image, len(keys))
    graph = build_graph(vectors, edge.scale, edge.offset, tau=settings.tau, neighbors=settings.neighbors)
    gathered = _gather(graph, vectors, sizes, edge)
    del vectors
    common = [keys[max(unit, key=lambda node: (sizes[node], -node))].lstrip("\0") for unit in gathered]
    unit_of = np.empty(len(keys), dtype=np.int64)
    for number, unit in enumerate(gathered):
        unit_of[unit] = number
    of_image = unit_of[of_image]
    values, which = np.unique(looks.confidences, return_inverse=True)
    surest = np.array([-round(float(value), 3) for value in values.tolist()])[which] if len(values) else np.zeros(0)
    shares = np.array([seeded_share(settings.seed, "probe", image_id) for image_id in looks.image_ids])
    order = np.lexsort((shares, surest, of_image))
    counts = np.bincount(of_image, minlength=len(gathered))
    units = np.split(order, np.cumsum(counts)[:-1]) if len(gathered) else []
    return Units(
        members=tuple(units),
        of_image=of_image,
        vectors=_mean_directions(looks.embeddings, of_image, len(units)),
        sizes=counts,
        words=tuple(common),
        density=graph.density,
        recall=graph.recall,
    )


def _mean_directions(embeddings: NDArray[np.float32], group: NDArray[np.int64], groups: int) -> NDArray[np.float32]:
    return directions(sum_by_group(embeddings, group, groups))


def _gather(
    graph: RelationalGraph, vectors: NDArray[np.float32], sizes: NDArray[np.int64], edge: EdgeScale
) -> list[list[int]]:
    """Units of nodes, from the node of highest weighted degree on; a walk takes its frontier by falling edge weight."""
    degree = sizes + np.bincount(
        np.repeat(np.arange(len(graph)), np.diff(graph.indptr)),
        weights=graph.weights * sizes[graph.indices],
        minlength=len(graph),
    )
    free = np.ones(len(graph), dtype=bool)
    # No weaker edge is ever followed, and nothing but an image alone of its description is reached by one.
    sure = np.flatnonzero((graph.weights.astype(np.float64) >= SURE_EDGE) & (sizes[graph.indices] == 1))
    starts = np.searchsorted(sure, graph.indptr)
    near_of, weight_of = graph.indices[sure].tolist(), graph.weights[sure].tolist()
    units: list[list[int]] = []
    for seed in np.lexsort((np.arange(len(graph)), -np.round(degree, 6))).tolist():
        if not free[seed]:
            continue
        free[seed] = False
        unit, total = [seed], vectors[seed] * sizes[seed]
        frontier: list[tuple[float, int]] = []
        entered = [seed]
        while True:
            for node in entered:
                for at in range(starts[node], starts[node + 1]):
                    if free[near_of[at]]:
                        heapq.heappush(frontier, (-weight_of[at], near_of[at]))
            entered = []
            if not frontier:
                break
            _, node = heapq.heappop(frontier)
            if not free[node]:
                continue
            similarity = float(vectors[node] @ total) / float(np.linalg.norm(total))
            if edge_weight(similarity, edge.scale, edge.offset) >= SURE_EDGE:
                free[node] = False
                unit.append(node)
                total = total + vectors[node]
                entered = [node]
        units.append(unit)
    return units
