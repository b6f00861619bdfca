"""How many images are misplaced, after all that was asked: per cluster and in all, with a 95% interval.

In: a `Sorting`. Out: `Misplaced`. Promise: pure, seeded. It counts what is expected of every image: of one that was
asked, the doubt its answers leave; of one that was not, its unit's share of misplaced images at its look's confidence,
and the chance that the whole unit is elsewhere. The interval comes from draws of all that is not known: the numbers
of the member model (Laplace), each unit's own rate (Gamma, the conjugate of its Beta posterior at small shares), where
each unit belongs, and the luck of single images.

What it assumes: given the look's confidence and the unit, images that were asked are like those that were not. Asking
chooses by just these, and by seeded hash; so it holds under adaptive asking, and fails where a model's mistakes depend
on something that neither its description nor its confidence shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manylens.method.likelihood import FloatArray
from manylens.method.sorting import NONE, Sorting

_DRAWS = 400
_DOUBT = 4.0
"""How far the two models are believed: as if their rates had been seen in so many misplaced images and no more."""


@dataclass(frozen=True, slots=True)
class Misplaced:
    """share: of images that are not where they belong. low, high: its 95% interval."""

    share: float
    low: float
    high: float


def estimate_misplaced(sorting: Sorting, seed: int) -> tuple[Misplaced, dict[int, Misplaced]]:
    """(of all placed images, of each live cluster's)."""
    random = np.random.default_rng([seed, 7])
    unit_rows, rest, expected, shape, rate = _units(sorting)
    single_rows, doubt = _asked(sorting)
    k = len(sorting.row)
    sizes = np.bincount(unit_rows, weights=rest, minlength=k) + np.bincount(single_rows, minlength=k)
    drift = _drift(sorting, random)
    doubted = random.gamma(_DOUBT, 1 / _DOUBT, _DRAWS)
    counts = np.zeros((_DRAWS, k))
    elsewhere = 1 - sorting.sure[_placed(sorting)]
    for draw in range(_DRAWS):
        own = random.gamma(shape, 1 / rate) * expected * drift[draw] * doubted[draw]
        few = np.minimum(random.poisson(own), rest)
        lost = np.where(random.random(len(rest)) < elsewhere * doubted[draw], rest, few)
        counts[draw] = np.bincount(unit_rows, weights=lost, minlength=k)
        counts[draw] += np.bincount(single_rows, weights=random.random(len(doubt)) < doubt, minlength=k)
    each = {cluster: _summary(counts[:, row], sizes[row]) for cluster, row in sorting.row.items()}
    return _summary(counts.sum(axis=1), float(sizes.sum())), each


def _summary(counts: FloatArray, size: float) -> Misplaced:
    if size <= 0:
        return Misplaced(0.0, 0.0, 0.0)
    low, high = np.quantile(counts / size, (0.025, 0.975))
    return Misplaced(*(round(float(x), 4) for x in (counts.mean() / size, low, high)))


def _placed(sorting: Sorting) -> NDArray[np.int64]:
    return np.flatnonzero(sorting.place != NONE)


def _units(sorting: Sorting) -> tuple[NDArray[np.int64], FloatArray, FloatArray, FloatArray, FloatArray]:
    """Of each placed unit: its cluster's row, images not asked, how many of those are expected to be misplaced at the
    common rate, and the Gamma posterior of its own rate against that."""
    units = _placed(sorting)
    rows = np.array([sorting.row[c] for c in sorting.place[units].tolist()], dtype=np.int64)
    asked = np.zeros(len(sorting.looks), dtype=bool)
    asked[list(sorting.answers)] = True
    of_image, m = sorting.units.of_image, len(sorting.units)
    several = sorting.units.sizes[of_image] > 1
    common = np.bincount(of_image[~asked], weights=(sorting.share * several)[~asked], minlength=m)
    rest = np.bincount(of_image[~asked], minlength=m).astype(np.float64)
    seen = np.bincount(of_image[asked], weights=sorting.share[asked], minlength=m)
    prior = sorting.prior[units]
    return rows, rest[units], common[units], prior + sorting.misplaced[units], prior + seen[units]


def _asked(sorting: Sorting) -> tuple[NDArray[np.int64], FloatArray]:
    """Of each asked image that is in a cluster: the cluster's row, and the doubt that its answers leave."""
    placed = [(image, place) for image, place in sorting.image_place.items() if place != NONE]
    rows = np.array([sorting.row[place] for _, place in placed], dtype=np.int64)
    return rows, np.array([1 - sorting.image_sure[image] for image, _ in placed])


def _drift(sorting: Sorting, random: np.random.Generator) -> FloatArray:
    """By how much all shares together would differ had the member model come out otherwise, (draws,)."""
    members = sorting.members
    features, weights = np.unique(np.round(sorting.features * 8) / 8, axis=0, return_counts=True)
    at = random.multivariate_normal(members.weights, members.covariance, _DRAWS)
    shares = 1 / (1 + np.exp(-np.clip(at @ features.T, -30, 30)))
    drift: FloatArray = shares @ weights / float(members.misplaced(features) @ weights)
    return drift
