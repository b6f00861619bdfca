from collections.abc import Sequence

import numpy as np
import pytest
from answerers import EDGE, choose, looks_of, units_of
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.method.likelihood import PRIOR_MISPLACED, UNIT_STRENGTH, MemberModel
from manylens.method.questions import MOST_OPTIONS
from manylens.method.sorting import NO_ANSWER, NONE, Cluster, Sorting

PRICE = 1 / 7
RED, BLUE, PINK = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.6, 0.0, 0.8)


def begin(
    said: Sequence[tuple[str, Sequence[float]]],
    founders: Sequence[str],
    categories: dict[str, int] | None = None,
    *,
    price: float = PRICE,
    reliability: float = 0.95,
    confidences: Sequence[float] | None = None,
) -> Sorting:
    """said: description and direction of each image. founders: descriptions whose units found clusters 0, 1, ..."""
    looks = looks_of([words for words, _ in said], np.array([row for _, row in said]), confidences)
    units = units_of(looks)
    kinds = None if categories is None else np.array([categories.get(words, NONE) for words in units.words])
    sorting = Sorting(looks, units, EDGE, kinds, price=price, exemplars=3, reliability=reliability)
    for words in founders:
        category = NONE if categories is None else categories.get(words, NONE)
        sorting.add(Cluster(units.words.index(words), words, category=category))
    sorting.refresh()
    return sorting


def unit_of(sorting: Sorting, words: str) -> int:
    return sorting.units.words.index(words)


def softmax(*odds: float) -> np.ndarray:
    p = np.exp(np.array(odds) - max(odds))
    whole: np.ndarray = p / p.sum()
    return whole


ONE_UNIT = [("red", RED)] * 4 + [("blue", BLUE)] * 4 + [("pink", PINK)]
"""Image 8 is a unit by itself, .6 like red and not at all like blue: odds .8, -4 and 0 for none."""
BEFORE = softmax(0.8, -4.0, 0.0)


def alone(before: np.ndarray, share: float = PRIOR_MISPLACED) -> np.ndarray:
    """Where an image is that is a unit by itself: misdescribed with that probability, and then anywhere."""
    mixed: np.ndarray = (1 - share) * before + share * (0.5 * before + 0.5 / len(before))
    return mixed


LARGE_UNIT = [("red", RED)] * 4 + [("blue", BLUE)] * 4 + [("pink", PINK)] * 5
"""Images 8 to 12 are one unit, as like red and blue as `ONE_UNIT`'s."""


def test_unasked_a_unit_stands_at_its_likeliest_cluster() -> None:
    sorting = begin(ONE_UNIT, ["red", "blue"])
    unit = unit_of(sorting, "pink")
    before = 0.94 * BEFORE + 0.06 * (0.5 * BEFORE + 0.5 / 3)
    assert np.allclose(sorting.posterior(unit), before, atol=1e-4)
    assert sorting.cluster_of(8) == 0
    assert sorting.sure[unit] == sorting.probability(8) == pytest.approx(before[0], abs=1e-4)


def test_images_that_share_a_description_are_as_likely_somewhere_as_the_odds_have_it() -> None:
    sorting = begin(LARGE_UNIT, ["red", "blue"])
    unit = unit_of(sorting, "pink")
    assert np.allclose(sorting.posterior(unit), BEFORE, atol=1e-4)
    assert sorting.sure[unit] == pytest.approx(BEFORE[0], abs=1e-4)


def test_the_less_sure_look_alone_of_its_description_is_the_more_likely_anywhere() -> None:
    sorting = begin(ONE_UNIT, ["red", "blue"], confidences=[0.9] * 8 + [0.5])
    unit = unit_of(sorting, "pink")
    odds = np.log(9.0)
    share = 1 / (1 + np.exp(-(np.log(0.06 / 0.94) + odds * 8 / 9)))  # the others' log-odds are ln 9, its own 0
    assert share > 0.3
    assert np.allclose(sorting.posterior(unit), alone(BEFORE, share), atol=1e-4)
    assert sorting.sure[unit] == pytest.approx(alone(BEFORE, share)[0], abs=1e-4)


def test_a_unit_that_resembles_nothing_belongs_to_none() -> None:
    sorting = begin([*ONE_UNIT[:8], ("odd", (0, 0, 1.0))], ["red", "blue"])
    assert sorting.cluster_of(8) == NONE
    assert sorting.probability(8) == pytest.approx(alone(softmax(-4, -4, 0))[2], abs=1e-4)


