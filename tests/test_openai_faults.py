"""Models behind servers that fail: every fault has its error and its cure, and no key ever shows."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Fault, text_of
from served import (
    LOOK,
    SECRET,
    YES,
    Drawn,
    at,
    bodies,
    no_keys_and_no_patience,  # noqa: F401  a fixture
    run,
)

from manylens.errors import ModelBusy, ModelError, ModelReplyInvalid, ModelUnavailable, UsageError
from manylens.models import prompts
from manylens.models.base import (
    JudgeReply,
    LookReply,
    LookRequest,
    ModelOptions,
    look_whole,
)
from manylens.models.caching import CachingModel
from manylens.models.openai_compatible.addresses import clean_url, is_loopback
from manylens.models.openai_compatible.endpoint import Endpoint
from manylens.models.openai_compatible.faults import MAX_WAIT_S, NotJson, retry_after
from manylens.models.openai_compatible.model import OpenAICompatible
from manylens.models.registry import check_model_name, load_model
from manylens.store.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("no_keys_and_no_patience")


# --- models that cannot be used ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "cure"),
    [
        ({"sees": "rejects"}, "takes no pictures .* use a vision model"),
        ({"sees": "ignores"}, "does not see pictures .* use a vision model"),
        ({"sees": "guesses"}, "does not see pictures .* use a vision model"),
        ({"key": "sk-other"}, "refuses the key .* MANYLENS_API_KEY"),
        ({"models": ("fake-vl-7b", "other")}, "no model 'fake'; it has 'fake-vl-7b' .* --model fake-vl-7b"),
        ({"models": ("other",), "lists_models": False}, "knows no model 'fake': .* --model"),
    ],
)
def test_a_model_that_cannot_be_used_is_told_in_one_line_with_the_cure(how: dict[str, Any], cure: str) -> None:
    with ChatServer(**how) as server:
        with pytest.raises(ModelUnavailable, match=cure) as caught:
            at(server)
        assert "\n" not in str(caught.value)
        assert len(server.log) <= 5


def test_nobody_at_the_port_is_told_at_once() -> None:
    with ChatServer() as server:
        url = server.url
    with pytest.raises(ModelUnavailable, match=r"no server answers at .* --base-url"):
        OpenAICompatible("fake", "fake", Drawn(), ModelOptions(base_url=url))


def test_openai_itself_wants_a_key_before_anything_is_sent() -> None:
    with pytest.raises(ModelUnavailable, match="export OPENAI_API_KEY"):
        load_model("openai:gpt-5-mini", Drawn())


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ModelUnavailable, match=r"pip install 'manylens\[server\]'"):
        load_model("fake", Drawn(), None, ModelOptions(base_url="http://127.0.0.1:9/v1"))


@pytest.mark.parametrize(
    ("spec", "url", "cure"),
    [
        ("fake", None, "--base-url URL"),
        ("hf:no/such/folder", None, "hf:FOLDER"),
        ("openai:", None, "openai:NAME"),
        ("fake", "localhost:8000", "http://localhost:8000/v1"),
        ("fake", "ftp://a/v1", "http://localhost:8000/v1"),
        ("fake", "http://a:port/v1", "http://localhost:8000/v1"),
        ("fake", "http://[::1:80/v1", "http://localhost:8000/v1"),
        ("fake", f"http://me:{SECRET}@a/v1", "MANYLENS_API_KEY"),
        ("fake", f"http://a/v1?key={SECRET}", "MANYLENS_API_KEY"),
        ("fake", f"me:{SECRET}@a/v1", "http://localhost:8000/v1"),
    ],
)
def test_a_name_or_address_that_cannot_be_is_wrong_usage(spec: str, url: str | None, cure: str) -> None:
    with pytest.raises(UsageError, match=cure) as caught:
        check_model_name(spec, ModelOptions(base_url=url))
    assert SECRET not in str(caught.value)


def test_an_adapter_for_nano_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="belongs to an hf: checkpoint"):
        check_model_name("nano", ModelOptions(adapter="tuned/adapter"))


def test_addresses_have_one_form() -> None:
    assert clean_url(" http://LocalHost:80/v1/ ") == "http://localhost:80/v1"
    assert [is_loopback(f"http://{host}/v1") for host in ("localhost:1", "127.0.0.1", "[::1]:8", "example.org")] == [
        True,
        True,
        True,
        False,
    ]


# --- faults -----------------------------------------------------------------------------------------------------------

FAULTS: dict[Fault, tuple[type[ModelError], str]] = {
    "429": (ModelBusy, "answered 429.*--concurrency"),
    "429-wait": (ModelBusy, "answered 429"),
    "quota": (ModelUnavailable, "no credit left.*add credit"),
    "500": (ModelBusy, "answered 500"),
    "503": (ModelBusy, "answered 503"),
    "reset": (ModelBusy, "connection .* broke"),
    "hang": (ModelBusy, "took longer than .*--timeout"),
    "not-json": (NotJson, "must answer in JSON .*/v1"),
    "wrong-name": (ModelUnavailable, "knows no model 'fake'.*--model"),
    "expired-key": (ModelUnavailable, "refuses the key .*MANYLENS_API_KEY"),
    "error-200": (ModelError, "answered 400"),
    "error-200-busy": (ModelBusy, "answered 502"),
    "refused": (ModelError, "content rules"),
    "malformed": (ModelReplyInvalid, "unusable answer twice .*breaks off"),
    "prose": (ModelReplyInvalid, "unusable answer twice .*no JSON"),
    "empty": (ModelReplyInvalid, "unusable answer twice .*empty"),
    "rambling": (ModelReplyInvalid, "unusable answer twice .*no JSON"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_becomes_an_error_that_says_what_to_do(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYLENS_API_KEY", SECRET)
    expected, said = FAULTS[fault]
    with ChatServer(hang_s=3, retry_after_s=7, key=SECRET) as server:
        model = at(server, timeout_s=0.4)
        server.inject(fault, None)
        (reply,) = run(model, LOOK)
        assert type(reply) is expected
        assert re.search(said, str(reply))
        assert "\n" not in str(reply)
        assert getattr(reply, "retry_after_s", None) == (7 if fault == "429-wait" else None)
        assert server.count("look") == (2 if expected is ModelReplyInvalid else 1)
        server.heal()
        (mended,) = run(model, LOOK)
        assert mended.description == "red"


@pytest.mark.parametrize("fault", ["malformed", "prose", "empty", "rambling"])
def test_an_unusable_answer_is_mended_once(fault: Fault) -> None:
    with ChatServer() as server:
        model = at(server)
        server.inject(fault, 1)
        (reply,) = run(model, LOOK)
        assert reply.description == "red"
        first, second = bodies(server, "look")
        assert second["messages"][: len(first["messages"])] == first["messages"]
        assert "cannot be used" in text_of(second)
        assert len(text_of(second)) < len(text_of(first)) + 1500


def test_a_fenced_answer_needs_no_mending() -> None:
    with ChatServer() as server:
        model = at(server)
        server.inject("fenced", 1)
        assert run(model, LOOK)[0].description == "red"
        assert server.count("look") == 1


def test_where_logprobs_are_missing_once_the_confidence_is_asked_for() -> None:
    with ChatServer() as server:
        model = at(server)
        server.inject("no-logprobs", 1)
        missing, there = run(model, YES, YES)
        assert isinstance(missing, JudgeReply)
        assert missing.probability == pytest.approx(0.9)
        assert missing.reason
        assert there.probability == pytest.approx(0.9)
        assert there.reason == ""


def test_a_part_that_was_answered_is_not_asked_again() -> None:
    """A reply that has to be mended is there, its repair is not: the retry asks for the repair alone."""
    with ChatServer() as server:
        model = at(server)
        other = LookRequest("shape", "red square")
        server.inject("prose", 1)
        server.inject("503", 1, where=lambda kind, body: "cannot be used" in text_of(body))
        busy, mended = run(model, other, other)
        assert isinstance(busy, ModelBusy)
        assert mended.description == "square"
        assert server.count("look") == 3
        assert server.repeated() == {}
        assert not model._kept


def test_a_server_that_drips_is_a_time_out() -> None:
    """Bytes now and then keep a client's per-read limit from ever ending a call."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
        try:
            for _ in range(100):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass

    async def ask(monkeypatch: pytest.MonkeyPatch) -> ModelError | None:
        monkeypatch.setattr("manylens.models.openai_compatible.endpoint.CONNECT_TIMEOUT_S", 0.1)
        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        endpoint = Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "fake", 0.3)
        try:
            await endpoint.ask("/chat/completions", {})
        except ModelError as error:
            return error
        finally:
            await endpoint.close()
            server.close()
        return None

    with pytest.MonkeyPatch.context() as patch:
        assert isinstance(asyncio.run(ask(patch)), ModelBusy)


