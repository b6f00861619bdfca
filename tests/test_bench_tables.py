"""The benchmark's tables and plots."""

import csv
import dataclasses
import math
from pathlib import Path

import pytest

from bench import tables
from bench.tables import ABLATION, DENSITY, FOUND, GIVEN, Row

ROW = Row(GIVEN, "cards", "suit", "k-means", 0, 100, 0.9, 0.8, 0.7, 0.6, 4, 4, 0, 1.0, 44.0, 3.0)


def rows() -> list[Row]:
    made = []
    for seed, nmi in enumerate((0.8, 0.9, 1.0)):
        for part in (GIVEN, FOUND, ABLATION):
            made.append(dataclasses.replace(ROW, part=part, seed=seed, nmi=nmi, clusters_found=4 + seed))
            made.append(dataclasses.replace(ROW, part=part, seed=seed, method="other | one", tokens=math.nan))
        made.append(dataclasses.replace(ROW, part=DENSITY, method="0.6", density=0.25, steps=1.5))
        made.append(dataclasses.replace(ROW, part=DENSITY, method="0.9", density=0.05, steps=0.5))
    return made


def test_runs_come_back_from_the_csv_as_they_were(tmp_path: Path) -> None:
    tables.write_csv(rows(), tmp_path / "results.csv")
    assert repr(tables.read_csv(tmp_path / "results.csv")) == repr(rows())  # repr, because NaN is not NaN
    assert list(tmp_path.iterdir()) == [tmp_path / "results.csv"]


def test_the_summary_csv_has_mean_and_deviation_of_every_measure(tmp_path: Path) -> None:
    tables.write_summary_csv(rows(), tmp_path / "summary.csv")
    with (tmp_path / "summary.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * 2 + 2
    first = lines[0]
    assert (first["part"], first["method"], first["seeds"]) == (GIVEN, "k-means", "3")
    assert (first["nmi mean"], first["nmi sd"], first["calls mean"], first["density mean"]) == ("0.9", "0.1", "1", "")


@pytest.mark.parametrize(
    ("values", "decimals", "said"),
    [
        ([0.8, 0.9, 1.0], 3, ".900 ± .100"),
        ([0.5], 3, ".500"),
        ([1.0, 1.0], 3, "1.000"),
        ([3, 4], 1, "3.5 ± 0.7"),
        ([1.0, math.nan], 2, "–"),
        ([-0.02], 3, "-0.020"),
        ([12345.6], 0, "12,346"),
    ],
)
def test_mean_and_standard_deviation_are_said(values: list[float], decimals: int, said: str) -> None:
    assert tables.spread(values, decimals) == said


def test_the_full_table_has_a_line_per_method_with_mean_and_spread() -> None:
    lines = tables.full_table(rows(), FOUND).splitlines()
    assert len(lines) == 2 + 2
    assert "| .900 ± .100 |" in lines[2] and "| 5.0 ± 1.0 / 4 |" in lines[2]
    assert "other \\| one" in lines[3] and "| – |" in lines[3]


def test_the_summary_shows_k_only_where_it_is_found() -> None:
    assert "(5)" in tables.summary_table(rows(), FOUND)
    given = tables.summary_table(rows(), GIVEN)
    assert "(5)" not in given and given.splitlines()[-1].startswith("| mean |")


def test_the_ablation_table_counts_how_far_k_is_off() -> None:
    line = tables.ablation_table(rows()).splitlines()[2]
    assert line == "| k-means | .900 | 1.0 | 1.00 | .900 ± .100 |"


def test_the_density_table_has_density_and_steps() -> None:
    assert tables.density_table(rows()).splitlines()[2] == "| cards, suit | 0.6 | 0.2500 | .900 | 4.0 | 1.50 |"


def test_plots_are_written_and_repeat_to_the_byte(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("one", "two"):
        tables.plot_scores(rows(), tmp_path / f"scores-{name}")
        tables.plot_density(rows(), tmp_path / f"density-{name}")
    for kind in ("scores", "density"):
        assert (tmp_path / f"{kind}-one.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / f"{kind}-one.svg").read_bytes() == (tmp_path / f"{kind}-two.svg").read_bytes()
