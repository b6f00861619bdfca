"""What a model can do here and what to do about the rest: the table behind `manylens doctor`.

In: a model's name and options. Out: a `Diagnosis`: findings in words, each with what it means or the cure, and what one
look, one judgement and one choice of drawn playing cards took. Promise: a handful of small requests, nothing is stored,
and no key is shown.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image as PillowImage

from manylens.cli.sample import pictures_of
from manylens.collection.decode import encode_jpeg
from manylens.errors import ModelError
from manylens.models.base import (
    Capabilities,
    ChooseReply,
    ChooseRequest,
    JudgeRequest,
    LookRequest,
    Model,
    ModelOptions,
    Option,
    Usage,
    look_whole,
)
from manylens.models.openai_compatible.model import OpenAICompatible
from manylens.models.prompts import WORD_PROBABILITY
from manylens.models.registry import close_model, load_model
from manylens.sync import run_until_done

SHOWN, OTHER = "hearts", "spades"
_INTEREST = "suit"
_BATCH = 8
"""Looks that are timed together where the model takes many at once."""


@dataclass(frozen=True, slots=True)
class Finding:
    """what: the thing looked at. found: how it is here. meaning: what follows from it, or the cure; may be empty."""

    what: str
    found: str
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """problem: why the model cannot be used, with the cure, or None where it can. judges: whether its two trial
    choice was right."""

    model: str
    findings: tuple[Finding, ...]
    problem: ModelError | None = None
    judges: bool = False


class _Cards:
    """An `ImageSource` of drawn cards, named `<suit> <number>`."""

    def __init__(self) -> None:
        self._drawn = {
            f"{suit} {number}": picture
            for suit in (SHOWN, OTHER)
            for number, picture in enumerate(pictures_of(suit, _BATCH + 1))
        }

    def thumbnail(self, image_id: str) -> PillowImage.Image:
        return self._drawn[image_id].copy()

    def jpeg(self, image_id: str, longest_side_px: int, quality: int = 90) -> bytes:
        picture = self.thumbnail(image_id)
        picture.thumbnail((longest_side_px, longest_side_px), PillowImage.Resampling.BICUBIC)
        return encode_jpeg(picture, quality=quality)


def examine(spec: str, options: ModelOptions | None = None) -> Diagnosis:
    """Find out what the model can do. Raises UsageError for a name that stands for none, ModelUnavailable where it
    cannot even be asked."""
    options = options or ModelOptions()
    model = load_model(spec, _Cards(), None, options)
    findings = _of_server(model) if isinstance(model, OpenAICompatible) else []
    findings += _of_capabilities(model.capabilities)
    tried, problem, judges = run_until_done(_try(model))
    return Diagnosis(spec, (*findings, *tried), problem, judges)


def _of_server(model: OpenAICompatible) -> list[Finding]:
    dialect = model.dialect
    key = f"from {model.key_name}" if model.key_name else "none is set"
    structured = {
        "json_schema": ("by a schema", "answers always have the form that is needed"),
        "json_object": ("as some JSON", "an answer of the wrong form is asked to be mended once"),
        "none": ("where the model writes it by itself", "an answer of the wrong form is asked to be mended once"),
    }[dialect.structured]
    if dialect.words != "json":
        structured = ("no", "descriptions without confidence and names from descriptions: use a larger model for both")
    embeddings = {
        "messages": ("of the picture under the interest", "the best that a server offers"),
        "text": (
            f"of the description, by {dialect.embedding_model}",
            f"likeness is weighed as sigmoid({dialect.edge_scale:g} x cosine {dialect.edge_offset:+g})",
        ),
        "local": (
            f"of the description, here, by {dialect.embedding_model}",
            "it reads English: for descriptions in another language name one with --embedding-model",
        ),
    }[dialect.embeddings]
    if dialect.logprobs:
        certainty = "a choice is one letter, its certainty is read from the model"
    elif dialect.words == "json":
        certainty = "the model is asked how sure it is, which says less"
    else:
        certainty = f"a choice counts as {WORD_PROBABILITY:g}, however sure the model is"
    findings = [
        Finding("server", model.url, ""),
        Finding("key", key, "" if model.key_name else "this server asked for none"),
        Finding("answers in JSON", *structured),
        Finding(
            "log-probabilities",
            "yes" if dialect.logprobs else "no",
            certainty,
        ),
        Finding("embeddings", *embeddings),
    ]
    if dialect.thinks:
        findings.append(Finding("thinks first", "yes", "slow and dear: turn thinking off at the server if you can"))
    return findings


def _of_capabilities(known: Capabilities) -> list[Finding]:
    return [
        Finding(
            "pictures",
            "several at once" if known.sees_exemplars else "one at a time",
            "a choice shows a picture of each cluster"
            if known.sees_exemplars
            else "a choice goes by the clusters' words",
        ),
        Finding(
            "names",
            "in its own words" if known.writes_text else "from the descriptions",
            "" if known.writes_text else "it writes no text beside descriptions",
        ),
    ]


async def _try(model: Model) -> tuple[list[Finding], ModelError | None, bool]:
    """Looks at cards of one suit, two judgements, of which one should be yes and one no, and a choice of two suits."""
    known = model.capabilities
    warm, *ids = [f"{SHOWN} {number}" for number in range(min(known.batch_size, _BATCH) + 1)]
    try:
        await look_whole(model, [LookRequest(_INTEREST, warm)])  # a first call may have to load the model
        began = time.monotonic()
        looks = await look_whole(model, [LookRequest(_INTEREST, image_id) for image_id in ids])
        look_s = (time.monotonic() - began) / len(ids)
        look = looks[0]
        asked = [JudgeRequest(_INTEREST, SHOWN, _definition(SHOWN), (warm,), f"{suit} 1") for suit in (SHOWN, OTHER)]
        began = time.monotonic()
        yes, no = [(await model.judge([request]))[0] for request in asked]
        judge_s = (time.monotonic() - began) / 2
        # The right option comes last: a model that takes the first one whatever is shown is found out.
        options = tuple(Option(suit, _definition(suit), (f"{suit} 2",)) for suit in (OTHER, SHOWN))
        began = time.monotonic()
        (choice,) = await model.choose([ChooseRequest(_INTEREST, options, f"{SHOWN} 1")])
        choose_s = time.monotonic() - began
    finally:
        await close_model(model)
    for reply in (look, yes, no, choice):
        if isinstance(reply, ModelError):
            return [Finding("a trial", "failed", str(reply))], reply, False
    assert not isinstance(look, ModelError) and not isinstance(yes, ModelError)
    assert not isinstance(no, ModelError) and not isinstance(choice, ModelError)
    side_by_side = max(1, known.concurrency)
    minutes = 1000 * look_s / side_by_side / 60
    right = yes.probability > 0.5 > no.probability
    findings = [
        Finding(
            "one look",
            f'{look_s:.2f} s{_cost(look.usage)}: "{look.description}", confidence {look.confidence:.2f}',
            f"the card shows {SHOWN}; 1,000 pictures take about {minutes:.1f} minutes, {side_by_side} at once",
        ),
        Finding(
            "one judgement",
            f"{judge_s:.2f} s{_cost(yes.usage)}: {yes.probability:.2f} and {no.probability:.2f}",
            "a card that belongs and one that does not"
            if right
            else "the first card belongs and the second does not: its judgements are of little use for tuning",
        ),
        Finding(
            "one choice",
            f"{choose_s:.2f} s{_cost(choice.usage)}: {_chosen(choice, options)}",
            f"a card of {SHOWN}, by {OTHER}, {SHOWN} or neither"
            if choice.chosen == 1
            else f"the card shows {SHOWN}: its choices on such pictures are of little use",
        ),
    ]
    return findings, None, choice.chosen == 1


def _chosen(choice: ChooseReply, options: Sequence[Option]) -> str:
    name = "neither" if choice.chosen is None else f'"{options[choice.chosen].name}"'
    return f"{name}, with probability {max(choice.probabilities):.2f}"


def _definition(suit: str) -> str:
    return f'Images described as "{suit}" when looked at for "{_INTEREST}".'


def _cost(usage: Usage | None) -> str:
    return "" if usage is None else f", {usage.tokens_in:,} tokens in, {usage.tokens_out:,} out"
