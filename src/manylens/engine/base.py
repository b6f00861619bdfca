"""The seam between a run and what computes its model's replies.

In: the name of a model, or an object; the pictures. Out: a `Model` that may be asked until the engine is closed.
Promise: what comes back is what the model itself gives; storing, counting and limits stay with the run, around it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from manylens.collection.pictures import StoredImages
from manylens.errors import UsageError
from manylens.models.base import Model, ModelOptions, open_model
from manylens.models.registry import OpenFeatures, close_model, load_model, probe_model

ENGINES = ("local", "ray")


class Engine(Protocol):
    """Carries out the calls of one model."""

    def probe(self, model: str | Model, options: ModelOptions, recorded: Path) -> None:
        """Before a picture is read: whether this can work. recorded: the run's file of what was found out about models
        behind servers. Raises UsageError or ModelUnavailable where it cannot."""
        ...

    def opened(
        self, model: str | Model, images: StoredImages, options: ModelOptions, features: OpenFeatures, recorded: Path
    ) -> AbstractAsyncContextManager[Model]:
        """The model, ready to be asked; what it holds is given back at the end. Raises as `probe` does."""
        ...


class LocalEngine:
    """The model in this process, or the server that it asks from here."""

    def probe(self, model: str | Model, options: ModelOptions, recorded: Path) -> None:
        if isinstance(model, str):
            probe_model(model, options, recorded)

    @asynccontextmanager
    async def opened(
        self, model: str | Model, images: StoredImages, options: ModelOptions, features: OpenFeatures, recorded: Path
    ) -> AsyncIterator[Model]:
        if isinstance(model, str):
            chosen = load_model(model, images, features, options, recorded=recorded)
        else:
            chosen = model
            open_model(chosen, images)
        try:
            yield chosen
        finally:
            await close_model(chosen)


def engine_named(engine: str | Engine | None, address: str | None = None, replicas: int | None = None) -> Engine:
    """`local`, `ray`, or an engine as it is; None is `local`. address, replicas: of `ray`. Raises UsageError."""
    from manylens.engine.ray_engine import RayEngine

    if engine in (None, "local") or not isinstance(engine, str):
        if address is not None or replicas is not None:
            raise UsageError("an address and replicas belong to the engine ray, got another", "pass --engine ray")
        return LocalEngine() if engine is None or isinstance(engine, str) else engine
    if engine != "ray":
        raise UsageError(f"an engine is one of {', '.join(ENGINES)}, got {engine!r}", "pass --engine ray")
    return RayEngine(address, replicas)
