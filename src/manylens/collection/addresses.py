"""Pictures and lists behind `http://` and `https://` addresses, as a list names them.

In: an address. Out: its bytes, once. Promises: bounded in bytes and time, in redirects and tries; a host of the local
network is asked only where the person named it (the address that was typed, or `MANYLENS_HOSTS`), whatever a name
resolves to, and after every redirect; no key, cookie or password is sent but those in the address itself, and none of
them is part of the path that a picture is called by.

The network is the standard library's: through fsspec neither a redirect nor an address behind a name could be refused
before it is asked.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import importlib.metadata
import ipaddress
import os
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from typing import Any

from manylens.collection.source import Opened
from manylens.errors import ImageUnreadable

SCHEMES = ("http", "https")

HOSTS_VARIABLE = "MANYLENS_HOSTS"
"""Hosts of the local network that lists may name, with commas between them."""

_TIMEOUT_S = 30.0
"""Of each step: connecting, and every wait for bytes."""

_MOST_REDIRECTS = 5

_TRIES, _PAUSE_S = 3, 1.0

_GIVEN_UP_AFTER = 4
"""Files in a row after which those of a host are tried once each: a list may have thousands on a host that is gone."""

_PATIENCE_S, _LEAST_BYTES_PER_S = 60.0, 10_000
"""After a minute a stream must have come at the speed of an early modem at least: one that trickles has no end."""

_SECRET = ("signature", "x-amz-", "x-goog-", "token", "sig", "key", "expires", "policy", "credential", "password")
"""How parameters begin that let whoever knows them read the file."""


class Downloader:
    """Gets files from addresses. typed: what the person typed, whose host may be one of the local network."""

    def __init__(self, typed: str = "") -> None:
        self._in_vain: Counter[str] = Counter()
        """Files in a row that could not be had, by host."""
        hosts = os.environ.get(HOSTS_VARIABLE, "").split(",")
        hosts.append(urllib.parse.urlsplit(typed).hostname or "")
        self.hosts = frozenset(host.strip().lower() for host in hosts) - {""}
        self._opener = urllib.request.build_opener(_Http(self.hosts), _Https(self.hosts), _Redirects(self.hosts))
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version("manylens")
            self._opener.addheaders = [("User-Agent", f"manylens/{version} (sorts pictures; python-urllib)")]

    def open(self, address: str) -> Opened:
        """A file's bytes. Raises ImageUnreadable with the reason, after some tries where trying helps."""
        host = urllib.parse.urlsplit(address).netloc
        for attempt in range(1, _TRIES + 1):
            try:
                found = self._open(address)
                self._in_vain[host] = 0
                return found
            except _Passing as error:
                if attempt == _TRIES or self._in_vain[host] >= _GIVEN_UP_AFTER:
                    self._in_vain[host] += 1
                    raise ImageUnreadable(str(error)) from error
                time.sleep(min(error.pause_s or _PAUSE_S * 2**attempt, 30.0))
        raise AssertionError("unreachable")

    def _open(self, address: str) -> Opened:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme.lower() not in SCHEMES or not parts.hostname:
            raise ImageUnreadable("an address begins with https:// or http:// and a host")
        request = urllib.request.Request(_quoted(parts))
        if parts.username is not None:
            pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
        try:
            answer = self._opener.open(request, timeout=_TIMEOUT_S)
        except _Refused as error:
            raise ImageUnreadable(str(error)) from error
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"the server says {error.code} {error.reason}"
            if error.code in (408, 425, 429) or error.code >= 500:
                raise _Passing(reason, _seconds(error.headers.get("Retry-After"))) from error
            raise ImageUnreadable(reason) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, _Refused):
                raise ImageUnreadable(str(cause)) from error
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise ImageUnreadable(f"its certificate is not valid ({cause.verify_message})") from error
            raise _Passing(_plain(cause)) from error
        length = answer.headers.get("Content-Length", "")
        return Opened(_Stream(answer), int(length) if length.isascii() and length.isdecimal() else None)


