"""Groups by look: k-means of our own, against scikit-learn's."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from manylens.method.by_look import MOST_GROUPS, group_by_look, usual_groups


def blobs(n: int, groups: int, spread: float, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rows, labels = make_blobs(n, 16, centers=groups, cluster_std=spread, random_state=seed)
    return rows.astype(np.float32), labels


def inertia(rows: NDArray[np.float32], group: NDArray[np.int64]) -> float:
    return sum(float(((rows[group == g] - rows[group == g].mean(0)) ** 2).sum()) for g in np.unique(group))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_as_tight_as_that_of_scikit_learn(seed: int) -> None:
    rows, _ = blobs(200, 6, 6.0, seed)
    found, _ = group_by_look(rows, 6, seed)
    best = KMeans(6, n_init=10, random_state=seed).fit(rows).inertia_
    assert len(set(found.tolist())) == 6
    assert inertia(rows, found) <= 1.03 * best


def test_groups_that_lie_apart_are_found_the_largest_is_first_and_rows_between_two_are_less_clear() -> None:
    rows, labels = blobs(120, 4, 0.5, 1)
    between = (rows[labels == 0].mean(0) + rows[labels == 1].mean(0)) / 2
    found, clear = group_by_look(np.vstack([rows, rows[labels == 2], between[None]]), 4, 0)
    assert adjusted_rand_score(labels, found[:120]) == 1
    assert (np.diff(np.bincount(found)) <= 0).all()
    assert clear.argmin() == len(found) - 1
    assert ((clear >= 0) & (clear <= 1)).all()


def test_the_same_rows_and_seed_give_the_same_groups() -> None:
    rows, _ = blobs(80, 5, 6.0, 2)
    one, other = group_by_look(rows, 5, 3), group_by_look(rows.copy(), 5, 3)
    assert (one[0] == other[0]).all()
    assert (one[1] == other[1]).all()


@pytest.mark.parametrize(("n", "groups"), [(0, 3), (1, 1), (2, 5), (3, 2)])
def test_few_rows(n: int, groups: int) -> None:
    rows = np.eye(4, dtype=np.float32)[:n]
    found, clear = group_by_look(rows, groups, 0)
    assert len(found) == len(clear) == n
    assert len(set(found.tolist())) == min(n, groups)


def test_equal_rows_are_one_group_however_many_are_asked_for() -> None:
    found, _ = group_by_look(np.ones((7, 3), np.float32), 4, 0)
    assert set(found.tolist()) == {0}


def test_how_many_groups_there_are_follows_from_how_many_pictures() -> None:
    assert [usual_groups(n) for n in (0, 1, 2, 8, 50, 200)] == [1, 1, 1, 2, 5, 10]
    assert usual_groups(10**6) == MOST_GROUPS
