"""Servers as they are: limits, quotas, crashes, addresses, refusals, thoughts and contexts as users report them."""

from __future__ import annotations

import csv
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import _FAULTY, ChatServer, images_of, read_pixels, write_pictures
from served import (
    BLUE,
    LOOK,
    NAMES,
    YES,
    Drawn,
    at,
    bodies,
    no_keys_and_no_patience,  # noqa: F401  a fixture
    run,
)

import manylens
from manylens.cli import main
from manylens.errors import (
    ModelBusy,
    ModelError,
    ModelReplyInvalid,
    ModelUnavailable,
    RequestTooLong,
    UsageError,
)
from manylens.models import prompts
from manylens.models.base import ModelOptions
from manylens.models.openai_compatible.addresses import clean_url, others
from manylens.models.openai_compatible.endpoint import Endpoint
from manylens.models.openai_compatible.faults import Asked, refusal, seconds_of
from manylens.models.openai_compatible.replies import answer_text
from manylens.models.refusals import refuses
from manylens.settings import Settings

pytestmark = pytest.mark.usefixtures("no_keys_and_no_patience")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures", 24)
    return tmp_path / "pictures"


def sort(pictures: Path, server: ChatServer, *arguments: str) -> int:
    command = ["cluster", str(pictures), "--by", "color", "--model", "fake", "--base-url", server.url]
    return main.run([*command, "--out", str(pictures.parent / "out"), *arguments])


def cells(pictures: Path, column: str) -> dict[str, str]:
    with open(pictures.parent / "out" / "color" / "assignments.csv", newline="") as file:
        return {row["image"]: row[column] for row in csv.DictReader(file)}


def names(pictures: Path) -> dict[str, str]:
    """The color that each picture's cluster is called after."""
    return {image: name.removesuffix(" things") for image, name in cells(pictures, "name").items()}


# Limits and quotas

PER_MINUTE = {
    "code": 429,
    "status": "RESOURCE_EXHAUSTED",
    "message": "You exceeded your current quota of 20 requests per minute; see plan and billing. Retry in 5.9s.",
    "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "6s"}],
}


def told(status: int, body: object, headers: dict[str, str] | None = None) -> ModelError:
    one = Endpoint("http://127.0.0.1:9/v1", "fake", 1.0)
    return refusal(Asked(one.host, one.url, "fake", "put the key"), status, body, headers or {}, one._said(body))


