"""The benchmark's other methods, on looks made by hand."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from by_hand import looks_of

from manylens.evaluate import evaluate_labels
from manylens.evidence import Looks, Question
from manylens.models.base import Capabilities

pytest.importorskip("sklearn")
from bench import baselines

WORDS = ["hearts"] * 6 + ["spades"] * 6 + ["clubs"] * 6


def noisy(words: Sequence[str], seed: int = 0) -> Looks:
    """Equal descriptions lie close together."""
    kinds = sorted(set(words))
    rows = np.eye(8)[[kinds.index(said) for said in words]]
    return looks_of(words, rows + np.random.default_rng(seed).normal(0, 0.03, rows.shape))


class Judge:
    """Answers by a rule and remembers what it was asked."""

    def __init__(self, looks: Looks, yes: float = 0.9, truth: Sequence[str] | None = None) -> None:
        self.looks, self.yes, self.truth = looks, yes, truth or looks.words
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, questions: Sequence[Question]) -> list[float]:
        self.asked += [(question.profile.words, question.candidate) for question in questions]
        return [self.yes if self.truth[q.candidate] == q.profile.words else 1 - self.yes for q in questions]


def same(partition: baselines.Partition, words: Sequence[str]) -> bool:
    return evaluate_labels(list(words), partition).ari == 1


def test_k_means_and_spectral_find_well_parted_groups_and_repeat_with_the_seed() -> None:
    looks = noisy(WORDS)
    known = Capabilities(writes_text=False, sees_exemplars=False)
    for partition in (baselines.k_means(looks.embeddings, 3, 1), baselines.spectral(looks.embeddings, 3, 1, known)):
        assert same(partition, WORDS)
    assert baselines.k_means(looks.embeddings, 5, 1) == baselines.k_means(looks.embeddings, 5, 1)


def test_more_clusters_than_images_is_no_crash() -> None:
    looks = noisy(["a", "b", "c"])
    assert len(set(baselines.k_means(looks.embeddings, 9, 0))) == 3


def test_hdbscan_leaves_noise_out() -> None:
    looks = noisy([*WORDS, "joker"])
    partition = baselines.hdbscan(looks.embeddings)
    assert partition[-1] is None
    assert same(partition[:-1], WORDS)
    assert baselines.hdbscan(looks.embeddings[:3]) == [None] * 3


def test_equal_descriptions_are_clusters() -> None:
    assert baselines.equal_descriptions(looks_of(["Hearts", "spades", "a heart"])) == [0, 1, 0]


def test_text_rows_are_equal_for_equal_words_and_close_for_like_spelling() -> None:
    rows = baselines.text_rows(looks_of(["light blue", "light blue", "blue", "oak", ""]))
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
    similarity = rows @ rows.T
    assert similarity[0, 1] == pytest.approx(1)
    assert similarity[0, 2] > 0.3 > similarity[0, 3]


def test_the_three_steps_name_the_most_frequent_descriptions_and_ask_only_where_the_words_do_not_say() -> None:
    words = ["hearts"] * 4 + ["spades"] * 3 + ["red suit"]
    looks = noisy(words)
    truth = ["hearts"] * 4 + ["spades"] * 3 + ["hearts"]
    judge = Judge(looks, truth=[looks.words[0]] * 4 + [looks.words[4]] * 3 + [looks.words[0]])
    partition = asyncio.run(baselines.describe_name_assign(looks, 2, judge))
    assert same(partition, truth)
    assert judge.asked == [(looks.words[0], 7), (looks.words[4], 7)]


def test_the_three_steps_make_no_more_names_than_there_are_descriptions() -> None:
    looks = noisy(["hearts", "spades", ""])
    judge = Judge(looks)
    partition = asyncio.run(baselines.describe_name_assign(looks, 5, judge))
    assert len(set(partition)) == 2  # the image without a description went to one of them
    silent = noisy(["", "", ""])
    assert asyncio.run(baselines.describe_name_assign(silent, 2, Judge(silent))) == [None] * 3


def test_the_hybrid_agent_asks_once_per_edge_of_the_tree() -> None:
    looks = noisy(WORDS)
    judge = Judge(looks)
    assert same(asyncio.run(baselines.embed_cluster_join(looks, judge)), WORDS)
    assert len(judge.asked) == 2


def test_the_hybrid_agent_joins_what_the_judge_takes_for_one() -> None:
    looks = noisy(["dark red"] * 6 + ["red"] * 7 + ["blue"] * 6)
    judge = Judge(looks, truth=["red"] * 13 + ["blue"] * 6)
    partition = asyncio.run(baselines.embed_cluster_join(looks, judge))
    assert same(partition, ["red"] * 13 + ["blue"] * 6)


def test_the_tree_spans_all_and_takes_the_shortest_edges() -> None:
    centres = {number: np.array([x, 0], np.float32) for number, x in enumerate((0.0, 1.0, 3.0, 10.0))}
    assert baselines.spanning_tree(centres) == [(0, 1), (1, 2), (2, 3)]
    assert baselines.spanning_tree({}) == []
