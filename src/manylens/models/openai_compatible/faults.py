"""What a server's refusal means: whether to wait and how long, whether money, the key, the model or the picture is at
fault, or the address.

In: a status, a body, headers. Out: a `ModelError` of ours, and the seconds to wait that a server names, wherever it
names them. Promise: whatever these hold, nothing else is raised, and no text is searched beyond its beginning.
"""

from __future__ import annotations

import contextlib
import email.utils
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from manylens.errors import Cause, ModelBusy, ModelError, ModelUnavailable, RequestTooLong
from manylens.models.retrying import LONGEST_RETRY_AFTER_S
from manylens.text import duration

Json: TypeAlias = dict[str, Any]

MAX_WAIT_S = 7 * 86_400.0
"""Whatever a server says beyond that is taken for a week."""

_ABOUT_CONTENT = re.compile(
    r"content.?(?:policy|filter|moderat)|safety|moderation|flagged|responsible ai", re.IGNORECASE
)
_ABOUT_LENGTH = re.compile(
    r"context.?(?:length|size|window)|maximum context|n_ctx|max_model_len|too many tokens|too large|exceeds? the"
    r"|too long|reduce the length|maximum prompt|less than \d+ tokens|exceeds? (?:max|\d)|too many images"
    r"|at most \d+ images?\b|at most \d+ image\(s\)",
    re.IGNORECASE,
)
_ABOUT_NO_CREDIT = re.compile(
    r"insufficient_quota|insufficient[_ ](?:balance|funds|credits?)|credit balance|key limit exceeded|out of credits?",
    re.IGNORECASE,
)
"""In whatever status: words that are about nothing else."""

_ABOUT_MONEY = re.compile(
    r"insufficient_quota|insufficient (?:balance|funds|credit)|billing|credit|payment|current quota|recharge|top up",
    re.IGNORECASE,
)
_ABOUT_A_WHILE = re.compile(
    r"rate.?limit|too many requests|requests? per|tokens? per|per.?(?:second|minute|hour)\b|\b[rt]p[smd]\b"
    r"|/ ?(?:s|sec|min|minute|hour)\b|try again|slow down",
    re.IGNORECASE,
)
_ABOUT_A_DAY = re.compile(
    r"per.?(?:day|week|month)\b|\b[rt]pd\b|daily|weekly|monthly|hourly|\d.?hour\b|/ ?day\b|tomorrow|PerDay|for today",
    re.IGNORECASE,
)
_A_DAY_S_QUOTA = re.compile(r"Per(?:Day|Week|Month)")
"""Names of Gemini's quotas; beside one of a day it asks to come back in half a minute."""

_ABOUT_MODEL = re.compile(r"\bmodel\b", re.IGNORECASE)
_NOTHING_LOADED = re.compile(r"\bno models? (?:is |are |currently )*loaded", re.IGNORECASE)
_CRASHED = re.compile(r"\bmodel (?:has |is |was )?(?:crashed|unloaded)", re.IGNORECASE)
"""LM Studio says so with status 400; asked again, it loads the model."""

_ABOUT_ADDRESS = re.compile(
    r"unexpected endpoint|(?:unknown|invalid|no such|unsupported) (?:endpoint|route|path|url|page)"
    r"|(?:endpoint|route|path|url|page) (?:was )?not found|cannot (?:get|post) /|no route|not found: (?:get|post)"
    r"|plain http request was sent to|http request to an https",
    re.IGNORECASE,
)
IS_IT_ONE = "is that the address of an OpenAI-compatible API (usually HOST:PORT/v1), not of a web page?"
_REFUSED = "it is left out; look at it, or use another model"
_CODE_CHARACTERS, READ_CHARACTERS = 160, 20_000
"""Of a code, and of a server's own words, read."""


class PageMissing(ModelUnavailable):
    """The server has nothing at this path."""


class Nobody(ModelUnavailable):
    """No server answers there."""


class NotJson(ModelBusy):
    """Something answered, and in no JSON."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom a request was for. key_hint: what to do where the key is refused."""

    host: str
    url: str
    model: str
    key_hint: str


