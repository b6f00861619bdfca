from dataclasses import replace

import numpy as np
import pytest
from by_hand import looks_of

from manylens.evidence import (
    Question,
    centroid,
    draw_profile,
    is_stranger,
    majority,
    normalise_description,
    seeded_share,
    token_overlap,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hearts.", "heart"),
        ("a heart", "heart"),
        ("“The Hearts”", "heart"),
        ("  THE   red-heart ", "red heart"),
        ("glass", "glass"),
        ("bus", "bus"),
        ("gas", "gas"),
        ("woman's face", "woman face"),
        ("woman’s face", "woman face"),
        ("10", "10"),
        ("", ""),
        ("the", "the"),
        ("ÉTÉ", "été"),
    ],
)
def test_descriptions_are_folded_for_comparing(text: str, words: str) -> None:
    assert normalise_description(text) == words


def test_the_majority_ignores_empty_descriptions_and_breaks_ties_by_typicality() -> None:
    looks = looks_of(["", "", "", "red", "blue"], np.array([[1, 0], [1, 0], [1, 0], [0, 1], [1, 0.1]]))
    assert majority(looks, [0, 1, 2, 3, 4]) == ("blue", 0.2)
    assert majority(looks, [0, 1]) == ("", 0.0)


def test_a_profile_shows_medoids_that_have_the_majority_description() -> None:
    looks = looks_of(["hearts", "Hearts", "Hearts", "spades"], np.array([[1, 0.6], [1, 0], [1, 0.1], [1, 0.05]]))
    profile = draw_profile(looks, [3, 2, 1, 0], 3)
    assert (profile.name, profile.words, profile.share) == ("Hearts", "heart", 0.75)
    assert profile.exemplars == (2, 1, 0)
    assert profile.definition == 'Images described as "Hearts" when looked at for "suit".'


def test_the_centroid_leaves_out_who_disagrees() -> None:
    looks = looks_of(["a", "a", "b"], np.array([[1, 0], [1, 0], [0, 1]]))
    assert np.allclose(centroid(looks, [0, 1, 2]), [1, 0])


def test_overlap_is_jaccard_on_words() -> None:
    assert token_overlap("dark red", "red") == 0.5
    assert token_overlap("", "red") == 0.0


def test_a_seeded_share_is_uniform_and_depends_on_every_part() -> None:
    shares = [seeded_share(0, "a", str(number)) for number in range(2000)]
    assert abs(np.mean(shares) - 0.5) < 0.03
    assert len({seeded_share(0, "a", "b"), seeded_share(1, "a", "b"), seeded_share(0, "ab", "")}) == 3


def test_a_stranger_is_alone_where_many_are_and_shares_no_word() -> None:
    looks = looks_of(["rose"] * 8 + ["coral reef", "red rose"])
    rose = Question(draw_profile(looks, range(8), 3), 8)
    assert is_stranger(looks, rose)
    assert not is_stranger(looks, replace(rose, candidate=9)), "a word in common"
    assert not is_stranger(looks, replace(rose, candidate=0)), "not alone"
    assert not is_stranger(looks_of(["rose"] * 10 + ["coral reef"]), replace(rose, candidate=10)), "one slip in eleven"
