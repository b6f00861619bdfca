"""What the encoder is asked: tasks with their rows, the words of their answers, and the wordings of their interests.

In: `pack.py`'s corpus, `wordings.toml` and `interests.toml`, `levels.py`'s file. Out: `Corpus`, `Task`s, `Book` (every
text once, numbered). Promise: the held-out wordings are in no training pool; the sets named in LEFT_OUT are in no task
that is trained on when a run leaves kinds out.
"""

from __future__ import annotations

import json
import random
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from phrasings import Phrasings

NOT_APPLICABLE, CANNOT_TELL = "does not apply", "cannot tell"
LEFT_OUT = (
    "food_dishes.dish", "food_dishes.taste", "vehicle_kind.vehicle", "furniture_kind.piece of furniture", "blood_cells.blood cell",
    "big_cats.big cat", "tomato_leaf_disease.tomato leaf disease", "emoji_category.emoji category", "textures.texture",
    "handwritten_alphabet.alphabet of the handwritten character", "sun_scenes8.place", "sun_scenes8.setting",
    "magnetic_tile_defects.magnetic tile defect", "magnetic_tile_defects.defective", "pcb_defects.printed circuit board defect",
    "cars_make_type.body_type", "cars_make_type.decade", "cars_make_type.make", "flowers.species", "flowers.color", "dog_breeds.dog breed",
    "day_night.daytime", "rooms_places365.room", "fruit.species", "fruit.color",
)  # fmt: skip
"""Whole sets that a run with --leave-out neither trains on nor sees; they show what nano does with kinds it never met."""

FIRST_NINE = {
    "card.rank": "card.rank", "card.suit": "card.suit", "card.color": "card.color", "cmuface.pose": "cmuface.pose",
    "cmuface.glass": "cmuface.glass", "cmuface.emotion": "cmuface.emotion", "fruit.species": "fruit.species",
    "fruit.color": "fruit.color", "flowers.species": "flowers.species", "flowers.color": "flowers.color",
    "cifar10.class": "cifar10.class", "cifar10.type": "cifar10.type", "cifar10.environment": "cifar10.environment",
    "cifar10.main color": "object.color", "textures.texture": "textures.texture", "emotion.emotion": "emotion.emotion",
    "fashion.type": "fashion.type", "fashion.color": "fashion.color", "fashion.category": "fashion.category",
    "fashion.gender": "fashion.gender", "fashion.usage": "fashion.usage", "objects1000.object": "objects1000.object",
    "objects1000.main color": "object.color",
}  # fmt: skip
"""Column -> its table in interests.toml."""

KIND_OF_SET = {
    "card": "card", "cmuface": "face", "emotion": "face", "face_attributes": "face", "face_age_gender": "face",
    "facial_expression": "face", "fashion": "product", "fruit": "fruit", "flowers": "flower", "textures": "texture",
    "coco_captions": "scene", "flickr8k_1000": "scene", "miniplaces100": "scene", "rooms_places365": "scene",
    "sun_scenes8": "scene", "weather5": "scene", "day_night": "scene", "human_actions15": "people",
    "ucm_aerial_captions": "aerial", "vehicle_color9": "vehicle", "cars_make_type": "vehicle", "vehicle_kind": "vehicle",
    "art_medium": "art", "emoji_category": "emoji", "clothing_kind": "clothes", "furniture_kind": "furniture",
    "food_dishes": "food", "grocery_items": "food", "steel_defects": "surface", "magnetic_tile_defects": "surface",
    "pcb_defects": "board", "tomato_leaf_disease": "leaf", "big_cats": "animal", "dog_breeds": "animal",
    "blood_cells": "cell", "road_signs": "sign", "writing_system": "writing", "handwritten_alphabet": "writing",
    "kind_of_image": "mixed", "photo_quality": "mixed", "objects1000": "mixed", "cifar10": "mixed",
}  # fmt: skip


def kind_of(name: str) -> str:
    """The kind of a set's pictures; a set of mixed ones is a kind of its own."""
    return name if KIND_OF_SET[name] == "mixed" else KIND_OF_SET[name]