@pytest.mark.parametrize(
    ("body", "headers", "wait_s"),
    [
        ({"error": PER_MINUTE}, {}, 6),
        ([{"error": PER_MINUTE}], {}, 6),
        ({"message": PER_MINUTE["message"]}, {}, 5.9),
        ({"message": "Rate limit reached for gpt-4o on tokens per min (TPM). Please try again in 1m26.4s."}, {}, 86.4),
        ({"message": "Rate limit reached, please try again in 320ms. Visit billing to raise it"}, {}, 0.32),
        ({"message": "Requests have exceeded call rate limit. Please retry after 30 seconds."}, {}, 30),
        ({"message": "insufficient quota, credit"}, {"retry-after": "7"}, 7),
        ({"message": "quota"}, {"retry-after": "1m0s"}, 60),
        ({"message": "billing", "retry_after": 3}, {}, 3),
        ({"message": "Too many requests, your plan allows 20 requests per minute; upgrade billing"}, {}, None),
        ({"message": "slow down", "code": "rate_limit_exceeded"}, {}, None),
    ],
)
def test_a_limit_for_a_minute_is_waited_for_whatever_it_says_of_money(
    body: object, headers: dict[str, str], wait_s: float | None
) -> None:
    error = told(429, body, headers)
    assert isinstance(error, ModelBusy) and error.cause == "rate"
    assert error.retry_after_s == (None if wait_s is None else pytest.approx(wait_s))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, {"message": "You exceeded your current quota, please check your plan and billing details.",
               "type": "insufficient_quota", "code": "insufficient_quota"}),
        (429, {"message": "Your credit balance is too low"}),
        (429, [{"error": {"message": "insufficient balance: recharge your account"}}]),
        (402, {"message": "Payment required"}),
        (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low "
               "to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."}}),
        (403, {"error": {"message": "Key limit exceeded (monthly limit). See https://h/keys", "code": 403}}),
    ],
)  # fmt: skip
def test_an_account_without_credit_is_told_at_once(status: int, body: object) -> None:
    error = told(status, body)
    assert isinstance(error, ModelUnavailable)
    assert "no credit left" in str(error)


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        ({"message": "Rate limit exceeded: free-models-per-day"}, {}, "for today"),
        ({"message": "Quota exceeded: GenerateRequestsPerDayPerProjectPerModel-FreeTier"}, {}, "for today"),
        ({"message": "tokens per day (TPD): Limit 100000. Please try again in 5h12m3s."}, {}, "5 h 12 min"),
        ({"message": "You have reached your weekly usage limit."}, {}, "for today"),
        ({"message": "Too Many Requests: your 5-hour limit is used up"}, {}, "for today"),
        ({"message": "You exceeded your current quota. Please retry in 35.9s.", "details": [
            {"@type": "QuotaFailure", "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},
            {"@type": "RetryInfo", "retryDelay": "35s"}]}, {}, "for today"),
        ({"message": "limit"}, {"retry-after": "40000"}, "11 h 7 min"),
        ({"message": "limit"}, {"retry-after": "300000"}, "3 days 11 h"),
        ({"message": "limit", "metadata": {"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9e12"}}},
         {}, "7 days"),
    ],
)  # fmt: skip
def test_a_quota_of_hours_is_no_wait(body: object, headers: dict[str, str], said: str) -> None:
    error = told(429, body, headers)
    assert isinstance(error, ModelUnavailable)
    assert said in str(error) and "goes on from here" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (503, {"error": "Model Qwen/X is currently loading", "estimated_time": 20.5}, ModelBusy, "currently loading"),
        (400, {"error": "The model has crashed without additional information. (Exit code: 6)"}, ModelBusy, "crashed"),
        (400, {"error": "Model unloaded."}, ModelBusy, "unloaded"),
        (404, {"error": "No models loaded. Please load a model in the developer page."}, ModelUnavailable, "load fake"),
        (403, {"error": {"code": "unsupported_country_region_territory", "message": "Country not supported"}},
         ModelUnavailable, "Country not supported"),
        (403, {"error": {"code": "model_not_found", "message": "no access"}}, ModelUnavailable, "knows no model"),
        (407, "Proxy Authentication Required", ModelUnavailable, "HTTPS_PROXY=http://NAME:PASSWORD@"),
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, ModelError, "field required"),
    ],
)  # fmt: skip
def test_what_is_at_fault_is_told_from_a_server_s_own_words(
    status: int, body: object, kind: type[ModelError], said: str
) -> None:
    error = told(status, body)
    assert type(error) is kind and said in str(error)
    if status == 503:
        assert isinstance(error, ModelBusy) and error.retry_after_s == 20.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h2m3s", 3723), ("2 days and 3 hours", 183_600), ("90", None), ("250 milliseconds", 0.25), ("5min", 300),
     ("soon", None), ("9" * 50 + "s", None), ("1.5 s", 1.5)],
)  # fmt: skip
def test_durations_are_read(text: str, seconds: float | None) -> None:
    found = seconds_of(text)
    assert found is None or found < 1e15
    assert len(text) > 40 or found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("as_list", [False, True])
