"""Other ways to the same partition, on the same model, images and machine.

In: looks (descriptions and H), feature rows, K where it is known, a judge. Out: one cluster per image, None where the
method leaves an image out. Promise: no labels; every constant is a library's default or stated here, none was tuned.
"""

from __future__ import annotations

import heapq
import warnings
from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN, KMeans, SpectralClustering
from sklearn.feature_extraction.text import HashingVectorizer

from bench.workbench import Judge, Judgement
from manylens.method.graph import RelationalGraph, build_graph, edge_weight
from manylens.method.observations import Looks, define_cluster, directions, spoken
from manylens.method.questions import Statement
from manylens.method.walk import EdgeScale
from manylens.models.base import Capabilities
from manylens.pipeline.run import edge_scale
from manylens.settings import Settings

Rows: TypeAlias = NDArray[np.float32]
Partition: TypeAlias = list[int | None]

TEXT_WIDTH = 1024
_SMALLEST_CLUSTER = 5
"""HDBSCAN's own default."""

_DESCRIBED_BY = 20
"""The plain walk describes a cluster by this many of its first images: later ones would change little."""


def k_means(rows: Rows, clusters: int, seed: int) -> Partition:
    """scikit-learn's, best of 10 starts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct rows than clusters: the result shows it
        found = KMeans(min(clusters, len(rows)), n_init=10, random_state=seed).fit_predict(rows)
    return [int(label) for label in found]


def spectral(rows: Rows, clusters: int, seed: int, known: Capabilities) -> Partition:
    """Spectral clustering of the relational graph before anything is cut: w = sigmoid(beta H.H + b) for all pairs."""
    edge = edge_scale(known)
    wide = rows.astype(np.float64)
    weights = edge_weight(wide @ wide.T, edge.scale, edge.offset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = SpectralClustering(min(clusters, len(rows) - 1), affinity="precomputed", random_state=seed).fit_predict(
            (weights + weights.T) / 2
        )
    return [int(label) for label in found]


def hdbscan(rows: Rows) -> Partition:
    """scikit-learn's defaults (at least 5 images a cluster); what it calls noise is left out."""
    if len(rows) < _SMALLEST_CLUSTER:
        return [None] * len(rows)
    found = HDBSCAN(min_cluster_size=_SMALLEST_CLUSTER, copy=True).fit_predict(rows.astype(np.float64))
    return [int(label) if label >= 0 else None for label in found]


def equal_descriptions(looks: Looks) -> Partition:
    """Every distinct description is a cluster: what the looks alone give."""
    numbers = {words: number for number, words in enumerate(dict.fromkeys(looks.words))}
    return [numbers[words] for words in looks.words]


def text_rows(looks: Looks) -> Rows:
    """Embeddings of the description texts: hashed character 2- to 4-grams within words, unit length. No sentence
    encoder comes in a registry package, so this knows spelling and not meaning."""
    vectorizer = HashingVectorizer(n_features=TEXT_WIDTH, analyzer="char_wb", ngram_range=(2, 4), alternate_sign=False)
    rows: Rows = vectorizer.transform([words or " " for words in looks.words]).toarray().astype(np.float32)
    empty = ~rows.any(axis=1)
    rows[empty, 0] = 1.0
    return rows


async def describe_name_assign(looks: Looks, clusters: int, judge: Judge) -> Partition:
    """IC|TC's three steps, K given: describe every image, name K clusters, assign every image to a name.

    IC|TC lets a language model read the descriptions and write K names. A model that writes no text cannot, so the K
    most frequent distinct descriptions are the names (ties by the alphabet). An image whose description is a name goes
    there; any other is judged against every name and goes to the most probable one.
    """
    counts = Counter(words for words in looks.words if words)
    names = sorted(counts, key=lambda words: (-counts[words], words))[:clusters]
    number_of = {words: number for number, words in enumerate(names)}
    members: dict[str, list[int]] = {words: [] for words in names}
    for image, words in enumerate(looks.words):
        if words in members:
            members[words].append(image)
    options = [describe(looks, members[words]) for words in names]
    open_images = [image for image, words in enumerate(looks.words) if words not in number_of]
    answers = await judge([Judgement(option, image) for image in open_images for option in options])
    result: Partition = [number_of.get(words) for words in looks.words]
    for position, image in enumerate(open_images):
        scores = answers[position * len(names) : (position + 1) * len(names)]
        if scores:
            result[image] = int(np.argmax(scores))
    return result


async def embed_cluster_join(looks: Looks, judge: Judge) -> Partition:
    """The hybrid agent, K unknown: embed the descriptions, HDBSCAN, then join clusters along a minimum spanning tree.

    The tree spans the centroids of the text embeddings. From its shortest edge to its longest the model is asked
    whether the two clusters are one: the most typical image of the smaller against the larger. A yes (over one half)
    joins them; M - 1 questions for M clusters. What HDBSCAN calls noise stays left out.
    """
    rows = text_rows(looks)
    found = hdbscan(rows)
    members: dict[int, list[int]] = {}
    for image, label in enumerate(found):
        if label is not None:
            members.setdefault(label, []).append(image)
    root = await _join_along_tree(looks, rows, members, judge)
    return [None if label is None else root[label] for label in found]


