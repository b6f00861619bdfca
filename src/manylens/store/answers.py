"""What a stored answer is: its form, and whether it is still whole. (`types.answer_key` makes its key.)"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float16]

UNIT_LENGTH_TOLERANCE = 0.01
"""How far a stored embedding's length may be from 1: float16 rounding moves it by less than .001."""

SHARES_TOLERANCE = 0.001
"""How far the probabilities of a stored choice may sum from 1: rounding to six decimals moves them by .00001."""


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A model's reply in the store's form. fields: JSON-able. embedding: (d,) float16, unit length, of "embed" and of
    those looks that bring it.
    tokens: (in, out) as the model's server counted them, or None where it did not."""

    kind: str
    fields: Mapping[str, Any]
    embedding: Vector | None = field(default=None, compare=False)
    tokens: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """One answer and what it answers. key: `answer_key(model_identity, request)`. request: the rendered request."""

    key: str
    interest: str
    image_id: str
    model_identity: str
    request: str
    reply: StoredReply
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """A stored look. embedding: (d,) float16, unit length."""

    description: str
    confidence: float
    embedding: Vector


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that finally failed; forgotten when a later run gets the answer. image_id is empty for text calls.

    given_up: why it is not asked again unless a person wants that, as result files say it; None where it is."""

    key: str
    kind: str
    interest: str
    image_id: str
    reason: str
    given_up: str | None = None


def reply_checksum(reply: str, embedding: bytes | None, tokens_in: int | None, tokens_out: int | None) -> int:
    tokens = b"" if tokens_in is None else f"{tokens_in} {tokens_out}".encode()
    return zlib.crc32(tokens, zlib.crc32(embedding or b"", zlib.crc32(reply.encode())))


_WINDOW = 32 << 10
_RENEWED_AFTER = 100
"""Requests that one dictionary serves at least: where no two requests are alike, few are stored as dictionaries."""


@dataclass(slots=True)
class Dictionary:
    """What requests of a kind are compressed with: some that came before them, and the id of their own image, which
    stands in its row anyway. id: its row in the database."""

    id: int
    content: bytes
    served: int = 0

    @staticmethod
    def content_with(request: bytes, before: Dictionary | None) -> bytes:
        """With what was there before, as far as it is used: choices show a few of many clusters."""
        return ((b"" if before is None else before.content) + request)[-_WINDOW:]

    def pack(self, request: bytes, image_id: str) -> bytes:
        self.served += 1
        return pack(request, self.content, image_id)

    def is_outdated(self, request: bytes, packed: bytes) -> bool:
        """Whether another one would do much better: the requests have become others."""
        return self.served > _RENEWED_AFTER and len(packed) > len(request) // 3


def pack(request: bytes, dictionary: bytes, image_id: str) -> bytes:
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, _known(dictionary, image_id))
    return deflate.compress(request) + deflate.flush()


def unpack(packed: bytes, dictionary: bytes, image_id: str) -> bytes:
    """Raises zlib.error for what is not whole; of more than `MOST_REQUEST` bytes, it reads no further."""
    return zlib.decompressobj(-15, _known(dictionary, image_id)).decompress(packed, MOST_REQUEST)


def _known(dictionary: bytes, image_id: str) -> bytes:
    return (dictionary + f"{image_id}".encode("utf-8", "surrogatepass"))[-_WINDOW:]  # whatever a damaged row holds


MOST_REQUEST = 64 << 20
"""Bytes of a request; a forged one may unpack to gigabytes."""

MOST_TOKENS = 2**53
"""A count of tokens beyond it, in JSON, is no number that a server means."""

REPLY_COLUMNS = "kind, reply, embedding, checksum, tokens_in, tokens_out"

_REPLY_FIELDS: Mapping[str, set[str]] = {
    "look": {"description", "confidence"},
    "embed": set(),
    "judge": {"probability", "reason"},
    "choose": {"probabilities", "reason"},
    "complete": {"text"},
}
_TEXTS = {"description", "reason", "text"}
_SHARES = {"confidence", "probability"}


def reply_problem(
    kind: str, reply: str, embedding: bytes | None, checksum: int, tokens_in: int | None, tokens_out: int | None
) -> str | None:
    """Why a stored reply cannot be used, or None. A right checksum proves nothing of a folder from somebody else."""
    found = read_reply(kind, reply, embedding, checksum, tokens_in, tokens_out)
    return found if isinstance(found, str) else None


def read_reply(
    kind: str, reply: str, embedding: bytes | None, checksum: int, tokens_in: int | None, tokens_out: int | None
) -> StoredReply | str:
    """A stored reply, or why it cannot be used."""
    try:
        vector = None if embedding is None else np.frombuffer(embedding, np.float16)
        fields = _fields(kind, reply, embedding, vector, checksum, tokens_in, tokens_out)
        if isinstance(fields, str):
            return fields
        tokens = None if tokens_in is None or tokens_out is None else (tokens_in, tokens_out)
        return StoredReply(kind, fields, vector, tokens)
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError, OverflowError) as error:
        return f"its reply cannot be read ({type(error).__name__})"


def _fields(
    kind: str,
    reply: str,
    embedding: bytes | None,
    vector: Vector | None,
    checksum: int,
    tokens_in: int | None,
    tokens_out: int | None,
) -> str | dict[str, Any]:
    """The reply's fields, or the problem. vector: the embedding as numbers."""
    if reply_checksum(reply, embedding, tokens_in, tokens_out) != checksum:
        return "its reply does not match its checksum"
    tokens = (tokens_in, tokens_out)
    if tokens != (None, None) and not all(type(count) is int and 0 <= count <= MOST_TOKENS for count in tokens):
        return f"tokens are counted, got {tokens!r:.80}"
    fields: dict[str, Any] = json.loads(reply)
    expected = _REPLY_FIELDS.get(kind)
    if expected is None:
        return f"its kind must be look, embed, judge, choose or complete, got {kind!r:.80}"
    # Judgements of earlier versions also have their share of a call that several shared.
    if fields.keys() != expected and (kind != "judge" or set(fields) - {"calls"} != expected):
        return f"a {kind} reply has {sorted(expected)}, got {sorted(fields)!r:.80}"
    for name in expected:
        if name in _TEXTS:
            if not isinstance(fields[name], str):
                return f"a {name} is a text, got {fields[name]!r:.80}"
        elif name in _SHARES and (type(fields[name]) not in (int, float) or not 0 <= fields[name] <= 1):
            return f"a {name} lies in [0, 1], got {fields[name]!r:.80}"
    if kind == "embed" or vector is not None:
        numbers = np.zeros(0, np.float32) if vector is None else vector.astype(np.float32)
        length = math.sqrt(float(numbers.dot(numbers)))
        if not abs(length - 1) <= UNIT_LENGTH_TOLERANCE:
            return f"an embedding has unit length, got {length:.4f}"
    if kind == "choose" and not _are_shares(fields["probabilities"]):
        return f"the probabilities of a choice are two or more that sum to one, got {fields['probabilities']!r:.80}"
    return fields


def _are_shares(values: object) -> bool:
    if not isinstance(values, list) or len(values) < 2 or not all(isinstance(value, int | float) for value in values):
        return False
    return all(0 <= value <= 1 for value in values) and abs(math.fsum(values) - 1) <= SHARES_TOLERANCE
