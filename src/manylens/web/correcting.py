"""Routes by which a person corrects a clustering: corrections, undo and redo, judging again, the review queue.

In: what the person said, images by their ids. Out: what holds now. Promise: when an answer is sent, what was said is in
the run's database; the run is held for that moment only. Result files follow when the person pauses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request

from manylens.correcting import Change, Corrector
from manylens.text import shown_name
from manylens.types import Correction
from manylens.web import requests
from manylens.web.columns import ImageColumns, NotThere, no_such
from manylens.web.live import Watch
from manylens.web.routing import PROBLEMS, RunDep, SlugPath
from manylens.web.schemas import Corrected, CorrectionLog, CorrectionOut, ReSorted, Review
from manylens.web.shown import NotAllowed, NotYet, ShownRun

router = APIRouter(prefix="/api/interests/{slug}", tags=["corrections"], responses=PROBLEMS)


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
def re_sort(slug: SlugPath, run: RunDep, how: requests.ReSort) -> ReSorted:
    """Judge again what the corrections touch; without `apply`, say what would change."""
    raise NotYet("judging again")


@router.get("/review")
def get_review(
    slug: SlugPath,
    run: RunDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    skipped: Annotated[list[str] | None, Query(max_length=500, description="Ids of images to leave out.")] = None,
) -> Review:
    """What is least certain first."""
    raise NotYet("the review queue")


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
