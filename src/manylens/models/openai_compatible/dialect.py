"""What one model on one server can do: found out once by asking, recorded, and the same for all of a run.

In: an `Endpoint`. Out: a `Dialect`. Promise: probe, never assume (servers ignore what they do not know, silently); a
handful of small requests; a model that cannot be used is told by one line with the cure. The pictures are drawn here,
so the right answers are known.
"""

from __future__ import annotations

import base64
import dataclasses
import difflib
import hashlib
import io
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw

from manylens.errors import BudgetSpent, ModelBusy, ModelError, ModelUnavailable
from manylens.models import prompts
from manylens.models.base import MOST_EXEMPLARS, Capabilities
from manylens.models.metering import Bound, current_call
from manylens.models.openai_compatible.endpoint import Endpoint, Json, PageMissing
from manylens.models.openai_compatible.replies import (
    Vector,
    answer_logprobs,
    answer_text,
    counted_usage,
    embedding_rows,
    first_choice,
)
from manylens.models.text_embedder import TextEmbedder

EXEMPLARS_SHOWN = 3
"""Pictures of a cluster that a judge is shown before the candidate, where the model takes several."""

TOP_LOGPROBS = (20, 5)
"""Alternatives asked for, the most first: servers have different limits."""

ANSWER_TOKENS = {"look": 120, "judge": 160, "choose": 160, "word": 8, "nano": 10}
THINKING_TOKENS = 8192
"""Room for a model that thinks before it answers; the answer itself is as short as any other's."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """words: `json` where the model answers in JSON, `plain` where it cannot, `nano` for a served checkpoint of nano,
    which is asked in its own words. structured: which `response_format` the server honours. logprobs: alternatives per
    token to ask for, 0 where it gives none. pictures: how many one request may hold: those of a choice, those of a
    judgement, or 1.
    embeddings: `messages` embeds the picture under the interest, `text` the description, `local` means that the server
    embeds nothing and the description is embedded here. embedding_model: what embeds, of the server or here; "" with
    `local` stands for `embed_by_words`, as in run folders from before there was a text embedder. edge_scale,
    edge_offset: beta and b of the relational graph for these embeddings. limit: the field that bounds an answer.
    temperature: whether it may be set to 0. thinks: whether thoughts come before the answer.
    """

    words: Literal["json", "plain", "nano"] = "json"
    structured: Literal["json_schema", "json_object", "none"] = "none"
    logprobs: int = 0
    pictures: int = 1
    embeddings: Literal["messages", "text", "local"] = "local"
    embedding_model: str = ""
    edge_scale: float | None = None
    edge_offset: float | None = None
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: bool = True
    thinks: bool = False

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Records of earlier versions also say how many candidates a judgement may hold (`candidates`).

        Raises TypeError for values that no probe finds."""
        found = cls(**{name: value for name, value in values.items() if name != "candidates"})
        scale = (found.edge_scale, found.edge_offset)
        if not (
            found.words in ("json", "plain", "nano")
            and found.structured in ("json_schema", "json_object", "none")
            and found.embeddings in ("messages", "text", "local")
            and found.limit in ("max_tokens", "max_completion_tokens")
            and type(found.temperature) is type(found.thinks) is bool
            and type(found.logprobs) is type(found.pictures) is int
            and found.logprobs in (0, *TOP_LOGPROBS)
            and 1 <= found.pictures <= MOST_EXEMPLARS + 1
            and isinstance(found.embedding_model, str)
            and all(one is None or (type(one) in (int, float) and abs(one) < 1e6) for one in scale)
        ):
            raise TypeError("a record of a model holds what a probe finds")
        return found

    def tokens(self, answer: int) -> int:
        """The most that an answer of so many tokens may take."""
        return THINKING_TOKENS + answer if self.thinks else answer

    def chat(
        self,
        model: str,
        messages: Sequence[Json],
        tokens: int,
        *,
        schema: tuple[str, Mapping[str, Any]] | None = None,
        logprobs: bool = False,
    ) -> Json:
        """The body of one chat request in this dialect. schema: (name, JSON schema) of the wanted answer."""
        body: Json = {"model": model, "messages": list(messages)}
        body[self.limit] = self.tokens(tokens)
        if self.temperature:
            body["temperature"] = 0
        if schema is not None and self.structured == "json_schema":
            name, shape = schema
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": name, "strict": True, "schema": dict(shape)},
            }
        elif schema is not None and self.structured == "json_object":
            body["response_format"] = {"type": "json_object"}
        if logprobs and self.logprobs:
            body |= {"logprobs": True, "top_logprobs": self.logprobs}
        return body


