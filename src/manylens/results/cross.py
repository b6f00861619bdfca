"""Two interests against each other: which places go with which activities, and how closely.

In: two clusterings of one collection, or the clusters of its files under each. Out: a `CrossTable`. Promise: pure;
files in no cluster of one of the two are counted as such and take no part in the measures; every file is counted once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manylens.errors import UsageError
from manylens.results.table import FileTable
from manylens.types import Clustering

UNASSIGNED = "unassigned"

FEWEST = 10
"""Files in clusters of both, below which nothing is said of how they go together."""

HARDLY, WEAKLY, CLEARLY = 0.1, 0.3, 0.5
"""Cramér's V: below the first the two have nothing to do with each other; from the last on they go closely together
(Cohen's small, medium and large effects)."""

SAME_FROM = 0.95
"""NMI from which two clusterings are the same groups under other names."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A cell that stands out. expected: how many files it would hold if the two had nothing to do with each other."""

    row: str
    column: str
    count: int
    expected: float


@dataclass(frozen=True, slots=True)
class Guess:
    """How often the commonest answer is right: of `target` without knowing the other, and knowing it; in [0, 1]."""

    given: str
    target: str
    without: float
    knowing: float


@dataclass(frozen=True, slots=True)
class CrossTable:
    """counts[row][column]: files, by the clusters of both in the order of their sizes; a last row and column named
    "unassigned" where there are such files. cramers_v: bias-corrected, in [0, 1]. nmi: of what both place. Both are
    None where one of the two has a single cluster or too few files are in clusters of both (`placed`)."""

    row_interest: str
    column_interest: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    placed: int
    cramers_v: float | None
    nmi: float | None
    guess: Guess | None
    pairs: tuple[Pair, ...]

    @property
    def is_telling(self) -> bool:
        """Whether the two go together clearly, and are not the same thing twice."""
        return self.cramers_v is not None and self.cramers_v >= WEAKLY and (self.nmi or 0.0) < SAME_FROM

    @property
    def sentence(self) -> str:
        """What the table says, in plain words with the measure."""
        one, two = f'"{self.row_interest}"', f'"{self.column_interest}"'
        if self.cramers_v is None or self.guess is None:
            why = f"only {self.placed:,} files are" if self.placed < FEWEST else "all files that both place are"
            tail = "in clusters of both" if self.placed < FEWEST else "in one cluster of one of them"
            return f"Whether {one} and {two} go together cannot be told: {why} {tail}."
        v = f"Cramér's V {self.cramers_v:.2f}"
        if (self.nmi or 0.0) >= SAME_FROM:
            return f"{one} and {two} are nearly the same groups ({v})."
        how = (
            "have nothing to do with each other"
            if self.cramers_v < HARDLY
            else "go together a little"
            if self.cramers_v < WEAKLY
            else "go together clearly"
            if self.cramers_v < CLEARLY
            else "go closely together"
        )
        said = f"{one} and {two} {how} ({v})"
        if self.cramers_v < HARDLY:
            return f"{said}."
        guess = self.guess
        return (
            f'{said}: who knows "{guess.given}" guesses "{guess.target}" right for {guess.knowing:.0%} of the files, '
            f"without it for {guess.without:.0%}."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values, with `sentence`."""
        return {**asdict(self), "sentence": self.sentence, "is_telling": self.is_telling}

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` of the counts, rows and columns by cluster. Raises UsageError without pandas."""
        try:
            import pandas
        except ImportError as error:
            raise UsageError("to_pandas needs pandas, which is not installed", "pip install pandas") from error
        rows = pandas.Index(self.rows, name=self.row_interest)
        columns = pandas.Index(self.columns, name=self.column_interest)
        return pandas.DataFrame([list(row) for row in self.counts], index=rows, columns=columns)


def cross(rows: FileTable, columns: FileTable) -> CrossTable:
    """The cross-table of two clusterings of one collection, by file."""
    by_path = {row.path: row.cluster for row in columns.rows}
    pairs = [(row.cluster, by_path.get(row.path)) for row in rows.rows]
    return cross_places(
        (rows.clustering.interest.text, columns.clustering.interest.text),
        ({c.id: c.name for c in rows.clusters}, {c.id: c.name for c in columns.clusters}),
        [one for one, _ in pairs],
        [two for _, two in pairs],
    )


def cross_clusterings(rows: Clustering, columns: Clustering) -> CrossTable:
    """The same by image: files with equal bytes count once."""
    place = {a.image_id: a.cluster for a in columns.assignments}
    return cross_places(
        (rows.interest.text, columns.interest.text),
        ({c.id: c.name for c in rows.clusters}, {c.id: c.name for c in columns.clusters}),
        [a.cluster for a in rows.assignments],
        [place.get(a.image_id) for a in rows.assignments],
    )


def cross_places(
    interests: tuple[str, str],
    names: tuple[Mapping[int, str], Mapping[int, str]],
    rows: Sequence[int | None],
    columns: Sequence[int | None],
) -> CrossTable:
    """From the clusters' names and, file by file, the cluster that each interest has it in (None: in none)."""
    every: Counter[tuple[int | None, int | None]] = Counter(zip(rows, columns, strict=True))
    keys = [_order(names[0], rows), _order(names[1], columns)]
    counts = tuple(tuple(every[row, column] for column in keys[1]) for row in keys[0])
    both = np.array(
        [[every[row, column] for column in keys[1] if column is not None] for row in keys[0] if row is not None],
        dtype=np.int64,
    ).reshape([sum(key is not None for key in order) for order in keys])
    shown = [
        tuple(UNASSIGNED if key is None else of[key] for key in order) for of, order in zip(names, keys, strict=True)
    ]
    placed = int(both.sum())
    kept = both[both.sum(1) > 0][:, both.sum(0) > 0] if placed else both[:0]
    known = placed >= FEWEST and min(kept.shape) > 1
    return CrossTable(
        row_interest=interests[0],
        column_interest=interests[1],
        rows=shown[0],
        columns=shown[1],
        counts=counts,
        placed=placed,
        cramers_v=round(cramers_v(kept), 4) if known else None,
        nmi=round(nmi(kept), 4) if known else None,
        guess=_guess(kept, interests) if known else None,
        pairs=_pairs(both, shown) if known else (),
    )


def _order(names: Mapping[int, str], places: Sequence[int | None]) -> list[int | None]:
    """The clusters by their sizes in files, then "in none" where that occurs."""
    sizes = Counter(places)
    order: list[int | None] = sorted(names, key=lambda k: (-sizes[k], k))
    return [*order, None] if None in sizes else order


def cramers_v(counts: NDArray[np.int64]) -> float:
    """Of a table without empty rows and columns, at least 2 by 2, corrected for its size (Bergsma 2013): 0 where the
    two have nothing to do with each other, 1 where one follows from the other."""
    n = float(counts.sum())
    expected = np.outer(counts.sum(1), counts.sum(0)) / n
    phi2 = float(((counts - expected) ** 2 / expected).sum()) / n
    r, k = counts.shape
    corrected = max(0.0, phi2 - (k - 1) * (r - 1) / (n - 1))
    least = min(k - (k - 1) ** 2 / (n - 1), r - (r - 1) ** 2 / (n - 1)) - 1
    return min(1.0, math.sqrt(corrected / least)) if least > 0 else 0.0


def nmi(counts: NDArray[np.int64]) -> float:
    """Normalised mutual information, by the arithmetic mean."""

    def entropy(sizes: NDArray[Any]) -> float:
        shares = sizes[sizes > 0] / counts.sum()
        return float(-(shares * np.log(shares)).sum())

    one, two = entropy(counts.sum(1)), entropy(counts.sum(0))
    return 2 * (one + two - entropy(counts.ravel())) / (one + two) if one + two > 0 else 1.0


def _guess(counts: NDArray[np.int64], interests: tuple[str, str]) -> Guess:
    """In the direction in which knowing helps most."""
    n = int(counts.sum())
    columns = Guess(interests[0], interests[1], counts.sum(0).max() / n, counts.max(1).sum() / n)
    rows = Guess(interests[1], interests[0], counts.sum(1).max() / n, counts.max(0).sum() / n)
    best = max((columns, rows), key=lambda guess: guess.knowing - guess.without)
    return Guess(best.given, best.target, round(float(best.without), 4), round(float(best.knowing), 4))


_MOST_PAIRS, _STANDS_OUT, _FEWEST_IN_PAIR = 5, 3.0, 3


def _pairs(counts: NDArray[np.int64], names: Sequence[Sequence[Hashable]]) -> tuple[Pair, ...]:
    """Cells with more files than chance explains (adjusted residual of at least 3), the most telling first."""
    n = float(counts.sum())
    rows, columns = counts.sum(1), counts.sum(0)
    found = []
    for r, k in np.argwhere(counts >= _FEWEST_IN_PAIR):
        expected = rows[r] * columns[k] / n
        spread = expected * (1 - rows[r] / n) * (1 - columns[k] / n)
        residual = (counts[r, k] - expected) / math.sqrt(spread) if spread > 0 else 0.0
        if residual >= _STANDS_OUT:
            pair = Pair(str(names[0][r]), str(names[1][k]), int(counts[r, k]), round(float(expected), 2))
            found.append((-residual, int(r), int(k), pair))
    return tuple(pair for *_, pair in sorted(found)[:_MOST_PAIRS])
