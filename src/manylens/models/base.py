"""The protocol between the stages and any multi-modal language model.

In: requests that say what is asked (look, judge, choose, complete). Out: one reply per request, in order; a request
that failed has a `ModelError` in its place, so one bad image never sinks a batch.
Promise: stages depend on this file, never on a provider; a model needs one file and a registration, or is an object
that a program passes in (`check_model` says what it lacks).

Requests carry meaning, not wording. Each model words them through `prompts` in its own dialect and shows the wording in
`render`, from which the recorder derives the key under which an answer is stored.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from manylens.collection.pictures import ImageSource
from manylens.errors import ModelError, UsageError
from manylens.settings import ModelOptions as ModelOptions  # part of the protocol; light, for the command line's help
from manylens.types import MOST_OPTIONS as MOST_OPTIONS
from manylens.types import Tokens, Verdict, answer_key
from manylens.writing import WritingTask, Written

Vector: TypeAlias = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Rendering:
    """A request as one model gets it. text: what `render` gave. key: the key under which its answer is stored."""

    model: Model
    text: str
    key: str


class _Request:
    """Carries its rendering, made once: a choice among many clusters is a long text, and its key a hash of it."""

    __slots__ = ("_rendering",)
    _rendering: Rendering


@dataclass(frozen=True, slots=True)
class LookRequest(_Request):
    """Read one image through the interest (the paper's description and H(u))."""

    interest: str
    image_id: str


@dataclass(frozen=True, slots=True)
class EmbedRequest(_Request):
    """H(u) of an image that was described: of its description, or of the image and the interest. An answer of its own:
    where it fails, the description stays."""

    interest: str
    image_id: str
    description: str


@dataclass(frozen=True, slots=True)
class JudgeRequest(_Request):
    """Does `candidate_id` belong with this cluster, given the interest?

    The cluster is known by its name, its definition and a few exemplars; what all candidates of a cluster share comes
    first in the rendered prompt, the candidate last, so that a server's prefix cache serves them all.
    """

    interest: str
    cluster_name: str
    cluster_definition: str
    exemplar_ids: tuple[str, ...]
    candidate_id: str


@dataclass(frozen=True, slots=True)
class Option:
    """One cluster that a picture may belong to, as a choice states it. exemplar_ids: the most typical first; empty
    where the cluster is known by its words alone."""

    name: str
    definition: str = ""
    exemplar_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChooseRequest(_Request):
    """Which of these clusters does `candidate_id` belong to, given the interest, or none of them?

    options: 1 to `MOST_OPTIONS`, in the order in which they are shown; whoever asks has shuffled them by a seed. As
    with a judgement, all of it but the candidate comes first in the rendered prompt. Raises ValueError for a number of
    options that no choice can have.
    """

    interest: str
    options: tuple[Option, ...]
    candidate_id: str

    def __post_init__(self) -> None:
        if not 1 <= len(self.options) <= MOST_OPTIONS:
            raise ValueError(f"a choice has 1 to {MOST_OPTIONS} options, got {len(self.options)}")


MOST_EXEMPLARS = 8
VERDICT_PICTURES = 256
"""A verdict is about an interest and not about each picture; engines send these to where the model is."""
"""Exemplar pictures that a choice shows at most, beside its candidate. A judgement shows three; a picture of 256 px
takes some 100 to 3,000 tokens, so with more of them one choice would cost as much as dozens of judgements."""


def shown_exemplars(options: Sequence[Option], most: int) -> tuple[str, ...]:
    """The pictures that a choice shows: the first exemplar of each option, in their order, where every option has one
    and they are at most `most`; else none. Never of some options only: what is shown must favour none of them."""
    if len(options) > most or not all(option.exemplar_ids for option in options):
        return ()
    return tuple(option.exemplar_ids[0] for option in options)


@dataclass(frozen=True, slots=True)
class CompleteRequest(_Request):
    """Write: name groups, put descriptions into categories, find categories that are one, suggest interests."""

    interest: str
    task: WritingTask


Request: TypeAlias = LookRequest | EmbedRequest | JudgeRequest | ChooseRequest | CompleteRequest


@dataclass(frozen=True, slots=True)
class Usage:
    """What one answer cost, in tokens, as its server counted them."""

    tokens_in: int
    tokens_out: int


@dataclass(frozen=True, slots=True)
class LookReply:
    """description: a few words. confidence: in [0, 1]. embedding: (d,) float16, unit length, H(u) of the paper; None
    where the model is to be asked for it (`embed`)."""

    description: str
    confidence: float
    embedding: Vector | None = field(default=None, compare=False)
    usage: Usage | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class EmbedReply:
    """embedding: (d,) float16, unit length."""

    embedding: Vector = field(compare=False)
    usage: Usage | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class JudgeReply:
    """probability: of "yes", in [0, 1]. reason: the model's own words, or empty where it gives none."""

    probability: float
    reason: str = ""
    usage: Usage | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ChooseReply:
    """probabilities: of each option in the order asked, then of none of them; (options + 1,), not negative, summing to
    one. reason: the model's own words, or empty."""

    probabilities: tuple[float, ...]
    reason: str = ""
    usage: Usage | None = field(default=None, compare=False)

    @property
    def chosen(self) -> int | None:
        """The most probable option's index, the first among equals; None where none of them is."""
        best = max(range(len(self.probabilities)), key=lambda k: (self.probabilities[k], -k))
        return None if best == len(self.probabilities) - 1 else best


@dataclass(frozen=True, slots=True)
class CompleteReply:
    """written: the answer to the request's task, `Names`, `Categories` or `MergedCategories`."""

    written: Written
    usage: Usage | None = field(default=None, compare=False)


Reply: TypeAlias = LookReply | EmbedReply | JudgeReply | ChooseReply | CompleteReply


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can do; probed or known, never assumed. The defaults are those of a small model in this process.

    writes_text: `complete` works (names and definitions in prose).
    sees_exemplars: `judge` and `choose` look at the exemplars' pixels, not only at the cluster's words.
    own_doubt: of a model whose answers about clusters come from the same reading as its looks, so that they can only
    confirm these: by how much the confidences of one interest's looks, and of those in one cluster, are off together
    on held-out pictures, as standard deviations of log-odds. It is asked nothing that its looks have answered, and how
    sure a picture's place is follows from its look. None where an answer is another look.
    edge_scale, edge_offset: beta and b of w = sigmoid(beta * H.H + b) where the model learned them, else None.
    batch_size: requests that one call of `look`, `judge`, `choose` or `complete` should hold: many for a model in this
    process, 1 for a server, whose requests are sent side by side instead.
    concurrency: calls that may be under way at once.
    counts_requests: whether it tells the account of the run (`models.metering`) of each request that it sends; else
    each try counts as one.
    requests_per_call: the most requests that one call may hold (with repairs and embeddings).
    image_tokens, reply_tokens, text_tokens: what a budget in money reserves for a request before it is sent: the most
    tokens that an image may take, that the reply to a look, a judgement or a choice may have, and that the reply to
    `complete` may have.
    """

    writes_text: bool = False
    sees_exemplars: bool = False
    own_doubt: tuple[float, float] | None = None
    edge_scale: float | None = None
    edge_offset: float | None = None
    batch_size: int = 64
    concurrency: int = 1
    counts_requests: bool = False
    requests_per_call: int = 1
    image_tokens: int = 10_000
    reply_tokens: int = 1_000
    text_tokens: int = 10_000


def count_tokens(replies: Iterable[Reply | ModelError]) -> Tokens:
    """What the answers among the replies took, summed."""
    usages = [reply.usage for reply in replies if not isinstance(reply, ModelError)]
    counted = [usage for usage in usages if usage is not None]
    return Tokens(
        sum(usage.tokens_in for usage in counted),
        sum(usage.tokens_out for usage in counted),
        len(usages) - len(counted),
    )


class Model(Protocol):
    """A multi-modal language model behind manylens.

    `look`, `judge`, `choose` and `complete` take any number of requests and give one reply for each, in their order; a
    request that failed has its `ModelError` in its place. Raised are only `ModelUnavailable`, which ends the run, and a
    `ModelError` that concerns them all. The same request gets the same reply.

    A model may also have `open(images: ImageSource) -> None`. A run calls it once, before it asks anything, so that an
    object that a program passes in gets at the pictures: `images.thumbnail(image_id)` is RGB of at most 256 px,
    `images.jpeg(image_id, longest_side_px)` JPEG bytes of any size. Without it a model has the images' ids only.

    A model whose looks come without an embedding has `async embed(requests: Sequence[EmbedRequest]) ->
    list[EmbedReply | ModelError]`, which is asked for those that were described.

    A model may also say how well it understands an interest on some pictures, from what it has in this process:
    `verdict(interest, image_ids) -> Verdict`; it is asked about at most 256 pictures. It then has
    `appearance(image_ids)` as well: image id -> (d,) features of unit length, whatever the interest, without those that
    cannot be read. By these a run groups the pictures where the verdict is "not understood". Both are plain functions
    and no calls; the same arguments get the same result.

    A model that was taught certain interests may have `doubt(interest) -> str`, why it may not read these words, as the
    end of a sentence about them, or nothing; `interests(image_ids) -> Sequence[str]`, which of those that it was taught
    are worth trying on these pictures; and `wordings(interest) -> Sequence[str]`, those that are nearest to an
    interest. Plain functions, too: a run says the first before it asks anything, `suggest` and `preview` use the rest.

    A model that has to run before it knows how it words a request may have `facts() -> Mapping`, what it found out, and
    `assume(facts)`: the engine ray lets a replica find out, and words requests where there is no GPU.
    """

    @property
    def name(self) -> str:
        """What the user typed, e.g. `nano`."""
        ...

    @property
    def identity(self) -> str:
        """What makes two models the same: a hash of the weights, or endpoint and model name."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do, and how many calls may be under way; the same for the whole run."""
        ...

    def render(self, request: Request) -> str:
        """The whole request as this model gets it, as text: wording, image ids, parameters and prompt version."""
        ...

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        """A description, its confidence in [0, 1], and H(u), (d,) of unit length, d the same for all."""
        ...

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        """The probability, in [0, 1], that the candidate belongs with the cluster."""
        ...

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        """Which of the options the candidate belongs to, or none: a probability of each and of none."""
        ...

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        """What its task asks for, where `capabilities.writes_text`; else errors."""
        ...


def check_model(model: object) -> None:
    """Raises UsageError for an object that cannot stand for a model, naming what it lacks and the cure. Only `open`,
    and `complete` where the model writes no text, may be missing."""
    if isinstance(model, type):
        raise UsageError(f"a model is an object, got the class {model.__name__}", f"pass {model.__name__}()")
    kind = type(model).__name__
    for name, cure in _WANTED.items():
        if not hasattr(model, name):
            raise UsageError(
                f"a model has {name!r}, {kind} has none", f"add {cure} to it, see docs/how-to/your-own-model.md"
            )
    known = getattr(model, "capabilities")  # noqa: B009  # of an object of any type
    if not isinstance(known, Capabilities):
        raise UsageError(f"a model's 'capabilities' are Capabilities, {kind} has {known!r}", "set Capabilities()")
    for name in ("look", "judge", "choose", "complete"):
        if name == "complete" and not known.writes_text and not hasattr(model, name):
            continue
        cure = f"async def {name}(self, requests)"
        if not hasattr(model, name):
            raise UsageError(
                f"a model has {name!r}, {kind} has none", f"add {cure} to it, see docs/how-to/your-own-model.md"
            )
        if not inspect.iscoroutinefunction(getattr(model, name)):
            raise UsageError(f"{name!r} of a model is a coroutine function, that of {kind} is not", f"write {cure}")
    if hasattr(model, "open") and (not callable(model.open) or inspect.iscoroutinefunction(model.open)):
        raise UsageError(
            f"'open' of a model is a plain function, that of {kind} is not",
            "write def open(self, images), without async",
        )
    if hasattr(model, "verdict") and not hasattr(model, "appearance"):
        raise UsageError(
            f"a model with 'verdict' has 'appearance', {kind} has none",
            "add def appearance(self, image_ids) to it, which gives features to group the pictures by look",
        )


_WANTED = {
    "name": "a name, as a text,",
    "identity": "identity, a text that is another one wherever the same request could get another answer,",
    "capabilities": "capabilities = Capabilities()",
    "render": "def render(self, request), which gives all that an answer depends on as a text,",
}


def open_model(model: Model, images: ImageSource) -> None:
    """Give a model the pictures, where it wants them."""
    begin = getattr(model, "open", None)
    if begin is not None:
        begin(images)


def ask_verdict(model: Model, interest: str, image_ids: Sequence[str]) -> Verdict | None:
    """The model's verdict on at most `VERDICT_PICTURES` of the pictures, or None where it gives none."""
    ask = getattr(model, "verdict", None)
    found: Verdict | None = None if ask is None else ask(interest, verdict_sample(image_ids))
    return found


def verdict_sample(image_ids: Sequence[str]) -> Sequence[str]:
    """At most `VERDICT_PICTURES` ids, spread over their order; the sample of a sample is itself."""
    ordered = sorted(set(image_ids))
    return ordered[:: max(1, -(-len(ordered) // VERDICT_PICTURES))]


def ask_doubt(model: Model, interest: str) -> str:
    """Why the model may not read an interest, as the end of a sentence; empty where it does, or does not say."""
    ask = getattr(model, "doubt", None)
    return "" if ask is None else str(ask(interest))


def ask_interests(model: Model, image_ids: Sequence[str]) -> Sequence[str]:
    """Interests that the model was taught and that are worth trying on these pictures; none where it does not say."""
    ask = getattr(model, "interests", None)
    return () if ask is None else tuple(ask(image_ids))


def ask_wordings(model: Model, interest: str) -> Sequence[str]:
    """Interests near this one that the model was taught, the nearest first; none where it does not say."""
    ask = getattr(model, "wordings", None)
    return () if ask is None else tuple(ask(interest))


class ModelWrapper:
    """What everything around a model passes on from it; a wrapper adds `look`, `judge`, `choose` and `complete`."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def open(self, images: ImageSource) -> None:
        open_model(self._model, images)

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def identity(self) -> str:
        return self._model.identity

    @property
    def capabilities(self) -> Capabilities:
        return self._model.capabilities

    def render(self, request: Request) -> str:
        return self._model.render(request)

    def verdict(self, interest: str, image_ids: Sequence[str]) -> Verdict | None:
        return ask_verdict(self._model, interest, image_ids)

    def appearance(self, image_ids: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        found: Mapping[str, NDArray[np.float32]] = self._model.appearance(image_ids)  # type: ignore[attr-defined]
        return found

    def doubt(self, interest: str) -> str:
        return ask_doubt(self._model, interest)

    def interests(self, image_ids: Sequence[str]) -> Sequence[str]:
        return ask_interests(self._model, image_ids)

    def wordings(self, interest: str) -> Sequence[str]:
        return ask_wordings(self._model, interest)


def rendering(model: Model, request: Request) -> Rendering:
    """The request as this model gets it, with its key; kept on the request.

    The key is a SHA-256, in hex, over the rendered request and the model's identity: `render` holds the image hashes,
    parameters and prompt version, so a name alone never decides.
    """
    while isinstance(model, ModelWrapper):
        model = model._model
    known = getattr(request, "_rendering", None)
    if known is None or known.model is not model:
        text = model.render(request)
        known = Rendering(model, text, answer_key(model.identity, text))
        object.__setattr__(request, "_rendering", known)
    return known


def request_key(model: Model, request: Request) -> str:
    return rendering(model, request).key


async def look_whole(model: Model, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
    """Looks with their embeddings, which a model may have to be asked for; where that fails, the look has."""
    replies = await model.look(requests)
    if len(replies) != len(requests):
        raise ValueError(f"a model must give one reply per request, got {len(replies)} for {len(requests)}")
    lacking = [n for n, reply in enumerate(replies) if isinstance(reply, LookReply) and reply.embedding is None]
    if not lacking:
        return replies
    embed = getattr(model, "embed", None)
    if embed is None:
        error = ModelError(f"a look has an embedding, or its model 'embed', {model.name} gave neither")
        return [error if n in set(lacking) else reply for n, reply in enumerate(replies)]
    looks = {n: reply for n in lacking if isinstance(reply := replies[n], LookReply)}
    asked = [EmbedRequest(requests[n].interest, requests[n].image_id, look.description) for n, look in looks.items()]
    found: Sequence[EmbedReply | ModelError] = await embed(asked)
    whole = list(replies)
    for (n, look), vector in zip(looks.items(), found, strict=True):
        whole[n] = vector if isinstance(vector, ModelError) else _with_embedding(look, vector)
    return whole


def _with_embedding(look: LookReply, vector: EmbedReply) -> LookReply:
    """What it took is unknown where either part is: a part would pass for the whole."""
    usage = None
    if look.usage is not None and vector.usage is not None:
        usage = Usage(look.usage.tokens_in + vector.usage.tokens_in, look.usage.tokens_out + vector.usage.tokens_out)
    return replace(look, embedding=vector.embedding, usage=usage)


def request_kind(request: Request) -> str:
    """`look`, `judge`, `choose` and `complete` are the kinds that `summary.json` counts; `embed` belongs to a look."""
    match request:
        case EmbedRequest():
            return "embed"
        case LookRequest():
            return "look"
        case JudgeRequest():
            return "judge"
        case ChooseRequest():
            return "choose"
        case CompleteRequest():
            return "complete"
