"""The benchmark's other methods, on looks made by hand."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from manylens.method.observations import Looks, normalise_description
from manylens.method.walk import EdgeScale
from manylens.models.base import Capabilities
from manylens.results.evaluate import evaluate_labels
from manylens.settings import Settings
from manylens.types import Interest

pytest.importorskip("sklearn")
from bench import baselines
from bench.workbench import Judgement

WORDS = ["hearts"] * 6 + ["spades"] * 6 + ["clubs"] * 6


def looks_of(descriptions: Sequence[str], embeddings: np.ndarray | None = None) -> Looks:
    """Without embeddings, equal descriptions get equal ones, different ones orthogonal."""
    words = [normalise_description(description) for description in descriptions]
    kinds = sorted(set(words))
    rows = np.eye(max(2, len(kinds)))[[kinds.index(said) for said in words]] if embeddings is None else embeddings
    return Looks(
        interest=Interest("suit"),
        image_ids=tuple(f"{number:03d}" for number in range(len(words))),
        descriptions=tuple(descriptions),
        words=tuple(words),
        confidences=np.ones(len(words), np.float32),
        embeddings=(rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32),
    )


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

    async def __call__(self, questions: Sequence[Judgement]) -> list[float]:
        kinds = [normalise_description(question.cluster.name) for question in questions]
        self.asked += [(kind, question.image) for kind, question in zip(kinds, questions, strict=True)]
        return [
            self.yes if self.truth[question.image] == kind else 1 - self.yes
            for kind, question in zip(kinds, questions, strict=True)
        ]


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


EDGE = EdgeScale(8.0, -4.0)


def test_the_plain_walk_asks_about_every_image_of_its_frontier() -> None:
    looks = noisy(WORDS)
    judge = Judge(looks)
    partition, asked = asyncio.run(baselines.plain_walk(looks, EDGE, judge, Settings()))
    assert same(partition, WORDS)
    assert asked == len(judge.asked) - 2 == 15  # all but the three seeds; then the tree's two edges


def test_the_plain_walk_parts_what_the_judge_parts_and_leaves_out_who_is_alone() -> None:
    looks = noisy(["red"] * 9)
    truth = ["red"] * 4 + ["blue"] * 4 + ["green"]

    async def judge(questions: Sequence[Judgement]) -> list[float]:
        return [float(truth[q.image] == truth[q.cluster.exemplars[0]]) for q in questions]

    partition, _ = asyncio.run(baselines.plain_walk(looks, EDGE, judge, Settings()))
    assert same(partition[:8], truth[:8]) and partition[8] is None


def test_a_cluster_is_described_by_its_commonest_words_and_their_medoids() -> None:
    looks = looks_of(["Oak", "an oak", "oak tree", "Oak"], np.array([[1, 0.0], [1, 0.1], [1, 1.0], [1, 0.3]]))
    said = baselines.describe(looks, range(4), 3)
    assert said.name == "Oak" and said.exemplars == (3, 1, 0)
    assert baselines.describe(looks, range(4)).exemplars == (3, 1, 0, 2)
