"""Everything the encoder learns from, in a few files that travel to the GPU.

In: the labelled sets unpacked (`--zips`), what `shrink.py` made of the public repositories (`--extra`, `--coco`).
Out: `OUT/shard-K.bin` (WebP, JPEG or PNG files one after the other, at most `SHARD_BYTES` each) and `OUT/corpus.npz`
(where each picture lies, its set, whether it is held out) with `OUT/corpus.json` (sets, columns, values, captions).
Promise: the validation part of a set holds whole groups of near-duplicates (and whole persons, and the parts that
earlier versions held out), and no picture from elsewhere that looks like one of them, or like one that is scored.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections import defaultdict
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from data import HELD_OUT_PERSONS, is_held_out, share_of
from held_out import HeldOut, difference_hash
from PIL import Image

SHARD_BYTES = 58_000_000
VALIDATION_SHARE = 0.15
NEAR_BITS = 4
FIRST_NINE = ("card", "cmuface", "fruit", "flowers", "cifar10", "textures", "emotion", "fashion", "objects1000")
COLORS = Path(__file__).parents[1] / "labels"


def smaller(item: tuple[Path, bool]) -> tuple[bytes, int]:
    """A zip's picture as it travels, and its hash: those of the first nine as WebP, the others as they are."""
    file, again = item
    content = file.read_bytes()
    with Image.open(io.BytesIO(content)) as opened:
        picture = opened.convert("RGB")
    value = difference_hash(picture)
    if again and len(content) > 2500:
        picture.thumbnail((224, 224), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=78, method=2)
        content = buffer.getvalue() if buffer.tell() < len(content) else content
    return content, value


def near_groups(hashes: list[int]) -> list[int]:
    """The lowest index among the pictures that each is joined with by hashes within NEAR_BITS; blank ones stand alone."""
    values = np.asarray(hashes, np.uint64)
    group = list(range(len(hashes)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    for i, value in enumerate(hashes):
        if 8 <= value.bit_count() <= 56:
            for j in np.flatnonzero(np.bitwise_count(values[:i] ^ np.uint64(value)) <= NEAR_BITS):
                a, b = sorted((root(int(j)), root(i)))
                group[b] = a
    return [root(i) for i in range(len(hashes))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("zips", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("extra", "coco"):
        parser.add_argument(f"--{name}", type=Path, help="may be left out: the held-out part is of the zips alone")
    parser.add_argument("--most-extra", type=int, default=20_000, help="pictures of one extra source at most")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sets: list[str] = []
    rows: list[dict[str, str]] = []
    set_of: list[int] = []
    valid: list[bool] = []
    source: list[str] = []
    contents: list[bytes] = []
    hashes: list[int] = []
    for folder in sorted(options.zips.iterdir()):
        name = folder.name
        sets.append(name)
        labels = list(csv.DictReader((folder / "labels.csv").open()))
        by_hand = COLORS / f"{name}_colors.csv"
        if by_hand.exists():
            colors = {row["file"]: row for row in csv.DictReader(by_hand.open())}
            for row in labels:
                if row["file"] in colors:
                    row["main color"] = colors[row["file"]]["color"]
                    row["color_part"] = colors[row["file"]]["part"]
        with Pool(2) as pool:
            made = pool.map(smaller, [(folder / "images" / row["file"], name in FIRST_NINE) for row in labels], 64)
        own = [value for _, value in made]
        if name in FIRST_NINE and name != "objects1000":
            held = [is_held_out(name, row) for row in labels]
        else:
            groups = near_groups(own)
            held = [
                name != "objects1000" and share_of(f"{name}/{labels[g]['file']}") < VALIDATION_SHARE for g in groups
            ]
        for (content, value), row, part in zip(made, labels, held, strict=True):
            set_of.append(len(sets) - 1)
            rows.append(row)
            valid.append(part)
            source.append("zip")
            contents.append(content)
            hashes.append(value)
        print(f"{name}: {len(labels)}, {sum(held)} held out", flush=True)

    not_these = HeldOut([h for h, part in zip(hashes, valid, strict=True) if part])
    in_zips = {
        name: HeldOut([h for h, s in zip(hashes, set_of, strict=True) if sets[s] == name], near_bits=1) for name in sets
    }
    repositories = [] if options.coco is None else [options.coco]
    repositories += [] if options.extra is None else sorted(options.extra.iterdir())
    for folder in repositories:
        name = "coco_captions" if folder == options.coco else folder.name.split("-")[0]
        pictures = (folder / "images.bin").read_bytes()
        table = list(csv.DictReader((folder / "table.csv").open()))
        kept = 0
        for row in table[:: max(1, len(table) // options.most_extra)] if folder != options.coco else table:
            value = int(row["hash"], 16)
            if not_these.holds_hash(value) or in_zips[name].holds_hash(value):
                continue
            kept += 1
            set_of.append(sets.index(name))
            rows.append({k: v for k, v in row.items() if k not in ("blob", "git_path", "at", "bytes", "hash")})
            valid.append(False)
            source.append("repository")
            contents.append(pictures[int(row["at"]) : int(row["at"]) + int(row["bytes"])])
            hashes.append(value)
        print(f"{folder.name}: {kept} of {len(table)} kept", flush=True)

    order = np.random.default_rng(0).permutation(len(rows))
    written, number = 0, 0
    file = (options.out / "shard-0.bin").open("wb")
    where = np.zeros((len(rows), 3), np.int64)
    for i in order:
        if written + len(contents[i]) > SHARD_BYTES:
            file.close()
            number, written = number + 1, 0
            file = (options.out / f"shard-{number}.bin").open("wb")
        file.write(contents[i])
        where[i] = number, written, len(contents[i])
        written += len(contents[i])
    file.close()
    values: dict[str, list[str]] = {}
    captions: dict[int, list[str]] = {}
    of_column: dict[str, dict[int, int]] = defaultdict(dict)
    for i, row in enumerate(rows):
        for column, value in row.items():
            if not value or column in ("file", "split", "color_part", "identity"):
                continue
            if column.startswith("caption"):
                captions.setdefault(i, []).append(value)
                continue
            key = f"{sets[set_of[i]]}.{column}"
            listed = values.setdefault(key, [])
            if value not in listed:
                listed.append(value)
            of_column[key][i] = listed.index(value)
    held_colors = [i for i, row in enumerate(rows) if row.get("color_part") == "heldout"]
    persons = [i for i, row in enumerate(rows) if row.get("identity") in HELD_OUT_PERSONS]
    np.savez_compressed(
        options.out / "corpus.npz", where=where.astype(np.int32), set_of=np.asarray(set_of, np.int16),
        valid=np.asarray(valid), repository=np.asarray([s == "repository" for s in source]),
        hashes=np.asarray(hashes, np.uint64), held_colors=np.asarray(held_colors), persons=np.asarray(persons),
        **{f"column:{key}": np.asarray(sorted(found.items()), np.int32) for key, found in of_column.items()},
    )  # fmt: skip
    (options.out / "corpus.json").write_text(json.dumps({"sets": sets, "values": values, "captions": captions}))
    print(f"{len(rows)} pictures, {sum(valid)} held out, {number + 1} shards, {sum(map(len, contents)) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
