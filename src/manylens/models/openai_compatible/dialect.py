"""What one model on one server can do: found out once (`probe`), recorded, and the same for all of a run.

In: what was found. Out: a `Dialect`, and the bodies of requests in it. Promise: pure.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from manylens.models import prompts
from manylens.models.base import MOST_EXEMPLARS
from manylens.models.metering import Bound
from manylens.models.openai_compatible.endpoint import Json
from manylens.models.openai_compatible.replies import Vector

EXEMPLARS_SHOWN = 3
"""Pictures of a cluster that a judge is shown before the candidate, where the model takes several."""

TOP_LOGPROBS = (20, 5)
"""Alternatives asked for, the most first: servers have different limits."""

ANSWER_TOKENS = {"look": 120, "judge": 160, "choose": 160, "word": 8}
THINKING_TOKENS = 8192
"""Room for a model that thinks before it answers; the answer itself is as short as any other's."""


QUIET: Mapping[str, Json] = {
    "template": {"chat_template_kwargs": {"enable_thinking": False}},
    "effort none": {"reasoning_effort": "none"},
    "effort minimal": {"reasoning_effort": "minimal"},
    "reasoning off": {"reasoning": {"enabled": False}},
}
"""What keeps a model from thinking: vLLM, SGLang and llama.cpp; Ollama and newer models of OpenAI; older ones;
OpenRouter. A look takes a glance: thoughts make it ten times as slow and as dear."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """words: `json` where the model answers in JSON, `plain` where it cannot. structured: which `response_format` the
    server honours. logprobs: alternatives per token to ask for, 0 where it gives none. pictures: how many one request
    may hold: those of a choice, those of a judgement, or 1.
    embeddings: `messages` embeds the picture under the interest, `text` the description, `local` means that the server
    embeds nothing and the description is embedded here. embedding_model: what embeds, of the server or here; "" with
    `local` stands for `embed_by_words`, as in run folders from before there was a text embedder. edge_scale,
    edge_offset: beta and b of the relational graph for these embeddings. limit: the field that bounds an answer.
    temperature: whether it may be set to 0. thinks: whether thoughts come before the answer. quiet: the name, in
    `QUIET`, of what keeps it from thinking; empty where nothing does or need be.
    """

    words: Literal["json", "plain"] = "json"
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
    quiet: str = ""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Records of earlier versions also say how many candidates a judgement may hold (`candidates`).

        Raises TypeError for values that no probe finds."""
        found = cls(**{name: value for name, value in values.items() if name != "candidates"})
        scale = (found.edge_scale, found.edge_offset)
        if not (
            found.words in ("json", "plain")
            and found.structured in ("json_schema", "json_object", "none")
            and found.embeddings in ("messages", "text", "local")
            and found.limit in ("max_tokens", "max_completion_tokens")
            and type(found.temperature) is type(found.thinks) is bool
            and type(found.logprobs) is type(found.pictures) is int
            and found.logprobs in (0, *TOP_LOGPROBS)
            and 1 <= found.pictures <= MOST_EXEMPLARS + 1
            and isinstance(found.embedding_model, str)
            and found.quiet in ("", *QUIET)
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
        if self.quiet:
            body |= QUIET[self.quiet]
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
        "embedding", len(words_of(body).encode("utf-8", "surrogatepass")), len(pictures_of(body)), image_tokens
    )


def words_of(body: Json) -> str:
    """All text of a request."""
    said = body.get("input", [])
    said = [said] if isinstance(said, str) else list(said)
    return "\n".join([*said, *(part["text"] for part in _parts_of(body) if part["type"] == "text")])


def pictures_of(body: Json) -> list[Json]:
    return [part for part in _parts_of(body) if part["type"] == "image_url"]


def _parts_of(body: Json) -> list[Json]:
    contents = [message["content"] for message in body.get("messages", ())]
    return [part for one in contents for part in ([text_part(one)] if isinstance(one, str) else one)]


def picture_part(jpeg: bytes) -> Json:
    """A picture as a content part: a data URL."""
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"}}


def text_part(text: str) -> Json:
    return {"type": "text", "text": text}


def look_messages(dialect: Dialect, picture: Json, interest: str) -> list[Json]:
    """The messages of a look: constant instruction, picture, interest."""
    if dialect.words == "plain":
        return [{"role": "user", "content": [picture, text_part(prompts.plain_look_question(interest))]}]
    return [
        {"role": "system", "content": prompts.LOOK_SYSTEM},
        {"role": "user", "content": [picture, text_part(prompts.look_question(interest))]},
    ]


def embedding_body(model: str, jpeg: bytes, interest: str) -> Json:
    """vLLM's chat form of an embeddings request: the picture, then the interest."""
    content = [picture_part(jpeg), text_part(prompts.look_question(interest))]
    return {"model": model, "messages": [{"role": "user", "content": content}], "encoding_format": "float"}


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
