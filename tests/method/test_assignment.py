import numpy as np
import pytest
from answerers import Truthful, begin, choose, drive, looks_of, make_world

from manylens.method.assignment import assign, exemplars
from manylens.method.levels import Group, cut
from manylens.method.sorting import NO_ANSWER, NONE, Sorting
from manylens.types import Assignment


def groups_of(sorting: Sorting) -> list[Group]:
    return cut(sorting, "medium", None, {}, [None] * len(sorting.units))[0]


def assigned(sorting: Sorting, *, spent: bool = False, closed: bool = False, least: int = 1) -> list[Assignment]:
    groups = [group for group in groups_of(sorting) if len(group.images) >= least]
    return assign(
        sorting, groups, [f"name {k}" for k in range(1, len(groups) + 1)], sorting.probabilities(), spent, closed
    )


def test_every_image_has_one_assignment_in_image_order_and_its_groups_number() -> None:
    world = make_world(4, 80, wordings=2, misdescribed=0.1)
    check = begin(world.looks)
    drive(check.run(), Truthful(world))
    groups = groups_of(check.sorting)
    found = assigned(check.sorting)
    assert [assignment.image_id for assignment in found] == list(world.looks.image_ids)
    for number, group in enumerate(groups, start=1):
        assert all(found[image].cluster == number for image in group.images)
    for image, assignment in enumerate(found):
        assert assignment.confidence == round(check.sorting.probability(image), 4)
        assert 0 <= assignment.confidence <= 1
        assert assignment.decided_by == ("choice" if image in check.sorting.answers else "description")


def test_confidence_is_a_probability_whatever_rounding_does() -> None:
    sorting = begin(looks_of(["red"] * 2)).sorting
    sorting.refresh()
    sorting.image_sure.update({0: 1.0000001, 1: -1e-9})
    assert [assignment.confidence for assignment in assigned(sorting)] == [1.0, 0.0]


def sorting_of_three() -> Sorting:
    """Six red images, two of them asked; two of a unit with no answer; one that resembles nothing."""
    looks = looks_of(["red"] * 6 + ["hidden"] * 2 + ["odd"] + [""])
    units = begin(looks).sorting.units
    check = begin(looks, categories=[NO_ANSWER if words == "hidden" else NONE for words in units.words])
    sorting = check.sorting
    sorting.refresh()
    sorting.learn(0, [0], choose(0, 1).probabilities, "it is red" + "!" * 300)
    sorting.learn(1, [0], choose(0, 1).probabilities)
    sorting.refresh()
    return sorting


def test_reasons_say_what_was_seen_and_what_was_asked() -> None:
    found = assigned(sorting_of_three())
    assert found[0].reason == 'described as "red"; asked itself, and placed with "name 1": it is red' + "!" * 191
    assert found[1].reason == 'described as "red"; asked itself, and placed with "name 1"'
    assert (
        found[2].reason
        == 'described as "red"; placed with "name 1", as images described like it were (2 of 6 were asked)'
    )
    sorting = begin(looks_of(["red"] * 2)).sorting
    sorting.refresh()
    expected = 'described as "red"; placed with "name 1" by its description'
    assert assigned(sorting)[0].reason == expected, "where nothing was asked, that is nothing of this image"
    sorting = begin(looks_of(["red"] * 2 + ["blue"] * 2)).sorting
    sorting.learn(2, [0, 1], choose(1, 2, 0.97).probabilities)
    sorting.refresh()
    assert assigned(sorting)[0].reason == f"{expected}; no image described like it was asked"


def test_the_unassigned_have_confidence_0_no_cluster_and_a_reason() -> None:
    sorting = sorting_of_three()
    found = assigned(sorting)
    assert [(a.cluster, a.confidence, a.decided_by) for a in found[6:]] == [(None, 0.0, "")] * 4
    assert found[6].reason == 'described as "hidden"; which does not answer the interest'
    assert found[8].reason == 'described as "odd"; no cluster fits it well enough'
    assert found[9].reason == "not described; no cluster fits it well enough"


def test_each_way_of_staying_out_has_its_reason() -> None:
    sorting = sorting_of_three()
    spent, closed = assigned(sorting, spent=True), assigned(sorting, closed=True)
    assert spent[8].reason.endswith("; the budget was spent before a cluster was found for it")
    assert closed[8].reason.endswith("; none of these")
    sorting.learn(8, [0], choose(1, 1).probabilities)
    sorting.refresh()
    asked = assigned(sorting, spent=True)[8]
    assert asked.reason.endswith("; asked, and none of the clusters fits") and asked.decided_by == "choice"
    sorting.unanswered.add(8)
    assert assigned(sorting)[8].reason.endswith("; the question about it failed")
    assert assigned(sorting, least=9)[3].reason.endswith("; nothing else of its kind was found")


def test_exemplars_are_those_that_stand_for_the_cluster_then_the_surest() -> None:
    looks = looks_of(["red"] * 8 + ["blue"] * 3, None, [0.5, 0.6, 0.9, 0.8, 0.7, 0.55, 0.65, 0.75] + [0.9] * 3)
    sorting = begin(looks).sorting
    sorting.refresh()
    group = Group(0, tuple(range(8)))
    assert exemplars(sorting, group, sorting.probabilities(), 5) == (2, 3, 7, 4, 6)
    assert exemplars(sorting, group, sorting.probabilities(), 2) == (2, 3)
    assert exemplars(sorting, Group(0, (0, 1, 5)), sorting.probabilities(), 5) == (1, 5, 0), "none of another group"
    assert exemplars(sorting, group, sorting.probabilities(), 99) == (2, 3, 7, 4, 6, 1, 5, 0)


def test_images_equally_sure_are_shown_in_their_order() -> None:
    sorting = begin(looks_of(["red"] * 8), exemplars=1).sorting
    sorting.refresh()
    (first, *rest) = exemplars(sorting, Group(0, tuple(range(8))), sorting.probabilities(), 8)
    assert first == sorting.units.members[0][0]
    assert rest == sorted(rest)


@pytest.mark.parametrize("level", ["coarse", "fine"])
def test_other_levels_are_numbered_by_their_groups(level: str) -> None:
    world = make_world(5, 100, wordings=3)
    check = begin(world.looks)
    drive(check.run(), Truthful(world))
    groups, _ = cut(check.sorting, level, None, {}, [None] * len(check.sorting.units))
    found = assign(check.sorting, groups, ["n"] * len(groups), check.sorting.probabilities(), False, False)
    assert np.bincount([a.cluster or 0 for a in found]).tolist()[1:] == [len(group.images) for group in groups]
