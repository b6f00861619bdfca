"""The method, in order: look, graph, walk, merge, name. The only place that orders stages.

In: image ids, interests, a model. Out: one `Clustering` per interest. Promise: never prints (it emits typed events);
the order of the images does not matter; a failed call is counted and ends in no answer, never in a crash; the budget is
a hard limit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from manylens.calibrate import Calibration, calibrate_edges, calibrate_judge
from manylens.errors import ModelError, ModelUnavailable
from manylens.evidence import Answer, Ask, Draft, EdgeScale, Looks, Question, Steps, is_stranger
from manylens.foresee import SupposedJudge
from manylens.graph import DEFAULT_EDGE_OFFSET, DEFAULT_EDGE_SCALE, RelationalGraph, build_graph
from manylens.look import look_at_images
from manylens.merge import merge_clusters
from manylens.models.base import (
    CompleteReply,
    CompleteRequest,
    JudgeReply,
    JudgeRequest,
    Model,
    count_calls,
    count_tokens,
    request_key,
)
from manylens.models.budget import Allowance, Budget
from manylens.name import CLUSTERS_PER_CALL, assign, name_clusters
from manylens.records import (
    CallCounts,
    Clustering,
    Event,
    Foreseen,
    Interest,
    Settings,
    Stage,
    StageAdvanced,
    StageFinished,
    StageStarted,
)
from manylens.second_look import take_second_looks
from manylens.settle import dissolve_leftovers, join_namesakes, offer_leftovers
from manylens.targets import Refusals
from manylens.walk import Surroundings, Walked, walk_component

T = TypeVar("T")
Emit = Callable[[Event], None]

# What share of a budget may be used up by the end of each step. Merges decide K and cost least, so the walk must not
# starve them; what a step leaves over goes to the next.
_CONTROL_SHARE, _WALK_SHARE, _OFFER_SHARE, _MERGE_SHARE, _SECOND_SHARE = 0.2, 0.5, 0.65, 0.9, 0.95


# Mean confidence of the looks below which the person is warned. nano on held-out images: .90 to .95 for cards and faces
# (right 98 times in 100), .72 for the color of kinds of object it was not taught on (50), .30 for small vehicles (33).
UNSURE_LOOKS = 0.5


async def cluster_images(
    image_ids: Sequence[str],
    interests: Sequence[Interest],
    model: Model,
    settings: Settings,
    emit: Emit,
    stand_ins: Mapping[str, str] | None = None,
) -> dict[Interest, Clustering]:
    """Sort the images by each interest. Looks are shared: each image is read once per interest, image by image, and
    where `stand_ins` (image id -> image id) says so, one look serves several images.

    The budget pays for the looks first; each interest then has an equal part of what is left, and what it leaves over
    goes to the next.
    """
    budget = Budget(model, settings)
    looks = await look_at_images(image_ids, interests, model, emit, budget, stand_ins)
    found: dict[Interest, Clustering] = {}
    for number, (interest, seen) in enumerate(looks.items()):
        looked = [*seen.image_ids, *(image_id for image_id, _ in seen.failed)]
        spared = frozenset(image_id for image_id in looked if (stand_ins or {}).get(image_id, image_id) != image_id)
        allowance = budget.part(1 / (len(looks) - number))
        found[interest] = await cluster_looks(seen, model, settings, emit, budget, allowance, spared)
    return found


async def cluster_looks(
    looks: Looks,
    model: Model,
    settings: Settings,
    emit: Emit,
    budget: Budget | None = None,
    allowance: Allowance | None = None,
    spared: frozenset[str] = frozenset(),
) -> Clustering:
    """Partition the images of one interest, whose looks are at hand. Without an allowance all of the budget is its.

    spared: ids of images that another's look served.
    """
    budget = budget or Budget(model, settings)
    asker = _Asker(looks, model, settings, emit, budget, allowance or budget.part(1.0), spared)
    await calibrate(asker)
    graph, edge = await relate(looks, model, settings, asker)
    foreseen = await foresee(asker, graph, edge)
    emit(Foreseen(looks.interest.text, foreseen))
    drafts, unassigned, walked = await sort(looks, graph, edge, settings, asker)
    clustering = await name(looks, graph, drafts, unassigned, walked, model, settings, asker)
    return replace(clustering, foreseen_calls=foreseen)


async def calibrate(asker: _Asker) -> None:
    """Control questions; a judge whose answers tell nothing is asked no further."""
    asker.calibration = await asker.drive(calibrate_judge(asker.looks, asker.settings), _CONTROL_SHARE)
    asker.silent = not asker.calibration.is_telling


async def sort(
    looks: Looks, graph: RelationalGraph, edge: EdgeScale, settings: Settings, asker: _Asker
) -> tuple[list[Draft], list[int], Walked]:
    """From the graph to the final clusters, the largest first, and the images that are in none."""
    judge = asker.model.capabilities
    # One who writes is taken to know what names mean.
    asker.leaves_strangers = not (judge.sees_exemplars or judge.writes_text)
    walked = await walk(looks, graph, settings, asker)
    refusals = Refusals(walked.refused)
    drafts = await asker.drive(offer_leftovers(looks, walked.drafts, refusals, settings, edge), _OFFER_SHARE)
    drafts = await merge(looks, drafts, refusals, settings, edge, asker)
    walked.add_audits(refusals.trusted, refusals.audits)
    drafts, unassigned = dissolve_leftovers(looks, drafts, settings)
    if not judge.sees_exemplars:
        drafts = join_namesakes(looks, drafts)
    second = take_second_looks(looks, drafts, unassigned, refusals, settings, edge, judge.sees_exemplars)
    drafts, unassigned = await asker.drive(second, _SECOND_SHARE)
    return sorted(drafts, key=lambda draft: (-draft.size, min(draft.members))), unassigned, walked


async def foresee(asked: _Asker, graph: RelationalGraph, edge: EdgeScale) -> int:
    """How many calls are likely beside the looks, once controls and pairs are answered: the stages that follow are run
    with a judge who answers as those were answered, and its questions are counted. Nothing is asked of the model."""
    looks, model = asked.looks, asked.model
    settings = replace(asked.settings, budget_calls=None, budget_usd=None)
    asker = asked.supposing(SupposedJudge(looks, model, asked.heard), settings)
    drafts, _, _ = await sort(looks, graph, edge, settings, asker)
    naming = math.ceil(len(drafts) / CLUSTERS_PER_CALL) if model.capabilities.writes_text else 0
    return int(min(asker.whole_judge_calls() + naming, asked.calls_allowed()))


async def relate(looks: Looks, model: Model, settings: Settings, asker: _Asker) -> tuple[RelationalGraph, EdgeScale]:
    """The relational graph, and its beta and b: the model's own where it learned them, fitted to this interest."""
    known = model.capabilities
    asker.start("graph", None)
    learned = EdgeScale(
        DEFAULT_EDGE_SCALE if known.edge_scale is None else known.edge_scale,
        DEFAULT_EDGE_OFFSET if known.edge_offset is None else known.edge_offset,
    )
    edge = await asker.drive(calibrate_edges(looks, learned, asker.calibration, settings), _CONTROL_SHARE)
    graph = build_graph(looks.embeddings, edge.scale, edge.offset, tau=settings.tau, neighbors=settings.neighbors)
    asker.finish("graph", f"{graph.edges:,} edges, density {graph.density:.4f}")
    return graph, edge


