"""Routes by which a person corrects a clustering: corrections, undo and redo, judging again, the review queue.

In: what the person said, images by their ids. Out: what holds now. Promise: when an answer is sent, what was said is in
the run's database; the run is held for that moment only. Result files follow when the person pauses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request

from manylens.correcting import Change, Corrector
from manylens.correcting.resort import Proposed, Resorted, foresee, take_over
from manylens.correcting.review import review as find_doubts
from manylens.settings import ModelOptions, Settings
from manylens.text import shown_name
from manylens.types import Correction
from manylens.web import requests
from manylens.web.columns import ClusterColumns, ImageColumns, NotThere, no_such
from manylens.web.gallery import share
from manylens.web.job_keeper import job_request
from manylens.web.jobs import KeeperDep, check_server
from manylens.web.live import Watch
from manylens.web.routing import PROBLEMS, RunDep, SlugPath
from manylens.web.schemas import Job
from manylens.web.schemas_correcting import (
    Corrected,
    CorrectionLog,
    CorrectionOut,
    Moved,
    ReSorted,
    Review,
    ReviewItem,
    ReviewOption,
)
from manylens.web.shown import NotAllowed, ShownRun

router = APIRouter(prefix="/api/interests/{slug}", tags=["corrections"], responses=PROBLEMS)

_MOST_MOVES = 2000
"""Images that an answer about sorting again names; their number is said in full."""


@router.get("/corrections")
def get_corrections(slug: SlugPath, run: RunDep) -> CorrectionLog:
    """All that a person said about this interest, the newest last."""
    run.columns(slug)
    steps = run.reader().steps(slug)
    return CorrectionLog(
        corrections=[
            CorrectionOut(
                number=step.number,
                kind=step.rulings[0].kind if step.rulings else "",
                text=shown_name("; ".join(Corrector.describe(step))),
                images=len({image_id for ruling in step.rulings for image_id in ruling.images}),
                at=step.at,
                state="undone" if step.is_undone else "done",
            )
            for step in steps
        ],
        can_undo=any(not step.is_undone for step in steps),
        can_redo=any(step.is_undone for step in steps),
    )


@router.post("/corrections")
def correct(
    slug: SlugPath, run: RunDep, request: Request, correction: Annotated[requests.Correction, Body()]
) -> Corrected:
    """Say one thing. It outranks the model, and survives every later run."""
    images = run.images()
    said = _said(correction, images, run, slug)
    return _change(run, slug, request, lambda corrector: corrector.say(said))


@router.post("/undo")
def undo(slug: SlugPath, run: RunDep, request: Request) -> Corrected:
    """Take back what was said last."""
    return _change(run, slug, request, Corrector.undo)


@router.post("/redo")
def redo(slug: SlugPath, run: RunDep, request: Request) -> Corrected:
    """Say again what was taken back last."""
    return _change(run, slug, request, Corrector.redo)


@router.post("/re-sort")
def re_sort(slug: SlugPath, run: RunDep, request: Request, jobs: KeeperDep, how: requests.ReSort) -> ReSorted:
    """What sorting again would change: as the model answered where it was asked since the last correction, else as is
    expected, which costs nothing. With `apply`, what was answered is taken over, as one step that can be undone."""
    images, columns = run.both(slug)
    answered = _answered(run, slug, columns.version)
    if not how.apply:
        if answered is None:
            with run.reviewing(slug) as corrector:
                return _resorted(foresee(corrector), images, columns, columns.version, is_applied=False)
        return _resorted(answered, images, columns, columns.version, is_applied=False)
    if answered is None:
        raise NotAllowed(
            "what sorting again moves is taken over once the model was asked, it was not asked since the last change",
            "ask it first: /re-sort/ask",
            409,
        )
    with run.writing() as held:
        take_over(Corrector(held, slug), answered)
    run.note_correction(slug)
    watch: Watch = request.app.state.watch
    watch.wake()
    return _resorted(answered, images, columns, run.versions().get(slug, 0), is_applied=True)


@router.post("/re-sort/ask")
def ask_re_sort(slug: SlugPath, run: RunDep, jobs: KeeperDep, how: requests.AskReSort, request: Request) -> Job:
    """Ask the model about what the corrections touch, as a job; then /re-sort says what would move."""
    run.check_writable()
    check_server(run, how.base_url, is_local=request.app.state.is_local)
    columns = run.columns(slug)
    limits = {name: value for name, value in how.model_dump(exclude={"base_url"}).items() if value is not None}
    wanted = job_request(
        run.pictures(),
        [columns.of.interest.text],
        kind="re-sort",
        model=columns.of.model,
        options=ModelOptions(base_url=how.base_url or None),
        settings=Settings(**limits),
    )
    return jobs.shown(jobs.begin(wanted))


@router.get("/review")
def get_review(
    slug: SlugPath,
    run: RunDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    skipped: Annotated[list[str] | None, Query(max_length=500, description="Ids of images to leave out.")] = None,
) -> Review:
    """The images about which an answer is worth most. An answer is a correction: "confirm", "not" or "move"."""
    images, columns = run.both(slug)
    with run.reviewing(slug) as corrector:
        found = find_doubts(corrector, limit, images.whole_ids(skipped or []))
    rows = [images.row(one.image_id) for one in found.doubts]
    return Review(
        version=columns.version,
        estimate=share(found.estimate),
        items=[
            ReviewItem(
                id=images.keys[row],
                path=shown_name(images.paths[row][0]),
                cluster=one.cluster,
                name=shown_name(columns.name(one.cluster)),
                confidence=round(float(columns.confidence[row]), 4),
                description=shown_name(columns.descriptions[columns.description[row]]),
                doubt=one.doubt,
                gain=one.gain,
                alike=one.alike,
                options=[ReviewOption(cluster=number, name=shown_name(columns.name(number))) for number in one.options],
            )
            for row, one in zip(rows, found.doubts, strict=True)
        ],
        left=found.left,
    )


def _answered(run: ShownRun, slug: str, version: int) -> Resorted | None:
    """What the model said of the clustering as it is now; None where it was not asked since it changed."""
    for row in run.store.jobs():
        result = row.progress.get("result")
        if row.request["kind"] == "re-sort" and row.state == "done" and result and result["slug"] == slug:
            if result["version"] != version:
                return None
            moves = tuple(Proposed(*values) for values in result["moves"])
            return Resorted(moves, result["touched"], (result["calls"], result["calls"]), True)
    return None


def _resorted(
    found: Resorted, images: ImageColumns, columns: ClusterColumns, version: int, *, is_applied: bool
) -> ReSorted:
    known = {image_id: row for row, image_id in enumerate(images.ids)}
    return ReSorted(
        version=version,
        moved=[
            Moved(
                id=images.keys[known[one.image_id]],
                before=one.before,
                after=one.after,
                after_name=shown_name(columns.name(one.after)),
                probability=one.probability,
            )
            for one in found.moves[:_MOST_MOVES]
            if one.image_id in known
        ],
        total=len(found.moves),
        touched=found.touched,
        calls=found.calls,
        is_asked=found.is_asked,
        applied=is_applied,
    )


def _change(run: ShownRun, slug: str, request: Request, say: Callable[[Corrector], Change | None]) -> Corrected:
    columns = run.columns(slug)  # NotThere before the run is held
    with run.writing() as held:
        corrector = Corrector(held, slug)
        change = say(corrector)
        steps = corrector.steps
    if change is None:
        raise NotAllowed(
            f'there is nothing left to undo or redo in "{columns.of.interest.text}"', "correct something first", 409
        )
    run.note_correction(slug)
    watch: Watch = request.app.state.watch
    watch.wake()
    before = {cluster.id for cluster in change.before.clusters}
    made = [cluster.id for cluster in change.after.clusters if cluster.id not in before]
    text = "; ".join(Corrector.describe(change.step)) if change.step is not None else ""
    return Corrected(
        version=run.versions().get(slug, 0),
        text=shown_name(text),
        moved=len(change.moved),
        can_undo=any(not step.is_undone for step in steps),
        can_redo=any(step.is_undone for step in steps),
        cluster=made[0] if made else None,
    )


def _said(correction: requests.Correction, images: ImageColumns, run: ShownRun, slug: str) -> list[Correction]:
    """In the words of the engine. Raises NotThere for images and clusters that are not there."""
    names = {cluster.id: cluster.name for cluster in run.columns(slug).of.clusters}

    def known(number: int) -> int:
        if number not in names:
            raise no_such(f'a cluster is one of "{run.columns(slug).of.interest.text}"', number)
        return number

    match correction:
        case requests.Move():
            return [_of("move", images, correction.images, known(correction.to))]
        case requests.New():
            return [_of("new", images, correction.images, name=correction.name)]
        case requests.Merge():
            stays, *others = dict.fromkeys(map(known, correction.clusters))
            if not others:
                raise NotThere(f"two clusters or more are merged, got {stays} twice", "choose another one")
            said = [Correction("merge", cluster=other, into=stays) for other in others]
            if correction.name is not None and correction.name != names[stays]:
                said.append(Correction("rename", cluster=stays, name=correction.name))
            return said
        case requests.Split():
            return [_of("split", images, correction.images, known(correction.cluster), correction.name or "")]
        case requests.Rename():
            return [Correction("rename", cluster=known(correction.cluster), name=correction.name)]
        case requests.NotThis():
            return [_of("not", images, correction.images, known(correction.cluster))]
        case requests.Unassign():
            return [_of("unassign", images, correction.images)]
        case requests.Confirm():
            return [_of("confirm", images, correction.images, known(correction.cluster))]


def _of(
    kind: requests.AboutImages, images: ImageColumns, keys: list[str], cluster: int | None = None, name: str = ""
) -> Correction:
    return Correction(kind, tuple(images.whole_ids(keys)), cluster=cluster, name=name)
