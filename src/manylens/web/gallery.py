"""Routes that show: the run, its interests, their images as a page or as one layout, an image, a cross-table.

In: names and filters. Out: `schemas`. Promise: nothing is changed, and nothing is asked of a model.
"""

from __future__ import annotations

import json
import os
from importlib.metadata import entry_points
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Response
from numpy.typing import NDArray

from manylens.files import public_name
from manylens.models.registry import PLUGINS
from manylens.text import shown_name
from manylens.types import Misplaced, Verdict
from manylens.web.columns import (
    FAILED,
    NOT_LOOKED,
    UNASSIGNED,
    ClusterColumns,
    ImageColumns,
    Rows,
    by_cluster,
    select,
)
from manylens.web.questions import questions_about
from manylens.web.routing import PROBLEMS, FiltersDep, KeyPath, RunDep, SlugPath, keys_of
from manylens.web.schemas import (
    Calls,
    ClusterOut,
    Cross,
    CrossName,
    ImageDetail,
    ImageItem,
    ImagePage,
    InterestDetail,
    InterestSummary,
    Layout,
    Place,
    Run,
    Section,
    Share,
    VerdictOut,
)

router = APIRouter(prefix="/api", tags=["gallery"], responses=PROBLEMS)

_STEPS = 10
"""Of a histogram of confidences, as in the report."""


@router.get("/run")
def get_run(run: RunDep) -> Run:
    place = run.place
    interests = [] if run.is_new else [_summary(*run.both(slug)) for slug in run.reader().slugs()]
    images = None if run.is_new else run.images()
    unreadable = 0 if run.is_new else len(run.reader().unreadable())
    return Run(
        state="ready" if interests else "new",
        name=run.name,
        out=shown_name(os.path.abspath(run.path)),
        folder=None if place is None else shown_name(place),
        folder_is_there=place is not None and ("://" in place or os.path.exists(place)),
        images=0 if images is None else len(images),
        files=unreadable + (0 if images is None else int(images.files.sum())),
        unreadable=unreadable,
        interests=interests,
        version=run.version(),
        read_only=bool(run.read_only),
        why_read_only=run.read_only,
        is_running=run.is_running,
        other=None if run.other is None else run.other.name,
        models=sorted({"nano", *entry_points(group=PLUGINS).names, *(one.model for one in interests)}),
    )


@router.get("/interests/{slug}")
def get_interest(slug: SlugPath, run: RunDep) -> InterestDetail:
    images, columns = run.both(slug)
    calls = columns.of.calls
    can_undo, can_redo = run.can_undo_redo(slug)
    settings = columns.settings
    placed = columns.cluster >= 0
    return InterestDetail(
        **_summary(images, columns).model_dump(),
        cluster_list=[_cluster(images, columns, at) for at in range(len(columns.of.clusters))],
        calls=Calls(
            look=calls.look,
            judge=calls.judge,
            choose=calls.choose,
            complete=calls.complete,
            failed=calls.failed,
            total=calls.total,
            tokens_in=calls.tokens.tokens_in,
            tokens_out=calls.tokens.tokens_out,
            usd=round(settings.cost_usd(calls.tokens.tokens_in, calls.tokens.tokens_out), 6)
            if settings.is_priced
            else None,
        ),
        settings={name: list(v) if isinstance(v, tuple) else v for name, v in settings.to_dict().items()},
        unassigned_histogram=_histogram(columns.confidence[~placed]),
        can_undo=can_undo,
        can_redo=can_redo,
    )


@router.get("/interests/{slug}/images")
def get_images(
    slug: SlugPath,
    run: RunDep,
    filters: FiltersDep,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=0, le=2000)] = 100,
) -> ImagePage:
    """The images that pass the filters, in order; a page of them."""
    images, columns = run.both(slug)
    rows = select(images, columns, filters.wanted(run))
    items = [_item(images, columns, int(row)) for row in rows[offset : offset + limit]]
    return ImagePage(version=columns.version, total=rows.size, items=items)