async def walk(looks: Looks, graph: RelationalGraph, settings: Settings, asker: _Asker) -> Walked:
    """One agent per component, all at once: a round of questions holds every agent's."""
    components = graph.components()
    asker.start("walk", len(looks))
    around = Surroundings(looks, graph.indptr, graph.indices, graph.weights, graph.weighted_degrees())
    agents = [walk_component(around, component.tolist(), settings) for component in components]
    total = Walked()
    for found in await asker.drive_all(agents, _WALK_SHARE):
        total.drafts += found.drafts
        total.refused.update(found.refused)
        total.add_audits(found.trusted, found.audits_by_cluster)
    asker.finish("walk", f"{len(total.drafts):,} clusters in {len(components):,} components")
    return total


async def merge(
    looks: Looks,
    drafts: Sequence[Draft],
    refusals: Refusals,
    settings: Settings,
    edge: EdgeScale,
    asker: _Asker,
) -> list[Draft]:
    """The global agent joins redundant clusters; what is still small is offered again, to the joined ones."""
    asker.start("merge", None)
    sees_exemplars = asker.model.capabilities.sees_exemplars
    merged = await asker.drive(merge_clusters(looks, drafts, settings, sees_exemplars), _MERGE_SHARE)
    merged = await asker.drive(offer_leftovers(looks, merged, refusals, settings, edge), _MERGE_SHARE)
    asker.finish("merge", f"{len(drafts):,} clusters joined to {len(merged):,}")
    return merged


