"""The values that flow between stages: frozen, comparable, and round-tripping through `to_dict` / `from_dict`.

In and out: plain Python values (JSON-able). Promise: no storage ids, no pixels, no behaviour beyond validation; every
default of the product lives once, in `Settings`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

from manylens.errors import UsageError

MAX_INTEREST_CHARACTERS = 500

DecidedBy: TypeAlias = Literal["choice", "description", "person", ""]
"""Who put an image where it is: a choice that was asked about it, its description (with those like it), a person; empty
where it was not placed and not asked."""

Effort: TypeAlias = Literal["low", "normal", "high", "max"]
Level: TypeAlias = Literal["coarse", "medium", "fine"]

MOST_OPTIONS = 20
"""Options of one choice: one letter each, A to T. A letter is one token, and twenty are what a server lists
log-probabilities of; what resembles the picture less than the twenty nearest clusters is hardly ever chosen."""

CALLS_PER_PICTURE: Mapping[str, float] = {"low": 3.0, "normal": 7.0, "high": 15.0, "max": 60.0}
"""By effort: how many calls it may take, at the margin, to put one picture right."""

MOST_INTO = 1000
"""Clusters that a closed list may have."""


_BETWEEN_OPTIONS = re.compile(r"\s*,\s*(?:(?:or|oder|ou)\s+)?|\s+(?:or|oder|ou)\s+", re.IGNORECASE)
_LAST_OPTION = re.compile(r"\s(?:or|oder|ou)\s", re.IGNORECASE)
_QUESTION_OPENING = re.compile(r"^(?:is|are|was|were)\s+(?:it|this|that|they|the\s+\w+)\s+", re.IGNORECASE)


def listed_names(text: str) -> tuple[str, ...]:
    """ "good, defective" as names; one empty name, which no setting takes, where it names nothing."""
    return tuple(name for part in text.split(",") if (name := " ".join(part.split()))) or ("",)


class _Record:
    """`to_dict` gives JSON-able values; `from_dict` takes them back and ignores no key."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = dataclasses.asdict(self)  # type: ignore[call-overload]  # every subclass is a dataclass
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


@dataclass(frozen=True, slots=True)
class Interest(_Record):
    """What the person wants to sort by, in plain words. Whitespace is folded; at most 500 characters."""

    text: str

    def __post_init__(self) -> None:
        folded = " ".join(self.text.split())
        if not folded:
            raise UsageError(
                "an interest needs at least one word, got an empty text", 'say what to sort by: --by "color"'
            )
        if any("\ud800" <= c <= "\udfff" for c in folded):
            raise UsageError(
                f"an interest is text, got bytes that are none: {folded.encode('utf-8', 'backslashreplace').decode()}",
                "type it in a terminal that writes UTF-8",
            )
        if len(folded) > MAX_INTEREST_CHARACTERS:
            raise UsageError(
                f"an interest has at most {MAX_INTEREST_CHARACTERS} characters, got {len(folded):,}",
                'say it in a few words: --by "mood of the person"',
            )
        object.__setattr__(self, "text", folded)
        if not self.slug:
            raise UsageError(
                f"an interest needs at least one letter or digit, got {folded!r}", 'use words: --by "color"'
            )

    @property
    def options(self) -> tuple[str, ...]:
        """The options that the interest lists itself, a closed list: "sunny, cloudy or rainy?"; else empty.

        They end in "or" and the last one; each has at most three words, and one word where there are only two of them
        and no question mark or colon says that they are all there is.
        """
        _, colon, listed = self.text.rpartition(":")
        asked = listed.endswith("?") or bool(colon)
        listed = _QUESTION_OPENING.sub("", listed.rstrip(" ?.!").strip())
        parts = [part.strip() for part in _BETWEEN_OPTIONS.split(listed)]
        found = tuple(dict.fromkeys(part for part in parts if part))
        most = 3 if asked or len(found) > 2 else 1
        is_list = len(found) > 1 and bool(_LAST_OPTION.search(listed))
        return found if is_list and all(len(part.split()) <= most for part in found) else ()

    @property
    def slug(self) -> str:
        """The interest in lower case, every character that is not a letter or digit replaced by `-`, trimmed of `-`."""
        return "".join(c if c.isalnum() else "-" for c in self.text.lower()).strip("-")


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
    best there is. adapter: a LoRA adapter's folder.
    """

    base_url: str | None = None
    image_px: int = 512
    timeout_s: float = 120.0
    concurrency: int = 8
    embedding_model: str | None = None
    embedding_url: str | None = None
    device: str | None = None
    adapter: str | None = None

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


@dataclass(frozen=True, slots=True)
class Image(_Record):
    """One image by content. id: SHA-256 of the file's bytes, hex. paths: every file with these bytes, relative to the
    collection's folder, sorted. width_px, height_px: as a person sees it (after EXIF rotation)."""

    id: str
    paths: tuple[str, ...]
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class Unreadable(_Record):
    """A file that was found and could not be used, with the reason in words."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Assignment(_Record):
    """Where one image ended. cluster: its cluster's id, or None while unassigned. confidence in [0, 1]."""

    image_id: str
    cluster: int | None
    confidence: float
    reason: str
    decided_by: DecidedBy


