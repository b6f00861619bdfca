import numpy as np
from by_hand import by_label, drive, looks_of

from manylens.evidence import Draft, EdgeScale, Question, Standing
from manylens.records import Settings
from manylens.settle import Refusals, dissolve_leftovers, offer_leftovers, take_second_looks

SETTINGS = Settings()


def drafts_of(*groups: list[int]) -> list[Draft]:
    return [Draft(frozenset({group[0]}), {image: Standing("seed") for image in group}) for group in groups]


def parts(drafts: list[Draft]) -> list[list[int]]:
    return sorted(sorted(draft.members) for draft in drafts)


def test_a_leftover_is_offered_to_the_cluster_of_its_description_before_nearer_ones() -> None:
    rows = np.array([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 4 + [[0.1, 1.0]])
    looks = looks_of(["hearts"] * 4 + ["spades"] * 4 + ["hearts"], rows)
    asked: list[Question] = []
    offered = drive(
        offer_leftovers(looks, drafts_of([0, 1, 2, 3], [4, 5, 6, 7], [8]), Refusals(), SETTINGS), lambda q: 0.9, asked
    )
    assert parts(offered) == [[0, 1, 2, 3, 8], [4, 5, 6, 7]]
    assert offered[0].members[8] == Standing("offer", 0.9)
    assert [(question.candidate, question.profile.words) for question in asked] == [(8, "heart")]


def test_a_refused_leftover_stays_and_nobody_who_refused_it_is_asked_again() -> None:
    looks = looks_of(["hearts"] * 4 + ["spades"] * 4 + ["joker"])
    refusals = Refusals({8: {0}})
    asked: list[Question] = []
    drafts = drafts_of([0, 1, 2, 3], [4, 5, 6, 7], [8])
    offered = drive(offer_leftovers(looks, drafts, refusals, SETTINGS), lambda q: 0.1, asked)
    assert parts(offered) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert [question.profile.words for question in asked] == ["spade"]
    assert refusals.keys == {8: {0, 4}}
    assert drive(offer_leftovers(looks, drafts, refusals, SETTINGS), lambda q: 1 / 0, asked)


def test_a_small_kind_of_its_own_gets_one_offer_an_image() -> None:
    looks = looks_of(["hearts"] * 4 + ["spades"] * 4 + ["joker"] * 2)
    asked: list[Question] = []
    drive(
        offer_leftovers(looks, drafts_of([0, 1, 2, 3], [4, 5, 6, 7], [8, 9]), Refusals(), SETTINGS),
        lambda q: 0.1,
        asked,
    )
    assert sorted(question.candidate for question in asked) == [8, 9]


def test_leftovers_stand_only_where_their_members_agree() -> None:
    looks = looks_of(["hearts"] * 40 + ["joker", "joker", "ace", "king", "queen", "hearts", "hearts"])
    drafts = drafts_of(list(range(40)), [40, 41, 42], [43], [44], [45, 46])
    standing, unassigned = dissolve_leftovers(looks, drafts, SETTINGS)
    assert parts(standing) == [list(range(40)), [40, 41]]
    assert unassigned == [42, 43, 44, 45, 46]


def test_members_that_were_judged_to_belong_agree_whatever_their_words() -> None:
    looks = looks_of(["a dog", "one puppy"])
    draft = Draft(frozenset({0}), {0: Standing("seed"), 1: Standing("judge", 0.9)})
    standing, unassigned = dissolve_leftovers(looks, [draft], SETTINGS)
    assert (parts(standing), unassigned) == ([[0, 1]], [])


def test_a_second_look_moves_the_image_whose_description_is_another_clusters() -> None:
    looks = looks_of(["hearts"] * 10 + ["spades"] * 9 + ["spades"])
    labels = ["hearts"] * 10 + ["spades"] * 10
    drafts = drafts_of([*range(10), 19], list(range(10, 19)))
    asked: list[Question] = []
    one = Settings(second_looks=0.05)
    after, unassigned = drive(take_second_looks(looks, drafts, [], one), by_label(looks, labels), asked)
    assert (parts(after), unassigned) == ([list(range(10)), list(range(10, 20))], [])
    assert {question.candidate for question in asked} == {19}, "one image is the quota"
    assert after[1].members[19].decided_by == "second look"


def test_second_looks_begin_with_the_least_confident_and_stop_at_their_share() -> None:
    looks = looks_of(["hearts"] * 20 + ["spades"] * 20, confidences=[0.5 + 0.01 * k for k in range(40)])
    drafts = drafts_of(list(range(20)), list(range(20, 40)))
    asked: list[Question] = []
    drive(take_second_looks(looks, drafts, [], Settings(second_looks=0.1)), lambda q: 0.97, asked)
    assert [question.candidate for question in asked] == [0, 1, 2, 3]


def test_an_image_that_all_refuse_is_unassigned_and_an_unassigned_one_finds_its_place() -> None:
    looks = looks_of(["hearts"] * 6 + ["spades"] * 6, confidences=[1.0] * 5 + [0.2] + [1.0] * 6)
    labels = ["hearts"] * 5 + ["clubs"] + ["spades"] * 6
    drafts = drafts_of(list(range(6)), list(range(6, 11)))
    judge = by_label(looks, labels)
    after, unassigned = drive(take_second_looks(looks, drafts, [11], Settings(second_looks=0.2)), judge)
    assert unassigned == [5]
    assert parts(after) == [[0, 1, 2, 3, 4], [6, 7, 8, 9, 10, 11]]


def test_without_answers_nothing_moves() -> None:
    looks = looks_of(["hearts"] * 6 + ["spades"] * 6)
    drafts = drafts_of([0, 1, 2, 3, 4, 5, 6], [7, 8, 9, 10])
    after, unassigned = drive(take_second_looks(looks, drafts, [11], Settings(second_looks=1.0)), lambda q: None)
    assert (parts(after), unassigned) == (parts(drafts), [11])


def test_an_image_that_no_yes_could_bring_in_is_not_offered() -> None:
    """Its description is its own, and it resembles no large cluster; near one, it is asked."""
    looks = looks_of(["rose"] * 8 + ["bassoon"], np.vstack([np.tile([1.0, 0.0], (8, 1)), [[0.0, 1.0]]]))
    drafts = drafts_of(list(range(8)), [8])
    edge = EdgeScale(12.0, -6.4)
    refuses = drive(offer_leftovers(looks, drafts, Refusals(), SETTINGS, edge), lambda question: 1 / 0)
    assert parts(refuses) == [list(range(8)), [8]]
    near = looks_of(["rose"] * 8 + ["bassoon"], np.vstack([np.tile([1.0, 0.0], (8, 1)), [[0.6, 0.8]]]))
    assert parts(drive(offer_leftovers(near, drafts, Refusals(), SETTINGS, edge), lambda question: 0.97)) == [
        list(range(9))
    ]


def test_second_looks_stop_where_they_find_nothing_wrong() -> None:
    looks = looks_of(["hearts"] * 500 + ["spades"] * 500)
    drafts = drafts_of(list(range(500)), list(range(500, 1000)))
    asked: list[Question] = []
    labels = ["hearts"] * 500 + ["spades"] * 500
    drive(take_second_looks(looks, drafts, [], SETTINGS), by_label(looks, labels), asked)
    assert len(asked) == 30, "three blocks of a hundredth each, of a quota of a hundred"
