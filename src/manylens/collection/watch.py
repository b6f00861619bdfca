"""Waiting for a folder to change.

In: a folder. Out: a turn of the iterator whenever something in it has changed and has been quiet since. Promise: a file
that is still being copied is waited for; what happens while the caller works is not missed.

Needs the extra `[watch]`. A network drive tells nobody what others change on it: there, the folder is listed again and
again (the environment variable WATCHFILES_FORCE_POLLING says so everywhere).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event

from manylens.collection.source import Place
from manylens.errors import UsageError
from manylens.files import network_drive

QUIET_MS = 2_000
"""How long nothing may happen before a change counts as done: a camera or a sync client writes file after file."""

LONGEST_MS = 60_000
"""How long a folder that is never quiet is waited for."""

POLL_MS = 5_000
"""Between two listings of a folder on a network drive."""

_ARMED_MS = 500
"""How long the library waits before it says that nothing happened."""


def check_watching() -> None:
    """Raises UsageError where the extra is not installed."""
    try:
        import watchfiles  # noqa: F401
    except ImportError as error:
        raise UsageError("watching needs the package watchfiles", "pip install 'manylens[watch]'") from error


def turns(folder: Place, apart_from: Path, stop: Event | None = None) -> Iterator[None]:
    """A turn now, and one after each change. apart_from: a folder whose changes are the caller's own. stop: ends the
    waiting. A Ctrl-C is raised as one."""
    check_watching()
    if not os.path.isdir(folder):
        raise UsageError(f"what is watched is a folder, {folder} is none", "leave out --watch, and add when it changed")
    from watchfiles import Change, watch

    ours = os.path.realpath(apart_from)

    def concerns(change: Change, path: str) -> bool:
        # The library says paths as the folder was named, and what lies behind a link as below the link.
        real = os.path.realpath(path)
        return not (real == ours or real.startswith(ours + os.sep))

    changed = watch(
        os.path.realpath(folder),
        watch_filter=concerns,
        step=QUIET_MS,
        debounce=LONGEST_MS,
        rust_timeout=_ARMED_MS,
        yield_on_timeout=True,
        stop_event=stop,
        force_polling=True if network_drive(folder) else None,
        poll_delay_ms=POLL_MS,
    )
    next(changed, None)  # only then it collects; what comes during the first turn begins the second one
    yield None
    for some in changed:
        if some:
            yield None
