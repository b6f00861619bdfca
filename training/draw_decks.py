"""Draw playing cards for training with the project's own renderer, under other seeds than the sample collection's.

    python training/draw_decks.py --out decks --images 6000

Seeds start at 1,000,000; `manylens demo` uses seeds below 1,000, so no sample image is ever trained on. The *renderer*
is the same: nano's numbers on the sample collection are therefore numbers on a kind it was trained for.
"""

from __future__ import annotations

import argparse
import csv
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from draw_cards import DECK_STYLES, RANKS, SUITS, Card, draw_card

FIRST_SEED = 1_000_000


def draw(args: tuple[int, str]) -> tuple[str, Card]:
    number, folder = args
    rng = np.random.default_rng(FIRST_SEED + number)
    card = Card(
        RANKS[rng.integers(len(RANKS))], SUITS[rng.integers(len(SUITS))], DECK_STYLES[rng.integers(len(DECK_STYLES))]
    )
    name = f"{number:06d}.jpg"
    draw_card(card, rng=rng, size_px=192).save(Path(folder) / name, quality=90)
    return name, card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--processes", type=int, default=16)
    args = parser.parse_args()
    images = args.out / "images"
    images.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.processes) as pool, (args.out / "labels.csv").open("w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["file", "rank", "suit", "color", "style"])
        for name, card in pool.map(draw, ((i, str(images)) for i in range(args.images)), chunksize=32):
            writer.writerow([name, card.rank, card.suit, card.color, card.style])


if __name__ == "__main__":
    main()
