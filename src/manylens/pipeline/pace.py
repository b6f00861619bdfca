"""How fast a model answers on this machine, and what that makes of a forecast in calls.

In: timed looks of now or of an earlier run; a plan. Out: a `Pace`; events that say how long a run will take and what it
will cost, first as a guess and, once a few pictures were described, as measured. Promise: nothing is asked for the sake
of a forecast: what is timed is work that the run does anyway (`calibrate`, of a dry run, apart).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from manylens.events import Event, Foreseen, StageAdvanced, StageStarted
from manylens.models.base import LookRequest, Model
from manylens.models.caching import CachingModel
from manylens.models.registry import NANO_PREFIX
from manylens.settings import Settings
from manylens.store.peek import Took
from manylens.types import Interest

Source: TypeAlias = Literal["measured", "earlier", "supposed"]

NANO_PICTURE_S = 1 / 40
"""What nano takes to see a picture on two cores that others use too, until it is measured."""

NANO_MORE = 0.06
"""Of that, each further look at it and each question: what was seen is kept."""

SERVER_CALL_S = 2.0
"""Supposed of a model behind a server, of which a dry run may ask nothing."""

CALIBRATED_ON, _WARM_UP = 24, 8
"""Pictures that are looked at to measure a model in this process; the first of them load its weights."""

ENOUGH_S = 5.0
"""A first batch of looks that took longer is taken for the pace as it is; of a shorter one loading the weights may be
most, so the next one counts."""


@dataclass(frozen=True, slots=True)
class Pace:
    """picture_s: seconds for all looks of one picture, with as many calls under way as may be. question_s: for each
    other call. source: where that is known from. look_tokens, question_tokens: (in, out) of a call, None where nothing
    is known of them."""

    picture_s: float
    question_s: float
    source: Source
    look_tokens: tuple[float, float] | None = None
    question_tokens: tuple[float, float] | None = None

    def seconds(self, pictures: float, questions: tuple[float, float]) -> tuple[float, float]:
        looks = pictures * self.picture_s
        return looks + questions[0] * self.question_s, looks + questions[1] * self.question_s


def nano_pace(interests: int) -> Pace:
    return Pace(NANO_PICTURE_S * (1 + NANO_MORE * (interests - 1)), NANO_PICTURE_S * NANO_MORE, "supposed")


def served_pace(interests: int, side_by_side: int) -> Pace:
    """side_by_side: calls under way at once."""
    return Pace(interests * SERVER_CALL_S / side_by_side, SERVER_CALL_S / side_by_side, "supposed")


def earlier_pace(looks: Took, questions: Took | None, interests: int, side_by_side: int) -> Pace:
    """From what calls took in an earlier run, on average; questions as looks, where there were none."""
    asked = questions or looks
    seconds = interests * looks.seconds / side_by_side, asked.seconds / side_by_side
    return Pace(*seconds, "earlier", looks.tokens, None if questions is None else questions.tokens)


async def calibrate(model: Model, image_ids: Sequence[str], interests: Sequence[Interest]) -> Pace | None:
    """Time a model in this process on some pictures, which it has not seen yet; None of fewer than it takes."""
    ids = list(image_ids)[:CALIBRATED_ON]
    warm, timed = ids[:_WARM_UP], ids[_WARM_UP:]
    if len(timed) < _WARM_UP:
        return None
    await model.look([LookRequest(interests[0].text, image_id) for image_id in warm])
    began = time.monotonic()
    await model.look([LookRequest(interest.text, i) for i in timed for interest in interests])
    looked = time.monotonic()
    await model.look([LookRequest(f"what is the {interests[0].text}?", image_id) for image_id in timed])
    again = time.monotonic()
    return Pace((looked - began) / len(timed), (again - looked) / len(timed), "measured")


class Forecaster:
    """Passes events on, and says once a few pictures were described how long the run will take and what it will cost.

    looks: to be asked, over all interests; beside: further calls, at least and at most; answers that are there already
    are in neither. usd_of: (looks, questions) -> what they are supposed to cost at the prices of the settings, or None.
    """

    def __init__(
        self,
        emit: Callable[[Event], None],
        model: CachingModel,
        settings: Settings,
        *,
        looks: int,
        interests: int,
        beside: tuple[int, int],
        pace: Pace | None,
        usd_of: Callable[[int, int], float] | None,
    ) -> None:
        self._emit, self._model, self._settings = emit, model, settings
        self._looks, self._interests, self._beside = looks, max(1, interests), beside
        self._pace, self._usd_of = pace, usd_of
        self._is_said = False
        self._marks: list[tuple[float, int, int]] = []
        """(when, pictures looked at, looks asked) at the beginning and after each batch."""
        self._usd_before = 0.0

    def begin(self) -> None:
        """Say what is expected before anything is sent."""
        seconds = None if self._pace is None else self._pace.seconds(self._looks / self._interests, self._beside)
        self._emit(Foreseen("", *self._calls, seconds, self._usd(self._looks, 1.0)))

    def __call__(self, event: Event) -> None:
        if isinstance(event, Foreseen) and event.interest and self._pace is not None:
            calls = (event.low, event.high)
            self._emit(replace(event, seconds=self._pace.seconds(0, calls)))
            return
        self._emit(event)
        if isinstance(event, StageStarted) and event.stage == "look" and not self._marks:
            self._usd_before = self._model.account.usd
            self._marks.append((time.monotonic(), 0, self._asked))
        if isinstance(event, StageAdvanced) and event.stage == "look" and not self._is_said and self._marks:
            self._measure(event.done)

    @property
    def _calls(self) -> tuple[int, int]:
        return self._looks + self._beside[0], self._looks + self._beside[1]

    @property
    def _asked(self) -> int:
        return self._model.asked["look"]

    def _measure(self, done: int) -> None:
        if done <= self._marks[-1][1]:
            return  # the same batch, of another interest
        self._marks.append((time.monotonic(), done, self._asked))
        (began, _, before), (now, _, asked) = self._marks[-2:]
        is_first = len(self._marks) == 2
        if asked == before or (is_first and now - began < ENOUGH_S):
            return
        picture_s = (now - began) * self._interests / (asked - before)
        self._pace = Pace(picture_s, self._question_s(picture_s), "measured")
        self._is_said = True
        left = self._looks - asked
        if left <= 0:
            return
        seconds = self._pace.seconds(left / self._interests, self._beside)
        self._emit(Foreseen("", *self._calls, seconds, self._measured_usd(left), measured=True))

    def _question_s(self, picture_s: float) -> float:
        if self._model.identity.startswith(NANO_PREFIX):
            return picture_s / (1 + NANO_MORE * (self._interests - 1)) * NANO_MORE
        return picture_s / self._interests

    def _usd(self, looks: int, times: float) -> tuple[float, float] | None:
        if self._usd_of is None:
            return None
        low, high = (times * self._usd_of(looks, count) for count in self._beside)
        return low, high

    def _measured_usd(self, left: int) -> tuple[float, float] | None:
        """With questions as much dearer or cheaper than supposed as the looks proved to be."""
        looks = self._asked
        if self._usd_of is None or not looks:
            return None
        supposed = self._usd_of(looks, 0)
        times = (self._model.account.usd - self._usd_before) / supposed if supposed else 1.0
        more = self._usd(left, times)
        spent = self._model.account.usd
        return None if more is None else (spent + more[0], spent + more[1])
