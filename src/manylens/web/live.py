"""Events: what changes is told to every page that is open, by server-sent events.

In: the run's versions and its jobs, looked at a few times a second. Out: events. Promise: it does not matter who made
a change, this server, another tab, a job or a command in a terminal: every page hears of it; jobs are looked after
while nobody looks on, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from manylens.errors import ManylensError
from manylens.web.job_keeper import JobKeeper
from manylens.web.routing import PROBLEMS
from manylens.web.schemas import CorrectionsChanged, MapReady, RunChanged
from manylens.web.shown import ShownRun

router = APIRouter(prefix="/api", tags=["events"], responses=PROBLEMS)

_EVERY_S = 0.3
_IDLE_EVERY_S = 2.0
"""How often the run is looked at, while a page is open and while none is."""

_MOST_WAITING = 1000
"""Events that a page may be behind; the connection of one that is further behind ends, and it connects again."""


class Watch:
    """Looks at the run and tells those who listen."""

    def __init__(self, run: ShownRun, jobs: JobKeeper) -> None:
        self._run, self._jobs = run, jobs
        self._listeners: set[asyncio.Queue[ServerSentEvent | None]] = set()
        self._versions: dict[str, int] = {}
        self._changed = 0
        self._maps: set[tuple[str, str]] = set()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def watch(self) -> None:
        self._loop = asyncio.get_running_loop()
        logged = ""
        while True:
            try:
                for event in await asyncio.to_thread(self._look):
                    self._tell(event)
            except ManylensError:
                pass  # the folder is away for a moment, or for good: it is asked again
            except (
                Exception
            ) as error:  # one that ends here would leave every page without events, and jobs without care
                if repr(error) != logged:  # not three times a second
                    logged = repr(error)
                    logging.getLogger("manylens").exception("the page could not look at its run, and tries again")
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _EVERY_S if self._listeners else _IDLE_EVERY_S)

    def _look(self) -> list[ServerSentEvent]:
        self._jobs.look_after()
        self._run.write_files_after_pause()
        found = []
        versions = self._run.versions()
        if versions != self._versions:
            found.append(ServerSentEvent(event="run", data=RunChanged(versions=versions)))
            found += [
                ServerSentEvent(event="corrections", data=CorrectionsChanged(interest=slug, version=version))
                for slug, version in versions.items()
                if slug in self._versions and self._versions[slug] != version
            ]
            self._versions = versions
        rows = self._run.store.jobs(changed_since=self._changed)
        for row in reversed(rows):
            found.append(ServerSentEvent(event="job", data=self._jobs.shown(row)))
        self._changed = max([self._changed, *(row.changed for row in rows)])
        ready = self._run.planes.ready()
        found += [ServerSentEvent(event="map", data=MapReady(interest=slug)) for slug, _ in sorted(ready - self._maps)]
        self._maps = ready
        return found

    def _tell(self, event: ServerSentEvent) -> None:
        for listener in list(self._listeners):
            if listener.qsize() >= _MOST_WAITING:
                self._listeners.discard(listener)
                listener.put_nowait(None)  # its connection ends, and the page asks anew
            else:
                listener.put_nowait(event)

    def wake(self) -> None:
        """Look at once: somebody changed something. From any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    def end(self) -> None:
        for listener in self._listeners:
            listener.put_nowait(None)

    async def listen(self) -> AsyncIterator[ServerSentEvent]:
        """What the run is now, then what changes."""
        mine: asyncio.Queue[ServerSentEvent | None] = asyncio.Queue()
        self._listeners.add(mine)
        self._wake.set()
        try:
            yield ServerSentEvent(event="run", data=RunChanged(versions=await asyncio.to_thread(self._run.versions)))
            for row in reversed(await asyncio.to_thread(self._run.store.jobs)):
                if row.state in ("queued", "running"):
                    yield ServerSentEvent(event="job", data=self._jobs.shown(row))
            while (event := await mine.get()) is not None:
                yield event
        finally:
            self._listeners.discard(mine)


@router.get("/events", response_class=EventSourceResponse)
async def get_events(request: Request) -> AsyncIterator[ServerSentEvent]:
    """`run` (RunChanged), `job` (Job), `corrections` (CorrectionsChanged) and `map` (MapReady), as they happen; first
    what is now."""
    watch: Watch = request.app.state.watch
    async for event in watch.listen():
        yield event
