"""Which interests ask for several things, and the combinations of their clusterings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.method.compound import combine, joint, joint_estimate, parts_of, places, sure, understood
from manylens.types import Assignment, CallCounts, Cluster, Clustering, Interest, Misplaced, Verdict


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("color and kind of fruit", ["color of fruit", "kind of fruit"]),
        ("kind and color of fruit", ["kind of fruit", "color of fruit"]),
        ("suit, rank and color", ["suit", "rank", "color"]),
        ("place and activity", ["place", "activity"]),
        ("number of people and place", ["number of people", "place"]),
        ("hair color and facial expression", ["hair color", "facial expression"]),
        ("the color of the car and its make", ["color of the car", "make of the car"]),
        ("Color & Shapes", ["Color", "Shapes"]),
        ("breed + what it is doing", ["breed", "what it is doing"]),
    ],
)
def test_an_interest_whose_parts_name_properties_is_compound(text: str, parts: list[str]) -> None:
    assert [part.text for part in parts_of(Interest(text))] == parts


@pytest.mark.parametrize(
    "text",
    [
        "color",
        "black and white",
        "black and white style",
        "food and drink",
        "dogs and cats",
        "arms and legs",
        "people and place",
        "what the people are wearing and why",
        "kind of food and drink",
        "rock and roll style",
        "color of the petals and the leaves",
        "red, green or blue",
        "color and size or shape",
        "color and color",
        "color, kind, shape and size",
        "a + b + c + d",
        "C + ",
    ],
)
def test_other_interests_with_and_are_one_question(text: str) -> None:
    assert parts_of(Interest(text)) == ()


def sorted_by(interest: str, of: dict[str, str | None], sure: float = 1.0, **more: object) -> Clustering:
    names = sorted({name for name in of.values() if name is not None})
    number = {name: at for at, name in enumerate(names, start=1)}
    return Clustering(
        interest=Interest(interest),
        model="hand",
        clusters=tuple(Cluster(number[n], n, "", list(of.values()).count(n), ()) for n in names),
        assignments=tuple(
            Assignment(
                i, None if name is None else number[name], sure if name else 0.0, f"seen as {name}", "description"
            )
            for i, name in sorted(of.items())
        ),
        failed=(),
        calls=CallCounts(),
        density=0.0,
        **more,  # type: ignore[arg-type]
    )


def of_pairs(*pairs: tuple[str | None, str | None]) -> list[Clustering]:
    return [
        sorted_by("color", {f"{at:02}": pair[0] for at, pair in enumerate(pairs)}),
        sorted_by("kind", {f"{at:02}": pair[1] for at, pair in enumerate(pairs)}),
    ]


FRUIT = [*[("red", "apple")] * 4, *[("red", "cherry")] * 3, *[("green", "apple")] * 2]


def test_the_pairs_that_occur_are_the_clusters_the_largest_first() -> None:
    found = combine(of_pairs(*FRUIT))
    assert [(one.name, len(one.images)) for one in found] == [
        ("red, apple", 4),
        ("red, cherry", 3),
        ("green, apple", 2),
    ]


def test_pairs_of_one_picture_are_folded_where_that_makes_two() -> None:
    found = combine(of_pairs(*FRUIT, ("red", "plum"), ("red", "pear"), ("green", "pear")))
    assert [(one.name, len(one.images)) for one in found][2:] == [("green, apple", 2), ("red, other", 2)]
    assert "11" not in {i for one in found for i in one.images}  # a lone green pear is of no cluster


def test_a_coarse_level_folds_what_is_rare() -> None:
    many = [*[("red", "apple")] * 150, *[("red", "cherry")] * 2, *[("red", "plum")] * 2]
    assert [one.name for one in combine(of_pairs(*many))] == ["red, apple", "red, cherry", "red, plum"]
    assert [one.name for one in combine(of_pairs(*many), "coarse")] == ["red, apple", "red, other"]


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_no_more_clusters_than_were_asked_for(most: int) -> None:
    pairs = [(a, b) for a in "xy" for b in "pqrs" for _ in range(3)]
    assert len(combine(of_pairs(*pairs), n_clusters=most)) <= max(most, 2)


def test_one_clustering_s_doubts_are_the_other_s_too() -> None:
    color, kind = of_pairs(("red", "apple"), ("red", None))
    where = places([color, kind])
    together = joint("00", where["00"], 1, [color.interest, kind.interest])
    assert together == Assignment("00", 1, 1.0, "by color: seen as red; by kind: seen as apple", "description")
    assert joint("01", where["01"], None, [color.interest, kind.interest]).reason == "by kind: seen as None"
    assert sure([Assignment("a", 1, 0.5, "", "choice"), Assignment("a", 1, 0.5, "", "")]) == 0.25


def test_the_misplaced_lie_between_the_worst_part_and_the_sum() -> None:
    parts = [
        sorted_by("a", {"0": "x"}, estimate=Misplaced(0.1, 0.05, 0.2)),
        sorted_by("b", {"0": "x"}, estimate=Misplaced(0.2, 0.1, 0.3)),
    ]
    assert joint_estimate(parts) == Misplaced(0.28, 0.1, 0.5)
    assert joint_estimate([*parts, sorted_by("c", {"0": "x"})]) is None
    by_looks = sorted_by("c", {"0": "x"}, estimate=Misplaced(0.0, 0.0, 0.0, "looks"))
    assert joint_estimate([*parts, by_looks]) == Misplaced(0.28, 0.1, 0.5, "looks"), "no surer than its least sure part"


def test_a_part_that_was_not_understood_is_left_out() -> None:
    lost = sorted_by("b", {"0": "look 1"}, verdict=Verdict("not understood", "no idea"))
    known = sorted_by("a", {"0": "x"}, verdict=Verdict("good", "fine"))
    assert [part.interest.text for part in understood([lost, known])] == ["a"]
    assert [part.interest.text for part in understood([lost, lost])] == ["b"]


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from("xyz")), min_size=1, max_size=40))
def test_every_picture_is_in_one_combination_at_most_and_only_in_its_own(pairs: list[tuple[str | None, str]]) -> None:
    parts = of_pairs(*pairs)
    found = combine(parts)
    placed = [i for one in found for i in one.images]
    assert len(placed) == len(set(placed))
    for one in found:
        own = {pairs[int(i)] for i in one.images}
        assert {first for first, _ in own} == {one.names[0]}
        assert one.folded or own == {one.names}
    turned = [
        sorted_by(c.interest.text, dict(reversed([(a.image_id, None if a.cluster is None else
                  next(k.name for k in c.clusters if k.id == a.cluster)) for a in c.assignments])))
        for c in parts
    ]  # fmt: skip
    assert combine(turned) == found
