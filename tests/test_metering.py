"""The account: what was sent is counted, across failures, runs and kills, and no limit is passed."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer, write_pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from test_retrying import run as run_in_virtual_time

import manylens
from manylens.errors import BudgetSpent, ModelBusy, ModelError, ModelReplyInvalid, ModelUnavailable
from manylens.models.base import Capabilities, LookReply, LookRequest, ModelOptions, Request, Usage
from manylens.models.caching import CachingModel, open_account
from manylens.models.metering import (
    CHAT_TOKENS,
    FEW,
    FIRST_IMAGE_TOKENS,
    Account,
    Bound,
    Call,
    current_call,
    usable_count,
    working_for,
)
from manylens.models.retrying import RetryingModel
from manylens.settings import Settings
from manylens.store.books import Books, Spent
from manylens.store.run_folder import RunFolder

pytest.importorskip("openai")

from manylens.models.openai_compatible import talk
from manylens.models.openai_compatible.endpoint import Endpoint

PRICES: dict[str, Any] = {"price_in": 1.0, "price_out": 1.0}


def spent_usd(tokens: int) -> float:
    return tokens / 1e6


# The account


def test_what_was_under_way_at_a_kill_is_forgiven_once_up_to_what_may_be_sent_side_by_side() -> None:
    saved: list[Books] = []
    for _ in range(3):
        account = Account(saved[-1] if saved else None, saved.append, forgiven=8)
        for number in range(5):  # and the process is killed
            Call(account, str(number), Bound("look", 50, 1, 1000, 100)).send()
    assert [books.under_way.requests for books in saved[4::5]] == [5, 10, 15]
    after = Account(saved[-1], forgiven=8)
    assert after.calls == 7
    assert after.vain.tokens_in == 7 * 1150


def test_an_answer_stands_for_one_request_and_what_was_sent_beside_it_stays_in_vain() -> None:
    account = Account()
    call = Call(account, "key", Bound("look", 50, 1, 1000, 100))
    for _ in range(3):
        call.send()
        call.took(Usage(10, 2))
    call.end(Usage(10, 2), answered=True)
    assert account.vain == Spent(2, 20, 4)
    assert account.calls == 3
    account.rest_on("key", Usage(10, 2), call.bound)
    assert account.calls == 3, "an answer is used again and again"


def test_the_embedding_of_a_look_belongs_to_it_and_further_ones_count() -> None:
    account = Account()
    call = Call(account, "key", Bound("embedding", 50))
    for _ in range(3):
        call.send(Bound("embedding", 5))
    assert account.calls == 2
    call.end(Usage(5, 0), answered=True)
    assert account.calls == 2
    account.rest_on("other", Usage(5, 0), Bound("embedding", 5))
    assert account.calls == 2


@pytest.mark.parametrize("text", ["", "[]", "[[1,2,3]]", "[[1,2,3],[1,2,-3]]", "[[1,2,3],[1,2,0.5]]", "[" * 100_000])
def test_books_that_cannot_be_read_are_damage(tmp_path: Path, text: str) -> None:
    with RunFolder.open(tmp_path) as run:
        run.put_books(Books())
        run._connection.execute("UPDATE meta SET value = ? WHERE name LIKE 'requests%'", (text,))
        with pytest.raises(manylens.errors.StoreError, match="the account of a run is two rows"):
            open_account(run)


@pytest.mark.parametrize("value", [None, -1, 1.5, 2**53 + 1, 10**400, "12", True, float("inf"), [], {}])
def test_a_count_that_no_server_means_is_none(value: Any) -> None:
    assert usable_count(value) is None


# Any server: what it counts is what is accounted for


class Server:
    """A model behind a server. moods: what each request ends in, in turn: a reply with or without a count of so many
    tokens, one that cannot be used, a refusal, or a broken connection."""

    name = identity = "moody"
    capabilities = Capabilities(
        batch_size=1, concurrency=3, counts_requests=True, requests_per_call=3, image_tokens=500, reply_tokens=50
    )

    def __init__(self, moods: Callable[[], tuple[str, int]]) -> None:
        self.moods = moods
        self.requests = self.tokens = 0
        self.largest = 0

    def render(self, request: Request) -> str:
        return json.dumps(str(request))

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        call = current_call()
        assert call is not None
        for _ in range(2):  # the second is a repair
            call.send()
            mood, tokens = self.moods()
            self.requests += 1
            await asyncio.sleep(0.01)
            if mood == "refused":
                call.refused()
                raise ModelBusy("503")
            self.tokens += tokens
            self.largest = max(self.largest, tokens)
            if mood == "broken":
                raise ModelBusy("the connection broke")
            usage = None if mood == "uncounted" else Usage(tokens, 0)
            call.took(usage)
            if mood != "unusable":
                return [LookReply("red", 0.5, np.ones(1, np.float16), usage)]
        raise ModelReplyInvalid("unusable twice")

    judge: Any = look
    choose: Any = look
    complete: Any = look


@st.composite
def moods(draw: st.DrawFn) -> Callable[[], tuple[str, int]]:
    kinds = draw(st.lists(st.sampled_from(["good", "uncounted", "unusable", "refused", "broken"]), min_size=1))
    tokens = draw(st.lists(st.integers(1, draw(st.sampled_from([500, 50_000]))), min_size=1))
    at = iter(range(10**9))

    def mood() -> tuple[str, int]:
        number = next(at)
        kind, took = kinds[number % len(kinds)], tokens[number % len(tokens)]
        # A server that says nothing of what it took takes no more than what was agreed.
        return kind, min(took, 550) if kind in ("uncounted", "broken") else took

    return mood


@pytest.mark.fuzz
@settings(max_examples=int(os.environ.get("MANYLENS_FUZZ", "30")), deadline=None)
@given(moods(), st.integers(0, 40), st.none() | st.floats(0.0001, 0.2), st.integers(1, 4))
def test_no_server_sees_more_than_the_limit_over_any_number_of_runs(
    mood: Callable[[], tuple[str, int]], most_calls: int, most_usd: float | None, runs: int
) -> None:
    server = Server(mood)
    limits = Settings(budget_calls=most_calls, budget_usd=most_usd, **PRICES)
    requests = [LookRequest("color", str(number)) for number in range(30)]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs):
            with RunFolder.open(folder) as run:
                model = CachingModel(RetryingModel(server, timeout_s=60.0), run)
                model.account.limit(limits)
                account = model.account
                try:
                    replies, _ = run_in_virtual_time(model.look(requests))
                except ModelUnavailable:  # it answered nobody for a minute
                    replies = []
            answered = sum(isinstance(reply, LookReply) for reply in replies)
            unsent = sum(isinstance(reply, BudgetSpent) for reply in replies)
            assert account.calls == server.requests <= most_calls, "what is accounted for is what was sent"
            assert account.usd >= spent_usd(server.tokens) - 1e-9
            if most_usd is not None:
                # Those under way when a dearer answer than any before comes in.
                assert spent_usd(server.tokens) <= most_usd + spent_usd(3 * server.largest) + 1e-9
                assert account.passed_usd == pytest.approx(max(0.0, account.usd - most_usd))
            assert answered + unsent + model.failed.total() == len(replies)


def test_what_never_comes_back_is_charged_at_the_most_also_once_it_is_known_what_others_took() -> None:
    account = Account()
    account.limit(Settings(**PRICES))
    look = Bound("look", 50, 1, 1000, 100)
    for number in range(FEW):
        call = Call(account, str(number), look)
        call.send()
        call.took(Usage(200, 5))
        call.end(Usage(200, 5), answered=True)
    broken = Call(account, "broken", look)
    for _ in range(2):  # the connection breaks, and it is sent again
        broken.send()
    broken.end(None, answered=False)
    assert account.vain == Spent(2, 2 * 1150, 2 * 100)


def test_what_never_left_does_not_count(pictures: Path) -> None:
    """On a busy machine a connection may not be made in time: it is asked again, and was sent once."""
    account = Account()
    call = Call(account, "key", Bound("look", 50, 1, 1000, 100))
    refused = Endpoint("http://127.0.0.1:9/v1", "fake", 1.0)

    async def send() -> None:
        with working_for(call):
            await talk.send(refused, "/chat/completions", {})

    with pytest.raises(ModelError, match="no server answers"):
        asyncio.run(send())
    assert account.spent == Spent()
    call.send()
    call.end(Usage(10, 2), answered=True)
    assert account.calls == 1


def test_a_kill_forgets_no_request(tmp_path: Path) -> None:
    """Books are written before a request leaves: what is on the disk at that moment holds it."""
    held: list[int] = []

    class Watched(Server):
        async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
            reply = asyncio.ensure_future(super().look(requests))
            await asyncio.sleep(0)
            books = run.books()
            held.append(books.under_way.requests)
            return await reply

    with RunFolder.open(tmp_path) as run:
        model = CachingModel(Watched(lambda: ("good", 5)), run)
        asyncio.run(model.look([LookRequest("color", str(number)) for number in range(3)]))
        assert held == [1, 2, 3]
        assert run.books() == Books()


# Whole runs, by the server's own count


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("openai")
    for name in ("OPENAI_API_KEY", "MANYLENS_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    write_pictures(tmp_path / "pictures", 30)
    return tmp_path / "pictures"


def sort(pictures: Path, server: ChatServer, out: str = "out", **limits: Any) -> manylens.Result:
    return manylens.cluster(
        pictures,
        by="color",
        model="fake",
        options=ModelOptions(base_url=server.url, concurrency=4),
        out=pictures.parent / out,
        settings=Settings(**limits),
    )


def asked(server: ChatServer) -> int:
    """Requests that count: all but the list of models and the embeddings of single descriptions."""
    return sum(
        served.kind != "models" and not isinstance((served.body or {}).get("input"), str) for served in server.log
    )


@pytest.mark.parametrize("fault", ["malformed", "503", "refused"])
def test_failures_count_in_a_run_and_across_runs(pictures: Path, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manylens.models.retrying.FIRST_BACKOFF_S", 0.001)
    with ChatServer() as server:
        server.inject(fault, None, kind="look")
        for _ in range(3):
            result = sort(pictures, server, budget_calls=20)
            assert asked(server) <= 20
        assert result["color"].counts.assigned == 0
        assert result.is_partial
        server.heal()
        assert sort(pictures, server)["color"].counts.assigned == 30


def test_the_limit_is_used(pictures: Path) -> None:
    with ChatServer() as server:
        sort(pictures, server, budget_calls=20)
        assert asked(server) + server.count("embeddings") >= 20
        assert server.count("look") >= 12


def test_a_limit_that_does_not_reach_to_know_the_model_is_said(pictures: Path) -> None:
    with ChatServer() as server, pytest.raises(ModelError, match="the budget of 1 calls is spent before it is known"):
        sort(pictures, server, budget_calls=1)
    assert asked(server) == 1


@pytest.mark.parametrize("limit", [{"budget_calls": 2}, {"budget_usd": 0.03, **PRICES}], ids=["calls", "dollars"])
def test_what_is_tried_of_a_model_is_not_sent_again_by_each_run_that_its_limit_ends(
    pictures: Path, limit: dict[str, Any]
) -> None:
    """Such a run once took its folder away with the account in it, and the next one began anew."""
    with ChatServer(counts=lambda usage: None) as server:
        sent = []
        for _ in range(4):
            with pytest.raises(ModelError, match="is spent before it is known"):
                sort(pictures, server, **limit)
            sent.append(asked(server))
    assert sent[-1] == sent[-2], sent
    assert asked(server) <= 3


def test_a_run_that_takes_another_course_than_the_one_before_has_no_limit_of_its_own(tmp_path: Path) -> None:
    """Answers that a run paid for and the next one does not use, because looks failed in between, were forgotten."""
    server = Server(lambda: ("good", 5))
    with RunFolder.open(tmp_path) as run:
        for start in range(0, 50, 10):
            model = CachingModel(server, run)
            model.account.limit(Settings(budget_calls=25))
            replies = asyncio.run(model.look([LookRequest("color", str(start + number)) for number in range(10)]))
        assert server.requests == 25 == model.account.spent.requests
        assert all(isinstance(reply, BudgetSpent) for reply in replies)
        assert model.account.beside.requests == 25
        other = CachingModel(server, run)
        other.account.limit(Settings(budget_calls=25))
        asyncio.run(other.look([LookRequest("shape", str(number)) for number in range(10)]))
        assert server.requests == 35, "another interest has a limit of its own"


def test_a_limit_that_failures_used_up_takes_no_description_away_that_is_there(pictures: Path) -> None:
    """What requests in vain had cost left nothing for those that were answered before, in the next run."""
    limits: dict[str, Any] = {"budget_usd": 0.06, "price_in": 10.0, "price_out": 10.0}
    with ChatServer() as server:
        turn = iter(range(10**6))
        server.inject("malformed", None, where=lambda kind, body: kind == "look" and next(turn) % 4 == 0)
        described = [30 - len(sort(pictures, server, **limits)["color"].clustering.not_looked) for _ in range(3)]
        assert 0 < described[0] < 30
        assert sorted(described) == described


@pytest.mark.parametrize("fault", ["refused", "malformed"])
def test_failed_calls_are_printed_once(
    pictures: Path, fault: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from manylens.cli import main

    monkeypatch.setattr("manylens.models.retrying.FIRST_BACKOFF_S", 0.001)
    with ChatServer() as server:
        turn = iter(range(10**6))
        server.inject(fault, None, where=lambda kind, body: kind == "look" and next(turn) % 3 == 0)
        command = ["cluster", str(pictures), "--by", "color", "--model", "fake", "--base-url", server.url]
        command += ["--out", str(pictures.parent / "out"), "--budget-calls", "40", "--concurrency", "1"]
        for _ in range(3):
            main.run(command)
            shown = capsys.readouterr().out
            calls = int(shown.partition("; ")[2].partition(" model calls (")[0].split()[-1])
            vain = int(shown.partition("Beside them ")[2].split()[0])
            assert calls + vain == asked(server) <= 40


NO_COUNTS: dict[str, Callable[[dict[str, int]], Any]] = {
    "missing": lambda usage: None,
    "negative": lambda usage: {name: -number for name, number in usage.items()},
    "fractions": lambda usage: {name: number + 0.5 for name, number in usage.items()},
    "beyond": lambda usage: dict.fromkeys(usage, 2**53 + 1),
    "ten to the 19": lambda usage: dict.fromkeys(usage, 10**19),
    "texts": lambda usage: {name: str(number) for name, number in usage.items()},
    "a list": lambda usage: [1, 2],
}


@pytest.mark.parametrize("counts", NO_COUNTS.values(), ids=NO_COUNTS)
def test_a_chat_reply_without_a_usable_count_is_charged_at_its_bound(
    pictures: Path, counts: Callable[[dict[str, int]], Any]
) -> None:
    """A request is bound by some 10,000 tokens of its picture, whatever embeddings count."""
    with ChatServer(counts=counts) as server:
        result = sort(pictures, server, budget_usd=0.3, **PRICES)
        pictures_sent = sum(served.images for served in server.log)
        assert pictures_sent * 10_000 / 1e6 <= 0.3
        assert server.count("look") >= 5
        assert result.calls.tokens.uncounted == result.calls.total


def test_replies_longer_than_asked_for_are_learned_from(pictures: Path) -> None:
    with ChatServer(counts=lambda usage: {**usage, "completion_tokens": 5_000}) as server:
        sort(pictures, server, budget_usd=0.1, **PRICES)
        replies = sum(served.status == 200 and served.kind not in ("models", "embeddings") for served in server.log)
        assert replies * 5_000 / 1e6 <= 0.1
        assert replies >= 12


def test_a_limit_that_was_passed_all_the_same_is_said_with_the_amount(pictures: Path) -> None:
    told = iter(range(10**6))
    dear = Counter[str]()

    def counts(usage: dict[str, int]) -> dict[str, int]:
        if next(told) < 15:
            return usage
        dear["tokens"] += 900_000
        return {**usage, "completion_tokens": 900_000}

    with ChatServer(counts=counts) as server:
        result = sort(pictures, server, budget_usd=0.3, **PRICES)
        assert dear["tokens"] / 9e5 <= 4, "those under way"
        note = next(note for note in result["color"].clustering.notes if "was passed by" in note)
        over = float(note.partition("was passed by $")[2].split()[0].rstrip(".:"))
        assert over == pytest.approx(dear["tokens"] / 1e6 - 0.3, abs=0.05)


def test_a_limit_half_again_what_a_run_costs_lets_it_end(pictures: Path) -> None:
    with ChatServer() as server:
        free = sort(pictures, server, "free", **PRICES)
        spent = free.calls.tokens
        usd = spent_usd(spent.tokens_in + spent.tokens_out)
        limited = sort(pictures, server, "limited", budget_usd=1.5 * usd + 0.015, **PRICES)
        assert not limited.is_partial
        assert limited["color"].labels == free["color"].labels


def test_what_is_printed_is_what_was_sent(
    pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from manylens.cli import main

    broken: list[ModelError] = []
    failed = Call.failed

    def seen(call: Call, error: ModelError) -> None:
        if not (error.unsent or error.unbilled):  # its connection broke: it counts as sent, and may not have come
            broken.append(error)
        failed(call, error)

    monkeypatch.setattr(Call, "failed", seen)
    with ChatServer() as server:
        server.inject("malformed", 4, kind="look")
        command = ["cluster", str(pictures), "--by", "color", "--model", "fake", "--base-url", server.url]
        assert main.run([*command, "--out", str(pictures.parent / "out")]) == 0
        shown = capsys.readouterr().out
        calls = int(shown.partition("The run took ")[2].split()[0])
        vain = int(shown.partition("Beside them ")[2].split()[0])
        assert asked(server) <= calls + vain <= asked(server) + len(broken), broken
        assert vain >= 4


def test_a_few_answers_are_awaited_before_more_is_sent(pictures: Path) -> None:
    account = Account()
    account.limit(Settings(budget_usd=1.0, **PRICES))
    look = Bound("look", 100, 1, 10_000, 100, FIRST_IMAGE_TOKENS)
    assert account.may_be_under_way(look) == 1, "nobody knows what a picture takes"
    assert account.reserve(look).tokens_in == CHAT_TOKENS + 100 + FIRST_IMAGE_TOKENS
    Call(account, "first", look).send()
    assert account.may_be_under_way(look) == FEW
    before = account.reserve(look)
    assert before.tokens_in > 10_000, "nothing came back that tells"
    for _ in range(FEW):
        account.learn(look, Usage(300, 20))
    assert account.reserve(look).tokens_in < before.tokens_in / 10
    assert account.reserve(look).tokens_out == 20
    account.learn(look, Usage(300, 7_000))
    assert account.reserve(look).tokens_out == 7_000
    probe = replace(look, kind="probe")
    assert account.reserve(probe).tokens_in == CHAT_TOKENS + 100 + FIRST_IMAGE_TOKENS, "its pictures are others"
