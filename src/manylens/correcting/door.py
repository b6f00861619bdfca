"""What programs and the command line call: one correction of a run folder from its opening to its closing.

In: a run folder's place, an interest, corrections. Out: what changed. Promise: the run folder is held while it is
changed, and its files show what holds when it is let go.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from manylens import __version__
from manylens.correcting.corrector import Change, Corrector
from manylens.correcting.edited import ASSIGNMENTS_NAME, edits_of, is_edited, mark_taken, set_aside, waiting
from manylens.correcting.files import write_files
from manylens.correcting.resort import Resorted, foresee
from manylens.correcting.review import Review
from manylens.correcting.review import review as find_doubts
from manylens.correcting.rows import COLUMNS, read_rows
from manylens.correcting.rulings import said_in
from manylens.errors import UsageError
from manylens.files import write_atomically
from manylens.results.files import csv_bytes, path_cell, text_cell
from manylens.results.table import collection_of
from manylens.store.run_folder import RunFolder
from manylens.types import Correction, find_interest, only_interest

Notify: TypeAlias = Callable[[str], None]


def log_notice(text: str) -> None:
    """To the logger `manylens`: programs have no console of ours."""
    logging.getLogger("manylens").warning(text)


def slug_in(run: RunFolder, by: str | None) -> str:
    """Of the interest meant (`types.find_interest`), or of the only one. Raises UsageError where it is not there."""
    held = [clustering.interest for clustering, _ in run.clusterings()]
    return (only_interest(held) if by is None else find_interest(held, by)).slug


@contextlib.contextmanager
def corrected(out: Path, by: str | None, notify: Notify) -> Iterator[Corrector]:
    """The corrector of a run folder's interest. The files are written when it is left, where they are out of date.
    notify: is told of edited files that were kept aside for that."""
    with RunFolder.open(out, must_exist=True) as run:
        slug = slug_in(run, by)
        keep_edited(run, [slug], notify)
        yield Corrector(run, slug)
        bring_up_to_date(run, notify)


def keep_edited(run: RunFolder, slugs: Sequence[str], notify: Notify) -> None:
    """Before anything changes what these interests' files show: keep aside what a person wrote into them."""
    for aside in set_aside(run, slugs):
        notify(aside.notice)


def bring_up_to_date(run: RunFolder, notify: Notify) -> None:
    """Write the files of interests that do not show what holds."""
    stale = set(run.stale())
    if stale:
        late = [(one, settings) for one, settings in run.clusterings() if one.interest.slug in stale]
        keep_edited(run, sorted(stale), notify)
        write_files(run, collection_of(run), late, version=__version__)


def corrections_from(said: Sequence[Correction | Mapping[str, Any]]) -> list[Correction]:
    """Corrections from values that a program or a page passes. Raises UsageError for what is none."""
    found = []
    for one in [said] if isinstance(said, (Correction, Mapping)) else said:
        if isinstance(one, Mapping):
            try:
                one = Correction.from_dict(one)
            except TypeError:
                raise UsageError(
                    f"a correction has a kind and of images, cluster, into and name what the kind needs, got {one!r}",
                    'such as {"kind": "move", "images": ["a.jpg"], "cluster": "hearts"}',
                ) from None
        found.append(one)
    return found


def correct(
    out: Path,
    by: str | None,
    said: Sequence[Correction | Mapping[str, Any]],
    *,
    dry_run: bool = False,
    notify: Notify = log_notice,
) -> Change:
    corrections = corrections_from(said)
    if dry_run:
        with RunFolder.open(out, must_exist=True) as run:
            return Corrector(run, slug_in(run, by)).preview(corrections)
    with corrected(out, by, notify) as corrector:
        return corrector.say(corrections)


def correct_from_file(
    out: Path, by: str | None, file: Path, *, dry_run: bool = False, notify: Notify = log_notice
) -> Change:
    """The corrections of a file (`correcting.rows`), as one step."""
    with RunFolder.open(out, must_exist=True) as run:
        slug = slug_in(run, by)
        if not dry_run:
            keep_edited(run, [slug], notify)
        corrector = Corrector(run, slug)
        said, lines = read_rows(file, corrector.names, [cluster.name for cluster in corrector.shown.clusters])
        if dry_run:
            return corrector.preview(said, lines)
        change = corrector.say(said, lines)
        bring_up_to_date(run, notify)
    return change


