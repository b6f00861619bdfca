"""Whatever a server sends, a request ends in an answer or an explained error, within bounds of time and memory."""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_server import write_pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_server import Answer, Send, head, serve
from replies import task_of

from manylens.errors import ModelBusy, ModelError, ModelUnavailable, UsageError
from manylens.models import prompts
from manylens.models.prompts_writing import understand

pytest.importorskip("openai")

from manylens.models.openai_compatible import client, endpoint
from manylens.models.openai_compatible.addresses import OPENAI_URL
from manylens.models.openai_compatible.endpoint import Endpoint
from manylens.models.openai_compatible.faults import MAX_WAIT_S, retry_after
from manylens.models.openai_compatible.replies import answer_logprobs, answer_text, counted_usage, embedding_rows

NESTED = "[" * 100_000 + "]" * 100_000


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "MANYLENS_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


# Bodies


def gzip_bomb(request: bytes, send: Send) -> None:
    send(head(Content_Encoding="gzip") + _bomb())


@functools.cache
def _bomb() -> bytes:
    """1 GiB of blanks in a megabyte."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(1024)) + packer.flush()


def endless(request: bytes, send: Send) -> None:
    send(head())
    for _ in range(10_000):
        send(b" " * (1 << 20))


def a_byte_a_second(request: bytes, send: Send) -> None:
    send(head())
    for _ in range(100):
        send(b" ")
        time.sleep(0.2)


def headers_without_end(request: bytes, send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\n")
    for number in range(1000):
        send(f"X-{number}: 1\r\n".encode())
        time.sleep(0.05)


def event_stream(request: bytes, send: Send) -> None:
    send(head().replace(b"application/json", b"text/event-stream"))
    for _ in range(1000):
        send(b'data: {"choices": []}\n\n')
        time.sleep(0.05)


def nested(request: bytes, send: Send) -> None:
    send(head() + b'{"choices": ' + NESTED.encode() + b"}")


def rather_nested(request: bytes, send: Send) -> None:
    send(head() + b'{"choices": ' + b"[" * 200 + b"]" * 200 + b"}")


def long_number(request: bytes, send: Send) -> None:
    send(head() + b'{"choices": ' + b"9" * 5000 + b"}")


def brackets_in_an_error(request: bytes, send: Send) -> None:
    send(head(400) + json.dumps({"error": {"message": "<" * 1_000_000, "code": "<" * 1_000_000}}).encode())


def late(request: bytes, send: Send) -> None:
    send(head(503, Retry_After="Fri, 31 Dec 99999 23:59:59 GMT") + b"{}")


def not_utf8(request: bytes, send: Send) -> None:
    send(head() + b'{"choices": "\xff\xfe"}')


HOSTILE: dict[str, Answer] = {one.__name__: one for one in (
    gzip_bomb, endless, a_byte_a_second, headers_without_end, event_stream, nested, rather_nested, long_number,
    brackets_in_an_error, late, not_utf8,
)}  # fmt: skip


@pytest.mark.parametrize("way", ["ask", "ask_now"])
@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_reply_is_an_explained_error(answer: Answer, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "CONNECT_TIMEOUT_S", 1.0)
    monkeypatch.setattr(client, "MOST_REPLY_BYTES", 8 << 20)
    with serve(answer) as (url, _):
        one = Endpoint(url, "fake", 1.0)
        began = time.monotonic()
        with pytest.raises(ModelError):
            if way == "ask":
                asyncio.run(one.ask("/chat/completions", {"model": "fake"}))
            else:
                one.ask_now("/chat/completions", {"model": "fake"})
        assert time.monotonic() - began < 20


MEASURE = """
import asyncio, resource, sys
from manylens.errors import ModelError
from manylens.models.openai_compatible.addresses import OPENAI_URL
from manylens.models.openai_compatible.endpoint import Endpoint
import openai
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    Endpoint(sys.argv[1], "fake", 60.0).ask_now("/chat/completions", {"model": "fake"})
except ModelError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("answer", [gzip_bomb, endless])
def test_a_body_without_end_takes_no_more_memory_than_a_large_reply(answer: Answer) -> None:
    with serve(answer) as (url, _):
        done = subprocess.run([sys.executable, "-c", MEASURE, url], capture_output=True, text=True, timeout=120)
        assert int(done.stdout) < 300 << 10, "KiB"


def test_nothing_follows_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("MANYLENS_API_KEY", "sk-secret-0123456789")
    with serve(lambda request, send: send(head() + b"{}")) as (elsewhere, seen):

        def away(request: bytes, send: Send) -> None:
            send(head(307, Location=f"{elsewhere}/chat/completions"))

        with serve(away) as (url, asked):
            with pytest.raises(ModelUnavailable, match="leads elsewhere") as raised:
                Endpoint(url, "fake", 5.0).ask_now("/chat/completions", {"picture": "data:image/jpeg;base64,AAAA"})
            assert len(asked) == 1
    assert seen == []
    assert "secret" not in str(raised.value)


