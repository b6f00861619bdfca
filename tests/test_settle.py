import numpy as np
import pytest
from by_hand import drive, looks_of

from manylens.evidence import Draft, EdgeScale, Looks, Question, Standing
from manylens.records import Settings
from manylens.settle import dissolve_leftovers, join_namesakes, offer_leftovers
from manylens.targets import Refusals

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


@pytest.mark.parametrize(("own", "left"), [(0.9, [[0, 1, 2, 3], [4, 5]]), (0.02, [[0, 1, 2, 3, 4, 5]])])
def test_a_large_cluster_takes_a_small_kind_only_where_that_is_refused_its_own_name(
    own: float, left: list[list[int]]
) -> None:
    """Two cherries and a judge who takes them for roses: they were lost though it calls them cherries, too."""
    looks = looks_of(["rose"] * 4 + ["cherry"] * 2)
    offered = drive(
        offer_leftovers(looks, drafts_of([0, 1, 2, 3], [4, 5]), Refusals(), SETTINGS),
        lambda question: own if question.profile.words == "cherry" else 0.95,
    )
    assert parts(offered) == left


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


def own_leftovers(count: int) -> tuple[Looks, list[Draft]]:
    """A cluster of 40 hearts, and `count` hearts that the walks left alone."""
    looks = looks_of(["hearts"] * (40 + count) + ["spades"] * 10)
    alone = [[image] for image in range(40, 40 + count)]
    return looks, drafts_of(list(range(40)), list(range(40 + count, 50 + count)), *alone)


def test_a_sample_of_offers_to_the_own_description_stands_for_the_rest_but_for_audits() -> None:
    looks, drafts = own_leftovers(60)
    refusals, asked = Refusals(), list[Question]()
    settings = Settings(audit_share=0.2, audits=0)
    offered = drive(offer_leftovers(looks, drafts, refusals, settings), lambda q: 0.9, asked)
    assert parts(offered) == [list(range(100)), list(range(100, 110))]
    unasked = [image for image in range(40, 100) if offered[0].members[image] == Standing("offer")]
    assert sorted({question.candidate for question in asked} | set(unasked)) == list(range(40, 100))
    audited = len(asked) - 12
    assert 0 < audited < 24
    assert (refusals.trusted, refusals.audits) == (60 - len(asked), [(audited, 0)])
    again: list[Question] = []
    drive(offer_leftovers(looks, drafts, Refusals(), settings), lambda q: 0.9, again)
    assert again == asked, "sample and audits are the seed's"


def test_an_audited_offer_that_is_refused_is_counted_and_not_placed() -> None:
    looks, drafts = own_leftovers(60)
    refusals, asked = Refusals(), list[Question]()
    offered = drive(
        offer_leftovers(looks, drafts, refusals, Settings(audit_share=0.2, audits=0)),
        lambda q: 0.9 if len(asked) == 12 or q.candidate < 40 else 0.02,
        asked,
    )
    ((audited, refused),) = refusals.audits
    assert audited == refused == sum(question.profile.words == "heart" for question in asked) - 12
    assert offered[0].size == 100 - refused


def test_a_sample_that_is_refused_too_often_stands_for_nothing() -> None:
    looks, drafts = own_leftovers(30)
    refusals, asked = Refusals(), list[Question]()
    offered = drive(
        offer_leftovers(looks, drafts, refusals, Settings(audits=0)),
        lambda q: 0.02 if q.candidate % 3 == 0 else 0.95,
        asked,
    )
    assert {question.candidate for question in asked} == set(range(40, 70))
    assert sorted(offered[0].members) == [*range(40), *(image for image in range(40, 70) if image % 3)]
    assert (refusals.trusted, refusals.audits) == (0, [])


@pytest.mark.parametrize("settings", [Settings(audit_share=1.0), Settings(trust_weight=1.0, audits=0)])
def test_where_nothing_is_to_be_trusted_every_offer_is_put(settings: Settings) -> None:
    looks, drafts = own_leftovers(30)
    asked: list[Question] = []
    judge = lambda q: 0.02 if q.candidate == 40 else 0.95  # noqa: E731
    drive(offer_leftovers(looks, drafts, Refusals(), settings), judge, asked)
    assert {question.candidate for question in asked} == set(range(40, 70))


def test_clusters_that_only_a_number_would_tell_apart_are_one() -> None:
    looks = looks_of(["sad"] * 7 + ["ace", "sad", "sad", "king"])
    # What is described in more than one way keeps its own name ("sad, king") and stays.
    drafts = drafts_of([0, 1, 2], [7], [3, 4], [8, 9, 10], [5, 6])
    joined = join_namesakes(looks, drafts)
    assert parts(joined) == [[0, 1, 2, 3, 4, 5, 6], [7], [8, 9, 10]]
    assert joined[0].keys == {0, 3, 5}
    assert parts(drafts) == [[0, 1, 2], [3, 4], [5, 6], [7], [8, 9, 10]]
