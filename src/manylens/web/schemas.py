"""What the page and the server say to each other: every answer, typed; requests are in `requests`.

In and out: JSON. Promise: `python -m manylens.web.openapi` writes these as an OpenAPI document, from which the page's
client is generated, so that the two cannot drift. An image is named by the first 16 hex digits of the SHA-256 of its
bytes (more where two would share them), never by a path. All texts are text; the page shows them as such.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from manylens.settings import Level
from manylens.types import Basis

ImageId: TypeAlias = Annotated[str, Field(pattern="^[0-9a-f]{16,64}$", description="Of an image: by its content.")]

Sort: TypeAlias = Literal["confidence", "-confidence", "path"]

MapMethod: TypeAlias = Literal["pca", "tsne"]

Size: TypeAlias = Literal["small", "large"]

JobState: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]

JobKind: TypeAlias = Literal["cluster", "add", "re-sort", "suggest", "preview"]

StageState: TypeAlias = Literal["waiting", "running", "done"]


class Out(BaseModel):
    """An answer. Every field is always there, so that the client's types need no question marks."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class Problem(Out):
    """Why something could not be done: the rule with the value got, and the cure."""

    rule: str
    hint: str


# The run


class Share(Out):
    """An estimated share of misplaced images, with its 95% interval. basis: whether it rests on answers, or on what a
    model that cannot check its own answers says of its looks."""

    share: float
    low: float
    high: float
    basis: Basis = "answers"


class VerdictOut(Out):
    """What the model thinks of its own understanding of the interest."""

    word: Literal["good", "check", "not understood"]
    reason: str
    advice: str


class InterestSummary(Out):
    """One clustering. Counts are of files. version: another number after every change."""

    slug: str
    interest: str
    model: str
    clusters: int
    images: int
    assigned: int
    unassigned: int
    failed: int
    not_looked: int
    misplaced: Share | None
    verdict: VerdictOut | None
    notes: list[str]
    level: Level
    groups: int | None
    version: int
    is_partial: bool


class Run(Out):
    """The run folder. state: `new` where nothing was sorted yet. folder: of the pictures, as the person knows it.
    other: the name of the run that it can be compared with, or null."""

    state: Literal["new", "ready"]
    name: str
    out: str
    folder: str | None
    folder_is_there: bool
    images: int
    files: int
    unreadable: int
    interests: list[InterestSummary]
    version: str
    read_only: bool
    why_read_only: str
    is_running: bool
    other: str | None
    models: list[str]


class ClusterOut(Out):
    """size: in files. confidence: mean over its images. histogram: its images by confidence, in ten steps from 0 to 1.
    decided_by_person: how many of its images a person placed."""

    id: int
    name: str
    definition: str
    size: int
    images: int
    confidence: float
    histogram: list[int]
    misplaced: Share | None
    parent: str
    exemplars: list[ImageId]
    decided_by_person: int


class Calls(Out):
    """Model calls that a clustering rests on, by kind. usd: what they cost, where prices were given."""

    look: int
    judge: int
    choose: int
    complete: int
    failed: int
    total: int
    tokens_in: int
    tokens_out: int
    usd: float | None


class InterestDetail(InterestSummary):
    cluster_list: list[ClusterOut]
    calls: Calls
    settings: dict[str, str | int | float | bool | list[str] | None]
    unassigned_histogram: list[int]
    can_undo: bool
    can_redo: bool


class ImageItem(Out):
    """path: the first of its files, as it may be shown. confidence: null where it is in no cluster."""

    id: ImageId
    path: str
    files: int
    cluster: int | None
    state: Literal["assigned", "unassigned", "failed", "not looked at"]
    confidence: float | None
    decided_by: str
    description: str
    width: int
    height: int


class ImagePage(Out):
    version: int
    total: int
    items: list[ImageItem]


class Section(Out):
    """A stretch of the layout. cluster: null for those in none."""

    cluster: int | None
    start: int
    count: int


class Layout(Out):
    """All images that pass the filters, as columns, cluster by cluster: 50,000 fit in one answer. aspect: width by
    height. confidence: in percent, null where there is none. decided_by_person: places in the columns."""

    version: int
    total: int
    ids: list[str]
    aspect: list[float]
    confidence: list[int | None]
    sections: list[Section]
    decided_by_person: list[int]


class Option(Out):
    """One answer that a question had. name: empty for "none of these"."""

    name: str
    probability: float


class Asked(Out):
    """A question that was asked about an image. kind: `look`, `choose` or `judge`. answer: the description, or the
    most probable option."""

    kind: Literal["look", "choose", "judge"]
    model: str
    answer: str
    probability: float
    options: list[Option]
    reason: str
    seconds: float


class Place(Out):
    """Where one interest puts an image."""

    slug: str
    interest: str
    cluster: int | None
    name: str
    state: Literal["assigned", "unassigned", "failed", "not looked at"]
    confidence: float | None
    reason: str
    decided_by: str
    description: str
    asked: list[Asked]


class ImageDetail(Out):
    """paths: all its files, as they may be shown. on_disk: whether one of them is still there, unchanged in size."""

    id: ImageId
    paths: list[str]
    width: int
    height: int
    bytes: int | None
    on_disk: bool
    places: list[Place]


