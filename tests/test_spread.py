"""What is not described is taken for what it is like, and only where likeness says something."""

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("sklearn")

from manylens.tuning.label_classifier import FEWEST_ALIKE, spread_answers

KINDS = ("hearts", "spades", "clubs")


def made_up(rows: int, apart: float, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Features (n, 20) around one centre for each kind, and the kinds."""
    random = np.random.default_rng(seed)
    kinds = [KINDS[row % len(KINDS)] for row in range(rows)]
    centres = np.random.default_rng(99).normal(size=(len(KINDS), 20))
    features = np.array([apart * centres[KINDS.index(kind)] for kind in kinds]) + random.normal(size=(rows, 20))
    return features.astype(np.float32), kinds


def test_images_are_taken_for_what_they_are_like_though_some_answers_are_wrong() -> None:
    features, kinds = made_up(200, 2.0)
    random = np.random.default_rng(1)
    said = [KINDS[(KINDS.index(kind) + 1) % 3] if random.random() < 0.1 else kind for kind in kinds[:60]]
    assert sum(a != b for a, b in zip(said, kinds, strict=False)) >= 3
    soft_labels = spread_answers(features[:60], said, features[60:], 0)
    assert soft_labels is not None and len(soft_labels) == 140
    right = [soft_label[0][0] == kind for soft_label, kind in zip(soft_labels, kinds[60:], strict=True)]
    assert np.mean(right) > 0.95


def test_a_belief_is_a_distribution_with_the_most_probable_first() -> None:
    features, kinds = made_up(90, 0.7)
    soft_labels = spread_answers(features[:60], kinds[:60], features[60:], 0)
    assert soft_labels is not None
    assert any(len(soft_label) > 1 for soft_label in soft_labels)
    for soft_label in soft_labels:
        shares = [p for _, p in soft_label]
        assert sum(shares) == pytest.approx(1, abs=1e-3)
        assert shares == sorted(shares, reverse=True)
        assert {words for words, _ in soft_label} <= set(KINDS)


def test_where_features_say_nothing_nothing_is_spread() -> None:
    features, kinds = made_up(90, 0.0)
    mostly = ["hearts" if row % 4 else kind for row, kind in enumerate(kinds)]
    assert spread_answers(features[:60], mostly[:60], features[60:], 0) is None


def test_descriptions_that_hardly_repeat_are_not_spread() -> None:
    features, kinds = made_up(90, 2.0)
    prose = [f"{kind} number {row}" for row, kind in enumerate(kinds)]
    assert spread_answers(features[:60], prose[:60], features[60:], 0) is None
    rare = ["a joker" if row < FEWEST_ALIKE - 1 else kind for row, kind in enumerate(kinds)]
    soft_labels = spread_answers(features[:60], rare[:60], features[60:], 0)
    assert soft_labels is not None
    assert "a joker" not in Counter(words for soft_label in soft_labels for words, _ in soft_label)


def test_the_same_seed_spreads_the_same() -> None:
    features, kinds = made_up(90, 0.5)
    once = spread_answers(features[:60], kinds[:60], features[60:], 0)
    assert once == spread_answers(features[:60], kinds[:60], features[60:], 0)
