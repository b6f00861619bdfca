from typing import Any

import pytest

from manylens.errors import UsageError
from manylens.records import CallCounts, Interest, ModelOptions, Tokens, TuneSettings


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
