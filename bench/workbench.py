"""One set of images in a run folder, with a model whose every answer is kept and whose costs are counted.

In: a `LabelledSet`, a folder, a model's name. Out: looks, judgements, and `Spent` per method. Promise: an answer is
asked once, whatever method or seed wants it, so a benchmark that was stopped goes on where it was; a method is charged
for every answer that it rests on, at the time that answer took when it was asked, also where another method paid first.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from bench.loaders import LabelledSet
from manylens.collection.find import find_images
from manylens.collection.pictures import StoredImages
from manylens.errors import ModelError
from manylens.events import Event
from manylens.files import DATABASE_NAME
from manylens.method.observations import Looks
from manylens.method.questions import Statement
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
    ModelOptions,
    ModelWrapper,
    Request,
    request_key,
    request_kind,
)
from manylens.models.caching import CachingModel
from manylens.models.registry import load_model
from manylens.pipeline.look import look_at_images
from manylens.store.run_folder import RunFolder
from manylens.types import Interest

_Request = TypeVar("_Request", LookRequest, JudgeRequest, ChooseRequest, CompleteRequest)
_Reply = TypeVar("_Reply", LookReply, JudgeReply, ChooseReply, CompleteReply)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Does the image belong to this cluster? The yes/no question of the baselines."""

    cluster: Statement
    image: int


Judge = Callable[[Sequence[Judgement]], Awaitable[list[float]]]
"""Probabilities of yes, one per question; one half where a call failed."""


@dataclass(slots=True)
class Spent:
    """calls: distinct requests by kind. tokens: in and out, or None where they cannot be counted. seconds: of the model
    for these answers, plus what the method computed beside it."""

    calls: Counter[str] = field(default_factory=Counter)
    tokens: int | None = 0
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        unknown = self.tokens is None or other.tokens is None
        tokens = None if unknown else (self.tokens or 0) + (other.tokens or 0)
        return Spent(self.calls + other.calls, tokens, self.seconds + other.seconds)


class Metered(ModelWrapper):
    """A `Model` around a recorded one that counts what was asked since `begin`, each distinct request once."""

    def __init__(self, model: CachingModel, database: Path) -> None:
        super().__init__(model)
        self._connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, check_same_thread=False)
        self._seconds: dict[str, float] = {}
        self.begin()

    def begin(self) -> None:
        """Forget what was counted; the clock starts."""
        self._seen: set[Request] = set()
        self._spent = Spent(tokens=None)
        self._waited = 0.0
        self._began = time.perf_counter()

    def end(self) -> Spent:
        """What was spent since `begin`."""
        beside = time.perf_counter() - self._began - self._waited
        return Spent(self._spent.calls, self._spent.tokens, self._spent.seconds + beside)

    def close(self) -> None:
        self._connection.close()

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        return await self._counted(requests, self._model.look)

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        return await self._counted(requests, self._model.judge)

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        return await self._counted(requests, self._model.choose)

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        return await self._counted(requests, self._model.complete)

    async def _counted(
        self,
        requests: Sequence[_Request],
        ask: Callable[[Sequence[_Request]], Awaitable[list[_Reply | ModelError]]],
    ) -> list[_Reply | ModelError]:
        began = time.perf_counter()
        replies = await ask(requests)
        fresh = {r: reply for r, reply in zip(requests, replies, strict=True) if r not in self._seen}
        keys = {request: request_key(self._model, request) for request in fresh}
        self._learn_seconds([key for key in keys.values() if key not in self._seconds])
        for request in fresh:
            self._seen.add(request)
            self._spent.calls[request_kind(request)] += 1
            self._spent.seconds += self._seconds.get(keys[request], 0.0)
        self._waited += time.perf_counter() - began
        return replies

    def _learn_seconds(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), 500):
            chunk = keys[start : start + 500]
            marks = ",".join("?" * len(chunk))
            rows = self._connection.execute(f"SELECT key, seconds FROM answers WHERE key IN ({marks})", chunk)
            self._seconds.update(dict(rows.fetchall()))


class Workbench:
    """A set of images at hand; use as a context manager. folder: keeps images and answers between calls."""

    def __init__(
        self, labelled: LabelledSet, folder: Path, model: str = "nano", options: ModelOptions | None = None
    ) -> None:
        self.labelled = labelled
        labelled.write_images(folder / "images")
        self._closing = contextlib.ExitStack()
        self.run = self._closing.enter_context(RunFolder.open(folder / "run"))
        collection = find_images(folder / "images", known=self.run.known_images(), keep=self.run.put_thumbnails)
        self.run.record_collection(collection.images, collection.unreadable)
        self.images = StoredImages(collection.root, collection.images, self.run.thumbnail)
        wanted = set(labelled.pictures)
        self.file_of = {image.id: path for image in collection.images for path in image.paths if path in wanted}
        loaded: Model = load_model(model, self.images, self.run.features, options)
        self.model = Metered(CachingModel(loaded, self.run), folder / "run" / DATABASE_NAME)
        self._closing.callback(self.model.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    async def look(self, interest: str) -> tuple[Looks, Spent]:
        """Every image through one interest, and what that costs."""
        self.model.begin()
        wanted = Interest(interest)
        looks = await look_at_images(list(self.file_of), [wanted], self.model, ignore)
        return looks[wanted], self.model.end()

    def judge(self, looks: Looks) -> Judge:
        """Asks the model whether images belong."""
        return judge_with(self.model, looks)

    @contextlib.contextmanager
    def spending(self) -> Iterator[list[Spent]]:
        """Counts what is spent inside; the list holds it afterwards."""
        spent: list[Spent] = []
        self.model.begin()
        try:
            yield spent
        finally:
            spent.append(self.model.end())


def ignore(event: Event) -> None:
    """Events are for progress bars."""


def judge_with(model: Model, looks: Looks) -> Judge:
    """Asks a model whether images belong."""

    async def ask(questions: Sequence[Judgement]) -> list[float]:
        requests = [
            JudgeRequest(
                interest=looks.interest.text,
                cluster_name=question.cluster.name,
                cluster_definition=question.cluster.definition,
                exemplar_ids=tuple(looks.image_ids[image] for image in question.cluster.exemplars),
                candidate_id=looks.image_ids[question.image],
            )
            for question in questions
        ]
        replies = await model.judge(requests)
        return [0.5 if isinstance(reply, ModelError) else reply.probability for reply in replies]

    return ask
