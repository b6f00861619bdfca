"""The application: routes, the page's files, errors in our words, and the guard around all of it.

In: a run that is shown. Out: an ASGI application. Promise: every answer of `/api` that is none says its rule and its
cure; what is not a route is a file of the page, or 404.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from manylens.errors import ManylensError, StoreError, UsageError
from manylens.text import shown_name
from manylens.web import comparing, correcting, exporting, gallery, jobs, leveling, live, pictures, sampling, similar
from manylens.web.columns import NotThere
from manylens.web.guard import Guard
from manylens.web.job_keeper import JobKeeper
from manylens.web.live import Watch
from manylens.web.shown import NotAllowed, ShownRun

TITLE = "manylens"

STATIC = Path(__file__).with_name("static")

_LEAST_ZIPPED_BYTES = 4096

_ZIP_LEVEL = 3
"""On loopback, what zipping takes matters more than what it saves."""


def routers() -> list[APIRouter]:
    return [
        module.router
        for module in (gallery, pictures, similar, correcting, leveling, jobs, sampling, comparing, exporting, live)
    ]


def make_app(run: ShownRun, *, token: str, hosts: Sequence[str], cookie: str, is_local: bool = True) -> FastAPI:
    """is_local: whether it is open to this computer only."""
    jobs = JobKeeper(run)
    watch = Watch(run, jobs)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(watch.watch())
        threading.Thread(target=_warm, args=(run,), name="manylens-warm", daemon=True).start()
        try:
            yield
        finally:
            watch.end()
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    app = FastAPI(title=TITLE, openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.run = run
    app.state.jobs = jobs
    app.state.watch = watch
    app.state.is_local = is_local
    for router in routers():
        app.include_router(router)
    app.add_exception_handler(ManylensError, _explained)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _no_such_route)
    if STATIC.is_dir():
        app.mount("/", _PageFiles(directory=STATIC, html=True))
    app.add_middleware(GZipMiddleware, minimum_size=_LEAST_ZIPPED_BYTES, compresslevel=_ZIP_LEVEL)
    app.add_middleware(Guard, token=token, hosts=hosts, cookie=cookie)
    return app


def _warm(run: ShownRun) -> None:
    """Read what the page asks for first while the browser starts: of 50,000 images that takes a second or two."""
    with contextlib.suppress(ManylensError, OSError):
        run.all_columns()


class _PageFiles(StaticFiles):
    """The page's own files; those under `assets/` have their content's hash in their names."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        is_hashed = path.replace("\\", "/").startswith("assets/")
        response.headers["Cache-Control"] = "private, max-age=31536000, immutable" if is_hashed else "no-cache"
        return response


def _status_of(error: ManylensError) -> int:
    match error:
        case NotThere():
            return 404
        case NotAllowed():
            return error.status
        case UsageError():
            return 400
        case StoreError():
            return 503
    return 502


def _explained(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ManylensError)
    return JSONResponse({"rule": shown_name(error.rule), "hint": shown_name(error.hint)}, status_code=_status_of(error))


def _malformed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0] if error.errors() else {}
    where = ".".join(str(part) for part in first.get("loc", ()))
    rule = f"a request is as the schema has it, got one that is not ({where}: {first.get('msg', '')})"
    return JSONResponse({"rule": shown_name(rule[:500]), "hint": "see frontend/openapi.json"}, status_code=422)


def _no_such_route(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse(
        {"rule": shown_name(str(error.detail)), "hint": "see frontend/openapi.json"},
        status_code=error.status_code,
        headers=error.headers,
    )
