"""The driver's side of the replicas: who is free, who is lost, what is made again.

In: calls. Out: what one of the replicas returned. Promises: a replica has one call at a time, so what was under way
when it was lost is known; a lost one comes back by itself, here or on another machine; a call that lost two replicas
is taken apart, and a request that alone loses `MOST_LOSSES` fails by itself; where no replica is up for `LONGEST_S` the
run ends in `ModelUnavailable`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manylens.collection.pictures import StoredImages
from manylens.engine.replica import Face, Shipped
from manylens.errors import ManylensError, ModelError, ModelUnavailable
from manylens.models.base import Reply, Request
from manylens.types import Verdict

MOST_LOSSES = 3
"""Replicas that one request may lose while it is alone with them. Machines are lost by chance, too: three in a row
with one request are no chance."""

LONGEST_S = 600.0
"""Loading a large checkpoint, or an autoscaler's new machine, takes minutes."""

_AGAIN_S = 0.2
"""Between two questions whether a replica is back."""

_APPEARANCES = 64
"""Pictures of one call: their thumbnails travel with it."""


class _Lost(Exception):
    """The replica was lost during a call."""


@dataclass(slots=True)
class _Handle:
    """start: makes the actor anew, where Ray itself has given it up."""

    start: Callable[[], Any]
    actor: Any
    is_up: bool = False


