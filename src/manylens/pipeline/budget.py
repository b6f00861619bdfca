"""Budgets: how many calls a run may make and what they may cost.

In: `Settings` with hard limits, requests in order. Out: how many of them may be sent. Promises: what is admitted is
what the limits can bear, by the most that a request may take or the worst that was seen; an answer counts whether it is
new or from an earlier run, so that a resumed run decides as an undisturbed one. The limits themselves are held by the
account (`models.metering`), request by request: what was admitted and tried again may find them reached.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from manylens.errors import ModelError
from manylens.models.base import Model, Reply, Request, rendering
from manylens.models.caching import CachingModel
from manylens.models.metering import Account, bound_of
from manylens.settings import Settings

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
    """How much of the account of a run each stage may use. calls, usd: spent so far, over all interests. is_kept:
    whether the model keeps its account and its answers.

    The account of a model that keeps one has its limits already, from where the run was opened: making a budget changes
    nothing.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        self._model = model
        self._settings = settings
        self.is_kept = isinstance(model, CachingModel)
        if isinstance(model, CachingModel):
            self._account = model.account
        else:
            self._account = Account()
            self._account.limit(settings)

    @property
    def calls(self) -> int:
        return self._account.calls

    @property
    def usd(self) -> float:
        return self._account.usd

    def reading(self) -> AbstractContextManager[None]:
        """Stored answers that are used in here cost this budget nothing."""
        return self._account.reading()

    def closed(self) -> AbstractContextManager[None]:
        """In here nothing is sent: stored answers are used, the rest is `BudgetSpent`."""
        return self._account.closed()

    @property
    def passed_usd(self) -> float:
        """By how much the limit in money was passed all the same."""
        return self._account.passed_usd

    def part(self, share: float) -> Allowance:
        """A share, in (0, 1], of what is left."""
        most_calls = math.inf if self._settings.budget_calls is None else self._settings.budget_calls
        most_usd = math.inf if self._settings.budget_usd is None else self._settings.budget_usd
        return Allowance((self.calls, most_calls), (self.usd, most_usd)).until(share)

    def admit(self, requests: Sequence[Request], allowance: Allowance, together: int = 1) -> int:
        """How many of these, in order, stay within the allowance by all that is known. Send them, `charge` them, and
        ask again: most cost less than they may. together: how many make one step; a whole number of steps is given."""
        left = allowance.calls[1] - self.calls
        admitted = len(requests)
        if math.isfinite(left):
            admitted = min(admitted, max(0, math.floor(left + _ROUNDING)))
        if math.isinf(allowance.usd[1]):
            return admitted - admitted % together
        reserved = self.usd
        under_way: Counter[str] = Counter()
        for number in range(admitted):
            bound = bound_of(self._model, requests[number])
            reserved += self._account.reserve_usd(bound)
            under_way[bound.kind] += 1
            few = max(together, self._account.may_be_under_way(bound))
            if reserved > allowance.usd[1] or under_way[bound.kind] > few:
                admitted = number
                break
        return admitted - admitted % together

    def charge(self, request: Request, reply: Reply | ModelError) -> None:
        """Where the model keeps no account of its own."""
        if not self.is_kept:
            usage = None if isinstance(reply, ModelError) else reply.usage
            self._account.rest_on(rendering(self._model, request).key, usage, bound_of(self._model, request))
