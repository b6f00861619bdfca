"""A run on replicas, to be killed: `python ray_driver.py FOLDER OUT`. The models of the tests of the engine ray.

Every request that a replica answers is appended to the file OUT.served before its reply leaves.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import manylens
from manylens.errors import ModelError
from manylens.models.base import ChooseReply, ChooseRequest, LookReply, LookRequest, Request, request_key
from manylens.models.scripted import Noise, ScriptedModel
from manylens.models.wordings import Wordings

INTERESTS = ["color", "shape"]


class Counted(ScriptedModel):
    """Labels are in the files' names (`red-wide-12.png`). pause_s: of a call."""

    def __init__(self, folder: Path, served: Path, pause_s: float = 0.0) -> None:
        labels: dict[str, dict[str, str]] = {"color": {}, "shape": {}}
        for file in folder.iterdir():
            image_id = hashlib.sha256(file.read_bytes()).hexdigest()
            labels["color"][image_id], labels["shape"][image_id] = file.stem.split("-")[:2]
        noise = Noise(wrong_description=0.05, outlying=0.1, wrong_choice=0.05)
        super().__init__(labels, noise=noise, writes_text=True, wordings=Wordings(4))
        self._served, self._pause_s = str(served), pause_s

    def _write_down(self, requests: Sequence[Request]) -> None:
        time.sleep(self._pause_s)
        file = os.open(self._served, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, "".join(f"{request_key(self, request)}\n" for request in requests).encode())
        os.close(file)

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        self._write_down(requests)
        return await super().look(requests)

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        self._write_down(requests)
        return await super().choose(requests)


class Fatal(Counted):
    """One picture ends the process that looks at it, another one raises what no model should."""

    def __init__(self, folder: Path, served: Path, ends: str, raises: str) -> None:
        super().__init__(folder, served)
        self._ends, self._raises = ends, raises

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        ids = {request.image_id for request in requests}
        if self._ends in ids:
            os._exit(11)
        if self._raises in ids:
            raise ValueError("no such picture")
        return await super().look(requests)


class Twins(ScriptedModel):
    """Is another model in each process."""

    @property
    def identity(self) -> str:
        return f"twin {os.getpid()}"


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    model = Counted(folder, Path(f"{out}.served"), pause_s=0.1)
    print("began", flush=True)
    manylens.cluster(folder, by=INTERESTS, model=model, out=out, engine=manylens.RayEngine("local", replicas=2))


if __name__ == "__main__":
    main()
