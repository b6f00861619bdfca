"""The synchronous door to what is written once, with async.

In: a coroutine. Out: its result. Promise: works inside a running event loop, too (a notebook); an interrupt ends the
coroutine, not only the waiting for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_until_done(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, or, where a loop runs already in this thread, the same in a thread of its own."""
    if not _in_running_loop():
        return asyncio.run(work)
    outcome: list[T] = []
    failure: list[BaseException] = []
    begun, ended = threading.Event(), threading.Event()
    under_way: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None
        under_way.append((asyncio.get_running_loop(), task))
        begun.set()
        return await work

    def target() -> None:
        try:
            outcome.append(asyncio.run(cancellable()))
        except BaseException as error:
            failure.append(error)
        finally:
            begun.set()
            ended.set()

    thread = threading.Thread(target=target, name="manylens")
    try:
        thread.start()
        ended.wait()  # not the thread's `join`, which takes an interrupted thread for one that has ended
    except BaseException:  # the person interrupts the notebook's cell
        if thread.ident is not None:  # it was started
            begun.wait()
            for loop, task in under_way:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(task.cancel)
            ended.wait()
        raise
    if failure:
        raise failure[0]
    return outcome[0]


def _in_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
