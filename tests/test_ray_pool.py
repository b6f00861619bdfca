"""The driver's side of the engine ray where Ray itself fails; the actors here are plain objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from manylens.engine.pool import Pool
from manylens.engine.ray_model import RayModelWithVerdict
from manylens.engine.replica import Face
from manylens.models.base import VERDICT_PICTURES, Capabilities, ask_verdict
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
