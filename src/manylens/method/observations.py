"""What is known of the images before anything is asked about them: the looks, and descriptions in comparable form.

Promise: pure and deterministic. Images are indices into `Looks.image_ids`, which are sorted, so a tie broken by index
is a tie broken by image id.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manylens.text import singular
from manylens.types import CANNOT_TELL, NO_TOKENS, NOT_APPLICABLE, Interest, Tokens

_ARTICLES = frozenset({"a", "an", "the"})
_NOT_WORD = re.compile(r"[^\w]+|_")


def normalise_description(text: str) -> str:
    """The form in which descriptions are compared, never shown: lower case, no articles, punctuation and quotes
    folded to spaces, nouns in the singular (`Hearts.` and `a heart` are equal)."""
    lowered = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("'s ", " ")
    words = [word for word in _NOT_WORD.sub(" ", lowered).split() if word not in _ARTICLES]
    return " ".join(map(singular, words)) or lowered.strip()


REFUSALS = {
    normalise_description(NOT_APPLICABLE): "does not apply to this picture",
    normalise_description(CANNOT_TELL): "cannot be told from this picture",
}
"""Normalised descriptions by which a model says that it has no answer, and what they mean."""


def seeded_share(seed: int, *parts: str) -> float:
    """A number in [0, 1) that depends on its arguments alone: randomness that ignores the order of calls."""
    digest = hashlib.blake2b("\x1f".join((str(seed), *parts)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """One interest's looks at n images.

    image_ids: sorted. descriptions: as written. words: normalised, for comparing. confidences: (n,) float32 in [0, 1].
    embeddings: (n, d) float32, rows of unit length (the paper's H). failed: (image id, reason), in id order.
    not_looked: image ids that the budget did not reach. tokens: what the looks took.
    """

    interest: Interest
    image_ids: tuple[str, ...]
    descriptions: tuple[str, ...]
    words: tuple[str, ...]
    confidences: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    failed: tuple[tuple[str, str], ...] = ()
    not_looked: tuple[str, ...] = ()
    tokens: Tokens = NO_TOKENS

    def __len__(self) -> int:
        return len(self.image_ids)


def directions(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to unit length, (n, d); zero rows stay zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return scaled


_COLUMNS = 64


def sum_by_group(
    rows: NDArray[np.float32], group: NDArray[np.int64], groups: int, weights: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """The sum of the rows of each group, (groups, d), each row times its weight; rows are added in their order, those
    of a negative group to nothing. Beside the result it holds a copy of 64 columns."""
    sums = np.zeros((groups, rows.shape[1]), dtype=np.float32)
    order = np.argsort(group, kind="stable")
    order = order[np.searchsorted(group[order], 0) :]
    if len(order):
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        factor = None if weights is None else weights[order, None].astype(np.float32)
        for left in range(0, rows.shape[1], _COLUMNS):
            part = rows[order, left : left + _COLUMNS]
            if factor is not None:
                part *= factor
            sums[group[order[starts]], left : left + _COLUMNS] = np.add.reduceat(part, starts, axis=0)
    return sums


def spoken(looks: Looks, members: Iterable[int], words: str) -> str:
    """How `words` is most often written among the members' descriptions; ties go to the first in the alphabet."""
    forms = Counter(" ".join(looks.descriptions[i].split()).strip(" .\"'") for i in members if looks.words[i] == words)
    return min(forms, key=lambda form: (-forms[form], form)) if forms else words


def define_cluster(name: str, interest: str) -> str:
    """What is said of a cluster that is known by a description."""
    return f'Images described as "{name}" when looked at for "{interest}".'
