"""Budgets: how many calls a run may make and what they may cost.

In: `Settings` with hard limits, requests in order. Out: how many of them may be sent. Promises: no call is sent that
could pass a limit, because what it may cost at most is reserved before it goes and what it did cost is charged after;
an answer counts whether it is new or from an earlier run, so that a resumed run decides as an undisturbed one.

A call is one request that was answered or finally failed; attempts that a server turned away are part of it. Where an
answer comes without a count of tokens, the most it may have cost is charged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from manylens.errors import ModelError
from manylens.models.base import (
    MOST_EXEMPLARS,
    ChooseRequest,
    CompleteRequest,
    JudgeRequest,
    LookRequest,
    Model,
    Reply,
    Request,
    Usage,
    rendering,
    shown_exemplars,
)
from manylens.settings import Settings

CHAT_TOKENS = 100
"""Tokens that a server's chat template may add to a request."""


_ROUNDING = 1e-6
"""Shares of a budget, thirds for instance, add up to whole calls but for so much."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """A part of a budget: from what was spent when it was given up to what may be spent by its end.

    calls, usd: (spent before, spent at most), the second infinite where there is no limit.
    """

    calls: tuple[float, float] = (0.0, math.inf)
    usd: tuple[float, float] = (0.0, math.inf)

    def until(self, share: float) -> Allowance:
        """The first `share`, in (0, 1], of it."""
        return Allowance(*((low, low + share * (high - low)) for low, high in (self.calls, self.usd)))


class Budget:
    """The account of one run. calls, usd: spent so far, over all interests."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self._model = model
        self._settings = settings
        self.calls = 0
        self.usd = 0.0

    def part(self, share: float) -> Allowance:
        """A share, in (0, 1], of what is left."""
        most_calls = math.inf if self._settings.budget_calls is None else self._settings.budget_calls
        most_usd = math.inf if self._settings.budget_usd is None else self._settings.budget_usd
        return Allowance((self.calls, most_calls), (self.usd, most_usd)).until(share)

    def admit(self, requests: Sequence[Request], allowance: Allowance) -> int:
        """How many of these, in order, surely stay within the allowance. Send them, `charge` them, and ask again:
        most cost less than they may."""
        left = allowance.calls[1] - self.calls
        admitted = len(requests)
        if math.isfinite(left):
            admitted = min(admitted, max(0, math.floor(left + _ROUNDING)))
        if math.isinf(allowance.usd[1]):
            return admitted
        reserved = self.usd
        for number in range(admitted):
            reserved += self._cost(self._bound(requests[number]))
            if reserved > allowance.usd[1]:
                return number
        return admitted

    def charge(self, request: Request, reply: Reply | ModelError) -> None:
        self.calls += 1
        if self._settings.is_priced:
            usage = None if isinstance(reply, ModelError) else reply.usage
            self.usd += self._cost(usage or self._bound(request))

    def _cost(self, usage: Usage) -> float:
        return self._settings.cost_usd(usage.tokens_in, usage.tokens_out)

    def _bound(self, request: Request) -> Usage:
        """The most tokens a call may take: a token is at least one byte of text."""
        known = self._model.capabilities
        reply = known.text_tokens if isinstance(request, CompleteRequest) else known.reply_tokens
        match request:
            case LookRequest():
                images = 1
            case JudgeRequest():
                images = 1 + (len(request.exemplar_ids) if known.sees_exemplars else 0)
            case ChooseRequest():
                images = 1 + (len(shown_exemplars(request.options, MOST_EXEMPLARS)) if known.sees_exemplars else 0)
            case CompleteRequest():
                images = len(request.image_ids)
        text = len(rendering(self._model, request).text.encode("utf-8", "surrogatepass"))
        once = CHAT_TOKENS + text + images * known.image_tokens
        return Usage(known.requests_per_call * once, known.requests_per_call * reply)
