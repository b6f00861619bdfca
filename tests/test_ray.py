"""The engine ray: the same bytes, and nothing lost with a worker, a machine or the driver."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage
from ray_driver import INTERESTS, Counted, Fatal, Twins
from test_durability import COLORS, SIZES, results, served, stored_keys

import manylens
from manylens import ModelOptions, RayEngine
from manylens.cli.sample import write_sample
from manylens.engine import Engine, LocalEngine, engine_named
from manylens.engine.ray_model import MOST_AT_ONCE
from manylens.errors import ModelUnavailable, UsageError
from manylens.models.scripted import ScriptedModel

PICTURES = int(os.environ.get("MANYLENS_RAY_PICTURES", "240"))
"""Of the runs in which something is killed. The suite takes few; 2000 were tried."""

pytestmark = pytest.mark.ray
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra [ray]: make test-ray")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), PICTURES)


@pytest.fixture(scope="module")
def expected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the local engine leaves."""
    out = tmp_path_factory.mktemp("local") / "out"
    manylens.cluster(folder, INTERESTS, model=Counted(folder, Path(f"{out}.served")), out=out)
    return results(out)


@pytest.fixture(scope="module")
def here() -> Iterator[RayEngine]:
    """A cluster of two CPUs on this machine, which several tests share."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # the workers find the models of these tests
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield RayEngine()
    ray.shutdown()


def workers() -> list[int]:
    """Processes of replicas that this process's own cluster has started, and no other."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(entry.name)] = (entry / "cmdline").read_text()
        except (OSError, ValueError, IndexError):
            continue

    def is_ours(process: int) -> bool:
        while process in parents:
            if process == os.getpid():
                return True
            process = parents[process]
        return False

    return [process for process, title in titles.items() if title.startswith("ray::Replica") and is_ours(process)]


@contextmanager
def at_answers(served_by: Path, counts: list[int], do: Callable[[], None]) -> Iterator[list[int]]:
    """In a thread beside a run, do it whenever replicas have answered so many requests; gives when it was done."""
    over = threading.Event()
    done: list[int] = []

    def watch() -> None:
        for count in counts:
            while len(served_by.read_text().split() if served_by.is_file() else ()) < count:
                if over.wait(0.01):
                    return
            do()
            done.append(count)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def assert_nothing_stored_is_asked_again(out: Path, kept: Sequence[tuple[set[str], int]]) -> None:
    """kept: at some moments, what was stored, and how many requests had been answered."""
    asked = served(out)
    assert all(not stored & set(asked[answered:]) for stored, answered in kept)


