"""`OUT/report.html`: one file that shows every clustering of a collection, offline and without a server.

In: the clusterings, the collection, and a way to get an image's thumbnail. Out: one HTML page, everything inline.
Promise: each thumbnail is embedded once, however many interests there are. File names, descriptions and reasons are
data: they travel as JSON and reach the page as text nodes (for a reader without scripts: escaped, in plain tables), and
the page's Content-Security-Policy names the hashes of its one style and one script, so that nothing else can run or
load. No time and no absolute path goes in: equal inputs give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from html import escape
from importlib import resources
from itertools import combinations
from typing import Any, TypeAlias

from PIL import Image as PillowImage

from manylens.collection.decode import encode_jpeg
from manylens.collection.find import Collection
from manylens.files import public_name
from manylens.method.compound import parts_of
from manylens.results.cross import cross_clusterings
from manylens.text import shown_name
from manylens.types import Clustering, Image

REPORT_NAME = "report.html"
THUMBNAIL_PX = 96

THUMBNAIL_QUALITY = 62

MAX_THUMBNAILS = 4000

MOST_CROSSED, MOST_PLAIN = 8, 200
"""Interests of which every two are compared; clusters that are listed for a reader without scripts."""

Thumbnail: TypeAlias = Callable[[str], bytes | None]
"""Image id -> JPEG bytes, or None where there is no picture to show."""


def encode_thumbnail(picture: PillowImage.Image) -> bytes:
    """Shrink a decoded RGB picture to at most 96 px on its longer side and encode it as JPEG."""
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), PillowImage.Resampling.LANCZOS)
    return encode_jpeg(small, quality=THUMBNAIL_QUALITY, optimize=True, progressive=False)


def render_report(
    clusterings: Sequence[Clustering], collection: Collection, thumbnail: Thumbnail, *, version: str
) -> str:
    """The whole page. Past 4,000 images only exemplars and then the first images get a thumbnail; the page says so."""
    values = _report_values(clusterings, collection, thumbnail)
    plain = _plain_tables(clusterings, collection)
    values["version"] = version
    style = _part("report.css")
    script = _part("report.js")
    # The policy must come before anything it governs; `<` is escaped so that no text can close the script element.
    data = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "@@POLICY@@": f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'",
        "@@STYLE@@": style,
        "@@SCRIPT@@": script,
        "@@DATA@@": data,
        "@@PLAIN@@": plain,
    }
    head, *rest = _part("report.html").split("@@")
    page = [head]
    for index, piece in enumerate(rest):
        page.append(parts[f"@@{piece}@@"] if index % 2 == 0 else piece)
    return "".join(page)


def _report_values(clusterings: Sequence[Clustering], collection: Collection, thumbnail: Thumbnail) -> dict[str, Any]:
    images = sorted(collection.images, key=lambda image: image.paths[0])
    index = {image.id: position for position, image in enumerate(images)}
    pictured = _pictured(clusterings, images)
    thumbnails = [thumbnail(image.id) if image.id in pictured else None for image in images]
    return {
        "images": [
            {
                "paths": [shown_name(path) for path in image.paths],
                "size": [image.width_px, image.height_px],
                **({"frames": image.frames} if image.frames > 1 else {}),
                "thumb": base64.b64encode(jpeg).decode() if jpeg else "",
            }
            for image, jpeg in zip(images, thumbnails, strict=True)
        ],
        "unpictured": len(images) - len(pictured),
        "unreadable": [
            [shown_name(u.path), shown_name(u.reason)] for u in sorted(collection.unreadable, key=lambda u: u.path)
        ],
        "found": sum(len(image.paths) for image in images) + len(collection.unreadable),
        "interests": [_interest_values(clustering, index) for clustering in clusterings],
        "crossed": _crossed(clusterings),
    }


def _crossed(clusterings: Sequence[Clustering]) -> list[list[Any]]:
    """[interest, interest, what the cross-table of the two says] of every two of the first interests; the page counts
    the pictures itself. A compound interest is compared with neither of its parts."""
    found = []
    for one, two in combinations(range(min(len(clusterings), MOST_CROSSED)), 2):
        pair = clusterings[one], clusterings[two]
        slugs = [clustering.interest.slug for clustering in pair]
        parts = {part.slug for clustering in pair for part in parts_of(clustering.interest)}
        if not parts.intersection(slugs):
            found.append([one, two, shown_name(cross_clusterings(*pair).sentence)])
    return found


def _plain_tables(clusterings: Sequence[Clustering], collection: Collection) -> str:
    """The clusters of each interest as HTML, for a reader without scripts: the page's only markup that holds names, so
    each is escaped."""
    first = {image.id: image.paths[0] for image in collection.images}
    parts = []
    for clustering in clusterings:
        clusters = sorted(clustering.clusters, key=lambda cluster: cluster.id)
        rows = [
            f"<tr><td>{_text(c.name)}</td><td>{c.size:,}</td><td>{_text(c.definition)}</td>"
            f"<td>{_text(', '.join(first[i] for i in c.exemplars[:3] if i in first))}</td></tr>"
            for c in clusters[:MOST_PLAIN]
        ]
        if len(clusters) > MOST_PLAIN:
            rows.append(f'<tr><td colspan="4">{len(clusters) - MOST_PLAIN:,} more</td></tr>')
        file = f"{clustering.interest.slug}/assignments.csv"
        parts.append(
            f'<section class="plain"><h2>{_text(clustering.interest.text)}</h2>'
            '<table class="listing"><thead><tr><th>cluster</th><th>pictures</th><th>what it holds</th>'
            f"<th>for example</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
            f"<p>Which picture is where, and why: <code>{_text(file)}</code> in the run folder</p></section>"
        )
    return "".join(parts)


def _text(text: str) -> str:
    return escape(shown_name(text), quote=True)


def _interest_values(clustering: Clustering, index: dict[str, int]) -> dict[str, Any]:
    failed = dict(clustering.failed)
    calls = clustering.calls
    return {
        "text": clustering.interest.text,
        "slug": clustering.interest.slug,
        "model": public_name(clustering.model),
        "verdict": "" if clustering.verdict is None else shown_name(clustering.verdict.line),
        "clusters": [
            {
                "id": cluster.id,
                "name": shown_name(cluster.name),
                "definition": shown_name(cluster.definition),
                "exemplars": [index[image_id] for image_id in cluster.exemplars],
                "parent": shown_name(cluster.parent),
                "misplaced": None if cluster.misplaced is None else cluster.misplaced.to_dict(),
            }
            for cluster in sorted(clustering.clusters, key=lambda cluster: cluster.id)
        ],
        # [image, cluster or 0, confidence, reason, decided by]
        "assignments": [
            [index[a.image_id], a.cluster or 0, round(a.confidence, 4), shown_name(a.reason), a.decided_by]
            for a in clustering.assignments
            if a.image_id not in failed
        ],
        "failed": [[index[image_id], shown_name(reason)] for image_id, reason in clustering.failed],
        "notLooked": sorted(index[image_id] for image_id in clustering.not_looked),
        "calls": {"look": calls.look, "judge": calls.judge, "choose": calls.choose, "complete": calls.complete},
        "density": clustering.density,
        "misplaced": None if clustering.estimate is None else clustering.estimate.to_dict(),
        "partial": clustering.is_partial,
        "notes": [shown_name(note) for note in clustering.notes],
    }


def _pictured(clusterings: Sequence[Clustering], images: Sequence[Image]) -> set[str]:
    """The images that get a thumbnail: exemplars first, then images in an order that neither names nor folders set."""
    exemplars = [e for clustering in clusterings for cluster in clustering.clusters for e in cluster.exemplars]
    order = dict.fromkeys([*exemplars, *sorted(image.id for image in images)])
    return set(list(order)[:MAX_THUMBNAILS])


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _part(name: str) -> str:
    return resources.files("manylens.results").joinpath("report_page").joinpath(name).read_text(encoding="utf-8")
