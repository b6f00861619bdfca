"""From a folder and some interests to a finished run folder: what the command line, the estimator and Python share.

In: a folder of images, interests in plain words, a model. Out: a `Result`, and the files of `export` and `report` in
the run folder. Promise: the same call with the same `out` continues where an earlier one stopped, asks nothing twice,
and ends with the same files.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

from PIL import Image as PillowImage

from manylens import __version__
from manylens.duplicates import fingerprint, stand_ins
from manylens.errors import ModelUnavailable, UsageError
from manylens.export import (
    RESULT_FILES,
    UNREADABLE_NAME,
    FileCounts,
    cluster_values,
    count_files,
    write_results,
    write_unreadable,
)
from manylens.images import THUMBNAIL_PX, Collection, StoredImages, find_images, printable
from manylens.models import check_model_name, close_model, is_local, load_model, probe_model
from manylens.models.base import Model, ModelOptions, check_model, open_model
from manylens.models.huggingface import HF_PREFIX
from manylens.models.huggingface.checkpoint import find_checkpoint
from manylens.models.paced import Paced
from manylens.models.recorded import Recorded
from manylens.pipeline import cluster_images
from manylens.pipeline.cost import calls_before_looks
from manylens.plural import counted
from manylens.records import (
    NO_TOKENS,
    CallCounts,
    Cluster,
    Clustering,
    Event,
    Foreseen,
    Interest,
    Level,
    Misplaced,
    Notice,
    Settings,
    StageAdvanced,
    StageFinished,
    StageStarted,
    Stopping,
    TuneSettings,
    Unreadable,
    listed_names,
)
from manylens.report import encode_thumbnail, render_report
from manylens.store import RunFolder, write_atomically
from manylens.tune import Tuned, tune_student
from manylens.waiting import run_until_done

PathLike: TypeAlias = str | os.PathLike[str]
OnEvent: TypeAlias = Callable[[Event], None]

MAX_SLUG_BYTES = 240
"""File systems allow 255 bytes in a folder's name."""

REPORT_NAME = "report.html"
MODELS_NAME = "models.json"
"""In a run folder: what was found out about models behind servers."""

NANO_LOOKS_PER_SECOND = 40
"""What nano does on two busy cores; 80 were measured on two idle ones (docs/nano.md)."""

SECONDS_PER_SERVER_CALL = 2.0
PIXELS_PER_TOKEN = 750
LOOK_TOKENS = (450, 40)
CHOICE_TOKENS = (700, 20)
CHOICE_EXEMPLARS = 8
"""What `plan` supposes of a model behind a server, of which it may ask nothing: seconds a call, the pixels of an image
that make one token, tokens of text (in, out), and pictures of 256 px that a choice shows beside its candidate."""


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """A cluster as it is shown. size: files. confidence: mean over its images, in [0, 1]. exemplars: paths. misplaced:
    the estimated share of its images, or None where that is not known."""

    id: int
    name: str
    definition: str
    size: int
    confidence: float
    exemplars: tuple[str, ...]
    misplaced: Misplaced | None = None


@dataclass(frozen=True, slots=True)
class InterestResult:
    """One interest's clustering.

    labels: every readable file's path in the folder -> its cluster's name, or None where it is unassigned.
    table: the clusters in files and paths. folder: where its files lie. report: the page that shows all interests.
    """

    clustering: Clustering = field(repr=False)
    labels: Mapping[str, str | None] = field(repr=False)
    table: tuple[ClusterRow, ...]
    counts: FileCounts
    folder: Path
    report: Path

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        """The clusters found, the largest first."""
        return self.clustering.clusters


