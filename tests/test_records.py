from typing import Any

import pytest

from manylens.errors import UsageError
from manylens.settings import ModelOptions, Settings, TuneSettings, listed_names
from manylens.types import CallCounts, Interest, Tokens


def test_counts_come_back_as_they_were() -> None:
    counts = CallCounts(look=3, judge=1, tokens=Tokens(10, 2, 1), choose=2)
    assert CallCounts.from_dict(counts.to_dict()) == counts


def test_an_interest_of_undecodable_bytes_is_refused() -> None:
    with pytest.raises(UsageError, match="bytes that are none"):
        Interest("caf\udce9")


@pytest.mark.parametrize(
    "wrong",
    [{"concurrency": 0}, {"image_px": 8}, {"timeout_s": 0.0}, {"timeout_s": float("nan")}],
)
def test_options_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ModelOptions(**wrong)


def test_where_an_embedding_model_answers_needs_its_name() -> None:
    with pytest.raises(UsageError, match="embedding_url says where embedding_model answers"):
        ModelOptions(embedding_url="http://localhost:8081/v1")


def test_a_negative_seed_for_tuning_is_refused() -> None:
    with pytest.raises(UsageError, match="seed is at least 0"):
        TuneSettings(seed=-1)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("sunny, cloudy or rainy?", ("sunny", "cloudy", "rainy")),
        ("Is it sunny, cloudy, or rainy?", ("sunny", "cloudy", "rainy")),
        ("weather: sunny or very cloudy", ("sunny", "very cloudy")),
        ("cats or dogs", ("cats", "dogs")),
        ("indoors or outdoors?", ("indoors", "outdoors")),
        ("color of the object", ()),
        ("what they wear or carry", ()),
        ("red, green, blue", ()),
        ("color", ()),
    ],
)
def test_an_interest_that_lists_its_options_is_read(text: str, options: tuple[str, ...]) -> None:
    assert Interest(text).options == options


def test_a_list_of_clusters_is_names_between_commas() -> None:
    assert listed_names(" good,  not  so good ,") == ("good", "not so good")
    assert listed_names(" , ") == ("",)


@pytest.mark.parametrize("into", [("",), ("a",), ("a", "A "), ("a", 3), tuple(map(str, range(1001)))])
def test_a_list_that_names_no_two_clusters_or_too_many_is_refused(into: tuple[Any, ...]) -> None:
    with pytest.raises(UsageError, match="into names"):
        Settings(into=into)