def test_ctrl_c_ends_the_probe_of_a_server_that_drips(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 3)
    with serve(a_byte_a_second) as (url, asked):
        command = [sys.executable, "-m", "manylens", "cluster", str(tmp_path / "pictures"), "--by", "color"]
        process = subprocess.Popen(
            [*command, "--model", "fake", "--base-url", url, "--timeout", "60", "--out", str(tmp_path / "out")],
            stderr=subprocess.PIPE,
            text=True,
        )
        while not asked:
            time.sleep(0.05)
        process.send_signal(2)
        process.communicate(timeout=60)
        assert process.returncode == 130


# What is in a reply


NUMBERS: list[Any] = [
    10**400, -(10**400), 10**19, float("inf"), float("-inf"), float("nan"), 1e308, -1, 0, 1e-320, 2**63, True, None,
    "9" * 5000, "1e999", [], {}, [[1]], "\ud800", "\x00",
]  # fmt: skip


def readings(text: str) -> list[Callable[[], object]]:
    """Every way in which the text of a reply is read."""
    tasks = [
        task_of("vocabulary", {"descriptions": ["a"]}),
        task_of("name_clusters", {"clusters": [{"id": 1, "size": 3, "descriptions": {"red": 3}}]}),
        task_of("reconcile", {"categories": [{"id": 1, "name": "a"}]}),
    ]
    return [
        lambda: prompts.parse_look(text),
        lambda: prompts.parse_judge(text),
        lambda: prompts.parse_choice(text, 3),
        lambda: prompts.parse_letter(text, 3),
        lambda: prompts.parse_word(text),
        lambda: prompts.parse_plain_look(text),
        *(lambda task=task: understand(text, task) for task in tasks),
        lambda: prompts.said_before(text),
    ]


def check_text(text: str) -> None:
    for read in readings(text):
        try:
            found = read()
        except prompts.ReplyProblem:
            continue
        if isinstance(found, prompts.Described):
            assert 0 <= found.confidence <= 1
            assert 0 < len(found.description) <= prompts.MAX_DESCRIPTION_CHARACTERS
        elif isinstance(found, prompts.Chosen):
            assert sum(found.probabilities) == pytest.approx(1)
        elif isinstance(found, prompts.Judged):
            assert 0 <= found.probability <= 1


def check_reply(reply: dict[str, Any]) -> None:
    try:
        text = answer_text(reply)
    except ModelError:
        text = ""
    check_text(text)
    tokens = answer_logprobs(reply)
    for chosen in (prompts.choice_probabilities(tokens, 3), prompts.choice_probabilities(tokens, 20)):
        assert chosen is None or sum(chosen) == pytest.approx(1)
    for share in (prompts.yes_probability(tokens), prompts.joint_probability(tokens)):
        assert share is None or 0 <= share <= 1
    usage = counted_usage(reply)
    assert (
        usage is None or 0 <= min(usage.tokens_in, usage.tokens_out) <= max(usage.tokens_in, usage.tokens_out) <= 2**53
    )
    try:
        rows = embedding_rows(reply, 1)
    except ValueError:
        return
    assert rows.shape[0] == 1


@pytest.mark.parametrize(
    "number", NUMBERS, ids=[str(number)[:12].encode("ascii", "replace").decode() for number in NUMBERS]
)
def test_an_odd_value_anywhere_in_a_reply_is_an_unusable_answer_at_most(number: Any) -> None:
    for text in (
        json.dumps({"description": "red", "confidence": number}),
        json.dumps({"description": number, "confidence": 0.5}),
        json.dumps({"belongs": number, "confidence": number, "reason": number}),
        json.dumps({"choice": number, "confidence": number, "reason": number}),
        json.dumps({"choice": "A", "confidence": number}),
        json.dumps({"clusters": [{"id": number, "name": number, "definition": number}]}),
        json.dumps({"clusters": number, "categories": number, "groups": number, "no_answer": number}),
        json.dumps({"categories": [{"name": "a", "descriptions": [number]}], "no_answer": [number]}),
        json.dumps({"groups": [{"name": "a", "ids": [number]}]}),
        json.dumps({"groups": [number], "categories": [number], "clusters": [number], "no_answer": []}),
    ):
        check_text(text)
    entry = {"token": "A", "logprob": number, "top_logprobs": [{"token": "Yes", "logprob": number}]}
    message: Any
    for message in ({"content": "A"}, {"content": number}, {"content": [{"text": number}, number]}, number):
        check_reply(
            {
                "choices": [{"message": message, "finish_reason": number, "logprobs": {"content": [entry, number]}}],
                "usage": {"prompt_tokens": number, "completion_tokens": number},
                "data": [{"index": number, "embedding": [number, 1.0]}],
            }
        )
    check_reply({"choices": number, "usage": number, "data": number, "error": number})
    check_reply({"choices": [{"logprobs": {"content": [entry]}}], "data": [{"embedding": number}]})


