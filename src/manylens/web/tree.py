"""The tree of a clustering's coarser and finer cuts, so that the page can merge and split before the eye.

In: a clustering as columns, embeddings. Out: leaves (images of one cluster that were described alike) and the order in
which they join: those of one cluster first, then those of one parent, then all. Promise: pure and without cost; cut at
as many groups as there are clusters it is the clustering itself. It is built as `method.levels` builds that of a run,
from what the run folder keeps: a run at another level may differ where units of it were judged apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manylens.web.columns import ClusterColumns, Rows

MOST_LEAVES = 400
"""As in `method.levels`: smaller groups of a cluster are part of its leaf that they are nearest to."""

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Leaf:
    """cluster: that it is of. name: what its images were described as. rows: of its images."""

    cluster: int
    name: str
    rows: Rows


@dataclass(frozen=True, slots=True)
class Join:
    """Two groups become one: leaf `gone` and all that joined it before go to leaf `kept`. name: of what is made."""

    kept: int
    gone: int
    name: str


@dataclass(frozen=True, slots=True)
class Tree:
    """leaves: those of a cluster side by side. joins: in order; the first so many leave one group each fewer.
    of_parents: groups where the clusters of one parent are one."""

    leaves: tuple[Leaf, ...]
    joins: tuple[Join, ...]
    clusters: int
    of_parents: int

    def groups(self, count: int) -> list[tuple[str, list[int]]]:
        """(name, leaves) of each of so many groups, as near as can be, the largest first."""
        members = {at: [at] for at in range(len(self.leaves))}
        names = {at: leaf.name for at, leaf in enumerate(self.leaves)}
        for join in self.joins[: max(0, len(self.leaves) - count)]:
            members[join.kept] += members.pop(join.gone)
            names[join.kept] = join.name
        found = [(names[at], sorted(own)) for at, own in members.items()]
        return sorted(found, key=lambda group: (-sum(self.leaves[at].rows.size for at in group[1]), group[1]))


def make_tree(columns: ClusterColumns, vectors: NDArray[np.float16], rows: Rows) -> Tree:
    """vectors: (m, d), of the images in `rows`."""
    place = np.full(columns.cluster.size, -1, np.int64)
    place[rows] = np.arange(rows.size)
    leaves, means = _leaves(columns, vectors, place)
    parent = {cluster.id: cluster.parent for cluster in columns.of.clusters}
    cluster_of = np.array([leaf.cluster for leaf in leaves], np.int64)
    homes = {name: at for at, name in enumerate(sorted({p for p in parent.values() if p}))}
    home = np.array([homes.get(parent[number], -1 - number) for number in cluster_of.tolist()], np.int64)
    joins = _joins(columns, leaves, means, cluster_of, home, parent)
    return Tree(tuple(leaves), tuple(joins), len(set(cluster_of.tolist())), len(set(home.tolist())))


def _leaves(
    columns: ClusterColumns, vectors: NDArray[np.float16], place: NDArray[np.int64]
) -> tuple[list[Leaf], NDArray[np.float32]]:
    clusters = [cluster for cluster in columns.of.clusters if (columns.cluster == cluster.id).any()]
    share = max(1, MOST_LEAVES // max(1, len(clusters)))
    width = vectors.shape[1]
    leaves: list[Leaf] = []
    means: list[NDArray[np.float32]] = []
    for cluster in clusters:
        own = columns.rows_of(cluster.id)
        words, at, sizes = np.unique(columns.description[own], return_inverse=True, return_counts=True)
        sums = np.zeros((words.size, width), np.float32)
        known = place[own] >= 0
        np.add.at(sums, at[known], vectors[place[own][known]].astype(np.float32))
        units = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
        order = np.lexsort((words, -sizes))
        stands = [int(unit) for unit in order[:share] if sizes[unit] > 1] or [int(order[0])]
        leaf_of = np.zeros(words.size, np.int64)
        nearest = np.round(units @ units[stands].T, 5).argmax(axis=1)
        leaf_of[:] = nearest
        for number, unit in enumerate(stands):
            leaf_of[unit] = number
        for number, unit in enumerate(stands):
            mine = leaf_of[at] == number
            mean = sums[leaf_of == number].sum(axis=0)
            means.append(mean / max(float(np.linalg.norm(mean)), 1e-9))
            leaves.append(Leaf(cluster.id, columns.descriptions[int(words[unit])] or cluster.name, own[mine]))
    return leaves, np.stack(means) if means else np.zeros((0, width), np.float32)


def _joins(
    columns: ClusterColumns,
    leaves: list[Leaf],
    means: NDArray[np.float32],
    cluster_of: NDArray[np.int64],
    home: NDArray[np.int64],
    parent: dict[int, str],
) -> list[Join]:
    """Complete linkage of mean directions, by rank before likeness."""
    n = len(leaves)
    similar = np.round(means.astype(np.float64) @ means.T.astype(np.float64), 5)
    ranks = np.where(cluster_of[:, None] == cluster_of, 0, np.where(home[:, None] == home, 1, 2))
    score = similar - 10.0 * ranks
    np.fill_diagonal(score, -np.inf)
    alive = np.ones(n, bool)
    members = {at: [at] for at in range(n)}
    joins = []
    for _ in range(n - 1):
        one, other = divmod(int(score.argmax()), n)
        members[one] += members.pop(other)
        joins.append(Join(one, other, _name(columns, leaves, members[one], parent)))
        similar[one] = similar[:, one] = np.minimum(similar[one], similar[other])
        ranks[one] = ranks[:, one] = np.maximum(ranks[one], ranks[other])
        score[one] = score[:, one] = similar[one] - 10.0 * ranks[one]
        alive[other] = False
        score[one, ~alive] = score[~alive, one] = score[one, one] = -np.inf
        score[other] = score[:, other] = -np.inf
    return joins


def _name(columns: ClusterColumns, leaves: list[Leaf], members: list[int], parent: dict[int, str]) -> str:
    """A part of a cluster is called by its largest leaf; a whole one by its name; several by their parent, where that
    is theirs alone, else by the largest of them."""
    sizes: dict[int, int] = {}
    for at in members:
        sizes[leaves[at].cluster] = sizes.get(leaves[at].cluster, 0) + leaves[at].rows.size
    if len(sizes) == 1:
        ((number, size),) = sizes.items()
        if size == int((columns.cluster == number).sum()):
            return columns.name(number)
        return max((leaves[at] for at in members), key=lambda leaf: leaf.rows.size).name
    parents = {parent[number] for number in sizes}
    if len(parents) == 1 and (shared := parents.pop()):
        return shared
    largest = sorted(sizes, key=lambda number: (-sizes[number], number))
    more = ", ..." if len(largest) > _MOST_NAMED else ""
    return ", ".join(columns.name(number) for number in largest[:_MOST_NAMED]) + more
