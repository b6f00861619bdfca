"""Decode one shard of the packed pictures into a file of pixels that training maps: `python decode.py DATA SIDE SHARD...`

In: `pack.py`'s folder. Out: `DATA/pixels.bin`, (n, 3, side, side) uint8, squashed to a square as the run-time does.
"""

from __future__ import annotations

import io
import sys
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER, SIDE = Path(sys.argv[1]), int(sys.argv[2])
WHERE = np.load(FOLDER / "corpus.npz")["where"]
PIXELS = np.memmap(
    FOLDER / "pixels.bin",
    np.uint8,
    "r+" if (FOLDER / "pixels.bin").exists() else "w+",
    shape=(len(WHERE), 3, SIDE, SIDE),
)


def one(item: tuple[int, bytes]) -> None:
    row, content = item
    with Image.open(io.BytesIO(content)) as opened:
        PIXELS[row] = np.asarray(opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)).transpose(
            2, 0, 1
        )


if __name__ == "__main__":
    for shard in map(int, sys.argv[3:]):
        content = (FOLDER / f"shard-{shard}.bin").read_bytes()
        rows = np.flatnonzero(WHERE[:, 0] == shard)
        with Pool(28) as pool:
            for _ in pool.imap_unordered(
                one, ((int(r), content[WHERE[r, 1] : WHERE[r, 1] + WHERE[r, 2]]) for r in rows), 64
            ):
                pass
        (FOLDER / f"decoded-{shard}").touch()
