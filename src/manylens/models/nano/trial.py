"""Somebody's files tried as nano in a process of their own, before they are loaded into this one.

In: a folder. Out: what is wrong with it in a few words, or "". Promise: an ONNX file may hold loops without an end,
take any amount of memory, or bring the library that reads it down; here it gets `TRIAL_S` seconds and `MOST_BYTES` of
address space (where the system holds that), and what becomes of it is told. What it does with other pictures is bound
in time by `nano.model`, in memory by nothing.
"""

from __future__ import annotations

import filecmp
import math
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

from PIL.Image import Image as Picture
from PIL.Image import new as new_picture

from manylens.collection.decode import encode_jpeg
from manylens.errors import ModelError
from manylens.models.base import LookRequest
from manylens.models.nano.model import MODEL_FILES, Nano
from manylens.sync import run_until_done

TRIAL_S = 120.0
"""To start Python, load the files and look at one grey picture; two seconds, and some thirty on a very busy machine."""

MOST_BYTES = 6 << 30
"""Of address space, of which the built-in files take less than two."""

_MEMORY = "they take more memory than there is"


def trial(folder: Path) -> str:
    """Raises MemoryError where this process may take no more itself."""
    own = Path(str(resources.files("manylens.models") / "nano"))
    if all(filecmp.cmp(folder / file, own / file, shallow=False) for file in MODEL_FILES):
        return ""
    if not sys.executable:  # Python within another program
        return _look(folder)
    command = [sys.executable, "-c", "from manylens.models.nano.trial import main; main()", str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRIAL_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"they compute for more than {TRIAL_S:g} s"
    said = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode == 0:
        return said
    if _limit_bytes() < MOST_BYTES:
        raise MemoryError
    return f"they end the process that loads them (exit {done.returncode})"


def main() -> None:
    """In the process of its own."""
    _limit()
    folder = Path(sys.argv[1])
    problem = _look(folder)
    if problem == _MEMORY and _limit_bytes() < MOST_BYTES:
        raise MemoryError  # it is this machine's limit, and not the files
    print(problem)


def _look(folder: Path) -> str:
    try:
        model = Nano(Grey(), folder=folder)
        (reply,) = run_until_done(model.look([LookRequest("color", "grey")]))
        if isinstance(reply, ModelError):
            return str(reply)
        known = model.capabilities
        if not all(math.isfinite(x or 0.0) for x in (known.edge_scale, known.edge_offset)):
            return "its scale of likeness is no number"
    except Exception as error:
        is_memory = isinstance(error, MemoryError) or "alloc" in str(error).lower()
        return _MEMORY if is_memory else type(error).__name__
    return ""


class Grey:
    """An `ImageSource` of one grey picture."""

    def thumbnail(self, image_id: str) -> Picture:
        return new_picture("RGB", (64, 64), "grey")

    def jpeg(self, image_id: str, longest_side_px: int, quality: int = 90) -> bytes:
        return encode_jpeg(self.thumbnail(image_id), quality=quality)


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most in (resource.RLIM_INFINITY, -1) or most > MOST_BYTES:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, most))


def _limit_bytes() -> float:
    """Of address space that this process may take."""
    try:
        import resource
    except ImportError:
        return math.inf
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if soft in (resource.RLIM_INFINITY, -1) else soft
