"""The values that flow between stages: frozen, comparable, and round-tripping through `to_dict` / `from_dict`.

In and out: plain Python values (JSON-able). Promise: no storage ids, no pixels, no behaviour beyond validation.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

from manylens.errors import UsageError
from manylens.text import slug_of

MAX_INTEREST_CHARACTERS = 500

DecidedBy: TypeAlias = Literal["choice", "description", "look", "person", ""]
"""Who put an image where it is: a choice that was asked about it, its description (with those like it), its look where
the interest was not understood, a person; empty where it was not placed and not asked."""

NOT_APPLICABLE, CANNOT_TELL = "does not apply", "cannot tell"
"""The descriptions by which a model says that it has no answer."""

MOST_OPTIONS = 20
"""Options of one choice: one letter each, A to T. A letter is one token, and twenty are what a server lists
log-probabilities of; what resembles the picture less than the twenty nearest clusters is hardly ever chosen."""

_BETWEEN_OPTIONS = re.compile(r"\s*,\s*(?:(?:or|oder|ou)\s+)?|\s+(?:or|oder|ou)\s+", re.IGNORECASE)

_LAST_OPTION = re.compile(r"\s(?:or|oder|ou)\s", re.IGNORECASE)

_QUESTION_OPENING = re.compile(r"^(?:is|are|was|were)\s+(?:it|this|that|they|the\s+\w+)\s+", re.IGNORECASE)


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
        return slug_of(self.text)


RESERVED_SLUGS = frozenset({"clusters", "exports", "features", "report", "sample", "thumbnails"})
"""Names that a run folder has, or may come to have, for its own."""

MAX_SLUG_BYTES = 240
"""File systems allow 255 bytes in a folder's name."""


def parse_interests(by: str | Sequence[str]) -> tuple[Interest, ...]:
    """Interests from their words. Raises UsageError: none, no words, empty, too long, or two with one folder name."""
    texts = [by] if isinstance(by, str) else list(by) if isinstance(by, Iterable) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"at least one interest is needed, in words, got {by!r}", 'say what to sort by: by=["color"]')
    interests = tuple(Interest(text) for text in texts)
    taken: dict[str, str] = {}
    for interest in interests:
        size = len(interest.slug.encode())
        if size > MAX_SLUG_BYTES:
            raise UsageError(
                f"an interest's folder name has at most {MAX_SLUG_BYTES} bytes, got {size} for "
                f"{interest.text[:40]!r}...",
                "say it in fewer words",
            )
        if interest.slug in RESERVED_SLUGS:
            raise UsageError(
                f"an interest's folder may not be one of the run's own, got {interest.text!r}",
                f'say it in more words: "kind of {interest.text}"',
            )
        if interest.slug in taken:
            raise UsageError(
                f"interests of one run need different folder names, got {taken[interest.slug]!r} and "
                f"{interest.text!r}, both {interest.slug!r}",
                "leave one out, or word it differently",
            )
        taken[interest.slug] = interest.text
    return interests


def find_interest(held: Iterable[Interest], words: str) -> Interest:
    """That of a run which is meant: by its words, whatever their case, or by the name of its folder. Raises UsageError
    where there is none."""
    known = {interest.slug: interest for interest in held}
    found = known.get(slug_of(" ".join(words.split())))
    if found is None:
        texts = [interest.text for interest in known.values()]
        near = difflib.get_close_matches(words, texts)
        cure = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {', '.join(map(repr, texts))}"
        raise UsageError(f"the run has no interest {words!r}", cure if texts else _NOT_FINISHED)
    return found


def only_interest(held: Iterable[Interest]) -> Interest:
    """The one of a run that has one. Raises UsageError where none or several are."""
    known = list(held)
    if len(known) != 1:
        cure = f"say which: {', '.join(repr(interest.text) for interest in known)}" if known else _NOT_FINISHED
        raise UsageError(f"where no interest is named the run has one, this has {len(known)}", cure)
    return known[0]


_NOT_FINISHED = "run the command that began it again, to its end; one of an earlier manylens needs it once more"


_JSON = json.JSONEncoder(ensure_ascii=False)
"""One for all texts: `json.dumps` makes one a call, which is most of what a key takes."""


def answer_key(model_identity: str, request: str) -> str:
    """The key of a stored answer, SHA-256 in hex over the model's identity and the rendered request."""
    content = f"[{_JSON.encode(model_identity)}, {_JSON.encode(request)}]"
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Image(_Record):
    """One image by content. id: SHA-256 of the file's bytes, hex. paths: every file with these bytes, relative to the
    collection's folder, sorted. width_px, height_px: as a person sees it (after EXIF rotation). frames: of an animation
    or a video, of which the middle one was read; else 1."""

    id: str
    paths: tuple[str, ...]
    width_px: int
    height_px: int
    frames: int = field(default=1, compare=False)


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


Basis: TypeAlias = Literal["answers", "looks"]


