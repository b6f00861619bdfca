"""`python -m manylens.web.job OUT NUMBER`: carries out one job of the page, in a process of its own.

In: the job's row in `OUT/page.sqlite`. Out: the run, and in the row what it has come to. Promise: it outlives the page
and its server; SIGINT ends it as Ctrl-C ends a command, so that answers under way are kept; killed at any moment, the
same job goes on from there.
"""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manylens.errors import ManylensError, StoreError
from manylens.events import Event, Foreseen, Notice, StageAdvanced, StageFinished, StageStarted, Stopping
from manylens.settings import ModelOptions, Settings
from manylens.store.explained import LOCK_NAME
from manylens.store.lock import RunLock
from manylens.store.run_folder import RunFolder
from manylens.types import Interest
from manylens.web.page_store import PageStore

JOB_LOCK_NAME = "page.lock"
"""In the run folder: held by the job that is running, however it ends."""

_EVERY_S = 0.25
"""How often progress is written: what is shown should move, and a disk should not be kept busy by it."""

_MOST_NOTICES = 20

_PATIENCE_S = 20.0
"""How long a job waits for a run that another process holds: a correction takes a second."""

_LEAST_CALLS, _LEAST_S = 20, 2.0
"""Before the time that is left is guessed."""


class Progress:
    """Folds the events of a run into what the page shows of it, and writes that down."""

    def __init__(self, store: PageStore, number: int, out: Path, settings: Settings) -> None:
        self._store, self._number, self._out, self._settings = store, number, out, settings
        self._stages: dict[tuple[str, str], dict[str, Any]] = {}
        self._notices: list[str] = []
        self._planned: tuple[int, int] | None = None
        self._beside: dict[str, tuple[int, int]] = {}
        self._written = 0.0
        self._began = time.monotonic()
        self._first_call: tuple[float, int] | None = None
        self._reader: RunFolder | None = None
        self._mark = 0
        self.result: dict[str, Any] | None = None
        with contextlib.suppress(StoreError), RunFolder.read(out) as run:
            self._mark = run.answers_mark()

    def event(self, event: Event) -> None:
        match event:
            case StageStarted():
                self._stage(event)["total"] = event.total
                self.write()
            case StageAdvanced():
                stage = self._stage(event)
                stage["done"] = event.done
                if event.total is not None:
                    stage["total"] = event.total
                if time.monotonic() - self._written > _EVERY_S:
                    self.write()
            case StageFinished():
                self._stage(event).update(state="done", detail=event.detail)
                self.write()
            case Foreseen():
                if event.interest:
                    self._beside[event.interest] = (event.low, event.high)
                else:
                    self._planned = (event.low, event.high)
                self.write()
            case Notice():
                self._say(event.text)
            case Stopping():
                self._say(f"stopping: {event.calls:,} calls are under way, their answers will be kept")

    def _stage(self, event: StageStarted | StageAdvanced | StageFinished) -> dict[str, Any]:
        fresh = {"stage": event.stage, "interest": event.interest, "state": "running", "done": 0, "total": None,
                 "detail": ""}  # fmt: skip
        return self._stages.setdefault((event.stage, event.interest), fresh)

    def _say(self, text: str) -> None:
        self._notices = [*self._notices, text][-_MOST_NOTICES:]
        self.write()

    def write(self, problem: ManylensError | None = None, *, is_end: bool = False) -> None:
        self._written = time.monotonic()
        seconds = self._written - self._began
        calls, tokens_in, tokens_out = self._spent()
        values = {
            "stages": list(self._stages.values()),
            "notices": self._notices,
            "calls": calls,
            "expected": self._planned,
            "usd": round(self._settings.cost_usd(tokens_in, tokens_out), 6) if self._settings.is_priced else None,
            "seconds": round(seconds, 2),
            "seconds_left": None if is_end else self._left(calls),
            "result": self.result,
            "problem": None if problem is None else {"rule": problem.rule, "hint": problem.hint},
        }
        with contextlib.suppress(StoreError):  # a page that cannot be told is no reason to end a run
            self._store.set_job(self._number, progress=values)

    def _spent(self) -> tuple[int, int, int]:
        """Calls that were answered since the job began, and their tokens."""
        try:
            if self._reader is None:
                self._reader = RunFolder.read(self._out)
            return self._reader.answers_since(self._mark)
        except StoreError:
            return 0, 0, 0

    def _left(self, calls: int) -> float | None:
        """Seconds, by the pace so far and the middle of what is expected: the looks that are left, and the rest."""
        looks = self._stages.get(("look", ""))
        if self._planned is None or looks is None:
            return None
        now = time.monotonic()
        if self._first_call is None:
            self._first_call = (now, calls)
            return None
        since, had = self._first_call
        if calls - had < _LEAST_CALLS or now - since < _LEAST_S:
            return None
        expected = sum(self._planned) / 2
        return round(max(0.0, expected - calls) * (now - since) / (calls - had), 1)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


