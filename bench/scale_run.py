"""One run of the whole pipeline on values instead of files: what a large collection takes beside its model.

`python -m bench.scale_run --images 100000 --world "30 wordings" --out DIR` opens a run folder, records so many images,
looks, sorts and writes the results and the report, with a scripted model. It prints one JSON object: seconds of each
stage, with the model's own apart, peak memory, sizes on the disk, calls and scores. The same command on the same folder
resumes what was stopped. `--profile FILE` writes a profile of the stages after the looks. `--kills 10` compares two
runs of the same: one undisturbed in OUT/whole, one in OUT/killed that is killed (SIGKILL) ten times, in every stage.

`--add 10` on the folder of a run that has ended adds so many pictures to it, and prints what that took.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import hashlib
import io
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image as PillowImage

import manylens.api as api
from bench.worlds import INTEREST, WORLDS, draw_labels, ignore, scripted
from manylens.collection.find import Collection
from manylens.collection.pictures import StoredImages
from manylens.events import Event, StageAdvanced, StageFinished, StageStarted
from manylens.files import DATABASE_NAME
from manylens.models.base import Capabilities, Model, ModelWrapper, Request
from manylens.models.caching import CachingModel, open_account
from manylens.pipeline import cluster_images
from manylens.pipeline.add import add_images
from manylens.pipeline.budget import Budget
from manylens.results.report import THUMBNAILS_NAME
from manylens.session import Session
from manylens.settings import Settings
from manylens.store.run_folder import RunFolder
from manylens.types import Image, Thumbnail

_AT_ONCE = 10_000


class Clocked(ModelWrapper):
    """A model that counts the seconds, of the clock and of the processor, and the calls that are its own."""

    def __init__(self, model: Model, batch: int = 1000) -> None:
        super().__init__(model)
        self._known = replace(model.capabilities, batch_size=batch)
        self.spent = (0.0, 0.0)
        self.calls: dict[str, int] = {}

    @property
    def capabilities(self) -> Capabilities:
        """It answers in microseconds: more requests a batch, as each batch waits for the disk twice."""
        return self._known

    def render(self, request: Request) -> str:
        began = now()
        try:
            return super().render(request)
        finally:
            self.spent = added(self.spent, passed(began))

    async def _timed(self, kind: str, requests: Sequence[Any]) -> Any:
        began, inside = now(), self.spent
        try:
            return await getattr(self._model, kind)(requests)
        finally:
            self.spent = added(inside, passed(began))
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
    """Seconds of each stage without those of the model, of the clock and of the processor (all threads)."""

    def __init__(self, model: Clocked, log: Path | None, fall: Callable[[str, float], None] | None = None) -> None:
        self.model, self.log, self.fall = model, log, fall or (lambda stage, done: None)
        self.began: dict[str, tuple[Seconds, Seconds]] = {}
        self.seconds: dict[str, Seconds] = {}
        self.peak_mb: dict[str, float] = {}

    def start(self, stage: str) -> None:
        self.began[stage] = now(), self.model.spent
        self.fall(stage, 0.0)

    def end(self, stage: str) -> None:
        began, own = self.began[stage]
        spent = added(passed(began), own, minus=self.model.spent)
        self.seconds[stage] = added(self.seconds.get(stage, (0.0, 0.0)), spent)
        self.peak_mb[stage] = peak_mb()
        if self.log is not None:
            with self.log.open("a") as log:
                log.write(f"{stage}: {spent[0]:.1f} s, {spent[1]:.1f} s of the processor, peak {peak_mb():,.0f} MB\n")

    def hear(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self.start(event.stage)
        elif isinstance(event, StageFinished):
            self.end(event.stage)
        elif isinstance(event, StageAdvanced):
            self.fall(event.stage, event.done / event.total if event.total else float(event.done))


MOMENTS = ("read 0", "look 0", "look 0.3", "look 0.8", "walk 0", "vocabulary 0", "check 0", "check 0.5", "name 0",
           "write 0")  # fmt: skip
"""Where a run is killed, a random part of a second later: a stage and how far it is, as a share of its steps."""


def falling(moment: str, images: int) -> Callable[[str, float], None]:
    """Ends this process, as `kill -9` does, a random part of a second after a stage has come so far."""
    stage, _, share = moment.partition(" ")
    delay_s = random.Random(f"{moment} {images}").random()

    def fall(now_in: str, done: float) -> None:
        # The check does not know how many questions it will ask: some tenth of the images, at these sizes.
        if now_in == stage and done >= (float(share) * images / 10 if stage == "check" else float(share)):
            threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()

    return fall


def compare_killed(out: Path, kills: int, command: Sequence[str]) -> dict[str, Any]:
    """Of a run that was killed and one that was not: whether they end with the same bytes. command: that runs one."""

    def begin(name: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, "--out", str(out / name), *more], stdout=subprocess.PIPE, text=True)

    whole = begin("whole")
    died = {}
    for number in range(kills):
        moment = MOMENTS[number * len(MOMENTS) // kills % len(MOMENTS)]
        done = begin("killed", "--fall", moment)
        died[f"{number + 1}: {moment}"] = done.returncode
        print(moment, done.returncode, file=sys.stderr, flush=True)
    ends = [json.loads(done.stdout) for done in (whole, begin("killed"))]
    return {
        "images": ends[0]["images"],
        "killed": sum(code == -signal.SIGKILL for code in died.values()),
        "ended": died,
        "same bytes": ends[0]["digest"] == ends[1]["digest"],
        "asked again at the end": ends[1]["calls"],
        "digests": [end["digest"] for end in ends],
    }


Seconds: TypeAlias = tuple[float, float]


def now() -> Seconds:
    return time.perf_counter(), time.process_time()


def passed(since: Seconds) -> Seconds:
    return added(now(), minus=since)


def added(*spans: Seconds, minus: Seconds = (0.0, 0.0)) -> Seconds:
    return sum(span[0] for span in spans) - minus[0], sum(span[1] for span in spans) - minus[1]


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def small_picture() -> bytes:
    """One thumbnail for all: the pictures' own bytes are counted apart."""
    buffer = io.BytesIO()
    PillowImage.linear_gradient("L").resize((96, 72)).convert("RGB").save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