def test_a_repaired_look_is_as_sure_as_its_repair() -> None:
    """What is read has three words of 0.9 each; what could not be read had one."""
    with ChatServer(structured="ignores", writes_json=False) as server:
        model = at(server)
        said = iter(["...", "dark red one"])
        server.says = lambda words, shown: next(said)
        (reply,) = run(model, LOOK)
        assert reply.description == "dark red one"
        assert reply.confidence == pytest.approx(0.9**3)


@pytest.mark.slow
def test_a_description_is_not_asked_for_again_where_its_embedding_failed(tmp_path: Path) -> None:
    """An answer of its own, on the disk before its embedding is asked for: another process finds it there."""
    numbers = iter(range(9999))
    requests = [LookRequest(f"color {number}", "red square") for number in range(200)]
    with ChatServer(says=lambda words, shown: f"red {next(numbers)}") as server:
        kept = tmp_path / "models.json"
        at(server, recorded=kept)  # what the server can do is known before it falls ill

        async def ask() -> list[Any]:
            model = at(server, recorded=kept, timeout_s=60.0)
            with RunFolder.open(tmp_path / "run") as stored:
                replies = await look_whole(CachingModel(model, stored), requests)
            await model.close()
            return replies

        server.inject("503", None, kind="embeddings")
        assert all(isinstance(reply, ModelBusy) for reply in asyncio.run(ask()))
        server.heal()
        found = asyncio.run(ask())
        assert all(isinstance(reply, LookReply) and reply.embedding is not None for reply in found)
        assert server.repeated() == {}


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 10.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:40 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, MAX_WAIT_S),
    ],
)
def test_the_wait_a_server_asks_for_is_read(headers: dict[str, str], wait: float | None) -> None:
    assert retry_after(headers, now=lambda: 90.0) == wait


