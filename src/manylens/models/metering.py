"""The account of a run: every request that leaves for a model, what it took at most, and the limits that none passes.

In: calls that begin, send requests and end. Out: what the run rests on and has sent in vain, in requests and tokens.
Promises: a request is written down before it leaves, so a kill, a failure or another run forgets none; one that could
pass a limit does not leave (`BudgetSpent`); what comes without a usable count of tokens counts as the most it may take.

A request is one chat request, or one try of a model that says nothing of its requests (`Capabilities.counts_requests`).
The embedding of a look belongs to it: its first try counts as none, each further one counts. An answer stands for one
request, whether it is new or from an earlier run; whatever was sent beside stays in the run's books. Of those lost with
a killed process as many as were allowed side by side are forgiven, once: a run that was killed is to end as one that
was not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from manylens.errors import BudgetSpent, ModelError
from manylens.models.base import (
    MOST_EXEMPLARS,
    ChooseRequest,
    CompleteRequest,
    EmbedRequest,
    JudgeRequest,
    LookRequest,
    Model,
    Request,
    Usage,
    rendering,
    request_kind,
    shown_exemplars,
)
from manylens.models.prompts_writing import TEXT_TOKENS, room
from manylens.settings import Settings
from manylens.store.answers import MOST_TOKENS
from manylens.store.books import Books, Spent

CHAT_TOKENS = 100
"""Tokens that a server's chat template may add to a request."""

FIRST_IMAGE_TOKENS = 1_000
"""Reserved for a picture of a server's model while nothing was sent that tells: most take 100 to 1,500 tokens for one
of 512 px, some up to `Capabilities.image_tokens`. One such request is sent alone, so that small limits buy something,
too; its answer says what they take, and where the server counts nothing, it is charged at the most."""

FEW = 3
"""Answers of a kind that are awaited before more are sent at once, where money is limited: servers write more than they
are asked for, and only what came back says how much."""


def usable_count(value: object) -> int | None:
    """A server's count of tokens; None where it is none: missing, negative, a fraction, absurd."""
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


@dataclass(frozen=True, slots=True)
class Bound:
    """What one request may take: so many pictures of at most `image_tokens` each, text of so many bytes (a token is at
    least one byte), a reply of so many tokens. first_image_tokens: what a picture is reserved at while nobody knows, by
    default the most. kind: as `request_kind` says, "probe" or "embedding"."""

    kind: str
    text_bytes: int
    images: int = 0
    image_tokens: int = 0
    reply_tokens: int = 0
    first_image_tokens: int | None = None

    def answered_with(self, usage: Usage) -> Spent:
        """What an answer stands for: one request, or none where it is the embedding of a look."""
        return Spent(0 if self.kind == "embedding" else 1, usage.tokens_in, usage.tokens_out)

    @property
    def most(self) -> Usage:
        return Usage(CHAT_TOKENS + self.text_bytes + self.images * self.image_tokens, self.reply_tokens)


def bound_of(model: Model, request: Request) -> Bound:
    """Of one request of this call, or of all where the model does not count them."""
    known = model.capabilities
    text = len(rendering(model, request).text.encode("utf-8", "surrogatepass"))
    match request:
        case EmbedRequest():
            return Bound("embedding", text, 1, known.image_tokens)
        case LookRequest():
            images = 1
        case JudgeRequest():
            images = 1 + (len(request.exemplar_ids) if known.sees_exemplars else 0)
        case ChooseRequest():
            images = 1 + (len(shown_exemplars(request.options, MOST_EXEMPLARS)) if known.sees_exemplars else 0)
        case CompleteRequest():
            images = 0
    reply = known.reply_tokens
    if isinstance(request, CompleteRequest):
        reply = known.text_tokens
        if known.counts_requests:  # such a model asks for no more than the task takes
            reply -= TEXT_TOKENS - room(request.task)
    times = 1 if known.counts_requests else known.requests_per_call
    first = FIRST_IMAGE_TOKENS if known.counts_requests else None
    return Bound(request_kind(request), times * text, times * images, known.image_tokens, times * reply, first)


