"""How looks scale with replicas, and what the store costs beside Ray Data's own batch inference of the same model.

`python -m bench.ray_scaling [--images 1040] [--replicas 1 2 4] [--rounds 3]` measures nano on this machine: looks a
second through a whole run (thumbnails sent, answers in the store) with so many replicas, with the engine `local`, and
with Ray Data on the largest number of replicas that the CPUs hold.

`python -m bench.ray_scaling --pause 0.25 [--replicas 1 2 4 8]` measures the engine alone: the model takes so many
seconds for each call of 32 pictures and no CPU, as one on a GPU would, so that what is lost is the driver's.

`python -m bench.ray_scaling --model hf:FOLDER --gpus 1 2 --replicas 1 2 4` does so on GPUs, so many replicas on each
GPU (bfloat16 where they have it), and prints the efficiency to the first number of GPUs with as many replicas each. A
row is printed when it is measured; one that cannot be says why, and the others go on.

Rows of one run are compared; the best of the rounds counts, which take turns. Needs the extra `[ray]`, for Ray Data
pyarrow and pandas, too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

from bench.worlds import ignore
from manylens.collection.find import find_images
from manylens.collection.pictures import StoredImages
from manylens.engine import Engine, LocalEngine, RayEngine
from manylens.errors import ManylensError, ModelError
from manylens.models.base import LookReply, LookRequest, Model, ModelOptions
from manylens.models.nano.model import Nano
from manylens.models.scripted import ScriptedModel
from manylens.pipeline.look import look_at_images
from manylens.session import open_session
from manylens.settings import Settings
from manylens.types import Image, Interest
from training.draw_cards import write_sample

INTEREST = "suit"
BATCH = 32
WARM = 64
"""Pictures looked at before the clock starts, a replica."""


Measured: TypeAlias = tuple[float, float, float]


@contextmanager
def cluster(cpus: int, gpus: int) -> Iterator[None]:
    """Ray on this machine, with so much of it. Two replicas share a core where there are more of them than cores."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    ray.init("local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def measure(folder: Path, model: str | Model, options: ModelOptions, engine: Engine, replicas: int) -> Measured:
    """Looks a second of a run with an empty store: once all replicas are warm, and from the start of the first; and CPU
    milliseconds a look, of the driver and the replicas."""

    async def work(out: Path) -> Measured:
        began = time.perf_counter()
        async with open_session(folder, out, model, options, Settings(), ignore, engine=engine) as session:
            ids = [image.id for image in session.collection.images]
            warm, timed = ids[: WARM * replicas], ids[WARM * replicas :]
            await look_at_images(warm, [Interest(INTEREST)], session.model, ignore)
            start, cpu = time.perf_counter(), cpu_s()
            await look_at_images(timed, [Interest(INTEREST)], session.model, ignore)
            end, spent = time.perf_counter(), cpu_s() - cpu
        return len(timed) / (end - start), len(ids) / (end - began), 1000 * spent / len(timed)

    with tempfile.TemporaryDirectory() as scratch:
        return asyncio.run(work(Path(scratch) / "run"))


def cpu_s() -> float:
    """CPU seconds of this process and of the replicas that it has, so far."""
    parents, names, ticks = {}, {}, {}
    for entry in Path("/proc").iterdir():
        try:
            begin, _, rest = (entry / "stat").read_text().rpartition(")")
        except (OSError, UnicodeDecodeError):
            continue
        fields = rest.split()
        if entry.name.isdigit():
            process = int(entry.name)
            parents[process], names[process] = int(fields[1]), begin.partition("(")[2]
            ticks[process] = int(fields[11]) + int(fields[12])

    def is_ours(process: int) -> bool:
        while process in parents and process != os.getpid():
            process = parents[process]
        return process == os.getpid()

    counted = [p for p in ticks if p == os.getpid() or (names[p].startswith("ray::Rep") and is_ours(p))]
    return sum(ticks[process] for process in counted) / os.sysconf("SC_CLK_TCK")


def label_of(interest: str, image_id: str) -> str:
    return f"kind {int(image_id[:4], 16) % 10}"


class Paused(ScriptedModel):
    """Takes as long as a GPU would, and wants the pictures, which then travel."""

    def __init__(self, pause_s: float) -> None:
        super().__init__(label_of, classes={INTEREST: [f"kind {n}" for n in range(10)]})
        self._pause_s = pause_s

    def open(self, images: object) -> None:
        pass

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        time.sleep(self._pause_s)
        return await super().look(requests)


class Looker:
    """What a person would write for Ray Data: nano over the batch's own thumbnails, and nothing kept."""

    def __init__(self) -> None:
        self._held: dict[str, bytes] = {}
        images = (Image("", (), 1, 1),)
        self._nano = Nano(StoredImages(Path(), images, lambda image_id: self._held[image_id]))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        self._held = dict(zip(batch["id"].tolist(), batch["jpeg"].tolist(), strict=True))
        replies = asyncio.run(self._nano.look([LookRequest(INTEREST, i) for i in self._held]))
        return {"id": batch["id"], "description": [getattr(reply, "description", "") for reply in replies]}


