"""Routes about jobs: runs that are begun from the page, survive it, and can be cancelled and continued."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from manylens.web.requests import NewJob
from manylens.web.routing import PROBLEMS, RunDep
from manylens.web.schemas import Job, Jobs, PlanOut
from manylens.web.shown import NotYet

router = APIRouter(prefix="/api/jobs", tags=["jobs"], responses=PROBLEMS)

JobPath = Annotated[int, Path(ge=1, le=2**31)]


@router.get("")
def get_jobs(run: RunDep) -> Jobs:
    """All jobs of this run folder, the newest first."""
    raise NotYet("jobs")


@router.post("")
def begin_job(run: RunDep, wanted: NewJob) -> Job:
    """Begin a run of its own. It asks a model, and may cost money."""
    raise NotYet("jobs")


@router.post("/plan")
def plan_job(run: RunDep, wanted: NewJob) -> PlanOut:
    """What it would take. Asks and writes nothing."""
    raise NotYet("jobs")


@router.get("/{number}")
def get_job(number: JobPath, run: RunDep) -> Job:
    raise NotYet("jobs")


@router.delete("/{number}")
def cancel_job(number: JobPath, run: RunDep) -> Job:
    """Stop it. What was paid for is kept."""
    raise NotYet("jobs")


@router.post("/{number}/continue")
def continue_job(number: JobPath, run: RunDep) -> Job:
    """Go on with a job that was cancelled, or failed. Nothing is asked twice."""
    raise NotYet("jobs")
