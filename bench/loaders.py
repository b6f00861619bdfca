"""The published multiple-clustering benchmarks and the labelled zips beside the project, as pictures with labels.

In: a folder or zip that the user downloaded. Out: a `LabelledSet`: bytes by file name, labels by attribute, the
interests to ask, and notes. Promises: nothing is downloaded; sizes and label sets are compared with the published ones
and every mismatch is a note; a file's name says nothing of its label; a subset is drawn by a hash of names, never by
labels.

What is known of a layout and what is assumed stands in each entry's `layout_known` and is printed with `--layouts`.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import io
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from bench.held_out import HELD_OUT_PERSONS, SETS, UNTAUGHT_COLORS, read_rows
from manylens.errors import UsageError
from training.draw_cards import RANKS, SUITS, write_sample

Picture: TypeAlias = Callable[[], bytes]
Labels: TypeAlias = Mapping[str, str]
LabelSet: TypeAlias = frozenset[str] | int | None
"""What is published of an attribute's labels: their names, only how many there are, or nothing that we know."""

_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".gif", ".webp"})

_SAME_ATTRIBUTE = {
    "number": "rank", "order": "rank", "suits": "suit", "glasses": "glass", "eyes": "glass", "expression": "emotion",
    "colour": "color", "time of day": "time", "action": "activity",
}  # fmt: skip
"""Other names that the papers and archives use for an attribute."""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """pictures: file name -> its bytes, read when called. labels: file name -> attribute -> label.
    interests: (words to ask, attribute to compare with). notes: what a reader of its numbers should know."""

    name: str
    pictures: Mapping[str, Picture] = field(repr=False)
    labels: Mapping[str, Labels] = field(repr=False)
    interests: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pictures)

    def draw(self, limit: int | None) -> LabelledSet:
        """At most `limit` images, those whose names hash lowest."""
        if limit is None or len(self) <= limit:
            return self
        chosen = sorted(self.pictures, key=lambda name: hashlib.sha256(f"{self.name}/{name}".encode()).digest())[:limit]
        note = f"{limit:,} of {len(self):,} images, drawn by a hash of their names"
        return dataclasses.replace(
            self,
            pictures={name: self.pictures[name] for name in sorted(chosen)},
            labels={name: self.labels[name] for name in sorted(chosen)},
            notes=(*self.notes, note),
        )

    def write_images(self, folder: Path) -> None:
        """Write every picture that is not there yet."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in self.pictures.items():
            if not (folder / name).exists():
                (folder / name).write_bytes(picture())


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a layout, with the labels that its place or name gives it."""

    picture: Picture
    suffix: str
    labels: Labels


Layout: TypeAlias = Callable[[Path], list[Entry]]
"""Reads a folder; an empty list where the folder is laid out another way."""


@dataclass(frozen=True, slots=True)
class Published:
    """A published benchmark. size: images, as the papers count them. labels: attribute -> its published labels.
    layout_known: what we read in a source, and what is assumed. seen: what of it nano may have been trained on."""

    size: int
    labels: Mapping[str, LabelSet]
    interests: tuple[tuple[str, str], ...]
    layouts: tuple[Layout, ...]
    layout_known: str
    seen: str = ""


# Layouts


def attribute_folders(folder: Path) -> list[Entry]:
    """`<attribute>/<label>/<image>`, every image once below each attribute: what torchvision's `ImageFolder` reads in
    the Multi-MaP and Multi-Sub repositories."""
    entries: list[Entry] = []
    for attribute in _folders(folder):
        for label in _folders(attribute):
            labels = {_attribute(attribute.name): _label(label.name)}
            entries += [Entry(path.read_bytes, path.suffix.lower(), labels) for path in _images(label)]
    return entries


_CMU_NAME = re.compile(r"([a-z0-9]+)_(left|right|straight|up)_(angry|happy|neutral|sad)_(open|sunglasses)")


def cmu_names(folder: Path) -> list[Entry]:
    """`<person>/<person>_<pose>_<expression>_<eyes>.pgm`, as in the UCI archive; `_2` and `_4` are smaller copies."""
    entries: list[Entry] = []
    for path in sorted(folder.rglob("*.pgm")):
        found = _CMU_NAME.fullmatch(path.stem)
        if found:
            identity, pose, emotion, glass = found.groups()
            labels = {"identity": identity, "pose": pose, "emotion": emotion, "glass": glass}
            entries.append(Entry(path.read_bytes, ".pgm", labels))
    return entries