NOTHING_HUMAN = "texture surface board leaf cell sign writing aerial fruit food furniture"
UNLIKE = {  # attribute -> kinds of picture to which it surely does not apply
    "card.rank": "face product fruit flower texture scene people aerial vehicle animal clothes furniture food surface board leaf cell",
    "card.suit": "face product fruit flower texture scene people aerial vehicle animal clothes furniture food surface board leaf cell sign writing",
    "cmuface.pose": NOTHING_HUMAN, "cmuface.glass": NOTHING_HUMAN + " vehicle animal", "cmuface.emotion": NOTHING_HUMAN + " vehicle",
    "glasses": NOTHING_HUMAN + " vehicle animal", "smile": NOTHING_HUMAN + " vehicle", "hair": NOTHING_HUMAN + " vehicle",
    "facial_hair": NOTHING_HUMAN + " vehicle animal", "headwear": NOTHING_HUMAN + " vehicle animal", "gender": NOTHING_HUMAN + " vehicle",
    "age_group": NOTHING_HUMAN + " vehicle", "expression": NOTHING_HUMAN + " vehicle",
    "action": NOTHING_HUMAN + " card vehicle product flower", "place": "card texture surface board cell sign writing product fruit leaf emoji",
    "setting": "card texture surface board cell sign writing emoji product", "weather": "card face product texture surface board cell sign writing emoji furniture food clothes",
    "daytime": "card product texture surface board cell sign writing emoji furniture", "animal": "card face product texture surface board cell sign writing vehicle furniture food clothes fruit aerial",
    "food": "card face product texture surface board cell sign writing vehicle furniture clothes aerial animal",
    "taste": "card face product texture surface board cell sign writing vehicle furniture clothes aerial animal",
    "land_use": "card face product texture people animal clothes furniture food fruit flower surface board cell writing",
    "vehicle_color": "card face texture food fruit flower surface board cell writing leaf furniture clothes", "body_type": "card face texture food fruit flower surface board cell writing leaf furniture clothes animal",
    "make": "card face texture food fruit flower surface board cell writing leaf animal", "decade": "", "vehicle": "card face texture food fruit flower surface board cell writing leaf furniture clothes animal",
    "emoji_category": "card face texture food people scene aerial vehicle surface board cell leaf furniture", "clothing": "card texture food fruit flower aerial surface board cell sign writing leaf vehicle furniture animal",
    "furniture": "card face texture food fruit flower aerial surface board cell sign writing leaf vehicle clothes animal", "grocery": "card face texture aerial surface board cell sign writing vehicle clothes animal furniture",
    "grocery_kind": "card face texture aerial surface board cell sign writing vehicle clothes animal furniture", "steel_defect": "card face people scene aerial animal food fruit flower vehicle clothes writing sign",
    "tile_defect": "card face people scene aerial animal food fruit flower vehicle clothes writing sign", "defective": "face people scene animal", "pcb_defect": "card face people scene aerial animal food fruit flower vehicle clothes sign texture",
    "leaf_disease": "card face people scene aerial animal vehicle clothes sign texture surface board writing cell", "big_cat": "card face scene aerial food fruit flower vehicle clothes sign texture surface board writing cell furniture",
    "dog_breed": "card face aerial food fruit flower vehicle clothes sign texture surface board writing cell furniture", "blood_cell": "card face people scene aerial animal food fruit flower vehicle clothes sign writing board furniture",
    "road_sign": "card face people texture animal food fruit flower clothes surface board writing cell furniture", "road_sign_kind": "card face people texture animal food fruit flower clothes surface board writing cell furniture",
    "writing_system": "face people scene aerial animal food fruit flower texture surface cell furniture vehicle", "handwritten_alphabet": "face people scene aerial animal food fruit flower texture surface cell furniture vehicle",
    "flowers.species": "card face people texture vehicle clothes surface board writing cell furniture animal", "fruit.species": "card face people texture vehicle clothes surface board writing cell furniture animal",
    "fashion.type": "card texture food fruit flower aerial surface board cell sign writing leaf vehicle furniture animal", "fashion.usage": "card texture food fruit flower aerial surface board cell sign writing leaf animal",
}  # fmt: skip

