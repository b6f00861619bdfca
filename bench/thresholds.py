"""How NMI and calls move over tau, with the model's own beta and b and with those calibrated for the interest.

`python -m bench.thresholds --data DIR --runs DIR [--sets NAME ...]`: nano on the labelled sets of `bench.nano_sets`,
default settings but for tau. `spread` is the best NMI of the row less that at tau .6. Looks and judgements are kept in
the runs folder, so a second call asks only what is new. NMI counts each unassigned image as a cluster of its own.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace
from pathlib import Path

from bench.nano_sets import SETS, Collected, chosen, open_set
from manylens.evaluate import evaluate_labels
from manylens.pipeline import cluster_looks
from manylens.records import Settings

TAUS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def score(collected: Collected, settings: Settings) -> tuple[float, float, int]:
    """NMI, judgements per image, K found."""
    found = asyncio.run(cluster_looks(collected.looks, collected.model, settings, lambda event: None))
    said = [assignment.cluster for assignment in found.assignments]
    scores = evaluate_labels(list(collected.truth), said)
    return scores.nmi, found.calls.judge / len(collected.looks), len(found.clusters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[])
    options = parser.parse_args()
    print("| set | n | interest | edges | " + " | ".join(f"tau {tau}" for tau in TAUS) + " | spread |")
    print("|---|---|---|---|" + "---|" * (len(TAUS) + 1))
    for name in chosen(options.sets):
        with open_set(options.data, options.runs, name) as parts:
            for part in parts:
                for words, questions in (("as learned", 0), ("calibrated", Settings().edge_questions)):
                    rows = [score(part, replace(Settings(), tau=tau, edge_questions=questions)) for tau in TAUS]
                    spread = max(nmi for nmi, _, _ in rows) - rows[TAUS.index(0.6)][0]
                    cells = " | ".join(f"{nmi:.3f} ({calls:.2f}, {k})" for nmi, calls, k in rows)
                    head = f"{name} | {len(part.looks)} | {part.interest.text} | {words}"
                    print(f"| {head} | {cells} | {spread:.3f} |", flush=True)


if __name__ == "__main__":
    main()
