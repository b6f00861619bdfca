"""What a model that cannot check its own answers may say of its certainty."""

import numpy as np
import pytest
from answerers import Truthful, begin, choose, drive, looks_of, make_world

from manylens.method.own_doubt import estimate_by_looks, stated_probabilities
from manylens.method.sorting import NONE

CONFIDENCES = [0.95, 0.9, 0.8, 0.55, 0.99, 0.7, 0.6, 0.85]


def test_a_picture_is_as_sure_as_its_look_where_its_description_made_the_cluster() -> None:
    check = begin(looks_of(["red"] * 4 + ["blue"] * 4, confidences=CONFIDENCES))
    check.settle_unasked()
    assert np.allclose(stated_probabilities(check.sorting), CONFIDENCES)


def test_a_picture_in_no_cluster_has_none() -> None:
    check = begin(looks_of(["red"] * 4 + ["blue"], confidences=[0.9] * 5))
    check.settle_unasked()
    assert check.sorting.places()[4] == NONE and stated_probabilities(check.sorting)[4] == 0


def test_answers_that_repeat_looks_make_nothing_surer() -> None:
    """The check takes confirmations for evidence, which is right of a judge who looks again."""
    world = make_world(4, 200)
    check = begin(world.looks)
    before = 1 - world.looks.confidences
    drive(check.run(), Truthful(world))
    unasked = [image for image in range(200) if image not in check.sorting.answers]
    stated = stated_probabilities(check.sorting)
    assert (1 - stated[unasked] >= before[unasked] - 1e-6).all()
    assert check.sorting.probabilities()[unasked].mean() > stated[unasked].mean() + 0.02


def test_of_given_names_that_no_look_says_the_choice_counts() -> None:
    check = begin(looks_of(["setter"] * 3 + ["tabby"] * 3, confidences=[0.3] * 6), into=["dog", "cat"])
    check.sorting.refresh()
    for image, at, p in [(0, 0, 0.9), (0, 0, 0.9), (3, 1, 0.8)]:
        check.sorting.learn(image, [0, 1], choose(at, 2, p).probabilities)
    check.sorting.refresh()
    check.sorting.refresh()
    stated = stated_probabilities(check.sorting)
    assert check.sorting.places().tolist() == [0, 0, 0, 1, 1, 1]
    assert stated[0] == pytest.approx(0.9, abs=0.05), "the second answer is the first again"
    assert stated[3] == pytest.approx(0.8, abs=0.05)
    assert (stated[[1, 2, 4, 5]] <= 0.3).all(), "of the others it counts what their looks say"


def test_a_description_that_is_a_given_name_needs_no_question() -> None:
    check = begin(
        looks_of(["dog"] * 2 + ["cat"] * 2, confidences=[0.9, 0.8, 0.7, 0.6]), categories=[0, 1], into=["dog", "cat"]
    )
    check.settle_unasked()
    assert np.allclose(stated_probabilities(check.sorting), [0.9, 0.8, 0.7, 0.6])


# How many are misplaced


def drawn(seed: int, own_doubt: tuple[float, float], images: int = 400, groups: int = 5) -> tuple[np.ndarray, ...]:
    """Stated probabilities, groups, and what is right, where all of a run and all of a group are off together."""
    random = np.random.default_rng(seed)
    sure = np.clip(random.beta(6, 1, images), 0.02, 0.99)
    group = random.integers(0, groups, images)
    wide = np.sqrt(1 + 0.346 * (own_doubt[0] ** 2 + own_doubt[1] ** 2))
    off = own_doubt[0] * random.standard_normal() + own_doubt[1] * random.standard_normal(groups)
    p = 1 / (1 + np.exp(-(wide * np.log(sure / (1 - sure)) + off[group])))
    return sure, group, random.random(images) < p


def test_the_share_is_what_the_probabilities_leave_in_doubt() -> None:
    sure, group, _ = drawn(0, (0.6, 0.6))
    overall, each = estimate_by_looks(sure, group, 5, (0.6, 0.6), 0)
    assert overall.basis == "looks" and {one.basis for one in each} == {"looks"}
    assert overall.share == pytest.approx(1 - sure.mean(), abs=1e-4)
    for number, one in enumerate(each):
        assert one.share == pytest.approx(1 - sure[group == number].mean(), abs=1e-4)
        assert one.low <= one.share <= one.high
        assert one.high - one.low > overall.high - overall.low, "of fewer pictures less is known"


@pytest.mark.parametrize(("believed", "least", "most"), [((0.6, 0.6), 0.9, 1.0), ((0.0, 0.0), 0.0, 0.6)])
def test_the_interval_holds_where_probabilities_are_off_together(
    believed: tuple[float, float], least: float, most: float
) -> None:
    """And would not, did each picture err by itself."""
    held = 0
    for seed in range(60):
        sure, group, right = drawn(seed, (0.6, 0.6))
        overall, _ = estimate_by_looks(sure, group, 5, believed, seed)
        held += overall.low <= 1 - right.mean() <= overall.high
    assert least <= held / 60 <= most


def test_the_order_of_the_images_changes_nothing() -> None:
    sure, group, _ = drawn(1, (0.6, 0.6))
    order = np.random.default_rng(0).permutation(len(sure))
    one, other = (estimate_by_looks(s, g, 5, (0.6, 0.6), 3) for s, g in ((sure, group), (sure[order], group[order])))
    assert one == other


def test_pictures_in_no_group_and_groups_without_pictures_count_for_nothing() -> None:
    sure = np.array([0.0, 0.9, 0.9])
    overall, each = estimate_by_looks(sure, np.array([NONE, 0, 0]), 2, (0.6, 0.6), 0)
    assert overall.share == pytest.approx(0.1) and each[1].share == 0.0
    nothing, _ = estimate_by_looks(sure, np.full(3, NONE), 0, (0.6, 0.6), 0)
    assert nothing.share == 0.0