def wait_for_run(out: Path) -> None:
    """Until nobody holds the run; the run itself says who does where that takes too long."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        try:
            RunLock(out / LOCK_NAME).release()
            return
        except StoreError:
            time.sleep(0.1)


def carry_out(out: Path, request: Mapping[str, Any], progress: Progress) -> ManylensError | None:
    """Raises what the run raises; the problem of a run that failed too often to count is returned."""
    from manylens import api, explore

    settings = Settings.from_dict(request["settings"])
    options = ModelOptions.from_dict(request["options"])
    usual = ModelOptions().to_dict()
    said = {name: value for name, value in options.to_dict().items() if value != usual[name]}
    if request["kind"] == "add":
        return api.add(
            out, request["folder"], model=request["model"], options=said, settings=settings,
            on_event=progress.event, progress=False,
        ).problem  # fmt: skip
    if request["kind"] == "re-sort":
        (interest,) = request["by"]
        found = api.resort(
            out, interest, ask=True, folder=request["folder"], model=request["model"], options=said,
            settings=settings, on_event=progress.event, progress=False,
        )  # fmt: skip
        slug = Interest(interest).slug
        with RunFolder.read(out) as run:
            version = run.revisions().get(slug, 0)
        moves = [[m.image_id, m.before, m.after, m.probability, m.reason, m.decided_by] for m in found.moves]
        progress.result = {
            "slug": slug, "version": version, "moves": moves, "touched": found.touched, "calls": found.calls[1],
        }  # fmt: skip
        return None
    if request["kind"] in ("suggest", "preview"):
        about = {
            "exclude": request["exclude"], "include": request["include"], "model": request["model"], "out": out,
            "options": options, "settings": settings, "on_event": progress.event, "progress": False,
        }  # fmt: skip
        sampled = (
            explore.suggest(request["folder"], **about)
            if request["kind"] == "suggest"
            else explore.preview(request["folder"], *request["by"], **about)
        )
        progress.result = sampled.to_dict()
        return None
    return api.cluster(
        request["folder"],
        request["by"],
        exclude=request["exclude"],
        include=request["include"],
        model=request["model"],
        options=options,
        out=out,
        settings=settings,
        links=request["links"],
        on_event=progress.event,
        progress=False,
    ).problem


def main(arguments: list[str]) -> int:
    out, number = Path(arguments[0]), int(arguments[1])
    store = PageStore(out)
    try:
        lock = RunLock(out / JOB_LOCK_NAME)
    except StoreError:
        return 1  # another job runs; this one is asked for again when it has ended
    try:
        row = store.job(number)
        if row is None or row.state != "running":
            return 1
        progress = Progress(store, number, out, Settings.from_dict(row.request["settings"]))
        try:
            wait_for_run(out)
            problem = carry_out(out, row.request, progress)
            progress.write(problem, is_end=True)
            store.set_job(number, "done" if problem is None else "failed")
        except KeyboardInterrupt:
            progress.write(is_end=True)
            store.set_job(number, "cancelled")
        except ManylensError as error:
            progress.write(error, is_end=True)
            store.set_job(number, "failed")
        except Exception as error:
            traceback.print_exc()
            progress.write(
                ManylensError(f"a job ends with a result, this one with {type(error).__name__}: {error}"[:500],
                              "see page.log in the run folder"),
                is_end=True,
            )  # fmt: skip
            store.set_job(number, "failed")
            return 1
        finally:
            progress.close()
    finally:
        lock.release()
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
