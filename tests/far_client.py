"""A run in a process of its own, to be killed: `python far_client.py FOLDER OUT SERVED [budget_calls]`.

The model stands for one behind a server: one request a call, eight side by side, some milliseconds each. The key of
every answer that it gives is appended to SERVED, outside of the run, before the run gets it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import manylens
from manylens.errors import ModelError
from manylens.models.base import (
    Capabilities,
    ChooseReply,
    ChooseRequest,
    CompleteReply,
    CompleteRequest,
    LookReply,
    LookRequest,
    Request,
    Usage,
    request_key,
)
from manylens.models.scripted import Noise, ScriptedModel
from manylens.models.wordings import Wordings


class Far(ScriptedModel):
    """Labels are in the files' names (`red-12.png`); what it takes and how long depends on the request alone."""

    def __init__(self, folder: Path, served: Path, latency_s: float) -> None:
        labels: dict[str, dict[str, str]] = {"color": {}, "shape": {}}
        for file in folder.iterdir():
            image_id = hashlib.sha256(file.read_bytes()).hexdigest()
            labels["color"][image_id], labels["shape"][image_id] = file.stem.split("-")[:2]
        super().__init__(
            labels,
            noise=Noise(wrong_description=0.05, outlying=0.1, wrong_choice=0.05),
            writes_text=True,
            wordings=Wordings(4),
        )
        self._served = os.open(served, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._pause_s = latency_s

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, batch_size=1, concurrency=8)

    async def _answer(self, request: Request) -> Usage:
        key = request_key(self, request)
        drawn = int(key[:4], 16)
        await asyncio.sleep(self._pause_s * (0.5 + drawn / 65536))
        os.write(self._served, (key + "\n").encode())
        return Usage(400 + drawn % 100, 10 + drawn % 7)

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        usage = await self._answer(requests[0])
        return [replace(r, usage=usage) for r in await super().look(requests) if isinstance(r, LookReply)]

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        usage = await self._answer(requests[0])
        return [replace(r, usage=usage) for r in await super().choose(requests) if isinstance(r, ChooseReply)]

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        usage = await self._answer(requests[0])
        return [replace(r, usage=usage) for r in await super().complete(requests) if isinstance(r, CompleteReply)]


def main() -> None:
    folder, out, served, latency_s, budget = sys.argv[1:6]
    settings = manylens.Settings(budget_calls=int(budget) or None)
    print("began", flush=True)
    manylens.cluster(
        folder,
        by=["color", "shape"],
        model=Far(Path(folder), Path(served), float(latency_s)),
        out=out,
        settings=settings,
    )


if __name__ == "__main__":
    main()
