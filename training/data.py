"""Images and tasks that nano learns from, with a validation part that is never trained on.

In: the labelled zips (`--data`: images/ and labels.csv each), `interests.toml`, `labels/`, the project's own drawn
decks and synthetic colors.
Out: `Pool` (all images as one uint8 array) and `Task`s (an interest, its phrasings, its answers and the rows of the
pool that have one).
Promise: the split depends on file names (persons for faces) and a fixed hash, so it is the same everywhere.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from phrasings import Phrasings
from PIL import Image

HELD_OUT_PERSONS = frozenset({"boland", "phoebe", "tammo"})
HELD_OUT_SHARE = {
    "card": 0.0,
    "cmuface": 0.0,
    "fruit": 0.10,
    "flowers": 0.20,
    "cifar10": 0.10,
    "textures": 0.15,
    "emotion": 0.10,
    "fashion": 0.10,
    "objects1000": 0.0,
}
"""Share held out by a hash of the file name, where the set has no split of its own (cards) and no persons (faces)."""

NO_MIRROR = frozenset({"card", "deck", "cmuface", "position"})
"""Sets in which a mirrored image means something else or nothing."""

# (csv column, table in interests.toml) per set
COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "card": (("rank", "card.rank"), ("suit", "card.suit"), ("color", "card.color")),
    "cmuface": (("pose", "cmuface.pose"), ("glass", "cmuface.glass"), ("emotion", "cmuface.emotion")),
    "fruit": (("species", "fruit.species"), ("color", "fruit.color")),
    "flowers": (("species", "flowers.species"), ("color", "flowers.color")),
    "cifar10": (
        ("class", "cifar10.class"),
        ("type", "cifar10.type"),
        ("environment", "cifar10.environment"),
        ("color", "object.color"),
    ),
    "textures": (("texture", "textures.texture"),),
    "emotion": (("emotion", "emotion.emotion"),),
    "fashion": (
        ("type", "fashion.type"),
        ("color", "fashion.color"),
        ("category", "fashion.category"),
        ("gender", "fashion.gender"),
        ("usage", "fashion.usage"),
    ),
    "objects1000": (("object", "objects1000.object"), ("color", "object.color")),
    "deck": (("rank", "card.rank"), ("suit", "card.suit"), ("color", "card.color"), ("style", "card.style")),
    "hued": (("color", "object.color"),),
    "synthetic": (
        ("color", "object.color"),
        ("background", "object.background"),
        ("count", "object.count"),
        ("position", "object.position"),
    ),
}


@dataclass
class Pool:
    """pixels: (n, 3, side, side) uint8. set_of, file_of: per row. held_out: (n,) bool. mirror: (n,) bool."""

    pixels: np.ndarray
    set_of: list[str]
    file_of: list[str]
    held_out: np.ndarray
    mirror: np.ndarray


@dataclass
class Task:
    """One interest of one set. rows: indices into the pool; answers: the word for each row, aligned with rows."""

    key: str
    set_name: str
    phrasings: Phrasings
    held_out_phrases: list[str]
    rows: np.ndarray
    answers: list[str]
    held_out: np.ndarray
    values: list[str] = field(default_factory=list)


def share_of(text: str) -> float:
    """A fixed pseudo-random number in [0, 1) for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def is_held_out(set_name: str, row: dict[str, str]) -> bool:
    if set_name == "card":
        return row["split"] == "valid"
    if set_name == "cmuface":
        return row["identity"] in HELD_OUT_PERSONS
    return share_of(f"{set_name}/{row['file']}") < HELD_OUT_SHARE.get(set_name, 0.0)


