"""The route of events: what changes is told to every page that is open, by server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from manylens.web.routing import PROBLEMS, shown_run
from manylens.web.schemas import RunChanged

router = APIRouter(prefix="/api", tags=["events"], responses=PROBLEMS)


@router.get("/events", response_class=EventSourceResponse)
async def get_events(request: Request) -> AsyncIterator[ServerSentEvent]:
    """`run` (RunChanged), `job` (Job), `corrections` (CorrectionsChanged) and `map` (MapReady), as they happen."""
    yield ServerSentEvent(event="run", data=RunChanged(versions=shown_run(request).versions()))
