"""Results of the benchmark as Markdown, CSV and plots.

In: `Row`s, one per set, interest, method and seed. Out: tables with mean and standard deviation over seeds,
`results.csv` with every single run, PNG and SVG. Promise: what is printed is what was measured; nothing is ranked, left
out or chosen by its score.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

GIVEN, FOUND, ABLATION, DENSITY = "K given", "K found", "ablation", "density"


@dataclass(frozen=True, slots=True)
class Row:
    """One run of one method. part: GIVEN, FOUND, ABLATION or DENSITY. tokens: per image, NaN where they cannot be
    counted. seconds: model and method, NaN where it is not known. density, steps: of the graph and of the walk (asked
    candidates per image), NaN where there is none."""

    part: str
    set_name: str
    interest: str
    method: str
    seed: int
    images: int
    nmi: float
    ri: float
    ari: float
    acc: float
    clusters_found: int
    clusters_true: int
    unassigned: int
    calls: float
    tokens: float
    seconds: float
    density: float = math.nan
    steps: float = math.nan


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Every run; written aside and renamed, so that a reader never sees half a file."""
    aside = path.with_suffix(".part")
    with aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Row)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in rows)
    aside.replace(path)


_MEASURED = (
    "nmi",
    "ri",
    "ari",
    "acc",
    "clusters_found",
    "unassigned",
    "calls",
    "tokens",
    "seconds",
    "density",
    "steps",
)


def write_summary_csv(rows: Iterable[Row], path: Path) -> None:
    """One line per part, set, interest and method: seeds, then mean and standard deviation of everything measured."""
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.part, row.set_name, row.interest, row.method), []).append(row)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        spreads = [f"{name} {what}" for name in _MEASURED for what in ("mean", "sd")]
        writer.writerow(["part", "set", "interest", "method", "images", "clusters_true", "seeds", *spreads])
        for key, runs in groups.items():
            cells: list[float] = []
            for name in _MEASURED:
                values = [float(getattr(run, name)) for run in runs]
                mean = fmean(values)
                cells += [mean, 0.0 if len(values) < 2 else mean if math.isnan(mean) else stdev(values)]
            numbers = ["" if math.isnan(cell) else f"{cell:.6g}" for cell in cells]
            writer.writerow([*key, runs[0].images, runs[0].clusters_true, len(runs), *numbers])


def read_csv(path: Path) -> list[Row]:
    kinds: dict[str, Callable[[str], Any]] = {"str": str, "int": int, "float": float}
    types = {field.name: kinds[str(field.type)] for field in dataclasses.fields(Row)}
    with path.open(encoding="utf-8", newline="") as file:
        return [Row(**{name: types[name](value) for name, value in row.items()}) for row in csv.DictReader(file)]


def full_table(rows: Sequence[Row], part: str) -> str:
    """One line per set, interest and method: every score and cost, mean and standard deviation over seeds."""
    head = ["set, interest", "images", "method", "NMI", "RI", "ARI", "ACC", "K found / true", "unassigned",
            "calls per image", "tokens per image", "seconds"]  # fmt: skip
    lines = []
    for (set_name, interest, method), runs in _grouped(rows, part, "set_name", "interest", "method"):
        lines.append([
            f"{set_name}, {interest}", f"{runs[0].images}", method,
            *(spread([getattr(run, score) for run in runs]) for score in ("nmi", "ri", "ari", "acc")),
            f"{spread([run.clusters_found for run in runs], 1)} / {runs[0].clusters_true}",
            spread([run.unassigned for run in runs], 1),
            spread([run.calls for run in runs], 2), spread([run.tokens for run in runs], 0),
            spread([run.seconds for run in runs], 1),
        ])  # fmt: skip
    return markdown(head, lines)


def summary_table(rows: Sequence[Row], part: str) -> str:
    """NMI at a glance: a line per set and interest, a column per method (K found in brackets where it is found)."""
    methods = list(dict.fromkeys(row.method for row in rows if row.part == part))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    means: dict[str, list[float]] = {method: [] for method in methods}
    for (set_name, interest, method), runs in _grouped(rows, part, "set_name", "interest", "method"):
        nmi = fmean(run.nmi for run in runs)
        means[method].append(nmi)
        found = "" if part == GIVEN else f" ({fmean(run.clusters_found for run in runs):.3g})"
        cells.setdefault((f"{set_name}, {interest}", f"{runs[0].clusters_true}"), {})[method] = _number(nmi, 3) + found
    lines = [[*key, *(line.get(method, "") for method in methods)] for key, line in cells.items()]
    lines.append(["mean", "", *(_number(fmean(means[method]), 3) for method in methods)])
    return markdown(["set, interest", "K true", *methods], lines)


def ablation_table(rows: Sequence[Row]) -> str:
    """A line per part taken out: NMI per interest, and over all interests the mean of NMI, calls and errors of K."""
    columns = list(dict.fromkeys((row.set_name, row.interest) for row in rows if row.part == ABLATION))
    lines = []
    for (method,), runs in _grouped(rows, ABLATION, "method"):
        cells = []
        for column in columns:
            here = [run.nmi for run in runs if (run.set_name, run.interest) == column]
            cells.append(spread(here) if here else "")
        wrong = fmean(abs(run.clusters_found - run.clusters_true) for run in runs)
        lines.append([method, _number(fmean(run.nmi for run in runs), 3), f"{wrong:.1f}",
                      f"{fmean(run.calls for run in runs):.2f}", *cells])  # fmt: skip
    head = ["taken out", "mean NMI", "K off by", "calls per image", *(f"{s}, {i}" for s, i in columns)]
    return markdown(head, lines)