def decode(args: tuple[bytes, int]) -> np.ndarray:
    """JPEG or PNG bytes -> (3, side, side) uint8, squashed to a square as the run-time does."""
    data, side = args
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def read_set(data: Path, labels: Path, name: str) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Bytes and labels of one zip, in file order, joined with the colors that were written down by hand."""
    colors: dict[str, dict[str, str]] = {}
    by_hand = labels / f"{name}_colors.csv"
    if by_hand.is_file():
        with by_hand.open() as f:
            colors = {row["file"]: row for row in csv.DictReader(f)}
    with zipfile.ZipFile(data / f"{name}.zip") as archive:
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"), "utf-8")))
        for row in sorted(rows, key=lambda r: r["file"]):
            if row["file"] in colors:
                row["color"] = colors[row["file"]]["color"]
                row["color_part"] = colors[row["file"]]["part"]
            yield archive.read(f"images/{row['file']}"), row


def load(
    data: Path,
    labels: Path,
    interests: Path,
    synthetic: Path | None,
    hued: Path | None,
    decks: Path | None,
    *,
    side: int,
    processes: int,
    limit: int | None = None,
) -> tuple[Pool, list[Task]]:
    """Read everything.

    synthetic, hued: the npz of `synthesize.py` and `recolor.py`. decks: a folder made by `draw_decks.py`.
    """
    encoded: list[bytes] = []
    rows: list[tuple[str, dict[str, str]]] = []

    def add(set_name: str, items: Iterable[tuple[bytes, dict[str, str]]]) -> None:
        for i, (content, row) in enumerate(items):
            if limit is not None and i >= limit:
                break
            encoded.append(content)
            rows.append((set_name, row))

    for name in ("card", "cmuface", "fruit", "flowers", "cifar10", "textures", "emotion", "fashion", "objects1000"):
        add(name, read_set(data, labels, name))
    if decks is not None:
        with (decks / "labels.csv").open() as f:
            add("deck", (((decks / "images" / r["file"]).read_bytes(), r) for r in csv.DictReader(f)))
    for name, file in (("synthetic", synthetic), ("hued", hued)):
        if file is not None:
            with np.load(file, allow_pickle=False) as npz:
                add(name, synthetic_rows(npz))

    with ProcessPoolExecutor(processes) as pool:
        pixels = np.stack(list(pool.map(decode, ((c, side) for c in encoded), chunksize=64)))
    held = np.array([is_held_out(s, r) for s, r in rows])
    mirror = np.array([s not in NO_MIRROR and not (s == "synthetic" and "position" in r) for s, r in rows])
    the_pool = Pool(pixels, [s for s, _ in rows], [r.get("file", "") for _, r in rows], held, mirror)
    return the_pool, make_tasks(rows, held, interests)


def synthetic_rows(npz: np.lib.npyio.NpzFile) -> Iterator[tuple[bytes, dict[str, str]]]:
    """The npz holds `data` (all files joined), `offsets` (n + 1) and one array of words per attribute ('' for none)."""
    blob, offsets = npz["data"].tobytes(), npz["offsets"]
    columns = {k: npz[k] for k in ("color", "background", "count", "position")}
    for i in range(len(offsets) - 1):
        row = {k: str(v[i]) for k, v in columns.items() if v[i]}
        yield blob[offsets[i] : offsets[i + 1]], {"file": f"{i:06d}", **row}


def make_tasks(rows: list[tuple[str, dict[str, str]]], held: np.ndarray, interests: Path) -> list[Task]:
    with interests.open("rb") as f:
        book = tomllib.load(f)
    tasks: list[Task] = []
    for set_name, columns in COLUMNS.items():
        for column, table in columns:
            group, attribute = table.split(".")
            entry = book[group][attribute]
            words: dict[str, str] = entry.get("answers", {})
            chosen = [
                i for i, (s, r) in enumerate(rows) if s == set_name and words.get(r.get(column, ""), r.get(column, ""))
            ]
            if not chosen:
                continue
            part = np.array(
                [held[i] or (rows[i][1].get("color_part") == "heldout" and column == "color") for i in chosen]
            )
            answers = [words.get(rows[i][1][column], rows[i][1][column]) for i in chosen]
            values = sorted(set(answers))
            tasks.append(
                Task(
                    f"{set_name}.{column}",
                    set_name,
                    Phrasings.from_table(entry, values),
                    entry["heldout"],
                    np.array(chosen),
                    answers,
                    part,
                    values,
                )
            )
    return tasks


def main() -> None:
    """Print the held-out source files of a set, one `set/file` a line, for `synthesize.py --exclude`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True)
    data: Path = parser.parse_args().data
    for name in ("fashion", "fruit", "cifar10", "textures"):
        for _, row in read_set(data, Path(__file__).with_name("labels"), name):
            if is_held_out(name, row):
                print(f"{name}/{row['file']}")


if __name__ == "__main__":
    main()