class Result(Mapping[str, InterestResult]):
    """The interests of one run, by their words: `result["suit"].labels`.

    calls: all model calls that it rests on, over all interests. calls_asked: those made now. calls_kept: answers that
    the run folder already held. planned_calls: what `plan` expected.
    """

    def __init__(
        self,
        out: Path,
        collection: Collection,
        results: Mapping[str, InterestResult],
        *,
        calls_asked: int = 0,
        calls_kept: int = 0,
        planned_calls: tuple[int, int] = (0, 0),
    ) -> None:
        self.planned_calls = planned_calls
        self.calls_asked = calls_asked
        self.calls_kept = calls_kept
        self.out = out
        self.collection = collection
        self._results = dict(results)

    def __getitem__(self, interest: str) -> InterestResult:
        if not isinstance(interest, str):
            raise KeyError(interest)
        return self._results[" ".join(interest.split())]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        found = ", ".join(f"{interest!r}: {counted(len(one.clusters), 'cluster')}" for interest, one in self.items())
        return f"<manylens.Result {found}; {self.report}>"

    @property
    def report(self) -> Path:
        """The self-contained page that shows every clustering."""
        return self.out / REPORT_NAME

    @property
    def calls(self) -> CallCounts:
        every = [one.clustering.calls for one in self.values()]
        return CallCounts(
            look=sum(calls.look for calls in every),
            judge=sum(calls.judge for calls in every),
            choose=sum(calls.choose for calls in every),
            complete=sum(calls.complete for calls in every),
            failed=sum(calls.failed for calls in every),
            tokens=sum((calls.tokens for calls in every), NO_TOKENS),
        )

    @property
    def foreseen_calls(self) -> tuple[int, int]:
        """All calls, at least and at most, as they were expected once the looks were in."""
        low, high = (sum(one.clustering.foreseen_calls[end] for one in self.values()) for end in (0, 1))
        return self.calls.look + low, self.calls.look + high

    @property
    def failed_share(self) -> float:
        """The share of calls that finally failed, in [0, 1]."""
        calls = self.calls
        return calls.failed / calls.total if calls.total else 0.0

    @property
    def is_partial(self) -> bool:
        """Whether the budget ended before the questions did."""
        return any(one.clustering.is_partial for one in self.values())

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """Files that were found and could not be used, with the reason."""
        return self.collection.unreadable


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would take; nothing was asked to find out.

    images: distinct ones, each looked at once per interest. looks: over all interests, within the budget in calls.
    beside: calls beside the looks, (at least, at most). tokens: ((in, out) at least, at most), None for a model in this
    process; usd: their cost, (at least, at most), None without prices. minutes: (at least, at most), on two cores where
    the model runs here.
    """

    files_found: int
    unreadable: tuple[Unreadable, ...]
    images: int
    interests: tuple[str, ...]
    model: str
    looks: int
    beside: tuple[int, int]
    tokens: tuple[tuple[int, int], tuple[int, int]] | None
    usd: tuple[float, float] | None
    minutes: tuple[float, float] | None

    @property
    def calls(self) -> tuple[int, int]:
        """All calls, (at least, at most)."""
        return self.looks + self.beside[0], self.looks + self.beside[1]


def cluster(
    folder: PathLike,
    by: str | Sequence[str],
    *,
    model: str | Model = "nano",
    options: ModelOptions | None = None,
    out: PathLike | None = None,
    settings: Settings | None = None,
    level: Level | None = None,
    n_clusters: int | None = None,
    into: Sequence[str] | None = None,
    links: bool = False,
    on_event: OnEvent | None = None,
) -> Result:
    """Sort the images of a folder by each interest and write the results.

    by: one interest or several, in plain words; each image's pixels are read once for all of them.
    model: a name (`nano`, `openai:NAME`) or any object that follows `manylens.models.base.Model`; where it has `open`,
    it is given the pictures through that.
    options: what else there is to say about a named model: its server's address, the size of the images it is sent.
    out: the run folder; by default `<folder's name>-manylens` in the current directory. A run that is there already is
    continued: answers it has are not asked again. level, n_clusters, into: how fine the clusters are, how many, or
    which (as in `Settings`, where they may stand, too); another level of a finished run asks few questions, or none.
    links: also make `clusters/<name>/` folders of symbolic links.
    on_event: gets every stage's events, in the thread that works.

    Works inside a running event loop too (a notebook), where it blocks until done. Raises UsageError for a folder or
    interest that cannot be used, StoreError for a run folder that cannot, ModelError where the model cannot start.
    """
    interests = parse_interests(by)
    place = Path(folder)
    return run_until_done(
        _cluster(
            place,
            interests,
            model=model,
            options=options or ModelOptions(),
            out=Path(out) if out is not None else default_out(place),
            settings=_adapted(settings or Settings(), level=level, n_clusters=n_clusters, into=into),
            links=links,
            emit=on_event or _ignore,
        )
    )


def plan(
    folder: PathLike,
    by: str | Sequence[str],
    *,
    model: str = "nano",
    options: ModelOptions | None = None,
    settings: Settings | None = None,
) -> Plan:
    """Read the folder's images and say what `cluster` would ask of the model. Asks and writes nothing."""
    interests = parse_interests(by)
    check_model_name(model, options)
    options = options or ModelOptions()
    return _plan(find_images(folder), interests, model, options, settings or Settings())


