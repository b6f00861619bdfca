"""From a folder and some interests to a finished run folder: what the command line, the estimator and Python share.

In: images, interests in plain words, a model. Out: a `Result`, and files in the run folder. Promise: the same call with
the same `out` continues where an earlier one stopped, asks nothing twice, and ends with the same files.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from manylens import __version__
from manylens.collection.changes import changes
from manylens.collection.find import Collection, find_images, open_source
from manylens.collection.near_duplicates import fingerprint, stand_ins
from manylens.collection.pictures import StoredImages
from manylens.collection.source import Place, as_place, place_name
from manylens.correcting import door
from manylens.correcting.corrector import Change, Corrector
from manylens.correcting.edited import set_aside
from manylens.correcting.files import write_files
from manylens.correcting.resort import Resorted, sort_again, take_over
from manylens.correcting.review import Review
from manylens.correcting.settle import evidence_of, record, record_added, settled
from manylens.engine import Engine, engine_named
from manylens.errors import UsageError
from manylens.events import Notice
from manylens.method.observations import Looks
from manylens.models.base import Model, ModelOptions, ask_doubt
from manylens.models.huggingface.checkpoint import find_checkpoint
from manylens.models.huggingface.model import HF_PREFIX
from manylens.models.registry import check_model_name, doubt_of, identity_start, is_local, is_nano, load_model
from manylens.pipeline.add import add_images
from manylens.pipeline.budget import Budget
from manylens.pipeline.compound import compound_parts, grown, looked_at, sort_images, with_parts
from manylens.pipeline.look import look_at_images
from manylens.pipeline.pace import CALIBRATED_ON, Forecaster, calibrate
from manylens.pipeline.plan import NOTHING, Plan, earlier, held_by, known_pace, plan_run, usd_of
from manylens.pipeline.run import edge_scale
from manylens.progress import following
from manylens.results.exports import Exported, Format, Mode, export_run
from manylens.results.result import InterestResult, Result
from manylens.results.table import as_of
from manylens.session import OnEvent, Session, open_session, run_options, tell_failures
from manylens.settings import Level, Settings, TuneSettings, listed_names
from manylens.store.run_folder import RunFolder
from manylens.sync import run_until_done
from manylens.text import printable
from manylens.tuning.tune import Tuned, tune_student
from manylens.types import Clustering, Correction, Interest, Thumbnail, parse_interests

PathLike: TypeAlias = str | os.PathLike[str]


def cluster(
    folder: PathLike,
    by: str | Sequence[str],
    *,
    files: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    model: str | Model = "nano",
    options: ModelOptions | None = None,
    engine: str | Engine | None = None,
    out: PathLike | None = None,
    settings: Settings | None = None,
    level: Level | None = None,
    n_clusters: int | None = None,
    into: Sequence[str] | None = None,
    links: bool = False,
    on_event: OnEvent | None = None,
    progress: bool | None = None,
) -> Result:
    """Sort the images of a folder by each interest and write the results.

    folder: or an archive (zip, tar), a list (CSV, text, Parquet) of pictures, paths or addresses, or the address of one
    of these or of a folder in an object store. by: one interest or several, in plain words; each image's pixels are
    read once for all of them. "color and kind of fruit" is sorted by each of the two and by both, unless
    `Settings(compound=False)`.
    files: only these of the folder, by their paths in it; by default all that are images.
    exclude, include: patterns as in .gitignore, of files and folders to leave out, and of those alone to take.
    model: a name (`nano`, `openai:NAME`) or any object that follows `manylens.models.base.Model`; where it has `open`,
    it is given the pictures through that.
    options: what else there is to say about a named model: its server's address, the size of the images it is sent.
    engine: who carries out the model's calls: `local`, this process, or `ray`, replicas of the model on this machine or
    on those of a cluster (`RayEngine(address=...)`); the results are the same.
    out: the run folder; by default `<folder's name>-manylens` in the current directory. A run that is there already is
    continued: answers it has are not asked again. level, n_clusters, into: how fine the clusters are, how many, or
    which (as in `Settings`, where they may stand, too); another level of a finished run asks few questions, or none.
    links: also make `clusters/<name>/` folders of symbolic links.
    on_event: gets every stage's events, in the thread that works. progress: show them as text; None is yes in a
    notebook or a terminal, unless there is an `on_event`. What a log should know goes to the logger `manylens`.

    Works inside a running event loop too (a notebook), where it blocks until done. Raises UsageError for a folder or
    interest that cannot be used, StoreError for a run folder that cannot, ModelError where the model cannot start.
    """
    place = as_place(folder)
    chosen = _adapted(settings or Settings(), level=level, n_clusters=n_clusters, into=into)
    interests = with_parts(parse_interests(by), chosen)
    with following(progress, on_event) as emit:
        return run_until_done(
            _cluster(
                place,
                interests,
                files=files,
                exclude=exclude,
                include=include,
                model=model,
                options=options or ModelOptions(),
                engine=engine_named(engine),
                out=Path(out) if out is not None else default_out(place),
                settings=chosen,
                links=links,
                emit=emit,
            )
        )


def plan(
    folder: PathLike,
    by: str | Sequence[str],
    *,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    model: str = "nano",
    options: ModelOptions | None = None,
    out: PathLike | None = None,
    settings: Settings | None = None,
) -> Plan:
    """Read the folder's images and say what `cluster` would ask of the model. Sends and writes nothing.

    The time is measured: nano looks at a few of the pictures; of another model it is what its calls took in the earlier
    run of the folder `out`, else supposed. Words that the model may not read are in `doubts`.
    """
    chosen = settings or Settings()
    interests = looked_at(with_parts(parse_interests(by), chosen), chosen)
    check_model_name(model, options)
    said = options or ModelOptions()
    some: dict[str, bytes] = {}

    def keep(thumbnails: Sequence[Thumbnail]) -> None:
        some.update((t.image_id, t.jpeg) for t in thumbnails[: max(0, CALIBRATED_ON - len(some))])

    began = time.monotonic()
    collection = find_images(folder, exclude=exclude, include=include, keep=keep)
    read_s = time.monotonic() - began
    ids, place = [image.id for image in collection.images], None if out is None else Path(out)
    pace = None if place is None else earlier(place, model, said, len(interests))
    identity = identity_start(model, said)
    if pace is None and is_nano(model, said):
        images = StoredImages(collection.source or collection.root, collection.images, some.__getitem__)
        nano = load_model(model, images, options=said)
        pace, identity = run_until_done(calibrate(nano, sorted(some), interests)), nano.identity
    held = NOTHING if place is None else held_by(place, identity, said, interests, ids, chosen)
    doubts = [_doubtful(interest, doubt_of(model, interest.text, said)) for interest in interests]
    return plan_run(
        collection, interests, model, said, chosen, pace, read_s, [doubt for doubt in doubts if doubt], held
    )


def export(
    out: PathLike | Result,
    to: Format,
    *,
    dest: PathLike | None = None,
    folder: PathLike | None = None,
    by: str | None = None,
    only: Sequence[str] | None = None,
    mode: Mode | None = None,
    preview: bool = False,
    undo: bool = False,
) -> Exported:
    """Write what a run found in a form that other programs read; asks no model.

    out: a run folder, or the result of `cluster`. to: `parquet` (every file, every interest's cluster, name,
    confidence and embedding), `csv` or `json` (the same without embeddings), `hf` (a Hugging Face dataset with the
    pictures), `fiftyone` (a dataset in FiftyOne, or with `dest` its form on disk), `coco`, `xmp` (keywords in
    side-cars) or `folders`. dest: where to; by default `OUT/exports/`, beside the pictures for `xmp`, and for `folders`
    it must be said. folder: where the pictures are, if no longer where they were. by: this interest alone. only: these
    pictures, by their paths or ids. mode: of folders, `copy` (the default), `hardlink`, `symlink` or `move`. preview:
    say what would be done to files. undo: of folders and `xmp`, take back what an earlier call did.

    Nothing is overwritten but an earlier export in `OUT/exports`; what could not be done is in `left` with its reason.
    Raises StoreError where there is no run, UsageError for what cannot be exported so, or where the form's
    library is not installed.
    """
    run = out.out if isinstance(out, Result) else out
    return export_run(run, to, dest=dest, folder=folder, by=by, only=only, mode=mode, preview=preview, undo=undo)


def describe(
    folder: PathLike,
    by: str,
    files: Sequence[str],
    *,
    model: str | Model,
    options: ModelOptions | None = None,
    progress: bool | None = None,
) -> tuple[Looks, Collection]:
    """One look at each of these files of a folder through one interest, and nothing else. Leaves nothing behind.

    Raises as `cluster` does.
    """
    interests = parse_interests(by)

    async def work(out: Path, emit: OnEvent) -> tuple[Looks, Collection]:
        async with open_session(
            as_place(folder), out, model, options or ModelOptions(), Settings(), emit, files
        ) as session:
            ids = [image.id for image in session.collection.images]
            looks = await look_at_images(ids, interests, session.model, emit)
            return looks[interests[0]], session.collection

    with tempfile.TemporaryDirectory(prefix="manylens-") as scratch, following(progress, None) as emit:
        return run_until_done(work(Path(scratch) / "run", emit))


def add(
    out: PathLike,
    folder: PathLike,
    *,
    model: str | Model | None = None,
    options: ModelOptions | Mapping[str, Any] | None = None,
    engine: str | Engine | None = None,
    settings: Settings | None = None,
    on_event: OnEvent | None = None,
    progress: bool | None = None,
) -> Result:
    """Pictures that came into the folder since it was sorted join its clusterings, every interest of the run `out`.

    What was placed stays where it is, clusters keep their ids and names, new ones may appear. Pictures that are gone
    leave their clusters; what was removed, moved or edited is told (`Result.changes`). model: the one that the run
    used, which needs saying where it is an object, or behind a server. options: as for `cluster`, or some of them by
    name. settings: limits on what the addition may cost (`budget_calls`, `budget_usd`); all else, `exclude` and
    `include` too, is as the run had it. engine, progress: as for `cluster`. Raises as that does, and UsageError where
    the folder holds none of the run's pictures.
    """
    with following(progress, on_event) as emit:
        return run_until_done(
            _add(
                as_place(folder),
                model=model,
                options=options,
                engine=engine_named(engine),
                out=Path(out),
                budget=settings or Settings(),
                emit=emit,
            )
        )


def correct(
    out: PathLike | Result,
    by: str | None,
    corrections: Sequence[Correction | Mapping[str, Any]],
    *,
    dry_run: bool = False,
) -> Change:
    """Say what is wrong with a finished clustering; it outranks the model, and holds in every later run.

    out: a run folder, or the result of `cluster`. by: the interest, in words; None where the run has one. corrections:
    `Correction`s, or their values: `{"kind": "move", "images": ["a.jpg"], "cluster": "hearts"}`. They are one step,
    which `undo` takes back as a whole. dry_run: say what would change, and keep nothing.

    Asks no model; the result files are written anew. Raises UsageError for a picture or a cluster that is not there,
    StoreError where there is no run.
    """
    return door.correct(_run_of(out), by, corrections, dry_run=dry_run)


def undo(out: PathLike | Result, by: str | None = None) -> Change | None:
    """Take the last step of corrections back; None where there is none left."""
    return door.undo(_run_of(out), by)


def redo(out: PathLike | Result, by: str | None = None) -> Change | None:
    """Say again what `undo` took back, the latest first; None where there is none, or something new was said since."""
    return door.redo(_run_of(out), by)


def review(out: PathLike | Result, by: str | None = None, *, limit: int = 20, skipped: Sequence[str] = ()) -> Review:
    """What a person should look at first: the pictures about which an answer is expected to put most right.

    Answer with `correct`: "confirm" (yes), "not" (no) or "move" (which), and ask again: each answer counts for those
    like it, and lowers the estimate of what is misplaced. skipped: ids of pictures that the person does not know. Asks
    no model. Raises as `correct` does.
    """
    return door.review(_run_of(out), by, limit=limit, skipped=skipped)


def resort(
    out: PathLike | Result,
    by: str | None = None,
    *,
    ask: bool = False,
    apply: bool = False,
    folder: PathLike | None = None,
    model: str | Model | None = None,
    options: ModelOptions | Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    on_event: OnEvent | None = None,
    progress: bool | None = None,
) -> Resorted:
    """Sort again what the corrections touch: pictures described like one that was moved, and those that look misplaced
    in the light of what a person said.

    By default it asks nothing and says what is expected to move and to be asked. ask: ask the model, and say what would
    move; the answers are stored, so that it costs nothing the next time. apply: ask, and take the moves over, as one
    step that `undo` takes back. What a person placed never moves. folder, model, options: where the pictures are, and
    the model, where they are not those of the run; options as for `add`. settings: limits on what may be spent. Raises
    as `correct` and `cluster` do, and UsageError where the clustering was made with another model.
    """
    run = _run_of(out)
    if not (ask or apply):
        return door.foresee_resort(run, by)
    with following(progress, on_event) as emit:
        return run_until_done(_resort(run, by, apply, folder, model, options, settings or Settings(), emit))


async def _resort(
    out: Path,
    by: str | None,
    apply: bool,
    folder: PathLike | None,
    model: str | Model | None,
    options: ModelOptions | Mapping[str, Any] | None,
    limits: Settings,
    emit: OnEvent,
) -> Resorted:
    with RunFolder.open(out, must_exist=True) as run:
        slug = door.slug_in(run, by)
        shown = Corrector(run, slug).shown
        recorded = run.place() if folder is None else folder
        chosen = run_options(run, options)
    # An address in a run folder, which may be somebody else's, is not asked because it stands there.
    if recorded is None or (folder is None and "://" in str(recorded)):
        where = "their folder is not known" if recorded is None else f"which were at {printable(str(recorded))}"
        raise UsageError(f"sorting again reads the pictures, {where}", "say where they are: folder")
    async with open_session(
        as_place(recorded), out, model or shown.model, chosen, limits, emit, reread=False
    ) as session:
        corrector = Corrector(session.run, slug)
        resorted = await sort_again(corrector, session.model, emit, limits)
        if apply:
            door.keep_edited(session.run, [slug], lambda text: emit(Notice(text)))
            take_over(corrector, resorted)
            door.bring_up_to_date(session.run, lambda text: emit(Notice(text)))
    return resorted


def _run_of(out: PathLike | Result) -> Path:
    return out.out if isinstance(out, Result) else Path(out)


def tune(
    folder: PathLike,
    by: str | Sequence[str],
    *,
    teacher: str | Model,
    teacher_calls: int,
    out: PathLike,
    student: str,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    options: ModelOptions | None = None,
    settings: TuneSettings | Mapping[str, int] | None = None,
    on_event: OnEvent | None = None,
    progress: bool | None = None,
) -> Tuned:
    """Tune a student on the images of a folder by what a teacher says of a sample of them (`manylens.tune`).

    teacher: a name, or any object that follows the protocol, as for `cluster`. teacher_calls: hard bound on what it is
    asked, over all interests. out: a run folder for the teacher's answers and the result; the same call goes on with
    what is there. student: `hf:FOLDER_OR_ID`; nano cannot be tuned. exclude, include, progress: as for `cluster`.
    options: of the teacher; `device` and `image_px` are the student's, too. settings: those of training, or some of
    them by name. Raises as `cluster` does.
    """
    interests = parse_interests(by)
    place, into = as_place(folder), Path(out)
    chosen = options or ModelOptions()
    recipe = settings if isinstance(settings, TuneSettings) else TuneSettings(**(settings or {}))
    if not student.startswith(HF_PREFIX):
        raise UsageError(
            f"a student is a checkpoint, hf:FOLDER or hf:ORG/NAME, got {student!r}",
            "pass one, such as hf:HuggingFaceTB/SmolVLM-256M-Instruct; nano cannot be tuned",
        )
    find_checkpoint(student.removeprefix(HF_PREFIX), chosen.device)

    async def work(emit: OnEvent) -> Tuned:
        limits = Settings(budget_calls=teacher_calls)
        async with open_session(
            place, into, teacher, chosen, limits, emit, exclude=exclude, include=include
        ) as session:
            return await tune_student(
                [image.id for image in session.collection.images],
                interests,
                session.model,
                teacher_calls,
                session.images,
                into,
                student=student,
                options=chosen,
                settings=recipe,
                emit=emit,
            )

    with following(progress, on_event) as emit:
        return run_until_done(work(emit))


def _adapted(settings: Settings, **given: Any) -> Settings:
    """The settings with what was said beside them."""
    said = {name: value for name, value in given.items() if value is not None}
    if "into" in said:
        said["into"] = listed_names(said["into"]) if isinstance(said["into"], str) else tuple(said["into"])
    return dataclasses.replace(settings, **said)


def default_out(folder: Place) -> Path:
    """`<folder's name>-manylens` in the current directory."""
    return Path(f"{place_name(folder) or 'images'}-manylens")


async def _cluster(
    folder: Place,
    interests: Sequence[Interest],
    *,
    files: Sequence[str] | None,
    exclude: Sequence[str],
    include: Sequence[str],
    model: str | Model,
    options: ModelOptions,
    engine: Engine,
    out: Path,
    settings: Settings,
    links: bool,
    emit: OnEvent,
) -> Result:
    began = time.monotonic()
    if links and open_source(folder).root is None:
        raise UsageError(
            f"links lead to files, the pictures of {printable(str(folder))} are no files of their own",
            "leave links out, or unpack or download them first",
        )
    simple = looked_at(interests, settings)
    for interest in simple:
        of = doubt_of(model, interest.text, options) if isinstance(model, str) else ask_doubt(model, interest.text)
        if doubt := _doubtful(interest, of):
            emit(Notice(doubt))
    pace = earlier(out, model, options, len(simple)) if isinstance(model, str) else None
    async with open_session(
        folder, out, model, options, settings, emit, files, exclude=exclude, include=include, engine=engine
    ) as session:
        collection, recorded = session.collection, session.model
        session.run.put_read_as({"exclude": list(exclude), "include": list(include), "image_px": options.image_px})
        ids = [image.id for image in collection.images]
        held = held_by(out, recorded.identity, options, simple, ids, settings)
        planned = plan_run(collection, simple, recorded.name, options, settings, held=held)
        is_named = isinstance(model, str)
        emit = forecaster = Forecaster(
            emit,
            recorded,
            settings,
            looks=planned.looks,
            interests=len(simple),
            beside=planned.beside,
            pace=(pace or known_pace(recorded.name, options, len(simple))) if is_named else None,
            usd_of=partial(usd_of, settings, options, pace) if settings.is_priced else None,
        )
        forecaster.begin()
        shared = (
            stand_ins({i: fingerprint(session.images.thumbnail(i)) for i in ids})
            if settings.share_near_duplicates
            else None
        )
        told = {interest: evidence_of(session.run, interest.slug) for interest in simple}
        known = {interest: one for interest, one in told.items() if one is not None}

        def corrected(part: Clustering) -> Clustering:
            return settled(session.run, part, settings)[0]

        found = await sort_images(ids, interests, recorded, settings, emit, shared, known, corrected)
        tell_failures(session, emit)
        sorted_ = [(found[interest], settings) for interest in interests]
        results = _write(session, sorted_, began, links, emit)
    edge = edge_scale(recorded.capabilities)
    kept = 0 if session.is_fresh else recorded.reused.total()  # a fresh run reuses its own answers only
    return Result(
        out,
        collection,
        results,
        calls_asked=recorded.asked.total(),
        calls_kept=kept,
        planned_calls=planned.calls_in_all,
        in_vain=recorded.account.beside,
        max_failed=settings.max_failed,
        edge=(edge.scale, edge.offset),
    )


def _doubtful(interest: Interest, doubt: str) -> str:
    """The sentence, with the cure; empty where there is no doubt."""
    cure = "say it in English, or use a larger model"
    return f'"{interest.text}" {doubt}, and nano reads English only: {cure}' if doubt else ""


async def _add(
    folder: Place,
    *,
    model: str | Model | None,
    options: ModelOptions | Mapping[str, Any] | None,
    engine: Engine,
    out: Path,
    budget: Settings,
    emit: OnEvent,
) -> Result:
    began = time.monotonic()
    with RunFolder.open(out, must_exist=True) as run:
        held, before, read_as = run.clusterings(), run.images(), run.read_as()
        chosen = run_options(run, options)
    if not held:
        raise UsageError(
            f"pictures are added to a finished clustering, {out} has none",
            "run the command that began it to its end; one of an earlier manylens needs it once more",
        )
    named = model or held[0][0].model
    if model is None and not is_local(str(named), chosen):
        raise UsageError(
            f"pictures leave this computer when that is said; this run's model, {named!r}, is behind a server",
            f"pass --model {named}, with --base-url where it had one",
        )
    left_out, taken = (_texts(read_as.get(name)) for name in ("exclude", "include"))
    async with open_session(
        folder, out, named, chosen, budget, emit, exclude=left_out, include=taken, engine=engine, is_addition=True
    ) as session:
        collection, recorded = session.collection, session.model
        changed = changes(before, collection.images)
        if changed.line:
            emit(Notice(f"since {out} was sorted, {changed.line}"))
        ids = [image.id for image in collection.images]
        if not {image.id for image in collection.images} & {a.image_id for one, _ in held for a in one.assignments}:
            raise UsageError(
                f"the folder is the collection's own, with more pictures in it, {folder} has none of those of {out}",
                "put the new pictures into the folder that was sorted",
            )
        spent = Budget(recorded, budget)
        done: dict[str, tuple[Clustering, Settings]] = {}
        for clustering, settings in held:
            earlier = as_of(clustering, collection)
            parts = [done.get(part.slug) for part in compound_parts(clustering.interest, settings)]
            if parts and all(parts):  # its parts stand before it; a run without them took it as one question
                now = grown(earlier, [part[0] for part in parts if part is not None])
            else:
                last_id = session.run.last_cluster_id(clustering.interest.slug)
                now = await add_images(earlier, ids, recorded, settings, emit, spent, last_id)
            done[clustering.interest.slug] = (now, settings)
        tell_failures(session, emit)
        results = _write(session, list(done.values()), began, False, emit, is_addition=True)
    return Result(
        out,
        collection,
        results,
        calls_asked=recorded.asked.total(),
        calls_kept=recorded.reused.total(),
        max_failed=budget.max_failed,
        changes=changed,
    )


def _texts(values: object) -> tuple[str, ...]:
    """Of what a run folder holds, which may be anything, the texts."""
    return tuple(value for value in values if isinstance(value, str)) if isinstance(values, list) else ()


def _write(
    session: Session,
    clusterings: Sequence[tuple[Clustering, Settings]],
    began: float,
    links: bool,
    emit: OnEvent,
    is_addition: bool = False,
) -> dict[str, InterestResult]:
    """Record what was decided, with what a person said applied, then write the files that show it: these interests' and
    the report of all."""
    run = session.run
    for aside in set_aside(run, [clustering.interest.slug for clustering, _ in clusterings]):
        emit(Notice(aside.notice))
    settle = record_added if is_addition else record
    settled = [(settle(run, clustering, settings), settings) for clustering, settings in clusterings]
    seconds = time.monotonic() - began
    return write_files(run, session.collection, settled, seconds=seconds, version=__version__, links=links)