def card_splits(folder: Path) -> list[Entry]:
    """`{train,valid,test}/<rank> of <suit>/<image>`, as in the Kaggle set of 53 classes; jokers are left out."""
    entries: list[Entry] = []
    for split in ("train", "valid", "test"):
        for kind in _folders(folder / split):
            rank, of, suit = kind.name.lower().partition(" of ")
            if of:
                color = "red" if suit in ("hearts", "diamonds") else "black"
                labels = {"rank": rank, "suit": suit, "color": color, "split": split}
                entries += [Entry(path.read_bytes, path.suffix.lower(), labels) for path in _images(kind)]
    return entries


CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR_RECORD = 1 + 3 * 32 * 32
_TRANSPORTATION = frozenset({"airplane", "automobile", "ship", "truck"})
_ENVIRONMENT = {"airplane": "air", "bird": "air", "ship": "water"}


def cifar_binary(folder: Path) -> list[Entry]:
    """`data_batch_1.bin` ... `test_batch.bin`: one byte of class and 3,072 of pixels per image. (The Python version of
    the archive holds pickles, which run code when they are opened, and is not read.)"""
    entries: list[Entry] = []
    for path in sorted({*folder.rglob("data_batch_*.bin"), *folder.rglob("test_batch.bin")}):
        records = np.fromfile(path, np.uint8)
        if records.size % _CIFAR_RECORD:
            raise UsageError(f"a CIFAR-10 batch has records of {_CIFAR_RECORD} bytes, {path.name} has {records.size}",
                             "unpack cifar-10-binary.tar.gz again")  # fmt: skip
        for record in records.reshape(-1, _CIFAR_RECORD):
            kind = CIFAR_CLASSES[record[0]]
            type_ = "transportation" if kind in _TRANSPORTATION else "animals"
            labels = {"class": kind, "type": type_, "environment": _ENVIRONMENT.get(kind, "land")}
            entries.append(Entry(partial(_png, record[1:]), ".png", labels))
    return entries


def labels_table(folder: Path) -> list[Entry]:
    """`images/` and a `labels.csv` with a column `file` and one per attribute: the layout of the zips beside the
    project, for sets that were released as lists of labels."""
    table = folder / "labels.csv"
    if not table.is_file():
        return []
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    entries: list[Entry] = []
    for row in rows:
        path = folder / "images" / row["file"]
        if path.is_file():
            labels = {_attribute(name): _label(value) for name, value in row.items() if name != "file" and value}
            entries.append(Entry(path.read_bytes, path.suffix.lower(), labels))
    return entries


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _IMAGE_SUFFIXES)


def _attribute(name: str) -> str:
    folded = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    return _SAME_ATTRIBUTE.get(folded, folded)


