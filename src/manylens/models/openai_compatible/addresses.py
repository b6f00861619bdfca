"""Addresses: one form, and what may have been meant by one at which no API answers.

In: what a person typed. Out: an address that can be asked, or an error with the one that would do. Promise: another
scheme is tried without a key, which goes to nobody in plain text who was to have it encrypted.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from urllib.parse import SplitResult, urlsplit, urlunsplit

from manylens.errors import ModelUnavailable, UsageError

OPENAI_URL = "https://api.openai.com/v1"
_AROUND = " \t\r\n\"'`<>\u201c\u201d\u2018\u2019\u00a0\u200b\ufeff"
"""What is copied along with an address from a document."""

_ENDINGS = re.compile(
    r"(?:/(?:chat/completions|completions|models|responses|embeddings|chat|generate|messages|tags|embed))+$"
)
_PLACES = ("/v1", "/api/v1", "/openai/v1", "/api", "/v1beta/openai")
"""Where servers have their OpenAI-compatible API: most of them, OpenRouter, Groq, Open WebUI, Gemini."""


def clean_url(url: str) -> str:
    """The address in one form. Raises UsageError where it is none, or holds a key: those are in the environment."""
    url = url.strip(_AROUND)
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises where it is no number
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        meant = _meant(url)
        raise UsageError(
            f"--base-url is an address like http://localhost:8000/v1, got {url.rpartition('@')[2][:80]!r}",
            f"is it {meant}?" if meant else "give the scheme, the host and the port",
        )
    if parts.username or parts.password or parts.query:
        raise UsageError(
            f"--base-url holds no key, password or query, got one for {parts.hostname}",
            "put the key into MANYLENS_API_KEY",
        )
    path = re.sub("/{2,}", "/", parts.path).rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc.lower(), path, "", ""))


def _meant(url: str) -> str:
    """With the scheme that is missing or misspelled; "" where that makes no address either."""
    rest = re.sub(r"^(?:[a-z]{3,6}:/{0,3}|https?/{1,3}|/{1,3})(?=[a-z0-9\[])", "", url, flags=re.IGNORECASE)
    if "@" in rest or "?" in rest:
        return ""
    secure = url.lower().startswith("https") or not _looks_near(rest)
    address = f"{'https' if secure else 'http'}://{rest}"
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018
        fits = re.fullmatch(r"[a-z0-9.-]+|[0-9a-f:]+", parts.hostname or "", re.IGNORECASE)
    except ValueError:
        return ""
    return address.rstrip("/") if fits else ""


def _looks_near(rest: str) -> bool:
    """A machine of this network, which few give a certificate: by number, by a bare name, or with a port of its own."""
    host, _, port = rest.partition("/")[0].partition(":")
    return "." not in host or host.replace(".", "").isdecimal() or port not in ("", "443")


def is_official(url: str) -> bool:
    """Whether the server is OpenAI's own."""
    return urlsplit(url).hostname == urlsplit(OPENAI_URL).hostname


def is_loopback(url: str) -> bool:
    """Whether the server is on this machine: then no proxy stands between."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def others(url: str, *, unheard: bool) -> Iterator[str]:
    """Addresses that may have been meant, the likeliest first. unheard: nobody spoke HTTP there."""
    parts = urlsplit(url)
    path = _ENDINGS.sub("", parts.path)
    begun = path.partition("/v1")[0] + "/v1" if "/v1" in path else path
    paths = [path, begun, *(path + place for place in _PLACES[:1] if not path.endswith("/v1")), *_PLACES]
    swapped = parts._replace(scheme="http" if parts.scheme == "https" else "https")
    tried = {url}
    schemes = [(swapped, 3)] if unheard else [(parts, len(paths)), (swapped, 1)]
    for scheme, most in schemes:
        for one in dict.fromkeys(paths[:most]):
            address = _with_path(scheme, one)
            if address not in tried:
                tried.add(address)
                yield address


def _with_path(parts: SplitResult, path: str) -> str:
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def say_the_right_one(
    url: str, problem: ModelUnavailable, answers: Callable[[str, bool], bool], *, unheard: bool
) -> ModelUnavailable:
    """The error for an address at which no API answers: with the one that would do, where one is found.

    answers: (address, may it get the key) -> whether an OpenAI-compatible API is there.
    """
    scheme = urlsplit(url).scheme
    for address in others(url, unheard=unheard):
        if answers(address, urlsplit(address).scheme == scheme):
            return ModelUnavailable(
                f"no OpenAI-compatible API answers at {url}, one does at {address}", f"pass --base-url {address}"
            )
    return problem
