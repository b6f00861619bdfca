"""The engine `ray`: replicas of the model as Ray actors, on this machine or on those of a cluster.

In: a model, requests. Out: its replies, in order. Promises: nothing of a run lives on a worker, so one that is lost
costs the calls under way and no stored answer; they are made again elsewhere; a request that ends its worker's process
each time it is alone with it fails by itself; replicas that are not one and the same model end the run.

Needs the extra `[ray]`, which is imported when it is used.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from manylens.collection.pictures import StoredImages
from manylens.engine.pool import Pool
from manylens.engine.ray_model import RayModel, RayModelWithVerdict
from manylens.engine.replica import Face, Replica
from manylens.errors import ModelUnavailable, UsageError
from manylens.models.base import Model, ModelOptions, check_model
from manylens.models.registry import OpenFeatures, is_local, load_model, probe_model


@dataclass(frozen=True, slots=True)
class RayEngine:
    """Replicas of the model on the machines of a Ray cluster.

    address: of the cluster, `HOST:6379` or `auto`; None is the one that this process is in, in RAY_ADDRESS or on this
    machine, else one that is started here for the run. replicas: how many; None is one for each slot that the cluster
    has now. An autoscaler may bring machines for more; the run begins with the first that is up. cpus, gpus: of one
    slot; gpus None is one where the model is a checkpoint (`hf:`) and the cluster has any, else none.
    """

    address: str | None = None
    replicas: int | None = None
    cpus: float = 1.0
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.replicas is not None and self.replicas < 1:
            raise UsageError(f"replicas are at least 1, got {self.replicas}", "leave it out for one in each slot")
        if self.cpus <= 0 or (self.gpus is not None and self.gpus < 0):
            raise UsageError(
                f"a slot has some of a CPU and no negative part of a GPU, got {self.cpus:g} and {self.gpus}",
                "pass RayEngine(cpus=1, gpus=1)",
            )

    def probe(self, model: str | Model, options: ModelOptions, recorded: Path) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UsageError("the engine ray needs Ray, it is not installed", "pip install 'manylens[ray]'")
        self._check_connection()
        if not isinstance(model, str):
            check_model(model)
            if model.capabilities.batch_size == 1:
                raise _served(model.name)
            try:
                import ray.cloudpickle

                ray.cloudpickle.dumps(model)
            except (TypeError, AttributeError, ValueError, pickle.PicklingError) as error:
                kind = type(model).__name__
                raise UsageError(
                    f"a model travels to the workers as it is, {kind} cannot be pickled ({error!s:.80})",
                    "open files and connections in its method open(images), which each replica calls",
                ) from error
            return
        if not is_local(model, options):
            raise _served(model)
        probe_model(model, replace(options, device=None), recorded)

    @asynccontextmanager
    async def opened(
        self, model: str | Model, images: StoredImages, options: ModelOptions, features: OpenFeatures, recorded: Path
    ) -> AsyncIterator[Model]:
        import ray

        self._check_connection()
        begun = not ray.is_initialized()
        if begun:
            _connect(self.address)
        pool: Pool | None = None
        try:
            # Beside the replicas only words and keys are made here: no GPU, and no weights.
            speaks = load_model(model, images, None, replace(options, device=None)) if isinstance(model, str) else model
            gpus = self._gpus(model, options, ray.cluster_resources().get("GPU", 0.0))
            actor = ray.remote(Replica).options(
                num_cpus=self.cpus,
                num_gpus=gpus,
                max_restarts=-1,
                scheduling_strategy="SPREAD",
            )
            place = os.path.abspath(images.source) if isinstance(images.source, Path) else images.source.place
            pool = Pool(
                [partial(actor.remote, options, place)] * self._slots(ray.cluster_resources(), gpus),
                model if isinstance(model, str) else ray.put(model),
                images if isinstance(model, str) or hasattr(model, "open") else None,
            )
            face = await pool.begin()
            _check(face, speaks)
            if face.found_out is not None:
                speaks.assume(face.found_out)  # type: ignore[attr-defined]  # who has `facts` has this
            yield (RayModelWithVerdict if face.has_verdict else RayModel)(speaks, face, pool)
        finally:
            try:
                if pool is not None:
                    await pool.close()
            finally:
                if begun:
                    ray.shutdown()

    def _check_connection(self) -> None:
        """A process is in one cluster at a time. Raises UsageError where it is in another than the one that was named;
        `auto` is any that is there."""
        ray = sys.modules.get("ray")  # what was not imported has connected to nothing
        if self.address in (None, "auto") or ray is None or not ray.is_initialized():
            return
        there = ray.get_runtime_context().gcs_address
        if self.address != there:
            raise UsageError(
                f"a process is in one Ray cluster at a time, this one is in {there}, not in {self.address}",
                "call ray.shutdown() first, or leave out address to use the one that it is in",
            )

    def _gpus(self, model: str | Model, options: ModelOptions, there: float) -> float:
        if self.gpus is not None:
            return self.gpus
        wants = isinstance(model, str) and model.startswith("hf:") and (options.device or "cuda").startswith("cuda")
        return 1.0 if wants and there else 0.0

    def _slots(self, there: dict[str, float], gpus: float) -> int:
        if self.replicas is not None:
            return self.replicas
        fit = int(there.get("CPU", 0.0) / self.cpus)
        return max(1, min(fit, int(there.get("GPU", 0.0) / gpus)) if gpus else fit)


def _served(name: str) -> UsageError:
    return UsageError(
        f"the engine ray has replicas of a model that computes, {name!r} is asked over the network",
        "leave out --engine, and allow more calls at once with --concurrency; the server spreads them over its GPUs",
    )


def _connect(address: str | None) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run tells nobody that it was
    try:
        ray.init(address=address, include_dashboard=False if address is None else None, log_to_driver=False,
                 logging_level="ERROR")  # fmt: skip
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise ModelUnavailable(
            f"a Ray cluster answers at its address, {address or 'this machine'} does not ({error!s:.120})",
            "see that `ray status` works there, or leave out --ray-address to start one here",
        ) from error


def _check(face: Face, speaks: Model) -> None:
    from manylens import __version__

    for what, here, there in (
        ("version of manylens", __version__, face.version),
        ("model", speaks.identity, face.identity),
    ):
        if here != there:
            raise ModelUnavailable(
                f"all machines have one {what}, here it is {here}, on a worker {there}",
                "install the same package and copy the same files everywhere",
            )
