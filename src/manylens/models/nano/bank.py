"""What nano can answer, and which of it an interest asks for: words it was taught, never invented ones.

In: an interest's text and embedding, and what is seen of a picture. Out: the words that may answer, each with a prior.
Promise: pure; every word is in the bank, or in the interest where that lists its own options.

A `task` is a list of words (weathers, suits, dog breeds) with ways to ask for it. Which tasks an interest asks for is
read from its embedding in two ways, of which the mean counts: the nearest of the known wordings, and a logistic
regression that was fitted to them (`training/encoder/read_interests.py`). They are several where a word means several
things ("color" of a card, a car, a garment): then the picture decides, by the kind of picture that each was taught on.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from manylens.types import CANNOT_TELL, NOT_APPLICABLE

FloatArray: TypeAlias = NDArray[np.float32]

BANK_FILES = ("bank.json", "bank.npz")

TASK_HEAT = 0.04  # of the softmax over tasks, by cosine to the nearest wording
FEWEST_SHARE = 0.01  # a task less likely than this share of the likeliest is not asked for
FEWEST_HERE = 0.1  # the same for one picture, once its kind has been weighed in
SURE_TASK = 0.86  # from this cosine on the interest is a known one
MEANT_TASK = 0.6  # from this cosine on a list of as many options as a task has words may be those words, said otherwise
LISTED_WORD = 0.7  # from this cosine a listed option is a word of a task
LEAST_DOMAIN = 0.02  # no kind of picture rules a task out for good
SAME_KIND = 0.2  # how well a task fits pictures of another set of the same kind (faces, scenes, food)
ANY_DOMAIN = 0.05  # how well a task that was taught on no kind of picture in particular fits each

_LISTS = re.compile(r"\s*(?:,\s*or\b|,|;|/|\bor\b|\bvs\.?|\bversus\b)\s*", re.IGNORECASE)
_LEADS = re.compile(
    r"^(?:is|are|was|were|does|do|did|can|has|have)\s+(?:it|this|that|there|they|these|those|the \w+|he|she)\s+"
    r"|^(?:whether|if)\s+(?:it|this|the \w+)\s+(?:is|are)\s+|^(?:either|a|an|the)\s+",
    re.IGNORECASE,
)
_OPEN_END = re.compile(r"(?:\.\.\.|…|\betc\.?|\band so on|\band others|\band the like)$", re.IGNORECASE)
MOST_OPTION_WORDS = 4


@dataclass(frozen=True, slots=True)
class Candidates:
    """What may answer an interest.

    words: (c,), the refusals last. vectors: (c, 384). weight: (tasks, c), how much of each word's prior a task gives.
    domain: (tasks,) index of the set each was taught on, -1 for any. alike: (sets, sets) how well a task of one fits
    pictures of the other. measured: (tasks, 2) the NMI that each had on its validation pictures, and the share of right
    answers; NaN where that is not known. kinds: (tasks,) the kind of picture each was taught on, empty for any.
    closeness: cosine of the interest to the nearest known wording, 1 where it lists its options. name: of the likeliest
    task, empty for listed options."""

    words: tuple[str, ...]
    vectors: FloatArray
    weight: FloatArray
    domain: NDArray[np.int64]
    alike: FloatArray
    measured: FloatArray
    kinds: tuple[str, ...]
    closeness: float
    name: str
    vector: FloatArray
    """The embedding to read pictures by: the interest's own, or that of the task whose words it lists."""
    is_known: bool = True
    """Whether the options that an interest lists are words of a task, or stand for its words."""

    def fits(self, domains: FloatArray) -> FloatArray:
        """(n, tasks) how well each task fits pictures of which `domains` (n, sets) says which set they are like."""
        found = np.full((len(domains), len(self.domain)), ANY_DOMAIN, np.float32)
        known = self.domain >= 0
        # Not by BLAS: a row must not depend on how many rows there are.
        near = np.maximum(domains, np.einsum("nk,kj->nj", domains, self.alike))
        found[:, known] = np.maximum(near[:, self.domain[known]], LEAST_DOMAIN)
        return found

    def likeliest(self, domains: FloatArray) -> tuple[int, float]:
        """The task that these pictures speak for most among those that are asked for, and how well it fits them."""
        fits = self.fits(domains)
        odds = fits * self.weight[:, -1]
        place = int((odds / odds.sum(1, keepdims=True)).mean(0).argmax())
        return place, float(fits[:, place].mean())

    def prior(self, domains: FloatArray) -> FloatArray:
        """Log prior (n, c) of each word for pictures of which `domains` (n, sets) says which set they are like; the
        largest of a row is 0."""
        fits = self.fits(domains)
        odds = fits * self.weight[:, -1]
        most = odds.max(1, keepdims=True)
        share = np.where(odds < FEWEST_HERE * most, 0, fits) @ self.weight
        # The refusals compete as they did in training: with the words of one task, the likeliest for the picture.
        share[:, -2:] = most
        share = np.log(np.maximum(share, 1e-9))
        found: FloatArray = share - share.max(1, keepdims=True)
        return found


