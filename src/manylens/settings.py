"""The values that flow between stages: frozen, comparable, and round-tripping through `to_dict` / `from_dict`.

In and out: plain Python values (JSON-able). Promise: no storage ids, no pixels, no behaviour beyond validation; every
default of the product lives once, in `Settings`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from manylens.errors import UsageError
from manylens.types import _Record

Effort: TypeAlias = Literal["low", "normal", "high", "max"]

Level: TypeAlias = Literal["coarse", "medium", "fine"]

CALLS_PER_PICTURE: Mapping[str, float] = {"low": 3.0, "normal": 7.0, "high": 15.0, "max": 60.0}
"""By effort: how many calls it may take, at the margin, to put one picture right."""

MOST_INTO = 1000
"""Clusters that a closed list may have."""


def listed_names(text: str) -> tuple[str, ...]:
    """ "good, defective" as names; one empty name, which no setting takes, where it names nothing."""
    return tuple(name for part in text.split(",") if (name := " ".join(part.split()))) or ("",)


def _require(holds: bool, rule: str, got: object, hint: str) -> None:
    if not holds:
        raise UsageError(f"{rule}, got {got}", hint)


@dataclass(frozen=True, slots=True)
class Settings(_Record):
    """Every default, once. Units are in the names; probabilities lie in (0, 1).

    seed: all randomness derives from it.
    effort: how many calls it may take to put one picture right, at the margin (`CALLS_PER_PICTURE`).
    level: how fine the clusters are. n_clusters: as many of them, where there are descriptions enough; None leaves it
    to the level. into: the only clusters there may be, by name; what fits none stays unassigned.
    compound: whether "color and kind of fruit" is sorted by both parts and by their combinations; off, such an interest
    is one question.
    tau: edges of weight below it are dropped (the paper's density threshold).
    neighbors: at most this many edges are kept per description.
    exemplars: images that stand for a cluster in the report. exemplars_asked: of them in a question.
    share_near_duplicates: near-identical images get one look between them; off, for a subtle interest (a face's mood)
        may be all that differs.
    budget_calls: hard limit on all model calls of a run, over all its interests; None is no limit.
    budget_usd: hard limit on what they cost at price_in and price_out, US dollars per million tokens.
    max_failed: the share of calls that may finally fail before a run counts as failed.
    """

    seed: int = 0
    effort: Effort = "normal"
    level: Level = "medium"
    n_clusters: int | None = None
    into: tuple[str, ...] = ()
    compound: bool = True
    tau: float = 0.6
    neighbors: int = 32
    exemplars: int = 5
    exemplars_asked: int = 3
    share_near_duplicates: bool = False
    budget_calls: int | None = None
    budget_usd: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    max_failed: float = 0.05

    def __post_init__(self) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, holds, rule in (
            ("tau", 0 < self.tau < 1, "lie in (0, 1)"),
            ("neighbors", self.neighbors >= 1, "be at least 1"),
            ("exemplars", self.exemplars >= 1, "be at least 1"),
            ("exemplars_asked", self.exemplars_asked >= 1, "be at least 1"),
            ("max_failed", 0 <= self.max_failed <= 1, "lie in [0, 1]"),
        ):
            option = f"--{name.replace('_', '-')} " if name in ("tau", "max_failed") else ""
            _require(holds, f"{name} must {rule}", getattr(self, name), f"pass {option}{defaults[name]}")
        _require(
            self.budget_calls is None or self.budget_calls >= 0,
            "budget_calls must not be negative",
            self.budget_calls,
            "leave it out for no limit",
        )
        for name, known in (("effort", tuple(CALLS_PER_PICTURE)), ("level", ("coarse", "medium", "fine"))):
            word = getattr(self, name)
            _require(word in known, f"{name} is one of {', '.join(known)}", repr(word), f"pass --{name} {known[1]}")
        _require(
            self.n_clusters is None or self.n_clusters >= 1,
            "n_clusters is at least 1",
            self.n_clusters,
            "pass --groups 10, or leave it out",
        )
        self._check_into()
        for name in ("budget_usd", "price_in", "price_out"):
            amount = getattr(self, name)
            _require(
                amount is None or (math.isfinite(amount) and amount >= 0),
                f"{name} must be a finite amount that is not negative",
                amount,
                "leave it out, or pass US dollars",
            )
        _require(
            self.budget_usd is None or self.is_priced,
            "budget_usd needs price_in and price_out, US dollars per million tokens",
            f"{self.price_in} and {self.price_out}",
            "see your provider's price list and pass both, e.g. --price-in 0.15 --price-out 0.60",
        )

    def _check_into(self) -> None:
        names = self.into
        if not names:
            return
        folded = [" ".join(name.split()).casefold() if isinstance(name, str) else "" for name in names]
        _require(all(folded), "into names clusters in words", repr(names), 'pass --into "good, defective"')
        _require(2 <= len(set(folded)) == len(folded), "into names at least two different clusters", repr(names),
                 'pass --into "good, defective"')  # fmt: skip
        _require(len(names) <= MOST_INTO, f"into names at most {MOST_INTO:,} clusters", len(names), "name fewer")
        _require(self.n_clusters is None, "into says which clusters there are, n_clusters (--groups) how many",
                 f"both: {self.n_clusters}", "pass one of the two")  # fmt: skip

    @property
    def price(self) -> float:
        """Pictures that a question must be expected to put right to be worth asking."""
        return 1 / CALLS_PER_PICTURE[self.effort]

    @property
    def is_priced(self) -> bool:
        return self.price_in is not None and self.price_out is not None

    @property
    def is_limited(self) -> bool:
        return self.budget_calls is not None or self.budget_usd is not None

    def cost_usd(self, tokens_in: int, tokens_out: int) -> float:
        """What so many tokens cost, in US dollars; 0 where no prices are given."""
        if self.price_in is None or self.price_out is None:
            return 0.0
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """steps: at most. batch: rows of a step. examine_every: steps between examinations on what is held out. patience:
    examinations without a new best after which training stops."""

    seed: int = 0
    steps: int = 400
    batch: int = 32
    examine_every: int = 20
    patience: int = 8

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("steps", 1), ("batch", 8), ("examine_every", 1), ("patience", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is at least {least}, got {getattr(self, name)}", f"pass {least} or more")


MODEL_OPTION_BOUNDS: Mapping[str, tuple[float, float]] = {
    "image_px": (32, 4096),
    "timeout_s": (0.1, 86_400),
    "concurrency": (1, 4096),
}


@dataclass(frozen=True, slots=True)
class ModelOptions(_Record):
    """What a person may say about a model beside its name; each kind of model takes what concerns it.

    base_url: where an OpenAI-compatible server answers, or None for the provider's own. image_px: the longest side, in
    pixels, of the images that are sent. timeout_s: seconds that one call may take. concurrency: calls under way at
    once. embedding_model, embedding_url: which model turns descriptions into embeddings, and where it answers if that
    is not `base_url`; None leaves it to what the server offers. device: `cpu`, `cuda`, ... or None for the
    best there is. adapter: a LoRA adapter's folder. ask_again: also about pictures that earlier runs gave up, because
    the server failed on them and on no others.
    """

    base_url: str | None = None
    image_px: int = 512
    timeout_s: float = 120.0
    concurrency: int = 8
    embedding_model: str | None = None
    embedding_url: str | None = None
    device: str | None = None
    adapter: str | None = None
    ask_again: bool = False

    def __post_init__(self) -> None:
        for name, (least, most) in MODEL_OPTION_BOUNDS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise UsageError(f"{name} is from {least:g} to {most:,g}, got {value}", "pass one in between")
        if self.embedding_url is not None and self.embedding_model is None:
            raise UsageError(
                f"embedding_url says where embedding_model answers, got {self.embedding_url} and no embedding_model",
                "pass both: --embedding-model NAME --embedding-url URL",
            )
