from itertools import pairwise

import numpy as np
import pytest
from answerers import Truthful, World, begin, choose, drive, looks_of, make_world
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.method.levels import Group, cut
from manylens.method.sorting import NONE, Sorting


def sorted_world(world: World, price: float = 1 / 7) -> Sorting:
    check = begin(world.looks, price=price)
    drive(check.run(), Truthful(world))
    return check.sorting


def kinds_of(sorting: Sorting) -> list[str | None]:
    return [words.split()[-1] for words in sorting.units.words]


def nothing(sorting: Sorting) -> list[str | None]:
    return [None] * len(sorting.units)


def images(groups: list[Group]) -> list[int]:
    return [image for group in groups for image in group.images]


worlds = st.builds(
    make_world,
    st.integers(2, 7),
    st.integers(30, 60),
    wordings=st.integers(1, 4),
    spread=st.sampled_from([0.3, 1.0]),
    misdescribed=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 9),
)


@given(worlds, st.booleans(), st.booleans())
@settings(max_examples=25, deadline=None)
def test_levels_are_partitions_that_nest_from_fine_to_coarse(world: World, named: bool, fine: bool) -> None:
    sorting = sorted_world(world)
    finer = kinds_of(sorting) if fine else nothing(sorting)
    live = sorting.live()
    parents = {cluster: f"p{at % 2}" for at, cluster in enumerate(live)} if named and len(live) > 3 else {}
    levels = [cut(sorting, level, None, parents, finer)[0] for level in ("fine", "medium", "coarse")]
    placed = [image for image in range(len(world.looks)) if sorting.cluster_of(image) != NONE]
    for groups in levels:
        assert sorted(images(groups)) == placed
        assert all(list(group.images) == sorted(group.images) for group in groups)
        assert [len(group.images) for group in groups] == sorted((len(g.images) for g in groups), reverse=True)
    for smaller, larger in pairwise(levels):
        assert len(smaller) >= len(larger)
        home = {image: at for at, group in enumerate(larger) for image in group.images}
        assert all(len({home[image] for image in group.images}) == 1 for group in smaller)


@given(worlds, st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_a_number_of_clusters_is_kept_where_there_are_units_enough(world: World, count: int) -> None:
    sorting = sorted_world(world)
    groups, _ = cut(sorting, "medium", count, {}, nothing(sorting))
    # An image alone of its description is no group of its own: it stays with the most alike of its cluster.
    held = {
        unit
        for i in range(len(world.looks))
        if sorting.cluster_of(i) != NONE and sorting.units.sizes[unit := int(sorting.units.of_image[i])] > 1
    }
    if len(held) == int((sorting.place != NONE).sum()) and not sorting.image_place:
        assert len(groups) == min(count, len(held))
    else:
        assert min(count, len(held)) - 2 <= len(groups) <= count + len(sorting.live())
    assert len(images(groups)) == len(set(images(groups)))


def test_medium_is_the_clusters_themselves() -> None:
    world = make_world(4, 80, wordings=3, misdescribed=0.1)
    sorting = sorted_world(world)
    groups, parents = cut(sorting, "medium", None, {}, nothing(sorting))
    for group in groups:
        assert {sorting.cluster_of(image) for image in group.images} == {group.cluster}
    assert len(groups) == len(sorting.live()) == 4
    assert set(parents) <= set(range(4))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 11, 12, 50])
def test_as_many_groups_as_asked_for_and_at_most_one_per_description(count: int) -> None:
    world = make_world(4, 240, wordings=3)
    sorting = sorted_world(world)
    assert len(sorting.units) == 12
    groups, _ = cut(sorting, "fine", count, {}, nothing(sorting))
    assert len(groups) == min(count, 12)


def pets(rows: dict[str, tuple[float, ...]], many: int = 4) -> Sorting:
    """Each description a cluster by itself, settled."""
    said = [words for words in rows for _ in range(many)]
    check = begin(looks_of(said, np.array([rows[words] for words in said])))
    sorting = check.sorting
    for unit, words in enumerate(sorting.units.words):
        if not sorting.is_founder(unit):
            check._found_by(unit)
        assert words
    sorting.refresh()
    return sorting


TWO_SORTS: dict[str, tuple[float, ...]] = {
    "oak": (1.0, 0, 0, 0),
    "elm": (0.75, 0.66, 0, 0),
    "ash": (0.75, -0.66, 0, 0),
    "cod": (0, 0, 1.0, 0),
    "eel": (0, 0, 0.75, 0.66),
    "ray": (0, 0, 0.75, -0.66),
}


def names(sorting: Sorting, groups: list[Group]) -> set[frozenset[str]]:
    return {frozenset(sorting.looks.words[image] for image in group.images) for group in groups}


