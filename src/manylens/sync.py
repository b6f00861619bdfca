"""The synchronous door to what is written once, with async; and the door to threads.

In: a coroutine. Out: its result. Promise: works inside a running event loop, too (a notebook); an interrupt ends the
coroutine, not only the waiting for it, whatever it is doing; a thread of `in_thread` never outlives its caller; what
others wrote in Python is bound in time (`within`).
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

_GRACE_S = 1.0
"""How long a step that awaits nothing may go on after a Ctrl-C: storing an answer takes less, so it is not torn."""


def run_until_done(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, or, where a loop runs already in this thread, the same in a thread of its own."""
    if not _in_running_loop():
        return asyncio.run(_interruptible(work) if _gets_interrupts() else work)
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


def _gets_interrupts() -> bool:
    """Whether a Ctrl-C comes to this thread, and to nobody else's handler: `asyncio.run` asks the same."""
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler


async def _interruptible(work: Coroutine[Any, Any, T]) -> T:
    """At a Ctrl-C `asyncio.run` only cancels its task, which a step that awaits nothing (reading a folder, probing a
    server, training) notices when it is over. It is interrupted again here, as if the person had."""
    cancel = signal.getsignal(signal.SIGINT)
    assert callable(cancel)
    loop = asyncio.get_running_loop()
    turned = threading.Event()
    person = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not person.is_set():
            person.set()
            loop.call_soon_threadsafe(turned.set)
            threading.Thread(target=insist, name="manylens-interrupt", daemon=True).start()
        cancel(number, frame)

    def insist() -> None:
        if turned.wait(_GRACE_S):
            return
        if sys.platform == "win32":
            signal.raise_signal(signal.SIGINT)
        else:  # to the main thread itself: it may wait in a system call
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    signal.signal(signal.SIGINT, interrupt)
    try:
        return await work
    finally:
        turned.set()
        signal.signal(signal.SIGINT, cancel)


async def in_thread(work: Callable[[], T], stop: Callable[[], None] = lambda: None) -> T:
    """`asyncio.to_thread`, but that the thread has ended when this ends, even where this is cancelled: else it would
    still write into a run that another process holds by then. stop: tells the thread that nobody waits any more."""
    thread = asyncio.get_running_loop().run_in_executor(None, work)
    cancelled: asyncio.CancelledError | None = None
    while not thread.done():
        try:
            await asyncio.wait([thread])
        except asyncio.CancelledError as error:
            cancelled = error
            stop()
    if cancelled is None:
        return thread.result()
    thread.exception()  # it has been heard of
    raise cancelled


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work`, in Python of somebody else's, gives. Raises TimeoutError where it takes longer: it is interrupted at
    its next step, or left behind where that is one long one."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=target, name="manylens-within", daemon=True)
    thread.start()
    thread.join(seconds)
    for _ in range(_INTERRUPTIONS):  # it may catch what interrupts it
        if not thread.is_alive():
            break
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_TooLong))
        thread.join(_GRACE_S / _INTERRUPTIONS)
    if outcome:
        return outcome[0]
    if failure and not isinstance(failure[0], _TooLong):
        raise failure[0]
    raise TimeoutError(f"took longer than {seconds:g} s")


_INTERRUPTIONS = 5


class _TooLong(BaseException):
    """Raised in the thread of `within`."""
