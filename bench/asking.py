"""What asking every candidate would bring over the default, with nano on the labelled sets of `bench.nano_sets`.

`python -m bench.asking --data DIR --runs DIR [--sets NAME ...] [--whole]`: NMI of the descriptions alone, of the
default settings and of settings that trust nothing and have no allowance, with judgements per image. NMI counts each
unassigned image as a cluster of its own. Looks and judgements are kept in the runs folder, which `bench.thresholds` can
share.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.ablations import ask_every_candidate
from bench.nano_sets import SETS, chosen, open_set
from bench.thresholds import score
from manylens.evaluate import evaluate_labels
from manylens.records import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the unpacked sets")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[])
    parser.add_argument("--whole", action="store_true", help="every image of the sets, not 1,000 of each")
    options = parser.parse_args()
    numbers = "default: NMI | judgements per image | every candidate: NMI | judgements per image | loss"
    print(f"| set | n | interest | descriptions | {numbers} |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in chosen(options.sets):
        with open_set(options.data, options.runs, name, whole=options.whole) as parts:
            for part in parts:
                described = evaluate_labels(list(part.truth), list(part.looks.descriptions)).nmi
                default, few, _ = score(part, Settings())
                every, many, _ = score(part, ask_every_candidate(Settings(), len(part.looks)))
                head = f"{name} | {len(part.looks)} | {part.interest.text} | {described:.3f}"
                print(
                    f"| {head} | {default:.3f} | {few:.2f} | {every:.3f} | {many:.2f} | {every - default:.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
