"""The sample collection: 312 drawn photographs of playing cards with their truth, as they lie in `sample.zip`.

In: a folder, or a suit. Out: `images/` and `labels.csv` (file,suit,rank,color,style), or pictures. Promise: file names
and their order say nothing of the labels. `training/draw_cards.py` drew them.
"""

from __future__ import annotations

import csv
import io
import zipfile
from itertools import islice
from pathlib import Path

from PIL import Image as PillowImage

from manylens.errors import UsageError
from manylens.files import write_atomically

ARCHIVE = Path(__file__).with_name("sample.zip")
LABELS = "labels.csv"


def write_sample(folder: Path) -> Path:
    """Write the pictures to `folder/images` and their truth to `folder/labels.csv`; return the former.

    `labels.csv` comes last: its presence says that the sample is complete. Repeat an interrupted call. Raises
    UsageError where `folder/images` holds other files, which have no label.
    """
    images, labels = folder / "images", folder / LABELS
    images.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(ARCHIVE) as sample:
        cards = [Path(name) for name in sample.namelist() if name != LABELS]
        known = {card.name for card in cards}
        if others := sorted(p.name for p in images.iterdir() if p.name not in known and p.name[0] != "."):
            rule = (
                f"{images} may hold only this sample, got {len(others)} other files ({others[0]}), which have no label"
            )
            raise UsageError(rule, "choose an empty folder")
        labels.unlink(missing_ok=True)
        for card in cards:
            (folder / card).write_bytes(sample.read(card.as_posix()))
        write_atomically(labels, sample.read(LABELS))
    return images


def pictures_of(suit: str, count: int) -> list[PillowImage.Image]:
    """The first pictures of a suit."""
    with zipfile.ZipFile(ARCHIVE) as sample:
        rows = csv.DictReader(io.StringIO(sample.read(LABELS).decode("utf-8")))
        of_suit = islice((row["file"] for row in rows if row["suit"] == suit), count)
        return [PillowImage.open(io.BytesIO(sample.read(f"images/{file}"))).convert("RGB") for file in of_suit]
