"""`OUT/report.html`: one file that shows every clustering of a collection, offline and without a server.

In: the clusterings, the collection, and a way to get an image's thumbnail. Out: one HTML page, everything inline.
Promise: each thumbnail is embedded once, however many interests there are. Of more than 4,000 images the thumbnails are
files in a folder beside the page, which loads those that are looked at; of more than 20,000 it shows exemplars, and of
each cluster the surest and the most doubtful. File names, descriptions and reasons are data: they travel as JSON and
reach the page as text nodes (for a reader without scripts: escaped, in plain tables), and the page's
Content-Security-Policy names the hashes of its one style and one script, so that nothing else can run or load. No time
and no absolute path goes in: equal inputs give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from html import escape
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image as PillowImage

from manylens.collection.decode import encode_jpeg
from manylens.collection.find import Collection
from manylens.files import own_folder, public_name, write_new
from manylens.method.compound import parts_of
from manylens.results.cross import cross_clusterings
from manylens.text import shown_name
from manylens.types import Assignment, Clustering, Image

REPORT_NAME = "report.html"
THUMBNAIL_PX = 96

THUMBNAIL_QUALITY = 62

MAX_THUMBNAILS = 4000
"""Pictures inside the page: some 12 MB."""

MAX_LISTED = 20_000
"""Images that the page knows: with all of a million it would have 500 MB, and no browser would open it."""

THUMBNAILS_NAME = "report-thumbnails"
"""The folder beside the page, where the pictures of a large run are."""

_BINS = 20
_DOUBT = 0.7
"""As in report.js."""

MOST_CROSSED, MOST_PLAIN = 8, 200
"""Interests of which every two are compared; clusters that are listed for a reader without scripts."""

Thumbnail: TypeAlias = Callable[[str], bytes | None]
"""Image id -> JPEG bytes, or None where there is no picture to show."""


def encode_thumbnail(picture: PillowImage.Image) -> bytes:
    """Shrink a picture to at most 96 px on its longer side and encode it as JPEG."""
    picture.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))  # a JPEG not yet decoded: at a half or less, in half the time
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), PillowImage.Resampling.LANCZOS)
    return encode_jpeg(small, quality=THUMBNAIL_QUALITY, optimize=True, progressive=False)


def write_thumbnail(out: Path, name: str, jpeg: bytes) -> None:
    """A picture beside the page, at its path from there. It is no result: what a kill leaves half is written anew."""
    place = out / name
    own_folder(place.parent.parent)
    own_folder(place.parent)
    write_new(place, jpeg)


def remove_thumbnails(out: Path) -> None:
    """Those of an earlier run; a link in their place is removed, not followed."""
    folder = out / THUMBNAILS_NAME
    if folder.is_symlink():
        folder.unlink()
    elif folder.is_dir():
        shutil.rmtree(folder)


def render_report(
    clusterings: Sequence[Clustering],
    collection: Collection,
    thumbnail: Thumbnail,
    *,
    version: str,
    beside: Callable[[str, bytes], None] | None = None,
) -> str:
    """The whole page. beside: where a thumbnail of a large run goes, by its path from the page; without it, past 4,000
    images only exemplars and then the first images get a thumbnail. The page says what it leaves out."""
    values = _report_values(clusterings, collection, thumbnail, beside)
    plain = _plain_tables(clusterings, collection)
    values["version"] = version
    style = _part("report.css")
    script = _part("report.js")
    # The policy must come before anything it governs; `<` is escaped so that no text can close the script element.
    data = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    pictures = _image_sources(values)
    parts = {
        "@@POLICY@@": f"default-src 'none'; img-src {pictures}; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'",
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


def _image_sources(values: dict[str, Any]) -> str:
    """`file:` for a page that is opened from the disk, where no place is its own."""
    return "data: 'self' file:" if values["thumbnails"] else "data:"


def _report_values(
    clusterings: Sequence[Clustering],
    collection: Collection,
    thumbnail: Thumbnail,
    beside: Callable[[str, bytes], None] | None,
) -> dict[str, Any]:
    every = sorted(collection.images, key=lambda image: image.paths[0])
    listed = _listed(clusterings, every)
    images = every if len(listed) == len(every) else [image for image in every if image.id in listed]
    index = {image.id: position for position, image in enumerate(images)}
    is_large = beside is not None and len(every) > MAX_THUMBNAILS
    pictured = listed if is_large else _pictured(clusterings, images)

    def picture(image: Image) -> str:
        jpeg = thumbnail(image.id) if image.id in pictured else None
        if not jpeg:
            return ""
        if not is_large or beside is None:
            return base64.b64encode(jpeg).decode()
        path = f"{image.id[:2]}/{image.id}.jpg"
        beside(f"{THUMBNAILS_NAME}/{path}", jpeg)
        return path

    return {
        "images": [
            {
                "paths": [shown_name(path) for path in image.paths],
                "size": [image.width_px, image.height_px],
                **({"frames": image.frames} if image.frames > 1 else {}),
                "thumb": picture(image),
            }
            for image in images
        ],
        "thumbnails": THUMBNAILS_NAME if is_large else "",
        "unpictured": len(images) - len(pictured),
        "unlisted": len(every) - len(images),
        "unreadable": [
            [shown_name(u.path), shown_name(u.reason)] for u in sorted(collection.unreadable, key=lambda u: u.path)
        ],
        "found": sum(len(image.paths) for image in every) + len(collection.unreadable),
        "interests": [
            _interest_values(clustering, index, {} if len(images) == len(every) else _totals(clustering, every))
            for clustering in clusterings
        ],
        "crossed": _crossed(clusterings) if len(images) == len(every) else [],  # of a part it would count a part
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


def _listed(clusterings: Sequence[Clustering], images: Sequence[Image]) -> set[str]:
    """The images that the page knows: all; of very many the exemplars, then as many of each cluster and of those in
    none, half of them the surest and half the most doubtful, ties by id."""
    if len(images) <= MAX_LISTED:
        return {image.id for image in images}
    there = {image.id for image in images}
    listed = {e for clustering in clusterings for cluster in clustering.clusters for e in cluster.exemplars} & there
    members: list[list[tuple[float, str]]] = []
    for clustering in clusterings:
        own: dict[int | None, list[tuple[float, str]]] = {}
        for a in clustering.assignments:
            if a.image_id in there:
                own.setdefault(a.cluster, []).append((a.confidence, a.image_id))
        members += own.values()
    each = max(1, (MAX_LISTED - len(listed)) // max(1, 2 * len(members)))
    for ends in members:
        ends.sort()
        listed.update(image_id for _, image_id in (*ends[:each], *ends[-each:]))
    return listed


def _totals(clustering: Clustering, images: Sequence[Image]) -> dict[str, Any]:
    """Of each cluster, by its id, and of the images in none (0), what the page counts itself where it knows all."""
    files = {image.id: len(image.paths) for image in images}
    own: dict[int, list[Assignment]] = {}
    for a in clustering.assignments:
        own.setdefault(a.cluster or 0, []).append(a)
    found: dict[str, Any] = {}
    for cluster, members in sorted(own.items()):
        bins = [0] * _BINS
        for a in members:
            bins[min(_BINS - 1, int(a.confidence * _BINS))] += 1
        found[str(cluster)] = {
            "images": len(members),
            "files": sum(files.get(a.image_id, 0) for a in members),
            "mean": round(sum(a.confidence for a in members) / len(members), 4),
            "low": sum(a.confidence < _DOUBT for a in members),
            "bins": bins,
        }
    return found


def _interest_values(clustering: Clustering, index: dict[str, int], totals: dict[str, Any]) -> dict[str, Any]:
    """index: of the images that the page knows. totals: of the clusters, where it does not know all."""
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
                "exemplars": [index[image_id] for image_id in cluster.exemplars if image_id in index],
                "parent": shown_name(cluster.parent),
                "misplaced": None if cluster.misplaced is None else cluster.misplaced.to_dict(),
            }
            for cluster in sorted(clustering.clusters, key=lambda cluster: cluster.id)
        ],
        # [image, cluster or 0, confidence, reason, decided by]
        "assignments": [
            [index[a.image_id], a.cluster or 0, round(a.confidence, 4), shown_name(a.reason), a.decided_by]
            for a in clustering.assignments
            if a.image_id not in failed and a.image_id in index
        ],
        "failed": [[index[i], shown_name(reason)] for i, reason in clustering.failed if i in index],
        "notLooked": sorted(index[image_id] for image_id in clustering.not_looked if image_id in index),
        "totals": totals,
        "looked": len(clustering.assignments) + len(clustering.failed),
        "images": len(clustering.assignments) + len(clustering.failed) + len(clustering.not_looked),
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