def test_a_run_waits_for_a_limit_of_a_minute_and_goes_on(
    pictures: Path, as_list: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    error: Any = {"error": {**PER_MINUTE, "details": [{"retryDelay": "0.05s"}]}}
    monkeypatch.setitem(_FAULTY, "429", (429, [error] if as_list else error))
    with ChatServer() as server:
        server.inject("429", 15, kind="look")
        assert sort(pictures, server) == 0
    assert set(names(pictures).values()) == {"red", "orange", "yellow"}


def test_a_quota_of_hours_ends_the_run_and_the_next_one_goes_on(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ChatServer(retry_after_s=20_000) as server:
        looked = iter(range(10**6))
        server.inject("429-wait", None, where=lambda kind, body: kind == "look" and next(looked) >= 10)
        assert sort(pictures, server, "--concurrency", "1") == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
        assert "come back in 5 h 33 min" in line and "it goes on from here" in line
        assert server.count("look") <= 12, "one may be on its way"
        before = server.count("look")
        server.heal()
        assert sort(pictures, server) == 0
        assert server.count("look") == before + 14, "nothing is asked twice"
        assert server.repeated() == {}


# Pictures that crash a server


def is_orange(kind: str, body: Any) -> bool:
    return kind == "look" and read_pixels(images_of(body)[-1])["color"] == "orange"


@pytest.mark.parametrize("fault", ["500", "reset", "error-200-busy"])
def test_a_picture_that_alone_breaks_the_server_is_given_up_named_and_left_out(
    pictures: Path, fault: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manylens.models.retrying.FIRST_BACKOFF_S", 0.02)
    with ChatServer() as server:
        server.inject(fault, None, where=is_orange)
        assert sort(pictures, server) == 1, "more than max_failed"
        said = capsys.readouterr()
        first = sum(is_orange(served.kind, served.body) for served in server.log if served.body)
        assert first <= 3 * 8
        assert server.count("look") <= first + 16 + 8, "at most one question more for each, to see whether others pass"
        assert "8 pictures given up" in said.err and "0001.png" in said.err and "--ask-again" in said.err
        found = names(pictures)
        assert {found[file] for file in found if int(file[:4]) % 3 != 1} == {"red", "yellow"}
        assert "fails on this alone, tried 3 times" in cells(pictures, "reason")["0001.png"]
        assert "127.0.0.1" not in cells(pictures, "reason")["0001.png"]

        before = server.count("look")
        assert sort(pictures, server) == 1
        assert server.count("look") == before, "it is not asked again"
        assert "8 pictures given up" in capsys.readouterr().err
        assert "fails on this alone, tried 3 times" in cells(pictures, "reason")["0001.png"]

        server.heal()
        assert sort(pictures, server, "--ask-again") == 0
        assert set(names(pictures).values()) == {"red", "orange", "yellow"}


def test_where_nobody_is_answered_no_picture_is_given_up(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FIRST_BACKOFF_S": 0.01, "LONGEST_BACKOFF_S": 0.01, "_DOWN_AFTER_S": 0.2}.items():
        monkeypatch.setattr(f"manylens.models.retrying.{name}", value)
    with ChatServer() as server:
        looked = iter(range(10**6))
        server.inject("500", None, where=lambda kind, body: next(looked) >= 12)
        sort(pictures, server, "--timeout", "0.5")
        server.heal()
        assert sort(pictures, server) == 0
        assert set(names(pictures).values()) == {"red", "orange", "yellow"}


# Addresses

ASTRAY = {
    "LM Studio": (200, '{"error": "Unexpected endpoint or method. (GET /chat/completions)"}'),
    "Ollama": (404, "404 page not found"),
    "FastAPI": (404, '{"detail": "Not Found"}'),
    "a web page": (200, "<html>Welcome</html>"),
    "a method": (405, '{"detail": "Method Not Allowed"}'),
}


@pytest.mark.parametrize("astray", ASTRAY.values(), ids=ASTRAY)
@pytest.mark.parametrize("path", ["", "/v1/chat/completions", "/api", "/v1/models/"])
def test_an_address_nearly_right_is_told_with_the_one_that_would_do(astray: tuple[int, str], path: str) -> None:
    with ChatServer(astray=astray) as server:
        wrong = server.url.removesuffix("/v1") + path
        with pytest.raises(ModelUnavailable) as caught:
            Endpoint(wrong, "fake", 5.0)
            at_url(wrong)
        assert str(caught.value).endswith(f"one does at {server.url}: pass --base-url {server.url}")


def at_url(url: str) -> None:
    from manylens.models.openai_compatible.model import OpenAICompatible

    OpenAICompatible("fake", "fake", Drawn(), ModelOptions(base_url=url, timeout_s=5.0))


def test_another_scheme_is_tried_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYLENS_API_KEY", "sk-secret-0123456789")
    with ChatServer(astray=ASTRAY["Ollama"], key="sk-secret-0123456789") as server:
        with pytest.raises(ModelUnavailable, match="one does at http://127"):
            at_url(server.url.replace("http://", "https://"))
        assert [served.status for served in server.log if served.path == "/v1/models"] == [401]


def test_where_no_address_would_do_the_first_problem_is_told() -> None:
    with ChatServer(astray=ASTRAY["Ollama"], lists_models=False) as server:
        with pytest.raises(ModelUnavailable, match="lacks what was asked for"):
            at_url(server.url + "/elsewhere")
        assert len(server.log) <= 12


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("localhost:1234", "http://localhost:1234"),
        ("api.example.org/v1", "https://api.example.org/v1"),
        ("htp://box:80/v1", "http://box:80/v1"),
        ("http:/box:80/v1", "http://box:80/v1"),
        ("//box:80/v1", "http://box:80/v1"),
        ("https:api.example.org", "https://api.example.org"),
    ],
)
def test_an_address_without_a_scheme_is_guessed(typed: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        clean_url(typed)
    assert caught.value.hint == f"is it {meant}?"


@pytest.mark.parametrize("typed", ["", " ", "http://", "://", "@", "a b", "http://[::1", "x" * 5000, "http://a:b:c"])
def test_what_is_no_address_is_not_guessed(typed: str) -> None:
    with pytest.raises(UsageError):
        clean_url(typed)


def test_what_is_copied_around_an_address_is_left_out() -> None:
    assert clean_url("\u201chttp://Box:80//v1/\u201d ") == "http://box:80/v1"
    assert "http://box:80/v1" in list(others("http://box:80/v1/chat/completions", unheard=False))


# Refusals in good JSON

REFUSALS = [
    "I'm sorry, but I can't help with that.", "I’m sorry, I can’t assist with that request.",
    "I cannot identify people in images", "Unable to comply with the request", "As an AI, I cannot describe",
    "I'm unable to assist with identifying real people.", "I must decline", "Tut mir leid, dabei kann ich nicht helfen",
    "Désolé, je ne peux pas vous aider", "抱歉，我无法协助处理该请求", "Lo siento, no puedo ayudar con eso",
]  # fmt: skip
ANSWERS = [
    "cannot tell", "no face visible", "sorry card", "I'm sorry greeting card", "can't see any hat", "helping a child",
    "unable to determine", "sorry, we are closed", "person assisting another", "i can't see a person", "no hat",
]  # fmt: skip


def test_refusals_are_told_from_answers() -> None:
    assert [words for words in REFUSALS if not refuses(words)] == []
    assert [words for words in ANSWERS if refuses(words)] == []


@pytest.mark.parametrize("kind", ["all it could offer", "plain words"])
def test_a_refusal_within_a_good_form_is_a_failure_of_that_picture(pictures: Path, kind: str) -> None:
    from served import SERVERS

    says = lambda words, seen: "I'm sorry, but I can't help with that." if seen["color"] == "orange" else words  # noqa: E731
    with ChatServer(**SERVERS[kind], says=says) as server:
        assert sort(pictures, server, "--max-failed", "0.9") == 0
        probed = 1 if kind == "plain words" else 0
        assert server.count("look") == 24 + probed, "nothing is there to mend"
    reasons = cells(pictures, "reason")
    assert set(names(pictures).values()) == {"red", "yellow", ""}
    assert "refuses to speak" in reasons["0001.png"]


def test_a_choice_that_refuses_is_none() -> None:
    says = lambda words, seen: "I'm sorry, I cannot assist with that"  # noqa: E731
    with ChatServer(logprobs="ignores", says=says) as server:
        refused, judged = run(at(server), BLUE, YES)
    assert type(refused) is type(judged) is ModelError


# Choices of small models


@pytest.mark.parametrize(
    ("reply", "chosen"),
    [
        ({"color": "Red"}, 0),
        ({"answer": "dark blue", "confidence": 0.7}, 1),
        ({"choice": "red", "confidence": 0.9}, 0),
        ({"group": "the red one", "reason": "dark blue is elsewhere"}, 0),
        ({"color": "green"}, None),
        ({"choice": "B", "confidence": 0.9, "reason": "red"}, 1),
        ({"choice": "Z", "confidence": 0.9, "color": "red"}, None),
    ],
)
def test_an_answer_that_says_what_is_seen_is_read_as_the_option_of_that_name(reply: Any, chosen: int | None) -> None:
    found = prompts.parse_choice(json.dumps(reply), 2, ["red", "dark blue"]).probabilities
    assert max(range(3), key=found.__getitem__) == (2 if chosen is None else chosen)
    assert sum(found) == pytest.approx(1)


@pytest.mark.parametrize(
    "reply", [{"color": "red or dark blue"}, {"a": "red", "b": "dark blue"}, {"a": "light blue"}, {}, {"a": 1}, []]
)
def test_an_answer_that_could_mean_several_options_is_to_be_mended(reply: Any) -> None:
    with pytest.raises(prompts.ReplyProblem):
        prompts.parse_choice(json.dumps(reply), 2, ["red", "dark blue"])


def test_where_no_choice_can_be_used_descriptions_alone_decide(pictures: Path) -> None:
    """Words of colors are near each other in the embedder's space: likeness alone would take all for one kind."""
    with ChatServer(embeddings="none") as server:
        for kind in ("choose", "vocabulary"):
            server.inject("prose", None, kind=kind)
        assert sort(pictures, server, "--max-failed", "1") == 0
    assert set(names(pictures).values()) == {"red", "orange", "yellow"}


# Thoughts


@pytest.mark.parametrize(
    ("hush", "found"),
    [
        (("chat_template_kwargs", {"enable_thinking": False}), "template"),
        (("reasoning_effort", "none"), "effort none"),
        (("reasoning_effort", "minimal"), "effort minimal"),
        (("reasoning", {"enabled": False}), "reasoning off"),
        (None, ""),
    ],
)
@pytest.mark.parametrize("think", [True, "field"])
def test_a_model_that_thinks_is_kept_from_it_where_that_can_be(hush: Any, found: str, think: Any) -> None:
    with ChatServer(think=think, hush=hush, thoughts=100) as server:
        model = at(server)
        assert (model.dialect.quiet, model.dialect.thinks) == (found, hush is None)
        replies = run(model, LOOK, YES, BLUE, NAMES)
        assert not [reply for reply in replies if isinstance(reply, ModelError)]
        assert replies[0].description == "red"
        assert all(hush is None or body[hush[0]] == hush[1] for body in bodies(server, "look"))


def test_an_answer_that_breaks_off_is_given_more_room_once() -> None:
    """A model that thinks on some pictures only: the probe saw nothing of it."""
    with ChatServer() as server:
        model = at(server)
        server.think, server.thoughts = "field", 5_000
        assert run(model, LOOK)[0].description == "red"
        first, second = bodies(server, "look")
        assert second["messages"] == first["messages"] and second["max_tokens"] > 5_000
        server.thoughts = 10**6
        (reply,) = run(model, LOOK)
        assert isinstance(reply, ModelReplyInvalid)
        assert "broke off its answer twice" in str(reply) and "turn its thinking off" in str(reply)
        assert server.count("look") == 4


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None, "reasoning_content": '{"description": "red"}'}, '{"description": "red"}'),
        ({"content": "", "reasoning": 'maybe {"a": 1}? </think> red'}, " red"),
        ({"content": "", "reasoning": 'So: {"a": 1}\n'}, '{"a": 1}\n'),
        ({"content": "", "reasoning_content": "well, well"}, ""),
        ({"content": "blue", "reasoning_content": '{"a": 1}'}, "blue"),
        ({"content": "", "reasoning_content": 7}, ""),
    ],
)  # fmt: skip
def test_an_answer_that_went_into_the_thoughts_is_found_there(message: Any, text: str) -> None:
    assert answer_text({"choices": [{"message": message, "finish_reason": "stop"}]}) == text
    if not message["content"]:
        assert answer_text({"choices": [{"message": message, "finish_reason": "length"}]}) == "", "half a thought"


