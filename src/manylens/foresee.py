"""What a run will ask, before it asks: from the number of images alone, then, once the looks are in, from a rehearsal.

In: a number of images and the settings; then looks, the model that made them, and the few judgements that were made so
far. Out: a likely number of judgements; then a `Model` that costs nothing and answers in kind, for the stages to run
with: as one of those judgements whose candidate had the cluster's description, or as one of those whose candidate had
not. Promise: pure and deterministic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from manylens.errors import ModelError
from manylens.evidence import Looks, normalise_description, seeded_share
from manylens.models.base import (
    ChooseReply,
    ChooseRequest,
    CompleteReply,
    CompleteRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    Model,
    Wrapped,
    put_together,
    request_key,
)
from manylens.records import Settings

FEWEST_JUDGEMENTS = 48
FEWEST_PER_IMAGE = 0.2
FEWEST_OF_ALLOWED = 0.2
"""At the least: the controls of a judge who turns out to tell nothing, and is asked no further."""

EVERY_CANDIDATE = (1.35, 16.0)
"""Judgements per image, likely and at most, where every candidate is asked: 1.01 to 1.52 on photographs of kinds that
many share, 3 where descriptions are uncertain, 6 to 15 where most images are alone of their kind and a judge is asked
about those, as models other than nano are (docs/simulation.md)."""

_COMPANY = 2
"""Where K candidates of a cluster may share a call, 3 K / (K + 2) do on average: rounds are small while a cluster is
young, and controls and merges ask about another cluster each time. Counted with a scripted server: 1.6, 2.2 and 2.3 to
2.8 for K of 2, 4 and 8 (docs/models.md)."""

_FEWEST = 6
_YES, _NO = 0.95, 0.05
"""What is supposed where fewer than six judgements of a kind are known: a judge who agrees with the descriptions."""


def expected_judgements(images: int, settings: Settings) -> tuple[int, int, int]:
    """(at least, likely, at most) for one interest in a collection of so many images, before anything is asked."""
    likely = settings.judgements_likely(images)
    most = settings.judgements_allowed(images)
    if most is None:
        per_image, most_per_image = EVERY_CANDIDATE
        likely = round(per_image * images) if settings.audit_share == 1 else likely
        most = round(most_per_image * images)
    fewest = round(min(FEWEST_PER_IMAGE * images, FEWEST_JUDGEMENTS, FEWEST_OF_ALLOWED * most))
    return min(fewest, most), min(likely, most), most


def judgements_per_call(candidates_per_call: int) -> float:
    """How many judgements share a call, on average, where so many may."""
    return (1 + _COMPANY) * candidates_per_call / (candidates_per_call + _COMPANY)


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
        replies = [JudgeReply(0.0)] * len(requests)
        for together in put_together(requests, self.capabilities.candidates_per_call):
            for number in together:
                replies[number] = JudgeReply(self._probability(requests[number]), calls=1 / len(together))
        return list(replies)

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        raise NotImplementedError("choices are not foreseen")

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
