"""The files that show a run, written from its database.

In: an open run folder and clusterings that it holds. Out: the files of `results`. Promise: the database is written
first, so a kill in between leaves files that are out of date and known to be (`RunFolder.stale`), never a lost word.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image as PillowImage

from manylens.collection.find import Collection
from manylens.files import read_regular, write_atomically
from manylens.results.files import RESULT_FILES, UNREADABLE_NAME, write_results, write_unreadable
from manylens.results.report import REPORT_NAME, encode_thumbnail, remove_thumbnails, render_report, write_thumbnail
from manylens.results.result import InterestResult
from manylens.results.table import as_of, join
from manylens.settings import Settings
from manylens.store.run_folder import RunFolder
from manylens.types import Clustering

LINKS_NAME = "clusters"
"""In an interest's folder: the links to the pictures of each cluster."""


def write_files(
    run: RunFolder,
    collection: Collection,
    clusterings: Sequence[tuple[Clustering, Settings]],
    *,
    version: str,
    seconds: float | None = None,
    links: bool | None = None,
) -> dict[str, InterestResult]:
    """Write these interests' files, and the report of all that the run holds.

    seconds: of the run; None keeps what the summary says. links: whether to make links; None where there are some.
    """
    out = run.path
    slugs = [clustering.interest.slug for clustering, _ in clusterings]
    written = [REPORT_NAME, UNREADABLE_NAME, *(f"{slug}/{file}" for slug in slugs for file in RESULT_FILES)]
    run.forget_results(written)
    write_unreadable(out, collection)

    def thumbnail(image_id: str) -> bytes:
        with PillowImage.open(io.BytesIO(run.thumbnail(image_id)), formats=("JPEG",)) as picture:
            return encode_thumbnail(picture)

    fresh = {clustering.interest.slug: clustering for clustering, _ in clusterings}
    held = {clustering.interest.slug: clustering for clustering, _ in run.clusterings(without=fresh)} | fresh
    shown = [as_of(held[slug], collection) for slug in run.slugs()]
    report = out / REPORT_NAME
    remove_thumbnails(out)  # those of an earlier run, which may have shown other pictures
    page = render_report(shown, collection, thumbnail, version=version, beside=partial(write_thumbnail, out))
    write_atomically(report, page)
    results = {}
    for clustering, settings in clusterings:
        table = join(as_of(clustering, collection), collection)
        folder = out / clustering.interest.slug
        below = write_results(
            out,
            table,
            settings=settings,
            seconds=_seconds(folder) if seconds is None else seconds,
            version=version,
            links=_has_links(folder / LINKS_NAME) if links is None else links,
        )
        results[clustering.interest.text] = InterestResult(table, below, report)
    run.record_results(written)
    return results


def _has_links(folder: Path) -> bool:
    return any(place.is_symlink() for place in folder.glob("*/*"))


def _seconds(folder: Path) -> float:
    """What the summary says the run took; 0 where it says nothing."""
    try:
        return float(json.loads(read_regular(folder / "summary.json"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0.0
