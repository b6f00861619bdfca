"""How many questions the merge asks for M clusters: M log M, not M^2.

`python -m bench.merging [--seed N]`: M clusters of 6 images of M / 2 kinds (each kind in two clusters, half of those
under two descriptions), embeddings at random around the kinds' centres, a judge right 97 times in 100. No limit on
questions.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence

import numpy as np

from manylens.evidence import Answer, Draft, Looks, Standing, seeded_share
from manylens.merge import merge_clusters
from manylens.records import Interest, Settings

SIZE = 6


def many_clusters(clusters: int, seed: int) -> tuple[Looks, list[Draft], list[int]]:
    """Looks, drafts, and the kind of every image."""
    chance = np.random.default_rng(seed)
    kinds = [number // 2 for number in range(clusters) for _ in range(SIZE)]
    centres = chance.standard_normal((max(kinds) + 1, 64))
    rows = centres[kinds] + 0.5 * chance.standard_normal((len(kinds), 64))
    words = tuple(
        f"kind{kind} alt" if kind % 2 and number // SIZE % 2 else f"kind{kind}" for number, kind in enumerate(kinds)
    )
    looks = Looks(
        interest=Interest("kind"),
        image_ids=tuple(f"{number:08d}" for number in range(len(kinds))),
        descriptions=words,
        words=words,
        confidences=np.ones(len(kinds), np.float32),
        embeddings=(rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32),
    )
    drafts = []
    for number in range(clusters):
        images = range(SIZE * number, SIZE * (number + 1))
        drafts.append(Draft(frozenset({images[0]}), {image: Standing("trust") for image in images}))
    return looks, drafts, kinds


def count_questions(clusters: int, seed: int) -> tuple[int, int, float]:
    """Questions, clusters left, seconds."""
    looks, drafts, kinds = many_clusters(clusters, seed)
    steps = merge_clusters(looks, drafts, Settings())
    asked = 0
    began = time.perf_counter()
    answers: Sequence[Answer] | None = None
    try:
        while True:
            ask = next(steps) if answers is None else steps.send(answers)
            asked += len(ask.questions)
            answers = []
            for question in ask.questions:
                group = question.profile.exemplars[0]
                same = kinds[group] == kinds[question.candidate]
                wrong = seeded_share(seed, str(group), str(question.candidate)) < 0.03
                answers.append(Answer(0.97 if same != wrong else 0.03))
    except StopIteration as end:
        return asked, len(end.value), time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clusters", type=int, nargs="+", default=[10, 30, 100, 300, 1000, 3000, 10000])
    options = parser.parse_args()
    print("| M | questions | per M | per M log2 M | clusters left (true M / 2) | seconds |\n|---|---|---|---|---|---|")
    for m in options.clusters:
        asked, left, seconds = count_questions(m, options.seed)
        print(
            f"| {m:,} | {asked:,} | {asked / m:.2f} | {asked / m / math.log2(m):.3f} | {left:,} | {seconds:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