# --- what a request holds ---------------------------------------------------------------------------------------------


def embedding_bound(body: Json, image_tokens: int) -> Bound:
    return Bound(
        "embedding", len(_words_of(body).encode("utf-8", "surrogatepass")), len(_pictures_of(body)), image_tokens
    )


def _words_of(body: Json) -> str:
    """All text of a request."""
    said = body.get("input", [])
    said = [said] if isinstance(said, str) else list(said)
    return "\n".join([*said, *(part["text"] for part in _parts_of(body) if part["type"] == "text")])


def _pictures_of(body: Json) -> list[Json]:
    return [part for part in _parts_of(body) if part["type"] == "image_url"]


def _parts_of(body: Json) -> list[Json]:
    contents = [message["content"] for message in body.get("messages", ())]
    return [part for one in contents for part in ([text_part(one)] if isinstance(one, str) else one)]


def picture_part(jpeg: bytes) -> Json:
    """A picture as a content part: a data URL."""
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"}}


def text_part(text: str) -> Json:
    return {"type": "text", "text": text}


# --- similarities of texts --------------------------------------------------------------------------------------------

HASHED_WIDTH = 512


def embed_by_words(description: str) -> Vector:
    """A description's words and letter triples, hashed to a unit vector (512,). Only for run folders that were begun
    with it, where other vectors must not be mixed in: it may never change."""
    vector = np.zeros(HASHED_WIDTH, np.float32)
    for word in re.findall(r"\w+", description.casefold()) or [description]:
        framed = f"^{word}$"
        pieces = [framed, *(framed[at : at + 3] for at in range(len(framed) - 2))]
        weight = 1 / np.sqrt(len(pieces) - 1)
        for number, piece in enumerate(pieces):
            code = int.from_bytes(_digest(piece), "big")
            # The whole word counts as much as all of its triples together.
            vector[code % HASHED_WIDTH] += (1.0 if number == 0 else weight) * (1 if code >> 32 & 1 else -1)
    length = float(np.linalg.norm(vector))
    if length == 0:
        vector[0] = length = 1.0
    unit: Vector = vector / np.float32(length)
    return unit


def _digest(piece: str) -> bytes:
    return hashlib.blake2b(piece.encode("utf-8", "surrogatepass"), digest_size=5).digest()


ALIKE = (
    ("hearts", "the suit of hearts"),
    ("happy face", "a smiling, joyful face"),
    ("red car", "a car that is red"),
    ("dog", "a small dog"),
    ("beach", "the seaside"),
    ("three bananas", "bananas, three of them"),
    ("winter landscape", "snowy scenery"),
    ("sports shoe", "sneakers"),
)
"""Descriptions that say the same, by which the scale of a server's similarities is found."""


def edge_scale_of(vectors: Vector) -> tuple[float, float] | None:
    """beta and b such that what says the same has w about .88 on average, and what does not .12; None where the
    embeddings do not tell them apart. vectors: of all texts of `ALIKE` in order, (2 n, d), unit length."""
    first, second = vectors[0::2], vectors[1::2]
    similarities = first @ second.T
    same = float(np.diag(similarities).mean())
    others = similarities[~np.eye(len(first), dtype=bool)]
    # The upper end of what is unlike must lie below what is alike, or every picture is everybody's neighbour.
    unlike = float(others.mean() + others.std())
    if same - unlike < 0.05:
        return None
    scale = 4 / (same - unlike)
    return round(scale, 4), round(-scale * (same + unlike) / 2, 4)


def alike_texts() -> list[str]:
    return [text for pair in ALIKE for text in pair]


# --- probing ----------------------------------------------------------------------------------------------------------

_COLORS = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (40, 80, 210), "yellow": (245, 215, 40)}
_COLOR_QUESTION = "What is the color of the disc in this picture?"
_COLOR_SCHEMA = {
    "type": "object",
    "properties": {"color": {"type": "string"}},
    "required": ["color"],
    "additionalProperties": False,
}
_SIGHT_HINT = "use a vision model, or start the server with the model's vision part"
_NO_SIGHT = re.compile(r"image|picture|vision|visual|multimodal|multi-modal|mmproj|content", re.IGNORECASE)


def colored_disc(color: str, side_px: int = 128) -> bytes:
    """A JPEG of a disc on light grey. A picture without an edge in it is a thing that small models have never seen."""
    picture = PillowImage.new("RGB", (side_px, side_px), (225, 225, 225))
    margin = side_px // 16
    box = (margin, margin, side_px - 1 - margin, side_px - 1 - margin)
    ImageDraw.Draw(picture).ellipse(box, fill=_COLORS[color])
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


