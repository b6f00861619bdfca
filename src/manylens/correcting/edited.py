"""An `assignments.csv` that a person edited: noticed, kept, and offered as corrections.

In: an open run folder. Out: edited files kept aside, each with the corrections that it comes to. Promise: what a person
wrote into a result file is never overwritten in silence; it becomes corrections only when the person says so.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from manylens.correcting.corrector import Corrector
from manylens.correcting.rows import Place, edits, rows_of
from manylens.errors import ManylensError
from manylens.files import MOST_TABLE, read_regular, sha256_of, write_atomically
from manylens.results.table import collection_of, join
from manylens.store.run_folder import RunFolder
from manylens.types import Correction

ASSIGNMENTS_NAME = "assignments.csv"
_ASIDE, _ENDING = "assignments.edited", ".corrections.csv"


@dataclass(frozen=True, slots=True)
class Aside:
    """file: where the person's file is kept. corrections: what it comes to, as a file for `manylens correct`; None
    where that could not be said, for `problem`."""

    file: Path
    corrections: Path | None
    problem: str = ""

    @property
    def notice(self) -> str:
        place = f"{self.file.parent.name}/{self.file.name}"
        if self.corrections is None:
            return f"an edited {ASSIGNMENTS_NAME} is kept as {place}; it cannot be taken as corrections: {self.problem}"
        command = command_for(self.file.parent.parent, self.file.parent.name)
        return f"an edited {ASSIGNMENTS_NAME} is kept as {place}; this takes its changes as corrections: {command}"


def command_for(out: Path, slug: str) -> str:
    """What a person types to take an edited file's changes."""
    return shlex.join(["manylens", "correct", str(out), "--from-edited", "--by", slug])


def is_edited(run: RunFolder, slug: str) -> bool:
    """Whether the file is there and not as it was written."""
    path = f"{slug}/{ASSIGNMENTS_NAME}"
    written, now = run.result_checksums().get(path), sha256_of(run.path / path)
    return bool(written) and bool(now) and now != written


def edits_of(run: RunFolder, slug: str) -> list[Correction]:
    """What the edited file comes to. Raises UsageError for what cannot be read."""
    corrector = Corrector(run, slug)
    table = join(corrector.shown, collection_of(run))
    before = {row.path: Place(row.cluster, row.name) for row in table.rows}
    return edits(run.path / slug / ASSIGNMENTS_NAME, before, corrector.names)


def set_aside(run: RunFolder, slugs: Sequence[str]) -> list[Aside]:
    """Keep edited files of these interests before they are written anew; call it before anything else is decided."""
    found = []
    for slug in slugs:
        if is_edited(run, slug):
            found.append(_set_aside(run, slug))
    return found


def _set_aside(run: RunFolder, slug: str) -> Aside:
    folder = run.path / slug
    number, name = 1, _ASIDE
    while (folder / f"{name}.csv").exists() or (folder / f"{name}{_ENDING}").exists():
        number += 1
        name = f"{_ASIDE}-{number}"
    kept, problem, corrections = folder / f"{name}.csv", "", None
    write_atomically(kept, read_regular(folder / ASSIGNMENTS_NAME, most=MOST_TABLE))
    if slug in run.stale():
        problem = "corrections were made since it was written"
    else:
        try:
            path_of = {image.id: image.paths[0] for image in run.images()}
            said = edits_of(run, slug)
            if said:
                corrections = folder / f"{name}{_ENDING}"
                write_atomically(corrections, rows_of(said, path_of))
            else:
                problem = "it moves no picture"
        except ManylensError as error:
            problem = str(error)
    run.forget_results([f"{slug}/{ASSIGNMENTS_NAME}"])  # it is kept: whoever looks again finds nothing edited
    return Aside(kept, corrections, problem)


def waiting(out: Path, slug: str) -> list[Path]:
    """Corrections of files that were kept aside and not taken yet, the earliest first. out: the run folder."""
    folder = out / slug
    names = [_ASIDE, *(f"{_ASIDE}-{number}" for number in range(2, 1000))]
    return [place for name in names if (place := folder / f"{name}{_ENDING}").is_file()]


def mark_taken(corrections: Path) -> None:
    """Once they are in the log: the file is kept under another name."""
    corrections.rename(corrections.with_name(corrections.name.replace(_ENDING, ".taken.csv")))
