"""What a person said, applied to a clustering: it outranks the model, and holds for clusterings of other runs, too.

In: a clustering as the model decided it, and a log of rulings. Out: the clustering that is shown. Promise: pure; the
model's clustering is not changed, so what is left out of the log is taken back; the log is applied in order, and of two
rulings about one image the later holds.

A cluster is found again by its id, which it keeps as long as it goes on (`continued`). Where no cluster has that id, at
another level for instance, it is the one that holds most of the images that were in it when the person spoke.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from manylens.method.observations import normalise_description
from manylens.types import Anchor, Assignment, Basis, Cluster, Clustering, Misplaced, Ruling

MOST_MEMBERS = 32
"""Images that an anchor keeps of its cluster: the share of them in another cluster is then known to some 9 in 100."""

_SAME = 0.5
"""Two clusters of which more than this share of the images of either are in both are one: no third can be it, too."""

_LEAST_DOUBT = 1e-3
"""What a placement of confidence 1 counts where what is misplaced is spread over the images."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a person said of images, for whoever asks about them. placed: image id -> the cluster it was put into, None
    for none. barred: image id -> clusters that it is not in. cluster_of: of all images of the clustering."""

    placed: Mapping[str, int | None]
    barred: Mapping[str, frozenset[int]]
    cluster_of: Mapping[str, int]


def apply_rulings(clustering: Clustering, rulings: Sequence[Ruling]) -> Clustering:
    """The clustering with the rulings applied. Without any it is returned as it is."""
    if not rulings:
        return clustering
    table = Table(clustering)
    for ruling in rulings:
        table.apply(ruling)
    return table.result()


def said_by(clustering: Clustering, rulings: Sequence[Ruling]) -> Said:
    """What the rulings say of single images, in the clusters of the clustering that they were applied to."""
    table = Table(clustering)
    for ruling in rulings:
        table.apply(ruling)
    barred: dict[str, frozenset[int]] = {}
    for image_id, clusters in table.barred.items():
        if table.place.get(image_id) not in clusters:
            barred[image_id] = frozenset(clusters)
    ruled = {a.image_id: a.cluster for a in table.new.values() if a.decided_by == "person"}
    placed = {image_id: at for image_id, at in ruled.items() if at is not None or image_id not in barred}
    return Said(placed, barred, {image: at for image, at in table.place.items() if at is not None})


class Table:
    """Where each image is while rulings are applied."""

    def __init__(self, clustering: Clustering) -> None:
        self.clustering = clustering
        self.old = {a.image_id: a for a in clustering.assignments}
        self.place: dict[str, int | None] = {a.image_id: a.cluster for a in clustering.assignments}
        self.new: dict[str, Assignment] = {}
        self.clusters = {cluster.id: cluster for cluster in clustering.clusters}
        self.sizes = Counter(self.place.values())
        self.barred: dict[str, set[int]] = {}

    # Which cluster is meant

    def anchor(self, cluster_id: int) -> Anchor:
        """How a cluster that is there now is found again. Raises KeyError for an id that is not there."""
        cluster = self.clusters[cluster_id]
        first = {image: rank for rank, image in enumerate(cluster.exemplars)}
        own = [self.now(image) for image, at in self.place.items() if at == cluster_id]
        own.sort(key=lambda a: (a.decided_by != "person", first.get(a.image_id, len(first)), -a.confidence, a.image_id))
        return Anchor(cluster_id, cluster.name, len(own), tuple(a.image_id for a in own[:MOST_MEMBERS]))

    def now(self, image: str) -> Assignment:
        return self.new.get(image) or self.old[image]

    def find(self, anchor: Anchor) -> int | None:
        """The cluster of an anchor, or what holds most of its images; None where none of them is in any."""
        if anchor.id in self.clusters:
            return anchor.id
        best = self._votes(anchor)
        return best[0] if best else None

    def same(self, anchor: Anchor) -> int | None:
        """The cluster of an anchor, or the one that is nearly the same images: not a coarser or a finer one."""
        if anchor.id in self.clusters:
            return anchor.id
        if not (best := self._votes(anchor)):
            return None
        cluster, share = best
        overlap = share * anchor.size
        return cluster if overlap > _SAME * (anchor.size + self.sizes[cluster] - overlap) else None

    def _votes(self, anchor: Anchor) -> tuple[int, float] | None:
        here = [self.place[image] for image in anchor.members if image in self.place]
        votes = Counter(cluster for cluster in here if cluster is not None)
        if not votes:
            return None
        cluster = min(votes, key=lambda c: (-votes[c], c))
        return cluster, votes[cluster] / len(here)

    def found(self, anchor: Anchor) -> int:
        """The cluster of an anchor; where it cannot be found it is there again."""
        cluster = self.find(anchor)
        if cluster is None:
            cluster = anchor.id
            self.clusters[cluster] = Cluster(cluster, anchor.name, "", 0, ())
        return cluster

    def name_of(self, cluster: int | None) -> str:
        return "" if cluster is None else self.clusters[cluster].name

    # What is said

    def apply(self, ruling: Ruling) -> None:
        kind, anchor = ruling.kind, ruling.cluster
        images = [image for image in ruling.images if image in self.place]
        if kind == "unassign":
            for image in images:
                self._put(image, None, "a person took it out of every cluster")
        elif kind == "judged":
            self._take_over(ruling)
        elif anchor is None:
            raise ValueError(f"a ruling of kind {kind!r} is about a cluster")
        elif kind == "rename":
            if (same := self.same(anchor)) is not None:
                self.clusters[same] = replace(self.clusters[same], name=ruling.name)
        elif kind == "merge":
            assert ruling.into is not None
            self._merge(images, anchor, ruling.into)
        elif kind == "not":
            self._bar(images, anchor)
        elif kind in ("new", "split"):
            if images and anchor.id not in self.clusters:
                self.clusters[anchor.id] = Cluster(anchor.id, anchor.name, "", 0, ())
            for image in images:
                self._put(image, anchor.id, f'a person put it into "{self.name_of(anchor.id)}"')
        elif images:
            cluster = self.found(anchor)
            verb = "confirmed that it belongs to" if kind == "confirm" else "put it into"
            for image in images:
                self._put(image, cluster, f'a person {verb} "{self.name_of(cluster)}"')
        for cluster in [c for c in self.clusters if not self.sizes[c]]:
            del self.clusters[cluster]

    def _put(self, image: str, cluster: int | None, reason: str, of: Assignment | None = None) -> None:
        """of: confidence and by whom, where a person does not decide it."""
        if of is None:
            self.barred.pop(image, None)
        self.sizes[self.place[image]] -= 1
        self.sizes[cluster] += 1
        self.place[image] = cluster
        if of is None:
            of = Assignment(image, cluster, 0.0 if cluster is None else 1.0, reason, "person")
        self.new[image] = replace(of, cluster=cluster, reason=reason)

    def _merge(self, images: Sequence[str], one: Anchor, into: Anchor) -> None:
        target = self.found(into)
        source = self.same(one)
        if source is None:  # a coarser cluster goes nowhere: what was in this one does
            source = self.find(one)
            images = [image for image in images if self.place[image] == source]
        else:
            images = [image for image, cluster in self.place.items() if cluster == source]
        if source is None or source == target:
            return
        names = f'"{one.name}" into "{self.name_of(target)}"'
        for image in images:
            now = self.now(image)
            self._put(image, target, f"{now.reason}; a person merged {names}", now)

    def _bar(self, images: Sequence[str], anchor: Anchor) -> None:
        cluster = self.find(anchor)
        if cluster is None:
            return
        for image in images:
            said = {*self.barred.get(image, ()), cluster}
            if self.place[image] == cluster:
                self._put(image, None, f'a person said that it is not in "{self.name_of(cluster)}"')
            self.barred[image] = said

    def _take_over(self, ruling: Ruling) -> None:
        """A model's later decisions stand where the clustering still is what they were made on, and nobody spoke."""
        for one in ruling.judged:
            image = one.image_id
            ruled = self.new.get(image)
            by_person = ruled is not None and ruled.decided_by == "person" and image not in self.barred
            if image not in self.place or self.place[image] != one.before or by_person:
                continue
            cluster = None if ruling.cluster is None else self.found(ruling.cluster)
            if cluster not in self.barred.get(image, ()):
                self._put(image, cluster, one.reason, Assignment(image, cluster, one.confidence, "", one.decided_by))

    # What comes of it

    def result(self) -> Clustering:
        clustering = self.clustering
        assignments = tuple(self.new.get(a.image_id, a) for a in clustering.assignments)
        clusters = _named_apart(self.clusters, {cluster.id: cluster.name for cluster in clustering.clusters})
        spread = _Spread(clustering, assignments)
        shown = _exemplars(clusters, assignments)
        clusters = [
            replace(
                cluster,
                size=self.sizes[cluster.id],
                exemplars=shown[cluster.id],
                misplaced=spread.of_cluster(cluster.id),
            )
            for cluster in clusters
        ]
        clusters.sort(key=lambda cluster: (-cluster.size, cluster.id))
        return replace(clustering, clusters=tuple(clusters), assignments=assignments, estimate=spread.overall())


