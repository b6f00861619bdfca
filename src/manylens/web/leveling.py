"""Routes about levels: coarser and finer cuts of a finished clustering, shown without any cost."""

from __future__ import annotations

from fastapi import APIRouter

from manylens.web.routing import PROBLEMS, RunDep, SlugPath
from manylens.web.schemas import Levels, LevelView
from manylens.web.shown import NotYet

router = APIRouter(prefix="/api/interests/{slug}", tags=["levels"], responses=PROBLEMS)


@router.get("/levels")
def get_levels(slug: SlugPath, run: RunDep) -> Levels:
    """How coarse and how fine this clustering can be shown."""
    raise NotYet("levels")


@router.get("/levels/{groups}")
def get_level(slug: SlugPath, run: RunDep, groups: int) -> LevelView:
    """The images in so many groups; nothing is changed. To make it the run's own, begin a job with `groups`."""
    raise NotYet("levels")
