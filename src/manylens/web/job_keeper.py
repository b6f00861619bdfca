"""Begins, watches, cancels and continues jobs: one at a time, in the order in which they were asked for.

In: requests of the page. Out: rows of `page.sqlite`, and a process for the job whose turn it is. Promise: whoever was
killed, the server or the job, a job that was not ended goes on when a server looks after it again; one that is killed
again and again is left alone.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from manylens.errors import StoreError, UsageError
from manylens.files import refuse_links
from manylens.models.base import ModelOptions
from manylens.models.registry import check_model_name
from manylens.settings import Settings
from manylens.store.lock import RunLock
from manylens.store.run_folder import RunFolder
from manylens.text import shown_name
from manylens.types import parse_interests
from manylens.web.columns import no_such
from manylens.web.job import JOB_LOCK_NAME
from manylens.web.page_store import ENDED, JobRow, Values
from manylens.web.schemas import Job, JobState, Problem, StageOut
from manylens.web.shown import NotAllowed, ShownRun

LOG_NAME = "page.log"

_STOP = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT)

_MOST_ATTEMPTS = 4
"""A job that takes all of the memory is killed each time."""

_STARTING_S = 30.0
"""How long a job that was taken may be without a process, and its process without its lock."""


_WINDOWS_GROUP = 0x200 if sys.platform == "win32" else 0
"""CREATE_NEW_PROCESS_GROUP: without it Ctrl-Break, which cancels a job there, would reach the server, too."""


def job_request(
    folder: str | Path,
    by: Sequence[str],
    *,
    kind: str = "cluster",
    model: str = "nano",
    options: ModelOptions | None = None,
    settings: Settings | None = None,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    links: bool = False,
) -> dict[str, Any]:
    """What a job runs, as its row keeps it. Raises UsageError for interests, a model or settings that cannot be."""
    chosen = options or ModelOptions()
    if kind in ("cluster", "preview"):
        parse_interests(list(by))
    if kind == "preview" and len(by) != 1:
        raise UsageError(f"a preview is of one interest, got {len(by)}", "ask for one after the other")
    check_model_name(model, chosen)
    return {
        "kind": kind,
        "folder": str(folder) if "://" in str(folder) else os.path.abspath(folder),
        "by": list(by),
        "model": model,
        "options": chosen.to_dict(),
        "settings": (settings or Settings()).to_dict(),
        "exclude": list(exclude),
        "include": list(include),
        "links": links,
    }


class JobKeeper:
    """Of one run. Every method may be called from any thread."""

    def __init__(self, run: ShownRun) -> None:
        self._run = run
        self._guard = threading.RLock()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def begin(self, request: Mapping[str, Any]) -> JobRow:
        row = self.add(request)
        self.look_after()
        return self._run.store.job(row.id) or row

    def add(self, request: Mapping[str, Any]) -> JobRow:
        """Let it wait; whoever looks after the jobs next begins it. Where there is no run yet, one is made."""
        self._run.check_writable()
        if self._run.is_new:
            with RunFolder.open(self._run.path):
                pass
        row = self._run.store.add_job(request)
        self._run.jobs_begun_here.add(row.id)
        return row

    def row(self, number: int) -> JobRow:
        row = self._run.store.job(number)
        if row is None:
            raise no_such("a job is one of this run's", number, "see /api/jobs")
        return row

    def cancel(self, number: int) -> JobRow:
        """What is under way is answered and kept; the job ends when it has."""
        self._run.check_writable()
        row = self.row(number)
        if not self._run.store.set_job(number, "cancelled", only_from=("queued", "interrupted")):
            self._run.store.set_job(number, only_from=("running",), stopping=True)
            if row.state == "running" and row.pid is not None and self._is_alive(row):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(row.pid, _STOP)
        self.look_after()
        return self.row(number)

    def go_on(self, number: int) -> JobRow:
        self._run.check_writable()
        row = self.row(number)
        self._run.jobs_begun_here.add(number)
        if not self._run.store.set_job(
            number, "queued", only_from=("cancelled", "failed", "interrupted"), stopping=False
        ):
            raise NotAllowed(
                f"a job that has stopped goes on, job {number} is {row.state}", "wait for it to end, or cancel it", 409
            )
        self.look_after()
        return self.row(number)

    def look_after(self) -> None:
        """Find jobs whose process is gone, and begin the next one that waits."""
        if self._run.read_only:
            return
        with self._guard:
            for number, process in list(self._processes.items()):
                if process.poll() is not None:
                    del self._processes[number]
            running = [row for row in self._run.store.jobs() if row.state == "running"]
            for row in running:
                if not self._is_alive(row):
                    self._run.store.set_job(row.id, after_death(row), only_from=("running",))
            for row in self._run.store.jobs():
                if row.state == "queued" and not self._may_begin(row):
                    self._run.store.set_job(row.id, "interrupted", only_from=("queued",))
            self._run.is_running = any(self._is_alive(row) for row in running)
            row_next = self._run.store.take_next_job()
            if row_next is not None:
                self._run.is_running = self._start(row_next)

    def _may_begin(self, row: JobRow) -> bool:
        """A run folder may be somebody else's: what it says is waiting sends pictures and a key to no server before a
        person of here has said so."""
        options = row.request.get("options") or {}
        is_sent = options.get("base_url") or options.get("embedding_url")
        is_here = str(row.request.get("model", "")).partition(":")[0] in ("nano", "hf")
        return row.id in self._run.jobs_begun_here or (is_here and not is_sent)

    def _is_alive(self, row: JobRow) -> bool:
        """Whether a process works on it: its lock says so, or it was begun a moment ago."""
        process = self._processes.get(row.id)
        if process is not None:
            return process.poll() is None
        if row.pid is not None and not _is_process(row.pid):
            return False
        if _is_locked(self._run.path / JOB_LOCK_NAME):
            return True
        return time.time() - row.began < _STARTING_S  # another server may have taken it, and be about to begin it

    def _start(self, row: JobRow) -> bool:
        """Whether it began; one that cannot has failed, and says why."""
        log = self._run.path / LOG_NAME
        try:
            refuse_links(log)
            with open(log, "ab") as errors:
                process = subprocess.Popen(
                    [sys.executable, "-m", "manylens.web.job", os.path.abspath(self._run.path), str(row.id)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    creationflags=_WINDOWS_GROUP,
                    start_new_session=True,  # it goes on when the server's terminal is closed
                )
        except (OSError, StoreError) as error:
            problem = {
                "rule": f"a job is a process of its own, it could not be begun ({error})",
                "hint": "free memory, processes or disk space, and continue it",
            }
            self._run.store.set_job(row.id, "failed", progress={**row.progress, "problem": problem})
            return False
        self._processes[row.id] = process
        self._run.store.set_job(row.id, pid=process.pid)
        return True

    def shown(self, row: JobRow) -> Job:
        return shown_job(row, self._run)


def after_death(row: JobRow) -> JobState:
    """Of a job whose process ended without a word: killed, or stopped before it could say so."""
    if row.stopping:
        return "cancelled"
    return "queued" if row.attempts < _MOST_ATTEMPTS else "interrupted"


def _is_process(pid: int) -> bool:
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        RunLock(path).release()
    except (StoreError, OSError):
        return True
    return False


def shown_job(row: JobRow, run: ShownRun) -> Job:
    request, progress = row.request, row.progress
    settings = Settings.from_dict(request["settings"])
    problem = progress.get("problem")
    slugs: list[str] = []
    with contextlib.suppress(UsageError):
        slugs = [interest.slug for interest in parse_interests(request["by"])] if request["by"] else []
    expected = progress.get("expected")
    return Job(
        id=row.id,
        kind=request["kind"],
        state=row.state,
        by=[shown_name(text) for text in request["by"]],
        slugs=slugs,
        model=shown_name(request["model"]),
        level=settings.level,
        groups=settings.n_clusters,
        command=command_of(request, run),
        stages=[
            StageOut(**{**stage, "interest": shown_name(stage["interest"]), "detail": shown_name(stage["detail"])})
            for stage in progress.get("stages", [])
        ],
        notices=[shown_name(text) for text in progress.get("notices", [])],
        stopping=row.stopping and row.state == "running",
        calls=progress.get("calls", 0),
        expected=None if expected is None else (expected[0], expected[1]),
        usd=progress.get("usd"),
        budget_calls=settings.budget_calls,
        budget_usd=settings.budget_usd,
        seconds=progress.get("seconds", 0.0),
        seconds_left=None if row.state in ENDED else progress.get("seconds_left"),
        problem=None
        if problem is None
        else Problem(rule=shown_name(problem["rule"]), hint=shown_name(problem["hint"])),
    )


def short_path(path: str) -> str:
    """As seen from where the server was started, if it is below; an address as it is."""
    if "://" in path:
        return path
    with contextlib.suppress(ValueError):  # on another drive
        if not (relative := os.path.relpath(path)).startswith(".."):
            return relative
    return os.path.abspath(path)


def command_of(request: Values, run: ShownRun) -> str:
    """What to type for the same."""
    out, folder = short_path(str(run.path)), short_path(request["folder"])
    if request["kind"] == "add":
        words = ["manylens", "add", out, folder]
    elif request["kind"] == "re-sort":
        words = ["manylens", "resort", out, "--by", *request["by"], "--apply"]
    else:
        words = ["manylens", request["kind"], folder, "--out", out]
        for text in request["by"]:
            words += ["--by", text]
    for option in ("exclude", "include"):
        for pattern in request[option]:
            words += [f"--{option}", pattern]
    defaults, plain = Settings(), ModelOptions()
    if request["model"] != "nano":
        words += ["--model", request["model"]]
    names = {"n_clusters": "groups", "timeout_s": "timeout"}
    for given, default in (
        (Settings.from_dict(request["settings"]), defaults),
        (ModelOptions.from_dict(request["options"]), plain),
    ):
        for name, value in given.to_dict().items():
            if value != getattr(default, name):
                text = ", ".join(value) if isinstance(value, tuple | list) else f"{value}"
                words += [f"--{names.get(name, name).replace('_', '-')}", text]
    if request["links"]:
        words.append("--links")
    return shlex.join(words)
