"""Texts as vectors, on the CPU, without a server: all-MiniLM-L6-v2, which knows synonyms, run by onnxruntime.

    from manylens import TextEmbedder
    TextEmbedder().embed(["a puppy", "a small dog"])          # (2, 384) float32, rows of unit length

In: any texts. Out: a finite unit vector for each; the empty text has one, too. Promises: importing this is quick, the
weights are loaded (0.1 s, 110 MB of memory) when the first text is embedded; deterministic; a text's vector does not
depend on what else is embedded with it. For that, each text is a run of its own: nothing is padded, and no scale is
shared with another text, because the weights, stored as int8, are multiplied out when they are loaded and all else is
float32. Processors may differ in the seventh digit.

MiniLM reads English well and other languages in Latin script somewhat. Of other scripts it knows single letters or
nothing (of Chinese 70% of the characters are unknown to it), so words in them are compared by their letters: pairs and
triples, hashed to the same 384 numbers. The share of such letters in a text is their share of its squared length.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manylens.errors import ModelUnavailable

FILES = ("model.onnx", "tokenizer.json")
WIDTH = 384
MOST_TOKENS, MOST_CHARACTERS = 128, 2000
"""What is read of a text: the model was trained on no more than 128 tokens."""

_LATIN_ENDS, _MORE_LATIN = 0x250, range(0x1E00, 0x1F00)
_MOST_THREADS = 8

_loading = threading.Lock()


class TextEmbedder:
    """Embeds texts; all instances share the loaded weights. May be used from several threads at once.

    name: what made a vector, to be recorded with it; other weights, or another rule, have another number at its end.
    edge_scale, edge_offset: beta and b of the relational graph for these vectors, found with the phrases by which those
    of a server are (`openai_compatible.dialect.ALIKE`).
    """

    name = "all-MiniLM-L6-v2-int8-1"
    edge_scale, edge_offset = 7.8046, -3.9516

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, 384), rows of unit length. Raises ModelUnavailable where the package lacks the weights."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return np.zeros((0, WIDTH), np.float32)
        with _loading:
            _load()
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS, len(distinct))) as threads:
            rows = dict(zip(distinct, threads.map(_embed, distinct), strict=True))
        return np.stack([rows[text] for text in texts])


def falls_apart(word: str) -> bool:
    """Whether MiniLM's vocabulary, of 30,000 English words and pieces, lacks a word as a whole."""
    with _loading:
        _, tokenizer = _load()
    return len(tokenizer.encode(word).ids) > 3  # beside the marks of its beginning and end


def _embed(text: str) -> NDArray[np.float32]:
    # Lone surrogates are no text to the tokenizer.
    readable = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode("utf-8"))
    short = " ".join(readable.split())[:MOST_CHARACTERS]
    read: list[str] = []
    unread: list[str] = []
    for word in short.split():
        (unread if any(map(_is_foreign, word)) else read).append(word)
    if not unread:
        return _by_meaning(short)
    if not read:
        return _by_letters(short)
    share = sum(map(_is_foreign, short)) / sum(map(_counts, short))
    by_meaning, by_letters = _by_meaning(" ".join(read)), _by_letters(" ".join(unread))
    return _unit(math.sqrt(1 - share) * by_meaning + math.sqrt(share) * by_letters)


def _counts(letter: str) -> bool:
    """Letters, digits and symbols (emoji among them) do, accents and punctuation do not."""
    return unicodedata.category(letter)[0] in "LNS"


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter).startswith("M")


def _is_foreign(letter: str) -> bool:
    return ord(letter) >= _LATIN_ENDS and ord(letter) not in _MORE_LATIN and _counts(letter)


def _by_meaning(text: str) -> NDArray[np.float32]:
    session, tokenizer = _load()
    (rows,) = session.run(None, {"ids": np.array([tokenizer.encode(text).ids], np.int64)})
    row: NDArray[np.float32] = rows[0]
    return row


def _by_letters(text: str) -> NDArray[np.float32]:
    """Pairs and triples of letters, each word's ends marked, hashed to a unit vector."""
    # Vowel signs are part of a word, punctuation is not: some scripts set no blanks around it.
    bare = "".join(letter if _counts(letter) or _is_mark(letter) else " " for letter in text.casefold())
    vector = np.zeros(WIDTH)
    for word in bare.split():
        framed = f"^{word}$"
        for size in (2, 3):
            for at in range(len(framed) - size + 1):
                digest = hashlib.blake2b(framed[at : at + size].encode(), digest_size=5).digest()
                code = int.from_bytes(digest, "big")
                vector[code % WIDTH] += 1 if code >> 32 & 1 else -1
    return _unit(vector)


def _unit(vector: NDArray[Any]) -> NDArray[np.float32]:
    length = np.linalg.norm(vector)
    if length == 0:  # parts that cancel out
        vector, length = np.eye(1, WIDTH)[0], np.float64(1)
    unit: NDArray[np.float32] = (vector / length).astype(np.float32)
    return unit


@cache
def _load() -> tuple[Any, Any]:
    """(session, tokenizer). One thread a session: texts run side by side instead."""
    import onnxruntime
    from tokenizers import Tokenizer

    weights, words = (Path(str(resources.files("manylens.models") / "minilm" / file)) for file in FILES)
    missing = [file.name for file in (weights, words) if not file.is_file()]
    if missing:
        raise ModelUnavailable(
            f"the text embedder needs its files in minilm/, missing: {', '.join(missing)}",
            "install manylens from its wheel, or from a full checkout",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    tokenizer = Tokenizer.from_file(str(words))
    tokenizer.enable_truncation(MOST_TOKENS)
    return onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"]), tokenizer