class _Passing(Exception):
    """What may pass. pause_s: the wait that the server asks for."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class _Refused(OSError):
    """A host that nobody named."""


class _Stream:
    """The body of an answer; what goes wrong on the way is told as a reason."""

    def __init__(self, answer: Any) -> None:
        self._answer, self._began, self._done = answer, time.monotonic(), 0

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes, as they come: waiting for all of them would hide how slowly they do."""
        seconds = time.monotonic() - self._began
        if seconds > _PATIENCE_S and self._done < seconds * _LEAST_BYTES_PER_S:
            raise ImageUnreadable(f"it came too slowly: {self._done:,} bytes in {seconds:.0f} seconds")
        try:
            block: bytes = self._answer.read1(min(size, 1 << 20))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ImageUnreadable(f"the connection ended after {self._done:,} bytes ({_plain(error)})") from error
        self._done += len(block)
        return block

    def close(self) -> None:
        self._answer.close()


def check_peer(address: str, host: str, named: frozenset[str]) -> None:
    """Raises where this numeric address is none of the public network and its host was not named by the person."""
    number = ipaddress.ip_address(address.split("%")[0])
    if isinstance(number, ipaddress.IPv6Address) and number.ipv4_mapped is not None:
        number = number.ipv4_mapped
    if (not number.is_global or number.is_multicast) and host.lower() not in named:
        raise _Refused(f"{host} is a host of the local network, which a list may not name: set {HOSTS_VARIABLE}={host}")


class _CheckedHttp(http.client.HTTPConnection):
    named: frozenset[str] = frozenset()

    def connect(self) -> None:
        super().connect()
        try:
            check_peer(self.sock.getpeername()[0], self.host, self.named)
        except BaseException:
            self.close()
            raise


class _CheckedHttps(http.client.HTTPSConnection, _CheckedHttp):
    """The base's `connect` calls `_CheckedHttp`'s before it speaks TLS."""


def _checked(kind: type[http.client.HTTPConnection], named: frozenset[str]) -> type[http.client.HTTPConnection]:
    return type(kind.__name__, (kind,), {"named": named})


class _Http(urllib.request.HTTPHandler):
    def __init__(self, named: frozenset[str]) -> None:
        super().__init__()
        self._named = named

    def http_open(self, request: urllib.request.Request) -> Any:
        kind = _for(request, http.client.HTTPConnection, _CheckedHttp, self._named)
        return self.do_open(kind, request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, named: frozenset[str]) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(context=self._tls)
        self._named = named

    def https_open(self, request: urllib.request.Request) -> Any:
        kind = _for(request, http.client.HTTPSConnection, _CheckedHttps, self._named)
        return self.do_open(kind, request, context=self._tls)


def _for(
    request: urllib.request.Request,
    plain: type[http.client.HTTPConnection],
    checked: type[http.client.HTTPConnection],
    named: frozenset[str],
) -> type[http.client.HTTPConnection]:
    """Behind a proxy, which the environment names, the connection is to the proxy: the name is looked at instead."""
    host = urllib.parse.urlsplit(request.full_url).hostname or ""
    if not request.has_proxy() and not getattr(request, "_tunnel_host", None):
        return _checked(checked, named)
    with contextlib.suppress(socket.gaierror):  # names that only the proxy knows
        for *_, address in socket.getaddrinfo(host, None):
            check_peer(str(address[0]), host, named)
    return plain


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _MOST_REDIRECTS

    def __init__(self, named: frozenset[str]) -> None:
        self._named = named

    def redirect_request(self, request: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme.lower() not in SCHEMES:
            raise _Refused("it leads to an address that is not on the web")
        return super().redirect_request(request, fp, code, msg, headers, newurl)


def _quoted(parts: urllib.parse.SplitResult) -> str:
    """As a request has it: names in Unicode and spaces written as they travel, no password, no fragment."""
    host = (parts.hostname or "").encode("idna").decode()
    host = f"[{host}]" if ":" in host else host
    with contextlib.suppress(ValueError):
        host += f":{parts.port}" if parts.port else ""
    path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return urllib.parse.urlunsplit((parts.scheme.lower(), host, path, query, ""))


def shown_address(address: str) -> str:
    """The address as a picture's path: without what lets others read it (passwords, signatures, tokens)."""
    parts = urllib.parse.urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    query = "&".join(pair for pair in parts.query.split("&") if pair and not pair.lower().startswith(_SECRET))
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path, query, parts.fragment))


def _seconds(said: str | None) -> float | None:
    return float(said) if said is not None and said.strip().isdecimal() else None


def _plain(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "no such host"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0][:200]
