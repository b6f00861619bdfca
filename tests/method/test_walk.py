from zlib import crc32

import numpy as np
import pytest
from answerers import EDGE, looks_of, parts, units_of
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.method.graph import edge_weight
from manylens.method.observations import Looks, seeded_share
from manylens.method.walk import SURE_EDGE, EdgeScale, walk
from manylens.settings import Settings

SURE_COSINE = float((np.log(SURE_EDGE / (1 - SURE_EDGE)) - EDGE.offset) / EDGE.scale)
""".775: from here on an edge is at least nine to one."""


def turned(*degrees: float) -> np.ndarray:
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


def members(looks: Looks) -> list[list[int]]:
    return [sorted(unit.tolist()) for unit in units_of(looks).members]


worlds = st.lists(
    st.tuples(st.sampled_from(["", "red", "blue", *(f"alone {k}" for k in range(8))]), st.integers(0, 9)),
    min_size=1,
    max_size=20,
)


def drawn_looks(drawn: list[tuple[str, int]]) -> Looks:
    """Equal words have equal directions; what no word tells apart has its own."""
    rows = [
        np.random.default_rng(crc32(words.encode()) % 99 if words else 99 + turn).random(3) for words, turn in drawn
    ]
    return looks_of([words for words, _ in drawn], np.array(rows), [turn / 9 for _, turn in drawn])


@given(worlds)
@settings(deadline=None)
def test_units_are_a_partition_and_all_their_parts_agree(drawn: list[tuple[str, int]]) -> None:
    units = units_of(drawn_looks(drawn))
    assert sorted(image for unit in units.members for image in unit.tolist()) == list(range(len(drawn)))
    assert len(units) == len(units.words) == len(units.vectors) == len(units.sizes)
    for number, unit in enumerate(units.members):
        assert units.sizes[number] == len(unit)
        assert (units.of_image[unit] == number).all()
    assert np.allclose(np.linalg.norm(units.vectors, axis=1), 1, atol=1e-5)


@given(worlds)
@settings(deadline=None)
def test_equal_descriptions_share_a_unit_and_two_repeated_ones_never_do(drawn: list[tuple[str, int]]) -> None:
    looks = drawn_looks(drawn)
    units = units_of(looks)
    for words in set(looks.words) - {""}:
        assert len({int(units.of_image[i]) for i in range(len(looks)) if looks.words[i] == words}) == 1
    for unit in units.members:
        said = [looks.words[i] for i in unit.tolist() if looks.words[i]]
        assert sum(said.count(words) > 1 for words in set(said)) <= 1


@given(worlds, st.randoms())
@settings(deadline=None)
def test_permuting_the_images_permutes_the_units(drawn: list[tuple[str, int]], random: object) -> None:
    looks = drawn_looks(drawn)
    order = list(range(len(drawn)))
    random.shuffle(order)  # type: ignore[attr-defined]
    other = drawn_looks([drawn[i] for i in order])
    names = [f"{i:04d}" for i in order]
    assert parts(units_of(looks).of_image.tolist(), looks.image_ids) == parts(units_of(other).of_image.tolist(), names)


@pytest.mark.parametrize("cosine, joined", [(SURE_COSINE + 0.01, True), (SURE_COSINE - 0.01, False)])
def test_images_alone_of_their_descriptions_join_above_the_sure_edge(cosine: float, joined: bool) -> None:
    looks = looks_of(["oak", "old oak"], turned(0, float(np.degrees(np.arccos(cosine)))))
    assert members(looks) == ([[0, 1]] if joined else [[0], [1]])


def test_an_image_joins_by_its_edge_to_the_mean_direction_not_to_the_nearest_member() -> None:
    """Each neighbour is within 35 degrees (cosine .82), but the last is 52 from the mean of the first two."""
    looks = looks_of(["one", "two", "three"], turned(0, 35, 70))
    assert members(looks) in ([[0, 1], [2]], [[1, 2], [0]])