def correct_from_edited(
    out: Path, by: str | None, *, dry_run: bool = False, notify: Notify = log_notice
) -> list[Change]:
    """What the edited `assignments.csv` comes to, and those kept aside before it, a step each, in order.

    Raises UsageError where nothing was edited, or what was is no correction: the files before that one are taken.
    """
    with RunFolder.open(out, must_exist=True) as run:
        slug = slug_in(run, by)
        path = run.path / slug / ASSIGNMENTS_NAME
        if dry_run:
            corrector = Corrector(run, slug)
            said, lines = _waiting_rows(corrector, waiting(out, slug))
            if is_edited(run, slug) and slug not in run.stale():
                said += edits_of(run, slug)
                lines += [ASSIGNMENTS_NAME] * (len(said) - len(lines))
            return [corrector.preview(said, lines)] if said else []
        state = "is as it was written"
        if is_edited(run, slug):
            if slug in run.stale() or edits_of(run, slug):  # what cannot be read is said before anything is done
                keep_edited(run, [slug], notify)
            else:
                state = "moves no picture"
        files = waiting(out, slug)
        if not files:
            raise UsageError(
                f"an edited {ASSIGNMENTS_NAME} becomes corrections, {path} {state}",
                "change the column cluster or name, save it as CSV, and try again",
            )
        corrector = Corrector(run, slug)
        changes = []
        try:
            for file in files:
                changes.append(corrector.say(*_waiting_rows(corrector, [file])))
                mark_taken(file)
        finally:  # where a later file is refused, the earlier ones hold
            bring_up_to_date(run, notify)
    return changes


def _waiting_rows(corrector: Corrector, files: Sequence[Path]) -> tuple[list[Correction], list[str]]:
    """The corrections of files that wait, and the line of each."""
    found: list[Correction] = []
    lines: list[str] = []
    for file in files:
        with said_in(file.name):
            said, at = read_rows(file, corrector.names, [cluster.name for cluster in corrector.shown.clusters])
        found += said
        lines += [f"{file.name}, {line}" for line in at]
    return found, lines


def undo(out: Path, by: str | None, notify: Notify = log_notice) -> Change | None:
    with corrected(out, by, notify) as corrector:
        return corrector.undo()


def redo(out: Path, by: str | None, notify: Notify = log_notice) -> Change | None:
    with corrected(out, by, notify) as corrector:
        return corrector.redo()


def list_steps(out: Path, by: str | None) -> list[str]:
    """What was said, a line each, in order; what is undone is marked. Of every interest where none is named."""
    with RunFolder.open(out, must_exist=True) as run:
        slugs = run.slugs() if by is None else [slug_in(run, by)]
        lines = []
        for corrector in (Corrector(run, slug) for slug in slugs):
            if corrector.steps and len(slugs) > 1:
                lines.append(f"{corrector.shown.interest.text}:")
            for step in corrector.steps:
                mark = " (undone)" if step.is_undone else ""
                lines += [f"{step.number}  {step.at}  {text}{mark}" for text in corrector.describe(step)]
    return lines or ["Nothing was said."]


def review(out: Path, by: str | None, *, limit: int = 20, skipped: Sequence[str] = ()) -> Review:
    with RunFolder.open(out, must_exist=True) as run:
        return find_doubts(Corrector(run, slug_in(run, by)), limit, skipped)


def foresee_resort(out: Path, by: str | None) -> Resorted:
    with RunFolder.open(out, must_exist=True) as run:
        return foresee(Corrector(run, slug_in(run, by)))


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """A doubtful picture in words. options: names of clusters that it may belong to, the likeliest first."""

    path: str
    cluster: str
    doubt: float
    alike: int
    options: tuple[str, ...]


def review_rows(out: Path, by: str | None, limit: int) -> tuple[Review, list[ReviewRow]]:
    """The review, with paths and names."""
    with RunFolder.open(out, must_exist=True) as run:
        corrector = Corrector(run, slug_in(run, by))
        found = find_doubts(corrector, limit)
        path_of = {image.id: image.paths[0] for image in run.images()}
    names = {cluster.id: cluster.name for cluster in corrector.shown.clusters}
    return found, [
        ReviewRow(
            path_of[one.image_id],
            "" if one.cluster is None else names[one.cluster],
            one.doubt,
            one.alike,
            tuple(names[cluster] for cluster in one.options),
        )
        for one in found.doubts
        if one.image_id in path_of
    ]


def write_review(to: Path, rows: Sequence[ReviewRow]) -> None:
    """A file of corrections in which every row says yes. Raises UsageError where there is a file already."""
    if to.exists():
        raise UsageError(f"nothing is overwritten, {to} is there", "name another file, or delete it")
    cells = [(path_cell(row.path), "yes" if row.cluster else "none", text_cell(row.cluster)) for row in rows]
    write_atomically(to, csv_bytes(COLUMNS, cells))


def cluster_names(out: Path, by: str | None) -> dict[int, str]:
    """Of an interest's clusters, as they are shown."""
    with RunFolder.open(out, must_exist=True) as run:
        shown = Corrector(run, slug_in(run, by)).shown
    return {cluster.id: cluster.name for cluster in shown.clusters}
