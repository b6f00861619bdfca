"""Routes that lay this run beside another one, or one of its interests beside another."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from manylens.web.routing import PROBLEMS, RunDep
from manylens.web.schemas import Comparable, Compared
from manylens.web.shown import NotYet

router = APIRouter(prefix="/api", tags=["comparing"], responses=PROBLEMS)


@router.get("/comparable")
def get_comparable(run: RunDep) -> Comparable:
    """What there is to compare: interests of this run, and of the other one that the page was opened with."""
    raise NotYet("comparing")


@router.get("/compare")
def get_compare(
    run: RunDep,
    here: Annotated[str, Query(max_length=240, description="An interest of this run.")],
    there: Annotated[str, Query(max_length=240, description="An interest of the other run, or of this one.")],
    of_other: Annotated[bool, Query(description="Whether `there` is of the other run.")] = True,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=0, le=2000)] = 200,
) -> Compared:
    """Clusters of two clusterings matched one to one by what they share, and the images that moved."""
    raise NotYet("comparing")
