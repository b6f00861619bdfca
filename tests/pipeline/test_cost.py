"""foresee: how many judgements are likely, and a judge who answers in kind."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.evidence import Looks
from manylens.foresee import SupposedJudge, expected_judgements, judgements_per_call
from manylens.models.base import JudgeReply, JudgeRequest
from manylens.models.scripted import ScriptedModel
from manylens.records import Interest, Settings

IDS = tuple(f"{number:02d}" for number in range(40))
WORDS = tuple("heart" if number % 2 else "spade" for number in range(40))


def judge(heard: dict[JudgeRequest, float], *requests: JudgeRequest) -> list[float]:
    unit = np.eye(40, dtype=np.float32)
    looks = Looks(Interest("suit"), IDS, WORDS, WORDS, np.ones(40, np.float32), unit)
    supposed = SupposedJudge(looks, ScriptedModel({"suit": dict(zip(IDS, WORDS, strict=True))}), heard)
    replies = asyncio.run(supposed.judge(requests))
    return [reply.probability for reply in replies if isinstance(reply, JudgeReply)]


def ask(name: str, image: str, *exemplars: str) -> JudgeRequest:
    return JudgeRequest("suit", name, "", exemplars, image)


def test_without_answers_it_goes_by_descriptions_however_they_are_written() -> None:
    assert judge({}, ask("Hearts.", "01"), ask("hearts", "00")) == [0.95, 0.05]


def test_the_rest_is_answered_in_kind_and_always_the_same() -> None:
    """A judge who was right 5 times of 10 about its own kind and never wrong about another."""
    heard = {ask("hearts", image, "own"): 0.9 if number % 2 else 0.1 for number, image in enumerate(IDS[1:21:2])}
    heard |= {ask("hearts", image, "other"): 0.02 for image in IDS[0:20:2]}
    alike = [ask("hearts", image, exemplar) for image in IDS[1::2] for exemplar in IDS]
    unlike = [ask("hearts", image, exemplar) for image in IDS[0::2] for exemplar in IDS]
    answers = judge(heard, *alike)
    assert set(answers) == {0.9, 0.1}
    assert 0.4 < answers.count(0.9) / len(answers) < 0.6
    assert answers == judge(heard, *alike)
    assert set(judge(heard, *unlike)) == {0.02}


COUNTED = {
    50: (1.60, 1.68),
    93: (1.49, 1.61),
    260: (1.41, 1.51),
    261: (1.38, 1.39),
    312: (1.32, 1.43),
    755: (1.15, 1.32),
    791: (1.16, 1.21),
    1995: (1.10, 1.11),
}
"""Images -> the fewest and the most calls per image of any wording, looks included, with nano (docs/models.md)."""


@pytest.mark.parametrize("images", COUNTED)
def test_what_was_counted_on_photographs_is_expected_to_within_15_percent(images: int) -> None:
    low, likely, high = expected_judgements(images, Settings())
    for calls_per_image in COUNTED[images]:
        assert abs((images + likely) / (images * calls_per_image) - 1) < 0.15
        assert images + low <= images * (calls_per_image + 0.005)  # counts are known to two decimals
        assert images * (calls_per_image - 0.005) <= images + high


@given(st.integers(1, 2_000_000))
def test_no_run_can_take_much_more_than_it_was_said_to(images: int) -> None:
    _, likely, high = expected_judgements(images, Settings())
    assert high == Settings().judgements_allowed(images)
    assert images + likely >= 0.85 * (images + high)


@pytest.mark.parametrize("images", [440, 725, 1_000, 3_000, 20_000, 1_000_000])
def test_nor_much_less_in_a_collection_that_is_not_small(images: int) -> None:
    low, likely, _ = expected_judgements(images, Settings())
    assert (images + likely) / (images + low) < 1.15


def test_who_asks_every_candidate_is_told_of_more_and_never_of_more_than_is_allowed() -> None:
    assert expected_judgements(1_000, Settings(audit_share=1.0))[1:] == (1_350, 16_000)
    assert expected_judgements(1_000, Settings(judgements_per_image=None))[1] == 180
    assert expected_judgements(1_000, Settings(judgements_per_image=0.1)) == (20, 100, 100)
    assert expected_judgements(0, Settings()) == (0, 0, 0)


def test_who_may_ask_about_several_at_once_takes_fewer_calls_but_not_as_few_as_could_be() -> None:
    assert judgements_per_call(1) == 1
    assert [judgements_per_call(k) for k in (2, 4, 8)] == [1.5, 2.0, 2.4]
