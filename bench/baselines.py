"""Other ways to the same partition, on the same model, images and machine.

In: looks (descriptions and H), feature rows, K where it is known, a judge. Out: one cluster per image, None where the
method leaves an image out. Promise: no labels; every constant is a library's default or stated here, none was tuned.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN, KMeans, SpectralClustering
from sklearn.feature_extraction.text import HashingVectorizer

from bench.workbench import Judge
from manylens.evidence import Looks, Profile, Question, draw_profile, spoken
from manylens.graph import DEFAULT_EDGE_OFFSET, DEFAULT_EDGE_SCALE, edge_weight
from manylens.models.base import Capabilities

Rows: TypeAlias = NDArray[np.float32]
Partition: TypeAlias = list[int | None]

TEXT_WIDTH = 1024
_SMALLEST_CLUSTER = 5
"""HDBSCAN's own default."""


def k_means(rows: Rows, clusters: int, seed: int) -> Partition:
    """scikit-learn's, best of 10 starts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct rows than clusters: the result shows it
        found = KMeans(min(clusters, len(rows)), n_init=10, random_state=seed).fit_predict(rows)
    return [int(label) for label in found]


def spectral(rows: Rows, clusters: int, seed: int, known: Capabilities) -> Partition:
    """Spectral clustering of the relational graph before anything is cut: w = sigmoid(beta H.H + b) for all pairs."""
    scale = DEFAULT_EDGE_SCALE if known.edge_scale is None else known.edge_scale
    offset = DEFAULT_EDGE_OFFSET if known.edge_offset is None else known.edge_offset
    wide = rows.astype(np.float64)
    weights = edge_weight(wide @ wide.T, scale, offset)
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
    profiles = [_profile(looks, words, members[words]) for words in names]
    open_images = [image for image, words in enumerate(looks.words) if words not in number_of]
    answers = await judge([Question(profile, image) for image in open_images for profile in profiles])
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
    root = {label: label for label in members}
    for one, other in spanning_tree({label: rows[images].mean(axis=0) for label, images in members.items()}):
        small, large = sorted((root[one], root[other]), key=lambda label: (len(members[label]), label))
        candidate = draw_profile(looks, members[small], 1).exemplars[0]
        (probability,) = await judge([Question(draw_profile(looks, members[large], 5), candidate)])
        if probability > 0.5:
            members[large] += members.pop(small)
            root = {label: large if was == small else was for label, was in root.items()}
    return [None if label is None else root[label] for label in found]


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


def _profile(looks: Looks, words: str, images: Sequence[int]) -> Profile:
    name = spoken(looks, images, words)
    drawn = draw_profile(looks, images, 5)
    return Profile(name, words, 1.0, drawn.definition, drawn.exemplars)