async def run(out: Path, images: int, world: str, classes: int, dimensions: int, seed: int, profile: Path | None,
              writes: bool, log: Path | None, batch: int, fall: str | None = None) -> dict[str, Any]:  # fmt: skip
    drawn = draw_labels(images, classes, seed)
    truth = {hashlib.sha256(image_id.encode()).hexdigest(): label for image_id, label in drawn.items()}
    model = Clocked(scripted(WORLDS[world], truth, seed, writes, dimensions=dimensions), batch)
    clock = Clock(model, log, falling(fall, images) if fall else None)
    settings = Settings(seed=seed)
    jpeg = small_picture()
    whole = now()
    clock.start("open")
    with RunFolder.open(out) as folder:
        clock.end("open")
        clock.start("read")
        known = folder.known_images()
        new = [image_id for image_id in truth if image_id not in known]
        for start in range(0, len(new), _AT_ONCE):
            folder.put_thumbnails(Thumbnail(image_id, 96, 72, jpeg) for image_id in new[start : start + _AT_ONCE])
        pictures = tuple(Image(image_id, (f"{image_id[:3]}/{image_id}.jpg",), 96, 72) for image_id in sorted(truth))
        folder.record_collection(pictures, [], "/pictures", Path("/pictures"))
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
        api._write(session, [(found[INTEREST], settings)], time.monotonic(), False, clock.hear)
        clock.end("write")
        if profile is not None:
            profiler.disable()
            profiler.dump_stats(profile)
    whole = passed(whole)
    clustering = found[INTEREST]
    return {
        "images": images,
        "world": world,
        "writes": writes,
        "classes": classes,
        "dimensions": dimensions,
        "seconds": {stage: round(seconds, 2) for stage, (seconds, _) in clock.seconds.items()},
        "processor": {stage: round(seconds, 2) for stage, (_, seconds) in clock.seconds.items()},
        "beside": [round(seconds, 1) for seconds in added(whole, minus=model.spent)],
        "model": [round(seconds, 1) for seconds in model.spent],
        "peak_mb": {stage: round(mb) for stage, mb in clock.peak_mb.items()},
        "peak": round(peak_mb()),
        "descriptions": len(clustering.vocabulary),
        "clusters": len(clustering.clusters),
        "calls": model.calls,
        "estimate": None if clustering.estimate is None else clustering.estimate.to_dict(),
        "unassigned": sum(a.cluster is None for a in clustering.assignments),
        "nmi": nmi(clustering, truth),
        "bytes": sizes(out),
        "tables": tables(out),
        "notes": list(clustering.notes),
        "digest": digest(out),
    }


