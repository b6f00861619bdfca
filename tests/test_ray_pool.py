"""The driver's side of the engine ray where Ray itself fails; the actors here are plain objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import manylens
from manylens import ModelOptions, RayEngine
from manylens.engine.pool import Pool
from manylens.engine.ray_model import RayModelWithVerdict
from manylens.engine.replica import Face
from manylens.errors import ModelUnavailable, UsageError
from manylens.models.base import VERDICT_PICTURES, Capabilities, ask_verdict
from manylens.models.scripted import ScriptedModel
from manylens.sync import in_thread

pytestmark = pytest.mark.ray
ray = pytest.importorskip("ray")

FACE = Face("1", "own", "own", Capabilities(), True, False, None)


def actor(**methods: Callable[..., Any]) -> Any:
    """Each method as Ray has it: called through `remote`, and awaited."""

    def remote(method: Callable[..., Any]) -> Any:
        async def work(*arguments: Any) -> Any:
            return method(*arguments)

        return SimpleNamespace(remote=work)

    return SimpleNamespace(**{name: remote(method) for name, method in methods.items()})


def test_what_is_no_error_of_ray_s_ends_the_waiting_for_a_replica() -> None:
    def face(spec: Any) -> Face:
        raise TypeError("cannot pickle '_thread.lock' object")

    async def begin() -> None:
        pool = Pool([lambda: actor(face=face)], "nano", None)
        with pytest.raises(ModelUnavailable, match=r"could not load it \(cannot pickle"):
            await asyncio.wait_for(pool.begin(), 5)

    asyncio.run(begin())


def test_every_replica_is_ended_where_one_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Any] = []

    def kill(one: Any) -> None:
        ended.append(one)
        if len(ended) == 1:
            raise ConnectionError("gone")

    monkeypatch.setattr(ray, "kill", kill)
    asyncio.run(Pool([actor, actor], "nano", None).close())
    assert len(ended) == 2


def test_the_cluster_of_a_run_is_left_whatever_closing_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closing:
        def __init__(self, *given: Any) -> None: ...

        async def begin(self) -> Face:
            raise ModelUnavailable("no replica")

        async def close(self) -> None:
            raise RuntimeError("the connection is gone")

    left: list[bool] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "shutdown", lambda: left.append(True))
    monkeypatch.setattr("manylens.engine.ray_engine._connect", lambda address: None)
    monkeypatch.setattr("manylens.engine.ray_engine.Pool", Closing)

    async def work() -> None:
        images: Any = SimpleNamespace(source=tmp_path)
        features: Any = None
        async with RayEngine().opened(ScriptedModel({"color": {}}), images, ModelOptions(), features, tmp_path):
            raise AssertionError("it never opens")

    with pytest.raises(RuntimeError):
        asyncio.run(work())
    assert left == [True]


def test_another_cluster_than_the_one_that_the_process_is_in_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    for address in (None, "auto", "10.0.0.1:6379"):
        RayEngine(address).probe("nano", ModelOptions(), tmp_path / "models.json")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "no.png").write_bytes(b"none")
    with pytest.raises(UsageError, match=r"this one is in 10\.0\.0\.1:6379, not in 10\.0\.0\.2:6379"):
        manylens.cluster(
            tmp_path / "pictures", "color", engine=RayEngine("10.0.0.2:6379"), out=tmp_path / "out", progress=False
        )


def test_a_verdict_takes_a_sample_s_thumbnails_along() -> None:
    sent: list[int] = []

    def packed(ids: Iterable[str]) -> tuple[tuple[()], dict[str, bytes]]:
        sent.append(len(list(ids)))
        return (), {}

    images: Any = SimpleNamespace(packed=packed)
    speaks: Any = SimpleNamespace()
    asked: list[int] = []

    def verdict(interest: str, ids: list[str], shipped: Any) -> tuple[None]:
        asked.append(len(ids))
        return (None,)

    async def work() -> None:
        pool = Pool([lambda: actor(face=lambda spec: FACE, verdict=verdict)], "nano", images)
        model: Any = RayModelWithVerdict(speaks, await pool.begin(), pool)
        await in_thread(lambda: ask_verdict(model, "color", [f"{number:05}" for number in range(10_000)]))

    asyncio.run(work())
    assert sent == asked and sent[0] <= VERDICT_PICTURES
