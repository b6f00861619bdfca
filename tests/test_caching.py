"""recorded: no request is sent twice, every answer is stored before it is used, fresh and resumed runs are equal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replies import embedding_of

from manylens.errors import ModelBusy, ModelError, ModelReplyInvalid, ModelUnavailable
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
    Model,
    Option,
    Request,
    Usage,
    request_key,
)
from manylens.models.caching import CachingModel, from_stored, to_stored
from manylens.models.metering import Account
from manylens.models.retrying import RetryingModel
from manylens.store.answers import StoredAnswer, StoredReply
from manylens.store.run_folder import RunFolder
from manylens.types import answer_key
from manylens.writing import DescribedGroup, GroupName, NameClusters, Names


class Broken(Exception):
    """Whatever ends a batch halfway: a kill, a bug, a lost machine."""


class Fake:
    """Counts what it is asked; `bad` images fail; answers have more digits than the store keeps."""

    name = "fake"
    capabilities = Capabilities(writes_text=True, sees_exemplars=False, edge_scale=2.0)

    def __init__(self, identity: str = "weights 1") -> None:
        self.identity = identity
        self.batches: list[list[Request]] = []
        self.bad: dict[str, ModelError] = {}
        self.stop_after: int | None = None
        self.gate: asyncio.Event | None = None

    @property
    def seen(self) -> list[Request]:
        return [request for batch in self.batches for request in batch]

    def render(self, request: Request) -> str:
        return json.dumps([type(request).__name__, str(request)])

    async def _begin(self, requests: Sequence[Request]) -> None:
        if self.stop_after is not None and len(self.batches) >= self.stop_after:
            raise Broken
        self.batches.append(list(requests))
        if self.gate is not None:
            await self.gate.wait()

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        await self._begin(requests)
        return [self.bad.get(r.image_id) or self.one_look(r) for r in requests]

    def one_look(self, request: LookRequest) -> LookReply:
        rng = np.random.default_rng(list(request.image_id.encode()))
        vector: Any = rng.normal(size=8).astype(np.float32)
        return LookReply(f"an {request.image_id} \udcff", rng.random(), vector / np.linalg.norm(vector))

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        await self._begin(requests)
        return [self.bad.get(r.candidate_id) or JudgeReply(1 / 3, "looks so") for r in requests]

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        await self._begin(requests)
        return [self.bad.get(r.candidate_id) or ChooseReply((1 / 3, 2 / 3, 0.0), "looks so") for r in requests]

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        await self._begin(requests)
        return [CompleteReply(Names((GroupName(1, r.interest.upper(), "what is \u00e9"),))) for r in requests]


def looks(*ids: str, interest: str = "suit") -> list[LookRequest]:
    return [LookRequest(interest, image_id) for image_id in ids]


def same(a: object, b: object) -> bool:
    if isinstance(a, LookReply) and isinstance(b, LookReply):
        one, other = embedding_of(a), embedding_of(b)
        return a == b and one.dtype == other.dtype and np.array_equal(one, other)
    return a == b


def test_a_model_passes_for_itself() -> None:
    model: Model = CachingModel(Fake(), run=None, account=Account())  # type: ignore[arg-type]  # not used here
    assert (model.name, model.identity, model.capabilities) == ("fake", "weights 1", Fake.capabilities)
    assert model.render(looks("a")[0]) == Fake().render(looks("a")[0])


def test_a_resumed_run_asks_nothing_and_sees_the_same_numbers(tmp_path: Path) -> None:
    judgement = JudgeRequest("suit", "hearts", "red hearts", ("a",), "b")
    choice = ChooseRequest("suit", (Option("hearts"), Option("spades")), "b")
    text = CompleteRequest("suit", NameClusters("suit", (DescribedGroup(1, 3, (("red", 3),)),)))

    async def everything(model: CachingModel) -> list[object]:
        answers = [*await model.look(looks("a", "b")), *await model.judge([judgement])]
        return [*answers, *await model.choose([choice]), *await model.complete([text])]

    first = Fake()
    with RunFolder.open(tmp_path) as run:
        fresh = asyncio.run(everything(CachingModel(first, run)))
    second = Fake()
    with RunFolder.open(tmp_path) as run:
        recorded = CachingModel(second, run)
        resumed = asyncio.run(everything(recorded))
        assert run.verify() == []
    assert (len(first.seen), second.seen) == (5, [])
    assert all(same(a, b) for a, b in zip(fresh, resumed, strict=True))
    assert isinstance(fresh[2], JudgeReply)
    assert fresh[2].probability == 0.333333
    assert fresh[3] == ChooseReply((0.333333, 0.666667, 0.0), "looks so")
    assert (recorded.asked.total(), recorded.reused) == (0, {"look": 2, "judge": 1, "choose": 1, "complete": 1})


def test_other_weights_are_asked_again(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        asyncio.run(CachingModel(Fake("weights 1"), run).look(looks("a")))
        other = Fake("weights 2")
        asyncio.run(CachingModel(other, run).look(looks("a")))
    assert other.seen == looks("a")


def test_replies_come_in_the_order_of_requests_and_equal_ones_are_sent_once(tmp_path: Path) -> None:
    fake = Fake()
    with RunFolder.open(tmp_path) as run:
        model = CachingModel(fake, run)
        asyncio.run(model.look(looks("b")))
        replies = asyncio.run(model.look(looks("c", "b", "a", "c")))
    assert [getattr(reply, "description", None) for reply in replies] == [f"an {i} \udcff" for i in "cbac"]
    assert fake.seen == looks("b", "c", "a")
    assert (model.asked, model.reused) == ({"look": 3}, {"look": 2})


def test_two_tasks_that_want_the_same_answer_send_one_request(tmp_path: Path) -> None:
    fake = Fake()

    async def both(model: CachingModel) -> list[list[LookReply | ModelError]]:
        fake.gate = asyncio.Event()
        tasks = [asyncio.create_task(model.look(looks("a", "b"))), asyncio.create_task(model.look(looks("b", "c")))]
        await asyncio.sleep(0.01)
        fake.gate.set()
        return await asyncio.gather(*tasks)

    with RunFolder.open(tmp_path) as run:
        first, second = asyncio.run(both(CachingModel(fake, run)))
    assert sorted(request.image_id for request in fake.seen if isinstance(request, LookRequest)) == ["a", "b", "c"]
    assert same(first[1], second[0])


def test_a_task_whose_partner_is_cancelled_asks_itself(tmp_path: Path) -> None:
    fake = Fake()

    async def both(model: CachingModel) -> list[LookReply | ModelError]:
        fake.gate = asyncio.Event()
        first = asyncio.create_task(model.look(looks("a")))
        await asyncio.sleep(0)
        second = asyncio.create_task(model.look(looks("a")))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        fake.gate.set()
        return await asyncio.wait_for(second, 5)

    with RunFolder.open(tmp_path) as run:
        assert isinstance(asyncio.run(both(CachingModel(fake, run)))[0], LookReply)


def test_big_batches_go_in_chunks_and_what_came_before_a_break_is_kept(tmp_path: Path) -> None:
    ids = [f"image{i:03d}" for i in range(150)]
    fake = Fake()
    fake.stop_after = 2
    with RunFolder.open(tmp_path) as run, pytest.raises(Broken):
        asyncio.run(CachingModel(fake, run).look(looks(*ids)))
    assert [len(batch) for batch in fake.batches] == [64, 64]
    again = Fake()
    with RunFolder.open(tmp_path) as run:
        asyncio.run(CachingModel(again, run).look(looks(*ids)))
    assert again.seen == looks(*ids[128:])


class Far(Fake):
    """A server: one request a call, each held until the test lets it go; counts what is under way."""

    def __init__(self, concurrency: int = 4, *, hold: bool = True) -> None:
        super().__init__()
        self.capabilities = Capabilities(True, True, batch_size=1, concurrency=concurrency)
        self.hold = hold
        self.held: dict[str, asyncio.Event] = {}
        self.inside = self.most_inside = 0
        self.gone: set[str] = set()

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        (request,) = requests
        self.batches.append([request])
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            if self.hold:
                await self.held.setdefault(request.image_id, asyncio.Event()).wait()
            else:
                await asyncio.sleep(0)
            if request.image_id in self.gone:
                raise ModelUnavailable("no server answers", "start it")
            return [self.bad.get(request.image_id) or self.one_look(request)]
        finally:
            self.inside -= 1

    async def release(self, *ids: str) -> None:
        for image_id in ids:
            self.held.setdefault(image_id, asyncio.Event()).set()
        for _ in range(10):
            await asyncio.sleep(0)


def stored(run: RunFolder, *ids: str) -> set[str]:
    keys = {request_key(Fake(), request): request.image_id for request in looks(*ids)}
    return {keys[key] for key in run.get_answers(keys)}


def test_a_server_is_asked_side_by_side_and_each_answer_is_stored_as_it_comes(tmp_path: Path) -> None:
    far = Far()

    async def work(run: RunFolder) -> list[LookReply | ModelError]:
        task = asyncio.create_task(CachingModel(far, run).look(looks(*"abcdef")))
        await far.release()
        assert [request.image_id for request in far.seen if isinstance(request, LookRequest)] == list("abcd")
        await far.release("c")
        assert stored(run, *"abcdef") == {"c"}, "stored although its neighbours are still under way"
        assert len(far.seen) == 5, "and its place is taken by the next"
        await far.release(*"abdef")
        return await task

    with RunFolder.open(tmp_path) as run:
        replies = asyncio.run(work(run))
    assert [getattr(reply, "description", None) for reply in replies] == [f"an {i} \udcff" for i in "abcdef"]
    assert far.most_inside == 4


def test_a_cancelled_run_waits_for_the_calls_under_way_and_begins_none(tmp_path: Path) -> None:
    far = Far()
    told: list[int] = []

    async def work(run: RunFolder) -> None:
        task = asyncio.create_task(CachingModel(far, run, told.append).look(looks(*"abcdefgh")))
        await far.release("b")
        task.cancel()
        await far.release("e", "a")
        assert not task.done()
        await far.release("c", "d")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    with RunFolder.open(tmp_path) as run:
        asyncio.run(work(run))
        assert told == [4]
        assert stored(run, *"abcdefgh") == set("abcde")
    assert len(far.seen) == 5


def test_a_run_cancelled_twice_keeps_what_has_arrived_and_leaves_no_task(tmp_path: Path) -> None:
    far = Far()

    async def work(run: RunFolder) -> None:
        task = asyncio.create_task(CachingModel(far, run).look(looks(*"abcdef")))
        await far.release("b")
        far.held["d"].set()  # arrives in the very turn of the loop in which the run is cancelled
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert far.inside == 0
        assert len(asyncio.all_tasks()) == 1

    with RunFolder.open(tmp_path) as run:
        asyncio.run(work(run))
        assert stored(run, *"abcdef") >= {"b"}
        again = Far(hold=False)
        asyncio.run(CachingModel(again, run).look(looks(*"abcdef")))
        assert "b" not in {request.image_id for request in again.seen if isinstance(request, LookRequest)}


def test_a_model_that_is_gone_ends_the_run_and_no_image_pays_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manylens.models.caching.LAST_ANSWERS_S", 0.2)  # the calls under way never end here
    far = Far()
    far.gone = {"c"}

    async def work(run: RunFolder) -> None:
        task = asyncio.create_task(CachingModel(far, run).look(looks(*"abcdefgh")))
        await far.release("a")
        await far.release("c")
        with pytest.raises(ModelUnavailable, match="no server answers"):
            await task

    with RunFolder.open(tmp_path) as run:
        asyncio.run(work(run))
        assert stored(run, *"abcdefgh") == {"a"}
        assert run.failures() == ()
    assert len(far.seen) <= 6


@pytest.mark.parametrize("how", ["in its place", "raised"])
def test_a_batch_that_finds_the_model_gone_stores_what_it_has(tmp_path: Path, how: str) -> None:
    gone = ModelUnavailable("the key has expired", "put a valid one")

    class Expiring(Fake):
        async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
            if how == "raised" and self.batches:
                raise gone
            return await super().look(requests)

    fake = Expiring()
    ids = [f"{number:03d}" for number in range(100)]
    if how == "in its place":
        fake.bad["070"] = gone
    with RunFolder.open(tmp_path) as run:
        with pytest.raises(ModelUnavailable):
            asyncio.run(CachingModel(fake, run).look(looks(*ids)))
        assert len(stored(run, *ids)) == (99 if how == "in its place" else 64)
        assert run.failures() == ()


def test_a_batch_that_fails_as_a_whole_is_recorded_on_each_of_its_images(tmp_path: Path) -> None:
    class Raising(Fake):
        async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
            raise ModelBusy("out of memory")

    with RunFolder.open(tmp_path) as run:
        replies = asyncio.run(CachingModel(Raising(), run).look(looks("a", "b")))
        assert [type(reply) for reply in replies] == [ModelBusy, ModelBusy]
        assert [failure.image_id for failure in sorted(run.failures(), key=lambda f: f.image_id)] == ["a", "b"]


def test_a_bug_in_a_model_is_not_hidden(tmp_path: Path) -> None:
    class Buggy(Far):
        def one_look(self, request: LookRequest) -> LookReply:
            raise ZeroDivisionError

    with RunFolder.open(tmp_path) as run, pytest.raises(ZeroDivisionError):
        asyncio.run(CachingModel(Buggy(hold=False), run).look(looks(*"abc")))


def test_four_thousand_calls_hold_at_most_the_stated_concurrency_and_steady_memory(tmp_path: Path) -> None:
    """What is alive at any time depends on the calls under way, not on those asked for."""
    far = Far(1000, hold=False)
    most_tasks = 0
    one_look = far.one_look

    def watching(request: LookRequest) -> LookReply:
        nonlocal most_tasks
        if int(request.image_id) % 50 == 0:
            most_tasks = max(most_tasks, len(asyncio.all_tasks()))
        return one_look(request)

    far.one_look = watching  # type: ignore[method-assign]
    with RunFolder.open(tmp_path) as run:
        replies = asyncio.run(CachingModel(RetryingModel(far, timeout_s=60), run).look(looks(*map(str, range(4000)))))
    assert len(replies) == 4000
    assert far.most_inside == 1000
    assert 1000 <= most_tasks <= 1001


def test_tokens_are_stored_with_their_answer(tmp_path: Path) -> None:
    class Metered(Fake):
        def one_look(self, request: LookRequest) -> LookReply:
            usage = Usage(700, 9) if request.image_id == "a" else None
            return replace(super().one_look(request), usage=usage)

    with RunFolder.open(tmp_path) as run:
        fresh = asyncio.run(CachingModel(Metered(), run).look(looks("a", "b")))
        kept = asyncio.run(CachingModel(Fake(), run).look(looks("a", "b")))
    for replies in (fresh, kept):
        assert [reply.usage for reply in replies if isinstance(reply, LookReply)] == [Usage(700, 9), None]


def test_every_answer_is_on_the_disk_before_it_is_returned(tmp_path: Path) -> None:
    fake = Fake()
    with RunFolder.open(tmp_path) as run:
        order: list[str] = []
        put = run.put_answers

        def spy(*stored: Any) -> None:
            put(*stored)
            order.append("stored")

        run.put_answers = spy  # type: ignore[assignment, method-assign]
        asyncio.run(CachingModel(fake, run).look(looks("a")))
        order.append("returned")
    assert order == ["stored", "returned"]


def test_a_failed_call_is_recorded_on_its_image_and_asked_again_by_the_next_run(tmp_path: Path) -> None:
    fake = Fake()
    fake.bad["b"] = ModelBusy("the server did not answer within 60 s", "try later", retry_after_s=3)
    with RunFolder.open(tmp_path) as run:
        model = CachingModel(fake, run)
        replies = asyncio.run(model.look(looks("a", "b", "c", "b")))
        assert [isinstance(reply, ModelBusy) for reply in replies] == [False, True, False, True]
        assert [(f.image_id, f.reason) for f in run.failures()] == [
            ("b", "the server did not answer within 60 s: try later")
        ]
        assert model.failed == {"look": 1}
    with RunFolder.open(tmp_path) as run:
        again = Fake()
        replies = asyncio.run(CachingModel(again, run).look(looks("a", "b", "c")))
        assert again.seen == looks("b")
        assert run.failures() == ()


@pytest.mark.parametrize(
    "reply",
    [
        LookReply("x", 0.5, np.zeros(4, np.float16)),
        LookReply("x", 0.5, np.full(4, np.nan, np.float16)),
        LookReply("x", 0.5, np.ones((1, 1), np.float16)),
        LookReply("x", float("nan"), np.ones(1, np.float16)),
        JudgeReply(1.2),
        JudgeReply(float("inf")),
    ],
)
def test_a_reply_that_breaks_the_protocol_is_a_model_error(reply: LookReply | JudgeReply) -> None:
    with pytest.raises(ModelReplyInvalid):
        to_stored(reply)


def test_an_invalid_reply_costs_its_own_image_only(tmp_path: Path) -> None:
    class Sloppy(Fake):
        def one_look(self, request: LookRequest) -> LookReply:
            good = super().one_look(request)
            return good if request.image_id != "b" else LookReply("b", 7.0, good.embedding)

    with RunFolder.open(tmp_path) as run:
        replies = asyncio.run(CachingModel(Sloppy(), run).look(looks("a", "b")))
        assert [type(reply) for reply in replies] == [LookReply, ModelReplyInvalid]
        assert len(run.failures()) == 1


def test_the_stored_form_is_reached_in_one_step() -> None:
    """What is stored once is stored the same again, so reruns cannot drift."""
    reply = Fake().one_look(looks("a")[0])
    once = from_stored(to_stored(reply))
    assert same(from_stored(to_stored(once)), once)


def test_too_few_replies_are_a_programmers_error(tmp_path: Path) -> None:
    class Short(Fake):
        async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
            return (await super().look(requests))[1:]

    with RunFolder.open(tmp_path) as run, pytest.raises(TypeError, match="1 replies to 2 requests"):
        asyncio.run(CachingModel(Short(), run).look(looks("a", "b")))


def test_the_key_is_what_the_model_renders(tmp_path: Path) -> None:
    fake = Fake()
    with RunFolder.open(tmp_path) as run:
        asyncio.run(CachingModel(fake, run).look(looks("a")))
        assert len(run.get_answers([request_key(fake, looks("a")[0])])) == 1


def test_an_empty_batch_asks_nothing(tmp_path: Path) -> None:
    fake = Fake()
    with RunFolder.open(tmp_path) as run:
        assert asyncio.run(CachingModel(fake, run).look([])) == []
    assert fake.batches == []


def test_a_judgement_of_before_with_its_share_of_a_call_is_whole_and_used(tmp_path: Path) -> None:
    """Earlier versions could ask about several pictures in one request, and stored what of it each answer took."""
    key = answer_key("model", "judge")
    old = StoredReply("judge", {"probability": 0.25, "reason": "it is so", "calls": 0.25})
    with RunFolder.open(tmp_path / "run") as run:
        run.put_answers([StoredAnswer(key, "suit", "image", "model", "judge", old)])
    with RunFolder.open(tmp_path / "run") as run:
        assert run.verify() == []
        assert from_stored(run.get_answers([key])[key]) == JudgeReply(0.25, "it is so")
