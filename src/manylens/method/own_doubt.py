"""How sure a model that cannot check its own answers may be: of each image, and how many are misplaced.

In: a `Sorting` by a model whose answers about clusters repeat its looks. Out: for each image the probability that it
belongs where it is, and `Misplaced`. Promise: pure, seeded. No answer is evidence that a look was right: of an image it
counts what the model states of its one reading, its look's confidence or, where names were given that no look says,
the probability of its choice. That is believed as far as held-out pictures allow: what is stated of one interest, and
of one cluster, is too high or too low together, by the model's `own_doubt`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from manylens.method.estimate import DRAWS, summary
from manylens.method.likelihood import FloatArray
from manylens.method.sorting import NONE, Answered, Sorting
from manylens.types import Misplaced

_LEAST = 1e-3
_ODDS_STEPS = 8
"""To the unit of log-odds: images of one group whose odds are so near are counted together."""

_LOGISTIC_NORMAL = 0.346
"""E[sigmoid(x + sd z)] is about sigmoid(x / sqrt(1 + .346 sd^2)): 16 sqrt 3 / (15 pi), squared."""


def sure_of(sorting: Sorting, repeats: bool) -> FloatArray:
    """(n,) the probability that each image belongs where it is. repeats: whether answers repeat the model's looks."""
    return stated_probabilities(sorting) if repeats else sorting.probabilities()


def stated_probabilities(sorting: Sorting) -> FloatArray:
    """(n,) that each image belongs where it is, 0 for one in no cluster: its look's confidence, times how surely its
    description belongs to that cluster; of an image that was asked, what the last answer about the cluster says."""
    units = np.arange(len(sorting.units))
    within = sorting.sure.copy()
    for unit in units[sorting.place != NONE].tolist():
        category = sorting.category[unit]
        is_named = category >= 0 and category == sorting.clusters[int(sorting.place[unit])].category
        if is_named or sorting.is_founder(unit):
            within[unit] = 1.0
    of = sorting.units.of_image
    found: FloatArray = within[of] * sorting.looks.confidences.astype(np.float64)
    for image, answers in sorting.answers.items():
        cluster = sorting.cluster_of(image)
        said = None if cluster == NONE or image in sorting.told else _said_of(sorting, answers, sorting.root(cluster))
        found[image] = found[image] if said is None else said
    found[sorting.places() == NONE] = 0.0
    return np.clip(found, 0.0, 1.0)


def _said_of(sorting: Sorting, answers: Sequence[Answered], cluster: int) -> float | None:
    """The probability of a cluster by the last answer that had it among its options; None where none had."""
    for answer in reversed(answers):
        own = [sorting.root(option) == cluster for option in answer.options.tolist()]
        if any(own):
            return float(answer.likelihoods[:-1][own].sum() / answer.likelihoods.sum())
    return None


def estimate_by_looks(
    sure: FloatArray, group_of: NDArray[np.int64], groups: int, own_doubt: tuple[float, float], seed: int
) -> tuple[Misplaced, list[Misplaced]]:
    """(of all images in groups, of each group's). sure: (n,) the probability that each image is where it belongs.
    group_of: (n,) the group of each image, or NONE. own_doubt: standard deviations of the log-odds by which all images
    of an interest, and those of one group, are off together. The share is what is expected; the interval is of draws of
    both deviations and of the luck of single images."""
    random = np.random.default_rng([seed, 13])
    there = group_of != NONE
    doubt = np.clip(1 - sure[there], _LEAST, 1 - _LEAST)
    odds = np.round(np.log(doubt / (1 - doubt)) * _ODDS_STEPS).astype(np.int64)
    (group, step), many = np.unique(np.stack([group_of[there], odds]), axis=1, return_counts=True)
    # Odds that vary around a number are on average nearer to even than that number.
    middle = step / _ODDS_STEPS * np.sqrt(1 + _LOGISTIC_NORMAL * (own_doubt[0] ** 2 + own_doubt[1] ** 2))
    counts = np.zeros((DRAWS, groups))
    for draw in range(DRAWS):
        off = own_doubt[0] * random.standard_normal() + own_doubt[1] * random.standard_normal(groups)
        p = 1 / (1 + np.exp(-(middle + off[group])))
        counts[draw] = np.bincount(group, weights=random.binomial(many, p), minlength=groups)
    sizes = np.bincount(group_of[there], minlength=groups).astype(np.float64)
    expected = np.bincount(group_of[there], weights=1 - sure[there], minlength=groups)
    overall = summary(counts.sum(axis=1), float(sizes.sum()), float(expected.sum()), "looks")
    return overall, [summary(counts[:, k], float(sizes[k]), float(expected[k]), "looks") for k in range(groups)]
