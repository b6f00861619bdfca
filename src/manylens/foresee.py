"""A judge who answers from the looks alone, to foresee what a run will ask before it asks.

In: looks, the model that made them. Out: a `Model` whose judgements follow descriptions and cost nothing. Promise: pure
and deterministic; what it is asked is what the real judge would be asked if it agreed with the descriptions.
"""

from __future__ import annotations

from collections.abc import Sequence

from manylens.errors import ModelError
from manylens.evidence import Looks, normalise_description
from manylens.models.base import (
    Capabilities,
    CompleteReply,
    CompleteRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    Model,
    Request,
)

_SURE = 0.95


class DescribedJudge:
    """Says yes where a candidate's description is the cluster's name."""

    name = "descriptions"

    def __init__(self, looks: Looks, model: Model) -> None:
        self._words = dict(zip(looks.image_ids, looks.words, strict=True))
        self._model = model

    @property
    def identity(self) -> str:
        return self._model.identity

    @property
    def capabilities(self) -> Capabilities:
        return self._model.capabilities

    def render(self, request: Request) -> str:
        """As the model does: requests that are one to the model count as one."""
        return self._model.render(request)

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        raise NotImplementedError("the looks are at hand")

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        return [JudgeReply(self._probability(request)) for request in requests]

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        raise NotImplementedError("names are not foreseen")

    def _probability(self, request: JudgeRequest) -> float:
        words = self._words[request.candidate_id]
        return _SURE if words and words == normalise_description(request.cluster_name) else 1 - _SURE
