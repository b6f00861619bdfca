"""Several candidates of one cluster in one request: grouped, parsed strictly, stored one by one, counted honestly."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, text_of, write_pictures
from served import Drawn, at, bodies, no_keys_and_no_patience  # noqa: F401  the last is a fixture

from manylens import cli
from manylens.errors import ImageUnreadable, ModelBusy, ModelError
from manylens.models.base import JudgeReply, JudgeRequest, LookRequest, Request, put_together, request_key
from manylens.models.budget import Budget
from manylens.models.openai_compatible import OpenAICompatible
from manylens.models.paced import Paced
from manylens.models.recorded import Recorded
from manylens.prompts import Judged, ReplyProblem, parse_judgements
from manylens.records import Settings
from manylens.store import RunFolder

pytestmark = pytest.mark.usefixtures("no_keys_and_no_patience")

CANDIDATES = ("red square", "blue square", "red triangle", "green circle", "red circle 2")


def about(name: str, *candidates: str) -> list[JudgeRequest]:
    shown = (f"{name} circle", f"{name} triangle 3")
    return [JudgeRequest("color", name, f"Images described as {name}.", shown, candidate) for candidate in candidates]


def is_together(of: str, body: Any) -> bool:
    return of == "judge" and '"answers"' in json.dumps(body["messages"]).replace('\\"', '"')


def together(server: ChatServer) -> list[Any]:
    return [body for body in bodies(server, "judge") if is_together("judge", body)]


def judge(model: OpenAICompatible, requests: Sequence[JudgeRequest]) -> list[JudgeReply]:
    async def ask() -> list[JudgeReply | ModelError]:
        replies = await model.judge(requests)
        await model.close()
        return replies

    replies = asyncio.run(ask())
    assert all(isinstance(reply, JudgeReply) for reply in replies), replies
    return [reply for reply in replies if isinstance(reply, JudgeReply)]


# --- grouping and parsing ---------------------------------------------------------------------------------------------


def test_only_judgements_of_one_cluster_go_together_in_order_and_at_most_so_many() -> None:
    red, blue = about("red", *CANDIDATES), about("blue", *CANDIDATES[:2])
    requests: list[Request] = [red[0], blue[0], red[1], LookRequest("color", "x"), red[2], blue[1], red[3], red[4]]
    assert put_together(requests, 3) == [[0, 2, 4], [1, 5], [3], [6, 7]]
    assert put_together(requests, 1) == [[number] for number in range(8)]
    assert put_together([], 3) == []


def said(*belongs: object, first: int = 1) -> str:
    answers = [{"picture": n, "belongs": b, "confidence": 0.9, "reason": "so"} for n, b in enumerate(belongs, first)]
    return json.dumps({"answers": answers})


def test_answers_are_read_in_order_and_what_is_odd_is_left_out() -> None:
    yes, odd, no = parse_judgements(said("yes", "perhaps", "no"), 3)
    assert (yes, odd) == (Judged(0.9, "so"), None)
    assert no is not None
    assert no.probability == pytest.approx(0.1)
    lacking = json.dumps(
        {"answers": [{"picture": 1, "belongs": "yes"}, {"picture": 2, "belongs": "no", "confidence": 1}]}
    )
    assert parse_judgements(lacking, 2) == [None, Judged(0.0)]


@pytest.mark.parametrize(
    "reply",
    [said("yes"), said("yes", "no", "no"), said("yes", "no", first=0), '{"answers": "yes, no"}', "yes, no", "",
     '{"answers": ["yes", "no"]}', '{"answers": [{"picture": 2, "belongs": "yes", "confidence": 1}]}'],
)  # fmt: skip
def test_a_reply_that_does_not_number_one_answer_for_each_is_refused(reply: str) -> None:
    with pytest.raises(ReplyProblem):
        parse_judgements(reply, 2)


# --- one model --------------------------------------------------------------------------------------------------------


def test_five_candidates_take_two_requests_and_each_answer_is_the_one_it_gets_alone() -> None:
    with ChatServer() as server:
        alone = judge(at(server), about("red", *CANDIDATES))
        before = server.count("judge")
        shared = judge(at(server, judge_together=4), about("red", *CANDIDATES))
        assert [reply.probability > 0.5 for reply in shared] == [reply.probability > 0.5 for reply in alone]
        assert [reply.probability > 0.5 for reply in shared] == [True, False, True, False, True]
        assert [reply.calls for reply in shared] == [0.25] * 4 + [1.0]
        four = together(server)[-1]
        assert server.count("judge") - before == 2 + 2, "two of them to find out whether it tells four apart"
        used = [reply.usage for reply in shared[:4] if reply.usage is not None]
        assert sum(usage.tokens_in for usage in used) == 100 * (2 + 4) + len(text_of(four)) // 4
        assert sum(usage.tokens_out for usage in used) == 8


def test_nothing_is_shared_or_tried_unless_it_is_asked_for(tmp_path: Path) -> None:
    with ChatServer() as server:
        assert at(server).capabilities.candidates_per_call == 1
        judge(at(server), about("red", *CANDIDATES))
        assert together(server) == []
        models = tmp_path / "models.json"
        assert at(server, recorded=models).dialect.candidates == 0
        asked = len(server.log)
        assert at(server, recorded=models, judge_together=4).capabilities.candidates_per_call == 4
        assert len(server.log) == asked + 2, "what was known is not probed again"
        assert at(server, recorded=models, judge_together=2).capabilities.candidates_per_call == 2
        assert len(server.log) == asked + 2


@pytest.mark.parametrize("how", [{"together": "mixes up"}, {"most_images": 4}, {"most_images": 1},
                                 {"structured": "ignores", "writes_json": False}])  # fmt: skip
def test_a_model_that_mixes_pictures_up_or_takes_too_few_is_asked_one_by_one(how: dict[str, Any]) -> None:
    with ChatServer(**how) as server:
        model = at(server, judge_together=4)
        assert model.capabilities.candidates_per_call == 1
        before = len(together(server))
        replies = judge(model, about("red", *CANDIDATES))
        assert [reply.probability > 0.5 for reply in replies] == [True, False, True, False, True]
        assert [reply.calls for reply in replies] == [1.0] * 5
        assert len(together(server)) == before


def test_half_as_many_are_tried_where_a_request_holds_no_more() -> None:
    with ChatServer(most_images=5) as server:
        assert at(server, judge_together=4).capabilities.candidates_per_call == 2


def test_one_odd_answer_is_asked_again_alone_and_the_others_stand() -> None:
    with ChatServer() as server:
        model = at(server, judge_together=4)
        server.together = "spoils one"
        before = server.count("judge")
        replies = judge(model, about("red", *CANDIDATES[:4]))
        assert [reply.probability > 0.5 for reply in replies] == [True, False, True, False]
        assert server.count("judge") - before == 2
        assert sum(reply.calls for reply in replies) == pytest.approx(2)


@pytest.mark.parametrize("fault", ["malformed", "prose", "empty", "rambling", "refused", "leaves one out"])
def test_a_reply_that_tells_nothing_costs_one_call_and_no_answer(fault: Any) -> None:
    with ChatServer() as server:
        model = at(server, judge_together=4)
        if fault == "leaves one out":
            server.together = fault
        else:
            server.inject(fault, None, where=is_together)
        before = server.count("judge")
        replies = judge(model, about("red", *CANDIDATES[:4]))
        assert [reply.probability > 0.5 for reply in replies] == [True, False, True, False]
        assert server.count("judge") - before == 5
        assert sum(reply.calls for reply in replies) == pytest.approx(5)


def test_a_picture_that_cannot_be_read_costs_the_others_nothing() -> None:
    class Torn(Drawn):
        def jpeg(self, image_id: str, longest_side_px: int, quality: int = 90) -> bytes:
            if image_id == "blue square":
                raise ImageUnreadable("a picture is whole, this one breaks off", "restore it")
            return super().jpeg(image_id, longest_side_px, quality)

    with ChatServer() as server:
        model = at(server, Torn(), judge_together=4)

        async def ask() -> list[JudgeReply | ModelError]:
            return await model.judge(about("red", *CANDIDATES[:4]))

        replies = asyncio.run(ask())
        assert [isinstance(reply, ModelError) for reply in replies] == [False, True, False, False]


# --- recorded and paced -----------------------------------------------------------------------------------------------


def test_each_answer_is_stored_under_the_key_that_it_has_alone(tmp_path: Path) -> None:
    requests = about("red", *CANDIDATES)
    with ChatServer() as server, RunFolder.open(tmp_path / "run") as run:
        shared = Recorded(at(server, judge_together=4), run)
        first = asyncio.run(shared.judge(requests))
        assert shared.calls == pytest.approx(2)
        single = at(server)
        assert set(run.get_answers(request_key(single, request) for request in requests)) == {
            request_key(single, request) for request in requests
        }
        asked = len(server.log)
        again = Recorded(single, run)
        assert asyncio.run(again.judge(requests)) == first
        assert [reply.calls for reply in first if isinstance(reply, JudgeReply)] == [0.25] * 4 + [1.0]
        assert again.calls == 0
        assert len(server.log) == asked
        assert run.verify() == []


def test_a_resumed_run_groups_as_an_undisturbed_one(tmp_path: Path) -> None:
    """What is stored already leaves its group, and nobody moves up into its place."""
    requests = about("red", *CANDIDATES, "blue circle", "red circle 5", "green square")
    with ChatServer() as server, RunFolder.open(tmp_path / "run") as run:
        asyncio.run(Recorded(at(server), run).judge(requests[1:2]))
        model = at(server, judge_together=4)
        before = len(together(server))
        replies = asyncio.run(Recorded(model, run).judge(requests))
        assert [round(reply.calls, 2) for reply in replies if isinstance(reply, JudgeReply)] == [
            0.33, 1.0, 0.33, 0.33, 0.25, 0.25, 0.25, 0.25,
        ]  # fmt: skip
        assert len(together(server)) - before == 2


@pytest.mark.parametrize("fault", ["503", "reset", "429-wait", "error-200-busy"])
def test_a_busy_server_is_asked_again_and_answers_nothing_twice(fault: Any, tmp_path: Path) -> None:
    requests = about("red", *CANDIDATES[:4])
    with ChatServer() as server, RunFolder.open(tmp_path / "run") as run:
        model = at(server, judge_together=4)
        server.together = "spoils one"
        server.inject(fault, 1, where=is_together)
        server.inject(fault, 1, where=lambda of, body: of == "judge" and not is_together(of, body))
        before = server.count("judge")
        replies = asyncio.run(Recorded(Paced(model, timeout_s=10), run).judge(requests))
        assert [isinstance(reply, JudgeReply) for reply in replies] == [True] * 4
        assert server.count("judge") - before == 4, "together, together again, one alone, alone again"
        assert server.repeated() == {}
        assert sum(reply.calls for reply in replies if isinstance(reply, JudgeReply)) == pytest.approx(2)


def test_a_call_in_which_some_are_busy_keeps_the_others() -> None:
    """Only the busy one is asked again; where it stays busy it fails alone."""

    class Choosy:
        name = identity = "choosy"

        def __init__(self) -> None:
            with ChatServer() as server:
                self.capabilities = at(server, judge_together=4).capabilities
            self.asked: list[list[str]] = []

        def render(self, request: object) -> str:
            return repr(request)

        async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
            self.asked.append([request.candidate_id for request in requests])
            return [
                ModelBusy("busy", "wait") if request.candidate_id.startswith("blue") else JudgeReply(0.9)
                for request in requests
            ]

    async def ask() -> list[JudgeReply | ModelError]:
        return await Paced(choosy, timeout_s=1).judge(about("red", *CANDIDATES[:3]))  # type: ignore[arg-type]

    choosy = Choosy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("manylens.models.paced.FIRST_BACKOFF_S", 0.001)
        patch.setattr("manylens.models.paced.ATTEMPTS", 3)
        replies = asyncio.run(ask())
    assert choosy.asked == [list(CANDIDATES[:3]), ["blue square"], ["blue square"]]
    assert [isinstance(reply, ModelBusy) for reply in replies] == [False, True, False]


def test_a_budget_is_kept_even_if_every_request_together_tells_nothing() -> None:
    with ChatServer() as server:
        model = at(server, judge_together=2)
        requests = about("red", *(f"red circle {number}" for number in range(40)))
        for most in (0, 1, 2, 3, 10, 31):
            budget = Budget(model, Settings(budget_calls=most))
            admitted = budget.admit(requests, budget.part(1.0))
            assert admitted + admitted // 2 <= most
            assert admitted >= min(most, 1)


# --- whole runs -------------------------------------------------------------------------------------------------------


def rows(out: str) -> list[dict[str, str]]:
    with open(Path(out, "color", "assignments.csv"), encoding="utf-8", newline="") as file:
        return [{"image": row["image"], "name": row["name"]} for row in csv.DictReader(file)]


def test_a_whole_run_takes_fewer_calls_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures", 60, colors=3, shapes=3)
    with ChatServer() as server:
        how = ["cluster", "pictures", "--by", "color", "--model", "fake", "--base-url", server.url]
        assert cli.run([*how, "--out", "alone"]) == 0
        before = server.count("judge")
        assert cli.run([*how, "--out", "shared", "--judge-together", "4"]) == 0
        sent = server.count("judge") - before - 2  # two to find out whether it tells four apart
        summary = json.loads(Path("shared/color/summary.json").read_text())
        assert rows("shared") == rows("alone")
        assert sent == summary["judge_calls"] < summary["judgements"]
        assert f"{summary['judgements']} judgements in {sent} calls" in capsys.readouterr().out
        asked = len(server.log)
        content = Path("shared/color/assignments.csv").read_bytes()
        assert cli.run([*how, "--out", "shared", "--judge-together", "4"]) == 0
        again = json.loads(Path("shared/color/summary.json").read_text())
        assert len(server.log) == asked
        assert Path("shared/color/assignments.csv").read_bytes() == content
        assert {**again, "seconds": 0} == {**summary, "seconds": 0}
        assert cli.run([*how, "--out", "small", "--judge-together", "4", "--budget-calls", "80"]) == 0
        small = json.loads(Path("small/color/summary.json").read_text())
        assert 60 < small["calls"] <= 80