def test_an_image_that_founded_a_cluster_is_where_its_description_belongs() -> None:
    sorting = begin(ONE_UNIT, ["red", "blue", "pink"])
    unit = unit_of(sorting, "pink")
    assert np.allclose(sorting.posterior(unit), [*softmax(0.8, -4.0, 0.0).tolist(), 0.0], atol=1e-4)


def test_one_answer_by_hand() -> None:
    """P(c) ~ odds x likelihood; the answer is believed at 95%, the rest is spread over what could be said."""
    sorting = begin(ONE_UNIT, ["red", "blue"])
    sorting.learn(8, [1, 0], (0.7, 0.2, 0.1))
    red, blue, none = (0.95 * p + 0.05 / 3 for p in (0.2, 0.7, 0.1))
    after = alone(BEFORE) * np.array([red, blue, none])
    after /= after.sum()
    assert np.allclose(sorting.posterior(unit_of(sorting, "pink")), after, atol=1e-4)
    sorting.refresh()
    assert sorting.image_place[8] == int(after.argmax()) == 0
    assert sorting.image_sure[8] == sorting.probability(8) == pytest.approx(after[0], abs=1e-4)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_answer_tells_how_likely_an_image_alone_of_its_description_is_misdescribed(at: int) -> None:
    """By Bayes' rule: 6% before the answer; what it says of such images is learned of all."""
    sorting = begin(ONE_UNIT, ["red", "blue"])
    sorting.learn(8, [0, 1], choose(at, 2).probabilities)
    said = 0.95 * np.array(choose(at, 2).probabilities) + 0.05 / 3
    by_chance = 0.06 * float((0.5 * BEFORE + 0.5 / 3) @ said)
    misplaced = by_chance / (by_chance + 0.94 * float(BEFORE @ said))
    assert (misplaced > 0.06) is (at != 0), "none is less likely than a third, too"
    expected = MemberModel.prior().fitted(sorting.features[[8]], np.array([misplaced]))
    sorting.refresh()
    assert np.allclose(sorting.members.weights, expected.weights, atol=1e-4)


def test_an_answer_about_one_of_several_images_counts_as_far_as_it_is_where_its_unit_is() -> None:
    """wrong: 6%, its odds less a fifth as one image of .06 was asked and none found misplaced against a prior of 4
    answers."""
    sorting = begin(LARGE_UNIT, ["red", "blue"])
    unit = unit_of(sorting, "pink")
    said = np.array([0.95 * 0.1 + 0.05 / 3, 0.95 * 0.8 + 0.05 / 3, 0.95 * 0.1 + 0.05 / 3])
    sorting.learn(8, [0, 1], (0.1, 0.8, 0.1))
    wrong = at_rate(PRIOR_MISPLACED, UNIT_STRENGTH / (UNIT_STRENGTH + 1))
    assert sorting.share_of(8, unit) == pytest.approx(wrong)
    anywhere = 0.5 * BEFORE + 0.5 / 3
    likelihood = said / said.max()
    after = BEFORE * ((1 - wrong) * likelihood + wrong * float(anywhere @ likelihood))
    after /= after.sum()
    own = ((1 - wrong) * after + wrong * anywhere) * likelihood
    own /= own.sum()
    sorting.refresh()
    assert sorting.place[unit] == sorting.image_place[8] == 0
    assert sorting.sure[unit] == pytest.approx(after[0], abs=1e-4)
    assert sorting.image_sure[8] == pytest.approx(own[0], abs=1e-4)
    assert sorting.misplaced[unit] == pytest.approx(1 - own[0], abs=1e-4)
    assert sorting.cluster_of(9) == 0
    assert sorting.probability(9) == pytest.approx(after[0] * (1 - sorting.share_of(9, unit)), abs=1e-4)


def test_clusters_that_were_no_options_are_as_likely_as_none_of_them() -> None:
    sorting = begin([*ONE_UNIT, *[("green", (0, 0, 1.0))] * 4], ["red", "blue", "green"])
    before = sorting.posterior(unit_of(sorting, "pink"))
    sorting.learn(8, [0, 1], (0.1, 0.1, 0.8))
    after = sorting.posterior(unit_of(sorting, "pink"))
    said = np.array([0.1, 0.1, 0.8, 0.8]) * 0.95 + 0.05 / 3
    assert np.allclose(after, before * said / (before @ said), atol=1e-4)