class Bank:
    """`bank.json` and `bank.npz` of a folder."""

    def __init__(self, folder: Path) -> None:
        told: dict[str, Any] = json.loads((folder / "bank.json").read_text("utf-8"))
        self.words: list[str] = told["words"]
        self.tasks: list[dict[str, Any]] = told["tasks"]
        self.numbers: dict[str, float] = told["numbers"]
        self.domains: list[str] = told["domains"]
        with np.load(folder / "bank.npz") as npz:
            self.vectors = _unit(npz["words"].astype(np.float32))
            self._wordings = _unit(npz["wordings"].astype(np.float32))
            self._axes = npz["axes"].astype(np.float32)
            self._middle = npz["middle"].astype(np.float32)
            self._centers = npz["centers"].astype(np.float32)
            self._reader = npz["reader"].astype(np.float32)
        self._task_of = np.concatenate([np.full(task["wordings"], k) for k, task in enumerate(self.tasks)])
        self._domain = np.array([self.domains.index(task["domain"]) if task["domain"] else -1 for task in self.tasks])
        kinds = np.array(told["kinds"])
        self._alike = np.where(kinds[:, None] == kinds, SAME_KIND, 0).astype(np.float32)
        self._measured = np.array([task.get("measured", (np.nan, np.nan)) for task in self.tasks], np.float32)
        self._kinds = [told["kinds"][domain] if domain >= 0 else "" for domain in self._domain]
        self._first = np.cumsum([0, *(task["wordings"] for task in self.tasks)])[:-1]
        self._refusals = np.array([self.words.index(NOT_APPLICABLE), self.words.index(CANNOT_TELL)])

    @property
    def kinds(self) -> dict[str, frozenset[str]]:
        """The tasks "kind of bird", ..., which are interests as they stand -> the words that answer them."""
        kinds = (task for task in self.tasks if task["name"].startswith("kind of "))
        return {task["name"]: frozenset(self.words[k] for k in task["words"]) for task in kinds}

    def nearness(self, vector: FloatArray) -> FloatArray:
        """(tasks,) cosine of an interest to the nearest wording of each task."""
        similar = self._wordings @ vector
        found = np.full(len(self.tasks), -1, np.float32)
        np.maximum.at(found, self._task_of, similar)
        return found

    def asked(self, vector: FloatArray) -> FloatArray:
        """(tasks,) how likely an interest asks for each task, as a share of the likeliest."""
        learned = self._reader[:, :-1] @ vector + self._reader[:, -1]
        logits = (self.nearness(vector) / TASK_HEAT + learned) / 2
        share: FloatArray = np.exp(logits - logits.max())
        return share

    def naming(self, options: FloatArray) -> int | None:
        """The task whose words the options (n, 384) are, or None: the fewest words that have something for each."""
        similar = self.vectors @ options.T
        fit = [
            (float(similar[task["words"]].max(0).min()), -len(task["words"]), -k) for k, task in enumerate(self.tasks)
        ]
        fitting = [(words, place) for worst, words, place in fit if worst >= LISTED_WORD]
        return -max(fitting)[1] if fitting else None

    def meant(self, vector: FloatArray, options: FloatArray) -> NDArray[np.int64] | None:
        """The words that the options (n, 384) of an interest stand for ("savory or sweet": savory dish, sweet dessert),
        or None: those of the task that it asks for, if there is one for each and each is nearest to another."""
        words = np.array(self.tasks[int(self.asked(vector).argmax())]["words"])
        if len(words) != len(options) or self.nearness(vector).max() < MEANT_TASK:
            return None
        similar = self.vectors[words] @ options.T
        # Nearer than it is to the others on the whole: one word of a task may lie near all options.
        nearest = (similar - similar.mean(1, keepdims=True)).argmax(0)
        return words[nearest] if len(set(nearest.tolist())) == len(words) else None

    def place(self, pooled: FloatArray) -> tuple[FloatArray, FloatArray]:
        """What kinds of picture these are, (n, kinds) shares, and how far each is from all of them, (n,): about 1 for
        pictures like those it was taught on."""
        x = (pooled[:, : len(self._middle)] - self._middle) @ self._axes
        distance = ((x[:, None] - self._centers[None]) ** 2).sum(2)
        logits = -0.5 * (distance - distance.min(1, keepdims=True)) * self.numbers["domain_heat"]
        shares = np.exp(logits)
        return shares / shares.sum(1, keepdims=True), distance.min(1) / self.numbers["usual_distance"]

    def candidates(self, interest: str, vector: FloatArray, embed: Any) -> Candidates:
        """What may answer the interest. embed: texts -> (n, 384)."""
        near = self.nearness(vector)
        best = int(near.argmax())
        listed = options_of(interest)
        if listed:
            own = embed(listed)
            meant = self.meant(vector, own)
            vectors = np.concatenate([own if meant is None else self.vectors[meant], self.vectors[self._refusals]])
            words = (*listed, NOT_APPLICABLE, CANNOT_TELL)
            # A known wording is best read by itself, though it lists its options.
            named = self.naming(own)
            task_of = None if near[best] >= SURE_TASK else named
            read_by = vector if task_of is None else self._wordings[self._first[task_of]]
            name = "" if task_of is None else str(self.tasks[task_of]["name"])
            weight = np.ones((1, len(words)), np.float32)
            measured = np.full((1, 2), np.nan, np.float32) if named is None else self._measured[[named]]
            return Candidates(
                words, vectors, weight, np.array([-1]), self._alike, measured, ("",), 1.0, name, read_by,
                is_known=named is not None or meant is not None,
            )  # fmt: skip
        share = self.asked(vector)
        asked = np.flatnonzero(share >= FEWEST_SHARE)
        chosen = sorted({word for task in asked for word in self.tasks[task]["words"]})
        at = {word: k for k, word in enumerate(chosen)}
        weight = np.zeros((len(asked), len(chosen)), np.float32)
        for row, task in enumerate(asked):
            weight[row, [at[word] for word in self.tasks[task]["words"]]] = share[task]
        weight = np.concatenate([weight, np.tile(weight.max(1, keepdims=True), 2)], 1)
        numbers = np.concatenate([np.array(chosen, np.int64), self._refusals])
        return Candidates(
            words=tuple(self.words[k] for k in numbers),
            vectors=self.vectors[numbers],
            weight=weight,
            domain=self._domain[asked],
            alike=self._alike,
            measured=self._measured[asked],
            kinds=tuple(self._kinds[k] for k in asked),
            closeness=float(near[best]),
            name=str(self.tasks[int(share.argmax())]["name"]),
            vector=vector,
        )


def options_of(interest: str) -> list[str]:
    """The options that an interest lists ("good or defective", "photo, painting or sketch?"), or none: a list with an
    open end ("roses, tulips ...") gives examples."""
    text = " ".join(interest.split()).rstrip(" ?!")
    if _OPEN_END.search(text):
        return []
    text = text.strip(" .,")
    _, colon, after = text.rpartition(":")
    if colon and "," in after:
        text = after
    if not re.search(r"\bor\b|,|;|/|\bvs\b|\bversus\b", text, re.IGNORECASE):
        return []
    parts = [part for part in _LISTS.split(text) if part]
    parts[0] = _LEADS.sub("", _LEADS.sub("", parts[0]))
    parts = [_LEADS.sub("", part).strip() for part in parts]
    parts = list(dict.fromkeys(part.casefold() if part.istitle() else part for part in parts if part))
    if len(parts) < 2 or any(len(part.split()) > MOST_OPTION_WORDS for part in parts):
        return []
    return parts


def _unit(rows: FloatArray) -> FloatArray:
    unit: FloatArray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
