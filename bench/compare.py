"""The benchmark: baselines, the method, its ablations and Figure 5, on every set, over several seeds.

    python -m bench.compare --data ../shared/data --out bench-runs [--limit 250] [--seeds 5] [--sets cards faces ...]
    python -m bench.compare --published card=DOWNLOADS/cards cmuface=DOWNLOADS/faces [--held-out]
    python -m bench.compare --layouts

Without `--data` or `--published` the sample collection is drawn and used. In `--out`, each set has a run folder with
its answers; stopped and started again, no answer is asked twice. `--docs FILE` puts tables and plots into a page.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from bench import ablations, baselines, features, tables
from bench.held_out import SETS
from bench.loaders import PUBLISHED, LabelledSet, load_published, load_sample, load_shared
from bench.tables import ABLATION, DENSITY, FOUND, GIVEN, Row
from bench.workbench import Spent, Workbench
from manylens.errors import ManylensError, UsageError
from manylens.method.graph import build_graph
from manylens.method.observations import Looks
from manylens.models.base import ModelOptions
from manylens.pipeline.run import edge_scale
from manylens.results.evaluate import evaluate_labels
from manylens.settings import Settings
from manylens.types import Clustering

PARTS = ("baselines", "ablations", "density")
OURS = "manylens"


@dataclass(slots=True)
class Comparison:
    """One interest of one set: everything is compared with `true`, which no method sees."""

    bench: Workbench
    interest: str
    column: str
    looks: Looks
    looked: Spent
    seeds: Sequence[int]
    _labelled: list[int] = field(init=False)
    _true: list[str] = field(init=False)

    def __post_init__(self) -> None:
        labels = self.bench.labelled.labels
        named = [labels[self.bench.file_of[image_id]].get(self.column, "") for image_id in self.looks.image_ids]
        self._labelled = [image for image, label in enumerate(named) if label]
        self._true = [named[image] for image in self._labelled]

    @property
    def clusters_true(self) -> int:
        return len(set(self._true))

    def row(
        self,
        part: str,
        method: str,
        seed: int,
        partition: baselines.Partition,
        spent: Spent,
        density: float = math.nan,
        steps: float = math.nan,
    ) -> Row:
        scores = evaluate_labels(self._true, [partition[image] for image in self._labelled])
        n = len(self.looks)
        return Row(
            part, self.bench.labelled.name, self.interest, method, seed, n,
            scores.nmi, scores.ri, scores.ari, scores.acc,
            scores.clusters_found, scores.clusters_true, scores.unassigned, spent.calls.total() / n,
            math.nan if spent.tokens is None else spent.tokens / n, spent.seconds, density, steps,
        )  # fmt: skip

    async def run_baselines(self) -> list[Row]:
        """Every baseline and the method itself, with every seed."""
        bench, looks, k = self.bench, self.looks, self.clusters_true
        judge = bench.judge(looks)
        rows: list[Row] = []
        for seed in self.seeds:
            for method, compute in self._on_rows(seed):
                began = time.perf_counter()
                partition, before = compute()
                rows.append(self.row(GIVEN, method, seed, partition, before + _seconds(time.perf_counter() - began)))
            assign: list[tuple[str, str, Callable[[], Awaitable[baselines.Partition]]]] = [
                (GIVEN, "IC|TC, three steps", lambda: baselines.describe_name_assign(looks, k, judge)),
                (FOUND, "equal descriptions", lambda: _ready(baselines.equal_descriptions(looks))),
                (FOUND, "HDBSCAN on H", lambda: _ready(baselines.hdbscan(looks.embeddings))),
                (FOUND, "hybrid agent", lambda: baselines.embed_cluster_join(looks, judge)),
            ]
            for part, method, work in assign:
                with bench.spending() as spent:
                    partition = await work()
                rows.append(self.row(part, method, seed, partition, self.looked + spent[0]))
            walked, cost, _ = await self._walked(Settings())
            rows.append(self.row(FOUND, "plain walk", seed, walked, cost))
            ours = await self._clustered(ablations.Ablation(), seed)
            rows += [self.row(FOUND, OURS, seed, *ours), self.row(GIVEN, f"{OURS} (finds K)", seed, *ours)]
        return rows

    def _on_rows(self, seed: int) -> Iterator[tuple[str, Callable[[], tuple[baselines.Partition, Spent]]]]:
        bench, looks, k = self.bench, self.looks, self.clusters_true
        known = bench.model.capabilities
        h, ids = looks.embeddings, looks.image_ids
        yield "k-means on H", lambda: (baselines.k_means(h, k, seed), self.looked)
        yield "spectral on H", lambda: (baselines.spectral(h, k, seed, known), self.looked)
        pixels, took = features.pixels(bench, ids)
        yield "k-means on pixels", lambda: (baselines.k_means(pixels, k, seed), _seconds(took))
        if bench.model.name == "nano":
            seen, taken = features.appearance(bench, ids)
            yield "k-means on nano's eyes", lambda: (baselines.k_means(seen, k, seed), _seconds(taken))
        imagenet = features.imagenet(bench, ids)
        if imagenet is not None:
            known_rows, needed = imagenet
            yield (
                "k-means on EfficientNet-Lite2 (ImageNet)",
                lambda: (baselines.k_means(known_rows, k, seed), _seconds(needed)),
            )

    async def run_ablations(self) -> list[Row]:
        rows: list[Row] = []
        for method, ablation in ablations.WITH_PICTURES.items():
            for seed in self.seeds:
                rows.append(self.row(ABLATION, method, seed, *await self._clustered(ablation, seed)))
        return rows

    async def run_density(self) -> list[Row]:
        """Figure 5, of the plain walk, which has no seed: tau alone decides the graph, neighbours have no limit."""
        rows: list[Row] = []
        for wanted in ablations.DENSITIES:
            tau = ablations.tau_of_density(self.looks, self.bench.model.capabilities, wanted)
            settings = Settings(tau=tau, neighbors=max(1, len(self.looks) - 1))
            partition, spent, steps = await self._walked(settings)
            shape = (self._density(settings), steps / len(self.looks))
            rows.append(self.row(DENSITY, f"{tau:.3g}", self.seeds[0], partition, spent, *shape))
        return rows

    def _density(self, settings: Settings) -> float:
        edge = edge_scale(self.bench.model.capabilities)
        rows = self.looks.embeddings
        return build_graph(rows, edge.scale, edge.offset, tau=settings.tau, neighbors=settings.neighbors).density

    async def _walked(self, settings: Settings) -> tuple[baselines.Partition, Spent, int]:
        """The plain walk, and how many questions its walks asked."""
        edge = edge_scale(self.bench.model.capabilities)
        with self.bench.spending() as spent:
            partition, steps = await baselines.plain_walk(self.looks, edge, self.bench.judge(self.looks), settings)
        return partition, self.looked + spent[0], steps

    async def _clustered(self, ablation: ablations.Ablation, seed: int) -> tuple[baselines.Partition, Spent]:
        looks, looked = self.looks, self.looked
        if ablation.interest is not None:
            looks, looked = await self.bench.look(ablation.interest)
        with self.bench.spending() as spent:
            clustering = await ablations.run(self.bench.model, looks, ablation, Settings(seed=seed))
        return _partition(clustering, self.looks), looked + spent[0]


def _partition(clustering: Clustering, looks: Looks) -> baselines.Partition:
    placed = {assignment.image_id: assignment.cluster for assignment in clustering.assignments}
    return [placed.get(image_id) for image_id in looks.image_ids]


def _seconds(seconds: float) -> Spent:
    return Spent(seconds=seconds)


async def _ready(partition: baselines.Partition) -> baselines.Partition:
    return partition


async def compare_set(
    labelled: LabelledSet, out: Path, *, model: str, options: ModelOptions, seeds: Sequence[int], parts: Sequence[str]
) -> list[Row]:
    """All rows of one set."""
    rows: list[Row] = []
    with Workbench(labelled, out / labelled.name, model, options) as bench:
        for words, column in labelled.interests:
            began = time.perf_counter()
            looks, looked = await bench.look(words)
            if not len(looks):
                raise UsageError(
                    f"no image of {labelled.name} could be described: {looks.failed[:1]}", "try another model"
                )
            comparison = Comparison(bench, words, column, looks, looked, seeds)
            for part in parts:
                rows += await getattr(comparison, f"run_{part}")()
            print(f"{labelled.name}, {words}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def about(model: str, command: str, notes: Sequence[str]) -> str:
    """Where and when these numbers were taken."""
    root = Path(__file__).resolve().parents[1]
    git = ["git", "-C", str(root)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("onnxruntime", "scikit-learn"))
    lines = [
        f"{date.today():%-d %B %Y}, {cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{versions}.",
        f"Commit {commit or 'unknown'}{' with changes' if changed else ''}, model {model}.",
        f"Command: `{command}`.",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines)


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def write_tables(rows: Sequence[Row], out: Path, where: str) -> dict[str, str]:
    """Write results.csv, summary.csv, results.md and the plots; returns the page's sections by name."""
    tables.write_csv(rows, out / "results.csv")
    tables.write_summary_csv(rows, out / "summary.csv")
    have = {row.part for row in rows}
    sections = {"about": where}
    for part, name in ((GIVEN, "given"), (FOUND, "found")):
        if part in have:
            sections[name] = f"{tables.summary_table(rows, part)}\n\n{tables.full_table(rows, part)}"
    if ABLATION in have:
        sections["ablations"] = tables.ablation_table(rows)
    if DENSITY in have:
        sections["density"] = tables.density_table(rows)
    text = "\n\n".join(f"## {name}\n\n{body}" for name, body in sections.items())
    (out / "results.md").write_text(text + "\n", "utf-8")
    try:
        if have & {GIVEN, FOUND}:
            tables.plot_scores(rows, out / "benchmarks-scores")
        if DENSITY in have:
            tables.plot_density(rows, out / "benchmarks-density")
    except ModuleNotFoundError as error:
        print(f"no plots: {error.name} is missing (pip install 'manylens[bench]')", file=sys.stderr)
    return sections


