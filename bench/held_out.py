"""nano through the whole pipeline, default settings, on images it was never trained on: the table of docs/nano.md.

`python -m bench.held_out --data DIR [--sets cards faces ...]`; DIR holds the labelled zips that training reads. K is not
given. `expected`, `foreseen`: how far off a run's own estimates of its calls were, before it began and once its looks
were in. `vehicles` are CIFAR-10 photographs of a kind whose color was never taught, labelled in training/labels/.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tempfile
import zipfile
from pathlib import Path

import manylens
from manylens.evaluate import evaluate_labels

TRAINING = Path(__file__).resolve().parents[1] / "training"
sys.path.insert(0, str(TRAINING))
from data import HELD_OUT_PERSONS, is_held_out  # noqa: E402  the split lives beside the training that must respect it

__all__ = ["HELD_OUT_PERSONS", "SETS", "is_held_out", "read_rows", "read_vehicles"]

# set -> (zip, ((interest as typed, column of labels.csv), ...))
SETS = {
    "cards": ("card", (("rank", "rank"), ("ranks of the cards", "rank"), ("suit", "suit"), ("suits of the cards", "suit"),
                       ("which suit is it?", "suit"), ("color", "color"))),
    "faces": ("cmuface", (("pose", "pose"), ("direction the person looks", "pose"), ("glasses", "glass"),
                          ("does the person wear sunglasses?", "glass"))),
    "fruit": ("fruit", (("species", "species"), ("color", "color"))),
    "flowers": ("flowers", (("species", "species"), ("petal color", "color"), ("color of the petals", "color"))),
    "cifar": ("cifar10", (("object", "class"), ("type", "type"), ("environment", "environment"))),
    "products": ("fashion", (("type", "type"), ("color", "color"), ("category", "category"))),
    "vehicles": ("cifar10", (("color", "color"), ("color of the car", "color"))),
}  # fmt: skip


def read_vehicles() -> list[dict[str, str]]:
    """CIFAR-10's cars and trucks whose colors were written down and never taught: rows of `file,class,color,part`."""
    with (TRAINING / "labels" / "cifar10_colors.csv").open(encoding="utf-8") as lines:
        return [row for row in csv.DictReader(lines) if row["part"] == "heldout"]


def read_rows(archive: zipfile.ZipFile, name: str, zip_name: str) -> dict[str, dict[str, str]]:
    """The held-out rows of a set, by file name."""
    if name == "vehicles":
        return {row["file"]: row for row in read_vehicles()}
    rows = csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"), "utf-8"))
    return {row["file"]: row for row in rows if is_held_out(zip_name, row)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    args = parser.parse_args()
    columns = "set | n | interest | NMI | ACC | K found / true | unassigned | calls per image | expected | foreseen"
    print(f"| {columns} |\n" + "|---" * (columns.count("|") + 1) + "|")
    for name in args.sets:
        zip_name, interests = SETS[name]
        with zipfile.ZipFile(args.data / f"{zip_name}.zip") as archive, tempfile.TemporaryDirectory() as scratch:
            rows = read_rows(archive, name, zip_name)
            images = Path(scratch) / "images"
            images.mkdir()
            for file in rows:
                (images / file).write_bytes(archive.read(f"images/{file}"))
            result = manylens.cluster(images, by=[words for words, _ in interests], out=Path(scratch) / "run")
            for words, column in interests:
                labels = result[words].labels
                files = sorted(labels)
                scores = evaluate_labels([rows[f][column] for f in files], [labels[f] for f in files])
                clustering = result[words].clustering
                calls = clustering.calls.total
                likely = manylens.plan(images, by=words).calls / calls - 1
                foreseen = (clustering.calls.look + clustering.foreseen_calls) / calls - 1
                print(f"| {name} | {len(files)} | {words} | {scores.nmi:.3f} | {scores.acc:.3f} | {scores.clusters_found} / "
                      f"{scores.clusters_true} | {scores.unassigned} | {calls / len(files):.2f} | {likely:+.1%} | {foreseen:+.1%} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
