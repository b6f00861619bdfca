"""What is known of images and of clusters in the making: the values that the stages hand to each other.

In: one interest's looks (descriptions, confidences, embeddings). Out: `Looks`, `Draft` (a cluster in the making),
`Profile` (what a judge is told of a cluster), and the questions and answers that the pure stages exchange with the
pipeline. Promise: pure and deterministic. Images are indices into `Looks.image_ids`, which are sorted, so a tie
broken by index is a tie broken by image id.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from manylens.records import NO_TOKENS, DecidedBy, Interest, Tokens

T = TypeVar("T")

_ARTICLES = frozenset({"a", "an", "the"})
_NOT_WORD = re.compile(r"[^\w]+|_")


def normalise_description(text: str) -> str:
    """The form in which descriptions are compared, never shown: lower case, no articles, punctuation and quotes
    folded to spaces, a plain plural `s` dropped (`Hearts.` and `a heart` are equal; `glass` and `bus` keep theirs)."""
    lowered = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("'s ", " ")
    words = [word for word in _NOT_WORD.sub(" ", lowered).split() if word not in _ARTICLES]
    return " ".join(_singular(word) for word in words) or lowered.strip()


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def token_overlap(one: str, other: str) -> float:
    """Jaccard overlap in [0, 1] of the words of two normalised descriptions."""
    left, right = set(one.split()), set(other.split())
    return len(left & right) / len(left | right) if left and right else 0.0


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
    repeated: frozenset[str] = field(init=False)
    """Normalised descriptions that at least two images share: the ones that say something about belonging."""
    share_repeated: float = field(init=False)
    """The share of images that have one of those: near 1 where the model describes in kinds, 0 in free prose."""

    def __post_init__(self) -> None:
        counts = Counter(self.words)
        repeated = frozenset(words for words, count in counts.items() if words and count > 1)
        object.__setattr__(self, "repeated", repeated)
        share = sum(counts[words] for words in repeated) / max(1, len(self.words))
        object.__setattr__(self, "share_repeated", share)

    def __len__(self) -> int:
        return len(self.image_ids)


@dataclass(frozen=True, slots=True)
class Standing:
    """How an image came into its cluster. probability: the judge's, or None where it was not asked."""

    decided_by: DecidedBy
    probability: float | None = None
    reason: str = ""


@dataclass(slots=True)
class Draft:
    """A cluster in the making. keys: the seeds it grew from (one, more after merges). members: image -> standing."""

    keys: frozenset[int]
    members: dict[int, Standing] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.members)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a judge is told of a cluster: name (the majority description as written), definition, exemplars (medoids,
    the most typical first). words: the majority description, normalised; share: of the members that have it."""

    name: str
    words: str
    share: float
    definition: str
    exemplars: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """Does image `candidate` belong with the cluster of this profile?"""

    profile: Profile
    candidate: int


@dataclass(frozen=True, slots=True)
class EdgeScale:
    """beta and b of w = sigmoid(beta * H.H + b)."""

    scale: float
    offset: float

    def log_odds(self, similarity: float) -> float:
        """That two images of this similarity belong together."""
        return self.scale * similarity + self.offset


@dataclass(frozen=True, slots=True)
class Answer:
    """probability: of yes, or None where there is no answer: the call failed, or (`spent`) the budget is used up."""

    probability: float | None
    reason: str = ""
    spent: bool = False


_SAME_WORDS = 1.5
_OTHER_WORDS = -1.5


def alike(looks: Looks, image: int) -> float:
    """Log-odds that an image's own description adds where it is the cluster's."""
    return _SAME_WORDS * float(looks.confidences[image])


def log_odds(probability: float, least: float) -> float:
    """log(p / (1 - p)), p kept within [least, 1 - least]: no single number speaks without bounds."""
    p = min(max(probability, least), 1 - least)
    return math.log(p / (1 - p))


def belonging(looks: Looks, profile: Profile, image: int, answer: Answer) -> float:
    """Log-odds that an image belongs with a cluster, from the judgement and from the descriptions; > 0 is yes.

    A judgement counts for at most 32 to 1. An equal description adds 1.5 times the look's confidence (4 to 1 at best);
    another one takes as much off where both are in use by several images, else so much of it as descriptions here tend
    to be. So a judge who is sure decides, and one who is not leaves the decision to the descriptions. -inf where there
    is no answer.
    """
    if answer.probability is None:
        return -math.inf
    words = looks.words[image]
    if words and words == profile.words:
        described = alike(looks, image)
    else:
        both = {words, profile.words} <= looks.repeated
        described = _OTHER_WORDS * float(looks.confidences[image]) * (1.0 if both else looks.share_repeated)
    return log_odds(answer.probability, 0.03) + described


_RARELY_ALONE = 0.9
"""From this share of repeated descriptions on, one that nobody shares is more likely a slip of the look than a kind."""


def is_stranger(looks: Looks, question: Question) -> bool:
    """Whether the candidate is alone of its description, as more than one image in ten are here, and that has no word
    in common with the cluster's. A yes of a judge who knows names alone then says that it mistakes one name for the
    other; there are no others of the candidate's kind to ask it about."""
    words = looks.words[question.candidate]
    alone = bool(words) and words not in looks.repeated and looks.share_repeated < _RARELY_ALONE
    return alone and token_overlap(words, question.profile.words) == 0