def test_an_answer_that_named_two_clusters_names_the_one_they_became() -> None:
    sorting = begin([*ONE_UNIT, *[("green", (0, 0, 1.0))] * 5], ["red", "blue", "green"])
    sorting.learn(8, [0, 1, 2], (0.3, 0.2, 0.4, 0.1))
    sorting.join(0, 2)
    sorting._locate()
    assert sorting.live() == [1, 2]
    before = alone(softmax(*sorting._odds(np.array([unit_of(sorting, "pink")]), np.arange(2))[0], 0.0))
    said = np.array([0.2, 0.7, 0.1]) * 0.95 + np.array([1, 2, 1]) * 0.05 / 4
    after = before * said
    assert np.allclose(sorting.posterior(unit_of(sorting, "pink")), after / after.sum(), atol=1e-4)


def test_answers_multiply() -> None:
    sorting = begin(ONE_UNIT, ["red", "blue"])
    for _ in range(2):
        sorting.learn(8, [0, 1], (0.2, 0.7, 0.1))
    said = np.array([0.2, 0.7, 0.1]) * 0.95 + 0.05 / 3
    after = alone(BEFORE) * said**2
    assert np.allclose(sorting.posterior(unit_of(sorting, "pink")), after / after.sum(), atol=1e-4)


def test_a_founder_belongs_to_its_cluster_until_an_answer_names_another_and_never_to_none() -> None:
    sorting = begin(ONE_UNIT, ["red", "blue"])
    unit = unit_of(sorting, "blue")
    assert sorting.is_founder(unit) and not sorting.is_founder(unit_of(sorting, "pink"))
    assert sorting.sure[unit] == 1.0
    assert np.allclose(sorting.posterior(unit), [*softmax(-4.0, 0.0).tolist(), 0.0], atol=1e-4)
    for image in (4, 5, 6, 7):
        sorting.learn(image, [0, 1], choose(0, 2).probabilities)
    sorting.refresh()
    assert sorting.place[unit] == 1, "a founder stays; what its images say joins clusters, and moves images"
    assert sorting.sure[unit] < 0.2
    assert sorting.posterior(unit)[2] == 0.0


def test_an_image_goes_where_its_own_answers_say() -> None:
    sorting = begin([("red", RED)] * 9 + [("blue", BLUE)] * 9, ["red", "blue"])
    unit = unit_of(sorting, "red")
    for image in (0, 1, 2):
        sorting.learn(image, [0, 1], choose(0, 2).probabilities)
    for _ in range(2):
        sorting.learn(3, [1, 0], choose(0, 2).probabilities)
    sorting.refresh()
    assert [sorting.cluster_of(image) for image in (0, 3, 8)] == [0, 1, 0]
    assert sorting.place[unit] == 0 and sorting.sure[unit] > 0.9
    assert 0.8 < sorting.image_sure[3] < 0.9
    assert 0.84 < sorting.misplaced[unit] < 1.0


def test_an_image_that_belongs_to_none_leaves_its_unit() -> None:
    sorting = begin([("red", RED)] * 9 + [("blue", BLUE)] * 9, ["red", "blue"])
    for _ in range(3):
        sorting.learn(3, [1, 0], choose(2, 2).probabilities)
    for image in (0, 1, 2):
        sorting.learn(image, [0, 1], choose(0, 2).probabilities)
    sorting.refresh()
    assert sorting.cluster_of(3) == NONE


@pytest.mark.parametrize("reliability, moved", [(0.0, False), (1.0, True)])
def test_an_unreliable_judge_moves_nothing_and_a_sure_one_decides(reliability: float, moved: bool) -> None:
    sorting = begin(ONE_UNIT, ["red", "blue"], reliability=reliability)
    sorting.learn(8, [0, 1], (0.0, 1.0, 0.0))
    after = sorting.posterior(unit_of(sorting, "pink"))
    assert np.allclose(after, [0, 1, 0] if moved else alone(BEFORE), atol=1e-4)


@given(st.permutations(range(7)))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_answers_does_not_matter(order: list[int]) -> None:
    answers = [(8, [0, 1], (0.1, 0.8, 0.1)), (8, [1, 0], (0.6, 0.3, 0.1)), (9, [0, 1], (0.9, 0.05, 0.05)),
               (10, [0, 1], (0.1, 0.1, 0.8)), (0, [0, 1], (0.2, 0.7, 0.1)), (11, [1, 0], (0.1, 0.8, 0.1)),
               (4, [0, 1], (0.1, 0.2, 0.7))]  # fmt: skip
    one, other = begin(LARGE_UNIT, ["red", "blue"]), begin(LARGE_UNIT, ["red", "blue"])
    for at, again in enumerate(order):
        one.learn(*answers[at])
        other.learn(*answers[again])
    one.refresh()
    other.refresh()
    assert (one.place == other.place).all() and one.image_place == other.image_place
    assert np.allclose(one.sure, other.sure) and np.allclose(one.misplaced, other.misplaced)
    assert all(one.image_sure[i] == pytest.approx(other.image_sure[i]) for i in one.image_sure)


