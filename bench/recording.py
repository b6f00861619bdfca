"""What recording costs: answers a second through `CachingModel` with a model that answers at once.

`python -m bench.recording [--answers 5000] [--folder DIR]` prints a Markdown table: a model in this process (batches of
64) and a server's (one request a call, 8 and 64 side by side). DIR says which disk; the system's temporary folder else.
Numbers are of this machine, disk and moment; compare only rows of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manylens.models.base import Capabilities, LookReply, LookRequest, Request
from manylens.models.caching import CachingModel
from manylens.store.run_folder import RunFolder

VECTOR = np.eye(256)[0].astype(np.float16)


@dataclass
class Instant:
    capabilities: Capabilities
    name: str = "instant"
    identity: str = "instant"

    def render(self, request: Request) -> str:
        return json.dumps(["instant", str(request)])

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply]:
        return [LookReply("hearts", 0.5, VECTOR) for _ in requests]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=5000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    print("| model | answers a second, asked | answers a second, stored before |\n|---|---|---|")
    for batch, side_by_side in ((64, 1), (1, 8), (1, 64)):
        model = Instant(Capabilities(True, True, batch_size=batch, concurrency=side_by_side))
        ids = [f"image{number}" for number in range(options.answers)]
        speeds = []
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch, RunFolder.open(Path(scratch) / "run") as run:
            for _ in range(2):

                async def look(recorded: CachingModel, ids: list[str]) -> None:
                    for start in range(0, len(ids), 1024):
                        await recorded.look([LookRequest("suit", image_id) for image_id in ids[start : start + 1024]])

                began = time.perf_counter()
                asyncio.run(look(CachingModel(model, run), ids))  # type: ignore[arg-type]
                speeds.append(len(ids) / (time.perf_counter() - began))
        print(f"| batches of {batch}, {side_by_side} side by side | {speeds[0]:,.0f} | {speeds[1]:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