def _plan(
    collection: Collection, interests: Sequence[Interest], model: str, options: ModelOptions, settings: Settings
) -> Plan:
    here = is_local(model, options)
    most = math.inf if settings.budget_calls is None else settings.budget_calls
    looks = int(min(len(collection.images) * len(interests), most))
    writes = not here or model.startswith(HF_PREFIX)
    each = calls_before_looks(len(collection.images), settings.effort, writes)
    beside = (int(min(each[0] * len(interests), most - looks)), int(min(each[1] * len(interests), most - looks)))
    side_by_side = 1 if here else options.concurrency
    seconds = (1 / NANO_LOOKS_PER_SECOND if here else SECONDS_PER_SERVER_CALL) / side_by_side
    tokens = None if here else tuple(_plan_tokens(looks, count, options.image_px) for count in beside)
    return Plan(
        files_found=collection.files_found,
        unreadable=collection.unreadable,
        images=len(collection.images),
        interests=tuple(interest.text for interest in interests),
        model=model,
        looks=looks,
        beside=beside,
        tokens=tokens,  # type: ignore[arg-type]  # two of them
        usd=tuple(settings.cost_usd(*count) for count in tokens)  # type: ignore[arg-type]
        if tokens is not None and settings.is_priced
        else None,
        minutes=None
        if here and not model.startswith("nano")
        else tuple((looks + count) * seconds / 60 for count in beside),  # type: ignore[arg-type]
    )


def _plan_tokens(looks: int, choices: int, image_px: int) -> tuple[int, int]:
    picture, small = (math.ceil(side_px**2 / PIXELS_PER_TOKEN) for side_px in (image_px, min(image_px, THUMBNAIL_PX)))
    into = looks * (LOOK_TOKENS[0] + picture) + choices * (CHOICE_TOKENS[0] + (1 + CHOICE_EXEMPLARS) * small)
    return into, looks * LOOK_TOKENS[1] + choices * CHOICE_TOKENS[1]


