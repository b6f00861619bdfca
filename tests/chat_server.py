"""An OpenAI-compatible server for tests: it answers by reading the pixels it is sent, keeps count, and fails on demand.

In: HTTP on 127.0.0.1 (`/v1/models`, `/v1/chat/completions`, `/v1/embeddings`). Out: replies that are right about the
pictures of `draw`, in whichever dialect the server is told to speak, except where a fault is injected. Promise: same
request, same reply; every request is in `log`, and `answered` counts the good answers per request, so that a test can
prove that nothing was asked twice.

By hand: `python tests/chat_server.py --port 8000 --pictures DIR` draws some pictures, then serves until interrupted.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from chat_writer import WRITES, write
from PIL import Image as PillowImage
from PIL import ImageDraw

PALETTE = {
    "red": (214, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (250, 220, 40),
    "green": (40, 160, 70),
    "blue": (40, 80, 200),
    "purple": (130, 50, 170),
}
SHAPES = ("square", "circle", "triangle")
EMBEDDING_WIDTH = 64

Fault: TypeAlias = Literal[
    "429",  # too many requests, without Retry-After
    "429-wait",  # the same, with Retry-After: `retry_after_s`
    "quota",  # 429 that no waiting cures: insufficient_quota
    "500",
    "503",
    "reset",  # the connection breaks in the middle of the body
    "hang",  # nothing for `hang_s`
    "not-json",  # a 200 whose body is a web page
    "malformed",  # the answer is JSON that breaks off
    "fenced",  # the answer is good JSON in a code fence
    "prose",  # the answer is a sentence
    "empty",  # the answer is ""
    "rambling",  # the answer is 10,000 tokens of talk
    "wrong-name",  # 404, as for a model that is gone
    "expired-key",  # 401
    "error-200",  # status 200 with an error in the body
    "error-200-busy",  # the same, for an overload
    "refused",  # 400: the picture breaks the provider's rules
    "no-logprobs",  # a good answer whose log-probabilities are missing
]


def draw(color: str, shape: str, number: int = 0, side_px: int = 64) -> PillowImage.Image:
    """A shape of one color on white; `number` moves and sizes it, so that files differ and truths do not."""
    side = side_px * 4
    picture = PillowImage.new("RGB", (side, side), "white")
    size = side * (0.45 + 0.02 * (number % 11))
    left = side * 0.05 + (side * 0.9 - size) * ((number * 7) % 13) / 12
    top = side * 0.05 + (side * 0.9 - size) * ((number * 5) % 11) / 10
    box = (left, top, left + size, top + size)
    pen = ImageDraw.Draw(picture)
    if shape == "square":
        pen.rectangle(box, fill=PALETTE[color])
    elif shape == "circle":
        pen.ellipse(box, fill=PALETTE[color])
    else:
        pen.polygon([(left, top + size), (left + size, top + size), (left + size / 2, top)], fill=PALETTE[color])
    return picture.resize((side_px, side_px), PillowImage.Resampling.LANCZOS)


def write_pictures(folder: Path, count: int, colors: int = 3, shapes: int = 3) -> dict[str, dict[str, str]]:
    """Draw `count` pictures into `folder`, with labels.csv beside it; file name -> {"color": ..., "shape": ...}."""
    folder.mkdir(parents=True, exist_ok=True)
    truth: dict[str, dict[str, str]] = {}
    names = list(PALETTE)[:colors]
    for number in range(count):
        color, shape = names[number % colors], SHAPES[(number // colors) % shapes]
        name = f"{number:04d}.png"
        picture = draw(color, shape, number)
        picture.putpixel((0, 0), (255, 255, 255 - number % 200))  # no two files are equal
        picture.putpixel((1, 0), (255, 255, 255 - number // 200))
        picture.save(folder / name)
        truth[name] = {"color": color, "shape": shape}
    rows = ["file,color,shape", *(f"{name},{of['color']},{of['shape']}" for name, of in truth.items())]
    (folder.parent / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return truth


@lru_cache(maxsize=4096)
def read_pixels(jpeg: bytes) -> Mapping[str, str]:
    """What a picture of `draw` (or one of a single color) shows: {"color": ..., "shape": ...}."""
    with PillowImage.open(io.BytesIO(jpeg)) as opened:
        pixels = np.asarray(opened.convert("RGB"), np.float32)
    inked = np.abs(pixels - 255).max(axis=2) > 100
    if not inked.any():
        return {"color": "white", "shape": "nothing"}
    mean = np.median(pixels[inked], axis=0)
    color = min(PALETTE, key=lambda name: float(np.abs(mean - np.array(PALETTE[name])).sum()))
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    share = float(inked.sum()) / float(area)
    shape = "square" if share > 0.9 else "circle" if share > 0.65 else "triangle"
    return {"color": color, "shape": shape}


@dataclass(frozen=True, slots=True)
class Served:
    """One request. key: SHA-256 of path and body. kind: models, embeddings, look, judge, choose, vocabulary, reconcile,
    names or question."""

    path: str
    kind: str
    key: str
    status: int
    fault: str | None
    images: int
    body: Any = field(repr=False)


@dataclass(slots=True)
class _Planned:
    fault: Fault
    times: int | None
    where: Callable[[str, Any], bool]


class ChatServer:
    """The server; use as a context manager. `url` is what `--base-url` takes.

    model: the names it serves. key: the key it wants, or None for any. structured: what it does with `response_format`.
    logprobs: honours, ignores or rejects them. embeddings: `text`, `messages` (chat messages with images too), `none`
    (404). embedding_model: the one model that embeds, or None for all. sees: pictures; `rejects` answers 400 to them,
    `ignores` answers as if there were none, `guesses` says green to all. writes_json: whether it can when told to.
    most_images: more in one request is a 400.
    reasoning: rejects `max_tokens`, `temperature` and `logprobs` as OpenAI's reasoning models do. think: puts its
    thoughts into the answer, with "field" into a field of their own; hush: (name, value) of what keeps it from that.
    thoughts: tokens that thinking takes, and without so much room the answer is empty. context: tokens, a picture being
    one for each 100 pixels, beyond which a request is refused. astray: what it answers at a path that is none of its
    own, as some servers do. delay_s: what every answer takes. says: (description or reason, what the picture shows) ->
    what is served instead. synonyms: folded description -> the category that it writes for it. counts: what a chat
    request took -> the `usage` that is served; None leaves it out.
    """

    def __init__(
        self,
        *,
        models: tuple[str, ...] = ("fake",),
        key: str | None = None,
        structured: Literal["json_schema", "json_object", "ignores", "rejects"] = "json_schema",
        logprobs: Literal["honours", "ignores", "rejects"] = "honours",
        embeddings: Literal["text", "messages", "none"] = "text",
        embedding_model: str | None = None,
        sees: Literal["pictures", "rejects", "ignores", "guesses"] = "pictures",
        writes_json: bool = True,
        most_images: int = 99,
        reasoning: bool = False,
        think: bool | Literal["field"] = False,
        hush: tuple[str, Any] | None = None,
        thoughts: int = 0,
        context: int | None = None,
        astray: tuple[int, str] | None = None,
        lists_models: bool = True,
        delay_s: float = 0.0,
        hang_s: float = 5.0,
        retry_after_s: float = 0.05,
        says: Callable[[str, Mapping[str, str]], str] = lambda words, seen: words,
        synonyms: Mapping[str, str] | None = None,
        counts: Callable[[dict[str, int]], Any] = lambda usage: usage,
        port: int = 0,
    ) -> None:
        self.models, self.key = models, key
        self.structured, self.logprobs, self.embeddings = structured, logprobs, embeddings
        self.embedding_model, self.sees, self.most_images = embedding_model, sees, most_images
        self.reasoning, self.think, self.lists_models = reasoning, think, lists_models
        self.writes_json = writes_json
        self.hush, self.thoughts, self.context, self.astray = hush, thoughts, context, astray
        self.delay_s, self.hang_s, self.retry_after_s, self.says = delay_s, hang_s, retry_after_s, says
        self.synonyms, self.counts = synonyms or {}, counts
        self.log: list[Served] = []
        self.answered: Counter[str] = Counter()
        """Good answers to chat requests, by key of the request."""
        self.max_concurrency = 0
        self._planned: list[_Planned] = []
        self._under_way = 0
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._http = _Server(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="chat server", daemon=True)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()

    def inject(
        self,
        fault: Fault,
        times: int | None = 1,
        *,
        kind: str | None = None,
        where: Callable[[str, Any], bool] | None = None,
    ) -> None:
        """Answer the next `times` requests (None: all) of this kind, or for which `where(kind, body)`, with a fault."""

        def chosen(of: str, body: Any) -> bool:
            wanted = of not in ("models", "embeddings") if kind is None else of == kind
            return wanted and (where is None or where(of, body))

        with self._guard:
            self._planned.append(_Planned(fault, times, chosen))

    def heal(self) -> None:
        """No more faults."""
        with self._guard:
            self._planned.clear()

    def count(self, kind: str) -> int:
        """Requests of one kind so far, faulty ones included."""
        with self._guard:
            return sum(served.kind == kind for served in self.log)

    def repeated(self) -> dict[str, int]:
        """Chat requests whose good answer was served more than once. Embeddings are not counted: two pictures of one
        description have one, which a later process asks for again."""
        return {key: times for key, times in self.answered.items() if times > 1}

    def _next_fault(self, kind: str, body: Any) -> Fault | None:
        with self._guard:
            for planned in self._planned:
                if planned.times != 0 and planned.where(kind, body):
                    if planned.times is not None:
                        planned.times -= 1
                    return planned.fault
        return None

    def _enter(self) -> None:
        with self._guard:
            self._under_way += 1
            self.max_concurrency = max(self.max_concurrency, self._under_way)

    def _leave(self) -> None:
        with self._guard:
            self._under_way -= 1

    def _record(self, served: Served, good: bool) -> None:
        with self._guard:
            self.log.append(served)
            if good and served.kind not in ("models", "embeddings"):
                self.answered[served.key] += 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 2048

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "invalid_request_error") -> None:
        self.status = status
        self.body = {"error": {"message": message, "type": code, "code": code}}


_FAULTY: dict[Fault, tuple[int, dict[str, Any]]] = {
    "429": (429, {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}),
    "429-wait": (429, {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}),
    "quota": (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}),
    "500": (500, {"error": {"message": "The server had an error"}}),
    "503": (503, {"error": {"message": "The engine is overloaded"}}),
    "wrong-name": (404, {"error": {"message": "The model `fake` does not exist", "code": "model_not_found"}}),
    "expired-key": (401, {"error": {"message": "Incorrect API key provided: sk-secret", "code": "invalid_api_key"}}),
    "error-200": (200, {"error": {"message": "Provider returned error", "code": 400}}),
    "error-200-busy": (200, {"error": {"message": "Provider is overloaded", "code": 502}}),
    "refused": (400, {"error": {"message": "Rejected by the safety system", "code": "content_policy_violation"}}),
}


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._serve("models" if self.path.endswith("/models") else "unknown", None)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            kind = "embeddings" if self.path.endswith("/embeddings") else kind_of(body)
            self._serve(kind, body)

        def _serve(self, kind: str, body: Any) -> None:
            server._enter()
            try:
                self._answer(kind, body)
            finally:
                server._leave()

        def _answer(self, kind: str, body: Any) -> None:
            canonical = json.dumps([self.path, body], sort_keys=True)
            key = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
            fault = server._next_fault(kind, body)
            headers: dict[str, str] = {}
            if kind not in ("models", "unknown") and server.delay_s:
                server._stopping.wait(server.delay_s)
            if server.astray and self.path not in _PATHS:
                self._say(*server.astray)
                return
            if fault in _FAULTY:
                status, reply = _FAULTY[fault]
                if fault == "429-wait":
                    headers["Retry-After"] = str(server.retry_after_s)
            elif fault == "hang":
                status, reply = 200, {}
            else:
                try:
                    authorised = server.key is None or self.headers.get("Authorization") == f"Bearer {server.key}"
                    if not authorised:
                        raise _Refusal(401, "Incorrect API key provided", "invalid_api_key")
                    status, reply = 200, _reply(server, self.path, kind, body, fault)
                except _Refusal as refusal:
                    status, reply = refusal.status, refusal.body
            # Counted before it is sent: who has the answer must find it counted.
            good = status == 200 and fault in (None, "fenced", "no-logprobs")
            images = 0 if body is None else len(images_of(body))
            server._record(Served(self.path, kind, key, status, fault, images, body), good)
            if fault == "hang":
                server._stopping.wait(server.hang_s)
                self.close_connection = True
                return
            payload = b"<html>Welcome</html>" if fault == "not-json" else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if fault == "not-json" else "application/json")
            self.send_header("Content-Length", str(len(payload)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if fault == "reset":
                self.wfile.write(payload[: len(payload) // 2])
                self.wfile.flush()
                # Linger of zero seconds: closing sends a reset instead of a polite end.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            self.wfile.write(payload)

        def _say(self, status: int, text: str) -> None:
            server._record(Served(self.path, "unknown", "", status, None, 0, None), False)
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if text.startswith("{") else "text/html")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

    return Handler


_PATHS = ("/v1/models", "/v1/chat/completions", "/v1/embeddings")


def parts_of(body: Any) -> list[dict[str, Any]]:
    """All content parts of all messages, in order."""
    parts: list[dict[str, Any]] = []
    for message in body.get("messages") or ():
        content = message["content"]
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return parts


def images_of(body: Any) -> list[bytes]:
    """The pictures of a request, in order."""
    urls = [part["image_url"]["url"] for part in parts_of(body) if part["type"] == "image_url"]
    return [base64.b64decode(url.partition(";base64,")[2]) for url in urls]


def text_of(body: Any) -> str:
    return "\n".join(part["text"] for part in parts_of(body) if part["type"] == "text")


def kind_of(body: Any) -> str:
    """What a chat request asks for, from its words."""
    text = text_of(body)
    for kind, mark in WRITES.items():
        if mark in text:
            return kind
    if "The groups" in text:
        return "choose"
    if '"description"' in text or "one thing only" in text:
        return "look"
    return "judge" if "Group:" in text else "question"


def quoted(text: str, name: str) -> str:
    """The JSON string that follows `name: ` in a prompt; the last one counts."""
    found = re.findall(rf'{name}: ("(?:[^"\\]|\\.)*")', text)
    return str(json.loads(found[-1])) if found else ""


def _reply(server: ChatServer, path: str, kind: str, body: Any, fault: Fault | None) -> dict[str, Any]:
    if path.endswith("/models") and server.lists_models:
        return {"object": "list", "data": [{"id": name, "object": "model"} for name in server.models]}
    if path.endswith("/embeddings"):
        return _embed(server, body)
    if not path.endswith("/chat/completions"):
        raise _Refusal(404, f"no such page: {path}")
    if body.get("model") not in server.models:
        raise _Refusal(404, f"The model `{body.get('model')}` does not exist", "model_not_found")
    _check(server, body)
    content = _content(server, kind, body, fault)
    message = {"role": "assistant", "content": content}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
    if _thinks(server, body):
        if server.think == "field":
            message["reasoning_content"] = "The picture is, well."
        if body.get("max_tokens", body.get("max_completion_tokens", 0)) < server.thoughts:
            message["content"], choice["finish_reason"] = "", "length"
    if body.get("logprobs") and server.logprobs == "honours" and fault != "no-logprobs":
        choice["logprobs"] = _logprobs(content, body.get("top_logprobs", 0))
    usage = {"prompt_tokens": 100 * len(images_of(body)) + len(text_of(body)) // 4, "completion_tokens": 8}
    reply = {"id": "x", "object": "chat.completion", "model": body["model"], "choices": [choice]}
    return reply if (told := server.counts(usage)) is None else {**reply, "usage": told}


def _thinks(server: ChatServer, body: Any) -> bool:
    return bool(server.think) and (server.hush is None or body.get(server.hush[0]) != server.hush[1])


def _check(server: ChatServer, body: Any) -> None:
    images = len(images_of(body))
    if server.context is not None:
        sizes = [PillowImage.open(io.BytesIO(jpeg)).size for jpeg in images_of(body)]
        tokens = sum(width * height // 100 for width, height in sizes) + len(text_of(body)) // 4
        if tokens > server.context:
            raise _Refusal(400, f"This model's maximum context length is {server.context}, you requested {tokens}")
    if images and server.sees == "rejects":
        raise _Refusal(400, "image input is not supported by this model")
    if images > server.most_images:
        raise _Refusal(400, f"At most {server.most_images} image(s) may be provided in one prompt.")
    if server.reasoning:
        for name, instead in {"max_tokens": "max_completion_tokens", "temperature": "1", "logprobs": "none"}.items():
            if body.get(name) is not None:
                raise _Refusal(400, f"Unsupported parameter: '{name}' is not supported. Use '{instead}' instead.")
    if body.get("logprobs") and server.logprobs == "rejects":
        raise _Refusal(400, "logprobs are not supported")
    if body.get("response_format") and server.structured == "rejects":
        raise _Refusal(400, "response_format is not supported")
    if (body.get("response_format") or {}).get("type") == "json_schema" and server.structured == "json_object":
        raise _Refusal(400, "response_format type json_schema is unavailable, use json_object")


def _content(server: ChatServer, kind: str, body: Any, fault: Fault | None) -> str:
    good = _good_content(server, kind, body)
    thoughts = (
        '<think>Yes or no? {"description": "hmm"} Let me look.</think>\n\n'
        if server.think is True and _thinks(server, body)
        else ""
    )
    match fault:
        case "malformed":
            return thoughts + '{"description": "red'
        case "fenced":
            return f"{thoughts}```json\n{good}\n```"
        case "prose":
            return f"{thoughts}Well, what a lovely picture this is."
        case "empty":
            return ""
        case "rambling":
            return "and then I thought about the picture " * 1500
        case _:
            return thoughts + good


def _good_content(server: ChatServer, kind: str, body: Any) -> str:
    text, pictures = text_of(body), images_of(body)
    if server.sees == "ignores":
        pictures = []
    seen = [read_pixels(picture) for picture in pictures]
    format_ = body.get("response_format") or {}
    honours = server.structured in ("json_schema", "json_object")
    schema = (format_.get("json_schema") or {}).get("schema") if honours else None
    if kind in WRITES:
        return write(kind, text, server.synonyms)
    if server.sees == "guesses":
        seen = [{"color": "green", "shape": "square"}]
    interest = quoted(text, "Interest") or quoted(text, "one thing only")
    attribute = next((name for name in ("color", "shape") if name in interest), "color")
    if kind == "look":
        words = server.says(seen[-1][attribute], seen[-1]) if seen else "a nice picture"
        if not server.writes_json:
            return f"{words.capitalize()}."
        return json.dumps({"description": words, "confidence": 0.9})
    if kind == "choose":
        return _choose(server, text, seen, attribute, in_json=schema is not None or '"choice"' in text)
    if kind == "judge":
        group = Counter(one[attribute] for one in seen[:-1]) or Counter([quoted(text, "Group")])
        yes = bool(seen) and group.most_common(1)[0][0] == seen[-1][attribute]
        if schema is not None or ('"belongs"' in text and server.writes_json):
            word = "yes" if yes else "no"
            reason = server.says(f"it is {word}", seen[-1]) if seen else ""
            return json.dumps({"belongs": word, "confidence": 0.9, "reason": reason})
        return "Yes" if yes else "No"
    if not seen:
        return json.dumps({"color": "I cannot see"}) if schema is not None else "I cannot see any picture."
    color = seen[-1]["color"]
    if "yes or no" in text:
        return "Yes." if color in text else "No."
    in_json = schema is not None or ("JSON" in text and server.writes_json)
    return json.dumps({"color": color}) if in_json else f"It is {color}."


def _choose(server: ChatServer, text: str, seen: list[Mapping[str, str]], attribute: str, *, in_json: bool) -> str:
    """By the pictures of the groups where it is shown them, else by their names; Z where none fits."""
    named = re.findall(r'^([A-T]): ("(?:[^"\\]|\\.)*")', text, re.MULTILINE)
    groups = [one[attribute] for one in seen[:-1]] or [json.loads(name) for _, name in named]
    fitting = [row for row, group in enumerate(groups) if seen and group == seen[-1][attribute]]
    letter = str(named[fitting[0]][0]) if fitting else "Z"
    if in_json and server.writes_json:
        reason = server.says(f"it is {letter}", seen[-1]) if seen else ""
        return json.dumps({"choice": letter, "confidence": 0.9, "reason": reason})
    return letter


def _logprobs(content: str, top: int) -> dict[str, Any]:
    """One entry a word; a yes or no is 9 to 1 against the other, in the spellings that tokenizers have; so is a letter
    against another one."""
    entries = []
    for word in re.findall(r"\s*\S+", content)[:200]:
        alternatives = [{"token": word, "logprob": float(np.log(0.9))}]
        if word.strip().lower() in ("yes", "no"):
            other = "No" if word.strip().lower() == "yes" else "Yes"
            alternatives = [
                {"token": word, "logprob": float(np.log(0.6))},
                {"token": " " + word.lower(), "logprob": float(np.log(0.3))},
                {"token": other, "logprob": float(np.log(0.1))},
            ]
        if re.fullmatch("[A-Z]", word):
            alternatives = [
                {"token": word, "logprob": float(np.log(0.6))},
                {"token": f" {word}", "logprob": float(np.log(0.3))},
                {"token": "B" if word == "A" else "A", "logprob": float(np.log(0.1))},
            ]
        entries.append({"token": word, "logprob": alternatives[0]["logprob"], "top_logprobs": alternatives[:top]})
    return {"content": entries}


def _embed(server: ChatServer, body: Any) -> dict[str, Any]:
    if server.embeddings == "none":
        raise _Refusal(404, "no such page: /v1/embeddings")
    if body.get("model") not in (server.models if server.embedding_model is None else (server.embedding_model,)):
        raise _Refusal(400, "This model does not support embeddings")
    if "messages" in body:
        if server.embeddings != "messages":
            raise _Refusal(400, "input is required")
        interest = quoted(text_of(body), "Interest")
        attribute = next((name for name in ("color", "shape") if name in interest), "color")
        seen = [read_pixels(picture) for picture in images_of(body)]
        inputs = [seen[-1][attribute] if seen else text_of(body)]
    else:
        inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
    data = [{"object": "embedding", "index": i, "embedding": embed_text(text)} for i, text in enumerate(inputs)]
    return {"object": "list", "model": body["model"], "data": data, "usage": {"prompt_tokens": 5, "total_tokens": 5}}


def embed_text(text: str) -> list[float]:
    """The sum of its words' vectors: texts that share words are near. Not of unit length, as some servers' are."""
    total = np.zeros(EMBEDDING_WIDTH)
    for word in re.findall(r"\w+", text.lower()) or [text]:
        seed = int.from_bytes(hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[:8], "big")
        total += np.random.default_rng(seed).standard_normal(EMBEDDING_WIDTH)
    return [float(value) for value in total.round(6)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key")
    parser.add_argument("--delay-s", type=float, default=0.0)
    parser.add_argument("--sees", default="pictures", choices=["pictures", "rejects", "ignores", "guesses"])
    parser.add_argument("--embeddings", default="text", choices=["text", "messages", "none"])
    parser.add_argument("--pictures", type=Path, help="draw 60 pictures into this folder first")
    given = parser.parse_args()
    if given.pictures:
        write_pictures(given.pictures, 60)
    with ChatServer(
        port=given.port, key=given.key, delay_s=given.delay_s, sees=given.sees, embeddings=given.embeddings
    ) as server:
        print(f"model fake at {server.url}", flush=True)
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            sys.stdout.write(f"{len(server.log):,} requests, {len(server.repeated()):,} answered more than once\n")


if __name__ == "__main__":
    main()
