"""What looks and a person's words say of misplaced images."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from manylens.method.doubt import NONE, PRIOR_WEIGHTS, Spoken, fit_head, logistic, misplaced
from manylens.method.review import Doubtful, queue

NOBODY = Spoken(np.array([], np.int64), np.array([], np.int64))


def clouds(seed: int = 0, many: int = 40, kinds: int = 3, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    at = np.repeat(np.arange(kinds), many)
    rows = np.eye(kinds, 12)[at] + spread * chance.standard_normal((len(at), 12))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), at


def test_an_image_among_others_of_another_look_stands_out() -> None:
    rows, at = clouds()
    wrong = at.copy()
    wrong[[0, 50, 100]] = [1, 2, 0]
    margin = fit_head(rows, wrong, np.full(len(at), 0.95), 3).margin(wrong)
    assert set(np.argsort(-margin)[:3].tolist()) == {0, 50, 100}
    assert (margin[[0, 50, 100]] > 0).all()
    assert (np.delete(margin, [0, 50, 100]) < 0).mean() > 0.95


def test_an_image_does_not_speak_for_itself() -> None:
    """Of two images in a cluster the one far off is nearer to the other cluster, though half of the mean is its own."""
    rows = np.array([[1, 0, 0], [0.98, 0.2, 0], [0, 1, 0], [0.05, 1, 0], [0, 1, 0.05], [0.02, 1, 0.02]], np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    at = np.array([0, 0, 0, 1, 1, 1])
    margin = fit_head(rows, at, np.ones(6), 2).margin(at)
    assert int(margin.argmax()) == 2


def test_images_in_no_cluster_and_a_single_cluster_have_no_margin() -> None:
    rows, at = clouds(kinds=2)
    at[0] = NONE
    assert fit_head(rows, at, np.ones(len(at)), 2).margin(at)[0] == 0
    assert not fit_head(rows, np.zeros(len(at), np.int64), np.ones(len(at)), 1).margin(at * 0).any()
    assert not fit_head(rows, np.full(len(at), NONE), np.ones(len(at)), 0).margin(np.full(len(at), NONE)).any()


def test_the_shares_sum_to_what_the_confidences_say() -> None:
    chance = np.random.default_rng(1)
    confidence, margin = chance.uniform(0.5, 1, 200), chance.normal(-3, 2, 200)
    doubts = misplaced(confidence, margin, NOBODY)
    assert doubts.share.sum() == pytest.approx((1 - np.clip(confidence, 0.001, 0.999)).sum(), rel=1e-6)


def test_few_words_of_a_person_change_no_weight() -> None:
    confidence, margin = np.full(50, 0.9), np.linspace(-5, 5, 50)
    few = Spoken(np.array([49, 48, 47]), np.array([1, 2, 3, 4]))
    assert np.allclose(misplaced(confidence, margin, few).odds, misplaced(confidence, margin, NOBODY).odds)


def test_moved_images_of_a_strange_look_make_others_of_such_a_look_doubtful() -> None:
    chance = np.random.default_rng(2)
    confidence, margin = chance.uniform(0.9, 0.99, 300), chance.normal(-4, 1, 300)
    margin[:30] = 4.0
    said = Spoken(np.arange(8), np.arange(100, 104))
    before, after = misplaced(confidence, margin, NOBODY), misplaced(confidence, margin, said)
    assert (logistic(after.odds)[8:30] > 0.5).all()
    assert (logistic(after.odds)[30:] < 0.5).all()
    assert after.share[8:30].mean() > 2 * before.share[8:30].mean()


def test_the_weights_are_those_of_a_regression_where_much_was_said() -> None:
    """An oracle: with thousands of words the prior does not count."""
    chance = np.random.default_rng(3)
    n = 4000
    confidence, margin = chance.uniform(0.5, 0.99, n), chance.normal(0, 2, n)
    odds = -1 + 0.5 * np.log((1 - confidence) / confidence) + 0.8 * margin
    moved = chance.random(n) < 1 / (1 + np.exp(-odds))
    said = Spoken(np.flatnonzero(moved), np.flatnonzero(~moved))
    found = misplaced(confidence, margin, said).odds
    features = np.stack([np.log((1 - confidence) / confidence), margin], axis=1)
    oracle = LogisticRegression(C=1e6).fit(features, moved)
    assert np.abs(found - oracle.decision_function(features)).max() < 0.1


def test_separable_words_end_in_finite_weights() -> None:
    confidence, margin = np.full(40, 0.99), np.where(np.arange(40) < 20, 6.0, -6.0)
    odds = misplaced(confidence, margin, Spoken(np.arange(20), np.arange(20, 40))).odds
    assert np.isfinite(odds).all()
    assert (odds[:20] > 0).all()
    assert (odds[20:] < 0).all()
    assert PRIOR_WEIGHTS[2] < 1


def review(
    share: list[float], cluster: list[int], words: list[str], spoken: Spoken = NOBODY, **more: object
) -> list[Doubtful]:
    at = np.array(cluster)
    asked = np.array(more.pop("by_description", [True] * len(at)))
    return queue(np.array(share), at, words, asked, spoken, more.pop("decided", at), more.pop("skipped", ()))  # type: ignore[arg-type]


def test_a_group_that_is_doubtful_together_comes_first_once() -> None:
    found = review([0.3, 0.3, 0.3, 0.3, 0.5, 0.05], [0, 0, 0, 0, 1, 1], ["a", "a", "a", "a", "b", "c"])
    assert [one.image for one in found[:2]] == [0, 4]
    assert found[0].gain == pytest.approx(0.3 * 4)
    assert found[0].alike == 4
    assert found[2].gain == pytest.approx(0.3)


def test_an_answer_speaks_for_those_like_it() -> None:
    words = ["a"] * 5 + ["b"]
    share = [0.3] * 5 + [0.2]
    kept = review(share, [0] * 6, words, Spoken(np.array([], np.int64), np.array([0])))
    moved = review(share, [0] * 6, words, Spoken(np.array([0]), np.array([], np.int64)))
    before = review(share, [0] * 6, words)
    doubt = [{one.image: one.doubt for one in found}[1] for found in (kept, before, moved)]
    assert doubt[0] < doubt[1] < doubt[2]
    assert 0 not in {one.image for one in kept}


def test_the_queue_leaves_out_what_is_skipped_and_shows_what_is_in_no_cluster() -> None:
    found = review([0.1, 0.9, 0.0], [0, 0, NONE], ["a", "b", "c"], skipped=[1])
    assert [one.image for one in found] == [2, 0]
    assert found[0].doubt == 0.5, "nobody could say"


def test_images_rightly_left_in_no_cluster_let_doubtful_ones_of_clusters_come_first() -> None:
    share, cluster, words = [0.3, 0.1, 0.0, 0.0, 0.0, 0.0], [0, 0, NONE, NONE, NONE, NONE], list("abcdef")
    nobody = np.array([], np.int64)
    assert [one.image for one in review(share, cluster, words)] == [2, 3, 4, 5, 0, 1]
    left = review(share, cluster, words, Spoken(nobody, np.array([2, 3])))
    assert [one.image for one in left] == [0, 4, 5, 1]
    assert left[1].doubt == 0.25
    now = [0, 0, 0, 0, NONE, NONE]
    placed = review(share, now, words, Spoken(np.array([2, 3]), nobody), decided=np.array(cluster))
    assert [one.image for one in placed] == [4, 5, 0, 1]
    assert placed[0].doubt == 0.75
