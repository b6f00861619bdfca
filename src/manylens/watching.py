"""A folder that is kept sorted: `add`, again and again.

In: a run folder, a watched folder. Out: a result after each addition. Promise: what an addition promises.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manylens.api import PathLike, add
from manylens.collection.source import as_place
from manylens.collection.watch import turns
from manylens.results.result import Result


def watch(
    out: PathLike,
    folder: PathLike,
    *,
    stop: threading.Event | None = None,
    **how: Any,
) -> Iterator[Result]:
    """`add` now, and again whenever files in the folder have changed and nothing has happened to it for two seconds.

    Gives each result. stop: ends the waiting, within half a second; so does a Ctrl-C, as
    KeyboardInterrupt. how: as `add` takes it; a limit on calls is one of each addition. Needs the extra `[watch]`. An
    addition that was killed is made good by the next one. Raises as `add` does, for the folder as it is then.
    """
    for _ in turns(as_place(folder), Path(out), stop):
        yield add(out, folder, **how)
