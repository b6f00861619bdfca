"""nano through the whole pipeline on the held-out part of every set that its training read: the model card's table.

`python -m bench.world --packed DIR [--sets NAME ...] [--most 250]`; DIR is what `training/encoder/pack.py` wrote. Or,
of kinds of picture that it never saw, `python -m bench.world --folders DIR`: a set there is `<set>/images` with
`<set>/labels.csv`. The interest is the name of the label's column; K is not given. Prints a Markdown row for each
column of labels that at least two pictures of two labels have: NMI, K found and true, unassigned, questions a picture,
the verdict, and the share of the placed pictures that are misplaced, as the run expects it and by the labels: those
whose label is not the commonest of their cluster.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

import manylens
from manylens.results.evaluate import evaluate_labels

LEFT_OUT = ("objects1000",)
"""All of its pictures were trained on."""


def held_out(packed: Path, most: int) -> Iterator[tuple[str, str, list[tuple[bytes, str]]]]:
    """(set, column, (picture's bytes, label) of the held-out pictures that have one), `most` of them at most."""
    names = json.loads((packed / "corpus.json").read_text("utf-8"))
    shards: dict[int, bytes] = {}
    with np.load(packed / "corpus.npz") as corpus:
        where, valid = corpus["where"], corpus["valid"]
        for key in sorted(key for key in corpus.files if key.startswith("column:")):
            name, _, column = key.removeprefix("column:").partition(".")
            rows = [(row, value) for row, value in corpus[key].tolist() if valid[row]]
            if name in LEFT_OUT or len({value for _, value in rows}) < 2:
                continue
            rows.sort(key=lambda pair: (pair[0] * 2654435761) % 2**32)
            found = []
            for row, value in rows[:most]:
                shard, at, size = map(int, where[row])
                if shard not in shards:
                    shards[shard] = (packed / f"shard-{shard}.bin").read_bytes()
                label = names["values"][f"{name}.{column}"][value]
                found.append((shards[shard][at : at + size], label))
            yield name, column, found


def of_folders(folders: Path, most: int) -> Iterator[tuple[str, str, list[tuple[bytes, str]]]]:
    """The same of `<set>/images` and `<set>/labels.csv`, whose columns are the interests as they are typed."""
    for table in sorted(folders.glob("*/labels.csv")):
        with table.open(encoding="utf-8", newline="") as lines:
            rows = sorted(csv.DictReader(lines), key=lambda row: hashlib.sha256(row["file"].encode()).hexdigest())
        for interest in [column for column in rows[0] if column != "file"]:
            asked = [row for row in rows if row[interest]][:most]
            yield (
                table.parent.name, interest,
                [((table.parent / "images" / row["file"]).read_bytes(), row[interest]) for row in asked],
            )  # fmt: skip


def misplaced(truth: Sequence[str], found: Sequence[str | None]) -> float:
    """Share of the placed pictures whose label is not the commonest of their cluster."""
    of: dict[str, Counter[str]] = {}
    for label, cluster in zip(truth, found, strict=True):
        if cluster is not None:
            of.setdefault(cluster, Counter())[label] += 1
    placed = sum(labels.total() for labels in of.values())
    return 1 - sum(max(labels.values()) for labels in of.values()) / max(1, placed)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--packed", type=Path)
    where.add_argument("--folders", type=Path)
    parser.add_argument("--sets", nargs="+", default=[])
    parser.add_argument("--most", type=int, default=250)
    options = parser.parse_args(arguments)
    print("| set | interest | n | NMI | K found / true | unassigned | questions a picture | verdict | misplaced |")
    print("|" + "---|" * 9)
    sets = of_folders(options.folders, options.most) if options.folders else held_out(options.packed, options.most)
    every, verdicts = [], Counter[tuple[str, str]]()
    for name, column, pictures in sets:
        if options.sets and name not in options.sets:
            continue
        interest = column.replace("_", " ")
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "pictures"
            folder.mkdir()
            truth = {f"{number:04d}.png": label for number, (_, label) in enumerate(pictures)}
            for file, (content, _) in zip(truth, pictures, strict=True):
                (folder / file).write_bytes(content)
            one = manylens.cluster(folder, interest, out=Path(scratch) / "out")[interest]
            known = [file for file in truth if file in one.labels]
            labels, found = [truth[file] for file in known], [one.labels[file] for file in known]
            scores = evaluate_labels(labels, found)
        word = getattr(one.clustering, "verdict", None)
        said = "" if word is None else word.word
        every.append(scores.nmi)
        verdicts[said, "below .30" if scores.nmi < 0.3 else "above .60" if scores.nmi > 0.6 else "between"] += 1
        estimate = one.clustering.estimate
        expected = "" if estimate is None else f"{estimate.share:.1%} "
        asked = one.clustering.calls.choose / max(1, len(known))
        print(
            f"| {name} | {interest} | {len(known)} | {scores.nmi:.3f} "
            f"| {scores.clusters_found} / {scores.clusters_true} "
            f"| {scores.unassigned} | {asked:.2f} | {said} | {expected}({misplaced(labels, found):.1%}) |",
            flush=True,
        )
    print(f"\nmean NMI {fmean(every):.3f} of {len(every)}; verdicts: {dict(verdicts)}")


if __name__ == "__main__":
    main()
