"""Who may ask: the token, where a request comes from, and what the browser may do with an answer.

In: every request, before anything else sees it. Out: it is passed on, or refused. Promise: without the token nothing is
answered, not even a style sheet; a page of another origin, or a name that was pointed at this computer (DNS rebinding),
gets nothing, even with the cookie.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_HEADER = "x-manylens-token"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; font-src 'self'; "
    "connect-src 'self'; worker-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

_SAFE_METHODS = ("GET", "HEAD")

_MOST_BODY_BYTES = 16 << 20
"""A correction of 100,000 images takes 2 MB."""


class Guard:
    """ASGI middleware. hosts: what the header Host may say, with the port. cookie: its name, which must differ by port,
    for browsers send the cookies of a host to all its ports."""

    def __init__(self, app: ASGIApp, token: str, hosts: Sequence[str], cookie: str) -> None:
        self._app, self._token, self._cookie = app, token, cookie
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if host not in self._hosts:
            return _problem(403, "a page is asked for by its own address, got another Host", "open the printed address")
        origin = headers.get("origin")
        if origin is not None and (urlsplit(origin).scheme, urlsplit(origin).netloc.lower()) != (scope["scheme"], host):
            return _problem(403, "a request comes from the page itself, got another Origin", "open the printed address")
        site = headers.get("sec-fetch-site", "none")
        has_header = self._is_token(headers.get(TOKEN_HEADER))
        if scope["method"] not in _SAFE_METHODS:
            if site not in ("none", "same-origin"):
                return _problem(403, "a change comes from the page itself, got another site's", "use the page")
            if origin is None and not has_header and "sec-fetch-site" not in headers:
                return _problem(403, "a change says where it comes from, got no Origin", f"send {TOKEN_HEADER}")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > _MOST_BODY_BYTES:
            return _problem(413, f"a request has at most {_MOST_BODY_BYTES >> 20} MB, got {length[:20]}", "send less")
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if scope["method"] == "GET" and "token" in query and scope["path"] == "/" and self._is_token(query["token"]):
            return self._let_in(scope)
        if has_header or self._is_token(self._from_cookie(headers)):
            return None
        if scope["path"].startswith("/api"):
            return _problem(401, "every request needs the token, got none or another one", "open the printed address")
        return PlainTextResponse(
            "This page is opened with the address that manylens printed, with its token.\n", status_code=401
        )

    def _let_in(self, scope: Scope) -> Response:
        """The token leaves the address bar, and stays as a cookie that only this site gets and no script reads."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        rest = urlencode([(name, value) for name, value in pairs if name != "token"])
        response = RedirectResponse("/" + (f"?{rest}" if rest else ""), status_code=303)
        response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
        return response

    def _from_cookie(self, headers: Headers) -> str | None:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return None
        return None if morsel is None else morsel.value

    def _is_token(self, given: str | None) -> bool:
        return given is not None and secrets.compare_digest(given.encode(), self._token.encode())


def _problem(status: int, rule: str, hint: str) -> Response:
    return JSONResponse({"rule": rule, "hint": hint}, status_code=status)
