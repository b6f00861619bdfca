"""More pictures of the given sets, from the public repositories that they were taken from.

In: `--clones` a folder of git clones (`owner+name`), `--zips` the labelled sets unpacked. Out: for each set a table of
`blob` and the set's own columns, for `shrink.py`. What a folder there means here is read off the pictures that both
have: every folder (or label) gets the value that most of its pictures in the zip carry, and none where fewer than
three in four agree. Promise: no picture from a part that its repository calls test.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from held_out import difference_hash
from PIL import Image
from shrink import read_blobs

WIDER = 3  # times as many pictures are hashed as are kept, to find those that the zip has too


def folder(path: str) -> str:
    return path.rsplit("/", 1)[0]


def age(path: str) -> str:
    years, gender = path.split("/")[-1].split("_")[:2]
    return f"{int(years)}/{gender}"


def food_kind(path: str) -> str:
    return "/".join(path.split("/")[:4])


def aerial(path: str) -> str:
    return str((int(re.findall(r"(\d+)\.", path)[0]) - 1) // 100)


# clone, set, which paths, the key of a path, columns, pictures a key at most
SOURCES: list[tuple[str, str, str, Callable[[str], str], tuple[str, ...], int]] = [
    ("UmaimaKhan01+RESNET-and-VIT-performance-on-Human-Action-Recognition-", "human_actions15", r"^data/train/", folder, ("action",), 450),
    ("MachineLearning2020+Homework3-PACS", "art_medium", r"^PACS/", folder, ("medium", "subject"), 220),
    ("shubhankarm01+Weather-image-classification", "weather5", r"^train/", folder, ("weather",), 9999),
    ("GiovTemp+ml-landscape-weather-classification", "weather5", r"^datasets/dataset2/(train|validation)/", folder, ("weather",), 9999),
    ("DananauRazvan+Vehicle-Color-Recognition", "vehicle_color9", r"^dataset/train/", folder, ("color",), 500),
    ("Mohanish-5744+Major_Ensemble_Gender", "face_age_gender", r"^crop_part1/", age, ("age group", "gender"), 90),
    ("alexeygrigorev+clothing-dataset", "clothing_kind", r"^images/", folder, ("kind of clothing",), 700),
    ("marcusklasson+GroceryStoreDataset", "grocery_items", r"^dataset/train/", food_kind, ("kind of grocery", "grocery item"), 60),
    ("AnkitJha06+Image-Description-Generation-Using-Attention-Mechanism", "ucm_aerial_captions", r"^imgs/", aerial, ("land_use", "view"), 75),
    ("rathull+CTFs", "miniplaces100", r"^data/images/train/", folder, ("place", "setting", "kind_of_place"), 210),
    ("hergerr+traffic-sign-recognition", "road_signs", r"^GTSRB/Final_Training/", folder, ("road sign", "kind of road sign"), 60),
]  # fmt: skip


def git_folder(clone: Path) -> Path:
    return clone / "repo/.git" if (clone / "repo/.git").exists() else clone / "repo"


def paths_of(git: Path, pattern: str) -> dict[str, str]:
    """Path -> blob of every picture in any commit whose path matches."""
    listed = subprocess.run(
        ["git", "-C", str(git), "rev-list", "--objects", "--all", "--missing=allow-any"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = {}
    for line in listed.splitlines():
        blob, _, path = line.partition(" ")
        if re.search(pattern, path) and path.lower().endswith((".jpg", ".jpeg", ".png", ".ppm", ".tif")):
            found[path] = blob
    return dict(sorted(found.items()))


def named_labels(git: Path, name: str) -> dict[str, str]:
    """Path -> key where the repository keeps its labels in a table."""

    def table(file: str) -> list[dict[str, str]]:
        text = subprocess.run(
            ["git", "-C", str(git), "show", f"HEAD:{file}"], capture_output=True, text=True, check=True
        )
        return list(csv.DictReader(io.StringIO(text.stdout)))

    if name == "clothing_kind":
        return {f"images/{row['image']}.jpg": row["label"] for row in table("images.csv")}
    if name == "ucm_aerial_captions":
        listed = subprocess.run(
            ["git", "-C", str(git), "show", "HEAD:ucm_text/train_images_id.txt"],
            capture_output=True,
            text=True,
            check=True,
        )
        return {f"imgs/{file.strip()}": aerial(file) for file in listed.stdout.split()}
    if name == "weather5" and "shubhankarm01" in str(git):
        return {f"train/{row['filename']}": row["label"] for row in table("Training_set.csv")}
    return {}


def hash_of(content: bytes) -> int | None:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return difference_hash(picture.convert("RGB"))
    except Exception:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("clones", "zips", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for clone, name, pattern, key_of, columns, most in SOURCES:
        if options.only and name not in options.only:
            continue
        git = git_folder(options.clones / clone)
        labels = list(csv.DictReader((options.zips / name / "labels.csv").open()))
        known = np.asarray(
            [hash_of((options.zips / name / "images" / row["file"]).read_bytes()) for row in labels], np.uint64
        )
        paths = paths_of(git, pattern)
        named = named_labels(git, name)
        keys = {path: named.get(path) if named else key_of(path) for path in paths}
        chosen: dict[str, list[str]] = defaultdict(list)
        for path, key in keys.items():
            if key is not None:
                chosen[key].append(path)
        taken = [
            path
            for key, group in chosen.items()
            # spread over the folder, a few more than wanted: labels are learnt from those the zip has too
            for path in group[:: max(1, len(group) // (WIDER * most))][: WIDER * most]
        ]
        with Pool(2) as pool:
            hashes = pool.map(hash_of, read_blobs(git, [paths[path] for path in taken]), chunksize=64)
        votes: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
        for path, value in zip(taken, hashes, strict=True):
            if value is None:
                continue
            distance = np.bitwise_count(known ^ np.uint64(value))
            nearest = int(distance.argmin())
            if distance[nearest] <= 1:
                votes[keys[path]][tuple(labels[nearest][column] for column in columns)] += 1
        meaning = {}
        for key, counted in votes.items():
            value, times = counted.most_common(1)[0]
            if times >= 0.75 * sum(counted.values()):
                meaning[key] = value
        rows, count = [], Counter()
        for path, value in zip(taken, hashes, strict=True):
            key = keys[path]
            if value is not None and key in meaning and count[key] < most:
                count[key] += 1
                rows.append({"blob": paths[path], **dict(zip(columns, meaning[key], strict=True))})
        file = options.out / f"{name}{'-2' if (options.out / f'{name}.csv').exists() else ''}.csv"
        with file.open("w", newline="") as written:
            writer = csv.DictWriter(written, ["blob", *columns])
            writer.writeheader()
            writer.writerows(rows)
        print(
            f"{file.name}: {len(paths)} there, {len(rows)} kept; no meaning: {sorted(set(chosen) - set(meaning))[:12]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
