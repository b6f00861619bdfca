"""More pictures of the given sets that no folder of a public repository names: CelebA's by its list of attributes, charts,
and what this project draws and recolors itself.

    python more.py celeba --clones CLONES --out tables           # tables for shrink.py
    python more.py charts --clones CLONES --out tables
    python more.py decks --made decks --held-out HASHES --out extra/card-drawn          # as shrink.py writes
    python more.py colors --made hued.npz --held-out HASHES --out extra/objects1000-hued

A drawn or recolored picture passes the filter of held-out hashes, too.
"""

from __future__ import annotations

import argparse
import csv
import io
import subprocess
from pathlib import Path

import numpy as np
from extras import git_folder, paths_of
from held_out import HeldOut, difference_hash
from PIL import Image

CELEBA, LIST = "karthikSingireddy+cs389-hw4", "zgjsxx+face-property-detection-pytorch"
CHARTS, CHART_COUNT = "vis-nlp+OpenCQA", 400
FACE_COLUMNS = ("glasses", "smile", "hair", "facial hair", "headwear", "gender", "age impression")
PLAIN_FACES = 3  # one in so many of the faces without glasses, hat or rare hair


def celeba(clones: Path, out: Path) -> None:
    """The set's own columns from the 40 attributes; hair only where exactly one color is said."""
    listed = subprocess.run(
        ["git", "-C", str(git_folder(clones / LIST)), "show", "HEAD:list_attr_celeba.txt"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    names = listed[1].split()
    blobs = paths_of(git_folder(clones / CELEBA), r"^celebA/")
    rows = []
    for number, line in enumerate(listed[2:]):
        file, *marks = line.split()
        has = {name: mark == "1" for name, mark in zip(names, marks, strict=True)}
        if f"celebA/{file}" not in blobs:
            continue
        hair = [word for word in ("Bald", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair") if has[word]]
        beard = has["Mustache"] or has["Goatee"] or (not has["No_Beard"] and not has["5_o_Clock_Shadow"])
        rare = has["Eyeglasses"] or has["Wearing_Hat"] or has["Bald"] or has["Gray_Hair"] or beard
        if not rare and number % PLAIN_FACES:
            continue
        rows.append({
            "blob": blobs[f"celebA/{file}"], "glasses": "wearing glasses" if has["Eyeglasses"] else "no glasses",
            "smile": "smiling" if has["Smiling"] else "not smiling",
            "hair": hair[0].replace("_", " ").lower() if len(hair) == 1 and not has["Wearing_Hat"] else "",
            "facial hair": "beard or mustache" if beard else "clean shaven or no facial hair" if has["No_Beard"] and not has["5_o_Clock_Shadow"] else "",
            "headwear": "wearing a hat" if has["Wearing_Hat"] else "no hat", "gender": "man" if has["Male"] else "woman",
            "age impression": "young" if has["Young"] else "older",
        })  # fmt: skip
    write_table(out / "face_attributes.csv", ("blob", *FACE_COLUMNS), rows)


def charts(clones: Path, out: Path) -> None:
    blobs = list(paths_of(git_folder(clones / CHARTS), r"^chart_images/").values())
    rows = [{"blob": blob, "kind of image": "chart or graph"} for blob in blobs[:: len(blobs) // CHART_COUNT]]
    write_table(out / "kind_of_image.csv", ("blob", "kind of image"), rows)


def write_table(file: Path, columns: tuple[str, ...], rows: list[dict[str, str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as written:
        writer = csv.DictWriter(written, columns)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{file.name}: {len(rows)}")


def packed(pictures: list[tuple[bytes, dict[str, str]]], held_out: HeldOut, out: Path) -> None:
    """As shrink.py writes: images.bin and table.csv."""
    out.mkdir(parents=True, exist_ok=True)
    at, rows = 0, []
    with (out / "images.bin").open("wb") as images:
        for content, row in pictures:
            with Image.open(io.BytesIO(content)) as opened:
                picture = opened.convert("RGB")
            value = difference_hash(picture)
            if held_out.holds_hash(value):
                continue
            if len(content) > 2500:
                buffer = io.BytesIO()
                picture.save(buffer, "WEBP", quality=78, method=2)
                content = min(content, buffer.getvalue(), key=len)
            images.write(content)
            rows.append({**row, "at": str(at), "bytes": str(len(content)), "hash": f"{value:016x}"})
            at += len(content)
    write_table(out / "table.csv", tuple(rows[0]), rows)
    print(f"{len(pictures) - len(rows)} held out, {at / 1e6:.1f} MB")


def decks(made: Path) -> list[tuple[bytes, dict[str, str]]]:
    with (made / "labels.csv").open() as listed:
        return [
            ((made / "images" / row["file"]).read_bytes(), {c: row[c] for c in ("rank", "suit", "color")})
            for row in csv.DictReader(listed)
        ]


def colors(made: Path) -> list[tuple[bytes, dict[str, str]]]:
    """Those of which the color of the object is known."""
    with np.load(made) as npz:
        data, offsets, words = npz["data"], npz["offsets"], npz["color"]
    return [
        (data[offsets[k] : offsets[k + 1]].tobytes(), {"main color": str(word)})
        for k, word in enumerate(words)
        if str(word)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("celeba", "charts", "decks", "colors"))
    for name in ("clones", "made", "held-out"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    if o.what in ("celeba", "charts"):
        {"celeba": celeba, "charts": charts}[o.what](o.clones, o.out)
    else:
        packed({"decks": decks, "colors": colors}[o.what](o.made), HeldOut.read(o.held_out), o.out)


if __name__ == "__main__":
    main()
