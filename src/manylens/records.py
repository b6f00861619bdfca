"""The values that flow between stages: frozen, comparable, and round-tripping through `to_dict` / `from_dict`.

In and out: plain Python values (JSON-able). Promise: no storage ids, no pixels, no behaviour beyond validation; every
default of the product lives once, in `Settings`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

from manylens.errors import UsageError

MAX_INTEREST_CHARACTERS = 500

_MOST_AUDITED = 0.25
_SMALL = 1000  # images; below, questions that every collection needs weigh more than one by one
_FIXED_JUDGEMENTS = 60
_JUDGEMENTS_PER_IMAGE = 0.12
_MOST_PER_IMAGE = 0.65
_ESTIMATE_HOLDS = 0.15

DecidedBy: TypeAlias = Literal["seed", "judge", "trust", "offer", "second look", "person", ""]
"""Who put an image where it is: the walk's seed, an asked judgement, an unasked strong edge, a leftover's offer to a
large cluster, a second look, a person; empty while unassigned."""


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
    def slug(self) -> str:
        """The interest in lower case, every character that is not a letter or digit replaced by `-`, trimmed of `-`."""
        return "".join(c if c.isalnum() else "-" for c in self.text.lower()).strip("-")


def _require(holds: bool, rule: str, got: object, hint: str) -> None:
    if not holds:
        raise UsageError(f"{rule}, got {got}", hint)


@dataclass(frozen=True, slots=True)
class Settings(_Record):
    """Every default, once. Units are in the names; probabilities lie in (0, 1).

    seed: all randomness (audits, samples) derives from it.
    tau: edges of weight below it are dropped (the paper's density threshold).
    neighbors: at most this many edges are kept per image.
    trust_weight: a candidate is accepted unasked (audited trust) where its edge and its description together make it at
        least this probable that it belongs; 1.0 trusts nothing.
    audit_share: at least this share of trusted acceptances is asked all the same; 1.0 asks every candidate, as in the
        paper, and lifts `judgements_per_image` (but a judge who knows names alone: `evidence.is_stranger`).
    audits: in a small collection the share is raised, up to a quarter, so that about this many are asked; 0 does not.
    small_cluster: clusters of at most this many images are offered to large ones before they may stand alone.
    exemplars: medoids kept per cluster, shown to the judge and in the report.
    merge_answers: at most this many exemplar pairs are judged, in each direction, before two clusters are joined.
    second_looks: at most this share of images, the least certain ones, is judged again at the end, as long as that
        still finds errors; images in no cluster are offered to further ones. 0 does neither.
    judgements_per_image: what may be asked beside the looks; in small collections up to one per image, or as many as
        1,000 images would get, as long as the estimate of all calls stays within 15%. None is no limit.
    edge_questions: at most this many pairs are judged before the graph is built, so that tau means a probability for
        this interest; 0 takes the model's own beta and b.
    share_near_duplicates: near-identical images get one look between them; off, for a subtle interest (a face's mood)
        may be all that differs.
    budget_calls: hard limit on all model calls of a run, over all its interests; None is no limit.
    budget_usd: hard limit on what they cost at price_in and price_out, US dollars per million tokens.
    max_failed: the share of calls that may finally fail before a run counts as failed.
    """

    seed: int = 0
    tau: float = 0.6
    neighbors: int = 32
    trust_weight: float = 0.8
    audit_share: float = 0.02
    audits: int = 50
    small_cluster: int = 3
    exemplars: int = 5
    merge_answers: int = 5
    second_looks: float = 0.1
    judgements_per_image: float | None = 0.3
    edge_questions: int = 24
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
            ("trust_weight", 0 < self.trust_weight <= 1, "lie in (0, 1]"),
            ("audit_share", 0 <= self.audit_share <= 1, "lie in [0, 1]"),
            ("audits", self.audits >= 0, "not be negative"),
            ("neighbors", self.neighbors >= 1, "be at least 1"),
            ("exemplars", self.exemplars >= 1, "be at least 1"),
            ("merge_answers", self.merge_answers >= 1, "be at least 1"),
            ("second_looks", 0 <= self.second_looks <= 1, "lie in [0, 1]"),
            ("edge_questions", self.edge_questions >= 0, "not be negative"),
            ("max_failed", 0 <= self.max_failed <= 1, "lie in [0, 1]"),
        ):
            option = f"--{name.replace('_', '-')} " if name in ("tau", "audit_share", "max_failed") else ""
            _require(holds, f"{name} must {rule}", getattr(self, name), f"pass {option}{defaults[name]}")
        for name, cure in (
            ("judgements_per_image", "pass None for no limit"),
            ("budget_calls", "leave it out for no limit"),
        ):
            limit = getattr(self, name)
            _require(limit is None or limit >= 0, f"{name} must not be negative", limit, cure)
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

    def share_audited(self, images: int) -> float:
        """The share of trusted acceptances that is asked all the same in a collection of this many images."""
        return max(self.audit_share, min(_MOST_AUDITED, self.audits / max(images, 1)))

    def judgements_allowed(self, images: int) -> int | None:
        """How many judgements a collection of this many images may take for one interest; None is no limit.

        In a small collection as many as 1,000 images would get, one per image at most, and no more than leave the
        estimate of all calls, looks included, at most 15% too low: who was told a number is not charged another.
        """
        if self.judgements_per_image is None or self.audit_share == 1:
            return None
        small = min(images, self.judgements_per_image * _SMALL)
        within = (images + self.judgements_likely(images)) / (1 - _ESTIMATE_HOLDS) - images
        return int(max(self.judgements_per_image * images, min(small, within)) + 1e-6)

    def judgements_likely(self, images: int) -> int:
        """Judgements that are likely for one interest before anything is known of it, whatever is allowed.

        60 that every collection needs (24 controls, up to 24 pairs, the tests of a merge), .12 per image (audits,
        images of another description, second looks), and in a small collection not more than .65 per image: the middle
        of what was counted, 1.10 to 1.83 calls per image on 12 to 2,000 images (docs/models.md).
        """
        return round(min(_MOST_PER_IMAGE * images, _FIXED_JUDGEMENTS + _JUDGEMENTS_PER_IMAGE * images))

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
    "judge_together": (1, 16),
}


@dataclass(frozen=True, slots=True)
class ModelOptions(_Record):
    """What a person may say about a model beside its name; each kind of model takes what concerns it.

    base_url: where an OpenAI-compatible server answers, or None for the provider's own. image_px: the longest side, in
    pixels, of the images that are sent. timeout_s: seconds that one call may take. concurrency: calls under way at
    once. embedding_model, embedding_url: which model turns descriptions into embeddings, and where it answers if that
    is not `base_url`; None leaves it to what the server offers. judge_together: candidates of one cluster that one
    request may hold, where the model takes so many pictures. device: `cpu`, `cuda`, ... or None for the best there
    is. adapter: a LoRA adapter's folder.
    """

    base_url: str | None = None
    image_px: int = 512
    timeout_s: float = 120.0
    concurrency: int = 8
    embedding_model: str | None = None
    embedding_url: str | None = None
    judge_together: int = 1
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
class Cluster(_Record):
    """id: 1..K by falling size. exemplars: image ids, the most typical first."""

    id: int
    name: str
    definition: str
    size: int
    exemplars: tuple[str, ...]


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
    of them finally failed. judgements: answers that the calls of `judge` were made for; more than those where several
    candidates shared one."""

    look: int = 0
    judge: int = 0
    complete: int = 0
    failed: int = 0
    tokens: Tokens = NO_TOKENS
    judgements: int = 0
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
    trust_error_bound: upper confidence bound on the share of wrong trusted acceptances, or None where none was trusted.
    density: share of image pairs that are edges. notes: what the person should know, in sentences.
    not_looked: image ids that were not looked at because the budget was spent. is_partial: whether it left anything
    unasked. foreseen_calls: beside the looks, as `Foreseen` says. judgements_allowed: for so many images, by the
    settings; None is no limit.
    """

    interest: Interest
    model: str
    clusters: tuple[Cluster, ...]
    assignments: tuple[Assignment, ...]
    failed: tuple[tuple[str, str], ...]
    calls: CallCounts
    density: float
    trust_error_bound: float | None
    notes: tuple[str, ...] = ()
    not_looked: tuple[str, ...] = ()
    is_partial: bool = False
    foreseen_calls: int = 0
    judgements_allowed: int | None = None


Stage: TypeAlias = Literal["read", "look", "graph", "walk", "merge", "name", "teach", "tune"]


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
    """Once the looks and the control questions of an interest are answered: how many calls it is likely to take beside
    its looks. The stages are run with a judge who answers as those questions were answered, and are counted.

    Once before that, with no interest: all calls of the run, looks included, as they are expected from the number of
    images alone, before anything is sent."""

    interest: str
    calls: int


@dataclass(frozen=True, slots=True)
class Stopping(_Record):
    """The run was interrupted, and ends when so many calls that are under way are answered, or half a minute later."""

    calls: int


@dataclass(frozen=True, slots=True)
class Notice(_Record):
    """One line that a person should read now: a server is waited for, other results are replaced."""

    text: str


Event: TypeAlias = StageStarted | StageAdvanced | StageFinished | Foreseen | Stopping | Notice
