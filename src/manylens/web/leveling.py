"""Routes about levels: coarser and finer cuts of a finished clustering, shown without any cost.

In: an interest. Out: its tree, which the page cuts at any number of groups by itself; or one cut. Promise: nothing is
changed and nothing is asked. To make a cut the run's own, a job is begun with `groups` or `level`.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path

from manylens.models.registry import is_local
from manylens.settings import ModelOptions
from manylens.text import shown_name
from manylens.web.columns import ClusterColumns, ImageColumns
from manylens.web.routing import PROBLEMS, RunDep, SlugPath
from manylens.web.schemas_correcting import (
    LeafOut,
    LevelCluster,
    LevelJoin,
    LevelMark,
    Levels,
    LevelView,
)
from manylens.web.shown import ShownRun
from manylens.web.tree import Tree, make_tree

router = APIRouter(prefix="/api/interests/{slug}", tags=["levels"], responses=PROBLEMS)

_MOST_EXEMPLARS = 5


def _tree(run: ShownRun, slug: str) -> tuple[ImageColumns, ClusterColumns, Tree]:
    images, columns, vectors, rows = run.embedded(slug)
    tree = run.trees.get((slug, images.version, columns.version), lambda: make_tree(columns, vectors, rows))
    return images, columns, tree


@router.get("/levels")
def get_levels(slug: SlugPath, run: RunDep) -> Levels:
    """The tree of this clustering: its leaves, which image is in which, and the order in which they join."""
    images, columns, tree = _tree(run, slug)
    leaf_of = np.full(len(images), -1, np.int64)
    for number, leaf in enumerate(tree.leaves):
        leaf_of[leaf.rows] = number
    placed = np.flatnonzero(leaf_of >= 0)
    return Levels(
        version=columns.version,
        current=columns.settings.level,
        current_groups=tree.clusters,
        least=1 if tree.leaves else 0,
        most=len(tree.leaves),
        marks=[
            LevelMark(name="coarse", groups=tree.of_parents),
            LevelMark(name="medium", groups=tree.clusters),
            LevelMark(name="fine", groups=len(tree.leaves)),
        ],
        is_free=is_local(columns.of.model, ModelOptions()),
        leaves=[
            LeafOut(
                cluster=leaf.cluster,
                name=shown_name(leaf.name),
                size=int(images.files[leaf.rows].sum()),
                exemplars=_exemplars(images, columns, leaf.rows),
            )
            for leaf in tree.leaves
        ],
        joins=[LevelJoin(kept=join.kept, gone=join.gone, name=shown_name(join.name)) for join in tree.joins],
        ids=[images.keys[row] for row in placed],
        leaf_of=leaf_of[placed].tolist(),
    )


@router.get("/levels/{groups}")
def get_level(slug: SlugPath, run: RunDep, groups: Annotated[int, Path(ge=1, le=100_000)]) -> LevelView:
    """The images in so many groups, as near as the tree has it; nothing is changed."""
    images, columns, tree = _tree(run, slug)
    group_of = np.full(len(images), -1, np.int64)
    found = []
    for number, (name, members) in enumerate(tree.groups(groups), start=1):
        rows = np.concatenate([tree.leaves[at].rows for at in members])
        group_of[rows] = number
        found.append(
            LevelCluster(
                id=number,
                name=shown_name(name),
                size=int(images.files[rows].sum()),
                exemplars=_exemplars(images, columns, rows),
                clusters=sorted({tree.leaves[at].cluster for at in members}),
            )
        )
    placed = np.flatnonzero(group_of > 0)
    return LevelView(
        version=columns.version,
        groups=found,
        ids=[images.keys[row] for row in placed],
        group_of=group_of[placed].tolist(),
    )


def _exemplars(
    images: ImageColumns, columns: ClusterColumns, rows: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> list[str]:
    """The surest of these images, ties by id."""
    order = np.lexsort((rows, -columns.confidence[rows]))[:_MOST_EXEMPLARS]
    return [images.keys[row] for row in rows[order]]
