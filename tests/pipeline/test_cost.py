"""Forecasts are ranges: (at least, at most), before anything is asked and once the descriptions are in."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.method.vocabulary import BATCH
from manylens.models.scripted import DESIGN_NOISE, ScriptedModel
from manylens.models.wordings import Wordings
from manylens.pipeline import cluster_images
from manylens.pipeline.forecast import calls_after_looks, calls_before_looks
from manylens.settings import CALLS_PER_PICTURE, Effort, Settings
from manylens.types import Interest

EFFORTS: list[Effort] = ["low", "normal", "high", "max"]


@given(st.integers(0, 2_000_000), st.sampled_from(EFFORTS), st.booleans())
def test_a_range_runs_from_low_to_high_and_grows_with_the_images(images: int, effort: Effort, writes: bool) -> None:
    low, high = calls_before_looks(images, effort, writes)
    more_low, more_high = calls_before_looks(images + 1000, effort, writes)
    assert 0 <= low <= high
    assert low <= more_low
    assert high < more_high


@given(
    st.integers(0, 100_000),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(EFFORTS),
    st.booleans(),
    st.integers(0, 9),
)
def test_the_range_after_the_looks_is_one_and_counts_texts_that_were_asked_for_already(
    images: int, described: float, gathered: float, effort: Effort, writes: bool, writings: int
) -> None:
    descriptions = round(images * described)
    units = round(images * gathered)
    low, high = calls_after_looks(images, descriptions, units, effort, writes)
    assert 0 <= low <= high
    later = calls_after_looks(images, descriptions, units, effort, writes, writings)
    assert later == (low + writings, high + writings)


def test_efforts_are_foreseen_in_their_order() -> None:
    assert list(CALLS_PER_PICTURE) == EFFORTS
    before = [calls_before_looks(10_000, effort, False) for effort in EFFORTS]
    after = [calls_after_looks(10_000, 900, 500, effort, False) for effort in EFFORTS]
    for ranges in (before, after):
        assert [low for low, _ in ranges] == sorted(low for low, _ in ranges)
        assert [high for _, high in ranges] == sorted({high for _, high in ranges})


def test_few_units_take_fewer_questions_than_many() -> None:
    few, many = (calls_after_looks(10_000, units, units, "max", False) for units in (12, 5_000))
    assert few[0] <= many[0]
    assert 1.5 * few[1] < many[1]


def test_a_writer_is_foreseen_to_write() -> None:
    """A vocabulary takes a text per hundred descriptions."""
    spoken, written = (calls_before_looks(5_000, "normal", writes) for writes in (False, True))
    assert written[0] > spoken[0]
    assert written[1] - spoken[1] >= 5_000 / BATCH
    assert calls_after_looks(300, 40, 30, "normal", True) > calls_after_looks(300, 40, 30, "normal", False)


def test_where_there_is_nothing_to_tell_apart_no_question_is_promised() -> None:
    assert calls_before_looks(0, "normal", True) == (0, 0)
    assert calls_after_looks(0, 0, 0, "normal", True) == (0, 0)
    assert calls_after_looks(0, 0, 0, "normal", False, 2) == (2, 2)


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize(("images", "classes"), [(1, 1), (2, 1), (2, 2), (50, 1), (60, 30), (260, 13), (1000, 20)])
def test_runs_end_within_both_ranges(images: int, classes: int, writes: bool) -> None:
    labels = {f"{number:04d}": f"kind{number % classes}" for number in range(images)}
    wordings = Wordings(3) if writes else None
    model = ScriptedModel({"kind": labels}, noise=DESIGN_NOISE, writes_text=writes, wordings=wordings)
    kind = Interest("kind")
    found = asyncio.run(cluster_images(list(labels), [kind], model, Settings(), lambda event: None))[kind]
    asked = found.calls.total - found.calls.look
    for low, high in (calls_before_looks(images, "normal", writes), found.foreseen_calls):
        assert low <= asked <= high
