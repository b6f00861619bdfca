"""What every model gets around it: recording.

In: a model and a run. Out: the same model, whose answers are taken from the run where it has them and are on the disk
before anyone uses them otherwise. Promises: no request is sent twice, not even by two tasks at once; a fresh and a
resumed run see the same numbers, because both see the stored form; a failed call is recorded, and asked again by the
next run, unless it was given up (`GivenUp`); a model that is gone (`ModelUnavailable`) ends the run at once. A run that
is cancelled (Ctrl-C) waits for the calls of a server that are under way, because they are paid for; cancelled again, it
does not, and loses at most those, as a kill does.

A call holds `batch_size` requests, and `concurrency` calls are under way side by side: one batch after another for a
model in this process, a batch for each replica of the engine ray, single requests for a server (`batch_size` 1).
Retries and pacing (`retrying`) go between `CachingModel` and the server: they see only what must be asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeAlias, TypeVar, cast

import numpy as np

from manylens.errors import BudgetSpent, GivenUp, ModelError, ModelReplyInvalid, ModelUnavailable, public_reason
from manylens.models.base import (
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
    ModelWrapper,
    Reply,
    Request,
    Usage,
    Vector,
    rendering,
    request_key,
    request_kind,
)
from manylens.models.metering import Account, Bound, Call, bound_of, usable_count, working_for
from manylens.store.answers import SHARES_TOLERANCE, UNIT_LENGTH_TOLERANCE, Failure, StoredAnswer, StoredReply
from manylens.store.run_folder import RunFolder
from manylens.writing import written_from_json, written_to_json

DECIMALS = 6
"""Probabilities and confidences are rounded to this many decimals."""

LAST_ANSWERS_S = 30.0
"""How long calls under way may take to end when the model turns out to be unusable, or the run is cancelled."""

_Request = TypeVar("_Request", LookRequest, EmbedRequest, JudgeRequest, ChooseRequest, CompleteRequest)
_Reply = TypeVar("_Reply", LookReply, EmbedReply, JudgeReply, ChooseReply, CompleteReply)
_Ask: TypeAlias = Callable[[Sequence[_Request]], Awaitable[Sequence[Reply | ModelError]]]
_Arrived: TypeAlias = tuple[str, Reply | ModelError, float, Call]
"""A key, what came of its request, how many seconds the call took, and what it sent."""

_Keep: TypeAlias = Callable[[Sequence[_Arrived]], None]


def to_stored(reply: Reply) -> StoredReply:
    """A reply in the store's form. Raises ModelReplyInvalid where it breaks the protocol's promises."""
    tokens = None if reply.usage is None else (reply.usage.tokens_in, reply.usage.tokens_out)
    match reply:
        case LookReply():
            vector = None if reply.embedding is None else _unit_vector(reply.embedding)
            fields = {"description": reply.description, "confidence": _share("confidence", reply.confidence)}
            return StoredReply("look", fields, vector, tokens)
        case EmbedReply():
            return StoredReply("embed", {}, _unit_vector(reply.embedding), tokens)
        case JudgeReply():
            fields = {"probability": _share("probability", reply.probability), "reason": reply.reason}
            return StoredReply("judge", fields, tokens=tokens)
        case ChooseReply():
            shares = [_share("probability", share) for share in reply.probabilities]
            if abs(math.fsum(shares) - 1) > SHARES_TOLERANCE:
                raise ModelReplyInvalid(f"the probabilities of a choice sum to one, got {math.fsum(shares):.4f}")
            return StoredReply("choose", {"probabilities": shares, "reason": reply.reason}, tokens=tokens)
        case CompleteReply():
            return StoredReply("complete", {"text": written_to_json(reply.written)}, tokens=tokens)


def from_stored(stored: StoredReply) -> Reply:
    """The reply as every run sees it, fresh or resumed."""
    usage = None if stored.tokens is None else Usage(*stored.tokens)
    match stored.kind:
        case "look":
            return LookReply(stored.fields["description"], stored.fields["confidence"], stored.embedding, usage)
        case "embed":
            assert stored.embedding is not None  # the store has checked it
            return EmbedReply(stored.embedding, usage)
        case "judge":
            return JudgeReply(stored.fields["probability"], stored.fields["reason"], usage)
        case "choose":
            return ChooseReply(tuple(stored.fields["probabilities"]), stored.fields["reason"], usage)
        case _:
            return CompleteReply(written_from_json(stored.fields["text"]), usage)


def _unit_vector(embedding: Vector) -> Vector:
    vector = np.asarray(embedding, np.float16)
    length = float(np.linalg.norm(vector.astype(np.float32)))
    if vector.ndim != 1 or not abs(length - 1) <= UNIT_LENGTH_TOLERANCE:
        raise ModelReplyInvalid(f"an embedding is one vector of unit length, got {vector.shape}, {length:.4f} long")
    return vector


def _share(name: str, value: float) -> float:
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise ModelReplyInvalid(f"a {name} lies in [0, 1], got {value}")
    return round(float(value), DECIMALS)


def open_account(run: RunFolder) -> Account:
    """The account of a run, with what earlier processes sent in vain."""
    return Account(run.books(), run.put_books)


class CachingModel(ModelWrapper):
    """A `Model` that stores every answer before it is used and never asks the same request again.

    asked, reused: requests by kind, embeddings aside, that were sent to the model, or answered by the store or an equal
    request of now. failed: those whose call failed. said: why, in a server's words, where result files must not have
    them. given_up: ids of images that earlier runs gave up and this one did not ask about, or gave up itself. account:
    of the run. on_stopping: told how many calls a cancelled run waits for. ask_again: also what was given up. Use from
    one event loop at a time.
    """

    def __init__(
        self,
        model: Model,
        run: RunFolder,
        on_stopping: Callable[[int], None] | None = None,
        account: Account | None = None,
        *,
        ask_again: bool = False,
    ) -> None:
        super().__init__(model)
        self._run = run
        self._ask_again = ask_again
        self.given_up: set[str] = set()
        self.account = account or open_account(run)
        known = model.capabilities
        self.account.forgiven = known.concurrency * known.batch_size
        self._on_stopping = on_stopping
        self._in_flight: dict[str, asyncio.Future[Reply | ModelError | None]] = {}
        self.asked: Counter[str] = Counter()
        self.reused: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.said: Counter[str] = Counter()

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        return await self._answer(requests, self._model.look, LookReply)

    async def embed(self, requests: Sequence[EmbedRequest]) -> list[EmbedReply | ModelError]:
        return await self._answer(requests, self._model.embed, EmbedReply)  # type: ignore[attr-defined]

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        return await self._answer(requests, self._model.judge, JudgeReply)

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        return await self._answer(requests, self._model.choose, ChooseReply)

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        return await self._answer(requests, self._model.complete, CompleteReply)

    async def _answer(
        self,
        requests: Sequence[_Request],
        ask: _Ask[_Request],
        reply_type: type[_Reply],
    ) -> list[_Reply | ModelError]:
        for interest in {request.interest for request in requests}:
            self.account.concern(self._topic(interest))
        keys = [request_key(self._model, request) for request in requests]
        wanted = dict(zip(keys, requests, strict=True))
        outcomes: dict[str, Reply | ModelError] = {}
        if given_up := self._given_up:
            left_out = [key for key in wanted if key in given_up]
            outcomes |= {key: self._left_out(wanted[key], *given_up[key]) for key in left_out}
        sent = 0
        while pending := [key for key in wanted if key not in outcomes]:
            # Between here and the claims in _ask nothing awaits, so no other task can claim the same key.
            elsewhere = {key: self._in_flight[key] for key in pending if key in self._in_flight}
            stored = self._run.get_answers(key for key in pending if key not in elsewhere)
            outcomes.update({key: from_stored(reply) for key, reply in stored.items()})
            for key in stored:
                self._rest_on(key, wanted[key], outcomes[key])
            mine = [key for key in pending if key not in elsewhere and key not in stored]
            sent += len(mine)
            if mine and self.account.is_closed:
                outcomes.update(dict.fromkeys(mine, BudgetSpent("the budget is spent")))
            elif mine:
                outcomes.update(await self._ask(mine, wanted, ask))
            for key, future in elsewhere.items():
                outcome = await asyncio.shield(future)
                if outcome is not None:  # None: that task was cancelled or broke off; ask ourselves
                    outcomes[key] = outcome
        if requests and (kind := request_kind(requests[0])) != "embed":
            unsent = sum(isinstance(outcome, BudgetSpent) for outcome in outcomes.values())
            self.asked[kind] += sent - unsent
            self.reused[kind] += len(requests) - sent
            self.failed[kind] += sum(isinstance(outcome, ModelError) for outcome in outcomes.values()) - unsent
        for outcome in outcomes.values():
            if not isinstance(outcome, (reply_type, ModelError)):
                raise TypeError(f"{self.name} answered {reply_type.__name__} with {type(outcome).__name__}")
        return [cast("_Reply | ModelError", outcomes[key]) for key in keys]

    @cached_property
    def _given_up(self) -> Mapping[str, tuple[str, str]]:
        """By earlier runs."""
        return {} if self._ask_again else self._run.given_up()

    def _left_out(self, request: Request, reason: str, public: str) -> GivenUp:
        error = GivenUp(reason)
        error.public = public
        self.given_up.add(_image_id(request))
        return error

    async def _ask(
        self, keys: Sequence[str], wanted: dict[str, _Request], ask: _Ask[_Request]
    ) -> dict[str, Reply | ModelError]:
        """Put the requests of these keys to the model, each answer on the disk before it counts as an outcome."""
        loop = asyncio.get_running_loop()
        claims = {key: loop.create_future() for key in keys}
        self._in_flight.update(claims)
        outcomes: dict[str, Reply | ModelError] = {}

        def keep(arrived: Sequence[_Arrived]) -> None:
            stored = self._store(arrived, wanted)
            outcomes.update(stored)
            for key, outcome in stored.items():
                claims[key].set_result(outcome)
            for _, reply, _, _ in arrived:
                if isinstance(reply, ModelUnavailable):
                    raise reply

        try:
            await self._ask_side_by_side(keys, wanted, ask, keep)
        finally:
            for key, claim in claims.items():
                if not claim.done():
                    claim.set_result(None)
                del self._in_flight[key]
        return outcomes

    async def _ask_side_by_side(
        self, keys: Sequence[str], wanted: dict[str, _Request], ask: _Ask[_Request], keep: _Keep
    ) -> None:
        """Calls of `batch_size` requests, at most `concurrency` of them at once, the next one begun when one ends. What
        has arrived while the loop was busy is stored in one transaction; whatever ends this early, what has arrived
        until then is stored, too."""
        known = self._model.capabilities
        is_served = known.batch_size == 1
        waiting = iter([keys[start : start + known.batch_size] for start in range(0, len(keys), known.batch_size)])
        running: dict[asyncio.Task[list[_Arrived]], int] = {}
        arrived: list[_Arrived] = []
        broken: list[BaseException] = []
        news = asyncio.Event()
        call = self._ask_server if is_served else self._ask_batch

        def end(task: asyncio.Task[list[_Arrived]]) -> None:
            running.pop(task)
            if not task.cancelled():
                if (error := task.exception()) is not None:
                    broken.append(error)
                else:
                    arrived.extend(task.result())
            news.set()

        def begin() -> None:
            while len(running) < known.concurrency and (some := next(waiting, None)) is not None:
                task = asyncio.create_task(call(some, wanted, ask))
                running[task] = len(some)
                task.add_done_callback(end)

        def take() -> list[_Arrived]:
            taken = arrived[:]
            arrived.clear()
            return taken

        begin()
        try:
            while running or arrived:
                await news.wait()
                news.clear()
                if broken:
                    raise broken[0]
                begin()
                keep(take())
        except (ModelUnavailable, asyncio.CancelledError) as reason:
            if running and is_served:  # what is under way may be answered, and paid for, all the same
                if self._on_stopping is not None and isinstance(reason, asyncio.CancelledError):
                    self._on_stopping(len(running))
                await asyncio.wait(running, timeout=LAST_ANSWERS_S)
            raise
        finally:
            for task in running:
                task.cancel()
            while running:
                await asyncio.wait(running)
            if arrived:
                with contextlib.suppress(ModelUnavailable):  # another call's has been raised already
                    keep(take())

    async def _ask_server(
        self, keys: Sequence[str], wanted: Mapping[str, _Request], ask: _Ask[_Request]
    ) -> list[_Arrived]:
        """One request, which the model writes down itself, or we do for it."""
        (key,) = keys
        began = time.monotonic()
        sends = self._begun(key, wanted[key])
        with working_for(sends):
            (reply,) = await self._call(self._first_try(ask, sends), [wanted[key]])
        return [(key, reply, time.monotonic() - began, sends)]

    async def _ask_batch(
        self, keys: Sequence[str], wanted: Mapping[str, _Request], ask: _Ask[_Request]
    ) -> list[_Arrived]:
        """A batch of which each request is written down before, without those that could pass a limit."""
        calls = {key: self._begun(key, wanted[key]) for key in keys}
        unsent: dict[str, BudgetSpent] = {}
        for key, call in calls.items():
            try:
                call.send(save=False)
            except BudgetSpent as error:
                unsent[key] = error
        self.account.save()
        batch: list[str] = [key for key in calls if key not in unsent]
        began = time.monotonic()
        replies: Sequence[Reply | ModelError] = ()
        if batch:
            replies = await self._call(ask, [wanted[key] for key in batch])
        seconds = (time.monotonic() - began) / max(1, len(batch))
        answers: list[tuple[str, Reply | ModelError]] = [*zip(batch, replies, strict=True), *unsent.items()]
        return [(key, reply, seconds, calls[key]) for key, reply in answers]

    def _first_try(self, ask: _Ask[_Request], call: Call) -> _Ask[_Request]:
        """`ask`, written down before it is sent where the model does not do that itself."""

        async def asked(requests: Sequence[_Request]) -> Sequence[Reply | ModelError]:
            if not self.capabilities.counts_requests:
                call.send()
            return await ask(requests)

        return asked

    def _begun(self, key: str, request: Request) -> Call:
        return Call(self.account, key, self._bound(request), self._topic(request.interest))

    def _topic(self, interest: str) -> str:
        return f"{self.identity}\n{interest}"

    def _bound(self, request: Request) -> Bound:
        return bound_of(self._model, request)

    def _rest_on(self, key: str, request: Request, answer: Reply | ModelError) -> None:
        if not isinstance(answer, ModelError) and not self.account.rests_on(key):
            self.account.rest_on(key, answer.usage, self._bound(request))

    async def _call(self, ask: _Ask[_Request], requests: Sequence[_Request]) -> Sequence[Reply | ModelError]:
        try:
            replies = await ask(requests)
        except ModelError as error:
            # The protocol puts errors in their place; a model that raises one has failed on the whole batch.
            return [error] * len(requests)
        if len(replies) != len(requests):
            raise TypeError(f"{self.name} gave {len(replies)} replies to {len(requests)} requests")
        return replies

    def _store(self, arrived: Sequence[_Arrived], wanted: Mapping[str, Request]) -> dict[str, Reply | ModelError]:
        answers: list[StoredAnswer] = []
        failures: list[Failure] = []
        outcomes: dict[str, Reply | ModelError] = {}
        for key, reply, seconds, call in arrived:
            request = wanted[key]
            image_id = _image_id(request)
            try:
                if isinstance(reply, ModelUnavailable | BudgetSpent):  # says nothing of this image
                    call.end(None, answered=False)
                    if isinstance(reply, BudgetSpent):
                        outcomes[key] = reply
                    continue
                if isinstance(reply, ModelError):
                    raise reply
                reply = _with_usable_counts(reply)
                self._took(call, reply.usage)
                _check_fits(request, reply)
                stored = to_stored(reply)
            except ModelError as error:
                call.end(None, answered=False)
                self.said[str(error)] += error.public not in ("", str(error))
                public = public_reason(error) if isinstance(error, GivenUp) else None
                if public is not None:
                    self.given_up.add(image_id)
                failures.append(Failure(key, request_kind(request), request.interest, image_id, str(error), public))
                outcomes[key] = error
                continue
            text = rendering(self._model, request).text
            answers.append(
                StoredAnswer(key, request.interest, image_id, self.identity, text, stored, round(seconds, 6))
            )
            call.end(reply.usage, answered=True)
            outcomes[key] = from_stored(stored)
        if answers:
            self._run.put_answers(answers, self.account.books)
        if failures:
            self._run.record_failures(failures)
        if arrived and not answers:
            self.account.save()
        return outcomes

    def _took(self, call: Call, usage: Usage | None) -> None:
        """What a model that counts no requests says of the last one."""
        if not self.capabilities.counts_requests:
            call.took(usage)


def _with_usable_counts(reply: Reply) -> Reply:
    usage = reply.usage
    if usage is None or None not in (usable_count(usage.tokens_in), usable_count(usage.tokens_out)):
        return reply
    return replace(reply, usage=None)


def _check_fits(request: Request, reply: Reply) -> None:
    """Raises ModelReplyInvalid where a choice says nothing, or too much, of the options that it was given."""
    if isinstance(request, ChooseRequest) and isinstance(reply, ChooseReply):
        wanted, got = len(request.options) + 1, len(reply.probabilities)
        if wanted != got:
            raise ModelReplyInvalid(f"a choice has a probability of each option and of none, {wanted}, got {got}")


def _image_id(request: Request) -> str:
    match request:
        case LookRequest() | EmbedRequest():
            return request.image_id
        case JudgeRequest() | ChooseRequest():
            return request.candidate_id
        case CompleteRequest():
            return ""
