"""Routes that hand a run on: exports in every form there is, and the command lines that repeat what the page did.

In: a form and a place. Out: what was written. Promise: nothing is overwritten; what a person said last is in it.
"""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, Request

from manylens.correcting.door import bring_up_to_date, log_notice
from manylens.results.exports import FORMATS, export_run
from manylens.text import counted, shown_name
from manylens.web.job_keeper import command_of, short_path
from manylens.web.requests import NewExport
from manylens.web.routing import PROBLEMS, RunDep
from manylens.web.schemas import Command, ExportDone, Formats, LeftOut
from manylens.web.shown import NotAllowed

router = APIRouter(prefix="/api", tags=["exports"], responses=PROBLEMS)

_NEEDS = {"parquet": ("pyarrow", "parquet"), "hf": ("datasets", "hf"), "fiftyone": ("fiftyone", "fiftyone")}
"""By form: the library that writes it, and the extra that brings it."""

_MOST_SHOWN = 200
"""Steps, and files that were left alone, that are told of one export."""


@router.get("/formats")
def get_formats(run: RunDep) -> Formats:
    """The forms there are, and why one of them cannot be written here."""
    missing = {
        form: f"it needs {library}: pip install 'manylens[{extra}]'"
        for form, (library, extra) in _NEEDS.items()
        if find_spec(library) is None
    }
    folder = run.folder
    if folder is None or not folder.is_dir():
        missing |= dict.fromkeys(
            ("fiftyone", "folders", "hf", "xmp"), "it reads the pictures, whose folder is not there"
        )
    return Formats(formats=list(FORMATS), missing=missing)


@router.post("/export")
def export(run: RunDep, wanted: NewExport, request: Request) -> ExportDone:
    """Write the run in another form, in its folder or where `dest` says. Nothing is overwritten."""
    run.check_writable()
    if wanted.dest is not None and not request.app.state.is_local:
        raise NotAllowed("a place is named on this computer only, the page is open to others", "leave out the place")
    with run.writing() as held:
        bring_up_to_date(held, log_notice)
    with run.alone():
        done = export_run(
            run.path,
            wanted.to,
            dest=None if wanted.dest is None else Path(wanted.dest).expanduser(),
            folder=run.folder,
            by=wanted.by,
            only=None if wanted.images is None else run.images().whole_ids(wanted.images),
            mode=wanted.mode,
            preview=wanted.preview,
        )
    return ExportDone(
        path=shown_name(str(done.path)),
        files=done.files,
        unplaced=done.unplaced,
        steps=[shown_name(step) for step in done.steps[:_MOST_SHOWN]],
        left=[LeftOut(path=shown_name(path), reason=shown_name(why)) for path, why in done.left[:_MOST_SHOWN]],
    )


@router.get("/command")
def get_command(run: RunDep) -> Command:
    """What to type to get the same without the page: the jobs that were begun here; where there were none, the run as
    it is. Corrections are in the run folder, and hold in every later run of it."""
    rows = [row for row in reversed(run.store.jobs()) if row.state == "done"]
    lines = [command_of(row.request, run) for row in rows]
    corrected = []
    for slug, columns in run.all_columns():
        interest = columns.of.interest.text
        if not any(interest in row.request["by"] for row in rows):
            request = {
                "kind": "cluster",
                "folder": run.place or "FOLDER",
                "by": [interest],
                "model": columns.of.model,
                "options": {},
                "settings": columns.settings.to_dict(),
                "exclude": [],
                "include": [],
                "links": False,
            }
            lines.append(command_of(request, run))
        said = sum(not step.is_undone for step in run.reader().steps(slug))
        if said:
            listed = shlex.join(["manylens", "correct", short_path(str(run.path)), "--by", interest, "--list"])
            corrected.append(f"{listed}    # {counted(said, 'correction')}, kept in the run folder")
    return Command(lines=[shown_name(line) for line in (*lines, *corrected)])
