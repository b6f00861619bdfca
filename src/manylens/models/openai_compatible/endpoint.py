"""The way to an OpenAI-compatible server: one request in; one JSON reply or one explained error out.

Promises: the key comes from the environment and leaves this file in no message, no attribute, no traceback (errors are
made outside the `except` they come from, so no chain holds the request and its headers); every fault of server and
network becomes a `ModelError` that says whether asking again can help; nothing is asked twice here, retries are the
wrappers' part.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from manylens.errors import ModelBusy, ModelError, ModelReplyInvalid, ModelUnavailable
from manylens.models.openai_compatible.addresses import clean_url, is_loopback, is_official
from manylens.models.openai_compatible.faults import (
    IS_IT_ONE,
    READ_CHARACTERS,
    Asked,
    Nobody,
    NotJson,
    error_of_200,
    message_of,
    refusal,
)
from manylens.models.prompts import cut, one_line
from manylens.sync import run_until_done

if TYPE_CHECKING:
    import openai

Json: TypeAlias = dict[str, Any]

OPENAI_KEY, OWN_KEY = "OPENAI_API_KEY", "MANYLENS_API_KEY"
NO_KEY = "no-key-needed"
CONNECT_TIMEOUT_S = 10.0

_KEY_LIKE = re.compile(r"\b(?:sk|pk|gsk|hf)[-_][\w*.\-]{4,}|\bBearer\s+\S+", re.IGNORECASE)
_SAID_CHARACTERS = 160
"""Of the server's own words, shown."""

MOST_NESTING = 30
"""Lists and objects within each other in a reply: those that we ask for have some eight."""

_SHORTEST_SECRET = 8
"""Shorter keys are placeholders (`none`, `EMPTY`, `ollama`): blotting them out would garble the server's words."""


class Endpoint:
    """One server and one model on it. Every method raises `ModelError`s only."""

    def __init__(self, url: str, model: str, timeout_s: float, *, keyless: bool = False) -> None:
        self.url = clean_url(url)
        self.model = model
        self.timeout_s = timeout_s
        self._told = ""
        self._keyless = keyless
        self.was_answered = False
        """Whether the server has answered anything: until it has, a broken connection is a wrong address."""
        self.spoke_json = False
        """Whether any answer, refusals included, was the JSON of an API."""
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
        key = NO_KEY if self._keyless else _key_for(self.url)[0]
        client = open_client(self.url, key, timeout, trust_env=not is_loopback(self.url))
        if not is_official(self.url):  # it has read these from the environment
            client.organization = client.project = None
        return client

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
            problem.unsent = bool(_names(error) & _NO_CONNECTION)
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
            said = self._said(reply)
            raise error_of_200(self._asked(said), reply, said)
        self.spoke_json = True
        key, name = _key_for(self.url)
        hidden: Json = _without(key, reply) if name and len(key) >= _SHORTEST_SECRET else reply
        return hidden

    def _not_json(self) -> NotJson:
        return NotJson(f"{self.url} must answer in JSON and did not", IS_IT_ONE)

    def _explain(self, error: Exception) -> ModelError:
        """What a failure of the client means. Never holds the failure: its request has the key in its headers."""
        sdk = _sdk()
        if "ReplyTooLarge" in _names(error):
            self.was_answered = True
            return ModelReplyInvalid(f"a reply of {self.host} is larger than any that is asked for", IS_IT_ONE)
        if isinstance(error, sdk.APIStatusError):
            self.was_answered = True
            self.spoke_json |= isinstance(error.body, dict) and "message" in error.body
            refusal = self._by_status(error.status_code, error.body, error.response.headers)
            refusal.unbilled = True
            return refusal
        if isinstance(error, sdk.APITimeoutError | TimeoutError):
            if _names(error) & {"ConnectTimeout"} and not self.was_answered:
                return self._nobody()
            return ModelBusy(
                f"a call to {self.host} took longer than {self.timeout_s:g} s",
                "give it more time with --timeout, or send fewer calls at once with --concurrency",
                cause="time",
            )
        if isinstance(error, sdk.APIConnectionError):
            if not self.was_answered and _names(error) & {"ConnectError", "UnsupportedProtocol"}:
                return self._nobody()
            hint = "is the server still running? See its log"
            return ModelBusy(f"the connection to {self.host} broke", hint, cause="fault")
        if isinstance(error, ValueError | RecursionError):
            return self._not_json()
        return ModelUnavailable(f"the client cannot be used ({type(error).__name__})", f"check the key in {OWN_KEY}")

    def _nobody(self) -> Nobody:
        return Nobody(
            f"no server answers at {self.url}", "start it, or pass its address, port included, with --base-url"
        )

    def _by_status(self, status: int, body: object, headers: Mapping[str, str]) -> ModelError:
        said = self._said(body)
        return refusal(self._asked(said), status, body, headers, said)

    def _asked(self, said: str) -> Asked:
        self._told = f': it says "{said}"' if said else ""
        return Asked(self.host, self.url, self.model, self._key_hint())

    def _key_hint(self) -> str:
        if self.key_name:
            return f"put a valid one into {self.key_name}"
        return f"put the server's key into {OWN_KEY}"

    def _said(self, body: object) -> str:
        """The server's own words on one line, without anything that looks like a key."""
        text = one_line(re.sub(r"<[^<>]*>", " ", message_of(body)[:READ_CHARACTERS]))
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


def _is_shallow(value: object, most: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most > 0 and all(_is_shallow(one, most - 1) for one in inner if isinstance(one, dict | list))


_NO_CONNECTION = {"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol"}
"""The HTTP library's errors for requests of which no byte left."""


def _names(error: BaseException | None) -> set[str]:
    """Class names along a chain of causes: the HTTP library's own classes are no interface of the SDK."""
    names: set[str] = set()
    while error is not None:
        names.add(type(error).__name__)
        error = error.__cause__
    return names


def check_variables(url: str) -> None:
    """Raises UsageError or ModelUnavailable where a variable of the environment stands in the way of this server."""
    key, name = _key_for(url)
    _sdk()
    from manylens.models.openai_compatible.client import check_environment, check_header

    sent = _SENT if is_official(url) else ()
    for named, value in ((name, key), *((named, os.environ.get(named, "")) for named in sent)):
        check_header(named, value)
    if not is_loopback(url):
        check_environment()


_SENT = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
"""The client sends what is in these along to OpenAI, and to nobody else."""


def _key_for(url: str) -> tuple[str, str]:
    """The key and the variable it is from; a placeholder and "" where there is none (local servers want none)."""
    official = is_official(url)
    for name in (OPENAI_KEY, OWN_KEY) if official else (OWN_KEY, OPENAI_KEY):
        key = os.environ.get(name, "").strip(" \t\r\n")
        if key:
            return key, name
    if official:
        raise ModelUnavailable("OpenAI's models need a key, none is set", f"export {OPENAI_KEY}=... and run again")
    return NO_KEY, ""


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
