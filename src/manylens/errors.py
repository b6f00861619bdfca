"""Every error manylens raises on purpose.

In: the rule that was broken, the value that broke it, and the cure. Out: one message that a person can act on.
Promise: each class says whether trying again can help (`retryable`), so callers decide without reading messages.
Programmer errors (TypeError, AssertionError, ...) are not wrapped: they pass through.
"""

from __future__ import annotations

from typing import Literal, TypeAlias


class ManylensError(Exception):
    """The root of all explained errors.

    `rule` is what must hold (and the value got), `hint` is the cure; `str(error)` is both on one line.
    """

    retryable: bool = False

    def __init__(self, rule: str, hint: str = "") -> None:
        self.rule = rule
        self.hint = hint
        super().__init__(f"{rule}: {hint}" if hint else rule)


class UsageError(ManylensError):
    """The caller asked for something that cannot be: a bad setting, an empty interest, a missing folder."""


class ImageUnreadable(ManylensError):
    """One file cannot be read as an image; the run goes on without it."""


class StoreError(ManylensError):
    """The run folder is damaged, held by another process, or was made with other inputs."""


class ModelError(ManylensError):
    """A model call failed. Recorded on its image and counted; never silently dropped.

    `unbilled`: the server said no, so that the request took no tokens. `unsent`: no connection was made, so that none
    left. `public`: what may stand in files that are
    passed on: our words, without a server's own or its address; empty where `str(error)` is that.
    """

    unbilled: bool = False
    unsent: bool = False
    public: str = ""


def public_reason(error: ModelError) -> str:
    """Why a call failed, as result files say it."""
    return error.public or str(error)


class BudgetSpent(ModelError):
    """The call, or the rest of it, was not sent: it could have passed a limit. Says nothing of its image."""


Cause: TypeAlias = Literal["", "rate", "load", "fault", "time"]
"""Why a server is busy. rate: it is asked too often, which is no picture's fault. load: it says that it has no room.
fault, time: it broke, or did not answer in time; where that happens to one picture alone, the picture may be why."""


class ModelBusy(ModelError):
    """The model asked us to come back later (rate limit, overload, time-out, broken connection).

    `retry_after_s` is the wait the server asked for, in seconds, or None where it did not say.
    """

    retryable = True

    def __init__(self, rule: str, hint: str = "", *, retry_after_s: float | None = None, cause: Cause = "") -> None:
        super().__init__(rule, hint)
        self.retry_after_s = retry_after_s
        self.cause = cause


class GivenUp(ModelError):
    """The model fails on this request alone, again and again, while it answers others: later runs leave it out, until
    they are told to ask again."""


class RequestTooLong(ModelError):
    """The request has more text or pictures than the model takes: a shorter one may do."""


class ModelReplyInvalid(ModelError):
    """The model answered, but not in a form that can be used, even after one repair attempt."""


class ModelUnavailable(ModelError):
    """The model cannot be used at all (no server there, wrong key, unknown name): asking on would only repeat it.

    The run stops; what was answered so far is kept.
    """
