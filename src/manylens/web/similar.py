"""Routes about likeness: an image's neighbours in the relational graph, and the plane of all embeddings.

In: an interest, an image. Out: neighbours with edge weights; points. Promise: asks no model; the plane is made once for
a clustering's embeddings and kept in the run folder.
"""

from __future__ import annotations

import base64
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query

from manylens.method.graph import edge_weight
from manylens.text import shown_name
from manylens.web.routing import PROBLEMS, KeyPath, RunDep, SlugPath
from manylens.web.schemas import MapPoints, Neighbour, Neighbours

router = APIRouter(prefix="/api", tags=["likeness"], responses=PROBLEMS)

_BLOCK_ROWS = 8192
"""Embeddings that are turned into float32 at once."""


@router.get("/images/{key}/neighbours")
def get_neighbours(
    key: KeyPath,
    run: RunDep,
    interest: Annotated[str, Query(max_length=240, description="Its slug.")],
    limit: Annotated[int, Query(ge=1, le=200)] = 24,
) -> Neighbours:
    """The nearest images by the embeddings, with the weights of the edges. None for one without an embedding."""
    images, columns, vectors, rows = run.embedded(interest)
    row = images.row(key)
    tau = columns.settings.tau
    at = int(np.searchsorted(rows, row))
    if at >= rows.size or rows[at] != row:
        return Neighbours(neighbours=[], tau=tau)
    own = vectors[at].astype(np.float32)
    similarity = np.concatenate(
        [vectors[start : start + _BLOCK_ROWS].astype(np.float32) @ own for start in range(0, len(rows), _BLOCK_ROWS)]
    )
    similarity[at] = -np.inf
    limit = min(limit, rows.size - 1)
    if limit == 0:
        return Neighbours(neighbours=[], tau=tau)
    nearest = np.argpartition(-similarity, limit - 1)[:limit]
    nearest = nearest[np.lexsort((nearest, -similarity[nearest]))]
    scale, offset = run.edge(columns)
    weights = edge_weight(similarity[nearest].astype(np.float64), scale, offset)
    found = []
    for place, weight in zip(nearest.tolist(), weights.tolist(), strict=True):
        other = int(rows[place])
        number = int(columns.cluster[other])
        found.append(
            Neighbour(
                id=images.keys[other],
                weight=round(weight, 4),
                similarity=round(float(similarity[place]), 4),
                cluster=number if number > 0 else None,
                description=shown_name(columns.descriptions[columns.description[other]]),
            )
        )
    return Neighbours(neighbours=found, tau=tau)


@router.get("/interests/{slug}/map")
def get_map(slug: SlugPath, run: RunDep) -> MapPoints:
    """All images with an embedding as points of a plane. A preliminary one comes at once, and a better one when it is
    made: ask again after the event `map`."""
    images, columns, vectors, rows = run.embedded(slug)
    plane = run.planes.get(slug, vectors)
    numbers = columns.cluster[rows].tolist()
    return MapPoints(
        version=columns.version,
        ids=[images.keys[row] for row in rows],
        clusters=[number if number > 0 else None for number in numbers],
        points=base64.b64encode(plane.points.astype("<f4").tobytes()).decode(),
        method=plane.method,
        state="ready" if plane.is_final else "preliminary",
    )