def write_pictures(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        color, size = list(COLORS)[number % 3], list(SIZES)[number % 2]
        image = PillowImage.new("RGB", SIZES[size], COLORS[color])
        image.putpixel((number % 20, number // 20 % 20), (255, 255, number // 400))
        image.save(folder / f"{color}-{size}-{number:04d}.png")
    return folder


@needs_ray
@pytest.mark.slow
def test_the_same_bytes_as_the_local_engine(
    folder: Path, expected: dict[str, bytes], here: RayEngine, tmp_path: Path
) -> None:
    model = Counted(folder, tmp_path / "out.served")
    result = manylens.cluster(folder, INTERESTS, model=model, out=tmp_path / "out", engine=here)
    assert results(tmp_path / "out") == expected
    assert max(Counter(served(tmp_path / "out")).values()) == 1
    again = manylens.cluster(folder, INTERESTS, model=model, out=tmp_path / "out", engine=here)
    assert (again.calls_asked, again.calls_kept > result.calls.look) == (0, True)


@needs_ray
@pytest.mark.slow
def test_nano_on_replicas_says_the_same(here: RayEngine, tmp_path: Path) -> None:
    pictures = sorted(write_sample(tmp_path / "sample").iterdir())
    for picture in pictures[40:]:
        picture.unlink()
    for engine in ("local", here):
        out = tmp_path / ("local" if engine == "local" else "ray")
        manylens.cluster(tmp_path / "sample" / "images", ["suit", "smell"], out=out, engine=engine)
    assert results(tmp_path / "ray") == results(tmp_path / "local")


@needs_ray
@pytest.mark.models
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the extra [local]: make test-models")
def test_a_checkpoint_on_replicas_says_the_same(here: RayEngine, tmp_path: Path) -> None:
    import tiny_checkpoints

    named = f"hf:{tiny_checkpoints.llava(tmp_path / 'checkpoint')}"
    folder = write_pictures(tmp_path / "pictures", 12)
    looked = []
    for engine in (LocalEngine(), RayEngine(replicas=2)):
        out = tmp_path / type(engine).__name__
        manylens.cluster(folder, "color", model=named, options=ModelOptions(device="cpu"), out=out, engine=engine)
        looked.append(results(out))
    assert looked[0] == looked[1]


@needs_ray
@pytest.mark.slow
def test_killed_workers_cost_the_calls_under_way_and_nothing_else(
    folder: Path, expected: dict[str, bytes], here: RayEngine, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    drawn = random.Random(7)
    kept: list[tuple[set[str], int]] = []

    def kill() -> None:
        kept.append((stored_keys(out), len(served(out))))
        os.kill(drawn.choice(workers()), signal.SIGKILL)

    moments = [round(share * 2 * PICTURES) for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    model = Counted(folder, Path(f"{out}.served"), pause_s=0.05)
    with at_answers(Path(f"{out}.served"), moments, kill) as killed:
        manylens.cluster(folder, INTERESTS, model=model, out=out, engine=here)
    assert killed == moments
    assert results(out) == expected
    times = Counter(served(out))
    assert_nothing_stored_is_asked_again(out, kept)
    assert sum(times.values()) - len(times) <= len(killed) * MOST_AT_ONCE


@needs_ray
@pytest.mark.slow
def test_a_picture_that_ends_its_worker_fails_by_itself(here: RayEngine, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 60)
    ends, raises = folder / "green-tall-0001.png", folder / "blue-wide-0002.png"
    ids = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (ends, raises)]
    model = Fatal(folder, tmp_path / "served", *ids)
    result = manylens.cluster(folder, "color", model=model, out=tmp_path / "out", engine=here)
    failed = {row.path: row.reason for row in result["color"].files.rows if row.state == "failed"}
    assert set(failed) == {ends.name, raises.name}
    assert "ended 3 of them" in failed[ends.name]
    assert "ValueError: no such picture" in failed[raises.name]
    assert result["color"].counts.failed == 2


@needs_ray
@pytest.mark.slow
def test_what_fails_with_every_picture_is_raised(here: RayEngine, tmp_path: Path) -> None:
    class Wrong(ScriptedModel):
        async def look(self, requests: Any) -> Any:
            raise KeyError("a slip of its programmer")

    folder = write_pictures(tmp_path / "pictures", 4)
    with pytest.raises(KeyError, match="a slip of its programmer"):
        manylens.cluster(folder, "color", model=Wrong({"color": {}}), out=tmp_path / "out", engine=here)


@needs_ray
@pytest.mark.slow
def test_replicas_that_are_not_one_model_end_the_run(here: RayEngine, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 4)
    with pytest.raises(ModelUnavailable, match="one model, here it is twin"):
        manylens.cluster(folder, "color", model=Twins({"color": {}}), out=tmp_path / "out", engine=here)


@needs_ray
@pytest.mark.slow
def test_a_lost_driver_continues_from_its_store(folder: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(Path(__file__).with_name("ray_driver.py")), str(folder), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(stored_keys(out)) < PICTURES // 2 and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    kept = stored_keys(out)
    assert PICTURES // 2 <= len(kept) < 2 * PICTURES
    before = len(served(out))
    model = Counted(folder, Path(f"{out}.served"))
    manylens.cluster(folder, INTERESTS, model=model, out=out)  # a run begun on a cluster goes on without one
    assert results(out) == expected
    assert not kept & set(served(out)[before:])


@needs_ray
@pytest.mark.slow
def test_a_lost_machine_costs_no_stored_answer(folder: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    out = tmp_path / "out"
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        lost = machines.add_node(num_cpus=1)
        kept: list[tuple[set[str], int]] = []

        def lose() -> None:
            kept.append((stored_keys(out), len(served(out))))
            machines.remove_node(lost, allow_graceful=False)

        model = Counted(folder, Path(f"{out}.served"), pause_s=0.05)
        with at_answers(Path(f"{out}.served"), [PICTURES // 2], lose) as done:
            manylens.cluster(folder, INTERESTS, model=model, out=out, engine=RayEngine(machines.address))
        assert done
        assert results(out) == expected
        assert_nothing_stored_is_asked_again(out, kept)
    finally:
        ray.shutdown()
        machines.shutdown()


def test_what_the_engine_cannot_carry_is_refused_before_a_picture_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_pictures(tmp_path / "pictures", 2)

    def refused(engine: Engine, model: Any, **options: Any) -> str:
        with pytest.raises(UsageError) as caught:
            manylens.cluster(folder, "color", model=model, engine=engine, out=tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'manylens[ray]'" in refused(RayEngine(), "nano")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    served_model = ModelOptions(base_url="http://localhost:1/v1")
    assert "is asked over the network" in refused(RayEngine(), "qwen", options=served_model)


def test_engines_have_names() -> None:
    assert isinstance(engine_named(None), LocalEngine) and isinstance(engine_named("local"), LocalEngine)
    assert engine_named("ray", "auto", 3) == RayEngine("auto", 3)
    for wrong in ({"engine": "spark"}, {"engine": "local", "replicas": 2}, {"engine": None, "address": "auto"}):
        with pytest.raises(UsageError, match="ray"):
            engine_named(**wrong)
    with pytest.raises(UsageError, match="at least 1"):
        RayEngine(replicas=0)
