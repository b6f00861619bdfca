"""One run of the whole pipeline on values instead of files: what a large collection takes beside its model.

`python -m bench.scale_run --images 100000 --world "30 wordings" --out DIR` opens a run folder, records so many images,
looks, sorts and writes the results and the report, with a scripted model. It prints one JSON object: seconds of each
stage, with the model's own apart, peak memory, sizes on the disk, calls and scores. The same command on the same folder
resumes what was stopped. `--profile FILE` writes a profile of the stages after the looks.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import hashlib
import io
import json
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage

import manylens.api as api
from bench.worlds import INTEREST, WORLDS, draw_labels, scripted
from manylens.collection.find import Collection
from manylens.collection.pictures import StoredImages
from manylens.events import Event, StageFinished, StageStarted
from manylens.models.base import Model, ModelWrapper
from manylens.models.caching import CachingModel, open_account
from manylens.pipeline import cluster_images
from manylens.session import Session
from manylens.settings import Settings
from manylens.store.run_folder import RunFolder
from manylens.types import Image, Thumbnail

_AT_ONCE = 10_000


class Clocked(ModelWrapper):
    """A model that counts the seconds and calls that are its own."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.seconds = 0.0
        self.calls: dict[str, int] = {}

    async def _timed(self, kind: str, requests: Sequence[Any]) -> Any:
        began = time.perf_counter()
        try:
            return await getattr(self._model, kind)(requests)
        finally:
            self.seconds += time.perf_counter() - began
            self.calls[kind] = self.calls.get(kind, 0) + len(requests)

    async def look(self, requests: Sequence[Any]) -> Any:
        return await self._timed("look", requests)

    async def judge(self, requests: Sequence[Any]) -> Any:
        return await self._timed("judge", requests)

    async def choose(self, requests: Sequence[Any]) -> Any:
        return await self._timed("choose", requests)

    async def complete(self, requests: Sequence[Any]) -> Any:
        return await self._timed("complete", requests)


class Clock:
    """Seconds of each stage, without those of the model."""

    def __init__(self, model: Clocked, log: Path | None) -> None:
        self.model, self.log = model, log
        self.began: dict[str, tuple[float, float]] = {}
        self.seconds: dict[str, float] = {}
        self.peak_mb: dict[str, float] = {}

    def start(self, stage: str) -> None:
        self.began[stage] = time.perf_counter(), self.model.seconds

    def end(self, stage: str) -> None:
        wall, own = self.began[stage]
        spent = time.perf_counter() - wall - (self.model.seconds - own)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
        self.peak_mb[stage] = peak_mb()
        if self.log is not None:
            with self.log.open("a") as log:
                log.write(f"{stage}: {spent:.1f} s, peak {peak_mb():,.0f} MB\n")

    def hear(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self.start(event.stage)
        elif isinstance(event, StageFinished):
            self.end(event.stage)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def small_picture() -> bytes:
    """One thumbnail for all: the pictures' own bytes are counted apart."""
    buffer = io.BytesIO()
    PillowImage.linear_gradient("L").resize((96, 72)).convert("RGB").save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


async def run(out: Path, images: int, world: str, classes: int, seed: int, profile: Path | None, writes: bool,
              log: Path | None) -> dict[str, Any]:  # fmt: skip
    truth = draw_labels(images, classes, seed)
    model = Clocked(scripted(WORLDS[world], truth, seed, writes))
    clock = Clock(model, log)
    settings = Settings(seed=seed)
    jpeg = small_picture()
    whole = time.perf_counter()
    clock.start("open")
    with RunFolder.open(out) as folder:
        clock.end("open")
        clock.start("read")
        known = folder.known_images()
        new = [image_id for image_id in truth if image_id not in known]
        for start in range(0, len(new), _AT_ONCE):
            folder.put_thumbnails(Thumbnail(image_id, 96, 72, jpeg) for image_id in new[start : start + _AT_ONCE])
        pictures = tuple(Image(image_id, (f"{image_id[:3]}/{image_id}.jpg",), 96, 72) for image_id in sorted(truth))
        folder.record_collection(pictures, [], Path("/pictures"))
        collection = Collection(Path("/pictures"), pictures, (), 0, len(pictures))
        clock.end("read")
        kept = CachingModel(model, folder, account=open_account(folder))
        kept.account.limit(settings)
        session = Session(folder, collection, StoredImages(collection.root, pictures, folder.thumbnail), kept, True)
        profiler = cProfile.Profile()
        if profile is not None:
            profiler.enable()
        found = await cluster_images([image.id for image in pictures], [INTEREST], kept, settings, clock.hear)
        clock.start("write")
        api._write(session, [(found[INTEREST], settings)], time.monotonic(), False)
        clock.end("write")
        if profile is not None:
            profiler.disable()
            profiler.dump_stats(profile)
    whole = time.perf_counter() - whole
    clustering = found[INTEREST]
    return {
        "images": images,
        "world": world,
        "writes": writes,
        "classes": classes,
        "seconds": {stage: round(seconds, 2) for stage, seconds in clock.seconds.items()},
        "beside": round(whole - model.seconds, 1),
        "model": round(model.seconds, 1),
        "peak_mb": {stage: round(mb) for stage, mb in clock.peak_mb.items()},
        "peak": round(peak_mb()),
        "descriptions": len(clustering.vocabulary),
        "clusters": len(clustering.clusters),
        "calls": model.calls,
        "estimate": None if clustering.estimate is None else clustering.estimate.to_dict(),
        "unassigned": sum(a.cluster is None for a in clustering.assignments),
        "nmi": nmi(clustering, truth),
        "bytes": {path.name: path.stat().st_size for path in sorted(out.rglob("*")) if path.is_file()},
        "notes": list(clustering.notes),
        "digest": digest(out),
    }


def nmi(clustering: Any, truth: dict[str, str]) -> float:
    from sklearn.metrics import normalized_mutual_info_score

    said = [-1 - n if a.cluster is None else a.cluster for n, a in enumerate(clustering.assignments)]
    return round(float(normalized_mutual_info_score([truth[a.image_id] for a in clustering.assignments], said)), 4)


def digest(out: Path) -> str:
    """Of the result files, but for the seconds in `summary.json`."""
    found = hashlib.sha256()
    for path in sorted(out.rglob("*")):
        if path.is_file() and not path.name.startswith("run."):
            content = path.read_bytes()
            if path.name == "summary.json":
                values = json.loads(content)
                values.pop("seconds")
                content = json.dumps(values).encode()
            found.update(path.relative_to(out).as_posix().encode() + hashlib.sha256(content).digest())
    return found.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--world", choices=WORLDS, default="30 wordings")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--silent", action="store_true", help="a model that does not write")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    work = run(given.out, given.images, given.world, given.classes, given.seed, given.profile, not given.silent,
               given.log)  # fmt: skip
    print(json.dumps(asyncio.run(work)))


if __name__ == "__main__":
    main()
