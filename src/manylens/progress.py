"""How a run shows that it goes on: bars for people, lines for logs and notebooks, records for `logging`.

In: the events of the stages. Out: text on standard error (in a notebook, on standard output), and records of the logger
`manylens`. Promise: names are shown as text, never as markup or terminal codes; rich is imported only where there is a
terminal; no record reaches a person who has not set up logging.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from manylens.events import Event, Foreseen, Notice, Stage, StageAdvanced, StageFinished, StageStarted, Stopping
from manylens.text import shown_name, spoken_dollars, spoken_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


LOGGER = logging.getLogger("manylens")
LOGGER.addHandler(logging.NullHandler())

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
    time = "" if event.seconds is None else spoken_seconds(*event.seconds)
    money = "" if event.usd is None else spoken_dollars(*event.usd)
    if event.measured:
        return f"By the first pictures: {time} more{f', {money} in all' if money else ''}."
    more = "".join(f", {part}" for part in (time, money) if part)
    if not event.interest and not event.high:
        return "Every answer is there already: no model call expected."
    if not event.interest:
        return f"About {calls} model calls expected{more}; a better estimate follows after the first pictures."
    return f"{event.interest}: about {calls} more model calls expected{more}"


class Lines:
    """Progress for logs: one line when a stage ends, and one at each quarter of a long stage."""

    _LONG = 200

    def __init__(self, on_output: bool = False) -> None:
        self._on_output = on_output
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
                self._write(_line_of(event))

    def _advance(self, stage: Stage, interest: str, done: int, total: int | None) -> None:
        if total is None or total < self._LONG:
            return
        quarter = 4 * done // total
        if self._quarters.get((stage, interest), 0) < quarter < 4:
            self._quarters[stage, interest] = quarter
            self._line(stage, interest, f"{done:,} of {total:,}")

    def _line(self, stage: Stage, interest: str, detail: str) -> None:
        self._write(f"{_subject(stage, interest)}: {detail}")

    def _write(self, line: str) -> None:
        print(shown_name(line), file=sys.stdout if self._on_output else sys.stderr, flush=True)


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


def log(event: Event) -> None:
    """One record for each stage that ends (INFO) and each notice (WARNING)."""
    match event:
        case StageFinished():
            LOGGER.info("%s: %s", _subject(event.stage, event.interest), event.detail)
        case Notice() | Stopping():
            LOGGER.warning("%s", _line_of(event))
        case Foreseen():
            LOGGER.info("%s", _line_of(event))


def is_notebook() -> bool:
    """Whether this runs in Jupyter's kernel, or one like it."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and type(ipython.get_ipython()).__name__ in ("ZMQInteractiveShell", "Shell")


@contextmanager
def following(progress: bool | None, on_event: Callable[[Event], None] | None) -> Iterator[Callable[[Event], None]]:
    """What a run gives its events to: the log, the caller, and where it is wanted the person who looks on.

    progress: None is yes in a notebook and where standard error is a terminal, unless the caller has `on_event`.
    """
    wanted = on_event is None and (is_notebook() or _is_terminal()) if progress is None else progress
    if not wanted:
        yield _each(log, on_event)
        return
    with show_progress() as show:
        yield _each(log, show.event, on_event)


def _each(*listeners: Callable[[Event], None] | None) -> Callable[[Event], None]:
    def tell(event: Event) -> None:
        for listen in listeners:
            if listen is not None:
                listen(event)

    return tell


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def show_progress() -> Iterator[Lines | Bars]:
    if is_notebook() or not _is_terminal():
        yield Lines(on_output=is_notebook())
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
