"""The HTTP client behind an endpoint: what a server may cost us, and what the environment may get wrong.

In: the server's address, a key. Out: an `openai` client. Promises: a reply of more than `MOST_REPLY_BYTES`, as it is
after decompression, ends its request; no redirect is followed, so key, organisation and pictures go to the address that
was given and to no other; a variable that cannot be used is named in one line, and its content is not shown where it
may hold a key. Imported when a server is used.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
import unicodedata
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import openai

from manylens.errors import ModelUnavailable, UsageError

MOST_REPLY_BYTES = 64 << 20


class ReplyTooLarge(ValueError):
    """A reply has more bytes than any that we ask for."""


class _Client(openai.DefaultAsyncHttpxClient):
    """Reads bodies itself, piece by piece: the library's own reading joins whatever comes."""

    async def send(self, request: Any, *, stream: bool = False, **how: Any) -> Any:
        response = await super().send(request, stream=True, **how)
        if stream:
            return response
        try:
            pieces: list[bytes] = []
            size = 0
            async for piece in response.aiter_bytes():
                size += len(piece)
                if size > MOST_REPLY_BYTES:
                    raise ReplyTooLarge
                pieces.append(piece)
        finally:
            await response.aclose()
        told = [(name, value) for name, value in response.headers.items() if name.lower() not in _OF_THE_WIRE]
        return type(response)(response.status_code, headers=told, content=b"".join(pieces), request=request)


_OF_THE_WIRE = ("content-encoding", "content-length", "transfer-encoding")


def open_client(url: str, key: str, timeout: Any, *, trust_env: bool) -> openai.AsyncOpenAI:
    """Raises ModelUnavailable where the environment allows none."""
    try:
        return openai.AsyncOpenAI(
            base_url=url,
            api_key=key,
            max_retries=0,
            timeout=timeout,
            http_client=_Client(trust_env=trust_env, follow_redirects=False, timeout=timeout),
        )
    except (ImportError, OSError, ValueError, openai.OpenAIError) as error:
        kind = type(error).__name__
    raise ModelUnavailable(
        f"no client for {url} can be made ({kind})", "check the variables for keys, proxies and certificates"
    )


def check_header(name: str, value: str) -> None:
    """Raises UsageError where the value of a variable cannot be sent in a header, without showing it."""
    for place, c in enumerate(value, start=1):
        if not "!" <= c <= "~":
            what = unicodedata.name(c, "").lower() or f"the control character {ord(c)}"
            raise UsageError(
                f"{name} holds plain letters, digits and signs only, character {place} of it is {what}",
                f"set {name} again, typed or copied without quotes and line breaks",
            )
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'`":
        raise UsageError(f"{name} stands in quotes, which are no part of it", f"set {name} again without them")


def check_environment() -> None:
    """Raises UsageError where a proxy or a certificate that a variable names cannot be used."""
    for scheme, address in getproxies().items():
        if scheme in ("http", "https", "all") and address:
            _check_proxy(scheme, address)
    for name, exists in (("SSL_CERT_FILE", os.path.isfile), ("SSL_CERT_DIR", os.path.isdir)):
        place = os.environ.get(name)
        if not place:
            continue
        if not exists(place):
            raise UsageError(f"{name} names certificates, there is nothing of the kind at {place!r}", f"unset {name}")
        if name == "SSL_CERT_FILE":
            try:
                ssl.create_default_context(cafile=place)
            except OSError as error:  # ssl.SSLError is one
                kind = type(error).__name__
            else:
                continue
            raise UsageError(f"{name} names certificates, {place!r} cannot be read as such ({kind})", f"unset {name}")


def _check_proxy(scheme: str, address: str) -> None:
    names = [name for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper()) if os.environ.get(name)]
    name = names[0] if names else f"the system's {scheme} proxy"
    leave_out = f"unset {name}" if names else "change it in the system's settings"
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        usable = bool(parts.hostname)
        parts.port  # noqa: B018  # raises where it is no number
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{name} is a proxy's address like http://localhost:3128, it holds none", leave_out)
    if parts.scheme in ("socks5", "socks5h"):
        if importlib.util.find_spec("socksio") is None:
            raise UsageError(
                f"{name} names a SOCKS proxy, which needs a package that is not installed",
                f"pip install socksio, or {leave_out}",
            )
    elif parts.scheme not in ("http", "https"):
        raise UsageError(f"{name} is a proxy of http, https or socks5, got {parts.scheme!r}", leave_out)
