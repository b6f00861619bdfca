"""nano's looks at parts of the labelled sets, kept in run folders so that no experiment asks for one twice.

In: a folder of unpacked sets (`<set>/images`, `<set>/labels.csv`) and a folder for runs. Out: one `Collected` per set
and interest. Promise: which images a set's part holds depends on the set and the count alone: those nano was never
trained on come first. Labels go into scores, never into a run.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.held_out import is_held_out, read_untaught
from manylens.collection.find import find_images
from manylens.collection.pictures import StoredImages
from manylens.method.observations import Looks
from manylens.models.base import Model
from manylens.models.caching import CachingModel
from manylens.models.registry import load_model
from manylens.pipeline.look import look_at_images
from manylens.store.run_folder import RunFolder
from manylens.types import Interest

SETS = {
    "cifar10": ("cifar10", 1000, (("object", "class"), ("environment", "environment"))),
    "fashion": ("fashion", 1000, (("type", "type"), ("color", "color"))),
    "emotion": ("emotion", 1000, (("mood of the person", "emotion"),)),
    "card": ("card", 1000, (("rank", "rank"), ("suit", "suit"))),
    "objects1000": ("objects1000", 1000, (("object", "object"),)),
    "fruit": ("fruit", 1000, (("species", "species"), ("color", "color"))),
    "textures": ("textures", 700, (("texture", "texture"),)),
    "cmuface": ("cmuface", 464, (("pose", "pose"), ("mood of the person", "emotion"))),
    "flowers": ("flowers", 266, (("species", "species"), ("petal color", "color"))),
    "vehicles": ("cifar10", 259, (("color of the car", "color"),)),
    "held-out cards": ("card", 260, (("rank", "rank"),)),
    "held-out emotion": ("emotion", 290, (("mood of the person", "emotion"),)),
    "mixed": ("", 60, (("kind of object", "kind"),)),
}
"""name -> (set, images at most, ((interest as typed, column of labels.csv), ...)). `mixed`: 60 images, drawn from six
sets, whose kind is the set's own main attribute."""

MIXED = {"cifar10": "class", "fashion": "type", "fruit": "species", "flowers": "species", "textures": "texture",
         "objects1000": "object"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Collected:
    """One set's part through one interest. truth: the label of each of `looks.image_ids`."""

    name: str
    interest: Interest
    looks: Looks
    truth: tuple[str, ...]
    model: Model


def _drawn(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _part(data: Path, name: str, whole: bool) -> list[tuple[Path, dict[str, str]]]:
    """(file, row) of the images that belong to a part, or to its whole set."""
    of, count, _ = SETS[name]
    if name == "mixed":
        found = []
        for folder, column in MIXED.items():
            with (data / folder / "labels.csv").open(encoding="utf-8") as lines:
                rows = sorted(csv.DictReader(lines), key=lambda row: _drawn(f"{folder}/{row['file']}"))
            found += [(data / folder / "images" / row["file"], {"kind": row[column]}) for row in rows[: count // 6]]
        return found
    if name == "vehicles":
        rows = read_untaught("cifar10")
    else:
        with (data / of / "labels.csv").open(encoding="utf-8") as lines:
            rows = sorted(csv.DictReader(lines), key=lambda row: (not is_held_out(of, row), _drawn(row["file"])))
    return [(data / of / "images" / row["file"], row) for row in (rows if whole else rows[:count])]


@contextmanager
def look_at_folder(
    images: Path, run_folder: Path, interests: Sequence[Interest]
) -> Iterator[tuple[dict[Interest, Looks], dict[str, str], Model]]:
    """nano's looks at a folder, the first path of each image id, and the model that answers from the run."""
    with RunFolder.open(run_folder) as run:
        collection = find_images(images, known=run.known_images(), keep=run.put_thumbnails)
        run.record_collection(collection.images, collection.unreadable)
        source = StoredImages(collection.root, collection.images, run.thumbnail)
        model = CachingModel(load_model("nano", source, run.features), run)
        first = {image.id: image.paths[0] for image in collection.images}
        yield asyncio.run(look_at_images(list(first), interests, model, lambda event: None)), first, model


@contextmanager
def open_set(data: Path, runs: Path, name: str, *, whole: bool = False) -> Iterator[list[Collected]]:
    """Copy the part, look at it once, and hand out each interest's looks with the model that answers from the run.

    whole: take every image of the set the part is from, however many.
    """
    rows = _part(data, name, whole)
    place = runs / (f"{name} whole" if whole else name).replace(" ", "-")
    images = place / "images"
    images.mkdir(parents=True, exist_ok=True)
    by_file: dict[str, dict[str, str]] = {}
    for path, row in rows:
        file = f"{path.parents[1].name}-{path.name}"
        by_file[file] = row
        if not (images / file).exists():
            shutil.copyfile(path, images / file)
    interests = SETS[name][2]
    with look_at_folder(images, place / "run", [Interest(words) for words, _ in interests]) as (found, first, model):
        yield [
            Collected(
                name,
                looks.interest,
                looks,
                tuple(by_file[first[image]][column] for image in looks.image_ids),
                model,
            )
            for (_, column), looks in zip(interests, found.values(), strict=True)
        ]


def chosen(names: Sequence[str]) -> list[str]:
    return list(names) or list(SETS)
