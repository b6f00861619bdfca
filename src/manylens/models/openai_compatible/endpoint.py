"""The way to an OpenAI-compatible server: one request in; one JSON reply or one explained error out.

Promises: the key comes from the environment and leaves this file in no message, no attribute, no traceback (errors are
made outside the `except` they come from, so no chain holds the request and its headers); every fault of server and
network becomes a `ModelError` that says whether asking again can help; nothing is asked twice here, retries are the
wrappers' part.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import ipaddress
import os
import re
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from manylens.errors import ModelBusy, ModelError, ModelReplyInvalid, ModelUnavailable, UsageError
from manylens.models.prompts import cut, one_line
from manylens.sync import run_until_done

if TYPE_CHECKING:
    import openai

Json: TypeAlias = dict[str, Any]

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY, OWN_KEY = "OPENAI_API_KEY", "MANYLENS_API_KEY"
CONNECT_TIMEOUT_S = 10.0
MAX_WAIT_S = 3600.0

_KEY_LIKE = re.compile(r"\b(?:sk|pk|gsk|hf)[-_][\w*.\-]{4,}|\bBearer\s+\S+", re.IGNORECASE)
_ABOUT_CONTENT = re.compile(
    r"content.?(?:policy|filter|moderat)|safety|moderation|flagged|responsible ai", re.IGNORECASE
)
_ABOUT_LENGTH = re.compile(
    r"context.?length|maximum context|too many tokens|too large|exceeds? the|too long", re.IGNORECASE
)
_ABOUT_MONEY = re.compile(r"insufficient_quota|billing|credit|payment|current quota", re.IGNORECASE)
_ABOUT_MODEL = re.compile(r"\bmodel\b", re.IGNORECASE)
_IS_IT_ONE = "is that the address of an OpenAI-compatible API (usually HOST:PORT/v1), not of a web page?"
_REFUSED = "it is left out; look at it, or use another model"
_SAID_CHARACTERS, _READ_CHARACTERS = 160, 20_000
"""Of the server's own words, shown and read."""

MOST_NESTING = 30
"""Lists and objects within each other in a reply: those that we ask for have some eight."""

_SHORTEST_SECRET = 8
"""Shorter keys are placeholders (`none`, `EMPTY`, `ollama`): blotting them out would garble the server's words."""


class PageMissing(ModelUnavailable):
    """The server has nothing at this path."""