def density_table(rows: Sequence[Row]) -> str:
    """Figure 5 in numbers: density of the graph, NMI and the walk's steps by tau."""
    lines = []
    for (set_name, interest, method), runs in _grouped(rows, DENSITY, "set_name", "interest", "method"):
        lines.append([f"{set_name}, {interest}", method, f"{fmean(run.density for run in runs):.4f}",
                      spread([run.nmi for run in runs]), spread([run.clusters_found for run in runs], 1),
                      spread([run.steps for run in runs], 2)])  # fmt: skip
    return markdown(["set, interest", "tau", "density", "NMI", "K found", "walk steps per image"], lines)


def _grouped(rows: Iterable[Row], part: str, *names: str) -> list[tuple[tuple[str, ...], list[Row]]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.part == part:
            groups.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    return list(groups.items())


def spread(values: Sequence[float], decimals: int = 3) -> str:
    """`mean ± standard deviation`; without the latter where all values are equal; a dash where nothing is known."""
    if any(math.isnan(value) for value in values):
        return "–"
    mean = _number(fmean(values), decimals)
    if len(values) < 2 or max(values) - min(values) < 0.5 * 10**-decimals:
        return mean
    return f"{mean} ± {_number(stdev(values), decimals)}"


def _number(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    return text[1:] if decimals == 3 and text.startswith("0.") else text


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


# Plots


def plot_scores(rows: Sequence[Row], stem: Path) -> None:
    """NMI per interest and method, K given beside K found; bars are one standard deviation over seeds."""
    plt = _pyplot()
    parts = [part for part in (GIVEN, FOUND) if any(row.part == part for row in rows)]
    names = list(dict.fromkeys(f"{row.set_name}, {row.interest}" for row in rows if row.part in parts))
    figure, axes = plt.subplots(1, len(parts), figsize=(6.5 * len(parts), 1.5 + 0.42 * len(names)), sharey=True,
                                squeeze=False, layout="constrained")  # fmt: skip
    for axis, part in zip(axes[0], parts, strict=True):
        methods = list(dict.fromkeys(row.method for row in rows if row.part == part))
        for turn, method in enumerate(methods):
            groups = [(name, runs) for (*name, m), runs in _grouped(rows, part, "set_name", "interest", "method")
                      if m == method]  # fmt: skip
            x = [fmean(run.nmi for run in runs) for _, runs in groups]
            error = [stdev([run.nmi for run in runs]) if len(runs) > 1 else 0.0 for _, runs in groups]
            # Methods of one interest stand a little below each other, so that equal scores stay visible.
            y = [names.index(", ".join(name)) + 0.7 * (turn / max(1, len(methods) - 1) - 0.5) for name, _ in groups]
            axis.errorbar(x, y, xerr=error, fmt=_MARKERS[turn % len(_MARKERS)], label=method, markersize=5, capsize=2)
        axis.set_title(part)
        axis.set_xlabel("NMI")
        axis.set_xlim(-0.02, 1.02)
        axis.set_yticks(range(len(names)), names)
        axis.grid(axis="x", alpha=0.3)
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.5 / (1 + 0.42 * len(names))), ncols=2)
    axes[0][0].invert_yaxis()
    _save(figure, stem)


def plot_density(rows: Sequence[Row], stem: Path) -> None:
    """The paper's Figure 5: NMI and walk steps per image against the density of the graph, one line per interest."""
    plt = _pyplot()
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 7), sharex=True, layout="constrained")
    series: dict[str, list[tuple[float, float, float]]] = {}
    for (set_name, interest, _), runs in _grouped(rows, DENSITY, "set_name", "interest", "method"):
        point = (fmean(run.density for run in runs), fmean(run.nmi for run in runs), fmean(run.steps for run in runs))
        series.setdefault(f"{set_name}, {interest}", []).append(point)
    for turn, (name, points) in enumerate(series.items()):
        x, nmi, steps = zip(*sorted(points), strict=True)
        style = {"marker": _MARKERS[turn % len(_MARKERS)], "markersize": 4, "color": plt.cm.tab20(turn % 20)}
        above.plot(x, nmi, label=name, **style)
        below.plot(x, steps, **style)
    above.set_ylabel("NMI")
    figure.legend(fontsize=8, loc="outside right upper")
    below.set_ylabel("walk steps per image")
    below.set_xlabel("density of the relational graph (share of pairs that are edges)")
    below.set_xscale("log")
    for axis in (above, below):
        axis.grid(alpha=0.3)
    _save(figure, stem)


_MARKERS = "osD^v<>Pp*X"


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "manylens"  # the same bytes for the same numbers
    import matplotlib.pyplot

    return matplotlib.pyplot


def _save(figure: Any, stem: Path) -> None:
    figure.savefig(stem.with_suffix(".png"), dpi=150)
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    _pyplot().close(figure)
