"""What a run says while it goes on: typed events, which progress bars, logs and web pages show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from manylens.types import _Record

Stage: TypeAlias = Literal["read", "look", "walk", "vocabulary", "check", "name", "teach", "tune"]


@dataclass(frozen=True, slots=True)
class StageStarted(_Record):
    """total: steps of this stage (images, candidates, ...), or None where it is not known beforehand."""

    stage: Stage
    interest: str
    total: int | None


@dataclass(frozen=True, slots=True)
class StageAdvanced(_Record):
    stage: Stage
    interest: str
    done: int
    total: int | None = None


@dataclass(frozen=True, slots=True)
class StageFinished(_Record):
    stage: Stage
    interest: str
    detail: str


@dataclass(frozen=True, slots=True)
class Foreseen(_Record):
    """Once the looks of an interest are in: how many calls it is likely to take beside them, at least and at most.

    Once before that, with no interest: all calls that are to be made, looks included, as they are expected from the
    number of images alone, before anything is sent; and once more, `measured`, after the first looks. Answers that the
    run folder holds are in neither. seconds: what is still to come will take, at least and at most, or None; usd: what
    these calls cost, and once measured the whole run, or None without prices."""

    interest: str
    low: int
    high: int
    seconds: tuple[float, float] | None = None
    usd: tuple[float, float] | None = None
    measured: bool = False


@dataclass(frozen=True, slots=True)
class Stopping(_Record):
    """The run was interrupted, and ends when so many calls that are under way are answered, or half a minute later."""

    calls: int


@dataclass(frozen=True, slots=True)
class Notice(_Record):
    """One line that a person should read now: a server is waited for, other results are replaced."""

    text: str


Event: TypeAlias = StageStarted | StageAdvanced | StageFinished | Foreseen | Stopping | Notice
