"""Coarser and finer clusterings of a sorted collection: cuts through one small tree.

In: a `Sorting`, parents of its clusters and finer kinds of its units where a writer gave them. Out: groups of images.
Promise: pure; another level of a finished run asks nothing about images. The tree's leaves are units; they are joined
by complete linkage of their mean directions, those of one finer kind first, then those of one cluster, of one parent,
and last of all. Average linkage made one giant of most kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from manylens.method.likelihood import FloatArray
from manylens.method.observations import directions, sum_by_group
from manylens.method.sorting import NONE, Sorting

_MOST_LEAVES = 400
"""Leaves of the tree: smaller units of a cluster, and single images, are part of the leaf that they are nearest to."""


_MOST_NAMED = 3
"""Clusters that a coarser kind is named by, where no model names it."""


@dataclass(frozen=True, slots=True)
class Group:
    """A cluster as it will be shown. cluster: of the sorting, the largest in it; images: in ascending order."""

    cluster: int
    images: tuple[int, ...]


def cut(
    sorting: Sorting,
    level: str,
    count: int | None,
    parents: Mapping[int, str],
    finer: Sequence[str | None],
) -> tuple[list[Group], dict[int, str]]:
    """The groups of a level ("coarse", "medium", "fine"), or exactly `count` of them where there are enough units.

    parents: live cluster -> the name of a coarser kind; empty where nobody named any. finer: of each unit, the name of
    a finer kind, or None. Returns groups, and group number -> its parent's name.
    """
    by_kind = finer if count is None else [None] * len(finer)  # a number may ask for more than there are kinds
    leaves, cluster_of_leaf, leaf_of_unit = _leaves(sorting, by_kind)
    if not leaves:
        return [], {}
    parent = parents or _parents_by_likeness(sorting, cluster_of_leaf, leaves)
    kind = [finer[units[0]] for units in leaves]
    home = [parent.get(c, f"\0{c}") for c in cluster_of_leaf]

    def rank(one: int, other: int) -> int:
        if cluster_of_leaf[one] == cluster_of_leaf[other]:
            return 0 if kind[one] is not None and kind[one] == kind[other] else 1
        return 2 if home[one] == home[other] else 3

    group_of_leaf = list(range(len(leaves)))
    live = set(cluster_of_leaf)
    wanted = {"medium": len(live), "coarse": len(set(home))}.get(level, 0)
    if count is not None:
        wanted = min(count, len(leaves))
    merges = _linkage(sorting, leaves, rank)
    left = len(leaves)
    for one, other, at, odds in merges:
        if count is None and level == "fine":
            if at > 1 or (at == 1 and (any(finer) or odds < 0)):
                continue
        elif left <= wanted:
            break
        kept, gone = group_of_leaf[one], group_of_leaf[other]
        group_of_leaf = [kept if g == gone else g for g in group_of_leaf]
        left -= 1
    return _groups(sorting, group_of_leaf, leaf_of_unit, cluster_of_leaf, parent)


def _leaves(sorting: Sorting, finer: Sequence[str | None]) -> tuple[list[list[int]], list[int], dict[int, int]]:
    """Units that are leaves (with the smaller ones that they stand for), each one's cluster, and unit -> leaf."""
    share = max(1, _MOST_LEAVES // max(1, len(sorting.row)))
    leaves: list[list[int]] = []
    cluster_of_leaf: list[int] = []
    leaf_of_unit: dict[int, int] = {}
    for cluster, row in sorting.row.items():
        units = sorting.units_in[row]
        units = units[np.argsort(-sorting.units.sizes[units], kind="stable")].tolist()
        first = len(leaves)
        for unit in units:
            mine = range(first, len(leaves))
            same = [leaf for leaf in mine if finer[unit] is not None and finer[leaves[leaf][0]] == finer[unit]]
            is_single = int(sorting.units.sizes[unit]) == 1 and len(mine) > 0
            if same or is_single or len(mine) >= share:
                near = sorting.units.vectors[[leaves[leaf][0] for leaf in (same or mine)]] @ sorting.units.vectors[unit]
                leaf = list(same or mine)[int(np.round(near, 5).argmax())]
                leaves[leaf].append(unit)
            else:
                leaf = len(leaves)
                leaves.append([unit])
                cluster_of_leaf.append(cluster)
            leaf_of_unit[unit] = leaf
    return leaves, cluster_of_leaf, leaf_of_unit


def _directions(sorting: Sorting, leaves: Sequence[Sequence[int]]) -> FloatArray:
    units = np.array([unit for leaf in leaves for unit in leaf], dtype=np.int64)
    group = np.repeat(np.arange(len(leaves)), [len(leaf) for leaf in leaves])
    sizes = sorting.units.sizes[units]
    sums = sum_by_group(sorting.units.vectors[units] * sizes[:, None].astype(np.float32), group, len(leaves))
    return directions(sums).astype(np.float64)


def _linkage(
    sorting: Sorting, leaves: Sequence[Sequence[int]], rank: Callable[[int, int], int]
) -> list[tuple[int, int, int, float]]:
    """Complete linkage: (leaf of one, of the other, rank, log-odds that they are one kind), in order of joining."""
    vectors = _directions(sorting, leaves)
    n = len(leaves)
    similar = np.round(vectors @ vectors.T, 5)
    ranks = np.array([[rank(i, j) for j in range(n)] for i in range(n)], dtype=np.int64).reshape(n, n)
    score = similar - 10.0 * ranks
    np.fill_diagonal(score, -np.inf)
    alive = np.ones(n, dtype=bool)
    merges: list[tuple[int, int, int, float]] = []
    for _ in range(n - 1):
        at = int(np.where(alive[:, None] & alive[None, :], score, -np.inf).argmax())
        i, j = divmod(at, n)
        merges.append((i, j, int(ranks[i, j]), sorting.log_odds(float(similar[i, j]))))
        similar[i] = similar[:, i] = np.minimum(similar[i], similar[j])
        ranks[i] = ranks[:, i] = np.maximum(ranks[i], ranks[j])
        score[i] = score[:, i] = similar[i] - 10.0 * ranks[i]
        score[i, i] = -np.inf
        alive[j] = False
    return merges


def _parents_by_likeness(
    sorting: Sorting, cluster_of_leaf: Sequence[int], leaves: Sequence[Sequence[int]]
) -> dict[int, str]:
    """Clusters joined up to the widest gap in likeness, from half down to a fifth of them; named by what they hold."""
    clusters = sorted(set(cluster_of_leaf))
    if len(clusters) < 4:
        return {}
    whole = [
        [u for leaf, c in zip(leaves, cluster_of_leaf, strict=True) if c == cluster for u in leaf]
        for cluster in clusters
    ]
    merges = _linkage(sorting, whole, lambda i, j: 0)
    odds = [merge[3] for merge in merges]
    few = range(len(clusters) - len(clusters) // 2, len(clusters) - max(1, len(clusters) // 5))
    after = max(few, key=lambda k: (odds[k - 1] - odds[k], -k))
    group = list(range(len(clusters)))
    for i, j, _, _ in merges[:after]:
        kept, gone = group[i], group[j]
        group = [kept if g == gone else g for g in group]
    size = {c: int(sum(sorting.units.sizes[u] for u in units)) for c, units in zip(clusters, whole, strict=True)}
    parents: dict[int, str] = {}
    for kind in set(group):
        own = sorted((c for c, g in zip(clusters, group, strict=True) if g == kind), key=lambda c: (-size[c], c))
        if len(own) > 1:
            named = [sorting.clusters[c].name for c in own[:_MOST_NAMED]]
            parents |= dict.fromkeys(own, ", ".join(named) + (", ..." if len(own) > _MOST_NAMED else ""))
    return parents


def _groups(
    sorting: Sorting,
    group_of_leaf: Sequence[int],
    leaf_of_unit: Mapping[int, int],
    cluster_of_leaf: Sequence[int],
    parent: Mapping[int, str],
) -> tuple[list[Group], dict[int, str]]:
    """Images by group. One that was asked and is not where its unit is goes to the largest group of its own cluster."""
    weight: dict[int, float] = {}
    for unit, leaf in leaf_of_unit.items():
        weight[group_of_leaf[leaf]] = weight.get(group_of_leaf[leaf], 0.0) + float(sorting.units.sizes[unit])
    main: dict[int, int] = {}
    for leaf, cluster in enumerate(cluster_of_leaf):
        group = group_of_leaf[leaf]
        if cluster not in main or weight[group] > weight[main[cluster]]:
            main[cluster] = group
    images: dict[int, list[int]] = {}
    largest: dict[int, int] = {}
    for leaf, cluster in enumerate(cluster_of_leaf):
        group = group_of_leaf[leaf]
        if group not in largest or sorting.weight[sorting.row[cluster]] > sorting.weight[sorting.row[largest[group]]]:
            largest[group] = cluster
    units, places = sorting.units.of_image.tolist(), sorting.places().tolist()
    for image, (unit, cluster) in enumerate(zip(units, places, strict=True)):
        if cluster == NONE:
            continue
        stays = cluster == sorting.place[unit] and unit in leaf_of_unit
        group = group_of_leaf[leaf_of_unit[unit]] if stays else main.get(cluster, NONE)
        if group == NONE:  # a cluster that holds no whole unit
            group = main[cluster] = -2 - cluster
            largest[group] = cluster
        images.setdefault(group, []).append(image)
    order = sorted(images, key=lambda group: (-len(images[group]), images[group][0]))
    groups = [Group(largest[group], tuple(images[group])) for group in order]
    named = {n: parent[largest[group]] for n, group in enumerate(order) if largest[group] in parent}
    return groups, named
