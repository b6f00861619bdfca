from functools import partial
from itertools import combinations

import numpy as np
import pytest
from by_hand import around, by_label, drive, looks_of
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.evidence import Answer, Looks, Question
from manylens.records import Settings
from manylens.walk import Surroundings, Walked, walk_component

UNAUDITED = Settings(audit_share=0.0, audits=0)
ASK_ALL = Settings(audit_share=1.0)


def give(probability: float | None, question: Question) -> float | None:
    return probability


def members(walked: Walked) -> list[list[int]]:
    return [sorted(draft.members) for draft in walked.drafts]


def two_kinds() -> tuple[Looks, Surroundings]:
    """0 1 2 are hearts, 3 4 spades; 2-3 is a weak bridge."""
    looks = looks_of(["hearts", "hearts", "hearts", "spades", "spades"])
    edges = {(0, 1): 0.9, (0, 2): 0.9, (1, 2): 0.9, (3, 4): 0.9, (2, 3): 0.62}
    return looks, around(looks, edges)


def test_strong_edges_of_equal_description_are_accepted_unasked_and_kin_is_left_alone() -> None:
    _, graph = two_kinds()
    asked: list[Question] = []
    walked = drive(walk_component(graph, range(5), UNAUDITED), lambda question: 0.0, asked)
    assert members(walked) == [[0, 1, 2], [3, 4]]
    assert asked == []
    assert (walked.trusted, walked.audits) == (3, 0)


def test_asking_everything_asks_every_candidate_once_per_cluster() -> None:
    looks, graph = two_kinds()
    asked: list[Question] = []
    labels = ["h", "h", "h", "s", "s"]
    walked = drive(walk_component(graph, range(5), ASK_ALL), by_label(looks, labels), asked)
    assert members(walked) == [[0, 1, 2], [3, 4]]
    assert sorted(question.candidate for question in asked) == [0, 1, 3, 4]
    assert walked.trusted == 0
    assert walked.refused == {3: {2}}


def test_the_seed_has_the_highest_weighted_degree() -> None:
    _, graph = two_kinds()
    walked = drive(walk_component(graph, range(5), UNAUDITED), lambda question: 0.0)
    assert walked.drafts[0].keys == {2}
    assert walked.drafts[0].members[2].decided_by == "seed"


def test_a_weak_edge_of_an_unsure_look_is_asked_and_the_answer_decides() -> None:
    """Odds .7 : .3 and 1.5 times the confidence reach those of trust, .8 : .2, from confidence .36 on."""
    looks = looks_of(["hearts", "hearts"], confidences=[0.3, 0.3])
    graph = around(looks, {(0, 1): 0.7})
    surer = looks_of(["hearts", "hearts"], confidences=[0.4, 0.4])
    asked: list[Question] = []
    drive(walk_component(around(surer, {(0, 1): 0.7}), range(2), UNAUDITED), partial(give, 0.1), asked)
    assert asked == []
    for probability, expected in ((0.9, [[0, 1]]), (0.1, [[0], [1]]), (None, [[0], [1]])):
        walked = drive(walk_component(graph, range(2), UNAUDITED), partial(give, probability))
        assert members(walked) == expected
    assert walked.refused == {}, "no answer is no refusal"


def test_an_outlier_does_not_define_a_cluster() -> None:
    """Image 0 has the highest degree, but all its neighbours agree on another description."""
    looks = looks_of(["spades", "hearts", "hearts", "hearts", "hearts"])
    edges = {(0, k): 0.95 for k in range(1, 5)} | {(u, v): 0.7 for u, v in combinations(range(1, 5), 2) if v == u + 1}
    labels = ["s", "h", "h", "h", "h"]
    walked = drive(walk_component(around(looks, edges), range(5), UNAUDITED), by_label(looks, labels))
    assert members(walked) == [[1, 2, 3, 4], [0]]


def test_one_wrong_admission_does_not_open_a_neighbouring_cluster() -> None:
    """0..11 are hearts, 12..23 spades; 12 is wrongly taken into hearts and refused by its own kind, and leads to two
    questions about spades."""
    looks = looks_of(["hearts"] * 12 + ["spades"] * 12)
    hearts = dict.fromkeys(combinations(range(12), 2), 0.95)
    spades = dict.fromkeys(combinations(range(12, 24), 2), 0.62)
    bridge = {(k, 12): 0.9 for k in range(3)}
    right = by_label(looks, ["h"] * 12 + ["s"] * 12)
    asked: list[Question] = []
    walked = drive(
        walk_component(around(looks, hearts | spades | bridge), range(24), ASK_ALL),
        lambda question: (
            {"heart": 0.9, "spade": 0.1}[question.profile.words] if question.candidate == 12 else right(question)
        ),
        asked,
    )
    assert members(walked) == [list(range(13)), list(range(13, 24))]
    assert sum(1 for q in asked if q.candidate > 12 and q.profile.words == "heart") == 2