@dataclass(frozen=True, slots=True)
class Misplaced(_Record):
    """share: of images that are expected not to be where they belong. low, high: its 95% interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Cluster(_Record):
    """id: 1..K by falling size. exemplars: image ids, the most typical first. parent: the name of the coarser kind that
    it belongs to, or empty. misplaced: how many of its images are, or None where that is not known."""

    id: int
    name: str
    definition: str
    size: int
    exemplars: tuple[str, ...]
    parent: str = ""
    misplaced: Misplaced | None = None


@dataclass(frozen=True, slots=True)
class Tokens(_Record):
    """What answers took, as their server counted it: tokens in, tokens out. uncounted: answers without such a count."""

    tokens_in: int = 0
    tokens_out: int = 0
    uncounted: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out, self.uncounted + other.uncounted
        )


NO_TOKENS = Tokens()


@dataclass(frozen=True, slots=True)
class CallCounts(_Record):
    """Model calls by kind that this clustering rests on, whether asked now or taken from the store, and how many
    of them finally failed."""

    look: int = 0
    judge: int = 0
    complete: int = 0
    failed: int = 0
    tokens: Tokens = NO_TOKENS
    choose: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{**values, "tokens": Tokens.from_dict(values.get("tokens", {}))})

    @property
    def total(self) -> int:
        return self.look + self.judge + self.choose + self.complete


@dataclass(frozen=True, slots=True)
class Clustering:
    """One interest's partition of the images.

    assignments: one per readable image, in image id order. failed: (image id, reason) of images whose look failed.
    estimate: how many of the placed images are misplaced; None where the judge could not be used. density: share of
    pairs of descriptions that are edges. vocabulary: normalised description -> the writer's category. notes: what the
    person should know, in sentences. not_looked: image ids that were not looked at because the budget was spent.
    is_partial: whether it left anything unasked. foreseen_calls: (low, high), beside the looks, as `Foreseen` says.
    """

    interest: Interest
    model: str
    clusters: tuple[Cluster, ...]
    assignments: tuple[Assignment, ...]
    failed: tuple[tuple[str, str], ...]
    calls: CallCounts
    density: float
    estimate: Misplaced | None = None
    vocabulary: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    not_looked: tuple[str, ...] = ()
    is_partial: bool = False
    foreseen_calls: tuple[int, int] = (0, 0)


Stage: TypeAlias = Literal["read", "look", "walk", "vocabulary", "check", "name", "teach", "tune"]


@dataclass(frozen=True, slots=True)
class StageStarted(_Record):
    """total: steps of this stage (images, candidates, ...), or None where it is not known beforehand."""

    stage: Stage
    interest: str
    total: int | None


@dataclass(frozen=True, slots=True)
class StageAdvanced(_Record):
    stage: Stage
    interest: str
    done: int
    total: int | None = None


@dataclass(frozen=True, slots=True)
class StageFinished(_Record):
    stage: Stage
    interest: str
    detail: str


@dataclass(frozen=True, slots=True)
class Foreseen(_Record):
    """Once the looks of an interest are in: how many calls it is likely to take beside them, at least and at most.

    Once before that, with no interest: all calls of the run, looks included, as they are expected from the number of
    images alone, before anything is sent."""

    interest: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Stopping(_Record):
    """The run was interrupted, and ends when so many calls that are under way are answered, or half a minute later."""

    calls: int


@dataclass(frozen=True, slots=True)
class Notice(_Record):
    """One line that a person should read now: a server is waited for, other results are replaced."""

    text: str


Event: TypeAlias = StageStarted | StageAdvanced | StageFinished | Foreseen | Stopping | Notice
