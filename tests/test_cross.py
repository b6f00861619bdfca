"""Cross-tables of two interests: counts, measures against an oracle, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_add import model, put

import manylens
from manylens.results.cross import CrossTable, cramers_v, cross_places, nmi

NAMES = ({1: "beach", 2: "office"}, {1: "swimming", 2: "typing", 3: "eating"})


def table(rows: Sequence[int | None], columns: Sequence[int | None]) -> CrossTable:
    return cross_places(("place", "activity"), NAMES, rows, columns)


def test_each_file_is_counted_once_and_those_in_no_cluster_stand_last() -> None:
    found = table([1, 1, 2, None, 2], [1, 2, 2, 3, None])
    assert found.rows == ("beach", "office", "unassigned")
    assert found.columns == ("typing", "swimming", "eating", "unassigned")
    assert found.counts == ((1, 1, 0, 0), (1, 0, 0, 1), (0, 0, 1, 0))
    assert sum(map(sum, found.counts)) == 5
    assert found.placed == 3


def test_what_goes_together_is_said_in_words_and_numbers() -> None:
    found = table([1] * 40 + [2] * 40 + [1] * 10, [1] * 40 + [2] * 38 + [3] * 12)
    assert found.cramers_v is not None
    assert found.cramers_v > 0.8
    assert found.is_telling
    assert found.sentence.startswith('"place" and "activity" go closely together (Cramér\'s V 0.')
    assert 'who knows "activity" guesses "place" right for' in found.sentence or 'who knows "place"' in found.sentence
    assert [(pair.row, pair.column, pair.count) for pair in found.pairs[:2]] == [
        ("office", "typing", 38),
        ("beach", "swimming", 40),
    ]


def test_independence_is_said_to_be_that() -> None:
    found = table([1, 2] * 60, [1] * 60 + [2] * 60)
    assert found.cramers_v == 0
    assert found.sentence == '"place" and "activity" have nothing to do with each other (Cramér\'s V 0.00).'
    assert found.pairs == ()
    assert not found.is_telling


def test_the_same_groups_twice_tell_nothing() -> None:
    found = table([1, 2] * 30, [1, 2] * 30)
    assert not found.is_telling
    assert "nearly the same groups" in found.sentence


@pytest.mark.parametrize(
    ("rows", "columns", "why"),
    [
        ([1, 2], [1, 2], "only 2 files are in clusters of both"),
        ([1] * 30, [1, 2] * 15, "in one cluster of one of them"),
    ],
)
def test_too_little_to_tell_is_said(rows: list[int | None], columns: list[int | None], why: str) -> None:
    found = table(rows, columns)
    assert found.cramers_v is None
    assert why in found.sentence


counts = st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3), min_size=2, max_size=4)


@given(counts)
def test_the_measures_are_those_of_scipy_and_scikit_learn(values: list[list[int]]) -> None:
    contingency = pytest.importorskip("scipy.stats.contingency")
    metrics = pytest.importorskip("sklearn.metrics")
    given_ = np.array(values)
    kept = given_[given_.sum(1) > 0][:, given_.sum(0) > 0]
    if kept.sum() < 10 or min(kept.shape) < 2:
        return
    n, (r, k) = kept.sum(), kept.shape
    plain = contingency.association(kept, method="cramer")
    phi2 = max(0, plain**2 * (min(r, k) - 1) - (k - 1) * (r - 1) / (n - 1))
    least = min(k - (k - 1) ** 2 / (n - 1), r - (r - 1) ** 2 / (n - 1)) - 1
    assert cramers_v(kept) == pytest.approx(min(1, (phi2 / least) ** 0.5) if least > 0 else 0, abs=1e-9)
    rows = [i for i in range(r) for j in range(k) for _ in range(kept[i, j])]
    columns = [j for i in range(r) for j in range(k) for _ in range(kept[i, j])]
    assert nmi(kept) == pytest.approx(metrics.normalized_mutual_info_score(rows, columns), abs=1e-9)


def test_turned_it_is_the_same_table(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(4))
    result = manylens.cluster(tmp_path / "pictures", ["color", "shape"], model=model(), out=tmp_path / "out")
    one, two = result.cross("color", "shape"), result.cross("shape", "color")
    assert [list(row) for row in zip(*one.counts, strict=True)] == [list(row) for row in two.counts]
    assert one.cramers_v == two.cramers_v
    assert sum(map(sum, one.counts)) == len(result["color"].labels)
    pandas = pytest.importorskip("pandas")
    frame = one.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.loc["red", "wide"] == 4