class Pool:
    """starts: one for each replica. spec: the model, as `Replica.face` takes it. images: what the run has of the
    pictures, None for a model that wants none."""

    def __init__(self, starts: Sequence[Callable[[], Any]], spec: Any, images: StoredImages | None) -> None:
        self._spec = spec
        self.size = len(starts)
        self._handles = [_Handle(start, start()) for start in starts]
        self._images = images
        self._free: deque[_Handle] = deque()
        self._up = 0
        self._news = asyncio.Event()
        self._face: Face | None = None
        self._broken: Exception | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self) -> Face:
        """Waits for the first replica. Raises ModelUnavailable, or why the model cannot be loaded."""
        for handle in self._handles:
            self._revive(handle)
        self._give_back(await self._take())
        assert self._face is not None
        return self._face

    async def close(self) -> None:
        import ray

        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for handle in self._handles:
            with contextlib.suppress(Exception):  # one that is gone, or a cluster that is: the others end all the same
                ray.kill(handle.actor)

    async def answer(self, verb: str, requests: Sequence[Request], shown: Sequence[str]) -> list[Reply | ModelError]:
        """shown: ids of the images that the requests are about."""
        shipped = self._ship(shown)
        for _ in range(1 if len(requests) == 1 else 2):
            try:
                return await self._answer(verb, requests, shipped)
            except _Lost:
                pass
            except ManylensError:
                raise
            except Exception as error:
                if len(requests) == 1:
                    raise
                return await self._each(verb, requests, shipped, error)
        if len(requests) > 1:
            return await self._each(verb, requests, shipped, None)
        return [await self._alone(verb, requests[0], shipped, losses=1)]

    async def verdict(self, interest: str, image_ids: Sequence[str]) -> Verdict | None:
        shipped = self._ship(image_ids)
        found: tuple[Verdict | None]
        found = await self._again(lambda actor: actor.verdict.remote(interest, image_ids, shipped))
        return found[0]

    async def appearance(self, image_ids: Sequence[str]) -> Mapping[str, Any]:
        def ask(some: Sequence[str]) -> Coroutine[Any, Any, Any]:
            shipped = self._ship(some)
            return self._again(lambda actor: actor.appearance.remote(some, shipped))

        found: dict[str, Any] = {}
        for start in range(0, len(image_ids), step := _APPEARANCES * self.size):
            parts = [
                image_ids[at : at + _APPEARANCES]
                for at in range(start, min(start + step, len(image_ids)), _APPEARANCES)
            ]
            for part in await asyncio.gather(*map(ask, parts)):
                found.update(part)
        return found

    # One request after another

    async def _each(
        self, verb: str, requests: Sequence[Request], shipped: Shipped, error: Exception | None
    ) -> list[Reply | ModelError]:
        """error: what the call ended in, None where it lost its replica. Where every request ends in an error by
        itself, too, that is the model's and not a picture's: it is raised."""
        tried = await asyncio.gather(*(self._alone(verb, request, shipped) for request in requests))
        if error is not None and all(isinstance(reply, _Broke) for reply in tried):
            raise error
        return list(tried)

    async def _alone(self, verb: str, request: Request, shipped: Shipped, losses: int = 0) -> Reply | ModelError:
        while losses < MOST_LOSSES:
            try:
                (reply,) = await self._answer(verb, [request], shipped)
                return reply
            except _Lost:
                losses += 1
            except ManylensError:
                raise
            except Exception as error:
                return _Broke(f"the model broke off at this request ({type(error).__name__}: {error!s:.120})")
        return ModelError(
            f"a request leaves its worker alive, this one ended {losses} of them", "see whether its picture is damaged"
        )

    async def _answer(self, verb: str, requests: Sequence[Request], shipped: Shipped) -> list[Reply | ModelError]:
        found: list[Reply | ModelError] = await self._call(lambda actor: actor.answer.remote(verb, requests, shipped))
        return found

    async def _again(self, ask: Callable[[Any], Any]) -> Any:
        for _ in range(MOST_LOSSES):
            try:
                return await self._call(ask)
            except _Lost:
                continue
        raise ModelUnavailable(
            f"the model says what it understands, {MOST_LOSSES} workers were lost over it", "run the same command again"
        )

    def _ship(self, image_ids: Sequence[str]) -> Shipped:
        if self._images is None or not image_ids:
            return Shipped()
        return Shipped(*self._images.packed(dict.fromkeys(image_ids)))

    # Replicas

    async def _call(self, ask: Callable[[Any], Any]) -> Any:
        """Raises _Lost, or what the replica raised."""
        from ray.exceptions import RayError, RayTaskError

        handle = await self._take()
        try:
            result = await ask(handle.actor)
        except RayTaskError as error:  # it lives, and said no
            self._give_back(handle)
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except RayError as error:
            self._revive(handle)
            raise _Lost from error
        except BaseException:  # cancelled: it is free when it has ended what it does
            self._revive(handle)
            raise
        if result is None:
            self._revive(handle)
            raise _Lost
        self._give_back(handle)
        return result

    async def _take(self) -> _Handle:
        clock = asyncio.get_running_loop().time
        since = clock()
        while True:
            if self._broken is not None:
                raise self._broken
            if self._free:
                return self._free.popleft()
            if self._up:
                since = clock()
            elif clock() - since > LONGEST_S:
                raise ModelUnavailable(
                    f"the cluster has room for a replica of the model, none was up for {LONGEST_S:.0f} s",
                    "see `ray status`, and run the same command again: it goes on from here",
                )
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), LONGEST_S / 10)

    def _give_back(self, handle: _Handle) -> None:
        self._free.append(handle)
        self._news.set()

    def _revive(self, handle: _Handle) -> None:
        """It is free once it answers again."""
        self._up -= handle.is_up
        handle.is_up = False
        task = asyncio.create_task(self._bring_up(handle))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bring_up(self, handle: _Handle) -> None:
        from ray.exceptions import ActorDiedError, RayError, RayTaskError

        while True:
            try:
                face = await handle.actor.face.remote(self._spec)
                break
            except RayTaskError as error:
                face = error.cause if isinstance(error.cause, Exception) else error
                break
            except ActorDiedError as error:
                if error.actor_init_failed:
                    face = error
                    break
                await asyncio.sleep(_AGAIN_S)
                handle.actor = handle.start()
            except RayError:
                await asyncio.sleep(_AGAIN_S)
            except Exception as error:  # the model does not travel, or the connection is gone: no waiting helps
                face = error
                break
        if isinstance(face, ManylensError):
            self._broken = face
        elif not isinstance(face, Face):
            self._broken = ModelUnavailable(
                f"each worker has what the model needs, one could not load it ({_last_line(face)})",
                "install the same packages on every machine, the one that holds a model of your own among them",
            )
        elif self._face is not None and face != self._face:
            self._broken = ModelUnavailable(
                f"all replicas are one model, got {self._face.identity} and {face.identity}, or other number formats",
                "use machines of one kind, with the same files",
            )
        self._face = self._face or (face if isinstance(face, Face) else None)
        handle.is_up = True
        self._up += 1
        self._give_back(handle)


def _last_line(error: Exception) -> str:
    """Ray's messages hold the whole traceback; its last line says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[-1] if lines else type(error).__name__:.200}"


class _Broke(ModelError):
    """The model raised what is no error of a model."""
