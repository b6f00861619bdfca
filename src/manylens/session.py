"""Opening a run: the run folder, the images in it, and the model that answers from it where it can.

In: a folder of images, a run folder's place, a model. Out: one `Session`. Promise: nothing is left behind where the
folder or the model cannot be used.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from manylens.collection.addresses import shown_address
from manylens.collection.find import Collection, find_images, open_source
from manylens.collection.pictures import StoredImages
from manylens.collection.source import Place, Source
from manylens.engine import Engine, LocalEngine
from manylens.errors import ModelUnavailable, UsageError
from manylens.events import Event, Notice, StageAdvanced, StageFinished, StageStarted, Stopping
from manylens.files import network_drive
from manylens.models.base import Model, ModelOptions, check_model
from manylens.models.caching import CachingModel, open_account
from manylens.models.registry import check_model_name
from manylens.models.retrying import RetryingModel
from manylens.results.table import collection_of
from manylens.settings import Settings
from manylens.store.run_folder import RunFolder
from manylens.text import counted, printable, shown_name

OnEvent: TypeAlias = Callable[[Event], None]

MODELS_NAME = "models.json"
"""In a run folder: what was found out about models behind servers."""


_ON_NETWORK = (
    "{out} is on a network drive ({kind}), where a database can be damaged and each answer waits for the network: keep "
    "it on a disk of this computer, such as {here}, and copy the finished folder"
)


def _local_place(out: Path) -> Path:
    """Where on this computer a run folder of that name could be."""
    for place in (Path.home(), Path(tempfile.gettempdir())):
        if not network_drive(place):
            break
    return place / out.name


@dataclass(frozen=True, slots=True)
class Session:
    """An open run. collection: what the folder holds. images: its pixels. model: answers from the run where it can.
    is_fresh: whether there was no run before."""

    run: RunFolder
    collection: Collection
    images: StoredImages
    model: CachingModel
    is_fresh: bool


@asynccontextmanager
async def open_session(
    folder: Place,
    out: Path,
    model: str | Model,
    options: ModelOptions,
    settings: Settings,
    emit: OnEvent,
    files: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    is_sample: bool = False,
    reread: bool = True,
    engine: Engine | None = None,
    is_addition: bool = False,
) -> AsyncIterator[Session]:
    """Open the run at `out` on the images of `folder` (any place that `open_source` opens), or on those of its `files`
    alone; the limits of the settings hold from the first request on. is_sample: the files stand for others, and what
    the run knows of its collection stays as it is. reread: find out what the folder holds; else it is what the run
    recorded. engine: who carries out the model's calls, by default this process. is_addition: what was found of
    pictures that are still there stays, and the limits are for what comes from now on.

    Raises UsageError, StoreError, ModelError as `cluster` does.
    """
    if isinstance(model, str):
        check_model_name(model, options)
    else:
        check_model(model)
    if isinstance(folder, str):
        emit(Notice(f"reading {printable(shown_address(folder))}"))  # an archive or a table is fetched whole
    source = open_source(folder)  # raises and says why, before a run folder is made
    engine = engine or LocalEngine()
    fresh = not out.exists()
    with RunFolder.open(out) as run:
        if kind := network_drive(out):
            emit(Notice(_ON_NETWORK.format(out=out, kind=kind, here=_local_place(out))))
        account = open_account(run)
        account.limit(settings)
        if is_addition:
            account.begin_anew()
        try:
            with account.probing():
                engine.probe(model, options, out / MODELS_NAME)
            collection = (
                _read(source, files, exclude, include, run, emit, is_sample, is_addition)
                if reread
                else collection_of(run, folder)
            )
        except (UsageError, ModelUnavailable):
            # A mistyped folder or address must not leave an empty run behind; but of a run with limits the account
            # stays, or those of the next one would begin anew.
            if fresh and not (settings.is_limited and account.calls):
                shutil.rmtree(out, ignore_errors=True)
            raise
        images = StoredImages(source, collection.images, run.thumbnail)
        async with engine.opened(model, images, options, run.features, out / MODELS_NAME) as chosen:
            if hasattr(chosen, "on_notice"):
                chosen.on_notice = lambda text: emit(Notice(text))
            is_served = chosen.capabilities.batch_size == 1
            recorded = CachingModel(
                RetryingModel(
                    chosen, timeout_s=options.timeout_s, seed=settings.seed, notify=lambda text: emit(Notice(text))
                )
                if is_served
                else chosen,
                run,
                lambda calls: emit(Stopping(calls)),
                account,
                ask_again=options.ask_again,
            )
            yield Session(run, collection, images, recorded, fresh)


def run_options(run: RunFolder, said: ModelOptions | Mapping[str, Any] | None) -> ModelOptions:
    """Of a run that is there. said: all of them, or some by name: pictures are then sent as large as they were."""
    if isinstance(said, ModelOptions):
        return said
    size = run.read_as().get("image_px")
    known = {"image_px": size} if isinstance(size, int) else {}
    return ModelOptions(**{**known, **(said or {})})


_NAMED = 5
"""Files that a notice names; result files and the report name all."""


def tell_failures(session: Session, emit: OnEvent) -> None:
    """What result files do not say of calls that failed: the server's words, and which pictures it fails on."""
    for said, times in session.model.said.most_common(1):
        if times:
            emit(Notice(f"of the calls that failed, {times:,} for this reason: {said}"))
    paths = sorted(image.paths[0] for image in session.collection.images if image.id in session.model.given_up)
    if paths:
        named = ", ".join(map(shown_name, paths[:_NAMED])) + (", ..." if len(paths) > _NAMED else "")
        emit(
            Notice(
                f"{counted(len(paths), 'picture')} given up, because the model fails there and answers about others: "
                f"{named}. Later runs leave {'it' if len(paths) == 1 else 'them'} out, unless they have --ask-again"
            )
        )