MOST_NAMES = 5_000
"""Of a server's list of models: some have thousands, and names like the one asked for are looked for among them."""


def list_models(endpoint: Endpoint) -> tuple[str, ...] | None:
    """The names the server gives, or None where it keeps no list. Raises ModelUnavailable: nobody there, wrong key."""
    try:
        reply = endpoint.ask_now("/models")
    except PageMissing:
        return None
    except ModelUnavailable:
        raise
    except ModelError:
        return None
    data = reply.get("data")
    if not isinstance(data, list):
        return None
    names = [str(entry["id"]) for entry in data[:MOST_NAMES] if isinstance(entry, dict) and "id" in entry]
    return tuple(name for name in names if len(name) <= 500)


def check_listed(endpoint: Endpoint, names: Sequence[str] | None) -> None:
    """Raises ModelUnavailable, with the names most like it, where the server lists its models and not this one."""
    if not names or endpoint.model in names or f"{endpoint.model}:latest" in names:  # Ollama's names end in a tag
        return
    close = difflib.get_close_matches(endpoint.model, names, n=3, cutoff=0.4) or sorted(names)[:3]
    more = f" and {len(names) - len(close):,} more" if len(names) > len(close) else ""
    raise ModelUnavailable(
        f"{endpoint.host} knows no model {endpoint.model!r}; it has {', '.join(map(repr, close))}{more}",
        f"pass --model {close[0]}",
    )


def probe(endpoint: Endpoint, embedding_endpoint: Endpoint | None = None) -> Dialect:
    """Ask the server what it can do. Raises ModelUnavailable where it cannot be used.

    embedding_endpoint: the server and model that embed; None tries the same server: the model itself, then a model of
    its list whose name says that it embeds.
    """
    names = list_models(endpoint)
    check_listed(endpoint, names)
    dialect = _probe_sight(endpoint)
    dialect = _probe_pictures(endpoint, dialect)
    dialect = _probe_logprobs(endpoint, dialect)
    dialect = _probe_words(endpoint, dialect)
    if embedding_endpoint is not None:
        return _probe_embeddings(embedding_endpoint, dialect, [embedding_endpoint.model])
    embedders = [name for name in sorted(names or ()) if "embed" in name.lower()]
    return _probe_embeddings(endpoint, dialect, [endpoint.model, *embedders[:2]])


def _ask(endpoint: Endpoint, dialect: Dialect, question: str, colors: Sequence[str], **how: Any) -> Json:
    parts = [picture_part(colored_disc(color)) for color in colors]
    messages = [{"role": "user", "content": [*parts, text_part(question)]}]
    return _ask_patiently(endpoint, dialect.chat(endpoint.model, messages, 60, **how))


TRIES = 4
PATIENCE_S = 1.0
"""The first wait for a busy server; it doubles."""


def _ask_once(endpoint: Endpoint, path: str, body: Json) -> Json:
    """One request of the probe, with the account of the run told of it. Raises ModelUnavailable where its budget is
    spent: half a probe tells nothing."""
    call = current_call()
    if call is None:
        return endpoint.ask_now(path, body)
    reply = body.get("max_tokens") or body.get("max_completion_tokens") or 0
    known = Capabilities()
    text = len(_words_of(body).encode("utf-8", "surrogatepass")) + len(json.dumps(body.get("response_format", "")))
    try:
        call.send(Bound("probe", text, len(_pictures_of(body)), known.image_tokens, reply))
    except BudgetSpent as error:
        problem = ModelUnavailable(
            f"{error.rule} before it is known what {endpoint.model} at {endpoint.host} can do", "allow more"
        )
    else:
        try:
            answer = endpoint.ask_now(path, body)
        except ModelError as error:
            if error.unbilled:
                call.refused()
            raise
        call.took(counted_usage(answer))
        return answer
    raise problem


def _ask_patiently(endpoint: Endpoint, body: Json) -> Json:
    """One chat request of the probe. Raises ModelBusy where the server stays busy."""
    wait_s = PATIENCE_S
    for left in reversed(range(TRIES)):
        try:
            return _ask_once(endpoint, "/chat/completions", body)
        except ModelBusy as error:
            hopeless = "took longer" in error.rule or _NO_SIGHT.search(error.rule)  # llama.cpp says that with a 500
            if not left or hopeless:
                raise
            time.sleep(min(wait_s if error.retry_after_s is None else error.retry_after_s, 30.0))
            wait_s *= 2
    raise AssertionError("the last try raises")