@pytest.mark.parametrize(("own", "stays"), [(0.97, True), (0.7, True), (None, True), (0.02, False)])
def test_a_judge_who_says_yes_to_two_kinds_leaves_an_image_with_its_description(own: float | None, stays: bool) -> None:
    """Cherries 4 and 5 resemble roses more than each other. Roses say .9 to each: log 9 - 1.5 = .70 for them. Their own
    kind, where asked, says log(p / (1 - p)) + 1.5: .97 and .7 are more than that, .02 is less; without an
    answer the description stands."""
    looks = looks_of(["rose"] * 4 + ["cherry"] * 2)
    edges = dict.fromkeys(combinations(range(4), 2), 0.95) | {(0, 4): 0.9, (1, 5): 0.9, (4, 5): 0.7}
    asked: list[Question] = []
    walked = drive(
        walk_component(around(looks, edges), range(6), ASK_ALL),
        lambda question: own if question.profile.words == "cherry" else 0.9,
        asked,
    )
    assert members(walked)[0] == (list(range(4)) if stays else list(range(6)))
    assert [q.profile.exemplars for q in asked if q.profile.words == "cherry" and q.candidate == 4][:1] == [(5,)]


def test_an_accepted_probe_opens_what_the_image_leads_to() -> None:
    """Free descriptions never agree, yet a judge who says yes grows one cluster over a whole path."""
    looks = looks_of([f"picture {number}" for number in range(30)])
    graph = around(looks, {(k, k + 1): 0.7 for k in range(29)})
    walked = drive(walk_component(graph, range(30), UNAUDITED), lambda question: 0.9)
    assert members(walked) == [list(range(30))]


def test_a_failed_audit_withdraws_the_trust_since_the_last_good_one() -> None:
    looks = looks_of(["hearts"] * 40)
    graph = around(looks, dict.fromkeys(combinations(range(40), 2), 0.9))
    settings = Settings(audit_share=0.15, audits=0)
    asked: list[Question] = []
    walked = drive(walk_component(graph, range(40), settings), lambda question: 0.0, asked)
    first = walked.drafts[0]
    assert walked.audits_failed >= 2
    assert all(standing.decided_by in ("seed", "trust") for standing in first.members.values())
    candidates = {question.candidate for question in asked}
    assert len(candidates) > walked.audits, "witnesses and what depends on them are asked, too"
    assert not candidates & set(first.members)


def test_witnesses_restore_the_trust_where_the_audited_image_was_wrong_by_itself() -> None:
    looks = looks_of(["hearts"] * 40)
    graph = around(looks, dict.fromkeys(combinations(range(40), 2), 0.9))
    settings = Settings(audit_share=0.15, audits=0)
    first_answers = iter([0.0])
    asked: list[Question] = []
    walked = drive(walk_component(graph, range(40), settings), lambda question: next(first_answers, 0.9), asked)
    assert walked.drafts[0].size == 39
    assert walked.audits_failed == 1
    assert len(asked) <= walked.audits + 3


def test_an_audit_without_an_answer_changes_nothing() -> None:
    looks = looks_of(["hearts"] * 40)
    graph = around(looks, dict.fromkeys(combinations(range(40), 2), 0.9))
    walked = drive(walk_component(graph, range(40), Settings(audit_share=0.5)), lambda question: None)
    assert members(walked) == [list(range(40))]
    assert (walked.audits, walked.trusted) == (0, 39)


def test_definitions_are_restated_at_doubling_sizes_so_that_prompts_stay_few() -> None:
    looks = looks_of(["hearts"] * 100, np.random.default_rng(0).standard_normal((100, 4)))
    graph = around(looks, dict.fromkeys(combinations(range(100), 2), 0.7))
    asked: list[Question] = []
    untrusting = Settings(trust_weight=1.0)
    drive(walk_component(graph, range(100), untrusting), lambda question: 0.9, asked)
    assert len(asked) == 99
    assert len({question.profile for question in asked}) <= 8


def test_answers_about_a_description_stand_for_the_rest_of_it() -> None:
    """0..19 are t-shirts; 20..39 wrongly called jerseys, which the judge sees; 40..59 dresses."""
    looks = looks_of(["t-shirt"] * 20 + ["jersey"] * 20 + ["dress"] * 20)
    inside = [pair for start in (0, 20, 40) for pair in combinations(range(start, start + 20), 2)]
    edges = dict.fromkeys(inside, 0.7) | {(k, 20 + k): 0.9 for k in range(20)} | {(k, 40 + k): 0.9 for k in range(20)}
    asked: list[Question] = []
    walked = drive(
        walk_component(around(looks, edges), range(60), UNAUDITED),
        lambda question: 0.9 if question.candidate < 40 and question.profile.words == "t shirt" else 0.05,
        asked,
    )
    assert members(walked)[0] == list(range(40))
    assert members(walked)[1] == list(range(40, 60))
    about = [looks.words[question.candidate] for question in asked if question.profile.words == "t shirt"]
    assert 3 <= about.count("jersey") <= 8 and 3 <= about.count("dress") <= 8


@given(st.integers(1, 14), st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=60, deadline=None)
def test_whatever_the_judge_says_it_is_a_partition(n: int, seed: int, share: float) -> None:
    chance = np.random.default_rng(seed)
    looks = looks_of([str(chance.choice(["hearts", "spades", ""])) for _ in range(n)])
    edges = {pair: float(chance.uniform(0.6, 0.99)) for pair in combinations(range(n), 2) if chance.random() < 0.5}
    steps = walk_component(around(looks, edges), range(n), Settings(audit_share=share))
    try:
        ask = next(steps)
        while True:
            answers = [float(chance.choice([0.1, 0.9])) if chance.random() < 0.9 else None for _ in ask.questions]
            ask = steps.send([Answer(answer) for answer in answers])
    except StopIteration as end:
        walked = end.value
    assert sorted(image for draft in walked.drafts for image in draft.members) == list(range(n))
    assert len({key for draft in walked.drafts for key in draft.keys}) == len(walked.drafts)
