"""A model whose answers are known beforehand: for tests, simulations, and trying the pipeline without a real model.

In: the true label of every image under every interest, and stated error rates. Out: looks and judgements that are
right except where the rates say otherwise. Promise: every reply depends on the image's content (its label, through its
id) and on the request, derived by hashing; same seed, same replies, in any order of calls.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manylens.errors import ModelError
from manylens.models.base import (
    Capabilities,
    ChooseReply,
    ChooseRequest,
    CompleteReply,
    CompleteRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    Request,
)
from manylens.models.prompts import spread_evenly
from manylens.models.wordings import Lexicon, Wordings
from manylens.writing import GroupName, NameClusters, Names

Labeller = Callable[[str, str], str]
"""(interest, image id) -> the true label, computed from the image's pixels or looked up."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Error rates in [0, 1].

    wrong_description: the look takes the image for another class, description and embedding alike.
    outlying: the embedding lies half-way to another class or anywhere, whatever the description.
    synonym: the description is right but worded differently (`alt `-prefixed).
    stubborn: the share of wrongly described images that the judge takes for the same wrong class, as a model that looks
        twice with the same eyes does.
    false_no, false_yes: of the judge. failed_look, failed_judge: calls that end in a `ModelError`.
    wrong_choice: choices of another option than the right one, or of none, drawn at random.
    spread: noise of an embedding around its class centre; .5 gives cosines near .8 within a class.
    """

    wrong_description: float = 0.0
    outlying: float = 0.0
    synonym: float = 0.0
    stubborn: float = 0.0
    false_no: float = 0.0
    false_yes: float = 0.0
    failed_look: float = 0.0
    failed_judge: float = 0.0
    spread: float = 0.5
    wrong_choice: float = 0.0


DESIGN_NOISE = Noise(wrong_description=0.035, outlying=0.08, false_no=0.03, false_yes=0.01, wrong_choice=0.04)
"""The rates of the simulation in DESIGN."""


class ScriptedModel:
    """labels: {interest: {image id: label}}, or a callback, which needs `classes`: {interest: labels}.

    sees_exemplars: judge and choice go by the exemplars' true labels (majority), else by the cluster's name.
    calls: how many requests of each kind it was asked.
    wordings: it answers in open words, and its writer groups and names them; without, in the classes' names.
    """

    def __init__(
        self,
        labels: Mapping[str, Mapping[str, str]] | Labeller,
        *,
        classes: Mapping[str, Collection[str]] | None = None,
        noise: Noise | None = None,
        seed: int = 0,
        dimensions: int = 64,
        relatedness: float = 0.3,
        sees_exemplars: bool = True,
        writes_text: bool = False,
        latency_s: float = 0.0,
        wordings: Wordings | None = None,
    ) -> None:
        if callable(labels):
            self._label: Labeller = labels
            known = classes or {}
        else:
            table = {interest: dict(of) for interest, of in labels.items()}
            self._label = lambda interest, image_id: table[interest][image_id]
            known = classes or {interest: set(of.values()) for interest, of in table.items()}
        self._classes = {interest: sorted(set(of)) for interest, of in known.items()}
        self._noise = noise or Noise()
        self._seed = seed
        self._dimensions = dimensions
        self._relatedness = relatedness
        self._latency_s = latency_s
        self._wordings = wordings
        self._lexicons: dict[str, Lexicon] = {}
        self._centres: dict[tuple[str, str], NDArray[np.float64]] = {}
        self._capabilities = Capabilities(writes_text=writes_text, sees_exemplars=sees_exemplars)
        self.calls: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return "scripted"

    @property
    def identity(self) -> str:
        words = f" {self._wordings}" if self._wordings else ""
        return f"scripted seed {self._seed} {self._noise} {self._classes}{words}"

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def render(self, request: Request) -> str:
        return json.dumps([type(request).__name__, dataclasses.asdict(request)], ensure_ascii=False)

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        self.calls["look"] += len(requests)
        await asyncio.sleep(self._latency_s)
        return [self._look(request) for request in requests]

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        self.calls["judge"] += len(requests)
        await asyncio.sleep(self._latency_s)
        return [self._judge(request) for request in requests]

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        self.calls["choose"] += len(requests)
        await asyncio.sleep(self._latency_s)
        return [self._choose(request) for request in requests]

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        """`name_clusters`: every cluster gets its most frequent description in capitals; anything else fails, unless
        `wordings` says what words mean."""
        self.calls["complete"] += len(requests)
        await asyncio.sleep(self._latency_s)
        return [self._complete(request) for request in requests]

    def _chance(self, *parts: str) -> float:
        return int.from_bytes(self._digest(*parts)[:8], "big") / 2**64

    def _digest(self, *parts: str) -> bytes:
        text = "\x1f".join((str(self._seed), *parts))
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def _normal(self, *parts: str) -> NDArray[np.float64]:
        generator = np.random.default_rng(int.from_bytes(self._digest(*parts), "big"))
        noise: NDArray[np.float64] = generator.standard_normal(self._dimensions) / np.sqrt(self._dimensions)
        return noise

    def _centre(self, interest: str, label: str) -> NDArray[np.float64]:
        if (interest, label) not in self._centres:
            common, own = self._normal("common", interest), self._normal("centre", interest, label)
            mixed = np.sqrt(self._relatedness) * _unit(common) + np.sqrt(1 - self._relatedness) * _unit(own)
            self._centres[interest, label] = _unit(mixed)
        return self._centres[interest, label]

    def _lexicon(self, interest: str) -> Lexicon | None:
        if self._wordings is not None and interest not in self._lexicons:
            self._lexicons[interest] = Lexicon(
                self._wordings, interest, self._classes[interest], self._digest, self._normal, self._centre
            )
        return self._lexicons.get(interest)

    def _class_named(self, interest: str, name: str) -> str:
        """The class that a cluster's name stands for; the name itself where it stands for none."""
        lexicon = self._lexicon(interest)
        return (lexicon and lexicon.label_of(name)) or name.removeprefix("alt ")

    def _other(self, interest: str, label: str, *parts: str) -> str:
        lexicon = self._lexicon(interest)
        if lexicon and self._wordings and self._wordings.correlated:
            return lexicon.confusable(label)
        others = [other for other in self._classes.get(interest, ()) if other != label]
        return others[int(self._chance("other", interest, *parts) * len(others))] if others else label

    def _look(self, request: LookRequest) -> LookReply | ModelError:
        interest, image_id = request.interest, request.image_id
        if self._chance("failed look", interest, image_id) < self._noise.failed_look:
            return ModelError("the scripted look failed", "this is the stated failure rate")
        label = self._label(interest, image_id)
        luck = self._chance("confidence", interest, image_id)
        seen = self._seen(interest, image_id)
        wrong = seen != label
        # A wrong look tends to be less sure, as a real model's is, but often is not.
        confidence = 0.3 + 0.65 * luck if wrong else 0.75 + 0.25 * luck**0.5
        centre = self._centre(interest, seen)
        words, lexicon = seen, self._lexicon(interest)
        if lexicon is not None:
            words, centre = lexicon.describe(seen, image_id)
        elif self._chance("synonym", interest, image_id) < self._noise.synonym:
            words = f"alt {seen}"
        if self._chance("outlying", interest, image_id) < self._noise.outlying:
            centre = self._outlying(interest, image_id, centre, seen)
        vector = _unit(centre + self._noise.spread * self._normal("noise", interest, image_id))
        return LookReply(words, confidence, vector.astype(np.float16))

    def _seen(self, interest: str, image_id: str) -> str:
        label = self._label(interest, image_id)
        wrong = self._chance("wrong", interest, image_id) < self._noise.wrong_description
        return self._other(interest, label, image_id, "seen") if wrong else label

    def _outlying(self, interest: str, image_id: str, centre: NDArray[np.float64], seen: str) -> NDArray[np.float64]:
        if self._chance("outlying kind", interest, image_id) < 0.5:
            return _unit(self._normal("anywhere", interest, image_id))
        return _unit(centre + self._centre(interest, self._other(interest, seen, image_id, "between")))

    def _judge(self, request: JudgeRequest) -> JudgeReply | ModelError:
        # Without sight of the exemplars the same words give the same answer: exemplars must not vary the hash.
        shown = request.exemplar_ids if self._capabilities.sees_exemplars else ()
        parts = (request.interest, request.cluster_name, *shown, request.candidate_id)
        if self._chance("failed judge", *parts) < self._noise.failed_judge:
            return ModelError("the scripted judgement failed", "this is the stated failure rate")
        taken_for = self._taken_for(request.interest, request.candidate_id)
        belongs = taken_for == self._label_of_cluster(request.interest, request.cluster_name, shown)
        chance = self._chance("judge", *parts)
        wrong = chance < (self._noise.false_no if belongs else self._noise.false_yes)
        sureness = 0.1 * self._chance("sureness", *parts)
        return JudgeReply(0.99 - sureness if belongs != wrong else 0.01 + sureness)

    def _choose(self, request: ChooseRequest) -> ChooseReply:
        sees = self._capabilities.sees_exemplars
        options = [(o.name, o.definition, o.exemplar_ids if sees else ()) for o in request.options]
        parts = (json.dumps([request.interest, request.candidate_id, options]),)
        taken_for = self._taken_for(request.interest, request.candidate_id)
        labels = [self._label_of_cluster(request.interest, name, shown) for name, _, shown in options]
        chosen = labels.index(taken_for) if taken_for in labels else len(labels)
        if self._chance("choose", *parts) < self._noise.wrong_choice:
            others = [k for k in range(len(labels) + 1) if k != chosen]
            chosen = others[int(self._chance("other choice", *parts) * len(others))]
        sure = 0.99 - 0.09 * self._chance("sureness", *parts)
        return ChooseReply(spread_evenly(chosen, sure, len(labels)))

    def _taken_for(self, interest: str, image_id: str) -> str:
        stubborn = self._chance("stubborn", interest, image_id) < self._noise.stubborn
        return (self._seen if stubborn else self._label)(interest, image_id)

    def _label_of_cluster(self, interest: str, name: str, shown: Sequence[str]) -> str:
        named = self._class_named(interest, name)
        votes = Counter(self._label(interest, image_id) for image_id in shown)
        if not votes:
            return named
        most = max(votes.values())
        tied = sorted(label for label, count in votes.items() if count == most)
        return named if named in tied else tied[0]

    def _complete(self, request: CompleteRequest) -> CompleteReply | ModelError:
        lexicon = self._lexicon(request.interest) if self._capabilities.writes_text else None
        if lexicon is not None:
            return CompleteReply(lexicon.write(request.task))
        if not isinstance(request.task, NameClusters) or not self._capabilities.writes_text:
            return ModelError(f"the scripted model cannot do {request.task.name!r}", "use a model that writes text")
        words = {cluster.id: next(iter(dict(cluster.descriptions)), None) for cluster in request.task.clusters}
        names = (
            GroupName(id_, (word or "unnamed").upper(), f"Pictures that show {word or 'something'}.")
            for id_, word in words.items()
        )
        return CompleteReply(Names(tuple(names)))


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vector / np.linalg.norm(vector)
    return unit