def test_the_share_of_an_image_alone_in_its_unit_is_zero() -> None:
    sorting = begin(ONE_UNIT, ["red", "blue"])
    assert sorting.share_of(8, unit_of(sorting, "pink")) == 0.0
    assert sorting.share_of(0, unit_of(sorting, "red")) == pytest.approx(0.06)


def at_rate(share: float, rate: float) -> float:
    odds = share / (1 - share) * rate
    return odds / (1 + odds)


def test_a_look_that_is_nearly_surely_wrong_stays_so_whatever_sure_looks_showed() -> None:
    sorting = begin([("red", RED)] * 9, ["red"], confidences=[0.99] * 8 + [0.03])
    alone = sorting.share[8]
    sorting.asked[0] = [0, 1, 2, 3, 4, 5]
    sorting.share[:6] = 0.06  # as much as their unit's prior: six answers, and no misplaced image
    assert alone > 0.6 and sorting.share_of(8, 0) > 0.3


def test_a_units_share_rises_with_the_misplaced_images_seen_and_falls_without() -> None:
    """(prior + seen) / (prior + expected) times the odds of the common share, the prior being worth four answers."""
    sorting = begin([("red", RED)] * 20 + [("blue", BLUE)] * 20, ["red", "blue"])
    unit = unit_of(sorting, "red")
    sorting.asked[unit] = [0, 1, 2, 3]
    assert sorting.share_of(9, unit) == pytest.approx(at_rate(0.06, 0.24 / 0.48))
    sorting.misplaced[unit] = 2.0
    assert sorting.share_of(9, unit) == pytest.approx(at_rate(0.06, 2.24 / 0.48))
    sorting.misplaced[unit] = 500.0
    assert sorting.share_of(9, unit) == 0.95, "never certain"


def test_the_less_sure_look_is_the_more_likely_misplaced() -> None:
    sorting = begin([("red", RED)] * 4, ["red"], confidences=[0.9, 0.9, 0.9, 0.5])
    assert sorting.share_of(3, 0) > 3 * sorting.share_of(0, 0)
    assert sorting.prior[0] == pytest.approx(UNIT_STRENGTH * 0.06), "a unit's prior is that of a typical look"


def test_misplaced_images_found_raise_the_share_everywhere() -> None:
    sorting = begin([("red", RED)] * 12 + [("blue", BLUE)] * 12, ["red", "blue"])
    before = sorting.share[20]
    for image in range(10):
        sorting.learn(image, [0, 1], choose(image % 2, 2).probabilities)
    sorting.refresh()
    assert sorting.share[20] > before
    for image in range(12, 24):
        sorting.learn(image, [0, 1], choose(1, 2).probabilities)
    both = sorting.share[20]
    sorting.refresh()
    assert sorting.share[20] < both


def test_a_mean_direction_leaves_out_the_unit_that_is_compared_to_it() -> None:
    sorting = begin([("red", RED)] * 3 + [("pink", PINK)] * 2 + [("blue", BLUE)] * 3, ["red", "blue"])
    pink, red = unit_of(sorting, "pink"), unit_of(sorting, "red")
    assert sorting.place[pink] == 0
    found = sorting.similarity(np.array([pink, red]), np.arange(2))
    assert np.allclose(found, [[0.6, 0.0], [0.6, 0.0]], atol=1e-4)
    assert np.isnan(sorting.similarity(np.array([unit_of(sorting, "blue")]), np.array([1]))[0, 0])


def test_mean_directions_weigh_units_by_their_images() -> None:
    sorting = begin([("red", RED)] * 3 + [("pink", PINK)] * 2 + [("mid", (0.8, 0, 0.6))] * 2, ["red"])
    mean = 3 * np.array(RED) + 2 * np.array(PINK)
    expected = float(np.array([0.8, 0, 0.6]) @ mean / np.linalg.norm(mean))
    assert sorting.similarity(np.array([unit_of(sorting, "mid")]), np.array([0]))[0, 0] == pytest.approx(
        expected, abs=1e-4
    )