async def name(
    looks: Looks,
    graph: RelationalGraph,
    drafts: Sequence[Draft],
    unassigned: Sequence[int],
    walked: Walked,
    model: Model,
    settings: Settings,
    asker: _Asker,
) -> Clustering:
    """Names, definitions, reasons, and the account of what was spent and what is not certain."""
    asker.start("name", None)
    writes = model.capabilities.writes_text
    clusters = await name_clusters(looks, drafts, settings, asker.complete if writes else None)
    right = (walked.audits - walked.audits_failed + 1) / (walked.audits + 2)
    assignments = assign(looks, drafts, unassigned, right, asker.spent)
    loose = f", {_counted(len(unassigned), 'image')} unassigned" if unassigned else ""
    asker.finish("name", f"{_counted(len(clusters), 'cluster')} named{loose}")
    return Clustering(
        interest=looks.interest,
        model=model.name,
        clusters=tuple(clusters),
        assignments=tuple(assignments),
        failed=looks.failed,
        calls=asker.counts(),
        density=graph.density,
        trust_error_bound=bound_trust_error(walked),
        notes=tuple(_notes(looks, unassigned, asker)),
        not_looked=looks.not_looked,
        is_partial=asker.spent or bool(looks.not_looked),
        judgements_allowed=asker.rationed_to,
    )


def bound_trust_error(walked: Walked) -> float | None:
    """Clopper-Pearson upper bound, one-sided, at 95%, on the share of trusted acceptances that asking would refuse.

    It assumes that the audited ones are a random share of the trusted ones, which the seeded hash makes them. Failures
    come in clusters (a wrong seed has all its trusted images refused), so audits count for less: both numbers are
    divided by the design effect, the variance of failures between clusters over that of independent ones. None where
    nothing was trusted; 1 where nothing was audited.
    """
    if walked.trusted == 0:
        return None
    if walked.audits == walked.audits_failed:
        return 1.0
    effect = _design_effect(walked)
    trials = max(1, math.floor(walked.audits / effect))
    failures = min(math.ceil(walked.audits_failed / effect), trials - 1)
    low, high = failures / trials, 1.0
    for _ in range(50):  # halve the interval until it is below what a float can tell
        middle = (low + high) / 2
        if _chance_of_at_most(failures, trials, middle) > 0.05:
            low = middle
        else:
            high = middle
    return round(high, 9)


def _design_effect(walked: Walked) -> float:
    share = walked.audits_failed / walked.audits
    if not 0 < share < 1:
        return 1.0
    between = math.fsum((failed - share * audits) ** 2 for audits, failed in walked.audits_by_cluster)
    return max(1.0, between / (walked.audits * share * (1 - share)))


def _chance_of_at_most(failures: int, trials: int, share: float) -> float:
    """P(X <= failures) of a binomial X, for a share in (0, 1); by logarithms, good to about 1e-10 at 100,000 trials."""
    total = math.lgamma(trials + 1)
    return math.fsum(
        math.exp(
            total
            - math.lgamma(k + 1)
            - math.lgamma(trials - k + 1)
            + k * math.log(share)
            + (trials - k) * math.log1p(-share)
        )
        for k in range(failures + 1)
    )


def _notes(looks: Looks, unassigned: Sequence[int], asker: _Asker) -> list[str]:
    notes = []
    sure = float(np.mean(looks.confidences)) if len(looks) else 1.0
    if sure < UNSURE_LOOKS:
        notes.append(
            f"The model is unsure of what it sees for this interest (mean confidence of its descriptions {sure:.2f}): "
            "it may not know this kind of image or the word. Look at the exemplars, or use a larger model."
        )
    if asker.spent or looks.not_looked:
        notes.append(_budget_note(looks, asker.settings))
    if not asker.calibration.is_telling:
        notes.append(
            "The model's judgement tells little for this interest (control questions disagree with its own "
            "descriptions): the clusters rest on descriptions."
        )
    if asker.failures:
        reason = _most_often(asker.failures)
        notes.append(
            f"{len(asker.failures):,} model calls failed; the images they were about count as not judged. {reason}"
        )
    if looks.failed:
        reason = _most_often(reason for _, reason in looks.failed)
        notes.append(f"{len(looks.failed):,} images could not be described and are in no cluster. {reason}")
    if unassigned:
        why = "the budget was spent before a cluster was found"
        notes.append(
            f"{_counted(len(unassigned), 'image')} unassigned: "
            f"{why if asker.spent else 'no cluster fits well enough, or nothing else is of the same kind'}."
        )
    return notes


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _most_often(reasons: Iterable[str]) -> str:
    """A sentence with the most frequent of some reasons, the first in the alphabet among equals."""
    counted = Counter(reasons)
    return f"Most often: {min(counted, key=lambda reason: (-counted[reason], reason))}"