def test_without_a_writer_coarse_joins_what_is_alike_up_to_the_widest_gap() -> None:
    sorting = pets(TWO_SORTS)
    groups, parents = cut(sorting, "coarse", None, {}, nothing(sorting))
    assert names(sorting, groups) == {frozenset({"oak", "elm", "ash"}), frozenset({"cod", "eel", "ray"})}
    assert len(set(parents.values())) == 2
    medium, above = cut(sorting, "medium", None, {}, nothing(sorting))
    assert names(sorting, medium) == {frozenset({words}) for words in TWO_SORTS}
    by_parent: dict[str, set[str]] = {}
    for number, group in enumerate(medium):
        by_parent.setdefault(above[number], set()).add(sorting.looks.words[group.images[0]])
    assert set(map(frozenset, by_parent.values())) == names(sorting, groups)
    # Of equal size: in the order of their founding.
    assert {kind: sorted(members) for kind, members in by_parent.items()} == {
        "oak, ash, elm": ["ash", "elm", "oak"],
        "cod, eel, ray": ["cod", "eel", "ray"],
    }


def test_a_parent_without_a_writer_is_named_by_its_three_largest_clusters() -> None:
    rows = {**TWO_SORTS, "yew": (0.75, 0, 0, 0.66)}
    many = {"oak": 3, "elm": 6, "ash": 4, "yew": 5, "cod": 4, "eel": 9, "ray": 3}
    said = [words for words, images in many.items() for _ in range(images)]
    check = begin(looks_of(said, np.array([rows[words] for words in said])))
    for unit in range(7):
        if not check.sorting.is_founder(unit):
            check._found_by(unit)
    check.sorting.refresh()
    assert set(cut(check.sorting, "medium", None, {}, nothing(check.sorting))[1].values()) == {
        "elm, yew, ash, ...",
        "eel, cod, ray",
    }


def test_a_writers_parents_are_the_coarse_groups_whatever_looks_alike() -> None:
    sorting = pets(TWO_SORTS)
    of = {sorting.clusters[c].name: c for c in sorting.live()}
    parents = {of["oak"]: "x", of["cod"]: "x", of["elm"]: "y", of["eel"]: "y"}
    groups, above = cut(sorting, "coarse", None, parents, nothing(sorting))
    assert names(sorting, groups) == {
        frozenset({"oak", "cod"}),
        frozenset({"elm", "eel"}),
        frozenset({"ash"}),
        frozenset({"ray"}),
    }
    assert sorted(above.values()) == ["x", "y"]


def test_fewer_than_four_clusters_have_no_parents() -> None:
    sorting = pets({"oak": (1.0, 0, 0), "elm": (0.7, 0.71, 0), "cod": (0, 0, 1.0)})
    groups, parents = cut(sorting, "coarse", None, {}, nothing(sorting))
    assert len(groups) == 3 and parents == {}


def test_groups_of_one_parent_are_joined_before_groups_of_two() -> None:
    sorting = pets(TWO_SORTS)
    of = {sorting.clusters[c].name: c for c in sorting.live()}
    parents = {of[words]: "x" if words in ("oak", "cod") else words for words in of}
    groups, _ = cut(sorting, "medium", 5, parents, nothing(sorting))
    assert frozenset({"oak", "cod"}) in names(sorting, groups)


def one_cluster_of_four() -> Sorting:
    """Four descriptions that are one cluster, and another cluster."""
    sorting = pets(
        {
            "red": (1.0, 0, 0, 0),
            "scarlet": (0.98, 0.2, 0, 0),
            "wine": (0.2, 0, 0.98, 0),
            "rust": (0.2, 0, 0.2, 0.96),
            "blue": (0, -1.0, 0, 0),
        }
    )
    of = {sorting.clusters[c].name: c for c in sorting.live()}
    for words in ("scarlet", "wine", "rust"):
        sorting.join(of["red"], of[words])
    sorting.settle()
    assert len(sorting.live()) == 2
    return sorting


def test_fine_splits_a_cluster_where_its_parts_are_more_likely_two_kinds_than_one() -> None:
    sorting = one_cluster_of_four()
    groups, _ = cut(sorting, "fine", None, {}, nothing(sorting))
    assert names(sorting, groups) == {
        frozenset({"red", "scarlet"}),
        frozenset({"wine"}),
        frozenset({"rust"}),
        frozenset({"blue"}),
    }


def test_fine_with_a_writer_are_its_finer_kinds_within_each_cluster() -> None:
    sorting = one_cluster_of_four()
    kinds = {"red": "light", "wine": "light", "scarlet": "dark", "rust": "dark", "blue": "dark"}
    groups, _ = cut(sorting, "fine", None, {}, [kinds[words] for words in sorting.units.words])
    assert names(sorting, groups) == {frozenset({"red", "wine"}), frozenset({"scarlet", "rust"}), frozenset({"blue"})}


