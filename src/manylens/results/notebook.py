"""What a notebook shows of a result: a table of the clusters with pictures, and pandas data frames.

In: `FileTable`s, and the run's folder for thumbnails. Out: HTML, or a `pandas.DataFrame`. Promise: names are text,
never markup; a run that is gone, or held by another process, is shown without pictures where they cannot be read.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage

from manylens.errors import UsageError
from manylens.results.exports.run_table import FILE_COLUMNS, INTEREST_COLUMNS, column_names, prefix, records
from manylens.results.report import encode_thumbnail
from manylens.results.table import FileTable
from manylens.store.peek import peek_thumbnails
from manylens.text import counted, shown_name

MOST_CLUSTERS = 20
"""Shown of an interest; the report has all."""

_EXEMPLARS = 5


def data_frame(tables: Sequence[FileTable], *, plain: bool = False) -> Any:
    """The wide table of all interests. plain: of one, with its columns under their own names."""
    try:
        import pandas
    except ImportError:
        raise UsageError("a data frame needs pandas, which is not installed", "pip install pandas") from None
    integers = {f"{prefix(table)}_cluster": "Int64" for table in tables}
    frame = pandas.DataFrame(list(records(tables)), columns=column_names(tables)).astype(integers)
    if not plain:
        return frame
    names = {f"{prefix(tables[0])}_{name}": name for name in INTEREST_COLUMNS}
    return frame[[FILE_COLUMNS[0], *names]].rename(columns=names)


def clusters_html(tables: Sequence[FileTable], out: Path) -> str:
    return "".join(_interest_html(table, out) for table in tables)


def _interest_html(table: FileTable, out: Path) -> str:
    shown = table.clusters[:MOST_CLUSTERS]
    ids = {cluster.id: cluster.exemplars[:_EXEMPLARS] for cluster in table.clustering.clusters}
    pictures = peek_thumbnails(out, [image_id for cluster in shown for image_id in ids[cluster.id]])
    rows = []
    for cluster in shown:
        images = "".join(_image_html(pictures[image_id]) for image_id in ids[cluster.id] if image_id in pictures)
        cells = (
            _text(cluster.name),
            f"{cluster.size:,}",
            f"{cluster.confidence:.0%}",
            _text(cluster.definition),
            images,
        )
        rows.append("<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th style='text-align:left'>{name}</th>" for name in ("cluster", "files", "confidence", "", ""))
    counts = table.counts
    about = [counted(len(table.clusters), "cluster"), counted(counts.assigned, "file")]
    about += [f"{counts.unassigned:,} in no cluster"] if counts.unassigned else []
    about += [f"{counts.failed:,} failed"] if counts.failed else []
    about += [f"the {MOST_CLUSTERS} largest are shown"] if len(table.clusters) > MOST_CLUSTERS else []
    caption = f"<b>{_text(table.clustering.interest.text)}</b>: {', '.join(about)}"
    return f"<div>{caption}<table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _image_html(jpeg: bytes) -> str:
    with PillowImage.open(io.BytesIO(jpeg), formats=("JPEG",)) as picture:
        small = base64.b64encode(encode_thumbnail(picture)).decode()
    return f"<img style='display:inline-block;margin:1px;height:64px' src='data:image/jpeg;base64,{small}'>"


def _text(text: str) -> str:
    return html.escape(shown_name(text))