# Contexts


@pytest.mark.parametrize(("context", "px"), [(9_000, 256), (1_500, 128), (500, None)])
def test_where_a_comparison_is_too_long_less_is_shown_and_that_is_said_once(context: int, px: int | None) -> None:
    with ChatServer() as server:
        model = at(server, Drawn(256))
        said: list[str] = []
        model.on_notice = said.append
        server.context = context
        first, second, named = run(model, BLUE, BLUE, NAMES)
        assert first.chosen == second.chosen == 1
        shown = [len(images_of(body)) for body in bodies(server, "choose")]
        assert len(said) == (px != 256)
        assert shown == ({256: [3, 3], 128: [3, 3, 3]}.get(px or 0) or [3, 3, 1, 1]), "what failed is not tried again"
        assert not isinstance(named, ModelError)


def test_what_is_too_long_without_a_picture_to_leave_out_fails() -> None:
    with ChatServer() as server:
        model = at(server)
        server.context = 10
        look, choice = run(model, LOOK, BLUE)
    assert type(look) is type(choice) is RequestTooLong
    assert "--image-px" in str(look)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "This model's maximum context length is 4096 tokens. However, you requested 5000"),
        (400, "the request exceeds the available context size, try increasing it"),
        (400, "Input length 9000 exceeds the model's context window"),
        (500, "prompt is too long: n_ctx 2048"),
        (413, "Payload Too Large"),
        (422, "inputs tokens + max_new_tokens must be <= 4096: too many tokens"),
        (400, "This model's maximum prompt length is 131072 but the request contains 200000 tokens."),
        (422, "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000"),
        (400, "messages.0.content.1.image.source.base64: image exceeds 5 MB maximum: 6291456 bytes > 5242880 bytes"),
        (400, "At most 1 image(s) may be provided in one request."),
        (400, "Too many images in request (limit 5)"),
    ],
)
def test_a_request_that_is_too_long_is_known_by_its_words(status: int, message: str) -> None:
    assert isinstance(told(status, {"message": message}), RequestTooLong)


