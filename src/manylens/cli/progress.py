"""How a run shows that it goes on: bars for people, lines for logs.

In: the events of the stages. Out: text on standard error. Promise: names are shown as text, never as markup or terminal
codes; rich is imported only where there is a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from manylens.events import Event, Foreseen, Notice, Stage, StageAdvanced, StageFinished, StageStarted, Stopping
from manylens.text import shown_name

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


_WORDS: dict[Stage, str] = {
    "read": "reading pictures",
    "look": "describing",
    "walk": "comparing descriptions",
    "vocabulary": "grouping descriptions",
    "check": "checking clusters",
    "name": "naming clusters",
    "teach": "asking the teacher",
    "tune": "training",
}


def _subject(stage: Stage, interest: str) -> str:
    return f"{_WORDS[stage]} ({interest})" if interest else _WORDS[stage]


def _line_of(event: Foreseen | Stopping | Notice) -> str:
    if isinstance(event, Notice):
        return event.text
    if isinstance(event, Stopping):
        if event.calls == 1:
            return "stopping: 1 call is under way, its answer will be kept; Ctrl-C again does not wait"
        return f"stopping: {event.calls:,} calls are under way, their answers will be kept; Ctrl-C again does not wait"
    calls = f"{event.low:,} to {event.high:,}" if event.low != event.high else f"{event.low:,}"
    if not event.interest:
        return f"About {calls} model calls expected; a better estimate follows once all pictures are described."
    return f"{event.interest}: about {calls} more model calls expected"


class Lines:
    """Progress for logs: one line when a stage ends, and one at each quarter of a long stage."""

    _LONG = 200

    def __init__(self) -> None:
        self._quarters: dict[tuple[str, str], int] = {}

    def event(self, event: Event) -> None:
        match event:
            case StageAdvanced():
                self._advance(event.stage, event.interest, event.done, event.total)
            case StageFinished():
                self._line(event.stage, event.interest, event.detail)
            case StageStarted():
                self._quarters[event.stage, event.interest] = 0
            case Foreseen() | Stopping() | Notice():
                click.echo(shown_name(_line_of(event)), err=True)

    def _advance(self, stage: Stage, interest: str, done: int, total: int | None) -> None:
        if total is None or total < self._LONG:
            return
        quarter = 4 * done // total
        if self._quarters.get((stage, interest), 0) < quarter < 4:
            self._quarters[stage, interest] = quarter
            self._line(stage, interest, f"{done:,} of {total:,}")

    def _line(self, stage: Stage, interest: str, detail: str) -> None:
        click.echo(shown_name(f"{_subject(stage, interest)}: {detail}"), err=True)


class Bars:
    """Progress for people: one bar per stage and interest."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._finished: set[TaskID] = set()

    def event(self, event: Event) -> None:
        if isinstance(event, Foreseen | Stopping | Notice):
            self._progress.console.print(shown_name(_line_of(event)), markup=False)
            return
        task = self._task(event.stage, event.interest)
        match event:
            case StageStarted():
                self._progress.update(task, total=event.total)
            case StageAdvanced() if task not in self._finished:
                if event.total is not None:
                    self._progress.update(task, total=event.total)
                self._progress.update(task, completed=event.done)
            case StageFinished():
                self._finished.add(task)
                # A stage may end early (nothing left to ask): its bar is full all the same.
                done = max(1, int(self._progress.tasks[self._progress.task_ids.index(task)].completed))
                self._progress.update(task, total=done, completed=done, detail=shown_name(event.detail))

    def _task(self, stage: Stage, interest: str) -> TaskID:
        key = (stage, interest)
        if key not in self._tasks:
            name = shown_name(interest)
            subject = _subject(stage, name if len(name) <= 30 else name[:29] + "…")
            self._tasks[key] = self._progress.add_task(subject, total=None, detail="")
        return self._tasks[key]


@contextmanager
def show_progress() -> Iterator[Lines | Bars]:
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True, highlight=False, emoji=False)) as progress:
        yield Bars(progress)