OPEN = (
    "what the picture shows", "what is in the picture", "content", "content of the picture", "description", "describe the picture",
    "what is shown", "what can be seen", "what is going on", "what happens in the picture", "scene", "the whole scene", "what the photo shows",
    "what is this a picture of", "caption", "what do you see?", "what is happening?", "theme", "topic", "what it is about", "anything",
    "everything in the picture", "contents of the image", "overall content", "what this image depicts", "motif",
)  # fmt: skip
OBJECTS = (
    "objects",
    "things in the picture",
    "which objects can be seen",
    "objects in the picture",
    "what things are there",
    "items",
    "visible objects",
    "what objects are shown?",
)
KIND_WORDS = ("{k}", "kind of {k}", "type of {k}", "which {k}", "which {k} is it?", "what kind of {k} is it?", "{k} type", "sort of {k}", "the {k}", "{k} species or model", "name of the {k}", "what {k} is this?", "group by kind of {k}", "{k}s by kind")  # fmt: skip
OBJECT_WORDS = ("object", "main object", "what it is", "what is it?", "kind of thing", "thing", "what kind of thing is it?", "which object is shown", "the main thing in the picture", "name of the object", "type of object", "kind of object", "what object is this", "item", "subject")  # fmt: skip
VAGUE_KINDS = set(
    "agent group system shape part abstraction matter substance solid measure attribute relation communication location piece "
    "material fluid liquid durables commodity structure device instrument equipment implement instrumentality covering container "
    "support restraint fastener barrier obstruction starches drug mechanism mechanical_device natural_object placental diapsid anapsid "
    "carnivore game reproductive_structure plant_organ plant_part consumer_goods conveyance craft protective_covering causal_agent "
    "establishment place_of_business saurian chelonian oscine foodstuff nutriment whole ungulate craft vessel "
    "natural_elevation durables housing animal_order domestic_animal canine even-toed_ungulate".replace("_", " ").split(" ")
) | {"mechanical device", "natural object", "reproductive structure", "plant organ", "plant part", "consumer goods", "protective covering", "causal agent", "place of business", "natural elevation", "even-toed ungulate", "cutting implement", "piece of cloth"}  # fmt: skip


BORROWED: tuple[tuple[str, str, str, str, str, int], ...] = (
    # task, its value, where the pictures come from: set, column and value ("" for any picture, "column", "" for none), how many
    ("art_medium.medium", "photo", "coco_captions", "photo_style", "", 900), ("art_medium.medium", "photo", "miniplaces100", "", "", 400),
    ("art_medium.medium", "photo", "human_actions15", "", "", 200), ("art_medium.medium", "photo", "face_attributes", "", "", 100),
    ("art_medium.medium", "photo", "vehicle_color9", "", "", 60), ("art_medium.medium", "photo", "food_dishes", "", "", 60),
    ("kind_of_image.kind of image", "color photograph", "coco_captions", "photo_style", "", 150),
    ("kind_of_image.kind of image", "color photograph", "miniplaces100", "", "", 60), ("kind_of_image.kind of image", "color photograph", "human_actions15", "", "", 40),
    ("kind_of_image.kind of image", "color photograph", "face_attributes", "", "", 30), ("kind_of_image.kind of image", "color photograph", "food_dishes", "", "", 20),
    ("kind_of_image.kind of image", "black and white photograph", "coco_captions", "photo_style", "black and white photo", 200),
    ("kind_of_image.kind of image", "emoji icon", "emoji_category", "", "", 100), ("kind_of_image.kind of image", "microscope image", "blood_cells", "", "", 60),
    ("kind_of_image.kind of image", "line sketch", "art_medium", "medium", "line sketch", 120), ("kind_of_image.kind of image", "cartoon", "art_medium", "medium", "cartoon", 120),
    ("kind_of_image.kind of image", "painting", "art_medium", "medium", "painting", 120), ("kind_of_image.kind of image", "product shot on white background", "fashion", "", "", 100),
    ("coco_captions.photo_style", "color photo", "coco_captions", "photo_style", "", 700), ("coco_captions.photo_style", "color photo", "miniplaces100", "", "", 200),
)  # fmt: skip
"""Labels that whole sets have though nobody wrote them down."""
ALIVE = re.compile(
    r"\b(?:animal|bird|cat|kitten|dog|pupp|horse|pony|sheep|lamb|goat|cow|cattle|bull|calf|elephant|bear|zebra|giraffe|lion|tiger|"
    r"duck|goose|geese|swan|gull|pigeon|parrot|owl|fish|monkey|rabbit|deer|insect|butterfl|pet)", re.IGNORECASE
)  # fmt: skip
LIVING = frozenset(("person", "bird", "cat", "dog", "horse"))


