"""nano through the whole pipeline, default settings, on pictures it was never trained on: the table of its model card.

`python -m bench.held_out --data DIR [--sets cards faces ...]`; DIR holds the labelled zips that training reads. K is
not given. `descriptions`: NMI of the looks' descriptions alone, each a cluster. `foreseen`: calls beside the look that
a run foresees before it begins, and once its looks are in. `vehicles` (CIFAR-10, 32 px) and `objects` (objects1000) are
photographs of kinds whose color was never taught, labelled in training/labels/.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import manylens
from manylens.collection.find import find_images
from manylens.collection.pictures import StoredImages
from manylens.models.caching import CachingModel
from manylens.models.registry import load_model
from manylens.pipeline.look import look_at_images
from manylens.results.evaluate import evaluate_labels
from manylens.store.run_folder import RunFolder
from manylens.types import Interest

TRAINING = Path(__file__).resolve().parents[1] / "training"
sys.path.insert(0, str(TRAINING))
from data import HELD_OUT_PERSONS, is_held_out  # noqa: E402  the split lives beside the training that must respect it

__all__ = ["HELD_OUT_PERSONS", "SETS", "UNTAUGHT_COLORS", "is_held_out", "read_rows", "read_untaught"]

SETS = {
    "cards": (
        "card",
        (
            ("rank", "rank"),
            ("ranks of the cards", "rank"),
            ("suit", "suit"),
            ("suits of the cards", "suit"),
            ("which suit is it?", "suit"),
            ("color", "color"),
        ),
    ),
    "faces": (
        "cmuface",
        (
            ("pose", "pose"),
            ("direction the person looks", "pose"),
            ("glasses", "glass"),
            ("does the person wear sunglasses?", "glass"),
        ),
    ),
    "fruit": ("fruit", (("species", "species"), ("color", "color"))),
    "flowers": ("flowers", (("species", "species"), ("petal color", "color"), ("color of the petals", "color"))),
    "cifar": (
        "cifar10",
        (
            ("object", "class"),
            ("type", "type"),
            ("animal or vehicle", "type"),
            ("is it an animal or a means of transport?", "type"),
            ("environment", "environment"),
        ),
    ),
    "products": ("fashion", (("type", "type"), ("color", "color"), ("category", "category"))),
    "moods": ("emotion", (("mood", "emotion"),)),
    "vehicles": ("cifar10", (("color", "color"), ("color of the car", "color"))),
    "objects": ("objects1000", (("color", "color"),)),
}
"""set -> (zip, ((interest as typed, column of labels.csv), ...))"""

UNTAUGHT_COLORS = ("vehicles", "objects")


def read_untaught(zip_name: str) -> list[dict[str, str]]:
    """Images of kinds whose color was never taught, with the color that a person wrote down: rows of
    `file,...,color,part`."""
    with (TRAINING / "labels" / f"{zip_name}_colors.csv").open(encoding="utf-8") as lines:
        return [row for row in csv.DictReader(lines) if row["part"] == "heldout"]


def read_rows(archive: zipfile.ZipFile, name: str, zip_name: str) -> dict[str, dict[str, str]]:
    """The held-out rows of a set, by file name."""
    if name in UNTAUGHT_COLORS:
        return {row["file"]: row for row in read_untaught(zip_name)}
    rows = csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"), "utf-8"))
    return {row["file"]: row for row in rows if is_held_out(zip_name, row)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    args = parser.parse_args()
    columns = (
        "set | n | interest | NMI | ACC | K found / true | unassigned | descriptions | calls per image"
        " | beside the look | foreseen | once looked"
    )
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
            said = read_descriptions(Path(scratch) / "run", images, [words for words, _ in interests])
            for words, column in interests:
                found = result[words].labels
                files = sorted(found)
                truth = [rows[file][column] for file in files]
                scores = evaluate_labels(truth, [found[file] for file in files])
                alone = evaluate_labels(truth, [said[words][file] for file in files])
                clustering = result[words].clustering
                calls = clustering.calls.total
                before, after = manylens.plan(images, by=words).beside, clustering.foreseen_calls
                cells = (
                    name, len(files), words, f"{scores.nmi:.3f}", f"{scores.acc:.3f}",
                    f"{scores.clusters_found} / {scores.clusters_true}", scores.unassigned, f"{alone.nmi:.3f}",
                    f"{calls / len(files):.2f}", calls - clustering.calls.look, "{}..{}".format(*before),
                    "{}..{}".format(*after),
                )  # fmt: skip
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def read_descriptions(out: Path, images: Path, interests: Sequence[str]) -> dict[str, dict[str, str]]:
    """interest -> file -> what the model said of it, from the run folder; nothing is asked."""
    with RunFolder.open(out) as run:
        collection = find_images(images, known=run.known_images())
        source = StoredImages(collection.root, collection.images, run.thumbnail)
        model = CachingModel(load_model("nano", source, run.features), run)
        ids = [image.id for image in collection.images]
        looks = asyncio.run(look_at_images(ids, [Interest(words) for words in interests], model, lambda event: None))
        files = {image.id: image.paths for image in collection.images}
        return {
            one.interest.text: {
                file: words for image, words in zip(one.image_ids, one.words, strict=True) for file in files[image]
            }
            for one in looks.values()
        }


if __name__ == "__main__":
    main()