def _named_apart(clusters: Mapping[int, Cluster], before: Mapping[int, str]) -> list[Cluster]:
    """No two clusters have one name: what a person named keeps it, the other's id is added to its name."""
    taken: set[str] = set()
    found = []
    by_person = sorted(clusters, key=lambda c: (clusters[c].name == before.get(c), c))
    for number in by_person:
        cluster = clusters[number]
        folded = normalise_description(cluster.name)
        if folded in taken:
            cluster = replace(cluster, name=f"{cluster.name} ({number})")
        taken.add(normalise_description(cluster.name))
        found.append(cluster)
    return found


def _exemplars(clusters: Sequence[Cluster], assignments: Sequence[Assignment]) -> dict[int, tuple[str, ...]]:
    """Those that are still there; a cluster without any shows a person's images, then the surest."""
    place = {a.image_id: a.cluster for a in assignments}
    many = max((len(cluster.exemplars) for cluster in clusters), default=0) or 1
    found = {c.id: tuple(i for i in c.exemplars if place.get(i) == c.id) for c in clusters}
    bare = {cluster_id: list[Assignment]() for cluster_id, images in found.items() if not images}
    for assignment in assignments:
        if assignment.cluster in bare:
            bare[assignment.cluster].append(assignment)
    for cluster_id, inside in bare.items():
        inside.sort(key=lambda a: (a.decided_by != "person", -a.confidence, a.image_id))
        found[cluster_id] = tuple(a.image_id for a in inside[:many])
    return found