def _read(
    source: Source,
    files: Sequence[str] | None,
    exclude: Sequence[str],
    include: Sequence[str],
    run: RunFolder,
    emit: OnEvent,
    is_sample: bool = False,
    is_addition: bool = False,
) -> Collection:
    """Stage `read`: find, hash and shrink the images; the run keeps their thumbnails."""
    emit(StageStarted("read", "", None))
    collection = find_images(
        source,
        files,
        exclude=exclude,
        include=include,
        known=run.known_images(),
        keep=run.put_thumbnails,
        on_progress=lambda done, total: emit(StageAdvanced("read", "", done, total)),
    )
    before = set() if is_sample else run.image_ids()
    gone = before - {image.id for image in collection.images}
    if gone and collection.images and not is_addition:
        images = counted(len(gone), "picture that is", "pictures that are")
        emit(
            Notice(
                f"{run.path} holds {images} not in {printable(source.place)}: its results for the interests asked now "
                "are replaced, those for others stay as they were; no answer is lost"
            )
        )
    if not is_sample:
        run.record_collection(collection.images, collection.unreadable, source.place, source.root)
        collection = dataclasses.replace(collection, images=run.images())  # which knows the frames of those it had, too
    readable = collection.files_found - len(collection.unreadable)
    detail = counted(readable, "picture")
    if readable > len(collection.images):
        detail += f" ({len(collection.images):,} distinct)"
    if collection.animated_count:
        moving = counted(collection.animated_count, "animation or video", "animations and videos")
        detail += f", {moving} by the middle frame"
    if collection.unreadable:
        detail += f", {len(collection.unreadable):,} unreadable"
    if collection.skipped_count:
        detail += f", {counted(collection.skipped_count, 'other file')} skipped (no pictures, or hidden)"
    if collection.packed_count:
        detail += f", {counted(collection.packed_count, 'archive')} not opened (give it itself)"
    if collection.left_out_count:
        detail += f", {collection.left_out_count:,} left out (thumbnails, trash, or excluded)"
    emit(StageFinished("read", "", detail))
    return collection