@pytest.mark.parametrize(
    "text",
    [NESTED, '{"description": ' + NESTED, "{" * 100_000, '{"a":' * 100_000, "<think>" * 100_000, " " * 1_000_000,
     "```json" * 50_000, "none " * 200_000, "\\u0000" * 100_000, "A" + "." * 1_000_000, '{"' + "\\" * 1_000_000],
    ids=lambda text: text[:10],
)  # fmt: skip
def test_endless_text_is_read_in_bounded_time(text: str) -> None:
    began = time.monotonic()
    check_text(text)
    assert time.monotonic() - began < 20


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(NUMBERS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(
        ["choices", "message", "content", "logprobs", "top_logprobs", "token", "logprob", "usage", "data", "embedding",
         "index", "description", "confidence", "belongs", "choice", "clusters", "id", "name", "groups", "ids",
         "categories", "descriptions", "no_answer", "text", "refusal"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.fuzz
@settings(max_examples=int(os.environ.get("MANYLENS_FUZZ", "150")), deadline=None)
@given(JSON, st.text(max_size=20))
def test_no_reply_ends_a_run(value: Any, around: str) -> None:
    check_text(around + json.dumps(value, default=str) + around)
    check_text(around)
    if isinstance(value, dict):
        check_reply(value)


@pytest.mark.parametrize(
    "said",
    ["Fri, 31 Dec 99999 23:59:59 GMT", "9" * 500, "1e999", "nan", "-5", "\x00", "Fri, 99 Foo 2024 99:99:99 +9999"],
)
def test_an_odd_wait_is_none_or_bounded(said: str) -> None:
    wait = retry_after({"retry-after": said})
    assert wait is None or 0 <= wait <= MAX_WAIT_S


# The environment


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MANYLENS_API_KEY", "“sk-test-0123456789”", "left double quotation mark"),
        ("MANYLENS_API_KEY", "sk-test-0123\xa0456789", "no-break space"),
        ("MANYLENS_API_KEY", "sk—test-0123456789", "em dash"),
        ("MANYLENS_API_KEY", "sk-test-0123\n456789", "control character 10"),
        ("MANYLENS_API_KEY", '"sk-test-0123456789"', "stands in quotes"),
        ("ALL_PROXY", "socks4://127.0.0.1:9", "http, https or socks5"),
        ("HTTPS_PROXY", "http://[::1", "a proxy's address"),
        ("http_proxy", "http://127.0.0.1:99999", "a proxy's address"),
        ("SSL_CERT_FILE", "/no/such/file.pem", "there is nothing of the kind"),
        ("SSL_CERT_FILE", __file__, "cannot be read as such"),
        ("SSL_CERT_DIR", "/no/such/folder", "there is nothing of the kind"),
    ],
)
@pytest.mark.parametrize("command", ["doctor", "cluster"])
def test_a_variable_that_cannot_be_used_is_named_in_one_line(
    name: str, value: str, said: str, command: str, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "pictures", 3)
    arguments = [command] if command == "doctor" else [command, str(tmp_path / "pictures"), "--by", "color"]
    arguments += [] if command == "doctor" else ["--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "manylens", *arguments, "--model", "fake", "--base-url", "http://192.0.2.10:8000/v1"],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert name in line and said in line
    assert "0123" not in line and "456789" not in line, "a key is shown to nobody"
    assert not (tmp_path / "out").exists()


def test_organisation_and_project_go_to_openai_and_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYLENS_API_KEY", "sk-mine-0123456789")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-secret")
    with serve(lambda request, send: send(head() + b'{"data": []}')) as (url, seen):
        Endpoint(url, "fake", 5.0).ask_now("/models")
        Endpoint(url, "fake", 5.0).ask_now("/chat/completions", {})
    assert len(seen) == 2
    for request in seen:
        assert b"sk-mine" in request
        assert b"secret" not in request and b"penai-organization" not in request.lower()
    monkeypatch.setenv("OPENAI_ORG_ID", "org-é")
    with pytest.raises(UsageError, match="OPENAI_ORG_ID holds plain letters"):
        endpoint.check_variables(OPENAI_URL)
    endpoint.check_variables("http://127.0.0.1:9/v1")


def test_a_socks_proxy_without_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="ALL_PROXY names a SOCKS proxy"):
        client.check_environment()


def test_a_busy_reply_is_still_busy() -> None:
    """A control: the client that reads bodies itself passes on what it reads."""
    with serve(lambda request, send: send(head(503, Retry_After="7") + b'{"error": {"message": "full"}}')) as (url, _):
        with pytest.raises(ModelBusy, match="full") as raised:
            Endpoint(url, "fake", 5.0).ask_now("/models")
        assert raised.value.retry_after_s == 7
    packed = gzip.compress(b'{"data": []}')
    with serve(lambda request, send: send(head(Content_Encoding="gzip") + packed)) as (url, _):
        assert Endpoint(url, "fake", 5.0).ask_now("/models") == {"data": []}