class Endpoint:
    """One server and one model on it. Every method raises `ModelError`s only."""

    def __init__(self, url: str, model: str, timeout_s: float) -> None:
        self.url = clean_url(url)
        self.model = model
        self.timeout_s = timeout_s
        self._told = ""
        self.was_answered = False
        """Whether the server has answered anything: until it has, a broken connection is a wrong address."""
        _, self.key_name = _key_for(self.url)

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    # The clients read the key themselves, so that it is no attribute of ours.

    @cached_property
    def _client(self) -> openai.AsyncOpenAI:
        sdk = _sdk()
        from manylens.models.openai_compatible.client import open_client

        timeout = sdk.Timeout(self.timeout_s, connect=min(CONNECT_TIMEOUT_S, self.timeout_s))
        return open_client(self.url, _key_for(self.url)[0], timeout, trust_env=not is_loopback(self.url))

    def ask_now(self, path: str, body: Json | None = None) -> Json:
        """The same as `ask`, for the few requests that are sent before a run begins. No body: GET."""

        async def once() -> Json:
            try:
                return await self.ask(path, body)
            finally:
                await self.close()

        return run_until_done(once())

    async def ask(self, path: str, body: Json | None) -> Json:
        """POST a JSON body, or GET without one; the reply's JSON object, within `timeout_s` and some."""
        sdk = _sdk()
        reply: object = None
        problem: ModelError | None = None
        try:
            # The client's own limit is per read: a server that sends a byte now and then would never end.
            async with asyncio.timeout(self.timeout_s + CONNECT_TIMEOUT_S):
                if body is None:
                    reply = await self._client.get(path, cast_to=object)
                else:
                    reply = await self._client.post(path, cast_to=object, body=body)
        except (sdk.OpenAIError, ValueError, TimeoutError, RecursionError) as error:
            problem = self._explain(error)
        if problem is None:
            try:
                return self._checked(reply)
            except ModelError as error:
                problem = error.with_traceback(None)
        problem.public = self._public(problem)
        raise problem

    async def close(self) -> None:
        if "_client" in self.__dict__:
            await self._client.close()
            del self.__dict__["_client"]

    # Faults

    def _public(self, problem: ModelError) -> str:
        """In our words alone: result files are passed on."""
        ours = str(problem)
        for theirs, instead in ((self._told, ""), (self.url, "the server"), (self.host, "the server")):
            ours = ours.replace(theirs, instead) if theirs else ours
        return ours

    def _checked(self, reply: object) -> Json:
        """The reply's object; some servers report errors with status 200 (OpenRouter, LM Studio)."""
        self.was_answered = True
        if not isinstance(reply, dict) or not _is_shallow(reply, MOST_NESTING):
            raise self._not_json()
        if reply.get("error") and not reply.get("choices") and not reply.get("data"):
            code = reply["error"].get("code") if isinstance(reply["error"], dict) else None
            status = code if isinstance(code, int) and 400 <= code < 600 else 500
            raise self._by_status(status, reply, {})
        key, name = _key_for(self.url)
        hidden: Json = _without(key, reply) if name and len(key) >= _SHORTEST_SECRET else reply
        return hidden

    def _not_json(self) -> ModelBusy:
        return ModelBusy(
            f"{self.url} must answer in JSON and did not",
            _IS_IT_ONE,
        )

    def _explain(self, error: Exception) -> ModelError:
        """What a failure of the client means. Never holds the failure: its request has the key in its headers."""
        sdk = _sdk()
        if "ReplyTooLarge" in _names(error):
            self.was_answered = True
            return ModelReplyInvalid(f"a reply of {self.host} is larger than any that is asked for", _IS_IT_ONE)
        if isinstance(error, sdk.APIStatusError):
            self.was_answered = True
            refusal = self._by_status(error.status_code, error.body, error.response.headers)
            refusal.unbilled = True
            return refusal
        if isinstance(error, sdk.APITimeoutError | TimeoutError):
            if _names(error) & {"ConnectTimeout"} and not self.was_answered:
                return self._nobody()
            return ModelBusy(
                f"a call to {self.host} took longer than {self.timeout_s:g} s",
                "give it more time with --timeout, or send fewer calls at once with --concurrency",
            )
        if isinstance(error, sdk.APIConnectionError):
            if not self.was_answered and _names(error) & {"ConnectError", "UnsupportedProtocol"}:
                return self._nobody()
            return ModelBusy(f"the connection to {self.host} broke", "is the server still running? See its log")
        if isinstance(error, ValueError | RecursionError):
            return self._not_json()
        return ModelUnavailable(f"the client cannot be used ({type(error).__name__})", f"check the key in {OWN_KEY}")

    def _nobody(self) -> ModelUnavailable:
        return ModelUnavailable(
            f"no server answers at {self.url}", "start it, or pass its address, port included, with --base-url"
        )

    def _by_status(self, status: int, body: object, headers: Mapping[str, str]) -> ModelError:
        said = self._said(body)
        self._told = told = f': it says "{said}"' if said else ""
        where = f"{self.host} answered {status}"
        if status == 401 or (status == 403 and not _ABOUT_CONTENT.search(said)):
            return ModelUnavailable(f"{self.host} refuses the key ({status})", self._key_hint())
        if status == 402 or (status == 429 and _ABOUT_MONEY.search(f"{said} {_code(body)}")):
            return ModelUnavailable(
                f"the account at {self.host} has no credit left ({status})", "add credit, run again"
            )
        if status in (400, 403, 422) and _ABOUT_CONTENT.search(f"{said} {_code(body)}"):
            return ModelError(f"{self.host} refuses this picture by its content rules ({status})", _REFUSED)
        if status == 413 or (status in (400, 422) and _ABOUT_LENGTH.search(said)):
            return ModelError(
                f"{where}{told}", "send smaller pictures with --image-px, or give the server more context"
            )
        if status == 404 and (_code(body) == "model_not_found" or _ABOUT_MODEL.search(said)):
            return ModelUnavailable(
                f"{self.host} knows no model {self.model!r}", "pass --model with a name that this server has"
            )
        if 300 <= status < 400:
            return ModelUnavailable(
                f"{self.url} leads elsewhere ({status}), where no key and no picture follows",
                "pass the address that it leads to with --base-url",
            )
        if status in (404, 405, 501):
            return PageMissing(f"{self.url} lacks what was asked for ({status})", _IS_IT_ONE)
        if status == 429:
            hint = "it is asked too fast; lower --concurrency"
            return ModelBusy(f"{where}{told}", hint, retry_after_s=retry_after(headers))
        if status in (408, 409, 425) or (status >= 500 and status != 505):
            return ModelBusy(f"{where}{told}", "see the server's log", retry_after_s=retry_after(headers))
        return ModelError(f"{where}{told}", "see the server's log")

    def _key_hint(self) -> str:
        if self.key_name:
            return f"put a valid one into {self.key_name}"
        return f"put the server's key into {OWN_KEY}"

    def _said(self, body: object) -> str:
        """The server's own words on one line, without anything that looks like a key."""
        message: object = body
        if isinstance(body, dict):
            inner = body.get("error", body)
            message = inner.get("message", "") if isinstance(inner, dict) else inner
        if not isinstance(message, str):
            return ""
        text = one_line(re.sub(r"<[^<>]*>", " ", message[:_READ_CHARACTERS]))
        key, _ = _key_for(self.url)
        hidden = text.replace(key, "[key]") if len(key) >= _SHORTEST_SECRET else text
        return cut(_KEY_LIKE.sub("[key]", hidden), _SAID_CHARACTERS)