def test_finer_kinds_are_joined_first_where_a_number_is_asked_for() -> None:
    sorting = one_cluster_of_four()
    kinds = {"red": None, "wine": "w", "scarlet": None, "rust": "w", "blue": None}
    groups, _ = cut(sorting, "medium", 4, {}, [kinds[words] for words in sorting.units.words])
    assert frozenset({"wine", "rust"}) in names(sorting, groups)


def test_a_misplaced_image_goes_to_the_largest_group_of_its_own_cluster() -> None:
    sorting = pets(TWO_SORTS, many=6)
    of = {sorting.clusters[c].name: c for c in sorting.live()}
    sorting.image_place[0] = of["cod"]
    groups, _ = cut(sorting, "medium", None, {}, nothing(sorting))
    (home,) = [group for group in groups if 0 in group.images]
    assert home.cluster == of["cod"] and len(home.images) == 7
    sorting.image_place[1] = NONE
    groups, _ = cut(sorting, "medium", None, {}, nothing(sorting))
    assert sorted(images(groups)) == [image for image in range(36) if image != 1]


def test_a_cluster_that_holds_single_images_only_is_a_group_of_its_own() -> None:
    """Two images left units that stay; the cluster they name holds no whole unit."""
    looks = looks_of(["oak"] * 8 + ["cod"] * 8)
    check = begin(looks, into=["oak", "cod", "eel"])
    sorting = check.sorting
    sorting.refresh()
    for image in range(16):
        at = 2 if image in (3, 12) else int(image >= 8)
        for _ in range(3):
            sorting.learn(image, [0, 1, 2], choose(at, 3).probabilities)
    sorting.refresh()
    groups, _ = cut(sorting, "medium", None, {}, nothing(sorting))
    assert [(group.cluster, group.images) for group in groups] == [
        (0, (0, 1, 2, 4, 5, 6, 7)),
        (1, (8, 9, 10, 11, 13, 14, 15)),
        (2, (3, 12)),
    ]


def test_a_group_is_known_by_its_largest_cluster() -> None:
    said = ["oak"] * 2 + ["elm"] * 7 + ["ash"] * 3 + ["cod"] * 4
    check = begin(looks_of(said, np.array([TWO_SORTS[words] for words in said])))
    for unit in range(4):
        if not check.sorting.is_founder(unit):
            check._found_by(unit)
    sorting = check.sorting
    sorting.refresh()
    groups, _ = cut(sorting, "medium", 1, {}, nothing(sorting))
    assert [sorting.clusters[group.cluster].name for group in groups] == ["elm"]


def test_joins_weigh_descriptions_by_their_images() -> None:
    """Between two neighbours, the mean of a large and a small one stays near the large one."""
    rows = {"left": (1.0, 0.0), "mid": (0.94, 0.34), "right": (0.57, 0.82), "end": (-0.5, 0.87)}
    said = ["left"] * 30 + ["mid"] * 2 + ["right"] * 2 + ["end"] * 2
    check = begin(looks_of(said, np.array([rows[words] for words in said])))
    sorting = check.sorting
    for unit in range(4):
        if not sorting.is_founder(unit):
            check._found_by(unit)
    sorting.refresh()
    groups, _ = cut(sorting, "medium", 2, {}, nothing(sorting))
    assert names(sorting, groups) == {frozenset({"left", "mid"}), frozenset({"right", "end"})} or names(
        sorting, groups
    ) == {frozenset({"left", "mid", "right"}), frozenset({"end"})}


def test_many_units_of_a_cluster_share_leaves_by_likeness() -> None:
    """450 descriptions of one cluster: 400 leaves, and each of the smaller ones is with the one it resembles."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((450, 64)) * 0.6 / 8
    rows[:, 0] += 1.0
    rows[400:] = rows[:50]
    said = [f"w{k}" for k in range(450) for _ in range(3 if k < 400 else 2)]
    looks = looks_of(said, np.repeat(rows, [3 if k < 400 else 2 for k in range(450)], axis=0))
    check = begin(looks)
    sorting = check.sorting
    sorting.refresh()
    groups, _ = cut(sorting, "medium", 10_000, {}, nothing(sorting))
    assert len(groups) == 400
    found = names(sorting, groups)
    assert all(frozenset({f"w{k}", f"w{400 + k}"}) in found for k in range(50))


def test_no_cluster_is_no_group() -> None:
    sorting = begin(looks_of([], np.zeros((0, 2)))).sorting
    sorting.refresh()
    assert cut(sorting, "medium", None, {}, []) == ([], {})