def _budget_note(looks: Looks, settings: Settings) -> str:
    limits = [] if settings.budget_calls is None else [f"{settings.budget_calls:,} calls"]
    limits += [] if settings.budget_usd is None else [f"${settings.budget_usd:,.2f}"]
    left = f"{len(looks.not_looked):,} images were not looked at, and " if looks.not_looked else ""
    return (
        f"Partial: the budget of {' and '.join(limits)} did not cover every question: {left}what was not judged rests "
        "on descriptions alone. The same command with a larger budget goes on from here and repeats no call."
    )


class _Asker:
    """Puts the stages' questions to the model: in batches, each question once, within the budget, all counted."""

    def __init__(
        self,
        looks: Looks,
        model: Model,
        settings: Settings,
        emit: Emit,
        budget: Budget,
        allowance: Allowance,
        spared: frozenset[str] = frozenset(),
    ) -> None:
        self.looks, self.model, self.settings, self.emit = looks, model, settings, emit
        self.spared = spared
        self.judged = self.completed = 0
        self.failures: list[str] = []
        self.judge_calls = 0.0
        self.tokens = looks.tokens
        self.spent = self.silent = self.leaves_strangers = False
        self.rationed_to = settings.judgements_allowed(len(looks))
        self.calibration = Calibration()
        self._budget, self._allowance = budget, allowance
        self._stage: tuple[Stage, int | None] = ("walk", None)
        self._answers: dict[str, Answer] = {}
        self.heard: dict[JudgeRequest, float] = {}

    def supposing(self, judge: SupposedJudge, settings: Settings) -> _Asker:
        """Another that goes on from here with a judge who costs nothing, and of which nobody hears."""
        other = _Asker(self.looks, judge, settings, lambda event: None, Budget(judge, settings), Allowance())
        other.calibration, other.silent, other.judged = self.calibration, self.silent, self.judged
        other.judge_calls = self.judge_calls
        other._answers = dict(self._answers)
        return other

    def start(self, stage: Stage, total: int | None) -> None:
        self._stage = (stage, total)
        self.emit(StageStarted(stage, self.looks.interest.text, total))

    def finish(self, stage: Stage, detail: str) -> None:
        self.emit(StageFinished(stage, self.looks.interest.text, detail))

    def counts(self) -> CallCounts:
        failed_looks = sum(image_id not in self.spared for image_id, _ in self.looks.failed)
        return CallCounts(
            look=len(self.looks) + len(self.looks.failed) - len(self.spared),
            judge=self.whole_judge_calls(),
            complete=self.completed,
            failed=len(self.failures) + failed_looks,
            tokens=self.tokens,
            judgements=self.judged,
        )

    def whole_judge_calls(self) -> int:
        """Shares of a call that several judgements were asked in, added up."""
        return math.ceil(self.judge_calls - 1e-3)

    def calls_allowed(self) -> float:
        return self._allowance.calls[1] - self._allowance.calls[0]

    async def drive(self, steps: Steps[T], share: float) -> T:
        return (await self.drive_all([steps], share))[0]

    async def drive_all(self, stages: Sequence[Steps[T]], share: float) -> list[T]:
        """Run many pure stages side by side: each round puts the questions of all that still run into one batch."""
        results: dict[int, T] = {}
        waiting: dict[int, Ask] = {}
        done = dict.fromkeys(range(len(stages)), 0)
        for number, steps in enumerate(stages):
            self._advance(number, steps, None, waiting, results)
        while waiting:
            asks = sorted(waiting.items())
            answers = await self._ask([question for _, ask in asks for question in ask.questions], share)
            waiting = {}
            start = 0
            for number, ask in asks:
                part = answers[start : start + len(ask.questions)]
                start += len(ask.questions)
                done[number] = ask.done
                self._advance(number, stages[number], part, waiting, results)
            stage, total = self._stage
            finished = sum(done.values()) if total is not None else self.judged
            self.emit(StageAdvanced(stage, self.looks.interest.text, finished, total))
        return [results[number] for number in range(len(stages))]

    @staticmethod
    def _advance(
        number: int,
        steps: Steps[T],
        answers: Sequence[Answer] | None,
        waiting: dict[int, Ask],
        results: dict[int, T],
    ) -> None:
        try:
            waiting[number] = next(steps) if answers is None else steps.send(answers)
        except StopIteration as end:
            results[number] = end.value

    async def _ask(self, questions: Sequence[Question], share: float) -> list[Answer]:
        """The answers, in order; none to questions about strangers, where those are left alone."""
        strange = [self.leaves_strangers and is_stranger(self.looks, question) for question in questions]
        known = [question for question, is_strange in zip(questions, strange, strict=True) if not is_strange]
        answers = iter(await self._put(known, share))
        return [Answer(None) if is_strange else next(answers) for is_strange in strange]

    async def _put(self, questions: Sequence[Question], share: float) -> list[Answer]:
        put = [self._request(question) for question in questions]
        keys = [request_key(self.model, request) for request in put]
        requests = dict(zip(keys, put, strict=True))
        fresh = [key for key in requests if key not in self._answers]
        allowance = self._allowance.until(share)
        while fresh:
            admitted = self._budget.admit([requests[key] for key in fresh], allowance)
            allowed = fresh[: self._ration(share, admitted)]
            if not allowed:
                break
            fresh = fresh[len(allowed) :]
            self.judged += len(allowed)
            replies = await self._judge([requests[key] for key in allowed])
            self.tokens += count_tokens(replies)
            for key, reply in zip(allowed, replies, strict=True):
                self._budget.charge(requests[key], reply)
                self.judge_calls += count_calls(reply)
                if isinstance(reply, ModelError) or not math.isfinite(reply.probability):
                    unusable = "the probability is not a number"
                    self.failures.append(str(reply) if isinstance(reply, ModelError) else unusable)
                    self._answers[key] = Answer(None)
                else:
                    probability = min(max(float(reply.probability), 0.0), 1.0)
                    self._answers[key] = Answer(probability, reply.reason)
                    self.heard[requests[key]] = probability
        if fresh and self._ration(share, 1) > 0:  # else the allowance has ended it, as it should
            self.spent = True
        return [self._calibrated(self._answers.get(key, Answer(None, spent=True))) for key in keys]

    def _calibrated(self, answer: Answer) -> Answer:
        if answer.probability is None:
            return answer
        return replace(answer, probability=self.calibration.apply(answer.probability))

    async def _judge(self, requests: Sequence[JudgeRequest]) -> Sequence[JudgeReply | ModelError]:
        try:
            return await self.model.judge(requests)
        except ModelUnavailable:
            raise
        except ModelError as error:
            return [error] * len(requests)

    def _request(self, question: Question) -> JudgeRequest:
        ids = self.looks.image_ids
        return JudgeRequest(
            interest=self.looks.interest.text,
            cluster_name=question.profile.name,
            cluster_definition=question.profile.definition,
            exemplar_ids=tuple(ids[image] for image in question.profile.exemplars),
            candidate_id=ids[question.candidate],
        )

    def _ration(self, share: float, wanted: int) -> int:
        """Of so many judgements, how many the allowance leaves by the end of a step that may use this share of it."""
        if self.silent:
            return 0
        if self.rationed_to is None:
            return wanted
        left = math.floor(self.rationed_to * min(share / _SECOND_SHARE, 1.0)) - self.judged
        return max(0, min(wanted, left))

    async def complete(self, request: CompleteRequest) -> str | None:
        if not self._budget.admit([request], self._allowance):
            self.spent = True
            return None
        self.completed += 1
        reply: CompleteReply | ModelError
        try:
            (reply,) = await self.model.complete([request])
        except ModelUnavailable:
            raise
        except ModelError as error:
            reply = error
        self._budget.charge(request, reply)
        self.tokens += count_tokens([reply])
        if isinstance(reply, ModelError):
            self.failures.append(str(reply))
            return None
        return reply.text