class Neighbour(Out):
    id: ImageId
    weight: float
    similarity: float
    cluster: int | None
    description: str


class Neighbours(Out):
    """The nearest images by embedding. weight: of the edge, sigmoid(beta H.H + b). tau: edges below it were dropped."""

    neighbours: list[Neighbour]
    tau: float


class MapPoints(Out):
    """A plane in which near points are alike. points: base64 of little-endian float32 pairs (x, y) in the order of
    `ids`, within -1 to 1. clusters: of each point, null where it is in none."""

    version: int
    ids: list[str]
    clusters: list[int | None]
    points: str
    method: MapMethod
    state: Literal["ready", "preliminary"]


class CrossName(Out):
    id: int | None
    name: str


class Cross(Out):
    """Two clusterings against each other: counts[i][j] images are in rows[i] of `a` and columns[j] of `b`."""

    a: str
    b: str
    rows: list[CrossName]
    columns: list[CrossName]
    counts: list[list[int]]


# Jobs


class StageOut(Out):
    """total: null where it is not known."""

    stage: str
    interest: str
    state: StageState
    done: int
    total: int | None
    detail: str


class Job(Out):
    """stopping: it was cancelled, and waits for calls under way. calls: asked so far. expected: at least and at most.
    seconds_left: null where it is not known yet."""

    id: int
    kind: JobKind
    state: JobState
    stopping: bool
    by: list[str]
    slugs: list[str]
    model: str
    level: Level | None
    groups: int | None
    command: str
    stages: list[StageOut]
    notices: list[str]
    calls: int
    expected: tuple[int, int] | None
    usd: float | None
    budget_calls: int | None
    budget_usd: float | None
    seconds: float
    seconds_left: float | None
    problem: Problem | None


class Jobs(Out):
    jobs: list[Job]


class PlanOut(Out):
    """What a job would take, before it is begun: at least and at most. is_free: the model runs on this computer."""

    images: int
    calls: tuple[int, int]
    seconds: tuple[float, float] | None
    usd: tuple[float, float] | None
    is_free: bool


# A sample


class SampleGroup(Out):
    """An answer that occurs on the sample, and the pictures that have it, by path."""

    name: str
    size: int
    pictures: list[str]


class SuggestionOut(Out):
    """answered: share of the sample that has an answer."""

    interest: str
    answered: float
    groups: list[SampleGroup]


class SuggestionsOut(Out):
    """job: that looked for them, null where none did. found: files that may be pictures; sample: those looked at."""

    job: Job | None
    found: int
    sample: int
    suggestions: list[SuggestionOut]


class WordingOut(Out):
    """Another interest to try, the model's verdict on it, or empty, and what would differ."""

    interest: str
    verdict: str
    why: str


class PreviewPart(Out):
    """An interest, or one of those that it is made of. unanswered: pictures of the sample without an answer. doubt: why
    the model may not read the words, or empty."""

    interest: str
    groups: list[SampleGroup]
    unanswered: int
    verdict: VerdictOut | None
    doubt: str
    wordings: list[WordingOut]


class PreviewOut(Out):
    """combinations: groups by all parts, where there are several. hints: what to do about it, in sentences."""

    job: Job | None
    found: int
    parts: list[PreviewPart]
    combinations: list[SampleGroup]
    hints: list[str]


# Two runs


class CompareInterest(Out):
    slug: str
    interest: str
    model: str


class Comparable(Out):
    """What there is to compare: this run's interests, and the other's."""

    name: str
    other: str | None
    here: list[CompareInterest]
    there: list[CompareInterest]


class Pair(Out):
    """Clusters that were matched; either may be missing. shared: images in both. only_here, only_there: in one."""

    here: int | None
    here_name: str
    there: int | None
    there_name: str
    shared: int
    only_here: int
    only_there: int


class MovedBetween(Out):
    id: ImageId
    here: int | None
    there: int | None


class Compared(Out):
    """agreement: normalised mutual information over the images that both placed; null where there are none."""

    images: int
    same: int
    agreement: float | None
    pairs: list[Pair]
    moved: list[MovedBetween]
    moved_total: int


# Exports and commands


class LeftOut(Out):
    path: str
    reason: str


class ExportDone(Out):
    path: str
    files: int
    unplaced: int
    steps: list[str]
    left: list[LeftOut]


class Formats(Out):
    """missing: why a form cannot be written here, by its name; empty where it can."""

    formats: list[str]
    missing: dict[str, str]


class Command(Out):
    """The command lines that repeat what the page did, in order."""

    lines: list[str]


class Done(Out):
    done: bool


class RunChanged(Out):
    """An event: these interests have other versions now."""

    versions: dict[str, int]


class CorrectionsChanged(Out):
    interest: str
    version: int


class MapReady(Out):
    """A better plane of this interest is there."""

    interest: str


class EventOut(Out):
    """What `/api/events` sends: the name of the event and one of these as its data."""

    run: RunChanged
    job: Job
    corrections: CorrectionsChanged
    map: MapReady