def tune(
    folder: PathLike,
    by: str | Sequence[str],
    *,
    teacher: str | Model,
    teacher_calls: int,
    out: PathLike,
    student: str | None = None,
    options: ModelOptions | None = None,
    settings: TuneSettings | Mapping[str, int] | None = None,
    on_event: OnEvent | None = None,
) -> Tuned:
    """Tune a student on the images of a folder by what a teacher says of a sample of them (`manylens.tune`).

    teacher: a name, or any object that follows the protocol, as for `cluster`. teacher_calls: hard bound on what it is
    asked, over all interests. out: a run folder for the teacher's answers and the result; the same call goes on with
    what is there. student: `hf:FOLDER_OR_ID`, or None for nano. options: of the teacher; `device` and `image_px` are
    the student's, too. settings: those of training, or some of them by name. Raises as `cluster` does.
    """
    interests = parse_interests(by)
    place, into = Path(folder), Path(out)
    chosen, emit = options or ModelOptions(), on_event or _ignore
    recipe = settings if isinstance(settings, TuneSettings) else TuneSettings(**(settings or {}))
    if student is not None and not student.startswith(HF_PREFIX):
        raise UsageError(
            f"a student is a checkpoint, hf:FOLDER or hf:ORG/NAME, got {student!r}", "leave it out for nano"
        )
    if student is not None:
        find_checkpoint(student.removeprefix(HF_PREFIX), chosen.device)

    async def work() -> Tuned:
        async with _open_run(place, into, teacher, chosen, 0, emit) as (_, collection, source, recorded):
            return await tune_student(
                [image.id for image in collection.images],
                interests,
                recorded,
                teacher_calls,
                source,
                into,
                student=student,
                options=chosen,
                settings=recipe,
                emit=emit,
            )

    return run_until_done(work())


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
        if interest.slug in taken:
            raise UsageError(
                f"interests of one run need different folder names, got {taken[interest.slug]!r} and "
                f"{interest.text!r}, both {interest.slug!r}",
                "leave one out, or word it differently",
            )
        taken[interest.slug] = interest.text
    return interests


def _adapted(settings: Settings, **given: Any) -> Settings:
    """The settings with what was said beside them."""
    said = {name: value for name, value in given.items() if value is not None}
    if "into" in said:
        said["into"] = listed_names(said["into"]) if isinstance(said["into"], str) else tuple(said["into"])
    return dataclasses.replace(settings, **said)


def default_out(folder: Path) -> Path:
    """`<folder's name>-manylens` in the current directory."""
    return Path(f"{Path(os.path.abspath(folder)).name or 'images'}-manylens")


@asynccontextmanager
async def _open_run(
    folder: Path, out: Path, model: str | Model, options: ModelOptions, seed: int, emit: OnEvent
) -> AsyncIterator[tuple[RunFolder, Collection, StoredImages, Recorded]]:
    """A run folder with the images of `folder` in it, and the model that answers from it where it can."""
    if isinstance(model, str):
        check_model_name(model, options)
    else:
        check_model(model)
    if not folder.is_dir():
        find_images(folder)  # raises and says why, before a run folder is made
    fresh = not out.exists()
    with RunFolder.open(out) as run:
        try:
            if isinstance(model, str):
                probe_model(model, options, out / MODELS_NAME)
            collection = _read(folder, run, emit)
        except (UsageError, ModelUnavailable):
            if fresh:  # a mistyped folder or address must not leave an empty run behind
                shutil.rmtree(out, ignore_errors=True)
            raise
        source = StoredImages(collection.root, collection.images, run.thumbnail)
        if isinstance(model, str):
            chosen = load_model(model, source, run.features, options, recorded=out / MODELS_NAME)
        else:
            chosen = model
            open_model(chosen, source)
        is_served = chosen.capabilities.batch_size == 1
        recorded = Recorded(
            Paced(chosen, timeout_s=options.timeout_s, seed=seed, notify=lambda text: emit(Notice(text)))
            if is_served
            else chosen,
            run,
            lambda calls: emit(Stopping(calls)),
        )
        try:
            yield run, collection, source, recorded
        finally:
            await close_model(chosen)


