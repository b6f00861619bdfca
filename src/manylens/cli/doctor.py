"""What a model can do here and what to do about the rest: the table behind `manylens doctor`.

In: a model's name and options. Out: a `Diagnosis`: findings in words, each with what it means or the cure, and what one
look, one judgement, one choice and one naming of drawn playing cards took, by the account that runs keep. Promise: a
handful of small requests, nothing is stored, and no key is shown.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image as PillowImage

from manylens.cli.sample import pictures_of
from manylens.collection.decode import encode_jpeg
from manylens.errors import ModelError, ModelUnavailable
from manylens.models.base import (
    Capabilities,
    ChooseReply,
    ChooseRequest,
    CompleteReply,
    CompleteRequest,
    EmbedReply,
    EmbedRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    Model,
    ModelOptions,
    ModelWrapper,
    Option,
    Reply,
    Request,
    Usage,
    look_whole,
)
from manylens.models.metering import Account, Call, bound_of, working_for
from manylens.models.openai_compatible.model import OpenAICompatible
from manylens.models.prompts import WORD_PROBABILITY
from manylens.models.registry import close_model, load_model
from manylens.models.retrying import RetryingModel
from manylens.sync import run_until_done
from manylens.writing import DescribedGroup, NameClusters, Names

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
    """problem: why the model cannot be used, with the cure, or None where it can. judges: whether its trial choice was
    right."""

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
    account = Account()
    with account.probing():
        model = load_model(spec, _Cards(), None, options)
    findings = _of_server(model) if isinstance(model, OpenAICompatible) else []
    findings += _of_capabilities(model.capabilities)
    tried, problem, judges = run_until_done(_try(model, account, options))
    if model.capabilities.batch_size == 1:
        requests, tokens_in, tokens_out = account.spent
        findings_of_account = [Finding("this took", f"{requests:,} requests", _tokens(tokens_in, tokens_out))]
    else:
        findings_of_account = []
    return Diagnosis(spec, (*findings, *tried, *findings_of_account), problem, judges)


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


async def _try(model: Model, account: Account, options: ModelOptions) -> tuple[list[Finding], ModelError | None, bool]:
    """Looks at cards of one suit, two judgements, of which one should be yes and one no, a choice of two suits and, of
    a model that writes, the name of a group. Only where it cannot look, or is gone, can the model not be used."""
    known = model.capabilities
    patient = RetryingModel(model, timeout_s=options.timeout_s, seed=0) if known.batch_size == 1 else model
    metered = _Metered(patient, account)
    warm, *ids = [f"{SHOWN} {number}" for number in range(min(known.batch_size, _BATCH) + 1)]
    findings: list[Finding] = []
    judges = False
    try:
        _hoped(await look_whole(metered, [LookRequest(_INTEREST, warm)]))  # a first call may have to load the model
        began = time.monotonic()
        looks = _hoped(await look_whole(metered, [LookRequest(_INTEREST, image_id) for image_id in ids]))
        findings.append(_of_look(looks[0], (time.monotonic() - began) / len(ids), max(1, known.concurrency)))

        put = [JudgeRequest(_INTEREST, SHOWN, _definition(SHOWN), (warm,), f"{suit} 1") for suit in (SHOWN, OTHER)]
        began = time.monotonic()
        yes, no = [(await metered.judge([request]))[0] for request in put]
        findings.append(_of_judgements(yes, no, (time.monotonic() - began) / 2))

        # The right option comes last: a model that takes the first one whatever is shown is found out.
        suits = tuple(Option(suit, _definition(suit), (f"{suit} 2",)) for suit in (OTHER, SHOWN))
        began = time.monotonic()
        (choice,) = await metered.choose([ChooseRequest(_INTEREST, suits, f"{SHOWN} 1")])
        finding, judges = _of_choice(choice, suits, time.monotonic() - began)
        findings.append(finding)

        if known.writes_text:
            task = NameClusters(_INTEREST, (DescribedGroup(1, 9, ((SHOWN, 9),)),))
            began = time.monotonic()
            (named,) = await metered.complete([CompleteRequest(_INTEREST, task)])
            findings.append(_of_name(named, time.monotonic() - began))
    except ModelError as problem:
        return [*findings, Finding("a trial", "failed", str(problem))], problem, False
    finally:
        await close_model(model)
    return findings, None, judges


def _hoped(looks: Sequence[LookReply | ModelError]) -> Sequence[LookReply]:
    """Raises the ModelError of one that failed: a model that does not describe is of no use."""
    for look in looks:
        if isinstance(look, ModelError):
            raise look
    return [look for look in looks if isinstance(look, LookReply)]


_R = TypeVar("_R", bound=Request)


class _Metered(ModelWrapper):
    """A model with the account told of what is sent. Raises ModelUnavailable where it is gone."""

    def __init__(self, model: Model, account: Account) -> None:
        super().__init__(model)
        self._account = account

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        return await self._ask(self._model.look, requests)

    async def embed(self, requests: Sequence[EmbedRequest]) -> list[EmbedReply | ModelError]:
        return await self._ask(self._model.embed, requests)  # type: ignore[attr-defined]

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        return await self._ask(self._model.judge, requests)

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        return await self._ask(self._model.choose, requests)

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        return await self._ask(self._model.complete, requests)

    async def _ask(self, verb: Callable[[Sequence[_R]], Awaitable[Any]], requests: Sequence[_R]) -> list[Any]:
        counts = self.capabilities.counts_requests
        calls = [Call(self._account, "", bound_of(self._model, request)) for request in requests]
        replies: Sequence[Reply | ModelError]
        with working_for(calls[0]):
            try:
                for call in () if counts else calls:
                    call.send(save=False)
                replies = await verb(requests)
            except ModelError as error:
                replies = [error] * len(requests)
        for call, reply in zip(calls, replies, strict=True):
            usage = None if isinstance(reply, ModelError) else reply.usage
            if not counts:
                call.took(usage)
            call.end(usage, answered=False)
        for reply in replies:
            if isinstance(reply, ModelUnavailable):
                raise reply
        return list(replies)


def _of_look(look: LookReply, seconds: float, side_by_side: int) -> Finding:
    minutes = 1000 * seconds / side_by_side / 60
    return Finding(
        "one look",
        f'{seconds:.2f} s{_cost(look.usage)}: "{look.description}", confidence {look.confidence:.2f}',
        f"the card shows {SHOWN}; 1,000 pictures take about {minutes:.1f} minutes, {side_by_side} at once",
    )


def _of_judgements(yes: JudgeReply | ModelError, no: JudgeReply | ModelError, seconds: float) -> Finding:
    for reply in (yes, no):
        if isinstance(reply, ModelError):
            return Finding("one judgement", "failed", f"{reply}. Only tuning needs judgements")
    assert isinstance(yes, JudgeReply) and isinstance(no, JudgeReply)
    right = yes.probability > 0.5 > no.probability
    return Finding(
        "one judgement",
        f"{seconds:.2f} s{_cost(yes.usage)}: {yes.probability:.2f} and {no.probability:.2f}",
        "a card that belongs and one that does not"
        if right
        else "the first card belongs and the second does not: its judgements are of little use for tuning",
    )


def _of_choice(choice: ChooseReply | ModelError, options: Sequence[Option], seconds: float) -> tuple[Finding, bool]:
    """And whether it was right."""
    if isinstance(choice, ModelError):
        return Finding("one choice", "failed", str(choice)), False
    right = choice.chosen == 1
    finding = Finding(
        "one choice",
        f"{seconds:.2f} s{_cost(choice.usage)}: {_chosen(choice, options)}",
        f"a card of {SHOWN}, by {OTHER}, {SHOWN} or neither"
        if right
        else f"the card shows {SHOWN}: its choices on such pictures are of little use",
    )
    return finding, right


def _of_name(named: CompleteReply | ModelError, seconds: float) -> Finding:
    if isinstance(named, ModelError):
        return Finding("one name", "failed", f"{named}. Names will be the most frequent descriptions")
    name = named.written.clusters[0].name if isinstance(named.written, Names) and named.written.clusters else ""
    return Finding("one name", f'{seconds:.2f} s{_cost(named.usage)}: "{name[:60]}"', f"of nine cards of {SHOWN}")


def _chosen(choice: ChooseReply, options: Sequence[Option]) -> str:
    name = "neither" if choice.chosen is None else f'"{options[choice.chosen].name}"'
    return f"{name}, with probability {max(choice.probabilities):.2f}"


def _definition(suit: str) -> str:
    return f'Images described as "{suit}" when looked at for "{_INTEREST}".'


def _cost(usage: Usage | None) -> str:
    return "" if usage is None else f", {_tokens(usage.tokens_in, usage.tokens_out)}"


def _tokens(tokens_in: int, tokens_out: int) -> str:
    return f"{tokens_in:,} tokens in, {tokens_out:,} out"
