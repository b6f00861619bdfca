"""Pictures from a git repository without a work tree, made small for the journey to the GPU.

In: `--git` a git directory, `--table` a CSV whose column `blob` names the pictures (its other columns are kept).
Out: `OUT/images.bin` (WebP files one after the other) and `OUT/table.csv` (the columns, then `at`, `bytes`, `hash`).
Promise: no picture that `held_out` knows; order and bytes depend on the table alone.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import subprocess
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path

from held_out import HeldOut, difference_hash
from PIL import Image

SIDE, QUALITY = 224, 68


def read_blobs(git: Path, blobs: list[str]) -> Iterator[bytes]:
    """The content of each blob, in order."""
    with subprocess.Popen(
        ["git", "-C", str(git), "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        for start in range(0, len(blobs), 500):
            process.stdin.write("".join(f"{blob}\n" for blob in blobs[start : start + 500]).encode())
            process.stdin.flush()
            for _ in blobs[start : start + 500]:
                header = process.stdout.readline().split()
                if header[1] == b"missing":
                    yield b""
                    continue
                content = process.stdout.read(int(header[2]))
                process.stdout.read(1)
                yield content
        process.stdin.close()


def shrink(content: bytes) -> tuple[bytes, int] | None:
    """The picture as WebP of at most SIDE pixels, and its hash before it was made small; None where it is none."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            picture = opened.convert("RGB")
    except Exception:
        return None
    value = difference_hash(picture)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=2)
    return buffer.getvalue(), value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("git", "table", "held-out", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    opened = gzip.open(options.table, "rt") if options.table.suffix == ".gz" else options.table.open()
    with opened as lines:
        rows = list(csv.DictReader(lines))
    held_out = HeldOut.read(options.held_out)
    options.out.mkdir(parents=True, exist_ok=True)
    at = left_out = broken = 0
    with (
        (options.out / "images.bin").open("wb") as images,
        (options.out / "table.csv").open("w", newline="") as table,
        Pool(2) as pool,
    ):
        writer = csv.DictWriter(table, [*rows[0], "at", "bytes", "hash"])
        writer.writeheader()
        small = pool.imap(shrink, read_blobs(options.git, [row["blob"] for row in rows]), chunksize=64)
        for row, made in zip(rows, small, strict=True):
            if made is None:
                broken += 1
            elif held_out.holds_hash(made[1]):
                left_out += 1
            else:
                images.write(made[0])
                writer.writerow({**row, "at": at, "bytes": len(made[0]), "hash": f"{made[1]:016x}"})
                at += len(made[0])
    print(f"{options.out.name}: {len(rows) - left_out - broken} kept, {left_out} held out, {broken} unreadable")


if __name__ == "__main__":
    main()
