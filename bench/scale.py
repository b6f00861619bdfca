"""What large collections take beside their model, and how that grows; the same vectors by other means.

`make bench-scale`, or `python -m bench.scale [--images 10000 100000] [--graph 10000 50000] [--other 100000]`, prints
Markdown tables with machine, date and commit. Every size is a run of its own (`bench.scale_run`), with a scripted model
whose own time is taken off. Seconds are of the processor, over all threads: on a shared machine the clock says more of
the others. `--plot FILE` draws the growth; `--runs FILE` keeps the runs, and what is kept is not run again.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.worlds import WORLDS, ignore, scripted, see
from manylens.method.graph import build_graph
from manylens.pipeline import cluster_looks
from manylens.results.evaluate import evaluate_labels
from manylens.settings import Settings

STAGES = ("read", "look", "walk", "vocabulary", "check", "name", "write")
_KINDS, _DIMENSIONS = 100, 384
_PART = 10_000


def machine() -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({platform.processor() or platform.machine()}), {memory_gb:.0f} GB, Python "
        f"{platform.python_version()}, {datetime.date.today().isoformat()}, commit {commit or 'unknown'}"
    )


def kept_runs(file: Path | None) -> list[dict[str, Any]]:
    if file is None or not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text().splitlines() if line.startswith("{")]


def measure(images: int, world: str, file: Path | None) -> dict[str, Any]:
    """One run, in a process of its own, so that its peak of memory is its own."""
    for run in kept_runs(file):
        if (run["images"], run["world"]) == (images, world):
            return run
    with tempfile.TemporaryDirectory() as scratch:
        command = ["-m", "bench.scale_run", "--images", str(images), "--world", world, "--out", f"{scratch}/run"]
        done = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True)
    run: dict[str, Any] = json.loads(done.stdout)
    if file is not None:
        with file.open("a") as log:
            log.write(json.dumps(run) + "\n")
    return run


def growth_table(runs: Sequence[dict[str, Any]]) -> str:
    lines = [
        f"| images | {' | '.join(STAGES)} | in all | of the model | peak, GB | answers and memberships, GB "
        "| choices an image | NMI |",
        f"|{'---|' * (len(STAGES) + 7)}",
    ]
    for run in runs:
        stored = sum(run["tables"].get(name, 0) for name in ("answers", "dictionaries", "memberships"))
        cells = [f"{run['images']:,}", *(f"{run['processor'].get(stage, 0):.1f}" for stage in STAGES)]
        cells += [f"{run['beside'][1]:.0f}", f"{run['model'][1]:.0f}", f"{run['peak'] / 1024:.2f}"]
        cells += [f"{stored / 1e9:.2f}", f"{run['calls'].get('choose', 0) / run['images']:.3f}", f"{run['nmi']:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def exponent(runs: Sequence[dict[str, Any]]) -> float:
    """p of seconds ~ N^p, least squares in the logarithms. N log N has 1.09 from 10,000 to 1,000,000."""
    x, y = (np.log([run[key] if key == "images" else run[key][1] for run in runs]) for key in ("images", "beside"))
    return float(np.polyfit(x, y, 1)[0])


def plot(runs: Sequence[dict[str, Any]], file: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "manylens"
    from matplotlib import pyplot

    images = np.array([run["images"] for run in runs], dtype=float)
    spent = np.array([run["beside"][1] for run in runs])
    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    axes.loglog(images, spent, "o-", color="black", label="all beside the model")
    for stage in ("look", "check", "write"):
        axes.loglog(images, [max(run["processor"][stage], 0.01) for run in runs], ".-", linewidth=1, label=stage)
    scale = math.exp(np.mean(np.log(spent / (images * np.log(images)))))
    axes.loglog(images, scale * images * np.log(images), "--", color="grey", label="N log N")
    if len(runs) > 1:
        p = exponent(runs)
        fitted = np.exp(np.mean(np.log(spent)) + p * (np.log(images) - np.mean(np.log(images))))
        axes.loglog(images, fitted, ":", color="black", label=f"fit, N^{p:.2f}")
    axes.set_xlabel("images")
    axes.set_ylabel("seconds of the processor")
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def vectors(images: int) -> NDArray[np.float32]:
    """As the scripted model's prose: a hundred kinds, cosines near .8 within one."""
    random = np.random.default_rng(0)
    middles = unit(random.standard_normal((_KINDS, _DIMENSIONS)) + 0.65 * random.standard_normal(_DIMENSIONS))
    noise = random.standard_normal((images, _DIMENSIONS), dtype=np.float32) / np.float32(math.sqrt(_DIMENSIONS))
    return unit(middles[random.integers(_KINDS, size=images)].astype(np.float32) + np.float32(0.5) * noise)