def _without(key: str, value: Any) -> Any:
    """A JSON value without the key in any of its texts: a server may repeat what it was sent, and answers are kept."""
    if isinstance(value, str):
        return value.replace(key, "[key]")
    if isinstance(value, dict):
        return {_without(key, name): _without(key, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return value if value and isinstance(value[0], float) else [_without(key, inner) for inner in value]
    return value


def _code(body: object) -> str:
    inner = body.get("error", body) if isinstance(body, dict) else None
    return str(inner.get("code") or inner.get("type") or "")[:_SAID_CHARACTERS] if isinstance(inner, dict) else ""


def _is_shallow(value: object, most: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most > 0 and all(_is_shallow(one, most - 1) for one in inner if isinstance(one, dict | list))


def _names(error: BaseException | None) -> set[str]:
    """Class names along a chain of causes: the HTTP library's own classes are no interface of the SDK."""
    names: set[str] = set()
    while error is not None:
        names.add(type(error).__name__)
        error = error.__cause__
    return names


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds the server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date; None without."""
    with_ms = _number(headers.get("retry-after-ms"))
    wait = with_ms / 1000 if with_ms is not None else _number(headers.get("retry-after"))
    if wait is None and headers.get("retry-after"):
        with contextlib.suppress(ValueError, OverflowError, TypeError):  # a date in the year 99999
            parsed = email.utils.parsedate_tz(headers["retry-after"])
            wait = None if parsed is None else email.utils.mktime_tz(parsed) - now()
    return None if wait is None else min(max(wait, 0.0), MAX_WAIT_S)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value == value else None


def clean_url(url: str) -> str:
    """The address in one form. Raises UsageError where it is none, or holds a key: those are in the environment."""
    try:
        parts = urlsplit(url.strip())
        parts.port  # noqa: B018  # raises where it is no number
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            f"--base-url is an address like http://localhost:8000/v1, got {url.rpartition('@')[2][:80]!r}",
            "give the scheme, the host and the port",
        )
    if parts.username or parts.password or parts.query:
        raise UsageError(
            f"--base-url holds no key, password or query, got one for {parts.hostname}", f"put the key into {OWN_KEY}"
        )
    return urlunsplit((parts.scheme, parts.netloc.lower(), parts.path.rstrip("/"), "", ""))


def check_variables(url: str) -> None:
    """Raises UsageError or ModelUnavailable where a variable of the environment stands in the way of this server."""
    key, name = _key_for(url)
    _sdk()
    from manylens.models.openai_compatible.client import check_environment, check_header

    for named, value in ((name, key), *((named, os.environ.get(named, "")) for named in _SENT)):
        check_header(named, value)
    if not is_loopback(url):
        check_environment()


_SENT = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
"""The client sends what is in these along."""


def is_loopback(url: str) -> bool:
    """Whether the server is on this machine: then no proxy stands between."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _key_for(url: str) -> tuple[str, str]:
    """The key and the variable it is from; a placeholder and "" where there is none (local servers want none)."""
    official = urlsplit(url).hostname == urlsplit(OPENAI_URL).hostname
    for name in (OPENAI_KEY, OWN_KEY) if official else (OWN_KEY, OPENAI_KEY):
        key = os.environ.get(name, "").strip(" \t\r\n")
        if key:
            return key, name
    if official:
        raise ModelUnavailable("OpenAI's models need a key, none is set", f"export {OPENAI_KEY}=... and run again")
    return "no-key-needed", ""


def _sdk() -> Any:
    """The openai package, imported when a server is used."""
    try:
        import openai
    except ImportError:
        problem = ModelUnavailable(
            "models behind a server need the openai package, it is not installed", "pip install 'manylens[server]'"
        )
    else:
        return openai
    raise problem
