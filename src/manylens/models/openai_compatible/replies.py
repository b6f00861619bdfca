"""Replies of servers, read: whatever they hold, an answer or an explained error comes of it.

In: the JSON object of a reply. Out: texts, log-probabilities, vectors, counts. Promise: no value in it, however odd,
raises anything but what is said here.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from manylens.errors import ModelError
from manylens.models.base import Usage
from manylens.models.metering import usable_count
from manylens.models.openai_compatible.endpoint import Json

Vector: TypeAlias = NDArray[np.float32]


def answer_text(reply: Json) -> str:
    """The text of the first choice; empty where there is none. Raises ModelError where the model refuses to speak.

    Where all of it went into the field for thoughts, as with a reasoning parser that finds no end of them, the answer
    is what follows the thoughts there, or the last JSON object in it."""
    choice = first_choice(reply.get("choices"))
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    content = message.get("content")
    if isinstance(content, list):  # some servers answer in parts
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if choice.get("finish_reason") == "content_filter" or (not content and message.get("refusal")):
        raise ModelError("the model refuses to speak about this picture", "nothing to do here")
    if not content and not was_cut(reply):
        content = _after_thoughts(thoughts_of(reply))
    # Whatever takes more is no answer, and would take minutes to read.
    return content if isinstance(content, str) and len(content) <= MOST_CHARACTERS else ""


def thoughts_of(reply: Json) -> str:
    """What the model thought before it answered, where the server gives that a field of its own."""
    message = first_choice(reply.get("choices")).get("message")
    for name in ("reasoning_content", "reasoning", "thinking"):
        thoughts = message.get(name) if isinstance(message, dict) else None
        if isinstance(thoughts, str) and thoughts.strip():
            return thoughts
    return ""


def was_cut(reply: Json) -> bool:
    """Whether the answer broke off because it had no more room."""
    return first_choice(reply.get("choices")).get("finish_reason") in ("length", "max_tokens")


def _after_thoughts(thoughts: str) -> str:
    _, mark, answer = thoughts.rpartition("</think>")
    if mark:
        return answer
    at = thoughts.rfind("{")
    return thoughts[at:] if at >= 0 and thoughts.rstrip().endswith("}") else ""


MOST_CHARACTERS = 1_000_000


def answer_logprobs(reply: Json) -> list[tuple[str, list[tuple[str, float]]]]:
    """(token, alternatives with log-probabilities) per token of the first choice; empty where the server gave none."""
    logprobs = first_choice(reply.get("choices")).get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    tokens = []
    for entry in content if isinstance(content, list) else ():
        try:
            top = [(str(other["token"]), _logprob(other)) for other in entry.get("top_logprobs") or ()]
            tokens.append((str(entry["token"]), [(str(entry["token"]), _logprob(entry)), *top]))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            return []
    return tokens


def _logprob(entry: Json) -> float:
    """Raises ValueError for what is none: a token may have none of the probability, but not more than all."""
    value = float(entry["logprob"])
    if math.isnan(value) or value == math.inf:
        raise ValueError("a log-probability is a number")
    return value


MOST_DIMENSIONS = 1 << 16


def embedding_rows(reply: Json, rows: int) -> Vector:
    """(rows, d) float32, of unit length. Raises ValueError where the reply does not hold that."""
    data = reply.get("data")
    if not isinstance(data, list) or len(data) != rows:
        raise ValueError("an embeddings reply holds one vector per input")
    try:
        ordered = sorted(data, key=lambda entry: int(entry.get("index", 0)))
        with np.errstate(over="ignore", invalid="ignore"):
            vectors = np.array([entry["embedding"] for entry in ordered], np.float32)
    except (AttributeError, KeyError, TypeError, OverflowError) as error:
        raise ValueError("an embeddings reply holds vectors of numbers") from error
    if vectors.ndim != 2 or vectors.shape[1] > MOST_DIMENSIONS:
        raise ValueError("an embeddings reply holds flat vectors")
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError("an embedding is finite and not zero")
    unit: Vector = vectors / lengths
    return unit


def counted_usage(reply: Json) -> Usage | None:
    """What a reply took, where its server counted that usably: tokens in, and out for all that writes."""
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        return None
    tokens_in = usable_count(usage.get("prompt_tokens"))
    tokens_out = usable_count(usage.get("completion_tokens", None if reply.get("choices") else 0))
    return None if tokens_in is None or tokens_out is None else Usage(tokens_in, tokens_out)


def first_choice(choices: object) -> Json:
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}