def _probe_sight(endpoint: Endpoint) -> Dialect:
    """Does it see, is a JSON schema honoured, which fields does it take? One question where all is well.

    The question says nothing of JSON: an answer in JSON shows that the schema was honoured.
    """
    dialect = Dialect(structured="json_schema")
    doubted = False
    for _ in range(7):  # every refusal takes one thing away
        try:
            reply = _ask(endpoint, dialect, _COLOR_QUESTION, ["green"], schema=("color", _COLOR_SCHEMA))
            text = answer_text(reply)
        except ModelUnavailable:
            raise
        except ModelError as error:
            simpler = _without_what_it_refuses(dialect, error)
            if simpler is None:
                raise _unusable(endpoint, error) from None
            dialect = simpler
            continue
        thinks = (
            "<think>" in text
            or "</think>" in text
            or first_choice(reply.get("choices")).get("finish_reason") == "length"
        )
        if thinks and not dialect.thinks:
            dialect = dataclasses.replace(dialect, thinks=True)
            if (
                not prompts.after_thoughts(text).strip()
                or first_choice(reply["choices"]).get("finish_reason") == "length"
            ):
                continue  # its thoughts took all the room
        text = prompts.after_thoughts(text)
        if dialect.structured == "json_schema" and not _is_json_color(text):
            dialect = dataclasses.replace(dialect, structured="none")
            if _offers_json_object(endpoint, dialect):
                dialect = dataclasses.replace(dialect, structured="json_object")
        if not _says(text, "green") and not doubted:
            doubted = True  # anyone may slip once
            continue
        if not _says(text, "green"):
            raise _blind(endpoint, "green", text)
        return dialect
    raise ModelUnavailable(
        f"{endpoint.model} at {endpoint.host} gave no usable answer to a test question",
        "see the server's log, or use another model",
    )


def _without_what_it_refuses(dialect: Dialect, error: ModelError) -> Dialect | None:
    """The dialect without the part that an error names; None where it names none, or what cannot be left out. A plain
    refusal that does not say why is taken to be about the format, unless it may be about the picture."""
    said = error.rule
    if "max_completion_tokens" in said and dialect.limit == "max_tokens":
        return dataclasses.replace(dialect, limit="max_completion_tokens")
    if "temperature" in said and dialect.temperature:
        return dataclasses.replace(dialect, temperature=False)
    about_format = re.search(r"response_format|json_schema|schema|grammar|structured", said)
    unexplained = not isinstance(error, ModelBusy) and not _NO_SIGHT.search(said)
    if dialect.structured != "none" and (about_format or unexplained):
        return dataclasses.replace(dialect, structured="json_object" if dialect.structured == "json_schema" else "none")
    return None


def _offers_json_object(endpoint: Endpoint, dialect: Dialect) -> bool:
    try:
        trial = dataclasses.replace(dialect, structured="json_object")
        question = f'{_COLOR_QUESTION} Reply in JSON: {{"color": "..."}}'
        text = answer_text(_ask(endpoint, trial, question, ["green"], schema=("color", _COLOR_SCHEMA)))
        return _is_json_color(prompts.after_thoughts(text))
    except ModelUnavailable:
        raise
    except ModelError:
        return False


