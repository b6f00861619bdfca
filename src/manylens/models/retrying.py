"""What a model on a server gets around it: patience.

In: a model whose calls may be turned away (`ModelBusy`). Out: the same model, asked again until it answers or a limit
is reached. Promises: at most `concurrency` calls are under way, fewer while the server says no; a wait that the server
asks for is kept by all calls; a call that ends for good ends in the error of its last attempt; a server that answers
nobody any more ends in `ModelUnavailable`, which stops the run, so that no image pays for it.

It stands between `CachingModel` and the server. Models in this process need none of it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

from manylens.errors import Cause, GivenUp, ModelBusy, ModelError, ModelUnavailable
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
    Request,
)
from manylens.models.metering import current_call

ATTEMPTS = 9

ATTEMPTS_ALONE: Mapping[Cause, int] = {"fault": 3, "time": 3, "load": 6}
"""Attempts of a call that fails while others are answered, by what goes wrong: then it is the picture. Servers crash on
some pictures, and nine tries of each took minutes. One that only says that it has no room is given more."""

_OTHERS_ANSWERED = 3
"""Calls that must have been answered since a call failed first, for the picture to be at fault and not the server.
Where no other call is left, one that was answered before is sent once more, to see whether it still is."""

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
"""An attempt waits twice as long as the one before, shortened by up to a quarter at random: 68 to 92 s in all."""

LONGEST_RETRY_AFTER_S = 600.0
"""A server may ask for hours (a daily quota); then it is better to stop and say so."""

_PATIENCE_S = 900.0
"""A server that asks to wait, and then to wait again, is asked for so long, if it answers nobody in between."""

_DOWN_AFTER_S = 60.0
_DOWN_REQUESTS = 10
_DOWN_TIMEOUTS = 3
_DOWN_SLOW_REQUESTS = 3
"""The server counts as down where it has answered nobody for 60 s and 10 different requests, or for three time-outs
and three requests. One or two alone may be at fault themselves: those fail, and the run goes on."""

_IMPATIENT_ATTEMPTS = 2
"""Attempts of a call once nobody has been answered for 60 s: what is left is to find out whether anybody is."""

_TELL_AFTER_S, _TELL_EVERY_S = 10.0, 30.0

_Request = TypeVar("_Request", LookRequest, EmbedRequest, JudgeRequest, ChooseRequest, CompleteRequest)
_Reply = TypeVar("_Reply", LookReply, EmbedReply, JudgeReply, ChooseReply, CompleteReply)
_Ask: TypeAlias = Callable[[Sequence[_Request]], Awaitable[Sequence[_Reply | ModelError]]]


class RetryingModel(ModelWrapper):
    """A `Model` that waits, tries again, and never has more than `capabilities.concurrency` calls under way.

    timeout_s: seconds that one request may take; its model ends it then. A call, which may be several requests (a look
    and its repair), is ended here when it takes longer than all of them. seed: of the backoff's jitter.
    notify: gets a line once the server has answered nobody for a while, and again while that lasts.
    """

    def __init__(
        self, model: Model, *, timeout_s: float, seed: int = 0, notify: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(model)
        self._notify = notify
        self._notified_at = float("-inf")
        self._timeout_s = timeout_s
        self._random = random.Random(seed)
        self._gate = Gate(model.capabilities.concurrency)
        self._resume_at = 0.0
        self._silence = _Silence(timeout_s)
        self._answered = 0
        self._good: Callable[[], Awaitable[object]] | None = None
        self._checked_at = float("-inf")
        self._checking = asyncio.Lock()
        self._gone: ModelUnavailable | None = None

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        return await self._answer(requests, self._model.look)

    async def embed(self, requests: Sequence[EmbedRequest]) -> list[EmbedReply | ModelError]:
        return await self._answer(requests, self._model.embed)  # type: ignore[attr-defined]

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        return await self._answer(requests, self._model.judge)

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        return await self._answer(requests, self._model.choose)

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        return await self._answer(requests, self._model.complete)

    async def _answer(self, requests: Sequence[_Request], ask: _Ask[_Request, _Reply]) -> list[_Reply | ModelError]:
        if len(requests) == 1:  # what `CachingModel` sends: no need for one more task
            return [await self._call(requests[0], ask)]
        return list(await asyncio.gather(*(self._call(request, ask) for request in requests)))

    async def _call(self, request: _Request, ask: _Ask[_Request, _Reply]) -> _Reply | ModelError:
        """One call, made again while the server is busy, until a limit is reached."""
        clock = asyncio.get_running_loop().time
        tries = attempt = turned_away = 0  # all; those that may be the picture's fault; those that are not
        answered, failed_at = self._answered, 0.0
        alone = False
        while True:
            async with self._gate.alone() if alone else self._gate:
                while (pause := self._resume_at - clock()) > 0:  # another call's Retry-After may prolong it meanwhile
                    await asyncio.sleep(pause)
                if self._gone is not None:
                    return self._gone
                sent = clock()
                self._silence.begin(sent)
                reply = await self._send(request, ask, tries)
            if not isinstance(reply, ModelBusy | ModelUnavailable):
                self._silence.end()
                self._answered += 1
                self._good = lambda: self._send(request, ask, 1)
            if not isinstance(reply, ModelBusy):
                if not isinstance(reply, ModelUnavailable):
                    self._gate.grow()
                return reply
            now = clock()
            tries += 1
            is_rate = reply.cause == "rate"
            attempt, turned_away = (attempt, turned_away + 1) if is_rate else (attempt + 1, turned_away)
            if attempt == 1 and not is_rate:
                answered, failed_at = self._answered, now
            self._gate.halve(sent, now)
            self._silence.add(request)
            if reply.retry_after_s is not None:
                self._resume_at = max(self._resume_at, now + min(reply.retry_after_s, LONGEST_RETRY_AFTER_S))
                self._silence.excuse(self._resume_at)
            if self._silence.means_down(now):
                silent_s = self._silence.seconds_in_all(now)
                self._gone = ModelUnavailable(
                    f"{self.name} has answered no call for {silent_s:.0f} s; of the last one: {reply.rule}",
                    f"{f'{reply.hint}. ' if is_rate and reply.hint else ''}"
                    "see that the server runs and has room, then run the same command again: it goes on from here",
                )
                return self._gone
            enough = ATTEMPTS_ALONE.get(reply.cause, ATTEMPTS)
            others = self._answered - answered >= _OTHERS_ANSWERED or self._checked_at > failed_at
            if not others and reply.cause in ATTEMPTS_ALONE and attempt >= enough - 1:
                others = await self._answers_others(failed_at)
            # One that breaks the server takes those that are under way with it: the last try shows who it is.
            if not is_rate and others and attempt >= enough and (alone or reply.cause == "time"):
                return self._given_up(reply, attempt)
            alone = others and attempt >= enough - 1 and reply.cause in ("fault", "load")
            if not is_rate and attempt >= (_IMPATIENT_ATTEMPTS if self._silence.is_long(now) else ATTEMPTS):
                tried = f"{reply.rule} (tried {attempt} times)"
                last = ModelBusy(tried, reply.hint, retry_after_s=reply.retry_after_s)
                last.public = reply.public and f"{reply.public} (tried {attempt} times)"
                return last
            self._tell(now, reply)
            # Where the server says how long, that is waited, and a moment, so that not all come back at once.
            doublings = 0 if is_rate and reply.retry_after_s is not None else max(attempt, turned_away) - 1
            backoff_s = min(FIRST_BACKOFF_S * 2 ** min(doublings, ATTEMPTS), LONGEST_BACKOFF_S)
            await asyncio.sleep(backoff_s * (1 - self._random.random() / 4))

    async def _answers_others(self, since: float) -> bool:
        """Whether a request that was answered before still is, found out since then."""
        async with self._checking:
            if self._good is None or self._checked_at > since:
                return self._checked_at > since
            async with self._gate:
                reply = await self._good()
            if isinstance(reply, ModelError):
                return False
            self._silence.end()
            self._checked_at = asyncio.get_running_loop().time()
            return True

    def _given_up(self, last: ModelBusy, attempts: int) -> ModelError:
        """Why this call will never be answered; one that met a full server may be, by another run."""
        rule = f"{self.name} fails on this alone and answers others, tried {attempts} times; of the last one: "
        kind = ModelError if last.cause == "load" else GivenUp
        error = kind(f"{rule}{last.rule}", last.hint)
        error.public = last.public and f"the model fails on this alone, tried {attempts} times: {last.public}"
        return error

    def _tell(self, now: float, last: ModelBusy) -> None:
        silent_s = self._silence.seconds_in_all(now)
        if self._notify is None or silent_s < _TELL_AFTER_S or now - self._notified_at < _TELL_EVERY_S:
            return
        self._notified_at = now
        self._notify(f"waiting: {self.name} has answered no call for {silent_s:.0f} s ({last.rule}); it is asked again")

    async def _send(self, request: _Request, ask: _Ask[_Request, _Reply], attempt: int) -> _Reply | ModelError:
        try:
            async with asyncio.timeout(self.capabilities.requests_per_call * self._timeout_s):
                if attempt and (call := current_call()) is not None and not self.capabilities.counts_requests:
                    call.send()  # the first try was written down by `CachingModel`
                replies = await ask([request])
        except ModelError as error:
            return error
        except TimeoutError:
            rule = f"a request may take {self._timeout_s:g} s, {self.name} took longer"
            hint = "allow more with --timeout, or send fewer at once with --concurrency"
            return ModelBusy(rule, hint, cause="time")
        if len(replies) != 1:
            raise TypeError(f"{self.name} gave {len(replies)} replies to 1 request")
        return replies[0]


class _Silence:
    """Since when the server has answered nobody, and whom it has turned away since."""

    def __init__(self, timeout_s: float) -> None:
        self._slow_s = max(_DOWN_AFTER_S, _DOWN_TIMEOUTS * timeout_s)
        self._began: float | None = None
        self._since: float | None = None
        self._requests: set[Request] = set()

    def begin(self, now: float) -> None:
        """A call is sent: where nobody was turned away so far, silence is counted from here."""
        if not self._requests:
            self._since = self._began = now

    def end(self) -> None:
        self._requests.clear()

    def excuse(self, until: float) -> None:
        """The server has asked for silence until then."""
        self._since = until if self._since is None else max(self._since, until)

    def add(self, request: Request) -> None:
        if len(self._requests) < _DOWN_REQUESTS:
            self._requests.add(request)

    def seconds(self, now: float) -> float:
        return 0.0 if self._since is None else now - self._since

    def seconds_in_all(self, now: float) -> float:
        """Those that were asked for included."""
        return 0.0 if self._began is None else now - self._began

    def is_long(self, now: float) -> bool:
        return self.seconds(now) >= _DOWN_AFTER_S

    def means_down(self, now: float) -> bool:
        many = self.is_long(now) and len(self._requests) >= _DOWN_REQUESTS
        if self.seconds_in_all(now) >= _PATIENCE_S + self._slow_s - _DOWN_AFTER_S:
            return True
        return many or (self.seconds(now) >= self._slow_s and len(self._requests) >= _DOWN_SLOW_REQUESTS)


class Gate:
    """Lets at most `limit` calls in at once (AIMD): halved when the server says no, one more per `limit` answers.

    Use as `async with gate`. limit: a float in [1, concurrency], of which whole calls count.
    """

    def __init__(self, concurrency: int) -> None:
        self._most = float(max(1, concurrency))
        self.limit = self._most
        self.inside = 0
        self._halved_at = float("-inf")
        self._shut = False
        self._shutting = asyncio.Lock()
        self._emptied: asyncio.Future[None] | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    def grow(self) -> None:
        self.limit = min(self._most, self.limit + 1 / self.limit)
        self._wake()

    def halve(self, sent: float, now: float) -> None:
        """For a call sent at `sent`. Those under way together are one refusal: the first halves for all of them."""
        if sent >= self._halved_at:
            self.limit = max(1.0, self.limit / 2)
            self._halved_at = now

    async def __aenter__(self) -> None:
        while self._shut or self.inside >= int(self.limit):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:
                    self._wake()  # it was this call's turn: pass it on
                raise
        self.inside += 1

    async def __aexit__(self, *_: object) -> None:
        self.inside -= 1
        if not self.inside and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)
        self._wake()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Inside with nobody else: whoever is in there goes out first, whoever comes waits."""
        async with self._shutting:
            self._shut = True
            try:
                while self.inside:
                    self._emptied = asyncio.get_running_loop().create_future()
                    await self._emptied
                self.inside += 1
                try:
                    yield
                finally:
                    self.inside -= 1
            finally:
                self._shut = False
                self._emptied = None
                self._wake()

    def _wake(self) -> None:
        if self._shut:
            return
        for _ in range(int(self.limit) - self.inside):
            if not self._waiting:
                return
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
