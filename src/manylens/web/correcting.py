"""Routes by which a person corrects a clustering: corrections, undo and redo, judging again, the review queue."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query

from manylens.web.requests import Correction, ReSort
from manylens.web.routing import PROBLEMS, RunDep, SlugPath
from manylens.web.schemas import Corrected, CorrectionLog, ReSorted, Review
from manylens.web.shown import NotYet

router = APIRouter(prefix="/api/interests/{slug}", tags=["corrections"], responses=PROBLEMS)


@router.get("/corrections")
def get_corrections(slug: SlugPath, run: RunDep) -> CorrectionLog:
    """All that a person said about this interest, the newest last."""
    raise NotYet("corrections")


@router.post("/corrections")
def correct(slug: SlugPath, run: RunDep, correction: Annotated[Correction, Body()]) -> Corrected:
    """Say one thing. It outranks the model, and survives every later run."""
    raise NotYet("corrections")


@router.post("/undo")
def undo(slug: SlugPath, run: RunDep) -> Corrected:
    """Take back what was said last."""
    raise NotYet("corrections")


@router.post("/redo")
def redo(slug: SlugPath, run: RunDep) -> Corrected:
    """Say again what was taken back last."""
    raise NotYet("corrections")


@router.post("/re-sort")
def re_sort(slug: SlugPath, run: RunDep, how: ReSort) -> ReSorted:
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