async def plain_walk(looks: Looks, edge: EdgeScale, judge: Judge, settings: Settings) -> tuple[Partition, int]:
    """The paper's method, K unknown: one agent per component of the images' relational graph grows a cluster from the
    image of highest weighted degree, taking its frontier by falling edge weight and asking about every image whether it
    belongs; what is left over starts the next cluster. A global agent then joins clusters along a spanning tree of
    their mean directions, one question an edge. An image alone in its cluster is left out. Returns the partition and
    how many questions the walks asked."""
    graph = build_graph(looks.embeddings, edge.scale, edge.offset, tau=settings.tau, neighbors=settings.neighbors)
    degrees = graph.weighted_degrees()
    free = np.ones(len(looks), dtype=bool)
    members: dict[int, list[int]] = {}
    asked = 0
    for component in graph.components():
        for seed in sorted(component.tolist(), key=lambda node: (-degrees[node], node)):
            if free[seed]:
                members[seed], steps = await _grow(looks, graph, seed, free, judge)
                asked += steps
    root = await _join_along_tree(looks, looks.embeddings, members, judge)
    result: Partition = [None] * len(looks)
    joined: dict[int, list[int]] = {}
    for seed, images in members.items():
        joined.setdefault(root[seed], []).extend(images)
    for number, images in enumerate(found for found in joined.values() if len(found) > 1):
        for image in images:
            result[image] = number
    return result, asked


async def _grow(
    looks: Looks, graph: RelationalGraph, seed: int, free: NDArray[np.bool_], judge: Judge
) -> tuple[list[int], int]:
    """One cluster, and how many images were asked about. The cluster is described by its first images."""
    members, seen = [seed], {seed}
    free[seed] = False
    frontier: list[tuple[float, int]] = []
    entered, asked = seed, 0
    while True:
        span = slice(graph.indptr[entered], graph.indptr[entered + 1])
        for near, weight in zip(graph.indices[span].tolist(), graph.weights[span].tolist(), strict=True):
            if free[near]:
                heapq.heappush(frontier, (-weight, near))
        while frontier:
            _, image = heapq.heappop(frontier)
            if image in seen:
                continue
            seen.add(image)
            asked += 1
            (probability,) = await judge([Judgement(describe(looks, members[:_DESCRIBED_BY]), image)])
            if probability > 0.5:
                break
        else:
            return members, asked
        members.append(image)
        free[image] = False
        entered = image


async def _join_along_tree(looks: Looks, rows: Rows, members: dict[int, list[int]], judge: Judge) -> dict[int, int]:
    """Of each cluster, the one that it is part of in the end. `members` is changed."""
    root = {label: label for label in members}
    for one, other in spanning_tree({label: rows[images].mean(axis=0) for label, images in members.items()}):
        small, large = sorted((root[one], root[other]), key=lambda label: (len(members[label]), label))
        image = describe(looks, members[small], 1).exemplars[0]
        (probability,) = await judge([Judgement(describe(looks, members[large]), image)])
        if probability > 0.5:
            members[large] += members.pop(small)
            root = {label: large if was == small else was for label, was in root.items()}
    return root


def spanning_tree(centres: dict[int, Rows]) -> list[tuple[int, int]]:
    """The minimum spanning tree's edges, shortest first (Kruskal; ties by label)."""
    labels = sorted(centres)
    edges = sorted(
        (round(float(np.linalg.norm(centres[one] - centres[other])), 9), one, other)
        for position, one in enumerate(labels)
        for other in labels[position + 1 :]
    )
    tree: list[tuple[int, int]] = []
    part = {label: label for label in labels}
    for _, one, other in edges:
        if part[one] != part[other]:
            tree.append((one, other))
            gone = part[other]
            part = {label: part[one] if was == gone else was for label, was in part.items()}
    return tree


def describe(looks: Looks, images: Iterable[int], exemplars: int = 5) -> Statement:
    """A cluster as a judge is told of it: its commonest description, and medoids that have it (others fill up)."""
    indices = sorted(images)
    counts = Counter(looks.words[i] for i in indices)
    words = min(counts, key=lambda said: (-counts[said], said))
    centre = directions(looks.embeddings[indices].sum(axis=0, keepdims=True))[0]
    typical = np.round(looks.embeddings[indices] @ centre, 5)
    order = sorted(range(len(indices)), key=lambda k: (looks.words[indices[k]] != words, -typical[k], indices[k]))
    name = spoken(looks, indices, words)
    definition = define_cluster(name, looks.interest.text)
    return Statement(name, definition, tuple(indices[k] for k in order[:exemplars]))
