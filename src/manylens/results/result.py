"""What a run found, as programs and the command line see it: a `Result` of one `InterestResult` an interest.

In: clusterings and the collection they are about. Out: labels by path, clusters in files and paths, counts of calls.
Promise: read only; nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from manylens.collection.find import Collection
from manylens.results.files import (
    FileCounts,
    cluster_values,
)
from manylens.results.report import REPORT_NAME
from manylens.text import counted
from manylens.types import NO_TOKENS, CallCounts, Cluster, Clustering, Misplaced, Unreadable


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """A cluster as it is shown. size: files. confidence: mean over its images, in [0, 1]. exemplars: paths. misplaced:
    the estimated share of its images, or None where that is not known."""

    id: int
    name: str
    definition: str
    size: int
    confidence: float
    exemplars: tuple[str, ...]
    misplaced: Misplaced | None = None


@dataclass(frozen=True, slots=True)
class InterestResult:
    """One interest's clustering.

    labels: every readable file's path in the folder -> its cluster's name, or None where it is unassigned.
    table: the clusters in files and paths. folder: where its files lie. report: the page that shows all interests.
    """

    clustering: Clustering = field(repr=False)
    labels: Mapping[str, str | None] = field(repr=False)
    table: tuple[ClusterRow, ...]
    counts: FileCounts
    folder: Path
    report: Path

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        """The clusters found, the largest first."""
        return self.clustering.clusters


class Result(Mapping[str, InterestResult]):
    """The interests of one run, by their words: `result["suit"].labels`.

    calls: all model calls that it rests on, over all interests. calls_asked: those made now. calls_kept: answers that
    the run folder already held. planned_calls: what `plan` expected. in_vain: requests that were sent beside them over
    all runs of the folder (failed tries, mended answers, probes of the model), and their tokens in and out.
    """

    def __init__(
        self,
        out: Path,
        collection: Collection,
        results: Mapping[str, InterestResult],
        *,
        calls_asked: int = 0,
        calls_kept: int = 0,
        planned_calls: tuple[int, int] = (0, 0),
        in_vain: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        self.in_vain = in_vain
        self.planned_calls = planned_calls
        self.calls_asked = calls_asked
        self.calls_kept = calls_kept
        self.out = out
        self.collection = collection
        self._results = dict(results)

    def __getitem__(self, interest: str) -> InterestResult:
        if not isinstance(interest, str):
            raise KeyError(interest)
        return self._results[" ".join(interest.split())]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        found = ", ".join(f"{interest!r}: {counted(len(one.clusters), 'cluster')}" for interest, one in self.items())
        return f"<manylens.Result {found}; {self.report}>"

    @property
    def report(self) -> Path:
        """The self-contained page that shows every clustering."""
        return self.out / REPORT_NAME

    @property
    def calls(self) -> CallCounts:
        every = [one.clustering.calls for one in self.values()]
        return CallCounts(
            look=sum(calls.look for calls in every),
            judge=sum(calls.judge for calls in every),
            choose=sum(calls.choose for calls in every),
            complete=sum(calls.complete for calls in every),
            failed=sum(calls.failed for calls in every),
            tokens=sum((calls.tokens for calls in every), NO_TOKENS),
        )

    @property
    def foreseen_calls(self) -> tuple[int, int]:
        """All calls, at least and at most, as they were expected once the looks were in."""
        low, high = (sum(one.clustering.foreseen_calls[end] for one in self.values()) for end in (0, 1))
        return self.calls.look + low, self.calls.look + high

    @property
    def failed_share(self) -> float:
        """The share of calls that finally failed, in [0, 1]."""
        calls = self.calls
        return calls.failed / calls.total if calls.total else 0.0

    @property
    def is_partial(self) -> bool:
        """Whether the budget ended before the questions did."""
        return any(one.clustering.is_partial for one in self.values())

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """Files that were found and could not be used, with the reason."""
        return self.collection.unreadable


def labels_of(clustering: Clustering, collection: Collection) -> dict[str, str | None]:
    names = {cluster.id: cluster.name for cluster in clustering.clusters}
    placed = {a.image_id: names[a.cluster] for a in clustering.assignments if a.cluster is not None}
    pairs = ((path, placed.get(image.id)) for image in collection.images for path in image.paths)
    return dict(sorted(pairs, key=lambda pair: pair[0]))


def table_of(clustering: Clustering, collection: Collection) -> tuple[ClusterRow, ...]:
    confidences: dict[int, list[float]] = {}
    for assignment in clustering.assignments:
        if assignment.cluster is not None:
            confidences.setdefault(assignment.cluster, []).append(assignment.confidence)
    return tuple(
        ClusterRow(
            id=values["id"],
            name=values["name"],
            definition=values["definition"],
            size=values["size"],
            confidence=fmean(confidences.get(values["id"], [0.0])),
            exemplars=tuple(values["exemplars"]),
            misplaced=None if values["misplaced"] is None else Misplaced.from_dict(values["misplaced"]),
        )
        for values in cluster_values(clustering, collection)
    )