@router.get("/interests/{slug}/items")
def get_items(
    slug: SlugPath,
    run: RunDep,
    ids: Annotated[list[str], Query(min_length=1, max_length=500, description="Of images, several times.")],
) -> ImagePage:
    """These images, in this order: what a layout does not say of them."""
    images, columns = run.both(slug)
    items = [_item(images, columns, images.row(key)) for key in ids]
    return ImagePage(version=columns.version, total=len(items), items=items)


@router.get("/interests/{slug}/layout", response_model=Layout)
def get_layout(slug: SlugPath, run: RunDep, filters: FiltersDep) -> Response:
    """All images that pass the filters, as columns, cluster by cluster."""
    images, columns = run.both(slug)
    wanted = filters.wanted(run)
    versions = (images.version, columns.version, *(other.version for other, _ in wanted.within))
    body = run.layouts.get(
        (slug, *versions, *filters.key()), lambda: _layout(images, columns, select(images, columns, wanted))
    )
    return Response(body, media_type="application/json")


@router.get("/images/{key}")
def get_image(key: KeyPath, run: RunDep) -> ImageDetail:
    """Where every interest puts an image, why, and what was asked about it."""
    images = run.images()
    row = images.row(key)
    asked = questions_about(run.reader(), images.ids[row])
    places = []
    for slug, columns in run.all_columns():
        number = int(columns.cluster[row])
        in_one = number > 0
        places.append(
            Place(
                slug=slug,
                interest=columns.of.interest.text,
                cluster=number if in_one else None,
                name=shown_name(columns.name(number)) if in_one else "",
                state=columns.state(row),
                confidence=round(float(columns.confidence[row]), 4) if in_one else None,
                reason=shown_name(columns.reasons[columns.reason[row]]),
                decided_by=columns.deciders[columns.decided_by[row]],
                description=shown_name(columns.descriptions[columns.description[row]]),
                asked=[
                    question.model_copy(update={"model": public_name(columns.of.model)})
                    for question in asked.get(columns.of.interest.text, [])
                ],
            )
        )
    size = run.size_on_disk(images, row)
    return ImageDetail(
        id=images.keys[row],
        paths=[shown_name(path) for path in images.paths[row]],
        width=int(images.width[row]),
        height=int(images.height[row]),
        bytes=size,
        on_disk=size is not None,
        places=places,
    )


@router.get("/cross")
def get_cross(run: RunDep, a: Annotated[str, Query(max_length=240)], b: Annotated[str, Query(max_length=240)]) -> Cross:
    """How many images are in each pair of clusters of two interests."""
    one, other = run.columns(a), run.columns(b)
    rows, row_at = _names(one)
    columns, column_at = _names(other)
    counts = np.zeros((len(rows), len(columns)), np.int64)
    np.add.at(counts, (row_at, column_at), 1)
    keep_row = [at for at, name in enumerate(rows) if name.id is not None or counts[at].any()]
    keep_column = [at for at, name in enumerate(columns) if name.id is not None or counts[:, at].any()]
    return Cross(
        a=a,
        b=b,
        rows=[rows[at] for at in keep_row],
        columns=[columns[at] for at in keep_column],
        counts=counts[np.ix_(keep_row, keep_column)].tolist(),
    )


def _names(columns: ClusterColumns) -> tuple[list[CrossName], Rows]:
    """The clusters, and last those in none; and of each image its place among them."""
    names = [CrossName(id=cluster.id, name=shown_name(cluster.name)) for cluster in columns.of.clusters]
    places = np.full(max((c.id for c in columns.of.clusters), default=0) + 1, len(names), np.int64)
    for at, cluster in enumerate(columns.of.clusters):
        places[cluster.id] = at
    numbers = columns.cluster
    found = np.where(numbers > 0, places[np.maximum(numbers, 0)], len(names))
    return [*names, CrossName(id=None, name="")], found


def share(estimate: Misplaced | None) -> Share | None:
    return None if estimate is None else Share(**estimate.to_dict())


def _verdict(verdict: Verdict | None) -> VerdictOut | None:
    return (
        None
        if verdict is None
        else VerdictOut(word=verdict.word, reason=shown_name(verdict.reason), advice=shown_name(verdict.advice))
    )