class _Spread:
    """How many images are misplaced, spread over the images by their doubt, so that each answer takes its own part.

    An image that a person placed is not misplaced; one that was judged again has its new doubt. What a person finds
    does not raise what is expected of the others: whoever corrects looks for mistakes.
    """

    def __init__(self, clustering: Clustering, after: Sequence[Assignment]) -> None:
        self._is_known = clustering.estimate is not None
        self._basis: Basis = "answers" if clustering.estimate is None else clustering.estimate.basis
        before = {a.image_id: a for a in clustering.assignments}
        self._overall = clustering.estimate
        own = {cluster.id: cluster.misplaced for cluster in clustering.clusters}
        mass: dict[int | None, float] = {}
        for a in clustering.assignments:
            if a.cluster is not None:
                mass[a.cluster] = mass.get(a.cluster, 0.0) + _doubt(a)
        sizes = Counter(a.cluster for a in clustering.assignments if a.cluster is not None)
        whole = sum(mass.values())
        self._placed, self._rest, self._whole = sum(sizes.values()), 0.0, whole
        self._sums: dict[int, list[float]] = {}
        self._sizes: Counter[int] = Counter()
        for a in after:
            if a.cluster is None:
                continue
            self._sizes[a.cluster] += 1
            doubt = 0.0 if a.decided_by == "person" else _doubt(a)
            self._rest += doubt
            home = before[a.image_id].cluster
            misplaced = None if home is None else own.get(home)
            if home is not None and misplaced is not None:
                part = doubt / mass[home] * sizes[home]
                sums = self._sums.setdefault(a.cluster, [0.0, 0.0, 0.0])
                for at, share in enumerate((misplaced.share, misplaced.low, misplaced.high)):
                    sums[at] += share * part

    def overall(self) -> Misplaced | None:
        now = sum(self._sizes.values())
        if self._overall is None or not now or not self._whole:
            return self._overall
        part = self._rest / self._whole * self._placed / now
        overall = self._overall
        return _misplaced(overall.share * part, overall.low * part, overall.high * part, overall.basis)

    def of_cluster(self, cluster: int) -> Misplaced | None:
        if not self._is_known:
            return None
        size = self._sizes[cluster]
        sums = self._sums.get(cluster, [0.0, 0.0, 0.0])
        share, low, high = (x / max(1, size) for x in sums)
        return _misplaced(share, low, high, self._basis)