@pytest.mark.parametrize("fault", ["429", "503", "reset", "malformed", "prose", "error-200-busy"])
def test_a_slip_during_the_probe_does_not_make_a_model_unusable(fault: Fault) -> None:
    with ChatServer() as server:
        server.inject(fault, 1)
        assert run(at(server), LOOK)[0].description == "red"


# --- keys -------------------------------------------------------------------------------------------------------------


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(key="own") as server:
        monkeypatch.setenv("OPENAI_API_KEY", "general")
        with pytest.raises(ModelUnavailable, match="OPENAI_API_KEY"):
            at(server)
        monkeypatch.setenv("MANYLENS_API_KEY", "own")
        assert run(at(server), LOOK)[0].description == "red"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_key_reaches_no_message_traceback_or_log(
    fault: Fault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MANYLENS_API_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    with ChatServer(key=SECRET, hang_s=3) as server:
        model = at(server, timeout_s=0.4)
        server.inject(fault, None)

        async def ask() -> ModelError:
            try:
                await model._look(LOOK)
            except ModelError as error:
                await model.close()
                return error
            raise AssertionError("the fault was not served")

        error = asyncio.run(ask())
        told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        assert error.__context__ is None or isinstance(error.__context__, prompts.ReplyProblem)
        for text in (told, repr(error), repr(model), str(vars(model)), caplog.text, model.identity, model.render(LOOK)):
            assert SECRET not in text


def test_a_key_in_the_server_s_own_words_is_blotted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYLENS_API_KEY", "swordfish")
    with ChatServer() as server:
        endpoint = Endpoint(server.url, "fake", 1.0)
    for body in ({"error": {"message": "key swordfish is bad"}}, {"error": "bad: sk-proj-1234***89"}, "swordfish"):
        said = str(endpoint._by_status(500, body, {}))
        assert "swordfish" not in said
        assert "1234" not in said
    assert "\x1b" not in str(endpoint._by_status(500, {"message": "<b>\x1b[2J no\n\n</b>"}, {}))
    answer = {"choices": [{"message": {"content": "red, Bearer swordfish"}}], "data": [0.5, 0.25], "swordfish": None}
    assert endpoint._checked(answer) == {
        "choices": [{"message": {"content": "red, Bearer [key]"}}],
        "data": [0.5, 0.25],
        "[key]": None,
    }
    monkeypatch.setenv("MANYLENS_API_KEY", "red")  # a placeholder, as local servers are given, is no secret
    assert endpoint._checked(answer) == answer