def test_a_shared_category_adds_its_odds_and_no_answer_takes_them() -> None:
    said = [*ONE_UNIT, *[("hidden", RED)] * 2]
    plain = begin(said, ["red", "blue"])
    sorting = begin(said, ["red", "blue"], {"red": 0, "blue": 1, "pink": 1, "hidden": NO_ANSWER})
    pink = np.array([unit_of(sorting, "pink")])
    assert np.allclose(sorting._odds(pink, np.arange(2)) - plain._odds(pink, np.arange(2)), [[0, 3.0]])
    silent = np.array([unit_of(sorting, "hidden")])
    assert np.allclose(plain._odds(silent, np.arange(2)), [[3.88, -4]], atol=1e-2), "pink is red as well there"
    assert np.allclose(sorting._odds(silent, np.arange(2)), [[-1.12, -9]], atol=1e-2)
    assert sorting.cluster_of(9) == NONE


def test_units_without_a_category_share_none() -> None:
    sorting = begin(ONE_UNIT, ["red", "blue"], {"blue": 1})
    assert np.allclose(sorting.posterior(unit_of(sorting, "pink")), alone(BEFORE), atol=1e-4)


def test_a_closed_cluster_that_holds_nothing_yet_is_even_odds_but_for_its_category() -> None:
    looks = looks_of(["red", "pink"], np.array([RED, PINK]))
    units = units_of(looks)
    category = np.array([0 if words == "red" else NONE for words in units.words])
    sorting = Sorting(looks, units, EDGE, category, price=PRICE, exemplars=3)
    sorting.add(Cluster(NONE, "red", category=0))
    sorting._locate()
    odds = sorting._odds(np.arange(2), np.arange(1))[:, 0].tolist()
    assert dict(zip(units.words, odds, strict=True)) == {"red": 3.0, "pink": 0.0}


def test_the_smaller_cluster_joins_the_larger_and_ties_the_first() -> None:
    said = [("red", RED)] * 2 + [("blue", BLUE)] * 3 + [("green", (0, 0, 1.0))] * 2
    sorting = begin(said, ["red", "blue", "green"])
    sorting.join(1, 0)
    assert (sorting.root(0), sorting.root(1)) == (1, 1)
    assert sorting.weight[sorting.row[1]] == 5
    assert sorting.place[unit_of(sorting, "red")] == 1
    sorting.join(0, 1)
    assert sorting.weight[sorting.row[1]] == 5, "they are one already"
    sorting.join(2, 0)
    assert [sorting.root(c) for c in range(3)] == [1, 1, 1]
    even = begin(said, ["red", "green", "blue"])
    even.join(1, 0)
    assert even.live() == [0, 2]


def test_exemplars_are_the_founders_surest_images_and_never_the_one_asked_about() -> None:
    sorting = begin([("red", RED)] * 5, ["red"], confidences=[0.5, 0.6, 0.9, 0.8, 0.7])
    assert sorting.state(0).exemplars == (2, 3, 4)
    assert sorting.state(0, without=3).exemplars == (2, 4, 1)
    assert sorting.state(0).name == "red"


def test_exemplars_that_were_confirmed_come_first_and_misplaced_ones_are_left_out() -> None:
    sorting = begin(
        [("red", RED)] * 5 + [("blue", BLUE)] * 5, ["red", "blue"], confidences=[0.9, 0.8, 0.7, 0.6, 0.5] * 2
    )
    for image, at in ((0, 1), (0, 1), (2, 0), (3, 0)):
        sorting.learn(image, [0, 1], choose(at, 2).probabilities)
    sorting.refresh()
    assert sorting.cluster_of(0) == 1
    assert sorting.state(0).exemplars == (2, 3, 1)


def test_exemplars_of_settled_units_follow_the_founders_the_larger_first() -> None:
    said = [("red", RED)] + [("scarlet", (0.8, 0.6, 0))] * 2 + [("crimson", (0.8, 0, 0.6))] * 3
    sorting = begin(said, ["red"], price=1.0)
    for image in (1, 3):
        sorting.learn(image, [0], (0.999, 0.001))
    sorting.refresh()
    assert sorting.is_settled(unit_of(sorting, "scarlet")) and sorting.is_settled(unit_of(sorting, "crimson"))
    assert sorting.state(0).exemplars == (0, 3, 1)
    sorting.price = 1e-6
    assert sorting.state(0).exemplars == (0, 3, 1), "the same until the next refresh"
    sorting.refresh()
    assert sorting.state(0).exemplars == (0,), "what is in doubt stands for nothing"