@dataclass(frozen=True, slots=True)
class Ask:
    """One round of questions. done: steps of the stage that are finished, for the progress events."""

    questions: Sequence[Question]
    done: int = 0


Steps: TypeAlias = Generator[Ask, Sequence[Answer], T]
"""A pure stage: yields rounds of questions, is sent one answer per question in order, and returns its result.
Whoever drives it may put the rounds of many such stages into one batch."""


def prefer_own_kind(
    looks: Looks, answered: Sequence[tuple[Question, Answer]], exemplars: int, done: int = 0
) -> Steps[set[int]]:
    """The images that stay with their own description, of those that a cluster of another one accepted.

    A yes alone does not move an image whose description others share: the judge is asked about the images of that
    description, too. One who says yes to both does not say which, and the description decides; where that was a slip of
    the look, the judge refuses its kind. Without an answer the description stands.
    """
    torn: list[tuple[int, float]] = []
    for question, answer in answered:
        words, told = looks.words[question.candidate], belonging(looks, question.profile, question.candidate, answer)
        if told > 0 and words in looks.repeated and words != question.profile.words:
            torn.append((question.candidate, told))
    if not torn:
        return set()
    groups: dict[str, list[int]] = {looks.words[image]: [] for image, _ in torn}
    for image, words in enumerate(looks.words):
        if words in groups:
            groups[words].append(image)
    drawn = {words: draw_profile(looks, members, exemplars + 1) for words, members in groups.items()}
    puts = [Question(without(drawn[looks.words[image]], image, exemplars), image) for image, _ in torn]
    answers = yield Ask(puts, done)
    return {
        image
        for (image, told), put, answer in zip(torn, puts, answers, strict=True)
        if answer.probability is None or belonging(looks, put.profile, image, answer) >= told
    }


def typicality(looks: Looks, members: Sequence[int]) -> NDArray[np.float64]:
    """Each member's similarity to the mean direction of all, (len(members),); rounded so that ties are ties."""
    rows = looks.embeddings[np.asarray(members, dtype=np.intp)].astype(np.float64)
    rounded: NDArray[np.float64] = np.round(rows @ _direction(rows), 6)
    return rounded


def _direction(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = rows.mean(axis=0)
    norm = float(np.linalg.norm(mean))
    unit: NDArray[np.float64] = mean / norm if norm > 0 else mean
    return unit


def centroid(looks: Looks, members: Iterable[int]) -> NDArray[np.float64]:
    """The unit mean of the members' embeddings, (d,). Members that agree on their description outvote the others:
    the mean is taken over those with the majority description."""
    indices = sorted(members)
    words, _ = majority(looks, indices)
    agreeing = [i for i in indices if looks.words[i] == words] or indices
    return _direction(looks.embeddings[np.asarray(agreeing, dtype=np.intp)].astype(np.float64))


def majority(looks: Looks, members: Sequence[int]) -> tuple[str, float]:
    """The most frequent normalised description and the share of members that have it. An empty description is no
    vote. Ties go to the description of the most typical member, then of the first."""
    votes: dict[str, int] = {}
    for i in members:
        votes[looks.words[i]] = votes.get(looks.words[i], 0) + 1
    most = max((count for words, count in votes.items() if words), default=0)
    if most == 0:
        return "", 0.0
    tied = {words for words, count in votes.items() if count == most and words}
    if len(tied) == 1:
        return tied.pop(), most / len(members)
    ordered = sorted(members)
    scores = typicality(looks, ordered)
    best = max(
        (k for k in range(len(ordered)) if looks.words[ordered[k]] in tied), key=lambda k: (scores[k], -ordered[k])
    )
    return looks.words[ordered[best]], most / len(members)


def spoken(looks: Looks, members: Iterable[int], words: str) -> str:
    """How `words` is most often written among the members' descriptions; ties go to the first in the alphabet."""
    forms: dict[str, int] = {}
    for i in members:
        if looks.words[i] == words:
            form = " ".join(looks.descriptions[i].split()).strip(" .\"'")
            forms[form] = forms.get(form, 0) + 1
    return min(forms, key=lambda form: (-forms[form], form)) if forms else words


WELL_DESCRIBED = 0.8
"""From this share of members on, the majority description is all that is said of a cluster."""


def define_cluster(name: str, interest: str) -> str:
    """What is said of a cluster that is known by a description."""
    return f'Images described as "{name}" when looked at for "{interest}".'


def draw_profile(looks: Looks, members: Iterable[int], exemplars: int) -> Profile:
    """State a cluster for the judge: majority description, and medoids that have it (others only to fill up)."""
    indices = sorted(members)
    words, share = majority(looks, indices)
    scores = typicality(looks, indices)
    order = sorted(range(len(indices)), key=lambda k: (looks.words[indices[k]] != words, -scores[k], indices[k]))
    name = spoken(looks, indices, words)
    return Profile(
        name=name,
        words=words,
        share=share,
        definition=define_cluster(name, looks.interest.text),
        exemplars=tuple(indices[k] for k in order[:exemplars]),
    )


def without(profile: Profile, image: int, exemplars: int) -> Profile:
    """The profile as an image is asked about it that may be one of its own exemplars."""
    others = tuple(exemplar for exemplar in profile.exemplars if exemplar != image)
    return replace(profile, exemplars=others[:exemplars])