async def add(out: Path, images: int, more: int, world: str, classes: int, dimensions: int, seed: int,
              profile: Path | None, writes: bool, batch: int) -> dict[str, Any]:  # fmt: skip
    """What `manylens add` does after it has read the folder of pictures."""
    drawn = draw_labels(images + more, classes, seed)
    truth = {hashlib.sha256(image_id.encode()).hexdigest(): label for image_id, label in drawn.items()}
    model = Clocked(scripted(WORLDS[world], truth, seed, writes, dimensions=dimensions), batch)
    clock = Clock(model, None)
    jpeg = small_picture()
    profiler = cProfile.Profile()
    if profile is not None:
        profiler.enable()
    whole = now()
    clock.start("open")
    with RunFolder.open(out, must_exist=True) as folder:
        ((held, settings),) = folder.clusterings()
        clock.end("open")
        clock.start("read")
        known = folder.known_images()
        folder.put_thumbnails(Thumbnail(image_id, 96, 72, jpeg) for image_id in truth if image_id not in known)
        pictures = tuple(Image(image_id, (f"{image_id[:3]}/{image_id}.jpg",), 96, 72) for image_id in sorted(truth))
        folder.record_collection(pictures, [], "/pictures", Path("/pictures"))
        collection = Collection(Path("/pictures"), pictures, (), 0, len(pictures))
        clock.end("read")
        kept = CachingModel(model, folder, account=open_account(folder))
        session = Session(folder, collection, StoredImages(collection.root, pictures, folder.thumbnail), kept, True)
        clock.start("add")
        ids = [image.id for image in pictures]
        found = await add_images(held, ids, kept, settings, ignore, Budget(kept, settings), len(held.clusters))
        clock.end("add")
        clock.start("write")
        api._write(session, [(found, settings)], time.monotonic(), False, ignore, is_addition=True)
        clock.end("write")
    if profile is not None:
        profiler.disable()
        profiler.dump_stats(profile)
    return {
        "images": images,
        "added": more,
        "seconds": {stage: round(seconds, 2) for stage, (seconds, _) in clock.seconds.items()},
        "processor": {stage: round(seconds, 2) for stage, (_, seconds) in clock.seconds.items()},
        "beside": [round(seconds, 1) for seconds in added(passed(whole), minus=model.spent)],
        "model": [round(seconds, 1) for seconds in model.spent],
        "peak": round(peak_mb()),
        "calls": model.calls,
    }


def sizes(out: Path) -> dict[str, int]:
    """Bytes of the files of a run; the thumbnails of its report together."""
    found: dict[str, int] = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            name = path.relative_to(out).parts[0 if THUMBNAILS_NAME in path.parts else -1]
            found[name] = found.get(name, 0) + path.stat().st_size
    return found


def tables(out: Path) -> dict[str, int]:
    """Bytes of each table of the database with its index, where SQLite can say so."""
    with contextlib.closing(sqlite3.connect(out / DATABASE_NAME)) as database:
        try:
            query = "SELECT name, SUM(pgsize) FROM dbstat GROUP BY name"
            rows = [(name.removeprefix("sqlite_autoindex_").rstrip("_0123456789"), size)
                    for name, size in database.execute(query)]  # fmt: skip
        except sqlite3.OperationalError:
            return {}
    found: dict[str, int] = {}
    for name, size in rows:
        found[name] = found.get(name, 0) + size
    return found


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
    parser.add_argument("--dimensions", type=int, default=384, help="of an embedding; the packaged embedder has 384")
    parser.add_argument("--batch", type=int, default=1000, help="requests that the model takes at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--silent", action="store_true", help="a model that does not write")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--kills", type=int, help="compare with a run that is killed so often")
    parser.add_argument("--fall", choices=MOMENTS, help="kill this process there")
    parser.add_argument("--add", type=int, default=0, metavar="N")
    given = parser.parse_args()
    if given.kills:
        same = ["--images", given.images, "--world", given.world, "--classes", given.classes, "--seed", given.seed]
        same += ["--dimensions", given.dimensions, "--batch", given.batch, *(["--silent"] if given.silent else [])]
        command = [sys.executable, "-m", "bench.scale_run", *map(str, same)]
        print(json.dumps(compare_killed(given.out, given.kills, command)))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    work = run(given.out, given.images, given.world, given.classes, given.dimensions, given.seed, given.profile,
               not given.silent, given.log, given.batch, given.fall)  # fmt: skip
    if given.add:
        work.close()
        work = add(given.out, given.images, given.add, given.world, given.classes, given.dimensions, given.seed,
                   given.profile, not given.silent, given.batch)  # fmt: skip
    print(json.dumps(asyncio.run(work)))


if __name__ == "__main__":
    main()