def ray_data(folder: Path, replicas: int, cpus: float) -> float:
    """Looks a second from the reading of the files to the last reply, model loading included."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    began = time.perf_counter()
    thumbnails: dict[str, bytes] = {}
    find_images(folder, keep=lambda found: thumbnails.update({t.image_id: t.jpeg for t in found}))
    rows = ray.data.from_items([{"id": i, "jpeg": jpeg} for i, jpeg in thumbnails.items()])
    pool = ray.data.ActorPoolStrategy(size=replicas)
    looked = rows.map_batches(Looker, batch_size=BATCH, compute=pool, num_cpus=cpus).take_all()
    assert len(looked) == len(thumbnails) and all(row["description"] for row in looked)
    return len(looked) / (time.perf_counter() - began)


def on_cpus(options: argparse.Namespace, folder: Path) -> list[str]:
    cores = os.cpu_count() or 1
    most = max(n for n in options.replicas if n <= cores)
    best: dict[str, Measured] = {}

    def keep(name: str, found: Measured) -> None:
        had = best.get(name, (0.0, 0.0, float("inf")))
        best[name] = (max(had[0], found[0]), max(had[1], found[1]), min(had[2], found[2]))

    for _ in range(options.rounds):
        keep("local", measure(folder, options.model, ModelOptions(), LocalEngine(), 1))
        for replicas in options.replicas:
            each = min(1.0, cores / replicas)
            with cluster(cores, 0):
                engine = RayEngine(replicas=replicas, cpus=each)
                keep(f"ray, {replicas}", measure(folder, options.model, ModelOptions(), engine, replicas))
        if options.model == "nano":
            with cluster(cores + 1, 0):  # one more, for Ray Data's own tasks: else its actors wait for them
                keep("data", (0.0, ray_data(folder, most, 1.0), float("inf")))
    first = best[f"ray, {options.replicas[0]}"][0]
    lines = [
        "| engine | looks a second, warm | to one replica | efficiency | with loading | CPU ms a look |",
        "|---|---|---|---|---|---|",
    ]
    lines.append(f"| local, {cores} threads | {best['local'][0]:.1f} | {best['local'][0] / first:.2f} | | "
                 f"{best['local'][1]:.1f} | {best['local'][2]:.1f} |")  # fmt: skip
    for replicas in options.replicas:
        warm, whole, cpu = best[f"ray, {replicas}"]
        ratio = warm / first
        slots = min(replicas, cores) / min(options.replicas[0], cores)
        cells = (f"ray, {replicas} of 1 thread", f"{warm:.1f}", f"{ratio:.2f}", f"{ratio / slots:.2f}", f"{whole:.1f}")
        lines.append(f"| {' | '.join(cells)} | {cpu:.1f} |")
    if "data" not in best:
        return lines
    whole = best["data"][1]
    lines.append(f"| Ray Data, {most}, no store | | | | {whole:.1f} | |")
    ours = best[f"ray, {most}"][1]
    lines.append(
        f"\nThe engine ray, with the store, makes {ours / whole:.2f} of Ray Data's looks a second, with loading."
    )
    return lines


def paused(options: argparse.Namespace, folder: Path) -> list[str]:
    best: dict[int, float] = {}
    for _ in range(options.rounds):
        for replicas in options.replicas:
            with cluster(os.cpu_count() or 1, 0):
                engine = RayEngine(replicas=replicas, cpus=0.01)
                found, *_ = measure(folder, Paused(options.pause), ModelOptions(), engine, replicas)
                best[replicas] = max(best.get(replicas, 0.0), found)
    lines = ["| replicas | looks a second | of what the pauses allow |", "|---|---|---|"]
    for replicas, rate in best.items():
        lines.append(f"| {replicas} | {rate:.0f} | {rate / (replicas * BATCH / options.pause):.2f} |")
    return lines


def on_gpus(options: argparse.Namespace, folder: Path) -> list[str]:
    cores = os.cpu_count() or 1
    best: dict[tuple[int, int], float] = {}
    for turn in range(options.rounds):
        for gpus in options.gpus:
            for each in options.replicas:
                replicas = gpus * each
                engine = RayEngine(replicas=replicas, cpus=cores / max(cores, replicas), gpus=1 / each)
                try:
                    with cluster(cores, gpus):
                        found, *_ = measure(
                            folder, options.model, ModelOptions(image_px=options.image_px), engine, replicas
                        )
                except ManylensError as error:
                    print(f"round {turn + 1}, {gpus} GPUs, {each} replicas each: {error}", flush=True)
                    continue
                print(f"round {turn + 1}, {gpus} GPUs, {each} replicas each: {found:.1f} looks a second", flush=True)
                best[gpus, each] = max(best.get((gpus, each), 0.0), found)
    lines = ["", "| GPUs | replicas on each | looks a second | efficiency |", "|---|---|---|---|"]
    base = options.gpus[0]
    for (gpus, each), rate in best.items():
        alone = best.get((base, each), 0.0)
        efficiency = f"{rate / alone * base / gpus:.2f}" if alone else ""
        lines.append(f"| {gpus} | {each} | {rate:.1f} | {efficiency} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1040)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--gpus", type=int, nargs="*", default=[])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image-px", type=int, default=256)
    parser.add_argument("--folder", type=Path, help="pictures of your own in place of drawn cards")
    options = parser.parse_args(arguments)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, commit {commit}, {options.images} pictures\n")
    most = max(options.replicas) * max(options.gpus, default=1)
    if options.folder is None and options.images < 2 * WARM * most:
        parser.error(
            f"{WARM} pictures a replica are looked at before the clock starts: pass --images {2 * WARM * most}"
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or write_sample(Path(scratch) / "sample", images_per_card=-(-options.images // 52))
        print(
            "\n".join((paused if options.pause else on_gpus if options.gpus else on_cpus)(options, folder)), flush=True
        )


if __name__ == "__main__":
    main()