def refusal(asked: Asked, status: int, body: object, headers: Mapping[str, str], said: str) -> ModelError:
    """said: the server's own words, fit to be shown."""
    told = f': it says "{said}"' if said else ""
    where = f"{asked.host} answered {status}"
    code = code_of(body)
    words = f"{said} {code}"
    wait_s = wait_of(status, body, headers)
    if status < 500 and _CRASHED.search(said):
        return ModelBusy(f"{where}{told}", "see the server's log", retry_after_s=wait_s, cause="fault")
    if status == 429:
        return _too_much(asked, words, told, wait_s, _quotas(body))
    if status == 402 or (status < 500 and _ABOUT_NO_CREDIT.search(words)):
        return _no_credit(asked, status)
    if status == 401:
        return ModelUnavailable(f"{asked.host} refuses the key ({status})", asked.key_hint)
    if status == 407:
        return ModelUnavailable(
            "the proxy between here and the server wants a name and a password (407)",
            "set HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT, or NO_PROXY for a server that is reached without it",
        )
    if _NOTHING_LOADED.search(said):
        return ModelUnavailable(f"{where}{told}", f"load {asked.model} there, and run the same command again")
    if status == 403 and not _ABOUT_CONTENT.search(said) and "model_not_found" not in code:
        return ModelUnavailable(f"{asked.host} refuses the key, or who asks ({status}){told}", asked.key_hint)
    if status in (400, 403, 422) and _ABOUT_CONTENT.search(words):
        return ModelError(f"{asked.host} refuses this picture by its content rules ({status})", _REFUSED)
    if status == 413 or (status in (400, 422, 500) and _ABOUT_LENGTH.search(said)):
        return RequestTooLong(
            f"{where}{told}", "send smaller pictures with --image-px, or give the server more context"
        )
    is_model = "model_not_found" in code or (_ABOUT_MODEL.search(said) and not _ABOUT_ADDRESS.search(said))
    if (status == 404 and is_model) or (status == 403 and "model_not_found" in code):
        return ModelUnavailable(
            f"{asked.host} knows no model {asked.model!r}", "pass --model with a name that this server has"
        )
    if 300 <= status < 400:
        return ModelUnavailable(
            f"{asked.url} leads elsewhere ({status}), where no key and no picture follows",
            "pass the address that it leads to with --base-url",
        )
    if status in (404, 405, 501) or (status < 500 and _ABOUT_ADDRESS.search(said)):
        return PageMissing(f"{asked.url} lacks what was asked for ({status})", IS_IT_ONE)
    if status in (408, 409, 425) or (status >= 500 and status != 505):
        if wait_s is not None and wait_s > LONGEST_RETRY_AFTER_S:
            return _come_back(asked, wait_s)
        cause: Cause = "rate" if wait_s else "load" if status in (408, 425, 503, 504, 529) else "fault"
        return ModelBusy(f"{where}{told}", "see the server's log", retry_after_s=wait_s, cause=cause)
    return ModelError(f"{where}{told}", "see the server's log")


def error_of_200(asked: Asked, reply: Json, said: str) -> ModelError:
    """Some servers report errors with status 200 (OpenRouter, LM Studio)."""
    inner = reply.get("error")
    code = inner.get("code") if isinstance(inner, dict) else None
    if _ABOUT_ADDRESS.search(said):
        return PageMissing(f"{asked.url} lacks what was asked for", IS_IT_ONE)
    status = int(code) if isinstance(code, str) and code.isdecimal() and len(code) == 3 else code
    return refusal(asked, status if isinstance(status, int) and 400 <= status < 600 else 500, reply, {}, said)


def _no_credit(asked: Asked, status: int) -> ModelUnavailable:
    return ModelUnavailable(f"the account at {asked.host} has no credit left ({status})", "add credit, run again")


def _come_back(asked: Asked, wait_s: float) -> ModelUnavailable:
    at = time.strftime("%H:%M" if wait_s < 12 * 3600 else "%d %B, %H:%M", time.localtime(time.time() + wait_s))
    return ModelUnavailable(
        f"{asked.host} allows no more for now: it asks to come back in {duration(wait_s)} (at {at})",
        "run the same command then: it goes on from here",
    )


def _too_much(asked: Asked, words: str, told: str, wait_s: float | None, quotas: str) -> ModelError:
    """A 429. Limits for a minute speak of quotas and billing, too: it is about money where no wait and no rate is
    named. One that names a wait and is not kept ends in `RetryingModel`, with the server's words."""
    if wait_s is not None and wait_s > LONGEST_RETRY_AFTER_S:
        return _come_back(asked, wait_s)
    about_money = bool(_ABOUT_MONEY.search(words))
    if wait_s is None or _A_DAY_S_QUOTA.search(quotas):
        if _ABOUT_A_DAY.search(f"{words} {quotas}"):
            return ModelUnavailable(
                f"{asked.host} allows no more for today (429){told}",
                "run the same command when it does: it goes on from here",
            )
        if about_money and ("insufficient_quota" in words or not _ABOUT_A_WHILE.search(words)):
            return _no_credit(asked, 429)
    lasting = " (if that lasts, its account may have no credit left)" if about_money else ""
    hint = f"it is asked too fast; lower --concurrency{lasting}"
    return ModelBusy(f"{asked.host} answered 429{told}", hint, retry_after_s=wait_s, cause="rate")


# --- reading bodies ---------------------------------------------------------------------------------------------------


def error_object(body: object) -> object:
    """What a body says of its error: its `error`, where it has one; of a list its first."""
    if isinstance(body, list) and body:
        body = body[0]
    return body.get("error", body) if isinstance(body, dict) else body


