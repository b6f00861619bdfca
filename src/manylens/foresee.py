"""A judge who costs nothing, to foresee what a run will ask before it asks.

In: looks, the model that made them, and the few judgements that were made so far. Out: a `Model` that answers in kind:
as one of those judgements whose candidate had the cluster's description, or as one of those whose candidate had not.
Promise: pure and deterministic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from manylens.errors import ModelError
from manylens.evidence import Looks, normalise_description, seeded_share
from manylens.models.base import (
    CompleteReply,
    CompleteRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    Model,
    Wrapped,
    request_key,
)

_FEWEST = 6
_YES, _NO = 0.95, 0.05
"""What is supposed where fewer than six judgements of a kind are known: a judge who agrees with the descriptions."""


class SupposedJudge(Wrapped):
    """heard: what the real judge has answered, as probabilities of yes."""

    def __init__(self, looks: Looks, model: Model, heard: Mapping[JudgeRequest, float]) -> None:
        super().__init__(model)
        self._words = dict(zip(looks.image_ids, looks.words, strict=True))
        self._alike: dict[bool, list[float]] = {True: [], False: []}
        for request, probability in heard.items():
            self._alike[self._is_alike(request)].append(probability)

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        raise NotImplementedError("the looks are at hand")

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        return [JudgeReply(self._probability(request)) for request in requests]

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        raise NotImplementedError("names are not foreseen")

    def _probability(self, request: JudgeRequest) -> float:
        alike = self._is_alike(request)
        known = self._alike[alike]
        if len(known) < _FEWEST:
            return _YES if alike else _NO
        return known[int(seeded_share(0, "supposed", request_key(self, request)) * len(known))]

    def _is_alike(self, request: JudgeRequest) -> bool:
        words = self._words[request.candidate_id]
        return bool(words) and words == normalise_description(request.cluster_name)