@dataclass
class Corpus:
    """where: (n, 3) shard, offset, bytes. set_of: (n,). valid: (n,) bool. columns: "set.column" -> {row: value index}."""

    sets: list[str]
    where: np.ndarray
    set_of: np.ndarray
    valid: np.ndarray
    columns: dict[str, np.ndarray]
    values: dict[str, list[str]]
    captions: dict[int, list[str]]
    held_colors: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> Corpus:
        told = json.loads((folder / "corpus.json").read_text())
        with np.load(folder / "corpus.npz") as npz:
            columns = {key.removeprefix("column:"): npz[key] for key in npz.files if key.startswith("column:")}
            return cls(
                told["sets"], npz["where"], npz["set_of"], npz["valid"], columns, told["values"],
                {int(row): texts for row, texts in told["captions"].items()}, npz["held_colors"],
            )  # fmt: skip


class Book:
    """Every text once, numbered in the order of first use."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._number: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        if text not in self._number:
            self._number[text] = len(self.texts)
            self.texts.append(text)
        return self._number[text]

    def all(self, texts: list[str] | tuple[str, ...]) -> np.ndarray:
        return np.asarray([self(text) for text in texts], np.int64)


@dataclass
class Task:
    """rows, answers: of the training part; answers index labels. held_rows, held_answers: of the validation part.
    labels, wordings, held_wordings: numbers in the book; wordings[0] is the plain name. unlike: sets, by number."""

    key: str
    attribute: str
    rows: np.ndarray
    answers: np.ndarray
    held_rows: np.ndarray
    held_answers: np.ndarray
    labels: np.ndarray
    wordings: np.ndarray
    held_wordings: np.ndarray
    unlike: list[int] = field(default_factory=list)
    unlike_rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    left_out: bool = False


def with_value(corpus: Corpus, key: str, value: str) -> np.ndarray:
    """Rows whose column has the value."""
    if key not in corpus.columns or value not in corpus.values[key]:
        return np.zeros(0, np.int64)
    pairs = corpus.columns[key]
    return pairs[pairs[:, 1] == corpus.values[key].index(value), 0].astype(np.int64)


def borrowed(corpus: Corpus, key: str, hidden: set[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The column's values and pairs with what other sets tell of it; training part only."""
    values, pairs = list(corpus.values[key]), [corpus.columns[key]]
    for number, (task, value, name, column, wanted, most) in enumerate(BORROWED):
        if task != key or name in hidden:
            continue
        rows = np.flatnonzero((corpus.set_of == corpus.sets.index(name)) & ~corpus.valid)
        if column:
            told = corpus.columns.get(f"{name}.{column}", np.zeros((0, 2), np.int64))[:, 0]
            rows = (
                rows[np.isin(rows, with_value(corpus, f"{name}.{column}", wanted))]
                if wanted
                else rows[~np.isin(rows, told)]
            )
        rows = np.random.default_rng(number).permutation(np.setdiff1d(rows, corpus.columns[key][:, 0]))[:most]
        if value not in values:
            values.append(value)
        pairs.append(np.stack([rows, np.full(len(rows), values.index(value))], 1))
    found = np.concatenate(pairs)
    return values, found[:, 0], found[:, 1]


