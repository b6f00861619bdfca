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
    description that most members have, normalised."""

    members: tuple[NDArray[np.int64], ...]
    of_image: NDArray[np.int64]
    vectors: NDArray[np.float32]
    sizes: NDArray[np.int64]
    words: tuple[str, ...]
    density: float

    def __len__(self) -> int:
        return len(self.members)


def walk(looks: Looks, edge: EdgeScale, settings: Settings) -> Units:
    """Walk every component from its node of highest weighted degree; what the agents gather are the units."""
    nodes: dict[str, list[int]] = {}
    for image, words in enumerate(looks.words):
        nodes.setdefault(words or f"\0{image}", []).append(image)
    keys = sorted(nodes)
    sizes = np.array([len(nodes[key]) for key in keys], dtype=np.int64)
    of_image = np.empty(len(looks), dtype=np.int64)
    for node, key in enumerate(keys):
        of_image[nodes[key]] = node
    vectors = _mean_directions(looks.embeddings, of_image, len(keys))
    graph = build_graph(vectors, edge.scale, edge.offset, tau=settings.tau, neighbors=settings.neighbors)
    gathered = _gather(graph, vectors, sizes, edge)
    units: list[NDArray[np.int64]] = []
    common: list[str] = []
    for unit in gathered:
        images = [image for node in unit for image in nodes[keys[node]]]
        order = sorted(
            images,
            key=lambda i: (
                -round(float(looks.confidences[i]), 3),
                seeded_share(settings.seed, "probe", looks.image_ids[i]),
            ),
        )
        units.append(np.array(order, dtype=np.int64))
        common.append(keys[max(unit, key=lambda node: (sizes[node], -node))].lstrip("\0"))
    for number, unit_images in enumerate(units):
        of_image[unit_images] = number
    return Units(
        members=tuple(units),
        of_image=of_image,
        vectors=_mean_directions(looks.embeddings, of_image, len(units)),
        sizes=np.array([len(unit) for unit in units], dtype=np.int64),
        words=tuple(common),
        density=graph.density,
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
                span = slice(graph.indptr[node], graph.indptr[node + 1])
                for near, w in zip(graph.indices[span].tolist(), graph.weights[span].tolist(), strict=True):
                    if free[near] and sizes[near] == 1:
                        heapq.heappush(frontier, (-w, near))
            entered = []
            if not frontier or -frontier[0][0] < SURE_EDGE:
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