def unit(rows: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def graph_table(sizes: Sequence[int]) -> str:
    """Both ways in turn on the same vectors."""
    lines = ["| descriptions | all pairs, s | faiss, s | ratio | recall | edges |", f"|{'---|' * 6}"]
    for size in sizes:
        rows = vectors(size)
        took = []
        for limit in (size, 0):
            seconds, graph = timed(lambda: build_graph(rows, tau=0.6, neighbors=32, exact_up_to=limit))  # noqa: B023
            took.append(seconds)
        cells = [f"{size:,}", f"{took[0]:.1f}", f"{took[1]:.1f}", f"{took[0] / took[1]:.2f}", f"{graph.recall:.3f}"]
        lines.append(f"| {' | '.join([*cells, f'{graph.edges:,}'])} |")
    return "\n".join(lines)


def others_table(images: int, world: str) -> str:
    """The same descriptions and vectors by other means, which are told how many kinds there are."""
    from bench.scale_run import Clocked
    from bench.worlds import draw_labels

    truth = draw_labels(images, _KINDS, 0)
    model = Clocked(scripted(WORLDS[world], truth, 0, True, dimensions=_DIMENSIONS))
    seen = see(model, truth)
    rows, texts = seen.looks.embeddings, list(seen.looks.descriptions)
    before = model.spent[1]
    seconds, found = timed(lambda: asyncio.run(cluster_looks(seen.looks, model, Settings(), ignore)))
    ways = [("manylens, beside its model", seconds - (model.spent[1] - before), [a.cluster for a in found.assignments])]
    ways.append(("k-means by faiss, K given, 20 rounds", *timed(lambda: kmeans(rows))))
    ways.append((f"{topics_name()}, K given, {_PART:,} at a time", *timed(lambda: topics(rows, texts))))
    lines = ["| on the same looks | seconds | ratio | NMI | clusters |", f"|{'---|' * 5}"]
    for name, spent, said in ways:
        scores = evaluate_labels(seen.truth, said)
        ratio = f"{spent / ways[0][1]:.2f}"
        lines.append(f"| {name} | {spent:.1f} | {ratio} | {scores.nmi:.3f} | {len(set(said) - {None})} |")
    return "\n".join(lines)


def kmeans(rows: NDArray[np.float32]) -> list[int]:
    import faiss

    means = faiss.Kmeans(rows.shape[1], _KINDS, niter=20, seed=0, max_points_per_centroid=1 << 30)
    means.train(rows)
    return [int(k) for k in means.index.search(rows, 1)[1][:, 0]]


def topics_name() -> str:
    try:
        import bertopic
    except ImportError:
        return "IncrementalPCA and MiniBatchKMeans (BERTopic is not installed)"
    return f"BERTopic {bertopic.__version__} partial_fit"


def topics(rows: NDArray[Any], texts: Sequence[str]) -> list[int]:
    """As BERTopic's page on online topic modelling has it, on our vectors."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import IncrementalPCA

    rows = rows.astype(np.float64)  # what one gives the other is of both types otherwise, and refused
    small, means = IncrementalPCA(n_components=5), MiniBatchKMeans(n_clusters=_KINDS, random_state=0)
    starts = range(0, len(rows), _PART)
    try:
        from bertopic import BERTopic
        from bertopic.vectorizers import OnlineCountVectorizer
    except ImportError:
        for start in starts:
            means.partial_fit(small.partial_fit(rows[start : start + _PART]).transform(rows[start : start + _PART]))
        return [int(k) for k in means.predict(small.transform(rows))]
    model = BERTopic(umap_model=small, hdbscan_model=means, vectorizer_model=OnlineCountVectorizer())
    said: list[int] = []
    for start in starts:
        part = slice(start, start + _PART)
        model.partial_fit(texts[part], embeddings=rows[part])
        said += [int(k) for k in model.topics_]
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="*", default=[10_000, 30_000, 100_000])
    parser.add_argument("--graph", type=int, nargs="*", default=[10_000, 20_000, 50_000])
    parser.add_argument("--other", type=int, nargs="*", default=[100_000])
    parser.add_argument("--world", choices=WORLDS, default="30 wordings")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    print(f"{machine()}\n", flush=True)
    if given.images:
        runs = [measure(images, given.world, given.runs) for images in sorted(given.images)]
        print(growth_table(runs))
        if len(runs) > 1:
            print(f"\nSeconds beside the model grow as N^{exponent(runs):.2f}.", flush=True)
        if given.plot:
            plot(runs, given.plot)
    if given.graph:
        print(f"\n{graph_table(given.graph)}", flush=True)
    for images in given.other:
        print(f"\n{images:,} looks\n\n{others_table(images, given.world)}", flush=True)


if __name__ == "__main__":
    main()
