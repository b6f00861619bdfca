"""paced: patience in virtual time, so that no test waits: retries, waits the server asks for, limits, a dead server."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest

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
)
from manylens.models.retrying import ATTEMPTS, LONGEST_RETRY_AFTER_S, Gate, RetryingModel

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer in place of waiting for it."""

    def __init__(self) -> None:
        self.now = 0.0
        loop = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> Any:
                if timeout is None:
                    raise AssertionError("the test waits for nothing that will happen")
                loop.now += timeout
                return super().select(0)

        super().__init__(Selector())

    def time(self) -> float:
        return self.now


def run(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """The result, and how many virtual seconds it took."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(work)
        return result, runner.get_loop().time()


Behaviour = Callable[[str, int, float], float | ModelError]
"""(image id, attempt from 1, now) -> seconds until a good answer, or what goes wrong at once."""


class Server:
    """A model behind a server that behaves as told."""

    name = "far"
    identity = "far away"

    def __init__(self, behaviour: Behaviour, concurrency: int = 8) -> None:
        self.behaviour = behaviour
        self.capabilities = Capabilities(True, True, batch_size=1, concurrency=concurrency, requests_per_call=3)
        self.attempts: Counter[str] = Counter()
        self.sent_at: list[float] = []
        self.inside = self.most_inside = 0

    def render(self, request: Request) -> str:
        return json.dumps(str(request))

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        (request,) = requests
        image = request.candidate_id
        now = asyncio.get_running_loop().time()
        self.sent_at.append(now)
        self.attempts[image] += 1
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            outcome = self.behaviour(image, self.attempts[image], now)
            if isinstance(outcome, ModelError):
                raise outcome
            await asyncio.sleep(outcome)
            return [JudgeReply(1.0, image)]
        finally:
            self.inside -= 1

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        raise NotImplementedError

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        (request,) = requests
        await self.judge([JudgeRequest(request.interest, "", "", (), request.candidate_id)])
        return [ChooseReply((1.0, 0.0))]

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        raise NotImplementedError


def questions(count: int) -> list[JudgeRequest]:
    return [JudgeRequest("suit", "hearts", "", (), f"image{number}") for number in range(count)]


def judge(
    server: Server, count: int, timeout_s: float = 60.0, notify: Callable[[str], None] | None = None
) -> tuple[list[JudgeReply | ModelError], float]:
    model: Model = RetryingModel(server, timeout_s=timeout_s, notify=notify)
    return run(model.judge(questions(count)))


BUSY = ModelBusy("the server answered 503")


def test_what_is_turned_away_is_asked_again_until_it_is_answered() -> None:
    server = Server(lambda image, attempt, now: BUSY if attempt < 4 else 0.0)
    replies, seconds = judge(server, 1)
    assert replies == [JudgeReply(1.0, "image0")]
    assert server.attempts["image0"] == 4
    assert 0.75 * 3.5 <= seconds <= 3.5, "0.5 + 1 + 2 s, each up to a quarter shorter"


def test_a_call_that_finally_fails_says_how_often_it_was_tried_and_sinks_no_other() -> None:
    server = Server(lambda image, attempt, now: BUSY if image == "image1" else 1.0)
    replies, _ = judge(server, 3)
    assert [type(reply) for reply in replies] == [JudgeReply, ModelBusy, JudgeReply]
    assert f"503 (tried {ATTEMPTS} times)" in str(replies[1])
    assert server.attempts == {"image0": 1, "image1": ATTEMPTS, "image2": 1}


@pytest.mark.parametrize("error", [ModelReplyInvalid("prose"), ModelError("refused"), ModelUnavailable("no key")])
def test_what_waiting_cannot_cure_is_not_asked_again(error: ModelError) -> None:
    server = Server(lambda image, attempt, now: error)
    replies, seconds = judge(server, 1)
    assert replies == [error]
    assert (server.attempts.total(), seconds) == (1, 0.0)


@pytest.mark.parametrize(("asked_s", "kept_s"), [(7.0, 7.0), (86_400.0, LONGEST_RETRY_AFTER_S)])
def test_a_wait_that_the_server_asks_for_is_kept_by_all_calls_up_to_a_limit(asked_s: float, kept_s: float) -> None:
    wait = ModelBusy("429", retry_after_s=asked_s)
    server = Server(lambda image, attempt, now: wait if now == 0.0 else 0.0, concurrency=4)
    replies, _ = judge(server, 12)
    assert all(isinstance(reply, JudgeReply) for reply in replies)
    assert 1 <= server.sent_at.count(0.0) <= 4
    assert min(moment for moment in server.sent_at if moment) == pytest.approx(kept_s)


def test_a_hanging_call_is_ended_and_asked_again() -> None:
    server = Server(lambda image, attempt, now: 1e6 if attempt == 1 else 0.0)
    replies, seconds = judge(server, 1, timeout_s=10.0)
    assert isinstance(replies[0], JudgeReply)
    assert 30.0 <= seconds <= 31.0, "three requests of 10 s"


def test_a_hanging_server_is_named_with_the_cure() -> None:
    server = Server(lambda image, attempt, now: 1e6 if image == "image0" else 0.0)
    replies, _ = judge(server, 2, timeout_s=10.0)
    assert isinstance(replies[0], ModelBusy)
    assert "took longer" in str(replies[0])
    assert "--timeout" in replies[0].hint


@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_at_most_the_stated_calls_are_under_way(concurrency: int) -> None:
    server = Server(lambda image, attempt, now: 1.0, concurrency)
    _, seconds = judge(server, 48)
    assert server.most_inside == concurrency
    assert seconds == pytest.approx(48 / concurrency)


def test_fewer_calls_are_under_way_while_the_server_says_no_and_more_again_after() -> None:
    """A server that takes four at once and turns the rest away ends up with about four."""

    def behaviour(image: str, attempt: int, now: float) -> float | ModelError:
        return ModelBusy("429") if server.inside > 4 else 1.0

    server = Server(behaviour, concurrency=64)
    replies, seconds = judge(server, 400)
    assert all(isinstance(reply, JudgeReply) for reply in replies)
    assert server.attempts.total() < 1.35 * 400, "most attempts are answered"
    assert seconds < 2 * 400 / 4, "and most of what the server can do is used"


def test_a_dead_server_stops_the_run_and_names_the_cure() -> None:
    server = Server(lambda image, attempt, now: ModelBusy("the connection to far:80 broke"))
    replies, seconds = judge(server, 200)
    gone = [reply for reply in replies if isinstance(reply, ModelUnavailable)]
    assert gone
    assert "answered no call for" in str(gone[0])
    assert "the connection to far:80 broke" in str(gone[0])
    assert "run the same command again" in gone[0].hint
    assert sum(isinstance(reply, ModelBusy) for reply in replies) <= 9, "no image pays for it, but those that found out"
    assert 60 <= seconds < 200


def test_a_silent_server_is_spoken_of_while_it_is_waited_for() -> None:
    told: list[str] = []
    server = Server(lambda image, attempt, now: ModelBusy("the connection broke") if now < 45 else 1.0)
    replies, _ = judge(server, 4, notify=told.append)
    assert all(isinstance(reply, JudgeReply) for reply in replies)
    assert 1 <= len(told) <= 2, "not before ten seconds, and then every half minute"
    assert "has answered no call for" in told[0] and "the connection broke" in told[0]


def test_a_server_that_never_answers_in_time_is_dead_after_some_time_outs() -> None:
    server = Server(lambda image, attempt, now: 1e6)
    replies, seconds = judge(server, 50, timeout_s=40.0)
    assert any(isinstance(reply, ModelUnavailable) for reply in replies)
    assert seconds <= 2000


def test_a_server_that_restarts_within_a_minute_costs_nothing_but_the_minute() -> None:
    server = Server(lambda image, attempt, now: BUSY if 5 < now < 55 else 1.0)
    replies, _ = judge(server, 100)
    assert all(isinstance(reply, JudgeReply) for reply in replies)


def test_a_few_poisonous_images_at_the_end_do_not_pass_for_a_dead_server() -> None:
    bad = {"image97", "image98", "image99"}
    server = Server(lambda image, attempt, now: BUSY if image in bad else 0.1)
    replies, _ = judge(server, 100)
    assert Counter(type(reply) for reply in replies) == {JudgeReply: 97, ModelBusy: 3}


def test_a_choice_is_asked_again_until_it_is_answered() -> None:
    server = Server(lambda image, attempt, now: BUSY if attempt < 3 else 0.0)
    asked = [ChooseRequest("suit", (Option("hearts"),), f"image{number}") for number in range(3)]
    replies, _ = run(RetryingModel(server, timeout_s=60).choose(asked))
    assert replies == [ChooseReply((1.0, 0.0))] * 3
    assert set(server.attempts.values()) == {3}


def test_equal_seeds_wait_equally_long() -> None:
    def seconds(seed: int) -> float:
        server = Server(lambda image, attempt, now: BUSY if attempt < 5 else 0.0)
        return run(RetryingModel(server, timeout_s=60, seed=seed).judge(questions(3)))[1]

    assert seconds(1) == seconds(1) != seconds(2)


def test_a_cancelled_wait_passes_its_turn_on() -> None:
    async def work() -> list[str]:
        gate = Gate(1)
        entered: list[str] = []

        async def enter(name: str) -> None:
            async with gate:
                entered.append(name)
                await asyncio.sleep(1)

        tasks = [asyncio.create_task(enter(name)) for name in "abcd"]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        await asyncio.sleep(0.5)
        tasks[2].cancel()  # may just have been given its turn
        await asyncio.gather(*tasks, return_exceptions=True)
        assert gate.inside == 0
        return entered

    entered, _ = run(work())
    assert entered in (["a", "d"], ["a", "c", "d"])
