"""Puts the questions of the pure stages to the model: each once, within the budget, all counted.

In: stages of `method/`, which yield rounds of questions. Out: what they return. Promise: a failed call ends in an
answer without content, never in a crash; `ModelUnavailable` ends the run; nothing is sent that the budget does not
admit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from manylens.errors import BudgetSpent, ModelError, ModelUnavailable, public_reason
from manylens.events import Event, Stage, StageAdvanced, StageFinished, StageStarted
from manylens.method.corrections import Said
from manylens.method.observations import Looks
from manylens.method.questions import Answer, Choice, Question, Statement, Steps
from manylens.models.base import (
    ChooseReply,
    ChooseRequest,
    CompleteReply,
    CompleteRequest,
    Model,
    Option,
    Request,
    count_tokens,
    request_key,
)
from manylens.pipeline.budget import Allowance, Budget
from manylens.types import CallCounts

T = TypeVar("T")
_Request = TypeVar("_Request", ChooseRequest, CompleteRequest)
_Reply = TypeVar("_Reply", ChooseReply, CompleteReply)

SPENT = Answer(spent=True)
_TOLERANCE = 1e-3


class JudgeSession:
    """One interest's questions. chosen, written: calls made. failures: reasons of those that failed. spent: whether the
    budget left a question unasked. spared: ids of images that another one's look served. said: what a person said of
    images: questions about those are answered by it, at no cost."""

    def __init__(
        self,
        looks: Looks,
        model: Model,
        emit: Callable[[Event], None],
        budget: Budget,
        allowance: Allowance,
        spared: frozenset[str] = frozenset(),
        said: Said | None = None,
    ) -> None:
        self.looks, self.model, self.emit, self.spared = looks, model, emit, spared
        self.chosen = self.written = 0
        self.failures: list[str] = []
        self.tokens = looks.tokens
        self.spent = False
        self._budget, self._allowance = budget, allowance
        self._answers: dict[str, Answer] = {}
        self._stage: Stage = "check"
        self._said = said

    @property
    def told(self) -> frozenset[int]:
        """Images that a person placed."""
        if self._said is None:
            return frozenset()
        return frozenset(at for at, image_id in enumerate(self.looks.image_ids) if image_id in self._said.placed)

    def start(self, stage: Stage, total: int | None = None) -> None:
        self._stage = stage
        self.emit(StageStarted(stage, self.looks.interest.text, total))

    def finish(self, stage: Stage, detail: str) -> None:
        self.emit(StageFinished(stage, self.looks.interest.text, detail))

    async def drive(self, steps: Steps[T], share: float = 1.0) -> T:
        """Run a stage to its end. share: of this interest's budget that may be spent by then."""
        answers: Sequence[Answer] | None = None
        done = 0
        while True:
            try:
                questions = next(steps) if answers is None else steps.send(answers)
            except StopIteration as end:
                result: T = end.value
                return result
            answers = await self._ask(questions, share)
            done += len(questions)
            self.emit(StageAdvanced(self._stage, self.looks.interest.text, done))

    @property
    def passed_usd(self) -> float:
        """By how much the limit in money was passed all the same."""
        return self._budget.passed_usd

    def counts(self) -> CallCounts:
        """All calls of the interest, its looks included."""
        failed_looks = sum(image_id not in self.spared for image_id, _ in self.looks.failed)
        return CallCounts(
            look=len(self.looks) + len(self.looks.failed) - len(self.spared),
            choose=self.chosen,
            complete=self.written,
            failed=len(self.failures) + failed_looks,
            tokens=self.tokens,
        )

    async def _ask(self, questions: Sequence[Question], share: float) -> list[Answer]:
        """The answers, in order. Equal questions are put once; what the budget does not admit is `SPENT`."""
        known = [self._from_person(question) for question in questions]
        asked = iter(await self._put([q for q, answer in zip(questions, known, strict=True) if answer is None], share))
        return [
            self._without_barred(question, next(asked)) if answer is None else answer
            for question, answer in zip(questions, known, strict=True)
        ]

    def _from_person(self, question: Question) -> Answer | None:
        """What a person said of the image: the option whose exemplars are where the image was put, or none of them."""
        said = self._said
        if said is None or not isinstance(question, Choice):
            return None
        image_id = self.looks.image_ids[question.image]
        if image_id not in said.placed:
            return None
        there = [self._kind(option) == said.placed[image_id] for option in question.options]
        if said.placed[image_id] is None or not any(there):
            return Answer((*(0.0 for _ in there), 1.0), "a person placed it elsewhere")
        return Answer((*(float(one) / sum(there) for one in there), 0.0), "a person placed it here")

    def _without_barred(self, question: Question, answer: Answer) -> Answer:
        """A model's answer without the options of which a person said that the image is not in them."""
        said = self._said
        if said is None or not isinstance(question, Choice) or not answer.probabilities:
            return answer
        barred = said.barred.get(self.looks.image_ids[question.image], frozenset())
        kept = [
            0.0 if at < len(question.options) and self._kind(question.options[at]) in barred else p
            for at, p in enumerate(answer.probabilities)
        ]
        total = math.fsum(kept)
        if not barred or total <= 0:
            return answer if not barred else replace(answer, probabilities=(*(0.0 for _ in kept[1:]), 1.0))
        return replace(answer, probabilities=tuple(p / total for p in kept))

    def _kind(self, option: Statement) -> int | None:
        """Where most of an option's exemplars are, by what is shown; None where that is not known."""
        assert self._said is not None
        at = [self._said.cluster_of.get(self.looks.image_ids[image]) for image in option.exemplars]
        count = Counter(cluster for cluster in at if cluster is not None)
        return min(count, key=lambda cluster: (-count[cluster], cluster)) if count else None

    async def _put(self, questions: Sequence[Question], share: float) -> list[Answer]:
        requests = [self._request(question) for question in questions]
        keys = [request_key(self.model, request) for request in requests]
        fresh = {key: r for key, r in zip(keys, requests, strict=True) if key not in self._answers}
        waiting = list(fresh)
        allowance = self._allowance.until(share)
        while waiting:
            admitted = self._budget.admit([fresh[key] for key in waiting], allowance)
            if not admitted:
                self.spent = True
                break
            batch, waiting = waiting[:admitted], waiting[admitted:]
            for key, answer in zip(batch, await self._send([fresh[key] for key in batch]), strict=True):
                self._answers[key] = answer
        return [self._answers.get(key, SPENT) for key in keys]

    async def _send(self, requests: Sequence[Request]) -> list[Answer]:
        choices = [request for request in requests if isinstance(request, ChooseRequest)]
        texts = [request for request in requests if isinstance(request, CompleteRequest)]
        replies: dict[int, ChooseReply | CompleteReply | ModelError] = {}
        if choices:
            replies.update(zip(map(id, choices), await _all_or_each(self.model.choose, choices), strict=True))
        if texts:
            replies.update(zip(map(id, texts), await _all_or_each(self.model.complete, texts), strict=True))
        answers: list[Answer] = []
        for request in requests:
            reply = replies[id(request)]
            if isinstance(reply, BudgetSpent):  # tries of others have used what was left
                self.spent = True
                answers.append(SPENT)
                continue
            self.chosen += isinstance(request, ChooseRequest)
            self.written += isinstance(request, CompleteRequest)
            self._budget.charge(request, reply)
            self.tokens += count_tokens([reply])
            answers.append(self._answer(request, reply))
        return answers

    def _answer(self, request: Request, reply: ChooseReply | CompleteReply | ModelError) -> Answer:
        if isinstance(reply, CompleteReply):
            return Answer(written=reply.written)
        if isinstance(reply, ChooseReply) and isinstance(request, ChooseRequest):
            p = reply.probabilities
            if len(p) == len(request.options) + 1 and all(math.isfinite(x) and x >= 0 for x in p):
                total = math.fsum(p)
                if abs(total - 1) < _TOLERANCE:
                    return Answer(tuple(x / total for x in p), reply.reason)
            reply = ModelError("a choice has a probability for each option and for none, which sum to one")
        self.failures.append(public_reason(reply) if isinstance(reply, ModelError) else str(reply))
        return Answer()

    def _request(self, question: Question) -> Request:
        interest, ids = self.looks.interest.text, self.looks.image_ids
        if not isinstance(question, Choice):
            return CompleteRequest(interest, question)
        options = (Option(o.name, o.definition, tuple(ids[image] for image in o.exemplars)) for o in question.options)
        return ChooseRequest(interest, tuple(options), ids[question.image])


async def _all_or_each(
    verb: Callable[[Sequence[_Request]], Awaitable[Sequence[_Reply | ModelError]]], requests: Sequence[_Request]
) -> Sequence[_Reply | ModelError]:
    """A model that raises has failed on the whole batch; the protocol puts errors in their place."""
    try:
        return await verb(requests)
    except ModelUnavailable:
        raise
    except ModelError as error:
        return [error] * len(requests)
