"""What a run found, as programs and the command line see it: a `Result` of one `InterestResult` an interest.

In: clusterings and the collection they are about. Out: labels by path, clusters in files and paths, counts of calls.
Promise: read only; nothing here writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import manylens
from manylens.collection.changes import Changes
from manylens.collection.find import Collection
from manylens.errors import ManylensError, ModelError, UsageError
from manylens.method.graph import DEFAULT_EDGE_OFFSET, DEFAULT_EDGE_SCALE
from manylens.results.cross import CrossTable, cross
from manylens.results.files import UNREADABLE_NAME
from manylens.results.notebook import clusters_html, data_frame
from manylens.results.report import REPORT_NAME
from manylens.results.table import ClusterRow, FileCounts, FileTable
from manylens.text import counted
from manylens.types import NO_TOKENS, CallCounts, Cluster, Clustering, Unreadable


@dataclass(frozen=True, slots=True)
class InterestResult:
    """One interest's clustering. files: it, file by file. folder: where its files lie. report: the page that shows all
    interests."""

    files: FileTable = field(repr=False)
    folder: Path
    report: Path

    @property
    def clustering(self) -> Clustering:
        return self.files.clustering

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        """The clusters found, the largest first."""
        return self.clustering.clusters

    @property
    def labels(self) -> Mapping[str, str | None]:
        """Every readable file's path in the folder -> its cluster's name, or None where it is in none."""
        return self.files.labels

    @property
    def table(self) -> tuple[ClusterRow, ...]:
        """The clusters in files and paths."""
        return self.files.clusters

    @property
    def counts(self) -> FileCounts:
        return self.files.counts

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`: image (the path), cluster (Int64, <NA> where it is in none), name, confidence, state,
        decided_by, reason; a row for each readable file, by path. Raises UsageError without pandas."""
        return data_frame([self.files], plain=True)

    def _repr_html_(self) -> str:
        return clusters_html([self.files], self.report.parent)


class Result(Mapping[str, InterestResult]):
    """The interests of one run, by their words: `result["suit"].labels`.

    calls: all model calls that it rests on, over all interests. calls_asked: those made now. calls_kept: answers that
    the run folder already held. planned_calls: what `plan` expected. max_failed: as in `Settings`.
    in_vain: requests whose answers it does not use, over all runs of the folder (failed calls and tries, mended
    answers, probes of the model, what an earlier run took that went otherwise), and their tokens in and out.
    changes: of an addition, what happened to the folder's files since; else None.
    edge: beta and b, by which the weight of an edge follows from the cosine of two embeddings.
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
        max_failed: float = 1.0,
        in_vain: tuple[int, int, int] = (0, 0, 0),
        edge: tuple[float, float] = (DEFAULT_EDGE_SCALE, DEFAULT_EDGE_OFFSET),
        changes: Changes | None = None,
    ) -> None:
        self.changes = changes
        self.edge = edge
        self.max_failed = max_failed
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

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each readable file and each interest's columns, as `manylens.export`
        names them: `<interest>_cluster` (Int64), `<interest>_name`, ... Raises UsageError without pandas."""
        return data_frame([one.files for one in self.values()])

    def cross(self, rows: str, columns: str) -> CrossTable:
        """How many files are in which clusters of two of the interests, and how closely these go together."""
        return cross(self[rows].files, self[columns].files)

    def _repr_html_(self) -> str:
        return clusters_html([one.files for one in self.values()], self.out)

    def add(self, folder: str | os.PathLike[str] | None = None, **how: Any) -> Result:
        """`manylens.add` of this run. folder: by default the one that was sorted. Returns the result with the pictures
        that came since; this value is of before."""
        source = self.collection.source
        sorted_before = self.collection.root if source is None else source.place
        return manylens.add(self.out, sorted_before if folder is None else folder, **how)

    def correct(self, interest: str, corrections: Sequence[Any]) -> Any:
        """`manylens.correct` of this run: what a person says of an interest. Returns what changed; this value is of
        before."""
        return manylens.correct(self.out, interest, corrections)

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
    def problem(self) -> ManylensError | None:
        """Why the run counts as failed, though its results are written: nothing could be read, or too many calls
        failed. None where all is well; the command line's exit code is 1 otherwise."""
        if not self.collection.images:
            return UsageError(
                f"a folder needs at least one image that can be read, none of the {len(self.unreadable):,} found can",
                f"see the reasons in {self.out / UNREADABLE_NAME}",
            )
        if self.failed_share > self.max_failed:
            calls = self.calls
            return ModelError(
                f"at most {self.max_failed:.1%} of the calls may fail, {calls.failed:,} of {calls.total:,} did "
                f"({self.failed_share:.1%}); the results are written without them",
                "the same command asks only those again; --max-failed allows more",
            )
        return None

    @property
    def is_partial(self) -> bool:
        """Whether the budget ended before the questions did."""
        return any(one.clustering.is_partial for one in self.values())

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """Files that were found and could not be used, with the reason."""
        return self.collection.unreadable
