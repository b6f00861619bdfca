"""Looks, graphs and judges made by hand, for the tests of the method's pure stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from manylens.evidence import Answer, Looks, Question, Steps, normalise_description
from manylens.records import Interest
from manylens.walk import Surroundings

T = TypeVar("T")
Judge = Callable[[Question], float | None]


def looks_of(
    descriptions: Sequence[str],
    embeddings: np.ndarray | None = None,
    confidences: Sequence[float] | None = None,
) -> Looks:
    """Image k has the id `kkk`; without embeddings, equal descriptions get equal ones, different ones orthogonal."""
    words = [normalise_description(description) for description in descriptions]
    if embeddings is None:
        kinds = sorted(set(words))
        embeddings = np.eye(max(2, len(kinds)))[[kinds.index(said) for said in words]]
    rows = np.asarray(embeddings, dtype=np.float32)
    return Looks(
        interest=Interest("suit"),
        image_ids=tuple(f"{number:03d}" for number in range(len(descriptions))),
        descriptions=tuple(descriptions),
        words=tuple(words),
        confidences=np.asarray(confidences or [1.0] * len(descriptions), dtype=np.float32),
        embeddings=rows / np.linalg.norm(rows, axis=1, keepdims=True),
    )


def around(looks: Looks, edges: Mapping[tuple[int, int], float]) -> Surroundings:
    """The graph with these edges and no others."""
    both = sorted([(u, v, w) for (u, v), w in edges.items()] + [(v, u, w) for (u, v), w in edges.items()])
    indptr = np.zeros(len(looks) + 1, dtype=np.int64)
    for u, _, _ in both:
        indptr[u + 1 :] += 1
    degrees = np.zeros(len(looks))
    for u, _, w in both:
        degrees[u] += w
    return Surroundings(
        looks,
        indptr,
        np.array([v for _, v, _ in both], dtype=np.int32),
        np.array([w for _, _, w in both], dtype=np.float32),
        degrees,
    )


def drive(steps: Steps[T], judge: Judge, asked: list[Question] | None = None) -> T:
    """Answer a stage's questions until it returns; None is a call that failed."""
    try:
        ask = next(steps)
        while True:
            if asked is not None:
                asked.extend(ask.questions)
            ask = steps.send([Answer(judge(question)) for question in ask.questions])
    except StopIteration as end:
        result: T = end.value
        return result


def by_label(looks: Looks, labels: Sequence[str], yes: float = 0.97, no: float = 0.02) -> Judge:
    """A judge who is always right: the cluster's true label is its first exemplar's."""
    return lambda question: yes if labels[question.candidate] == labels[question.profile.exemplars[0]] else no
