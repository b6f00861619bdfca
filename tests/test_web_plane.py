"""The map keeps together what is alike, and is the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from manylens.web import plane
from manylens.web.plane import neighbour_plane, principal_plane


def blobs(count: int, each: int, width: int = 32, seed: int = 1) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, width))
    labels = np.repeat(np.arange(count), each)
    vectors = centres[labels] + 0.4 * rng.normal(size=(labels.size, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16), labels


def purity(points: NDArray[np.float32], labels: NDArray[np.int64], near: int = 5) -> float:
    """The share of an image's nearest points that are of its own kind."""
    distances = ((points[:, None] - points) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :near]
    return float((labels[nearest] == labels[:, None]).mean())


def test_the_principal_plane_is_that_of_the_covariance() -> None:
    vectors, _ = blobs(3, 40)
    centred = vectors.astype(np.float64) - vectors.astype(np.float64).mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    oracle = centred @ axes[:2].T
    points = principal_plane(vectors)
    for axis in range(2):
        assert abs(np.corrcoef(points[:, axis], oracle[:, axis])[0, 1]) > 0.999
    assert np.abs(points).max() == pytest.approx(1, abs=1e-5)


def test_neighbours_stay_together_where_the_principal_plane_mixes_them() -> None:
    vectors, labels = blobs(20, 15)
    points = neighbour_plane(vectors)
    assert purity(points, labels) > 0.95 > purity(principal_plane(vectors), labels) + 0.1
    assert np.array_equal(points, neighbour_plane(vectors))
    assert np.abs(points).max() <= 1.0001


def test_more_images_than_landmarks_are_put_beside_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane, "LANDMARKS", 150)
    vectors, labels = blobs(10, 60)
    assert purity(neighbour_plane(vectors), labels) > 0.95


@pytest.mark.parametrize("vectors", [np.zeros((0, 4)), np.ones((1, 4)) / 2, np.ones((3, 4)) / 2, np.ones((30, 4)) / 2])
def test_few_or_equal_embeddings_have_a_plane_too(vectors: NDArray[np.float64]) -> None:
    points = neighbour_plane(vectors.astype(np.float16))
    assert points.shape == (len(vectors), 2) and np.isfinite(points).all()
