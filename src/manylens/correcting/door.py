"""What programs and the command line call: one correction of a run folder from its opening to its closing.

In: a run folder's place, an interest, corrections. Out: what changed. Promise: the run folder is held while it is
changed, and its files show what holds when it is let go.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from manylens import __version__
from manylens.correcting.corrector import Change, Corrector
from manylens.correcting.files import write_files
from manylens.errors import UsageError
from manylens.results.table import collection_of
from manylens.store.run_folder import RunFolder
from manylens.types import Correction


def slug_in(run: RunFolder, by: str | None) -> str:
    """The interest meant: in words, by its slug, or the only one. Raises UsageError where none or several are."""
    held = [clustering.interest for clustering, _ in run.clusterings()]
    words = None if by is None else " ".join(by.split())
    found = [one.slug for one in held if words is None or words in (one.text, one.slug)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(repr(one.text) for one in held)
    got = "none" if by is None else repr(by)
    cure = f"say which: {known}" if known else "finish a run first; one of an earlier manylens needs it once more"
    raise UsageError(f"corrections are about one interest of the run, got {got}", cure)


@contextlib.contextmanager
def corrected(out: Path, by: str | None) -> Iterator[Corrector]:
    """The corrector of a run folder's interest; the files are written when it is left, where they are out of date."""
    with RunFolder.open(out, must_exist=True) as run:
        yield Corrector(run, slug_in(run, by))
        bring_up_to_date(run)


def bring_up_to_date(run: RunFolder) -> None:
    """Write the files of interests that do not show what holds."""
    stale = set(run.stale())
    if stale:
        late = [(one, settings) for one, settings in run.clusterings() if one.interest.slug in stale]
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
    out: Path, by: str | None, said: Sequence[Correction | Mapping[str, Any]], *, dry_run: bool = False
) -> Change:
    corrections = corrections_from(said)
    with corrected(out, by) as corrector:
        return corrector.preview(corrections) if dry_run else corrector.say(corrections)


def undo(out: Path, by: str | None) -> Change | None:
    with corrected(out, by) as corrector:
        return corrector.undo()


def redo(out: Path, by: str | None) -> Change | None:
    with corrected(out, by) as corrector:
        return corrector.redo()
