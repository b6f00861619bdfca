"""The requests behind one answer to one request of ours.

In: bodies of requests. Out: what was read from the replies. Promise: a part that was received is not asked again when
the rest has to be; the account of the run is told of each request before it leaves and after.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from manylens.errors import ModelError, ModelReplyInvalid
from manylens.models import prompts
from manylens.models.base import Usage
from manylens.models.metering import Bound, current_call
from manylens.models.openai_compatible.dialect import THINKING_TOKENS
from manylens.models.openai_compatible.endpoint import Endpoint, Json
from manylens.models.openai_compatible.replies import answer_text, counted_usage, was_cut

if TYPE_CHECKING:
    from manylens.models.openai_compatible.model import OpenAICompatible

_Reply = TypeVar("_Reply")

LONGER = "longer"
"""The kind of a request whose answer broke off before, for the account."""


class Talk:
    """The requests behind one answer: their cost, and what is kept of them until the answer is whole.

    A retry after a fault in the second request of an answer must not ask the first one again.
    """

    def __init__(self, model: OpenAICompatible) -> None:
        self._model = model
        self._keys: list[str] = []
        self._is_counted = True
        self.last: Json = {}
        """The reply that was read: the repair's, where there was one."""
        self._tokens_in = self._tokens_out = 0

    @property
    def usage(self) -> Usage | None:
        """None where any chat reply came without a usable count: a part of the cost would pass for the whole."""
        return Usage(self._tokens_in, self._tokens_out) if self._is_counted else None

    async def ask(self, body: Json) -> Json:
        kept = self._model._kept
        key = hashlib.sha256(json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
        reply = kept.get(key)
        if reply is None:
            call = current_call()
            bound = None if call is None else _with_room(call.bound, body)
            reply = await send(self._model._endpoint, "/chat/completions", body, bound)
            kept[key] = reply
        if key in self._keys:
            return reply
        self._keys.append(key)
        usage = counted_usage(reply)
        if usage is None:
            self._is_counted = False
        else:
            self._tokens_in += usage.tokens_in
            self._tokens_out += usage.tokens_out
        return reply

    async def read(self, body: Json, parse: Callable[[str], _Reply], shape: str) -> _Reply:
        """Ask and parse, with one further attempt: with more room where the answer broke off, else by a request to mend
        it. Raises ModelReplyInvalid where that fails too, ModelError where the model refuses."""
        text = await self._text(body)
        try:
            return parse(text)
        except prompts.Refusal:
            raise self._refused() from None
        except prompts.ReplyProblem as error:
            problem = str(error)
        if was_cut(self.last):
            text = await self._text(_with_more_room(body))
        else:
            messages = [
                *body["messages"],
                {"role": "assistant", "content": prompts.said_before(text)},
                {"role": "user", "content": prompts.repair_question(problem, shape)},
            ]
            text = await self._text({**body, "messages": messages})
        try:
            return parse(text)
        except prompts.Refusal:
            raise self._refused() from None
        except prompts.ReplyProblem as error:
            problem = str(error)
        self.end()
        if was_cut(self.last):
            room = _room_of(_with_more_room(body))
            raise ModelReplyInvalid(
                f"{self._model.name} broke off its answer twice, in the end after {room:,} tokens",
                "turn its thinking off at the server, or use another model",
            )
        raise ModelReplyInvalid(
            f"{self._model.name} gave an unusable answer twice ({problem})",
            "use a larger model, or see manylens doctor",
        )

    def _refused(self) -> ModelError:
        self.end()
        return ModelError("the model refuses to speak about this picture", "nothing to do here")

    async def _text(self, body: Json) -> str:
        self.last = await self.ask(body)
        try:
            return answer_text(self.last)
        except ModelError:
            self.end()
            raise

    def end(self) -> None:
        """The answer is whole, or will never be: forget its parts."""
        for key in self._keys:
            self._model._kept.pop(key, None)


async def send(endpoint: Endpoint, path: str, body: Json, bound: Bound | None = None) -> Json:
    """With the account of the run told of it, before and after. bound: where it is not that of the call."""
    call = current_call()
    if call is None:
        return await endpoint.ask(path, body)
    call.send(bound)
    try:
        reply = await endpoint.ask(path, body)
    except ModelError as error:
        call.failed(error)
        raise
    call.took(counted_usage(reply))
    return reply


def _limit_of(body: Json) -> str:
    return "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"


def _room_of(body: Json) -> int:
    return int(body[_limit_of(body)])


def _with_more_room(body: Json) -> Json:
    """For an answer that broke off: room to think, or more of it."""
    limit = _limit_of(body)
    return {**body, limit: THINKING_TOKENS + body[limit] if body[limit] < THINKING_TOKENS else 2 * body[limit]}


def _with_room(bound: Bound, body: Json) -> Bound:
    """What a chat request reserves, by the room that it gives its answer. What others of its kind took says nothing of
    one that was given more."""
    room = _room_of(body)
    return replace(bound, reply_tokens=room, kind=bound.kind if room <= bound.reply_tokens else LONGER)