def put_into_page(page: str, sections: dict[str, str]) -> str:
    """Replace what stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; UsageError where a mark is missing."""
    for name, body in sections.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if begin not in page or end not in page.partition(begin)[2]:
            raise UsageError(f"the page needs the marks {begin} and {end}", "add them where the table shall stand")
        head, _, rest = page.partition(begin)
        page = f"{head}{begin}\n{body}\n{end}{rest.partition(end)[2]}"
    return page


def chosen_sets(options: argparse.Namespace) -> Iterator[LabelledSet]:
    """The sets that the command line names, drawn down to the limit."""
    for pair in options.published or ():
        name, _, folder = pair.partition("=")
        yield load_published(name, Path(folder), held_out=options.held_out).draw(options.limit)
    if options.data is not None:
        for name in options.sets:
            yield load_shared(options.data, name).draw(options.limit)
    if options.data is None and not options.published:
        yield load_sample(options.out / "sample-collection").draw(options.limit)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the labelled zips; their held-out parts are used")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="which of them")
    parser.add_argument("--published", nargs="+", metavar="NAME=FOLDER", help="published sets that you downloaded")
    parser.add_argument("--held-out", action="store_true", help="of published sets, only what nano was not trained on")
    parser.add_argument("--limit", type=int, default=250, help="images per set (default 250)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", default="nano", help="as in `manylens cluster --model`")
    parser.add_argument("--base-url", help="of a model on a server")
    parser.add_argument("--device", help="of a model in this process")
    parser.add_argument("--adapter", help="LoRA adapter of a model in this process: tuned against untuned")
    parser.add_argument("--out", type=Path, default=Path("bench-runs"))
    parser.add_argument("--docs", type=Path, help="a page with marks, to put the tables and plots into")
    parser.add_argument("--layouts", action="store_true", help="print what is known of the published layouts, and stop")
    options = parser.parse_args(arguments)
    if options.layouts:
        for name, published in PUBLISHED.items():
            print(f"{name}: {published.size:,} images. {published.layout_known}")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    notes: list[str] = []
    began = time.perf_counter()
    try:
        for labelled in chosen_sets(options):
            notes += [f"{labelled.name}: {note}" for note in labelled.notes]
            print(*(f"{labelled.name}: {note}" for note in labelled.notes), sep="\n", file=sys.stderr)
            seeds = range(options.seeds)
            model = ModelOptions(base_url=options.base_url, device=options.device, adapter=options.adapter)
            work = compare_set(
                labelled, options.out, model=options.model, options=model, seeds=seeds, parts=options.parts
            )
            rows += asyncio.run(work)
            tables.write_csv(rows, options.out / "results.csv")
        command = " ".join(["python -m bench.compare", *(arguments if arguments is not None else sys.argv[1:])])
        notes.append(f"the whole run took {(time.perf_counter() - began) / 60:.0f} minutes here")
        sections = write_tables(rows, options.out, about(options.model, command, notes))
        if options.docs is not None:
            options.docs.write_text(put_into_page(options.docs.read_text("utf-8"), sections), "utf-8")
            for plot in options.out.glob("benchmarks-*.svg"):
                (options.docs.parent / plot.name).write_bytes(plot.read_bytes())
    except ManylensError as error:
        sys.exit(str(error))
    print(options.out / "results.md")


if __name__ == "__main__":
    main()
