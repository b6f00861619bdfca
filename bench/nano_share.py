"""What share of a whole run is nano's own computing: seconds inside its two networks, of all seconds of the process.

`python -m bench.nano_share [--copies 2] [--interests suit rank color]` draws the cards of `manylens demo`, so many
times in other sizes, sorts them in a new run folder and prints a Markdown table: of each stage the seconds of the
processor, over all threads, inside the networks and beside them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage


def draw(folder: Path, copies: int) -> int:
    """The sample's cards; further copies are cut by some pixels, so that they are other pictures."""
    from manylens.cli.sample import write_sample

    write_sample(folder)
    cards = sorted((folder / "images").rglob("*.*"))
    for copy in range(1, copies):
        for path in cards:
            with PillowImage.open(path) as card:
                cut = card.crop((copy, copy, card.width, card.height))
                cut.save(path.with_name(f"{path.stem}-{copy}.png"))
    return copies * len(cards)


def measure(folder: Path, out: Path, interests: list[str]) -> dict[str, tuple[float, float]]:
    """Of each stage the seconds of the processor inside the networks, and in all."""
    before = time.process_time()
    from manylens import api
    from manylens.events import StageFinished, StageStarted
    from manylens.models.nano.model import Nano

    spent: dict[str, tuple[float, float]] = {"import": (0.0, time.process_time() - before)}
    inside, marks = [0.0], [("between", time.process_time(), 0.0)]
    compute = Nano._run

    def clocked(self: Nano, *given: Any) -> Any:
        began = time.process_time()
        try:
            return compute(self, *given)
        finally:
            inside[0] += time.process_time() - began

    def mark(stage: str) -> None:
        name, began, computed = marks.pop()
        networks, everything = spent.get(name, (0.0, 0.0))
        spent[name] = networks + inside[0] - computed, everything + time.process_time() - began
        marks.append((stage, time.process_time(), inside[0]))

    def hear(event: object) -> None:
        if isinstance(event, StageStarted):
            mark(event.stage)
        elif isinstance(event, StageFinished):
            mark(f"after {event.stage}")

    Nano._run = clocked  # type: ignore[method-assign]
    try:
        api.cluster(folder / "images", interests, out=out, on_event=hear)
    finally:
        Nano._run = compute  # type: ignore[method-assign]
    mark("end")
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=1, help="of the 312 cards")
    parser.add_argument("--interests", nargs="+", default=["suit"])
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    with tempfile.TemporaryDirectory() as scratch:
        cards = draw(Path(scratch) / "sample", given.copies)
        spent = measure(Path(scratch) / "sample", Path(scratch) / "out", given.interests)
    networks, everything = (sum(part[k] for part in spent.values()) for k in (0, 1))
    print(
        f"{cards} cards, {', '.join(given.interests)}\n\n| stage | in the networks | in all | beside |\n|{'---|' * 4}"
    )
    for stage, (computed, took) in [*spent.items(), ("**whole**", (networks, everything))]:
        print(f"| {stage} | {computed:.2f} | {took:.2f} | {took - computed:.2f} |")
    print(f"\nShare of the networks: {networks / everything:.3f}")


if __name__ == "__main__":
    main()
