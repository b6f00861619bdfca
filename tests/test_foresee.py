"""foresee: a judge who answers in kind."""

from __future__ import annotations

import asyncio

import numpy as np

from manylens.evidence import Looks
from manylens.foresee import SupposedJudge
from manylens.models.base import JudgeReply, JudgeRequest
from manylens.models.scripted import ScriptedModel
from manylens.records import Interest

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
