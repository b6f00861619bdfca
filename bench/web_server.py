"""How fast the page's server answers for many pictures, and what memory it takes.

    python -m bench.web_server [--images 50000] [--keep FOLDER]

Makes a run folder of drawn thumbnails and random embeddings about cluster centres (no model is asked), serves it by
`manylens open` in a process of its own, and times the requests that the page makes. Prints the
seconds that the page waits, those that the server works (on a busy computer the first are many times the second), and
megabytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from manylens.settings import Settings
from manylens.store.answers import StoredAnswer, StoredReply
from manylens.store.run_folder import RunFolder
from manylens.types import Assignment, CallCounts, Cluster, Clustering, Image, Interest, Misplaced, Thumbnail

CLUSTERS = 40
INTERESTS = ("kind of object", "color")
WIDTH = 384
"""Of an embedding, as nano's and MiniLM's are."""

_PER_BATCH = 5000


def make_run(out: Path, images: int, seed: int = 0) -> None:
    """A finished run of so many pictures."""
    rng = np.random.default_rng(seed)
    jpegs = [_thumbnail(rng) for _ in range(200)]
    ids = sorted(hashlib.sha256(f"{seed} {number}".encode()).hexdigest() for number in range(images))
    with RunFolder.open(out) as run:
        for start in range(0, images, _PER_BATCH):
            batch = ids[start : start + _PER_BATCH]
            run.put_thumbnails(
                Thumbnail(i, 1600, 1200 if at % 3 else 2000, jpegs[at % 200]) for at, i in enumerate(batch)
            )
        folder = [f"{1990 + at % 35}/{at % 12 + 1:02d}/IMG_{at:06d}.jpg" for at in range(images)]
        run.record_collection(
            [Image(i, (path,), 1600, 1200) for i, path in zip(ids, folder, strict=True)], [], str(out / "pictures")
        )
        for interest in INTERESTS:
            centres = rng.normal(size=(CLUSTERS, WIDTH))
            of = rng.integers(0, CLUSTERS, images)
            confidence = np.clip(rng.beta(8, 1, images), 0, 1)
            for start in range(0, images, _PER_BATCH):
                rows = np.arange(start, min(start + _PER_BATCH, images))
                vectors = centres[of[rows]] + rng.normal(size=(rows.size, WIDTH))
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                run.put_answers(
                    StoredAnswer(
                        hashlib.sha256(f"{interest} {ids[row]}".encode()).hexdigest(), interest, ids[row], "bench",
                        json.dumps(["bench", "look", interest, ids[row]]),
                        StoredReply(
                            "look",
                            {"description": f"{interest} {of[row]} of shade {row % 25}", "confidence": 0.9},
                            vectors[at].astype(np.float16),
                        ),
                    )
                    for at, row in enumerate(rows)
                )  # fmt: skip
            sizes = np.bincount(of, minlength=CLUSTERS)
            clusters = tuple(
                Cluster(
                    n + 1, f"{interest} {n}", f"Pictures of {interest} {n}.", int(sizes[n]),
                    tuple(ids[row] for row in np.flatnonzero(of == n)[:5]), f"parent {n % 7}",
                    Misplaced(0.02, 0.01, 0.04),
                )
                for n in range(CLUSTERS)
            )  # fmt: skip
            assignments = tuple(
                Assignment(ids[row], int(of[row]) + 1, round(float(confidence[row]), 4), "as described", "description")
                for row in range(images)
            )
            clustering = Clustering(
                Interest(interest), "nano", clusters, assignments, (), CallCounts(look=images), 0.01,
                Misplaced(0.02, 0.01, 0.04),
            )  # fmt: skip
            run.record_clustering(clustering, Settings())


def _thumbnail(rng: np.random.Generator) -> bytes:
    small = rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(small).resize((256, 192), PIL.Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


class Server:
    """`manylens open` on a run, asked as the page asks."""

    def __init__(self, out: Path) -> None:
        began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "manylens", "open", str(out), "--no-browser", "--port", "0"],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if "http://" in line)
        self.address, self.token = line.split()[-1].split("/?token=")
        self.start_s = time.monotonic() - began

    def cpu_s(self) -> float:
        """What the process has taken so far, of all cores."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def get(self, path: str, body: Any = None) -> tuple[float, int, bytes]:
        """(seconds, bytes that came, the body)"""
        headers = {"X-Manylens-Token": self.token, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        began = time.monotonic()
        with urllib.request.urlopen(
            urllib.request.Request(self.address + path, data, headers), timeout=600
        ) as response:
            content = response.read()
        return time.monotonic() - began, len(content), content

    def memory_mb(self) -> tuple[int, int]:
        """(now, at most)"""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = {
            line.split(":")[0]: int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("Vm")
        }
        return found["VmRSS"], found["VmHWM"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--keep", type=Path, help="make the run here, or use the one that is here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = chosen.keep or Path(scratch) / "run"
        if not (out / "run.sqlite").is_file():
            make_run(out, chosen.images)
        server = Server(out)
        try:
            measure(server)
        finally:
            server.process.terminate()
            server.process.wait()


def measure(server: Server) -> None:
    print(f"{'':<44}{'waited':>10} {'worked':>10} {'sent':>13} {'memory':>9}")
    print(f"{'until it answers':<44}{server.start_s:8.2f} s")
    slug = "kind-of-object"
    layout = f"/api/interests/{slug}/layout"
    first = json.loads(server.get(layout)[2])
    image = first["ids"][len(first["ids"]) // 2]
    for name, path, body in (
        ("the run", "/api/run", None),
        ("an interest", f"/api/interests/{slug}", None),
        ("the layout, kept", layout, None),
        ("the layout of a word", f"{layout}?q=shade+7", None),
        ("the layout of a file name", f"{layout}?q=img_0123", None),
        ("the layout within another's cluster", f"{layout}?with=color:3", None),
        ("a page of images", f"/api/interests/{slug}/images?limit=100&offset=20000", None),
        ("an image", f"/api/images/{image}", None),
        ("a thumbnail", f"/api/images/{image}/thumbnail", None),
        ("its neighbours, the first time", f"/api/images/{image}/neighbours?interest={slug}", None),
        ("its neighbours", f"/api/images/{image}/neighbours?interest={slug}", None),
        ("the cross-table", f"/api/cross?a={slug}&b=color", None),
        ("the map, the first time", f"/api/interests/{slug}/map", None),
        ("the map", f"/api/interests/{slug}/map", None),
        ("levels, the first time", f"/api/interests/{slug}/levels", None),
        ("levels", f"/api/interests/{slug}/levels", None),
        ("a cut", f"/api/interests/{slug}/levels/12", None),
        ("a correction of 100 images", f"/api/interests/{slug}/corrections",
         {"kind": "move", "images": first["ids"][:100], "to": 7}),
        ("the layout after it", layout, None),
        ("the review queue", f"/api/interests/{slug}/review?limit=20", None),
        ("undo", f"/api/interests/{slug}/undo", {}),
    ):  # fmt: skip
        try:
            cpu = server.cpu_s()
            seconds, size, _ = server.get(path, body)
            cpu = server.cpu_s() - cpu
            figures = f"{seconds:8.3f} s {cpu:8.2f} s {size / 1e3:10,.0f} kB {server.memory_mb()[0]:6d} MB"
            print(f"{name:<44}{figures}", flush=True)
        except OSError as error:
            print(f"{name:<44}{error}", flush=True)
    began = time.monotonic()
    for key in first["ids"][:500]:
        server.get(f"/api/images/{key}/thumbnail")
    print(f"{'500 thumbnails, one after another':<44}{time.monotonic() - began:8.2f} s")
    print(f"memory at most: {server.memory_mb()[1]} MB")


if __name__ == "__main__":
    main()