def _doubt(assignment: Assignment) -> float:
    return max(1 - assignment.confidence, _LEAST_DOUBT)


def _misplaced(share: float, low: float, high: float, basis: Basis) -> Misplaced:
    share, low, high = (round(min(max(x, 0.0), 1.0), 4) for x in (share, low, high))
    return Misplaced(share, min(low, share), max(high, share), basis)


def continued(new: Clustering, before: Sequence[Clustering], last_id: int, keep_names: bool) -> Clustering:
    """The clustering with ids, and where `keep_names` says so names, of the clusters that go on from earlier ones.

    before: earlier clusterings of the interest: as the model decided it, then as it is shown. Where both have an id,
    the name is the model's: a person's is applied anew. A cluster goes on where more than half of the images of either
    are in both (of those that both clusterings know).
    Others get numbers above `last_id`, the largest first.
    """
    at = {a.image_id: a.cluster for a in new.assignments}
    pairs: list[tuple[float, int, int, int]] = []
    earlier: dict[int, Cluster] = {}
    for turn, clustering in enumerate(before):
        known = [a for a in clustering.assignments if a.image_id in at]
        both = {a.image_id for a in known}
        mine = Counter(cluster for image, cluster in at.items() if cluster is not None and image in both)
        theirs = Counter(a.cluster for a in known if a.cluster is not None)
        common = Counter((a.cluster, at[a.image_id]) for a in known)
        earlier |= {cluster.id: cluster for cluster in clustering.clusters if cluster.id not in earlier}
        for (old, fresh), count in common.items():
            if old is not None and fresh is not None:
                share = count / (theirs[old] + mine[fresh] - count)
                if share > _SAME:
                    pairs.append((-share, turn, old, fresh))
    number: dict[int, int] = {}
    source: dict[int, Cluster] = {}
    for _, _, old, fresh in sorted(pairs):
        if fresh not in number and old not in number.values():
            number[fresh], source[fresh] = old, earlier[old]
    rest = [cluster for cluster in sorted(new.clusters, key=lambda c: (-c.size, c.id)) if cluster.id not in number]
    number |= {cluster.id: last_id + place for place, cluster in enumerate(rest, start=1)}
    clusters = []
    for cluster in new.clusters:
        kept = source.get(cluster.id)
        if kept is not None and keep_names and kept.name != cluster.name:  # else what is said of its members now holds
            cluster = replace(cluster, name=kept.name, definition=kept.definition or cluster.definition)
        clusters.append(cluster)
    taken = {normalise_description(c.name): c.id for c in clusters if c.id in source}
    clusters = [
        replace(c, id=number[c.id])
        if c.id in source or taken.get(normalise_description(c.name), c.id) == c.id
        else replace(c, id=number[c.id], name=f"{c.name} ({number[c.id]})")
        for c in clusters
    ]
    assignments = tuple(a if a.cluster is None else replace(a, cluster=number[a.cluster]) for a in new.assignments)
    return replace(new, clusters=tuple(clusters), assignments=assignments)