def test_a_cluster_whose_founder_went_elsewhere_still_means_its_images() -> None:
    sorting = begin([("red", RED)] * 2 + [("blue", BLUE)] * 5, ["red", "blue"])
    sorting.image_place.update({0: 1, 1: 1})
    assert sorting.state(0).exemplars == tuple(sorting.units.members[unit_of(sorting, "red")].tolist())


def test_a_unit_is_settled_when_its_rest_in_doubt_is_worth_less_than_the_price() -> None:
    sorting = begin(LARGE_UNIT, ["red", "blue"], price=1.0)
    unit = unit_of(sorting, "pink")
    for sure, asked, settled in ((0.7, [], False), (0.8, [], True), (0.7, [8, 9], True), (0.6, [8, 9], False)):
        sorting.sure[unit], sorting.asked[unit] = sure, list(asked)
        assert sorting.is_settled(unit) is settled, (sure, asked)


def test_nothing_asked_is_settled_at_nine_in_ten_at_the_most() -> None:
    sorting = begin([*ONE_UNIT, ("odd", (0, 0, -1.0))], ["red", "blue"])
    likely = sorting.probability(8)
    sorting.settle()
    assert [sorting.probability(image) for image in (8, 9)] == [likely, 0.0] and likely < 0.9
    assert sorting.probability(0) == pytest.approx(0.9 * 0.94)


def test_units_that_answers_leave_without_a_cluster_want_one() -> None:
    sorting = begin(LARGE_UNIT, ["red", "blue"])
    for image in (8, 9):
        sorting.learn(image, [0, 1], choose(2, 2).probabilities)
    sorting.refresh()
    assert sorting.wanting == [unit_of(sorting, "pink")]
    assert sorting.cluster_of(12) == NONE


def test_the_nearest_clusters_stand_first_and_no_more_of_them_than_a_choice_has_options() -> None:
    circle = [(np.cos(a), np.sin(a), 0.0) for a in np.linspace(0, np.pi, MOST_OPTIONS + 5)]
    said = [(f"k{at}", row) for at, row in enumerate(circle) for _ in range(2)]
    sorting = begin(
        [*said, ("x", (1.0, -0.05, 0.0)), ("x", (1.0, -0.05, 0.0))], [f"k{at}" for at in range(len(circle))]
    )
    unit = unit_of(sorting, "x")
    (rows,), (odds,) = sorting.nearest(np.array([unit]))
    nearest = [sorting.clusters[sorting.live_clusters[row]].name for row in rows]
    assert nearest == [f"k{at}" for at in range(MOST_OPTIONS)]
    assert odds.tolist() == sorted(odds.tolist(), reverse=True)


def test_answers_against_similarity_lower_its_odds_and_agreeing_ones_raise_them() -> None:
    pinks = [(f"pink {k}", (0.65, 0.3 * np.cos(k), 0.3 * np.sin(k))) for k in range(8) for _ in range(2)]
    found = {}
    for at in (0, 1):
        sorting = begin([("red", RED)] * 4 + pinks, ["red"])
        before = sorting.log_odds(0.8)
        for image in range(4, 20, 2):
            sorting.learn(image, [0], choose(at, 1).probabilities)
        sorting.fit()
        found[at] = sorting.log_odds(0.8) - before
    assert found[0] > 0.05 and found[1] < -2


def test_without_answers_of_units_that_founded_nothing_the_odds_stay() -> None:
    sorting = begin(ONE_UNIT, ["red", "blue"])
    sorting.learn(0, [0, 1], choose(1, 2).probabilities)
    sorting.fit()
    assert sorting.log_odds(0.5) == 0.0
    assert sorting.alike(unit_of(sorting, "red"), unit_of(sorting, "pink"))
    assert not sorting.alike(unit_of(sorting, "red"), unit_of(sorting, "blue"))


def test_hundreds_of_answers_about_one_unit_leave_probabilities() -> None:
    sorting = begin([("red", RED)] * 900 + [("blue", BLUE)] * 900, ["red", "blue"])
    for image in range(900):
        sorting.learn(image, [0, 1], choose(image % 2, 2, 0.9999).probabilities)
    sorting.refresh()
    assert np.isfinite(sorting.posterior(unit_of(sorting, "red"))).all()
    assert sorting.posterior(unit_of(sorting, "red")).sum() == pytest.approx(1.0)
