import math
from collections import Counter

import numpy as np
import pytest
from by_hand import by_label, drive, looks_of
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.evidence import Answer, Draft, Looks, Question, Standing
from manylens.merge import Merger, merge_clusters
from manylens.records import Settings

SETTINGS = Settings()


def drafts_of(groups: list[list[int]]) -> list[Draft]:
    return [Draft(frozenset({group[0]}), {image: Standing("seed") for image in group}) for group in groups]


def parts(drafts: list[Draft]) -> list[list[int]]:
    return sorted(sorted(draft.members) for draft in drafts)


def chunks(sizes: list[int]) -> list[list[int]]:
    ends = np.cumsum(sizes)
    return [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


def split_classes(classes: int, pieces: int, size: int) -> tuple[Looks, list[Draft], list[str]]:
    """Every class over-split into pieces of equal size."""
    labels = [f"kind{c}" for c in range(classes) for _ in range(pieces * size)]
    chance = np.random.default_rng(0)
    centres = np.eye(classes, max(classes, 8))
    rows = np.array([centres[int(label[4:])] for label in labels]) + 0.1 * chance.standard_normal(
        (len(labels), max(classes, 8))
    )
    return looks_of(labels, rows), drafts_of(chunks([size] * classes * pieces)), labels


@pytest.mark.parametrize(("sizes", "answers"), [([6, 4], 1), ([60, 40], 2)])
def test_two_halves_of_a_kind_are_joined_and_large_ones_are_asked_both_ways(sizes: list[int], answers: int) -> None:
    looks = looks_of(["hearts"] * sum(sizes))
    asked: list[Question] = []
    merged = drive(merge_clusters(looks, drafts_of(chunks(sizes)), SETTINGS), lambda question: 0.97, asked)
    assert parts(merged) == [list(range(sum(sizes)))]
    assert merged[0].keys == {0, sizes[0]}
    assert [question.candidate >= sizes[0] for question in asked] == [True, False][:answers]


def test_different_kinds_are_refused_by_one_clear_answer() -> None:
    looks = looks_of(["hearts"] * 5 + ["spades"] * 5)
    asked: list[Question] = []
    merged = drive(merge_clusters(looks, drafts_of(chunks([5, 5])), SETTINGS), lambda question: 0.02, asked)
    assert len(merged) == 2
    assert len(asked) == 1


def test_a_single_false_yes_joins_no_two_large_clusters() -> None:
    looks = looks_of(["hearts"] * 50 + ["spades"] * 50)
    answers = iter([0.99])
    merged = drive(merge_clusters(looks, drafts_of(chunks([50, 50])), SETTINGS), lambda question: next(answers, 0.02))
    assert len(merged) == 2


def test_synonyms_are_joined_and_larger_ones_need_more_answers() -> None:
    needed = {}
    for size in (5, 200):
        looks = looks_of(["ten"] * size + ["10"] * size)
        asked: list[Question] = []
        merged = drive(merge_clusters(looks, drafts_of(chunks([size, size])), SETTINGS), lambda question: 0.97, asked)
        assert len(merged) == 1
        needed[size] = len(asked)
    assert needed[5] < needed[200] <= 2 * SETTINGS.merge_answers


@pytest.mark.parametrize(("sees_exemplars", "left", "questions"), [(True, 1, 3), (False, 2, 2)])
def test_one_mistake_about_a_name_is_not_counted_for_every_image_of_the_kind(
    sees_exemplars: bool, left: int, questions: int
) -> None:
    """Daisies and apples are not alike: prior -3. A judge who sees no exemplars is sure that each is the other: each
    way counts once, -3 + 2 log 19 = 2.89, where log 20 + log 4 = 4.38 is needed or, when all is asked, log 19 = 2.94.
    Three such answers reach 5.83."""
    looks = looks_of(["daisy"] * 4 + ["apple"] * 4)
    asked: list[Question] = []
    steps = merge_clusters(looks, drafts_of(chunks([4, 4])), SETTINGS, sees_exemplars)
    assert len(drive(steps, lambda question: 0.99, asked)) == left
    assert len(asked) == questions


def test_a_part_of_a_wider_kind_is_not_joined_with_it() -> None:
    """Every dark red is a red, but no red of the other cluster is a dark red: both directions must agree."""
    looks = looks_of(["dark red"] * 8 + ["red"] * 8)
    merged = drive(
        merge_clusters(looks, drafts_of(chunks([8, 8])), SETTINGS),
        lambda question: 0.97 if question.profile.words == "red" else 0.02,
    )
    assert len(merged) == 2


def merger_of(sizes: list[int]) -> Merger:
    merger = Merger(looks_of(["a"] * sum(sizes)), SETTINGS)
    for number, draft in enumerate(drafts_of(chunks(sizes))):
        merger.drafts[number], merger.parents[number] = draft, number
        merger.barred[number], merger.clear_refusals[number] = {}, 0
    return merger


def test_a_refusal_binds_what_the_clusters_become_until_they_outgrow_it() -> None:
    merger = merger_of([5, 6, 7, 40, 40])
    merger.refuse(0, 2, 5)
    merger.join(0, 1)
    assert merger.root(0) == merger.root(1) == 1, "the larger takes the smaller in"
    assert merger.is_barred(1, 2) and merger.is_barred(2, 1)
    merger.join(1, 3)
    assert merger.is_barred(3, 2), "one side alone has outgrown it"
    merger.join(2, 4)
    assert not merger.is_barred(3, 4), "what 5 images said decides nothing about 47 and 51"
    merger.join(3, 4)
    assert merger.drafts[3].size == 98 and merger.barred == {3: {}}


def test_images_that_look_alike_get_a_second_question_after_a_no() -> None:
    """Synonyms with equal centroids: one false no does not keep them apart."""
    looks = looks_of(["ten"] * 5 + ["10"] * 5, np.ones((10, 2)))
    answers = iter([0.05])
    merged = drive(merge_clusters(looks, drafts_of(chunks([5, 5])), SETTINGS), lambda question: next(answers, 0.97))
    assert len(merged) == 1


def test_joins_are_transitive() -> None:
    looks = looks_of(["a"] * 12)
    merged = drive(merge_clusters(looks, drafts_of(chunks([4, 4, 4])), SETTINGS), lambda question: 0.97)
    assert parts(merged) == [list(range(12))]
    assert merged[0].keys == {0, 4, 8}


def test_without_any_answer_equal_descriptions_are_joined_and_others_are_not() -> None:
    looks = looks_of(["a"] * 8 + ["b"] * 8)
    merged = drive(merge_clusters(looks, drafts_of(chunks([4, 4, 4, 4])), SETTINGS), lambda question: None)
    assert parts(merged) == [list(range(8)), list(range(8, 16))]


def test_a_small_kind_of_its_own_stands_and_a_small_piece_of_another_joins_it() -> None:
    looks = looks_of(["ace"] * 9 + ["joker"] * 3 + ["as"] * 3)
    labels = ["ace"] * 9 + ["joker"] * 3 + ["ace"] * 3
    merged = drive(merge_clusters(looks, drafts_of(chunks([9, 3, 3])), SETTINGS), by_label(looks, labels))
    assert parts(merged) == [[*range(9), 12, 13, 14], [9, 10, 11]]


def test_small_pieces_of_one_description_join_each_other() -> None:
    looks = looks_of(["joker"] * 3)
    merged = drive(merge_clusters(looks, drafts_of([[0], [1], [2]]), SETTINGS), lambda question: 0.97)
    assert parts(merged) == [[0, 1, 2]]


@pytest.mark.parametrize(("classes", "pieces"), [(13, 1), (13, 10), (50, 4), (200, 1)])
def test_k_is_found_with_m_log_m_questions(classes: int, pieces: int) -> None:
    looks, drafts, labels = split_classes(classes, pieces, 4)
    asked: list[Question] = []
    merged = drive(merge_clusters(looks, drafts, SETTINGS), by_label(looks, labels), asked)
    assert len(merged) == classes
    assert all(len({labels[image] for image in draft.members}) == 1 for draft in merged)
    m = classes * pieces
    assert len(asked) <= 2 * m * math.log2(m)


def test_a_noisy_judge_finds_k() -> None:
    """3% false no and 1% false yes, 30 runs of 13 classes in 4 pieces each: at most one run in ten misses K."""
    looks, drafts, labels = split_classes(13, 4, 5)
    found: Counter[int] = Counter()
    for seed in range(30):
        chance = np.random.default_rng(seed)
        right = by_label(looks, labels)

        def judge(question: Question, chance: np.random.Generator = chance, right=right) -> float:  # type: ignore[no-untyped-def]
            yes = right(question) > 0.5
            return 0.95 if yes != (chance.random() < (0.03 if yes else 0.01)) else 0.05

        found[len(drive(merge_clusters(looks, drafts, SETTINGS), judge))] += 1
    assert set(found) <= {12, 13, 14}
    assert found[13] >= 27


@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["a", "b", "c", ""])), min_size=1, max_size=9),
    st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_judge_says_the_images_stay_a_partition_and_clusters_only_join(
    pieces: list[tuple[int, str]], seed: int
) -> None:
    chance = np.random.default_rng(seed)
    looks = looks_of([words for size, words in pieces for _ in range(size)])
    before = drafts_of(chunks([size for size, _ in pieces]))
    steps = merge_clusters(looks, before, SETTINGS)
    try:
        ask = next(steps)
        while True:
            ask = steps.send([Answer(float(chance.random()) if chance.random() < 0.9 else None) for _ in ask.questions])
    except StopIteration as end:
        merged = end.value
    assert sorted(image for draft in merged for image in draft.members) == list(range(len(looks)))
    for draft in before:
        assert any(draft.keys <= after.keys and set(draft.members) <= set(after.members) for after in merged)