def message_of(body: object) -> str:
    inner = error_object(body)
    message = (inner.get("message") or inner.get("detail") or "") if isinstance(inner, dict) else inner
    if isinstance(message, list) and message and isinstance(message[0], dict):  # FastAPI's complaints, the first
        message = message[0].get("msg")
    return message if isinstance(message, str) else ""


def _quotas(body: object) -> str:
    """The names of quotas that are used up, where a body has them in its details."""
    inner = error_object(body)
    details = inner.get("details") if isinstance(inner, dict) else None
    violations = [
        one
        for detail in (details[:20] if isinstance(details, list) else ())
        if isinstance(detail, dict) and isinstance(detail.get("violations"), list)
        for one in detail["violations"][:20]
    ]
    return " ".join(str(one.get("quotaId"))[:_CODE_CHARACTERS] for one in violations if isinstance(one, dict))


def code_of(body: object) -> str:
    inner = error_object(body)
    if not isinstance(inner, dict):
        return ""
    return " ".join(str(inner[name])[:_CODE_CHARACTERS] for name in ("code", "type", "status") if inner.get(name))


# --- waits ------------------------------------------------------------------------------------------------------------

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(
    r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-z])",
    re.IGNORECASE,
)
_SAID_WAIT = re.compile(
    r"(?:(?:try|retry|wait|come back|available|reset)\w*(?: again| your request)?(?: in| after| for)?[: ]+"
    r"(?:at least |about |another )?)((?:\d[\d.]*\s*[a-z]+[ ,]*(?:and )?){1,4})",
    re.IGNORECASE,
)


def wait_of(status: int, body: object, headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait: in a header, in the body's own fields, or in words; None where it does not."""
    wait = retry_after(headers)
    if wait is None and (status == 429 or status >= 500):
        wait = next((found for found in _waits_in(body) if found is not None), None)
    if wait is None and status == 429:
        said = _SAID_WAIT.search(message_of(body)[:READ_CHARACTERS])
        wait = None if said is None else seconds_of(said[1])
    return None if wait is None else min(max(wait, 0.0), MAX_WAIT_S)


def _waits_in(body: object) -> Iterator[float | None]:
    inner = error_object(body)
    if not isinstance(inner, dict):  # a text, beside which other fields may stand
        inner = body if isinstance(body, dict) else {}
    for name in ("retry_after", "retry_after_s", "retryDelay", "retry_delay", "estimated_time"):
        yield _as_seconds(inner.get(name))
    details = inner.get("details")
    for detail in details[:20] if isinstance(details, list) else ():
        if isinstance(detail, dict):
            yield _as_seconds(detail.get("retryDelay"))
    metadata = inner.get("metadata")
    kept = metadata.get("headers") if isinstance(metadata, dict) else None
    if isinstance(kept, dict):  # OpenRouter passes on what it was told
        yield retry_after({str(name).lower(): str(value) for name, value in list(kept.items())[:50]})


def _as_seconds(value: object) -> float | None:
    if isinstance(value, str):
        return _number(value) if _number(value) is not None else seconds_of(value)
    return float(value) if type(value) in (int, float) and 0 <= value < 1e9 else None  # type: ignore[arg-type, operator]


def seconds_of(text: str) -> float | None:
    """ "1m26.4s", "90 seconds", "2 hours and 5 minutes" in seconds; None for what is no duration."""
    parts = _PART.findall(text[:100])
    if not parts:
        return None
    return sum(float(number) * _UNITS["ms" if unit[:2].lower() in ("ms",) or unit.lower().startswith("milli")
                                      else unit[0].lower()] for number, unit in parts)  # fmt: skip


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds by `retry-after-ms`, by `Retry-After` in seconds or as a date, or by when a limit that is used up is set
    back (`x-ratelimit-reset`, in seconds, or as a time in seconds or milliseconds); None without."""
    with_ms = _number(headers.get("retry-after-ms"))
    wait = with_ms / 1000 if with_ms is not None else _number(headers.get("retry-after"))
    if wait is None and headers.get("retry-after"):
        with contextlib.suppress(ValueError, OverflowError, TypeError):  # a date in the year 99999
            parsed = email.utils.parsedate_tz(headers["retry-after"])
            wait = None if parsed is None else email.utils.mktime_tz(parsed) - now()
        if wait is None:
            wait = seconds_of(headers["retry-after"])
    if wait is None and _number(headers.get("x-ratelimit-remaining")) in (None, 0.0):
        reset = _number(headers.get("x-ratelimit-reset"))
        if reset is not None and reset >= 0:
            wait = reset / 1000 - now() if reset > 1e11 else reset - now() if reset > 1e8 else reset
    return None if wait is None else min(max(wait, 0.0), MAX_WAIT_S)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value == value else None
