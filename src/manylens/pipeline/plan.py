"""What a run would take, before it begins: images, calls, tokens, money and minutes, as ranges.

In: a collection, interests, the name of a model, a run folder. Out: a `Plan`. Promise: asks and writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from manylens.collection.decode import THUMBNAIL_PX
from manylens.collection.find import Collection as Pictures
from manylens.models.base import ModelOptions
from manylens.models.huggingface.model import HF_PREFIX
from manylens.models.registry import NANO_PREFIX, identity_start, is_local, is_nano
from manylens.pipeline.forecast import calls_before_looks
from manylens.pipeline.pace import Pace, Source, earlier_pace, nano_pace, served_pace
from manylens.settings import Settings
from manylens.store.peek import Held, peek_held, peek_pace
from manylens.types import Interest, Unreadable

NOTHING = Held()
PIXELS_PER_TOKEN = 750
LOOK_TOKENS = (450, 40)
CHOICE_TOKENS = (700, 20)
CHOICE_EXEMPLARS = 8
"""What `plan` supposes of a model behind a server, of which it may ask nothing: the pixels of an image that make one
token, tokens of text (in, out), and pictures of 256 px that a choice shows beside its candidate."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would take; nothing was asked to find out.

    images: distinct ones, each looked at once per interest. looks: over all interests, within the budget in calls.
    beside: calls beside the looks, (at least, at most). held: answers that are there already; what else is said here
    is of those that are not. tokens: ((in, out) at least, at most), None for a model in this
    process; usd: their cost, (at least, at most), None without prices. minutes: (at least, at most), None where nothing
    is known; pace: where they are known from. doubts: why the model may not read an interest, in sentences.
    """

    files_found: int
    unreadable: tuple[Unreadable, ...]
    images: int
    interests: tuple[str, ...]
    model: str
    looks: int
    beside: tuple[int, int]
    tokens: tuple[tuple[int, int], tuple[int, int]] | None
    usd: tuple[float, float] | None
    minutes: tuple[float, float] | None
    pace: Source = "supposed"
    doubts: tuple[str, ...] = ()
    held: int = 0

    @property
    def calls(self) -> tuple[int, int]:
        """Those to come, (at least, at most)."""
        return self.looks + self.beside[0], self.looks + self.beside[1]

    @property
    def calls_in_all(self) -> tuple[int, int]:
        """With the answers that are there."""
        return self.held + self.calls[0], self.held + self.calls[1]


def plan_run(
    collection: Pictures,
    interests: Sequence[Interest],
    model: str,
    options: ModelOptions,
    settings: Settings,
    pace: Pace | None = None,
    read_s: float = 0.0,
    doubts: Sequence[str] = (),
    held: Held = NOTHING,
) -> Plan:
    """pace: as measured, where it is. read_s: seconds that reading the pictures takes beside. held: by a run folder."""
    here = is_local(model, options)
    most = math.inf if settings.budget_calls is None else settings.budget_calls
    looks = int(min(len(collection.images) * len(interests), most))
    writes = not here or model.startswith(HF_PREFIX)
    repeats = is_nano(model, options)  # its looks, so it is asked of given names only, and of those where it must be
    each = calls_before_looks(len(collection.images), settings.effort, writes, not repeats or bool(settings.into))
    each = (0, each[1]) if repeats else each
    low, high = (int(min(count * len(interests), most - looks)) for count in each)
    if held.is_finished:
        low = high = 0
    looks, beside = max(0, looks - held.looks), (max(0, low - held.questions), max(0, high - held.questions))
    speed = pace or known_pace(model, options, len(interests))
    tokens = None if here else tuple(_plan_tokens(looks, count, options.image_px, speed) for count in beside)
    return Plan(
        files_found=collection.files_found,
        unreadable=collection.unreadable,
        images=len(collection.images),
        interests=tuple(interest.text for interest in interests),
        model=model,
        looks=looks,
        beside=beside,
        tokens=tokens,  # type: ignore[arg-type]  # two of them
        usd=tuple(settings.cost_usd(*count) for count in tokens)  # type: ignore[arg-type]
        if tokens is not None and settings.is_priced
        else None,
        minutes=None
        if speed is None
        else tuple((read_s + seconds) / 60 for seconds in speed.seconds(looks / max(1, len(interests)), beside)),  # type: ignore[arg-type]
        pace="supposed" if speed is None else speed.source,
        doubts=tuple(doubts),
        held=held.answers,
    )


def known_pace(model: str, options: ModelOptions, interests: int) -> Pace | None:
    """What is supposed of a model that was not measured; nothing of a checkpoint or a model of somebody's own here."""
    if is_local(model, options):
        return nano_pace(interests) if is_nano(model, options) else None
    return served_pace(interests, options.concurrency)


def earlier(out: Path, model: str, options: ModelOptions, interests: int) -> Pace | None:
    """What calls of a named model took in the run at `out`; of nano it says little, which keeps what it saw."""
    known = None if is_nano(model, options) else peek_pace(out, identity_start(model, options))
    side_by_side = 1 if is_local(model, options) else options.concurrency
    return None if known is None else earlier_pace(*known, interests, side_by_side)


def held_by(
    out: Path,
    identity: str,
    options: ModelOptions,
    interests: Sequence[Interest],
    image_ids: Collection[str],
    settings: Settings,
) -> Held:
    """Answers that the run at `out` need not ask for. identity: of the model, or as `identity_start` gives it."""
    size = None if identity.startswith(NANO_PREFIX) else options.image_px  # nano sees every picture in one size
    return peek_held(out, identity, interests, image_ids, settings, size)


def usd_of(settings: Settings, options: ModelOptions, pace: Pace | None, looks: int, questions: int) -> float:
    """What so many calls of a model behind a server are expected to cost."""
    return settings.cost_usd(*_plan_tokens(looks, questions, options.image_px, pace))


def _plan_tokens(looks: int, choices: int, image_px: int, pace: Pace | None) -> tuple[int, int]:
    """In and out: as an earlier run took them, else as they are supposed. Questions of which nothing is known are as
    much dearer or cheaper than supposed as the looks proved to be."""
    picture, small = (math.ceil(side_px**2 / PIXELS_PER_TOKEN) for side_px in (image_px, min(image_px, THUMBNAIL_PX)))
    look: tuple[float, float] = (LOOK_TOKENS[0] + picture, LOOK_TOKENS[1])
    choice: tuple[float, float] = (CHOICE_TOKENS[0] + (1 + CHOICE_EXEMPLARS) * small, CHOICE_TOKENS[1])
    if pace is not None and pace.look_tokens is not None:
        times = [took / max(1.0, supposed) for took, supposed in zip(pace.look_tokens, look, strict=True)]
        look, choice = pace.look_tokens, pace.question_tokens or (choice[0] * times[0], choice[1] * times[1])
    return round(looks * look[0] + choices * choice[0]), round(looks * look[1] + choices * choice[1])
