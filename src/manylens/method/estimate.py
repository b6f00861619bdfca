"""How many images are misplaced, after all that was asked: per cluster and in all, with a 95% interval.

In: a `Sorting`. Out: `Misplaced`. Promise: pure, seeded. It counts what is expected of every image: of one that was
asked, the doubt its answers leave; of one that was not, its unit's share of misplaced images at its look's confidence,
and the chance that the whole unit is elsewhere. The interval comes from draws of all that is not known: the numbers
of the member model (Laplace), each unit's own rate (Gamma, the conjugate of its Beta posterior at small shares), where
each unit belongs, the luck of single images, and how far all of this is off together: that is measured on the random
sample that `check` asks about at the end (Gamma, from how many of it were misplaced and how many were foreseen).

What it assumes: given the look's confidence and the unit, images that were asked are like those that were not. Asking
chooses by just these, and by seeded hash; so it holds under adaptive asking, and fails where a model's mistakes depend
on something that neither its description nor its confidence shows: of a judge whose answers repeat its looks that is
known beforehand, and `own_doubt` takes its place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from manylens.method.likelihood import FloatArray
from manylens.method.sorting import NONE, Sorting
from manylens.types import Basis, Misplaced

DRAWS = 400
_BELIEF = 1.0
"""How far the two models are believed before the random sample is asked: as if so many misplaced images had been seen
where they expect as many."""


def estimate_misplaced(
    sorting: Sorting, group_of: NDArray[np.int64], groups: int, seed: int
) -> tuple[Misplaced, list[Misplaced]]:
    """(of all images in groups, of each group's). group_of: (n,) the group of each image, or NONE."""
    random = np.random.default_rng([seed, 7])
    unit, group, rest, expected = _unasked(sorting, group_of)
    asked = np.array([i for i in sorted(sorting.image_sure) if group_of[i] != NONE], dtype=np.int64)
    doubt = np.array([1 - sorting.image_sure[image] for image in asked.tolist()])
    sizes = np.bincount(group_of[group_of != NONE], minlength=groups).astype(np.float64)
    shape = sorting.prior + sorting.misplaced
    rate = sorting.prior + _seen(sorting)
    elsewhere = 1 - sorting.sure
    drift = _drift(sorting, random)
    found, foreseen = _sampled(sorting)
    doubted = random.gamma(_BELIEF + found, 1 / (_BELIEF + foreseen), DRAWS)
    counts = np.zeros((DRAWS, groups))
    for draw in range(DRAWS):
        own = random.gamma(shape, 1 / rate)[unit] * expected * drift[draw] * doubted[draw]
        few = np.minimum(random.poisson(own), rest)
        whole = (random.random(len(elsewhere)) < elsewhere * doubted[draw])[unit]
        counts[draw] = np.bincount(group, weights=np.where(whole, rest, few), minlength=groups)
        slips = random.random(len(doubt)) < doubt
        counts[draw] += np.bincount(group_of[asked], weights=slips, minlength=groups)
    return summary(counts.sum(axis=1), float(sizes.sum())), [
        summary(counts[:, number], float(sizes[number])) for number in range(groups)
    ]


def summary(counts: FloatArray, size: float, expected: float | None = None, basis: Basis = "answers") -> Misplaced:
    """counts: (draws,) of misplaced images among `size`. expected: how many, where that is known without draws."""
    if size <= 0:
        return Misplaced(0.0, 0.0, 0.0, basis)
    share = (float(counts.mean()) if expected is None else expected) / size
    low, high = np.quantile(counts / size, (0.025, 0.975))
    # Of a few images next to no draw may misplace any: the mean of all draws then lies above their quantile.
    share, low, high = (round(x, 4) for x in (share, min(float(low), share), max(float(high), share)))
    return Misplaced(share, low, high, basis)


def _unasked(
    sorting: Sorting, group_of: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray, FloatArray]:
    """Of each pair of unit and group that images which were not asked have in common: both, how many those are, and how
    many of them are expected to be misplaced at the common rate."""
    there = group_of != NONE
    there[list(sorting.image_sure)] = False
    of_image = sorting.units.of_image
    groups = int(group_of.max(initial=0)) + 1
    pairs, place = np.unique(of_image[there] * groups + group_of[there], return_inverse=True)
    share = np.where(sorting.units.sizes[of_image] > 1, sorting.share, 0.0)[there]
    rest = np.bincount(place, minlength=len(pairs)).astype(np.float64)
    expected = np.bincount(place, weights=share, minlength=len(pairs)).astype(np.float64)
    return pairs // groups, pairs % groups, rest, expected


def _seen(sorting: Sorting) -> FloatArray:
    """Of each unit, how many of its asked images were expected to be misplaced at the common rate."""
    asked = np.array(sorted(sorting.answers), dtype=np.int64)
    of_unit = np.bincount(sorting.units.of_image[asked], weights=sorting.share[asked], minlength=len(sorting.units))
    return of_unit.astype(np.float64)


def _sampled(sorting: Sorting) -> tuple[float, float]:
    """Of the images asked about at random: how many were misplaced, and how many the models expected."""
    found = foreseen = 0.0
    for image, (cluster, doubt) in sorting.sampled.items():
        if image in sorting.image_sure:
            stayed = sorting.image_place[image] == sorting.root(cluster)
            found += 1 - sorting.image_sure[image] if stayed else sorting.image_sure[image]
            foreseen += doubt
    return found, foreseen


def _drift(sorting: Sorting, random: np.random.Generator) -> FloatArray:
    """By how much all shares together would differ had the member model come out otherwise, (draws,)."""
    members = sorting.members
    features, weights = np.unique(np.round(sorting.features * 8) / 8, axis=0, return_counts=True)
    at = random.multivariate_normal(members.weights, members.covariance, DRAWS)
    shares = 1 / (1 + np.exp(-np.clip(at @ features.T, -30, 30)))
    drift: FloatArray = shares @ weights / float(members.misplaced(features) @ weights)
    return drift