# Money


PRICES: dict[str, Any] = {"price_in": 2.0, "price_out": 8.0}


def spend(pictures: Path, server: ChatServer, out: str, budget_usd: float | None = None) -> manylens.Result:
    return manylens.cluster(
        pictures,
        by="color",
        model="fake",
        options=ModelOptions(base_url=server.url),
        out=pictures.parent / out,
        settings=Settings(budget_usd=budget_usd, **PRICES),
    )


def test_a_small_limit_buys_what_it_can(pictures: Path) -> None:
    """Five cents, and no slack: reserves shrink to what calls really cost, from the first one on."""
    with ChatServer(embeddings="none") as server:
        free = spend(pictures, server, "free")
        (_, vain_in, vain_out), tokens = free.in_vain, free.calls.tokens
        usd = Settings(**PRICES).cost_usd(tokens.tokens_in + vain_in, tokens.tokens_out + vain_out)
        assert usd < 0.06
        limited = spend(pictures, server, "limited", 1.5 * usd)
        assert not limited.is_partial
        assert limited["color"].labels == free["color"].labels
        server.counts = lambda usage: None
        with pytest.raises(ModelError, match="is spent"):
            spend(pictures, server, "uncounted", 1.5 * usd)


# SOCKS


@pytest.fixture
def socks() -> Iterator[tuple[str, list[int]]]:
    """A SOCKS5 proxy without a password: its address, and the ports that it connected to."""
    listener = socket.create_server(("127.0.0.1", 0))
    ports: list[int] = []

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def one(client: socket.socket) -> None:
        with client:
            client.recv(2 + 255)
            client.sendall(b"\x05\x00")
            request = client.recv(300)
            port = int.from_bytes(request[-2:], "big")
            ports.append(port)
            with socket.create_connection(("127.0.0.1", port)) as server:
                client.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01" + request[-2:])
                back = threading.Thread(target=pump, args=(server, client), daemon=True)
                back.start()
                pump(client, server)
                back.join()

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"socks5://127.0.0.1:{listener.getsockname()[1]}", ports
    listener.close()


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "HTTP_PROXY"])
def test_a_socks_proxy_is_gone_through(
    socks: tuple[str, list[int]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("socksio")
    for other in ("ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
    proxy, ports = socks
    monkeypatch.setenv(name, proxy)
    with ChatServer() as server:
        url = f"http://models.example:{server.port}/v1"  # a name that the proxy alone knows
        assert Endpoint(url, "fake", 5.0).ask_now("/models")["data"]
    assert ports == [server.port]
