"""Who holds a run: one process at a time.

In: the lock file's path. Out: a held lock, or a StoreError that names the holder. Promise: the lock is the system's, so
it ends with its process, however that ends.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from manylens.errors import StoreError
from manylens.files import refuse_links


class RunLock:
    """An exclusive lock that the system drops with its process, so that a kill never leaves a run locked."""

    _LOCKED_BYTE = 1 << 20
    """Windows locks are mandatory: lock a byte far behind the text, so that others can still read who holds it."""

    def __init__(self, path: Path) -> None:
        refuse_links(path)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            self._lock()
        except OSError as error:
            holder = os.pread(self._descriptor, 200, 0) if hasattr(os, "pread") else path.read_bytes()[:200]
            os.close(self._descriptor)
            if not isinstance(error, (BlockingIOError, PermissionError)):
                raise StoreError(f"cannot lock {path}: {error.strerror}", "put --out on a local disk") from error
            raise StoreError(
                f"one process at a time may use a run; {path.parent} is held by "
                f"{holder.decode('utf-8', 'replace').strip() or 'another process'}",
                "wait for it to end, or choose another --out",
            ) from None
        try:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode("utf-8", "replace"))
        except OSError as error:
            self.release()  # a descriptor that is left open holds the run as long as this process lives
            raise StoreError(f"cannot write {path}: {error.strerror}", "free disk space, and try again") from error

    def _lock(self) -> None:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(self._descriptor, self._LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(self._descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        # The file stays: unlinking it would let a third process lock a new file while a second holds the old one.
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