def _label(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def _png(record: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(record.reshape(3, 32, 32).transpose(1, 2, 0))).save(buffer, "PNG")
    return buffer.getvalue()


# The sets

_RANKS, _SUITS = frozenset(RANKS), frozenset(SUITS)
_PAPER_FOLDERS = "Known: <attribute>/<label>/<image>, read by ImageFolder (main.py of Multi-MaP). "
_PAPER_COUNTS = "Assumed: how many labels there are (remembered from the papers); label names are not checked."

PUBLISHED: dict[str, Published] = {
    "fruit": Published(
        105, {"species": 3, "color": 3}, (("species", "species"), ("color", "color")),
        (attribute_folders, labels_table),
        _PAPER_FOLDERS + "Its folders are fruit/species and fruit/color. " + _PAPER_COUNTS,
    ),
    "fruit360": Published(
        4_856, {"species": 4, "color": 4}, (("species", "species"), ("color", "color")),
        (attribute_folders, labels_table),
        _PAPER_FOLDERS + "Its folders are fruit360/species and fruit360/color. " + _PAPER_COUNTS,
        seen="nano was trained on photographs of Fruits-360, some of which may be among these",
    ),
    "card": Published(
        8_029, {"rank": _RANKS, "suit": _SUITS}, (("rank", "rank"), ("suit", "suit")),
        (card_splits, attribute_folders, labels_table),
        _PAPER_FOLDERS + "Its folders are cards/number and cards/suits. Known too: the Kaggle archive "
        "(train, valid, test; 53 classes of 'ace of clubs' and joker; 7,624 + 265 + 265 images), which without jokers "
        "and with 260 each in valid and test fits 8,029. Assumed: the papers' label names are the archive's words.",
        seen="nano was trained on the train part; only valid and test are held out (see --held-out)",
    ),
    "cmuface": Published(
        640,
        {"pose": frozenset({"left", "right", "straight", "up"}), "glass": frozenset({"open", "sunglasses"}),
         "emotion": frozenset({"angry", "happy", "neutral", "sad"}), "identity": 20},
        (("pose", "pose"), ("glasses", "glass"), ("emotion", "emotion"), ("identity", "identity")),
        (cmu_names, attribute_folders, labels_table),
        "Known: <person>_<pose>_<expression>_<eyes>.pgm, its values, 20 persons, and that 16 of the 640 are .bad files "
        "(UCI archive); CMUface/{identity,emotion,glass,pose}/<label> (main.py of Multi-MaP). "
        "Assumed: label folders are named with the archive's words.",
        seen="nano was trained on 12 of the persons; only boland, phoebe and tammo are held out (see --held-out)",
    ),
    "stanford_cars": Published(
        1_200, {"color": None, "type": None}, (("color", "color"), ("type of car", "type")),
        (attribute_folders, labels_table),
        "Assumed: the folders of Multi-MaP's other sets, with the attributes color and type that the papers report. "
        "The labels are not known to us and not checked.",
    ),
    "flowers": Published(
        1_600, {"color": None, "species": None}, (("species", "species"), ("petal color", "color")),
        (attribute_folders, labels_table),
        "Assumed: the folders of Multi-MaP's other sets, with the attributes color and species that the papers report. "
        "The labels are not known to us and not checked.",
        seen="nano was trained on 216 flower photographs, some of which may be among these",
    ),
    "cifar10": Published(
        60_000,
        {"type": frozenset({"animals", "transportation"}), "environment": frozenset({"air", "land", "water"})},
        (("type", "type"), ("environment", "environment"), ("object", "class")),
        (cifar_binary, attribute_folders, labels_table),
        "Known: cifar10/type and cifar10/environment with transportation, animals; land, air, water (README of "
        "Multi-Sub); the binary archive of CIFAR-10 itself. Assumed where the archive is read: airplane and bird are "
        "air, ship is water, all else (frog, too) land.",
        seen="nano was trained on 7,209 photographs of CIFAR-10, some of which may be among these",
    ),
    "coco4c": Published(
        5_000, {"activity": 64, "location": 19, "mood": 20, "time": 6},
        (("activity", "activity"), ("location", "location"), ("mood of the scene", "mood"), ("time of day", "time")),
        (labels_table, attribute_folders),
        "Known: four criteria, 5,000 images. Assumed: the label counts (as remembered) and the layout; "
        "no release was found, so its lists must be brought into images/ and labels.csv.",
    ),
    "food4c": Published(
        25_250, {"food type": 101, "cuisine": 15, "course": 5, "diet": 4},
        (("food type", "food type"), ("cuisine", "cuisine"), ("course", "course"), ("diet", "diet")),
        (labels_table, attribute_folders),
        "Known: four criteria. Assumed: 25,250 images (the test part of Food-101), the label counts (as remembered) "
        "and the layout; no release was found, so its lists must be brought into images/ and labels.csv.",
    ),
}  # fmt: skip

SHARED_SIZES = {
    "card": 7_769, "cmuface": 464, "fruit": 2_500, "flowers": 266, "cifar10": 8_000, "fashion": 7_526,
    "emotion": 3_150, "objects1000": 1_000,
}  # fmt: skip
"""Images per zip beside the project, as its README states them."""


def load_published(name: str, folder: Path, *, held_out: bool = False) -> LabelledSet:
    """A published set from the folder it was unpacked to. held_out: only what nano was never trained on, where that can
    be told. Raises UsageError where the name is unknown or no layout fits."""
    if name not in PUBLISHED:
        raise UsageError(f"a published set is one of {', '.join(PUBLISHED)}, got {name!r}", "check the name")
    published = PUBLISHED[name]
    entries = next((found for layout in published.layouts if (found := layout(folder))), [])
    if not entries:
        layouts = "; ".join(" ".join((layout.__doc__ or "").split()).split(",")[0] for layout in published.layouts)
        raise UsageError(f"{name} is read from one of these layouts: {layouts}; {folder} has none", "check the folder")
    notes = list(check(published, entries))
    if held_out:
        entries, note = _only_held_out(name, entries)
        notes.append(note)
    elif published.seen:
        notes.append(published.seen)
    pictures, labels, clashes = _by_content(entries)
    notes += clashes
    columns = {attribute for row in labels.values() for attribute in row}
    interests = tuple((words, column) for words, column in published.interests if column in columns)
    return LabelledSet(name, pictures, labels, interests, tuple(notes))


def check(published: Published, entries: Iterable[Entry]) -> Iterator[str]:
    """What does not agree with what was published, one sentence each."""
    files: Counter[str] = Counter()
    found: dict[str, set[str]] = {}
    for entry in entries:
        for attribute, label in entry.labels.items():
            files[attribute] += 1
            found.setdefault(attribute, set()).add(label)
    for attribute, expected in published.labels.items():
        got = found.get(attribute, set())
        if not got:
            yield f"{attribute}: no labels were found"
            continue
        if files[attribute] != published.size:
            yield f"{attribute}: {files[attribute]:,} labelled files where {published.size:,} images are published"
        if isinstance(expected, int) and len(got) != expected:
            yield f"{attribute}: {len(got)} labels where {expected} are published: {_list(got)}"
        if isinstance(expected, frozenset) and got != expected:
            parts = [f"missing {_list(expected - got)}"] if expected - got else []
            parts += [f"not published {_list(got - expected)}"] if got - expected else []
            yield f"{attribute}: labels differ from the published ones: {'; '.join(parts)}"


def _list(labels: Iterable[str]) -> str:
    ordered = sorted(labels)
    return ", ".join(ordered[:8]) + (f" and {len(ordered) - 8} more" if len(ordered) > 8 else "")


def _only_held_out(name: str, entries: list[Entry]) -> tuple[list[Entry], str]:
    if name == "cmuface":
        kept = [entry for entry in entries if entry.labels.get("identity") in HELD_OUT_PERSONS]
    elif name == "card":
        kept = [entry for entry in entries if entry.labels.get("split") in ("valid", "test")]
    else:
        raise UsageError(f"what nano never saw is known for card and cmuface, not for {name}", "leave --held-out out")
    if not kept:
        raise UsageError(f"the held-out part of {name} is told by split or person, this layout has neither",
                         "use the original archive")  # fmt: skip
    return kept, f"held-out part only: {len(kept):,} files"


def _by_content(entries: Iterable[Entry]) -> tuple[dict[str, Picture], dict[str, Labels], list[str]]:
    """One picture per distinct content, with the labels of all its places. A file's name becomes its hash."""
    pictures: dict[str, Picture] = {}
    labels: dict[str, dict[str, str]] = {}
    clashes: set[str] = set()
    for entry in entries:
        name = hashlib.sha256(entry.picture()).hexdigest()[:20] + entry.suffix
        pictures.setdefault(name, entry.picture)
        known = labels.setdefault(name, {})
        for attribute, label in entry.labels.items():
            if known.setdefault(attribute, label) != label:
                clashes.add(f"{attribute} of {name}: {known[attribute]} kept, {label} left out")
    return pictures, dict(labels), [f"one picture with two labels: {clash}" for clash in sorted(clashes)]


def load_shared(data: Path, name: str) -> LabelledSet:
    """A set of `bench.held_out` from the zips beside the project: only images that nano was not trained on."""
    zip_name, interests = SETS[name]
    first: dict[str, str] = {}
    for words, column in interests:
        first.setdefault(column, words)
    path = data / f"{zip_name}.zip"
    if not path.is_file():
        raise UsageError(f"{name} is read from {path.name}, {data} has none", "check --data, or leave it out of --sets")
    with zipfile.ZipFile(path) as archive:
        rows = read_rows(archive, name, zip_name)
        count = sum(member.startswith("images/") and not member.endswith("/") for member in archive.namelist())
    if name in UNTAUGHT_COLORS:
        notes = [f"{len(rows):,} images of {path.name}, of kinds whose color nano was never taught; their kind it was"]
    else:
        notes = [f"held out of nano's training: {len(rows):,} of {count:,} images of {path.name}"]
    if count != SHARED_SIZES[zip_name]:
        notes.append(f"{count:,} images where {SHARED_SIZES[zip_name]:,} are stated")
    pictures = {file: partial(_from_zip, path, f"images/{file}") for file in sorted(rows)}
    labels = {file: {column: rows[file][column] for column in first} for file in pictures}
    return LabelledSet(name, pictures, labels, tuple((words, column) for column, words in first.items()), tuple(notes))


@functools.cache
def _archive(path: Path) -> zipfile.ZipFile:
    """Kept open: its directory takes longer to read than a picture."""
    return zipfile.ZipFile(path)


def _from_zip(path: Path, member: str) -> bytes:
    return _archive(path).read(member)


def load_sample(folder: Path) -> LabelledSet:
    """The sample collection (`training/draw_cards.py`), drawn where it is not there yet."""
    if not (folder / "labels.csv").is_file():
        write_sample(folder)
    entries = labels_table(folder)
    pictures, labels, _ = _by_content(entries)
    note = "drawn by the renderer that also drew training images (other seeds): a kind nano was trained for"
    return LabelledSet("sample", pictures, labels, (("suit", "suit"), ("rank", "rank"), ("color", "color")), (note,))
