import unicodedata

import numpy as np
import pytest
from answerers import looks_of
from hypothesis import given
from hypothesis import strategies as st

from manylens.method.observations import (
    define_cluster,
    directions,
    normalise_description,
    seeded_share,
    spoken,
    sum_by_group,
)


@pytest.mark.parametrize(
    "text, form",
    [
        ("Hearts.", "heart"),
        ("a heart", "heart"),
        ("The Queen's Hat", "queen hat"),
        ("the queen’s hat", "queen hat"),
        ('  "light_blue",\n sky!', "light blue sky"),
        ("ﬁne", "fine"),
        ("STRASSE", "strasse"),
        ("straße", "strasse"),
        ("an apple", "apple"),
    ],
)
def test_case_articles_punctuation_possessives_and_plain_plurals_do_not_tell_descriptions_apart(
    text: str, form: str
) -> None:
    assert normalise_description(text) == form


@pytest.mark.parametrize("word", ["glass", "bus", "iris", "gas", "is", "yes"])
def test_words_that_end_in_s_and_are_no_plain_plural_keep_it(word: str) -> None:
    assert normalise_description(word) == word


def test_four_letters_are_enough_for_a_plural() -> None:
    assert normalise_description("cats") == "cat"


@pytest.mark.parametrize("text", ["a", "The", "?!"])
def test_a_description_without_words_stays_itself(text: str) -> None:
    assert normalise_description(f" {text} ") == text.casefold()


@given(st.text("aAsStThHe'’_.- ßéﬁİ"))
def test_case_and_outer_space_never_tell_descriptions_apart(text: str) -> None:
    folded = unicodedata.normalize("NFKC", text)
    assert normalise_description(f" {folded}\n") == normalise_description(folded.casefold())


def test_seeded_share_depends_on_its_arguments_alone_and_fills_the_unit_interval() -> None:
    shares = [seeded_share(7, "probe", str(k)) for k in range(2000)]
    assert shares == [seeded_share(7, "probe", str(k)) for k in range(2000)]
    assert 0 <= min(shares) < 0.01 and 0.99 < max(shares) < 1
    assert np.histogram(shares, 4, (0, 1))[0].min() > 430
    assert seeded_share(8, "probe", "0") != shares[0]
    assert seeded_share(7, "ab", "c") != seeded_share(7, "a", "bc"), "the parts are kept apart"


def test_seeded_share_takes_what_no_encoding_takes() -> None:
    assert 0 <= seeded_share(0, "\ud800") < 1


@given(st.lists(st.integers(0, 5), max_size=30))
def test_sums_by_group_are_those_of_a_loop(drawn: list[int]) -> None:
    group = np.array(drawn, dtype=np.int64)
    rows = np.random.default_rng(len(drawn)).integers(-9, 9, (len(drawn), 3)).astype(np.float32)
    expected = np.zeros((7, 3), dtype=np.float32)
    for row, at in zip(rows, drawn, strict=True):
        expected[at] += row
    assert (sum_by_group(rows, group, 7) == expected).all()


def test_directions_have_unit_length_and_zero_rows_stay_zero() -> None:
    scaled = directions(np.array([[3, 4], [0, 0], [0.3, -0.4]], np.float32))
    assert np.allclose(scaled, np.array([[0.6, 0.8], [0, 0], [0.6, -0.8]]))
    assert scaled.dtype == np.float32


def test_a_description_is_shown_as_its_members_most_often_write_it() -> None:
    looks = looks_of(["a Heart", '"hearts."', "hearts", "the  spade", "Heart"])
    assert spoken(looks, range(5), "heart") == "hearts"
    assert spoken(looks, [0, 4], "heart") == "Heart", "ties go to the first in the alphabet"
    assert spoken(looks, [3], "spade") == "the spade"
    assert spoken(looks, [3], "heart") == "heart", "nobody wrote it"


def test_a_cluster_is_defined_by_its_description_and_the_interest() -> None:
    assert define_cluster("red", "color") == 'Images described as "red" when looked at for "color".'


def test_as_many_looks_as_images() -> None:
    assert len(looks_of(["a", "b", "c"])) == 3