def _summary(images: ImageColumns, columns: ClusterColumns) -> InterestSummary:
    clustering, files, cluster = columns.of, images.files, columns.cluster

    def counted(mask: NDArray[np.bool_]) -> int:
        return int(files[mask].sum())

    return InterestSummary(
        slug=clustering.interest.slug,
        interest=clustering.interest.text,
        model=shown_name(public_name(clustering.model)),
        clusters=len(clustering.clusters),
        images=len(images),
        assigned=counted(cluster > 0),
        unassigned=counted(cluster == UNASSIGNED),
        failed=counted(cluster == FAILED),
        not_looked=counted(cluster == NOT_LOOKED),
        misplaced=share(clustering.estimate),
        verdict=_verdict(clustering.verdict),
        notes=[shown_name(note) for note in clustering.notes],
        level=columns.settings.level,
        groups=columns.settings.n_clusters,
        version=columns.version,
        is_partial=clustering.is_partial,
    )


def _cluster(images: ImageColumns, columns: ClusterColumns, at: int) -> ClusterOut:
    cluster = columns.of.clusters[at]
    own = columns.cluster == cluster.id
    confidence = columns.confidence[own]
    person = columns.deciders.index("person") if "person" in columns.deciders else -1
    return ClusterOut(
        id=cluster.id,
        name=shown_name(cluster.name),
        definition=shown_name(cluster.definition),
        size=int(images.files[own].sum()),
        images=int(own.sum()),
        confidence=round(float(confidence.mean()), 4) if confidence.size else 0.0,
        histogram=_histogram(confidence),
        misplaced=share(cluster.misplaced),
        parent=shown_name(cluster.parent),
        exemplars=keys_of(images, cluster.exemplars),
        decided_by_person=int((columns.decided_by[own] == person).sum()),
    )


def _histogram(confidence: NDArray[np.float32]) -> list[int]:
    steps = np.minimum((confidence * _STEPS).astype(np.int64), _STEPS - 1)
    found: list[int] = np.bincount(steps, minlength=_STEPS).tolist()
    return found


def _item(images: ImageColumns, columns: ClusterColumns, row: int) -> ImageItem:
    number = int(columns.cluster[row])
    return ImageItem(
        id=images.keys[row],
        path=shown_name(images.paths[row][0]),
        files=int(images.files[row]),
        cluster=number if number > 0 else None,
        state=columns.state(row),
        confidence=round(float(columns.confidence[row]), 4) if number > 0 else None,
        decided_by=columns.deciders[columns.decided_by[row]],
        description=shown_name(columns.descriptions[columns.description[row]]),
        width=int(images.width[row]),
        height=int(images.height[row]),
    )


def _layout(images: ImageColumns, columns: ClusterColumns, rows: Rows) -> bytes:
    """Written by hand: the model's own validation of 50,000 images takes longer than all else."""
    sections: list[dict[str, int | None]] = []
    stretches = by_cluster(rows, columns, [cluster.id for cluster in columns.of.clusters])
    start = 0
    for number, own in stretches:
        sections.append(Section(cluster=number, start=start, count=own.size).model_dump())
        start += own.size
    order = np.concatenate([own for _, own in stretches]) if stretches else rows
    confidence = columns.confidence[order]
    # What is not certain is never called 100% sure.
    percent = np.where(confidence < 1, np.minimum(np.rint(confidence * 100), 99), 100).astype(np.int64)
    person = columns.deciders.index("person") if "person" in columns.deciders else -1
    placed = columns.cluster[order] > 0
    return json.dumps(
        {
            "version": columns.version,
            "total": int(order.size),
            "ids": [images.keys[row] for row in order],
            "aspect": np.round(images.width[order] / np.maximum(images.height[order], 1), 3).tolist(),
            "confidence": [
                value if is_placed else None for value, is_placed in zip(percent.tolist(), placed.tolist(), strict=True)
            ],
            "sections": sections,
            "decided_by_person": np.flatnonzero(columns.decided_by[order] == person).tolist(),
        },
        separators=(",", ":"),
    ).encode()