def test_a_walk_goes_on_from_what_it_gathered() -> None:
    """ "rose" has no sure edge to "red" (50 degrees), but to "pink" (15), and to the mean of those two (38). The many
    "crimson" beside "red" only make the walk begin there."""
    looks = looks_of(["crimson"] * 9 + ["red", "red", "pink", "rose"], turned(*[-30] * 9, 0, 0, 35, 50))
    assert edge_weight(float(np.cos(np.radians(50))), EDGE.scale, EDGE.offset) < SURE_EDGE
    assert members(looks) == [[9, 10, 11, 12], list(range(9))]


def test_a_repeated_description_gathers_those_alone_of_theirs_and_names_the_unit() -> None:
    looks = looks_of(["deep red", "red", "red", "blue", "blue"], turned(25, 0, 0, 2, 2))
    units = units_of(looks)
    assert sorted(map(sorted, (unit.tolist() for unit in units.members))) in ([[0, 1, 2], [3, 4]], [[0, 3, 4], [1, 2]])
    assert set(units.words) == {"red", "blue"}


def test_the_walk_starts_at_the_node_of_highest_weighted_degree() -> None:
    """From the third, at 30, it gathers the two at 60; from the last, at 0, it would take the third from them."""
    looks = looks_of(["k1", "k2", "k3", "k4"], turned(60, 60, 30, 0))
    assert members(looks) == [[0, 1, 2], [3]]


def test_the_surest_edge_is_walked_first() -> None:
    """Seeded at 0, the walk takes 10 before -30; by then the mean has turned away from -30."""
    looks = looks_of(["red", "red", "near", "far"], turned(0, 0, 10, -37))
    unit = units_of(looks)
    assert members(looks)[0] == [0, 1, 2]
    assert len(unit) == 2


def test_undescribed_images_are_no_one_kind() -> None:
    assert sorted(members(looks_of(["", "", "red"], np.eye(3)))) == [[0], [1], [2]]


def test_members_stand_by_falling_confidence_and_ties_by_seeded_hash() -> None:
    looks = looks_of(["red"] * 40, None, [0.5, 0.9, 0.7, *[0.6] * 37])
    order = units_of(looks, Settings(seed=3)).members[0].tolist()
    assert order[:2] == [1, 2] and order[-1] == 0
    assert order[2:-1] == sorted(range(3, 40), key=lambda i: seeded_share(3, "probe", looks.image_ids[i]))
    assert order != units_of(looks, Settings(seed=4)).members[0].tolist()


def test_confidences_that_differ_by_less_than_a_thousandth_are_ties() -> None:
    ids = sorted((f"{k:04d}" for k in range(2)), key=lambda name: seeded_share(0, "probe", name))
    sure = [0.9001, 0.9002] if ids[0] == "0000" else [0.9002, 0.9001]
    looks = looks_of(["red"] * 2, None, sure)
    assert [looks.image_ids[i] for i in units_of(looks).members[0]] == ids


def test_a_units_vector_is_its_images_mean_direction() -> None:
    looks = looks_of(["red", "red", "deep red"], turned(0, 10, 20))
    (vector,) = units_of(looks).vectors
    mean = looks.embeddings.sum(axis=0)
    assert np.allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)


def test_density_is_that_of_the_descriptions_graph() -> None:
    looks = looks_of(["one", "one", "two", "three"], turned(0, 0, 45, 180))
    assert units_of(looks).density == pytest.approx(1 / 3)


def test_the_models_own_edge_decides() -> None:
    looks = looks_of(["one", "two"], turned(0, 30))
    assert len(walk(looks, EdgeScale(8.0, -4.0), Settings())) == 1
    assert len(walk(looks, EdgeScale(8.0, -6.0), Settings())) == 2


def test_no_images_are_no_units() -> None:
    looks = looks_of([], np.zeros((0, 3)))
    assert len(units_of(looks)) == 0