class Account:
    """The account of one run. books: what earlier runs left. save: writes the books down. forgiven: requests lost with
    a killed process that do not count. Use from one thread at a time."""

    def __init__(
        self, books: Books | None = None, save: Callable[[Books], None] = lambda books: None, forgiven: int = 0
    ) -> None:
        self._save = save
        self._vain, self._lost = (Spent(), Spent()) if books is None else (books.vain, books.under_way)
        self._under_way = self._answered = Spent()
        self._answered_about = {} if books is None else dict(books.answered)
        self._topics: set[str] = set()
        self._held = self._used_again = Spent()
        self._earlier: Spent | None = None
        self._is_reading = False
        self.is_closed = False
        self._rests_on: set[str] = set()
        self._settings = Settings()
        self._settled: Counter[str] = Counter()
        self._longest_reply: dict[str, int] = {}
        self._image_tokens: dict[bool, float] = {}
        self._pictures_sent: set[bool] = set()
        self._excess_in = 0
        self.forgiven = forgiven

    def limit(self, settings: Settings) -> None:
        """From here on, no request leaves that would pass these limits."""
        self._settings = settings

    def begin_anew(self) -> None:
        """Limits are for what comes from here on, as those of an addition to a finished run: what was sent in vain
        before stays in the books and does not count."""
        self._earlier = self._vain

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Stored answers that are used in here were paid for by what came before; they do not count."""
        self._is_reading = True
        try:
            yield
        finally:
            self._is_reading = False

    @contextmanager
    def closed(self) -> Iterator[None]:
        """No request leaves in here."""
        self.is_closed = True
        try:
            yield
        finally:
            self.is_closed = False

    @property
    def is_priced(self) -> bool:
        return self._settings.is_priced

    @property
    def calls(self) -> int:
        """Without answers that this run does not use: a resumed run decides by it as an undisturbed one."""
        return self._used.requests

    @property
    def usd(self) -> float:
        """Of the same."""
        return self._cost_usd(self._used)

    def _cost_usd(self, spent: Spent) -> float:
        return self._settings.cost_usd(spent.tokens_in, spent.tokens_out)

    @property
    def spent(self) -> Spent:
        """All that was sent and counts."""
        return self._used.plus(self._unused)

    @property
    def beside(self) -> Spent:
        """What was sent beside the answers that this run uses."""
        return self.vain.plus(self._unused)

    @property
    def _unused(self) -> Spent:
        """Answers that earlier runs paid for and this one, which took another course, does not use so far."""
        return self._held.minus(self._used_again) if self._earlier is None else Spent()

    def concern(self, topic: str) -> None:
        """Something is asked about this (a model and an interest) now: what earlier runs were answered counts, or each
        run that takes another course than the one before could send as much again."""
        if topic not in self._topics:
            self._topics.add(topic)
            self._held = self._held.plus(self._answered_about.get(topic, Spent()))

    @property
    def vain(self) -> Spent:
        """What no answer stands for."""
        lost = self._lost.requests
        return self._vain.plus(self._lost.share(max(0, lost - self.forgiven), lost))

    @property
    def _used(self) -> Spent:
        vain = self.vain if self._earlier is None else self._vain.minus(self._earlier)
        return self._answered.plus(vain).plus(self._under_way)

    @property
    def books(self) -> Books:
        return Books(self._vain, self._lost.plus(self._under_way), self._answered_about)

    @property
    def passed_usd(self) -> float:
        """By how much the limit in money was passed all the same: answers may cost more than any before."""
        limit = self._settings.budget_usd
        return 0.0 if limit is None else max(0.0, self._cost_usd(self.spent) - limit)

    def rest_on(self, key: str, usage: Usage | None, bound: Bound) -> None:
        """An answer is used that was sent for by an earlier run, or by a model without an account."""
        if key in self._rests_on:
            return
        self._rests_on.add(key)
        if usage is not None:
            self.learn(bound, usage)
        if self._is_reading:
            return
        took = usage or bound.most
        self._answered = self._answered.plus(bound.answered_with(took))
        self._used_again = self._used_again.plus(bound.answered_with(took))

    def rests_on(self, key: str) -> bool:
        return key in self._rests_on

    # What a request will take

    def reserve(self, bound: Bound) -> Usage:
        """The most that a request may take, by the worst that was seen where enough were."""
        probe = bound.kind == "probe"
        first = None if probe in self._pictures_sent else bound.first_image_tokens
        images = self._image_tokens.get(probe, bound.image_tokens if first is None else min(first, bound.image_tokens))
        longest = self._longest_reply.get(bound.kind, 0)
        reply = longest if self._settled[bound.kind] >= FEW else max(bound.reply_tokens, longest)
        text = CHAT_TOKENS + bound.text_bytes + self._excess_in
        return Usage(text + math.ceil(bound.images * images), reply)

    def reserve_usd(self, bound: Bound) -> float:
        usage = self.reserve(bound)
        return self._settings.cost_usd(usage.tokens_in, usage.tokens_out)

    def may_be_under_way(self, bound: Bound) -> float:
        """How many requests of a kind may be sent before the next answer is in, where money is limited."""
        kind = bound.kind
        if bound.images and bound.first_image_tokens and False not in {*self._pictures_sent, *self._image_tokens}:
            return 1
        return math.inf if self._settled[kind] >= FEW else FEW - self._settled[kind]

    def learn(self, bound: Bound, usage: Usage) -> None:
        """Pictures of a probe are small, and teach nothing of those of a run; those of a look are the largest."""
        self._settled[bound.kind] += 1
        self._longest_reply[bound.kind] = max(self._longest_reply.get(bound.kind, 0), usage.tokens_out)
        if bound.images:
            probe = bound.kind == "probe"
            seen = usage.tokens_in / bound.images
            self._image_tokens[probe] = max(self._image_tokens.get(probe, 0.0), seen)
        else:
            self._excess_in = max(self._excess_in, usage.tokens_in - bound.most.tokens_in)

    # What calls do

    def send(self, reserved: Spent, *, save: bool, bound: Bound | None = None) -> None:
        """Raises BudgetSpent."""
        limits, after = self._settings, self.spent.plus(reserved)
        if limits.budget_calls is not None and after.requests > limits.budget_calls:
            raise BudgetSpent(f"the budget of {limits.budget_calls:,} calls is spent")
        if limits.budget_usd is not None and self._cost_usd(after) > limits.budget_usd:
            raise BudgetSpent(f"the budget of ${limits.budget_usd:,.2f} is spent")
        self._under_way = self._under_way.plus(reserved)
        if bound is not None and bound.images:
            self._pictures_sent.add(bound.kind == "probe")
        if save:
            self.save()

    def settle(self, reserved: Spent, spent: Spent) -> None:
        self._under_way = self._under_way.minus(reserved).plus(spent)

    def end(self, key: str, sent: Spent, answer: Spent | None, topic: str = "") -> None:
        self._under_way = self._under_way.minus(sent)
        if answer is None:
            self._vain = self._vain.plus(sent)
            return
        # An answer may rest on a part that an earlier try was sent for in vain: then less is in vain than was.
        self._vain = self._vain.plus(sent).minus(answer)
        self._rests_on.add(key)
        self._answered = self._answered.plus(answer)
        self._answered_about[topic] = self._answered_about.get(topic, Spent()).plus(answer)

    @contextmanager
    def probing(self) -> Iterator[None]:
        """Requests that are sent in here find out what a model can do: they end in no answer of the run."""
        call = Call(self, "", Bound("probe", 0))
        try:
            with working_for(call):
                yield
        finally:
            call.end(None, answered=False)
            self.save()

    def save(self) -> None:
        self._save(self.books)


class Call:
    """One call, from before its first request leaves until its answer is stored. Its requests follow each other. topic:
    as `Account.concern` was told."""

    def __init__(self, account: Account, key: str, bound: Bound, topic: str = "") -> None:
        self._account = account
        self._key = key
        self._topic = topic
        self._tries = 0
        self._is_open = False
        self._sent = Spent()
        self._last = (Spent(), bound)
        self.bound = bound

    def send(self, bound: Bound | None = None, *, save: bool = True) -> None:
        """A request is about to leave. Raises BudgetSpent where it must not."""
        self._close()
        asked = bound or self.bound
        is_part = self.bound.kind == "embedding" and not self._tries
        usage = self._account.reserve(asked)
        reserved = Spent(0 if is_part else 1, usage.tokens_in, usage.tokens_out)
        self._account.send(reserved, save=save, bound=asked)
        self._tries += 1
        self._last = reserved, asked
        self._is_open = True
        self._sent = self._sent.plus(reserved)

    def _close(self) -> None:
        """What never came back may have taken the most: more than is reserved once it is known what others took."""
        if self._is_open:
            self._settle(self._last[1].most)

    def took(self, usage: Usage | None) -> None:
        """The last request came back, with its server's count of tokens or none. Without this the most it may take
        counts: a server that did not answer in time may have worked all the same."""
        asked = self._last[1]
        if usage is not None:
            self._account.learn(asked, usage)
        self._settle(usage or asked.most)

    def refused(self) -> None:
        """The server said no to the last request, which took no tokens."""
        self._settle(Usage(0, 0))

    def never_left(self) -> None:
        """No connection was made for the last request."""
        reserved, asked = self._last
        self._account.settle(reserved, Spent())
        self._sent = self._sent.minus(reserved)
        self._last = Spent(), asked
        self._tries -= 1
        self._is_open = False

    def failed(self, error: ModelError) -> None:
        """The last request ended so."""
        if error.unsent:
            self.never_left()
        elif error.unbilled:
            self.refused()

    def _settle(self, usage: Usage) -> None:
        reserved, asked = self._last
        spent = Spent(reserved.requests, usage.tokens_in, usage.tokens_out)
        self._account.settle(reserved, spent)
        self._sent = self._sent.minus(reserved).plus(spent)
        self._last = spent, asked
        self._is_open = False

    def end(self, usage: Usage | None, *, answered: bool) -> None:
        """It is over. usage: what the answer says of itself."""
        self._close()
        answer = None
        if answered:
            took = usage or self.bound.most
            answer = self.bound.answered_with(took)
        self._account.end(self._key, self._sent, answer, self._topic)
        self._sent = Spent()


_under_way: ContextVar[Call | None] = ContextVar("manylens_call", default=None)


def current_call() -> Call | None:
    """The call that this task works for; None outside of a run."""
    return _under_way.get()


@contextmanager
def working_for(call: Call) -> Iterator[None]:
    """Requests that are sent in here, and in tasks begun in here, are those of this call."""
    token = _under_way.set(call)
    try:
        yield
    finally:
        _under_way.reset(token)
