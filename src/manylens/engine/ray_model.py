"""Replicas of a model, as one `Model`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from manylens.engine.pool import Pool
from manylens.engine.replica import Face
from manylens.errors import ModelError
from manylens.models.base import (
    Capabilities,
    ChooseReply,
    ChooseRequest,
    CompleteReply,
    CompleteRequest,
    EmbedReply,
    EmbedRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    Model,
    Request,
)
from manylens.types import Verdict

MOST_AT_ONCE = 32
"""Requests of one call to a replica. nano reads 32 pictures at once; what is lost with a worker is one call."""


class RayModel:
    """speaks: the same model here, for its words and keys; it is asked nothing. Use from one event loop at a time."""

    def __init__(self, speaks: Model, face: Face, pool: Pool) -> None:
        self._speaks, self._pool = speaks, pool
        self._loop = asyncio.get_running_loop()
        self.name, self.identity = face.name, face.identity
        self._capabilities = replace(
            face.capabilities,
            batch_size=min(face.capabilities.batch_size, MOST_AT_ONCE),
            concurrency=pool.size * face.capabilities.concurrency,
        )
        if face.has_embed:  # whoever asks for it takes its absence for the model's
            self.embed = self._embed

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def render(self, request: Request) -> str:
        return self._speaks.render(request)

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        shown = [request.image_id for request in requests]
        return cast("list[LookReply | ModelError]", await self._pool.answer("look", requests, shown))

    async def _embed(self, requests: Sequence[EmbedRequest]) -> list[EmbedReply | ModelError]:
        return cast("list[EmbedReply | ModelError]", await self._pool.answer("embed", requests, ()))

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        shown = [i for r in requests for i in (r.candidate_id, *self._seen(r.exemplar_ids))]
        return cast("list[JudgeReply | ModelError]", await self._pool.answer("judge", requests, shown))

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        shown = [
            i for r in requests for i in (r.candidate_id, *(e for o in r.options for e in self._seen(o.exemplar_ids)))
        ]
        return cast("list[ChooseReply | ModelError]", await self._pool.answer("choose", requests, shown))

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        return cast("list[CompleteReply | ModelError]", await self._pool.answer("complete", requests, ()))

    def _seen(self, exemplars: Sequence[str]) -> Sequence[str]:
        return exemplars if self._capabilities.sees_exemplars else ()


class RayModelWithVerdict(RayModel):
    """Of a model that says how well it understands an interest. Called from a thread that is not the loop's."""

    def verdict(self, interest: str, image_ids: Sequence[str]) -> Verdict | None:
        asked = self._pool.verdict(interest, image_ids)
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result()

    def appearance(self, image_ids: Sequence[str]) -> Mapping[str, Any]:
        asked = self._pool.appearance(image_ids)
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result()
