"""What a run would take, before it begins: images, calls, tokens, money and minutes, as ranges.

In: a collection, interests, the name of a model. Out: a `Plan`. Promise: asks and writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from manylens.collection.decode import THUMBNAIL_PX
from manylens.collection.find import Collection
from manylens.models.base import ModelOptions
from manylens.models.huggingface.model import HF_PREFIX
from manylens.models.registry import is_local
from manylens.pipeline.forecast import calls_before_looks
from manylens.settings import Settings
from manylens.types import Interest, Unreadable

NANO_LOOKS_PER_SECOND = 40
"""What nano does on two busy cores; 80 were measured on two idle ones (docs/explanation/nano.md)."""

SECONDS_PER_SERVER_CALL = 2.0
PIXELS_PER_TOKEN = 750
LOOK_TOKENS = (450, 40)
CHOICE_TOKENS = (700, 20)
CHOICE_EXEMPLARS = 8
"""What `plan` supposes of a model behind a server, of which it may ask nothing: seconds a call, the pixels of an image
that make one token, tokens of text (in, out), and pictures of 256 px that a choice shows beside its candidate."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would take; nothing was asked to find out.

    images: distinct ones, each looked at once per interest. looks: over all interests, within the budget in calls.
    beside: calls beside the looks, (at least, at most). tokens: ((in, out) at least, at most), None for a model in this
    process; usd: their cost, (at least, at most), None without prices. minutes: (at least, at most), on two cores where
    the model runs here.
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

    @property
    def calls(self) -> tuple[int, int]:
        """All calls, (at least, at most)."""
        return self.looks + self.beside[0], self.looks + self.beside[1]


def plan_run(
    collection: Collection, interests: Sequence[Interest], model: str, options: ModelOptions, settings: Settings
) -> Plan:
    here = is_local(model, options)
    most = math.inf if settings.budget_calls is None else settings.budget_calls
    looks = int(min(len(collection.images) * len(interests), most))
    writes = not here or model.startswith(HF_PREFIX)
    each = calls_before_looks(len(collection.images), settings.effort, writes)
    beside = (int(min(each[0] * len(interests), most - looks)), int(min(each[1] * len(interests), most - looks)))
    side_by_side = 1 if here else options.concurrency
    seconds = (1 / NANO_LOOKS_PER_SECOND if here else SECONDS_PER_SERVER_CALL) / side_by_side
    tokens = None if here else tuple(_plan_tokens(looks, count, options.image_px) for count in beside)
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
        if here and not model.startswith("nano")
        else tuple((looks + count) * seconds / 60 for count in beside),  # type: ignore[arg-type]
    )


def _plan_tokens(looks: int, choices: int, image_px: int) -> tuple[int, int]:
    picture, small = (math.ceil(side_px**2 / PIXELS_PER_TOKEN) for side_px in (image_px, min(image_px, THUMBNAIL_PX)))
    into = looks * (LOOK_TOKENS[0] + picture) + choices * (CHOICE_TOKENS[0] + (1 + CHOICE_EXEMPLARS) * small)
    return into, looks * LOOK_TOKENS[1] + choices * CHOICE_TOKENS[1]
