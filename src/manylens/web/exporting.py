"""Routes that hand a run on: exports in every form there is, and the command lines that repeat what the page did."""

from __future__ import annotations

from fastapi import APIRouter

from manylens.web.requests import NewExport
from manylens.web.routing import PROBLEMS, RunDep
from manylens.web.schemas import Command, ExportDone, Formats
from manylens.web.shown import NotYet

router = APIRouter(prefix="/api", tags=["exports"], responses=PROBLEMS)


@router.get("/formats")
def get_formats(run: RunDep) -> Formats:
    """The forms there are, and why one of them cannot be written here."""
    raise NotYet("exports")


@router.post("/export")
def export(run: RunDep, wanted: NewExport) -> ExportDone:
    """Write the run in another form, in its folder or where `dest` says. Nothing is overwritten."""
    raise NotYet("exports")


@router.get("/command")
def get_command(run: RunDep) -> Command:
    """What to type to get the same without the page."""
    raise NotYet("commands")
