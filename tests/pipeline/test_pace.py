"""Forecasts in time and money: by what calls took, in words that promise no more than is known."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from manylens.events import Event, Foreseen, Notice, StageAdvanced, StageStarted
from manylens.models.base import ModelOptions
from manylens.models.registry import is_nano
from manylens.pipeline import pace
from manylens.pipeline.pace import Forecaster, earlier_pace, nano_pace, served_pace
from manylens.pipeline.plan import known_pace
from manylens.progress import _line_of
from manylens.settings import Settings
from manylens.store.answers import StoredAnswer, StoredReply
from manylens.store.peek import Took, peek_pace
from manylens.store.run_folder import RunFolder
from manylens.text import spoken_dollars, spoken_seconds


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.5, "a moment"),
        (6, 6.4, "about 6 seconds"),
        (2, 9, "2 to 9 seconds"),
        (61, 98, "60 to 100 seconds"),
        (100, 119, "about 2 minutes"),
        (60, 60 * 30, "1 to 30 minutes"),
        (3600 * 1.9, 3600 * 2.2, "about 2 hours"),
        (3600 * 900, 3600 * 1010, "900 to 1,000 hours"),
    ],
)
def test_times_are_said_as_exactly_as_they_are_known(low: float, high: float, said: str) -> None:
    assert spoken_seconds(low, high) == said


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.4, 0.6, "$0.40 to $0.60"),
        (0.4, 0.401, "about $0.40"),
        (0.0, 0.004, "less than a cent"),
        (0, 1200, "$0.00 to $1,200.00"),
    ],
)
def test_money_is_said_in_cents(low: float, high: float, said: str) -> None:
    assert spoken_dollars(low, high) == said


def test_nano_sees_a_picture_once_for_all_interests() -> None:
    one, four = nano_pace(1), nano_pace(4)
    assert four.picture_s < 1.5 * one.picture_s
    assert served_pace(4, 8).picture_s == 4 * served_pace(1, 8).picture_s
    assert earlier_pace(Took(3.0, None), None, 2, 4).seconds(10, (0, 4)) == (15.0, 18.0)


def test_a_served_model_that_is_called_nano_has_a_server_s_pace() -> None:
    served = ModelOptions(base_url="http://localhost:1/v1", concurrency=8)
    assert known_pace("nano", served, 2) == known_pace("qwen", served, 2)
    assert known_pace("nano", ModelOptions(), 2) != known_pace("nano", served, 2)
    assert is_nano("nano:weights", ModelOptions()) and not is_nano("nano", served)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: self.now))


def forecaster(said: list[Event], model: Any, **more: Any) -> Forecaster:
    given: dict[str, Any] = {"looks": 2000, "interests": 2, "beside": (100, 500), "pace": None, "usd_of": None}
    return Forecaster(said.append, model, Settings(), **(given | more))


def model(name: str = "qwen") -> Any:
    return SimpleNamespace(name=name, identity=f"{name}:1", asked=Counter(), account=SimpleNamespace(usd=0.0))


def test_the_first_looks_are_the_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said, asked = Clock(monkeypatch), list[Event](), model()
    follow = forecaster(said, asked, usd_of=lambda looks, questions: looks * 0.001 + questions * 0.002)
    follow.begin()
    assert said == [Foreseen("", 2100, 2500, None, (2.2, 3.0))]
    for interest in ("place", "mood"):
        follow(StageStarted("look", interest, 1000))
    clock.now, asked.asked["look"], asked.account.usd = 50.0, 200, 0.4  # twice as dear as supposed
    for interest in ("place", "mood"):
        follow(StageAdvanced("look", interest, 100, 1000))
    (measured,) = [event for event in said[1:] if isinstance(event, Foreseen)]
    assert measured.seconds == pytest.approx((900 * 0.5 + 100 * 0.25, 900 * 0.5 + 500 * 0.25))
    assert measured.usd == pytest.approx((0.4 + 2 * (1800 * 0.001 + 0.2), 0.4 + 2 * (1800 * 0.001 + 1.0)))
    assert _line_of(measured) == "By the first pictures: 8 to 10 minutes more, $4.40 to $6.00 in all."
    clock.now, asked.asked["look"] = 90.0, 400
    follow(StageAdvanced("look", "place", 200, 1000))
    assert sum(isinstance(event, Foreseen) for event in said) == 2, "said once"
    follow(Foreseen("place", 10, 20))
    assert said[-1] == Foreseen("place", 10, 20, (2.5, 5.0))


def test_loading_weights_is_no_measure_and_what_was_there_already_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said, asked = Clock(monkeypatch), list[Event](), model("nano")
    follow = forecaster(said, asked, interests=1, looks=936)
    follow(StageStarted("look", "place", 1000))
    clock.now = 0.5
    follow(StageAdvanced("look", "place", 64, 1000))  # all from the store
    clock.now, asked.asked["look"] = 2.5, 64
    follow(StageAdvanced("look", "place", 128, 1000))
    (measured,) = [event for event in said if isinstance(event, Foreseen)]
    assert measured.seconds is not None
    assert measured.seconds[0] == pytest.approx(872 * 2 / 64 + 100 * 2 / 64 * pace.NANO_MORE)


def test_other_events_pass_through() -> None:
    said: list[Event] = []
    forecaster(said, model())(Notice("hello"))
    assert said == [Notice("hello")]


def test_an_earlier_run_tells_how_long_calls_take(tmp_path: Path) -> None:
    assert peek_pace(tmp_path / "none", "http://a m") is None
    with RunFolder.open(tmp_path / "run") as run:
        look = {"description": "red", "confidence": 1.0}
        vector = np.array([1.0], np.float16)
        answers = []
        for n, (identity, seconds) in enumerate([("http://a m", 2.0), ("http://a m e", 4.0), ("http://a mini", 99.0)]):
            reply = StoredReply("look", look, vector, (100 * int(seconds) - 100, 10))
            answers.append(StoredAnswer(f"{n}", "color", "i", identity, "r", reply, seconds))
        run.put_answers(answers)
    assert peek_pace(tmp_path / "run", "http://a m") == (Took(3.0, (200.0, 10.0)), None)
    assert peek_pace(tmp_path / "run", "nano:") is None