def _is_json_color(text: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and "color" in value


def _says(text: str, color: str) -> bool:
    said = set(re.findall(r"[a-z]+", text.lower()))
    return color in said and not (set(_COLORS) - {color}) & said


def _unusable(endpoint: Endpoint, error: ModelError) -> ModelUnavailable:
    if _NO_SIGHT.search(str(error)):
        return ModelUnavailable(
            f"{endpoint.model} at {endpoint.host} takes no pictures ({prompts.cut(error.rule, 160)})",
            _SIGHT_HINT,
        )
    return ModelUnavailable(error.rule, error.hint)


def _blind(endpoint: Endpoint, color: str, text: str) -> ModelUnavailable:
    said = prompts.cut(prompts.one_line(text), 60)
    return ModelUnavailable(
        f'{endpoint.model} at {endpoint.host} does not see pictures (shown a {color} disc, it says "{said}")',
        _SIGHT_HINT,
    )


def _probe_pictures(endpoint: Endpoint, dialect: Dialect) -> Dialect:
    """May a request hold the pictures of a choice, or else of a judgement, in their order? And does the model really
    look? A model that says green to everything has passed so far."""
    for count in (MOST_EXEMPLARS + 1, EXEMPLARS_SHOWN + 1):
        colors = [("red", "green", "blue")[number % 3] for number in range(count - 1)] + ["yellow"]
        try:
            text = answer_text(_ask(endpoint, dialect, "What is the color of the last picture?", colors))
            if _says(prompts.after_thoughts(text), "yellow"):
                return dataclasses.replace(dialect, pictures=count)
        except ModelUnavailable:
            raise
        except ModelError:
            pass
    try:
        text = prompts.after_thoughts(answer_text(_ask(endpoint, dialect, _COLOR_QUESTION, ["blue"])))
    except ModelError as error:
        raise _unusable(endpoint, error) from None
    if not _says(text, "blue"):
        raise _blind(endpoint, "blue", text)
    return dialect


def _probe_logprobs(endpoint: Endpoint, dialect: Dialect) -> Dialect:
    """Are there log-probabilities from which a yes can be read?"""
    question = "Is this picture blue? Answer with one word: yes or no."
    for top in TOP_LOGPROBS:
        trial = dataclasses.replace(dialect, logprobs=top)
        try:
            reply = _ask(endpoint, trial, question, ["blue"], logprobs=True)
        except ModelUnavailable:
            raise
        except ModelError:
            continue
        if prompts.yes_probability(answer_logprobs(reply)) is not None:
            return trial
        break
    return dialect


def look_messages(dialect: Dialect, picture: Json, interest: str) -> list[Json]:
    """The messages of a look: constant instruction, picture, interest; nano has its interest first."""
    if dialect.words == "nano":
        return [{"role": "user", "content": [text_part(prompts.nano_look_prompt(interest)), picture]}]
    if dialect.words == "plain":
        return [{"role": "user", "content": [picture, text_part(prompts.plain_look_question(interest))]}]
    return [
        {"role": "system", "content": prompts.LOOK_SYSTEM},
        {"role": "user", "content": [picture, text_part(prompts.look_question(interest))]},
    ]


def _probe_words(endpoint: Endpoint, dialect: Dialect) -> Dialect:
    """Where no format is honoured: does the model write JSON because it is told to?"""
    if endpoint.model.rstrip("/").rpartition("/")[2].startswith(prompts.NANO_NAME):
        return dataclasses.replace(dialect, words="nano", structured="none", pictures=1)
    if dialect.structured != "none":
        return dialect
    messages = look_messages(dialect, picture_part(colored_disc("blue")), "color")
    try:
        prompts.parse_look(
            answer_text(_ask_patiently(endpoint, dialect.chat(endpoint.model, messages, ANSWER_TOKENS["look"])))
        )
    except ModelUnavailable:
        raise
    except (ModelError, prompts.ReplyProblem):
        return dataclasses.replace(dialect, words="plain")
    return dialect


def _probe_embeddings(endpoint: Endpoint, dialect: Dialect, models: Sequence[str]) -> Dialect:
    for model in models:
        if _embeds_pictures(endpoint, model):
            return dataclasses.replace(dialect, embeddings="messages", embedding_model=model)
        try:
            body = {"model": model, "input": alike_texts(), "encoding_format": "float"}
            edges = edge_scale_of(embedding_rows(_ask_once(endpoint, "/embeddings", body), len(alike_texts())))
        except (ModelError, ValueError):
            continue
        if edges is not None:
            return dataclasses.replace(
                dialect, embeddings="text", embedding_model=model, edge_scale=edges[0], edge_offset=edges[1]
            )
    return dataclasses.replace(
        dialect,
        embeddings="local",
        embedding_model=TextEmbedder.name,
        edge_scale=TextEmbedder.edge_scale,
        edge_offset=TextEmbedder.edge_offset,
    )


def embedding_body(model: str, jpeg: bytes, interest: str) -> Json:
    """vLLM's chat form of an embeddings request: the picture, then the interest."""
    content = [picture_part(jpeg), text_part(prompts.look_question(interest))]
    return {"model": model, "messages": [{"role": "user", "content": content}], "encoding_format": "float"}


def _embeds_pictures(endpoint: Endpoint, model: str) -> bool:
    """Whether two pictures get two embeddings: a server may take the field and not look at it."""
    rows = []
    for color in ("red", "blue"):
        try:
            reply = _ask_once(endpoint, "/embeddings", embedding_body(model, colored_disc(color), "color"))
            rows.append(embedding_rows(reply, 1)[0])
        except (ModelError, ValueError):
            return False
    return rows[0].shape == rows[1].shape and float(rows[0] @ rows[1]) < 0.9999
