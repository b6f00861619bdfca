"""Routes about jobs: runs that are begun from the page, survive it, and can be cancelled and continued."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request

from manylens.collection.find import Collection
from manylens.collection.formats import IMAGE_SUFFIXES
from manylens.models.base import ModelOptions
from manylens.models.registry import identity_start
from manylens.pipeline.compound import looked_at, with_parts
from manylens.pipeline.plan import NOTHING, held_by, plan_run
from manylens.settings import Settings
from manylens.types import Image, parse_interests
from manylens.web.job_keeper import JobKeeper, job_request
from manylens.web.requests import NewJob
from manylens.web.routing import PROBLEMS, RunDep
from manylens.web.schemas import Job, Jobs, PlanOut
from manylens.web.shown import NotAllowed, ShownRun

router = APIRouter(prefix="/api/jobs", tags=["jobs"], responses=PROBLEMS)

JobPath = Annotated[int, Path(ge=1, le=2**31)]


def job_keeper(request: Request) -> JobKeeper:
    keeper: JobKeeper = request.app.state.jobs
    return keeper


KeeperDep = Annotated[JobKeeper, Depends(job_keeper)]


@router.get("")
def get_jobs(run: RunDep, jobs: KeeperDep) -> Jobs:
    """All jobs of this run folder, the newest first."""
    return Jobs(jobs=[jobs.shown(row) for row in run.store.jobs()])


@router.post("")
def begin_job(run: RunDep, jobs: KeeperDep, wanted: NewJob, request: Request) -> Job:
    """Begin a run of its own. It asks a model, and may cost money."""
    run.check_writable()
    check_server(run, wanted.base_url, is_local=request.app.state.is_local)
    return jobs.shown(jobs.begin(_request(run, wanted)))


@router.post("/plan")
def plan_job(run: RunDep, wanted: NewJob) -> PlanOut:
    """What it would take. Asks and writes nothing."""
    request = _request(run, wanted)
    if run.is_new:
        folder = FilePath(request["folder"])
        count = sum(
            FilePath(name).suffix.lower() in IMAGE_SUFFIXES for _, _, names in os.walk(folder) for name in names
        )
    else:
        count = len(run.images())
    images = tuple(Image(f"{number}", ("",), 1, 1) for number in range(count))
    model, options = request["model"], ModelOptions.from_dict(request["options"])
    settings = Settings.from_dict(request["settings"])
    interests = looked_at(with_parts(parse_interests(request["by"]), settings), settings) if request["by"] else ()
    held = NOTHING
    if not run.is_new:
        ids = run.images().ids
        held = held_by(run.path, identity_start(model, options), options, interests, ids, settings)
    planned = plan_run(Collection(FilePath(), images, (), 0, count), interests, model, options, settings, held=held)
    return PlanOut(
        images=count,
        calls=planned.calls,
        seconds=None if planned.minutes is None else (planned.minutes[0] * 60, planned.minutes[1] * 60),
        usd=planned.usd,
        is_free=planned.tokens is None,
    )


@router.get("/{number}")
def get_job(number: JobPath, jobs: KeeperDep) -> Job:
    return jobs.shown(jobs.row(number))


@router.delete("/{number}")
def cancel_job(number: JobPath, jobs: KeeperDep) -> Job:
    """Stop it. What was paid for is kept."""
    return jobs.shown(jobs.cancel(number))


@router.post("/{number}/continue")
def continue_job(number: JobPath, jobs: KeeperDep, run: RunDep, request: Request) -> Job:
    """Go on with a job that was cancelled, or failed. Nothing is asked twice."""
    check_server(run, jobs.row(number).request["options"].get("base_url"), is_local=request.app.state.is_local)
    return jobs.shown(jobs.go_on(number))


def check_server(run: ShownRun, base_url: str | None, *, is_local: bool) -> None:
    """Whoever answers at `base_url` gets the key of the person who opened the page, and the pictures: a page that is
    open to others asks only servers that a job begun by this process asks: what a run folder holds may be somebody
    else's. Raises NotAllowed for another one."""
    if is_local or not base_url:
        return
    begun = (row for row in run.store.jobs() if row.id in run.jobs_begun_here)
    known = {url.rstrip("/") for row in begun if (url := row.request["options"].get("base_url"))}
    if base_url.rstrip("/") not in known:
        raise NotAllowed(
            f"a model's server is named on this computer only, the page is open to others, got {base_url}",
            "leave it out, or begin with it: manylens cluster FOLDER --by ... --base-url URL --open",
        )


def _request(run: ShownRun, wanted: NewJob) -> dict[str, Any]:
    folder = run.pictures()
    begun = _begun_with(run, wanted)
    said: dict[str, Any] = {
        "level": wanted.level,
        "n_clusters": wanted.groups,
        "into": None if wanted.into is None else tuple(wanted.into),
        "effort": wanted.effort,
        "budget_calls": wanted.budget_calls,
        "budget_usd": wanted.budget_usd,
        "price_in": wanted.price_in,
        "price_out": wanted.price_out,
    }
    return job_request(
        folder,
        wanted.by,
        kind=wanted.kind,
        model=wanted.model,
        options=ModelOptions(base_url=wanted.base_url or None),
        settings=replace(begun, **{name: value for name, value in said.items() if value is not None}),
        exclude=run.exclude,
        include=run.include,
    )


def _begun_with(run: ShownRun, wanted: NewJob) -> Settings:
    """The settings of the interest, where one that the run has is asked for again; its level and limits are new."""
    if wanted.kind == "cluster" and len(wanted.by) == 1 and not run.is_new:
        for _, columns in run.all_columns():
            if columns.of.interest.text == " ".join(wanted.by[0].split()):
                return replace(
                    columns.settings, level=Settings().level, n_clusters=None, budget_calls=None, budget_usd=None
                )
    return Settings()