def does_not_apply(corpus: Corpus) -> dict[str, np.ndarray]:
    """Attribute -> rows, of sets it does apply to, on which there is nothing to say of it; training part only."""
    indoors = np.concatenate([with_value(corpus, f"{name}.setting", "indoors") for name in ("coco_captions", "miniplaces100", "sun_scenes8")])  # fmt: skip
    objects = corpus.columns["coco_captions.objects"]
    listed = [{p.strip() for p in value.split(";")} for value in corpus.values["coco_captions.objects"]]

    def without(things: frozenset[str]) -> np.ndarray:
        rows = objects[[not listed[value] & things for value in objects[:, 1]], 0].tolist()
        return np.asarray(
            [r for r in rows if not any(ALIVE.search(text) for text in corpus.captions.get(r, ("animal",)))], np.int64
        )

    empty = with_value(corpus, "coco_captions.people", "no people")
    found = {
        "weather": np.setdiff1d(indoors, corpus.columns["coco_captions.weather"][:, 0]),
        "animal": np.setdiff1d(without(LIVING - {"person"}), corpus.columns["coco_captions.animal"][:, 0]),
        "action": np.setdiff1d(np.intersect1d(empty, without(LIVING)), corpus.columns["coco_captions.activity"][:, 0]),
    }  # fmt: skip
    return {attribute: rows[~corpus.valid[rows]] for attribute, rows in found.items()}


def readable(value: str) -> str:
    return value.replace("_", " ").strip()


@dataclass
class Wordings:
    """`interests.toml` and `wordings.toml`: what people call each column. attribute_of: column -> its table in the latter."""

    first: dict[str, Any]
    listed: dict[str, Any]
    attribute_of: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> Wordings:
        listed = tomllib.loads((folder / "wordings.toml").read_text())
        first = tomllib.loads((folder.parent / "interests.toml").read_text())
        return cls(first, listed, {key: name for name, entry in listed.items() for key in entry["sets"]})

    def of(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        """The tables of a column, with their names; the last one names its attribute."""
        found: list[tuple[str, dict[str, Any]]] = []
        if key in FIRST_NINE:
            group, name = FIRST_NINE[key].split(".")
            found.append((FIRST_NINE[key], self.first[group][name]))
        if key in self.attribute_of:
            entry = dict(self.listed[self.attribute_of[key]])
            entry["train"] = entry["nouns"] + [q.replace("{subject}", entry["subjects"][0]) for q in entry["questions"]]
            entry["plurals"] = [s if s.endswith("s") or s == "people" else f"{s}s" for s in entry["subjects"]]
            found.append((self.attribute_of[key], entry))
        return found


def make_tasks(corpus: Corpus, book: Book, folder: Path, *, leave_out: bool, wordings: int, seed: int) -> list[Task]:
    """Every labelled column as a task. Columns of one attribute share their wordings."""
    books = Wordings.read(folder)
    rng = random.Random(seed)
    hidden = {key.split(".")[0] for key in LEFT_OUT} if leave_out else set()
    nothing = does_not_apply(corpus)
    tasks = []
    for key in corpus.columns:
        if key == "coco_captions.objects" or not books.of(key):
            continue
        attributes, entries = map(list, zip(*books.of(key), strict=True))
        words: dict[str, str] = entries[0].get("answers", {}) if key in FIRST_NINE else {}
        raw, rows, told = borrowed(corpus, key, hidden)
        values = [readable(words.get(value, value)) for value in raw]
        labels = sorted({value for value in values if value})
        index = np.asarray([labels.index(value) if value else -1 for value in values])
        answers = index[told]
        rows, answers = rows[answers >= 0], answers[answers >= 0]
        held = corpus.valid[rows]
        if key.endswith("main color"):
            held |= np.isin(rows, corpus.held_colors)
        if len(labels) < 2:
            continue
        pools = [Phrasings.from_table(entry, labels) for entry in entries]
        never = {w.casefold() for entry in entries for w in entry["heldout"]}
        plain = readable(key.split(".")[1])
        drawn = [plain, *(n for entry in entries for n in entry["nouns"])]
        while len(drawn) < wordings:
            drawn.append(rng.choice(pools).draw(rng))
        drawn = [w for w in drawn if w.casefold() not in never]
        unlike = set(" ".join(UNLIKE.get(a, "") for a in attributes).split())
        tasks.append(
            Task(
                key,
                attributes[-1],
                rows[~held],
                answers[~held],
                rows[held],
                answers[held],
                book.all(labels),
                book.all(drawn),
                book.all([w for entry in entries for w in entry["heldout"]]),
                [i for i, name in enumerate(corpus.sets) if KIND_OF_SET[name] in unlike],
                nothing.get(attributes[-1], np.zeros(0, np.int64)),
                leave_out and key in LEFT_OUT,
            )  # fmt: skip
        )
    return tasks