@dataclass(frozen=True, slots=True)
class Misplaced(_Record):
    """share: of images that are expected not to be where they belong. low, high: its 95% interval. basis: what it rests
    on, answers about a sample of the images or, of a model whose answers repeat its looks, what the looks say of
    themselves."""

    share: float
    low: float
    high: float
    basis: Basis = "answers"

    @property
    def line(self) -> str:
        """The sentence in which a run says it."""
        told = (
            f"{self.share:.1%} of the assigned pictures are misplaced (95% interval {self.low:.1%} to {self.high:.1%})"
        )
        basis = ", by how sure the model says it is: it cannot check its own answers" if self.basis == "looks" else ""
        return f"An estimated {told}{basis}."


@dataclass(frozen=True, slots=True)
class Cluster(_Record):
    """id: a number that it keeps as long as it goes on, across runs; never another's. exemplars: image ids, the most
    typical first. parent: the name of the coarser kind that it belongs to, or empty. misplaced: how many of its images
    are, or None where that is not known."""

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
class Verdict(_Record):
    """What a model thinks of its own understanding of an interest on some pictures, without labels. word: whether its
    answers can be relied on. reason: why, in a sentence without its full stop. advice: what to do, in sentences, empty
    where there is nothing to do."""

    word: Literal["good", "check", "not understood"]
    reason: str
    advice: str = ""

    @property
    def line(self) -> str:
        """Word and reason, as a run shows them first."""
        return f"Verdict: {self.word}. {self.reason[:1].upper()}{self.reason[1:]}."


@dataclass(frozen=True, slots=True)
class Clustering:
    """One interest's partition of the images.

    assignments: one per readable image, in image id order. failed: (image id, reason) of images whose look failed.
    estimate: how many of the placed images are misplaced; None where the judge could not be used. density: share of
    pairs of descriptions that are edges. vocabulary: normalised description -> the writer's category. notes: what the
    person should know, in sentences. counting_notes: those of them that count images, made anew when that changes.
    not_looked: image ids that were not looked at because the budget was spent.
    is_partial: whether it left anything unasked. foreseen_calls: (low, high), beside the looks, as `Foreseen` says.
    verdict: the model's own, None where it gives none; with "not understood" the clusters are groups by look. edge:
    beta and b, by which the weight of an edge follows from the cosine of two embeddings; None where it is not known.
    identity: of the model, which its looks are found by; empty in runs of earlier versions.
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
    counting_notes: tuple[str, ...] = ()
    not_looked: tuple[str, ...] = ()
    is_partial: bool = False
    foreseen_calls: tuple[int, int] = (0, 0)
    verdict: Verdict | None = None
    edge: tuple[float, float] | None = None
    identity: str = ""


CorrectionKind: TypeAlias = Literal["move", "new", "split", "merge", "rename", "not", "unassign", "confirm"]


@dataclass(frozen=True, slots=True)
class Correction(_Record):
    """What a person says about a clustering.

    kind: "move" images to `cluster`; "new": images are a cluster of their own, called `name`; "split": the same, of
    images of one cluster; "merge" `cluster` into `into`; "rename" `cluster` to `name`; "not": images are not in
    `cluster`, or, where it is None, not where they are; "unassign": images are in no cluster; "confirm": images are
    right where they are. images: ids, or paths in the collection's folder. cluster, into: a cluster's id or its name.
    """

    kind: CorrectionKind
    images: tuple[str, ...] = ()
    cluster: int | str | None = None
    into: int | str | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Anchor(_Record):
    """How a later clustering is told which cluster is meant: by its id and, where no cluster has that, by the images in
    it. size: images in all. members: ids of some of them, those that stand for it best first."""

    id: int
    name: str
    size: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged(_Record):
    """What a model decided about an image when it was sorted again. before: the cluster that it was in."""

    image_id: str
    before: int | None
    confidence: float
    reason: str
    decided_by: DecidedBy


@dataclass(frozen=True, slots=True)
class Ruling(_Record):
    """A correction as the log keeps it: images by id, clusters by anchor. For "merge" images are those of `cluster`,
    for "confirm" they are in `cluster`. kind "judged": a model's decisions that a person took over; all are about
    `cluster`, None for no cluster."""

    kind: CorrectionKind | Literal["judged"]
    images: tuple[str, ...] = ()
    cluster: Anchor | None = None
    into: Anchor | None = None
    name: str = ""
    judged: tuple[Judged, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        anchors = {key: Anchor.from_dict(values[key]) for key in ("cluster", "into") if values.get(key) is not None}
        judged = tuple(Judged.from_dict(one) for one in values.get("judged", ()))
        return cls(**{**values, **anchors, "images": tuple(values.get("images", ())), "judged": judged})


@dataclass(frozen=True, slots=True)
class Step:
    """What a person said at once, and undoes at once. number: in the order of saying. at: when, ISO 8601 in UTC.
    is_undone: whether it was taken back; it is kept until something else is said."""

    number: int
    at: str
    is_undone: bool
    rulings: tuple[Ruling, ...]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A readable image as a run keeps it. jpeg: RGB, longest side at most 256 px. Sizes are the original's, as seen.
    frames: as of `Image`."""

    image_id: str
    width_px: int
    height_px: int
    jpeg: bytes
    frames: int = 1