async def _cluster(
    folder: Path,
    interests: Sequence[Interest],
    *,
    model: str | Model,
    options: ModelOptions,
    out: Path,
    settings: Settings,
    links: bool,
    emit: OnEvent,
) -> Result:
    began = time.monotonic()
    fresh = not out.exists()
    async with _open_run(folder, out, model, options, settings.seed, emit) as (run, collection, source, recorded):
        planned = _plan(collection, interests, recorded.name, options, settings)
        emit(Foreseen("", *planned.calls))
        ids = [image.id for image in collection.images]
        shared = (
            stand_ins({i: fingerprint(source.thumbnail(i)) for i in ids}) if settings.share_near_duplicates else None
        )
        found = await cluster_images(ids, interests, recorded, settings, emit, shared)
        clusterings = [found[interest] for interest in interests]
        written = [REPORT_NAME, UNREADABLE_NAME]
        written += [f"{interest.slug}/{file}" for interest in interests for file in RESULT_FILES]
        run.forget_results(written)
        write_unreadable(out, collection)

        def thumbnail(image_id: str) -> bytes:
            with PillowImage.open(io.BytesIO(run.thumbnail(image_id)), formats=("JPEG",)) as picture:
                return encode_thumbnail(picture)

        page = render_report(clusterings, collection, thumbnail, version=__version__)
        report = out / REPORT_NAME
        write_atomically(report, page)
        results = {}
        for clustering in clusterings:
            seconds = time.monotonic() - began
            below = write_results(
                out, clustering, collection, settings=settings, seconds=seconds, version=__version__, links=links
            )
            results[clustering.interest.text] = InterestResult(
                clustering,
                _labels(clustering, collection),
                _table(clustering, collection),
                count_files(clustering, collection),
                below,
                report,
            )
        run.record_results(written)
    kept = 0 if fresh else recorded.reused.total()  # a fresh run reuses its own answers only
    return Result(
        out,
        collection,
        results,
        calls_asked=recorded.asked.total(),
        calls_kept=kept,
        planned_calls=planned.calls,
    )


def _read(folder: Path, run: RunFolder, emit: OnEvent) -> Collection:
    """Stage `read`: find, hash and shrink the images; the run keeps their thumbnails."""
    emit(StageStarted("read", "", None))
    collection = find_images(
        folder,
        known=run.known_images(),
        keep=run.put_thumbnails,
        on_progress=lambda done, total: emit(StageAdvanced("read", "", done, total)),
    )
    before = {image.id for image in run.images()}
    gone = before - {image.id for image in collection.images}
    if gone and collection.images:
        images = counted(len(gone), "image that is", "images that are")
        emit(
            Notice(
                f"{run.path} holds {images} not in {printable(str(folder))}: its results for the interests asked now "
                "are replaced, those for others stay as they were; no answer is lost"
            )
        )
    run.record_collection(collection.images, collection.unreadable)
    readable = collection.files_found - len(collection.unreadable)
    detail = counted(readable, "image")
    if readable > len(collection.images):
        detail += f" ({len(collection.images):,} distinct)"
    if collection.unreadable:
        detail += f", {len(collection.unreadable):,} unreadable"
    if collection.skipped_count:
        detail += f", {counted(collection.skipped_count, 'other file')} skipped (no pictures, or hidden)"
    emit(StageFinished("read", "", detail))
    return collection


def _labels(clustering: Clustering, collection: Collection) -> dict[str, str | None]:
    names = {cluster.id: cluster.name for cluster in clustering.clusters}
    placed = {a.image_id: names[a.cluster] for a in clustering.assignments if a.cluster is not None}
    pairs = ((path, placed.get(image.id)) for image in collection.images for path in image.paths)
    return dict(sorted(pairs, key=lambda pair: pair[0]))


def _table(clustering: Clustering, collection: Collection) -> tuple[ClusterRow, ...]:
    confidences: dict[int, list[float]] = {}
    for assignment in clustering.assignments:
        if assignment.cluster is not None:
            confidences.setdefault(assignment.cluster, []).append(assignment.confidence)
    return tuple(
        ClusterRow(
            id=values["id"],
            name=values["name"],
            definition=values["definition"],
            size=values["size"],
            confidence=fmean(confidences.get(values["id"], [0.0])),
            exemplars=tuple(values["exemplars"]),
            misplaced=None if values["misplaced"] is None else Misplaced.from_dict(values["misplaced"]),
        )
        for values in cluster_values(clustering, collection)
    )


def _ignore(event: Event) -> None:
    pass
